//! A layer's bytes are a function of its archive: not of threads, not of the sizes of writes.
#![expect(
    clippy::unwrap_used,
    reason = "helpers; clippy allows it in test functions only"
)]

use std::io::{Read, Write};
use std::num::NonZeroUsize;

use firn_oci::{Compression, Digest, Layer, LayerWriter};

const ALL: [Compression; 3] = [Compression::None, Compression::Gzip, Compression::Zstd];

/// Compressible, without a period, and larger than two zstd jobs and many gzip members.
fn sample(size: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let word = state.to_le_bytes();
        bytes.extend_from_slice(&[word[0] & 7, word[1] & 3, 0, word[2] & 1]);
    }
    bytes.truncate(size);
    bytes
}

fn layer(compression: Compression, threads: usize, step: usize, data: &[u8]) -> (Layer, Vec<u8>) {
    let threads = NonZeroUsize::new(threads).unwrap();
    let mut writer = LayerWriter::new(compression, threads, Vec::new()).unwrap();
    for part in data.chunks(step) {
        writer.write_all(part).unwrap();
    }
    writer.finish().unwrap()
}

fn decompress(compression: Compression, blob: &[u8]) -> Vec<u8> {
    match compression {
        Compression::None => blob.to_vec(),
        Compression::Zstd => zstd::decode_all(blob).unwrap(),
        Compression::Gzip => {
            // Independent of the library that wrote it.
            let mut gzip = std::process::Command::new("gzip")
                .arg("-dc")
                .stdin(std::process::Stdio::piped())
                .stdout(std::process::Stdio::piped())
                .spawn()
                .unwrap();
            let mut input = gzip.stdin.take().unwrap();
            let mut output = Vec::new();
            std::thread::scope(|scope| {
                scope.spawn(move || input.write_all(blob).unwrap());
                gzip.stdout
                    .take()
                    .unwrap()
                    .read_to_end(&mut output)
                    .unwrap();
            });
            assert!(gzip.wait().unwrap().success());
            output
        }
    }
}

#[test]
fn bytes_do_not_depend_on_threads_or_write_sizes() {
    let data = sample(19 << 20);
    for compression in ALL {
        let (first, blob) = layer(compression, 1, 1 << 20, &data);
        for (threads, step) in [(2, 512), (3, 777_777), (8, data.len())] {
            let (other, _) = layer(compression, threads, step, &data);
            assert_eq!(first, other, "{compression:?} {threads} {step}");
        }
        assert_eq!(first.diff_id, Digest::of(&data));
        assert_eq!(first.uncompressed_size, data.len() as u64);
        assert_eq!(first.descriptor.digest, Digest::of(&blob));
        assert_eq!(first.descriptor.size, blob.len() as u64);
        assert!(decompress(compression, &blob) == data, "{compression:?}");
    }
}

/// Another digest here means other bytes for every layer of every user: only with a new identity.
#[test]
fn bytes_of_this_version_are_fixed() {
    let data = sample((9 << 20) + 12345);
    let mut table = Vec::new();
    for compression in ALL {
        let (layer, _) = layer(compression, 2, 4096, &data);
        let identity = compression.identity();
        let descriptor = layer.descriptor;
        writeln!(
            table,
            "{identity} {} {}",
            descriptor.size, descriptor.digest
        )
        .unwrap();
    }
    expect_test::expect![[r#"
        none 9449529 sha256:359f3317189ea87437f7f5e3ce3c9b4921c378ff9823489e97de4aaf6552b355
        gzip;libdeflate=1.26.1;level=4;member=1048576 2196963 sha256:0b9361adb506206cf42c23951ff93b86c391c91497216d278179c889c47ba3c6
        zstd;libzstd=1.5.7;level=3;window=21;job=8388608;overlap=6 2267361 sha256:a47ed660e0ad499e855838a24f85bb568818ca582c01d467fac1fcbc0c63c259
    "#]].assert_eq(&String::from_utf8(table).unwrap());
}

#[test]
fn an_empty_layer_is_a_valid_blob() {
    for compression in ALL {
        let (layer, blob) = layer(compression, 2, 1, b"");
        assert_eq!(layer.diff_id, Digest::of(b""));
        assert!(decompress(compression, &blob).is_empty());
    }
}

#[test]
fn the_identity_names_the_library_that_is_linked() {
    let lock =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.lock")).unwrap();
    let package = "name = \"libdeflate-sys\"\nversion = \"";
    let at = lock.find(package).unwrap() + package.len();
    let version = lock[at..].split('"').next().unwrap();
    assert!(
        Compression::Gzip
            .identity()
            .contains(&format!("libdeflate={version};")),
        "{version}"
    );
}
