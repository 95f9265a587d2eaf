//! What is pushed in which state of the registry: the rows of the table, as runs.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::arena::{Arena, Run};
use super::delay;
use super::limit::Limit;
use super::node::Cost;
use super::peers::{Peer, Programs, Push};
use super::plan;
use super::registry::{self, tagged};
use super::store::{Described, Store};
use crate::cluster::progress::say;

/// A row of the table whose runs are alike for all competitors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Case {
    /// The registry has nothing.
    New,
    /// The registry has the image.
    Unchanged,
    /// The same, and the store has no contents any more.
    Deleted,
    /// The registry has the image, and one path of 1 KB is another.
    OnePath,
    /// The registry has the image, and three libraries are others: so is nearly all.
    Libraries,
    /// The registry has the image in another repository.
    OtherRepository,
    /// The registry has the image, and is 15 ms away.
    Latency,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::New => "everything new",
            Self::Unchanged => "nothing changed",
            Self::Deleted => "nothing changed, store emptied",
            Self::OnePath => "one 1 KB path changed",
            Self::Libraries => "libc, OpenSSL, zlib changed",
            Self::OtherRepository => "to another repository",
            Self::Latency => "nothing changed, 30 ms away",
        })
    }
}

impl Case {
    /// All, in the order in which they run. The first leaves what the others start from.
    pub const ALL: [Self; 7] = [
        Self::New,
        Self::Unchanged,
        Self::Deleted,
        Self::OnePath,
        Self::Libraries,
        Self::OtherRepository,
        Self::Latency,
    ];

    /// Who is measured. What only Firn does, or what costs the others the same as another row, is
    /// measured of Firn alone.
    fn peers(self) -> &'static [Peer] {
        match self {
            Self::New => &[
                Peer::Firn,
                Peer::Floor,
                Peer::Gzip,
                Peer::Zstd,
                Peer::Nix2container,
            ],
            Self::Unchanged | Self::OnePath => {
                &[Peer::Firn, Peer::Gzip, Peer::Zstd, Peer::Nix2container]
            }
            Self::Deleted | Self::Libraries | Self::OtherRepository | Self::Latency => {
                &[Peer::Firn]
            }
        }
    }
}

/// How far away the registry is in [`Case::Latency`]: one way, half a round trip.
pub const ONE_WAY: Duration = Duration::from_millis(15);
/// Where the relay listens that makes it so.
const FAR: &str = "127.0.0.1:5001";
const REPOSITORY: &str = "bench/app";
const TAG: &str = "v1";

/// Runs by row and competitor.
pub type Runs = BTreeMap<(Case, Peer), Vec<Run>>;

/// All that the runs need.
#[derive(Debug)]
pub struct Bench<'a> {
    /// Where they run.
    pub arena: &'a Arena,
    /// Who runs.
    pub programs: &'a Programs,
    /// What is pushed.
    pub store: &'a Store,
}

impl Bench<'_> {
    /// Writes what competitors need that a build would have made for them: layers, and
    /// nix2container's image.
    pub fn prepare(&self) -> Result<()> {
        for closure in self.closures() {
            let layers = plan::layers(
                &self.programs.firn,
                &closure.closure,
                &closure.app,
                &closure.file,
                None,
            )?;
            fs::write(self.layers(closure), serde_json::to_string(&layers)?)?;
            if self.programs.nix2container.is_some() {
                self.nix2container_image(closure)?;
            }
        }
        fs::create_dir_all(self.arena.file("empty"))?;
        Ok(())
    }

    fn closures(&self) -> [&Described; 3] {
        [&self.store.base, &self.store.app, &self.store.libraries]
    }

    fn named(&self, closure: &Described, kind: &str) -> PathBuf {
        let stem = closure.file.file_stem().unwrap_or_default();
        self.arena.file(&format!("{}-{kind}.json", stem.display()))
    }

    /// The file with Firn's layers of a closure.
    pub fn layers(&self, closure: &Described) -> PathBuf {
        self.named(closure, "layers")
    }

    /// As nix2container's Nix code calls its program, with as many layers as dockerTools makes.
    fn nix2container_image(&self, closure: &Described) -> Result<()> {
        let (graph, config, layers) = (
            self.named(closure, "graph"),
            self.named(closure, "config"),
            self.named(closure, "n2c"),
        );
        fs::write(&graph, closure.closure.to_graph())?;
        fs::write(&config, "{}")?;
        let folder = self.programs.nix2container.as_ref();
        let program = folder
            .context("there is no nix2container")?
            .join("nix2container");
        let mut make_layers = Command::new(&program);
        make_layers.arg("layers-from-reproducible-storepaths");
        make_layers
            .args(["--max-layers", "100"])
            .args([&layers, &graph]);
        let mut make_image = Command::new(&program);
        make_image
            .arg("image")
            .args([&self.named(closure, "image"), &config, &layers]);
        for mut command in [make_layers, make_image] {
            let output = command.output().context("failed to start nix2container")?;
            let said = String::from_utf8_lossy(&output.stderr);
            anyhow::ensure!(output.status.success(), "nix2container: {said}");
        }
        Ok(())
    }

    /// Runs `cases`, each `rounds` times for each competitor in turn.
    ///
    /// Errors: a competitor fails.
    pub fn run(&self, cases: &[Case], rounds: usize) -> Result<Runs> {
        let _far = Far::start()?;
        let mut runs = Runs::new();
        for case in cases {
            let peers: Vec<Peer> = case
                .peers()
                .iter()
                .copied()
                .filter(|p| *p != Peer::Nix2container || self.programs.nix2container.is_some())
                .collect();
            for round in 1..=rounds {
                for peer in &peers {
                    let run = self.one(*case, *peer)?;
                    let (wall, cpu) = (run.usage.wall.as_secs_f64(), run.usage.cpu.as_secs_f64());
                    let sent = run.traffic.uploaded / 1000;
                    say(format!(
                        "{case:<31} {round}/{rounds} {peer:<14} {wall:7.3} s {cpu:7.3} s CPU {sent:>8} kB"
                    ));
                    runs.entry((*case, *peer)).or_default().push(run);
                }
            }
        }
        Ok(runs)
    }

    fn one(&self, case: Case, peer: Peer) -> Result<Run> {
        let name = format!("{peer:?}");
        let from = (case != Case::New).then_some(&*name);
        let previous = match (case, peer) {
            (Case::New, _) => None,
            (_, Peer::Firn) => Some(tagged(&self.arena.kept(&name), REPOSITORY, TAG)?),
            _ => None,
        };
        let closure = match case {
            Case::OnePath => &self.store.app,
            Case::Libraries => &self.store.libraries,
            _ => &self.store.base,
        };
        let empty = self.arena.file("empty");
        let mut pipeline = self.programs.push(
            peer,
            &Push {
                store: if case == Case::Deleted {
                    &empty
                } else {
                    &self.store.directory
                },
                closure,
                layers: &self.layers(closure),
                image: &self.named(closure, "image"),
                registry: if case == Case::Latency {
                    FAR
                } else {
                    registry::ADDRESS
                },
                repository: if case == Case::OtherRepository {
                    "bench/other"
                } else {
                    REPOSITORY
                },
                tag: TAG,
                previous: previous.as_ref().map(|digest| (REPOSITORY, digest)),
            },
        )?;
        let keep = match case {
            Case::New => Some(name.clone()),
            Case::OnePath => Some(format!("{name}-after")),
            _ => None,
        };
        self.arena
            .run(from, &mut pipeline, keep.as_deref())
            .with_context(|| format!("failed to measure {peer} on {case:?}"))
    }

    /// What the change of one path costs a node that holds the image before; after [`Case::New`]
    /// and [`Case::OnePath`].
    pub fn node_cost(&self, peer: Peer) -> Result<Cost> {
        let node = self.arena.containerd()?;
        let reference = format!("{}/{REPOSITORY}:{TAG}", registry::ADDRESS);
        let pull = |kept: &str| {
            let registry = self.arena.registry(&self.arena.kept(kept))?;
            node.pull(&reference)?;
            registry.stop()
        };
        let name = format!("{peer:?}");
        pull(&name)?;
        let before = node.unpacked()?;
        let pulled = pull(&format!("{name}-after"))?.read;
        Ok(Cost {
            pulled,
            unpacked: node.unpacked()? - before,
        })
    }

    /// Pushes a closure to an empty registry with no more memory than `limit`, in bytes.
    ///
    /// Errors: it does not suffice.
    pub fn limited(&self, store: &std::path::Path, closure: &Described, limit: u64) -> Result<Run> {
        let limit = Limit::new(limit)?;
        let pipeline = self.programs.push(
            Peer::Firn,
            &Push {
                store,
                closure,
                layers: &self.layers(closure),
                image: &self.named(closure, "image"),
                registry: registry::ADDRESS,
                repository: REPOSITORY,
                tag: TAG,
                previous: None,
            },
        )?;
        let mut limited: Vec<Command> = pipeline.iter().map(|c| limit.wrap(c)).collect();
        self.arena.run(None, &mut limited, None)
    }
}

/// The relay behind [`FAR`], on a thread of its own; it ends when dropped.
struct Far(#[expect(dead_code, reason = "dropping it ends its tasks")] tokio::runtime::Runtime);

impl Far {
    fn start() -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .context("failed to start a runtime")?;
        let listener = runtime.block_on(tokio::net::TcpListener::bind(FAR))?;
        runtime.spawn(delay::relay(
            listener,
            registry::ADDRESS.to_owned(),
            ONE_WAY,
        ));
        Ok(Self(runtime))
    }
}
