//! Takes everything that Lamina runs from its hosts, through the API server: `teardown`'s steps until nothing is left, or
//! the time is up. An operator must run, and the hosts' agents.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::bail;
use kube::api::{ApiResource, DynamicObject, ListParams, Patch};
use kube::{Api, Client};
use lamina_crds::{HostState, SliceTopology};
use tracing::{info, warn};

use super::{answer, exactly, merging, raw};
use crate::cluster::ClusterError;
use crate::snapshot::RawObject;
use crate::teardown::{Step, left, steps};

/// How long hosts are given between two looks.
const PAUSE: Duration = Duration::from_secs(1);

/// Deletes every topology as if its `deletionPolicy` were Remove, and waits until all hosts have confirmed.
///
/// # Errors
/// Fails when something is left after `limit`, naming it, or when the API server refuses.
pub async fn teardown(client: Client, limit: Duration) -> anyhow::Result<()> {
    let cluster = Cluster {
        topologies: Api::all_with(client.clone(), &ApiResource::erase::<SliceTopology>(&())),
        host_states: Api::all_with(client, &ApiResource::erase::<HostState>(&())),
    };
    let mut last = BTreeSet::new();
    match tokio::time::timeout(limit, cluster.until_nothing_is_left(&mut last)).await {
        Ok(result) => Ok(result?),
        Err(_) => bail!(
            "this is still there after {} s: {}; operator and agents stay, so look why their hosts do not remove it, and \
             uninstall again; or leave it running with `helm uninstall --no-hooks`",
            limit.as_secs(),
            told(&last)
        ),
    }
}

/// The two kinds, as the API server shows them.
struct Cluster {
    topologies: Api<DynamicObject>,
    host_states: Api<DynamicObject>,
}

impl Cluster {
    async fn until_nothing_is_left(&self, last: &mut BTreeSet<String>) -> Result<(), ClusterError> {
        loop {
            match self.look().await {
                Ok(left) if left.is_empty() => {
                    info!("nothing that Lamina ran is left on its hosts");
                    return Ok(());
                }
                Ok(left) if left == *last => {}
                Ok(left) => {
                    info!("waiting until this is gone: {}", told(&left));
                    *last = left;
                }
                Err(error @ ClusterError::Refused { .. }) => return Err(error),
                Err(error) => warn!(%error, "looking again"),
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Takes the next step of every topology, and tells what was left before.
    async fn look(&self) -> Result<BTreeSet<String>, ClusterError> {
        let topologies = list(&self.topologies, "list SliceTopologies").await?;
        // Large, and of interest only when the topologies are gone.
        let host_states =
            if topologies.is_empty() { list(&self.host_states, "list HostStates").await? } else { Vec::new() };
        for step in steps(&topologies) {
            match self.take(&step).await {
                // Somebody else was faster; the next look tells.
                Ok(()) | Err(ClusterError::Conflict { .. } | ClusterError::NotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(left(&topologies, &host_states))
    }

    async fn take(&self, step: &Step) -> Result<(), ClusterError> {
        match step {
            Step::Hold { target, finalizers } => {
                let attempt = format!("hold SliceTopology {} until its hosts have removed it", target.name);
                let patch = Patch::Merge(Step::hold(target, finalizers));
                answer(&attempt, self.topologies.patch(&target.name, &merging(), &patch)).await.map(drop)
            }
            Step::Delete { target } => {
                let attempt = format!("delete SliceTopology {}", target.name);
                answer(&attempt, self.topologies.delete(&target.name, &exactly(target))).await.map(drop)
            }
        }
    }
}

async fn list(kind: &Api<DynamicObject>, attempt: &str) -> Result<Vec<RawObject>, ClusterError> {
    let found = answer(attempt, kind.list(&ListParams::default())).await?;
    found.items.into_iter().map(|object| raw(attempt, object)).collect()
}

fn told(left: &BTreeSet<String>) -> String {
    left.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
}
