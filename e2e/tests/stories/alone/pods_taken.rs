//! Pods of running builds are taken away, each in another way: evicted, deleted, drained with their
//! node. Their Jobs start others, and each build ends in its one result.

use anyhow::{Result, ensure};
use firn_e2e::story::fault::{Fault, cluster};
use firn_e2e::story::once::{Moment, each_once, is_building};
use firn_e2e::story::{BUILD, Wanted, World, condition, tell};
use firn_e2e::wait::{Seen, eventually};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, EvictParams};

const NODE: &str = "node-0";

/// How a pod is taken from its build.
#[derive(Debug, Clone, Copy)]
enum Fate {
    Evicted,
    Deleted,
    Drained,
}

impl Fate {
    const ALL: [Self; 3] = [Self::Evicted, Self::Deleted, Self::Drained];

    /// The image that meets it.
    fn image(self) -> &'static str {
        match self {
            Self::Evicted => "evicted",
            Self::Deleted => "deleted",
            Self::Drained => "drained",
        }
    }

    async fn befall(self, world: &World, pod: &str) -> Result<()> {
        let pods = world.api::<Pod>();
        match self {
            Self::Evicted => drop(pods.evict(pod, &EvictParams::default()).await?),
            Self::Deleted => drop(pods.delete(pod, &DeleteParams::default()).await?),
            Self::Drained => {
                let selector = format!("--pod-selector=firn.dev/image={}", self.image());
                let drain = ["kubectl", "drain", NODE, "--force"];
                let how = [
                    "--delete-emptydir-data",
                    "--grace-period=1",
                    "--timeout=60s",
                ];
                cluster(&[&drain[..], &how[..], &[selector.as_str()]].concat())?;
            }
        }
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_that_are_evicted_deleted_or_drained_are_replaced_and_builds_are_not() -> Result<()> {
    tell("pods-taken", story).await
}

async fn story(world: &World) -> Result<()> {
    let mut source = world.publish_flake("public").await?;
    let flake = source.flake.repository.path().join("flake.nix");
    let text = std::fs::read_to_string(flake)?.replace("sleep 15;", "sleep 8;");
    let ca = &world.ca_file();
    source.flake.change(ca, "flake.nix", &text).await?;
    for fate in Fate::ALL {
        let wanted = Wanted::new(world, fate.image(), &source.url);
        let wanted = wanted.with("/spec/flake/attribute", "slow");
        world.apply(&wanted).await?;
    }
    for fate in Fate::ALL {
        scheduled(world, fate.image()).await?;
    }
    // What comes instead of a pod waits for this, so that it can be looked at.
    let cordon = Fault::cordon(world, NODE)?;
    let [a, b, c] = Fate::ALL.map(|fate| meets(world, fate));
    let (evicted, deleted, drained) = futures::try_join!(a, b, c)?;
    cordon.undo()?;

    for (fate, before) in Fate::ALL.into_iter().zip([evicted, deleted, drained]) {
        let image = fate.image();
        world.ready(image).await?;
        let after = Moment::of(world, image).await?;
        ensure!(
            after.builds == before.builds && after.jobs == before.jobs,
            "{image}: {before:?} became {after:?}"
        );
        ensure!(
            after.pods.iter().any(|pod| !before.pods.contains(pod)),
            "{image}: no other pod: {after:?}"
        );
        each_once(world, image, 1).await?;
    }
    Ok(())
}

/// Waits until the build runs, takes its pod, and looks at what is said then. What was before.
async fn meets(world: &World, fate: Fate) -> Result<Moment> {
    let image = fate.image();
    world
        .image_when(image, "its build runs", BUILD, is_building)
        .await?;
    let before = Moment::of(world, image).await?;
    let [pod] = before.pods.as_slice() else {
        anyhow::bail!("{image}: not one pod: {before:?}")
    };
    fate.befall(world, pod).await?;
    // For a moment: why it goes. Then, until there is a node again: what it waits for.
    world
        .image_when(image, "the next pod waits", BUILD, |image| {
            let ready = condition(image, "Ready");
            let message = ready["message"].as_str().unwrap_or_default();
            ready["status"] == "Unknown" && message.to_lowercase().contains("uncordon a node")
        })
        .await?;
    let builds = world.builds(image).await?;
    for build in &builds {
        let succeeded = condition(build, "Succeeded");
        ensure!(succeeded["reason"] == "Unschedulable", "{succeeded}");
    }
    let now = Moment::of(world, image).await?;
    ensure!(
        now.builds == before.builds && now.jobs == before.jobs,
        "{image}: {before:?} became {now:?}"
    );
    Ok(before)
}

async fn scheduled(world: &World, image: &str) -> Result<()> {
    eventually(&format!("{image} has a pod on a node"), BUILD, || async {
        let pods = world.pods(image).await?;
        let on = |pod: &Pod| {
            pod.spec
                .as_ref()
                .is_some_and(|spec| spec.node_name.is_some())
        };
        Ok(if pods.iter().any(on) {
            Seen::Done(())
        } else {
            Seen::NotYet(format!("{} pods", pods.len()))
        })
    })
    .await
}
