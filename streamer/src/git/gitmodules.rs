//! Which submodules a commit has, from the words of `git ls-tree` and `git config`. Pure.

use std::collections::BTreeMap;
use std::path::{Component, Path};

/// A commit of another repository in a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its folder, relative to the repository's.
    pub path: String,
    /// Full commit id.
    pub commit: String,
}

/// What a tree says of submodules.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tree {
    /// By path.
    pub links: Vec<Link>,
    /// Object id of `.gitmodules`, if there is one.
    pub gitmodules: Option<String>,
}

/// Why submodules cannot be told from a commit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GitmodulesError {
    /// Not a line of `ls-tree`.
    #[error("git lists an entry that cannot be understood: {0:?}")]
    Entry(String),
    /// A folder that is none.
    #[error("there is a submodule at {0:?}, which is no path that can be checked out")]
    Path(String),
    /// A link to a file that could be anywhere.
    #[error(".gitmodules is no regular file")]
    NoFile,
    /// Which of them is meant?
    #[error(".gitmodules says twice what is at {0:?}")]
    Twice(String),
}

/// Reads `git ls-tree -r -z`.
pub fn tree(listing: &str) -> Result<Tree, GitmodulesError> {
    let mut tree = Tree::default();
    for entry in listing.split('\0').filter(|entry| !entry.is_empty()) {
        let unclear = || GitmodulesError::Entry(entry.chars().take(100).collect());
        let (attributes, path) = entry.split_once('\t').ok_or_else(unclear)?;
        let mut words = attributes.split(' ');
        let (Some(mode), Some(_kind), Some(object), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(unclear());
        };
        if path == ".gitmodules" {
            if mode != "100644" && mode != "100755" {
                return Err(GitmodulesError::NoFile);
            }
            tree.gitmodules = Some(object.to_owned());
        }
        if mode == "160000" {
            // git checks out no other, but what is done with it here does not rest on that.
            let normal = |part| matches!(part, Component::Normal(name) if name != ".git");
            if path.is_empty() || !Path::new(path).components().all(normal) {
                return Err(GitmodulesError::Path(path.to_owned()));
            }
            tree.links.push(Link {
                path: path.to_owned(),
                commit: object.to_owned(),
            });
        }
    }
    Ok(tree)
}

/// Reads `git config --blob … --null --list` of a `.gitmodules`: URLs by path. What has no path or
/// no URL is left out.
pub fn urls(listing: &str) -> Result<BTreeMap<String, String>, GitmodulesError> {
    let mut sections: BTreeMap<&str, (Option<&str>, Option<&str>)> = BTreeMap::new();
    for entry in listing.split('\0') {
        // Without a value there is no line end either.
        let Some((key, value)) = entry.split_once('\n') else {
            continue;
        };
        let Some((name, variable)) = key
            .strip_prefix("submodule.")
            .and_then(|rest| rest.rsplit_once('.'))
        else {
            continue;
        };
        let (path, url) = sections.entry(name).or_default();
        let slot = match variable {
            "path" => path,
            "url" => url,
            _ => continue,
        };
        if slot.replace(value).is_some_and(|before| before != value) {
            return Err(GitmodulesError::Twice(name.to_owned()));
        }
    }
    let mut urls = BTreeMap::new();
    for (path, url) in sections.into_values() {
        let (Some(path), Some(url)) = (path, url) else {
            continue;
        };
        let path = path.trim_end_matches('/').to_owned();
        if urls.get(&path).is_some_and(|before| before != url) {
            return Err(GitmodulesError::Twice(path));
        }
        urls.insert(path, url.to_owned());
    }
    Ok(urls)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789012345678901234567890123456789";

    #[test]
    fn submodules_are_found_among_files() {
        let listing = format!(
            "100644 blob {ID}\t.gitmodules\0100755 blob {ID}\ta b\0120000 blob {ID}\tlink\0\
             160000 commit {ID}\tvendor/a lib\0"
        );
        let link = Link {
            path: "vendor/a lib".into(),
            commit: ID.into(),
        };
        let wanted = Tree {
            links: vec![link],
            gitmodules: Some(ID.into()),
        };
        assert_eq!(tree(&listing), Ok(wanted));
        assert_eq!(tree(""), Ok(Tree::default()));
        // Only the root's counts.
        let deeper = format!("120000 blob {ID}\ta/.gitmodules\0");
        assert_eq!(tree(&deeper), Ok(Tree::default()));
    }

    #[test]
    fn what_would_be_checked_out_elsewhere_is_refused() {
        let link = format!("120000 blob {ID}\t.gitmodules\0");
        assert_eq!(tree(&link), Err(GitmodulesError::NoFile));
        for path in ["", "../x", "a/../../x", "/etc", "a/.git/hooks", ".git"] {
            let listing = format!("160000 commit {ID}\t{path}\0");
            assert_eq!(tree(&listing), Err(GitmodulesError::Path(path.into())));
        }
        for odd in ["100644 blob", "100644 blob\tx", "1 2 3 4\tx"] {
            let found = tree(odd);
            assert!(matches!(found, Err(GitmodulesError::Entry(_))), "{found:?}");
        }
    }

    #[test]
    fn urls_are_found_by_path() {
        let listing = "core.x\ny\0submodule.a.b.path\nvendor/lib/\0submodule.a.b.url\n../lib.git\0\
                       submodule.a.b.shallow\0submodule.a.b.branch\nmain\0submodule.other.url\nx\0\
                       submodule.Upper.path\nU\0submodule.Upper.url\nhttps://h/line\nend\0";
        let found = urls(listing).unwrap();
        let wanted = [("U", "https://h/line\nend"), ("vendor/lib", "../lib.git")];
        let wanted = wanted.map(|(path, url)| (path.to_owned(), url.to_owned()));
        assert_eq!(found, wanted.into());
        assert_eq!(urls(""), Ok(BTreeMap::new()));
    }

    #[test]
    fn two_urls_of_one_path_are_refused() {
        let same = "submodule.a.url\nx\0submodule.a.url\nx\0submodule.a.path\np\0";
        assert_eq!(urls(same).unwrap().len(), 1);
        for listing in [
            "submodule.a.url\nx\0submodule.a.url\ny\0",
            "submodule.a.path\nx\0submodule.a.path\ny\0",
            "submodule.a.path\np\0submodule.a.url\nx\0submodule.b.path\np\0submodule.b.url\ny\0",
        ] {
            let found = urls(listing);
            assert!(matches!(found, Err(GitmodulesError::Twice(_))), "{found:?}");
        }
    }
}
