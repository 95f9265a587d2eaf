//! The embedded cluster by hand: start it, look into it, break it, end it.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use firn_e2e::cluster::component::Component;
use firn_e2e::cluster::{Layout, Machine, lifecycle, machine, relay, services, target};
use firn_e2e::story;
use rustix::process::Signal;

/// A disposable Kubernetes on this machine, in namespaces of its own. Needs root.
#[derive(Debug, Parser)]
#[command(
    after_help = "Everything is written below FIRN_CACHE (default ~/.cache/firn); \
                        `down` removes all but what is slow to make again."
)]
struct Arguments {
    #[command(subcommand)]
    command: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Build the cluster's programs and images into the cache.
    Build,
    /// Fetch what stories of an arm64 node need: QEMU and a busybox. In the cluster's network there
    /// is no mirror.
    Arm64,
    /// Start the cluster with Git server and registries, repair it, or find it well.
    Up {
        /// How many nodes it has at least.
        #[arg(long, default_value_t = 1)]
        nodes: u8,
        /// Without Git server and registries.
        #[arg(long)]
        bare: bool,
    },
    /// Start the Git server and the registries, or find them well.
    Services,
    /// End the cluster; the cache stays.
    Down,
    /// What runs.
    Status,
    /// Print the last lines of every log.
    Logs,
    /// Print the path of the administrator's kubeconfig, for use outside: `export KUBECONFIG=$(…)`.
    /// Inside, `exec` has set it already.
    Kubeconfig,
    /// Run kubectl as administrator.
    #[command(disable_help_flag = true)]
    Kubectl {
        /// What kubectl is given.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Run a command inside: in the cluster's network with its DNS, or in a node.
    Exec {
        /// `control` (only the network and DNS are the cluster's) or `node-N` (all is).
        #[arg(default_value = "control", value_name = "MACHINE")]
        machine: Machine,
        /// Let the command's tests take the cluster for somebody else's.
        #[arg(long)]
        as_foreign: bool,
        /// The command and its arguments.
        #[arg(last = true, required = true)]
        command: Vec<OsString>,
    },
    /// Print the variables by which tests take the cluster for somebody else's.
    AsForeign,
    /// Add a node, or bring one back.
    NodeUp {
        /// Its number.
        node: u8,
    },
    /// Cut a node's power.
    NodeOff {
        /// Its number.
        node: u8,
    },
    /// Start a component that has ended.
    Start {
        /// Where.
        machine: Machine,
        /// What.
        component: Component,
    },
    /// Kill a component, or stop it and let it go on.
    Signal {
        /// Where.
        machine: Machine,
        /// What.
        component: Component,
        /// How.
        #[arg(default_value = "kill")]
        signal: Fault,
    },
    /// What the program calls itself for in the cluster's namespaces.
    #[command(hide = true, subcommand)]
    Inside(Inside),
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Fault {
    Kill,
    Stop,
    Cont,
}

#[derive(Debug, Subcommand)]
enum Inside {
    Launch {
        machine: Machine,
    },
    Run {
        machine: Machine,
    },
    Start {
        machine: Machine,
        component: Component,
    },
    Probe {
        address: String,
    },
    Exec {
        command: Vec<OsString>,
    },
    LaunchRelay,
    Relay,
}

fn main() -> Result<ExitCode> {
    let layout = Layout::from_env()?;
    match Arguments::parse().command {
        Action::Build => lifecycle::build_all(&layout)?,
        Action::Arm64 => story::arm64::fetch(&layout.cache)?,
        Action::Up { nodes, bare } => {
            lifecycle::up(&layout, nodes)?;
            if !bare {
                services::up(&layout)?;
            }
        }
        Action::Services => drop(services::up(&layout)?),
        Action::Down => lifecycle::down(&layout)?,
        Action::Status => status(&layout)?,
        Action::Logs => print(&lifecycle::logs(&layout)),
        Action::Kubeconfig => print(&kubeconfig(&layout)?),
        Action::Kubectl { arguments } => become_it(lifecycle::kubectl(&layout)?.args(arguments))?,
        Action::Exec {
            machine,
            as_foreign,
            command,
        } => {
            let mut command = lifecycle::exec(&layout, machine, &command)?;
            if as_foreign {
                command.envs(target::as_foreign(&layout)?);
            }
            become_it(&mut command)?;
        }
        Action::AsForeign => {
            for (name, value) in target::as_foreign(&layout)? {
                print(&format!("{name}={value}"));
            }
        }
        Action::NodeUp { node } => lifecycle::node_up(&layout, node)?,
        Action::NodeOff { node } => lifecycle::node_off(&layout, node)?,
        Action::Start { machine, component } => lifecycle::start(&layout, machine, component)?,
        Action::Signal {
            machine,
            component,
            signal,
        } => {
            let signal = match signal {
                Fault::Kill => Signal::KILL,
                Fault::Stop => Signal::STOP,
                Fault::Cont => Signal::CONT,
            };
            lifecycle::signal(&layout, machine, component, signal)?;
        }
        Action::Inside(inside) => run_inside(&layout, inside)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn run_inside(layout: &Layout, inside: Inside) -> Result<()> {
    match inside {
        Inside::Launch { machine } => machine::launch(layout, machine),
        Inside::Run { machine } => machine::run(layout, machine),
        Inside::Start { machine, component } => {
            machine::start_component(layout, machine, component)
        }
        Inside::Probe { address } => services::probe(&address),
        Inside::Exec { command } => {
            machine::use_cluster_dns(layout)?;
            let (program, arguments) = command.split_first().context("an empty command")?;
            become_it(Command::new(program).args(arguments))
        }
        Inside::LaunchRelay => relay::launch(layout),
        Inside::Relay => relay::run(layout),
    }
}

/// Returns only if that fails.
fn become_it(command: &mut Command) -> Result<()> {
    let error = command.exec();
    Err(error).with_context(|| format!("failed to run {}", command.get_program().display()))
}

fn kubeconfig(layout: &Layout) -> Result<String> {
    relay::status(layout).context("the cluster is not up: firn-cluster up")?;
    Ok(layout.kubeconfig_outside().display().to_string())
}

fn status(layout: &Layout) -> Result<()> {
    let machines = lifecycle::status(layout)?;
    if machines.is_empty() {
        print("no cluster is up");
    }
    for (machine, components) in machines {
        let states: Vec<String> = components
            .iter()
            .map(|(component, runs)| format!("{} {}", component.name(), state(*runs)))
            .collect();
        print(&format!("{machine}: {}", states.join(", ")));
    }
    if let Some((address, runs)) = relay::status(layout) {
        print(&format!("relay: {address} {}", state(runs)));
    }
    Ok(())
}

fn state(runs: bool) -> &'static str {
    if runs { "runs" } else { "HAS ENDED" }
}

#[expect(
    clippy::print_stdout,
    reason = "what was asked for goes to standard output"
)]
fn print(line: &str) {
    println!("{line}");
}
