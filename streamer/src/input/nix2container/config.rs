//! The config of an image of nix2container, in the bytes that its skopeo makes: compact JSON as Go
//! writes it. Only OCI's own fields survive; Docker's health check does not.
//! <https://github.com/opencontainers/image-spec/blob/v1.1.1/specs-go/v1/config.go>

use std::collections::BTreeMap;

use firn_oci::{ContainerConfig, Digest, History};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Map;

use super::WHAT;
use crate::input::foreign::{Fields, InputError, Wanted};
use crate::input::json::escape_as_go;

/// A config.
#[derive(Debug, Clone, PartialEq)]
pub struct GoConfig {
    created: Option<String>,
    architecture: String,
    config: ContainerConfig,
    history: Vec<GoHistory>,
}

/// In Go's order, each left out when it is empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
struct GoHistory {
    #[serde(skip_serializing_if = "Option::is_none")]
    created: Option<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    created_by: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    author: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    comment: String,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    empty_layer: bool,
}

#[derive(Serialize)]
struct Document<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    created: Option<&'a str>,
    architecture: &'a str,
    os: &'a str,
    config: &'a ContainerConfig,
    rootfs: RootFs<'a>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    history: &'a [GoHistory],
}

#[derive(Serialize)]
struct RootFs<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    /// `null` without layers.
    diff_ids: Option<Vec<Digest>>,
}

impl GoConfig {
    /// From the description of an image, without its layers.
    pub(super) fn new(
        fields: &Fields<'_>,
        architecture: &str,
        wanted: &Wanted,
    ) -> Result<Self, InputError> {
        let created = match wanted.created {
            Some(created) => Some(created.to_string()),
            None => time(fields, "created")?,
        };
        let mut config = match fields.get("image-config") {
            Some(found) => container(&Fields::of(WHAT, found, true)?)?,
            None => ContainerConfig::default(),
        };
        config.labels.extend(wanted.labels.clone());
        Ok(Self {
            created,
            architecture: architecture.to_owned(),
            config,
            history: Vec::new(),
        })
    }

    /// Takes a layer's history, and gives it as the rest of Firn knows it.
    pub(super) fn add_history(&mut self, layer: &Fields<'_>) -> Result<History, InputError> {
        let history = match layer.get("History") {
            Some(found) => {
                let fields = Fields::of(WHAT, found, true)?;
                GoHistory {
                    created: time(&fields, "created")?,
                    created_by: fields.text("created_by")?.to_owned(),
                    author: fields.text("author")?.to_owned(),
                    comment: fields.text("comment")?.to_owned(),
                    empty_layer: fields.flag("empty_layer")?,
                }
            }
            None => GoHistory::default(),
        };
        let known = History {
            created: history.created.as_ref().and_then(|time| time.parse().ok()),
            created_by: history.created_by.clone(),
            author: history.author.clone(),
            comment: history.comment.clone(),
            ..History::default()
        };
        self.history.push(history);
        Ok(known)
    }

    /// The blob, with these layers.
    pub fn to_bytes(&self, diff_ids: impl Iterator<Item = Digest>) -> Vec<u8> {
        let diff_ids: Vec<Digest> = diff_ids.collect();
        let rootfs = if diff_ids.is_empty() {
            RootFs {
                kind: "",
                diff_ids: None,
            }
        } else {
            RootFs {
                kind: "layers",
                diff_ids: Some(diff_ids),
            }
        };
        let document = Document {
            created: self.created.as_deref(),
            architecture: &self.architecture,
            os: "linux",
            config: &self.config,
            rootfs,
            history: &self.history,
        };
        // Structs and maps with string keys: writing them cannot fail.
        let json = serde_json::to_string(&document).unwrap_or_default();
        escape_as_go(&json).into_bytes()
    }
}

/// A time as Go reads and writes it again.
fn time(fields: &Fields<'_>, field: &str) -> Result<Option<String>, InputError> {
    let text = fields.text(field)?;
    if text.is_empty() {
        return Ok(None);
    }
    let wrong = || InputError::Field {
        what: WHAT,
        field: field.to_owned(),
        expected: "a time as in RFC 3339",
    };
    let plain = text.len() <= 40 && text.contains('T');
    if !plain || text.parse::<Timestamp>().is_err() {
        return Err(wrong());
    }
    let (time, zone) = match text
        .strip_suffix('Z')
        .or_else(|| text.strip_suffix("+00:00"))
    {
        Some(time) => (time, "Z"),
        None => text.split_at_checked(text.len() - 6).ok_or_else(wrong)?,
    };
    let time = match time.split_once('.') {
        Some((whole, fraction)) => match fraction.trim_end_matches('0') {
            "" => whole.to_owned(),
            fraction => format!("{whole}.{fraction}"),
        },
        None => time.to_owned(),
    };
    Ok(Some(format!("{time}{zone}")))
}

fn container(fields: &Fields<'_>) -> Result<ContainerConfig, InputError> {
    let texts = |field| -> Result<Vec<String>, InputError> {
        Ok(fields
            .texts(field)?
            .into_iter()
            .map(str::to_owned)
            .collect())
    };
    let set = |field| -> Result<BTreeMap<String, Map<String, serde_json::Value>>, InputError> {
        let keys = fields.keys(field)?.into_iter();
        Ok(keys.map(|key| (key.to_owned(), Map::new())).collect())
    };
    Ok(ContainerConfig {
        user: fields.text("User")?.to_owned(),
        exposed_ports: set("ExposedPorts")?,
        env: texts("Env")?,
        entrypoint: texts("Entrypoint")?,
        cmd: texts("Cmd")?,
        volumes: set("Volumes")?,
        working_dir: fields.text("WorkingDir")?.to_owned(),
        labels: fields.map("Labels")?,
        stop_signal: fields.text("StopSignal")?.to_owned(),
        args_escaped: fields.flag("ArgsEscaped")?,
        ..ContainerConfig::default()
    })
}
