//! The sets of packages that are compared, and their closures in three suites of Debian.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use firn_streamer::closure::{Closure, PathInfo};
use firn_streamer::nar_hash::NarHash;
use firn_streamer::store_path::StorePath;
use sha2::{Digest as _, Sha256};

/// An image by what it is asked to have; names that every suite has.
pub(crate) struct Set {
    pub(crate) name: &'static str,
    pub(crate) roots: &'static str,
}

/// Single images.
pub(crate) const SETS: [Set; 3] = [
    Set {
        name: "service",
        roots: "python3-flask, gunicorn, python3-psycopg2, python3-requests, ca-certificates",
    },
    Set {
        name: "tools",
        roots: "python3, python3-numpy, python3-flask, gunicorn, default-jre-headless, nodejs, \
                ffmpeg, git, postgresql-client",
    },
    Set {
        name: "desktop",
        roots: "gimp, inkscape, python3-numpy, git",
    },
];

/// Images that a team has side by side.
pub(crate) const FAMILY: [Set; 6] = [
    Set {
        name: "flask",
        roots: "python3-flask, gunicorn, ca-certificates",
    },
    Set {
        name: "flask-postgres",
        roots: "python3-flask, gunicorn, python3-psycopg2, postgresql-client, ca-certificates",
    },
    Set {
        name: "numbers",
        roots: "python3-flask, gunicorn, python3-numpy, ca-certificates",
    },
    Set {
        name: "node",
        roots: "nodejs, git, ca-certificates",
    },
    Set {
        name: "java",
        roots: "default-jre-headless, ca-certificates",
    },
    Set {
        name: "video",
        roots: "nodejs, ffmpeg, ca-certificates",
    },
];

/// Oldest first.
pub(crate) const SUITES: [(&str, &str); 3] = [
    ("bookworm", include_str!("series/bookworm.tsv")),
    ("trixie", include_str!("series/trixie.tsv")),
    ("forky", include_str!("series/forky.tsv")),
];

/// Everything that some set asks for.
pub(crate) fn roots() -> BTreeSet<&'static str> {
    let sets = SETS.iter().chain(&FAMILY);
    sets.flat_map(|set| set.roots.split(", ")).collect()
}

/// One store path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Node {
    /// With its version, as in Nix.
    pub(crate) name: String,
    /// What else makes its hash.
    pub(crate) salt: String,
    pub(crate) nar_size: u64,
    /// What it takes in a layer, by itself.
    pub(crate) compressed: u64,
    pub(crate) references: Vec<String>,
}

/// An image's paths by their names without version.
pub(crate) type Image = BTreeMap<String, Node>;

/// The closure of a set in a suite's text, with an application of 1 KiB on top.
pub(crate) fn image(set: &Set, suite: &str) -> Image {
    let all: Image = suite.lines().filter_map(node).collect();
    let roots: Vec<String> = set
        .roots
        .split(", ")
        .map(|root| {
            let direct = all.get_key_value(root).map(|(name, _)| name.clone());
            direct.unwrap_or_else(|| panic!("no {root} in the series"))
        })
        .collect();
    let mut image = Image::new();
    let mut open = roots.clone();
    while let Some(name) = open.pop() {
        if let Entry::Vacant(place) = image.entry(name) {
            let node = all[place.key()].clone();
            let node = place.insert(node);
            open.extend(node.references.iter().cloned());
        }
    }
    let app = Node {
        name: format!("{}-app-1.0", set.name),
        salt: String::new(),
        nar_size: 1024,
        compressed: 512,
        references: roots,
    };
    image.insert(format!("{}-app", set.name), app);
    image
}

fn node(line: &str) -> Option<(String, Node)> {
    let mut fields = line.split('\t');
    let name = fields.next().filter(|name| !name.starts_with('#'))?;
    let version = fields.next()?.replace([':', '~'], "-");
    let installed: u64 = fields.next()?.parse().ok()?;
    let compressed: u64 = fields.next()?.parse().ok()?;
    let references = fields.next()?.split_whitespace().map(str::to_owned);
    let node = Node {
        name: format!("{name}-{version}"),
        salt: String::new(),
        nar_size: (installed * 1024).max(1024),
        compressed,
        references: references.collect(),
    };
    Some((name.to_owned(), node))
}

impl Node {
    pub(crate) fn path(&self) -> StorePath {
        const ALPHABET: &[u8; 32] = b"0123456789abcdfghijklmnpqrsvwxyz";
        let digest = Sha256::digest(format!("{}/{}", self.name, self.salt));
        let hash: String = digest
            .iter()
            .map(|byte| char::from(ALPHABET[usize::from(byte % 32)]))
            .collect();
        StorePath::of_base_name(&format!("{hash}-{}", self.name)).expect("Debian's names are valid")
    }
}

/// What Nix would say of it.
pub(crate) fn closure(image: &Image) -> Closure {
    let paths: BTreeMap<&str, StorePath> = image
        .iter()
        .map(|(name, node)| (name.as_str(), node.path()))
        .collect();
    let infos = image.iter().map(|(name, node)| {
        let references = node.references.iter();
        let info = PathInfo {
            nar_hash: NarHash([0; 32]),
            nar_size: node.nar_size,
            references: references.map(|r| paths[r.as_str()].clone()).collect(),
        };
        (paths[name.as_str()].clone(), info)
    });
    Closure::new(infos.collect()).expect("circles were broken when the series was made")
}
