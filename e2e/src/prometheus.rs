//! A real Prometheus on loopback, and its checker: Debian's own, unpacked beside the machine and never installed.

#![expect(clippy::disallowed_methods, reason = "it writes the server's settings")]

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::cache::{Cache, Key};
use crate::fleet::waiting;
use crate::host::process::{Lifetime, Process};
use crate::port::free_port;
use crate::program::output_of;
use crate::unpacked;

const LOG: &str = "prometheus.log";
const SETTINGS: &str = "prometheus.json";

/// Somebody who is asked how he is, with the labels that the Prometheus operator would give.
#[derive(Clone, Debug)]
pub struct Target {
    /// The pod's name.
    pub pod: String,
    /// Where it answers.
    pub address: String,
}

/// A running Prometheus; it ends when dropped.
#[derive(Debug)]
pub struct Prometheus {
    address: String,
    promtool: PathBuf,
    _process: Process,
}

impl Prometheus {
    /// Starts one that asks these targets every second and judges these rules; it answers when this returns.
    pub async fn start(cache: &Cache, folder: &Path, targets: &[Target], rules: &Path) -> Result<Self> {
        let programs = programs(cache).await?;
        let address = format!("127.0.0.1:{}", free_port()?);
        let settings = folder.join(SETTINGS);
        // JSON is YAML.
        std::fs::write(&settings, settings_for(targets, rules).to_string())
            .with_context(|| format!("writing {}", settings.display()))?;
        let arguments = [
            format!("--config.file={SETTINGS}"),
            format!("--web.listen-address={address}"),
            "--storage.tsdb.path=series".to_owned(),
        ];
        let process = Process::start(&programs.join("prometheus"), &arguments, folder, LOG, Lifetime::Tethered)?;
        let this = Self { address, promtool: programs.join("promtool"), _process: process };
        let answers = async || Ok(this.ask("vector(1)").await.is_ok());
        waiting::until("Prometheus answers", waiting::MINUTE, answers).await?;
        Ok(this)
    }

    /// The series that answer a query now.
    pub async fn ask(&self, query: &str) -> Result<Vec<Value>> {
        let server = format!("http://{}", self.address);
        let mut command = Command::new(&self.promtool);
        let said = output_of(command.args(["query", "--format=json", "instant", &server, query])).await?;
        serde_json::from_str(&said).with_context(|| format!("{query}: {said}"))
    }

    /// The values that answer a query now, as Prometheus writes them.
    pub async fn values(&self, query: &str) -> Result<Vec<String>> {
        let series = self.ask(query).await?;
        Ok(series.iter().filter_map(|series| Some(series["value"][1].as_str()?.to_owned())).collect())
    }
}

/// `promtool` with these arguments, which must find nothing wrong.
pub async fn promtool(cache: &Cache, arguments: &[&str]) -> Result<String> {
    output_of(Command::new(programs(cache).await?.join("promtool")).args(arguments)).await
}

async fn programs(cache: &Cache) -> Result<PathBuf> {
    let key = Key::new().with("packages", "prometheus");
    let entry = cache.entry("prometheus", &key, "unpacking prometheus", async |folder| {
        unpacked::unpack(&["bookworm"], &["prometheus".to_owned()], folder).await
    });
    Ok(entry.await?.join("usr/bin"))
}

fn settings_for(targets: &[Target], rules: &Path) -> Value {
    let groups = targets.iter().map(|Target { pod, address }| {
        json!({ "targets": [address], "labels": { "namespace": crate::fleet::NAMESPACE, "pod": pod } })
    });
    json!({
        "global": { "scrape_interval": "1s", "evaluation_interval": "1s" },
        "rule_files": [rules],
        "scrape_configs": [{ "job_name": "lamina", "static_configs": groups.collect::<Vec<_>>() }],
    })
}
