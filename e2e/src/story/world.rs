//! The cluster as one story sees it: a namespace of its own, and the registry and git server that
//! all stories share.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, Secret, ServiceAccount};
use k8s_openapi::api::rbac::v1::RoleBinding;
use kube::api::{
    ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, LogParams, Patch,
    PatchParams, PostParams,
};
use kube::{Api, Client, ResourceExt as _};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{BUILD, SOON, Wanted};
use crate::cluster::{Cluster, Layout, Services};
use crate::debian;
use crate::fixture::{Flake, Greeting};
use crate::wait::{Seen, eventually};

const MANAGER: &str = "firn-e2e";

/// A namespace of one story.
#[derive(Clone)]
pub struct World {
    /// Talks to the API server as the cluster's administrator.
    pub client: Client,
    /// Which cluster this is.
    pub cluster: Cluster,
    /// Git server and registries.
    pub services: Services,
    /// The story's own namespace. It enforces Pod Security `restricted`.
    pub namespace: String,
    /// `ca.crt`, for programs that want a file.
    files: Arc<TempDir>,
}

impl Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("World")
            .field("namespace", &self.namespace)
            .finish_non_exhaustive()
    }
}

impl World {
    /// The fresh namespace called `namespace` with what a team has: push credentials, a git login,
    /// the CA.
    pub async fn begin(namespace: String) -> Result<Self> {
        let cluster = Cluster::from_env()?;
        let client = Client::try_from(cluster.config().await?)?;
        let services = cluster.services().clone();
        let files = Arc::new(tempfile::tempdir()?);
        std::fs::write(files.path().join("ca.crt"), &services.ca_pem)?;
        let world = Self {
            client,
            cluster,
            services,
            namespace,
            files,
        };
        world.end().await?;
        world.create_namespace().await?;
        world.create_secrets().await?;
        Ok(world)
    }

    /// Takes the namespace away and waits until it is gone.
    pub async fn end(&self) -> Result<()> {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        if namespaces.get_opt(&self.namespace).await?.is_none() {
            return Ok(());
        }
        namespaces
            .delete(&self.namespace, &DeleteParams::default())
            .await?;
        eventually("the namespace is gone", BUILD, || async {
            Ok(match namespaces.get_opt(&self.namespace).await? {
                None => Seen::Done(()),
                Some(namespace) => Seen::NotYet(format!("{:?}", namespace.status)),
            })
        })
        .await
    }

    async fn create_namespace(&self) -> Result<()> {
        let namespace = serde_json::from_value(json!({ "metadata": {
            "name": self.namespace,
            "labels": { "pod-security.kubernetes.io/enforce": "restricted", "firn-e2e": "story" },
        }}))?;
        Api::<Namespace>::all(self.client.clone())
            .create(&PostParams::default(), &namespace)
            .await?;
        let accounts = self.api::<ServiceAccount>();
        eventually(
            "the namespace has its default ServiceAccount",
            SOON,
            || async {
                Ok(match accounts.get_opt("default").await? {
                    Some(_) => Seen::Done(()),
                    None => Seen::NotYet("none".into()),
                })
            },
        )
        .await
    }

    async fn create_secrets(&self) -> Result<()> {
        let Services {
            registry_user,
            registry_password,
            git_user,
            git_password,
            ..
        } = &self.services;
        self.apply_secret(
            "registry",
            "kubernetes.io/dockerconfigjson",
            &[(
                ".dockerconfigjson",
                &self.docker_config(registry_user, registry_password),
            )],
        )
        .await?;
        self.apply_secret(
            "git",
            "Opaque",
            &[("username", git_user), ("password", git_password)],
        )
        .await?;
        let map = json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": { "name": "ca" }, "data": { "ca.crt": self.services.ca_pem },
        });
        self.api::<ConfigMap>()
            .patch("ca", &apply(), &Patch::Apply(map))
            .await?;
        // The operator reads Secrets only where somebody lets it.
        let binding = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
            "metadata": { "name": "firn-secret-reader" },
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "firn-secret-reader" },
            "subjects": [{ "kind": "ServiceAccount", "name": "firn", "namespace": "firn-system" }],
        });
        self.api::<RoleBinding>()
            .patch("firn-secret-reader", &apply(), &Patch::Apply(binding))
            .await?;
        Ok(())
    }

    /// The authority behind the certificates of git server and registry, as a file.
    pub fn ca_file(&self) -> PathBuf {
        self.files.path().join("ca.crt")
    }

    /// A `config.json` with a login for the registry, in clear: what Docker writes is base64 of
    /// the same, which a search for the password would not find.
    pub fn docker_config(&self, user: &str, password: &str) -> String {
        json!({ "auths": { &self.services.registry: { "username": user, "password": password } } })
            .to_string()
    }

    /// Makes or changes a Secret.
    pub async fn apply_secret(
        &self,
        name: &str,
        kind: &str,
        entries: &[(&str, &str)],
    ) -> Result<()> {
        let data: BTreeMap<_, _> = entries.iter().copied().collect();
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "type": kind,
            "metadata": { "name": name }, "stringData": data,
        });
        self.api::<Secret>()
            .patch(name, &apply().force(), &Patch::Apply(secret))
            .await?;
        Ok(())
    }

    /// Takes a Secret away.
    pub async fn delete_secret(&self, name: &str) -> Result<()> {
        self.api::<Secret>()
            .delete(name, &DeleteParams::default())
            .await?;
        Ok(())
    }

    /// The repository in the registry with TLS and password that this story uses for `name`.
    pub fn repository(&self, name: &str) -> String {
        format!("{}/{}/{name}", self.services.registry, self.namespace)
    }

    /// The address of a git repository of this story. `area`: `public`, `private` (asks for a
    /// password) or `nofilter` (knows no partial clones).
    pub fn git_url(&self, area: &str, name: &str) -> String {
        format!(
            "{}/{area}/{}-{name}.git",
            self.services.git_url, self.namespace
        )
    }

    /// The same address, and how to push to it.
    pub fn git_urls(&self, area: &str, name: &str) -> (String, String) {
        (self.git_url(area, name), self.git_push_url(area, name))
    }

    /// The same address with the login that pushing to it needs.
    fn git_push_url(&self, area: &str, name: &str) -> String {
        let Services {
            git_user,
            git_password,
            ..
        } = &self.services;
        self.git_url(area, name).replacen(
            "https://",
            &format!("https://{git_user}:{git_password}@"),
            1,
        )
    }

    /// Pushes the example flake and its input; gives both and the flake's commit.
    pub async fn publish_flake(&self, area: &str) -> Result<Source> {
        let greeting = Greeting::publish(
            &self.git_url("public", "greeting"),
            &self.git_push_url("public", "greeting"),
            &self.ca_file(),
            "hello from the snow",
        )
        .await?;
        let push_url = self.git_push_url(area, "flake");
        let busybox = busybox().await?;
        let (flake, commit) =
            Flake::publish(&push_url, &self.ca_file(), &greeting, &busybox).await?;
        Ok(Source {
            url: self.git_url(area, "flake"),
            flake,
            greeting,
            commit,
        })
    }

    /// `kubectl apply` of a `NixImage`.
    pub async fn apply(&self, wanted: &Wanted) -> Result<()> {
        let patch = Patch::Apply(&wanted.0);
        self.images()
            .patch(wanted.name(), &apply().force(), &patch)
            .await?;
        Ok(())
    }

    /// `kubectl annotate --overwrite` of a `NixImage`.
    pub async fn annotate(&self, image: &str, key: &str, value: &str) -> Result<()> {
        let patch = json!({ "metadata": { "annotations": { key: value } } });
        self.images()
            .patch(image, &PatchParams::default(), &Patch::Merge(patch))
            .await?;
        Ok(())
    }

    /// `kubectl delete` of a `NixImage`, in the background.
    pub async fn delete(&self, image: &str) -> Result<()> {
        self.images()
            .delete(image, &DeleteParams::default())
            .await?;
        Ok(())
    }

    /// A `NixImage` as it is.
    pub async fn image(&self, name: &str) -> Result<Value> {
        Ok(serde_json::to_value(self.images().get(name).await?)?)
    }

    /// The builds of a `NixImage`, by number.
    pub async fn builds(&self, image: &str) -> Result<Vec<Value>> {
        let list = self
            .dynamic("NixImageBuild", "niximagebuilds")
            .list(&labelled(image))
            .await?;
        let mut builds = list
            .items
            .iter()
            .map(serde_json::to_value)
            .collect::<Result<Vec<_>, _>>()?;
        builds.sort_by_key(|build| build["spec"]["number"].as_i64());
        Ok(builds)
    }

    /// The Jobs of a `NixImage`.
    pub async fn jobs(&self, image: &str) -> Result<Vec<Job>> {
        Ok(self.api::<Job>().list(&labelled(image)).await?.items)
    }

    /// The pods of a `NixImage`'s builds.
    pub async fn pods(&self, image: &str) -> Result<Vec<Pod>> {
        Ok(self.api::<Pod>().list(&labelled(image)).await?.items)
    }

    /// Waits until the present generation is published.
    pub async fn ready(&self, image: &str) -> Result<Value> {
        self.image_when(image, "it is ready", BUILD, |image| {
            image["status"]["observedGeneration"] == image["metadata"]["generation"]
                && condition(image, "Ready")["status"] == "True"
        })
        .await
    }

    /// Waits until the image is ready from another build than `than`, a build's name.
    pub async fn ready_again(&self, image: &str, than: &str) -> Result<Value> {
        self.image_when(
            image,
            &format!("it is ready from a build after {than}"),
            BUILD,
            |image| {
                let build = &image["status"]["latestBuildRef"]["name"];
                build.is_string() && build != than && condition(image, "Ready")["status"] == "True"
            },
        )
        .await
    }

    /// Waits until `Ready` is `False` for `reason`.
    pub async fn not_ready(&self, image: &str, reason: &str) -> Result<Value> {
        self.image_when(
            image,
            &format!("it is not ready for {reason}"),
            BUILD,
            |image| {
                let ready = condition(image, "Ready");
                ready["status"] == "False" && ready["reason"] == reason
            },
        )
        .await
    }

    /// Waits until a `NixImage` is as `holds` says.
    pub async fn image_when(
        &self,
        name: &str,
        what: &str,
        deadline: Duration,
        holds: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        eventually(&format!("NixImage {name}: {what}"), deadline, || async {
            let image = self.image(name).await?;
            Ok(if holds(&image) {
                Seen::Done(image)
            } else {
                Seen::NotYet(brief(&image))
            })
        })
        .await
    }

    /// Runs an image as a Pod, pulled by the node; gives what it printed.
    pub async fn run(&self, name: &str, image: &str) -> Result<String> {
        let user = json!({ "runAsUser": 1000, "readOnlyRootFilesystem": true });
        self.run_with(name, image, &user).await
    }

    /// As [`Self::run`], as the user that the image says, on a root that can be written to.
    pub async fn run_as_it_is(&self, name: &str, image: &str) -> Result<String> {
        self.run_with(name, image, &json!({})).await
    }

    async fn run_with(&self, name: &str, image: &str, more: &Value) -> Result<String> {
        let mut security = json!({
            "runAsNonRoot": true,
            "allowPrivilegeEscalation": false,
            "capabilities": { "drop": ["ALL"] },
            "seccompProfile": { "type": "RuntimeDefault" },
        });
        if let (Some(all), Some(more)) = (security.as_object_mut(), more.as_object()) {
            all.extend(more.clone());
        }
        let pod = serde_json::from_value(json!({
            "metadata": { "name": name },
            "spec": {
                "restartPolicy": "Never",
                "automountServiceAccountToken": false,
                "imagePullSecrets": [{ "name": "registry" }],
                "containers": [{ "name": "main", "image": image, "securityContext": security }],
            },
        }))?;
        self.run_pod(pod).await
    }

    /// Runs a Pod to its end; gives what its main container printed.
    pub async fn run_pod(&self, pod: Pod) -> Result<String> {
        let pods = self.api::<Pod>();
        let name = &pod.name_any();
        pods.create(&PostParams::default(), &pod).await?;
        let phase = eventually(&format!("Pod {name} has ended"), BUILD, || async {
            let status = pods.get(name).await?.status.unwrap_or_default();
            Ok(match status.phase.as_deref() {
                Some(phase @ ("Succeeded" | "Failed")) => Seen::Done(phase.to_owned()),
                _ => Seen::NotYet(format!("{:?}", status.container_statuses)),
            })
        })
        .await?;
        let printed = pods
            .logs(name, &LogParams::default())
            .await
            .unwrap_or_default();
        ensure!(
            phase == "Succeeded",
            "Pod {name} ended as {phase}: {printed}"
        );
        Ok(printed)
    }

    /// Objects of a kind in this namespace.
    pub fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
            + Clone
            + Debug
            + DeserializeOwned,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// `NixImage`s of this namespace, as a user's tools see them.
    pub fn images(&self) -> Api<DynamicObject> {
        self.dynamic("NixImage", "niximages")
    }

    /// Objects of one of Firn's kinds in this namespace, untyped: as stored, mistakes included.
    pub fn dynamic(&self, kind: &str, plural: &str) -> Api<DynamicObject> {
        let kind = GroupVersionKind::gvk("firn.dev", "v1alpha1", kind);
        let resource = ApiResource::from_gvk_with_plural(&kind, plural);
        Api::namespaced_with(self.client.clone(), &self.namespace, &resource)
    }
}

/// The static busybox of Debian's package.
async fn busybox() -> Result<PathBuf> {
    let cache = Layout::from_env()?.cache;
    let tree = tokio::task::spawn_blocking(move || -> Result<_> {
        Ok(debian::tree(&debian::LOCK.parse()?, &cache)?)
    });
    Ok(tree.await??.root.join("usr/bin/busybox"))
}

/// A flake in a git repository.
#[derive(Debug)]
pub struct Source {
    /// Its address.
    pub url: String,
    /// The flake.
    pub flake: Flake,
    /// Its input.
    pub greeting: Greeting,
    /// The flake's first commit.
    pub commit: String,
}

/// The condition of a type; null if there is none.
pub fn condition<'a>(object: &'a Value, kind: &str) -> &'a Value {
    object["status"]["conditions"]
        .as_array()
        .and_then(|conditions| {
            conditions
                .iter()
                .find(|condition| condition["type"] == kind)
        })
        .unwrap_or(&Value::Null)
}

/// Conditions in one line, for messages.
pub fn brief(object: &Value) -> String {
    let conditions = object["status"]["conditions"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let mut parts: Vec<String> = conditions
        .iter()
        .map(|c| {
            format!(
                "{}={} {}: {}",
                c["type"], c["status"], c["reason"], c["message"]
            )
        })
        .collect();
    parts.push(format!(
        "generation {} observed {}",
        object["metadata"]["generation"], object["status"]["observedGeneration"]
    ));
    parts.join("; ")
}

fn apply() -> PatchParams {
    PatchParams::apply(MANAGER)
}

fn labelled(image: &str) -> ListParams {
    ListParams::default().labels(&format!("{}={image}", firn_crd::names::LABEL_IMAGE))
}

/// Names of objects, for messages.
pub fn names<K: kube::ResourceExt>(objects: &[K]) -> Vec<String> {
    objects.iter().map(kube::ResourceExt::name_any).collect()
}
