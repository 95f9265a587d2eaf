//! The git program reads what `ls-refs` over HTTP cannot: a few objects of one commit
//! (`flake.lock`, the object ids of `trigger.paths`, the commit's time), and the refs of sources by
//! ssh. Depth 1, without blobs, into a bare repository in a temporary directory that is gone
//! afterwards; never a full clone. Everything about it is bounded: how many at once, time, output,
//! disk.
//!
//! The server and the repository are hostile: git runs without configuration files, hooks,
//! prompts, other protocols than the source's own, redirects or submodules, and nothing is checked
//! out. Credentials reach it by environment, which only its own user can read, and ssh's by files in
//! the temporary directory, which only its own user can enter.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{OpenOptions, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use firn_crd::ssh;
use jiff::Timestamp;
use tokio::sync::Semaphore;

use super::classify::{self, Asked};
use super::credentials::{Credentials, Trust};
use super::http::USER_AGENT;
use super::ls_refs::Ref;
use super::{Kind, SourceFailure, Target, ssh_program};
use crate::settings::{Network, Proxies};

mod commit;
mod process;
mod refs;

use commit::Repository;
use process::{Workspace, disk_exceeded, too_large};

/// Runs at once: with the most disk for one it bounds the operator's temporary directory to
/// 512 MiB.
const PROGRAMS_MAX: usize = 4;

/// Where a repository is, and what goes there.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'a> {
    /// As git takes it.
    pub(crate) url: &'a str,
    /// Credentials and certificates.
    pub(crate) trust: &'a Trust,
    /// Name of the Secret, for messages.
    pub(crate) secret: Option<&'a str>,
}

/// What is to be read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted<'a> {
    /// Full commit id.
    pub(crate) commit: &'a str,
    /// The ref it was found at, for servers that give commits by ref only.
    pub(crate) reference: Option<&'a str>,
    /// Directory of `flake.nix`.
    pub(crate) dir: &'a str,
    /// `trigger.paths`.
    pub(crate) paths: &'a [String],
    /// Longest time for all of it.
    pub(crate) timeout: Duration,
}

/// What was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hashes {
    /// sha256 of `flake.lock`; `None`: there is none.
    pub(crate) lock: Option<String>,
    /// sha256 over the object ids of the paths; `None`: no paths.
    pub(crate) paths: Option<String>,
    /// The committer's time; `None`: outside of what a timestamp can say.
    pub(crate) commit_time: Option<Timestamp>,
}

/// The program and where it may go.
#[derive(Debug)]
pub(crate) struct GitProgram {
    proxies: Proxies,
    cluster_ca: Option<Vec<u8>>,
    system_ca: PathBuf,
    plain_http: bool,
    operator: PathBuf,
    running: Semaphore,
}

impl GitProgram {
    /// A program that reaches the world as the settings say. `operator`: the operator's own
    /// program, which git calls as ssh.
    pub(crate) fn new(network: &Network, plain_http: bool, operator: PathBuf) -> Self {
        Self {
            proxies: network.proxies.clone(),
            cluster_ca: network.ca_pem.clone(),
            system_ca: network.system_ca_file.clone(),
            plain_http,
            operator,
            running: Semaphore::new(PROGRAMS_MAX),
        }
    }

    /// Reads what is wanted of a commit.
    pub(crate) async fn read(
        &self,
        place: Place<'_>,
        wanted: Wanted<'_>,
    ) -> Result<Hashes, SourceFailure> {
        let subject = format!("commit {}", wanted.commit);
        self.within(place, subject, wanted.timeout, async |git| {
            let commit = wanted.commit;
            Repository { git, commit }.read(wanted).await
        })
        .await
    }

    /// The refs that may be `target`, for servers that do not speak HTTP.
    pub(crate) async fn refs(
        &self,
        place: Place<'_>,
        target: &Target,
        timeout: Duration,
    ) -> Result<Vec<Ref>, SourceFailure> {
        let subject = "the list of refs".to_owned();
        self.within(place, subject, timeout, async |git| {
            refs::list(&git, target).await
        })
        .await
    }

    /// Does `work` in a temporary directory, within its limits.
    async fn within<T>(
        &self,
        place: Place<'_>,
        subject: String,
        timeout: Duration,
        work: impl AsyncFnOnce(Workspace<'_>) -> Result<T, SourceFailure>,
    ) -> Result<T, SourceFailure> {
        // Never closed. Waiting does not count as the server's time.
        let _permit = self
            .running
            .acquire()
            .await
            .map_err(|error| internal(&error.to_string()))?;
        let working = async {
            let directory = tempfile::Builder::new()
                .prefix("firn-source-")
                .permissions(Permissions::from_mode(0o700))
                .tempdir()
                .map_err(|error| internal(&format!("no temporary directory: {error}")))?;
            let git = self.workspace(directory.path(), place, subject)?;
            tokio::select! {
                done = work(git) => done,
                () = disk_exceeded(directory.path()) => Err(too_large(place.url)),
            }
        };
        tokio::time::timeout(timeout, working)
            .await
            .unwrap_or_else(|_| Err(classify::timeout(place.url, timeout)))
    }

    fn workspace<'a>(
        &self,
        root: &'a Path,
        place: Place<'a>,
        subject: String,
    ) -> Result<Workspace<'a>, SourceFailure> {
        let mut settings = vec![
            ("core.hooksPath", "/dev/null".to_owned()),
            ("core.fsmonitor", "false".to_owned()),
            ("credential.helper", String::new()),
            ("fetch.recurseSubmodules", "false".to_owned()),
            ("gc.auto", "0".to_owned()),
            ("maintenance.auto", "false".to_owned()),
            ("http.followRedirects", "false".to_owned()),
            ("http.sslVerify", "true".to_owned()),
            ("http.userAgent", USER_AGENT.to_owned()),
            ("pack.threads", "1".to_owned()),
            ("protocol.version", "2".to_owned()),
            ("remote.origin.url", place.url.to_owned()),
        ];
        let extra = [self.cluster_ca.as_deref(), place.trust.ca.as_deref()];
        if extra.iter().any(Option::is_some) {
            let bundle = root.join("ca.crt");
            self.write_bundle(&bundle, &extra)?;
            settings.push(("http.sslCAInfo", bundle.display().to_string()));
        }
        let mut environment = self.environment(root);
        let mut protocols = if self.plain_http {
            "http:https"
        } else {
            "https"
        };
        match &place.trust.credentials {
            None => {}
            Some(Credentials::Ssh(keys)) => {
                protocols = "ssh";
                environment.extend(self.ssh(root, keys)?);
            }
            Some(credentials) => {
                let value = credentials
                    .authorization()
                    .ok_or_else(|| internal("credentials that no header can hold"))?;
                let value = value
                    .to_str()
                    .map_err(|error| internal(&error.to_string()))?;
                settings.push(("http.extraHeader", format!("Authorization: {value}")));
            }
        }
        environment.insert("GIT_ALLOW_PROTOCOL".into(), protocols.into());
        environment.insert("GIT_CONFIG_COUNT".into(), settings.len().to_string().into());
        for (index, (key, value)) in settings.into_iter().enumerate() {
            environment.insert(format!("GIT_CONFIG_KEY_{index}").into(), key.into());
            environment.insert(format!("GIT_CONFIG_VALUE_{index}").into(), value.into());
        }
        Ok(Workspace {
            environment,
            directory: root,
            asked: Asked {
                url: place.url,
                secret: place.secret,
            },
            subject,
        })
    }

    /// What does not depend on the source.
    fn environment(&self, root: &Path) -> BTreeMap<OsString, OsString> {
        let mut environment: BTreeMap<OsString, OsString> = [
            ("GIT_DIR", root.join("git").into_os_string()),
            ("HOME", root.as_os_str().to_owned()),
            ("GIT_CONFIG_NOSYSTEM", "1".into()),
            ("GIT_CONFIG_GLOBAL", "/dev/null".into()),
            ("GIT_ATTR_NOSYSTEM", "1".into()),
            ("GIT_TERMINAL_PROMPT", "0".into()),
            ("GIT_NO_REPLACE_OBJECTS", "1".into()),
            ("LC_ALL", "C".into()),
        ]
        .map(|(name, value)| (name.into(), value))
        .into();
        // Where programs are differs between images: the one thing that is inherited.
        if let Some(path) = std::env::var_os("PATH") {
            environment.insert("PATH".into(), path);
        }
        for (name, value) in self.proxies.environment() {
            environment.insert(name.into(), value.into());
        }
        environment
    }

    /// Puts the keys where ssh reads them, and says what git is to call.
    fn ssh(
        &self,
        root: &Path,
        keys: &ssh::Keys,
    ) -> Result<[(OsString, OsString); 2], SourceFailure> {
        let failed = |error: std::io::Error| internal(&format!("no files for ssh: {error}"));
        write_private(&root.join(ssh::IDENTITY), &keys.identity).map_err(failed)?;
        write_private(&root.join(ssh::KNOWN_HOSTS), &keys.known_hosts).map_err(failed)?;
        let program = root.join(ssh_program::NAME);
        symlink(&self.operator, &program).map_err(failed)?;
        Ok([
            ("GIT_SSH".into(), program.into()),
            ("GIT_SSH_VARIANT".into(), "ssh".into()),
        ])
    }

    /// git trusts one file only: the system's certificates and the extra ones.
    fn write_bundle(&self, path: &Path, extra: &[Option<&[u8]>]) -> Result<(), SourceFailure> {
        // Without a system bundle the extra certificates are all there is to trust.
        let mut bundle = std::fs::read(&self.system_ca).unwrap_or_default();
        for pem in extra.iter().copied().flatten() {
            bundle.push(b'\n');
            bundle.extend_from_slice(pem);
        }
        std::fs::write(path, bundle)
            .map_err(|error| internal(&format!("failed to write {}: {error}", path.display())))
    }
}

/// A file that only its owner can read.
fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(text.as_bytes())
}

fn internal(what: &str) -> SourceFailure {
    SourceFailure::new(
        Kind::Internal,
        format!("the operator cannot read the source: {what}"),
    )
}
