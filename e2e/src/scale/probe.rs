//! What the operator holds, spends and writes, told by the kubelet, by its metrics and by the API
//! server.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use kube::api::{Api, ListParams};
use serde_json::Value;

use crate::charts::NAMESPACE;
use crate::story::World;
use crate::wait::{Seen, when};

/// Between two looks at what is held.
const PERIOD: Duration = Duration::from_secs(5);
/// Without a write for so long, the operator has settled.
const QUIET: Duration = Duration::from_secs(20);
/// It has this long to settle.
const SETTLE: Duration = Duration::from_secs(1800);

/// API writes by verb and resource. The lease is not among them.
pub(super) type Writes = BTreeMap<String, usize>;

/// What was spent until a moment, and is held in it.
#[derive(Debug, Clone, Default)]
pub(super) struct Sample {
    /// Resident memory of the operator's container, in bytes; of a [`Probe::watch`], the most that
    /// was seen.
    pub(super) resident: u64,
    /// The operator's processor time, in seconds.
    pub(super) operator_cpu: f64,
    /// The API server's, in seconds.
    pub(super) api_cpu: f64,
    /// How often git servers were asked.
    pub(super) polls: f64,
    /// Reconciles of images.
    pub(super) reconciles: f64,
}

/// Access to all of them.
pub(super) struct Probe {
    client: Client,
    audit: PathBuf,
}

impl Probe {
    pub(super) fn new(world: &World) -> Result<Self> {
        let embedded = world.cluster.needs_embedded();
        let layout = &embedded.context("this cluster shows no audit log")?.layout;
        Ok(Self {
            client: world.client.clone(),
            audit: layout.audit_log(),
        })
    }

    /// The sum of a metric's series that have all these labels, as the operator tells it now.
    pub(super) async fn sum(&self, metric: &str, labels: &[&str]) -> Result<f64> {
        let (pod, _) = self.pod().await?;
        let path = format!("/api/v1/namespaces/{NAMESPACE}/pods/{pod}:8080/proxy/metrics");
        Ok(sum(&self.get(&path).await?, metric, labels))
    }

    /// Whether a metric's series add up to so much. An operator that does not answer yet is waited
    /// for.
    pub(super) async fn at_least(&self, metric: &str, wanted: impl Into<f64>) -> Result<Seen<()>> {
        let wanted = wanted.into();
        Ok(match self.sum(metric, &[]).await {
            Ok(now) => when(now >= wanted, format!("{now} of {wanted}")),
            Err(error) => Seen::NotYet(format!("{error:#}")),
        })
    }

    /// What is spent and held now.
    pub(super) async fn sample(&self) -> Result<Sample> {
        let (resident, operator_cpu) = self.container().await?;
        let api = self.get("/metrics").await?;
        let polls = self.sum("firn_source_polls_total", &[]).await?;
        let image = [r#"kind="NixImage""#];
        let reconciles = self.sum("firn_reconcile_duration_seconds_count", &image);
        Ok(Sample {
            resident,
            operator_cpu,
            api_cpu: sum(&api, "process_cpu_seconds_total", &[]),
            polls,
            reconciles: reconciles.await?,
        })
    }

    /// Looks for so long; gives the last sample with the most that was held.
    pub(super) async fn watch(&self, time: Duration) -> Result<Sample> {
        let end = Instant::now() + time;
        let mut most = 0;
        let mut ticks = tokio::time::interval(PERIOD);
        while Instant::now() < end {
            ticks.tick().await;
            most = most.max(self.container().await?.0);
        }
        let last = self.sample().await?;
        Ok(Sample {
            resident: last.resident.max(most),
            ..last
        })
    }

    /// Waits until the operator has written nothing for a while.
    pub(super) async fn settled(&self) -> Result<()> {
        let mut from = self.writes_from()?;
        let mut since = Instant::now();
        let mut ticks = tokio::time::interval(PERIOD);
        let end = Instant::now() + SETTLE;
        while since.elapsed() < QUIET {
            ensure!(Instant::now() < end, "the operator does not settle");
            ticks.tick().await;
            if !self.writes_since(from)?.is_empty() {
                from = self.writes_from()?;
                since = Instant::now();
            }
        }
        Ok(())
    }

    /// The place in the audit log that is reached.
    pub(super) fn writes_from(&self) -> Result<u64> {
        Ok(std::fs::metadata(&self.audit)?.len())
    }

    /// What the operator wrote since.
    pub(super) fn writes_since(&self, from: u64) -> Result<Writes> {
        let bytes = std::fs::read(&self.audit)?;
        let new = bytes.get(usize::try_from(from)?..);
        let new = new.context("the audit log was rotated: what was written is not known")?;
        let mut writes = Writes::new();
        let lines = new.split_inclusive(|byte| *byte == b'\n');
        // The last line may be half written.
        for line in lines.filter(|line| line.ends_with(b"\n")) {
            if let Some(write) = written(line) {
                *writes.entry(write).or_default() += 1;
            }
        }
        Ok(writes)
    }

    /// The operator's pod: its name, and its node's.
    async fn pod(&self) -> Result<(String, String)> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), NAMESPACE);
        let pods = pods.list(&ListParams::default()).await?.items;
        let alive = pods
            .into_iter()
            .find(|pod| pod.metadata.deletion_timestamp.is_none());
        alive
            .and_then(|pod| Some((pod.metadata.name?, pod.spec?.node_name?)))
            .context("no operator runs")
    }

    /// Resident bytes and processor seconds of the operator's container, by the kubelet.
    async fn container(&self) -> Result<(u64, f64)> {
        let (pod, node) = self.pod().await?;
        let path = format!("/api/v1/nodes/{node}/proxy/stats/summary");
        let summary: Value = serde_json::from_str(&self.get(&path).await?)?;
        let pods = summary["pods"].as_array().map_or(&[][..], Vec::as_slice);
        let found = pods.iter().find(|entry| entry["podRef"]["name"] == *pod);
        let container = found.map(|entry| &entry["containers"][0]);
        let container = container.context("the kubelet does not know the operator's pod")?;
        let nanoseconds = container["cpu"]["usageCoreNanoSeconds"].as_f64();
        Ok((
            container["memory"]["rssBytes"].as_u64().unwrap_or(0),
            nanoseconds.unwrap_or(0.0) / 1e9,
        ))
    }

    async fn get(&self, path: &str) -> Result<String> {
        let request = http::Request::get(path).body(Vec::new())?;
        Ok(self.client.request_text(request).await?)
    }
}

/// The sum of a metric's series in a scrape.
fn sum(scrape: &str, metric: &str, labels: &[&str]) -> f64 {
    let series = scrape.lines().filter_map(|line| {
        let (name, value) = line.rsplit_once(' ')?;
        let (bare, rest) = name.split_at_checked(metric.len())?;
        let is_it = bare == metric && (rest.is_empty() || rest.starts_with('{'));
        let has = labels.iter().all(|label| rest.contains(label));
        (is_it && has).then(|| value.parse::<f64>().ok())?
    });
    series.sum()
}

/// The verb and resource of one entry of the audit log, if it is a successful write of the
/// operator to something else than its lease.
fn written(line: &[u8]) -> Option<String> {
    let entry: Value = serde_json::from_slice(line).ok()?;
    let agent = entry["userAgent"].as_str()?;
    let object = &entry["objectRef"];
    let resource = object["resource"].as_str()?;
    let ours = agent.starts_with("firn-operator") && resource != "leases";
    let done = entry["responseStatus"]["code"].as_i64()? < 300;
    let part = object["subresource"].as_str();
    let part = part.map_or_else(String::new, |part| format!("/{part}"));
    (ours && done).then(|| format!("{} {resource}{part}", entry["verb"].as_str().unwrap_or("?")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCRAPE: &str = "# TYPE firn_images gauge\n\
        firn_images{ready=\"True\",suspended=\"false\"} 3\n\
        firn_images{ready=\"False\",suspended=\"false\"} 2\n\
        firn_images_other 9\nfirn_leader 1\n# EOF\n";

    #[test]
    fn series_of_one_metric_are_added() {
        let all: f64 = 5.0;
        assert_eq!(sum(SCRAPE, "firn_images", &[]).to_bits(), all.to_bits());
        let ready: f64 = 3.0;
        let labels = [r#"ready="True""#];
        assert_eq!(
            sum(SCRAPE, "firn_images", &labels).to_bits(),
            ready.to_bits()
        );
    }

    #[test]
    fn only_the_operators_writes_count_and_not_its_lease() {
        let entry = |agent: &str, resource: &str, code: u16| {
            serde_json::json!({
                "userAgent": agent, "verb": "patch", "responseStatus": { "code": code },
                "objectRef": { "resource": resource, "subresource": "status" },
            })
            .to_string()
        };
        let told = |agent, resource, code| written(entry(agent, resource, code).as_bytes());
        assert_eq!(
            told("firn-operator/0.1", "niximages", 200).as_deref(),
            Some("patch niximages/status")
        );
        assert_eq!(told("firn-operator/0.1", "leases", 200), None);
        assert_eq!(told("firn-operator/0.1", "niximages", 409), None);
        assert_eq!(told("kubelet", "niximages", 200), None);
    }
}
