//! Where everything is written: the cache (kept, shared by clones) and the state (gone after
//! `down`). Reads the environment, once.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::Machine;

/// The two folders that everything is written to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// What is slow to make: programs, images, build caches. Losing it costs time only.
    pub cache: PathBuf,
    /// One running cluster. Its name also names the cluster's control groups.
    pub state: PathBuf,
}

impl Layout {
    /// From `FIRN_CACHE` (else `$XDG_CACHE_HOME/firn`, else `~/.cache/firn`) and `FIRN_STATE`
    /// (else `cluster/state` in the cache).
    ///
    /// Errors: neither variable nor a home directory; a path that is not absolute.
    pub fn from_env() -> Result<Self> {
        #[expect(
            clippy::disallowed_methods,
            reason = "this is the edge where settings are read"
        )]
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        Self::resolve(variable)
    }

    fn resolve(variable: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let cache = variable("FIRN_CACHE")
            .map(PathBuf::from)
            .or_else(|| variable("XDG_CACHE_HOME").map(|dir| Path::new(&dir).join("firn")))
            .or_else(|| variable("HOME").map(|dir| Path::new(&dir).join(".cache/firn")))
            .context("no place for the cache: set FIRN_CACHE, XDG_CACHE_HOME or HOME")?;
        let state =
            variable("FIRN_STATE").map_or_else(|| cache.join("cluster/state"), PathBuf::from);
        for path in [&cache, &state] {
            if !path.is_absolute() {
                bail!(
                    "{} is not an absolute path: set FIRN_CACHE and FIRN_STATE to one",
                    path.display()
                );
            }
        }
        Ok(Self { cache, state })
    }

    /// Refuses places that a node cannot see: it has a `/var` and a `/run` of its own.
    pub fn check_visible(&self, program: &Path) -> Result<()> {
        for path in [self.cache.as_path(), self.state.as_path(), program] {
            if ["/var", "/run", "/proc"]
                .iter()
                .any(|hidden| path.starts_with(hidden))
            {
                bail!(
                    "{} is not visible in the cluster's nodes, which have a /var and a /run of \
                     their own: set FIRN_CACHE, FIRN_STATE or CARGO_TARGET_DIR to another place",
                    path.display()
                );
            }
        }
        Ok(())
    }

    /// The programs of the running cluster: a link, so that a newer build does not change it.
    pub fn bin(&self) -> PathBuf {
        self.state.join("bin")
    }

    /// One of the running cluster's programs.
    pub fn program(&self, name: &str) -> PathBuf {
        self.bin().join(name)
    }

    /// The link to the folder of image archives that nodes import.
    pub fn images(&self) -> PathBuf {
        self.state.join("images")
    }

    /// A certificate, key or authority.
    pub fn pki(&self, file: &str) -> PathBuf {
        self.state.join("pki").join(file)
    }

    /// How to reach the API server as `user` in the cluster's network: `admin`, `kubelet-0`, ….
    pub fn kubeconfig(&self, user: &str) -> PathBuf {
        self.state.join(format!("{user}.kubeconfig"))
    }

    /// How to reach the API server as administrator from outside the cluster's network.
    pub fn kubeconfig_outside(&self) -> PathBuf {
        self.kubeconfig("admin-outside")
    }

    /// What is known of the relay: `pid` and `port`.
    pub(super) fn relay(&self, what: &str) -> PathBuf {
        self.state.join("relay").with_extension(what)
    }

    /// Output of a machine's first process and of its components.
    pub fn log(&self, name: &str) -> PathBuf {
        self.state.join("log").join(format!("{name}.log"))
    }

    /// One line of JSON per write that the API server answered.
    pub fn audit_log(&self) -> PathBuf {
        self.log("audit")
    }

    /// What containerd knows about registries, for all nodes.
    pub fn registries(&self) -> PathBuf {
        self.state.join("certs.d")
    }

    /// Files of one machine.
    pub fn machine(&self, machine: Machine) -> PathBuf {
        self.state.join(machine.to_string())
    }

    /// The machine's first process, as the outermost machine numbers it.
    pub fn pid_file(&self, machine: Machine) -> PathBuf {
        self.machine(machine).join("init.pid")
    }

    /// Exists once the machine has started all its components.
    pub fn started_marker(&self, machine: Machine) -> PathBuf {
        self.machine(machine).join("started")
    }

    /// What stands in `/etc/resolv.conf` inside: the cluster's DNS.
    pub fn resolv_conf(&self) -> PathBuf {
        self.state.join("resolv.conf")
    }

    /// Taken by whoever changes the cluster. Beside the state, which `down` removes.
    pub fn lock_file(&self) -> PathBuf {
        self.state.with_extension("lock")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(variables: &[(&str, &str)]) -> Result<Layout> {
        Layout::resolve(|name| {
            variables
                .iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn the_cache_is_found_as_the_readme_says() {
        let cache = |variables: &[(&str, &str)]| resolve(variables).unwrap().cache;
        let home = ("HOME", "/home/anna");
        assert_eq!(cache(&[home]), Path::new("/home/anna/.cache/firn"));
        assert_eq!(
            cache(&[home, ("XDG_CACHE_HOME", "/c")]),
            Path::new("/c/firn")
        );
        assert_eq!(cache(&[home, ("FIRN_CACHE", "/own")]), Path::new("/own"));
        assert!(resolve(&[]).is_err());
        assert!(resolve(&[("FIRN_CACHE", "relative")]).is_err());
    }

    #[test]
    fn the_state_is_in_the_cache_unless_said_otherwise() {
        let layout = resolve(&[("FIRN_CACHE", "/own")]).unwrap();
        assert_eq!(layout.state, Path::new("/own/cluster/state"));
        assert_eq!(layout.lock_file(), Path::new("/own/cluster/state.lock"));
        let layout = resolve(&[("FIRN_CACHE", "/own"), ("FIRN_STATE", "/tmp/s")]).unwrap();
        assert_eq!(layout.state, Path::new("/tmp/s"));
    }

    #[test]
    fn places_that_nodes_hide_are_refused() {
        let layout = resolve(&[("FIRN_CACHE", "/var/cache/firn")]).unwrap();
        assert!(
            layout
                .check_visible(Path::new("/usr/bin/firn-cluster"))
                .is_err()
        );
        let layout = resolve(&[("FIRN_CACHE", "/srv/firn")]).unwrap();
        assert!(
            layout
                .check_visible(Path::new("/usr/bin/firn-cluster"))
                .is_ok()
        );
        assert!(
            layout
                .check_visible(Path::new("/run/firn-cluster"))
                .is_err()
        );
    }
}
