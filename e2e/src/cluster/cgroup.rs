//! Control groups: the only way to find all that a cluster runs, and the only thing of it that the
//! kernel does not remove by itself.
//!
//! ```text
//! /firn-1a2b3c4d           one per state folder
//!   daemons                everything started by firn-cluster; in one hierarchy only
//!   node-0  node-1         the kubelets' cgroupRoot: pods; in every hierarchy
//! ```
//! Two kubelets with one root would end each other's pods. Daemons stay out of the other
//! hierarchies, so that whoever limits or counts firn-cluster's memory still does.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use sha2::{Digest, Sha256};

use super::Layout;
use super::files::At;
use crate::wait::{until, when};

/// Ending a few hundred processes takes well under a second; a machine that swaps takes longer.
const END: Duration = Duration::from_secs(20);

/// A hierarchy of control groups, by where it is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Hierarchy {
    mounted: PathBuf,
    unified: bool,
}

/// The group of one cluster and all below it.
#[derive(Debug, Clone)]
pub struct Group {
    name: String,
    hierarchies: Vec<Hierarchy>,
}

impl Group {
    /// The group that belongs to a state folder, whether it exists or not.
    pub fn of(layout: &Layout) -> Result<Self> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").context("failed to read mounts")?;
        let hierarchies = hierarchies(&mounts);
        if hierarchies.is_empty() {
            bail!("no control groups are mounted: mount cgroup2 at /sys/fs/cgroup");
        }
        Ok(Self {
            name: name(&layout.state),
            hierarchies,
        })
    }

    /// `/firn-1a2b3c4d/node-0`: the path in every hierarchy.
    pub fn path(&self, below: &str) -> String {
        format!("/{}/{below}", self.name)
    }

    /// Makes the groups for the daemons and for a node's pods.
    pub(super) fn create_daemons(&self) -> Result<()> {
        let daemons = self.daemons();
        fs::create_dir_all(&daemons).at("create", &daemons)
    }

    pub(super) fn create_pods(&self, node: &str) -> Result<()> {
        for hierarchy in &self.hierarchies {
            let group = hierarchy.mounted.join(&self.name).join(node);
            fs::create_dir_all(&group).at("create", &group)?;
            for name in [self.name.clone(), format!("{}/{node}", self.name)] {
                hierarchy.make_usable(Path::new(&name))?;
            }
        }
        Ok(())
    }

    /// Moves this process, and so all its children to come, to the daemons.
    pub(super) fn join_daemons(&self) -> Result<()> {
        let file = self.daemons().join("cgroup.procs");
        fs::write(&file, "0").at("join", &file)
    }

    /// Everything that runs in the cluster, as this PID namespace numbers it.
    pub fn processes(&self) -> BTreeSet<i32> {
        self.roots()
            .iter()
            .flat_map(|root| processes_below(root))
            .collect()
    }

    /// Ends every process in the group and removes it.
    ///
    /// Errors: it is asked for from within, or something does not end.
    pub(super) fn remove(&self) -> Result<()> {
        let own = i32::try_from(std::process::id()).unwrap_or_default();
        if self.processes().contains(&own) {
            bail!(
                "this process runs inside the cluster and would end itself: leave `firn-cluster exec` first"
            );
        }
        until("the cluster's processes have ended", END, || {
            let left = self.processes();
            for pid in left.iter().filter_map(|pid| Pid::from_raw(*pid)) {
                // It may have ended already.
                let _ = kill_process(pid, Signal::KILL);
            }
            Ok(when(
                left.is_empty(),
                format!("processes {left:?} are left"),
            ))
        })?;
        self.remove_empty("")
    }

    /// Removes the pods' groups of one node, which has ended.
    pub(super) fn remove_pods(&self, node: &str) -> Result<()> {
        self.remove_empty(node)
    }

    fn remove_empty(&self, below: &str) -> Result<()> {
        let groups: Vec<PathBuf> = self.roots().iter().map(|root| root.join(below)).collect();
        until("the cluster's control groups are gone", END, || {
            let left: Vec<String> = groups
                .iter()
                .filter_map(|group| remove_tree(group).err())
                .collect();
            Ok(when(left.is_empty(), left.join(", ")))
        })
    }

    fn roots(&self) -> Vec<PathBuf> {
        self.hierarchies
            .iter()
            .map(|hierarchy| hierarchy.mounted.join(&self.name))
            .collect()
    }

    /// In the unified hierarchy if there is one, else in the first.
    fn daemons(&self) -> PathBuf {
        let hierarchy = self.hierarchies.iter().find(|hierarchy| hierarchy.unified);
        let mounted = hierarchy
            .or(self.hierarchies.first())
            .map(|h| h.mounted.clone());
        mounted.unwrap_or_default().join(&self.name).join("daemons")
    }
}

impl Hierarchy {
    /// What a new group lacks: a cpuset has no processor and takes no process; a unified group
    /// has no controller unless its parent hands it on.
    fn make_usable(&self, group: &Path) -> Result<()> {
        let Some(parent) = group.parent() else {
            return Ok(());
        };
        let (parent, group) = (self.mounted.join(parent), self.mounted.join(group));
        if self.unified {
            let controllers = fs::read_to_string(parent.join("cgroup.controllers"))
                .at("read the controllers of", &parent)?;
            let wanted: Vec<String> = controllers
                .split_whitespace()
                .map(|name| format!("+{name}"))
                .collect();
            let file = parent.join("cgroup.subtree_control");
            return fs::write(&file, wanted.join(" ")).at("hand controllers on in", &file);
        }
        for setting in ["cpuset.cpus", "cpuset.mems"] {
            if let Ok(value) = fs::read_to_string(parent.join(setting)) {
                let file = group.join(setting);
                fs::write(&file, value.trim()).at("set", &file)?;
            }
        }
        Ok(())
    }
}

/// `firn-` and a part of a hash, so that clusters of different state folders do not meet.
fn name(state: &Path) -> String {
    let hash = Sha256::digest(state.as_os_str().as_encoded_bytes());
    hash.iter().take(4).fold("firn-".to_owned(), |name, byte| {
        name + &format!("{byte:02x}")
    })
}

/// Every mounted hierarchy, sorted; see `proc_pid_mountinfo(5)`: the mount point is the fifth field,
/// the type follows a lone hyphen.
fn hierarchies(mountinfo: &str) -> Vec<Hierarchy> {
    let mut found: Vec<Hierarchy> = mountinfo
        .lines()
        .filter_map(|line| {
            let (mount, filesystem) = line.split_once(" - ")?;
            let unified = match filesystem.split(' ').next()? {
                "cgroup2" => true,
                "cgroup" => false,
                _ => return None,
            };
            Some(Hierarchy {
                mounted: mount.split(' ').nth(4)?.into(),
                unified,
            })
        })
        .collect();
    found.sort_by(|a, b| a.mounted.cmp(&b.mounted));
    found.dedup();
    found
}

fn processes_below(group: &Path) -> Vec<i32> {
    let own = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    // 0 is a process of a PID namespace that cannot be seen from here.
    let own = own
        .lines()
        .filter_map(|line| line.parse().ok())
        .filter(|pid| *pid != 0);
    own.chain(
        children(group)
            .iter()
            .flat_map(|child| processes_below(child)),
    )
    .collect()
}

fn children(group: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(group).into_iter().flatten().flatten();
    entries
        .filter(|e| e.file_type().is_ok_and(|t| t.is_dir()))
        .map(|e| e.path())
        .collect()
}

/// Depth first, for a group with children cannot be removed.
fn remove_tree(group: &Path) -> Result<(), String> {
    if !group.exists() {
        return Ok(());
    }
    children(group)
        .iter()
        .try_for_each(|child| remove_tree(child))?;
    fs::remove_dir(group).map_err(|error| format!("{}: {error}", group.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_hierarchies_of_a_hybrid_machine_are_found() {
        let mountinfo = "\
24 1 0:22 / /proc rw - proc proc rw
29 27 0:25 / /sys/fs/cgroup rw shared:4 - tmpfs tmpfs rw
31 29 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
30 29 0:27 / /sys/fs/cgroup/memory rw,relatime shared:5 master:1 - cgroup cgroup rw,memory
";
        let found = hierarchies(mountinfo);
        let memory = Hierarchy {
            mounted: "/sys/fs/cgroup/memory".into(),
            unified: false,
        };
        let unified = Hierarchy {
            mounted: "/sys/fs/cgroup/unified".into(),
            unified: true,
        };
        assert_eq!(found, [memory, unified]);
    }

    #[test]
    fn clusters_of_different_states_have_different_groups() {
        assert_ne!(name(Path::new("/a")), name(Path::new("/b")));
        assert_eq!(name(Path::new("/a")).len(), "firn-".len() + 8);
    }
}
