//! The closure: every store path an image needs, with sizes, hashes and references, checked for
//! being closed and free of cycles. Pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::nar_hash::NarHash;
use crate::store_path::StorePath;

/// Most paths of a closure. The largest desktop closures have about 5,000; this bounds memory
/// against a build that writes its own closure.
pub const PATHS_MAX: usize = 100_000;

/// What Nix knows of one store path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PathInfo {
    /// Hash of its NAR serialisation.
    pub nar_hash: NarHash,
    /// Size of its NAR serialisation, in bytes.
    pub nar_size: u64,
    /// Store paths it mentions; it may mention itself.
    pub references: Vec<StorePath>,
}

/// A closed set of store paths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closure {
    paths: BTreeMap<StorePath, PathInfo>,
}

/// Why a set of paths is no closure.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidClosure {
    /// A reference leads out of it.
    #[error("{path} refers to {missing}, which is not in the closure")]
    NotClosed {
        /// The path with the reference.
        path: StorePath,
        /// What it refers to.
        missing: StorePath,
    },
    /// References go round in a circle.
    #[error("the references of {0} go round in a circle")]
    Cycle(StorePath),
    /// More paths than [`PATHS_MAX`].
    #[error("the closure has {0} store paths; at most {PATHS_MAX} are supported")]
    TooLarge(usize),
}

impl Closure {
    /// Checks that `paths` are closed and without cycles.
    pub fn new(paths: BTreeMap<StorePath, PathInfo>) -> Result<Self, InvalidClosure> {
        if paths.len() > PATHS_MAX {
            return Err(InvalidClosure::TooLarge(paths.len()));
        }
        for (path, info) in &paths {
            if let Some(missing) = info.references.iter().find(|r| !paths.contains_key(r)) {
                return Err(InvalidClosure::NotClosed {
                    path: path.clone(),
                    missing: missing.clone(),
                });
            }
        }
        let closure = Self { paths };
        closure.graph().map_err(InvalidClosure::Cycle)?;
        Ok(closure)
    }

    /// The paths, sorted by base name.
    pub fn paths(&self) -> &BTreeMap<StorePath, PathInfo> {
        &self.paths
    }

    /// Whether `path` is in it.
    pub fn contains(&self, path: &StorePath) -> bool {
        self.paths.contains_key(path)
    }

    /// References as positions in [`Self::paths`], and an order in which every path comes after
    /// what it refers to. References of a path to itself are left out. Errors: a path on a cycle.
    pub fn graph(&self) -> Result<Graph, StorePath> {
        let position: BTreeMap<&StorePath, usize> = self.paths.keys().zip(0..).collect();
        let references: Vec<Vec<usize>> = self
            .paths
            .iter()
            .map(|(path, info)| {
                let others = info.references.iter().filter(|r| *r != path);
                let mut found: Vec<usize> =
                    others.filter_map(|r| position.get(r).copied()).collect();
                found.sort_unstable();
                found.dedup();
                found
            })
            .collect();
        let mut users = vec![Vec::new(); references.len()];
        let mut waiting: Vec<usize> = references.iter().map(Vec::len).collect();
        for (path, refs) in references.iter().enumerate() {
            for reference in refs {
                if let Some(list) = users.get_mut(*reference) {
                    list.push(path);
                }
            }
        }
        let mut order: Vec<usize> = (0..references.len())
            .filter(|path| waiting.get(*path) == Some(&0))
            .collect();
        let mut next = 0;
        while let Some(path) = order.get(next).copied() {
            next += 1;
            for user in users.get(path).into_iter().flatten() {
                if let Some(count) = waiting.get_mut(*user) {
                    *count -= 1;
                    if *count == 0 {
                        order.push(*user);
                    }
                }
            }
        }
        match self
            .paths
            .keys()
            .zip(&waiting)
            .find(|(_, count)| **count > 0)
        {
            Some((stuck, _)) => Err(stuck.clone()),
            None => Ok(Graph { references, order }),
        }
    }
}

/// A closure's references by position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Graph {
    /// For each path, the positions of what it refers to, sorted.
    pub references: Vec<Vec<usize>>,
    /// Positions; references first.
    pub order: Vec<usize>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{info, path};

    #[test]
    fn references_come_first() {
        let paths = [
            (path("app"), info(1, &["lib", "app"])),
            (path("lib"), info(1, &["libc"])),
            (path("libc"), info(1, &[])),
        ];
        let closure = Closure::new(paths.into()).unwrap();
        let names: Vec<&str> = closure.paths().keys().map(StorePath::name).collect();
        let graph = closure.graph().unwrap();
        let order: Vec<&str> = graph.order.iter().map(|i| names[*i]).collect();
        assert_eq!(order, ["libc", "lib", "app"]);
    }

    #[test]
    fn a_circle_is_refused() {
        let paths = [(path("a"), info(1, &["b"])), (path("b"), info(1, &["a"]))];
        assert!(matches!(
            Closure::new(paths.into()),
            Err(InvalidClosure::Cycle(_))
        ));
    }

    #[test]
    fn a_reference_out_of_the_closure_is_refused() {
        let paths = [(path("a"), info(1, &["b"]))];
        assert_eq!(
            Closure::new(paths.into()),
            Err(InvalidClosure::NotClosed {
                path: path("a"),
                missing: path("b")
            })
        );
    }
}
