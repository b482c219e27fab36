//! Touches the real cluster: the seam of `cluster` over the Kubernetes API, with a deadline on every call, and nothing
//! written but by the operator that leads.

#![expect(clippy::disallowed_methods, reason = "this file reads the clock for decisions that take it as `now`")]

mod caches;
pub mod teardown;
mod watches;

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use anyhow::Context;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{
    ApiResource, DeleteParams, DynamicObject, PartialObjectMeta, Patch, PatchParams, PostParams, Preconditions,
    ValidationDirective,
};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Api, Client, Config};
use lamina_crds::{HostState, SliceTopology, SliceTopologyStatus};
use serde_json::{Value, json};
use tokio::sync::{Notify, watch};

use crate::changes::{Change, FIELD_MANAGER, Target};
use crate::clock::moment;
use crate::cluster::{Cluster, ClusterError, Severity, TopologyEvent};
use crate::election::Tenure;
use crate::kube_cluster::caches::Caches;
use crate::snapshot::{RawObject, Snapshot};

/// The cluster as the API server shows it.
pub struct KubeCluster {
    topologies: Api<DynamicObject>,
    host_states: Api<DynamicObject>,
    definitions: Api<PartialObjectMeta<CustomResourceDefinition>>,
    recorder: Recorder,
    caches: Rc<RefCell<Caches>>,
    changed: Rc<Notify>,
    right: watch::Receiver<Option<Tenure>>,
    pen: Rc<Pen>,
}

/// Whether this process writes at all, and how its writes fared.
#[derive(Debug, Default)]
pub struct Pen {
    is_down: Cell<bool>,
    unanswered: Cell<bool>,
}

/// How long one call may take, with all its retries.
const DEADLINE: Duration = Duration::from_secs(15);

/// How long the API server may leave a request without a byte: a little more than a watch lasts.
const QUIET: Duration = Duration::from_secs(300);

/// The names of Lamina's two definitions.
const DEFINITIONS: [&str; 2] = ["slicetopologies.lamina.dev", "hoststates.lamina.dev"];

impl KubeCluster {
    /// Starts to watch; writes only as `right` allows. Must run inside a `LocalSet`.
    pub fn start(
        config: Config,
        lease_namespace: &str,
        right: watch::Receiver<Option<Tenure>>,
    ) -> anyhow::Result<Self> {
        let client = Client::try_from(config).context("build the client of the API server")?;
        let topology = ApiResource::erase::<SliceTopology>(&());
        let host_state = ApiResource::erase::<HostState>(&());
        let reporter = Reporter { controller: FIELD_MANAGER.to_owned(), instance: None };
        let cluster = Self {
            topologies: Api::all_with(client.clone(), &topology),
            host_states: Api::all_with(client.clone(), &host_state),
            definitions: Api::all(client.clone()),
            recorder: Recorder::new(client.clone(), reporter),
            caches: Rc::new(RefCell::new(Caches::new(Timestamp::now()))),
            changed: Rc::new(Notify::new()),
            right,
            pen: Rc::default(),
        };
        watches::start(&client, lease_namespace, &cluster.caches, &cluster.changed);
        Ok(cluster)
    }

    /// Waits until something has changed that a pass should see. Changes before the call count.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// What ends all writing, and knows whether some write is still open.
    pub fn pen(&self) -> Rc<Pen> {
        Rc::clone(&self.pen)
    }

    /// Waits for the answer to a write, which must have ended before the right to write does.
    async fn write<T>(
        &self,
        attempt: &str,
        call: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<T, ClusterError> {
        let right = self.right.borrow().and_then(|tenure| tenure.left(moment()));
        let Some(left) = right.filter(|_| !self.pen.is_down.get()) else {
            return Err(ClusterError::NotLeading { attempt: attempt.to_owned() });
        };
        let answered = answer_within(attempt, left.min(DEADLINE), call).await;
        if matches!(answered, Err(ClusterError::Unavailable { .. })) {
            self.pen.unanswered.set(true);
        }
        answered
    }

    /// Whether every cache has been filled once; deciding from less would take absence for deletion.
    pub fn is_complete(&self) -> bool {
        self.caches.borrow().is_complete()
    }
}

impl Pen {
    /// No write begins any more.
    pub fn put_down(&self) {
        self.is_down.set(true);
    }

    /// Whether it was put down.
    pub fn is_down(&self) -> bool {
        self.is_down.get()
    }

    /// Whether some write may still be done because it had no answer.
    pub fn has_unanswered(&self) -> bool {
        self.unanswered.get()
    }
}

/// How to reach the API server: with a kubeconfig, or with a pod's token if there is none.
pub async fn configuration(kubeconfig: Option<&Path>) -> anyhow::Result<Config> {
    let mut config = match kubeconfig {
        None => Config::incluster().context("read the pod's service account; outside a pod give --kubeconfig")?,
        Some(path) => {
            let file = Kubeconfig::read_from(path).with_context(|| format!("read kubeconfig {}", path.display()))?;
            let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await;
            config.with_context(|| format!("use kubeconfig {}", path.display()))?
        }
    };
    config.connect_timeout = Some(Duration::from_secs(10));
    config.read_timeout = Some(QUIET);
    config.reset_reader_on_write = true;
    Ok(config)
}

impl Cluster for KubeCluster {
    fn snapshot(&self) -> Snapshot {
        self.caches.borrow().snapshot()
    }

    async fn definitions_are_leaving(&mut self) -> Result<bool, ClusterError> {
        for name in DEFINITIONS {
            let attempt = format!("read CustomResourceDefinition {name}");
            let definition = answer(&attempt, self.definitions.get_opt(name)).await?;
            if definition.is_none_or(|definition| definition.metadata.deletion_timestamp.is_some()) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn perform(&mut self, change: &Change) -> Result<Option<RawObject>, ClusterError> {
        let attempt = change.attempt();
        let body = change.body();
        match change {
            Change::CreateHostState { .. } => self.create_host_state(&attempt, body).await,
            Change::ApplyHostSpec { target, spec: _ } => {
                let patch = Patch::Apply(body);
                raw(&attempt, self.write(&attempt, self.host_states.patch(&target.name, &applying(), &patch)).await?)
                    .map(Some)
            }
            Change::DeleteHostState { target } => {
                match self.write(&attempt, self.host_states.delete(&target.name, &exactly(target))).await {
                    Ok(_) | Err(ClusterError::NotFound { .. }) => Ok(None),
                    Err(error) => Err(error),
                }
            }
            Change::EmptyHostSpec { target, term: _ } => {
                let patch = Patch::Merge(body);
                raw(&attempt, self.write(&attempt, self.host_states.patch(&target.name, &merging(), &patch)).await?)
                    .map(Some)
            }
            Change::SetFinalizers { target, finalizers: _ } => {
                let patch = Patch::Merge(body);
                raw(&attempt, self.write(&attempt, self.topologies.patch(&target.name, &merging(), &patch)).await?)
                    .map(Some)
            }
        }
    }

    async fn patch_topology_status(
        &mut self,
        topology: &Target,
        status: &SliceTopologyStatus,
    ) -> Result<RawObject, ClusterError> {
        let attempt = format!("apply the status of SliceTopology {}", topology.name);
        let body = json!({ "apiVersion": "lamina.dev/v1alpha1", "kind": "SliceTopology", "metadata": topology.metadata(),
            "status": status });
        let (params, patch) = (applying(), Patch::Apply(body));
        raw(&attempt, self.write(&attempt, self.topologies.patch_status(&topology.name, &params, &patch)).await?)
    }

    async fn record_event(&mut self, event: &TopologyEvent) -> Result<(), ClusterError> {
        let attempt = format!("record event {} about SliceTopology {}", event.reason, event.topology);
        self.write(&attempt, self.recorder.publish(&news(event), &reference(event))).await
    }
}

impl KubeCluster {
    async fn create_host_state(&self, attempt: &str, body: Value) -> Result<Option<RawObject>, ClusterError> {
        let object = serde_json::from_value(body).map_err(|error| refused(attempt, &error.to_string()))?;
        let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        match self.write(attempt, self.host_states.create(&params, &object)).await {
            Ok(object) => raw(attempt, object).map(Some),
            // Somebody was faster; the caches will show it.
            Err(ClusterError::Conflict { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Server-side apply of fields that are ours by definition; a field that the server does not know is an error.
fn applying() -> PatchParams {
    let field_validation = Some(ValidationDirective::Strict);
    PatchParams { field_validation, ..PatchParams::apply(FIELD_MANAGER).force() }
}

fn merging() -> PatchParams {
    PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() }
}

fn exactly(target: &Target) -> DeleteParams {
    let Target { name: _, uid, resource_version } = target.clone();
    let preconditions = Preconditions { resource_version: Some(resource_version), uid: Some(uid) };
    DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() }
}

fn news(event: &TopologyEvent) -> Event {
    let TopologyEvent { topology: _, uid: _, severity, reason, note } = event;
    let type_ = match severity {
        Severity::Normal => EventType::Normal,
        Severity::Warning => EventType::Warning,
    };
    // The API accepts notes of up to 1024 bytes.
    let note = note.chars().scan(0, |used, character| Some((*used += character.len_utf8(), *used, character)));
    let note = note.take_while(|(_, used, _)| *used <= 1024).map(|(_, _, character)| character).collect();
    Event { type_, reason: reason.clone(), note: Some(note), action: "Reconcile".to_owned(), secondary: None }
}

fn reference(event: &TopologyEvent) -> ObjectReference {
    ObjectReference {
        api_version: Some("lamina.dev/v1alpha1".to_owned()),
        kind: Some("SliceTopology".to_owned()),
        name: Some(event.topology.clone()),
        uid: Some(event.uid.clone()),
        ..ObjectReference::default()
    }
}

fn raw(attempt: &str, object: DynamicObject) -> Result<RawObject, ClusterError> {
    let value = serde_json::to_value(object).ok();
    value.as_ref().and_then(RawObject::from_json).ok_or_else(|| refused(attempt, "the answer is no object with a name"))
}

fn refused(attempt: &str, message: &str) -> ClusterError {
    ClusterError::Refused { attempt: attempt.to_owned(), message: message.to_owned() }
}

/// Waits for the answer to one call and sorts what can go wrong.
async fn answer<T>(attempt: &str, call: impl Future<Output = Result<T, kube::Error>>) -> Result<T, ClusterError> {
    answer_within(attempt, DEADLINE, call).await
}

async fn answer_within<T>(
    attempt: &str,
    limit: Duration,
    call: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, ClusterError> {
    let attempt = attempt.to_owned();
    match tokio::time::timeout(limit, call).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(sorted(attempt, &error)),
        Err(_) => {
            Err(ClusterError::Unavailable { attempt, message: format!("none within {:.1} s", limit.as_secs_f32()) })
        }
    }
}

fn sorted(attempt: String, error: &kube::Error) -> ClusterError {
    let message = match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    };
    match error {
        kube::Error::Api(status) => match status.code {
            404 => ClusterError::NotFound { attempt, message },
            409 => ClusterError::Conflict { attempt, message },
            400 | 403 | 405 | 413 | 415 | 422 => ClusterError::Refused { attempt, message },
            _ => ClusterError::Unavailable { attempt, message },
        },
        _ => ClusterError::Unavailable { attempt, message },
    }
}
