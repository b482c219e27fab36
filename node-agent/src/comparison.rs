//! Decides what is told of a host that was measured just now: asked, systemd and kernel side by side, and what differs.

use std::collections::BTreeMap;

use jiff::Timestamp;
use lamina_crds::measured::{
    API_VERSION, Compared, ComparedSetting, HostVerification, MOST_GROUPS, MOST_THREADS, Pages, ThreadGroup,
    VerifiedFault, VerifiedService, VerifiedSlice, VerifiedTopology,
};
use lamina_crds::{CpuSet, Hardware, NodeSet, TopologyName, UnitName};

use crate::desired::{DesiredEntry, DesiredHost, DesiredService, DesiredSlice};
use crate::migration::in_force;
use crate::observed::{ObservedHost, ObservedUnit};
use crate::plan::waits_for_restart;
use crate::property::{Properties, Property, Value};
use crate::verify::verify;

/// What is measured of a unit beyond what every pass looks at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Probe {
    /// Where its memory lies.
    pub pages: Pages,
    /// Its threads by the CPUs and memory nodes that they may use; for services only.
    pub threads: BTreeMap<(CpuSet, NodeSet), Vec<u32>>,
}

/// The host as it is asked, beside how it was found.
pub fn compare(
    host: &str,
    desired: &DesiredHost,
    observed: &ObservedHost,
    hardware: &Hardware,
    probes: &BTreeMap<UnitName, Probe>,
    now: Timestamp,
) -> HostVerification {
    let seen = Sight { observed, hardware, probes };
    HostVerification {
        api_version: API_VERSION.to_owned(),
        kind: "HostVerification".to_owned(),
        host: host.to_owned(),
        measured_at: now,
        topologies: desired.entries.iter().map(|(name, entry)| topology(name, entry, &seen)).collect(),
    }
}

/// Everything that was seen.
struct Sight<'a> {
    observed: &'a ObservedHost,
    hardware: &'a Hardware,
    probes: &'a BTreeMap<UnitName, Probe>,
}

impl Sight<'_> {
    fn unit(&self, unit: &UnitName) -> ObservedUnit {
        self.observed.units.get(unit).cloned().unwrap_or_default()
    }

    fn probe(&self, unit: &UnitName) -> Probe {
        self.probes.get(unit).cloned().unwrap_or_default()
    }
}

fn topology(name: &TopologyName, entry: &DesiredEntry, seen: &Sight<'_>) -> VerifiedTopology {
    let mut told = VerifiedTopology {
        name: name.clone(),
        state: entry.state,
        revision: entry.revision.clone(),
        slices: Vec::new(),
        services: Vec::new(),
        faults: Vec::new(),
        offline: Vec::new(),
        pending: Vec::new(),
    };
    if !entry.is_present() {
        return told;
    }
    // What waits for a restart is compared as it is in force now, as the agent does in its status.
    let entry = in_force(name, entry, seen.observed);
    let verification = verify(&entry, seen.observed, seen.hardware);
    told.slices = entry.slices.iter().filter(|slice| slice.cpus.is_some()).map(|asked| slice(asked, seen)).collect();
    told.services = entry.services.iter().map(|asked| service(asked, &entry, seen)).collect();
    told.faults = verification.faults.into_iter().map(|(unit, message)| VerifiedFault { unit, message }).collect();
    told.offline = verification.offline;
    let waiting = entry.services.iter().filter(|asked| waits_for_restart(asked, &seen.unit(&asked.unit)));
    told.pending = waiting.map(|asked| asked.unit.clone()).collect();
    told
}

fn slice(asked: &DesiredSlice, seen: &Sight<'_>) -> VerifiedSlice {
    let unit = seen.unit(&asked.unit);
    let cpus = match unit.loaded.get(&Property::AllowedCpus) {
        Some(Value::Cpus(cpus)) => Some(cpus.clone()),
        _ => None,
    };
    let nodes = match unit.loaded.get(&Property::AllowedMemoryNodes) {
        Some(Value::Nodes(nodes)) => Some(nodes.clone()),
        _ => None,
    };
    VerifiedSlice {
        unit: asked.unit.clone(),
        settings: settings(&asked.properties, &unit),
        pages: seen.probe(&asked.unit).pages,
        cpus: Compared { asked: asked.cpus.clone(), property: cpus, kernel: unit.effective_cpus },
        memory_nodes: Compared {
            asked: asked.memory_nodes.clone(),
            property: nodes,
            kernel: unit.effective_memory_nodes,
        },
    }
}

fn service(asked: &DesiredService, entry: &DesiredEntry, seen: &Sight<'_>) -> VerifiedService {
    let unit = seen.unit(&asked.unit);
    let Probe { pages, threads } = seen.probe(&asked.unit);
    let slice = entry.slices.iter().find(|slice| slice.unit == asked.slice);
    let (groups, further_threads) = groups(threads, slice);
    VerifiedService {
        unit: asked.unit.clone(),
        slice: asked.slice.clone(),
        settings: settings(&asked.properties, &unit),
        active_state: unit.active_state,
        sub_state: unit.sub_state,
        threads: unit.threads.count,
        strayed: unit.threads.strayed,
        groups,
        further_threads,
        pages,
    }
}

/// The groups of threads that are told, and how many threads are in none of them.
fn groups(threads: BTreeMap<(CpuSet, NodeSet), Vec<u32>>, slice: Option<&DesiredSlice>) -> (Vec<ThreadGroup>, u32) {
    let is_inside = |group: &ThreadGroup| {
        let asked = slice.map(|slice| (slice.cpus.as_ref(), slice.memory_nodes.as_ref()));
        let (cpus, nodes) = asked.unwrap_or_default();
        cpus.is_none_or(|cpus| group.cpus.is_subset(cpus))
            && nodes.is_none_or(|nodes| group.memory_nodes.is_subset(nodes))
    };
    let group = |((cpus, memory_nodes), mut threads): ((CpuSet, NodeSet), Vec<u32>)| {
        let count = count(threads.len());
        threads.sort_unstable();
        threads.truncate(MOST_THREADS);
        ThreadGroup { cpus, memory_nodes, count, threads }
    };
    let mut groups: Vec<ThreadGroup> = threads.into_iter().map(group).collect();
    groups.sort_by_key(|group| (is_inside(group), std::cmp::Reverse(group.count)));
    let further = groups.iter().skip(MOST_GROUPS).map(|group| group.count).sum();
    groups.truncate(MOST_GROUPS);
    (groups, further)
}

/// What is asked of a unit beside CPUs and memory nodes.
fn settings(asked: &Properties, unit: &ObservedUnit) -> Vec<ComparedSetting> {
    let is_place = |property: Property| matches!(property, Property::AllowedCpus | Property::AllowedMemoryNodes);
    let compared = asked.iter().filter(|(property, _)| !is_place(**property)).map(|(property, value)| {
        let told = |layer: &Properties| layer.get(property).map(ToString::to_string);
        ComparedSetting {
            key: property.key().to_owned(),
            asked: value.to_string(),
            property: told(&unit.loaded),
            kernel: told(&unit.kernel),
        }
    });
    compared.collect()
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
