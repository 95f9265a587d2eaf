//! The registry as somebody sees it who knows nothing of Firn: its own API, its own log, and a
//! validator not written here.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::Api;
use kube::api::{ListParams, LogParams};
use reqwest::{Client, Method, RequestBuilder, StatusCode};
use serde_json::Value;

use crate::cluster::{Services, services};
use crate::story::World;

const MANIFEST: &str =
    "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json";

/// The registry with TLS and password.
#[derive(Debug)]
pub struct Registry {
    client: Client,
    services: Services,
}

/// What the registry took, by its own log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    /// Blobs whose upload was finished.
    pub count: i64,
    /// Their sizes together, in bytes.
    pub bytes: i64,
}

impl Registry {
    /// A client that trusts the registry's authority.
    pub fn new(world: &World) -> Result<Self> {
        let ca = reqwest::Certificate::from_pem(world.services.ca_pem.as_bytes())?;
        let client = Client::builder().tls_certs_merge([ca]).build()?;
        Ok(Self {
            client,
            services: world.services.clone(),
        })
    }

    /// The digest a tag is at; `None`: there is no such tag.
    pub async fn digest(&self, repository: &str, tag: &str) -> Result<Option<String>> {
        let response = self
            .request(Method::HEAD, repository, &format!("manifests/{tag}"))?
            .send()
            .await?;
        if response.status() == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        let response = response.error_for_status()?;
        let digest = response
            .headers()
            .get("docker-content-digest")
            .context("no digest in the answer")?;
        Ok(Some(digest.to_str()?.to_owned()))
    }

    /// The config of a tagged image.
    pub async fn config(&self, repository: &str, tag: &str) -> Result<Value> {
        let manifest = self.get(repository, &format!("manifests/{tag}")).await?;
        let digest = manifest["config"]["digest"]
            .as_str()
            .context("the manifest has no config")?;
        self.get(repository, &format!("blobs/{digest}")).await
    }

    /// A manifest or index.
    pub async fn manifest(&self, repository: &str, name: &str) -> Result<Value> {
        self.get(repository, &format!("manifests/{name}")).await
    }

    /// Points a tag to a manifest that is there, as anybody may who has the password.
    pub async fn point(&self, repository: &str, tag: &str, name: &str) -> Result<()> {
        let path = format!("manifests/{name}");
        let answer = self.request(Method::GET, repository, &path)?.send().await?;
        let answer = answer.error_for_status()?;
        let kind = answer.headers().get("content-type").cloned();
        let kind = kind.context("a manifest without a type")?;
        let bytes = answer.bytes().await?;
        let put = self.request(Method::PUT, repository, &format!("manifests/{tag}"))?;
        let put = put.header("content-type", kind).body(bytes);
        put.send().await?.error_for_status()?;
        Ok(())
    }

    /// Removes a manifest with all its tags.
    pub async fn remove(&self, repository: &str, digest: &str) -> Result<()> {
        let path = format!("manifests/{digest}");
        let delete = self.request(Method::DELETE, repository, &path)?;
        delete.send().await?.error_for_status()?;
        Ok(())
    }

    /// All tags of a repository, sorted.
    pub async fn tags(&self, repository: &str) -> Result<Vec<String>> {
        let list = self.get(repository, "tags/list").await?;
        let mut tags: Vec<String> = serde_json::from_value(list["tags"].clone())?;
        tags.sort();
        Ok(tags)
    }

    /// How often the registry's log says that something was stored under a tag.
    pub async fn manifests_stored(&self, world: &World, name: &str, tag: &str) -> Result<usize> {
        let path = format!("\"PUT /v2/{}/{name}/manifests/{tag} ", world.namespace);
        let log = log(world).await?;
        let stored = |line: &&str| line.contains(&path) && line.contains("\" 201 ");
        Ok(log.lines().filter(stored).count())
    }

    /// The blobs that the registry's log says it took into `name`'s repository.
    pub async fn blobs_taken(&self, world: &World, name: &str) -> Result<Taken> {
        let log = log(world).await?;
        let digests = finished_uploads(&log, &format!("{}/{name}", world.namespace));
        let mut taken = Taken { count: 0, bytes: 0 };
        for digest in digests {
            let path = format!("blobs/{digest}");
            let answer = self
                .request(Method::HEAD, &world.repository(name), &path)?
                .send()
                .await?;
            let length = answer
                .error_for_status()?
                .headers()
                .get("content-length")
                .cloned();
            taken.count += 1;
            taken.bytes += length
                .context("a blob without a length")?
                .to_str()?
                .parse::<i64>()?;
        }
        Ok(taken)
    }

    async fn get(&self, repository: &str, path: &str) -> Result<Value> {
        let answer = self
            .request(Method::GET, repository, path)?
            .send()
            .await?
            .error_for_status()?;
        Ok(answer.json().await?)
    }

    fn request(&self, method: Method, repository: &str, path: &str) -> Result<RequestBuilder> {
        let name = repository
            .strip_prefix(&format!("{}/", self.services.registry))
            .with_context(|| format!("{repository} is not in {}", self.services.registry))?;
        let url = format!("https://{}/v2/{name}/{path}", self.services.registry);
        Ok(self
            .client
            .request(method, url)
            .header("accept", MANIFEST)
            .basic_auth(
                &self.services.registry_user,
                Some(&self.services.registry_password),
            ))
    }
}

/// The registry's own log, since the story has its namespace: another one may have told the same
/// story before.
async fn log(world: &World) -> Result<String> {
    let namespaces: Api<Namespace> = Api::all(world.client.clone());
    let namespace = namespaces.get(&world.namespace).await?;
    let begun = namespace.metadata.creation_timestamp.map(|time| time.0);
    let pods: Api<Pod> = Api::namespaced(world.client.clone(), services::NAMESPACE);
    let list = pods
        .list(&ListParams::default().labels("app=registry"))
        .await?;
    let pod = list
        .items
        .first()
        .and_then(|pod| pod.metadata.name.clone())
        .context("no registry")?;
    let parameters = LogParams {
        since_time: begun,
        ..LogParams::default()
    };
    Ok(pods.logs(&pod, &parameters).await?)
}

/// The digests of uploads into `repository` that the access log says were finished: a `PUT` of
/// `/v2/<repository>/blobs/uploads/…?digest=…` answered 201.
fn finished_uploads(log: &str, repository: &str) -> BTreeSet<String> {
    let begin = format!("\"PUT /v2/{repository}/blobs/uploads/");
    log.lines()
        .filter_map(|line| line.split_once(&begin))
        .filter(|(_, rest)| rest.contains("\" 201 "))
        .filter_map(|(_, rest)| {
            rest.split(['?', '&', ' '])
                .find_map(|part| part.strip_prefix("digest="))
        })
        .map(|digest| digest.replace("%3A", ":"))
        .collect()
}

/// Lets crane read the whole image and check every digest, size and diffID of it.
pub async fn validate(world: &World, image: &str) -> Result<()> {
    let home = tempfile::tempdir()?;
    let Services {
        registry_user,
        registry_password,
        ..
    } = &world.services;
    let login = world.docker_config(registry_user, registry_password);
    std::fs::write(home.path().join("config.json"), login)?;
    let output = tokio::process::Command::from(world.cluster.command("crane"))
        .args(["validate", "--remote", image])
        .env("DOCKER_CONFIG", home.path())
        .env("SSL_CERT_FILE", world.ca_file())
        .kill_on_drop(true)
        .output()
        .await
        .context("failed to run crane")?;
    ensure!(
        output.status.success(),
        "crane: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_finished_uploads_of_the_repository_count() {
        let log = "\
10.0.0.1 - firn [24/Nov/2026] \"PATCH /v2/a/web/blobs/uploads/1?_state=x HTTP/1.1\" 202 0\n\
10.0.0.1 - firn [24/Nov/2026] \"PUT /v2/a/web/blobs/uploads/1?_state=x&digest=sha256%3Aaa HTTP/1.1\" 201 0\n\
10.0.0.1 - firn [24/Nov/2026] \"PUT /v2/a/web/blobs/uploads/2?digest=sha256:bb HTTP/1.1\" 400 0\n\
10.0.0.1 - firn [24/Nov/2026] \"PUT /v2/b/web/blobs/uploads/3?digest=sha256:cc HTTP/1.1\" 201 0\n";
        assert_eq!(
            finished_uploads(log, "a/web"),
            BTreeSet::from(["sha256:aa".to_owned()])
        );
    }
}
