//! The platform an image is for, in Go's words: `linux/amd64`, `linux/arm64/v8`.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Operating system, architecture and variant. Other fields (`os.version`, `os.features`) are kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    /// `GOARCH`: `amd64`, `arm64`.
    pub architecture: String,
    /// `GOOS`: `linux`.
    pub os: String,
    /// CPU variant: `v8`. `None`: the architecture's usual one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// Fields this crate has no use for.
    #[serde(flatten)]
    pub extra: BTreeMap<String, Value>,
}

impl Platform {
    /// A platform of Linux without a variant.
    pub fn linux(architecture: &str) -> Self {
        Self {
            architecture: architecture.to_owned(),
            os: "linux".to_owned(),
            variant: None,
            extra: BTreeMap::new(),
        }
    }

    /// Whether an image for `self` runs where `wanted` is asked for. `arm64` and `arm64/v8` are
    /// the same thing; so are an empty and a missing variant.
    pub fn matches(&self, wanted: &Self) -> bool {
        self.os == wanted.os
            && self.architecture == wanted.architecture
            && self.usual_variant() == wanted.usual_variant()
    }

    /// The same platform by its usual name: without the variant that everybody means.
    #[must_use]
    pub fn usual(&self) -> Self {
        Self {
            variant: self.usual_variant().map(str::to_owned),
            ..self.clone()
        }
    }

    fn usual_variant(&self) -> Option<&str> {
        match (self.architecture.as_str(), self.variant.as_deref()) {
            ("arm64", Some("v8")) | (_, Some("")) => None,
            (_, variant) => variant,
        }
    }
}

/// Text that is no platform.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("platform {0:?} is not of the form \"os/architecture\" or \"os/architecture/variant\"")]
pub struct PlatformError(String);

impl FromStr for Platform {
    type Err = PlatformError;

    fn from_str(text: &str) -> Result<Self, PlatformError> {
        let parts: Vec<&str> = text.split('/').collect();
        let word = |part: &&str| {
            !part.is_empty()
                && part
                    .bytes()
                    .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
        };
        match parts.as_slice() {
            [os, architecture, variant @ ..] if variant.len() <= 1 && parts.iter().all(word) => {
                Ok(Self {
                    architecture: (*architecture).to_owned(),
                    os: (*os).to_owned(),
                    variant: variant.first().map(|variant| (*variant).to_owned()),
                    extra: BTreeMap::new(),
                })
            }
            _ => Err(PlatformError(text.chars().take(80).collect())),
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match self.variant.as_deref() {
            None | Some("") => Ok(()),
            Some(variant) => write!(f, "/{variant}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trips() {
        for text in ["linux/amd64", "linux/arm64/v8", "linux/riscv64"] {
            assert_eq!(text.parse::<Platform>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "linux",
            "linux/",
            "/amd64",
            "linux/arm/v7/x",
            "Linux/amd64",
        ] {
            assert!(text.parse::<Platform>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn arm64_is_arm64_v8_and_nothing_else() {
        let plain = Platform::linux("arm64");
        let v8: Platform = "linux/arm64/v8".parse().unwrap();
        assert!(plain.matches(&v8) && v8.matches(&plain));
        let v7: Platform = "linux/arm/v7".parse().unwrap();
        assert!(!Platform::linux("arm").matches(&v7));
    }
}
