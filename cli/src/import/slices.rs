//! Decides what slice units mean as slices of a topology.

use std::collections::{BTreeMap, BTreeSet};

use lamina_crds::{CpuSet, NodeSet, TopologyName, UnitKind, UnitName};
use serde_json::{Map, Value, json};

use super::notes::{Kind, Notes};
use super::unit::{Placed, Unit};
use super::{Wishes, limits, own, values};

/// The slices that files or services name, in the order of their names.
pub(super) fn slices(
    name: &TopologyName,
    units: &BTreeMap<UnitName, Unit>,
    named: &BTreeSet<String>,
    order: &BTreeMap<String, BTreeSet<String>>,
    wishes: &Wishes,
    notes: &mut Notes,
    faults: &mut Vec<String>,
) -> Vec<Value> {
    let of_slices = units.values().filter(|unit| unit.name.kind() == UnitKind::Slice);
    let mut found: BTreeMap<String, Option<&Unit>> = named.iter().map(|slice| (slice.clone(), None)).collect();
    for unit in of_slices {
        match own_name(name, &unit.name) {
            Some(slice) => {
                found.insert(slice, Some(unit));
            }
            None => notes.unit(
                unit,
                Kind::NoPlace,
                "a slice inside a slice of the topology",
                "give it a name without dashes",
            ),
        }
    }
    let slices = found.into_iter().map(|(slice, unit)| {
        let mut value = unit.map(|unit| settings(unit, notes)).unwrap_or_default();
        let cpus = wishes.cpus.get(&slice).cloned().or_else(|| unit.and_then(|unit| cpus(unit, notes)));
        match cpus {
            Some(cpus) => drop(value.insert("cpu".into(), json!({ "set": cpus }))),
            None => {
                value.insert("cpu".into(), json!({ "cores": 1 }));
                faults.push(format!("slice {slice}: no file names its CPUs; give --cpus {slice}=LIST"));
            }
        }
        if let Some(before) = order.get(&slice).filter(|before| !before.is_empty()) {
            value.insert("startAfter".into(), json!(before));
        }
        value.insert("name".into(), slice.into());
        Value::from(value)
    });
    slices.collect()
}

/// The slice's own name, unless it lies deeper than a topology's slices do.
fn own_name(name: &TopologyName, unit: &UnitName) -> Option<String> {
    let slice = unit.stem().strip_prefix(&format!("{}-", own(name)))?;
    (!slice.contains('-')).then(|| slice.to_owned())
}

/// Where a slice's setting goes, or why it goes nowhere.
fn settings(unit: &Unit, notes: &mut Notes) -> Map<String, Value> {
    let mut value = Map::new();
    let (mut memory, tasks) = limits(unit, notes);
    if let Some(nodes) = nodes(unit, notes) {
        memory.insert("nodesFrom".into(), "List".into());
        memory.insert("nodes".into(), json!(nodes));
    }
    if !memory.is_empty() {
        value.insert("memory".into(), memory.into());
    }
    if let Some(weight) = unit.last("IOWeight").and_then(|setting| notes.value(setting, values::weight)) {
        value.insert("io".into(), json!({ "weight": weight }));
    }
    if let Some(tasks) = tasks {
        value.insert("tasks".into(), tasks);
    }
    for setting in unit.settings() {
        tell(unit, setting, notes);
    }
    value
}

/// The CPUs that the slice has, or was meant to have.
fn cpus(unit: &Unit, notes: &mut Notes) -> Option<CpuSet> {
    let works: Option<CpuSet> = merged(unit, "AllowedCPUs", notes);
    let meant: Option<CpuSet> = merged(unit, "CPUAffinity", notes);
    let now = match (&works, &meant) {
        (None, Some(cpus)) => format!("cpu.set {cpus}: it takes effect for the first time"),
        (_, _) => "left out: AllowedCPUs= stands beside it".to_owned(),
    };
    for setting in unit.all("CPUAffinity") {
        notes.setting(setting, Kind::NeverHadAnEffect, IN_A_SLICE, &now);
    }
    works.or(meant)
}

/// The memory nodes that the slice has, or was meant to have.
fn nodes(unit: &Unit, notes: &mut Notes) -> Option<NodeSet> {
    let works: Option<NodeSet> = merged(unit, "AllowedMemoryNodes", notes);
    let meant: Option<NodeSet> = merged(unit, "NUMAMask", notes);
    let now = match (&works, &meant) {
        (None, Some(nodes)) => format!("memory.nodes {nodes}: it takes effect for the first time"),
        (_, _) => "left out".to_owned(),
    };
    for key in ["NUMAPolicy", "NUMAMask"] {
        for setting in unit.all(key) {
            notes.setting(setting, Kind::NeverHadAnEffect, IN_A_SLICE, &now);
        }
    }
    works.or(meant)
}

const IN_A_SLICE: &str = "systemd takes it in [Service] only, and ignores it in [Slice]";

/// All lists of a key together, as systemd merges them.
fn merged<K: lamina_crds::id_set::Kind>(
    unit: &Unit,
    key: &str,
    notes: &mut Notes,
) -> Option<lamina_crds::id_set::IdSet<K>> {
    let lists = unit.all(key).into_iter().filter_map(|setting| notes.value(setting, values::list::<K>));
    lists.reduce(|one, other| one.union(&other))
}

/// Keys that are looked at elsewhere, or that say nothing of what runs.
const KNOWN: [&str; 13] = [
    "AllowedCPUs",
    "AllowedMemoryNodes",
    "CPUAffinity",
    "IOWeight",
    "MemoryHigh",
    "MemoryLow",
    "MemoryMax",
    "MemoryMin",
    "MemorySwapMax",
    "NUMAMask",
    "NUMAPolicy",
    "TasksMax",
    "Slice",
];

/// Tells what does not come over.
fn tell(unit: &Unit, setting: &Placed, notes: &mut Notes) {
    let key = setting.key.as_str();
    let now = "left out";
    match (setting.section.as_str(), key) {
        ("Unit", "Description" | "Documentation" | "Before" | "DefaultDependencies") => {}
        ("Slice", key) if key.ends_with("Accounting") => {}
        ("Slice", "Slice") => {
            notes.setting(setting, Kind::NeverHadAnEffect, "a slice's place follows from its name", now)
        }
        ("Slice", key) if KNOWN.contains(&key) => {}
        ("Slice", "BlockIOWeight" | "BlockIODeviceWeight" | "BlockIOReadBandwidth" | "BlockIOWriteBandwidth") => {
            let why = if unit.last("IOWeight").is_some() {
                "it is for cgroup v1, and IOWeight= beside it wins"
            } else {
                "it is for cgroup v1; systemd 252 to 257 translate it, later ones ignore it"
            };
            notes.setting(setting, Kind::NeverHadAnEffect, why, "left out; write io.weight, 1 to 10000");
        }
        ("Slice", "CPUShares" | "MemoryLimit") => {
            notes.setting(setting, Kind::NeverHadAnEffect, "it is for cgroup v1", "left out; write cpu or memory");
        }
        ("Slice", "CPUQuota" | "CPUWeight") => {
            let remedy = "left out; a slice has whole CPUs of its own, or Shared ones";
            notes.setting(setting, Kind::NoPlace, "a topology shares out CPUs, not time", remedy);
        }
        ("Slice", key) if SERVICE_KEYS.iter().any(|beginning| key.starts_with(beginning)) => {
            notes.setting(setting, Kind::NeverHadAnEffect, IN_A_SLICE, now);
        }
        ("Slice" | "Unit" | "Install", _) => notes.setting(setting, Kind::NoPlace, "a topology cannot ask for it", now),
        (_, _) => notes.setting(setting, Kind::NeverHadAnEffect, "a slice has no such section", now),
    }
}

/// Beginnings of keys that belong to services.
const SERVICE_KEYS: [&str; 9] =
    ["User", "Group", "Exec", "Environment", "Limit", "OOMScoreAdjust", "OOMPolicy", "Nice", "Restart"];
