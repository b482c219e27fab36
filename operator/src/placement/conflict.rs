//! Explains why a topology cannot be placed: a smallest set of things that cannot all be had, found by leaving out one
//! after the other, in words that say what would help.

use std::collections::BTreeSet;

use lamina_crds::conditions::Reason;
use lamina_crds::wishes::{AlignPolicy, CoreType, Domain, WishPolicy};
use lamina_crds::{CpuSet, Hardware};

use crate::placement::answer::Constraint;
use crate::placement::board::{STATIC, Settled};
use crate::placement::demand::{Demand, Site, Wanted};
use crate::placement::housekeeping::{allocatable_nodes, kept_free};
use crate::placement::machine::Machine;
use crate::placement::problem::NODE;
use crate::placement::stage::{Effort, Stage, canonical};
use crate::placement::staged::{Holder, Trouble};
use crate::view::Refusal;

/// Why nothing came of a stage: in words, and as data where several things stand against each other.
pub fn explain(stage: &Stage, site: &Site, trouble: &Trouble) -> (Refusal, Vec<Constraint>) {
    match trouble {
        Trouble::Missing { demand, missing } => {
            (missing_cpus(stage.demands[*demand], missing, site.hardware), Vec::new())
        }
        Trouble::Taken { demand, holder, cpus } => (taken_cpus(stage.demands[*demand], holder, cpus), Vec::new()),
        Trouble::NoMemory { demand, nodes } => {
            let Demand { slice, .. } = stage.demands[*demand];
            let there = site.hardware.memory_nodes();
            let message = format!(
                "slice {slice} takes its memory from nodes {nodes} (memory.nodes) that have none on this host; nodes \
                 {there} have memory; list those, or write memory.nodesFrom: CPUs"
            );
            (infeasible(message), Vec::new())
        }
        Trouble::Crowded => crowded(stage, site, ""),
        Trouble::Unsettled => crowded(stage, site, OPEN),
    }
}

/// What is added where a search ended without an arrangement and without a proof that there is none.
const OPEN: &str = "; the search for an arrangement ended at its bound, so there may be one that was not found";

fn crowded(stage: &Stage, site: &Site, how_sure: &str) -> (Refusal, Vec<Constraint>) {
    let conflict = smallest(stage, site);
    let message = format!("{}{how_sure}", in_words(stage, site, &conflict));
    (infeasible(message), conflict.into_iter().collect())
}

/// Leaves out one constraint after the other as long as the rest still cannot be had, as far as the search sees: without
/// any one of what is left, something is found.
fn smallest(stage: &Stage, site: &Site) -> BTreeSet<Constraint> {
    let candidates = constraints(stage, site);
    let mut kept: BTreeSet<Constraint> = candidates.iter().cloned().collect();
    for candidate in candidates {
        kept.remove(&candidate);
        if with_only(stage, site, &kept, |stage, _| stage.solve().is_ok()) {
            kept.insert(candidate);
        }
    }
    kept
}

/// Everything that could be given up, what says least first.
fn constraints(stage: &Stage, site: &Site) -> Vec<Constraint> {
    let mut constraints: Vec<Constraint> =
        stage.demands.iter().rev().map(|demand| Constraint::Slice { unit: demand.unit.clone() }).collect();
    if !stage.others.is_empty() {
        constraints.push(Constraint::Others);
    }
    if !stage.housekeeping.is_empty() {
        constraints.push(Constraint::Housekeeping);
    }
    if site.hardware.kubelet.as_ref().is_some_and(|kubelet| kubelet.cpu_manager_policy == STATIC) {
        constraints.push(Constraint::Kubelet);
    }
    for demand in &stage.demands {
        let unit = || demand.unit.clone();
        for near in demand.near.iter().filter(|near| near.policy == WishPolicy::Require) {
            constraints.push(Constraint::Near { unit: unit(), to: near.unit.clone() });
        }
        for apart in demand.apart.iter().filter(|apart| apart.policy == WishPolicy::Require) {
            constraints.push(Constraint::Apart { unit: unit(), from: apart.unit.clone() });
        }
        if demand.ordinal.is_some_and(|wish| wish.policy == WishPolicy::Require) {
            constraints.push(Constraint::Ordinal { unit: unit() });
        }
        if demand.nodes.is_some() {
            constraints.push(Constraint::Nodes { unit: unit() });
        }
        if demand.core_type != CoreType::Any {
            constraints.push(Constraint::CoreType { unit: unit() });
        }
        for wish in demand.align.iter().filter(|wish| wish.policy == AlignPolicy::Require) {
            constraints.push(Constraint::Align { unit: unit(), domain: wish.domain });
        }
    }
    constraints
}

/// Looks at the same host with these constraints only.
fn with_only<T>(
    stage: &Stage,
    site: &Site,
    kept: &BTreeSet<Constraint>,
    look: impl FnOnce(&Stage, &Hardware) -> T,
) -> T {
    let mut hardware = site.hardware.clone();
    if !kept.contains(&Constraint::Kubelet) {
        hardware.kubelet = None;
    }
    let machine = Machine::of(&hardware);
    let wishes = if kept.contains(&Constraint::Housekeeping) { site.housekeeping.as_slice() } else { &[] };
    let housekeeping = kept_free(&machine, wishes);
    let demands: Vec<Demand> = stage.demands.iter().filter_map(|demand| reduced(demand, kept)).collect();
    let reduced = Stage {
        machine: &machine,
        demands: canonical(&demands),
        running: stage.running,
        others: if kept.contains(&Constraint::Others) { stage.others.clone() } else { Vec::new() },
        housekeeping: &housekeeping,
        allocatable_nodes: &allocatable_nodes(&machine, &housekeeping),
        effort: Effort::Any,
    };
    look(&reduced, &hardware)
}

/// The demand without what is not insisted on any more; none without the slice.
fn reduced(demand: &Demand, kept: &BTreeSet<Constraint>) -> Option<Demand> {
    let unit = || demand.unit.clone();
    if !kept.contains(&Constraint::Slice { unit: unit() }) {
        return None;
    }
    let mut demand = demand.clone();
    let insists =
        |policy: WishPolicy, constraint: Constraint| policy == WishPolicy::Prefer || kept.contains(&constraint);
    demand.near.retain(|near| insists(near.policy, Constraint::Near { unit: unit(), to: near.unit.clone() }));
    demand.apart.retain(|apart| insists(apart.policy, Constraint::Apart { unit: unit(), from: apart.unit.clone() }));
    demand.ordinal = demand.ordinal.filter(|wish| insists(wish.policy, Constraint::Ordinal { unit: unit() }));
    demand.nodes = demand.nodes.filter(|_| kept.contains(&Constraint::Nodes { unit: unit() }));
    if !kept.contains(&Constraint::CoreType { unit: unit() }) {
        demand.core_type = CoreType::Any;
    }
    for wish in &mut demand.align {
        let constraint = Constraint::Align { unit: unit(), domain: wish.domain };
        if wish.policy == AlignPolicy::Require && !kept.contains(&constraint) {
            wish.policy = AlignPolicy::Prefer;
        }
    }
    Some(demand)
}

/// The message: who asks for what, what there is, what helps.
fn in_words(stage: &Stage, site: &Site, conflict: &BTreeSet<Constraint>) -> String {
    let asking = |demand: &&&Demand| conflict.contains(&Constraint::Slice { unit: demand.unit.clone() });
    let slices: Vec<&Demand> = stage.demands.iter().filter(asking).copied().collect();
    let asked: Vec<String> = slices.iter().map(|demand| asked(demand, conflict, stage)).collect();
    let available = with_only(stage, site, conflict, |stage, hardware| available(stage, hardware, conflict));
    let remedies = remedies(&slices, conflict, available.1);
    format!("{}; {}; {}", asked.join(", "), available.0, remedies.join(", or "))
}

fn asked(demand: &Demand, conflict: &BTreeSet<Constraint>, stage: &Stage) -> String {
    let (count, field) = least(demand);
    let unit = if matches!(demand.cpus, Wanted::Cpus(_)) { "CPUs" } else { "whole cores" };
    let least = if demand.min.is_some() { "at least " } else { "" };
    let mut text = match &demand.cpus {
        Wanted::Set { cpus, on_missing: _ } => format!("slice {} asks for CPUs {cpus} (cpu.set)", demand.slice),
        Wanted::Cores(_) | Wanted::Cpus(_) => {
            format!("slice {} asks for {least}{count} {unit}", demand.slice)
        }
    };
    let mut is_plain = !matches!(demand.cpus, Wanted::Set { .. });
    let name = |unit: &lamina_crds::UnitName| {
        let known = stage.demands.iter().find(|other| other.unit == *unit);
        known.map_or_else(|| unit.to_string(), |other| other.slice.to_string())
    };
    for constraint in conflict {
        let words = match constraint {
            Constraint::Align { unit, domain } if *unit == demand.unit => format!("in one {}", long_word(*domain)),
            Constraint::CoreType { unit } if *unit == demand.unit => {
                format!("of type {:?} (cpu.coreType)", demand.core_type)
            }
            Constraint::Nodes { unit } if *unit == demand.unit => {
                format!("in nodes {} (numa.nodes)", demand.nodes.clone().unwrap_or_default())
            }
            Constraint::Ordinal { unit } if *unit == demand.unit => {
                let ordinal = demand.ordinal.map_or(0, |wish| wish.ordinal);
                format!("in the node of ordinal {ordinal} (numa.ordinal)")
            }
            Constraint::Near { unit, to } if *unit == demand.unit => format!("near {} (numa.near)", name(to)),
            Constraint::Apart { unit, from } if *unit == demand.unit => {
                format!("apart from {} (numa.apart)", name(from))
            }
            Constraint::Align { .. }
            | Constraint::CoreType { .. }
            | Constraint::Nodes { .. }
            | Constraint::Ordinal { .. }
            | Constraint::Near { .. }
            | Constraint::Apart { .. }
            | Constraint::Slice { .. }
            | Constraint::Housekeeping
            | Constraint::Kubelet
            | Constraint::Others => continue,
        };
        is_plain = false;
        text = format!("{text} {words}");
    }
    if is_plain { format!("{text} ({field})") } else { text }
}

/// The least that a slice accepts, and the field that says so.
fn least(demand: &Demand) -> (u32, &'static str) {
    match (&demand.cpus, demand.min) {
        (_, Some(min)) => (min, "cpu.min"),
        (Wanted::Set { cpus, on_missing: _ }, None) => (cpus.len() as u32, "cpu.set"),
        (Wanted::Cores(count), None) => (*count, "cpu.cores"),
        (Wanted::Cpus(count), None) => (*count, "cpu.cpus"),
    }
}

/// What there is for the slices of a conflict, in words and as a number.
fn available(stage: &Stage, hardware: &Hardware, conflict: &BTreeSet<Constraint>) -> (String, u32) {
    let board = stage.board(&stage.demands, &Settled::new(), false);
    let besides = besides(stage, conflict);
    let aligned = conflict.iter().find_map(|constraint| match constraint {
        Constraint::Align { domain, .. } => Some(*domain),
        Constraint::Slice { .. }
        | Constraint::CoreType { .. }
        | Constraint::Nodes { .. }
        | Constraint::Ordinal { .. }
        | Constraint::Near { .. }
        | Constraint::Apart { .. }
        | Constraint::Housekeeping
        | Constraint::Kubelet
        | Constraint::Others => None,
    });
    let most = if board.demands.len() == 1 { board.most(0) } else { 0 };
    match (aligned, board.demands.len()) {
        (Some(domain), 1) => {
            let nodes = match domain {
                Domain::Node => {
                    let ids = stage.machine.node_ids(stage.allocatable_nodes.iter().copied());
                    format!(" (nodes {ids})")
                }
                Domain::Package | Domain::L3 => String::new(),
            };
            let word = super::report::word(domain);
            (format!("the largest {word} of this host has {most}{nodes}{besides}"), most)
        }
        (None, 1) => {
            let cores = hardware.online_cores().len();
            let free = board.free();
            let free = if free.is_empty() { "none".to_owned() } else { free.to_string() };
            (format!("{most} are left for it on this host of {cores} cores (CPUs {free}{besides})"), most)
        }
        (_, slices) => {
            let cores = board.capacity_in_cores();
            let free = board.free();
            let nodes = stage.machine.node_ids(stage.allocatable_nodes.iter().copied());
            let of = stage.machine.domains_of(NODE, &free).len();
            let many = if of > 1 { format!(" in {of} nodes ({nodes})") } else { String::new() };
            (format!("the {slices} of them find {cores} cores on this host{many} (CPUs {free}{besides})"), cores)
        }
    }
}

fn besides(stage: &Stage, conflict: &BTreeSet<Constraint>) -> String {
    let mut held: Vec<String> = Vec::new();
    if conflict.contains(&Constraint::Others) {
        held.extend(stage.others.iter().map(|occupant| occupant.unit.to_string()));
    }
    if conflict.contains(&Constraint::Housekeeping) {
        held.push(format!("housekeeping on CPUs {}", stage.housekeeping));
    }
    if conflict.contains(&Constraint::Kubelet) {
        held.push("the CPUs that the kubelet's static policy may give to pods".to_owned());
    }
    if held.is_empty() { String::new() } else { format!(", besides {}", held.join(", ")) }
}

fn remedies(slices: &[&Demand], conflict: &BTreeSet<Constraint>, available: u32) -> Vec<String> {
    let mut remedies = Vec::new();
    match slices {
        [one] if one.min.is_some() => remedies.push("lower cpu.min".to_owned()),
        [one] if has_filter(conflict) && available > 0 && matches!(one.cpus, Wanted::Cores(_) | Wanted::Cpus(_)) => {
            remedies.push(format!("write cpu.min: {available}"));
        }
        [one] => remedies.push(format!("lower {}", least(one).1)),
        several => {
            let fields: BTreeSet<&str> = several.iter().map(|demand| least(demand).1).collect();
            let fields: Vec<&str> = fields.into_iter().collect();
            remedies.push(format!("lower {} of one of them", fields.join(" or ")));
        }
    }
    for constraint in conflict {
        match constraint {
            Constraint::Align { unit: _, domain } => {
                remedies.push(format!("cpu.align: [{{domain: {domain:?}, policy: Prefer}}]"));
            }
            Constraint::CoreType { unit: _ } => remedies.push("write cpu.coreType: Any".to_owned()),
            Constraint::Nodes { unit: _ } => remedies.push("name more nodes in numa.nodes".to_owned()),
            Constraint::Ordinal { unit: _ } => remedies.push("write numa.ordinalPolicy: Prefer".to_owned()),
            Constraint::Near { .. } => remedies.push("prefer numa.near instead of requiring it".to_owned()),
            Constraint::Apart { .. } => remedies.push("prefer numa.apart instead of requiring it".to_owned()),
            Constraint::Housekeeping => remedies.push("lower housekeeping".to_owned()),
            Constraint::Kubelet => {
                remedies.push("raise the kubelet's reservedSystemCPUs or set its cpuManagerPolicy to none".to_owned())
            }
            Constraint::Others | Constraint::Slice { .. } => {}
        }
    }
    if !has_filter(conflict) {
        remedies.push("free cores on this host".to_owned());
    }
    remedies
}

/// Whether the conflict is about where, not only about how many.
fn has_filter(conflict: &BTreeSet<Constraint>) -> bool {
    conflict.iter().any(|constraint| match constraint {
        Constraint::Align { .. }
        | Constraint::CoreType { .. }
        | Constraint::Nodes { .. }
        | Constraint::Ordinal { .. }
        | Constraint::Near { .. }
        | Constraint::Apart { .. } => true,
        Constraint::Slice { .. } | Constraint::Housekeeping | Constraint::Kubelet | Constraint::Others => false,
    })
}

fn long_word(domain: Domain) -> &'static str {
    match domain {
        Domain::Node => "NUMA node",
        Domain::Package | Domain::L3 => super::report::word(domain),
    }
}

fn missing_cpus(demand: &Demand, missing: &CpuSet, hardware: &Hardware) -> Refusal {
    let set = named(demand);
    let online = &hardware.cpus.online;
    let offline = missing.intersection(&hardware.cpus.offline);
    let what = if !offline.is_empty() && offline == *missing { "offline" } else { "missing" };
    infeasible(format!(
        "slice {} asks for CPUs {set} (cpu.set); {missing} are {what} on this host, whose online CPUs are {online}; \
         name CPUs that are online, or ask for a number of cores with cpu.cores",
        demand.slice
    ))
}

fn taken_cpus(demand: &Demand, holder: &Holder, cpus: &CpuSet) -> Refusal {
    let set = named(demand);
    let slice = &demand.slice;
    match holder {
        Holder::Unit(holder) => {
            let message = format!(
                "slice {slice} asks for CPUs {set} (cpu.set); {cpus} belong to {holder}; name other CPUs, or make both \
                 slices isolation: Shared"
            );
            Refusal { reason: Reason::CpusTaken, message }
        }
        Holder::Housekeeping => infeasible(format!(
            "slice {slice} asks for CPUs {set} (cpu.set); {cpus} are kept free on this host (housekeeping); name other \
             CPUs, or lower housekeeping"
        )),
        Holder::Kubelet => infeasible(format!(
            "slice {slice} asks for CPUs {set} (cpu.set); the kubelet's static CPU manager may give {cpus} to pods; name \
             CPUs of its reservedSystemCPUs, or set its cpuManagerPolicy to none"
        )),
    }
}

fn named(demand: &Demand) -> CpuSet {
    match &demand.cpus {
        Wanted::Set { cpus, on_missing: _ } => cpus.clone(),
        Wanted::Cores(_) | Wanted::Cpus(_) => CpuSet::new(),
    }
}

fn infeasible(message: String) -> Refusal {
    Refusal { reason: Reason::Infeasible, message }
}
