//! `runPolicy: Serial`: no commit is passed over, however fast they come.
//!
//! A queue of Kueue's name holds each Job until this story admits it, so that commits come while a
//! build is under way.

use anyhow::{Context as _, Result, ensure};
use firn_e2e::story::{BUILD, SOON, Wanted, World, brief, tell};
use firn_e2e::wait::{Seen, eventually, when};
use k8s_openapi::api::batch::v1::Job;
use kube::api::{Patch, PatchParams};
use serde_json::json;

#[tokio::test]
async fn each_commit_that_comes_during_a_build_is_built_in_its_turn() -> Result<()> {
    tell("serial", async |world| {
        let mut source = world.publish_flake("public").await?;
        let ca = &world.ca_file();
        let wanted = Wanted::new(world, "web", &source.url)
            .with("/spec/trigger", json!({ "mode": "Revision" }))
            .with("/spec/runPolicy", "Serial")
            .with("/spec/build/queueName", "team");
        world.apply(&wanted).await?;
        suspended(world, "web-1-amd64").await?;

        let mut commits = vec![source.commit.clone()];
        for text in ["One.\n", "Two.\n"] {
            let commit = source.flake.change(ca, "README.md", text).await?;
            world
                .annotate("web", "reconcile.firn.dev/requestedAt", &commit)
                .await?;
            let waiting = format!("main@sha1:{commit}");
            world
                .image_when("web", "the commit waits", SOON, |image| {
                    let queue = image["status"]["queuedRevisions"].as_array();
                    queue
                        .and_then(|queue| queue.last())
                        .is_some_and(|last| last["revision"] == waiting)
                })
                .await?;
            commits.push(commit);
        }
        let image = world.image("web").await?;
        let queue = &image["status"]["queuedRevisions"];
        ensure!(queue.as_array().map(Vec::len) == Some(2), "{queue:#}");
        ensure!(world.builds("web").await?.len() == 1, "{}", brief(&image));

        for number in 1..=commits.len() {
            admit(world, &format!("web-{number}-amd64")).await?;
            eventually("the build has ended", BUILD, || async {
                let builds = world.builds("web").await?;
                let build = builds.get(number - 1);
                let ended = build.is_some_and(|build| build["status"]["outcome"].is_string());
                Ok(when(ended, build.map_or_else(String::new, brief)))
            })
            .await?;
        }
        let image = world.ready("web").await?;
        let builds = world.builds("web").await?;
        let built: Vec<&str> = builds
            .iter()
            .filter_map(|build| build["spec"]["source"]["git"]["commit"].as_str())
            .collect();
        ensure!(built == commits, "built {built:?}, pushed {commits:?}");
        let queue = &image["status"]["queuedRevisions"];
        ensure!(queue.as_array().is_none_or(Vec::is_empty), "{queue:#}");
        let last = commits.last().context("no commits")?;
        ensure!(image["status"]["published"]["revision"] == format!("main@sha1:{last}"));
        Ok(())
    })
    .await
}

/// Waits until this Job is there and waits for its queue.
async fn suspended(world: &World, name: &str) -> Result<()> {
    let jobs = world.api::<Job>();
    eventually(&format!("Job {name} waits"), BUILD, || async {
        let job = jobs.get_opt(name).await?;
        let spec = job.and_then(|job| job.spec);
        Ok(match spec.and_then(|spec| spec.suspend) {
            Some(true) => Seen::Done(()),
            other => Seen::NotYet(format!("suspend: {other:?}")),
        })
    })
    .await
}

/// What Kueue does once there is room.
async fn admit(world: &World, name: &str) -> Result<()> {
    suspended(world, name).await?;
    let patch = Patch::Merge(json!({ "spec": { "suspend": false } }));
    let jobs = world.api::<Job>();
    jobs.patch(name, &PatchParams::default(), &patch).await?;
    Ok(())
}
