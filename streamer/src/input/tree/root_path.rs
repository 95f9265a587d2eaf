//! Absolute paths within an image. Pure.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Longest path that Linux takes, with its final NUL.
const PATH_MAX: usize = 4096;

/// A plain absolute path within an image; the root is one, too.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RootPath {
    /// Without the slash at the beginning.
    relative: String,
}

/// Why a text is no path within an image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no path in an image: wanted an absolute one like /etc/motd, without empty, \".\", \
     \"..\" and \".wh.\" components"
)]
pub struct InvalidRootPath(String);

impl RootPath {
    /// Without the slash at the beginning; empty for the root.
    pub fn relative(&self) -> &str {
        &self.relative
    }

    /// Whether it is `/`.
    pub fn is_root(&self) -> bool {
        self.relative.is_empty()
    }
}

impl FromStr for RootPath {
    type Err = InvalidRootPath;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidRootPath(text.chars().take(300).collect());
        let relative = text.strip_prefix('/').ok_or_else(invalid)?;
        let plain = |part: &str| !matches!(part, "" | "." | "..") && !part.starts_with(".wh.");
        let good = text.len() < PATH_MAX
            && !text.contains('\0')
            && (relative.is_empty() || relative.split('/').all(plain));
        if good {
            Ok(Self {
                relative: relative.to_owned(),
            })
        } else {
            Err(invalid())
        }
    }
}

impl fmt::Display for RootPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}", self.relative)
    }
}

impl Serialize for RootPath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for RootPath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_leads_to_one_place() {
        let path: RootPath = "/etc/ssl/certs".parse().unwrap();
        assert_eq!(path.relative(), "etc/ssl/certs");
        assert_eq!(path.to_string(), "/etc/ssl/certs");
        assert!("/".parse::<RootPath>().unwrap().is_root());
    }

    #[test]
    fn a_path_that_leads_elsewhere_is_refused() {
        let long = format!("/{}", "x".repeat(PATH_MAX));
        for bad in [
            "", "etc", "//etc", "/etc/", "/etc//a", "/./a", "/a/..", "/a/.wh.b", "/a\0b", &long,
        ] {
            assert!(bad.parse::<RootPath>().is_err(), "{bad:?}");
        }
    }
}
