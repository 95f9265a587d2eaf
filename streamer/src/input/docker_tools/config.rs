//! The config of an image of dockerTools, in the bytes that its stream script makes: JSON as
//! Python writes it, the image's own config as it was given.

use std::fmt::Write as _;

use firn_oci::{Digest, History, Platform};
use jiff::Timestamp;

use super::WHAT;
use crate::input::archive::DockerImage;
use crate::input::foreign::{Fields, InputError, Wanted};
use crate::input::json::Json;

/// A config.
#[derive(Debug, Clone, PartialEq)]
pub struct PythonConfig {
    created: String,
    architecture: String,
    variant: Option<String>,
    config: Json,
    comments: Vec<String>,
}

impl PythonConfig {
    /// From the description of an image, without its layers.
    pub(super) fn new(
        fields: &Fields<'_>,
        platform: &Platform,
        base: Option<&DockerImage>,
        wanted: &Wanted,
    ) -> Result<Self, InputError> {
        let created = match (wanted.created, fields.required("created")?) {
            (Some(created), _) => iso(&created.to_string()),
            (None, "now") => iso(&wanted.now.to_string()),
            (None, text) => iso(text),
        };
        let created = created.ok_or_else(|| wrong("created"))?;
        let mut config = fields.get("config").cloned().unwrap_or(Json::Null);
        if let Some(base) = base {
            inherit_env(&mut config, &base.config)?;
        }
        if !wanted.labels.is_empty() {
            add_labels(&mut config, wanted);
        }
        Ok(Self {
            created,
            architecture: platform.architecture.clone(),
            variant: platform.variant.clone(),
            config,
            comments: Vec::new(),
        })
    }

    /// Notes a layer's paths, and gives its history as the rest of Firn knows it.
    pub(super) fn add_history(&mut self, paths: &[&str]) -> History {
        let mut comment = String::from("store paths: [");
        for (index, path) in paths.iter().enumerate() {
            if index > 0 {
                comment.push_str(", ");
            }
            write_repr(&mut comment, path);
        }
        comment.push(']');
        self.comments.push(comment.clone());
        History {
            created: self.created.parse().ok(),
            comment,
            ..History::default()
        }
    }

    /// The blob, with these layers.
    pub fn to_bytes(&self, diff_ids: impl Iterator<Item = Digest>) -> Vec<u8> {
        let text = |text: &str| Json::Text(text.to_owned());
        let object = |entries: Vec<(&str, Json)>| {
            let entries = entries.into_iter();
            Json::Object(
                entries
                    .map(|(key, value)| (key.to_owned(), value))
                    .collect(),
            )
        };
        let diff_ids = diff_ids.map(|digest| Json::Text(digest.to_string()));
        let history = self.comments.iter().map(|comment| {
            object(vec![
                ("created", text(&self.created)),
                ("comment", text(comment)),
            ])
        });
        let variant = self
            .variant
            .iter()
            .map(|variant| ("variant", text(variant)));
        let document = object(
            [
                ("created", text(&self.created)),
                ("architecture", text(&self.architecture)),
            ]
            .into_iter()
            .chain(variant)
            .chain([
                ("os", text("linux")),
                ("config", self.config.clone()),
                (
                    "rootfs",
                    object(vec![
                        ("diff_ids", Json::List(diff_ids.collect())),
                        ("type", text("layers")),
                    ]),
                ),
                ("history", Json::List(history.collect())),
            ])
            .collect(),
        );
        document.to_python().into_bytes()
    }
}

/// The base image's environment, then the image's own; the last value of a name counts, at the
/// place of the first.
fn inherit_env(config: &mut Json, base: &Json) -> Result<(), InputError> {
    let entries = |config: &Json| -> Result<Vec<String>, InputError> {
        let fields = match config {
            Json::Object(_) => Fields::of(WHAT, config, false)?,
            _ => return Ok(Vec::new()),
        };
        Ok(fields
            .texts("Env")?
            .into_iter()
            .map(str::to_owned)
            .collect())
    };
    let container = base.get("config").unwrap_or(&Json::Null);
    let mut all = entries(container)?;
    all.extend(entries(config)?);
    if all.is_empty() {
        return Ok(());
    }
    let mut resolved = Json::Object(Vec::new());
    for entry in all {
        let name = entry.split('=').next().unwrap_or_default().to_owned();
        resolved.set(&name, Json::Text(entry));
    }
    if *config == Json::Null {
        *config = Json::Object(Vec::new());
    }
    if let Json::Object(resolved) = resolved {
        let values = resolved.into_iter().map(|(_, value)| value).collect();
        config.set("Env", Json::List(values));
    }
    Ok(())
}

fn add_labels(config: &mut Json, wanted: &Wanted) {
    if *config == Json::Null {
        *config = Json::Object(Vec::new());
    }
    let mut labels = match config.get("Labels") {
        Some(labels @ Json::Object(_)) => labels.clone(),
        _ => Json::Object(Vec::new()),
    };
    for (key, value) in &wanted.labels {
        labels.set(key, Json::Text(value.clone()));
    }
    config.set("Labels", labels);
}

/// When files were made. `now` would make every layer new each time: 1, as everything in a store.
pub(super) fn mtime(fields: &Fields<'_>) -> Result<u64, InputError> {
    match fields.text("mtime")? {
        // Producers before it could be chosen used the image's own time.
        "" => match fields.text("created")? {
            "now" => Ok(1),
            text => seconds(text).ok_or_else(|| wrong("created")),
        },
        "now" => Ok(1),
        text => seconds(text).ok_or_else(|| wrong("mtime")),
    }
}

fn seconds(text: &str) -> Option<u64> {
    let time: Timestamp = iso(text)?.parse().ok()?;
    u64::try_from(time.as_second()).ok()
}

fn wrong(field: &str) -> InputError {
    InputError::Field {
        what: WHAT,
        field: field.to_owned(),
        expected: "a time in ISO 8601 with its zone, or \"now\"",
    }
}

/// A time as Python's `isoformat` writes what its `fromisoformat` read.
fn iso(text: &str) -> Option<String> {
    if text.len() > 40 || text.parse::<Timestamp>().is_err() {
        return None;
    }
    let (time, zone) = match text.strip_suffix('Z') {
        Some(time) => (time, "+00:00"),
        None => text.split_at_checked(text.len().checked_sub(6)?)?,
    };
    let (date, time) = time.split_at_checked(10)?;
    let time = time.get(1..)?;
    let (whole, fraction) = time.split_once('.').unwrap_or((time, ""));
    if !zone.starts_with(['+', '-']) || whole.len() != 8 {
        return None;
    }
    let fraction: String = fraction.chars().chain("000000".chars()).take(6).collect();
    if fraction == "000000" {
        return Some(format!("{date}T{whole}{zone}"));
    }
    Some(format!("{date}T{whole}.{fraction}{zone}"))
}

/// As Python's `repr` of a string. Characters beyond ASCII count as printable.
fn write_repr(out: &mut String, text: &str) {
    let quote = if text.contains('\'') && !text.contains('"') {
        '"'
    } else {
        '\''
    };
    out.push(quote);
    for character in text.chars() {
        match character {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            character if character == quote => {
                out.push('\\');
                out.push(quote);
            }
            // Writing into a String does not fail.
            '\0'..=' ' if character != ' ' => {
                let _ = write!(out, "\\x{:02x}", u32::from(character));
            }
            '\u{7f}'..='\u{a0}' => {
                let _ = write!(out, "\\x{:02x}", u32::from(character));
            }
            other => out.push(other),
        }
    }
    out.push(quote);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_python_does() {
        for (text, expected) in [
            ("1970-01-01T00:00:01+00:00", "1970-01-01T00:00:01+00:00"),
            ("1970-01-01T00:00:01Z", "1970-01-01T00:00:01+00:00"),
            (
                "2024-02-29 12:00:00.5+02:00",
                "2024-02-29T12:00:00.500000+02:00",
            ),
            (
                "2024-02-29T12:00:00.000000+00:00",
                "2024-02-29T12:00:00+00:00",
            ),
        ] {
            assert_eq!(iso(text).as_deref(), Some(expected));
        }
        for bad in ["", "now", "1970", "1970-01-01", "1970-01-01T00:00:01", "é"] {
            assert_eq!(iso(bad), None, "{bad}");
        }
    }

    #[test]
    fn strings_are_quoted_as_python_does() {
        let repr = |text: &str| {
            let mut out = String::new();
            write_repr(&mut out, text);
            out
        };
        assert_eq!(repr("/nix/store/a-b"), "'/nix/store/a-b'");
        assert_eq!(repr("it's"), "\"it's\"");
        assert_eq!(repr("'\"\\\n\u{1}é"), "'\\'\"\\\\\\n\\x01é'");
    }
}
