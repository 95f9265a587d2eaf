//! A failure in status: what went wrong last, whose business it is, and when it is tried again. The
//! words are those of [`crate::exit`]. Pure.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::exit::{self, Class};
use crate::report::{first_bytes, last_bytes};

/// Longest `message` and `logTail`, in bytes. The schema counts characters: never more.
pub const TEXT_MAX: usize = 2048;

/// What went wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// One stable word.
    #[schemars(length(max = 128))]
    pub reason: String,
    /// `Transient`: tried again. `User`: not tried again until something changes that you control.
    /// `Platform`: for the people who run the cluster; tried again within limits.
    pub class: Class,
    /// What happened and what to do, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048))]
    pub message: Option<String>,
    /// The NixImageBuild that failed. Absent in a NixImageBuild's own status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub build: Option<String>,
    /// The platform that failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub platform: Option<String>,
    /// The container that failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub container: Option<String>,
    /// How it exited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// The derivation that failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub drv_path: Option<String>,
    /// The last lines of its log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048))]
    pub log_tail: Option<String>,
    /// How often it was tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempts: Option<i32>,
    /// When it is tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_retry_at: Option<Time>,
    /// How long the registry or forge asked to wait, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_seconds: Option<i32>,
}

impl Failure {
    /// A failure with nothing known but why. The message is cut to [`TEXT_MAX`].
    pub fn new(reason: exit::Reason, message: &str) -> Self {
        Self {
            reason: reason.to_string(),
            class: reason.class(),
            message: (!message.is_empty()).then(|| first_bytes(message, TEXT_MAX).to_owned()),
            build: None,
            platform: None,
            container: None,
            exit_code: None,
            drv_path: None,
            log_tail: None,
            attempts: None,
            next_retry_at: None,
            retry_after_seconds: None,
        }
    }

    /// The same with the end of a log, cut to [`TEXT_MAX`].
    #[must_use]
    pub fn with_log_tail(mut self, log: &str) -> Self {
        self.log_tail = (!log.is_empty()).then(|| last_bytes(log, TEXT_MAX).to_owned());
        self
    }

    /// The reason as this version knows it. `None`: another version wrote it.
    pub fn known_reason(&self) -> Option<exit::Reason> {
        self.reason.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_cut_at_a_characters_border() {
        let failure = Failure::new(exit::Reason::BuildFailed, &"ü".repeat(TEXT_MAX))
            .with_log_tail(&format!("x{}", "é".repeat(TEXT_MAX)));
        assert_eq!(failure.message.unwrap().len(), TEXT_MAX);
        assert_eq!(failure.log_tail.unwrap().len(), TEXT_MAX);
    }

    #[test]
    fn the_reason_of_another_version_can_still_be_read() {
        let failure: Failure =
            serde_json::from_str(r#"{"reason":"MoonPhase","class":"Platform"}"#).unwrap();
        assert_eq!(failure.known_reason(), None);
        assert_eq!(failure.class, Class::Platform);
    }
}
