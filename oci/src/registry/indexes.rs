//! Publishing an index of manifests that are there.

use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use reqwest::Method;

use super::{Ask, Error, ManifestName, PUSH, Registry};
use crate::{Descriptor, Document, Index, Repository, Tag, media_type};

/// Questions at once: an index has a handful of entries.
const AT_ONCE: usize = 4;

impl Registry {
    /// Stores an index by its digest, then under each tag, in their order. Not every registry
    /// looks whether the manifests that it names are there: they are asked for first.
    ///
    /// # Errors
    /// A manifest is not there ([`Error::Malformed`]); the registry refuses or does not answer. A
    /// tag is moved only after all that it leads to is stored.
    pub async fn push_index(
        &self,
        repository: &Repository,
        index: &Index,
        tags: &[Tag],
    ) -> Result<Document, Error> {
        let media_type = index.media_type.as_deref().unwrap_or(media_type::INDEX);
        let document = Document::new(media_type, index.to_bytes());
        stream::iter(&index.manifests)
            .map(|entry| self.must_have(repository, entry))
            .buffer_unordered(AT_ONCE)
            .try_collect::<()>()
            .await?;
        let name = ManifestName::Digest(document.descriptor.digest);
        self.put_manifest(repository, &name, &document).await?;
        for tag in tags {
            let name = ManifestName::Tag(tag.clone());
            self.put_manifest(repository, &name, &document).await?;
        }
        Ok(document)
    }

    async fn must_have(&self, repository: &Repository, entry: &Descriptor) -> Result<(), Error> {
        let name = ManifestName::Digest(entry.digest);
        if self.head_manifest(repository, &name).await?.is_some() {
            return Ok(());
        }
        let ask = Ask::of(self, repository, "push an index", Method::PUT, "", PUSH);
        Err(Error::Malformed {
            place: Box::new(ask.place()),
            what: format!(
                "it names the manifest {}, which is not there: push it first",
                entry.digest
            ),
        })
    }
}
