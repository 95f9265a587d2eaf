use std::process::Command;
use std::time::Duration;

use super::*;

/// Runs git in `dir`; gives what it says.
pub(super) fn git(dir: &Path, arguments: &[&str]) -> String {
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
}

/// A repository with two commits on `main`, and their ids.
pub(super) fn repository(dir: &Path) -> (String, String) {
    git(dir, &["init", "--quiet", "."]);
    let commit = |text: &str| {
        std::fs::write(dir.join("flake.nix"), text).unwrap();
        git(dir, &["add", "."]);
        git(dir, &["commit", "--quiet", "-m", text]);
        git(dir, &["rev-parse", "HEAD"])
    };
    (commit("one"), commit("two"))
}

pub(super) fn environment() -> BTreeMap<String, OsString> {
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
        submodules: false,
        timeout_seconds: 60,
    };
    let (_never, stop) = Stop::never();
    Git {
        source: &source,
        credentials: &Credentials::None,
        ssh: None,
        ca_bundle: None,
        environment: &environment(),
        protocols,
        deadline: Instant::now() + Duration::from_secs(60),
        stop: &stop,
        role: Role::Source,
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
async fn by_ssh_git_gets_the_keys_and_nothing_of_the_machines_configuration() {
    use std::os::unix::fs::PermissionsExt as _;
    let (dir, bin, tmp, to) = (
        tempfile::tempdir().unwrap(),
        tempfile::tempdir().unwrap(),
        tempfile::tempdir().unwrap(),
        tempfile::tempdir().unwrap(),
    );
    let (_, two) = repository(dir.path());
    // Stands in for ssh: connects to nobody, runs what git asked for here.
    let ssh = bin.path().join("ssh");
    let log = bin.path().join("log");
    let script = format!(
        "#!/bin/sh\necho \"$*\" > {}\nfor last; do :; done\nexec sh -c \"$last\"\n",
        log.display()
    );
    std::fs::write(&ssh, script).unwrap();
    std::fs::set_permissions(&ssh, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut environment = environment();
    let mut path = OsString::from(format!("{}:", bin.path().display()));
    path.push(environment.get("PATH").unwrap());
    environment.insert("PATH".into(), path);

    let keys = firn_crd::ssh::Keys {
        identity: "secret-canary-of-the-key\n".into(),
        known_hosts: "git.example ssh-ed25519 AAAA\n".into(),
    };
    let files = SshFiles::write(tmp.path(), &keys).unwrap();
    let (_never, stop) = Stop::never();
    let fetch = async |path: &str| {
        let source = Source {
            url: format!("ssh://git@git.example{path}"),
            reference: Some("refs/heads/main".into()),
            commit: two.clone(),
            dir: String::new(),
            submodules: false,
            timeout_seconds: 60,
        };
        Git {
            source: &source,
            credentials: &Credentials::Ssh(keys.clone()),
            ssh: Some(&files),
            ca_bundle: None,
            environment: &environment,
            protocols: PROTOCOLS_WITH_SSH,
            deadline: Instant::now() + Duration::from_secs(60),
            stop: &stop,
            role: Role::Source,
        }
        .checkout(to.path())
        .await
    };
    fetch(&dir.path().display().to_string()).await.unwrap();
    let text = std::fs::read_to_string(to.path().join("flake.nix")).unwrap();
    assert_eq!(text, "two");
    let arguments = std::fs::read_to_string(&log).unwrap();
    assert!(
        arguments.starts_with("-F none -o BatchMode=yes"),
        "{arguments}"
    );
    assert!(!arguments.contains("canary"), "{arguments}");
    let failure = fetch("/nowhere").await.unwrap_err();
    assert_eq!(failure.reason(), Reason::SourceInvalid, "{failure:?}");
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
