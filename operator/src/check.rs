//! Judges a resolution by what any resolution must hold, without looking at how it was made. One violation stops every
//! write to that host.

use std::collections::BTreeSet;

use lamina_crds::host_state::{EntryState, SliceEntry};
use lamina_crds::names::is_protected;
use lamina_crds::slice_topology::{Adoption, DeletionPolicy, Isolation, Slice};
use lamina_crds::{Bytes, CpuSet, Hardware, HostStateSpec, Term, TopologyEntry, TopologyName, UnitName};

use crate::pause::is_paused;
use crate::resolve::{HostResolution, LARGEST_HOST_STATE, Resolution};
use crate::selection::selects;
use crate::view::{ClusterView, HostStateView, HostView, Life, NodePresence, Origin};

/// All violations, by host.
pub fn check(view: &ClusterView, resolution: &Resolution) -> Vec<Violation> {
    let host = |(name, resolved): (&String, &HostResolution)| {
        let host = view.hosts.get(name)?;
        let state = host.state.as_ref()?;
        let messages = check_host(view, host, state, resolved);
        Some(messages.into_iter().map(|message| Violation { host: name.clone(), message }).collect::<Vec<_>>())
    };
    resolution.hosts.iter().filter_map(host).flatten().collect()
}

/// Something that no resolution may say.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Violation {
    /// The host whose writes stop.
    pub host: String,
    /// What is wrong: the object, the value, the remedy.
    pub message: String,
}

fn check_host(view: &ClusterView, host: &HostView, state: &HostStateView, resolved: &HostResolution) -> Vec<String> {
    let unreadable = |text: &String| {
        format!("HostState {}: {text}; upgrade the operator to the version that wrote it", state.target.name)
    };
    let mut faults: Vec<String> = state.unreadable.iter().map(unreadable).collect();
    let new: Vec<&TopologyEntry> = resolved.entries.values().filter(|entry| is_new(state, entry)).collect();
    for entry in &new {
        faults.extend(entry_faults(entry));
        faults.extend(state.hardware.as_ref().map(|hardware| presence_faults(entry, hardware)).unwrap_or_default());
    }
    if !new.is_empty() {
        faults.extend(overlaps(view, &resolved.entries.values().collect::<Vec<_>>(), &new));
        faults.extend(state.hardware.as_ref().and_then(|hardware| memory_fault(resolved, hardware)));
        faults.extend(size_fault(resolved));
    }
    faults.extend(paused_faults(view, state, resolved));
    faults.extend(duplicate_units(resolved));
    faults.extend(vanished(state, resolved));
    faults.extend(removals(view, host, state, resolved));
    faults.extend(new.iter().filter_map(|entry| adoption_fault(view, entry)));
    faults
}

/// Paused topologies whose entry would change. One that has been let go of before may leave the object.
fn paused_faults(view: &ClusterView, state: &HostStateView, resolved: &HostResolution) -> Vec<String> {
    let paused = view.topologies.values().filter(|topology| is_paused(topology));
    let changes = |name: &TopologyName| {
        let (present, new) = (state.entries.get(name), resolved.entries.get(name));
        let has_left = new.is_none() && present.is_some_and(|entry| entry.state != EntryState::Present);
        new != present && !has_left
    };
    let names = paused.filter_map(|topology| Some(&topology.wanted()?.0));
    names
        .filter(|name| changes(name))
        .map(|name| format!("topology {name} is paused, and its entry would change"))
        .collect()
}

/// Whether the entry says something that the object does not say already.
fn is_new(state: &HostStateView, entry: &TopologyEntry) -> bool {
    entry.state == EntryState::Present && state.entries.get(&entry.name) != Some(entry)
}

fn entry_faults(entry: &TopologyEntry) -> Vec<String> {
    let TopologyEntry { name, state: _, revision, generation: _, adoption: _, files: _, slices, services } = entry;
    let mut faults = Vec::new();
    let units = slices.iter().map(|slice| &slice.unit).chain(services.iter().map(|service| &service.unit));
    for unit in units {
        if !unit.belongs_to(name) {
            faults.push(format!("{unit} is not named after topology {name}"));
        }
        if is_protected(unit.as_str()) {
            faults.push(format!("{unit} is a protected unit"));
        }
    }
    for slice in slices.iter().filter(|slice| slice.cpus.is_empty()) {
        faults.push(format!("{} has no CPUs, which would mean all of them", slice.unit));
    }
    for service in services.iter().filter(|service| !slices.iter().any(|slice| slice.unit == service.slice)) {
        faults.push(format!("{} names slice {}, which the entry does not hold", service.unit, service.slice));
    }
    if *revision != entry.digest() {
        faults.push(format!("topology {name}: revision {revision} is not the digest of its entry"));
    }
    faults
}

fn presence_faults(entry: &TopologyEntry, hardware: &Hardware) -> Vec<String> {
    let SliceFacts { present, memory } = SliceFacts::of(hardware);
    let fault = |slice: &SliceEntry| {
        let cpus = slice.cpus.difference(&present);
        if !cpus.is_empty() {
            return Some(format!("{} names CPUs {cpus}, which the host does not have", slice.unit));
        }
        let nodes = slice.memory_nodes.as_ref()?;
        let absent: Vec<String> =
            nodes.iter().filter(|node| !memory.contains(node)).map(|node| node.to_string()).collect();
        let none = nodes.is_empty().then(|| format!("{} has an empty set of memory nodes", slice.unit));
        let policy = slice.memory_policy.as_ref().and_then(|policy| policy.nodes.as_ref());
        let outside = policy.map(|named| named.difference(nodes)).filter(|outside| !outside.is_empty());
        let outside =
            outside.map(|outside| format!("{}: memory.policy names nodes {outside} outside its own", slice.unit));
        let absent = (!absent.is_empty()).then(|| {
            format!("{} names memory nodes {}, which have no memory on the host", slice.unit, absent.join(","))
        });
        none.or(absent).or(outside)
    };
    entry.slices.iter().filter_map(fault).collect()
}

struct SliceFacts {
    present: CpuSet,
    memory: BTreeSet<u32>,
}

impl SliceFacts {
    fn of(hardware: &Hardware) -> Self {
        let memory = hardware.numa_nodes.iter().filter(|node| node.memory > Bytes::new(0)).map(|node| node.id);
        Self { present: hardware.cpus.online.union(&hardware.cpus.offline), memory: memory.collect() }
    }
}

/// CPUs that an exclusive slice of a new entry has in common with any other slice that is enforced.
fn overlaps(view: &ClusterView, all: &[&TopologyEntry], new: &[&TopologyEntry]) -> Vec<String> {
    let mut faults = BTreeSet::new();
    for entry in new {
        for slice in &entry.slices {
            for (other_entry, other) in enforced(all).filter(|(_, other)| other.unit != slice.unit) {
                let both_shared = is_shared(view, entry, slice) && is_shared(view, other_entry, other);
                let consented = entry.name == other_entry.name && run_together(view, entry, &slice.unit, &other.unit);
                let common = slice.cpus.intersection(&other.cpus);
                if !both_shared && !consented && !common.is_empty() {
                    let (first, second) =
                        (slice.unit.clone().min(other.unit.clone()), slice.unit.clone().max(other.unit.clone()));
                    faults.insert(format!("{first} and {second} both get CPUs {common}, and one of them is exclusive"));
                }
            }
        }
    }
    faults.into_iter().collect()
}

fn enforced<'a>(entries: &'a [&'a TopologyEntry]) -> impl Iterator<Item = (&'a TopologyEntry, &'a SliceEntry)> {
    let present = entries.iter().filter(|entry| entry.state == EntryState::Present);
    present.flat_map(|entry| entry.slices.iter().map(move |slice| (*entry, slice)))
}

/// Whether the topology as it is written now calls the slice Shared. A held entry, whose topology cannot be read,
/// is given the benefit of the doubt: it does not change.
fn is_shared(view: &ClusterView, entry: &TopologyEntry, slice: &SliceEntry) -> bool {
    let Some(Ok((name, spec))) = view.topologies.get(entry.name.as_str()).map(|topology| topology.spec.as_ref()) else {
        return true;
    };
    let unit_is = |other: &Slice| UnitName::of_slice(name, &other.name).is_ok_and(|unit| unit == slice.unit);
    let found = spec.slices.iter().find(|other| unit_is(other));
    found.is_none_or(|found| found.isolation == Some(Isolation::Shared))
}

/// Whether one of the slices may run inside the other, or both inside a third: `cpu.shareWith`, over several steps.
fn run_together(view: &ClusterView, entry: &TopologyEntry, one: &UnitName, other: &UnitName) -> bool {
    let Some(Ok((name, spec))) = view.topologies.get(entry.name.as_str()).map(|topology| topology.spec.as_ref()) else {
        return true;
    };
    let with = |unit: &UnitName| {
        let is_it = |slice: &&Slice| UnitName::of_slice(name, &slice.name).is_ok_and(|own| own == *unit);
        let host = spec.slices.iter().find(is_it)?.cpu.share_with.as_ref()?;
        UnitName::of_slice(name, host).ok()
    };
    // Rules refuse circles; if one came through, the walk ends all the same.
    let hosts = |unit: &UnitName| -> BTreeSet<UnitName> {
        std::iter::successors(Some(unit.clone()), with).take(spec.slices.len() + 1).collect()
    };
    !hosts(one).is_disjoint(&hosts(other))
}

fn memory_fault(resolved: &HostResolution, hardware: &Hardware) -> Option<String> {
    let entries = resolved.entries.values().filter(|entry| entry.state == EntryState::Present);
    let asked: u128 = entries
        .flat_map(|entry| &entry.slices)
        .filter_map(|slice| slice.memory?.min)
        .map(|min| u128::from(min.get()))
        .sum();
    let there: u128 = hardware.numa_nodes.iter().map(|node| u128::from(node.memory.get())).sum();
    (asked > there).then(|| format!("memory.min of all slices is {asked} bytes together; the host has {there}"))
}

fn size_fault(resolved: &HostResolution) -> Option<String> {
    let spec = HostStateSpec { term: Term::NONE, topologies: resolved.entries.values().cloned().collect() };
    let size = serde_json::to_vec(&spec).map_or(usize::MAX, |json| json.len());
    // Brackets, commas and the field's name come on top of the entries.
    (size > LARGEST_HOST_STATE + 1024)
        .then(|| format!("the spec would be {size} bytes; at most {LARGEST_HOST_STATE} are written"))
}

fn duplicate_units(resolved: &HostResolution) -> Vec<String> {
    let mut seen: BTreeSet<&UnitName> = BTreeSet::new();
    let slices = resolved.entries.values().flat_map(|entry| entry.slices.iter().map(|slice| &slice.unit));
    let services = resolved.entries.values().flat_map(|entry| entry.services.iter().map(|service| &service.unit));
    let twice = slices.chain(services).filter(|unit| !seen.insert(unit));
    twice.map(|unit| format!("{unit} is asked for twice")).collect()
}

/// Entries that would go although the agent has not confirmed that their state is reached.
fn vanished(state: &HostStateView, resolved: &HostResolution) -> Vec<String> {
    let gone = state.entries.values().filter(|entry| !resolved.entries.contains_key(&entry.name));
    let unconfirmed = gone.filter(|entry| {
        let report = state.reports.get(entry.name.as_str());
        let reached = report.is_some_and(|report| report.state == Some(entry.state));
        entry.state == EntryState::Present || !reached || state.reported_generation < state.generation
    });
    unconfirmed
        .map(|entry| format!("the entry of topology {} would go before its agent has let go of it", entry.name))
        .collect()
}

/// Entries that would be removed although nobody asked for it.
fn removals(view: &ClusterView, host: &HostView, state: &HostStateView, resolved: &HostResolution) -> Vec<String> {
    let absent = resolved.entries.values().filter(|entry| entry.state == EntryState::Absent);
    let already =
        |entry: &&TopologyEntry| state.entries.get(&entry.name).is_some_and(|old| old.state == EntryState::Absent);
    let baseless = absent.filter(|entry| !already(entry) && !removal_is_asked(view, host, state, entry));
    baseless.map(|entry| format!("topology {} would be removed although nobody asked for it", entry.name)).collect()
}

fn removal_is_asked(view: &ClusterView, host: &HostView, state: &HostStateView, entry: &TopologyEntry) -> bool {
    let Some(topology) = view.topologies.get(entry.name.as_str()) else { return false };
    let stays_known = host.node == NodePresence::Present || state.origin == Origin::Admin;
    let asked = match (topology.life, &topology.spec) {
        (Life::Leaves, _) => topology.is_held(),
        (Life::Stays, Ok((_, spec))) => stays_known && !selects(&spec.host_selector, &host.labels),
        (Life::Stays, Err(_)) => false,
    };
    asked && topology.deletion_policy == DeletionPolicy::Remove
}

/// An entry that would replace files of the host although its topology does not say so.
fn adoption_fault(view: &ClusterView, entry: &TopologyEntry) -> Option<String> {
    let topology = view.topologies.get(entry.name.as_str());
    let asked = topology.and_then(|topology| topology.spec.as_ref().ok()).and_then(|(_, spec)| spec.adoption);
    (entry.adoption == Adoption::Replace && asked != Some(Adoption::Replace))
        .then(|| format!("topology {} would replace files of the host although it does not say so", entry.name))
}

#[cfg(test)]
mod tests {
    use lamina_crds::host_state::ResolvedMemoryPolicy;
    use lamina_crds::wishes::MemoryPolicy;

    use super::*;
    use crate::resolve::resolve;
    use crate::scene::Scene;

    fn messages(view: &ClusterView, resolution: &Resolution) -> Vec<String> {
        check(view, resolution).into_iter().map(|violation| violation.message).collect()
    }

    fn two() -> (ClusterView, Resolution) {
        let view = Scene::new().topology("x", &["cores: 4"]).topology("y", &["cores: 4"]).host("h").view();
        let resolution = resolve(&view);
        assert_eq!(check(&view, &resolution), []);
        (view, resolution)
    }

    fn entry<'a>(resolution: &'a mut Resolution, topology: &str) -> &'a mut TopologyEntry {
        let host = resolution.hosts.get_mut("h").expect("the host");
        host.entries.values_mut().find(|entry| entry.name.as_str() == topology).expect("the entry")
    }

    fn set_cpus(resolution: &mut Resolution, topology: &str, cpus: &str) {
        let entry = entry(resolution, topology);
        entry.slices[0].cpus = cpus.parse().expect("a list");
        entry.revision = entry.digest();
    }

    #[test]
    fn a_cpu_given_twice_is_seen() {
        let (view, mut resolution) = two();
        set_cpus(&mut resolution, "x", "0-3");
        set_cpus(&mut resolution, "y", "3-6");
        assert_eq!(
            messages(&view, &resolution),
            ["x-s0.slice and y-s0.slice both get CPUs 3, and one of them is exclusive"]
        );
    }

    #[test]
    fn slices_that_consented_may_run_together_and_others_may_not() {
        let share =
            |slices: &mut serde_json::Value, slice: usize, with: &str| slices[slice]["cpu"]["shareWith"] = with.into();
        let scene = Scene::new().topology("x", &["cores: 4", "cores: 2", "cores: 2", "cores: 2"]).host("h");
        let scene = scene.edit("x", |spec| {
            share(&mut spec["slices"], 1, "s0");
            share(&mut spec["slices"], 2, "s1");
        });
        let view = scene.view();
        let mut resolution = resolve(&view);
        for slice in &mut entry(&mut resolution, "x").slices {
            slice.cpus = "0-3".parse().expect("a list");
        }
        let entry = entry(&mut resolution, "x");
        entry.revision = entry.digest();
        let with_the_stranger =
            |name: &str| format!("x-{name}.slice and x-s3.slice both get CPUs 0-3, and one of them is exclusive");
        assert_eq!(messages(&view, &resolution), ["s0", "s1", "s2"].map(with_the_stranger));
    }

    #[test]
    fn a_memory_policy_outside_the_slices_nodes_is_seen() {
        let (view, mut resolution) = two();
        let entry = entry(&mut resolution, "x");
        entry.slices[0].memory_nodes = "0".parse().ok();
        let nodes = "1".parse().ok();
        entry.slices[0].memory_policy = Some(ResolvedMemoryPolicy { policy: MemoryPolicy::Bind, nodes });
        entry.revision = entry.digest();
        assert_eq!(messages(&view, &resolution), ["x-s0.slice: memory.policy names nodes 1 outside its own"]);
    }

    #[test]
    fn a_cpu_that_is_not_there_is_seen() {
        let (view, mut resolution) = two();
        set_cpus(&mut resolution, "x", "18-21");
        assert_eq!(messages(&view, &resolution), ["x-s0.slice names CPUs 20-21, which the host does not have"]);
    }

    #[test]
    fn an_empty_set_of_cpus_is_seen() {
        let (view, mut resolution) = two();
        set_cpus(&mut resolution, "x", "");
        assert_eq!(messages(&view, &resolution), ["x-s0.slice has no CPUs, which would mean all of them"]);
    }

    #[test]
    fn a_memory_node_that_is_not_there_is_seen() {
        let (view, mut resolution) = two();
        let entry = entry(&mut resolution, "x");
        entry.slices[0].memory_nodes = "5".parse().ok();
        entry.revision = entry.digest();
        assert_eq!(messages(&view, &resolution), ["x-s0.slice names memory nodes 5, which have no memory on the host"]);
    }

    #[test]
    fn a_revision_that_is_no_digest_is_seen() {
        let (view, mut resolution) = two();
        entry(&mut resolution, "x").revision = "000000000000".to_owned();
        assert_eq!(messages(&view, &resolution), ["topology x: revision 000000000000 is not the digest of its entry"]);
    }

    #[test]
    fn an_entry_that_vanishes_unconfirmed_is_seen() {
        let view = Scene::new().topology("x", &["cores: 4"]).host("h").written().view();
        let mut resolution = resolve(&view);
        resolution.hosts.get_mut("h").expect("the host").entries.clear();
        assert_eq!(
            messages(&view, &resolution),
            ["the entry of topology x would go before its agent has let go of it"]
        );
    }

    #[test]
    fn a_change_of_a_paused_topology_is_seen() {
        let scene = Scene::new().topology("x", &["cores: 4"]).host("h").written();
        let view = scene.edit("x", |spec| spec["paused"] = true.into()).view();
        let mut resolution = resolve(&view);
        assert_eq!(messages(&view, &resolution), [""; 0]);
        entry(&mut resolution, "x").state = EntryState::Released;
        assert_eq!(messages(&view, &resolution), ["topology x is paused, and its entry would change"]);
    }

    #[test]
    fn a_removal_that_nobody_asked_for_is_seen() {
        let view = Scene::new().topology("x", &["cores: 4"]).host("h").written().view();
        let mut resolution = resolve(&view);
        entry(&mut resolution, "x").state = EntryState::Absent;
        assert_eq!(messages(&view, &resolution), ["topology x would be removed although nobody asked for it"]);
    }

    #[test]
    fn replacing_files_that_nobody_gave_leave_for_is_seen() {
        let (view, mut resolution) = two();
        let entry = entry(&mut resolution, "x");
        entry.adoption = Adoption::Replace;
        entry.revision = entry.digest();
        assert_eq!(
            messages(&view, &resolution),
            ["topology x would replace files of the host although it does not say so"]
        );
    }

    #[test]
    fn an_entry_of_a_later_version_stops_every_write_to_its_host() {
        let scene = Scene::new().topology("x", &["cores: 4"]).host("h").written();
        let view = scene.host_state("h", |state| state["spec"]["topologies"][0]["shape"] = serde_json::json!(1)).view();
        let found = messages(&view, &resolve(&view));
        assert!(found[0].contains("spec.topologies[0].shape") && found[0].ends_with("that wrote it"), "{found:?}");
    }
}
