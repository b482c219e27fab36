//! Decides which free cores one demand gets: fewest NUMA nodes, then fewest caches, then what was wished, then the place
//! that leaves the fewest broken remnants, then the lowest numbers.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use lamina_crds::CpuSet;

use crate::placement::machine::{Core, Machine};

/// What a demand would like, in terms of NUMA nodes.
pub struct Wishes {
    /// This node.
    pub node: Option<u32>,
    /// A node of these, or close to them.
    pub near: Vec<u32>,
    /// None of these.
    pub apart: Vec<u32>,
}

/// Chooses `wanted` whole cores outside `blocked`. What the demand already holds is kept as far as it is free.
/// None if there are too few.
pub fn choose(
    machine: &Machine,
    blocked: &CpuSet,
    wanted: usize,
    held: Option<&CpuSet>,
    wishes: &Wishes,
) -> Option<CpuSet> {
    let free = machine.free_cores(blocked);
    let (own, others): (Vec<&Core>, Vec<&Core>) =
        free.into_iter().partition(|core| held.is_some_and(|held| !core.cpus.is_disjoint(held)));
    if own.len() >= wanted {
        return best(machine, &own, wanted, wishes);
    }
    let kept = Machine::cpus_of(&own);
    let wishes = Wishes {
        node: wishes.node,
        near: if own.is_empty() { wishes.near.clone() } else { machine.nodes_of(&kept) },
        apart: wishes.apart.clone(),
    };
    let added = best(machine, &others, wanted - own.len(), &wishes)?;
    Some(kept.union(&added))
}

/// Free cores by node.
type Nodes<'a> = BTreeMap<u32, Vec<&'a Core>>;

fn best(machine: &Machine, free: &[&Core], wanted: usize, wishes: &Wishes) -> Option<CpuSet> {
    if wanted == 0 || free.len() < wanted {
        return (wanted == 0).then(CpuSet::new);
    }
    let mut nodes: Nodes = BTreeMap::new();
    for core in free {
        nodes.entry(core.node).or_default().push(core);
    }
    let candidates = nodes.keys().map(|first| candidate(machine, &nodes, *first, wanted, wishes));
    let chosen = candidates.min_by_key(|cores| score(machine, &nodes, cores, wishes))?;
    Some(Machine::cpus_of(&chosen))
}

/// The cores taken when the search starts at one node: all from it if it has enough, else whole nodes until one that is
/// close has enough for the rest. Subsets of nodes are never enumerated.
fn candidate<'a>(machine: &Machine, nodes: &Nodes<'a>, first: u32, wanted: usize, wishes: &Wishes) -> Vec<&'a Core> {
    let closeness = |node: &u32| (wishes.apart.contains(node), machine.distance(first, *node));
    let mut cores = Vec::new();
    let mut rest: BTreeSet<u32> = nodes.keys().copied().collect();
    let mut node = first;
    loop {
        rest.remove(&node);
        let missing = wanted - cores.len();
        cores.extend(from_node(&nodes[&node], missing.min(nodes[&node].len())));
        let missing = wanted - cores.len();
        let sufficient = rest.iter().filter(|node| nodes[*node].len() >= missing);
        let closest = sufficient.min_by_key(|node| (closeness(node), nodes[*node].len(), **node));
        let largest = || rest.iter().min_by_key(|node| (Reverse(nodes[*node].len()), closeness(node), **node));
        match closest.or_else(largest) {
            Some(next) if missing > 0 => node = *next,
            Some(_) | None => return cores,
        }
    }
}

/// So many cores of one node, out of the fewest caches: the smallest that suffices, else the largest and on.
fn from_node<'a>(free: &[&'a Core], wanted: usize) -> Vec<&'a Core> {
    let mut caches: BTreeMap<usize, Vec<&'a Core>> = BTreeMap::new();
    for core in free {
        caches.entry(core.cache).or_default().push(core);
    }
    let mut taken = Vec::new();
    while taken.len() < wanted {
        let missing = wanted - taken.len();
        let sufficient = caches.iter().filter(|(_, cores)| cores.len() >= missing);
        let smallest = sufficient.min_by_key(|(cache, cores)| (cores.len(), **cache));
        let largest = || caches.iter().min_by_key(|(cache, cores)| (Reverse(cores.len()), **cache));
        let Some(cache) = smallest.or_else(largest).map(|(cache, _)| *cache) else { return taken };
        taken.extend(caches.remove(&cache).unwrap_or_default().into_iter().take(missing));
    }
    taken
}

/// Smaller is better, compared from the first part on; the last part makes the answer unique.
type Score = (usize, usize, usize, usize, usize, u64, usize, Vec<Option<u32>>);

fn score(machine: &Machine, nodes: &Nodes, cores: &[&Core], wishes: &Wishes) -> Score {
    let used: BTreeSet<u32> = cores.iter().map(|core| core.node).collect();
    let caches: BTreeSet<(u32, usize)> = cores.iter().map(|core| (core.node, core.cache)).collect();
    let outside = |wished: &[u32]| cores.iter().filter(|core| !wished.contains(&core.node)).count();
    let astray = wishes.node.map_or(0, |node| outside(&[node]));
    let together = cores.len() - outside(&wishes.apart);
    let away = if wishes.near.is_empty() { 0 } else { outside(&wishes.near) };
    let distance = |core: &&Core| wishes.near.iter().map(|near| machine.distance(core.node, *near)).min();
    let distances = cores.iter().filter_map(distance).map(u64::from).sum();
    let free: usize = used.iter().map(|node| nodes[node].len()).sum();
    let ids = cores.iter().map(|core| core.cpus.first()).collect();
    (used.len(), astray, caches.len(), together, away, distances, free - cores.len(), ids)
}
