//! What must be true after any fault: each change was built once, and ended in one result.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::ListParams;
use serde_json::Value;

use super::{World, condition, names};
use crate::registry::Registry;

/// A moment of a build that runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moment {
    /// Names of the builds.
    pub builds: Vec<String>,
    /// UIDs of the Jobs.
    pub jobs: Vec<Option<String>>,
    /// Names of the pods.
    pub pods: Vec<String>,
}

impl Moment {
    /// What there is of `image` now.
    pub async fn of(world: &World, image: &str) -> Result<Self> {
        let builds = world.builds(image).await?;
        let name = |build: &Value| build["metadata"]["name"].as_str().map(ToOwned::to_owned);
        let jobs = world.jobs(image).await?;
        Ok(Self {
            builds: builds.iter().filter_map(name).collect(),
            jobs: jobs.into_iter().map(|job| job.metadata.uid).collect(),
            pods: names(&world.pods(image).await?),
        })
    }
}

/// Fails unless `image` was built `times` times, each with one Job and one result, the last of
/// which is what its status and its tag say.
pub async fn each_once(world: &World, image: &str, times: usize) -> Result<()> {
    let builds = world.builds(image).await?;
    let numbers: Vec<_> = builds
        .iter()
        .map(|build| build["spec"]["number"].as_u64())
        .collect();
    let expected: Vec<_> = (1..=u64::try_from(times)?).map(Some).collect();
    ensure!(numbers == expected, "builds of {image}: {numbers:?}");
    for build in &builds {
        let status = &build["status"];
        let well = status["outcome"] == "Published" || status["outcome"] == "NotChanged";
        ensure!(well && status["completionTime"].is_string(), "{build:#}");
    }
    let mut jobs: BTreeMap<String, usize> = BTreeMap::new();
    for name in names(&world.jobs(image).await?) {
        *jobs.entry(name).or_default() += 1;
    }
    let wanted: BTreeMap<_, _> = (1..=times)
        .map(|number| (format!("{image}-{number}-amd64"), 1))
        .collect();
    ensure!(jobs == wanted, "Jobs of {image}: {jobs:?}");

    let status = &world.image(image).await?["status"];
    let last = &builds.last().context("no build")?["status"]["digest"];
    ensure!(status["buildCounter"] == times, "{status:#}");
    ensure!(status["published"]["digest"] == *last, "{status:#}");
    let registry = Registry::new(world)?;
    let tagged = registry.digest(&world.repository(image), "latest").await?;
    ensure!(
        tagged.as_deref() == last.as_str(),
        "the tag is at {tagged:?} and not at {last}"
    );
    let moved = registry.manifests_stored(world, image, "latest").await?;
    // Less, where another run of the story left the same image under the tag.
    ensure!(moved <= times, "the tag was moved {moved} times");
    Ok(())
}

/// Fails unless `image` says that its build's container `build` runs.
pub async fn builds_now(world: &World, image: &str) -> Result<()> {
    let object = world.image(image).await?;
    let ready = condition(&object, "Ready");
    ensure!(
        is_building(&object),
        "it does not say that its build runs: {ready}"
    );
    Ok(())
}

/// Whether the status of a `NixImage` says that the container `build` of its build runs.
pub fn is_building(image: &Value) -> bool {
    let ready = condition(image, "Ready");
    let message = ready["message"].as_str().unwrap_or_default();
    ready["status"] != "True" && message.contains("build runs")
}

/// How often containers of the installed operator were started again.
pub async fn operator_restarts(world: &World) -> Result<i32> {
    let pods: Api<Pod> = Api::namespaced(world.client.clone(), "firn-system");
    let operators = ListParams::default().labels("app.kubernetes.io/name=firn");
    let pods = pods.list(&operators).await?.items;
    ensure!(!pods.is_empty(), "Firn is not installed");
    let statuses = pods.into_iter().filter_map(|pod| pod.status);
    let containers = statuses.flat_map(|status| status.container_statuses.unwrap_or_default());
    Ok(containers.map(|container| container.restart_count).sum())
}
