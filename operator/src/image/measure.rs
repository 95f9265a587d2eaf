//! What the metrics count of an image: once, in the turn that begins a build.

use firn_crd::build::BuildReason;

use super::Observed;
use super::plan::{Action, Plan};
use super::status::reason_of;
use crate::metrics::{Metrics, Retry};

/// Counts the builds of this plan that try again what a build before them did not do.
pub fn measure(metrics: &Metrics, observed: &Observed, plan: &Plan) {
    let retries = plan.actions.iter().filter_map(|action| match action {
        Action::CreateBuild(build) => Some(&build.spec.reasons),
        Action::SupersedeBuild { .. } | Action::DeleteBuild { .. } => None,
    });
    for reasons in retries.filter(|reasons| reasons.contains(&BuildReason::Retry)) {
        let retag = reasons.contains(&BuildReason::Retag);
        let failed = observed
            .runs
            .iter()
            .rev()
            .find(|run| run.work.retag == retag && !run.succeeded());
        if let Some(run) = failed {
            metrics.retried(reason_of(run), Retry::Slow);
        }
    }
}
