//! Decides how topologies, hosts, slices and services stand, since when, and why, in the words of the conditions, which
//! end in what to do.

use jiff::{SignedDuration, Timestamp};
use lamina_crds::conditions::{Condition, ConditionStatus, ConditionType, Reason, find};
use lamina_crds::host_state::{SliceStatus, TopologyStatus};
use lamina_crds::measured::API_VERSION;
use lamina_crds::slice_topology::HostCounts;
use lamina_crds::{HostStateStatus, SliceTopologyStatus, TopologyEntry};
use serde::Serialize;

use super::names::Names;
use crate::cluster::Objects;
use crate::cluster::objects::{Host, Topology};
use crate::outcome::Outcome;

/// An agent that is not heard for so long is silent. The operator judges sooner, by its own clock; this one is another
/// machine's, so that a clock that is some seconds off must not count.
const SILENCE: SignedDuration = SignedDuration::from_secs(90);

/// How something stands, worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Standing {
    /// Nothing will change without a hand from outside.
    Stalled,
    /// The host's agent is not heard: what is told is what it said last.
    Silent,
    /// Not everything asked is true, or nobody can tell.
    NotReady,
    /// Work is under way, or this generation was not looked at yet.
    Reconciling,
    /// `spec.paused` keeps a change away.
    Paused,
    /// As asked as far as it can be, which is less than asked.
    Degraded,
    /// Everything asked is true, and measured.
    Ready,
}

impl Standing {
    /// Whether nobody needs to do anything, nor to wait.
    pub fn is_well(self) -> bool {
        self >= Self::Degraded
    }
}

/// Everything that is told.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// The version of this form.
    pub api_version: &'static str,
    /// Always `FleetStatus`.
    pub kind: &'static str,
    /// The topologies, worst first.
    pub topologies: Vec<TopologyLine>,
    /// What stands on hosts, worst first.
    pub hosts: Vec<HostLine>,
}

/// How one topology stands.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TopologyLine {
    /// Its name.
    pub topology: String,
    /// How it stands.
    #[serde(flatten)]
    pub verdict: Verdict,
    /// Its hosts, counted.
    pub hosts: HostCounts,
    /// Its conditions, as the operator wrote them.
    pub conditions: Vec<Condition>,
}

/// How one topology stands on one host; without a topology, how the host itself does.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HostLine {
    /// The host.
    pub host: String,
    /// The topology; none where the host as a whole is meant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topology: Option<String>,
    /// How it stands.
    #[serde(flatten)]
    pub verdict: Verdict,
    /// When the host's agent was last heard, if that may be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heard: Option<Timestamp>,
    /// Its slices, as the kernel had them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub slices: Vec<SliceStatus>,
    /// Its services.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<ServiceLine>,
    /// Its conditions, as the agent wrote them.
    pub conditions: Vec<Condition>,
}

/// How one service stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceLine {
    /// Its unit.
    pub unit: String,
    /// The unit of its slice.
    pub slice: String,
    /// How it stands.
    pub standing: Standing,
    /// Why, where it is not as asked.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// How something stands, since when, and why.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Verdict {
    /// How it stands.
    pub standing: Standing,
    /// Since when.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// One word for why.
    pub reason: String,
    /// Why, and what to do.
    pub message: String,
}

/// What is told of these objects, and of those only that are meant.
pub fn status(objects: &Objects, names: &Names, now: Timestamp) -> Status {
    let meant = objects.topologies.iter().filter(|topology| names.mean_topology(&topology.name));
    let mut topologies: Vec<TopologyLine> = meant.map(topology_line).collect();
    let mut hosts: Vec<HostLine> =
        objects.hosts.iter().flat_map(|host| host_lines(host, silence(host, objects, now).as_ref(), names)).collect();
    topologies.sort_by_key(|line| line.verdict.standing);
    hosts.sort_by_key(|line| line.verdict.standing);
    Status { api_version: API_VERSION, kind: "FleetStatus", topologies, hosts }
}

impl Status {
    /// How asking ends: Done where everything is as asked, or as far as it can be.
    pub fn outcome(&self) -> Outcome {
        let topologies = self.topologies.iter().map(|line| line.verdict.standing);
        let mut all = topologies.chain(self.hosts.iter().map(|line| line.verdict.standing));
        if all.all(Standing::is_well) { Outcome::Done } else { Outcome::Changes }
    }
}

fn topology_line(topology: &Topology) -> TopologyLine {
    let Topology { name, generation, spec: _, status } = topology;
    let SliceTopologyStatus { observed_generation, hosts, worst: _, conditions } = status;
    TopologyLine {
        topology: name.clone(),
        verdict: verdict(conditions, *generation, *observed_generation),
        hosts: hosts.unwrap_or_default(),
        conditions: conditions.clone(),
    }
}

/// The host as a whole, if it is meant, and each topology on it of which anything is meant.
fn host_lines(host: &Host, silence: Option<&Verdict>, names: &Names) -> Vec<HostLine> {
    let whole = names.mean_host(&host.name).then(|| host_line(host, silence));
    let told = host.status.topologies.iter().cloned().chain(unsaid(host));
    let entries = told.filter_map(|entry| {
        let is_whole = names.mean_host(&host.name) || names.mean_topology(&entry.name);
        let is_told = |unit: &str| is_whole || names.mean_unit(unit, &entry.name);
        let line = entry_line(host, &entry, silence, &is_told);
        (is_whole || !line.slices.is_empty() || !line.services.is_empty()).then_some(line)
    });
    whole.into_iter().chain(entries).collect()
}

/// What the host is asked to run and its agent has not said a word about.
fn unsaid(host: &Host) -> impl Iterator<Item = TopologyStatus> {
    let is_said = |name: &str| host.status.topologies.iter().any(|said| said.name == name);
    host.entries.iter().filter(move |entry| !is_said(entry.name.as_str())).map(|entry| TopologyStatus {
        name: entry.name.to_string(),
        state: None,
        revision: None,
        slices: Vec::new(),
        conditions: Vec::new(),
    })
}

fn host_line(host: &Host, silence: Option<&Verdict>) -> HostLine {
    let HostStateStatus { observed_generation, conditions, .. } = &host.status;
    HostLine {
        host: host.name.clone(),
        topology: None,
        verdict: silence.cloned().unwrap_or_else(|| verdict(conditions, host.generation, *observed_generation)),
        heard: host.heard,
        slices: Vec::new(),
        services: Vec::new(),
        conditions: conditions.clone(),
    }
}

fn entry_line(
    host: &Host,
    entry: &TopologyStatus,
    silence: Option<&Verdict>,
    is_told: &impl Fn(&str) -> bool,
) -> HostLine {
    let TopologyStatus { name, state: _, revision: _, slices, conditions } = entry;
    let asked = host.entries.iter().find(|asked| asked.name.as_str() == name);
    let verdict = verdict(conditions, host.generation, host.status.observed_generation);
    let services = asked.map(|asked| services(asked, entry, &verdict, is_told)).unwrap_or_default();
    HostLine {
        host: host.name.clone(),
        topology: Some(name.clone()),
        services,
        verdict: silence.cloned().unwrap_or(verdict),
        heard: host.heard,
        slices: slices.iter().filter(|slice| is_told(&slice.unit)).cloned().collect(),
        conditions: conditions.clone(),
    }
}

/// A status counts services and names those that are not as asked; which one it is of several, only measuring tells.
fn services(
    asked: &TopologyEntry,
    entry: &TopologyStatus,
    verdict: &Verdict,
    is_told: &impl Fn(&str) -> bool,
) -> Vec<ServiceLine> {
    let told = asked.services.iter().filter(|service| is_told(service.unit.as_str()));
    let line = |service: &lamina_crds::host_state::ServiceEntry| {
        let (unit, slice) = (service.unit.as_str(), service.slice.as_str());
        let counted = entry.slices.iter().find(|counted| counted.unit == slice);
        let named = entry.conditions.iter().find(|condition| names_unit(&condition.message, unit));
        let (standing, message) = match (counted, named) {
            _ if verdict.standing.is_well() => (verdict.standing, String::new()),
            (_, Some(named)) => (verdict.standing, named.message.clone()),
            (Some(counted), None) if counted.services == counted.services_ready => (Standing::Ready, String::new()),
            (Some(SliceStatus { services, services_ready, .. }), None) => {
                let told = format!(
                    "{services_ready} of {services} services of {slice} are as asked; `kubectl lamina verify` tells which"
                );
                (Standing::NotReady, told)
            }
            (None, None) => (verdict.standing, verdict.message.clone()),
        };
        ServiceLine { unit: unit.to_owned(), slice: slice.to_owned(), standing, message }
    };
    told.map(line).collect()
}

/// Whether a message speaks of this very unit, and not of one whose name ends in the same way.
fn names_unit(message: &str, unit: &str) -> bool {
    let is_of_name = |character: char| character.is_ascii_alphanumeric() || "-_.@".contains(character);
    message.match_indices(unit).any(|(at, _)| !message[..at].ends_with(is_of_name))
}

/// Whether the host's agent was heard, but not lately.
pub fn is_silent(host: &Host, now: Timestamp) -> bool {
    host.heard.is_some_and(|heard| now.duration_since(heard) > SILENCE)
}

/// That the host's agent is not heard: by its Lease, or because the operator says so.
fn silence(host: &Host, objects: &Objects, now: Timestamp) -> Option<Verdict> {
    let told =
        |since, message| Verdict { standing: Standing::Silent, since, reason: Reason::HostsOffline.word(), message };
    if is_silent(host, now) {
        let message =
            format!("{}: its agent is silent; look at the lamina agent and the network of this host", host.name);
        return Some(told(host.heard, message));
    }
    if host.heard.is_some() {
        return None;
    }
    let troubles = objects.topologies.iter().flat_map(|topology| &topology.status.worst);
    let mut own = troubles.filter(|trouble| trouble.host == host.name && trouble.reason == Reason::HostsOffline.word());
    own.next().map(|trouble| told(None, trouble.message.clone()))
}

/// The first condition that tells more than Ready does, in kstatus' order; what was said of an older generation counts
/// as said before the question.
fn verdict(conditions: &[Condition], generation: i64, observed: i64) -> Verdict {
    use ConditionType::{Degraded, Paused, Ready, Reconciling, Stalled};
    if observed < generation {
        return Verdict {
            standing: Standing::Reconciling,
            since: None,
            reason: Reason::NotObserved.word(),
            message: format!("generation {generation} was not looked at yet"),
        };
    }
    let is_true = |type_| find(conditions, type_).filter(|found| found.status == ConditionStatus::True);
    let (standing, told) = match is_true(Ready) {
        Some(ready) => {
            is_true(Degraded).map_or((Standing::Ready, Some(ready)), |told| (Standing::Degraded, Some(told)))
        }
        None => [(Standing::Stalled, Stalled), (Standing::Paused, Paused), (Standing::Reconciling, Reconciling)]
            .into_iter()
            .find_map(|(standing, type_)| Some((standing, Some(is_true(type_)?))))
            .unwrap_or((Standing::NotReady, find(conditions, Ready))),
    };
    Verdict {
        standing,
        since: told.map(|told| told.last_transition_time.0),
        reason: told.map_or_else(|| Reason::NotObserved.word(), |told| told.reason.clone()),
        message: told.map_or_else(|| "nothing was said of it yet".to_owned(), |told| told.message.clone()),
    }
}

#[cfg(test)]
mod tests;
