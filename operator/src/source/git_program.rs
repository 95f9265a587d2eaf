//! The git program reads a few objects of one commit: `flake.lock`, the object ids of
//! `trigger.paths`, the commit's time. Depth 1, without blobs, into a bare repository in a
//! temporary directory that is gone afterwards; never a full clone. Everything about it is
//! bounded: how many at once, time, output, disk.
//!
//! The server and the repository are hostile: git runs without configuration files, hooks,
//! prompts, other protocols than https, redirects or submodules, and nothing is checked out.
//! Credentials reach it by environment, which only its own user can read.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use jiff::Timestamp;
use rustix::process::{Pid, Signal, kill_process_group};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;
use tokio::sync::Semaphore;

use super::http::{Remote, USER_AGENT};
use super::{Kind, SourceFailure, classify};
use crate::settings::{Network, Proxies};

/// Runs at once: with [`DISK_MAX`] it bounds the operator's temporary directory to 512 MiB.
const PROGRAMS_MAX: usize = 4;
/// Most disk for one commit, in bytes. Without blobs nixpkgs takes 10 MB; with blobs, from a
/// server without filters, 50 MB.
const DISK_MAX: u64 = 128 * 1024 * 1024;
/// How often the disk is looked at; at 1 Gbit/s it can be exceeded by 25 MB.
const DISK_LOOK: Duration = Duration::from_millis(200);
/// Longest `flake.lock`, in bytes; one of 1,000 inputs has 400 KB.
const LOCK_MAX: usize = 4 * 1024 * 1024;
/// Longest output of anything else, in bytes.
const OUTPUT_MAX: usize = 1024 * 1024;
/// Most of git's messages that is kept, in bytes.
const MESSAGES_MAX: usize = 64 * 1024;
/// What the fetched commit is called in the temporary repository.
const FETCHED: &str = "refs/firn/fetched";

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
    running: Semaphore,
}

impl GitProgram {
    /// A program that reaches the world as the settings say.
    pub(crate) fn new(network: &Network, plain_http: bool) -> Self {
        Self {
            proxies: network.proxies.clone(),
            cluster_ca: network.ca_pem.clone(),
            system_ca: network.system_ca_file.clone(),
            plain_http,
            running: Semaphore::new(PROGRAMS_MAX),
        }
    }

    /// Reads what is wanted of a commit.
    pub(crate) async fn read(
        &self,
        remote: &Remote,
        wanted: Wanted<'_>,
    ) -> Result<Hashes, SourceFailure> {
        // Never closed. Waiting does not count as the server's time.
        let _permit = self
            .running
            .acquire()
            .await
            .map_err(|error| internal(&error.to_string()))?;
        let reading = async {
            let directory = tempfile::Builder::new()
                .prefix("firn-source-")
                .tempdir()
                .map_err(|error| internal(&format!("no temporary directory: {error}")))?;
            let git = self.repository(directory.path(), remote, wanted.commit)?;
            tokio::select! {
                hashes = git.read(wanted) => hashes,
                () = disk_exceeded(directory.path()) => Err(too_large(remote)),
            }
        };
        tokio::time::timeout(wanted.timeout, reading)
            .await
            .unwrap_or_else(|_| Err(classify::timeout(remote.base.as_str(), wanted.timeout)))
    }

    fn repository<'a>(
        &self,
        root: &Path,
        remote: &'a Remote,
        commit: &'a str,
    ) -> Result<Repository<'a>, SourceFailure> {
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
            ("remote.origin.url", remote.base.to_string()),
        ];
        let extra = [self.cluster_ca.as_deref(), remote.trust.ca.as_deref()];
        if extra.iter().any(Option::is_some) {
            let bundle = root.join("ca.crt");
            self.write_bundle(&bundle, &extra)?;
            settings.push(("http.sslCAInfo", bundle.display().to_string()));
        }
        if let Some(credentials) = &remote.trust.credentials {
            let value = credentials
                .authorization()
                .ok_or_else(|| internal("credentials that no header can hold"))?;
            let value = value
                .to_str()
                .map_err(|error| internal(&error.to_string()))?;
            settings.push(("http.extraHeader", format!("Authorization: {value}")));
        }
        let mut environment: BTreeMap<OsString, OsString> = [
            ("GIT_DIR", root.join("git").into_os_string()),
            ("HOME", root.as_os_str().to_owned()),
            ("GIT_CONFIG_NOSYSTEM", "1".into()),
            ("GIT_CONFIG_GLOBAL", "/dev/null".into()),
            ("GIT_ATTR_NOSYSTEM", "1".into()),
            (
                "GIT_ALLOW_PROTOCOL",
                if self.plain_http {
                    "http:https"
                } else {
                    "https"
                }
                .into(),
            ),
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
        environment.insert("GIT_CONFIG_COUNT".into(), settings.len().to_string().into());
        for (index, (key, value)) in settings.into_iter().enumerate() {
            environment.insert(format!("GIT_CONFIG_KEY_{index}").into(), key.into());
            environment.insert(format!("GIT_CONFIG_VALUE_{index}").into(), value.into());
        }
        Ok(Repository {
            environment,
            directory: root.to_owned(),
            remote,
            commit,
        })
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

/// One temporary repository. Holds credentials: no `Debug`.
struct Repository<'a> {
    environment: BTreeMap<OsString, OsString>,
    directory: PathBuf,
    remote: &'a Remote,
    commit: &'a str,
}

impl Repository<'_> {
    async fn read(&self, wanted: Wanted<'_>) -> Result<Hashes, SourceFailure> {
        self.run(&["init", "--quiet", "--bare", "--template="], OUTPUT_MAX)
            .await?;
        self.fetch(wanted).await?;
        let head = self
            .run(
                &[
                    "log",
                    "-1",
                    "--no-show-signature",
                    "--format=%H %T %ct",
                    FETCHED,
                    "--",
                ],
                OUTPUT_MAX,
            )
            .await?;
        let head = String::from_utf8_lossy(&head);
        let mut words = head.split_whitespace();
        if words.next() != Some(wanted.commit) {
            return Err(SourceFailure::new(
                Kind::Unreachable,
                format!(
                    "{:?} moved away from commit {} while it was read: it is asked again later",
                    self.remote.base.as_str(),
                    wanted.commit
                ),
            ));
        }
        let tree = words.next().unwrap_or_default().to_owned();
        let commit_time = words
            .next()
            .and_then(|w| Timestamp::from_second(w.parse().ok()?).ok());

        let lock =
            normalized(&format!("{}/flake.lock", wanted.dir)).ok_or_else(|| outside(wanted.dir))?;
        let mut paths = Vec::new();
        for path in wanted.paths {
            paths.push(normalized(path).ok_or_else(|| outside(path))?);
        }
        let entries = self.entries(std::iter::once(&lock).chain(&paths)).await?;
        let lock = match entries.get(&lock) {
            None => None,
            Some(entry) => Some(self.lock_hash(&lock, entry).await?),
        };
        Ok(Hashes {
            lock,
            paths: paths_hash(paths, &entries, &tree),
            commit_time,
        })
    }

    async fn fetch(&self, wanted: Wanted<'_>) -> Result<(), SourceFailure> {
        let by_id = self.fetch_one(wanted.commit).await;
        match (by_id, wanted.reference) {
            // Servers of protocol version 0 give only what they list.
            (Err(failure), Some(reference)) if failure.kind == Kind::RevisionNotFound => {
                self.fetch_one(reference).await
            }
            (result, _) => result,
        }
    }

    async fn fetch_one(&self, what: &str) -> Result<(), SourceFailure> {
        let refspec = format!("+{what}:{FETCHED}");
        let arguments = [
            "fetch",
            "--quiet",
            "--depth=1",
            "--filter=blob:none",
            "--no-tags",
            "--no-write-fetch-head",
            "--",
            "origin",
            &refspec,
        ];
        self.run(&arguments, OUTPUT_MAX).await.map(drop)
    }

    /// The entries of the root's tree at these paths. Nothing below them is read.
    async fn entries<'p>(
        &self,
        paths: impl Iterator<Item = &'p String>,
    ) -> Result<BTreeMap<String, Entry>, SourceFailure> {
        let mut arguments = vec![
            "--literal-pathspecs",
            "ls-tree",
            "-z",
            "-t",
            "--full-tree",
            FETCHED,
            "--",
        ];
        // The root has no entry, and as a path it would mean everything.
        arguments.extend(paths.map(String::as_str).filter(|path| !path.is_empty()));
        let listing = self.run(&arguments, OUTPUT_MAX).await?;
        Ok(listing
            .split(|byte| *byte == 0)
            .filter_map(Entry::parse)
            .collect())
    }

    async fn lock_hash(&self, path: &str, entry: &Entry) -> Result<String, SourceFailure> {
        if !["100644", "100755"].contains(&entry.mode.as_str()) {
            return Err(SourceFailure::new(
                Kind::Invalid,
                format!("{path:?} is not a regular file in commit {}", self.commit),
            ));
        }
        let content = self
            .run(&["cat-file", "blob", &entry.oid], LOCK_MAX)
            .await?;
        Ok(hex(&Sha256::digest(&content)))
    }

    /// Runs git to its end, or kills it and all it started.
    async fn run(&self, arguments: &[&str], most: usize) -> Result<Vec<u8>, SourceFailure> {
        let mut child = Command::new("git")
            .args(arguments)
            .env_clear()
            .envs(&self.environment)
            .current_dir(&self.directory)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| internal(&format!("the git program cannot be started: {error}")))?;
        let group = Group::of(&child);
        let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
            return Err(internal("git has no output"));
        };
        let (output, messages) = tokio::join!(
            read_at_most(stdout, most, Excess::Stop),
            read_at_most(stderr, MESSAGES_MAX, Excess::Skip)
        );
        let (output, messages) = (
            output.map_err(|e| internal(&e))?,
            messages.map_err(|e| internal(&e))?,
        );
        let Some(output) = output else {
            drop(group);
            return Err(SourceFailure::new(
                Kind::Invalid,
                format!(
                    "a file that Firn reads of commit {} has more than {} MiB (flake.lock?)",
                    self.commit,
                    most >> 20
                ),
            ));
        };
        let status = child
            .wait()
            .await
            .map_err(|error| internal(&format!("git cannot be waited for: {error}")))?;
        group.ended();
        if status.success() {
            return Ok(output);
        }
        let messages =
            String::from_utf8_lossy(messages.as_deref().unwrap_or_default()).into_owned();
        tracing::debug!(command = arguments.first(), %status, %messages, "git failed");
        Err(classify::git_program(
            &messages,
            self.commit,
            self.remote.asked(),
        ))
    }
}

/// A tree's entry.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    mode: String,
    oid: String,
}

impl Entry {
    /// `100644 blob <oid>\t<path>`
    fn parse(record: &[u8]) -> Option<(String, Self)> {
        let text = std::str::from_utf8(record).ok()?;
        let (attributes, path) = text.split_once('\t')?;
        let mut words = attributes.split(' ');
        let (mode, _kind, oid) = (words.next()?, words.next()?, words.next()?);
        Some((
            path.to_owned(),
            Self {
                mode: mode.to_owned(),
                oid: oid.to_owned(),
            },
        ))
    }
}

/// sha256 over `path NUL mode NUL object id LF` of the paths in order; absent ones have `-`, so
/// that deleting a file is a change. The order and spelling in the spec do not matter.
fn paths_hash(
    mut paths: Vec<String>,
    entries: &BTreeMap<String, Entry>,
    tree: &str,
) -> Option<String> {
    paths.sort();
    paths.dedup();
    if paths.is_empty() {
        return None;
    }
    let mut hash = Sha256::new();
    for path in paths {
        let (mode, oid) = match entries.get(&path) {
            Some(entry) => (entry.mode.as_str(), entry.oid.as_str()),
            None if path.is_empty() => ("040000", tree),
            None => ("-", "-"),
        };
        hash.update(format!("{path}\0{mode}\0{oid}\n"));
    }
    Some(hex(&hash.finalize()))
}

/// A path without `.`, double and trailing slashes; the root is the empty one. `None`: it leaves
/// the repository.
fn normalized(path: &str) -> Option<String> {
    let parts: Vec<_> = path
        .split('/')
        .filter(|part| !part.is_empty() && *part != ".")
        .collect();
    (!parts.contains(&"..") && !path.starts_with('/')).then(|| parts.join("/"))
}

fn hex(digest: &[u8]) -> String {
    use std::fmt::Write;
    digest.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// What happens with output beyond the limit.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Excess {
    /// Reading stops: the answer is `None`.
    Stop,
    /// It is read and dropped, so that the program can go on.
    Skip,
}

async fn read_at_most(
    mut from: impl AsyncRead + Unpin,
    most: usize,
    excess: Excess,
) -> Result<Option<Vec<u8>>, String> {
    let mut all = Vec::new();
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let count = from
            .read(&mut buffer)
            .await
            .map_err(|error| format!("git's output cannot be read: {error}"))?;
        let read = buffer.get(..count).unwrap_or_default();
        if read.is_empty() {
            return Ok(Some(all));
        }
        let room = most - all.len();
        if read.len() > room && excess == Excess::Stop {
            return Ok(None);
        }
        all.extend_from_slice(read.get(..room).unwrap_or(read));
    }
}

/// git and its helpers (`git-remote-https`, `index-pack`): killed together, unless it ended.
struct Group(Option<Pid>);

impl Group {
    fn of(child: &tokio::process::Child) -> Self {
        Self(
            child
                .id()
                .and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)),
        )
    }

    /// It ended by itself: its id may belong to another process soon.
    fn ended(mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(pid) = self.0 {
            // Gone already is as good.
            let _ = kill_process_group(pid, Signal::KILL);
        }
    }
}

/// Ends when the directory holds more than it may.
async fn disk_exceeded(directory: &Path) {
    loop {
        tokio::time::sleep(DISK_LOOK).await;
        let directory = directory.to_owned();
        let used = tokio::task::spawn_blocking(move || disk_used(&directory)).await;
        if used.is_ok_and(|used| used > DISK_MAX) {
            return;
        }
    }
}

/// Bytes below a directory. What vanishes meanwhile does not count; links are not followed.
fn disk_used(directory: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(directory) else {
        return 0;
    };
    entries
        .filter_map(Result::ok)
        .map(|entry| match entry.metadata() {
            Ok(meta) if meta.is_dir() => disk_used(&entry.path()),
            Ok(meta) => meta.len(),
            Err(_) => 0,
        })
        .sum()
}

fn too_large(remote: &Remote) -> SourceFailure {
    SourceFailure::new(
        Kind::Invalid,
        format!(
            "one commit of {:?} takes more than {} MiB, so its flake.lock is not read: let the git \
             server offer filters (uploadpack.allowFilter), or use trigger.mode Revision, which \
             does not need it",
            remote.base.as_str(),
            DISK_MAX >> 20
        ),
    )
}

fn outside(path: &str) -> SourceFailure {
    SourceFailure::new(
        Kind::Invalid,
        format!("{path:?} leaves the repository: write a relative path without \"..\""),
    )
}

fn internal(what: &str) -> SourceFailure {
    SourceFailure::new(
        Kind::Internal,
        format!("the operator cannot read the source: {what}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_one_however_they_are_written() {
        for (path, expected) in [
            ("./a//b/", Some("a/b")),
            (".", Some("")),
            ("a", Some("a")),
            ("a/../b", None),
            ("/etc", None),
        ] {
            assert_eq!(normalized(path).as_deref(), expected, "{path}");
        }
        assert_eq!(normalized("./flake.lock").as_deref(), Some("flake.lock"));
    }

    #[test]
    fn the_hash_of_paths_sees_content_mode_and_absence_but_no_order() {
        let entry = |mode: &str, oid: &str| Entry {
            mode: mode.into(),
            oid: oid.into(),
        };
        let entries: BTreeMap<_, _> = [
            ("a".to_owned(), entry("100644", "11")),
            ("b".to_owned(), entry("040000", "22")),
        ]
        .into();
        let hash = |paths: &[&str], entries: &BTreeMap<String, Entry>| {
            paths_hash(
                paths.iter().map(|p| (*p).to_owned()).collect(),
                entries,
                "33",
            )
        };
        let base = hash(&["a", "b"], &entries);
        assert_eq!(hash(&["b", "a", "a"], &entries), base);
        let mut executable = entries.clone();
        executable.insert("a".into(), entry("100755", "11"));
        assert_ne!(hash(&["a", "b"], &executable), base);
        let mut without = entries.clone();
        without.remove("b");
        assert_ne!(hash(&["a", "b"], &without), base);
        assert_ne!(hash(&["a"], &entries), hash(&["b"], &entries));
        assert_ne!(hash(&[""], &entries), None);
        assert_eq!(hash(&[], &entries), None);
    }

    #[test]
    fn listings_are_read_entry_by_entry() {
        let oid = "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391";
        let record = format!("100644 blob {oid}\tsub dir/flake.lock");
        let (path, entry) = Entry::parse(record.as_bytes()).unwrap();
        assert_eq!(
            (path.as_str(), entry.mode.as_str(), entry.oid.as_str()),
            ("sub dir/flake.lock", "100644", oid)
        );
        assert_eq!(Entry::parse(b""), None);
        assert_eq!(Entry::parse(b"garbage"), None);
    }
}
