//! The files some programs need to run: themselves, their loader, their libraries and theirs, and
//! every symbolic link on the way. Reads a tree; writes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use super::Error;
use super::elf::{self, Wants};
use super::error::file;

/// As the kernel: more links than this in one path are a loop.
const LINKS_MAX: usize = 40;

/// What is at a path of the tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// A regular file.
    File,
    /// A symbolic link with its text.
    Link(String),
}

/// Paths relative to the tree's root, `usr/bin/git`, and what is there.
#[derive(Debug)]
pub struct Closure {
    root: PathBuf,
    triplet: &'static str,
    found: BTreeMap<String, Found>,
}

impl Closure {
    /// Nothing yet, of the tree at `root` for Debian's architecture `arch`.
    pub fn new(root: &Path, arch: &str) -> Self {
        let triplet = match arch {
            "arm64" => "aarch64-linux-gnu",
            _ => "x86_64-linux-gnu",
        };
        Self {
            root: root.to_owned(),
            triplet,
            found: BTreeMap::new(),
        }
    }

    /// Adds the file at `path` of the tree and all it needs.
    pub fn add(&mut self, path: &str) -> Result<(), Error> {
        self.walk(vec![(path.to_owned(), "the image".to_owned())])
    }

    /// Adds a library by its name: what a program opens at run time and no header names.
    pub fn add_library(&mut self, name: &str) -> Result<(), Error> {
        let library = self.library(name, "the image", "", &Wants::default())?;
        self.add(&library)
    }

    /// Adds what `program`, a file outside the tree, needs from it.
    pub fn add_needs_of(&mut self, program: &Path) -> Result<(), Error> {
        let data = fs::read(program).map_err(file("read", program))?;
        let needs = self.needs(&data, program, "")?;
        self.walk(needs)
    }

    /// Everything found, sorted by path.
    pub fn found(&self) -> &BTreeMap<String, Found> {
        &self.found
    }

    /// `queue`: paths and who needs them.
    fn walk(&mut self, mut queue: Vec<(String, String)>) -> Result<(), Error> {
        let mut seen = BTreeSet::new();
        while let Some((path, needed_by)) = queue.pop() {
            let real = self.real_path(&path, &needed_by)?;
            if !seen.insert(real.clone()) || self.found.contains_key(&real) {
                continue;
            }
            let source = self.root.join(&real);
            let data = fs::read(&source).map_err(file("read", &source))?;
            queue.extend(self.needs(&data, &source, &real)?);
            self.found.insert(real, Found::File);
        }
        Ok(())
    }

    /// Loader and libraries of the ELF file `data`, which is at `path` of the tree if it is in it.
    fn needs(
        &self,
        data: &[u8],
        source: &Path,
        path: &str,
    ) -> Result<Vec<(String, String)>, Error> {
        let wants = elf::wants(data).map_err(|error| Error::ParseElf {
            path: source.to_owned(),
            problem: error.to_string(),
        })?;
        let Some(wants) = wants else {
            return Ok(Vec::new());
        };
        let needed_by = source.display().to_string();
        let mut needs = Vec::new();
        for name in &wants.needed {
            needs.push((
                self.library(name, &needed_by, path, &wants)?,
                needed_by.clone(),
            ));
        }
        needs.extend(wants.interpreter.map(|path| (path, needed_by)));
        Ok(needs)
    }

    /// Where the loader finds `name` for the file at `path`: its run path, then the system's.
    fn library(
        &self,
        name: &str,
        needed_by: &str,
        path: &str,
        wants: &Wants,
    ) -> Result<String, Error> {
        let origin = path.rsplit_once('/').map_or("", |(directory, _)| directory);
        let own = wants.run_path.iter().map(|directory| {
            directory
                .replace("$ORIGIN", &format!("/{origin}"))
                .replace("${ORIGIN}", &format!("/{origin}"))
        });
        let system = [
            format!("usr/lib/{}", self.triplet),
            "usr/lib64".into(),
            "usr/lib".into(),
        ];
        own.chain(system)
            .map(|directory| format!("{}/{name}", directory.trim_matches('/')))
            .find(|candidate| fs::symlink_metadata(self.root.join(candidate)).is_ok())
            .ok_or_else(|| Error::Missing {
                path: name.to_owned(),
                needed_by: needed_by.to_owned(),
            })
    }

    /// `path` without links, inside the tree; the links on the way are added to what was found.
    fn real_path(&mut self, path: &str, needed_by: &str) -> Result<String, Error> {
        let mut rest: Vec<String> = components(path);
        let mut real: Vec<String> = Vec::new();
        let mut links = 0;
        while let Some(component) = rest.pop() {
            if component == ".." {
                real.pop();
                continue;
            }
            real.push(component);
            let here = real.join("/");
            let absolute = self.root.join(&here);
            let metadata = fs::symlink_metadata(&absolute).map_err(|_| Error::Missing {
                path: path.to_owned(),
                needed_by: needed_by.to_owned(),
            })?;
            if metadata.is_symlink() {
                links += 1;
                if links > LINKS_MAX {
                    return Err(Error::LinkLoop {
                        path: path.to_owned(),
                    });
                }
                let target = fs::read_link(&absolute).map_err(file("read", &absolute))?;
                let target = target.to_string_lossy().into_owned();
                if target.starts_with('/') {
                    real.clear();
                } else {
                    real.pop();
                }
                rest.extend(components(&target));
                self.found.insert(here, Found::Link(target));
            }
        }
        Ok(real.join("/"))
    }
}

/// The parts of a path, last first.
fn components(path: &str) -> Vec<String> {
    path.split('/')
        .filter(|part| !matches!(*part, "" | "."))
        .rev()
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn tree() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("usr/bin")).unwrap();
        fs::write(root.path().join("usr/bin/busybox"), "static").unwrap();
        symlink("usr/bin", root.path().join("bin")).unwrap();
        symlink("/bin/busybox", root.path().join("usr/bin/sh")).unwrap();
        symlink("loop", root.path().join("loop")).unwrap();
        root
    }

    #[test]
    fn links_are_followed_inside_the_tree_and_kept() {
        let root = tree();
        let mut closure = Closure::new(root.path(), "amd64");
        closure.add("bin/sh").unwrap();
        let found: Vec<_> = closure
            .found()
            .iter()
            .map(|(p, f)| (p.as_str(), f.clone()))
            .collect();
        assert_eq!(
            found,
            [
                ("bin", Found::Link("usr/bin".into())),
                ("usr/bin/busybox", Found::File),
                ("usr/bin/sh", Found::Link("/bin/busybox".into())),
            ]
        );
    }

    #[test]
    fn a_missing_file_names_who_needs_it_and_a_loop_ends() {
        let root = tree();
        let mut closure = Closure::new(root.path(), "amd64");
        assert!(
            closure
                .add("usr/bin/git")
                .unwrap_err()
                .to_string()
                .contains("the image")
        );
        assert!(matches!(closure.add("loop"), Err(Error::LinkLoop { .. })));
        assert!(matches!(
            closure.add("../../etc/passwd"),
            Err(Error::Missing { .. })
        ));
    }

    #[test]
    fn a_library_that_no_package_brings_is_named() {
        let root = tree();
        let mut closure = Closure::new(root.path(), "amd64");
        let error = closure
            .add_needs_of(&std::env::current_exe().unwrap())
            .unwrap_err();
        assert!(matches!(error, Error::Missing { .. }), "{error}");
    }
}
