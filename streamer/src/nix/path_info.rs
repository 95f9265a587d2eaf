//! `nix path-info --json --recursive` in the shapes that Nix has given it over time. Pure.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::closure::PathInfo;
use crate::nar_hash::NarHash;
use crate::store_path::StorePath;

/// Why the answer cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PathInfoError {
    /// In no shape that is known.
    #[error("failed to understand nix path-info")]
    Shape(#[source] serde_json::Error),
    /// Nix does not know a path that it has just built.
    #[error("nix does not know {0}")]
    Unknown(String),
    /// No store path.
    #[error("failed to understand nix path-info")]
    Path(#[from] crate::store_path::InvalidStorePath),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Answer {
    /// Nix up to 2.18, and Lix.
    List(Vec<Listed>),
    /// `--json-format 2`, and what comes after.
    Wrapped {
        info: BTreeMap<String, Option<Entry>>,
    },
    /// Nix 2.19 and newer; with `version` and `storeDir` among the paths since 2.33.
    Map(BTreeMap<String, serde_json::Value>),
}

#[derive(Deserialize)]
struct Listed {
    path: String,
    #[serde(default = "valid")]
    valid: bool,
    #[serde(flatten)]
    entry: Option<Entry>,
}

fn valid() -> bool {
    true
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    nar_hash: NarHash,
    nar_size: u64,
    references: Vec<String>,
}

/// Reads the answer. Full paths and base names are both understood.
pub fn parse(json: &[u8]) -> Result<BTreeMap<StorePath, PathInfo>, PathInfoError> {
    let entries: Vec<(String, Option<Entry>)> =
        match serde_json::from_slice(json).map_err(PathInfoError::Shape)? {
            Answer::List(list) => list
                .into_iter()
                .map(|listed| (listed.path, listed.entry.filter(|_| listed.valid)))
                .collect(),
            Answer::Wrapped { info } => info.into_iter().collect(),
            Answer::Map(map) => map
                .into_iter()
                .filter(|(key, _)| key.starts_with('/'))
                .map(|(path, value)| {
                    let entry = serde_json::from_value(value).map_err(PathInfoError::Shape)?;
                    Ok((path, entry))
                })
                .collect::<Result<_, PathInfoError>>()?,
        };
    entries
        .into_iter()
        .map(|(path, entry)| {
            let entry = entry.ok_or_else(|| PathInfoError::Unknown(path.clone()))?;
            let references = entry.references.iter().map(|r| store_path(r));
            let info = PathInfo {
                nar_hash: entry.nar_hash,
                nar_size: entry.nar_size,
                references: references.collect::<Result<_, _>>()?,
            };
            Ok((store_path(&path)?, info))
        })
        .collect()
}

fn store_path(text: &str) -> Result<StorePath, PathInfoError> {
    let path = if text.starts_with('/') {
        text.parse()
    } else {
        StorePath::of_base_name(text)
    };
    path.map_err(PathInfoError::Path)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIB: &str = "0a1b2c3d4f5g6h7i8j9kalbmcndpfqgr-lib";
    const APP: &str = "1a1b2c3d4f5g6h7i8j9kalbmcndpfqgr-app";
    const HASH: &str = "sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";

    fn facts(prefix: &str, references: &[&str]) -> String {
        let references: Vec<String> = references
            .iter()
            .map(|r| format!("\"{prefix}{r}\""))
            .collect();
        format!(
            r#""narHash":"{HASH}","narSize":120,"references":[{}],"deriver":null,"ultimate":true"#,
            references.join(",")
        )
    }

    #[test]
    fn every_shape_gives_the_same() {
        let store = "/nix/store/";
        let (lib, app) = (facts(store, &[]), facts(store, &[LIB, APP]));
        let short = (
            facts("", &[]),
            facts("", &[LIB, APP]).replace(
                &format!("\"{HASH}\""),
                &format!(r#"{{"algorithm":"sha256","format":"sri","hash":"{HASH}"}}"#),
            ),
        );
        let shapes = [
            format!(r#"[{{"path":"{store}{LIB}",{lib}}},{{"path":"{store}{APP}",{app}}}]"#),
            format!(r#"{{"{store}{LIB}":{{{lib}}},"{store}{APP}":{{{app}}}}}"#),
            format!(
                r#"{{"{store}{LIB}":{{{lib}}},"{store}{APP}":{{{app}}},"version":1,"storeDir":"/nix/store"}}"#
            ),
            format!(
                r#"{{"info":{{"{LIB}":{{{}}},"{APP}":{{{}}}}},"storeDir":"/nix/store","version":2}}"#,
                short.0, short.1
            ),
        ];
        let first = parse(shapes[0].as_bytes()).unwrap();
        assert_eq!(first.len(), 2);
        let app = StorePath::of_base_name(APP).unwrap();
        assert_eq!(first.get(&app).unwrap().references.len(), 2);
        for shape in &shapes {
            assert_eq!(parse(shape.as_bytes()).unwrap(), first, "{shape}");
        }
    }

    #[test]
    fn an_unknown_path_is_told() {
        for shape in [
            format!(r#"[{{"path":"/nix/store/{LIB}","valid":false}}]"#),
            format!(r#"{{"/nix/store/{LIB}":null}}"#),
            format!(r#"{{"info":{{"{LIB}":null}},"version":2}}"#),
        ] {
            let error = parse(shape.as_bytes()).unwrap_err();
            assert!(
                matches!(error, PathInfoError::Unknown(_)),
                "{shape}: {error}"
            );
        }
    }
}
