//! What a command takes: time on the wall, time of the cores, memory. Of the whole process tree,
//! as the kernel sums it up for whoever waits for a process; but for memory, where that sum begins
//! with this program's own.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use wait4::Wait4 as _;

/// What one run took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// From the start of the first process to the end of the last.
    pub wall: Duration,
    /// User and system time of all processes and their children.
    pub cpu: Duration,
    /// The largest resident set of one process, in bytes.
    pub peak: u64,
}

/// How often the kernel is asked for a process's largest resident set so far: what it grew by in
/// its last moments is missed.
const SAMPLE: Duration = Duration::from_millis(3);

/// A run takes ten seconds; what takes longer than this has stopped.
const LIMIT: Duration = Duration::from_secs(300);

/// Runs `pipeline`, each command's output being the input of the next.
///
/// Errors: one cannot be started or ends badly, with what it wrote to standard error; or it takes
/// more than five minutes, and is ended.
pub fn run(pipeline: &mut [Command]) -> Result<Usage> {
    let start = Instant::now();
    let mut children: Vec<(Child, File)> = Vec::new();
    let last = pipeline.len().saturating_sub(1);
    for (index, command) in pipeline.iter_mut().enumerate() {
        let errors = tempfile::tempfile().context("failed to make a file for messages")?;
        let input = children
            .last_mut()
            .and_then(|(previous, _)| previous.stdout.take());
        command
            .stdin(input.map_or_else(Stdio::null, Stdio::from))
            .stdout(if index == last {
                Stdio::null()
            } else {
                Stdio::piped()
            })
            .stderr(errors.try_clone()?);
        let child = command
            .spawn()
            .with_context(|| format!("failed to start {command:?}"))?;
        children.push((child, errors));
    }
    let pids: Vec<u32> = children.iter().map(|(child, _)| child.id()).collect();
    // Dropping `ended` ends the thread, whatever becomes of the processes.
    let (ended, has_ended) = channel::<()>();
    let sampler = thread::spawn(move || {
        let mut peak = 0;
        loop {
            peak = pids
                .iter()
                .filter_map(|pid| resident(*pid))
                .fold(peak, u64::max);
            if start.elapsed() > LIMIT {
                for pid in &pids {
                    end(*pid);
                }
            }
            if has_ended.recv_timeout(SAMPLE) != Err(RecvTimeoutError::Timeout) {
                return peak;
            }
        }
    });
    let mut cpu = Duration::ZERO;
    let mut failed = Vec::new();
    for ((mut child, mut errors), command) in children.into_iter().zip(&*pipeline) {
        let used = child.wait4().context("failed to wait for a process")?;
        cpu += used.rusage.utime + used.rusage.stime;
        if !used.status.success() {
            let mut text = String::new();
            errors.seek(SeekFrom::Start(0))?;
            // What is no text does not matter here.
            let _ = errors.read_to_string(&mut text);
            failed.push(format!("{command:?} ({}): {}", used.status, text.trim()));
        }
    }
    let wall = start.elapsed();
    drop(ended);
    let peak = sampler.join().unwrap_or_default();
    if !failed.is_empty() {
        bail!("failed to run {}", failed.join("; "));
    }
    Ok(Usage { wall, cpu, peak })
}

fn end(pid: u32) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    // It may have ended; that it was ended is seen where it is waited for.
    let _ = pid.map(|pid| kill_process(pid, Signal::KILL));
}

/// The largest resident set of a living process so far, in bytes.
fn resident(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kilobytes: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kilobytes << 10)
}

/// The middle of the values; of an even number, the lower middle. Zero of none.
pub fn median<T: Copy + Ord + Default>(values: impl IntoIterator<Item = T>) -> T {
    quantile(values, 50)
}

/// The value that `percent` of the values do not exceed. Zero of none.
pub fn quantile<T: Copy + Ord + Default>(values: impl IntoIterator<Item = T>, percent: usize) -> T {
    let mut values: Vec<T> = values.into_iter().collect();
    values.sort_unstable();
    let rank = (values.len() * percent).div_ceil(100).max(1);
    values.get(rank - 1).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn a_pipeline_is_measured_with_its_children() {
        let busy = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done";
        let usage = run(&mut [
            shell(&format!("sh -c '{busy}'; echo x")),
            shell("grep -q x"),
        ])
        .unwrap();
        assert!(usage.cpu > Duration::from_millis(10), "{usage:?}");
        assert!((500_000..20_000_000).contains(&usage.peak), "{usage:?}");
    }

    #[test]
    fn a_failure_anywhere_fails_it_with_its_words() {
        let error = run(&mut [shell("echo no disk >&2; exit 3"), shell("cat")]).unwrap_err();
        assert!(error.to_string().contains("no disk"), "{error}");
    }

    #[test]
    fn quantiles_are_values_that_were_measured() {
        assert_eq!(median([5, 1, 9]), 5);
        assert_eq!(median([4, 1, 9, 6]), 4);
        assert_eq!(quantile(1..=100, 95), 95);
        assert_eq!(quantile(Vec::<u64>::new(), 95), 0);
    }
}
