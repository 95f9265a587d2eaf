//! What a build orders.

use firn_crd::build_spec::Store as StoreSpec;
use firn_crd::names::ANNOTATION_BUILD_HASH;
use firn_crd::output::LayerProfile;
use firn_crd::published::{Published, PublishedPlatform};
use firn_crd::reference::SecretRef;
use firn_crd::run::{
    CONTRACT, CONTRACT_SUBMODULES, CONTRACT_TAG_POLICY, Compression, Strategy, Work,
};
use firn_crd::{NixImageBuildStatus, NixImageStatus};
use k8s_openapi::api::core::v1::Toleration;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::super::tests::{build, image};
use super::*;

fn made(build: &NixImageBuild, image: Option<&NixImage>) -> Result<Order, Failure> {
    let known = Known {
        build,
        image,
        previous: None,
        earlier: &[],
    };
    order(known, parts(build)[0], &[], &Site::default())
}

fn ordered(build: &NixImageBuild, image: Option<&NixImage>) -> (Order, Run) {
    let order = made(build, image).unwrap();
    let run = serde_json::from_str(&order.run).unwrap();
    (order, run)
}

fn work(run: Run) -> run::Build {
    match run.work {
        Work::Build(build) => *build,
        Work::Publish { .. } | Work::Index { .. } => panic!("not a build"),
    }
}

fn published_image() -> NixImage {
    let mut image = image();
    image.status = Some(NixImageStatus {
        latest_image: Some("registry.example/web@sha256:aa".into()),
        published: Some(Published {
            digest: Some("sha256:aa".into()),
            build_hash: Some("h4sh".into()),
            platforms: vec![PublishedPlatform {
                platform: "linux/amd64".into(),
                digest: "sha256:aa".into(),
                drv_path: Some("/nix/store/x.drv".into()),
                ..PublishedPlatform::default()
            }],
            ..Published::default()
        }),
        ..NixImageStatus::default()
    });
    image
}

fn hashed(hash: &str) -> NixImageBuild {
    let mut build = build();
    build
        .annotations_mut()
        .insert(ANNOTATION_BUILD_HASH.into(), hash.into());
    build
}

#[test]
fn a_run_tells_the_pod_what_the_spec_says() {
    let mut build = build();
    let spec = &mut build.spec;
    spec.output.platforms[0].attribute = Some("web".into());
    spec.output.labels.insert("team".into(), "snow".into());
    spec.output.layers.max = 60;
    spec.output.layers.compression = Compression::Gzip;
    spec.output.layers.level = Some(9);
    spec.output.layers.head_room = 20;
    spec.output.layers.strategy = Strategy::BySize;
    spec.output.layers.profile = LayerProfile::DockerTools;
    spec.output.config.user = Some("1000".into());
    spec.output.files.tmp = Some(false);
    spec.output.plain_http = true;
    spec.output.base_plain_http_hosts = vec!["bases.example:5000".into()];
    spec.build.substituters = vec!["https://cache.example".into()];
    let (_, run) = ordered(&build, None);
    assert_eq!(run.contract, CONTRACT);
    assert_eq!(
        (run.build.as_str(), run.output.tags.as_slice()),
        ("web-17", &["latest".to_owned()][..])
    );
    assert!(run.output.plain_http);
    assert_eq!(run.output.base_plain_http_hosts, ["bases.example:5000"]);
    let work = work(run);
    assert_eq!(work.attribute, "web");
    assert_eq!(work.source.reference.as_deref(), Some("refs/heads/main"));
    assert_eq!(work.image.labels["team"], "snow");
    assert_eq!(
        (
            work.image.max_layers,
            work.image.compression,
            work.image.level
        ),
        (60, Compression::Gzip, Some(9))
    );
    assert_eq!(
        (work.image.head_room, work.image.strategy),
        (20, Strategy::BySize)
    );
    assert_eq!(work.image.profile, LayerProfile::DockerTools);
    assert_eq!(work.image.config.user.as_deref(), Some("1000"));
    assert_eq!(work.image.files.tmp, Some(false));
    assert_eq!(work.substituters, ["https://cache.example"]);
    assert_eq!(work.timeout_seconds, 3600);
}

#[test]
fn the_published_derivation_is_told_if_equal_options_gave_it() {
    let told =
        |build: &NixImageBuild, image: &NixImage| work(ordered(build, Some(image)).1).published;
    let image = published_image();
    let published = told(&hashed("h4sh"), &image).unwrap();
    assert_eq!(published.drv_path, "/nix/store/x.drv");
    assert_eq!(told(&hashed("other"), &image), None, "other options");
    let mut asked = hashed("h4sh");
    asked.spec.reasons = vec![BuildReason::Manual];
    assert_eq!(told(&asked, &image), None, "a person wants a build");
    let mut elsewhere = hashed("h4sh");
    elsewhere.spec.output.repository = "registry.example/we".into();
    assert_eq!(told(&elsewhere, &image), None, "another repository");
}

#[test]
fn layers_are_taken_over_whatever_asked_for_the_build() {
    let image = published_image();
    let mut asked = hashed("other");
    asked.spec.reasons = vec![BuildReason::Manual];
    asked.spec.output.repository = "registry.example/we".into();
    let work = work(ordered(&asked, Some(&image)).1);
    assert_eq!(work.layers_from, ["registry.example/web@sha256:aa"]);
}

/// A change that takes another back finds its layers.
#[test]
fn layers_of_the_last_published_builds_are_named_after_those_of_what_is_published() {
    let before = |digest: &str| {
        let mut build = build();
        build.status = Some(NixImageBuildStatus {
            platforms: vec![PlatformStatus {
                platform: "linux/amd64".into(),
                digest: Some(digest.into()),
                ..serde_json::from_value(serde_json::json!({
                    "platform": "linux/amd64", "state": "Succeeded"
                }))
                .unwrap()
            }],
            ..NixImageBuildStatus::default()
        });
        build
    };
    // The newest is what is published; more than three are not looked at.
    let earlier = ["sha256:aa", "sha256:bb", "sha256:cc", "sha256:dd"].map(before);
    let (build, image) = (hashed("h4sh"), published_image());
    let known = Known {
        build: &build,
        image: Some(&image),
        previous: None,
        earlier: &earlier,
    };
    let order = order(known, parts(&build)[0], &[], &Site::default()).unwrap();
    let work = work(serde_json::from_str(&order.run).unwrap());
    let names = ["aa", "bb", "cc"].map(|hex| format!("registry.example/web@sha256:{hex}"));
    assert_eq!(work.layers_from, names);
}

#[test]
fn moving_tags_takes_one_container_and_the_published_digest() {
    let mut build = build();
    build.spec.reasons = vec![BuildReason::Retag];
    let (order, run) = ordered(&build, Some(&published_image()));
    assert_eq!(order.name, "web-17-publish");
    assert_eq!(order.containers, [Container::Push]);
    assert_eq!(
        run.work,
        Work::Publish {
            digest: "sha256:aa".into()
        }
    );
    assert!(made(&build, Some(&image())).is_err());
}

#[test]
fn placement_and_store_are_those_of_the_spec() {
    let mut build = build();
    let spec = &mut build.spec.build;
    spec.runtime_class_name = Some("kata".into());
    spec.priority_class_name = Some("low".into());
    spec.tolerations = vec![Toleration::default()];
    spec.store = StoreSpec {
        storage_class_name: Some("fast".into()),
        size: Some(Quantity("20Gi".into())),
        ..StoreSpec::default()
    };
    build.spec.output.base_pull_secret_ref = Some(SecretRef {
        name: "bases".into(),
    });
    build.spec.output.base_ca_config_map_ref = Some(CaConfigMapRef {
        name: "base-ca".into(),
        key: "bundle.pem".into(),
    });
    build.spec.output.push_secret_ref = Some(SecretRef {
        name: "login".into(),
    });
    build.spec.output.platforms[0]
        .node_selector
        .insert("pool".into(), "builders".into());
    let (order, _) = ordered(&build, None);
    assert_eq!(order.placement.runtime_class.as_deref(), Some("kata"));
    assert_eq!(order.placement.priority_class.as_deref(), Some("low"));
    assert_eq!(order.placement.tolerations.len(), 1);
    assert_eq!(order.placement.node_selector["pool"], "builders");
    assert_eq!(order.volumes.store.size.as_deref(), Some("20Gi"));
    assert_eq!(order.volumes.store.storage_class.as_deref(), Some("fast"));
    assert_eq!(order.volumes.push_secret.as_deref(), Some("login"));
    assert_eq!(order.volumes.base_secret.as_deref(), Some("bases"));
    let ca = order.volumes.base_ca.unwrap();
    assert_eq!(
        (ca.config_map.as_str(), ca.key.as_str()),
        ("base-ca", "bundle.pem")
    );
}

#[test]
fn the_deadline_covers_waiting_and_every_attempt() {
    let mut build = build();
    let minutes = |build: &NixImageBuild| deadline(build, parts(build)[0]).as_secs() / 60;
    assert_eq!(minutes(&build), 15 + 2 * (15 + 60 + 20));
    build.spec.build.retries = 0;
    assert_eq!(minutes(&build), 15 + 15 + 60 + 20);
    assert_eq!(ordered(&build, None).0.backoff_limit, 0);
}

#[test]
fn labels_that_do_not_fit_are_refused_with_the_remedy() {
    let mut build = build();
    for n in 0..64 {
        build
            .spec
            .output
            .labels
            .insert(n.to_string(), "x".repeat(4000));
    }
    let failure = made(&build, None).unwrap_err();
    assert_eq!(failure.reason, Reason::NotSupported);
    assert!(failure.message.contains("shorten them"));
}

#[test]
fn whose_a_tag_is_is_told_where_the_policy_asks() {
    let mut build = build();
    let image = published_image();
    let (_, run) = ordered(&build, Some(&image));
    assert_eq!(
        (run.contract, run.output.ours.len()),
        (CONTRACT, 0),
        "nobody asks"
    );

    build.spec.output.tag_policy = TagPolicy::Fail;
    let before = |number: usize, repository: &str| {
        let mut before = super::super::tests::build();
        before.spec.output.repository = repository.into();
        before.status = Some(NixImageBuildStatus {
            digest: Some(format!("sha256:{number}")),
            ..NixImageBuildStatus::default()
        });
        before
    };
    let mut earlier = vec![before(99, "registry.example/elsewhere")];
    earlier.extend((0..30).map(|number| before(number, "registry.example/web")));
    let known = Known {
        build: &build,
        image: Some(&image),
        previous: None,
        earlier: &earlier,
    };
    let told = |part| {
        let order = order(known, part, &[], &Site::default()).unwrap();
        serde_json::from_str::<Run>(&order.run).unwrap()
    };
    let run = told(parts(&build)[0]);
    assert_eq!(run.contract, CONTRACT_TAG_POLICY);
    assert_eq!(run.output.tag_policy, TagPolicy::Fail);
    assert_eq!(run.output.ours.len(), OURS_MAX);
    assert_eq!(run.output.ours[..2], ["sha256:aa", "sha256:0"]);
    assert_eq!(told(Part::Publish).output.ours, run.output.ours);
}

#[test]
fn a_job_that_moves_no_tag_of_people_guards_none() {
    let mut build = build();
    let platform = |name: &str| Platform {
        platform: name.parse().unwrap(),
        ..Platform::default()
    };
    build.spec.output.platforms = vec![platform("linux/amd64"), platform("linux/arm64")];
    build.spec.output.tag_policy = TagPolicy::Keep;
    let (_, run) = ordered(&build, Some(&published_image()));
    assert_eq!(run.contract, CONTRACT);
    assert_eq!(run.output.tag_policy, TagPolicy::Overwrite);
}

#[test]
fn submodules_are_ordered_of_builders_that_know_them_and_of_nobody_else() {
    let mut build = build();
    let (_, run) = ordered(&build, None);
    assert_eq!(run.contract, CONTRACT);
    assert!(!work(run).source.submodules);
    build.spec.source.git.as_mut().unwrap().submodules = true;
    // The higher of two contracts counts.
    for policy in [TagPolicy::Overwrite, TagPolicy::Keep] {
        build.spec.output.tag_policy = policy;
        let (_, run) = ordered(&build, None);
        assert_eq!(run.contract, CONTRACT_SUBMODULES);
        assert!(work(run).source.submodules);
    }
}
