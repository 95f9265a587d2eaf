//! The submodules of a checkout, recursively: each at the commit that the repository above it names.
//! git's own command for it is not used: what is fetched from where, and who is shown the source's
//! credentials, is decided here, for `.gitmodules` is the words of whoever wrote the repository.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use firn_crd::exit::Reason;
use firn_crd::run::Source;

use super::gitmodules::{self, Link, Tree};
use super::remote::{Endpoint, Remote, Scheme, shown};
use super::{Credentials, Git, Role, SshFiles, classify};
use crate::failure::{Failure, Result};

/// How much is followed.
#[derive(Debug, Clone, Copy)]
struct Limits {
    /// Submodules of one source, with those of submodules.
    number: usize,
    /// How deep they may lie in each other.
    depth: usize,
}

/// Each submodule takes a connection and a few processes, and large repositories have about a
/// hundred and fifty of them. What goes on for ever ends by the depth.
const LIMITS: Limits = Limits {
    number: 200,
    depth: 8,
};

/// A repository that is checked out, and whose submodules are not yet.
struct Open {
    /// Its folder relative to the checkout; empty for the source itself.
    path: String,
    url: String,
    depth: usize,
}

impl Git<'_> {
    /// Checks out the submodules of the source in `checkout`; gives their number. No `.git` is left
    /// afterwards: what lies there is files, as their commits have them, and nothing else.
    pub async fn submodules(&self, checkout: &Path) -> Result<usize> {
        self.submodules_within(LIMITS, checkout).await
    }

    async fn submodules_within(&self, limits: Limits, checkout: &Path) -> Result<usize> {
        let Limits { number, depth } = limits;
        let mut repositories = vec![checkout.to_owned()];
        let mut open = vec![Open {
            path: String::new(),
            url: self.source.url.clone(),
            depth: 0,
        }];
        while let Some(above) = open.pop() {
            let folder = checkout.join(&above.path);
            let (tree, urls) = self.listed(&folder, &above.path).await?;
            for link in tree.links {
                let path = if above.path.is_empty() {
                    link.path.clone()
                } else {
                    format!("{}/{}", above.path, link.path)
                };
                // The source itself is the first of them.
                if repositories.len() > number {
                    return Err(invalid(
                        &path,
                        &format!("it is one more than the {number} that a source may have"),
                    ));
                }
                if above.depth >= depth {
                    return Err(invalid(
                        &path,
                        &format!("it lies deeper than {depth} submodules in each other"),
                    ));
                }
                let Some(url) = urls.get(&link.path) else {
                    return Err(invalid(
                        &path,
                        "no entry in .gitmodules says where it comes from: add one with `path` \
                         and `url`, or remove it",
                    ));
                };
                let (folder, url) = self.one(checkout, &above, &path, &link, url).await?;
                repositories.push(folder);
                open.push(Open {
                    path,
                    url,
                    depth: above.depth + 1,
                });
            }
        }
        for repository in &repositories {
            let removed = fs::remove_dir_all(repository.join(".git"));
            removed.map_err(|error| Failure::internal(&error))?;
        }
        Ok(repositories.len() - 1)
    }

    /// The submodules of the repository in `folder`, and the URLs that it has for them.
    async fn listed(&self, folder: &Path, path: &str) -> Result<(Tree, BTreeMap<String, String>)> {
        let whose = |what: &str| {
            let whose = if path.is_empty() {
                format!("commit {} of {}", self.source.commit, self.source.url)
            } else {
                format!("submodule {path:?}")
            };
            let message = format!("the submodules of {whose} cannot be told: {what}");
            Failure::new(Reason::SourceInvalid, message)
        };
        let listing = ["ls-tree", "-r", "-z", "--full-tree", "HEAD"];
        let listing = self.must(folder, &listing).await?;
        let tree = gitmodules::tree(&listing).map_err(|error| whose(&error.to_string()))?;
        let urls = match &tree.gitmodules {
            Some(blob) if !tree.links.is_empty() => {
                let arguments = [
                    "config",
                    "--blob",
                    blob,
                    "--no-includes",
                    "--null",
                    "--list",
                ];
                let (success, listing, errors) = self.git(folder, &arguments).await?;
                if !success {
                    return Err(whose(&format!(
                        "git does not understand .gitmodules: {}",
                        classify::essence(&errors)
                    )));
                }
                gitmodules::urls(&listing).map_err(|error| whose(&error.to_string()))?
            }
            _ => BTreeMap::new(),
        };
        Ok((tree, urls))
    }

    /// Checks out one submodule; gives its folder and the URL that it came from.
    async fn one(
        &self,
        checkout: &Path,
        above: &Open,
        path: &str,
        link: &Link,
        url: &str,
    ) -> Result<(PathBuf, String)> {
        let remote = Remote::resolve(&above.url, url).map_err(|error| {
            let url = shown(url);
            invalid(
                path,
                &format!("its URL {url:?} {error}: correct .gitmodules"),
            )
        })?;
        let (credentials, ssh) = self.access(path, &remote)?;
        let folder = empty_folder(checkout, path)?;
        let source = Source {
            url: remote.url.clone(),
            reference: None,
            commit: link.commit.clone(),
            dir: String::new(),
            submodules: true,
            timeout_seconds: self.source.timeout_seconds,
        };
        let git = Git {
            source: &source,
            credentials,
            ssh,
            ca_bundle: self.ca_bundle,
            environment: self.environment,
            protocols: remote.endpoint.scheme.name(),
            deadline: self.deadline,
            stop: self.stop,
            role: Role::Submodule,
        };
        git.checkout(&folder).await.map_err(|mut failure| {
            failure.0.message = format!("submodule {path:?}: {}", failure.0.message);
            failure
        })?;
        tracing::info!(
            path,
            url = remote.url,
            commit = link.commit,
            "submodule checked out"
        );
        Ok((folder, remote.url))
    }

    /// What a submodule's server is shown of the source's credentials: everything if it is the
    /// source's own, else nothing.
    fn access(&self, path: &str, remote: &Remote) -> Result<(&Credentials, Option<&SshFiles>)> {
        let own: Option<Endpoint> = Remote::parse(&self.source.url)
            .ok()
            .map(|source| source.endpoint);
        if own.as_ref() == Some(&remote.endpoint) {
            return Ok((self.credentials, self.ssh));
        }
        let scheme = remote.endpoint.scheme;
        let as_source = own.is_some_and(|own| own.scheme == scheme);
        match scheme {
            Scheme::Https => Ok((&Credentials::None, None)),
            Scheme::Http | Scheme::File if as_source => Ok((&Credentials::None, None)),
            Scheme::Http | Scheme::File => Err(invalid(
                path,
                &format!(
                    "its URL {:?} is by {:?}: use https:// in .gitmodules",
                    remote.url,
                    scheme.name()
                ),
            )),
            Scheme::Ssh => Err(Failure::new(
                Reason::SourceAuthFailed,
                format!(
                    "submodule {path:?}: there is no key for {}: the Secret's is for the source's \
                     own server, reached as the source is; in .gitmodules, write a URL relative to \
                     the source's (../…), or an https:// one that needs no credentials",
                    remote.url
                ),
            )),
        }
    }
}

fn invalid(path: &str, what: &str) -> Failure {
    Failure::new(Reason::SourceInvalid, format!("submodule {path:?}: {what}"))
}

/// The folder that git made for a submodule: within the checkout whatever links there are, and
/// empty.
fn empty_folder(checkout: &Path, path: &str) -> Result<PathBuf> {
    let folder = checkout.join(path);
    let real = || {
        let within = fs::canonicalize(checkout)?.join(path) == fs::canonicalize(&folder)?;
        let empty = fs::read_dir(&folder)?.next().is_none();
        io::Result::Ok(within && empty)
    };
    match real() {
        Ok(true) => Ok(folder),
        Ok(false) | Err(_) => Err(invalid(
            path,
            "something else is in its place: commit the repository again without it",
        )),
    }
}

#[cfg(test)]
mod tests;
