//! Firn's release programs, kept in the cache under a hash of all they are made of: linking them
//! takes minutes, and a clean clone of the same sources needs the same programs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use firn_oci::Digest;

use crate::clone::repository;
use crate::cluster::build::cached;
use crate::cluster::pins;
use crate::cluster::progress::step;
use crate::image::binaries;

/// What the programs are made of, besides the compiler: files and folders of the repository.
const SOURCES: [&str; 6] = [
    "Cargo.toml",
    "Cargo.lock",
    "crd",
    "oci",
    "streamer",
    "operator",
];

/// The folder that has the programs of `packages`, built with cargo's folder `target` if the
/// cache has none of these sources.
pub fn release(cache: &Path, target: &Path, packages: &[&str]) -> Result<PathBuf> {
    let folder = cache.join("firn-programs").join(key(&repository())?);
    cached(cache, &folder, |partial| {
        let built = step("Firn's programs, release build", || {
            Ok(binaries::build(packages, &repository(), target)?)
        })?;
        for package in packages {
            let (from, to) = (built.join(package), partial.join(package));
            fs::copy(&from, &to).with_context(|| {
                format!("failed to copy {} to {}", from.display(), to.display())
            })?;
        }
        Ok(())
    })?;
    Ok(folder)
}

fn key(repository: &Path) -> Result<String> {
    let compiler = Command::new("rustc")
        .arg("-vV")
        .output()
        .context("failed to run rustc")?;
    let mut texts = vec![("rustc".to_owned(), String::from_utf8(compiler.stdout)?)];
    for source in SOURCES {
        collect(repository, Path::new(source), &mut texts)?;
    }
    Ok(pins::key(
        texts
            .iter()
            .map(|(name, text)| (name.as_str(), text.as_str())),
    ))
}

/// Adds the hash of each file of `path`, in the order of names.
fn collect(repository: &Path, path: &Path, texts: &mut Vec<(String, String)>) -> Result<()> {
    let whole = repository.join(path);
    let failed = || format!("failed to read {}", whole.display());
    if whole.is_dir() {
        let entries = fs::read_dir(&whole).with_context(failed)?;
        let mut names = entries
            .map(|entry| entry.map(|entry| entry.file_name()))
            .collect::<std::io::Result<Vec<_>>>()
            .with_context(failed)?;
        names.sort();
        for name in names {
            collect(repository, &path.join(name), texts)?;
        }
    } else {
        let hash = Digest::of(&fs::read(&whole).with_context(failed)?);
        texts.push((path.display().to_string(), hash.hex()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_changed_file_gives_another_key_and_its_time_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        for source in SOURCES {
            let name = if source.starts_with("Cargo") {
                source.to_owned()
            } else {
                format!("{source}/src/lib.rs")
            };
            write(&name, "1");
        }
        let first = key(folder.path()).unwrap();
        write("oci/src/lib.rs", "1");
        assert_eq!(key(folder.path()).unwrap(), first);
        write("oci/src/lib.rs", "2");
        assert_ne!(key(folder.path()).unwrap(), first);
    }
}
