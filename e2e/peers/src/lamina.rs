//! Asks Lamina: all requests of an instance are slices of one topology, placed jointly.

use lamina_crds::{CpuSet, SliceName, TopologyName, UnitName};
use lamina_operator::placement::{Demand, Placement, Site, Verdict, Wanted, place};

use crate::instance::Instance;

/// Where Lamina puts the requests of an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaminaAnswer {
    /// One place for each request; none of them where the topology is refused.
    pub places: Vec<Option<CpuSet>>,
    /// Whether the answer is said to be the best.
    pub verdict: Verdict,
    /// Why the topology is refused, if it is.
    pub refusal: Option<String>,
}

/// Lamina's answer.
pub fn answer(instance: &Instance) -> LaminaAnswer {
    let hardware = instance.machine.hardware();
    let demands: Vec<Demand> =
        instance.requests.iter().enumerate().map(|(number, cores)| demand(number, *cores)).collect();
    let site = Site { hardware: &hardware, housekeeping: Vec::new() };
    let placed = place(&demands, &site, &Placement::default());
    let found = |demand: &Demand| placed.slices.get(&demand.unit).map(|slice| slice.cpus.clone());
    LaminaAnswer {
        places: demands.iter().map(found).collect(),
        verdict: placed.verdict,
        refusal: placed.refusals.values().next().map(|refusal| refusal.message.clone()),
    }
}

fn demand(number: usize, cores: u32) -> Demand {
    let topology: TopologyName = "requests".parse().expect("the name is valid");
    let slice: SliceName = format!("r{number}").parse().expect("a letter and digits are valid");
    let unit = UnitName::of_slice(&topology, &slice).expect("the names are short");
    Demand::of(topology, slice, unit, Wanted::Cores(cores))
}
