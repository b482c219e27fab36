//! Decides from which NUMA nodes a slice takes its memory: never one that has none, and none at all to choose on a host
//! of one node.

use lamina_crds::{CpuSet, NodeSet};

use crate::placement::demand::{Incumbent, MemoryNodesWish};
use crate::placement::machine::Machine;
use crate::placement::problem::NODE;

/// The memory nodes of a slice on these CPUs. None where nothing is to be chosen.
pub fn memory_nodes(
    machine: &Machine,
    wish: &MemoryNodesWish,
    cpus: &CpuSet,
    incumbent: Option<&Incumbent>,
) -> Option<NodeSet> {
    let with_memory: Vec<u16> = machine.memory_nodes().collect();
    if machine.is_single_node() || with_memory.is_empty() {
        return None;
    }
    let all = machine.node_ids(with_memory.iter().copied());
    match wish {
        MemoryNodesWish::All => Some(all),
        MemoryNodesWish::List(nodes) => {
            let listed = nodes.intersection(&all);
            Some(if listed.is_empty() { all } else { listed })
        }
        MemoryNodesWish::Cpus => {
            let nearest =
                |node: u16| with_memory.iter().copied().min_by_key(|other| (machine.distance(node, *other), *other));
            let own = machine.node_ids(machine.domains_of(NODE, cpus).into_iter().filter_map(nearest));
            let own = if own.is_empty() { all.clone() } else { own };
            // CPUs that went offline say nothing about their node: what the slice has beside them it keeps.
            let has_offline = !cpus.is_subset(&machine.hardware.cpus.online);
            let kept = incumbent.filter(|incumbent| has_offline && incumbent.cpus == *cpus);
            let kept = kept.and_then(|incumbent| incumbent.memory_nodes.clone());
            Some(kept.filter(|kept| own.is_subset(kept) && kept.is_subset(&all)).unwrap_or(own))
        }
    }
}
