//! What a container of the image runs: `meta.mainProgram`, else the only program in `bin/`, else
//! nothing, and the result says so.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::store_path::StorePath;

/// The answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EntryPoint {
    /// Absolute path of the program.
    pub program: Option<String>,
    /// Whether there is a `bin` directory.
    pub has_bin: bool,
    /// Why there is no program.
    pub note: Option<String>,
}

/// Looks at the output `path`, which is at `directory`.
pub fn find(path: &StorePath, directory: &Path, main_program: Option<&str>) -> EntryPoint {
    let bin = directory.join("bin");
    let programs = programs(&bin);
    let has_bin = programs.is_ok();
    let programs = programs.unwrap_or_default();
    let note = match (main_program, programs.as_slice()) {
        (Some(main), all) if all.iter().any(|program| program == main) => {
            return EntryPoint {
                program: Some(format!("{path}/bin/{main}")),
                has_bin,
                note: None,
            };
        }
        (Some(main), _) => {
            format!("no entry point: `meta.mainProgram` is {main:?}, which is not in bin/")
        }
        (None, [only]) => {
            return EntryPoint {
                program: Some(format!("{path}/bin/{only}")),
                has_bin,
                note: None,
            };
        }
        (None, []) => "no entry point: the package has no program in bin/".to_owned(),
        (None, many) => format!(
            "no entry point: the package has {} programs in bin/: set `meta.mainProgram`, or `command` in the Pod",
            many.len()
        ),
    };
    EntryPoint {
        program: None,
        has_bin,
        note: Some(note),
    }
}

/// Names of what can be run, sorted. Hidden ones are what wrappers wrap.
fn programs(bin: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(bin)? {
        let entry = entry?;
        // Through links: a program may live in another store path. A dangling one is none.
        let program = fs::metadata(entry.path())
            .is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0);
        if let (true, Ok(name)) = (program, entry.file_name().into_string())
            && !name.starts_with('.')
            && !name.contains(char::is_control)
        {
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::path;

    fn package(programs: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("bin")).unwrap();
        for program in programs {
            let file = dir.path().join("bin").join(program);
            fs::write(&file, "").unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o555)).unwrap();
        }
        dir
    }

    fn program(programs: &[&str], main: Option<&str>) -> Option<String> {
        let dir = package(programs);
        let found = find(&path("app"), dir.path(), main);
        assert!(found.has_bin);
        assert_eq!(found.note.is_none(), found.program.is_some());
        found.program
    }

    #[test]
    fn the_main_program_comes_first() {
        let app = |name: &str| Some(format!("{}/bin/{name}", path("app")));
        assert_eq!(program(&["a", "b"], Some("b")), app("b"));
        assert_eq!(program(&["a", ".a-wrapped"], None), app("a"));
        assert_eq!(program(&["a", "b"], None), None);
        assert_eq!(program(&["a"], Some("b")), None);
        assert_eq!(program(&[], None), None);
    }

    #[test]
    fn a_package_without_programs_has_none() {
        let dir = tempfile::tempdir().unwrap();
        let found = find(&path("data"), dir.path(), None);
        assert_eq!((found.program, found.has_bin), (None, false));
    }
}
