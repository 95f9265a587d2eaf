//! The API server crashes, and etcd hangs, in the middle of a build: it is built once, and what is
//! told of it is right as soon as anybody can ask.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use firn_e2e::story::fault::{Fault, cluster};
use firn_e2e::story::once::{Moment, builds_now, each_once, is_building, operator_restarts};
use firn_e2e::story::{BUILD, SOON, Wanted, World, condition, tell};
use firn_e2e::wait::{eventually, unless_failed, when};
use tokio::time::timeout;

/// What an API server without its store is asked has no answer for so long.
const HANGS: Duration = Duration::from_secs(3);
/// An operator that renews its lease every 2 s, and gives it up 10 s after the last time, needs no
/// new start for less than this.
const OUTLIVED: Duration = Duration::from_secs(5);

/// The operator hears of a pod within a second; the rest is for a busy machine.
const NOTICED: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread")]
async fn a_build_is_not_lost_or_doubled_by_what_becomes_of_the_control_plane() -> Result<()> {
    tell("control-plane", story).await
}

async fn story(world: &World) -> Result<()> {
    let mut source = world.publish_flake("public").await?;
    let flake = source.flake.repository.path().join("flake.nix");
    // Long enough for both faults.
    let text = std::fs::read_to_string(flake)?.replace("sleep 15;", "sleep 24;");
    source
        .flake
        .change(&world.ca_file(), "flake.nix", &text)
        .await?;
    let wanted = Wanted::new(world, "web", &source.url).with("/spec/flake/attribute", "slow");
    world.apply(&wanted).await?;
    world
        .image_when("web", "its build runs", BUILD, is_building)
        .await?;
    let before = Moment::of(world, "web").await?;
    ensure!(
        before.builds.len() == 1 && before.jobs.len() == 1 && before.pods.len() == 1,
        "{before:?}"
    );
    let restarts = operator_restarts(world).await?;

    let start = Instant::now();
    let fault = Fault::kill(world, "control", "apiserver")?;
    let asked = timeout(SOON, world.image("web")).await?;
    ensure!(asked.is_err(), "the API server answers: {asked:?}");
    the_builder_runs().context("while the API server was away")?;
    fault.undo()?;
    api_answers(world).await?;
    let mut outages = vec![start.elapsed()];
    builds_now(world, "web").await?;
    ensure!(Moment::of(world, "web").await? == before);

    let start = Instant::now();
    let fault = Fault::pause(world, "control", "etcd")?;
    let asked = timeout(HANGS, world.image("web")).await;
    ensure!(asked.is_err(), "etcd answers: {asked:?}");
    the_builder_runs().context("while etcd hung")?;
    fault.undo()?;
    api_answers(world).await?;
    outages.push(start.elapsed());
    builds_now(world, "web").await?;
    ensure!(Moment::of(world, "web").await? == before);

    pod_succeeded(world).await?;
    // The operator has found its way back meanwhile: it is woken, and not by a clock.
    world
        .image_when("web", "its pod's end is noticed", NOTICED, |image| {
            condition(image, "Ready")["status"] == "True"
        })
        .await?;
    ensure!(Moment::of(world, "web").await? == before);
    each_once(world, "web", 1).await?;
    let needed = outages.iter().filter(|outage| **outage >= OUTLIVED).count();
    let restarts = operator_restarts(world).await? - restarts;
    ensure!(
        usize::try_from(restarts)? <= needed,
        "{restarts} new starts of the operator in outages of {outages:?}"
    );
    Ok(())
}

/// The derivation's own process, on its node: no API server is needed to see it. The search is a
/// process too: hence the brackets, by which its words are not what it looks for.
fn the_builder_runs() -> Result<()> {
    let search = "cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' ' | grep -q '[s]leep 24'";
    cluster(&["exec", "node-0", "--", "sh", "-c", search]).context("the builder does not run")
}

async fn pod_succeeded(world: &World) -> Result<()> {
    eventually("the pod has done its work", BUILD, || async {
        let pods = world.pods("web").await?;
        let phases: Vec<_> = pods
            .into_iter()
            .filter_map(|pod| pod.status?.phase)
            .collect();
        Ok(when(phases == ["Succeeded"], format!("{phases:?}")))
    })
    .await
}

async fn api_answers(world: &World) -> Result<()> {
    eventually("the API server answers", SOON, || async {
        Ok(unless_failed(world.image("web").await))
    })
    .await
    .map(drop)
}
