//! What the end of a target's run means. Pure.

/// The target that has a bug by intention, and what it panics with.
pub const PLANTED: (&str, &str) = ("planted", "the planted bug");

/// Last lines of a failed run that are shown.
const LINES_MAX: usize = 40;

/// How a target's run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing was found (or, in the target with the planted bug, just that).
    Held {
        /// Inputs that were tried.
        runs: u64,
    },
    /// A promise was broken, or the search did not take place.
    Failed {
        /// Why, with the end of what the target said.
        why: String,
    },
}

impl Outcome {
    /// Of a target with so many committed inputs that ended well or not, and what it told.
    pub fn of(target: &str, ended_well: bool, seeds: usize, told: &str) -> Self {
        let (planted, bug) = PLANTED;
        let runs = told
            .lines()
            .filter_map(|line| line.strip_prefix("stat::number_of_executed_units:"))
            .find_map(|number| number.trim().parse().ok());
        let why = match (ended_well, runs) {
            (false, Some(runs)) if target == planted && told.contains(bug) => {
                return Self::Held { runs };
            }
            (true, _) if target == planted => "the planted bug was not found".to_owned(),
            // A program that tries nothing but what is committed searches nothing.
            (true, Some(runs)) if runs > seeds as u64 + 1 => return Self::Held { runs },
            (true, _) => "it tried no inputs of its own".to_owned(),
            (false, _) => {
                let lines: Vec<&str> = told.lines().collect();
                let from = lines.len().saturating_sub(LINES_MAX);
                lines.get(from..).unwrap_or_default().join("\n")
            }
        };
        Self::Failed { why }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATS: &str = "Done 1234 runs in 3 second(s)\nstat::number_of_executed_units: 1234\n";

    #[test]
    fn a_search_that_found_nothing_held() {
        let held = Outcome::Held { runs: 1234 };
        assert_eq!(Outcome::of("names", true, 20, STATS), held);
    }

    #[test]
    fn no_search_is_a_failure() {
        for (seeds, told) in [(20, ""), (1234, STATS)] {
            let outcome = Outcome::of("names", true, seeds, told);
            assert!(matches!(outcome, Outcome::Failed { .. }), "{outcome:?}");
        }
    }

    #[test]
    fn the_planted_bug_must_be_found_and_no_other() {
        let (target, bug) = PLANTED;
        let panic = format!("panicked at planted.rs:1:1:\n{bug}\n{STATS}");
        let held = Outcome::Held { runs: 1234 };
        assert_eq!(Outcome::of(target, false, 1, &panic), held);
        for outcome in [
            Outcome::of(target, true, 1, STATS),
            Outcome::of(target, false, 1, STATS),
            Outcome::of("names", false, 1, &panic),
        ] {
            assert!(matches!(outcome, Outcome::Failed { .. }), "{outcome:?}");
        }
    }
}
