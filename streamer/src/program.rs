//! Programs that are started: a clean environment, a deadline, bounded output, and nobody left
//! behind. Nothing here knows git or Nix.
//!
//! A program gets a process group of its own. At the deadline or when the pod is told to go, the
//! group gets SIGTERM, and SIGKILL after `GRACE`.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{Child, Command};
use tokio::time::Instant;

use crate::stop::Stop;

/// From SIGTERM to SIGKILL. Nix needs it to end its builders.
const GRACE: Duration = Duration::from_secs(5);
/// Longest line that is looked at, in bytes; what follows is dropped.
pub const LINE_MAX: usize = 64 * 1024;
/// Most of standard output that is kept, in bytes: the closure of 100,000 paths as JSON.
const STDOUT_MAX: usize = 256 << 20;

/// A program to be started.
#[derive(Debug, Clone)]
pub struct Program {
    /// Its name, looked up in its own `PATH`.
    pub name: &'static str,
    /// Its arguments. Never a secret: others can read them.
    pub arguments: Vec<OsString>,
    /// Its whole environment.
    pub environment: BTreeMap<String, OsString>,
    /// Where it runs.
    pub directory: PathBuf,
}

/// A program that has ended.
#[derive(Debug)]
pub struct Finished {
    /// How.
    pub status: ExitStatus,
    /// What it wrote to standard output.
    pub stdout: Vec<u8>,
}

/// Why a program did not end by itself.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// It cannot be started.
    #[error("failed to start {program}")]
    Start {
        /// Its name.
        program: &'static str,
        /// Why.
        source: io::Error,
    },
    /// Its output cannot be read.
    #[error("failed to read from {program}")]
    Read {
        /// Its name.
        program: &'static str,
        /// Why.
        source: io::Error,
    },
    /// More on standard output than anybody could want.
    #[error("{program} wrote more than {STDOUT_MAX} bytes to its standard output")]
    Flood {
        /// Its name.
        program: &'static str,
    },
    /// It ran until the deadline.
    #[error("{program} did not end in time")]
    TimedOut {
        /// Its name.
        program: &'static str,
    },
    /// The pod was told to go.
    #[error("{program} was stopped, since the pod was told to stop")]
    Stopped {
        /// Its name.
        program: &'static str,
    },
}

impl Program {
    /// Runs it to its end. `on_line` gets every line of standard error, without the line's end.
    pub async fn run(
        &self,
        deadline: Instant,
        stop: &Stop,
        mut on_line: impl FnMut(&[u8]),
    ) -> Result<Finished, ProgramError> {
        let program = self.name;
        let mut child = self.start()?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let output = async {
            let (stdout, lines) = tokio::join!(collect(stdout), lines(stderr, &mut on_line));
            lines.and(stdout)
        };
        let ended = tokio::select! {
            stdout = output => Ok(stdout),
            () = tokio::time::sleep_until(deadline) => Err(ProgramError::TimedOut { program }),
            () = stop.requested() => Err(ProgramError::Stopped { program }),
        };
        let stdout = match ended {
            Ok(Ok(Some(stdout))) => stdout,
            Ok(Ok(None)) => {
                end(&mut child).await;
                return Err(ProgramError::Flood { program });
            }
            Ok(Err(source)) => {
                end(&mut child).await;
                return Err(ProgramError::Read { program, source });
            }
            Err(error) => {
                end(&mut child).await;
                return Err(error);
            }
        };
        // Both pipes are closed, but the program may live on.
        let status = tokio::select! {
            status = child.wait() => status.map_err(|source| ProgramError::Read { program, source }),
            () = tokio::time::sleep_until(deadline) => Err(ProgramError::TimedOut { program }),
        };
        match status {
            Ok(status) => Ok(Finished { status, stdout }),
            Err(error) => {
                end(&mut child).await;
                Err(error)
            }
        }
    }

    fn start(&self) -> Result<Child, ProgramError> {
        Command::new(self.name)
            .args(&self.arguments)
            .env_clear()
            .envs(&self.environment)
            .current_dir(&self.directory)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|source| ProgramError::Start {
                program: self.name,
                source,
            })
    }
}

async fn end(child: &mut Child) {
    let group = child
        .id()
        .and_then(|id| i32::try_from(id).ok())
        .and_then(Pid::from_raw);
    if let Some(group) = group {
        // An error means that nobody is left.
        let _ = kill_process_group(group, Signal::TERM);
        if tokio::time::timeout(GRACE, child.wait()).await.is_err() {
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
    let _ = child.wait().await;
}

/// All of it, or `None` if it is too much.
async fn collect(stream: Option<impl AsyncRead + Unpin>) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    if let Some(stream) = stream {
        let limit = STDOUT_MAX as u64 + 1;
        stream.take(limit).read_to_end(&mut bytes).await?;
    }
    Ok((bytes.len() <= STDOUT_MAX).then_some(bytes))
}

async fn lines(
    stream: Option<impl AsyncRead + Unpin>,
    on_line: &mut impl FnMut(&[u8]),
) -> io::Result<()> {
    let Some(mut stream) = stream else {
        return Ok(());
    };
    let mut buffer = vec![0; 16 * 1024];
    let mut line = Vec::new();
    loop {
        let got = stream.read(&mut buffer).await?;
        if got == 0 {
            break;
        }
        let mut parts = buffer.get(..got).unwrap_or_default().split(|b| *b == b'\n');
        // The first part continues the line before; each further one begins behind a line's end.
        extend(&mut line, parts.next().unwrap_or_default());
        for part in parts {
            on_line(&line);
            line.clear();
            extend(&mut line, part);
        }
    }
    if !line.is_empty() {
        on_line(&line);
    }
    Ok(())
}

fn extend(line: &mut Vec<u8>, part: &[u8]) {
    let room = LINE_MAX.saturating_sub(line.len());
    line.extend_from_slice(part.get(..room).unwrap_or(part));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Program {
        Program {
            name: "sh",
            arguments: ["-c", script].map(OsString::from).to_vec(),
            environment: BTreeMap::from([("PATH".into(), "/usr/bin:/bin".into())]),
            directory: PathBuf::from("/"),
        }
    }

    async fn run(script: &str, limit: Duration) -> (Result<Finished, ProgramError>, Vec<String>) {
        let mut lines = Vec::new();
        let deadline = Instant::now() + limit;
        let (_never, stop) = Stop::never();
        let finished = sh(script)
            .run(deadline, &stop, |line| {
                lines.push(String::from_utf8_lossy(line).into_owned());
            })
            .await;
        (finished, lines)
    }

    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn output_and_status_are_told() {
        let (finished, lines) = run("echo out; printf 'a\\n\\nb' >&2; exit 7", LONG).await;
        let finished = finished.unwrap();
        assert_eq!(finished.status.code(), Some(7));
        assert_eq!(finished.stdout, b"out\n");
        assert_eq!(lines, ["a", "", "b"]);
    }

    #[tokio::test]
    async fn the_environment_is_what_was_given() {
        let (finished, _) = run("env", LONG).await;
        let text = String::from_utf8(finished.unwrap().stdout).unwrap();
        let kept = |line: &&str| {
            !line.starts_with("PWD=") && !line.starts_with("_=") && !line.starts_with("SHLVL=")
        };
        let lines: Vec<&str> = text.lines().filter(kept).collect();
        assert_eq!(lines, ["PATH=/usr/bin:/bin"]);
    }

    #[tokio::test]
    async fn a_program_past_its_deadline_is_ended_with_its_children() {
        let (finished, _) = run("sleep 1000 & sleep 1000", Duration::from_millis(50)).await;
        assert!(matches!(finished, Err(ProgramError::TimedOut { .. })));
    }

    #[tokio::test]
    async fn a_long_line_is_cut() {
        let (_, lines) = run(
            "head -c 200000 /dev/zero | tr '\\0' x >&2; echo >&2; echo y >&2",
            LONG,
        )
        .await;
        assert_eq!(lines[0].len(), LINE_MAX);
        assert_eq!(lines[1], "y");
    }

    #[tokio::test]
    async fn a_program_is_ended_when_the_pod_must_go() {
        let (sender, stop) = Stop::never();
        sender.send(true).unwrap();
        let result = sh("sleep 1000")
            .run(Instant::now() + LONG, &stop, |_| {})
            .await;
        assert!(matches!(result, Err(ProgramError::Stopped { .. })));
    }
}
