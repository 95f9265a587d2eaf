//! Whose turn it is. The queue is the set of suspended Jobs: nothing is kept in memory, and every
//! build computes the same order from the same Jobs. Pure.

use std::collections::BTreeMap;

use crate::settings::Limits;

/// A Job that is not over.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// Its namespace.
    pub namespace: String,
    /// 0 goes first; see [`priority`].
    pub priority: u8,
    /// When it was made, in seconds since the epoch.
    pub created: i64,
    /// Its name.
    pub job: String,
    /// Not suspended.
    pub running: bool,
}

/// What a waiting Job may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// Begin.
    Now,
    /// Wait: this many others go first, running ones not counted.
    Wait {
        /// Jobs before it.
        ahead: usize,
    },
}

/// In place of a reason: a Job that makes an index. Hours of work wait for its seconds.
pub const PUBLISH: &str = "Publish";

/// The order of reasons: people first, then what they changed, then what changed by itself.
pub fn priority(reason: &str) -> u8 {
    match reason {
        "Manual" | PUBLISH => 0,
        "Config" | "Initial" | "Retag" => 1,
        "Revision" | "LockFile" => 2,
        "Drift" | "Retry" => 3,
        _ => 4,
    }
}

/// Whether the waiting Job `job` of `namespace` may begin: namespaces take turns (the one with
/// fewest running Jobs first), then priority, then age, then name. A Job that is not among
/// `entries` waits until it is, so that everyone counts it.
pub fn turn(entries: &[Entry], limits: Limits, namespace: &str, job: &str) -> Turn {
    let mut running: BTreeMap<&str, u32> = BTreeMap::new();
    for entry in entries.iter().filter(|entry| entry.running) {
        *running.entry(&entry.namespace).or_default() += 1;
    }
    let mut free = limits
        .concurrent_builds
        .saturating_sub(running.values().sum());
    let mut waiting: Vec<&Entry> = entries.iter().filter(|entry| !entry.running).collect();
    let mut ahead = 0;
    while free > 0 {
        let used = |entry: &Entry| running.get(entry.namespace.as_str()).copied().unwrap_or(0);
        let next = waiting
            .iter()
            .enumerate()
            .filter(|(_, entry)| used(entry) < limits.concurrent_builds_per_namespace)
            .min_by_key(|(_, entry)| (used(entry), entry.priority, entry.created, &entry.job))
            .map(|(index, _)| index);
        let Some(next) = next else {
            break;
        };
        let entry = waiting.swap_remove(next);
        if entry.namespace == namespace && entry.job == job {
            return Turn::Now;
        }
        *running.entry(&entry.namespace).or_default() += 1;
        free -= 1;
        ahead += 1;
    }
    let mine = waiting
        .iter()
        .find(|entry| entry.namespace == namespace && entry.job == job);
    let before = mine.map_or(waiting.len(), |mine| {
        let key = |entry: &Entry| (entry.priority, entry.created, entry.job.clone());
        waiting
            .iter()
            .filter(|entry| key(entry) < key(mine))
            .count()
    });
    Turn::Wait {
        ahead: ahead + before,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: Limits = Limits {
        concurrent_builds: 3,
        concurrent_builds_per_namespace: 2,
    };

    fn entry(namespace: &str, job: &str, created: i64, running: bool) -> Entry {
        Entry {
            namespace: namespace.into(),
            priority: 2,
            created,
            job: job.into(),
            running,
        }
    }

    #[test]
    fn the_oldest_of_the_idlest_namespace_begins() {
        let entries = [
            entry("busy", "a-1-amd64", 1, true),
            entry("busy", "b-1-amd64", 2, true),
            entry("busy", "c-1-amd64", 3, false),
            entry("idle", "d-1-amd64", 9, false),
            entry("idle", "e-1-amd64", 8, false),
        ];
        assert_eq!(turn(&entries, LIMITS, "idle", "e-1-amd64"), Turn::Now);
        assert_eq!(
            turn(&entries, LIMITS, "idle", "d-1-amd64"),
            Turn::Wait { ahead: 2 }
        );
        assert_eq!(
            turn(&entries, LIMITS, "busy", "c-1-amd64"),
            Turn::Wait { ahead: 1 }
        );
    }

    #[test]
    fn a_person_does_not_wait_for_a_bot() {
        let asked = Entry {
            priority: priority("Manual"),
            ..entry("n", "late-1-amd64", 9, false)
        };
        let one = Limits {
            concurrent_builds: 1,
            ..LIMITS
        };
        let entries = [entry("n", "early-1-amd64", 1, false), asked];
        assert_eq!(turn(&entries, one, "n", "late-1-amd64"), Turn::Now);
        assert_eq!(
            turn(&entries, one, "n", "early-1-amd64"),
            Turn::Wait { ahead: 1 }
        );
    }

    #[test]
    fn the_seconds_of_an_index_do_not_wait_for_the_hours_of_others() {
        let index = Entry {
            priority: priority(PUBLISH),
            ..entry("n", "late-1-publish", 9, false)
        };
        let one = Limits {
            concurrent_builds: 1,
            ..LIMITS
        };
        let entries = [entry("n", "early-1-amd64", 1, false), index];
        assert_eq!(turn(&entries, one, "n", "late-1-publish"), Turn::Now);
    }

    #[test]
    fn a_job_that_nobody_sees_yet_waits() {
        assert_eq!(
            turn(&[], LIMITS, "n", "new-1-amd64"),
            Turn::Wait { ahead: 0 }
        );
    }

    proptest! {
        #[test]
        fn never_more_begin_than_the_limits_leave(
            jobs in prop::collection::vec((0_u8..3, 0_i64..5, any::<bool>()), 0..12),
            cluster in 1_u32..5,
            each in 1_u32..4,
        ) {
            let limits = Limits { concurrent_builds: cluster, concurrent_builds_per_namespace: each };
            let entries: Vec<_> = jobs
                .iter()
                .enumerate()
                .map(|(i, (ns, created, running))| entry(&format!("ns{ns}"), &format!("j{i}"), *created, *running))
                .collect();
            let begin: Vec<_> = entries
                .iter()
                .filter(|e| !e.running && turn(&entries, limits, &e.namespace, &e.job) == Turn::Now)
                .collect();
            let running = entries.iter().filter(|e| e.running).count();
            prop_assert!(begin.is_empty() || begin.len() + running <= cluster as usize);
            for ns in 0..3 {
                let ns = format!("ns{ns}");
                let mine = begin.iter().filter(|e| e.namespace == ns).count();
                let already = entries.iter().filter(|e| e.running && e.namespace == ns).count();
                prop_assert!(mine == 0 || mine + already <= each as usize);
            }
            // Whoever can begin does: no slot stays free while somebody may have it.
            if running < cluster as usize && begin.len() + running < cluster as usize {
                for e in entries.iter().filter(|e| !e.running && !begin.iter().any(|b| b.job == e.job)) {
                    let used = entries.iter().filter(|o| o.running && o.namespace == e.namespace).count()
                        + begin.iter().filter(|o| o.namespace == e.namespace).count();
                    prop_assert!(used >= each as usize);
                }
            }
        }
    }
}
