//! The page.

use std::fmt::Write as _;

use super::probe::Writes;
use super::{Figures, INTERVAL_MINUTES, NAMESPACES, burst};
use crate::install::{CONCURRENT_BUILDS, CONCURRENT_BUILDS_PER_NAMESPACE};

const MIB: f64 = 1_048_576.0;

pub(super) fn to_markdown(figures: &Figures) -> String {
    let Figures {
        size,
        first,
        first_writes,
        after_first,
        idle: (before, after),
        idle_writes,
        burst,
    } = figures;
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    let mib = |bytes: u64| bytes as f64 / MIB;
    let window = size.idle.as_secs();
    let mut page = format!(
        "# Scale\n\n\
         Written by `make scale`, on the embedded cluster: API server, etcd, node and operator share one machine\n\
         with two cores. {images} NixImages in {NAMESPACES} namespaces, all of one repository, each asking every {INTERVAL_MINUTES} min; one is\n\
         really built, the others carry its result and its build.\n\n\
         | | asked | measured |\n|---|---|---|\n\
         | first reconcile of all, from the Deployment's scaling to 1 | under 60 s | {first:.0} s |\n\
         | API writes until then | | {first_writes} |\n\
         | operator's resident memory then | | {resident_first:.0} MiB |\n\
         | the most in {window} s in which nothing happens | at most 150 MiB | {resident:.0} MiB |\n\
         | API writes in these {window} s, without the Lease | 0 | {idle_writes} |\n\
         | reconciles of images in them | | {reconciles:.0} |\n\
         | questions to the git server in them | at most {asked}: equal sources are asked once | {polls:.0} |\n\
         | operator's processor time in them | | {operator:.1} s |\n\
         | API server's processor time in them | | {api:.1} s |\n",
        images = size.images,
        first = first.as_secs_f64(),
        first_writes = told(first_writes),
        resident_first = mib(after_first.resident),
        resident = mib(after.resident.max(before.resident)),
        idle_writes = told(idle_writes),
        reconciles = after.reconciles - before.reconciles,
        // One more: the window does not begin with an interval.
        asked = window / (60 * INTERVAL_MINUTES) + 1,
        polls = after.polls - before.polls,
        operator = after.operator_cpu - before.operator_cpu,
        api = after.api_cpu - before.api_cpu,
    );
    if let Some(drained) = burst {
        let (all, each) = burst::at_once(&drained.turns);
        // Writing into memory does not fail.
        let _ = write!(
            page,
            "| {count} images change at once: until the last is built | 500 drain | {took:.0} s |\n\
             | builds that ran | {count} | {ran} |\n\
             | at once, at most | {CONCURRENT_BUILDS} | {all} |\n\
             | of one namespace | {CONCURRENT_BUILDS_PER_NAMESPACE} | {each} |\n\
             | builds by which a namespace was ahead of another, both waiting, at most | fair | {lead} |\n",
            count = size.burst,
            took = drained.took.as_secs_f64(),
            ran = drained.turns.len(),
            lead = burst::lead(&drained.turns),
        );
    }
    page
}

fn told(writes: &Writes) -> String {
    if writes.is_empty() {
        return "0".to_owned();
    }
    let all: usize = writes.values().sum();
    let each: Vec<String> = writes
        .iter()
        .map(|(what, count)| format!("{count} {what}"))
        .collect();
    format!("{all}: {}", each.join(", "))
}
