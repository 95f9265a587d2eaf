//! The long-running programs of the cluster: which there are, where, and how they are started,
//! found and signalled.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use super::cgroup::Group;
use super::files::At;
use super::{Layout, Machine, control_plane, node};

/// One long-running program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Component {
    /// Control: the store.
    Etcd,
    /// Control: kube-apiserver.
    Apiserver,
    /// Control: kube-controller-manager.
    ControllerManager,
    /// Control: kube-scheduler.
    Scheduler,
    /// Node: the container runtime.
    Containerd,
    /// Node: the kubelet.
    Kubelet,
    /// Node: kube-proxy.
    Proxy,
}

impl Component {
    /// The components of a machine, in the order of their start.
    pub fn of(machine: Machine) -> &'static [Self] {
        match machine {
            Machine::Control => &[
                Self::Etcd,
                Self::Apiserver,
                Self::ControllerManager,
                Self::Scheduler,
            ],
            Machine::Node(_) => &[Self::Containerd, Self::Kubelet, Self::Proxy],
        }
    }

    /// As in `kube NAME` and in the names of log files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::Apiserver => "apiserver",
            Self::ControllerManager => "controller-manager",
            Self::Scheduler => "scheduler",
            Self::Containerd => "containerd",
            Self::Kubelet => "kubelet",
            Self::Proxy => "proxy",
        }
    }

    /// Program and arguments.
    fn command_line(self, layout: &Layout, machine: Machine) -> Result<Vec<String>> {
        let (program, arguments) = match (self, machine) {
            (Self::Containerd, Machine::Node(_)) => {
                ("containerd", node::containerd(layout, machine))
            }
            (Self::Kubelet, Machine::Node(n)) => ("kube", node::kubelet(layout, n)),
            (Self::Proxy, Machine::Node(_)) => ("kube", node::proxy(layout, machine)),
            (Self::Etcd, Machine::Control) => ("kube", control_plane::etcd(layout)),
            (Self::Apiserver, Machine::Control) => ("kube", control_plane::api_server(layout)),
            (Self::ControllerManager, Machine::Control) => {
                ("kube", control_plane::controller_manager(layout))
            }
            (Self::Scheduler, Machine::Control) => ("kube", control_plane::scheduler(layout)),
            _ => bail!(
                "{machine} has no {}: it has {:?}",
                self.name(),
                Self::of(machine)
            ),
        };
        let mut line = vec![layout.program(program).display().to_string()];
        if program == "kube" {
            line.push(self.name().to_owned());
        }
        line.extend(arguments);
        Ok(line)
    }

    /// Starts it and returns at once. To be called inside the machine.
    pub(super) fn start(self, layout: &Layout, machine: Machine) -> Result<()> {
        let line = self.command_line(layout, machine)?;
        let log = layout.log(&format!("{machine}-{}", self.name()));
        let out = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .at("open", &log)?;
        let err = out.try_clone().at("use twice", &log)?;
        Command::new("setsid")
            .args(&line)
            .env("PATH", search_path(layout))
            // containerd unpacks there; /tmp is the machine's own and may be small.
            .env("TMPDIR", "/var/tmp")
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .spawn()
            .with_context(|| format!("failed to start {} on {machine}", self.name()))?;
        Ok(())
    }

    /// Its process, as this PID namespace numbers it; `None` if it does not run.
    pub(super) fn find(self, layout: &Layout, group: &Group, machine: Machine) -> Option<i32> {
        let line = self.command_line(layout, machine).ok()?;
        group.processes().into_iter().find(|pid| {
            let running = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let running: Vec<&[u8]> = running.split(|byte| *byte == 0).collect();
            // The whole line: two nodes' kubelets differ in the last arguments only.
            line.iter().map(|part| Some(part.as_bytes())).eq(running
                .get(..line.len())
                .unwrap_or_default()
                .iter()
                .map(|part| Some(*part)))
        })
    }
}

/// The cluster's programs first, for containerd calls runc and a shim by name.
pub(super) fn search_path(layout: &Layout) -> String {
    let own = std::env::var_os("PATH").unwrap_or_default();
    format!("{}:{}", layout.bin().display(), Path::new(&own).display())
}
