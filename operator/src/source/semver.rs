//! `ref.semver`: which tag is the highest in a range of semantic versions. Pure.
//!
//! Ranges are written as Flux and npm have them: `1.x`, `>=1.2 <2`, `^1.4`, `~1.4.2`,
//! `1.2 - 1.4`, alternatives with `||`. Tags may have a `v` before the version.

use std::str::FromStr;

use semver::{Version, VersionReq};

/// A range of versions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Range(Vec<VersionReq>);

/// A range that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{part:?} is no range of versions")]
pub(crate) struct RangeError {
    part: String,
}

impl FromStr for Range {
    type Err = RangeError;

    fn from_str(text: &str) -> Result<Self, RangeError> {
        let alternative = |part: &str| {
            alternative(part).ok_or_else(|| RangeError {
                part: part.trim().to_owned(),
            })
        };
        text.split("||")
            .map(alternative)
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

impl Range {
    /// The tag with the highest version in this range. Pre-releases are in it only if the range
    /// names one of the same version (`>=1.2.0-rc.1` has 1.2.0-rc.2 and not 1.3.0-rc.1). Of tags of
    /// equal versions (`v1.2.3` and `1.2.3`) it is the last by name, whatever their order.
    pub(crate) fn highest<'a>(&self, tags: impl Iterator<Item = &'a str>) -> Option<&'a str> {
        tags.filter_map(|tag| Some((version(tag)?, tag)))
            .filter(|(version, _)| self.0.iter().any(|range| range.matches(version)))
            .max()
            .map(|(_, tag)| tag)
    }
}

/// The version that a tag names.
pub(crate) fn version(tag: &str) -> Option<Version> {
    Version::parse(tag.strip_prefix('v').unwrap_or(tag)).ok()
}

/// Comparators that must all hold, with blanks or commas between them.
fn alternative(text: &str) -> Option<VersionReq> {
    let mut words = text
        .split([',', ' '])
        .filter(|word| !word.is_empty())
        .peekable();
    let bare = |version: &'_ str| version.strip_prefix('v').unwrap_or(version).to_owned();
    let mut parts = Vec::new();
    while let Some(word) = words.next() {
        let end = word.find(|c| !"<>=~^".contains(c)).unwrap_or(word.len());
        let (operator, version) = word.split_at(end);
        let version = bare(if version.is_empty() {
            words.next()?
        } else {
            version
        });
        if operator.is_empty() && words.peek() == Some(&"-") {
            words.next();
            parts.push(format!(">={version}"));
            parts.push(format!("<={}", bare(words.next()?)));
        } else if operator.is_empty() && !version.split('.').any(is_wildcard) {
            // To cargo a version alone means whatever is compatible; here it is that version.
            parts.push(format!("={version}"));
        } else {
            parts.push(format!("{operator}{version}"));
        }
    }
    VersionReq::parse(&parts.join(", "))
        .ok()
        .filter(|_| !parts.is_empty())
}

fn is_wildcard(part: &str) -> bool {
    ["x", "X", "*"].contains(&part)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TAGS: [&str; 14] = [
        "v1.2.3",
        "1.2.3",
        "1.10.0",
        "v1.9.0",
        "1.4.2",
        "1.4.7",
        "2.0.0-rc.1",
        "2.0.0-rc.2",
        "v2.0.0",
        "2.1.0-beta.1",
        "v3",
        "release-4.0.0",
        "nightly",
        "0.9.1",
    ];

    fn highest(range: &str) -> Option<&'static str> {
        range.parse::<Range>().unwrap().highest(TAGS.into_iter())
    }

    #[test]
    fn the_highest_tag_of_a_range_is_followed() {
        for (range, tag) in [
            ("*", Some("v2.0.0")),
            ("1.x", Some("1.10.0")),
            ("1", Some("1.10.0")),
            ("1.4", Some("1.4.7")),
            ("1.4.2", Some("1.4.2")),
            ("~1.4.2", Some("1.4.7")),
            ("^1.4", Some("1.10.0")),
            (">=1.2 <1.10", Some("v1.9.0")),
            (">= 1.2, < 1.10", Some("v1.9.0")),
            (">=v1.2 <v1.10", Some("v1.9.0")),
            ("1.2 - 1.4", Some("1.4.7")),
            ("<1 || 1.4.x", Some("1.4.7")),
            ("4.x", None),
        ] {
            assert_eq!(highest(range), tag, "{range}");
        }
    }

    #[test]
    fn a_pre_release_must_be_named() {
        assert_eq!(highest("<2"), Some("1.10.0"));
        assert_eq!(highest(">=2.0.0-rc.1 <2.0.0"), Some("2.0.0-rc.2"));
        assert_eq!(highest(">=2.0.0-rc.1"), Some("v2.0.0"));
    }

    #[test]
    fn of_equal_versions_one_is_taken_whatever_their_order() {
        let range: Range = "1.2.3".parse().unwrap();
        let tags = ["1.2.3", "v1.2.3", "1.2.2"];
        assert_eq!(range.highest(tags.into_iter()), Some("v1.2.3"));
        assert_eq!(range.highest(tags.into_iter().rev()), Some("v1.2.3"));
    }

    #[test]
    fn what_is_no_range_is_named() {
        for range in ["", "||", "latest", ">=", "1.2 -", "1.2.3.4", ">=1.x.y"] {
            assert!(range.parse::<Range>().is_err(), "{range}");
        }
        let error = "1.x || latest".parse::<Range>().unwrap_err();
        assert_eq!(error.to_string(), r#""latest" is no range of versions"#);
    }
}
