//! One run of the git program: its output, time and disk are bounded, and nobody it started outlives
//! it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;

use super::super::classify::{self, Asked};
use super::super::{Kind, SourceFailure};
use super::internal;

/// Most disk for one commit, in bytes. Without blobs nixpkgs takes 10 MB; with blobs, from a
/// server without filters, 50 MB.
const DISK_MAX: u64 = 128 * 1024 * 1024;
/// How often the disk is looked at; at 1 Gbit/s it can be exceeded by 25 MB.
const DISK_LOOK: Duration = Duration::from_millis(200);
/// Most of git's messages that is kept, in bytes.
const MESSAGES_MAX: usize = 64 * 1024;

/// Where git runs, and for whom. Holds credentials: no `Debug`.
pub(super) struct Workspace<'a> {
    /// git's whole environment.
    pub(super) environment: BTreeMap<OsString, OsString>,
    /// Temporary, and git's own.
    pub(super) directory: &'a Path,
    /// The server, for messages.
    pub(super) asked: Asked<'a>,
    /// What is read of it, for messages: `commit 1a2b…`.
    pub(super) subject: String,
}

impl Workspace<'_> {
    /// Runs git to its end, or kills it and all it started. Its output, at most `most` bytes.
    pub(super) async fn run(
        &self,
        arguments: &[&str],
        most: usize,
    ) -> Result<Vec<u8>, SourceFailure> {
        let mut child = Command::new("git")
            .args(arguments)
            .env_clear()
            .envs(&self.environment)
            .current_dir(self.directory)
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
                    "what Firn reads of {} takes more than {} MiB (flake.lock?)",
                    self.subject,
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
        Err(classify::git_program(&messages, &self.subject, self.asked))
    }
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
pub(super) async fn disk_exceeded(directory: &Path) {
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
/// The failure that [`disk_exceeded`] means.
pub(super) fn too_large(url: &str) -> SourceFailure {
    SourceFailure::new(
        Kind::Invalid,
        format!(
            "one commit of {:?} takes more than {} MiB, so its flake.lock is not read: let the git \
             server offer filters (uploadpack.allowFilter), or use trigger.mode Revision, which \
             does not need it",
            url,
            DISK_MAX >> 20
        ),
    )
}
