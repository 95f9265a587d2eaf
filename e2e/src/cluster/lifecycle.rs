//! Starting, repairing and ending a cluster, from outside its namespaces. Each of these functions
//! brings about a state, whatever was there before: a second call finds nothing to do.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use super::cgroup::Group;
use super::command::{output, output_of_input};
use super::component::{Component, search_path};
use super::files::At;
use super::lock::Lock;
use super::process::Process;
use super::progress::{say, step};
use super::{Layout, Machine, build, control_plane, images, machine, network, relay, requirements};
use crate::wait::{unless_failed, until, when};

/// A machine's first process is there after a few milliseconds.
const MACHINE_STARTS: Duration = Duration::from_secs(30);
/// From an empty store to a node that takes pods: 10 s on two idle cores, more on busy ones.
const CLUSTER_STARTS: Duration = Duration::from_secs(180);
/// Lines of each log that an error shows.
const LOG_LINES: usize = 15;

/// Builds what the cluster runs and the images that its nodes know.
pub fn build_all(layout: &Layout) -> Result<()> {
    let programs = build::programs(layout)?;
    images::archives(layout, &programs)?;
    Ok(())
}

/// Makes the cluster run with at least `nodes` nodes: starts it, repairs it, or finds it well.
pub fn up(layout: &Layout, nodes: u8) -> Result<()> {
    let start = Instant::now();
    if nodes == 0 || nodes > Machine::NODES_MAX {
        bail!(
            "{nodes} nodes are not possible: between 1 and {}",
            Machine::NODES_MAX
        );
    }
    let programs = build::programs(layout)?;
    let archives = images::archives(layout, &programs)?;
    layout.check_visible(&machine::own_program()?)?;
    let _lock = Lock::acquire(&layout.lock_file())?;
    let mut found_well = init(layout, Machine::Control).is_some();
    if !found_well {
        clear(layout)?;
        fs::create_dir_all(&layout.state).at("create", &layout.state)?;
        symlink(programs, layout.bin()).context("failed to link the programs")?;
        symlink(archives, layout.images()).context("failed to link the images")?;
        control_plane::write_files(layout)?;
        Group::of(layout)?.create_daemons()?;
        start_machine(layout, Machine::Control)?;
    } else if repair(layout, Machine::Control)? {
        found_well = false;
    }
    found_well &= !relay::ensure(layout)?;
    for node in (0..nodes).map(Machine::Node) {
        found_well &= init(layout, node).is_some() && !repair(layout, node)?;
        if init(layout, node).is_none() {
            start_node(layout, node)?;
        }
    }
    if found_well && is_ready(layout, nodes) {
        say("the cluster is up already");
        return Ok(());
    }
    wait_until_ready(layout, nodes)
        .with_context(|| format!("the cluster did not start\n{}", logs(layout)))?;
    say(format!(
        "the cluster is up ({:.1} s)",
        start.elapsed().as_secs_f64()
    ));
    Ok(())
}

/// Ends the cluster and removes its state; the cache stays. Works on whatever is left of one.
pub fn down(layout: &Layout) -> Result<()> {
    requirements::root()?;
    let _lock = Lock::acquire(&layout.lock_file())?;
    let something = layout.state.exists();
    clear(layout)?;
    say(if something {
        "the cluster is down"
    } else {
        "no cluster is up"
    });
    Ok(())
}

/// Adds a node to a running cluster, or brings one back that was switched off.
pub fn node_up(layout: &Layout, node: u8) -> Result<()> {
    let _lock = Lock::acquire(&layout.lock_file())?;
    let machine = Machine::Node(node);
    if init(layout, machine).is_some() {
        say(format!("{machine} is up already"));
        return Ok(());
    }
    start_node(layout, machine)?;
    wait_for_node(layout, node)
        .with_context(|| format!("{machine} did not start\n{}", logs(layout)))
}

/// Ends a node as if its plug had been pulled: nothing is told to anyone, its disk stays.
pub fn node_off(layout: &Layout, node: u8) -> Result<()> {
    let _lock = Lock::acquire(&layout.lock_file())?;
    let machine = Machine::Node(node);
    let process = init(layout, machine).with_context(|| format!("{machine} is not up"))?;
    end(process, Signal::KILL)?;
    until("the node has ended", MACHINE_STARTS, || {
        Ok(when(!process.is_alive(), "its first process still runs"))
    })?;
    forget(layout, machine)?;
    Group::of(layout)?.remove_pods(&machine.to_string())
}

/// Sends a signal to a component: `KILL` is a crash, `STOP` and `CONT` a hang.
pub fn signal(
    layout: &Layout,
    machine: Machine,
    component: Component,
    signal: Signal,
) -> Result<()> {
    let group = Group::of(layout)?;
    let pid = component
        .find(layout, &group, machine)
        .with_context(|| format!("{} does not run on {machine}", component.name()))?;
    let pid = Pid::from_raw(pid).context("a process with the number 0")?;
    kill_process(pid, signal).with_context(|| format!("failed to signal {}", component.name()))
}

/// Starts a component that has ended.
pub fn start(layout: &Layout, machine: Machine, component: Component) -> Result<()> {
    if component
        .find(layout, &Group::of(layout)?, machine)
        .is_some()
    {
        say(format!("{} runs on {machine} already", component.name()));
        return Ok(());
    }
    let mut command = enter(layout, machine)?;
    command.arg(machine::own_program()?);
    command.args(["inside", "start", &machine.to_string(), component.name()]);
    command
        .env("FIRN_CACHE", &layout.cache)
        .env("FIRN_STATE", &layout.state);
    output(&mut command).map(drop)
}

/// A machine that is up, and whether each of its components runs.
pub type Status = (Machine, Vec<(Component, bool)>);

/// The machines that are up.
pub fn status(layout: &Layout) -> Result<Vec<Status>> {
    let group = Group::of(layout)?;
    let machines =
        std::iter::once(Machine::Control).chain((0..Machine::NODES_MAX).map(Machine::Node));
    let running = machines.filter(|machine| init(layout, *machine).is_some());
    Ok(running
        .map(|machine| {
            let components = Component::of(machine).iter();
            let states = components.map(|c| (*c, c.find(layout, &group, machine).is_some()));
            (machine, states.collect())
        })
        .collect())
}

/// The beginning of a command that runs inside a machine.
pub fn enter(layout: &Layout, machine: Machine) -> Result<Command> {
    let process =
        init(layout, machine).with_context(|| format!("{machine} is not up: firn-cluster up"))?;
    let mut command = Command::new("nsenter");
    command.args(["-t", &process.pid.to_string(), "-m", "-n", "-p", "--"]);
    Ok(command)
}

/// A command in a node, or in the cluster's network. The latter keeps all else of this machine
/// (files, processes, the numbers of processes), so that tests run there can call `firn-cluster`.
/// It ends with the cluster.
pub fn exec(layout: &Layout, machine: Machine, line: &[OsString]) -> Result<Command> {
    if let Machine::Node(_) = machine {
        let mut command = enter(layout, machine)?;
        command.args(line).env("PATH", search_path(layout));
        return Ok(command);
    }
    let process = init(layout, machine).context("the cluster is not up: firn-cluster up")?;
    Group::of(layout)?.join_daemons()?;
    let mut command = Command::new("nsenter");
    command
        .args(["-t", &process.pid.to_string(), "-n", "--"])
        .args(["unshare", "--mount", "--propagation", "private", "--"])
        .arg(machine::own_program()?)
        .args(["inside", "exec", "--"])
        .args(line)
        .env("FIRN_CACHE", &layout.cache)
        .env("FIRN_STATE", &layout.state)
        .env("FIRN_E2E_INSIDE", "1")
        .env("KUBECONFIG", layout.kubeconfig("admin"));
    Ok(command)
}

/// kubectl as administrator, in the control machine's network and everything else as here.
pub fn kubectl(layout: &Layout) -> Result<Command> {
    let process =
        init(layout, Machine::Control).context("the cluster is not up: firn-cluster up")?;
    let mut command = Command::new("nsenter");
    command
        .args(["-t", &process.pid.to_string(), "-n", "--"])
        .arg(layout.program("kube"))
        .arg("kubectl")
        .arg(format!(
            "--kubeconfig={}",
            layout.kubeconfig("admin").display()
        ));
    Ok(command)
}

/// Applies manifests.
pub(super) fn apply(layout: &Layout, arguments: &[&str], manifests: &str) -> Result<()> {
    let mut command = kubectl(layout)?;
    command
        .args([
            "apply",
            "--server-side",
            "--force-conflicts",
            "--filename=-",
        ])
        .args(arguments);
    output_of_input(&mut command, manifests).map(drop)
}

/// Runs kubectl and returns what it prints.
pub(super) fn ask(layout: &Layout, arguments: &[&str]) -> Result<String> {
    output(kubectl(layout)?.args(arguments))
}

/// The machine's first process, if that very one is alive.
pub(super) fn init(layout: &Layout, machine: Machine) -> Option<Process> {
    Process::read(&layout.pid_file(machine)).filter(|process| process.is_alive())
}

/// The last lines of every log, for an error message.
pub fn logs(layout: &Layout) -> String {
    let folder = layout.state.join("log");
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut files: Vec<_> = entries.map(|entry| entry.path()).collect();
    files.retain(|file| *file != layout.audit_log());
    files.sort();
    let tails = files.iter().map(|file| {
        let text = fs::read(file).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        let tail = lines
            .get(lines.len().saturating_sub(LOG_LINES)..)
            .unwrap_or_default();
        format!("── {} ──\n{}\n", file.display(), tail.join("\n"))
    });
    tails.collect()
}

/// Ends all processes, removes groups and files.
fn clear(layout: &Layout) -> Result<()> {
    Group::of(layout)?.remove()?;
    if layout.state.exists() {
        fs::remove_dir_all(&layout.state).at("remove", &layout.state)?;
    }
    Ok(())
}

fn start_machine(layout: &Layout, machine: Machine) -> Result<Process> {
    forget(layout, machine)?;
    machine::spawn(layout, machine)?;
    until("its first process runs", MACHINE_STARTS, || {
        Ok(unless_failed(
            init(layout, machine).context("no process yet"),
        ))
    })
    .with_context(|| format!("{machine} did not start\n{}", logs(layout)))
}

fn start_node(layout: &Layout, machine: Machine) -> Result<()> {
    let Machine::Node(n) = machine else {
        bail!("{machine} is no node")
    };
    let control =
        init(layout, Machine::Control).context("the cluster is not up: firn-cluster up")?;
    Group::of(layout)?.create_pods(&machine.to_string())?;
    let process = start_machine(layout, machine)?;
    network::plug_in(control.pid, n, process.pid)
}

/// Removes what says that a machine runs.
fn forget(layout: &Layout, machine: Machine) -> Result<()> {
    for file in [layout.pid_file(machine), layout.started_marker(machine)] {
        if file.exists() {
            fs::remove_file(&file).at("remove", &file)?;
        }
    }
    Ok(())
}

/// Starts the components of a living machine that have ended; says whether there were any.
fn repair(layout: &Layout, machine: Machine) -> Result<bool> {
    wait_until_started(layout, machine)
        .with_context(|| format!("{machine} did not start\n{}", logs(layout)))?;
    let group = Group::of(layout)?;
    let ended = Component::of(machine)
        .iter()
        .filter(|c| c.find(layout, &group, machine).is_none());
    let mut repaired = false;
    for component in ended {
        say(format!(
            "{} has ended on {machine}: starting it again",
            component.name()
        ));
        start(layout, machine, *component)?;
        repaired = true;
    }
    Ok(repaired)
}

/// Waits until the machine has started all its components once.
fn wait_until_started(layout: &Layout, machine: Machine) -> Result<()> {
    let marker = layout.started_marker(machine);
    until("its components are started", CLUSTER_STARTS, || {
        if init(layout, machine).is_none() {
            bail!("{machine} has ended");
        }
        Ok(when(marker.exists(), "it is still starting"))
    })
}

fn end(process: Process, signal: Signal) -> Result<()> {
    let pid = Pid::from_raw(process.pid).context("a process with the number 0")?;
    kill_process(pid, signal).context("failed to end a machine")
}

fn is_ready(layout: &Layout, nodes: u8) -> bool {
    let nodes: Vec<String> = (0..nodes).map(|n| format!("node/node-{n}")).collect();
    let mut arguments = vec!["wait", "--for=condition=Ready", "--timeout=1s"];
    arguments.extend(nodes.iter().map(String::as_str));
    ask(layout, &arguments).is_ok() && dns_answers(layout).is_ok()
}

fn dns_answers(layout: &Layout) -> Result<String> {
    let path = "deployment/coredns";
    ask(
        layout,
        &[
            "-n",
            "kube-system",
            "wait",
            "--for=condition=Available",
            "--timeout=1s",
            path,
        ],
    )
}

fn wait_until_ready(layout: &Layout, nodes: u8) -> Result<()> {
    step("API server", || {
        while_alive(layout, Machine::Control, "the API server answers", || {
            ask(layout, &["get", "--raw", "/readyz"])
        })
    })?;
    apply(
        layout,
        &[],
        include_str!("../../cluster/manifests/coredns.yaml"),
    )?;
    step("nodes", || {
        (0..nodes).try_for_each(|node| wait_for_node(layout, node))
    })?;
    step("cluster DNS", || {
        while_alive(layout, Machine::Node(0), "cluster DNS", || {
            dns_answers(layout)
        })?;
        // Pods of the namespace cannot be created before.
        let account = ["get", "serviceaccount", "default"];
        while_alive(
            layout,
            Machine::Control,
            "the default service account",
            || ask(layout, &account),
        )
    })
}

fn wait_for_node(layout: &Layout, node: u8) -> Result<()> {
    let machine = Machine::Node(node);
    // A node that was off a moment ago may still pass for Ready.
    wait_until_started(layout, machine)?;
    let name = format!("node/{machine}");
    while_alive(layout, machine, &name, || {
        ask(
            layout,
            &["wait", "--for=condition=Ready", "--timeout=1s", &name],
        )
    })
}

/// Waits for an answer, but no longer than the machine lives that is to give it.
fn while_alive(
    layout: &Layout,
    machine: Machine,
    what: &str,
    look: impl Fn() -> Result<String>,
) -> Result<()> {
    until(what, CLUSTER_STARTS, || {
        if init(layout, machine).is_none() {
            bail!("{machine} has ended");
        }
        Ok(unless_failed(look().map(drop)))
    })
}
