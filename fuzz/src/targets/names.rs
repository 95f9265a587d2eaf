//! Names of things, in every form in which a user, a registry or a build may write them.

use std::fmt::{Debug, Display};
use std::str::FromStr;

use firn_oci::{Digest, Platform, Reference, RegistryHost, Repository, Tag};
use firn_streamer::nar_hash::NarHash;
use firn_streamer::nix::attribute::Attribute;
use firn_streamer::store_path::{STORE, StorePath};

pub(crate) fn run(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else {
        return;
    };
    round_trip::<Reference>(text);
    round_trip::<RegistryHost>(text);
    round_trip::<Tag>(text);
    round_trip::<Digest>(text);
    round_trip::<Platform>(text);
    round_trip::<NarHash>(text);
    round_trip::<Attribute>(text);
    if let Some(repository) = round_trip::<Repository>(text) {
        // It becomes a part of a URL's path as it is.
        let plain = |part: &str| !matches!(part, "" | "." | "..");
        assert!(repository.as_str().split('/').all(plain), "{repository}");
        assert!(
            !repository.as_str().contains(['?', '#', '%', '\\', '@']),
            "{repository}"
        );
    }
    if let Some(path) = round_trip::<StorePath>(text) {
        single_component(&path);
    }
    if let Ok(path) = StorePath::of_base_name(text) {
        single_component(&path);
    }
    if let Ok((path, inside)) = StorePath::containing(text) {
        single_component(&path);
        let whole = format!("{path}/{inside}");
        assert!(
            whole.trim_end_matches('/') == text.trim_end_matches('/'),
            "{text}"
        );
    }
}

/// What is read is written so that it is read as the same.
fn round_trip<T: FromStr + Display + PartialEq + Debug>(text: &str) -> Option<T> {
    let value: T = text.parse().ok()?;
    let again = value.to_string().parse().ok();
    assert_eq!(again.as_ref(), Some(&value), "{text:?}");
    Some(value)
}

/// A store path names something in the store's own directory, never above or below it.
fn single_component(path: &StorePath) {
    let base = path.base_name();
    assert!(
        !base.contains(['/', '\0']) && !base.starts_with('.'),
        "{base:?}"
    );
    assert_eq!(path.to_string(), format!("{STORE}{base}"));
    assert_eq!(format!("{}-{}", path.hash_part(), path.name()), base);
}
