//! Store paths as text: `/nix/store/<32 characters of Nix's base 32>-<name>`, the only shape of
//! path that push takes from a build. Pure.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Where every store path is: hashes of another store directory would be of no use to any cache.
pub const STORE: &str = "/nix/store/";
/// Characters of a store path's hash.
const HASH: usize = 32;
/// Longest name, as Nix has it.
const NAME_MAX: usize = 211;

/// A valid store path. Ordered by its base name's bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StorePath {
    base: String,
}

/// What is wrong with a store path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a store path: wanted /nix/store/<32 characters>-<name>")]
pub struct InvalidStorePath(String);

impl StorePath {
    /// `<hash>-<name>`: the file's name in the store.
    pub fn base_name(&self) -> &str {
        &self.base
    }

    /// The 32 characters before the name.
    pub fn hash_part(&self) -> &str {
        self.base.get(..HASH).unwrap_or_default()
    }

    /// What follows the hash.
    pub fn name(&self) -> &str {
        self.base.get(HASH + 1..).unwrap_or_default()
    }

    /// The store path that `path` is or lies in, and what follows, without a leading slash.
    pub fn containing(path: &str) -> Result<(Self, &str), InvalidStorePath> {
        let invalid = || InvalidStorePath(path.chars().take(300).collect());
        let rest = path.strip_prefix(STORE).ok_or_else(invalid)?;
        let (base, inside) = rest.split_once('/').unwrap_or((rest, ""));
        Self::of_base_name(base)
            .map(|found| (found, inside))
            .map_err(|_| invalid())
    }

    /// Reads `<hash>-<name>`.
    pub fn of_base_name(base: &str) -> Result<Self, InvalidStorePath> {
        let invalid = || InvalidStorePath(base.chars().take(300).collect());
        let (hash, name) = base.split_once('-').ok_or_else(invalid)?;
        // Nix's base 32 leaves out e, o, t and u.
        let hash_good = hash.len() == HASH
            && hash
                .bytes()
                .all(|b| b.is_ascii_digit() || (b.is_ascii_lowercase() && !b"eotu".contains(&b)));
        let name_good = !name.is_empty()
            && name.len() <= NAME_MAX
            && !name.starts_with('.')
            && name
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"+-._?=".contains(&b));
        if hash_good && name_good {
            Ok(Self { base: base.into() })
        } else {
            Err(invalid())
        }
    }
}

impl FromStr for StorePath {
    type Err = InvalidStorePath;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match Self::containing(text)? {
            (path, "") if !text.ends_with('/') => Ok(path),
            _ => Err(InvalidStorePath(text.chars().take(300).collect())),
        }
    }
}

impl fmt::Display for StorePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{STORE}{}", self.base)
    }
}

impl Serialize for StorePath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for StorePath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "/nix/store/0a1b2c3d4f5g6h7i8j9kalbmcndpfqgr-app-1.0";

    #[test]
    fn a_store_path_is_taken_apart() {
        let path: StorePath = GOOD.parse().unwrap();
        assert_eq!(path.name(), "app-1.0");
        assert_eq!(path.hash_part(), "0a1b2c3d4f5g6h7i8j9kalbmcndpfqgr");
        assert_eq!(path.to_string(), GOOD);
        let file = format!("{GOOD}/bin/app");
        assert_eq!(StorePath::containing(&file), Ok((path, "bin/app")));
    }

    #[test]
    fn nothing_else_passes() {
        for bad in [
            "",
            "/etc/passwd",
            "/nix/store",
            "/nix/store/..",
            "/nix/store/0a1b2c3d4f5g6h7i8j9kalbmcndpfqgr",
            "/nix/store/0a1b2c3d4f5g6h7i8j9kalbmcndpfqgr-",
            "/nix/store/0a1b2c3d4f5g6h7i8j9kalbmcndpfqgr-.x",
            "/nix/store/0a1b2c3d4f5g6h7i8j9kalbmcndpfqgr-a b",
            "/nix/store/0a1b2c3d4f5g6h7i8j9kalbmcndpfqgr-a\n",
            "/nix/store/ea1b2c3d4f5g6h7i8j9kalbmcndpfqgr-x",
            "/nix/store/0a1b2c3d4f5g6h7i8j9kalbmcndpfqgr-app/bin",
            "/nix/store/0a1b2c3d4f5g6h7i8j9kalbmcndpfqgr-app/",
            "/nix/store/../store/0a1b2c3d4f5g6h7i8j9kalbmcndpfqgr-app",
        ] {
            assert!(bad.parse::<StorePath>().is_err(), "{bad:?}");
        }
    }
}
