//! The image config: what a runtime needs to start a container, and the layers' diffIDs.
//! <https://github.com/opencontainers/image-spec/blob/main/config.md>
//!
//! Docker's `Healthcheck`, `OnBuild` and `Shell` are no part of the OCI specification but legal
//! extra keys; Docker honours them, Kubernetes ignores them.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::json::{self, ParseError, null_as_default};
use crate::{Digest, Platform};

/// The config document of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageConfig {
    /// When the image was made, for people. `None`: not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<Timestamp>,
    /// Who made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// Architecture, operating system, variant; further keys of the document that are not known.
    #[serde(flatten)]
    pub platform: Platform,
    /// How a container is started.
    #[serde(default, deserialize_with = "null_as_default")]
    pub config: ContainerConfig,
    /// The layers, uncompressed.
    pub rootfs: RootFs,
    /// One entry per layer, and one per step that made none.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null_as_default"
    )]
    pub history: Vec<History>,
}

impl ImageConfig {
    /// Reads a config.
    ///
    /// # Errors
    /// The bytes are no image config.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ParseError> {
        json::from_bytes("an image config", bytes)
    }

    /// Compact JSON, the same bytes for the same config.
    pub fn to_bytes(&self) -> Vec<u8> {
        json::to_bytes(self)
    }
}

/// Defaults for containers of the image. Empty means: not set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ContainerConfig {
    /// `user`, `uid`, `user:group` or `uid:gid`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// `80/tcp` and so on.
    #[serde(
        default,
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "null_as_default"
    )]
    pub exposed_ports: BTreeMap<String, Map<String, Value>>,
    /// `NAME=value`.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null_as_default"
    )]
    pub env: Vec<String>,
    /// The program and its first arguments.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null_as_default"
    )]
    pub entrypoint: Vec<String>,
    /// Further arguments, which the user may replace.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null_as_default"
    )]
    pub cmd: Vec<String>,
    /// Paths that hold data.
    #[serde(
        default,
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "null_as_default"
    )]
    pub volumes: BTreeMap<String, Map<String, Value>>,
    /// Where the program starts.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub working_dir: String,
    /// Labels, sorted.
    #[serde(
        default,
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "null_as_default"
    )]
    pub labels: BTreeMap<String, String>,
    /// The signal that asks the program to end.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub stop_signal: String,
    /// Windows: the command is escaped already.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub args_escaped: bool,
    /// Docker's health check.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Healthcheck>,
    /// Docker's triggers for builds on top of this image.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null_as_default"
    )]
    pub on_build: Vec<String>,
    /// Docker's shell for the shell form of commands.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null_as_default"
    )]
    pub shell: Vec<String>,
    /// Fields this crate has no use for.
    #[serde(flatten)]
    pub extra: BTreeMap<String, Value>,
}

/// Docker's health check. Durations in nanoseconds; 0 means: inherit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Healthcheck {
    /// `["CMD", …]`, `["CMD-SHELL", …]` or `["NONE"]`; empty: inherit.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null_as_default"
    )]
    pub test: Vec<String>,
    /// Between two checks.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub interval: i64,
    /// After which a check counts as hung.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub timeout: i64,
    /// In which failures do not count.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub start_period: i64,
    /// Between two checks during the start period.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub start_interval: i64,
    /// Failures in a row that make the container unhealthy.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub retries: i64,
    /// Fields this crate has no use for.
    #[serde(flatten)]
    pub extra: BTreeMap<String, Value>,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde's skip_serializing_if passes a reference"
)]
const fn is_zero(number: &i64) -> bool {
    *number == 0
}

/// The layers by the digests of their uncompressed tars, bottom first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootFs {
    /// Always `layers`; some tools refuse an image without it.
    #[serde(rename = "type")]
    pub kind: String,
    /// The diffIDs.
    #[serde(default, deserialize_with = "null_as_default")]
    pub diff_ids: Vec<Digest>,
}

/// How a layer came to be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// When.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<Timestamp>,
    /// By which command.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub created_by: String,
    /// By whom.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub author: String,
    /// What else there is to say.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub comment: String,
    /// The step made no layer.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub empty_layer: bool,
    /// Fields this crate has no use for.
    #[serde(flatten)]
    pub extra: BTreeMap<String, Value>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    /// Every field set, and a stranger at each level.
    const FULL: &str = r#"{
        "architecture":"arm64","os":"linux","variant":"v8","os.version":"1","moby.buildkit.x":[1],
        "author":"a","created":"0001-01-01T00:00:00Z",
        "config":{"User":"7:8","ExposedPorts":{"80/tcp":{}},"Env":["A=1"],"Entrypoint":["/e"],
          "Cmd":["c"],"Volumes":{"/d":{}},"WorkingDir":"/w","Labels":{"z":"1","a":"2"},
          "StopSignal":"SIGINT","ArgsEscaped":true,"OnBuild":["RUN x"],"Shell":["/bin/sh"],
          "Healthcheck":{"Test":["CMD","t"],"Interval":1,"Timeout":2,"StartPeriod":3,
            "StartInterval":4,"Retries":5,"New":6},
          "Tty":false},
        "rootfs":{"type":"layers","diff_ids":
          ["sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"]},
        "history":[{"created":"1970-01-01T00:00:01+00:00","created_by":"b","author":"u",
          "comment":"c","empty_layer":true}]}"#;

    #[test]
    fn nothing_of_a_foreign_config_is_lost() {
        let config = ImageConfig::from_bytes(FULL.as_bytes()).unwrap();
        let before: Value = serde_json::from_str(FULL).unwrap();
        let mut after: Value = serde_json::from_slice(&config.to_bytes()).unwrap();
        // The one difference: the same instant, spelled in UTC.
        after["history"][0]["created"] = "1970-01-01T00:00:01+00:00".into();
        assert_eq!(before, after);
    }

    #[test]
    fn a_foreign_number_is_written_as_it_was_read() {
        let foreign =
            r#"{"architecture":"a","os":"linux","rootfs":{"type":"layers"},"x":1.5e+303}"#;
        let config = ImageConfig::from_bytes(foreign.as_bytes()).unwrap();
        assert_eq!(ImageConfig::from_bytes(&config.to_bytes()).unwrap(), config);
    }

    #[test]
    fn bytes_have_one_order() {
        let config = ImageConfig::from_bytes(FULL.as_bytes()).unwrap();
        expect![[r#"{"created":"0001-01-01T00:00:00Z","author":"a","architecture":"arm64","os":"linux","variant":"v8","moby.buildkit.x":[1],"os.version":"1","config":{"User":"7:8","ExposedPorts":{"80/tcp":{}},"Env":["A=1"],"Entrypoint":["/e"],"Cmd":["c"],"Volumes":{"/d":{}},"WorkingDir":"/w","Labels":{"a":"2","z":"1"},"StopSignal":"SIGINT","ArgsEscaped":true,"Healthcheck":{"Test":["CMD","t"],"Interval":1,"Timeout":2,"StartPeriod":3,"StartInterval":4,"Retries":5,"New":6},"OnBuild":["RUN x"],"Shell":["/bin/sh"],"Tty":false},"rootfs":{"type":"layers","diff_ids":["sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"]},"history":[{"created":"1970-01-01T00:00:01Z","created_by":"b","author":"u","comment":"c","empty_layer":true}]}"#]]
        .assert_eq(&String::from_utf8(config.to_bytes()).unwrap());
    }

    #[test]
    fn go_writes_null_for_what_is_empty() {
        let config = ImageConfig::from_bytes(
            br#"{"architecture":"amd64","os":"linux","created":null,"history":null,
                "config":{"Env":null,"Entrypoint":null,"Cmd":null,"Labels":null,"Volumes":null},
                "rootfs":{"type":"layers","diff_ids":null}}"#,
        )
        .unwrap();
        assert_eq!(config.config, ContainerConfig::default());
        assert_eq!(config.rootfs.diff_ids, []);
    }

    #[test]
    fn a_config_without_a_platform_is_refused() {
        assert!(ImageConfig::from_bytes(br#"{"rootfs":{"type":"layers"}}"#).is_err());
        assert!(ImageConfig::from_bytes(b"").is_err());
    }
}
