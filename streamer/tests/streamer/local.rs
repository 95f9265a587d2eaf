//! The program in the hands of a person: no cluster, no Nix, a closure's description and its files.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::process::{Command, Output};

use firn_oci::testing::FakeRegistry;
use firn_oci::{Digest, media_type};
use firn_streamer::nar::NarHasher;
use firn_streamer::store_path::StorePath;
use serde_json::{Value, json};

use crate::made::{Package, noise, store_path};

mod bases;

struct Laptop {
    dir: tempfile::TempDir,
    registry: FakeRegistry,
    packages: Vec<Package>,
}

impl Laptop {
    async fn new() -> Self {
        let packages = (0..12)
            .map(|index| Package {
                path: store_path(index, 0),
                contents: noise(index, 150_000),
                references: (0..index).rev().take(1).map(|i| store_path(i, 0)).collect(),
            })
            .collect();
        let laptop = Self {
            dir: tempfile::tempdir().unwrap(),
            registry: FakeRegistry::start().await.unwrap(),
            packages,
        };
        laptop.write();
        laptop
    }

    /// Store and closure as they are now.
    fn write(&self) {
        let store = self.dir.path().join("store");
        let mut closure = BTreeMap::new();
        for package in &self.packages {
            package.write(&store, 0o644, 0o755, false);
            let info = package.info();
            closure.insert(
                package.path.to_string(),
                json!({
                    "narHash": info.nar_hash.to_string(),
                    "narSize": info.nar_size,
                    "references": info.references,
                }),
            );
        }
        let json = serde_json::to_vec(&closure).unwrap();
        fs::write(self.dir.path().join("closure.json"), json).unwrap();
    }

    /// A description of an image of the last package, as a store path.
    fn describe(&self, document: &Value) -> StorePath {
        let document = document.to_string();
        let described = StorePath::of_base_name(&format!("{}-image.json", "0".repeat(32))).unwrap();
        let file = self.dir.path().join("store").join(described.base_name());
        fs::write(file, &document).unwrap();
        let mut nar = NarHasher::new();
        nar.begin_file(None, false, document.len() as u64);
        nar.write_all(document.as_bytes()).unwrap();
        nar.end_file(document.len() as u64);
        let (hash, size) = nar.finish();
        let file = self.dir.path().join("closure.json");
        let mut closure: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        let app = &self.packages.last().unwrap().path;
        closure[described.to_string()] =
            json!({ "narHash": hash.to_string(), "narSize": size, "references": [app] });
        fs::write(&file, closure.to_string()).unwrap();
        described
    }

    /// A shell script in the place of a program.
    fn stand_in(&self, name: &str, script: &str) {
        use std::os::unix::fs::PermissionsExt as _;

        let bin = self.dir.path().join("bin");
        fs::create_dir_all(&bin).unwrap();
        fs::write(bin.join(name), format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(bin.join(name), fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn change(&mut self) {
        let last = self.packages.last_mut().unwrap();
        last.path = store_path(11, 1);
        last.contents.reverse();
        self.write();
    }

    fn repository(&self, name: &str) -> String {
        format!("{}/{name}", self.registry.host())
    }

    /// Runs the program; the input's options are added where a command takes them.
    async fn run(&self, command: &str, rest: &[&str]) -> Output {
        let out_path = &self.packages.last().unwrap().path;
        self.run_on(out_path, command, rest).await
    }

    /// The same for another store path.
    async fn run_on(&self, out_path: &StorePath, command: &str, rest: &[&str]) -> Output {
        let mut program = Command::new(env!("CARGO_BIN_EXE_firn-streamer"));
        program
            .arg(command)
            .args(rest)
            .env_clear()
            .env("PATH", self.dir.path().join("bin"))
            .current_dir(&self.dir);
        if command != "inspect" {
            program
                .arg(out_path.to_string())
                .args(["--store", "store", "--closure", "closure.json"])
                .args(["--platform", "linux/amd64", "--max-layers", "10"]);
        }
        program.arg(if command == "load" {
            "--base-plain-http"
        } else {
            "--plain-http"
        });
        tokio::task::spawn_blocking(move || program.output().unwrap())
            .await
            .unwrap()
    }

    async fn json(&self, command: &str, rest: &[&str]) -> Value {
        let rest: Vec<&str> = rest.iter().copied().chain(["--json"]).collect();
        let output = self.run(command, &rest).await;
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{words}");
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

#[tokio::test]
async fn a_second_push_sends_nothing_and_another_repository_mounts() {
    let laptop = Laptop::new().await;
    let to = laptop.repository("team/app:v1");
    let first = laptop.json("push", &["--to", &to, "--tag", "latest"]).await;
    assert_eq!(first["layersPushed"], first["layersTotal"]);
    assert_eq!(first["bytesPushed"], first["sizeBytes"]);
    let digest = first["digest"].as_str().unwrap();
    for tag in ["v1", "latest"] {
        let manifest = laptop.registry.manifest("team/app", tag).unwrap();
        assert_eq!(Digest::of(&manifest).to_string(), digest, "{tag}");
    }

    let again = laptop
        .json("push", &["--to", &to, "--previous", digest])
        .await;
    assert_eq!(
        (&again["digest"], &again["bytesPushed"]),
        (&first["digest"], &json!(0))
    );

    let previous = format!("{}@{digest}", laptop.repository("team/app"));
    let elsewhere = laptop.repository("team/copy:v1");
    let moved = laptop
        .json("push", &["--to", &elsewhere, "--previous", &previous])
        .await;
    assert_eq!(moved["digest"], first["digest"]);
    assert_eq!(moved["layersMounted"], first["layersTotal"]);
    assert_eq!(moved["layersPushed"], 0);
}

/// A value of the flake, by a stand-in for Nix; its base image is read with the person's login.
#[tokio::test]
async fn a_description_that_is_a_value_is_pushed_and_built_upon_another_image() {
    let laptop = Laptop::new().await;
    let to = laptop.repository("team/base:v1");
    let base = laptop.json("push", &["--to", &to]).await;
    let below = format!(
        "{}@{}",
        laptop.repository("team/base"),
        base["digest"].as_str().unwrap()
    );
    let app = &laptop.packages[3].path;
    let drv = format!("{app}.drv");
    let document = json!({
        "firnImage": 1, "contents": [app], "config": {"cmd": ["x"]}, "base": {"image": below},
    });
    let answer = json!({
        "kind": "description", "drvPath": drv, "document": document.to_string(),
        "context": { drv.as_str(): { "outputs": ["out"] } },
    });
    let folder = laptop.dir.path();
    let built = json!([{ "drvPath": drv, "outputs": { "out": app } }]);
    fs::write(folder.join("eval"), answer.to_string()).unwrap();
    fs::write(folder.join("build"), built.to_string()).unwrap();
    let script = r#"/bin/cat "$([ "$3" = path-info ] && echo closure.json || echo $3)""#;
    laptop.stand_in("nix", script);
    let to = laptop.repository("team/app:v1");
    let mut program = Command::new(env!("CARGO_BIN_EXE_firn-streamer"));
    program
        .args(["push", ".#web", "--to", &to, "--plain-http", "--json"])
        .args(["--store", "store", "--platform", "linux/amd64"])
        .env_clear()
        .env("PATH", folder.join("bin"))
        .current_dir(folder);
    let output = tokio::task::spawn_blocking(move || program.output().unwrap());
    let output = output.await.unwrap();
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{words}");
    let pushed: Value = serde_json::from_slice(&output.stdout).unwrap();
    // All but one that is equal to a layer of the image's own, whichever of the two comes first.
    let number = |value: &Value| value.as_u64().unwrap();
    assert!(number(&pushed["layersMounted"]) + 1 >= number(&base["layersTotal"]));
    assert!(number(&pushed["layersTotal"]) > number(&base["layersTotal"]));
    let manifest = laptop.registry.manifest("team/app", "v1").unwrap();
    let manifest: Value = serde_json::from_slice(&manifest).unwrap();
    let config = manifest["config"]["digest"].as_str().unwrap();
    let config = laptop.registry.blob("team/app", &config.parse().unwrap());
    let config: Value = serde_json::from_slice(&config.unwrap()).unwrap();
    assert_eq!(config["config"]["Cmd"], json!(["x"]));
    assert!(config["config"]["Entrypoint"].is_array(), "{config}");
}

#[tokio::test]
async fn a_plan_tells_what_would_be_pushed_and_why() {
    let mut laptop = Laptop::new().await;
    let plan = laptop.json("plan", &[]).await;
    let layers = plan["layers"].as_array().unwrap();
    assert!(layers.len() > 1 && layers.len() <= 10, "{plan:#}");
    assert!(layers.iter().all(|layer| layer.get("fate").is_none()));

    let to = laptop.repository("team/app:v1");
    let pushed = laptop.json("push", &["--to", &to]).await;
    let previous = pushed["image"].as_str().unwrap().to_owned();
    let unchanged = laptop.json("plan", &["--previous", &previous]).await;
    assert_eq!(unchanged["pushBytes"], 0, "{unchanged:#}");

    laptop.change();
    let changed = laptop.json("plan", &["--previous", &previous]).await;
    let to_push: Vec<&Value> = changed["layers"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|layer| layer["fate"]["action"] == "push")
        .collect();
    assert_eq!(to_push.len(), 1, "{changed:#}");
    let words = laptop.run("plan", &["--previous", &previous]).await;
    let words = String::from_utf8(words.stdout).unwrap();
    assert!(words.contains("the names are the same"), "{words}");
}

#[tokio::test]
async fn inspect_tells_what_a_layer_is_known_by() {
    let laptop = Laptop::new().await;
    let to = laptop.repository("team/app:v1");
    let pushed = laptop.json("push", &["--to", &to]).await;
    let inspected = laptop.json("inspect", &[&to]).await;
    assert_eq!(inspected["digest"], pushed["digest"]);
    let image = &inspected["images"][0];
    assert_eq!(image["platform"], "linux/amd64");
    let layers = image["layers"].as_array().unwrap();
    assert_eq!(json!(layers.len()), pushed["layersTotal"]);
    for layer in layers {
        assert_eq!(
            layer["recipe"].as_str().map(str::len),
            Some(64),
            "{layer:#}"
        );
    }
}

#[tokio::test]
async fn an_archive_is_what_its_config_says() {
    let laptop = Laptop::new().await;
    for file in ["one.tar", "two.tar"] {
        let into = format!("docker-archive:{file}");
        laptop
            .json("load", &["--into", &into, "--name", "web:v1"])
            .await;
    }
    let archive = fs::read(laptop.dir.path().join("one.tar")).unwrap();
    assert!(archive == fs::read(laptop.dir.path().join("two.tar")).unwrap());
    let (name, config, _) = archived(&archive);
    assert_eq!(name, "web:v1");
    assert!(config["config"]["Entrypoint"].is_array(), "{config}");
}

/// A docker-archive's name, its config, and its layers, whose digests the config has.
fn archived(archive: &[u8]) -> (String, Value, Vec<Vec<u8>>) {
    let mut members = BTreeMap::new();
    for entry in tar::Archive::new(archive).entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().display().to_string();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        members.insert(name, bytes);
    }
    let manifest: Value = serde_json::from_slice(&members["manifest.json"]).unwrap();
    let config = &members[manifest[0]["Config"].as_str().unwrap()];
    let config: Value = serde_json::from_slice(config).unwrap();
    let layers = manifest[0]["Layers"].as_array().unwrap();
    let layers: Vec<Vec<u8>> = layers
        .iter()
        .map(|name| members[name.as_str().unwrap()].clone())
        .collect();
    let diff_ids: Vec<String> = layers
        .iter()
        .map(|layer| Digest::of(layer).to_string())
        .collect();
    assert_eq!(config["rootfs"]["diff_ids"], json!(diff_ids));
    let name = manifest[0]["RepoTags"][0].as_str().unwrap().to_owned();
    (name, config, layers)
}

#[tokio::test]
async fn a_layout_holds_the_image_that_a_push_would_make() {
    let laptop = Laptop::new().await;
    let loaded = laptop
        .json("load", &["--into", "oci:layout", "--name", "web:v1"])
        .await;
    let to = laptop.repository("team/app:v1");
    let pushed = laptop.json("push", &["--to", &to]).await;
    // Recipe keys are for a registry; the blobs are the same.
    let layout = firn_oci::Layout::open(&laptop.dir.path().join("layout")).unwrap();
    let index = layout.index().unwrap();
    assert_eq!(index.manifests[0].digest.to_string(), loaded["digest"]);
    let manifest = layout.read(&index.manifests[0]).unwrap();
    let here = firn_oci::Manifest::from_bytes(&manifest).unwrap();
    let there = laptop.registry.manifest("team/app", "v1").unwrap();
    let there = firn_oci::Manifest::from_bytes(&there).unwrap();
    let digests = |manifest: &firn_oci::Manifest| -> Vec<Digest> {
        manifest.layers.iter().map(|layer| layer.digest).collect()
    };
    assert_eq!(digests(&here), digests(&there));
    assert_eq!(here.config.digest, there.config.digest);
    assert_eq!(json!(here.layers.len()), pushed["layersTotal"]);
}

#[tokio::test]
async fn a_description_says_how_its_layers_are_compressed() {
    let laptop = Laptop::new().await;
    let app = &laptop.packages.last().unwrap().path;
    let document = json!({ "firnImage": 1, "contents": [app], "compression": "Gzip" });
    let described = laptop.describe(&document);
    let to = laptop.repository("team/app:v1");
    let output = laptop
        .run_on(&described, "push", &["--to", &to, "--json"])
        .await;
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{words}");
    let inspected = laptop.json("inspect", &[&to]).await;
    for layer in inspected["images"][0]["layers"].as_array().unwrap() {
        assert_eq!(layer["mediaType"], media_type::LAYER_GZIP, "{layer:#}");
    }
}

#[tokio::test]
async fn what_cannot_be_used_is_named() {
    let laptop = Laptop::new().await;
    let to = laptop.repository("team/app:v1");
    let cases: [(&str, &[&str], &str); 5] = [
        ("push", &["--to", "not a reference"], "--to"),
        (
            "push",
            &["--to", &to, "--previous", "team/app:v1"],
            "--previous",
        ),
        ("plan", &["--platform", "plan9"], "--platform"),
        ("load", &["--into", "nowhere:x"], "--into nowhere:x"),
        ("inspect", &["host.example/app"], "a tag or a digest"),
    ];
    for (command, rest, word) in cases {
        let output = laptop.run(command, rest).await;
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{command}: {words}");
        assert!(words.contains(word), "{command}: {words}");
        assert!(output.stdout.is_empty());
    }
}
