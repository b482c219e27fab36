//! Decides how everything that Lamina runs is taken from its hosts, for good: what is still to be asked, and what is left.

use std::collections::BTreeSet;

use lamina_crds::host_state::FINALIZER;
use serde_json::{Value, json};

use crate::changes::Target;
use crate::snapshot::RawObject;

/// One write on the way of a topology out of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Ask that hosts remove what it runs, and hold it until they have (merge patch).
    Hold {
        /// The topology as it was seen.
        target: Target,
        /// All finalizers it carries then.
        finalizers: Vec<String>,
    },
    /// Delete it. The operator lets it go once its hosts have confirmed.
    Delete {
        /// The topology as it was seen.
        target: Target,
    },
}

/// The next write of each topology that is not on its way out yet.
pub fn steps<'a>(topologies: impl IntoIterator<Item = &'a RawObject>) -> Vec<Step> {
    topologies.into_iter().filter(|topology| topology.deletion_asked.is_none()).map(step).collect()
}

/// Held before it is deleted: without the finalizer, its hosts would let go of everything as it runs.
fn step(topology: &RawObject) -> Step {
    let target = Target::of(topology);
    let is_held = topology.finalizers.iter().any(|finalizer| finalizer == FINALIZER);
    if is_held && topology.spec["deletionPolicy"] == "Remove" {
        return Step::Delete { target };
    }
    let others = topology.finalizers.iter().filter(|finalizer| *finalizer != FINALIZER).cloned();
    Step::Hold { target, finalizers: others.chain([FINALIZER.to_owned()]).collect() }
}

impl Step {
    /// The merge patch of a hold.
    pub fn hold(target: &Target, finalizers: &[String]) -> Value {
        let mut metadata = target.metadata();
        metadata["finalizers"] = json!(finalizers);
        json!({ "metadata": metadata, "spec": { "deletionPolicy": "Remove" } })
    }
}

/// What is not gone yet, in words: topologies, and removals that a host has not confirmed. The operator lets a topology go
/// whose hosts are silent; their HostStates still ask them to remove it.
pub fn left<'a>(
    topologies: impl IntoIterator<Item = &'a RawObject>,
    host_states: impl IntoIterator<Item = &'a RawObject>,
) -> BTreeSet<String> {
    let topologies = topologies.into_iter().map(|topology| format!("SliceTopology {}", topology.name));
    let removals = host_states.into_iter().flat_map(removals);
    topologies.chain(removals).collect()
}

fn removals(host: &RawObject) -> impl Iterator<Item = String> {
    let entries = host.spec["topologies"].as_array().into_iter().flatten();
    let absent = entries.filter(|entry| entry["state"] == "Absent");
    let name = |entry: &Value| entry["name"].as_str().unwrap_or_default().to_owned();
    absent.map(move |entry| format!("{} on host {}", name(entry), host.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topology(metadata: Value, policy: &str) -> RawObject {
        let mut object = json!({ "metadata": metadata, "spec": { "deletionPolicy": policy } });
        object["metadata"]["name"] = json!("a");
        RawObject::from_json(&object).unwrap()
    }

    fn first(metadata: Value, policy: &str) -> Option<Step> {
        steps(&[topology(metadata, policy)]).pop()
    }

    #[test]
    fn a_topology_is_held_before_it_is_deleted() {
        let held = |finalizers: &[&str]| finalizers.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        for (finalizers, policy) in [(json!([]), "Remove"), (json!([FINALIZER]), "Retain")] {
            let Some(Step::Hold { finalizers, .. }) = first(json!({ "finalizers": finalizers }), policy) else {
                panic!("{policy} with {finalizers} is not held first");
            };
            assert_eq!(finalizers, held(&[FINALIZER]));
        }
        let Some(Step::Hold { finalizers, .. }) = first(json!({ "finalizers": ["other/one"] }), "Retain") else {
            panic!("it is not held first");
        };
        assert_eq!(finalizers, held(&["other/one", FINALIZER]), "others' finalizers stay");
        assert!(matches!(first(json!({ "finalizers": [FINALIZER] }), "Remove"), Some(Step::Delete { .. })));
    }

    #[test]
    fn what_leaves_already_is_left_alone() {
        assert_eq!(first(json!({ "deletionTimestamp": "2026-01-02T03:04:05Z" }), "Retain"), None);
    }

    #[test]
    fn a_hold_is_of_one_version_alone() {
        let object = topology(json!({ "uid": "u", "resourceVersion": "7" }), "Retain");
        let Some(Step::Hold { target, finalizers }) = steps(&[object]).pop() else { panic!("it is not held first") };
        let metadata = json!({ "name": "a", "uid": "u", "resourceVersion": "7", "finalizers": [FINALIZER] });
        assert_eq!(
            Step::hold(&target, &finalizers),
            json!({ "metadata": metadata, "spec": { "deletionPolicy": "Remove" } })
        );
    }

    #[test]
    fn what_a_silent_host_has_not_removed_is_left() {
        let host = json!({
            "metadata": { "name": "host-a" },
            "spec": { "topologies": [{ "name": "gone", "state": "Absent" }, { "name": "kept", "state": "Released" }] },
        });
        let host = RawObject::from_json(&host).unwrap();
        let told: Vec<String> = left(&[topology(json!({}), "Remove")], &[host]).into_iter().collect();
        assert_eq!(told, ["SliceTopology a", "gone on host host-a"]);
        assert!(left(&[], &[]).is_empty());
    }
}
