//! What the numbers must be, row by row, and whether they are. Pure.

use std::time::Duration;

use super::arena::Run;
use super::cases::{Case, ONE_WAY, Runs};
use super::measure::median;
use super::node::Cost;
use super::peers::Peer;

/// One demand and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The row.
    pub row: String,
    /// What must be.
    pub wanted: String,
    /// What is.
    pub found: String,
    /// Whether it holds.
    pub holds: bool,
    /// Whether the bench fails if it does not. Seconds are for a quiet machine of two cores;
    /// ratios within one run are for any.
    pub binding: bool,
}

/// Round trips that an unchanged push may take.
const ROUND_TRIPS: u32 = 6;

/// The median time on the wall.
pub fn wall(runs: &[Run]) -> Duration {
    median(runs.iter().map(|run| run.usage.wall))
}

/// The median time of the cores.
pub fn cpu(runs: &[Run]) -> Duration {
    median(runs.iter().map(|run| run.usage.cpu))
}

/// The median of the bytes of blobs sent.
pub fn sent(runs: &[Run]) -> u64 {
    median(runs.iter().map(|run| run.traffic.uploaded))
}

/// Judges the rows that were run.
pub fn timed(runs: &Runs) -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    let of = |case, peer| runs.get(&(case, peer)).map(Vec::as_slice);
    let fastest = |case| {
        let archives = [Peer::Gzip, Peer::Zstd].into_iter();
        let measured = archives.filter_map(|peer| Some((wall(of(case, peer)?), peer)));
        measured.min()
    };
    let mut judge = |case: Case, wanted: &str, found: String, holds: bool, binding: bool| {
        verdicts.push(Verdict {
            row: case.to_string(),
            wanted: wanted.to_owned(),
            found,
            holds,
            binding,
        });
    };
    if let (Some(firn), Some(floor)) = (of(Case::New, Peer::Firn), of(Case::New, Peer::Floor)) {
        let ratio = ratio(wall(firn), wall(floor));
        judge(
            Case::New,
            "≤ 1.3 × the floor",
            format!("{ratio:.2} ×"),
            ratio <= 1.3,
            true,
        );
    }
    for (case, least, seconds) in [
        (Case::New, 2.0, None),
        (Case::Unchanged, 25.0, Some(0.4)),
        (Case::OnePath, 12.0, Some(0.8)),
    ] {
        let (Some(firn), Some((archive, which))) = (of(case, Peer::Firn), fastest(case)) else {
            continue;
        };
        let factor = ratio(archive, wall(firn));
        let wanted = format!("≥ {least} × faster than the faster archive");
        judge(
            case,
            &wanted,
            format!("{factor:.1} × ({which})"),
            factor >= least,
            true,
        );
        if let Some(n2c) = of(case, Peer::Nix2container) {
            let factor = ratio(wall(n2c), wall(firn));
            judge(
                case,
                "faster than nix2container",
                format!("{factor:.1} ×"),
                factor > 1.0,
                true,
            );
        }
        if let Some(limit) = seconds {
            let took = wall(firn).as_secs_f64();
            judge(
                case,
                &format!("≤ {limit} s"),
                format!("{took:.3} s"),
                took <= limit,
                false,
            );
        }
        if case == Case::OnePath
            && let Some(archive) = of(case, which)
        {
            let (firn, archive) = (sent(firn), sent(archive));
            let found = format!("{firn} of {archive} bytes");
            judge(
                case,
                "≤ 1/20 of its bytes",
                found,
                firn * 20 <= archive,
                true,
            );
        }
    }
    if let Some(deleted) = of(Case::Deleted, Peer::Firn) {
        let uploads = deleted.iter().map(|run| run.traffic.uploads).max();
        let found = format!("{} uploads", uploads.unwrap_or_default());
        judge(Case::Deleted, "succeeds", found, uploads == Some(0), true);
    }
    if let Some(other) = of(Case::OtherRepository, Peer::Firn) {
        let uploads = other
            .iter()
            .map(|run| run.traffic.uploads)
            .max()
            .unwrap_or_default();
        let mounts = median(other.iter().map(|run| run.traffic.mounts));
        let found = format!("{uploads} uploads, {mounts} mounts");
        judge(
            Case::OtherRepository,
            "mounts, no uploads",
            found,
            uploads == 0 && mounts > 0,
            true,
        );
    }
    if let (Some(near), Some(far)) = (
        of(Case::Unchanged, Peer::Firn),
        of(Case::Latency, Peer::Firn),
    ) {
        let trips = ratio(wall(far).saturating_sub(wall(near)), 2 * ONE_WAY);
        let wanted = format!("≤ {ROUND_TRIPS} round trips more");
        let found = format!("{trips:.1} round trips more");
        judge(
            Case::Latency,
            &wanted,
            found,
            trips <= f64::from(ROUND_TRIPS),
            true,
        );
    }
    verdicts
}

/// Judges what a change of libraries sent against what changed, compressed by itself.
pub fn libraries(sent: u64, least: u64) -> Verdict {
    let ratio = quotient(sent, least);
    Verdict {
        row: Case::Libraries.to_string(),
        wanted: "≤ 1.05 × what changed, compressed by itself".to_owned(),
        found: format!("{ratio:.3} × ({sent} of {least} bytes)"),
        holds: ratio <= 1.05,
        binding: true,
    }
}

/// Judges what a change of one path costs a node, against the archive of the same layers.
pub fn node(firn: Cost, archive: Cost) -> Verdict {
    let words = |cost: Cost| {
        format!(
            "{} bytes pulled, {} layers unpacked",
            cost.pulled, cost.unpacked
        )
    };
    Verdict {
        row: "the node's side of it".to_owned(),
        wanted: "not worse than the archive".to_owned(),
        found: format!("{}; archive: {}", words(firn), words(archive)),
        holds: firn.pulled <= archive.pulled && firn.unpacked <= archive.unpacked,
        binding: true,
    }
}

/// Judges a run under a memory limit: it ended well, or there is no run.
pub fn memory(what: &str, limit: u64, peak: Result<u64, String>) -> Verdict {
    Verdict {
        row: format!("memory, {what}"),
        wanted: format!("runs within {} MiB", limit >> 20),
        holds: peak.is_ok(),
        found: match peak {
            Ok(peak) => format!("largest resident set {} MiB", peak >> 20),
            Err(error) => error,
        },
        binding: true,
    }
}

fn ratio(a: Duration, b: Duration) -> f64 {
    a.as_secs_f64() / b.as_secs_f64().max(1e-9)
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a ratio for people, of far less than 2^52 bytes"
)]
fn quotient(a: u64, b: u64) -> f64 {
    a as f64 / b.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::measure::Usage;
    use crate::bench::registry::Traffic;

    fn runs(wall: u64, uploaded: u64) -> Vec<Run> {
        vec![Run {
            usage: Usage {
                wall: Duration::from_millis(wall),
                cpu: Duration::from_millis(wall),
                peak: 1,
            },
            traffic: Traffic {
                uploads: uploaded.min(1),
                uploaded,
                ..Traffic::default()
            },
        }]
    }

    fn missed(runs: &Runs) -> Vec<String> {
        let verdicts = timed(runs).into_iter().filter(|v| v.binding && !v.holds);
        verdicts
            .map(|v| format!("{}: {}", v.row, v.wanted))
            .collect()
    }

    #[test]
    fn ratios_are_against_the_faster_archive_and_bind() {
        let mut all = Runs::from([
            ((Case::New, Peer::Firn), runs(3000, 0)),
            ((Case::New, Peer::Floor), runs(2500, 0)),
            ((Case::New, Peer::Gzip), runs(9000, 0)),
            ((Case::New, Peer::Zstd), runs(6000, 0)),
            ((Case::OnePath, Peer::Firn), runs(500, 10)),
            ((Case::OnePath, Peer::Zstd), runs(6000, 200)),
        ]);
        assert_eq!(missed(&all), Vec::<String>::new());
        all.insert((Case::New, Peer::Zstd), runs(5900, 0));
        all.insert((Case::OnePath, Peer::Zstd), runs(6000, 199));
        assert_eq!(
            missed(&all),
            [
                "everything new: ≥ 2 × faster than the faster archive",
                "one 1 KB path changed: ≤ 1/20 of its bytes"
            ]
        );
    }

    #[test]
    fn seconds_are_told_and_do_not_bind() {
        let all = Runs::from([
            ((Case::Unchanged, Peer::Firn), runs(600, 0)),
            ((Case::Unchanged, Peer::Zstd), runs(60_000, 0)),
        ]);
        assert_eq!(missed(&all), Vec::<String>::new());
        assert!(
            timed(&all)
                .iter()
                .any(|v| v.wanted == "≤ 0.4 s" && !v.holds)
        );
    }

    #[test]
    fn latency_counts_in_round_trips() {
        let all = |far| {
            Runs::from([
                ((Case::Unchanged, Peer::Firn), runs(100, 0)),
                ((Case::Latency, Peer::Firn), runs(far, 0)),
            ])
        };
        assert_eq!(missed(&all(279)), Vec::<String>::new());
        assert_eq!(missed(&all(281)).len(), 1);
    }
}
