//! The reference page lists what the operator serves, no more and no less; rules and dashboard of
//! the chart ask for nothing else.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use firn_crd::build_status::BuildOutcome;
use firn_crd::exit::{Class, Reason};
use firn_crd::report::{Pushed, Stage, StageName};
use firn_operator::metrics::{self, Controller, ImageState, Metrics, Retry};
use firn_operator::settings::Network;
use firn_operator::source::{
    Answers as _, Git, ImageKey, Kind, Observation, Query, Sources, Target,
};
use jiff::Timestamp;
use prometheus_client::registry::Registry;
use strum::IntoEnumIterator as _;

/// Everything that can be counted, counted once.
async fn all() -> Registry {
    let mut registry = metrics::registry();
    let metrics = Metrics::register(&mut registry);
    metrics.images([(
        ImageState {
            ready: "True",
            suspended: false,
            drift: Some("TagMoved"),
        },
        3,
    )]);
    metrics.build_ended(BuildOutcome::Failed, Some(Reason::BuildFailed));
    metrics.stages(&[Stage {
        name: StageName::Build,
        start: 0,
        millis: 1500,
    }]);
    metrics.pushed(&Pushed {
        bytes_pushed: 7,
        layers_pushed: 1,
        ..Pushed::default()
    });
    metrics.retried(Reason::RegistryUnavailable, Retry::Slow);
    metrics.queue(1, 2);
    metrics.waited(Duration::from_secs(1));
    metrics.ramped_up(Duration::from_secs(1));
    metrics.reconciled(
        Controller::NixImage,
        Duration::from_millis(3),
        Some("ApplyJob"),
    );
    metrics.leads(true);
    metrics.checked("Found");

    let nowhere = kube::Config::new("http://127.0.0.1:1".parse().unwrap());
    let client = kube::Client::try_from(nowhere).unwrap();
    let sources = Sources::new(client, &Network::default()).unwrap();
    sources.register(&mut registry);
    let key = ImageKey {
        namespace: "shop".into(),
        name: "web".into(),
    };
    let query = Query {
        git: Git {
            url: "http://refused.example.com/plain".into(),
            target: Target::Head,
            dir: ".".into(),
            secret: None,
            ca: None,
            webhook: None,
            interval: Duration::from_secs(60),
            timeout: Duration::from_secs(1),
        },
        paths: vec![],
        known: None,
        asked: None,
    };
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    while sources
        .observe(&key, &query, Timestamp::UNIX_EPOCH)
        .observation
        == Observation::Pending
    {
        assert!(tokio::time::Instant::now() < deadline, "no poll ended");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    registry
}

fn text(registry: &Registry) -> String {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, registry).unwrap();
    text
}

/// Name as a query writes it, with its type.
fn served(text: &str) -> BTreeMap<String, String> {
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    types
        .map(|line| {
            let (name, kind) = line.split_once(' ').unwrap();
            let suffix = match kind {
                "counter" => "_total",
                "info" => "_info",
                _ => "",
            };
            (format!("{name}{suffix}"), kind.to_owned())
        })
        .collect()
}

#[tokio::test]
async fn the_reference_page_lists_every_metric() {
    let text = text(&all().await);
    let page = include_str!("../../docs/reference/metrics.md");
    let rows = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `firn_"));
    let documented: BTreeMap<_, _> = rows
        .map(|row| {
            let cells: Vec<_> = row.split('|').map(str::trim).collect();
            (
                format!("firn_{}", cells[0].trim_end_matches('`')),
                cells[1].to_owned(),
            )
        })
        .collect();
    assert_eq!(
        documented,
        served(&text),
        "docs/reference/metrics.md against /metrics"
    );
}

#[tokio::test]
async fn the_reference_page_lists_every_label() {
    let text = text(&all().await);
    let page = include_str!("../../docs/reference/metrics.md");
    for row in page.lines().filter(|line| line.starts_with("| `firn_")) {
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        let name = cells[1].trim_matches('`');
        let series = text
            .lines()
            .find(|line| !line.starts_with('#') && line.starts_with(name))
            .unwrap_or_else(|| panic!("no series of {name} in\n{text}"));
        let inside = series
            .split_once('{')
            .map_or("", |(_, rest)| rest.split_once('}').unwrap().0);
        let labels: Vec<_> = inside
            .split("\",")
            .filter_map(|pair| pair.split_once('='))
            .map(|(label, _)| label)
            .filter(|label| *label != "le")
            .collect();
        let documented: Vec<_> = cells[3]
            .split(", ")
            .filter(|l| !l.is_empty())
            .map(|l| l.trim_matches('`'))
            .collect();
        assert_eq!(documented, labels, "{name}");
    }
}

#[tokio::test]
async fn counts_are_what_was_counted() {
    let text = text(&all().await);
    for line in [
        r#"firn_builds_total{outcome="Failed",reason="BuildFailed"} 1"#,
        r#"firn_images{ready="True",suspended="false"} 3"#,
        r#"firn_drift{type="TagMoved"} 3"#,
        r#"firn_registry_checks_total{result="Found"} 1"#,
        r#"firn_layers_total{kind="pushed"} 1"#,
        "firn_push_bytes_total 7",
        r#"firn_reconcile_errors_total{kind="NixImage",category="ApplyJob"} 1"#,
        r#"firn_source_polls_total{result="Invalid"} 1"#,
        "firn_source_oldest_success_seconds 0.0",
    ] {
        assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
    }
}

/// What a scrape holds, for tests that give it to Prometheus. Series of one metric are sorted: the
/// operator serves them in no order.
fn sorted(text: &str) -> String {
    let mut sorted = String::new();
    let mut series = Vec::new();
    for line in text.lines() {
        if line.starts_with('#') {
            series.sort_unstable();
            for line in series.drain(..).chain([line]) {
                sorted.push_str(line);
                sorted.push('\n');
            }
        } else {
            series.push(line);
        }
    }
    sorted
}

#[tokio::test]
async fn a_scrape_is_as_the_golden_file_says() {
    let golden = expect_test::expect_file!["golden/metrics.txt"];
    golden.assert_eq(&sorted(&text(&all().await)));
}

/// Every expression of the chart's rules and dashboard.
fn expressions() -> Vec<String> {
    let rules = include_str!("../../charts/firn/monitoring/rules.yaml");
    let rules: serde_json::Value = serde_yaml_ng::from_str(rules).unwrap();
    let dashboard = include_str!("../../charts/firn/monitoring/dashboard.json");
    let dashboard: serde_json::Value = serde_json::from_str(dashboard).unwrap();
    let (mut found, mut left) = (Vec::new(), vec![&rules, &dashboard]);
    while let Some(value) = left.pop() {
        if let Some(object) = value.as_object() {
            let expr = object.get("expr").and_then(serde_json::Value::as_str);
            found.extend(expr.map(str::to_owned));
            left.extend(object.values());
        }
        left.extend(value.as_array().into_iter().flatten());
    }
    found
}

/// The series that an expression selects: name, and its matchers' labels and values.
fn selectors(expr: &str) -> Vec<(String, Vec<(String, String)>)> {
    let starts = expr.match_indices("firn_").map(|(start, _)| &expr[start..]);
    starts
        .map(|rest| {
            let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_'));
            let (name, rest) = rest.split_at(end.unwrap_or(rest.len()));
            let inside = rest
                .strip_prefix('{')
                .map_or("", |rest| rest.split_once('}').unwrap().0);
            let matchers = inside.split("\",").filter(|matcher| !matcher.is_empty());
            let matchers = matchers.map(|matcher| {
                let (label, value) = matcher.split_once('"').unwrap();
                let label = label.trim().trim_end_matches(['=', '~', '!']);
                (label.to_owned(), value.trim_end_matches('"').to_owned())
            });
            (name.to_owned(), matchers.collect())
        })
        .collect()
}

/// Labels within `by (…)`.
fn grouped(expr: &str) -> Vec<&str> {
    let groups = expr.split("by (").skip(1);
    groups
        .flat_map(|rest| rest.split_once(')').unwrap().0.split(','))
        .map(str::trim)
        .collect()
}

/// Whether `label` of `name` can have this value.
fn can_be(name: &str, label: &str, value: &str) -> bool {
    match label {
        "outcome" => value.parse::<BuildOutcome>().is_ok(),
        "reason" => value.is_empty() || value.parse::<Reason>().is_ok(),
        "result" => {
            ["Found", "Incomplete"].contains(&value)
                || Kind::iter().any(|kind| <&str>::from(kind) == value)
        }
        "ready" => ["True", "False", "Unknown"].contains(&value),
        "suspended" => ["true", "false"].contains(&value),
        _ => panic!("{name}: say here what {label} can be"),
    }
}

#[tokio::test]
async fn rules_and_dashboard_ask_for_nothing_that_is_not_served() {
    let text = text(&all().await);
    let mut served: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (name, labels) = line.split_once(['{', ' ']).unwrap();
        let labels = labels
            .split("\",")
            .filter_map(|pair| pair.split_once("=\""));
        served.insert(name, labels.map(|(label, _)| label).collect());
    }
    let expressions = expressions();
    assert!(expressions.len() > 30, "only {} found", expressions.len());
    for expr in &expressions {
        let selectors = selectors(expr);
        assert!(!selectors.is_empty(), "{expr}");
        for (name, matchers) in &selectors {
            let labels = served
                .get(name.as_str())
                .unwrap_or_else(|| panic!("{name} is not served: {expr}"));
            for (label, values) in matchers {
                assert!(
                    labels.contains(&label.as_str()),
                    "{name}{{{label}}}: {expr}"
                );
                for value in values.split('|') {
                    assert!(can_be(name, label, value), "{name}{{{label}={value:?}}}");
                }
            }
            for label in grouped(expr) {
                // Prometheus adds the pods' namespace.
                let known = label == "namespace" || labels.contains(&label);
                assert!(known, "{name} by ({label}): {expr}");
            }
        }
    }
}

#[test]
fn builds_that_fail_by_the_platform_are_an_alert() {
    let expressions = expressions();
    let expr = expressions
        .iter()
        .find(|expr| expr.contains("SandboxUnavailable"))
        .unwrap();
    let (_, matchers) = &selectors(expr)[0];
    let (_, reasons) = matchers
        .iter()
        .find(|(label, _)| label == "reason")
        .unwrap();
    let named: BTreeSet<_> = reasons.split('|').map(str::to_owned).collect();
    // A build that came too late is nobody's trouble.
    let platform = Reason::iter()
        .filter(|reason| reason.class() == Class::Platform && *reason != Reason::NotLatest)
        .map(|reason| reason.to_string());
    assert_eq!(named, platform.collect());
}
