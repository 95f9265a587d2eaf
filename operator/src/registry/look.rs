//! One look at a registry: HEAD of the digest and of each tag, with the login and the trust that a
//! push of the same image has, read from the cluster when they are needed and kept no longer.

use std::collections::BTreeMap;
use std::time::Duration;

use firn_oci::registry::{Credentials, Error, Limits, ManifestName, Registry, RegistrySettings};
use firn_oci::{Digest, Reference, RegistryHost, Tag};
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{Api, Client};

use super::checker::Look;
use super::{Found, Query};
use crate::source::credentials::get;
use crate::source::{Kind, SourceFailure};

/// Longest time for all requests of one look: a digest and 16 tags.
const LOOK_TIMEOUT: Duration = Duration::from_secs(60);
/// Nothing is tried again within one look: the next one comes by itself.
const LIMITS: Limits = Limits {
    connect: Duration::from_secs(10),
    answer: Duration::from_secs(20),
    stall: Duration::from_secs(20),
    first_pause: Duration::from_millis(500),
    retry_budget: Duration::ZERO,
};

/// Registries, and the cluster that says how they are reached.
#[derive(Clone)]
pub(super) struct Servers {
    client: Client,
    /// PEM bundle that the operator trusts besides the system's.
    ca: Option<Vec<u8>>,
}

impl std::fmt::Debug for Servers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Servers").finish_non_exhaustive()
    }
}

impl Look for Servers {
    fn look<'a>(
        &'a self,
        namespace: &'a str,
        query: &'a Query,
    ) -> BoxFuture<'a, Result<Found, SourceFailure>> {
        Box::pin(async move {
            let look = tokio::time::timeout(LOOK_TIMEOUT, self.ask(namespace, query));
            look.await.unwrap_or_else(|_| {
                let seconds = LOOK_TIMEOUT.as_secs();
                Err(SourceFailure::new(
                    Kind::Unreachable,
                    format!(
                        "{:?} was not answered for within {seconds} s: check that the registry and \
                         the way to it are not overloaded",
                        query.repository
                    ),
                ))
            })
        })
    }
}

impl Servers {
    /// With this client of the API server, and these certificates besides the system's.
    pub(super) const fn new(client: Client, ca: Option<Vec<u8>>) -> Self {
        Self { client, ca }
    }

    async fn ask(&self, namespace: &str, query: &Query) -> Result<Found, SourceFailure> {
        // The schema admits neither; a message beats a panic.
        let invalid = |error: &dyn std::error::Error| {
            SourceFailure::new(Kind::Invalid, format!("spec.output: {error}"))
        };
        let reference: Reference = query.repository.parse().map_err(|e| invalid(&e))?;
        let digest: Digest = query.digest.parse().map_err(|e| invalid(&e))?;
        let settings = self.settings(namespace, query, reference.host).await?;
        let registry = Registry::new(settings).map_err(|e| invalid(&e))?;
        let repository = reference.repository;
        let digest = ManifestName::Digest(digest);
        let there = registry.head_manifest(&repository, &digest).await;
        let there = there.map_err(|error| failure(&query.repository, &error))?;
        let mut tags = BTreeMap::new();
        for text in &query.tags {
            let tag: Tag = text.parse().map_err(|e| invalid(&e))?;
            let tag = ManifestName::Tag(tag);
            let found = registry.head_manifest(&repository, &tag).await;
            let found = found.map_err(|error| failure(&query.repository, &error))?;
            tags.insert(text.clone(), found.map(|found| found.digest.to_string()));
        }
        Ok(Found {
            digest: there.is_some(),
            tags,
        })
    }

    async fn settings(
        &self,
        namespace: &str,
        query: &Query,
        host: RegistryHost,
    ) -> Result<RegistrySettings, SourceFailure> {
        let access = &query.access;
        let mut settings = RegistrySettings {
            plain_http: access.plain_http,
            extra_ca_pem: self.ca.iter().cloned().collect(),
            limits: LIMITS,
            ..RegistrySettings::new(host)
        };
        let missing = |what: String| SourceFailure::new(Kind::SecretMissing, what);
        if let Some(name) = &access.secret {
            let api = Api::<Secret>::namespaced(self.client.clone(), namespace);
            let found = get(
                "Secret",
                namespace,
                name,
                "output.pushSecretRef",
                api.get(name),
            );
            let data = found.await?.data.unwrap_or_default();
            let config = data.get(".dockerconfigjson").ok_or_else(|| {
                missing(format!(
                    "Secret {name:?} in namespace {namespace:?} has no key \".dockerconfigjson\" \
                     (output.pushSecretRef): it must be of the type kubernetes.io/dockerconfigjson"
                ))
            })?;
            settings.credentials = Credentials::from_docker_config(&config.0).map_err(|error| {
                missing(format!(
                    "Secret {name:?} in namespace {namespace:?} cannot be used \
                     (output.pushSecretRef): {error}"
                ))
            })?;
        }
        if let Some((name, key)) = &access.ca {
            let api = Api::<ConfigMap>::namespaced(self.client.clone(), namespace);
            let found = get(
                "ConfigMap",
                namespace,
                name,
                "output.caConfigMapRef",
                api.get(name),
            );
            let map = found.await?;
            let text = map.data.as_ref().and_then(|data| data.get(key));
            let bytes = map.binary_data.as_ref().and_then(|data| data.get(key));
            let pem = text
                .map(|text| text.as_bytes().to_vec())
                .or_else(|| bytes.map(|bytes| bytes.0.clone()));
            settings.extra_ca_pem.push(pem.ok_or_else(|| {
                missing(format!(
                    "ConfigMap {name:?} in namespace {namespace:?} has no key {key:?} \
                     (output.caConfigMapRef)"
                ))
            })?);
        }
        Ok(settings)
    }
}

/// What an answer means that is none. The registry's own words may differ each time, so that they
/// would be written each time: they go to the log only.
fn failure(repository: &str, error: &Error) -> SourceFailure {
    tracing::debug!(repository, %error, "a registry did not say what it has");
    let (kind, words) = if error.is_auth() {
        let words = "the registry refuses to say (401 or 403): see output.pushSecretRef";
        (Kind::AuthFailed, words)
    } else if error.is_rate_limited() {
        (Kind::RateLimited, "the registry asks us to wait (429)")
    } else if error.is_untrusted() {
        let words =
            "nobody trusted vouches for the registry's certificate: see output.caConfigMapRef";
        (Kind::CertificateUnknown, words)
    } else if error.is_unavailable() {
        let words = "the registry does not answer, or with an error of its own: it is asked again";
        (Kind::Unreachable, words)
    } else {
        let words = "the registry gives an answer that cannot be used: see the operator's log";
        (Kind::Invalid, words)
    };
    SourceFailure {
        retry_after: error.retry_after(),
        ..SourceFailure::new(kind, format!("{repository}: {words}"))
    }
}
