//! Decides which CPUs and memory nodes each slice gets on one host: all wishes jointly, proven or explained.
//!
//! What is weighed, most important first:
//!
//! 1. What must hold: CPUs are online, not isolated (unless named), not kept free, in `numa.nodes`, of the core type (one
//!    kind per slice), in one domain where `align` requires it, tied as `near` and `apart` require, left to the system by a
//!    static kubelet; nobody has what an exclusive slice has.
//! 2. How many each gets: the first list of [`quantities::sequence`] for which there is an arrangement.
//! 3. [`Level::Moves`]: cores that running slices give up beyond what shrinking forces.
//! 4. [`Level::Domains`]: for each position of `align`, and there for each priority from the highest on, the domains that
//!    slices use beyond what as many cores need on this host alone (for `Spread`: the most in a domain less the least).
//! 5. [`Level::Wishes`]: nodes used other than the wished ordinal; domains of a slice outside those of one it wants to be
//!    near; domains in common with one it wants to be apart from; nodes used that hold none of its devices.
//! 6. [`Level::Distance`]: between the nodes of each slice, and from nodes of one that should be near to the other's nearest.
//! 7. Then the fewest L3 caches and nodes partly used and the lowest numbers, by construction.
//!
//! The verdict speaks of levels 3 to 6. A topology is placed whole or refused whole. All topologies are placed together if
//! each then has its full wish and nothing moves; else one after the other in the order of their first appearance (the
//! caller puts incumbents first), and what the others hold is out of reach, so that nobody is pushed away.

mod answer;
mod board;
mod bound;
mod company;
mod conflict;
mod crossings;
mod demand;
mod housekeeping;
mod kinds;
mod machine;
mod memory;
mod numbers;
mod options;
mod packing;
mod problem;
mod quantities;
mod report;
mod search;
pub mod shapes;
mod stage;
mod staged;
mod state;
mod tally;
mod tree;

use std::collections::BTreeMap;

use lamina_crds::slice_topology::Isolation;
use lamina_crds::{CpuSet, TopologyName, UnitName};

pub use crate::placement::answer::{
    Constraint, Gap, Level, LevelCost, MemoryMove, Move, Objective, Placed, PlacedSlice, Shortfall, Spread, Verdict,
    WishField,
};
use crate::placement::conflict::explain;
pub use crate::placement::demand::{
    Demand, HousekeepingWish, Incumbent, MemoryNodesWish, OrdinalWish, Placement, Relation, Site, Wanted,
};
use crate::placement::housekeeping::{allocatable_nodes, kept_free};
use crate::placement::machine::Machine;
use crate::placement::report::Report;
use crate::placement::stage::{Effort, Stage, canonical};
use crate::placement::staged::{Claim, Occupant, Staged};
use crate::placement::tally::Tally;

/// Places all demands of one host.
pub fn place(demands: &[Demand], site: &Site, running: &Placement) -> Placed {
    let machine = Machine::of(site.hardware);
    let housekeeping = kept_free(&machine, &site.housekeeping);
    let allocatable_nodes = allocatable_nodes(&machine, &housekeeping);
    let host =
        Host { machine: &machine, site, housekeeping: &housekeeping, allocatable_nodes: &allocatable_nodes, running };
    let mut placed = host.jointly(demands).unwrap_or_else(|| host.in_turn(demands));
    placed.housekeeping = housekeeping.clone();
    placed
}

/// One host while slices are being placed on it.
struct Host<'a> {
    machine: &'a Machine<'a>,
    site: &'a Site<'a>,
    housekeeping: &'a CpuSet,
    allocatable_nodes: &'a [u16],
    running: &'a Placement,
}

impl Host<'_> {
    /// All topologies at once, if each gets its full wish and nothing moves.
    fn jointly(&self, demands: &[Demand]) -> Option<Placed> {
        if topologies_in_order(demands).len() < 2 {
            return None;
        }
        let occupants = occupants(demands, self.running);
        let foreign = |occupant: &&Occupant| demands.iter().all(|demand| demand.topology != occupant.topology);
        let stage = self.stage(demands.iter().collect(), occupants.values().filter(foreign).collect());
        let staged = stage.solve().ok()?;
        if !staged.is_full || staged.tally.objective().cost(Level::Moves) > 0 {
            return None;
        }
        let mut placed = Placed::default();
        self.report(&stage, &staged, &mut placed);
        placed.objective = staged.tally.objective();
        placed.verdict = staged.tally.verdict();
        Some(placed)
    }

    /// One topology after the other.
    fn in_turn(&self, demands: &[Demand]) -> Placed {
        let mut held = occupants(demands, self.running);
        let mut placed = Placed::default();
        let mut tally = Tally::default();
        for topology in topologies_in_order(demands) {
            let own: Vec<&Demand> = demands.iter().filter(|demand| demand.topology == *topology).collect();
            let others: Vec<&Occupant> = held.values().filter(|occupant| occupant.topology != *topology).collect();
            let stage = self.stage(own.clone(), others);
            match stage.solve() {
                Ok(mut staged) => {
                    self.report(&stage, &staged, &mut placed);
                    tally.join(std::mem::take(&mut staged.tally));
                    let occupants: Vec<(UnitName, Occupant)> =
                        own.iter().filter_map(|demand| Some((demand.unit.clone(), occupy(demand, &staged)?))).collect();
                    held.retain(|_, occupant| occupant.topology != *topology);
                    held.extend(occupants);
                }
                Err(trouble) => {
                    let (refusal, conflict) = explain(&stage, self.site, &trouble);
                    placed.refusals.insert(topology.clone(), refusal);
                    placed.conflicts.insert(topology.clone(), conflict);
                }
            }
        }
        placed.objective = tally.objective();
        placed.verdict = tally.verdict();
        placed
    }

    fn stage<'a>(&'a self, demands: Vec<&'a Demand>, others: Vec<&'a Occupant>) -> Stage<'a> {
        Stage {
            machine: self.machine,
            demands: canonical(demands),
            running: self.running,
            others,
            housekeeping: self.housekeeping,
            allocatable_nodes: self.allocatable_nodes,
            effort: Effort::Best,
        }
    }

    fn report(&self, stage: &Stage, staged: &Staged, placed: &mut Placed) {
        let Self { machine, site: _, housekeeping, allocatable_nodes, running } = self;
        let report = Report { machine, running, allocatable_nodes, housekeeping, staged };
        for demand in &stage.demands {
            let Some(given) = staged.given.get(&demand.unit) else { continue };
            let slice = report.slice(demand, given);
            placed.moves.extend(report.moved(demand, &slice));
            placed.slices.insert(demand.unit.clone(), slice);
        }
    }
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

fn occupy(demand: &Demand, staged: &Staged) -> Option<Occupant> {
    let cpus = staged.given.get(&demand.unit)?.cpus.clone();
    let (topology, unit) = (demand.topology.clone(), demand.unit.clone());
    Some(Occupant { topology, unit, cpus, claim: claim_of(demand.isolation) })
}

#[cfg(test)]
pub(crate) mod tests;
