//! What the API server checks besides CEL rules, with its words: types, bounds, patterns, unknown
//! fields. As much of it as Firn's CRDs use.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use firn_crd::schema::crds;
use kube_cel::{CompiledSchema, Validator, compile_schema};
use regex::Regex;
use serde_json::{Map, Value};

/// One set for all tests of a program: compiling the rules is what takes long.
static SCHEMAS: LazyLock<Mutex<Schemas>> = LazyLock::new(|| Mutex::new(Schemas::new()));

/// The schemas of all kinds, with their rules compiled.
pub(crate) struct Schemas {
    kinds: BTreeMap<String, (Value, CompiledSchema)>,
    validator: Validator,
}

impl Schemas {
    /// Waits for another test to be done with them.
    pub(crate) fn lock() -> MutexGuard<'static, Self> {
        SCHEMAS.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn new() -> Self {
        let kind = |crd: Value| {
            let schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone();
            let compiled = compile_schema(&schema);
            assert!(
                !compiled.has_errors(),
                "{:?}",
                compiled.compilation_errors()
            );
            let name = crd["spec"]["names"]["kind"].as_str().unwrap().to_owned();
            (name, (schema, compiled))
        };
        Self {
            kinds: crds().into_iter().map(kind).collect(),
            validator: Validator::new(),
        }
    }

    fn of(&self, object: &Value) -> &(Value, CompiledSchema) {
        &self.kinds[object["kind"].as_str().unwrap()]
    }

    /// The object as the API server stores it.
    pub(crate) fn stored(&self, object: &Value) -> Value {
        let mut object = object.clone();
        fill_in(&self.of(&object).0, &mut object);
        object
    }

    /// What the API server would say to a creation of `object`, or to its replacement of `old`.
    pub(crate) fn complaints(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        let (schema, compiled) = self.of(object);
        let object = self.stored(object);
        let old = old.map(|old| self.stored(old));
        let mut complaints = Vec::new();
        for part in ["spec", "status"] {
            if let Some(value) = object.get(part) {
                check(part, &schema["properties"][part], value, &mut complaints);
            }
        }
        let rules = self
            .validator
            .validate_compiled(compiled, &object, old.as_ref());
        if let Err(errors) = rules {
            complaints.extend(errors.as_slice().iter().map(|error| error.message.clone()));
        }
        complaints
    }

    /// Reads the object as the type of its kind and writes it again: what it says must be the
    /// same once defaults are filled in. So no default stands in the schema or in the types only.
    pub(crate) fn round_trip(&self, object: &Value) {
        let mut stored = self.stored(object);
        quantities_as_text(&self.of(object).0, &mut stored);
        let mut written = read_and_write(object);
        if written.get("status").is_none_or(Value::is_null) {
            written["status"] = stored["status"].clone();
        }
        assert_same(&written, &stored);
        assert_same(&read_and_write(&stored), &stored);
    }
}

/// Defaults, as the API server fills them in: an object that is a default itself is filled, too.
fn fill_in(schema: &Value, value: &mut Value) {
    match value {
        Value::Object(object) => {
            for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
                if let Some(default) = inner.get("default")
                    && object.get(name).is_none_or(Value::is_null)
                {
                    object.insert(name.clone(), default.clone());
                }
                if let Some(value) = object.get_mut(name) {
                    fill_in(inner, value);
                }
            }
        }
        Value::Array(items) => items
            .iter_mut()
            .for_each(|item| fill_in(&schema["items"], item)),
        _ => {}
    }
}

/// `cpu: 4` and `cpu: "4"` are the same quantity, and Kubernetes' own type writes the latter.
fn quantities_as_text(schema: &Value, value: &mut Value) {
    if schema["x-kubernetes-int-or-string"] == true && value.is_number() {
        *value = Value::from(value.to_string());
    }
    match value {
        Value::Object(object) => {
            for (name, value) in object {
                let named = schema["properties"].get(name);
                let inner = named.unwrap_or(&schema["additionalProperties"]);
                quantities_as_text(inner, value);
            }
        }
        Value::Array(items) => {
            for item in items {
                quantities_as_text(&schema["items"], item);
            }
        }
        _ => {}
    }
}

fn read_and_write(object: &Value) -> Value {
    fn again<T: serde::de::DeserializeOwned + serde::Serialize>(object: &Value) -> Value {
        let typed: T = serde_json::from_value(object.clone()).unwrap();
        serde_json::to_value(typed).unwrap()
    }
    match object["kind"].as_str() {
        Some("NixImage") => again::<firn_crd::NixImage>(object),
        Some("NixImageBuild") => again::<firn_crd::NixImageBuild>(object),
        other => panic!("no such kind: {other:?}"),
    }
}

fn assert_same(left: &Value, right: &Value) {
    let text = |value| serde_json::to_string_pretty(value).unwrap();
    assert_eq!(text(left), text(right));
}

fn check(path: &str, schema: &Value, value: &Value, complaints: &mut Vec<String>) {
    let schema = schema.as_object().unwrap();
    let mut complain = |text: String| complaints.push(format!("{path}: {text}"));
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let either = schema.contains_key("x-kubernetes-int-or-string");
    let wanted = schema.get("type").and_then(Value::as_str);
    if wanted.is_some_and(|wanted| wanted != kind)
        || (either && !matches!(kind, "integer" | "string"))
    {
        return complain(format!("must be of type {}", wanted.unwrap_or("string")));
    }
    if let Some(words) = schema.get("enum").and_then(Value::as_array)
        && !words.contains(value)
    {
        complain(format!("Unsupported value: {value}"));
    }
    match value {
        Value::String(text) => check_text(schema, text, &mut complain),
        Value::Number(number) => {
            let number = number.as_i64().unwrap();
            let bound = |keyword: &str| schema.get(keyword).and_then(Value::as_i64);
            if let Some(most) = bound("maximum").filter(|most| number > *most) {
                complain(format!("should be less than or equal to {most}"));
            }
            if let Some(least) = bound("minimum").filter(|least| number < *least) {
                complain(format!("should be greater than or equal to {least}"));
            }
        }
        Value::Array(items) => {
            check_list(schema, items, &mut complain);
            for (index, item) in items.iter().enumerate() {
                check(
                    &format!("{path}[{index}]"),
                    &schema["items"],
                    item,
                    complaints,
                );
            }
        }
        Value::Object(object) => check_object(path, schema, object, complaints),
        Value::Null | Value::Bool(_) => {}
    }
}

fn check_text(schema: &Map<String, Value>, text: &str, complain: &mut dyn FnMut(String)) {
    let bound = |keyword: &str| schema.get(keyword).and_then(Value::as_u64);
    let length = text.chars().count() as u64;
    if let Some(most) = bound("maxLength").filter(|most| length > *most) {
        complain(format!("Too long: may not be more than {most} bytes"));
    }
    if let Some(least) = bound("minLength").filter(|least| length < *least) {
        complain(format!("should be at least {least} chars long"));
    }
    if let Some(pattern) = schema.get("pattern").and_then(Value::as_str)
        && !Regex::new(pattern).unwrap().is_match(text)
    {
        complain(format!("should match '{pattern}'"));
    }
}

fn check_list(schema: &Map<String, Value>, items: &[Value], complain: &mut dyn FnMut(String)) {
    let bound = |keyword: &str| schema.get(keyword).and_then(Value::as_u64);
    let length = items.len() as u64;
    if let Some(most) = bound("maxItems").filter(|most| length > *most) {
        complain(format!(
            "Too many: {length}: must have at most {most} items"
        ));
    }
    if let Some(least) = bound("minItems").filter(|least| length < *least) {
        complain(format!("should have at least {least} items"));
    }
    let keys: Vec<&str> = match schema.get("x-kubernetes-list-type").and_then(Value::as_str) {
        Some("map") => {
            let keys = schema["x-kubernetes-list-map-keys"].as_array().unwrap();
            keys.iter().map(|key| key.as_str().unwrap()).collect()
        }
        Some("set") => Vec::new(),
        _ => return,
    };
    let mut seen = BTreeSet::new();
    for item in items {
        let identity = if keys.is_empty() {
            item.to_string()
        } else {
            keys.iter().map(|key| item[key].to_string()).collect()
        };
        if !seen.insert(identity) {
            complain(format!("Duplicate value: {item}"));
        }
    }
}

fn check_object(
    path: &str,
    schema: &Map<String, Value>,
    object: &Map<String, Value>,
    complaints: &mut Vec<String>,
) {
    let bound = |keyword: &str| schema.get(keyword).and_then(Value::as_u64);
    if let Some(most) = bound("maxProperties").filter(|most| object.len() as u64 > *most) {
        complaints.push(format!("{path}: must have at most {most} properties"));
    }
    for required in schema
        .get("required")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        let required = required.as_str().unwrap();
        if !object.contains_key(required) {
            complaints.push(format!("{path}.{required}: Required value"));
        }
    }
    for (key, value) in object {
        let inner = schema
            .get("properties")
            .and_then(|properties| properties.get(key))
            .or_else(|| schema.get("additionalProperties"));
        match inner {
            Some(inner) => check(&format!("{path}.{key}"), inner, value, complaints),
            None => complaints.push(format!("unknown field \"{path}.{key}\"")),
        }
    }
}
