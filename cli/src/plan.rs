//! Decides what would become of hosts if these topologies were applied: the operator's own answer, compared with what
//! the hosts hold.

use std::collections::BTreeMap;

use lamina_crds::conditions::Reason;
use lamina_crds::host_state::SliceEntry;
use lamina_crds::slice_topology::Slice;
use lamina_crds::{CpuSet, Hardware, NodeSet, SliceTopologySpec, TopologyEntry, TopologyName, UnitName};
use lamina_operator::placement::{Gap, Objective, Placed, PlacedSlice, Shortfall, Verdict};
use lamina_operator::preview::{Preview, preview};
use lamina_operator::resolve::Outcome;
use lamina_operator::view::Refusal;
use serde::Serialize;

use crate::document::{Host, Topology};
use crate::settings::{Setting, settings};

/// What a host holds, by topology.
pub type Entries = BTreeMap<TopologyName, TopologyEntry>;

/// What would become of one host. Entries of topologies that are not given stay, and block their CPUs.
pub fn plan(name: &str, hardware: &Hardware, topologies: &[Topology], present: &Entries) -> HostPlan {
    resolved(name, hardware, topologies, present).0
}

/// The same, with the entries that the operator would write.
pub fn resolved(name: &str, hardware: &Hardware, topologies: &[Topology], present: &Entries) -> (HostPlan, Entries) {
    let wanted = specs(topologies);
    let Preview { outcomes, entries, placed } = preview(name, hardware, present, &wanted);
    let mut slices = Vec::new();
    let mut changes = Vec::new();
    let mut fates = Vec::new();
    for Topology { name, spec } in topologies {
        let before = present.get(name);
        if let Some(after) = entries.get(name) {
            slices.extend(spec.slices.iter().filter_map(|slice| SlicePlan::of(name, slice, &placed, before)));
            slices.extend(before.iter().flat_map(|before| removed(before, after)));
            changes.extend(before.iter().flat_map(|before| settings(before, after)));
        }
        fates.extend(outcomes.get(name).map(|outcome| Fate::of(name, outcome)));
    }
    let is_refused = fates.iter().any(Fate::is_refused);
    let Placed { objective, housekeeping, verdict, .. } = placed;
    let (status, gap) = match verdict {
        _ if is_refused => (Status::Infeasible, None),
        Verdict::Optimal => (Status::Optimal, None),
        Verdict::Feasible { gap } => (Status::Feasible, Some(gap)),
    };
    let plan = HostPlan {
        host: name.to_owned(),
        status,
        gap,
        objective,
        housekeeping,
        slices,
        settings: changes,
        topologies: fates,
    };
    (plan, entries)
}

/// Topologies as the operator takes them.
pub fn specs(topologies: &[Topology]) -> Vec<(TopologyName, SliceTopologySpec)> {
    topologies.iter().map(|topology| (topology.name.clone(), topology.spec.clone())).collect()
}

/// All hosts together.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// The version of this form.
    pub api_version: &'static str,
    /// Always `Plan`.
    pub kind: &'static str,
    /// The hosts, in the order in which they were given.
    pub hosts: Vec<HostPlan>,
}

/// One host.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HostPlan {
    /// Its name.
    pub host: String,
    /// How good the answer is.
    pub status: Status,
    /// How far it may be from the best, where that is not proven.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gap: Option<Gap>,
    /// What the answer costs.
    pub objective: Objective,
    /// CPUs kept free of slices.
    pub housekeeping: CpuSet,
    /// How each topology fares.
    pub topologies: Vec<Fate>,
    /// Every slice that has a place, and those that would be removed.
    pub slices: Vec<SlicePlan>,
    /// What else would change, where the host's document says what it holds.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub settings: Vec<Setting>,
}

/// How good an answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Status {
    /// Nothing better exists.
    Optimal,
    /// Something better may exist.
    Feasible,
    /// The host cannot hold some topology.
    Infeasible,
}

/// How one topology fares on one host.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Fate {
    /// The topology.
    pub topology: TopologyName,
    /// Why the host cannot hold it; what it runs stays as it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<Refusal>,
    /// What its slices lack, the gravest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub degraded: Vec<Refusal>,
}

/// One slice on one host.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SlicePlan {
    /// Its topology.
    pub topology: TopologyName,
    /// Its name.
    pub slice: String,
    /// Its unit.
    pub unit: UnitName,
    /// What becomes of it.
    pub change: Change,
    /// Its CPUs.
    pub cpus: CpuSet,
    /// Its memory nodes; none where nothing is to be chosen.
    pub memory_nodes: Option<NodeSet>,
    /// CPUs that it has now, if it is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current: Option<CpuSet>,
    /// CPUs that a running slice gets.
    #[serde(skip_serializing_if = "CpuSet::is_empty")]
    pub gained: CpuSet,
    /// CPUs that a running slice gives up.
    #[serde(skip_serializing_if = "CpuSet::is_empty")]
    pub lost: CpuSet,
    /// What it asks for, in [`Self::counted`].
    pub asked: u32,
    /// What it gets.
    pub got: u32,
    /// What is counted.
    pub counted: Counted,
    /// What it lacks.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub shortfalls: Vec<Shortfall>,
}

/// What a slice is counted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Counted {
    /// Whole physical cores.
    #[serde(rename = "cores")]
    Cores,
    /// Logical CPUs.
    #[serde(rename = "CPUs")]
    Cpus,
}

/// What becomes of a slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Change {
    /// It is not there yet.
    New,
    /// It stays where it is.
    Same,
    /// Its CPUs or memory nodes change.
    Moved,
    /// Its topology does not hold it any more.
    Removed,
}

impl Plan {
    /// The plan of these hosts.
    pub fn of(hosts: Vec<HostPlan>) -> Self {
        Self { api_version: "lamina.dev/v1alpha1", kind: "Plan", hosts }
    }
}

impl HostPlan {
    /// Whether something on the host would change.
    pub fn changes(&self) -> bool {
        !self.settings.is_empty() || self.slices.iter().any(|slice| slice.change != Change::Same)
    }

    /// Whether the host cannot hold some topology.
    pub fn is_refused(&self) -> bool {
        self.topologies.iter().any(Fate::is_refused)
    }
}

impl Fate {
    fn of(topology: &TopologyName, outcome: &Outcome) -> Self {
        let (refused, degraded) = match outcome {
            Outcome::Placed { shortages } => (None, shortages.clone()),
            // A plan tells what would be; that a pause keeps it from the hosts for now does not change that.
            Outcome::Paused => (None, Vec::new()),
            Outcome::Refused(refusal) => (Some(refusal.clone()), Vec::new()),
            Outcome::AwaitsInventory => {
                let message = "the host says nothing about its hardware".to_owned();
                (Some(Refusal { reason: Reason::Unsupported, message }), Vec::new())
            }
        };
        Self { topology: topology.clone(), refused, degraded }
    }

    fn is_refused(&self) -> bool {
        self.refused.is_some()
    }
}

impl SlicePlan {
    fn of(topology: &TopologyName, slice: &Slice, placed: &Placed, before: Option<&TopologyEntry>) -> Option<Self> {
        let unit = UnitName::of_slice(topology, &slice.name).ok()?;
        let PlacedSlice { cpus, memory_nodes, asked, got, shortfalls, .. } = placed.slices.get(&unit)?;
        let before = before.and_then(|before| before.slices.iter().find(|slice| slice.unit == unit));
        let change = match before {
            None => Change::New,
            Some(before) if before.cpus == *cpus && before.memory_nodes == *memory_nodes => Change::Same,
            Some(_) => Change::Moved,
        };
        let current = before.map(|before| before.cpus.clone());
        let (gained, lost) = match &current {
            None => (CpuSet::new(), CpuSet::new()),
            Some(current) => (cpus.difference(current), current.difference(cpus)),
        };
        Some(Self {
            topology: topology.clone(),
            slice: slice.name.to_string(),
            unit,
            change,
            cpus: cpus.clone(),
            memory_nodes: memory_nodes.clone(),
            current,
            gained,
            lost,
            asked: *asked,
            got: *got,
            counted: if slice.cpu.cores.is_some() { Counted::Cores } else { Counted::Cpus },
            shortfalls: shortfalls.clone(),
        })
    }

    fn gone(topology: &TopologyName, slice: &SliceEntry) -> Self {
        Self {
            topology: topology.clone(),
            slice: own_name(&slice.unit, topology),
            unit: slice.unit.clone(),
            change: Change::Removed,
            cpus: CpuSet::new(),
            memory_nodes: None,
            current: Some(slice.cpus.clone()),
            gained: CpuSet::new(),
            lost: slice.cpus.clone(),
            asked: 0,
            got: 0,
            counted: Counted::Cpus,
            shortfalls: Vec::new(),
        }
    }
}

/// Slices of an entry that it would not hold any more.
fn removed(before: &TopologyEntry, after: &TopologyEntry) -> Vec<SlicePlan> {
    let stays = |slice: &&SliceEntry| after.slices.iter().any(|other| other.unit == slice.unit);
    let gone = before.slices.iter().filter(|slice| !stays(slice));
    gone.map(|slice| SlicePlan::gone(&before.name, slice)).collect()
}

/// The slice's own name: its unit without the topology's.
pub fn own_name(unit: &UnitName, topology: &TopologyName) -> String {
    let whole = UnitName::of_topology(topology).map(|unit| unit.stem().to_owned()).unwrap_or_default();
    let own = unit.stem().strip_prefix(&whole).and_then(|rest| rest.strip_prefix('-'));
    own.unwrap_or(unit.stem()).to_owned()
}

/// The document that says what a host holds: that of the same name in `--current`, else the host's own. One host there
/// and one here are the same, whatever their names; none means that nothing runs.
pub fn current_of<'a>(host: &'a Host, hosts: usize, current: Option<&'a [Host]>) -> Option<&'a Host> {
    match current {
        None => Some(host),
        Some([only]) if hosts == 1 => Some(only),
        Some(named) => named.iter().find(|other| other.name == host.name),
    }
}
