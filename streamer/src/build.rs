//! `build`: evaluates the flake's attribute and builds it, without any credentials, behind
//! Landlock. It talks to substituters and to nothing else.
//!
//! ```text
//! evaluate ──► published already? ──► marker for push
//!    │ no
//! nix build ──► an image of another maker? refused ──► closure, entry point ──► build.json
//! ```

mod evaluate;
mod failures;
mod realise;

use std::io;
use std::time::Duration;

use firn_crd::pod;
use firn_crd::report::{Outcome, StageName};
use firn_crd::run::Build;
use tokio::time::Instant;

use crate::ca;
use crate::confine::{self, Confinement};
use crate::failure::{Failure, Result};
use crate::fetch::flake_reference;
use crate::handoff::{self, Built, Checked, Fetched};
use crate::nix::Nix;
use crate::nix::config::Home;
use crate::nix::log::Log;
use crate::nix::question::Evaluated;
use crate::settings::Settings;
use crate::stages::Stages;
use crate::stop::Stop;

/// Everything that the confined thread works with.
#[derive(Debug)]
struct Work<'a> {
    build: &'a Build,
    nix: Nix<'a>,
    flake: String,
    fetched: Fetched,
    /// The published image, if it is still in the registry.
    published: Option<String>,
    /// Kills for lack of memory before anything was started.
    oom_kills: u64,
    memory_limit: Option<u64>,
}

/// Builds what `build` says. Blocks; call it outside of a runtime's own threads.
pub fn build(
    settings: &Settings,
    build: &Build,
    stages: &mut Stages,
    stop: &Stop,
) -> Result<Outcome> {
    let internal = |error: io::Error| Failure::internal(&error);
    let bundle = settings.paths.tmp().join("ca-bundle.crt");
    let bundle = ca::bundle(settings, &[pod::SUBSTITUTER_CA], &bundle).map_err(internal)?;
    let home = Home::create(settings, build, bundle.as_deref(), "").map_err(internal)?;
    let read = |error| Failure::internal(&error);
    let fetched: Fetched = handoff::read(&settings.paths.fetched()).map_err(read)?;
    let checked: Checked = handoff::read(&settings.paths.checked()).map_err(read)?;
    let mut log = Log::new(io::stdout());
    let work = Work {
        build,
        nix: Nix {
            environment: home.environment(settings),
            directory: settings.paths.tmp(),
            deadline: Instant::now() + Duration::from_secs(build.timeout_seconds),
            stop,
        },
        flake: flake_reference(
            &settings.paths.checkout(),
            &build.source,
            fetched.commit_time,
        ),
        fetched,
        published: checked.published,
        oom_kills: crate::resources::oom_kills(),
        memory_limit: settings.memory_limit,
    };
    let readable = [settings.paths.at(pod::SOURCE)];
    let writable = [settings.paths.tmp()];
    let confined = confine::run(&readable, &writable, |confinement| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(internal)?;
        runtime.block_on(work.run(confinement, stages, &mut log))
    });
    let result = confined.map_err(|error| Failure::internal(&error))?;
    log.stages().into_iter().for_each(|stage| stages.add(stage));
    handoff::write(&settings.paths.built(), &result?).map_err(|error| Failure::internal(&error))?;
    Ok(Outcome::Passed)
}

impl Work<'_> {
    async fn run(
        &self,
        confinement: Confinement,
        stages: &mut Stages,
        log: &mut Log,
    ) -> Result<Built> {
        let running = Stages::begin(StageName::Evaluate);
        let evaluated = self.evaluate(log).await;
        stages.end(&running);
        let evaluated = evaluated?;
        if self.is_published(&evaluated) {
            tracing::info!(drv = %evaluated.drv_path, "published already: nothing is built");
            return Ok(Built::NotChanged {
                drv_path: evaluated.drv_path,
            });
        }
        let mut image = self.realise(&evaluated, log).await?;
        image.note = image.note.or_else(|| confinement.note().map(str::to_owned));
        Ok(Built::Image(Box::new(image)))
    }

    /// Whether the same derivation is what the operator says is published, and check found it.
    fn is_published(&self, evaluated: &Evaluated) -> bool {
        let Some(published) = &self.build.published else {
            return false;
        };
        self.published.as_deref() == Some(&published.digest)
            && published.drv_path == evaluated.drv_path.to_string()
    }
}
