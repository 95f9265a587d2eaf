//! Many images that change at once, and the order in which they were served.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::Result;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::json;

use super::AT_ONCE;
use super::probe::Probe;
use super::seed::Origin;
use crate::story::{SOON, World};
use crate::wait::{Seen, eventually};

/// Time that one build has, on a busy machine, with others beside it.
const EACH: Duration = Duration::from_secs(30);

/// One build's Job.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Turn {
    pub(super) start: Timestamp,
    pub(super) namespace: String,
    pub(super) end: Timestamp,
}

/// What became of a burst.
#[derive(Debug)]
pub(super) struct Drained {
    /// From the first change to the last build's end.
    pub(super) took: Duration,
    /// In the order of their starts.
    pub(super) turns: Vec<Turn>,
}

/// Gives the first `count` copies a label more, and waits for their builds.
pub(super) async fn drain(worlds: &[World], probe: &Probe, count: usize) -> Result<Drained> {
    let number = u32::try_from(count)?;
    let before = probe.sum("firn_builds_total", &[]).await?;
    let begin = Instant::now();
    let patch = json!({ "spec": { "output": { "labels": { "dev.firn.burst": "1" } } } });
    stream::iter(1..=count)
        .map(|number| {
            // Never out of bounds: the remainder of a division by the length.
            let images = worlds[number % worlds.len()].images();
            let patch = Patch::Merge(patch.clone());
            async move {
                let name = Origin::name(number);
                let done = images.patch(&name, &PatchParams::default(), &patch).await;
                done.map(drop)
            }
        })
        .buffer_unordered(AT_ONCE)
        .try_collect::<()>()
        .await?;
    let ended = before + f64::from(number);
    eventually("the builds of the burst ended", EACH * number, || async {
        probe.at_least("firn_builds_total", ended).await
    })
    .await?;
    let took = begin.elapsed();
    let turns = eventually("the Jobs of the burst are complete", SOON, || async {
        Ok(match turns(worlds).await? {
            turns if turns.len() == count => Seen::Done(turns),
            turns => Seen::NotYet(format!("{} of {count}", turns.len())),
        })
    });
    Ok(Drained {
        took,
        turns: turns.await?,
    })
}

/// The burst's complete Jobs, by their start. The origin's first is not of the burst.
async fn turns(worlds: &[World]) -> Result<Vec<Turn>> {
    let mut turns = Vec::new();
    for world in worlds {
        let jobs: Api<Job> = Api::namespaced(world.client.clone(), &world.namespace);
        for job in jobs.list(&ListParams::default()).await?.items {
            let of_burst = job
                .metadata
                .name
                .is_some_and(|name| name.starts_with("app-"));
            let status = job.status.unwrap_or_default();
            let times = status.start_time.zip(status.completion_time);
            if let Some((start, end)) = times.filter(|_| of_burst) {
                turns.push(Turn {
                    start: start.0,
                    namespace: world.namespace.clone(),
                    end: end.0,
                });
            }
        }
    }
    turns.sort();
    Ok(turns)
}

/// How many builds a namespace was ahead of another at most, both having builds that wait.
pub(super) fn lead(turns: &[Turn]) -> usize {
    let mut left: BTreeMap<&str, usize> = BTreeMap::new();
    for turn in turns {
        *left.entry(&turn.namespace).or_default() += 1;
    }
    let mut begun: BTreeMap<&str, usize> = left.keys().map(|name| (*name, 0)).collect();
    let mut most = 0;
    // Within one second nobody knows who was first.
    for second in turns.chunk_by(|a, b| a.start == b.start) {
        for turn in second {
            *begun.entry(&turn.namespace).or_default() += 1;
            *left.entry(&turn.namespace).or_default() -= 1;
        }
        let waiting = begun.iter().filter(|(name, _)| left.get(*name) > Some(&0));
        let counts: BTreeSet<usize> = waiting.map(|(_, count)| *count).collect();
        if let (Some(least), Some(greatest)) = (counts.first(), counts.last()) {
            most = most.max(greatest - least);
        }
    }
    most
}

/// How many ran at once at most, of all and of one namespace. Times are whole seconds: what ends
/// in a second made room for what began in it.
pub(super) fn at_once(turns: &[Turn]) -> (usize, usize) {
    let running = |at: &Timestamp, of: Option<&str>| {
        let mine = turns
            .iter()
            .filter(|turn| of.is_none_or(|of| turn.namespace == of));
        mine.filter(|turn| turn.start <= *at && *at < turn.end)
            .count()
    };
    let most = |of: Option<&str>| turns.iter().map(|turn| running(&turn.start, of)).max();
    let namespaces: BTreeSet<&str> = turns.iter().map(|turn| turn.namespace.as_str()).collect();
    let each = namespaces
        .into_iter()
        .filter_map(|name| most(Some(name)))
        .max();
    (most(None).unwrap_or(0), each.unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(start: i64, namespace: &str, end: i64) -> Turn {
        let at = |second| Timestamp::from_second(second).unwrap();
        Turn {
            start: at(start),
            namespace: namespace.into(),
            end: at(end),
        }
    }

    #[test]
    fn who_takes_turns_is_never_far_ahead() {
        let fair = [
            turn(1, "a", 3),
            turn(2, "b", 4),
            turn(3, "a", 5),
            turn(4, "b", 6),
        ];
        assert_eq!(lead(&fair), 1);
        let unfair = [
            turn(1, "a", 3),
            turn(2, "a", 4),
            turn(3, "a", 5),
            turn(4, "b", 6),
        ];
        assert_eq!(lead(&unfair), 2, "when a has none left, b is not behind");
    }

    #[test]
    fn those_that_ran_at_once_are_counted() {
        let turns = [
            turn(1, "a", 3),
            turn(2, "a", 4),
            turn(2, "b", 9),
            turn(3, "b", 5),
        ];
        assert_eq!(at_once(&turns), (3, 2));
    }
}
