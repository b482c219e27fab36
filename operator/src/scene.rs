//! A small world for tests: topologies, hosts and what their agents say, kept as the JSON that an API server would send,
//! and a `Cluster` that counts what is written to it.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use lamina_crds::host_state::ORIGIN_LABEL;
use lamina_crds::told::{Subject, untold};
use lamina_crds::{SliceTopologyStatus, Term};
use serde_json::{Value, json};

use crate::changes::{Change, Target};
use crate::cluster::{Cluster, ClusterError, TopologyEvent};
use crate::controller::{PassSummary, pass};
use crate::memory::Memory;
use crate::placement::tests::seed;
use crate::snapshot::{LeaseTrace, RawObject, Snapshot};
use crate::view::{ClusterView, Definitions, gather};

/// The moment of so many seconds.
pub fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("a legal time")
}

/// Everything there is, at second 1000 unless a test says otherwise; the leases are watched since second 0.
#[derive(Clone)]
pub struct Scene {
    pub topologies: BTreeMap<String, Value>,
    pub host_states: BTreeMap<String, Value>,
    pub nodes: BTreeMap<String, BTreeMap<String, String>>,
    pub leases: BTreeMap<String, LeaseTrace>,
    pub definitions: Definitions,
    pub term: Term,
    pub now: Timestamp,
    pub watching_since: Timestamp,
    pub refuses: Option<String>,
    pub writes: Vec<String>,
    pub events: Vec<TopologyEvent>,
    memory: Memory,
    version: u64,
}

impl Scene {
    pub fn new() -> Self {
        Self {
            topologies: BTreeMap::new(),
            host_states: BTreeMap::new(),
            nodes: BTreeMap::new(),
            leases: BTreeMap::new(),
            definitions: Definitions::Stay,
            term: Term::NONE.next(),
            now: at(1000),
            watching_since: at(0),
            refuses: None,
            writes: Vec::new(),
            events: Vec::new(),
            memory: Memory::default(),
            version: 1,
        }
    }

    /// A topology for hosts of role edge, with slices s0, s1, ... that ask for these CPUs ("cores: 4", "set: 0-3").
    pub fn topology(mut self, name: &str, cpus: &[&str]) -> Self {
        let slice = |(index, cpu): (usize, &&str)| {
            let (key, value) = cpu.split_once(": ").expect("key: value");
            let value = if key == "cores" { json!(value.parse::<u32>().expect("a number")) } else { json!(value) };
            json!({ "name": format!("s{index}"), "cpu": { key: value } })
        };
        self.version += 1;
        let object = json!({
            "metadata": { "name": name, "uid": format!("uid-{name}-{}", self.version), "generation": 1,
                "resourceVersion": self.version.to_string(),
                "creationTimestamp": at(self.version as i64).to_string() },
            "spec": {
                "hostSelector": { "matchLabels": { "role": "edge" } },
                "slices": cpus.iter().enumerate().map(slice).collect::<Vec<_>>(),
            },
        });
        self.topologies.insert(name.to_owned(), object);
        self
    }

    /// Edits the spec of a topology: a new generation.
    pub fn edit(mut self, name: &str, edit: impl FnOnce(&mut Value)) -> Self {
        let version = self.next_version();
        let object = self.topologies.get_mut(name).expect("the topology");
        edit(&mut object["spec"]);
        let generation = object["metadata"]["generation"].as_i64().unwrap_or(0) + 1;
        object["metadata"]["generation"] = json!(generation);
        object["metadata"]["resourceVersion"] = json!(version);
        self
    }

    /// Asks for the deletion of a topology, as kubectl does.
    pub fn delete(mut self, name: &str) -> Self {
        let held = self.topologies[name]["metadata"]["finalizers"].as_array().is_some_and(|list| !list.is_empty());
        if held {
            let version = self.next_version();
            let metadata = &mut self.topologies.get_mut(name).expect("the topology")["metadata"];
            metadata["deletionTimestamp"] = json!(at(999).to_string());
            metadata["resourceVersion"] = json!(version);
        } else {
            self.topologies.remove(name);
        }
        self
    }

    /// A node of role edge, nothing else.
    pub fn node(mut self, name: &str) -> Self {
        self.nodes.insert(name.to_owned(), BTreeMap::from([("role".to_owned(), "edge".to_owned())]));
        self
    }

    /// A node of role edge with a HostState, whose agent is alive and has reported the twenty-CPU host.
    pub fn host(self, name: &str) -> Self {
        let mut scene = self.node(name);
        let version = scene.next_version();
        let object = json!({
            "metadata": { "name": name, "uid": format!("uid-{name}-{version}"), "generation": 1,
                "resourceVersion": version, "labels": { ORIGIN_LABEL: "Node" } },
            "spec": {},
            "status": { "observedGeneration": 1, "hardware": seed() },
        });
        scene.host_states.insert(name.to_owned(), object);
        scene.renew(name);
        scene
    }

    /// Several such hosts: h01, h02, ...
    pub fn hosts(self, count: usize) -> Self {
        (1..=count).fold(self, |scene, number| scene.host(&format!("h{number:02}")))
    }

    /// The agent of this host renews its lease now.
    pub fn renew(&mut self, host: &str) {
        let changed = Some(self.now);
        self.leases.insert(host.to_owned(), LeaseTrace { first_seen: at(0), last_change_seen: changed });
    }

    /// The agents of these hosts have been silent for long.
    pub fn silence(mut self, hosts: &[&str]) -> Self {
        for host in hosts {
            self.leases.insert((*host).to_owned(), LeaseTrace { first_seen: at(0), last_change_seen: Some(at(1)) });
        }
        self
    }

    /// Edits a whole HostState, for instance what its agent says.
    pub fn host_state(mut self, name: &str, edit: impl FnOnce(&mut Value)) -> Self {
        let version = self.next_version();
        let object = self.host_states.get_mut(name).expect("the host state");
        edit(object);
        object["metadata"]["resourceVersion"] = json!(version);
        self
    }

    /// Passes until nothing is left to write.
    pub fn written(mut self) -> Self {
        for _ in 0..10 {
            if self.pass().writes == 0 {
                return self;
            }
        }
        panic!("it does not settle: {:?}", self.writes);
    }

    /// One pass, alone.
    pub fn pass(&mut self) -> PassSummary {
        self.try_pass().expect("the server answers")
    }

    /// One pass, alone, which may end early.
    pub fn try_pass(&mut self) -> Result<PassSummary, ClusterError> {
        let mut memory = std::mem::take(&mut self.memory);
        let (term, now) = (self.term, self.now);
        let result = futures::executor::block_on(pass(&mut memory, self, term, now));
        self.memory = memory;
        result
    }

    /// Every agent does as its spec says and reports so.
    pub fn reported(mut self) -> Self {
        let names: Vec<String> = self.host_states.keys().cloned().collect();
        for name in names {
            self = self.host_state(&name, |state| {
                let entries = state["spec"]["topologies"].as_array().cloned().unwrap_or_default();
                let reports: Vec<Value> = entries.iter().map(obedient).collect();
                state["status"]["topologies"] = json!(reports);
                state["status"]["observedGeneration"] = state["metadata"]["generation"].clone();
            });
        }
        self
    }

    /// The agent of a host says this about a topology's condition.
    pub fn says(self, host: &str, topology: &str, condition: &str, status: &str, reason: &str, message: &str) -> Self {
        self.host_state(host, |state| {
            let reports = state["status"]["topologies"].as_array_mut().expect("reports");
            let report = reports.iter_mut().find(|report| report["name"] == topology).expect("the report");
            let conditions = report["conditions"].as_array_mut().expect("conditions");
            conditions.retain(|present| present["type"] != condition);
            conditions.push(said(condition, status, reason, message));
        })
    }

    /// What the caches hold.
    pub fn snapshot(&self) -> Snapshot {
        let objects = |objects: &BTreeMap<String, Value>| {
            let raw = objects.values().filter_map(RawObject::from_json);
            raw.map(|raw| (raw.name.clone(), Arc::new(raw))).collect()
        };
        Snapshot {
            topologies: objects(&self.topologies),
            host_states: objects(&self.host_states),
            nodes: self.nodes.clone(),
            leases: self.leases.clone(),
            watching_since: self.watching_since,
        }
    }

    /// The same, decoded.
    pub fn view(&self) -> ClusterView {
        gather(&self.snapshot())
    }

    /// The status of a topology as written.
    pub fn status(&self, topology: &str) -> SliceTopologyStatus {
        serde_json::from_value(self.topologies[topology]["status"].clone()).expect("a status")
    }

    /// `Ready True AsAsked` of a topology's condition.
    pub fn condition(&self, topology: &str, type_: &str) -> String {
        let status = &self.topologies[topology]["status"];
        let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
        let found = conditions.iter().find(|condition| condition["type"] == type_).expect("the condition");
        let word = |key: &str| found[key].as_str().unwrap_or_default().to_owned();
        format!("{} {}", word("status"), word("reason"))
    }

    /// The states of a host's entries, by topology: `x Present`.
    pub fn entries(&self, host: &str) -> Vec<String> {
        let entries = self.host_states[host]["spec"]["topologies"].as_array().cloned().unwrap_or_default();
        let text = |entry: &Value, key: &str| entry[key].as_str().unwrap_or_default().to_owned();
        entries.iter().map(|entry| format!("{} {}", text(entry, "name"), text(entry, "state"))).collect()
    }

    fn next_version(&mut self) -> String {
        self.version += 1;
        self.version.to_string()
    }

    fn guard(&self, attempt: String, found: Option<&Value>, target: &Target) -> Result<(), ClusterError> {
        if self.refuses.as_deref() == Some(target.name.as_str()) {
            return Err(ClusterError::Refused { attempt, message: "policy says no".to_owned() });
        }
        let Some(found) = found else {
            return Err(ClusterError::NotFound { attempt, message: "gone".to_owned() });
        };
        let same = found["metadata"]["uid"] == target.uid.as_str()
            && found["metadata"]["resourceVersion"] == target.resource_version.as_str();
        if same { Ok(()) } else { Err(ClusterError::Conflict { attempt, message: "changed".to_owned() }) }
    }
}

fn said(condition: &str, status: &str, reason: &str, message: &str) -> Value {
    json!({ "type": condition, "status": status, "reason": reason, "message": message,
        "lastTransitionTime": at(900).to_string(), "observedGeneration": 1 })
}

fn obedient(entry: &Value) -> Value {
    let slices = entry["slices"].as_array().cloned().unwrap_or_default();
    let measured = |slice: &Value| {
        json!({ "unit": slice["unit"], "cpus": slice["cpus"], "memoryNodes": slice["memoryNodes"].as_str().unwrap_or(""),
            "services": 0, "servicesReady": 0 })
    };
    json!({
        "name": entry["name"], "state": entry["state"], "revision": entry["revision"],
        "slices": slices.iter().map(measured).collect::<Vec<_>>(),
        "conditions": [said("Ready", "True", "AsAsked", "as asked"), said("Stalled", "False", "Settled", "")],
    })
}

fn raw(object: &Value) -> RawObject {
    RawObject::from_json(object).expect("it has a name")
}

impl Cluster for Scene {
    fn snapshot(&self) -> Snapshot {
        Scene::snapshot(self)
    }

    async fn definitions_are_leaving(&mut self) -> Result<bool, ClusterError> {
        Ok(self.definitions == Definitions::Leave)
    }

    async fn perform(&mut self, change: &Change) -> Result<Option<RawObject>, ClusterError> {
        let version = self.next_version();
        let attempt = change.attempt();
        let body = change.body();
        let result = match change {
            Change::CreateHostState { host, term: _ } => {
                let mut object = body;
                object["metadata"]["uid"] = json!(format!("uid-{host}-{version}"));
                object["metadata"]["generation"] = json!(1);
                object["metadata"]["creationTimestamp"] = json!(self.now.to_string());
                object["metadata"]["resourceVersion"] = json!(version);
                self.host_states.insert(host.clone(), object.clone());
                Some(raw(&object))
            }
            Change::ApplyHostSpec { target: _, spec } if spec.topologies.is_empty() => {
                return Err(ClusterError::Refused { attempt, message: "spec: Required value".to_owned() });
            }
            Change::ApplyHostSpec { target, .. } | Change::EmptyHostSpec { target, .. } => {
                self.guard(attempt.clone(), self.host_states.get(&target.name), target)?;
                let object = self.host_states.get_mut(&target.name).expect("guarded");
                object["spec"] = body["spec"].clone();
                object["metadata"]["generation"] = json!(object["metadata"]["generation"].as_i64().unwrap_or(0) + 1);
                object["metadata"]["resourceVersion"] = json!(version);
                Some(raw(object))
            }
            Change::DeleteHostState { target } => {
                self.guard(attempt.clone(), self.host_states.get(&target.name), target)?;
                self.host_states.remove(&target.name);
                None
            }
            Change::SetFinalizers { target, finalizers } => {
                self.guard(attempt.clone(), self.topologies.get(&target.name), target)?;
                let object = self.topologies.get_mut(&target.name).expect("guarded");
                object["metadata"]["finalizers"] = json!(finalizers);
                object["metadata"]["resourceVersion"] = json!(version);
                let result = raw(object);
                if finalizers.is_empty() && result.deletion_asked.is_some() {
                    self.topologies.remove(&target.name);
                }
                Some(result)
            }
        };
        self.writes.push(attempt);
        Ok(result)
    }

    async fn patch_topology_status(
        &mut self,
        topology: &Target,
        status: &SliceTopologyStatus,
    ) -> Result<RawObject, ClusterError> {
        let attempt = format!("write the status of {}", topology.name);
        assert_eq!(untold(Subject::Topology, &status.conditions), None, "{attempt}");
        let version = self.next_version();
        self.guard(attempt.clone(), self.topologies.get(&topology.name), topology)?;
        let object = self.topologies.get_mut(&topology.name).expect("guarded");
        object["status"] = json!(status);
        object["metadata"]["resourceVersion"] = json!(version);
        self.writes.push(attempt);
        Ok(raw(object))
    }

    async fn record_event(&mut self, event: &TopologyEvent) -> Result<(), ClusterError> {
        self.events.push(event.clone());
        Ok(())
    }
}
