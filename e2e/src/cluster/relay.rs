//! The way in from outside: the API server listens in the cluster's network only, so a relay takes
//! connections at a port of this machine's loopback and passes them on. TLS and certificates stay
//! between client and API server; the relay reads nothing.
//!
//! A socket stays in the network namespace that it was made in. So the listener is made here,
//! outside, and handed to a process inside as its standard input: it accepts outside and connects
//! inside. That process is in the control machine's PID namespace, and ends with it.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::io::copy_bidirectional;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use super::cgroup::Group;
use super::files::At;
use super::lifecycle::init;
use super::machine::own_program;
use super::network::{API_SERVER_PORT, CONTROL};
use super::pki::write_secret;
use super::process::Process;
use super::progress::say;
use super::{Layout, Machine, kubeconfig};
use crate::wait::{unless_failed, until, when};

/// Connections at a time; more wait in the kernel's queue. A `kubectl` has one.
const CONNECTIONS_MAX: usize = 64;
/// The API server is on this machine: it takes a connection at once or is not there.
const CONNECT: Duration = Duration::from_secs(10);
/// How long nothing is accepted when that has failed, for want of memory or descriptors.
const ACCEPT_AGAIN: Duration = Duration::from_secs(1);
/// A relay that was killed has a parent, which holds the listener too until it has noticed.
const PORT_FREES: Duration = Duration::from_secs(1);
/// The relay is there after a few milliseconds.
const START: Duration = Duration::from_secs(30);

/// Where the relay listens, and whether it runs; `None` if there never was one.
pub fn status(layout: &Layout) -> Option<(SocketAddr, bool)> {
    let port = last_port(layout)?;
    let runs = Process::read(&layout.relay("pid")).is_some_and(Process::is_alive);
    Some((SocketAddr::from((Ipv4Addr::LOCALHOST, port)), runs))
}

/// Makes the relay run, and writes the kubeconfig that leads to it; says whether there was
/// anything to do.
///
/// Errors: no port is free, or the relay does not start; with its log.
pub(super) fn ensure(layout: &Layout) -> Result<bool> {
    match status(layout) {
        Some((_, true)) => return Ok(false),
        Some((_, false)) => say("the relay has ended: starting it again"),
        None => {}
    }
    let control = init(layout, Machine::Control).context("the control machine is not up")?;
    if network_of("self")? == network_of(&control.pid.to_string())? {
        bail!("the relay listens outside of the cluster: leave `firn-cluster exec` first");
    }
    let listener = listen(last_port(layout))?;
    let address = listener.local_addr().context("a listener has no address")?;
    let inside = layout.kubeconfig("admin");
    let config = fs::read_to_string(&inside).at("read", &inside)?;
    let config = kubeconfig::with_server(&config, &format!("https://{address}"))
        .with_context(|| format!("failed to understand {}", inside.display()))?;
    write_secret(&layout.kubeconfig_outside(), &config)?;
    let file = layout.relay("port");
    fs::write(&file, address.port().to_string()).at("write", &file)?;
    spawn(layout, listener)?;
    Ok(true)
}

/// The network namespace of a process: `net:[4026531840]`.
fn network_of(process: &str) -> Result<PathBuf> {
    let file = format!("/proc/{process}/ns/net");
    fs::read_link(&file).at("read", &file)
}

fn last_port(layout: &Layout) -> Option<u16> {
    let text = fs::read_to_string(layout.relay("port")).ok()?;
    text.trim().parse().ok()
}

/// At the same port as before, for whoever has read the kubeconfig; at any free one if there was
/// none or somebody else keeps it.
fn listen(before: Option<u16>) -> Result<TcpListener> {
    let at = |port| {
        TcpListener::bind((Ipv4Addr::LOCALHOST, port)).context("failed to listen on 127.0.0.1")
    };
    let same = before.map(|port| {
        until("the port is free", PORT_FREES, || {
            Ok(unless_failed(at(port)))
        })
    });
    match same {
        Some(Ok(listener)) => Ok(listener),
        _ => at(0),
    }
}

fn spawn(layout: &Layout, listener: TcpListener) -> Result<()> {
    let log = layout.log("relay");
    let out = File::options().create(true).append(true).open(&log);
    let out = out.at("open", &log)?;
    let err = out.try_clone().at("use twice", &log)?;
    let mut child = Command::new("setsid")
        .arg(own_program()?)
        .args(["inside", "launch-relay"])
        .env("FIRN_CACHE", &layout.cache)
        .env("FIRN_STATE", &layout.state)
        .current_dir("/")
        .stdin(Stdio::from(OwnedFd::from(listener)))
        .stdout(out)
        .stderr(err)
        .spawn()
        .context("failed to start the relay")?;
    until("the relay has started", START, || {
        if let Some(how) = child.try_wait().context("failed to look at the relay")? {
            let log = fs::read_to_string(&log).unwrap_or_default();
            bail!("the relay ended ({how}): {}", log.trim());
        }
        let runs = status(layout).is_some_and(|(_, runs)| runs);
        Ok(when(runs, "it does not say that it runs"))
    })
}

/// Joins the daemons' control group, so that `down` finds it, and becomes the `nsenter` that has
/// [`run`] for a child. Standard input is the listener.
///
/// Returns only if that fails.
pub fn launch(layout: &Layout) -> Result<()> {
    Group::of(layout)?.join_daemons()?;
    let control = init(layout, Machine::Control).context("the control machine is not up")?;
    Err(Command::new("nsenter")
        .args(["-t", &control.pid.to_string(), "-n", "-p", "--"])
        .arg(own_program()?)
        .args(["inside", "relay"])
        .exec())
    .context("failed to become nsenter")
}

/// The relay itself, in the control machine's network. Standard input is the listener. Does not
/// return unless it cannot start.
pub fn run(layout: &Layout) -> Result<()> {
    let listener = std::io::stdin().as_fd().try_clone_to_owned();
    let listener = TcpListener::from(listener.context("no standard input")?);
    listener
        .set_nonblocking(true)
        .context("standard input is no listener")?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("failed to start a runtime")?;
    runtime.block_on(async {
        let listener =
            tokio::net::TcpListener::from_std(listener).context("standard input is no listener")?;
        // /proc is the outer one: the number is that of the machine.
        Process::this()?.write(&layout.relay("pid"))?;
        serve(&listener, (CONTROL, API_SERVER_PORT).into()).await
    })
}

/// Passes every connection on to `target`, at most [`CONNECTIONS_MAX`] at a time.
async fn serve(listener: &tokio::net::TcpListener, target: SocketAddr) -> Result<()> {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let place = Arc::clone(&places).acquire_owned().await?;
        match listener.accept().await {
            Ok((client, _)) => {
                tokio::spawn(async move {
                    // An end that is not a good one is the client's to tell: it sees it.
                    if let Err(error) = pass(client, target).await {
                        say(format!("a connection ended: {error:#}"));
                    }
                    drop(place);
                });
            }
            Err(error) => {
                say(format!("failed to accept a connection: {error}"));
                sleep(ACCEPT_AGAIN).await;
            }
        }
    }
}

async fn pass(mut client: TcpStream, target: SocketAddr) -> Result<()> {
    let mut server = timeout(CONNECT, TcpStream::connect(target))
        .await
        .with_context(|| format!("{target} did not answer"))?
        .with_context(|| format!("failed to connect to {target}"))?;
    copy_bidirectional(&mut client, &mut server).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// A relay and the listener that it passes connections on to.
    async fn relayed() -> (SocketAddr, tokio::net::TcpListener) {
        let bind = || tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
        let (relay, server) = (bind().await.unwrap(), bind().await.unwrap());
        let (address, target) = (relay.local_addr().unwrap(), server.local_addr().unwrap());
        tokio::spawn(async move { serve(&relay, target).await });
        (address, server)
    }

    #[tokio::test]
    async fn both_directions_and_their_ends_are_passed_on() {
        let (address, server) = relayed().await;
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(b"question").await.unwrap();
        client.shutdown().await.unwrap();
        let (mut inside, _) = server.accept().await.unwrap();
        let mut question = String::new();
        inside.read_to_string(&mut question).await.unwrap();
        assert_eq!(question, "question");
        inside.write_all(b"answer").await.unwrap();
        drop(inside);
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "answer");
    }

    #[tokio::test]
    async fn a_connection_over_the_bound_waits_until_another_ends() {
        let (address, server) = relayed().await;
        let mut clients = Vec::new();
        let mut servers = Vec::new();
        for _ in 0..CONNECTIONS_MAX {
            clients.push(TcpStream::connect(address).await.unwrap());
            servers.push(server.accept().await.unwrap().0);
        }
        clients.push(TcpStream::connect(address).await.unwrap());
        let early = timeout(Duration::from_millis(100), server.accept()).await;
        assert!(early.is_err(), "one too many");
        drop((clients.swap_remove(0), servers.swap_remove(0)));
        let late = timeout(CONNECT, server.accept()).await;
        assert!(late.is_ok_and(|accepted| accepted.is_ok()));
    }

    #[test]
    fn the_port_stays_the_same_unless_it_is_taken() {
        let first = listen(None).unwrap();
        let port = first.local_addr().unwrap().port();
        let other = listen(Some(port)).unwrap();
        assert_ne!(other.local_addr().unwrap().port(), port);
        drop(first);
        let again = listen(Some(port)).unwrap();
        assert_eq!(again.local_addr().unwrap().port(), port);
    }
}
