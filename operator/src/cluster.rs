//! The seam between the operator and the world: everything it reads from and does to the cluster, one verb per effect.

use lamina_crds::SliceTopologyStatus;

use crate::changes::{Change, Target};
use crate::snapshot::{RawObject, Snapshot};

/// What the operator needs of a cluster. The real one stands in `kube_cluster`; the simulation brings its own.
///
/// Single-threaded: futures need not be `Send`. A write that carries a resourceVersion fails with
/// [`ClusterError::Conflict`] if the object has changed since; one that could end after this operator's right to write
/// fails with [`ClusterError::NotLeading`].
#[expect(async_fn_in_trait, reason = "one thread runs the whole operator; no future has to be Send")]
pub trait Cluster {
    /// What the caches hold now. Reads nothing from the API server.
    fn snapshot(&self) -> Snapshot;

    /// Whether one of Lamina's two CustomResourceDefinitions is being deleted or gone: a read of both by name.
    async fn definitions_are_leaving(&mut self) -> Result<bool, ClusterError>;

    /// Writes one change. Returns the object as the server keeps it afterwards; none if it is gone.
    async fn perform(&mut self, change: &Change) -> Result<Option<RawObject>, ClusterError>;

    /// Replaces the status of a topology (server-side apply of the whole status, manager `lamina-operator`, forced,
    /// with the uid and resourceVersion of the target). Returns the object as the server keeps it afterwards.
    async fn patch_topology_status(
        &mut self,
        topology: &Target,
        status: &SliceTopologyStatus,
    ) -> Result<RawObject, ClusterError>;

    /// Records an event about a topology. Events are news, not state: a lost one is no error.
    async fn record_event(&mut self, event: &TopologyEvent) -> Result<(), ClusterError>;
}

/// A piece of news about a topology.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopologyEvent {
    /// The topology's name.
    pub topology: String,
    /// The topology's uid.
    pub uid: String,
    /// Whether a person should look.
    pub severity: Severity,
    /// One word in CamelCase; a reason of the condition it follows from.
    pub reason: String,
    /// What happened, naming object, values and remedy.
    pub note: String,
}

/// Whether a person should look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Good or expected news.
    Normal,
    /// Somebody should look.
    Warning,
}

/// Why an effect on the cluster failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClusterError {
    /// The object is not as it was when the decision was made; the next pass decides anew.
    #[error("{attempt}: the object has changed since: {message}")]
    Conflict {
        /// What was tried, naming the object.
        attempt: String,
        /// What the server said.
        message: String,
    },
    /// The object is gone.
    #[error("{attempt}: the object is gone: {message}")]
    NotFound {
        /// What was tried, naming the object.
        attempt: String,
        /// What the server said.
        message: String,
    },
    /// The server understood and refuses: a schema, a policy, missing rights. It will refuse again.
    #[error("{attempt}: the API server refuses: {message}")]
    Refused {
        /// What was tried, naming the object.
        attempt: String,
        /// What the server said.
        message: String,
    },
    /// This operator does not lead (any more): nothing was sent.
    #[error("{attempt}: not written, because this operator does not lead")]
    NotLeading {
        /// What was to be tried, naming the object.
        attempt: String,
    },
    /// No answer, or one that says "later". The write may have happened.
    #[error("{attempt}: no answer from the API server: {message}")]
    Unavailable {
        /// What was tried, naming the object.
        attempt: String,
        /// What went wrong.
        message: String,
    },
}
