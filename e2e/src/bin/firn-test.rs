//! `make test`: runs every tier, counts, and says in one table what held.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use clap::Parser;
use firn_e2e::cluster::is_foreign;
use firn_e2e::suite::{Count, Expected, Kind, Step, Summary, Tier, run_step};

/// Runs the tests and sums them up.
#[derive(Debug, Parser)]
struct Arguments {
    /// Only these tiers. Default: all.
    #[arg(value_enum)]
    tiers: Vec<Tier>,
    /// Leave the cluster up afterwards, to look around.
    #[arg(long, env = "FIRN_KEEP_CLUSTER")]
    keep: bool,
    /// Only stories whose name contains this; the counts are not held against the expected ones.
    #[arg(long)]
    only: Option<String>,
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let expected = if arguments.only.is_some() {
        Expected::default()
    } else {
        Expected::parse(include_str!("../../expected-tests"))?
    };
    let mut summary = Summary::new(expected);
    let bin = std::env::current_exe()?
        .parent()
        .context("this program has no folder")?
        .to_owned();
    for tier in Tier::ALL {
        if !arguments.tiers.is_empty() && !arguments.tiers.contains(&tier) {
            continue;
        }
        if let Some(why) = left_out(tier) {
            summary.leave_out(tier, why);
            continue;
        }
        for step in steps(tier, &bin, &arguments) {
            say(&format!("== {tier}: {}", step.name));
            let start = Instant::now();
            let count = run_step(&step, &mut std::io::stdout())?;
            summary.add(tier, count, start.elapsed());
            // What the others need is missing; one failure says it better than forty.
            if count.failed > 0 && step.kind == Kind::Preparation {
                break;
            }
        }
    }
    if is_foreign() && summary.ran(Tier::Stories) {
        for (story, why) in EMBEDDED_ONLY {
            let skipped = Count {
                skipped: 1,
                ..Count::default()
            };
            summary.add(Tier::Stories, skipped, Duration::ZERO);
            say(&format!(
                "skipped: {story}: {why}, which only the embedded cluster shows"
            ));
        }
    }
    if summary.ran(Tier::Stories)
        && left_out(Tier::Stories).is_none()
        && !is_foreign()
        && !arguments.keep
    {
        let down = Step::check(
            "cluster down",
            [bin.join("firn-cluster").into_os_string(), "down".into()],
        );
        run_step(&down, &mut std::io::stdout())?;
    }
    say(&format!("\n{summary}"));
    let complete = summary.nothing_left_out() || !in_ci();
    Ok(if summary.held() && complete {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Stories that need more of a cluster than its API.
const EMBEDDED_ONLY: [(&str, &str); 2] = [
    ("operator_killed", "it reads the API server's audit log"),
    ("the_figures_in_status", "it reads the registry's own log"),
];

#[expect(
    clippy::print_stdout,
    reason = "the summary is what this program is for"
)]
fn say(text: &str) {
    println!("{text}");
}

#[expect(
    clippy::disallowed_methods,
    reason = "the edge: CI=true makes leaving tests out a failure"
)]
fn in_ci() -> bool {
    std::env::var("CI").is_ok_and(|value| value == "true")
}

/// Why a tier cannot run here.
fn left_out(tier: Tier) -> Option<&'static str> {
    if !tier.needs_cluster() || (tier == Tier::Stories && is_foreign()) {
        return None;
    }
    if !cfg!(target_os = "linux") {
        return Some("the embedded cluster needs Linux; set FIRN_E2E_KUBECONFIG to use another");
    }
    if !rustix::process::geteuid().is_root() {
        return Some("the embedded cluster needs root; set FIRN_E2E_KUBECONFIG to use another");
    }
    None
}

fn steps(tier: Tier, bin: &Path, arguments: &Arguments) -> Vec<Step> {
    let cargo = |words: &str| -> Vec<OsString> { words.split(' ').map(Into::into).collect() };
    let tool = |name: &str, words: &[&str]| -> Vec<OsString> {
        let program: PathBuf = bin.join(name);
        std::iter::once(program.into_os_string())
            .chain(words.iter().map(Into::into))
            .collect()
    };
    match tier {
        Tier::Checks => vec![
            Step::check("formatting", cargo("cargo fmt --all --check")),
            Step::check(
                "clippy",
                cargo("cargo clippy --workspace --all-targets -- -D warnings"),
            ),
            Step::check(
                "rustdoc",
                cargo("cargo doc --workspace --no-deps --document-private-items"),
            )
            .env("RUSTDOCFLAGS", "-D warnings"),
            Step::check(
                "licences",
                cargo("e2e/cargo-deny check --hide-inclusion-graph licenses bans sources"),
            ),
        ],
        Tier::Unit => vec![Step::tests(
            "tests beside the code",
            cargo("cargo test --quiet --no-fail-fast --workspace --lib --bins"),
        )],
        Tier::Package => vec![Step::tests(
            "golden files and protocols",
            cargo("cargo test --quiet --no-fail-fast --test *"),
        )],
        Tier::Parts => vec![
            Step::build(tool("firn-cluster", &["build"])),
            Step::tests(
                "cluster, images, charts",
                cargo(
                    "cargo test --no-fail-fast --package firn-e2e --test parts -- --test-threads=1",
                ),
            ),
        ],
        Tier::Stories => {
            // Inside the embedded cluster's network; a foreign cluster is reached from here.
            let foreign = is_foreign();
            let stories = |more: &[&str]| {
                let mut words = if foreign {
                    Vec::new()
                } else {
                    tool("firn-cluster", &["exec", "--"])
                };
                words.extend(cargo(
                    "cargo test --offline --package firn-e2e --test stories --",
                ));
                words.extend(more.iter().map(Into::into));
                words
            };
            let mut steps = vec![
                Step::build(cargo(
                    "cargo test --package firn-e2e --test stories --no-run",
                )),
                Step::build(cargo("cargo build --package firn-operator")),
            ];
            if !foreign {
                steps.push(Step::build(tool("firn-cluster", &["up"])));
            }
            steps.push(Step::build(tool("firn-install", &[])));
            let mut skip: Vec<&str> = Vec::new();
            if foreign {
                skip.extend(
                    EMBEDDED_ONLY
                        .iter()
                        .flat_map(|(story, _)| ["--skip", story]),
                );
            }
            if let Some(only) = &arguments.only {
                // Filters of the test binary add up, so this is a run of its own.
                skip.extend([only.as_str(), "--test-threads=1"]);
                steps.push(Step::tests("some stories", stories(&skip)));
                return steps;
            }
            let side_by_side = [&skip[..], &["--skip", "alone::", "--test-threads=4"]].concat();
            steps.push(Step::tests("stories side by side", stories(&side_by_side)));
            let alone = [&skip[..], &["alone::", "--test-threads=1"]].concat();
            steps.push(Step::tests(
                "stories that want the cluster for themselves",
                stories(&alone),
            ));
            steps
        }
    }
}
