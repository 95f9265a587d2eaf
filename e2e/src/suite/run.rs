//! Runs one command of a tier: shows its output as it comes and counts the tests in it.

use std::ffi::OsString;
use std::io::{self, BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::Count;
use super::failure::{Failure, Failures};

/// One command of a tier.
#[derive(Debug)]
pub struct Step {
    /// What it is for, a few words.
    pub name: String,
    /// Program and arguments.
    pub command: Vec<OsString>,
    /// Additional environment.
    pub environment: Vec<(&'static str, OsString)>,
    /// The folder it runs in. Default: this process's.
    pub folder: Option<PathBuf>,
    /// What its success means.
    pub kind: Kind,
}

/// What a command's success means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It is one test.
    Check,
    /// Its output ends with the closing lines of test binaries.
    Tests,
    /// Nothing is tested by it, but without it the rest of the tier cannot run.
    Preparation,
}

impl Step {
    /// A command that is one test.
    pub fn check<S: Into<OsString>>(
        name: impl Into<String>,
        command: impl IntoIterator<Item = S>,
    ) -> Self {
        let command = command.into_iter().map(Into::into).collect();
        Self {
            name: name.into(),
            command,
            environment: Vec::new(),
            folder: None,
            kind: Kind::Check,
        }
    }

    /// A command that runs test binaries.
    pub fn tests<S: Into<OsString>>(
        name: impl Into<String>,
        command: impl IntoIterator<Item = S>,
    ) -> Self {
        Self {
            kind: Kind::Tests,
            ..Self::check(name, command)
        }
    }

    /// A command that the rest of the tier needs.
    pub fn build<S: Into<OsString>>(command: impl IntoIterator<Item = S>) -> Self {
        Self {
            kind: Kind::Preparation,
            ..Self::check("preparation", command)
        }
    }

    /// In the folder of the package whose tests it runs.
    #[must_use]
    pub fn of_package(mut self, folder: &Path) -> Self {
        self.folder = Some(folder.to_owned());
        // As cargo sets it; golden files are found by it.
        self.env("CARGO_MANIFEST_DIR", folder)
    }

    /// With one more variable in its environment.
    #[must_use]
    pub fn env(mut self, name: &'static str, value: impl Into<OsString>) -> Self {
        self.environment.push((name, value.into()));
        self
    }
}

/// What a command came to.
#[derive(Debug, PartialEq, Eq)]
pub struct Ran {
    /// Its tests.
    pub count: Count,
    /// Those that failed.
    pub failures: Vec<Failure>,
}

/// Runs the command to its end, passing its standard output on to `show` line by line, without
/// the lines' ends.
///
/// A command that fails without counting a failed test (it did not compile, it crashed) counts as
/// one failed test.
///
/// # Errors
/// The program cannot be started, or its output cannot be read.
pub fn run_step(step: &Step, show: &impl Fn(&[u8])) -> io::Result<Ran> {
    let mut words = step.command.iter();
    let program = words
        .next()
        .ok_or_else(|| io::Error::other("a step without a command"))?;
    let mut command = Command::new(program);
    if let Some(folder) = &step.folder {
        command.current_dir(folder);
    }
    let mut child = command
        .args(words)
        .envs(step.environment.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| {
            io::Error::new(
                error.kind(),
                format!("failed to start {}: {error}", program.display()),
            )
        })?;
    let mut count = Count::default();
    let mut failures = Failures::default();
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).split(b'\n') {
            let line = line?;
            show(&line);
            if step.kind == Kind::Tests {
                let line = String::from_utf8_lossy(&line);
                failures.read(&line);
                if let Some(one) = Count::of_libtest(&line) {
                    count += one;
                }
            }
        }
    }
    let held = child.wait()?.success();
    match step.kind {
        Kind::Check => count += Count::one(held),
        Kind::Tests | Kind::Preparation if !held && count.failed == 0 => count += Count::one(false),
        Kind::Tests | Kind::Preparation => {}
    }
    Ok(Ran {
        count,
        failures: failures.finish(&step.name, count.failed),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Step {
        Step::tests("a script", ["sh", "-c", script])
    }

    #[test]
    fn test_binaries_are_counted_together() {
        let line = "test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out";
        let count = run_step(&shell(&format!("echo '{line}'; echo '{line}'")), &|_| ())
            .unwrap()
            .count;
        assert_eq!(
            count,
            Count {
                passed: 4,
                failed: 0,
                skipped: 0
            }
        );
    }

    #[test]
    fn a_crash_is_a_failed_test() {
        assert_eq!(
            run_step(&shell("exit 3"), &|_| ()).unwrap().count,
            Count {
                failed: 1,
                ..Count::default()
            }
        );
    }

    #[test]
    fn a_preparation_is_no_test_unless_it_fails() {
        let count = |command| run_step(&Step::build([command]), &|_| ()).unwrap().count;
        assert_eq!(count("true"), Count::default());
        assert_eq!(
            count("false"),
            Count {
                failed: 1,
                ..Count::default()
            }
        );
    }

    #[test]
    fn a_check_is_one_test() {
        let step = Step::check("true", ["true"]);
        assert_eq!(
            run_step(&step, &|_| ()).unwrap().count,
            Count {
                passed: 1,
                ..Count::default()
            }
        );
    }
}
