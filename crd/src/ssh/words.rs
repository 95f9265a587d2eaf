//! What the ssh program and forges behind it say (`LC_ALL=C`).

use crate::exit::Reason;

/// Why a repository cannot be reached by ssh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// The server's host key is not in `known_hosts`, or is another one there.
    HostKey,
    /// The server does not take the identity.
    Identity,
    /// There is no such repository, or the identity may not see it.
    Repository,
    /// The path is no git repository.
    NoRepository,
    /// Client and server have no algorithm in common.
    Algorithms,
    /// The server does not answer.
    Connection,
}

/// Phrases, and what they mean; the first that occurs decides. Lower case.
const PHRASES: &[(&str, Trouble)] = &[
    ("host key verification failed", Trouble::HostKey),
    ("remote host identification has changed", Trouble::HostKey),
    ("host key is known", Trouble::HostKey),
    ("unable to negotiate with", Trouble::Algorithms),
    // ssh of itself, before what it leads to.
    ("load key", Trouble::Identity),
    ("permission denied (", Trouble::Identity),
    ("too many authentication failures", Trouble::Identity),
    ("no user exists for uid", Trouble::Connection),
    ("could not resolve hostname", Trouble::Connection),
    ("ssh: connect to host", Trouble::Connection),
    ("kex_exchange_identification", Trouble::Connection),
    ("ssh_exchange_identification", Trouble::Connection),
    ("banner exchange", Trouble::Connection),
    // GitHub, GitLab, Gitea and Forgejo, Bitbucket, git-shell.
    ("repository not found", Trouble::Repository),
    (
        "could not be found or you don't have permission",
        Trouble::Repository,
    ),
    ("cannot find repository", Trouble::Repository),
    ("repository does not exist", Trouble::Repository),
    ("unauthorized", Trouble::Repository),
    ("access denied", Trouble::Repository),
    ("permission denied", Trouble::Repository),
    (
        "does not appear to be a git repository",
        Trouble::NoRepository,
    ),
    ("not a git repository", Trouble::NoRepository),
    ("timeout, server", Trouble::Connection),
    ("connection reset", Trouble::Connection),
    ("connection closed", Trouble::Connection),
    ("connection refused", Trouble::Connection),
    ("connection timed out", Trouble::Connection),
    ("broken pipe", Trouble::Connection),
    ("closed by remote host", Trouble::Connection),
];

impl Trouble {
    /// What `stderr` of a git that uses ssh says. `None`: nothing of ssh's.
    pub fn of(stderr: &str) -> Option<Self> {
        let lower = stderr.to_ascii_lowercase();
        let found = PHRASES.iter().find(|(phrase, _)| lower.contains(phrase));
        found.map(|(_, trouble)| *trouble)
    }

    /// The reason in conditions and events.
    pub const fn reason(self) -> Reason {
        match self {
            Self::HostKey => Reason::HostKeyUnknown,
            Self::Identity | Self::Repository => Reason::SourceAuthFailed,
            Self::NoRepository | Self::Algorithms => Reason::SourceInvalid,
            Self::Connection => Reason::SourceUnreachable,
        }
    }

    /// What to do about it.
    pub const fn remedy(self) -> &'static str {
        match self {
            Self::HostKey => {
                "put the server's host key into known_hosts of the source's Secret, after comparing \
                 it with what the server's owner says"
            }
            Self::Identity => {
                "check that the public half of identity is registered there, and the user in the URL"
            }
            Self::Repository => {
                "check the URL, and that the identity of the source's Secret may read this repository"
            }
            Self::NoRepository => "check the path in the URL",
            Self::Algorithms => {
                "the server offers only host keys or ciphers that OpenSSH no longer takes: it must \
                 be updated"
            }
            Self::Connection => {
                "check host, port and the network policies (ssh goes past HTTP proxies); this is \
                 tried again by itself"
            }
        }
    }
}

/// The line that tells the cause, at most 300 bytes: not git's last words, which are the same
/// whatever happened.
pub fn essence(stderr: &str) -> &str {
    let tells = |line: &&str| {
        !line.is_empty()
            && *line != "remote:"
            && !line.starts_with('@')
            && !line.starts_with("fatal: Could not read from remote repository")
            && !line.starts_with("Please make sure you have the correct access rights")
            && !line.starts_with("and the repository exists")
            && !line.starts_with("Host key verification failed")
    };
    let mut lines = stderr.lines().map(str::trim).filter(tells);
    // Of a changed host key ssh tells at length; this line names it.
    let changed = |line: &&str| line.starts_with("Host key for ");
    let line = lines.clone().find(changed).or_else(|| lines.next());
    crate::report::first_bytes(line.unwrap_or("it gave no reason"), 300)
}

#[cfg(test)]
mod tests {
    use super::*;

    const END: &str = "fatal: Could not read from remote repository.\n\nPlease make sure you have \
                       the correct access rights\nand the repository exists.\n";

    /// As OpenSSH 9.2 to 10.2 and the forges say it.
    const TABLE: &[(&str, Trouble, &str)] = &[
        (
            "No ED25519 host key is known for [127.0.0.1]:2222 and you have requested strict checking.\nHost key verification failed.\n",
            Trouble::HostKey,
            "No ED25519 host key is known for [127.0.0.1]:2222 and you have requested strict checking.",
        ),
        (
            "@@@@@@@@@@\n@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @\n@@@@@@@@@@\nIT IS POSSIBLE THAT SOMEONE IS DOING SOMETHING NASTY!\nHost key for [127.0.0.1]:2222 has changed and you have requested strict checking.\nHost key verification failed.\n",
            Trouble::HostKey,
            "Host key for [127.0.0.1]:2222 has changed and you have requested strict checking.",
        ),
        (
            "git@git.example: Permission denied (publickey).\n",
            Trouble::Identity,
            "git@git.example: Permission denied (publickey).",
        ),
        (
            "Load key \"/tmp/x/identity\": error in libcrypto\ngit@git.example: Permission denied (publickey).\n",
            Trouble::Identity,
            "Load key \"/tmp/x/identity\": error in libcrypto",
        ),
        (
            "ERROR: Repository not found.\n",
            Trouble::Repository,
            "ERROR: Repository not found.",
        ),
        (
            "remote: \nremote: ERROR: The project you were looking for could not be found or you don't have permission to view it.\n",
            Trouble::Repository,
            "remote: ERROR: The project you were looking for could not be found or you don't have permission to view it.",
        ),
        (
            "Forgejo: Cannot find repository: ada/app\n",
            Trouble::Repository,
            "Forgejo: Cannot find repository: ada/app",
        ),
        (
            "fatal: '/srv/git/gone.git' does not appear to be a git repository\n",
            Trouble::NoRepository,
            "fatal: '/srv/git/gone.git' does not appear to be a git repository",
        ),
        (
            "Unable to negotiate with 192.0.2.1 port 22: no matching host key type found. Their offer: ssh-rsa\n",
            Trouble::Algorithms,
            "Unable to negotiate with 192.0.2.1 port 22: no matching host key type found. Their offer: ssh-rsa",
        ),
        (
            "ssh: Could not resolve hostname git.example: Name or service not known\n",
            Trouble::Connection,
            "ssh: Could not resolve hostname git.example: Name or service not known",
        ),
        (
            "ssh: connect to host 127.0.0.1 port 1: Connection refused\n",
            Trouble::Connection,
            "ssh: connect to host 127.0.0.1 port 1: Connection refused",
        ),
        (
            "kex_exchange_identification: read: Connection reset by peer\n",
            Trouble::Connection,
            "kex_exchange_identification: read: Connection reset by peer",
        ),
        (
            "Timeout, server git.example not responding.\n",
            Trouble::Connection,
            "Timeout, server git.example not responding.",
        ),
    ];

    #[test]
    fn ssh_is_understood_and_the_cause_is_told() {
        for (stderr, trouble, cause) in TABLE {
            let stderr = format!("{stderr}{END}");
            assert_eq!(Trouble::of(&stderr), Some(*trouble), "{stderr}");
            assert_eq!(essence(&stderr), *cause);
        }
        assert_eq!(
            Trouble::of("fatal: couldn't find remote ref refs/heads/x"),
            None
        );
        assert_eq!(essence(END), "it gave no reason");
    }
}
