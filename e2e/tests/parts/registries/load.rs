//! `firn-streamer load` of an image upon one that is in a registry, read by skopeo.

use std::fs;
use std::process::Command;

use anyhow::{Result, ensure};
use firn_e2e::fixture::nar;
use firn_oci::{BuiltImage, Index, Repository};
use serde_json::{Value, json};

use super::server::{Server, skopeo_copies};
use crate::program;

/// The store path of the description; any will do.
const DESCRIBED: &str = "/nix/store/00000000000000000000000000000000-image.json";

/// Loads one upon `base`, with the registry's own certificate and login, into all that are files.
pub(super) fn an_image_upon(server: &Server, app: &Repository, base: &BuiltImage) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let at = |name: &str| folder.path().join(name);
    let file = at("store").join(DESCRIBED.trim_start_matches("/nix/store/"));
    fs::create_dir(at("store"))?;
    let digest = base.manifest.descriptor.digest;
    let image = format!("{}/{app}@{digest}", server.address);
    let document = json!({"firnImage": 1, "base": {"image": image}});
    fs::write(&file, document.to_string())?;
    let nar = nar::nar(&file)?;
    let info = json!({"narHash": nar.hash, "narSize": nar.size, "references": []});
    fs::write(at("closure"), json!({ DESCRIBED: info }).to_string())?;
    let login = server.log_in()?;

    let load = |into: &str, ca: bool| -> Result<(bool, String)> {
        let mut command = Command::new(program("firn-streamer"));
        command.args(["load", DESCRIBED, "--platform", "linux/amd64", "--json"]);
        command.arg("--store").arg(at("store"));
        command.arg("--closure").arg(at("closure"));
        command.arg("--auth-file").arg(&login);
        if ca {
            command.arg("--ca").arg(server.ca());
        }
        let output = command
            .args(["--into", into, "--name", "app:v1"])
            .output()?;
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        Ok((output.status.success(), words))
    };
    let (layout, archive) = (at("layout"), at("app.tar"));
    for into in [
        format!("oci:{}", layout.display()),
        format!("docker-archive:{}", archive.display()),
    ] {
        let (success, words) = load(&into, true)?;
        ensure!(success, "{into}: {words}");
    }
    skopeo_copies(&format!("oci:{}:v1", layout.display()), |_| {})?;
    skopeo_copies(&format!("docker-archive:{}", archive.display()), |_| {})?;

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

    let (success, words) = load("oci:nowhere", false)?;
    ensure!(!success && words.contains("certificate"), "{words}");
    Ok(())
}
