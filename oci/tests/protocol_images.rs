//! Images of several platforms and what refers to them: found, published and attached, with the
//! requests it takes.
#![expect(
    clippy::unwrap_used,
    reason = "helpers; clippy allows it in test functions only"
)]

use firn_oci::registry::{Attached, Error, ManifestName, Registry};
use firn_oci::testing::{Answer, FakeRegistry, Habits};
use firn_oci::{
    BuiltImage, Descriptor, Digest, Document, ImageBuilder, Index, Platform, Repository, Tag,
    media_type,
};
use serde_json::json;

fn repository() -> Repository {
    "team/app".parse().unwrap()
}

fn tag(name: &str) -> ManifestName {
    ManifestName::Tag(name.parse().unwrap())
}

fn platform(text: &str) -> Platform {
    text.parse().unwrap()
}

async fn started() -> (FakeRegistry, Registry) {
    let fake = FakeRegistry::start().await.unwrap();
    let registry = fake.client().unwrap();
    registry.ping().await.unwrap();
    fake.forget();
    (fake, registry)
}

/// An image without layers, with its blobs in the registry.
fn image(fake: &FakeRegistry, platform: &str) -> BuiltImage {
    let built = ImageBuilder::new(platform.parse().unwrap()).build();
    fake.put_blob("team/app", built.config.bytes.clone());
    let bytes = &built.manifest.bytes;
    fake.put_manifest("team/app", "one", media_type::MANIFEST, bytes);
    built
}

fn index(entries: Vec<Descriptor>) -> Document {
    Document::new(media_type::INDEX, Index::new(entries).to_bytes())
}

fn put_index(fake: &FakeRegistry, tag: &str, document: &Document) {
    let media_type = &document.descriptor.media_type;
    fake.put_manifest("team/app", tag, media_type, &document.bytes);
}

#[tokio::test]
async fn an_index_leads_to_the_image_for_the_platform() {
    let (fake, registry) = started().await;
    let amd = image(&fake, "linux/amd64");
    let arm = image(&fake, "linux/arm64/v8");
    let mut attestation = amd.manifest.descriptor.clone();
    attestation.platform = Some(platform("unknown/unknown"));
    let document = index(vec![
        attestation,
        amd.manifest.descriptor.clone(),
        arm.manifest.descriptor.clone(),
    ]);
    put_index(&fake, "v1", &document);
    for (wanted, expected) in [
        ("linux/amd64", &amd),
        ("linux/arm64", &arm),
        ("linux/arm64/v8", &arm),
    ] {
        fake.forget();
        let found = registry
            .resolve_image(&repository(), &tag("v1"), &platform(wanted))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(found.named, document.descriptor.digest);
        assert_eq!(found.document.bytes, expected.manifest.bytes, "{wanted}");
        assert_eq!(found.config, expected.config.bytes);
        // Index, manifest, config.
        assert_eq!(fake.seen().len(), 3);
    }
    let error = registry
        .resolve_image(&repository(), &tag("v1"), &platform("linux/riscv64"))
        .await
        .unwrap_err();
    assert!(error.is_unsuitable() && !error.is_retryable());
    let shown = error.to_string().replace(fake.host().as_str(), "HOST");
    expect_test::expect![[r#"failed to find an image in repository "team/app" of registry "HOST": there is none for linux/riscv64, only for linux/amd64, linux/arm64/v8"#]].assert_eq(&shown);
}

#[tokio::test]
async fn a_manifest_by_itself_is_an_image_for_its_config_s_platform() {
    let (fake, registry) = started().await;
    let arm = image(&fake, "linux/arm64");
    let digest = arm.manifest.descriptor.digest;
    for name in [tag("one"), ManifestName::Digest(digest)] {
        let found = registry
            .resolve_image(&repository(), &name, &platform("linux/arm64/v8"))
            .await;
        assert_eq!(found.unwrap().unwrap().named, digest);
    }
    let error = registry
        .resolve_image(&repository(), &tag("one"), &platform("linux/amd64"))
        .await
        .unwrap_err();
    assert!(matches!(error, Error::NoSuchPlatform { .. }), "{error}");
    let nothing = registry
        .resolve_image(&repository(), &tag("two"), &platform("linux/amd64"))
        .await;
    assert_eq!(nothing.unwrap(), None);
}

#[tokio::test]
async fn docker_s_own_types_are_read() {
    let (fake, registry) = started().await;
    let built = image(&fake, "linux/amd64");
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": media_type::DOCKER_MANIFEST,
        "config": {
            "mediaType": media_type::DOCKER_CONFIG,
            "digest": built.config.descriptor.digest,
            "size": built.config.bytes.len(),
        },
        "layers": null,
    })
    .to_string();
    fake.put_manifest(
        "team/app",
        "m",
        media_type::DOCKER_MANIFEST,
        manifest.as_bytes(),
    );
    let list = json!({
        "schemaVersion": 2,
        "mediaType": media_type::DOCKER_INDEX,
        "manifests": [{
            "mediaType": media_type::DOCKER_MANIFEST,
            "digest": Digest::of(manifest.as_bytes()),
            "size": manifest.len(),
            "platform": {"architecture": "amd64", "os": "linux"},
        }],
    })
    .to_string();
    fake.put_manifest("team/app", "l", media_type::DOCKER_INDEX, list.as_bytes());
    for name in ["m", "l"] {
        let found = registry
            .resolve_image(&repository(), &tag(name), &platform("linux/amd64"))
            .await;
        assert_eq!(found.unwrap().unwrap().document.bytes, manifest.as_bytes());
    }
}

#[tokio::test]
async fn indexes_within_indexes_are_followed_to_a_depth() {
    let (fake, registry) = started().await;
    let built = image(&fake, "linux/amd64");
    let mut inner = index(vec![built.manifest.descriptor.clone()]);
    for depth in 1..=4 {
        put_index(&fake, &format!("d{depth}"), &inner);
        let found = registry
            .resolve_image(
                &repository(),
                &tag(&format!("d{depth}")),
                &platform("linux/amd64"),
            )
            .await;
        if depth <= 3 {
            assert_eq!(found.unwrap().unwrap().document.bytes, built.manifest.bytes);
        } else {
            let error = found.unwrap_err();
            assert!(
                error.to_string().contains("more than three deep"),
                "{error}"
            );
        }
        inner = index(vec![inner.descriptor.clone()]);
    }
}

#[tokio::test]
async fn a_wide_index_of_indexes_is_not_searched_for_ever() {
    let (fake, registry) = started().await;
    let mut entries = Vec::new();
    for number in 0..40 {
        let mut empty = Index::new(Vec::new());
        empty.annotations.insert("n".to_owned(), number.to_string());
        let empty = Document::new(media_type::INDEX, empty.to_bytes());
        put_index(&fake, &format!("e{number}"), &empty);
        entries.push(empty.descriptor);
    }
    put_index(&fake, "wide", &index(entries));
    fake.forget();
    let error = registry
        .resolve_image(&repository(), &tag("wide"), &platform("linux/amd64"))
        .await
        .unwrap_err();
    assert!(error.is_unsuitable(), "{error}");
    assert!(fake.seen().len() <= 17, "{}", fake.seen().len());
}

#[tokio::test]
async fn what_is_no_image_is_said_to_be_none() {
    let (fake, registry) = started().await;
    let signed = r#"{"schemaVersion":1,"name":"x","fsLayers":[]}"#;
    let old = "application/vnd.docker.distribution.manifest.v1+prettyjws";
    fake.put_manifest("team/app", "old", old, signed.as_bytes());
    let artifact = json!({
        "schemaVersion": 2,
        "mediaType": media_type::MANIFEST,
        "config": Descriptor::of(media_type::EMPTY, b"{}"),
        "layers": [],
    })
    .to_string();
    fake.put_manifest(
        "team/app",
        "artifact",
        media_type::MANIFEST,
        artifact.as_bytes(),
    );
    let lost = index(vec![Descriptor {
        platform: Some(platform("linux/amd64")),
        ..Descriptor::of(media_type::MANIFEST, b"lost")
    }]);
    put_index(&fake, "lost", &lost);
    for (name, expected) in [
        ("old", "schema 2"),
        ("artifact", "an artifact and no image"),
        ("lost", "a manifest that is not there"),
    ] {
        let error = registry
            .resolve_image(&repository(), &tag(name), &platform("linux/amd64"))
            .await
            .unwrap_err();
        assert!(error.is_unsuitable(), "{error}");
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[tokio::test]
async fn an_index_is_published_by_digest_before_its_tags() {
    let (fake, registry) = started().await;
    let amd = image(&fake, "linux/amd64").manifest.descriptor;
    let arm = image(&fake, "linux/arm64/v8").manifest.descriptor;
    let index = Index::of_platforms(vec![arm, amd]).unwrap();
    let tags: Vec<Tag> = vec!["v1".parse().unwrap(), "latest".parse().unwrap()];
    let pushed = registry
        .push_index(&repository(), &index, &tags)
        .await
        .unwrap();
    let puts: Vec<String> = fake
        .seen()
        .into_iter()
        .filter(|seen| seen.method == "PUT")
        .map(|seen| seen.path)
        .collect();
    let digest = pushed.descriptor.digest;
    let path = |name: &str| format!("/v2/team/app/manifests/{name}");
    assert_eq!(
        puts,
        [path(&digest.to_string()), path("v1"), path("latest")]
    );
    assert_eq!(fake.seen().len(), 5, "and a look for each manifest");
    assert_eq!(
        fake.manifest("team/app", "latest").unwrap(),
        index.to_bytes()
    );
}

#[tokio::test]
async fn an_index_of_what_is_not_there_moves_no_tag() {
    let (fake, registry) = started().await;
    let amd = image(&fake, "linux/amd64").manifest.descriptor;
    let lost = Descriptor {
        platform: Some(platform("linux/arm64")),
        ..Descriptor::of(media_type::MANIFEST, b"lost")
    };
    let index = Index::of_platforms(vec![amd, lost]).unwrap();
    let tags: Vec<Tag> = vec!["v1".parse().unwrap()];
    let error = registry
        .push_index(&repository(), &index, &tags)
        .await
        .unwrap_err();
    assert!(error.to_string().contains("push it first"), "{error}");
    assert_eq!(fake.count("PUT", ""), 0);
}

/// Something about a manifest, with its config in the registry.
fn referrer(fake: &FakeRegistry, subject: &Descriptor, kind: &str, note: &str) -> Document {
    fake.put_blob("team/app", "{}");
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": media_type::MANIFEST,
        "artifactType": kind,
        "config": Descriptor::of(media_type::EMPTY, b"{}"),
        "layers": [],
        "subject": Descriptor::new(&subject.media_type, subject.digest, subject.size),
        "annotations": {"note": note},
    });
    Document::new(media_type::MANIFEST, manifest.to_string().into_bytes())
}

#[tokio::test]
async fn referrers_are_found_with_the_api_and_without_it() {
    for referrers in [true, false] {
        let (fake, registry) = started().await;
        fake.set_habits(Habits {
            referrers,
            ..Habits::default()
        });
        let subject = image(&fake, "linux/amd64").manifest.descriptor;
        let expected = if referrers {
            Attached::Listed
        } else {
            Attached::Tagged
        };
        let mut digests = Vec::new();
        for (kind, note) in [("a/sbom", "1"), ("a/sbom", "2"), ("a/signature", "3")] {
            let document = referrer(&fake, &subject, kind, note);
            fake.forget();
            let attached = registry.attach(&repository(), &document).await.unwrap();
            assert_eq!(attached, expected);
            // By itself; without the API also: read, write, read.
            assert_eq!(fake.seen().len(), if referrers { 1 } else { 4 });
            digests.push(document.descriptor.digest);
        }
        // A second time changes nothing.
        let again = referrer(&fake, &subject, "a/signature", "3");
        registry.attach(&repository(), &again).await.unwrap();
        let list = |kind: Option<&'static str>| {
            let (registry, subject) = (registry.clone(), subject.digest);
            async move {
                let listed = registry.referrers(&repository(), &subject, kind).await;
                let mut digests: Vec<Digest> =
                    listed.unwrap().iter().map(|entry| entry.digest).collect();
                digests.sort();
                digests
            }
        };
        let sorted = |digests: &[Digest]| {
            let mut digests = digests.to_vec();
            digests.sort();
            digests
        };
        assert_eq!(list(None).await, sorted(&digests), "{referrers}");
        assert_eq!(list(Some("a/sbom")).await, sorted(&digests[..2]));
        assert_eq!(list(Some("other")).await, []);
        let all = registry
            .referrers(&repository(), &subject.digest, Some("a/signature"))
            .await
            .unwrap();
        assert_eq!(all[0].annotations["note"], "3");
        assert_eq!(
            registry
                .referrers(&repository(), &Digest::of(b"nobody"), None)
                .await
                .unwrap(),
            []
        );
    }
}

#[tokio::test]
async fn two_writers_of_a_fallback_tag_lose_nothing() {
    let (fake, registry) = started().await;
    let subject = image(&fake, "linux/amd64").manifest.descriptor;
    let documents: Vec<Document> = (0..6)
        .map(|number| referrer(&fake, &subject, "a/note", &number.to_string()))
        .collect();
    let repository = repository();
    let attach = documents
        .iter()
        .map(|document| registry.attach(&repository, document));
    for attached in futures::future::join_all(attach).await {
        assert_eq!(attached.unwrap(), Attached::Tagged);
    }
    let listed = registry
        .referrers(&repository, &subject.digest, None)
        .await
        .unwrap();
    assert_eq!(listed.len(), 6);
}

#[tokio::test]
async fn somebody_else_s_tag_is_not_overwritten() {
    let (fake, registry) = started().await;
    let built = image(&fake, "linux/amd64");
    let subject = built.manifest.descriptor.clone();
    let name = format!("sha256-{}", subject.digest.hex());
    let bytes = &built.manifest.bytes;
    fake.put_manifest("team/app", &name, media_type::MANIFEST, bytes);
    let document = referrer(&fake, &subject, "a/sbom", "1");
    let error = registry.attach(&repository(), &document).await.unwrap_err();
    assert!(error.to_string().contains("something else"), "{error}");
    assert_eq!(fake.manifest("team/app", &name).unwrap(), *bytes);
}

#[tokio::test]
async fn an_attachment_whose_answer_was_lost_is_looked_up() {
    for referrers in [true, false] {
        let (fake, registry) = started().await;
        fake.set_habits(Habits {
            referrers,
            ..Habits::default()
        });
        let subject = image(&fake, "linux/amd64").manifest.descriptor;
        let document = referrer(&fake, &subject, "a/sbom", "1");
        fake.fault("PUT", "/manifests/", Answer::DoneBut(502));
        let attached = registry.attach(&repository(), &document).await.unwrap();
        assert_eq!(attached == Attached::Listed, referrers);
    }
}

#[tokio::test]
async fn without_a_subject_nothing_is_sent() {
    let (fake, registry) = started().await;
    let built = ImageBuilder::new(platform("linux/amd64")).build();
    let error = registry
        .attach(&repository(), &built.manifest)
        .await
        .unwrap_err();
    assert!(error.to_string().contains("no subject"), "{error}");
    assert_eq!(fake.seen(), []);
}

#[tokio::test]
async fn a_tag_that_may_not_move_is_no_obstacle_where_it_shall_be() {
    let (fake, registry) = started().await;
    let built = image(&fake, "linux/amd64");
    fake.set_habits(Habits {
        immutable_tags: true,
        ..Habits::default()
    });
    registry
        .put_manifest(&repository(), &tag("one"), &built.manifest)
        .await
        .unwrap();
    let other = image(&fake, "linux/arm64");
    fake.put_manifest(
        "team/app",
        "one",
        media_type::MANIFEST,
        &built.manifest.bytes,
    );
    let error = registry
        .put_manifest(&repository(), &tag("one"), &other.manifest)
        .await
        .unwrap_err();
    assert!(error.is_tag_immutable() && !error.is_auth(), "{error}");
    assert_eq!(
        fake.manifest("team/app", "one").unwrap(),
        built.manifest.bytes
    );
}

#[tokio::test]
async fn a_registry_that_takes_no_zstd_is_told_from_one_that_takes_no_oci() {
    let (fake, registry) = started().await;
    fake.set_habits(Habits {
        zstd: false,
        ..Habits::default()
    });
    let layer = Descriptor::of(media_type::LAYER_ZSTD, b"layer");
    let config = Descriptor::of(media_type::CONFIG, b"{}");
    fake.put_blob("team/app", "layer");
    fake.put_blob("team/app", "{}");
    let manifest = firn_oci::Manifest::new(config, vec![layer]);
    let document = Document::new(media_type::MANIFEST, manifest.to_bytes());
    let error = registry
        .put_manifest(&repository(), &tag("v1"), &document)
        .await
        .unwrap_err();
    assert!(error.is_manifest_rejected());
    assert!(error.to_string().contains("`compression: Gzip`"), "{error}");
}
