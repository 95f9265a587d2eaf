//! Blobs that are there: presence and small contents.

use http::HeaderMap;
use http::header::RANGE;
use reqwest::Method;

use super::manifests::{DIGEST, DOCUMENT_MAX};
use super::{Ask, Error, PULL, Registry};
use crate::{Descriptor, Digest, Repository};

impl Registry {
    /// Whether the registry says that it has a blob. Cheap, and wrong after a garbage collection
    /// in registries that cache descriptors: where a false yes costs, use [`Registry::probe_blob`].
    ///
    /// # Errors
    /// The registry refuses or does not answer.
    pub async fn head_blob(&self, repository: &Repository, digest: &Digest) -> Result<bool, Error> {
        let path = format!("blobs/{digest}");
        let ask = Ask::of(
            self,
            repository,
            "look for a blob",
            Method::HEAD,
            &path,
            PULL,
        );
        let response = self.exchange(&ask, |request| request, &[200, 404]).await?;
        Ok(response.status() == 200)
    }

    /// Whether the registry has a blob: asks for its first byte, which a cache of descriptors
    /// cannot give.
    ///
    /// # Errors
    /// The registry refuses or does not answer.
    pub async fn probe_blob(
        &self,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<bool, Error> {
        let path = format!("blobs/{digest}");
        let ask = Ask::of(self, repository, "read a blob", Method::GET, &path, PULL);
        let shape = |request: reqwest::RequestBuilder| request.header(RANGE, "bytes=0-0");
        // 200: ranges are not supported; the rest of the body is not read.
        let good = [200, 206, 404, 416];
        let mut response = self.exchange(&ask, shape, &good).await?;
        if response.status() == 404 {
            return Ok(false);
        }
        // What has no first byte is the empty blob, and there.
        if *digest == Digest::of(b"") {
            return Ok(true);
        }
        // The head alone may still be a cache's; distribution opens the file for the body.
        let first = tokio::time::timeout(self.inner.limits.stall, response.chunk()).await;
        Ok(matches!(first, Ok(Ok(Some(_)))))
    }

    /// Reads a config or another small blob and compares it with its descriptor.
    ///
    /// # Errors
    /// It is missing, larger than 4 MiB, or not what its digest says.
    pub async fn read_blob(
        &self,
        repository: &Repository,
        descriptor: &Descriptor,
    ) -> Result<Vec<u8>, Error> {
        let path = format!("blobs/{}", descriptor.digest);
        let ask = Ask::of(self, repository, "read a blob", Method::GET, &path, PULL);
        let bytes = self
            .retrying(|| async {
                let response = self.attempt(&ask, &|request| request, &[200]).await?;
                self.read_body(&ask, response, DOCUMENT_MAX).await
            })
            .await?;
        same_bytes(&ask, &descriptor.digest, &bytes)?;
        Ok(bytes.to_vec())
    }
}

pub(super) fn same_bytes(ask: &Ask<'_>, expected: &Digest, bytes: &[u8]) -> Result<(), Error> {
    let actual = Digest::of(bytes);
    if actual == *expected {
        return Ok(());
    }
    Err(Error::DigestMismatch {
        place: Box::new(ask.place()),
        expected: *expected,
        actual,
    })
}

/// What the registry says it stored, if it says it.
pub(super) fn same_digest(
    ask: &Ask<'_>,
    expected: &Digest,
    headers: &HeaderMap,
) -> Result<(), Error> {
    match digest_in(headers) {
        Some(actual) if actual != *expected => Err(Error::DigestMismatch {
            place: Box::new(ask.place()),
            expected: *expected,
            actual,
        }),
        _ => Ok(()),
    }
}

pub(super) fn digest_in(headers: &HeaderMap) -> Option<Digest> {
    headers.get(DIGEST)?.to_str().ok()?.parse().ok()
}
