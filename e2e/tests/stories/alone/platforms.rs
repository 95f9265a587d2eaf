//! One image for two platforms, each built on a node of its own. The second node is an amd64
//! machine that calls itself arm64: Nix and the builder image there are amd64's, so the flake
//! cross-compiles. What runs in the end is of arm64, emulated.

use anyhow::{Context as _, Result, ensure};
use firn_e2e::registry::Registry;
use firn_e2e::story::{Wanted, World, arm64, brief, condition, tell};
use serde_json::{Value, json};

const PLATFORMS: [&str; 2] = ["linux/amd64", "linux/arm64"];
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

#[tokio::test(flavor = "multi_thread")]
async fn two_platforms_are_built_on_two_nodes_and_published_as_one_or_not_at_all() -> Result<()> {
    tell("platforms", async |world| {
        world
            .cluster
            .needs_embedded()
            .context("this cluster gets no other node")?;
        arm64::with_node(world, story).await
    })
    .await
}

async fn story(world: &World) -> Result<()> {
    let ca = &world.ca_file();
    let mut source = world.publish_flake("public").await?;
    let busybox = source
        .flake
        .repository
        .write("boot-arm64/busybox", arm64::busybox(world)?)?;
    {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(busybox, std::fs::Permissions::from_mode(0o755))?;
    }
    source.flake.change(ca, "README.md", "For two.\n").await?;
    let wanted = Wanted::new(world, "web", &source.url)
        .with("/spec/trigger/mode", "Revision")
        .with("/spec/build/retries", 0)
        .with(
            "/spec/output/platforms",
            json!(PLATFORMS.map(|platform| json!({ "platform": platform }))),
        );
    world.apply(&wanted).await?;
    let first = world.ready("web").await?;
    let published = published(&first)?;
    let repository = world.repository("web");
    let registry = Registry::new(world)?;
    both_are_there(world, &registry, &first).await?;
    each_runs_by_its_own_digest(world, &published).await?;

    // A commit that changes nothing.
    source.flake.change(ca, "README.md", "For both.\n").await?;
    hurry(world, "same").await?;
    let second = world.ready_again("web", "web-1").await?;
    ensure!(
        condition(&second, "Ready")["reason"] == "NotChanged",
        "{}",
        brief(&second)
    );
    ensure!(second["status"]["published"]["digest"] == first["status"]["published"]["digest"]);
    let names: Vec<String> = world
        .jobs("web")
        .await?
        .iter()
        .filter_map(|job| job.metadata.name.clone())
        .filter(|name| name.starts_with("web-2-"))
        .collect();
    ensure!(names == ["web-2-amd64", "web-2-arm64"], "{names:?}");

    // One of the two is broken.
    let whole = include_str!("../../../fixtures/flake/arm64.nix");
    let broken = "{ run, lib }: { app = throw \"the frobnicator is missing\"; }\n";
    source.flake.change(ca, "arm64.nix", broken).await?;
    hurry(world, "broken").await?;
    let third = world.not_ready("web", "EvaluationFailed").await?;
    let message = condition(&third, "Ready")["message"].to_string();
    ensure!(message.contains("linux/arm64"), "{message}");
    let builds = world.builds("web").await?;
    let last = builds.last().context("no builds")?;
    ensure!(
        last["status"]["failure"]["platform"] == "linux/arm64",
        "{last:#}"
    );
    let amd = of_platform(&last["status"]["platforms"], "linux/amd64");
    ensure!(
        amd["state"] == "NotChanged",
        "the other's result is kept: {amd}"
    );

    // And made whole, with another program in it.
    let other = whole.replace("app on", "app, anew, on");
    source.flake.change(ca, "arm64.nix", &other).await?;
    hurry(world, "whole").await?;
    let fourth = world.ready_again("web", "web-3").await?;
    let now = self::published(&fourth)?;
    ensure!(
        now[0] == published[0],
        "amd64 was not touched: {now:?}, {published:?}"
    );
    ensure!(now[1] != published[1]);
    let builds = world.builds("web").await?;
    let last = builds.last().context("no builds")?;
    let amd = of_platform(&last["status"]["platforms"], "linux/amd64");
    ensure!(amd["state"] == "NotChanged", "{amd}");
    let moved = registry.manifests_stored(world, "web", "latest").await?;
    ensure!(
        moved == 2,
        "web-1 and web-4 moved the tag, and no other did: {moved} times"
    );
    let tags = registry.tags(&repository).await?;
    ensure!(tags == ["latest"], "{tags:?}");
    Ok(())
}

/// What status, builds and registry say of the first image.
async fn both_are_there(world: &World, registry: &Registry, image: &Value) -> Result<()> {
    let status = &image["status"]["published"];
    let repository = world.repository("web");
    ensure!(status["mediaType"] == INDEX, "{status:#}");
    let digest = status["digest"].as_str().context("no digest")?;
    let tagged = registry.digest(&repository, "latest").await?;
    ensure!(
        tagged.as_deref() == Some(digest),
        "the tag is at {tagged:?}"
    );
    let index = registry.manifest(&repository, digest).await?;
    let entries = index["manifests"].as_array().context("not an index")?;
    ensure!(entries.len() == PLATFORMS.len(), "{index:#}");
    for (platform, entry) in PLATFORMS.iter().zip(entries) {
        let (os, architecture) = platform.split_once('/').context("no platform")?;
        ensure!(entry["platform"] == json!({ "os": os, "architecture": architecture }));
        let known = of_platform(&status["platforms"], platform);
        ensure!(known["digest"] == entry["digest"], "{known} {entry}");
        let name = entry["digest"].as_str().unwrap_or_default();
        let config = registry.config(&repository, name).await?;
        ensure!(config["architecture"] == architecture, "{config:#}");
    }
    let moved = registry.manifests_stored(world, "web", "latest").await?;
    ensure!(moved == 1, "the tag was moved {moved} times");

    let builds = world.builds("web").await?;
    let build = builds.first().context("no build")?;
    let platforms = &build["status"]["platforms"];
    for platform in PLATFORMS {
        ensure!(
            of_platform(platforms, platform)["state"] == "Succeeded",
            "{build:#}"
        );
    }
    ensure!(of_platform(platforms, "linux/arm64")["node"] == arm64::NODE);
    ensure!(of_platform(platforms, "linux/amd64")["node"] != arm64::NODE);
    let stages = build["status"]["stages"].as_array().context("no stages")?;
    for (platform, name) in [
        ("linux/amd64", "Push"),
        ("linux/arm64", "Push"),
        ("*", "Index"),
        ("*", "Tag"),
    ] {
        let found = stages
            .iter()
            .any(|stage| stage["platform"] == platform && stage["name"] == name);
        ensure!(found, "no stage {name} of {platform}: {stages:?}");
    }
    Ok(())
}

/// containerd on the emulated node would take amd64 from the index.
async fn each_runs_by_its_own_digest(world: &World, digests: &[String]) -> Result<()> {
    let repository = world.repository("web");
    let says = ["app says: hello", "app on aarch64 says: hello"];
    for ((platform, digest), says) in PLATFORMS.iter().zip(digests).zip(says) {
        let architecture = platform.trim_start_matches("linux/");
        let pod = serde_json::from_value(json!({
            "metadata": { "name": format!("run-{architecture}") },
            "spec": {
                "restartPolicy": "Never",
                "automountServiceAccountToken": false,
                "imagePullSecrets": [{ "name": "registry" }],
                "nodeSelector": { "kubernetes.io/arch": architecture },
                "containers": [{
                    "name": "main",
                    "image": format!("{repository}@{digest}"),
                    "securityContext": {
                        "runAsNonRoot": true,
                        "runAsUser": 1000,
                        "allowPrivilegeEscalation": false,
                        "capabilities": { "drop": ["ALL"] },
                        "seccompProfile": { "type": "RuntimeDefault" },
                    },
                }],
            },
        }))?;
        let printed = world.run_pod(pod).await?;
        ensure!(printed.contains(says), "{platform}: {printed:?}");
    }
    Ok(())
}

fn of_platform<'a>(list: &'a Value, platform: &str) -> &'a Value {
    let mut entries = list.as_array().into_iter().flatten();
    entries
        .find(|entry| entry["platform"] == platform)
        .unwrap_or(&Value::Null)
}

/// The digests of the published platforms.
fn published(image: &Value) -> Result<Vec<String>> {
    let platforms = &image["status"]["published"]["platforms"];
    PLATFORMS
        .iter()
        .map(|platform| {
            let digest = of_platform(platforms, platform)["digest"].as_str();
            let digest = digest.with_context(|| format!("no {platform} in {platforms}"))?;
            Ok(digest.to_owned())
        })
        .collect()
}

async fn hurry(world: &World, request: &str) -> Result<()> {
    world
        .annotate("web", "reconcile.firn.dev/requestedAt", request)
        .await
}
