//! The running example on a fleet of one emulated host, and the questions tests ask about it.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{Fleet, waiting};
use crate::{
    cache::Cache,
    examples,
    host::{Host, HostSpec, Lifetime, QemuHost, scratch::Scratch},
    image::Suite,
};

/// The host's name.
pub const HOST: &str = "host-1";
/// The topology's name.
pub const TOPOLOGY: &str = "orchestrator";
/// Its services in the order in which they start.
pub const SERVICES: [&str; 8] = ["orchestrator", "router", "parser", "hitl", "api", "runner", "agent-runner", "fanout"];
/// How long the whole way from `kubectl apply` to Ready may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// A fleet of one host, made for the running example.
pub struct Example {
    /// The fleet.
    pub fleet: Fleet,
    /// Dropped last: the folder everything lies in.
    _scratch: Scratch,
}

/// The example with its memory scaled to an emulated host.
pub fn text() -> Result<String> {
    serde_json::to_string(&examples::scaled_orchestrator(32)?).context("writing down the example")
}

/// A process of systemd: what must stay the same when nothing is restarted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Life {
    /// `MainPID`
    pub pid: String,
    /// `InvocationID`
    pub invocation: String,
}

impl Example {
    /// A fleet of one host of twenty CPUs with operator and agent, and no topology yet.
    pub async fn up(suite: Suite) -> Result<Self> {
        Self::up_on(HostSpec::twenty(HOST, suite)).await
    }

    /// A fleet of this one host with operator and agent, and no topology yet. The host is called [`HOST`].
    pub async fn up_on(spec: HostSpec) -> Result<Self> {
        let cache = Cache::open()?;
        let scratch = Scratch::new(&cache, "fleet")?;
        let mut fleet = Fleet::install(scratch.path(), Lifetime::Tethered).await?;
        let labels = [("lamina.dev/role", "orchestrator")];
        fleet.add_host(&cache, spec, &labels).await?;
        fleet.start_operator(Lifetime::Tethered).await?;
        Ok(Self { fleet, _scratch: scratch })
    }

    /// A fleet that somebody else has made, of the one host [`HOST`].
    pub fn on(fleet: Fleet, scratch: Scratch) -> Self {
        Self { fleet, _scratch: scratch }
    }

    /// The same as [`Example::up`], with the example applied and Ready.
    pub async fn ready(suite: Suite) -> Result<Self> {
        let this = Self::up(suite).await?;
        this.fleet.apply(&text()?).await?;
        this.fleet.wait_ready(TOPOLOGY, PATIENCE).await?;
        Ok(this)
    }

    /// The host.
    pub fn host(&self) -> Result<&QemuHost> {
        self.fleet.host(HOST)
    }

    /// Output of a script on the host.
    pub async fn on_host(&self, script: &str) -> Result<String> {
        self.host()?.run(script).await
    }

    /// One file of a unit's cgroup; the unit is named without the topology.
    pub async fn cgroup(&self, unit: &str, file: &str) -> Result<String> {
        let text = self.on_host(&format!("cat {}/{file}", Self::cgroup_of(unit))).await?;
        Ok(text.trim().to_owned())
    }

    /// Where a slice's cgroup is.
    pub fn cgroup_of(slice: &str) -> String {
        format!("/sys/fs/cgroup/{TOPOLOGY}.slice/{TOPOLOGY}-{slice}.slice")
    }

    /// The lives of all services by name.
    pub async fn lives(&self) -> Result<BTreeMap<String, Life>> {
        let script = format!("systemctl show -p Id,MainPID,InvocationID '{TOPOLOGY}-*.service'");
        let text = self.on_host(&script).await?;
        let mut lives = BTreeMap::new();
        for block in text.split("\n\n") {
            let field = |key: &str| {
                let found = block.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
                found.unwrap_or_default().to_owned()
            };
            let id = field("Id");
            let stem = id.trim_end_matches(".service");
            let name = stem.strip_prefix("orchestrator-").unwrap_or(stem).to_owned();
            lives.insert(name, Life { pid: field("MainPID"), invocation: field("InvocationID") });
        }
        Ok(lives)
    }

    /// Asks a service about itself.
    pub async fn ask(&self, service: &str, question: &str) -> Result<Value> {
        let answer = self.on_host(&format!("/opt/orchestrator/bin/{service} ask {question}")).await?;
        serde_json::from_str(&answer).with_context(|| format!("{service} answers `{answer}`"))
    }

    /// Changes the topology by a JSON merge patch and tells its new generation.
    pub async fn patch(&self, patch: &Value) -> Result<i64> {
        let text = patch.to_string();
        self.fleet.kubectl(&["patch", "slicetopology", TOPOLOGY, "--type=merge", "-p", &text]).await?;
        Ok(self.fleet.topology(TOPOLOGY).await?.metadata.generation.unwrap_or_default())
    }

    /// Changes one slice or service (by list name) with a function over its JSON.
    pub async fn edit(&self, list: &str, name: &str, change: impl FnOnce(&mut Value)) -> Result<i64> {
        let topology = self.fleet.topology(TOPOLOGY).await?;
        let mut spec = serde_json::to_value(&topology.spec).context("writing down a spec")?;
        let items = spec[list].as_array_mut().with_context(|| format!("spec.{list} is a list"))?;
        let item = items.iter_mut().find(|item| item["name"] == name).with_context(|| format!("{list} has {name}"))?;
        change(item);
        let items = spec[list].take();
        self.patch(&json!({ "spec": { list: items } })).await
    }

    /// Changes a whole list of the spec with a function over its JSON.
    pub async fn edit_list(&self, list: &str, change: impl FnOnce(&mut Vec<Value>)) -> Result<i64> {
        let topology = self.fleet.topology(TOPOLOGY).await?;
        let mut spec = serde_json::to_value(&topology.spec).context("writing down a spec")?;
        let items = spec[list].as_array_mut().with_context(|| format!("spec.{list} is a list"))?;
        change(items);
        let items = spec[list].take();
        self.patch(&json!({ "spec": { list: items } })).await
    }

    /// Waits until the topology is Ready at its present generation.
    pub async fn settle(&self) -> Result<()> {
        self.fleet.wait_ready(TOPOLOGY, PATIENCE).await
    }

    /// A condition of the topology: status, reason, message.
    pub async fn condition(&self, type_: &str) -> Result<(String, String, String)> {
        condition_in(&serde_json::to_value(self.fleet.topology(TOPOLOGY).await?.status)?["conditions"], type_)
    }

    /// A condition of the topology's part of the host's status: status, reason, message.
    pub async fn host_condition(&self, type_: &str) -> Result<(String, String, String)> {
        let status = serde_json::to_value(self.fleet.host_state(HOST).await?.status)?;
        let parts = status["topologies"].as_array().cloned().unwrap_or_default();
        let part = parts.iter().find(|part| part["name"] == TOPOLOGY).cloned().unwrap_or_default();
        condition_in(&part["conditions"], type_)
    }

    /// Waits until a file of a slice's cgroup has this content, and tells how long that took.
    pub async fn wait_cgroup(&self, slice: &str, file: &str, content: &str) -> Result<Duration> {
        let what = format!("{file} of slice {slice} is {content}");
        match waiting::until(&what, PATIENCE, async || Ok(self.cgroup(slice, file).await? == content)).await {
            Ok(took) => Ok(took),
            Err(error) => Err(error.context(self.fleet.dump().await)),
        }
    }

    /// The events about the host's object: reason and note.
    pub async fn events(&self) -> Result<Vec<(String, String)>> {
        let text = self.fleet.kubectl(&["get", "events.events.k8s.io", "-n", "default", "-o", "json"]).await?;
        let list: Value = serde_json::from_str(&text).context("reading events")?;
        let events = list["items"].as_array().cloned().unwrap_or_default();
        let about_host = events.into_iter().filter(|event| event["regarding"]["name"] == HOST);
        let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Ok(about_host.map(|event| (word(&event["reason"]), word(&event["note"]))).collect())
    }

    /// Waits until an event about the host mentions all these words.
    pub async fn wait_event(&self, words: &[&str]) -> Result<()> {
        let what = format!("an event mentions {words:?}");
        let told = async || {
            let events = self.events().await?;
            Ok(events
                .iter()
                .any(|(reason, note)| words.iter().all(|word| note.contains(word) || reason.contains(word))))
        };
        self.fleet.wait(&what, waiting::MINUTE, told).await
    }
}

fn condition_in(conditions: &Value, type_: &str) -> Result<(String, String, String)> {
    let list = conditions.as_array().cloned().unwrap_or_default();
    let found = list.into_iter().find(|condition| condition["type"] == type_);
    let found = found.with_context(|| format!("there is no condition {type_} yet"))?;
    let word = |key: &str| found[key].as_str().unwrap_or_default().to_owned();
    Ok((word("status"), word("reason"), word("message")))
}
