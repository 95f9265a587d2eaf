//! Where a path stands among the others: a string of bits made from what it depends on. Pure.

use std::collections::BTreeMap;

use sha2::{Digest as _, Sha256};

use super::Nodes;
use crate::closure::Graph;
use crate::store_path::StorePath;

/// Words of a key: cohort, four `MinHash`es, name, hash.
const WORDS: usize = 7;

/// A path's place. Compared word by word.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key([u64; WORDS]);

impl Key {
    /// ⌊log2⌋ of the number of dependencies.
    pub(super) fn cohort(&self) -> u64 {
        let [cohort, ..] = self.0;
        cohort
    }

    /// The first bit that differs from `other`, counted from the most significant.
    pub(super) fn first_difference(&self, other: &Self) -> Option<u32> {
        (0_u32..)
            .zip(self.0.iter().zip(&other.0))
            .find(|(_, (a, b))| a != b)
            .map(|(word, (a, b))| word * 64 + (a ^ b).leading_zeros())
    }

    /// Bit number `bit`, counted from the most significant.
    pub(super) fn bit(&self, bit: u32) -> bool {
        let word = usize::try_from(bit / 64).unwrap_or(WORDS);
        self.0
            .get(word)
            .is_some_and(|word| word << (bit % 64) >> 63 == 1)
    }
}

/// The key of every path.
pub(super) fn keys(nodes: &Nodes<'_>) -> Vec<Key> {
    let graph = &nodes.graph;
    let names: Vec<String> = nodes.paths.iter().map(|p| stable_name(p.name())).collect();
    let hashes: Vec<[u64; 4]> = names.iter().map(|name| hash("name", name)).collect();
    let mut smallest = hashes.clone();
    for path in &graph.order {
        let mut found = smallest.get(*path).copied().unwrap_or_default();
        for reference in graph.references.get(*path).into_iter().flatten() {
            let theirs = smallest.get(*reference).copied().unwrap_or_default();
            for (mine, its) in found.iter_mut().zip(theirs) {
                *mine = its.min(*mine);
            }
        }
        if let Some(slot) = smallest.get_mut(*path) {
            *slot = found;
        }
    }
    let counts = dependencies(&names, graph);
    nodes
        .paths
        .iter()
        .zip(smallest)
        .zip(hashes.iter().zip(counts))
        .map(|((path, [a, b, c, d]), (name, count))| {
            let cohort = u64::from(count.max(1).ilog2());
            Key([cohort, a, b, c, d, name[0], own_hash(path)])
        })
        .collect()
}

/// The last resort for equal names with equal dependencies: it moves, but only with the path.
fn own_hash(path: &StorePath) -> u64 {
    hash("hash", path.hash_part())[0]
}

/// How many different names each path reaches, its own included. Sixty-four names at a time, so
/// that memory stays linear in the number of paths.
fn dependencies(names: &[String], graph: &Graph) -> Vec<u32> {
    let distinct: BTreeMap<&String, usize> = {
        let sorted: std::collections::BTreeSet<&String> = names.iter().collect();
        sorted.into_iter().zip(0..).collect()
    };
    let index: Vec<usize> = names
        .iter()
        .map(|name| distinct.get(name).copied().unwrap_or_default())
        .collect();
    let mut counts = vec![0; names.len()];
    for block in 0..distinct.len().div_ceil(64) {
        let mut reached: Vec<u64> = index
            .iter()
            .map(|i| if i / 64 == block { 1 << (i % 64) } else { 0 })
            .collect();
        for path in &graph.order {
            let bits = graph
                .references
                .get(*path)
                .into_iter()
                .flatten()
                .filter_map(|reference| reached.get(*reference))
                .fold(0, |bits, theirs| bits | theirs);
            if let Some(mine) = reached.get_mut(*path) {
                *mine |= bits;
            }
        }
        for (count, bits) in counts.iter_mut().zip(&reached) {
            *count += bits.count_ones();
        }
    }
    counts
}

/// A name without its version: the parts between dashes that do not begin with a digit.
/// `openssl-3.0.13-bin` is `openssl-bin`; a name of nothing but versions stays.
fn stable_name(name: &str) -> String {
    let kept: Vec<&str> = name
        .split('-')
        .filter(|part| !part.starts_with(|c: char| c.is_ascii_digit()))
        .collect();
    if kept.is_empty() {
        name.to_owned()
    } else {
        kept.join("-")
    }
}

fn hash(domain: &str, text: &str) -> [u64; 4] {
    let mut hasher = Sha256::new();
    hasher.update(b"firn/layering/1/");
    hasher.update(domain);
    hasher.update(b"/");
    hasher.update(text);
    words(&hasher.finalize().into())
}

fn words(digest: &[u8; 32]) -> [u64; 4] {
    let mut words = [0; 4];
    for (word, bytes) in words.iter_mut().zip(digest.as_chunks().0) {
        *word = u64::from_le_bytes(*bytes);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_version_keeps_its_name() {
        assert_eq!(stable_name("openssl-3.0.13-bin"), "openssl-bin");
        assert_eq!(stable_name("python3.12-numpy-1.26.4"), "python3.12-numpy");
        assert_eq!(stable_name("source"), "source");
        assert_eq!(stable_name("2024-01-01"), "2024-01-01");
    }

    #[test]
    fn bits_are_counted_from_the_most_significant() {
        let a = Key([0, 1, 0, 0, 0, 0, 0]);
        let b = Key([0, 3, 0, 0, 0, 0, 0]);
        assert_eq!(a.first_difference(&b), Some(126));
        assert_eq!((a.bit(126), b.bit(126), a.bit(127)), (false, true, true));
        assert_eq!(a.first_difference(&a), None);
    }
}
