//! The control plane's settings: arguments of etcd, API server, controller manager and scheduler,
//! and the files they read. Pure, but for [`write_files`].

use std::fs;

use anyhow::Result;

use super::files::At;
use super::network::{CONTROL, SERVICES, api_server as api_server_url, resolv_conf};
use super::pki::{Authority, Subject, key_pair, write_secret};
use super::{Layout, Machine, kubeconfig};

const ETCD: &str = "http://127.0.0.1:2379";

/// Without fsync: the state does not outlive a crash anyway, and a slow disk would show in tests.
pub(super) fn etcd(layout: &Layout) -> Vec<String> {
    vec![
        format!(
            "--data-dir={}",
            layout.machine(Machine::Control).join("etcd").display()
        ),
        "--unsafe-no-fsync".to_owned(),
        "--log-level=warn".to_owned(),
        format!("--listen-client-urls={ETCD}"),
        format!("--advertise-client-urls={ETCD}"),
        "--listen-peer-urls=http://127.0.0.1:2380".to_owned(),
    ]
}

pub(super) fn api_server(layout: &Layout) -> Vec<String> {
    let pki = |file: &str| layout.pki(file).display().to_string();
    vec![
        format!("--etcd-servers={ETCD}"),
        "--bind-address=0.0.0.0".to_owned(),
        format!("--advertise-address={CONTROL}"),
        format!("--client-ca-file={}", pki("ca.crt")),
        format!("--tls-cert-file={}", pki("apiserver.crt")),
        format!("--tls-private-key-file={}", pki("apiserver.key")),
        format!("--kubelet-client-certificate={}", pki("admin.crt")),
        format!("--kubelet-client-key={}", pki("admin.key")),
        format!("--kubelet-certificate-authority={}", pki("ca.crt")),
        // Nodes have no name that the API server could resolve.
        "--kubelet-preferred-address-types=InternalIP".to_owned(),
        // Webhooks are called at pod addresses: no kube-proxy runs beside the API server.
        "--enable-aggregator-routing=true".to_owned(),
        "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
        format!("--service-account-signing-key-file={}", pki("sa.key")),
        format!("--service-account-key-file={}", pki("sa.pub")),
        // A node can be made to say that it is of another architecture.
        "--feature-gates=MutatingAdmissionPolicy=true".to_owned(),
        "--runtime-config=admissionregistration.k8s.io/v1beta1=true".to_owned(),
        format!("--service-cluster-ip-range={SERVICES}"),
        "--authorization-mode=Node,RBAC".to_owned(),
        "--enable-admission-plugins=NodeRestriction".to_owned(),
        format!(
            "--audit-policy-file={}",
            layout.state.join("audit-policy.yaml").display()
        ),
        format!("--audit-log-path={}", layout.audit_log().display()),
        // A line is on disk before the answer is sent, so that a test that has seen the answer
        // finds the line. One rotation bounds the disk; no test writes that much.
        "--audit-log-mode=blocking-strict".to_owned(),
        "--audit-log-maxsize=200".to_owned(),
        "--audit-log-maxbackup=1".to_owned(),
    ]
}

/// A lost node is noticed after 16 seconds instead of 50.
pub(super) fn controller_manager(layout: &Layout) -> Vec<String> {
    let pki = |file: &str| layout.pki(file).display().to_string();
    vec![
        format!(
            "--kubeconfig={}",
            layout.kubeconfig("controller-manager").display()
        ),
        "--leader-elect=false".to_owned(),
        format!("--service-account-private-key-file={}", pki("sa.key")),
        format!("--root-ca-file={}", pki("ca.crt")),
        "--use-service-account-credentials=true".to_owned(),
        format!("--cluster-signing-cert-file={}", pki("ca.crt")),
        format!("--cluster-signing-key-file={}", pki("ca.key")),
        "--node-monitor-period=2s".to_owned(),
        "--node-monitor-grace-period=15s".to_owned(),
    ]
}

pub(super) fn scheduler(layout: &Layout) -> Vec<String> {
    vec![
        format!("--kubeconfig={}", layout.kubeconfig("scheduler").display()),
        "--leader-elect=false".to_owned(),
    ]
}

/// Everything that machines read when they start: certificates, kubeconfigs, DNS, audit policy.
pub(super) fn write_files(layout: &Layout) -> Result<()> {
    for folder in ["pki", "log", "certs.d"] {
        let folder = layout.state.join(folder);
        fs::create_dir_all(&folder).at("create", &folder)?;
    }
    let authority = Authority::new("firn-e2e cluster")?;
    write_secret(&layout.pki("ca.crt"), &authority.certificate)?;
    write_secret(&layout.pki("ca.key"), &authority.key())?;
    let (private, public) = key_pair()?;
    write_secret(&layout.pki("sa.key"), &private)?;
    write_secret(&layout.pki("sa.pub"), &public)?;
    let mut subjects = vec![
        ("apiserver".to_owned(), Subject::api_server()),
        (
            "admin".to_owned(),
            Subject::user("admin", Some("system:masters")),
        ),
        (
            "controller-manager".to_owned(),
            Subject::user("system:kube-controller-manager", None),
        ),
        (
            "scheduler".to_owned(),
            Subject::user("system:kube-scheduler", None),
        ),
        ("proxy".to_owned(), Subject::user("system:kube-proxy", None)),
    ];
    subjects.extend((0..Machine::NODES_MAX).map(|n| (format!("kubelet-{n}"), Subject::kubelet(n))));
    for (name, subject) in subjects {
        let identity = authority.issue(&subject)?;
        write_secret(&layout.pki(&format!("{name}.crt")), &identity.certificate)?;
        write_secret(&layout.pki(&format!("{name}.key")), &identity.key())?;
        let config =
            kubeconfig::render(&api_server_url(), &authority.certificate, &name, &identity);
        write_secret(&layout.kubeconfig(&name), &config)?;
    }
    for (file, text) in [
        ("resolv.conf", resolv_conf().as_str()),
        (
            "audit-policy.yaml",
            include_str!("../../cluster/manifests/audit-policy.yaml"),
        ),
    ] {
        let file = layout.state.join(file);
        fs::write(&file, text).at("write", &file)?;
    }
    Ok(())
}
