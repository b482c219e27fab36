//! Decides what is answered to `verify`: what was measured or said last, slice by slice, and whether it is as asked.

use std::collections::BTreeMap;

use jiff::Timestamp;
use lamina_crds::conditions::{ConditionType, find, holds_at};
use lamina_crds::host_state::{EntryState, SliceStatus, TopologyStatus};
use lamina_crds::measured::{
    API_VERSION, Compared, HostVerification, Pages, VerifiedService, VerifiedSlice, VerifiedTopology,
};
use lamina_crds::{CpuSet, NodeSet, SliceTopologySpec, TopologyName, UnitName};
use serde::Serialize;

use crate::asked::{asked, resolved};
use crate::cluster::objects::Host;
use crate::outcome::Outcome;
use crate::plan::own_name;

/// What topologies ask for, by name: wishes in the words of their authors.
pub type Wishes = BTreeMap<TopologyName, SliceTopologySpec>;

/// What is answered.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    /// The version of this form.
    pub api_version: &'static str,
    /// Always `Verification`.
    pub kind: &'static str,
    /// The host.
    pub host: String,
    /// Where the answer comes from.
    pub source: Source,
    /// When it was measured; of what was said last: when the agent was heard last, if that may be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<Timestamp>,
    /// Why nothing is measured now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_measured: Option<String>,
    /// Whether everything is as asked.
    pub verdict: Verdict,
    /// The slices, asked and found.
    pub slices: Vec<SliceRow>,
    /// What is wrong, in sentences.
    pub faults: Vec<String>,
    /// What is worth knowing though it is as asked.
    pub notes: Vec<String>,
    /// Everything that was measured, as the host's agent tells it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub measured: Vec<VerifiedTopology>,
}

/// Where an answer comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Source {
    /// This program measured this host.
    Here,
    /// The host's agent measured it, asked by way of the API server.
    Agent,
    /// Nobody measured: this is what the agent said last in the host's HostState.
    HostState,
}

/// Whether everything is as asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Verdict {
    /// It is.
    AsAsked,
    /// Something differs.
    Differs,
    /// Nobody knows: the agent is silent.
    Unknown,
}

/// One slice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SliceRow {
    /// Its topology.
    pub topology: TopologyName,
    /// Its name.
    pub slice: String,
    /// Its unit.
    pub unit: UnitName,
    /// What is wished for, in words.
    pub asked: String,
    /// Its CPUs in every layer.
    pub cpus: Compared<CpuSet>,
    /// Its memory nodes in every layer.
    pub memory_nodes: Compared<NodeSet>,
    /// Its threads; of what was said last, nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threads: Option<ThreadCount>,
    /// Its services.
    pub services: ServiceCount,
    /// Bytes by NUMA node.
    pub pages: Pages,
    /// Whether it is as asked, with everything in it.
    pub as_asked: bool,
}

/// Threads of a slice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ThreadCount {
    /// All.
    pub all: u32,
    /// Those that may run outside the slice's CPUs or take memory outside its nodes.
    pub outside: u32,
}

/// Services of a slice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceCount {
    /// Those that are as asked.
    pub as_asked: u32,
    /// All.
    pub all: u32,
}

impl Answer {
    /// How asking ends.
    pub fn outcome(&self) -> Outcome {
        match self.verdict {
            Verdict::AsAsked => Outcome::Done,
            Verdict::Differs | Verdict::Unknown => Outcome::Changes,
        }
    }
}

/// The answer out of a measurement.
pub fn measured(found: HostVerification, source: Source, wishes: &Wishes) -> Answer {
    let HostVerification { api_version: _, kind: _, host, measured_at, topologies } = found;
    let faults: Vec<String> =
        topologies.iter().flat_map(|topology| &topology.faults).map(|fault| fault.message.clone()).collect();
    Answer {
        api_version: API_VERSION,
        kind: "Verification",
        host,
        source,
        at: Some(measured_at),
        not_measured: None,
        verdict: if faults.is_empty() { Verdict::AsAsked } else { Verdict::Differs },
        slices: topologies.iter().flat_map(|topology| measured_rows(topology, wishes)).collect(),
        faults,
        notes: topologies.iter().flat_map(notes).collect(),
        measured: topologies,
    }
}

fn measured_rows(topology: &VerifiedTopology, wishes: &Wishes) -> Vec<SliceRow> {
    let row = |slice: &VerifiedSlice| {
        let VerifiedSlice { unit, cpus, memory_nodes, settings: _, pages } = slice;
        let inside: Vec<&VerifiedService> = topology.services.iter().filter(|service| service.slice == *unit).collect();
        let clears = |unit: &UnitName| topology.faults.iter().all(|fault| fault.unit != *unit);
        let is_clear = inside.iter().filter(|service| clears(&service.unit)).count();
        SliceRow {
            topology: topology.name.clone(),
            slice: own_name(unit, &topology.name),
            unit: unit.clone(),
            asked: wish(wishes, &topology.name, unit, cpus, memory_nodes),
            threads: Some(ThreadCount {
                all: inside.iter().map(|service| service.threads).sum(),
                outside: inside.iter().map(|service| outside(service, slice)).sum(),
            }),
            services: ServiceCount { as_asked: count(is_clear), all: count(inside.len()) },
            pages: pages.clone(),
            as_asked: clears(unit) && is_clear == inside.len(),
            cpus: cpus.clone(),
            memory_nodes: memory_nodes.clone(),
        }
    };
    topology.slices.iter().map(row).collect()
}

/// Threads of a service that are not held inside its slice.
fn outside(service: &VerifiedService, slice: &VerifiedSlice) -> u32 {
    let (cpus, nodes) = (slice.cpus.asked.as_ref(), slice.memory_nodes.asked.as_ref());
    let outside = service.groups.iter().filter(|group| {
        cpus.is_some_and(|cpus| !group.cpus.is_subset(cpus))
            || nodes.is_some_and(|nodes| !group.memory_nodes.is_subset(nodes))
    });
    outside.map(|group| group.count).sum()
}

fn wish(
    wishes: &Wishes,
    topology: &TopologyName,
    unit: &UnitName,
    cpus: &Compared<CpuSet>,
    nodes: &Compared<NodeSet>,
) -> String {
    let name = own_name(unit, topology);
    let spec = wishes.get(topology);
    let slice = spec.and_then(|spec| spec.slices.iter().find(|slice| slice.name.as_str() == name));
    slice.map_or_else(|| resolved(cpus.asked.as_ref(), nodes.asked.as_ref()), asked)
}

fn notes(topology: &VerifiedTopology) -> Vec<String> {
    let VerifiedTopology { name, state, offline, pending, .. } = topology;
    let mut notes = offline.clone();
    match state {
        EntryState::Present => {}
        EntryState::Released => {
            notes.push(format!("{name} is released: it keeps running as it is, nothing is compared"))
        }
        EntryState::Absent => notes.push(format!("{name} is to be removed, nothing is compared")),
    }
    if !pending.is_empty() {
        let units: Vec<String> = pending.iter().map(ToString::to_string).collect();
        notes.push(format!("changed settings take effect when these are restarted: {}", units.join(", ")));
    }
    notes
}

/// The answer out of what the host's agent said last.
pub fn said_last(host: &Host, why: String, is_silent: bool, wishes: &Wishes) -> Answer {
    let status = &host.status;
    let generation = host.generation;
    let ready = |conditions: &[_]| holds_at(conditions, ConditionType::Ready, generation);
    let unready = status.topologies.iter().filter(|topology| !ready(&topology.conditions));
    let mut faults: Vec<String> = unready.map(ready_message).collect();
    if faults.is_empty() && !ready(&status.conditions) {
        faults.extend(find(&status.conditions, ConditionType::Ready).map(|ready| ready.message.clone()));
    }
    let is_current = status.observed_generation >= generation;
    if !is_current {
        faults.push(format!("generation {generation} of its HostState was not looked at yet"));
    }
    Answer {
        api_version: API_VERSION,
        kind: "Verification",
        host: host.name.clone(),
        source: Source::HostState,
        at: host.heard,
        not_measured: Some(why),
        verdict: match (is_silent, is_current && ready(&status.conditions) && faults.is_empty()) {
            (true, _) => Verdict::Unknown,
            (false, true) => Verdict::AsAsked,
            (false, false) => Verdict::Differs,
        },
        slices: status.topologies.iter().flat_map(|topology| said_rows(host, topology, wishes)).collect(),
        faults,
        notes: Vec::new(),
        measured: Vec::new(),
    }
}

fn ready_message(topology: &TopologyStatus) -> String {
    let ready = find(&topology.conditions, ConditionType::Ready);
    ready.map_or_else(|| format!("{}: nothing was said of it yet", topology.name), |ready| ready.message.clone())
}

fn said_rows(host: &Host, topology: &TopologyStatus, wishes: &Wishes) -> Vec<SliceRow> {
    let Ok(name) = TopologyName::new(topology.name.as_str()) else { return Vec::new() };
    let entry = host.entries.iter().find(|entry| entry.name == name);
    let row = |said: &SliceStatus| {
        let SliceStatus { unit, cpus, memory_nodes, services, services_ready } = said;
        let unit = UnitName::new(unit.as_str()).ok()?;
        let entry = entry.and_then(|entry| entry.slices.iter().find(|slice| slice.unit == unit));
        let cpus =
            Compared { asked: entry.map(|slice| slice.cpus.clone()), property: None, kernel: Some(cpus.clone()) };
        let memory_nodes = Compared {
            asked: entry.and_then(|slice| slice.memory_nodes.clone()),
            property: None,
            kernel: Some(memory_nodes.clone()),
        };
        Some(SliceRow {
            topology: name.clone(),
            slice: own_name(&unit, &name),
            asked: wish(wishes, &name, &unit, &cpus, &memory_nodes),
            threads: None,
            services: ServiceCount { as_asked: *services_ready, all: *services },
            pages: Pages::new(),
            as_asked: services == services_ready && cpus.asked == cpus.kernel,
            unit,
            cpus,
            memory_nodes,
        })
    };
    topology.slices.iter().filter_map(row).collect()
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

#[cfg(test)]
pub(super) mod tests;
