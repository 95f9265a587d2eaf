use std::process::Command;
use std::time::Duration;

use super::*;

/// A repository with two commits on `main`, and their ids.
fn repository(dir: &Path) -> (String, String) {
    let git = |arguments: &[&str]| {
        let output = Command::new("git")
            .args(["-c", "user.name=t", "-c", "user.email=t@example.com"])
            .args([
                "-c",
                "init.defaultBranch=main",
                "-c",
                "commit.gpgSign=false",
            ])
            .args(arguments)
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_COMMITTER_DATE", "2024-01-01T00:00:00Z")
            .current_dir(dir)
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    git(&["init", "--quiet", "."]);
    let commit = |text: &str| {
        std::fs::write(dir.join("flake.nix"), text).unwrap();
        git(&["add", "."]);
        git(&["commit", "--quiet", "-m", text]);
        git(&["rev-parse", "HEAD"])
    };
    (commit("one"), commit("two"))
}

fn environment() -> BTreeMap<String, OsString> {
    // The tests' own PATH: git may be anywhere.
    let path = std::env::vars_os()
        .find(|(name, _)| name == "PATH")
        .unwrap()
        .1;
    BTreeMap::from([("PATH".into(), path), ("LC_ALL".into(), "C".into())])
}

async fn checkout(
    url: &Path,
    commit: &str,
    reference: &str,
    to: &Path,
    protocols: &str,
) -> Result<Commit> {
    let source = Source {
        url: format!("file://{}", url.display()),
        reference: Some(reference.into()),
        commit: commit.into(),
        dir: String::new(),
        timeout_seconds: 60,
    };
    let (_never, stop) = Stop::never();
    Git {
        source: &source,
        credentials: &Credentials::None,
        ca_bundle: None,
        environment: &environment(),
        protocols,
        deadline: Instant::now() + Duration::from_secs(60),
        stop: &stop,
    }
    .checkout(to)
    .await
}

#[tokio::test]
async fn the_newest_and_an_older_commit_are_checked_out() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = repository(dir.path());
    for (commit, text) in [(one, "one"), (two, "two")] {
        let to = tempfile::tempdir().unwrap();
        let got = checkout(dir.path(), &commit, "refs/heads/main", to.path(), "file")
            .await
            .unwrap();
        assert_eq!(got.time.to_string(), "2024-01-01T00:00:00Z");
        assert_eq!(
            std::fs::read_to_string(to.path().join("flake.nix")).unwrap(),
            text
        );
    }
}

#[tokio::test]
async fn a_server_without_commits_by_id_is_asked_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let (one, _) = repository(dir.path());
    // Protocol version 0 refuses commits that no name points to.
    let config = "[core]\nrepositoryformatversion = 0\n[uploadpack]\nallowAnySHA1InWant = false\n[protocol]\nversion = 0\n";
    std::fs::write(dir.path().join(".git/config"), config).unwrap();
    let to = tempfile::tempdir().unwrap();
    checkout(dir.path(), &one, "refs/heads/main", to.path(), "file")
        .await
        .unwrap();
    assert_eq!(
        std::fs::read_to_string(to.path().join("flake.nix")).unwrap(),
        "one"
    );
}

#[tokio::test]
async fn what_is_not_there_is_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let (_, two) = repository(dir.path());
    let to = tempfile::tempdir().unwrap();
    let missing = "0123456789012345678901234567890123456789";
    for (commit, reference, reason) in [
        (missing, "refs/heads/main", Reason::RevisionNotFound),
        (missing, "refs/heads/gone", Reason::RevisionNotFound),
        ("--upload-pack=sh", "refs/heads/main", Reason::InternalError),
    ] {
        let failure = checkout(dir.path(), commit, reference, to.path(), "file")
            .await
            .unwrap_err();
        assert_eq!(failure.reason(), reason, "{failure:?}");
    }
    let nowhere = dir.path().join("nowhere");
    let failure = checkout(&nowhere, &two, "refs/heads/main", to.path(), "file")
        .await
        .unwrap_err();
    assert_eq!(failure.reason(), Reason::SourceInvalid, "{failure:?}");
}

#[tokio::test]
async fn a_transport_that_is_not_allowed_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (_, two) = repository(dir.path());
    let to = tempfile::tempdir().unwrap();
    let failure = checkout(dir.path(), &two, "refs/heads/main", to.path(), PROTOCOLS)
        .await
        .unwrap_err();
    assert_eq!(failure.reason(), Reason::SourceInvalid, "{failure:?}");
}
