//! Conducts a look ahead: what a pass would accept, find and do on the host, without any effect on it.

use std::collections::BTreeMap;

use lamina_crds::Hardware;

use crate::accept::{Accepted, Judged, accept};
use crate::cluster::RawHostState;
use crate::converge::{Work, look};
use crate::desired::DesiredHost;
use crate::host::{Host, HostError};
use crate::instruction::{desired, remember};
use crate::plan::{Plan, outlook};
use crate::preflight::Refusal;

/// What a pass would meet.
#[derive(Clone, Debug)]
pub struct Foresight {
    /// What would be followed.
    pub accepted: Accepted,
    /// Entries that would not be followed.
    pub refused: BTreeMap<String, Refusal>,
    /// What is followed, rendered.
    pub desired: DesiredHost,
    /// The host as it is, and what would not be touched.
    pub work: Work,
    /// Everything that differs; see [`outlook`].
    pub plan: Plan,
}

/// The accepted state as it stands on disk.
///
/// # Errors
/// Fails when it cannot be read, or with the refusal's words when a newer agent wrote it.
pub async fn recalled(host: &mut impl Host) -> Result<Accepted, RecallError> {
    match remember(host).await? {
        (accepted, None) => Ok(accepted),
        (_, Some(newer)) => Err(RecallError::Newer(newer.message)),
    }
}

/// Why the accepted state cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RecallError {
    /// It cannot be read.
    #[error(transparent)]
    Host(#[from] HostError),
    /// It is in a newer format.
    #[error("{0}")]
    Newer(String),
}

/// Looks at the host as a pass would that follows `object`, and does nothing.
///
/// # Errors
/// Fails when the host cannot be looked at.
pub async fn foresee(
    host: &mut impl Host,
    hardware: &Hardware,
    former: &Accepted,
    object: &RawHostState,
) -> Result<Foresight, HostError> {
    let Judged { accepted, refused } = accept(former, object);
    let desired = desired(&accepted);
    let work = look(host, &desired, hardware).await;
    let plan = match &work.observed {
        Some(observed) => outlook(&desired, observed, &work.held),
        None => return Err(HostError::Gone(work.problems.join("; "))),
    };
    Ok(Foresight { accepted, refused, desired, work, plan })
}
