//! Rules that every field keeps, now and later: the API server's CEL budget and etcd need bounds,
//! and users need a text.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests, where a panic is the report"
)]

use firn_crd::schema::crds;
use serde_json::{Map, Value};

/// Calls `check` with the path and schema of everything below the object's `spec` and `status`.
fn every_schema(check: &mut dyn FnMut(&str, &Map<String, Value>)) {
    for crd in crds() {
        let kind = crd["spec"]["names"]["kind"].as_str().unwrap();
        let root = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        for part in ["spec", "status"] {
            walk(&format!("{kind}.{part}"), &root["properties"][part], check);
        }
    }
}

fn walk(path: &str, schema: &Value, check: &mut dyn FnMut(&str, &Map<String, Value>)) {
    let schema = schema
        .as_object()
        .unwrap_or_else(|| panic!("{path} has no schema"));
    check(path, schema);
    if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
        for (name, inner) in properties {
            walk(&format!("{path}.{name}"), inner, check);
        }
    }
    for (key, suffix) in [("items", "[]"), ("additionalProperties", "{}")] {
        if let Some(inner) = schema.get(key) {
            walk(&format!("{path}{suffix}"), inner, check);
        }
    }
}

#[test]
fn every_string_list_and_map_is_bounded() {
    let mut unbounded = Vec::new();
    every_schema(&mut |path, schema| {
        let has = |keyword: &str| schema.contains_key(keyword);
        let bounded = match schema.get("type").and_then(Value::as_str) {
            Some("string") => {
                has("maxLength") || has("enum") || schema.get("format") == Some(&"date-time".into())
            }
            Some("array") => has("maxItems"),
            Some("object") => has("properties") || has("maxProperties"),
            Some("integer" | "boolean") => true,
            None => has("x-kubernetes-int-or-string") && has("maxLength"),
            Some(_) => false,
        };
        if !bounded {
            unbounded.push(path.to_owned());
        }
    });
    assert_eq!(unbounded, [""; 0]);
}

#[test]
fn every_list_says_how_it_is_merged() {
    let mut silent = Vec::new();
    every_schema(&mut |path, schema| {
        let list = schema.get("type") == Some(&"array".into());
        // Kubernetes' own type has none; a list in it is replaced as a whole.
        let own = !path.contains(".affinity.");
        if list && own && !schema.contains_key("x-kubernetes-list-type") {
            silent.push(path.to_owned());
        }
    });
    assert_eq!(silent, [""; 0]);
}

#[test]
fn nothing_escapes_the_schema() {
    every_schema(&mut |path, schema| {
        assert!(
            !schema.contains_key("x-kubernetes-preserve-unknown-fields"),
            "{path}"
        );
        assert!(!schema.contains_key("nullable"), "{path}");
    });
}

#[test]
fn an_object_with_defaults_inside_has_one_itself() {
    every_schema(&mut |path, schema| {
        let Some(properties) = schema.get("properties").and_then(Value::as_object) else {
            return;
        };
        for (name, inner) in properties {
            let defaults_inside = inner["properties"]
                .as_object()
                .is_some_and(|inner| inner.values().any(|field| field.get("default").is_some()));
            let needed = inner["required"]
                .as_array()
                .is_some_and(|required| !required.is_empty());
            // Absent means something else than "with defaults" for these.
            let optional =
                ["git", "oci", "keyless", "signing", "resources"].contains(&name.as_str());
            let required = schema
                .get("required")
                .and_then(Value::as_array)
                .is_some_and(|required| required.contains(&name.as_str().into()));
            if defaults_inside && !needed && !optional && !required {
                assert_eq!(inner["default"], serde_json::json!({}), "{path}.{name}");
            }
        }
    });
}

#[test]
fn no_word_is_one_that_yaml_takes_for_a_boolean() {
    let booleans = ["on", "off", "yes", "no", "y", "n", "true", "false"];
    every_schema(&mut |path, schema| {
        let last = path.rsplit('.').next().unwrap_or(path).to_lowercase();
        assert!(!booleans.contains(&last.as_str()), "{path}");
        // A condition's status is Kubernetes' own, and always quoted.
        if path.ends_with(".conditions[].status") {
            return;
        }
        for word in schema
            .get("enum")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
        {
            let word = word.as_str().unwrap().to_lowercase();
            assert!(!booleans.contains(&word.as_str()), "{path}: {word}");
        }
    });
}

#[test]
fn every_field_explains_itself() {
    let mut silent = Vec::new();
    every_schema(&mut |path, schema| {
        // Fields of Kubernetes' own types are explained there.
        let foreign = [".affinity.", ".tolerations[]", ".conditions[]"];
        let item = path.ends_with(']') || path.ends_with('}');
        if item || foreign.iter().any(|part| path.contains(part)) {
            return;
        }
        if schema
            .get("description")
            .and_then(Value::as_str)
            .is_none_or(str::is_empty)
        {
            silent.push(path.to_owned());
        }
    });
    assert_eq!(silent, [""; 0]);
}
