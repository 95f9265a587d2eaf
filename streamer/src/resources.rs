//! Memory and disk of the container: what the kernel says about kills and free space. A killed
//! builder makes Nix fail like any other, so that only the control group's count tells.

use std::fs;
use std::path::Path;

/// Below this the store's disk counts as full, in bytes: Nix's database alone grows by more.
const DISK_FLOOR: u64 = 4 << 20;

/// How often the kernel killed a process of this container for lack of memory.
/// 0 where there is no such count.
pub fn oom_kills() -> u64 {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let files = count_files(&groups).into_iter();
    let mut counts = files.filter_map(|file| fs::read_to_string(file).ok());
    counts.find_map(|text| count(&text)).unwrap_or_default()
}

/// Where the count may be, from `/proc/self/cgroup`: at the group's own path, or, in a container
/// that sees only its own group, at the top.
fn count_files(groups: &str) -> Vec<String> {
    let group = |controller: &str| {
        groups.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            let controllers = fields.next()?;
            let path = fields.next()?;
            controllers
                .split(',')
                .any(|c| c == controller)
                .then_some(path.trim_end_matches('/'))
        })
    };
    let mut files = Vec::new();
    for (controller, directory, file) in [
        ("memory", "/sys/fs/cgroup/memory", "memory.oom_control"),
        ("", "/sys/fs/cgroup", "memory.events"),
    ] {
        if let Some(path) = group(controller) {
            files.push(format!("{directory}{path}/{file}"));
            files.push(format!("{directory}/{file}"));
        }
    }
    files
}

/// The value of `oom_kill` in either version's file. `oom_kill_disable` is another line.
fn count(text: &str) -> Option<u64> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("oom_kill "))?;
    line.trim().parse().ok()
}

/// Whether the disk of `path` has no room or no files left.
pub fn disk_full(path: &Path) -> bool {
    rustix::fs::statvfs(path).is_ok_and(|disk| {
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        // File systems without a table of files say 0 of 0.
        free < DISK_FLOOR || (disk.f_files > 0 && disk.f_favail == 0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_of_control_groups_are_read() {
        let v2 = "low 0\nhigh 0\nmax 12\noom 3\noom_kill 2\noom_group_kill 0\n";
        let v1 = "oom_kill_disable 0\nunder_oom 0\noom_kill 5\n";
        assert_eq!((count(v2), count(v1), count("")), (Some(2), Some(5), None));
    }

    #[test]
    fn the_containers_own_group_is_looked_at_first() {
        let hybrid = "4:cpu,memory:/kubepods/pod1\n0::/\n";
        assert_eq!(
            count_files(hybrid),
            [
                "/sys/fs/cgroup/memory/kubepods/pod1/memory.oom_control",
                "/sys/fs/cgroup/memory/memory.oom_control",
                "/sys/fs/cgroup/memory.events",
                "/sys/fs/cgroup/memory.events",
            ]
        );
        assert_eq!(
            count_files("0::/user/a\n")[0],
            "/sys/fs/cgroup/user/a/memory.events"
        );
    }

    #[test]
    fn a_disk_with_room_is_not_full() {
        assert!(!disk_full(&std::env::temp_dir()));
    }
}
