//! Which package of the workspace may use which: the architecture, held.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

/// What each package may use. Nothing else, not even for its tests.
const ALLOWED: [(&str, &[&str]); 5] = [
    ("firn-crd", &[]),
    ("firn-oci", &[]),
    ("firn-streamer", &["firn-crd", "firn-oci"]),
    ("firn-operator", &["firn-crd", "firn-oci"]),
    ("firn-e2e", &["firn-crd", "firn-oci", "firn-operator"]),
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

/// Packages of a lock file by name, version and checksum.
fn locked(text: &str) -> BTreeSet<(String, String, String)> {
    let field = |package: &str, name: &str| {
        let start = format!("{name} = ");
        let value = package.lines().find_map(|line| line.strip_prefix(&start));
        value.unwrap_or_default().trim_matches('"').to_owned()
    };
    text.split("[[package]]")
        .skip(1)
        .map(|package| ["name", "version", "checksum"].map(|name| field(package, name)))
        .map(|[name, version, checksum]| (name, version, checksum))
        .collect()
}

/// `fuzz/` is outside the workspace and has a lock file of its own.
#[test]
fn what_is_fuzzed_is_made_of_what_ships() {
    const ONLY_FOR_FUZZING: [&str; 3] = ["arbitrary", "firn-fuzz-targets", "libfuzzer-sys"];
    let [ships, fuzzed] = ["Cargo.lock", "fuzz/Cargo.lock"]
        .map(|file| locked(&std::fs::read_to_string(format!("../{file}")).unwrap()));
    let other: Vec<_> = fuzzed
        .difference(&ships)
        .filter(|(name, ..)| !ONLY_FOR_FUZZING.contains(&name.as_str()))
        .collect();
    assert!(
        fuzzed.len() > 100 && other.is_empty(),
        "fuzz/Cargo.lock has other versions: {other:?}; fuzz/README.md says how to mend it"
    );
    let missing: Vec<_> = ["firn-crd", "firn-oci", "firn-streamer"]
        .into_iter()
        .filter(|name| !fuzzed.iter().any(|(found, ..)| found == name))
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}
