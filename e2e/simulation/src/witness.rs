//! Sees every effect of an agent and judges whether it may be: nothing foreign is touched, nothing is stopped or
//! restarted in vain, nothing that was pinned comes loose. It knows what the agent was told, and the host's true state.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use lamina_crds::decode::decode;
use lamina_crds::host_state::{EntryState, ServiceEntry, SliceEntry};
use lamina_crds::rules::entry_faults;
use lamina_crds::slice_topology::Adoption;
use lamina_crds::{CpuSet, Term, TopologyEntry, TopologyName, UnitKind, UnitName};
use lamina_node_agent::accept::{Accepted, Recalled, copies, recall};
use lamina_node_agent::before_image;
use lamina_node_agent::cluster::RawHostState;
use lamina_node_agent::host_path::{DROP_IN, HostPath, RUNTIME_CONTROL, STATE, UNIT_DIRECTORY};
use lamina_node_agent::property::Property;

use crate::host::SimulatedHost;
use crate::host::systemd::slice_path;
use crate::truth::{cpus_of_service, process_disagreement};

/// What one agent was told, and what it did wrong.
#[derive(Clone, Debug, Default)]
pub struct Witness {
    /// What must never happen and did, in sentences.
    pub violations: Vec<String>,
    /// Whether a foreign hand acted since the agent last looked.
    pub is_disturbed: bool,
    /// Whether a delivered file was changed by others: a process may have been started from it, and only one that was
    /// seen before certainly was not.
    pub is_file_in_doubt: bool,
    /// The newest instruction of each topology.
    pub wanted: BTreeMap<TopologyName, TopologyEntry>,
    seen: Option<(String, i64)>,
    /// Every CPU that was ever asked for a service.
    cpus: BTreeMap<UnitName, CpuSet>,
    /// Every unit that was ever asked for.
    ours: BTreeSet<UnitName>,
    /// Every form in which a service was ever asked for, as far as only a start can bring it about.
    forms: BTreeMap<UnitName, BTreeSet<String>>,
}

/// What an effect touches.
#[derive(Clone, Copy, Debug)]
pub enum Touch<'a> {
    /// A file.
    File {
        /// What is done with it.
        attempt: &'static str,
        /// Which one.
        path: &'a str,
    },
    /// A unit.
    Unit {
        /// What is done with it.
        attempt: &'static str,
        /// Which one.
        unit: &'a UnitName,
    },
    /// systemd as a whole.
    Reload,
}

/// What ran, and where, before an effect.
pub struct Before {
    running: BTreeMap<UnitName, (u32, CpuSet)>,
    verdicts: Vec<String>,
}

impl Witness {
    /// Whether an object says anything new: older generations of the same one do not.
    pub fn is_news(&self, uid: &str, generation: i64) -> bool {
        !self.seen.as_ref().is_some_and(|(known, newest)| known == uid && *newest >= generation)
    }

    /// The agent is about to be shown this object, which is news. One of an older term than it has acted on is no
    /// instruction.
    pub fn instruct(&mut self, object: &RawHostState, acted_on: Term) {
        self.seen = Some((object.uid.clone(), object.generation));
        if object.term < acted_on {
            return;
        }
        let entries = object.entries.iter().filter_map(|value| decode::<TopologyEntry>(value).ok());
        for entry in entries.filter(|entry| entry_faults(entry).is_empty()) {
            self.note(&entry);
            self.wanted.insert(entry.name.clone(), entry);
        }
    }

    fn note(&mut self, entry: &TopologyEntry) {
        self.ours.extend(UnitName::of_topology(&entry.name));
        self.ours.extend(entry.slices.iter().map(|slice| slice.unit.clone()));
        for service in &entry.services {
            self.ours.insert(service.unit.clone());
            let known = self.cpus.entry(service.unit.clone()).or_default();
            *known = known.union(&cpus_of_service(entry, service));
            self.forms.entry(service.unit.clone()).or_default().insert(form(entry, service));
        }
    }

    /// Judges an effect before it happens, and remembers what must survive it.
    pub fn before(&self, host: &SimulatedHost, touch: &Touch<'_>) -> Before {
        let verdicts = match touch {
            Touch::File { attempt, path } => self.judge_file(host, attempt, path),
            Touch::Unit { attempt, unit } => self.judge_unit(host, attempt, unit),
            Touch::Reload => Vec::new(),
        };
        // No file changes what runs.
        let running = if matches!(touch, Touch::File { .. }) { BTreeMap::new() } else { self.running(host) };
        Before { running, verdicts }
    }

    /// Judges what an effect did.
    pub fn after(&self, host: &SimulatedHost, touch: &Touch<'_>, before: &Before) -> Vec<String> {
        let mut verdicts = before.verdicts.clone();
        if matches!(touch, Touch::File { .. }) {
            return verdicts;
        }
        for (unit, (pid, cpus)) in self.running(host) {
            let Some(asked) = self.asked_cpus(host, &unit) else { continue };
            let was_inside =
                before.running.get(&unit).is_none_or(|(old, old_cpus)| *old != pid || old_cpus.is_subset(&asked));
            if was_inside && !cpus.is_subset(&asked) && !self.must_widen(host, touch, &unit) {
                verdicts.push(format!("{touch}: {unit} now runs on {cpus}, asked for was {asked}"));
            }
        }
        for unit in before.running.keys() {
            let still = host.systemd.units.get(unit).is_some_and(|unit| unit.process.is_some());
            if !still && matches!(touch, Touch::Reload) {
                verdicts.push(format!("{touch} ended {unit}"));
            }
        }
        verdicts
    }

    /// Threads that sit elsewhere come back only when their set changes: where one CPU is left, only a wider set differs.
    fn must_widen(&self, host: &SimulatedHost, touch: &Touch<'_>, unit: &UnitName) -> bool {
        let Some((entry, service)) = self.service(unit) else { return false };
        let usable = cpus_of_service(entry, service).intersection(&host.machine.online);
        usable.len() == 1 && matches!(touch, Touch::Unit { attempt: "set properties of", .. })
    }

    /// The CPUs asked for a service of a Present entry; `None` where nobody asks, or all of them are switched off.
    fn asked_cpus(&self, host: &SimulatedHost, unit: &UnitName) -> Option<CpuSet> {
        let (entry, _) = self.service(unit)?;
        let asked = self.cpus.get(unit).filter(|_| entry.state == EntryState::Present)?;
        // Until it is restarted, a service that moves follows the slice it comes from.
        let home = &host.systemd.units.get(unit)?.process.as_ref()?.cgroup;
        let sits_in = |slice: &&SliceEntry| *home == format!("{}/{unit}", slice_path(&slice.unit));
        let asked = entry.slices.iter().find(sits_in).map_or_else(|| asked.clone(), |slice| asked.union(&slice.cpus));
        (!asked.is_disjoint(&host.machine.online)).then_some(asked)
    }

    fn running(&self, host: &SimulatedHost) -> BTreeMap<UnitName, (u32, CpuSet)> {
        let units = host.systemd.units.iter().filter(|(name, _)| self.ours.contains(name));
        let running = units.filter_map(|(name, unit)| Some((name, unit.process.as_ref()?)));
        running.map(|(name, process)| (name.clone(), (process.pid, host.cpus_of(process)))).collect()
    }

    fn service(&self, unit: &UnitName) -> Option<(&TopologyEntry, &ServiceEntry)> {
        self.wanted.values().find_map(|entry| {
            let service = entry.services.iter().find(|service| service.unit == *unit)?;
            Some((entry, service))
        })
    }

    fn judge_file(&self, host: &SimulatedHost, attempt: &str, path: &str) -> Vec<String> {
        let mut verdicts = Vec::new();
        // Making something durable changes nothing of it.
        if attempt == "sync" {
            return verdicts;
        }
        if host.foreign.contains_key(path) && !self.may_replace(host, path) {
            verdicts.push(format!("{attempt} {path}: it is somebody else's"));
        }
        if !self.is_ours(path) && !self.may_replace(host, path) {
            verdicts.push(format!("{attempt} {path}: not a place for Lamina's files"));
        }
        verdicts
    }

    /// Whether what others wrote at a path may be replaced: its topology gives leave, and it is saved as it stands.
    fn may_replace(&self, host: &SimulatedHost, path: &str) -> bool {
        let unit = HostPath::new(path).unit();
        let entry = self.wanted.values().find(|entry| unit.as_ref().is_some_and(|unit| unit.belongs_to(&entry.name)));
        let Some(entry) = entry.filter(|entry| entry.adoption == Adoption::Replace) else { return false };
        let found = host.disk.read(path);
        let is_theirs = found.as_deref() == host.foreign.get(path).map(Vec::as_slice);
        host.foreign.contains_key(path) && (!is_theirs || is_saved(host, &entry.name, path))
    }

    /// Whether what is gone of somebody else's may be gone: there was leave, and it can be given back.
    pub fn can_be_given_back(&self, host: &SimulatedHost, path: &str) -> bool {
        let unit = HostPath::new(path).unit();
        let leave = |entry: &&TopologyEntry| {
            let is_its = unit.as_ref().is_some_and(|unit| unit.belongs_to(&entry.name));
            is_its && entry.adoption == Adoption::Replace && is_saved(host, &entry.name, path)
        };
        self.wanted.values().any(|entry| leave(&entry))
    }

    /// Whether a path is one that the agent may use.
    fn is_ours(&self, path: &str) -> bool {
        const SHARED: [&str; 4] = [
            "/etc/lamina",
            "/etc/systemd/system",
            "/etc/systemd/system/multi-user.target.wants",
            "/run/systemd/system.control",
        ];
        let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
        let name = name.strip_prefix('.').and_then(|name| name.strip_suffix(".lamina-new")).unwrap_or(name);
        let is_unit = |name: &str| UnitName::new(name).is_ok_and(|unit| self.ours.contains(&unit));
        let is_drop_ins = |name: &str| name.strip_suffix(".d").is_some_and(is_unit);
        let is_push = |name: &str| {
            let key = name.strip_prefix("50-").and_then(|name| name.strip_suffix(".conf"));
            key.is_some_and(|key| Property::ALL.iter().any(|property| property.key() == key))
        };
        let in_units = match directory {
            UNIT_DIRECTORY => is_unit(name) || is_drop_ins(name),
            "/etc/systemd/system/multi-user.target.wants" => is_unit(name),
            RUNTIME_CONTROL => is_drop_ins(name),
            _ => match directory.rsplit_once('/') {
                Some((UNIT_DIRECTORY, unit)) => is_drop_ins(unit) && name == DROP_IN,
                Some((RUNTIME_CONTROL, unit)) => is_drop_ins(unit) && is_push(name),
                Some(_) | None => false,
            },
        };
        in_units
            || path == STATE
            || path.starts_with("/var/lib/lamina/")
            || path.starts_with("/etc/lamina/files")
            || SHARED.contains(&path)
    }

    fn judge_unit(&self, host: &SimulatedHost, attempt: &str, unit: &UnitName) -> Vec<String> {
        let mut verdicts = Vec::new();
        if !self.ours.contains(unit) {
            verdicts.push(format!("{attempt} {unit}: it is somebody else's"));
        }
        if !matches!(attempt, "stop" | "restart") {
            return verdicts;
        }
        if unit.kind() == UnitKind::Slice && attempt == "restart" {
            verdicts.push(format!("{attempt} {unit}: a slice is never restarted"));
        }
        let ended = host.systemd.inside(unit).into_iter().filter_map(|inside| {
            let process = host.systemd.units.get(&inside)?.process.clone()?;
            Some((inside, process))
        });
        for (inside, process) in ended {
            // An instruction that was seen and not stored is forgotten with its agent, or waits: then the stored one counts.
            let reason = self.reason_to_end(host, attempt, &inside, &process);
            let reason = reason.or_else(|why| match self.with_what_is_stored(host) {
                Some(stored) => stored.reason_to_end(host, attempt, &inside, &process).map_err(|_| why),
                None => Err(why),
            });
            if let Err(why) = reason {
                verdicts.push(format!("{attempt} {unit} ends {inside} in vain: {why}"));
            }
        }
        verdicts
    }

    /// The same witness, had the agent been told only what it has stored on its disk.
    fn with_what_is_stored(&self, host: &SimulatedHost) -> Option<Self> {
        let wanted = stored(host)?.entries.into_iter().map(|(name, kept)| (name, kept.entry)).collect();
        Some(Self { wanted, ..self.clone() })
    }

    /// Why a running process may be ended.
    fn reason_to_end(
        &self,
        host: &SimulatedHost,
        attempt: &str,
        unit: &UnitName,
        process: &crate::host::systemd::Process,
    ) -> Result<String, String> {
        let Some((entry, service)) = self.service(unit) else {
            let topology = self.wanted.values().find(|entry| unit.belongs_to(&entry.name));
            return match topology.map(|entry| entry.state) {
                Some(EntryState::Present | EntryState::Absent) if attempt == "stop" => Ok("nobody wants it".to_owned()),
                Some(state) => Err(format!("its entry is {state:?}")),
                None => Err("no instruction speaks of it".to_owned()),
            };
        };
        match (entry.state, attempt) {
            (EntryState::Absent, "stop") => Ok("it is to be absent".to_owned()),
            (EntryState::Present, "stop") if self.is_file_in_doubt && !service.env_files.is_empty() => {
                Ok("it may have been started from an edited file".to_owned())
            }
            (EntryState::Present, "restart") => process_disagreement(host, entry, service, process)
                .or_else(|| self.is_doubted(host, unit).then(|| "the agent has stored a doubt of it".to_owned()))
                .or_else(|| self.was_started_in_between(host, unit, process))
                .ok_or_else(|| "it already runs what is asked".to_owned()),
            (state, _) => Err(format!("its entry is {state:?}")),
        }
    }

    /// Whether the agent has stored that it cannot tell which files the running process has read, and rightly so.
    fn is_doubted(&self, host: &SimulatedHost, unit: &UnitName) -> bool {
        let invocation = host.systemd.units.get(unit).map(|unit| &unit.invocation);
        self.is_file_in_doubt
            && stored(host).is_some_and(|accepted| {
                accepted.entries.values().any(|kept| kept.doubted.get(unit) == invocation && invocation.is_some())
            })
    }

    /// A process that was started while its files were being changed may run what is asked and still carry the marks of
    /// what was asked before: nobody can tell, so its restart is right.
    fn was_started_in_between(
        &self,
        host: &SimulatedHost,
        unit: &UnitName,
        process: &crate::host::systemd::Process,
    ) -> Option<String> {
        let has_changed = self.forms.get(unit).is_some_and(|forms| forms.len() > 1);
        let marks = host.systemd.units.get(unit).and_then(|unit| unit.loaded.digests.as_ref());
        let differ = marks.map(|marks| &marks.start) != process.started_from.as_ref().map(|marks| &marks.start);
        (has_changed && differ).then(|| "it was started while it changed".to_owned())
    }
}

/// Whether what others wrote at a path stands in the topology's before-image.
pub fn is_saved(host: &SimulatedHost, topology: &TopologyName, path: &str) -> bool {
    let content = host.disk.read(before_image::path_of(topology).as_str());
    let before_image::Recalled::Image(image) = before_image::recall(topology, content.as_deref()) else { return false };
    let versions = image.files.get(path).map(Vec::as_slice).unwrap_or_default();
    host.foreign.get(path).is_some_and(|theirs| versions.iter().any(|file| file.content.as_bytes() == theirs))
}

/// What the agent has stored on its disk.
pub fn stored(host: &SimulatedHost) -> Option<Accepted> {
    let content = |path: &HostPath| host.disk.read(path.as_str()).map(|content| content.to_vec());
    match recall(&copies().iter().map(content).collect::<Vec<_>>()) {
        Recalled::Accepted(accepted) => Some(*accepted),
        Recalled::Nothing | Recalled::Newer { .. } => None,
    }
}

/// Everything about a service that takes effect only at its start.
fn form(entry: &TopologyEntry, service: &ServiceEntry) -> String {
    let ServiceEntry { command, user, working_directory, env_files, env, rlimits, .. } = service;
    let fixed: Vec<_> = env.iter().filter(|variable| !variable.derived).collect();
    let files: Vec<_> = env_files
        .iter()
        .map(|file| entry.files.iter().find(|delivered| Some(&delivered.name) == file.file.as_ref()))
        .collect();
    format!("{command:?} {user} {working_directory:?} {env_files:?} {files:?} {fixed:?} {rlimits:?}")
}

impl fmt::Display for Touch<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { attempt, path } => write!(formatter, "{attempt} {path}"),
            Self::Unit { attempt, unit } => write!(formatter, "{attempt} {unit}"),
            Self::Reload => formatter.write_str("reload"),
        }
    }
}
