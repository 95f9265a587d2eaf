//! The node's side: what a containerd that holds one image fetches and unpacks for the next. It keeps
//! blobs by digest and unpacked layers by chain ID, the layer with all below it; so a layer that
//! changes low down makes it unpack everything above once more.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::wait::{unless_failed, until};

/// It is up in a tenth of a second; a machine that is busy takes longer.
const READY: Duration = Duration::from_secs(30);

/// What the next image cost a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cost {
    /// Bytes of the blobs that were fetched.
    pub pulled: u64,
    /// Layers that were unpacked.
    pub unpacked: u64,
}

/// A containerd of its own, with nothing in it.
#[derive(Debug)]
pub struct Containerd {
    child: Child,
    ctr: PathBuf,
    folder: PathBuf,
}

impl Containerd {
    /// Starts the embedded cluster's containerd from the folder `programs`; everything of it is
    /// in `folder`.
    ///
    /// Errors: it does not come up; with what it said.
    pub fn start(programs: &Path, folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder)?;
        let (config, log) = (folder.join("config.toml"), folder.join("log"));
        let root = folder.display();
        let text = format!(
            "version = 3\nroot = \"{root}/root\"\nstate = \"{root}/state\"\n\
             disabled_plugins = [\"io.containerd.grpc.v1.cri\", \"io.containerd.cri.v1.images\", \
             \"io.containerd.cri.v1.runtime\"]\n[grpc]\naddress = \"{root}/socket\"\n"
        );
        fs::write(&config, text)?;
        let file = fs::File::create(&log)?;
        let child = Command::new(programs.join("containerd"))
            .arg("--config")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .context("failed to start containerd")?;
        let mut node = Self {
            child,
            ctr: programs.join("ctr"),
            folder: folder.to_owned(),
        };
        let ready = until("containerd is up", READY, || {
            let ended = node.child.try_wait()?.is_some();
            ensure!(!ended, "containerd ended");
            Ok(unless_failed(node.ctr(&["version"])))
        });
        ready.with_context(|| fs::read_to_string(&log).unwrap_or_default())?;
        Ok(node)
    }

    /// Pulls and unpacks an image from a registry without TLS.
    ///
    /// Errors: the image cannot be pulled or is not what its digests say.
    pub fn pull(&self, reference: &str) -> Result<()> {
        self.pull_with(&["--plain-http"], reference)
    }

    /// The same from a registry that is reached by these options of `ctr`.
    ///
    /// Errors: the image cannot be pulled or is not what its digests say.
    pub fn pull_with(&self, options: &[&str], reference: &str) -> Result<()> {
        let arguments = [&["images", "pull"], options, &[reference]].concat();
        self.ctr(&arguments).map(drop)
    }

    /// Where it listens.
    pub fn socket(&self) -> PathBuf {
        self.folder.join("socket")
    }

    /// Names of its images.
    ///
    /// Errors: containerd does not answer.
    pub fn images(&self) -> Result<String> {
        self.ctr(&["images", "list", "--quiet"])
    }

    /// How many layers are unpacked.
    ///
    /// Errors: containerd does not answer.
    pub fn unpacked(&self) -> Result<u64> {
        let list = self.ctr(&["snapshots", "list"])?;
        Ok(committed(&list))
    }

    fn ctr(&self, arguments: &[&str]) -> Result<String> {
        let output = Command::new(&self.ctr)
            .arg("--address")
            .arg(self.socket())
            .args(arguments)
            .output()
            .context("failed to start ctr")?;
        ensure!(
            output.status.success(),
            "ctr {}: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        // The namespaces end with the bench anyway, and the process with them.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Counts the layers in a list of snapshots: `KEY PARENT KIND`.
fn committed(list: &str) -> u64 {
    let kinds = list
        .lines()
        .filter_map(|line| line.split_whitespace().last());
    kinds.filter(|kind| *kind == "Committed").count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_that_is_in_use_is_no_layer() {
        let list = "KEY      PARENT  KIND\nsha256:a         Committed\n\
                    sha256:b sha256:a Committed\nsome     sha256:b Active\n";
        assert_eq!(committed(list), 2);
    }
}
