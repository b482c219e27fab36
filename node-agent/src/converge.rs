//! Conducts the inner loop of a pass: observe, plan and apply, until nothing is left to do or nothing helps.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use lamina_crds::{Hardware, TopologyName, UnitName};

use crate::apply::{Outcome, apply};
use crate::desired::DesiredHost;
use crate::host::Host;
use crate::memory::Memory;
use crate::observed::{ObservedHost, ObservedUnit, Scope};
use crate::plan::{Effect, Finding, Notes, Plan, is_drift, notes, plan};
use crate::preflight::{Held, Refusal, preflight, unsupported};
use crate::takeover::{Takings, count_as_started, takings};

/// What a pass did on the host and how it found and left it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Work {
    /// The last look.
    pub observed: Option<ObservedHost>,
    /// Why the host can run nothing of ours.
    pub unsupported: Option<Refusal>,
    /// What was not touched.
    pub held: Held,
    /// What is still to be done.
    pub remaining: Plan,
    /// Steps that were tried.
    pub tried: usize,
    /// Services that were started or restarted, successfully or not.
    pub started: BTreeSet<UnitName>,
    /// What was different at the first look and looks like somebody's hand.
    pub drift: BTreeSet<Finding>,
    /// Why services were restarted.
    pub restarted: Vec<Finding>,
    /// What is not stored yet of running processes; while there is anything, nothing was done.
    pub notes: BTreeMap<TopologyName, Notes>,
    /// Foreign files and processes that are not stored yet; while there are any, nothing was done.
    pub takings: Takings,
    /// What went wrong, except services that do not start.
    pub problems: Vec<String>,
}

impl Work {
    /// What is still found different.
    pub fn left(&self) -> impl Iterator<Item = &Finding> {
        self.remaining.steps.iter().flat_map(|step| &step.findings)
    }
}

/// Files, reload, values, processes, and the same again where a heal brings up another difference.
const MOST_ROUNDS: usize = 12;
/// systemd is not asked more often than this to load what it did not load the last time.
const RELOAD_PAUSE: SignedDuration = SignedDuration::from_secs(60);

/// Only looks.
pub async fn look(host: &mut impl Host, desired: &DesiredHost, hardware: &Hardware) -> Work {
    let mut work = Work::default();
    observe(host, desired, hardware, &mut work).await;
    work
}

/// Brings the host as near to the desired state as can be done now.
pub async fn converge(
    memory: &mut Memory,
    host: &mut impl Host,
    desired: &DesiredHost,
    hardware: &Hardware,
    now: Timestamp,
) -> Work {
    let mut work = Work::default();
    let first_pass = memory.passes == 0;
    let mut reloaded = false;
    let mut last = Plan::default();
    for round in 0..MOST_ROUNDS {
        if !observe(host, desired, hardware, &mut work).await {
            return work;
        }
        work.held.waiting = memory.health.waiting(now);
        work.held.waiting.extend(work.started.iter().cloned());
        work.held.unknown = unknown(memory, desired, &work);
        work.notes = work.observed.as_ref().map(|seen| notes(desired, seen, &work.held)).unwrap_or_default();
        work.takings = work.observed.as_ref().map(|seen| takings(desired, seen, &work.held)).unwrap_or_default();
        if !work.notes.is_empty() || !work.takings.is_empty() {
            return work;
        }
        let plan = next(&mut work, desired);
        if round == 0 {
            let found = plan.steps.iter().flat_map(|step| &step.findings);
            work.drift = found.filter(|finding| is_drift(finding, first_pass)).cloned().collect();
        }
        let plan = memory.drift.slowed(plan, now);
        if plan.steps.is_empty() || !work.problems.is_empty() || is_stuck(memory, &plan, reloaded, now, &mut work) {
            return work;
        }
        if plan == last {
            work.problems.push(unmoved(&plan));
            return work;
        }
        reloaded |= plan.steps.iter().any(|step| step.effect == Effect::Reload);
        take(apply(&plan, host).await, &plan, &mut work);
        last = plan;
    }
    work.problems.push(format!("the host does not settle: {MOST_ROUNDS} rounds of changes were not enough"));
    work
}

/// What is found just as it was, although it was changed without an error.
fn unmoved(plan: &Plan) -> String {
    match plan.steps.iter().flat_map(|step| &step.findings).next() {
        Some(Finding { object, subject, found, wanted, hand: _ }) => {
            format!("{object}: {subject} stays {found} though {wanted} was set; look for what keeps it there")
        }
        None => "the same steps are left after they were taken".to_owned(),
    }
}

/// Measures and judges; false if nothing can be decided.
async fn observe(host: &mut impl Host, desired: &DesiredHost, hardware: &Hardware, work: &mut Work) -> bool {
    match host.observe(&scope(desired)).await {
        Ok(mut observed) => {
            count_as_started(desired, &mut observed);
            work.held = preflight(desired, &observed, hardware);
            work.unsupported = unsupported(&observed);
            work.observed = Some(observed);
            work.unsupported.is_none()
        }
        Err(error) => {
            work.problems.push(error.to_string());
            work.observed = None;
            false
        }
    }
}

/// Services whose process was not seen in an earlier pass, be it another agent's.
fn unknown(memory: &Memory, desired: &DesiredHost, work: &Work) -> BTreeSet<UnitName> {
    let services = desired.entries.values().flat_map(|entry| &entry.services);
    let noted: BTreeMap<&UnitName, &String> =
        services.filter_map(|service| Some((&service.unit, service.seen.as_ref()?))).collect();
    let units = work.observed.iter().flat_map(|observed| &observed.units);
    let running = units.filter(|(_, seen)| seen.main_pid != 0);
    // What was started in this pass was started when all files were right.
    let is_new = |unit: &UnitName, seen: &ObservedUnit| {
        let is_noted = noted.get(unit).is_some_and(|invocation| **invocation == seen.invocation);
        !is_noted && !memory.health.knows(unit, seen) && !work.started.contains(unit)
    };
    running.filter(|(unit, seen)| is_new(unit, seen)).map(|(unit, _)| unit.clone()).collect()
}

fn scope(desired: &DesiredHost) -> Scope {
    let present = || desired.entries.values().filter(|entry| entry.is_present());
    let services = || present().flat_map(|entry| &entry.services);
    Scope {
        topologies: desired.entries.keys().cloned().collect(),
        units: desired.entries.values().flat_map(|entry| entry.units().cloned()).collect(),
        users: services().map(|service| service.needs.user.clone()).collect(),
        executables: services().filter_map(|service| service.needs.executable.clone()).collect(),
        env_files: services()
            .flat_map(|service| service.needs.env_files.iter().map(|path| (path.clone(), service.needs.user.clone())))
            .collect(),
    }
}

fn next(work: &mut Work, desired: &DesiredHost) -> Plan {
    if let Some(observed) = &work.observed {
        work.remaining = plan(desired, observed, &work.held);
    }
    work.remaining.clone()
}

/// Whether a reload is all that is left and it did not help the last time.
fn is_stuck(memory: &mut Memory, plan: &Plan, reloaded: bool, now: Timestamp, work: &mut Work) -> bool {
    let only_reload = plan.steps.iter().all(|step| step.effect == Effect::Reload);
    if !only_reload {
        return false;
    }
    if reloaded {
        memory.reload_due = Some(now + RELOAD_PAUSE);
    }
    let stuck = memory.reload_due.is_some_and(|due| due > now);
    if stuck {
        let told = plan.steps.iter().flat_map(|step| &step.findings).next();
        let told = told.map_or(String::new(), |finding| format!("{}: {}; ", finding.object, finding.found));
        work.problems.push(format!("{told}systemd does not load Lamina's files; look for files that outrank them"));
    }
    stuck
}

fn take(outcome: Outcome, plan: &Plan, work: &mut Work) {
    work.tried += outcome.tried.len();
    for step in outcome.tried.iter().map(|place| &plan.steps[*place]) {
        match &step.effect {
            Effect::Start { unit } => {
                work.started.insert(unit.clone());
            }
            Effect::Restart { unit } => {
                work.started.insert(unit.clone());
                work.restarted.extend(step.findings.iter().take(1).cloned());
            }
            Effect::Write { .. }
            | Effect::Link { .. }
            | Effect::Remove { .. }
            | Effect::Sync { .. }
            | Effect::Reload
            | Effect::Set { .. }
            | Effect::ResetFailed { .. }
            | Effect::Stop { .. } => {}
        }
    }
    let starting = |unit: &Option<UnitName>| unit.as_ref().is_some_and(|unit| work.started.contains(unit));
    let grave = outcome.failures.into_iter().filter(|failure| !(failure.job && starting(&failure.unit)));
    let grave: Vec<String> = grave.map(|failure| failure.message).collect();
    work.problems.extend(grave);
}
