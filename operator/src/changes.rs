//! Decides the least set of writes that turns what the cluster holds into what was resolved.

use std::collections::BTreeMap;

use jiff::Timestamp;
use lamina_crds::host_state::{EntryState, FINALIZER, ORIGIN_LABEL, ORIGIN_NODE};
use lamina_crds::slice_topology::DeletionPolicy;
use lamina_crds::{HostStateSpec, Term};
use serde_json::{Value, json};

use crate::check::Violation;
use crate::liveness::{Liveness, liveness};
use crate::resolve::{HostResolution, Resolution};
use crate::snapshot::RawObject;
use crate::view::{ClusterView, Definitions, HostView, Life, NodePresence, Origin, TopologyView};

/// The writes that remain, in the order in which they are to be made, in this term of ours. Hosts with a violation are
/// left alone.
pub fn changes(
    view: &ClusterView,
    resolution: &Resolution,
    violations: &[Violation],
    term: Term,
    now: Timestamp,
) -> Vec<Change> {
    let finalizers = view.topologies.values().filter_map(|topology| finalizer_change(view, topology, now));
    let hosts = resolution.hosts.iter().filter(|(name, _)| !violations.iter().any(|found| found.host == **name));
    let hosts = hosts.filter_map(|(name, resolved)| host_change(view, name, resolved, term, now));
    // A finalizer that is missing must be there before the first entry that it guards.
    finalizers.chain(hosts).collect()
}

/// One write to the API.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// Create the HostState of a node: no entries yet. "Already there" is success.
    CreateHostState {
        /// The host's name.
        host: String,
        /// The term in which it is written.
        term: Term,
    },
    /// Server-side apply of the whole spec of a HostState, forced, as [`FIELD_MANAGER`].
    ApplyHostSpec {
        /// The HostState as it was seen.
        target: Target,
        /// All entries of the host, and the term in which they are written.
        spec: HostStateSpec,
    },
    /// Take the last entries out of the spec of a HostState (merge patch), if it is still as it was seen. Its own verb:
    /// a server-side apply of an empty list leaves a null spec, which the schema refuses (seen on Kubernetes 1.37).
    EmptyHostSpec {
        /// The HostState as it was seen.
        target: Target,
        /// The term in which it is written.
        term: Term,
    },
    /// Delete a HostState, if it is still the one that was seen. "Gone" is success.
    DeleteHostState {
        /// The HostState as it was seen.
        target: Target,
    },
    /// Set the finalizers of a topology (merge patch), if it is still as it was seen.
    SetFinalizers {
        /// The topology as it was seen.
        target: Target,
        /// All finalizers it should carry.
        finalizers: Vec<String>,
    },
}

/// An object as it was seen when a change was decided; both parts are preconditions of the write.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    /// The object's name.
    pub name: String,
    /// The object's identity.
    pub uid: String,
    /// The object's version.
    pub resource_version: String,
}

/// The field manager of everything the operator writes.
pub const FIELD_MANAGER: &str = "lamina-operator";

/// Argo CD shall not refresh its applications each time an agent reports.
const QUIET_ANNOTATION: &str = "argocd.argoproj.io/ignore-resource-updates";

impl Change {
    /// The JSON document that is sent: the object to create or apply, the merge patch, or the delete options.
    pub fn body(&self) -> Value {
        match self {
            Self::CreateHostState { host, term } => {
                let metadata = json!({
                    "name": host,
                    "labels": BTreeMap::from([(ORIGIN_LABEL, ORIGIN_NODE)]),
                    "annotations": BTreeMap::from([(QUIET_ANNOTATION, "true")]),
                });
                host_state(metadata, &HostStateSpec { term: *term, topologies: Vec::new() })
            }
            Self::ApplyHostSpec { target, spec } => host_state(target.metadata(), spec),
            Self::EmptyHostSpec { target, term } => {
                json!({ "metadata": target.metadata(), "spec": { "term": term, "topologies": [] } })
            }
            Self::DeleteHostState { target } => json!({
                "preconditions": { "uid": target.uid, "resourceVersion": target.resource_version },
            }),
            Self::SetFinalizers { target, finalizers } => {
                let mut metadata = target.metadata();
                metadata["finalizers"] = json!(finalizers);
                json!({ "metadata": metadata })
            }
        }
    }

    /// The host that the change is about, if it is about one.
    pub fn host(&self) -> Option<&str> {
        match self {
            Self::CreateHostState { host, term: _ } => Some(host),
            Self::ApplyHostSpec { target, spec: _ }
            | Self::EmptyHostSpec { target, term: _ }
            | Self::DeleteHostState { target } => Some(&target.name),
            Self::SetFinalizers { .. } => None,
        }
    }

    /// The change in words, for logs and errors: verb and object.
    pub fn attempt(&self) -> String {
        match self {
            Self::CreateHostState { host, term: _ } => format!("create HostState {host}"),
            Self::ApplyHostSpec { target, spec: _ } => format!("apply the spec of HostState {}", target.name),
            Self::EmptyHostSpec { target, term: _ } => format!("empty the spec of HostState {}", target.name),
            Self::DeleteHostState { target } => format!("delete HostState {}", target.name),
            Self::SetFinalizers { target, finalizers: _ } => {
                format!("set the finalizers of SliceTopology {}", target.name)
            }
        }
    }
}

impl Target {
    /// This object, as it was seen.
    pub fn of(object: &RawObject) -> Self {
        let RawObject { name, uid, resource_version, .. } = object;
        Self { name: name.clone(), uid: uid.clone(), resource_version: resource_version.clone() }
    }

    /// The metadata that names this very object and version.
    pub fn metadata(&self) -> Value {
        json!({ "name": self.name, "uid": self.uid, "resourceVersion": self.resource_version })
    }
}

fn finalizer_change(view: &ClusterView, topology: &TopologyView, now: Timestamp) -> Option<Change> {
    let wanted = match (topology.life, topology.deletion_policy, &topology.spec) {
        (_, DeletionPolicy::Retain, _) => false,
        (Life::Stays, DeletionPolicy::Remove, Ok(_)) => true,
        (Life::Stays, DeletionPolicy::Remove, Err(_)) => topology.is_held(),
        // The server refuses new finalizers on an object that is being deleted.
        (Life::Leaves, DeletionPolicy::Remove, _) => topology.is_held() && !is_removed(view, topology, now),
    };
    if wanted == topology.is_held() {
        return None;
    }
    let others = topology.finalizers.iter().filter(|finalizer| *finalizer != FINALIZER).cloned();
    let finalizers = others.chain(wanted.then(|| FINALIZER.to_owned())).collect();
    Some(Change::SetFinalizers { target: topology.target.clone(), finalizers })
}

/// Whether nothing holds a removal any more: every live host has confirmed, every silent host's object says it.
fn is_removed(view: &ClusterView, topology: &TopologyView, now: Timestamp) -> bool {
    let is_done = |host: &HostView| {
        let Some(state) = &host.state else { return true };
        let entry = state.entries.values().find(|entry| entry.name.as_str() == topology.target.name);
        let Some(entry) = entry else { return true };
        let silent = liveness(host, view.watching_since, now) == Liveness::Silent;
        entry.state == EntryState::Absent && (silent || state.confirms(entry))
    };
    view.definitions == Definitions::Leave || view.hosts.values().all(is_done)
}

fn host_change(
    view: &ClusterView,
    name: &str,
    resolved: &HostResolution,
    term: Term,
    now: Timestamp,
) -> Option<Change> {
    let host = view.hosts.get(name)?;
    let Some(state) = &host.state else {
        return (!resolved.outcomes.is_empty()).then(|| Change::CreateHostState { host: name.to_owned(), term });
    };
    let target = state.target.clone();
    // The agent of an object that was deleted and made again may have accepted a later term: it follows ours alone.
    let is_ignored = state.term < state.accepted_term;
    if resolved.entries != state.entries || is_ignored {
        let topologies: Vec<_> = resolved.entries.values().cloned().collect();
        return Some(match topologies.is_empty() {
            true => Change::EmptyHostSpec { target, term },
            false => Change::ApplyHostSpec { target, spec: HostStateSpec { term, topologies } },
        });
    }
    let is_ours = state.origin == Origin::Node && host.node == NodePresence::Missing;
    let is_silent = liveness(host, view.watching_since, now) == Liveness::Silent;
    let is_empty = state.entries.values().all(|entry| entry.state != EntryState::Present);
    (is_ours && is_silent && is_empty).then_some(Change::DeleteHostState { target })
}

fn host_state(metadata: Value, spec: &HostStateSpec) -> Value {
    json!({ "apiVersion": "lamina.dev/v1alpha1", "kind": "HostState", "metadata": metadata, "spec": spec })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn emptying_a_spec_is_a_merge_patch_of_the_very_object() {
        let target = Target { name: "h".to_owned(), uid: "u".to_owned(), resource_version: "7".to_owned() };
        let body = Change::EmptyHostSpec { target, term: Term::NONE.next() }.body();
        let metadata = json!({ "name": "h", "uid": "u", "resourceVersion": "7" });
        assert_eq!(body, json!({ "metadata": metadata, "spec": { "term": 1, "topologies": [] } }));
    }
}
