//! The command lines of `push`, `plan`, `inspect` and `load`. Pure.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use firn_crd::output::LayerProfile;
use firn_crd::run::Compression;

use firn_crd::run::Strategy;

/// What the image is made of.
#[derive(Debug, Clone, Default, Args)]
pub struct InputArguments {
    /// A store path, or a flake's attribute as Nix takes it (`.#app`), which is built first.
    pub input: Option<String>,
    /// The closure as `nix path-info --json --recursive` tells it, for a machine without Nix.
    #[arg(long, value_name = "FILE")]
    pub closure: Option<PathBuf>,
    /// The folder that holds the store paths.
    #[arg(long, value_name = "DIR", default_value = "/nix/store")]
    pub store: PathBuf,
}

/// How the image is made.
#[derive(Debug, Clone, Args)]
pub struct ImageArguments {
    /// What the image runs on. Default: this machine's architecture.
    #[arg(long, value_name = "OS/ARCHITECTURE")]
    pub platform: Option<String>,
    /// The program of the package that a container runs. Default: the only one in `bin`.
    #[arg(long, value_name = "NAME")]
    pub main_program: Option<String>,
    /// The program by its absolute path; nothing is looked at then.
    #[arg(long, value_name = "PATH", conflicts_with = "main_program")]
    pub entry_point: Option<String>,
    /// Most layers.
    #[arg(long, value_name = "NUMBER", default_value_t = 100)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=480))]
    pub max_layers: u32,
    /// How store paths are split into layers.
    #[arg(long, value_enum, default_value = "stable")]
    pub strategy: StrategyName,
    /// Whose tar format layers of store paths have.
    #[arg(long, value_enum, default_value = "firn")]
    pub profile: ProfileName,
    /// How layers are compressed, unless an image description says it.
    #[arg(long, value_enum, default_value = "zstd")]
    pub compression: CompressionName,
    /// At which level, unless an image description says it: 1 to 19 for zstd, 1 to 9 for gzip.
    /// Default: 3 for zstd, 4 for gzip.
    #[arg(long, value_name = "NUMBER")]
    pub level: Option<u8>,
    /// A label of the image's config; may be given again.
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = pair)]
    pub labels: Vec<(String, String)>,
    /// An annotation of the manifest; may be given again.
    #[arg(long = "annotation", value_name = "KEY=VALUE", value_parser = pair)]
    pub annotations: Vec<(String, String)>,
}

/// How to reach a registry. Logins are those of `docker login` or `podman login`.
#[derive(Debug, Clone, Default, Args)]
pub struct RegistryArguments {
    /// Use http instead of https.
    #[arg(long)]
    pub plain_http: bool,
    /// Who is trusted, and with whose login.
    #[command(flatten)]
    pub access: AccessArguments,
}

/// Who is trusted, and with whose login.
#[derive(Debug, Clone, Default, Args)]
pub struct AccessArguments {
    /// Certificates to trust besides the system's (PEM); may be given again.
    #[arg(long = "ca", value_name = "FILE")]
    pub ca: Vec<PathBuf>,
    /// Docker's `config.json` with the logins. Default: `$REGISTRY_AUTH_FILE`, `$DOCKER_CONFIG`,
    /// `~/.docker`, podman's.
    #[arg(long, value_name = "FILE")]
    pub auth_file: Option<PathBuf>,
}

/// How to reach the registry of a base image. The one that the command names is reached as that.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct BaseArguments {
    /// Use http instead of https for the registry of a base image.
    #[arg(long)]
    pub base_plain_http: bool,
}

/// What is told, and how.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct OutputArguments {
    /// Tell the result as JSON.
    #[arg(long)]
    pub json: bool,
    /// Do not show progress.
    #[arg(long, short)]
    pub quiet: bool,
}

impl OutputArguments {
    /// Whether progress is to be shown, if there is a terminal.
    pub fn progress(self) -> bool {
        !self.quiet && !self.json
    }
}

/// The command line of `push`.
#[derive(Debug, Clone, Args)]
pub struct PushArguments {
    /// What the image is made of. In a pod nothing is said here.
    #[command(flatten)]
    pub input: InputArguments,
    /// How.
    #[command(flatten)]
    pub image: ImageArguments,
    /// How to get there.
    #[command(flatten)]
    pub registry: RegistryArguments,
    /// How to get to a base image.
    #[command(flatten)]
    pub base: BaseArguments,
    /// Where the image goes: registry, repository, perhaps a tag.
    #[arg(long, value_name = "REGISTRY/REPOSITORY[:TAG]")]
    pub to: Option<String>,
    /// A further tag; may be given again.
    #[arg(long, value_name = "TAG")]
    pub tag: Vec<String>,
    /// An image pushed before, by its digest: layers that it has are not made again, and mounted
    /// if it is in another repository. May be given again, the likeliest first.
    #[arg(long, value_name = "[REGISTRY/REPOSITORY@]DIGEST")]
    pub previous: Vec<String>,
    /// How it is told.
    #[command(flatten)]
    pub output: OutputArguments,
}

impl PushArguments {
    /// Whether a person says what is to be pushed; the operator says nothing on the command line.
    pub fn is_of_person(&self) -> bool {
        self.input.input.is_some() || self.to.is_some()
    }
}

/// The command line of `plan`.
#[derive(Debug, Clone, Args)]
pub struct PlanArguments {
    /// What the image is made of.
    #[command(flatten)]
    pub input: InputArguments,
    /// How.
    #[command(flatten)]
    pub image: ImageArguments,
    /// How to get to the previous image.
    #[command(flatten)]
    pub registry: RegistryArguments,
    /// How to get to a base image.
    #[command(flatten)]
    pub base: BaseArguments,
    /// An image pushed before, by its digest: what would have to be pushed after it?
    #[arg(long, value_name = "REGISTRY/REPOSITORY@DIGEST")]
    pub previous: Option<String>,
    /// Tell the plan as JSON.
    #[arg(long)]
    pub json: bool,
}

/// The command line of `inspect`.
#[derive(Debug, Clone, Args)]
pub struct InspectArguments {
    /// The image, by tag or digest.
    #[arg(value_name = "REGISTRY/REPOSITORY(:TAG|@DIGEST)")]
    pub reference: String,
    /// How to get there.
    #[command(flatten)]
    pub registry: RegistryArguments,
    /// Tell it as JSON.
    #[arg(long)]
    pub json: bool,
}

/// The command line of `load`.
#[derive(Debug, Clone, Args)]
pub struct LoadArguments {
    /// What the image is made of.
    #[command(flatten)]
    pub input: InputArguments,
    /// How.
    #[command(flatten)]
    pub image: ImageArguments,
    /// Who is trusted, and with whose login, where a base image is in a registry.
    #[command(flatten)]
    pub access: AccessArguments,
    /// How to get to a base image.
    #[command(flatten)]
    pub base: BaseArguments,
    /// `docker-archive:FILE` (for `docker load` and `podman load`), `oci:DIR`, or `containerd`, which
    /// runs `ctr`. A FILE of `-` is standard output.
    #[arg(long, value_name = "WHERE")]
    pub into: String,
    /// The image's name there, as in `web:latest`.
    #[arg(long, value_name = "NAME:TAG", default_value = "firn:latest")]
    pub name: String,
    /// How it is told.
    #[command(flatten)]
    pub output: OutputArguments,
}

/// How store paths are split into layers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum StrategyName {
    /// So that a change stays where it is.
    #[default]
    Stable,
    /// As nix2container does.
    Popularity,
    /// As nixpkgs' dockerTools does.
    BySize,
}

impl From<StrategyName> for Strategy {
    fn from(name: StrategyName) -> Self {
        match name {
            StrategyName::Stable => Self::Stable,
            StrategyName::Popularity => Self::Popularity,
            StrategyName::BySize => Self::BySize,
        }
    }
}

/// Whose tar format layers have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum ProfileName {
    /// Firn's own.
    #[default]
    Firn,
    /// nix2container's.
    Nix2container,
    /// That of nixpkgs' dockerTools.
    DockerTools,
}

impl From<ProfileName> for LayerProfile {
    fn from(name: ProfileName) -> Self {
        match name {
            ProfileName::Firn => Self::Firn,
            ProfileName::Nix2container => Self::Nix2container,
            ProfileName::DockerTools => Self::DockerTools,
        }
    }
}

/// How layers are compressed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum CompressionName {
    /// Small and fast.
    #[default]
    Zstd,
    /// For clients without zstd.
    Gzip,
    /// Plain tar.
    None,
}

impl From<CompressionName> for Compression {
    fn from(name: CompressionName) -> Self {
        match name {
            CompressionName::Zstd => Self::Zstd,
            CompressionName::Gzip => Self::Gzip,
            CompressionName::None => Self::None,
        }
    }
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text
        .split_once('=')
        .ok_or_else(|| "wanted KEY=VALUE".to_owned())?;
    Ok((key.to_owned(), value.to_owned()))
}
