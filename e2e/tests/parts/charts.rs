//! What the charts render to, without a cluster: golden files, refusals, and rules that hold for
//! every set of values. Golden files are rewritten by `UPDATE_EXPECT=1`.

use std::path::PathBuf;

use expect_test::expect_file;
use firn_e2e::charts::{Helm, repository};
use serde_yaml_ng::Value;

/// Sets of values, each with its golden file beside it.
const SETS: &[&str] = &["minimal", "namespaced", "everything"];

fn values(set: &str) -> PathBuf {
    repository().join(format!("e2e/tests/parts/charts/{set}.values.yaml"))
}

fn render(set: &str) -> String {
    let values = values(set);
    let values = values.to_str().unwrap();
    Helm::find()
        .unwrap()
        .template("firn", &["--values", values])
        .unwrap()
}

/// Every object of a manifest, without the empty documents.
fn objects(manifest: &str) -> Vec<Value> {
    use serde::Deserialize as _;
    serde_yaml_ng::Deserializer::from_str(manifest)
        .map(|document| Value::deserialize(document).unwrap())
        .filter(|object| !object.is_null())
        .collect()
}

fn text<'a>(object: &'a Value, path: &[&str]) -> &'a str {
    at(object, path).as_str().unwrap_or_default()
}

fn at<'a>(object: &'a Value, path: &[&str]) -> &'a Value {
    path.iter()
        .fold(object, |value, key| value.get(key).unwrap_or(&Value::Null))
}

fn of_kind(objects: &[Value], kind: &str) -> Vec<Value> {
    let of_kind = objects.iter().filter(|o| text(o, &["kind"]) == kind);
    of_kind.cloned().collect()
}

fn strings(value: &Value) -> Vec<&str> {
    let items = value.as_sequence().map(Vec::as_slice).unwrap_or_default();
    items.iter().filter_map(Value::as_str).collect()
}

#[test]
fn every_set_of_values_renders_as_its_golden_file_says() {
    for set in SETS {
        expect_file![repository().join(format!("e2e/tests/parts/charts/{set}.yaml"))]
            .assert_eq(&render(set));
    }
}

#[test]
fn mistakes_are_refused_in_words_that_name_them() {
    let helm = Helm::find().unwrap();
    let minimal = values("minimal");
    let minimal = minimal.to_str().unwrap();
    let pem = "-----BEGIN CERTIFICATE-----";
    for (set, expected) in [
        ("image.repository=", "image.repository is empty"),
        (
            "builder.image.repository=",
            "builder.image.repository is empty",
        ),
        ("image.repository=r.example/x:1", "/image/repository"),
        ("image.tga=1", "'tga' not allowed"),
        (
            "limits.maxConcurrentBuilds=0",
            "/limits/maxConcurrentBuilds",
        ),
        ("defaults.pendingTimeout=1d", "/defaults/pendingTimeout"),
        (
            "defaults.trustedPublicKeys={abc}",
            "/defaults/trustedPublicKeys",
        ),
        (
            "proxy.https=http://user:password@proxy:3128",
            "/proxy/https",
        ),
        ("caBundle.pem=nonsense", "/caBundle/pem"),
        (
            &format!("caBundle.configMap=x,caBundle.pem={pem}"),
            "give the certificates once",
        ),
        (
            "serviceAccount.create=false",
            "serviceAccount.name is empty",
        ),
        (
            "watchNamespaces={shop},secretReader.namespaces={payments}",
            "\"payments\", which is not in watchNamespaces",
        ),
        ("firn-crds.x=1", "'x' not allowed"),
    ] {
        let Err(refusal) = helm.template("firn", &["--values", minimal, "--set", set]) else {
            panic!("{set} was not refused");
        };
        let message = format!("{refusal:#}");
        assert!(message.contains(expected), "{set}: {message}");
    }
}

#[test]
fn the_operator_reads_secrets_only_where_it_was_let_in_and_only_by_name() {
    for set in SETS {
        let objects = objects(&render(set));
        let bound_everywhere: Vec<_> = of_kind(&objects, "ClusterRoleBinding")
            .iter()
            .map(|binding| text(binding, &["roleRef", "name"]).to_owned())
            .collect();
        for role in ["ClusterRole", "Role"]
            .map(|k| of_kind(&objects, k))
            .concat()
        {
            let name = text(&role, &["metadata", "name"]);
            let rules = at(&role, &["rules"]).as_sequence().unwrap().clone();
            for rule in rules {
                let resources = strings(at(&rule, &["resources"]));
                let verbs = strings(at(&rule, &["verbs"]));
                assert!(
                    !resources.contains(&"*") && !verbs.contains(&"*"),
                    "{set}: {name}"
                );
                if resources.contains(&"secrets") {
                    assert_eq!(verbs, ["get"], "{set}: {name}");
                    assert!(!bound_everywhere.iter().any(|b| b == name), "{set}: {name}");
                }
            }
        }
    }
}

#[test]
fn with_named_namespaces_nothing_belongs_to_the_whole_cluster() {
    let objects = objects(&render("namespaced"));
    for object in &objects {
        let kind = text(object, &["kind"]);
        assert!(!kind.starts_with("Cluster"), "{kind}");
        let namespace = text(object, &["metadata", "namespace"]);
        assert!(
            ["firn-system", "payments", "shop"].contains(&namespace),
            "{kind}"
        );
    }
}

#[test]
fn the_operator_fits_a_namespace_that_enforces_restricted() {
    for set in SETS {
        let deployments = of_kind(&objects(&render(set)), "Deployment");
        let [deployment] = deployments.as_slice() else {
            panic!("{set}: {} Deployments", deployments.len());
        };
        let pod = at(deployment, &["spec", "template", "spec"]);
        let whole = at(pod, &["securityContext"]);
        assert_eq!(at(whole, &["runAsNonRoot"]), &Value::Bool(true));
        assert_eq!(text(whole, &["seccompProfile", "type"]), "RuntimeDefault");
        for container in at(pod, &["containers"]).as_sequence().unwrap() {
            let own = at(container, &["securityContext"]);
            assert_eq!(at(own, &["allowPrivilegeEscalation"]), &Value::Bool(false));
            assert_eq!(at(own, &["readOnlyRootFilesystem"]), &Value::Bool(true));
            assert_eq!(strings(at(own, &["capabilities", "drop"])), ["ALL"]);
        }
    }
}
