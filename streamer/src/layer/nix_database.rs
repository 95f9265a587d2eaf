//! Nix's database as a layer, with what belongs beside it: roots for the garbage collector, and the
//! directories in which Nix's user may write.

use std::io::Write;

use firn_oci::{Metadata, TarWriter};

use super::LayerError;
use crate::closure::Closure;
use crate::nix_database::{NixDatabase, SCHEMA};

/// Where nix2container and dockerTools have theirs.
const ROOTS: &str = "nix/var/nix/gcroots/docker";

pub(super) fn write<W: Write>(
    closure: &Closure,
    database: &NixDatabase,
    tar: &mut TarWriter<W>,
) -> Result<(), LayerError> {
    let bytes = database.bytes(closure).map_err(LayerError::NixDatabase)?;
    let mine = |mode| Metadata {
        uid: database.uid.into(),
        gid: database.gid.into(),
        ..Metadata::root(mode)
    };
    let mut put = || {
        let directory = mine(0o755);
        for name in [
            "nix",
            "nix/store",
            "nix/var",
            "nix/var/nix",
            "nix/var/nix/db",
        ] {
            tar.directory(name.as_bytes(), directory)?;
        }
        if database.has_base {
            // A log of another database would be taken for this one's.
            tar.opaque(b"nix/var/nix/db")?;
        }
        let size = bytes.len() as u64;
        tar.file(
            b"nix/var/nix/db/db.sqlite",
            mine(0o644),
            size,
            bytes.as_slice(),
        )?;
        let size = SCHEMA.len() as u64;
        tar.file(
            b"nix/var/nix/db/schema",
            mine(0o644),
            size,
            SCHEMA.as_bytes(),
        )?;
        tar.directory(b"nix/var/nix/gcroots", directory)?;
        tar.directory(ROOTS.as_bytes(), directory)?;
        for root in database.roots(closure) {
            let name = format!("{ROOTS}/{}", root.base_name());
            tar.symlink(name.as_bytes(), mine(0o777), root.to_string().as_bytes())?;
        }
        Ok(())
    };
    put().map_err(LayerError::Write)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;
    use crate::testing::{info, path};

    /// Name, mode, owner, and what a link leads to.
    type Seen = (String, u32, u64, Option<String>);

    fn entries(has_base: bool) -> (Vec<Seen>, Vec<u8>) {
        let paths = [
            (path("app"), info(1, &["lib"])),
            (path("lib"), info(1, &[])),
        ];
        let closure = Closure::new(paths.into()).unwrap();
        let database = NixDatabase {
            paths: closure.paths().keys().cloned().collect(),
            uid: 1000,
            gid: 1000,
            has_base,
        };
        let mut tar = TarWriter::new(Vec::new());
        write(&closure, &database, &mut tar).unwrap();
        let archive = tar.finish().unwrap();
        let (mut seen, mut bytes) = (Vec::new(), Vec::new());
        for entry in tar::Archive::new(archive.as_slice()).entries().unwrap() {
            let mut entry = entry.unwrap();
            let name = entry.path().unwrap().display().to_string();
            if name.ends_with("db.sqlite") {
                entry.read_to_end(&mut bytes).unwrap();
            }
            let header = entry.header();
            let link = entry.link_name().unwrap();
            seen.push((
                name,
                header.mode().unwrap(),
                header.uid().unwrap(),
                link.map(|link| link.display().to_string()),
            ));
        }
        assert!(bytes == database.bytes(&closure).unwrap());
        (seen, bytes)
    }

    #[test]
    fn the_database_lies_where_nix_looks_and_its_roots_beside_it() {
        let (seen, bytes) = entries(false);
        assert!(bytes.starts_with(b"SQLite format 3\0"));
        let app = path("app");
        let plain = |name: &str, mode| (name.to_owned(), mode, 1000, None);
        let root = format!("{ROOTS}/{}", app.base_name());
        assert_eq!(
            seen,
            [
                plain("nix/", 0o755),
                plain("nix/store/", 0o755),
                plain("nix/var/", 0o755),
                plain("nix/var/nix/", 0o755),
                plain("nix/var/nix/db/", 0o755),
                plain("nix/var/nix/db/db.sqlite", 0o644),
                plain("nix/var/nix/db/schema", 0o644),
                plain("nix/var/nix/gcroots/", 0o755),
                plain("nix/var/nix/gcroots/docker/", 0o755),
                (root, 0o777, 1000, Some(app.to_string())),
            ]
        );
    }

    #[test]
    fn a_base_image_s_database_is_not_seen() {
        let (seen, _) = entries(true);
        let opaque = seen
            .iter()
            .position(|(name, ..)| name.ends_with(".wh..wh..opq"));
        let database = seen
            .iter()
            .position(|(name, ..)| name.ends_with("db.sqlite"));
        assert!(opaque.is_some() && opaque < database, "{seen:?}");
    }
}
