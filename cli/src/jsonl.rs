//! Decides what one line of `place --jsonl` asks, and how its answer is written. A bad line is answered in its place.

use std::collections::BTreeMap;

use lamina_crds::decode::decode;
use lamina_crds::rules::{Fault, hardware_faults, topology_faults};
use lamina_crds::{Bytes, CpuSet, Hardware, NodeSet, SliceName, SliceTopologySpec, TopologyName};
use lamina_operator::entry::Named;
use lamina_operator::placement::{
    Constraint, Demand, Gap, HousekeepingWish, Incumbent, Move, Objective, Placed, Placement, Shortfall, Site, Verdict,
    place,
};
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::plan::Status;
use crate::shape::{MOST_CPUS, Shape};

/// The topology that the requests of a line belong to.
const NAME: &str = "requests";

/// One line, understood.
#[derive(Clone, Debug)]
pub struct Instance {
    id: Option<Value>,
    hardware: Hardware,
    name: TopologyName,
    demands: Vec<Demand>,
    housekeeping: Vec<HousekeepingWish>,
    running: Placement,
}

/// The answer to one line.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    /// What the line called itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<Value>,
    /// How good the answer is.
    pub status: Status,
    /// How far it may be from the best, where that is not proven.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gap: Option<Gap>,
    /// Why the machine cannot hold the requests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// What cannot be had together; without any one of it the rest can. Empty where named CPUs are not there or taken.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conflict: Vec<Constraint>,
    /// The CPUs of each slice; empty where the status is Infeasible.
    pub cpus: BTreeMap<String, CpuSet>,
    /// The memory nodes of each slice, where they are chosen.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub memory_nodes: BTreeMap<String, NodeSet>,
    /// What slices lack.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub degraded: BTreeMap<String, Vec<Shortfall>>,
    /// Running slices whose CPUs change.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub moves: Vec<Move>,
    /// What the answer costs.
    pub objective: Objective,
    /// How long placing took, in microseconds; reading and writing the line is not counted.
    pub microseconds: f64,
}

/// A line that is not understood.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BadLine {
    /// Its number, counted from 1.
    pub line: usize,
    /// What the line called itself, as far as it could be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<Value>,
    /// What is wrong with it.
    pub error: Problem,
}

/// What is wrong with a line.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    /// The field; empty for the line as a whole.
    pub field: String,
    /// What stands there.
    pub value: String,
    /// The rule it breaks.
    pub rule: String,
    /// What to write instead.
    pub remedy: String,
    /// All of it in one sentence.
    pub message: String,
}

/// Understands one line.
///
/// # Errors
/// Names the first thing that is wrong with it.
pub fn read(number: usize, line: &str) -> Result<Instance, Box<BadLine>> {
    let bad = |id: Option<Value>, fault: Fault| Box::new(BadLine { line: number, id, error: problem(fault) });
    let value: Value = serde_json::from_str(line).map_err(|error| {
        bad(None, Fault::new("", "", &format!("this is not one JSON object: {error}"), "write one object per line"))
    })?;
    let id = value.get("id").cloned();
    instance(value).map_err(|fault| bad(id, fault))
}

fn problem(fault: Fault) -> Problem {
    let message = fault.to_string();
    let Fault { path, value, rule, remedy } = fault;
    Problem { field: path, value, rule, remedy, message }
}

fn instance(value: Value) -> Result<Instance, Fault> {
    let Value::Object(mut fields) = value else {
        return Err(Fault::new("", &value.to_string(), "this is not one JSON object", "write one object per line"));
    };
    let id = fields.remove("id");
    let hardware =
        machine(&fields.remove("machine").unwrap_or(Value::Null)).map_err(|fault| fault.within("machine"))?;
    let running = fields.remove("running").unwrap_or_else(|| json!({}));
    let mut spec = json!({ "hostSelector": { "matchLabels": { "machine": "this" } } });
    for (field, place) in [("requests", "slices"), ("housekeeping", "housekeeping")] {
        if let Some(value) = fields.remove(field) {
            spec[place] = value;
        }
    }
    if let Some((field, value)) = Map::into_iter(fields).next() {
        let known = "the fields are machine, requests, running, housekeeping and id";
        return Err(Fault::new(&field, &value.to_string(), known, "remove it"));
    }
    let spec: SliceTopologySpec = decode(&spec).map_err(as_written)?;
    if let Some(fault) = topology_faults(NAME, &spec).into_iter().next() {
        return Err(as_written(fault));
    }
    let name = TopologyName::new(NAME).expect("a constant that keeps the rules of names");
    let (demands, housekeeping) = match Named::of(&name, &spec) {
        Ok(named) => (named.demands(), named.housekeeping().into_iter().collect()),
        Err(refusal) => return Err(Fault::new("requests", "", &refusal.message, "choose another name")),
    };
    let running = incumbents(&running, &name, &demands)?;
    Ok(Instance { id, hardware, name, demands, housekeeping, running })
}

/// The fault in terms of the line: what a topology calls `spec.slices` is called `requests` here.
fn as_written(fault: Fault) -> Fault {
    let path = fault.path.strip_prefix("spec.").unwrap_or(&fault.path);
    let path = match path.strip_prefix("slices") {
        Some(rest) => format!("requests{rest}"),
        None => path.to_owned(),
    };
    let rule = fault.rule.replace("`slices`", "`requests`").replace("spec.slices", "requests");
    Fault { path, rule, ..fault }
}

fn machine(value: &Value) -> Result<Hardware, Fault> {
    if value.is_null() {
        return Err(Fault::new("", "", "a machine is needed", "write what `hardware -o json` prints, or a shape"));
    }
    if value.get("cpus").is_some() {
        let hardware: Hardware = decode(value)?;
        return hardware_faults(&hardware).into_iter().next().map_or(Ok(hardware), Err);
    }
    let shape: Shape = decode(value)?;
    let count = shape.cpu_count();
    if count == 0 || count > MOST_CPUS {
        let rule = format!("a machine has 1 to {MOST_CPUS} CPUs");
        return Err(Fault::new(
            "",
            &format!("{count} CPUs"),
            &rule,
            "change packages, nodes, caches, cores or threads",
        ));
    }
    if shape.memory_per_node > Bytes::mebi(1 << 40) {
        let value = shape.memory_per_node.to_string();
        return Err(Fault::new("memoryPerNode", &value, "a node has at most 1Ei", "write less"));
    }
    Ok(shape.hardware())
}

fn incumbents(value: &Value, topology: &TopologyName, demands: &[Demand]) -> Result<Placement, Fault> {
    let held: BTreeMap<SliceName, CpuSet> = decode(value).map_err(|fault| fault.within("running"))?;
    let mut running = Placement::default();
    for (slice, cpus) in held {
        let Some(demand) = demands.iter().find(|demand| demand.slice == slice) else {
            let path = format!("running.{slice}");
            return Err(Fault::new(&path, slice.as_str(), "there is no such request", "name a slice of requests"));
        };
        let incumbent = Incumbent { topology: topology.clone(), cpus, memory_nodes: None };
        running.slices.insert(demand.unit.clone(), incumbent);
    }
    Ok(running)
}

impl Instance {
    /// Places the requests. This is what is timed.
    pub fn place(&self) -> Placed {
        let site = Site { hardware: &self.hardware, housekeeping: self.housekeeping.clone() };
        place(&self.demands, &site, &self.running)
    }

    /// What is written for that answer.
    pub fn answer(self, placed: Placed, microseconds: f64) -> Answer {
        let Placed { slices, refusals, mut conflicts, verdict, objective, moves, housekeeping: _ } = placed;
        let conflict = conflicts.remove(&self.name).unwrap_or_default();
        let message = refusals.get(&self.name).map(|refusal| refusal.message.clone());
        let (status, gap) = match verdict {
            _ if message.is_some() => (Status::Infeasible, None),
            Verdict::Optimal => (Status::Optimal, None),
            Verdict::Feasible { gap } => (Status::Feasible, Some(gap)),
        };
        let (mut cpus, mut memory_nodes, mut degraded) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        for demand in &self.demands {
            let Some(slice) = slices.get(&demand.unit) else { continue };
            let name = demand.slice.to_string();
            cpus.insert(name.clone(), slice.cpus.clone());
            memory_nodes.extend(slice.memory_nodes.clone().map(|nodes| (name.clone(), nodes)));
            if !slice.shortfalls.is_empty() {
                degraded.insert(name, slice.shortfalls.clone());
            }
        }
        Answer {
            id: self.id,
            status,
            gap,
            message,
            conflict,
            cpus,
            memory_nodes,
            degraded,
            moves,
            objective,
            microseconds,
        }
    }
}
