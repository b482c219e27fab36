//! The API server as one agent sees it: behind the agent's own seam.

use std::cell::RefCell;

use jiff::Timestamp;
use lamina_crds::HostStateStatus;
use lamina_crds::decode::decode;
use lamina_node_agent::cluster::{Cluster, ClusterError, HostEvent, RawHostState, Seen};
use lamina_operator::snapshot::RawObject;
use serde_json::{Value, json};

use super::admission::{Author, Part};
use super::{ApiServer, Kind, Precondition, View, Words, WriteError, object};

/// One agent's connection.
#[derive(Clone, Debug)]
pub struct AgentClient {
    api: ApiServer,
    author: Author,
    host: String,
    /// What its watch has shown.
    pub view: View,
    /// The status it last wrote, and how many effects on hosts there had been by then.
    pub claim: Option<(HostStateStatus, u64)>,
    effects_on_hosts: crate::accident::Fuse,
    /// What it last saw, by version: reading it again would take long.
    shown: RefCell<Option<(String, RawHostState)>>,
}

impl AgentClient {
    /// The connection of this host's agent, before any answer.
    pub fn new(api: &ApiServer, host: &str, fuse: &crate::accident::Fuse) -> Self {
        Self {
            api: api.clone(),
            author: Author::Agent(host.to_owned()),
            host: host.to_owned(),
            view: View::default(),
            claim: None,
            effects_on_hosts: fuse.clone(),
            shown: RefCell::default(),
        }
    }

    /// The same connection to another server.
    pub fn moved_to(&self, api: &ApiServer, fuse: &crate::accident::Fuse) -> Self {
        Self { api: api.clone(), effects_on_hosts: fuse.clone(), ..self.clone() }
    }

    /// What there is to be heard: the version of its object that its watch has shown.
    pub fn heard(&self) -> Option<String> {
        let version = self.view.of(Kind::HostState)?;
        self.api.with(|store| {
            let object = store.get_at(Kind::HostState, &self.host, version)?;
            Some(object.resource_version.clone())
        })
    }

    fn error(&self, attempt: &'static str, error: &WriteError) -> ClusterError {
        ClusterError { attempt, host: self.host.clone(), message: format!("{error:?}") }
    }
}

impl Cluster for AgentClient {
    fn seen(&self) -> Seen {
        let Some(version) = self.view.of(Kind::HostState) else { return Seen::NotYet };
        self.api.with(|store| match store.get_at(Kind::HostState, &self.host, version) {
            None => Seen::Nothing,
            Some(object) => {
                let mut shown = self.shown.borrow_mut();
                match &*shown {
                    Some((version, known)) if *version == object.resource_version => {
                        Seen::Object(Box::new(known.clone()))
                    }
                    Some(_) | None => {
                        let read = raw(object);
                        *shown = Some((object.resource_version.clone(), read.clone()));
                        Seen::Object(Box::new(read))
                    }
                }
            }
        })
    }

    async fn patch_status(&mut self, uid: &str, status: &HostStateStatus) -> Result<(), ClusterError> {
        let (author, host) = (self.author.clone(), self.host.clone());
        self.claim = Some((status.clone(), self.effects_on_hosts.host_effects()));
        let words = Words(|| format!("patch status: {}", summary(status)));
        let written = self.api.request(&author, &words, |store| {
            let precondition = Precondition { uid: Some(uid.to_owned()), resource_version: None };
            store.change(&author, (Kind::HostState, &host, Part::Status), &precondition, |object| {
                object.status = json!(status).into();
            })
        });
        let written = written.await;
        // What the server refused to take is no claim; what got lost on the way may have arrived.
        if !matches!(written, Ok(_) | Err(WriteError::Unavailable)) {
            self.claim = None;
        }
        written.map(drop).map_err(|error| self.error("patch status", &error))
    }

    async fn renew_lease(&mut self, now: Timestamp) -> Result<(), ClusterError> {
        // A sign of life is written every few seconds whatever happens: it is neither counted nor an accident's place.
        let (author, host) = (&self.author, &self.host);
        let renewed = self.api.with(|store| {
            if store.is_away {
                return Err(WriteError::Unavailable);
            }
            let spec = json!({ "renewTime": now.to_string() });
            match store.get(Kind::Lease, host) {
                None => store.create(author, Kind::Lease, object(host, Default::default(), spec)),
                Some(_) => store.change(author, (Kind::Lease, host, Part::Whole), &Precondition::default(), |lease| {
                    lease.spec = spec.into();
                }),
            }
        });
        renewed.map(drop).map_err(|error| self.error("renew lease", &error))
    }

    async fn record_event(&mut self, event: &HostEvent) -> Result<(), ClusterError> {
        let words = Words(|| format!("event {}: {}", event.reason, event.note));
        let recorded = self.api.request(&self.author, &words, |store| {
            store.events.push(format!("{}: {words}", self.host));
            Ok(())
        });
        recorded.await.map_err(|error| self.error("record event", &error))
    }
}

/// A HostState as the agent's watch shows it.
pub fn raw(object: &RawObject) -> RawHostState {
    let RawObject { uid, generation, annotations, spec, status, .. } = object;
    RawHostState {
        uid: uid.clone(),
        generation: *generation,
        term: object.term(),
        annotations: annotations.clone(),
        entries: spec.get("topologies").and_then(Value::as_array).cloned().unwrap_or_default(),
        status: decode::<HostStateStatus>(status).ok(),
    }
}

fn summary(status: &HostStateStatus) -> String {
    let words = status.topologies.iter().map(|topology| {
        let conditions = topology.conditions.iter().filter(|c| {
            use lamina_crds::conditions::ConditionType as Type;
            matches!(c.type_, Type::Ready | Type::Stalled | Type::Drifted)
        });
        let conditions: Vec<String> =
            conditions.map(|c| format!("{:?} {:?} ({}: {})", c.type_, c.status, c.reason, c.message)).collect();
        format!("{} {:?} {:?}: {}", topology.name, topology.state, topology.revision, conditions.join(", "))
    });
    format!("generation {}; {}", status.observed_generation, words.collect::<Vec<_>>().join("; "))
}
