//! The tables of `manifests/`: what the API server refuses and accepts, as whole objects. Used
//! here against the schema, and in `e2e/` against a real API server.

use serde::Deserialize;
use serde_json::{Value, json};

/// One row of a table.
#[derive(Debug)]
pub(crate) struct Case {
    /// What it is about.
    pub(crate) name: String,
    /// The object to create.
    pub(crate) object: Value,
    /// Merge patch of the created object. With one, the object itself is accepted.
    pub(crate) update: Option<Value>,
    /// Part of the API server's message. Empty: accepted.
    pub(crate) message: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    name: String,
    #[serde(default)]
    base: Base,
    #[serde(default)]
    change: Value,
    update: Option<Value>,
    #[serde(default)]
    message: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Base {
    #[default]
    Image,
    Build,
}

/// What is refused.
pub(crate) fn refused() -> Vec<Case> {
    cases(include_str!("../manifests/refused.yaml"))
}

/// What is accepted.
pub(crate) fn accepted() -> Vec<Case> {
    cases(include_str!("../manifests/accepted.yaml"))
}

fn cases(table: &str) -> Vec<Case> {
    let base = |text| serde_yaml_ng::from_str::<Value>(text).unwrap();
    let image = base(include_str!("../manifests/image.yaml"));
    let build = base(include_str!("../manifests/build.yaml"));
    let rows: Vec<Row> = serde_yaml_ng::from_str(table).unwrap();
    let case = |row: Row| {
        let mut object = match row.base {
            Base::Image => image.clone(),
            Base::Build => build.clone(),
        };
        if !row.change.is_null() {
            merge(&mut object, &row.change);
        }
        Case {
            name: row.name,
            object,
            update: row.update,
            message: row.message,
        }
    };
    rows.into_iter().map(case).collect()
}

/// JSON merge patch, RFC 7386: objects are merged, null removes, everything else replaces.
pub(crate) fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        target.clone_from(patch);
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    let target = target.as_object_mut().unwrap();
    for (key, change) in patch {
        if change.is_null() {
            target.remove(key);
        } else {
            merge(target.entry(key).or_insert(Value::Null), change);
        }
    }
}
