//! Faults of the embedded cluster, each undone when its guard goes, however the story ends.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::World;

/// A fault that lasts until it is undone.
#[derive(Debug)]
#[must_use = "the fault is undone when this goes"]
pub struct Fault {
    /// What `firn-cluster` is told; empty when it was done.
    remedy: Vec<String>,
}

impl Fault {
    /// A component crashes, and stays away.
    pub fn kill(world: &World, machine: &str, component: &str) -> Result<Self> {
        Self::strike(
            world,
            &["signal", machine, component, "kill"],
            &["start", machine, component],
        )
    }

    /// A component hangs.
    pub fn pause(world: &World, machine: &str, component: &str) -> Result<Self> {
        Self::strike(
            world,
            &["signal", machine, component, "stop"],
            &["signal", machine, component, "cont"],
        )
    }

    /// A node takes no new pods.
    pub fn cordon(world: &World, node: &str) -> Result<Self> {
        Self::strike(
            world,
            &["kubectl", "cordon", node],
            &["kubectl", "uncordon", node],
        )
    }

    fn strike(world: &World, fault: &[&str], remedy: &[&str]) -> Result<Self> {
        let embedded = world.cluster.needs_embedded();
        embedded.context("this cluster's machines are not ours to break")?;
        // First the guard: what fails half-way is undone as well.
        let guard = Self {
            remedy: remedy.iter().map(ToString::to_string).collect(),
        };
        cluster(fault)?;
        Ok(guard)
    }

    /// Undoes it.
    pub fn undo(mut self) -> Result<()> {
        self.remedy()
    }

    fn remedy(&mut self) -> Result<()> {
        let remedy = std::mem::take(&mut self.remedy);
        if remedy.is_empty() {
            return Ok(());
        }
        let words: Vec<&str> = remedy.iter().map(String::as_str).collect();
        cluster(&words)
    }
}

impl Drop for Fault {
    fn drop(&mut self) {
        // The story has failed already and says why; what is still broken shows in the next one.
        let _ = self.remedy();
    }
}

/// Calls the program that knows the cluster's machines, which is built beside the tests. Needs a
/// runtime of several threads.
pub fn cluster(arguments: &[&str]) -> Result<()> {
    let deps = std::env::current_exe()?;
    let program = deps
        .parent()
        .and_then(Path::parent)
        .context("no folder")?
        .join("firn-cluster");
    let output = tokio::task::block_in_place(|| Command::new(&program).args(arguments).output())
        .with_context(|| format!("failed to run {}", program.display()))?;
    ensure!(
        output.status.success(),
        "firn-cluster {arguments:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}
