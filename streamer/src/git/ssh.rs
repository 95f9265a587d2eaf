//! The keys of a source by ssh as files, for as long as git needs them.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use firn_crd::ssh::{self, Keys};

use crate::nix::config::write_private;

/// A folder that only its owner can enter, with `identity` and `known_hosts`. It is gone with this
/// value.
#[derive(Debug)]
pub struct SshFiles {
    folder: PathBuf,
}

impl SshFiles {
    /// Writes the keys into a new folder below `tmp`.
    pub fn write(tmp: &Path, keys: &Keys) -> io::Result<Self> {
        let folder = tmp.join("ssh");
        // A container that the kubelet starts again finds what the first one left.
        match fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => DirBuilder::new().mode(0o700).create(&folder)?,
        }
        let files = Self { folder };
        write_private(&files.folder.join(ssh::IDENTITY), &keys.identity)?;
        write_private(&files.folder.join(ssh::KNOWN_HOSTS), &keys.known_hosts)?;
        Ok(files)
    }

    /// The ssh program with its options, as a shell reads it: for `GIT_SSH_COMMAND`.
    pub fn command(&self) -> String {
        let quote = |text: String| format!("'{}'", text.replace('\'', r"'\''"));
        let options = ssh::options(&self.folder).into_iter().map(quote);
        std::iter::once("ssh".to_owned())
            .chain(options)
            .collect::<Vec<_>>()
            .join(" ")
    }
}

impl Drop for SshFiles {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.folder) {
            tracing::warn!(%error, "the keys for ssh could not be removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_keys_are_for_the_owner_only_and_do_not_stay() {
        let tmp = tempfile::tempdir().unwrap();
        let keys = Keys {
            identity: "key\n".into(),
            known_hosts: "host\n".into(),
        };
        // A second one replaces what a killed container left.
        std::mem::forget(SshFiles::write(tmp.path(), &keys).unwrap());
        let files = SshFiles::write(tmp.path(), &keys).unwrap();
        let folder = tmp.path().join("ssh");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&folder), 0o700);
        assert_eq!(mode(&folder.join("identity")), 0o600);
        assert_eq!(mode(&folder.join("known_hosts")), 0o600);
        let command = files.command();
        assert!(command.starts_with("ssh '-F' 'none' '-o' "), "{command}");
        assert!(!command.contains("key\n"));
        drop(files);
        assert!(!folder.exists());
    }
}
