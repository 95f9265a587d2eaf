//! The images that nodes know from the start, as archives that containerd imports: pause,
//! `CoreDNS`, registry, Git server, and busybox for pods of tests.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::archive::{Entry, Image};
use super::build::cached;
use super::command::output;
use super::progress::step;
use super::{Layout, pins};
use crate::debian::{self, Closure, Found, Lock};

/// The image that holds a pod's namespaces.
pub const PAUSE: &str = "firn-e2e/pause:1";
/// A shell and small tools, for pods of tests.
pub const BUSYBOX: &str = "firn-e2e/busybox:1";

/// Changes when this file makes other images of the same parts.
const RECIPE: &str = "2";
/// The parts of Git that its server runs.
const GIT: [&str; 2] = ["usr/bin/git", "usr/lib/git-core/git-http-backend"];
/// What git-http-backend calls: `git` under other names.
const GIT_LINKS: [&str; 4] = [
    "git",
    "git-upload-pack",
    "git-receive-pack",
    "git-index-pack",
];

/// The folder of the archives, made if need be of `programs` and of Debian packages.
pub(super) fn archives(layout: &Layout, programs: &Path) -> Result<PathBuf> {
    let programs_name = programs.file_name().unwrap_or_default().to_string_lossy();
    let parts = [
        ("recipe", RECIPE),
        ("programs", &programs_name),
        ("debian", debian::LOCK),
    ];
    let folder = layout.cache.join("cluster/images").join(pins::key(parts));
    cached(&layout.cache, &folder, |partial| {
        let lock: Lock = debian::LOCK
            .parse()
            .context("failed to read the pinned packages")?;
        let tree = step("Debian packages", || {
            Ok(debian::tree(&lock, &layout.cache)?)
        })?;
        step("images of the cluster", || {
            let images = [
                static_program("pause", programs),
                static_program("coredns", programs),
                static_program("registry", programs),
                git_server(programs, &tree.root, &lock.arch)?,
                busybox(&tree.root)?,
            ];
            images.iter().try_for_each(|image| {
                let name = image.name.replace(['/', ':'], "-");
                image.write(&partial.join(format!("{name}.tar")))
            })
        })
    })?;
    Ok(folder)
}

/// An image of one program that needs nothing else.
fn static_program(name: &str, programs: &Path) -> Image {
    let entries = BTreeMap::from([
        (name.to_owned(), Entry::Copy(programs.join(name))),
        ("tmp".to_owned(), Entry::Folder(0o1777)),
    ]);
    Image {
        name: format!("firn-e2e/{name}:1"),
        entrypoint: vec![format!("/{name}")],
        entries,
    }
}

fn git_server(programs: &Path, tree: &Path, arch: &str) -> Result<Image> {
    let mut image = static_program("gitd", programs);
    let mut closure = Closure::new(tree, arch);
    for program in GIT {
        closure.add(program)?;
    }
    for (path, found) in closure.found() {
        let entry = match found {
            Found::File => Entry::Copy(tree.join(path)),
            Found::Link(target) => Entry::Link(target.clone()),
        };
        image.entries.insert(path.clone(), entry);
    }
    for name in GIT_LINKS {
        let path = format!("usr/lib/git-core/{name}");
        image
            .entries
            .entry(path)
            .or_insert(Entry::Link("../../bin/git".to_owned()));
    }
    Ok(image)
}

/// Sleeps unless told something else.
fn busybox(tree: &Path) -> Result<Image> {
    let program = tree.join("usr/bin/busybox");
    let applets = output(Command::new(&program).arg("--list"))?;
    let mut entries = BTreeMap::from([
        ("bin/busybox".to_owned(), Entry::Copy(program)),
        ("tmp".to_owned(), Entry::Folder(0o1777)),
    ]);
    for applet in applets.lines() {
        // Its list names itself too, which would be a link to itself.
        let link = Entry::Link("busybox".to_owned());
        entries.entry(format!("bin/{applet}")).or_insert(link);
    }
    let entrypoint = ["/bin/busybox", "sleep", "infinity"]
        .map(str::to_owned)
        .into();
    Ok(Image {
        name: BUSYBOX.to_owned(),
        entrypoint,
        entries,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_static_programs_image_starts_it_and_has_a_place_for_files() {
        let image = static_program("pause", Path::new("/programs"));
        assert_eq!(image.name, PAUSE);
        assert_eq!(image.entrypoint, ["/pause"]);
        assert_eq!(
            image.entries.get("pause"),
            Some(&Entry::Copy("/programs/pause".into()))
        );
        assert_eq!(image.entries.get("tmp"), Some(&Entry::Folder(0o1777)));
    }
}
