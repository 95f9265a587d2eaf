//! Tests that did not hold, read from the output of test programs, to be told again at the very
//! end: the first time they are told, thousands of lines follow. Pure.

use std::collections::VecDeque;
use std::fmt;

/// Lines kept of what one test said. The last ones: they hold the error, after what was printed on
/// the way.
const LINES_MAX: usize = 12;
/// Characters kept of a line.
const LINE_MAX: usize = 300;
/// Failures kept of one command. Whoever has more begins with these.
const FAILURES_MAX: usize = 20;

/// A test that did not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The test's name, or that of the command that failed without naming one.
    pub test: String,
    /// The last lines of what it said.
    pub said: Vec<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.test)?;
        self.said
            .iter()
            .try_for_each(|line| write!(f, "\n    {line}"))
    }
}

/// Reads failures from the output of test programs, line by line.
#[derive(Debug, Default)]
pub(super) struct Failures {
    found: Vec<Failure>,
    current: Option<(String, VecDeque<String>)>,
}

impl Failures {
    /// Takes the next line. A failed test's words stand between `---- its name stdout ----` and the
    /// next such line, or `failures:`; those of a fuzz target after `test its name ... FAILED`.
    pub(super) fn read(&mut self, line: &str) {
        let line = line.trim_end();
        let section = line.strip_prefix("---- ");
        let section = section.and_then(|line| line.strip_suffix(" stdout ----"));
        let target = line.strip_prefix("test ");
        let target = target.and_then(|line| line.strip_suffix(" ... FAILED"));
        if let Some(test) = section.or(target) {
            self.end();
            // libtest says it in both ways: first that it failed, then why.
            self.found
                .retain(|failure| failure.test != test || !failure.said.is_empty());
            self.current = Some((test.to_owned(), VecDeque::new()));
        } else if line.starts_with("test ") || line == "failures:" {
            self.end();
        } else if let Some((_, said)) = &mut self.current
            && !line.is_empty()
        {
            if said.len() == LINES_MAX {
                said.pop_front();
            }
            said.push_back(line.chars().take(LINE_MAX).collect());
        }
    }

    /// What was found, when the command `step` has ended with this many failed tests: if it named
    /// none of them, the command itself.
    pub(super) fn finish(mut self, step: &str, failed: u32) -> Vec<Failure> {
        self.end();
        if self.found.is_empty() && failed > 0 {
            self.found.push(Failure {
                test: step.to_owned(),
                said: Vec::new(),
            });
        }
        self.found
    }

    fn end(&mut self) {
        if let Some((test, said)) = self.current.take()
            && self.found.len() < FAILURES_MAX
        {
            let said = said.into();
            self.found.push(Failure { test, said });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, failed: u32) -> Vec<String> {
        let mut failures = Failures::default();
        text.lines().for_each(|line| failures.read(line));
        let found = failures.finish("a command", failed);
        found.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_failed_test_is_named_with_its_last_words() {
        let long = "on the way\n".repeat(30);
        let text = format!(
            "running 3 tests\ntest one ... FAILED\ntest two ... ok\ntest three ... FAILED\n\n\
             failures:\n\n---- one stdout ----\n{long}Error: it rains\n\n---- three stdout ----\n\
             wet\n\nfailures:\n    one\n    three\n\ntest result: FAILED. 1 passed; 2 failed\n"
        );
        let found = read(&text, 2);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].starts_with("one\n"), "{found:?}");
        assert!(found[0].ends_with("\n    Error: it rains"), "{found:?}");
        assert_eq!(found[0].lines().count(), 1 + LINES_MAX);
        assert_eq!(found[1], "three\n    wet");
    }

    #[test]
    fn a_failed_fuzz_target_is_named_with_why() {
        let text = "test names ... ok (1 inputs, 2 s)\ntest git ... FAILED\nit panicked\n\
                    test tar ... ok (3 inputs, 1 s)\n\ntest result: FAILED. 2 passed; 1 failed";
        assert_eq!(read(text, 1), ["git\n    it panicked"]);
    }

    #[test]
    fn a_command_that_names_no_test_is_named_itself() {
        assert_eq!(read("it crashed", 1), ["a command"]);
        assert_eq!(read("test one ... ok", 0), [""; 0]);
    }
}
