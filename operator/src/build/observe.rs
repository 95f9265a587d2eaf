//! Reads everything that a plan about a build may use. Nothing else of `build` reads.
//! What decides about an end is read from the API server itself, never from a watch's store: a store
//! that lags would take a Job that was just made for a deleted one.

use std::cmp::Reverse;
use std::sync::Arc;

use firn_crd::build_status::BuildOutcome;
use firn_crd::names;
use firn_crd::{NixImage, NixImageBuild};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Event, Pod, ServiceAccount};
use kube::{Resource, ResourceExt};

use super::progress::{is_alive, is_finished, is_suspended};
use super::{Observed, Part, Seen, Warning, job, order, queue, report};
use crate::context::Context;
use crate::error::Error;

/// Label of pods: their Job's name, from the Job controller.
const JOB_NAME: &str = "batch.kubernetes.io/job-name";

/// The build as it is now, with its Jobs and pods. `None`: it is gone.
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
    let ended = object
        .status
        .as_ref()
        .is_some_and(|status| status.outcome.is_some());
    let mut jobs = Vec::new();
    for part in order::parts(&object) {
        let name = order::job_name(&object, part);
        let found = cluster.get::<Job>(namespace, &name).await?;
        let ours = found.as_ref().is_none_or(|job| is_owned(job, &uid));
        if !ours && !ended {
            return Err(Error::NameTaken { kind: "Job", name });
        }
        jobs.push((part, found.filter(|_| ours)));
    }
    let image = match &object.spec.image {
        Some(image) => cluster
            .get::<NixImage>(namespace, &image.name)
            .await?
            .filter(|found| found.uid().as_deref() == Some(image.uid.as_str())),
        None => None,
    };
    let previous = if ended {
        None
    } else {
        previous(ctx, namespace, &object).await?
    };
    // Layers are looked for by the Jobs of platforms; whose a tag is, by those that move tags.
    let is_unmade = |(part, job): &(Part, Option<Job>)| {
        job.is_none() && (*part != Part::Publish || order::guards_tags(&object))
    };
    let earlier = if !ended && jobs.iter().any(is_unmade) {
        earlier(ctx, namespace, &object).await?
    } else {
        Vec::new()
    };
    let has_account = ended
        || jobs.iter().all(|(_, job)| job.is_some())
        || cluster
            .get::<ServiceAccount>(namespace, job::SERVICE_ACCOUNT)
            .await?
            .is_some();
    let pods = if ended {
        Vec::new()
    } else {
        pods(ctx, namespace, &object).await?
    };
    let uids: Vec<String> = jobs
        .iter()
        .filter_map(|(_, job)| job.as_ref().and_then(ResourceExt::uid))
        .collect();
    let entries = entries(ctx);
    let mut seen = Vec::new();
    for (part, job) in jobs {
        let name = order::job_name(&object, part);
        let mine: Vec<Pod> = pods
            .iter()
            .filter(|pod| is_mine(pod, &object, job.as_ref(), &name))
            .cloned()
            .collect();
        let others = pods
            .iter()
            .filter(|pod| !uids.iter().any(|uid| is_owned(*pod, uid)))
            .filter(|pod| !mine.iter().any(|mine| mine.name_any() == pod.name_any()))
            .filter(|pod| is_alive(pod) && excludes(pod, &object, part))
            .map(ResourceExt::name_any)
            .collect();
        let warnings = if ended {
            Vec::new()
        } else {
            warnings(ctx, namespace, job.as_ref(), &mine).await?
        };
        seen.push(Seen {
            part,
            job,
            pods: mine,
            others,
            warnings,
            turn: queue::turn(&entries, ctx.settings.limits, namespace, &name),
        });
    }
    Ok(Some(Observed {
        now: ctx.now(),
        image: image.map(Arc::new),
        previous: previous.map(Arc::new),
        earlier,
        has_account,
        jobs: seen,
        refused: None,
        site: ctx.pods.clone(),
        retention: ctx.settings.pods.job_retention,
        build: Arc::new(object),
    }))
}

/// The build before one of several platforms: what it left need not be made again.
async fn previous(
    ctx: &Context,
    namespace: &str,
    build: &NixImageBuild,
) -> Result<Option<NixImageBuild>, Error> {
    let (Some(image), Some(number)) = (&build.spec.image, build.spec.number) else {
        return Ok(None);
    };
    if number < 2 || !order::has_index(build) {
        return Ok(None);
    }
    let name = names::build_name(&image.name, number - 1);
    let found = ctx.cluster.get::<NixImageBuild>(namespace, &name).await?;
    let same = |found: &NixImageBuild| {
        let owner = found.spec.image.as_ref();
        owner.is_some_and(|owner| owner.uid == image.uid) && is_owned(found, &image.uid)
    };
    Ok(found.filter(same))
}

/// What the last builds before this one published: for a change that takes another back, and to
/// know whose a tag is.
async fn earlier(
    ctx: &Context,
    namespace: &str,
    build: &NixImageBuild,
) -> Result<Vec<NixImageBuild>, Error> {
    let Some(image) = &build.spec.image else {
        return Ok(Vec::new());
    };
    let fields = format!("spec.image.name={}", image.name);
    let mut builds = ctx
        .cluster
        .list_by_field::<NixImageBuild>(namespace, &fields)
        .await?;
    builds.retain(|found| {
        let owner = found.spec.image.as_ref();
        let outcome = found.status.as_ref().and_then(|status| status.outcome);
        owner.is_some_and(|owner| owner.uid == image.uid)
            && is_owned(found, &image.uid)
            && found.spec.number < build.spec.number
            && outcome == Some(BuildOutcome::Published)
    });
    builds.sort_by_key(|found| Reverse(found.spec.number));
    builds.truncate(order::KNOWN_MAX);
    Ok(builds)
}

/// The pods of the build and of others of its image, oldest first. Labels can be forged: they find,
/// owners decide.
async fn pods(ctx: &Context, namespace: &str, build: &NixImageBuild) -> Result<Vec<Pod>, Error> {
    let labels = match &build.spec.image {
        Some(image) => format!("{}={}", names::LABEL_IMAGE, image.name),
        None => format!("{}={}", names::LABEL_BUILD, build.name_any()),
    };
    let mut all = ctx.cluster.list::<Pod>(namespace, &labels).await?;
    all.sort_by_key(|pod| (pod.creation_timestamp().map(|time| time.0), pod.name_any()));
    Ok(all)
}

/// Whether a pod is of the Job called `name`. Without a Job (it may be gone, its pods on their way)
/// labels say so, the key among them: another build had the same name if its image was deleted and
/// made again, and what that one pushed is nothing that this one did.
fn is_mine(pod: &Pod, build: &NixImageBuild, job: Option<&Job>, name: &str) -> bool {
    match job.and_then(ResourceExt::uid) {
        Some(uid) => is_owned(pod, &uid),
        None => {
            pod.labels().get(names::LABEL_BUILD) == Some(&build.name_any())
                && pod.labels().get(names::LABEL_KEY) == build.spec.key.as_ref()
                && pod.labels().get(JOB_NAME).is_none_or(|job| job == name)
        }
    }
}

/// Whether a Job must not run beside a pod that is not the build's: one that moves tags waits for
/// all of the image, the others for those of their platform.
fn excludes(pod: &Pod, build: &NixImageBuild, part: Part) -> bool {
    let platform = names::platform_label(order::platform(build, part).platform.as_str());
    order::moves_tags(build, part)
        || pod
            .labels()
            .get(names::LABEL_PLATFORM)
            .is_none_or(|label| *label == platform)
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

/// All Jobs that are not over and not Kueue's, as the watches see them: everybody computes with the
/// same.
pub fn entries(ctx: &Context) -> Vec<queue::Entry> {
    ctx.jobs
        .iter()
        .flat_map(kube::runtime::reflector::Store::state)
        .filter(|job| !is_finished(job) && job.meta().deletion_timestamp.is_none())
        .filter(|job| !job.labels().contains_key(names::LABEL_QUEUE))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::tests::build;

    fn pod(name: &str, key: &str) -> Pod {
        let mut pod = Pod::default();
        pod.labels_mut()
            .insert(names::LABEL_BUILD.into(), name.into());
        pod.labels_mut().insert(names::LABEL_KEY.into(), key.into());
        pod
    }

    #[test]
    fn a_pod_of_an_earlier_build_of_the_same_name_is_not_ours() {
        let is_ours = |pod: &Pod| is_mine(pod, &build(), None, "web-17-amd64");
        assert!(is_ours(&pod("web-17", "k3y")));
        assert!(!is_ours(&pod("web-17", "another")));
        assert!(!is_ours(&pod("web-16", "k3y")));
    }

    #[test]
    fn beside_a_job_its_owner_reference_counts() {
        let mut job = Job::default();
        job.metadata.uid = Some("job-uid".into());
        let pod = pod("web-17", "k3y");
        assert!(!is_mine(&pod, &build(), Some(&job), "web-17-amd64"));
    }
}
