//! The source by the git program: one commit, hardened, with credentials that no argument shows.

mod classify;
mod credentials;
pub mod gitmodules;
pub mod remote;
mod ssh;
mod submodules;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use firn_crd::exit::Reason;
use firn_crd::run::Source;
use firn_crd::ssh::{SshUrl, Trouble, essence as ssh_essence};
use jiff::Timestamp;
use tokio::time::Instant;

pub use credentials::Credentials;
pub use ssh::SshFiles;

use crate::failure::{Failure, Result, chain, plain};
use crate::program::{Program, ProgramError};
use crate::stop::Stop;

/// Transports that git may use: no `file` (submodules, redirects), no `ext` (runs programs).
pub const PROTOCOLS: &str = "https:http";
/// The same where there are keys for ssh.
pub const PROTOCOLS_WITH_SSH: &str = "https:http:ssh";
/// How far back a commit is looked for behind its branch when the server gives no commits by
/// name, before the whole history is asked for.
const DEEPEN: u32 = 200;
/// Last lines of git's errors that are kept.
const ERROR_LINES: usize = 20;

/// Git with all that it needs to reach one server.
#[derive(Debug)]
pub struct Git<'a> {
    /// What is fetched.
    pub source: &'a Source,
    /// For its server.
    pub credentials: &'a Credentials,
    /// The same as files, if the source is by ssh.
    pub ssh: Option<&'a SshFiles>,
    /// Trusted certificates.
    pub ca_bundle: Option<&'a Path>,
    /// What every program gets: `PATH`, `HOME`, proxies.
    pub environment: &'a BTreeMap<String, OsString>,
    /// Transports, see [`PROTOCOLS`].
    pub protocols: &'a str,
    /// When to give up.
    pub deadline: Instant,
    /// When to go.
    pub stop: &'a Stop,
    /// Whose repository it is.
    pub role: Role,
}

/// Whose repository is fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// That of the spec.
    Source,
    /// One that a repository names: it is asked there and nowhere else.
    Submodule,
}

/// A commit that was checked out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Commit {
    /// By its committer's clock.
    pub time: Timestamp,
}

impl Git<'_> {
    /// Gets the commit and puts its files into `checkout`, which is made anew.
    pub async fn checkout(&self, checkout: &Path) -> Result<Commit> {
        let commit = &self.source.commit;
        let hex = commit.bytes().all(|b| b.is_ascii_hexdigit());
        let format = match commit.len() {
            40 if hex => "sha1",
            64 if hex => "sha256",
            _ => {
                return Err(Failure::new(
                    Reason::InternalError,
                    format!("{commit:?} is not a full commit id"),
                ));
            }
        };
        let format = format!("--object-format={format}");
        self.must(checkout, &["init", "--quiet", &format, "."])
            .await?;
        self.fetch(checkout).await?;
        // On a branch: Nix warns of a HEAD without a name.
        self.must(
            checkout,
            &["checkout", "--quiet", "-B", "firn", commit, "--"],
        )
        .await?;
        let head = self
            .must(checkout, &["rev-parse", "--verify", "HEAD"])
            .await?;
        if head.trim() != *commit {
            return Err(Failure::new(
                Reason::SourceInvalid,
                format!(
                    "{} gave commit {} for {commit}",
                    self.source.url,
                    head.trim()
                ),
            ));
        }
        let time = self
            .must(checkout, &["show", "--no-patch", "--format=%ct", "HEAD"])
            .await?;
        let time = time
            .trim()
            .parse()
            .ok()
            .and_then(|s| Timestamp::from_second(s).ok());
        time.map(|time| Commit { time }).ok_or_else(|| {
            Failure::new(
                Reason::SourceInvalid,
                format!("commit {commit} of {} has no valid date", self.source.url),
            )
        })
    }

    /// The commit by its id; else by the name it was found under, then further and further back.
    async fn fetch(&self, checkout: &Path) -> Result<()> {
        let (url, commit) = (&self.source.url, &self.source.commit);
        let by_id = self.fetch_one(checkout, &["--depth=1"], &[commit]).await;
        match &by_id {
            Err(failure) if failure.reason() == Reason::RevisionNotFound => {}
            _ => return by_id,
        }
        let object = format!("{commit}^{{commit}}");
        let Some(reference) = &self.source.reference else {
            if self.role == Role::Source {
                return by_id;
            }
            // It was found under no name: any may lead there.
            tracing::info!(%commit, %url, "the server gives no commits by id: trying all names");
            let all = [
                "+refs/heads/*:refs/firn/heads/*",
                "+refs/tags/*:refs/firn/tags/*",
            ];
            self.fetch_one(checkout, &[], &all).await?;
            let there = self.git(checkout, &["cat-file", "-e", &object]).await?.0;
            return if there { Ok(()) } else { by_id };
        };
        tracing::info!(%commit, %reference, "the server gives no commits by id: trying the name");
        let deepen = format!("--depth={DEEPEN}");
        for depth in ["--depth=1", &deepen, "--unshallow"] {
            if depth == "--unshallow" && !checkout.join(".git/shallow").exists() {
                break;
            }
            self.fetch_one(checkout, &[depth], &[reference]).await?;
            if self.git(checkout, &["cat-file", "-e", &object]).await?.0 {
                return Ok(());
            }
        }
        Err(Failure::new(
            Reason::RevisionNotFound,
            format!(
                "commit {commit} is not in the history of {reference} of {url}: was it overwritten by a forced push?"
            ),
        ))
    }

    async fn fetch_one(&self, checkout: &Path, options: &[&str], what: &[&str]) -> Result<()> {
        let mut arguments = vec!["fetch", "--quiet", "--no-tags", "--no-recurse-submodules"];
        arguments.extend(options);
        arguments.extend(["--", &self.source.url]);
        arguments.extend(what);
        self.must(checkout, &arguments).await.map(drop)
    }

    /// Standard output of a git that must succeed.
    async fn must(&self, directory: &Path, arguments: &[&str]) -> Result<String> {
        let (success, stdout, errors) = self.git(directory, arguments).await?;
        if success {
            return Ok(stdout);
        }
        Err(self.failure(&errors))
    }

    fn failure(&self, errors: &str) -> Failure {
        let errors = self.credentials.redact(errors);
        let Source { url, commit, .. } = self.source;
        if let Some(trouble) = Trouble::of(&errors).filter(|_| SshUrl::is(url)) {
            let (cause, remedy) = (ssh_essence(&errors), trouble.remedy());
            return Failure::new(
                trouble.reason(),
                format!("git could not fetch {commit} from {url}: {cause}: {remedy}"),
            );
        }
        let (reason, mut remedy) = classify::classify(&errors);
        if self.role == Role::Submodule {
            remedy = classify::of_submodule(reason, &errors).unwrap_or(remedy);
        }
        let told = match (reason, self.credentials) {
            (Reason::SourceAuthFailed, Credentials::None) => {
                "it does not exist, or wants credentials".to_owned()
            }
            (Reason::SourceAuthFailed, _) => {
                format!(
                    "the credentials are refused, or may not see it ({})",
                    classify::essence(&errors)
                )
            }
            _ => classify::essence(&errors),
        };
        Failure::new(
            reason,
            format!("git could not fetch {commit} from {url}: {told}: {remedy}"),
        )
    }

    async fn git(&self, directory: &Path, arguments: &[&str]) -> Result<(bool, String, String)> {
        let program = Program {
            name: "git",
            arguments: arguments.iter().map(OsString::from).collect(),
            environment: self.environment(),
            directory: PathBuf::from(directory),
        };
        let mut errors = Vec::new();
        let finished = program
            .run(self.deadline, self.stop, |line| {
                let line = plain(&String::from_utf8_lossy(line));
                tracing::debug!(target: "git", "{}", self.credentials.redact(&line));
                errors.push(line);
                if errors.len() > ERROR_LINES {
                    errors.remove(0);
                }
            })
            .await
            .map_err(|error| self.not_run(&error))?;
        let stdout = String::from_utf8_lossy(&finished.stdout).into_owned();
        Ok((finished.status.success(), stdout, errors.join("\n")))
    }

    fn not_run(&self, error: &ProgramError) -> Failure {
        match error {
            ProgramError::TimedOut { .. } => Failure::new(
                Reason::SourceUnreachable,
                format!(
                    "{} did not deliver commit {} within {} s: raise the source's timeout if the repository is large",
                    self.source.url, self.source.commit, self.source.timeout_seconds
                ),
            ),
            ProgramError::Stopped { .. } => Stop::failure(),
            ProgramError::Start { .. } | ProgramError::Read { .. } | ProgramError::Flood { .. } => {
                Failure::new(Reason::InternalError, chain(error))
            }
        }
    }

    /// What git and programs that run git need: no configuration but ours, no prompts, no hooks.
    pub fn environment(&self) -> BTreeMap<String, OsString> {
        let mut config: Vec<(String, OsString)> = [
            ("core.hooksPath", "/dev/null"),
            ("core.fsmonitor", "false"),
            ("credential.helper", ""),
            ("gc.auto", "0"),
            ("maintenance.auto", "false"),
            ("safe.directory", "*"),
            ("submodule.recurse", "false"),
            // A connection that stands still for a minute is given up.
            ("http.lowSpeedLimit", "1"),
            ("http.lowSpeedTime", "60"),
        ]
        .map(|(key, value)| (key.to_owned(), value.into()))
        .into();
        if let Some(bundle) = self.ca_bundle {
            config.push(("http.sslCAInfo".into(), bundle.into()));
        }
        if self.role == Role::Submodule {
            // Whoever wrote `.gitmodules` chose the server; it does not choose others.
            config.push(("http.followRedirects".into(), "false".into()));
        }
        if let Some((key, header)) = self.credentials.git_config(&self.source.url) {
            config.push((key, header.into()));
        }
        let mut environment = self.environment.clone();
        environment.extend(
            [
                ("GIT_CONFIG_NOSYSTEM", "1"),
                ("GIT_CONFIG_GLOBAL", "/dev/null"),
                ("GIT_ATTR_NOSYSTEM", "1"),
                ("GIT_TERMINAL_PROMPT", "0"),
                ("GIT_ALLOW_PROTOCOL", self.protocols),
            ]
            .map(|(name, value)| (name.to_owned(), value.into())),
        );
        if let Some(ssh) = self.ssh {
            environment.insert("GIT_SSH_COMMAND".into(), ssh.command().into());
            environment.insert("GIT_SSH_VARIANT".into(), "ssh".into());
        }
        environment.insert("GIT_CONFIG_COUNT".into(), config.len().to_string().into());
        for (index, (key, value)) in config.into_iter().enumerate() {
            environment.insert(format!("GIT_CONFIG_KEY_{index}"), key.into());
            environment.insert(format!("GIT_CONFIG_VALUE_{index}"), value);
        }
        environment
    }
}

#[cfg(test)]
mod tests;
