//! The real API server, as an agent uses it: watches its own object, writes its status, its Lease and its events.
//!
//! Nothing here holds up the agent: the watch and the Lease are tasks of their own, and every call has a deadline.

#![expect(clippy::disallowed_methods, reason = "Leases and events carry the time of the call")]

mod connection;
mod event;

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::events::v1::Event;
use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject, Patch, PatchParams, PostParams};
use lamina_crds::{HostState, HostStateStatus};
use serde_json::json;
use tokio::sync::watch;

use crate::cluster::{Cluster, ClusterError, HostEvent, Seen};

pub use connection::Access;

/// The field manager of everything an agent writes.
const MANAGER: &str = "lamina-agent";
/// How long one call may take before it counts as failed.
const DEADLINE: Duration = Duration::from_secs(15);
/// For how long the Lease vouches for the agent: a silence of this length makes the host offline.
const LEASE: Duration = Duration::from_secs(40);
/// How often the Lease is renewed.
const RENEWAL: Duration = Duration::from_secs(10);

/// The API server through the eyes of one agent.
pub struct KubeCluster {
    host: String,
    lease_namespace: String,
    seen: watch::Receiver<Seen>,
    client: watch::Receiver<Option<Client>>,
}

impl KubeCluster {
    /// Begins to connect and to watch the HostState `host`. Returns at once, whether or not there is an API server.
    pub fn start(access: Access, host: String, lease_namespace: String) -> Self {
        let (seen_sender, seen) = watch::channel(Seen::NotYet);
        let (client_sender, client) = watch::channel(None);
        tokio::spawn(connection::watch_for_ever(access, host.clone(), client_sender, seen_sender));
        let lease = Self { host, lease_namespace, seen, client };
        tokio::spawn(lease.same().renew_for_ever());
        lease
    }

    /// Waits until the watch shows something else than what [`Cluster::seen`] gave last.
    pub async fn changed(&mut self) {
        if self.seen.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    fn same(&self) -> Self {
        let Self { host, lease_namespace, seen, client } = self;
        Self {
            host: host.clone(),
            lease_namespace: lease_namespace.clone(),
            seen: seen.clone(),
            client: client.clone(),
        }
    }

    async fn renew_for_ever(mut self) {
        loop {
            if let Err(error) = self.renew_lease(Timestamp::now()).await {
                tracing::debug!(error = %error, "lease is not renewed");
            }
            tokio::select! {
                () = tokio::time::sleep(RENEWAL) => {}
                // A new connection vouches at once.
                changed = self.client.changed() => if changed.is_err() { return },
            }
        }
    }

    fn connected(&self, attempt: &'static str) -> Result<Client, ClusterError> {
        let client = self.client.borrow().clone();
        client.ok_or_else(|| self.failed(attempt, "there is no connection to the API server"))
    }

    fn failed(&self, attempt: &'static str, message: impl ToString) -> ClusterError {
        ClusterError { attempt, host: self.host.clone(), message: message.to_string() }
    }

    /// The call's answer, or why there is none; waits no longer than the deadline.
    async fn within_deadline<T>(
        &self,
        attempt: &'static str,
        call: impl Future<Output = kube::Result<T>>,
    ) -> Result<T, ClusterError> {
        match tokio::time::timeout(DEADLINE, call).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(self.failed(attempt, error)),
            Err(_) => Err(self.failed(attempt, format!("no answer in {} s", DEADLINE.as_secs()))),
        }
    }
}

impl Cluster for KubeCluster {
    fn seen(&self) -> Seen {
        self.seen.borrow().clone()
    }

    async fn patch_status(&mut self, uid: &str, status: &HostStateStatus) -> Result<(), ClusterError> {
        let attempt = "write the status";
        let api: Api<DynamicObject> = Api::all_with(self.connected(attempt)?, &host_states());
        // In an apply of a custom resource's status the server overlooks a wrong uid (seen with 1.37); a test it obeys.
        let patch = serde_json::from_value(json!([
            { "op": "test", "path": "/metadata/uid", "value": uid },
            { "op": "add", "path": "/status", "value": status },
        ]));
        let patch = Patch::<()>::Json(patch.map_err(|error| self.failed(attempt, error))?);
        let parameters = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
        self.within_deadline(attempt, api.patch_status(&self.host, &parameters, &patch)).await.map(drop)
    }

    async fn renew_lease(&mut self, now: Timestamp) -> Result<(), ClusterError> {
        let attempt = "renew the Lease";
        let api: Api<Lease> = Api::namespaced(self.connected(attempt)?, &self.lease_namespace);
        let patch = json!({
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": { "name": self.host },
            "spec": {
                "holderIdentity": self.host,
                "leaseDurationSeconds": LEASE.as_secs(),
                "renewTime": k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime(now),
            },
        });
        let parameters = PatchParams::apply(MANAGER).force();
        self.within_deadline(attempt, api.patch(&self.host, &parameters, &Patch::Apply(patch))).await.map(drop)
    }

    async fn record_event(&mut self, event: &HostEvent) -> Result<(), ClusterError> {
        let attempt = "record an event";
        let uid = match &*self.seen.borrow() {
            Seen::Object(object) => Some(object.uid.clone()),
            Seen::NotYet | Seen::Nothing => None,
        };
        let api: Api<Event> = Api::namespaced(self.connected(attempt)?, event::NAMESPACE);
        let event = event::about(&self.host, uid, event, Timestamp::now());
        self.within_deadline(attempt, api.create(&PostParams::default(), &event)).await.map(drop)
    }
}

/// The kind as raw JSON: entries are decoded one by one, so that a strange one does not hide the others.
fn host_states() -> ApiResource {
    ApiResource::erase::<HostState>(&())
}
