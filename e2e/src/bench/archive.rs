//! The same layers as a docker-archive on standard output, made as nixpkgs' dockerTools does: each
//! layer is written twice, first for its digest and size, which come before its contents, then into
//! the stream; one thread.

use std::io::{self, BufWriter, Write};
use std::path::Path;

use anyhow::{Context as _, Result};
use firn_oci::{Digest, Digesting, TarWriter};
use serde_json::json;

use super::tree;

/// Bytes of a pipe's write.
const BUFFER: usize = 256 * 1024;

/// Streams `layers`, each the sorted base names of its paths, to `to`.
///
/// Errors: the store cannot be read; whoever reads the stream has gone.
pub fn write(store: &Path, layers: &[Vec<String>], name: &str, to: impl Write) -> Result<()> {
    let mut out = BufWriter::with_capacity(BUFFER, to);
    let mut diff_ids: Vec<Digest> = Vec::new();
    for layer in layers {
        let (digest, size, _) = layer_tar(store, layer, io::sink())?.finish();
        header(&mut out, &member(&digest), size)?;
        let (again, _, _) = layer_tar(store, layer, &mut out)?.finish();
        anyhow::ensure!(again == digest, "the store changed while it was read");
        pad(&mut out, size)?;
        diff_ids.push(digest);
    }
    let history: Vec<serde_json::Value> = layers
        .iter()
        .map(|layer| {
            let paths: Vec<String> = layer.iter().map(|b| format!("'/nix/store/{b}'")).collect();
            json!({
                "created": "1970-01-01T00:00:01+00:00",
                "comment": format!("store paths: [{}]", paths.join(", ")),
            })
        })
        .collect();
    let config = json!({
        "architecture": "amd64",
        "os": "linux",
        "created": "1970-01-01T00:00:01Z",
        "config": {},
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
        "history": history,
    })
    .to_string();
    let config_name = format!("{}.json", Digest::of(config.as_bytes()).hex());
    file(&mut out, &config_name, config.as_bytes())?;
    let manifest = json!([{
        "Config": config_name,
        "RepoTags": [name],
        "Layers": diff_ids.iter().map(member).collect::<Vec<_>>(),
    }]);
    file(&mut out, "manifest.json", manifest.to_string().as_bytes())?;
    out.write_all(&[0; 1024])?;
    out.flush().context("failed to write the archive")
}

fn member(diff_id: &Digest) -> String {
    format!("{}/layer.tar", diff_id.hex())
}

fn layer_tar<W: Write>(store: &Path, layer: &[String], to: W) -> Result<Digesting<W>> {
    let mut tar = TarWriter::new(Digesting::new(to));
    tree::write(&mut tar, store, layer)?;
    Ok(tar.finish()?)
}

fn header(out: &mut impl Write, name: &str, size: u64) -> Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_path(name)?;
    header.set_size(size);
    header.set_mode(0o644);
    header.set_cksum();
    out.write_all(header.as_bytes())
        .context("failed to write the archive")
}

fn pad(out: &mut impl Write, size: u64) -> io::Result<()> {
    let missing = usize::try_from(size.wrapping_neg() % 512).unwrap_or_default();
    out.write_all(&[0; 512][..missing])
}

fn file(out: &mut impl Write, name: &str, text: &[u8]) -> Result<()> {
    let size = text.len() as u64;
    header(out, name, size)?;
    out.write_all(text)?;
    pad(out, size).context("failed to write the archive")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::Read as _;

    use super::*;

    #[test]
    fn the_archive_has_each_layer_under_the_digest_of_its_bytes() {
        let store = tempfile::tempdir().unwrap();
        std::fs::create_dir(store.path().join("a")).unwrap();
        std::fs::write(store.path().join("a/file"), "x\n").unwrap();
        std::os::unix::fs::symlink("a", store.path().join("b")).unwrap();
        let mut bytes = Vec::new();
        let layers = [vec!["a".to_owned()], vec!["b".to_owned()]];
        write(store.path(), &layers, "x:1", &mut bytes).unwrap();
        let mut members = BTreeMap::new();
        for entry in tar::Archive::new(&*bytes).entries().unwrap() {
            let mut entry = entry.unwrap();
            let name = entry.path().unwrap().display().to_string();
            let mut contents = Vec::new();
            entry.read_to_end(&mut contents).unwrap();
            members.insert(name, contents);
        }
        let manifest: serde_json::Value =
            serde_json::from_slice(&members["manifest.json"]).unwrap();
        let names = manifest[0]["Layers"].as_array().unwrap();
        assert_eq!(names.len(), 2);
        for name in names {
            let name = name.as_str().unwrap();
            let digest = Digest::of(&members[name]).hex();
            assert_eq!(name, format!("{digest}/layer.tar"));
        }
        assert!(members.contains_key(manifest[0]["Config"].as_str().unwrap()));
    }
}
