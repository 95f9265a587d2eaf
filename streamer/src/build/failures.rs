//! From a Nix that failed to a failure that a user understands.

use std::fmt::Write as _;
use std::path::Path;

use firn_crd::exit::Reason;

use super::Work;
use crate::failure::{Failure, chain};
use crate::nix::log::Log;
use crate::nix::words::{self, Doing, Failing, essence};
use crate::program::ProgramError;
use crate::resources;
use crate::stop::Stop;

impl Work<'_> {
    pub(super) fn failure(&self, doing: Doing, code: Option<i32>, log: &Log) -> Failure {
        let errors = log.errors();
        let reason = words::reason(&Failing {
            doing,
            code,
            errors,
            out_of_memory: resources::oom_kills() > self.oom_kills,
            disk_full: resources::disk_full(Path::new("/nix")),
            no_lock: self.fetched.lock_hash.is_none(),
        });
        let drv = words::failed_derivation(errors);
        let tail = drv.and_then(|drv| log.tail(drv)).unwrap_or(errors);
        Failure::new(reason, self.message(reason, errors, drv))
            .with_drv(drv.map(str::to_owned))
            .with_log(tail)
    }

    pub(super) fn not_run(&self, error: &ProgramError, doing: Doing, log: &Log) -> Failure {
        match error {
            ProgramError::TimedOut { .. } => {
                let running = log.running();
                let what = match (running, doing) {
                    (Some((drv, _)), _) => format!("{drv} was still being built"),
                    (None, Doing::Evaluating) => "the flake was still being evaluated".to_owned(),
                    (None, Doing::Building) => "downloads were still going on".to_owned(),
                };
                let limit = self.build.timeout_seconds;
                Failure::new(
                    Reason::BuildTimeout,
                    format!("the build did not end within {limit} s; {what}: raise `build.timeout` if it needs longer"),
                )
                .with_drv(running.map(|(drv, _)| drv.to_owned()))
                .with_log(running.map_or("", |(_, tail)| tail))
            }
            ProgramError::Stopped { .. } => Stop::failure(),
            ProgramError::Start { .. } | ProgramError::Read { .. } | ProgramError::Flood { .. } => {
                Failure::new(Reason::InternalError, chain(error))
            }
        }
    }

    fn message(&self, reason: Reason, errors: &str, drv: Option<&str>) -> String {
        let attribute = &self.build.attribute;
        let drv = drv.unwrap_or("a derivation");
        let cause = essence(errors);
        match reason {
            Reason::OutOfMemory => {
                let limit = self.memory_limit.map_or_else(
                    || "its memory limit".to_owned(),
                    |limit| format!("its memory limit of {} MiB", limit >> 20),
                );
                format!("the kernel killed a process of the build, which reached {limit}: raise `build.resources`")
            }
            Reason::StoreFull => "the disk under /nix is full: raise `build.storage`, or the node's ephemeral storage".to_owned(),
            Reason::LockFileMissing => "the flake has inputs but no flake.lock: run `nix flake lock`, and commit the file".to_owned(),
            Reason::LockFileOutdated => "flake.lock does not fit flake.nix: run `nix flake lock`, and commit the file".to_owned(),
            Reason::AttributeNotFound => format!(
                "the flake has no attribute {attribute:?}{}: name one that `nix flake show` lists, in a commit that has it",
                suggestion(errors)
            ),
            Reason::EvaluationFailed => format!("the flake does not evaluate: {cause}"),
            Reason::SubstituterUnavailable => format!("a substituter does not answer: {cause}"),
            Reason::HashMismatch => format!("{drv} gave other contents than its declared hash: correct the hash in the flake: {cause}"),
            Reason::NotDeterministic => format!("{drv} gave another result when it was built again"),
            Reason::BuildTimeout => format!("{drv} took too long: raise `build.timeout`"),
            _ => format!("{drv} did not build: {}", words::build_cause(errors).unwrap_or(&cause)),
        }
    }
}

/// `, asked for as packages.x86_64-linux.x`, and what Nix thinks was meant.
fn suggestion(errors: &str) -> String {
    let after = |phrase: &str| errors.split_once(phrase).map(|(_, rest)| rest);
    let end = |text: &str| text.lines().next().unwrap_or_default().to_owned();
    let mut text = String::new();
    if let Some(asked) = after("does not provide attribute ") {
        let _ = write!(text, ", asked for as {}", end(asked));
    }
    if let Some(meant) = after("Did you mean ") {
        let _ = write!(text, "; did you mean {}", end(meant));
    }
    text
}
