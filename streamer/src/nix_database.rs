//! The database in which Nix has the store paths of an image, so that Nix in a container knows them:
//! what is in it, and its bytes. The files around it are [`crate::layer`]'s. Pure.
//!
//! The tables are those of Nix's schema 10, which every Nix since 2.0 reads and writes. They are what
//! `nix-store --load-db` makes of the same paths, but for two things that would differ each time: the
//! time of registration is that of all files in a store, and the order is the paths'.

use std::collections::{BTreeMap, BTreeSet};

use crate::closure::{Closure, PathInfo};
use crate::sqlite::{Database, TooLarge, Value};
use crate::store_path::StorePath;

/// Version of the bytes, for recipe keys: other bytes need another one.
pub const VERSION: &str = "firn/nix-database/1";
/// The contents of the file `schema` beside the database.
pub const SCHEMA: &str = "10";

/// When all paths were registered: when all their files were changed, one second after 1970.
const REGISTERED: i64 = 1;

/// A database of some store paths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NixDatabase {
    /// The paths, with all they refer to.
    pub paths: BTreeSet<StorePath>,
    /// Who may write to it and to the store.
    pub uid: u32,
    /// That one's group.
    pub gid: u32,
    /// Whether layers below may have a database. It is not to be seen.
    pub has_base: bool,
}

impl NixDatabase {
    /// The paths that no other one refers to: what keeps them all from being collected as garbage.
    pub fn roots(&self, closure: &Closure) -> Vec<StorePath> {
        let mut roots = self.paths.clone();
        for (path, info) in self.infos(closure) {
            for reference in info.references.iter().filter(|other| *other != path) {
                roots.remove(reference);
            }
        }
        roots.into_iter().collect()
    }

    /// The paths with what Nix knows of them, in order.
    pub fn infos<'a>(
        &'a self,
        closure: &'a Closure,
    ) -> impl Iterator<Item = (&'a StorePath, &'a PathInfo)> {
        self.paths.iter().filter_map(|path| {
            let info = closure.paths().get(path)?;
            Some((path, info))
        })
    }

    /// The bytes of `db.sqlite`. A function of names, hashes, sizes and references, and of nothing
    /// else. In memory: about 1 KB for each path and 50 bytes for each reference.
    ///
    /// Errors: a path is longer than a store's can be.
    pub fn bytes(&self, closure: &Closure) -> Result<Vec<u8>, TooLarge> {
        let rows: Vec<Row<'_>> = self.infos(closure).map(Row::of).collect();
        // Rows are numbered from 1 on.
        let numbers: BTreeMap<&StorePath, i64> = rows.iter().map(|row| row.path).zip(1..).collect();
        let references = rows.iter().zip(1..).flat_map(|(row, referrer)| {
            // Each once, in the order of the numbers.
            let all: BTreeSet<i64> = row
                .info
                .references
                .iter()
                .filter_map(|path| numbers.get(path).copied())
                .collect();
            all.into_iter().map(move |reference| (referrer, reference))
        });
        let references: Vec<(i64, i64)> = references.collect();
        write(&rows, &references)
    }
}

/// A path as it is registered.
struct Row<'a> {
    path: &'a StorePath,
    info: &'a PathInfo,
    full: String,
    hash: String,
}

impl<'a> Row<'a> {
    fn of((path, info): (&'a StorePath, &'a PathInfo)) -> Self {
        Self {
            path,
            info,
            full: path.to_string(),
            hash: info.nar_hash.to_string(),
        }
    }
}

fn write(rows: &[Row<'_>], references: &[(i64, i64)]) -> Result<Vec<u8>, TooLarge> {
    let number = Value::Integer;
    let mut database = Database::default();
    let paths = rows.iter().map(|row| {
        [
            // The row's number.
            Value::Null,
            Value::Text(&row.full),
            Value::Text(&row.hash),
            number(REGISTERED),
            // Built by nobody knows whom.
            Value::Null,
            number(i64::try_from(row.info.nar_size).unwrap_or(i64::MAX)),
            // Not built here, not signed, not known by contents.
            Value::Null,
            Value::Null,
            Value::Null,
        ]
    });
    database.table("ValidPaths", PATHS, paths)?;
    let by_path = rows.iter().zip(1..);
    let by_path = by_path.map(|(row, at)| [Value::Text(&row.full), number(at)]);
    database.index("sqlite_autoindex_ValidPaths_1", "ValidPaths", None, by_path)?;
    // The last number that was given.
    let last = i64::try_from(rows.len()).unwrap_or(i64::MAX);
    let given = [[Value::Text("ValidPaths"), number(last)]];
    database.table(
        "sqlite_sequence",
        "CREATE TABLE sqlite_sequence(name,seq)",
        given,
    )?;

    let pairs = references.iter();
    let pairs = pairs.map(|(from, to)| [number(*from), number(*to)]);
    database.table("Refs", REFERENCES, pairs)?;
    let numbered = || (1..).zip(references);
    let by_both = numbered().map(|(at, (from, to))| [number(*from), number(*to), number(at)]);
    database.index("sqlite_autoindex_Refs_1", "Refs", None, by_both)?;
    let by_referrer = numbered().map(|(at, (from, _))| [number(*from), number(at)]);
    database.index("IndexReferrer", "Refs", Some(BY_REFERRER), by_referrer)?;
    let mut by_reference: Vec<(i64, i64)> = numbered().map(|(at, (_, to))| (*to, at)).collect();
    by_reference.sort_unstable();
    let by_reference = by_reference.iter();
    let by_reference = by_reference.map(|(to, at)| [number(*to), number(*at)]);
    database.index("IndexReference", "Refs", Some(BY_REFERENCE), by_reference)?;
    database.trigger("DeleteSelfRefs", "ValidPaths", SELF_REFERENCES);

    // What derivations make: there are none.
    let none = || std::iter::empty::<[Value<'_>; 0]>();
    let table = "DerivationOutputs";
    database.table(table, OUTPUTS, none())?;
    database.index("sqlite_autoindex_DerivationOutputs_1", table, None, none())?;
    database.index(
        "IndexDerivationOutputs",
        table,
        Some(OUTPUTS_BY_PATH),
        none(),
    )?;
    database.finish()
}

// Names, columns, constraints and their order are Nix's: its statements rely on them.

const PATHS: &str = "CREATE TABLE ValidPaths (\
    id integer primary key autoincrement not null, \
    path text unique not null, \
    hash text not null, \
    registrationTime integer not null, \
    deriver text, \
    narSize integer, \
    ultimate integer, \
    sigs text, \
    ca text)";
const REFERENCES: &str = "CREATE TABLE Refs (\
    referrer integer not null, \
    reference integer not null, \
    primary key (referrer, reference), \
    foreign key (referrer) references ValidPaths(id) on delete cascade, \
    foreign key (reference) references ValidPaths(id) on delete restrict)";
const BY_REFERRER: &str = "CREATE INDEX IndexReferrer on Refs(referrer)";
const BY_REFERENCE: &str = "CREATE INDEX IndexReference on Refs(reference)";
/// A path that refers to itself could not be deleted otherwise.
const SELF_REFERENCES: &str = "CREATE TRIGGER DeleteSelfRefs before delete on ValidPaths \
    begin delete from Refs where referrer = old.id and reference = old.id; end";
const OUTPUTS: &str = "CREATE TABLE DerivationOutputs (\
    drv integer not null, \
    id text not null, \
    path text not null, \
    primary key (drv, id), \
    foreign key (drv) references ValidPaths(id) on delete cascade)";
const OUTPUTS_BY_PATH: &str = "CREATE INDEX IndexDerivationOutputs on DerivationOutputs(path)";

#[cfg(test)]
mod tests;
