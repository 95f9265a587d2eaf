//! `make demo`: the main job, told while it happens. Every figure it prints is read from status; a
//! story tells the same and compares them with the registry's own log.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::cluster::{Cluster, Layout};
use crate::install::{install_chart, push_images};
use crate::story::{BUILD, Wanted, World, condition};
use crate::wait::{Seen, eventually};

/// The namespace the demo works in and leaves behind to look at.
pub const NAMESPACE: &str = "demo";

/// Where the demo's lines go.
pub type Say<'a> = &'a (dyn Fn(&str) + Sync);

/// Installs Firn and tells the demo on standard output. `images` are Firn's own.
///
/// # Errors
/// Whatever goes wrong, with what was seen last.
pub async fn run(images: &Path) -> Result<()> {
    step(&print, "Firn is installed with its chart");
    let cluster = Cluster::from_env()?;
    install_chart(&cluster, &push_images(&cluster, images).await?)?;
    tell(&World::begin(NAMESPACE.to_owned()).await?, &print).await
}

/// Builds an image, runs it, moves its lock file, and shows what the second build had to push.
///
/// # Errors
/// Whatever goes wrong, with what was seen last.
pub async fn tell(world: &World, say: Say<'_>) -> Result<()> {
    let ca = world.ca_file();
    let namespace = &world.namespace;

    step(say, "A team pushes a flake to its git server");
    let mut source = world.publish_flake("public").await?;
    say(&format!(
        "{}, branch main, commit {}",
        source.url,
        short(&source.commit)
    ));

    step(say, "and applies a NixImage");
    let wanted = Wanted::new(world, "hello", &source.url).with("/spec/flake/attribute", "wide");
    say(&serde_yaml_ng::to_string(&wanted.0)?);
    world.apply(&wanted).await?;
    let first = until_ready(world, say, "hello", None).await?;
    show_published(&first, say);

    step(say, "Any node can run it");
    let image = first["status"]["latestImage"]
        .as_str()
        .context("status has no latestImage")?;
    say(&format!(
        "$ kubectl -n {namespace} run hello --image={image}"
    ));
    say(&world.run("hello", image).await?);

    step(say, "A bot commits a new flake.lock");
    source
        .greeting
        .say(&ca, "hello from a newer greeting")
        .await?;
    let commit = source.flake.lock(&ca, &source.greeting).await?;
    say(&format!(
        "commit {}; Firn looks every 30 s, nobody tells it",
        short(&commit)
    ));
    let build = first["status"]["latestBuildRef"]["name"]
        .as_str()
        .unwrap_or_default();
    let second = until_ready(world, say, "hello", Some(build)).await?;
    show_published(&second, say);
    show_delta(&second, say)?;
    let image = second["status"]["latestImage"]
        .as_str()
        .context("status has no latestImage")?;
    say(&format!(
        "$ kubectl -n {namespace} run hello-again --image={image}"
    ));
    say(&world.run("hello-again", image).await?);
    Ok(())
}

/// Tells how to look around and how to stop.
pub fn farewell(layout: &Layout, took: Duration) {
    step(&print, "Look around");
    print(&format!(
        "That took {took} s. The cluster stays up. With a kubectl of yours leave out the second line:\n\n\
         \x20   export KUBECONFIG={kubeconfig}\n\
         \x20   kubectl() {{ {kube} kubectl \"$@\"; }}\n\
         \x20   kubectl -n {NAMESPACE} get niximages,niximagebuilds\n\
         \x20   kubectl -n {NAMESPACE} describe niximage hello\n\
         \x20   kubectl -n {NAMESPACE} logs job/hello-2-amd64 -c build   # the build's log\n\n\
         Its registry and git server are reached inside its network only:\n\n\
         \x20   $(e2e/cargo-target)/debug/firn-cluster exec -- bash\n\n\
         make cluster-down ends it and leaves nothing but the cache, {cache}.",
        took = took.as_secs(),
        kubeconfig = layout.kubeconfig_outside().display(),
        kube = layout.program("kube").display(),
        cache = layout.cache.display(),
    ));
}

/// Shows each change of `Ready` until it is true, from another build than `than`.
async fn until_ready(world: &World, say: Say<'_>, name: &str, than: Option<&str>) -> Result<Value> {
    let start = Instant::now();
    let shown = std::cell::RefCell::new(BTreeSet::new());
    let image = eventually(&format!("NixImage {name} is ready"), BUILD, || async {
        let image = world.image(name).await?;
        let ready = condition(&image, "Ready");
        let build = image["status"]["latestBuildRef"]["name"].as_str();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let line = format!("{}: {}", text(&ready["reason"]), text(&ready["message"]));
        if (than.is_none() || build != than)
            && ready.is_object()
            && shown.borrow_mut().insert(line.clone())
        {
            say(&format!("{:5.1} s  {line}", start.elapsed().as_secs_f64()));
        }
        let done = ready["status"] == "True" && build.is_some() && build != than;
        Ok(if done {
            Seen::Done(image)
        } else {
            Seen::NotYet(line)
        })
    })
    .await?;
    ensure!(condition(&image, "Ready")["status"] == "True");
    Ok(image)
}

fn show_published(image: &Value, say: Say<'_>) {
    let published = &image["status"]["published"];
    let tags: Vec<&str> = published["tags"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    say(&format!(
        "image   {}",
        image["status"]["latestImage"].as_str().unwrap_or_default()
    ));
    say(&format!("tags    {}", tags.join(", ")));
    say(&format!(
        "layers  {}, {} bytes compressed",
        published["layersTotal"], published["sizeBytes"]
    ));
}

fn show_delta(image: &Value, say: Say<'_>) -> Result<()> {
    let published = &image["status"]["published"];
    let number = |field: &str| {
        published[field]
            .as_i64()
            .with_context(|| format!("status has no {field}"))
    };
    let (total, pushed) = (number("layersTotal")?, number("layersPushed")?);
    let (reused, mounted) = (number("layersReused")?, number("layersMounted")?);
    let (bytes, size) = (number("bytesPushed")?, number("sizeBytes")?);
    say(&format!(
        "Layers: {total}. Pushed, because they had changed: {pushed}. In the registry already: {}.",
        reused + mounted
    ));
    say(&format!(
        "{bytes} bytes travelled for an image of {size} bytes."
    ));
    Ok(())
}

fn short(commit: &str) -> &str {
    commit.get(..12).unwrap_or(commit)
}

fn step(say: Say<'_>, text: &str) {
    say(&format!("\n== {text}"));
}

#[expect(clippy::print_stdout, reason = "the demo is told on standard output")]
fn print(text: &str) {
    println!("{text}");
}
