//! What an image says of the Debian packages in it: their licences, which must travel with the
//! files, and the list that scanners for vulnerabilities read (`var/lib/dpkg/status.d`, one file
//! per package, as in distroless images).

use std::collections::BTreeSet;

use super::{Error, Node, Tree};
use crate::debian::{self, Closure};

/// Adds the licence of every package that owns something in `closure`, and its entry in the list.
pub(super) fn add(
    tree: &mut Tree,
    closure: &mut Closure,
    debian: &debian::Tree,
) -> Result<(), Error> {
    let names: BTreeSet<&String> = closure
        .found()
        .keys()
        .filter_map(|path| debian.owners.get(path))
        .collect();
    for package in debian
        .lock
        .packages
        .iter()
        .filter(|package| names.contains(&package.name))
    {
        let debian::lock::Package {
            name,
            version,
            arch,
            ..
        } = package;
        let entry = format!(
            "Package: {name}\nStatus: install ok installed\nArchitecture: {arch}\nVersion: {version}\n"
        );
        tree.add(
            &format!("var/lib/dpkg/status.d/{name}"),
            Node::Bytes(entry.into_bytes()),
        )?;
        closure
            .add(&format!("usr/share/doc/{name}/copyright"))
            .map_err(Error::Debian)?;
    }
    // The licences refer to these.
    let shared = "usr/share/common-licenses/";
    for path in debian.owners.keys().filter(|path| path.starts_with(shared)) {
        closure.add(path).map_err(Error::Debian)?;
    }
    Ok(())
}
