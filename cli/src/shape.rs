//! Decides what machine a few numbers mean: packages, nodes, caches and cores of equal size, numbered as Linux does.

use lamina_crds::hardware::{CpuInventory, NumaNode, Package};
use lamina_crds::{Bytes, CpuSet, Hardware};
use serde::{Deserialize, Serialize};

/// The most logical CPUs of a shape, the largest number that a CPU may bear plus one.
pub const MOST_CPUS: u64 = 8192;

/// A regular machine in a few numbers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Shape {
    /// Sockets.
    pub packages: u32,
    /// NUMA nodes of each socket.
    pub nodes_per_package: u32,
    /// Last-level caches of each node.
    pub l3_per_node: u32,
    /// Cores of each cache.
    #[serde(rename = "coresPerL3")]
    pub cores_per_l3: u32,
    /// Threads of each core.
    pub threads_per_core: u32,
    /// How CPUs are numbered.
    pub numbering: Numbering,
    /// Memory of each node.
    pub memory_per_node: Bytes,
    /// CPUs that are switched off.
    pub offline: CpuSet,
    /// CPUs that the kernel keeps out of scheduling.
    pub isolated: CpuSet,
}

/// How the first threads of cores are numbered; the second threads follow all first ones in the same order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Numbering {
    /// Package by package.
    #[default]
    Sequential,
    /// One core of each package in turn.
    Alternating,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            packages: 1,
            nodes_per_package: 1,
            l3_per_node: 1,
            cores_per_l3: 1,
            threads_per_core: 1,
            numbering: Numbering::Sequential,
            memory_per_node: Bytes::mebi(64 << 10),
            offline: CpuSet::new(),
            isolated: CpuSet::new(),
        }
    }
}

impl Shape {
    /// How many logical CPUs it has, online or not.
    pub fn cpu_count(&self) -> u64 {
        let parts = [self.packages, self.nodes_per_package, self.l3_per_node, self.cores_per_l3, self.threads_per_core];
        parts.into_iter().fold(1u64, |product, part| product.saturating_mul(u64::from(part)))
    }

    /// The inventory of such a machine. Distances are those of common boards: 10 in a node, 12 in a package, 32 beyond.
    pub fn hardware(&self) -> Hardware {
        let nodes = self.packages * self.nodes_per_package;
        let per_node = self.l3_per_node * self.cores_per_l3;
        let present: CpuSet = (0..nodes * per_node * self.threads_per_core).collect();
        let online = present.difference(&self.offline);
        let cpus_of = |first: u32, count: u32| -> CpuSet {
            let cores = (first..first + count).flat_map(|core| self.threads(core));
            cores.collect::<CpuSet>().intersection(&online)
        };
        let l3 = (0..nodes * self.l3_per_node).map(|cache| cpus_of(cache * self.cores_per_l3, self.cores_per_l3));
        let cores = (0..nodes * per_node).map(|core| cpus_of(core, 1)).filter(|core| core.len() > 1);
        let per_package = self.nodes_per_package * per_node;
        let package = |id: u32| Package { id, cpus: cpus_of(id * per_package, per_package) };
        let node = |id: u32| NumaNode {
            id,
            cpus: cpus_of(id * per_node, per_node),
            memory: self.memory_per_node,
            distances: (0..nodes).map(|other| self.distance(id, other)).collect(),
        };
        Hardware {
            cpus: CpuInventory {
                offline: present.intersection(&self.offline),
                isolated: self.isolated.intersection(&present),
                online: online.clone(),
            },
            packages: (0..self.packages).map(package).filter(|package| !package.cpus.is_empty()).collect(),
            numa_nodes: (0..nodes).map(node).collect(),
            l3: l3.filter(|cache| !cache.is_empty()).collect(),
            cores: cores.collect(),
            ..Hardware::default()
        }
    }

    /// The numbers of the threads of the n-th core, counted package by package.
    fn threads(&self, core: u32) -> impl Iterator<Item = u32> + use<> {
        let per_package = self.nodes_per_package * self.l3_per_node * self.cores_per_l3;
        let total = self.packages * per_package;
        let first = match self.numbering {
            Numbering::Sequential => core,
            Numbering::Alternating => core % per_package * self.packages + core / per_package,
        };
        (0..self.threads_per_core).map(move |thread| first + thread * total)
    }

    fn distance(&self, from: u32, to: u32) -> u32 {
        match (from == to, from / self.nodes_per_package == to / self.nodes_per_package) {
            (true, _) => 10,
            (false, true) => 12,
            (false, false) => 32,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alternating_numbers_go_round_the_packages() {
        let shape = Shape {
            packages: 2,
            cores_per_l3: 28,
            threads_per_core: 2,
            numbering: Numbering::Alternating,
            ..Shape::default()
        };
        let hardware = shape.hardware();
        assert_eq!(hardware.numa_nodes[0].cpus.first(), Some(0));
        assert_eq!(hardware.numa_nodes[1].cpus.first(), Some(1));
        assert_eq!(hardware.cores[0].to_string(), "0,56");
        assert_eq!(hardware.cores[28].to_string(), "1,57");
        assert_eq!(hardware.online_cores().len(), 56);
    }

    #[test]
    fn two_packages_of_twelve_caches_are_numbered_as_the_kernel_does() {
        let shape = Shape { packages: 2, l3_per_node: 12, cores_per_l3: 8, threads_per_core: 2, ..Shape::default() };
        let hardware = shape.hardware();
        assert_eq!(hardware.l3[0].to_string(), "0-7,192-199");
        assert_eq!(hardware.l3[12].to_string(), "96-103,288-295");
        assert_eq!(hardware.numa_nodes[1].distances, [32, 10]);
    }

    #[test]
    fn a_core_with_one_online_thread_is_a_core_of_its_own() {
        let shape = Shape { cores_per_l3: 4, threads_per_core: 2, offline: CpuSet::from_iter([5]), ..Shape::default() };
        let hardware = shape.hardware();
        assert_eq!(hardware.cores.len(), 3);
        assert_eq!(hardware.online_cores().len(), 4);
        assert_eq!(hardware.cpus.offline.to_string(), "5");
    }
}
