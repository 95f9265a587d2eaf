//! What a git server answers to a poll.
//!
//! The operator's three pure modules are compiled in from their files: with the operator itself would
//! come a Kubernetes client, which takes minutes to compile.

#[path = "../../../operator/src/source/ls_refs.rs"]
#[cfg_attr(not(test), expect(dead_code, reason = "the request is not fuzzed"))]
mod ls_refs;
#[path = "../../../operator/src/source/pkt_line.rs"]
mod pkt_line;
#[path = "../../../operator/src/source/semver.rs"]
mod semver;

use ls_refs::Advertisement;
use pkt_line::{Packet, Packets};

/// What is looked up, as `operator/src/source/mod.rs` has it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(dead_code, reason = "a commit is never looked up")]
pub(crate) enum Target {
    Head,
    Branch(String),
    Tag(String),
    Commit(String),
    Semver(String),
}

pub(crate) fn answers(data: &[u8]) {
    let mut payload = 0;
    for packet in Packets::new(data) {
        if let Ok(Packet::Data(bytes)) = packet {
            payload += bytes.len();
        }
    }
    assert!(payload <= data.len());

    let mut refs = ls_refs::parse_refs(data).unwrap_or_default();
    if let Ok(Advertisement::V0 { refs: listed }) = ls_refs::parse_advertisement(data) {
        refs.extend(listed);
    }
    for target in [
        Target::Head,
        Target::Branch("main".to_owned()),
        Target::Tag("v1".to_owned()),
        Target::Semver(">=0".to_owned()),
    ] {
        if let Some((_, commit)) = ls_refs::resolve(&refs, &target) {
            // It goes to the git program as an argument, and into a status.
            assert!(ls_refs::is_object_id(&commit), "{commit:?}");
        }
    }
    let shown = ls_refs::printable(data);
    assert!(shown.chars().count() <= 200 && !shown.contains(char::is_control));
}
