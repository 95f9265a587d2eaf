//! The bytes of the three formats, fixed by digests. A change here is another format.
#![expect(
    clippy::unwrap_used,
    reason = "helpers; clippy allows it in test functions only"
)]

use firn_oci::tar::Format;
use firn_oci::{Digest, Metadata, TarWriter};

const FORMATS: [Format; 3] = [Format::Go, Format::Python, Format::Nar1];

/// One archive; entries are below the store.
struct Archive {
    tar: TarWriter<Vec<u8>>,
}

impl Archive {
    fn new(format: Format) -> Self {
        let mut tar = TarWriter::with_format(format, Vec::new());
        let parents: &[&[u8]] = match format {
            Format::Go => &[b"", b"nix", b"nix/store"],
            Format::Python | Format::Nar1 => &[b"nix", b"nix/store"],
        };
        for parent in parents {
            tar.directory(parent, format.parent_metadata()).unwrap();
        }
        Self { tar }
    }

    fn metadata(&self, mode: u32) -> Metadata<'static> {
        Metadata {
            mode,
            ..self.tar.format().parent_metadata()
        }
    }

    fn directory(&mut self, name: &str) {
        let metadata = self.metadata(0o555);
        self.tar.directory(&below_store(name), metadata).unwrap();
    }

    fn file(&mut self, name: &str, mode: u32, text: &str) {
        let (name, metadata) = (below_store(name), self.metadata(mode));
        self.tar
            .file(&name, metadata, text.len() as u64, text.as_bytes())
            .unwrap();
    }

    fn link(&mut self, name: &str, target: &str) {
        let (name, metadata) = (below_store(name), self.metadata(0o777));
        self.tar
            .symlink(&name, metadata, target.as_bytes())
            .unwrap();
    }

    /// The digest in hex and the size.
    fn finish(self) -> (String, usize) {
        let bytes = self.tar.finish().unwrap();
        (Digest::of(&bytes).hex(), bytes.len())
    }
}

fn below_store(name: &str) -> Vec<u8> {
    format!("nix/store/{name}").into_bytes()
}

fn directory_path(archive: &mut Archive) {
    let root = format!("{}-fix", "0".repeat(32));
    let in_root = |name: &str| format!("{root}/{name}");
    let deep = format!("share/{}", "d".repeat(60));
    archive.tar.begin_subtree();
    archive.directory(&root);
    archive.directory(&in_root("bin"));
    archive.file(&in_root("bin/run"), 0o555, "#!/bin/sh\n");
    archive.directory(&in_root("empty"));
    archive.directory(&in_root("lib"));
    archive.directory(&in_root("lib/a"));
    archive.file(&in_root("lib/a/c"), 0o444, "2");
    archive.file(&in_root("lib/a-b"), 0o444, "1");
    archive.link(&in_root("link"), "bin/run");
    archive.link(&in_root("longlink"), &"t".repeat(101));
    archive.directory(&in_root("share"));
    archive.directory(&in_root(&deep));
    archive.file(&in_root(&format!("{deep}/{}", "n".repeat(60))), 0o444, "3");
    archive.file(&in_root(&format!("share/{}", "m".repeat(120))), 0o444, "4");
    archive.file(&in_root("share/é"), 0o444, "5");
}

fn file_name() -> String {
    format!("{}-file", "1".repeat(32))
}

fn file_path(archive: &mut Archive) {
    archive.tar.begin_subtree();
    archive.file(&file_name(), 0o444, "x\n");
}

fn link_path(archive: &mut Archive) {
    archive.tar.begin_subtree();
    archive.link(
        &format!("{}-ln", "2".repeat(32)),
        &format!("/nix/store/{}-fix", "0".repeat(32)),
    );
}

fn assert_vectors(write: impl Fn(&mut Archive), vectors: [(&str, usize); 3]) {
    for (format, (digest, size)) in FORMATS.into_iter().zip(vectors) {
        let mut archive = Archive::new(format);
        write(&mut archive);
        assert_eq!(archive.finish(), (digest.to_owned(), size), "{format:?}");
    }
}

#[test]
fn a_layer_of_three_kinds_of_store_paths_has_the_vector_s_bytes() {
    assert_vectors(
        |archive| {
            directory_path(archive);
            file_path(archive);
            link_path(archive);
        },
        [
            (
                "8dfc84082f3be9627bc4b2e736de269e9c877fbeacc57e49b9e1d53649cb8f5d",
                17920,
            ),
            (
                "45a58b24a6a6d7eea607662d9f85deed07b6bb5975962959e073fd93a5440aaa",
                20480,
            ),
            (
                "83dc7d8975c655820171914d394402b40638378e8077b3e431b3addd00e87d8f",
                17408,
            ),
        ],
    );
}

#[test]
fn a_layer_of_one_file_has_the_vector_s_bytes() {
    assert_vectors(
        file_path,
        [
            (
                "cc6c8556b4b31eab4789a018a651e7863d5d2447e2e164c5ff038c8b5d0742f8",
                3584,
            ),
            (
                "5c0b65b7c48b3a21a7a3a76331bf692a01e6a0e564f43ea2dad089f7fb19f68d",
                10240,
            ),
            (
                "49bc3b9f5d24a2d22dd6953d9725547f9f8bdf5dcfef2d7b35cd6d1a9dc27a1a",
                3072,
            ),
        ],
    );
}

#[test]
fn a_layer_without_paths_has_the_vector_s_bytes() {
    assert_eq!(
        Archive::new(Format::Nar1).finish(),
        (
            "31e10dc87d1f7f8c7e1d01351c0c9ccd159fb451476c2cba86b1f864e91b13d4".to_owned(),
            2048
        )
    );
}

#[test]
fn an_archive_without_entries_is_its_trailer() {
    for format in [Format::Nar1, Format::Go] {
        let empty = TarWriter::with_format(format, Vec::new()).finish().unwrap();
        assert_eq!(
            Digest::of(&empty).hex(),
            "5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"
        );
    }
}

#[test]
fn mode_and_owner_of_nix2container_s_perms_have_the_vector_s_bytes() {
    let mut archive = Archive::new(Format::Go);
    let metadata = Metadata {
        uid: 3_000_000,
        gid: 1000,
        user: "u",
        ..Metadata::named_root(0o4755)
    };
    archive
        .tar
        .file(&below_store(&file_name()), metadata, 2, &b"x\n"[..])
        .unwrap();
    assert_eq!(
        archive.finish(),
        (
            "7f98b3966416127827316d41583e1e2cbc0c198095d0b7bb174c6f17783101fa".to_owned(),
            4608
        )
    );
}

/// Expected are the bytes of Python 3.11 and Go 1.26: what `tar_vectors/awkward.py` and
/// `tar_vectors/awkward.go` print.
#[test]
fn entries_that_need_records_have_the_bytes_of_their_language() {
    for (format, digest, size) in [
        (
            Format::Python,
            "642e8b97493bf41ed73ddfabea37cbff928d95aeecf725b7566b6608a07f8862",
            20480,
        ),
        (
            Format::Go,
            "d7e015acb1755942002093d0c22e63b30a7803880e644f4ed3dcce15a89d88f5",
            13312,
        ),
    ] {
        let mut tar = TarWriter::with_format(format, Vec::new());
        write_awkward(&mut tar);
        let archive = tar.finish().unwrap();
        assert_eq!(
            (Digest::of(&archive).hex().as_str(), archive.len()),
            (digest, size),
            "{format:?}"
        );
    }
}

fn write_awkward(tar: &mut TarWriter<Vec<u8>>) {
    let plain = Metadata::named_root(0o644);
    let (large, larger) = (3_000_000, 1 << 40);
    let name = |base: &[u8]| [b"store/", base].concat();
    let deep = [[b'd'; 60], [b'n'; 60]].join(&b'/');
    tar.directory(b"store", Metadata::named_root(0o755))
        .unwrap();
    let owned = Metadata {
        uid: large,
        gid: larger,
        ..plain
    };
    tar.file(&name(b"a"), owned, 0, &b""[..]).unwrap();
    let named = Metadata {
        user: &"u".repeat(33),
        group: "gé",
        ..plain
    };
    tar.file(&name(b"b"), named, 0, &b""[..]).unwrap();
    tar.directory(&name(&[b'd'; 60]), plain).unwrap();
    tar.symlink(&name(&deep), plain, &[b'l'; 101]).unwrap();
    let owned = Metadata {
        uid: large,
        ..plain
    };
    tar.directory(&name(&[b'm'; 120]), owned).unwrap();
    tar.directory(&name(format!("n{}", "é".repeat(60)).as_bytes()), plain)
        .unwrap();
    tar.directory(&name(&[b'o'; 93]), plain).unwrap();
    let cut_at_slash = [&[b'p'; 92][..], "/éx".as_bytes()].concat();
    tar.file(&name(&cut_at_slash), plain, 0, &b""[..]).unwrap();
    let no_utf8 = ["€".as_bytes(), b"\xe2\x82z\xff"].concat();
    tar.symlink(&name(&no_utf8), plain, "é".as_bytes()).unwrap();
}
