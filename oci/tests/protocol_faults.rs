//! Every request of a whole push, spoiled in every way at every moment: the push ends with the
//! right image or with an error that says what happened, and no tag ever leads to something that
//! is not all there.
//!
//! ```text
//! token · manifest GET · blob HEAD · blob GET · POST · PATCH · PUT · mount · config · manifest · tag
//!   × before it is carried out · in the middle · after
//!   × reset · hang · 401 · 429 · 500 · short answer
//! ```
//!
//! Each cell is tried with a fault that comes once, which a push has to get over, and with one
//! that comes for ever, which has to end it. The middle of a request with a body is in its body, at
//! the borders of the pieces it is sent in; of another it is in the answer, within its head.
#![expect(
    clippy::unwrap_used,
    reason = "helpers; clippy allows it in test functions only"
)]

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::time::{Duration, Instant};

use firn_oci::registry::{
    Credentials, Error, Limits, Login, ManifestName, Mount, PushError, Registry, RegistrySettings,
    Secret,
};
use firn_oci::testing::{Access, Answer, FakeRegistry, Habits, Harm, Uploads};
use firn_oci::{
    BuiltImage, Descriptor, Digest, History, ImageBuilder, Layer, Platform, Repository, media_type,
};
use futures::StreamExt as _;

/// The pieces in which a body is streamed.
const PIECE: usize = 256 * 1024;
/// The chunks in which it is sent where there are chunks.
const CHUNK: usize = 4 << 20;
/// Bytes that get through of an answer: in its first line, at its end, in and behind other headers.
const HEAD: [usize; 4] = [1, 15, 60, 140];
const SHARED: &[u8] = b"a layer of another repository";
const PRESENT: &[u8] = b"a layer that is there";
/// How long nothing may come where that is what happens: long beside what anything takes, short
/// beside a test. Elsewhere a slow machine is no fault.
const STALL: Duration = Duration::from_millis(500);
/// Longer than anything takes.
const SLOW: Duration = Duration::from_secs(30);
/// Pushes at once.
const AT_ONCE: usize = 8;
/// Those that mostly wait.
const HANGING_AT_ONCE: usize = 48;

/// One request of a push.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    Token,
    Manifest,
    BlobHead,
    BlobGet,
    Post,
    Patch,
    /// The second numbered chunk, of a registry that takes nothing else.
    Chunk,
    Put,
    Mount,
    Config,
    ManifestPut,
    Tag,
}

const TARGETS: [Target; 12] = [
    Target::Token,
    Target::Manifest,
    Target::BlobHead,
    Target::BlobGet,
    Target::Post,
    Target::Patch,
    Target::Chunk,
    Target::Put,
    Target::Mount,
    Target::Config,
    Target::ManifestPut,
    Target::Tag,
];

const HARMS: [(&str, Harm); 6] = [
    ("reset", Harm::Reset),
    ("hang", Harm::Hang),
    ("401", Harm::Status(401)),
    ("429", Harm::Status(429)),
    ("500", Harm::Status(500)),
    ("short", Harm::Close),
];

const MOMENTS: [&str; 3] = ["before", "middle", "after"];

impl Target {
    /// Method and a part of the path: the first request that has both.
    fn request(self, built: &BuiltImage) -> (&'static str, String) {
        let digest = |descriptor: &Descriptor| descriptor.digest.to_string();
        let (method, path) = match self {
            Self::Token => ("GET", "/token".to_owned()),
            Self::Manifest => ("GET", "/manifests/old".to_owned()),
            Self::BlobHead => ("HEAD", "/blobs/sha256".to_owned()),
            Self::BlobGet => ("GET", "/blobs/sha256".to_owned()),
            Self::Post => ("POST", "/blobs/uploads/".to_owned()),
            Self::Patch => ("PATCH", "/blobs/uploads/".to_owned()),
            Self::Chunk => ("PATCH", "state=1".to_owned()),
            Self::Put => ("PUT", "/blobs/uploads/".to_owned()),
            Self::Mount => ("POST", "mount=".to_owned()),
            Self::Config => ("PUT", digest(&built.config.descriptor).replace(':', "%3A")),
            Self::ManifestPut => ("PUT", digest(&built.manifest.descriptor)),
            Self::Tag => ("PUT", "/manifests/v1".to_owned()),
        };
        (method, path)
    }

    /// The size of the layer that is pushed, large only where its borders matter.
    const fn layer_size(self) -> usize {
        match self {
            Self::Patch => 2 * PIECE + 1000,
            Self::Chunk => CHUNK + PIECE + 1000,
            _ => 1000,
        }
    }

    /// The bytes of the request's body.
    fn body(self, built: &BuiltImage) -> usize {
        match self {
            Self::Patch => self.layer_size(),
            Self::Chunk => PIECE + 1000,
            Self::Config => built.config.bytes.len(),
            Self::ManifestPut | Self::Tag => built.manifest.bytes.len(),
            _ => 0,
        }
    }
}

/// All faults of one cell.
fn faults(target: Target, built: &BuiltImage, moment: &str, harm: Harm) -> Vec<Answer> {
    let body = target.body(built);
    match moment {
        "before" => vec![Answer::Before(0, harm)],
        "middle" if body > 0 => {
            let borders = [1, PIECE - 1, PIECE, PIECE + 1, body / 2, body - 1];
            let within = borders.into_iter().filter(|at| *at < body);
            within.map(|at| Answer::Before(at, harm)).collect()
        }
        "middle" => HEAD.map(|at| Answer::After(at, harm)).to_vec(),
        // All of it was read, or even carried out, and nobody knows.
        _ => vec![Answer::Before(body, harm), Answer::After(0, harm)],
    }
}

fn layer_bytes(size: usize) -> Vec<u8> {
    let mut bytes = vec![b'x'; size];
    bytes[..4].copy_from_slice(&u32::try_from(size).unwrap().to_le_bytes());
    bytes
}

/// The image that is pushed: one layer that is made, one of another repository, one that is there.
fn image(size: usize) -> BuiltImage {
    let layer = |bytes: &[u8]| Layer {
        diff_id: Digest::of(bytes),
        descriptor: Descriptor::of(media_type::LAYER_TAR, bytes),
        uncompressed_size: bytes.len() as u64,
    };
    ImageBuilder::new(Platform::linux("amd64"))
        .layer(layer(&layer_bytes(size)), History::default())
        .layer(layer(SHARED), History::default())
        .layer(layer(PRESENT), History::default())
        .build()
}

/// The whole push, as the streamer does it.
async fn push(registry: &Registry, size: usize, built: &BuiltImage) -> Result<(), Error> {
    let repository: Repository = "team/app".parse().unwrap();
    let base: Repository = "base/image".parse().unwrap();
    let old = ManifestName::Tag("old".parse().unwrap());
    registry.get_manifest(&repository, &old).await?;
    registry
        .head_blob(&repository, &built.layers[0].digest)
        .await?;
    if !registry
        .probe_blob(&repository, &built.layers[2].digest)
        .await?
    {
        send(registry, &repository, PRESENT.to_vec()).await?;
    }
    send(registry, &repository, layer_bytes(size)).await?;
    let shared = Digest::of(SHARED);
    match registry.mount(&repository, &shared, &base).await? {
        Mount::Mounted => {}
        Mount::NotMounted(upload) => {
            drop(upload);
            send(registry, &repository, SHARED.to_vec()).await?;
        }
    }
    registry.push_blob(&repository, &built.config).await?;
    let by_digest = ManifestName::Digest(built.manifest.descriptor.digest);
    for name in [by_digest, ManifestName::Tag("v1".parse().unwrap())] {
        registry
            .put_manifest(&repository, &name, &built.manifest)
            .await?;
    }
    Ok(())
}

async fn send(registry: &Registry, repository: &Repository, bytes: Vec<u8>) -> Result<(), Error> {
    let pushed: Result<(), PushError<io::Error>> = registry
        .push_stream(repository, move |sink| {
            sink.write_all(&bytes)?;
            Ok((Descriptor::of(media_type::LAYER_TAR, &bytes), ()))
        })
        .await;
    pushed.map_err(|error| match error {
        PushError::Registry(error) => error,
        PushError::Produce(error) => panic!("{error}"),
    })
}

/// A registry with a login, an older image under the tag that will move, and what the new one
/// finds there.
async fn registry(target: Target) -> FakeRegistry {
    let fake = FakeRegistry::start().await.unwrap();
    fake.set_access(Access::Bearer {
        username: "user".to_owned(),
        password: "canary".to_owned(),
        expires_in: 300,
        withheld: Vec::new(),
    });
    if target == Target::Chunk {
        fake.set_habits(Habits {
            uploads: Uploads::Chunks {
                min: 0,
                max: CHUNK,
                otherwise: 413,
            },
            ..Habits::default()
        });
    }
    fake.put_blob("base/image", SHARED);
    fake.put_blob("team/app", PRESENT);
    let old = ImageBuilder::new(Platform::linux("amd64")).build();
    fake.put_blob("team/app", old.config.bytes);
    for tag in ["old", "v1"] {
        fake.put_manifest("team/app", tag, media_type::MANIFEST, &old.manifest.bytes);
    }
    fake
}

fn client(
    base: &Registry,
    fake: &FakeRegistry,
    stall: Duration,
    retry_budget: Duration,
) -> Registry {
    let login = Login::Password {
        username: "user".to_owned(),
        password: Secret::new("canary".to_owned()),
    };
    base.another(RegistrySettings {
        credentials: Credentials::of(fake.host(), login),
        limits: Limits {
            answer: stall,
            stall,
            first_pause: Duration::from_millis(1),
            retry_budget,
            ..fake.settings().limits
        },
        ..fake.settings()
    })
    .unwrap()
}

/// One push with one fault; what was wrong with how it ended.
async fn attempt(
    base: Registry,
    target: Target,
    moment: &'static str,
    fault: Answer,
    for_ever: bool,
) -> Option<String> {
    let size = target.layer_size();
    let built = image(size);
    let fake = registry(target).await;
    let (method, path) = target.request(&built);
    let path: &'static str = path.leak();
    let times = if for_ever { 300 } else { 1 };
    for _ in 0..times {
        fake.fault(method, path, fault.clone());
    }
    let (stall, patience) = match (hangs(&fault), for_ever) {
        (true, true) => (STALL, 12 * STALL),
        (false, true) => (SLOW, STALL),
        (_, false) => (if hangs(&fault) { STALL } else { SLOW }, SLOW),
    };
    let since = Instant::now();
    let ended = push(&client(&base, &fake, stall, patience), size, &built).await;
    let took = since.elapsed();
    let case = format!("{target:?} {moment} {fault:?} for ever: {for_ever}");
    let wrong = |what: String| Some(format!("{case}: {what}"));
    if fake.faults_left() == times {
        return wrong("the fault was not met".to_owned());
    }
    if !fake.dangling().is_empty() {
        return wrong("a tag was to lead to something that is not there".to_owned());
    }
    if !fake.is_whole() {
        return wrong("something is not all there".to_owned());
    }
    if took > 3 * SLOW {
        return wrong(format!("it took {took:?}"));
    }
    let tagged = fake.manifest("team/app", "v1").unwrap() == built.manifest.bytes;
    let error = match ended {
        Ok(()) if !tagged => return wrong("it ended well, and the tag is elsewhere".to_owned()),
        // What was carried out may be found to be there, and a blob can come without a mount.
        Ok(()) if for_ever && moment == "before" && !can_do_without(target, &fault) => {
            return wrong("it cannot have ended well".to_owned());
        }
        Ok(()) => return None,
        Err(error) => error,
    };
    // A token service that takes no password is believed at once.
    let is_final = for_ever || (target == Target::Token && error.is_auth());
    if is_final {
        says_wrong(&error, &fault).and_then(wrong)
    } else {
        wrong(format!("one fault ended it: {error}"))
    }
}

/// A registry that refuses to mount is sent the blob.
fn can_do_without(target: Target, fault: &Answer) -> bool {
    target == Target::Mount && matches!(fault, Answer::Before(_, Harm::Status(401)))
}

const fn hangs(fault: &Answer) -> bool {
    matches!(
        fault,
        Answer::Before(_, Harm::Hang) | Answer::After(_, Harm::Hang)
    )
}

/// Whether an error says what happened.
fn says_wrong(error: &Error, fault: &Answer) -> Option<String> {
    let (Answer::Before(_, harm) | Answer::After(_, harm)) = fault else {
        return None;
    };
    let fits = match harm {
        Harm::Status(401) => error.is_auth(),
        Harm::Status(429) => error.is_rate_limited(),
        _ => error.is_unavailable(),
    };
    let shown = error.to_string();
    if fits && shown.contains("registry \"127.0.0.1:") && !shown.contains("canary") {
        return None;
    }
    Some(format!("it was told as: {shown}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_survives_or_tells_every_fault_of_every_request() {
    let mut cases = Vec::new();
    for target in TARGETS {
        let built = image(target.layer_size());
        for moment in MOMENTS {
            for (name, harm) in HARMS {
                let faults = faults(target, &built, moment, harm);
                // Where it is does not matter to one that always comes.
                let always = faults[faults.len() / 2].clone();
                cases.push((target, moment, name, always, true));
                for fault in faults {
                    cases.push((target, moment, name, fault, false));
                }
            }
        }
    }
    let (hanging, others): (Vec<_>, Vec<_>) =
        cases.into_iter().partition(|(.., fault, _)| hangs(fault));
    let fake = FakeRegistry::start().await.unwrap();
    let base = fake.client().unwrap();
    let run = |cases: Vec<_>, at_once| {
        futures::stream::iter(cases)
            .map(|(target, moment, name, fault, for_ever)| {
                let run = tokio::spawn(attempt(base.clone(), target, moment, fault, for_ever));
                async move { (target, moment, name, run.await.unwrap()) }
            })
            .buffer_unordered(at_once)
            .collect::<Vec<_>>()
    };
    let (mut done, others) = tokio::join!(run(hanging, HANGING_AT_ONCE), run(others, AT_ONCE));
    done.extend(others);
    let mut counts: BTreeMap<(usize, usize, usize), usize> = BTreeMap::new();
    let mut wrong = Vec::new();
    for (target, moment, name, problem) in done {
        let row = TARGETS.iter().position(|other| *other == target).unwrap();
        let of_moment = MOMENTS.iter().position(|other| *other == moment).unwrap();
        let of_harm = HARMS.iter().position(|(other, _)| *other == name).unwrap();
        *counts.entry((row, of_moment, of_harm)).or_default() += 1;
        wrong.extend(problem);
    }
    println!("pushes per request, moment and harm:");
    for (row, target) in TARGETS.iter().enumerate() {
        for (of_moment, moment) in MOMENTS.iter().enumerate() {
            let cells = HARMS.iter().enumerate().map(|(of_harm, (name, _))| {
                let count = counts.get(&(row, of_moment, of_harm)).copied().unwrap_or(0);
                assert!(count > 0, "{target:?} {moment} {name}");
                format!("{name} {count}")
            });
            let name = format!("{target:?}");
            println!(
                "  {name:12} {moment:7} {}",
                cells.collect::<Vec<_>>().join("  ")
            );
        }
    }
    println!("{} pushes", counts.values().sum::<usize>());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
