//! How a container ends: the report goes to the kubelet, the exit code to the Job.

use std::fs;
use std::path::{Path, PathBuf};

use firn_crd::exit::Reason;
use firn_crd::report::{Outcome, Report, Stage};

use crate::failure::{Failure, Result};

/// Writes the report and says what to exit with.
pub fn conclude(termination_log: &Path, result: Result<Outcome>, stages: Vec<Stage>) -> u8 {
    let outcome = result.unwrap_or_else(|failure| Outcome::Failed(failure.0));
    let code = match &outcome {
        Outcome::Failed(failed) => {
            tracing::error!(reason = %failed.reason, drv = failed.drv_path, "{}", failed.message);
            code_of(failed.reason)
        }
        Outcome::Passed
        | Outcome::NotChanged { .. }
        | Outcome::Pushed(_)
        | Outcome::Published { .. } => 0,
    };
    write(termination_log, &Report::new(outcome, stages));
    code
}

fn code_of(reason: Reason) -> u8 {
    // Reasons without a code are the operator's to find; none is ever made here.
    reason.exit_code().unwrap_or(70)
}

/// The kubelet makes the file; it is truncated, not replaced, since it is a mount.
fn write(termination_log: &Path, report: &Report) {
    if let Err(error) = fs::write(termination_log, report.to_message()) {
        // The exit code still tells the reason.
        tracing::error!(path = %termination_log.display(), %error, "failed to write the report");
    }
}

/// From now on a panic, in whatever thread, leaves a report and ends the process.
pub fn report_panics(termination_log: PathBuf) {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        before(panic);
        let payload = panic.payload();
        let text = payload.downcast_ref::<&str>().copied();
        let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        let text = text.unwrap_or("no message");
        let place = panic
            .location()
            .map(ToString::to_string)
            .unwrap_or_default();
        let failure = Failure::new(
            Reason::InternalError,
            format!("firn-streamer stopped at {place}: {text}: please report this as a bug"),
        );
        let code = conclude(&termination_log, Err(failure), Vec::new());
        end(code);
    }));
}

#[expect(
    clippy::exit,
    reason = "after a panic nothing else may run, and 101 belongs to Rust"
)]
fn end(code: u8) -> ! {
    std::process::exit(i32::from(code))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_leaves_its_report_and_its_code() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("termination-log");
        let failure = Failure::new(Reason::RevisionNotFound, "no such branch");
        assert_eq!(conclude(&log, Err(failure.clone()), Vec::new()), 12);
        let report = Report::parse(&fs::read_to_string(&log).unwrap()).unwrap();
        assert_eq!(report.result, Outcome::Failed(failure.0));
    }

    #[test]
    fn success_is_zero() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("termination-log");
        assert_eq!(conclude(&log, Ok(Outcome::Passed), Vec::new()), 0);
    }
}
