//! `make scale`: ten thousand images that nothing happens to, on the real API server; then five
//! hundred of them that change at once. Writes docs/scale.md.
//!
//! One image is really built. The others are copies of it with its result and its build as they
//! would be had each been built: the operator that starts then must find nothing to do. Had the
//! copies a mistake, it would build, and the page would say so.

mod burst;
mod probe;
mod report;
mod seed;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use futures::{StreamExt as _, TryStreamExt as _, stream};

use crate::cluster::{Cluster, progress::say};
use crate::install::{install_chart, push_images, scale};
use crate::story::{Wanted, World};
use crate::wait::eventually;
use probe::{Probe, Sample};

/// Namespaces that the images are spread over.
const NAMESPACES: usize = 10;
/// Objects that are made at once.
const AT_ONCE: usize = 100;
/// Minutes between two polls of a source: the window has several.
const INTERVAL_MINUTES: u64 = 1;
/// Longest time for the first reconcile of all. What is asked for is a minute.
const FIRST: Duration = Duration::from_secs(3600);

/// How much of it.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    /// Images.
    pub images: usize,
    /// How long nothing happens.
    pub idle: Duration,
    /// Images that change at once.
    pub burst: usize,
}

/// What was measured.
#[derive(Debug)]
struct Figures {
    size: Size,
    /// From the Deployment's scaling from 0 to 1 until every image is counted.
    first: Duration,
    /// API writes of the operator until then.
    first_writes: probe::Writes,
    /// What the operator held and spent when all were counted.
    after_first: Sample,
    /// The same before and after the window.
    idle: (Sample, Sample),
    /// API writes of the operator in it.
    idle_writes: probe::Writes,
    /// What became of the burst.
    burst: Option<burst::Drained>,
}

/// Measures, and writes the page to `page`. `images` are Firn's own.
///
/// # Errors
/// Whatever goes wrong. A figure that is worse than asked is none: it is on the page.
pub async fn run(images: &Path, size: Size, page: &Path) -> Result<()> {
    let cluster = Cluster::from_env()?;
    install_chart(&cluster, &push_images(&cluster, images).await?)?;
    let worlds: Vec<World> = stream::iter(0..NAMESPACES)
        .map(|number| World::begin(format!("scale-{number}")))
        .buffered(NAMESPACES)
        .try_collect()
        .await?;
    let first = worlds.first().context("no namespaces")?;
    let source = first.publish_flake("public").await?;
    let wanted = Wanted::new(first, seed::ORIGIN, &source.url)
        .with("/spec/source/git/interval", format!("{INTERVAL_MINUTES}m"));
    first.apply(&wanted).await?;
    let image = first.ready(seed::ORIGIN).await?;
    let builds = first.builds(seed::ORIGIN).await?;
    let build = builds.into_iter().next().context("no build")?;
    say(format!("{} is built", seed::ORIGIN));

    scale(&first.client, 0).await?;
    let begin = Instant::now();
    let origin = seed::Origin::new(first, image, build)?;
    stream::iter(1..size.images)
        .map(|number| {
            // Never out of bounds: the remainder of a division by the length.
            let world = &worlds[number % worlds.len()];
            origin.copy(world, number)
        })
        .buffer_unordered(AT_ONCE)
        .try_collect::<()>()
        .await?;
    say(format!(
        "{} images with their builds are there ({} s)",
        size.images,
        begin.elapsed().as_secs()
    ));

    let probe = Probe::new(first)?;
    let all = u32::try_from(size.images)?;
    let from = probe.writes_from()?;
    let begin = Instant::now();
    scale(&first.client, 1).await?;
    eventually("every image is counted", FIRST, || async {
        probe.at_least("firn_images", all).await
    })
    .await?;
    let first_took = begin.elapsed();
    let first_writes = probe.writes_since(from)?;
    let after_first = probe.sample().await?;
    say(format!("all are counted ({} s)", first_took.as_secs()));

    // What the first turn left behind (events, statuses) is written by now.
    probe.settled().await?;
    let from = probe.writes_from()?;
    let before = probe.sample().await?;
    say(format!("nothing happens for {} s", size.idle.as_secs()));
    let after = probe.watch(size.idle).await?;
    let idle_writes = probe.writes_since(from)?;

    let burst = if size.burst == 0 {
        None
    } else {
        say(format!("{} images change at once", size.burst));
        Some(burst::drain(&worlds, &probe, size.burst).await?)
    };
    let figures = Figures {
        size,
        first: first_took,
        first_writes,
        after_first,
        idle: (before, after),
        idle_writes,
        burst,
    };
    let text = report::to_markdown(&figures);
    std::fs::write(page, &text).with_context(|| format!("failed to write {}", page.display()))?;
    say(text);
    Ok(())
}
