//! The floor: what any tool has to do for a new image, and nothing else. A sorted tar of each
//! layer, its SHA-256, Firn's compressor, the blob's SHA-256, on all cores; then a plain upload of
//! the blobs, as many at once as there are cores. No NAR hash is checked, no manifest is made.

use std::path::Path;

use anyhow::{Context as _, Result};
use firn_oci::{Compression, Compressors, Layer, LayerWriter, layer};
use futures::{TryStreamExt as _, stream};
use reqwest::Client;

use super::{cores, on_all_cores, tree};

/// A layer's blob in memory.
pub struct Blob {
    /// Digests and sizes.
    pub layer: Layer,
    bytes: Vec<u8>,
}

impl std::fmt::Debug for Blob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Blob").field(&self.layer).finish()
    }
}

/// Makes the blobs of `layers`, the largest first so that no core waits long for another.
///
/// Errors: the store cannot be read.
pub fn make(store: &Path, layers: &[Vec<String>]) -> Result<Vec<Blob>> {
    let pool = Compressors::on_all_cores()?;
    let mut by_size = Vec::new();
    for paths in layers {
        let sizes = paths.iter().map(|base| size(&store.join(base)));
        by_size.push((sizes.sum::<std::io::Result<u64>>()?, paths));
    }
    by_size.sort_by(|a, b| b.cmp(a));
    on_all_cores(&by_size, |(_, paths)| {
        let mut tar = LayerWriter::new(Compression::ZSTD, &pool, Vec::new()).into_tar();
        tree::write(&mut tar, store, paths)?;
        let (layer, bytes) = layer::finish(tar)?;
        Ok(Blob { layer, bytes })
    })
}

/// Bytes of all files below `path`.
fn size(path: &Path) -> std::io::Result<u64> {
    let metadata = path.symlink_metadata()?;
    if !metadata.is_dir() {
        return Ok(metadata.len());
    }
    path.read_dir()?.map(|entry| size(&entry?.path())).sum()
}

/// Uploads the blobs to `repository`, a URL such as `http://127.0.0.1:5000/v2/floor`.
///
/// Errors: the registry refuses.
pub async fn upload(blobs: Vec<Blob>, repository: &str) -> Result<()> {
    let client = Client::builder().no_proxy().build()?;
    let client = &client;
    stream::iter(blobs.into_iter().map(Ok))
        .try_for_each_concurrent(cores(), |blob: Blob| async move {
            let begun = client
                .post(format!("{repository}/blobs/uploads/"))
                .send()
                .await?
                .error_for_status()?;
            let location = begun
                .headers()
                .get("location")
                .context("an upload without a location")?
                .to_str()?;
            let mut url = begun.url().join(location)?;
            let digest = blob.layer.descriptor.digest.to_string();
            url.query_pairs_mut().append_pair("digest", &digest);
            client
                .put(url)
                .header("content-type", "application/octet-stream")
                .body(blob.bytes)
                .send()
                .await?
                .error_for_status()?;
            anyhow::Ok(())
        })
        .await
}
