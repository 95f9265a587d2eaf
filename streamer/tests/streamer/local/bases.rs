//! `load` of an image whose base image is in a registry: its layers come from there.

use firn_oci::testing::{Access, Answer, Harm};
use firn_oci::{Compression, Compressors, Layer, LayerWriter, Metadata, layer};

use super::*;

const BASE: &str = "team/base";

/// A layer that somebody else made: what it is, and its blob.
#[derive(Debug, Clone)]
struct Foreign {
    layer: Layer,
    blob: Vec<u8>,
    media_type: &'static str,
}

impl Foreign {
    fn new(name: &str, compression: Compression, media_type: &'static str) -> Self {
        let pool = Compressors::new(std::num::NonZeroUsize::MIN).unwrap();
        let mut tar = LayerWriter::new(compression, &pool, Vec::new()).into_tar();
        let contents = noise(name.len(), 700_000);
        let metadata = Metadata::root(0o644);
        let size = contents.len() as u64;
        tar.file(name.as_bytes(), metadata, size, contents.as_slice())
            .unwrap();
        let (layer, blob) = layer::finish(tar).unwrap();
        Self {
            layer,
            blob,
            media_type,
        }
    }

    fn digest(&self) -> Digest {
        Digest::of(&self.blob)
    }
}

/// Of every kind that there is.
fn all_kinds() -> Vec<Foreign> {
    vec![
        Foreign::new("a", Compression::GZIP, media_type::DOCKER_LAYER_GZIP),
        Foreign::new("bb", Compression::NONE, media_type::LAYER_TAR),
        Foreign::new("ccc", Compression::ZSTD, media_type::LAYER_ZSTD),
    ]
}

impl Laptop {
    /// An image of these layers in the registry, and a description of another upon it.
    fn built_upon(&self, layers: &[Foreign]) -> StorePath {
        let config = json!({
            "os": "linux", "architecture": "amd64", "config": {"Env": ["BASE=1"]},
            "rootfs": {
                "type": "layers",
                "diff_ids": layers.iter().map(|l| l.layer.diff_id).collect::<Vec<_>>(),
            },
        });
        let config = config.to_string().into_bytes();
        self.registry.put_blob(BASE, config.clone());
        let descriptor = |media_type: &str, bytes: &[u8]| json!({"mediaType": media_type, "digest": Digest::of(bytes), "size": bytes.len()});
        let manifest = json!({
            "schemaVersion": 2, "mediaType": media_type::MANIFEST,
            "config": descriptor(media_type::CONFIG, &config),
            "layers": layers.iter().map(|l| descriptor(l.media_type, &l.blob)).collect::<Vec<_>>(),
        });
        let manifest = manifest.to_string().into_bytes();
        for layer in layers {
            self.registry.put_blob(BASE, layer.blob.clone());
        }
        self.registry
            .put_manifest(BASE, "v1", media_type::MANIFEST, &manifest);
        let base = format!("{}@{}", self.repository(BASE), Digest::of(&manifest));
        let app = &self.packages.last().unwrap().path;
        self.describe(&json!({ "firnImage": 1, "contents": [app], "base": { "image": base } }))
    }

    /// Bytes of the same length in the place of a layer's.
    fn spoil(&self, layer: &Foreign) {
        let bytes: Vec<u8> = layer.blob.iter().rev().copied().collect();
        self.registry.spoil_blob(BASE, layer.digest(), bytes);
    }

    fn reads(&self, layer: &Foreign) -> usize {
        self.registry
            .count("GET", &format!("blobs/{}", layer.digest()))
    }

    async fn load(&self, described: &StorePath, into: &str) -> (Option<i32>, String) {
        let rest = ["--into", into, "--name", "web:v1"];
        let output = self.run_on(described, "load", &rest).await;
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), words)
    }
}

#[tokio::test]
async fn an_archive_has_the_layers_of_the_base_image_uncompressed() {
    let laptop = Laptop::new().await;
    let base = all_kinds();
    let described = laptop.built_upon(&base);
    let (code, words) = laptop.load(&described, "docker-archive:app.tar").await;
    assert_eq!(code, Some(0), "{words}");
    let archive = fs::read(laptop.dir.path().join("app.tar")).unwrap();
    // That every layer is what the config says is compared there.
    let (_, config, layers) = archived(&archive);
    assert!(layers.len() > base.len());
    for (layer, base) in layers.iter().zip(&base) {
        assert_eq!(Digest::of(layer), base.layer.diff_id);
        // Once to measure it, once to write it.
        assert_eq!(laptop.reads(base), 2);
    }
    assert_eq!(config["config"]["Env"], json!(["BASE=1"]));
}

#[tokio::test]
async fn a_layout_has_the_layers_of_the_base_image_as_they_are() {
    let laptop = Laptop::new().await;
    let base = all_kinds();
    let described = laptop.built_upon(&base);
    let (code, words) = laptop.load(&described, "oci:layout").await;
    assert_eq!(code, Some(0), "{words}");
    let layout = firn_oci::Layout::open(&laptop.dir.path().join("layout")).unwrap();
    let manifest = layout.read(&layout.index().unwrap().manifests[0]).unwrap();
    let manifest = firn_oci::Manifest::from_bytes(&manifest).unwrap();
    let kinds = [
        media_type::LAYER_GZIP,
        media_type::LAYER_TAR,
        media_type::LAYER_ZSTD,
    ];
    for ((layer, base), kind) in manifest.layers.iter().zip(&base).zip(kinds) {
        assert!(fs::read(layout.blob_path(&layer.digest)).unwrap() == base.blob);
        assert_eq!(layer.media_type, kind);
        assert_eq!(laptop.reads(base), 1);
    }
    // What a push of the same makes.
    let to = laptop.repository("team/app:v1");
    let pushed = laptop.run_on(&described, "push", &["--to", &to]).await;
    assert!(pushed.status.success());
    let pushed = laptop.registry.manifest("team/app", "v1").unwrap();
    let pushed = firn_oci::Manifest::from_bytes(&pushed).unwrap();
    assert_eq!(pushed.config.digest, manifest.config.digest);
}

#[tokio::test]
async fn a_broken_connection_to_the_base_image_is_continued() {
    let laptop = Laptop::new().await;
    let base = all_kinds();
    let described = laptop.built_upon(&base);
    for _ in 0..3 {
        laptop
            .registry
            .fault("GET", "/blobs/", Answer::After(200_000, Harm::Reset));
    }
    let (code, words) = laptop.load(&described, "docker-archive:app.tar").await;
    assert_eq!(code, Some(0), "{words}");
    assert_eq!(laptop.registry.faults_left(), 0);
    archived(&fs::read(laptop.dir.path().join("app.tar")).unwrap());
}

#[tokio::test]
async fn a_base_image_that_is_not_what_it_says_is_refused_by_name() {
    type Spoil = fn(&Laptop, &mut Vec<Foreign>) -> StorePath;
    let cases: [(Spoil, i32, &str); 6] = [
        (
            |laptop, base| {
                let described = laptop.built_upon(base);
                laptop.registry.remove_blob(BASE, &base[1].digest());
                described
            },
            47,
            "is not whole",
        ),
        (
            |laptop, base| {
                let described = laptop.built_upon(base);
                laptop.spoil(&base[1]);
                described
            },
            41,
            "the content was changed on the way or in the registry",
        ),
        (
            |laptop, base| {
                // It cannot even be decompressed, and why is known at its end.
                let described = laptop.built_upon(base);
                laptop.spoil(&base[0]);
                described
            },
            41,
            "the content was changed on the way or in the registry",
        ),
        (
            |laptop, base| {
                base[1].media_type = media_type::LAYER_GZIP;
                laptop.built_upon(base)
            },
            47,
            "is no application/vnd.oci.image.layer.v1.tar+gzip",
        ),
        (
            |laptop, base| {
                base[1].layer.diff_id = Digest::of(b"something else");
                laptop.built_upon(base)
            },
            47,
            "and its config says",
        ),
        (
            |laptop, base| {
                let described = laptop.built_upon(base);
                laptop.registry.set_access(Access::Basic {
                    username: "ada".into(),
                    password: "right".into(),
                });
                described
            },
            40,
            "docker login",
        ),
    ];
    for (spoil, expected, said) in cases {
        for into in ["oci:layout", "docker-archive:app.tar"] {
            let laptop = Laptop::new().await;
            let described = spoil(&laptop, &mut all_kinds());
            let (code, words) = laptop.load(&described, into).await;
            assert_eq!(code, Some(expected), "{into}: {words}");
            for word in [said, "team/base"] {
                assert!(words.contains(word), "{into}: {words}");
            }
            assert!(!laptop.dir.path().join("layout/index.json").exists());
        }
    }
}

#[tokio::test]
async fn a_push_upon_a_base_image_that_is_not_whole_says_so() {
    let laptop = Laptop::new().await;
    let base = all_kinds();
    let described = laptop.built_upon(&base);
    laptop.registry.remove_blob(BASE, &base[1].digest());
    let to = laptop.repository("team/app:v1");
    let output = laptop.run_on(&described, "push", &["--to", &to]).await;
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(47), "{words}");
    assert!(words.contains("is not whole"), "{words}");
    assert!(laptop.registry.manifest("team/app", "v1").is_none());
}

/// What was measured was well; what is written then is not.
#[tokio::test]
async fn a_layer_that_changes_between_two_readings_is_noticed() {
    let laptop = Laptop::new().await;
    let base = all_kinds();
    let described = laptop.built_upon(&base);
    let blob: &'static str = format!("/blobs/{}", base[1].digest()).leak();
    for answer in [
        Answer::StatusOnly(200),
        Answer::Status(404, Vec::new(), "{}"),
    ] {
        laptop.registry.fault("GET", blob, answer);
    }
    let (code, words) = laptop.load(&described, "docker-archive:app.tar").await;
    assert_eq!(code, Some(47), "{words}");
    assert!(words.contains("is not whole"), "{words}");
}

/// By a stand-in for containerd's client, which takes what is whole.
#[tokio::test]
async fn containerd_gets_all_of_it_and_the_failure_that_is_told_is_the_first_one() {
    let laptop = Laptop::new().await;
    laptop.stand_in("ctr", "/bin/cat > ctr.tar; [ -s ctr.tar ]");
    let base = all_kinds();
    let described = laptop.built_upon(&base);
    let (code, words) = laptop.load(&described, "containerd").await;
    assert_eq!(code, Some(0), "{words}");
    let (_, _, layers) = archived(&fs::read(laptop.dir.path().join("ctr.tar")).unwrap());
    assert!(layers.len() > base.len());

    laptop.registry.remove_blob(BASE, &base[2].digest());
    let (code, words) = laptop.load(&described, "containerd").await;
    assert_eq!(code, Some(47), "{words}");
    assert!(words.contains("is not whole"), "{words}");

    laptop.stand_in("ctr", "exit 3");
    let described = laptop.built_upon(&base);
    let (code, words) = laptop.load(&described, "containerd").await;
    assert_eq!(code, Some(2), "{words}");
    assert!(words.contains("ctr ended with exit status: 3"), "{words}");
}
