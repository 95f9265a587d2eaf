//! Objects that earlier versions stored are still read, accepted and written back, and what their
//! CRDs knew is still known. `stored/vX.Y` has one set for each version; the one of the version at
//! hand follows the types until that version is released.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests, where a panic is the report"
)]

mod structural;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use expect_test::expect_file;
use firn_crd::schema::crds;
use serde::Deserialize;
use serde_json::Value;
use structural::Schemas;

/// The version whose set still follows the types.
const CURRENT: &str = "v0.1";

fn documents(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap();
    serde_yaml_ng::Deserializer::from_str(&text)
        .map(|document| Value::deserialize(document).unwrap())
        .collect()
}

/// The folders of all versions.
fn versions() -> Vec<PathBuf> {
    let stored = Path::new("tests/stored");
    let entries = fs::read_dir(stored).unwrap();
    let folders: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    assert!(!folders.is_empty());
    folders
}

fn objects(version: &Path) -> Vec<Value> {
    ["images.yaml", "builds.yaml"]
        .iter()
        .flat_map(|file| documents(&version.join(file)))
        .collect()
}

/// Every property below spec and status, with the words of its enum. Kubernetes' own affinity
/// counts as one.
fn properties(crd: &Value) -> BTreeSet<String> {
    fn walk(path: &str, schema: &Value, found: &mut BTreeSet<String>) {
        found.insert(path.to_owned());
        for word in schema["enum"].as_array().into_iter().flatten() {
            found.insert(format!("{path} = {word}"));
        }
        if path.ends_with(".affinity") {
            return;
        }
        for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
            walk(&format!("{path}.{name}"), inner, found);
        }
        if let Some(items) = schema.get("items") {
            walk(path, items, found);
        }
    }
    let mut found = BTreeSet::new();
    let kind = crd["spec"]["names"]["kind"].as_str().unwrap();
    let root = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"];
    for part in ["spec", "status"] {
        walk(&format!("{kind}.{part}"), &root[part], &mut found);
    }
    found
}

/// Every property that the object has a value for.
fn used(object: &Value) -> BTreeSet<String> {
    fn walk(path: &str, value: &Value, found: &mut BTreeSet<String>) {
        found.insert(path.to_owned());
        match value {
            Value::Object(object) => {
                for (name, inner) in object {
                    walk(&format!("{path}.{name}"), inner, found);
                }
            }
            Value::Array(items) => items.iter().for_each(|item| walk(path, item, found)),
            _ => {}
        }
    }
    let mut found = BTreeSet::new();
    walk(object["kind"].as_str().unwrap(), object, &mut found);
    found
}

#[test]
fn stored_objects_are_still_accepted_read_and_written() {
    let schemas = Schemas::lock();
    for object in versions().iter().flat_map(|version| objects(version)) {
        let name = &object["metadata"]["name"];
        assert_eq!(schemas.complaints(&object, None), [""; 0], "{name}");
        schemas.round_trip(&object);
    }
}

#[test]
fn between_them_the_stored_objects_use_every_field_of_their_version() {
    for version in versions() {
        let used: BTreeSet<String> = objects(&version).iter().flat_map(used).collect();
        for crd in documents(&version.join("crds.yaml")) {
            let known = properties(&crd);
            let fields = known.iter().filter(|field| !field.contains(" = "));
            let missing: Vec<&String> = fields.filter(|field| !used.contains(*field)).collect();
            assert!(missing.is_empty(), "{}: {missing:#?}", version.display());
        }
    }
}

#[test]
fn no_field_and_no_word_of_an_earlier_version_is_gone() {
    let known: BTreeSet<String> = crds().iter().flat_map(properties).collect();
    for version in versions() {
        for crd in documents(&version.join("crds.yaml")) {
            let gone: Vec<String> = properties(&crd).difference(&known).cloned().collect();
            assert!(gone.is_empty(), "{}: {gone:#?}", version.display());
        }
    }
}

#[test]
fn the_crds_of_this_version_are_kept() {
    let version = concat!(
        "v",
        env!("CARGO_PKG_VERSION_MAJOR"),
        ".",
        env!("CARGO_PKG_VERSION_MINOR")
    );
    assert_eq!(version, CURRENT, "a new version needs a set of its own");
    let manifests = Path::new("../manifests/crd");
    let files = ["firn.dev_niximages.yaml", "firn.dev_niximagebuilds.yaml"];
    let texts = files.map(|file| fs::read_to_string(manifests.join(file)).unwrap());
    expect_file!["stored/v0.1/crds.yaml"].assert_eq(&texts.join("---\n"));
}

#[test]
fn the_examples_of_the_documentation_are_accepted() {
    let folder = Path::new("../docs/examples");
    let schemas = Schemas::lock();
    let mut count = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        for object in documents(&path) {
            if object["apiVersion"] == "firn.dev/v1alpha1" {
                let complaints = schemas.complaints(&object, None);
                assert_eq!(complaints, [""; 0], "{}", path.display());
                count += 1;
            }
        }
    }
    assert!(count > 0);
}
