//! Firn's own images: the same bytes everywhere, what is declared is in them, and it runs as a pod
//! would run it. The programs of Firn are stand-ins here; the stories run the real ones.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests, where a panic is a failed test"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use firn_e2e::debian;
use firn_e2e::image::{self, Contents, Declaration, Image, Node, Parts};
use serde_json::Value;

const WORKSPACE: &str = "..";
const VERSION: &str = env!("CARGO_PKG_VERSION");

fn cache() -> PathBuf {
    std::env::var_os("FIRN_CACHE").map_or_else(image::default_cache, PathBuf::from)
}

fn declared(name: &str) -> Image {
    Declaration::committed()
        .unwrap()
        .images
        .remove(name)
        .unwrap()
}

/// A folder with stand-ins for Firn's programs: `firn-images` itself, linked as they are.
fn stand_ins() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for package in Declaration::committed().unwrap().packages() {
        fs::copy(
            env!("CARGO_BIN_EXE_firn-images"),
            folder.path().join(package),
        )
        .unwrap();
    }
    folder
}

fn contents(name: &str, programs: &Path) -> Contents {
    let debian = debian::tree(&debian::LOCK.parse().unwrap(), &cache()).unwrap();
    Contents::of(
        &declared(name),
        &Parts {
            debian: &debian,
            programs,
        },
    )
    .unwrap()
}

fn succeed(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let (stdout, stderr) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{command:?}\n{stdout}\n{stderr}");
    stdout.into_owned()
}

/// Runs `command` in image `name` with a copy of `share` at /tmp/share; its output, both kinds.
pub(crate) fn run_in(name: &str, share: &Path, command: &[&str]) -> (bool, String) {
    let programs = stand_ins();
    let (nix, out, user) = (None, None, None);
    Room {
        name,
        programs: programs.path(),
        share,
        nix,
        out,
        user,
    }
    .run(command)
}

/// An image to run programs in, as a pod would.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Room<'a> {
    pub(crate) name: &'a str,
    /// The folder with Firn's programs.
    pub(crate) programs: &'a Path,
    /// A copy of it is at /tmp/share.
    pub(crate) share: &'a Path,
    /// It is at /nix, where else is nothing.
    pub(crate) nix: Option<&'a Path>,
    /// It is at /tmp/out.
    pub(crate) out: Option<&'a Path>,
    /// Instead of the image's own.
    pub(crate) user: Option<&'a str>,
}

impl Room<'_> {
    /// Whether `command` was well, and its output, both kinds.
    pub(crate) fn run(&self, command: &[&str]) -> (bool, String) {
        let root = tempfile::tempdir().unwrap();
        contents(self.name, self.programs)
            .write_to(root.path())
            .unwrap();
        let image = declared(self.name);
        fs::set_permissions(
            root.path(),
            std::os::unix::fs::PermissionsExt::from_mode(0o755),
        )
        .unwrap();
        let mut program = Command::new("unshare");
        program
            .args([
                "--mount",
                "--pid",
                "--fork",
                "--propagation",
                "private",
                "sh",
            ])
            .arg(Path::new(WORKSPACE).join("e2e/tests/parts/images/in-image.sh"))
            .arg(root.path())
            .arg(self.user.unwrap_or(&image.user))
            .args(
                image
                    .env
                    .iter()
                    .map(|(key, value)| format!("{key}={value}")),
            )
            .arg("--")
            .args(command)
            .env("SHARE", self.share);
        for (variable, folder) in [("NIX", self.nix), ("OUT", self.out)] {
            if let Some(folder) = folder {
                program.env(variable, folder);
            }
        }
        let output = program.output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (
            output.status.success(),
            String::from_utf8_lossy(&text).into_owned(),
        )
    }
}

/// All files below `folder` with their bytes.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(folder).unwrap().to_owned();
                all.insert(name, fs::read(path).unwrap());
            }
        }
    }
    all
}

#[test]
fn two_builds_in_two_folders_are_the_same_bytes() {
    let (programs, out) = (stand_ins(), tempfile::tempdir().unwrap());
    let build = |cache: &Path, umask: &str, zone: &str, name: &str| {
        let script = format!("umask {umask}; exec \"$@\"");
        succeed(
            Command::new("sh")
                .args([
                    "-c",
                    &script,
                    "sh",
                    env!("CARGO_BIN_EXE_firn-images"),
                    "build",
                    "--out",
                ])
                .arg(out.path().join(name))
                .arg("--programs")
                .arg(programs.path())
                .env("FIRN_CACHE", cache)
                .env("TZ", zone),
        )
    };
    build(&cache(), "022", "UTC", "first");
    // Another file system, whose folders list what is in them in another order, and a tree that is
    // unpacked anew there.
    let other = tempfile::tempdir_in("/dev/shm").unwrap();
    let debs = other.path().join("debian/debs");
    fs::create_dir_all(&debs).unwrap();
    for deb in fs::read_dir(cache().join("debian/debs")).unwrap() {
        let deb = deb.unwrap();
        fs::copy(deb.path(), debs.join(deb.file_name())).unwrap();
    }
    build(other.path(), "077", "Asia/Tokyo", "second");
    let (first, second) = (
        files(&out.path().join("first")),
        files(&out.path().join("second")),
    );
    assert_eq!(
        first.keys().collect::<Vec<_>>(),
        second.keys().collect::<Vec<_>>()
    );
    // Two images, each with two layers, config, manifest, index and marker.
    assert_eq!(first.len(), 12, "{:?}", first.keys());
    assert!(first == second, "the same names, but other bytes");
}

#[test]
fn an_image_holds_what_is_declared_and_its_program_alone_in_the_last_layer() {
    let programs = stand_ins();
    for (name, image) in Declaration::committed().unwrap().images {
        let Contents { system, program } = contents(&name, programs.path());
        let nodes: BTreeMap<&str, &Node> = system.nodes().collect();
        let at = |path: &str| nodes.get(path.trim_start_matches('/')).copied();
        for path in &image.programs {
            let is_program = matches!(at(path), Some(Node::Copy { executable, .. }) if *executable || path.contains("git-sh-"));
            assert!(is_program, "{name} {path}: {:?}", at(path));
        }
        for (path, mode) in &image.directories {
            assert_eq!(at(path), Some(&Node::Directory(*mode)), "{name} {path}");
        }
        for (path, text) in &image.links {
            assert_eq!(at(path), Some(&Node::Link(text.clone())), "{name} {path}");
        }
        assert!(image.files.keys().all(|path| at(path).is_some()), "{name}");
        let Some(Node::Bytes(bundle)) = at("/etc/ssl/certs/ca-certificates.crt") else {
            panic!("{name} has no CA bundle")
        };
        let bundle = String::from_utf8_lossy(bundle);
        assert!(bundle.matches("-----BEGIN CERTIFICATE-----").count() > 100);
        assert!(
            nodes.keys().all(|path| !path.starts_with("nix/")),
            "the volume hides /nix"
        );
        assert!(nodes.contains_key("usr/share/doc/git/copyright"));
        assert!(nodes.contains_key("var/lib/dpkg/status.d/libc6"));
        let own: Vec<_> = program
            .nodes()
            .map(|(path, _)| format!("/{path}"))
            .collect();
        assert_eq!(own, std::slice::from_ref(&image.binary));
    }
}

#[test]
fn the_builder_builds_a_flake_as_its_user_on_a_read_only_root() {
    let share = tempfile::tempdir().unwrap();
    fs::write(
        share.path().join("flake.nix"),
        r#"{ outputs = { self }: { packages.x86_64-linux.default = derivation {
               name = "hello"; system = "x86_64-linux"; builder = "/bin/sh";
               args = [ "-c" "echo $((6 * 7)) > $out" ]; }; }; }"#,
    )
    .unwrap();
    let script = "id -u; id -g; firn-streamer --version; mkdir -p /nix/store /nix/var/nix
        cd /tmp/share && git init -q && git add . && git -c user.name=a -c user.email=a@b commit -qm a
        git submodule status && cat $(nix build --no-link --print-out-paths git+file:///tmp/share)
        touch /usr/x || echo sealed";
    let (success, text) = run_in("builder", share.path(), &["sh", "-euc", script]);
    assert!(success, "{text}");
    for line in ["65100", "firn-e2e 0.1.0", "42", "sealed"] {
        assert!(
            text.lines().any(|found| found == line),
            "{line:?} is not in:\n{text}"
        );
    }
}

#[test]
fn the_operator_starts_and_its_git_speaks_https() {
    let nothing = tempfile::tempdir().unwrap();
    let (success, text) = run_in("operator", nothing.path(), &["firn-operator", "--version"]);
    assert!(success && text.contains(VERSION), "{text}");
    // Nobody listens on port 1: that git gets so far shows that its helper and TLS library load.
    let ask = ["git", "ls-remote", "https://127.0.0.1:1/x.git"];
    let (success, text) = run_in("operator", nothing.path(), &ask);
    assert!(
        !success && text.contains("Failed to connect to 127.0.0.1"),
        "{text}"
    );
}

/// The stages of `Dockerfile`: per stage the instructions with their arguments.
fn dockerfile() -> BTreeMap<String, Vec<(String, String)>> {
    let text = fs::read_to_string(Path::new(WORKSPACE).join("Dockerfile")).unwrap();
    let mut stages: BTreeMap<String, Vec<(String, String)>> = BTreeMap::new();
    let mut stage = String::new();
    for line in text
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
    {
        let (word, rest) = line.split_once(' ').unwrap();
        if word == "FROM" {
            rest.rsplit_once(" AS ").unwrap().1.clone_into(&mut stage);
        }
        stages
            .entry(stage.clone())
            .or_default()
            .push((word.to_owned(), rest.to_owned()));
    }
    stages
}

#[test]
fn dockerfile_makes_the_declared_images() {
    let stages = dockerfile();
    let targets: BTreeSet<&str> = stages.keys().map(String::as_str).collect();
    assert_eq!(targets, BTreeSet::from(["builder", "files", "operator"]));
    for (name, image) in Declaration::committed().unwrap().images {
        let config = image::config(&name, &image, VERSION);
        let all = |word: &str| -> BTreeSet<String> {
            let lines = stages[&name].iter().filter(|(w, _)| w == word);
            lines.map(|(_, rest)| rest.replace('"', "")).collect()
        };
        let one = |text: &str| BTreeSet::from([text.to_owned()]);
        assert_eq!(all("FROM"), one(&format!("scratch AS {name}")));
        assert_eq!(all("COPY"), one(&format!("--from=files /out/{name}/ /")));
        assert_eq!(all("USER"), one(&config.user));
        assert_eq!(all("WORKDIR"), one(&config.working_dir));
        assert_eq!(
            all("ENTRYPOINT"),
            one(&format!("[{}]", config.entrypoint.join(", ")))
        );
        assert_eq!(all("ENV"), config.env.into_iter().collect());
        let labels = config
            .labels
            .iter()
            .map(|(key, value)| format!("{key}={value}"));
        assert_eq!(all("LABEL"), labels.collect());
    }
}

#[test]
fn the_flake_evaluates_and_makes_the_declared_images() {
    let share = tempfile::tempdir().unwrap();
    for path in [
        "flake.nix",
        "Cargo.toml",
        "Cargo.lock",
        "e2e/images.json",
        "crd/src/run.rs",
    ] {
        let to = share.path().join("firn").join(path);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(Path::new(WORKSPACE).join(path), to).unwrap();
    }
    let nixpkgs = share.path().join("nixpkgs");
    fs::create_dir(&nixpkgs).unwrap();
    let stub = Path::new(WORKSPACE).join("e2e/tests/parts/images/nixpkgs.nix");
    fs::copy(stub, nixpkgs.join("flake.nix")).unwrap();
    let script = r#"
        mkdir -p /nix/store /nix/var/nix; cd /tmp
        with="--override-input nixpkgs path:/tmp/share/nixpkgs --no-write-lock-file path:/tmp/share/firn"
        nix flake check --quiet --no-build --all-systems $with > check.log 2>&1 || { cat check.log; exit 1; }
        nix eval --quiet --json $with#packages.x86_64-linux --apply 'packages:
          let image = name: let a = packages.${name}.arguments; in
            { inherit (a) name tag created config extraCommands; script = a.copyToRoot.arguments.script; };
          in { names = builtins.attrNames packages; operator = image "operator-image"; builder = image "builder-image"; }' \
          2> eval.log || { cat eval.log; exit 1; }"#;
    let (success, text) = run_in("builder", share.path(), &["sh", "-euc", script]);
    assert!(success, "{text}");
    let json: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    let names = [
        "builder-image",
        "default",
        "firn-operator",
        "firn-streamer",
        "operator-image",
    ];
    assert_eq!(json["names"], serde_json::json!(names));
    for (name, image) in Declaration::committed().unwrap().images {
        let made = &json[&name];
        let config = image::config(&name, &image, VERSION);
        assert_eq!(
            made["config"],
            serde_json::to_value(config).unwrap(),
            "{name}"
        );
        assert_eq!(made["tag"], VERSION);
        let script = made["script"].as_str().unwrap();
        for program in image.programs.iter().chain([&image.binary]) {
            let file = program.rsplit('/').next().unwrap();
            assert!(script.contains(file), "{name}: {file} is not in\n{script}");
        }
        makes_what_is_declared(&image, made["extraCommands"].as_str().unwrap());
    }
}

/// Runs the script that fills the flake's image in an empty folder and looks at what is there.
fn makes_what_is_declared(image: &Image, script: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    let root = tempfile::tempdir().unwrap();
    succeed(
        Command::new("sh")
            .args(["-euc", script])
            .current_dir(root.path()),
    );
    let at = |path: &str| root.path().join(path.trim_start_matches('/'));
    for (path, mode) in &image.directories {
        assert_eq!(
            fs::metadata(at(path)).unwrap().permissions().mode() & 0o7777,
            *mode,
            "{path}"
        );
    }
    for (path, text) in &image.links {
        assert_eq!(fs::read_link(at(path)).unwrap(), Path::new(text), "{path}");
    }
    for (path, lines) in &image.files {
        let text = lines
            .iter()
            .fold(String::new(), |text, line| text + line + "\n");
        assert_eq!(fs::read_to_string(at(path)).unwrap(), text, "{path}");
    }
}
