//! What goes wrong ends in a reason of its own, with a message a user can act on, and is well
//! again by itself once the cause is gone.

use anyhow::{Result, ensure};
use firn_e2e::story::{Wanted, World, condition, tell};
use serde_json::{Value, json};

/// Waits for `reason`, checks that the message says each of `words`, and that nothing spins.
async fn fails(world: &World, reason: &str, words: &[&str]) -> Result<Value> {
    let image = world.not_ready("web", reason).await?;
    let ready = condition(&image, "Ready");
    let message = ready["message"].as_str().unwrap_or_default();
    for word in words {
        ensure!(
            message.contains(word),
            "the message does not say {word:?}: {message}"
        );
    }
    let stalled = condition(&image, "Stalled")["status"] == "True";
    let reconciling = condition(&image, "Reconciling")["status"] == "True";
    ensure!(
        stalled != reconciling,
        "neither or both of Stalled and Reconciling: {image:#}"
    );
    Ok(image)
}

#[tokio::test]
async fn a_flake_that_does_not_parse_is_mended_by_a_commit() -> Result<()> {
    tell("broken-flake", async |world| {
        let mut source = world.publish_flake("public").await?;
        let ca = &world.ca_file();
        let good = std::fs::read_to_string(source.flake.repository.path().join("flake.nix"))?;
        source
            .flake
            .change(ca, "flake.nix", "{ outputs = { self, }: { oops")
            .await?;
        let wanted = Wanted::new(world, "web", &source.url).with("/spec/trigger/mode", "Revision");
        world.apply(&wanted).await?;
        let image = fails(world, "EvaluationFailed", &["syntax error"]).await?;
        ensure!(condition(&image, "Stalled")["status"] == "True");
        ensure!(image["status"]["failure"]["class"] == "User");
        source.flake.change(ca, "flake.nix", &good).await?;
        world.ready("web").await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_missing_attribute_is_mended_in_the_spec() -> Result<()> {
    tell("no-attribute", async |world| {
        let source = world.publish_flake("public").await?;
        let wanted = Wanted::new(world, "web", &source.url);
        world
            .apply(&wanted.clone().with("/spec/flake/attribute", "webb"))
            .await?;
        fails(world, "AttributeNotFound", &["webb"]).await?;
        world.apply(&wanted).await?;
        world.ready("web").await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_derivation_that_fails_shows_the_end_of_its_log() -> Result<()> {
    tell("build-fails", async |world| {
        let source = world.publish_flake("public").await?;
        let wanted = Wanted::new(world, "web", &source.url);
        world
            .apply(&wanted.clone().with("/spec/flake/attribute", "fail"))
            .await?;
        let image = fails(world, "BuildFailed", &["fail"]).await?;
        let failure = &image["status"]["failure"];
        let log = failure["logTail"].as_str().unwrap_or_default();
        ensure!(log.contains("the widget does not fit"), "{failure:#}");
        ensure!(
            failure["drvPath"]
                .as_str()
                .unwrap_or_default()
                .ends_with("-fail.drv"),
            "{failure:#}"
        );
        // A user's failure is not tried again as long as nothing changes.
        ensure!(world.builds("web").await?.len() == 1);
        world.apply(&wanted).await?;
        world.ready("web").await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_build_out_of_memory_is_told_its_limit() -> Result<()> {
    tell("out-of-memory", async |world| {
        let source = world.publish_flake("public").await?;
        let wanted = Wanted::new(world, "web", &source.url)
            .with(
                "/spec/build/resources",
                json!({ "limits": { "memory": "256Mi" } }),
            )
            .with("/spec/build/retries", 0);
        world
            .apply(&wanted.clone().with("/spec/flake/attribute", "fill-memory"))
            .await?;
        fails(world, "OutOfMemory", &["256Mi"]).await?;
        world.apply(&wanted).await?;
        world.ready("web").await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn an_attribute_of_another_kind_is_not_wrapped() -> Result<()> {
    tell("not-an-image", async |world| {
        let source = world.publish_flake("public").await?;
        let wanted = Wanted::new(world, "web", &source.url);
        world
            .apply(&wanted.clone().with("/spec/flake/attribute", "not-an-image"))
            .await?;
        fails(
            world,
            "NotAnImage",
            &["not-an-image", "failed to read the archive"],
        )
        .await?;
        world.apply(&wanted).await?;
        world.ready("web").await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn wrong_git_credentials_are_mended_in_the_secret() -> Result<()> {
    tell("git-login", async |world| {
        let source = world.publish_flake("private").await?;
        world
            .apply_secret(
                "git",
                "Opaque",
                &[("username", "firn"), ("password", "FIRN-CANARY-wrong")],
            )
            .await?;
        let wanted =
            Wanted::new(world, "web", &source.url).with("/spec/source/git/secretRef/name", "git");
        world.apply(&wanted).await?;
        let image = fails(world, "SourceAuthFailed", &["git"]).await?;
        ensure!(condition(&image, "SourceReady")["status"] == "False");
        let right = [
            ("username", world.services.git_user.as_str()),
            ("password", &world.services.git_password),
        ];
        world.apply_secret("git", "Opaque", &right).await?;
        world
            .annotate("web", "reconcile.firn.dev/requestedAt", "mended")
            .await?;
        world.ready("web").await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn wrong_registry_credentials_are_noticed_before_the_build() -> Result<()> {
    tell("registry-login", async |world| {
        let source = world.publish_flake("public").await?;
        let key = ".dockerconfigjson";
        let kind = "kubernetes.io/dockerconfigjson";
        let wrong = world.docker_config("firn", "FIRN-CANARY-wrong");
        world
            .apply_secret("registry", kind, &[(key, &wrong)])
            .await?;
        world.apply(&Wanted::new(world, "web", &source.url)).await?;
        let image = fails(world, "PushAuthFailed", &[&world.services.registry]).await?;
        ensure!(
            image["status"]["failure"]["container"] == "check",
            "{}",
            image["status"]["failure"]
        );
        let right = world.docker_config(
            &world.services.registry_user,
            &world.services.registry_password,
        );
        world
            .apply_secret("registry", kind, &[(key, &right)])
            .await?;
        world
            .annotate("web", "reconcile.firn.dev/requestedAt", "mended")
            .await?;
        world.ready("web").await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_git_server_that_is_not_there_is_asked_again() -> Result<()> {
    tell("no-git", async |world| {
        let source = world.publish_flake("public").await?;
        let wanted = Wanted::new(world, "web", &source.url);
        // Nothing listens on that port of the git server.
        let away = source.url.replacen("/public/", ":4/public/", 1);
        world
            .apply(
                &wanted
                    .clone()
                    .with("/spec/source/git/url", away)
                    // Packets to it may be dropped.
                    .with("/spec/source/git/timeout", "10s"),
            )
            .await?;
        let image = fails(world, "SourceUnreachable", &[":4"]).await?;
        ensure!(
            condition(&image, "Reconciling")["status"] == "True",
            "an unreachable server is tried again"
        );
        world.apply(&wanted).await?;
        world.ready("web").await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_branch_that_does_not_exist_is_named() -> Result<()> {
    tell("no-branch", async |world| {
        let source = world.publish_flake("public").await?;
        let wanted = Wanted::new(world, "web", &source.url);
        world
            .apply(&wanted.clone().with("/spec/source/git/ref/branch", "mian"))
            .await?;
        fails(world, "RevisionNotFound", &["mian"]).await?;
        world
            .apply(&wanted.with("/spec/source/git/ref/branch", "main"))
            .await?;
        world.ready("web").await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_missing_push_secret_is_waited_for() -> Result<()> {
    tell("no-secret", async |world| {
        let source = world.publish_flake("public").await?;
        world.delete_secret("registry").await?;
        world.apply(&Wanted::new(world, "web", &source.url)).await?;
        fails(world, "SecretMissing", &["registry"]).await?;
        let right = world.docker_config(
            &world.services.registry_user,
            &world.services.registry_password,
        );
        world
            .apply_secret(
                "registry",
                "kubernetes.io/dockerconfigjson",
                &[(".dockerconfigjson", &right)],
            )
            .await?;
        world.ready("web").await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn what_is_not_supported_yet_is_named_and_not_ignored() -> Result<()> {
    tell("not-supported", async |world| {
        let source = world.publish_flake("public").await?;
        let wanted = Wanted::new(world, "web", &source.url);
        let signed = json!({ "mode": "Key", "keySecretRef": { "name": "cosign" } });
        world
            .apply(&wanted.clone().with("/spec/signing", signed))
            .await?;
        let image = fails(world, "NotSupported", &["signing"]).await?;
        ensure!(condition(&image, "Stalled")["status"] == "True");
        ensure!(world.builds("web").await?.is_empty());
        world.apply(&wanted).await?;
        world.ready("web").await?;
        Ok(())
    })
    .await
}
