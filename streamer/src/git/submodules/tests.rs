//! Real repositories, checked out by the real git.

use std::ffi::OsString;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;

use super::super::tests::{environment, git, repository};
use super::*;
use crate::stop::Stop;

/// What `.gitmodules` says of one submodule.
fn entry(path: &str, url: &str) -> String {
    format!("[submodule \"{path}\"]\n\tpath = {path}\n\turl = {url}\n")
}

/// Commits files and links to commits of other repositories; gives the commit.
fn commit(dir: &Path, gitmodules: Option<&str>, links: &[(&str, &str)]) -> String {
    fs::create_dir_all(dir).unwrap();
    if !dir.join(".git").exists() {
        git(dir, &["init", "--quiet", "."]);
    }
    fs::write(dir.join("flake.nix"), "{ }").unwrap();
    git(dir, &["add", "flake.nix"]);
    if let Some(text) = gitmodules {
        fs::write(dir.join(".gitmodules"), text).unwrap();
        git(dir, &["add", ".gitmodules"]);
    }
    for (path, commit) in links {
        let link = format!("160000,{commit},{path}");
        git(dir, &["update-index", "--add", "--cacheinfo", &link]);
    }
    git(dir, &["commit", "--quiet", "-m", "links"]);
    git(dir, &["rev-parse", "HEAD"])
}

/// Who fetches, from where.
struct Fetch<'a> {
    url: String,
    commit: &'a str,
    credentials: Credentials,
    environment: BTreeMap<String, OsString>,
}

impl<'a> Fetch<'a> {
    /// From a folder, as nobody.
    fn of(folder: &Path, commit: &'a str) -> Self {
        Self {
            url: format!("file://{}", folder.display()),
            commit,
            credentials: Credentials::None,
            environment: environment(),
        }
    }

    async fn with<T>(&self, work: impl AsyncFnOnce(&Git<'_>) -> T) -> T {
        let source = Source {
            url: self.url.clone(),
            reference: None,
            commit: self.commit.into(),
            dir: String::new(),
            submodules: true,
            timeout_seconds: 60,
        };
        let (_never, stop) = Stop::never();
        work(&Git {
            source: &source,
            credentials: &self.credentials,
            ssh: None,
            ca_bundle: None,
            environment: &self.environment,
            protocols: "file:http",
            deadline: Instant::now() + Duration::from_secs(60),
            stop: &stop,
            role: Role::Source,
        })
        .await
    }

    async fn checkout(&self, to: &Path) -> Result<usize> {
        self.with(async |git| {
            git.checkout(to).await?;
            git.submodules(to).await
        })
        .await
    }
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Names of all that lies below a folder.
fn below(folder: &Path, names: &mut Vec<OsString>) {
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        names.push(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            below(&entry.path(), names);
        }
    }
}

/// `deep`, `lib`, which has `deep` in it, and `app`, which has both; gives the commit of `app`.
fn three(root: &Path) -> String {
    for name in ["deep", "lib"] {
        fs::create_dir(root.join(name)).unwrap();
    }
    // Not what its branch names: an older commit.
    let (deep, _) = repository(&root.join("deep"));
    let lib = root.join("lib");
    let lib = commit(
        &lib,
        Some(&entry("a/deep", "../deep/")),
        &[("a/deep", &deep)],
    );
    // The branch goes on without the submodule's commit.
    commit(&root.join("lib"), Some(""), &[]);
    let deep_url = format!("file://{}/deep", root.display());
    let gitmodules = entry("vendor/the lib", "../lib") + &entry("deep", &deep_url);
    let links = [("vendor/the lib", lib.as_str()), ("deep", deep.as_str())];
    commit(&root.join("app"), Some(&gitmodules), &links)
}

#[tokio::test]
async fn submodules_are_checked_out_at_their_commits_and_no_repository_is_left() {
    let root = tempfile::tempdir().unwrap();
    let app = three(root.path());
    let mut old = environment();
    // A server that gives no commits by name: as protocol version 0 does.
    old.insert("GIT_TEST_PROTOCOL_VERSION".into(), "0".into());
    for environment in [environment(), old] {
        let to = tempfile::tempdir().unwrap();
        let fetch = Fetch {
            environment,
            ..Fetch::of(&root.path().join("app"), &app)
        };
        assert_eq!(fetch.checkout(to.path()).await.unwrap(), 3);
        let file = |path: &str| read(&to.path().join(path));
        assert_eq!(file("flake.nix"), "{ }");
        assert_eq!(file("vendor/the lib/flake.nix"), "{ }");
        assert_eq!(file("vendor/the lib/a/deep/flake.nix"), "one");
        assert_eq!(file("deep/flake.nix"), "one");
        let mut names = Vec::new();
        below(to.path(), &mut names);
        assert!(!names.iter().any(|name| name == ".git"), "{names:?}");
    }
}

#[tokio::test]
async fn a_source_without_submodules_is_what_it_was() {
    let root = tempfile::tempdir().unwrap();
    let (one, _) = repository(root.path());
    let to = tempfile::tempdir().unwrap();
    let fetch = Fetch::of(root.path(), &one);
    assert_eq!(fetch.checkout(to.path()).await.unwrap(), 0);
    assert_eq!(read(&to.path().join("flake.nix")), "one");
    assert!(!to.path().join(".git").exists());
}

#[tokio::test]
async fn too_many_and_too_deep_ones_are_refused() {
    let root = tempfile::tempdir().unwrap();
    let app = three(root.path());
    let fetch = Fetch::of(&root.path().join("app"), &app);
    let within = async |number, depth| {
        let to = tempfile::tempdir().unwrap();
        let limits = Limits { number, depth };
        fetch
            .with(async |git| {
                git.checkout(to.path()).await?;
                git.submodules_within(limits, to.path()).await
            })
            .await
    };
    assert_eq!(within(3, 2).await.unwrap(), 3);
    for (number, depth, told) in [(2, 2, "more than the 2"), (3, 1, "deeper than 1")] {
        let failure = within(number, depth).await.unwrap_err();
        assert_eq!(failure.reason(), Reason::SourceInvalid);
        let message = &failure.0.message;
        assert!(
            message.contains(told) && message.contains("\"vendor/the lib/a/deep\""),
            "{message}"
        );
    }
}

#[tokio::test]
async fn what_cannot_be_had_is_told_with_path_url_and_remedy() {
    use Reason::{RevisionNotFound, SourceAuthFailed, SourceInvalid};
    let missing = "0123456789012345678901234567890123456789";
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join("lib")).unwrap();
    let (lib, _) = repository(&root.path().join("lib"));
    let above = "../".repeat(99) + "lib";
    let cases = [
        (None, lib.as_str(), SourceInvalid, "no entry in .gitmodules"),
        (
            Some(entry("other", "../lib")),
            &lib,
            SourceInvalid,
            "no entry in .gitmodules",
        ),
        (
            Some("[submodule".into()),
            &lib,
            SourceInvalid,
            "bad config line 2",
        ),
        (
            Some(entry("lib", "../lib") + "url = ../other\n"),
            &lib,
            SourceInvalid,
            "says twice",
        ),
        (
            Some(entry("lib", "../lib")),
            missing,
            RevisionNotFound,
            "push that commit",
        ),
        (
            Some(entry("lib", "../gone")),
            &lib,
            SourceInvalid,
            "check its URL in .gitmodules",
        ),
        (
            Some(entry("lib", &above)),
            &lib,
            SourceInvalid,
            "leads above the root",
        ),
        (
            Some(entry("lib", "ext::sh")),
            &lib,
            SourceInvalid,
            "is by \"ext\"",
        ),
        (
            Some(entry("lib", "http://127.0.0.1:1/lib")),
            &lib,
            SourceInvalid,
            "use https://",
        ),
        (
            Some(entry("lib", "https://ada:hunter2@git.example/lib")),
            &lib,
            SourceInvalid,
            "\"https://git.example/lib\" carries a password",
        ),
        (
            Some(entry("lib", "git@git.example:lib")),
            &lib,
            SourceAuthFailed,
            "there is no key",
        ),
    ];
    for (number, (gitmodules, link, reason, told)) in cases.into_iter().enumerate() {
        let app = root.path().join(format!("app-{number}"));
        let commit = commit(&app, gitmodules.as_deref(), &[("lib", link)]);
        let to = tempfile::tempdir().unwrap();
        let failure = Fetch::of(&app, &commit)
            .checkout(to.path())
            .await
            .unwrap_err();
        let message = &failure.0.message;
        assert_eq!(failure.reason(), reason, "{message}");
        assert!(message.contains(told), "{told:?}: {message}");
        let known = message.contains("submodule \"lib\"") || message.contains(".gitmodules");
        assert!(known && !message.contains("hunter2"), "{message}");
    }
}

#[test]
fn a_submodule_stays_within_the_checkout_and_replaces_nothing() {
    let (checkout, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::create_dir_all(checkout.path().join("a/empty")).unwrap();
    fs::create_dir_all(checkout.path().join("full/x")).unwrap();
    fs::create_dir(outside.path().join("empty")).unwrap();
    symlink(outside.path(), checkout.path().join("link")).unwrap();
    symlink("a/empty", checkout.path().join("inside")).unwrap();
    assert!(empty_folder(checkout.path(), "a/empty").is_ok());
    for path in ["link/empty", "inside", "full", "gone"] {
        let failure = empty_folder(checkout.path(), path).unwrap_err();
        assert_eq!(failure.reason(), Reason::SourceInvalid, "{path}");
    }
}

/// A server that answers everything in one way; gives its address, and what it was asked.
fn server(answer: String) -> (String, Arc<Mutex<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let asked = Arc::new(Mutex::new(String::new()));
    let heard = Arc::clone(&asked);
    // Until the tests end.
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let mut connection = connection.unwrap();
            let mut reader = BufReader::new(connection.try_clone().unwrap());
            let mut line = String::new();
            while reader.read_line(&mut line).unwrap_or(0) > 2 {
                heard.lock().unwrap().push_str(&line.to_lowercase());
                line.clear();
            }
            let response =
                format!("HTTP/1.1 {answer}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            let _ = connection.write_all(response.as_bytes());
        }
    });
    (address, asked)
}

#[tokio::test]
async fn credentials_go_to_the_sources_own_server_and_nowhere_else() {
    const TOKEN: &str = "canary-of-a-token";
    let (other, asked_other) = server("404 Not Found".into());
    let (own, asked_own) = server("404 Not Found".into());
    let (moved, asked_moved) = server(format!("302 Found\r\nLocation: http://{other}/moved"));
    let root = tempfile::tempdir().unwrap();
    let link = "0123456789012345678901234567890123456789";
    let fetch = async |name: &str, source: &str, url: &str| {
        let app = root.path().join(name);
        let commit = commit(&app, Some(&entry("lib", url)), &[("lib", link)]);
        let to = tempfile::tempdir().unwrap();
        let from_folder = Fetch::of(&app, &commit);
        from_folder
            .with(async |git| git.checkout(to.path()).await)
            .await
            .unwrap();
        let as_if = Fetch {
            url: format!("http://{source}/app"),
            credentials: Credentials::Bearer(TOKEN.into()),
            ..Fetch::of(&app, &commit)
        };
        let submodules = async |git: &Git<'_>| git.submodules(to.path()).await;
        let failure = as_if.with(submodules).await.unwrap_err();
        assert!(!failure.0.message.contains(TOKEN), "{failure:?}");
        failure
    };
    let of = |asked: &Mutex<String>| asked.lock().unwrap().clone();

    let failure = fetch("own", &own, "../lib").await;
    assert_eq!(failure.reason(), Reason::SourceAuthFailed, "{failure:?}");
    assert!(of(&asked_own).contains("get /lib/info/refs"));
    assert!(of(&asked_own).contains(TOKEN));

    let failure = fetch("other", &own, &format!("http://{other}/lib")).await;
    assert_eq!(failure.reason(), Reason::SourceAuthFailed, "{failure:?}");
    assert!(of(&asked_other).contains("get /lib/info/refs"));
    assert!(!of(&asked_other).contains(TOKEN));

    let failure = fetch("moved", &moved, "../lib").await;
    assert_eq!(failure.reason(), Reason::SourceInvalid, "{failure:?}");
    assert!(failure.0.message.contains("redirect"), "{failure:?}");
    assert!(of(&asked_moved).contains(TOKEN));
    assert!(!of(&asked_other).contains("moved"));
}

#[tokio::test]
async fn a_key_for_ssh_opens_the_sources_own_server_only() {
    let root = tempfile::tempdir().unwrap();
    let fetch = Fetch {
        url: "git@git.example:org/app.git".into(),
        credentials: Credentials::Bearer("stands for the key".into()),
        ..Fetch::of(root.path(), "")
    };
    fetch
        .with(async |git| {
            let access = |url: &str| {
                let remote = Remote::resolve(&git.source.url, url).unwrap();
                let found = git.access("lib", &remote);
                found.map(|(credentials, _)| credentials.clone())
            };
            for own in ["../lib", "ssh://git@GIT.example:22/other"] {
                assert_eq!(access(own).unwrap(), fetch.credentials, "{own}");
            }
            assert_eq!(access("https://git.example/x").unwrap(), Credentials::None);
            for other in ["git@other.example:lib", "ssh://git@git.example:2222/lib"] {
                let failure = access(other).unwrap_err();
                assert_eq!(failure.reason(), Reason::SourceAuthFailed, "{other}");
            }
        })
        .await;
}
