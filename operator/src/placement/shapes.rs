//! Machines and requests for benchmarks, tests and comparisons: four shapes of machine, and slices drawn for a load.
//! The same seed gives the same instance.

use lamina_crds::hardware::{CoreGroup, CoreKind, CpuInventory, NumaNode, Package};
use lamina_crds::wishes::{Domain, WishPolicy};
use lamina_crds::{Bytes, CpuSet, Hardware, SliceName, TopologyName, UnitName};

use crate::placement::demand::{Demand, Relation, Wanted};

/// A kind of machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// 2 nodes of 64 cores with two threads, an L3 cache for every 8 cores: 256 CPUs.
    Chiplets,
    /// 2 packages of 2 nodes of 64 cores with two threads, one L3 cache for both nodes of a package: 512 CPUs.
    SubNuma,
    /// One node: 96 fast cores with two threads and 320 frugal ones, an L3 cache for every 32 cores: 512 CPUs.
    Hybrid,
    /// 8 nodes of 32 cores with two threads and one L3 cache: 512 CPUs.
    EightNodes,
}

/// All shapes.
pub const SHAPES: [Shape; 4] = [Shape::Chiplets, Shape::SubNuma, Shape::Hybrid, Shape::EightNodes];

/// What the parts of a machine are, core by core.
struct Plan {
    threads: u32,
    node: u32,
    package: u32,
    cache: u32,
    kind: Option<CoreKind>,
}

/// A machine of a shape.
pub fn machine(shape: Shape) -> Hardware {
    let core = |core: u32| match shape {
        Shape::Chiplets => plan(2, core / 64, core / 64, core / 8),
        Shape::SubNuma => plan(2, core / 64, core / 128, core / 128),
        Shape::Hybrid if core < 96 => Plan { kind: Some(CoreKind::Performance), ..plan(2, 0, 0, core / 32) },
        Shape::Hybrid => Plan { kind: Some(CoreKind::Efficiency), ..plan(1, 0, 0, core / 32) },
        Shape::EightNodes => plan(2, core / 32, core / 128, core / 32),
    };
    let count = match shape {
        Shape::Chiplets => 128,
        Shape::SubNuma | Shape::EightNodes => 256,
        Shape::Hybrid => 416,
    };
    build(&(0..count).map(core).collect::<Vec<Plan>>())
}

/// A machine of equal packages, nodes, caches and cores, numbered in a row, second threads after all first ones.
pub fn regular(packages: u32, nodes: u32, caches: u32, cores: u32, threads: u32) -> Hardware {
    let per_node = caches * cores;
    let core = |core: u32| plan(threads, core / per_node, core / per_node / nodes, core / cores);
    build(&(0..packages * nodes * per_node).map(core).collect::<Vec<Plan>>())
}

fn plan(threads: u32, node: u32, package: u32, cache: u32) -> Plan {
    Plan { threads, node, package, cache, kind: None }
}

/// Numbers the first threads of all cores, then the second ones.
fn build(plans: &[Plan]) -> Hardware {
    let mut cpus: Vec<Vec<u32>> = vec![Vec::new(); plans.len()];
    let mut next = 0;
    for thread in 0..plans.iter().map(|plan| plan.threads).max().unwrap_or(0) {
        for (core, plan) in plans.iter().enumerate().filter(|(_, plan)| plan.threads > thread) {
            debug_assert!(plan.threads > 0, "a core has a thread");
            cpus[core].push(next);
            next += 1;
        }
    }
    let of = |is_part: &dyn Fn(&Plan) -> bool| -> CpuSet {
        let parts = plans.iter().zip(&cpus).filter(|(plan, _)| is_part(plan));
        parts.flat_map(|(_, cpus)| cpus).copied().collect()
    };
    let last = |number: fn(&Plan) -> u32| plans.iter().map(number).max().unwrap_or(0);
    let package_of = |node: u32| plans.iter().find(|plan| plan.node == node).map(|plan| plan.package);
    let distance = |from: u32, to: u32| match (from == to, package_of(from) == package_of(to)) {
        (true, _) => 10,
        (false, true) => 12,
        (false, false) => 21,
    };
    let nodes = last(|plan| plan.node);
    let node = |id: u32| NumaNode {
        id,
        cpus: of(&|plan| plan.node == id),
        memory: Bytes::mebi(64 << 10),
        distances: (0..=nodes).map(|other| distance(id, other)).collect(),
    };
    let group = |core_type: CoreKind| CoreGroup { core_type, cpus: of(&|plan| plan.kind == Some(core_type)) };
    let groups = [CoreKind::Performance, CoreKind::Efficiency].map(group);
    Hardware {
        cpus: CpuInventory { online: (0..next).collect(), ..CpuInventory::default() },
        packages: (0..=last(|plan| plan.package))
            .map(|id| Package { id, cpus: of(&|plan| plan.package == id) })
            .collect(),
        numa_nodes: (0..=nodes).map(node).collect(),
        l3: (0..=last(|plan| plan.cache)).map(|cache| of(&|plan| plan.cache == cache)).collect(),
        cores: cpus.iter().filter(|cpus| cpus.len() > 1).map(|cpus| cpus.iter().copied().collect()).collect(),
        core_types: groups.into_iter().filter(|group| !group.cpus.is_empty()).collect(),
        ..Hardware::default()
    }
}

/// Slices that together ask for so many hundredths of a machine's cores: 1 to 64 cores each, a third of them with a wish
/// to be near to or apart from an earlier one.
pub fn slices(hardware: &Hardware, count: u32, load: u32, seed: u64) -> Vec<Demand> {
    let mut dice = Dice::new(seed);
    let total = hardware.online_cores().len() as u32 * load / 100;
    let sizes = sizes(&mut dice, count.min(total), total);
    let mut demands: Vec<Demand> = Vec::new();
    for (index, size) in sizes.into_iter().enumerate() {
        let Some(mut demand) = named(index, Wanted::Cores(size)) else { continue };
        if index > 0 && dice.below(3) == 0 {
            let other = &demands[dice.below(index as u32) as usize];
            let relation = Relation { unit: other.unit.clone(), domain: Domain::Node, policy: WishPolicy::Prefer };
            match dice.below(2) {
                0 => demand.near.push(relation),
                _ => demand.apart.push(relation),
            }
        }
        demands.push(demand);
    }
    demands
}

/// A slice of the topology `bench`, without wishes. None if the name cannot be borne.
pub fn named(index: usize, cpus: Wanted) -> Option<Demand> {
    let topology = TopologyName::new("bench").ok()?;
    let slice = SliceName::new(format!("s{index:03}")).ok()?;
    let unit = UnitName::of_slice(&topology, &slice).ok()?;
    Some(Demand::of(topology, slice, unit, cpus))
}

/// Sizes between 1 and 64 with many small and few large ones, that add up to the total as far as they can.
fn sizes(dice: &mut Dice, count: u32, total: u32) -> Vec<u32> {
    let mut sizes = vec![1; count as usize];
    let weights: Vec<u32> = (0..count).map(|_| 1 << dice.below(7)).collect();
    let whole: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
    let mut rest = total.saturating_sub(count).min(63 * count);
    let spare = rest;
    for (size, weight) in sizes.iter_mut().zip(&weights) {
        let more = (u64::from(spare) * u64::from(*weight)).checked_div(whole).unwrap_or(0) as u32;
        *size += more.min(63);
        rest -= more.min(63);
    }
    while rest > 0 {
        let size = &mut sizes[dice.below(count) as usize];
        if *size < 64 {
            *size += 1;
            rest -= 1;
        }
    }
    sizes
}

/// A source of numbers that depend on the seed alone (splitmix64).
#[derive(Clone, Debug)]
pub struct Dice {
    state: u64,
}

impl Dice {
    /// Dice for a seed.
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// The next number.
    pub fn roll(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below a limit, which must not be 0.
    pub fn below(&mut self, limit: u32) -> u32 {
        (self.roll() % u64::from(limit)) as u32
    }
}
