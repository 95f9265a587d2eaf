//! How many tests passed, failed and were left out. Pure.

use std::ops::AddAssign;

/// Numbers of tests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Count {
    /// Ran and held.
    pub passed: u32,
    /// Ran and did not hold, or could not run for a reason that is a fault.
    pub failed: u32,
    /// Could not run here, for a reason that was said.
    pub skipped: u32,
}

impl Count {
    /// Reads the closing line of one test binary:
    /// `test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 2 filtered out; …`.
    ///
    /// `None`: the line is something else.
    pub fn of_libtest(line: &str) -> Option<Self> {
        let rest = line.trim().strip_prefix("test result: ")?;
        let (_, numbers) = rest.split_once(". ")?;
        let mut count = Self::default();
        for part in numbers.split("; ") {
            let Some((number, what)) = part.split_once(' ') else {
                continue;
            };
            let Ok(number) = number.parse() else { continue };
            match what {
                "passed" => count.passed = number,
                // What cannot run is left out by name and with a reason, never by `#[ignore]`.
                "failed" | "ignored" => count.failed += number,
                _ => {}
            }
        }
        Some(count)
    }

    /// One test that held, or did not.
    pub const fn one(held: bool) -> Self {
        Self {
            passed: held as u32,
            failed: !held as u32,
            skipped: 0,
        }
    }
}

impl AddAssign for Count {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closing_line_of_a_test_binary_is_counted() {
        let line = "test result: FAILED. 3 passed; 2 failed; 1 ignored; 0 measured; 7 filtered out; finished in 0.01s";
        assert_eq!(
            Count::of_libtest(line),
            Some(Count {
                passed: 3,
                failed: 3,
                skipped: 0
            })
        );
        assert_eq!(Count::of_libtest("test a_story ... ok"), None);
    }
}
