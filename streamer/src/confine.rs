//! Landlock around Nix: a build is arbitrary code, and without Nix's own sandbox it would see
//! everything the container sees.
//!
//! A domain binds one thread and what it starts. So Nix runs from a thread of its own, and this
//! process keeps what build code must not have: the handoff volume and the kubelet's file for the
//! report. Signals and memory of processes outside are out of reach as well. TCP is not refused:
//! Nix downloads from substituters in the same process. Not covered at all: UDP, and sockets that
//! are reached by a path.

use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access as _, AccessFs, CompatLevel, Compatible as _, PathBeneath, PathFd, Ruleset,
    RulesetAttr as _, RulesetCreatedAttr as _, RulesetError, RulesetStatus, Scope,
};

/// The newest set of rights that is asked for (Linux 6.12: signals); older kernels give fewer.
const RIGHTS: ABI = ABI::V6;

/// Programs, libraries, configuration, and what the kernel tells.
const READ: [&str; 8] = [
    "/bin", "/etc", "/lib", "/lib64", "/proc", "/sbin", "/sys", "/usr",
];
/// The store, scratch space, and devices that every program may expect. Not `/dev` itself: the
/// report's file is there.
const WRITE: [&str; 11] = [
    "/dev/fd",
    "/dev/full",
    "/dev/null",
    "/dev/ptmx",
    "/dev/pts",
    "/dev/random",
    "/dev/shm",
    "/dev/tty",
    "/dev/urandom",
    "/dev/zero",
    "/nix",
];

/// How much of the confinement the kernel gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Confinement {
    /// All of it.
    Full,
    /// Files at least, without what newer kernels add.
    Partial,
    /// None: the kernel has no Landlock, or it is switched off.
    None,
}

impl Confinement {
    /// What a user should know about it.
    pub fn note(self) -> Option<&'static str> {
        match self {
            Self::Full | Self::Partial => None,
            Self::None => Some("built without confinement: the node's kernel has no Landlock"),
        }
    }
}

/// Why a thread could not be confined although the kernel can.
#[derive(Debug, thiserror::Error)]
pub enum ConfineError {
    /// The kernel refuses a rule.
    #[error("failed to confine the build")]
    Rules(#[from] RulesetError),
    /// No thread to be had.
    #[error("failed to start a thread for the build")]
    Thread(#[source] std::io::Error),
    /// The thread ended by a panic.
    #[error("the build's thread panicked")]
    Panicked,
}

/// Runs `work` on a thread of its own that may read `extra_read` and write `extra_write` besides
/// what every program needs.
pub fn run<T: Send>(
    extra_read: &[PathBuf],
    extra_write: &[PathBuf],
    work: impl FnOnce(Confinement) -> T + Send,
) -> Result<T, ConfineError> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("confined".into());
        let running = thread
            .spawn_scoped(scope, || {
                let confinement = confine(extra_read, extra_write)?;
                tracing::info!(?confinement, "build confined by Landlock");
                Ok(work(confinement))
            })
            .map_err(ConfineError::Thread)?;
        running.join().map_err(|_| ConfineError::Panicked)?
    })
}

fn confine(extra_read: &[PathBuf], extra_write: &[PathBuf]) -> Result<Confinement, RulesetError> {
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(RIGHTS))?
        .scope(Scope::from_all(RIGHTS))?
        .create()?;
    let read = READ
        .iter()
        .map(Path::new)
        .chain(extra_read.iter().map(PathBuf::as_path));
    for path in read {
        rules = allow(rules, path, AccessFs::from_read(RIGHTS))?;
    }
    let write = WRITE
        .iter()
        .map(Path::new)
        .chain(extra_write.iter().map(PathBuf::as_path));
    for path in write {
        rules = allow(rules, path, AccessFs::from_all(RIGHTS))?;
    }
    Ok(match rules.restrict_self()?.ruleset {
        RulesetStatus::FullyEnforced => Confinement::Full,
        RulesetStatus::PartiallyEnforced => Confinement::Partial,
        RulesetStatus::NotEnforced => Confinement::None,
    })
}

/// What is not there needs no rule.
fn allow(
    rules: landlock::RulesetCreated,
    path: &Path,
    access: landlock::BitFlags<AccessFs>,
) -> Result<landlock::RulesetCreated, RulesetError> {
    match (PathFd::new(path), path.is_dir()) {
        (Ok(file), true) => rules.add_rule(PathBeneath::new(file, access)),
        (Ok(file), false) => {
            rules.add_rule(PathBeneath::new(file, access & AccessFs::from_file(RIGHTS)))
        }
        (Err(_), _) => Ok(rules),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where the kernel has no Landlock this shows only that it is said.
    #[test]
    fn what_is_not_listed_is_out_of_reach_for_the_thread_alone() {
        let dir = tempfile::tempdir().unwrap();
        let (open, secret) = (dir.path().join("open"), dir.path().join("secret"));
        std::fs::create_dir(&open).unwrap();
        std::fs::write(&secret, "canary").unwrap();
        let (confinement, readable, writable) =
            run(&[], std::slice::from_ref(&open), |confinement| {
                let readable = std::fs::read(&secret).is_ok();
                (
                    confinement,
                    readable,
                    std::fs::write(open.join("new"), "x").is_ok(),
                )
            })
            .unwrap();
        assert!(writable);
        assert_eq!(readable, confinement == Confinement::None);
        assert_eq!(std::fs::read_to_string(&secret).unwrap(), "canary");
    }

    #[test]
    fn programs_are_confined_with_the_thread() {
        let dir = tempfile::tempdir().unwrap();
        let secret = dir.path().join("secret");
        std::fs::write(&secret, "canary").unwrap();
        let (confinement, read) = run(&[], &[], |confinement| {
            let read = std::process::Command::new("cat").arg(&secret).output();
            (confinement, read.unwrap().status.success())
        })
        .unwrap();
        assert_eq!(read, confinement == Confinement::None);
    }
}
