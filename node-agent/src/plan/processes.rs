//! Decides which slices and services must start, and which services must start anew.

use lamina_crds::UnitName;
use lamina_crds::slice_topology::OnChange;

use super::{Class, Effect, Entry, Finding, Hand, Step};
use crate::desired::{DesiredService, DesiredSlice};
use crate::observed::ObservedUnit;
use crate::takeover::{Runs, adopted_process};

/// Slices first, then services in their order. What is already on its way is left to systemd.
pub(super) fn steps(entry: &Entry<'_>) -> Vec<Step> {
    if !entry.entry.is_present() {
        return Vec::new();
    }
    let slices = entry.entry.slices.iter().filter(|slice| entry.is_free(&slice.unit));
    let services = entry
        .entry
        .services
        .iter()
        .filter(|service| entry.is_free(&service.unit) && !entry.held.waiting.contains(&service.unit));
    let slices = slices.filter_map(|slice| start_slice(slice, entry.observed.units.get(&slice.unit)?));
    let services = services.flat_map(|service| match entry.observed.units.get(&service.unit) {
        Some(seen) => service_steps(service, seen),
        None => Vec::new(),
    });
    slices.chain(services).collect()
}

fn start_slice(slice: &DesiredSlice, seen: &ObservedUnit) -> Option<Step> {
    let unit = &slice.unit;
    (seen.active_state != "active").then(|| {
        let finding = state_finding(unit, seen, Hand::Unknown);
        Step::new(Class::Recreate, Effect::Start { unit: unit.clone() }).of(unit).because(finding)
    })
}

fn service_steps(service: &DesiredService, seen: &ObservedUnit) -> Vec<Step> {
    let unit = service.unit.clone();
    let step = |effect| Step::new(Class::Restart, effect).of(&service.unit).after([service.slice.clone()]);
    let start = Effect::Start { unit: unit.clone() };
    match seen.active_state.as_str() {
        "inactive" => {
            let hand = if seen.result == "success" { Hand::Stopped } else { Hand::Unknown };
            vec![step(start).because(state_finding(&unit, seen, hand))]
        }
        "failed" => {
            let finding = state_finding(&unit, seen, Hand::Unknown);
            vec![step(Effect::ResetFailed { unit }).because(finding), step(start)]
        }
        "active" | "reloading" => match (out_of_date(service, seen), service.on_change) {
            (Some(finding), OnChange::Restart) => vec![step(Effect::Restart { unit }).because(finding)],
            (Some(_), OnChange::Never) | (None, _) => Vec::new(),
        },
        // It ended and systemd will start it again, with the text that is loaded now; a stale one must not wait for that.
        "activating" if seen.sub_state == "auto-restart" => {
            let stale = seen.started_from.as_ref().is_some_and(|from| from.start != service.digests.start);
            match (stale, service.on_change) {
                (true, OnChange::Restart) => {
                    vec![step(Effect::Restart { unit }).because(state_finding(&service.unit, seen, Hand::Unknown))]
                }
                (true, OnChange::Never) | (false, _) => Vec::new(),
            }
        }
        _ => Vec::new(),
    }
}

fn state_finding(unit: &UnitName, seen: &ObservedUnit, hand: Hand) -> Finding {
    Finding {
        object: unit.to_string(),
        subject: "process".to_owned(),
        found: seen.active_state.clone(),
        wanted: "active".to_owned(),
        hand,
    }
}

/// What is found of a process that may have been started from other files than those that are asked for.
pub(super) const DOUBT: &str = "perhaps started from an edited file";

/// Why the running process is not the one that is asked for, if it is not: it was started from another text, or it sits
/// in another cgroup. Nothing short of a restart changes either.
fn out_of_date(service: &DesiredService, seen: &ObservedUnit) -> Option<Finding> {
    let finding = |subject: &str, found: String, wanted: String, hand| Finding {
        object: service.unit.to_string(),
        subject: subject.to_owned(),
        found,
        wanted,
        hand,
    };
    let from = seen.started_from.as_ref().map(|digests| digests.start.clone());
    if from.as_ref() != Some(&service.digests.start) {
        let found = from.unwrap_or_else(|| unknown_text(service, seen));
        return Some(finding("started text", found, service.digests.start.clone(), Hand::Unknown));
    }
    if service.doubted.as_ref() == Some(&seen.invocation) {
        let wanted = service.digests.start.clone();
        return Some(finding("started text", DOUBT.to_owned(), wanted, Hand::Unknown));
    }
    if !seen.control_group.is_empty() && !sits_in(&service.unit, &service.slice, seen) {
        return Some(finding("cgroup", seen.control_group.clone(), service.slice.to_string(), Hand::Unknown));
    }
    (seen.threads.strayed > 0).then(|| {
        let found = format!("{} processes outside its cgroup", seen.threads.strayed);
        finding("cgroup", found, service.slice.to_string(), Hand::Moved)
    })
}

fn unknown_text(service: &DesiredService, seen: &ObservedUnit) -> String {
    match adopted_process(service, seen).map(|adopted| &adopted.runs) {
        Some(Runs::Otherwise(differences)) => format!("of its former file ({})", differences.join(", ")),
        Some(Runs::AsAsked | Runs::Waiting(_)) | None => "an unknown text".to_owned(),
    }
}

/// Whether the unit's cgroup is the one that its slice gives it.
pub fn sits_in(unit: &UnitName, slice: &UnitName, seen: &ObservedUnit) -> bool {
    seen.control_group.ends_with(&format!("/{slice}/{unit}"))
}

/// Whether a running service waits for a restart that nothing will do by itself: its text changed under
/// `onChange: Never`, or a derived value changed.
pub fn waits_for_restart(service: &DesiredService, seen: &ObservedUnit) -> bool {
    let derived = seen.started_from.as_ref().is_some_and(|from| from.derived != service.digests.derived);
    derived || (service.on_change == OnChange::Never && out_of_date(service, seen).is_some())
}
