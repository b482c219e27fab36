//! Judges a world in which everything has settled: is everything asked true, said to be so, and durable.

use std::collections::BTreeMap;
use std::rc::Rc;

use lamina_crds::conditions::{ConditionType, holds_at};
use lamina_crds::decode::decode;
use lamina_crds::host_state::EntryState;
use lamina_crds::told::{Subject, untold};
use lamina_crds::{HostStateStatus, SliceTopologySpec, SliceTopologyStatus};

use crate::api::Kind as ObjectKind;
use crate::asked::{entries_of, is_selected};
use crate::story::Story;
use crate::truth::{disagreements_after, leftovers, remains};
use crate::world::World;
use lamina_trees::Random;

/// What is not as it should be once everything has settled.
pub fn wrong(world: &World, wanted: &BTreeMap<&'static str, Rc<SliceTopologySpec>>) -> Vec<String> {
    let mut wrong = Vec::new();
    for (name, spec) in wanted {
        wrong.extend(world.unlike(name, spec));
        wrong.extend(unreported(world, name, spec));
    }
    for name in &world.removed {
        if world.api.with(|store| store.get(ObjectKind::SliceTopology, name).is_some()) {
            wrong.push(format!("topology {name} is still there"));
        }
    }
    for (name, site) in &world.hosts {
        wrong.extend(leftovers(&site.host).into_iter().map(|what| format!("{name}: {what}")));
        let absent = site.host.witness.wanted.values().filter(|entry| entry.state == EntryState::Absent);
        wrong.extend(absent.flat_map(|entry| remains(&site.host, entry)).map(|what| format!("{name}: {what}")));
        for (path, content) in &site.host.foreign {
            let is_gone = site.host.disk.read(path).as_deref() != Some(content);
            if is_gone && !site.host.witness.can_be_given_back(&site.host, path) {
                wrong.push(format!("{name}: {path} is not what its owner wrote"));
            }
        }
    }
    wrong
}

/// What an agent tells that is in no list of what can be told.
pub fn untold_of_host(name: &str, status: &HostStateStatus) -> Vec<String> {
    let entries = status.topologies.iter();
    let entries = entries.filter_map(|topology| untold(Subject::TopologyOnHost, &topology.conditions));
    let told = untold(Subject::Host, &status.conditions).into_iter().chain(entries);
    told.map(|what| format!("{name} tells of a {what}")).collect()
}

/// What the operator tells that is in no list of what can be told.
pub fn untold_of_topology(name: &str, status: &SliceTopologyStatus) -> Option<String> {
    untold(Subject::Topology, &status.conditions).map(|what| format!("the operator tells of {name}, a {what}"))
}

/// Ready must be said of everything that is, at the generation that is.
fn unreported(world: &World, name: &str, spec: &SliceTopologySpec) -> Vec<String> {
    let mut wrong = Vec::new();
    let ready = ConditionType::Ready;
    world.api.with(|store| {
        let Some(topology) = store.get(ObjectKind::SliceTopology, name) else {
            return wrong.push(format!("topology {name} is gone"));
        };
        let status: Option<SliceTopologyStatus> = decode(&topology.status).ok();
        let told = status.as_ref().is_some_and(|status| holds_at(&status.conditions, ready, topology.generation));
        let selects = world.hosts.keys().any(|host| is_selected(store, host, spec));
        if !told && selects {
            let conditions = status.map(|status| status.conditions);
            wrong.push(format!("topology {name} is not said to be Ready: {conditions:?}"));
        }
        for host in world.hosts.keys().filter(|host| is_selected(store, host, spec)) {
            let Some(object) = store.get(ObjectKind::HostState, host) else { continue };
            let status: Option<HostStateStatus> = decode(&object.status).ok();
            let told = status.iter().flat_map(|status| &status.topologies).find(|topology| topology.name == name);
            if !told.is_some_and(|told| holds_at(&told.conditions, ready, object.generation)) {
                wrong
                    .push(format!("{host} does not say that {name} is Ready: {:?}", told.map(|told| &told.conditions)));
            }
        }
    });
    wrong
}

/// The disk alone brings everything back: the same host after a loss of power, before any agent has run.
pub fn after_a_loss_of_power(world: &World, random: &Random) -> Vec<String> {
    let mut wrong = Vec::new();
    for (name, site) in &world.hosts {
        let mut host = site.host.clone();
        host.story = Story::default();
        host.lose_power(&mut random.clone());
        let entries = world.api.with(|store| entries_of(store, name, i64::MAX));
        for entry in entries.iter().filter(|entry| entry.state == EntryState::Present) {
            // A slice nobody runs in is not started at boot, and nothing is missing.
            let is_used = |slice: &lamina_crds::UnitName| entry.services.iter().any(|service| service.slice == *slice);
            let unused: Vec<String> =
                entry.slices.iter().filter(|s| !is_used(&s.unit)).map(|s| format!("{} ", s.unit)).collect();
            let found = disagreements_after(&site.host, &host, entry);
            let found = found.into_iter().filter(|what| !unused.iter().any(|unit| what.starts_with(unit)));
            wrong.extend(found.map(|what| format!("{name} after a loss of power: {what}")));
        }
    }
    wrong
}
