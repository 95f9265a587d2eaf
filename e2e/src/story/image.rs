//! A `NixImage` as a story writes it: the manifest of a user, changed field by field. Untyped on
//! purpose: what is applied is what a user's YAML would be, mistakes included.

use serde_json::{Value, json};

use super::World;

/// A `NixImage` manifest.
#[derive(Debug, Clone)]
pub struct Wanted(pub Value);

impl Wanted {
    /// `packages.x86_64-linux.app` of the repository at `url`, published in `repository` of the
    /// registry with TLS and password, looked at every 30 s, built anew when `flake.lock` changes.
    pub fn new(world: &World, name: &str, url: &str) -> Self {
        Self(json!({
            "apiVersion": "firn.dev/v1alpha1",
            "kind": "NixImage",
            "metadata": { "name": name, "namespace": world.namespace },
            "spec": {
                "source": { "git": {
                    "url": url,
                    "interval": "30s",
                    "caConfigMapRef": { "name": "ca" },
                }},
                "flake": { "attribute": "app" },
                "trigger": { "mode": "LockFile" },
                "output": {
                    "repository": world.repository(name),
                    "tags": ["latest"],
                    "pushSecretRef": { "name": "registry" },
                    "caConfigMapRef": { "name": "ca" },
                },
                "build": { "retries": 1 },
            },
        }))
    }

    /// With the field at `pointer` (`/spec/flake/attribute`) set; folders on the way are made.
    #[must_use]
    pub fn with(mut self, pointer: &str, value: impl Into<Value>) -> Self {
        let mut place = &mut self.0;
        for name in pointer.trim_start_matches('/').split('/') {
            if !place.is_object() {
                *place = json!({});
            }
            place = &mut place[name];
        }
        *place = value.into();
        self
    }

    /// Without the field at `pointer`.
    #[must_use]
    pub fn without(mut self, pointer: &str) -> Self {
        if let Some((parent, name)) = pointer.rsplit_once('/')
            && let Some(Value::Object(fields)) = self.0.pointer_mut(parent)
        {
            fields.remove(name);
        }
        self
    }

    /// `metadata.name`.
    pub fn name(&self) -> &str {
        self.0["metadata"]["name"].as_str().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_set_with_what_leads_to_it_and_taken_away() {
        let wanted = Wanted(json!({ "spec": { "a": 1 } })).with("/spec/b/c", "x");
        assert_eq!(wanted.0, json!({ "spec": { "a": 1, "b": { "c": "x" } } }));
        assert_eq!(wanted.without("/spec/b").0, json!({ "spec": { "a": 1 } }));
    }
}
