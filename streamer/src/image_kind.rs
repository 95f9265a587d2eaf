//! Whether a build's output looks as if it already *were* an image, made by something else: build
//! then looks for no program in it. What it is says [`crate::input::detect`], in push.

use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::input::description::MARKER;

/// Bytes of a file that are looked at: a stream script names its description in the first lines, and
/// the keys of an image's JSON stand within its first megabyte.
const LOOKED_AT: u64 = 1 << 20;

/// What kind of image `output` is, as users call it. `None`: an ordinary package.
pub fn recognise(output: &Path) -> Option<&'static str> {
    let kind = fs::metadata(output).ok()?;
    if kind.is_dir() {
        let has = |name: &str| output.join(name).is_file();
        if has("oci-layout") {
            return Some("an OCI image layout");
        }
        return has("layers.json").then_some("a layer of nix2container");
    }
    let mut start = Vec::new();
    File::open(output)
        .ok()?
        .take(LOOKED_AT)
        .read_to_end(&mut start)
        .ok()?;
    of_file(&start, kind.permissions().mode() & 0o111 != 0)
}

fn of_file(start: &[u8], executable: bool) -> Option<&'static str> {
    let holds = |text: &str| {
        start
            .windows(text.len())
            .any(|window| window == text.as_bytes())
    };
    match start {
        [b'{', ..] if holds(MARKER) => Some("an image description"),
        [b'{', ..] if holds("\"image-config\"") && holds("\"layers\"") => {
            Some("an image of nix2container")
        }
        [b'{', ..] if holds("\"store_layers\"") && holds("\"repo_tag\"") => {
            Some("the description of a dockerTools image")
        }
        [b'#', b'!', ..] if executable && holds("-conf.json") => {
            Some("a stream script of dockerTools")
        }
        [0x1f, 0x8b, ..] | [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            Some("a compressed archive, as dockerTools makes them")
        }
        _ if start.get(257..262) == Some(b"ustar") => {
            Some("a tar archive, as dockerTools makes them")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_of_others_are_recognised() {
        let mut tar = vec![0; 512];
        tar[257..262].copy_from_slice(b"ustar");
        for (bytes, word) in [
            (
                br#"{"version":1,"image-config":{},"layers":null,"arch":"amd64"}"#.to_vec(),
                "nix2container",
            ),
            (
                br#"{"store_layers":[],"repo_tag":"a:b"}"#.to_vec(),
                "dockerTools",
            ),
            (
                b"#!/bin/sh\nexec /nix/store/x-stream /nix/store/x-app-conf.json".to_vec(),
                "stream script",
            ),
            (vec![0x1f, 0x8b, 8, 0], "archive"),
            (vec![0x28, 0xb5, 0x2f, 0xfd], "archive"),
            (tar, "tar archive"),
        ] {
            assert!(
                of_file(&bytes, true).is_some_and(|kind| kind.contains(word)),
                "{word}"
            );
        }
    }

    #[test]
    fn ordinary_files_are_packages() {
        for bytes in [&b"{}"[..], b"#!/bin/sh\necho", b"text", b""] {
            assert_eq!(of_file(bytes, true), None);
        }
    }

    #[test]
    fn layouts_are_recognised_by_their_marker() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(recognise(dir.path()), None);
        fs::write(dir.path().join("oci-layout"), "{}").unwrap();
        assert_eq!(recognise(dir.path()), Some("an OCI image layout"));
    }
}
