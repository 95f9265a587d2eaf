//! The operator's calls to the API server: each with a time limit, each saying what it was for.
//! Writes happen here and nowhere else.

use std::fmt::Debug;
use std::time::Duration;

use k8s_openapi::NamespaceResourceScope;
use kube::api::{
    Api, DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions, PropagationPolicy,
};
use kube::{Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::Error;

/// Longest time for one call. The client retries what fails by itself, for minutes, so there must
/// be an end; and etcd answers within seconds or not at all.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// Most objects of one list that belongs to one image: far more than history keeps.
const LIST_MAX: u32 = 1000;

/// An object in a namespace that can be read from the API server.
pub trait Object:
    Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + Clone
    + Debug
    + Serialize
    + DeserializeOwned
    + Send
    + Sync
{
}

impl<K> Object for K where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + Debug
        + Serialize
        + DeserializeOwned
        + Send
        + Sync
{
}

/// What became of a create.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Created {
    /// It is new.
    New,
    /// Something of that name exists.
    Exists,
}

/// The API server.
#[derive(Clone)]
pub struct Cluster {
    client: Client,
}

impl Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster").finish_non_exhaustive()
    }
}

impl Cluster {
    /// Through this client.
    pub const fn new(client: Client) -> Self {
        Self { client }
    }

    fn api<K: Object>(&self, namespace: &str) -> Api<K> {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// The object as it is now, or nothing.
    pub async fn get<K: Object>(&self, namespace: &str, name: &str) -> Result<Option<K>, Error> {
        let api = self.api::<K>(namespace);
        call::<K, _>("get", name, api.get_opt(name)).await
    }

    /// The objects with these labels as they are now, at most 1000.
    pub async fn list<K: Object>(&self, namespace: &str, labels: &str) -> Result<Vec<K>, Error> {
        let api = self.api::<K>(namespace);
        let params = ListParams::default().labels(labels).limit(LIST_MAX);
        Ok(call::<K, _>("list", labels, api.list(&params)).await?.items)
    }

    /// The objects with these fields as they are now, at most 1000.
    pub async fn list_by_field<K: Object>(
        &self,
        namespace: &str,
        fields: &str,
    ) -> Result<Vec<K>, Error> {
        let api = self.api::<K>(namespace);
        let params = ListParams::default().fields(fields).limit(LIST_MAX);
        Ok(call::<K, _>("list", fields, api.list(&params)).await?.items)
    }

    /// The objects with these fields in one namespace or in all, at most 1000.
    pub async fn list_in<K: Object>(
        &self,
        namespace: Option<&str>,
        fields: &str,
    ) -> Result<Vec<K>, Error> {
        let api = match namespace {
            Some(namespace) => self.api::<K>(namespace),
            None => Api::all(self.client.clone()),
        };
        let params = ListParams::default().fields(fields).limit(LIST_MAX);
        Ok(call::<K, _>("list", fields, api.list(&params)).await?.items)
    }

    /// Makes an object, unless one of its name exists.
    pub async fn create<K: Object>(
        &self,
        namespace: &str,
        manager: &str,
        object: &K,
    ) -> Result<Created, Error> {
        let params = PostParams {
            field_manager: Some(manager.to_owned()),
            ..PostParams::default()
        };
        let api = self.api::<K>(namespace);
        let name = object.name_any();
        match call::<K, _>("create", &name, api.create(&params, object)).await {
            Ok(_) => Ok(Created::New),
            Err(error) if error.code() == Some(409) => Ok(Created::Exists),
            Err(error) => Err(error),
        }
    }

    /// Merges a patch into an object. `Ok` also if it is gone.
    pub async fn merge<K: Object>(
        &self,
        namespace: &str,
        name: &str,
        manager: &str,
        patch: &Value,
    ) -> Result<(), Error> {
        let params = PatchParams {
            field_manager: Some(manager.to_owned()),
            ..PatchParams::default()
        };
        let api = self.api::<K>(namespace);
        gone_is_fine(
            call::<K, _>(
                "patch",
                name,
                api.patch(name, &params, &Patch::Merge(patch)),
            )
            .await,
        )
    }

    /// Makes `status` what it says, for the fields of this manager, if the object still is what it
    /// was when `observed` was read: a status that was computed from an older one would take back
    /// what another operator wrote since, such as a result. `Ok` also if the object is gone.
    pub async fn apply_status<K: Object>(
        &self,
        observed: &K,
        manager: &str,
        status: &Value,
    ) -> Result<(), Error> {
        let name = observed.name_any();
        let meta = observed.meta();
        let patch = Patch::Apply(serde_json::json!({
            "apiVersion": K::api_version(&()),
            "kind": K::kind(&()),
            "metadata": {
                "name": name,
                "uid": meta.uid,
                "resourceVersion": meta.resource_version,
            },
            "status": status,
        }));
        let params = PatchParams::apply(manager).force();
        let api = self.api::<K>(&observed.namespace().unwrap_or_default());
        let done = api.patch_status(&name, &params, &patch);
        match call::<K, _>("apply status of", &name, done).await {
            Err(error) if error.code() == Some(409) => Err(Error::Outdated {
                kind: kind::<K>(),
                name,
            }),
            result => gone_is_fine(result),
        }
    }

    /// Deletes an object, if it still is the one with this uid. With `Foreground` it stays until
    /// what it owns is gone.
    pub async fn delete<K: Object>(
        &self,
        namespace: &str,
        name: &str,
        uid: &str,
        propagation: PropagationPolicy,
    ) -> Result<(), Error> {
        let params = DeleteParams {
            propagation_policy: Some(propagation),
            preconditions: Some(Preconditions {
                uid: Some(uid.to_owned()),
                resource_version: None,
            }),
            ..DeleteParams::default()
        };
        let api = self.api::<K>(namespace);
        match call::<K, _>("delete", name, api.delete(name, &params)).await {
            // Another object of that name, which nobody asked to delete.
            Err(error) if error.code() == Some(409) => Ok(()),
            result => gone_is_fine(result),
        }
    }
}

fn gone_is_fine<T>(result: Result<T, Error>) -> Result<(), Error> {
    match result {
        Ok(_) => Ok(()),
        Err(error) if error.code() == Some(404) => Ok(()),
        Err(error) => Err(error),
    }
}

async fn call<K: Object, T>(
    verb: &'static str,
    name: &str,
    call: impl Future<Output = kube::Result<T>>,
) -> Result<T, Error> {
    let kind = kind::<K>();
    match tokio::time::timeout(CALL_TIMEOUT, call).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(source)) => Err(Error::Call {
            verb,
            kind,
            name: name.to_owned(),
            source: Box::new(source),
        }),
        Err(_) => Err(Error::TimedOut {
            verb,
            kind,
            name: name.to_owned(),
            limit: CALL_TIMEOUT,
        }),
    }
}

/// The kind's name, for messages: kube gives it as a `Cow` that is static for every static type.
fn kind<K: Object>() -> &'static str {
    match K::kind(&()) {
        std::borrow::Cow::Borrowed(kind) => kind,
        std::borrow::Cow::Owned(_) => "object",
    }
}
