//! Decides which live values systemd or the kernel must be told again.

use lamina_crds::{CpuSet, UnitName};

use super::processes::sits_in;
use super::{Class, Effect, Entry, Finding, Hand, Step};
use crate::desired::DesiredSlice;
use crate::host_path::{HostPath, PERSISTENT_CONTROL};
use crate::observed::{ObservedHost, ObservedUnit};
use crate::property::{Properties, Property, Value};

/// Sets what differs, and removes the files that this, or somebody's `set-property --runtime`, leaves behind.
pub(super) fn steps(entry: &Entry<'_>) -> Vec<Step> {
    if !entry.entry.is_present() {
        return Vec::new();
    }
    let slices = entry.entry.slices.iter().map(|slice| (&slice.unit, &slice.properties));
    let services = entry.entry.services.iter().map(|service| (&service.unit, &service.properties));
    let units = slices.chain(services).filter(|(unit, _)| entry.is_free(unit));
    let set = units.flat_map(|(unit, properties)| set(entry.observed, unit, properties));
    let stuck =
        entry.entry.slices.iter().filter(|slice| entry.is_free(&slice.unit)).flat_map(|slice| unstick(entry, slice));
    set.chain(stuck).collect()
}

/// One value that is not as asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Which.
    pub property: Property,
    /// Where it was found; systemd's own where both differ.
    pub layer: Layer,
    /// What was found; `None` if nothing is there.
    pub found: Option<Value>,
    /// What was asked.
    pub wanted: Value,
}

/// Where a value was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layer {
    /// systemd's property.
    Systemd,
    /// The cgroup file.
    Kernel,
}

/// The managed values of a unit that are not as asked, in systemd or in the kernel.
pub fn differences(seen: &ObservedUnit, properties: &Properties) -> Vec<Difference> {
    let differing = properties.iter().filter_map(|(property, wanted)| {
        let found = seen.loaded.get(property);
        let differing = |layer, found: Option<&Value>| {
            Some(Difference { property: *property, layer, found: found.cloned(), wanted: wanted.clone() })
        };
        if found != Some(wanted) && !(found.is_none() && *wanted == Value::Default) {
            return differing(Layer::Systemd, found);
        }
        let kernel = seen.kernel.get(property);
        let as_asked = match kernel {
            Some(kernel) => *kernel == property.in_kernel(wanted),
            // Without a cgroup there is nothing to compare; without the file nothing limits.
            None => seen.control_group.is_empty() || is_unset(*property, wanted),
        };
        if as_asked { None } else { differing(Layer::Kernel, kernel) }
    });
    differing.collect()
}

fn is_unset(property: Property, value: &Value) -> bool {
    match value {
        Value::Infinity | Value::Default => true,
        Value::Number(0) => matches!(property, Property::MemoryMin | Property::MemoryLow),
        Value::Number(_) | Value::Cpus(_) | Value::Nodes(_) => false,
    }
}

fn set(observed: &ObservedHost, unit: &UnitName, properties: &Properties) -> Vec<Step> {
    let Some(seen) = observed.units.get(unit).filter(|seen| seen.load_state == "loaded") else { return Vec::new() };
    let differing = differences(seen, properties);
    let mut steps = Vec::new();
    if !differing.is_empty() {
        let values = differing.iter().map(|difference| (difference.property, difference.wanted.clone())).collect();
        let mut step = Step::new(Class::Live, Effect::Set { unit: unit.clone(), properties: values }).of(unit);
        step.findings = differing.iter().map(|difference| finding(observed, unit, difference)).collect();
        steps.push(step);
    }
    let made = |property: &Property| differing.iter().any(|difference| difference.property == *property);
    let pushes = properties
        .keys()
        .filter(|property| made(property) || observed.files.contains_key(&HostPath::runtime_push(unit, **property)));
    let pushes: Vec<HostPath> = pushes.map(|property| HostPath::runtime_push(unit, *property)).collect();
    steps.extend(forget(observed, unit, &pushes));
    steps
}

/// Removes drop-ins of pushes, and their directory if nobody else uses it.
fn forget(observed: &ObservedHost, unit: &UnitName, pushes: &[HostPath]) -> Vec<Step> {
    let remove = |path: HostPath| Step::new(Class::Live, Effect::Remove { path }).of(unit);
    let mut steps: Vec<Step> = pushes.iter().cloned().map(remove).collect();
    let Some(directory) = pushes.first().map(HostPath::directory) else { return steps };
    let others = observed.files.keys().any(|path| path.directory() == directory && !pushes.contains(path));
    if !others {
        steps.push(remove(directory));
    }
    steps
}

fn finding(observed: &ObservedHost, unit: &UnitName, difference: &Difference) -> Finding {
    let Difference { property, layer, found, wanted } = difference;
    let pushed = HostPath::runtime_push(unit, *property);
    let kept = HostPath::new(format!("{PERSISTENT_CONTROL}/{unit}.d/50-{}.conf", property.key()));
    let hand = match layer {
        Layer::Kernel => Hand::CgroupWrite,
        Layer::Systemd if [pushed, kept].iter().any(|path| observed.files.contains_key(path)) => Hand::SetProperty,
        Layer::Systemd => Hand::Unknown,
    };
    let subject = match layer {
        Layer::Kernel => property.cgroup_file(),
        Layer::Systemd => property.key(),
    };
    Finding {
        object: unit.to_string(),
        subject: subject.to_owned(),
        found: found.as_ref().map_or("nothing".to_owned(), shown),
        wanted: shown(wanted),
        hand,
    }
}

/// The value for a message; an empty one says so.
pub(super) fn shown(value: &Value) -> String {
    let text = value.to_string();
    if text.is_empty() { "unset".to_owned() } else { text }
}

/// Threads can sit outside a cpuset whose file says the right thing: the kernel tells them only of changes. A range that
/// differs and then the right one moves them.
fn unstick(entry: &Entry<'_>, slice: &DesiredSlice) -> Vec<Step> {
    let Some(seen) = entry.observed.units.get(&slice.unit) else { return Vec::new() };
    if !differences(seen, &slice.properties).is_empty() {
        return Vec::new();
    }
    let services = entry.entry.services.iter().filter(|service| service.slice == slice.unit);
    let inside = services.filter_map(|service| {
        let seen = entry.observed.units.get(&service.unit)?;
        (seen.threads.strayed == 0 && sits_in(&service.unit, &slice.unit, seen))
            .then_some((&service.unit, &seen.threads))
    });
    for (service, threads) in inside {
        if let Some(wanted) = slice.cpus.as_ref() {
            let outside = threads.cpus.difference(wanted);
            if let Some(neighbour) = outside.first() {
                let values = [Value::Cpus(another(wanted, seen, neighbour)), Value::Cpus(wanted.clone())];
                return nudge(entry, slice, Property::AllowedCpus, values, service, outside.to_string());
            }
        }
        if let Some(wanted) = slice.memory_nodes.as_ref() {
            let outside = threads.memory_nodes.difference(wanted);
            if let Some(neighbour) = outside.first() {
                let mut wider = wanted.clone();
                wider.insert(neighbour);
                let values = [Value::Nodes(wider), Value::Nodes(wanted.clone())];
                return nudge(entry, slice, Property::AllowedMemoryNodes, values, service, outside.to_string());
            }
        }
    }
    Vec::new()
}

/// CPUs that differ from the wanted ones: one fewer, so that nobody gets what was not asked for; one more only where
/// none can be missed.
fn another(wanted: &CpuSet, seen: &ObservedUnit, neighbour: u32) -> CpuSet {
    let mut other = wanted.clone();
    let usable = seen.effective_cpus.as_ref().map(|effective| effective.intersection(wanted)).unwrap_or_default();
    match usable.first().filter(|_| usable.len() > 1) {
        Some(missed) => other.remove(missed),
        None => other.insert(neighbour),
    }
    other
}

fn nudge(
    entry: &Entry<'_>,
    slice: &DesiredSlice,
    property: Property,
    values: [Value; 2],
    service: &UnitName,
    outside: String,
) -> Vec<Step> {
    let unit = &slice.unit;
    let finding = Finding {
        object: service.to_string(),
        subject: "threads".to_owned(),
        found: format!("allowed on {outside}"),
        wanted: format!("{}={}", property.key(), values[1]),
        hand: Hand::Unknown,
    };
    let set = values.into_iter().map(|value| {
        let properties = Properties::from([(property, value)]);
        Step::new(Class::Live, Effect::Set { unit: unit.clone(), properties }).of(unit)
    });
    let mut steps: Vec<Step> = set.collect();
    steps[0].findings.push(finding);
    steps.extend(forget(entry.observed, unit, &[HostPath::runtime_push(unit, property)]));
    steps
}
