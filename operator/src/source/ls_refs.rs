//! The questions and answers of git's smart HTTP protocol that a poll needs: what the server can
//! do, and where a few refs point. Version 2 asks for the wanted refs only; a server that speaks
//! version 0 has sent all of them with its first answer. Pure.
//!
//! Source: gitprotocol-v2(5), gitprotocol-http(5), gitprotocol-pack(5).

use super::Target;
use super::pkt_line::{self, Packet, PacketError, Packets};
use super::semver::Range;

/// Most refs that are read from one answer; with [`super::http::ANSWER_MAX`] it bounds a poll's
/// memory. Above what a prefix matches anywhere, and what a version-0 server can list in 8 MiB.
const REFS_MAX: usize = 100_000;

/// What the names of all tags begin with.
const TAGS: &str = "refs/tags/";

/// What the server's first answer says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Advertisement {
    /// Protocol version 2: refs are to be asked for.
    V2 {
        /// `sha1` or `sha256`, if the server says.
        object_format: Option<String>,
    },
    /// Versions 0 and 1: here they are.
    V0 {
        /// All refs.
        refs: Vec<Ref>,
    },
}

/// Where one ref points.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ref {
    /// `refs/heads/main`, or `HEAD`.
    pub(crate) name: String,
    /// Object id.
    pub(crate) oid: String,
    /// The commit behind an annotated tag.
    pub(crate) peeled: Option<String>,
    /// The ref that a symbolic one stands for.
    pub(crate) symref: Option<String>,
}

/// Why an answer cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AnswerError {
    /// Not pkt-lines: probably not a git server.
    #[error(transparent)]
    Framing(#[from] PacketError),
    /// The answer ends before its flush packet.
    #[error("the answer ends too early")]
    Incomplete,
    /// A line is none of the protocol's.
    #[error("line {line} is not understood")]
    Line {
        /// Counted from 1.
        line: usize,
    },
    /// The server reports an error of its own.
    #[error("the server says {0:?}")]
    Server(String),
    /// More refs than are read.
    #[error("it lists more than {REFS_MAX} refs")]
    TooManyRefs,
}

/// Reads the answer to `GET …/info/refs?service=git-upload-pack`.
pub(crate) fn parse_advertisement(body: &[u8]) -> Result<Advertisement, AnswerError> {
    let mut lines = lines(body)?;
    if lines.first().is_some_and(|l| l.starts_with(b"# service=")) {
        lines.remove(0);
    }
    match lines.first() {
        Some(&b"version 2") => Ok(Advertisement::V2 {
            object_format: lines
                .iter()
                .find_map(|l| l.strip_prefix(b"object-format="))
                .map(|format| String::from_utf8_lossy(format).into_owned()),
        }),
        Some(&b"version 1") => parse_v0(lines.get(1..).unwrap_or_default()),
        _ => parse_v0(&lines),
    }
}

/// The body of the `ls-refs` request for `target`.
pub(crate) fn request(target: &Target, object_format: Option<&str>) -> Vec<u8> {
    let mut body = Vec::new();
    pkt_line::write_line(&mut body, "command=ls-refs");
    if let Some(format) = object_format {
        pkt_line::write_line(&mut body, &format!("object-format={format}"));
    }
    pkt_line::write_delimiter(&mut body);
    pkt_line::write_line(&mut body, "peel");
    pkt_line::write_line(&mut body, "symrefs");
    pkt_line::write_line(&mut body, &format!("ref-prefix {}", target.reference()));
    pkt_line::write_flush(&mut body);
    body
}

/// Reads the answer to [`request`].
pub(crate) fn parse_refs(body: &[u8]) -> Result<Vec<Ref>, AnswerError> {
    let lines = lines(body)?;
    if lines.len() > REFS_MAX {
        return Err(AnswerError::TooManyRefs);
    }
    let parsed = lines.iter().enumerate().map(|(index, line)| {
        // A name that is not UTF-8 cannot be asked for: such a ref is never the wanted one.
        let Ok(line) = std::str::from_utf8(line) else {
            return Ok(None);
        };
        parse_ref(line)
            .map(Some)
            .ok_or(AnswerError::Line { line: index + 1 })
    });
    parsed.filter_map(Result::transpose).collect()
}

/// The names of all tags.
pub(crate) fn tags(refs: &[Ref]) -> impl Iterator<Item = &str> {
    refs.iter()
        .filter_map(|found| found.name.strip_prefix(TAGS))
}

/// The ref's full name and its commit. `None`: there is no such ref, or the repository is empty.
pub(crate) fn resolve(refs: &[Ref], target: &Target) -> Option<(String, String)> {
    let wanted = match target {
        Target::Semver(range) => {
            let tag = range.parse::<Range>().ok()?.highest(tags(refs))?;
            format!("{TAGS}{tag}")
        }
        _ => target.reference(),
    };
    let found = refs.iter().find(|r| r.name == wanted)?;
    let name = found.symref.clone().unwrap_or(wanted);
    let commit = found.peeled.clone().unwrap_or_else(|| found.oid.clone());
    Some((name, commit))
}

/// Whether this is a full object id: 40 or 64 lower-case hex digits.
pub(crate) fn is_object_id(text: &str) -> bool {
    [40, 64].contains(&text.len()) && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// All payloads without their line feeds; the special packets between them say nothing here.
fn lines(body: &[u8]) -> Result<Vec<&[u8]>, AnswerError> {
    let mut lines = Vec::new();
    let mut ended = false;
    for packet in Packets::new(body) {
        let packet = packet?;
        ended = packet == Packet::Flush;
        if let Packet::Data(payload) = packet {
            let line = payload.strip_suffix(b"\n").unwrap_or(payload);
            if let Some(message) = line.strip_prefix(b"ERR ") {
                return Err(AnswerError::Server(printable(message)));
            }
            lines.push(line);
        }
    }
    if ended {
        Ok(lines)
    } else {
        Err(AnswerError::Incomplete)
    }
}

fn parse_ref(line: &str) -> Option<Ref> {
    let mut words = line.split(' ');
    let oid = words.next().filter(|oid| is_object_id(oid))?.to_owned();
    let name = words.next().filter(|name| !name.is_empty())?.to_owned();
    let (mut peeled, mut symref) = (None, None);
    // Attributes of later versions are skipped.
    for word in words {
        if let Some(oid) = word.strip_prefix("peeled:") {
            peeled = Some(oid.to_owned()).filter(|oid| is_object_id(oid));
        } else if let Some(name) = word.strip_prefix("symref-target:") {
            symref = Some(name.to_owned());
        }
    }
    Some(Ref {
        name,
        oid,
        peeled,
        symref,
    })
}

fn parse_v0(lines: &[&[u8]]) -> Result<Advertisement, AnswerError> {
    if lines.len() > REFS_MAX {
        return Err(AnswerError::TooManyRefs);
    }
    let mut refs: Vec<Ref> = Vec::new();
    let mut capabilities = String::new();
    for (index, line) in lines.iter().enumerate() {
        let mut parts = line.splitn(2, |b| *b == 0);
        let reference = parts.next().unwrap_or_default();
        if let Some(bytes) = parts.next() {
            capabilities = String::from_utf8_lossy(bytes).into_owned();
        }
        let Ok(reference) = std::str::from_utf8(reference) else {
            continue;
        };
        if reference.starts_with("shallow ") {
            continue;
        }
        let parsed = parse_ref(reference).ok_or(AnswerError::Line { line: index + 1 })?;
        match parsed.name.strip_suffix("^{}") {
            // What an empty repository says instead of a ref.
            Some("capabilities") => {}
            // Comes right after its tag.
            Some(tag) => {
                if let Some(last) = refs.last_mut().filter(|r| r.name == tag) {
                    last.peeled = Some(parsed.oid);
                }
            }
            None => refs.push(parsed),
        }
    }
    for word in capabilities.split(' ') {
        if let Some((from, to)) = word.strip_prefix("symref=").and_then(|s| s.split_once(':'))
            && let Some(symbolic) = refs.iter_mut().find(|r| r.name == from)
        {
            symbolic.symref = Some(to.to_owned());
        }
    }
    Ok(Advertisement::V0 { refs })
}

/// A server's words, short and without control characters, so that they can stand in a message.
pub(crate) fn printable(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes)
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(200)
        .collect::<String>()
        .trim()
        .to_owned()
}

impl Target {
    /// The ref that is asked for, or what all that may be it begin with.
    pub(crate) fn reference(&self) -> String {
        match self {
            Self::Head => "HEAD".to_owned(),
            Self::Branch(name) => format!("refs/heads/{name}"),
            Self::Tag(name) => format!("refs/tags/{name}"),
            Self::Semver(_) => TAGS.to_owned(),
            Self::Commit(commit) => commit.clone(),
        }
    }
}

#[cfg(test)]
#[path = "ls_refs_tests.rs"]
mod tests;
