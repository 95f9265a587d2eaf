//! Tags that somebody else moved, under each policy.

use anyhow::{Result, ensure};
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
