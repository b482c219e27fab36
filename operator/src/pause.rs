//! Decides what `spec.paused` keeps from a host: a paused topology holds what it has there, and it is told what waits.

use std::collections::{BTreeMap, BTreeSet};

use lamina_crds::{TopologyEntry, TopologyName};

use crate::resolve::{Outcome, Wish, outcomes, unless_same};
use crate::view::{HostView, TopologyView};

/// Whether nothing of this topology is to be written. Its deletion ends the pause.
pub(crate) fn is_paused(topology: &TopologyView) -> bool {
    topology.wanted().is_some_and(|(_, spec)| spec.paused == Some(true))
}

/// The paused ones among topologies that select a host.
pub(crate) fn paused(wishes: &[&Wish]) -> BTreeSet<TopologyName> {
    let paused = wishes.iter().filter(|(topology, _)| is_paused(topology));
    paused.filter_map(|(topology, _)| Some(topology.wanted()?.0.clone())).collect()
}

/// How paused topologies fare on a host: as they would without the pause, but for a change, which waits.
pub(crate) fn paused_outcomes(
    name: &str,
    host: &HostView,
    wishes: &[&Wish],
    paused: &BTreeSet<TopologyName>,
    present: &BTreeMap<TopologyName, TopologyEntry>,
) -> BTreeMap<TopologyName, Outcome> {
    if paused.is_empty() {
        return BTreeMap::new();
    }
    let (would, _) = outcomes(name, host, wishes, &BTreeSet::new());
    let ours = would.into_iter().filter(|(topology, _)| paused.contains(topology));
    let held = |(topology, (outcome, entry)): (TopologyName, (Outcome, Option<TopologyEntry>))| {
        let changes = entry.is_some_and(|entry| present.get(&topology) != Some(&unless_same(entry, present)));
        (topology, if changes { Outcome::Paused } else { outcome })
    };
    ours.map(held).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::scene::Scene;

    fn settled() -> Scene {
        Scene::new().topology("x", &["cores: 4"]).hosts(2).written().reported().written()
    }

    fn cpus(scene: &Scene, host: &str, topology: &str) -> Option<String> {
        let entries = scene.host_states[host]["spec"]["topologies"].as_array()?;
        let entry = entries.iter().find(|entry| entry["name"] == topology)?;
        entry["slices"][0]["cpus"].as_str().map(str::to_owned)
    }

    #[test]
    fn pausing_alone_writes_no_host() {
        let scene = settled();
        let before = scene.host_states.clone();
        let scene = scene.edit("x", |spec| spec["paused"] = json!(true)).written();
        assert_eq!(scene.host_states, before);
        assert_eq!(scene.condition("x", "Ready"), "True AsAsked");
        assert_eq!(scene.condition("x", "Paused"), "True Paused");
    }

    #[test]
    fn a_change_waits_until_the_pause_ends() {
        let scene = settled();
        let before = scene.host_states.clone();
        let paused = scene.edit("x", |spec| {
            spec["paused"] = json!(true);
            spec["slices"][0]["cpu"] = json!({ "cores": 6 });
        });
        let paused = paused.written();
        assert_eq!(paused.host_states, before);
        assert_eq!(paused.condition("x", "Ready"), "Unknown Paused");
        assert_eq!(paused.condition("x", "Reconciling"), "False Settled");
        assert_eq!(paused.condition("x", "Stalled"), "False Settled");
        let hosts = paused.status("x").hosts.expect("counts");
        assert_eq!((hosts.selected, hosts.updated, hosts.ready), (2, 0, 0));
        let goes_on = paused.edit("x", |spec| spec["paused"] = json!(false)).written().reported().written();
        assert_eq!(cpus(&goes_on, "h01", "x").as_deref(), Some("8-13"));
        assert_eq!(goes_on.condition("x", "Ready"), "True AsAsked");
        assert_eq!(goes_on.condition("x", "Paused"), "False Settled");
    }

    #[test]
    fn a_host_that_is_newly_selected_gets_nothing() {
        let scene = settled().edit("x", |spec| spec["paused"] = json!(true)).host("h03").written();
        assert_eq!(cpus(&scene, "h03", "x"), None);
        assert_eq!(scene.condition("x", "Ready"), "Unknown Paused");
        let conditions = scene.status("x").conditions;
        let message = &conditions.iter().find(|found| found.reason == "Paused").expect("it").message;
        assert!(message.contains("1 host waits"), "{message}");
    }

    #[test]
    fn a_host_that_is_no_longer_selected_keeps_it_and_waits() {
        let mut scene = settled().edit("x", |spec| spec["paused"] = json!(true)).written();
        scene.nodes.get_mut("h02").expect("the node").clear();
        let scene = scene.written();
        assert_eq!(scene.host_states["h02"]["spec"]["topologies"][0]["state"], "Present");
        assert_eq!(scene.condition("x", "Ready"), "Unknown Paused");
    }

    #[test]
    fn others_are_placed_beside_what_a_paused_one_holds() {
        let paused = settled().edit("x", |spec| {
            spec["paused"] = json!(true);
            spec["slices"][0]["cpu"] = json!({ "cores": 20 });
        });
        let scene = paused.written().topology("y", &["cores: 4"]).written();
        assert_eq!(cpus(&scene, "h01", "x").as_deref(), Some("8-11"));
        assert_eq!(cpus(&scene, "h01", "y").as_deref(), Some("12-15"));
    }

    #[test]
    fn what_no_host_could_hold_is_told_while_paused() {
        let scene = settled().edit("x", |spec| {
            spec["paused"] = json!(true);
            spec["slices"][0]["cpu"] = json!({ "cores": 60 });
        });
        let scene = scene.written();
        assert_eq!(scene.condition("x", "Stalled"), "True Infeasible");
        assert_eq!(cpus(&scene, "h01", "x").as_deref(), Some("8-11"));
    }

    #[test]
    fn deletion_ends_the_pause() {
        let scene = settled().edit("x", |spec| spec["paused"] = json!(true)).written().delete("x").written();
        assert_eq!(scene.host_states["h01"]["spec"]["topologies"][0]["state"], "Released");
    }
}
