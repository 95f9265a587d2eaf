//! ssh as git's transport: the forms of its URLs, the keys of its Secret, the options that the ssh
//! program gets, and what its words mean. The operator polls and the pod fetches by the same rules.
//! Pure: who writes the files and starts the program is elsewhere.

use std::path::Path;

mod keys;
mod url;
mod words;

pub use keys::{Keys, KeysError};
pub use url::{SshUrl, UrlError};
pub use words::{Trouble, essence};

/// Key of the source's Secret, and name of the file: the private key.
pub const IDENTITY: &str = "identity";
/// Key of the source's Secret, and name of the file: the host keys that are trusted.
pub const KNOWN_HOSTS: &str = "known_hosts";

/// Settings of ssh that do not depend on the source, as `ssh_config(5)` has them. Nothing of the
/// user's or the machine's configuration is read (`-F none`).
const SETTINGS: [&str; 30] = [
    // Nobody is there to be asked.
    "BatchMode=yes",
    "NumberOfPasswordPrompts=0",
    // Only the host keys of the Secret, and never a new one.
    "StrictHostKeyChecking=yes",
    "GlobalKnownHostsFile=/dev/null",
    "KnownHostsCommand=none",
    "VerifyHostKeyDNS=no",
    "NoHostAuthenticationForLocalhost=no",
    "UpdateHostKeys=no",
    "CheckHostIP=no",
    "CanonicalizeHostname=no",
    // Only the identity of the Secret.
    "IdentitiesOnly=yes",
    "IdentityAgent=none",
    "AddKeysToAgent=no",
    "PKCS11Provider=none",
    "PreferredAuthentications=publickey",
    "PasswordAuthentication=no",
    "KbdInteractiveAuthentication=no",
    "GSSAPIAuthentication=no",
    "HostbasedAuthentication=no",
    // A pipe to one program and nothing else.
    "ClearAllForwardings=yes",
    "ForwardAgent=no",
    "ForwardX11=no",
    "PermitLocalCommand=no",
    "ControlMaster=no",
    "ControlPath=none",
    "RequestTTY=no",
    // A host that drops packets, or falls silent, is given up long before the source's timeout.
    "ConnectTimeout=15",
    "ServerAliveInterval=15",
    "ServerAliveCountMax=4",
    // Errors are understood by their words; banners are none.
    "LogLevel=ERROR",
];

/// Arguments of the ssh program before git's own: hardened, with the files [`IDENTITY`] and
/// [`KNOWN_HOSTS`] of `folder`. ssh takes the first value that it is given, so git's cannot undo
/// them.
pub fn options(folder: &Path) -> Vec<String> {
    let file = |key: &str, name: &str| {
        // ssh expands `%` in names of files; blanks would separate two of them.
        let path = folder.join(name).display().to_string().replace('%', "%%");
        format!("{key}=\"{path}\"")
    };
    let own = [
        file("IdentityFile", IDENTITY),
        file("UserKnownHostsFile", KNOWN_HOSTS),
    ];
    let settings = SETTINGS.iter().map(|setting| (*setting).to_owned());
    ["-F".to_owned(), "none".to_owned()]
        .into_iter()
        .chain(
            settings
                .chain(own)
                .flat_map(|setting| ["-o".to_owned(), setting]),
        )
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ssh_gets_the_files_of_the_folder_and_no_configuration() {
        let options = options(Path::new("/tmp/50% off"));
        assert_eq!(options.get(..2).unwrap(), ["-F", "none"]);
        for wanted in [
            "IdentityFile=\"/tmp/50%% off/identity\"",
            "UserKnownHostsFile=\"/tmp/50%% off/known_hosts\"",
            "StrictHostKeyChecking=yes",
            "BatchMode=yes",
            "IdentityAgent=none",
        ] {
            assert!(options.iter().any(|option| option == wanted), "{wanted}");
        }
    }
}
