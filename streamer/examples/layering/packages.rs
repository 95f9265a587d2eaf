//! From Debian's list of packages to the series file of one suite. Pure.
//!
//! A package is a store path: its references are what it depends on, of alternatives the first
//! that there is; circles are broken where a walk from the names in their order closes them. Only
//! what the sets of `series` need is kept.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use anyhow::Context as _;
use sha2::{Digest as _, Sha256};

use crate::series;

struct Package<'t> {
    version: &'t str,
    /// KiB when installed.
    installed: u64,
    /// Bytes of the .deb file.
    size: u64,
    depends: String,
}

/// The text of `series/<suite>.tsv`.
pub(crate) fn series(suite: &str, list: &str, release: &str) -> anyhow::Result<String> {
    let mut packages = BTreeMap::new();
    let mut providers: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    for stanza in list.split("\n\n").filter(|s| !s.trim().is_empty()) {
        let field = |name: &str| {
            let lines = stanza.lines();
            let mut found = lines.filter_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
            found.next()
        };
        let name = field("Package").context("a stanza without Package")?;
        let depends = [field("Pre-Depends"), field("Depends")];
        let package = Package {
            version: field("Version").context("no Version")?,
            installed: field("Installed-Size").unwrap_or("0").parse()?,
            size: field("Size").context("no Size")?.parse()?,
            depends: depends.into_iter().flatten().collect::<Vec<_>>().join(", "),
        };
        packages.insert(name, package);
        for provided in field("Provides").into_iter().flat_map(|p| p.split(',')) {
            providers.entry(bare(provided)).or_default().insert(name);
        }
    }
    let resolve = |depends: &str| -> BTreeSet<&str> {
        let each = depends.split(',').filter_map(|alternatives| {
            alternatives.split('|').map(bare).find_map(|name| {
                let real = packages.get_key_value(name.as_str()).map(|(name, _)| *name);
                real.or_else(|| providers.get(&name)?.first().copied())
            })
        });
        each.collect()
    };
    let mut graph: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let mut open: Vec<&str> = Vec::new();
    for root in series::roots() {
        let found = resolve(root);
        anyhow::ensure!(!found.is_empty(), "{suite} has no package {root}");
        open.extend(found);
    }
    while let Some(name) = open.pop() {
        if let (false, Some(package)) = (graph.contains_key(name), packages.get(name)) {
            let mut depends = resolve(&package.depends);
            depends.remove(name);
            open.extend(&depends);
            graph.insert(name, depends);
        }
    }
    break_circles(&mut graph);

    let date = release.lines().find_map(|line| line.strip_prefix("Date: "));
    let hash: String = Sha256::digest(list)
        .iter()
        .fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"));
    let mut text = format!(
        "# Debian {suite} main amd64, Release of {}\n# sha256 of Packages: {hash}\n\
         # name\tversion\tKiB installed\tbytes of the .deb\treferences\n",
        date.unwrap_or("an unknown date")
    );
    for (name, depends) in &graph {
        let Some(package) = packages.get(name) else {
            continue;
        };
        let depends: Vec<&str> = depends.iter().copied().collect();
        writeln!(
            text,
            "{name}\t{}\t{}\t{}\t{}",
            package.version,
            package.installed,
            package.size,
            depends.join(" ")
        )?;
    }
    Ok(text)
}

/// `libc6:any (>= 2.36)` is `libc6`.
fn bare(relation: &str) -> String {
    let name = relation.split('(').next().unwrap_or_default();
    name.split(':').next().unwrap_or_default().trim().to_owned()
}

/// Leaves out every edge to a package that the walk is still inside of.
fn break_circles<'t>(graph: &mut BTreeMap<&'t str, BTreeSet<&'t str>>) {
    let mut state: BTreeMap<&str, bool> = BTreeMap::new();
    let names: Vec<&str> = graph.keys().copied().collect();
    for root in names {
        let mut stack = vec![(root, None::<Vec<&str>>)];
        while let Some((name, left)) = stack.pop() {
            let mut left = match left {
                Some(left) => left,
                None if state.contains_key(name) => continue,
                None => {
                    state.insert(name, false);
                    graph
                        .get(name)
                        .into_iter()
                        .flatten()
                        .rev()
                        .copied()
                        .collect()
                }
            };
            match left.pop() {
                None => {
                    state.insert(name, true);
                }
                Some(next) => {
                    if state.get(next) == Some(&false)
                        && let Some(edges) = graph.get_mut(name)
                    {
                        edges.remove(next);
                    }
                    stack.push((name, Some(left)));
                    stack.push((next, None));
                }
            }
        }
    }
}
