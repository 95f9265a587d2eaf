//! The flake's attribute as users write it. Pure.

use std::fmt;
use std::str::FromStr;

/// A path of attribute names: `hello`, `packages.x86_64-linux.hello`, `"python3.11".pkgs.numpy`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attribute {
    segments: Vec<String>,
}

/// What is wrong with an attribute.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidAttribute {
    /// Nothing, or two dots in a row.
    #[error("{0:?} has an empty segment: write names joined by dots")]
    EmptySegment(String),
    /// A character that needs quotes or cannot be had.
    #[error(
        "{0:?} has a character that no attribute name may have: put names with dots or blanks into double quotes"
    )]
    Character(String),
    /// A quote that does not end.
    #[error("{0:?} has an opening quote without a closing one")]
    Quote(String),
}

impl FromStr for Attribute {
    type Err = InvalidAttribute;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut segments = Vec::new();
        let mut rest = text;
        loop {
            let (segment, after) = match rest.strip_prefix('"') {
                Some(quoted) => quoted
                    .split_once('"')
                    .ok_or_else(|| InvalidAttribute::Quote(text.into()))?,
                None => rest.split_at(rest.find('.').unwrap_or(rest.len())),
            };
            let quoted = rest.starts_with('"');
            let plain = |c: char| c.is_ascii_alphanumeric() || "_-'+".contains(c);
            if segment.is_empty() {
                return Err(InvalidAttribute::EmptySegment(text.into()));
            }
            // Within quotes, what would end Nix's own quoting or begin an interpolation.
            let bad = |c: char| {
                if quoted {
                    c.is_control() || "\"\\$".contains(c)
                } else {
                    !plain(c)
                }
            };
            if segment.contains(bad) {
                return Err(InvalidAttribute::Character(text.into()));
            }
            segments.push(segment.to_owned());
            match after.strip_prefix('.') {
                Some(more) => rest = more,
                None if after.is_empty() => return Ok(Self { segments }),
                None => return Err(InvalidAttribute::Character(text.into())),
            }
        }
    }
}

impl Attribute {
    /// What Nix is asked for on `system`: a single name is a package; a path is taken as it is.
    #[must_use]
    pub fn resolved(&self, system: &str) -> Self {
        match self.segments.as_slice() {
            [name] => Self {
                segments: vec!["packages".into(), system.into(), name.clone()],
            },
            _ => self.clone(),
        }
    }
}

/// As in a flake reference's fragment, every name in quotes.
impl fmt::Display for Attribute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, segment) in self.segments.iter().enumerate() {
            if index > 0 {
                f.write_str(".")?;
            }
            let plain = |c: char| c.is_ascii_alphanumeric() || "_-".contains(c);
            if segment.contains(|c| !plain(c)) {
                write!(f, "\"{segment}\"")?;
            } else {
                f.write_str(segment)?;
            }
        }
        Ok(())
    }
}

/// Nix's name of a platform: `x86_64-linux` for `linux/amd64`.
pub fn system(platform: &str) -> Option<&'static str> {
    Some(match platform {
        "linux/amd64" => "x86_64-linux",
        "linux/arm64" | "linux/arm64/v8" => "aarch64-linux",
        "linux/386" => "i686-linux",
        "linux/arm/v6" => "armv6l-linux",
        "linux/arm/v7" | "linux/arm" => "armv7l-linux",
        "linux/riscv64" => "riscv64-linux",
        "linux/ppc64le" => "powerpc64le-linux",
        "linux/s390x" => "s390x-linux",
        "linux/loong64" => "loongarch64-linux",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_package_and_a_path_is_itself() {
        for (written, asked) in [
            ("default", "packages.x86_64-linux.default"),
            ("\"python3.11\"", "packages.x86_64-linux.\"python3.11\""),
            (
                "legacyPackages.x86_64-linux.hello",
                "legacyPackages.x86_64-linux.hello",
            ),
            ("a.\"b.c\".d", "a.\"b.c\".d"),
        ] {
            let attribute: Attribute = written.parse().unwrap();
            assert_eq!(attribute.resolved("x86_64-linux").to_string(), asked);
        }
    }

    #[test]
    fn what_nix_would_read_differently_is_refused() {
        for bad in [
            "", ".", "a.", ".a", "a..b", "a b", "\"a", "\"\"", "a#b", "a^out", "\"${x}\"",
            "\"a\"b", "a\"b\"",
        ] {
            assert!(bad.parse::<Attribute>().is_err(), "{bad:?}");
        }
    }
}
