//! Use without a cluster: `push`, `plan`, `inspect` and `load` on anybody's machine that has a Nix
//! store, or only a closure's description and its files.
//!
//! Data goes to standard output, everything else to standard error. A failure ends with the exit
//! code that the same failure has in a pod.

pub mod arguments;
mod base_layer;
mod explain;
mod inspect;
mod load;
mod nix;
mod progress;
mod registry;
mod source;

use std::io::{self, Write as _};
use std::sync::Arc;

use firn_oci::Reference;
use serde::Serialize;

use crate::failure::{self, Failure};
use crate::push::{Placement, Transfer, Transferred};
use crate::stop::Stop;
use crate::target::{PUSH_PATIENCE, Target};
pub use arguments::{InspectArguments, LoadArguments, PlanArguments, PushArguments};
use registry::Client;
use source::BaseRegistries;

/// Exit code of a command line that cannot be used, as shells and clap have it.
const USAGE: u8 = 2;

/// Why a command could not be done.
#[derive(Debug)]
enum Trouble {
    /// What the command line says cannot be used.
    Usage(String),
    /// The same as in a pod.
    Failed(Failure),
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

type Result<T> = std::result::Result<T, Trouble>;

/// A command for a person, not for a pod.
#[derive(Debug, Clone)]
pub enum Local {
    /// Make the image and push it.
    Push(PushArguments),
    /// Tell what the layers would be, and why.
    Plan(PlanArguments),
    /// Tell what is in a registry.
    Inspect(InspectArguments),
    /// Make the image and leave it on this machine.
    Load(LoadArguments),
}

/// Does it, and gives the exit code.
pub async fn run(local: Local, stop: &Stop) -> u8 {
    let done = match local {
        Local::Push(arguments) => push(arguments, stop).await,
        Local::Plan(arguments) => explain::plan(arguments).await,
        Local::Inspect(arguments) => inspect::inspect(arguments).await,
        Local::Load(arguments) => load::load(arguments).await,
    };
    match done {
        Ok(()) => 0,
        Err(Trouble::Usage(message)) => {
            tracing::error!("{message}");
            USAGE
        }
        Err(Trouble::Failed(failure)) => {
            tracing::error!(reason = %failure.0.reason, "{}", failure.0.message);
            failure.reason().exit_code().unwrap_or(70)
        }
    }
}

/// What a push came to, in the words of a `NixImage`'s status.
#[expect(clippy::struct_field_names, reason = "the same names as in status")]
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Pushed {
    /// The image by its digest.
    image: String,
    digest: String,
    tags: Vec<String>,
    layers_total: usize,
    layers_pushed: usize,
    layers_mounted: usize,
    layers_reused: usize,
    size_bytes: u64,
    bytes_pushed: u64,
}

async fn push(arguments: PushArguments, stop: &Stop) -> Result<()> {
    let PushArguments {
        input,
        image,
        registry,
        base,
        to,
        tag,
        previous,
        output,
    } = arguments;
    let to = to.ok_or_else(|| usage("say where the image goes: --to REGISTRY/REPOSITORY[:TAG]"))?;
    let reference: Reference = to.parse().map_err(|error| unusable("--to", &error))?;
    let client = Client::new(&registry, &reference, PUSH_PATIENCE)?;
    let tags = reference.tag.iter().cloned().map(Ok);
    let tags = tags.chain(tag.iter().map(|tag| {
        tag.parse()
            .map_err(|error: firn_oci::reference::ReferenceError| unusable("--tag", &error))
    }));
    let tags: Vec<firn_oci::Tag> = tags.collect::<Result<_>>()?;
    let previous = client.previous(&previous)?;
    let bases = BaseRegistries {
        access: &registry.access,
        base: &base,
        named: Some((&reference.host, registry.plain_http)),
    };
    let source = source::read(&input, &image, bases).await?;
    let target = Target::of(client.registry, client.repository, tags.clone());
    let watch = Arc::new(progress::Bars::new(source.sizes(), output.progress()));
    let transfer = Transfer {
        target: &target,
        image: &source.image,
        closure: source.closure,
        store: source.store,
        compression: source.compression,
        previous: &previous,
        base: source.base,
        watch: Arc::clone(&watch) as _,
    };
    let done = transfer.run().await;
    watch.end();
    let done = done?;
    target
        .move_tags(&done.tags.stale, &done.manifest, stop)
        .await?;
    tell(
        output.json,
        &pushed(&reference, &tags, &done),
        |out, told| {
            writeln!(
                out,
                "{}\n{} layers: {} pushed ({}), {} mounted, {} there already",
                told.image,
                told.layers_total,
                told.layers_pushed,
                explain::bytes(told.bytes_pushed),
                told.layers_mounted,
                told.layers_reused
            )?;
            told.tags
                .iter()
                .try_for_each(|tag| writeln!(out, "tag {tag}"))
        },
    )
}

fn pushed(reference: &Reference, tags: &[firn_oci::Tag], done: &Transferred) -> Pushed {
    let digest = done.manifest.descriptor.digest;
    Pushed {
        image: format!("{}/{}@{digest}", reference.host, reference.repository),
        digest: digest.to_string(),
        tags: tags.iter().map(ToString::to_string).collect(),
        layers_total: done.layers.len(),
        layers_pushed: done.count(Placement::Sent),
        layers_mounted: done.count(Placement::Mounted),
        layers_reused: done.count(Placement::Reused),
        size_bytes: done.size(),
        bytes_pushed: done.sent(),
    }
}

/// Writes `value` to standard output: as JSON, or in words.
fn tell<T: Serialize>(
    json: bool,
    value: &T,
    words: impl FnOnce(&mut dyn io::Write, &T) -> io::Result<()>,
) -> Result<()> {
    let mut out = io::stdout().lock();
    let written = if json {
        serde_json::to_writer_pretty(&mut out, value)
            .map_err(io::Error::from)
            .and_then(|()| writeln!(out))
    } else {
        words(&mut out, value)
    };
    match written.and_then(|()| out.flush()) {
        // Whoever reads has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.map_err(|error| Failure::internal(&error).into()),
    }
}

/// The command line does not say enough, or the wrong thing.
fn usage(message: impl Into<String>) -> Trouble {
    Trouble::Usage(message.into())
}

/// A value on the command line cannot be used.
fn unusable(option: &str, error: &dyn std::error::Error) -> Trouble {
    usage(format!("{option}: {}", failure::chain(error)))
}
