//! OCI image layouts: an image as a directory, and as one archive of it.
//! <https://github.com/opencontainers/image-spec/blob/main/image-layout.md>
//!
//! ```text
//! oci-layout            {"imageLayoutVersion":"1.0.0"}
//! index.json            what is in here, with names
//! blobs/sha256/<hex>    manifests, configs, layers
//! ```
//!
//! Blobs are written under another name and renamed when they are whole, so that a crash leaves
//! no blob whose name lies. What is read is compared with its descriptor.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::layer::{self, LayerWriter};
use crate::tar::{TarError, TarWriter};
use crate::{
    Compression, Compressors, Descriptor, Digest, Document, Index, Layer, ParseError, Reference,
};

mod archive;

/// What the file `oci-layout` says.
const VERSION: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;
/// Documents are held in memory; registries refuse larger ones (4 MiB is what the distribution
/// specification asks of them).
const DOCUMENT_MAX: u64 = 4 << 20;
/// The name `ctr images import` and the kubelet's runtime give the image.
const CONTAINERD_NAME: &str = "io.containerd.image.name";
/// The specification's own, and what skopeo calls it.
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// A layout on disk.
#[derive(Debug)]
pub struct Layout {
    root: PathBuf,
    /// Numbers the files of blobs that are being written.
    incomplete: AtomicU64,
}

/// Why a layout could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// A file or directory cannot be read or written.
    #[error("failed to {what} {path:?}")]
    File {
        /// `read`, `write`, `create`, `rename`.
        what: &'static str,
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The directory has no file `oci-layout` of a known version.
    #[error(
        "{path:?} is not an OCI layout of version 1.0.0: its file \"oci-layout\" says {says:?}"
    )]
    Version {
        /// The directory.
        path: PathBuf,
        /// What is in the file, shortened.
        says: String,
    },
    /// A document is not what its place says.
    #[error("failed to read {path:?}")]
    Document {
        /// The file.
        path: PathBuf,
        /// Why.
        source: ParseError,
    },
    /// A document is too large to be one.
    #[error("{path:?} is larger than the {DOCUMENT_MAX} bytes that a manifest or config may have")]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// A blob is not what its descriptor says.
    #[error(
        "{path:?} is damaged: expected {expected} ({expected_size} bytes), found {actual} ({actual_size} bytes)"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The descriptor's digest.
        expected: Digest,
        /// The descriptor's size.
        expected_size: u64,
        /// The file's digest.
        actual: Digest,
        /// The file's size.
        actual_size: u64,
    },
    /// A layer or an archive cannot be written.
    #[error("failed to write a layer or archive")]
    Tar(#[source] TarError),
}

impl Layout {
    /// Makes a layout in `root`, which is created if it does not exist. Blobs that are there stay.
    ///
    /// # Errors
    /// The directory cannot be written.
    pub fn create(root: &Path) -> Result<Self, LayoutError> {
        let blobs = root.join("blobs/sha256");
        fs::create_dir_all(&blobs).map_err(failed("create", &blobs))?;
        let layout = Self::at(root);
        layout.write_file("oci-layout", VERSION)?;
        Ok(layout)
    }

    /// Opens a layout that somebody made.
    ///
    /// # Errors
    /// The directory is no layout.
    pub fn open(root: &Path) -> Result<Self, LayoutError> {
        #[derive(serde::Deserialize)]
        struct Marker {
            #[serde(rename = "imageLayoutVersion")]
            version: String,
        }
        let bytes = read_document(&root.join("oci-layout"))?;
        match serde_json::from_slice::<Marker>(&bytes) {
            Ok(marker) if marker.version == "1.0.0" => Ok(Self::at(root)),
            _ => Err(LayoutError::Version {
                path: root.to_owned(),
                says: String::from_utf8_lossy(&bytes).chars().take(100).collect(),
            }),
        }
    }

    fn at(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            incomplete: AtomicU64::new(0),
        }
    }

    /// The file of a blob, whether or not it is there.
    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.root.join("blobs/sha256").join(digest.hex())
    }

    /// Starts a layer; add its entries, then call [`Layout::finish_layer`].
    ///
    /// # Errors
    /// The directory cannot be written.
    pub fn begin_layer(
        &self,
        compression: Compression,
        pool: &Compressors,
    ) -> Result<TarWriter<LayerWriter<BlobFile>>, LayoutError> {
        Ok(LayerWriter::new(compression, pool, self.begin_blob()?).into_tar())
    }

    /// Ends a layer: its blob gets its name.
    ///
    /// # Errors
    /// The directory cannot be written.
    pub fn finish_layer(
        &self,
        tar: TarWriter<LayerWriter<BlobFile>>,
    ) -> Result<Layer, LayoutError> {
        let (layer, file) = layer::finish(tar).map_err(LayoutError::Tar)?;
        self.commit(file, &layer.descriptor.digest)?;
        Ok(layer)
    }

    /// Stores a config or a manifest.
    ///
    /// # Errors
    /// The directory cannot be written.
    pub fn put(&self, document: &Document) -> Result<(), LayoutError> {
        let mut file = self.begin_blob()?;
        file.write_all(&document.bytes)
            .map_err(failed("write", &file.path))?;
        self.commit(file, &document.descriptor.digest)
    }

    /// Writes `index.json`: the entry points, named by [`named`]. What they point to must be stored
    /// before.
    ///
    /// # Errors
    /// The directory cannot be written.
    pub fn set_index(&self, manifests: Vec<Descriptor>) -> Result<(), LayoutError> {
        self.write_file("index.json", &Index::new(manifests).to_bytes())
    }

    /// Reads `index.json`.
    ///
    /// # Errors
    /// It is missing or no index.
    pub fn index(&self) -> Result<Index, LayoutError> {
        let path = self.root.join("index.json");
        let bytes = read_document(&path)?;
        Index::from_bytes(&bytes).map_err(|source| LayoutError::Document { path, source })
    }

    /// Reads a config or a manifest, and compares it with its descriptor.
    ///
    /// # Errors
    /// It is missing, larger than 4 MiB, or damaged.
    pub fn read(&self, descriptor: &Descriptor) -> Result<Vec<u8>, LayoutError> {
        let path = self.blob_path(&descriptor.digest);
        let bytes = read_document(&path)?;
        let actual = Digest::of(&bytes);
        if actual == descriptor.digest && bytes.len() as u64 == descriptor.size {
            return Ok(bytes);
        }
        Err(LayoutError::Damaged {
            path,
            expected: descriptor.digest,
            expected_size: descriptor.size,
            actual,
            actual_size: bytes.len() as u64,
        })
    }

    /// Opens a layer's blob, not compared: whoever reads it computes its digest anyway.
    ///
    /// # Errors
    /// It is missing.
    pub fn open_blob(&self, descriptor: &Descriptor) -> Result<File, LayoutError> {
        let path = self.blob_path(&descriptor.digest);
        File::open(&path).map_err(failed("read", &path))
    }

    /// Starts a blob of unknown digest; then call [`Layout::commit`].
    ///
    /// # Errors
    /// The directory cannot be written.
    pub fn begin_blob(&self) -> Result<BlobFile, LayoutError> {
        let number = self.incomplete.fetch_add(1, Ordering::Relaxed);
        // Outside of blobs/, where every name is a digest.
        let name = format!(".incomplete-{}-{number}", std::process::id());
        let path = self.root.join(name);
        // A file of this name was left by a dead process with the same number.
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .open(&path)
            .map_err(failed("create", &path))?;
        Ok(BlobFile {
            file: io::BufWriter::with_capacity(256 * 1024, file),
            path,
        })
    }

    /// Ends a blob: it gets its name.
    ///
    /// # Errors
    /// The directory cannot be written.
    pub fn commit(&self, mut blob: BlobFile, digest: &Digest) -> Result<(), LayoutError> {
        blob.file.flush().map_err(failed("write", &blob.path))?;
        let to = self.blob_path(digest);
        fs::rename(&blob.path, &to).map_err(failed("rename", &to))
    }

    /// Written beside and renamed, so that a reader never sees half of it.
    fn write_file(&self, name: &str, bytes: &[u8]) -> Result<(), LayoutError> {
        let mut blob = self.begin_blob()?;
        blob.write_all(bytes).map_err(failed("write", &blob.path))?;
        blob.file.flush().map_err(failed("write", &blob.path))?;
        let to = self.root.join(name);
        fs::rename(&blob.path, &to).map_err(failed("rename", &to))
    }
}

/// A blob that is being written. Dropped before it is committed, it disappears.
#[derive(Debug)]
pub struct BlobFile {
    file: io::BufWriter<File>,
    path: PathBuf,
}

impl Write for BlobFile {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.file.write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for BlobFile {
    fn drop(&mut self) {
        // After the rename there is nothing of this name; otherwise it is litter.
        let _ = fs::remove_file(&self.path);
    }
}

/// Gives an entry of `index.json` the name under which importers know it: `ctr images import`
/// takes the whole reference, others the tag alone.
#[must_use]
pub fn named(mut descriptor: Descriptor, reference: &Reference) -> Descriptor {
    let whole = reference.to_string();
    let short = reference
        .tag
        .as_ref()
        .map_or_else(|| whole.clone(), ToString::to_string);
    descriptor
        .annotations
        .insert(CONTAINERD_NAME.to_owned(), whole);
    descriptor.annotations.insert(REF_NAME.to_owned(), short);
    descriptor
}

fn read_document(path: &Path) -> Result<Vec<u8>, LayoutError> {
    let file = File::open(path).map_err(failed("read", path))?;
    let mut bytes = Vec::new();
    file.take(DOCUMENT_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(failed("read", path))?;
    if bytes.len() as u64 > DOCUMENT_MAX {
        return Err(LayoutError::TooLarge {
            path: path.to_owned(),
        });
    }
    Ok(bytes)
}

fn failed<'a>(what: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> LayoutError + 'a {
    move |source| LayoutError::File {
        what,
        path: path.to_owned(),
        source,
    }
}
