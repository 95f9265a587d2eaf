//! `firn-images`: Firn's own images, without Docker. The work is in `firn_e2e::image` and
//! `firn_e2e::debian`; here are only the arguments and what is printed.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use firn_e2e::clone::repository;
use firn_e2e::debian;
use firn_e2e::image::{self, Contents, Declaration, Parts, Pushed};
use firn_oci::registry::{Credentials, Registry, RegistrySettings};
use firn_oci::{Reference, RegistryHost};

/// Builds and pushes Firn's own container images.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Arguments {
    /// Where downloads and build results are kept
    #[arg(long, env = "FIRN_CACHE", default_value_os_t = image::default_cache(), hide_default_value = true)]
    cache: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write each image as an OCI layout into a folder of its own
    Build(Output),
    /// Push the images that `build` wrote
    Push(Push),
    /// Write each image's files into a folder of its own, for Dockerfile
    Tree(Output),
    /// Pin the newest Debian packages: rewrites lists in e2e/debian
    Lock,
}

#[derive(Debug, Args)]
struct Output {
    /// The folder; one folder for each image is made in it
    #[arg(long)]
    out: PathBuf,
    /// Take Firn's programs from this folder instead of building them
    #[arg(long)]
    programs: Option<PathBuf>,
    /// Cargo's folder for build results [default: target in the cache]
    #[arg(long, env = "CARGO_TARGET_DIR", hide_env_values = true)]
    target_dir: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct Push {
    /// The folder that `build` wrote
    #[arg(long)]
    from: PathBuf,
    /// Registry and prefix: registry.example.com/firn makes registry.example.com/firn/operator
    #[arg(long)]
    to: String,
    /// The tag
    #[arg(long, default_value = env!("CARGO_PKG_VERSION"))]
    tag: String,
    /// Logins in Docker's format [default: ~/.docker/config.json, if there is one]
    #[arg(long, env = "FIRN_DOCKER_CONFIG", hide_env_values = true)]
    docker_config: Option<PathBuf>,
    /// A PEM file of authorities to trust besides the system's; may be given several times
    #[arg(long)]
    ca: Vec<PathBuf>,
    /// Speak HTTP without TLS
    #[arg(long)]
    plain_http: bool,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody is left to hear of a closed stderr.
            let _ = writeln!(io::stderr(), "firn-images: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(Arguments { cache, command }: &Arguments) -> anyhow::Result<()> {
    match command {
        Command::Build(output) => build(output, cache),
        Command::Push(arguments) => push(arguments),
        Command::Tree(output) => tree(output, cache),
        Command::Lock => lock(cache),
    }
}

fn build(output: &Output, cache: &Path) -> anyhow::Result<()> {
    let declaration = Declaration::committed()?;
    let (debian, programs) = parts(output, &declaration, cache)?;
    let parts = Parts {
        debian: &debian,
        programs: &programs,
    };
    let version = env!("CARGO_PKG_VERSION");
    for built in image::build(&declaration, &parts, version, &output.out)? {
        let (name, digest, layout) = (built.name, built.digest, built.layout.display());
        #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
        let megabytes = built.size as f64 / 1e6;
        writeln!(
            io::stdout(),
            "{name:<9} {digest}  {megabytes:5.1} MB  {layout}"
        )?;
    }
    Ok(())
}

fn tree(output: &Output, cache: &Path) -> anyhow::Result<()> {
    let declaration = Declaration::committed()?;
    let (debian, programs) = parts(output, &declaration, cache)?;
    let parts = Parts {
        debian: &debian,
        programs: &programs,
    };
    for (name, image) in &declaration.images {
        Contents::of(image, &parts)?.write_to(&output.out.join(name))?;
    }
    Ok(())
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn push(arguments: &Push) -> anyhow::Result<()> {
    let Push { from, to, tag, .. } = arguments;
    for name in Declaration::committed()?.images.keys() {
        let reference: Reference = format!("{to}/{name}:{tag}").parse()?;
        let registry = Registry::new(registry_settings(arguments, reference.host.clone())?)?;
        let tag = reference.tag.as_ref().context("there is no tag")?;
        let folder = from.join(name);
        let pushed = image::push(&folder, &registry, &reference.repository, tag).await?;
        let Pushed {
            digest,
            uploaded,
            reused,
        } = pushed;
        writeln!(
            io::stdout(),
            "{reference}@{digest}  {uploaded} layers sent, {reused} were there"
        )?;
    }
    Ok(())
}

fn registry_settings(arguments: &Push, host: RegistryHost) -> anyhow::Result<RegistrySettings> {
    let read = |path: &Path| {
        std::fs::read(path).with_context(|| format!("failed to read {}", path.display()))
    };
    let config = match &arguments.docker_config {
        Some(path) => Some(path.clone()),
        None => std::env::home_dir()
            .map(|home| home.join(".docker/config.json"))
            .filter(|path| path.exists()),
    };
    let credentials = match config {
        Some(path) => Credentials::from_docker_config(&read(&path)?)
            .with_context(|| format!("failed to read the logins in {}", path.display()))?,
        None => Credentials::default(),
    };
    Ok(RegistrySettings {
        plain_http: arguments.plain_http,
        extra_ca_pem: arguments
            .ca
            .iter()
            .map(|path| read(path))
            .collect::<Result<_, _>>()?,
        credentials,
        ..RegistrySettings::new(host)
    })
}

/// Debian's tree, and the folder of Firn's programs.
fn parts(
    output: &Output,
    declaration: &Declaration,
    cache: &Path,
) -> anyhow::Result<(debian::Tree, PathBuf)> {
    let debian = debian::tree(&debian::LOCK.parse()?, cache)?;
    let programs = if let Some(folder) = &output.programs {
        folder.clone()
    } else {
        let target = output
            .target_dir
            .clone()
            .unwrap_or_else(|| cache.join("target"));
        image::binaries::build(&declaration.packages(), &repository(), &target)?
    };
    Ok((debian, programs))
}

fn lock(cache: &Path) -> anyhow::Result<()> {
    let mut lists = vec![(
        "forky-amd64.lock",
        debian::resolve("forky", "amd64", &debian::ROOTS, cache)?.to_string(),
    )];
    for (name, what, arch, roots) in [
        (
            "busybox-forky-arm64.lock",
            "What the tests of several platforms run on an arm64 node",
            "arm64",
            ["busybox-static"],
        ),
        (
            "qemu-forky-amd64.lock",
            "What runs arm64 programs on an amd64 machine",
            "amd64",
            ["qemu-user"],
        ),
    ] {
        let lock = debian::resolve("forky", arch, &roots, cache)?.to_string();
        let (_, packages) = lock.split_once('\n').context("an empty list")?;
        let text = format!("# {what}; written by `firn-images lock`.\n{packages}");
        lists.push((name, text));
    }
    for (name, text) in lists {
        let path = repository().join("e2e/debian").join(name);
        std::fs::write(&path, text)
            .with_context(|| format!("failed to write {}", path.display()))?;
    }
    Ok(())
}
