//! Every leaf of `NixImage` spec belongs to the image, to the tags, or to neither. A new field
//! shows up here, and whoever adds it says which.

#![expect(
    clippy::unwrap_used,
    clippy::unwrap_in_result,
    reason = "helpers of tests, where a panic is the report"
)]

use expect_test::expect_file;
use firn_crd::NixImageSpec;
use firn_crd::hash::{build_hash, tags_hash};
use firn_crd::schema::crds;
use serde_json::{Map, Value, json};

fn schema() -> Value {
    let crd = crds()
        .into_iter()
        .find(|crd| crd["spec"]["names"]["kind"] == "NixImage")
        .unwrap();
    crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"].clone()
}

/// Two values of a leaf, neither of them its default. `None`: it is no leaf.
fn values(path: &str, schema: &Value) -> Option<[Value; 2]> {
    if path == "build.affinity" {
        // Kubernetes' own type counts as one leaf.
        return Some([json!({}), json!({"nodeAffinity": {}})]);
    }
    if let Some(words) = schema["enum"].as_array() {
        let mut others = words.iter().filter(|word| **word != schema["default"]);
        let first = others.next().unwrap().clone();
        let second = others.next().unwrap_or(&words[0]).clone();
        return Some([first, second]);
    }
    let text = |text: &str| json!(text);
    if schema["x-kubernetes-int-or-string"] == true {
        return Some([text("1"), text("2")]);
    }
    match schema["type"].as_str().unwrap() {
        "boolean" => Some([json!(true), json!(false)]),
        "integer" => Some([json!(7), json!(8)]),
        "string" if schema["format"] == "duration" => Some([text("31m"), text("32m")]),
        "string" => Some([text("one"), text("two")]),
        "object" if schema.get("additionalProperties").is_some() => {
            Some([json!({"a": "1"}), json!({"a": "2"})])
        }
        "array" if schema["items"]["type"] == "string" => Some([json!(["one"]), json!(["two"])]),
        _ => None,
    }
}

/// A spec with the value of that number in every leaf, but in `changed` the other one.
fn fill(path: &str, schema: &Value, changed: &str, leaves: &mut Vec<String>) -> Value {
    if let Some([value, other]) = values(path, schema) {
        leaves.push(path.to_owned());
        return if path == changed { other } else { value };
    }
    if schema["type"] == "array" {
        return json!([fill(
            &format!("{path}[]"),
            &schema["items"],
            changed,
            leaves
        )]);
    }
    let properties = schema["properties"].as_object().unwrap();
    let entry = |(name, inner): (&String, &Value)| {
        let path = match path {
            "" => name.clone(),
            _ => format!("{path}.{name}"),
        };
        (name.clone(), fill(&path, inner, changed, leaves))
    };
    Value::Object(properties.iter().map(entry).collect::<Map<_, _>>())
}

fn spec(schema: &Value, changed: &str, leaves: &mut Vec<String>) -> NixImageSpec {
    serde_json::from_value(fill("", schema, changed, leaves)).unwrap()
}

#[test]
fn every_leaf_of_the_spec_is_in_one_hash_or_in_none() {
    let schema = schema();
    let mut leaves = Vec::new();
    let base = spec(&schema, "", &mut leaves);
    leaves.sort();
    let lines: Vec<String> = leaves
        .iter()
        .map(|leaf| {
            let changed = spec(&schema, leaf, &mut Vec::new());
            assert_ne!(changed, base, "{leaf} was not changed");
            let image = build_hash(&changed) != build_hash(&base);
            let tags = tags_hash(&changed) != tags_hash(&base);
            let answer = match (image, tags) {
                (true, false) => "image",
                (false, true) => "tags",
                (false, false) => "-",
                (true, true) => panic!("{leaf} is in both hashes"),
            };
            format!("{leaf}: {answer}\n")
        })
        .collect();
    expect_file!["hash.txt"].assert_eq(&lines.concat());
}
