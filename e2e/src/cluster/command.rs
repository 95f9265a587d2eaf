//! Running other programs, with errors that say which one and what it wrote.

use std::io::Write;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// Runs to the end and returns standard output.
///
/// Errors: it could not be started, or ended badly; with the command line and what it wrote to
/// standard error. So no secret may be an argument.
pub(super) fn output(command: &mut Command) -> Result<String> {
    let output = command
        .output()
        .with_context(|| format!("failed to start {command:?}"))?;
    finish(command, &output)
}

/// [`output`] with something to read on standard input.
pub(super) fn output_of_input(command: &mut Command, input: &str) -> Result<String> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("failed to start {command:?}"))?;
    let mut stdin = child
        .stdin
        .take()
        .context("a child without standard input")?;
    std::thread::scope(|scope| {
        // Beside the reading, so that neither side waits for the other with a full pipe. A child
        // that ended early tells by its status.
        scope.spawn(move || stdin.write_all(input.as_bytes()));
        let output = child
            .wait_with_output()
            .with_context(|| format!("failed to run {command:?}"))?;
        finish(command, &output)
    })
}

fn finish(command: &Command, output: &std::process::Output) -> Result<String> {
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!("{command:?} failed ({}): {}", output.status, stderr.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
