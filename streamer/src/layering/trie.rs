//! Groups of paths: the leaves of a binary trie over their keys. Pure.
//!
//! A group's place in the trie is a prefix of bits, which no other path can change. What is split
//! is decided by *cost*, the number of paths times their bytes: what is sent, over all paths, if
//! each of them changes once. It is never more for a part than for the whole, so the groups that
//! are split are the costliest ones, and a change of one path can only move the border between
//! those that just are and those that just are not.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::Range;

use super::stable::Item;

/// Groups of at most so many bytes are not split, whatever the budget: a layer costs requests and
/// a mount. Compressed it is sent in about a round trip.
pub(super) const FLOOR: u64 = 256 * 1024;

/// At most `budget` groups of `items`. A budget of 0 counts as 1.
pub(super) fn group(mut items: Vec<Item>, budget: usize) -> Vec<Vec<Item>> {
    if items.is_empty() {
        return Vec::new();
    }
    items.sort_unstable_by_key(|item| (item.key, item.node));
    let trie = Trie { items: &items };
    let mut open = BinaryHeap::from([trie.place(0..items.len())]);
    let mut leaves = Vec::new();
    while let Some((cost, key, start, end)) = open.pop() {
        match trie.halves(start..end) {
            Some((low, high)) if leaves.len() + open.len() + 2 <= budget => {
                open.push(trie.place(low));
                open.push(trie.place(high));
            }
            _ => leaves.push((cost, key, start, end)),
        }
    }
    let mut ranges: Vec<(usize, usize)> = leaves
        .into_iter()
        .map(|(_, _, start, end)| (start, end))
        .collect();
    ranges.sort_unstable();
    let leaf = |(start, end): (usize, usize)| items.get(start..end).unwrap_or_default().to_vec();
    ranges.into_iter().map(leaf).collect()
}

/// A part of the trie by what decides whether it is split: the costliest first, then the one with
/// the smallest key.
type Place = (u128, Reverse<super::key::Key>, usize, usize);

struct Trie<'i> {
    /// Sorted by key.
    items: &'i [Item],
}

impl Trie<'_> {
    fn of(&self, range: &Range<usize>) -> &[Item] {
        self.items.get(range.clone()).unwrap_or_default()
    }

    fn size(&self, range: &Range<usize>) -> u128 {
        self.of(range)
            .iter()
            .map(|item| u128::from(item.size))
            .sum()
    }

    fn place(&self, range: Range<usize>) -> Place {
        let cost = self.size(&range).saturating_mul(range.len() as u128);
        let key = self.of(&range).first().map(|item| item.key);
        (
            cost,
            Reverse(key.unwrap_or_default()),
            range.start,
            range.end,
        )
    }

    /// The two parts, divided at the first bit in which keys differ. None if there is no such bit,
    /// or too little to divide.
    fn halves(&self, range: Range<usize>) -> Option<(Range<usize>, Range<usize>)> {
        if self.size(&range) <= u128::from(FLOOR) {
            return None;
        }
        let items = self.of(&range);
        let bit = items.first()?.key.first_difference(&items.last()?.key)?;
        let middle = range.start + items.partition_point(|item| !item.key.bit(bit));
        Some((range.start..middle, middle..range.end))
    }
}
