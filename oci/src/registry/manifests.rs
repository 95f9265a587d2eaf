//! Manifests and indexes by tag or digest, and the list of tags.

use std::fmt;

use http::HeaderMap;
use http::header::{ACCEPT, CONTENT_TYPE, LINK};
use reqwest::{Method, Response};

use super::blobs::{digest_in, same_bytes, same_digest};
use super::exchange::Retries;
use super::{Ask, DELETE, Error, PULL, PUSH, Registry, headers};
use crate::{Descriptor, Digest, Document, Repository, Tag, media_type};

/// What the distribution specification asks registries to take at least.
pub(super) const DOCUMENT_MAX: usize = 4 << 20;
/// What a registry calls the digest of its answer.
pub(super) const DIGEST: &str = "docker-content-digest";
/// Tags are read in pages of a thousand; a repository with more than this many pages is no image's.
const PAGES_MAX: usize = 100;

/// Names a manifest within a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ManifestName {
    /// Whatever the tag points to.
    Tag(Tag),
    /// Exactly this one.
    Digest(Digest),
}

impl fmt::Display for ManifestName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag(tag) => tag.fmt(f),
            Self::Digest(digest) => digest.fmt(f),
        }
    }
}

/// A manifest or index as the registry has it. Its bytes are what its digest says.
pub type Fetched = Document;

/// What a request to delete came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deletion {
    /// It is gone.
    Deleted,
    /// It was not there.
    Missing,
    /// The registry does not delete (such things).
    Unsupported,
}

impl Registry {
    /// Reads a manifest or index. `None`: there is none of that name, or it is not shown to us.
    ///
    /// # Errors
    /// The registry refuses or does not answer; the manifest is larger than 4 MiB or is not what
    /// its digest says.
    pub async fn get_manifest(
        &self,
        repository: &Repository,
        name: &ManifestName,
    ) -> Result<Option<Fetched>, Error> {
        let ask = self.manifest(repository, name, "read a manifest", Method::GET, PULL);
        let found = self
            .retrying(|| async {
                let response = self.attempt(&ask, &accepting, &[200, 404]).await?;
                if response.status() == 404 {
                    return Ok(None);
                }
                let media_type = content_type(&response);
                let bytes = self.read_body(&ask, response, DOCUMENT_MAX).await?;
                Ok(Some((media_type, bytes)))
            })
            .await?;
        let Some((media_type, bytes)) = found else {
            return Ok(None);
        };
        if let ManifestName::Digest(digest) = name {
            same_bytes(&ask, digest, &bytes)?;
        }
        Ok(Some(Document::new(&media_type, bytes.to_vec())))
    }

    /// What a tag points to, or whether a digest is there, without reading it. `None`: not there.
    ///
    /// # Errors
    /// The registry refuses, does not answer, or does not say the digest.
    pub async fn head_manifest(
        &self,
        repository: &Repository,
        name: &ManifestName,
    ) -> Result<Option<Descriptor>, Error> {
        let ask = self.manifest(repository, name, "look for a manifest", Method::HEAD, PULL);
        let response = self.exchange(&ask, accepting, &[200, 404]).await?;
        if response.status() == 404 {
            return Ok(None);
        }
        let size = response
            .headers()
            .get(http::header::CONTENT_LENGTH)
            .and_then(|length| length.to_str().ok()?.parse().ok());
        match (digest_in(response.headers()), size) {
            (Some(digest), Some(size)) => Ok(Some(Descriptor::new(
                &content_type(&response),
                digest,
                size,
            ))),
            // The headers are optional by the specification: read it, then.
            _ => Ok(self
                .get_manifest(repository, name)
                .await?
                .map(|found| found.descriptor)),
        }
    }

    /// Stores a manifest or index under a tag or its own digest. What it points to must be there.
    /// If it is not known whether it was carried out, the registry is asked before it is sent again.
    ///
    /// # Errors
    /// The registry refuses ([`Error::is_manifest_rejected`], [`Error::is_tag_immutable`],
    /// [`Error::is_blob_unknown`]) or does not answer.
    pub async fn put_manifest(
        &self,
        repository: &Repository,
        name: &ManifestName,
        document: &Document,
    ) -> Result<(), Error> {
        self.put_document(repository, name, document).await?;
        Ok(())
    }

    /// The same, with the answer's headers. `None`: the answer was lost, but it was carried out.
    pub(super) async fn put_document(
        &self,
        repository: &Repository,
        name: &ManifestName,
        document: &Document,
    ) -> Result<Option<HeaderMap>, Error> {
        let ask = Ask {
            of_zstd: has_zstd(&document.bytes),
            ..self.manifest(repository, name, "push a manifest", Method::PUT, PUSH)
        };
        let bytes = bytes::Bytes::from(document.bytes.clone());
        let shape = |request: reqwest::RequestBuilder| {
            request
                .header(CONTENT_TYPE, &document.descriptor.media_type)
                .body(bytes.clone())
        };
        let digest = document.descriptor.digest;
        let mut retries = Retries::new(self);
        loop {
            match self.attempt(&ask, &shape, &[200, 201, 202]).await {
                Ok(response) => {
                    same_digest(&ask, &digest, response.headers())?;
                    return Ok(Some(response.headers().clone()));
                }
                Err(error) => {
                    // A tag that may not move, and is where it shall be, is no failure either.
                    let may_be_there = error.is_ambiguous() || error.is_tag_immutable();
                    if may_be_there && self.is_at(repository, name, &digest).await {
                        return Ok(None);
                    }
                    retries.pause_after(error).await?;
                }
            }
        }
    }

    /// Whether the name points there; an error counts as no, since the answer only saves a request.
    async fn is_at(&self, repository: &Repository, name: &ManifestName, digest: &Digest) -> bool {
        let ask = self.manifest(repository, name, "look for a manifest", Method::HEAD, PULL);
        self.attempt(&ask, &accepting, &[200])
            .await
            .is_ok_and(|response| digest_in(response.headers()) == Some(*digest))
    }

    /// Removes a tag, or a manifest with all its tags.
    ///
    /// # Errors
    /// The registry refuses or does not answer.
    pub async fn delete_manifest(
        &self,
        repository: &Repository,
        name: &ManifestName,
    ) -> Result<Deletion, Error> {
        let ask = self.manifest(
            repository,
            name,
            "delete a manifest",
            Method::DELETE,
            DELETE,
        );
        // 400: distribution before 3 deletes by digest only, and calls a tag a bad digest.
        let response = self
            .exchange(&ask, |request| request, &[200, 202, 204, 400, 404, 405])
            .await?;
        Ok(match response.status().as_u16() {
            404 => Deletion::Missing,
            400 | 405 => Deletion::Unsupported,
            _ => Deletion::Deleted,
        })
    }

    /// All tags of a repository, in the registry's order.
    ///
    /// # Errors
    /// The registry refuses, does not answer, has no such repository ([`Error::is_not_found`]), or
    /// has more than 100 pages of tags.
    pub async fn tags(&self, repository: &Repository) -> Result<Vec<Tag>, Error> {
        #[derive(serde::Deserialize)]
        struct Page {
            #[serde(default)]
            tags: Option<Vec<String>>,
        }
        let mut ask = Ask::of(
            self,
            repository,
            "list tags",
            Method::GET,
            "tags/list",
            PULL,
        );
        ask.url.query_pairs_mut().append_pair("n", "1000");
        let mut tags = Vec::new();
        for _ in 0..PAGES_MAX {
            let response = self.exchange(&ask, |request| request, &[200]).await?;
            let next = response
                .headers()
                .get(LINK)
                .and_then(|link| headers::next_page(link.to_str().ok()?))
                .map(str::to_owned);
            let body = self.read_body(&ask, response, DOCUMENT_MAX).await?;
            let page: Page = serde_json::from_slice(&body)
                .map_err(|_| Error::protocol(&ask, "is no list of tags"))?;
            // What is no tag cannot be asked for either.
            tags.extend(
                page.tags
                    .unwrap_or_default()
                    .iter()
                    .filter_map(|tag| tag.parse().ok()),
            );
            match next.and_then(|next| ask.url.join(&next).ok()) {
                None => return Ok(tags),
                Some(next) if self.is_ours(&next) => ask.url = next,
                Some(_) => return Err(Error::protocol(&ask, "continues on another host")),
            }
        }
        Err(Error::protocol(&ask, "has no end after 100 pages"))
    }

    fn manifest<'a>(
        &'a self,
        repository: &'a Repository,
        name: &ManifestName,
        what: &'static str,
        method: Method,
        actions: &str,
    ) -> Ask<'a> {
        let path = format!("manifests/{name}");
        let of_manifest = method == Method::PUT;
        Ask {
            of_manifest,
            ..Ask::of(self, repository, what, method, &path, actions)
        }
    }
}

/// Whether a manifest names zstd layers: a reason for old registries to refuse it.
fn has_zstd(manifest: &[u8]) -> bool {
    let zstd = media_type::LAYER_ZSTD.as_bytes();
    manifest.windows(zstd.len()).any(|window| window == zstd)
}

/// Every kind that Firn reads, in one header: some registries see only the first line.
pub(super) fn accepting(request: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
    let kinds = [
        media_type::INDEX,
        media_type::MANIFEST,
        media_type::DOCKER_INDEX,
        media_type::DOCKER_MANIFEST,
    ];
    request.header(ACCEPT, kinds.join(", "))
}

/// Without parameters; empty if there is none.
fn content_type(response: &Response) -> String {
    response
        .headers()
        .get(CONTENT_TYPE)
        .and_then(|header| header.to_str().ok())
        .and_then(|header| header.split(';').next())
        .unwrap_or_default()
        .trim()
        .to_owned()
}
