//! `firn-streamer` upon a base image that is in a registry: loaded, and read by skopeo and
//! containerd; pushed, and pulled by both.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, ensure};
use firn_e2e::bench::node::Containerd;
use firn_e2e::fixture::nar;
use firn_oci::{BuiltImage, Index, Repository};
use serde_json::{Value, json};

use super::server::{Server, skopeo_copies};
use crate::program;

/// The store path of the description; any will do.
const DESCRIBED: &str = "/nix/store/00000000000000000000000000000000-image.json";

/// A description of an image upon another one in a registry, as a store with nothing else.
pub(super) struct Upon<'a> {
    server: &'a Server,
    folder: tempfile::TempDir,
    login: PathBuf,
}

impl<'a> Upon<'a> {
    pub(super) fn new(server: &'a Server, app: &Repository, base: &BuiltImage) -> Result<Self> {
        let upon = Self {
            server,
            folder: tempfile::tempdir()?,
            login: server.log_in()?,
        };
        let file = upon
            .at("store")
            .join(DESCRIBED.trim_start_matches("/nix/store/"));
        fs::create_dir(upon.at("store"))?;
        let digest = base.manifest.descriptor.digest;
        let image = format!("{}/{app}@{digest}", server.address);
        let document = json!({"firnImage": 1, "tmp": true, "base": {"image": image}});
        fs::write(&file, document.to_string())?;
        let nar = nar::nar(&file)?;
        let info = json!({"narHash": nar.hash, "narSize": nar.size, "references": []});
        fs::write(upon.at("closure"), json!({ DESCRIBED: info }).to_string())?;
        Ok(upon)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What the program says on standard error; `Err` if it fails.
    fn run(&self, command: &str, rest: &[&str], node: Option<&Containerd>) -> Result<String> {
        let mut program = Command::new(program("firn-streamer"));
        program.args([command, DESCRIBED, "--platform", "linux/amd64", "--json"]);
        program.args(["--max-layers", "480"]);
        program.arg("--store").arg(self.at("store"));
        program.arg("--closure").arg(self.at("closure"));
        program.arg("--auth-file").arg(&self.login);
        program.args(rest);
        if let Some(node) = node {
            let path = std::env::join_paths([self.server.programs()])?;
            program
                .env("PATH", path)
                .env("CONTAINERD_ADDRESS", node.socket());
        }
        let output = program.output()?;
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "{command} {rest:?}: {words}");
        Ok(words)
    }

    /// Loads it with the registry's own certificate and login into all that are files.
    pub(super) fn loads(&self, base: &BuiltImage) -> Result<()> {
        let ca = self.server.ca().display().to_string();
        let (layout, archive) = (self.at("layout"), self.at("app.tar"));
        let into = |kind: &str, to: &PathBuf| format!("{kind}:{}", to.display());
        let places = [into("oci", &layout), into("docker-archive", &archive)];
        for place in &places {
            let rest = ["--ca", &ca, "--into", place, "--name", "app:v1"];
            self.run("load", &rest, None)?;
        }
        let [layout_name, archive_name] = &places;
        skopeo_copies(&format!("{layout_name}:v1"), |_| {})?;
        skopeo_copies(archive_name, |_| {})?;

        let index = Index::from_bytes(&fs::read(layout.join("index.json"))?)?;
        let manifest = index.manifests.first().map(|entry| entry.digest.hex());
        let manifest = layout
            .join("blobs/sha256")
            .join(manifest.unwrap_or_default());
        let manifest: Value = serde_json::from_slice(&fs::read(manifest)?)?;
        for (index, layer) in base.layers.iter().enumerate() {
            let there = &manifest["layers"][index];
            ensure!(there["digest"] == layer.digest.to_string(), "{manifest}");
            ensure!(there["mediaType"] == layer.media_type, "{manifest}");
        }

        let untrusted = self.run("load", &["--into", "oci:nowhere"], None);
        let words = untrusted.unwrap_err().to_string();
        ensure!(
            words.contains("certificate") && words.contains("--ca"),
            "{words}"
        );
        Ok(())
    }

    /// Loads it into a containerd that is running.
    pub(super) fn loads_into(&self, node: &Containerd, name: &str) -> Result<()> {
        let ca = self.server.ca().display().to_string();
        let rest = ["--ca", &ca, "--into", "containerd", "--name", name];
        self.run("load", &rest, Some(node)).map(drop)
    }

    /// Pushes it to another repository of the registry.
    pub(super) fn is_pushed_to(&self, image: &str) -> Result<()> {
        let ca = self.server.ca().display().to_string();
        let to = format!("{}/{image}", self.server.address);
        self.run("push", &["--ca", &ca, "--to", &to], None)
            .map(drop)
    }
}
