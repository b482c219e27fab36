//! What the operator remembers between passes: its own writes until the caches show them, what it has decoded, and what the
//! server refused. All of it may be lost at any time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::changes::{Change, Target};
use crate::check::Violation;
use crate::snapshot::{RawObject, Snapshot};
use crate::view::{ClusterView, Known, gather_anew};

/// How long a write of ours is believed against a cache that does not show it.
const BELIEVED: Duration = Duration::from_secs(10);

/// What is remembered between passes.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    writes: BTreeMap<(Kind, String), Write>,
    known: Known,
    refusals: BTreeMap<String, String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Topology,
    HostState,
}

#[derive(Clone, Debug)]
struct Write {
    at: Timestamp,
    result: Written,
}

#[derive(Clone, Debug)]
enum Written {
    Created(Arc<RawObject>),
    Updated(Arc<RawObject>),
    Deleted { uid: String },
}

impl Memory {
    /// The snapshot, with our own writes in it that the caches have not seen yet.
    pub fn refresh(&mut self, mut snapshot: Snapshot, now: Timestamp) -> Snapshot {
        self.writes.retain(|(kind, name), write| {
            let objects = match kind {
                Kind::Topology => &mut snapshot.topologies,
                Kind::HostState => &mut snapshot.host_states,
            };
            let is_recent = write.at.checked_add(BELIEVED).is_ok_and(|end| now < end);
            is_recent && write.result.lay_over(objects, name)
        });
        snapshot
    }

    /// Everything that is to be decided from now, decoded.
    pub fn look(&mut self, snapshot: Snapshot, now: Timestamp) -> ClusterView {
        let snapshot = self.refresh(snapshot, now);
        gather_anew(&snapshot, &mut self.known)
    }

    /// The change, aimed at the topology as our own write of its status left it. That write had the same precondition,
    /// so nobody else's write is overlooked.
    pub fn retarget(&self, change: &Change) -> Change {
        let Change::SetFinalizers { target, finalizers } = change else { return change.clone() };
        let write = self.writes.get(&(Kind::Topology, target.name.clone())).map(|write| &write.result);
        let target = match write {
            Some(Written::Updated(object)) if object.uid == target.uid => {
                Target { resource_version: object.resource_version.clone(), ..target.clone() }
            }
            Some(Written::Created(_) | Written::Updated(_) | Written::Deleted { .. }) | None => target.clone(),
        };
        Change::SetFinalizers { target, finalizers: finalizers.clone() }
    }

    /// Remembers a change that was made, and the object that resulted.
    pub fn remember(&mut self, change: &Change, result: Option<RawObject>, now: Timestamp) {
        let (kind, name) = match change {
            Change::CreateHostState { host } => (Kind::HostState, host),
            Change::ApplyHostSpec { target, spec: _ }
            | Change::EmptyHostSpec { target }
            | Change::DeleteHostState { target } => (Kind::HostState, &target.name),
            Change::SetFinalizers { target, finalizers: _ } => (Kind::Topology, &target.name),
        };
        let result = match (change, result.map(Arc::new)) {
            (Change::CreateHostState { .. }, Some(object)) => Written::Created(object),
            (
                Change::ApplyHostSpec { .. } | Change::EmptyHostSpec { .. } | Change::SetFinalizers { .. },
                Some(object),
            ) => Written::Updated(object),
            (Change::DeleteHostState { target } | Change::SetFinalizers { target, .. }, _) => {
                Written::Deleted { uid: target.uid.clone() }
            }
            (Change::CreateHostState { .. } | Change::ApplyHostSpec { .. } | Change::EmptyHostSpec { .. }, None) => {
                return;
            }
        };
        self.writes.insert((kind, name.clone()), Write { at: now, result });
    }

    /// Remembers a topology as it is after its status was written.
    pub fn remember_status(&mut self, object: RawObject, now: Timestamp) {
        let key = (Kind::Topology, object.name.clone());
        self.writes.insert(key, Write { at: now, result: Written::Updated(Arc::new(object)) });
    }

    /// Remembers that the server refused what was asked for a host.
    pub fn remember_refusal(&mut self, host: &str, message: String) {
        self.refusals.insert(host.to_owned(), message);
    }

    /// Forgets refusals of hosts for which nothing is asked any more or something was accepted.
    pub fn forget_refusals(&mut self, still: impl Fn(&str) -> bool) {
        self.refusals.retain(|host, _| still(host));
    }

    /// What the server refused, in the form in which it is reported.
    pub fn refusals(&self) -> impl Iterator<Item = Violation> {
        self.refusals.iter().map(|(host, message)| Violation { host: host.clone(), message: message.clone() })
    }
}

impl Written {
    /// Puts the write into the cache if the cache is behind. False once the cache has caught up.
    fn lay_over(&self, objects: &mut BTreeMap<String, Arc<RawObject>>, name: &str) -> bool {
        let cached = objects.get(name);
        match (self, cached) {
            (Self::Created(written), None) => {
                objects.insert(name.to_owned(), Arc::clone(written));
                true
            }
            (Self::Created(written) | Self::Updated(written), Some(cached)) if written.is_newer_than(cached) => {
                objects.insert(name.to_owned(), Arc::clone(written));
                true
            }
            (Self::Deleted { uid }, Some(cached)) if cached.uid == *uid => {
                objects.remove(name);
                true
            }
            (Self::Created(_) | Self::Updated(_) | Self::Deleted { .. }, _) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scene::{Scene, at};

    fn version(name: &str, resource_version: u64) -> RawObject {
        let object = serde_json::json!({ "metadata": { "name": name, "uid": "u",
            "resourceVersion": resource_version.to_string() } });
        RawObject::from_json(&object).expect("it has a name")
    }

    #[test]
    fn a_write_is_seen_before_the_cache_shows_it_and_forgotten_after() {
        let mut memory = Memory::default();
        let mut snapshot = Scene::new().snapshot();
        snapshot.host_states.insert("h".to_owned(), Arc::new(version("h", 7)));
        memory.writes.insert(
            (Kind::HostState, "h".to_owned()),
            Write { at: at(0), result: Written::Updated(Arc::new(version("h", 8))) },
        );
        assert_eq!(memory.refresh(snapshot.clone(), at(1)).host_states["h"].resource_version, "8");
        snapshot.host_states.insert("h".to_owned(), Arc::new(version("h", 9)));
        assert_eq!(memory.refresh(snapshot, at(2)).host_states["h"].resource_version, "9");
        assert!(memory.writes.is_empty());
    }

    #[test]
    fn a_cache_is_believed_again_after_a_while() {
        let mut memory = Memory::default();
        memory.remember(&Change::CreateHostState { host: "h".to_owned() }, Some(version("h", 8)), at(0));
        assert!(memory.refresh(Scene::new().snapshot(), at(9)).host_states.contains_key("h"));
        assert!(!memory.refresh(Scene::new().snapshot(), at(10)).host_states.contains_key("h"));
    }
}
