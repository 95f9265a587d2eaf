//! Firn's own way: layers that a small change hardly touches. Pure.
//!
//! Whatever alters what a path depends on alters the path itself. So a path's place may depend on
//! what lies *below* it in the graph and never moves while it stays the same. Popularity looks
//! upwards, and moves everything when a user comes or goes.
//!
//! ```text
//! large (own size alone) ──► a layer of its own
//! the rest ──► sorted by  cohort │ four MinHashes of its dependencies │ its name │ its hash
//!              a binary trie over those bits, split where most bytes would be sent in vain,
//!              until the budget is used up
//! ```
//!
//! * *cohort*: ⌊log2⌋ of the number of dependencies. Applications come into the highest.
//! * *`MinHash`*: equal for paths with nearly the same dependencies, which change together.
//! * Names count without version and hash, so that a new version takes the old one's place.

use std::cmp::Reverse;

use super::key::{Key, keys};
use super::{Group, Nodes, Why, trie};

/// A path with all that decides where it goes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Item {
    pub(super) node: usize,
    pub(super) size: u64,
    pub(super) key: Key,
}

/// At most `budget` groups, those with the fewest dependencies first.
pub(super) fn split(nodes: &Nodes<'_>, budget: usize) -> Vec<Group> {
    let mut items: Vec<Item> = keys(nodes)
        .into_iter()
        .enumerate()
        .filter(|(node, _)| nodes.is_wanted(*node))
        .map(|(node, key)| Item {
            node,
            size: nodes.size(node),
            key,
        })
        .collect();
    let large = large(&mut items, budget);
    let small = items.split_off(large);
    let left = budget - items.len();
    let mut groups: Vec<(Vec<Item>, Why)> = items
        .into_iter()
        .map(|item| {
            (
                vec![item],
                Why::Large {
                    nar_size: item.size,
                },
            )
        })
        .collect();
    groups.extend(trie::group(small, left).into_iter().map(|items| {
        let why = match items.len() {
            1 => Why::Alone,
            paths => Why::Alike { paths },
        };
        (items, why)
    }));
    groups.sort_by_key(|(items, _)| {
        let cohort = items.iter().map(|item| item.key.cohort()).max();
        (cohort, items.first().map(|item| item.key))
    });
    let members = |items: Vec<Item>| items.into_iter().map(|item| item.node).collect();
    groups
        .into_iter()
        .map(|(items, why)| (members(items), why))
        .collect()
}

/// Sorts `items`, the largest first, and says how many of them are large: at least three quarters
/// of what each layer would hold if all smaller ones were spread evenly over the layers that are
/// left. Of 1/4, 1/2, 3/4, 1 and 2, this sent least where there are many layers, and next to least
/// where there are few (`docs/layering.md`).
///
/// The larger ones have no part in the limit: one that comes or goes hardly moves it.
fn large(items: &mut [Item], budget: usize) -> usize {
    items.sort_unstable_by_key(|item| (Reverse(item.size), item.key));
    let mut smaller: u128 = items.iter().map(|item| u128::from(item.size)).sum();
    for (count, item) in items.iter().enumerate() {
        let size = u128::from(item.size);
        smaller -= size;
        // One layer is for the smaller ones, if there are any.
        let layers = budget.saturating_sub(count + usize::from(count + 1 < items.len()));
        let evenly = size.saturating_mul(layers as u128).saturating_mul(4);
        if layers == 0 || item.size < trie::FLOOR || evenly < smaller * 3 {
            return count;
        }
    }
    items.len()
}
