//! The operator is killed after each of its API writes during one build: one Job, one result.
//!
//! The installed operator is put to sleep. Its own program runs here instead, with the same
//! settings, for one namespace, and gets SIGKILL as soon as the API server's audit log shows a
//! write of it; then it is started again, until the build is done.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use firn_e2e::install;
use firn_e2e::story::{BUILD, Wanted, World, condition, tell};
use firn_e2e::wait::{Seen, eventually};
use k8s_openapi::api::apps::v1::Deployment;
use kube::Api;
use serde_json::Value;
use tokio::process::{Child, Command};

/// More writes than any build needs: then it does not converge.
const MOST_WRITES: usize = 60;

#[tokio::test]
async fn an_operator_killed_after_each_of_its_writes_makes_one_job_and_one_result() -> Result<()> {
    tell("killed", async |world| {
        in_place_of_the_operator(world, story).await
    })
    .await
}

/// Tells a story that runs operators of its own, given their environment, while the installed one
/// sleeps.
pub(super) async fn in_place_of_the_operator<F>(world: &World, story: F) -> Result<()>
where
    F: AsyncFnOnce(&World, &[(String, String)]) -> Result<()>,
{
    let operators: Api<Deployment> = Api::namespaced(world.client.clone(), "firn-system");
    let environment = environment(&operators).await?;
    install::scale(&world.client, 0).await?;
    let told = story(world, &environment).await;
    let back = install::scale(&world.client, 1).await;
    told.and(back)
}

async fn story(world: &World, environment: &[(String, String)]) -> Result<()> {
    let log = audit_log(world)?;
    let source = world.publish_flake("public").await?;
    world.apply(&Wanted::new(world, "web", &source.url)).await?;

    let begin = length(&log)?;
    let mut seen = begin;
    let mut kills: Vec<String> = Vec::new();
    loop {
        let mut operator = start(world, environment)?;
        let write = eventually(
            "the operator writes, or the image is ready",
            BUILD,
            || async {
                if let Some(write) = writes(&log, seen, &world.namespace)?.into_iter().next() {
                    return Ok(Seen::Done(Some(write)));
                }
                let image = world.image("web").await?;
                Ok(if condition(&image, "Ready")["status"] == "True" {
                    Seen::Done(None)
                } else {
                    Seen::NotYet(format!("{image:#}"))
                })
            },
        )
        .await;
        operator.kill().await?;
        let Some(write) = write? else { break };
        seen = length(&log)?;
        kills.push(write.to_string());
        ensure!(
            kills.len() <= MOST_WRITES,
            "it does not come to an end: {kills:#?}"
        );
    }

    let all = writes(&log, begin, &world.namespace)?;
    let created: Vec<&Write> = all
        .iter()
        .filter(|w| w.verb == "create" && w.resource == "jobs")
        .collect();
    ensure!(kills.len() >= 5, "a build without writes? {kills:#?}");
    ensure!(
        created.len() == 1,
        "not one Job was created but {}: {all:#?}",
        created.len()
    );
    let builds = world.builds("web").await?;
    ensure!(builds.len() == 1, "{} builds: {all:#?}", builds.len());
    ensure!(
        builds[0]["status"]["outcome"] == "Published",
        "{:#}",
        builds[0]["status"]
    );
    let image = world.image("web").await?;
    ensure!(image["status"]["published"]["digest"] == builds[0]["status"]["digest"]);
    Ok(())
}

/// One successful write in the audit log.
#[derive(Debug)]
pub(super) struct Write {
    pub(super) verb: String,
    pub(super) resource: String,
    pub(super) name: String,
}

impl std::fmt::Display for Write {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} {}", self.verb, self.resource, self.name)
    }
}

/// The operator's writes to objects of `namespace` in the audit log after byte `from`. Events are
/// for people: nothing is decided by them.
pub(super) fn writes(log: &Path, from: u64, namespace: &str) -> Result<Vec<Write>> {
    let bytes = std::fs::read(log)?;
    let new = bytes.get(usize::try_from(from)?..).unwrap_or_default();
    let mut writes = Vec::new();
    // The last line may be half written.
    for line in new
        .split_inclusive(|byte| *byte == b'\n')
        .filter(|line| line.ends_with(b"\n"))
    {
        let Ok(entry) = serde_json::from_slice::<Value>(line) else {
            continue;
        };
        let object = &entry["objectRef"];
        let verb = entry["verb"].as_str().unwrap_or_default();
        if entry["stage"] != "ResponseComplete"
            || !entry["userAgent"]
                .as_str()
                .unwrap_or_default()
                .starts_with("firn-operator")
            || object["namespace"] != namespace
            || object["resource"] == "events"
            || !matches!(verb, "create" | "update" | "patch" | "delete")
            || entry["responseStatus"]["code"].as_i64().unwrap_or(500) >= 300
        {
            continue;
        }
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let mut resource = text(&object["resource"]);
        if let Some(part) = object["subresource"].as_str() {
            resource = format!("{resource}/{part}");
        }
        writes.push(Write {
            verb: verb.to_owned(),
            resource,
            name: text(&object["name"]),
        });
    }
    Ok(writes)
}

/// Where the API server writes down who wrote what.
pub(super) fn audit_log(world: &World) -> Result<PathBuf> {
    let embedded = world.cluster.needs_embedded();
    let layout = &embedded.context("this cluster shows no audit log")?.layout;
    Ok(layout.audit_log())
}

/// In bytes.
pub(super) fn length(log: &Path) -> Result<u64> {
    Ok(std::fs::metadata(log)?.len())
}

/// What the installed operator has in its environment.
async fn environment(operators: &Api<Deployment>) -> Result<Vec<(String, String)>> {
    let deployment = operators
        .get("firn")
        .await
        .context("Firn is not installed")?;
    let pod = deployment
        .spec
        .and_then(|spec| spec.template.spec)
        .unwrap_or_default();
    let container = pod
        .containers
        .into_iter()
        .next()
        .context("a Deployment without containers")?;
    let variables = container.env.unwrap_or_default();
    Ok(variables
        .into_iter()
        .filter_map(|v| Some((v.name, v.value?)))
        .collect())
}

pub(super) fn start(world: &World, environment: &[(String, String)]) -> Result<Child> {
    Command::new(program()?)
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .env("FIRN_WATCH_NAMESPACES", &world.namespace)
        .env("FIRN_LISTEN", "127.0.0.1:0")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .context("failed to start firn-operator")
}

/// The operator's program, which `make test` builds beside this test's folder.
fn program() -> Result<PathBuf> {
    let deps = std::env::current_exe()?;
    let program = deps
        .parent()
        .and_then(Path::parent)
        .context("no folder")?
        .join("firn-operator");
    ensure!(
        program.exists(),
        "{} is not built: run make test",
        program.display()
    );
    Ok(program)
}
