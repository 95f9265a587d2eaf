//! What a pod tells the operator: the container's termination message.
//!
//! The kubelet keeps 4096 bytes of one message and 12288 bytes of all containers of a pod
//! together, cutting where it likes. So a report has at most [`REPORT_MAX`] bytes, which leaves
//! room for six containers, and what does not parse is taken for the tail of a log.

use serde::{Deserialize, Serialize};

use crate::exit::Reason;
use crate::run::CONTRACT;

/// Longest report, in bytes.
pub const REPORT_MAX: usize = 2048;

/// One container's result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// [`CONTRACT`] of the builder image.
    #[serde(rename = "v")]
    pub contract: u32,
    /// How it ended.
    #[serde(rename = "r")]
    pub result: Outcome,
    /// What took how long, in order.
    #[serde(rename = "s", default, skip_serializing_if = "Vec::is_empty")]
    pub stages: Vec<Stage>,
}

/// How a container ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// Check, fetch or build did their part; the next container goes on.
    Passed,
    /// The derivation is the published one and its image is still there: nothing was pushed.
    NotChanged {
        /// The derivation, as build claims it.
        drv: String,
    },
    /// The image is in the registry. Believed from push only.
    Pushed(Box<Pushed>),
    /// Tags were moved to an image that was there already.
    Published {
        /// The image's digest.
        digest: String,
        /// Media type of what the digest names, if it was made just now: an index.
        #[serde(rename = "mt", default, skip_serializing_if = "Option::is_none")]
        media_type: Option<String>,
        /// Something a user should know.
        #[serde(rename = "n", default, skip_serializing_if = "Option::is_none")]
        note: Option<String>,
        /// Places in the run's tags of those that point to somebody else's image and were kept.
        #[serde(rename = "k", default, skip_serializing_if = "Vec::is_empty")]
        kept: Vec<u8>,
    },
    /// It failed.
    Failed(Box<Failed>),
}

/// An image in the registry, and what it took to get it there. Sizes in bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pushed {
    /// `linux/amd64`.
    #[serde(rename = "p")]
    pub platform: String,
    /// Digest of the manifest.
    #[serde(rename = "d")]
    pub digest: String,
    /// Media type of the manifest.
    #[serde(rename = "mt")]
    pub media_type: String,
    /// Compressed size of config and layers.
    #[serde(rename = "sz")]
    pub size_bytes: i64,
    /// Layers of the image.
    #[serde(rename = "lt")]
    pub layers_total: i32,
    /// Layers that were sent.
    #[serde(rename = "lp")]
    pub layers_pushed: i32,
    /// Layers the registry took from another of its repositories.
    #[serde(rename = "lm")]
    pub layers_mounted: i32,
    /// Layers that were there already.
    #[serde(rename = "lr")]
    pub layers_reused: i32,
    /// Bytes of blobs sent: layers and config.
    #[serde(rename = "bp")]
    pub bytes_pushed: i64,
    /// The derivation, as build claims it.
    #[serde(rename = "drv")]
    pub drv_path: String,
    /// Its output.
    #[serde(rename = "out")]
    pub out_path: String,
    /// Something a user should know, such as that the image has no entry point.
    #[serde(rename = "n", default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// Places in the run's tags of those that point to somebody else's image and were kept.
    #[serde(rename = "k", default, skip_serializing_if = "Vec::is_empty")]
    pub kept: Vec<u8>,
}

/// Why it failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failed {
    /// The stable word.
    #[serde(rename = "why")]
    pub reason: Reason,
    /// One or more sentences for people: the thing, the value, the cause, the remedy.
    #[serde(rename = "m")]
    pub message: String,
    /// The derivation that failed.
    #[serde(rename = "drv", default, skip_serializing_if = "Option::is_none")]
    pub drv_path: Option<String>,
    /// The last lines of its log.
    #[serde(rename = "log", default, skip_serializing_if = "Option::is_none")]
    pub log_tail: Option<String>,
    /// How long the registry or forge asked us to wait, in seconds.
    #[serde(rename = "ra", default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<u32>,
}

/// One stretch of work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stage {
    /// What was done.
    #[serde(rename = "n")]
    pub name: StageName,
    /// When it began, in milliseconds since the epoch, by the node's clock.
    #[serde(rename = "t")]
    pub start: i64,
    /// How long it took, in milliseconds.
    #[serde(rename = "ms")]
    pub millis: i64,
}

/// The stages of a build as status shows them.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    schemars::JsonSchema,
    strum::Display,
    strum::IntoStaticStr,
    strum::EnumString,
)]
pub enum StageName {
    /// Waiting for a free slot.
    Queue,
    /// From the Job's start until the pod runs.
    Schedule,
    /// Source and flake inputs.
    Fetch,
    /// The flake.
    Evaluate,
    /// Downloads from substituters.
    Substitute,
    /// Derivations.
    Build,
    /// Layers and manifest.
    Push,
    /// The index of several platforms.
    Index,
    /// Signatures.
    Sign,
    /// Tags.
    Tag,
}

impl Report {
    /// A report of this version.
    pub const fn new(result: Outcome, stages: Vec<Stage>) -> Self {
        Self {
            contract: CONTRACT,
            result,
            stages,
        }
    }

    /// Reads a termination message. `None`: it is not a report, but the tail of a log, or it was
    /// written by a builder image of another contract.
    pub fn parse(message: &str) -> Option<Self> {
        serde_json::from_str::<Self>(message.trim())
            .ok()
            .filter(|report| report.contract == CONTRACT)
    }

    /// The termination message: at most [`REPORT_MAX`] bytes of JSON. What is too long loses the
    /// beginning of the log, then the end of the message, then everything but its reason. A failure
    /// stays one; a success that does not fit is one, since nobody could tell what it came to.
    pub fn to_message(&self) -> String {
        let mut report = self.clone();
        loop {
            let text = serde_json::to_string(&report).unwrap_or_default();
            let excess = text.len().saturating_sub(REPORT_MAX);
            if excess == 0 {
                return text;
            }
            if !report.shorten(excess) {
                return serde_json::to_string(&self.barest()).unwrap_or_default();
            }
        }
    }

    /// What is left where nothing more can be dropped.
    fn barest(&self) -> Self {
        let reason = match &self.result {
            Outcome::Failed(failed) => failed.reason,
            _ => Reason::InternalError,
        };
        let failed = Failed {
            reason,
            message: "the report is too long: see the container's log".to_owned(),
            drv_path: None,
            log_tail: None,
            retry_after: None,
        };
        Self::new(Outcome::Failed(Box::new(failed)), Vec::new())
    }

    /// Makes the report smaller by about `excess` bytes. False: nothing is left to drop.
    fn shorten(&mut self, excess: usize) -> bool {
        match &mut self.result {
            Outcome::Failed(failed) => match &mut failed.log_tail {
                Some(log) if !log.is_empty() => {
                    *log = last_bytes(log, log.len().saturating_sub(excess)).to_owned();
                    if log.is_empty() {
                        failed.log_tail = None;
                    }
                    true
                }
                _ if failed.message.len() > 64 => {
                    let keep = failed.message.len().saturating_sub(excess).max(64);
                    failed
                        .message
                        .truncate(first_bytes(&failed.message, keep - 1).len());
                    true
                }
                _ => drop_stages(&mut self.stages) || failed.drv_path.take().is_some(),
            },
            Outcome::Pushed(pushed) if pushed.note.is_some() => {
                pushed.note = None;
                true
            }
            _ => drop_stages(&mut self.stages),
        }
    }
}

fn drop_stages(stages: &mut Vec<Stage>) -> bool {
    let had = !stages.is_empty();
    stages.clear();
    had
}

/// The longest beginning of `text` with at most `max` bytes that ends at a character's border.
pub fn first_bytes(text: &str, max: usize) -> &str {
    let mut end = max.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default()
}

/// The longest end of `text` with at most `max` bytes that begins at a character's border.
pub fn last_bytes(text: &str, max: usize) -> &str {
    let mut start = text.len().saturating_sub(max);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    text.get(start..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn failed(message: &str, log: &str) -> Report {
        let stage = |name| Stage {
            name,
            start: 1_800_000_000_000,
            millis: 86_400_000,
        };
        Report::new(
            Outcome::Failed(Box::new(Failed {
                reason: Reason::SubstituterUnavailable,
                message: message.into(),
                drv_path: Some(format!("/nix/store/{}.drv", "x".repeat(211))),
                log_tail: Some(log.into()),
                retry_after: Some(u32::MAX),
            })),
            vec![
                stage(StageName::Evaluate),
                stage(StageName::Substitute),
                stage(StageName::Build),
            ],
        )
    }

    #[test]
    fn the_largest_success_fits() {
        let report = Report::new(
            Outcome::Pushed(Box::new(Pushed {
                platform: "linux/riscv64".into(),
                digest: format!("sha256:{}", "f".repeat(64)),
                media_type: "application/vnd.oci.image.manifest.v1+json".into(),
                size_bytes: i64::MAX,
                layers_total: i32::MAX,
                layers_pushed: i32::MAX,
                layers_mounted: i32::MAX,
                layers_reused: i32::MAX,
                bytes_pushed: i64::MAX,
                drv_path: "d".repeat(256),
                out_path: "o".repeat(256),
                note: Some("n".repeat(256)),
                kept: (0..16).collect(),
            })),
            vec![
                Stage {
                    name: StageName::Push,
                    start: i64::MAX,
                    millis: i64::MAX
                };
                4
            ],
        );
        let message = report.to_message();
        assert!(message.len() <= REPORT_MAX, "{} bytes", message.len());
        assert_eq!(Report::parse(&message), Some(report));
    }

    #[test]
    fn a_log_tail_is_not_taken_for_a_report() {
        assert_eq!(Report::parse("thread 'main' panicked"), None);
        assert_eq!(Report::parse(r#"{"v":0,"r":"passed"}"#), None);
    }

    /// Whatever a name of a derivation may be.
    #[test]
    fn a_failure_that_cannot_be_shortened_stays_one() {
        let mut report = failed("m", "l");
        let Outcome::Failed(failed) = &mut report.result else {
            panic!("no failure");
        };
        failed.drv_path = Some("\u{1}".repeat(REPORT_MAX));
        // Each of these bytes takes six in JSON.
        failed.message = "\u{1}".repeat(REPORT_MAX);
        let text = report.to_message();
        assert!(text.len() <= REPORT_MAX);
        let Some(Outcome::Failed(read)) = Report::parse(&text).map(|read| read.result) else {
            panic!("{text}");
        };
        assert_eq!(read.reason, Reason::SubstituterUnavailable);
        assert_eq!(read.drv_path, None);
    }

    #[test]
    fn a_result_that_does_not_fit_is_not_taken_for_another() {
        let report = Report::new(
            Outcome::NotChanged {
                drv: "x".repeat(REPORT_MAX),
            },
            Vec::new(),
        );
        let Some(Outcome::Failed(read)) = Report::parse(&report.to_message()).map(|r| r.result)
        else {
            panic!("no failure");
        };
        assert_eq!(read.reason, Reason::InternalError);
    }

    proptest! {
        #[test]
        fn a_failure_of_any_length_fits_and_keeps_its_reason(message in ".{0,3000}", log in "(?s).{0,5000}") {
            let text = failed(&message, &log).to_message();
            prop_assert!(text.len() <= REPORT_MAX);
            let Some(Report { result: Outcome::Failed(read), .. }) = Report::parse(&text) else {
                return Err(TestCaseError::fail(text));
            };
            prop_assert_eq!(read.reason, Reason::SubstituterUnavailable);
            prop_assert!(log.ends_with(read.log_tail.as_deref().unwrap_or_default()));
        }
    }
}
