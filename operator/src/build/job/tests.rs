//! Golden Jobs, and what the API server demands of them.

use expect_test::expect_file;
use k8s_openapi::api::core::v1::Container as PodContainer;

use super::super::volumes::{Bundle, Store};
use super::*;

fn order() -> Order {
    Order {
        name: "web-17-amd64".into(),
        namespace: "shop".into(),
        owner: OwnerReference {
            api_version: "firn.dev/v1alpha1".into(),
            kind: "NixImageBuild".into(),
            name: "web-17".into(),
            uid: "0b3c".into(),
            controller: Some(true),
            block_owner_deletion: Some(true),
        },
        build: "web-17".into(),
        image: Some("web".into()),
        key: Some("k3y".into()),
        queue: None,
        reason: "Revision".into(),
        platform: "linux/amd64".into(),
        run: r#"{"contract":1}"#.into(),
        containers: vec![
            Container::Check,
            Container::Fetch,
            Container::Build,
            Container::Push,
        ],
        volumes: Volumes::default(),
        resources: small("500m", "1Gi", "4Gi"),
        backoff_limit: 1,
        deadline_seconds: 9900,
        placement: Placement::default(),
        site: Site {
            builder_image: "registry.example/firn/builder@sha256:00".into(),
            ..Site::default()
        },
    }
}

fn full() -> Order {
    let bundle = |name: &str| {
        Some(Bundle {
            config_map: name.into(),
            key: "bundle.pem".into(),
        })
    };
    Order {
        volumes: Volumes {
            store: Store {
                size: Some("20Gi".into()),
                storage_class: Some("fast".into()),
            },
            source_secret: Some("git-token".into()),
            source_ca: bundle("git-ca"),
            push_secret: Some("registry-login".into()),
            base_secret: Some("base-login".into()),
            base_ca: bundle("base-ca"),
            push_ca: bundle("registry-ca"),
            substituter_ca: bundle("cache-ca"),
            cluster_ca: true,
        },
        placement: Placement {
            node_selector: [("pool".to_owned(), "builders".to_owned())].into(),
            tolerations: vec![Toleration {
                key: Some("builders".into()),
                operator: Some("Exists".into()),
                ..Toleration::default()
            }],
            affinity: Some(Affinity::default()),
            priority_class: Some("build-low".into()),
            runtime_class: Some("runc".into()),
        },
        site: Site {
            pull_secrets: vec!["firn-pull".into()],
            environment: vec![("HTTPS_PROXY".into(), "http://proxy:3128".into())],
            cluster_ca: Some("-----BEGIN CERTIFICATE-----".into()),
            ..order().site
        },
        ..order()
    }
}

fn publish() -> Order {
    Order {
        name: "web-18-publish".into(),
        containers: vec![Container::Push],
        volumes: Volumes {
            push_secret: Some("registry-login".into()),
            ..Volumes::default()
        },
        ..order()
    }
}

#[expect(clippy::needless_pass_by_value, reason = "expect_file! gives a value")]
fn golden(order: &Order, expected: expect_test::ExpectFile) {
    expected.assert_eq(&serde_yaml_ng::to_string(&job(order)).unwrap());
}

#[test]
fn the_job_of_a_public_source() {
    golden(
        &order(),
        expect_file!["../../../tests/golden/job-plain.yaml"],
    );
}

#[test]
fn the_job_with_everything_a_spec_can_ask_for() {
    golden(&full(), expect_file!["../../../tests/golden/job-full.yaml"]);
}

#[test]
fn the_job_that_only_moves_tags() {
    golden(
        &publish(),
        expect_file!["../../../tests/golden/job-publish.yaml"],
    );
}

#[test]
fn the_account_of_build_pods() {
    let expected = expect_file!["../../../tests/golden/service-account.yaml"];
    expected.assert_eq(&serde_yaml_ng::to_string(&service_account("shop")).unwrap());
}

fn containers(order: &Order) -> Vec<PodContainer> {
    let spec = job(order).spec.unwrap().template.spec.unwrap();
    spec.init_containers
        .unwrap_or_default()
        .into_iter()
        .chain(spec.containers)
        .collect()
}

#[test]
fn every_container_keeps_the_rules_of_pod_security_restricted() {
    for order in [order(), full(), publish()] {
        for container in containers(&order) {
            let context = container.security_context.unwrap();
            assert_eq!(context.allow_privilege_escalation, Some(false));
            assert_eq!(context.run_as_non_root, Some(true));
            assert_eq!(context.read_only_root_filesystem, Some(true));
            assert_eq!(context.capabilities.unwrap().drop.unwrap(), ["ALL"]);
            assert_eq!(context.seccomp_profile.unwrap().type_, "RuntimeDefault");
        }
    }
}

#[test]
fn the_failure_policy_is_one_that_the_api_server_takes() {
    for order in [order(), full(), publish()] {
        let names: Vec<_> = containers(&order).into_iter().map(|c| c.name).collect();
        for rule in failure_policy(&order.containers).rules {
            let Some(exits) = rule.on_exit_codes else {
                continue;
            };
            assert!(names.contains(&exits.container_name.unwrap()));
            assert!(!exits.values.contains(&0) && exits.values.is_sorted());
        }
    }
}

#[test]
fn quantities_are_read_as_bytes() {
    let read = |text: &str| bytes(text);
    assert_eq!(read("4Gi"), Some(4 << 30));
    assert_eq!(read("1.5Gi"), Some(3 << 29));
    assert_eq!(read("128M"), Some(128_000_000));
    assert_eq!(read("100"), Some(100));
    assert_eq!(read("half"), None);
}

#[test]
fn the_memory_limit_is_told_in_bytes() {
    let build = containers(&order())
        .into_iter()
        .find(|c| c.name == "build")
        .unwrap();
    let limit = build
        .env
        .unwrap()
        .into_iter()
        .find(|e| e.name == pod::ENV_MEMORY_LIMIT);
    assert_eq!(limit.unwrap().value.as_deref(), Some("4294967296"));
}
