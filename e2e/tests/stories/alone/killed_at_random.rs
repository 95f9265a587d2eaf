//! The operator is killed at random moments while several images are built at once: each change
//! ends in one result, from one build with one Job.
//!
//! It gets SIGKILL after a number of its writes that dice say, and so in the midst of whatever
//! comes next. `FIRN_KILLS` says how often, `FIRN_KILL_SEED` which dice.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use firn_e2e::story::dice::Dice;
use firn_e2e::story::once::each_once;
use firn_e2e::story::{BUILD, Wanted, World, brief, condition, tell};
use firn_e2e::wait::{Seen, eventually};

use super::operator_killed::{Write, audit_log, in_place_of_the_operator, length, start, writes};

/// As many as the installed operator lets build at once.
const IMAGES: [&str; 6] = ["one", "two", "three", "four", "five", "six"];
/// How often it is killed, if nothing else is said: building six images takes some forty writes.
const KILLS: u64 = 8;
/// The most writes of one life. A build needs about seven.
const LIFE: u64 = 6;

#[tokio::test]
async fn an_operator_killed_at_random_loses_and_doubles_nothing() -> Result<()> {
    let kills = number("FIRN_KILLS")?.unwrap_or(KILLS);
    let seed = number("FIRN_KILL_SEED")?.unwrap_or(1);
    tell("killed-at-random", async |world| {
        in_place_of_the_operator(world, async |world, environment| {
            let story = Story {
                world,
                environment,
                kills,
            };
            let told = story.tell(Dice::new(seed)).await;
            told.with_context(|| format!("again by FIRN_KILLS={kills} FIRN_KILL_SEED={seed}"))
        })
        .await
    })
    .await
}

#[expect(clippy::disallowed_methods, reason = "the edge: how long a sweep is")]
fn number(variable: &str) -> Result<Option<u64>> {
    let text = std::env::var(variable).ok();
    let number = text.map(|text| text.parse());
    number
        .transpose()
        .with_context(|| format!("{variable} is not a number"))
}

struct Story<'a> {
    world: &'a World,
    environment: &'a [(String, String)],
    kills: u64,
}

/// How a life of the operator ended.
enum End {
    Killed,
    AllIsBuilt,
}

impl Story<'_> {
    async fn tell(&self, mut dice: Dice) -> Result<()> {
        let world = self.world;
        let log = audit_log(world)?;
        let source = world.publish_flake("public").await?;
        for name in IMAGES {
            world.apply(&Wanted::new(world, name, &source.url)).await?;
        }
        let begin = length(&log)?;
        let mut changes = 1;
        let mut killed = 0;
        loop {
            let life = (killed < self.kills).then(|| 1 + dice.below(LIFE));
            match self.live(&log, life, changes).await? {
                End::Killed => killed += 1,
                End::AllIsBuilt if killed >= self.kills => break,
                // More work, for the kills that are left.
                End::AllIsBuilt => {
                    changes += 1;
                    let request = changes.to_string();
                    for name in IMAGES {
                        let key = "build.firn.dev/requestedAt";
                        world.annotate(name, key, &request).await?;
                    }
                }
            }
        }
        let all = writes(&log, begin, &world.namespace)?;
        for resource in ["jobs", "niximagebuilds"] {
            let created = created(&all, resource);
            ensure!(
                created.values().all(|times| *times == 1)
                    && created.len() == IMAGES.len() * changes,
                "{changes} changes of {} images created {resource}: {created:#?}",
                IMAGES.len()
            );
        }
        for name in IMAGES {
            each_once(world, name, changes).await?;
        }
        Ok(())
    }

    /// Runs the operator until it wrote `life` times, or all images are built `changes` times; then
    /// it is killed.
    async fn live(&self, log: &Path, life: Option<u64>, changes: usize) -> Result<End> {
        let seen = length(log)?;
        let mut operator = start(self.world, self.environment)?;
        let end = eventually("the operator has done something", BUILD, || async {
            let written = writes(log, seen, &self.world.namespace)?.len();
            if let Some(life) = life
                && u64::try_from(written)? >= life
            {
                return Ok(Seen::Done(End::Killed));
            }
            Ok(match self.unfinished(changes).await? {
                None => Seen::Done(End::AllIsBuilt),
                Some(image) => Seen::NotYet(format!("{written} writes; {image}")),
            })
        })
        .await;
        // SIGKILL, to this very process.
        operator.kill().await?;
        end
    }

    /// The first image whose last change has no result yet.
    async fn unfinished(&self, changes: usize) -> Result<Option<String>> {
        for name in IMAGES {
            let image = self.world.image(name).await?;
            let built = image["status"]["buildCounter"] == changes
                && condition(&image, "Ready")["status"] == "True";
            if !built {
                return Ok(Some(format!("{name}: {}", brief(&image))));
            }
        }
        Ok(None)
    }
}

/// How often each object of a resource was created.
fn created<'a>(writes: &'a [Write], resource: &str) -> BTreeMap<&'a str, usize> {
    let mut created = BTreeMap::new();
    for write in writes {
        if write.verb == "create" && write.resource == resource {
            *created.entry(write.name.as_str()).or_default() += 1;
        }
    }
    created
}
