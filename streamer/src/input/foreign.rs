//! What front ends for images of others share: what was asked for besides the image, where its
//! files are, and what can be wrong with them. Pure but for reading files of the store.

use std::collections::BTreeMap;

use firn_crd::exit::Reason;
use firn_oci::{Digest, Platform};
use jiff::Timestamp;

use super::description::DescriptionError;
use super::json::Json;
use crate::closure::Closure;
use crate::failure::{Failure, chain};
use crate::store::{Place, Store, StoreError};
use crate::store_path::StorePath;

/// Largest document: 30 times the description of an image with 5,000 paths.
pub const DOCUMENT_MAX: u64 = 16 << 20;
/// Most layers of an image. containerd and overlayfs take 499.
pub const LAYERS_MAX: usize = 480;

/// The store and what may be read of it.
#[derive(Debug, Clone, Copy)]
pub struct Files<'a> {
    /// The store.
    pub store: &'a Store,
    /// The paths that the image may be made of.
    pub closure: &'a Closure,
}

impl Files<'_> {
    /// A document.
    pub fn read(&self, place: &Place) -> Result<Vec<u8>, InputError> {
        let read = self.store.read(self.closure, place, DOCUMENT_MAX);
        read.map_err(InputError::Store)
    }

    /// A file named by its absolute path.
    pub fn place(&self, what: &'static str, name: &str) -> Result<Place, InputError> {
        let outside = || InputError::Outside {
            what,
            name: shortened(name),
        };
        let (path, inside) = StorePath::containing(name).map_err(|_| outside())?;
        if !self.closure.contains(&path) || inside.split('/').any(|part| part == "..") {
            return Err(outside());
        }
        let inside = inside.trim_end_matches('/').to_owned();
        Ok(Place { path, inside })
    }

    /// A store path of the closure.
    pub fn path(&self, what: &'static str, name: &str) -> Result<StorePath, InputError> {
        match name.parse::<StorePath>() {
            Ok(path) if self.closure.contains(&path) => Ok(path),
            _ => Err(InputError::Outside {
                what,
                name: shortened(name),
            }),
        }
    }
}

/// What was asked for besides the image itself.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// What it is to run on.
    pub platform: Platform,
    /// Labels, beside the image's own; these stand over them.
    pub labels: BTreeMap<String, String>,
    /// Annotations of the manifest.
    pub annotations: BTreeMap<String, String>,
    /// `created` of the image. `None`: what the image says.
    pub created: Option<Timestamp>,
    /// What an image is given that says it was created now.
    pub now: Timestamp,
}

impl Wanted {
    /// Checks that the image runs where it is wanted.
    pub fn check(&self, platform: &Platform) -> Result<(), InputError> {
        // Without a variant on one side there is nothing to compare.
        let matches = |other: &Platform| {
            let plain = |platform: &Platform| Platform {
                variant: None,
                ..platform.clone()
            };
            let both = self.platform.variant.is_some() && other.variant.is_some();
            if both {
                other.matches(&self.platform)
            } else {
                plain(other).matches(&plain(&self.platform))
            }
        };
        if matches(platform) {
            return Ok(());
        }
        Err(InputError::Platform {
            image: shortened(&platform.to_string()),
            wanted: self.platform.to_string(),
        })
    }
}

/// Why what was built is no image that can be pushed.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    /// A file of the image cannot be read.
    #[error(transparent)]
    Store(StoreError),
    /// A document is no JSON.
    #[error("failed to read {place} as JSON")]
    Json {
        /// The document.
        place: String,
        /// Why.
        source: serde_json::Error,
    },
    /// A field is not what it should be.
    #[error("{what} has no usable {field:?}: expected {expected}")]
    Field {
        /// The document, in words.
        what: &'static str,
        /// The field.
        field: String,
        /// What should be there.
        expected: &'static str,
    },
    /// A name leads out of what was built.
    #[error("{what} names {name:?}, which is not in the image's closure")]
    Outside {
        /// The document, in words.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// The image is for something else.
    #[error("the image is for {image}, and {wanted} is asked for in output.platforms")]
    Platform {
        /// What the image says.
        image: String,
        /// What was asked for.
        wanted: String,
    },
    /// More than an image can have.
    #[error("{what} has {count} {of}; at most {limit} are supported")]
    TooMany {
        /// The document, in words.
        what: &'static str,
        /// How many there are.
        count: usize,
        /// Of what.
        of: &'static str,
        /// The limit.
        limit: usize,
    },
    /// A kind of image, or a part of one, that Firn does not read.
    #[error("{what}: {why}")]
    Unsupported {
        /// What it is.
        what: String,
        /// What stands against it, and what to do.
        why: &'static str,
    },
    /// An archive cannot be read.
    #[error("failed to read the archive {place}")]
    Archive {
        /// The archive.
        place: String,
        /// Why.
        source: firn_oci::tar::ReadError,
    },
    /// A part of the image is missing.
    #[error("{what} has no {name:?}")]
    Missing {
        /// Where it should be.
        what: String,
        /// What is missing.
        name: String,
    },
    /// The image's config is none, so that nothing can be laid over it.
    #[error("the image's config cannot be read")]
    Config(#[source] firn_oci::ParseError),
    /// Files that are asked for in it cannot be.
    #[error("`output.files`")]
    Files(#[source] Box<DescriptionError>),
    /// It is an image, and no package.
    #[error(
        "`output.files.copyToRoot` is for the files of a package, and this is an image already: \
         leave it out, and copy them to the root where the image is made"
    )]
    CopyToRoot,
    /// A document is not what its digest says.
    #[error("{what} is damaged: its digest was declared as {expected} and is {actual}")]
    Damaged {
        /// The document.
        what: String,
        /// What was declared.
        expected: Digest,
        /// What is there.
        actual: Digest,
    },
}

impl InputError {
    /// As a failure of the pod.
    pub fn into_failure(self, attribute: &str) -> Failure {
        let reason = match &self {
            Self::Outside { .. } | Self::Store(_) => Reason::StorePathInvalid,
            Self::Files(_) | Self::CopyToRoot => Reason::ImageInvalid,
            _ => Reason::NotAnImage,
        };
        let text = chain(&self);
        Failure::new(
            reason,
            format!("attribute {attribute} cannot be pushed as an image: {text}"),
        )
    }
}

/// Foreign text for a message.
pub fn shortened(text: &str) -> String {
    text.chars().take(200).collect()
}

/// Fields of a foreign document.
#[derive(Debug, Clone, Copy)]
pub struct Fields<'a> {
    /// The document, in words.
    pub what: &'static str,
    /// The object.
    pub object: &'a Json,
    /// Whether keys are found in any case.
    pub folded: bool,
}

impl<'a> Fields<'a> {
    /// Of an object.
    pub fn of(what: &'static str, object: &'a Json, folded: bool) -> Result<Self, InputError> {
        match object {
            Json::Object(_) => Ok(Self {
                what,
                object,
                folded,
            }),
            _ => Err(InputError::Field {
                what,
                field: String::new(),
                expected: "an object",
            }),
        }
    }

    /// A field. `None`: it is missing or null.
    pub fn get(&self, field: &str) -> Option<&'a Json> {
        if self.folded {
            self.object.get_folded(field)
        } else {
            self.object.get(field)
        }
    }

    fn wrong(&self, field: &str, expected: &'static str) -> InputError {
        InputError::Field {
            what: self.what,
            field: field.to_owned(),
            expected,
        }
    }

    /// A string; empty if it is missing.
    pub fn text(&self, field: &str) -> Result<&'a str, InputError> {
        match self.get(field) {
            None => Ok(""),
            Some(Json::Text(text)) => Ok(text),
            Some(_) => Err(self.wrong(field, "a string")),
        }
    }

    /// A string that is not empty.
    pub fn required(&self, field: &str) -> Result<&'a str, InputError> {
        match self.text(field)? {
            "" => Err(self.wrong(field, "a string")),
            text => Ok(text),
        }
    }

    /// A list; empty if it is missing.
    pub fn list(&self, field: &str) -> Result<&'a [Json], InputError> {
        match self.get(field) {
            None => Ok(&[]),
            Some(Json::List(items)) => Ok(items),
            Some(_) => Err(self.wrong(field, "a list")),
        }
    }

    /// A list of strings; empty if it is missing.
    pub fn texts(&self, field: &str) -> Result<Vec<&'a str>, InputError> {
        let text = |item: &'a Json| match item {
            Json::Text(text) => Ok(text.as_str()),
            _ => Err(self.wrong(field, "a list of strings")),
        };
        self.list(field)?.iter().map(text).collect()
    }

    /// A map from strings to strings; empty if it is missing.
    pub fn map(&self, field: &str) -> Result<BTreeMap<String, String>, InputError> {
        let wrong = || self.wrong(field, "an object with strings");
        match self.get(field) {
            None => Ok(BTreeMap::new()),
            Some(Json::Object(entries)) => entries
                .iter()
                .map(|(key, value)| match value {
                    Json::Text(text) => Ok((key.clone(), text.clone())),
                    _ => Err(wrong()),
                })
                .collect(),
            Some(_) => Err(wrong()),
        }
    }

    /// The keys of an object; empty if it is missing.
    pub fn keys(&self, field: &str) -> Result<Vec<&'a str>, InputError> {
        match self.get(field) {
            None => Ok(Vec::new()),
            Some(Json::Object(entries)) => {
                Ok(entries.iter().map(|(key, _)| key.as_str()).collect())
            }
            Some(_) => Err(self.wrong(field, "an object")),
        }
    }

    /// `true` or `false`; the latter if it is missing.
    pub fn flag(&self, field: &str) -> Result<bool, InputError> {
        match self.get(field) {
            None => Ok(false),
            Some(Json::Bool(value)) => Ok(*value),
            Some(_) => Err(self.wrong(field, "true or false")),
        }
    }

    /// A number that is not negative; 0 if it is missing.
    pub fn number(&self, field: &str) -> Result<u64, InputError> {
        match self.get(field) {
            None => Ok(0),
            Some(Json::Integer(value)) => {
                u64::try_from(*value).map_err(|_| self.wrong(field, "a number from 0 on"))
            }
            Some(_) => Err(self.wrong(field, "a whole number")),
        }
    }

    /// A digest.
    pub fn digest(&self, field: &str) -> Result<Digest, InputError> {
        let text = self.required(field)?;
        text.parse()
            .map_err(|_| self.wrong(field, "sha256: and 64 hexadecimal digits"))
    }
}
