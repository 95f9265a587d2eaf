//! Which store path goes into which layer. Pure: a function of the closure, the budget and the
//! strategy, without history, so that two pods on two machines plan the same layers.
//!
//! ```text
//! closure ─► Layout ─┬─ ignored: in no layer
//!                    ├─ declared by the user: these layers first, in their order
//!                    └─ the rest ─► Strategy ─┬─ Stable      (`stable`)      the default
//!                       with what is left     ├─ Popularity  (`popularity`)  as nix2container
//!                       of the budget         └─ BySize      (`by_size`)     as nixpkgs
//! ```
//!
//! What a layer is made of is no business of this module, nor what the registry has already.

mod by_size;
mod key;
mod layout;
mod popularity;
mod stable;
mod trie;
mod why;

use serde::{Deserialize, Serialize};

pub use layout::{InvalidLayout, Layout};
pub use why::Why;

use crate::closure::{Closure, Graph};
use crate::store_path::StorePath;

/// How paths are put together. All of them are deterministic and give at most as many layers as
/// they are allowed. `docs/layering.md` compares them.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Default,
    Serialize,
    Deserialize,
    strum::EnumString,
    strum::Display,
)]
pub enum Strategy {
    /// Firn's: a path's place depends on what lies below it, so that a change stays where it is.
    #[default]
    Stable,
    /// nix2container's: the paths that are reached most often have a layer each, the last layer
    /// takes all others.
    Popularity,
    /// That of nixpkgs: the largest paths, each with what only it uses; then what several of them
    /// use, by who does.
    BySize,
}

/// One layer to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedLayer {
    /// What it holds, sorted.
    pub paths: Vec<StorePath>,
    /// Sum of their NAR sizes, in bytes.
    pub nar_size: u64,
    /// Why these are together.
    pub why: Why,
}

/// Plans at most `budget` layers, those that others build upon first. Every path of the closure is
/// in exactly one. A budget of 0 counts as 1.
pub fn plan(closure: &Closure, budget: u32, strategy: Strategy) -> Vec<PlannedLayer> {
    Nodes::of(closure, |_| true).plan(budget, strategy)
}

/// A closure by positions: all of its graph, and which of its paths are to be placed.
struct Nodes<'a> {
    /// Sorted.
    paths: Vec<&'a StorePath>,
    /// NAR sizes in bytes.
    sizes: Vec<u64>,
    graph: Graph,
    /// Whether a path is to be placed. The others still count as what is depended upon.
    wanted: Vec<bool>,
}

/// The positions of one layer's paths, and why they are together.
type Group = (Vec<usize>, Why);

impl<'a> Nodes<'a> {
    fn of(closure: &'a Closure, wanted: impl Fn(&StorePath) -> bool) -> Self {
        Self {
            paths: closure.paths().keys().collect(),
            sizes: closure.paths().values().map(|info| info.nar_size).collect(),
            // `Closure::new` lets no cycle pass, so there always is an order.
            graph: closure.graph().unwrap_or(Graph {
                references: Vec::new(),
                order: Vec::new(),
            }),
            wanted: closure.paths().keys().map(wanted).collect(),
        }
    }

    fn plan(&self, budget: u32, strategy: Strategy) -> Vec<PlannedLayer> {
        let budget = usize::try_from(budget.max(1)).unwrap_or(usize::MAX);
        let groups = match strategy {
            Strategy::Stable => stable::split(self, budget),
            Strategy::Popularity => popularity::split(self, budget),
            Strategy::BySize => by_size::split(self, budget),
        };
        groups
            .into_iter()
            .map(|(members, why)| self.layer(members, why))
            .collect()
    }

    fn layer(&self, mut members: Vec<usize>, why: Why) -> PlannedLayer {
        members.sort_unstable();
        let paths = members.iter().filter_map(|i| self.paths.get(*i).copied());
        PlannedLayer {
            paths: paths.cloned().collect(),
            nar_size: self.total(&members),
            why,
        }
    }

    fn size(&self, node: usize) -> u64 {
        self.sizes.get(node).copied().unwrap_or_default()
    }

    fn total(&self, members: &[usize]) -> u64 {
        members
            .iter()
            .fold(0, |sum, node| sum.saturating_add(self.size(*node)))
    }

    fn is_wanted(&self, node: usize) -> bool {
        self.wanted.get(node) == Some(&true)
    }

    fn references(&self, node: usize) -> &[usize] {
        self.graph.references.get(node).map_or(&[], Vec::as_slice)
    }
}

#[cfg(test)]
mod tests;
