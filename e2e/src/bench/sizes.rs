//! What each store path takes compressed by itself: the least that a change of it can cost, and the
//! measure for layers that are planned but not made.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use anyhow::Result;
use firn_oci::{Compression, Compressors, LayerWriter, layer};

use super::{on_all_cores, tree};

/// Bytes of a layer with nothing but this path, by base name.
pub type Sizes = BTreeMap<String, u64>;

/// Compresses each of `paths` by itself with Firn's compressor.
///
/// Errors: the store cannot be read.
pub fn sizes<'a>(store: &Path, paths: impl IntoIterator<Item = &'a String>) -> Result<Sizes> {
    let paths: Vec<&String> = paths.into_iter().collect();
    let pool = Compressors::on_all_cores()?;
    let sizes = on_all_cores(&paths, |base| {
        let mut tar = LayerWriter::new(Compression::ZSTD, &pool, io::sink()).into_tar();
        tree::write(&mut tar, store, std::slice::from_ref(*base))?;
        let (layer, _) = layer::finish(tar)?;
        Ok(layer.descriptor.size)
    })?;
    Ok(paths.into_iter().cloned().zip(sizes).collect())
}

/// The sum of the sizes of `paths`.
pub fn sum<'a>(sizes: &Sizes, paths: impl IntoIterator<Item = &'a String>) -> u64 {
    paths.into_iter().filter_map(|base| sizes.get(base)).sum()
}
