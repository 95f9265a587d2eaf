//! What a build may leave in place of a package: an image of another tool, known by its content.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::OnceLock;

use firn_oci::{Compression, Digest};
use firn_streamer::closure::{Closure, PathInfo};
use firn_streamer::input::detect;
use firn_streamer::input::foreign::{LAYERS_MAX, Wanted};
use firn_streamer::nar_hash::NarHash;
use firn_streamer::recipe::Key;
use firn_streamer::store_path::StorePath;

/// A store with one output, and what its image may be made of.
struct Built {
    store: PathBuf,
    closure: Closure,
    output: StorePath,
}

const OUTPUT: &str = "0a1b2c3d4f5g6h7i8j9kalbmcndpfqgr-image";
/// What the descriptions in the corpus name, which are those of `streamer/tests/foreign`.
const PARTS: [&str; 7] = [
    "00000000000000000000000000000000-glibc-2.40",
    "11111111111111111111111111111111-gtk+-3.24++",
    "22222222222222222222222222222222-app-1.0",
    "33333333333333333333333333333333-root-env",
    "44444444444444444444444444444444-root-more",
    "66666666666666666666666666666666-file.conf",
    "77777777777777777777777777777777-current",
];
/// A folder with a layer that dockerTools made.
const CUSTOMISATION: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-web-customisation-layer";

fn built() -> &'static Built {
    static BUILT: OnceLock<Built> = OnceLock::new();
    BUILT.get_or_init(|| {
        let store = std::env::temp_dir().join(format!("firn-fuzz-{}", std::process::id()));
        for folder in PARTS.into_iter().chain([CUSTOMISATION]) {
            fs::create_dir_all(store.join(folder)).expect("a folder");
        }
        let layer = store.join(CUSTOMISATION);
        fs::write(layer.join("layer.tar"), [0; 1024]).expect("a file");
        fs::write(layer.join("checksum"), Digest::of(&[0; 1024]).hex()).expect("a file");
        Built {
            store,
            closure: closure(),
            output: path(OUTPUT),
        }
    })
}

fn path(name: &str) -> StorePath {
    StorePath::of_base_name(name).expect("a store path")
}

/// What an image may be made of.
pub(crate) fn closure() -> Closure {
    let info = PathInfo {
        nar_hash: NarHash([7; 32]),
        nar_size: 120,
        references: Vec::new(),
    };
    let names = PARTS.into_iter().chain([CUSTOMISATION, OUTPUT]);
    let paths = names.map(|name| (path(name), info.clone())).collect();
    Closure::new(paths).expect("a closure")
}

/// A file: a description of any kind, or an archive.
pub(crate) fn file(data: &[u8]) {
    let built = built();
    let file = built.store.join(built.output.base_name());
    fs::write(&file, data).expect("a file");
    // A streamed image is a script.
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).expect("a file");
    look(built);
}

/// A folder with a layout. Documents stand one after the other, each ended by a NUL; `@1` is the
/// digest of the second one, `#1` its size: no search finds a digest.
pub(crate) fn layout(data: &[u8]) {
    let mut documents: Vec<Vec<u8>> = data
        .split(|byte| *byte == 0)
        .take(6)
        .map(<[u8]>::to_vec)
        .collect();
    for index in (1..documents.len()).rev() {
        let (digest, size) = (
            Digest::of(&documents[index]).to_string(),
            documents[index].len().to_string(),
        );
        for document in &mut documents[..index] {
            *document = replaced(document, &format!("@{index}"), &digest);
            *document = replaced(document, &format!("#{index}"), &size);
        }
    }
    let built = built();
    let folder = built.store.join(built.output.base_name());
    let _ = fs::remove_dir_all(&folder);
    let blobs = folder.join("blobs/sha256");
    fs::create_dir_all(&blobs).expect("a folder");
    fs::write(
        folder.join("oci-layout"),
        br#"{"imageLayoutVersion":"1.0.0"}"#,
    )
    .expect("a file");
    for (index, document) in documents.iter().enumerate() {
        let file = match index {
            0 => folder.join("index.json"),
            _ => blobs.join(Digest::of(document).hex()),
        };
        fs::write(file, document).expect("a file");
    }
    look(built);
}

fn replaced(document: &[u8], from: &str, to: &str) -> Vec<u8> {
    match str::from_utf8(document) {
        Ok(text) => text.replace(from, to).into_bytes(),
        Err(_) => document.to_vec(),
    }
}

/// What is an image is made of the closure, and its documents can be written.
fn look(built: &Built) {
    let wanted = Wanted {
        platform: "linux/amd64".parse().expect("a platform"),
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
        created: None,
        now: jiff::Timestamp::default(),
    };
    let found = detect::image_in(&built.store, &built.closure, &built.output, &wanted);
    let Ok(Some(image)) = found else {
        return;
    };
    assert!(image.layers.len() <= LAYERS_MAX);
    let mut described = Vec::new();
    for layer in &image.layers {
        let key = Key::of(&layer.contents, &built.closure, Compression::ZSTD);
        assert_eq!(
            key,
            Key::of(&layer.contents, &built.closure, Compression::ZSTD)
        );
        let _ = layer.contents.size(&built.closure);
        described.push((Digest::of(b""), layer.history.as_slice()));
    }
    let bytes = image.config.to_bytes(&described);
    assert!(serde_json::from_slice::<serde_json::Value>(&bytes).is_ok());
}
