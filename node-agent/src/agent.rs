//! Conducts one pass of the agent: accept, render, then observe, plan and apply until nothing is left, then report.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use lamina_crds::host_state::AgentForm;
use lamina_crds::{HostStateStatus, UnitName};

use crate::cluster::{Cluster, HostEvent};
use crate::host::Host;
use crate::observed::Scope;

/// What never changes while an agent runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The host's name, which is also the name of its HostState.
    pub host: String,
    /// The agent's version.
    pub version: String,
    /// How the agent was started.
    pub form: AgentForm,
}

/// Everything remembered between passes. Losing it is always safe.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Memory {
    /// The status last written, with the uid of the object that carries it and the time of the write.
    pub written: Option<WrittenStatus>,
    /// Units that do not come up, with when that began and when the next try is due.
    pub failing: BTreeMap<UnitName, Failing>,
    /// Events that the API server has not taken yet, oldest first.
    pub events: Vec<HostEvent>,
}

/// A status that was written.
#[derive(Clone, Debug, PartialEq)]
pub struct WrittenStatus {
    /// The object's uid.
    pub uid: String,
    /// What was written.
    pub status: HostStateStatus,
    /// When.
    pub at: Timestamp,
}

/// A unit that does not come up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failing {
    /// When it was first seen failing.
    pub since: Timestamp,
    /// How often it was tried since then.
    pub attempts: u32,
    /// When it is tried again.
    pub retry_at: Timestamp,
}

/// What a pass did, and when the next one is due at the latest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PassOutcome {
    /// Steps carried out on the host, successful or not.
    pub steps: usize,
    /// Calls that wrote to the API server.
    pub api_writes: usize,
    /// Whether everything asked is true and measured.
    pub ready: bool,
    /// The next pass is due after this time even if no event comes; `None`: only the slow re-check.
    pub again_after: Option<Duration>,
    /// What went wrong, in sentences for the log.
    pub problems: Vec<String>,
}

/// One pass: whatever was asked and whatever happened, brings the host as close to it as it can be brought now.
///
/// Never fails: problems are reported in the status where it can be written, and in the outcome.
pub async fn pass(
    _memory: &mut Memory,
    host: &mut impl Host,
    _cluster: &mut impl Cluster,
    _settings: &Settings,
    _now: Timestamp,
) -> PassOutcome {
    let mut outcome = PassOutcome::default();
    if let Err(error) = host.observe(&Scope::default()).await {
        outcome.problems.push(error.to_string());
    }
    outcome
}
