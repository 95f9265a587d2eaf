//! A stream script of dockerTools: a program that writes an archive. It is not run: the
//! description that it was given is named in its text.

use crate::input::foreign::{Files, InputError};
use crate::input::json::Json;
use crate::store::Place;
use crate::store_path::{STORE, StorePath};

/// Most names that are tried. A script names its shell, its streamer and its description.
const NAMES_MAX: usize = 100;

/// The description that `script` names. `None`: it is another program.
pub fn conf_of_script(files: &Files<'_>, script: &[u8]) -> Result<Option<Json>, InputError> {
    let text = String::from_utf8_lossy(script);
    let names = text.split(STORE).skip(1).take(NAMES_MAX);
    for name in names {
        let end = name.find(|character: char| {
            !(character.is_ascii_alphanumeric() || "+-._?=".contains(character))
        });
        let name = name.get(..end.unwrap_or(name.len())).unwrap_or_default();
        let Ok(path) = StorePath::of_base_name(name) else {
            continue;
        };
        if !path.name().ends_with("conf.json") || !files.closure.contains(&path) {
            continue;
        }
        let bytes = files.read(&Place::of(&path))?;
        if let Ok(document) = Json::parse(&bytes)
            && super::is_conf(&document)
        {
            return Ok(Some(document));
        }
    }
    Ok(None)
}
