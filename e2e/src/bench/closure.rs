//! A closure as `nix path-info --json --json-format 1 --recursive` tells it, and what becomes of it
//! when one of its paths changes. Pure.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result};
use firn_oci::Digest;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::graph::store_hash;

const STORE: &str = "/nix/store/";

/// A closed set of store paths by their base names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Closure {
    /// The paths.
    pub paths: BTreeMap<String, PathInfo>,
}

/// What Nix registers of one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PathInfo {
    /// `sha256-…=`.
    pub nar_hash: String,
    /// In bytes.
    pub nar_size: u64,
    /// Base names here, whole paths in JSON.
    pub references: Vec<String>,
}

impl Closure {
    /// Sum of the NAR sizes, in bytes.
    pub fn nar_size(&self) -> u64 {
        self.paths.values().map(|info| info.nar_size).sum()
    }

    /// What Nix 2.19 and newer print.
    pub fn to_json(&self) -> String {
        let whole = |base: &String| format!("{STORE}{base}");
        let paths: BTreeMap<String, serde_json::Value> = self
            .paths
            .iter()
            .map(|(base, info)| {
                let entry = json!({
                    "ca": null,
                    "deriver": null,
                    "narHash": info.nar_hash,
                    "narSize": info.nar_size,
                    "references": info.references.iter().map(whole).collect::<Vec<_>>(),
                    "registrationTime": 0,
                    "signatures": [],
                    "ultimate": true,
                });
                (whole(base), entry)
            })
            .collect();
        format!("{:#}\n", json!(paths))
    }

    /// What Nix's `exportReferencesGraph` hands a build, which is what nix2container reads.
    pub fn to_graph(&self) -> String {
        let whole = |base: &String| format!("{STORE}{base}");
        let entries: Vec<serde_json::Value> = self
            .paths
            .iter()
            .map(|(base, info)| {
                json!({
                    "path": whole(base),
                    "narHash": info.nar_hash,
                    "narSize": info.nar_size,
                    "references": info.references.iter().map(whole).collect::<Vec<_>>(),
                })
            })
            .collect();
        json!(entries).to_string()
    }

    /// Reads what [`Self::to_json`] wrote.
    ///
    /// Errors: it is something else.
    pub fn from_json(text: &str) -> Result<Self> {
        let base = |path: &str| path.strip_prefix(STORE).unwrap_or(path).to_owned();
        let read: BTreeMap<String, PathInfo> =
            serde_json::from_str(text).context("failed to read a closure")?;
        let paths = read
            .into_iter()
            .map(|(path, info)| {
                let references = info.references.iter().map(|r| base(r)).collect();
                (base(&path), PathInfo { references, ..info })
            })
            .collect();
        Ok(Self { paths })
    }

    /// `path` and all that refer to it, directly or not.
    pub fn above<'a>(&'a self, path: &'a str) -> BTreeSet<&'a str> {
        let mut found = BTreeSet::from([path]);
        loop {
            let before = found.len();
            for (base, info) in &self.paths {
                if info.references.iter().any(|r| found.contains(&**r)) {
                    found.insert(base);
                }
            }
            if found.len() == before {
                return found;
            }
        }
    }

    /// The closure after `path` was built from something else: it and all above it have new names
    /// and contents. With it, the old name of each path that is new.
    pub fn with_change(&self, path: &str) -> (Self, BTreeMap<String, String>) {
        let changed = self.above(path);
        let rename = |base: &str| match base.split_once('-') {
            Some((_, name)) if changed.contains(base) => {
                format!("{}-{name}", store_hash(&format!("{base} after {path}")))
            }
            _ => base.to_owned(),
        };
        let mut old_names = BTreeMap::new();
        let paths = self
            .paths
            .iter()
            .map(|(base, info)| {
                let mut new = info.clone();
                new.references = info.references.iter().map(|r| rename(r)).collect();
                let name = rename(base);
                if name != *base {
                    // Any other hash will do: its contents are never read.
                    new.nar_hash = Digest::of(name.as_bytes()).to_string();
                    old_names.insert(name.clone(), base.clone());
                }
                (name, new)
            })
            .collect();
        (Self { paths }, old_names)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn closure() -> Closure {
        let info = |references: &[&str]| PathInfo {
            nar_hash: "sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=".into(),
            nar_size: 7,
            references: references.iter().map(|r| (*r).to_owned()).collect(),
        };
        let paths = [
            ("a-app", info(&["b-lib", "a-app"])),
            ("b-lib", info(&["c-libc"])),
            ("c-libc", info(&[])),
            ("d-data", info(&[])),
        ];
        Closure {
            paths: paths.map(|(base, info)| (base.to_owned(), info)).into(),
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let text = closure().to_json();
        assert!(text.contains(r#""/nix/store/a-app""#), "{text}");
        assert_eq!(Closure::from_json(&text).unwrap(), closure());
    }

    #[test]
    fn a_change_reaches_all_above_it_and_nothing_else() {
        let (after, old) = closure().with_change("b-lib");
        let mut changed: Vec<&String> = old.values().collect();
        changed.sort();
        assert_eq!(changed, ["a-app", "b-lib"]);
        assert!(after.paths.contains_key("c-libc") && after.paths.contains_key("d-data"));
        assert!(!after.paths.contains_key("a-app") && !after.paths.contains_key("b-lib"));
        assert_eq!(after.nar_size(), closure().nar_size());
        for info in after.paths.values() {
            let there = |r: &String| after.paths.contains_key(r);
            assert!(info.references.iter().all(there), "{info:?}");
        }
    }
}
