//! Patterns for paths within an image: `*` and `?` within a component, `**` for any number of
//! components. Pure, and linear in the length of both whatever the pattern.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

use crate::store_path::StorePath;

/// Longest pattern in bytes.
const PATTERN_MAX: usize = 1024;

/// A pattern for absolute paths.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pattern {
    components: Vec<String>,
}

/// Why a text is no pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPattern {
    /// Not absolute, or with components that no path has.
    #[error(
        "{0:?} is no pattern for paths in an image: wanted one like /etc/** or /bin/su?, \
         absolute and without empty, \".\" and \"..\" components"
    )]
    NotPlain(String),
    /// It would have every file of the store written again.
    #[error(
        "{0:?} fits every path of the store: name the one that is meant, \
         as in /nix/store/*-sudo-*/bin/sudo"
    )]
    WholeStore(String),
}

impl Pattern {
    /// Whether it fits the path of these components, without a slash at the beginning.
    pub fn fits(&self, relative: &[u8]) -> bool {
        let parts: Vec<&[u8]> = relative.split(|byte| *byte == b'/').collect();
        // Which beginnings of the path the pattern's components so far can stand for.
        let mut reached = vec![false; parts.len() + 1];
        if let Some(first) = reached.first_mut() {
            *first = true;
        }
        for component in &self.components {
            if component == "**" {
                let mut any = false;
                for here in &mut reached {
                    any |= *here;
                    *here = any;
                }
            } else {
                let ends = parts
                    .iter()
                    .zip(&reached)
                    .map(|(part, here)| *here && fits_component(component.as_bytes(), part));
                reached = std::iter::once(false).chain(ends).collect();
            }
        }
        reached.last() == Some(&true)
    }

    /// Whether it is about files of this store path.
    pub fn is_of_path(&self, path: &StorePath) -> bool {
        match self.components.as_slice() {
            [nix, store, base, ..] if nix == "nix" && store == "store" => {
                fits_component(base.as_bytes(), path.base_name().as_bytes())
            }
            _ => false,
        }
    }

    /// Whether it is about files of store paths.
    pub fn is_of_store(&self) -> bool {
        matches!(self.components.as_slice(), [nix, store, _, ..] if nix == "nix" && store == "store")
    }

    /// The pattern itself if it has no wildcard.
    pub fn literal(&self) -> Option<String> {
        let plain = |component: &String| !component.contains(['*', '?']);
        self.components.iter().all(plain).then(|| self.to_string())
    }

    /// The directory whose contents are meant, if the pattern is `<directory>/*` or `/**`.
    pub fn contents_of(&self) -> Option<String> {
        let (last, directory) = self.components.split_last()?;
        let directory = Self {
            components: directory.to_vec(),
        };
        matches!(last.as_str(), "*" | "**")
            .then(|| directory.literal())
            .flatten()
    }
}

/// `*` and `?` by going back to the last `*` only: what an earlier one took need not change.
fn fits_component(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while let Some(byte) = text.get(t) {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(wanted) if *wanted == b'?' || wanted == byte => {
                p += 1;
                t += 1;
            }
            _ => match star {
                Some((at, taken)) => {
                    p = at + 1;
                    t = taken + 1;
                    star = Some((at, t));
                }
                None => return false,
            },
        }
    }
    pattern
        .get(p..)
        .is_some_and(|rest| rest.iter().all(|byte| *byte == b'*'))
}

impl FromStr for Pattern {
    type Err = InvalidPattern;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let shown = || text.chars().take(300).collect::<String>();
        let plain = |part: &str| !matches!(part, "" | "." | "..");
        let components: Vec<String> = match text.strip_prefix('/') {
            Some(relative)
                if text.len() <= PATTERN_MAX
                    && !text.contains('\0')
                    && relative.split('/').all(plain) =>
            {
                relative.split('/').map(str::to_owned).collect()
            }
            _ => return Err(InvalidPattern::NotPlain(shown())),
        };
        match components.as_slice() {
            [nix, store, base, ..]
                if nix == "nix" && store == "store" && base.chars().all(|c| c == '*') =>
            {
                Err(InvalidPattern::WholeStore(shown()))
            }
            _ => Ok(Self { components }),
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}", self.components.join("/"))
    }
}

impl Serialize for Pattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::path;

    fn fits(pattern: &str, path: &str) -> bool {
        let pattern: Pattern = pattern.parse().unwrap();
        pattern.fits(path.as_bytes())
    }

    #[test]
    fn wildcards_stay_within_a_component_and_double_ones_do_not() {
        for (pattern, path) in [
            ("/etc/passwd", "etc/passwd"),
            ("/etc/*", "etc/passwd"),
            ("/etc/p*d", "etc/passwd"),
            ("/bin/su?", "bin/sux"),
            ("/srv/**", "srv"),
            ("/srv/**", "srv/a/b"),
            ("/**/b", "a/x/b"),
            ("/**/b", "b"),
            ("/*a*b*/c", "xaybz/c"),
            ("/**", "a/b"),
        ] {
            assert!(fits(pattern, path), "{pattern} {path}");
        }
        for (pattern, path) in [
            ("/etc/*", "etc"),
            ("/etc/*", "etc/ssl/certs"),
            ("/bin/su?", "bin/su"),
            ("/**/b", "a/bc"),
            ("/etc", "etc/passwd"),
            ("/srv/*/x", "srv/x"),
        ] {
            assert!(!fits(pattern, path), "{pattern} {path}");
        }
    }

    #[test]
    fn a_pattern_that_invites_backtracking_ends_soon() {
        let pattern = format!("/{}b", "*a".repeat(200));
        assert!(!fits(&pattern, &"a".repeat(4000)));
        let pattern = format!("/{}b", "**/a/".repeat(100));
        assert!(!fits(&pattern, &vec!["a"; 2000].join("/")));
    }

    #[test]
    fn a_store_path_is_meant_when_it_is_named() {
        let is_of = |pattern: &str| {
            pattern
                .parse::<Pattern>()
                .unwrap()
                .is_of_path(&path("sudo-1"))
        };
        assert!(is_of("/nix/store/*-sudo-*/bin/sudo"));
        assert!(!is_of("/nix/store/*-su-*/bin/su"));
        assert!(!is_of("/**/bin/sudo"));
        for everything in ["/nix/store/*/bin/sudo", "/nix/store/**"] {
            assert!(matches!(
                everything.parse::<Pattern>(),
                Err(InvalidPattern::WholeStore(_))
            ));
        }
    }

    #[test]
    fn what_can_be_removed_without_looking_is_told() {
        let pattern = |text: &str| text.parse::<Pattern>().unwrap();
        assert_eq!(pattern("/usr/doc").literal().as_deref(), Some("/usr/doc"));
        assert_eq!(
            pattern("/usr/doc/*").contents_of().as_deref(),
            Some("/usr/doc")
        );
        assert_eq!(pattern("/usr/*/x").literal(), None);
        assert_eq!(pattern("/usr/*/**").contents_of(), None);
        assert_eq!(pattern("/*").contents_of().as_deref(), Some("/"));
    }

    #[test]
    fn nonsense_is_refused() {
        for bad in ["", "etc/*", "/", "/a//b", "/a/../b", "/a/\0"] {
            assert!(bad.parse::<Pattern>().is_err(), "{bad:?}");
        }
    }
}
