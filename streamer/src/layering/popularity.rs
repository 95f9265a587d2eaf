//! nix2container's way: paths by popularity, a layer each, and one for all the others. Pure.
//!
//! A path's popularity is the number of ways in the graph that lead to it, itself included. That
//! grows exponentially with the number of diamonds: 128 bits that stop at their end instead of
//! nix2container's 64 that wrap.

use std::cmp::Reverse;

use super::{Group, Nodes, Why};

/// At most `budget` groups, the most popular first.
pub(super) fn split(nodes: &Nodes<'_>, budget: usize) -> Vec<Group> {
    let mut ranked: Vec<usize> = ranked(nodes)
        .into_iter()
        .filter(|node| nodes.is_wanted(*node))
        .collect();
    let single = if ranked.len() > budget {
        budget.saturating_sub(1)
    } else {
        ranked.len()
    };
    let rest = ranked.split_off(single);
    let mut groups: Vec<Group> = ranked
        .into_iter()
        .zip(1..)
        .map(|(node, rank)| (vec![node], Why::Popular { rank }))
        .collect();
    if !rest.is_empty() {
        let why = Why::LessPopular {
            paths: rest.len(),
            rank: single + 1,
        };
        groups.push((rest, why));
    }
    groups
}

/// All paths, the most popular first. Of two that are equally popular, the one first that appears
/// later when the sorted paths are read, each followed by its sorted references.
fn ranked(nodes: &Nodes<'_>) -> Vec<usize> {
    let mut popularity = vec![1_u128; nodes.paths.len()];
    for user in nodes.graph.order.iter().rev() {
        let ways = popularity.get(*user).copied().unwrap_or_default();
        for reference in nodes.references(*user) {
            if let Some(theirs) = popularity.get_mut(*reference) {
                *theirs = theirs.saturating_add(ways);
            }
        }
    }
    let appearance = appearance(nodes);
    let mut ranked: Vec<usize> = (0..nodes.paths.len()).collect();
    ranked.sort_by_key(|node| Reverse((popularity.get(*node), appearance.get(*node))));
    ranked
}

/// When each path appears first.
fn appearance(nodes: &Nodes<'_>) -> Vec<usize> {
    let mut found = vec![None; nodes.paths.len()];
    let mut next = 0;
    for path in 0..nodes.paths.len() {
        for node in std::iter::once(&path).chain(nodes.references(path)) {
            if let Some(slot @ None) = found.get_mut(*node) {
                *slot = Some(next);
                next += 1;
            }
        }
    }
    found.into_iter().map(Option::unwrap_or_default).collect()
}

#[cfg(test)]
mod tests {
    use super::super::{Strategy, plan};
    use crate::closure::Closure;
    use crate::layering::tests::{lettered, names};

    /// Of nix2container's own tests: A1 B2 C3 D4 E6 F11 G2.
    #[test]
    fn paths_come_in_the_order_of_nix2container() {
        let closure = lettered(&[
            ("A", 1, "BG"),
            ("B", 1, "CE"),
            ("C", 1, "DE"),
            ("D", 1, "F"),
            ("E", 1, "F"),
            ("F", 1, ""),
            ("G", 1, ""),
        ]);
        let layers = plan(&closure, 7, Strategy::Popularity);
        assert_eq!(names(&layers), ["F", "E", "D", "C", "G", "B", "A"]);
        let layers = plan(&closure, 3, Strategy::Popularity);
        assert_eq!(names(&layers), ["F", "E", "A B C D G"]);
        assert_eq!(
            layers[2].why.to_string(),
            "5 paths from popularity rank 3 on"
        );
        let layers = plan(&closure, 1, Strategy::Popularity);
        assert_eq!(names(&layers), ["A B C D E F G"]);
    }

    /// A ladder of 200 diamonds: 2^200 ways.
    #[test]
    fn more_ways_than_any_number_holds_are_most_popular() {
        let rungs = 200_u32;
        let name = |kind: char, rung: u32| format!("{kind}{rung:03}");
        let mut made = Vec::new();
        for rung in 0..rungs {
            let below = if rung == 0 {
                vec![]
            } else {
                vec![name('l', rung - 1), name('r', rung - 1)]
            };
            made.push((name('l', rung), below.clone()));
            made.push((name('r', rung), below));
        }
        let closure: Closure = crate::layering::tests::closure(
            made.iter()
                .map(|(name, refs)| (name.as_str(), 1, refs.iter().map(String::as_str).collect())),
        );
        let layers = plan(&closure, 500, Strategy::Popularity);
        let first: Vec<String> = names(&layers).into_iter().take(2).collect();
        // Saturated ways are equal; what appears later comes first, and the top appears early.
        assert_eq!(layers.len(), 400);
        assert!(
            first
                .iter()
                .all(|name| name[1..].parse::<u32>().unwrap() < 100),
            "{first:?}"
        );
        assert_eq!(names(&layers).last().unwrap()[1..], *"199");
    }
}
