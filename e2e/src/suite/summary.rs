//! The table at the end of `make test`, and whether the whole held. Pure.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::{Count, Expected, Failure, Ran, Tier};

/// What every tier came to.
#[derive(Debug, Default)]
pub struct Summary {
    tiers: BTreeMap<Tier, (Count, Duration)>,
    failures: Vec<(Tier, Failure)>,
    left_out: BTreeMap<Tier, String>,
    expected: Expected,
}

impl Summary {
    /// An empty summary that will be held against `expected`.
    pub fn new(expected: Expected) -> Self {
        Self {
            expected,
            ..Self::default()
        }
    }

    /// Adds what one command of `tier` came to.
    pub fn add(&mut self, tier: Tier, count: Count, took: Duration) {
        let (total, time) = self.tiers.entry(tier).or_default();
        *total += count;
        *time += took;
    }

    /// Adds one command of `tier` with the tests that failed in it.
    pub fn add_ran(&mut self, tier: Tier, ran: Ran, took: Duration) {
        self.add(tier, ran.count, took);
        let failures = ran.failures.into_iter();
        self.failures
            .extend(failures.map(|failure| (tier, failure)));
    }

    /// Leaves a whole tier out: its expected tests count as skipped.
    pub fn leave_out(&mut self, tier: Tier, why: impl Into<String>) {
        let skipped = self.expected.of(tier);
        self.add(
            tier,
            Count {
                skipped,
                ..Count::default()
            },
            Duration::ZERO,
        );
        self.left_out.insert(tier, why.into());
    }

    /// Whether anything of `tier` ran.
    pub fn ran(&self, tier: Tier) -> bool {
        self.tiers.contains_key(&tier)
    }

    /// All tiers together.
    pub fn total(&self) -> Count {
        let mut total = Count::default();
        for (count, _) in self.tiers.values() {
            total += *count;
        }
        total
    }

    /// Tiers with fewer tests than are expected, those skipped aloud included; with both numbers.
    pub fn missing(&self) -> Vec<(Tier, u32, u32)> {
        self.tiers
            .iter()
            .filter(|(tier, _)| !self.left_out.contains_key(tier))
            .map(|(tier, (count, _))| {
                (
                    *tier,
                    count.passed + count.failed + count.skipped,
                    self.expected.of(*tier),
                )
            })
            .filter(|(_, ran, expected)| ran < expected)
            .collect()
    }

    /// Whether every tier that was asked for ran.
    pub fn nothing_left_out(&self) -> bool {
        self.left_out.is_empty()
    }

    /// Whether everything that ran held and nothing that should have run is missing.
    pub fn held(&self) -> bool {
        self.total().failed == 0 && self.missing().is_empty()
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "tier       passed  failed  skipped  expected   seconds")?;
        for (tier, (count, took)) in &self.tiers {
            let Count {
                passed,
                failed,
                skipped,
            } = count;
            let expected = self.expected.of(*tier);
            let seconds = took.as_secs();
            writeln!(
                f,
                "{tier:<9} {passed:>7} {failed:>7} {skipped:>8} {expected:>9} {seconds:>9}"
            )?;
        }
        for (tier, failure) in &self.failures {
            writeln!(f, "failed: {tier}: {failure}")?;
        }
        for (tier, why) in &self.left_out {
            writeln!(f, "left out: {tier}: {why}")?;
        }
        for (tier, ran, expected) in self.missing() {
            writeln!(
                f,
                "missing: {tier}: {ran} tests ran, {expected} are expected"
            )?;
        }
        let Count {
            passed,
            failed,
            skipped,
        } = self.total();
        write!(f, "{passed} passed, {failed} failed, {skipped} skipped")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passed(passed: u32) -> Count {
        Count {
            passed,
            ..Count::default()
        }
    }

    #[test]
    fn fewer_tests_than_expected_are_a_failure() {
        let mut summary = Summary::new(Expected::parse("unit 3").unwrap());
        summary.add(Tier::Unit, passed(2), Duration::ZERO);
        assert_eq!(summary.missing(), [(Tier::Unit, 2, 3)]);
        assert!(!summary.held());
        summary.add(Tier::Unit, passed(1), Duration::ZERO);
        assert!(summary.held());
    }

    #[test]
    fn what_failed_is_told_again_at_the_end() {
        let mut summary = Summary::default();
        let failure = Failure {
            test: "it_rains".into(),
            said: vec!["wet".into()],
        };
        let ran = Ran {
            count: Count::one(false),
            failures: vec![failure],
        };
        summary.add_ran(Tier::Stories, ran, Duration::ZERO);
        let text = summary.to_string();
        assert!(
            text.contains("\nfailed: stories: it_rains\n    wet\n"),
            "{text}"
        );
    }

    #[test]
    fn what_is_left_out_counts_as_skipped_and_is_said() {
        let mut summary = Summary::new(Expected::parse("stories 7").unwrap());
        summary.leave_out(Tier::Stories, "not root");
        assert_eq!(summary.total().skipped, 7);
        assert!(summary.held());
        let text = summary.to_string();
        assert!(text.contains("left out: stories: not root"), "{text}");
        assert!(text.ends_with("\n0 passed, 0 failed, 7 skipped"), "{text}");
    }
}
