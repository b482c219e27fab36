//! Decides which CPUs are kept free of managed slices, and which nodes have any left.

use lamina_crds::CpuSet;
use lamina_crds::wishes::Per;

use crate::placement::demand::HousekeepingWish;
use crate::placement::machine::Machine;
use crate::placement::problem::NODE;

/// The CPUs of the cores that are kept free: those of every set, and as many of the lowest as the largest wish says.
pub fn kept_free(machine: &Machine, wishes: &[HousekeepingWish]) -> CpuSet {
    let (mut per_host, mut per_node) = (0, 0);
    let mut is_kept = vec![false; machine.cores.len()];
    for wish in wishes {
        match wish {
            HousekeepingWish::Cores { count, per: Per::Host } => per_host = per_host.max(*count),
            HousekeepingWish::Cores { count, per: Per::Node } => per_node = per_node.max(*count),
            HousekeepingWish::Set(cpus) => {
                machine.cores_touching(cpus).into_iter().for_each(|core| is_kept[core] = true)
            }
        }
    }
    let isolated = &machine.hardware.cpus.isolated;
    let mut left_in_node = vec![per_node; machine.domains[NODE]];
    for core in 0..machine.cores.len() {
        if machine.threads(core).iter().any(|cpu| isolated.contains(*cpu)) {
            continue;
        }
        let in_node = &mut left_in_node[machine.cores[core].domains[NODE] as usize];
        is_kept[core] |= per_host > 0 || *in_node > 0;
        per_host = per_host.saturating_sub(1);
        *in_node = in_node.saturating_sub(1);
    }
    let kept = (0..is_kept.len()).filter(|core| is_kept[*core]);
    kept.flat_map(|core| machine.threads(core)).copied().collect()
}

/// The nodes that have CPUs which slices may be given, in order of number; cores in no node count for none.
pub fn allocatable_nodes(machine: &Machine, housekeeping: &CpuSet) -> Vec<u16> {
    let isolated = &machine.hardware.cpus.isolated;
    let is_free = |core: &usize| {
        machine.threads(*core).iter().all(|cpu| !housekeeping.contains(*cpu) && !isolated.contains(*cpu))
    };
    let cores = (0..machine.cores.len()).filter(is_free);
    let mut nodes: Vec<u16> = cores.map(|core| machine.cores[core].domains[NODE]).collect();
    nodes.sort_unstable();
    nodes.dedup();
    nodes.retain(|node| machine.node_id(*node).is_some());
    nodes
}
