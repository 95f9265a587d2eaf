//! What the derived schemas need besides: bounds that attributes cannot express, and the last
//! touches on the generated CRDs. Pure.

use kube::CustomResourceExt;
use kube::core::Rule;
use schemars::transform::Transform;
use schemars::{Schema, SchemaGenerator, json_schema};
use serde_json::{Map, Value, json};

use crate::{NixImage, NixImageBuild};

/// What the API server takes for a quantity.
const QUANTITY: &str =
    r"^(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))(([KMGTPE]i)|[numkMGTPE]|([eE][+-]?[0-9]+))?$";

/// Adds a CEL rule to the items of a list.
#[derive(Debug)]
pub(crate) struct Each(pub(crate) Rule);

impl Transform for Each {
    fn transform(&mut self, schema: &mut Schema) {
        if let Some(items) = schema.get_mut("items").and_then(Value::as_object_mut) {
            items.insert("x-kubernetes-validations".into(), json!([self.0]));
        }
    }
}

/// Bounds a map of strings.
#[derive(Debug)]
pub(crate) struct Entries {
    /// Most entries.
    pub(crate) count: u32,
    /// Longest value, in characters.
    pub(crate) length: u32,
}

impl Transform for Entries {
    fn transform(&mut self, schema: &mut Schema) {
        schema.insert("maxProperties".into(), json!(self.count));
        schema.insert(
            "additionalProperties".into(),
            json!({"type": "string", "maxLength": self.length}),
        );
    }
}

/// A quantity: a number, or a string such as `8Gi`.
pub(crate) fn quantity(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "x-kubernetes-int-or-string": true,
        "maxLength": 64,
        "pattern": QUANTITY,
    })
}

/// Quantities by resource.
pub(crate) fn quantities(generator: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 16,
        "additionalProperties": quantity(generator),
    })
}

/// Tolerations of a pod, bounded.
pub(crate) fn tolerations(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 32,
        "x-kubernetes-list-type": "atomic",
        "items": {
            "type": "object",
            "properties": {
                "key": {"type": "string", "maxLength": 316},
                "operator": {"type": "string", "enum": ["Exists", "Equal"]},
                "value": {"type": "string", "maxLength": 63},
                "effect": {"type": "string", "enum": ["NoSchedule", "PreferNoSchedule", "NoExecute"]},
                "tolerationSeconds": {"type": "integer", "format": "int64"},
            },
        },
    })
}

/// Affinity of a pod, with Kubernetes' own fields and Firn's bounds.
pub(crate) fn affinity(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = generator.subschema_for::<k8s_openapi::api::core::v1::Affinity>();
    if let Some(object) = schema.as_object_mut() {
        bound(object);
    }
    schema
}

/// Gives every string, list and map below a bound, so that the API server can tell what comparing
/// two of them costs.
fn bound(schema: &mut Map<String, Value>) {
    let limit = match schema.get("type").and_then(Value::as_str) {
        Some("string") => Some(("maxLength", 316)),
        Some("array") => Some(("maxItems", 16)),
        Some("object") if schema.contains_key("additionalProperties") => {
            Some(("maxProperties", 16))
        }
        _ => None,
    };
    if let Some((keyword, most)) = limit {
        schema.entry(keyword).or_insert(json!(most));
    }
    schema.remove("description");
    for key in ["items", "additionalProperties"] {
        if let Some(inner) = schema.get_mut(key).and_then(Value::as_object_mut) {
            bound(inner);
        }
    }
    if let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) {
        for inner in properties.values_mut().filter_map(Value::as_object_mut) {
            bound(inner);
        }
    }
}

/// Conditions of a NixImage.
pub(crate) fn image_conditions(_: &mut SchemaGenerator) -> Schema {
    conditions(16)
}

/// Conditions of a NixImageBuild.
pub(crate) fn build_conditions(_: &mut SchemaGenerator) -> Schema {
    conditions(8)
}

/// Kubernetes' own conditions, with the bounds that its documentation gives and its schema lacks.
fn conditions(most: u32) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": most,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": {
            "type": "object",
            "required": ["type", "status", "lastTransitionTime", "reason", "message"],
            "properties": {
                "type": {"type": "string", "maxLength": 316},
                "status": {"type": "string", "enum": ["True", "False", "Unknown"]},
                "observedGeneration": {"type": "integer", "format": "int64", "minimum": 0},
                "lastTransitionTime": {"type": "string", "format": "date-time"},
                "reason": {
                    "type": "string",
                    "minLength": 1,
                    "maxLength": 128,
                    "pattern": "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$",
                },
                "message": {"type": "string", "maxLength": 4096},
            },
        },
    })
}

/// The CRDs of this version, in the order of their names.
pub fn crds() -> Vec<Value> {
    [NixImage::crd(), NixImageBuild::crd()]
        .iter()
        .filter_map(|crd| serde_json::to_value(crd).ok())
        .map(finish)
        .collect()
}

/// The last touches on a derived CRD:
///
/// * `nullable` goes. Without it the API server drops a null before defaults are filled in, so that
///   `field: null` and no field are the same thing, as for built-in kinds.
/// * An object with defaults inside has `default: {}`, not a copy of them, and every default stands
///   in one place.
/// * Status is born with a generation that was never there: kstatus then says `InProgress` before the
///   operator has seen the object.
/// * Titles go, and lines of comments are joined: what is left is the text for `kubectl explain`.
/// * Whole numbers are written as such.
fn finish(mut crd: Value) -> Value {
    if let Some(spec) = crd.get_mut("spec") {
        tidy(spec);
    }
    let status = crd.pointer_mut("/spec/versions/0/schema/openAPIV3Schema/properties/status");
    if let Some(status) = status.and_then(Value::as_object_mut) {
        status.insert("default".into(), json!({"observedGeneration": -1}));
    }
    crd
}

fn tidy(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(tidy),
        Value::Object(object) => {
            let typed = object.get("type").is_some_and(Value::is_string);
            if typed || object.contains_key("x-kubernetes-int-or-string") {
                tidy_schema(object);
            }
            object.values_mut().for_each(tidy);
        }
        Value::Number(number) => {
            // Kubernetes' own type of a schema holds bounds as floating-point numbers.
            let whole = number.as_f64().filter(|float| float.fract() == 0.0);
            if let Some(whole) = whole.and_then(|float| format!("{float}").parse::<i64>().ok()) {
                *value = json!(whole);
            }
        }
        _ => {}
    }
}

fn tidy_schema(schema: &mut Map<String, Value>) {
    if schema.contains_key("x-kubernetes-int-or-string") {
        // kube's rewriter takes the types away, and without them it is not structural.
        let either = json!([{"type": "integer"}, {"type": "string"}]);
        schema.insert("anyOf".into(), either);
    }
    schema.remove("nullable");
    schema.remove("title");
    if let Some(Value::String(text)) = schema.get_mut("description") {
        *text = text
            .replace("\n\n", "\u{0}")
            .replace('\n', " ")
            .replace('\u{0}', "\n\n");
    }
    if schema.contains_key("properties")
        && let Some(default) = schema.get_mut("default")
    {
        *default = json!({});
    }
}
