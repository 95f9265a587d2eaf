//! Groups of paths: the leaves of a binary trie over their keys. Pure.
//!
//! A group's place in the trie is a prefix of bits, which no other path can change; that is why a
//! change stays in one leaf, or moves a border between two.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::key::jitter;
use super::{Item, total};

/// Groups of at most `capacity` bytes (±8 %) or one path, and at most `budget` of them: where the
/// budget demands it, neighbours merge, those first that are smallest together. `items` are sorted
/// by key; a budget of 0 counts as 1.
pub(super) fn group(items: Vec<Item<'_>>, capacity: u64, budget: usize) -> Vec<Vec<Item<'_>>> {
    if items.is_empty() {
        return Vec::new();
    }
    let mut trie = Trie {
        nodes: Vec::new(),
        capacity,
    };
    trie.insert(items, None);
    trie.merge(budget.max(1));
    trie.nodes
        .into_iter()
        .filter_map(|node| match node.kind {
            Kind::Leaf(items) => Some(items),
            Kind::Inner(..) | Kind::Merged => None,
        })
        .collect()
}

struct Trie<'a> {
    nodes: Vec<Node<'a>>,
    capacity: u64,
}

struct Node<'a> {
    parent: Option<usize>,
    size: u64,
    /// Stands for the node's prefix.
    seed: u64,
    kind: Kind<'a>,
}

enum Kind<'a> {
    Leaf(Vec<Item<'a>>),
    Inner(usize, usize),
    /// Its items went to its parent.
    Merged,
}

impl<'a> Trie<'a> {
    /// At most as deep as a key has bits: each level splits at a later bit.
    fn insert(&mut self, mut items: Vec<Item<'a>>, parent: Option<usize>) -> usize {
        let size = total(&items);
        let split = match (items.first(), items.last()) {
            (Some(first), Some(last)) => first
                .key
                .first_difference(&last.key)
                .map(|bit| (bit, first.key.prefix(bit))),
            _ => None,
        };
        let index = self.nodes.len();
        let seed = split.map_or(0, |(_, prefix)| prefix);
        self.nodes.push(Node {
            parent,
            size,
            seed,
            kind: Kind::Merged,
        });
        let kind = match split {
            Some((bit, _)) if size > jitter(self.capacity, seed) => {
                let ones = items.partition_point(|item| !item.key.bit(bit));
                let high = items.split_off(ones);
                let low = self.insert(items, Some(index));
                Kind::Inner(low, self.insert(high, Some(index)))
            }
            _ => Kind::Leaf(items),
        };
        if let Some(node) = self.nodes.get_mut(index) {
            node.kind = kind;
        }
        index
    }

    /// Sizes count by their order of magnitude, then the prefix decides: a few bytes more or less
    /// do not change who merges.
    fn merge(&mut self, budget: usize) {
        let leaf = |node: &Node<'_>| matches!(node.kind, Kind::Leaf(_));
        let mut leaves = self.nodes.iter().filter(|node| leaf(node)).count();
        let mut heap: BinaryHeap<Reverse<(u32, u64, usize)>> = (0..self.nodes.len())
            .filter_map(|index| self.candidate(index))
            .collect();
        while leaves > budget {
            let Some(Reverse((_, _, index))) = heap.pop() else {
                return;
            };
            let Some((low, high)) = self.two_leaves(index) else {
                continue;
            };
            let mut items = self.take(low);
            items.append(&mut self.take(high));
            leaves -= 1;
            let parent = self.nodes.get_mut(index).and_then(|node| {
                node.kind = Kind::Leaf(items);
                node.parent
            });
            heap.extend(parent.and_then(|parent| self.candidate(parent)));
        }
    }

    fn candidate(&self, index: usize) -> Option<Reverse<(u32, u64, usize)>> {
        self.two_leaves(index)?;
        let node = self.nodes.get(index)?;
        Some(Reverse((node.size.max(1).ilog2(), node.seed, index)))
    }

    /// The node's children, if both are leaves.
    fn two_leaves(&self, index: usize) -> Option<(usize, usize)> {
        let Kind::Inner(low, high) = self.nodes.get(index)?.kind else {
            return None;
        };
        let leaf = |child: usize| {
            let node = self.nodes.get(child);
            node.is_some_and(|node| matches!(node.kind, Kind::Leaf(_)))
        };
        (leaf(low) && leaf(high)).then_some((low, high))
    }

    fn take(&mut self, index: usize) -> Vec<Item<'a>> {
        match self.nodes.get_mut(index) {
            Some(node) => match std::mem::replace(&mut node.kind, Kind::Merged) {
                Kind::Leaf(items) => items,
                Kind::Inner(..) | Kind::Merged => Vec::new(),
            },
            None => Vec::new(),
        }
    }
}
