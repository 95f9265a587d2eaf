//! The chart's life on a cluster, by the real Helm: upgraded, uninstalled, installed again. What
//! users made stays, and goes on where it stopped.

use std::ffi::OsStr;

use anyhow::{Context as _, Result, bail, ensure};
use firn_e2e::charts::{NAMESPACE, RELEASE};
use firn_e2e::clone::repository;
use firn_e2e::story::{BUILD, SOON, Wanted, World, condition, tell};
use firn_e2e::wait::{Seen, eventually};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use serde_json::Value;

#[tokio::test(flavor = "multi_thread")]
async fn images_stay_and_go_on_when_the_release_is_upgraded_uninstalled_and_back() -> Result<()> {
    tell("helm", async |world| and_back(world, story).await).await
}

/// Tells a story that changes the installed release, given the file of its values; afterwards it
/// is as it was.
pub(super) async fn and_back<F>(world: &World, story: F) -> Result<()>
where
    F: AsyncFnOnce(&World, &str) -> Result<()>,
{
    let folder = tempfile::tempdir()?;
    let values = folder.path().join("values.json");
    let release = ["--namespace", NAMESPACE, RELEASE];
    let installed = helm(world, &["get", "values", "--output", "json"], &release)
        .context("Firn was not installed by Helm")?;
    std::fs::write(&values, installed)?;
    let values = values.to_str().context("the folder's name is not UTF-8")?;

    let told = story(world, values).await;
    // The stories after this one need Firn, whatever happened here.
    let back = put(world, &["upgrade", "--install"], values, &[]);
    told.and(back)
}

async fn story(world: &World, values: &str) -> Result<()> {
    let source = world.publish_flake("public").await?;
    world.apply(&Wanted::new(world, "web", &source.url)).await?;
    let first = world.ready("web").await?;
    let image = first["status"]["latestImage"].clone();

    put(world, &["upgrade"], values, &["--set", "log.level=debug"])?;
    ensure!(setting(world, "FIRN_LOG").await? == Some("debug".into()));
    look_again(world, "upgraded").await?;
    let now = world.image("web").await?;
    ensure!(now["status"]["latestImage"] == image, "{:#}", now["status"]);
    ensure!(world.builds("web").await?.len() == 1, "an upgrade built");

    helm(
        world,
        &["uninstall", "--wait", "--timeout", "2m"],
        &["--namespace", NAMESPACE, RELEASE],
    )?;
    eventually("the operator and its rights are gone", SOON, || async {
        let left = format!(
            "{} {} {}",
            exists(&deployments(world), RELEASE).await?,
            exists(&Api::<ClusterRole>::all(world.client.clone()), RELEASE).await?,
            exists(
                &Api::<ClusterRoleBinding>::all(world.client.clone()),
                RELEASE
            )
            .await?,
        );
        Ok(if left == "false false false" {
            Seen::Done(())
        } else {
            Seen::NotYet(format!("Deployment, ClusterRole, binding: {left}"))
        })
    })
    .await?;
    let definitions = Api::<CustomResourceDefinition>::all(world.client.clone());
    for name in ["niximages.firn.dev", "niximagebuilds.firn.dev"] {
        let definition = definitions.get(name).await?;
        ensure!(definition.metadata.deletion_timestamp.is_none(), "{name}");
    }
    let kept = world.image("web").await?;
    ensure!(
        kept["status"]["latestImage"] == image,
        "{:#}",
        kept["status"]
    );
    ensure!(world.builds("web").await?.len() == 1);

    // Asked while nobody listens, built when somebody does.
    world
        .annotate("web", "build.firn.dev/requestedAt", "while-away")
        .await?;
    put(world, &["install"], values, &[])?;
    let second = world.ready_again("web", "web-1").await?;
    ensure!(second["status"]["latestBuildRef"]["name"] == "web-2");
    ensure!(second["status"]["lastHandledBuildAt"] == "while-away");
    ensure!(
        second["status"]["latestImage"] == image,
        "the same source gave another digest"
    );
    Ok(())
}

/// Installs or upgrades this repository's chart and waits until the operator is ready.
pub(super) fn put(world: &World, verb: &[&str], values: &str, more: &[&str]) -> Result<()> {
    let chart = repository().join("charts/firn");
    let chart = chart
        .to_str()
        .context("the repository's path is not UTF-8")?;
    let mut arguments = vec![RELEASE, chart, "--namespace", NAMESPACE, "--values", values];
    arguments.extend(["--wait", "--timeout", "3m"]);
    arguments.extend(more);
    helm(world, verb, &arguments).map(drop)
}

/// What Helm wrote to standard output.
fn helm(world: &World, verb: &[&str], arguments: &[&str]) -> Result<String> {
    let mut command = world.cluster.command("helm");
    command.args(verb.iter().chain(arguments).map(OsStr::new));
    let output = tokio::task::block_in_place(|| command.output())
        .context("failed to start helm: on a foreign cluster it must be in PATH")?;
    if !output.status.success() {
        bail!(
            "helm {}: {}",
            verb.join(" "),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// Waits until the operator answers, and the image is ready in its eyes.
async fn look_again(world: &World, request: &str) -> Result<Value> {
    world
        .annotate("web", "reconcile.firn.dev/requestedAt", request)
        .await?;
    world
        .image_when("web", "the new operator has looked", BUILD, |image| {
            image["status"]["lastHandledReconcileAt"] == request
                && condition(image, "Ready")["status"] == "True"
        })
        .await
}

fn deployments(world: &World) -> Api<Deployment> {
    Api::namespaced(world.client.clone(), NAMESPACE)
}

async fn exists<K>(api: &Api<K>, name: &str) -> Result<bool>
where
    K: Resource + Clone + DeserializeOwned + std::fmt::Debug,
{
    Ok(api.get_metadata_opt(name).await?.is_some())
}

/// A literal environment variable of the installed operator.
async fn setting(world: &World, variable: &str) -> Result<Option<String>> {
    let deployment = deployments(world).get(RELEASE).await?;
    let pod = deployment.spec.and_then(|spec| spec.template.spec);
    let containers = pod.map(|pod| pod.containers).unwrap_or_default();
    let mut variables = containers
        .into_iter()
        .flat_map(|c| c.env.unwrap_or_default());
    Ok(variables.find(|v| v.name == variable).and_then(|v| v.value))
}
