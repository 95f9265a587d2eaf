//! Where everything is run: a network namespace with nothing but loopback, and memory for files, so
//! that neither a network nor a disk is measured. Nothing of it is left when the process ends.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::measure::{self, Usage};
use super::node::Containerd;
use super::registry::{Registry, Traffic};

/// Covered by memory: what skopeo knows of blobs, and everything of the bench's own.
const STATE: &str = "/var/lib";
/// Covered by memory: where skopeo keeps an archive that comes through a pipe.
const TEMPORARY: &str = "/var/tmp";
/// What skopeo remembers of blobs between runs. A fresh pod has none.
const SKOPEO_CACHE: &str = "/var/lib/containers";

/// One run's result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// What the commands took, the registry not among them.
    pub usage: Usage,
    /// What they asked of the registry.
    pub traffic: Traffic,
}

/// The namespaces, entered.
#[derive(Debug)]
pub struct Arena {
    /// The embedded cluster's.
    programs: PathBuf,
}

impl Arena {
    /// Prepares the namespaces that this process is in: it was started by `unshare --net --mount`.
    /// `programs` is the folder of the embedded cluster's: registry and containerd.
    ///
    /// Errors: not root, or not in namespaces of its own.
    pub fn enter(programs: PathBuf) -> Result<Self> {
        let interfaces = fs::read_to_string("/proc/net/dev").context("failed to read devices")?;
        let others = interfaces
            .lines()
            .skip(2)
            .filter(|l| !l.trim_start().starts_with("lo:"));
        ensure!(
            others.count() == 0,
            "this is for a network namespace of its own: call `firn-bench run`"
        );
        command("ip", &["link", "set", "lo", "up"])?;
        for folder in [STATE, TEMPORARY] {
            command("mount", &["-t", "tmpfs", "tmpfs", folder])?;
        }
        fs::create_dir(Path::new(STATE).join("bench"))?;
        Ok(Self { programs })
    }

    /// Shows the folder `from` at `to` too.
    ///
    /// Errors: there is no folder to cover.
    pub fn bind(&self, from: &Path, to: &Path) -> Result<()> {
        let (from, to) = (from.display().to_string(), to.display().to_string());
        command("mount", &["--bind", &from, &to])
    }

    /// A file or folder in memory that outlives a run.
    pub fn file(&self, name: &str) -> PathBuf {
        Path::new(STATE).join("bench").join(name)
    }

    /// The registry's storage that was kept under a name.
    pub fn kept(&self, name: &str) -> PathBuf {
        self.file(&format!("kept-{name}"))
    }

    /// A registry on the storage in a folder.
    ///
    /// Errors: it does not come up.
    pub fn registry(&self, storage: &Path) -> Result<Registry> {
        Registry::start(&self.programs.join("registry"), storage)
    }

    /// A containerd that holds nothing.
    ///
    /// Errors: it does not come up.
    pub fn containerd(&self) -> Result<Containerd> {
        let folder = self.file("containerd");
        remove(&folder)?;
        Containerd::start(&self.programs, &folder)
    }

    /// Runs `pipeline` as from a fresh pod, against a registry that has what was kept under the
    /// name `from`, or nothing. What the registry has afterwards is kept under `keep`, if given.
    ///
    /// Errors: the pipeline or the registry fails.
    pub fn run(
        &self,
        from: Option<&str>,
        pipeline: &mut [Command],
        keep: Option<&str>,
    ) -> Result<Run> {
        let storage = self.file("registry");
        remove(&storage)?;
        remove(Path::new(SKOPEO_CACHE))?;
        if let Some(from) = from {
            let (from, to) = (self.kept(from), storage.display().to_string());
            command("cp", &["-a", &from.display().to_string(), &to])?;
        }
        let registry = self.registry(&storage)?;
        let usage = measure::run(pipeline)?;
        let traffic = registry.stop()?;
        if let Some(keep) = keep {
            let kept = self.kept(keep);
            remove(&kept)?;
            fs::rename(&storage, &kept).context("failed to keep the registry's storage")?;
        }
        Ok(Run { usage, traffic })
    }
}

fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("failed to remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}

fn command(program: &str, arguments: &[&str]) -> Result<()> {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .with_context(|| format!("failed to start {program}"))?;
    ensure!(
        output.status.success(),
        "{program} {}: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}
