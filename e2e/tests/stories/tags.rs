//! Tags that somebody else moved, under each policy; and what becomes of it afterwards.

use anyhow::{Context as _, Result, ensure};
use firn_e2e::registry::Registry;
use firn_e2e::story::{BUILD, Wanted, condition, tell};
use serde_json::json;

#[tokio::test]
async fn a_tag_of_somebody_else_stops_a_push_or_stays_or_is_moved() -> Result<()> {
    tell("tags-of-others", async |world| {
        let source = world.publish_flake("public").await?;
        let repository = world.repository("web");
        // Somebody else's image, whose object is gone.
        let others = Wanted::new(world, "others", &source.url)
            .with("/spec/output/repository", repository.as_str())
            .with("/spec/output/labels", json!({ "of": "others" }));
        world.apply(&others).await?;
        let theirs = world.ready("others").await?;
        let theirs = theirs["status"]["published"]["digest"].clone();
        world.delete("others").await?;

        let wanted = Wanted::new(world, "web", &source.url)
            .with("/spec/output/tags", json!(["mine", "latest"]));
        let with = |policy: &str| wanted.clone().with("/spec/output/tagPolicy", policy);
        world.apply(&with("Fail")).await?;
        let failed = world.not_ready("web", "TagExists").await?;
        let said = condition(&failed, "Ready")["message"].to_string();
        let named = theirs.as_str().unwrap_or_default();
        ensure!(said.contains(":latest") && said.contains(named), "{said}");
        ensure!(condition(&failed, "Stalled")["status"] == "True");

        world.apply(&with("Keep")).await?;
        let kept = world.ready("web").await?;
        let published = &kept["status"]["published"];
        ensure!(published["tags"] == json!(["mine"]), "{published}");
        ensure!(published["keptTags"] == json!(["latest"]), "{published}");

        world.apply(&with("Overwrite")).await?;
        let moved = world
            .image_when("web", "both tags are its own", BUILD, |image| {
                image["status"]["published"]["tags"] == json!(["latest", "mine"])
            })
            .await?;
        ensure!(moved["status"]["published"].get("keptTags").is_none());
        let builds = world.builds("web").await?;
        let last = builds.last().map(|build| &build["spec"]["reasons"]);
        ensure!(last == Some(&json!(["Retag"])), "{last:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_tag_that_was_moved_is_reported_then_moved_back_and_a_lost_image_is_built_again()
-> Result<()> {
    tell("drift", async |world| {
        let source = world.publish_flake("public").await?;
        let repository = world.repository("web");
        let others = Wanted::new(world, "others", &source.url)
            .with("/spec/output/repository", repository.as_str())
            .with("/spec/output/tags", json!(["theirs"]))
            .with("/spec/output/labels", json!({ "of": "others" }));
        world.apply(&others).await?;
        world.ready("others").await?;
        let wanted = Wanted::new(world, "web", &source.url);
        let verified = |on: &str| wanted.clone().with("/spec/verification/onDrift", on);
        world.apply(&verified("Report")).await?;
        let image = world.ready("web").await?;
        let digest = image["status"]["published"]["digest"].clone();
        let digest = digest.as_str().context("no digest")?;
        let registry = Registry::new(world)?;

        let look = async |turn: &str, word: &str| -> Result<_> {
            let annotation = "reconcile.firn.dev/requestedAt";
            world.annotate("web", annotation, turn).await?;
            let what = format!("TagDrift is {word}");
            let found = world.image_when("web", &what, BUILD, |image| {
                condition(image, "TagDrift")["reason"] == word
            });
            found.await
        };
        let whole = async |reasons: &[&str]| -> Result<()> {
            let what = format!("repaired by {reasons:?}");
            let repaired = world.image_when("web", &what, BUILD, |image| {
                condition(image, "TagDrift").is_null()
                    && condition(image, "Ready")["status"] == "True"
                    && image["status"]["latestBuildReason"] == reasons.join(",")
            });
            repaired.await?;
            let there = registry.digest(&repository, "latest").await?;
            ensure!(there.as_deref() == Some(digest), "{there:?}");
            Ok(())
        };

        registry.point(&repository, "latest", "theirs").await?;
        let drifted = look("1", "TagMoved").await?;
        ensure!(condition(&drifted, "Ready")["status"] == "True");
        ensure!(world.builds("web").await?.len() == 1, "it is only said");

        world.apply(&verified("Repush")).await?;
        whole(&["Drift", "Retag"]).await?;

        registry.remove(&repository, digest).await?;
        look("2", "DigestMissing").await?;
        whole(&["Drift"]).await
    })
    .await
}
