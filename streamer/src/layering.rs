//! Which store path goes into which layer. Pure: a function of the closure and the budget alone,
//! without history, so that two pods on two machines plan the same layers.
//!
//! Whatever alters what a path depends on alters the path itself. So a path's place may depend on
//! what lies *below* it in the graph and never moves while it stays the same. Popularity looks
//! upwards, and moves everything when a user comes or goes.
//!
//! ```text
//! large (own size alone) ──► a layer of its own
//! the rest ──► sorted by  cohort │ four MinHashes of its dependencies │ its name │ its hash
//!              a binary trie over those bits; what fits the capacity is a leaf, what does not
//!              splits; leaves beyond the budget merge with their neighbours
//! ```
//!
//! * *cohort*: ⌊log2⌋ of the number of dependencies. Applications come into the highest.
//! * *`MinHash`*: equal for paths with nearly the same dependencies, which change together.
//! * Names count without version and hash, so that a new version takes the old one's place.

mod key;
mod trie;

use crate::closure::{Closure, Graph};
use crate::store_path::StorePath;
use key::{Key, jitter, keys};

/// Smaller groups are not split, whatever the budget: a layer costs requests and a mount.
const CAPACITY_MIN: u64 = 64 * 1024;

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

/// Why a layer holds what it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// One path, large enough by itself.
    Large,
    /// Paths that change together, or nearly.
    Group,
}

/// Plans at most `budget` layers, those that change least first. Every path of the closure is in
/// exactly one. A budget of 0 counts as 1.
pub fn plan(closure: &Closure, budget: u32) -> Vec<PlannedLayer> {
    // `Closure::new` lets no cycle pass, so there always is an order.
    let graph = closure.graph().unwrap_or(Graph {
        references: Vec::new(),
        order: Vec::new(),
    });
    let keys = keys(closure, &graph);
    let mut items: Vec<Item<'_>> = closure
        .paths()
        .iter()
        .zip(keys)
        .map(|((path, info), key)| Item {
            path,
            size: info.nar_size,
            key,
        })
        .collect();
    items.sort_unstable_by(|a, b| a.key.cmp(&b.key).then_with(|| a.path.cmp(b.path)));

    let budget = usize::try_from(budget.max(1)).unwrap_or(usize::MAX);
    let capacity = capacity(&items, budget);
    let (large, small) = split_off_large(items, capacity, budget);
    let groups = trie::group(small, capacity, budget - large.len().min(budget - 1));
    let mut layers: Vec<Vec<Item<'_>>> = large.into_iter().map(|item| vec![item]).collect();
    layers.extend(groups);
    layers.sort_by_key(|items| {
        let cohort = items.iter().map(|item| item.key.cohort()).max();
        (cohort, items.first().map(|item| item.key))
    });
    layers.iter().map(|items| PlannedLayer::of(items)).collect()
}

/// A path with all that decides where it goes.
#[derive(Debug, Clone, Copy)]
struct Item<'a> {
    path: &'a StorePath,
    size: u64,
    key: Key,
}

impl PlannedLayer {
    fn of(items: &[Item<'_>]) -> Self {
        let mut paths: Vec<StorePath> = items.iter().map(|item| item.path.clone()).collect();
        paths.sort_unstable();
        Self {
            why: if paths.len() == 1 {
                Why::Large
            } else {
                Why::Group
            },
            nar_size: total(items),
            paths,
        }
    }
}

fn total(items: &[Item<'_>]) -> u64 {
    items
        .iter()
        .fold(0, |sum, item| sum.saturating_add(item.size))
}

/// Most bytes of a group: 2.5 times the size of a layer if all were equal. A trie's leaves are
/// two thirds full on average, and a path of half the capacity has a layer to itself; together
/// that uses about 0.6 to 0.9 of the budget. With 60 layers it is 4.2 % of the image.
fn capacity(items: &[Item<'_>], budget: usize) -> u64 {
    let budget = u128::try_from(budget).unwrap_or(1);
    let capacity = u128::from(total(items)) * 5 / (2 * budget);
    u64::try_from(capacity)
        .unwrap_or(u64::MAX)
        .max(CAPACITY_MIN)
}

/// Paths of at least half a capacity, at most one less than the budget unless nothing else is left.
/// The limit differs by path within ±8 %, so that a growing closure does not tip many at once.
fn split_off_large(
    items: Vec<Item<'_>>,
    capacity: u64,
    budget: usize,
) -> (Vec<Item<'_>>, Vec<Item<'_>>) {
    let (mut large, mut small): (Vec<_>, Vec<_>) = items
        .into_iter()
        .partition(|item| item.size >= jitter(capacity / 2, item.key.own()));
    let room = if small.is_empty() { budget } else { budget - 1 };
    if large.len() > room {
        // Cannot happen above a budget of one (the sizes would add up to more than the whole),
        // but a bound that is promised is kept whatever the arithmetic.
        large.sort_by_key(|item| (std::cmp::Reverse(item.size), item.key));
        small.extend(large.split_off(budget - 1));
        small.sort_unstable_by(|a, b| a.key.cmp(&b.key).then_with(|| a.path.cmp(b.path)));
    }
    (large, small)
}

#[cfg(test)]
mod tests;
