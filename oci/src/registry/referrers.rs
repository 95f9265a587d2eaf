//! What refers to a manifest (signatures, SBOMs, provenance): attaching it and listing it, with
//! the fallback tag where the registry has no referrers API.
//! <https://github.com/opencontainers/distribution-spec/blob/main/spec.md#listing-referrers>

use http::header::{CONTENT_TYPE, ETAG, HeaderValue, IF_MATCH, LINK};
use reqwest::Method;
use serde_json::Value;

use super::exchange::Retries;
use super::manifests::{DOCUMENT_MAX, accepting};
use super::{Ask, Error, ManifestName, PULL, PUSH, Registry, headers};
use crate::{Descriptor, Digest, Document, Index, Repository, media_type};

/// Rounds of read, change and write of a fallback tag: each is lost only to another writer.
const ROUNDS_MAX: usize = 8;
/// Referrers come in pages; more than this many is no list but a loop.
const PAGES_MAX: usize = 100;

/// How a referrer is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attached {
    /// The registry lists it.
    Listed,
    /// It has no list: an index under the fallback tag names it.
    Tagged,
}

/// What a referrer says of itself.
#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Referrer {
    subject: Descriptor,
    artifact_type: Option<String>,
    config: Option<Descriptor>,
    #[serde(default)]
    annotations: Option<std::collections::BTreeMap<String, String>>,
}

impl Registry {
    /// Stores a manifest that has a `subject`, by its digest, and sees to it that it is found from
    /// there. Its blobs must be there.
    ///
    /// # Errors
    /// It has no subject; the registry refuses or does not answer; the fallback tag is something
    /// else than an index, or is rewritten by others all the time.
    pub async fn attach(
        &self,
        repository: &Repository,
        document: &Document,
    ) -> Result<Attached, Error> {
        let ask = Ask::of(
            self,
            repository,
            "attach to an image",
            Method::PUT,
            "",
            PUSH,
        );
        let referrer: Referrer = serde_json::from_slice(&document.bytes)
            .map_err(|_| malformed(&ask, "the manifest to attach has no subject"))?;
        let name = ManifestName::Digest(document.descriptor.digest);
        let answer = self.put_document(repository, &name, document).await?;
        let said = match &answer {
            Some(headers) => headers.contains_key("oci-subject"),
            // The answer was lost; what the registry knows is asked for.
            None => self
                .listed(repository, &referrer.subject.digest)
                .await?
                .is_some(),
        };
        if said {
            return Ok(Attached::Listed);
        }
        let entry = described(&document.descriptor, &referrer);
        self.add_to_tag(repository, &referrer.subject.digest, entry)
            .await?;
        Ok(Attached::Tagged)
    }

    /// What refers to a manifest, of one artifact type or of all.
    ///
    /// # Errors
    /// The registry refuses or does not answer, or its list is none.
    pub async fn referrers(
        &self,
        repository: &Repository,
        subject: &Digest,
        artifact_type: Option<&str>,
    ) -> Result<Vec<Descriptor>, Error> {
        let mut all = match self.listed(repository, subject).await? {
            Some(listed) => listed,
            None => self.tagged(repository, subject).await?,
        };
        // Some registries filter, some say they do; doing it here needs neither.
        all.retain(|entry| {
            artifact_type.is_none_or(|wanted| {
                entry.extra.get("artifactType").and_then(Value::as_str) == Some(wanted)
            })
        });
        Ok(all)
    }

    /// The registry's own list. `None`: it has no such API.
    async fn listed(
        &self,
        repository: &Repository,
        subject: &Digest,
    ) -> Result<Option<Vec<Descriptor>>, Error> {
        let path = format!("referrers/{subject}");
        let mut ask = Ask::of(self, repository, "list referrers", Method::GET, &path, PULL);
        let mut all = Vec::new();
        for _ in 0..PAGES_MAX {
            // What some answer that do not know the path, besides 404.
            let good = [200, 400, 404, 405];
            let response = self.exchange(&ask, accepting, &good).await?;
            if response.status() != 200 {
                return Ok(None);
            }
            let next = response
                .headers()
                .get(LINK)
                .and_then(|link| headers::next_page(link.to_str().ok()?))
                .and_then(|next| ask.url.join(next).ok());
            let body = self.read_body(&ask, response, DOCUMENT_MAX).await?;
            let Ok(page) = Index::from_bytes(&body) else {
                // A proxy's page for everything that it does not know.
                return Ok(None);
            };
            all.extend(page.manifests);
            match next {
                None => return Ok(Some(all)),
                Some(next) if self.is_ours(&next) => ask.url = next,
                Some(_) => return Err(Error::protocol(&ask, "continues on another host")),
            }
        }
        Err(Error::protocol(&ask, "has no end after 100 pages"))
    }

    async fn tagged(
        &self,
        repository: &Repository,
        subject: &Digest,
    ) -> Result<Vec<Descriptor>, Error> {
        let read = self.read_tag(repository, &fallback_tag(subject)).await?;
        Ok(read.map(|(index, _)| index.manifests).unwrap_or_default())
    }

    /// The index under a fallback tag, with what to make the next write depend on.
    async fn read_tag(
        &self,
        repository: &Repository,
        tag: &str,
    ) -> Result<Option<(Index, Option<HeaderValue>)>, Error> {
        let path = format!("manifests/{tag}");
        let what = "read the list of referrers";
        let ask = Ask::of(self, repository, what, Method::GET, &path, PULL);
        let found = self
            .retrying(|| async {
                let response = self.attempt(&ask, &accepting, &[200, 404]).await?;
                if response.status() == 404 {
                    return Ok(None);
                }
                let state = response.headers().get(ETAG).cloned();
                let bytes = self.read_body(&ask, response, DOCUMENT_MAX).await?;
                Ok(Some((bytes, state)))
            })
            .await?;
        let Some((bytes, state)) = found else {
            return Ok(None);
        };
        let index = Index::from_bytes(&bytes)
            .ok()
            .filter(|index| index.media_type.as_deref() == Some(media_type::INDEX));
        // It is somebody's tag, and not ours to overwrite.
        let index = index
            .ok_or_else(|| malformed(&ask, "its tag for them is something else than a list"))?;
        Ok(Some((index, state)))
    }

    /// Adds an entry to the index under the fallback tag. Two writers at once: where the registry
    /// compares (If-Match), the second is told; elsewhere it is seen by reading again.
    async fn add_to_tag(
        &self,
        repository: &Repository,
        subject: &Digest,
        entry: Descriptor,
    ) -> Result<(), Error> {
        let tag = fallback_tag(subject);
        let path = format!("manifests/{tag}");
        let what = "write the list of referrers";
        let ask = Ask {
            of_manifest: true,
            ..Ask::of(self, repository, what, Method::PUT, &path, PUSH)
        };
        let mut retries = Retries::new(self);
        for round in 0..ROUNDS_MAX {
            let read = self.read_tag(repository, &tag).await?;
            let (mut index, state) = read.unwrap_or_else(|| (Index::new(Vec::new()), None));
            if index
                .manifests
                .iter()
                .any(|there| there.digest == entry.digest)
            {
                return Ok(());
            }
            index.manifests.push(entry.clone());
            let bytes = bytes::Bytes::from(index.to_bytes());
            let shape = |request: reqwest::RequestBuilder| {
                let request = request.header(CONTENT_TYPE, media_type::INDEX);
                let request = match &state {
                    Some(state) => request.header(IF_MATCH, state.clone()),
                    None => request,
                };
                request.body(bytes.clone())
            };
            match self.attempt(&ask, &shape, &[200, 201, 202, 412]).await {
                // Whatever was answered: whoever wrote at the same time may have won.
                Ok(_) => {}
                Err(error) => retries.pause_after(error).await?,
            }
            tracing::trace!(round, tag, "the list of referrers is looked at again");
        }
        Err(Error::protocol(
            &ask,
            "is always about an older list than was written",
        ))
    }
}

fn malformed(ask: &Ask<'_>, what: &str) -> Error {
    Error::Malformed {
        place: Box::new(ask.place()),
        what: what.to_owned(),
    }
}

/// What the index says of a referrer: as the registry's own list would.
fn described(descriptor: &Descriptor, referrer: &Referrer) -> Descriptor {
    let kind = referrer
        .artifact_type
        .clone()
        .or_else(|| Some(referrer.config.as_ref()?.media_type.clone()));
    let mut entry = Descriptor::new(&descriptor.media_type, descriptor.digest, descriptor.size);
    entry.annotations = referrer.annotations.clone().unwrap_or_default();
    entry
        .extra
        .extend(kind.map(|kind| ("artifactType".to_owned(), Value::String(kind))));
    entry
}

/// `sha256-<hex>`: the algorithm up to 32 characters, the rest up to 64.
/// <https://github.com/opencontainers/distribution-spec/blob/main/spec.md#referrers-tag-schema>
fn fallback_tag(subject: &Digest) -> String {
    format!("sha256-{}", subject.hex())
}
