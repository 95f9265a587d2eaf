use std::fmt::Write as _;

use proptest::prelude::*;
use sha2::{Digest as _, Sha256};

use super::*;
use crate::nar_hash::NarHash;
use crate::testing::{info, path};

fn database(closure: &Closure) -> NixDatabase {
    NixDatabase {
        paths: closure.paths().keys().cloned().collect(),
        uid: 0,
        gid: 0,
        has_base: false,
    }
}

/// A path that refers to itself, one that two refer to, and one that refers to both.
fn closure() -> Closure {
    let mut app = info(300, &["app", "lib", "libc"]);
    app.nar_hash = NarHash([7; 32]);
    let paths = [
        (path("app"), app),
        (path("lib"), info(200, &["libc"])),
        (path("libc"), info(70_000, &["libc"])),
    ];
    Closure::new(paths.into()).unwrap()
}

/// Fixed for ever: published layers hold these bytes.
#[test]
fn bytes_are_those_of_the_version() {
    let closure = closure();
    let bytes = database(&closure).bytes(&closure).unwrap();
    let digest = Sha256::digest(&bytes)
        .iter()
        .fold(String::new(), |mut text, byte| {
            write!(text, "{byte:02x}").unwrap();
            text
        });
    assert_eq!(
        (VERSION, bytes.len(), digest.as_str()),
        (
            "firn/nix-database/1",
            45056,
            "c3e050117c6709a513c548167d8a369a10e0e2273dd064ba3c49f63abd945463"
        )
    );
}

#[test]
fn what_nothing_refers_to_keeps_the_rest() {
    let closure = closure();
    assert_eq!(database(&closure).roots(&closure), [path("app")]);
}

/// Paths with references to ones with lower numbers, and an order for each list of references.
fn graph() -> impl Strategy<Value = Vec<Vec<usize>>> {
    prop::collection::vec(
        prop::collection::vec(any::<prop::sample::Index>(), 0..6),
        1..40,
    )
    .prop_map(|all| {
        let below = |(at, list): (usize, Vec<prop::sample::Index>)| {
            list.iter().map(|index| index.index(at + 1)).collect()
        };
        all.into_iter().enumerate().map(below).collect()
    })
}

proptest! {
    #[test]
    fn the_order_of_references_makes_no_difference(graph in graph()) {
        let bytes = |reverse: bool| {
            let paths = graph.iter().enumerate().map(|(at, references)| {
                let mut names: Vec<String> = references.iter().map(|r| format!("p{r}")).collect();
                if reverse {
                    names.reverse();
                    names.extend(names.first().cloned());
                }
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                (path(&format!("p{at}")), info(at as u64 + 1, &names))
            });
            let closure = Closure::new(paths.collect()).unwrap();
            database(&closure).bytes(&closure).unwrap()
        };
        prop_assert!(bytes(false) == bytes(true));
    }
}
