//! What registries say besides images, and the `config.json` with the logins for them.

use std::collections::BTreeSet;

use firn_oci::registry::Credentials;
use firn_oci::testing::parsers::PARSERS;
use serde_json::Value;

/// Parsers of one header each; they all read the same text.
const HEADERS: [&str; 6] = [
    "challenge",
    "content-range",
    "link",
    "location",
    "range",
    "retry-after",
];
/// Parsers of bodies that are no image.
const ANSWERS: [&str; 2] = ["error-body", "token"];
/// Those that other targets ask more of.
const ELSEWHERE: [&str; 5] = ["config", "docker-config", "index", "manifest", "reference"];

pub(crate) fn headers(data: &[u8]) {
    run(&HEADERS, data);
}

pub(crate) fn answers(data: &[u8]) {
    run(&ANSWERS, data);
}

fn run(names: &[&str], data: &[u8]) {
    for (name, parser) in PARSERS {
        if names.contains(name) {
            parser(data);
        } else {
            let known =
                HEADERS.contains(name) || ANSWERS.contains(name) || ELSEWHERE.contains(name);
            assert!(known, "no target has the parser {name}");
        }
    }
}

/// Whatever it says, nothing of it that is secret is shown.
pub(crate) fn docker_config(data: &[u8]) {
    let read = Credentials::from_docker_config(data);
    let shown = match &read {
        Ok(credentials) => format!("{credentials:?}"),
        Err(error) => format!("{error:?} {error}"),
    };
    let Ok(document) = serde_json::from_slice::<Value>(data) else {
        return;
    };
    // Names of registries are shown, so what stands in one as well is no secret here.
    let (mut secrets, mut names) = (BTreeSet::new(), String::new());
    collect(&document, false, &mut secrets, &mut names);
    for secret in secrets {
        assert!(names.contains(secret) || !shown.contains(secret), "{shown}");
    }
    if let Ok(credentials) = read {
        for host in ["docker.io", "reg.example:5000", "a.b.cloud.example"] {
            if let Ok(host) = host.parse() {
                for repository in ["team/app", "library/x"] {
                    let repository = repository.parse().ok();
                    let login = credentials.login(&host, repository.as_ref());
                    let _ = std::hint::black_box((login, credentials.has_helper(&host)));
                }
            }
        }
    }
}

/// Whether a text stands in a message only if it was put there: the search learns the messages' own
/// words and puts them into documents.
fn is_telling(text: &str) -> bool {
    text.len() >= 12
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
        && text.contains(|c: char| c.is_ascii_digit())
        && text.contains(|c: char| c.is_ascii_alphabetic())
}

/// Texts in places of secrets, as far as they tell anything; and all keys.
fn collect<'v>(
    value: &'v Value,
    is_secret: bool,
    secrets: &mut BTreeSet<&'v str>,
    names: &mut String,
) {
    match value {
        Value::String(text) if is_secret && is_telling(text) => {
            secrets.insert(text);
        }
        Value::Array(list) => {
            for item in list {
                collect(item, is_secret, secrets, names);
            }
        }
        Value::Object(map) => {
            for (key, item) in map {
                for name in [key, &format!("{key:?}"), &key.to_ascii_lowercase()] {
                    names.push_str(name);
                    names.push(' ');
                }
                let key = key.as_str();
                let is_secret = is_secret
                    || matches!(key, "auth" | "password" | "identitytoken" | "registrytoken");
                collect(item, is_secret, secrets, names);
            }
        }
        _ => {}
    }
}
