//! Decides what a directory of hand-written unit files means as a SliceTopology, what in it never had an effect, and what
//! has no place in a topology.

mod notes;
mod services;
mod slices;
mod unit;
mod units;
mod values;

use std::collections::{BTreeMap, BTreeSet};

use lamina_crds::decode::decode;
use lamina_crds::rules::topology_faults;
use lamina_crds::{CpuSet, SliceTopologySpec, TopologyName, UnitName};
use serde::Serialize;
use serde_json::{Map, Value, json};

use notes::Notes;
pub use notes::{Kind, Note};
use unit::Unit;
use units::units;

/// What users say beside the files.
#[derive(Clone, Debug, Default)]
pub struct Wishes {
    /// The topology's name, where the units do not tell it.
    pub name: Option<TopologyName>,
    /// CPUs of slices, by name: for those whose files name none.
    pub cpus: BTreeMap<String, CpuSet>,
    /// Whether the topology may replace the files on the hosts they came from.
    pub replace: bool,
}

/// A topology made of unit files, and what is to be known of it.
#[derive(Clone, Debug, Serialize)]
pub struct Import {
    /// The object, ready to be applied.
    pub topology: Document,
    /// What never had an effect, what has no place, and what was changed.
    pub notes: Vec<Note>,
    /// Why the topology cannot be applied as it is; empty if it can.
    pub faults: Vec<String>,
}

/// A SliceTopology as users write it.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Document {
    /// `lamina.dev/v1alpha1`.
    pub api_version: &'static str,
    /// `SliceTopology`.
    pub kind: &'static str,
    /// Its name.
    pub metadata: Value,
    /// What it says.
    pub spec: SliceTopologySpec,
}

/// Makes a topology of unit files, each given by its path below the directory and its text.
///
/// # Errors
/// A sentence where the files do not say enough for any topology.
pub fn import(files: &BTreeMap<String, String>, wishes: &Wishes) -> Result<Import, String> {
    let mut notes = Notes::default();
    let units = units(files, &mut notes);
    let name = match &wishes.name {
        Some(name) => name.clone(),
        None => common_name(units.keys())?,
    };
    let (units, others): (BTreeMap<_, _>, BTreeMap<_, _>) =
        units.into_iter().partition(|(unit, _)| unit.belongs_to(&name) && unit.stem().contains('-'));
    for unit in others.values() {
        let why = format!("it is not named {}-NAME.slice or {}-NAME.service", own(&name), own(&name));
        notes.unit(unit, Kind::NoPlace, &why, "rename it, or keep it beside the topology");
    }
    let (services, order) = services::services(&name, &units, &mut notes);
    let named: BTreeSet<String> =
        services.iter().filter_map(|service| Some(service["slice"].as_str()?.into())).collect();
    let mut faults = Vec::new();
    let slices = slices::slices(&name, &units, &named, &order, wishes, &mut notes, &mut faults);
    let spec = spec(&name, slices, services, wishes);
    let spec: SliceTopologySpec = decode(&spec).map_err(|fault| fault.to_string())?;
    faults.extend(topology_faults(name.as_str(), &spec).iter().map(ToString::to_string));
    let metadata = json!({ "name": name });
    let topology = Document { api_version: "lamina.dev/v1alpha1", kind: "SliceTopology", metadata, spec };
    Ok(Import { topology, notes: notes.in_order(), faults })
}

/// The part of unit names that stands for the topology.
fn own(name: &TopologyName) -> String {
    name.as_str().replace('-', "_")
}

/// The topology whose name every unit begins with.
fn common_name<'a>(units: impl Iterator<Item = &'a UnitName>) -> Result<TopologyName, String> {
    let prefixes: BTreeSet<&str> = units.map(|unit| unit.stem().split('-').next().unwrap_or_default()).collect();
    let prefixes: Vec<&str> = prefixes.into_iter().collect();
    match prefixes.as_slice() {
        [] => Err("there is no .slice and no .service file; name the directory that holds them".to_owned()),
        [one] => TopologyName::new(one.replace('_', "-"))
            .map_err(|error| format!("the units begin with {one}, which names no topology ({error}); give --name")),
        several => Err(format!("the units begin with {}; give --name for one of them", several.join(", "))),
    }
}

/// The whole spec; what all services say alike stands once.
fn spec(name: &TopologyName, slices: Vec<Value>, mut services: Vec<Value>, wishes: &Wishes) -> Value {
    let mut spec = Map::new();
    spec.insert("hostSelector".into(), json!({ "matchLabels": { "lamina.dev/role": name } }));
    if wishes.replace {
        spec.insert("adoption".into(), "Replace".into());
    }
    let defaults = shared(&mut services, &["user", "envFiles", "restart"]);
    if !defaults.is_empty() {
        spec.insert("serviceDefaults".into(), defaults.into());
    }
    spec.insert("slices".into(), slices.into());
    spec.insert("services".into(), services.into());
    spec.into()
}

/// Takes out of every service what all of them say alike.
fn shared(services: &mut [Value], keys: &[&str]) -> Map<String, Value> {
    let mut defaults = Map::new();
    for key in keys {
        let Some(first) = services.first().and_then(|service| service.get(*key)).cloned() else { continue };
        if services.len() > 1 && services.iter().all(|service| service.get(*key) == Some(&first)) {
            services.iter_mut().filter_map(Value::as_object_mut).for_each(|service| drop(service.remove(*key)));
            defaults.insert((*key).to_owned(), first);
        }
    }
    defaults
}

/// What both slices and services can say about memory and tasks.
fn limits(unit: &Unit, notes: &mut Notes) -> (Map<String, Value>, Option<Value>) {
    let mut memory = Map::new();
    for (key, field) in MEMORY {
        let Some(setting) = unit.last(key) else { continue };
        if let Some(bytes) = notes.value(setting, values::size).flatten() {
            memory.insert(field.to_owned(), lamina_crds::Bytes::new(bytes).to_string().into());
        }
    }
    let tasks = unit.last("TasksMax").and_then(|setting| notes.value(setting, values::count).flatten());
    (memory, tasks.map(|max| json!({ "max": max })))
}

const MEMORY: [(&str, &str); 5] = [
    ("MemoryMin", "min"),
    ("MemoryLow", "low"),
    ("MemoryHigh", "high"),
    ("MemoryMax", "max"),
    ("MemorySwapMax", "swapMax"),
];

#[cfg(test)]
mod tests;
