//! How a story of a user is told: a namespace of its own with the Secrets a team would have, a
//! git repository, manifests to apply, and words for what is awaited.

pub mod arm64;
pub mod dice;
mod dump;
pub mod fault;
mod image;
pub mod once;
mod world;

pub use image::Wanted;
pub use world::{Source, World, brief, condition, names};

use std::time::Duration;

use anyhow::Result;

/// How long a story waits for a build. Builds take ten seconds; the rest is for a busy machine, and
/// for a retry or two that such a machine may need.
pub const BUILD: Duration = Duration::from_secs(480);
/// How long a story waits for what needs no pod.
pub const SOON: Duration = Duration::from_secs(180);

/// Tells a story in a fresh namespace called after `name`. If it ends badly, prints what the
/// namespace holds before it is taken away.
pub async fn tell<F>(name: &str, story: F) -> Result<()>
where
    F: AsyncFnOnce(&World) -> Result<()>,
{
    let world = World::begin(format!("story-{name}")).await?;
    let told = story(&world).await;
    if told.is_err() {
        dump::print(&world).await;
    }
    let ended = world.end().await;
    told.and(ended)
}
