//! The API server's side of Firn's calls, as a tower service: what kube's client sends is done to
//! the world, with conflicts, preconditions and refusals as a real one has them.

use bytes::Bytes;
use firn_crd::names::{ANNOTATION_SUPERSEDED, MANAGER_BUILD, MANAGER_IMAGE};
use serde_json::{Value, json};

use super::world::{Kind, World, text};

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    Get,
    List,
    Create,
    Merge,
    ApplyStatus,
    Delete,
}

/// One call.
#[derive(Debug, Clone)]
pub struct Call {
    pub verb: Verb,
    pub kind: Kind,
    name: String,
    labels: Vec<(String, String)>,
    fields: Vec<(String, String)>,
    manager: String,
    body: Bytes,
}

fn decode(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        rest = tail;
        match first {
            b'+' => bytes.push(b' '),
            b'%' if rest.len() >= 2 => {
                let hex = std::str::from_utf8(&rest[..2]).unwrap();
                bytes.push(u8::from_str_radix(hex, 16).unwrap());
                rest = &rest[2..];
            }
            other => bytes.push(*other),
        }
    }
    String::from_utf8(bytes).unwrap()
}

fn pairs(selector: &str) -> Vec<(String, String)> {
    selector
        .split(',')
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

impl Call {
    pub fn read(parts: &http::request::Parts, body: Bytes) -> Self {
        let segments: Vec<&str> = parts
            .uri
            .path()
            .split('/')
            .filter(|s| !s.is_empty())
            .collect();
        let after = segments.iter().position(|s| *s == "namespaces");
        let rest: &[&str] = match after {
            Some(index) => &segments[index + 2..],
            None => &segments[segments.len() - 1..],
        };
        let kind = match rest[0] {
            "niximages" => Kind::Image,
            "niximagebuilds" => Kind::Build,
            "jobs" => Kind::Job,
            "pods" => Kind::Pod,
            "events" => Kind::Event,
            "serviceaccounts" => Kind::Account,
            other => panic!("the world knows no {other}"),
        };
        let name = rest.get(1).copied().unwrap_or_default().to_owned();
        let verb = match (parts.method.as_str(), name.is_empty(), rest.get(2)) {
            ("GET", false, _) => Verb::Get,
            ("GET", true, _) => Verb::List,
            ("POST", ..) => Verb::Create,
            ("PATCH", _, Some(&"status")) => Verb::ApplyStatus,
            ("PATCH", ..) => Verb::Merge,
            ("DELETE", ..) => Verb::Delete,
            other => panic!("the world knows no {other:?}"),
        };
        let mut call = Self {
            verb,
            kind,
            name,
            labels: Vec::new(),
            fields: Vec::new(),
            manager: String::new(),
            body,
        };
        for pair in parts.uri.query().unwrap_or_default().split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = decode(value);
            match name {
                "labelSelector" => call.labels = pairs(&value),
                "fieldSelector" => call.fields = pairs(&value),
                "fieldManager" => call.manager = value,
                _ => {}
            }
        }
        call
    }

    pub const fn writes(&self) -> bool {
        !matches!(self.verb, Verb::Get | Verb::List)
    }

    /// What it is called in counts.
    pub fn label(&self) -> String {
        let verb = match self.verb {
            Verb::Get => "get",
            Verb::List => "list",
            Verb::Create => "create",
            Verb::Merge => "patch",
            Verb::ApplyStatus => "apply status of",
            Verb::Delete => "delete",
        };
        format!("{verb} {}", self.kind.name())
    }
}

/// An answer: the code and the body.
pub type Answer = (u16, Bytes);

/// The answer to a call that fails.
pub fn failure(code: u16, reason: &str, message: &str) -> Answer {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure",
        "reason": reason, "message": message, "code": code,
    });
    (code, Bytes::from(status.to_string()))
}

fn missing(call: &Call) -> Answer {
    let words = format!("{} {:?} not found", call.kind.name(), call.name);
    failure(404, "NotFound", &words)
}

/// Labels of all writes of the operator.
pub const WRITES: [&str; 10] = [
    "create NixImageBuild",
    "create Job",
    "create ServiceAccount",
    "create Event",
    "patch Job",
    "patch NixImageBuild",
    "apply status of NixImage",
    "apply status of NixImageBuild",
    "delete Job",
    "delete NixImageBuild",
];

impl World {
    /// Does what is asked. `since` is the resource version at which the operator's turn began.
    pub fn answer(&mut self, call: &Call) -> Answer {
        if call.writes() {
            self.say(|| {
                let body: String = String::from_utf8_lossy(&call.body)
                    .chars()
                    .take(400)
                    .collect();
                let body = if matches!(call.verb, Verb::Create) {
                    ""
                } else {
                    &body
                };
                format!("  {} {} {body}", call.label(), call.name)
            });
        }
        let answer = self.done(call);
        if call.writes() && call.kind != Kind::Event && answer.0 < 300 {
            self.writes += 1;
        }
        answer
    }

    fn done(&mut self, call: &Call) -> Answer {
        match call.verb {
            Verb::Get => match self.bytes(call.kind, &call.name) {
                Some(bytes) => (200, bytes),
                None => missing(call),
            },
            Verb::List => self.list(call),
            Verb::Create => self.create(call),
            Verb::Merge => self.merge(call),
            Verb::ApplyStatus => self.apply_status(call),
            Verb::Delete => self.delete_by(call),
        }
    }

    fn list(&mut self, call: &Call) -> Answer {
        let field = |value: &Value, name: &str| -> String {
            let pointer = format!("/{}", name.replace('.', "/"));
            text(value, &pointer).to_owned()
        };
        let names: Vec<String> = self
            .of_kind(call.kind)
            .filter(|object| {
                call.labels
                    .iter()
                    .all(|(name, value)| object.label(name) == value)
                    && call
                        .fields
                        .iter()
                        .all(|(name, value)| field(&object.value, name) == *value)
            })
            .map(|object| object.name().to_owned())
            .collect();
        let mut body = format!(
            r#"{{"kind":"{}List","apiVersion":"{}","metadata":{{}},"items":["#,
            call.kind.name(),
            call.kind.api_version()
        )
        .into_bytes();
        for (index, name) in names.iter().enumerate() {
            if index > 0 {
                body.push(b',');
            }
            body.extend(self.bytes(call.kind, name).unwrap_or_default());
        }
        body.extend(b"]}");
        (200, body.into())
    }

    fn create(&mut self, call: &Call) -> Answer {
        let mut value: Value = serde_json::from_slice(&call.body).unwrap();
        if call.kind == Kind::Event {
            self.tally.event(text(&value, "/reason"));
            return (201, call.body.clone());
        }
        let name = text(&value, "/metadata/name").to_owned();
        if self.get(call.kind, &name).is_some() {
            let words = format!("{} {name:?} already exists", call.kind.name());
            return failure(409, "AlreadyExists", &words);
        }
        if call.kind == Kind::Job {
            if self.weather.no_jobs {
                let words = format!(
                    "jobs.batch {name:?} is forbidden: exceeded quota: small, requested: count/jobs.batch=1"
                );
                return failure(403, "Forbidden", &words);
            }
            self.take_job(&mut value);
        }
        self.tally.action(match call.kind {
            Kind::Build => "CreateBuild",
            Kind::Job => "CreateJob",
            Kind::Account => "CreateAccount",
            _ => "Create?",
        });
        self.check_new(call.kind, &value);
        self.insert(call.kind, value);
        (201, self.bytes(call.kind, &name).unwrap_or_default())
    }

    fn merge(&mut self, call: &Call) -> Answer {
        if call.kind == Kind::Event {
            return (200, call.body.clone());
        }
        let patch: Value = serde_json::from_slice(&call.body).unwrap();
        let Some(object) = self.get(call.kind, &call.name) else {
            return missing(call);
        };
        let uid = object.uid().to_owned();
        let resumed = json!({"spec": {"suspend": false}});
        let superseded = json!({
            "metadata": {"uid": patch["metadata"]["uid"], "annotations": {ANNOTATION_SUPERSEDED: "true"}},
            "spec": {"cancel": true},
        });
        match call.kind {
            Kind::Job if patch == resumed => {
                self.tally.action("Resume");
                self.change(call.kind, &call.name, |value| {
                    value["spec"]["suspend"] = json!(false);
                });
            }
            Kind::Build if patch == superseded => {
                if patch["metadata"]["uid"] != uid {
                    return failure(409, "Conflict", "the UID in the precondition is another");
                }
                self.tally.action("SupersedeBuild");
                self.change(call.kind, &call.name, |value| {
                    value["metadata"]["annotations"][ANNOTATION_SUPERSEDED] = json!("true");
                    value["spec"]["cancel"] = json!(true);
                });
            }
            _ => self.violated(format!("an unknown patch: {patch}")),
        }
        (200, self.bytes(call.kind, &call.name).unwrap_or_default())
    }

    /// Server-side apply. One manager owns all of a kind's status, so what it leaves out is gone.
    fn apply_status(&mut self, call: &Call) -> Answer {
        let mut patch: Value = serde_json::from_slice(&call.body).unwrap();
        let Some(object) = self.get(call.kind, &call.name) else {
            return missing(call);
        };
        if object.uid() != text(&patch, "/metadata/uid") {
            return failure(409, "Conflict", "the UID in the precondition is another");
        }
        let version = text(&patch, "/metadata/resourceVersion");
        if !version.is_empty() && version != text(&object.value, "/metadata/resourceVersion") {
            self.tally.count("fault", "conflict");
            return failure(409, "Conflict", "the object has been modified");
        }
        let manager = match call.kind {
            Kind::Image => MANAGER_IMAGE,
            _ => MANAGER_BUILD,
        };
        if call.manager != manager {
            self.violated(format!(
                "{} writes status of {}",
                call.manager,
                call.kind.name()
            ));
        }
        self.tally.action(match call.kind {
            Kind::Image => "ApplyImageStatus",
            _ => "ApplyBuildStatus",
        });
        let status = patch["status"].take();
        self.change(call.kind, &call.name, |value| value["status"] = status);
        (200, self.bytes(call.kind, &call.name).unwrap_or_default())
    }

    fn delete_by(&mut self, call: &Call) -> Answer {
        let options: Value = serde_json::from_slice(&call.body).unwrap_or_default();
        let Some(object) = self.get(call.kind, &call.name) else {
            return missing(call);
        };
        if object.uid() != text(&options, "/preconditions/uid") {
            return failure(409, "Conflict", "the UID in the precondition is another");
        }
        self.tally.action(match call.kind {
            Kind::Build => "DeleteBuild",
            Kind::Job => "DeleteJob",
            _ => "Delete?",
        });
        let foreground = options["propagationPolicy"] == "Foreground";
        self.check_delete(call.kind, &call.name);
        self.delete(call.kind, &call.name, foreground);
        let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Success"});
        (200, Bytes::from(status.to_string()))
    }
}
