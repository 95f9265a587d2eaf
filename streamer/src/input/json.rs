//! JSON of others, with the order of its keys, and written again as Go or Python would. Pure.
//!
//! Depth is bounded by the parser (128), size by whoever reads the file.

use std::fmt::Write as _;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub enum Json {
    /// `null`
    Null,
    /// `true`, `false`
    Bool(bool),
    /// Without a fraction, from -2^63 to 2^64-1.
    Integer(i128),
    /// Every other number.
    Float(f64),
    /// A string.
    Text(String),
    /// A list.
    List(Vec<Self>),
    /// Keys in their order; a key may be there twice.
    Object(Vec<(String, Self)>),
}

impl Json {
    /// Reads a document.
    pub fn parse(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(bytes)
    }

    /// The last value of `key`. `null` is as good as none.
    pub fn get(&self, key: &str) -> Option<&Self> {
        self.last(|found| found == key)
    }

    /// The last value of `key`, in whatever case the key is written: Go reads so.
    pub fn get_folded(&self, key: &str) -> Option<&Self> {
        self.last(|found| found.eq_ignore_ascii_case(key))
    }

    fn last(&self, is_key: impl Fn(&str) -> bool) -> Option<&Self> {
        let Self::Object(entries) = self else {
            return None;
        };
        let found = entries.iter().rev().find(|(key, _)| is_key(key));
        found.map(|(_, value)| value).filter(|v| **v != Self::Null)
    }

    /// Sets `key`, at its first place if it is there.
    pub fn set(&mut self, key: &str, value: Self) {
        let Self::Object(entries) = self else {
            return;
        };
        match entries.iter_mut().find(|(found, _)| found == key) {
            Some((_, old)) => *old = value,
            None => entries.push((key.to_owned(), value)),
        }
    }

    /// Each key once: at its first place, with its last value. So do Python's dictionaries.
    #[must_use]
    pub fn as_python_reads(self) -> Self {
        match self {
            Self::List(items) => Self::List(items.into_iter().map(Self::as_python_reads).collect()),
            Self::Object(entries) => {
                let mut places = std::collections::BTreeMap::new();
                let mut kept: Vec<(String, Self)> = Vec::new();
                for (key, value) in entries {
                    let value = value.as_python_reads();
                    let place = *places.entry(key.clone()).or_insert(kept.len());
                    match kept.get_mut(place) {
                        Some((_, old)) => *old = value,
                        None => kept.push((key, value)),
                    }
                }
                Self::Object(kept)
            }
            plain => plain,
        }
    }

    /// As Python's `json.dumps(…, indent=4)`.
    pub fn to_python(&self) -> String {
        let mut text = String::new();
        self.write_python(&mut text, 0);
        text
    }

    fn write_python(&self, out: &mut String, depth: usize) {
        // Writing into a String does not fail.
        match self {
            Self::Null => out.push_str("null"),
            Self::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
            Self::Integer(value) => {
                let _ = write!(out, "{value}");
            }
            Self::Float(value) => write_python_float(out, *value),
            Self::Text(text) => write_python_text(out, text),
            Self::List(items) if items.is_empty() => out.push_str("[]"),
            Self::List(items) => {
                out.push('[');
                for (index, item) in items.iter().enumerate() {
                    next_line(out, index, depth + 1);
                    item.write_python(out, depth + 1);
                }
                end_line(out, depth);
                out.push(']');
            }
            Self::Object(entries) if entries.is_empty() => out.push_str("{}"),
            Self::Object(entries) => {
                out.push('{');
                for (index, (key, value)) in entries.iter().enumerate() {
                    next_line(out, index, depth + 1);
                    write_python_text(out, key);
                    out.push_str(": ");
                    value.write_python(out, depth + 1);
                }
                end_line(out, depth);
                out.push('}');
            }
        }
    }
}

fn next_line(out: &mut String, index: usize, depth: usize) {
    if index > 0 {
        out.push(',');
    }
    end_line(out, depth);
}

fn end_line(out: &mut String, depth: usize) {
    out.push('\n');
    for _ in 0..depth {
        out.push_str("    ");
    }
}

/// Everything that is not printable ASCII is escaped, as two halves if it needs them.
fn write_python_text(out: &mut String, text: &str) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            ' '..='~' => out.push(character),
            other => {
                for half in other.encode_utf16(&mut [0; 2]) {
                    let _ = write!(out, "\\u{half:04x}");
                }
            }
        }
    }
    out.push('"');
}

/// As `repr` of a float: the shortest digits that read back as it, with an exponent below 1e-4
/// and from 1e16.
fn write_python_float(out: &mut String, value: f64) {
    let size = value.abs();
    if value == 0.0 || (1e-4..1e16).contains(&size) {
        let _ = write!(out, "{value:?}");
        return;
    }
    let text = format!("{value:e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, exponent) = match exponent.strip_prefix('-') {
        Some(exponent) => ('-', exponent),
        None => ('+', exponent),
    };
    let _ = write!(out, "{digits}e{sign}{exponent:0>2}");
}

/// JSON as Go writes it, from JSON as `serde_json` does: Go escapes what HTML could misread.
pub fn escape_as_go(json: &str) -> String {
    let mut escaped = String::with_capacity(json.len());
    for character in json.chars() {
        match character {
            // In JSON these stand within strings only.
            '<' => escaped.push_str("\\u003c"),
            '>' => escaped.push_str("\\u003e"),
            '&' => escaped.push_str("\\u0026"),
            '\u{2028}' => escaped.push_str("\\u2028"),
            '\u{2029}' => escaped.push_str("\\u2029"),
            other => escaped.push(other),
        }
    }
    escaped
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyValue)
    }
}

struct AnyValue;

impl<'de> Visitor<'de> for AnyValue {
    type Value = Json;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Bool(value))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Json, E> {
        Ok(Json::Integer(value.into()))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Json, E> {
        Ok(Json::Integer(value.into()))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Json, E> {
        Ok(Json::Float(value))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Json, E> {
        Ok(Json::Text(text.to_owned()))
    }

    fn visit_string<E: de::Error>(self, text: String) -> Result<Json, E> {
        Ok(Json::Text(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Json, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Json::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Json, A::Error> {
        let mut object = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            object.push(entry);
        }
        Ok(Json::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn python(json: &str) -> String {
        let json = Json::parse(json.as_bytes()).unwrap();
        json.as_python_reads().to_python()
    }

    /// From `python3 -c 'import json; print(json.dumps(json.loads(…), indent=4))'`.
    #[test]
    fn documents_are_written_as_python_does() {
        let json = r#"{"b":[],"a":{},"z":[1,-2.5,true,null,{"k":"v"}],"b":[0]}"#;
        let expected = "{\n    \"b\": [\n        0\n    ],\n    \"a\": {},\n    \"z\": [\n        1,\n        -2.5,\n        true,\n        null,\n        {\n            \"k\": \"v\"\n        }\n    ]\n}";
        assert_eq!(python(json), expected);
        assert_eq!(
            python(r#""é\u0001\u007f😀<\"\\\/\b\f\n""#),
            r#""\u00e9\u0001\u007f\ud83d\ude00<\"\\/\b\f\n""#
        );
        for (json, expected) in [
            ("1e16", "1e+16"),
            ("1.5e300", "1.5e+300"),
            ("0.00001", "1e-05"),
            ("0.0001", "0.0001"),
            ("1.0", "1.0"),
            ("-0.0", "-0.0"),
            ("123456789012345680.0", "1.2345678901234568e+17"),
            ("18446744073709551615", "18446744073709551615"),
        ] {
            assert_eq!(python(json), expected);
        }
    }

    #[test]
    fn what_html_could_misread_is_escaped_as_go_does() {
        assert_eq!(
            escape_as_go("[\"a<b>&c\u{2028}\"]"),
            r#"["a\u003cb\u003e\u0026c\u2028"]"#
        );
    }

    #[test]
    fn keys_are_found_in_any_case_and_the_last_one_counts() {
        let json = Json::parse(br#"{"Cmd":1,"cmd":2,"CMD":null,"x":3}"#).unwrap();
        assert_eq!(json.get_folded("cmd"), None);
        assert_eq!(json.get("cmd"), Some(&Json::Integer(2)));
        assert_eq!(json.get_folded("X"), Some(&Json::Integer(3)));
    }

    #[test]
    fn deep_documents_are_refused() {
        assert!(Json::parse("[".repeat(100_000).as_bytes()).is_err());
    }
}
