//! The registry's bad day: answers of 503 and 500, 429 with a time to wait, a connection cut in the
//! midst of a blob, a login withdrawn between the blobs and the manifest. What passes by itself
//! costs no second pod; what does not is said, and nothing is published meanwhile.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use axum::http::{Method, StatusCode};
use firn_e2e::registry::Registry;
use firn_e2e::story::once::{Moment, each_once};
use firn_e2e::story::{Source, Wanted, World, condition, tell};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::PostParams;
use serde_json::json;

mod proxy;

use proxy::{Answer, Proxy};

/// How long the registry asks to wait: more than Firn would by itself after one failure.
const WAIT: &str = "3";

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_stumbles_gets_the_image_and_one_that_refuses_is_named() -> Result<()> {
    tell("registry-faults", story).await
}

async fn story(world: &World) -> Result<()> {
    let proxy = Proxy::start(world, 1).await?;
    // Names of this run: what another run left in the registry would not be sent again.
    let (stumbling, refusing) = (&proxy.named("stumbles"), &proxy.named("refuses"));
    let upload = |name: &str| format!("/{name}/blobs/uploads/");
    let manifest = |name: &str| format!("/{name}/manifests/latest");
    let answer = |method, path, status| Answer {
        method,
        path,
        status,
        headers: Vec::new(),
        times: 1,
    };
    let faults = vec![
        Answer {
            times: 2,
            ..answer(
                Method::POST,
                upload(stumbling),
                StatusCode::SERVICE_UNAVAILABLE,
            )
        },
        answer(
            Method::PUT,
            upload(stumbling),
            StatusCode::INTERNAL_SERVER_ERROR,
        ),
        Answer {
            headers: vec![("retry-after", WAIT)],
            ..answer(
                Method::PUT,
                manifest(stumbling),
                StatusCode::TOO_MANY_REQUESTS,
            )
        },
        Answer {
            headers: vec![("www-authenticate", "Basic realm=\"registry\"")],
            times: usize::MAX,
            ..answer(Method::PUT, manifest(refusing), StatusCode::UNAUTHORIZED)
        },
    ];
    proxy.arm(faults);
    trust(world, &proxy).await?;
    let source = world.publish_flake("public").await?;
    for name in [stumbling, refusing] {
        world.apply(&wanted(world, &proxy, &source, name)).await?;
    }
    let (stumbled, refused) = futures::join!(
        stumbles(world, &proxy, stumbling),
        refuses(world, &proxy, refusing, stumbling)
    );
    stumbled.context("where the registry stumbles")?;
    refused.context("where the registry refuses")
}

async fn stumbles(world: &World, proxy: &Proxy, name: &str) -> Result<()> {
    world.ready(name).await?;
    let moment = Moment::of(world, name).await?;
    ensure!(moment.pods.len() == 1, "more than one pod: {moment:?}");
    each_once(world, name, 1).await?;

    let failed = |method, part: &str, status: StatusCode| {
        let asked = proxy.asked(method, part);
        asked.iter().filter(|asked| asked.status == status).count()
    };
    let uploads = &format!("/{name}/blobs/uploads/");
    ensure!(failed(&Method::POST, uploads, StatusCode::SERVICE_UNAVAILABLE) == 2);
    ensure!(failed(&Method::PUT, uploads, StatusCode::INTERNAL_SERVER_ERROR) == 1);
    let manifests = proxy.asked(&Method::PUT, &format!("/{name}/manifests/latest"));
    let [refused, taken] = manifests.as_slice() else {
        anyhow::bail!("not two tries to publish: {manifests:?}")
    };
    ensure!(refused.status == StatusCode::TOO_MANY_REQUESTS && taken.status == StatusCode::CREATED);
    let waited = taken.at.duration_since(refused.at);
    ensure!(
        waited >= Duration::from_secs(WAIT.parse()?),
        "asked to wait {WAIT} s, it waited {waited:?}"
    );
    Ok(())
}

async fn refuses(world: &World, proxy: &Proxy, name: &str, other: &str) -> Result<()> {
    let image = world.not_ready(name, "PushAuthFailed").await?;
    let message = condition(&image, "Ready")["message"].to_string();
    ensure!(message.contains(&proxy.address), "{message}");
    let failure = &image["status"]["failure"];
    ensure!(
        failure["container"] == "push" && failure["class"] == "User",
        "{failure:#}"
    );
    ensure!(condition(&image, "Stalled")["status"] == "True");
    let registry = Registry::new(world)?;
    let repository = world.repository(name);
    let tagged = registry.digest(&repository, "latest").await?;
    ensure!(tagged.is_none(), "the tag is there: {tagged:?}");

    // The other one has met its faults by then, or does so before its image is ready.
    world.ready(other).await?;
    let left = proxy.heal();
    ensure!(left == 1, "{left} faults were left, and not this one only");
    world
        .annotate(name, "reconcile.firn.dev/requestedAt", "mended")
        .await?;
    let image = world.ready(name).await?;
    let builds = world.builds(name).await?;
    let outcomes: Vec<_> = builds
        .iter()
        .map(|build| build["status"]["outcome"].as_str().unwrap_or_default())
        .collect();
    ensure!(outcomes == ["Failed", "Published"], "{outcomes:?}");
    let tagged = registry.digest(&repository, "latest").await?;
    ensure!(tagged.as_deref() == image["status"]["published"]["digest"].as_str());
    let moved = registry.manifests_stored(world, name, "latest").await?;
    ensure!(moved == 1, "the tag was moved {moved} times");
    Ok(())
}

/// The same place in the registry, by way of the proxy.
fn wanted(world: &World, proxy: &Proxy, source: &Source, name: &str) -> Wanted {
    let repository = format!("{}/{}/{name}", proxy.address, world.namespace);
    Wanted::new(world, name, &source.url)
        .with("/spec/output/repository", repository)
        .with("/spec/output/pushSecretRef/name", "proxy")
        .with("/spec/output/caConfigMapRef/name", "proxy")
}

async fn trust(world: &World, proxy: &Proxy) -> Result<()> {
    let login = json!({ "auths": { &proxy.address: {
        "username": world.services.registry_user, "password": world.services.registry_password,
    }}});
    let entries = [(".dockerconfigjson", login.to_string())];
    let entries = entries
        .each_ref()
        .map(|(key, value)| (*key, value.as_str()));
    world
        .apply_secret("proxy", "kubernetes.io/dockerconfigjson", &entries)
        .await?;
    let map = serde_json::from_value(json!({
        "metadata": { "name": "proxy" }, "data": { "ca.crt": proxy.certificate },
    }))?;
    world
        .api::<ConfigMap>()
        .create(&PostParams::default(), &map)
        .await?;
    Ok(())
}
