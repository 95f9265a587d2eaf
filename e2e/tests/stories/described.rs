//! Images that are described: what is in them besides store paths, and how they are started.

use anyhow::{Context as _, Result, ensure};
use firn_e2e::story::{Wanted, tell};
use serde_json::json;

#[tokio::test]
async fn a_described_image_runs_as_its_user_with_its_files_and_their_modes() -> Result<()> {
    tell("described", async |world| {
        let source = world.publish_flake("public").await?;
        let wanted = Wanted::new(world, "web", &source.url)
            .with("/spec/flake/attribute", "described")
            .with(
                "/spec/output/config",
                json!({ "env": [{ "name": "GREETING", "value": "from the spec" }] }),
            );
        world.apply(&wanted).await?;
        let image = world.ready("web").await?;
        let image = image["status"]["latestImage"]
            .as_str()
            .context("no image in status")?;
        let printed = world.run_as_it_is("run-web", image).await?;
        for words in [
            // The user of passwd, by its number.
            "app\n",
            "greeting is from the spec",
            "written",
            "mine",
            "-rwsr-xr-x    1 0        0",
            "drwxr-x---",
            "1000     1000",
            "by /bin/sh",
            "app says: hello from the snow",
        ] {
            ensure!(printed.contains(words), "{words:?} is not in {printed:?}");
        }
        Ok(())
    })
    .await
}
