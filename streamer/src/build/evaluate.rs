//! From the attribute to a derivation.

use std::collections::{BTreeMap, BTreeSet};

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
    /// What the attribute is.
    pub(super) value: Value,
}

/// What an attribute is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    /// A derivation.
    Derivation {
        /// Which of its outputs is meant.
        output: String,
        /// `meta.mainProgram`.
        main_program: Option<String>,
    },
    /// An image description. Its derivation is never built: it has the description and all that the
    /// description refers to as its inputs, so that it is another one whenever they are.
    Description {
        /// The document.
        document: String,
        /// Derivations with the outputs that are meant.
        outputs: BTreeMap<StorePath, BTreeSet<String>>,
        /// Store paths that are there since it was evaluated.
        sources: BTreeSet<StorePath>,
    },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    /// What kind of value it is; `derivation` if it is one.
    kind: String,
    drv_path: Option<StorePath>,
    output: Option<String>,
    main_program: Option<String>,
    document: Option<String>,
    #[serde(default)]
    context: BTreeMap<StorePath, Context>,
}

/// What a text of Nix says of a store path.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Context {
    #[serde(default)]
    outputs: BTreeSet<String>,
    #[serde(default)]
    path: bool,
}

/// `or` answers for values that are no sets, too.
const QUESTION: &str = r#"value:
if value.type or null == "derivation" then {
  kind = "derivation";
  drvPath = value.drvPath;
  output = value.outputName or "out";
  mainProgram = value.meta.mainProgram or null;
} else if value.firnImage or null != null then
  let document = builtins.toJSON value; in {
    kind = "description";
    document = builtins.unsafeDiscardStringContext document;
    context = builtins.getContext document;
    drvPath = (derivation {
      name = "firn-image";
      system = "none";
      builder = "none";
      inherit document;
    }).drvPath;
  }
else { kind = builtins.typeOf value; }"#;

fn description(document: String, context: BTreeMap<StorePath, Context>) -> Value {
    let mut outputs = BTreeMap::new();
    let mut sources = BTreeSet::new();
    for (path, said) in context {
        if said.path {
            sources.insert(path.clone());
        }
        if !said.outputs.is_empty() {
            outputs.insert(path, said.outputs);
        }
    }
    Value::Description {
        document,
        outputs,
        sources,
    }
}

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
                document: Some(document),
                context,
                ..
            } => Ok(Evaluated {
                drv_path,
                value: description(document, context),
            }),
            Answer {
                drv_path: Some(drv_path),
                output,
                main_program,
                ..
            } => Ok(Evaluated {
                drv_path,
                value: Value::Derivation {
                    output: output.unwrap_or_else(|| "out".into()),
                    main_program,
                },
            }),
            Answer { kind, .. } => Err(Failure::new(
                Reason::NotAnImage,
                format!(
                    "attribute {} is a {kind}, neither a package nor an image description: name an attribute that is a derivation",
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
