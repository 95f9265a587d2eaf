//! What an image needs at its root besides programs: `/tmp`, certificates, users, a shell. Pure.
//!
//! What is found is found by the names of store paths: nothing is read for it.

use std::fmt::Write as _;

use super::tree::{Attributes, InvalidRootPath, Node, RootPath, Tree};
use crate::closure::Closure;
use crate::store_path::StorePath;

/// Where programs look for certificates: Debian's place, the old Debian one, Red Hat's.
const CERTIFICATES: [&str; 3] = [
    "/etc/ssl/certs/ca-bundle.crt",
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
];
/// Where nixpkgs' `cacert` has its bundle.
const BUNDLE: &str = "etc/ssl/certs/ca-bundle.crt";
/// Packages with certificates, as nixpkgs names them.
const CERTIFICATE_PACKAGES: [&str; 2] = ["nss-cacert", "cacert"];
/// Packages with `bin/sh`, the best first.
const SHELL_PACKAGES: [&str; 5] = ["bash-interactive", "bash", "dash", "busybox", "toybox"];
/// Packages with `bin/env`, the best first.
const ENV_PACKAGES: [&str; 5] = [
    "coreutils",
    "coreutils-full",
    "uutils-coreutils",
    "busybox",
    "toybox",
];
/// The user and group of whoever has none.
const NOBODY: u32 = 65534;

/// A user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Login name.
    pub name: String,
    /// Number.
    pub uid: u32,
    /// Number of the main group.
    pub gid: u32,
    /// Real name.
    pub comment: String,
    /// Home directory.
    pub home: String,
    /// Login shell.
    pub shell: String,
}

/// A group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// Its number.
    pub gid: u32,
    /// Names of the users in it besides those whose main group it is.
    pub members: Vec<String>,
}

/// What cannot be put at the root.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RootError {
    /// A part of an entry of passwd or group that would read as another entry.
    #[error("{what} {value:?} cannot stand in {file}: no \":\", no line breaks, not empty")]
    Word {
        /// The file.
        file: &'static str,
        /// Which part.
        what: &'static str,
        /// The part.
        value: String,
    },
    /// Declared twice.
    #[error("{what} {name:?} is declared twice")]
    Twice {
        /// `user` or `group`.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// A home directory that is no path.
    #[error("the home of user {name:?}")]
    Home {
        /// The user.
        name: String,
        /// Why.
        source: InvalidRootPath,
    },
    /// Nothing in the closure has it.
    #[error(
        "no package of the image has {what}: looked for {}; put one into the image (into `contents` \
         of a description, which may also name the program's path)", wanted.join(", ")
    )]
    NoPackage {
        /// What was wanted.
        what: &'static str,
        /// The packages that were looked for.
        wanted: &'static [&'static str],
    },
}

/// How much it matters that a thing is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// Someone asked for it: anything else in its place is a conflict.
    Declared,
    /// By default: it gives way.
    Default,
}

impl Tree {
    /// `/tmp`, for everybody to write to.
    pub fn tmp(&mut self, wanted: Wanted) {
        self.place(wanted, "/tmp", Node::Directory, 0o1777, "`tmp`");
    }

    /// Links to the certificates at `bundle`, a path in the store.
    pub fn certificates(&mut self, wanted: Wanted, bundle: &str) {
        for place in CERTIFICATES {
            let link = Node::Symlink(bundle.to_owned());
            self.place(wanted, place, link, 0o777, "`caCertificates`");
        }
    }

    /// `/bin/sh`, a link to `program`.
    pub fn bin_sh(&mut self, program: &str) {
        let link = Node::Symlink(program.to_owned());
        self.place(Wanted::Declared, "/bin/sh", link, 0o777, "`binSh`");
    }

    /// `/usr/bin/env`, a link to `program`.
    pub fn usr_bin_env(&mut self, program: &str) {
        let link = Node::Symlink(program.to_owned());
        self.place(Wanted::Declared, "/usr/bin/env", link, 0o777, "`usrBinEnv`");
    }

    /// passwd, group, nsswitch.conf and homes: root, nobody, and those that are given. A user whose
    /// group nobody declares has one of its own name.
    pub fn users(
        &mut self,
        wanted: Wanted,
        users: &[User],
        groups: &[Group],
    ) -> Result<(), RootError> {
        let users = with_system_users(users)?;
        let groups = with_system_groups(groups, &users)?;
        let mut passwd = String::new();
        for user in &users {
            let User {
                name,
                uid,
                gid,
                comment,
                home,
                shell,
            } = user;
            for (what, value) in [
                ("name", name),
                ("comment", comment),
                ("home", home),
                ("shell", shell),
            ] {
                word("/etc/passwd", what, value, what == "name")?;
            }
            // Writing to a String cannot fail.
            let _ = writeln!(passwd, "{name}:x:{uid}:{gid}:{comment}:{home}:{shell}");
        }
        let mut lines = String::new();
        for Group { name, gid, members } in &groups {
            word("/etc/group", "name", name, true)?;
            for member in members {
                word("/etc/group", "member", member, true)?;
            }
            let _ = writeln!(lines, "{name}:x:{gid}:{}", members.join(","));
        }
        let origin = "`users`";
        let text = |text: String| Node::File(text);
        self.place(wanted, "/etc/passwd", text(passwd), 0o644, origin);
        self.place(wanted, "/etc/group", text(lines), 0o644, origin);
        let nsswitch = "hosts: files dns\n".to_owned();
        self.place(
            Wanted::Default,
            "/etc/nsswitch.conf",
            text(nsswitch),
            0o644,
            origin,
        );
        for user in &users {
            self.home(user)?;
        }
        Ok(())
    }

    fn home(&mut self, user: &User) -> Result<(), RootError> {
        let home: RootPath = user.home.parse().map_err(|source| RootError::Home {
            name: user.name.clone(),
            source,
        })?;
        if home.is_root() {
            return Ok(());
        }
        let attributes = if home.relative() == "var/empty" {
            Attributes::root(0o555)
        } else {
            Attributes {
                uid: user.uid,
                gid: user.gid,
                ..Attributes::root(if user.uid == 0 { 0o700 } else { 0o755 })
            }
        };
        if !self.entries.contains_key(&home) {
            self.offer(home, Node::Directory, attributes, "`users`");
        }
        Ok(())
    }

    fn place(&mut self, wanted: Wanted, at: &str, node: Node, mode: u32, origin: &str) {
        // All of them are paths; the tests place each.
        if let Ok(at) = at.parse() {
            let attributes = Attributes::root(mode);
            match wanted {
                Wanted::Declared => self.declare(at, node, attributes, origin),
                Wanted::Default => self.offer(at, node, attributes, origin),
            }
        }
    }
}

/// The certificates in the closure, if a package of nixpkgs' name has them.
pub fn find_certificates(closure: &Closure) -> Option<String> {
    find(closure, &CERTIFICATE_PACKAGES).map(|path| format!("{path}/{BUNDLE}"))
}

/// The certificates in the closure.
pub fn certificates(closure: &Closure) -> Result<String, RootError> {
    find_certificates(closure).ok_or(RootError::NoPackage {
        what: "CA certificates",
        wanted: &CERTIFICATE_PACKAGES,
    })
}

/// A shell in the closure.
pub fn shell(closure: &Closure) -> Result<String, RootError> {
    let path = find(closure, &SHELL_PACKAGES).ok_or(RootError::NoPackage {
        what: "bin/sh",
        wanted: &SHELL_PACKAGES,
    })?;
    Ok(format!("{path}/bin/sh"))
}

/// `env` in the closure.
pub fn env(closure: &Closure) -> Result<String, RootError> {
    let path = find(closure, &ENV_PACKAGES).ok_or(RootError::NoPackage {
        what: "bin/env",
        wanted: &ENV_PACKAGES,
    })?;
    Ok(format!("{path}/bin/env"))
}

/// The path of the best package; of several versions the first by its file's name.
fn find<'a>(closure: &'a Closure, packages: &[&str]) -> Option<&'a StorePath> {
    packages.iter().find_map(|package| {
        closure
            .paths()
            .keys()
            .find(|path| is_version_of(path.name(), package))
    })
}

/// `bash-5.2` is one of `bash`, `bash-completion-2.11` is not, and no other output is.
fn is_version_of(name: &str, package: &str) -> bool {
    let Some(rest) = name.strip_prefix(package) else {
        return false;
    };
    let Some(version) = rest.strip_prefix('-') else {
        return rest.is_empty();
    };
    let output = version.rsplit_once('-').map_or("", |(_, output)| output);
    version.starts_with(|first: char| first.is_ascii_digit())
        && !matches!(
            output,
            "man" | "doc" | "info" | "dev" | "lib" | "debug" | "unbundled"
        )
}

fn with_system_users(declared: &[User]) -> Result<Vec<User>, RootError> {
    let system = |name: &str, id, comment: &str| User {
        name: name.into(),
        uid: id,
        gid: id,
        comment: comment.into(),
        home: "/var/empty".into(),
        shell: "/bin/sh".into(),
    };
    let mut users = vec![
        system("root", 0, "root user"),
        system("nobody", NOBODY, "nobody"),
    ];
    for (index, user) in declared.iter().enumerate() {
        if declared
            .iter()
            .take(index)
            .any(|other| other.name == user.name)
        {
            return Err(RootError::Twice {
                what: "user",
                name: user.name.clone(),
            });
        }
        users.retain(|other| other.name != user.name);
    }
    users.extend_from_slice(declared);
    users.sort_by(|a, b| (a.uid, &a.name).cmp(&(b.uid, &b.name)));
    Ok(users)
}

fn with_system_groups(declared: &[Group], users: &[User]) -> Result<Vec<Group>, RootError> {
    let mut groups: Vec<Group> = Vec::new();
    for group in declared {
        if groups.iter().any(|other| other.name == group.name) {
            return Err(RootError::Twice {
                what: "group",
                name: group.name.clone(),
            });
        }
        groups.push(group.clone());
    }
    for user in users {
        if !groups
            .iter()
            .any(|group| group.gid == user.gid || group.name == user.name)
        {
            groups.push(Group {
                name: user.name.clone(),
                gid: user.gid,
                members: Vec::new(),
            });
        }
    }
    groups.sort_by(|a, b| (a.gid, &a.name).cmp(&(b.gid, &b.name)));
    Ok(groups)
}

fn word(
    file: &'static str,
    what: &'static str,
    value: &str,
    must_be: bool,
) -> Result<(), RootError> {
    let bad = value.contains([':', ',']) && what != "comment" || value.contains(':');
    if bad || value.contains(char::is_control) || (must_be && value.is_empty()) {
        return Err(RootError::Word {
            file,
            what,
            value: value.to_owned(),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{info, path};

    fn closure(names: &[&str]) -> Closure {
        let paths = names.iter().map(|name| (path(name), info(1, &[])));
        Closure::new(paths.collect()).unwrap()
    }

    fn text(tree: &Tree, at: &str) -> String {
        match &tree.entries[&at.parse().unwrap()].node {
            Node::File(text) => text.clone(),
            other => panic!("{other:?}"),
        }
    }

    fn app() -> User {
        User {
            name: "app".into(),
            uid: 1000,
            gid: 1000,
            comment: String::new(),
            home: "/home/app".into(),
            shell: "/bin/sh".into(),
        }
    }

    #[test]
    fn users_are_those_that_programs_expect_and_those_declared() {
        let mut tree = Tree::default();
        let admins = Group {
            name: "admins".into(),
            gid: 50,
            members: vec!["app".into()],
        };
        tree.users(Wanted::Declared, &[app()], &[admins]).unwrap();
        assert_eq!(
            text(&tree, "/etc/passwd"),
            "root:x:0:0:root user:/var/empty:/bin/sh\n\
             app:x:1000:1000::/home/app:/bin/sh\n\
             nobody:x:65534:65534:nobody:/var/empty:/bin/sh\n"
        );
        assert_eq!(
            text(&tree, "/etc/group"),
            "root:x:0:\nadmins:x:50:app\napp:x:1000:\nnobody:x:65534:\n"
        );
        let home = &tree.entries[&"/home/app".parse().unwrap()].attributes;
        assert_eq!((home.uid, home.gid, home.mode), (1000, 1000, 0o755));
        let empty = &tree.entries[&"/var/empty".parse().unwrap()].attributes;
        assert_eq!((empty.uid, empty.mode), (0, 0o555));
    }

    #[test]
    fn no_word_makes_another_entry() {
        for bad in ["a:b", "a\nroot", ""] {
            let user = User {
                name: bad.into(),
                ..app()
            };
            let refused = Tree::default().users(Wanted::Declared, &[user], &[]);
            assert!(matches!(refused, Err(RootError::Word { .. })), "{bad:?}");
        }
        let twice = Tree::default().users(Wanted::Declared, &[app(), app()], &[]);
        assert!(matches!(twice, Err(RootError::Twice { .. })));
    }

    #[test]
    fn programs_are_found_by_their_packages() {
        let all = closure(&[
            "bash-completion-2.11",
            "bash-5.2",
            "dash-0.5",
            "coreutils-9.5",
            "nss-cacert-3.1",
            "nss-cacert-3.1-unbundled",
        ]);
        assert_eq!(shell(&all), Ok(format!("{}/bin/sh", path("bash-5.2"))));
        assert_eq!(env(&all), Ok(format!("{}/bin/env", path("coreutils-9.5"))));
        assert_eq!(
            find_certificates(&all),
            Some(format!("{}/{BUNDLE}", path("nss-cacert-3.1")))
        );
        let none = shell(&closure(&["bash-completion-2.11"])).unwrap_err();
        assert!(none.to_string().contains("busybox"), "{none}");
    }

    #[test]
    fn everything_has_its_place() {
        let mut tree = Tree::default();
        tree.tmp(Wanted::Default);
        tree.certificates(Wanted::Default, "/nix/store/x/bundle");
        tree.bin_sh("/nix/store/x/bin/sh");
        tree.usr_bin_env("/nix/store/x/bin/env");
        let places: Vec<String> = tree.entries.keys().map(RootPath::to_string).collect();
        assert_eq!(
            places,
            [
                "/bin/sh",
                "/etc/pki/tls/certs/ca-bundle.crt",
                "/etc/ssl/certs/ca-bundle.crt",
                "/etc/ssl/certs/ca-certificates.crt",
                "/tmp",
                "/usr/bin/env"
            ]
        );
        assert_eq!(
            tree.entries[&"/tmp".parse().unwrap()].attributes.mode,
            0o1777
        );
    }
}
