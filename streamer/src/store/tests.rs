use std::fs;
use std::os::unix::fs::symlink;

use tempfile::TempDir;

use super::*;
use crate::testing::{info, path};

struct Fixture {
    dir: TempDir,
    store: Store,
    closure: Closure,
}

/// Two paths in the closure and one that is not.
fn fixture() -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    for name in ["app", "lib", "stranger"] {
        let root = dir.path().join(path(name).base_name());
        fs::create_dir_all(root.join("share")).unwrap();
        fs::write(root.join("share/text"), name).unwrap();
    }
    fs::write(dir.path().join("secret"), "secret").unwrap();
    let paths = [(path("app"), info(1, &[])), (path("lib"), info(1, &[]))];
    Fixture {
        store: Store::open(dir.path()).unwrap(),
        dir,
        closure: Closure::new(paths.into()).unwrap(),
    }
}

impl Fixture {
    fn link(&self, name: &str, target: &str) {
        let root = self.dir.path().join(path("app").base_name());
        symlink(target, root.join(name)).unwrap();
    }

    fn read(&self, inside: &str) -> Result<String, StoreError> {
        let place = Place::of(&path("app")).join(inside);
        let bytes = self.store.read(&self.closure, &place, 100)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

#[test]
fn links_lead_to_other_paths_of_the_closure() {
    let fixture = fixture();
    let lib = path("lib");
    fixture.link("within", "share/text");
    fixture.link("absolute", &format!("{lib}/share/text"));
    fixture.link("relative", &format!("../{}/share/text", lib.base_name()));
    fixture.link("folder", &format!("{lib}/share"));
    assert_eq!(fixture.read("share/text").unwrap(), "app");
    assert_eq!(fixture.read("within").unwrap(), "app");
    for inside in ["absolute", "relative", "folder/text"] {
        assert_eq!(fixture.read(inside).unwrap(), "lib", "{inside}");
    }
}

#[test]
fn nothing_leads_out_of_the_closure() {
    let fixture = fixture();
    let stranger = path("stranger");
    fixture.link("elsewhere", "/etc/passwd");
    fixture.link("stranger", &format!("{stranger}/share/text"));
    fixture.link("up", "../../../../etc/passwd");
    fixture.link("secret", "../secret");
    fixture.link("store", "..");
    for inside in [
        "elsewhere",
        "stranger",
        "up",
        "secret",
        "store",
        "../secret",
        "../../etc/passwd",
    ] {
        let error = fixture.read(inside).unwrap_err();
        assert!(
            matches!(error, StoreError::Outside { .. }),
            "{inside}: {error}"
        );
    }
}

#[test]
fn circles_and_large_and_missing_files_are_errors() {
    let fixture = fixture();
    fixture.link("round", "round");
    fixture.link("double", "double/double");
    for inside in ["round", "double"] {
        let error = fixture.read(inside).unwrap_err();
        assert!(
            matches!(error, StoreError::Links { .. }),
            "{inside}: {error}"
        );
    }
    let root = fixture.dir.path().join(path("app").base_name());
    fs::write(root.join("large"), [0; 101]).unwrap();
    assert!(matches!(
        fixture.read("large"),
        Err(StoreError::TooLarge { .. })
    ));
    for inside in ["gone", "share/text/below"] {
        assert!(matches!(
            fixture.read(inside),
            Err(StoreError::Missing { .. })
        ));
    }
}
