//! The list of pinned packages: its text form and its checks. Pure.
//!
//! ```text
//! # comment
//! suite forky
//! architecture amd64
//! archive-date Fri, 30 Oct 2026 08:08:01 UTC
//! roots base-files git
//! git 1:2.53.0-1 amd64 9409868 54828afcd38dd8403b910259d8f47ff7c86908e40a2be8ec3339993dd02926dc
//! ```

use std::fmt;
use std::str::FromStr;

use sha2::{Digest as _, Sha256};

use super::Error;

/// One package: name, version and the file that holds it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Package {
    /// Debian's name, `libc6`.
    pub name: String,
    /// Debian's version with its epoch, `1:2.53.0-1`.
    pub version: String,
    /// `amd64`, `arm64` or `all`.
    pub arch: String,
    /// Bytes of the .deb file.
    pub size: u64,
    /// SHA-256 of the .deb file, 64 lowercase hexadecimal digits.
    pub sha256: String,
}

impl Package {
    /// The name apt gives the file: a colon is not allowed in it.
    pub fn file_name(&self) -> String {
        let version = self.version.replace(':', "%3a");
        format!("{}_{version}_{}.deb", self.name, self.arch)
    }
}

/// A closed set of packages of one suite and architecture, sorted by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lock {
    /// `forky`.
    pub suite: String,
    /// `amd64`.
    pub arch: String,
    /// Date of the archive's index when it was resolved: the snapshot on snapshot.debian.org
    /// that still has all of it.
    pub archive_date: String,
    /// What was asked for; the rest are dependencies.
    pub roots: Vec<String>,
    /// All packages, sorted.
    pub packages: Vec<Package>,
}

impl Lock {
    /// A short name for exactly this set of files: equal sets have equal names.
    pub fn id(&self) -> String {
        let mut hasher = Sha256::new();
        for package in &self.packages {
            hasher.update(&package.sha256);
        }
        hex(&hasher.finalize()).chars().take(16).collect()
    }

    /// The version of a package, if it is in the set.
    pub fn version(&self, name: &str) -> Option<&str> {
        self.packages
            .iter()
            .find(|p| p.name == name)
            .map(|p| p.version.as_str())
    }
}

impl fmt::Display for Lock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "# Debian packages of Firn's images; written by `firn-images lock`."
        )?;
        writeln!(f, "suite {}", self.suite)?;
        writeln!(f, "architecture {}", self.arch)?;
        writeln!(f, "archive-date {}", self.archive_date)?;
        writeln!(f, "roots {}", self.roots.join(" "))?;
        for Package {
            name,
            version,
            arch,
            size,
            sha256,
        } in &self.packages
        {
            writeln!(f, "{name} {version} {arch} {size} {sha256}")?;
        }
        Ok(())
    }
}

impl FromStr for Lock {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let lines: Vec<(usize, &str)> = text
            .lines()
            .enumerate()
            .map(|(i, line)| (i + 1, line))
            .filter(|(_, line)| !line.starts_with('#') && !line.trim().is_empty())
            .collect();
        let [suite, arch, date, roots, packages @ ..] = lines.as_slice() else {
            return Err(problem(0, "it has no header"));
        };
        let packages: Vec<Package> = packages
            .iter()
            .map(|(n, line)| package(*n, line))
            .collect::<Result<_, _>>()?;
        if let Some(at) = packages
            .windows(2)
            .position(|w| matches!(w, [a, b] if a.name >= b.name))
        {
            return Err(problem(
                at,
                "packages are not sorted, or one is there twice",
            ));
        }
        Ok(Self {
            suite: header(*suite, "suite")?.to_owned(),
            arch: header(*arch, "architecture")?.to_owned(),
            archive_date: header(*date, "archive-date")?.to_owned(),
            roots: header(*roots, "roots")?
                .split(' ')
                .map(str::to_owned)
                .collect(),
            packages,
        })
    }
}

fn problem(line: usize, problem: impl Into<String>) -> Error {
    Error::ParseLock {
        line,
        problem: problem.into(),
    }
}

fn header<'a>((number, line): (usize, &'a str), key: &str) -> Result<&'a str, Error> {
    line.strip_prefix(key)
        .and_then(|rest| rest.strip_prefix(' '))
        .ok_or_else(|| problem(number, format!("expected {key:?}, found {line:?}")))
}

fn package(number: usize, line: &str) -> Result<Package, Error> {
    let words: Vec<&str> = line.split(' ').collect();
    let [name, version, arch, size, sha256] = words.as_slice() else {
        return Err(problem(
            number,
            format!("expected five words, found {line:?}"),
        ));
    };
    // Names become file names and arguments of apt: nothing that could be a path or an option.
    let plain = |word: &str, extra: &str| {
        word.starts_with(|c: char| c.is_ascii_alphanumeric())
            && word
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || extra.contains(c))
    };
    if !plain(name, "+-.") || !plain(version, "+-.:~") || !plain(arch, "") {
        return Err(problem(number, format!("{line:?} is no package")));
    }
    if sha256.len() != 64
        || !sha256
            .bytes()
            .all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    {
        return Err(problem(number, format!("{sha256:?} is no sha256")));
    }
    Ok(Package {
        name: (*name).to_owned(),
        version: (*version).to_owned(),
        arch: (*arch).to_owned(),
        size: size
            .parse()
            .map_err(|_| problem(number, format!("{size:?} is no size")))?,
        sha256: (*sha256).to_owned(),
    })
}

/// Lowercase hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            // Writing into a String cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lock() -> Lock {
        super::super::LOCK.parse().unwrap()
    }

    #[test]
    fn the_committed_lock_is_what_the_command_writes() {
        assert_eq!(lock().to_string(), super::super::LOCK);
        assert_eq!(lock().roots, super::super::ROOTS);
    }

    #[test]
    fn the_committed_nix_is_new_enough() {
        let version = lock().version("nix-bin").unwrap().to_owned();
        let mut numbers = version
            .split(['.', '+'])
            .map(|n| n.parse::<u32>().unwrap_or(0));
        assert!(
            (numbers.next(), numbers.next()) >= (Some(2), Some(34)),
            "{version}"
        );
    }

    #[test]
    fn a_changed_file_changes_the_id() {
        let mut other = lock();
        let id = other.id();
        other.packages[0].sha256 = "0".repeat(64);
        assert_ne!(other.id(), id);
    }

    #[test]
    fn an_epoch_is_escaped_in_the_file_name() {
        let git = Package {
            name: "git".into(),
            version: "1:2.53.0-1".into(),
            arch: "amd64".into(),
            size: 1,
            sha256: String::new(),
        };
        assert_eq!(git.file_name(), "git_1%3a2.53.0-1_amd64.deb");
    }

    #[test]
    fn a_bad_line_is_refused_with_its_number() {
        let head = "suite forky\narchitecture amd64\narchive-date x\nroots a\n";
        let sha = "0".repeat(64);
        let cases = [
            (format!("{head}a 1 amd64 7"), "line 5: expected five words"),
            (format!("{head}../a 1 amd64 7 {sha}"), "line 5: \"../a 1"),
            (format!("{head}-o 1 amd64 7 {sha}"), "line 5: \"-o 1"),
            (
                format!("{head}a 1 amd64 x {sha}"),
                "line 5: \"x\" is no size",
            ),
            (
                format!("{head}a 1 amd64 7 abc"),
                "line 5: \"abc\" is no sha256",
            ),
            (
                format!("{head}b 1 amd64 7 {sha}\na 1 amd64 7 {sha}"),
                "not sorted",
            ),
            ("suite forky".to_owned(), "no header"),
            (head.replace("suite", "suit"), "line 1: expected \"suite\""),
        ];
        for (text, message) in cases {
            let error = text.parse::<Lock>().unwrap_err().to_string();
            assert!(error.contains(message), "{error} lacks {message}");
        }
    }
}
