//! Every parser of what a registry (or somebody's `config.json`) says, for fuzzing: none may panic
//! or take more than time in proportion to its input.

use reqwest::Url;

use crate::registry::{Credentials, auth, challenge, error, headers, retry, upload};
use crate::{ImageConfig, Index, Manifest, Reference};

/// A parser by its name. What it makes of the bytes does not matter.
pub type Parser = (&'static str, fn(&[u8]));

/// All of them.
pub const PARSERS: &[Parser] = &[
    ("challenge", |bytes| seen(challenge::parse(&text(bytes)))),
    ("link", |bytes| seen(headers::next_page(&text(bytes)))),
    ("range", |bytes| seen(headers::held(&text(bytes)))),
    ("content-range", |bytes| {
        seen(headers::content_range(&text(bytes)));
    }),
    ("retry-after", |bytes| {
        seen(retry::retry_after(
            &text(bytes),
            jiff::Timestamp::UNIX_EPOCH,
        ));
    }),
    ("location", |bytes| location(&text(bytes))),
    ("error-body", |bytes| seen(error::words_of(bytes))),
    ("token", |bytes| seen(auth::token_in(bytes))),
    ("docker-config", |bytes| {
        seen(Credentials::from_docker_config(bytes));
    }),
    ("manifest", |bytes| seen(Manifest::from_bytes(bytes))),
    ("index", |bytes| seen(Index::from_bytes(bytes))),
    ("config", |bytes| seen(ImageConfig::from_bytes(bytes))),
    ("reference", |bytes| seen(text(bytes).parse::<Reference>())),
];

/// Takes whatever was made.
fn seen<T>(made: T) {
    drop(std::hint::black_box(made));
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn location(header: &str) {
    for asked in [
        "https://r.example/v2/a/blobs/uploads/",
        "http://r.example:5000/",
    ] {
        if let Ok(asked) = Url::parse(asked) {
            // What is followed is never less safe than what was asked.
            if let Ok(next) = upload::upload_place(&asked, header) {
                assert!(
                    asked.scheme() == "http" || next.scheme() == "https",
                    "{next}"
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_parser_panics(bytes in prop::collection::vec(any::<u8>(), 0..200), text in "\\PC{0,80}") {
            for (_, parse) in PARSERS {
                parse(&bytes);
                parse(text.as_bytes());
            }
        }
    }
}
