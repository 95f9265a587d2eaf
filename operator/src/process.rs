//! The operator's life: connect, wait until the cluster has what is needed, run the controllers,
//! and end in order when asked to.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use firn_crd::{NixImage, NixImageBuild};
use futures::future::join_all;
use http::header::{HeaderValue, USER_AGENT};
use k8s_openapi::NamespaceResourceScope;
use kube::api::ListParams;
use kube::core::PartialObjectMeta;
use kube::{Client, Config, Resource};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::build::controller::Jobs;
use crate::context::Context;
use crate::controllers::{Scope, fan_out, stopped};
use crate::lease::{Candidate, Lost};
use crate::metrics::{self, Metrics};
use crate::registry::Registries;
use crate::server::{self, Readiness};
use crate::settings::Settings;
use crate::source::Sources;
use crate::{build, hooks, image};

/// How the audit log and the API server's metrics name us.
const AGENT: &str = concat!("firn-operator/", env!("CARGO_PKG_VERSION"));
/// Between two looks for what is missing at the start.
const START_PAUSE: Duration = Duration::from_secs(2);
/// What runs when asked to end has this long: less than a pod's grace period.
const END_PATIENCE: Duration = Duration::from_secs(20);

const IMAGES: &str = "CRD niximages.firn.dev";
const BUILDS: &str = "CRD niximagebuilds.firn.dev";

/// Runs until SIGTERM or SIGINT.
pub async fn run(settings: Settings) -> anyhow::Result<()> {
    let settings = Arc::new(settings);
    let (stop, stopping) = watch::channel(false);
    tokio::spawn(end_on_signal(stop)?);
    let readiness = Readiness::waiting_for([IMAGES, BUILDS]);
    let mut registry = metrics::registry();
    let counted = Metrics::register(&mut registry);
    let (client, once) = connect().await?;
    let sources = Sources::new(client.clone(), &settings.network)?;
    sources.register(&mut registry);
    let listener = TcpListener::bind(settings.listen)
        .await
        .with_context(|| format!("failed to listen on {} (--listen)", settings.listen))?;
    let server = tokio::spawn(server::serve(
        listener,
        Arc::new(registry),
        readiness.clone(),
        stopped(stopping.clone()),
    ));
    let hooks = match settings.webhook_listen {
        Some(address) => {
            let listener = TcpListener::bind(address)
                .await
                .with_context(|| format!("failed to listen on {address} (--webhook-listen)"))?;
            let stopping = stopped(stopping.clone());
            Some(tokio::spawn(hooks::serve(
                listener,
                client.clone(),
                sources.clone(),
                stopping,
            )))
        }
        None => None,
    };
    tracing::info!(version = env!("CARGO_PKG_VERSION"), watch = ?settings.watch, "operator started");
    let mut candidate = Candidate::new(once, &settings.namespace, &settings.pod_name);
    let lead = lead(
        client,
        &settings,
        sources,
        counted,
        &readiness,
        &stopping,
        &mut candidate,
    );
    lead.await?;
    server
        .await
        .context("the server ended early")?
        .context("failed to serve")?;
    if let Some(hooks) = hooks {
        hooks
            .await
            .context("the server of webhooks ended early")?
            .context("failed to serve webhooks")?;
    }
    tracing::info!("operator ended");
    Ok(())
}

/// Waits for the lease, then runs the controllers while it is held. What began before the end was
/// asked for ends first, then another may take the lease.
async fn lead(
    client: Client,
    settings: &Arc<Settings>,
    sources: Sources,
    counted: Metrics,
    readiness: &Readiness,
    stopping: &watch::Receiver<bool>,
    candidate: &mut Candidate,
) -> Result<(), Lost> {
    let scopes = crate::context::scopes(settings);
    let kinds = async {
        for scope in &scopes {
            wait_for::<NixImage>(&client, scope, IMAGES).await;
            wait_for::<NixImageBuild>(&client, scope, BUILDS).await;
        }
        readiness.done(IMAGES);
        readiness.done(BUILDS);
        // Whoever waits for the lease is ready: a rollout goes on.
        candidate.acquire().await;
    };
    tokio::select! {
        () = kinds => {}
        () = stopped(stopping.clone()) => return Ok(()),
    }
    let metrics = counted.clone();
    metrics.leads(true);
    tokio::select! {
        () = controllers(client, settings, sources, counted, &scopes, stopping) => {}
        lost = candidate.keep() => return Err(lost),
    }
    metrics.leads(false);
    candidate.release().await;
    Ok(())
}

/// Whatever kubectl would connect to, or the cluster that this pod runs in: a client that tries
/// again by itself, and one that does not.
async fn connect() -> anyhow::Result<(Client, Client)> {
    let mut config = Config::infer()
        .await
        .context("failed to find a cluster to connect to")?;
    config
        .headers
        .push((USER_AGENT, HeaderValue::from_static(AGENT)));
    let mut once = config.clone();
    once.default_retry = false;
    let client =
        |config| Client::try_from(config).context("failed to set up the client of the API server");
    Ok((client(config)?, client(once)?))
}

async fn controllers(
    client: Client,
    settings: &Arc<Settings>,
    sources: Sources,
    counted: Metrics,
    scopes: &[Scope],
    stopping: &watch::Receiver<bool>,
) {
    let registries = Registries::new(client.clone(), &settings.network, counted.clone());
    let changes = futures::stream::select(sources.changes(), registries.changes());
    let jobs: Vec<Jobs> = scopes.iter().map(|_| Jobs::default()).collect();
    let stores = jobs.iter().map(|jobs| jobs.store.clone()).collect();
    let ctx = Context::new(
        client.clone(),
        settings.clone(),
        Arc::new(sources),
        counted,
        stores,
    );
    let ctx = Arc::new(ctx.with_registries(Arc::new(registries)));
    let (pump, changes) = fan_out(changes, scopes);
    let pump = tokio::spawn(pump);
    let images = scopes.iter().zip(changes).map(|(scope, changes)| {
        image::controller::run(
            client.clone(),
            scope.clone(),
            ctx.clone(),
            changes,
            stopping.clone(),
        )
    });
    let builds = scopes.iter().zip(jobs).map(|(scope, jobs)| {
        build::controller::run(
            client.clone(),
            scope.clone(),
            ctx.clone(),
            jobs,
            stopping.clone(),
        )
    });
    let running = futures::future::join(join_all(images), join_all(builds));
    let patience = async {
        stopped(stopping.clone()).await;
        tokio::time::sleep(END_PATIENCE).await;
    };
    tokio::select! {
        _ = running => {}
        () = patience => tracing::warn!("some reconciles did not end in time"),
    }
    pump.abort();
}

/// Waits until objects of a kind can be listed: the CRD is there and we may read it.
async fn wait_for<K>(client: &Client, scope: &Scope, what: &str)
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + std::fmt::Debug,
    PartialObjectMeta<K>: serde::de::DeserializeOwned,
{
    let api = scope.api::<PartialObjectMeta<K>>(client);
    let one = ListParams::default().limit(1);
    let mut told = String::new();
    loop {
        let call = tokio::time::timeout(crate::apply::CALL_TIMEOUT, api.list(&one));
        let error = match call.await {
            Ok(Ok(_)) => return,
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer in time".to_owned(),
        };
        if told != error {
            tracing::warn!(
                what,
                error,
                "waiting: install Firn's CRDs, or see whether the operator may list them"
            );
            told = error;
        }
        tokio::time::sleep(START_PAUSE).await;
    }
}

/// Turns `stop` true at the first signal.
fn end_on_signal(
    stop: watch::Sender<bool>,
) -> anyhow::Result<impl Future<Output = ()> + Send + 'static> {
    let mut terminate = signal(SignalKind::terminate()).context("failed to watch for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("failed to watch for SIGINT")?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("asked to end");
        stop.send_replace(true);
        // Kept until the process ends: a dropped sender would look like a signal.
        std::future::pending::<()>().await;
    })
}
