//! A process by number and start time. A number alone is soon somebody else's.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::files::At;

/// One certain process, living or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Process {
    pub(super) pid: i32,
    /// Clock ticks between the machine's start and the process's.
    started: u64,
}

impl Process {
    /// This process, as the mounted `/proc` numbers it: in a new PID namespace that is the outer
    /// number, until a new `/proc` is mounted.
    pub(super) fn this() -> Result<Self> {
        let stat = fs::read_to_string("/proc/self/stat").context("failed to read own status")?;
        Self::parse(&stat).context("failed to understand /proc/self/stat")
    }

    /// What [`Self::write`] wrote; `None` if there is no such file or it is not whole.
    pub(super) fn read(file: &Path) -> Option<Self> {
        let text = fs::read_to_string(file).ok()?;
        let (pid, started) = text.trim().split_once(' ')?;
        Some(Self {
            pid: pid.parse().ok()?,
            started: started.parse().ok()?,
        })
    }

    /// Whole or not at all.
    pub(super) fn write(self, file: &Path) -> Result<()> {
        let partial = file.with_extension("partial");
        fs::write(&partial, format!("{} {}\n", self.pid, self.started))
            .and_then(|()| fs::rename(&partial, file))
            .at("write", file)
    }

    /// Whether that very process still runs (and is no zombie).
    pub(super) fn is_alive(self) -> bool {
        fs::read_to_string(format!("/proc/{}/stat", self.pid))
            .is_ok_and(|stat| Self::parse(&stat) == Some(self) && !stat.contains(") Z "))
    }

    /// `PID (NAME) STATE …`; NAME may hold anything, so the fields count from its closing bracket:
    /// the start time is number 22 in `proc_pid_stat(5)`, the 20th behind it.
    fn parse(stat: &str) -> Option<Self> {
        let (pid, _) = stat.split_once(' ')?;
        let (_, fields) = stat.rsplit_once(") ")?;
        Some(Self {
            pid: pid.parse().ok()?,
            started: fields.split(' ').nth(19)?.parse().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_does_not_shift_the_fields() {
        let stat = "17 (a) R 9) S 1 17 17 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4242 99 1";
        assert_eq!(
            Process::parse(stat),
            Some(Process {
                pid: 17,
                started: 4242
            })
        );
    }

    #[test]
    fn another_process_with_the_same_number_is_not_taken_for_it() {
        let this = Process::this().unwrap();
        assert!(this.is_alive());
        assert!(
            !Process {
                started: this.started + 1,
                ..this
            }
            .is_alive()
        );
    }

    #[test]
    fn what_was_written_is_read_and_half_a_file_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("init.pid");
        assert_eq!(Process::read(&file), None);
        let this = Process::this().unwrap();
        this.write(&file).unwrap();
        assert_eq!(Process::read(&file), Some(this));
        fs::write(&file, "17").unwrap();
        assert_eq!(Process::read(&file), None);
    }
}
