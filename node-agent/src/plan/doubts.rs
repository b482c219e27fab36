//! Decides of which running processes nobody can tell what they read of the delivered files, and which are known.
//!
//! A process carries the digests of the text it was started from, but a delivered file may have held something else than
//! that text names: somebody edited it, or the process was started after a newer file was written and before the text that
//! goes with it was loaded. Once the files are put right nothing tells, so it is noted durably before.

use std::collections::{BTreeMap, BTreeSet};

use lamina_crds::host_state::digest_of_bytes;
use lamina_crds::slice_topology::OnChange;
use lamina_crds::{TopologyName, UnitName};

use super::processes::DOUBT;
use super::{Class, Effect, Entry, Finding, Hand, Step};
use crate::desired::{DesiredHost, DesiredService};
use crate::host_path::HostPath;
use crate::observed::{ObservedFile, ObservedHost, ObservedUnit};
use crate::preflight::Held;
use crate::takeover::adopted_process;

/// What must be stored about the running processes of a topology before its files are changed: units with invocations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notes {
    /// Those that may have been started from other files than those that are asked for, and that are not known for it yet.
    pub doubted: BTreeMap<UnitName, String>,
    /// Those that were started before a file they read is changed: whatever comes, they never read the new one.
    pub seen: BTreeMap<UnitName, String>,
}

/// What must be stored before anything is changed, by topology.
pub fn notes(desired: &DesiredHost, observed: &ObservedHost, held: &Held) -> BTreeMap<TopologyName, Notes> {
    let present = desired.entries.iter().filter(|(_, entry)| entry.is_present());
    let free = present.filter(|(name, _)| !held.entries.contains_key(*name) && !desired.paused.contains(*name));
    let found = free.map(|(name, entry)| (name.clone(), Entry { name, entry, observed, held }.notes()));
    found.filter(|(_, notes)| *notes != Notes::default()).collect()
}

/// Whether a service in doubt is stopped before its files are put right, so that whatever happens then it starts from
/// them. One that is out of date anyway is not: should its files stay as they are, it must not be down for that.
fn is_stopped(service: &DesiredService, seen: &ObservedUnit) -> bool {
    service.on_change == OnChange::Restart && seen.started_from.as_ref() == Some(&service.digests)
}

impl Entry<'_> {
    fn notes(&self) -> Notes {
        let invocations =
            |(service, seen): (&DesiredService, &ObservedUnit)| (service.unit.clone(), seen.invocation.clone());
        let new =
            |(service, seen): &(&DesiredService, &ObservedUnit)| service.doubted.as_ref() != Some(&seen.invocation);
        let doubted: BTreeMap<UnitName, String> = self.in_doubt().filter(new).map(invocations).collect();
        let wrong = self.wrong();
        let running = self.running().filter(|(service, seen)| {
            let is_noted = [&service.seen, &service.doubted].contains(&&Some(seen.invocation.clone()));
            !is_noted && !doubted.contains_key(&service.unit) && wrong.iter().any(|path| reads(service, path))
        });
        let seen = running.map(invocations).collect();
        Notes { doubted, seen }
    }

    /// Services that have a process. One that is held now is let go some day, and its process has read files of others, too.
    fn running(&self) -> impl Iterator<Item = (&DesiredService, &ObservedUnit)> {
        let units =
            self.entry.services.iter().filter_map(|service| Some((service, self.observed.units.get(&service.unit)?)));
        units.filter(|(_, seen)| seen.main_pid != 0)
    }

    /// Delivered files that are not as asked.
    fn wrong(&self) -> Vec<&HostPath> {
        self.entry.files.keys().filter(|path| self.is_wrong(path)).collect()
    }

    /// Services whose process nobody has seen before and that may have been started from other files than its text names.
    fn in_doubt(&self) -> impl Iterator<Item = (&DesiredService, &ObservedUnit)> {
        self.running().filter(|(service, seen)| {
            // A process that was started from foreign text never read Lamina's files.
            let is_unseen = self.held.unknown.contains(&service.unit) && adopted_process(service, seen).is_none();
            is_unseen
                && self.entry.files.keys().any(|path| reads(service, path) && self.leaves_doubt(service, seen, path))
        })
    }

    /// Whether a process may have read something of a file that its text does not name: the file is not as asked, and
    /// either the text is the one that is asked for, or nobody asked for such a file; or what was asked for changed since
    /// the host was last as asked, and the text may be of before and the file of after.
    fn leaves_doubt(&self, service: &DesiredService, seen: &ObservedUnit, path: &HostPath) -> bool {
        let from = seen.started_from.as_ref();
        let is_current = from == Some(&service.digests);
        let is_wrong = self.is_wrong(path) && (is_current || self.is_strange(path));
        is_wrong || (from.is_some_and(|from| from.start != service.digests.start) && self.has_changed(path))
    }

    fn is_wrong(&self, path: &HostPath) -> bool {
        let wanted = self.entry.files.get(path).map(String::as_bytes);
        !self.is_of_held(path) && found(self.observed, path) != wanted
    }

    /// Whether what stands at a delivered file's path was never asked for, as far as that is known.
    fn is_strange(&self, path: &HostPath) -> bool {
        let digest = found(self.observed, path).map(digest_of_bytes);
        let is_known = |digests: &BTreeSet<String>| digest.is_some_and(|digest| digests.contains(&digest));
        self.entry.formerly.get(path).is_some_and(|digests| !is_known(digests))
    }

    /// Whether something else than what stands at a delivered file's path was asked for since the host was last as asked.
    fn has_changed(&self, path: &HostPath) -> bool {
        let digest = found(self.observed, path).map(digest_of_bytes);
        let formerly = self.entry.formerly.get(path);
        formerly.is_some_and(|digests| digests.iter().any(|other| digest.as_ref() != Some(other)))
    }

    /// Whether the path is a held service's own environment.
    pub(super) fn is_of_held(&self, path: &HostPath) -> bool {
        self.held.units.keys().any(|unit| HostPath::own_environment(self.name, unit) == *path)
    }

    pub(super) fn stops_in_doubt(&self) -> Vec<Step> {
        let stop = |service: &DesiredService| {
            let finding = Finding {
                object: service.unit.to_string(),
                subject: "started text".to_owned(),
                found: DOUBT.to_owned(),
                wanted: service.digests.start.clone(),
                hand: Hand::Unknown,
            };
            let effect = Effect::Stop { unit: service.unit.clone() };
            Step::new(Class::Restart, effect).of(&service.unit).because(finding)
        };
        let stopped = |(service, seen): &(&DesiredService, &ObservedUnit)| {
            self.is_free(&service.unit) && is_stopped(service, seen)
        };
        self.in_doubt().filter(stopped).map(|(service, _)| stop(service)).collect()
    }
}

/// Whether the service's text names the file as one of its environment.
fn reads(service: &DesiredService, path: &HostPath) -> bool {
    service.text.fragment.contains(path.as_str())
}

/// The content of the regular file at a path.
fn found<'a>(observed: &'a ObservedHost, path: &HostPath) -> Option<&'a [u8]> {
    match observed.files.get(path)? {
        ObservedFile::Regular { content } => Some(content),
        ObservedFile::Link { .. } | ObservedFile::Other { .. } => None,
    }
}
