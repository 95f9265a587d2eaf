//! `e2e/cargo-target`: clones share build output, and none takes another's for its own.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

/// Makes a clone of one package in `folder`, with the script.
fn clone(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder.join("e2e"))?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("cargo-target");
    fs::copy(script, folder.join("e2e/cargo-target"))?;
    let manifest = "[package]\nname = \"firn-e2e\"\n\n[[bin]]\nname = \"other\"\n";
    fs::write(folder.join("e2e/Cargo.toml"), manifest)?;
    Ok(())
}

/// What the script prints in the clone, with a cargo that only writes down what it was asked.
fn target(root: &Path, clone: &str) -> Result<String> {
    let stub = root.join("stub");
    fs::create_dir_all(&stub)?;
    let cargo = stub.join("cargo");
    let log = root.join("log");
    fs::write(
        &cargo,
        format!("#!/bin/sh\necho \"$*\" >> {}\n", log.display()),
    )?;
    fs::set_permissions(&cargo, fs::Permissions::from_mode(0o755))?;
    let output = Command::new(root.join(clone).join("e2e/cargo-target"))
        .env_remove("CARGO_TARGET_DIR")
        .env("FIRN_CACHE", root.join("cache"))
        .env("PATH", format!("{}:/usr/bin:/bin", stub.display()))
        .output()
        .context("failed to run cargo-target")?;
    ensure!(output.status.success(), "{output:?}");
    Ok(String::from_utf8(output.stdout)?)
}

fn cleaned(root: &Path) -> usize {
    let log = fs::read_to_string(root.join("log")).unwrap_or_default();
    let clean = "clean --quiet --offline -p firn-e2e";
    log.lines().filter(|line| *line == clean).count()
}

#[test]
fn another_clone_cleans_its_own_packages_before_it_builds() -> Result<()> {
    let root = tempfile::tempdir()?;
    let root = root.path();
    clone(&root.join("a"))?;
    clone(&root.join("b"))?;
    let folder = target(root, "a")?;
    assert_eq!(folder.trim(), root.join("cache/target").to_string_lossy());
    fs::create_dir(root.join("cache/target/debug"))?;
    assert_eq!(target(root, "a")?, folder);
    assert_eq!(cleaned(root), 0, "the same clone has nothing to clean");
    assert_eq!(target(root, "b")?, folder);
    assert_eq!(cleaned(root), 1);
    target(root, "b")?;
    assert_eq!(cleaned(root), 1);
    target(root, "a")?;
    assert_eq!(cleaned(root), 2);
    // The same path, another clone.
    fs::rename(root.join("a"), root.join("old"))?;
    clone(&root.join("a"))?;
    target(root, "a")?;
    assert_eq!(cleaned(root), 3);
    Ok(())
}
