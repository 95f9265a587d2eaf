//! The main job: a `NixImage` is applied, its image is built, pushed, pulled and run.

use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, Result, ensure};
use firn_crd::pod::{UID_BUILD, UID_PUSH};
use firn_e2e::demo;
use firn_e2e::registry::{self, Registry};
use firn_e2e::story::{Wanted, World, condition, tell};
use serde_json::{Value, json};

#[tokio::test]
async fn an_applied_image_is_built_pushed_pulled_and_run() -> Result<()> {
    tell("first-image", async |world| {
        let source = world.publish_flake("public").await?;
        world.apply(&Wanted::new(world, "web", &source.url)).await?;
        let image = world.ready("web").await?;

        let status = &image["status"];
        let digest = status["published"]["digest"]
            .as_str()
            .context("no digest in status")?;
        ensure!(status["latestImage"] == format!("{}@{digest}", world.repository("web")));
        ensure!(status["published"]["tags"] == json!(["latest"]));
        ensure!(status["latestBuildRef"]["name"] == "web-1");
        ensure!(status["source"]["revision"] == format!("main@sha1:{}", source.commit));
        ensure!(condition(&image, "Available")["status"] == "True");
        ensure!(condition(&image, "SourceReady")["status"] == "True");
        ensure!(
            condition(&image, "Reconciling").is_null() && condition(&image, "Stalled").is_null()
        );

        let registry = Registry::new(world)?;
        let tagged = registry.digest(&world.repository("web"), "latest").await?;
        ensure!(
            tagged.as_deref() == Some(digest),
            "the tag is at {tagged:?}, status says {digest}"
        );

        let printed = world
            .run("run-web", &format!("{}@{digest}", world.repository("web")))
            .await?;
        ensure!(
            printed.contains("app says: hello from the snow"),
            "it printed {printed:?}"
        );
        Ok(())
    })
    .await
}

/// What status says was pushed is what the registry took.
#[tokio::test]
async fn the_figures_in_status_are_those_of_the_registry() -> Result<()> {
    tell("figures", async |world| {
        let mut source = world.publish_flake("public").await?;
        let ca = &world.ca_file();
        let wanted = Wanted::new(world, "web", &source.url)
            .with("/spec/flake/attribute", "wide")
            // crane's validator reads no zstd.
            .with("/spec/output/layers/compression", "Gzip");
        world.apply(&wanted).await?;
        let first = world.ready("web").await?;
        let registry = Registry::new(world)?;
        let image = first["status"]["latestImage"].as_str().unwrap_or_default();
        registry::validate(world, image).await?;
        let took = registry.blobs_taken(world, "web").await?;
        let published = &first["status"]["published"];
        ensure!(
            published["layersReused"] == 0 && published["layersMounted"] == 0,
            "{published}"
        );
        ensure!(
            published["layersPushed"] == published["layersTotal"],
            "{published}"
        );
        // Every layer and the config.
        ensure!(
            published["layersPushed"] == took.count - 1,
            "{published}, the registry took {took:?}"
        );
        ensure!(
            published["bytesPushed"] == took.bytes,
            "{published}, the registry took {took:?}"
        );

        source.greeting.say(ca, "hello again").await?;
        source.flake.lock(ca, &source.greeting).await?;
        let second = world.ready_again("web", "web-1").await?;
        let published = &second["status"]["published"];
        let both = registry.blobs_taken(world, "web").await?;
        ensure!(
            published["layersPushed"] == both.count - took.count - 1,
            "{published}, {both:?}"
        );
        ensure!(
            published["bytesPushed"] == both.bytes - took.bytes,
            "{published}, {both:?}"
        );
        let (pushed, total) = (&published["layersPushed"], &published["layersTotal"]);
        ensure!(
            pushed.as_i64() < total.as_i64(),
            "nothing was reused: {published}"
        );
        Ok(())
    })
    .await
}

/// `make demo`, with another namespace and another reader: what it prints is what the registry
/// took, and where its tag is.
#[tokio::test]
async fn the_figures_of_the_demo_are_those_of_the_registry() -> Result<()> {
    tell("demo", async |world| {
        let printed = Mutex::new(String::new());
        demo::tell(world, &|text| {
            let mut printed = printed.lock().unwrap_or_else(PoisonError::into_inner);
            printed.push_str(text);
            printed.push('\n');
        })
        .await?;
        let printed = printed.into_inner().unwrap_or_else(PoisonError::into_inner);
        let number = |before: &str, after: &str| -> Result<i64> {
            let found = printed.lines().find_map(|line| {
                let (_, rest) = line.split_once(before)?;
                rest.split_once(after)?.0.trim().parse().ok()
            });
            found.with_context(|| format!("no {before:?} and {after:?} in\n{printed}"))
        };
        let layers = number("layers  ", ",")?;
        let bytes = number(&format!("layers  {layers}, "), " bytes compressed")?;
        let pushed = number("because they had changed: ", ".")?;
        let reused = number("In the registry already: ", ".")?;
        let travelled = number("", " bytes travelled")?;
        ensure!(pushed + reused == number("Layers: ", ".")?, "{printed}");
        ensure!(reused > 0 && travelled < bytes, "{printed}");

        let registry = Registry::new(world)?;
        let took = registry.blobs_taken(world, "hello").await?;
        // Both images have a config beside their layers; of the first one everything was new.
        ensure!(
            (took.count, took.bytes) == (layers + 1 + pushed + 1, bytes + travelled),
            "the registry took {took:?}, the demo printed\n{printed}"
        );
        let tag = registry
            .digest(&world.repository("hello"), "latest")
            .await?;
        let last = printed.lines().rfind(|line| line.starts_with("image   "));
        ensure!(
            last.is_some_and(|line| line.ends_with(&tag.clone().unwrap_or_default())),
            "the tag is at {tag:?}, the demo printed {last:?}"
        );
        for greeting in ["hello from the snow", "hello from a newer greeting"] {
            ensure!(
                printed.contains(greeting),
                "{greeting:?} is not in\n{printed}"
            );
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn fresh_pods_make_the_same_digest_in_two_empty_repositories() -> Result<()> {
    tell("same-digest", async |world| {
        let source = world.publish_flake("public").await?;
        for name in ["east", "west"] {
            // Other limits give other thread counts and another place on the node's disk.
            let cpu = if name == "east" { "500m" } else { "2" };
            let wanted = Wanted::new(world, name, &source.url)
                .with("/spec/flake/attribute", "wide")
                .with(
                    "/spec/build/resources",
                    json!({ "requests": { "cpu": "50m" }, "limits": { "cpu": cpu } }),
                );
            world.apply(&wanted).await?;
        }
        let (east, west) = (world.ready("east").await?, world.ready("west").await?);
        let digest = |image: &Value| image["status"]["published"]["digest"].clone();
        ensure!(
            digest(&east) == digest(&west),
            "{} and {}",
            digest(&east),
            digest(&west)
        );
        ensure!(west["status"]["published"]["bytesPushed"].as_i64() > Some(0));
        run_elsewhere(world).await?;
        let tagged = Registry::new(world)?
            .digest(&world.repository("elsewhere"), "latest")
            .await?;
        ensure!(
            tagged.as_deref() == digest(&east).as_str(),
            "{tagged:?} and {}",
            digest(&east)
        );
        Ok(())
    })
    .await
}

/// The pod of east's build once more, into a third empty repository: with other users, another
/// umask, time zone and host name, fewer processors, and all its files in memory.
async fn run_elsewhere(world: &World) -> Result<()> {
    let pods = world.pods("east").await?;
    let pod = pods
        .into_iter()
        .next()
        .context("east has no pod any more")?;
    let mut spec = serde_json::to_value(pod.spec)?;
    renumber(&mut spec);
    if let Some(spec) = spec.as_object_mut() {
        spec.remove("nodeName");
    }
    for volume in spec["volumes"].as_array_mut().into_iter().flatten() {
        if volume["emptyDir"].is_object() {
            volume["emptyDir"] = json!({ "medium": "Memory" });
        }
    }
    for kind in ["initContainers", "containers"] {
        for container in spec[kind].as_array_mut().into_iter().flatten() {
            let words = ["command", "args"].map(|field| container[field].take());
            let words = words.iter().filter_map(Value::as_array).flatten();
            let script = [
                json!("sh"),
                json!("-euc"),
                json!("umask 027; exec \"$@\""),
                json!("sh"),
            ];
            container["command"] = script.iter().chain(words).cloned().collect();
            container["resources"]["limits"]["cpu"] = json!("700m");
            let variables = container["env"].as_array_mut().context("no environment")?;
            for variable in variables.iter_mut().filter(|v| v["name"] == "FIRN_RUN") {
                let mut run: Value =
                    serde_json::from_str(variable["value"].as_str().unwrap_or_default())?;
                run["output"]["repository"] = json!(world.repository("elsewhere"));
                variable["value"] = json!(run.to_string());
            }
            variables.push(json!({ "name": "TZ", "value": "Asia/Kathmandu" }));
        }
    }
    let pod = json!({ "metadata": { "name": "elsewhere" }, "spec": spec });
    world.run_pod(serde_json::from_value(pod)?).await?;
    Ok(())
}

/// Other users and another group than those of Firn's pods.
fn renumber(value: &mut Value) {
    match value {
        Value::Number(number) => match number.as_i64() {
            Some(UID_BUILD) => *value = json!(31_000),
            Some(UID_PUSH) => *value = json!(31_001),
            _ => {}
        },
        Value::Array(items) => items.iter_mut().for_each(renumber),
        Value::Object(fields) => fields.values_mut().for_each(renumber),
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}

/// The Secret of a git login may hold the authority of the server too.
#[tokio::test]
async fn a_git_secret_may_bring_the_servers_authority() -> Result<()> {
    tell("secret-ca", async |world| {
        let source = world.publish_flake("private").await?;
        let services = &world.services;
        world
            .apply_secret(
                "git-with-ca",
                "Opaque",
                &[
                    ("username", &services.git_user),
                    ("password", &services.git_password),
                    ("ca.crt", &services.ca_pem),
                ],
            )
            .await?;
        let wanted = Wanted::new(world, "web", &source.url)
            .with("/spec/source/git/secretRef/name", "git-with-ca")
            .without("/spec/source/git/caConfigMapRef");
        world.apply(&wanted).await?;
        world.ready("web").await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn private_git_and_private_registry_with_an_authority_of_their_own() -> Result<()> {
    tell("private", async |world| {
        let source = world.publish_flake("private").await?;
        let wanted =
            Wanted::new(world, "web", &source.url).with("/spec/source/git/secretRef/name", "git");
        world.apply(&wanted).await?;
        world.ready("web").await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_git_server_without_filters_and_a_plain_registry_will_do() -> Result<()> {
    tell("plain", async |world| {
        let source = world.publish_flake("nofilter").await?;
        let wanted = Wanted::new(world, "web", &source.url)
            .with(
                "/spec/output/repository",
                format!("{}/{}/web", world.services.plain, world.namespace),
            )
            .with("/spec/output/plainHTTP", true)
            .without("/spec/output/pushSecretRef")
            .without("/spec/output/caConfigMapRef");
        world.apply(&wanted).await?;
        let image = world.ready("web").await?;
        let printed = world
            .run(
                "run",
                image["status"]["latestImage"].as_str().unwrap_or_default(),
            )
            .await?;
        ensure!(
            printed.contains("hello from the snow"),
            "it printed {printed:?}"
        );
        Ok(())
    })
    .await
}
