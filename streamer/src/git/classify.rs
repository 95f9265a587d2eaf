//! What git's words (`LC_ALL=C`) mean. Pure.

use firn_crd::exit::Reason;

/// Phrases, and what they mean; the first that occurs decides. Lower case.
const PHRASES: &[(&str, Reason)] = &[
    ("no space left on device", Reason::InternalError),
    // TLS before everything else: its messages also say "unable to access".
    ("certificate", Reason::SourceInvalid),
    ("ssl peer", Reason::SourceInvalid),
    ("authentication failed", Reason::SourceAuthFailed),
    ("could not read username", Reason::SourceAuthFailed),
    ("could not read password", Reason::SourceAuthFailed),
    ("access denied", Reason::SourceAuthFailed),
    ("permission denied", Reason::SourceAuthFailed),
    // Not followed.
    ("returned error: 30", Reason::SourceInvalid),
    ("returned error: 401", Reason::SourceAuthFailed),
    ("returned error: 403", Reason::SourceAuthFailed),
    // Forges answer so for repositories that one may not see.
    ("returned error: 404", Reason::SourceAuthFailed),
    ("repository not found", Reason::SourceAuthFailed),
    ("' not found", Reason::SourceAuthFailed),
    ("host key verification failed", Reason::HostKeyUnknown),
    ("couldn't find remote ref", Reason::RevisionNotFound),
    ("not our ref", Reason::RevisionNotFound),
    ("unadvertised object", Reason::RevisionNotFound),
    ("no such remote ref", Reason::RevisionNotFound),
    (
        "does not appear to be a git repository",
        Reason::SourceInvalid,
    ),
    ("is this a git repository", Reason::SourceInvalid),
    ("not allowed", Reason::SourceInvalid),
    ("not supported", Reason::SourceInvalid),
    ("mismatched algorithms", Reason::SourceInvalid),
    ("could not resolve", Reason::SourceUnreachable),
    ("failed to connect", Reason::SourceUnreachable),
    ("couldn't connect", Reason::SourceUnreachable),
    ("connection", Reason::SourceUnreachable),
    ("timed out", Reason::SourceUnreachable),
    ("too slow", Reason::SourceUnreachable),
    ("early eof", Reason::SourceUnreachable),
    ("rpc failed", Reason::SourceUnreachable),
    ("hung up", Reason::SourceUnreachable),
    ("unable to access", Reason::SourceUnreachable),
    ("returned error: 5", Reason::SourceUnreachable),
    ("returned error: 429", Reason::SourceUnreachable),
];

/// The reason for git's `errors`, and what to do about it.
pub(super) fn classify(errors: &str) -> (Reason, &'static str) {
    let errors = errors.to_lowercase();
    let found = PHRASES.iter().find(|(phrase, _)| errors.contains(phrase));
    // What git says of broken objects is endless; it is the repository's in any case.
    let reason = found.map_or(Reason::SourceInvalid, |(_, reason)| *reason);
    let remedy = match reason {
        Reason::SourceAuthFailed => "check the URL and the Secret that `secretRef` names",
        Reason::RevisionNotFound => "check the branch, tag or commit",
        Reason::SourceUnreachable => "this is tried again by itself",
        Reason::HostKeyUnknown => "add the server's key to `known_hosts`",
        Reason::InternalError => "give the pod more ephemeral storage",
        _ if errors.contains("certificate") => {
            "give the server's CA in the ConfigMap that `caConfigMapRef` names, or as `ca.crt` in the source's Secret"
        }
        _ => "check the URL and the repository",
    };
    (reason, remedy)
}

/// The remedy where it is another one for a submodule.
pub(super) fn of_submodule(reason: Reason, errors: &str) -> Option<&'static str> {
    if errors.contains("returned error: 30") {
        return Some(
            "its server answers with a redirect, which is not followed for submodules: write the \
             URL that it leads to in .gitmodules",
        );
    }
    match reason {
        Reason::SourceAuthFailed => Some(
            "check its URL in .gitmodules; the Secret that `secretRef` names is shown to the \
             source's own server only",
        ),
        Reason::RevisionNotFound => {
            Some("push that commit to the submodule's repository, or commit one that is there")
        }
        Reason::SourceInvalid if !errors.to_lowercase().contains("certificate") => {
            Some("check its URL in .gitmodules")
        }
        _ => None,
    }
}

/// The lines that tell the cause: those that begin with `fatal:`, `error:` or `remote:`, or the
/// last one.
pub(super) fn essence(errors: &str) -> String {
    let marked = |line: &&str| {
        ["fatal:", "error:", "remote:"]
            .iter()
            .any(|m| line.starts_with(m))
    };
    let lines: Vec<&str> = errors.lines().map(str::trim).filter(marked).collect();
    if lines.is_empty() {
        return errors
            .lines()
            .last()
            .unwrap_or("no message")
            .trim()
            .to_owned();
    }
    lines.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As git 2.39 and 2.51 say it.
    const TABLE: &[(&str, Reason)] = &[
        (
            "fatal: could not read Username for 'https://git.example': terminal prompts disabled",
            Reason::SourceAuthFailed,
        ),
        (
            "remote: Unauthorized\nfatal: Authentication failed for 'https://git.example/app.git/'",
            Reason::SourceAuthFailed,
        ),
        (
            "fatal: unable to access 'https://git.example/app.git/': The requested URL returned error: 403",
            Reason::SourceAuthFailed,
        ),
        (
            "remote: Repository not found.\nfatal: repository 'https://git.example/app.git/' not found",
            Reason::SourceAuthFailed,
        ),
        (
            "fatal: repository 'https://git.example/app.git/' not found",
            Reason::SourceAuthFailed,
        ),
        (
            "fatal: couldn't find remote ref refs/heads/gone",
            Reason::RevisionNotFound,
        ),
        (
            "fatal: remote error: upload-pack: not our ref 1234",
            Reason::RevisionNotFound,
        ),
        (
            "error: Server does not allow request for unadvertised object 1234",
            Reason::RevisionNotFound,
        ),
        (
            "fatal: unable to access 'https://git.example/': Could not resolve host: git.example",
            Reason::SourceUnreachable,
        ),
        (
            "fatal: unable to access 'https://git.example/': Failed to connect to git.example port 443 after 1 ms: Couldn't connect to server",
            Reason::SourceUnreachable,
        ),
        (
            "fatal: unable to access 'https://git.example/': The requested URL returned error: 502",
            Reason::SourceUnreachable,
        ),
        (
            "error: RPC failed; curl 18 transfer closed with outstanding read data remaining\nfatal: early EOF",
            Reason::SourceUnreachable,
        ),
        (
            "fatal: unable to access 'https://git.example/': server certificate verification failed. CAfile: none CRLfile: none",
            Reason::SourceInvalid,
        ),
        (
            "fatal: unable to access 'https://git.example/': SSL certificate problem: self-signed certificate",
            Reason::SourceInvalid,
        ),
        (
            "fatal: https://git.example/app.git/info/refs not valid: is this a git repository?",
            Reason::SourceInvalid,
        ),
        ("fatal: transport 'file' not allowed", Reason::SourceInvalid),
        (
            "fatal: unable to access 'https://git.example/': The requested URL returned error: 302",
            Reason::SourceInvalid,
        ),
        (
            "error: inflate: data stream error (incorrect header check)\nfatal: loose object is corrupt",
            Reason::SourceInvalid,
        ),
        (
            "error: file write error: No space left on device\nfatal: unable to write",
            Reason::InternalError,
        ),
    ];

    #[test]
    fn git_is_understood() {
        for (errors, reason) in TABLE {
            assert_eq!(classify(errors).0, *reason, "{errors}");
        }
    }

    #[test]
    fn the_cause_is_told_without_chatter() {
        assert_eq!(essence("warning: x\nfatal: no\n"), "fatal: no");
        assert_eq!(essence("odd"), "odd");
        assert_eq!(essence(""), "no message");
    }
}
