//! What wakes the controller of images, and one turn of it.

use std::sync::Arc;
use std::time::Duration;

use firn_crd::names::build_number;
use firn_crd::{NixImage, NixImageBuild};
use futures::channel::mpsc::UnboundedReceiver;
use futures::{StreamExt, TryStreamExt};
use kube::core::PartialObjectMeta;
use kube::runtime::controller::{Action, Controller};
use kube::runtime::reflector::{self, ObjectRef};
use kube::runtime::{Predicate, PredicateConfig, WatchStreamExt, predicates, watcher};
use kube::{Client, ResourceExt};
use tokio::sync::watch;

use super::{act, measure, observe, plan};
use crate::context::Context;
use crate::controllers::{
    EachWatchPauses, Errors, OUTDATED, Scope, config, look_again, name_of, stopped, trim, until,
};
use crate::error::Error;
use crate::metrics;
use crate::source::ImageKey;

/// Names tried for one new build before it is left to the next turn.
const NAME_TRIES: usize = 8;

type Meta = PartialObjectMeta<NixImage>;

struct Shared {
    ctx: Arc<Context>,
    errors: Errors,
}

/// Runs until `stop` turns true; what began by then ends first.
pub async fn run(
    client: Client,
    scope: Scope,
    ctx: Arc<Context>,
    changes: UnboundedReceiver<ImageKey>,
    stop: watch::Receiver<bool>,
) {
    let (reader, writer) = reflector::store();
    let gone = ctx.clone();
    let images = watcher(scope.api::<Meta>(&client), watcher::Config::default())
        .default_backoff()
        .modify(trim)
        .reflect(writer)
        .inspect_ok(move |event| {
            if let watcher::Event::Delete(image) = event {
                gone.forget(&key(image));
            }
        })
        .applied_objects()
        .predicate_filter(
            predicates::generation.combine(predicates::annotations),
            PredicateConfig::default(),
        );
    let builds = watcher(
        scope.api::<PartialObjectMeta<NixImageBuild>>(&client),
        watcher::Config::default(),
    )
    .default_backoff()
    .modify(trim)
    .touched_objects();
    let changes = changes
        .map(|ImageKey { namespace, name }| ObjectRef::<Meta>::new(&name).within(&namespace));
    let shared = Arc::new(Shared {
        ctx,
        errors: Errors::default(),
    });
    Controller::for_stream(images, reader)
        .with_config(config())
        .trigger_backoff(EachWatchPauses)
        .owns_stream(builds)
        .reconcile_on(changes)
        .graceful_shutdown_on(stopped(stop))
        .run(reconcile, pause, shared)
        .for_each(|turn| {
            if let Err(error) = turn {
                tracing::debug!(%error, "no turn of the image controller");
            }
            std::future::ready(())
        })
        .await;
}

async fn reconcile(image: Arc<Meta>, shared: Arc<Shared>) -> Result<Action, Error> {
    let timer = std::time::Instant::now();
    let result = turn(&shared.ctx, &key(&image)).await;
    let category = result.as_ref().err().map(Error::category);
    let kind = metrics::Controller::NixImage;
    shared
        .ctx
        .metrics
        .reconciled(kind, timer.elapsed(), category);
    if result.is_ok() {
        shared.errors.forget(&name_of(image.as_ref()));
    }
    result.map(look_again)
}

/// One turn: observes, plans, acts. Says how long until it is looked at again if nothing happens.
pub async fn turn(ctx: &Context, key: &ImageKey) -> Result<Option<Duration>, Error> {
    let Some(mut observed) = observe::observe(ctx, key).await? else {
        ctx.forget(key);
        return Ok(None);
    };
    for _ in 0..NAME_TRIES {
        let plan = plan(&observed);
        tracing::debug!(image = %key, plan = plan.summary(), "planned");
        match act::act(ctx, &observed.image, &plan).await {
            // What the API server answers is an observation too.
            Err(Error::NameTaken { name, .. }) => {
                observed.highest_number =
                    build_number(&key.name, &name).unwrap_or(observed.highest_number + 1);
            }
            Err(Error::Outdated { .. }) => return Ok(Some(OUTDATED)),
            result => {
                result?;
                measure::measure(&ctx.metrics, &observed, &plan);
                ctx.count(key, &observed.image, plan.status.as_deref());
                return Ok(plan.look_again.map(|at| until(at, observed.now)));
            }
        }
    }
    Err(Error::NameTaken {
        kind: "NixImageBuild",
        name: format!("{}-{}", key.name, observed.highest_number),
    })
}

#[expect(clippy::needless_pass_by_value, reason = "the signature is kube's")]
fn pause(image: Arc<Meta>, error: &Error, shared: Arc<Shared>) -> Action {
    shared.errors.pause(&name_of(image.as_ref()), error)
}

fn key(image: &Meta) -> ImageKey {
    ImageKey {
        namespace: image.namespace().unwrap_or_default(),
        name: image.name_any(),
    }
}
