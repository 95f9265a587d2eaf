//! Kubeconfig files, complete in themselves. Pure.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

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
