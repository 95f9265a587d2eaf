//! Images that something else made, pushed by a pod: known by their recipes as Firn's own are.

use std::io::Write as _;

use firn_streamer::closure::PathInfo;
use firn_streamer::nar::NarHasher;
use serde_json::json;

use super::*;

impl Pod {
    /// A file of these bytes in the store, that refers to all packages.
    pub(super) fn store_file(&self, name: &str, bytes: &[u8]) -> (StorePath, PathInfo) {
        let base = format!("{}-{name}", "z".repeat(32));
        let path = StorePath::of_base_name(&base).unwrap();
        fs::write(self.paths().store().join(&base), bytes).unwrap();
        let mut nar = NarHasher::new();
        nar.begin_file(None, false, bytes.len() as u64);
        nar.write_all(bytes).unwrap();
        nar.end_file(bytes.len() as u64);
        let (nar_hash, nar_size) = nar.finish();
        let info = PathInfo {
            nar_hash,
            nar_size,
            references: self.packages.iter().map(|p| p.path.clone()).collect(),
        };
        (path, info)
    }

    /// What build leaves when the output is such a file.
    fn hand_off_file(&self, name: &str, bytes: &[u8]) {
        let (out_path, info) = self.store_file(name, bytes);
        let packages = self.packages.iter().map(|p| (p.path.clone(), p.info()));
        let image = Image {
            drv_path: self.drv_path(),
            out_path: Some(out_path.clone()),
            entry_point: None,
            has_bin: false,
            description: None,
            note: None,
            closure: packages.chain([(out_path, info)]).collect(),
        };
        self.hand_off_built(&Built::Image(Box::new(image)));
    }

    fn hand_off_nix2container(&self) {
        self.hand_off_file("image-app.json", self.nix2container(12).as_bytes());
    }

    /// The first packages as an image of nix2container, a layer each.
    pub(super) fn nix2container(&self, count: usize) -> String {
        let unknown = format!("sha256:{}", "0".repeat(64));
        let layers: Vec<_> = self
            .packages
            .iter()
            .take(count)
            .map(|package| {
                json!({
                    "digest": unknown, "diff_ids": unknown, "size": 0,
                    "mediatype": "application/vnd.oci.image.layer.v1.tar",
                    "paths": [{"path": package.path.to_string()}],
                    "History": {"created_by": "nix2container"},
                })
            })
            .collect();
        let image = json!({
            "version": 1, "arch": "amd64", "created": "0001-01-01T00:00:00Z",
            "image-config": {"entrypoint": ["/bin/app"]}, "layers": layers,
        });
        image.to_string()
    }
}

#[tokio::test]
async fn an_unchanged_image_of_others_is_known_without_reading_its_layers() {
    let mut pod = Pod::new().await;
    pod.hand_off_nix2container();
    let first = pod.push().await;
    assert_eq!(first.layers_total, 12);
    pod.publish(&first);
    for package in &pod.packages {
        fs::remove_dir_all(pod.paths().store().join(package.path.base_name())).unwrap();
    }
    pod.hand_off_nix2container();
    pod.registry.forget();
    let second = pod.push().await;
    assert_eq!(
        (second.digest, second.layers_reused, second.bytes_pushed),
        (first.digest, 12, 0)
    );
    assert_eq!(pod.registry.seen().len(), 4, "{:#?}", pod.registry.seen());
}

#[tokio::test]
async fn a_small_change_of_an_image_of_others_sends_one_layer() {
    let mut pod = Pod::new().await;
    pod.hand_off_nix2container();
    let first = pod.push().await;
    pod.publish(&first);
    pod.change();
    pod.hand_off_nix2container();
    let second = pod.push().await;
    assert_eq!((second.layers_pushed, second.layers_reused), (1, 11));
    let config = pod.manifest(&second.digest).config.digest;
    let config = pod.registry.blob(REPOSITORY, &config).unwrap();
    let config: serde_json::Value = serde_json::from_slice(&config).unwrap();
    assert_eq!(config["config"]["Entrypoint"], json!(["/bin/app"]));
    assert_eq!(config["config"]["Labels"]["color"], "blue");
}

/// Another config makes another image; its layers stay.
#[tokio::test]
async fn a_config_that_is_asked_for_is_laid_over_that_of_an_image_of_others() {
    let mut pod = Pod::new().await;
    pod.hand_off_nix2container();
    let own = pod.push().await;
    pod.publish(&own);
    pod.hand_off_nix2container();
    pod.config.user = Some("1000".into());
    pod.config.env = vec![firn_crd::container::Variable {
        name: "A".into(),
        value: "<asked>".into(),
    }];
    let asked = pod.push().await;
    assert_ne!(asked.digest, own.digest);
    assert_eq!((asked.layers_pushed, asked.layers_reused), (0, 12));
    let (before, _) = published(&pod, &own.digest);
    let (after, _) = published(&pod, &asked.digest);
    assert_eq!(after["config"]["Entrypoint"], json!(["/bin/app"]));
    assert_eq!(after["config"]["User"], "1000");
    assert_eq!(after["config"]["Env"], json!(["A=<asked>"]));
    for field in ["rootfs", "history", "architecture", "created"] {
        assert_eq!(after[field], before[field], "{field}");
    }
}

/// What is asked for and nothing else, in a layer of its own: those below stay.
#[tokio::test]
async fn files_that_are_asked_for_lie_on_top_of_an_image_of_others() {
    let mut pod = Pod::new().await;
    pod.hand_off_nix2container();
    let own = pod.push().await;
    pod.publish(&own);
    pod.hand_off_nix2container();
    pod.files.tmp = Some(true);
    pod.files.users = vec![firn_crd::files::User {
        name: "app".into(),
        uid: 1000,
        ..firn_crd::files::User::default()
    }];
    let asked = pod.push().await;
    assert_eq!((asked.layers_pushed, asked.layers_reused), (1, 12));
    let (before, below) = published(&pod, &own.digest);
    let (after, layers) = published(&pod, &asked.digest);
    assert_eq!(layers[..12], below);
    let list = |config: &serde_json::Value, pointer| {
        config.pointer(pointer).unwrap().as_array().unwrap().clone()
    };
    for pointer in ["/rootfs/diff_ids", "/history"] {
        let (before, after) = (list(&before, pointer), list(&after, pointer));
        assert_eq!((&after[..12], after.len()), (&before[..], 13), "{pointer}");
    }
    assert_eq!(after["config"], before["config"]);

    let top = pod.registry.blob(REPOSITORY, &layers[12].parse().unwrap());
    let top = zstd::decode_all(&*top.unwrap()).unwrap();
    let names: Vec<String> = tar::Archive::new(top.as_slice())
        .entries()
        .unwrap()
        .map(|entry| entry.unwrap().path().unwrap().display().to_string())
        .collect();
    let expected = [
        "etc/group",
        "etc/nsswitch.conf",
        "etc/passwd",
        "tmp/",
        "var/empty/",
    ];
    assert_eq!(names, expected);

    pod.publish(&asked);
    pod.hand_off_nix2container();
    let again = pod.push().await;
    assert_eq!((again.digest, again.bytes_pushed), (asked.digest, 0));
}

#[tokio::test]
async fn files_that_an_image_of_others_cannot_have_are_the_user_s_to_correct() {
    let mut pod = Pod::new().await;
    pod.hand_off_nix2container();
    pod.files.bin_sh = true;
    let failure = pod.try_push().await.unwrap_err();
    assert_eq!(failure.reason(), Reason::ImageInvalid);
    let message = &failure.0.message;
    assert!(
        message.contains("`output.files`: no package of the image has bin/sh"),
        "{message}"
    );
    pod.files.copy_to_root = true;
    let failure = pod.try_push().await.unwrap_err();
    assert_eq!(failure.reason(), Reason::ImageInvalid);
    let message = &failure.0.message;
    assert!(message.contains("`output.files.copyToRoot`"), "{message}");
}

#[tokio::test]
async fn what_only_looks_like_an_image_is_refused_before_anything_is_sent() {
    let pod = Pod::new().await;
    pod.hand_off_file("notes.tar.gz", &[0x1f, 0x8b, 8, 0, 0]);
    let failure = pod.try_push().await.unwrap_err();
    assert_eq!(failure.reason(), Reason::NotAnImage);
    assert!(
        failure.0.message.contains("attribute default"),
        "{}",
        failure.0.message
    );
    assert!(pod.registry.seen().is_empty());
}

/// What build says of sizes does not decide how much push keeps in memory.
#[tokio::test]
async fn a_layer_that_is_larger_than_build_said_is_sent_while_it_is_made() {
    let mut pod = Pod::new().await;
    pod.packages[3].contents = noise(3, 20 << 20);
    pod.write(&pod.packages[3]);
    pod.hand_off();
    let Ok(Built::Image(mut image)) = handoff::read(&pod.paths().built()) else {
        panic!("no image was handed off");
    };
    image
        .closure
        .get_mut(&pod.packages[3].path)
        .unwrap()
        .nar_size = 1;
    pod.hand_off_built(&Built::Image(image));
    let pushed = pod.push().await;
    let layers = pod.manifest(&pushed.digest).layers;
    let large = layers.iter().max_by_key(|layer| layer.size).unwrap();
    assert!(large.size > push::KEEP_MAX);
    // One that was kept would have been asked for by its digest.
    let asked = |digest: &firn_oci::Digest| pod.registry.count("GET", &digest.hex());
    assert_eq!(asked(&large.digest), 0);
    assert!(layers.iter().any(|layer| asked(&layer.digest) > 0));
}
