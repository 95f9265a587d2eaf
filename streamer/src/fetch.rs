//! `fetch`: the source, and the flake's inputs, with the source's credentials, so that build needs
//! none. What is wrong with the flake itself is build's to say.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use firn_crd::exit::Reason;
use firn_crd::pod;
use firn_crd::report::{Outcome, StageName};
use firn_crd::run::{Build, Source};
use firn_oci::Digest;
use jiff::Timestamp;
use tokio::time::Instant;

use crate::ca;
use crate::failure::{Failure, Result, chain};
use crate::git::{Credentials, Git, PROTOCOLS, PROTOCOLS_WITH_SSH, Role, SshFiles};
use crate::handoff::{self, Fetched};
use crate::nix::Nix;
use crate::nix::config::{Home, base_environment};
use crate::nix::log::Log;
use crate::nix::words::{essence, is_locking};
use crate::program::ProgramError;
use crate::settings::Settings;
use crate::stages::Stages;
use crate::stop::Stop;

/// Largest `flake.lock` that is hashed, in bytes. The largest known have about 100 KB.
const LOCK_MAX: u64 = 16 << 20;

/// Fetches the source of `build` and its inputs.
pub async fn fetch(
    settings: &Settings,
    build: &Build,
    stages: &mut Stages,
    stop: &Stop,
) -> Result<Outcome> {
    let running = Stages::begin(StageName::Fetch);
    let result = fetch_all(settings, build, stop).await;
    stages.end(&running);
    result.map(|()| Outcome::Passed)
}

async fn fetch_all(settings: &Settings, build: &Build, stop: &Stop) -> Result<()> {
    let source = &build.source;
    let secret = settings.paths.at(pod::SOURCE_SECRET);
    let credentials = Credentials::read(&secret, &source.url)?;
    let internal = |error: io::Error| Failure::internal(&error);
    let bundle = settings.paths.tmp().join("ca-bundle.crt");
    let mounts = [pod::SOURCE_CA, pod::SOURCE_SECRET, pod::SUBSTITUTER_CA];
    let bundle = ca::bundle(settings, &mounts, &bundle).map_err(internal)?;
    let extra = nix_credentials(settings, &credentials, source).map_err(internal)?;
    let home = Home::create(settings, build, bundle.as_deref(), &extra).map_err(internal)?;
    // Until the inputs are there too: some may come by ssh.
    let ssh = match &credentials {
        Credentials::Ssh(keys) => {
            Some(SshFiles::write(&settings.paths.tmp(), keys).map_err(internal)?)
        }
        Credentials::None | Credentials::Basic { .. } | Credentials::Bearer(_) => None,
    };
    let git = Git {
        source,
        credentials: &credentials,
        ssh: ssh.as_ref(),
        ca_bundle: bundle.as_deref(),
        environment: &base_environment(settings, home.directory()),
        protocols: if ssh.is_some() {
            PROTOCOLS_WITH_SSH
        } else {
            PROTOCOLS
        },
        deadline: Instant::now() + Duration::from_secs(source.timeout_seconds),
        stop,
        role: Role::Source,
    };

    let checkout = settings.paths.checkout();
    // A container that the kubelet starts again finds what the first one left.
    match fs::remove_dir_all(&checkout) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(internal(error)),
        _ => fs::create_dir_all(&checkout).map_err(internal)?,
    }
    let commit = git.checkout(&checkout).await?;
    tracing::info!(commit = %source.commit, time = %commit.time, "source checked out");
    if source.submodules {
        let count = git.submodules(&checkout).await?;
        tracing::info!(count, "submodules checked out");
    }
    let flake = flake_directory(&checkout, source)?;
    let fetched = Fetched {
        commit: source.commit.clone(),
        commit_time: commit.time,
        lock_hash: lock_hash(&flake.join("flake.lock")).map_err(internal)?,
    };

    let mut environment = home.environment(settings);
    environment.extend(git.environment());
    let nix = Nix {
        environment,
        directory: settings.paths.tmp(),
        deadline: git.deadline,
        stop,
    };
    let reference = flake_reference(&checkout, source, commit.time);
    inputs(&nix, &credentials, source, &reference).await?;
    handoff::write(&settings.paths.fetched(), &fetched).map_err(|error| Failure::internal(&error))
}

/// Puts the flake's inputs into the store, as far as they can be had.
async fn inputs(
    nix: &Nix<'_>,
    credentials: &Credentials,
    source: &Source,
    reference: &str,
) -> Result<()> {
    let mut log = Log::new(io::stdout());
    let arguments = [
        "flake",
        "archive",
        "--no-update-lock-file",
        "--no-write-lock-file",
        reference,
    ];
    let finished = nix.run(&arguments, &mut log).await.map_err(|error| match error {
        ProgramError::TimedOut { .. } => Failure::new(
            Reason::SourceUnreachable,
            format!(
                "the inputs of the flake in {} were not fetched within {} s: raise the source's timeout",
                source.url, source.timeout_seconds
            ),
        ),
        ProgramError::Stopped { .. } => Stop::failure(),
        other => Failure::new(Reason::InternalError, chain(&other)),
    })?;
    if finished.status.success() {
        return Ok(());
    }
    let errors = credentials.redact(log.errors());
    let Some(reason) = input_failure(&errors) else {
        tracing::warn!("the flake's inputs could not be fetched; build will say why");
        return Ok(());
    };
    let message = format!(
        "an input of the flake in {} could not be fetched: {}",
        source.url,
        essence(&errors)
    );
    Err(Failure::new(reason, message).with_log(&errors))
}

/// Failures of fetching. `None`: the flake itself, which is build's to say.
fn input_failure(errors: &str) -> Option<Reason> {
    if is_locking(errors) {
        return None;
    }
    let errors = errors.to_lowercase();
    let says = |phrases: &[&str]| phrases.iter().any(|phrase| errors.contains(phrase));
    if says(&["host key verification failed"]) {
        return Some(Reason::HostKeyUnknown);
    }
    if says(&[
        "permission denied (publickey",
        "authentication failed",
        "could not read username",
        "http error 401",
        "http error 403",
        "returned error: 401",
        "returned error: 403",
    ]) {
        return Some(Reason::SourceAuthFailed);
    }
    // Forges answer 404 for what one may not see.
    if says(&["http error 404", "returned error: 404", "' not found"]) {
        return Some(Reason::SourceAuthFailed);
    }
    says(&[
        "unable to download",
        "could not resolve host",
        "couldn't resolve host",
        "failed to connect",
        "unable to access",
        "failed to fetch git repository",
        "http error 5",
    ])
    .then_some(Reason::SourceUnreachable)
}

/// The directory of `flake.nix`, which must be there and within the checkout.
fn flake_directory(checkout: &Path, source: &Source) -> Result<PathBuf> {
    let invalid = |what: &str| {
        Failure::new(
            Reason::SourceInvalid,
            format!("commit {} of {} {what}", source.commit, source.url),
        )
    };
    let flake = checkout.join(source.dir.trim_matches('/'));
    let real = |path: &Path| fs::canonicalize(path);
    let (Ok(root), Ok(found)) = (real(checkout), real(&flake)) else {
        return Err(invalid(&format!(
            "has no directory {:?}: check `dir`",
            source.dir
        )));
    };
    if !found.starts_with(root) {
        return Err(invalid(&format!("leads out of itself at {:?}", source.dir)));
    }
    if !found.join("flake.nix").is_file() {
        let dir = if source.dir.is_empty() {
            "its root"
        } else {
            &source.dir
        };
        return Err(invalid(&format!(
            "has no flake.nix in {dir}: check `dir`, or add it and commit it"
        )));
    }
    Ok(found)
}

fn lock_hash(file: &Path) -> io::Result<Option<String>> {
    match fs::metadata(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
        Ok(metadata) if metadata.len() > LOCK_MAX || !metadata.is_file() => {
            return Err(io::Error::other("flake.lock is no file, or too large"));
        }
        Ok(_) => {}
    }
    Ok(Some(Digest::of(&fs::read(file)?).hex()))
}

/// Settings that let Nix fetch tarballs and forge inputs from the source's server.
fn nix_credentials(
    settings: &Settings,
    credentials: &Credentials,
    source: &Source,
) -> io::Result<String> {
    let mut lines = String::new();
    if let Some(netrc) = credentials.netrc(&source.url) {
        let file = settings.paths.tmp().join("netrc");
        crate::nix::config::write_private(&file, &netrc)?;
        let _ = writeln!(lines, "netrc-file = {}", file.display());
    }
    if let Some(token) = credentials.access_token(&source.url) {
        let _ = writeln!(lines, "access-tokens = {token}");
    }
    Ok(lines)
}

/// The flake as Nix is to read it: the commit, so that `self.rev` and `lastModified` are true. The
/// checkout is shallow, which Nix wants to be told. With submodules it is no repository any more,
/// and Nix is told what git would tell it.
pub fn flake_reference(checkout: &Path, source: &Source, time: Timestamp) -> String {
    let (checkout, commit) = (checkout.display(), &source.commit);
    let mut reference = if source.submodules {
        // Nix knows no time before 1970.
        let time = time.as_second().max(0);
        format!("path:{checkout}?rev={commit}&lastModified={time}")
    } else {
        format!("git+file://{checkout}?rev={commit}&shallow=1")
    };
    let dir = source.dir.trim_matches('/');
    if !dir.is_empty() && dir != "." {
        reference.push_str("&dir=");
        for byte in dir.bytes() {
            if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
                reference.push(char::from(byte));
            } else {
                let _ = write!(reference, "%{byte:02X}");
            }
        }
    }
    reference
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(dir: &str) -> Source {
        Source {
            url: "https://git.example/app".into(),
            reference: None,
            commit: "c".repeat(40),
            dir: dir.into(),
            submodules: false,
            timeout_seconds: 60,
        }
    }

    #[test]
    fn the_reference_names_commit_and_directory() {
        let checkout = Path::new("/firn/source/checkout");
        let time = "2024-01-01T00:00:00Z".parse().unwrap();
        let reference = |dir| flake_reference(checkout, &source(dir), time);
        let root = format!(
            "git+file:///firn/source/checkout?rev={}&shallow=1",
            "c".repeat(40)
        );
        assert_eq!(reference(""), root);
        assert_eq!(reference("."), root);
        assert_eq!(
            reference("/nix/a b&x=1/"),
            format!("{root}&dir=nix/a%20b%26x%3D1")
        );
        let with_submodules = Source {
            submodules: true,
            ..source("nix")
        };
        assert_eq!(
            flake_reference(checkout, &with_submodules, time),
            format!(
                "path:/firn/source/checkout?rev={}&lastModified=1704067200&dir=nix",
                "c".repeat(40)
            )
        );
    }

    #[test]
    fn a_flake_must_be_where_it_is_said_to_be() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("sub")).unwrap();
        fs::write(dir.path().join("sub/flake.nix"), "{}").unwrap();
        assert!(flake_directory(dir.path(), &source("sub")).is_ok());
        for bad in ["", "gone", "..", "../.."] {
            let failure = flake_directory(dir.path(), &source(bad)).unwrap_err();
            assert_eq!(failure.reason(), Reason::SourceInvalid, "{bad}");
        }
    }

    #[test]
    fn the_flakes_own_faults_are_left_to_build() {
        for (errors, reason) in [
            ("error: syntax error, unexpected '}'", None),
            ("error: flake requires lock file changes", None),
            (
                "error:\n … while updating the lock file of flake 'x'\n … while updating the flake input 'y'\n error: Failed to fetch git repository 'z'",
                None,
            ),
            (
                "error: unable to download 'https://x/y': HTTP error 404",
                Some(Reason::SourceAuthFailed),
            ),
            (
                "error: unable to download 'https://x/y': Could not resolve host",
                Some(Reason::SourceUnreachable),
            ),
            (
                "No ED25519 host key is known for x\nHost key verification failed.\nfatal: Could not read from remote repository.",
                Some(Reason::HostKeyUnknown),
            ),
            (
                "fatal: could not read Username for 'https://x'",
                Some(Reason::SourceAuthFailed),
            ),
        ] {
            assert_eq!(input_failure(errors), reason, "{errors}");
        }
    }
}
