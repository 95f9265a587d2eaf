//! One look at one source: credentials, `ls-refs`, and for a new commit the git program.

use std::time::Duration;

use firn_crd::ssh::SshUrl;
use futures::future::BoxFuture;
use kube::Client;

use super::credentials::Trust;
use super::git_program::{GitProgram, Place, Wanted};
use super::http::{Http, Remote};
use super::ls_refs::Ref;
use super::poller::{Ask, Found, Look};
use super::semver::Range;
use super::{Git, Kind, Revision, SourceFailure, Target, classify, credentials, ls_refs, semver};

/// Looks at real servers.
#[derive(Debug)]
pub(crate) struct Servers {
    client: Debuggable,
    http: Http,
    program: GitProgram,
    plain_http: bool,
}

/// kube's client prints nothing.
struct Debuggable(Client);

impl std::fmt::Debug for Debuggable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Client")
    }
}

impl Servers {
    /// Reads credentials with `client`.
    pub(crate) fn new(client: Client, http: Http, program: GitProgram, plain_http: bool) -> Self {
        Self {
            client: Debuggable(client),
            http,
            program,
            plain_http,
        }
    }

    async fn find(&self, ask: &Ask) -> Result<Found, SourceFailure> {
        let git = &ask.git;
        if let Target::Semver(range) = &git.target {
            range.parse::<Range>().map_err(|error| {
                SourceFailure::new(
                    Kind::Invalid,
                    format!(
                        "source.git.ref.semver: {error}: write one such as \"1.x\", \">=1.2 <2\" or \
                         \"~1.4\""
                    ),
                )
            })?;
        }
        let trust = credentials::read(&self.client.0, &ask.namespace, git).await?;
        if SshUrl::is(&git.url) {
            return self.find_by_ssh(ask, &trust).await;
        }
        let remote = Remote::new(git, trust, self.plain_http)?;
        let shown = remote.base.to_string();
        let (remote, reference, commit) =
            within(git.timeout, &shown, self.resolve(remote, git)).await?;
        self.read(ask, remote.place(), reference, commit).await
    }

    /// The same by ssh, which the git program speaks.
    async fn find_by_ssh(&self, ask: &Ask, trust: &Trust) -> Result<Found, SourceFailure> {
        let git = &ask.git;
        SshUrl::parse(&git.url).map_err(|error| {
            SourceFailure::new(
                Kind::Invalid,
                format!(
                    "source.git.url {error}: give a URL such as ssh://git@git.example.com/team/repo \
                     or git@git.example.com:team/repo"
                ),
            )
        })?;
        let place = Place {
            url: &git.url,
            trust,
            secret: git.secret.as_deref(),
        };
        if let Target::Commit(commit) = &git.target {
            return self.read(ask, place, None, commit.clone()).await;
        }
        let refs = self.program.refs(place, &git.target, git.timeout).await?;
        let (reference, commit) = ls_refs::resolve(&refs, &git.target)
            .ok_or_else(|| not_found(&git.target, &refs, &git.url))?;
        self.read(ask, place, Some(reference), commit).await
    }

    /// What decides about a commit, unless it is known.
    async fn read(
        &self,
        ask: &Ask,
        place: Place<'_>,
        reference: Option<String>,
        commit: String,
    ) -> Result<Found, SourceFailure> {
        let git = &ask.git;
        if let Some(last) = ask.still_good(reference.as_deref(), &commit) {
            return Ok(last);
        }
        let wanted = Wanted {
            commit: &commit,
            reference: reference.as_deref(),
            dir: &git.dir,
            paths: &ask.paths,
            timeout: git.timeout,
        };
        let hashes = self.program.read(place, wanted).await;
        let bare = Revision {
            reference,
            commit,
            lock_hash: None,
            paths_hash: None,
            commit_time: None,
        };
        match hashes {
            Ok(hashes) => Ok(Found {
                revision: Revision {
                    lock_hash: hashes.lock,
                    paths_hash: hashes.paths,
                    commit_time: hashes.commit_time,
                    ..bare
                },
                incomplete: None,
            }),
            // Nothing else has shown yet that a commit given by its id exists.
            Err(failure)
                if matches!(git.target, Target::Commit(_))
                    && failure.kind == Kind::RevisionNotFound =>
            {
                Err(failure)
            }
            Err(failure) => Ok(Found {
                revision: bare,
                incomplete: Some(failure),
            }),
        }
    }

    /// Where the repository is now, the ref's full name and its commit.
    async fn resolve(
        &self,
        remote: Remote,
        git: &Git,
    ) -> Result<(Remote, Option<String>, String), SourceFailure> {
        let (remote, advertisement) = self.http.discover(remote).await?;
        if let Target::Commit(commit) = &git.target {
            return Ok((remote, None, commit.clone()));
        }
        let refs = self.http.refs(&remote, advertisement, &git.target).await?;
        match ls_refs::resolve(&refs, &git.target) {
            Some((reference, commit)) => Ok((remote, Some(reference), commit)),
            None => Err(not_found(&git.target, &refs, remote.base.as_str())),
        }
    }
}

impl Look for Servers {
    fn look<'a>(&'a self, ask: &'a Ask) -> BoxFuture<'a, Result<Found, SourceFailure>> {
        Box::pin(self.find(ask))
    }
}

async fn within<T>(
    timeout: Duration,
    url: &str,
    work: impl Future<Output = Result<T, SourceFailure>>,
) -> Result<T, SourceFailure> {
    tokio::time::timeout(timeout, work)
        .await
        .unwrap_or_else(|_| Err(classify::timeout(url, timeout)))
}

fn not_found(target: &Target, refs: &[Ref], url: &str) -> SourceFailure {
    let message = match target {
        Target::Head => format!(
            "{url:?} has no default branch, it may be empty: push a commit, or name a branch in source.git.ref.branch"
        ),
        Target::Branch(name) => {
            format!("{url:?} has no branch {name:?}: push it, or change source.git.ref.branch")
        }
        Target::Tag(name) => {
            format!("{url:?} has no tag {name:?}: push it, or change source.git.ref.tag")
        }
        Target::Semver(range) => {
            let looked_at = ls_refs::tags(refs).count();
            let versions = ls_refs::tags(refs).filter_map(semver::version).count();
            format!(
                "{url:?} has no tag in the range {range:?} (looked at {looked_at} tags, {versions} of \
                 them semantic versions): push one, or change source.git.ref.semver"
            )
        }
        Target::Commit(commit) => {
            format!("{url:?} has no commit {commit}: change source.git.ref.commit")
        }
    };
    SourceFailure::new(Kind::RevisionNotFound, message)
}
