//! The operator's program as git's ssh program. git runs `GIT_SSH` without arguments of the
//! caller's, and `GIT_SSH_COMMAND` with a shell, which the operator's image does not have: so git
//! calls the operator by another name, and the operator becomes ssh, with the options and files
//! of the folder that the name is in.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use firn_crd::ssh;

/// The name by which git calls the operator: a link beside `identity` and `known_hosts`.
pub(crate) const NAME: &str = "firn-ssh";

/// Becomes ssh if this process was started by git for that, and does not return then. `None`: it
/// was not. Errors: ssh cannot be started.
pub fn become_ssh(arguments: impl IntoIterator<Item = OsString>) -> Option<io::Error> {
    let mut arguments = arguments.into_iter();
    let name = arguments.next()?;
    let name = Path::new(&name);
    let folder = name
        .parent()
        .filter(|_| name.file_name() == Some(NAME.as_ref()))?;
    Some(
        Command::new("ssh")
            .args(ssh::options(folder))
            .args(arguments)
            .exec(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_its_own_name_the_operator_is_the_operator() {
        for name in ["firn-operator", "/usr/bin/firn-operator", "ssh", ""] {
            assert!(become_ssh([name.into()]).is_none(), "{name}");
        }
        assert!(become_ssh([]).is_none());
    }
}
