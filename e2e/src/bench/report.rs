//! The page that `make bench` writes. Pure.

use std::fmt::Write as _;
use std::time::Duration;

use super::arena::Run;
use super::cases::{Case, Runs};
use super::measure::median;
use super::peers::Peer;
use super::plan::EachInTurn;
use super::verdict::{Verdict, cpu, sent, wall};

/// Everything the page tells.
#[derive(Debug)]
pub struct Report<'a> {
    /// What it ran on, in one line.
    pub machine: &'a str,
    /// What was pushed, in one line.
    pub closure: &'a str,
    /// skopeo's version.
    pub skopeo: &'a str,
    /// Runs of each competitor in each row.
    pub rounds: usize,
    /// How long all of it took.
    pub took: Duration,
    /// The runs.
    pub runs: &'a Runs,
    /// Each path changed in turn, by strategy.
    pub in_turn: &'a [EachInTurn],
    /// What must be and what is.
    pub verdicts: &'a [Verdict],
}

impl Report<'_> {
    /// The page, in Markdown.
    pub fn to_markdown(&self) -> String {
        let mut page = format!(
            "# Benchmarks\n\n\
             Written by `make bench`; do not edit. What is measured, how, and why it is fair is below the tables.\n\n\
             * Machine: {}\n* Image: {}\n* {} interleaved runs each, medians; the whole took {} minutes.\n\
             * skopeo {}.\n\n## What must be\n\n| case | must be | is | |\n|---|---|---|---|\n",
            self.machine,
            self.closure,
            self.rounds,
            self.took.as_secs().div_ceil(60),
            self.skopeo,
        );
        for verdict in self.verdicts {
            let Verdict {
                row,
                wanted,
                found,
                holds,
                binding,
            } = verdict;
            let mark = match (holds, binding) {
                (true, _) => "holds",
                (false, true) => "**missed**",
                (false, false) => "missed (for a quiet machine with 2 cores)",
            };
            line(&mut page, &[row, wanted, found, mark]);
        }
        page.push_str(
            "\n## Times and bytes\n\n\
             | case | who | seconds | spread | CPU seconds | largest process, MiB | blobs sent | bytes of them | bytes on the wire, both ways | requests |\n\
             |---|---|--:|---|--:|--:|--:|--:|--:|--:|\n",
        );
        for case in Case::ALL {
            for ((_, peer), runs) in self.runs.iter().filter(|((c, _), _)| *c == case) {
                line(&mut page, &cells(case, *peer, runs));
            }
        }
        if !self.in_turn.is_empty() {
            page.push_str(
                "\n## Each single path changed in turn\n\n\
                 Bytes sent when one path, and so all that refer to it, is another: median and 95th \
                 percentile over all paths. *Least* is what changed, each path compressed by itself.\n\n\
                 | strategy | layers | sent | least | sent for each 100 of the least |\n|---|--:|--:|--:|--:|\n",
            );
        }
        for turn in self.in_turn {
            let pair =
                |(middle, high): (u64, u64)| format!("{} / {}", grouped(middle), grouped(high));
            line(
                &mut page,
                &[
                    turn.strategy
                        .as_deref()
                        .unwrap_or("Firn's default")
                        .to_owned(),
                    turn.layers.to_string(),
                    pair(turn.sent),
                    pair(turn.least),
                    pair(turn.percent),
                ],
            );
        }
        page.push_str(METHOD);
        page
    }
}

fn cells(case: Case, peer: Peer, runs: &[Run]) -> [String; 10] {
    let seconds = |time: Duration| format!("{:.2}", time.as_secs_f64());
    let walls = || runs.iter().map(|run| run.usage.wall);
    let count = |of: fn(&Run) -> u64| grouped(median(runs.iter().map(of)));
    [
        case.to_string(),
        peer.to_string(),
        format!("**{:.3}**", wall(runs).as_secs_f64()),
        format!(
            "{}–{}",
            seconds(walls().min().unwrap_or_default()),
            seconds(walls().max().unwrap_or_default())
        ),
        seconds(cpu(runs)),
        (median(runs.iter().map(|run| run.usage.peak)) >> 20).to_string(),
        count(|run| run.traffic.uploads),
        grouped(sent(runs)),
        count(|run| run.traffic.wire),
        count(|run| run.traffic.requests),
    ]
}

fn line(page: &mut String, cells: &[impl AsRef<str>]) {
    for cell in cells {
        // Writing into a String cannot fail.
        let _ = write!(page, "| {} ", cell.as_ref());
    }
    page.push_str("|\n");
}

/// `1 234 567`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

const METHOD: &str = "
## How it is measured

    make bench                                            # as root; 12 minutes; ends with 1 if a ratio is missed
    make bench BENCH='--rounds 9'
    make bench BENCH='--only new --only memory'           # parts; writes no page
    FIRN_BENCH_NIX2CONTAINER=/folder make bench           # with nix2container

* **What is pushed.** Debian packages of `e2e/debian/closure-trixie-amd64.lock`, one store path for each, their
  dependencies as references, and a program of 1 KB on top. They are unpacked once, without Nix, into
  `~/.cache/firn/bench` (1.2 GB with the packages). A change gives a path and all above it new names, as in a real store.
* **Where.** A network namespace with nothing but loopback, and distribution 3 with its storage in memory. Each run
  starts a new registry from the same state: empty, or what the same competitor pushed before. Contents of
  the store are in the page cache for all.
* **Fresh pod.** Each run is a new process without local state: no blob-info cache for skopeo. Firn is given the digest of
  the image before, as the operator gives it.
* **Archive.** Firn's own layers as a docker-archive, written as dockerTools' stream script does (every layer twice, one
  thread; but not in Python, which makes it a second faster), piped into skopeo.
* **nix2container.** Its own 100 layers, through its transport in skopeo's copy library. Hashing the layers, which it
  does inside a Nix build, is not counted. It is measured when `FIRN_BENCH_NIX2CONTAINER` names a folder with its two
  programs, `nix2container` and `skopeo`: they cannot be had as Go modules.
* **Floor.** Sorted tar, SHA-256, Firn's compressor and level, SHA-256 of the blob, on all cores; then an upload of each blob in
  one request. It knows no manifest, and checks no NAR hash as Firn does. It is compiled with optimisation, like Firn.
* **Time.** From the start of the first process to the end of the last; CPU seconds of all of them and their children (`wait4`),
  without the registry's, which shares the cores.
* **Bytes.** Blobs as the registry stored them in that run; the wire is loopback's own counter, with headers, both directions.
* **30 ms.** A relay that holds every byte back for 15 ms in each direction, whatever is under way.
* **Memory.** In a control group with that limit, page cache included.
* **The node's side.** The embedded cluster's containerd, fresh for each competitor, pulls the image, then the one with the changed
  path: blobs that it reads from the registry the second time, and layers that it unpacks.
* **Where Firn's time goes.** Everything new: 62 % zstd, 22 % SHA-256 (NAR, tar, blob), 11 % the kernel (reading and sending),
  by `perf` without the registry. Nothing changed: about 10 ms of processor time, half of it for the system's certificates,
  and three requests and the tag's HEAD.
* **Each path in turn.** Planned by `firn-streamer plan`, not pushed; the size of a layer is the sum of its paths', each compressed by itself.
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missed_line_is_seen() {
        let verdict = Verdict {
            row: "everything new".into(),
            wanted: "≤ 1".into(),
            found: "2".into(),
            holds: false,
            binding: true,
        };
        let page = Report {
            machine: "m",
            closure: "c",
            skopeo: "1",
            rounds: 5,
            took: Duration::from_secs(61),
            runs: &Runs::new(),
            in_turn: &[],
            verdicts: &[verdict],
        }
        .to_markdown();
        assert!(
            page.contains("| everything new | ≤ 1 | 2 | **missed** |\n"),
            "{page}"
        );
        assert!(page.contains("the whole took 2 minutes"));
    }

    #[test]
    fn long_numbers_are_grouped() {
        assert_eq!(grouped(7), "7");
        assert_eq!(grouped(1_234_567), "1 234 567");
    }
}
