//! From a description to the files that are no store paths. Pure.

use std::collections::BTreeSet;

use firn_oci::tar::{CAPABILITY_XATTR, FileCapabilities};

use super::DescriptionError;
use super::document::{CopyToRoot, Description, File, Permission, Program, User};
use crate::closure::Closure;
use crate::input::root::{self, Wanted};
use crate::input::tree::{
    Attributes, Copied, How, Node, Parents, Pattern, Removal, RootPath, Rule, Tree,
};
use crate::store_path::StorePath;

/// Where the certificates are for programs that ask the environment.
const CERTIFICATES: &str = "SSL_CERT_FILE=/etc/ssl/certs/ca-bundle.crt";

/// The files, and what they add to the environment.
pub(super) fn tree(
    description: &Description,
    closure: &Closure,
    has_base: bool,
) -> Result<(Tree, Vec<String>), DescriptionError> {
    let parents = if has_base {
        Parents::Left
    } else {
        Parents::Written
    };
    let mut tree = Tree {
        parents,
        ..Tree::default()
    };
    let mut environment = Vec::new();
    for (path, file) in &description.files {
        declare(&mut tree, path, file)?;
    }
    match description.tmp {
        Some(true) => tree.tmp(Wanted::Declared),
        None if !has_base => tree.tmp(Wanted::Default),
        _ => {}
    }
    let bundle = match &description.ca_certificates {
        Some(Program::Path(path)) => Some((Wanted::Declared, path.clone())),
        Some(Program::Wanted(true)) => Some((Wanted::Declared, root::certificates(closure)?)),
        Some(Program::Wanted(false)) => None,
        None if has_base => None,
        None => root::find_certificates(closure).map(|bundle| (Wanted::Default, bundle)),
    };
    if let Some((wanted, bundle)) = bundle {
        tree.certificates(wanted, &bundle);
        environment.push(CERTIFICATES.to_owned());
    }
    users(&mut tree, description, has_base)?;
    if let Some(program) = program(&description.bin_sh, || root::shell(closure))? {
        tree.bin_sh(&program);
    }
    if let Some(program) = program(&description.usr_bin_env, || root::env(closure))? {
        tree.usr_bin_env(&program);
    }
    for copied in &description.copy_to_root {
        tree.copies.push(copy(copied, closure)?);
    }
    for permission in &description.permissions {
        tree.rules.push(rule(permission)?);
    }
    for pattern in &description.remove {
        tree.removals.insert(removal(pattern)?);
    }
    Ok((tree, environment))
}

/// Store paths that are in `closure`.
pub(super) fn store_paths(
    field: &'static str,
    texts: &[String],
    closure: &Closure,
) -> Result<BTreeSet<StorePath>, DescriptionError> {
    texts
        .iter()
        .map(|text| store_path(field, text, closure))
        .collect()
}

fn store_path(
    field: &'static str,
    text: &str,
    closure: &Closure,
) -> Result<StorePath, DescriptionError> {
    let path: StorePath = text
        .parse()
        .map_err(|source| DescriptionError::StorePath { field, source })?;
    if closure.contains(&path) {
        Ok(path)
    } else {
        Err(DescriptionError::NotInClosure { field, path })
    }
}

fn root_path(field: &'static str, text: &str) -> Result<RootPath, DescriptionError> {
    text.parse()
        .map_err(|source| DescriptionError::RootPath { field, source })
}

fn pattern(field: &'static str, text: &str) -> Result<Pattern, DescriptionError> {
    text.parse()
        .map_err(|source| DescriptionError::Pattern { field, source })
}

fn declare(tree: &mut Tree, path: &str, file: &File) -> Result<(), DescriptionError> {
    let at = root_path("files", path)?;
    let (node, usual) = match (&file.text, &file.symlink, file.directory) {
        (Some(text), None, false) => (Node::File(text.clone()), 0o644),
        (None, Some(target), false) => (Node::Symlink(target.clone()), 0o777),
        (None, None, true) => (Node::Directory, 0o755),
        _ => return Err(DescriptionError::File(path.to_owned())),
    };
    let attributes = Attributes {
        uid: file.uid,
        gid: file.gid,
        ..Attributes::root(mode(file.mode.as_deref())?.unwrap_or(usual))
    };
    tree.declare(at, node, attributes, "`files`");
    Ok(())
}

fn users(
    tree: &mut Tree,
    description: &Description,
    has_base: bool,
) -> Result<(), DescriptionError> {
    let wanted = match &description.users {
        Some(_) => Wanted::Declared,
        None if !description.groups.is_empty() => Wanted::Declared,
        None if has_base => return Ok(()),
        None => Wanted::Default,
    };
    let users = description.users.iter().flatten();
    let users: Vec<root::User> = users.map(user).collect();
    let groups = description.groups.iter().map(|group| root::Group {
        name: group.name.clone(),
        gid: group.gid,
        members: group.members.clone(),
    });
    let groups: Vec<root::Group> = groups.collect();
    Ok(tree.users(wanted, &users, &groups)?)
}

fn user(user: &User) -> root::User {
    root::User {
        name: user.name.clone(),
        uid: user.uid,
        gid: user.gid.unwrap_or(user.uid),
        comment: user.comment.clone(),
        home: user.home.clone().unwrap_or_else(|| "/var/empty".to_owned()),
        shell: user.shell.clone().unwrap_or_else(|| "/bin/sh".to_owned()),
    }
}

fn program(
    wanted: &Program,
    find: impl FnOnce() -> Result<String, root::RootError>,
) -> Result<Option<String>, DescriptionError> {
    Ok(match wanted {
        Program::Wanted(false) => None,
        Program::Wanted(true) => Some(find()?),
        Program::Path(path) => Some(path.clone()),
    })
}

fn copy(copied: &CopyToRoot, closure: &Closure) -> Result<Copied, DescriptionError> {
    let field = "copyToRoot";
    Ok(match copied {
        CopyToRoot::Path(path) => Copied {
            path: store_path(field, path, closure)?,
            at: RootPath::default(),
            how: How::default(),
        },
        CopyToRoot::Detailed(detailed) => Copied {
            path: store_path(field, &detailed.path, closure)?,
            at: root_path(field, &detailed.at)?,
            how: detailed.how,
        },
    })
}

fn rule(permission: &Permission) -> Result<Rule, DescriptionError> {
    let Permission {
        path,
        mode: files,
        directory_mode,
        uid,
        gid,
        capabilities,
        xattrs,
    } = permission;
    let mut rule = Rule {
        pattern: pattern("permissions.path", path)?,
        mode: mode(files.as_deref())?,
        directory_mode: mode(directory_mode.as_deref())?,
        uid: *uid,
        gid: *gid,
        xattrs: xattrs
            .iter()
            .map(|(name, value)| (name.clone(), value.clone().into_bytes()))
            .collect(),
    };
    if let Some(text) = capabilities {
        let parsed: FileCapabilities =
            text.parse()
                .map_err(|source| DescriptionError::Capabilities {
                    path: path.clone(),
                    source,
                })?;
        rule.xattrs
            .insert(CAPABILITY_XATTR.to_owned(), parsed.to_xattr().to_vec());
    }
    let idle = Rule {
        pattern: rule.pattern.clone(),
        ..Rule::default()
    };
    if rule == idle {
        return Err(DescriptionError::IdleRule(path.clone()));
    }
    Ok(rule)
}

fn removal(text: &str) -> Result<Removal, DescriptionError> {
    let parsed = pattern("remove", text)?;
    if let Some(path) = parsed.literal() {
        return Ok(Removal::Whole(root_path("remove", &path)?));
    }
    match parsed.contents_of() {
        Some(directory) if directory != "/" => {
            Ok(Removal::Contents(root_path("remove", &directory)?))
        }
        _ => Err(DescriptionError::Removal(text.to_owned())),
    }
}

fn mode(text: Option<&str>) -> Result<Option<u32>, DescriptionError> {
    let Some(text) = text else {
        return Ok(None);
    };
    let octal = (3..=5).contains(&text.len()) && text.bytes().all(|b| (b'0'..=b'7').contains(&b));
    match u32::from_str_radix(text, 8) {
        Ok(mode) if octal && mode <= 0o7777 => Ok(Some(mode)),
        _ => Err(DescriptionError::Mode(text.to_owned())),
    }
}
