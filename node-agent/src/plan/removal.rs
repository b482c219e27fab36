//! Decides how units, links and files of ours that are no longer asked for go: services first, in reverse order.

use std::collections::BTreeSet;

use lamina_crds::{UnitKind, UnitName};

use super::disk::{is_delivered, with_syncs};
use super::{Class, Effect, Entry, Finding, Hand, Step};
use crate::host_path::{FILES, HostPath, UNIT_DIRECTORY};
use crate::marker::{Mark, mark};
use crate::observed::{ObservedFile, ObservedUnit};
use crate::preflight::points_at;

/// Stops and removes units of ours that are not wanted. A slice goes only when nothing runs in it any more.
pub(super) fn steps(entry: &Entry<'_>) -> Vec<Step> {
    let gone = entry.unwanted();
    let (slices, services): (Vec<_>, Vec<_>) = gone.into_iter().partition(|unit| unit.kind() == UnitKind::Slice);
    let services = in_reverse_start_order(entry, services);
    // In order of name a slice comes before the one above it.
    let slices: Vec<UnitName> = slices.into_iter().filter(|slice| entry.is_empty_without(slice, &services)).collect();
    let stops = services.iter().filter_map(|unit| entry.stop(unit));
    let slice_stops = slices.iter().filter_map(|unit| entry.stop(unit)).map(|step| step.after(services.clone()));
    let removals: Vec<Step> = services.iter().flat_map(|unit| entry.remove(unit)).collect();
    let slice_removals =
        slices.iter().flat_map(|unit| entry.remove(unit)).map(|step| step.after(services.clone())).collect();
    let stops: Vec<Step> = stops.chain(slice_stops).collect();
    [stops, with_syncs(removals), with_syncs(slice_removals)].concat()
}

/// Removes delivered files that are no longer asked for, and what a crash left on its way.
pub(super) fn leftovers(entry: &Entry<'_>) -> Vec<Step> {
    let wanted = |path: &HostPath| entry.entry.is_present() && entry.entry.files.contains_key(path);
    let delivered = entry.observed.files.keys().filter(|path| {
        let ours = entry.entry.written.contains(path) || entry.entry.files.contains_key(path);
        is_delivered(path, entry.name) && ours && !wanted(path)
    });
    let staged = entry.observed.files.keys().filter(|path| {
        let of_unit = path.staged_unit().is_some_and(|unit| unit.belongs_to(entry.name));
        path.is_staging()
            && (of_unit || is_delivered(path, entry.name) || entry.is_drop_in_directory(&path.directory()))
    });
    let mut steps: Vec<Step> = delivered.chain(staged).map(removal).collect();
    let own = HostPath::new(format!("{FILES}/{}", entry.name));
    let removed: BTreeSet<&HostPath> = steps.iter().filter_map(|step| step.effect.removed_path()).collect();
    let inside = entry.observed.files.keys().filter(|path| is_delivered(path, entry.name));
    let emptied =
        !removed.is_empty() && inside.clone().count() > 0 && inside.clone().all(|path| removed.contains(path));
    if !entry.entry.is_present() && emptied {
        steps.push(removal(&own));
        steps.push(Step::new(Class::Live, Effect::Sync { directory: own.directory() }));
    }
    steps
}

fn removal(path: &HostPath) -> Step {
    Step::new(Class::Live, Effect::Remove { path: path.clone() })
}

fn in_reverse_start_order(entry: &Entry<'_>, mut services: Vec<UnitName>) -> Vec<UnitName> {
    let place = |unit: &UnitName| entry.entry.services.iter().position(|service| service.unit == *unit);
    services.sort_by_key(|unit| std::cmp::Reverse((place(unit), unit.clone())));
    services
}

impl Entry<'_> {
    /// Units of ours, by their files or because they run what we wrote, that should not be there.
    fn unwanted(&self) -> BTreeSet<UnitName> {
        let wanted: BTreeSet<&UnitName> = self.entry.units().filter(|_| self.entry.is_present()).collect();
        let by_file = self.observed.files.keys().filter_map(|path| self.owner(path, &wanted));
        let by_process = self.observed.units.iter().filter(|(unit, seen)| {
            let known = self.entry.written.contains(&HostPath::fragment(unit)) || seen.started_from.is_some();
            unit.belongs_to(self.name) && known && runs(seen) && seen.fragment_path.is_empty()
        });
        let found: BTreeSet<UnitName> = by_file.chain(by_process.map(|(unit, _)| unit.clone())).collect();
        found.into_iter().filter(|unit| !wanted.contains(unit)).collect()
    }

    /// The unwanted unit whose file of ours this is.
    fn owner(&self, path: &HostPath, wanted: &BTreeSet<&UnitName>) -> Option<UnitName> {
        let unit = path.unit().filter(|unit| unit.belongs_to(self.name) && !wanted.contains(unit))?;
        let ours = [HostPath::fragment(&unit), HostPath::drop_in(&unit), HostPath::enablement(&unit)].contains(path);
        (ours && self.is_ours(path, &unit)).then_some(unit)
    }

    fn is_ours(&self, path: &HostPath, unit: &UnitName) -> bool {
        match self.observed.files.get(path) {
            Some(ObservedFile::Regular { content }) => match mark(self.name, content) {
                Mark::Intact | Mark::Damaged => true,
                Mark::Empty => self.entry.written.contains(path),
                Mark::Foreign => false,
            },
            Some(ObservedFile::Link { target }) => {
                let fragment = HostPath::fragment(unit);
                *path == HostPath::enablement(unit)
                    && points_at(target, unit)
                    && (!self.observed.files.contains_key(&fragment) || self.is_ours(&fragment, unit))
            }
            Some(ObservedFile::Other { .. }) | None => false,
        }
    }

    fn stop(&self, unit: &UnitName) -> Option<Step> {
        let seen = self.observed.units.get(unit)?;
        let effect = match runs(seen) {
            true => Effect::Stop { unit: unit.clone() },
            false if seen.active_state == "failed" => Effect::ResetFailed { unit: unit.clone() },
            false => return None,
        };
        let finding = Finding {
            object: unit.to_string(),
            subject: "unit".to_owned(),
            found: seen.active_state.clone(),
            wanted: "nothing".to_owned(),
            hand: Hand::Unknown,
        };
        Some(Step::new(Class::Recreate, effect).of(unit).because(finding))
    }

    /// The link first, so that a boot in between does not start what is going.
    fn remove(&self, unit: &UnitName) -> Vec<Step> {
        let paths = [HostPath::enablement(unit), HostPath::fragment(unit), HostPath::drop_in(unit)];
        let ours = paths.into_iter().filter(|path| self.is_ours(path, unit));
        let mut steps: Vec<Step> = ours.map(|path| removal(&path).of(unit)).collect();
        let drop_in = HostPath::drop_in(unit);
        let directory = drop_in.directory();
        let alone = |path: &HostPath| path.directory() != directory || *path == drop_in;
        if self.observed.files.contains_key(&drop_in) && self.observed.files.keys().all(alone) {
            steps.push(removal(&directory).of(unit));
        }
        steps
    }

    /// Whether nothing runs in the slice apart from services that are stopped before.
    fn is_empty_without(&self, slice: &UnitName, stopped: &[UnitName]) -> bool {
        let inside = format!("/{slice}/");
        self.observed.units.iter().all(|(unit, seen)| {
            unit.kind() == UnitKind::Slice
                || !runs(seen)
                || stopped.contains(unit)
                || !seen.control_group.contains(&inside)
        })
    }

    fn is_drop_in_directory(&self, directory: &HostPath) -> bool {
        let unit = directory.name().strip_suffix(".d").and_then(|name| UnitName::new(name).ok());
        directory.directory().as_str() == UNIT_DIRECTORY && unit.is_some_and(|unit| unit.belongs_to(self.name))
    }
}

fn runs(seen: &ObservedUnit) -> bool {
    ["active", "activating", "deactivating", "reloading"].contains(&seen.active_state.as_str())
}
