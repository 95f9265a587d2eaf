//! Registries of three makes, each on a port of this machine, with TLS and a login.

use std::fs::{self, File};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use firn_e2e::bench::peers;
use firn_e2e::cluster::{Layout, build, services};
use firn_e2e::debian::{self, Lock};
use firn_e2e::wait::{unless_failed, until};
use firn_oci::registry::{Credentials, Limits, Login, Registry, RegistrySettings, Secret};
use serde_json::json;

use super::front::{Front, Identity};
use super::tokens::Tokens;

/// The committed pins of Debian's docker-registry, which is distribution 2.8.
const LOCK: &str = include_str!("../../../debian/docker-registry-forky-amd64.lock");
/// Each is ready in less than a second; a machine that is busy takes longer.
const READY: Duration = Duration::from_secs(30);
/// A proxy that lets pass what a chunk has, and not what a layer has.
pub(super) const CAP: usize = 5 << 20;

/// Who made a registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Make {
    /// distribution 3, as the embedded cluster has it.
    Distribution3,
    /// The same, which wants tokens of another server instead of a password.
    Distribution3WithTokens,
    /// distribution 2.8, as Debian has it.
    Distribution2,
    /// go-containerregistry's, which `crane registry serve` is. It has neither TLS nor login.
    Crane,
}

/// A running registry. It ends with this.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) make: Make,
    /// `127.0.0.1:PORT`, with TLS and login.
    pub(super) address: String,
    /// The same behind a proxy that caps requests.
    pub(super) capped: String,
    /// Whose tokens it wants.
    pub(super) tokens: Option<Tokens>,
    folder: tempfile::TempDir,
    child: Child,
    programs: PathBuf,
    identity: Identity,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    pub(super) async fn start(make: Make) -> Result<Self> {
        let programs = build::programs(&Layout::from_env()?)?;
        let folder = tempfile::tempdir()?;
        let identity = Identity::new()?;
        // By itself: skopeo takes a key beside it for a client's.
        fs::create_dir(folder.path().join("ca"))?;
        fs::write(folder.path().join("ca/ca.crt"), &identity.certificate)?;
        let port = free_port()?;
        let mut command = match make {
            Make::Distribution3 | Make::Distribution3WithTokens => {
                Command::new(programs.join("registry"))
            }
            Make::Distribution2 => debian_program("docker-registry")?,
            Make::Crane => Command::new(programs.join("crane")),
        };
        let tokens = match make {
            Make::Distribution3WithTokens => Some(Tokens::start(&identity).await?),
            _ => None,
        };
        match make {
            Make::Distribution3 | Make::Distribution3WithTokens | Make::Distribution2 => {
                let config = configure(folder.path(), &identity, port, tokens.as_ref())?;
                command.arg("serve").arg(config);
            }
            Make::Crane => {
                command.args(["registry", "serve", "--address"]);
                command.arg(format!("127.0.0.1:{port}"));
            }
        }
        let log = File::create(folder.path().join("log"))?;
        let child = command
            .env("OTEL_TRACES_EXPORTER", "none")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("failed to start {make:?}"))?;
        let mut server = Self {
            make,
            address: format!("127.0.0.1:{port}"),
            capped: String::new(),
            tokens,
            folder,
            child,
            programs,
            identity,
        };
        server.wait_until_it_listens(port)?;
        if make == Make::Crane {
            server.address = server.front("http", usize::MAX).await?;
        }
        server.capped = server.front("https", CAP).await?;
        let anonymous = server.client(&server.address, None)?;
        let error = anonymous.ping().await.err().context("it asks nobody")?;
        ensure!(error.is_auth(), "{error}");
        Ok(server)
    }

    /// A front before it. The first one before a registry without a login asks for one.
    async fn front(&self, scheme: &str, cap: usize) -> Result<String> {
        let ca = reqwest::Certificate::from_pem(self.identity.certificate.as_bytes())?;
        let front = Front {
            to: format!("{scheme}://{}", self.address),
            login: (scheme == "http")
                .then_some((services::REGISTRY_USER, services::REGISTRY_PASSWORD)),
            cap,
            client: reqwest::Client::builder().tls_certs_merge([ca]).build()?,
        };
        front.start(&self.identity).await
    }

    fn wait_until_it_listens(&mut self, port: u16) -> Result<()> {
        let log = self.folder.path().join("log");
        let make = self.make;
        until(&format!("{make:?} listens"), READY, || {
            let ended = self.child.try_wait()?;
            ensure!(ended.is_none(), "{ended:?}: {}", fs::read_to_string(&log)?);
            let connected = TcpStream::connect(("127.0.0.1", port));
            Ok(unless_failed(connected.map(drop).map_err(Into::into)))
        })
    }

    /// A client of `address`, which is one of this server's.
    pub(super) fn client(&self, address: &str, password: Option<&str>) -> Result<Registry> {
        let host = address.parse()?;
        let credentials = match password {
            None => Credentials::default(),
            Some(password) => Credentials::of(
                &host,
                Login::Password {
                    username: services::REGISTRY_USER.to_owned(),
                    password: Secret::new(password.to_owned()),
                },
            ),
        };
        Ok(Registry::new(RegistrySettings {
            credentials,
            extra_ca_pem: vec![self.identity.certificate.clone().into_bytes()],
            limits: Limits {
                retry_budget: Duration::from_secs(20),
                ..Limits::default()
            },
            ..RegistrySettings::new(host)
        })?)
    }

    /// Lets crane read a whole image and check every digest, size and diffID of it. Not where tokens
    /// come from loopback: crane takes none from there, and skopeo has to do.
    pub(super) fn crane_validates(&self, image: &str) -> Result<()> {
        if self.tokens.is_some() {
            return self.skopeo_pulls(image);
        }
        self.log_in()?;
        succeed(
            Command::new(self.programs.join("crane"))
                .args(["validate", "--remote"])
                .arg(format!("{}/{image}", self.address))
                .env("DOCKER_CONFIG", self.folder.path())
                .env("SSL_CERT_FILE", self.ca()),
        )
    }

    /// The embedded cluster's programs, crane and containerd among them.
    pub(super) fn programs(&self) -> &Path {
        &self.programs
    }

    /// Who vouches for it.
    pub(super) fn ca(&self) -> PathBuf {
        self.folder.path().join("ca/ca.crt")
    }

    /// Docker's file with a login for it.
    pub(super) fn log_in(&self) -> Result<PathBuf> {
        let login = json!({"auths": {&self.address: {
            "username": services::REGISTRY_USER,
            "password": services::REGISTRY_PASSWORD,
        }}});
        let file = self.folder.path().join("config.json");
        fs::write(&file, login.to_string())?;
        Ok(file)
    }

    /// Lets skopeo read a whole image and check every digest of it.
    pub(super) fn skopeo_pulls(&self, image: &str) -> Result<()> {
        let login = format!(
            "{}:{}",
            services::REGISTRY_USER,
            services::REGISTRY_PASSWORD
        );
        let ca = self.folder.path().join("ca");
        skopeo_copies(&format!("docker://{}/{image}", self.address), |command| {
            command.args(["--src-creds", &login]);
            command.arg("--src-cert-dir").arg(ca);
        })
    }
}

/// Lets skopeo read a whole image from wherever and check every digest of it.
pub(super) fn skopeo_copies(image: &str, add: impl FnOnce(&mut Command)) -> Result<()> {
    let (root, _) = peers::skopeo(&cache()?)?;
    let to = tempfile::tempdir()?;
    let mut command = by_its_loader(&root, "skopeo");
    command.args(["--insecure-policy", "copy", "--quiet"]);
    add(&mut command);
    command.arg(image);
    command.arg(format!("dir:{}", to.path().display()));
    succeed(&mut command)
}

fn cache() -> Result<PathBuf> {
    Ok(Layout::from_env()?.cache)
}

fn debian_program(name: &str) -> Result<Command> {
    let tree = debian::tree(&LOCK.parse::<Lock>()?, &cache()?)?;
    Ok(by_its_loader(&tree.root, name))
}

/// A program of another Debian: by its own loader, with its own libraries.
fn by_its_loader(root: &Path, name: &str) -> Command {
    let libraries = root.join("usr/lib/x86_64-linux-gnu");
    let mut command = Command::new(libraries.join("ld-linux-x86-64.so.2"));
    command.arg("--library-path").arg(&libraries);
    command.arg(root.join("usr/bin").join(name));
    command
}

/// JSON is YAML.
fn configure(
    folder: &Path,
    identity: &Identity,
    port: u16,
    tokens: Option<&Tokens>,
) -> Result<PathBuf> {
    for (name, text) in [
        ("tls.key", identity.key.as_str()),
        ("htpasswd", services::REGISTRY_HTPASSWD),
    ] {
        fs::write(folder.join(name), text)?;
    }
    let auth = match tokens {
        None => json!({"htpasswd": {"realm": "test", "path": folder.join("htpasswd")}}),
        Some(tokens) => {
            let keys = folder.join("jwks.json");
            fs::write(&keys, tokens.jwks().to_string())?;
            tokens.settings(&keys)
        }
    };
    let config = json!({
        "version": 0.1,
        "log": {"level": "warn"},
        "storage": {
            "filesystem": {"rootdirectory": folder.join("storage")},
            "delete": {"enabled": true},
        },
        "http": {
            "addr": format!("127.0.0.1:{port}"),
            "secret": "of-the-test",
            "tls": {"certificate": folder.join("ca/ca.crt"), "key": folder.join("tls.key")},
        },
        "auth": auth,
    });
    let path = folder.join("config.yml");
    fs::write(&path, config.to_string())?;
    Ok(path)
}

/// One that nobody has at present; until the registry takes it, somebody else could.
fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

fn succeed(command: &mut Command) -> Result<()> {
    let output = command
        .output()
        .with_context(|| format!("failed to start {command:?}"))?;
    if output.status.success() {
        return Ok(());
    }
    bail!(
        "{command:?}: {}",
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat())
    )
}
