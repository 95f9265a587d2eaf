//! check, push and publish against a registry that remembers every request.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use crate::made::{Package, noise, store_path};
use firn_crd::exit::Reason;
use firn_crd::output::TagPolicy;
use firn_crd::report::{Outcome, Pushed};
use firn_crd::run::{self, Compression, ImageSpec, Output, Published, Run, Timestamp, Work};
use firn_oci::testing::{Access, Answer, FakeRegistry};
use firn_streamer::failure::Result;
use firn_streamer::handoff::{self, Built, Checked, Fetched, Image};
use firn_streamer::paths::Paths;
use firn_streamer::settings::Settings;
use firn_streamer::stages::Stages;
use firn_streamer::stop::Stop;
use firn_streamer::store_path::StorePath;
use firn_streamer::target::{PUSH_PATIENCE, Target};
use firn_streamer::{check, publish, push};

#[path = "push/bases.rs"]
mod bases;
#[path = "push/index.rs"]
mod index;
#[path = "push/others.rs"]
mod others;
#[path = "push/poison.rs"]
mod poison;
#[path = "push/tags.rs"]
mod tags;

const REPOSITORY: &str = "team/app";

/// A pod's folders and a registry.
struct Pod {
    root: tempfile::TempDir,
    registry: FakeRegistry,
    packages: Vec<Package>,
    published: Option<Published>,
    tags: Vec<String>,
    tag_policy: TagPolicy,
    /// Digests that the operator names as published before.
    ours: Vec<String>,
    level: Option<u8>,
    /// Published before that.
    earlier: Vec<String>,
    platform: &'static str,
    temporary_tag: Option<String>,
    base_plain_http_hosts: Vec<String>,
    config: firn_crd::container::Container,
    files: firn_crd::files::Files,
}

impl Pod {
    async fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        for folder in [
            "nix/store",
            "firn/check",
            "firn/source",
            "firn/handoff",
            "tmp",
        ] {
            fs::create_dir_all(root.path().join(folder)).unwrap();
        }
        let pod = Self {
            root,
            registry: FakeRegistry::start().await.unwrap(),
            packages: (0..12)
                .map(|index| Package {
                    path: store_path(index, 0),
                    contents: noise(index, 150_000),
                    references: (0..index).rev().take(1).map(|i| store_path(i, 0)).collect(),
                })
                .collect(),
            published: None,
            tags: vec!["latest".into()],
            tag_policy: TagPolicy::Overwrite,
            ours: Vec::new(),
            level: None,
            earlier: Vec::new(),
            platform: "linux/amd64",
            temporary_tag: None,
            base_plain_http_hosts: Vec::new(),
            config: firn_crd::container::Container::default(),
            files: firn_crd::files::Files::default(),
        };
        for package in &pod.packages {
            pod.write(package);
        }
        pod.hand_off();
        pod
    }

    fn paths(&self) -> Paths {
        Paths::new(self.root.path())
    }

    fn write(&self, package: &Package) {
        package.write(&self.paths().store(), 0o444, 0o555, false);
    }

    fn out_path(&self) -> StorePath {
        self.packages.last().unwrap().path.clone()
    }

    fn drv_path(&self) -> StorePath {
        let name = format!("{}.drv", self.out_path().base_name());
        StorePath::of_base_name(&name).unwrap()
    }

    /// What check, fetch and build leave.
    fn hand_off(&self) {
        let paths = self.paths();
        let published = self.published.as_ref().map(|p| p.digest.clone());
        handoff::write(&paths.checked(), &Checked { published }).unwrap();
        let fetched = Fetched {
            commit: "c".repeat(40),
            commit_time: "2024-01-01T00:00:00Z".parse().unwrap(),
            lock_hash: None,
        };
        handoff::write(&paths.fetched(), &fetched).unwrap();
        let image = Image {
            drv_path: self.drv_path(),
            out_path: Some(self.out_path()),
            entry_point: Some(format!("{}/bin/run", self.out_path())),
            has_bin: true,
            description: None,
            note: None,
            closure: self
                .packages
                .iter()
                .map(|p| (p.path.clone(), p.info()))
                .collect(),
        };
        self.hand_off_built(&Built::Image(Box::new(image)));
    }

    /// As if the attribute were an image description.
    fn hand_off_described(&self, document: &str) {
        self.hand_off_described_with(document, Vec::new());
    }

    /// The same, with more store paths that it mentions.
    fn hand_off_described_with(
        &self,
        document: &str,
        more: Vec<(StorePath, firn_streamer::closure::PathInfo)>,
    ) {
        let image = Image {
            drv_path: self.drv_path(),
            out_path: None,
            entry_point: None,
            has_bin: false,
            description: Some(document.to_owned()),
            note: None,
            closure: self
                .packages
                .iter()
                .map(|p| (p.path.clone(), p.info()))
                .chain(more)
                .collect(),
        };
        self.hand_off_built(&Built::Image(Box::new(image)));
    }

    fn hand_off_built(&self, built: &Built) {
        handoff::write(&self.paths().built(), built).unwrap();
    }

    fn build(&self) -> run::Build {
        run::Build {
            platform: self.platform.into(),
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
                labels: BTreeMap::from([("color".into(), "blue".into())]),
                annotations: BTreeMap::from([("com.example.note".into(), "x".into())]),
                timestamp: Timestamp::Epoch,
                max_layers: 10,
                compression: Compression::Zstd,
                level: self.level,
                config: self.config.clone(),
                files: self.files.clone(),
                ..ImageSpec::default()
            },
            published: self.published.clone(),
            layers_from: self
                .published
                .iter()
                .map(|p| &p.digest)
                .chain(&self.earlier)
                .map(|digest| format!("{}/{REPOSITORY}@{digest}", self.registry.host()))
                .collect(),
            substituters: Vec::new(),
            trusted_public_keys: Vec::new(),
            timeout_seconds: 60,
        }
    }

    fn settings(&self) -> Settings {
        Settings {
            run: Run {
                contract: run::CONTRACT,
                build: "app-1".into(),
                output: Output {
                    repository: format!("{}/{REPOSITORY}", self.registry.host()),
                    tags: self.tags.clone(),
                    tag_policy: self.tag_policy,
                    ours: self.ours.clone(),
                    temporary_tag: self.temporary_tag.clone(),
                    plain_http: true,
                    base_plain_http_hosts: self.base_plain_http_hosts.clone(),
                },
                work: Work::Build(Box::new(self.build())),
            },
            paths: self.paths(),
            proxies: BTreeMap::new(),
            search_path: String::new(),
            cluster_ca: PathBuf::from("/nonexistent"),
            system_ca: None,
            memory_limit: None,
        }
    }

    async fn try_push(&self) -> Result<Outcome> {
        let (_never, stop) = Stop::never();
        push::push(
            &self.settings(),
            &self.build(),
            &mut Stages::default(),
            &stop,
        )
        .await
    }

    async fn push(&self) -> Pushed {
        match self.try_push().await.unwrap() {
            Outcome::Pushed(pushed) => *pushed,
            other => panic!("{other:?}"),
        }
    }

    /// The next push knows this one.
    fn publish(&mut self, pushed: &Pushed) {
        self.published = Some(Published {
            digest: pushed.digest.clone(),
            drv_path: pushed.drv_path.clone(),
            index: None,
        });
        self.hand_off();
    }

    fn tagged(&self, tag: &str) -> Option<String> {
        let bytes = self.registry.manifest(REPOSITORY, tag)?;
        Some(firn_oci::Digest::of(&bytes).to_string())
    }

    /// The last package gets other contents, and with it another path.
    fn change(&mut self) {
        let last = self.packages.last_mut().unwrap();
        last.path = store_path(11, 1);
        last.contents.reverse();
        self.write(self.packages.last().unwrap());
        self.hand_off();
    }
}

#[tokio::test]
async fn the_first_push_sends_everything_and_the_tag_last() {
    let pod = Pod::new().await;
    let pushed = pod.push().await;
    assert!(pushed.layers_total > 3);
    assert_eq!(pushed.layers_pushed, pushed.layers_total);
    assert_eq!(pushed.bytes_pushed, pushed.size_bytes);
    assert_eq!(pod.tagged("latest"), Some(pushed.digest.clone()));
    let last = pod.registry.seen().pop().unwrap();
    assert_eq!(
        (last.method.as_str(), last.path.as_str()),
        ("PUT", "/v2/team/app/manifests/latest")
    );
    assert_eq!(pod.registry.open_uploads(), 0);
    // For each blob whether it is there, where to, and itself; and as when nothing changed.
    let blobs = usize::try_from(pushed.layers_total).unwrap() + 1;
    assert_eq!(
        pod.registry.seen().len(),
        3 * blobs + 4,
        "{:#?}",
        pod.registry.seen()
    );
}

#[tokio::test]
async fn what_is_reported_is_what_was_sent() {
    let pod = Pod::new().await;
    let pushed = pod.push().await;
    let bodies: usize = pod
        .registry
        .seen()
        .iter()
        .filter(|seen| seen.path.contains("/blobs/"))
        .map(|seen| seen.body)
        .sum();
    assert_eq!(usize::try_from(pushed.bytes_pushed).unwrap(), bodies);
}

#[tokio::test]
async fn an_unchanged_image_is_known_without_reading_the_store() {
    let mut pod = Pod::new().await;
    let first = pod.push().await;
    pod.publish(&first);
    fs::rename(pod.paths().store(), pod.root.path().join("gone")).unwrap();
    pod.registry.forget();
    let second = pod.push().await;
    assert_eq!(second.digest, first.digest);
    assert_eq!(
        (second.layers_reused, second.bytes_pushed),
        (second.layers_total, 0)
    );
    assert_eq!(pod.registry.count("POST", ""), 0);
    // How to log in, the published manifest, the manifest by its digest, the tag.
    assert_eq!(pod.registry.seen().len(), 4, "{:#?}", pod.registry.seen());
}

#[tokio::test]
async fn blobs_that_are_there_are_not_sent_even_if_nothing_is_known() {
    let pod = Pod::new().await;
    let first = pod.push().await;
    pod.registry.forget();
    let second = pod.push().await;
    assert_eq!((&second.digest, second.bytes_pushed), (&first.digest, 0));
    assert_eq!(pod.registry.count("POST", ""), 0);
}

#[tokio::test]
async fn a_small_change_sends_one_layer() {
    let mut pod = Pod::new().await;
    let first = pod.push().await;
    pod.publish(&first);
    pod.change();
    pod.registry.forget();
    let second = pod.push().await;
    assert_eq!(
        (second.layers_pushed, second.layers_total),
        (1, first.layers_total)
    );
    // A layer and the config, one for each layer that stays, the manifest, and as when nothing changed.
    let stays = usize::try_from(second.layers_total).unwrap() - 1;
    let seen = pod.registry.seen();
    assert_eq!(seen.len(), 2 * 3 + stays + 1 + 4, "{seen:#?}");
    assert!(second.bytes_pushed < first.bytes_pushed / 3);
    assert_eq!(pod.tagged("latest"), Some(second.digest));
}

/// A change is taken back: what was published before it is known by its recipe.
#[tokio::test]
async fn a_roll_back_reads_and_sends_nothing() {
    let mut pod = Pod::new().await;
    let first = pod.push().await;
    pod.publish(&first);
    let before = pod.packages.clone();
    pod.change();
    let second = pod.push().await;
    pod.earlier = vec![first.digest.clone()];
    pod.publish(&second);
    // What did not change is known from the first of them: no other is read.
    pod.registry.forget();
    pod.push().await;
    assert_eq!(pod.registry.seen().len(), 4, "{:#?}", pod.registry.seen());

    pod.packages = before;
    pod.hand_off();
    fs::rename(pod.paths().store(), pod.root.path().join("gone")).unwrap();
    let third = pod.push().await;
    assert_eq!((&third.digest, third.bytes_pushed), (&first.digest, 0));
    assert_eq!(third.layers_reused, third.layers_total);
    assert_eq!(pod.tagged("latest"), Some(first.digest));
}

#[tokio::test]
async fn another_level_makes_other_layers_and_the_same_one_is_known() {
    let mut pod = Pod::new().await;
    let usual = pod.push().await;
    pod.publish(&usual);
    pod.level = Some(3);
    let same = pod.push().await;
    assert_eq!((same.digest, same.bytes_pushed), (usual.digest.clone(), 0));
    pod.level = Some(12);
    let other = pod.push().await;
    assert_ne!(other.digest, usual.digest);
    assert_eq!(other.layers_pushed, other.layers_total);
    pod.publish(&other);
    assert_eq!(pod.push().await.bytes_pushed, 0);
}

#[tokio::test]
async fn layers_that_were_collected_are_made_again() {
    let mut pod = Pod::new().await;
    let first = pod.push().await;
    pod.publish(&first);
    let unknown = r#"{"errors":[{"code":"MANIFEST_BLOB_UNKNOWN","message":"blob unknown"}]}"#;
    pod.registry.fault(
        "PUT",
        "/manifests/sha256",
        Answer::Status(400, Vec::new(), unknown),
    );
    assert_eq!(pod.push().await.digest, first.digest);
    assert_eq!(pod.registry.faults_left(), 0);
}

#[tokio::test]
async fn a_store_path_that_was_altered_is_refused_and_no_tag_moves() {
    let pod = Pod::new().await;
    let mut altered = pod.packages[3].clone();
    altered.contents[0] ^= 1;
    pod.write(&altered);
    let failure = pod.try_push().await.unwrap_err();
    assert_eq!(failure.reason(), Reason::StorePathInvalid);
    assert!(
        failure.0.message.contains("altered"),
        "{}",
        failure.0.message
    );
    assert_eq!(pod.tagged("latest"), None);
}

#[tokio::test]
async fn a_handoff_that_leads_elsewhere_is_refused() {
    let pod = Pod::new().await;
    let built = pod.paths().built();
    fs::rename(&built, pod.root.path().join("tmp/real.json")).unwrap();
    std::os::unix::fs::symlink(pod.root.path().join("tmp/real.json"), &built).unwrap();
    let failure = pod.try_push().await.unwrap_err();
    assert_eq!(failure.reason(), Reason::StorePathInvalid);
    assert!(pod.registry.seen().is_empty());
}

#[tokio::test]
async fn no_tag_moves_after_the_pod_was_told_to_go() {
    let pod = Pod::new().await;
    let (sender, stop) = Stop::never();
    sender.send(true).unwrap();
    let result = push::push(&pod.settings(), &pod.build(), &mut Stages::default(), &stop).await;
    assert_eq!(result.unwrap_err().reason(), Reason::PodKilled);
    assert_eq!(pod.tagged("latest"), None);
}

#[tokio::test]
async fn nothing_changed_only_moves_tags() {
    let mut pod = Pod::new().await;
    let first = pod.push().await;
    pod.publish(&first);
    pod.tags.push("v2".into());
    let drv_path = pod.drv_path();
    pod.hand_off_built(&Built::NotChanged {
        drv_path: drv_path.clone(),
    });
    pod.registry.forget();
    let outcome = pod.try_push().await.unwrap();
    assert_eq!(
        outcome,
        Outcome::NotChanged {
            drv: drv_path.to_string()
        }
    );
    assert_eq!(pod.registry.count("PUT", ""), 1);
    assert_eq!(pod.tagged("v2"), Some(first.digest));
}

#[tokio::test]
async fn a_build_cannot_claim_that_nothing_changed() {
    let mut pod = Pod::new().await;
    let first = pod.push().await;
    pod.publish(&first);
    pod.hand_off_built(&Built::NotChanged {
        drv_path: store_path(99, 0),
    });
    assert_eq!(
        pod.try_push().await.unwrap_err().reason(),
        Reason::StorePathInvalid
    );
}

#[tokio::test]
async fn a_registry_that_comes_back_is_waited_for() {
    let pod = Pod::new().await;
    for path in ["/blobs/uploads/", "/manifests/sha256", "/manifests/latest"] {
        let method = if path.contains("blobs") {
            "POST"
        } else {
            "PUT"
        };
        pod.registry
            .fault(method, path, Answer::Status(503, Vec::new(), ""));
    }
    let pushed = pod.push().await;
    assert_eq!(pod.registry.faults_left(), 0);
    assert_eq!(pod.tagged("latest"), Some(pushed.digest));
}

#[tokio::test]
async fn check_tells_what_is_still_there() {
    let mut pod = Pod::new().await;
    let first = pod.push().await;
    let gone = format!("sha256:{}", "0".repeat(64));
    for (digest, there) in [(first.digest.clone(), true), (gone, false)] {
        pod.published = Some(Published {
            digest: digest.clone(),
            drv_path: first.drv_path.clone(),
            index: None,
        });
        let passed = check::check(&pod.settings(), &pod.build()).await.unwrap();
        assert_eq!(passed, Outcome::Passed);
        let checked: Checked = handoff::read(&pod.paths().checked()).unwrap();
        assert_eq!(checked.published, there.then_some(digest));
    }
    assert_eq!(pod.registry.open_uploads(), 0);
}

#[tokio::test]
async fn check_finds_missing_credentials_at_once() {
    let pod = Pod::new().await;
    pod.registry.set_access(Access::Basic {
        username: "ada".into(),
        password: "pw".into(),
    });
    let failure = check::check(&pod.settings(), &pod.build())
        .await
        .unwrap_err();
    assert_eq!(failure.reason(), Reason::PushAuthFailed);
    assert!(
        failure.0.message.contains("pushSecretRef"),
        "{}",
        failure.0.message
    );
}

#[tokio::test]
async fn a_secret_that_is_replaced_is_read_again() {
    use base64::Engine as _;

    let pod = Pod::new().await;
    let folder = pod.paths().at(firn_crd::pod::PUSH_SECRET);
    fs::create_dir_all(&folder).unwrap();
    let log_in = |password: &str| {
        let auth = base64::engine::general_purpose::STANDARD.encode(format!("ada:{password}"));
        let auths = BTreeMap::from([(
            pod.registry.host().to_string(),
            BTreeMap::from([("auth", auth)]),
        )]);
        let config = serde_json::json!({ "auths": auths }).to_string();
        fs::write(folder.join("config.json"), config).unwrap();
    };
    log_in("old");
    let target = Target::new(&pod.settings(), PUSH_PATIENCE).unwrap();
    pod.registry.set_access(Access::Basic {
        username: "ada".into(),
        password: "new".into(),
    });
    log_in("new");
    target.registry.can_push(&target.repository).await.unwrap();
}

#[tokio::test]
async fn publish_moves_tags_to_what_is_there_only() {
    let mut pod = Pod::new().await;
    let first = pod.push().await;
    pod.tags = vec!["stable".into()];
    let (_never, stop) = Stop::never();
    let mut stages = Stages::default();
    let done = publish::publish(&pod.settings(), &first.digest, &mut stages, &stop).await;
    assert_eq!(
        done.unwrap(),
        Outcome::Published {
            digest: first.digest.clone(),
            media_type: None,
            note: None,
            kept: Vec::new(),
        }
    );
    assert_eq!(pod.tagged("stable"), Some(first.digest));
    let gone = format!("sha256:{}", "0".repeat(64));
    let failed = publish::publish(&pod.settings(), &gone, &mut stages, &stop).await;
    assert_eq!(failed.unwrap_err().reason(), Reason::ManifestRejected);
}

/// The image's config, and the digests of its layers.
fn published(pod: &Pod, digest: &str) -> (serde_json::Value, Vec<String>) {
    let manifest = pod.registry.manifest(REPOSITORY, digest).unwrap();
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
    let config = manifest["config"]["digest"].as_str().unwrap();
    let config = pod
        .registry
        .blob(REPOSITORY, &config.parse().unwrap())
        .unwrap();
    let layers = manifest["layers"].as_array().unwrap().iter();
    let layers = layers.map(|layer| layer["digest"].as_str().unwrap().to_owned());
    (serde_json::from_slice(&config).unwrap(), layers.collect())
}

#[tokio::test]
async fn an_image_upon_another_has_its_layers_below_and_what_it_inherits() {
    let pod = Pod::new().await;
    let below = &pod.packages[1].path;
    pod.hand_off_described(&format!(
        r#"{{"firnImage":1,"config":{{"entrypoint":["{below}/bin/run"],"env":{{"PATH":"/bin"}},"cmd":["b"]}}}}"#
    ));
    let base = pod.push().await;
    let (base_config, base_layers) = published(&pod, &base.digest);
    let own = &pod.packages[2].path;
    let document = format!(
        r#"{{"firnImage":1,"contents":["{own}"],"config":{{"env":{{"A":"1"}},"cmd":["x"]}},
            "remove":["/etc/motd"],"base":{{"image":"{}/{REPOSITORY}@{}"}}}}"#,
        pod.registry.host(),
        base.digest
    );
    pod.hand_off_described(&document);
    let upon = pod.push().await;
    let (config, layers) = published(&pod, &upon.digest);
    assert_eq!(layers[..base_layers.len()], base_layers);
    assert!(layers.len() > base_layers.len() + 1);
    assert_eq!(
        config["config"]["Entrypoint"],
        base_config["config"]["Entrypoint"]
    );
    assert_eq!(config["config"]["Cmd"][0], "x");
    let env = config["config"]["Env"].as_array().unwrap();
    assert!(env[0].as_str().unwrap().starts_with("PATH="), "{env:?}");
    assert_eq!(env.last().unwrap(), "A=1");
    assert_eq!(config["history"].as_array().unwrap().len(), layers.len());
    // Everything of the base was there.
    assert!(upon.layers_reused >= base.layers_total, "{upon:?}");
}

#[tokio::test]
async fn a_base_image_that_is_not_there_is_the_user_s_to_correct() {
    let pod = Pod::new().await;
    for (name, words) in [
        (
            "HOST/team/none@sha256:0000000000000000000000000000000000000000000000000000000000000000",
            "is not there",
        ),
        ("HOST/team/app:latest", "has no digest"),
        ("nonsense", "nonsense"),
    ] {
        let name = name.replace("HOST", &pod.registry.host().to_string());
        let document = format!(r#"{{"firnImage":1,"base":{{"image":"{name}"}}}}"#);
        pod.hand_off_described(&document);
        let failure = pod.try_push().await.unwrap_err();
        assert_eq!(failure.reason(), Reason::ImageInvalid);
        assert!(failure.0.message.contains(words), "{}", failure.0.message);
    }
}
