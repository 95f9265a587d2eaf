//! Names of images: `registry/repository:tag@digest` and its parts.
//! Grammar of <https://github.com/distribution/reference>, with one difference: the registry must
//! be named. `nginx` means one thing to Docker and another to everybody else.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::Digest;

/// The longest name of a repository, as the reference grammar limits it.
const REPOSITORY_MAX: usize = 255;
/// The longest tag, as the reference grammar limits it.
const TAG_MAX: usize = 128;

/// A registry's host name or address, with a port if it is not the usual one: `ghcr.io`,
/// `registry.example:5000`, `[::1]:5000`. Lower case.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RegistryHost(String);

/// A repository within a registry: `team/app`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Repository(String);

/// A tag: `v1.2`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(String);

/// The full name of an image: where it is, and which one by tag, by digest or by both.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    /// The registry.
    pub host: RegistryHost,
    /// The repository.
    pub repository: Repository,
    /// `None`: not said; there is no implied `latest`.
    pub tag: Option<Tag>,
    /// `None`: whatever the tag points to.
    pub digest: Option<Digest>,
}

/// Text that names no registry, repository, tag or image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {text:?} {rule}")]
pub struct ReferenceError {
    what: &'static str,
    text: String,
    rule: &'static str,
}

impl ReferenceError {
    fn new(what: &'static str, text: &str, rule: &'static str) -> Self {
        Self {
            what,
            // Foreign text: enough to recognise it.
            text: text.chars().take(300).collect(),
            rule,
        }
    }
}

impl FromStr for RegistryHost {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let error = || {
            ReferenceError::new(
                "registry host",
                text,
                "is not a host name or address with an optional port, such as \
                 \"registry.example:5000\"",
            )
        };
        let (host, port) = match text.rsplit_once(':') {
            // The colons of an IPv6 address are inside brackets.
            Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
            _ => (text, None),
        };
        let host_is_good = match host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
        {
            Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
            None => {
                host.len() <= 253
                    && host.split('.').all(|label| {
                        !label.is_empty()
                            && !label.starts_with('-')
                            && !label.ends_with('-')
                            && label
                                .bytes()
                                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
                    })
            }
        };
        let port_is_good = port.is_none_or(|port| {
            port.bytes().all(|byte| byte.is_ascii_digit())
                && port.parse().is_ok_and(|port: u16| port != 0)
        });
        if host_is_good && port_is_good {
            Ok(Self(text.to_ascii_lowercase()))
        } else {
            Err(error())
        }
    }
}

impl FromStr for Repository {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        if text.len() <= REPOSITORY_MAX && text.split('/').all(is_path_component) {
            Ok(Self(text.to_owned()))
        } else {
            Err(ReferenceError::new(
                "repository",
                text,
                "is not made of lower-case letters and digits, joined by \"/\", \".\", \"_\", \
                 \"__\" or dashes, and at most 255 long",
            ))
        }
    }
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_path_component(component: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let mut rest = component.as_bytes();
    loop {
        let word = rest.iter().take_while(|byte| is_word(**byte)).count();
        if word == 0 {
            return false;
        }
        rest = rest.get(word..).unwrap_or_default();
        let separator = match rest {
            [] => return true,
            [b'_', b'_', ..] => 2,
            [b'.' | b'_', ..] => 1,
            _ => rest.iter().take_while(|byte| **byte == b'-').count(),
        };
        if separator == 0 {
            return false;
        }
        rest = rest.get(separator..).unwrap_or_default();
    }
}

impl FromStr for Tag {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        let good = text.len() <= TAG_MAX
            && text.bytes().next().is_some_and(is_word)
            && text
                .bytes()
                .all(|byte| is_word(byte) || byte == b'.' || byte == b'-');
        if good {
            Ok(Self(text.to_owned()))
        } else {
            Err(ReferenceError::new(
                "tag",
                text,
                "is not made of letters, digits, \"_\", \".\" and \"-\", beginning with none of \
                 the last two, and at most 128 long",
            ))
        }
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => {
                let digest = digest.parse().map_err(|_| {
                    ReferenceError::new(
                        "image reference",
                        text,
                        "does not end in a digest of the form \"sha256:<64 digits>\"",
                    )
                })?;
                (name, Some(digest))
            }
            None => (text, None),
        };
        let Some((host, path)) = name.split_once('/').filter(|(host, _)| names_a_host(host)) else {
            return Err(ReferenceError::new(
                "image reference",
                text,
                "does not begin with a registry, such as \"ghcr.io/\" or \"docker.io/library/\"",
            ));
        };
        let (repository, tag) = match path.split_once(':') {
            Some((repository, tag)) => (repository, Some(tag.parse()?)),
            None => (path, None),
        };
        Ok(Self {
            host: host.parse()?,
            repository: repository.parse()?,
            tag,
            digest,
        })
    }
}

/// The first component is a registry and not a part of the repository: the reference grammar's
/// own rule.
fn names_a_host(component: &str) -> bool {
    component.contains(['.', ':']) || component == "localhost"
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.host, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

/// Text in and out, for the three newtypes and the whole.
macro_rules! as_text {
    ($($name:ident),*) => {$(
        impl $name {
            /// The text it was parsed from, normalised.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    )*};
}
as_text!(RegistryHost, Repository, Tag);

macro_rules! serde_as_text {
    ($($name:ident),*) => {$(
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
            }
        }
    )*};
}
serde_as_text!(RegistryHost, Repository, Tag, Reference);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_parts_are_found() {
        let digest = Digest::of(b"x");
        let reference: Reference = format!("localhost:5000/a/b__c:v1@{digest}")
            .parse()
            .unwrap();
        assert_eq!(reference.host.as_str(), "localhost:5000");
        assert_eq!(reference.repository.as_str(), "a/b__c");
        assert_eq!(reference.tag.as_ref().map(Tag::as_str), Some("v1"));
        assert_eq!(reference.digest, Some(digest));
    }

    #[test]
    fn bad_names_are_refused() {
        for text in [
            "",
            "nginx",
            "library/nginx",
            "ghcr.io",
            "ghcr.io/",
            "ghcr.io/App",
            "ghcr.io/a//b",
            "ghcr.io/a:",
            "ghcr.io/a:-x",
            "ghcr.io/a@sha256:00",
            "ghcr.io/a_-b",
            "ghcr.io/a...b",
            "ghcr.io/a___b",
            "-x.io/a",
            "x.io:0/a",
            "x.io:99999/a",
            "x.io:+5/a",
            "[::g]:5/a",
            "x.io/a?b",
            "x.io/../a",
            "http://x.io/a",
        ] {
            assert!(text.parse::<Reference>().is_err(), "{text:?}");
        }
        assert!("a".repeat(256).parse::<Repository>().is_err());
        assert!("a".repeat(129).parse::<Tag>().is_err());
    }

    #[test]
    fn a_host_is_lower_case() {
        let host: RegistryHost = "GHCR.io".parse().unwrap();
        assert_eq!(host.as_str(), "ghcr.io");
    }

    proptest! {
        #[test]
        fn references_survive_text(
            text in "([a-z0-9]{1,5}\\.[a-z]{2}|localhost|\\[::1\\])(:[1-9][0-9]{0,3})?\
                     (/[a-z0-9]{1,5}((\\.|_|__|-{1,3})[a-z0-9]{1,5}){0,2}){1,3}\
                     (:[a-zA-Z0-9_][a-zA-Z0-9._-]{0,20})?(@sha256:[0-9a-f]{64})?"
        ) {
            let reference: Reference = text.parse().unwrap();
            prop_assert_eq!(reference.to_string(), text);
        }

        #[test]
        fn any_text_is_a_reference_or_an_error(text in "[a-z\\[\\]:./@_é-]{0,40}|\\PC{0,40}") {
            if let Ok(reference) = text.parse::<Reference>() {
                prop_assert_eq!(reference.to_string().parse(), Ok(reference));
            }
        }
    }
}
