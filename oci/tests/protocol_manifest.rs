//! Manifests, tags and presence against the fake registry; retries and their limits.
#![expect(
    clippy::unwrap_used,
    reason = "helpers; clippy allows it in test functions only"
)]

use std::time::Duration;

use firn_oci::registry::{Deletion, Error, Limits, ManifestName, Registry, RegistrySettings};
use firn_oci::testing::{Answer, FakeRegistry};
use firn_oci::{Digest, Document, Index, Repository, media_type};

fn repository() -> Repository {
    "team/app".parse().unwrap()
}

fn tag(name: &str) -> ManifestName {
    ManifestName::Tag(name.parse().unwrap())
}

fn document() -> Document {
    Document::new(media_type::INDEX, Index::new(Vec::new()).to_bytes())
}

async fn started() -> (FakeRegistry, Registry) {
    let fake = FakeRegistry::start().await.unwrap();
    let registry = fake.client().unwrap();
    registry.ping().await.unwrap();
    fake.forget();
    (fake, registry)
}

#[tokio::test]
async fn a_manifest_comes_back_as_it_went() {
    let (fake, registry) = started().await;
    let document = document();
    let digest = document.descriptor.digest;
    registry
        .put_manifest(&repository(), &tag("v1"), &document)
        .await
        .unwrap();
    assert_eq!(fake.seen().len(), 1);
    for name in [tag("v1"), ManifestName::Digest(digest)] {
        let got = registry
            .get_manifest(&repository(), &name)
            .await
            .unwrap()
            .unwrap();
        assert_eq!(got, document);
        let head = registry
            .head_manifest(&repository(), &name)
            .await
            .unwrap()
            .unwrap();
        assert_eq!(head, document.descriptor);
    }
    assert_eq!(fake.seen().len(), 5);
    assert!(
        registry
            .get_manifest(&repository(), &tag("v2"))
            .await
            .unwrap()
            .is_none()
    );
    assert!(
        registry
            .head_manifest(&repository(), &tag("v2"))
            .await
            .unwrap()
            .is_none()
    );
}

#[tokio::test]
async fn a_head_without_headers_is_followed_by_a_read() {
    let (fake, registry) = started().await;
    registry
        .put_manifest(&repository(), &tag("v1"), &document())
        .await
        .unwrap();
    fake.fault("HEAD", "/manifests/", Answer::Status(200, vec![], ""));
    let head = registry
        .head_manifest(&repository(), &tag("v1"))
        .await
        .unwrap();
    assert_eq!(head, Some(document().descriptor));
}

#[tokio::test]
async fn a_manifest_that_is_not_what_its_digest_says_is_refused() {
    let (fake, registry) = started().await;
    let name = ManifestName::Digest(Digest::of(b"something else"));
    fake.fault("GET", "/manifests/", Answer::Status(200, vec![], "{}"));
    let error = registry
        .get_manifest(&repository(), &name)
        .await
        .unwrap_err();
    assert!(matches!(error, Error::DigestMismatch { .. }), "{error}");
}

#[tokio::test]
async fn a_truncated_answer_is_read_again() {
    let (fake, registry) = started().await;
    registry
        .put_manifest(&repository(), &tag("v1"), &document())
        .await
        .unwrap();
    fake.fault("GET", "/manifests/", Answer::Truncated);
    let got = registry
        .get_manifest(&repository(), &tag("v1"))
        .await
        .unwrap();
    assert_eq!(got, Some(document()));
    assert_eq!(fake.count("GET", "/manifests/"), 2);
}

#[tokio::test]
async fn a_tag_whose_put_was_lost_is_looked_up_before_it_is_moved_again() {
    let (fake, registry) = started().await;
    fake.fault("PUT", "/manifests/", Answer::DoneBut(504));
    registry
        .put_manifest(&repository(), &tag("v1"), &document())
        .await
        .unwrap();
    assert_eq!((fake.count("PUT", ""), fake.count("HEAD", "")), (1, 1));
    fake.fault("PUT", "/manifests/", Answer::Status(504, vec![], ""));
    registry
        .put_manifest(&repository(), &tag("v2"), &document())
        .await
        .unwrap();
    assert_eq!((fake.count("PUT", ""), fake.count("HEAD", "")), (3, 2));
}

#[tokio::test]
async fn refusals_of_a_manifest_are_told_apart() {
    let (fake, registry) = started().await;
    let mut messages = Vec::new();
    for (status, code, message) in [
        (400, "MANIFEST_INVALID", "manifest invalid"),
        (415, "", ""),
        (413, "SIZE", "too large"),
        (
            400,
            "ImageTagAlreadyExistsException",
            "The image tag 'v1' already exists and cannot be overwritten because the repository is immutable.",
        ),
        (412, "PRECONDITION", "matched the immutable tag rule"),
        (403, "DENIED", "tag is immutable"),
        (404, "MANIFEST_BLOB_UNKNOWN", "blob unknown to registry"),
        (400, "MANIFEST_BLOB_UNKNOWN", "blob unknown to registry"),
        (404, "NAME_UNKNOWN", "repository name not known to registry"),
    ] {
        let body = format!(r#"{{"errors":[{{"code":"{code}","message":"{message}"}}]}}"#);
        fake.fault(
            "PUT",
            "/manifests/",
            Answer::Status(status, vec![], body.leak()),
        );
        let error = registry
            .put_manifest(&repository(), &tag("v1"), &document())
            .await
            .unwrap_err();
        let kinds = [
            (error.is_auth(), "auth"),
            (error.is_manifest_rejected(), "rejected"),
            (error.is_tag_immutable(), "immutable"),
            (error.is_blob_unknown(), "blob unknown"),
            (error.is_not_found(), "not found"),
            (error.is_retryable(), "retryable"),
        ];
        let kinds: Vec<&str> = kinds
            .iter()
            .filter(|(is, _)| *is)
            .map(|(_, kind)| *kind)
            .collect();
        let shown = error.to_string().replace(fake.host().as_str(), "HOST");
        messages.push(format!("{}: {shown}\n", kinds.join(", ")));
    }
    expect_test::expect![[r#"
        rejected: failed to push a manifest in repository "team/app" of registry "HOST": it answered 400 Bad Request ("MANIFEST_INVALID: manifest invalid"); check that the registry takes OCI manifests
        rejected: failed to push a manifest in repository "team/app" of registry "HOST": it answered 415 Unsupported Media Type; check that the registry takes OCI manifests
        rejected: failed to push a manifest in repository "team/app" of registry "HOST": it answered 413 Payload Too Large ("SIZE: too large"); a proxy before the registry limits the size of requests: raise its limit
        immutable: failed to push a manifest in repository "team/app" of registry "HOST": it answered 400 Bad Request ("ImageTagAlreadyExistsException: The image tag 'v1' already exists and cannot be overwritten because the repository is immutable."); choose another tag, or let the registry move this one
        immutable: failed to push a manifest in repository "team/app" of registry "HOST": it answered 412 Precondition Failed ("PRECONDITION: matched the immutable tag rule"); choose another tag, or let the registry move this one
        immutable: failed to push a manifest in repository "team/app" of registry "HOST": it answered 403 Forbidden ("DENIED: tag is immutable"); choose another tag, or let the registry move this one
        blob unknown, not found: failed to push a manifest in repository "team/app" of registry "HOST": it answered 404 Not Found ("MANIFEST_BLOB_UNKNOWN: blob unknown to registry"); a layer or manifest was removed from the registry meanwhile: push again
        blob unknown: failed to push a manifest in repository "team/app" of registry "HOST": it answered 400 Bad Request ("MANIFEST_BLOB_UNKNOWN: blob unknown to registry"); a layer or manifest was removed from the registry meanwhile: push again
        not found: failed to push a manifest in repository "team/app" of registry "HOST": it answered 404 Not Found ("NAME_UNKNOWN: repository name not known to registry"); create the repository, or check its name: this registry does not make it by itself
    "#]].assert_eq(&messages.concat());
}

#[tokio::test]
async fn rate_limits_are_waited_for_as_long_as_they_ask() {
    let (fake, registry) = started().await;
    let headers = vec![("retry-after", "1".to_owned())];
    fake.fault("HEAD", "/blobs/", Answer::Status(429, headers, ""));
    let since = std::time::Instant::now();
    assert!(
        !registry
            .head_blob(&repository(), &Digest::of(b""))
            .await
            .unwrap()
    );
    assert!(since.elapsed() >= Duration::from_secs(1));
    assert_eq!(fake.seen().len(), 2);
}

#[tokio::test]
async fn a_rate_limit_beyond_the_budget_is_an_error_at_once() {
    let (fake, registry) = started().await;
    let headers = vec![("retry-after", "86400".to_owned())];
    fake.fault("HEAD", "/blobs/", Answer::Status(429, headers, ""));
    let error = registry
        .head_blob(&repository(), &Digest::of(b""))
        .await
        .unwrap_err();
    assert!(error.is_rate_limited() && !error.is_unavailable());
    assert_eq!(error.retry_after(), Some(Duration::from_secs(86_400)));
    assert_eq!(fake.seen().len(), 1);
}

#[tokio::test]
async fn a_registry_that_stays_broken_is_given_up_after_the_budget() {
    let fake = FakeRegistry::start().await.unwrap();
    for _ in 0..1000 {
        fake.fault(
            "GET",
            "/v2/",
            Answer::Status(503, vec![], "<html>\n down </html>"),
        );
    }
    let registry = Registry::new(RegistrySettings {
        limits: Limits {
            retry_budget: Duration::from_millis(100),
            ..fake.settings().limits
        },
        ..fake.settings()
    })
    .unwrap();
    let error = registry.ping().await.unwrap_err();
    assert!(error.is_unavailable());
    assert!(
        (2..20).contains(&fake.seen().len()),
        "{}",
        fake.seen().len()
    );
    let shown = error.to_string().replace(fake.host().as_str(), "HOST");
    expect_test::expect![[r#"failed to ask for the API of registry "HOST": it answered 503 Service Unavailable ("<html> down </html>"); this is a fault of the registry: try again later or look at its log"#]].assert_eq(&shown);
}

#[tokio::test]
async fn nobody_at_home_is_unavailable() {
    let fake = FakeRegistry::start().await.unwrap();
    let settings = RegistrySettings {
        limits: Limits {
            retry_budget: Duration::ZERO,
            ..fake.settings().limits
        },
        ..fake.settings()
    };
    let host = fake.host().to_string();
    drop(fake);
    let registry = Registry::new(settings).unwrap();
    // The port closes with the server's task, a moment after it is dropped.
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    let error = loop {
        match registry.ping().await {
            Err(error) => break error,
            Ok(()) => assert!(std::time::Instant::now() < deadline, "it is still there"),
        }
    };
    assert!(error.is_unavailable() && error.is_retryable());
    let shown = error.to_string().replace(&host, "HOST");
    expect_test::expect![[r#"failed to ask for the API of registry "HOST": no connection to it; check its name and port, that it runs, and proxies and network policies on the way"#]].assert_eq(&shown);
}

#[tokio::test]
async fn presence_is_one_request() {
    let (fake, registry) = started().await;
    let digest = fake.put_blob("team/app", "layer");
    assert!(registry.head_blob(&repository(), &digest).await.unwrap());
    assert!(registry.probe_blob(&repository(), &digest).await.unwrap());
    assert!(
        !registry
            .probe_blob(&repository(), &Digest::of(b""))
            .await
            .unwrap()
    );
    assert_eq!(fake.seen().len(), 3);
}

#[tokio::test]
async fn a_blob_that_only_its_descriptor_remembers_is_not_there() {
    let (fake, registry) = started().await;
    fake.fault("GET", "/blobs/", Answer::Status(206, vec![], ""));
    assert!(
        !registry
            .probe_blob(&repository(), &Digest::of(b"x"))
            .await
            .unwrap()
    );
}

#[tokio::test]
async fn a_config_is_read_and_compared() {
    let (fake, registry) = started().await;
    let config = Document::new(media_type::CONFIG, b"{}".to_vec());
    fake.put_blob("team/app", "{}");
    let got = registry
        .read_blob(&repository(), &config.descriptor)
        .await
        .unwrap();
    assert_eq!(got, config.bytes);
    fake.fault("GET", "/blobs/", Answer::Status(200, vec![], "[]"));
    let error = registry
        .read_blob(&repository(), &config.descriptor)
        .await
        .unwrap_err();
    assert!(matches!(error, Error::DigestMismatch { .. }));
}

#[tokio::test]
async fn all_pages_of_tags_are_read() {
    let (fake, registry) = started().await;
    for name in ["a", "b", "c", "d", "e"] {
        registry
            .put_manifest(&repository(), &tag(name), &document())
            .await
            .unwrap();
    }
    fake.forget();
    let tags = registry.tags(&repository()).await.unwrap();
    let tags: Vec<&str> = tags.iter().map(firn_oci::Tag::as_str).collect();
    assert_eq!(tags, ["a", "b", "c", "d", "e"]);
    assert_eq!(fake.seen().len(), 3);
}

#[tokio::test]
async fn deleting_says_what_came_of_it() {
    let (fake, registry) = started().await;
    registry
        .put_manifest(&repository(), &tag("v1"), &document())
        .await
        .unwrap();
    let repository = repository();
    let v1 = tag("v1");
    assert_eq!(
        registry.delete_manifest(&repository, &v1).await.unwrap(),
        Deletion::Deleted
    );
    assert_eq!(
        registry.delete_manifest(&repository, &v1).await.unwrap(),
        Deletion::Missing
    );
    fake.fault("DELETE", "", Answer::Status(405, vec![], ""));
    assert_eq!(
        registry.delete_manifest(&repository, &v1).await.unwrap(),
        Deletion::Unsupported
    );
}

#[test]
fn ca_bundles_must_hold_certificates() {
    for bundle in [
        "",
        "nonsense",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    ] {
        let settings = RegistrySettings {
            extra_ca_pem: vec![bundle.as_bytes().to_vec()],
            ..RegistrySettings::new("r.example".parse().unwrap())
        };
        let error = Registry::new(settings).unwrap_err();
        assert!(error.to_string().contains("r.example"), "{error}");
    }
}

#[tokio::test]
async fn tls_with_a_registry_that_has_none_says_so() {
    let fake = FakeRegistry::start().await.unwrap();
    let registry = Registry::new(RegistrySettings {
        plain_http: false,
        limits: Limits {
            retry_budget: Duration::ZERO,
            ..fake.settings().limits
        },
        ..fake.settings()
    })
    .unwrap();
    let error = registry.ping().await.unwrap_err();
    assert!(error.is_unavailable());
    assert!(error.to_string().contains("plain HTTP"), "{error}");
}
