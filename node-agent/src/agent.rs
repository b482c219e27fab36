//! Conducts one pass of the agent: accept, render, then observe, plan and apply until nothing is left, then report.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use lamina_crds::conditions::Reason;
use lamina_crds::host_state::{AgentForm, AgentIdentity, EntryState, digest_of_bytes};
use lamina_crds::{HostStateStatus, TopologyName};

use crate::cluster::{Cluster, EventKind, HostEvent};
use crate::converge::{Work, converge, look};
use crate::desired::DesiredEntry;
use crate::drift::healed;
use crate::health::PATIENCE;
use crate::host::{Host, HostError};
use crate::host_path::{HostPath, REMOVED_FROM};
use crate::instruction::{Task, prepare, store};
use crate::memory::{Memory, WrittenStatus};
use crate::report::{View, announce, reached, report};

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

/// What a pass did, and when the next one is due at the latest.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PassOutcome {
    /// Steps tried on the host.
    pub steps: usize,
    /// Differences made by somebody else that were put back.
    pub heals: usize,
    /// Services restarted because what they run is no longer asked for.
    pub restarts: usize,
    /// Calls that wrote to the API server, successful or not.
    pub api_writes: usize,
    /// Whether everything asked is true and measured.
    pub ready: bool,
    /// The next pass is due after this time even if no event comes; `None`: only the slow re-check.
    pub again_after: Option<Duration>,
    /// What went wrong, in sentences for the log.
    pub problems: Vec<String>,
    /// What was measured, whether or not there is an object to report it in; none if the host could not be looked at.
    pub measured: Option<HostStateStatus>,
}

/// After a failed effect or call the next try comes no sooner.
const RETRY: SignedDuration = SignedDuration::from_secs(10);
/// A status that somebody else changed is written again after this time, so that two writers do not race.
const REWRITE: SignedDuration = SignedDuration::from_secs(60);
/// A host whose foreign processes keep changing while they are looked at is looked at again in the next pass.
const MOST_SAVES: usize = 3;
/// Events that wait for an API server; older ones are dropped first.
const MOST_EVENTS: usize = 64;

/// One pass: whatever was asked and whatever happened, brings the host as close to it as it can be brought now.
///
/// Never fails: problems are reported in the status where it can be written, and in the outcome.
pub async fn pass(
    memory: &mut Memory,
    host: &mut impl Host,
    cluster: &mut impl Cluster,
    settings: &Settings,
    now: Timestamp,
) -> PassOutcome {
    match prepare(memory, host, cluster.seen(), settings).await {
        Ok(task) => carry_out(memory, host, cluster, settings, task, now).await,
        Err(error) => PassOutcome {
            problems: vec![error.to_string()],
            again_after: Some(RETRY.unsigned_abs()),
            ..PassOutcome::default()
        },
    }
}

async fn carry_out(
    memory: &mut Memory,
    host: &mut impl Host,
    cluster: &mut impl Cluster,
    settings: &Settings,
    mut task: Task,
    now: Timestamp,
) -> PassOutcome {
    let mut outcome = PassOutcome::default();
    // What failed is tried again in this pass; if that fails, too, it says so anew.
    memory.api_due = memory.api_due.filter(|due| *due > now);
    let began = tokio::time::Instant::now();
    if !task.changed.is_empty() {
        let status =
            state(memory, settings, &task, &Work::default(), now, |view, former| announce(view, former, &task.changed));
        publish(memory, cluster, &task, status, now, &mut outcome).await;
    }
    let mut work = match &task.hold {
        None => converge(memory, host, &task.desired, &task.hardware, now).await,
        Some(_) => look(host, &task.desired, &task.hardware).await,
    };
    for _ in 0..MOST_SAVES {
        if work.takings.is_empty() {
            break;
        }
        task.save_past(memory, host, &work.takings).await;
        work = converge(memory, host, &task.desired, &task.hardware, now).await;
    }
    if !work.notes.is_empty() {
        task.note_processes(memory, host, &work.notes).await;
        work = converge(memory, host, &task.desired, &task.hardware, now).await;
    }
    work.problems.append(&mut task.problems);
    note_health(memory, &task, &work, now);
    outcome.heals = tell_events(memory, &task, &work, settings, began.elapsed(), now);
    outcome.restarts = work.restarted.len();
    settle_entries(memory, host, settings, &mut task, &mut work, now).await;
    let status = state(memory, settings, &task, &work, now, report);
    memory.passes += 1;
    outcome.ready = is_ready(&status);
    outcome.steps = work.tried;
    outcome.measured = work.observed.is_some().then(|| status.clone());
    publish(memory, cluster, &task, status, now, &mut outcome).await;
    publish_events(memory, cluster, &task, now, &mut outcome).await;
    outcome.again_after = due(memory, &task, &work, outcome.ready, now);
    outcome.problems.append(&mut work.problems);
    outcome
}

fn is_ready(status: &HostStateStatus) -> bool {
    use lamina_crds::conditions::{ConditionType, holds_at};
    holds_at(&status.conditions, ConditionType::Ready, status.observed_generation)
}

fn note_health(memory: &mut Memory, task: &Task, work: &Work, now: Timestamp) {
    let Some(observed) = &work.observed else { return };
    let present = task.desired.entries.iter().filter(|(_, entry)| entry.is_present());
    let services: Vec<_> =
        present.flat_map(|(name, entry)| entry.services.iter().map(move |service| (name, service))).collect();
    memory.health.retain(&services.iter().map(|(_, service)| &service.unit).collect());
    let fresh = memory.passes == 0;
    for (name, service) in services.into_iter().filter(|(_, service)| !task.in_doubt.contains(&service.unit)) {
        let Some(seen) = observed.units.get(&service.unit) else { continue };
        let known = task.accepted.entries.get(name).is_some_and(|kept| !kept.reached_by.is_empty());
        let tried = work.started.contains(&service.unit);
        // Drift that is healed at once is no news: what ran well before and is started again is believed again.
        let trusted = known && if tried { memory.health.has_settled(&service.unit, now) } else { fresh };
        memory.health.note(&service.unit, seen, tried, trusted, now);
    }
}

/// Everything known, as a status told by `tell`.
fn state(
    memory: &Memory,
    settings: &Settings,
    task: &Task,
    work: &Work,
    now: Timestamp,
    tell: impl Fn(&View<'_>, Option<&HostStateStatus>) -> HostStateStatus,
) -> HostStateStatus {
    let agent = AgentIdentity { version: settings.version.clone(), form: settings.form };
    let former = task.object.as_ref().and_then(|object| object.status.as_ref());
    let written =
        memory.written.as_ref().filter(|written| task.object.as_ref().is_none_or(|object| object.uid == written.uid));
    let former = written.map(|written| &written.status).or(former);
    let persistent = memory.drift.persistent(now);
    let view = view(memory, task, work, &agent, &persistent, now);
    let mut status = tell(&view, former);
    if task.hold.as_ref().is_some_and(|hold| hold.reason == Reason::IdentityMismatch) {
        status.hardware = former.and_then(|former| former.hardware.clone());
    }
    status
}

fn view<'a>(
    memory: &'a Memory,
    task: &'a Task,
    work: &'a Work,
    agent: &'a AgentIdentity,
    persistent: &'a [(String, String)],
    now: Timestamp,
) -> View<'a> {
    View {
        generation: task.generation(),
        agent,
        hardware: &task.hardware,
        accepted: &task.accepted,
        desired: &task.desired,
        observed: work.observed.as_ref(),
        hold: task.hold.as_ref(),
        older: task.older.as_ref(),
        unsupported: work.unsupported.as_ref(),
        held: &work.held,
        remaining: &work.remaining,
        refused: &task.refused,
        health: &memory.health,
        persistent,
        problems: &work.problems,
        unready: &memory.unready,
        now,
    }
}

/// Remembers which entries are as asked: durably, so that a difference found later is known to be drift.
async fn settle_entries(
    memory: &mut Memory,
    host: &mut impl Host,
    settings: &Settings,
    task: &mut Task,
    work: &mut Work,
    now: Timestamp,
) {
    let agent = AgentIdentity { version: settings.version.clone(), form: settings.form };
    let persistent = memory.drift.persistent(now);
    let done = reached(&view(memory, task, work, &agent, &persistent, now));
    let revisions: BTreeMap<TopologyName, String> =
        task.desired.entries.iter().map(|(name, entry)| (name.clone(), entry.revision.clone())).collect();
    memory.unready.retain(|name, (revision, _)| revisions.get(name) == Some(revision) && !done.contains(name));
    for (name, revision) in revisions.into_iter().filter(|(name, _)| !done.contains(name)) {
        memory.unready.entry(name).or_insert((revision, now));
    }
    let mut accepted = task.accepted.clone();
    let mut removed_from = BTreeSet::new();
    for name in &done {
        let (Some(kept), Some(entry)) = (accepted.entries.get_mut(name), task.desired.entries.get(name)) else {
            continue;
        };
        if kept.reached_by != settings.version {
            kept.reached_by.clone_from(&settings.version);
            let paths = if entry.is_present() { entry.paths() } else { BTreeSet::new() };
            // What was let go holds whatever it held before.
            if entry.state != EntryState::Released {
                let delivered = entry.files.iter().filter(|_| entry.is_present());
                let digest = |content: &String| [digest_of_bytes(content.as_bytes())].into();
                kept.formerly = delivered.map(|(path, content)| (path.to_string(), digest(content))).collect();
                let gone = kept.written.iter().map(HostPath::new).filter(|path| !paths.contains(path));
                removed_from.extend(gone.map(|path| path.directory()));
            }
            if entry.state == EntryState::Absent {
                removed_from.extend(REMOVED_FROM.map(HostPath::new));
            }
            kept.written = paths.iter().map(ToString::to_string).collect();
            memory.events.push(applied(name, entry));
        }
    }
    if accepted == task.accepted {
        return;
    }
    if let Err(error) = make_durable(host, removed_from).await {
        work.problems.push(error.to_string());
        return;
    }
    match store(host, accepted).await {
        Ok(accepted) => {
            memory.accepted = Some(accepted.clone());
            // What is finished now may be forgotten.
            memory.judged = None;
            task.accepted = accepted;
        }
        Err(error) => work.problems.push(error.to_string()),
    }
}

/// What was removed must stay removed before it is forgotten: whoever removed it may have died before it was durable. A
/// directory that is gone itself went from the one above it.
async fn make_durable(host: &mut impl Host, removed_from: BTreeSet<HostPath>) -> Result<(), HostError> {
    let mut waiting = removed_from;
    while let Some(directory) = waiting.pop_last() {
        match host.sync(&directory).await {
            Err(HostError::File { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                waiting.extend(Some(directory.directory()).filter(|above| *above != directory));
            }
            other => other?,
        }
    }
    Ok(())
}

fn applied(name: &TopologyName, entry: &DesiredEntry) -> HostEvent {
    use lamina_crds::host_state::EntryState::{Absent, Present, Released};
    let note = match entry.state {
        Present => format!("{name}: revision {} is applied and measured", entry.revision),
        Released => format!("{name}: released, it keeps running and is not enforced"),
        Absent => format!("{name}: removed, nothing of it is left"),
    };
    HostEvent { kind: EventKind::Normal, reason: "Applied", action: "Apply", note }
}

/// Notes what is worth an event. Says how many differences of somebody else's making were put back.
fn tell_events(
    memory: &mut Memory,
    task: &Task,
    work: &Work,
    settings: &Settings,
    took: Duration,
    now: Timestamp,
) -> usize {
    let settled = |finding: &&crate::plan::Finding| {
        let owner = task.accepted.entries.iter().find(|(name, _)| crate::report::belongs(&finding.object, name));
        let settled = owner.is_some_and(|(_, kept)| kept.reached_by == settings.version);
        settled && !work.left().any(|left| left.object == finding.object && left.subject == finding.subject)
    };
    let found: BTreeSet<_> = work.drift.iter().filter(settled).cloned().collect();
    memory.events.extend(found.iter().map(|finding| healed(finding, took)));
    memory.drift.record(&found, now);
    let restarts = work.restarted.iter().map(|finding| HostEvent {
        kind: EventKind::Normal,
        reason: "Restarted",
        action: "Restart",
        note: format!("{} is restarted: {} {} is no longer asked for", finding.object, finding.subject, finding.found),
    });
    memory.events.extend(restarts);
    let broken = memory.health.failing.iter().filter(|(_, failing)| failing.since == now).map(|(unit, _)| HostEvent {
        kind: EventKind::Warning,
        reason: "ServiceFailed",
        action: "Start",
        note: format!("{unit} does not stay up; it is tried again, see journalctl -u {unit}"),
    });
    memory.events.extend(broken);
    let surplus = memory.events.len().saturating_sub(MOST_EVENTS);
    memory.events.drain(..surplus);
    found.len()
}

/// Writes the status if it says something new.
async fn publish(
    memory: &mut Memory,
    cluster: &mut impl Cluster,
    task: &Task,
    status: HostStateStatus,
    now: Timestamp,
    outcome: &mut PassOutcome,
) {
    let Some(object) = &task.object else { return };
    let stands = memory.written.as_ref().filter(|written| written.uid == object.uid);
    let overwritten = stands.is_some_and(|written| {
        object.status.as_ref() != Some(&written.status) && now.duration_since(written.at) >= REWRITE
    });
    let current = stands.map(|written| &written.status).or(object.status.as_ref());
    if current == Some(&status) && !overwritten {
        let at = stands.map_or(now, |written| written.at);
        memory.written = Some(WrittenStatus { uid: object.uid.clone(), status, at });
        return;
    }
    if memory.api_due.is_some_and(|due| due > now) {
        return;
    }
    outcome.api_writes += 1;
    match cluster.patch_status(&object.uid, &status).await {
        Ok(()) => {
            memory.api_due = None;
            memory.written = Some(WrittenStatus { uid: object.uid.clone(), status, at: now });
        }
        Err(error) => {
            memory.api_due = Some(now + RETRY);
            outcome.problems.push(error.to_string());
        }
    }
}

async fn publish_events(
    memory: &mut Memory,
    cluster: &mut impl Cluster,
    task: &Task,
    now: Timestamp,
    outcome: &mut PassOutcome,
) {
    while task.object.is_some() && !memory.events.is_empty() && memory.api_due.is_none_or(|due| due <= now) {
        outcome.api_writes += 1;
        match cluster.record_event(&memory.events[0]).await {
            Ok(()) => {
                memory.events.remove(0);
            }
            Err(error) => {
                memory.api_due = Some(now + RETRY);
                outcome.problems.push(error.to_string());
            }
        }
    }
}

/// When the next pass is due though nothing happens.
fn due(memory: &Memory, task: &Task, work: &Work, ready: bool, now: Timestamp) -> Option<Duration> {
    let late = memory.unready.values().map(|(_, since)| *since + PATIENCE).filter(|at| *at > now);
    let missing = work.held.units.values().any(|refusal| !crate::report::needs_a_hand(refusal.reason));
    let unfinished = !work.problems.is_empty()
        || !work.takings.is_empty()
        || !work.notes.is_empty()
        || !work.remaining.steps.is_empty()
        || missing;
    let unsaid = task.object.is_some() && (memory.api_due.is_some() || !memory.events.is_empty());
    let retry = ((unfinished && !ready) || unsaid).then(|| memory.api_due.unwrap_or(now + RETRY).max(now + RETRY));
    let times = [
        memory.health.due(now),
        memory.drift.due(now),
        memory.reload_due.filter(|at| *at > now),
        rewrite(memory, task, now),
        retry,
    ];
    let first = times.into_iter().flatten().chain(late).min()?;
    Some(first.max(now).duration_since(now).unsigned_abs())
}

/// When a status that does not stand in the object as it was written is written again.
fn rewrite(memory: &Memory, task: &Task, now: Timestamp) -> Option<Timestamp> {
    let (written, object) = (memory.written.as_ref()?, task.object.as_ref()?);
    let differs = written.uid == object.uid && object.status.as_ref() != Some(&written.status);
    differs.then(|| (written.at + REWRITE).max(now + RETRY))
}

#[cfg(test)]
mod tests;
