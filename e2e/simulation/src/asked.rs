//! Judges whether an entry of a HostState says what a topology's user asked, straight from the spec: written apart from
//! the operator's resolution, so that the two check each other.

use std::collections::BTreeMap;
use std::rc::Rc;

use lamina_crds::host_state::EntryState;
use lamina_crds::slice_topology::Isolation;
use lamina_crds::{CpuSet, SliceTopologySpec, TopologyEntry, TopologyName, UnitName};

use crate::api::{Kind, Store};

/// The entries of a host's spec at a generation; at the newest one not above it.
pub fn entries_of(store: &Store, host: &str, generation: i64) -> Rc<[TopologyEntry]> {
    let newest = store.get(Kind::HostState, host);
    let object =
        newest.filter(|object| object.generation <= generation).or_else(|| store.at_generation(host, generation));
    object.map(|object| store.entries(object)).unwrap_or_default()
}

/// Whether a host's labels match a spec's selector; histories select by plain labels only.
pub fn is_selected(store: &Store, host: &str, spec: &SliceTopologySpec) -> bool {
    let labels: BTreeMap<String, String> = [Kind::HostState, Kind::Node]
        .into_iter()
        .filter_map(|kind| store.get(kind, host))
        .flat_map(|object| object.labels.clone())
        .collect();
    spec.host_selector.match_labels.iter().all(|(key, value)| labels.get(key) == Some(&value.0))
}

/// What reached a host although its topology was paused: no entry is ever of a generation at which it was.
pub fn broken_pauses(store: &Store, host: &str) -> Vec<String> {
    let entries = entries_of(store, host, i64::MAX);
    let present = entries.iter().filter(|entry| entry.state == EntryState::Present);
    let was_paused = |entry: &&TopologyEntry| {
        let mut asked = store.topologies_at(entry.name.as_str(), entry.generation).peekable();
        asked.peek().is_some() && asked.all(|topology| topology.spec.get("paused") == Some(&true.into()))
    };
    let broken = present.filter(was_paused);
    broken
        .map(|entry| format!("{host} got generation {} of {}, which is paused", entry.generation, entry.name))
        .collect()
}

/// In what an entry differs from what the spec asks.
pub fn mismatches(spec: &SliceTopologySpec, entry: &TopologyEntry) -> Vec<String> {
    let mut found = Vec::new();
    if entry.state != EntryState::Present {
        found.push(format!("the entry is {:?}", entry.state));
    }
    if entry.revision != entry.digest() {
        found.push("the revision is no digest of the entry".to_owned());
    }
    if entry.adoption != spec.adoption.unwrap_or_default() {
        found.push(format!("the entry's adoption is {:?}", entry.adoption));
    }
    found.extend(slice_mismatches(spec, entry));
    found.extend(service_mismatches(spec, entry));
    let files: Vec<(&str, &str)> = spec.files.iter().map(|file| (file.name.as_str(), file.content.as_str())).collect();
    let delivered: Vec<(&str, &str)> =
        entry.files.iter().map(|file| (file.name.as_str(), file.content.as_str())).collect();
    if files != delivered {
        found.push("the files differ".to_owned());
    }
    found
}

fn slice_mismatches(spec: &SliceTopologySpec, entry: &TopologyEntry) -> Vec<String> {
    let mut found = Vec::new();
    let mut taken = CpuSet::new();
    for slice in &spec.slices {
        let unit = unit(&entry.name, |name| UnitName::of_slice(name, &slice.name).ok());
        let Some(given) = entry.slices.iter().find(|given| Some(&given.unit) == unit.as_ref()) else {
            found.push(format!("slice {} is missing", slice.name));
            continue;
        };
        let is_enough = match (&slice.cpu.set, slice.cpu.cores) {
            (Some(set), _) => given.cpus == *set,
            (None, cores) => given.cpus.len() == cores.unwrap_or(0) as usize,
        };
        if !is_enough {
            found.push(format!("slice {} got CPUs {}", slice.name, given.cpus));
        }
        if slice.isolation.unwrap_or_default() == Isolation::Exclusive && !taken.is_disjoint(&given.cpus) {
            found.push(format!("slice {} shares CPUs of {}", slice.name, given.cpus));
        }
        taken = taken.union(&given.cpus);
        let limits = slice.memory.as_ref().and_then(|memory| memory.limits());
        if (given.memory, given.io, given.tasks) != (limits, slice.io, slice.tasks) {
            found.push(format!("the limits of slice {} differ", slice.name));
        }
    }
    if entry.slices.len() != spec.slices.len() {
        found.push(format!("there are {} slices", entry.slices.len()));
    }
    found
}

fn service_mismatches(spec: &SliceTopologySpec, entry: &TopologyEntry) -> Vec<String> {
    let mut found = Vec::new();
    for service in &spec.services {
        let own = unit(&entry.name, |name| UnitName::of_service(name, &service.name).ok());
        let slice = unit(&entry.name, |name| UnitName::of_slice(name, &service.slice).ok());
        let Some(given) = entry.services.iter().find(|given| Some(&given.unit) == own.as_ref()) else {
            found.push(format!("service {} is missing", service.name));
            continue;
        };
        let user = service.user.as_ref().or(spec.service_defaults.as_ref().and_then(|all| all.user.as_ref()));
        if given.command != service.command || Some(&given.user) != user || Some(&given.slice) != slice.as_ref() {
            found.push(format!("service {} runs {:?} in {}", service.name, given.command, given.slice));
        }
        if given.on_change != service.on_change.unwrap_or_default() || given.memory != service.memory {
            found.push(format!("service {} differs", service.name));
        }
    }
    if entry.services.len() != spec.services.len() {
        found.push(format!("there are {} services", entry.services.len()));
    }
    found
}

fn unit(topology: &TopologyName, name: impl FnOnce(&TopologyName) -> Option<UnitName>) -> Option<UnitName> {
    name(topology)
}
