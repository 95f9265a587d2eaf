//! What image builds talk to: a Git server and two registries, as pods behind Services in a
//! namespace that enforces Pod Security `restricted`.

use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::files::At;
use super::lifecycle::{apply, ask, enter, logs};
use super::lock::Lock;
use super::machine::own_program;
use super::pki::{Authority, Subject, write_secret};
use super::progress::{say, step};
use super::{Layout, Machine, command};
use crate::wait::{unless_failed, until};

/// Where all of it is.
pub const NAMESPACE: &str = "firn-e2e";
/// Two small programs start in 3 s; a machine that is busy with a build takes longer.
const START: Duration = Duration::from_secs(120);

// The passwords are what the stories about secrets look for everywhere.
const GIT_USER: &str = "reader";
const GIT_PASSWORD: &str = "FIRN-CANARY-git";
/// Who may push to the registry.
pub const REGISTRY_USER: &str = "pusher";
/// The password of [`REGISTRY_USER`].
pub const REGISTRY_PASSWORD: &str = "FIRN-CANARY-registry";
/// bcrypt of [`REGISTRY_PASSWORD`], the only kind that distribution takes; fewer rounds than usual,
/// for it is computed at each request and keeps no secret.
pub const REGISTRY_HTPASSWD: &str =
    "pusher:$2b$05$s5qZirBPLwrIX.B4ZK/eROflhYidz.7Rfz6wi13PakvhLG1My1w/y\n";

/// Addresses and credentials of a Git server and registries, of the embedded cluster or another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Services {
    /// `https://HOST`. Repositories are `/NAME.git`, created by the first push; those below
    /// `/private/` ask for a password, those below `/nofilter/` do not allow partial clones.
    pub git_url: String,
    /// For `/private/`.
    pub git_user: String,
    /// For `/private/`.
    pub git_password: String,
    /// Host and port, if not 443, of a registry with TLS and a password.
    pub registry: String,
    /// For [`Self::registry`].
    pub registry_user: String,
    /// For [`Self::registry`].
    pub registry_password: String,
    /// Host and port of a registry that speaks plain HTTP and is open to all.
    pub plain: String,
    /// The authority (PEM) behind the Git server's and the registry's certificates; empty if they
    /// are signed by one that everybody trusts.
    pub ca_pem: String,
}

impl Services {
    fn embedded(ca_pem: String) -> Self {
        Self {
            git_url: format!("https://{}", host("git")),
            git_user: GIT_USER.to_owned(),
            git_password: GIT_PASSWORD.to_owned(),
            registry: host("registry"),
            registry_user: REGISTRY_USER.to_owned(),
            registry_password: REGISTRY_PASSWORD.to_owned(),
            plain: format!("{}:5000", host("plain")),
            ca_pem,
        }
    }

    /// What [`up`] wrote down.
    ///
    /// Errors: it was not called since the cluster was started.
    pub fn read(layout: &Layout) -> Result<Self> {
        let file = file(layout);
        let text = fs::read_to_string(&file)
            .context("the Git server and registries are not up: firn-cluster services")?;
        serde_json::from_str(&text).at("understand", &file)
    }
}

/// `git.firn-e2e.svc.cluster.local`
pub fn host(service: &str) -> String {
    format!("{service}.{NAMESPACE}.svc.cluster.local")
}

/// Starts the services, or finds them up, and waits until each answers at its address.
pub fn up(layout: &Layout) -> Result<Services> {
    let _lock = Lock::acquire(&layout.lock_file())?;
    let services = match Services::read(layout) {
        Ok(services) => services,
        Err(_) => create(layout)?,
    };
    step("Git server and registries", || wait_until_ready(layout))
        .with_context(|| format!("the services did not start\n{}", logs(layout)))?;
    say(format!(
        "{}  {}  {}",
        services.git_url, services.registry, services.plain
    ));
    Ok(services)
}

/// From inside the cluster's network: whether something listens at HOST:PORT.
pub fn probe(address: &str) -> Result<()> {
    TcpStream::connect(address)
        .map(drop)
        .with_context(|| format!("failed to reach {address}"))
}

fn create(layout: &Layout) -> Result<Services> {
    let authority = Authority::new("firn-e2e services")?;
    let identity = authority.issue(&Subject {
        // Not the authority's own name: OpenSSL would take it for self-signed.
        name: host("git"),
        dns: vec![host("git"), host("registry")],
        ..Subject::default()
    })?;
    let services = Services::embedded(authority.certificate.clone());
    trust_registries(layout, &services)?;
    let objects = json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {
            "name": NAMESPACE,
            "labels": {"pod-security.kubernetes.io/enforce": "restricted"},
        }},
        secret("tls", &json!({"tls.crt": identity.certificate, "tls.key": identity.key()})),
        secret("git", &json!({"username": GIT_USER, "password": GIT_PASSWORD})),
        secret("registry", &json!({"htpasswd": REGISTRY_HTPASSWD})),
    ]});
    apply(layout, &[], &objects.to_string())?;
    let manifests = include_str!("../../cluster/manifests/services.yaml");
    apply(layout, &["--namespace", NAMESPACE], manifests)?;
    // Last: it says that all the rest was done.
    let text = serde_json::to_string_pretty(&services).context("failed to write services down")?;
    write_secret(&file(layout), &text)?;
    Ok(services)
}

fn wait_until_ready(layout: &Layout) -> Result<()> {
    until("the services' pods are available", START, || {
        let wait = [
            "wait",
            "--for=condition=Available",
            "--timeout=1s",
            "deployment",
            "--all",
        ];
        let arguments = [&["--namespace", NAMESPACE], &wait[..]].concat();
        Ok(unless_failed(ask(layout, &arguments).map(drop)))
    })?;
    // Available is about pods: kube-proxy learns of them up to a second later.
    for (service, port) in [("git", 443), ("registry", 443), ("plain", 5000)] {
        let address = format!("{}:{port}", host(service));
        until(&format!("{address} answers"), START, || {
            let mut probe = enter(layout, Machine::Control)?;
            probe
                .arg(own_program()?)
                .args(["inside", "probe", &address]);
            Ok(unless_failed(command::output(&mut probe).map(drop)))
        })?;
    }
    Ok(())
}

fn secret(name: &str, data: &Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "stringData": data,
    })
}

fn file(layout: &Layout) -> std::path::PathBuf {
    layout.state.join("services.json")
}

/// Tells the nodes' containerd how to reach the registries; credentials come from pull secrets.
fn trust_registries(layout: &Layout, services: &Services) -> Result<()> {
    let authority = layout.pki("services-ca.crt");
    write_secret(&authority, &services.ca_pem)?;
    let tls = format!(
        "server = \"https://{}\"\nca = \"{}\"\n",
        services.registry,
        authority.display()
    );
    write_hosts(layout, &services.registry, &tls)?;
    write_hosts(
        layout,
        &services.plain,
        &format!("server = \"http://{}\"\n", services.plain),
    )
}

fn write_hosts(layout: &Layout, host: &str, text: &str) -> Result<()> {
    let folder = layout.registries().join(folder_name(host));
    fs::create_dir_all(&folder).at("create", &folder)?;
    write_secret(&Path::new(&folder).join("hosts.toml"), text)
}

/// containerd's name for the folder of a registry: `HOST` or, with a port, `HOST_PORT_`.
fn folder_name(host: &str) -> String {
    host.split_once(':')
        .map_or_else(|| host.to_owned(), |(host, port)| format!("{host}_{port}_"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_with_a_port_has_the_folder_that_containerd_looks_for() {
        assert_eq!(folder_name("a.b"), "a.b");
        assert_eq!(folder_name("a.b:5000"), "a.b_5000_");
    }

    #[test]
    fn what_is_written_down_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout {
            cache: dir.path().into(),
            state: dir.path().into(),
        };
        assert!(
            Services::read(&layout)
                .unwrap_err()
                .to_string()
                .contains("firn-cluster services")
        );
        let services = Services::embedded("PEM".to_owned());
        fs::write(file(&layout), serde_json::to_string(&services).unwrap()).unwrap();
        assert_eq!(Services::read(&layout).unwrap(), services);
    }

    #[test]
    fn user_names_and_passwords_all_differ_so_that_swapped_ones_show() {
        let all = [GIT_USER, GIT_PASSWORD, REGISTRY_USER, REGISTRY_PASSWORD];
        for (i, a) in all.iter().enumerate() {
            assert!(all.iter().skip(i + 1).all(|b| a != b));
        }
        assert!(REGISTRY_HTPASSWD.starts_with(&format!("{REGISTRY_USER}:")));
    }
}
