//! Every leaf of the schema is honoured or refused.

use std::collections::BTreeSet;

use firn_crd::NixImage;
use firn_crd::output::Output;
use firn_crd::source::{GitSource, Source};
use kube::CustomResourceExt;
use serde_json::{Value, json};

use super::*;
use crate::settings::Permitted;

/// Paths of the leaves below `schema`: what holds values and no fields of its own.
fn leaves(path: &str, schema: &Value, found: &mut BTreeSet<String>) {
    // Kubernetes' own structs are handed on whole.
    let whole = ["build.affinity", "build.tolerations"].contains(&path);
    let schema = schema.get("items").unwrap_or(schema);
    match schema.get("properties").and_then(Value::as_object) {
        Some(properties) if !whole => {
            for (name, inner) in properties {
                let path = if path.is_empty() {
                    name.clone()
                } else {
                    format!("{path}.{name}")
                };
                leaves(&path, inner, found);
            }
        }
        _ => {
            found.insert(path.to_owned());
        }
    }
}

fn schema_leaves() -> BTreeSet<String> {
    let crd = serde_json::to_value(NixImage::crd()).unwrap();
    let spec = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
    let mut found = BTreeSet::new();
    leaves("", spec, &mut found);
    found
}

fn spec() -> NixImageSpec {
    let source = Source {
        git: Some(GitSource::new("https://git.example/web")),
        oci: None,
    };
    NixImageSpec::new(source, Output::new("registry.example/web"))
}

fn allowed() -> Allowed {
    Allowed {
        default_substituters: vec!["https://cache.example".into()],
        default_public_keys: vec!["cache.example-1:k".into()],
        substituters: Permitted::Only(["https://extra.example".to_owned()].into()),
        public_keys: Permitted::Any,
        plain_http_hosts: ["plain.example:5000".to_owned()].into(),
    }
}

#[test]
fn every_leaf_of_the_schema_is_honoured_or_refused() {
    let leaves = schema_leaves();
    assert!(leaves.len() > 60, "{leaves:?}");
    let honoured: BTreeSet<_> = HONOURED.iter().map(|leaf| leaf.path.to_owned()).collect();
    let refused: BTreeSet<_> = NOT_YET.iter().map(|leaf| leaf.path.to_owned()).collect();
    let partly: BTreeSet<_> = PARTLY.iter().map(|path| (*path).to_owned()).collect();
    for leaf in &leaves {
        let lists = (
            honoured.contains(leaf),
            refused.contains(leaf),
            partly.contains(leaf),
        );
        assert!(
            matches!(
                lists,
                (true, false, false) | (false, true, false) | (true, true, true)
            ),
            "{leaf}: honoured, refused, partly = {lists:?}"
        );
    }
    for path in honoured.union(&refused) {
        let known = leaves.contains(path)
            || leaves
                .iter()
                .any(|leaf| leaf.starts_with(&format!("{path}.")));
        assert!(known, "{path} is not in the schema");
    }
}

#[test]
fn the_smallest_spec_is_not_refused() {
    assert_eq!(refusal(&spec(), &allowed()), None);
}

/// The spec with one value changed.
fn with(pointer: &str, value: Value) -> NixImageSpec {
    let mut json = serde_json::to_value(spec()).unwrap();
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    let parent = json
        .pointer_mut(parent)
        .unwrap_or_else(|| panic!("{pointer}"));
    parent.as_object_mut().unwrap().insert(name.into(), value);
    serde_json::from_value(json).unwrap()
}

#[test]
fn what_is_not_supported_is_named_with_value_and_remedy() {
    let cases = [
        (
            "/source/oci",
            json!({"image": "r.example/x:1"}),
            "spec.source.oci.image",
        ),
        (
            "/flake/acceptFlakeConfig",
            json!(true),
            "spec.flake.acceptFlakeConfig: true",
        ),
        (
            "/build/isolation",
            json!("UserNamespace"),
            "spec.build.isolation: UserNamespace",
        ),
        (
            "/build/remoteBuilder",
            json!({"address": "b"}),
            "spec.build.remoteBuilder.address",
        ),
        (
            "/build/store/type",
            json!("PersistentVolumeClaim"),
            "spec.build.store.type",
        ),
        (
            "/build/store/claimName",
            json!("c"),
            "spec.build.store.claimName",
        ),
        (
            "/build/netrcSecretRef",
            json!({"name": "n"}),
            "spec.build.netrcSecretRef.name",
        ),
        (
            "/build/substituters",
            json!(["s3://x"]),
            "spec.build.substituters: \"s3://x\"",
        ),
        (
            "/cache/mode",
            json!("ReadOnly"),
            "spec.cache.mode: ReadOnly",
        ),
        (
            "/cache/repository",
            json!("r.example/c"),
            "spec.cache.repository",
        ),
        (
            "/cache/secretRef",
            json!({"name": "n"}),
            "spec.cache.secretRef.name",
        ),
        ("/signing/mode", json!("Key"), "spec.signing.mode: Key"),
        (
            "/signing/keySecretRef",
            json!({"name": "n"}),
            "spec.signing.keySecretRef.name",
        ),
        ("/signing/keyless", json!({}), "spec.signing.keyless"),
        (
            "/signing/format",
            json!("Both"),
            "spec.signing.format: Both",
        ),
        (
            "/signing/annotations",
            json!({"a": "b"}),
            "spec.signing.annotations",
        ),
        (
            "/attestations/provenance",
            json!(true),
            "spec.attestations.provenance: true",
        ),
        (
            "/attestations/sbom",
            json!("SPDX"),
            "spec.attestations.sbom: SPDX",
        ),
        (
            "/deletionPolicy",
            json!("Delete"),
            "spec.deletionPolicy: Delete",
        ),
    ];
    for (pointer, value, expected) in cases {
        let (reason, message) = refusal(&with(pointer, value), &allowed()).expect(pointer);
        assert_eq!(reason, Reason::NotSupported, "{pointer}");
        assert!(message.starts_with(expected), "{pointer}: {message}");
        assert!(message.contains("is not supported yet: "), "{message}");
    }
}

#[test]
fn trust_beyond_the_defaults_needs_permission() {
    let substituters = |url: &str| with("/build/substituters", json!([url]));
    assert_eq!(
        refusal(&substituters("https://cache.example"), &allowed()),
        None
    );
    assert_eq!(
        refusal(&substituters("https://extra.example"), &allowed()),
        None
    );
    let (reason, message) = refusal(&substituters("https://evil.example"), &allowed()).unwrap();
    assert_eq!(reason, Reason::TrustNotAllowed);
    assert!(message.contains("https://evil.example"));
    let keys = with("/build/trustedPublicKeys", json!(["x:k"]));
    assert_eq!(refusal(&keys, &allowed()), None);
    let none = Allowed {
        public_keys: Permitted::Only(BTreeSet::new()),
        ..allowed()
    };
    assert_eq!(refusal(&keys, &none).unwrap().0, Reason::TrustNotAllowed);
}

#[test]
fn plain_http_needs_permission_for_the_host() {
    let mut spec = with("/output/plainHTTP", json!(true));
    assert_eq!(
        refusal(&spec, &allowed()).unwrap().0,
        Reason::RegistryNotAllowed
    );
    spec.output.repository = "plain.example:5000/web".into();
    assert_eq!(refusal(&spec, &allowed()), None);
    spec.output.base_plain_http_hosts = vec!["plain.example:5000".into(), "other.example".into()];
    let (reason, message) = refusal(&spec, &allowed()).unwrap();
    assert_eq!(reason, Reason::RegistryNotAllowed);
    for word in ["spec.output.basePlainHTTPHosts", "other.example"] {
        assert!(message.contains(word), "{message}");
    }
    spec.output.base_plain_http_hosts.pop();
    assert_eq!(refusal(&spec, &allowed()), None);
}
