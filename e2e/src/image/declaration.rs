//! The one list of what is in Firn's images: `e2e/images.json`. `flake.nix` reads the same file;
//! `Dockerfile` is tested against it. Pure.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::Error;

/// The committed declaration.
pub const DECLARATION: &str = include_str!("../../images.json");

/// All images, with what they share already in each.
#[derive(Debug, PartialEq, Eq)]
pub struct Declaration {
    /// By name: `builder`, `operator`.
    pub images: BTreeMap<String, Image>,
}

/// One image. Paths are absolute paths inside it.
#[derive(Debug, PartialEq, Eq)]
pub struct Image {
    /// For people.
    pub title: String,
    /// Firn's own program: its path in the image; its file name is the cargo target's.
    pub binary: String,
    /// `uid:gid`; never root.
    pub user: String,
    /// What a container runs.
    pub entrypoint: Vec<String>,
    /// Where it runs.
    pub working_dir: String,
    /// Its environment.
    pub env: BTreeMap<String, String>,
    /// Debian's programs, which bring their loader and libraries.
    pub programs: Vec<String>,
    /// Libraries that programs open by name at run time.
    pub libraries: Vec<String>,
    /// Symbolic links and their texts.
    pub links: BTreeMap<String, String>,
    /// Folders that must be there: mount points above all. With their modes.
    pub directories: BTreeMap<String, u32>,
    /// Files with their lines.
    pub files: BTreeMap<String, Vec<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    common: Common,
    images: BTreeMap<String, Own>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Common {
    working_dir: String,
    env: BTreeMap<String, String>,
    programs: Vec<String>,
    libraries: Vec<String>,
    links: BTreeMap<String, String>,
    directories: BTreeMap<String, String>,
    files: BTreeMap<String, Vec<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Own {
    title: String,
    binary: String,
    user: String,
    entrypoint: Vec<String>,
    #[serde(default)]
    env: BTreeMap<String, String>,
    #[serde(default)]
    programs: Vec<String>,
    #[serde(default)]
    links: BTreeMap<String, String>,
    #[serde(default)]
    directories: BTreeMap<String, String>,
    #[serde(default)]
    files: BTreeMap<String, Vec<String>>,
}

impl Declaration {
    /// The committed one.
    pub fn committed() -> Result<Self, Error> {
        Self::parse(DECLARATION)
    }

    /// The cargo packages whose programs go into images; each is named as its program.
    pub fn packages(&self) -> Vec<&str> {
        self.images.values().map(Image::package).collect()
    }

    /// Reads a declaration; what an image says itself goes over what all share.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let problem = |problem: String| Error::ParseDeclaration { problem };
        let Document { common, images } =
            serde_json::from_str(text).map_err(|error| problem(error.to_string()))?;
        let images = images
            .into_iter()
            .map(|(name, own)| {
                let image =
                    merge(&common, own).map_err(|text| problem(format!("{name}: {text}")))?;
                Ok((name, image))
            })
            .collect::<Result<_, Error>>()?;
        Ok(Self { images })
    }
}

impl Image {
    /// The cargo package of [`Image::binary`].
    pub fn package(&self) -> &str {
        self.binary.rsplit('/').next().unwrap_or(&self.binary)
    }
}

fn merge(common: &Common, own: Own) -> Result<Image, String> {
    let Own {
        title,
        binary,
        user,
        entrypoint,
        env,
        programs,
        links,
        directories,
        files,
    } = own;
    let numbers: Option<Vec<u32>> = user.split(':').map(|id| id.parse().ok()).collect();
    if !matches!(numbers.as_deref(), Some([uid, _]) if *uid != 0) {
        return Err(format!(
            "user {user:?} is not \"uid:gid\" of a user other than root"
        ));
    }
    let directories = over(&common.directories, directories)
        .into_iter()
        .map(|(path, mode)| match u32::from_str_radix(&mode, 8) {
            Ok(bits) if bits <= 0o7777 => Ok((path, bits)),
            _ => Err(format!("mode {mode:?} of {path:?} is not octal")),
        })
        .collect::<Result<_, _>>()?;
    Ok(Image {
        title,
        binary,
        user,
        entrypoint,
        working_dir: common.working_dir.clone(),
        env: over(&common.env, env),
        programs: common.programs.iter().cloned().chain(programs).collect(),
        libraries: common.libraries.clone(),
        links: over(&common.links, links),
        directories,
        files: over(&common.files, files),
    })
}

fn over<V: Clone>(common: &BTreeMap<String, V>, own: BTreeMap<String, V>) -> BTreeMap<String, V> {
    let mut all = common.clone();
    all.extend(own);
    all
}

#[cfg(test)]
mod tests {
    use firn_crd::pod;

    use super::*;

    fn image(name: &str) -> Image {
        Declaration::committed()
            .unwrap()
            .images
            .remove(name)
            .unwrap()
    }

    #[test]
    fn every_path_that_a_build_pod_mounts_is_there() {
        let directories = image("builder").directories;
        for path in [
            pod::NIX,
            pod::SOURCE,
            pod::CHECK,
            pod::HANDOFF,
            pod::SOURCE_SECRET,
            pod::PUSH_SECRET,
            pod::BASE_SECRET,
            pod::SOURCE_CA,
            pod::PUSH_CA,
            pod::BASE_CA,
            pod::SUBSTITUTER_CA,
            pod::CLUSTER_CA,
            "/tmp",
        ] {
            assert!(directories.contains_key(path), "{path}");
        }
        // runc up to 1.1 gives a tmpfs the mode of the folder it covers.
        assert_eq!(directories.get("/tmp"), Some(&0o1777));
    }

    #[test]
    fn the_pods_users_have_names_and_one_is_the_default() {
        let builder = image("builder");
        assert_eq!(builder.user, format!("{}:{}", pod::UID_BUILD, pod::GID));
        let passwd = builder.files["/etc/passwd"].join("\n");
        for uid in [pod::UID_BUILD, pod::UID_PUSH] {
            assert!(
                passwd.contains(&format!(":x:{uid}:{}:", pod::GID)),
                "{passwd}"
            );
        }
        assert_eq!(image("operator").user, "65532:65532");
    }

    #[test]
    fn nothing_of_the_builder_is_below_the_nix_volume() {
        let builder = image("builder");
        let paths = builder
            .programs
            .iter()
            .chain(builder.links.keys())
            .chain(builder.files.keys());
        for path in paths.chain([&builder.binary]) {
            assert!(!path.starts_with("/nix"), "{path}");
        }
    }

    #[test]
    fn a_bad_declaration_is_refused_with_its_image() {
        for (from, to, message) in [
            ("\"65532:65532\"", "\"0:0\"", "operator: user \"0:0\""),
            ("\"65532:65532\"", "\"firn\"", "operator: user \"firn\""),
            ("\"1777\"", "\"9\"", "mode \"9\" of \"/tmp\""),
            ("\"title\"", "\"titel\"", "unknown field `titel`"),
        ] {
            let error = Declaration::parse(&DECLARATION.replace(from, to))
                .unwrap_err()
                .to_string();
            assert!(error.contains(message), "{error}");
        }
    }
}
