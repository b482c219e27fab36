//! A cluster of one: the object that this host's agent code follows, made here, and what it says about it, kept here.

use std::collections::BTreeMap;

use jiff::Timestamp;
use lamina_crds::{HostStateStatus, TopologyEntry, TopologyName};
use lamina_node_agent::accept::Accepted;
use lamina_node_agent::cluster::{Cluster, ClusterError, HostEvent, RawHostState, Seen};

/// The uid of the object in which this command keeps its instruction; one that an API server gave looks different.
pub const UID: &str = "local";

/// The object and what the agent's code said of it.
pub struct SingleHost {
    object: RawHostState,
    news: Vec<HostEvent>,
}

impl SingleHost {
    /// A cluster that asks for these entries, after what was accepted before.
    pub fn new(accepted: &Accepted, entries: &BTreeMap<TopologyName, TopologyEntry>) -> Self {
        Self { object: object(accepted, entries), news: Vec::new() }
    }

    /// Asks for other entries from now on.
    pub fn ask(&mut self, accepted: &Accepted, entries: &BTreeMap<TopologyName, TopologyEntry>) {
        let status = self.object.status.take();
        self.object = RawHostState { status, ..object(accepted, entries) };
    }

    /// The object as it is now.
    pub fn object(&self) -> &RawHostState {
        &self.object
    }

    /// What was measured last.
    pub fn status(&self) -> HostStateStatus {
        self.object.status.clone().unwrap_or_default()
    }

    /// The events since the last call.
    pub fn news(&mut self) -> Vec<HostEvent> {
        std::mem::take(&mut self.news)
    }
}

/// The object that asks for these entries. Its generation rises when they change and only then, so that asking for what
/// is there already writes nothing.
fn object(accepted: &Accepted, entries: &BTreeMap<TopologyName, TopologyEntry>) -> RawHostState {
    let is_own = accepted.uid == UID;
    let asked: BTreeMap<&TopologyName, &TopologyEntry> = entries.iter().collect();
    let kept = accepted.entries.iter().map(|(name, kept)| (name, &kept.entry)).collect();
    let generation = match is_own {
        true if asked == kept => accepted.generation,
        true => accepted.generation + 1,
        false => 1,
    };
    let raw = entries.values().filter_map(|entry| serde_json::to_value(entry).ok());
    // Whoever takes a host over from a cluster's operators speaks in their last term.
    RawHostState {
        uid: UID.to_owned(),
        generation,
        term: accepted.term,
        annotations: BTreeMap::new(),
        entries: raw.collect(),
        status: None,
    }
}

impl Cluster for SingleHost {
    fn seen(&self) -> Seen {
        Seen::Object(Box::new(self.object.clone()))
    }

    async fn patch_status(&mut self, _uid: &str, status: &HostStateStatus) -> Result<(), ClusterError> {
        self.object.status = Some(status.clone());
        Ok(())
    }

    async fn renew_lease(&mut self, _now: Timestamp) -> Result<(), ClusterError> {
        Ok(())
    }

    async fn record_event(&mut self, event: &HostEvent) -> Result<(), ClusterError> {
        self.news.push(event.clone());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use lamina_node_agent::accept::accept;

    use super::*;
    use crate::document::bare_entry;

    #[test]
    fn asking_for_what_is_there_is_no_new_instruction() {
        let name = TopologyName::new("web").expect("legal");
        let mut entry = bare_entry(name.clone());
        entry.revision = entry.digest();
        let entries = BTreeMap::from([(name, entry)]);
        let first = SingleHost::new(&Accepted::default(), &entries);
        let accepted = accept(&Accepted::default(), first.object()).accepted;
        assert_eq!(accepted.entries.len(), 1, "the entry is understood");
        assert_eq!(accept(&accepted, SingleHost::new(&accepted, &entries).object()).accepted, accepted);
        let none = SingleHost::new(&accepted, &BTreeMap::new());
        assert_eq!(none.object().generation, accepted.generation + 1);
    }
}
