//! Decides which foreign files an entry with leave to replace takes the place of, and what must be stored before: the
//! files as they are, and of each process that was started from them whether it runs as is asked.
//!
//! A foreign file may be replaced or removed only when its very content stands in the before-image, and the fragment of a
//! running service only when its process has been judged: afterwards nobody can tell what it was started with.

use std::collections::{BTreeMap, BTreeSet};

use lamina_crds::host_state::digest_of_bytes;
use lamina_crds::slice_topology::Adoption;
use lamina_crds::{TopologyName, UnitKind, UnitName};
use serde::{Deserialize, Serialize};

use crate::desired::{DesiredEntry, DesiredHost, DesiredService, TextDigests};
use crate::host_path::{DROP_IN, HostPath, UNIT_DIRECTORY};
use crate::marker::{Mark, mark};
use crate::observed::{ObservedFile, ObservedHost, ObservedUnit};
use crate::plan::outranking;
use crate::preflight::Held;
use crate::start_settings::compare;
use crate::unit_settings::UnitSettings;

/// A process that was started from foreign text, and what was found of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Adopted {
    /// The process, by its invocation.
    pub invocation: String,
    /// What was asked when it was judged.
    pub judged: TextDigests,
    /// How it runs.
    pub runs: Runs,
}

/// How a process that was started from foreign text runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Runs {
    /// As is asked.
    AsAsked,
    /// As is asked, but for what waits for a restart: derived variables, and settings that no topology can ask for.
    Waiting(Vec<String>),
    /// Otherwise; each difference in words.
    Otherwise(Vec<String>),
}

impl Adopted {
    /// The text that the process counts as started from, if it runs as is asked.
    pub fn started_from(&self) -> Option<TextDigests> {
        match &self.runs {
            Runs::AsAsked => Some(self.judged.clone()),
            Runs::Waiting(_) => Some(TextDigests { derived: String::new(), ..self.judged.clone() }),
            Runs::Otherwise(_) => None,
        }
    }
}

/// What must be stored before files of one entry are replaced.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Taking {
    /// Foreign files that are not in the before-image as they are.
    pub files: BTreeMap<HostPath, String>,
    /// Links that start the same units at boot.
    pub links: BTreeMap<HostPath, String>,
    /// Processes that were not judged yet.
    pub adopted: BTreeMap<UnitName, Adopted>,
}

/// What must be stored, by topology.
pub type Takings = BTreeMap<TopologyName, Taking>;

/// What must be stored before anything foreign is replaced; empty when all of it is, or nothing is to be replaced.
pub fn takings(desired: &DesiredHost, observed: &ObservedHost, held: &Held) -> Takings {
    let present = desired.entries.iter().filter(|(_, entry)| entry.is_present() && may_replace(entry));
    let free = present.filter(|(name, _)| !held.entries.contains_key(*name) && !desired.paused.contains(*name));
    let takings = free.map(|(name, entry)| (name.clone(), taking(name, entry, observed)));
    takings.filter(|(_, taking)| !taking.files.is_empty() || !taking.adopted.is_empty()).collect()
}

fn may_replace(entry: &DesiredEntry) -> bool {
    entry.adoption == Adoption::Replace
}

fn taking(topology: &TopologyName, entry: &DesiredEntry, observed: &ObservedHost) -> Taking {
    let mut taking = Taking::default();
    for unit in entry.units() {
        let files = foreign_files(topology, unit, observed);
        let new = files.iter().filter(|(path, content)| !is_saved(entry, path, content));
        let new: Vec<_> = new.map(|(path, content)| ((*path).clone(), (*content).to_owned())).collect();
        let link = HostPath::enablement(unit);
        if let (false, Some(ObservedFile::Link { target })) = (new.is_empty(), observed.files.get(&link)) {
            taking.links.insert(link, target.clone());
        }
        taking.files.extend(new);
    }
    let judged = entry.services.iter().filter_map(|service| {
        let seen = unjudged(topology, service, observed)?;
        Some((service.unit.clone(), judge(topology, service, seen, observed)?))
    });
    taking.adopted = judged.collect();
    taking
}

/// The foreign files of a unit that go when Lamina takes its place: its fragment, a file at the place of Lamina's own
/// drop-in, and with a foreign fragment those of its own drop-ins that would contradict Lamina's text.
fn foreign_files<'a>(
    topology: &TopologyName,
    unit: &UnitName,
    observed: &'a ObservedHost,
) -> BTreeMap<&'a HostPath, &'a str> {
    let fragment = foreign_text(topology, &HostPath::fragment(unit), observed);
    let own = foreign_text(topology, &HostPath::drop_in(unit), observed);
    let contradicting = if fragment.is_some() { contradicting(unit, observed) } else { Vec::new() };
    fragment.into_iter().chain(own).chain(contradicting).collect()
}

fn foreign_text<'a>(
    topology: &TopologyName,
    path: &HostPath,
    observed: &'a ObservedHost,
) -> Option<(&'a HostPath, &'a str)> {
    let (path, file) = observed.files.get_key_value(path)?;
    match file {
        ObservedFile::Regular { content } if mark(topology, content) == Mark::Foreign => {
            Some((path, std::str::from_utf8(content).ok()?))
        }
        ObservedFile::Regular { .. } | ObservedFile::Link { .. } | ObservedFile::Other { .. } => None,
    }
}

/// Keys of a service's fragment: a drop-in that sets one of them would change what Lamina's text says, wherever it sorts.
const OWN_KEYS: [&str; 17] = [
    "Type",
    "User",
    "Group",
    "Slice",
    "WorkingDirectory",
    "ExecStart",
    "Environment",
    "EnvironmentFile",
    "PassEnvironment",
    "UnsetEnvironment",
    "Restart",
    "RestartSec",
    "LimitNOFILE",
    "LimitNPROC",
    "LimitMEMLOCK",
    "LimitCORE",
    "LogExtraFields",
];

/// Drop-ins in the unit's own directory beside its fragment that say otherwise than Lamina's text.
fn contradicting<'a>(unit: &UnitName, observed: &'a ObservedHost) -> Vec<(&'a HostPath, &'a str)> {
    let directory = HostPath::drop_in(unit).directory();
    let outranking: BTreeSet<&HostPath> = outranking(unit, observed).collect();
    let files = observed.files.iter().filter(|(path, _)| {
        path.directory() == directory && path.as_str().ends_with(".conf") && path.name() != DROP_IN
    });
    let texts = files.filter_map(|(path, file)| match file {
        ObservedFile::Regular { content } => Some((path, std::str::from_utf8(content).ok()?)),
        ObservedFile::Link { .. } | ObservedFile::Other { .. } => None,
    });
    let says_otherwise = |text: &str| {
        let settings = UnitSettings::read(text).settings;
        settings.iter().any(|setting| OWN_KEYS.contains(&setting.key.as_str()))
    };
    texts.filter(|(path, text)| outranking.contains(path) || says_otherwise(text)).collect()
}

/// Whether this content of this path stands in the before-image.
fn is_saved(entry: &DesiredEntry, path: &HostPath, content: &str) -> bool {
    entry.saved.get(path).is_some_and(|digests| digests.contains(&digest_of_bytes(content.as_bytes())))
}

/// Drop-ins beside a unit's fragment whose place was taken: they stand in the before-image and go with the fragment.
pub fn taken_drop_ins<'a>(
    entry: &'a DesiredEntry,
    unit: &UnitName,
    observed: &'a ObservedHost,
) -> impl Iterator<Item = &'a HostPath> {
    let taken = if may_replace(entry) { contradicting(unit, observed) } else { Vec::new() };
    taken.into_iter().filter(move |(path, content)| is_saved(entry, path, content)).map(|(path, _)| path)
}

/// Whether the foreign content at one of a unit's paths may be replaced now.
pub fn is_taken(
    topology: &TopologyName,
    entry: &DesiredEntry,
    unit: &UnitName,
    path: &HostPath,
    observed: &ObservedHost,
) -> bool {
    let files = foreign_files(topology, unit, observed);
    let all_saved = files.iter().all(|(path, content)| is_saved(entry, path, content));
    let service = entry.services.iter().find(|service| service.unit == *unit);
    let is_judged = service.is_none_or(|service| unjudged(topology, service, observed).is_none());
    may_replace(entry) && files.contains_key(path) && all_saved && is_judged
}

/// The running process of a service with a foreign fragment, unless it was judged for what is asked now.
fn unjudged<'a>(
    topology: &TopologyName,
    service: &DesiredService,
    observed: &'a ObservedHost,
) -> Option<&'a ObservedUnit> {
    foreign_text(topology, &HostPath::fragment(&service.unit), observed)?;
    let seen = observed.units.get(&service.unit)?;
    let is_judged = |adopted: &&Adopted| adopted.invocation == seen.invocation && adopted.judged == service.digests;
    let is_running = seen.main_pid != 0 && seen.past.is_some();
    (is_running && service.adopted.as_ref().filter(is_judged).is_none()).then_some(seen)
}

fn judge(
    topology: &TopologyName,
    service: &DesiredService,
    seen: &ObservedUnit,
    observed: &ObservedHost,
) -> Option<Adopted> {
    let found = seen.past.as_ref()?;
    let comparison = compare(&service.start, service.numa.as_ref(), found, seen.numa.as_ref());
    let runs = if comparison.differences.is_empty() {
        let mut waiting = comparison.derived;
        waiting.extend(lost(topology, &service.unit, observed));
        if waiting.is_empty() { Runs::AsAsked } else { Runs::Waiting(waiting) }
    } else {
        Runs::Otherwise(comparison.differences)
    };
    Some(Adopted { invocation: seen.invocation.clone(), judged: service.digests.clone(), runs })
}

/// Settings of the foreign text that a process keeps until its next start, and that no topology can ask for.
fn lost(topology: &TopologyName, unit: &UnitName, observed: &ObservedHost) -> BTreeSet<String> {
    let texts = foreign_files(topology, unit, observed);
    let settings = texts.values().flat_map(|text| UnitSettings::read(text).settings);
    let lost = settings.filter(|setting| setting.section == "Service" && is_for_the_process(&setting.key));
    lost.map(|setting| setting.key).collect()
}

/// Beginnings of keys in `[Service]` that say something about the unit or its cgroup, or that are compared: the rest is
/// given to the process when it starts. systemd.service(5), systemd.exec(5), systemd.kill(5), systemd.resource-control(5).
const NOT_FOR_THE_PROCESS: [&str; 41] = [
    "Type",
    "Exec",
    "Restart",
    "Timeout",
    "Watchdog",
    "Kill",
    "SendSIG",
    "FinalKill",
    "Slice",
    "User",
    "Group",
    "Environment",
    "PassEnvironment",
    "UnsetEnvironment",
    "WorkingDirectory",
    "LimitNOFILE",
    "LimitNPROC",
    "LimitMEMLOCK",
    "LimitCORE",
    "NUMA",
    "CPUAffinity",
    "CPUWeight",
    "CPUQuota",
    "CPUShares",
    "CPUAccounting",
    "Startup",
    "Memory",
    "IO",
    "BlockIO",
    "Tasks",
    "Allowed",
    "PIDFile",
    "RemainAfterExit",
    "SuccessExit",
    "OOMPolicy",
    "ManagedOOM",
    "Delegate",
    "Standard",
    "Syslog",
    "SupplementaryGroups",
    "LogExtraFields",
];

fn is_for_the_process(key: &str) -> bool {
    !NOT_FOR_THE_PROCESS.iter().any(|beginning| key.starts_with(beginning))
}

/// Lets processes that were started from foreign text and run as is asked count as started from ours.
pub fn count_as_started(desired: &DesiredHost, observed: &mut ObservedHost) {
    for service in desired.entries.values().flat_map(|entry| &entry.services) {
        let Some(seen) = observed.units.get_mut(&service.unit).filter(|seen| seen.main_pid != 0) else { continue };
        if seen.started_from.is_none() {
            seen.started_from = adopted_process(service, seen).and_then(Adopted::started_from);
        }
    }
}

/// What is known of a service's running process if it was started from foreign text.
pub fn adopted_process<'a>(service: &'a DesiredService, seen: &ObservedUnit) -> Option<&'a Adopted> {
    service.adopted.as_ref().filter(|adopted| adopted.invocation == seen.invocation)
}

/// The foreign fragments and drop-ins, by unit, on a host on which nothing of the topology is Lamina's yet; empty where
/// something is.
pub fn past(topology: &TopologyName, entry: &DesiredEntry, observed: &ObservedHost) -> Vec<String> {
    let is_ours = |file: &ObservedFile| match file {
        ObservedFile::Regular { content } => matches!(mark(topology, content), Mark::Intact | Mark::Damaged),
        ObservedFile::Link { .. } | ObservedFile::Other { .. } => false,
    };
    let at_home = |path: &HostPath| path.as_str().starts_with(UNIT_DIRECTORY);
    let started = observed.files.iter().any(|(path, file)| at_home(path) && is_ours(file));
    if started || !entry.written.is_empty() {
        return Vec::new();
    }
    let units: BTreeSet<&UnitName> = entry.units().collect();
    let (slices, services): (Vec<&UnitName>, Vec<&UnitName>) =
        units.into_iter().partition(|unit| unit.kind() == UnitKind::Slice);
    let files = slices.into_iter().chain(services).flat_map(|unit| foreign_files(topology, unit, observed).into_keys());
    files.map(ToString::to_string).collect()
}
