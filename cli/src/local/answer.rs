//! Decides what is answered after a run on this host: what was done or would be, what the kernel says of each slice, and
//! whether all of it is as asked. Pure.

use std::collections::BTreeMap;

use lamina_crds::conditions::{ConditionType, find, holds_at};
use lamina_crds::{CpuSet, HostStateStatus, TopologyName, UnitName};
use lamina_node_agent::desired::{DesiredEntry, DesiredSlice};
use lamina_node_agent::foresight::Foresight;
use lamina_node_agent::observed::{ObservedHost, ObservedUnit};
use lamina_node_agent::plan::{Class, Effect, Step};
use lamina_node_agent::property::Property;
use serde::Serialize;

use crate::asked::asked;
use crate::document::Topology;
use crate::plan::{HostPlan, own_name};

/// The answer of a run, or of a look ahead.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    /// The version of this form.
    pub api_version: &'static str,
    /// Always `LocalRun`.
    pub kind: &'static str,
    /// The host.
    pub host: String,
    /// Whether it is as asked.
    pub verdict: Verdict,
    /// The same in one sentence.
    pub message: String,
    /// Topologies that do not select this host by its labels.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_selected: Vec<TopologyName>,
    /// Where slices go, if topologies were placed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan: Option<HostPlan>,
    /// What would be done; of a look ahead only.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<StepRow>,
    /// What was done, by unit, delivered file or "systemd".
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub done: BTreeMap<String, Vec<String>>,
    /// What systemd and the kernel say of each slice.
    pub slices: Vec<SliceRow>,
    /// Why a topology is not as asked, or what is worth knowing of one that is.
    pub topologies: Vec<TopologyRow>,
}

/// Whether the host is as asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Verdict {
    /// Everything asked is true and measured.
    AsAsked,
    /// Something is not, or not yet.
    NotAsAsked,
    /// A run would change nothing.
    WouldStay,
    /// A run would change something.
    WouldChange,
    /// A run would leave something undone.
    WouldNotFollow,
}

/// What would be done to one object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StepRow {
    /// The unit, the delivered file or "systemd".
    pub object: String,
    /// What it costs: the gravest of its steps.
    pub class: StepClass,
    /// What is done, each once and in order.
    pub deeds: Vec<String>,
}

/// What a step costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum StepClass {
    /// Nothing notices.
    Live,
    /// systemd reads all unit files again.
    Reload,
    /// A service starts, stops or starts anew.
    Restart,
    /// A unit appears or disappears.
    Recreate,
}

/// One slice, as it is asked and measured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SliceRow {
    /// Its topology.
    pub topology: TopologyName,
    /// Its name.
    pub slice: String,
    /// Its unit.
    pub unit: UnitName,
    /// What the topology asks, where it was given.
    pub asked: String,
    /// `AllowedCPUs=` as systemd has it loaded.
    pub property: String,
    /// `cpuset.cpus.effective`.
    pub kernel: CpuSet,
    /// Threads of its services.
    pub threads: u32,
    /// CPUs outside the slice on which some of them may run.
    pub outside: CpuSet,
}

/// One topology.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TopologyRow {
    /// Its name.
    pub name: String,
    /// Whether it is as asked.
    pub ready: bool,
    /// Why, in one word.
    pub reason: String,
    /// The same in a sentence.
    pub message: String,
}

/// The steps by what they are done to, in the order in which each is first touched.
pub fn step_rows(steps: &[Step]) -> Vec<StepRow> {
    let mut rows: Vec<StepRow> = Vec::new();
    for step in steps {
        let Some((object, deed)) = deed(step) else { continue };
        let class = class(step.class);
        match rows.iter_mut().find(|row| row.object == object) {
            Some(row) => {
                row.class = row.class.max(class);
                if !row.deeds.contains(&deed) {
                    row.deeds.push(deed);
                }
            }
            None => rows.push(StepRow { object, class, deeds: vec![deed] }),
        }
    }
    rows
}

fn class(class: Class) -> StepClass {
    match class {
        Class::Live => StepClass::Live,
        Class::Reload => StepClass::Reload,
        Class::Restart => StepClass::Restart,
        Class::Recreate => StepClass::Recreate,
    }
}

/// Object and deed of a step that people care about.
fn deed(step: &Step) -> Option<(String, String)> {
    let of_unit = |unit: &UnitName, deed: &str| Some((unit.to_string(), deed.to_owned()));
    let of_path = |path: &lamina_node_agent::host_path::HostPath, deed: &str| {
        let object = step.unit.as_ref().map(UnitName::to_string).or_else(|| path.unit().map(|unit| unit.to_string()));
        (!path.is_staging()).then(|| (object.unwrap_or_else(|| path.to_string()), deed.to_owned()))
    };
    match &step.effect {
        Effect::Write { path, content: _ } => of_path(path, "write"),
        Effect::Link { path, target: _ } => of_path(path, "enable"),
        Effect::Remove { path } => of_path(path, "remove"),
        Effect::Reload => Some(("systemd".to_owned(), "reload".to_owned())),
        Effect::Set { unit, properties } => {
            let values = properties.iter().map(|(property, value)| format!("{}={value}", property.key()));
            of_unit(unit, &format!("set {}", values.collect::<Vec<_>>().join(" ")))
        }
        Effect::Start { unit } => of_unit(unit, "start"),
        Effect::Stop { unit } => of_unit(unit, "stop"),
        Effect::Restart { unit } => of_unit(unit, "restart"),
        Effect::Sync { .. } | Effect::ResetFailed { .. } => None,
    }
}

/// Every pinned slice that the host holds.
pub fn slice_rows(seen: &Foresight, topologies: &[Topology]) -> Vec<SliceRow> {
    let Some(observed) = &seen.work.observed else { return Vec::new() };
    let present = seen.desired.entries.iter().filter(|(_, entry)| entry.is_present());
    let rows = present.flat_map(|(name, entry)| {
        let given = topologies.iter().find(|topology| topology.name == *name);
        entry.slices.iter().filter_map(move |slice| slice_row(name, entry, slice, observed, given))
    });
    rows.collect()
}

fn slice_row(
    topology: &TopologyName,
    entry: &DesiredEntry,
    slice: &DesiredSlice,
    observed: &ObservedHost,
    given: Option<&Topology>,
) -> Option<SliceRow> {
    let cpus = slice.cpus.as_ref()?;
    let seen = observed.units.get(&slice.unit);
    let inside = entry.services.iter().filter(|service| service.slice == slice.unit);
    let services: Vec<&ObservedUnit> = inside.filter_map(|service| observed.units.get(&service.unit)).collect();
    let used = services.iter().fold(CpuSet::new(), |all, service| all.union(&service.threads.cpus));
    let name = own_name(&slice.unit, topology);
    let spec = given.and_then(|given| given.spec.slices.iter().find(|slice| slice.name.as_str() == name));
    Some(SliceRow {
        topology: topology.clone(),
        asked: spec.map_or_else(|| "-".to_owned(), asked),
        slice: name,
        unit: slice.unit.clone(),
        property: seen
            .and_then(|seen| seen.loaded.get(&Property::AllowedCpus))
            .map(ToString::to_string)
            .unwrap_or_default(),
        kernel: seen.and_then(|seen| seen.effective_cpus.clone()).unwrap_or_default(),
        threads: services.iter().map(|service| service.threads.count).sum(),
        outside: used.difference(cpus),
    })
}

/// How each topology stands, in the words of the status.
pub fn topology_rows(status: &HostStateStatus) -> Vec<TopologyRow> {
    let row = |topology: &lamina_crds::host_state::TopologyStatus| {
        let ready = find(&topology.conditions, ConditionType::Ready);
        TopologyRow {
            name: topology.name.clone(),
            ready: holds_at(&topology.conditions, ConditionType::Ready, status.observed_generation),
            reason: ready.map(|ready| ready.reason.clone()).unwrap_or_default(),
            message: ready.map(|ready| ready.message.clone()).unwrap_or_default(),
        }
    };
    status.topologies.iter().map(row).collect()
}

/// Whether waiting may still help: some topology is neither as asked nor in need of a hand.
pub fn is_under_way(status: &HostStateStatus) -> bool {
    let holds = |topology: &lamina_crds::host_state::TopologyStatus, type_| {
        holds_at(&topology.conditions, type_, status.observed_generation)
    };
    let settled = |topology| holds(topology, ConditionType::Ready) || holds(topology, ConditionType::Stalled);
    !status.topologies.iter().all(settled) || status.topologies.is_empty() && status.conditions.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(unit: &str, class: Class, effect: Effect) -> Step {
        Step { class, unit: UnitName::new(unit).ok(), after: Vec::new(), findings: Vec::new(), effect }
    }

    #[test]
    fn the_steps_of_a_unit_are_one_row_of_the_gravest_class() {
        let unit = UnitName::new("web-a.service").expect("legal");
        let path = lamina_node_agent::host_path::HostPath::fragment(&unit);
        let steps = [
            step("web-a.service", Class::Live, Effect::Write { path: path.clone(), content: String::new() }),
            step("web-a.service", Class::Live, Effect::Sync { directory: path.directory() }),
            Step { unit: None, ..step("web-a.service", Class::Reload, Effect::Reload) },
            step("web-a.service", Class::Restart, Effect::Restart { unit }),
        ];
        let rows = step_rows(&steps);
        assert_eq!(rows[0].deeds, ["write", "restart"]);
        assert_eq!((rows[0].class, rows[1].object.as_str(), rows.len()), (StepClass::Restart, "systemd", 2));
    }
}
