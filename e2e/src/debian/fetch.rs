//! From pins to files: what is in the cache is used, the rest is downloaded and checked. A pin
//! that the mirror lost is replaced loudly and on record.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::error::file;
use super::lock::{Package, hex};
use super::{Error, Lock};

/// The .deb files of a lock.
#[derive(Debug)]
pub struct Fetched {
    /// The pins that were really used.
    pub lock: Lock,
    /// One file per package, in its order.
    pub debs: Vec<PathBuf>,
}

/// Makes the cache directory and keeps other processes out of it while the result lives.
pub(super) fn lock_directory(cache: &Path) -> Result<File, Error> {
    let debs = cache.join("debs");
    fs::create_dir_all(&debs).map_err(file("make", &debs))?;
    let path = cache.join(".lock");
    let lock = File::create(&path).map_err(file("make", &path))?;
    lock.lock().map_err(file("lock", &path))?;
    Ok(lock)
}

/// Where packages come from.
pub(super) trait Mirror {
    /// The newest versions of `roots` and everything they depend on.
    fn resolve(&self, roots: &[&str]) -> Result<Lock, Error>;
    /// The versions there are of each of `names`.
    fn versions(&self, names: &[&str]) -> Result<BTreeMap<String, Vec<String>>, Error>;
    /// Downloads exactly `packages` into the folder `to`, under their file names.
    fn download(&self, packages: &[&Package], to: &Path) -> Result<(), Error>;
}

/// All files of `lock`, or of the set that replaces it. The mirror is opened only if it is needed.
pub(super) fn fetch<M: Mirror>(
    lock: &Lock,
    cache: &Path,
    open: impl FnOnce() -> Result<M, Error>,
) -> Result<Fetched, Error> {
    let missing = missing(lock, cache)?;
    if missing.is_empty() {
        return Ok(fetched(lock.clone(), cache));
    }
    let record = cache.join(format!("replaces-{}.lock", lock.id()));
    if let Some(replacement) = recorded(&record)? {
        say(&format!(
            "warning: using {} instead of the committed Debian packages: the mirror lost some of \
             them; delete that file to try again",
            record.display()
        ));
        if !self::missing(&replacement, cache)?.is_empty() {
            download(&open()?, &replacement, cache)?;
        }
        return Ok(fetched(replacement, cache));
    }
    let mirror = open()?;
    let names: Vec<&str> = missing.iter().map(|p| p.name.as_str()).collect();
    let versions = mirror.versions(&names)?;
    let lost: Vec<Lost<'_>> = missing
        .iter()
        .map(|package| Lost {
            package,
            has: versions.get(&package.name).cloned().unwrap_or_default(),
        })
        .filter(|lost| !lost.has.contains(&lost.package.version))
        .collect();
    if lost.is_empty() {
        download(&mirror, lock, cache)?;
        return Ok(fetched(lock.clone(), cache));
    }
    say(&replacement_warning(lock, &lost, &record));
    // The whole set anew: one newer package among older ones may miss a newer library.
    let roots: Vec<&str> = lock.roots.iter().map(String::as_str).collect();
    let replacement = mirror.resolve(&roots)?;
    download(&mirror, &replacement, cache)?;
    fs::write(&record, replacement.to_string()).map_err(file("write", &record))?;
    Ok(fetched(replacement, cache))
}

struct Lost<'a> {
    package: &'a Package,
    has: Vec<String>,
}

fn replacement_warning(lock: &Lock, lost: &[Lost<'_>], record: &Path) -> String {
    let mut packages = String::new();
    for Lost { package, has } in lost {
        let has = if has.is_empty() {
            "nothing".to_owned()
        } else {
            has.join(", ")
        };
        let Package { name, version, .. } = package;
        // Writing into a String cannot fail.
        let _ = writeln!(packages, "  {name} {version} (the mirror has {has})");
    }
    format!(
        "warning: Debian {} no longer has {} pinned package(s):\n{packages}\
         Resolving all of them anew; what is used instead is recorded in {}.\n\
         To pin the new versions: `firn-images lock`. To get the old ones: set \
         FIRN_DEBIAN_MIRROR to the archive of {} on snapshot.debian.org.",
        lock.suite,
        lost.len(),
        record.display(),
        lock.archive_date,
    )
}

/// The set recorded by an earlier replacement.
fn recorded(record: &Path) -> Result<Option<Lock>, Error> {
    match fs::read_to_string(record) {
        Ok(text) => text.parse().map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(file("read", record)(error)),
    }
}

fn fetched(lock: Lock, cache: &Path) -> Fetched {
    let debs = lock
        .packages
        .iter()
        .map(|package| deb(package, cache))
        .collect();
    Fetched { lock, debs }
}

fn deb(package: &Package, cache: &Path) -> PathBuf {
    cache.join("debs").join(package.file_name())
}

/// The packages whose file is not in the cache, or not whole.
fn missing<'a>(lock: &'a Lock, cache: &Path) -> Result<Vec<&'a Package>, Error> {
    let mut missing = Vec::new();
    for package in &lock.packages {
        let path = deb(package, cache);
        match sha256(&path) {
            Ok(actual) if actual == package.sha256 => {}
            Ok(_) => missing.push(package),
            Err(error) if error.kind() == io::ErrorKind::NotFound => missing.push(package),
            Err(error) => return Err(file("read", &path)(error)),
        }
    }
    Ok(missing)
}

/// Downloads what is missing of `lock`, checks it, and only then gives it its name.
fn download(mirror: &impl Mirror, lock: &Lock, cache: &Path) -> Result<(), Error> {
    let missing = missing(lock, cache)?;
    if missing.is_empty() {
        return Ok(());
    }
    let folder = tempfile::tempdir_in(cache).map_err(file("make a folder in", cache))?;
    mirror.download(&missing, folder.path())?;
    for package in missing {
        let path = folder.path().join(package.file_name());
        let actual = sha256(&path).map_err(file("read", &path))?;
        check(package, actual)?;
        fs::rename(&path, deb(package, cache)).map_err(file("move", &path))?;
    }
    Ok(())
}

fn check(package: &Package, actual: String) -> Result<(), Error> {
    if actual == package.sha256 {
        return Ok(());
    }
    let expected = package.sha256.clone();
    Err(Error::DigestMismatch {
        file: package.file_name(),
        expected,
        actual,
    })
}

fn sha256(path: &Path) -> io::Result<String> {
    // The largest package has 50 MB.
    Ok(hex(&Sha256::digest(fs::read(path)?)))
}

/// To whoever runs this, however it is called: a replaced pin must never be silent, and a
/// `tracing` subscriber may not be there.
fn say(text: &str) {
    // Nobody is left to hear of a closed stderr.
    let _ = writeln!(io::stderr(), "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, content: &[u8]) -> Package {
        Package {
            name: name.into(),
            version: "1".into(),
            arch: "all".into(),
            size: content.len() as u64,
            sha256: hex(&Sha256::digest(content)),
        }
    }

    fn lock(packages: Vec<Package>) -> Lock {
        Lock {
            suite: "forky".into(),
            arch: "amd64".into(),
            archive_date: "Fri, 30 Oct 2026".into(),
            roots: vec!["whole".into()],
            packages,
        }
    }

    #[test]
    fn a_cut_file_counts_as_missing_and_a_whole_one_does_not() {
        let cache = tempfile::tempdir().unwrap();
        fs::create_dir(cache.path().join("debs")).unwrap();
        let lock = lock(vec![
            package("cut", b"abc"),
            package("gone", b"x"),
            package("whole", b"y"),
        ]);
        fs::write(deb(&lock.packages[0], cache.path()), b"ab").unwrap();
        fs::write(deb(&lock.packages[2], cache.path()), b"y").unwrap();
        let names: Vec<_> = missing(&lock, cache.path())
            .unwrap()
            .iter()
            .map(|p| p.name.clone())
            .collect();
        assert_eq!(names, ["cut", "gone"]);
    }

    #[test]
    fn a_complete_cache_needs_no_apt() {
        let cache = tempfile::tempdir().unwrap();
        fs::create_dir(cache.path().join("debs")).unwrap();
        let lock = lock(vec![package("whole", b"y")]);
        fs::write(deb(&lock.packages[0], cache.path()), b"y").unwrap();
        let closed = || -> Result<Fake, Error> { panic!("the mirror is opened") };
        assert_eq!(fetch(&lock, cache.path(), closed).unwrap().lock, lock);
        assert_eq!(fs::read_dir(cache.path()).unwrap().count(), 1, "only debs");
    }

    /// A mirror with one version of one package.
    struct Fake {
        has: Package,
        content: &'static [u8],
    }

    impl Mirror for Fake {
        fn resolve(&self, roots: &[&str]) -> Result<Lock, Error> {
            assert_eq!(roots, ["whole"]);
            Ok(lock(vec![self.has.clone()]))
        }

        fn versions(&self, names: &[&str]) -> Result<BTreeMap<String, Vec<String>>, Error> {
            assert_eq!(names, ["whole"]);
            Ok([(self.has.name.clone(), vec![self.has.version.clone()])].into())
        }

        fn download(&self, packages: &[&Package], to: &Path) -> Result<(), Error> {
            assert_eq!(packages, [&self.has]);
            let path = to.join(self.has.file_name());
            fs::write(&path, self.content).map_err(file("write", &path))
        }
    }

    fn cache() -> tempfile::TempDir {
        let cache = tempfile::tempdir().unwrap();
        fs::create_dir(cache.path().join("debs")).unwrap();
        cache
    }

    #[test]
    fn a_lost_pin_is_replaced_and_recorded_and_the_record_is_used_again() {
        let cache = cache();
        let pinned = lock(vec![package("whole", b"old")]);
        let newer = Package {
            version: "2".into(),
            ..package("whole", b"new")
        };
        let open = || {
            Ok(Fake {
                has: newer.clone(),
                content: b"new",
            })
        };
        let fetched = fetch(&pinned, cache.path(), open).unwrap();
        assert_eq!(fetched.lock, lock(vec![newer.clone()]));
        assert_eq!(fs::read(&fetched.debs[0]).unwrap(), b"new");
        let record = cache.path().join(format!("replaces-{}.lock", pinned.id()));
        let recorded: Lock = fs::read_to_string(record).unwrap().parse().unwrap();
        assert_eq!(recorded, fetched.lock);
        let closed = || -> Result<Fake, Error> { panic!("the mirror is opened") };
        let again = fetch(&pinned, cache.path(), closed).unwrap();
        assert_eq!(again.lock, recorded);
    }

    #[test]
    fn a_mirror_that_has_the_pin_is_used_and_its_file_checked() {
        let pinned = lock(vec![package("whole", b"old")]);
        let mirror = |content| {
            let has = pinned.packages[0].clone();
            move || Ok(Fake { has, content })
        };
        let cache = cache();
        let error = fetch(&pinned, cache.path(), mirror(b"bad")).unwrap_err();
        assert!(matches!(error, Error::DigestMismatch { .. }), "{error}");
        assert_eq!(missing(&pinned, cache.path()).unwrap().len(), 1);
        let fetched = fetch(&pinned, cache.path(), mirror(b"old")).unwrap();
        assert_eq!(fetched.lock, pinned);
    }

    #[test]
    fn the_warning_names_the_lost_versions_and_the_record() {
        let git = package("git", b"x");
        let lost = [Lost {
            package: &git,
            has: vec!["2".into()],
        }];
        let text = replacement_warning(&lock(vec![git.clone()]), &lost, Path::new("/c/r.lock"));
        for part in [
            "git 1 (the mirror has 2)",
            "/c/r.lock",
            "firn-images lock",
            "30 Oct 2026",
        ] {
            assert!(text.contains(part), "{text}");
        }
    }
}
