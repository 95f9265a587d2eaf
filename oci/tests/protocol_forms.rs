//! In what form blobs are sent to registries and proxies that do not take every one: what is
//! tried, in which order, what is remembered, and what is continued.
#![expect(
    clippy::unwrap_used,
    reason = "helpers; clippy allows it in test functions only"
)]

use std::io::{self, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use firn_oci::registry::{PushError, Registry};
use firn_oci::testing::{Answer, FakeRegistry, Habits, Harm, Uploads};
use firn_oci::{Descriptor, Digest, Document, Repository, media_type};

const MIB: usize = 1 << 20;

fn repository() -> Repository {
    "team/app".parse().unwrap()
}

async fn fake(uploads: Uploads) -> (FakeRegistry, Registry) {
    let fake = FakeRegistry::start().await.unwrap();
    fake.set_habits(Habits {
        uploads,
        ..Habits::default()
    });
    let registry = fake.client().unwrap();
    registry.ping().await.unwrap();
    fake.forget();
    (fake, registry)
}

/// Bytes of which no two pieces are alike.
fn contents(size: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(size + 1000);
    for number in 0_u32.. {
        if bytes.len() >= size {
            break;
        }
        bytes.extend_from_slice(&number.to_le_bytes());
        bytes.extend_from_slice(&[7; 996]);
    }
    bytes.truncate(size);
    bytes
}

async fn push(registry: &Registry, size: usize) -> (Result<(), PushError<io::Error>>, usize) {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    let result = registry
        .push_stream(&repository(), move |sink| {
            counted.fetch_add(1, Ordering::SeqCst);
            let bytes = contents(size);
            // In pieces that are no divisor of anything.
            for piece in bytes.chunks(77_777) {
                sink.write_all(piece)?;
            }
            Ok((Descriptor::of(media_type::LAYER_TAR, &bytes), ()))
        })
        .await;
    (result, asked.load(Ordering::SeqCst))
}

fn methods(fake: &FakeRegistry) -> String {
    let seen = fake.seen();
    let short = seen.iter().map(|seen| match seen.method.as_str() {
        "POST" => "o",
        "PATCH" => "a",
        "PUT" => "u",
        "GET" => "g",
        "DELETE" => "",
        other => panic!("{other}"),
    });
    short.collect()
}

fn holds(fake: &FakeRegistry, size: usize) -> bool {
    let bytes = contents(size);
    fake.blob("team/app", &Digest::of(&bytes))
        .is_some_and(|held| held == bytes)
}

#[tokio::test]
async fn a_cap_on_requests_leads_to_chunks_and_is_remembered() {
    let (fake, registry) = fake(Uploads::Capped(5 * MIB)).await;
    let (sent, asked) = push(&registry, 9 * MIB).await;
    sent.unwrap();
    assert_eq!(asked, 2);
    assert_eq!(methods(&fake), "oaoaaau");
    assert!(holds(&fake, 9 * MIB));
    fake.forget();
    let (sent, asked) = push(&registry, 9 * MIB + 1).await;
    sent.unwrap();
    assert_eq!((asked, methods(&fake).as_str()), (1, "oaaau"));
}

#[tokio::test]
async fn every_refusal_of_a_form_leads_to_chunks_of_the_size_that_is_asked_for() {
    for otherwise in [400, 411, 413, 416, 501] {
        let (fake, registry) = fake(Uploads::Chunks {
            min: 6 * MIB,
            max: 6 * MIB,
            otherwise,
        })
        .await;
        push(&registry, 13 * MIB).await.0.unwrap();
        let sizes: Vec<usize> = fake
            .seen()
            .iter()
            .filter(|seen| seen.method == "PATCH")
            .skip(1)
            .map(|seen| seen.body)
            .collect();
        assert_eq!(sizes, [6 * MIB, 6 * MIB, MIB], "{otherwise}");
        assert!(holds(&fake, 13 * MIB));
    }
}

#[tokio::test]
async fn chunks_end_where_the_blob_ends() {
    let chunks = Uploads::Chunks {
        min: 0,
        max: 4 * MIB,
        otherwise: 416,
    };
    for (size, expected) in [
        (0, "oaou"),
        (1, "oaoau"),
        (4 * MIB - 1, "oaoau"),
        (4 * MIB, "oaoau"),
        (4 * MIB + 1, "oaoaau"),
        (8 * MIB, "oaoaau"),
    ] {
        let (fake, registry) = fake(chunks).await;
        push(&registry, size).await.0.unwrap();
        assert_eq!(methods(&fake), expected, "{size}");
        assert!(holds(&fake, size), "{size}");
    }
}

#[tokio::test]
async fn a_broken_chunk_is_continued_from_what_arrived() {
    let chunks = Uploads::Chunks {
        min: 0,
        max: 4 * MIB,
        otherwise: 416,
    };
    // Nothing, something and something of the second chunk arrived.
    for fault in [
        Answer::Before(0, Harm::Reset),
        Answer::Before(MIB, Harm::Reset),
        Answer::Before(MIB, Harm::Status(503)),
    ] {
        let (fake, registry) = fake(chunks).await;
        push(&registry, 1).await.0.unwrap();
        fake.forget();
        fake.fault("PATCH", "state=1", fault.clone());
        let (sent, asked) = push(&registry, 9 * MIB).await;
        sent.unwrap();
        // What was kept is sent again; the producer is not asked for it.
        assert_eq!(
            (asked, methods(&fake).as_str()),
            (1, "oaagaau"),
            "{fault:?}"
        );
        assert!(holds(&fake, 9 * MIB), "{fault:?}");
        assert_eq!(fake.faults_left(), 0);
    }
}

#[tokio::test]
async fn a_session_whose_next_address_was_lost_is_replaced() {
    let chunks = Uploads::Chunks {
        min: 0,
        max: 4 * MIB,
        otherwise: 416,
    };
    let (fake, registry) = fake(chunks).await;
    fake.fault("PATCH", "state=1", Answer::DoneBut(502));
    let (sent, asked) = push(&registry, 9 * MIB).await;
    sent.unwrap();
    // Streamed, in chunks, and in chunks again.
    assert_eq!(asked, 3);
    assert!(holds(&fake, 9 * MIB));
}

#[tokio::test]
async fn a_small_blob_goes_whole_where_nothing_else_is_taken() {
    let (fake, registry) = fake(Uploads::Whole).await;
    push(&registry, MIB).await.0.unwrap();
    assert_eq!(methods(&fake), "oaoaou");
    fake.forget();
    push(&registry, 2 * MIB).await.0.unwrap();
    assert_eq!(methods(&fake), "ou");
    assert!(holds(&fake, 2 * MIB));
}

#[tokio::test]
async fn a_large_blob_that_would_have_to_go_whole_is_an_error_that_says_why() {
    let (fake, registry) = fake(Uploads::Whole).await;
    let error = push(&registry, 17 * MIB).await.0.unwrap_err();
    assert!(error.to_string().contains("405"), "{error}");
    assert_eq!(fake.count("PUT", ""), 0);
}

#[tokio::test]
async fn a_small_blob_larger_than_a_cap_goes_in_chunks() {
    let (fake, registry) = fake(Uploads::Capped(5 * MIB)).await;
    let blob = Document::new(media_type::CONFIG, contents(9 * MIB));
    registry.push_blob(&repository(), &blob).await.unwrap();
    assert_eq!(methods(&fake), "ouoaaau");
    assert!(holds(&fake, 9 * MIB));
}

#[tokio::test]
async fn a_smallest_chunk_that_no_memory_has_is_refused() {
    let (_fake, registry) = fake(Uploads::Chunks {
        min: usize::MAX,
        max: usize::MAX,
        otherwise: 416,
    })
    .await;
    let error = push(&registry, MIB).await.0.unwrap_err();
    assert!(error.to_string().contains("too much"), "{error}");
}

#[tokio::test]
async fn a_registry_that_drops_later_bodies_gets_one() {
    let (fake, registry) = fake(Uploads::FirstOnly).await;
    push(&registry, 9 * MIB).await.0.unwrap();
    assert_eq!(methods(&fake), "oau");
    assert!(holds(&fake, 9 * MIB));
}
