//! Decides how one topology fares on one host, from what was resolved, what the agent reports and whether it is alive.

use lamina_crds::conditions::{Condition, ConditionStatus, ConditionType, Reason, find, holds_at};
use lamina_crds::host_state::{EntryState, TopologyStatus};
use lamina_crds::{TopologyEntry, TopologyName};

use crate::check::Violation;
use crate::liveness::Liveness;
use crate::resolve::Outcome;
use crate::view::{HostStateView, HostView, Refusal, TopologyView};

/// How a topology fares on a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The host.
    pub host: String,
    /// The one state it is in.
    pub state: StandingState,
    /// Whether the agent reports the revision that is asked.
    pub updated: Updated,
    /// Why it is not simply as asked, if so.
    pub trouble: Option<Refusal>,
    /// What it lacks by the placement itself, if anything.
    pub lack: Option<Refusal>,
    /// Whether it runs with less than asked.
    pub strength: Strength,
}

/// The one state a topology is in on a host, worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum StandingState {
    /// It cannot follow without a hand from outside.
    Stalled,
    /// Work is under way.
    InProgress,
    /// A change waits until its topology is no longer paused.
    Paused,
    /// Its agent is silent.
    Offline,
    /// Everything asked is true and measured.
    Ready,
}

/// Whether the agent reports the revision that is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Updated {
    /// It does.
    Yes,
    /// It does not, or not yet.
    No,
}

/// Whether a host gives what is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Strength {
    /// Less than asked.
    Degraded,
    /// All of it, as far as it is known.
    Full,
}

/// What is known of one selected host.
pub struct Facts<'a> {
    /// The host's name.
    pub name: &'a str,
    /// The host.
    pub host: &'a HostView,
    /// How the topology fares there, by resolution.
    pub outcome: &'a Outcome,
    /// The entry that is wanted there.
    pub wanted: Option<&'a TopologyEntry>,
    /// What keeps the operator from writing to the host.
    pub violation: Option<&'a Violation>,
    /// Whether its agent is alive.
    pub liveness: Liveness,
}

impl Standing {
    /// How the topology fares on this host.
    pub fn of(topology: &TopologyView, name: &TopologyName, facts: &Facts) -> Self {
        let report = facts.host.state.as_ref().and_then(|state| state.reports.get(name.as_str()));
        let updated = is_updated(facts, report);
        let lack = lack(facts);
        let (state, trouble) = match blocked(facts) {
            Some(refusal) => (StandingState::Stalled, Some(refusal)),
            None if facts.liveness == Liveness::Silent => (StandingState::Offline, Some(silent(facts))),
            None => progress(topology, facts, report, updated),
        };
        let is_weak = lack.is_some() || trouble.as_ref().is_some_and(|trouble| weakens(trouble.reason));
        let strength = if is_weak { Strength::Degraded } else { Strength::Full };
        let host = facts.name.to_owned();
        // What a slice gets less, by consent, is not what a change waits for.
        let trouble = if state == StandingState::InProgress { trouble } else { trouble.or_else(|| lack.clone()) };
        Self { host, state, updated, trouble, lack, strength }
    }
}

/// Why nothing is written to the host, whatever its agent does.
fn blocked(facts: &Facts) -> Option<Refusal> {
    if let Some(Violation { host, message }) = facts.violation {
        return Some(Refusal { reason: Reason::HostError, message: format!("{host}: {message}") });
    }
    match facts.outcome {
        Outcome::Refused(refusal) => Some(refusal.clone()),
        Outcome::Placed { .. } | Outcome::Paused | Outcome::AwaitsInventory => None,
    }
}

fn silent(facts: &Facts) -> Refusal {
    let message = format!("{}: its agent is silent; look at the lamina agent and the network of this host", facts.name);
    Refusal { reason: Reason::HostsOffline, message }
}

/// What the slices lack on the host, in one message; the gravest gives the reason.
fn lack(facts: &Facts) -> Option<Refusal> {
    let Outcome::Placed { shortages } = facts.outcome else { return None };
    let reason = shortages.first()?.reason;
    let told: Vec<&str> = shortages.iter().map(|shortage| shortage.message.as_str()).collect();
    Some(Refusal { reason, message: format!("{}: {}", facts.name, told.join("; ")) })
}

fn is_updated(facts: &Facts, report: Option<&TopologyStatus>) -> Updated {
    let same = |(wanted, report): (&TopologyEntry, &TopologyStatus)| {
        // While not everything runs, no state is reached, though the revision is there.
        let lets_go = matches!(report.state, Some(EntryState::Released | EntryState::Absent));
        !lets_go && report.revision.as_ref() == Some(&wanted.revision)
    };
    let follows = facts.wanted.zip(report).is_some_and(same) && *facts.outcome != Outcome::Paused;
    if follows { Updated::Yes } else { Updated::No }
}

fn progress(
    topology: &TopologyView,
    facts: &Facts,
    report: Option<&TopologyStatus>,
    updated: Updated,
) -> (StandingState, Option<Refusal>) {
    let Some(state) = &facts.host.state else { return (StandingState::InProgress, Some(no_inventory(facts))) };
    if *facts.outcome == Outcome::AwaitsInventory {
        return (StandingState::InProgress, Some(no_inventory(facts)));
    }
    let waits = *facts.outcome == Outcome::Paused;
    if waits && facts.wanted.is_none() {
        return (StandingState::Paused, None);
    }
    let written = facts.wanted.is_some_and(|wanted| state.entries.get(&wanted.name) == Some(wanted));
    let Some(report) = report.filter(|_| written && has_caught_up(topology, state)) else {
        return (StandingState::InProgress, None);
    };
    let condition = |type_| find(&report.conditions, type_);
    let is_true = |condition: &&Condition| condition.status == ConditionStatus::True;
    if let Some(stalled) = condition(ConditionType::Stalled).filter(is_true) {
        return (StandingState::Stalled, Some(told(facts, stalled)));
    }
    match condition(ConditionType::Ready) {
        Some(ready) if waits && ready.status == ConditionStatus::True => (StandingState::Paused, None),
        Some(ready) if ready.status == ConditionStatus::True && updated == Updated::Yes => {
            let worth_telling = ready.reason != Reason::AsAsked.word();
            (StandingState::Ready, worth_telling.then(|| told(facts, ready)))
        }
        Some(ready) if ready.status != ConditionStatus::True => (StandingState::InProgress, Some(told(facts, ready))),
        Some(_) | None => (StandingState::InProgress, None),
    }
}

fn no_inventory(facts: &Facts) -> Refusal {
    let message = format!("{}: its agent has not reported the hardware yet; check that it runs there", facts.name);
    Refusal { reason: Reason::NoInventory, message }
}

/// Whether the report speaks of what the host was last told. Once Ready at this generation, a change that concerns other
/// topologies of the host does not put this one in doubt.
fn has_caught_up(topology: &TopologyView, state: &HostStateView) -> bool {
    let status = &topology.status;
    let was_ready = status.observed_generation == topology.generation
        && holds_at(&status.conditions, ConditionType::Ready, topology.generation);
    was_ready || state.reported_generation >= state.generation
}

/// What the agent says, with the host named once.
fn told(facts: &Facts, condition: &Condition) -> Refusal {
    let word = serde_json::Value::String(condition.reason.clone());
    let reason = serde_json::from_value(word).unwrap_or(Reason::HostError);
    let named = condition.message.starts_with(facts.name);
    let message = if named { condition.message.clone() } else { format!("{}: {}", facts.name, condition.message) };
    Refusal { reason, message }
}

/// Whether this reason means that a host does less than asked, rather than nothing or something else.
fn weakens(reason: Reason) -> bool {
    match reason {
        Reason::MissingExecutable
        | Reason::MissingUser
        | Reason::EnvFileRejected
        | Reason::ServiceFailed
        | Reason::Shrunk
        | Reason::Shared
        | Reason::Relaxed
        | Reason::CpuOffline => true,
        Reason::NotObserved
        | Reason::NoHost
        | Reason::AsAsked
        | Reason::Settled
        | Reason::Progressing
        | Reason::Paused
        | Reason::NoInventory
        | Reason::InvalidSpec
        | Reason::Infeasible
        | Reason::NameTaken
        | Reason::CpusTaken
        | Reason::HostsOffline
        | Reason::TooManyOffline
        | Reason::Unsupported
        | Reason::Supported
        | Reason::SharedWithPods
        | Reason::Applying
        | Reason::Applied
        | Reason::NotVerified
        | Reason::Verified
        | Reason::NoDrift
        | Reason::ForeignDropIn
        | Reason::ForeignFile
        | Reason::DriftPersists
        | Reason::PendingRestart
        | Reason::NotPresent
        | Reason::NotUnderstood
        | Reason::OlderTerm
        | Reason::IdentityMismatch
        | Reason::HostError
        | Reason::Released
        | Reason::Absent => false,
    }
}
