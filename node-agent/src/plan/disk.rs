//! Decides which files, links and reloads are missing so that systemd has our text loaded.

use std::collections::BTreeSet;

use lamina_crds::UnitName;

use super::{Class, Effect, Entry, Finding, Hand, Step};
use crate::desired::{DesiredHost, DesiredService, UnitText};
use crate::host_path::{DROP_IN, FILES, HostPath, REMOVED_FROM, RUNTIME_CONTROL, UNIT_DIRECTORY};
use crate::marker::is_intact;
use crate::observed::{ObservedFile, ObservedHost, ObservedUnit};
use crate::property::Property;
use crate::takeover::taken_drop_ins;

/// What must be written, in an order in which a power cut at any point leaves nothing unpinned at the next boot: files,
/// then slices, then services, then the links that start services at boot.
pub(super) fn steps(entry: &Entry<'_>) -> Vec<Step> {
    if !entry.entry.is_present() {
        return Vec::new();
    }
    let mut files = Group::default();
    for (path, content) in entry.entry.files.iter().filter(|(path, _)| !entry.is_of_held(path)) {
        files.add(path, write(entry.observed, None, path, content));
    }
    let mut slices = Group::default();
    for slice in entry.entry.slices.iter().filter(|slice| entry.is_free(&slice.unit)) {
        slices.add_texts(entry, &slice.unit, &slice.text, None);
    }
    let mut services = Group::default();
    let mut links = Group::default();
    for service in entry.entry.services.iter().filter(|service| entry.is_free(&service.unit)) {
        services.add_texts(entry, &service.unit, &service.text, Some(&service.slice));
        links.add(&HostPath::enablement(&service.unit), link(entry.observed, &service.unit, &service.slice));
    }
    let mut steps = entry.stops_in_doubt();
    steps.extend(in_order([files, slices, services, links]));
    steps
}

/// Files of one kind, with what is to be done to some of them.
#[derive(Default)]
struct Group {
    directories: BTreeSet<HostPath>,
    steps: Vec<Step>,
}

impl Group {
    fn add(&mut self, path: &HostPath, step: Option<Step>) {
        self.directories.extend(lineage(path));
        self.steps.extend(step);
    }

    fn add_texts(&mut self, entry: &Entry<'_>, unit: &UnitName, text: &UnitText, slice: Option<&UnitName>) {
        let files = [(HostPath::drop_in(unit), &text.drop_in), (HostPath::fragment(unit), &text.fragment)];
        for (path, content) in files {
            let step = write(entry.observed, Some(unit), &path, content);
            self.add(&path, step.map(|step| step.after(slice.cloned())));
        }
        for path in taken_drop_ins(entry.entry, unit, entry.observed) {
            let step = Step::new(Class::Reload, Effect::Remove { path: path.clone() }).of(unit);
            self.add(path, Some(step.because(taken_finding(path))));
        }
    }
}

/// The groups one after the other. What stands before something that changes is made durable first even if it is right
/// already: whoever wrote it may have died before its name was durable, and a power cut must not leave a service without
/// its slice or its files.
fn in_order(groups: [Group; 4]) -> Vec<Step> {
    let last = groups.iter().rposition(|group| !group.steps.is_empty());
    let needed = groups.into_iter().take(last.map_or(0, |last| last + 1));
    let sync = |directory: HostPath| Step::new(Class::Live, Effect::Sync { directory });
    needed.flat_map(|Group { directories, steps }| steps.into_iter().chain(directories.into_iter().map(sync))).collect()
}

/// Removals, followed by what makes them durable. A directory that is being emptied may be removed itself: only those that
/// outlive it are sure to be there.
pub(super) fn with_syncs(mut removals: Vec<Step>) -> Vec<Step> {
    let removed = removals.iter().filter_map(|step| Some(step.effect.removed_path()?.directory()));
    let directories: BTreeSet<HostPath> =
        removed.filter(|directory| REMOVED_FROM.contains(&directory.as_str())).collect();
    removals.extend(directories.into_iter().map(|directory| Step::new(Class::Live, Effect::Sync { directory })));
    removals
}

/// The directories that may be new when a file is written: its own and those above it that are Lamina's or systemd's.
fn lineage(path: &HostPath) -> Vec<HostPath> {
    let mut directories = vec![path.directory()];
    while let Some(last) = directories.last().filter(|last| last.as_str() != UNIT_DIRECTORY && last.as_str() != "/etc")
    {
        let above = last.directory();
        if above.as_str() == "/" {
            break;
        }
        directories.push(above);
    }
    directories
}

fn write(observed: &ObservedHost, unit: Option<&UnitName>, path: &HostPath, content: &str) -> Option<Step> {
    let found = observed.files.get(path);
    let hand = match found {
        Some(ObservedFile::Regular { content: found }) if found == content.as_bytes() => return None,
        // Our own earlier text: what waited for a restart is due.
        Some(ObservedFile::Regular { content }) if is_intact(content) => Hand::Unknown,
        Some(_) => Hand::Edited,
        None => Hand::Removed,
    };
    let class = if found.is_none() { Class::Recreate } else { Class::Reload };
    let finding = file_finding(path, hand);
    let step = Step::new(class, Effect::Write { path: path.clone(), content: content.to_owned() }).because(finding);
    Some(match unit {
        Some(unit) => step.of(unit),
        None => step,
    })
}

fn taken_finding(path: &HostPath) -> Finding {
    let wanted = "nothing: it contradicts Lamina's text, and is saved".to_owned();
    Finding { found: "a foreign drop-in".to_owned(), wanted, ..file_finding(path, Hand::Edited) }
}

fn file_finding(path: &HostPath, hand: Hand) -> Finding {
    let found = if hand == Hand::Removed { "nothing" } else { "other content" };
    Finding {
        object: path.to_string(),
        subject: "file".to_owned(),
        found: found.to_owned(),
        wanted: "Lamina's content".to_owned(),
        hand,
    }
}

fn link(observed: &ObservedHost, unit: &UnitName, slice: &UnitName) -> Option<Step> {
    let path = HostPath::enablement(unit);
    if observed.files.contains_key(&path) {
        return None;
    }
    let finding = Finding { wanted: "a link that starts it at boot".to_owned(), ..file_finding(&path, Hand::Removed) };
    let effect = Effect::Link { path, target: format!("../{unit}") };
    Some(Step::new(Class::Reload, effect).of(unit).after([slice.clone()]).because(finding))
}

impl Entry<'_> {
    /// Units whose loaded state is not what stands on disk, or no longer on disk.
    pub(super) fn stale_units(&self) -> Vec<Finding> {
        let slices = self.entry.slices.iter().map(|slice| (&slice.unit, None));
        let services = self.entry.services.iter().map(|service| (&service.unit, Some(service)));
        let wanted = slices.chain(services).filter(|(unit, _)| self.entry.is_present() && self.is_free(unit));
        let stale = wanted.filter_map(|(unit, service)| {
            let seen = self.observed.units.get(unit);
            let why = seen.map_or(Some("not loaded".to_owned()), |seen| not_loaded(unit, seen, service))?;
            Some(stale_finding(unit, why))
        });
        let gone = self.observed.units.iter().filter(|(unit, seen)| self.outlives_its_file(unit, seen));
        let gone = gone.map(|(unit, _)| stale_finding(unit, "its file is gone and it is still loaded".to_owned()));
        stale.chain(gone).collect()
    }

    fn outlives_its_file(&self, unit: &UnitName, seen: &ObservedUnit) -> bool {
        let path = HostPath::fragment(unit);
        let wanted = self.entry.is_present() && self.entry.units().any(|wanted| wanted == unit);
        unit.belongs_to(self.name)
            && !wanted
            && seen.load_state == "loaded"
            && seen.fragment_path == path.as_str()
            && !self.observed.files.contains_key(&path)
    }
}

fn stale_finding(unit: &UnitName, found: String) -> Finding {
    Finding {
        object: unit.to_string(),
        subject: "loaded text".to_owned(),
        found,
        wanted: "the text on disk".to_owned(),
        hand: Hand::Unknown,
    }
}

/// Why systemd does not have our files of the unit loaded, if it has not.
fn not_loaded(unit: &UnitName, seen: &ObservedUnit, service: Option<&DesiredService>) -> Option<String> {
    let fragment = HostPath::fragment(unit);
    let drop_in = HostPath::drop_in(unit);
    if seen.load_state != "loaded" {
        return Some(format!("LoadState={}", seen.load_state));
    }
    if seen.fragment_path != fragment.as_str() {
        return Some(format!("FragmentPath={}", seen.fragment_path));
    }
    if !seen.drop_in_paths.iter().any(|path| path == drop_in.as_str()) {
        return Some("without Lamina's drop-in".to_owned());
    }
    let service = service?;
    if seen.loaded_text.as_ref() != Some(&service.digests) {
        return Some("another text".to_owned());
    }
    (service.numa.is_some() && seen.numa != service.numa).then(|| "another NUMA policy".to_owned())
}

/// Units of which systemd does not have our text loaded.
pub fn stale(desired: &DesiredHost, observed: &ObservedHost, held: &crate::preflight::Held) -> Vec<Finding> {
    let entries = desired.entries.iter().filter(|(name, _)| !held.entries.contains_key(*name));
    entries.flat_map(|(name, entry)| Entry { name, entry, observed, held }.stale_units()).collect()
}

/// Drop-ins on a unit that are neither ours nor what the distribution ships for a whole type of unit.
pub fn foreign_drop_ins<'a>(unit: &'a UnitName, observed: &'a ObservedHost) -> impl Iterator<Item = &'a HostPath> {
    let ours = HostPath::drop_in(unit);
    observed.files.keys().filter(move |path| {
        **path != ours && is_drop_in(path) && reaches(&path.directory(), unit) && !is_push(path, unit)
    })
}

/// Those of the foreign drop-ins that come after ours and speak of a managed setting: after the next reload they win.
pub fn outranking<'a>(unit: &'a UnitName, observed: &'a ObservedHost) -> impl Iterator<Item = &'a HostPath> {
    foreign_drop_ins(unit, observed).filter(|path| {
        let Some(ObservedFile::Regular { content }) = observed.files.get(*path) else { return false };
        let text = String::from_utf8_lossy(content);
        let keys = || Property::ALL.iter().map(|property| property.key()).chain(crate::numa::KEYS);
        let managed = |line: &str| keys().any(|key| line.trim_start().starts_with(key));
        path.name() > DROP_IN && text.lines().any(managed)
    })
}

fn is_drop_in(path: &HostPath) -> bool {
    path.as_str().ends_with(".conf") && !path.name().starts_with('.') && path.directory().as_str().ends_with(".d")
}

/// Whether drop-ins of this directory count for the unit: its own, those of its name's prefixes, those of its type.
/// systemd.unit(5).
fn reaches(directory: &HostPath, unit: &UnitName) -> bool {
    let Some(name) = directory.name().strip_suffix(".d") else { return false };
    let (stem, kind) = unit.as_str().rsplit_once('.').unwrap_or((unit.as_str(), ""));
    let prefix = name.strip_suffix(&format!("-.{kind}")).is_some_and(|prefix| stem.starts_with(&format!("{prefix}-")));
    let type_wide = name == kind && !directory.as_str().starts_with("/usr/");
    name == unit.as_str() || prefix || type_wide
}

/// Values pushed at run time belong to the values, not to the files.
fn is_push(path: &HostPath, unit: &UnitName) -> bool {
    path.as_str().starts_with(RUNTIME_CONTROL)
        && Property::ALL.iter().any(|property| *path == HostPath::runtime_push(unit, *property))
}

/// Whether the path lies where a topology's delivered files lie.
pub(super) fn is_delivered(path: &HostPath, topology: &lamina_crds::TopologyName) -> bool {
    path.directory().as_str() == format!("{FILES}/{topology}")
}
