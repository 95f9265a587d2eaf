//! Debian packages as a graph of store paths: one path for each package, its references what it
//! depends on. Debian's circles are broken, for a store has none. Pure.

use std::collections::{BTreeMap, BTreeSet};

use sha2::{Digest as _, Sha256};

/// Nix's own digits.
const BASE32: &[u8; 32] = b"0123456789abcdfghijklmnpqrsvwxyz";
/// Characters of a store path's hash.
const HASH: usize = 32;

/// What a package's control file says that makes a store path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Package {
    /// Debian's name.
    pub name: String,
    /// Debian's version.
    pub version: String,
    /// Stands for its contents.
    pub sha256: String,
    /// What it depends on: for each, the names that will do.
    pub depends: Vec<Vec<String>>,
    /// Other names that it answers to.
    pub provides: Vec<String>,
}

impl Package {
    /// From what `dpkg-deb --field FILE Package Version Depends Pre-Depends Provides` prints;
    /// `None` if the first two are missing.
    pub fn parse(control: &str, sha256: &str) -> Option<Self> {
        let joined = control.replace("\n ", " ");
        let fields: BTreeMap<&str, &str> = joined
            .lines()
            .filter_map(|line| line.split_once(": "))
            .collect();
        let list = |key: &str| fields.get(key).copied().unwrap_or_default().split(',');
        Some(Self {
            name: (*fields.get("Package")?).to_owned(),
            version: (*fields.get("Version")?).to_owned(),
            sha256: sha256.to_owned(),
            depends: list("Depends")
                .chain(list("Pre-Depends"))
                .map(|alternatives| alternatives.split('|').filter_map(package_name).collect())
                .filter(|names: &Vec<String>| !names.is_empty())
                .collect(),
            provides: list("Provides").filter_map(package_name).collect(),
        })
    }
}

/// `libc6 (>= 2.41)`, `python3:any`: the name.
fn package_name(text: &str) -> Option<String> {
    let end = |c: char| !(c.is_ascii_alphanumeric() || "+.-".contains(c));
    let name = text.trim().split(end).next()?;
    (!name.is_empty()).then(|| name.to_owned())
}

/// A package with its place in the graph.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// The package's name.
    pub name: String,
    /// As a store path's name may have it.
    pub version: String,
    /// Stands for its contents.
    pub seed: String,
    /// Names of nodes that come before it.
    pub references: Vec<String>,
}

/// The nodes that `roots` need, references first. Dependencies on what is in no package are left
/// out, and those that would close a circle: that may leave a package without whoever needs it.
pub fn order(packages: &[Package], roots: &[String]) -> Vec<Node> {
    let by_name: BTreeMap<&str, &Package> = packages.iter().map(|p| (&*p.name, p)).collect();
    let mut providers: BTreeMap<&str, &Package> = BTreeMap::new();
    for package in packages {
        for name in &package.provides {
            providers.entry(name).or_insert(package);
        }
    }
    let find = |name: &str| by_name.get(name).or_else(|| providers.get(name)).copied();
    let mut walk = Walk {
        find: &find,
        state: BTreeMap::new(),
        nodes: Vec::new(),
    };
    for package in by_name.values() {
        if !walk.state.contains_key(&*package.name) {
            walk.visit(package);
        }
    }
    let mut needed: BTreeSet<&str> = roots.iter().filter_map(|r| Some(&*find(r)?.name)).collect();
    let mut nodes = walk.nodes;
    // From the top: whoever needs a node comes after it.
    let mut kept: Vec<Node> = Vec::new();
    for node in nodes.drain(..).rev() {
        if needed.contains(&*node.name) {
            needed.extend(node.references.iter().filter_map(|r| Some(&*find(r)?.name)));
            kept.push(node);
        }
    }
    kept.reverse();
    kept
}

struct Walk<'a, F> {
    find: &'a F,
    /// Whether the walk is done with a package; one that it is in the middle of would close a
    /// circle.
    state: BTreeMap<&'a str, bool>,
    nodes: Vec<Node>,
}

impl<'a, F: Fn(&str) -> Option<&'a Package>> Walk<'a, F> {
    fn visit(&mut self, package: &'a Package) {
        self.state.insert(&package.name, false);
        let wanted: BTreeSet<&str> = package
            .depends
            .iter()
            .filter_map(|names| names.iter().find_map(|name| (self.find)(name)))
            .map(|found| &*found.name)
            .collect();
        let mut references = Vec::new();
        for name in wanted {
            match (self.state.get(name), (self.find)(name)) {
                (Some(false), _) | (None, None) => continue,
                (Some(true), _) => {}
                (None, Some(found)) => self.visit(found),
            }
            references.push(name.to_owned());
        }
        self.state.insert(&package.name, true);
        self.nodes.push(Node {
            name: package.name.clone(),
            version: package.version.replace([':', '~'], "-"),
            seed: package.sha256.clone(),
            references,
        });
    }
}

/// The base name of each node's store path. As in a real store, the hash stands for everything
/// below: where a package is among `changed`, it and all above it get new names.
pub fn base_names(nodes: &[Node], changed: &BTreeSet<&str>) -> BTreeMap<String, String> {
    let mut names: BTreeMap<String, String> = BTreeMap::new();
    for node in nodes {
        let mut seed = format!("{} {}", node.seed, changed.contains(&*node.name));
        for name in node.references.iter().filter_map(|r| names.get(r)) {
            seed.push(' ');
            seed.push_str(name);
        }
        let base = format!("{}-{}-{}", store_hash(&seed), node.name, node.version);
        names.insert(node.name.clone(), base);
    }
    names
}

/// Text as the hash of a store path.
pub fn store_hash(seed: &str) -> String {
    let hash = Sha256::digest(seed);
    let digit = |byte: &u8| BASE32.get(usize::from(byte % 32)).copied().unwrap_or(b'0');
    hash.iter().take(HASH).map(digit).map(char::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, depends: &[&str]) -> Package {
        let control = format!(
            "Package: {name}\nVersion: 1:2~3\nDepends: {}",
            depends.join(", ")
        );
        Package::parse(&control, name).unwrap()
    }

    fn names(nodes: &[Node]) -> Vec<&str> {
        nodes.iter().map(|node| &*node.name).collect()
    }

    #[test]
    fn a_control_file_tells_names_without_versions_and_architectures() {
        let control = "Package: git\nVersion: 1:2.5\nProvides: vcs (= 1), x\n\
                       Depends: libc6 (>= 2.41),\n perl:any | perl6, zlib1g\nPre-Depends: dpkg\n";
        let package = Package::parse(control, "aa").unwrap();
        assert_eq!(
            package.depends,
            [
                vec!["libc6"],
                vec!["perl", "perl6"],
                vec!["zlib1g"],
                vec!["dpkg"]
            ]
        );
        assert_eq!(package.provides, ["vcs", "x"]);
        assert!(Package::parse("Version: 1", "aa").is_none());
    }

    #[test]
    fn circles_are_broken_and_what_nobody_needs_is_left_out() {
        let packages = [
            package("app", &["libc", "missing", "mail"]),
            package("libc", &["libgcc"]),
            package("libgcc", &["libc"]),
            Package {
                provides: vec!["mail".into()],
                ..package("postfix", &[])
            },
            package("unused", &[]),
        ];
        let nodes = order(&packages, &["app".to_owned()]);
        assert_eq!(names(&nodes), ["libgcc", "libc", "postfix", "app"]);
        assert_eq!(nodes[0].references, Vec::<String>::new());
        assert_eq!(nodes[1].references, ["libgcc"]);
        assert_eq!(nodes[3].references, ["libc", "postfix"]);
        assert_eq!(nodes[3].version, "1-2-3");
    }

    #[test]
    fn a_change_renames_itself_and_all_above_and_nothing_else() {
        let packages = [
            package("app", &["lib", "other"]),
            package("lib", &["libc"]),
            package("libc", &[]),
            package("other", &[]),
        ];
        let nodes = order(&packages, &["app".to_owned()]);
        let before = base_names(&nodes, &BTreeSet::new());
        let after = base_names(&nodes, &BTreeSet::from(["libc"]));
        let same: Vec<&str> = before
            .iter()
            .filter(|(name, base)| after[*name] == **base)
            .map(|(name, _)| &**name)
            .collect();
        assert_eq!(same, ["other"]);
        assert_eq!(before["lib"].len(), 32 + "-lib-1-2-3".len());
    }
}
