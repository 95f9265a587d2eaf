//! The Nix database that Firn writes into an image, read and written by Nix itself. The image is
//! made by the streamer from a store that Nix built, unpacked, and mounted at `/nix` of the
//! builder image.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::chown;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use firn_oci::decompress::{Decoder, Encoding};
use firn_oci::{ImageConfig, Layout, Manifest};
use serde_json::Value;

use crate::images::Room;
use crate::program;

/// Who runs Nix in a build pod, and owns the store in one of the images.
const USER: &str = "65100:65100";

/// What two stores must say alike of a path.
type Known = BTreeMap<String, (Value, Value, Value)>;

fn known(file: &Path) -> Result<Known> {
    let told: BTreeMap<String, Value> = serde_json::from_slice(&fs::read(file)?)?;
    let info = |told: &Value| {
        let mut references = told["references"].clone();
        if let Some(references) = references.as_array_mut() {
            references.sort_by_key(ToString::to_string);
        }
        (told["narHash"].clone(), told["narSize"].clone(), references)
    };
    Ok(told
        .iter()
        .map(|(path, told)| (path.clone(), info(told)))
        .collect())
}

/// The layers of the image in `layout`, one over the other.
fn unpack(layout: &Path, to: &Path) -> Result<()> {
    let layout = Layout::open(layout)?;
    let index = layout.index()?;
    let named = index.manifests.first().context("an empty layout")?;
    let manifest = Manifest::from_bytes(&layout.read(named)?)?;
    let config = ImageConfig::from_bytes(&layout.read(&manifest.config)?)?;
    ensure!(manifest.layers.len() == config.rootfs.diff_ids.len());
    for layer in &manifest.layers {
        let encoding = Encoding::of_layer(&layer.media_type).context("no layer")?;
        let decoder = Decoder::new(encoding, layout.open_blob(layer)?)?;
        let mut archive = tar::Archive::new(decoder);
        archive.set_preserve_permissions(true);
        archive.set_preserve_ownerships(true);
        archive.unpack(to)?;
    }
    Ok(())
}

/// A store that Nix built, and the images of it.
struct Built {
    programs: tempfile::TempDir,
    out: tempfile::TempDir,
}

impl Built {
    fn new() -> Result<Self> {
        let built = Self {
            programs: tempfile::tempdir()?,
            out: tempfile::tempdir()?,
        };
        let streamer = built.programs.path().join("firn-streamer");
        fs::copy(program("firn-streamer"), streamer)?;
        chown(built.out.path(), Some(65100), Some(65100))?;
        let share = tempfile::tempdir()?;
        let flake = Path::new("tests/parts/nix_database/flake.nix");
        fs::copy(flake, share.path().join("flake.nix"))?;
        let script = "mkdir -p /nix/store /nix/var/nix; cd /tmp/out
            for image in root user; do
                firn-streamer load path:/tmp/share#$image --into oci:$image --name image:$image
            done
            nix path-info --json --json-format 1 --recursive $(cd /nix/store; ls -d \
                /nix/store/*-app /nix/store/*-other) > built.json";
        well(&built.room(share.path()), script)?;
        Ok(built)
    }

    fn room<'a>(&'a self, share: &'a Path) -> Room<'a> {
        Room {
            name: "builder",
            programs: self.programs.path(),
            share,
            nix: None,
            out: Some(self.out.path()),
            user: None,
        }
    }
}

fn well(room: &Room<'_>, script: &str) -> Result<String> {
    let (success, text) = room.run(&["sh", "-euc", script]);
    ensure!(success, "{script}\n{text}");
    Ok(text)
}

/// Nix, run by the owner of the store of `image`, finds everything as it is.
fn nix_knows_all_of_it(built: &Built, image: &str, user: &str) -> Result<()> {
    let at = |name: &str| built.out.path().join(name);
    let (unpacked, nothing) = (tempfile::tempdir()?, tempfile::tempdir()?);
    unpack(&at(image), unpacked.path())?;
    let nix = unpacked.path().join("nix");
    let room = Room {
        nix: Some(&nix),
        user: Some(user),
        ..built.room(nothing.path())
    };
    let all = known(&at("built.json"))?;
    ensure!(all.len() > 300, "{}", all.len());

    // It reads the database, by rows and by every index, and all that is in the store.
    let script = "cd /tmp/out; rm -f *.txt known.json
        nix-store --verify --check-contents
        nix path-info --json --json-format 1 --all > known.json
        nix-store --query --requisites /nix/store/*-app /nix/store/*-other > requisites.txt
        nix-store --query --referrers-closure /nix/store/*-text-0 > referrers.txt
        nix-store --gc --print-live > live.txt
        nix-store --gc --print-dead > dead.txt
        nix-store --gc --print-roots > roots.txt";
    well(&room, script)?;
    ensure!(known(&at("known.json"))? == all);
    let paths: Vec<String> = all.keys().cloned().collect();
    for list in ["requisites.txt", "referrers.txt", "live.txt"] {
        let text = fs::read_to_string(at(list))?;
        let told: BTreeSet<&str> = text.lines().collect();
        ensure!(told.into_iter().eq(&paths), "{list}:\n{text}");
    }
    ensure!(fs::read_to_string(at("dead.txt"))?.is_empty());
    let roots = fs::read_to_string(at("roots.txt"))?;
    for name in ["app", "other"] {
        let is_root = |line: &str| {
            line.contains("/nix/var/nix/gcroots/docker/") && line.ends_with(&format!("-{name}"))
        };
        ensure!(roots.lines().any(is_root), "{roots}");
    }

    // It writes: a path that refers to others, and its removal.
    let script = "cd /tmp/out
        nix build --impure --no-link --print-out-paths --expr 'derivation { name = \"new\";
            system = \"x86_64-linux\"; builder = \"/bin/sh\"; args = [ \"-c\"
            \"echo ${builtins.storePath (builtins.head (import ./app.nix))} > $out\" ]; }' > new.txt
        nix-store --query --references $(cat new.txt) | grep -q -- '-app$'
        nix-store --verify --check-contents
        nix-store --gc --print-dead | grep -q -- '-new$'
        nix-store --gc
        nix path-info --all | sort > left.txt";
    let app = paths.iter().find(|path| path.ends_with("-app"));
    let app = format!("[ {} ]", app.context("no app")?);
    fs::write(at("app.nix"), app)?;
    well(&room, script)?;
    let left = fs::read_to_string(at("left.txt"))?;
    ensure!(left.lines().eq(&paths), "{left}");
    if user == USER {
        return Ok(());
    }

    // Whom the store paths are removes those that one of the two roots alone kept.
    let script = "cd /tmp/out; rm /nix/var/nix/gcroots/docker/*-app
        nix-store --gc
        nix path-info --all | sort > fewer.txt
        nix-store --verify --check-contents";
    well(&room, script)?;
    // What the other root needs: itself, the text it names, and what that one needs.
    let fewer = fs::read_to_string(at("fewer.txt"))?;
    ensure!(fewer.lines().count() == 9, "{fewer}");
    ensure!(fewer.lines().all(|path| paths.contains(&path.to_owned())));

    // And that it looks at all: a file that was changed behind its back.
    let script = "cd /nix/store; f=$(echo *-other); chmod u+w $f; echo else > $f
        ! nix-store --verify --check-contents";
    let text = well(&room, script)?;
    ensure!(text.contains("was modified"), "{text}");
    Ok(())
}

#[test]
fn nix_reads_and_writes_the_database_of_an_image() -> Result<()> {
    let built = Built::new()?;
    nix_knows_all_of_it(&built, "root", "0:0")?;
    nix_knows_all_of_it(&built, "user", USER)
}
