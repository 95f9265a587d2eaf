//! When an image is built anew, and when it is not.

use anyhow::{Result, ensure};
use firn_e2e::registry::Registry;
use firn_e2e::story::{BUILD, SOON, Wanted, condition, tell};
use serde_json::json;

#[tokio::test]
async fn a_new_lock_file_rebuilds_and_another_commit_does_not() -> Result<()> {
    tell("lock-file", async |world| {
        let mut source = world.publish_flake("public").await?;
        let ca = &world.ca_file();
        world.apply(&Wanted::new(world, "web", &source.url)).await?;
        let first = world.ready("web").await?;

        let commit = source
            .flake
            .change(ca, "README.md", "Another text.\n")
            .await?;
        world
            .annotate("web", "reconcile.firn.dev/requestedAt", "after-readme")
            .await?;
        let seen = world
            .image_when("web", "it has seen the commit", SOON, |image| {
                image["status"]["source"]["revision"] == format!("main@sha1:{commit}")
            })
            .await?;
        ensure!(
            seen["status"]["latestBuildRef"]["name"] == "web-1",
            "a commit that touches no lock file built"
        );
        ensure!(condition(&seen, "Ready")["status"] == "True");
        ensure!(seen["status"]["lastHandledReconcileAt"] == "after-readme");

        source.greeting.say(ca, "good morning").await?;
        source.flake.lock(ca, &source.greeting).await?;
        let second = world.ready_again("web", "web-1").await?;
        ensure!(
            second["status"]["latestBuildReason"] == "LockFile",
            "{}",
            second["status"]["latestBuildReason"]
        );
        let digest = |image: &serde_json::Value| image["status"]["published"]["digest"].clone();
        ensure!(digest(&first) != digest(&second));
        let printed = world
            .run(
                "run",
                second["status"]["latestImage"].as_str().unwrap_or_default(),
            )
            .await?;
        ensure!(printed.contains("good morning"), "it printed {printed:?}");
        ensure!(world.builds("web").await?.len() == 2);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn any_commit_is_looked_at_with_revision_but_equal_derivations_are_not_built() -> Result<()> {
    tell("revision", async |world| {
        let mut source = world.publish_flake("public").await?;
        let ca = &world.ca_file();
        let wanted = Wanted::new(world, "web", &source.url)
            .with("/spec/trigger", json!({ "mode": "Revision" }));
        world.apply(&wanted).await?;
        let first = world.ready("web").await?;

        source
            .flake
            .change(ca, "README.md", "Another text.\n")
            .await?;
        world
            .annotate("web", "reconcile.firn.dev/requestedAt", "1")
            .await?;
        let second = world.ready_again("web", "web-1").await?;
        ensure!(second["status"]["published"]["digest"] == first["status"]["published"]["digest"]);
        let builds = world.builds("web").await?;
        ensure!(
            builds[1]["status"]["outcome"] == "NotChanged",
            "{}",
            builds[1]["status"]
        );
        ensure!(builds[1]["spec"]["reasons"] == json!(["Revision"]));

        let script = source.flake.repository.path().join("flake.nix");
        let changed = std::fs::read_to_string(script)?.replace("app says", "the app says");
        source.flake.change(ca, "flake.nix", &changed).await?;
        world
            .annotate("web", "reconcile.firn.dev/requestedAt", "2")
            .await?;
        let third = world.ready_again("web", "web-2").await?;
        ensure!(third["status"]["published"]["digest"] != first["status"]["published"]["digest"]);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn with_manual_only_the_annotation_builds() -> Result<()> {
    tell("manual", async |world| {
        let mut source = world.publish_flake("public").await?;
        let ca = &world.ca_file();
        let wanted = Wanted::new(world, "web", &source.url)
            .with("/spec/trigger", json!({ "mode": "Manual" }));
        world.apply(&wanted).await?;
        world.ready("web").await?;

        source.greeting.say(ca, "good evening").await?;
        let commit = source.flake.lock(ca, &source.greeting).await?;
        world
            .annotate("web", "reconcile.firn.dev/requestedAt", "look")
            .await?;
        let seen = world
            .image_when("web", "it has seen the commit", SOON, |image| {
                image["status"]["source"]["revision"] == format!("main@sha1:{commit}")
            })
            .await?;
        ensure!(
            seen["status"]["latestBuildRef"]["name"] == "web-1",
            "it was built without being asked"
        );

        world
            .annotate("web", "build.firn.dev/requestedAt", "now")
            .await?;
        let built = world.ready_again("web", "web-1").await?;
        ensure!(built["status"]["lastHandledBuildAt"] == "now");
        ensure!(world.builds("web").await?[1]["spec"]["reasons"][0] == "Manual");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_build_that_hangs_is_cancelled_for_another_spec() -> Result<()> {
    tell("cancel-running", async |world| {
        let source = world.publish_flake("public").await?;
        let wanted =
            Wanted::new(world, "web", &source.url).with("/spec/runPolicy", "CancelRunning");
        let hangs = wanted.clone().with("/spec/flake/attribute", "hang");
        world.apply(&hangs).await?;
        world
            .image_when("web", "Nix builds", BUILD, |image| {
                let message = condition(image, "Ready")["message"].to_string();
                message.contains("build runs")
            })
            .await?;
        world.apply(&wanted).await?;
        world.ready_again("web", "web-1").await?;
        let outcomes: Vec<_> = world.builds("web").await?;
        let outcomes: Vec<_> = outcomes
            .iter()
            .map(|build| &build["status"]["outcome"])
            .collect();
        ensure!(outcomes == ["Superseded", "Published"], "{outcomes:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn another_spec_is_built() -> Result<()> {
    tell("spec", async |world| {
        let source = world.publish_flake("public").await?;
        let wanted = Wanted::new(world, "web", &source.url);
        world.apply(&wanted).await?;
        world.ready("web").await?;
        world
            .apply(&wanted.with("/spec/output/labels", json!({ "team": "glacier" })))
            .await?;
        let second = world.ready_again("web", "web-1").await?;
        ensure!(
            second["status"]["latestBuildReason"] == "Config",
            "{}",
            second["status"]["latestBuildReason"]
        );
        ensure!(second["status"]["observedGeneration"] == 2);
        let registry = Registry::new(world)?;
        let config = registry.config(&world.repository("web"), "latest").await?;
        ensure!(config["config"]["Labels"]["team"] == "glacier", "{config}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn other_tags_are_set_without_a_build() -> Result<()> {
    tell("tags", async |world| {
        let source = world.publish_flake("public").await?;
        let wanted = Wanted::new(world, "web", &source.url);
        world.apply(&wanted).await?;
        let first = world.ready("web").await?;
        let tags = json!(["latest", "winter", "${shortRev}"]);
        world.apply(&wanted.with("/spec/output/tags", tags)).await?;
        let second = world.ready_again("web", "web-1").await?;
        let digest = &first["status"]["published"]["digest"];
        ensure!(&second["status"]["published"]["digest"] == digest);
        let builds = world.builds("web").await?;
        ensure!(
            builds[1]["spec"]["reasons"] == json!(["Retag"]),
            "{}",
            builds[1]["spec"]["reasons"]
        );
        ensure!(
            builds[1]["status"]["outcome"] == "Retagged",
            "{}",
            builds[1]["status"]
        );
        for pod in world.pods("web").await? {
            let spec = pod.spec.unwrap_or_default();
            if pod.metadata.labels.unwrap_or_default()["firn.dev/build"] == "web-2" {
                ensure!(
                    spec.init_containers.unwrap_or_default().is_empty(),
                    "a re-tag ran more than push"
                );
            }
        }
        let registry = Registry::new(world)?;
        let short = second["status"]["source"]["shortRevision"]
            .as_str()
            .unwrap_or_default();
        ensure!(
            source.commit.starts_with(short) && short.len() >= 7,
            "{short} of {}",
            source.commit
        );
        for tag in ["latest", "winter", short] {
            let found = registry.digest(&world.repository("web"), tag).await?;
            ensure!(
                found.as_deref() == digest.as_str(),
                "tag {tag} is at {found:?}"
            );
        }
        Ok(())
    })
    .await
}
