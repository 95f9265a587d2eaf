//! Kubeconfig files, complete in themselves. Pure.

use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::pki::Identity;

/// How `user` with `identity` reaches `server`, whose authority is `authority` (PEM). JSON, which
/// is YAML too.
pub(super) fn render(server: &str, authority: &str, user: &str, identity: &Identity) -> String {
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "firn-e2e", "cluster": {
            "server": server,
            "certificate-authority-data": STANDARD.encode(authority),
        }}],
        "users": [{"name": user, "user": {
            "client-certificate-data": STANDARD.encode(&identity.certificate),
            "client-key-data": STANDARD.encode(identity.key()),
        }}],
        "contexts": [{"name": "firn-e2e", "context": {"cluster": "firn-e2e", "user": user}}],
        "current-context": "firn-e2e",
    });
    format!("{config:#}\n")
}

/// A rendered file with another way to the same server.
pub(super) fn with_server(config: &str, server: &str) -> Result<String> {
    let mut config: Value = serde_json::from_str(config).context("no JSON")?;
    let place = config
        .pointer_mut("/clusters/0/cluster/server")
        .context("no server in it")?;
    *place = server.into();
    Ok(format!("{config:#}\n"))
}

#[cfg(test)]
mod tests {
    use super::super::pki::{Authority, Subject};
    use super::*;

    #[test]
    fn another_server_is_all_that_differs() {
        let authority = Authority::new("test").unwrap();
        let admin = authority.issue(&Subject::user("admin", None)).unwrap();
        let inside = render("https://10.89.0.1:6443", "PEM", "admin", &admin);
        let outside = with_server(&inside, "https://127.0.0.1:4242").unwrap();
        assert!(outside.contains("https://127.0.0.1:4242"));
        let back = with_server(&outside, "https://10.89.0.1:6443").unwrap();
        assert_eq!(back, inside);
        assert!(with_server("{}", "https://127.0.0.1:4242").is_err());
    }
}
