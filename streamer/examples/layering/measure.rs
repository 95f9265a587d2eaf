//! What a change costs. Pure.

use std::collections::{BTreeMap, BTreeSet};

use firn_streamer::layering::{Strategy, plan};
use firn_streamer::store_path::StorePath;

use crate::change::{Reach, exchange};
use crate::series::{Image, closure};

/// Layers by their paths, with what each takes compressed.
#[derive(Debug)]
pub(crate) struct Layers(BTreeMap<Vec<StorePath>, u64>);

impl Layers {
    pub(crate) fn of(image: &Image, budget: u32, strategy: Strategy) -> Self {
        let sizes = sizes(image);
        let planned = plan(&closure(image), budget, strategy);
        let layers = planned.into_iter().map(|layer| {
            let size = layer.paths.iter().map(|path| sizes[path]).sum();
            (layer.paths, size)
        });
        Self(layers.collect())
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// What of them `before` does not have: how many, and their bytes.
    fn beyond(&self, before: &Self) -> (usize, u64) {
        let new = self
            .0
            .iter()
            .filter(|(paths, _)| !before.0.contains_key(*paths));
        new.fold((0, 0), |(count, bytes), (_, size)| {
            (count + 1, bytes + size)
        })
    }
}

fn sizes(image: &Image) -> BTreeMap<StorePath, u64> {
    let nodes = image.values();
    nodes.map(|node| (node.path(), node.compressed)).collect()
}

/// One change.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cost {
    /// Bytes of the paths that are new.
    pub(crate) changed: u64,
    /// Bytes of the layers that are new.
    pub(crate) sent: u64,
    pub(crate) layers: usize,
}

pub(crate) fn cost(
    before: (&Image, &Layers),
    after: &Image,
    budget: u32,
    strategy: Strategy,
) -> Cost {
    let old = sizes(before.0);
    let new = sizes(after);
    let changed = new.iter().filter(|(path, _)| !old.contains_key(*path));
    let (layers, sent) = Layers::of(after, budget, strategy).beyond(before.1);
    Cost {
        changed: changed.map(|(_, size)| size).sum(),
        sent,
        layers,
    }
}

/// Each path of `image` changed in turn, into what it is in `newer`.
pub(crate) fn each_path(
    image: &Image,
    newer: &Image,
    budget: u32,
    strategy: Strategy,
    reach: Reach,
) -> Vec<Cost> {
    let layers = Layers::of(image, budget, strategy);
    let changes = image.keys().map(|name| {
        let after = exchange(image, newer, name, reach);
        cost((image, &layers), &after, budget, strategy)
    });
    changes.collect()
}

/// The paths that have another version in `newer` exchanged one after the other, each upon what
/// was exchanged before.
pub(crate) fn one_by_one(
    image: &Image,
    newer: &Image,
    budget: u32,
    strategy: Strategy,
    reach: Reach,
) -> Vec<Cost> {
    let differs = |name: &&String| {
        newer
            .get(*name)
            .is_some_and(|n| n.name != image[*name].name)
    };
    let mut now = image.clone();
    let mut layers = Layers::of(&now, budget, strategy);
    let mut costs = Vec::new();
    for name in image.keys().filter(differs) {
        let next = exchange(&now, newer, name, reach);
        costs.push(cost((&now, &layers), &next, budget, strategy));
        layers = Layers::of(&next, budget, strategy);
        now = next;
    }
    costs
}

/// The value below which `percent` of them lie.
pub(crate) fn percentile(values: impl IntoIterator<Item = u64>, percent: usize) -> u64 {
    let mut values: Vec<u64> = values.into_iter().collect();
    values.sort_unstable();
    let rank = (values.len() * percent).div_ceil(100).max(1);
    values.get(rank - 1).copied().unwrap_or_default()
}

/// As if each path had a layer: nothing can share more.
pub(crate) fn ceiling(images: &[Image]) -> (u64, u64) {
    let single = images.iter().map(|image| {
        let paths = sizes(image).into_iter();
        Layers(paths.map(|(path, size)| (vec![path], size)).collect())
    });
    shared(&single.collect::<Vec<_>>())
}

/// Of several images, the bytes that need not be stored or sent because another one has the same
/// layer, and all bytes.
pub(crate) fn shared(images: &[Layers]) -> (u64, u64) {
    let mut known: BTreeSet<&Vec<StorePath>> = BTreeSet::new();
    let (mut shared, mut total) = (0, 0);
    for (paths, size) in images.iter().flat_map(|layers| &layers.0) {
        total += size;
        if !known.insert(paths) {
            shared += size;
        }
    }
    (shared, total)
}
