//! Rules and dashboard of the chart, judged by Prometheus' own engine: every alert fires when it
//! should and is silent when it should be, every expression of the dashboard has an answer on what
//! the operator really serves. That they name nothing it does not serve is a test of the operator.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use anyhow::{Context as _, Result};
use firn_e2e::charts::Helm;
use firn_e2e::clone::repository;
use firn_e2e::promtool::Promtool;
use serde::Deserialize;
use serde_json::{Value, json};

const RULES: &str = "charts/firn/monitoring/rules.yaml";

fn read(path: &str) -> Result<String> {
    std::fs::read_to_string(repository().join(path)).with_context(|| path.to_owned())
}

fn alerts() -> Result<Vec<Value>> {
    let rules: Value = serde_yaml_ng::from_str(&read(RULES)?)?;
    let groups = rules["groups"].as_array().context("no groups")?;
    let rules = groups.iter().filter_map(|group| group["rules"].as_array());
    Ok(rules.flatten().cloned().collect())
}

/// One row of `monitoring/cases.yaml`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    alert: String,
    at: String,
    fires: BTreeMap<String, Value>,
    silent: BTreeMap<String, Value>,
}

/// Has promtool run `groups` against the rules.
fn judge(groups: &[Value]) -> Result<()> {
    let folder = tempfile::tempdir()?;
    std::fs::copy(repository().join(RULES), folder.path().join("rules.yaml"))?;
    let tests = json!({
        "rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": groups,
    });
    std::fs::write(folder.path().join("tests.yaml"), tests.to_string())?;
    let arguments = ["test", "rules", "tests.yaml"];
    Promtool::find()?.run(&arguments, folder.path()).map(drop)
}

/// Series, values as promtool writes them, and an expression with the one value it must have;
/// `None`: it must have none.
fn group<'a>(
    name: &str,
    series: impl IntoIterator<Item = (&'a String, String)>,
    at: &str,
    expected: &[(String, Option<u8>)],
) -> Value {
    let series = series
        .into_iter()
        .map(|(series, values)| json!({"series": series, "values": values}));
    let asked = expected.iter().map(|(expr, value)| {
        let samples = value.iter().map(|v| json!({"labels": "{}", "value": v}));
        json!({"expr": expr, "eval_time": at, "exp_samples": samples.collect::<Vec<_>>()})
    });
    json!({
        "name": name, "interval": "1m", "input_series": series.collect::<Vec<_>>(),
        "promql_expr_test": asked.collect::<Vec<_>>(),
    })
}

#[test]
fn prometheus_takes_the_rules() -> Result<()> {
    let arguments = ["check", "rules", "--lint=all", "--lint-fatal", RULES];
    Promtool::find()?.run(&arguments, &repository()).map(drop)
}

#[test]
fn every_alert_fires_when_it_should_and_only_then() -> Result<()> {
    let cases: Vec<Case> =
        serde_yaml_ng::from_str(&read("e2e/tests/parts/monitoring/cases.yaml")?)?;
    let mut groups = Vec::new();
    for case in &cases {
        let firing = format!(
            "count(ALERTS{{alertname={:?},alertstate=\"firing\"}})",
            case.alert
        );
        for (series, value) in [(&case.fires, Some(1)), (&case.silent, None)] {
            let name = format!("{} {}", case.alert, value.map_or("silent", |_| "fires"));
            let series = series.iter().map(|(name, values)| {
                let values = values.as_str().map_or(values.to_string(), str::to_owned);
                (name, values)
            });
            groups.push(group(&name, series, &case.at, &[(firing.clone(), value)]));
        }
    }
    judge(&groups)?;
    let tested: BTreeSet<_> = cases.iter().map(|case| case.alert.as_str()).collect();
    for alert in alerts()? {
        let name = alert["alert"].as_str().context("a rule without alert")?;
        assert!(tested.contains(name), "{name} has no case");
    }
    Ok(())
}

#[test]
fn every_alert_says_what_is_wrong_and_where_it_is_told_what_to_do() -> Result<()> {
    let page = read("docs/alerts.md")?;
    let mut told = 0;
    for alert in alerts()? {
        let name = alert["alert"].as_str().context("a rule without alert")?;
        for annotation in ["summary", "description"] {
            let text = alert["annotations"][annotation].as_str();
            assert!(text.is_some_and(|t| !t.is_empty()), "{name}: {annotation}");
        }
        let runbook = format!("docs/alerts.md#{}", name.to_lowercase());
        assert_eq!(alert["annotations"]["runbook"], json!(runbook), "{name}");
        let section = page
            .split("\n### ")
            .find_map(|section| section.strip_prefix(&format!("{name}\n")))
            .with_context(|| format!("docs/alerts.md has no section {name}"))?;
        assert!(section.contains("**Do:**"), "{name}");
        told += 1;
    }
    assert_eq!(page.matches("\n### ").count(), told, "a section too many");
    Ok(())
}

#[test]
fn the_chart_gives_the_rules_and_the_dashboard_as_they_are() -> Result<()> {
    let values = repository().join("e2e/tests/parts/charts/everything.values.yaml");
    let values = values.display().to_string();
    let rendered = Helm::find()?.template("firn", &["--values", &values])?;
    let (mut rules, mut dashboard) = (None, None);
    for document in serde_yaml_ng::Deserializer::from_str(&rendered) {
        let object = Value::deserialize(document)?;
        if object["kind"] == "PrometheusRule" {
            rules = Some(object["spec"].clone());
        } else if let Some(text) = object["data"]["firn.json"].as_str() {
            dashboard = Some(serde_json::from_str::<Value>(text)?);
        }
    }
    assert_eq!(rules, Some(serde_yaml_ng::from_str(&read(RULES)?)?));
    assert_eq!(dashboard, Some(panels()?));
    Ok(())
}

fn panels() -> Result<Value> {
    Ok(serde_json::from_str(&read(
        "charts/firn/monitoring/dashboard.json",
    )?)?)
}

/// The operator's answer to a scrape (a golden file of its own tests) as series that go on: what
/// counts grows by as much every minute, the rest stays.
fn scraped(text: &str) -> Result<BTreeMap<String, String>> {
    let mut kinds = BTreeMap::new();
    let mut series = BTreeMap::new();
    for line in text.lines() {
        if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').context("a TYPE without type")?;
            kinds.insert(name, kind);
        }
        if line.starts_with('#') {
            continue;
        }
        let (name, value) = line.rsplit_once(' ').context("a line without value")?;
        let bare = name.split('{').next().unwrap_or_default();
        let counts = ["_total", "_count", "_sum", "_bucket"]
            .iter()
            .filter_map(|suffix| bare.strip_suffix(suffix))
            .any(|family| matches!(kinds.get(family), Some(&("counter" | "histogram"))));
        let mut values = String::new();
        if counts {
            write!(values, "0+{value}x60")?;
        } else {
            // Not "0x60", which is a number.
            write!(values, "{value}+0x60")?;
        }
        series.insert(name.to_owned(), values);
    }
    Ok(series)
}

#[test]
fn every_expression_of_the_dashboard_has_an_answer_on_a_scrape() -> Result<()> {
    let series = scraped(&read("operator/tests/golden/metrics.txt")?)?;
    let dashboard = panels()?;
    let panels = dashboard["panels"].as_array().context("no panels")?;
    let targets = panels
        .iter()
        .filter_map(|panel| panel["targets"].as_array());
    let mut asked = Vec::new();
    for target in targets.flatten() {
        let expr = target["expr"].as_str().context("a target without expr")?;
        // What Grafana makes of it with scrapes a minute apart.
        let expr = expr.replace("$__rate_interval", "4m");
        asked.push((format!("count({expr}) > bool 0"), Some(1)));
    }
    assert!(asked.len() > 20, "only {} expressions", asked.len());
    let series = series.iter().map(|(name, values)| (name, values.clone()));
    judge(&[group("a scrape", series, "50m", &asked)])
}
