//! Reads everything that a plan about a build may use. Nothing else of `build` reads.
//! What decides about an end is read from the API server itself, never from a watch's store: a store
//! that lags would take a Job that was just made for a deleted one.

use std::sync::Arc;

use firn_crd::names;
use firn_crd::{NixImage, NixImageBuild};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Event, Pod, ServiceAccount};
use kube::{Resource, ResourceExt};

use super::progress::{is_alive, is_finished, is_suspended};
use super::{Observed, Warning, job, order, queue, report};
use crate::context::Context;
use crate::error::Error;

/// The build as it is now, with its Job and pods. `None`: it is gone.
pub async fn observe(
    ctx: &Context,
    namespace: &str,
    name: &str,
) -> Result<Option<Observed>, Error> {
    let cluster = &ctx.cluster;
    let Some(object) = cluster.get::<NixImageBuild>(namespace, name).await? else {
        return Ok(None);
    };
    let uid = object.uid().unwrap_or_default();
    let job_name = order::job_name(&object);
    let found = cluster.get::<Job>(namespace, &job_name).await?;
    let ours = found.as_ref().is_none_or(|job| is_owned(job, &uid));
    let ended = object
        .status
        .as_ref()
        .is_some_and(|status| status.outcome.is_some());
    if !ours && !ended {
        return Err(Error::NameTaken {
            kind: "Job",
            name: job_name,
        });
    }
    let job = found.filter(|_| ours);
    let image = match &object.spec.image {
        Some(image) => cluster
            .get::<NixImage>(namespace, &image.name)
            .await?
            .filter(|found| found.uid().as_deref() == Some(image.uid.as_str())),
        None => None,
    };
    let (pods, others) = if ended {
        (Vec::new(), Vec::new())
    } else {
        pods(ctx, namespace, &object, job.as_ref()).await?
    };
    let warnings = if ended {
        Vec::new()
    } else {
        warnings(ctx, namespace, job.as_ref(), &pods).await?
    };
    let has_account = job.is_some()
        || ended
        || cluster
            .get::<ServiceAccount>(namespace, job::SERVICE_ACCOUNT)
            .await?
            .is_some();
    Ok(Some(Observed {
        now: ctx.now(),
        image: image.map(Arc::new),
        has_account,
        pods,
        others,
        warnings,
        turn: queue::turn(&entries(ctx), ctx.settings.limits, namespace, &job_name),
        refused: None,
        site: ctx.pods.clone(),
        retention: ctx.settings.pods.job_retention,
        build: Arc::new(object),
        job,
    }))
}

/// The Job's pods, oldest first, and other pods of the image that may still run.
async fn pods(
    ctx: &Context,
    namespace: &str,
    build: &NixImageBuild,
    job: Option<&Job>,
) -> Result<(Vec<Pod>, Vec<String>), Error> {
    // Labels can be forged: they find, owners decide.
    let platform = names::platform_label(order::platform(build).platform.as_str());
    let labels = match &build.spec.image {
        Some(image) => format!(
            "{}={},{}={platform}",
            names::LABEL_IMAGE,
            image.name,
            names::LABEL_PLATFORM
        ),
        None => format!("{}={}", names::LABEL_BUILD, build.name_any()),
    };
    let mut all = ctx.cluster.list::<Pod>(namespace, &labels).await?;
    all.sort_by_key(|pod| (pod.creation_timestamp().map(|time| time.0), pod.name_any()));
    let job_uid = job.and_then(ResourceExt::uid);
    let name = build.name_any();
    let mine = |pod: &Pod| match &job_uid {
        Some(uid) => is_owned(pod, uid),
        // The Job is gone; its pods may be on their way.
        None => pod.labels().get(names::LABEL_BUILD) == Some(&name),
    };
    let (mine, others): (Vec<_>, Vec<_>) = all.into_iter().partition(mine);
    let others = others
        .iter()
        .filter(|pod| is_alive(pod))
        .map(ResourceExt::name_any)
        .collect();
    Ok((mine, others))
}

/// Warnings about a Job without pods, or about a pod that does not start.
async fn warnings(
    ctx: &Context,
    namespace: &str,
    job: Option<&Job>,
    pods: &[Pod],
) -> Result<Vec<Warning>, Error> {
    let Some(job) = job.filter(|job| !is_finished(job) && !is_suspended(job)) else {
        return Ok(Vec::new());
    };
    let uid = match pods.iter().rev().find(|pod| is_alive(pod)) {
        Some(pod) if report::started(pod).is_some() => return Ok(Vec::new()),
        Some(pod) => pod.uid(),
        None => job.uid(),
    };
    let fields = format!(
        "involvedObject.uid={},type=Warning",
        uid.unwrap_or_default()
    );
    let mut events = ctx
        .cluster
        .list_by_field::<Event>(namespace, &fields)
        .await?;
    events.sort_by_key(|event| {
        let last = event.last_timestamp.as_ref().map(|time| time.0);
        last.or_else(|| event.event_time.as_ref().map(|time| time.0))
    });
    Ok(events
        .into_iter()
        .map(|event| Warning {
            reason: event.reason.unwrap_or_default(),
            message: event.message.unwrap_or_default(),
        })
        .collect())
}

fn is_owned(child: &impl ResourceExt, uid: &str) -> bool {
    child
        .owner_references()
        .iter()
        .any(|owner| owner.controller == Some(true) && owner.uid == uid)
}

/// All Jobs that are not over, as the watches see them: everybody computes with the same.
pub fn entries(ctx: &Context) -> Vec<queue::Entry> {
    ctx.jobs
        .iter()
        .flat_map(kube::runtime::reflector::Store::state)
        .filter(|job| !is_finished(job) && job.meta().deletion_timestamp.is_none())
        .map(|job| queue::Entry {
            namespace: job.namespace().unwrap_or_default(),
            priority: queue::priority(
                job.annotations()
                    .get(job::ANNOTATION_REASON)
                    .map_or("", String::as_str),
            ),
            created: job
                .creation_timestamp()
                .map_or(0, |time| time.0.as_second()),
            job: job.name_any(),
            running: !is_suspended(&job),
        })
        .collect()
}
