//! A cluster whose way out is a forward proxy: git and the registry are reached through it, by the
//! operator and by build pods, by Firn's own clients and by the programs they start.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result, ensure};
use firn_e2e::cluster::network::CONTROL;
use firn_e2e::story::{Wanted, World, tell};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::ListParams;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

use super::helm::{and_back, put};

/// Longest head of a request; those of `CONNECT` are short.
const HEAD_MAX: usize = 8 << 10;

#[tokio::test(flavor = "multi_thread")]
async fn a_forward_proxy_is_used_by_the_operator_and_by_every_container() -> Result<()> {
    tell("proxy", async |world| and_back(world, story).await).await
}

async fn story(world: &World, values: &str) -> Result<()> {
    let proxy = Proxy::start().await?;
    let set = format!("proxy.https=http://{CONTROL}:{}", proxy.port);
    put(world, &["upgrade"], values, &["--set", &set])?;

    let source = world.publish_flake("private").await?;
    let wanted =
        Wanted::new(world, "web", &source.url).with("/spec/source/git/secretRef/name", "git");
    world.apply(&wanted).await?;
    world.ready("web").await?;

    let git = world.services.git_url.trim_start_matches("https://");
    let registry = &world.services.registry;
    let system: Api<Pod> = Api::namespaced(world.client.clone(), "firn-system");
    let operators = system
        .list(&ListParams::default().labels("app.kubernetes.io/name=firn"))
        .await?;
    let built = world.pods("web").await?;
    let asked = proxy.asked();
    for (who, pods, hosts) in [
        ("the operator", operators.items, vec![git]),
        ("the build", built, vec![git, registry.as_str()]),
    ] {
        let addresses = addresses(&pods)?;
        for host in hosts {
            ensure!(
                asked
                    .iter()
                    .any(|(from, to)| addresses.contains(from) && to == &format!("{host}:443")),
                "{who} at {addresses:?} did not ask the proxy for {host}: {asked:?}"
            );
        }
    }
    Ok(())
}

fn addresses(pods: &[Pod]) -> Result<BTreeSet<IpAddr>> {
    let addresses = pods
        .iter()
        .filter_map(|pod| pod.status.as_ref()?.pod_ip.as_ref());
    addresses
        .map(|address| address.parse().context("no address of a pod"))
        .collect()
}

/// A proxy that knows nothing but `CONNECT` and remembers who asked for what.
struct Proxy {
    port: u16,
    asked: Arc<Mutex<BTreeSet<(IpAddr, String)>>>,
}

impl Proxy {
    /// Where pods reach it: beside the API server.
    async fn start() -> Result<Self> {
        let listener = TcpListener::bind((CONTROL, 0)).await?;
        let port = listener.local_addr()?.port();
        let asked = Arc::new(Mutex::new(BTreeSet::new()));
        let remembered = Arc::clone(&asked);
        tokio::spawn(async move {
            while let Ok((client, from)) = listener.accept().await {
                let asked = Arc::clone(&asked);
                // One that goes wrong is its client's failure, and so the story's.
                tokio::spawn(async move { connect(client, from.ip(), &asked).await });
            }
        });
        Ok(Self {
            port,
            asked: remembered,
        })
    }

    fn asked(&self) -> BTreeSet<(IpAddr, String)> {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.clone()
    }
}

async fn connect(
    mut client: TcpStream,
    from: IpAddr,
    asked: &Mutex<BTreeSet<(IpAddr, String)>>,
) -> Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        ensure!(head.len() < HEAD_MAX, "a request without an end");
        head.push(client.read_u8().await?);
    }
    let head = String::from_utf8(head)?;
    let target = head
        .strip_prefix("CONNECT ")
        .and_then(|rest| rest.split(' ').next())
        .context("not CONNECT")?;
    asked
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .insert((from, target.to_owned()));
    let mut server = TcpStream::connect(target).await?;
    client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
    copy_bidirectional(&mut client, &mut server).await?;
    Ok(())
}
