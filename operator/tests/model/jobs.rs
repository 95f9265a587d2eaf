//! The Job controller as Kubernetes 1.33 has it: suspend and resume, one pod at a time, back-off,
//! `podFailurePolicy`, deadline, `podReplacementPolicy: Failed`; a Job is over when its last pod is.

use std::collections::{BTreeMap, BTreeSet};

use firn_crd::names::LABEL_QUEUE;
use firn_crd::pod::ENV_RUN;
use serde_json::{Value, json};

use super::kubelet::Step;
use super::world::{Kind, NAMESPACE, Object, What, World, is_alive, is_finished, time};

/// What the controller knows of each Job, by name: a name is taken again only when its Job is gone.
pub type Jobs = BTreeMap<String, Known>;

/// What the controller knows of a Job.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// What its containers are told.
    pub run: Value,
    /// Names of its containers, in the order in which they run.
    pub containers: Vec<String>,
    /// Container and exit codes after which no other pod is tried.
    finals: Vec<(String, Vec<i64>)>,
    counted: BTreeSet<String>,
    made: BTreeSet<String>,
    failures: i64,
    /// No pod is made before this, and when it is looked at again for that.
    next: i64,
    again: i64,
    failing: Option<(&'static str, String)>,
}

/// Takes from a Job what its pods will be told, and all of the template.
fn strip(value: &mut Value) -> Known {
    let template = &value["spec"]["template"]["spec"];
    let list = |name: &str| template[name].as_array().cloned().unwrap_or_default();
    let containers: Vec<Value> = list("initContainers")
        .into_iter()
        .chain(list("containers"))
        .collect();
    let run: Value = containers[0]["env"]
        .as_array()
        .and_then(|env| env.iter().find(|e| e["name"] == ENV_RUN))
        .and_then(|e| serde_json::from_str(e["value"].as_str()?).ok())
        .unwrap_or_default();
    let rules = value["spec"]["podFailurePolicy"]["rules"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let finals = rules
        .iter()
        .filter(|rule| rule["action"] == "FailJob")
        .map(|rule| {
            let codes = rule["onExitCodes"]["values"].as_array().cloned();
            let codes = codes.unwrap_or_default();
            (
                rule["onExitCodes"]["containerName"]
                    .as_str()
                    .unwrap_or("")
                    .to_owned(),
                codes.iter().filter_map(Value::as_i64).collect(),
            )
        })
        .collect();
    // What a pod is told is read again; the rest is most of a Job.
    let told = json!({"name": ENV_RUN, "value": run.to_string()});
    value["spec"]["template"] = json!({"spec": {"containers": [{"name": "push", "env": [told]}]}});
    value["spec"]["podFailurePolicy"] = Value::Null;
    Known {
        run,
        containers: containers
            .iter()
            .map(|c| c["name"].as_str().unwrap_or("").to_owned())
            .collect(),
        finals,
        ..Known::default()
    }
}

impl World {
    /// Notes what a Job that is about to be made is for.
    pub fn take_job(&mut self, value: &mut Value) {
        let name = value["metadata"]["name"].as_str().unwrap_or("").to_owned();
        if value["spec"]["suspend"] != true {
            self.violated(format!("Job {name} is not suspended at its birth"));
        }
        if value["metadata"]["labels"].get(LABEL_QUEUE).is_some() {
            let pause = self.rng.between(1, 90);
            self.later(pause, What::Admit(name.clone()));
        }
        let known = strip(value);
        self.jobs.insert(name, known);
    }

    /// Kueue lets a Job of one of its queues begin.
    pub fn admit(&mut self, name: &str) {
        let waits = self
            .get(Kind::Job, name)
            .is_some_and(|job| !job.deleting() && job.value["spec"]["suspend"] == true);
        if waits {
            self.tally.count("deed", "Admit");
            self.say(|| format!("Kueue admits {name}"));
            self.change(Kind::Job, name, |job| {
                job["spec"]["suspend"] = json!(false);
            });
        }
    }

    /// The Job's pods, oldest first.
    fn pods_of(&self, uid: &str) -> Vec<Object> {
        let mut pods: Vec<Object> = self
            .of_kind(Kind::Pod)
            .filter(|pod| pod.owner().is_some_and(|(_, _, owner)| owner == uid))
            .cloned()
            .collect();
        pods.sort_by_key(|pod| pod.name().to_owned());
        pods
    }

    /// One look at a Job.
    pub fn sync_job(&mut self, name: &str) {
        let Some(job) = self.get(Kind::Job, name).cloned() else {
            return;
        };
        let Some(mut known) = self.jobs.remove(name) else {
            return;
        };
        self.sync(&job, &mut known);
        self.jobs.insert(name.to_owned(), known);
    }

    fn sync(&mut self, job: &Object, known: &mut Known) {
        let name = job.name();
        let suspended = job.value["spec"]["suspend"] == true;
        if is_finished(job) || job.deleting() || suspended {
            return;
        }
        let deadline = job.value["spec"]["activeDeadlineSeconds"]
            .as_i64()
            .unwrap_or(0);
        let Some(started) = started(job) else {
            let now = self.time();
            self.change(Kind::Job, name, |job| {
                job["status"]["startTime"] = json!(now);
            });
            self.later(deadline, What::Job(name.to_owned()));
            return;
        };
        let pods = self.pods_of(job.uid());
        let mut succeeded = false;
        for pod in pods.iter().filter(|pod| !is_alive(pod)) {
            if !known.counted.insert(pod.name().to_owned()) {
                continue;
            }
            if pod.value["status"]["phase"] == "Succeeded" {
                succeeded = true;
            } else if !is_disrupted(pod) {
                known.failures += 1;
                known.next = self.now + (10 << known.failures.min(5)) / 2;
                if let Some(words) = known.final_exit(pod) {
                    known.failing.get_or_insert(("PodFailurePolicy", words));
                }
            }
        }
        let gone: Vec<String> = known
            .made
            .iter()
            .filter(|made| !pods.iter().any(|pod| pod.name() == **made))
            .filter(|made| !known.counted.contains(*made))
            .cloned()
            .collect();
        for pod in gone {
            known.counted.insert(pod);
            known.failures += 1;
            known.next = self.now + 10;
        }
        let running = pods.iter().any(is_alive);
        if succeeded && !running {
            self.finish(name, "Complete", "CompletionsReached", "done");
            return;
        }
        let limit = job.value["spec"]["backoffLimit"].as_i64().unwrap_or(6);
        if known.failures > limit {
            let words = "Job has reached the specified backoff limit".to_owned();
            known.failing.get_or_insert(("BackoffLimitExceeded", words));
        }
        if self.now >= started + deadline {
            let words = "Job was active longer than specified deadline".to_owned();
            known.failing.get_or_insert(("DeadlineExceeded", words));
        }
        if let Some((reason, words)) = known.failing.clone() {
            for pod in pods.iter().filter(|pod| is_alive(pod) && !pod.deleting()) {
                self.delete(Kind::Pod, pod.name(), false);
            }
            if !running {
                self.finish(name, "Failed", reason, &words);
            }
            return;
        }
        if running {
            return;
        }
        if self.now < known.next {
            if known.again != known.next {
                known.again = known.next;
                self.later(known.next - self.now, What::Job(name.to_owned()));
            }
            return;
        }
        self.make_pod(job, known);
    }

    fn make_pod(&mut self, job: &Object, known: &mut Known) {
        let name = job.name();
        let refusal = if self.weather.no_pods {
            Some("pods \"x\" is forbidden: exceeded quota: small, requested: pods=1")
        } else if self.weather.no_pod_is_good {
            Some("pods \"x\" is forbidden: violates PodSecurity \"locked:latest\"")
        } else {
            None
        };
        if let Some(words) = refusal {
            self.warn(
                job.uid(),
                "FailedCreate",
                &format!("Error creating: {words}"),
            );
            known.next = self.now + 30;
            known.again = known.next;
            self.later(30, What::Job(name.to_owned()));
            return;
        }
        // No two pods have one name.
        let pod = format!("{name}-{:06}", self.serial());
        known.made.insert(pod.clone());
        let mut labels = job.value["metadata"]["labels"].clone();
        labels["batch.kubernetes.io/job-name"] = json!(name);
        let value = json!({
            "metadata": {
                "name": pod,
                "labels": labels,
                "ownerReferences": [{
                    "apiVersion": "batch/v1", "kind": "Job", "name": name, "uid": job.uid(),
                    "controller": true, "blockOwnerDeletion": true,
                }],
            },
            "spec": {"containers": []},
            "status": {"phase": "Pending"},
        });
        self.check_new(Kind::Pod, &value);
        self.insert(Kind::Pod, value);
        let fate = self.draw(known);
        self.say(|| format!("pod {pod}: {fate:?}"));
        self.fates.insert(pod.clone(), fate);
        let pause = self.rng.between(1, 5);
        self.later(pause, What::Pod(pod, Step::Schedule));
    }

    fn finish(&mut self, name: &str, condition: &str, reason: &str, words: &str) {
        self.say(|| format!("Job {name}: {condition} ({reason})"));
        let now = self.time();
        self.change(Kind::Job, name, |job| {
            job["status"]["conditions"] = json!([{
                "type": condition, "status": "True", "reason": reason, "message": words,
                "lastTransitionTime": now,
            }]);
        });
    }

    /// A warning of Kubernetes' about an object.
    pub fn warn(&mut self, uid: &str, reason: &str, words: &str) {
        let name = format!("{uid}.{reason}");
        self.objects.remove(&(Kind::Event, name.clone()));
        let value = json!({
            "metadata": {"name": name},
            "type": "Warning", "reason": reason, "message": words,
            "involvedObject": {"uid": uid, "namespace": NAMESPACE},
            "lastTimestamp": time(self.now),
        });
        self.insert(Kind::Event, value);
    }
}

/// When the Job was resumed.
pub fn started(job: &Object) -> Option<i64> {
    let text = job.value["status"]["startTime"].as_str()?;
    Some(text.parse::<jiff::Timestamp>().ok()?.as_second())
}

fn is_disrupted(pod: &Object) -> bool {
    pod.value["status"]["conditions"]
        .as_array()
        .is_some_and(|list| list.iter().any(|c| c["type"] == "DisruptionTarget"))
}

impl Known {
    fn final_exit(&self, pod: &Object) -> Option<String> {
        let status = &pod.value["status"];
        let list = |name: &str| status[name].as_array().cloned().unwrap_or_default();
        let ended: Vec<Value> = list("initContainerStatuses")
            .into_iter()
            .chain(list("containerStatuses"))
            .collect();
        ended.iter().find_map(|container| {
            let code = container["state"]["terminated"]["exitCode"].as_i64()?;
            let name = container["name"].as_str()?;
            let is_final = self
                .finals
                .iter()
                .any(|(rule, codes)| rule == name && codes.contains(&code));
            is_final.then(|| format!("Container {name} failed with exit code {code}"))
        })
    }
}
