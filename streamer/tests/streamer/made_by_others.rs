//! Images of nix2container and dockerTools have the digests that their own programs declare. The
//! golden files and the program that makes them are in `tests/foreign/`.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use firn_crd::exit::Reason;
use firn_oci::{Compression, Compressors, Digest, Platform};
use firn_streamer::closure::{Closure, PathInfo};
use firn_streamer::input::foreign::{InputError, Wanted};
use firn_streamer::input::{Image, Layer, detect};
use firn_streamer::layer::{LayerError, Streams};
use firn_streamer::maker::Maker;
use firn_streamer::nar::NarHasher;
use firn_streamer::store_path::StorePath;
use firn_streamer::watch::Unwatched;
use jiff::Timestamp;
use proptest::prelude::*;
use serde::Deserialize;
use serde_json::{Value, json};
use tempfile::TempDir;

/// One entry of a store path.
#[derive(Deserialize)]
#[serde(rename_all = "lowercase", tag = "kind")]
enum Entry {
    Directory {
        name: String,
        mode: u32,
    },
    File {
        name: String,
        mode: u32,
        data: String,
    },
    Link {
        name: String,
        target: String,
    },
}

#[derive(Deserialize)]
struct FromNix2container {
    image: Value,
    config: String,
}

#[derive(Deserialize)]
struct FromDockerTools {
    conf: Value,
    config: String,
    layers: Vec<String>,
}

fn golden<T: serde::de::DeserializeOwned>(name: &str) -> T {
    let folder = Path::new("tests/foreign");
    serde_json::from_slice(&fs::read(folder.join(name)).unwrap()).unwrap()
}

/// The made store, and what Nix would say of it.
struct World {
    dir: TempDir,
    closure: BTreeMap<StorePath, PathInfo>,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut world = Self {
            dir,
            closure: BTreeMap::new(),
        };
        let store: BTreeMap<String, Vec<Entry>> = golden("store.json");
        for (base, entries) in store {
            let root = world.dir.path().join(&base);
            let place = |name: &str| {
                if name.is_empty() {
                    root.clone()
                } else {
                    root.join(name)
                }
            };
            let mut modes = Vec::new();
            for entry in entries {
                match entry {
                    Entry::Directory { name, mode } => {
                        fs::create_dir(place(&name)).unwrap();
                        modes.push((place(&name), mode));
                    }
                    Entry::File { name, mode, data } => {
                        fs::write(place(&name), BASE64.decode(data).unwrap()).unwrap();
                        modes.push((place(&name), mode));
                    }
                    Entry::Link { name, target } => symlink(target, place(&name)).unwrap(),
                }
            }
            for (path, mode) in modes.into_iter().rev() {
                fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
            }
            world.register(&base);
        }
        world
    }

    /// What Nix does when a path was built.
    fn register(&mut self, base: &str) -> StorePath {
        let path = StorePath::of_base_name(base).unwrap();
        let mut nar = NarHasher::new();
        hash(&mut nar, &self.dir.path().join(base), None);
        let (nar_hash, nar_size) = nar.finish();
        let info = PathInfo {
            nar_hash,
            nar_size,
            references: Vec::new(),
        };
        self.closure.insert(path.clone(), info);
        path
    }

    /// Adds a path that is a file.
    fn add(&mut self, base: &str, contents: &[u8], mode: u32) -> StorePath {
        let path = self.dir.path().join(base);
        fs::write(&path, contents).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        self.register(base)
    }

    fn closure(&self) -> Closure {
        Closure::new(self.closure.clone()).unwrap()
    }

    fn read(&self, output: &StorePath) -> Result<Option<Image>, InputError> {
        self.read_as(output, &wanted())
    }

    fn read_as(&self, output: &StorePath, wanted: &Wanted) -> Result<Option<Image>, InputError> {
        let closure = self.closure();
        detect::image_in(self.dir.path(), &closure, output, wanted)
    }

    fn maker(&self, layer: &Layer, streams: &Streams) -> Maker {
        Maker {
            store: self.dir.path().to_owned(),
            closure: Arc::new(self.closure()),
            contents: layer.contents.clone(),
            streams: streams.clone(),
            compression: Compression::default(),
            pool: Compressors::on_all_cores().unwrap(),
            index: 0,
            watch: Arc::new(Unwatched),
        }
    }

    /// The digests of an image's layers, uncompressed.
    fn diff_ids(&self, image: &Image) -> Result<Vec<Digest>, LayerError> {
        let streams = Streams::default();
        let layers = image.layers.iter().map(|layer| {
            let (layer, blob) = self.maker(layer, &streams).write(Vec::new())?;
            assert_eq!(layer.descriptor.digest, Digest::of(&blob));
            Ok(layer.diff_id)
        });
        layers.collect()
    }
}

fn wanted() -> Wanted {
    Wanted {
        platform: Platform::linux("amd64"),
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
        created: None,
        now: Timestamp::from_second(1_700_000_000).unwrap(),
    }
}

fn hash(nar: &mut NarHasher, path: &Path, name: Option<&[u8]>) {
    let meta = fs::symlink_metadata(path).unwrap();
    if meta.is_symlink() {
        let target = fs::read_link(path).unwrap();
        nar.symlink(name, target.as_os_str().as_encoded_bytes());
    } else if meta.is_dir() {
        nar.begin_directory(name);
        let mut names: Vec<_> = fs::read_dir(path)
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        names.sort();
        for child in names {
            hash(nar, &path.join(&child), Some(child.as_encoded_bytes()));
        }
        nar.end_directory();
    } else {
        let contents = fs::read(path).unwrap();
        let executable = meta.permissions().mode() & 0o100 != 0;
        nar.begin_file(name, executable, contents.len() as u64);
        nar.write_all(&contents).unwrap();
        nar.end_file(contents.len() as u64);
    }
}

fn config(image: &Image, diff_ids: &[Digest]) -> Digest {
    let layers: Vec<_> = diff_ids
        .iter()
        .zip(&image.layers)
        .map(|(diff_id, layer)| (*diff_id, layer.history.as_slice()))
        .collect();
    Digest::of(&image.config.to_bytes(&layers))
}

fn image_path(index: usize) -> String {
    format!("d{index:031}-image.json")
}

#[test]
fn images_of_nix2container_have_the_digests_that_it_declares() {
    let mut world = World::new();
    let images: BTreeMap<String, FromNix2container> = golden("nix2container.json");
    assert!(images.len() > 12);
    for (index, (name, from)) in images.into_iter().enumerate() {
        let text = serde_json::to_vec(&from.image).unwrap();
        let output = world.add(&image_path(index), &text, 0o444);
        let image = world.read(&output).unwrap().unwrap();
        let declared: Vec<&str> = from.image["layers"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|layer| layer["diff_ids"].as_str().unwrap())
            .collect();
        let diff_ids = world.diff_ids(&image).unwrap();
        let made: Vec<String> = diff_ids.iter().map(Digest::to_string).collect();
        assert_eq!(made, declared, "{name}");
        let bytes = image.config.to_bytes(&[]);
        assert!(
            String::from_utf8(bytes)
                .unwrap()
                .contains(r#""architecture":"amd64""#)
        );
        // A base image by itself has no architecture, which no config can do without.
        if !from.config.is_empty() {
            assert_eq!(config(&image, &diff_ids).to_string(), from.config, "{name}");
        }
    }
}

#[test]
fn images_of_docker_tools_have_the_digests_that_its_script_makes() {
    let mut world = World::new();
    let images: BTreeMap<String, FromDockerTools> = golden("docker-tools.json");
    assert!(images.len() > 5);
    for (index, (name, from)) in images.into_iter().enumerate() {
        // As text, for the order of its keys.
        let text = docker_tools_conf(&name, &from.conf);
        let output = world.add(&image_path(index), text.as_bytes(), 0o444);
        let image = world.read(&output).unwrap().unwrap();
        let diff_ids = world.diff_ids(&image).unwrap();
        let made: Vec<String> = diff_ids.iter().map(Digest::hex).collect();
        assert_eq!(made, from.layers, "{name}");
        assert_eq!(config(&image, &diff_ids).hex(), from.config, "{name}");
    }
}

/// The description in the order of its keys, which [`Value`] does not keep.
fn docker_tools_conf(name: &str, conf: &Value) -> String {
    let folder = Path::new("tests/foreign");
    let all = fs::read(folder.join("docker-tools.json")).unwrap();
    let all = firn_streamer::input::json::Json::parse(&all).unwrap();
    let ordered = all.get(name).unwrap().get("conf").unwrap().to_python();
    assert_eq!(serde_json::from_str::<Value>(&ordered).unwrap(), *conf);
    ordered
}

#[test]
fn a_stream_script_stands_for_the_description_that_it_names() {
    let mut world = World::new();
    let images: BTreeMap<String, FromDockerTools> = golden("docker-tools.json");
    let from = &images["plain"];
    let text = docker_tools_conf("plain", &from.conf);
    let conf = format!("{}-web-conf.json", "d".repeat(32));
    world.add(&conf, text.as_bytes(), 0o444);
    let script = format!(
        "#!/nix/store/{}-bash/bin/bash -e\nexec \"/nix/store/{}-stream\" /nix/store/{conf} \"$@\"\n",
        "f".repeat(32),
        "g".repeat(32)
    );
    let name = format!("{}-stream-web", "h".repeat(32));
    let output = world.add(&name, script.as_bytes(), 0o555);
    let image = world.read(&output).unwrap().unwrap();
    let diff_ids = world.diff_ids(&image).unwrap();
    assert_eq!(config(&image, &diff_ids).hex(), from.config);

    let other = format!("{}-script", "i".repeat(32));
    let other = world.add(&other, b"#!/bin/sh\necho /nix/store/ it\n", 0o555);
    assert_eq!(world.read(&other).unwrap(), None);
}

#[test]
fn an_archive_has_its_layers_and_its_config_whether_it_is_compressed_or_not() {
    let mut world = World::new();
    let plain = StorePath::of_base_name(&format!("{}-base.tar", "b".repeat(32))).unwrap();
    let gzip = StorePath::of_base_name(&format!("{}-base.tar.gz", "c".repeat(32))).unwrap();
    let bytes = fs::read(world.dir.path().join(plain.base_name())).unwrap();
    let zstd = zstd::encode_all(bytes.as_slice(), 3).unwrap();
    let zstd = world.add(&format!("{}-base.tar.zst", "d".repeat(32)), &zstd, 0o444);
    let mut configs = Vec::new();
    for output in [plain, gzip, zstd] {
        let image = world.read(&output).unwrap().unwrap();
        let diff_ids = world.diff_ids(&image).unwrap();
        assert_eq!(diff_ids.len(), 2);
        let steps: Vec<usize> = image.layers.iter().map(|l| l.history.len()).collect();
        assert_eq!(steps, [1, 2]);
        configs.push(config(&image, &diff_ids));
    }
    let name = bytes
        .windows(5)
        .position(|window| window == b".json")
        .unwrap();
    let hex = std::str::from_utf8(&bytes[name - 64..name]).unwrap();
    assert!(configs.iter().all(|config| config.hex() == hex));
}

/// The archive is gone after the first layer: the second one comes from where the first one ended.
#[test]
fn a_compressed_archive_is_not_read_again_for_each_layer() {
    let world = World::new();
    let output = StorePath::of_base_name(&format!("{}-base.tar.gz", "c".repeat(32))).unwrap();
    let image = world.read(&output).unwrap().unwrap();
    let streams = Streams::default();
    let mut makers = image
        .layers
        .iter()
        .map(|layer| world.maker(layer, &streams));
    makers.next().unwrap().write(Vec::new()).unwrap();
    fs::remove_file(world.dir.path().join(output.base_name())).unwrap();
    makers.next().unwrap().write(Vec::new()).unwrap();
}

#[test]
fn labels_and_platform_are_honoured() {
    let world = World::new();
    let output = StorePath::of_base_name(&format!("{}-base.tar", "b".repeat(32))).unwrap();
    let labelled = Wanted {
        labels: [("team".to_owned(), "ice".to_owned())].into(),
        ..wanted()
    };
    let image = world.read_as(&output, &labelled).unwrap().unwrap();
    let config = image.config.to_bytes(&[]);
    let config: Value = serde_json::from_slice(&config).unwrap();
    assert_eq!(config["config"]["Labels"]["team"], "ice");
    let elsewhere = Wanted {
        platform: Platform::linux("arm64"),
        ..wanted()
    };
    let error = world.read_as(&output, &elsewhere).unwrap_err();
    assert!(matches!(error, InputError::Platform { .. }), "{error}");
}

/// The vector of a config in nix2container's bytes.
#[test]
fn a_config_of_nix2container_is_written_as_go_does() {
    let mut world = World::new();
    let diff_id = "8dfc84082f3be9627bc4b2e736de269e9c877fbeacc57e49b9e1d53649cb8f5d";
    let text = json!({
        "version": 1, "arch": "amd64", "created": "0001-01-01T00:00:00Z",
        "image-config": {
            "Env": ["A=1"], "entrypoint": ["/a<b>&c"], "Labels": {"b": "1", "a": "2"},
            "Healthcheck": {"Test": ["CMD", "x"]},
        },
        "layers": [{
            "digest": format!("sha256:{diff_id}"), "diff_ids": format!("sha256:{diff_id}"), "size": 0,
            "paths": [{"path": format!("/nix/store/{}-file.conf", "6".repeat(32))}],
            "History": {"created_by": "nix2container"},
        }],
    });
    let output = world.add(&image_path(0), text.to_string().as_bytes(), 0o444);
    let image = world.read(&output).unwrap().unwrap();
    let diff_id = format!("sha256:{diff_id}").parse().unwrap();
    let bytes = image.config.to_bytes(&[(diff_id, &[])]);
    assert_eq!(bytes.len(), 319);
    assert_eq!(
        Digest::of(&bytes).hex(),
        "ee68c9b0a3610cec33ea7c6b6f0c91a7d4f0175ea80fd5425e6d8ac60f014481"
    );
}

/// One entry of [`Value`] changed.
fn with(value: &Value, pointer: &str, to: Value) -> Value {
    let mut value = value.clone();
    *value.pointer_mut(pointer).unwrap() = to;
    value
}

#[test]
fn descriptions_that_lie_are_refused_and_the_lie_is_named() {
    let mut world = World::new();
    let images: BTreeMap<String, FromNix2container> = golden("nix2container.json");
    let confs: BTreeMap<String, FromDockerTools> = golden("docker-tools.json");
    let (image, base) = (&images["plain"].image, &images["on-base"].image);
    let conf = &confs["on-base"].conf;
    let stranger = format!("/nix/store/{}-stranger", "z".repeat(32));
    let app = format!("/nix/store/{}-app-1.0", "2".repeat(32));
    let many = Value::Array(vec![image["layers"][0].clone(); 481]);
    let cases = [
        (
            with(image, "/layers/0/paths/0/path", json!("/etc/passwd")),
            "/etc/passwd",
        ),
        (
            with(image, "/layers/0/paths/0/path", json!(stranger)),
            "stranger",
        ),
        (
            with(
                image,
                "/layers/0/paths/0/path",
                json!(format!("{app}/../x")),
            ),
            "/../x",
        ),
        (with(image, "/layers/0/paths", json!([])), "paths"),
        (with(image, "/layers/0/paths", json!("x")), "paths"),
        (
            with(image, "/layers/0/diff_ids", json!("sha256:0")),
            "diff_ids",
        ),
        (with(image, "/layers", many), "481"),
        (with(image, "/version", json!(2)), "version"),
        (with(image, "/image-config", json!({"Cmd": "sh"})), "Cmd"),
        (with(image, "/created", json!("yesterday")), "created"),
        (with(image, "/arch", json!("s390x")), "s390x"),
        (
            with(base, "/layers/0/layer-path", json!("/etc/shadow")),
            "/etc/shadow",
        ),
        (
            with(
                base,
                "/layers/0/layer-path",
                json!(format!("{app}/../{stranger}")),
            ),
            "stranger",
        ),
        (
            with(base, "/layers/0/mediatype", json!("text/plain")),
            "text/plain",
        ),
        (with(conf, "/store_dir", json!("/gnu/store")), "store_dir"),
        (with(conf, "/store_layers/0/0", json!(stranger)), "stranger"),
        (with(conf, "/store_layers", json!([[1]])), "store_layers"),
        (with(conf, "/customisation_layer", json!("/tmp")), "/tmp"),
        (with(conf, "/customisation_layer", json!(app)), "checksum"),
        (
            with(conf, "/from_image", json!(format!("{app}/bin/app"))),
            "archive",
        ),
        (with(conf, "/uid", json!("-1")), "uid"),
        (with(conf, "/created", json!("then")), "created"),
    ];
    for (index, (document, word)) in cases.into_iter().enumerate() {
        let output = world.add(&image_path(index), document.to_string().as_bytes(), 0o444);
        let error = world.read(&output).unwrap_err();
        let failure = error.into_failure("web");
        assert!(failure.0.message.contains(word), "{}", failure.0.message);
    }
}

#[test]
fn blobs_that_are_not_what_was_declared_are_refused() {
    let mut world = World::new();
    let images: BTreeMap<String, FromNix2container> = golden("nix2container.json");
    let other = json!(Digest::of(b"other").to_string());
    for (index, (name, pointer)) in [
        ("on-base", "/layers/0/diff_ids"),
        ("on-base", "/layers/1/diff_ids"),
        ("on-base", "/layers/1/digest"),
        ("not-reproducible", "/layers/0/diff_ids"),
        ("perms", "/layers/0/diff_ids"),
    ]
    .into_iter()
    .enumerate()
    {
        let document = with(&images[name].image, pointer, other.clone());
        let output = world.add(&image_path(index), document.to_string().as_bytes(), 0o444);
        let image = world.read(&output).unwrap().unwrap();
        let error = world.diff_ids(&image).unwrap_err();
        assert!(
            matches!(
                error,
                LayerError::Damaged { .. } | LayerError::OtherRules { .. }
            ),
            "{name} {pointer}: {error}"
        );
    }
}

/// A layout with two platforms, an attestation, and a nested index, each blob under its digest.
struct MadeLayout {
    folder: std::path::PathBuf,
}

impl MadeLayout {
    fn put(&self, media_type: &str, bytes: &[u8]) -> Value {
        let digest = Digest::of(bytes);
        fs::write(self.folder.join("blobs/sha256").join(digest.hex()), bytes).unwrap();
        json!({"mediaType": media_type, "digest": digest.to_string(), "size": bytes.len()})
    }

    fn image(&self, architecture: &str) -> (Value, Digest) {
        let tar = noisy_tar(architecture);
        let layer = zstd::encode_all(tar.as_slice(), 3).unwrap();
        let config = json!({
            "architecture": architecture, "os": "linux", "config": {"Cmd": [architecture]},
            "rootfs": {"type": "layers", "diff_ids": [Digest::of(&tar).to_string()]},
        })
        .to_string();
        let manifest = json!({
            "schemaVersion": 2,
            "config": self.put("application/vnd.oci.image.config.v1+json", config.as_bytes()),
            "layers": [self.put("application/vnd.oci.image.layer.v1.tar+zstd", &layer)],
            "annotations": {"from": "layout"},
        })
        .to_string();
        let manifest = self.put(
            "application/vnd.oci.image.manifest.v1+json",
            manifest.as_bytes(),
        );
        (manifest, Digest::of(config.as_bytes()))
    }
}

fn noisy_tar(text: &str) -> Vec<u8> {
    let mut tar = firn_oci::TarWriter::new(Vec::new());
    let metadata = firn_oci::Metadata::root(0o644);
    tar.file(b"a", metadata, text.len() as u64, text.as_bytes())
        .unwrap();
    tar.finish().unwrap()
}

#[test]
fn the_image_for_the_platform_is_found_in_a_layout() {
    const MANIFEST_INDEX: &str = "application/vnd.oci.image.index.v1+json";
    let mut world = World::new();
    let base = format!("{}-layout", "j".repeat(32));
    let made = MadeLayout {
        folder: world.dir.path().join(&base),
    };
    fs::create_dir_all(made.folder.join("blobs/sha256")).unwrap();
    fs::write(
        made.folder.join("oci-layout"),
        r#"{"imageLayoutVersion":"1.0.0"}"#,
    )
    .unwrap();
    let (mut arm, _) = made.image("arm64");
    arm["platform"] = json!({"architecture": "arm64", "os": "linux", "variant": "v8"});
    let (amd, config_digest) = made.image("amd64");
    let (mut attestation, _) = made.image("amd64");
    attestation["platform"] = json!({"architecture": "unknown", "os": "unknown"});
    let nested = json!({"schemaVersion": 2, "manifests": [arm, attestation, amd]}).to_string();
    let nested = made.put(MANIFEST_INDEX, nested.as_bytes());
    let index = json!({"schemaVersion": 2, "manifests": [nested]}).to_string();
    fs::write(made.folder.join("index.json"), &index).unwrap();
    let output = world.register(&base);
    let image = world.read(&output).unwrap().unwrap();
    let diff_ids = world.diff_ids(&image).unwrap();
    assert_eq!(diff_ids, [Digest::of(&noisy_tar("amd64"))]);
    assert_eq!(config(&image, &diff_ids), config_digest);
    assert_eq!(image.annotations["from"], "layout");
    for platform in ["arm64", "arm64/v8"] {
        let wanted = Wanted {
            platform: format!("linux/{platform}").parse().unwrap(),
            ..wanted()
        };
        let image = world.read_as(&output, &wanted).unwrap().unwrap();
        assert_eq!(image.platform, Platform::linux("arm64"));
    }
    let error = world.read_as(
        &output,
        &Wanted {
            platform: Platform::linux("riscv64"),
            ..wanted()
        },
    );
    let error = error.unwrap_err().to_string();
    assert!(
        error.contains("linux/amd64") && error.contains("riscv64"),
        "{error}"
    );

    // The same as an archive.
    let mut tar = firn_oci::TarWriter::new(Vec::new());
    let mut names = vec!["index.json".to_owned(), "oci-layout".to_owned()];
    for blob in fs::read_dir(made.folder.join("blobs/sha256")).unwrap() {
        names.push(format!(
            "blobs/sha256/{}",
            blob.unwrap().file_name().display()
        ));
    }
    names.sort();
    for name in names {
        let bytes = fs::read(made.folder.join(&name)).unwrap();
        let metadata = firn_oci::Metadata::root(0o644);
        tar.file(
            name.as_bytes(),
            metadata,
            bytes.len() as u64,
            bytes.as_slice(),
        )
        .unwrap();
    }
    let archive = world.add(
        &format!("{}-oci.tar", "k".repeat(32)),
        &tar.finish().unwrap(),
        0o444,
    );
    let archived = world.read(&archive).unwrap().unwrap();
    assert_eq!(world.diff_ids(&archived).unwrap(), diff_ids);
    assert_eq!(config(&archived, &diff_ids), config_digest);

    // A blob that is not what its name says.
    let config = made.folder.join("blobs/sha256").join(config_digest.hex());
    fs::write(config, "{}").unwrap();
    let error = world.read(&output).unwrap_err();
    assert!(matches!(error, InputError::Damaged { .. }), "{error}");
}

/// Index of an index of an index: the walk ends.
#[test]
fn indexes_nest_only_so_deep() {
    let mut world = World::new();
    let base = format!("{}-layout", "j".repeat(32));
    let made = MadeLayout {
        folder: world.dir.path().join(&base),
    };
    fs::create_dir_all(made.folder.join("blobs/sha256")).unwrap();
    fs::write(
        made.folder.join("oci-layout"),
        r#"{"imageLayoutVersion":"1.0.0"}"#,
    )
    .unwrap();
    let (mut inner, _) = made.image("amd64");
    for _ in 0..10 {
        let index = json!({"schemaVersion": 2, "manifests": [inner]}).to_string();
        inner = made.put("application/vnd.oci.image.index.v1+json", index.as_bytes());
    }
    let index = json!({"schemaVersion": 2, "manifests": [inner]}).to_string();
    fs::write(made.folder.join("index.json"), index).unwrap();
    let output = world.register(&base);
    let error = world.read(&output).unwrap_err();
    assert!(matches!(error, InputError::Unsupported { .. }), "{error}");
}

#[test]
fn what_is_no_image_is_a_package_or_an_error_in_words() {
    let mut world = World::new();
    let app = StorePath::of_base_name(&format!("{}-app-1.0", "2".repeat(32))).unwrap();
    assert_eq!(world.read(&app).unwrap(), None);
    let link = StorePath::of_base_name(&format!("{}-current", "7".repeat(32))).unwrap();
    assert_eq!(world.read(&link).unwrap(), None);
    let json = world.add(&image_path(1), br#"{"some": "json"}"#, 0o444);
    assert_eq!(world.read(&json).unwrap(), None);
    let notes = zstd::encode_all(&b"notes"[..], 3).unwrap();
    let notes = world.add(&format!("{}-notes.zst", "d".repeat(32)), &notes, 0o444);
    let tar = noisy_tar("x");
    let tar = world.add(&format!("{}-source.tar", "g".repeat(32)), &tar, 0o444);
    let layers = format!("{}-layers.json", "f".repeat(32));
    fs::create_dir(world.dir.path().join(&layers)).unwrap();
    fs::write(world.dir.path().join(&layers).join("layers.json"), "[]").unwrap();
    let layers = world.register(&layers);
    for (output, word) in [
        (notes, "archive"),
        (tar, "manifest.json"),
        (layers, "nix2container"),
    ] {
        let failure = world.read(&output).unwrap_err().into_failure("web");
        assert_eq!(failure.reason(), Reason::NotAnImage);
        assert!(failure.0.message.contains(word), "{}", failure.0.message);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever build code writes: an image, a package, or an error.
    #[test]
    fn damaged_descriptions_and_archives_never_panic(
        which in 0..4_usize, at in 0..6000_usize, change in proptest::collection::vec(any::<u8>(), 1..60)
    ) {
        let mut world = World::new();
        let images: BTreeMap<String, FromNix2container> = golden("nix2container.json");
        let archive = fs::read(world.dir.path().join(format!("{}-base.tar", "b".repeat(32)))).unwrap();
        let mut bytes = match which {
            0 => images["nested"].image.to_string().into_bytes(),
            1 => images["config"].image.to_string().into_bytes(),
            2 => docker_tools_conf("on-base", &golden::<BTreeMap<String, FromDockerTools>>("docker-tools.json")["on-base"].conf).into_bytes(),
            _ => archive,
        };
        let length = bytes.len();
        for (place, byte) in bytes.iter_mut().skip(at % length).zip(change) {
            *place = byte;
        }
        let output = world.add(&image_path(0), &bytes, 0o444);
        if let Ok(Some(image)) = world.read(&output) {
            let _ = world.diff_ids(&image);
        }
    }
}
