//! Decides what topologies would mean for one host, by the same steps as `resolve` and without a cluster around it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use lamina_crds::slice_topology::DeletionPolicy;
use lamina_crds::{Hardware, SliceTopologySpec, SliceTopologyStatus, TopologyEntry, TopologyName};

use crate::changes::Target;
use crate::entry::Named;
use crate::placement::Placed;
use crate::resolve::{Outcome, Wish, outcomes, rank};
use crate::view::{HostStateView, HostView, Life, NodePresence, Origin, TopologyView};

/// What would become of a host that all these topologies select.
#[derive(Clone, Debug, PartialEq)]
pub struct Preview {
    /// How each topology fares.
    pub outcomes: BTreeMap<TopologyName, Outcome>,
    /// What would be written for each topology that has its place.
    pub entries: BTreeMap<TopologyName, TopologyEntry>,
    /// What placement said of all of them together.
    pub placed: Placed,
}

/// Asks what the operator would do, paused or not. `present` is what the host's `HostState` holds now; entries of topologies that are
/// not given stay, and hold what they have.
pub fn preview(
    name: &str,
    hardware: &Hardware,
    present: &BTreeMap<TopologyName, TopologyEntry>,
    topologies: &[(TopologyName, SliceTopologySpec)],
) -> Preview {
    let host = host_view(name, hardware, present);
    let views: Vec<TopologyView> = topologies.iter().map(|(name, spec)| topology_view(name, spec)).collect();
    let named = views.iter().filter_map(|view| {
        let (name, spec) = view.wanted()?;
        Some((view, Named::of(name, spec)))
    });
    let mut wishes: Vec<Wish> = named.collect();
    wishes.sort_by_key(|(topology, _)| rank(topology, present));
    let (outcomes, placed) = outcomes(name, &host, &wishes.iter().collect::<Vec<_>>(), &BTreeSet::new());
    let entries = outcomes.iter().filter_map(|(name, (_, entry))| Some((name.clone(), entry.clone()?))).collect();
    let outcomes = outcomes.into_iter().map(|(name, (outcome, _))| (name, outcome)).collect();
    Preview { outcomes, entries, placed }
}

fn host_view(name: &str, hardware: &Hardware, present: &BTreeMap<TopologyName, TopologyEntry>) -> HostView {
    let state = HostStateView {
        target: target(name),
        generation: 0,
        created: None,
        labels: BTreeMap::new(),
        origin: Origin::Admin,
        entries: present.clone(),
        unreadable: Vec::new(),
        reported_generation: 0,
        hardware: Some(hardware.clone()),
        reports: BTreeMap::new(),
    };
    HostView { node: NodePresence::Missing, labels: BTreeMap::new(), state: Some(Arc::new(state)), lease: None }
}

fn topology_view(name: &TopologyName, spec: &SliceTopologySpec) -> TopologyView {
    TopologyView {
        target: target(name.as_str()),
        generation: 0,
        created: None,
        life: Life::Stays,
        finalizers: Vec::new(),
        spec: Ok((name.clone(), spec.clone())),
        deletion_policy: DeletionPolicy::Retain,
        status: SliceTopologyStatus::default(),
    }
}

fn target(name: &str) -> Target {
    Target { name: name.to_owned(), uid: String::new(), resource_version: String::new() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::placement::tests as hosts;

    #[test]
    fn a_host_that_holds_what_is_asked_would_stay_as_it_is() {
        let name = TopologyName::new("web").expect("legal");
        let spec: SliceTopologySpec = serde_json::from_value(json!({ "hostSelector": { "matchLabels": { "a": "b" } },
            "slices": [{ "name": "front", "cpu": { "cores": 4 } }] }))
        .expect("a spec");
        let topologies = [(name.clone(), spec)];
        let first = preview("host-7", &hosts::seed(), &BTreeMap::new(), &topologies);
        assert_eq!(first.outcomes[&name], Outcome::Placed { shortages: Vec::new() });
        let again = preview("host-7", &hosts::seed(), &first.entries, &topologies);
        assert_eq!(again.entries, first.entries);
        assert_eq!(again.placed.moves, []);
    }
}
