//! What a user says about the layers of an image, and what follows from it. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::{Nodes, PlannedLayer, Strategy, Why};
use crate::closure::Closure;
use crate::store_path::StorePath;

/// How a closure is to be laid out. The numbers are of layers of the image as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// For everything that is not declared.
    pub strategy: Strategy,
    /// Most layers of the image.
    pub max_layers: u32,
    /// Layers that the image has besides the closure's: of a base image, of files at its root, of
    /// the Nix database.
    pub other_layers: u32,
    /// Layers to leave free for images that are built upon this one.
    pub head_room: u32,
    /// Layers the user declared: they come first, in this order. A path goes to the first that
    /// names it; a layer that has none left is no layer.
    pub declared: Vec<BTreeSet<StorePath>>,
    /// Paths that are in no layer, whoever names them.
    pub ignored: BTreeSet<StorePath>,
}

/// Docker's limit is 127; a third party's `FROM` needs some of them.
const MAX_LAYERS: u32 = 100;

impl Default for Layout {
    fn default() -> Self {
        Self {
            strategy: Strategy::default(),
            max_layers: MAX_LAYERS,
            other_layers: 0,
            head_room: 0,
            declared: Vec::new(),
            ignored: BTreeSet::new(),
        }
    }
}

/// Why a layout cannot be had for a closure.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidLayout {
    /// More layers are asked for than there may be.
    #[error(
        "the image needs at least {needed} layers and may have {max_layers}: {declared} declared, \
         {other_layers} of a base image or its own files, {head_room} kept free, {rest} for the \
         other store paths; allow more layers, declare fewer or keep fewer free"
    )]
    TooManyLayers {
        /// The sum.
        needed: u64,
        /// [`Layout::max_layers`].
        max_layers: u32,
        /// Declared layers that hold something.
        declared: usize,
        /// [`Layout::other_layers`].
        other_layers: u32,
        /// [`Layout::head_room`].
        head_room: u32,
        /// 1 if paths are left that no layer was declared for, else 0.
        rest: u32,
    },
    /// A declared layer names a path that the image does not have.
    #[error(
        "declared layer {number} names {path}, which is not in the closure of the image: \
         remove it there, or let the image depend on it"
    )]
    NotInClosure {
        /// The layer, from 1.
        number: usize,
        /// What it names.
        path: StorePath,
    },
}

impl Layout {
    /// The layers of `closure`: each of its paths that is not ignored is in exactly one. At most
    /// `max_layers - other_layers - head_room` of them. Errors: the layout asks for what the
    /// closure or the numbers do not give.
    pub fn plan(&self, closure: &Closure) -> Result<Vec<PlannedLayer>, InvalidLayout> {
        let placed = self.placed(closure)?;
        let mut declared: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (position, path) in closure.paths().keys().enumerate() {
            if let Some(number) = placed.get(path) {
                declared.entry(*number).or_default().push(position);
            }
        }
        let nodes = Nodes::of(closure, |path| {
            !placed.contains_key(path) && !self.ignored.contains(path)
        });
        let is_rest = nodes.wanted.contains(&true);
        let budget = self.budget(declared.len(), is_rest)?;
        let mut layers: Vec<PlannedLayer> = declared
            .into_iter()
            .map(|(number, members)| nodes.layer(members, Why::Declared { number }))
            .collect();
        if is_rest {
            layers.extend(nodes.plan(budget, self.strategy));
        }
        Ok(layers)
    }

    /// Which declared layer each path is in, from 1.
    fn placed(&self, closure: &Closure) -> Result<BTreeMap<&StorePath, usize>, InvalidLayout> {
        let mut placed = BTreeMap::new();
        for (number, paths) in (1..).zip(&self.declared) {
            for path in paths {
                if !closure.contains(path) {
                    return Err(InvalidLayout::NotInClosure {
                        number,
                        path: path.clone(),
                    });
                }
                if !self.ignored.contains(path) {
                    placed.entry(path).or_insert(number);
                }
            }
        }
        Ok(placed)
    }

    /// What is left for the paths that no layer was declared for.
    fn budget(&self, declared: usize, is_rest: bool) -> Result<u32, InvalidLayout> {
        let taken = u64::from(self.other_layers)
            + u64::from(self.head_room)
            + u64::try_from(declared).unwrap_or(u64::MAX / 2);
        let rest = u32::from(is_rest);
        let needed = taken + u64::from(rest);
        let left = u64::from(self.max_layers).checked_sub(taken);
        match left.and_then(|left| u32::try_from(left).ok()) {
            Some(left) if left >= rest => Ok(left),
            _ => Err(InvalidLayout::TooManyLayers {
                needed,
                max_layers: self.max_layers,
                declared,
                other_layers: self.other_layers,
                head_room: self.head_room,
                rest,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layering::tests::{letter, lettered, names};

    fn set(names: &[&str]) -> BTreeSet<StorePath> {
        names.iter().map(|name| letter(name)).collect()
    }

    fn flat() -> Closure {
        lettered(&[
            ("A", 9_000_000, ""),
            ("B", 9_000_000, ""),
            ("C", 9_000_000, ""),
            ("D", 9_000_000, ""),
        ])
    }

    #[test]
    fn declared_layers_come_first_and_each_path_once() {
        let layout = Layout {
            declared: vec![set(&["D", "B"]), set(&["B"]), set(&["B", "A"])],
            ignored: set(&["A"]),
            ..Layout::default()
        };
        let layers = layout.plan(&flat()).unwrap();
        assert_eq!(names(&layers), ["B D", "C"]);
        assert_eq!(layers[0].why, Why::Declared { number: 1 });
        let layout = Layout {
            declared: vec![set(&["D", "B"]), set(&["B"]), set(&["B", "A"])],
            ..Layout::default()
        };
        let layers = layout.plan(&flat()).unwrap();
        assert_eq!(names(&layers), ["B D", "A", "C"]);
        assert_eq!(layers[1].why, Why::Declared { number: 3 });
    }

    #[test]
    fn what_is_kept_free_is_free() {
        let layout = |max_layers, head_room| Layout {
            max_layers,
            head_room,
            ..Layout::default()
        };
        assert_eq!(layout(4, 0).plan(&flat()).unwrap().len(), 4);
        assert_eq!(layout(4, 1).plan(&flat()).unwrap().len(), 3);
        assert_eq!(layout(4, 3).plan(&flat()).unwrap().len(), 1);
    }

    #[test]
    fn too_many_layers_are_refused_with_the_numbers() {
        let layout = Layout {
            max_layers: 6,
            other_layers: 2,
            head_room: 3,
            declared: vec![set(&["A"])],
            ..Layout::default()
        };
        let refused = layout.plan(&flat()).unwrap_err().to_string();
        assert_eq!(
            refused,
            "the image needs at least 7 layers and may have 6: 1 declared, 2 of a base image or \
             its own files, 3 kept free, 1 for the other store paths; allow more layers, declare \
             fewer or keep fewer free"
        );
        let all = Layout {
            declared: vec![set(&["A", "B", "C", "D"])],
            ..layout
        };
        assert_eq!(all.plan(&flat()).unwrap().len(), 1);
    }

    #[test]
    fn a_declared_path_that_the_image_lacks_is_named() {
        let layout = Layout {
            declared: vec![BTreeSet::new(), set(&["E"])],
            ..Layout::default()
        };
        let refused = layout.plan(&flat()).unwrap_err().to_string();
        assert!(
            refused.contains("declared layer 2 names /nix/store/"),
            "{refused}"
        );
    }
}
