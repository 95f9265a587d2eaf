//! Several platforms: each pushed by its digest, then the index.

use firn_crd::run::PlatformManifest;
use firn_oci::testing::{Deletions, Habits};
use firn_oci::{Index, media_type};

use super::*;

const TEMPORARY: [&str; 2] = ["firn-web-amd64-1", "firn-web-arm64-1"];

/// Both platforms, pushed; what the publish Job is told.
async fn pushed() -> (Pod, Vec<PlatformManifest>) {
    let mut pod = Pod::new().await;
    pod.tags.clear();
    let mut manifests = Vec::new();
    for (platform, tag) in ["linux/amd64", "linux/arm64"].into_iter().zip(TEMPORARY) {
        pod.platform = platform;
        pod.temporary_tag = Some(tag.to_owned());
        let pushed = pod.push().await;
        assert_eq!(pushed.note, None);
        assert_eq!(pod.tagged(tag), Some(pushed.digest.clone()));
        manifests.push(PlatformManifest {
            platform: platform.to_owned(),
            digest: pushed.digest,
            temporary_tag: Some(tag.to_owned()),
        });
    }
    pod.temporary_tag = None;
    pod.tags = vec!["latest".into(), "v1".into()];
    assert_eq!(pod.tagged("latest"), None, "no tag that anybody uses");
    (pod, manifests)
}

async fn publish(pod: &Pod, manifests: &[PlatformManifest]) -> Result<Outcome> {
    let (_never, stop) = Stop::never();
    publish::index(&pod.settings(), manifests, &mut Stages::default(), &stop).await
}

/// Digest and note of an index.
async fn published(pod: &Pod, manifests: &[PlatformManifest]) -> (String, Option<String>) {
    match publish(pod, manifests).await.unwrap() {
        Outcome::Published {
            digest,
            media_type,
            note,
            kept,
        } => {
            assert!(kept.is_empty());
            assert_eq!(media_type.as_deref(), Some(media_type::INDEX));
            (digest, note)
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_index_names_each_platform_and_its_tags_are_the_last_thing_to_move() {
    let (pod, manifests) = pushed().await;
    let before = pod.registry.seen().len();
    // Whichever was ready first.
    let turned: Vec<_> = manifests.iter().rev().cloned().collect();
    let (digest, note) = published(&pod, &turned).await;
    assert_eq!(note, None);
    let index = pod.registry.manifest(REPOSITORY, &digest).unwrap();
    let index = Index::from_bytes(&index).unwrap();
    let entries: Vec<_> = index
        .manifests
        .iter()
        .map(|entry| {
            let size = pod.registry.manifest(REPOSITORY, &entry.digest.to_string());
            assert_eq!(entry.size, size.unwrap().len() as u64);
            assert_eq!(entry.media_type, media_type::MANIFEST);
            let platform = entry.platform.as_ref().unwrap().to_string();
            (platform, entry.digest.to_string())
        })
        .collect();
    let expected: Vec<_> = manifests
        .iter()
        .map(|made| (made.platform.clone(), made.digest.clone()))
        .collect();
    assert_eq!(entries, expected);
    let writes: Vec<_> = pod.registry.seen()[before..]
        .iter()
        .filter(|seen| !matches!(seen.method.as_str(), "GET" | "HEAD"))
        .map(|seen| {
            let name = seen.path.rsplit('/').next().unwrap_or_default().to_owned();
            format!("{} {name}", seen.method)
        })
        .collect();
    assert_eq!(
        writes,
        [
            format!("PUT {digest}"),
            format!("DELETE {}", TEMPORARY[1]),
            format!("DELETE {}", TEMPORARY[0]),
            "PUT latest".into(),
            "PUT v1".into(),
        ]
    );
    // The same again: one digest, and nothing but the index is sent.
    let writes = pod.registry.count("PUT", "");
    assert_eq!(published(&pod, &manifests).await.0, digest);
    assert_eq!(pod.registry.count("PUT", ""), writes + 1);
}

#[tokio::test]
async fn a_registry_that_keeps_temporary_tags_is_only_a_note() {
    let (pod, manifests) = pushed().await;
    pod.registry.set_habits(Habits {
        deletions: Deletions::Refused,
        ..Habits::default()
    });
    let (digest, note) = published(&pod, &manifests).await;
    assert!(note.unwrap().contains(TEMPORARY[1]));
    assert_eq!(pod.tagged("latest"), Some(digest));
    assert_eq!(
        pod.tagged(TEMPORARY[0]).as_ref(),
        Some(&manifests[0].digest)
    );
}

#[tokio::test]
async fn a_manifest_that_goes_with_its_tag_is_stored_again_before_any_tag_moves() {
    let (pod, manifests) = pushed().await;
    pod.registry.set_habits(Habits {
        deletions: Deletions::Manifest,
        ..Habits::default()
    });
    let (digest, _) = published(&pod, &manifests).await;
    let seen = pod.registry.seen();
    let place = |method: &str, name: &str| {
        seen.iter()
            .rposition(|seen| seen.method == method && seen.path.ends_with(name))
            .unwrap()
    };
    for (made, tag) in manifests.iter().zip(TEMPORARY) {
        assert!(pod.registry.manifest(REPOSITORY, &made.digest).is_some());
        assert!(place("DELETE", tag) < place("PUT", &made.digest));
        assert!(place("PUT", &made.digest) < place("PUT", "latest"));
    }
    assert_eq!(pod.tagged("latest"), Some(digest));
}

#[tokio::test]
async fn a_temporary_tag_that_points_elsewhere_is_left_alone() {
    let (pod, mut manifests) = pushed().await;
    manifests[0].temporary_tag = Some(TEMPORARY[1].into());
    manifests[1].temporary_tag = None;
    published(&pod, &manifests).await;
    assert_eq!(
        pod.tagged(TEMPORARY[1]).as_ref(),
        Some(&manifests[1].digest)
    );
    assert_eq!(pod.registry.count("DELETE", ""), 0);
}

#[tokio::test]
async fn no_tag_moves_to_an_index_of_what_is_not_there_or_is_for_another_platform() {
    let (pod, manifests) = pushed().await;
    let gone = PlatformManifest {
        digest: format!("sha256:{}", "0".repeat(64)),
        ..manifests[1].clone()
    };
    let other = PlatformManifest {
        digest: manifests[0].digest.clone(),
        ..manifests[1].clone()
    };
    for (wrong, word) in [(gone, "no longer has"), (other, "linux/arm64")] {
        let failure = publish(&pod, &[manifests[0].clone(), wrong])
            .await
            .unwrap_err();
        assert_eq!(failure.reason(), Reason::ManifestRejected);
        assert!(failure.0.message.contains(word), "{}", failure.0.message);
        assert_eq!(pod.tagged("latest"), None);
        assert_eq!(pod.registry.count("DELETE", ""), 0);
    }
}

#[tokio::test]
async fn a_pod_that_is_told_to_go_moves_no_tag_to_an_index() {
    let (pod, manifests) = pushed().await;
    let (sender, stop) = Stop::never();
    sender.send(true).unwrap();
    let done = publish::index(&pod.settings(), &manifests, &mut Stages::default(), &stop).await;
    assert!(done.is_err());
    assert_eq!(pod.tagged("latest"), None);
}

#[tokio::test]
async fn a_tag_that_may_not_be_set_is_only_a_note() {
    let mut pod = Pod::new().await;
    pod.tags.clear();
    pod.temporary_tag = Some("firn-web-amd64-1".into());
    pod.registry.set_habits(Habits {
        immutable_tags: true,
        ..Habits::default()
    });
    pod.push().await;
    pod.change();
    let again = pod.push().await;
    assert!(again.note.unwrap().contains("firn-web-amd64-1"));
    assert!(pod.registry.manifest(REPOSITORY, &again.digest).is_some());
}

#[tokio::test]
async fn a_platform_that_did_not_change_writes_nothing_and_asks_for_its_index() {
    let (mut pod, manifests) = pushed().await;
    let (digest, _) = published(&pod, &manifests).await;
    pod.tags.clear();
    pod.temporary_tag = Some(TEMPORARY[1].into());
    pod.published = Some(Published {
        digest: manifests[1].digest.clone(),
        drv_path: pod.drv_path().to_string(),
        index: Some(digest),
    });
    pod.hand_off();
    let checked = |pod: &Pod| -> Checked { handoff::read(&pod.paths().checked()).unwrap() };
    check::check(&pod.settings(), &pod.build()).await.unwrap();
    assert_eq!(checked(&pod).published.as_ref(), Some(&manifests[1].digest));
    pod.hand_off_built(&Built::NotChanged {
        drv_path: pod.drv_path(),
    });
    let writes = |pod: &Pod| {
        let seen = pod.registry.seen();
        let reads = |method: &str| matches!(method, "GET" | "HEAD");
        seen.iter()
            .filter(|seen| !reads(seen.method.as_str()))
            .count()
    };
    let before = writes(&pod);
    let outcome = pod.try_push().await.unwrap();
    assert!(matches!(outcome, Outcome::NotChanged { .. }), "{outcome:?}");
    assert_eq!(writes(&pod), before);

    if let Some(published) = &mut pod.published {
        published.index = Some(format!("sha256:{}", "0".repeat(64)));
    }
    check::check(&pod.settings(), &pod.build()).await.unwrap();
    assert_eq!(checked(&pod).published, None, "no index names it any more");
}
