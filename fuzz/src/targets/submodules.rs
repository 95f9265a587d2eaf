//! What a repository says of its submodules: `git ls-tree`, `.gitmodules`, and the URLs in it.

use std::path::{Component, Path};

use firn_streamer::git::gitmodules;
use firn_streamer::git::remote::{Remote, shown};

pub(crate) fn run(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Ok(tree) = gitmodules::tree(&text) {
        for link in &tree.links {
            let normal = |part| matches!(part, Component::Normal(name) if name != ".git");
            assert!(!link.path.is_empty() && Path::new(&link.path).components().all(normal));
        }
    }
    for url in gitmodules::urls(&text).unwrap_or_default().values() {
        resolved(url);
    }
    resolved(&text);
}

/// A relative URL stays on its server, which is shown the credentials; and what git is given means
/// what was judged.
fn resolved(url: &str) {
    for base in [
        "https://git.example/acme/app.git",
        "git@git.example:acme/app.git",
    ] {
        let Ok(remote) = Remote::resolve(base, url) else {
            continue;
        };
        if url.starts_with("./") || url.starts_with("../") {
            let own = Remote::parse(base).map(|own| own.endpoint);
            assert_eq!(Ok(&remote.endpoint), own.as_ref(), "{base} {url}");
        }
        assert!(!remote.url.starts_with('-'));
        assert_eq!(Remote::parse(&remote.url), Ok(remote));
    }
    assert!(shown(url).chars().count() <= 200);
}
