use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::closure::PathInfo;
use crate::nar_hash::NarHash;
use crate::testing::path_version;

/// A made closure: names, sizes and references by position; every path has a version.
#[derive(Debug, Clone)]
struct Made {
    names: Vec<String>,
    sizes: Vec<u64>,
    references: Vec<BTreeSet<usize>>,
    versions: Vec<u32>,
}

impl Made {
    /// Heavy-tailed sizes, one to four references to earlier paths, from `seed` alone.
    fn new(count: usize, seed: u64) -> Self {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut next = move |below: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 11) % below
        };
        let mut made = Self {
            names: Vec::new(),
            sizes: Vec::new(),
            references: Vec::new(),
            versions: vec![0; count],
        };
        for index in 0..count {
            made.names.push(format!("part{index}-1.{}", next(20)));
            made.sizes.push((20_000 + next(40_000)) << next(8));
            let wanted = if index == 0 { 0 } else { 1 + next(4) };
            let references = (0..wanted).map(|_| {
                let far = next(index as u64).max(1);
                let back = 1 + next(far + 1);
                index.saturating_sub(usize::try_from(back).unwrap())
            });
            made.references
                .push(references.filter(|r| *r != index).collect());
        }
        made
    }

    fn path(&self, index: usize) -> StorePath {
        path_version(&self.names[index], self.versions[index])
    }

    fn closure(&self) -> Closure {
        let paths: BTreeMap<StorePath, PathInfo> = (0..self.names.len())
            .map(|index| {
                let references = self.references[index].iter().map(|r| self.path(*r));
                let info = PathInfo {
                    nar_hash: NarHash([0; 32]),
                    nar_size: self.sizes[index],
                    references: references.collect(),
                };
                (self.path(index), info)
            })
            .collect();
        Closure::new(paths).unwrap()
    }

    fn total(&self) -> u64 {
        self.sizes.iter().sum()
    }

    fn changed(&self, index: usize) -> Self {
        let mut changed = self.clone();
        changed.versions[index] += 1;
        changed
    }

    /// A change as Nix makes it: whoever reaches the path is another path, too.
    fn rebuilt(&self, index: usize) -> Self {
        let mut changed = self.changed(index);
        let mut touched = BTreeSet::from([index]);
        for user in index + 1..self.names.len() {
            if !self.references[user].is_disjoint(&touched) {
                touched.insert(user);
                changed.versions[user] += 1;
            }
        }
        changed
    }
}

/// The layers of `after` that `before` does not have, and their bytes.
fn new_layers(before: &[PlannedLayer], after: &[PlannedLayer]) -> (usize, u64) {
    let known: BTreeSet<&[StorePath]> = before.iter().map(|layer| &layer.paths[..]).collect();
    let new = after
        .iter()
        .filter(|layer| !known.contains(&layer.paths[..]));
    new.fold((0, 0), |(count, bytes), layer| {
        (count + 1, bytes + layer.nar_size)
    })
}

const PATHS: usize = 200;
const BUDGET: u32 = 60;

#[test]
fn one_changed_path_moves_one_layer_and_few_bytes() {
    for seed in 0..4 {
        let made = Made::new(PATHS, seed);
        let before = plan(&made.closure(), BUDGET);
        assert!(before.len() <= BUDGET as usize, "{} layers", before.len());
        for index in 0..PATHS {
            let after = plan(&made.changed(index).closure(), BUDGET);
            let (layers, bytes) = new_layers(&before, &after);
            let limit = (made.total() / 20).max(made.sizes[index]);
            assert!(
                layers == 1,
                "seed {seed}, path {index}: {layers} new layers"
            );
            assert!(
                bytes <= limit,
                "seed {seed}, path {index}: {bytes} of {limit}"
            );
        }
    }
}

/// The size of one path also moves the limits a little, so that a border elsewhere may tip: a
/// fourth layer was seen in 3 of 6,000 changes.
#[test]
fn one_path_of_another_size_hardly_ever_moves_more_than_three_layers() {
    let mut more = 0;
    for seed in [1, 2] {
        let made = Made::new(PATHS, seed);
        let before = plan(&made.closure(), BUDGET);
        for index in 0..PATHS {
            for (factor, per) in [(11, 10), (9, 10)] {
                let mut changed = made.changed(index);
                changed.sizes[index] = changed.sizes[index] * factor / per;
                let after = plan(&changed.closure(), BUDGET);
                let (layers, bytes) = new_layers(&before, &after);
                assert!(
                    layers <= 4,
                    "seed {seed}, path {index}: {layers} new layers"
                );
                more += u32::from(layers > 3);
                // A border may move between two leaves: both are sent.
                let limit = changed.total() / 10 + changed.sizes[index];
                assert!(
                    bytes <= limit,
                    "seed {seed}, path {index}: {bytes} of {limit}"
                );
            }
        }
    }
    assert!(more <= 4, "{more} of 800 changes moved four layers");
}

#[test]
fn an_added_or_removed_path_moves_two_layers_on_average() {
    let mut moved = 0;
    for seed in 0..20 {
        let all = Made::new(PATHS + 1, seed);
        let mut fewer = all.clone();
        fewer.names.pop();
        fewer.sizes.pop();
        fewer.references.pop();
        fewer.versions.pop();
        let (small, large) = (plan(&fewer.closure(), BUDGET), plan(&all.closure(), BUDGET));
        let (added, removed) = (new_layers(&small, &large).0, new_layers(&large, &small).0);
        assert!(
            added <= 8 && removed <= 8,
            "seed {seed}: {added} and {removed} new layers"
        );
        moved += added + removed;
    }
    assert!(moved <= 2 * 20 * 2, "{moved} layers in 40 changes");
}

/// Rebuilding users is what Nix does. What must be sent is their size; what goes along unchanged
/// stays within a few groups.
#[test]
fn a_rebuild_sends_little_besides_what_was_rebuilt() {
    let mut sent = 0;
    let mut needed = 0;
    for seed in 0..2 {
        let made = Made::new(PATHS, seed);
        let before = plan(&made.closure(), BUDGET);
        for index in 0..PATHS {
            let rebuilt = made.rebuilt(index);
            sent += new_layers(&before, &plan(&rebuilt.closure(), BUDGET)).1;
            needed += (0..PATHS)
                .filter(|i| rebuilt.versions[*i] != made.versions[*i])
                .map(|i| made.sizes[i])
                .sum::<u64>();
        }
    }
    assert!(sent * 10 <= needed * 17, "{sent} sent for {needed} rebuilt");
}

#[test]
fn applications_lie_on_top_of_what_they_use() {
    let made = Made::new(PATHS, 7);
    let layers = plan(&made.closure(), BUDGET);
    let of = |index: usize| {
        let path = made.path(index);
        layers
            .iter()
            .position(|layer| layer.paths.contains(&path))
            .unwrap()
    };
    assert!(of(0) < of(PATHS - 1), "{} {}", of(0), of(PATHS - 1));
}

#[test]
fn a_small_closure_has_few_layers() {
    let mut made = Made::new(10, 3);
    made.sizes = vec![1000; 10];
    assert_eq!(plan(&made.closure(), 100).len(), 1);
}

#[test]
fn equal_names_with_equal_dependencies_still_split() {
    let mut made = Made::new(PATHS, 1);
    made.names = vec!["source".into(); PATHS];
    made.references = vec![BTreeSet::new(); PATHS];
    made.sizes = vec![1_000_000; PATHS];
    made.versions = (0..200).collect();
    let layers = plan(&made.closure(), BUDGET);
    assert!((20..=60).contains(&layers.len()), "{}", layers.len());
    let after = plan(
        &Made {
            versions: (1..201).collect(),
            ..made
        }
        .closure(),
        BUDGET,
    );
    assert!(new_layers(&layers, &after).0 <= 3);
}

fn made() -> impl Strategy<Value = Made> {
    (1..80_usize, any::<u64>(), 1..1_000_000_000_u64).prop_map(|(count, seed, scale)| {
        let mut made = Made::new(count, seed);
        for size in &mut made.sizes {
            *size = *size * scale / 1_000_000;
        }
        made
    })
}

proptest! {
    #[test]
    fn every_path_is_in_exactly_one_of_few_layers(made in made(), budget in 0..130_u32) {
        let closure = made.closure();
        let layers = plan(&closure, budget);
        prop_assert!(layers.len() <= budget.max(1) as usize);
        let mut paths: Vec<&StorePath> = layers.iter().flat_map(|layer| &layer.paths).collect();
        paths.sort_unstable();
        prop_assert!(closure.paths().keys().eq(paths));
        prop_assert!(layers.iter().all(|layer| !layer.paths.is_empty()));
    }

    #[test]
    fn an_unchanged_path_never_moves(made in made(), budget in 1..130_u32, index in any::<prop::sample::Index>()) {
        let before = plan(&made.closure(), budget);
        let after = plan(&made.changed(index.index(made.names.len())).closure(), budget);
        prop_assert_eq!(new_layers(&before, &after).0, 1);
    }

    #[test]
    fn sizes_beyond_any_disk_are_planned_too(sizes in prop::collection::vec(any::<u64>(), 30), budget in 1..40_u32) {
        let mut made = Made::new(30, 0);
        made.sizes = sizes;
        prop_assert!(plan(&made.closure(), budget).len() <= budget as usize);
    }
}
