//! The same closure gives the same image whoever pushes it and wherever: the real program, started
//! by other users with other umasks, time zones, locales, host names, folders and processors, on
//! other file systems, pushes into empty repositories.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::Path;
use std::process::Output;

use crate::made::{Package, noise, store_path};
use firn_crd::output::TagPolicy;
use firn_crd::report::{Outcome, Pushed, Report};
use firn_crd::run::{self, Compression, ImageSpec, Run, Timestamp, Work};
use firn_oci::testing::FakeRegistry;
use firn_streamer::handoff::{self, Built, Checked, Fetched, Image};
use firn_streamer::paths::Paths;
use firn_streamer::store_path::StorePath;
use tokio::process::Command;

/// Where and by whom the program is run.
struct Surroundings {
    user: u32,
    /// Who owns the store, as build's user does in a pod.
    owner: u32,
    /// Of files, and of programs and folders.
    modes: (u32, u32),
    backwards: bool,
    umask: &'static str,
    host: &'static str,
    variables: [(&'static str, &'static str); 3],
    /// Where it is started, below its root.
    folder: &'static str,
    /// On one processor alone.
    alone: bool,
}

const POD: Surroundings = Surroundings {
    user: 65_101,
    owner: 65_100,
    modes: (0o444, 0o555),
    backwards: false,
    umask: "022",
    host: "web-1-amd64-x7k2p",
    variables: [("TZ", "UTC"), ("LC_ALL", "C"), ("HOME", "/tmp")],
    folder: "",
    alone: true,
};

const SOMEBODY: Surroundings = Surroundings {
    user: 4_242,
    owner: 4_242,
    modes: (0o600, 0o700),
    backwards: true,
    umask: "077",
    host: "elsewhere",
    variables: [
        ("TZ", "Pacific/Kiritimati"),
        ("LC_ALL", "tr_TR.UTF-8"),
        ("HOME", "/nonexistent"),
    ],
    folder: "nix/store",
    alone: false,
};

#[tokio::test]
async fn whoever_pushes_a_closure_and_wherever_the_digest_is_the_same() {
    let registry = FakeRegistry::start().await.unwrap();
    let disk = tempfile::tempdir().unwrap();
    // Another file system where there is one: it lists its folders in another order.
    let shm = Path::new("/dev/shm");
    let memory = if shm.is_dir() {
        tempfile::tempdir_in(shm).unwrap()
    } else {
        tempfile::tempdir().unwrap()
    };
    for compression in [Compression::Zstd, Compression::Gzip] {
        let mut digests = Vec::new();
        for (root, surroundings) in [(disk.path(), &POD), (memory.path(), &SOMEBODY)] {
            let repository = format!("{compression:?}/{}", surroundings.host).to_lowercase();
            let root = root.join(format!("{compression:?}"));
            make_pod(&root, surroundings);
            let run = orders(&registry, &repository, compression);
            let pushed = pushed(&root, &push(&root, surroundings, &run).await);
            assert!(pushed.layers_total > 3);
            assert_eq!(pushed.layers_pushed, pushed.layers_total, "not empty");
            digests.push(pushed.digest);
        }
        assert_eq!(digests[0], digests[1], "{compression:?}");
    }
}

/// A pod's folders after check, fetch and build.
fn make_pod(root: &Path, surroundings: &Surroundings) {
    let paths = Paths::new(root);
    for folder in [
        "nix/store",
        "firn/check",
        "firn/source",
        "firn/handoff",
        "tmp",
        "dev",
    ] {
        fs::create_dir_all(root.join(folder)).unwrap();
    }
    let mut packages: Vec<Package> = (0..12)
        .map(|index| Package {
            path: store_path(index, 0),
            contents: noise(index, 1000 + index * 40_000),
            references: (0..index).rev().take(1).map(|i| store_path(i, 0)).collect(),
        })
        .collect();
    hand_off(&paths, &packages);
    if surroundings.backwards {
        packages.reverse();
    }
    let (read, execute) = surroundings.modes;
    for package in &packages {
        package.write(&paths.store(), read, execute, surroundings.backwards);
    }
    // The user may not be able to look into the folder that cargo builds in.
    fs::copy(env!("CARGO_BIN_EXE_firn-streamer"), root.join("streamer")).unwrap();
    if is_root() {
        give_away(root, surroundings.user, execute);
        give_away(&paths.store(), surroundings.owner, execute);
    }
    let mut above = root.parent();
    while let Some(folder) = above.filter(|folder| folder.parent() != Some(Path::new("/"))) {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
        above = folder
            .parent()
            .filter(|folder| *folder != Path::new("/dev/shm"));
    }
}

fn hand_off(paths: &Paths, packages: &[Package]) {
    let fetched = Fetched {
        commit: "c".repeat(40),
        commit_time: "2024-01-01T00:00:00Z".parse().unwrap(),
        lock_hash: None,
    };
    let out_path = packages.last().unwrap().path.clone();
    let image = Image {
        drv_path: StorePath::of_base_name(&format!("{}.drv", out_path.base_name())).unwrap(),
        entry_point: Some(format!("{out_path}/bin/run")),
        out_path: Some(out_path),
        has_bin: true,
        description: None,
        note: None,
        closure: packages
            .iter()
            .map(|package| (package.path.clone(), package.info()))
            .collect(),
    };
    handoff::write(&paths.checked(), &Checked { published: None }).unwrap();
    handoff::write(&paths.fetched(), &fetched).unwrap();
    handoff::write(&paths.built(), &Built::Image(Box::new(image))).unwrap();
}

/// Gives everything below `path` to `user`, its folders with `mode`.
fn give_away(path: &Path, user: u32, mode: u32) {
    chown(path, Some(user), Some(user)).unwrap();
    if path.is_dir() {
        fs::set_permissions(path, fs::Permissions::from_mode(mode | 0o200)).unwrap();
        for entry in fs::read_dir(path).unwrap() {
            give_away(&entry.unwrap().path(), user, mode);
        }
    }
}

fn orders(registry: &FakeRegistry, repository: &str, compression: Compression) -> Run {
    Run {
        contract: run::CONTRACT,
        build: "app-1".into(),
        output: run::Output {
            repository: format!("{}/{repository}", registry.host()),
            tags: vec!["latest".into()],
            tag_policy: TagPolicy::Overwrite,
            ours: Vec::new(),
            temporary_tag: None,
            plain_http: true,
            base_plain_http_hosts: Vec::new(),
        },
        work: Work::Build(Box::new(run::Build {
            platform: "linux/amd64".into(),
            source: run::Source {
                url: "https://git.example/app".into(),
                reference: None,
                commit: "c".repeat(40),
                dir: String::new(),
                submodules: false,
                timeout_seconds: 60,
            },
            attribute: "default".into(),
            image: ImageSpec {
                labels: BTreeMap::new(),
                annotations: BTreeMap::new(),
                timestamp: Timestamp::Epoch,
                max_layers: 10,
                compression,
                ..ImageSpec::default()
            },
            published: None,
            layers_from: Vec::new(),
            substituters: Vec::new(),
            trusted_public_keys: Vec::new(),
            timeout_seconds: 60,
        })),
    }
}

/// Runs the program. Without root everything differs but user and host name.
async fn push(root: &Path, surroundings: &Surroundings, run: &Run) -> Output {
    let script = "umask $1; cd \"$2\"; [ -z \"$3\" ] || hostname $3; shift 3; exec \"$@\"";
    let mut words: Vec<OsString> = Vec::new();
    let mut add = |more: &[&str]| words.extend(more.iter().map(Into::into));
    let folder = root.join(surroundings.folder);
    let user = surroundings.user.to_string();
    if is_root() {
        add(&["unshare", "--uts"]);
    }
    add(&["sh", "-euc", script, "sh", surroundings.umask]);
    add(&[folder.to_str().unwrap()]);
    if is_root() {
        add(&[surroundings.host, "setpriv", "--reuid", &user]);
        add(&["--regid", &user, "--clear-groups"]);
    } else {
        add(&[""]);
    }
    if surroundings.alone {
        add(&["taskset", "--cpu-list", &first_processor()]);
    }
    add(&[root.join("streamer").to_str().unwrap(), "push", "--root"]);
    add(&[root.to_str().unwrap()]);
    let path = std::env::var_os("PATH").unwrap_or_default();
    Command::new(&words[0])
        .args(&words[1..])
        .env_clear()
        .env("PATH", path)
        .env("FIRN_RUN", serde_json::to_string(run).unwrap())
        .envs(surroundings.variables)
        .kill_on_drop(true)
        .output()
        .await
        .unwrap()
}

fn pushed(root: &Path, output: &Output) -> Pushed {
    let log = String::from_utf8_lossy(&output.stderr);
    let message = fs::read_to_string(root.join("dev/termination-log"));
    let message = message.unwrap_or_else(|error| panic!("{error}: {log}"));
    match Report::parse(&message).unwrap().result {
        Outcome::Pushed(pushed) => *pushed,
        other => panic!("{other:?}: {log}"),
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// One that this process may use.
fn first_processor() -> String {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let allowed = status
        .lines()
        .find_map(|line| line.strip_prefix("Cpus_allowed_list:"))
        .unwrap();
    let first = allowed.trim().split([',', '-']).next();
    first.unwrap().to_owned()
}
