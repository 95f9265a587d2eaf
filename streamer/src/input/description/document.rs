//! The fields of an image description, as they are written. Their comments are the schema's, which
//! is published as `docs/reference/image-description.schema.json`. Pure.

use std::collections::BTreeMap;

use firn_crd::run::Compression;
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Deserialize;

use super::container::Container;
use crate::input::Profile;
use crate::input::tree::How;

/// Longest document in bytes. Descriptions are written by programs, but read by people.
pub const DOCUMENT_MAX: u64 = 16 << 20;

/// An image that Firn is to make of store paths.
///
/// Every store path that stands anywhere in the document is in the image, with all it depends on;
/// only what `base.path` names is not.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schemars(title = "Firn image description")]
pub struct Description {
    /// Version of the format. There is one: 1.
    #[schemars(required, range(min = 1, max = 1))]
    pub firn_image: u32,
    /// Store paths that are in the image though nothing else here names them.
    pub contents: Vec<String>,
    /// Layers with store paths of your choice, from the bottom up; the rest of the closure is put
    /// into layers above them.
    pub layers: Vec<DeclaredLayer>,
    /// Most layers of the image. The NixImage's own limit holds, too.
    #[schemars(range(min = 1, max = 480))]
    pub max_layers: Option<u32>,
    /// Layers to leave free below the limit, for images that are built on top of this one.
    pub head_room: u32,
    /// How the closure is divided into layers.
    pub strategy: Strategy,
    /// Whose tar format layers of store paths have.
    pub profile: LayerProfile,
    /// How layers are compressed. Default: what the NixImage says.
    pub compression: Option<Compression>,
    /// At which level: 1 to 19 for zstd, 1 to 9 for gzip. Default: the NixImage's if that compresses
    /// in the same way, else 3 for zstd and 4 for gzip.
    #[schemars(range(min = 1, max = 19))]
    pub level: Option<u8>,
    /// How a container is started.
    pub config: Container,
    /// An image to build upon.
    pub base: Option<Base>,
    /// What of the base image's config stays where this document says nothing. Default: all.
    pub inherit: Option<Vec<Inherited>>,
    /// What of the base image's files is not to be seen: a path, or `<directory>/*` for all that
    /// is in a directory.
    pub remove: Vec<String>,
    /// Store paths whose contents are to be found at `/`, too.
    pub copy_to_root: Vec<CopyToRoot>,
    /// Files by their paths in the image.
    pub files: BTreeMap<String, File>,
    /// Owners, modes and attributes of files by pattern. All that fit apply, in order. A file of a
    /// store path that a rule changes is written again in a layer of its own, above.
    pub permissions: Vec<Permission>,
    /// `/tmp`, for everybody to write to. Default: yes, unless there is a base image.
    pub tmp: Option<bool>,
    /// CA certificates at the usual places, and `SSL_CERT_FILE`. `true` takes those of the package
    /// `cacert` in the image; a path is the bundle's. Default: if the package is there, and no base
    /// image.
    pub ca_certificates: Option<Program>,
    /// Users besides root and nobody, for `/etc/passwd` and `/etc/group`. Default: none of both
    /// files if there is a base image.
    pub users: Option<Vec<User>>,
    /// Groups besides those of the users.
    pub groups: Vec<Group>,
    /// `/bin/sh`. `true`: of the shell in the image (bash, dash, busybox or toybox).
    pub bin_sh: Program,
    /// `/usr/bin/env`. `true`: of the coreutils in the image (or busybox, toybox).
    pub usr_bin_env: Program,
    /// The database in which Nix in a container finds the store paths of the image, and roots that
    /// keep them from being collected as garbage: a last layer, below `/nix/var/nix`. `true`: for
    /// root.
    pub nix_database: ForNix,
    /// Labels of the config.
    pub labels: BTreeMap<String, String>,
    /// Annotations of the manifest.
    pub annotations: BTreeMap<String, String>,
    /// Who made the image.
    pub author: Option<String>,
    /// When the image was made: `Epoch` (one second after 1970), `Source` (the time of the commit)
    /// or a time such as `2026-01-31T12:00:00Z`. Default: what the NixImage says.
    #[schemars(with = "Option<String>")]
    pub created: Option<Created>,
    /// Steps for the image's history that made no layer.
    pub history: Vec<Step>,
    /// Leave the store paths to the node: layers hold mount points, and annotations for the
    /// snapshotter of nix-snapshotter, without which nothing runs.
    pub thin: Option<Thin>,
}

/// One layer.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct DeclaredLayer {
    /// What is in it, with all it depends on, unless a layer below has it.
    #[schemars(required)]
    pub paths: Vec<String>,
    /// For the image's history.
    pub created_by: String,
    /// For the image's history.
    pub comment: String,
    /// For the image's history.
    pub author: String,
}

/// How the closure is divided.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum Strategy {
    /// Firn's own: a change stays where it is.
    #[default]
    Stable,
    /// nix2container's: by popularity.
    Popularity,
    /// nixpkgs': by size.
    BySize,
}

/// Whose tar format layers have, byte for byte.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum LayerProfile {
    /// Firn's own.
    #[default]
    Firn,
    /// nix2container's.
    Nix2container,
    /// That of dockerTools' streamed images.
    DockerTools,
}

impl From<LayerProfile> for Profile {
    fn from(profile: LayerProfile) -> Self {
        match profile {
            LayerProfile::Firn => Self::Nar1,
            LayerProfile::Nix2container => Self::Nix2container,
            LayerProfile::DockerTools => Self::DockerTools,
        }
    }
}

/// An image to build upon. One of the two.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Base {
    /// An image in a registry, by digest: `docker.io/library/debian@sha256:…`.
    pub image: Option<String>,
    /// A store path that is an image: a docker-archive or an OCI layout.
    pub path: Option<String>,
}

/// A field of a base image's config.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Inherited {
    /// Variables that this document does not set.
    Env,
    /// The program. One that this document sets takes the place of the base's `cmd`, too.
    Entrypoint,
    /// Its arguments.
    Cmd,
    /// Who runs it.
    User,
    /// Where it starts.
    WorkingDir,
    /// Labels that this document does not set.
    Labels,
    /// Ports, beside this document's.
    ExposedPorts,
    /// Volumes, beside this document's.
    Volumes,
    /// The signal that asks it to end.
    StopSignal,
    /// Docker's health check.
    Healthcheck,
    /// Docker's triggers.
    OnBuild,
    /// Docker's shell.
    Shell,
    /// What is known of how the base's layers came to be.
    History,
}

/// A store path at the root.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum CopyToRoot {
    /// As links, at `/`.
    Path(String),
    /// In some other way.
    Detailed(CopiedPath),
}

/// A store path at some place.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CopiedPath {
    /// The store path.
    pub path: String,
    /// The directory its contents go to. Of a store path that is a file: its place.
    #[serde(default = "root")]
    pub at: String,
    /// How.
    #[serde(default)]
    pub how: How,
}

fn root() -> String {
    "/".to_owned()
}

/// A file. One of the first three.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct File {
    /// A file with these contents.
    pub text: Option<String>,
    /// A symbolic link to this target.
    pub symlink: Option<String>,
    /// A directory.
    pub directory: bool,
    /// Permission bits, octal: `"0644"`, `"4755"`. Default: 0644, and 0755 for directories.
    pub mode: Option<String>,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// Owner, mode and attributes of what fits a pattern.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Permission {
    /// Absolute, with `*` and `?` within a component and `**` for any number of components. Files
    /// of store paths are meant by patterns that begin with `/nix/store/` and name the path, as in
    /// `/nix/store/*-sudo-*/bin/sudo`.
    #[schemars(required)]
    pub path: String,
    /// Permission bits of files, octal: `"4755"`.
    pub mode: Option<String>,
    /// Permission bits of directories, octal.
    pub directory_mode: Option<String>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// File capabilities, as `setcap` takes them: `cap_net_bind_service=ep`.
    pub capabilities: Option<String>,
    /// Extended attributes of files: texts by name.
    pub xattrs: BTreeMap<String, String>,
}

/// Whether something is there, and from where.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Program {
    /// `true`: the one in the image. `false`: none.
    Wanted(bool),
    /// The path of this one.
    Path(String),
}

impl Default for Program {
    fn default() -> Self {
        Self::Wanted(false)
    }
}

/// Whether there is a database for Nix, and for whom.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum ForNix {
    /// `true`: root's. `false`: none.
    Wanted(bool),
    /// Who runs Nix, and so owns the database, `/nix` and `/nix/store`.
    Owned(NixOwner),
}

impl ForNix {
    /// The owner. `None`: there is no database.
    pub fn owner(&self) -> Option<&NixOwner> {
        const ROOT: &NixOwner = &NixOwner { uid: 0, gid: 0 };
        match self {
            Self::Wanted(wanted) => wanted.then_some(ROOT),
            Self::Owned(owner) => Some(owner),
        }
    }
}

impl Default for ForNix {
    fn default() -> Self {
        Self::Wanted(false)
    }
}

/// Who runs Nix in a container.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NixOwner {
    /// Number of the user.
    pub uid: u32,
    /// Number of the group.
    pub gid: u32,
}

/// A user.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct User {
    /// Login name.
    pub name: String,
    /// Number.
    pub uid: u32,
    /// Number of the main group. Default: the user's own number.
    pub gid: Option<u32>,
    /// Real name.
    #[serde(default)]
    pub comment: String,
    /// Home directory, made for the user. Default: `/var/empty`.
    pub home: Option<String>,
    /// Login shell. Default: `/bin/sh`.
    pub shell: Option<String>,
}

/// A group.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// Its number.
    pub gid: u32,
    /// Users in it besides those whose main group it is.
    #[serde(default)]
    pub members: Vec<String>,
}

/// When an image was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Created {
    /// One second after 1970.
    Epoch,
    /// The time of the commit.
    Source,
    /// Then.
    At(Timestamp),
}

impl<'de> Deserialize<'de> for Created {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        match text.as_str() {
            "Epoch" => Ok(Self::Epoch),
            "Source" => Ok(Self::Source),
            time => time.parse().map(Self::At).map_err(|_| {
                serde::de::Error::custom(format!(
                    "{time:?} is neither Epoch nor Source nor a time such as 2026-01-31T12:00:00Z"
                ))
            }),
        }
    }
}

/// A step that made no layer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Step {
    /// By which command.
    pub created_by: String,
    /// What else there is to say.
    pub comment: String,
    /// By whom.
    pub author: String,
}

/// Store paths that the node has.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Thin {
    /// A `closureInfo` of the image's contents: one annotation, for nix-snapshotter 0.4 and later.
    /// Default: an annotation for each path, which all versions read.
    pub closure_info: Option<String>,
}
