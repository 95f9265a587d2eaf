//! Addresses and links. Pure, but for the functions at the end that call `ip`.
//!
//! The nodes hang on a bridge in the control machine's namespace, which routes each node's pods to
//! it and Services to node-0. Nothing of it is seen from outside the namespaces; what leads in is
//! [`super::relay`].

use std::fs;
use std::net::Ipv4Addr;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use super::command::output;
use super::files::At;
use crate::wait::{unless_failed, until};

/// The control machine, where the API server listens.
pub const CONTROL: Ipv4Addr = Ipv4Addr::new(10, 89, 0, 1);
/// The API server's port there.
pub(super) const API_SERVER_PORT: u16 = 6443;
/// The first address of the Service range, which Kubernetes gives to the API server.
pub const API_SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);
/// Cluster DNS; `manifests/coredns.yaml` says the same.
pub const DNS: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
/// Service addresses.
pub const SERVICES: &str = "10.96.0.0/24";
/// Pod addresses of all nodes.
pub const PODS: &str = "10.244.0.0/16";
/// What cluster DNS answers for.
pub const DOMAIN: &str = "cluster.local";

const BRIDGE: &str = "firn0";

/// The address of a node.
pub fn node_address(node: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 89, 0, 10 + node)
}

/// The addresses of a node's pods.
pub fn node_pods(node: u8) -> String {
    format!("10.244.{node}.0/24")
}

/// Makes containerd and tests resolve Service names as pods do.
pub(super) fn resolv_conf() -> String {
    format!("nameserver {DNS}\nsearch {DOMAIN}\n")
}

/// Where the API server is reached from within the cluster's network.
pub(super) fn api_server() -> String {
    format!("https://{CONTROL}:{API_SERVER_PORT}")
}

fn ip(arguments: &str) -> Result<()> {
    output(Command::new("ip").args(arguments.split(' '))).map(drop)
}

/// In each machine's network namespace: loopback, and forwarding without advice to go elsewhere.
pub(super) fn prepare() -> Result<()> {
    ip("link set lo up")?;
    for (setting, value) in [
        ("ip_forward", "1"),
        ("conf/all/send_redirects", "0"),
        ("conf/default/send_redirects", "0"),
    ] {
        let file = format!("/proc/sys/net/ipv4/{setting}");
        fs::write(&file, value).at("write", &file)?;
    }
    Ok(())
}

/// In the control machine.
pub(super) fn make_bridge() -> Result<()> {
    ip(&format!("link add {BRIDGE} type bridge"))?;
    ip(&format!("addr add {CONTROL}/24 dev {BRIDGE}"))?;
    ip(&format!("link set {BRIDGE} up"))?;
    ip(&format!("route add {SERVICES} via {}", node_address(0)))
}

/// In a node, once the other end has been plugged in.
pub(super) fn configure_node(node: u8) -> Result<()> {
    until(
        "the node's network interface is there",
        Duration::from_secs(10),
        || Ok(unless_failed(ip("link show eth0"))),
    )?;
    ip(&format!("addr add {}/24 dev eth0", node_address(node)))?;
    ip("link set eth0 up")?;
    ip(&format!("route add default via {CONTROL}"))
}

/// From outside: a cable between the bridge and a node, given the first processes of both.
pub(super) fn plug_in(control: i32, node: u8, node_pid: i32) -> Result<()> {
    let in_control = |arguments: String| {
        let mut command = Command::new("nsenter");
        command
            .args(["-t", &control.to_string(), "-n", "ip"])
            .args(arguments.split(' '));
        output(&mut command).map(drop)
    };
    // The kernel takes a moment to remove the cable of a node that was switched off.
    until("the old cable is gone", Duration::from_secs(10), || {
        let link = format!("link add node-{node} type veth peer name eth0 netns {node_pid}");
        Ok(unless_failed(in_control(link)))
    })?;
    in_control(format!("link set node-{node} master {BRIDGE} up"))?;
    in_control(format!(
        "route replace {} via {}",
        node_pods(node),
        node_address(node)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_addresses_are_those_the_manifests_name() {
        let coredns = include_str!("../../cluster/manifests/coredns.yaml");
        assert!(coredns.contains(&format!("clusterIP: {DNS}\n")));
        assert!(coredns.contains(&format!("kubernetes {DOMAIN} ")));
        assert_eq!(node_address(1).to_string(), "10.89.0.11");
        assert_eq!(node_pods(1), "10.244.1.0/24");
    }
}
