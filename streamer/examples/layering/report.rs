//! The tables, and the page they are in.

use std::fmt::Write as _;

use firn_streamer::layering::Strategy;

use crate::change::{Reach, rebuild};
use crate::measure::{Cost, Layers, ceiling, cost, each_path, one_by_one, percentile, shared};
use crate::series::{FAMILY, Image, SETS, SUITES, Set, image};

const BUDGETS: [u32; 3] = [40, 100, 127];
const STRATEGIES: [Strategy; 3] = [Strategy::Stable, Strategy::Popularity, Strategy::BySize];
/// What everything is built upon, by the names it has had.
const LOW: [&str; 5] = ["libc6", "libssl3", "libssl3t64", "zlib1g", "libssl4"];

const BEGIN: &str = "<!-- tables: begin -->\n";
const END: &str = "<!-- tables: end -->\n";

/// `page` with the tables between its marks as they should be. None if it has no marks.
pub(crate) fn into_page(page: &str) -> Option<String> {
    let (before, rest) = page.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}{}{END}{after}", all()))
}

/// The whole comparison.
pub(crate) fn all() -> String {
    let sets: String = SETS.iter().map(each_path_of).collect();
    format!("{sets}{}{}{}", one_after_the_other(), low(), family())
}

/// Each path in turn, trixie's version exchanged for forky's.
pub(crate) fn each_path_of(set: &Set) -> String {
    let old = image(set, SUITES[1].1);
    let new = image(set, SUITES[2].1);
    let mut text = format!(
        "\n### {}: {} paths, {} MB\n\n\
         | strategy | most layers | layers | alone: median | p95 | per byte | layers sent \
         | with users: median | p95 | per byte | layers sent |\n\
         |---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n",
        set.name,
        old.len(),
        total(&old) / 1_000_000
    );
    for (budget, strategy) in every() {
        let layers = Layers::of(&old, budget, strategy).len();
        let _ = write!(text, "| {strategy} | {budget} | {layers} |");
        for reach in [Reach::Alone, Reach::Users] {
            let costs = each_path(&old, &new, budget, strategy, reach);
            text.push_str(&summary(&costs));
        }
        text.push('\n');
    }
    text
}

fn summary(costs: &[Cost]) -> String {
    let sent = || costs.iter().map(|cost| cost.sent);
    let changed: u64 = costs.iter().map(|cost| cost.changed).sum();
    let layers: usize = costs.iter().map(|cost| cost.layers).sum();
    let most = costs.iter().map(|cost| cost.layers).max();
    format!(
        " {} kB | {} kB | {} | {} (≤ {}) |",
        percentile(sent(), 50) / 1000,
        percentile(sent(), 95) / 1000,
        ratio(sent().sum(), changed),
        ratio(layers as u64, costs.len() as u64),
        most.unwrap_or_default(),
    )
}

/// From one suite to the next, a package at a time, at the layers most images have.
fn one_after_the_other() -> String {
    let budget = BUDGETS[1];
    let mut text = format!(
        "\n### One package after the other, in at most {budget} layers\n\n\
         | strategy | from, to | set | steps | alone: sent | per byte | layers sent \
         | with users: sent | per byte | layers sent |\n\
         |---|---|---|--:|--:|--:|--:|--:|--:|--:|\n",
    );
    for (from, to) in SUITES.iter().zip(&SUITES[1..]) {
        for set in &SETS {
            let (old, new) = (image(set, from.1), image(set, to.1));
            for strategy in STRATEGIES {
                let [alone, users] = [Reach::Alone, Reach::Users]
                    .map(|reach| one_by_one(&old, &new, budget, strategy, reach));
                let (from, to, steps) = (from.0, to.0, alone.len());
                let _ = write!(
                    text,
                    "| {strategy} | {from}, {to} | {} | {steps} |",
                    set.name
                );
                for costs in [alone, users] {
                    let sent: u64 = costs.iter().map(|cost| cost.sent).sum();
                    let changed: u64 = costs.iter().map(|cost| cost.changed).sum();
                    let layers: usize = costs.iter().map(|cost| cost.layers).sum();
                    let _ = write!(
                        text,
                        " {} MB | {} | {} |",
                        sent / 1_000_000,
                        ratio(sent, changed),
                        ratio(layers as u64, costs.len() as u64)
                    );
                }
                text.push('\n');
            }
        }
    }
    text
}

fn low() -> String {
    let mut text = String::from(
        "\n### libc, openssl and zlib built again, and all that uses them\n\n\
         | strategy | most layers |",
    );
    let changes = SETS.each_ref().map(|set| {
        let before = image(set, SUITES[1].1);
        let after = rebuild(&before, &LOW);
        (before, after)
    });
    for (set, (_, after)) in SETS.iter().zip(&changes) {
        let _ = write!(text, " {}, of {} MB |", set.name, total(after) / 1_000_000);
    }
    text.push_str("\n|---|--:|--:|--:|--:|\n");
    for (budget, strategy) in every() {
        let _ = write!(text, "| {strategy} | {budget} |");
        for (before, after) in &changes {
            let layers = Layers::of(before, budget, strategy);
            let cost = cost((before, &layers), after, budget, strategy);
            let sent = thousandths(cost.sent, cost.changed);
            let _ = write!(text, " {} MB, {sent} per byte |", cost.sent / 1_000_000);
        }
        text.push('\n');
    }
    text
}

/// What the images of a family have in common.
pub(crate) fn family() -> String {
    let images: Vec<Image> = FAMILY.iter().map(|set| image(set, SUITES[1].1)).collect();
    let (most, total) = ceiling(&images);
    let mut text = format!(
        "\n### A family of {} images, {} MB\n\n\
         If every path had a layer of its own, {} of the bytes would be shared.\n\n\
         | strategy | most layers | shared |\n|---|--:|--:|\n",
        images.len(),
        total / 1_000_000,
        percent(most, total)
    );
    for (budget, strategy) in every() {
        let of = |image: &Image| Layers::of(image, budget, strategy);
        let (same, total) = shared(&images.iter().map(of).collect::<Vec<_>>());
        let _ = writeln!(text, "| {strategy} | {budget} | {} |", percent(same, total));
    }
    text
}

fn every() -> impl Iterator<Item = (u32, Strategy)> {
    let each = |budget| {
        STRATEGIES
            .into_iter()
            .map(move |strategy| (budget, strategy))
    };
    BUDGETS.into_iter().flat_map(each)
}

fn total(image: &Image) -> u64 {
    image.values().map(|node| node.compressed).sum()
}

fn percent(part: u64, whole: u64) -> String {
    format!("{} %", 100 * part / whole.max(1))
}

/// With two digits after the point, rounded down.
fn ratio(a: u64, b: u64) -> String {
    let hundredths = a * 100 / b.max(1);
    format!("{}.{:02}", hundredths / 100, hundredths % 100)
}

/// With three.
fn thousandths(a: u64, b: u64) -> String {
    let parts = a * 1000 / b.max(1);
    format!("{}.{:03}", parts / 1000, parts % 1000)
}
