//! A layout as one tar archive, as `ctr images import` and `skopeo copy oci-archive:` take it.

use std::collections::BTreeMap;
use std::io::Write;

use super::{Layout, LayoutError};
use crate::{Descriptor, Digest, Index, Manifest, Metadata, TarWriter, media_type};

/// Indexes within indexes: more than two levels do not occur, and a circle cannot be written down.
const DEPTH_MAX: usize = 8;

impl Layout {
    /// Writes the layout as an archive: what `index.json` reaches and nothing else, in one order
    /// and with constant metadata. The sink is not flushed.
    ///
    /// # Errors
    /// Something that the index reaches is missing or damaged, or the sink cannot be written.
    pub fn write_archive<W: Write>(&self, sink: W) -> Result<W, LayoutError> {
        let index = self.index()?;
        let mut blobs = BTreeMap::new();
        for entry in &index.manifests {
            self.reach(entry, &mut blobs, DEPTH_MAX)?;
        }
        let mut tar = TarWriter::new(sink);
        self.write_entries(&mut tar, &index, &blobs)?;
        tar.finish().map_err(LayoutError::Tar)
    }

    fn write_entries<W: Write>(
        &self,
        tar: &mut TarWriter<W>,
        index: &Index,
        blobs: &BTreeMap<Digest, Descriptor>,
    ) -> Result<(), LayoutError> {
        let (directory, file) = (Metadata::root(0o755), Metadata::root(0o644));
        let failed = LayoutError::Tar;
        tar.directory(b"blobs", directory).map_err(failed)?;
        tar.directory(b"blobs/sha256", directory).map_err(failed)?;
        for (digest, descriptor) in blobs {
            let name = format!("blobs/sha256/{}", digest.hex());
            let blob = self.open_blob(descriptor)?;
            tar.file(name.as_bytes(), file, descriptor.size, blob)
                .map_err(failed)?;
        }
        for (name, bytes) in [
            ("index.json", index.to_bytes().as_slice()),
            ("oci-layout", super::VERSION),
        ] {
            tar.file(name.as_bytes(), file, bytes.len() as u64, bytes)
                .map_err(failed)?;
        }
        Ok(())
    }

    fn reach(
        &self,
        entry: &Descriptor,
        blobs: &mut BTreeMap<Digest, Descriptor>,
        depth: usize,
    ) -> Result<(), LayoutError> {
        let document = |source| LayoutError::Document {
            path: self.blob_path(&entry.digest),
            source,
        };
        if blobs.insert(entry.digest, entry.clone()).is_some() || depth == 0 {
            return Ok(());
        }
        if media_type::is_index(&entry.media_type) {
            let index = Index::from_bytes(&self.read(entry)?).map_err(document)?;
            for inner in &index.manifests {
                self.reach(inner, blobs, depth - 1)?;
            }
        } else if media_type::is_manifest(&entry.media_type) {
            let manifest = Manifest::from_bytes(&self.read(entry)?).map_err(document)?;
            for blob in manifest.layers.into_iter().chain([manifest.config]) {
                blobs.insert(blob.digest, blob);
            }
        }
        Ok(())
    }
}
