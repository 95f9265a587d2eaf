//! What a source names in other repositories is part of it.

use anyhow::{Context as _, Result, ensure};
use firn_e2e::fixture::Repository;
use firn_e2e::story::{Wanted, tell};
use serde_json::{Value, json};

/// Has the flake name a commit of the library.
async fn link(flake: &Repository, commit: &str) -> Result<()> {
    // git takes a folder that is not there for one that was removed.
    std::fs::create_dir_all(flake.path().join("vendor/lib"))?;
    let link = format!("160000,{commit},vendor/lib");
    let arguments = ["update-index", "--add", "--cacheinfo", &link];
    flake.git(&arguments).await.map(drop)
}

#[tokio::test]
async fn a_submodule_is_built_at_the_commit_that_the_source_names() -> Result<()> {
    tell("submodules", async |world| {
        let ca = &world.ca_file();
        // Both ask for the password of the same Secret.
        let mut source = world.publish_flake("private").await?;
        let (library_url, library_push_url) = world.git_urls("private", "lib");
        let mut library = Repository::create().await?;
        let say = async |library: &mut Repository, text: &str| -> Result<String> {
            library.write("text", text)?;
            let commit = library.commit(text).await?;
            library.push(&library_push_url, ca).await?;
            Ok(commit)
        };
        let morning = say(&mut library, "good morning").await?;

        let flake = &source.flake.repository;
        let (_, name) = library_url.rsplit_once('/').context("no path in the URL")?;
        let entry = format!("[submodule \"lib\"]\n\tpath = vendor/lib\n\turl = ../{name}\n");
        flake.write(".gitmodules", entry)?;
        link(flake, &morning).await?;
        let text = std::fs::read_to_string(flake.path().join("flake.nix"))?
            .replace("${greeting.text}", "${builtins.readFile ./vendor/lib/text}");
        source.flake.change(ca, "flake.nix", &text).await?;
        // The branch goes on; what is named stays what it is.
        let evening = say(&mut library, "good evening").await?;

        let trigger = json!({ "mode": "LockFile", "paths": ["vendor/lib"] });
        let wanted = Wanted::new(world, "web", &source.url)
            .with("/spec/source/git/secretRef/name", "git")
            .with("/spec/source/git/submodules", true)
            .with("/spec/trigger", trigger);
        world.apply(&wanted).await?;
        let first = world.ready("web").await?;
        let image = |image: &Value| -> Result<String> {
            let name = image["status"]["latestImage"].as_str();
            Ok(name.context("nothing is published")?.to_owned())
        };
        let printed = world.run("first", &image(&first)?).await?;
        ensure!(printed.contains("app says: good morning"), "{printed:?}");

        link(&source.flake.repository, &evening).await?;
        source.flake.change(ca, "README.md", "Evening.\n").await?;
        world
            .annotate("web", "reconcile.firn.dev/requestedAt", "evening")
            .await?;
        let second = world.ready_again("web", "web-1").await?;
        let printed = world.run("second", &image(&second)?).await?;
        ensure!(printed.contains("app says: good evening"), "{printed:?}");
        Ok(())
    })
    .await
}
