//! `load`: the image onto this machine, without a registry.
//!
//! A docker-archive holds uncompressed layers, whose sizes stand before them: each layer is made
//! once to measure it and once to write it. That needs no disk, and gives the same bytes twice.
//! Those of a base image are read from its registry, twice too; once for a layout.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;

use firn_crd::exit::Reason;
use firn_oci::layout::named;
use firn_oci::tar::TarError;
use firn_oci::{Compression, Compressors, Layer, Layout, Metadata, Reference, TarWriter};
use serde::Serialize;
use tokio::runtime::Handle;

use super::arguments::LoadArguments;
use super::base_layer::{BaseLayer, Form};
use super::progress::Bars;
use super::source::{self, BaseRegistries, Source};
use super::{Result, Trouble, tell, unusable, usage};
use crate::failure::{Failure, chain};
use crate::input::Contents;
use crate::maker::{Maker, unwritable};
use crate::push::documents;
use crate::watch::Watch;

/// Does `load`.
pub(super) async fn load(arguments: LoadArguments) -> Result<()> {
    let bases = BaseRegistries {
        access: &arguments.access,
        base: &arguments.base,
        named: None,
    };
    let source = source::read(&arguments.input, &arguments.image, bases).await?;
    let bars = Arc::new(Bars::new(source.sizes(), arguments.output.progress()));
    let making = Making {
        source,
        name: arguments.name.clone(),
        pool: Compressors::on_all_cores().map_err(|error| Failure::internal(&error))?,
        watch: Arc::clone(&bars) as _,
        runtime: Handle::current(),
    };
    let into = arguments.into.clone();
    // Everything from here on reads, compresses and writes.
    let done = tokio::task::spawn_blocking(move || making.place(&into)).await;
    bars.end();
    let loaded = done.map_err(|error| Failure::internal(&error))??;
    // An archive on standard output is the data.
    if arguments.into == "docker-archive:-" {
        return Ok(());
    }
    tell(arguments.output.json, &loaded, |out, loaded| {
        writeln!(
            out,
            "{} is in {} as {}",
            loaded.digest, arguments.into, loaded.name
        )
    })
}

/// What is there now.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Loaded {
    name: String,
    /// Of the manifest; of the config for a docker-archive, which has no manifest.
    digest: String,
}

struct Making {
    source: Source,
    name: String,
    pool: Compressors,
    watch: Arc<dyn Watch>,
    /// What registries are read on.
    runtime: Handle,
}

/// What makes a layer.
enum Origin {
    Store(Maker),
    Registry(BaseLayer),
}

impl Origin {
    fn write<W: Write>(&self, sink: W) -> crate::failure::Result<(Layer, W)> {
        match self {
            Self::Store(maker) => maker.write(sink).map_err(|error| unwritable(&error)),
            Self::Registry(layer) => layer.write(sink),
        }
    }
}

/// An entry of a docker-archive's `manifest.json`.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct ArchiveImage {
    config: String,
    repo_tags: [String; 1],
    layers: Vec<String>,
}

/// One file of a docker-archive.
enum Member<'a> {
    Bytes(&'a [u8]),
    Layer(usize, u64),
}

impl Making {
    fn place(&self, into: &str) -> Result<Loaded> {
        match into.split_once(':') {
            Some(("docker-archive", "-")) => self.archive(io::stdout().lock()),
            Some(("docker-archive", file)) => {
                let file =
                    File::create(file).map_err(|error| usage(format!("--into {into}: {error}")))?;
                self.archive(io::BufWriter::with_capacity(256 * 1024, file))
            }
            Some(("oci", directory)) => self.layout(Path::new(directory)),
            None if into == "containerd" => self.containerd(),
            _ => Err(usage(format!(
                "--into {into}: wanted docker-archive:FILE, oci:DIR or containerd"
            ))),
        }
    }

    fn layout(&self, directory: &Path) -> Result<Loaded> {
        let failed = |error| -> Trouble { unusable("--into", &error) };
        let reference: Reference = format!("localhost/{}", self.name)
            .parse()
            .map_err(|error| unusable("--name", &error))?;
        let layout = Layout::create(directory).map_err(failed)?;
        let mut layers = Vec::new();
        for index in 0..self.source.image.layers.len() {
            let blob = layout.begin_blob().map_err(failed)?;
            let origin = self.origin(index, self.source.compression, Form::Verbatim)?;
            let (layer, blob) = origin.write(blob)?;
            layout
                .commit(blob, &layer.descriptor.digest)
                .map_err(failed)?;
            layers.push(layer);
        }
        let (config, manifest) = documents(&self.source.image, layers.iter());
        layout.put(&config).map_err(failed)?;
        layout.put(&manifest).map_err(failed)?;
        let digest = manifest.descriptor.digest.to_string();
        layout
            .set_index(vec![named(manifest.descriptor, &reference)])
            .map_err(failed)?;
        Ok(Loaded {
            name: self.name.clone(),
            digest,
        })
    }

    fn containerd(&self) -> Result<Loaded> {
        let mut ctr = Command::new("ctr")
            .args(["images", "import", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .map_err(|error| usage(format!("--into containerd: ctr cannot be started: {error}")))?;
        let loaded = match ctr.stdin.take() {
            Some(stdin) => self.archive(io::BufWriter::with_capacity(256 * 1024, stdin)),
            None => Err(usage("--into containerd: ctr has no standard input")),
        };
        let status = ctr.wait().map_err(|error| Failure::internal(&error))?;
        match loaded {
            // An archive that cannot be written is what a ctr that ended looks like from here.
            Err(Trouble::Failed(failure)) if failure.reason() != Reason::InternalError => {
                Err(failure.into())
            }
            loaded if status.success() => loaded,
            _ => Err(usage(format!("--into containerd: ctr ended with {status}"))),
        }
    }

    /// Writes a docker-archive. Its names are sorted, so that its bytes are always the same.
    fn archive<W: Write>(&self, sink: W) -> Result<Loaded> {
        let mut layers = Vec::new();
        for index in 0..self.source.image.layers.len() {
            let (layer, _) = self.uncompressed(index)?.write(io::sink())?;
            layers.push(layer);
        }
        let (config, _) = documents(&self.source.image, layers.iter());
        let config_name = format!("{}.json", config.descriptor.digest.hex());
        let name = |layer: &Layer| format!("{}/layer.tar", layer.diff_id.hex());
        let manifest = serde_json::to_vec(&[ArchiveImage {
            config: config_name.clone(),
            repo_tags: [self.name.clone()],
            layers: layers.iter().map(name).collect(),
        }]);
        let manifest = manifest.map_err(|error| Failure::internal(&error))?;
        // Equal layers are one file.
        let mut members: BTreeMap<String, Member<'_>> = layers
            .iter()
            .enumerate()
            .map(|(index, layer)| (name(layer), Member::Layer(index, layer.descriptor.size)))
            .collect();
        members.insert(config_name, Member::Bytes(&config.bytes));
        members.insert("manifest.json".to_owned(), Member::Bytes(&manifest));

        let failed = |error| {
            Trouble::Failed(Failure::new(
                Reason::InternalError,
                format!("the archive could not be written: {}", chain(&error)),
            ))
        };
        let mut tar = TarWriter::new(sink);
        let metadata = Metadata::root(0o444);
        for (name, member) in &members {
            let name = name.as_bytes();
            match member {
                Member::Bytes(bytes) => tar
                    .file(name, metadata, bytes.len() as u64, *bytes)
                    .map_err(failed)?,
                Member::Layer(index, size) => {
                    let (contents, writer) = self.reader(*index)?;
                    let added = tar.file(name, metadata, *size, contents);
                    let written = writer.join();
                    match (added, written) {
                        (Ok(()), Ok(Ok(()))) => {}
                        (Err(TarError::Write(error)), _) => {
                            return Err(failed(TarError::Write(error)));
                        }
                        // It is other than when it was measured, and who wrote it says why.
                        (_, Ok(Err(failure))) => return Err(failure.into()),
                        (Err(error), _) => return Err(failed(error)),
                        (Ok(()), Err(_)) => return Err(usage("a layer could not be written")),
                    }
                }
            }
        }
        let mut sink = tar.finish().map_err(failed)?;
        sink.flush().map_err(|error| Failure::internal(&error))?;
        Ok(Loaded {
            name: self.name.clone(),
            digest: config.descriptor.digest.to_string(),
        })
    }

    /// A layer as a docker-archive has it.
    fn uncompressed(&self, index: usize) -> Result<Origin> {
        self.origin(index, Compression::NONE, Form::Uncompressed)
    }

    /// `compression` is that of layers which are made here, `form` that of layers which are not.
    fn origin(&self, index: usize, compression: Compression, form: Form) -> Result<Origin> {
        let layer = self.source.image.layers.get(index);
        let layer = layer.ok_or_else(|| usage("the image changed while it was made"))?;
        let watch = Arc::clone(&self.watch);
        if let (Contents::Remote(remote), Some(source)) = (&layer.contents, &self.source.base) {
            return Ok(Origin::Registry(BaseLayer {
                source: source.clone(),
                remote: (**remote).clone(),
                form,
                runtime: self.runtime.clone(),
                index,
                watch,
            }));
        }
        Ok(Origin::Store(Maker {
            store: self.source.store.clone(),
            closure: Arc::clone(&self.source.closure),
            contents: layer.contents.clone(),
            streams: self.source.streams.clone(),
            compression,
            pool: self.pool.clone(),
            index,
            watch,
        }))
    }

    /// The uncompressed archive of a layer, to be read: another thread writes it. If that fails the
    /// reader ends early, which the tar writer notices.
    fn reader(&self, index: usize) -> Result<(impl Read, Writer)> {
        let origin = self.uncompressed(index)?;
        let (reader, writer) = io::pipe().map_err(|error| Failure::internal(&error))?;
        let writer = thread::spawn(move || origin.write(writer).map(drop));
        Ok((reader, writer))
    }
}

/// The thread that writes a layer.
type Writer = thread::JoinHandle<crate::failure::Result<()>>;
