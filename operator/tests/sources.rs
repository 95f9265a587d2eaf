//! Sources against real git servers: git's own http-backend behind a small CGI shim, with and
//! without credentials, filters and protocol version 2. Needs the git program, as the operator
//! does. TLS is tested in the cluster.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail by panicking")]

use std::time::Duration;

use firn_operator::settings::Network;
use firn_operator::source::{
    Answers as _, Git, ImageKey, Kind, Observation, Query, Revision, Sources, Target,
};
use jiff::Timestamp;

#[path = "git/cluster.rs"]
mod cluster;
#[path = "hooks/tests.rs"]
mod hooks;
#[path = "git/server.rs"]
mod server;

use server::{Access, Protocol, Repository, Server};

fn git(url: String) -> Git {
    Git {
        url,
        target: Target::Branch("main".into()),
        dir: ".".into(),
        secret: None,
        ca: None,
        webhook: None,
        interval: Duration::from_secs(300),
        timeout: Duration::from_secs(30),
    }
}

fn query(git: Git) -> Query {
    Query {
        git,
        paths: vec![],
        known: None,
        asked: None,
    }
}

async fn sources() -> Sources {
    let client = cluster::client().await;
    Sources::new_with_plain_http(client, &Network::default()).unwrap()
}

/// Observes until the first poll has ended.
async fn first(sources: &Sources, query: &Query) -> Observation {
    let key = ImageKey {
        namespace: "shop".into(),
        name: "web".into(),
    };
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    loop {
        let observed = sources.observe(&key, query, Timestamp::UNIX_EPOCH);
        if observed.observation != Observation::Pending {
            return observed.observation;
        }
        assert!(
            tokio::time::Instant::now() < deadline,
            "no poll ended in a minute"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn found(query: &Query) -> Revision {
    match first(&sources().await, query).await {
        Observation::Resolved {
            revision,
            incomplete: None,
            ..
        } => revision,
        other => panic!("{other:?}"),
    }
}

async fn failed(query: &Query) -> (Kind, String) {
    match first(&sources().await, query).await {
        Observation::Failed { failure, .. } => (failure.kind, failure.message),
        other => panic!("{other:?}"),
    }
}

/// What sha256sum says of it.
fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest;
    use std::fmt::Write;
    let mut text = String::new();
    for byte in sha2::Sha256::digest(bytes) {
        write!(text, "{byte:02x}").unwrap();
    }
    text
}

#[tokio::test]
async fn a_branch_is_resolved_with_its_lock_file_and_time() {
    let repository = Repository::new();
    let commit = repository.commit(&[("flake.lock", "locked 1"), ("flake.nix", "{}")]);
    let server = Server::start(&repository, Access::Public, Protocol::V2).await;
    let revision = found(&query(git(server.url()))).await;
    assert_eq!(revision.reference.as_deref(), Some("refs/heads/main"));
    assert_eq!(revision.commit, commit);
    assert_eq!(revision.lock_hash, Some(sha256(b"locked 1")));
    assert_eq!(revision.paths_hash, None);
    assert_eq!(revision.commit_time.unwrap().as_second(), 1_700_000_000);
}

#[tokio::test]
async fn head_tags_and_commits_are_resolved_too() {
    let repository = Repository::new();
    let old = repository.commit(&[("flake.lock", "locked 1")]);
    repository.git(&["tag", "-a", "-m", "first", "v1"]);
    let new = repository.commit(&[("flake.lock", "locked 2")]);
    let server = Server::start(&repository, Access::Public, Protocol::V2).await;
    let at = |target| {
        query(Git {
            target,
            ..git(server.url())
        })
    };

    let head = found(&at(Target::Head)).await;
    assert_eq!(
        (head.reference.as_deref(), head.commit),
        (Some("refs/heads/main"), new)
    );
    let tag = found(&at(Target::Tag("v1".into()))).await;
    assert_eq!(
        (tag.reference.as_deref(), &tag.commit),
        (Some("refs/tags/v1"), &old)
    );
    assert_eq!(tag.lock_hash, Some(sha256(b"locked 1")));
    let commit = found(&at(Target::Commit(old.clone()))).await;
    assert_eq!((commit.reference, &commit.commit), (None, &old));
    assert_eq!(commit.lock_hash, Some(sha256(b"locked 1")));
}

#[tokio::test]
async fn the_highest_tag_of_a_range_is_found_whatever_the_server_speaks() {
    for protocol in [Protocol::V2, Protocol::V0] {
        let repository = Repository::new();
        let old = repository.commit(&[("flake.lock", "locked 1")]);
        repository.git(&["tag", "v1.9.0"]);
        repository.git(&["tag", "-a", "-m", "annotated", "v1.10.0"]);
        repository.commit(&[("flake.lock", "locked 2")]);
        for tag in ["v2.0.0-rc.1", "v2.0.0", "1.x", "nightly"] {
            repository.git(&["tag", tag]);
        }
        let server = Server::start(&repository, Access::Public, protocol).await;
        let range = |range: &str| {
            query(Git {
                target: Target::Semver(range.into()),
                ..git(server.url())
            })
        };
        let revision = found(&range("1.x")).await;
        assert_eq!(revision.reference.as_deref(), Some("refs/tags/v1.10.0"));
        assert_eq!(
            (&revision.commit, revision.lock_hash),
            (&old, Some(sha256(b"locked 1")))
        );
        let (kind, message) = failed(&range(">=3")).await;
        assert_eq!(kind, Kind::RevisionNotFound);
        assert!(
            message.contains("\">=3\" (looked at 6 tags, 4 of them"),
            "{message}"
        );
        let (kind, message) = failed(&range("newest")).await;
        assert_eq!(kind, Kind::Invalid);
        assert!(message.contains("ref.semver: \"newest\""), "{message}");
    }
}

#[tokio::test]
async fn what_does_not_exist_is_named() {
    let repository = Repository::new();
    repository.commit(&[("flake.lock", "x")]);
    let server = Server::start(&repository, Access::Public, Protocol::V2).await;
    let at = |target| {
        query(Git {
            target,
            ..git(server.url())
        })
    };
    for (target, word) in [
        (Target::Branch("mai".into()), "\"mai\""),
        (Target::Tag("v9".into()), "\"v9\""),
        (Target::Commit("0123456789".repeat(4)), "0123456789"),
    ] {
        let (kind, message) = failed(&at(target)).await;
        assert_eq!(kind, Kind::RevisionNotFound, "{message}");
        assert!(message.contains(word), "{message}");
    }
    let (kind, message) = failed(&query(git(format!("{}-typo", server.url())))).await;
    assert_eq!(kind, Kind::Invalid, "{message}");
    assert!(message.contains("no git repository"), "{message}");
}

#[tokio::test]
async fn an_empty_repository_says_so() {
    let repository = Repository::new();
    let server = Server::start(&repository, Access::Public, Protocol::V2).await;
    let (kind, message) = failed(&query(Git {
        target: Target::Head,
        ..git(server.url())
    }))
    .await;
    assert_eq!(kind, Kind::RevisionNotFound);
    assert!(message.contains("push a commit"), "{message}");
}

#[tokio::test]
async fn the_lock_file_of_a_directory_and_further_paths_are_hashed() {
    let repository = Repository::new();
    let lock = ("nix/flake.lock", "locked");
    let base = repository.commit(&[lock, ("src/main.c", "1"), ("docs/a.md", "1")]);
    let server = Server::start(&repository, Access::Public, Protocol::V2).await;
    let asked = |paths: &[&str]| Query {
        paths: paths.iter().map(|p| (*p).to_owned()).collect(),
        ..query(Git {
            dir: "./nix/".into(),
            ..git(server.url())
        })
    };
    let watched = asked(&["src/", "missing.txt"]);
    let before = found(&watched).await;
    assert_eq!(
        (&before.commit, &before.lock_hash),
        (&base, &Some(sha256(b"locked")))
    );
    repository.commit(&[("docs/a.md", "2")]);
    let unrelated = found(&watched).await;
    assert_ne!(unrelated.commit, base);
    assert_eq!(unrelated.paths_hash, before.paths_hash);
    repository.commit(&[("src/main.c", "2")]);
    let changed = found(&watched).await;
    assert_ne!(changed.paths_hash, before.paths_hash);
    repository.commit(&[("missing.txt", "here")]);
    assert_ne!(found(&watched).await.paths_hash, changed.paths_hash);
    // Without a lock file there is no hash, and that is no failure.
    let root = Query {
        git: git(server.url()),
        ..asked(&["."])
    };
    let root = found(&root).await;
    assert_eq!(root.lock_hash, None);
    assert!(root.paths_hash.is_some());
}

#[tokio::test]
async fn nothing_but_the_wanted_blob_travels_when_the_server_filters() {
    let repository = Repository::new();
    repository.commit(&[("flake.lock", "locked"), ("big", &server::noise(4 << 20))]);
    let server = Server::start(&repository, Access::Public, Protocol::V2).await;
    assert_eq!(
        found(&query(git(server.url()))).await.lock_hash,
        Some(sha256(b"locked"))
    );
    assert!(server.sent() < 64 << 10, "{} bytes", server.sent());
}

#[tokio::test]
async fn a_server_without_filters_or_with_protocol_0_only_is_read_too() {
    for protocol in [Protocol::WithoutFilters, Protocol::V0] {
        let repository = Repository::new();
        let old = repository.commit(&[("flake.lock", "locked 0")]);
        repository.git(&["tag", "-a", "-m", "first", "v1"]);
        let commit = repository.commit(&[("flake.lock", "locked")]);
        let server = Server::start(&repository, Access::Public, protocol).await;
        let revision = found(&query(git(server.url()))).await;
        assert_eq!(
            (revision.commit, revision.lock_hash),
            (commit, Some(sha256(b"locked"))),
            "{protocol:?}"
        );
        let tag = found(&query(Git {
            target: Target::Tag("v1".into()),
            ..git(server.url())
        }))
        .await;
        assert_eq!(
            (tag.commit, tag.lock_hash),
            (old, Some(sha256(b"locked 0"))),
            "{protocol:?}"
        );
    }
}

#[tokio::test]
async fn a_commit_too_large_to_read_is_found_all_the_same() {
    let repository = Repository::new();
    let commit = repository.commit(&[("flake.lock", &"x".repeat(5 << 20))]);
    let server = Server::start(&repository, Access::Public, Protocol::V2).await;
    match first(&sources().await, &query(git(server.url()))).await {
        Observation::Resolved {
            revision,
            incomplete: Some(why),
            ..
        } => {
            assert_eq!((revision.commit, revision.lock_hash), (commit, None));
            assert!(why.message.contains("4 MiB"), "{}", why.message);
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn private_repositories_need_the_right_credentials() {
    let repository = Repository::new();
    let commit = repository.commit(&[("flake.lock", "locked")]);
    let server = Server::start(&repository, Access::Private, Protocol::V2).await;
    let with = |secret: Option<&str>| {
        query(Git {
            secret: secret.map(str::to_owned),
            ..git(server.url())
        })
    };

    let (kind, message) = failed(&with(None)).await;
    assert_eq!(kind, Kind::AuthFailed);
    assert!(message.contains("secretRef"), "{message}");
    let (kind, message) = failed(&with(Some("wrong"))).await;
    assert_eq!(kind, Kind::AuthFailed);
    assert!(
        message.contains("\"wrong\"") && !message.contains(cluster::WRONG),
        "{message}"
    );
    for secret in ["basic", "bearer"] {
        let revision = found(&with(Some(secret))).await;
        assert_eq!(
            (revision.commit, revision.lock_hash),
            (commit.clone(), Some(sha256(b"locked"))),
            "{secret}"
        );
    }
}

#[tokio::test]
async fn secrets_that_cannot_be_read_are_named_with_the_remedy() {
    let repository = Repository::new();
    let server = Server::start(&repository, Access::Private, Protocol::V2).await;
    let with = |secret: &str| {
        query(Git {
            secret: Some(secret.into()),
            ..git(server.url())
        })
    };
    let (kind, message) = failed(&with("absent")).await;
    assert_eq!(kind, Kind::SecretMissing);
    assert!(
        message.contains("\"absent\"") && message.contains("\"shop\""),
        "{message}"
    );
    let (kind, message) = failed(&with("forbidden")).await;
    assert_eq!(kind, Kind::CredentialsForbidden);
    assert!(
        message.contains("--serviceaccount=firn-system:firn"),
        "{message}"
    );
    let (kind, message) = failed(&with("empty")).await;
    assert_eq!(kind, Kind::SecretMissing);
    assert!(message.contains("bearerToken"), "{message}");
    let ca = Git {
        ca: Some(("absent".into(), "ca.crt".into())),
        ..git(server.url())
    };
    let (kind, message) = failed(&query(ca)).await;
    assert_eq!(kind, Kind::SecretMissing);
    assert!(message.contains("ConfigMap"), "{message}");
}

#[tokio::test]
async fn a_redirect_to_another_host_gets_no_credentials() {
    let repository = Repository::new();
    let commit = repository.commit(&[("flake.lock", "locked")]);
    let private = Server::start(&repository, Access::Private, Protocol::V2).await;
    let elsewhere = Server::redirecting_to(&private.url()).await;
    let moved = query(Git {
        secret: Some("basic".into()),
        ..git(elsewhere.url())
    });
    let (kind, _) = failed(&moved).await;
    assert_eq!(kind, Kind::AuthFailed);
    assert_eq!(
        private.authorizations(),
        0,
        "credentials went to another host"
    );

    let public = Server::start(&repository, Access::Public, Protocol::V2).await;
    let elsewhere = Server::redirecting_to(&public.url()).await;
    assert_eq!(found(&query(git(elsewhere.url()))).await.commit, commit);
}

#[tokio::test]
async fn what_is_no_git_server_or_none_at_all_is_told_apart() {
    let page = Server::answering(200, "text/html", "<html>").await;
    let (kind, message) = failed(&query(git(page.url()))).await;
    assert_eq!(kind, Kind::Invalid);
    assert!(message.contains("text/html"), "{message}");
    let limited = Server::answering(429, "text/plain", "slow down").await;
    assert_eq!(
        failed(&query(git(limited.url()))).await.0,
        Kind::RateLimited
    );
    let broken = Server::answering(503, "text/plain", "").await;
    assert_eq!(failed(&query(git(broken.url()))).await.0, Kind::Unreachable);
    // Nobody listens on the port any more. (A server's task would end a moment after its drop.)
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let gone = format!("http://{}/repo", listener.local_addr().unwrap());
    drop(listener);
    let (kind, message) = failed(&query(git(gone))).await;
    assert_eq!(kind, Kind::Unreachable);
    assert!(message.contains("refused"), "{message}");
}

#[tokio::test]
async fn a_silent_server_is_given_up_after_the_timeout() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/repo", silent.local_addr().unwrap());
    let (kind, message) = failed(&query(Git {
        timeout: Duration::from_secs(1),
        ..git(url)
    }))
    .await;
    assert_eq!(kind, Kind::Unreachable);
    assert!(message.contains("within 1 s"), "{message}");
}

/// Stands in for the operator as git's ssh program: has the keys where they belong, connects to
/// nobody, and runs what git asked for here.
fn stand_in_for_ssh(folder: &std::path::Path) -> std::path::PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let identity = folder.join("identity");
    std::fs::write(&identity, cluster::IDENTITY).unwrap();
    let script = format!(
        "#!/bin/sh\n\
         own=$(dirname \"$0\")\n\
         [ \"$(stat -c %a \"$own\")\" = 700 ] || {{ echo 'fatal: open folder' >&2; exit 255; }}\n\
         [ \"$(stat -c %a \"$own/identity\")\" = 600 ] || {{ echo 'fatal: open key' >&2; exit 255; }}\n\
         cmp -s \"$own/identity\" {} || {{ echo 'git@h: Permission denied (publickey).' >&2; exit 255; }}\n\
         grep -q '^git.example ' \"$own/known_hosts\" || {{ echo 'Host key verification failed.' >&2; exit 255; }}\n\
         case \"$*\" in *git@git.example*) ;; *) echo \"fatal: $*\" >&2; exit 255;; esac\n\
         for last; do :; done\n\
         exec sh -c \"$last\"\n",
        identity.display()
    );
    let program = folder.join("operator");
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    program
}

#[tokio::test]
async fn a_source_by_ssh_is_read_with_the_keys_of_its_secret() {
    let folder = tempfile::tempdir().unwrap();
    let operator = stand_in_for_ssh(folder.path());
    let repository = Repository::new();
    let old = repository.commit(&[("flake.lock", "locked 1")]);
    repository.git(&["tag", "-a", "-m", "first", "v1"]);
    let new = repository.commit(&[("flake.lock", "locked 2")]);
    repository.git(&["tag", "0.9.0"]);
    let path = repository.path().display().to_string();
    let client = cluster::client().await;
    let look = async |url: &str, target, secret: Option<&str>| {
        let sources =
            Sources::new_with_operator(client.clone(), &Network::default(), operator.clone());
        let asked = query(Git {
            target,
            secret: secret.map(str::to_owned),
            ..git(url.to_owned())
        });
        first(&sources.unwrap(), &asked).await
    };
    let url = format!("ssh://git@git.example{path}");
    for (target, reference, commit, lock) in [
        (Target::Head, Some("refs/heads/main"), &new, "locked 2"),
        (
            Target::Branch("main".into()),
            Some("refs/heads/main"),
            &new,
            "locked 2",
        ),
        (
            Target::Tag("v1".into()),
            Some("refs/tags/v1"),
            &old,
            "locked 1",
        ),
        (
            Target::Semver("<1".into()),
            Some("refs/tags/0.9.0"),
            &new,
            "locked 2",
        ),
        (Target::Commit(old.clone()), None, &old, "locked 1"),
    ] {
        let found = look(&url, target.clone(), Some("ssh")).await;
        let Observation::Resolved {
            revision,
            incomplete: None,
            ..
        } = found
        else {
            panic!("{target:?}: {found:?}")
        };
        assert_eq!(revision.reference.as_deref(), reference);
        assert_eq!(&revision.commit, commit);
        assert_eq!(revision.lock_hash, Some(sha256(lock.as_bytes())));
    }
    let gone = format!("git@git.example:{}/gone", path.trim_start_matches('/'));
    let absent = Target::Branch("absent".into());
    for (url, target, secret, kind, word) in [
        (&url, Target::Head, None, Kind::SecretMissing, "secretRef"),
        (
            &url,
            Target::Head,
            Some("basic"),
            Kind::SecretMissing,
            "identity",
        ),
        (
            &url,
            Target::Head,
            Some("ssh-without-hosts"),
            Kind::HostKeyUnknown,
            "known_hosts",
        ),
        (&url, absent, Some("ssh"), Kind::RevisionNotFound, "absent"),
        (
            &gone,
            Target::Head,
            Some("ssh"),
            Kind::Invalid,
            "not appear to be a git repository",
        ),
    ] {
        let found = look(url, target, secret).await;
        let Observation::Failed { failure, .. } = found else {
            panic!("{secret:?}: {found:?}")
        };
        assert_eq!(failure.kind, kind, "{}", failure.message);
        assert!(failure.message.contains(word), "{}", failure.message);
        assert!(!failure.message.contains("canary"), "{}", failure.message);
    }
}

#[tokio::test]
async fn https_is_the_only_way() {
    let client = cluster::client().await;
    let strict = Sources::new(client, &Network::default()).unwrap();
    let plain = query(git("http://127.0.0.1:1/repo".into()));
    let Observation::Failed { failure, .. } = first(&strict, &plain).await else {
        panic!("not refused")
    };
    assert_eq!(failure.kind, Kind::Invalid);
}
