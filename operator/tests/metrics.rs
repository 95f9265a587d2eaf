//! The reference page lists what the operator serves, no more and no less.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail by panicking")]

use std::collections::BTreeMap;
use std::time::Duration;

use firn_crd::build_status::BuildOutcome;
use firn_crd::exit::Reason;
use firn_crd::report::{Pushed, Stage, StageName};
use firn_operator::metrics::{self, Controller, ImageState, Metrics, Retry};
use firn_operator::settings::Network;
use firn_operator::source::{Answers as _, Git, ImageKey, Observation, Query, Sources, Target};
use jiff::Timestamp;
use prometheus_client::registry::Registry;

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
