//! The generated files are what the Rust types say. `UPDATE_EXPECT=1 cargo test -p firn-crd`
//! rewrites them; nobody edits them.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests, where a panic is the report"
)]

use expect_test::{ExpectFile, expect_file};
use serde_json::{Value as Json, json};
use serde_yaml_ng::{Mapping, Value as Yaml};

const HEADER: &str = "# Generated from the Rust types in crd/. Do not edit: UPDATE_EXPECT=1 cargo test -p firn-crd\n";

/// Keys in the order of the alphabet, whatever map `serde_json` was built with.
fn sorted(value: &Json) -> Yaml {
    match value {
        Json::Object(object) => {
            let mut keys: Vec<&String> = object.keys().collect();
            keys.sort();
            let entries = keys
                .into_iter()
                .map(|key| (Yaml::from(key.as_str()), sorted(&object[key])));
            Yaml::Mapping(entries.collect::<Mapping>())
        }
        Json::Array(items) => Yaml::Sequence(items.iter().map(sorted).collect()),
        other => serde_yaml_ng::to_value(other).unwrap(),
    }
}

fn yaml(crd: &Json) -> String {
    format!(
        "{HEADER}{}",
        serde_yaml_ng::to_string(&sorted(crd)).unwrap()
    )
}

fn name(crd: &Json) -> &str {
    crd["metadata"]["name"].as_str().unwrap()
}

fn compare(plain: bool, files: [(&str, ExpectFile); 2]) {
    let mut crds = firn_crd::schema::crds();
    assert_eq!(crds.len(), files.len());
    for (expected_name, file) in files {
        let crd = crds.iter_mut().find(|crd| name(crd) == expected_name);
        let crd = crd.unwrap_or_else(|| panic!("no CRD is called {expected_name}"));
        if !plain {
            crd["metadata"]["annotations"] = json!({"helm.sh/resource-policy": "keep"});
        }
        let text = yaml(crd);
        assert!(!text.contains("{{"), "Helm would take this for a template");
        file.assert_eq(&text);
    }
}

#[test]
fn the_manifests_are_what_the_types_say() {
    compare(
        true,
        [
            (
                "niximages.firn.dev",
                expect_file!["../../manifests/crd/firn.dev_niximages.yaml"],
            ),
            (
                "niximagebuilds.firn.dev",
                expect_file!["../../manifests/crd/firn.dev_niximagebuilds.yaml"],
            ),
        ],
    );
}

#[test]
fn the_chart_keeps_the_same_crds_when_it_is_uninstalled() {
    compare(
        false,
        [
            (
                "niximages.firn.dev",
                expect_file!["../../charts/firn-crds/templates/firn.dev_niximages.yaml"],
            ),
            (
                "niximagebuilds.firn.dev",
                expect_file!["../../charts/firn-crds/templates/firn.dev_niximagebuilds.yaml"],
            ),
        ],
    );
}
