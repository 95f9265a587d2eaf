//! File capabilities, from their text to the value of the extended attribute `security.capability`.
//! Pure.
//!
//! The text is that of `setcap(8)` and `cap_from_text(3)`, as in `cap_net_bind_service=ep`; names
//! only, since numbers mean nothing to who reads them.

use std::str::FromStr;

/// The extended attribute that holds file capabilities.
pub const CAPABILITY_XATTR: &str = "security.capability";

/// Longest text that is read; all names together have less.
const TEXT_MAX: usize = 1024;

/// In the order of their numbers: `include/uapi/linux/capability.h` of Linux 5.9 and later.
const NAMES: [&str; 41] = [
    "chown",
    "dac_override",
    "dac_read_search",
    "fowner",
    "fsetid",
    "kill",
    "setgid",
    "setuid",
    "setpcap",
    "linux_immutable",
    "net_bind_service",
    "net_broadcast",
    "net_admin",
    "net_raw",
    "ipc_lock",
    "ipc_owner",
    "sys_module",
    "sys_rawio",
    "sys_chroot",
    "sys_ptrace",
    "sys_pacct",
    "sys_admin",
    "sys_boot",
    "sys_nice",
    "sys_resource",
    "sys_time",
    "sys_tty_config",
    "mknod",
    "lease",
    "audit_write",
    "audit_control",
    "setfcap",
    "mac_override",
    "mac_admin",
    "syslog",
    "wake_alarm",
    "block_suspend",
    "audit_read",
    "perfmon",
    "bpf",
    "checkpoint_restore",
];
const ALL: u64 = (1 << NAMES.len()) - 1;

/// What a file gives to the process that executes it. Never empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileCapabilities {
    permitted: u64,
    inheritable: u64,
    /// Of a file, one bit: whether all of them are effective at once.
    is_effective: bool,
}

/// Why a text is no set of file capabilities.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CapabilityError {
    /// Not a list of clauses.
    #[error(
        "{0:?} is no capability clause: write it like cap_net_bind_service=ep or \
         cap_net_raw,cap_net_admin+ep"
    )]
    Clause(String),
    /// Linux has no such capability.
    #[error("{0:?} is no capability that Linux knows; names are like cap_net_bind_service, or all")]
    Unknown(String),
    /// A file has one effective bit for all of its capabilities.
    #[error(
        "of a file's capabilities either all are effective or none: add e to each clause, or to none"
    )]
    Effective,
    /// Nothing is given.
    #[error("no capability is set")]
    Empty,
    /// Longer than all capabilities together.
    #[error("the text is longer than {TEXT_MAX} bytes")]
    TooLong,
}

impl FileCapabilities {
    /// The value of [`CAPABILITY_XATTR`]: `struct vfs_cap_data` of revision 2, which holds in
    /// every user namespace's own terms. Little-endian.
    pub fn to_xattr(self) -> [u8; 20] {
        const REVISION_2: u32 = 0x0200_0000;
        const EFFECTIVE: u32 = 1;
        let magic = REVISION_2 | if self.is_effective { EFFECTIVE } else { 0 };
        let words = [
            magic,
            low(self.permitted),
            low(self.inheritable),
            low(self.permitted >> 32),
            low(self.inheritable >> 32),
        ];
        let mut value = [0; 20];
        for (to, word) in value.chunks_exact_mut(4).zip(words) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        value
    }
}

/// The lower half.
fn low(word: u64) -> u32 {
    u32::try_from(word & u64::from(u32::MAX)).unwrap_or_default()
}

impl FromStr for FileCapabilities {
    type Err = CapabilityError;

    fn from_str(text: &str) -> Result<Self, CapabilityError> {
        if text.len() > TEXT_MAX {
            return Err(CapabilityError::TooLong);
        }
        let mut sets = Sets::default();
        for clause in text.split_ascii_whitespace() {
            sets.apply(clause)?;
        }
        let Sets {
            effective,
            permitted,
            inheritable,
        } = sets;
        let given = permitted | inheritable;
        if given == 0 {
            return Err(CapabilityError::Empty);
        }
        // As libcap refuses it: the kernel could not keep what was asked.
        if effective != 0 && effective != given {
            return Err(CapabilityError::Effective);
        }
        Ok(Self {
            permitted,
            inheritable,
            is_effective: effective != 0,
        })
    }
}

#[derive(Default)]
struct Sets {
    effective: u64,
    permitted: u64,
    inheritable: u64,
}

impl Sets {
    /// `names` and then actions: an operator and its flags, once or more, as in `cap_chown=p+e`.
    fn apply(&mut self, clause: &str) -> Result<(), CapabilityError> {
        let malformed = || CapabilityError::Clause(clause.to_owned());
        let is_operator = |char| matches!(char, '=' | '+' | '-');
        let at = clause.find(is_operator).ok_or_else(malformed)?;
        let (names, mut actions) = clause.split_at_checked(at).ok_or_else(malformed)?;
        // Without a name, `=` means all; the other operators need one.
        let mask = match names {
            "" if actions.starts_with('=') => ALL,
            "" => return Err(malformed()),
            names => names
                .split(',')
                .try_fold(0, |mask, name| Ok(mask | number(name)?))?,
        };
        while let Some(operator) = actions.chars().next() {
            let rest = actions.get(1..).unwrap_or_default();
            let end = rest.find(is_operator).unwrap_or(rest.len());
            let (flags, next) = rest.split_at_checked(end).ok_or_else(malformed)?;
            if operator == '=' {
                for set in [
                    &mut self.effective,
                    &mut self.permitted,
                    &mut self.inheritable,
                ] {
                    *set &= !mask;
                }
            } else if flags.is_empty() {
                return Err(malformed());
            }
            for flag in flags.chars() {
                let set = match flag {
                    'e' => &mut self.effective,
                    'p' => &mut self.permitted,
                    'i' => &mut self.inheritable,
                    _ => return Err(malformed()),
                };
                if operator == '-' {
                    *set &= !mask;
                } else {
                    *set |= mask;
                }
            }
            actions = next;
        }
        Ok(())
    }
}

fn number(name: &str) -> Result<u64, CapabilityError> {
    let lower = name.to_ascii_lowercase();
    if lower == "all" {
        return Ok(ALL);
    }
    lower
        .strip_prefix("cap_")
        .and_then(|name| NAMES.iter().position(|known| *known == name))
        .map(|bit| 1 << bit)
        .ok_or_else(|| CapabilityError::Unknown(name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hex(text: &str) -> String {
        let value = text.parse::<FileCapabilities>().unwrap().to_xattr();
        format!("{value:02x?}").replace(|char: char| !char.is_ascii_hexdigit(), "")
    }

    /// As `getfattr -e hex` shows what `setcap` (libcap 2.66) wrote.
    #[test]
    fn values_are_those_that_setcap_writes() {
        for (text, value) in [
            (
                "cap_net_bind_service=ep",
                "0100000200040000000000000000000000000000",
            ),
            (
                "cap_net_bind_service+ep",
                "0100000200040000000000000000000000000000",
            ),
            (
                "CAP_NET_RAW,cap_net_admin=p",
                "0000000200300000000000000000000000000000",
            ),
            (
                "cap_chown=i cap_bpf=i",
                "0000000200000000010000000000000080000000",
            ),
            ("=ep", "01000002ffffffff00000000ff01000000000000"),
            (
                "all=p all-p cap_kill=p+e",
                "0100000220000000000000000000000000000000",
            ),
        ] {
            assert_eq!(hex(text), value, "{text}");
        }
    }

    #[test]
    fn what_a_file_cannot_have_is_refused() {
        use CapabilityError as E;
        for (text, error) in [
            ("cap_chown", E::Clause("cap_chown".into())),
            ("+ep", E::Clause("+ep".into())),
            ("cap_chown+", E::Clause("cap_chown+".into())),
            ("cap_chown=x", E::Clause("cap_chown=x".into())),
            ("chown=ep", E::Unknown("chown".into())),
            ("cap_fly=ep", E::Unknown("cap_fly".into())),
            ("cap_chown,=ep", E::Unknown(String::new())),
            ("cap_chown=ep cap_kill=p", E::Effective),
            ("cap_chown=e", E::Empty),
            ("cap_chown=", E::Empty),
            ("", E::Empty),
            (&" ".repeat(2000), E::TooLong),
        ] {
            assert_eq!(text.parse::<FileCapabilities>(), Err(error), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "(cap_|chown|kill|all|[=+-]|[epi]|,| |é){0,12}") {
            let _ = text.parse::<FileCapabilities>();
        }
    }
}
