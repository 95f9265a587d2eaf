//! From what was built to the image to be: an image description if the output is one, and a package
//! otherwise. Reads that one file; what it says is build's word.

use std::path::Path;

use firn_crd::exit::Reason;
use firn_crd::run::ImageSpec;
use firn_oci::{Compression, Platform};
use jiff::Timestamp;

use crate::closure::Closure;
use crate::compression::{self, InvalidLevel};
use crate::failure::{Failure, Result, chain};
use crate::input::Image;
use crate::input::description::{
    self, Base, BaseImage, DOCUMENT_MAX, Description, DescriptionError, Parts,
};
use crate::input::package::{self, Package};
use crate::store::{Place, Store};
use crate::store_path::StorePath;

/// What was built, and what was asked for.
#[derive(Debug)]
pub struct Output<'a> {
    /// What the image runs on.
    pub platform: Platform,
    /// What is known of it.
    pub result: Built<'a>,
    /// All it needs.
    pub closure: &'a Closure,
    /// What was asked for.
    pub asked: &'a ImageSpec,
    /// The time of the commit.
    pub commit_time: Timestamp,
    /// The image that [`Document::base`] names, once it was found.
    pub base: Option<&'a BaseImage>,
}

/// What was built.
#[derive(Debug, Clone, Copy)]
pub enum Built<'a> {
    /// A store path.
    Path {
        /// The output.
        out_path: &'a StorePath,
        /// Absolute path of the program that a container runs.
        entry_point: Option<&'a str>,
        /// Whether the output has a `bin` directory.
        has_bin: bool,
    },
    /// What an image description mentions. It was a value of the flake, and is no output.
    Described(&'a str),
}

/// An image, and how it is to be compressed.
#[derive(Debug)]
pub struct Described {
    /// The image.
    pub image: Image,
    /// How.
    pub compression: Compression,
}

/// An image description, read.
#[derive(Debug)]
pub struct Document {
    bytes: Vec<u8>,
    description: Description,
}

impl Document {
    /// The image that it is based upon.
    pub fn base(&self) -> Option<&Base> {
        self.description.base.as_ref()
    }
}

fn invalid(error: &DescriptionError) -> Failure {
    Failure::new(Reason::ImageInvalid, chain(error))
}

/// The description that an output is. `None`: it is none.
pub fn read(store: &Path, closure: &Closure, result: Built<'_>) -> Result<Option<Document>> {
    let bytes = match result {
        Built::Described(document) => Some(document.as_bytes().to_vec()),
        Built::Path { has_bin: true, .. } => None,
        Built::Path { out_path, .. } => document(store, closure, out_path),
    };
    let Some(bytes) = bytes else {
        return Ok(None);
    };
    let description = Description::parse(&bytes).map_err(|error| invalid(&error))?;
    Ok(Some(Document { bytes, description }))
}

/// The image of an output, which is what `document` describes or else a package. Errors: what is
/// described or asked for cannot be made.
pub fn image(output: &Output<'_>, document: Option<Document>) -> Result<Described> {
    match (document, output.result) {
        (Some(document), _) => described(document, output).map_err(|error| invalid(&error)),
        (
            None,
            Built::Path {
                out_path,
                entry_point,
                has_bin,
            },
        ) => {
            let image = package::image(&Package {
                platform: output.platform.clone(),
                out_path,
                closure: output.closure,
                entry_point,
                has_bin,
                asked: output.asked,
                commit_time: output.commit_time,
            });
            Ok(Described {
                image: image.map_err(|error| invalid(&error))?,
                compression: asked_compression(output.asked)?,
            })
        }
        (None, Built::Described(_)) => Err(Failure::new(
            Reason::InternalError,
            "an image description was not read before its image was made",
        )),
    }
}

/// How layers are compressed where no description says it.
pub fn asked_compression(asked: &ImageSpec) -> Result<Compression> {
    let found = compression::encoder(asked.compression, asked.level);
    found.map_err(|error: InvalidLevel| {
        Failure::new(
            Reason::ImageInvalid,
            format!("`output.layers.level`: {error}"),
        )
    })
}

/// The description that an output is. `None`: it is none, or cannot be read, which shows when its
/// layer is made.
fn document(store: &Path, closure: &Closure, out_path: &StorePath) -> Option<Vec<u8>> {
    let store = Store::open(store).ok()?;
    let bytes = store
        .read(closure, &Place::of(out_path), DOCUMENT_MAX)
        .ok()?;
    description::is_description(&bytes).then_some(bytes)
}

fn described(
    document: Document,
    output: &Output<'_>,
) -> std::result::Result<Described, DescriptionError> {
    let asked = output.asked;
    let own = document.description;
    let mentioned = description::mentions(&document.bytes, output.closure)?;
    let (compression, level) = compression::laid_over(
        (own.compression, own.level),
        (asked.compression, asked.level),
    );
    let compression = compression::encoder(compression, level).map_err(DescriptionError::Level)?;
    let description = own.with(asked);
    let parts = Parts {
        platform: output.platform.clone(),
        closure: output.closure,
        max_layers: asked.max_layers,
        created: package::created(asked.timestamp),
        commit_time: output.commit_time,
        base: output.base,
    };
    Ok(Described {
        image: description::image(&description, &mentioned, &parts)?,
        compression,
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::input::Contents;
    use crate::testing::{info, path};

    fn closure() -> Closure {
        let paths = [
            (path("image.json"), info(10, &["app"])),
            (path("app"), info(10, &[])),
        ];
        Closure::new(paths.into()).unwrap()
    }

    #[expect(
        clippy::unwrap_in_result,
        reason = "a fixture that cannot be made fails the test"
    )]
    fn made(contents: &str, asked: &ImageSpec) -> Result<Described> {
        let dir = tempfile::tempdir().unwrap();
        let out_path = path("image.json");
        fs::write(dir.path().join(out_path.base_name()), contents).unwrap();
        let closure = closure();
        let output = Output {
            platform: "linux/amd64".parse().unwrap(),
            result: Built::Path {
                out_path: &out_path,
                entry_point: None,
                has_bin: false,
            },
            closure: &closure,
            asked,
            commit_time: Timestamp::UNIX_EPOCH,
            base: None,
        };
        let document = read(dir.path(), &closure, output.result)?;
        image(&output, document)
    }

    fn asked() -> ImageSpec {
        ImageSpec {
            max_layers: 10,
            ..ImageSpec::default()
        }
    }

    fn paths(image: &Image) -> Vec<&str> {
        let layers = image.layers.iter();
        layers
            .flat_map(|layer| match &layer.contents {
                Contents::Paths(paths) => paths.paths.iter().map(StorePath::name).collect(),
                _ => Vec::new(),
            })
            .collect()
    }

    #[test]
    fn an_output_that_is_a_description_is_not_in_its_image() {
        let app = path("app");
        let json =
            format!(r#"{{"firnImage":1,"contents":["{app}"],"compression":"Gzip","level":9}}"#);
        let described = made(&json, &asked()).unwrap();
        assert_eq!(paths(&described.image), ["app"]);
        assert_eq!(Some(described.compression), Compression::gzip(9));
    }

    #[test]
    fn an_output_that_is_any_other_file_is_a_package() {
        let package = made(r#"{"some":"json"}"#, &asked()).unwrap();
        assert_eq!(paths(&package.image).len(), 2);
        assert_eq!(package.compression, Compression::ZSTD);
    }

    #[test]
    fn a_level_that_there_is_not_is_the_user_s_to_correct() {
        let failure = made(r#"{"firnImage":1,"level":20}"#, &asked()).unwrap_err();
        assert_eq!(failure.reason(), Reason::ImageInvalid);
        assert_eq!(
            failure.0.message,
            "`level`: 20 is no level of Zstd: wanted 1 to 19"
        );
        let wrong = ImageSpec {
            level: Some(0),
            ..asked()
        };
        let failure = made("text", &wrong).unwrap_err();
        let message = &failure.0.message;
        assert!(message.starts_with("`output.layers.level`"), "{message}");
    }

    #[test]
    fn a_broken_description_is_the_user_s_to_correct() {
        let failure = made(r#"{"firnImage":1,"contens":[]}"#, &asked()).unwrap_err();
        assert_eq!(failure.reason(), Reason::ImageInvalid);
        let message = &failure.0.message;
        assert!(message.contains("unknown field `contens`"), "{message}");
    }
}
