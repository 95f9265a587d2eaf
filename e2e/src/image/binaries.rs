//! Firn's programs, built for an image: release profile, and without a trace of the folders they
//! were built in, so that two clones make the same bytes.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::Error;
use super::error::file;

/// Builds the programs named `packages` (package and program share their name) of the workspace at
/// `workspace` into `target`; the folder that has them. Cargo talks to the terminal itself.
///
/// Of the paths in a program only those of dependencies are absolute: rustc is called in the
/// workspace's root with relative paths. The flags below therefore do not depend on the clone, and
/// clones that share a target folder do not rebuild each other's.
pub fn build(packages: &[&str], workspace: &Path, target: &Path) -> Result<PathBuf, Error> {
    // A relative folder would mean another one below `workspace`.
    let target = std::path::absolute(target).map_err(file("find", target))?;
    let home = cargo_home()?;
    let mut command = Command::new("cargo");
    command
        .args(["build", "--release", "--locked"])
        .args(packages.iter().flat_map(|package| ["--package", package]))
        .current_dir(workspace)
        .env("CARGO_TARGET_DIR", &target)
        .env(
            "CARGO_ENCODED_RUSTFLAGS",
            rust_flags(&target, &home).join("\x1f"),
        )
        .env("CFLAGS", c_flags(&target, &home).join(" "))
        .stdin(Stdio::null());
    let status = command.status().map_err(|source| Error::File {
        what: "run",
        path: "cargo".into(),
        source,
    })?;
    if status.success() {
        Ok(target.join("release"))
    } else {
        Err(Error::Cargo {
            status: status.to_string(),
        })
    }
}

/// Panics name the source file of a dependency; generated code the file in the target folder.
fn rust_flags(target: &Path, home: &Path) -> Vec<String> {
    vec![
        format!("--remap-path-prefix={}=/cargo", home.display()),
        format!("--remap-path-prefix={}=/target", target.display()),
    ]
}

/// Assertions of C dependencies name their source file.
fn c_flags(target: &Path, home: &Path) -> Vec<String> {
    vec![
        format!("-ffile-prefix-map={}=/cargo", home.display()),
        format!("-ffile-prefix-map={}=/target", target.display()),
    ]
}

/// Where cargo keeps the sources of dependencies: `$CARGO_HOME` or `~/.cargo`.
fn cargo_home() -> Result<PathBuf, Error> {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    home.or_else(|| std::env::home_dir().map(|home| home.join(".cargo")))
        .ok_or_else(|| Error::File {
            what: "find",
            path: "$HOME".into(),
            source: std::io::ErrorKind::NotFound.into(),
        })
}
