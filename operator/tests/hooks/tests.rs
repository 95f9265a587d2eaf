//! Webhooks as forges send them: their headers, their bodies, signatures that openssl made.

use std::time::Duration;

use firn_operator::hooks;
use firn_operator::settings::Network;
use firn_operator::source::{Answers as _, Git, ImageKey, Observation, Query, Sources, Target};
use jiff::Timestamp;
use reqwest::{Client, StatusCode};

use crate::cluster;
use crate::server::{Access, Protocol, Repository, Server};

const GITHUB: &str = include_str!("github.json");
const GITEA: &str = include_str!("gitea.json");
const GITLAB: &str = include_str!("gitlab.json");
/// `openssl dgst -sha256 -hmac` with [`cluster::HOOK`].
const GITHUB_SIGNATURE: &str =
    "sha256=56cf162dfcdc77d0132ddbaa449f3adcb793fe837fe162a23e26d8177b632f38";
const GITEA_SIGNATURE: &str = "11d6ec8aee18d2bfd8d5278f87463e908ec94bb228a13532eb536663aa3bb718";

/// An operator's part that polls `shop/web` once a day and `shop/deaf`, which has no webhook.
struct Operator {
    sources: Sources,
    address: String,
    query: Query,
}

fn key(name: &str) -> ImageKey {
    ImageKey {
        namespace: "shop".into(),
        name: name.into(),
    }
}

impl Operator {
    async fn start(server: &Server) -> Self {
        let client = cluster::client().await;
        let sources = Sources::new_with_plain_http(client.clone(), &Network::default()).unwrap();
        let routes = hooks::router(client, sources.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, routes).await });
        let git = Git {
            url: server.url(),
            target: Target::Branch("main".into()),
            dir: ".".into(),
            secret: None,
            ca: None,
            webhook: Some("hook".into()),
            interval: Duration::from_secs(24 * 3600),
            timeout: Duration::from_secs(30),
        };
        let query = Query {
            git,
            paths: vec![],
            known: None,
            asked: None,
        };
        let operator = Self {
            sources,
            address,
            query,
        };
        let mut deaf = operator.query.clone();
        deaf.git.webhook = None;
        operator
            .sources
            .observe(&key("deaf"), &deaf, Timestamp::UNIX_EPOCH);
        let mut absent = operator.query.clone();
        absent.git.webhook = Some("absent".into());
        operator
            .sources
            .observe(&key("absent"), &absent, Timestamp::UNIX_EPOCH);
        operator
    }

    /// Waits until the source is seen at `commit`.
    async fn sees(&self, commit: &str) {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
        loop {
            let observed = self
                .sources
                .observe(&key("web"), &self.query, Timestamp::UNIX_EPOCH);
            if let Observation::Resolved { revision, .. } = &observed.observation
                && revision.commit == commit
            {
                return;
            }
            assert!(tokio::time::Instant::now() < deadline, "{observed:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn push(
        &self,
        path: &str,
        header: (&str, &str),
        body: impl Into<reqwest::Body>,
    ) -> (StatusCode, String) {
        let request = Client::new().post(format!("{}{path}", self.address));
        let answer = request
            .header(header.0, header.1)
            .body(body)
            .send()
            .await
            .unwrap();
        (answer.status(), answer.text().await.unwrap())
    }
}

#[tokio::test]
async fn each_forge_makes_the_source_be_asked_at_once() {
    for (name, value, body) in [
        ("X-Hub-Signature-256", GITHUB_SIGNATURE, GITHUB),
        ("X-Signature", GITHUB_SIGNATURE, GITHUB),
        ("X-Gitea-Signature", GITEA_SIGNATURE, GITEA),
        ("X-Forgejo-Signature", GITEA_SIGNATURE, GITEA),
        ("X-Gitlab-Token", cluster::HOOK, GITLAB),
    ] {
        let repository = Repository::new();
        let first = repository.commit(&[("flake.lock", "1")]);
        let server = Server::start(&repository, Access::Public, Protocol::V2).await;
        let operator = Operator::start(&server).await;
        operator.sees(&first).await;
        let second = repository.commit(&[("flake.lock", "2")]);
        let (status, text) = operator.push("/hooks/shop/web", (name, value), body).await;
        assert_eq!(status, StatusCode::ACCEPTED, "{name}: {text}");
        operator.sees(&second).await;
    }
}

#[tokio::test]
async fn what_proves_nothing_is_refused_without_telling_why() {
    let repository = Repository::new();
    let first = repository.commit(&[("flake.lock", "1")]);
    let server = Server::start(&repository, Access::Public, Protocol::V2).await;
    let operator = Operator::start(&server).await;
    operator.sees(&first).await;
    repository.commit(&[("flake.lock", "2")]);
    let good = ("X-Hub-Signature-256", GITHUB_SIGNATURE);
    let mut answers = Vec::new();
    for (path, header, body) in [
        ("/hooks/shop/web", good, GITLAB),
        (
            "/hooks/shop/web",
            ("X-Hub-Signature-256", "sha256=00"),
            GITHUB,
        ),
        (
            "/hooks/shop/web",
            ("X-Gitlab-Token", cluster::WRONG),
            GITHUB,
        ),
        ("/hooks/shop/web", ("X-Gitlab-Token", ""), GITHUB),
        (
            "/hooks/shop/web",
            ("Content-Type", "application/json"),
            GITHUB,
        ),
        ("/hooks/shop/deaf", good, GITHUB),
        ("/hooks/shop/absent", good, GITHUB),
        ("/hooks/shop/absent", ("X-Gitlab-Token", ""), GITHUB),
        ("/hooks/shop/nobody", good, GITHUB),
    ] {
        let (status, text) = operator.push(path, header, body).await;
        assert_eq!(
            status,
            StatusCode::UNAUTHORIZED,
            "{path} {header:?}: {text}"
        );
        answers.push(text);
    }
    answers.dedup();
    assert_eq!(answers.len(), 1, "{answers:?}");
    let observed = operator
        .sources
        .observe(&key("web"), &operator.query, Timestamp::UNIX_EPOCH);
    let Observation::Resolved { revision, .. } = observed.observation else {
        panic!("{observed:?}")
    };
    assert_eq!(revision.commit, first, "it was polled all the same");
}

#[tokio::test]
async fn a_body_larger_than_any_forges_and_a_flood_are_refused() {
    let repository = Repository::new();
    let first = repository.commit(&[("flake.lock", "1")]);
    let server = Server::start(&repository, Access::Public, Protocol::V2).await;
    let operator = Operator::start(&server).await;
    operator.sees(&first).await;
    let token = ("X-Gitlab-Token", cluster::HOOK);
    // The answer comes before the body's end, and the connection may be cut then.
    let request = Client::new().post(format!("{}/hooks/shop/web", operator.address));
    let answer = request
        .header(token.0, token.1)
        .body(vec![0; 26 << 20])
        .send()
        .await;
    assert!(answer.is_err() || answer.unwrap().status() == StatusCode::PAYLOAD_TOO_LARGE);
    let mut last = StatusCode::OK;
    for _ in 0..20 {
        last = operator.push("/hooks/shop/web", token, GITLAB).await.0;
    }
    assert_eq!(last, StatusCode::TOO_MANY_REQUESTS);
    let (status, _) = operator.push("/hooks/shop/other", token, GITLAB).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
}
