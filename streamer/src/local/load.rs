//! `load`: the image onto this machine, without a registry.
//!
//! A docker-archive holds uncompressed layers, whose sizes stand before them: each layer is made
//! once to measure it and once to write it. That needs no disk, and gives the same bytes twice.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;

use firn_crd::exit::Reason;
use firn_oci::layout::named;
use firn_oci::{Compression, Compressors, Layer, Layout, Metadata, Reference, TarWriter};
use serde::Serialize;

use super::arguments::LoadArguments;
use super::progress::Bars;
use super::source::{self, Registries, Source};
use super::{Result, Trouble, tell, unusable, usage};
use crate::failure::{Failure, chain};
use crate::maker::{Maker, unwritable};
use crate::push::documents;
use crate::watch::Watch;

/// Does `load`.
pub(super) async fn load(arguments: LoadArguments) -> Result<()> {
    let source = source::read(&arguments.input, &arguments.image, Registries::None).await?;
    let bars = Arc::new(Bars::new(source.sizes(), arguments.output.progress()));
    let making = Making {
        source,
        name: arguments.name.clone(),
        pool: Compressors::on_all_cores().map_err(|error| Failure::internal(&error))?,
        watch: Arc::clone(&bars) as _,
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
            let (layer, blob) = self.make(index, self.source.compression, blob)?;
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
        if !status.success() {
            return Err(usage(format!("--into containerd: ctr ended with {status}")));
        }
        loaded
    }

    /// Writes a docker-archive. Its names are sorted, so that its bytes are always the same.
    fn archive<W: Write>(&self, sink: W) -> Result<Loaded> {
        let mut layers = Vec::new();
        for index in 0..self.source.image.layers.len() {
            let (layer, _) = self.make(index, Compression::NONE, io::sink())?;
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
                    let contents = self.reader(*index)?;
                    tar.file(name, metadata, *size, contents).map_err(failed)?;
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

    fn make<W: Write>(
        &self,
        index: usize,
        compression: Compression,
        sink: W,
    ) -> Result<(Layer, W)> {
        let maker = self.maker(index, compression)?;
        let made = maker.write(sink);
        made.map_err(|error| Trouble::Failed(unwritable(&error)))
    }

    fn maker(&self, index: usize, compression: Compression) -> Result<Maker> {
        let layer = self.source.image.layers.get(index);
        let layer = layer.ok_or_else(|| usage("the image changed while it was made"))?;
        Ok(Maker {
            store: self.source.store.clone(),
            closure: Arc::clone(&self.source.closure),
            contents: layer.contents.clone(),
            streams: self.source.streams.clone(),
            compression,
            pool: self.pool.clone(),
            index,
            watch: Arc::clone(&self.watch),
        })
    }

    /// The uncompressed archive of a layer, to be read: another thread writes it. If that fails the
    /// reader ends early, which the tar writer notices.
    fn reader(&self, index: usize) -> Result<impl Read> {
        let maker = self.maker(index, Compression::NONE)?;
        let (reader, writer) = io::pipe().map_err(|error| Failure::internal(&error))?;
        thread::spawn(move || {
            if let Err(error) = maker.write(writer) {
                tracing::error!("{}", chain(&error));
            }
        });
        Ok(reader)
    }
}
