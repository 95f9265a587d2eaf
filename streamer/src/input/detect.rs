//! What was built: an ordinary package, or an image that somebody else made. By content alone:
//! names and what build says of it do not count.

use std::io::{self, Read as _};
use std::path::Path;

use super::foreign::{DOCUMENT_MAX, Files, InputError, Wanted};
use super::json::Json;
use super::layout::{Directory, Layout};
use super::{Image, archive, docker_tools, layout, nix2container};
use crate::closure::Closure;
use crate::store::{Found, OpenFile, Place, Store, StoreError};
use crate::store_path::StorePath;

/// Where the magic number of a tar archive ends.
const TAR_MAGIC: std::ops::Range<usize> = 257..262;
/// Longest stream script that is read.
const SCRIPT_MAX: u64 = 1 << 20;

/// The image that `output`, in the store at `folder`, is. `None`: it is a package.
pub fn image_in(
    folder: &Path,
    closure: &Closure,
    output: &StorePath,
    wanted: &Wanted,
) -> Result<Option<Image>, InputError> {
    let store = match Store::open(folder) {
        Ok(store) => store,
        // A package need not be there to be known.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => {
            return Err(InputError::Store(StoreError::Read {
                place: folder.display().to_string(),
                source,
            }));
        }
    };
    let files = Files {
        store: &store,
        closure,
    };
    image(&files, output, wanted)
}

/// The image that `output` is. `None`: it is a package.
pub fn image(
    files: &Files<'_>,
    output: &StorePath,
    wanted: &Wanted,
) -> Result<Option<Image>, InputError> {
    let place = Place::of(output);
    match find(files, &place)? {
        // The same.
        Found::Nothing => Ok(None),
        Found::Directory => directory(files, &place, wanted),
        Found::File(file) => of_file(files, &place, file, wanted),
    }
}

fn find(files: &Files<'_>, place: &Place) -> Result<Found, InputError> {
    match files.store.find(files.closure, place) {
        Ok(found) => Ok(found),
        // A package that is a link to somewhere, and is none of ours.
        Err(StoreError::Outside { .. } | StoreError::Links { .. } | StoreError::Special { .. }) => {
            Ok(Found::Nothing)
        }
        Err(error) => Err(InputError::Store(error)),
    }
}

fn directory(
    files: &Files<'_>,
    place: &Place,
    wanted: &Wanted,
) -> Result<Option<Image>, InputError> {
    let has = |name: &str| -> Result<bool, InputError> {
        Ok(matches!(find(files, &place.join(name))?, Found::File(_)))
    };
    if has("oci-layout")? && has("index.json")? {
        let source = Directory::new(*files, place.clone());
        return layout::image(&Layout::new(&source), wanted).map(Some);
    }
    if has("layers.json")? {
        return Err(InputError::Unsupported {
            what: place.to_string(),
            why: "it is a layer of nix2container and no image; name the image that has it",
        });
    }
    Ok(None)
}

fn of_file(
    files: &Files<'_>,
    place: &Place,
    found: OpenFile,
    wanted: &Wanted,
) -> Result<Option<Image>, InputError> {
    let mut start = Vec::new();
    let read = found.file.take(512).read_to_end(&mut start);
    read.map_err(|source| {
        InputError::Store(StoreError::Read {
            place: place.to_string(),
            source,
        })
    })?;
    match start.as_slice() {
        [0x1f, 0x8b, ..] | [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            archive::image(files, place, wanted).map(Some)
        }
        _ if start.get(TAR_MAGIC) == Some(b"ustar") => {
            archive::image(files, place, wanted).map(Some)
        }
        [0xfd, b'7', b'z', b'X', b'Z', ..] => Err(InputError::Unsupported {
            what: place.to_string(),
            why: "archives compressed by xz are not read; use gzip, zstd or none",
        }),
        [b'#', b'!', ..] if found.executable && found.size <= SCRIPT_MAX => {
            let script = files.read(place)?;
            match docker_tools::conf_of_script(files, &script)? {
                Some(conf) => docker_tools::image(files, conf, wanted).map(Some),
                None => Ok(None),
            }
        }
        [b'{' | b' ' | b'\n' | b'\t', ..] if found.size <= DOCUMENT_MAX => {
            // Other JSON is a package like any other file.
            let Ok(document) = Json::parse(&files.read(place)?) else {
                return Ok(None);
            };
            if nix2container::is_image(&document) {
                nix2container::image(files, &document, wanted).map(Some)
            } else if docker_tools::is_conf(&document) {
                docker_tools::image(files, document, wanted).map(Some)
            } else {
                Ok(None)
            }
        }
        _ => Ok(None),
    }
}
