//! What wakes the controller of builds, and one turn of it.

use std::sync::Arc;
use std::time::Duration;

use firn_crd::NixImageBuild;
use firn_crd::names::{LABEL_BUILD, LABEL_MANAGED_BY, MANAGED_BY};
use futures::channel::mpsc::{self, UnboundedSender};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use kube::core::PartialObjectMeta;
use kube::runtime::controller::{Action, Controller};
use kube::runtime::reflector::store::Writer;
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::{PredicateConfig, WatchStreamExt, predicates, watcher};
use kube::{Client, ResourceExt};
use tokio::sync::watch;

use super::progress::{is_finished, is_suspended};
use super::{act, measure, observe, plan};
use crate::context::Context;
use crate::controllers::{
    EachWatchPauses, Errors, OUTDATED, Scope, config, look_again, name_of, stopped, trim, until,
};
use crate::error::Error;
use crate::metrics;

type Meta = PartialObjectMeta<NixImageBuild>;

struct Shared {
    ctx: Arc<Context>,
    errors: Errors,
}

/// Jobs of one scope: who reads the store and who fills it.
#[expect(missing_debug_implementations, reason = "the writer has none")]
pub struct Jobs {
    /// Read by every build's plan.
    pub store: Store<Job>,
    writer: Writer<Job>,
}

impl Default for Jobs {
    fn default() -> Self {
        let (store, writer) = reflector::store();
        Self { store, writer }
    }
}

/// Runs until `stop` turns true; what began by then ends first.
pub async fn run(
    client: Client,
    scope: Scope,
    ctx: Arc<Context>,
    jobs: Jobs,
    stop: watch::Receiver<bool>,
) {
    let (reader, writer) = reflector::store();
    let builds = watcher(scope.api::<Meta>(&client), watcher::Config::default())
        .default_backoff()
        .modify(trim)
        .reflect(writer)
        .applied_objects()
        .predicate_filter(predicates::generation, PredicateConfig::default());
    let managed = watcher::Config::default().labels(&format!("{LABEL_MANAGED_BY}={MANAGED_BY}"));
    // Unbounded, but it flows into the controller's queue, which keeps each object once.
    let (wake, woken) = mpsc::unbounded();
    let Jobs { store, writer } = jobs;
    let jobs = watcher(scope.api::<Job>(&client), managed.clone())
        .default_backoff()
        .modify(trim_job)
        .reflect(writer)
        .touched_objects()
        .inspect_ok(move |job| {
            if is_finished(job) {
                wake_queued(&store, &wake);
            }
        });
    let pods = watcher(scope.api::<PartialObjectMeta<Pod>>(&client), managed)
        .default_backoff()
        .modify(trim)
        .touched_objects();
    let shared = Arc::new(Shared {
        ctx,
        errors: Errors::default(),
    });
    Controller::for_stream(builds, reader)
        .with_config(config())
        .trigger_backoff(EachWatchPauses)
        .owns_stream(jobs)
        .watches_stream(pods, |pod| of_pod(&pod))
        .reconcile_on(woken)
        .graceful_shutdown_on(stopped(stop))
        .run(reconcile, pause, shared)
        .for_each(|turn| {
            if let Err(error) = turn {
                tracing::debug!(%error, "no turn of the build controller");
            }
            std::future::ready(())
        })
        .await;
}

async fn reconcile(build: Arc<Meta>, shared: Arc<Shared>) -> Result<Action, Error> {
    let timer = std::time::Instant::now();
    let namespace = build.namespace().unwrap_or_default();
    let result = Box::pin(turn(&shared.ctx, &namespace, &build.name_any())).await;
    let category = result.as_ref().err().map(Error::category);
    let kind = metrics::Controller::NixImageBuild;
    shared
        .ctx
        .metrics
        .reconciled(kind, timer.elapsed(), category);
    if result.is_ok() {
        shared.errors.forget(&name_of(build.as_ref()));
    }
    result.map(look_again)
}

/// One turn: observes, plans, acts. Says how long until it is looked at again if nothing happens.
pub async fn turn(ctx: &Context, namespace: &str, build: &str) -> Result<Option<Duration>, Error> {
    let Some(mut observed) = Box::pin(observe::observe(ctx, namespace, build)).await? else {
        return Ok(None);
    };
    let mut planned = plan(&observed);
    tracing::debug!(namespace, build, plan = planned.summary(), "planned");
    let mut done = act::act(ctx, &observed.build, &planned).await;
    if let Some(words) = done.as_ref().err().and_then(Error::refusal) {
        // What the API server answers is an observation too.
        let words = words.to_owned();
        // With several Jobs, one may have been made before the next was refused.
        let Some(now) = Box::pin(observe::observe(ctx, namespace, build)).await? else {
            return Ok(None);
        };
        observed = now;
        observed.refused = Some(words);
        planned = plan(&observed);
        done = act::act(ctx, &observed.build, &planned).await;
    }
    match done {
        Err(Error::Outdated { .. }) => return Ok(Some(OUTDATED)),
        done => done?,
    }
    measure::measure(&ctx.metrics, &observed, &planned);
    measure::queue(&ctx.metrics, ctx);
    Ok(planned.look_again.map(|at| until(at, observed.now)))
}

#[expect(clippy::needless_pass_by_value, reason = "the signature is kube's")]
fn pause(build: Arc<Meta>, error: &Error, shared: Arc<Shared>) -> Action {
    shared.errors.pause(&name_of(build.as_ref()), error)
}

/// The queue needs metadata, `suspend` and conditions; the template is most of a Job.
fn trim_job(job: &mut Job) {
    trim(job);
    if let Some(spec) = &mut job.spec {
        spec.template = PodTemplateSpec::default();
        spec.pod_failure_policy = None;
    }
}

fn of_pod(pod: &PartialObjectMeta<Pod>) -> Option<ObjectRef<Meta>> {
    let build = pod.labels().get(LABEL_BUILD)?;
    Some(ObjectRef::new(build).within(&pod.namespace()?))
}

/// A Job ended: whoever waits may count the slots again.
fn wake_queued(jobs: &Store<Job>, wake: &UnboundedSender<ObjectRef<Meta>>) {
    for job in jobs.state().iter().filter(|job| is_suspended(job)) {
        let build = job.labels().get(LABEL_BUILD);
        if let (Some(build), Some(namespace)) = (build, job.namespace()) {
            // A controller that ended does not want to know.
            drop(wake.unbounded_send(ObjectRef::new(build).within(&namespace)));
        }
    }
}
