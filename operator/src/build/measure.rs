//! What the metrics count of a build: once, in the turn that records its end.

use std::time::Duration;

use firn_crd::report::{Stage, StageName};

use super::plan::Plan;
use super::report::{self, Success};
use super::{Observed, observe};
use crate::metrics::{Metrics, Retry};

/// Counts what this plan recorded.
pub fn measure(metrics: &Metrics, observed: &Observed, plan: &Plan) {
    let Some(status) = plan.status.as_deref() else {
        return;
    };
    let Some(outcome) = status.outcome else {
        return;
    };
    let reason = status
        .failure
        .as_ref()
        .and_then(firn_crd::failure::Failure::known_reason);
    metrics.build_ended(outcome, reason);
    for seen in &observed.jobs {
        let pods = seen.pods.len();
        let before = seen.pods.iter().take(pods.saturating_sub(1));
        for failed in before.filter_map(report::failure) {
            metrics.retried(failed.reason, Retry::Fast);
        }
        if let Some(Ok(Success::Pushed(pushed))) = seen.pods.iter().rev().find_map(report::success)
        {
            metrics.pushed(&pushed);
        }
    }
    let mut told = Vec::new();
    for stage in &status.stages {
        let millis = stage.duration_milliseconds.unwrap_or(0);
        let length = Duration::from_millis(u64::try_from(millis).unwrap_or(0));
        match stage.name {
            StageName::Queue => metrics.waited(length),
            StageName::Schedule => metrics.ramped_up(length),
            name => told.push(Stage {
                name,
                start: stage.start_time.0.as_millisecond(),
                millis,
            }),
        }
    }
    metrics.stages(&told);
}

/// Counts who runs and who waits.
pub fn queue(metrics: &Metrics, ctx: &crate::context::Context) {
    let entries = observe::entries(ctx);
    let running = entries.iter().filter(|entry| entry.running).count();
    metrics.queue(running, entries.len() - running);
}
