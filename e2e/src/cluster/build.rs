//! Builds the programs into the cache. A folder there is whole or does not exist: it gets its name
//! last.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::command::output;
use super::files::At;
use super::lock::Lock;
use super::pins::{PARTS, Part, SOURCES, linker_flags, programs_key};
use super::progress::{say, step};
use super::{Layout, requirements};

/// The folder of the programs, built if need be. One at a time builds, others wait.
///
/// Errors: something is missing on the machine, or does not compile.
pub fn programs(layout: &Layout) -> Result<PathBuf> {
    requirements::ensure()?;
    let folder = layout
        .cache
        .join("cluster/programs")
        .join(programs_key(&requirements::go_version()?));
    cached(&layout.cache, &folder, |partial| {
        say("building the cluster's programs");
        let sources = partial.join("src");
        write_sources(&sources)?;
        for part in PARTS {
            step(part.name, || go_build(layout, &sources, part, partial))?;
        }
        fs::remove_dir_all(&sources).context("failed to remove the sources of the programs")
    })?;
    Ok(folder)
}

/// How many folders of one kind stay in the cache: what is used now, and what was before a change
/// that may be taken back.
const KEPT: usize = 2;

/// Fills `folder` by `make` unless it exists. `make` works on another folder, which becomes it
/// by being renamed; what an earlier call left half-made is thrown away. Of the folders beside it
/// only the newest stay, `KEPT` together with it.
pub fn cached(cache: &Path, folder: &Path, make: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    if folder.exists() {
        return Ok(());
    }
    let _lock = Lock::acquire(&cache.join("cluster/build.lock"))?;
    if folder.exists() {
        return Ok(());
    }
    let partial = folder.with_extension("partial");
    if partial.exists() {
        fs::remove_dir_all(&partial).at("remove", &partial)?;
    }
    fs::create_dir_all(&partial).at("create", &partial)?;
    make(&partial)?;
    fs::rename(&partial, folder).at("give its name to", folder)?;
    forget_old(folder)
}

fn forget_old(newest: &Path) -> Result<()> {
    let beside = newest.parent().unwrap_or(newest);
    let mut others = Vec::new();
    for entry in fs::read_dir(beside).at("read", beside)? {
        let path = entry.at("read", beside)?.path();
        if path != newest {
            let made = path.metadata().and_then(|metadata| metadata.modified());
            others.push((made.at("look at", &path)?, path));
        }
    }
    others.sort();
    for (_, path) in others.iter().rev().skip(KEPT - 1) {
        fs::remove_dir_all(path).at("remove", path)?;
    }
    Ok(())
}

fn write_sources(to: &Path) -> Result<()> {
    for (path, text) in SOURCES {
        let file = to.join(path);
        let parent = file.parent().unwrap_or(to);
        fs::create_dir_all(parent).at("create", parent)?;
        fs::write(&file, text).at("write", &file)?;
    }
    Ok(())
}

/// `-trimpath` makes results, and so Go's own cache, independent of where the sources lie.
fn go_build(layout: &Layout, sources: &Path, part: &Part, to: &Path) -> Result<()> {
    let mut go = Command::new("go");
    go.current_dir(sources.join(part.module))
        .env("CGO_ENABLED", "1")
        .env("GOCACHE", layout.cache.join("go-build"))
        .env("GOWORK", "off")
        .env("GOFLAGS", "-mod=readonly")
        .args(["build", "-trimpath", "-buildvcs=false", "-tags", part.tags])
        .arg("-ldflags")
        .arg(linker_flags())
        .arg("-o")
        .arg(format!("{}/", to.display()))
        .args(part.packages);
    output(&mut go).map(drop)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_half_made_folder_is_never_taken_for_a_whole_one() {
        let cache = tempfile::tempdir().unwrap();
        let folder = cache.path().join("programs/abc");
        let failed = cached(cache.path(), &folder, |partial| {
            fs::write(partial.join("half"), "").unwrap();
            anyhow::bail!("the power went")
        });
        assert!(failed.is_err());
        assert!(!folder.exists());
        cached(cache.path(), &folder, |partial| {
            assert!(!partial.join("half").exists());
            fs::write(partial.join("whole"), "").map_err(Into::into)
        })
        .unwrap();
        assert!(folder.join("whole").exists());
        cached(cache.path(), &folder, |_| anyhow::bail!("made twice")).unwrap();
    }

    #[test]
    fn what_is_newest_stays_and_what_is_old_goes() {
        let cache = tempfile::tempdir().unwrap();
        let folder = |name: &str| cache.path().join("programs").join(name);
        for (name, age) in [("a", 30), ("b", 20), ("c", 0)] {
            cached(cache.path(), &folder(name), |_| Ok(())).unwrap();
            let made = fs::metadata(folder(name)).unwrap().modified().unwrap();
            let file = fs::File::open(folder(name)).unwrap();
            file.set_modified(made - Duration::from_secs(age)).unwrap();
        }
        let left = ["a", "b", "c"].map(|name| folder(name).exists());
        assert_eq!(left, [false, true, true]);
    }

    #[test]
    fn sources_are_written_where_go_looks_for_them() {
        let dir = tempfile::tempdir().unwrap();
        write_sources(dir.path()).unwrap();
        for part in PARTS {
            assert!(dir.path().join(part.module).join("go.mod").exists());
            for package in part
                .packages
                .iter()
                .filter(|package| package.starts_with("./"))
            {
                assert!(dir.path().join(package).join("main.go").exists());
            }
        }
    }
}
