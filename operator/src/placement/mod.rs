//! Decides which CPUs and memory nodes each slice gets on one host. What runs stays where it is as long as it fits;
//! a topology is placed whole or refused whole.

mod answer;
mod demand;
mod fit;
mod machine;

use std::collections::BTreeMap;

use lamina_crds::conditions::Reason;
use lamina_crds::slice_topology::Isolation;
use lamina_crds::{CpuSet, Hardware, TopologyName, UnitName};

pub use crate::placement::answer::{
    Gap, Level, LevelCost, MemoryMove, Move, Objective, Placed, PlacedSlice, Shortfall, Spread, Verdict, WishField,
};
pub use crate::placement::demand::{
    Demand, HousekeepingWish, Incumbent, MemoryNodesWish, OrdinalWish, Placement, Relation, Site, Wanted,
};
use crate::placement::fit::{Wishes, choose};
use crate::placement::machine::Machine;
use crate::view::Refusal;

/// Places all demands of one host.
///
/// Topologies are served in the order in which they first appear: the caller puts incumbents first. What a topology
/// holds stays reserved until that topology itself is placed anew, so nobody is pushed away.
pub fn place(demands: &[Demand], site: &Site, running: &Placement) -> Placed {
    let hardware = site.hardware;
    let machine = Machine::of(hardware);
    let mut held = occupants(demands, running);
    let mut placed = Placed::default();
    for topology in topologies_in_order(demands) {
        let own: Vec<&Demand> = demands.iter().filter(|demand| demand.topology == *topology).collect();
        let others: Vec<&Occupant> = held.values().filter(|occupant| occupant.topology != *topology).collect();
        let site = Stage { machine: &machine, hardware, running, others };
        match site.place_topology(&own) {
            Ok(slices) => {
                held.retain(|_, occupant| occupant.topology != *topology);
                held.extend(own.iter().filter_map(|demand| Some((demand.unit.clone(), occupy(demand, &slices)?))));
                placed.slices.extend(slices);
            }
            Err(refusal) => {
                placed.refusals.insert(topology.clone(), refusal);
            }
        }
    }
    placed
}

/// CPUs that are spoken for.
#[derive(Clone, Debug)]
struct Occupant {
    topology: TopologyName,
    unit: UnitName,
    cpus: CpuSet,
    claim: Claim,
}

/// How firmly an occupant holds its CPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Claim {
    Exclusive,
    Shared,
    /// Held by an entry whose topology asks for nothing now (being removed, or refused): nobody new may come in, and
    /// whoever already shares with it stays.
    Unasked,
}

fn topologies_in_order(demands: &[Demand]) -> Vec<&TopologyName> {
    let mut order: Vec<&TopologyName> = Vec::new();
    for demand in demands {
        if !order.contains(&&demand.topology) {
            order.push(&demand.topology);
        }
    }
    order
}

fn occupants(demands: &[Demand], running: &Placement) -> BTreeMap<UnitName, Occupant> {
    let claim = |unit: &UnitName| match demands.iter().find(|demand| demand.unit == *unit) {
        Some(demand) => claim_of(demand.isolation),
        None => Claim::Unasked,
    };
    let occupant = |(unit, incumbent): (&UnitName, &Incumbent)| {
        let Incumbent { topology, cpus, memory_nodes: _ } = incumbent;
        let occupant =
            Occupant { topology: topology.clone(), unit: unit.clone(), cpus: cpus.clone(), claim: claim(unit) };
        (unit.clone(), occupant)
    };
    running.slices.iter().map(occupant).collect()
}

fn claim_of(isolation: Isolation) -> Claim {
    match isolation {
        Isolation::Exclusive => Claim::Exclusive,
        Isolation::Shared => Claim::Shared,
    }
}

fn occupy(demand: &Demand, slices: &BTreeMap<UnitName, PlacedSlice>) -> Option<Occupant> {
    let Demand { topology, unit, isolation, .. } = demand;
    let cpus = slices.get(unit)?.cpus.clone();
    Some(Occupant { topology: topology.clone(), unit: unit.clone(), cpus, claim: claim_of(*isolation) })
}

/// One host while one topology is being placed on it.
struct Stage<'a> {
    machine: &'a Machine,
    hardware: &'a Hardware,
    running: &'a Placement,
    others: Vec<&'a Occupant>,
}

/// CPUs chosen so far, in the order of choosing.
type Chosen<'a> = Vec<(&'a Demand, CpuSet)>;

impl Stage<'_> {
    fn place_topology(&self, own: &[&Demand]) -> Result<BTreeMap<UnitName, PlacedSlice>, Refusal> {
        let mut chosen: Chosen = Vec::new();
        for demand in own {
            if let Wanted::Set { cpus: set, on_missing: _ } = &demand.cpus {
                self.accept_set(demand, set, &chosen)?;
                chosen.push((demand, set.clone()));
            }
        }
        for demand in own {
            if let Some(cpus) = self.kept(demand, &chosen) {
                chosen.push((demand, cpus));
            }
        }
        for demand in placing_order(own, &chosen) {
            let cpus = self.newly_placed(demand, &chosen)?;
            chosen.push((demand, cpus));
        }
        Ok(chosen.into_iter().map(|(demand, cpus)| (demand.unit.clone(), self.placed(demand, cpus))).collect())
    }

    fn accept_set(&self, demand: &Demand, set: &CpuSet, chosen: &Chosen) -> Result<(), Refusal> {
        let online = &self.hardware.cpus.online;
        let runs_there = self.running.slices.get(&demand.unit).is_some_and(|incumbent| incumbent.cpus == *set);
        let usable = if runs_there { self.hardware.present_cpus() } else { online.clone() };
        let missing = set.difference(&usable);
        if set.is_empty() || !missing.is_empty() {
            return Err(missing_cpus(demand, set, &missing, self.hardware));
        }
        let firm = |occupant: &&&Occupant| !runs_there || occupant.claim != Claim::Unasked;
        let blocking = self.others.iter().filter(firm).find(|occupant| collides(demand.isolation, occupant, set));
        if let Some(occupant) = blocking {
            return Err(taken_cpus(demand, set, &occupant.unit, &occupant.cpus));
        }
        match chosen.iter().find(|(other, cpus)| excludes(demand, other) && !cpus.is_disjoint(set)) {
            Some((other, cpus)) => Err(taken_cpus(demand, set, &other.unit, cpus)),
            None => Ok(()),
        }
    }

    /// The CPUs that a running slice keeps, if they still are what it asks for.
    fn kept(&self, demand: &Demand, chosen: &Chosen) -> Option<CpuSet> {
        let Wanted::Cores(wanted) = demand.cpus else { return None };
        let held = &self.running.slices.get(&demand.unit)?.cpus;
        let offline = held.difference(&self.hardware.cpus.online);
        let cores = self.machine.cores_touching(held);
        let cpus = Machine::cpus_of(&cores).union(&offline);
        let present = offline.is_subset(&self.hardware.cpus.offline);
        let count = cores.len() as u32;
        let enough = count == wanted || (count < wanted && count + offline.len() as u32 >= wanted);
        let grown = cpus.difference(held);
        let is_free = self.others.iter().all(|occupant| match occupant.claim {
            Claim::Unasked => occupant.cpus.is_disjoint(&grown),
            Claim::Exclusive | Claim::Shared => !collides(demand.isolation, occupant, &cpus),
        });
        let is_clear = chosen.iter().all(|(other, taken)| !excludes(demand, other) || taken.is_disjoint(&cpus));
        (!held.is_empty() && present && enough && is_free && is_clear).then_some(cpus)
    }

    fn newly_placed(&self, demand: &Demand, chosen: &Chosen) -> Result<CpuSet, Refusal> {
        let Wanted::Cores(wanted) = demand.cpus else { return Ok(CpuSet::new()) };
        let (blocked, shared) = self.blocked(demand, chosen);
        let held = self.running.slices.get(&demand.unit).map(|incumbent| &incumbent.cpus);
        let wishes = self.wishes(demand, chosen);
        let choice = |blocked: &CpuSet| choose(self.machine, blocked, wanted as usize, held, &wishes);
        let found = choice(&blocked.union(&shared)).or_else(|| choice(&blocked));
        found.ok_or_else(|| too_few_cores(demand, wanted, &self.machine.free(&blocked), self))
    }

    /// CPUs that the demand may not have, and those it may have but rather would not.
    fn blocked(&self, demand: &Demand, chosen: &Chosen) -> (CpuSet, CpuSet) {
        let claims = self.others.iter().map(|occupant| (&occupant.cpus, occupant.claim));
        let own = chosen.iter().map(|(other, cpus)| (cpus, claim_of(other.isolation)));
        let mut blocked = CpuSet::new();
        let mut shared = CpuSet::new();
        for (cpus, claim) in claims.chain(own) {
            match (demand.isolation, claim) {
                (Isolation::Shared, Claim::Shared) => shared = shared.union(cpus),
                (Isolation::Exclusive, _) | (_, Claim::Exclusive | Claim::Unasked) => blocked = blocked.union(cpus),
            }
        }
        (blocked, shared)
    }

    /// What the demand wishes, in terms of CPUs already chosen. Wishes are mutual: who names the other does not matter.
    fn wishes(&self, demand: &Demand, chosen: &Chosen) -> Wishes {
        let related = |list: fn(&Demand) -> &Vec<Relation>| {
            let names = |one: &Demand, other: &Demand| list(one).iter().any(|relation| relation.unit == other.unit);
            let named = |other: &Demand| names(demand, other) || names(other, demand);
            chosen.iter().filter(|(other, _)| named(other)).fold(CpuSet::new(), |all, (_, cpus)| all.union(cpus))
        };
        Wishes {
            node: demand.ordinal.and_then(|ordinal| self.machine.node_by_ordinal(ordinal.ordinal)),
            near: self.machine.nodes_of(&related(|demand| &demand.near)),
            apart: self.machine.nodes_of(&related(|demand| &demand.apart)),
        }
    }

    fn placed(&self, demand: &Demand, cpus: CpuSet) -> PlacedSlice {
        let incumbent = self.running.slices.get(&demand.unit);
        let memory_nodes = self.machine.memory_nodes(&cpus, incumbent);
        let offline = cpus.difference(&self.hardware.cpus.online);
        PlacedSlice { cpus, memory_nodes, offline, ..PlacedSlice::default() }
    }
}

/// Those not yet chosen: exclusive ones first, among them those with a wished node, then the largest.
fn placing_order<'a>(own: &[&'a Demand], chosen: &Chosen) -> Vec<&'a Demand> {
    let is_open = |demand: &&&Demand| !chosen.iter().any(|(done, _)| done.unit == demand.unit);
    let mut open: Vec<&Demand> = own.iter().filter(is_open).copied().collect();
    open.sort_by_key(|demand| {
        let cores = match demand.cpus {
            Wanted::Cores(cores) | Wanted::Cpus(cores) => cores,
            Wanted::Set { .. } => 0,
        };
        (demand.isolation, demand.ordinal.is_none(), std::cmp::Reverse(cores))
    });
    open
}

fn excludes(one: &Demand, other: &Demand) -> bool {
    one.isolation == Isolation::Exclusive || other.isolation == Isolation::Exclusive
}

fn collides(isolation: Isolation, occupant: &Occupant, cpus: &CpuSet) -> bool {
    let compatible = isolation == Isolation::Shared && occupant.claim == Claim::Shared;
    !compatible && !occupant.cpus.is_disjoint(cpus)
}

fn missing_cpus(demand: &Demand, set: &CpuSet, missing: &CpuSet, hardware: &Hardware) -> Refusal {
    let online = &hardware.cpus.online;
    let offline = missing.intersection(&hardware.cpus.offline);
    let what = if !offline.is_empty() && offline == *missing { "offline" } else { "missing" };
    infeasible(format!(
        "slice {} asks for CPUs {set} (cpu.set); {missing} are {what} on this host, whose online CPUs are {online}; \
         name CPUs that are online, or ask for a number of cores with cpu.cores",
        demand.slice
    ))
}

fn taken_cpus(demand: &Demand, set: &CpuSet, holder: &UnitName, held: &CpuSet) -> Refusal {
    let message = format!(
        "slice {} asks for CPUs {set} (cpu.set); {} belong to {holder}; name other CPUs, or make both slices \
         isolation: Shared",
        demand.slice,
        set.intersection(held),
    );
    Refusal { reason: Reason::CpusTaken, message }
}

fn too_few_cores(demand: &Demand, wanted: u32, free: &CpuSet, site: &Stage) -> Refusal {
    let cores = site.machine.cores_touching(free).len();
    let holders: Vec<&str> = site.others.iter().map(|occupant| occupant.unit.as_str()).collect();
    let free = if free.is_empty() { "none".to_owned() } else { free.to_string() };
    let held = if holders.is_empty() { String::new() } else { format!(", besides {}", holders.join(", ")) };
    infeasible(format!(
        "slice {} asks for {wanted} whole cores (cpu.cores); {cores} are left for it on this host of {} cores (CPUs \
         {free}{held}); lower cpu.cores, or free cores on this host",
        demand.slice,
        site.machine.core_count(),
    ))
}

fn infeasible(message: String) -> Refusal {
    Refusal { reason: Reason::Infeasible, message }
}

#[cfg(test)]
pub(crate) mod tests;
