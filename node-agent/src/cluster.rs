//! The seam to the API server, as the agent uses it: its own object, its status, its Lease, its events.

use std::collections::BTreeMap;

use jiff::Timestamp;
use lamina_crds::{HostStateStatus, Term};

/// The API server as one agent may use it. One verb per effect.
#[expect(async_fn_in_trait, reason = "used by one task, on one thread; nobody needs the futures to be Send")]
pub trait Cluster {
    /// The host's own object as the watch last showed it.
    fn seen(&self) -> Seen;

    /// Writes the status of the object with this uid (field manager `lamina-agent`). Fails if another
    /// object bears the name by now: its generations count anew, and what was measured for the old one is not true of it.
    async fn patch_status(&mut self, uid: &str, status: &HostStateStatus) -> Result<(), ClusterError>;

    /// Renews the Lease that says this agent lives.
    async fn renew_lease(&mut self, now: Timestamp) -> Result<(), ClusterError>;

    /// Records an event about the host's own object.
    async fn record_event(&mut self, event: &HostEvent) -> Result<(), ClusterError>;
}

/// What the watch last showed.
#[derive(Clone, Debug, PartialEq)]
pub enum Seen {
    /// Nothing yet: the API server has not answered since the agent started.
    NotYet,
    /// There is no such object.
    Nothing,
    /// The object.
    Object(Box<RawHostState>),
}

/// A HostState whose entries are not decoded yet, so that one entry from a newer operator does not hide the others.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RawHostState {
    /// The object's uid.
    pub uid: String,
    /// The object's generation.
    pub generation: i64,
    /// The term in which the operator wrote it. One that no operator wrote bears the highest that was accepted.
    pub term: Term,
    /// The object's annotations.
    pub annotations: BTreeMap<String, String>,
    /// `spec.topologies`, undecoded.
    pub entries: Vec<serde_json::Value>,
    /// The status as last written; `None` if there is none or it cannot be read.
    pub status: Option<HostStateStatus>,
}

/// Something worth telling the people who watch the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostEvent {
    /// Normal or Warning.
    pub kind: EventKind,
    /// One CamelCase word.
    pub reason: &'static str,
    /// What was done: `Heal`, `Apply`, `Start`, ...
    pub action: &'static str,
    /// What happened, naming unit, values and hand.
    pub note: String,
}

/// How grave an event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// As it should be.
    Normal,
    /// Somebody should look.
    Warning,
}

/// A call to the API server that did not succeed.
#[derive(Debug, thiserror::Error)]
#[error("{attempt} of HostState {host}: {message}")]
pub struct ClusterError {
    /// What was tried.
    pub attempt: &'static str,
    /// The host.
    pub host: String,
    /// What the server or the connection said.
    pub message: String,
}
