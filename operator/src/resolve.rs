//! Decides what every host should hold: which topologies mean it, where their slices go, and what becomes of those that
//! no longer mean it. The same view gives the same bytes.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use lamina_crds::conditions::Reason;
use lamina_crds::host_state::EntryState;
use lamina_crds::slice_topology::DeletionPolicy;
use lamina_crds::{CpuSet, TopologyEntry, TopologyName};

use crate::entry::{Named, Place};
use crate::pause::{is_paused, paused, paused_outcomes};
use crate::placement::{Demand, Incumbent, Placed, Placement, Site, place};
use crate::promises::MemoryLedger;
use crate::selection::selects;
use crate::shortage::shortages;
use crate::view::{
    ClusterView, Definitions, HostStateView, HostView, Life, NodePresence, Origin, Refusal, TopologyView,
};

/// The most bytes that all entries of one host hold together.
pub const LARGEST_HOST_STATE: usize = 256 << 10;
/// The most entries of one host.
pub const MOST_ENTRIES: usize = 64;

/// Resolves every topology on every host.
pub fn resolve(view: &ClusterView) -> Resolution {
    let named = view.topologies.iter().filter_map(|(name, topology)| {
        let (topology_name, spec) = topology.wanted()?;
        Some((name.as_str(), (topology.as_ref(), Named::of(topology_name, spec))))
    });
    let named: BTreeMap<&str, Wish> = named.collect();
    let hosts = view.hosts.iter().map(|(name, host)| (name.clone(), resolve_host(view, &named, name, host)));
    Resolution { hosts: hosts.collect() }
}

/// What every host should hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Resolution {
    /// All hosts of the view, by name.
    pub hosts: BTreeMap<String, HostResolution>,
}

/// What one host should hold, and how each topology that means it fares there.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HostResolution {
    /// All entries, by topology.
    pub entries: BTreeMap<TopologyName, TopologyEntry>,
    /// One outcome for each topology that selects this host.
    pub outcomes: BTreeMap<TopologyName, Outcome>,
    /// The paused topologies that would change something here.
    pub waiting: BTreeSet<TopologyName>,
}

/// How a topology fares on a host that it selects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It has its place there.
    Placed {
        /// What its slices lack, the gravest first.
        shortages: Vec<Refusal>,
    },
    /// The agent has not reported the hardware; nothing can be said.
    AwaitsInventory,
    /// It would have its place there, but is paused; what the host holds stays as it is.
    Paused,
    /// The host cannot follow; what it holds stays as it is.
    Refused(Refusal),
}

/// A topology that is to stay, with its units named.
pub(crate) type Wish<'a> = (&'a TopologyView, Result<Named<'a>, Refusal>);

impl Resolution {
    /// The hosts that a topology selects, with its outcome there.
    pub fn selected<'a>(&'a self, topology: &'a TopologyName) -> impl Iterator<Item = (&'a String, &'a Outcome)> {
        self.hosts.iter().filter_map(move |(host, resolution)| Some((host, resolution.outcomes.get(topology)?)))
    }

    /// On how many hosts a paused topology would change something.
    pub fn waiting(&self, topology: &TopologyName) -> usize {
        self.hosts.values().filter(|host| host.waiting.contains(topology)).count()
    }
}

fn resolve_host(view: &ClusterView, named: &BTreeMap<&str, Wish>, name: &str, host: &HostView) -> HostResolution {
    let present = host.state.as_ref().map(|state| state.entries.clone()).unwrap_or_default();
    let mut wishes: Vec<&Wish> = named.values().filter(|(topology, _)| selected(topology, host)).collect();
    wishes.sort_by_key(|(topology, _)| rank(topology, &present));
    let paused = paused(&wishes);
    let (mut outcomes, _) = outcomes(name, host, &wishes, &paused);
    let held = paused_outcomes(name, host, &wishes, &paused, &present);
    outcomes.extend(held.into_iter().map(|(topology, outcome)| (topology, (outcome, None))));
    let mut resolution = HostResolution::default();
    for (topology, entry) in &present {
        if !outcomes.contains_key(topology) {
            let kept = farewell(view, host, entry);
            resolution.waiting.extend(keeps_by_pause(view, entry).then(|| topology.clone()));
            resolution.entries.extend(kept.map(|entry| (topology.clone(), entry)));
        }
    }
    for (topology, (outcome, entry)) in outcomes {
        resolution.waiting.extend((outcome == Outcome::Paused).then(|| topology.clone()));
        let entry = entry.or_else(|| present.get(&topology).cloned());
        resolution.entries.extend(entry.map(|entry| (topology.clone(), unless_same(entry, &present))));
        resolution.outcomes.insert(topology, outcome);
    }
    resolution
}

fn selected(topology: &TopologyView, host: &HostView) -> bool {
    topology.wanted().is_some_and(|(_, spec)| selects(&spec.host_selector, &host.labels))
}

/// Incumbents first, then age, then name.
pub(crate) fn rank(
    topology: &TopologyView,
    present: &BTreeMap<TopologyName, TopologyEntry>,
) -> (bool, bool, Option<Timestamp>, String) {
    let name = &topology.target.name;
    let holds = |entry: &TopologyEntry| entry.name.as_str() == name && entry.state == EntryState::Present;
    (!present.values().any(holds), topology.created.is_none(), topology.created, name.clone())
}

/// The entry that is already there, if the new one says nothing else: a new generation alone writes nothing.
pub(crate) fn unless_same(entry: TopologyEntry, present: &BTreeMap<TopologyName, TopologyEntry>) -> TopologyEntry {
    match present.get(&entry.name) {
        Some(old) if TopologyEntry { generation: old.generation, ..entry.clone() } == *old => old.clone(),
        Some(_) | None => entry,
    }
}

/// Outcome and new entry for each topology that selects the host; without a new entry the old one is held.
pub(crate) type Outcomes = BTreeMap<TopologyName, (Outcome, Option<TopologyEntry>)>;

/// How topologies fare on a host that they select, in the order in which they are served, and what placement said. Those
/// that are held have no outcome here: they keep what they have, and the others are served beside it.
pub(crate) fn outcomes(
    name: &str,
    host: &HostView,
    wishes: &[&Wish],
    held: &BTreeSet<TopologyName>,
) -> (Outcomes, Placed) {
    let state_and_hardware = host.state.as_ref().and_then(|state| Some((state, state.hardware.as_ref()?)));
    let Some((state, hardware)) = state_and_hardware else {
        let awaiting = wishes.iter().filter_map(|(topology, _)| Some((topology.wanted()?.0.clone(), awaits())));
        return (awaiting.filter(|(topology, _)| !held.contains(topology)).collect(), Placed::default());
    };
    let mut outcomes = Outcomes::new();
    let mut memory = MemoryLedger::of(state, hardware);
    let mut admitted: Vec<(&TopologyView, &Named)> = Vec::new();
    for (topology, named) in wishes {
        let Some((topology_name, spec)) = topology.wanted() else { continue };
        if held.contains(topology_name) {
            continue;
        }
        match named.as_ref().map_err(Clone::clone).and_then(|named| memory.admit(topology_name, spec).map(|()| named)) {
            Ok(named) => admitted.push((topology, named)),
            Err(refusal) => {
                outcomes.insert(topology_name.clone(), refused(name, refusal));
            }
        }
    }
    let demands: Vec<Demand> = admitted.iter().flat_map(|(_, named)| named.demands()).collect();
    let housekeeping = wishes.iter().filter_map(|(_, named)| named.as_ref().ok()?.housekeeping()).collect();
    let site = Site { hardware, housekeeping };
    let placed = place(&demands, &site, &running(state, &demands));
    let mut room = Room::of(state, outcomes.keys().chain(held));
    for (topology, named) in admitted {
        let answer = match placed.refusals.get(named.name) {
            Some(refusal) => Err(refusal.clone()),
            None => room.admit(named.entry(&Place { name, hardware }, topology.generation, &placed.slices)),
        };
        let answer = answer.and_then(|entry| memory.promise(&entry).map(|()| entry));
        let outcome = match answer {
            Ok(entry) => (Outcome::Placed { shortages: shortages(named, &placed.slices) }, Some(entry)),
            Err(refusal) => refused(name, refusal),
        };
        outcomes.insert(named.name.clone(), outcome);
    }
    (outcomes, placed)
}

fn awaits() -> (Outcome, Option<TopologyEntry>) {
    (Outcome::AwaitsInventory, None)
}

fn refused(host: &str, Refusal { reason, message }: Refusal) -> (Outcome, Option<TopologyEntry>) {
    (Outcome::Refused(Refusal { reason, message: format!("{host}: {message}") }), None)
}

/// Where slices are now: as written, or as the agent reports for a topology whose entry is not there (any more).
fn running(state: &HostStateView, demands: &[Demand]) -> Placement {
    let asks = |topology: &TopologyName| demands.iter().any(|demand| demand.topology == *topology);
    let holds = |entry: &&TopologyEntry| match entry.state {
        EntryState::Present | EntryState::Absent => true,
        EntryState::Released => asks(&entry.name),
    };
    let incumbent = |topology: &TopologyName, cpus: &CpuSet, memory_nodes| Incumbent {
        topology: topology.clone(),
        cpus: cpus.clone(),
        memory_nodes,
    };
    let mut slices = BTreeMap::new();
    for demand in demands.iter().filter(|demand| !state.entries.contains_key(&demand.topology)) {
        let report =
            state.reports.get(demand.topology.as_str()).filter(|report| report.state != Some(EntryState::Absent));
        let measured = report.and_then(|report| report.slices.iter().find(|slice| slice.unit == demand.unit.as_str()));
        if let Some(slice) = measured.filter(|slice| !slice.cpus.is_empty()) {
            let memory_nodes = Some(slice.memory_nodes.clone());
            slices.insert(demand.unit.clone(), incumbent(&demand.topology, &slice.cpus, memory_nodes));
        }
    }
    for entry in state.entries.values().filter(holds) {
        for slice in &entry.slices {
            slices.insert(slice.unit.clone(), incumbent(&entry.name, &slice.cpus, slice.memory_nodes.clone()));
        }
    }
    Placement { slices }
}

/// What becomes of an entry whose topology does not ask for this host (any more). None once the agent has confirmed.
fn farewell(view: &ClusterView, host: &HostView, entry: &TopologyEntry) -> Option<TopologyEntry> {
    let state = parting_state(view, host, entry);
    let settled = state == entry.state && state != EntryState::Present;
    let confirmed = host.state.as_ref().is_some_and(|host| host.confirms(entry));
    (!(settled && confirmed)).then(|| TopologyEntry { state, ..entry.clone() })
}

/// Whether a host would let go of this entry, were it not for a pause.
fn keeps_by_pause(view: &ClusterView, entry: &TopologyEntry) -> bool {
    entry.state == EntryState::Present
        && view.topologies.get(entry.name.as_str()).is_some_and(|topology| is_paused(topology))
}

fn parting_state(view: &ClusterView, host: &HostView, entry: &TopologyEntry) -> EntryState {
    // Absence of an object never removes anything; a removal that was asked for and has begun goes on.
    let at_most_released = match entry.state {
        EntryState::Absent => EntryState::Absent,
        EntryState::Present | EntryState::Released => EntryState::Released,
    };
    let Some(topology) = view.topologies.get(entry.name.as_str()) else { return at_most_released };
    match (topology.life, &topology.spec, topology.deletion_policy) {
        (Life::Leaves, _, _) if view.definitions == Definitions::Leave => EntryState::Released,
        (Life::Leaves, _, DeletionPolicy::Remove) if topology.is_held() => EntryState::Absent,
        (Life::Leaves, _, _) => at_most_released,
        (Life::Stays, Err(_), _) => entry.state,
        (Life::Stays, Ok(_), _) if is_paused(topology) => entry.state,
        (Life::Stays, Ok(_), DeletionPolicy::Remove) if host.is_known() => EntryState::Absent,
        (Life::Stays, Ok(_), _) => at_most_released,
    }
}

impl HostStateView {
    /// Whether the agent has confirmed that an entry's state is reached, at the spec as it is now.
    pub fn confirms(&self, entry: &TopologyEntry) -> bool {
        let reported = self.reports.get(entry.name.as_str()).and_then(|report| report.state);
        self.reported_generation >= self.generation && reported == Some(entry.state)
    }
}

impl HostView {
    /// Whether the absence of a label on this host is somebody's decision: its node is there, or an admin speaks for it.
    pub fn is_known(&self) -> bool {
        let by_admin = self.state.as_ref().is_some_and(|state| state.origin == Origin::Admin);
        self.node == NodePresence::Present || by_admin
    }
}

/// Room in the object of one host.
struct Room {
    used: BTreeMap<TopologyName, usize>,
}

impl Room {
    fn of<'a>(state: &HostStateView, held: impl Iterator<Item = &'a TopologyName>) -> Self {
        let held: Vec<&TopologyName> = held.collect();
        let entries = state.entries.values().filter(|entry| held.contains(&&entry.name));
        Self { used: entries.map(|entry| (entry.name.clone(), size(entry))).collect() }
    }

    fn admit(&mut self, entry: TopologyEntry) -> Result<TopologyEntry, Refusal> {
        let used: usize = self.used.values().sum();
        let needed = size(&entry);
        if used + needed > LARGEST_HOST_STATE || self.used.len() >= MOST_ENTRIES {
            let message = format!(
                "the entry of {needed} bytes does not fit: {used} of {LARGEST_HOST_STATE} bytes and {} of {MOST_ENTRIES} \
                 entries are used; shorten files and environments, or select fewer hosts",
                self.used.len()
            );
            return Err(Refusal { reason: Reason::Infeasible, message });
        }
        self.used.insert(entry.name.clone(), needed);
        Ok(entry)
    }
}

fn size(entry: &TopologyEntry) -> usize {
    serde_json::to_vec(entry).map_or(usize::MAX / 2, |json| json.len())
}
