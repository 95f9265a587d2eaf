//! What Nix's words mean, where its exit status does not say it. Pure.

use firn_crd::exit::Reason;

use super::exit::BuildStatus;

/// What was being done when Nix failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doing {
    /// Reading the flake.
    Evaluating,
    /// Making what was read.
    Building,
}

/// What is known of a Nix that failed.
#[derive(Debug, Clone, Copy)]
pub struct Failing<'a> {
    /// What was being done.
    pub doing: Doing,
    /// Its exit status, if it ended by itself.
    pub code: Option<i32>,
    /// Its errors, as plain text.
    pub errors: &'a str,
    /// The kernel killed a process of the container for lack of memory meanwhile.
    pub out_of_memory: bool,
    /// The store's disk is full.
    pub disk_full: bool,
    /// The source has no `flake.lock`.
    pub no_lock: bool,
}

const NO_SPACE: [&str; 2] = ["no space left on device", "disk quota exceeded"];
const LOCK: [&str; 3] = [
    "requires lock file changes",
    "cannot update unlocked",
    "no-update-lock-file",
];
const NO_ATTRIBUTE: [&str; 2] = ["does not provide attribute", "does not provide any default"];
const DOWNLOAD: [&str; 6] = [
    "unable to download",
    "could not resolve host",
    "couldn't resolve host",
    "failed to connect",
    "some substitutes for the outputs of derivation",
    "nix-cache-info",
];

/// The reason. Evaluation and build are told apart by the caller, since the words are the same.
pub fn reason(failing: &Failing<'_>) -> Reason {
    let errors = failing.errors.to_lowercase();
    let says = |phrases: &[&str]| phrases.iter().any(|phrase| errors.contains(phrase));
    if failing.out_of_memory || failing.code == Some(137) {
        return Reason::OutOfMemory;
    }
    if failing.disk_full || says(&NO_SPACE) {
        return Reason::StoreFull;
    }
    if let Some(status) = BuildStatus::of(failing.code) {
        return of_status(status);
    }
    if failing.doing == Doing::Building {
        return if says(&DOWNLOAD) {
            Reason::SubstituterUnavailable
        } else {
            Reason::BuildFailed
        };
    }
    if is_locking(&errors) {
        return if failing.no_lock {
            Reason::LockFileMissing
        } else {
            Reason::LockFileOutdated
        };
    }
    if says(&NO_ATTRIBUTE) {
        return Reason::AttributeNotFound;
    }
    // An indirect input without a lock would be looked up in a registry that we do not have.
    if failing.no_lock && says(&["cannot find flake", "in the flake registries"]) {
        return Reason::LockFileMissing;
    }
    Reason::EvaluationFailed
}

/// Whether Nix failed while it tried to make a lock. With a lock that fits, inputs are fetched
/// later, where they are used.
pub fn is_locking(errors: &str) -> bool {
    let errors = errors.to_lowercase();
    LOCK.iter().any(|phrase| errors.contains(phrase))
        || (errors.contains("while updating the lock file")
            && errors.contains("while updating the flake input"))
}

fn of_status(status: BuildStatus) -> Reason {
    if status.hash_mismatch {
        Reason::HashMismatch
    } else if status.timed_out {
        Reason::BuildTimeout
    } else if status.not_deterministic {
        Reason::NotDeterministic
    } else {
        Reason::BuildFailed
    }
}

/// The derivation that failed by itself, not for what it depends on.
pub fn failed_derivation(errors: &str) -> Option<&str> {
    let mut found = None;
    for line in errors.lines() {
        let Some(drv) = derivation_in(line) else {
            continue;
        };
        // The culprit is told before those that depend on it.
        let own = [
            "annot build '",
            "builder for '",
            "hash mismatch in fixed-output",
            "timed out",
        ];
        if own.iter().any(|phrase| line.contains(phrase)) {
            return Some(drv);
        }
        found = found.or(Some(drv));
    }
    found
}

fn derivation_in(line: &str) -> Option<&str> {
    let start = line.find("/nix/store/")?;
    let rest = line.get(start..)?;
    let end = rest.find(".drv")? + ".drv".len();
    let drv = rest.get(..end)?;
    drv.parse::<crate::store_path::StorePath>().ok()?;
    Some(drv)
}

/// Why a derivation failed, in Nix's words: what follows "Reason:", or "failed with" and the like.
pub fn build_cause(errors: &str) -> Option<&str> {
    errors.lines().find_map(|line| {
        let line = line.trim();
        let cause = line.strip_prefix("Reason: ").or_else(|| {
            let (_, cause) = line.split_once("builder for ")?;
            cause.find("failed ").and_then(|start| cause.get(start..))
        })?;
        Some(cause.trim_end_matches(['.', ';']))
    })
}

/// The lines of an evaluation's errors that tell the cause: from the last `error:` on, since Nix
/// prints the trace first.
pub fn essence(errors: &str) -> String {
    let start = errors.rfind("error:").unwrap_or_default();
    let text = errors.get(start..).unwrap_or(errors);
    let lines: Vec<&str> = text
        .lines()
        .map(str::trim)
        .filter(|l| !l.is_empty())
        .take(8)
        .collect();
    lines.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failing(doing: Doing, code: i32, errors: &str) -> Failing<'_> {
        Failing {
            doing,
            code: Some(code),
            errors,
            out_of_memory: false,
            disk_full: false,
            no_lock: false,
        }
    }

    /// As Nix 2.26 and 2.34 say it.
    const TABLE: &[(Doing, i32, &str, Reason)] = &[
        (
            Doing::Evaluating,
            1,
            "error: syntax error, unexpected end of file",
            Reason::EvaluationFailed,
        ),
        (
            Doing::Evaluating,
            1,
            "error: undefined variable 'pkgs'",
            Reason::EvaluationFailed,
        ),
        (
            Doing::Evaluating,
            1,
            "error: flake 'git+file:///x' does not provide attribute 'packages.x86_64-linux.nope'",
            Reason::AttributeNotFound,
        ),
        (
            Doing::Evaluating,
            1,
            "error: flake 'git+file:///x' requires lock file changes but they're not allowed due to '--no-update-lock-file'",
            Reason::LockFileOutdated,
        ),
        (
            Doing::Building,
            100,
            "error: builder for '/nix/store/x.drv' failed with exit code 1",
            Reason::BuildFailed,
        ),
        (
            Doing::Building,
            100,
            "error: writing to file: No space left on device",
            Reason::StoreFull,
        ),
        (
            Doing::Building,
            101,
            "error: timed out",
            Reason::BuildTimeout,
        ),
        (
            Doing::Building,
            102,
            "error: hash mismatch in fixed-output derivation",
            Reason::HashMismatch,
        ),
        (
            Doing::Building,
            104,
            "error: may not be deterministic",
            Reason::NotDeterministic,
        ),
        (
            Doing::Building,
            1,
            "error: unable to download 'https://cache.example/nar/x.nar': HTTP error 502",
            Reason::SubstituterUnavailable,
        ),
        (
            Doing::Building,
            1,
            "error: a 'aarch64-linux' with features {} is required to build",
            Reason::BuildFailed,
        ),
        (Doing::Building, 137, "", Reason::OutOfMemory),
        // A derivation that is imported while evaluating.
        (
            Doing::Evaluating,
            100,
            "error: builder for '/nix/store/x.drv' failed with exit code 1",
            Reason::BuildFailed,
        ),
    ];

    #[test]
    fn nix_is_understood() {
        for (doing, code, errors, expected) in TABLE {
            assert_eq!(
                reason(&failing(*doing, *code, errors)),
                *expected,
                "{errors}"
            );
        }
    }

    #[test]
    fn a_killed_builder_is_no_failed_build() {
        let plain = failing(
            Doing::Building,
            100,
            "error: builder failed due to signal 9 (Killed)",
        );
        assert_eq!(reason(&plain), Reason::BuildFailed);
        let killed = Failing {
            out_of_memory: true,
            ..plain
        };
        assert_eq!(reason(&killed), Reason::OutOfMemory);
        assert_eq!(
            reason(&Failing {
                disk_full: true,
                ..plain
            }),
            Reason::StoreFull
        );
    }

    #[test]
    fn a_missing_lock_is_told_from_an_outdated_one() {
        let missing = |errors| Failing {
            no_lock: true,
            ..failing(Doing::Evaluating, 1, errors)
        };
        for errors in [
            "error:\n … while updating the lock file of flake 'x'\n … while updating the flake input 'y'\n error: Failed to fetch git repository 'z'",
            "error: flake 'x' requires lock file changes but they're not allowed due to '--no-update-lock-file'",
            "error: cannot find flake 'flake:nixpkgs' in the flake registries",
        ] {
            assert_eq!(
                reason(&missing(errors)),
                Reason::LockFileMissing,
                "{errors}"
            );
        }
    }

    #[test]
    fn the_culprit_is_found() {
        let hash = "0a1b2c3d4f5g6h7i8j9kalbmcndpfqgr";
        let new = format!(
            "error: Cannot build '/nix/store/{hash}-fail.drv'.\nReason: builder failed with exit code 3.\nerror: Cannot build '/nix/store/{hash}-app.drv'.\nReason: 1 dependency failed."
        );
        let old = format!(
            "error: builder for '/nix/store/{hash}-fail.drv' failed with exit code 3;\nerror: 1 dependencies of derivation '/nix/store/{hash}-app.drv' failed to build"
        );
        for errors in [new, old] {
            let drv = failed_derivation(&errors);
            assert_eq!(drv, Some(format!("/nix/store/{hash}-fail.drv").as_str()));
            assert!(
                build_cause(&errors)
                    .unwrap()
                    .contains("failed with exit code 3")
            );
        }
        assert_eq!(failed_derivation("error: no"), None);
    }

    #[test]
    fn the_cause_stands_behind_the_trace() {
        let errors = "error:\n  … while calling 'x'\n  at /nix/store/y:1:1\n\n  error: undefined variable 'z'\n  at flake.nix:3:4:\n";
        assert_eq!(
            essence(errors),
            "error: undefined variable 'z' at flake.nix:3:4:"
        );
    }
}
