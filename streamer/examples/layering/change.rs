//! What happens to an image from one day to the next. Pure.

use std::collections::BTreeSet;

use crate::series::Image;

/// How far a change of one path reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// Its users stay: a rebuild with equal outputs, or content-addressed paths.
    Alone,
    /// All of its users are new paths with the contents they had: what Nix does.
    Users,
}

/// `before` with the path `name` as it is in `newer`; if it is no other there, built again with
/// other contents of the same size. References stay as they are.
pub(crate) fn exchange(before: &Image, newer: &Image, name: &str, reach: Reach) -> Image {
    let mut after = before.clone();
    let Some(old) = before.get(name) else {
        return after;
    };
    let mut node = newer.get(name).unwrap_or(old).clone();
    node.references.clone_from(&old.references);
    node.salt = "changed".into();
    after.insert(name.to_owned(), node);
    if reach == Reach::Users {
        for user in users(before, name) {
            if let Some(node) = after.get_mut(&user) {
                node.salt = format!("on another {name}");
            }
        }
    }
    after
}

/// All of `names` built again at once, and with them whatever uses them: a fix in the C library.
pub(crate) fn rebuild(before: &Image, names: &[&str]) -> Image {
    let roots = names
        .iter()
        .copied()
        .filter(|name| before.contains_key(*name));
    let mut new: BTreeSet<String> = BTreeSet::new();
    for name in roots {
        new.insert(name.to_owned());
        new.extend(users(before, name));
    }
    marked(before.clone(), new)
}

fn marked(mut image: Image, new: BTreeSet<String>) -> Image {
    for name in new {
        if let Some(node) = image.get_mut(&name) {
            node.salt = "built again".into();
        }
    }
    image
}

/// Whatever leads to `name`, without itself.
pub(crate) fn users(image: &Image, name: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut open = vec![name.to_owned()];
    while let Some(name) = open.pop() {
        for (user, node) in image {
            if node.references.contains(&name) && found.insert(user.clone()) {
                open.push(user.clone());
            }
        }
    }
    found
}
