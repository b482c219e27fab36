//! Folds what all hosts say into the status of one topology: the truth table of the conditions, row by row.

use jiff::Timestamp;
use lamina_crds::conditions::ConditionStatus::{False, True, Unknown};
use lamina_crds::conditions::ConditionType::{Degraded, Paused, Placed, Ready, Reconciling, Stalled};
use lamina_crds::conditions::{ConditionStatus, ConditionType, Reason, Verdict, settle};
use lamina_crds::slice_topology::{HostCounts, HostTrouble};
use lamina_crds::{SliceTopologySpec, SliceTopologyStatus, TopologyName};

use crate::check::Violation;
use crate::liveness::{Liveness, SILENCE, liveness};
use crate::resolve::{Outcome, Resolution};
use crate::standing::{Facts, Standing, StandingState, Strength, Updated};
use crate::view::{ClusterView, HostStateView, Life, Refusal, TopologyView};

/// The most hosts that are named in a status.
const MOST_NAMED: usize = 20;
/// The largest share of silent agents, in percent, with which anything can still be said.
const TOLERATED_SILENCE: usize = 20;

/// The status that a topology should have now. `violations` name the hosts that nothing can be written to.
pub fn aggregate(
    view: &ClusterView,
    topology: &TopologyView,
    resolution: &Resolution,
    violations: &[Violation],
    now: Timestamp,
) -> SliceTopologyStatus {
    let (verdicts, hosts, worst) = match (&topology.spec, topology.life) {
        (_, Life::Leaves) => (leaving(view, topology), None, Vec::new()),
        (Err(refusal), Life::Stays) => (refused(refusal), None, Vec::new()),
        (Ok((name, spec)), Life::Stays) => {
            let standings = standings(view, topology, name, resolution, violations, now);
            if must_wait(view, topology, resolution.selected(name).map(|(host, _)| host), now) {
                return topology.status.clone();
            }
            let placed = placed(resolution, name);
            let pause = Pause::of(spec, resolution.waiting(name));
            (judge(&standings, spec, topology.generation, placed, pause), Some(count(&standings)), worst(&standings))
        }
    };
    let conditions = settle(&topology.status.conditions, &verdicts, topology.generation, now);
    SliceTopologyStatus { observed_generation: topology.generation, hosts, worst, conditions }
}

/// Whether this process has watched too briefly to contradict a status that names silent agents.
fn must_wait<'a>(
    view: &ClusterView,
    topology: &TopologyView,
    mut selected: impl Iterator<Item = &'a String>,
    now: Timestamp,
) -> bool {
    let status = &topology.status;
    let names_silent = status.hosts.is_some_and(|hosts| hosts.offline > 0);
    let watched_briefly = view.watching_since.checked_add(SILENCE).is_ok_and(|enough| now < enough);
    let is_unjudged = |host: &String| {
        let host = view.hosts.get(host);
        host.is_some_and(|host| liveness(host, view.watching_since, now) == Liveness::Unjudged)
    };
    let same_generation = status.observed_generation == topology.generation;
    same_generation && names_silent && watched_briefly && selected.any(is_unjudged)
}

fn standings(
    view: &ClusterView,
    topology: &TopologyView,
    name: &TopologyName,
    resolution: &Resolution,
    violations: &[Violation],
    now: Timestamp,
) -> Vec<Standing> {
    let standing = |(host_name, outcome): (&String, &Outcome)| {
        let host = view.hosts.get(host_name)?;
        let facts = Facts {
            name: host_name,
            host,
            outcome,
            wanted: resolution.hosts.get(host_name).and_then(|resolved| resolved.entries.get(name)),
            violation: violations.iter().find(|violation| violation.host == *host_name),
            liveness: liveness(host, view.watching_since, now),
        };
        Some(Standing::of(topology, name, &facts))
    };
    resolution.selected(name).filter_map(standing).collect()
}

fn verdict(type_: ConditionType, status: ConditionStatus, reason: Reason, message: &str) -> Verdict {
    Verdict::new(type_, status, reason, message)
}

fn refused(Refusal { reason, message }: &Refusal) -> Vec<Verdict> {
    vec![
        verdict(Ready, False, *reason, message),
        verdict(Reconciling, False, *reason, "the hosts keep what they have until the spec is corrected"),
        verdict(Stalled, True, *reason, message),
        verdict(Placed, False, *reason, "the spec is refused; nothing is placed"),
        verdict(Paused, Unknown, *reason, "the spec is refused; nothing is written"),
        verdict(Degraded, False, Reason::Settled, "no host gives less than asked"),
    ]
}

fn leaving(view: &ClusterView, topology: &TopologyView) -> Vec<Verdict> {
    let holds = |state: &HostStateView| state.entries.keys().any(|entry| entry.as_str() == topology.target.name);
    let hosts = view.hosts.iter().filter(|(_, host)| host.state.as_deref().is_some_and(holds));
    let hosts: Vec<&str> = hosts.map(|(name, _)| name.as_str()).collect();
    let message = match hosts.as_slice() {
        [] => "being deleted; no host holds it any more".to_owned(),
        [only] => format!("being deleted; {only} has not let go of it yet"),
        [first, ..] => format!("being deleted; {} hosts have not let go of it yet, {first} first", hosts.len()),
    };
    vec![
        verdict(Ready, False, Reason::Progressing, &message),
        verdict(Reconciling, True, Reason::Progressing, &message),
        verdict(Stalled, False, Reason::Progressing, &message),
        verdict(Placed, Unknown, Reason::Progressing, &message),
        verdict(Paused, False, Reason::Settled, "deletion is carried out, paused or not"),
        verdict(Degraded, False, Reason::Settled, "no host gives less than asked"),
    ]
}

fn placed(resolution: &Resolution, name: &TopologyName) -> Verdict {
    let refusal = resolution.selected(name).find_map(|(_, outcome)| match outcome {
        Outcome::Refused(refusal) => Some(refusal),
        Outcome::Placed { .. } | Outcome::Paused | Outcome::AwaitsInventory => None,
    });
    match refusal {
        Some(Refusal { reason, message }) => verdict(Placed, False, *reason, message),
        None => verdict(Placed, True, Reason::AsAsked, "every host with a known inventory has a place for every slice"),
    }
}

/// Whether a topology is paused, and what that holds up.
#[derive(Clone, Copy)]
enum Pause {
    None,
    /// Changes would be written to so many hosts.
    Holds(usize),
}

impl Pause {
    fn of(spec: &SliceTopologySpec, waiting: usize) -> Self {
        if spec.paused == Some(true) { Self::Holds(waiting) } else { Self::None }
    }

    fn verdict(self) -> Verdict {
        match self {
            Self::None => verdict(Paused, False, Reason::Settled, "changes are written to the hosts"),
            Self::Holds(0) => verdict(Paused, True, Reason::Paused, "paused; no host waits for a change"),
            Self::Holds(waiting) => verdict(Paused, True, Reason::Paused, &waits(waiting)),
        }
    }
}

fn waits(waiting: usize) -> String {
    let wait = if waiting == 1 { "waits" } else { "wait" };
    format!("paused; {} {wait} for a change; set spec.paused: false to go on", counted(waiting, "host"))
}

fn judge(
    standings: &[Standing],
    spec: &SliceTopologySpec,
    generation: i64,
    placed: Verdict,
    pause: Pause,
) -> Vec<Verdict> {
    let Tally { selected: _, stalled, in_progress, offline: _, ready: _ } = Tally::of(standings);
    let progress_message = progress_message(standings, generation);
    let ready = ready(standings, spec, generation, &progress_message, pause);
    let stalled_verdict = match first(standings, StandingState::Stalled) {
        Some(Refusal { reason, message }) => verdict(Stalled, True, *reason, &and_more(message, stalled, "stalled")),
        None => verdict(Stalled, False, Reason::Settled, "no host needs a hand"),
    };
    // Tools that wait give up early only when nothing claims to be moving.
    let reconciling = if stalled > 0 || in_progress == 0 {
        verdict(Reconciling, False, Reason::Settled, "nothing is on its way")
    } else {
        verdict(Reconciling, True, Reason::Progressing, &progress_message)
    };
    let degraded = match weakest(standings) {
        Some(Refusal { reason, message }) => verdict(Degraded, True, *reason, message),
        None => verdict(Degraded, False, Reason::Settled, "no host gives less than asked"),
    };
    vec![ready, reconciling, stalled_verdict, placed, degraded, pause.verdict()]
}

fn ready(
    standings: &[Standing],
    spec: &SliceTopologySpec,
    generation: i64,
    progress_message: &str,
    pause: Pause,
) -> Verdict {
    let Tally { selected, stalled, in_progress, offline, ready } = Tally::of(standings);
    if let (Pause::Holds(waiting @ 1..), 0) = (pause, stalled) {
        return verdict(Ready, Unknown, Reason::Paused, &waits(waiting));
    }
    if selected == 0 {
        let message = "no host matches hostSelector; label a node, or create a HostState for a host that is no node";
        return verdict(Ready, Unknown, Reason::NoHost, message);
    }
    if let Some(Refusal { reason, message }) = first(standings, StandingState::Stalled) {
        return verdict(Ready, False, *reason, &and_more(message, stalled, "stalled"));
    }
    if offline * 100 > selected * TOLERATED_SILENCE {
        let named = first(standings, StandingState::Offline).map_or("", |trouble| trouble.message.as_str());
        let message = format!("{offline} of {} silent, too many to judge; {named}", counted(selected, "host"));
        return verdict(Ready, Unknown, Reason::TooManyOffline, &message);
    }
    if in_progress > 0 {
        let reason = first(standings, StandingState::InProgress).map_or(Reason::Progressing, |trouble| trouble.reason);
        return verdict(Ready, False, reason, progress_message);
    }
    let parts = format!("{} and {}", counted(spec.slices.len(), "slice"), counted(spec.services.len(), "service"));
    let all = format!("{parts} as asked on {ready} of {} (generation {generation})", counted(selected, "host"));
    match standings.iter().find_map(|standing| standing.trouble.as_ref()) {
        Some(Refusal { reason, message }) => verdict(Ready, True, *reason, &format!("{message} ({all})")),
        None => verdict(Ready, True, Reason::AsAsked, &all),
    }
}

fn progress_message(standings: &[Standing], generation: i64) -> String {
    let Tally { selected, ready, .. } = Tally::of(standings);
    let done = format!("{ready} of {} done with generation {generation}", counted(selected, "host"));
    match first(standings, StandingState::InProgress) {
        Some(trouble) => format!("{} ({done})", trouble.message),
        None => done,
    }
}

fn and_more(message: &str, count: usize, what: &str) -> String {
    match count {
        0 | 1 => message.to_owned(),
        count => format!("{message} ({} more {what})", counted(count - 1, "host")),
    }
}

fn counted(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

/// The first trouble among hosts in this state, by name of the host.
fn first(standings: &[Standing], state: StandingState) -> Option<&Refusal> {
    standings.iter().filter(|standing| standing.state == state).find_map(|standing| standing.trouble.as_ref())
}

/// The trouble to name where something is less than asked: what runs weakly before what cannot be seen.
fn weakest(standings: &[Standing]) -> Option<&Refusal> {
    let weak = standings.iter().filter(|standing| standing.strength == Strength::Degraded);
    let offline = standings.iter().filter(|standing| standing.state == StandingState::Offline);
    weak.chain(offline).find_map(|standing| standing.lack.as_ref().or(standing.trouble.as_ref()))
}

/// Numbers of hosts by state.
struct Tally {
    selected: usize,
    stalled: usize,
    in_progress: usize,
    offline: usize,
    ready: usize,
}

impl Tally {
    fn of(standings: &[Standing]) -> Self {
        let count = |state| standings.iter().filter(|standing| standing.state == state).count();
        Self {
            selected: standings.len(),
            stalled: count(StandingState::Stalled),
            in_progress: count(StandingState::InProgress),
            offline: count(StandingState::Offline),
            ready: count(StandingState::Ready),
        }
    }
}

fn count(standings: &[Standing]) -> HostCounts {
    let Tally { selected, stalled, in_progress: _, offline, ready } = Tally::of(standings);
    let updated = standings.iter().filter(|standing| standing.updated == Updated::Yes).count();
    let degraded = standings.iter().filter(|standing| standing.strength == Strength::Degraded).count();
    let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    HostCounts {
        selected: number(selected),
        updated: number(updated),
        ready: number(ready),
        degraded: number(degraded),
        stalled: number(stalled),
        offline: number(offline),
    }
}

/// The hosts that most need a hand: stalled before troubled before silent before weak, then by name.
fn worst(standings: &[Standing]) -> Vec<HostTrouble> {
    let mut troubled: Vec<(&Standing, &Refusal)> =
        standings.iter().filter_map(|standing| Some((standing, standing.trouble.as_ref()?))).collect();
    troubled.sort_by_key(|(standing, _)| (standing.state, standing.strength, standing.host.clone()));
    let named = |(standing, Refusal { reason, message }): &(&Standing, &Refusal)| HostTrouble {
        host: standing.host.clone(),
        reason: reason.word(),
        message: message.chars().take(1000).collect(),
    };
    troubled.iter().take(MOST_NAMED).map(named).collect()
}

#[cfg(test)]
mod tests;
