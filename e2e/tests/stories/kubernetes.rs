//! What Kubernetes itself is asked to hold: manifests that are refused, and deletion.

use std::time::Duration;

use anyhow::{Result, ensure};
use firn_e2e::registry::Registry;
use firn_e2e::story::{BUILD, Wanted, names, tell};
use firn_e2e::wait::{Seen, eventually};

#[tokio::test]
async fn an_image_deleted_in_the_middle_of_its_build_leaves_nothing_and_no_tag_appears()
-> Result<()> {
    tell("deleted", async |world| {
        let source = world.publish_flake("public").await?;
        let wanted = Wanted::new(world, "web", &source.url).with("/spec/flake/attribute", "slow");
        world.apply(&wanted).await?;
        eventually("the build container runs", BUILD, || async {
            let pods = world.pods("web").await?;
            let statuses = pods.iter().filter_map(|pod| pod.status.as_ref());
            let mut containers =
                statuses.flat_map(|status| status.init_container_statuses.iter().flatten());
            let runs = containers.any(|status| {
                status.name == "build"
                    && status
                        .state
                        .as_ref()
                        .is_some_and(|state| state.running.is_some())
            });
            Ok(if runs {
                Seen::Done(())
            } else {
                Seen::NotYet(format!("{:?}", names(&pods)))
            })
        })
        .await?;
        world.delete("web").await?;
        let registry = Registry::new(world)?;
        eventually(
            "builds, Jobs and pods are gone",
            Duration::from_secs(90),
            || async {
                let tag = registry.digest(&world.repository("web"), "latest").await?;
                ensure!(
                    tag.is_none(),
                    "a tag appeared while the build was being taken away"
                );
                let left = format!(
                    "{:?} {:?} {} builds",
                    names(&world.jobs("web").await?),
                    names(&world.pods("web").await?),
                    world.builds("web").await?.len()
                );
                Ok(if left == "[] [] 0 builds" {
                    Seen::Done(())
                } else {
                    Seen::NotYet(left)
                })
            },
        )
        .await?;
        let tag = registry.digest(&world.repository("web"), "latest").await?;
        ensure!(tag.is_none(), "a tag appeared after the last pod was gone");
        Ok(())
    })
    .await
}
