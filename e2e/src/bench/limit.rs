//! A memory limit for one command: a control group of its own, in whichever of the two versions the
//! machine has.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

/// A control group with a memory limit; removed when dropped.
#[derive(Debug)]
pub struct Limit {
    group: PathBuf,
}

impl Limit {
    /// A group whose processes may hold `bytes` together, page cache included.
    ///
    /// Errors: not root, or the kernel does not limit memory.
    pub fn new(bytes: u64) -> Result<Self> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").context("failed to read mounts")?;
        let (mounted, unified) =
            hierarchy(&mounts).context("no control groups that limit memory are mounted")?;
        if unified {
            // The parent hands the controller on; it may do so already.
            let _ = fs::write(mounted.join("cgroup.subtree_control"), "+memory");
        }
        let group = mounted.join(format!("firn-bench-{}", std::process::id()));
        fs::create_dir_all(&group)
            .with_context(|| format!("failed to make {}", group.display()))?;
        let limit = Self { group };
        let file = if unified {
            "memory.max"
        } else {
            "memory.limit_in_bytes"
        };
        let file = limit.group.join(file);
        fs::write(&file, bytes.to_string())
            .with_context(|| format!("failed to write {}", file.display()))?;
        Ok(limit)
    }

    /// `command`, in the group from its first instruction on.
    pub fn wrap(&self, command: &Command) -> Command {
        let mut shell = Command::new("sh");
        shell
            .args(["-c", r#"echo $$ > "$0/cgroup.procs" && exec "$@""#])
            .arg(&self.group)
            .arg(command.get_program())
            .args(command.get_args());
        shell
    }
}

impl Drop for Limit {
    fn drop(&mut self) {
        // Empty groups cost nothing; the name says whose it was.
        let _ = fs::remove_dir(&self.group);
    }
}

/// Where memory is limited, and whether by version 2. The mount point is the fifth field of a line
/// of `proc_pid_mountinfo(5)`; type and options follow a lone hyphen.
fn hierarchy(mountinfo: &str) -> Option<(PathBuf, bool)> {
    let mut found: Vec<(PathBuf, bool)> = mountinfo
        .lines()
        .filter_map(|line| {
            let (mount, filesystem) = line.split_once(" - ")?;
            let point = Path::new(mount.split(' ').nth(4)?).to_owned();
            let mut words = filesystem.split(' ');
            let kind = words.next()?;
            let memory = words.nth(1)?.split(',').any(|option| option == "memory");
            match kind {
                "cgroup" if memory => Some((point, false)),
                "cgroup2" => Some((point, true)),
                _ => None,
            }
        })
        .collect();
    // A controller is in one version only: where version 1 has it, version 2 does not.
    found.sort_by_key(|(_, unified)| *unified);
    found.into_iter().next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_limited_where_its_controller_is() {
        let hybrid = "\
30 25 0:26 / /sys/fs/cgroup/unified rw shared:9 - cgroup2 cgroup2 rw\n\
31 25 0:27 / /sys/fs/cgroup/cpu rw shared:9 - cgroup cgroup rw,cpu\n\
32 25 0:28 / /sys/fs/cgroup/memory rw shared:9 - cgroup cgroup rw,memory\n";
        assert_eq!(
            hierarchy(hybrid),
            Some(("/sys/fs/cgroup/memory".into(), false))
        );
        let unified = "30 25 0:26 / /sys/fs/cgroup rw shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";
        assert_eq!(hierarchy(unified), Some(("/sys/fs/cgroup".into(), true)));
        assert_eq!(hierarchy("1 1 0:1 / / rw - ext4 /dev/vda rw\n"), None);
    }
}
