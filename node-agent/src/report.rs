//! Decides what a host's status says: what was measured, and for each entry why it is or is not as asked.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use lamina_crds::conditions::{Condition, ConditionStatus, ConditionType, Reason, Verdict, settle};
use lamina_crds::hardware::Kubelet;
use lamina_crds::host_state::{AgentIdentity, EntryState, HostSummary, SliceStatus, TopologyStatus};
use lamina_crds::{Hardware, HostStateStatus, TopologyName, UnitName};

use crate::accept::Accepted;
use crate::desired::{DesiredEntry, DesiredHost};
use crate::health::{Health, PATIENCE};
use crate::host_path::DROP_IN;
use crate::migration::in_force;
use crate::observed::ObservedHost;
use crate::plan::{Plan, foreign_drop_ins, outranking, waits_for_restart};
use crate::preflight::{Held, OLDEST_SYSTEMD, Refusal};
use crate::verify::{Verification, verify};

/// What Ready says when nothing is left to say.
pub const AS_ASKED: &str = "every thread, memory node and limit is as it was asked to be";

/// Everything a status follows from.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// The generation that was looked at.
    pub generation: i64,
    /// The agent.
    pub agent: &'a AgentIdentity,
    /// The machine.
    pub hardware: &'a Hardware,
    /// What is enforced.
    pub accepted: &'a Accepted,
    /// The same, rendered.
    pub desired: &'a DesiredHost,
    /// The last look at the host; `None` if there was none.
    pub observed: Option<&'a ObservedHost>,
    /// Why nothing at all is changed on this host, if so.
    pub hold: Option<&'a Refusal>,
    /// Why the object is not followed, if so; the host is kept as it was.
    pub older: Option<&'a Refusal>,
    /// Why the host can run nothing of ours, if so.
    pub unsupported: Option<&'a Refusal>,
    /// What is not touched.
    pub held: &'a Held,
    /// What is still to be done.
    pub remaining: &'a Plan,
    /// Entries that are not followed.
    pub refused: &'a BTreeMap<String, Refusal>,
    /// What was seen of services before.
    pub health: &'a Health,
    /// Things that keep being changed: object and subject.
    pub persistent: &'a [(String, String)],
    /// Effects that failed in this pass.
    pub problems: &'a [String],
    /// Since when an entry of this revision is not as asked.
    pub unready: &'a BTreeMap<TopologyName, (String, Timestamp)>,
    /// The time.
    pub now: Timestamp,
}

/// The whole status. `former` is what stood there before; times of transitions are kept from it.
pub fn report(view: &View<'_>, former: Option<&HostStateStatus>) -> HostStateStatus {
    let names: BTreeSet<&str> =
        view.desired.entries.keys().map(TopologyName::as_str).chain(view.refused.keys().map(String::as_str)).collect();
    let told: Vec<Told> = names.into_iter().map(|name| unless_older(view, tell(view, name))).collect();
    let verdicts = host_verdicts(view, &told);
    let conditions = former.map(|status| status.conditions.as_slice()).unwrap_or_default();
    HostStateStatus {
        observed_generation: view.generation,
        term: view.accepted.term,
        agent: Some(view.agent.clone()),
        hardware: Some(view.hardware.clone()),
        summary: Some(summary(view, &told)),
        topologies: told.iter().map(|told| topology_status(view, told, former)).collect(),
        conditions: settle(conditions, &verdicts, view.generation, view.now),
    }
}

/// The status in the moment in which a new instruction was accepted and nothing was done yet: nobody may take what was
/// true before for what is asked now.
pub fn announce(
    view: &View<'_>,
    former: Option<&HostStateStatus>,
    changed: &BTreeSet<TopologyName>,
) -> HostStateStatus {
    let mut status = former.cloned().unwrap_or_default();
    status.observed_generation = view.generation;
    status.term = view.accepted.term;
    status.agent = Some(view.agent.clone());
    status.hardware = Some(view.hardware.clone());
    for name in changed {
        let revision = view.desired.entries.get(name).map_or("?", |entry| entry.revision.as_str());
        let message = format!("{name}: revision {revision} is being applied");
        let cause = Cause::passing(Reason::Applying, message, false);
        let told = Told { causes: vec![cause], ..nothing_accepted(name.as_str()) };
        let of_topology = topology_status(view, &told, former);
        status.topologies.retain(|topology| topology.name != told.name);
        status.topologies.push(of_topology);
        status.conditions = settle(&status.conditions, &progress(&told), view.generation, view.now);
    }
    status.topologies.sort_by(|one, other| one.name.cmp(&other.name));
    status
}

/// Entries that are as they are asked to be: Present ones measured so, Absent ones gone, Released ones let go.
pub fn reached(view: &View<'_>) -> BTreeSet<TopologyName> {
    let done = |(name, _): &(&TopologyName, &DesiredEntry)| {
        let told = tell(view, name.as_str());
        told.causes.is_empty()
    };
    view.desired.entries.iter().filter(done).map(|(name, _)| name.clone()).collect()
}

/// What is said about one topology.
struct Told {
    name: String,
    state: Option<EntryState>,
    revision: Option<String>,
    causes: Vec<Cause>,
    verification: Verification,
    pending: Vec<String>,
    foreign: Vec<String>,
    services: usize,
    services_ready: BTreeSet<UnitName>,
    drifted: BTreeSet<String>,
}

/// One reason why an entry is not as asked.
#[derive(Clone)]
struct Cause {
    reason: Reason,
    message: String,
    /// Whether only a hand from outside changes it.
    stalled: bool,
}

impl Cause {
    fn stalled(refusal: &Refusal) -> Self {
        Self { reason: refusal.reason, message: refusal.message.clone(), stalled: true }
    }

    fn passing(reason: Reason, message: String, stalled: bool) -> Self {
        Self { reason, message, stalled }
    }
}

fn tell(view: &View<'_>, name: &str) -> Told {
    let entry = view.desired.entries.iter().find(|(known, _)| known.as_str() == name);
    let mut told = match entry {
        Some((name, entry)) => tell_entry(view, name, entry),
        None => nothing_accepted(name),
    };
    let host = view.hold.or(view.unsupported).filter(|_| told.state != Some(EntryState::Released));
    let refused = view.refused.get(name).into_iter().chain(host).map(Cause::stalled);
    told.causes = refused.chain(std::mem::take(&mut told.causes)).collect();
    told.causes.sort_by_key(|cause| !cause.stalled);
    told
}

/// Whatever is so of what was accepted: of an object that is not followed, nothing is.
fn unless_older(view: &View<'_>, mut told: Told) -> Told {
    let older = view.older.map(|refusal| Cause::passing(refusal.reason, refusal.message.clone(), false));
    told.causes = older.into_iter().chain(told.causes).collect();
    told.causes.sort_by_key(|cause| !cause.stalled);
    told
}

fn nothing_accepted(name: &str) -> Told {
    Told {
        name: name.to_owned(),
        state: None,
        revision: None,
        causes: Vec::new(),
        verification: Verification::default(),
        pending: Vec::new(),
        foreign: Vec::new(),
        services: 0,
        services_ready: BTreeSet::new(),
        drifted: BTreeSet::new(),
    }
}

fn tell_entry(view: &View<'_>, name: &TopologyName, entry: &DesiredEntry) -> Told {
    let mut told =
        Told { state: Some(entry.state), revision: Some(entry.revision.clone()), ..nothing_accepted(name.as_str()) };
    let Some(observed) = view.observed else {
        told.causes.push(Cause::passing(Reason::NotObserved, format!("{name}: the host was not measured yet"), false));
        return told;
    };
    let late = view
        .unready
        .get(name)
        .is_some_and(|(revision, since)| *revision == entry.revision && view.now.duration_since(*since) >= PATIENCE);
    match entry.state {
        EntryState::Present => tell_present(view, name, entry, observed, late, &mut told),
        EntryState::Absent => told.causes.extend(work_causes(view, name, late)),
        EntryState::Released => {}
    }
    told
}

fn tell_present(
    view: &View<'_>,
    name: &TopologyName,
    entry: &DesiredEntry,
    observed: &ObservedHost,
    late: bool,
    told: &mut Told,
) {
    told.verification = verify(&in_force(name, entry, observed), observed, view.hardware);
    told.services = entry.services.len();
    told.pending = pending(entry, observed);
    told.foreign = foreign(entry, observed);
    told.drifted = drifted(view, name, entry, observed);
    told.services_ready = entry
        .services
        .iter()
        .filter(|service| {
            told.verification.clears(&service.unit)
                && told.verification.clears(&service.slice)
                && !view.held.units.contains_key(&service.unit)
                && view.health.has_settled(&service.unit, view.now)
        })
        .map(|service| service.unit.clone())
        .collect();
    told.causes = present_causes(view, name, entry, observed, late, &told.verification);
}

fn present_causes(
    view: &View<'_>,
    name: &TopologyName,
    entry: &DesiredEntry,
    observed: &ObservedHost,
    late: bool,
    verification: &Verification,
) -> Vec<Cause> {
    let mut causes: Vec<Cause> = view.held.entries.get(name).map(Cause::stalled).into_iter().collect();
    let refused = entry.units().filter_map(|unit| view.held.units.get(unit));
    causes.extend(
        refused.map(|refusal| Cause { stalled: needs_a_hand(refusal.reason) || late, ..Cause::stalled(refusal) }),
    );
    causes.extend(persistent(view, name));
    causes.extend(entry.units().find_map(|unit| outranked(unit, observed)));
    let failing = entry.services.iter().filter(|service| view.health.failing.contains_key(&service.unit));
    causes.extend(failing.map(|service| failing_cause(&service.unit, observed, late)));
    causes.extend(work_causes(view, name, late));
    if causes.is_empty() {
        let faults = verification.faults.iter().map(|(_, fault)| fault.clone());
        causes.extend(faults.map(|fault| Cause::passing(Reason::NotVerified, fault, late)));
    }
    if causes.is_empty() {
        let starting = entry.services.iter().find(|service| !view.health.has_settled(&service.unit, view.now));
        causes.extend(starting.map(|service| {
            Cause::passing(Reason::Applying, format!("{} has just started and is being watched", service.unit), false)
        }));
    }
    causes
}

/// A program or user that is missing may still be installed; a foreign file will not go by itself.
pub(crate) fn needs_a_hand(reason: Reason) -> bool {
    !matches!(reason, Reason::MissingExecutable | Reason::MissingUser | Reason::EnvFileRejected)
}

fn failing_cause(unit: &UnitName, observed: &ObservedHost, late: bool) -> Cause {
    let why = observed.units.get(unit).map_or(String::new(), |seen| {
        format!(" (Result={}, exit status {}, {} restarts)", seen.result, seen.exit_status, seen.restarts)
    });
    let message = format!("{unit} does not stay up{why}; see journalctl -u {unit}");
    Cause::passing(Reason::ServiceFailed, message, late)
}

/// What is still to be done, and what failed while doing it.
fn work_causes(view: &View<'_>, name: &TopologyName, late: bool) -> Vec<Cause> {
    let mut causes: Vec<Cause> =
        view.problems.iter().map(|problem| Cause::passing(Reason::HostError, problem.clone(), late)).collect();
    let concerns = |step: &&crate::plan::Step| step.unit.as_ref().is_none_or(|unit| unit.belongs_to(name));
    let left = view.remaining.steps.iter().filter(concerns).count();
    if left > 0 {
        causes.push(Cause::passing(Reason::Applying, format!("{name}: {left} steps are left to do"), late));
    }
    causes
}

fn persistent(view: &View<'_>, name: &TopologyName) -> Option<Cause> {
    let (object, subject) = view.persistent.iter().find(|(object, _)| belongs(object, name))?;
    let message = format!("{object}: {subject} keeps being changed by somebody else; find out who, and stop it");
    Some(Cause::passing(Reason::DriftPersists, message, true))
}

fn outranked(unit: &UnitName, observed: &ObservedHost) -> Option<Cause> {
    let path = outranking(unit, observed).next()?;
    let message = format!("{unit}: {path} outranks Lamina's settings; remove it, or give it a name before {DROP_IN}");
    Some(Cause::passing(Reason::DriftPersists, message, true))
}

/// Whether a finding's object, a unit or a path, is one of the topology's.
pub(crate) fn belongs(object: &str, name: &TopologyName) -> bool {
    let path = crate::host_path::HostPath::new(object);
    path.unit().is_some_and(|unit| unit.belongs_to(name)) || path.directory().name() == name.as_str()
}

fn pending(entry: &DesiredEntry, observed: &ObservedHost) -> Vec<String> {
    let waits = entry
        .services
        .iter()
        .filter(|service| observed.units.get(&service.unit).is_some_and(|seen| waits_for_restart(service, seen)));
    waits.map(|service| service.unit.to_string()).collect()
}

fn foreign(entry: &DesiredEntry, observed: &ObservedHost) -> Vec<String> {
    let paths = entry.units().flat_map(|unit| foreign_drop_ins(unit, observed));
    paths.map(ToString::to_string).collect::<BTreeSet<String>>().into_iter().collect()
}

/// Units on which a foreign hand is visible now.
fn drifted(view: &View<'_>, name: &TopologyName, entry: &DesiredEntry, observed: &ObservedHost) -> BTreeSet<String> {
    let foreign = entry.units().filter(|unit| foreign_drop_ins(unit, observed).next().is_some());
    let persistent = view.persistent.iter().map(|(object, _)| object).filter(|object| belongs(object, name));
    foreign.map(UnitName::to_string).chain(persistent.cloned()).collect()
}

fn topology_status(view: &View<'_>, told: &Told, former: Option<&HostStateStatus>) -> TopologyStatus {
    let former = former.and_then(|status| status.topologies.iter().find(|topology| topology.name == told.name));
    let conditions = former.map(|topology| topology.conditions.as_slice()).unwrap_or_default();
    let known = view.accepted.entries.iter().find(|(name, _)| name.as_str() == told.name).map(|(_, entry)| entry);
    let reached = told.causes.is_empty() || known.is_some_and(|entry| !entry.reached_by.is_empty());
    let desired = view.desired.entries.iter().find(|(name, _)| name.as_str() == told.name).map(|(_, entry)| entry);
    TopologyStatus {
        name: told.name.clone(),
        state: told.state.filter(|_| reached),
        revision: told.revision.clone().filter(|_| reached),
        slices: desired.filter(|entry| entry.is_present()).map(|entry| slices(view, entry, told)).unwrap_or_default(),
        conditions: topology_conditions(view, told, conditions),
    }
}

fn slices(view: &View<'_>, entry: &DesiredEntry, told: &Told) -> Vec<SliceStatus> {
    let pinned = entry.slices.iter().filter(|slice| slice.cpus.is_some());
    let status = pinned.map(|slice| {
        let seen = view.observed.and_then(|observed| observed.units.get(&slice.unit));
        let inside = || entry.services.iter().filter(|service| service.slice == slice.unit);
        let ready = inside().filter(|service| told.services_ready.contains(&service.unit)).count();
        SliceStatus {
            unit: slice.unit.to_string(),
            cpus: seen.and_then(|seen| seen.effective_cpus.clone()).unwrap_or_default(),
            memory_nodes: seen.and_then(|seen| seen.effective_memory_nodes.clone()).unwrap_or_default(),
            services: count(inside().count()),
            services_ready: count(ready),
        }
    });
    status.collect()
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn topology_conditions(view: &View<'_>, told: &Told, former: &[Condition]) -> Vec<Condition> {
    let mut verdicts = progress(told).to_vec();
    verdicts.extend([applied(view, told), verified(view, told), drift_verdict(view, told)]);
    settle(former, &verdicts, view.generation, view.now)
}

/// Ready, Reconciling and Stalled, which always agree with each other.
fn progress(told: &Told) -> [Verdict; 3] {
    use ConditionStatus::{False, True};
    let Some(first) = told.causes.first() else {
        let (reason, message) = good_news(told);
        return [
            Verdict::new(ConditionType::Ready, True, reason, message),
            Verdict::new(ConditionType::Reconciling, False, Reason::Settled, ""),
            Verdict::new(ConditionType::Stalled, False, Reason::Settled, ""),
        ];
    };
    let message = match told.causes.len() - 1 {
        0 => first.message.clone(),
        more => format!("{} (and {more} more)", first.message),
    };
    let (reconciling, stalled) = if first.stalled { (False, True) } else { (True, False) };
    [
        Verdict::new(ConditionType::Ready, False, first.reason, message.clone()),
        Verdict::new(ConditionType::Reconciling, reconciling, first.reason, if first.stalled { "" } else { &message }),
        Verdict::new(ConditionType::Stalled, stalled, first.reason, if first.stalled { &message } else { "" }),
    ]
}

fn good_news(told: &Told) -> (Reason, String) {
    match told.state {
        Some(EntryState::Released) => {
            let message = format!("{} is released: it keeps running as it is and is not enforced", told.name);
            (Reason::Released, message)
        }
        Some(EntryState::Absent) => (Reason::Absent, format!("nothing of {} is left on the host", told.name)),
        Some(EntryState::Present) | None => {
            if let Some(offline) = told.verification.offline.first() {
                return (Reason::CpuOffline, offline.clone());
            }
            match told.pending.as_slice() {
                [] => (Reason::AsAsked, AS_ASKED.to_owned()),
                units => {
                    let message =
                        format!("changed settings take effect when these are restarted: {}", units.join(", "));
                    (Reason::PendingRestart, message)
                }
            }
        }
    }
}

fn applied(view: &View<'_>, told: &Told) -> Verdict {
    let type_ = ConditionType::Applied;
    let undone = told.causes.iter().find(|cause| cause.reason != Reason::NotVerified);
    match (told.state, undone) {
        (None, _) => Verdict::new(type_, ConditionStatus::Unknown, Reason::NotObserved, "nothing was accepted yet"),
        (Some(EntryState::Released), None) => {
            Verdict::new(type_, ConditionStatus::Unknown, Reason::Released, "released: nothing is enforced")
        }
        (Some(EntryState::Absent), None) => Verdict::new(type_, ConditionStatus::True, Reason::Absent, ""),
        (Some(EntryState::Present), None) => {
            let message = format!("all units are written, loaded and running at revision {}", revision(told));
            Verdict::new(type_, ConditionStatus::True, Reason::Applied, message)
        }
        (Some(_), Some(cause)) if view.observed.is_none() => {
            Verdict::new(type_, ConditionStatus::Unknown, Reason::NotObserved, cause.message.clone())
        }
        (Some(_), Some(cause)) => Verdict::new(type_, ConditionStatus::False, cause.reason, cause.message.clone()),
    }
}

fn revision(told: &Told) -> &str {
    told.revision.as_deref().unwrap_or("?")
}

fn verified(view: &View<'_>, told: &Told) -> Verdict {
    let type_ = ConditionType::Verified;
    let measured = view.observed.is_some() && told.state == Some(EntryState::Present);
    match told.verification.faults.first() {
        _ if !measured => Verdict::new(type_, ConditionStatus::Unknown, Reason::NotObserved, "nothing is measured"),
        Some((_, fault)) => Verdict::new(type_, ConditionStatus::False, Reason::NotVerified, fault.clone()),
        None => Verdict::new(type_, ConditionStatus::True, Reason::Verified, "the kernel confirms everything"),
    }
}

fn drift_verdict(view: &View<'_>, told: &Told) -> Verdict {
    use ConditionStatus::{False, True, Unknown};
    let type_ = ConditionType::Drifted;
    if view.observed.is_none() || told.state != Some(EntryState::Present) {
        return Verdict::new(type_, Unknown, Reason::NotObserved, "nothing is enforced");
    }
    if let Some(cause) = told.causes.iter().find(|cause| cause.reason == Reason::DriftPersists) {
        return Verdict::new(type_, True, Reason::DriftPersists, cause.message.clone());
    }
    match told.foreign.as_slice() {
        [] => Verdict::new(type_, False, Reason::NoDrift, ""),
        paths => {
            let list = paths.iter().take(8).cloned().collect::<Vec<String>>().join(", ");
            let message = format!("drop-ins that are not Lamina's lie on managed units: {list}; remove them");
            Verdict::new(type_, True, Reason::ForeignDropIn, message)
        }
    }
}

fn summary(view: &View<'_>, told: &[Told]) -> HostSummary {
    HostSummary {
        cpus: count(view.hardware.cpus.online.len()),
        services: count(told.iter().map(|told| told.services).sum()),
        services_ready: count(told.iter().map(|told| told.services_ready.len()).sum()),
        drifted: count(told.iter().map(|told| told.drifted.len()).sum()),
    }
}

/// The host as a whole is as its worst topology is.
fn host_verdicts(view: &View<'_>, told: &[Told]) -> Vec<Verdict> {
    let mut verdicts = vec![supported(view)];
    let own = view.hold.or(view.unsupported).map(Cause::stalled);
    let of_host = own.map(|cause| Told { causes: vec![cause], ..nothing_accepted("") });
    let stalled = told.iter().find(|told| told.causes.first().is_some_and(|cause| cause.stalled));
    let unready = told.iter().find(|told| !told.causes.is_empty());
    let worth_telling =
        told.iter().find(|told| !matches!(good_news(told).0, Reason::AsAsked | Reason::Released | Reason::Absent));
    match of_host.as_ref().or(stalled).or(unready).or(worth_telling) {
        Some(worst) => verdicts.extend(progress(worst)),
        None => verdicts.extend(progress(&unless_older(view, nothing_accepted("")))),
    }
    verdicts
}

/// Without the static policy, pods share all CPUs.
fn runs_pods_anywhere(kubelet: &Kubelet) -> bool {
    kubelet.cpu_manager_policy != "static"
}

fn supported(view: &View<'_>) -> Verdict {
    let type_ = ConditionType::Supported;
    match (view.unsupported, view.observed) {
        (Some(refusal), _) => Verdict::new(type_, ConditionStatus::False, Reason::Unsupported, refusal.message.clone()),
        (None, None) => Verdict::new(type_, ConditionStatus::Unknown, Reason::NotObserved, "nothing is measured yet"),
        (None, Some(_)) if view.hardware.kubelet.as_ref().is_some_and(runs_pods_anywhere) => {
            let message = "a kubelet runs here that lets pods run on any CPU: exclusive slices are so among managed \
                           slices only; reserve CPUs with its static CPU manager policy to change that";
            Verdict::new(type_, ConditionStatus::True, Reason::SharedWithPods, message)
        }
        (None, Some(observed)) => {
            let version = observed.systemd_version;
            let message = format!("systemd {version} (at least {OLDEST_SYSTEMD}) with cgroup v2 and its controllers");
            Verdict::new(type_, ConditionStatus::True, Reason::Supported, message)
        }
    }
}
