//! What a flake's attribute is: one expression asks for everything, so that Nix runs once; and its
//! answer. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use crate::store_path::StorePath;

/// What evaluation tells. One expression asks for everything, so that Nix runs once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evaluated {
    /// The derivation.
    pub drv_path: StorePath,
    /// What the attribute is.
    pub value: Value,
}

/// What an attribute is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
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
struct Told {
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

/// What `nix eval --json --apply` asks of a value. `or` answers for values that are no sets, too.
pub const QUESTION: &str = r#"value:
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

/// What Nix answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Something that an image can be made of.
    Evaluated(Evaluated),
    /// Something else, of this type.
    Other {
        /// As `builtins.typeOf` says it.
        kind: String,
    },
}

/// Reads the answer to [`QUESTION`].
pub fn answer(json: &[u8]) -> Result<Answer, serde_json::Error> {
    let told: Told = serde_json::from_slice(json)?;
    let Some(drv_path) = told.drv_path else {
        return Ok(Answer::Other { kind: told.kind });
    };
    let value = match told.document {
        Some(document) => description(document, told.context),
        None => Value::Derivation {
            output: told.output.unwrap_or_else(|| "out".into()),
            main_program: told.main_program,
        },
    };
    Ok(Answer::Evaluated(Evaluated { drv_path, value }))
}

/// What `nix build` is asked for, to have these outputs of derivations.
pub fn installables(outputs: &BTreeMap<StorePath, BTreeSet<String>>) -> Vec<String> {
    let each = outputs.iter().map(|(drv, outputs)| {
        let outputs: Vec<&str> = outputs.iter().map(String::as_str).collect();
        format!("{drv}^{}", outputs.join(","))
    });
    each.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::path;

    #[test]
    fn a_derivation_is_told_with_its_output() {
        let drv = path("app.drv");
        let json = format!(
            r#"{{"kind":"derivation","drvPath":"{drv}","output":"bin","mainProgram":"app"}}"#
        );
        let Answer::Evaluated(told) = answer(json.as_bytes()).unwrap() else {
            panic!("nothing was evaluated");
        };
        assert_eq!(told.drv_path, drv);
        let value = Value::Derivation {
            output: "bin".into(),
            main_program: Some("app".into()),
        };
        assert_eq!(told.value, value);
    }

    #[test]
    fn a_description_is_told_with_all_that_it_mentions() {
        let (drv, lib, source) = (path("app.drv"), path("lib.drv"), path("source"));
        let json = format!(
            r#"{{"kind":"description","drvPath":"{drv}","document":"{{}}","context":{{
                "{lib}":{{"outputs":["out","dev"]}},"{source}":{{"path":true}}}}}}"#
        );
        let Answer::Evaluated(told) = answer(json.as_bytes()).unwrap() else {
            panic!("nothing was evaluated");
        };
        let Value::Description {
            outputs, sources, ..
        } = told.value
        else {
            panic!("no description");
        };
        assert_eq!(installables(&outputs), [format!("{lib}^dev,out")]);
        assert_eq!(sources, [source].into());
    }

    #[test]
    fn anything_else_is_told_by_its_type() {
        let told = answer(br#"{"kind":"set"}"#).unwrap();
        assert_eq!(told, Answer::Other { kind: "set".into() });
        assert!(answer(b"[]").is_err());
    }
}
