//! Certificates: an authority for the cluster and one for the services in it. Made anew for each
//! start; nothing of them outlives the state folder.

use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};

use super::files::At;
use super::network::{API_SERVICE, CONTROL, node_address};

/// A certificate and its key, as PEM.
#[derive(Debug)]
pub(super) struct Identity {
    pub(super) certificate: String,
    key: KeyPair,
}

impl Identity {
    /// The private key, PKCS #8.
    pub(super) fn key(&self) -> String {
        self.key.serialize_pem()
    }
}

/// Something that certificates are signed by.
#[derive(Debug)]
pub(super) struct Authority {
    pub(super) certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

/// Whom a certificate is for, and the names it is valid for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Subject {
    pub(super) name: String,
    /// Kubernetes takes it for the group.
    pub(super) group: Option<&'static str>,
    pub(super) dns: Vec<String>,
    pub(super) addresses: Vec<Ipv4Addr>,
}

impl Subject {
    /// A client without names: Kubernetes' own components and the administrator.
    pub(super) fn user(name: &str, group: Option<&'static str>) -> Self {
        Self {
            name: name.to_owned(),
            group,
            ..Self::default()
        }
    }

    /// The API server, under every name and address that something calls it by.
    pub(super) fn api_server() -> Self {
        let dns = [
            "kubernetes.default.svc",
            "kubernetes.default.svc.cluster.local",
            "localhost",
        ];
        Self {
            name: "kube-apiserver".to_owned(),
            dns: dns.map(str::to_owned).into(),
            addresses: vec![Ipv4Addr::LOCALHOST, CONTROL, API_SERVICE],
            ..Self::default()
        }
    }

    /// A kubelet, which is client and server; the name is what Node authorization goes by.
    pub(super) fn kubelet(node: u8) -> Self {
        Self {
            name: format!("system:node:node-{node}"),
            group: Some("system:nodes"),
            dns: vec![format!("node-{node}")],
            addresses: vec![node_address(node)],
        }
    }
}

impl Authority {
    /// A new one.
    pub(super) fn new(name: &str) -> Result<Self> {
        let key = KeyPair::generate().context("failed to make a key")?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::CrlSign,
            KeyUsagePurpose::DigitalSignature,
        ];
        let certificate = params
            .self_signed(&key)
            .with_context(|| format!("failed to sign {name:?}"))?
            .pem();
        Ok(Self {
            certificate,
            issuer: Issuer::new(params, key),
        })
    }

    /// A certificate for `subject`, as client and server.
    pub(super) fn issue(&self, subject: &Subject) -> Result<Identity> {
        let name = &subject.name;
        let mut params = CertificateParams::new(subject.dns.clone())
            .with_context(|| format!("failed to understand the names of {name:?}"))?;
        params.subject_alt_names.extend(
            subject
                .addresses
                .iter()
                .map(|address| SanType::IpAddress((*address).into())),
        );
        params.use_authority_key_identifier_extension = true;
        params.distinguished_name = rcgen::DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::CommonName, name.as_str());
        if let Some(group) = subject.group {
            params
                .distinguished_name
                .push(DnType::OrganizationName, group);
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let key = KeyPair::generate().context("failed to make a key")?;
        let certificate = params
            .signed_by(&key, &self.issuer)
            .with_context(|| format!("failed to sign {name:?}"))?
            .pem();
        Ok(Identity { certificate, key })
    }

    /// The private key, PKCS #8. The controller manager signs with it.
    pub(super) fn key(&self) -> String {
        self.issuer.key().serialize_pem()
    }
}

/// A key pair without a certificate: private and public part, as PEM. Service accounts use it.
pub(super) fn key_pair() -> Result<(String, String)> {
    let key = KeyPair::generate().context("failed to make a key")?;
    Ok((key.serialize_pem(), key.public_key_pem()))
}

/// Writes something that only root may read.
pub(super) fn write_secret(file: &Path, text: &str) -> Result<()> {
    use std::io::Write;
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    options
        .open(file)
        .and_then(|mut open| open.write_all(text.as_bytes()))
        .at("write", file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kubelet_is_named_as_node_authorization_demands() {
        let subject = Subject::kubelet(1);
        assert_eq!(subject.name, "system:node:node-1");
        assert_eq!(subject.group, Some("system:nodes"));
        assert_eq!(subject.addresses, [Ipv4Addr::new(10, 89, 0, 11)]);
    }

    #[test]
    fn the_api_server_is_reached_by_service_and_by_address() {
        let subject = Subject::api_server();
        assert!(subject.dns.contains(&"kubernetes.default.svc".to_owned()));
        assert!(subject.addresses.contains(&Ipv4Addr::new(10, 96, 0, 1)));
        assert!(subject.addresses.contains(&Ipv4Addr::new(10, 89, 0, 1)));
    }

    #[test]
    fn a_certificate_is_issued_with_another_key_each_time() {
        let authority = Authority::new("test").unwrap();
        let [a, b] = ["a", "b"].map(|name| authority.issue(&Subject::user(name, None)).unwrap());
        assert!(a.certificate.starts_with("-----BEGIN CERTIFICATE-----"));
        assert!(a.key().starts_with("-----BEGIN PRIVATE KEY-----"));
        assert_ne!(a.key(), b.key());
    }

    #[test]
    fn a_secret_is_readable_by_its_owner_only() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("key");
        write_secret(&file, "text").unwrap();
        assert_eq!(
            fs::metadata(&file).unwrap().permissions().mode() & 0o777,
            0o600
        );
    }
}
