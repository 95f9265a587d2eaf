//! Images that were made by something else are pushed as they are, and run.

use anyhow::{Context as _, Result, ensure};
use firn_e2e::story::{Wanted, tell};

/// Attribute, and how many layers its image has.
const IMAGES: [(&str, u64); 5] = [
    ("nix2container", 2),
    ("stream", 3),
    ("conf", 3),
    ("archive", 1),
    ("layout", 1),
];

#[tokio::test]
async fn images_made_by_others_are_pushed_as_they_are_and_run() -> Result<()> {
    tell("made-by-others", async |world| {
        let source = world.publish_flake("public").await?;
        for (name, _) in IMAGES {
            let attribute = format!("packages.x86_64-linux.images.{name}");
            let wanted = Wanted::new(world, name, &source.url)
                .with("/spec/flake/attribute", attribute.as_str());
            world.apply(&wanted).await?;
        }
        for (name, layers) in IMAGES {
            let image = world.ready(name).await?;
            let published = &image["status"]["published"];
            ensure!(published["layersTotal"] == layers, "{name}: {published}");
            let latest = image["status"]["latestImage"].as_str();
            let latest = latest.with_context(|| format!("{name} has no image"))?;
            let printed = world.run(&format!("run-{name}"), latest).await?;
            ensure!(
                printed.contains("app says: hello from the snow"),
                "{name} printed {printed:?}"
            );
        }
        Ok(())
    })
    .await
}
