//! Which package of the workspace may use which: the architecture, held.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

/// What each package may use. Nothing else, not even for its tests.
const ALLOWED: [(&str, &[&str]); 6] = [
    ("firn-crd", &[]),
    ("firn-oci", &[]),
    ("firn-streamer", &["firn-crd", "firn-oci"]),
    ("firn-operator", &["firn-crd", "firn-oci"]),
    ("firn-e2e", &["firn-crd", "firn-oci", "firn-operator"]),
    (
        "firn-fuzz-targets",
        &["firn-crd", "firn-oci", "firn-streamer"],
    ),
];

#[test]
fn packages_use_each_other_only_as_the_architecture_says() {
    let output = Command::new("cargo")
        .args([
            "metadata",
            "--offline",
            "--no-deps",
            "--format-version",
            "1",
        ])
        .output()
        .unwrap();
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let mut found = BTreeMap::new();
    for package in metadata["packages"].as_array().unwrap() {
        let itself = package["name"].as_str().unwrap();
        let uses: BTreeSet<&str> = package["dependencies"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|dependency| dependency["name"].as_str())
            // A package's tests may name the package again, for a feature of it.
            .filter(|name| name.starts_with("firn-") && *name != itself)
            .collect();
        found.insert(itself, uses);
    }
    assert_eq!(found.len(), ALLOWED.len(), "{found:?}");
    for (package, allowed) in ALLOWED {
        let more: Vec<_> = found[package]
            .iter()
            .filter(|name| !allowed.contains(*name))
            .collect();
        assert!(
            more.is_empty(),
            "{package} uses {more:?}, which ARCHITECTURE.md does not allow"
        );
    }
}

/// `crd` is plain data, `oci` knows neither Nix nor Kubernetes, the streamer has no Kubernetes
/// client.
#[test]
fn packages_stay_away_from_what_they_must_not_know() {
    for (package, unknown) in [
        ("firn-crd", &["tokio", "reqwest"][..]),
        ("firn-oci", &["kube", "k8s-openapi"][..]),
        ("firn-streamer", &["kube-client", "kube-runtime"][..]),
    ] {
        let output = Command::new("cargo")
            .args([
                "tree",
                "--offline",
                "--edges",
                "normal",
                "--prefix",
                "none",
                "--package",
                package,
            ])
            .output()
            .unwrap();
        let tree = String::from_utf8(output.stdout).unwrap();
        assert!(
            tree.contains(package),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        for name in unknown {
            let known = tree
                .lines()
                .any(|line| line.split(' ').next() == Some(*name));
            assert!(!known, "{package} depends on {name}");
        }
    }
}
