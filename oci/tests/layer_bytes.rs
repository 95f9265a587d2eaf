//! A layer's bytes are a function of its archive: not of threads, not of the sizes of writes.
#![expect(
    clippy::unwrap_used,
    reason = "helpers; clippy allows it in test functions only"
)]

use std::io::{self, Read, Write};
use std::num::NonZeroUsize;

use firn_oci::compress::{Algorithm, CHUNK};
use firn_oci::{Compression, Compressors, Digest, Layer, LayerWriter, Metadata, TarWriter, layer};
use proptest::prelude::*;

const ALL: [Compression; 3] = [Compression::NONE, Compression::GZIP, Compression::ZSTD];

/// Compressible, without a period.
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

fn pool(workers: usize) -> Compressors {
    Compressors::new(NonZeroUsize::new(workers).unwrap()).unwrap()
}

/// `steps` are the sizes of writes, over and over.
fn written(
    compression: Compression,
    pool: &Compressors,
    steps: &[usize],
    mut data: &[u8],
) -> (Layer, Vec<u8>) {
    let mut writer = LayerWriter::new(compression, pool, Vec::new());
    for step in steps.iter().cycle() {
        let (now, later) = data.split_at(data.len().min(*step));
        writer.write_all(now).unwrap();
        data = later;
        if data.is_empty() {
            break;
        }
    }
    writer.finish().unwrap()
}

fn decompress(compression: Compression, blob: &[u8]) -> Vec<u8> {
    match compression.algorithm() {
        Algorithm::None => blob.to_vec(),
        Algorithm::Zstd => zstd::decode_all(blob).unwrap(),
        Algorithm::Gzip => {
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
                let mut stdout = gzip.stdout.take().unwrap();
                stdout.read_to_end(&mut output).unwrap();
            });
            assert!(gzip.wait().unwrap().success());
            output
        }
    }
}

#[test]
fn bytes_do_not_depend_on_threads_or_write_sizes() {
    let data = sample(3 * CHUNK + 12345);
    for compression in ALL {
        let (first, blob) = written(compression, &pool(1), &[1 << 20], &data);
        for workers in [2, 3, 8, 16] {
            let steps = [777_777, 512 * workers];
            let (other, _) = written(compression, &pool(workers), &steps, &data);
            assert_eq!(first, other, "{compression:?} {workers}");
        }
        assert_eq!(first.diff_id, Digest::of(&data));
        assert_eq!(first.uncompressed_size, data.len() as u64);
        assert_eq!(first.descriptor.digest, Digest::of(&blob));
        assert_eq!(first.descriptor.size, blob.len() as u64);
        assert!(decompress(compression, &blob) == data, "{compression:?}");
    }
}

#[test]
fn layers_that_share_a_pool_have_their_own_bytes() {
    let data = sample(4 * CHUNK);
    let alone = written(Compression::ZSTD, &pool(1), &[CHUNK], &data);
    let shared = pool(3);
    std::thread::scope(|scope| {
        let layers: Vec<_> = (1..=6)
            .map(|index| {
                let (data, shared) = (&data, &shared);
                scope.spawn(move || written(Compression::ZSTD, shared, &[index * 100_000], data))
            })
            .collect();
        for layer in layers {
            assert!(layer.join().unwrap() == alone);
        }
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn any_cut_makes_the_same_bytes(
        steps in prop::collection::vec(1usize..CHUNK, 1..5), workers in 1usize..=16,
        size in 0usize..2 * CHUNK, is_gzip: bool,
    ) {
        let data = sample(size);
        let compression = if is_gzip { Compression::GZIP } else { Compression::ZSTD };
        let cut = written(compression, &pool(workers), &steps, &data);
        let whole = written(compression, &pool(1), &[usize::MAX], &data);
        prop_assert!(cut == whole);
        if !is_gzip {
            prop_assert!(zstd::decode_all(cut.1.as_slice()).unwrap() == data);
        }
    }
}

/// Sizes that meet the ends of chunks.
#[test]
fn a_layer_of_whole_chunks_has_no_frame_more() {
    let frame_magic = [0x28, 0xb5, 0x2f, 0xfd];
    for (size, frames) in [
        (0, 1),
        (1, 1),
        (CHUNK - 1, 1),
        (CHUNK, 1),
        (CHUNK + 1, 2),
        (2 * CHUNK, 2),
    ] {
        let data = vec![0; size];
        let (_, blob) = written(Compression::ZSTD, &pool(2), &[CHUNK], &data);
        let found = blob.windows(4).filter(|bytes| *bytes == frame_magic);
        assert_eq!(found.count(), frames, "{size}");
        assert!(decompress(Compression::ZSTD, &blob) == data);
    }
}

/// Another digest here means other bytes for every layer of every user: only with a new identity.
#[test]
fn bytes_of_this_version_are_fixed() {
    let data = sample(CHUNK + 12345);
    let defaults = ALL.map(|compression| (compression, data.as_slice()));
    let levels = [
        Compression::zstd(1),
        Compression::zstd(9),
        Compression::zstd(19),
        Compression::gzip(1),
        Compression::gzip(12),
    ];
    // The high ones take a second for each MiB.
    let levels = levels.map(|compression| (compression.unwrap(), &data[..200_000]));
    let mut table = Vec::new();
    for (compression, data) in defaults.into_iter().chain(levels) {
        let (layer, blob) = written(compression, &pool(2), &[4096], data);
        assert!(decompress(compression, &blob) == data, "{compression:?}");
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
        none 2109497 sha256:48b67e3d06d7f79611d313b97c73ec5d2aa0cc04b5a449b7b6ceb50628b1b28c
        gzip;libdeflate=1.26.1;level=4;member=2097152 490320 sha256:34226971c8b50051fe684748c1c93ba4462db83ca8d51ebbdf670b8f42ba95a6
        zstd;libzstd=1.5.7;level=3;frame=2097152 506834 sha256:aba112dfedd2c7ecf90f7cefd41b9f9da29f9cf0c0b916043cfbaf2fd1ad2bfd
        zstd;libzstd=1.5.7;level=1;frame=2097152 53034 sha256:357bd485429e4561b6861c9f6877ee6216ce55db7c41d2ff79333d0a28e072cb
        zstd;libzstd=1.5.7;level=9;frame=2097152;tables=20 44761 sha256:3272376b166179794fb03fd1341e1b7fa8324681ce36c6dbca43eff509031afc
        zstd;libzstd=1.5.7;level=19;frame=2097152;tables=20 38388 sha256:cfb963c7c60228370f5a1ae1368de3901e5fccf29e858418633f6eabaec9a6c6
        gzip;libdeflate=1.26.1;level=1;member=2097152 56553 sha256:3466e8fd189aa3467060f83fc08b0bc6eae9017884845dceeb16154952e61421
        gzip;libdeflate=1.26.1;level=12;member=2097152 38072 sha256:9a08e9efcf91b914fd9085e55c407b8c211d2e7468c21cb0327fe1107da3dc0d
    "#]].assert_eq(&String::from_utf8(table).unwrap());
}

#[test]
fn an_empty_layer_is_a_valid_blob() {
    for compression in ALL {
        let (layer, blob) = written(compression, &pool(2), &[1], b"");
        assert_eq!(layer.diff_id, Digest::of(b""));
        assert!(decompress(compression, &blob).is_empty());
    }
}

#[test]
fn an_archive_is_read_back_through_all_stages() {
    let contents = sample(CHUNK + CHUNK / 2);
    let shared = pool(2);
    let mut tar = LayerWriter::new(Compression::ZSTD, &shared, Vec::new()).into_tar();
    let fill = |tar: &mut TarWriter<LayerWriter<Vec<u8>>>, name: &[u8]| {
        let size = contents.len() as u64;
        tar.file(name, Metadata::root(0o644), size, contents.as_slice())
    };
    fill(&mut tar, b"a").unwrap();
    fill(&mut tar, b"b").unwrap();
    let (_, blob) = layer::finish(tar).unwrap();
    let mut archive = tar::Archive::new(zstd::Decoder::new(blob.as_slice()).unwrap());
    let names: Vec<_> = archive
        .entries()
        .unwrap()
        .map(|entry| {
            let mut entry = entry.unwrap();
            let mut found = Vec::new();
            entry.read_to_end(&mut found).unwrap();
            assert!(found == contents);
            entry.path_bytes().into_owned()
        })
        .collect();
    assert_eq!(names, [b"a", b"b"]);
}

#[test]
fn a_sink_that_gives_up_is_the_layer_s_error() {
    #[derive(Debug)]
    struct GivesUp;
    impl Write for GivesUp {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let shared = pool(2);
    let mut layer = LayerWriter::new(Compression::GZIP, &shared, GivesUp);
    let chunk = vec![0; CHUNK];
    let mut results = (0..100).map(|_| layer.write_all(&chunk));
    let error = results.find_map(Result::err).unwrap();
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    layer.finish().unwrap_err();
    // The pool goes on.
    let (_, blob) = written(Compression::GZIP, &shared, &[CHUNK], &chunk);
    assert!(decompress(Compression::GZIP, &blob) == chunk);
}

#[test]
fn the_identity_names_the_library_that_is_linked() {
    let lock = std::fs::read_to_string("../Cargo.lock").unwrap();
    let package = "name = \"libdeflate-sys\"\nversion = \"";
    let at = lock.find(package).unwrap() + package.len();
    let version = lock[at..].split('"').next().unwrap();
    assert!(
        Compression::GZIP
            .identity()
            .contains(&format!("libdeflate={version};")),
        "{version}"
    );
}
