//! Where things are: the mount paths of [`firn_crd::pod`] below a root that is `/` in a pod and a
//! folder in tests. Pure.

use std::path::{Path, PathBuf};

use firn_crd::pod;

/// The places of a pod below one root.
#[derive(Debug, Clone)]
pub struct Paths {
    root: PathBuf,
}

impl Paths {
    /// Places below `root`.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// An absolute path of the pod.
    pub fn at(&self, absolute: &str) -> PathBuf {
        self.root.join(absolute.trim_start_matches('/'))
    }

    /// Written by fetch: the source's files.
    pub fn checkout(&self) -> PathBuf {
        self.at(pod::SOURCE).join("checkout")
    }

    /// Written by fetch: [`crate::handoff::Fetched`].
    pub fn fetched(&self) -> PathBuf {
        self.at(pod::SOURCE).join("fetch.json")
    }

    /// Written by check: [`crate::handoff::Checked`].
    pub fn checked(&self) -> PathBuf {
        self.at(pod::CHECK).join("check.json")
    }

    /// Written by build: [`crate::handoff::Built`].
    pub fn built(&self) -> PathBuf {
        self.at(pod::HANDOFF).join("build.json")
    }

    /// The store.
    pub fn store(&self) -> PathBuf {
        self.at(pod::NIX).join("store")
    }

    /// The container's own scratch space.
    pub fn tmp(&self) -> PathBuf {
        self.at("/tmp")
    }

    /// Where the kubelet reads the report.
    pub fn termination_log(&self) -> PathBuf {
        self.at("/dev/termination-log")
    }

    /// The root itself.
    pub fn root(&self) -> &Path {
        &self.root
    }
}
