//! The images that nodes know from the start: pause, `CoreDNS`, registry and Git server, as archives
//! that containerd imports.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::archive::{Entry, Image};
use super::build::cached;
use super::command::output;
use super::progress::step;
use super::{Layout, pins};

/// The image that holds a pod's namespaces.
pub const PAUSE: &str = "firn-e2e/pause:1";

/// Changes when this file makes other images of the same parts.
const RECIPE: &str = "1";
/// The parts of Git that its server runs.
const GIT: [&str; 2] = ["/usr/bin/git", "/usr/lib/git-core/git-http-backend"];
/// What git-http-backend calls; all of them are `git` under another name.
const GIT_LINKS: [&str; 4] = [
    "git",
    "git-upload-pack",
    "git-receive-pack",
    "git-index-pack",
];

/// The folder of the archives, made if need be of `programs` and of packages.
pub(super) fn archives(layout: &Layout, programs: &Path) -> Result<PathBuf> {
    let key = pins::key([
        ("recipe", RECIPE),
        ("programs", &programs.display().to_string()),
        ("git", &output(Command::new("git").arg("--version"))?),
    ]);
    let folder = layout.cache.join("cluster/images").join(key);
    cached(&layout.cache, &folder, |partial| {
        step("images of the cluster", || {
            for name in ["pause", "coredns", "registry"] {
                single(name, programs).write(&partial.join(format!("{name}.tar")))?;
            }
            git_server(programs)?.write(&partial.join("gitd.tar"))
        })
    })?;
    Ok(folder)
}

/// An image with one static program.
fn single(name: &'static str, programs: &Path) -> Image {
    let entries = BTreeMap::from([
        (name.to_owned(), Entry::Copy(programs.join(name))),
        ("tmp".to_owned(), Entry::Folder(0o1777)),
    ]);
    Image {
        name: format!("firn-e2e/{name}:1"),
        entrypoint: format!("/{name}"),
        entries,
    }
}

fn git_server(programs: &Path) -> Result<Image> {
    let mut image = single("gitd", programs);
    let mut files = BTreeSet::from(GIT.map(str::to_owned));
    for program in GIT {
        files.extend(libraries(program)?);
    }
    for file in files {
        image.entries.insert(
            file.trim_start_matches('/').to_owned(),
            Entry::Copy(file.into()),
        );
    }
    for name in GIT_LINKS {
        let link = Entry::Link("/usr/bin/git".to_owned());
        image
            .entries
            .insert(format!("usr/lib/git-core/{name}"), link);
    }
    Ok(image)
}

/// The loader and the libraries of a program, by the paths under which it looks for them.
fn libraries(program: &str) -> Result<Vec<String>> {
    let text = output(Command::new("ldd").arg(program))
        .with_context(|| format!("failed to find the libraries of {program}"))?;
    Ok(parse_ldd(&text))
}

/// `NAME => PATH (ADDRESS)` or `PATH (ADDRESS)`; the kernel's own has no path.
fn parse_ldd(text: &str) -> Vec<String> {
    let words = text.lines().flat_map(str::split_whitespace);
    words
        .filter(|word| word.starts_with('/'))
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_and_loader_are_found() {
        let text = "\tlinux-vdso.so.1 (0x1)\n\tlibz.so.1 => /lib/libz.so.1 (0x2)\n\t/lib64/ld-linux-x86-64.so.2 (0x3)\n";
        assert_eq!(
            parse_ldd(text),
            ["/lib/libz.so.1", "/lib64/ld-linux-x86-64.so.2"]
        );
    }
}
