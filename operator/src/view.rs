//! Reads a snapshot into decoded, sorted data. What cannot be understood becomes a refusal of that one object.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use lamina_crds::conditions::Reason;
use lamina_crds::decode::decode;
use lamina_crds::host_state::{FINALIZER, ORIGIN_LABEL, ORIGIN_NODE, TopologyStatus};
use lamina_crds::rules::topology_faults;
use lamina_crds::slice_topology::DeletionPolicy;
use lamina_crds::{Hardware, SliceTopologySpec, SliceTopologyStatus, Term, TopologyEntry, TopologyName};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::changes::Target;
use crate::decoded::Decoded;
use crate::snapshot::{LeaseTrace, RawObject, Snapshot};

/// What was decoded of the objects of an earlier snapshot.
#[derive(Clone, Debug, Default)]
pub struct Known {
    topologies: Decoded<TopologyView>,
    host_states: Decoded<HostStateView>,
}

/// Decodes everything a snapshot holds.
pub fn gather(snapshot: &Snapshot) -> ClusterView {
    gather_anew(snapshot, &mut Known::default())
}

/// The same where an earlier snapshot was decoded before: only what has changed is decoded.
pub fn gather_anew(snapshot: &Snapshot, known: &mut Known) -> ClusterView {
    let Snapshot { topologies, host_states, nodes, leases, watching_since } = snapshot;
    let topologies = known.topologies.all(topologies, topology_view);
    let states = known.host_states.all(host_states, host_state_view);
    let names = host_states.keys().chain(nodes.keys());
    let host = |name: &String| {
        let host = host_view(states.get(name).cloned(), nodes.get(name), leases.get(name).copied());
        (name.clone(), host)
    };
    ClusterView {
        topologies,
        hosts: names.map(host).collect(),
        watching_since: *watching_since,
        definitions: Definitions::Stay,
    }
}

/// Everything the operator decides from.
#[derive(Clone, Debug, PartialEq)]
pub struct ClusterView {
    /// All topologies, by name.
    pub topologies: BTreeMap<String, Arc<TopologyView>>,
    /// All hosts: nodes, and hosts that joined by a HostState, by name.
    pub hosts: BTreeMap<String, HostView>,
    /// Since when this process has watched the leases.
    pub watching_since: Timestamp,
    /// Whether Lamina's kinds themselves are being deleted.
    pub definitions: Definitions,
}

/// Whether the CustomResourceDefinitions stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Definitions {
    /// They stay: deletion of a topology is what somebody asked of that topology.
    Stay,
    /// One is being deleted or gone: every deletion counts as Retain.
    Leave,
}

/// One topology, decoded.
#[derive(Clone, Debug, PartialEq)]
pub struct TopologyView {
    /// The object as it was seen.
    pub target: Target,
    /// The generation of its spec.
    pub generation: i64,
    /// When it was created.
    pub created: Option<Timestamp>,
    /// Whether it is to stay.
    pub life: Life,
    /// Its finalizers, in their order.
    pub finalizers: Vec<String>,
    /// Its name and spec, or why they are refused.
    pub spec: Result<(TopologyName, SliceTopologySpec), Refusal>,
    /// What its deletion means, read even where the rest of the spec is refused.
    pub deletion_policy: DeletionPolicy,
    /// Its status as last written; the default if it cannot be read.
    pub status: SliceTopologyStatus,
}

/// Whether an object is to stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// Nobody asked for its deletion.
    Stays,
    /// Its deletion was asked for; finalizers hold it.
    Leaves,
}

/// Why something is not done: one word and a message for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Refusal {
    /// One word.
    pub reason: Reason,
    /// The object, the value asked, the value found, and what to do.
    pub message: String,
}

/// One host, decoded.
#[derive(Clone, Debug, PartialEq)]
pub struct HostView {
    /// Whether there is a Kubernetes node of this name.
    pub node: NodePresence,
    /// Labels of the HostState and of the node; the node's win.
    pub labels: BTreeMap<String, String>,
    /// Its HostState, if there is one.
    pub state: Option<Arc<HostStateView>>,
    /// What was seen of its agent's lease.
    pub lease: Option<LeaseTrace>,
}

/// Whether there is a Kubernetes node of a host's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodePresence {
    /// There is one.
    Present,
    /// There is none, or none any more.
    Missing,
}

/// Who made a HostState.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The operator, for a node.
    Node,
    /// An admin, for a host that need not be a node.
    Admin,
}

/// One HostState, decoded.
#[derive(Clone, Debug, PartialEq)]
pub struct HostStateView {
    /// The object as it was seen.
    pub target: Target,
    /// The generation of its spec.
    pub generation: i64,
    /// When it was created.
    pub created: Option<Timestamp>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Who made it.
    pub origin: Origin,
    /// The entries of its spec, by topology.
    pub entries: BTreeMap<TopologyName, TopologyEntry>,
    /// What of its spec this operator does not understand.
    pub unreadable: Vec<String>,
    /// The term in which its spec was written.
    pub term: Term,
    /// The highest term that its agent has accepted.
    pub accepted_term: Term,
    /// The generation of the spec that the agent's report speaks of; -1 before the first.
    pub reported_generation: i64,
    /// The machine, once its agent has reported it.
    pub hardware: Option<Hardware>,
    /// What the agent reports, by topology.
    pub reports: BTreeMap<String, TopologyStatus>,
}

fn topology_view(raw: &RawObject) -> TopologyView {
    let removes = raw.spec.get("deletionPolicy").and_then(Value::as_str) == Some("Remove");
    TopologyView {
        target: Target::of(raw),
        generation: raw.generation,
        created: raw.created,
        life: if raw.deletion_asked.is_some() { Life::Leaves } else { Life::Stays },
        finalizers: raw.finalizers.clone(),
        spec: topology_spec(raw),
        deletion_policy: if removes { DeletionPolicy::Remove } else { DeletionPolicy::Retain },
        status: decode(&raw.status).unwrap_or_else(|_| unobserved()),
    }
}

fn unobserved() -> SliceTopologyStatus {
    SliceTopologyStatus { observed_generation: -1, ..SliceTopologyStatus::default() }
}

fn topology_spec(raw: &RawObject) -> Result<(TopologyName, SliceTopologySpec), Refusal> {
    let refused = |message: String| Refusal { reason: Reason::InvalidSpec, message };
    let name = TopologyName::new(raw.name.clone()).map_err(|error| refused(format!("metadata.name: {error}")))?;
    let spec: SliceTopologySpec = decode(&raw.spec).map_err(|fault| refused(fault.within("spec").to_string()))?;
    match topology_faults(name.as_str(), &spec).as_slice() {
        [] => Ok((name, spec)),
        [only] => Err(refused(only.to_string())),
        [first, others @ ..] => Err(refused(format!("{first} (and {} more)", others.len()))),
    }
}

fn host_view(
    state: Option<Arc<HostStateView>>,
    node: Option<&BTreeMap<String, String>>,
    lease: Option<LeaseTrace>,
) -> HostView {
    let own = state.iter().flat_map(|state| state.labels.clone());
    let labels = own.chain(node.cloned().unwrap_or_default()).collect();
    let presence = if node.is_some() { NodePresence::Present } else { NodePresence::Missing };
    HostView { node: presence, labels, state, lease }
}

fn host_state_view(raw: &RawObject) -> HostStateView {
    let (entries, unreadable) = entries(&raw.spec);
    let reports = items::<TopologyStatus>(raw.status.get("topologies"));
    let made_for_node = raw.labels.get(ORIGIN_LABEL).is_some_and(|origin| origin == ORIGIN_NODE);
    HostStateView {
        target: Target::of(raw),
        generation: raw.generation,
        created: raw.created,
        labels: raw.labels.clone(),
        origin: if made_for_node { Origin::Node } else { Origin::Admin },
        entries,
        unreadable,
        term: raw.term(),
        accepted_term: raw.accepted_term(),
        reported_generation: raw.status.get("observedGeneration").and_then(Value::as_i64).unwrap_or(-1),
        hardware: raw.status.get("hardware").and_then(|value| decode(value).ok()),
        reports: reports.into_iter().map(|report| (report.name.clone(), report)).collect(),
    }
}

/// The entries that can be read, and in words those that cannot.
fn entries(spec: &Value) -> (BTreeMap<TopologyName, TopologyEntry>, Vec<String>) {
    let mut read = BTreeMap::new();
    let mut unreadable = Vec::new();
    let list = spec.get("topologies").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    for (index, value) in list.iter().enumerate() {
        match decode::<TopologyEntry>(value) {
            Ok(entry) => {
                read.insert(entry.name.clone(), entry);
            }
            Err(fault) => unreadable.push(fault.within(&format!("spec.topologies[{index}]")).to_string()),
        }
    }
    (read, unreadable)
}

/// The items of a list that can be read. An agent of another version may report more than this operator knows.
fn items<T: DeserializeOwned>(list: Option<&Value>) -> Vec<T> {
    let list = list.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    list.iter().filter_map(|value| decode(value).ok()).collect()
}

impl TopologyView {
    /// Whether Lamina's finalizer holds the object.
    pub fn is_held(&self) -> bool {
        self.finalizers.iter().any(|finalizer| finalizer == FINALIZER)
    }

    /// The decoded spec of a topology that is to stay.
    pub fn wanted(&self) -> Option<&(TopologyName, SliceTopologySpec)> {
        match self.life {
            Life::Stays => self.spec.as_ref().ok(),
            Life::Leaves => None,
        }
    }
}

impl ClusterView {
    /// Whether some topology is held until its units are removed; whoever decides about it must know whether the
    /// definitions stay.
    pub fn holds_removals(&self) -> bool {
        self.topologies.values().any(|topology| topology.life == Life::Leaves && topology.is_held())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;

    fn snapshot(topologies: &[Value], host_states: &[Value]) -> Snapshot {
        let objects = |list: &[Value]| {
            let raw = list.iter().filter_map(RawObject::from_json);
            raw.map(|raw| (raw.name.clone(), Arc::new(raw))).collect()
        };
        Snapshot {
            topologies: objects(topologies),
            host_states: objects(host_states),
            nodes: BTreeMap::new(),
            leases: BTreeMap::new(),
            watching_since: Timestamp::UNIX_EPOCH,
        }
    }

    #[test]
    fn one_topology_that_cannot_be_read_does_not_hide_the_others() {
        let spec = json!({ "hostSelector": { "matchLabels": { "a": "b" } },
            "slices": [{ "name": "control", "cpu": { "cores": 1 } }] });
        let view = gather(&snapshot(
            &[
                json!({ "metadata": { "name": "good" }, "spec": spec }),
                json!({ "metadata": { "name": "bad" }, "spec": { "polcy": 1, "deletionPolicy": "Remove" } }),
            ],
            &[],
        ));
        assert!(view.topologies["good"].spec.is_ok());
        let refusal = view.topologies["bad"].spec.as_ref().expect_err("it has a typo");
        assert_eq!(refusal.reason, Reason::InvalidSpec);
        assert!(refusal.message.starts_with("spec.polcy"), "{}", refusal.message);
        assert_eq!(view.topologies["bad"].deletion_policy, DeletionPolicy::Remove);
    }

    #[test]
    fn an_entry_that_cannot_be_read_is_kept_in_words() {
        let state = json!({ "metadata": { "name": "h" }, "spec": { "topologies": [{ "name": "x", "shape": 1 }] } });
        let view = gather(&snapshot(&[], &[state]));
        let state = view.hosts["h"].state.as_ref().expect("it is there");
        assert!(state.entries.is_empty());
        assert!(state.unreadable[0].starts_with("spec.topologies[0].shape"), "{}", state.unreadable[0]);
    }

    #[test]
    fn a_host_without_a_report_has_generation_minus_one_and_no_hardware() {
        let view = gather(&snapshot(&[], &[json!({ "metadata": { "name": "h" }, "spec": {} })]));
        let state = view.hosts["h"].state.as_ref().expect("it is there");
        assert_eq!((state.reported_generation, &state.hardware), (-1, &None));
    }
}
