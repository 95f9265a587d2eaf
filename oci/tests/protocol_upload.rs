//! Uploads against the fake registry: every promise, every fault, and the requests they cost.
#![expect(
    clippy::unwrap_used,
    reason = "helpers; clippy allows it in test functions only"
)]

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use firn_oci::registry::{ChunkSink, Error, Limits, Mount, PushError, Registry, RegistrySettings};
use firn_oci::testing::{Answer, FakeRegistry};
use firn_oci::{
    Compression, Compressors, Descriptor, Digest, Document, LayerWriter, Repository, media_type,
};

const UPLOADS: &str = "/blobs/uploads/";

fn repository() -> Repository {
    "team/app".parse().unwrap()
}

fn blob(text: &str) -> Document {
    Document::new(media_type::CONFIG, text.as_bytes().to_vec())
}

/// A producer of `size` bytes that counts how often it was asked.
fn producer(
    size: usize,
    asked: &Arc<AtomicUsize>,
) -> impl Fn(&mut ChunkSink) -> io::Result<(Descriptor, u64)> + Send + Sync + 'static + use<> {
    let asked = Arc::clone(asked);
    move |sink| {
        asked.fetch_add(1, Ordering::SeqCst);
        let pool = Compressors::on_all_cores()?;
        let mut layer = LayerWriter::new(Compression::NONE, &pool, sink);
        let mut left = size;
        while left > 0 {
            let part = left.min(100_000);
            layer.write_all(&vec![b'x'; part])?;
            left -= part;
        }
        let (layer, _) = layer.finish()?;
        Ok((layer.descriptor, layer.uncompressed_size))
    }
}

async fn push(registry: &Registry, size: usize) -> (Result<u64, PushError<io::Error>>, usize) {
    let asked = Arc::new(AtomicUsize::new(0));
    let result = registry
        .push_stream(&repository(), producer(size, &asked))
        .await;
    (result, asked.load(Ordering::SeqCst))
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(tokio::time::Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn a_stream_of_any_size_is_three_requests() {
    for size in [0, 1, 256 * 1024, 9_000_001] {
        let fake = FakeRegistry::start().await.unwrap();
        let registry = fake.client().unwrap();
        registry.ping().await.unwrap();
        fake.forget();
        let (sent, asked) = push(&registry, size).await;
        assert_eq!((sent.unwrap(), asked), (size as u64, 1));
        let digest = Digest::of(&vec![b'x'; size]);
        assert_eq!(fake.blob("team/app", &digest).unwrap().len(), size);
        // One question for the scheme of authorisation, once per client, and the three.
        let methods: Vec<String> = fake.seen().into_iter().map(|seen| seen.method).collect();
        assert_eq!(methods, ["POST", "PATCH", "PUT"]);
        assert_eq!(fake.open_uploads(), 0);
    }
}

#[tokio::test]
async fn a_small_blob_is_two_requests() {
    let fake = FakeRegistry::start().await.unwrap();
    let registry = fake.client().unwrap();
    registry.ping().await.unwrap();
    fake.forget();
    let config = blob("{}");
    registry.push_blob(&repository(), &config).await.unwrap();
    assert!(fake.blob("team/app", &config.descriptor.digest).is_some());
    assert_eq!(fake.seen().len(), 2);
}

#[tokio::test]
async fn a_failure_in_mid_body_means_producing_again() {
    let fake = FakeRegistry::start().await.unwrap();
    fake.fault("PATCH", UPLOADS, Answer::AfterBytes(300_000, 503));
    fake.fault("PATCH", UPLOADS, Answer::AfterBytes(2_000_000, 500));
    let (sent, asked) = push(&fake.client().unwrap(), 20_000_000).await;
    assert_eq!((sent.unwrap(), asked), (20_000_000, 3));
    assert_eq!(fake.faults_left(), 0);
    until("failed sessions are cancelled", || fake.open_uploads() == 0).await;
}

#[tokio::test]
async fn every_good_answer_to_a_patch_is_good() {
    for status in [201, 202, 204] {
        let fake = FakeRegistry::start().await.unwrap();
        fake.fault("PATCH", UPLOADS, Answer::StatusOnly(status));
        let (sent, asked) = push(&fake.client().unwrap(), 1000).await;
        assert_eq!((sent.unwrap(), asked), (1000, 1), "{status}");
    }
}

#[tokio::test]
async fn an_absolute_location_is_followed_as_well() {
    let fake = FakeRegistry::start().await.unwrap();
    let location = format!("http://{}/v2/team/app/blobs/uploads/1?state=a", fake.host());
    fake.fault("POST", UPLOADS, Answer::Location(location));
    assert_eq!(push(&fake.client().unwrap(), 1000).await.0.unwrap(), 1000);
}

#[tokio::test]
async fn a_location_on_a_private_address_elsewhere_is_refused() {
    let fake = FakeRegistry::start().await.unwrap();
    let location = "http://169.254.169.254/latest/meta-data?secret=canary".to_owned();
    fake.fault("POST", UPLOADS, Answer::Location(location));
    let error = fake
        .client()
        .unwrap()
        .start_upload(&repository())
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Protocol { .. }), "{error}");
    let shown = error.to_string();
    assert!(
        shown.contains("169.254.169.254") && !shown.contains("canary"),
        "{shown}"
    );
}

#[tokio::test]
async fn a_lost_answer_to_a_commit_is_looked_up_before_anything_is_sent_again() {
    let fake = FakeRegistry::start().await.unwrap();
    fake.fault("PUT", UPLOADS, Answer::DoneBut(502));
    let (sent, asked) = push(&fake.client().unwrap(), 1000).await;
    assert_eq!((sent.unwrap(), asked), (1000, 1));
    assert_eq!(
        (
            fake.count("PUT", UPLOADS),
            fake.count("GET", "/blobs/sha256")
        ),
        (1, 1)
    );
}

#[tokio::test]
async fn a_commit_that_was_not_carried_out_is_repeated_without_the_body() {
    let fake = FakeRegistry::start().await.unwrap();
    fake.fault("PUT", UPLOADS, Answer::Status(502, vec![], "bad gateway"));
    let (sent, asked) = push(&fake.client().unwrap(), 1000).await;
    assert_eq!((sent.unwrap(), asked), (1000, 1));
    assert_eq!(
        (fake.count("PUT", UPLOADS), fake.count("PATCH", UPLOADS)),
        (2, 1)
    );
}

#[tokio::test]
async fn a_forgotten_session_is_replaced_by_another() {
    let fake = FakeRegistry::start().await.unwrap();
    let unknown = r#"{"errors":[{"code":"BLOB_UPLOAD_UNKNOWN"}]}"#;
    fake.fault("PATCH", UPLOADS, Answer::Status(404, vec![], unknown));
    fake.fault("PUT", UPLOADS, Answer::Status(404, vec![], unknown));
    let (sent, asked) = push(&fake.client().unwrap(), 1000).await;
    assert_eq!((sent.unwrap(), asked), (1000, 3));
}

#[tokio::test]
async fn a_mount_that_works_is_one_request() {
    let fake = FakeRegistry::start().await.unwrap();
    let digest = fake.put_blob("base/image", "layer");
    let registry = fake.client().unwrap();
    registry.ping().await.unwrap();
    fake.forget();
    let from = "base/image".parse().unwrap();
    let mount = registry.mount(&repository(), &digest, &from).await.unwrap();
    assert!(matches!(mount, Mount::Mounted));
    assert_eq!(fake.seen().len(), 1);
    assert!(fake.blob("team/app", &digest).is_some());
}

#[tokio::test]
async fn a_mount_that_does_not_work_is_an_ordinary_upload() {
    let fake = FakeRegistry::start().await.unwrap();
    let registry = fake.client().unwrap();
    let from = "base/image".parse().unwrap();
    let digest = Digest::of(b"not there");
    let mount = registry.mount(&repository(), &digest, &from).await.unwrap();
    let Mount::NotMounted(upload) = mount else {
        panic!("there was nothing to mount");
    };
    let asked = Arc::new(AtomicUsize::new(0));
    let sent = upload.push(producer(1000, &asked)).await.unwrap();
    assert_eq!((sent, asked.load(Ordering::SeqCst)), (1000, 1));
    assert_eq!(fake.count("POST", UPLOADS), 1, "the session was used");
}

#[tokio::test]
async fn a_mount_that_is_refused_is_an_ordinary_upload_as_well() {
    for status in [400, 403, 404, 405] {
        let fake = FakeRegistry::start().await.unwrap();
        let registry = fake.client().unwrap();
        registry.ping().await.unwrap();
        fake.forget();
        fake.fault("POST", "mount=", Answer::Status(status, vec![], ""));
        let from = "base/image".parse().unwrap();
        let digest = Digest::of(b"layer");
        let mount = registry.mount(&repository(), &digest, &from).await.unwrap();
        assert!(matches!(mount, Mount::NotMounted(_)), "{status}");
        assert_eq!(fake.seen().len(), 2, "{status}");
    }
}

#[tokio::test]
async fn a_dropped_session_is_cancelled() {
    let fake = FakeRegistry::start().await.unwrap();
    let registry = fake.client().unwrap();
    drop(registry.start_upload(&repository()).await.unwrap());
    until("it is cancelled", || fake.open_uploads() == 0).await;
    registry.can_push(&repository()).await.unwrap();
    assert_eq!(fake.open_uploads(), 0);
}

#[tokio::test]
async fn the_producer_s_own_error_is_told_and_not_repeated() {
    let fake = FakeRegistry::start().await.unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    let result: Result<(), _> = fake
        .client()
        .unwrap()
        .push_stream(&repository(), move |sink| {
            counted.fetch_add(1, Ordering::SeqCst);
            sink.write_all(&vec![0; 1_000_000])?;
            Err(io::Error::other("the disk is gone"))
        })
        .await;
    let error = result.unwrap_err();
    assert!(
        matches!(&error, PushError::Produce(error) if error.to_string() == "the disk is gone"),
        "{error:?}"
    );
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    until("the session is cancelled", || fake.open_uploads() == 0).await;
    assert_eq!(fake.count("PUT", UPLOADS), 0, "no half layer was committed");
}

#[tokio::test]
async fn a_panicking_producer_is_an_error() {
    let fake = FakeRegistry::start().await.unwrap();
    let result: Result<(), PushError<io::Error>> = fake
        .client()
        .unwrap()
        .push_stream(&repository(), |_| panic!("a test's own"))
        .await;
    assert!(matches!(
        result,
        Err(PushError::Registry(Error::ProducerLost { .. }))
    ));
}

#[tokio::test]
async fn a_wrong_digest_is_the_registry_s_word_and_final() {
    let fake = FakeRegistry::start().await.unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    let result: Result<(), PushError<io::Error>> = fake
        .client()
        .unwrap()
        .push_stream(&repository(), move |sink| {
            counted.fetch_add(1, Ordering::SeqCst);
            sink.write_all(b"one")?;
            Ok((Descriptor::of(media_type::LAYER_TAR, b"two"), ()))
        })
        .await;
    let Err(PushError::Registry(error)) = result else {
        panic!("{result:?}");
    };
    assert!(error.to_string().contains("DIGEST_INVALID"), "{error}");
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}

fn impatient(fake: &FakeRegistry) -> RegistrySettings {
    RegistrySettings {
        limits: Limits {
            stall: Duration::from_millis(200),
            answer: Duration::from_millis(200),
            retry_budget: Duration::ZERO,
            ..fake.settings().limits
        },
        ..fake.settings()
    }
}

#[tokio::test]
async fn a_registry_that_stops_reading_is_given_up() {
    let fake = FakeRegistry::start().await.unwrap();
    fake.fault("PATCH", UPLOADS, Answer::Deafness);
    let registry = Registry::new(impatient(&fake)).unwrap();
    // Larger than what sockets and channel hold.
    let (result, _) = push(&registry, 60_000_000).await;
    let Err(PushError::Registry(error)) = result else {
        panic!("{result:?}");
    };
    assert!(
        error.is_unavailable() && error.to_string().contains("nothing was taken"),
        "{error}"
    );
}

#[tokio::test]
async fn a_registry_that_does_not_answer_is_given_up() {
    let fake = FakeRegistry::start().await.unwrap();
    fake.fault("PATCH", UPLOADS, Answer::Silence);
    let registry = Registry::new(impatient(&fake)).unwrap();
    let (result, _) = push(&registry, 1000).await;
    let Err(PushError::Registry(error)) = result else {
        panic!("{result:?}");
    };
    assert!(
        error.is_unavailable() && error.to_string().contains("no answer"),
        "{error}"
    );
}

#[tokio::test]
async fn a_slow_producer_is_waited_for() {
    let fake = FakeRegistry::start().await.unwrap();
    let registry = Registry::new(impatient(&fake)).unwrap();
    let (go, gone) = std::sync::mpsc::channel();
    let gone = std::sync::Mutex::new(gone);
    let pushing = tokio::spawn(async move {
        registry
            .push_stream(&repository(), move |sink| {
                sink.write_all(b"slow")?;
                let _ = gone.lock().unwrap().recv();
                Ok::<_, io::Error>((Descriptor::of(media_type::LAYER_TAR, b"slow"), ()))
            })
            .await
    });
    until("the body has begun", || fake.count("PATCH", UPLOADS) == 1).await;
    // That time passes is the point: three times as long as the registry may stall.
    tokio::time::sleep(Duration::from_millis(600)).await;
    go.send(()).unwrap();
    pushing.await.unwrap().unwrap();
}
