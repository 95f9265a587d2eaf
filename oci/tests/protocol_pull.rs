//! Reading blobs against the fake registry: what is verified, what is continued, and what a copy
//! costs.
#![expect(
    clippy::unwrap_used,
    reason = "helpers; clippy allows it in test functions only"
)]

use std::time::Duration;

use firn_oci::registry::{Copied, Error, Limits, Registry, RegistrySettings};
use firn_oci::testing::{Answer, FakeRegistry, Habits, Harm};
use firn_oci::{Descriptor, Repository, media_type};
use futures::TryStreamExt as _;

const BLOBS: &str = "/blobs/sha256";

fn repository() -> Repository {
    "team/app".parse().unwrap()
}

fn other() -> Repository {
    "base/image".parse().unwrap()
}

/// Bytes of which no two pieces are alike.
fn contents(size: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(size + 8);
    for number in 0_u64.. {
        if bytes.len() >= size {
            break;
        }
        bytes.extend_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
    }
    bytes.truncate(size);
    bytes
}

/// A registry with a blob, and a client that knows how it is protected.
async fn holding(size: usize) -> (FakeRegistry, Registry, Descriptor) {
    let fake = FakeRegistry::start().await.unwrap();
    let bytes = contents(size);
    let descriptor = Descriptor::of(media_type::LAYER_TAR, &bytes);
    fake.put_blob("base/image", bytes);
    let registry = fake.client().unwrap();
    registry.ping().await.unwrap();
    fake.forget();
    (fake, registry, descriptor)
}

async fn read(registry: &Registry, descriptor: &Descriptor) -> Result<Vec<u8>, Error> {
    let reader = registry.open_blob(&other(), descriptor).await?;
    let pieces: Vec<_> = reader.into_stream().try_collect().await?;
    Ok(pieces.concat())
}

/// Patience for a retry or two, and none for a registry that stays broken.
fn impatient(fake: &FakeRegistry) -> Registry {
    Registry::new(RegistrySettings {
        limits: Limits {
            stall: Duration::from_millis(200),
            answer: Duration::from_millis(200),
            retry_budget: Duration::from_millis(60),
            ..fake.settings().limits
        },
        ..fake.settings()
    })
    .unwrap()
}

#[tokio::test]
async fn a_blob_of_any_size_is_one_request() {
    for size in [0, 1, 3_000_000] {
        let (fake, registry, descriptor) = holding(size).await;
        assert!(read(&registry, &descriptor).await.unwrap() == contents(size));
        assert_eq!(fake.seen().len(), 1, "{size}");
    }
}

#[tokio::test]
async fn a_broken_connection_is_continued_where_it_broke() {
    for harm in [Harm::Reset, Harm::Close] {
        let (fake, registry, descriptor) = holding(3_000_000).await;
        fake.fault("GET", BLOBS, Answer::After(1_000_000, harm));
        fake.fault("GET", BLOBS, Answer::After(100, harm));
        fake.fault("GET", BLOBS, Answer::After(500_000, harm));
        assert!(read(&registry, &descriptor).await.unwrap() == contents(3_000_000));
        assert_eq!((fake.seen().len(), fake.faults_left()), (4, 0), "{harm:?}");
    }
}

#[tokio::test]
async fn a_connection_that_hangs_is_continued_as_well() {
    let (fake, _, descriptor) = holding(3_000_000).await;
    fake.fault("GET", BLOBS, Answer::After(2_000_000, Harm::Hang));
    assert!(read(&impatient(&fake), &descriptor).await.unwrap() == contents(3_000_000));
}

#[tokio::test]
async fn what_comes_again_from_a_registry_without_ranges_is_not_taken_twice() {
    let (fake, registry, descriptor) = holding(3_000_000).await;
    fake.set_habits(Habits {
        ranges: false,
        ..Habits::default()
    });
    fake.fault("GET", BLOBS, Answer::After(1_000_000, Harm::Reset));
    assert!(read(&registry, &descriptor).await.unwrap() == contents(3_000_000));
    assert_eq!(fake.seen().len(), 2);
}

#[tokio::test]
async fn a_registry_that_drips_is_given_up() {
    let (fake, _, descriptor) = holding(3_000_000).await;
    for _ in 0..1000 {
        fake.fault("GET", BLOBS, Answer::After(1000, Harm::Close));
    }
    let error = read(&impatient(&fake), &descriptor).await.unwrap_err();
    assert!(error.is_unavailable() && error.is_retryable(), "{error}");
    assert!(fake.seen().len() < 50, "{}", fake.seen().len());
}

#[tokio::test]
async fn other_contents_are_told_by_digest_and_by_size() {
    let (fake, registry, descriptor) = holding(10).await;
    fake.fault("GET", BLOBS, Answer::Status(200, vec![], "0123456789"));
    let error = read(&registry, &descriptor).await.unwrap_err();
    assert!(matches!(error, Error::DigestMismatch { .. }), "{error}");
    fake.fault("GET", BLOBS, Answer::Status(200, vec![], "0123456789+"));
    let error = read(&registry, &descriptor).await.unwrap_err();
    assert!(
        matches!(
            error,
            Error::SizeMismatch {
                expected: 10,
                actual: 11,
                ..
            }
        ),
        "{error}"
    );
    for _ in 0..1000 {
        fake.fault("GET", BLOBS, Answer::Status(200, vec![], "01234"));
    }
    let error = read(&impatient(&fake), &descriptor).await.unwrap_err();
    assert!(
        matches!(
            error,
            Error::Truncated {
                expected: 10,
                actual: 5,
                ..
            }
        ),
        "{error}"
    );
}

#[tokio::test]
async fn another_part_than_was_asked_for_is_refused() {
    let (fake, registry, descriptor) = holding(3_000_000).await;
    fake.fault("GET", BLOBS, Answer::After(1_000_000, Harm::Reset));
    let headers = vec![("content-range", "bytes 0-9/3000000".to_owned())];
    fake.fault("GET", BLOBS, Answer::Status(206, headers, "0123456789"));
    let error = read(&registry, &descriptor).await.unwrap_err();
    assert!(matches!(error, Error::Protocol { .. }), "{error}");
}

#[tokio::test]
async fn a_missing_blob_is_not_found_at_once() {
    let (fake, registry, _) = holding(0).await;
    let descriptor = Descriptor::of(media_type::LAYER_TAR, b"nowhere");
    let error = registry.open_blob(&other(), &descriptor).await.unwrap_err();
    assert!(error.is_not_found(), "{error}");
    assert_eq!(fake.seen().len(), 1);
}

#[tokio::test]
async fn the_empty_blob_can_be_there() {
    let (fake, registry, descriptor) = holding(0).await;
    assert!(
        registry
            .probe_blob(&other(), &descriptor.digest)
            .await
            .unwrap()
    );
    fake.remove_blob("base/image", &descriptor.digest);
    assert!(
        !registry
            .probe_blob(&other(), &descriptor.digest)
            .await
            .unwrap()
    );
}

#[tokio::test]
async fn a_copy_within_a_registry_is_a_mount() {
    let (fake, registry, descriptor) = holding(1000).await;
    let (here, there) = (repository(), other());
    let first = registry
        .copy_blob(&here, &registry, &there, &descriptor)
        .await;
    assert_eq!(first.unwrap(), Copied::Mounted);
    // A look, and the mount.
    assert_eq!(fake.seen().len(), 2);
    let second = registry
        .copy_blob(&here, &registry, &there, &descriptor)
        .await;
    assert_eq!(second.unwrap(), Copied::Present);
    assert_eq!(fake.seen().len(), 3);
}

#[tokio::test]
async fn a_copy_is_sent_while_it_is_read() {
    for size in [0, 1, 3_000_000] {
        let (from, source, descriptor) = holding(size).await;
        let to = FakeRegistry::start().await.unwrap();
        let target = to.client().unwrap();
        target.ping().await.unwrap();
        to.forget();
        let copied = target
            .copy_blob(&repository(), &source, &other(), &descriptor)
            .await;
        assert_eq!(copied.unwrap(), Copied::Sent);
        assert!(to.blob("team/app", &descriptor.digest).unwrap() == contents(size));
        let methods: Vec<String> = to.seen().into_iter().map(|seen| seen.method).collect();
        assert_eq!(methods, ["GET", "POST", "PATCH", "PUT"]);
        assert_eq!(from.seen().len(), 1);
    }
}

#[tokio::test]
async fn a_registry_that_mounts_nothing_is_sent_the_blob_in_the_session_it_opened() {
    let (fake, registry, descriptor) = holding(1000).await;
    fake.set_habits(Habits {
        mounts: false,
        ..Habits::default()
    });
    let copied = registry
        .copy_blob(&repository(), &registry, &other(), &descriptor)
        .await;
    assert_eq!(copied.unwrap(), Copied::Sent);
    assert_eq!(fake.count("POST", ""), 1);
    assert!(fake.blob("team/app", &descriptor.digest).is_some());
}

#[tokio::test]
async fn a_copy_survives_breaks_on_both_sides() {
    let (from, source, descriptor) = holding(3_000_000).await;
    let to = FakeRegistry::start().await.unwrap();
    from.fault("GET", BLOBS, Answer::After(1_000_000, Harm::Reset));
    to.fault("PATCH", "", Answer::Before(500_000, Harm::Reset));
    to.fault("PUT", "", Answer::After(0, Harm::Reset));
    let copied = to
        .client()
        .unwrap()
        .copy_blob(&repository(), &source, &other(), &descriptor)
        .await;
    assert_eq!(copied.unwrap(), Copied::Sent);
    assert!(to.blob("team/app", &descriptor.digest).unwrap() == contents(3_000_000));
    assert_eq!((from.faults_left(), to.faults_left()), (0, 0));
}

#[tokio::test]
async fn a_source_that_lies_is_told_and_nothing_of_it_is_committed() {
    let (from, source, descriptor) = holding(10).await;
    from.fault("GET", BLOBS, Answer::Status(200, vec![], "0123456789"));
    let to = FakeRegistry::start().await.unwrap();
    let error = to
        .client()
        .unwrap()
        .copy_blob(&repository(), &source, &other(), &descriptor)
        .await
        .unwrap_err();
    assert!(matches!(error, Error::DigestMismatch { .. }), "{error}");
    assert_eq!(to.count("PUT", ""), 0);
}
