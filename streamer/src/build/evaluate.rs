//! From the attribute to a derivation.

use firn_crd::exit::Reason;
use serde::Deserialize;

use super::Work;
use crate::failure::{Failure, Result};
use crate::nix::attribute::{self, Attribute};
use crate::nix::log::Log;
use crate::nix::words::Doing;
use crate::store_path::StorePath;

/// What evaluation tells. One expression asks for everything, so that Nix runs once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Evaluated {
    /// The derivation.
    pub(super) drv_path: StorePath,
    /// Which of its outputs is meant.
    pub(super) output: String,
    /// `meta.mainProgram`.
    pub(super) main_program: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    /// What kind of value it is; `derivation` if it is one.
    kind: String,
    drv_path: Option<StorePath>,
    output: Option<String>,
    main_program: Option<String>,
}

/// `or` answers for values that are no sets, too.
const QUESTION: &str = r#"value:
if value.type or null == "derivation" then {
  kind = "derivation";
  drvPath = value.drvPath;
  output = value.outputName or "out";
  mainProgram = value.meta.mainProgram or null;
} else { kind = builtins.typeOf value; }"#;

impl Work<'_> {
    pub(super) async fn evaluate(&self, log: &mut Log) -> Result<Evaluated> {
        let installable = self.installable()?;
        tracing::info!(%installable, "evaluating");
        let arguments = [
            "eval",
            "--json",
            "--no-update-lock-file",
            "--no-write-lock-file",
            "--apply",
            QUESTION,
            &installable,
        ];
        let finished = self.nix.run(&arguments, log).await;
        let finished = finished.map_err(|error| self.not_run(&error, Doing::Evaluating, log))?;
        if !finished.status.success() {
            return Err(self.failure(Doing::Evaluating, finished.status.code(), log));
        }
        let answer: Answer = serde_json::from_slice(&finished.stdout).map_err(|error| {
            Failure::new(
                Reason::InternalError,
                format!("nix eval gave an answer that is not understood: {error}"),
            )
        })?;
        match answer {
            Answer {
                drv_path: Some(drv_path),
                output,
                main_program,
                ..
            } => Ok(Evaluated {
                drv_path,
                output: output.unwrap_or_else(|| "out".into()),
                main_program,
            }),
            Answer { kind, .. } => Err(Failure::new(
                Reason::NotAnImage,
                format!(
                    "attribute {} is a {kind} and no package: name an attribute that is a derivation",
                    self.build.attribute
                ),
            )),
        }
    }

    /// Flake and attribute. The dot makes Nix take the path as it is.
    fn installable(&self) -> Result<String> {
        let attribute: Attribute =
            self.build
                .attribute
                .parse()
                .map_err(|error: attribute::InvalidAttribute| {
                    Failure::new(Reason::AttributeNotFound, error.to_string())
                })?;
        let system = attribute::system(&self.build.platform).ok_or_else(|| {
            Failure::new(
                Reason::InternalError,
                format!("platform {:?} has no name in Nix", self.build.platform),
            )
        })?;
        Ok(format!("{}#.{}", self.flake, attribute.resolved(system)))
    }
}
