//! Which finished builds go. Pure.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;

/// A finished build.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Its number.
    pub number: i64,
    /// Whether it did what it was for.
    pub succeeded: bool,
    /// When it ended.
    pub ended: Timestamp,
}

/// How many are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keep {
    /// Of those that succeeded.
    pub succeeded: usize,
    /// Of the others.
    pub failed: usize,
    /// And how long.
    pub ttl: Option<Duration>,
}

/// All that goes now, and when the next one does by its age. `pinned` never goes: the build of the
/// published image, and the last of each kind, which tell what was tried.
pub fn excess(
    entries: &[Entry],
    keep: Keep,
    pinned: &BTreeSet<i64>,
    now: Timestamp,
) -> (Vec<i64>, Option<Timestamp>) {
    let mut sorted = entries.to_vec();
    sorted.sort_by_key(|entry| std::cmp::Reverse(entry.number));
    let (mut succeeded, mut failed) = (0, 0);
    let mut gone = Vec::new();
    let mut next: Option<Timestamp> = None;
    for entry in sorted {
        let (count, most) = if entry.succeeded {
            (&mut succeeded, keep.succeeded)
        } else {
            (&mut failed, keep.failed)
        };
        *count += 1;
        if pinned.contains(&entry.number) {
            continue;
        }
        let expires = keep.ttl.map(|ttl| {
            let seconds = i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX);
            Timestamp::from_second(entry.ended.as_second().saturating_add(seconds))
                .unwrap_or(Timestamp::MAX)
        });
        if *count > most || expires.is_some_and(|expires| expires <= now) {
            gone.push(entry.number);
        } else {
            next = [next, expires].into_iter().flatten().min();
        }
    }
    gone.sort_unstable();
    (gone, next)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEEP: Keep = Keep {
        succeeded: 2,
        failed: 1,
        ttl: None,
    };

    fn now() -> Timestamp {
        "2026-11-24T10:00:00Z".parse().unwrap()
    }

    fn entry(number: i64, succeeded: bool) -> Entry {
        Entry {
            number,
            succeeded,
            ended: Timestamp::from_second(now().as_second() - 100 + number).unwrap(),
        }
    }

    #[test]
    fn the_oldest_of_each_outcome_go_all_at_once() {
        let entries = [1, 2, 3, 4, 5, 6].map(|n| entry(n, n % 2 == 0));
        let (gone, next) = excess(&entries, KEEP, &BTreeSet::new(), now());
        assert_eq!(gone, [1, 2, 3]);
        assert_eq!(next, None);
    }

    #[test]
    fn what_is_pinned_stays() {
        let none = Keep {
            succeeded: 0,
            failed: 0,
            ttl: Some(Duration::from_secs(1)),
        };
        let entries = [1, 2].map(|n| entry(n, true));
        assert_eq!(excess(&entries, none, &[1].into(), now()).0, [2]);
    }

    #[test]
    fn age_takes_the_others_in_time() {
        let aged = Keep {
            succeeded: 9,
            failed: 9,
            ttl: Some(Duration::from_secs(98)),
        };
        let entries = [1, 2, 3].map(|n| entry(n, true));
        let (gone, next) = excess(&entries, aged, &BTreeSet::new(), now());
        assert_eq!(gone, [1, 2]);
        assert_eq!(
            next,
            Some(Timestamp::from_second(now().as_second() + 1).unwrap())
        );
    }
}
