//! What must hold, whatever happens: looked at whenever an object changes.

use std::collections::BTreeMap;

use firn_crd::names::{LABEL_IMAGE, LABEL_PLATFORM};
use serde_json::Value;

use super::world::{Kind, Object, World, is_alive, is_finished, text};

/// Largest status in bytes.
const STATUS_MAX: usize = 32 * 1024;

/// What is remembered for the rules' sake.
#[derive(Debug, Default)]
pub struct Rules {
    /// UID of the image and number, by name of the build.
    builds: BTreeMap<String, (String, i64)>,
    /// When something was deleted, or began to be: call number by UID.
    deleted: BTreeMap<String, u64>,
    /// When a build got its outcome: call number by UID.
    ended: BTreeMap<String, u64>,
    /// Who wrote a tag last: UID of its image.
    tags: BTreeMap<(String, String), String>,
    /// Counts calls.
    pub clock: u64,
    /// When each operator's turn began.
    pub began: [u64; 2],
    /// Who is writing: an operator, or Kubernetes and people.
    pub acting: Option<usize>,
}

impl Rules {
    /// UID of the image and number of a build.
    pub fn number_of(&self, build: &str) -> (String, i64) {
        self.builds.get(build).cloned().unwrap_or_default()
    }

    /// Whether the acting operator could have known of something that happened then.
    fn known(&self, when: Option<&u64>) -> bool {
        match (when, self.acting) {
            (Some(when), Some(operator)) => *when < self.began[operator],
            (Some(_), None) => true,
            (None, _) => false,
        }
    }
}

fn number(value: &Value, pointer: &str) -> Option<i64> {
    value.pointer(pointer).and_then(Value::as_i64)
}

fn is_true(value: &Value, kind: &str) -> bool {
    value["status"]["conditions"]
        .as_array()
        .is_some_and(|list| {
            list.iter()
                .any(|c| c["type"] == kind && c["status"] == "True")
        })
}

impl World {
    /// Something is about to be made.
    pub fn check_new(&mut self, kind: Kind, value: &Value) {
        let name = text(value, "/metadata/name").to_owned();
        if kind == Kind::Account {
            return;
        }
        let owner = &value["metadata"]["ownerReferences"][0];
        let uid = text(owner, "/uid").to_owned();
        if self.rules.known(self.rules.deleted.get(&uid)) {
            self.violated(format!("{name} is made, but its owner {uid} is deleted"));
        }
        if owner["controller"] != true || owner["blockOwnerDeletion"] != true {
            self.violated(format!("{name} has no owner that is its controller"));
        }
        match kind {
            Kind::Build => {
                let image = text(value, "/spec/image/uid").to_owned();
                if image != uid {
                    self.violated(format!("{name} is owned by another than its image"));
                }
                let number = value["spec"]["number"].as_i64().unwrap_or(0);
                self.rules
                    .builds
                    .insert(name.clone(), (image.clone(), number));
                let other = self
                    .of_kind(Kind::Build)
                    .find(|build| {
                        text(&build.value, "/spec/image/uid") == image
                            && build.value["status"].get("outcome").is_none()
                    })
                    .map(|build| build.name().to_owned());
                // While it was made, somebody deleted the image and kept its builds: this one goes.
                let gone = self.rules.deleted.contains_key(&image);
                if let Some(other) = other.filter(|_| !gone) {
                    self.violated(format!("{name} is made while {other} is not over"));
                }
            }
            Kind::Job => {
                if self.rules.known(self.rules.ended.get(&uid)) {
                    self.violated(format!("Job {name} is made for a build that is over"));
                }
                let image = self
                    .of_kind(Kind::Build)
                    .find(|build| build.uid() == uid)
                    .and_then(Object::owner)
                    .map(|(_, _, uid)| uid.to_owned());
                if image.is_some_and(|uid| self.rules.known(self.rules.deleted.get(&uid))) {
                    self.violated(format!("Job {name} is made, but its image is deleted"));
                }
            }
            Kind::Pod => {
                let label = |name: &str| {
                    text(
                        &value["metadata"]["labels"],
                        &format!("/{}", name.replace('/', "~1")),
                    )
                    .to_owned()
                };
                let living = self.living_pods(&label(LABEL_IMAGE), &label(LABEL_PLATFORM));
                if !living.is_empty() {
                    self.violated(format!("pod {name} is made while {living:?} may still run"));
                }
            }
            _ => {}
        }
    }

    /// The operator is about to delete something.
    pub fn check_delete(&mut self, kind: Kind, name: &str) {
        let Some(object) = self.get(kind, name) else {
            return;
        };
        match kind {
            Kind::Build => {
                let open = object.value["status"].get("outcome").is_none();
                let image = object.owner().map(|(_, image, _)| image.to_owned());
                let pinned = image
                    .and_then(|image| self.get(Kind::Image, &image))
                    .is_some_and(|image| text(&image.value, "/status/published/build") == name);
                if open {
                    self.violated(format!("{name} is deleted before it is over"));
                }
                if pinned {
                    self.violated(format!("{name} is deleted, which made the latest image"));
                }
            }
            Kind::Job => {
                let open = object
                    .owner()
                    .and_then(|(kind, name, _)| self.get(kind, name))
                    .is_some_and(|build| {
                        build.value["status"].get("outcome").is_none()
                            && build.value["spec"]["cancel"] != true
                            // Kept when its image was deleted: it is cancelled.
                            && build.owner().is_some()
                    });
                if open {
                    self.violated(format!("Job {name} is deleted before its build is over"));
                }
            }
            _ => {}
        }
    }

    /// Something changed.
    pub fn check_change(&mut self, kind: Kind, name: &str, before: &Value) {
        let Some(object) = self.get(kind, name) else {
            return;
        };
        let object = object.value.clone();
        if object["metadata"].get("deletionTimestamp").is_some()
            && before["metadata"].get("deletionTimestamp").is_none()
        {
            let uid = text(&object, "/metadata/uid").to_owned();
            self.rules.deleted.insert(uid, self.rules.clock);
        }
        match kind {
            Kind::Image => self.check_image(name, before, &object),
            Kind::Build => self.check_build(name, before, &object),
            Kind::Job => self.check_job(name, before, &object),
            _ => {}
        }
    }

    fn check_image(&mut self, name: &str, before: &Value, after: &Value) {
        for pointer in ["/status/observedGeneration", "/status/buildCounter"] {
            let (old, new) = (number(before, pointer), number(after, pointer));
            if old.is_some() && new < old {
                self.violated(format!("{pointer} of {name} goes from {old:?} to {new:?}"));
            }
        }
        if number(after, "/status/observedGeneration") > number(after, "/metadata/generation") {
            self.violated(format!("{name} observed a generation that is not there"));
        }
        let (old, new) = (
            text(before, "/status/latestImage"),
            text(after, "/status/latestImage"),
        );
        if !old.is_empty() && new.is_empty() {
            self.violated(format!("latestImage of {name} is cleared"));
        }
        if let Some((repository, digest)) = new.split_once('@') {
            let id = (
                text(after, "/metadata/uid").to_owned(),
                repository.to_owned(),
                digest.to_owned(),
            );
            if !self.registry.digests.contains_key(&id) {
                self.violated(format!(
                    "latestImage of {name} is {new}, which is not there"
                ));
            }
        }
        if is_true(after, "Reconciling") && is_true(after, "Stalled") {
            self.violated(format!("{name} is both Reconciling and Stalled"));
        }
        if is_true(after, "Ready") && (is_true(after, "Reconciling") || is_true(after, "Stalled")) {
            self.violated(format!("{name} is Ready, and it is not"));
        }
        self.check_size(name, after);
        if before["status"] != after["status"] {
            let reason = text(after, "/status/failure/reason").to_owned();
            if !reason.is_empty() {
                self.tally.count("reason", &reason);
            }
            let conditions = after["status"]["conditions"].as_array().cloned();
            for condition in conditions.unwrap_or_default() {
                let words = format!(
                    "{} {}",
                    text(&condition, "/type"),
                    text(&condition, "/reason")
                );
                self.tally.count("condition", &words);
                if condition["status"] == "True" && condition["type"] == "Stalled" {
                    self.tally.count("reason", text(&condition, "/reason"));
                }
            }
        }
    }

    fn check_build(&mut self, name: &str, before: &Value, after: &Value) {
        for pointer in ["outcome", "digest", "completionTime", "failure", "duration"] {
            let ended = before["status"].get("outcome").is_some();
            if ended && before["status"][pointer] != after["status"][pointer] {
                self.violated(format!("{pointer} of {name} changes after its end"));
            }
        }
        self.check_size(name, after);
        // What does not end a build is in its words only.
        let said = after["status"]["conditions"].to_string();
        if before["status"] != after["status"]
            && let Some((_, reason)) = said.split_once("waits for another pod after a failure: ")
            && let Some((reason, _)) = reason.split_once(':')
        {
            self.tally.count("reason", reason);
        }
        let outcome = text(after, "/status/outcome").to_owned();
        if before["status"].get("outcome").is_none() && !outcome.is_empty() {
            let uid = text(after, "/metadata/uid").to_owned();
            self.rules.ended.insert(uid, self.rules.clock);
            self.tally.count("outcome", &outcome);
            let reason = text(after, "/status/failure/reason").to_owned();
            if !reason.is_empty() {
                self.tally.count("reason", &reason);
            }
            self.say(|| format!("{name}: {outcome} {reason}"));
        }
    }

    fn check_job(&mut self, name: &str, before: &Value, after: &Value) {
        let resumed = before["spec"]["suspend"] == true && after["spec"]["suspend"] == false;
        if !resumed {
            return;
        }
        let Some(job) = self.get(Kind::Job, name) else {
            return;
        };
        let (image, platform) = (
            job.label(LABEL_IMAGE).to_owned(),
            job.label(LABEL_PLATFORM).to_owned(),
        );
        let running: Vec<String> = self
            .of_kind(Kind::Job)
            .filter(|job| {
                job.label(LABEL_IMAGE) == image
                    && job.label(LABEL_PLATFORM) == platform
                    && job.value["spec"]["suspend"] == false
                    && !is_finished(job)
                    // One that is being deleted gets no more pods; one whose pod ended well
                    // completes by itself, a second later.
                    && !job.deleting()
                    && !self.of_kind(Kind::Pod).any(|pod| {
                        pod.owner().is_some_and(|(_, _, uid)| uid == job.uid())
                            && text(&pod.value, "/status/phase") == "Succeeded"
                    })
                    && job.name() != name
            })
            .map(|job| job.name().to_owned())
            .collect();
        if !running.is_empty() {
            self.violated(format!("Job {name} is resumed while {running:?} are"));
        }
        let pods = self.living_pods(&image, &platform);
        if !pods.is_empty() {
            self.violated(format!(
                "Job {name} is resumed while {pods:?} may still run"
            ));
        }
    }

    fn check_size(&mut self, name: &str, object: &Value) {
        let size = object["status"].to_string().len();
        if size > STATUS_MAX {
            self.violated(format!("the status of {name} has {size} bytes"));
        }
    }

    /// Something is gone.
    pub fn check_gone(&mut self, _kind: Kind, object: &Object) {
        let clock = self.rules.clock;
        self.rules
            .deleted
            .entry(object.uid().to_owned())
            .or_insert(clock);
    }

    /// A tag is about to be moved to what build `number` of an image made.
    pub fn check_tag(&mut self, image: &str, repository: &str, tag: &str, number: i64, by: &str) {
        let id = (repository.to_owned(), tag.to_owned());
        let ours = self.rules.tags.get(&id).is_some_and(|owner| owner == image);
        let old = self.registry.tags.get(&id).map(|(_, number)| *number);
        if ours && old > Some(number) {
            self.violated(format!(
                "{by} moves {repository}:{tag} from build {old:?} back to build {number}"
            ));
        }
        self.rules.tags.insert(id, image.to_owned());
    }

    /// What must hold when all is well again and nothing happens any more.
    pub fn check_rest(&mut self) {
        let mut words = Vec::new();
        for image in self.of_kind(Kind::Image) {
            let name = image.name();
            let value = &image.value;
            let message = value["status"]["conditions"].to_string();
            if !is_true(value, "Ready") {
                words.push(format!("{name} does not become Ready: {message}"));
            }
            if number(value, "/status/observedGeneration") != Some(image.generation()) {
                words.push(format!("{name} rests, and its generation is not observed"));
            }
            let latest = text(value, "/status/latestImage");
            let (repository, digest) = latest.split_once('@').unwrap_or_default();
            let tags = value["status"]["published"]["tags"].as_array().cloned();
            for tag in tags.unwrap_or_default() {
                let tag = tag.as_str().unwrap_or_default().to_owned();
                let there = self
                    .registry
                    .tags
                    .get(&(repository.to_owned(), tag.clone()));
                if there.map(|(digest, _)| digest.as_str()) != Some(digest) {
                    words.push(format!("{name}: tag {tag} is {there:?}, not {digest}"));
                }
            }
        }
        for build in self.of_kind(Kind::Build) {
            if build.value["status"].get("outcome").is_none() {
                words.push(format!("{} has no outcome", build.name()));
            }
        }
        for job in self.of_kind(Kind::Job) {
            if !is_finished(job) {
                words.push(format!("Job {} is not over", job.name()));
            }
        }
        for pod in self.of_kind(Kind::Pod).filter(|pod| is_alive(pod)) {
            words.push(format!("pod {} is not over", pod.name()));
        }
        for word in words {
            self.violated(word);
        }
    }
}
