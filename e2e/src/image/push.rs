//! An image goes from its layout to a registry: layers, config, manifest, and the tag with it last.

use std::io;
use std::path::Path;
use std::sync::Arc;

use firn_oci::layout::LayoutError;
use firn_oci::registry::{ManifestName, PushError, Registry};
use firn_oci::{Descriptor, Digest, Document, Layout, Manifest, Repository, Tag};

use super::Error;

/// What was pushed.
#[derive(Debug, PartialEq, Eq)]
pub struct Pushed {
    /// The image.
    pub digest: Digest,
    /// Layers that the registry did not have.
    pub uploaded: usize,
    /// Layers that it had.
    pub reused: usize,
}

/// Pushes the one image of the layout in `folder`.
pub async fn push(
    folder: &Path,
    registry: &Registry,
    repository: &Repository,
    tag: &Tag,
) -> Result<Pushed, Error> {
    let failed = |source: LayoutError| Error::Layout {
        path: folder.to_owned(),
        source: Box::new(source),
    };
    let layout = Arc::new(Layout::open(folder).map_err(failed)?);
    let index = layout.index().map_err(failed)?;
    let [entry] = index.manifests.as_slice() else {
        return Err(Error::NotOneImage {
            path: folder.to_owned(),
            count: index.manifests.len(),
        });
    };
    let bytes = layout.read(entry).map_err(failed)?;
    let manifest = Manifest::from_bytes(&bytes).map_err(|source| Error::ParseManifest {
        path: layout.blob_path(&entry.digest),
        source: Box::new(source),
    })?;
    let mut pushed = Pushed {
        digest: entry.digest,
        uploaded: 0,
        reused: 0,
    };
    for layer in &manifest.layers {
        let there = registry.probe_blob(repository, &layer.digest).await;
        if there.map_err(refused)? {
            pushed.reused += 1;
        } else {
            push_layer(&layout, registry, repository, layer).await?;
            pushed.uploaded += 1;
        }
    }
    let config = layout.read(&manifest.config).map_err(failed)?;
    let config = Document::new(&manifest.config.media_type, config);
    registry
        .push_blob(repository, &config)
        .await
        .map_err(refused)?;
    let document = Document::new(&entry.media_type, bytes);
    let name = ManifestName::Tag(tag.clone());
    let put = registry.put_manifest(repository, &name, &document).await;
    put.map_err(refused)?;
    Ok(pushed)
}

/// Sends a layer's blob as it lies there: the registry compares it with its digest.
async fn push_layer(
    layout: &Arc<Layout>,
    registry: &Registry,
    repository: &Repository,
    layer: &Descriptor,
) -> Result<(), Error> {
    let (from, layer) = (Arc::clone(layout), layer.clone());
    let path = layout.blob_path(&layer.digest);
    let copied = registry.push_stream(repository, move |sink| {
        let mut blob = from.open_blob(&layer).map_err(io::Error::other)?;
        io::copy(&mut blob, sink)?;
        Ok((layer.clone(), ()))
    });
    copied.await.map_err(|error| match error {
        PushError::Produce(source) => Error::File {
            what: "read",
            path,
            source,
        },
        PushError::Registry(error) => refused(error),
    })
}

fn refused(source: firn_oci::registry::Error) -> Error {
    Error::Registry(Box::new(source))
}

#[cfg(test)]
mod tests {
    use firn_oci::testing::FakeRegistry;
    use firn_oci::{Compression, Compressors, History, ImageBuilder, Metadata, Platform};

    use super::*;

    fn layout(folder: &Path) -> Digest {
        let layout = Layout::create(folder).unwrap();
        let mut builder = ImageBuilder::new(Platform::linux("amd64"));
        let pool = Compressors::on_all_cores().unwrap();
        for name in [b"a", b"b"] {
            let mut tar = layout.begin_layer(Compression::GZIP, &pool).unwrap();
            tar.directory(name, Metadata::root(0o755)).unwrap();
            let layer = layout.finish_layer(tar).unwrap();
            builder = builder.layer(layer, History::default());
        }
        let built = builder.build();
        layout.put(&built.config).unwrap();
        layout.put(&built.manifest).unwrap();
        let descriptor = built.manifest.descriptor;
        layout.set_index(vec![descriptor.clone()]).unwrap();
        descriptor.digest
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_second_push_sends_no_layer_and_moves_the_tag() {
        let folder = tempfile::tempdir().unwrap();
        let digest = layout(folder.path());
        let fake = FakeRegistry::start().await.unwrap();
        let registry = fake.client().unwrap();
        let (repository, tag) = ("firn/operator".parse().unwrap(), "1".parse().unwrap());
        let expected = |uploaded, reused| Pushed {
            digest,
            uploaded,
            reused,
        };
        let first = push(folder.path(), &registry, &repository, &tag).await;
        assert_eq!(first.unwrap(), expected(2, 0));
        let second = push(folder.path(), &registry, &repository, &tag).await;
        assert_eq!(second.unwrap(), expected(0, 2));
        let name = ManifestName::Tag(tag);
        let there = registry.head_manifest(&repository, &name).await.unwrap();
        assert_eq!(there.unwrap().digest, digest);
    }

    #[tokio::test]
    async fn a_layout_without_an_image_is_refused_before_anything_is_sent() {
        let folder = tempfile::tempdir().unwrap();
        let empty = Layout::create(folder.path()).unwrap();
        empty.set_index(Vec::new()).unwrap();
        let fake = FakeRegistry::start().await.unwrap();
        let registry = fake.client().unwrap();
        let (repository, tag) = ("firn/operator".parse().unwrap(), "1".parse().unwrap());
        let error = push(folder.path(), &registry, &repository, &tag).await;
        assert!(matches!(error, Err(Error::NotOneImage { count: 0, .. })));
        assert_eq!(fake.seen(), []);
    }
}
