//! Gives operator and agents the identities that the chart gives their pods, where no kubelet runs: registers Nodes,
//! waits until the real scheduler has bound the pods, requests tokens bound to them, and renews these.

#![expect(clippy::disallowed_methods, reason = "it waits with a limit")]

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1::{Node, Pod, ServiceAccount};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};

use crate::control_plane::kubeconfig;

/// How long scheduler and controllers may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// How long a token is asked to live. Half of it is the time after which it is renewed.
const TOKEN_SECONDS: i64 = 3600;

/// Who needs a token.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Identity {
    /// The Deployment's pod.
    Operator,
    /// The DaemonSet's pod on the host of this name.
    Agent(String),
}

/// The pods of one release of the chart, and the nodes they run on.
#[derive(Clone, Debug)]
pub struct Identities {
    kubeconfig: PathBuf,
    namespace: String,
    release: String,
}

impl Identities {
    /// Those of the release `release` in `namespace`, administered with the kubeconfig at `kubeconfig`.
    pub fn new(kubeconfig: &Path, namespace: &str, release: &str) -> Self {
        let (namespace, release) = (namespace.to_owned(), release.to_owned());
        Self { kubeconfig: kubeconfig.to_owned(), namespace, release }
    }

    /// Makes a Node that pods can be bound to. One that is there already keeps its identity and gets the labels.
    pub async fn register(&self, host: &str, labels: &BTreeMap<String, String>) -> Result<()> {
        let nodes: Api<Node> = Api::all(self.client().await?);
        let parameters = PatchParams::apply("lamina-lab").force();
        let node = json!({
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": { "name": host, "labels": labels },
        });
        nodes.patch(host, &parameters, &Patch::Apply(node)).await.with_context(|| format!("registering {host}"))?;
        // A new node is tainted until a kubelet reports; none will.
        let untainted = json!({ "spec": { "taints": null } });
        nodes
            .patch(host, &PatchParams::default(), &Patch::Merge(untainted))
            .await
            .with_context(|| format!("untainting {host}"))?;
        nodes
            .patch_status(host, &PatchParams::default(), &Patch::Merge(node_status()))
            .await
            .with_context(|| format!("reporting {host} ready"))?;
        Ok(())
    }

    /// Removes a host's Node and the pods on it. Its agent's token is refused from then on.
    pub async fn remove(&self, host: &str) -> Result<()> {
        let client = self.client().await?;
        let nodes: Api<Node> = Api::all(client.clone());
        absent_is_fine(nodes.delete(host, &DeleteParams::default()).await.map(drop))
            .with_context(|| format!("removing Node {host}"))?;
        let pods: Api<Pod> = Api::all(client.clone());
        let on_host = ListParams::default().fields(&format!("spec.nodeName={host}"));
        for pod in pods.list(&on_host).await.with_context(|| format!("listing the pods of {host}"))? {
            delete_now(&client, &pod).await?;
        }
        Ok(())
    }

    /// A token bound to the agent's pod on a host; waits until the pod is bound.
    pub async fn agent_token(&self, host: &str) -> Result<String> {
        self.token(&Identity::Agent(host.to_owned())).await
    }

    /// A token bound to the operator's pod; waits until the pod is bound.
    pub async fn operator_token(&self) -> Result<String> {
        self.token(&Identity::Operator).await
    }

    /// A token bound to a pod; waits until the scheduler has bound that pod.
    pub async fn token(&self, identity: &Identity) -> Result<String> {
        let client = self.client().await?;
        let pod = self.bound_pod(&client, identity).await?;
        let account = pod.spec.as_ref().and_then(|spec| spec.service_account_name.clone());
        let account = account.with_context(|| format!("pod {} has no service account", pod.name_any()))?;
        let request: TokenRequest = serde_json::from_value(json!({
            "metadata": {},
            "spec": {
                "audiences": [],
                "expirationSeconds": TOKEN_SECONDS,
                "boundObjectRef": { "apiVersion": "v1", "kind": "Pod", "name": pod.name_any(), "uid": pod.uid() },
            },
        }))
        .context("writing a token request")?;
        let accounts: Api<ServiceAccount> = Api::namespaced(client, &self.namespace);
        let answer = accounts
            .create_token_request(&account, &PostParams::default(), &request)
            .await
            .with_context(|| format!("requesting a token of {account} for pod {}", pod.name_any()))?;
        let status = answer.status.with_context(|| format!("the token request of {account} has no answer"))?;
        Ok(status.token)
    }

    /// Does a kubelet's part for the release's pods once: bound ones run, terminating ones go.
    pub async fn settle_pods(&self) -> Result<()> {
        let client = self.client().await?;
        let pods: Api<Pod> = Api::namespaced(client.clone(), &self.namespace);
        let ours = ListParams::default().labels(&format!("app.kubernetes.io/instance={}", self.release));
        for pod in pods.list(&ours).await.context("listing the release's pods")? {
            let is_bound = pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some());
            let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
            if pod.metadata.deletion_timestamp.is_some() {
                delete_now(&client, &pod).await?;
            } else if is_bound && phase == Some("Pending") {
                let patch = Patch::Merge(running());
                let outcome = pods.patch_status(&pod.name_any(), &PatchParams::default(), &patch).await;
                absent_is_fine(outcome.map(drop)).with_context(|| format!("reporting pod {}", pod.name_any()))?;
            }
        }
        Ok(())
    }

    /// Delivers a token for each identity, and a new one before it ends or when its pod was replaced, for ever.
    ///
    /// Does a kubelet's part for the pods meanwhile. An API server that is away is waited for.
    pub async fn keep<F, D>(&self, identities: &[Identity], mut deliver: F) -> Result<()>
    where
        F: FnMut(Identity, String) -> D,
        D: Future<Output = Result<()>>,
    {
        let renewal = Duration::from_secs(TOKEN_SECONDS.unsigned_abs() / 2);
        let mut delivered: BTreeMap<Identity, (String, Instant)> = BTreeMap::new();
        loop {
            if self.settle_pods().await.is_ok() {
                for identity in identities {
                    let Ok(Some(pod)) = self.pod(&self.client().await?, identity).await else { continue };
                    let uid = pod.uid().unwrap_or_default();
                    let known = delivered.get(identity);
                    if known.is_some_and(|(of, since)| *of == uid && since.elapsed() < renewal) {
                        continue;
                    }
                    let Ok(token) = self.token(identity).await else { continue };
                    deliver(identity.clone(), token).await?;
                    delivered.insert(identity.clone(), (uid, Instant::now()));
                }
            }
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
    }

    async fn bound_pod(&self, client: &Client, identity: &Identity) -> Result<Pod> {
        let begin = Instant::now();
        loop {
            if let Some(pod) = self.pod(client, identity).await? {
                return Ok(pod);
            }
            if begin.elapsed() > PATIENCE {
                bail!(
                    "no pod of {identity:?} in namespace {} is bound to a node: {}",
                    self.namespace,
                    self.why().await?
                );
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// The pod of an identity, once it is bound.
    pub async fn pod(&self, client: &Client, identity: &Identity) -> Result<Option<Pod>> {
        let (component, host) = match identity {
            Identity::Operator => ("operator", None),
            Identity::Agent(host) => ("agent", Some(host.as_str())),
        };
        let labels = format!("app.kubernetes.io/instance={},app.kubernetes.io/component={component}", self.release);
        let pods: Api<Pod> = Api::namespaced(client.clone(), &self.namespace);
        let found = pods.list(&ListParams::default().labels(&labels)).await.context("listing the release's pods")?;
        let is_right = |pod: &Pod| {
            let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
            pod.metadata.deletion_timestamp.is_none() && node.is_some() && (host.is_none() || node == host)
        };
        Ok(found.items.into_iter().find(is_right))
    }

    /// What the pods say about themselves, for errors.
    async fn why(&self) -> Result<String> {
        let pods: Api<Pod> = Api::namespaced(self.client().await?, &self.namespace);
        let told = |pod: Pod| format!("{}: {:?}", pod.name_any(), pod.status.and_then(|status| status.conditions));
        let found = pods.list(&ListParams::default()).await.context("listing the pods")?;
        Ok(found.items.into_iter().map(told).collect::<Vec<_>>().join("; "))
    }

    async fn client(&self) -> Result<Client> {
        kubeconfig::client(&self.kubeconfig).await
    }
}

fn node_status() -> Value {
    let room = json!({ "cpu": "64", "memory": "64Gi", "pods": "110" });
    json!({ "status": {
        "capacity": room,
        "allocatable": room,
        "conditions": [{
            "type": "Ready",
            "status": "True",
            "reason": "LabHost",
            "message": "no kubelet runs here; the lab binds pods to this host to give its agent an identity",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
            "lastHeartbeatTime": "2026-01-01T00:00:00Z",
        }],
    } })
}

fn running() -> Value {
    let is = |condition: &str| json!({ "type": condition, "status": "True" });
    json!({ "status": {
        "phase": "Running",
        "conditions": [is("PodScheduled"), is("Initialized"), is("ContainersReady"), is("Ready")],
    } })
}

async fn delete_now(client: &Client, pod: &Pod) -> Result<()> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), &pod.namespace().unwrap_or_default());
    let at_once = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
    absent_is_fine(pods.delete(&pod.name_any(), &at_once).await.map(drop))
        .with_context(|| format!("deleting pod {}", pod.name_any()))
}

fn absent_is_fine(outcome: kube::Result<()>) -> kube::Result<()> {
    match outcome {
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        outcome => outcome,
    }
}
