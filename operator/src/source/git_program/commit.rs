//! What is read of one commit: its `flake.lock`, the object ids of `trigger.paths`, and its time.

use std::collections::BTreeMap;

use jiff::Timestamp;
use sha2::{Digest, Sha256};

use super::super::{Kind, SourceFailure};
use super::process::Workspace;
use super::{Hashes, Wanted};

/// Longest `flake.lock`, in bytes; one of 1,000 inputs has 400 KB.
const LOCK_MAX: usize = 4 * 1024 * 1024;
/// Longest output of anything else, in bytes.
const OUTPUT_MAX: usize = 1024 * 1024;
/// What the fetched commit is called in the temporary repository.
const FETCHED: &str = "refs/firn/fetched";

/// One temporary repository.
pub(super) struct Repository<'a> {
    /// git in it.
    pub(super) git: Workspace<'a>,
    /// Full commit id.
    pub(super) commit: &'a str,
}

impl Repository<'_> {
    /// Fetches the commit and reads it.
    pub(super) async fn read(&self, wanted: Wanted<'_>) -> Result<Hashes, SourceFailure> {
        self.git
            .run(&["init", "--quiet", "--bare", "--template="], OUTPUT_MAX)
            .await?;
        self.fetch(wanted).await?;
        let head = self
            .git
            .run(
                &[
                    "log",
                    "-1",
                    "--no-show-signature",
                    "--format=%H %T %ct",
                    FETCHED,
                    "--",
                ],
                OUTPUT_MAX,
            )
            .await?;
        let head = String::from_utf8_lossy(&head);
        let mut words = head.split_whitespace();
        if words.next() != Some(wanted.commit) {
            return Err(SourceFailure::new(
                Kind::Unreachable,
                format!(
                    "{:?} moved away from commit {} while it was read: it is asked again later",
                    self.git.asked.url, wanted.commit
                ),
            ));
        }
        let tree = words.next().unwrap_or_default().to_owned();
        let commit_time = words
            .next()
            .and_then(|w| Timestamp::from_second(w.parse().ok()?).ok());

        let lock =
            normalized(&format!("{}/flake.lock", wanted.dir)).ok_or_else(|| outside(wanted.dir))?;
        let mut paths = Vec::new();
        for path in wanted.paths {
            paths.push(normalized(path).ok_or_else(|| outside(path))?);
        }
        let entries = self.entries(std::iter::once(&lock).chain(&paths)).await?;
        let lock = match entries.get(&lock) {
            None => None,
            Some(entry) => Some(self.lock_hash(&lock, entry).await?),
        };
        Ok(Hashes {
            lock,
            paths: paths_hash(paths, &entries, &tree),
            commit_time,
        })
    }

    async fn fetch(&self, wanted: Wanted<'_>) -> Result<(), SourceFailure> {
        let by_id = self.fetch_one(wanted.commit).await;
        match (by_id, wanted.reference) {
            // Servers of protocol version 0 give only what they list.
            (Err(failure), Some(reference)) if failure.kind == Kind::RevisionNotFound => {
                self.fetch_one(reference).await
            }
            (result, _) => result,
        }
    }

    async fn fetch_one(&self, what: &str) -> Result<(), SourceFailure> {
        let refspec = format!("+{what}:{FETCHED}");
        let arguments = [
            "fetch",
            "--quiet",
            "--depth=1",
            "--filter=blob:none",
            "--no-tags",
            "--no-write-fetch-head",
            "--",
            "origin",
            &refspec,
        ];
        self.git.run(&arguments, OUTPUT_MAX).await.map(drop)
    }

    /// The entries of the root's tree at these paths. Nothing below them is read.
    async fn entries<'p>(
        &self,
        paths: impl Iterator<Item = &'p String>,
    ) -> Result<BTreeMap<String, Entry>, SourceFailure> {
        let mut arguments = vec![
            "--literal-pathspecs",
            "ls-tree",
            "-z",
            "-t",
            "--full-tree",
            FETCHED,
            "--",
        ];
        // The root has no entry, and as a path it would mean everything.
        arguments.extend(paths.map(String::as_str).filter(|path| !path.is_empty()));
        let listing = self.git.run(&arguments, OUTPUT_MAX).await?;
        Ok(listing
            .split(|byte| *byte == 0)
            .filter_map(Entry::parse)
            .collect())
    }

    async fn lock_hash(&self, path: &str, entry: &Entry) -> Result<String, SourceFailure> {
        if !["100644", "100755"].contains(&entry.mode.as_str()) {
            return Err(SourceFailure::new(
                Kind::Invalid,
                format!("{path:?} is not a regular file in commit {}", self.commit),
            ));
        }
        let content = self
            .git
            .run(&["cat-file", "blob", &entry.oid], LOCK_MAX)
            .await?;
        Ok(hex(&Sha256::digest(&content)))
    }
}

/// A tree's entry.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    mode: String,
    oid: String,
}

impl Entry {
    /// `100644 blob <oid>\t<path>`
    fn parse(record: &[u8]) -> Option<(String, Self)> {
        let text = std::str::from_utf8(record).ok()?;
        let (attributes, path) = text.split_once('\t')?;
        let mut words = attributes.split(' ');
        let (mode, _kind, oid) = (words.next()?, words.next()?, words.next()?);
        Some((
            path.to_owned(),
            Self {
                mode: mode.to_owned(),
                oid: oid.to_owned(),
            },
        ))
    }
}

/// sha256 over `path NUL mode NUL object id LF` of the paths in order; absent ones have `-`, so
/// that deleting a file is a change. The order and spelling in the spec do not matter.
fn paths_hash(
    mut paths: Vec<String>,
    entries: &BTreeMap<String, Entry>,
    tree: &str,
) -> Option<String> {
    paths.sort();
    paths.dedup();
    if paths.is_empty() {
        return None;
    }
    let mut hash = Sha256::new();
    for path in paths {
        let (mode, oid) = match entries.get(&path) {
            Some(entry) => (entry.mode.as_str(), entry.oid.as_str()),
            None if path.is_empty() => ("040000", tree),
            None => ("-", "-"),
        };
        hash.update(format!("{path}\0{mode}\0{oid}\n"));
    }
    Some(hex(&hash.finalize()))
}

/// A path without `.`, double and trailing slashes; the root is the empty one. `None`: it leaves
/// the repository.
fn normalized(path: &str) -> Option<String> {
    let parts: Vec<_> = path
        .split('/')
        .filter(|part| !part.is_empty() && *part != ".")
        .collect();
    (!parts.contains(&"..") && !path.starts_with('/')).then(|| parts.join("/"))
}

fn hex(digest: &[u8]) -> String {
    use std::fmt::Write;
    digest.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
fn outside(path: &str) -> SourceFailure {
    SourceFailure::new(
        Kind::Invalid,
        format!("{path:?} leaves the repository: write a relative path without \"..\""),
    )
}
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_one_however_they_are_written() {
        for (path, expected) in [
            ("./a//b/", Some("a/b")),
            (".", Some("")),
            ("a", Some("a")),
            ("a/../b", None),
            ("/etc", None),
        ] {
            assert_eq!(normalized(path).as_deref(), expected, "{path}");
        }
        assert_eq!(normalized("./flake.lock").as_deref(), Some("flake.lock"));
    }

    #[test]
    fn the_hash_of_paths_sees_content_mode_and_absence_but_no_order() {
        let entry = |mode: &str, oid: &str| Entry {
            mode: mode.into(),
            oid: oid.into(),
        };
        let entries: BTreeMap<_, _> = [
            ("a".to_owned(), entry("100644", "11")),
            ("b".to_owned(), entry("040000", "22")),
        ]
        .into();
        let hash = |paths: &[&str], entries: &BTreeMap<String, Entry>| {
            paths_hash(
                paths.iter().map(|p| (*p).to_owned()).collect(),
                entries,
                "33",
            )
        };
        let base = hash(&["a", "b"], &entries);
        assert_eq!(hash(&["b", "a", "a"], &entries), base);
        let mut executable = entries.clone();
        executable.insert("a".into(), entry("100755", "11"));
        assert_ne!(hash(&["a", "b"], &executable), base);
        let mut without = entries.clone();
        without.remove("b");
        assert_ne!(hash(&["a", "b"], &without), base);
        assert_ne!(hash(&["a"], &entries), hash(&["b"], &entries));
        assert_ne!(hash(&[""], &entries), None);
        assert_eq!(hash(&[], &entries), None);
    }

    #[test]
    fn listings_are_read_entry_by_entry() {
        let oid = "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391";
        let record = format!("100644 blob {oid}\tsub dir/flake.lock");
        let (path, entry) = Entry::parse(record.as_bytes()).unwrap();
        assert_eq!(
            (path.as_str(), entry.mode.as_str(), entry.oid.as_str()),
            ("sub dir/flake.lock", "100644", oid)
        );
        assert_eq!(Entry::parse(b""), None);
        assert_eq!(Entry::parse(b"garbage"), None);
    }
}
