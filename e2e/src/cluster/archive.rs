//! An image as one file that containerd imports: an OCI layout with a single uncompressed layer, in
//! a tar. Not made by the product's own image writer, so that a fault in that does not keep the
//! cluster from starting.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::json;
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

use super::files::At;

/// What is at a path of the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Entry {
    /// A file copied from the machine; executable by all if it is executable.
    Copy(PathBuf),
    /// A symbolic link.
    Link(String),
    /// A folder, with its mode.
    Folder(u32),
}

/// An image to be written. Everything in it is root's and has no time.
#[derive(Debug)]
pub(super) struct Image {
    pub(super) name: String,
    pub(super) entrypoint: Vec<String>,
    /// By path without a leading slash. Parents that are missing are made.
    pub(super) entries: BTreeMap<String, Entry>,
}

impl Image {
    /// Writes the archive to `file`.
    pub(super) fn write(&self, file: &Path) -> Result<()> {
        let out = File::create(file).at("create", file)?;
        self.write_layout(out)
            .with_context(|| format!("failed to write image {:?}", self.name))
    }

    fn write_layout(&self, out: impl Write) -> Result<()> {
        let layer = self.layer()?;
        let config = json!({
            "architecture": architecture(),
            "os": "linux",
            "config": {"Entrypoint": self.entrypoint, "Env": ["PATH=/usr/bin:/bin"]},
            "rootfs": {"type": "layers", "diff_ids": [digest(&layer)]},
        })
        .to_string();
        let descriptor = |media_type: &str, blob: &[u8]| json!({"mediaType": media_type, "digest": digest(blob), "size": blob.len()});
        let manifest_type = "application/vnd.oci.image.manifest.v1+json";
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": manifest_type,
            "config": descriptor("application/vnd.oci.image.config.v1+json", config.as_bytes()),
            "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", &layer)],
        })
        .to_string();
        let mut entry = descriptor(manifest_type, manifest.as_bytes());
        entry["annotations"] =
            json!({"io.containerd.image.name": format!("docker.io/{}", self.name)});
        let index = json!({"schemaVersion": 2, "manifests": [entry]}).to_string();
        let mut archive = Builder::new(out);
        for blob in [&layer, config.as_bytes(), manifest.as_bytes()] {
            let path = format!("blobs/{}", digest(blob).replace(':', "/"));
            append(&mut archive, &path, 0o644, blob)?;
        }
        append(&mut archive, "index.json", 0o644, index.as_bytes())?;
        append(
            &mut archive,
            "oci-layout",
            0o644,
            br#"{"imageLayoutVersion":"1.0.0"}"#,
        )?;
        archive.finish().context("failed to finish the archive")
    }

    /// Held in memory: the largest, Git's, has 15 MB.
    fn layer(&self) -> Result<Vec<u8>> {
        use std::os::unix::fs::PermissionsExt;
        let mut layer = Builder::new(Vec::new());
        for (path, entry) in with_parents(&self.entries) {
            match entry {
                Entry::Copy(source) => {
                    let (metadata, data) = fs::metadata(&source)
                        .and_then(|metadata| Ok((metadata, fs::read(&source)?)))
                        .at("read", &source)?;
                    let executable = metadata.permissions().mode() & 0o100 != 0;
                    append(
                        &mut layer,
                        &path,
                        if executable { 0o755 } else { 0o644 },
                        &data,
                    )?;
                }
                Entry::Link(target) => {
                    let mut header = header(EntryType::Symlink, 0o777, 0);
                    layer
                        .append_link(&mut header, &path, &target)
                        .at("add", &path)?;
                }
                Entry::Folder(mode) => {
                    let mut header = header(EntryType::Directory, mode, 0);
                    layer
                        .append_data(&mut header, format!("{path}/"), std::io::empty())
                        .at("add", &path)?;
                }
            }
        }
        layer.into_inner().context("failed to finish the layer")
    }
}

/// The name by which images know this machine's architecture.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Adds the folders that are missing. A map is sorted, so a folder comes before what is in it.
fn with_parents(entries: &BTreeMap<String, Entry>) -> BTreeMap<String, Entry> {
    let mut all = entries.clone();
    for path in entries.keys() {
        for (end, _) in path.match_indices('/') {
            if let Some(parent) = path.get(..end) {
                all.entry(parent.to_owned()).or_insert(Entry::Folder(0o755));
            }
        }
    }
    all
}

fn append<W: Write>(archive: &mut Builder<W>, path: &str, mode: u32, data: &[u8]) -> Result<()> {
    let mut header = header(EntryType::Regular, mode, data.len() as u64);
    archive.append_data(&mut header, path, data).at("add", path)
}

fn header(kind: EntryType, mode: u32, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

fn digest(blob: &[u8]) -> String {
    let hash = Sha256::digest(blob);
    hash.iter().fold("sha256:".to_owned(), |text, byte| {
        text + &format!("{byte:02x}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_come_before_what_is_in_them() {
        let entries = BTreeMap::from([
            ("tmp".to_owned(), Entry::Folder(0o1777)),
            ("usr/lib/a-b/c".to_owned(), Entry::Link("d".to_owned())),
        ]);
        let all = with_parents(&entries);
        let paths: Vec<&str> = all.keys().map(String::as_str).collect();
        assert_eq!(
            paths,
            ["tmp", "usr", "usr/lib", "usr/lib/a-b", "usr/lib/a-b/c"]
        );
        assert_eq!(all.get("tmp"), Some(&Entry::Folder(0o1777)));
    }

    #[test]
    fn the_archive_holds_what_its_index_says() {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("program");
        fs::write(&program, "text").unwrap();
        let entries = BTreeMap::from([("bin/program".to_owned(), Entry::Copy(program))]);
        let image = Image {
            name: "firn-e2e/x:1".to_owned(),
            entrypoint: vec!["/bin/program".to_owned()],
            entries,
        };
        let mut written = Vec::new();
        image.write_layout(&mut written).unwrap();
        let mut again = Vec::new();
        image.write_layout(&mut again).unwrap();
        assert_eq!(written, again);
        let mut archive = tar::Archive::new(written.as_slice());
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let path = entry.path().unwrap().display().to_string();
            let mut data = Vec::new();
            std::io::Read::read_to_end(&mut entry, &mut data).unwrap();
            if let Some(name) = path.strip_prefix("blobs/sha256/") {
                assert_eq!(digest(&data), format!("sha256:{name}"));
            } else if path == "index.json" {
                assert!(
                    String::from_utf8(data)
                        .unwrap()
                        .contains("docker.io/firn-e2e/x:1")
                );
            }
        }
    }
}
