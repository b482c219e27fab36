//! Decides whether an entry is true in every layer, by what was measured and by nothing else.

use lamina_crds::{Hardware, UnitName};

use crate::desired::{DesiredEntry, DesiredService, DesiredSlice};
use crate::observed::{ObservedHost, ObservedUnit};
use crate::plan::{differences, sits_in};

/// What the measurement says about one entry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verification {
    /// What is not as asked: the unit, and a sentence.
    pub faults: Vec<(UnitName, String)>,
    /// Slices some of whose CPUs are offline, each as a sentence.
    pub offline: Vec<String>,
}

impl Verification {
    /// Whether nothing is wrong with this unit.
    pub fn clears(&self, unit: &UnitName) -> bool {
        self.faults.iter().all(|(faulty, _)| faulty != unit)
    }
}

/// Compares what is asked with systemd, the cgroups and every thread.
pub fn verify(entry: &DesiredEntry, observed: &ObservedHost, hardware: &Hardware) -> Verification {
    let mut verification = Verification::default();
    for slice in &entry.slices {
        let seen = observed.units.get(&slice.unit);
        let faults = seen.map_or_else(|| vec![not_seen(&slice.unit)], |seen| slice_faults(slice, seen, hardware));
        verification.faults.extend(faults.into_iter().map(|fault| (slice.unit.clone(), fault)));
        verification.offline.extend(offline(slice, hardware));
    }
    for service in &entry.services {
        let slice = entry.slices.iter().find(|slice| slice.unit == service.slice);
        let seen = observed.units.get(&service.unit);
        let faults = match (seen, slice) {
            (Some(seen), Some(slice)) => service_faults(service, slice, seen),
            (None, _) | (_, None) => vec![not_seen(&service.unit)],
        };
        verification.faults.extend(faults.into_iter().map(|fault| (service.unit.clone(), fault)));
    }
    verification
}

fn not_seen(unit: &UnitName) -> String {
    format!("{unit} is not loaded")
}

fn offline(slice: &DesiredSlice, hardware: &Hardware) -> Option<String> {
    let asked = slice.cpus.as_ref()?;
    let missing = asked.difference(&hardware.cpus.online);
    (!missing.is_empty()).then(|| {
        let (left, all) = (asked.intersection(&hardware.cpus.online).len(), asked.len());
        format!("{}: CPU {missing} is offline, {left} of {all} CPUs are left; switch it on", slice.unit)
    })
}

fn slice_faults(slice: &DesiredSlice, seen: &ObservedUnit, hardware: &Hardware) -> Vec<String> {
    let unit = &slice.unit;
    if seen.active_state != "active" {
        return vec![format!("{unit} is {}", seen.active_state)];
    }
    let mut faults = value_faults(unit, seen, &slice.properties);
    if let Some(asked) = &slice.cpus {
        let possible = asked.intersection(&hardware.cpus.online);
        if seen.effective_cpus.as_ref() != Some(&possible) {
            let given = seen.effective_cpus.as_ref().map_or("nothing".to_owned(), |cpus| format!("`{cpus}`"));
            faults
                .push(format!("{unit}: CPUs {asked} are asked, the kernel gives {given}; look at the slices above it"));
        }
    }
    if let Some(asked) = &slice.memory_nodes
        && seen.effective_memory_nodes.as_ref() != Some(asked)
    {
        let given = seen.effective_memory_nodes.as_ref().map_or("nothing".to_owned(), |nodes| format!("`{nodes}`"));
        faults.push(format!("{unit}: memory nodes {asked} are asked, the kernel gives {given}"));
    }
    faults
}

fn value_faults(unit: &UnitName, seen: &ObservedUnit, properties: &crate::property::Properties) -> Vec<String> {
    if seen.control_group.is_empty() {
        return vec![format!("{unit} has no cgroup")];
    }
    let told = |difference: crate::plan::Difference| {
        let found = difference.found.map_or("nothing".to_owned(), |value| value.to_string());
        let wanted = difference.wanted.to_string();
        format!("{unit}: {}={wanted} is asked, {found} is found", difference.property.key())
    };
    differences(seen, properties).into_iter().map(told).collect()
}

fn service_faults(service: &DesiredService, slice: &DesiredSlice, seen: &ObservedUnit) -> Vec<String> {
    let unit = &service.unit;
    if !crate::health::is_up(seen) {
        return vec![format!("{unit} is {} ({})", seen.active_state, seen.sub_state)];
    }
    let mut faults = value_faults(unit, seen, &service.properties);
    if let Some(asked) = service.numa.as_ref().filter(|asked| seen.numa.as_ref() != Some(asked)) {
        let found = seen.numa.as_ref().map_or("nothing".to_owned(), ToString::to_string);
        faults.push(format!("{unit}: {asked} is asked, {found} is found; look for drop-ins that set it"));
    }
    if !sits_in(unit, &slice.unit, seen) {
        faults.push(format!("{unit} runs in {} instead of {}", seen.control_group, slice.unit));
    }
    let threads = &seen.threads;
    if threads.count == 0 {
        faults.push(format!("{unit}: none of its threads can be seen"));
    }
    if threads.strayed > 0 {
        faults.push(format!("{unit}: {} of its processes sit in another cgroup", threads.strayed));
    }
    let cpus = slice.cpus.as_ref().map(|cpus| threads.cpus.difference(cpus)).filter(|outside| !outside.is_empty());
    if let Some(outside) = cpus {
        faults.push(format!("{unit}: a thread may run on CPUs {outside}, outside {}", slice.unit));
    }
    let nodes = slice.memory_nodes.as_ref().map(|nodes| threads.memory_nodes.difference(nodes));
    if let Some(outside) = nodes.filter(|outside| !outside.is_empty()) {
        faults.push(format!("{unit}: a thread may use memory node {outside}, outside {}", slice.unit));
    }
    faults
}
