//! `e2e/cargo-target`: clones share build output, and none takes another's for its own.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, ensure};

/// Makes a clone of one package in `folder`, with the script.
fn clone(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder.join("e2e"))?;
    let script = Path::new("cargo-target");
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

/// Two clones with a file that is the same in both and one that is not; what was built from the
/// first is sealed.
fn sealed_clone_and_another(root: &Path) -> Result<()> {
    for (name, text) in [("a", "old"), ("b", "new")] {
        clone(&root.join(name))?;
        fs::write(root.join(name).join("e2e/same file.rs"), "same")?;
        fs::write(root.join(name).join("e2e/other.rs"), text)?;
        git_init(&root.join(name))?;
    }
    target(root, "a")?;
    fs::create_dir_all(root.join("cache/target/debug/.fingerprint/firn-e2e-1"))?;
    fs::write(compiled(root), "")?;
    seal(root, "a")
}

/// What cargo touches when it compiles.
fn compiled(root: &Path) -> std::path::PathBuf {
    root.join("cache/target/debug/.fingerprint/firn-e2e-1/invoked.timestamp")
}

fn git_init(folder: &Path) -> Result<()> {
    let status = Command::new("git")
        .args(["init", "-q"])
        .arg(folder)
        .status()?;
    ensure!(status.success(), "git init: {status}");
    Ok(())
}

fn seal(root: &Path, clone: &str) -> Result<()> {
    let status = Command::new(root.join(clone).join("e2e/cargo-target"))
        .arg("--seal")
        .env("CARGO_TARGET_DIR", root.join("cache/target"))
        .status()?;
    ensure!(status.success(), "--seal: {status}");
    Ok(())
}

fn modified(root: &Path, file: &str) -> Result<SystemTime> {
    Ok(fs::metadata(root.join(file))?.modified()?)
}

#[test]
fn after_a_sealed_build_the_next_clone_builds_only_what_differs() -> Result<()> {
    let root = tempfile::tempdir()?;
    let root = root.path();
    sealed_clone_and_another(root)?;
    target(root, "b")?;
    assert_eq!(cleaned(root), 0);
    let same = "e2e/same file.rs";
    assert_eq!(
        modified(root, &format!("b/{same}"))?,
        modified(root, &format!("a/{same}"))?
    );
    let last_built = fs::metadata(compiled(root))?.modified()?;
    assert!(modified(root, "b/e2e/other.rs")? > last_built);
    Ok(())
}

#[test]
fn what_was_compiled_or_edited_after_the_seal_was_asked_for_breaks_it() -> Result<()> {
    let spoil: [fn(&Path) -> Result<()>; 3] = [
        // By hand, after the tests.
        |root| {
            let later = SystemTime::now() + Duration::from_secs(5);
            Ok(fs::File::options()
                .write(true)
                .open(compiled(root))?
                .set_modified(later)?)
        },
        // The third clone built last, and has sealed nothing.
        |root| {
            clone(&root.join("c"))?;
            target(root, "c")?;
            assert_eq!(cleaned(root), 1, "git knows nothing of it");
            fs::remove_file(root.join("log")).or_else(|_| Ok(()))
        },
        // Edited while the tests ran: what was compiled, nobody knows.
        |root| {
            fs::remove_file(root.join("cache/target/.firn-sources"))?;
            target(root, "a")?;
            fs::write(root.join("a/e2e/other.rs"), "newer")?;
            seal(root, "a")
        },
    ];
    for spoil in spoil {
        let root = tempfile::tempdir()?;
        let root = root.path();
        sealed_clone_and_another(root)?;
        spoil(root)?;
        target(root, "b")?;
        assert_eq!(cleaned(root), 1);
    }
    Ok(())
}

/// What is compiled in one clone runs for the next.
#[test]
fn no_path_of_a_clone_is_compiled_in() -> Result<()> {
    // In two pieces, for this file is searched too.
    let forbidden = ["env!(\"CARGO_MANIFEST", "_DIR\")"].concat();
    let found = Command::new("git")
        .args([
            "grep",
            "--fixed-strings",
            "--name-only",
            &forbidden,
            "--",
            "*.rs",
        ])
        .current_dir("..")
        .output()?;
    assert_eq!(String::from_utf8_lossy(&found.stdout), "");
    assert_eq!(
        found.status.code(),
        Some(1),
        "git grep finds nothing: {found:?}"
    );
    Ok(())
}
