//! The bytes of tar profile `nar/1`, fixed by digests. A change here is a new profile version.
#![expect(
    clippy::unwrap_used,
    reason = "helpers; clippy allows it in test functions only"
)]

use firn_oci::{Digest, Metadata, TarWriter};

const DIRECTORY: Metadata = Metadata::root(0o555);
const EXECUTABLE: Metadata = Metadata::root(0o555);
const FILE: Metadata = Metadata::root(0o444);
const LINK: Metadata = Metadata::root(0o777);

fn archive(entries: impl FnOnce(&mut TarWriter<Vec<u8>>)) -> (String, usize) {
    let mut tar = TarWriter::new(Vec::new());
    tar.directory(b"nix", Metadata::root(0o755)).unwrap();
    tar.directory(b"nix/store", Metadata::root(0o755)).unwrap();
    entries(&mut tar);
    let bytes = tar.finish().unwrap();
    (Digest::of(&bytes).hex(), bytes.len())
}

fn directory_path(tar: &mut TarWriter<Vec<u8>>) {
    let root = format!("nix/store/{}-fix", "0".repeat(32));
    let deep = format!("share/{}", "d".repeat(60));
    let file = |tar: &mut TarWriter<Vec<u8>>, name: &str, metadata, text: &str| {
        let name = format!("{root}/{name}");
        tar.file(
            name.as_bytes(),
            metadata,
            text.len() as u64,
            text.as_bytes(),
        )
        .unwrap();
    };
    let directory = |tar: &mut TarWriter<Vec<u8>>, name: &str| {
        tar.directory(format!("{root}{name}").as_bytes(), DIRECTORY)
            .unwrap();
    };
    let link = |tar: &mut TarWriter<Vec<u8>>, name: &str, target: &str| {
        tar.symlink(format!("{root}/{name}").as_bytes(), LINK, target.as_bytes())
            .unwrap();
    };
    directory(tar, "");
    directory(tar, "/bin");
    file(tar, "bin/run", EXECUTABLE, "#!/bin/sh\n");
    directory(tar, "/empty");
    directory(tar, "/lib");
    directory(tar, "/lib/a");
    file(tar, "lib/a/c", FILE, "2");
    file(tar, "lib/a-b", FILE, "1");
    link(tar, "link", "bin/run");
    link(tar, "longlink", &"t".repeat(101));
    directory(tar, "/share");
    directory(tar, &format!("/{deep}"));
    file(tar, &format!("{deep}/{}", "n".repeat(60)), FILE, "3");
    file(tar, &format!("share/{}", "m".repeat(120)), FILE, "4");
    file(tar, "share/é", FILE, "5");
}

fn file_path(tar: &mut TarWriter<Vec<u8>>) {
    let name = format!("nix/store/{}-file", "1".repeat(32));
    tar.file(name.as_bytes(), FILE, 2, &b"x\n"[..]).unwrap();
}

fn link_path(tar: &mut TarWriter<Vec<u8>>) {
    let name = format!("nix/store/{}-ln", "2".repeat(32));
    let target = format!("/nix/store/{}-fix", "0".repeat(32));
    tar.symlink(name.as_bytes(), LINK, target.as_bytes())
        .unwrap();
}

#[test]
fn a_layer_of_three_kinds_of_store_paths_has_the_vector_s_bytes() {
    let layer = archive(|tar| {
        directory_path(tar);
        file_path(tar);
        link_path(tar);
    });
    assert_eq!(
        layer,
        (
            "83dc7d8975c655820171914d394402b40638378e8077b3e431b3addd00e87d8f".to_owned(),
            17408
        )
    );
}

#[test]
fn a_layer_of_one_file_has_the_vector_s_bytes() {
    assert_eq!(
        archive(file_path),
        (
            "49bc3b9f5d24a2d22dd6953d9725547f9f8bdf5dcfef2d7b35cd6d1a9dc27a1a".to_owned(),
            3072
        )
    );
}

#[test]
fn a_layer_without_paths_has_the_vector_s_bytes() {
    assert_eq!(
        archive(|_| {}),
        (
            "31e10dc87d1f7f8c7e1d01351c0c9ccd159fb451476c2cba86b1f864e91b13d4".to_owned(),
            2048
        )
    );
}
