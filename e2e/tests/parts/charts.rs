//! What the charts render to, without a cluster: golden files, refusals, and rules that hold for
//! every set of values. Golden files are rewritten by `UPDATE_EXPECT=1`.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail};
use clap::{CommandFactory as _, Parser as _};
use expect_test::expect_file;
use firn_e2e::charts::{Helm, INSTALL_VALUES};
use firn_e2e::clone::repository;
use firn_operator::settings::Args;
use serde::Deserialize as _;
use serde_yaml_ng::Value;

/// Sets of values, each with its golden file beside it.
const SETS: &[&str] = &["minimal", "namespaced", "everything"];

fn values(set: &str) -> String {
    let folder = repository().join("e2e/tests/parts/charts");
    format!("{}/{set}.values.yaml", folder.display())
}

fn render(set: &str) -> Result<String> {
    Helm::find()?.template("firn", &["--values", &values(set)])
}

/// Every object of a manifest, without the empty documents.
fn objects(manifest: &str) -> Result<Vec<Value>> {
    let mut objects = Vec::new();
    for document in serde_yaml_ng::Deserializer::from_str(manifest) {
        objects.push(Value::deserialize(document)?);
    }
    objects.retain(|object| !object.is_null());
    Ok(objects)
}

fn of_kind(objects: &[Value], kind: &str) -> Vec<Value> {
    let of_kind = objects.iter().filter(|o| text(o, &["kind"]) == kind);
    of_kind.cloned().collect()
}

fn the_deployment(set: &str) -> Result<Value> {
    let deployments = of_kind(&objects(&render(set)?)?, "Deployment");
    match deployments.as_slice() {
        [deployment] => Ok(deployment.clone()),
        other => bail!("{set}: {} Deployments", other.len()),
    }
}

fn at<'a>(object: &'a Value, path: &[&str]) -> &'a Value {
    path.iter()
        .fold(object, |value, key| value.get(key).unwrap_or(&Value::Null))
}

fn text<'a>(object: &'a Value, path: &[&str]) -> &'a str {
    at(object, path).as_str().unwrap_or_default()
}

fn items<'a>(object: &'a Value, path: &[&str]) -> &'a [Value] {
    let items = at(object, path).as_sequence();
    items.map(Vec::as_slice).unwrap_or_default()
}

fn strings<'a>(object: &'a Value, path: &[&str]) -> Vec<&'a str> {
    let items = items(object, path).iter();
    items.filter_map(Value::as_str).collect()
}

#[test]
fn every_set_of_values_renders_as_its_golden_file_says() -> Result<()> {
    for set in SETS {
        let golden = repository().join(format!("e2e/tests/parts/charts/{set}.yaml"));
        expect_file![golden].assert_eq(&render(set)?);
    }
    Ok(())
}

#[test]
fn the_plain_manifest_is_the_chart_with_its_defaults() -> Result<()> {
    let manifest = Helm::find()?.install_manifest()?;
    expect_file![repository().join("manifests/install.yaml")].assert_eq(&manifest);
    Ok(())
}

#[test]
fn the_plain_manifest_holds_both_kinds_and_kustomize_knows_its_images() -> Result<()> {
    let manifest = Helm::find()?.install_manifest()?;
    let crds = of_kind(&objects(&manifest)?, "CustomResourceDefinition");
    let mut names: Vec<_> = crds
        .iter()
        .map(|crd| text(crd, &["metadata", "name"]))
        .collect();
    names.sort_unstable();
    assert_eq!(names, ["niximagebuilds.firn.dev", "niximages.firn.dev"]);

    let kustomization = repository().join("manifests/kustomization.yaml");
    let kustomization = std::fs::read_to_string(kustomization)?;
    for image in INSTALL_VALUES {
        let (_, reference) = image.split_once('=').context("not key=value")?;
        assert!(kustomization.contains(reference), "{reference}");
    }
    Ok(())
}

#[test]
fn custom_resource_definitions_are_kept_when_the_release_goes() -> Result<()> {
    let crds = Helm::find()?.template("firn-crds", &[])?;
    let crds = of_kind(&objects(&crds)?, "CustomResourceDefinition");
    assert_eq!(crds.len(), 2);
    for crd in crds {
        let policy = text(
            &crd,
            &["metadata", "annotations", "helm.sh/resource-policy"],
        );
        assert_eq!(policy, "keep", "{}", text(&crd, &["metadata", "name"]));
    }
    Ok(())
}

#[test]
fn mistakes_are_refused_in_words_that_name_them() -> Result<()> {
    let helm = Helm::find()?;
    let minimal = values("minimal");
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
        ("defaults.jobRetention=1d", "/defaults/jobRetention"),
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
            "caBundle.configMap=x,caBundle.pem=-----BEGIN CERTIFICATE-----",
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
        (
            "metrics.serviceMonitor.enabled=true,metrics.service.create=false",
            "needs metrics.service.create",
        ),
        (
            "networkPolicy.egress.sources={0}",
            "/networkPolicy/egress/sources",
        ),
    ] {
        let Err(refusal) = helm.template("firn", &["--values", &minimal, "--set", set]) else {
            bail!("{set} was not refused");
        };
        let message = format!("{refusal:#}");
        assert!(message.contains(expected), "{set}: {message}");
    }
    Ok(())
}

/// The literal environment of the operator's container.
fn environment(set: &str) -> Result<BTreeMap<String, String>> {
    let deployment = the_deployment(set)?;
    let containers = items(&deployment, &["spec", "template", "spec", "containers"]);
    let container = containers.first().context("no container")?;
    let variables = items(container, &["env"]).iter();
    Ok(variables
        .map(|v| (text(v, &["name"]).into(), text(v, &["value"]).into()))
        .collect())
}

/// Each environment variable that the operator reads, with its flag.
fn settings() -> BTreeMap<String, String> {
    let command = Args::command();
    let settings = command.get_arguments().filter_map(|argument| {
        let variable = argument.get_env()?.to_str()?;
        Some((variable.to_owned(), format!("--{}", argument.get_long()?)))
    });
    settings.collect()
}

#[test]
fn every_variable_the_chart_sets_is_a_setting_and_every_setting_can_be_set() -> Result<()> {
    let settings = settings();
    for set in SETS {
        for variable in environment(set)?.into_keys() {
            let known = settings.contains_key(&variable) || variable == "SSL_CERT_DIR";
            assert!(known, "{set}: the operator knows no {variable}");
        }
    }
    let all = environment("everything")?;
    let namespaced = environment("namespaced")?;
    for variable in settings.keys() {
        let can = all.contains_key(variable)
            || namespaced.contains_key(variable)
            // The port is fixed: Service and probes name it.
            || variable == "FIRN_LISTEN"
            // Set by the image, which has the file.
            || variable == "SSL_CERT_FILE";
        assert!(can, "the chart cannot set {variable}");
    }
    Ok(())
}

#[test]
fn the_operator_understands_what_the_chart_sets() -> Result<()> {
    let settings = settings();
    for set in SETS {
        let mut arguments = vec!["firn-operator".to_owned()];
        for (variable, value) in environment(set)? {
            if let Some(flag) = settings.get(&variable) {
                arguments.push(format!("{flag}={value}"));
            }
        }
        let mut read = Args::try_parse_from(arguments).with_context(|| set.to_owned())?;
        // The file is in the pod, not here.
        read.network.ca_file = None;
        firn_operator::settings::Settings::resolve(read).with_context(|| set.to_owned())?;
    }
    Ok(())
}

#[test]
fn a_ca_bundle_is_as_long_as_a_build_pod_can_carry() -> Result<()> {
    let schema = repository().join("charts/firn/values.schema.json");
    let schema: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(schema)?)?;
    let longest = schema.pointer("/properties/caBundle/properties/pem/maxLength");
    assert_eq!(longest, Some(&firn_crd::pod::CLUSTER_CA_MAX.into()));
    Ok(())
}

#[test]
fn the_operator_reads_secrets_only_where_it_was_let_in_and_only_by_name() -> Result<()> {
    for set in SETS {
        let objects = objects(&render(set)?)?;
        let everywhere = of_kind(&objects, "ClusterRoleBinding");
        for role in ["ClusterRole", "Role"]
            .map(|k| of_kind(&objects, k))
            .concat()
        {
            let name = text(&role, &["metadata", "name"]);
            for rule in items(&role, &["rules"]) {
                let resources = strings(rule, &["resources"]);
                let verbs = strings(rule, &["verbs"]);
                assert!(
                    !resources.contains(&"*") && !verbs.contains(&"*"),
                    "{set}: {name}"
                );
                if resources.contains(&"secrets") {
                    assert_eq!(verbs, ["get"], "{set}: {name}");
                    let bound = |b: &Value| text(b, &["roleRef", "name"]) == name;
                    assert!(!everywhere.iter().any(bound), "{set}: {name}");
                }
            }
        }
    }
    Ok(())
}

#[test]
fn with_named_namespaces_nothing_belongs_to_the_whole_cluster() -> Result<()> {
    for object in objects(&render("namespaced")?)? {
        let kind = text(&object, &["kind"]);
        assert!(!kind.starts_with("Cluster"), "{kind}");
        let namespace = text(&object, &["metadata", "namespace"]);
        assert!(
            ["firn-system", "payments", "shop"].contains(&namespace),
            "{kind} in {namespace:?}"
        );
    }
    Ok(())
}

#[test]
fn the_operator_fits_a_namespace_that_enforces_restricted() -> Result<()> {
    for set in SETS {
        let deployment = the_deployment(set)?;
        let pod = at(&deployment, &["spec", "template", "spec"]);
        let whole = at(pod, &["securityContext"]);
        assert_eq!(at(whole, &["runAsNonRoot"]), &Value::Bool(true));
        assert_eq!(text(whole, &["seccompProfile", "type"]), "RuntimeDefault");
        for container in items(pod, &["containers"]) {
            let own = at(container, &["securityContext"]);
            assert_eq!(at(own, &["allowPrivilegeEscalation"]), &Value::Bool(false));
            assert_eq!(at(own, &["readOnlyRootFilesystem"]), &Value::Bool(true));
            assert_eq!(strings(own, &["capabilities", "drop"]), ["ALL"]);
        }
    }
    Ok(())
}
