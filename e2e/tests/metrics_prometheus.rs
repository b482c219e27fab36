//! Operator and agent as a real Prometheus sees them: every metric, every query of the dashboard, every alert.

#![expect(clippy::disallowed_methods, reason = "it reads the chart's files")]

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lamina_e2e::cache::Cache;
use lamina_e2e::fleet::example::{self, Example, HOST, PATIENCE, TOPOLOGY};
use lamina_e2e::fleet::waiting;
use lamina_e2e::host::HostSpec;
use lamina_e2e::host::scratch::Scratch;
use lamina_e2e::image::Suite;
use lamina_e2e::port::free_port;
use lamina_e2e::prometheus::{Prometheus, Target, promtool};
use lamina_endpoint::catalog::{ALL, Kind};
use serde_json::Value;

const ALERTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/lamina/monitoring/alerts.yaml");
const DASHBOARD: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/lamina/monitoring/dashboard.json");
const ALERT_TESTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/metrics/alerts-test.yaml");

#[tokio::test]
async fn alerts_speak_when_they_should_and_no_sooner() -> Result<()> {
    let cache = Cache::open()?;
    promtool(&cache, &["check", "rules", ALERTS]).await?;
    promtool(&cache, &["test", "rules", ALERT_TESTS]).await.map(drop)
}

#[tokio::test]
async fn a_prometheus_sees_everything_and_what_it_sees_is_true() -> Result<()> {
    let (cache, port) = (Cache::open()?, free_port()?);
    let spec = HostSpec { agent_port: Some(port), ..HostSpec::twenty(HOST, Suite::Bookworm) };
    let example = Example::up_on(spec).await?;
    example.fleet.apply(&example::text()?).await?;
    example.fleet.wait_ready(TOPOLOGY, PATIENCE).await?;

    let operator = example.fleet.operators()[0].address().context("the operator says where it answers")?;
    let targets = [("operator-1", operator), ("agent-1", format!("127.0.0.1:{port}"))];
    let targets = targets.map(|(pod, address)| Target { pod: pod.to_owned(), address });
    let scratch = Scratch::new(&cache, "prometheus")?;
    let prometheus = Prometheus::start(&cache, scratch.path(), &targets, Path::new(ALERTS)).await?;
    let seen = Seen { prometheus, example };
    seen.becomes("count(up == 1)", "2").await?;

    seen.every_metric_of_the_catalog_is_told().await?;
    seen.every_query_of_the_dashboard_has_data().await?;
    seen.values_are_true().await?;
    seen.what_is_put_back_is_counted().await?;
    seen.a_silent_agent_is_counted().await
}

struct Seen {
    prometheus: Prometheus,
    example: Example,
}

impl Seen {
    /// Waits until a query has just this one value.
    async fn becomes(&self, query: &str, value: &str) -> Result<()> {
        let is_so = async || Ok(self.prometheus.values(query).await? == [value]);
        let told = waiting::until(&format!("{query} is {value}"), 2 * waiting::MINUTE, is_so).await;
        match told {
            Ok(_) => Ok(()),
            Err(error) => {
                let found = self.prometheus.ask(query).await;
                Err(error.context(format!("{found:?}")).context(self.example.fleet.dump().await))
            }
        }
    }

    async fn has_data(&self, query: &str) -> Result<()> {
        let has = async || Ok(!self.prometheus.ask(query).await?.is_empty());
        waiting::until(&format!("{query} has data"), waiting::MINUTE, has).await.map(drop)
    }

    async fn every_metric_of_the_catalog_is_told(&self) -> Result<()> {
        for metric in ALL {
            let suffix = if metric.kind == Kind::Histogram { "_count" } else { "" };
            self.has_data(&format!("{}{suffix}", metric.name)).await?;
        }
        Ok(())
    }

    async fn every_query_of_the_dashboard_has_data(&self) -> Result<()> {
        let text = std::fs::read_to_string(DASHBOARD).context("reading the dashboard")?;
        let dashboard: Value = serde_json::from_str(&text).context("the dashboard is JSON")?;
        let panels = dashboard["panels"].as_array().context("there are panels")?;
        let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
        let queries: Vec<&str> = targets.filter_map(|target| target["expr"].as_str()).collect();
        ensure!(queries.len() >= panels.len(), "a panel asks nothing: {queries:?}");
        for query in queries {
            self.has_data(query).await?;
        }
        Ok(())
    }

    async fn values_are_true(&self) -> Result<()> {
        for (query, value) in [
            ("lamina_operator_leading", "1"),
            ("lamina_slice_cpus{slice=\"orchestrator-control.slice\"}", "8"),
            ("sum(lamina_slice_services_ready)", "8"),
            ("lamina_topology_hosts{state=\"Ready\"}", "1"),
            ("lamina_topology_condition{condition=\"Ready\",status=\"True\"}", "1"),
            ("lamina_host_condition{condition=\"Ready\",status=\"True\"}", "1"),
            ("lamina_host_cpus", "20"),
            ("lamina_hosts{agent=\"Live\"}", "1"),
        ] {
            self.becomes(query, value).await?;
        }
        let term = self.example.fleet.leader().await?.context("one leads")?.1;
        self.becomes("lamina_operator_term", &term.to_string()).await?;
        let alerts = self.prometheus.ask("ALERTS").await?;
        ensure!(alerts.is_empty(), "with everything as asked there are alerts: {alerts:?}");
        Ok(())
    }

    async fn what_is_put_back_is_counted(&self) -> Result<()> {
        let former = self.prometheus.values("lamina_agent_heals_total").await?;
        let former: u64 = former.first().context("heals are counted")?.parse().context("a number")?;
        let write = format!("echo 0-3 > {}/cpuset.cpus", Example::cgroup_of("control"));
        self.example.on_host(&write).await?;
        self.becomes("lamina_agent_heals_total", &(former + 1).to_string()).await
    }

    /// The agent's own metrics end with it, so it is the operator that tells.
    async fn a_silent_agent_is_counted(&self) -> Result<()> {
        self.example.fleet.stop_agent(HOST).await?;
        self.becomes("lamina_hosts{agent=\"Silent\"}", "1").await?;
        self.becomes("count(ALERTS{alertname=\"LaminaAgentsSilent\",alertstate=\"pending\"})", "1").await?;
        tokio::time::sleep(Duration::from_secs(2)).await;
        self.becomes("count(lamina_host_cpus) or vector(0)", "0").await
    }
}
