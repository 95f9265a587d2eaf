//! A node's settings: what containerd, kubelet, kube-proxy and the network plugins read. Pure, but
//! for [`write_files`] and [`import_images`]. Reasons for most values: without them a node does not
//! start in a namespace, or notices things half a minute later than a test wants to wait.

use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use serde_json::json;

use super::command::output;
use super::files::At;
use super::images::PAUSE;
use super::network::{DNS, DOMAIN, PODS, node_address, node_pods};
use super::{Layout, Machine};
use crate::wait::{unless_failed, until};

/// containerd reads its database and loads plugins.
const CONTAINERD_STARTS: Duration = Duration::from_secs(30);

pub(super) fn containerd(layout: &Layout, machine: Machine) -> Vec<String> {
    vec![format!(
        "--config={}",
        layout.machine(machine).join("containerd.toml").display()
    )]
}

pub(super) fn kubelet(layout: &Layout, node: u8) -> Vec<String> {
    let machine = Machine::Node(node);
    vec![
        format!(
            "--config={}",
            layout.machine(machine).join("kubelet.yaml").display()
        ),
        format!(
            "--kubeconfig={}",
            layout.kubeconfig(&format!("kubelet-{node}")).display()
        ),
        format!("--hostname-override={machine}"),
        format!("--node-ip={}", node_address(node)),
    ]
}

pub(super) fn proxy(layout: &Layout, machine: Machine) -> Vec<String> {
    vec![format!(
        "--config={}",
        layout.machine(machine).join("proxy.yaml").display()
    )]
}

/// Writes all settings of a node. `pods` is the control group of its pods.
pub(super) fn write_files(layout: &Layout, node: u8, pods: &str) -> Result<()> {
    let machine = Machine::Node(node);
    let folder = layout.machine(machine);
    let cni = folder.join("cni");
    fs::create_dir_all(&cni).at("create", &cni)?;
    for (name, text) in [
        ("cni/10-pods.conflist", cni_config(node)),
        ("containerd.toml", containerd_config(layout, machine)),
        ("kubelet.yaml", kubelet_config(layout, node, pods)),
        ("proxy.yaml", proxy_config(layout, machine)),
    ] {
        let file = folder.join(name);
        fs::write(&file, text).at("write", &file)?;
    }
    Ok(())
}

/// Waits for containerd and gives it all image archives.
pub(super) fn import_images(layout: &Layout) -> Result<()> {
    let ctr = || {
        let mut command = Command::new(layout.program("ctr"));
        command.args(["--namespace", "k8s.io"]);
        command
    };
    until("containerd answers", CONTAINERD_STARTS, || {
        Ok(unless_failed(output(ctr().arg("version")).map(drop)))
    })?;
    let folder = layout.images();
    let archives = fs::read_dir(&folder).at("list", &folder)?;
    for archive in archives {
        let archive = archive.at("list", &folder)?.path();
        output(ctr().args(["images", "import", "--local"]).arg(archive))?;
    }
    Ok(())
}

/// `ptp`, not `bridge`: each pod is routed, so that answers of a Service pass kube-proxy's rules
/// also between pods of one node.
fn cni_config(node: u8) -> String {
    let config = json!({
        "cniVersion": "1.0.0",
        "name": "pods",
        "plugins": [{"type": "ptp", "ipam": {
            "type": "host-local",
            "ranges": [[{"subnet": node_pods(node)}]],
            "routes": [{"dst": "0.0.0.0/0"}],
            "dataDir": "/run/cni",
        }}],
    });
    format!("{config:#}\n")
}

/// `restrict_oom_score_adj`: in a container without `CAP_SYS_RESOURCE` pods do not start otherwise.
fn containerd_config(layout: &Layout, machine: Machine) -> String {
    format!(
        "\
version = 3
[plugins.'io.containerd.cri.v1.images']
  snapshotter = \"overlayfs\"
  [plugins.'io.containerd.cri.v1.images'.pinned_images]
    sandbox = \"docker.io/{PAUSE}\"
  [plugins.'io.containerd.cri.v1.images'.registry]
    config_path = \"{registries}\"
[plugins.'io.containerd.cri.v1.runtime']
  restrict_oom_score_adj = true
  [plugins.'io.containerd.cri.v1.runtime'.cni]
    bin_dirs = [\"{bin}\"]
    conf_dir = \"{cni}\"
    use_internal_loopback = true
",
        registries = layout.registries().display(),
        bin = layout.bin().display(),
        cni = layout.machine(machine).join("cni").display(),
    )
}

fn kubelet_config(layout: &Layout, node: u8, pods: &str) -> String {
    let pki = |file: String| layout.pki(&file);
    let config = json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "x509": {"clientCAFile": pki("ca.crt".to_owned())},
            "webhook": {"enabled": true},
            "anonymous": {"enabled": false},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": pki(format!("kubelet-{node}.crt")),
        "tlsPrivateKeyFile": pki(format!("kubelet-{node}.key")),
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": pods,
        // It refuses to start on such machines otherwise.
        "failCgroupV1": false,
        "failSwapOn": false,
        "clusterDNS": [DNS],
        "clusterDomain": DOMAIN,
        // Else pods with dnsPolicy Default inherit a resolver that they do not reach.
        "resolvConf": "",
        "volumePluginDir": "/var/lib/kubelet/volumeplugins",
        // The disk is the machine's, and may be fuller than a node's should be.
        "evictionHard": {"nodefs.available": "1%", "imagefs.available": "1%"},
        "imageGCHighThresholdPercent": 100,
        "nodeStatusUpdateFrequency": "5s",
        "nodeStatusReportFrequency": "10s",
        // With the controller manager's grace period: a lost node shows after 16 s, not 50.
        "nodeLeaseDurationSeconds": 12,
        // A full volume is noticed after 11 s, not 30 to 55.
        "volumeStatsAggPeriod": "2s",
        "makeIPTablesUtilChains": false,
        "shutdownGracePeriod": "0s",
    });
    format!("{config:#}\n")
}

/// With `clusterCIDR`, what comes from outside the pods' range is masqueraded: so the control
/// machine, where tests run, reaches Services.
fn proxy_config(layout: &Layout, machine: Machine) -> String {
    let config = json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "clusterCIDR": PODS,
        "clientConnection": {"kubeconfig": layout.kubeconfig("proxy")},
        "hostnameOverride": machine.to_string(),
        // The limit is the machine's own, and not to be written from a namespace.
        "conntrack": {"maxPerCore": 0},
    });
    format!("{config:#}\n")
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn layout() -> Layout {
        Layout {
            cache: "/cache".into(),
            state: "/state".into(),
        }
    }

    #[test]
    fn two_nodes_differ_in_everything_they_must_not_share() {
        let read = |node, pods| -> Value {
            serde_json::from_str(&kubelet_config(&layout(), node, pods)).unwrap()
        };
        let [a, b] = [read(0, "/firn-x/node-0"), read(1, "/firn-x/node-1")];
        for field in ["cgroupRoot", "tlsCertFile", "tlsPrivateKeyFile"] {
            assert_ne!(a[field], b[field], "{field}");
        }
        assert_ne!(cni_config(0), cni_config(1));
        assert_ne!(kubelet(&layout(), 0), kubelet(&layout(), 1));
        assert_ne!(
            containerd_config(&layout(), Machine::Node(0)),
            containerd_config(&layout(), Machine::Node(1))
        );
    }

    #[test]
    fn containerd_asks_the_folder_of_registries_and_keeps_its_pause_image() {
        let config = containerd_config(&layout(), Machine::Node(0));
        assert!(config.contains("config_path = \"/state/certs.d\"\n"));
        assert!(config.contains("sandbox = \"docker.io/firn-e2e/pause:1\"\n"));
        assert!(config.contains("bin_dirs = [\"/state/bin\"]\n"));
    }
}
