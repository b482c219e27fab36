//! The API server as the operator sees it: behind the operator's own seam.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::Arc;

use jiff::Timestamp;
use lamina_crds::SliceTopologyStatus;
use lamina_crds::host_state::{ORIGIN_LABEL, ORIGIN_NODE};
use lamina_operator::changes::{Change, Target};
use lamina_operator::cluster::{Cluster, ClusterError, TopologyEvent};
use lamina_operator::election::Candidate;
use lamina_operator::liveness::SILENCE;
use lamina_operator::snapshot::{LeaseTrace, RawObject, Snapshot};
use serde_json::{Value, json};

use super::admission::{Author, OPERATORS_LEASE, Part};
use super::election::moment;
use super::{ApiServer, Kind, Precondition, View, Words, WriteError, object};

/// The operator's connection.
#[derive(Clone, Debug)]
pub struct OperatorClient {
    /// The API server.
    pub api: ApiServer,
    /// Who it is there.
    pub author: Author,
    /// Its part in the election.
    pub candidate: Candidate,
    seat: usize,
    /// What its watches have shown.
    pub view: View,
    /// The status it last wrote of each topology.
    pub claims: BTreeMap<String, SliceTopologyStatus>,
    /// Counts the agents that were heard of again.
    pub returns: u64,
    traces: BTreeMap<String, (String, LeaseTrace)>,
    watching_since: Timestamp,
}

impl OperatorClient {
    /// The connection of the operator in this seat, in this of its lives, before any answer.
    pub fn new(api: &ApiServer, seat: usize, life: u64, now: Timestamp) -> Self {
        Self {
            api: api.clone(),
            author: Author::Operator(seat),
            candidate: Candidate::new(format!("operator-{seat}-{life}")),
            seat,
            view: View::default(),
            claims: BTreeMap::new(),
            returns: 0,
            traces: BTreeMap::new(),
            watching_since: now,
        }
    }

    /// The same connection to another server.
    pub fn moved_to(&self, api: &ApiServer) -> Self {
        Self { api: api.clone(), ..self.clone() }
    }

    /// Takes note of which leases changed, by the client's own clock.
    pub fn watch_leases(&mut self, now: Timestamp) {
        let Some(version) = self.view.of(Kind::Lease) else { return };
        let Self { api, traces, returns, .. } = self;
        api.with(|store| {
            for (host, lease) in store.list_at(Kind::Lease, version).filter(|(name, _)| *name != OPERATORS_LEASE) {
                match traces.get_mut(host) {
                    None => {
                        let trace = LeaseTrace { first_seen: now, last_change_seen: None };
                        traces.insert(host.to_owned(), (lease.resource_version.clone(), trace));
                    }
                    Some((known, trace)) if *known != lease.resource_version => {
                        known.clone_from(&lease.resource_version);
                        let was_in_doubt = trace.last_change_seen.is_none_or(|last| now >= last + SILENCE);
                        *returns += u64::from(was_in_doubt);
                        trace.last_change_seen = Some(now);
                    }
                    Some(_) => {}
                }
            }
        });
    }

    /// What there is to be heard: the newest change of each kind that its watches have shown, and who is back.
    pub fn heard(&self) -> [u64; 4] {
        let of = |kind| self.api.with(|store| store.last_change(kind, self.view.of(kind).unwrap_or(0)));
        [of(Kind::SliceTopology), of(Kind::HostState), of(Kind::Node), self.returns]
    }

    /// Whether its process is stopped.
    pub fn is_stopped(&self) -> bool {
        self.api.with(|store| store.stopped.contains(&self.seat))
    }

    /// Whether it may send a write now.
    fn may_write(&self, attempt: &dyn Display) -> Result<(), ClusterError> {
        let now = self.api.with(|store| moment(store.now));
        let may = self.candidate.tenure().is_some_and(|tenure| tenure.left(now).is_some());
        if may { Ok(()) } else { Err(ClusterError::NotLeading { attempt: attempt.to_string() }) }
    }

    fn objects(&self, kind: Kind) -> BTreeMap<String, Arc<RawObject>> {
        let version = self.view.of(kind).unwrap_or(0);
        let copy = |(name, object): (&str, &Arc<RawObject>)| (name.to_owned(), Arc::clone(object));
        self.api.with(|store| store.list_at(kind, version).map(copy).collect())
    }
}

impl Cluster for OperatorClient {
    fn snapshot(&self) -> Snapshot {
        let nodes = self.objects(Kind::Node).into_iter().map(|(name, node)| (name, node.labels.clone())).collect();
        Snapshot {
            topologies: self.objects(Kind::SliceTopology),
            host_states: self.objects(Kind::HostState),
            nodes,
            leases: self.traces.iter().map(|(host, (_, trace))| (host.clone(), *trace)).collect(),
            watching_since: self.watching_since,
        }
    }

    async fn definitions_are_leaving(&mut self) -> Result<bool, ClusterError> {
        self.api.with(|store| {
            if store.is_away {
                let attempt = "get CustomResourceDefinitions".to_owned();
                return Err(ClusterError::Unavailable { attempt, message: "away".to_owned() });
            }
            Ok(store.definitions_leave)
        })
    }

    async fn perform(&mut self, change: &Change) -> Result<Option<RawObject>, ClusterError> {
        let attempt = Words(|| change.attempt());
        self.may_write(&attempt)?;
        let author = &self.author;
        let result = self.api.request(author, &attempt, |store| perform(store, author, change)).await;
        result.map_err(|error| in_words(attempt.to_string(), error))
    }

    async fn patch_topology_status(
        &mut self,
        topology: &Target,
        status: &SliceTopologyStatus,
    ) -> Result<RawObject, ClusterError> {
        let ready =
            || status.conditions.first().map(|c| format!("{:?} {:?} {}: {}", c.type_, c.status, c.reason, c.message));
        let attempt =
            Words(|| format!("patch status of SliceTopology {}: {}", topology.name, ready().unwrap_or_default()));
        self.may_write(&attempt)?;
        let author = &self.author;
        let written = self.api.request(author, &attempt, |store| {
            let place = (Kind::SliceTopology, topology.name.as_str(), Part::Status);
            // A server-side apply of a custom resource's status compares the version and overlooks the uid.
            let precondition = Precondition { uid: None, ..Precondition::of(topology) };
            store.change(author, place, &precondition, |object| {
                object.status = json!(status).into();
            })
        });
        let written = written.await.map_err(|error| in_words(attempt.to_string(), error))?;
        self.claims.insert(topology.name.clone(), status.clone());
        Ok(RawObject::clone(&written))
    }

    async fn record_event(&mut self, event: &TopologyEvent) -> Result<(), ClusterError> {
        let attempt = format!("event {} of {}: {}", event.reason, event.topology, event.note);
        self.may_write(&attempt)?;
        let recorded = self.api.request(&self.author, &attempt, |store| {
            store.events.push(attempt.clone());
            Ok(())
        });
        recorded.await.map_err(|error| in_words(attempt.clone(), error))
    }
}

fn perform(store: &mut super::Store, author: &Author, change: &Change) -> Result<Option<RawObject>, WriteError> {
    let kept = |object: Arc<RawObject>| Some(RawObject::clone(&object));
    match change {
        Change::CreateHostState { host, term } => {
            let labels = BTreeMap::from([(ORIGIN_LABEL.to_owned(), ORIGIN_NODE.to_owned())]);
            match store.create(author, Kind::HostState, object(host, labels, json!({ "term": term }))) {
                Err(WriteError::Exists) => Ok(store.get(Kind::HostState, host).cloned().and_then(kept)),
                other => other.map(kept),
            }
        }
        Change::ApplyHostSpec { target, spec } => {
            let entries: Vec<Value> = spec.topologies.iter().map(|entry| json!(entry)).collect();
            if entries.is_empty() {
                // What is left of the spec is null, and the schema wants an object.
                return Err(WriteError::Refused("spec: must be of type object: \"null\"".to_owned()));
            }
            store.apply_entries(author, &target.name, &Precondition::of(target), spec.term, entries).map(kept)
        }
        Change::EmptyHostSpec { target, term } => {
            store.apply_entries(author, &target.name, &Precondition::of(target), *term, Vec::new()).map(kept)
        }
        Change::DeleteHostState { target } => {
            match store.delete(author, Kind::HostState, &target.name, &Precondition::of(target)) {
                Ok(()) | Err(WriteError::NotFound) => Ok(None),
                Err(error) => Err(error),
            }
        }
        Change::SetFinalizers { target, finalizers } => {
            let place = (Kind::SliceTopology, target.name.as_str(), Part::Whole);
            let set = |object: &mut RawObject| object.finalizers.clone_from(finalizers);
            store
                .change(author, place, &Precondition::of(target), set)
                .map(|_| store.get(Kind::SliceTopology, &target.name).cloned().and_then(kept))
        }
    }
}

fn in_words(attempt: String, error: WriteError) -> ClusterError {
    match error {
        WriteError::Conflict(message) => ClusterError::Conflict { attempt, message },
        WriteError::NotFound => ClusterError::NotFound { attempt, message: "it is gone".to_owned() },
        WriteError::Exists => ClusterError::Conflict { attempt, message: "there is one already".to_owned() },
        WriteError::Refused(message) => ClusterError::Refused { attempt, message },
        WriteError::Unavailable => ClusterError::Unavailable { attempt, message: "timeout".to_owned() },
    }
}
