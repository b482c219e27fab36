//! The straight path of the operator: one pass over everything, from what the caches hold to what is written.

use jiff::Timestamp;
use lamina_crds::SliceTopologyStatus;
use tracing::{debug, info, warn};

use crate::aggregate::aggregate;
use crate::changes::{Change, changes};
use crate::check::{Violation, check};
use crate::cluster::{Cluster, ClusterError};
use crate::liveness::silent_from;
use crate::memory::Memory;
use crate::news::news;
use crate::resolve::{Resolution, resolve};
use crate::view::{ClusterView, Definitions, TopologyView};

/// One pass. Running it again is always safe; with nothing changed it writes nothing.
///
/// Ends early only if the API server does not answer; every other failure concerns one object and is counted.
pub async fn pass(
    memory: &mut Memory,
    cluster: &mut impl Cluster,
    now: Timestamp,
) -> Result<PassSummary, ClusterError> {
    let mut view = memory.look(cluster.snapshot(), now);
    if view.holds_removals() && cluster.definitions_are_leaving().await? {
        view.definitions = Definitions::Leave;
    }
    let resolution = resolve(&view);
    let violations = check(&view, &resolution);
    let changes = changes(&view, &resolution, &violations, now);
    memory.forget_refusals(|host| changes.iter().any(|change| change.host() == Some(host)));
    let blocked: Vec<Violation> = violations.iter().cloned().chain(memory.refusals()).collect();

    let mut summary = PassSummary { violations, wake_at: wake_at(&view, now), ..PassSummary::default() };
    // Status first: before a change reaches any host, its topology says that it is on the way.
    for (topology, status) in statuses(&view, &resolution, &blocked, now) {
        summary.count(write_status(memory, cluster, topology, &status, now).await)?;
    }
    for change in &changes {
        summary.count(perform(memory, cluster, &memory.retarget(change), now).await)?;
    }
    summary.log();
    Ok(summary)
}

/// What one pass did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PassSummary {
    /// Writes that succeeded.
    pub writes: usize,
    /// Writes that came too late; the next pass decides anew.
    pub conflicts: usize,
    /// Writes that the server refuses.
    pub refusals: usize,
    /// What the check found; nothing was written to these hosts.
    pub violations: Vec<Violation>,
    /// When to look again even if nothing is heard: an agent may have fallen silent by then.
    pub wake_at: Option<Timestamp>,
}

impl PassSummary {
    fn count(&mut self, result: Result<(), ClusterError>) -> Result<(), ClusterError> {
        match result {
            Ok(()) => self.writes += 1,
            Err(error @ (ClusterError::Conflict { .. } | ClusterError::NotFound { .. })) => {
                debug!(%error, "too late; deciding anew");
                self.conflicts += 1;
            }
            Err(error @ ClusterError::Refused { .. }) => {
                warn!(%error, "the API server refuses a write");
                self.refusals += 1;
            }
            Err(error @ ClusterError::Unavailable { .. }) => return Err(error),
        }
        Ok(())
    }

    fn log(&self) {
        let Self { writes, conflicts, refusals, violations, wake_at: _ } = self;
        for Violation { host, message } in violations {
            warn!(%host, %message, "a resolution breaks an invariant; nothing is written to this host");
        }
        if writes + conflicts + refusals > 0 {
            info!(writes, conflicts, refusals, "pass done");
        } else {
            debug!("pass done, nothing to write");
        }
    }
}

/// The statuses that differ from what is written.
fn statuses<'a>(
    view: &'a ClusterView,
    resolution: &Resolution,
    blocked: &[Violation],
    now: Timestamp,
) -> Vec<(&'a TopologyView, SliceTopologyStatus)> {
    let topologies = view.topologies.values().map(AsRef::as_ref);
    let statuses = topologies.map(|topology| (topology, aggregate(view, topology, resolution, blocked, now)));
    statuses.filter(|(topology, status)| topology.status != *status).collect()
}

async fn write_status(
    memory: &mut Memory,
    cluster: &mut impl Cluster,
    topology: &TopologyView,
    status: &SliceTopologyStatus,
    now: Timestamp,
) -> Result<(), ClusterError> {
    let written = cluster.patch_topology_status(&topology.target, status).await?;
    memory.remember_status(written, now);
    for event in news(topology, status) {
        if let Err(error) = cluster.record_event(&event).await {
            debug!(%error, "an event is lost");
        }
    }
    Ok(())
}

async fn perform(
    memory: &mut Memory,
    cluster: &mut impl Cluster,
    change: &Change,
    now: Timestamp,
) -> Result<(), ClusterError> {
    info!(change = %change.attempt(), "writing");
    let result = cluster.perform(change).await;
    if let (Err(ClusterError::Refused { message, .. }), Some(host)) = (&result, change.host()) {
        memory.remember_refusal(host, format!("the API server refuses the write: {message}"));
    }
    memory.remember(change, result?, now);
    Ok(())
}

/// The next moment at which an agent that is not silent yet may be.
fn wake_at(view: &ClusterView, now: Timestamp) -> Option<Timestamp> {
    let moments = view.hosts.values().filter_map(|host| silent_from(host, view.watching_since));
    moments.filter(|moment| *moment > now).min()
}

#[cfg(test)]
mod tests;
