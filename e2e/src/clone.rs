//! The clone that a program works on. Found when it runs: clones share build output, and a path that
//! was compiled in would be another one's (`e2e/cargo-target`).

use std::path::{Path, PathBuf};

/// The repository's root: the one of the package that cargo or `firn-test` runs tests of, else the
/// one that holds the current folder. The current folder where there is none; whoever misses a file
/// there names it.
pub fn repository() -> PathBuf {
    let package = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    let current = std::env::current_dir().unwrap_or_default();
    package
        .iter()
        .chain([&current])
        .find_map(|folder| root_above(folder))
        .unwrap_or(current.as_path())
        .to_owned()
}

fn root_above(folder: &Path) -> Option<&Path> {
    folder
        .ancestors()
        .find(|folder| folder.join("e2e/cargo-target").is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_is_found_from_anywhere_in_the_clone() {
        let root = repository();
        assert!(root.join("ARCHITECTURE.md").is_file());
        assert_eq!(root_above(&root.join("e2e/src")), Some(root.as_path()));
        assert_eq!(root_above(Path::new("/")), None);
    }
}
