//! Secrets stay where they are used: not in the build, not in logs, events, status or metrics.

use anyhow::{Result, ensure};
use firn_e2e::story::{Wanted, World, condition, tell};
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::Api;
use kube::api::{ListParams, LogParams};

const CANARY: &str = "FIRN-CANARY";

#[tokio::test]
async fn a_build_that_searches_everything_finds_no_secret() -> Result<()> {
    tell("canaries", async |world| {
        ensure!(
            world.services.git_password.contains(CANARY),
            "no canary in the git password"
        );
        ensure!(
            world.services.registry_password.contains(CANARY),
            "no canary in the registry password"
        );
        let source = world.publish_flake("private").await?;
        let wanted = Wanted::new(world, "web", &source.url)
            .with("/spec/source/git/secretRef/name", "git")
            .with("/spec/flake/attribute", "search");
        world.apply(&wanted).await?;
        // It fails if it finds one, and if its own search does not work.
        world.ready("web").await?;
        ensure!(
            shown(world).await?.find(CANARY).is_none(),
            "a secret is shown: {}",
            around(&shown(world).await?)
        );
        Ok(())
    })
    .await
}

#[tokio::test]
async fn refused_credentials_are_not_shown_either() -> Result<()> {
    tell("canaries-refused", async |world| {
        let wrong = "FIRN-CANARY-wrong";
        world
            .apply_secret(
                "git",
                "Opaque",
                &[("username", "firn"), ("password", wrong)],
            )
            .await?;
        let source = world.publish_flake("private").await?;
        let wanted =
            Wanted::new(world, "web", &source.url).with("/spec/source/git/secretRef/name", "git");
        world.apply(&wanted).await?;
        world.not_ready("web", "SourceAuthFailed").await?;
        let config = world.docker_config("firn", wrong);
        world
            .apply_secret(
                "registry",
                "kubernetes.io/dockerconfigjson",
                &[(".dockerconfigjson", &config)],
            )
            .await?;
        let public = world.publish_flake("public").await?;
        world.apply(&Wanted::new(world, "web", &public.url)).await?;
        world.not_ready("web", "PushAuthFailed").await?;
        ensure!(
            shown(world).await?.find(CANARY).is_none(),
            "a secret is shown: {}",
            around(&shown(world).await?)
        );
        Ok(())
    })
    .await
}

/// Build pods have no token, and run in a namespace that would refuse anything but `restricted`.
#[tokio::test]
async fn build_pods_have_no_token_and_pass_restricted() -> Result<()> {
    tell("restricted", async |world| {
        let source = world.publish_flake("public").await?;
        world.apply(&Wanted::new(world, "web", &source.url)).await?;
        let image = world.ready("web").await?;
        ensure!(condition(&image, "Ready")["status"] == "True");
        let pods = world.pods("web").await?;
        ensure!(
            !pods.is_empty(),
            "the pod of the build is gone before anybody could read its log"
        );
        for pod in pods {
            let spec = pod.spec.unwrap_or_default();
            ensure!(spec.automount_service_account_token == Some(false));
            let volumes = serde_json::to_string(&spec.volumes)?;
            ensure!(!volumes.contains("serviceAccountToken"), "{volumes}");
            ensure!(
                spec.service_account_name.as_deref() == Some("firn-build"),
                "{:?}",
                spec.service_account_name
            );
        }
        Ok(())
    })
    .await
}

/// Everything that people and tools get to see of a namespace and of the operator, as one text.
async fn shown(world: &World) -> Result<String> {
    let mut text = serde_json::to_string(&world.images().list(&ListParams::default()).await?)?;
    text += &serde_json::to_string(&world.builds("web").await?)?;
    text += &serde_json::to_string(&world.jobs("web").await?)?;
    text += &serde_json::to_string(&world.api::<Event>().list(&ListParams::default()).await?)?;
    text += &logs(&world.api::<Pod>()).await?;
    let system: Api<Pod> = Api::namespaced(world.client.clone(), "firn-system");
    text += &logs(&system).await?;
    for pod in system
        .list(&ListParams::default().labels("app.kubernetes.io/name=firn"))
        .await?
    {
        let ip = pod.status.unwrap_or_default().pod_ip.unwrap_or_default();
        let metrics = reqwest::get(format!("http://{ip}:8080/metrics"))
            .await?
            .text()
            .await?;
        ensure!(
            metrics.contains("firn_build_info"),
            "these are no metrics: {metrics}"
        );
        text += &metrics;
    }
    Ok(text)
}

async fn logs(pods: &Api<Pod>) -> Result<String> {
    let mut text = String::new();
    for pod in pods.list(&ListParams::default()).await? {
        let name = pod.metadata.name.unwrap_or_default();
        let spec = pod.spec.unwrap_or_default();
        for container in spec
            .init_containers
            .unwrap_or_default()
            .iter()
            .chain(&spec.containers)
        {
            let parameters = LogParams {
                container: Some(container.name.clone()),
                ..LogParams::default()
            };
            // A container that never started has no log.
            text += &pods.logs(&name, &parameters).await.unwrap_or_default();
        }
    }
    Ok(text)
}

fn around(text: &str) -> String {
    let place = text.find(CANARY).unwrap_or_default();
    text.chars()
        .skip(place.saturating_sub(200))
        .take(400)
        .collect()
}
