use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::Strategy as Splitter;
use super::{Layout, PlannedLayer, Why};
use crate::closure::Closure;
use crate::closure::PathInfo;
use crate::nar_hash::NarHash;
use crate::store_path::StorePath;
use crate::testing::{info, path, path_version};

/// A closure of these names with their sizes and references.
pub(super) fn closure<'a>(
    paths: impl IntoIterator<Item = (&'a str, u64, Vec<&'a str>)>,
) -> Closure {
    let paths = paths
        .into_iter()
        .map(|(name, size, refs)| (path(name), info(size, &refs)));
    Closure::new(paths.collect()).unwrap()
}

/// A path that sorts as its letter does. Nix's base 32 has no `e`.
pub(super) fn letter(name: &str) -> StorePath {
    let hash = name.to_lowercase().repeat(32).replace('e', "dz");
    StorePath::of_base_name(&format!("{}-{name}", &hash[..32])).unwrap()
}

/// A closure of names of one letter, whose hashes sort as the letters do.
pub(super) fn lettered(paths: &[(&str, u64, &str)]) -> Closure {
    let paths = paths.iter().map(|(name, nar_size, refs)| {
        let info = PathInfo {
            nar_hash: NarHash([0; 32]),
            nar_size: *nar_size,
            references: refs.chars().map(|c| letter(&c.to_string())).collect(),
        };
        (letter(name), info)
    });
    Closure::new(paths.collect()).unwrap()
}

/// The names of each layer's paths, sorted.
pub(super) fn names(layers: &[PlannedLayer]) -> Vec<String> {
    let names = |layer: &PlannedLayer| {
        let mut names: Vec<&str> = layer.paths.iter().map(StorePath::name).collect();
        names.sort_unstable();
        names.join(" ")
    };
    layers.iter().map(names).collect()
}

/// Firn's own strategy, which most promises are about.
fn plan(closure: &Closure, budget: u32) -> Vec<PlannedLayer> {
    super::plan(closure, budget, Splitter::Stable)
}

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

    /// Without the path, as Nix has it then: whoever reached it is another path.
    fn without(&self, index: usize) -> Self {
        let mut left = self.rebuilt(index);
        left.names.remove(index);
        left.sizes.remove(index);
        left.versions.remove(index);
        left.references.remove(index);
        for references in &mut left.references {
            let others = references.iter().filter(|r| **r != index);
            *references = others.map(|r| r - usize::from(*r > index)).collect();
        }
        left
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
    for seed in 0..2 {
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

/// Layers of `after` that hold only paths that were there `before`, put together in another way.
fn regrouped(before: &[PlannedLayer], after: &[PlannedLayer]) -> usize {
    let paths: BTreeSet<&StorePath> = before.iter().flat_map(|layer| &layer.paths).collect();
    let known: BTreeSet<&[StorePath]> = before.iter().map(|layer| &layer.paths[..]).collect();
    let old = |layer: &&PlannedLayer| layer.paths.iter().all(|path| paths.contains(path));
    let new = |layer: &&PlannedLayer| !known.contains(&layer.paths[..]);
    after.iter().filter(old).filter(new).count()
}

/// Another size may move a path over the limit of what is large, or the limit over another path:
/// either gives or takes a layer that the trie then has less or more.
#[test]
fn one_path_of_another_size_hardly_ever_moves_more_than_three_layers() {
    let mut more = 0;
    let made = Made::new(PATHS, 2);
    let before = plan(&made.closure(), BUDGET);
    for index in 0..PATHS {
        for (factor, per) in [(11, 10), (9, 10)] {
            let mut changed = made.changed(index);
            changed.sizes[index] = changed.sizes[index] * factor / per;
            let after = plan(&changed.closure(), BUDGET);
            let (layers, bytes) = new_layers(&before, &after);
            assert!(layers <= 5, "path {index}: {layers} new layers");
            more += u32::from(layers > 3);
            // A border may move between two leaves: both are sent.
            let limit = changed.total() / 10 + changed.sizes[index];
            assert!(bytes <= limit, "path {index}: {bytes} of {limit}");
        }
    }
    assert!(more <= 4, "{more} of 400 changes moved four layers or five");
}

#[test]
fn an_added_or_removed_path_regroups_two_layers_on_average() {
    let mut regroupings = 0;
    for seed in 0..2 {
        let all = Made::new(PATHS, seed);
        let large = plan(&all.closure(), BUDGET);
        for index in (0..PATHS).step_by(4) {
            let small = plan(&all.without(index).closure(), BUDGET);
            let (added, removed) = (regrouped(&small, &large), regrouped(&large, &small));
            assert!(
                added <= 10 && removed <= 10,
                "seed {seed}, path {index}: {added} and {removed} regrouped"
            );
            regroupings += added + removed;
        }
    }
    let changes = 2 * 2 * PATHS / 4;
    assert!(
        regroupings <= 2 * changes,
        "{regroupings} layers in {changes} changes"
    );
}

/// Rebuilding users is what Nix does. What must be sent is their size; what goes along unchanged
/// stays within a few groups.
#[test]
fn a_rebuild_sends_little_besides_what_was_rebuilt() {
    let mut sent = 0;
    let mut needed = 0;
    let made = Made::new(PATHS, 0);
    let before = plan(&made.closure(), BUDGET);
    for index in 0..PATHS {
        let rebuilt = made.rebuilt(index);
        sent += new_layers(&before, &plan(&rebuilt.closure(), BUDGET)).1;
        needed += (0..PATHS)
            .filter(|i| rebuilt.versions[*i] != made.versions[*i])
            .map(|i| made.sizes[i])
            .sum::<u64>();
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
    // The old path's layer and the new one's, and one border.
    assert!(new_layers(&layers, &after).0 <= 5);
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

fn any_strategy() -> impl Strategy<Value = Splitter> {
    prop::sample::select(vec![
        Splitter::Stable,
        Splitter::Popularity,
        Splitter::BySize,
    ])
}

proptest! {
    #[test]
    fn every_path_is_in_exactly_one_of_few_layers(
        made in made(), budget in 0..130_u32, strategy in any_strategy(),
    ) {
        let closure = made.closure();
        let layers = super::plan(&closure, budget, strategy);
        prop_assert!(layers.len() <= budget.max(1) as usize);
        let mut paths: Vec<&StorePath> = layers.iter().flat_map(|layer| &layer.paths).collect();
        paths.sort_unstable();
        prop_assert!(closure.paths().keys().eq(paths));
        prop_assert!(layers.iter().all(|layer| !layer.paths.is_empty()));
    }

    #[test]
    fn the_order_in_which_references_are_told_is_of_no_account(
        made in made(), budget in 1..130_u32, strategy in any_strategy(),
    ) {
        let closure = made.closure();
        let mut paths = closure.paths().clone();
        for info in paths.values_mut() {
            info.references.reverse();
            info.references.extend(info.references.first().cloned());
        }
        let told = Closure::new(paths).unwrap();
        prop_assert_eq!(
            super::plan(&closure, budget, strategy),
            super::plan(&told, budget, strategy)
        );
    }

    #[test]
    fn an_unchanged_path_never_moves(
        made in made(), budget in 1..130_u32, index in any::<prop::sample::Index>(),
    ) {
        let before = plan(&made.closure(), budget);
        let after = plan(&made.changed(index.index(made.names.len())).closure(), budget);
        prop_assert_eq!(new_layers(&before, &after).0, 1);
    }

    /// Names and structure stay, so the trie does: a layer without a changed path is what it was.
    #[test]
    fn a_rebuild_leaves_every_layer_without_a_rebuilt_path(
        made in made(), budget in 1..130_u32, index in any::<prop::sample::Index>(),
    ) {
        let before = plan(&made.closure(), budget);
        let after = plan(&made.rebuilt(index.index(made.names.len())).closure(), budget);
        prop_assert_eq!(regrouped(&before, &after), 0);
        prop_assert_eq!(before.len(), after.len());
    }

    #[test]
    fn ignored_paths_are_nowhere_and_declared_ones_where_they_are_declared(
        made in made(),
        budget in 4..130_u32,
        marks in prop::collection::vec(0..4_u8, 80),
        strategy in any_strategy(),
    ) {
        let closure = made.closure();
        let marked = |mark: u8| -> BTreeSet<StorePath> {
            let paths = closure.paths().keys().zip(&marks);
            paths.filter(|(_, m)| **m == mark).map(|(path, _)| path.clone()).collect()
        };
        let layout = Layout {
            strategy,
            max_layers: budget,
            declared: vec![marked(0), marked(1)],
            ignored: marked(2),
            ..Layout::default()
        };
        let layers = layout.plan(&closure).unwrap();
        prop_assert!(layers.len() <= budget as usize);
        let mut paths: Vec<StorePath> = layers.iter().flat_map(|l| l.paths.clone()).collect();
        paths.extend(marked(2));
        paths.sort_unstable();
        prop_assert!(closure.paths().keys().eq(&paths));
        for (mark, number) in [(0, 1), (1, 2)] {
            let why = Why::Declared { number };
            let found = layers.iter().find(|layer| layer.why == why);
            let held = found.map(|layer| layer.paths.clone()).unwrap_or_default();
            prop_assert_eq!(held, marked(mark).into_iter().collect::<Vec<_>>());
        }
    }

    #[test]
    fn sizes_beyond_any_disk_are_planned_too(
        sizes in prop::collection::vec(any::<u64>(), 30),
        budget in 1..40_u32,
        strategy in any_strategy(),
    ) {
        let mut made = Made::new(30, 0);
        made.sizes = sizes;
        let layers = super::plan(&made.closure(), budget, strategy);
        prop_assert!(layers.len() <= budget as usize);
    }
}
