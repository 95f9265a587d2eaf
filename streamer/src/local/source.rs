//! From what the command line names to an image, its closure, and the files.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;

use firn_crd::exit::Reason;
use firn_crd::run::ImageSpec;
use firn_oci::{Compression, Platform};
use jiff::Timestamp;
use serde::Deserialize;

use super::arguments::{ImageArguments, InputArguments};
use super::{Result, unusable, usage};
use crate::closure::Closure;
use crate::compression;
use crate::describe::{self, Described, Output};
use crate::entry_point::{self, EntryPoint};
use crate::failure::{Failure, chain};
use crate::input::Image;
use crate::input::detect;
use crate::input::foreign::Wanted;
use crate::layer::Streams;
use crate::nix::path_info;
use crate::store_path::{STORE, StorePath};

/// Largest description of a closure that is read: 100,000 paths are about 100 MB.
const CLOSURE_MAX: u64 = 128 << 20;

/// An image to be, and where its bytes are.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) image: Image,
    pub(super) closure: Arc<Closure>,
    pub(super) store: std::path::PathBuf,
    pub(super) streams: Streams,
    /// What a description says, or else the command line.
    pub(super) compression: Compression,
}

impl Source {
    /// What each layer will have to read, about.
    pub(super) fn sizes(&self) -> Vec<u64> {
        let layers = self.image.layers.iter();
        layers
            .map(|layer| layer.contents.size(&self.closure))
            .collect()
    }
}

/// Reads, and builds before if a flake's attribute was named.
pub(super) async fn read(input: &InputArguments, wanted: &ImageArguments) -> Result<Source> {
    let asked_for = compression::encoder(wanted.compression.into(), wanted.level)
        .map_err(|error| unusable("--level", &error))?;
    let named = input.input.as_deref().ok_or_else(|| {
        usage("say what the image is made of: a store path, or a flake's attribute like .#app")
    })?;
    let out_path = match store_path(named) {
        Some(path) => path,
        None => build(named).await?,
    };
    let json = match &input.closure {
        Some(file) => read_file(file)?,
        None => path_info(&out_path).await?,
    };
    let paths = path_info::parse(&json)
        .map_err(|error| usage(format!("the closure of {out_path}: {}", chain(&error))))?;
    let closure = Closure::new(paths)
        .map_err(|error| usage(format!("the closure of {out_path}: {error}")))?;
    if !closure.contains(&out_path) {
        return Err(usage(format!("{out_path} is not in its closure")));
    }
    let Described { image, compression } = match foreign(&out_path, &closure, &input.store, wanted)?
    {
        Some(image) => Described {
            image,
            compression: asked_for,
        },
        None => package(&out_path, &closure, &input.store, wanted)?,
    };
    Ok(Source {
        image,
        compression,
        closure: Arc::new(closure),
        store: input.store.clone(),
        streams: Streams::default(),
    })
}

/// The image that the path is already. `None`: it is a package.
fn foreign(
    out_path: &StorePath,
    closure: &Closure,
    store: &Path,
    wanted: &ImageArguments,
) -> Result<Option<Image>> {
    let image = detect::image_in(
        store,
        closure,
        out_path,
        &Wanted {
            platform: platform(wanted)?,
            labels: wanted.labels.iter().cloned().collect(),
            annotations: wanted.annotations.iter().cloned().collect(),
            created: None,
            now: Timestamp::from_second(1).unwrap_or_default(),
        },
    );
    let image = image.map_err(|error| usage(format!("{out_path}: {}", chain(&error))))?;
    if image.is_some() && (wanted.entry_point.is_some() || wanted.main_program.is_some()) {
        return Err(usage(format!(
            "{out_path} is an image already, which says itself what a container runs: leave out --entry-point and --main-program"
        )));
    }
    Ok(image)
}

fn package(
    out_path: &StorePath,
    closure: &Closure,
    store: &Path,
    wanted: &ImageArguments,
) -> Result<Described> {
    let entry_point = entry_point(out_path, store, wanted)?;
    if let Some(note) = &entry_point.note {
        tracing::warn!("{note}");
    }
    let described = describe::image(
        store,
        &Output {
            platform: platform(wanted)?,
            result: describe::Built::Path {
                out_path,
                entry_point: entry_point.program.as_deref(),
                has_bin: entry_point.has_bin,
            },
            closure,
            asked: &asked(wanted),
            commit_time: Timestamp::UNIX_EPOCH,
            base: None,
        },
    )?;
    Ok(described)
}

/// What the command line asks for, in the words of a NixImage.
fn asked(wanted: &ImageArguments) -> ImageSpec {
    ImageSpec {
        labels: wanted.labels.iter().cloned().collect(),
        annotations: wanted.annotations.iter().cloned().collect(),
        max_layers: wanted.max_layers,
        strategy: wanted.strategy.into(),
        compression: wanted.compression.into(),
        level: wanted.level,
        ..ImageSpec::default()
    }
}

/// A store path by its name, or by a link to it such as `./result`.
fn store_path(named: &str) -> Option<StorePath> {
    if named.starts_with(STORE) {
        return named.trim_end_matches('/').parse().ok();
    }
    let target = fs::canonicalize(named).ok()?;
    target.to_str()?.parse().ok()
}

fn entry_point(out_path: &StorePath, store: &Path, wanted: &ImageArguments) -> Result<EntryPoint> {
    let Some(program) = &wanted.entry_point else {
        let directory = store.join(out_path.base_name());
        let main = wanted.main_program.as_deref();
        return Ok(entry_point::find(out_path, &directory, main));
    };
    if !program.starts_with('/') {
        return Err(usage(format!(
            "--entry-point {program}: wanted an absolute path within the image"
        )));
    }
    Ok(EntryPoint {
        has_bin: program.starts_with(&format!("{out_path}/bin/")),
        program: Some(program.clone()),
        note: None,
    })
}

fn platform(wanted: &ImageArguments) -> Result<Platform> {
    let own = match std::env::consts::ARCH {
        "x86_64" => "linux/amd64",
        "aarch64" => "linux/arm64",
        "riscv64" => "linux/riscv64",
        other => {
            return Err(usage(format!(
                "say what the image runs on with --platform: {other} has no name that Firn knows"
            )));
        }
    };
    let text = wanted.platform.as_deref().unwrap_or(own);
    text.parse().map_err(|error| unusable("--platform", &error))
}

fn read_file(file: &Path) -> Result<Vec<u8>> {
    let failed = |error: io::Error| usage(format!("--closure {}: {error}", file.display()));
    let mut bytes = Vec::new();
    File::open(file)
        .map_err(failed)?
        .take(CLOSURE_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() as u64 > CLOSURE_MAX {
        return Err(usage(format!(
            "--closure {}: more than {CLOSURE_MAX} bytes",
            file.display()
        )));
    }
    Ok(bytes)
}

#[derive(Deserialize)]
struct Built {
    outputs: std::collections::BTreeMap<String, StorePath>,
}

async fn build(installable: &str) -> Result<StorePath> {
    let told = nix(["build", "--json", "--no-link", "--", installable], true).await?;
    let built: Vec<Built> = serde_json::from_slice(&told).map_err(|error| {
        Failure::new(
            Reason::InternalError,
            format!("nix build gave an answer that is not understood: {error}"),
        )
    })?;
    let mut outputs = built
        .into_iter()
        .next()
        .map(|b| b.outputs)
        .unwrap_or_default();
    let first = outputs.keys().next().cloned();
    let out = outputs
        .remove("out")
        .or_else(|| outputs.remove(&first.unwrap_or_default()));
    out.ok_or_else(|| usage(format!("{installable} has no output")))
}

async fn path_info(path: &StorePath) -> Result<Vec<u8>> {
    let path = path.to_string();
    let base = ["path-info", "--json", "--recursive"];
    // Since 2.33 the plain form warns and will be refused; before, the option is not known.
    let new = ["--json-format", "1", &path];
    if let Ok(told) = nix(base.iter().chain(&new), false).await {
        return Ok(told);
    }
    nix(base.iter().copied().chain([path.as_str()]), true).await
}

/// Runs the user's own Nix, in the user's environment.
async fn nix<A: AsRef<OsStr>>(
    arguments: impl IntoIterator<Item = A>,
    loud: bool,
) -> Result<Vec<u8>> {
    let shown = if loud {
        Stdio::inherit()
    } else {
        Stdio::null()
    };
    let mut command = tokio::process::Command::new("nix");
    command
        .args(["--extra-experimental-features", "nix-command flakes"])
        .args(arguments)
        .stdin(Stdio::null())
        .stderr(shown)
        .kill_on_drop(true);
    let output = command.output().await.map_err(|error| {
        usage(format!(
            "nix cannot be started: {error}: install Nix, or name a store path and give its closure with --closure"
        ))
    })?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    Err(Failure::new(
        Reason::BuildFailed,
        format!("nix ended with {}; see above", output.status),
    )
    .into())
}
