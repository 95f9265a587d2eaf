//! What was published, looked for in a registry: the fake one of `firn-oci`, with and without a
//! login and with faults. TLS is tested in the cluster.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail by panicking")]

use std::time::Duration;

use axum::Router;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use firn_oci::testing::{Access as Lock, Answer, FakeRegistry};
use firn_oci::{Digest, Index, media_type};
use firn_operator::metrics::{self, Metrics};
use firn_operator::registry::{Access, Answers as _, Found, Observation, Query, Registries};
use firn_operator::settings::Network;
use firn_operator::source::{ImageKey, Kind};
use serde_json::json;

const PASSWORD: &str = "p4ssw0rd-canary";

/// An API server that has one Secret, `login`.
async fn cluster(config: String) -> kube::Client {
    let secret = get(move |Path(name): Path<String>| {
        let (code, body) = if name == "login" {
            let data = json!({".dockerconfigjson": STANDARD.encode(&config)});
            let body = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": data});
            (StatusCode::OK, body)
        } else {
            let body = json!({"apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure", "message": "not found", "reason": "NotFound", "code": 404});
            (StatusCode::NOT_FOUND, body)
        };
        std::future::ready((code, [(CONTENT_TYPE, "application/json")], body.to_string()))
    });
    let routes = Router::new().route("/api/v1/namespaces/shop/secrets/{name}", secret);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, routes).await });
    kube::Client::try_from(kube::Config::new(url.parse().unwrap())).unwrap()
}

struct World {
    fake: FakeRegistry,
    registries: Registries,
    asked: u32,
}

impl World {
    async fn new() -> Self {
        let fake = FakeRegistry::start().await.unwrap();
        let login = STANDARD.encode(format!("robot:{PASSWORD}"));
        let host = fake.host().to_string();
        let config = json!({"auths": {host: {"auth": login}}}).to_string();
        let counted = Metrics::register(&mut metrics::registry());
        let client = cluster(config).await;
        let registries = Registries::new(client, &Network::default(), counted);
        Self {
            fake,
            registries,
            asked: 0,
        }
    }

    /// What is published: an index without entries, and its tag.
    fn publish(&self, tag: &str) -> String {
        let bytes = Index::new(Vec::new()).to_bytes();
        self.fake
            .put_manifest("web", tag, media_type::INDEX, &bytes);
        let digest = Digest::of(&bytes).to_string();
        self.fake
            .put_manifest("web", &digest, media_type::INDEX, &bytes);
        digest
    }

    /// Asks now, and waits for the answer.
    async fn ask(&mut self, digest: &str, secret: Option<&str>) -> Observation {
        self.asked += 1;
        let query = Query {
            repository: format!("{}/web", self.fake.host()),
            digest: digest.to_owned(),
            tags: vec!["latest".into(), "stable".into()],
            // Another question each time.
            since: i64::from(self.asked),
            access: Access {
                secret: secret.map(ToOwned::to_owned),
                ca: None,
                plain_http: true,
            },
            interval: Duration::from_secs(300),
            asked: Some(format!("now {}", self.asked)),
        };
        let key = ImageKey {
            namespace: "shop".into(),
            name: "web".into(),
        };
        let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
        loop {
            let observation = self.registries.observe(&key, &query);
            if observation != Observation::Pending {
                return observation;
            }
            assert!(tokio::time::Instant::now() < deadline, "no answer");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

fn found(digest: bool, latest: Option<&str>, stable: Option<&str>) -> Observation {
    let tag = |name: &str, there: Option<&str>| (name.to_owned(), there.map(ToOwned::to_owned));
    Observation::Found(Found {
        digest,
        tags: [tag("latest", latest), tag("stable", stable)].into(),
    })
}

#[tokio::test]
async fn tags_that_moved_or_went_and_an_image_that_is_gone_are_seen_and_nothing_is_written() {
    let mut world = World::new().await;
    let digest = world.publish("latest");
    world.publish("stable");
    let ours = Some(digest.as_str());
    assert_eq!(world.ask(&digest, None).await, found(true, ours, ours));
    assert_eq!(world.fake.count("HEAD", "/manifests/"), 3, "one each");

    let other = br#"{"schemaVersion":2,"manifests":[],"annotations":{"of":"others"}}"#;
    world
        .fake
        .put_manifest("web", "latest", media_type::INDEX, other);
    world.fake.remove_manifest("web", "stable");
    let theirs = Digest::of(other).to_string();
    let answer = world.ask(&digest, None).await;
    assert_eq!(answer, found(true, Some(&theirs), None));

    world.fake.remove_manifest("web", &digest);
    let answer = world.ask(&digest, None).await;
    assert_eq!(answer, found(false, Some(&theirs), None));
    let seen = world.fake.seen();
    let reads = |method: &str| ["HEAD", "GET"].contains(&method);
    assert!(seen.iter().all(|seen| reads(&seen.method)), "{seen:?}");
    assert_eq!(world.fake.count("GET", "/manifests/"), 0, "no more is read");
}

#[tokio::test]
async fn a_private_registry_is_asked_with_the_login_of_the_push() {
    let mut world = World::new().await;
    let digest = world.publish("latest");
    world.publish("stable");
    world.fake.set_access(Lock::Basic {
        username: "robot".into(),
        password: PASSWORD.into(),
    });
    let ours = Some(digest.as_str());
    let answer = world.ask(&digest, Some("login")).await;
    assert_eq!(answer, found(true, ours, ours));
    for (secret, kind) in [
        (None, Kind::AuthFailed),
        (Some("another"), Kind::SecretMissing),
    ] {
        let Observation::Unknown(failure) = world.ask(&digest, secret).await else {
            panic!("{secret:?}");
        };
        assert_eq!(failure.kind, kind);
        assert!(
            failure.message.contains("output.pushSecretRef"),
            "{failure}"
        );
        assert!(!failure.message.contains(PASSWORD), "{failure}");
    }
}

#[tokio::test]
async fn a_registry_that_does_not_answer_has_lost_nothing() {
    let mut world = World::new().await;
    let digest = world.publish("latest");
    for (status, kind) in [
        (401, Kind::AuthFailed),
        (403, Kind::AuthFailed),
        (429, Kind::RateLimited),
        (500, Kind::Unreachable),
        (503, Kind::Unreachable),
    ] {
        let answer = Answer::Status(status, vec![("retry-after", "7".into())], "");
        world.fake.fault("HEAD", "/manifests/latest", answer);
        match world.ask(&digest, None).await {
            Observation::Unknown(failure) => assert_eq!(failure.kind, kind, "{status}"),
            other => panic!("{status}: {other:?}"),
        }
    }
}
