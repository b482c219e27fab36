//! Decides what must not be touched: hosts that lack what Lamina needs, entries that name what the host does not have,
//! units whose name, file, program or user is not as it has to be.

use std::collections::{BTreeMap, BTreeSet};

use lamina_crds::conditions::Reason;
use lamina_crds::slice_topology::Adoption;
use lamina_crds::{Hardware, TopologyName, UnitName};

use crate::desired::{DesiredEntry, DesiredHost, DesiredService, DesiredSlice};
use crate::host_path::{HostPath, UNIT_DIRECTORY};
use crate::marker::{Mark, mark};
use crate::observed::{ObservedFile, ObservedHost};
use crate::takeover::{is_taken, past};

/// What is not to be touched now, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Entries of which nothing is changed.
    pub entries: BTreeMap<TopologyName, Refusal>,
    /// Units whose files are neither written nor changed and which are neither started nor restarted.
    pub units: BTreeMap<UnitName, Refusal>,
    /// Services that failed and are tried again later.
    pub waiting: BTreeSet<UnitName>,
    /// Services whose process was not seen before: nobody can tell what their files held when it started.
    pub unknown: BTreeSet<UnitName>,
}

/// Why something is not touched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// One word for it.
    pub reason: Reason,
    /// The object first, the remedy last.
    pub message: String,
}

impl Refusal {
    /// A refusal of these parts.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}

/// The oldest systemd with everything that is used here.
pub const OLDEST_SYSTEMD: u32 = 252;
/// The controllers that limits and placement need.
const CONTROLLERS: [&str; 4] = ["cpuset", "io", "memory", "pids"];

/// Why this host can run nothing of ours, if it cannot.
pub fn unsupported(observed: &ObservedHost) -> Option<Refusal> {
    let missing: Vec<&str> = CONTROLLERS.into_iter().filter(|name| !observed.controllers.contains(*name)).collect();
    let message = if observed.systemd_version < OLDEST_SYSTEMD {
        format!("systemd is version {}, {OLDEST_SYSTEMD} is needed; upgrade the host", observed.systemd_version)
    } else if observed.controllers.is_empty() {
        "there is no unified cgroup v2 hierarchy; boot the host with systemd.unified_cgroup_hierarchy=1".to_owned()
    } else if !missing.is_empty() {
        format!("cgroup v2 lacks the controllers {}; enable them in the kernel", missing.join(", "))
    } else if ["maintenance", "stopping"].contains(&observed.system_state.as_str()) {
        format!("systemd is in state `{}`; nothing is changed until it runs again", observed.system_state)
    } else {
        return None;
    };
    Some(Refusal::new(Reason::Unsupported, message))
}

/// What of the desired state must not be touched on this host as it is.
pub fn preflight(desired: &DesiredHost, observed: &ObservedHost, hardware: &Hardware) -> Held {
    let mut held = Held::default();
    for (name, entry) in desired.entries.iter().filter(|(_, entry)| entry.is_present()) {
        match entry_refusal(name, entry, observed, hardware) {
            Some(refusal) => {
                held.entries.insert(name.clone(), refusal);
            }
            None => held.units.extend(unit_refusals(name, entry, observed)),
        }
    }
    held
}

fn entry_refusal(
    topology: &TopologyName,
    entry: &DesiredEntry,
    observed: &ObservedHost,
    hardware: &Hardware,
) -> Option<Refusal> {
    let absent = entry.slices.iter().find_map(|slice| not_present(slice, hardware));
    let top = entry.slices.iter().find(|slice| slice.cpus.is_none());
    let taken = || top.and_then(|slice| taken_name(topology, entry, &slice.unit, observed));
    let blocked = || {
        entry
            .files
            .keys()
            .find_map(|path| linked_directory(&path.directory(), observed).or_else(|| foreign_kind(path, observed)))
    };
    absent.or_else(|| has_past(topology, entry, observed)).or_else(taken).or_else(blocked)
}

/// A host that runs units of these names from somebody else's files is not touched without leave.
fn has_past(topology: &TopologyName, entry: &DesiredEntry, observed: &ObservedHost) -> Option<Refusal> {
    let files = match entry.adoption {
        Adoption::Refuse => past(topology, entry, observed),
        Adoption::Replace => return None,
    };
    let (first, rest) = files.split_first()?;
    let more = if rest.is_empty() { String::new() } else { format!(", {}", rest.join(", ")) };
    let verb = if rest.is_empty() { "is" } else { "are" };
    let message = format!("{first}{more} {verb} there and not Lamina's, nothing of {topology} is touched; {REMEDY}");
    Some(Refusal::new(Reason::ForeignFile, message))
}

/// What to do about foreign files.
const REMEDY: &str =
    "write spec.adoption: Replace to have them saved and replaced, or remove them, or rename the topology";

/// systemd drops a whole list for one CPU that is not there, and starts the service on every CPU.
fn not_present(slice: &DesiredSlice, hardware: &Hardware) -> Option<Refusal> {
    let cpus = slice.cpus.as_ref()?;
    let unit = &slice.unit;
    let missing = cpus.difference(&hardware.present_cpus());
    let nodes = slice.memory_nodes.as_ref().map(|nodes| nodes.difference(&hardware.memory_nodes()));
    let message = if !missing.is_empty() {
        let present = hardware.present_cpus();
        format!(
            "{unit}: CPUs {cpus} are asked, {missing} of them are not present (the host has {present}); correct cpu.set"
        )
    } else if let Some(missing) = nodes.filter(|missing| !missing.is_empty()) {
        let present = hardware.memory_nodes();
        format!("{unit}: memory node {missing} has no memory here (nodes with memory: {present}); place the slice anew")
    } else if cpus.is_disjoint(&hardware.cpus.online) {
        format!("{unit}: every CPU of {cpus} is offline; switch one of them on")
    } else {
        return None;
    };
    Some(Refusal::new(Reason::NotPresent, message))
}

fn unit_refusals(
    topology: &TopologyName,
    entry: &DesiredEntry,
    observed: &ObservedHost,
) -> BTreeMap<UnitName, Refusal> {
    let slices = entry.slices.iter().map(|slice| &slice.unit);
    let mut refused: BTreeMap<UnitName, Refusal> =
        slices.filter_map(|unit| Some((unit.clone(), taken_name(topology, entry, unit, observed)?))).collect();
    for service in &entry.services {
        // Without its slice a service would run unpinned.
        let slice = refused.get(&service.slice).cloned();
        let own = || taken_name(topology, entry, &service.unit, observed).or_else(|| missing_need(service, observed));
        if let Some(refusal) = slice.or_else(own) {
            refused.insert(service.unit.clone(), refusal);
        }
    }
    refused
}

/// Whether somebody else's unit or file has the name.
fn taken_name(
    topology: &TopologyName,
    entry: &DesiredEntry,
    unit: &UnitName,
    observed: &ObservedHost,
) -> Option<Refusal> {
    let fragment = HostPath::fragment(unit);
    let paths = [fragment.clone(), HostPath::drop_in(unit)];
    let directory = HostPath::drop_in(unit).directory();
    let foreign = paths.iter().find_map(|path| foreign_file(topology, entry, unit, path, observed));
    let foreign = foreign.or_else(|| linked_directory(&directory, observed));
    let link = || foreign_link(unit, observed);
    let ours_on_disk = observed.files.contains_key(&fragment);
    foreign.or_else(link).or_else(|| vendor_unit(unit, observed, ours_on_disk))
}

fn foreign_file(
    topology: &TopologyName,
    entry: &DesiredEntry,
    unit: &UnitName,
    path: &HostPath,
    observed: &ObservedHost,
) -> Option<Refusal> {
    let refused = |why: String| Some(Refusal::new(Reason::ForeignFile, format!("{path} {why}")));
    match observed.files.get(path)? {
        ObservedFile::Regular { content } => match (mark(topology, content), entry.adoption) {
            (Mark::Intact | Mark::Damaged, _) => None,
            (Mark::Empty, _) if entry.written.contains(path) => None,
            (Mark::Empty, _) => refused("is empty, which masks a unit, and not Lamina's; remove it".to_owned()),
            (Mark::Foreign, Adoption::Refuse) => refused(format!("is there and not Lamina's; {REMEDY} or the unit")),
            (Mark::Foreign, Adoption::Replace) if is_taken(topology, entry, unit, path, observed) => None,
            (Mark::Foreign, Adoption::Replace) if std::str::from_utf8(content).is_err() => {
                refused("is no text that could be saved and given back; remove it".to_owned())
            }
            (Mark::Foreign, Adoption::Replace) => refused("is not Lamina's and not saved yet".to_owned()),
        },
        ObservedFile::Link { .. } | ObservedFile::Other { .. } => foreign_kind(path, observed),
    }
}

/// Something that is no regular file is never followed and never replaced.
fn foreign_kind(path: &HostPath, observed: &ObservedHost) -> Option<Refusal> {
    let what = match observed.files.get(path)? {
        ObservedFile::Regular { content: _ } => return None,
        ObservedFile::Link { target } => format!("a symbolic link to {target}"),
        ObservedFile::Other { what } => what.clone(),
    };
    Some(Refusal::new(Reason::ForeignFile, format!("{path} is {what}, not a file of Lamina's; remove it")))
}

/// A directory of ours that is a link leads to a place that is not ours.
fn linked_directory(directory: &HostPath, observed: &ObservedHost) -> Option<Refusal> {
    match observed.files.get(directory)? {
        ObservedFile::Link { .. } => foreign_kind(directory, observed),
        ObservedFile::Regular { .. } | ObservedFile::Other { .. } => None,
    }
}

fn foreign_link(unit: &UnitName, observed: &ObservedHost) -> Option<Refusal> {
    let path = HostPath::enablement(unit);
    match observed.files.get(&path)? {
        ObservedFile::Link { target } if points_at(target, unit) => None,
        ObservedFile::Link { target } => {
            let message = format!("{path} is a symbolic link to {target}, not to Lamina's unit; remove it");
            Some(Refusal::new(Reason::ForeignFile, message))
        }
        ObservedFile::Regular { .. } | ObservedFile::Other { .. } => {
            Some(Refusal::new(Reason::ForeignFile, format!("{path} is no symbolic link; remove it")))
        }
    }
}

/// Whether an enablement link leads to our fragment, as we or as `systemctl enable` writes it.
pub fn points_at(target: &str, unit: &UnitName) -> bool {
    target == format!("../{unit}") || target == HostPath::fragment(unit).as_str()
}

/// A unit that systemd knows from another place: a vendor's, a generated or a transient one, or a mask.
fn vendor_unit(unit: &UnitName, observed: &ObservedHost, ours_on_disk: bool) -> Option<Refusal> {
    let seen = observed.units.get(unit)?;
    let path = seen.fragment_path.as_str();
    let elsewhere = !path.is_empty() && path != HostPath::fragment(unit).as_str();
    let stronger = OUTRANKING.iter().any(|directory| path.starts_with(directory));
    if elsewhere && (stronger || !ours_on_disk) && seen.load_state != "not-found" {
        let message = format!("{unit} is already a unit of this host ({path}); rename the topology or the unit");
        return Some(Refusal::new(Reason::NameTaken, message));
    }
    // What masked it may be gone by now: then only a reload is missing.
    let own = std::iter::once(UNIT_DIRECTORY).chain(OUTRANKING).chain(["/run/systemd/system"]);
    let mut masks = own.map(|directory| HostPath::new(format!("{}/{unit}", directory.trim_end_matches('/'))));
    (seen.load_state == "masked" && !ours_on_disk && masks.any(|path| observed.files.contains_key(&path))).then(|| {
        let message = format!("{unit} is masked on this host; unmask it, or rename the topology or the unit");
        Refusal::new(Reason::NameTaken, message)
    })
}

/// Unit directories that systemd prefers to /etc/systemd/system, systemd.unit(5).
const OUTRANKING: [&str; 4] = [
    "/etc/systemd/system.control/",
    "/run/systemd/system.control/",
    "/run/systemd/transient/",
    "/run/systemd/generator.early/",
];

fn missing_need(service: &DesiredService, observed: &ObservedHost) -> Option<Refusal> {
    let unit = &service.unit;
    let needs = &service.needs;
    let Some(program) = &needs.executable else {
        let message = format!("{unit}: the command names no program; write its absolute path");
        return Some(Refusal::new(Reason::MissingExecutable, message));
    };
    match observed.executables.get(program) {
        Some(Ok(())) => {}
        Some(Err(why)) => {
            let message = format!("{unit}: {program} {why}; install it, the unit was not changed");
            return Some(Refusal::new(Reason::MissingExecutable, message));
        }
        None => {
            let message = format!("{unit}: {program} is missing; install it, the unit was not changed");
            return Some(Refusal::new(Reason::MissingExecutable, message));
        }
    }
    if !observed.users.contains(&needs.user) {
        let message = format!("{unit}: user {} does not exist; create it, the unit was not changed", needs.user);
        return Some(Refusal::new(Reason::MissingUser, message));
    }
    needs.env_files.iter().find_map(|path| {
        let why = match observed.env_files.get(&(path.clone(), needs.user.clone())) {
            Some(Ok(())) => return None,
            Some(Err(why)) => why.as_str(),
            None => "is missing",
        };
        let remedy = format!("make it readable by user {}, the unit was not changed", needs.user);
        Some(Refusal::new(Reason::EnvFileRejected, format!("{unit}: {path} {why}; {remedy}")))
    })
}

#[cfg(test)]
mod tests;
