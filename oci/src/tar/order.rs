//! The order of entries, and what watches over it. Pure.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use super::Format;

/// The order of entries: component by component, each by its bytes. A directory comes right
/// before what is in it, and `a/c` before `a-b`.
pub fn compare_names(a: &[u8], b: &[u8]) -> Ordering {
    a.split(|byte| *byte == b'/')
        .cmp(b.split(|byte| *byte == b'/'))
}

/// As Python sorts paths: by the code points of each component, where a byte that is no UTF-8
/// counts as the surrogate that Python reads it as (PEP 383).
pub(super) fn compare_python_names(a: &[u8], b: &[u8]) -> Ordering {
    let components = |name| <[u8]>::split(name, |byte| *byte == b'/').map(code_points);
    let (mut a, mut b) = (components(a), components(b));
    loop {
        match (a.next(), b.next()) {
            (None, None) => return Ordering::Equal,
            (None, Some(_)) => return Ordering::Less,
            (Some(_), None) => return Ordering::Greater,
            (Some(a), Some(b)) => match a.cmp(b) {
                Ordering::Equal => {}
                unequal => return unequal,
            },
        }
    }
}

fn code_points(text: &[u8]) -> impl Iterator<Item = u32> {
    text.utf8_chunks().flat_map(|chunk| {
        let escaped = chunk.invalid().iter().map(|byte| 0xDC00 + u32::from(*byte));
        chunk.valid().chars().map(u32::from).chain(escaped)
    })
}

/// Sees to it that each entry comes once and in its place. Memory: one name, and in
/// [`Format::Python`] one for each subtree.
#[derive(Debug)]
pub(super) struct Order {
    format: Format,
    previous: Option<Vec<u8>>,
    subtree: Subtree,
    roots: BTreeSet<Vec<u8>>,
}

#[derive(Debug)]
enum Subtree {
    /// One order for everything.
    None,
    /// The next entry is its root.
    Begins,
    Of(Vec<u8>),
}

impl Order {
    pub(super) const fn new(format: Format) -> Self {
        Self {
            format,
            previous: None,
            subtree: Subtree::None,
            roots: BTreeSet::new(),
        }
    }

    pub(super) fn begin_subtree(&mut self) {
        if self.format == Format::Python {
            self.subtree = Subtree::Begins;
        }
    }

    /// `Err` is the entry that comes too late for this one.
    pub(super) fn enter(&mut self, name: &[u8]) -> Result<(), Vec<u8>> {
        match &self.subtree {
            Subtree::Begins => {
                if let Some(other) = self.overlapping(name) {
                    return Err(other.to_vec());
                }
                self.roots.insert(name.to_vec());
                self.subtree = Subtree::Of(name.to_vec());
            }
            Subtree::Of(root) if !is_in(name, root) => return Err(root.clone()),
            Subtree::None | Subtree::Of(_) => {
                if let Some(previous) = &self.previous
                    && self.format.compare_names(previous, name) != Ordering::Less
                {
                    return Err(previous.clone());
                }
            }
        }
        let mut previous = self.previous.take().unwrap_or_default();
        previous.clear();
        previous.extend_from_slice(name);
        self.previous = Some(previous);
        Ok(())
    }

    /// A subtree that holds `name` or lies within it.
    fn overlapping(&self, name: &[u8]) -> Option<&[u8]> {
        let slashes = name.iter().enumerate().filter(|(_, byte)| **byte == b'/');
        let above = slashes
            .map(|(at, _)| name.get(..at).unwrap_or_default())
            .chain([name])
            .find_map(|prefix| self.roots.get(prefix));
        let within = [name, b"/"].concat();
        let below = || self.roots.range(within.clone()..).next();
        above
            .or_else(|| below().filter(|root| is_in(root, name)))
            .map(Vec::as_slice)
    }
}

fn is_in(name: &[u8], root: &[u8]) -> bool {
    name.strip_prefix(root)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn python_sorts_what_is_no_utf8_after_most_and_before_the_last_characters() {
        let mut names: Vec<&[u8]> = vec![
            b"a\xff",
            "a\u{d7ff}".as_bytes(),
            "a\u{e000}".as_bytes(),
            b"a",
            b"a/\x80",
            b"a/z",
            b"a-b",
        ];
        names.sort_by(|a, b| Format::Python.compare_names(a, b));
        assert_eq!(
            names,
            [
                &b"a"[..],
                b"a/z",
                b"a/\x80",
                b"a-b",
                "a\u{d7ff}".as_bytes(),
                b"a\xff",
                "a\u{e000}".as_bytes(),
            ]
        );
    }

    #[test]
    fn subtrees_come_in_any_order_and_never_overlap() {
        let mut order = Order::new(Format::Python);
        let mut subtree = |names: &[&str]| {
            order.begin_subtree();
            names.iter().try_for_each(|name| {
                let entered = order.enter(name.as_bytes());
                entered.map_err(|other| String::from_utf8(other).unwrap())
            })
        };
        assert_eq!(subtree(&["s/b", "s/b/x", "s/b/y"]), Ok(()));
        assert_eq!(subtree(&["s/a", "s/a/x"]), Ok(()));
        assert_eq!(subtree(&["s/a-b"]), Ok(()));
        assert_eq!(subtree(&["s/c", "s/a/y"]), Err("s/c".to_owned()));
        assert_eq!(subtree(&["s/d", "s/d/y", "s/d/x"]), Err("s/d/y".to_owned()));
        assert_eq!(subtree(&["s/b"]), Err("s/b".to_owned()));
        assert_eq!(subtree(&["s/b/x/z"]), Err("s/b".to_owned()));
        assert_eq!(subtree(&["s"]), Err("s/a".to_owned()));
    }

    #[test]
    fn other_formats_have_one_order() {
        for format in [Format::Nar1, Format::Go] {
            let mut order = Order::new(format);
            assert_eq!(order.enter(b"b"), Ok(()));
            order.begin_subtree();
            assert_eq!(order.enter(b"a"), Err(b"b".to_vec()));
        }
    }
}
