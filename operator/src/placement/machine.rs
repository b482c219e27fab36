//! A machine as placement sees it: whole online cores, each in a NUMA node and a cache, and how far nodes are apart.
//! Domains are sets of CPUs, never a uniform tree.

use lamina_crds::{Bytes, CpuSet, Hardware, NodeSet};

use crate::placement::Incumbent;

/// The node of cores that lie in no online NUMA node; sorts behind every real one.
pub const NO_NODE: u32 = u32::MAX;

/// The online cores of one host, in order of their first CPU.
pub struct Machine {
    cores: Vec<Core>,
    nodes: Vec<Node>,
    isolated: CpuSet,
    is_single: bool,
}

/// One physical core with at least one online thread.
#[derive(Clone, Debug)]
pub struct Core {
    /// Its online CPUs.
    pub cpus: CpuSet,
    /// Its NUMA node, or [`NO_NODE`].
    pub node: u32,
    /// Its last-level cache, numbered by first CPU; cores without a known one share the last number.
    pub cache: usize,
}

struct Node {
    id: u32,
    cpus: CpuSet,
    has_memory: bool,
    distances: Vec<u32>,
}

impl Machine {
    /// Reads an inventory.
    pub fn of(hardware: &Hardware) -> Self {
        let mut caches: Vec<&CpuSet> = hardware.l3.iter().collect();
        caches.sort_by_key(|cache| cache.first());
        let core = |cpus: CpuSet| {
            let node = hardware.numa_nodes.iter().find(|node| !node.cpus.is_disjoint(&cpus));
            let cache = caches.iter().position(|cache| !cache.is_disjoint(&cpus));
            Core { node: node.map_or(NO_NODE, |node| node.id), cache: cache.unwrap_or(caches.len()), cpus }
        };
        let cores: Vec<Core> = hardware.online_cores().into_iter().map(core).collect();
        let nodes = hardware.numa_nodes.iter().map(|node| Node {
            id: node.id,
            cpus: node.cpus.clone(),
            has_memory: node.memory > Bytes::new(0),
            distances: node.distances.clone(),
        });
        let nodes: Vec<Node> = nodes.collect();
        let is_single = nodes.len() <= 1 && cores.iter().all(|core| core.node != NO_NODE || nodes.is_empty());
        Self { cores, nodes, isolated: hardware.cpus.isolated.clone(), is_single }
    }

    /// How many cores are online.
    pub fn core_count(&self) -> usize {
        self.cores.len()
    }

    /// The cores of which no CPU is blocked or kept out of scheduling by the kernel.
    pub fn free_cores(&self, blocked: &CpuSet) -> Vec<&Core> {
        let is_free = |core: &&Core| core.cpus.is_disjoint(blocked) && core.cpus.is_disjoint(&self.isolated);
        self.cores.iter().filter(is_free).collect()
    }

    /// The CPUs of [`Self::free_cores`].
    pub fn free(&self, blocked: &CpuSet) -> CpuSet {
        Self::cpus_of(&self.free_cores(blocked))
    }

    /// The cores that have a CPU in the set.
    pub fn cores_touching(&self, cpus: &CpuSet) -> Vec<&Core> {
        self.cores.iter().filter(|core| !core.cpus.is_disjoint(cpus)).collect()
    }

    /// All CPUs of these cores.
    pub fn cpus_of(cores: &[&Core]) -> CpuSet {
        cores.iter().fold(CpuSet::new(), |all, core| all.union(&core.cpus))
    }

    /// The n-th node that has CPUs, counted from 0.
    pub fn node_by_ordinal(&self, ordinal: u32) -> Option<u32> {
        self.nodes.iter().filter(|node| !node.cpus.is_empty()).nth(ordinal as usize).map(|node| node.id)
    }

    /// The nodes of the cores that have a CPU in the set, [`NO_NODE`] among them.
    pub fn nodes_of(&self, cpus: &CpuSet) -> Vec<u32> {
        let mut nodes: Vec<u32> = self.cores_touching(cpus).iter().map(|core| core.node).collect();
        nodes.sort_unstable();
        nodes.dedup();
        nodes
    }

    /// How far two nodes are apart, in the units of ACPI's table (10 is local); unknown is farthest.
    pub fn distance(&self, from: u32, to: u32) -> u32 {
        let place = |id: u32| self.nodes.iter().position(|node| node.id == id);
        let known = place(from).zip(place(to)).and_then(|(from, to)| self.nodes[from].distances.get(to));
        known.copied().unwrap_or(if from == to { 10 } else { u32::from(u8::MAX) })
    }

    /// The memory nodes of a slice on these CPUs: their own nodes, each without memory replaced by the nearest that has
    /// some. None on a host where nothing is to be chosen. A slice that stays keeps what it has.
    pub fn memory_nodes(&self, cpus: &CpuSet, incumbent: Option<&Incumbent>) -> Option<NodeSet> {
        let with_memory: Vec<u32> = self.nodes.iter().filter(|node| node.has_memory).map(|node| node.id).collect();
        if self.is_single || with_memory.is_empty() {
            return None;
        }
        let stays = incumbent.filter(|incumbent| incumbent.cpus == *cpus);
        let kept = stays.and_then(|incumbent| incumbent.memory_nodes.as_ref()).filter(|nodes| !nodes.is_empty());
        if let Some(nodes) = kept.filter(|nodes| nodes.iter().all(|node| with_memory.contains(&node))) {
            return Some(nodes.clone());
        }
        let nearest = |node: u32| with_memory.iter().copied().min_by_key(|other| (self.distance(node, *other), *other));
        let own = self.nodes_of(cpus).into_iter().filter_map(nearest).collect::<NodeSet>();
        Some(if own.is_empty() { with_memory.into_iter().collect() } else { own })
    }
}
