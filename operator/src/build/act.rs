//! Does what a plan says, in its order, and decides nothing.

use firn_crd::NixImageBuild;
use firn_crd::names::MANAGER_BUILD;
use k8s_openapi::api::batch::v1::Job;
use kube::api::PropagationPolicy;
use kube::{Resource, ResourceExt};
use serde_json::json;

use super::plan::{Action, Plan};
use crate::apply::Cluster;
use crate::context::Context;
use crate::error::Error;
use crate::events;

/// Does it; stops at the first error.
pub async fn act(ctx: &Context, build: &NixImageBuild, plan: &Plan) -> Result<(), Error> {
    let Plan {
        actions,
        status,
        events,
        cleanup,
        look_again: _,
    } = plan;
    let namespace = build.namespace().unwrap_or_default();
    for action in actions {
        perform(&ctx.cluster, &namespace, action).await?;
    }
    if let Some(status) = status {
        let value = serde_json::to_value(status.as_ref()).unwrap_or_default();
        ctx.cluster
            .apply_status(build, MANAGER_BUILD, &value)
            .await?;
    }
    events::publish(&ctx.build_events, &build.object_ref(&()), events).await;
    for action in cleanup {
        perform(&ctx.cluster, &namespace, action).await?;
    }
    Ok(())
}

async fn perform(cluster: &Cluster, namespace: &str, action: &Action) -> Result<(), Error> {
    match action {
        // Both may be there already, made by a run before a crash or for another build; the next
        // observation verifies whose the Job is.
        Action::CreateAccount(account) => cluster
            .create(namespace, MANAGER_BUILD, account.as_ref())
            .await
            .map(drop),
        Action::CreateJob(job) => {
            tracing::info!(job = job.name_any(), "Job created");
            cluster
                .create(namespace, MANAGER_BUILD, job.as_ref())
                .await
                .map(drop)
        }
        Action::Resume { job } => {
            let patch = json!({"spec": {"suspend": false}});
            cluster
                .merge::<Job>(namespace, job, MANAGER_BUILD, &patch)
                .await
        }
        Action::DeleteJob { job, uid } => {
            let propagation = PropagationPolicy::Foreground;
            cluster
                .delete::<Job>(namespace, job, uid, propagation)
                .await
        }
    }
}
