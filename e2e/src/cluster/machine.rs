//! The machines of a cluster, and what runs inside: the first process of each, which sets the
//! namespaces up, starts the components and then only reaps.

use std::fmt;
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{WaitOptions, wait};

use super::cgroup::Group;
use super::command::output;
use super::component::Component;
use super::files::At;
use super::process::Process;
use super::{Layout, network, node};
use crate::wait::{unless_failed, until};

/// The API server needs a few seconds, on a busy machine many.
const API_SERVER_STARTS: Duration = Duration::from_secs(120);

/// A group of namespaces that plays a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Machine {
    /// Control plane and bridge; tests run in its network.
    Control,
    /// `node-N`.
    Node(u8),
}

impl Machine {
    /// How many nodes there can be: certificates are made for that many beforehand.
    pub const NODES_MAX: u8 = 4;
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Control => f.write_str("control"),
            Self::Node(n) => write!(f, "node-{n}"),
        }
    }
}

impl FromStr for Machine {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let node = text.strip_prefix("node-").and_then(|n| n.parse().ok());
        match node {
            _ if text == "control" => Ok(Self::Control),
            Some(n) if n < Self::NODES_MAX => Ok(Self::Node(n)),
            _ => Err(format!(
                "{text:?} is no machine: control, node-0 … node-{}",
                Self::NODES_MAX - 1
            )),
        }
    }
}

/// Starts a machine and returns at once. Its first process is [`run`].
pub(super) fn spawn(layout: &Layout, machine: Machine) -> Result<()> {
    let folder = layout.machine(machine);
    fs::create_dir_all(&folder).at("create", &folder)?;
    let log = layout.log(&machine.to_string());
    let out = File::create(&log).at("create", &log)?;
    let err = out.try_clone().at("use twice", &log)?;
    Command::new("setsid")
        .arg(own_program()?)
        .args(["inside", "launch", &machine.to_string()])
        .env("FIRN_CACHE", &layout.cache)
        .env("FIRN_STATE", &layout.state)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(err)
        .spawn()
        .with_context(|| format!("failed to start {machine}"))?;
    Ok(())
}

/// Joins the daemons' control group, so that whatever follows is found by `down`, and becomes the
/// `unshare` that holds the machine's namespaces. Nodes are within the control machine's.
///
/// Returns only if that fails.
pub fn launch(layout: &Layout, machine: Machine) -> Result<()> {
    Group::of(layout)?.join_daemons()?;
    let mut line: Vec<String> = Vec::new();
    if machine != Machine::Control {
        let control = Process::read(&layout.pid_file(Machine::Control));
        let control = control
            .filter(|p| p.is_alive())
            .context("the control machine is not up")?;
        line.extend(
            ["nsenter", "-t", &control.pid.to_string(), "-n", "-p", "--"].map(String::from),
        );
    }
    // --kill-child: when this unshare ends, the kernel ends every process in its PID namespace.
    line.extend(
        [
            "unshare",
            "--mount",
            "--net",
            "--pid",
            "--fork",
            "--kill-child",
            "--propagation",
            "private",
        ]
        .map(String::from),
    );
    line.push(own_program()?.display().to_string());
    line.extend(["inside", "run", &machine.to_string()].map(String::from));
    let (program, arguments) = line.split_first().context("an empty command line")?;
    Err(Command::new(program).args(arguments).exec())
        .with_context(|| format!("failed to become {program}"))
}

/// The first process of a machine. Does not return unless the machine cannot start.
pub fn run(layout: &Layout, machine: Machine) -> Result<()> {
    if std::process::id() != 1 {
        bail!("this is for the first process of a PID namespace only");
    }
    let this = Process::this()?; // before /proc is mounted anew: the outer number
    if let Machine::Node(_) = machine {
        let var = layout.machine(machine).join("var");
        for folder in ["lib/containerd", "lib/kubelet", "lib/cni", "log", "tmp"] {
            let folder = var.join(folder);
            fs::create_dir_all(&folder).at("create", &folder)?;
        }
        mount(&["--bind", &var.display().to_string(), "/var"])?;
    }
    let resolv_conf = resolv_conf_target()?; // before a /run is covered that it may be on
    mount(&["-t", "proc", "proc", "/proc"])?;
    mount(&["-t", "tmpfs", "tmpfs", "/run"])?;
    cover_resolv_conf(layout, &resolv_conf)?;
    network::prepare()?;
    match machine {
        Machine::Control => network::make_bridge()?,
        Machine::Node(n) => {
            let pods = Group::of(layout)?.path(&machine.to_string());
            node::write_files(layout, n, &pods)?;
        }
    }
    this.write(&layout.pid_file(machine))?;
    if let Machine::Node(n) = machine {
        network::configure_node(n)?;
    }
    for component in Component::of(machine) {
        prepare(layout, machine, *component)?;
        component.start(layout, machine)?;
    }
    let marker = layout.started_marker(machine);
    fs::write(&marker, "").at("write", &marker)?;
    reap()
}

/// What must be there before a component is started.
fn prepare(layout: &Layout, machine: Machine, component: Component) -> Result<()> {
    match (component, machine) {
        (Component::ControllerManager, _) => wait_for_api_server(layout, "admin"),
        (Component::Kubelet, Machine::Node(n)) => {
            node::import_images(layout)?;
            wait_for_api_server(layout, &format!("kubelet-{n}"))
        }
        _ => Ok(()),
    }
}

fn wait_for_api_server(layout: &Layout, user: &str) -> Result<()> {
    until("the API server answers", API_SERVER_STARTS, || {
        let mut kubectl = Command::new(layout.program("kube"));
        kubectl
            .arg("kubectl")
            .arg(format!(
                "--kubeconfig={}",
                layout.kubeconfig(user).display()
            ))
            .args(["get", "--raw", "/readyz"]);
        Ok(unless_failed(output(&mut kubectl).map(drop)))
    })
}

/// Everything that loses its parent in this PID namespace becomes a child of this process.
fn reap() -> Result<()> {
    loop {
        match wait(WaitOptions::empty()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            // No child is left: all components were killed. They may be started again.
            Err(rustix::io::Errno::CHILD) => std::thread::sleep(Duration::from_secs(1)),
            Err(error) => return Err(error).context("failed to wait for children"),
        }
    }
}

fn mount(arguments: &[&str]) -> Result<()> {
    output(Command::new("mount").args(arguments)).map(drop)
}

/// Gives this process the cluster's DNS, in a mount namespace of its own. What runs so resolves
/// Service names; all else is as outside.
pub fn use_cluster_dns(layout: &Layout) -> Result<()> {
    cover_resolv_conf(layout, &resolv_conf_target()?)
}

fn cover_resolv_conf(layout: &Layout, target: &Path) -> Result<()> {
    if !target.exists() {
        let parent = target.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(parent).at("create", parent)?;
        File::create(target).at("create", target)?;
    }
    let own = layout.resolv_conf().display().to_string();
    mount(&["--bind", &own, &target.display().to_string()])
}

/// Where `/etc/resolv.conf` really is: a link would be followed by `mount` too, but it may lead
/// to a folder that is to be covered.
fn resolv_conf_target() -> Result<PathBuf> {
    let path = Path::new("/etc/resolv.conf");
    if let Ok(real) = path.canonicalize() {
        return Ok(real);
    }
    match fs::read_link(path) {
        Ok(target) => Ok(Path::new("/etc").join(target)),
        Err(_) => bail!("/etc/resolv.conf does not exist: create it, an empty file will do"),
    }
}

/// The program to start again inside: `firn-cluster`, which lies beside whatever program this is.
pub(super) fn own_program() -> Result<PathBuf> {
    let this = std::env::current_exe().context("failed to find the path of this program")?;
    let program = this.with_file_name("firn-cluster");
    if !program.exists() {
        bail!(
            "{} does not exist: cargo build --package firn-e2e --bins",
            program.display()
        );
    }
    Ok(program)
}

/// Starts one component again. To be called inside the machine.
pub fn start_component(layout: &Layout, machine: Machine, component: Component) -> Result<()> {
    Group::of(layout)?.join_daemons()?;
    component.start(layout, machine)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_is_written_as_it_is_read() {
        for machine in [Machine::Control, Machine::Node(0), Machine::Node(3)] {
            assert_eq!(machine.to_string().parse(), Ok(machine));
        }
        for wrong in ["", "node-", "node-4", "node--1", "Control"] {
            assert!(wrong.parse::<Machine>().is_err(), "{wrong}");
        }
    }
}
