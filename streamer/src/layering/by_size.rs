//! The way of nixpkgs since 2024: the largest paths become the roots of layers. Pure.
//!
//! Each path has a set of *owners*, empty at first. The largest path that is no root yet becomes
//! one: it owns itself alone; each thing below it loses those owners that use the new root, and
//! the root becomes its owner unless something below the root owns it already. Paths with equal
//! owners are a layer. That goes on while there are not too many layers.
//!
//! Said explicitly here, left open there: of equally large paths the one that sorts last is first;
//! layers whose closures are equally large are in the order of their names; sets of owners that
//! only ignored paths have do not count as layers.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::{Group, Nodes, Why};

/// At most `budget` groups, those with the smallest closures first.
pub(super) fn split(nodes: &Nodes<'_>, budget: usize) -> Vec<Group> {
    let mut owned = Owned::new(nodes);
    let mut roots: Vec<usize> = (0..nodes.paths.len()).collect();
    roots.sort_unstable_by_key(|node| Reverse((nodes.size(*node), *node)));
    // Every root keeps a set of owners of its own, so this ends after `budget` steps or so.
    for root in roots {
        let undo = owned.make_root(root);
        if owned.layers() > budget {
            owned.put(undo);
            break;
        }
    }
    owned.into_groups()
}

/// Owners of a path, sorted.
type Owners = Vec<usize>;

struct Owned<'n> {
    nodes: &'n Nodes<'n>,
    users: Vec<Vec<usize>>,
    owners: Vec<Owners>,
    /// How many wanted paths have these owners.
    counts: BTreeMap<Owners, usize>,
}

impl<'n> Owned<'n> {
    fn new(nodes: &'n Nodes<'n>) -> Self {
        let mut users = vec![Vec::new(); nodes.paths.len()];
        for user in 0..nodes.paths.len() {
            for reference in nodes.references(user) {
                if let Some(list) = users.get_mut(*reference) {
                    list.push(user);
                }
            }
        }
        let wanted = nodes.wanted.iter().filter(|wanted| **wanted).count();
        Self {
            nodes,
            users,
            owners: vec![Owners::new(); nodes.paths.len()],
            counts: BTreeMap::from([(Owners::new(), wanted)]),
        }
    }

    fn layers(&self) -> usize {
        self.counts.len()
    }

    /// Returns what was before.
    fn make_root(&mut self, root: usize) -> Vec<(usize, Owners)> {
        let below = self.reach(&[root], |node| self.nodes.references(node));
        let above = self.reach(&[root], |node| {
            self.users.get(node).map_or(&[], Vec::as_slice)
        });
        let is = |set: &[bool], node: &usize| set.get(*node) == Some(&true);
        let mut new = vec![(root, vec![root])];
        for (node, owners) in self.owners.iter().enumerate() {
            if !is(&below, &node) {
                continue;
            }
            let mut left: Owners = owners.iter().copied().filter(|o| !is(&above, o)).collect();
            if !left.iter().any(|owner| is(&below, owner)) {
                let place = left.partition_point(|owner| *owner < root);
                left.insert(place, root);
            }
            if left != *owners {
                new.push((node, left));
            }
        }
        self.put(new)
    }

    /// Which nodes `next` leads to from those of `start`, without these themselves. Each node is
    /// seen once, however many there are at the start.
    fn reach<'s>(&'s self, start: &[usize], next: impl Fn(usize) -> &'s [usize]) -> Vec<bool> {
        let mut found = vec![false; self.owners.len()];
        let mut open = start.to_vec();
        while let Some(node) = open.pop() {
            for other in next(node) {
                if let Some(slot @ false) = found.get_mut(*other) {
                    *slot = true;
                    open.push(*other);
                }
            }
        }
        found
    }

    fn put(&mut self, new: Vec<(usize, Owners)>) -> Vec<(usize, Owners)> {
        let mut old = Vec::with_capacity(new.len());
        for (node, owners) in new {
            let Some(slot) = self.owners.get_mut(node) else {
                continue;
            };
            let before = std::mem::replace(slot, owners.clone());
            if self.nodes.is_wanted(node) {
                *self.counts.entry(owners).or_default() += 1;
                if let Some(count) = self.counts.get_mut(&before) {
                    *count -= 1;
                    if *count == 0 {
                        self.counts.remove(&before);
                    }
                }
            }
            old.push((node, before));
        }
        old
    }

    fn into_groups(self) -> Vec<Group> {
        let mut members: BTreeMap<&Owners, Vec<usize>> = BTreeMap::new();
        for (node, owners) in self.owners.iter().enumerate() {
            members.entry(owners).or_default().push(node);
        }
        let mut layers: Vec<_> = members
            .into_iter()
            .map(|(owners, mut members)| {
                let closure = self.closure_size(&members);
                members.retain(|node| self.nodes.is_wanted(*node));
                let path = |node: &usize| self.nodes.paths.get(*node);
                let mut names: Vec<_> = members
                    .iter()
                    .filter_map(path)
                    .map(|path| (path.name(), path.hash_part()))
                    .collect();
                names.sort_unstable();
                let why = why(owners, members.len());
                (closure, names, members, why)
            })
            .filter(|(_, _, members, _)| !members.is_empty())
            .collect();
        layers.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
        let groups = layers.into_iter();
        groups.map(|(_, _, members, why)| (members, why)).collect()
    }

    fn closure_size(&self, members: &[usize]) -> u64 {
        let mut found = self.reach(members, |node| self.nodes.references(node));
        for member in members {
            if let Some(slot) = found.get_mut(*member) {
                *slot = true;
            }
        }
        let all = self.nodes.sizes.iter().zip(found);
        all.filter(|(_, found)| *found)
            .fold(0, |sum: u64, (size, _)| sum.saturating_add(*size))
    }
}

fn why(owners: &[usize], paths: usize) -> Why {
    match owners.len() {
        0 => Why::Rest { paths },
        1 => Why::LargeWithOwn {
            others: paths.saturating_sub(1),
        },
        users => Why::SharedBy { users },
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::{Layout, Strategy};
    use crate::closure::Closure;
    use crate::layering::tests::{closure, names};
    use crate::testing::{info, path};

    #[test]
    fn layers_are_those_of_nixpkgs() {
        let closure = closure([
            ("glibc", 30, vec![]),
            ("zlib", 1, vec!["glibc"]),
            ("openssl", 8, vec!["glibc", "zlib"]),
            ("python", 90, vec!["glibc", "zlib", "openssl", "readline"]),
            ("readline", 2, vec!["glibc", "ncurses"]),
            ("ncurses", 3, vec!["glibc"]),
            ("bash", 5, vec!["glibc", "readline"]),
            ("app", 4, vec!["python", "bash", "openssl"]),
            ("conf", 1, vec!["app"]),
        ]);
        let of = |max_layers| {
            let layout = Layout {
                strategy: Strategy::BySize,
                max_layers,
                ignored: BTreeSet::from([path("conf")]),
                ..Layout::default()
            };
            names(&layout.plan(&closure).unwrap()).join(" | ")
        };
        let five = "glibc | openssl zlib | ncurses python readline | app bash";
        for (limit, layers) in [
            (1, "app bash glibc ncurses openssl python readline zlib"),
            (2, "glibc ncurses openssl python readline zlib | app bash"),
            (3, "glibc | ncurses openssl python readline zlib | app bash"),
            (4, five),
            (5, five),
            (
                6,
                "glibc | ncurses readline | openssl zlib | bash | python | app",
            ),
            (
                7,
                "glibc | ncurses | readline | openssl zlib | bash | python | app",
            ),
        ] {
            assert_eq!(of(limit), layers, "limit {limit}");
        }
    }

    /// One group has nearly all paths then; looking below each of them by itself took 11 s.
    #[test]
    fn twenty_thousand_paths_are_divided_in_a_moment() {
        let names: Vec<String> = (0..20_000).map(|number| format!("p{number}")).collect();
        let paths = names.iter().enumerate().map(|(number, name)| {
            let references = (1..4).filter_map(|back| names.get(number.checked_sub(back * 7)?));
            (
                path(name),
                info(
                    1 + number as u64,
                    &references.map(String::as_str).collect::<Vec<_>>(),
                ),
            )
        });
        let closure = Closure::new(paths.collect()).unwrap();
        let begun = std::time::Instant::now();
        let layers = super::super::plan(&closure, 100, Strategy::BySize);
        assert!(begun.elapsed().as_secs() < 20, "{:?}", begun.elapsed());
        assert!(layers.len() > 50 && layers.len() <= 100);
        let paths: usize = layers.iter().map(|layer| layer.paths.len()).sum();
        assert_eq!(paths, 20_000);
    }

    #[test]
    fn equally_large_paths_are_taken_in_one_order() {
        let flat = closure(["a", "b", "c", "d"].map(|name| (name, 10, vec![])));
        let layers = super::super::plan(&flat, 3, Strategy::BySize);
        let again = super::super::plan(&flat, 3, Strategy::BySize);
        assert_eq!(layers.len(), 3);
        assert_eq!(layers, again);
        assert_eq!(layers[2].why.to_string(), "2 paths that no large path uses");
    }
}
