//! What a machine is: its CPUs, cores, caches and NUMA nodes as domains of CPUs, compact enough for a status.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::bytes::Bytes;
use crate::id_set::{CpuSet, NodeSet};

/// The inventory of one host as its agent read it. Changes only when the machine does. At most 8 KiB on 512 CPUs.
///
/// Source: `/sys/devices/system/{cpu,node}`, see the kernel's `Documentation/ABI/stable/sysfs-devices-system-cpu`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Hardware {
    /// The machine's identity, machine-id(5).
    #[serde(rename = "machineID")]
    #[schemars(length(max = 64))]
    pub machine_id: String,
    /// Which logical CPUs there are.
    pub cpus: CpuInventory,
    /// Sockets with their online CPUs.
    #[schemars(length(max = 256), extend("x-kubernetes-list-type" = "atomic"))]
    pub packages: Vec<Package>,
    /// Online NUMA nodes in order of number.
    #[schemars(length(max = 1024), extend("x-kubernetes-list-type" = "atomic"))]
    pub numa_nodes: Vec<NumaNode>,
    /// Online CPUs that share one last-level cache, one list per cache.
    #[schemars(length(max = 1024), extend("x-kubernetes-list-type" = "atomic"))]
    pub l3: Vec<CpuSet>,
    /// Online CPUs of each core that has several; a CPU named nowhere here is a core of its own.
    #[schemars(length(max = 8192), extend("x-kubernetes-list-type" = "atomic"))]
    pub cores: Vec<CpuSet>,
    /// The kinds of core, where a machine mixes them; empty where all are of one kind.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub core_types: Vec<CoreGroup>,
    /// Network and block devices that lie near a NUMA node.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 128), extend("x-kubernetes-list-type" = "atomic"))]
    pub devices: Vec<Device>,
    /// The kubelet that runs on the host; absent where none does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kubelet: Option<Kubelet>,
    /// The running kernel's release.
    #[schemars(length(max = 128))]
    pub kernel: String,
    /// The running systemd's version, leading digits only.
    #[schemars(length(max = 32))]
    pub systemd: String,
}

/// Which logical CPUs a host has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CpuInventory {
    /// CPUs that run and may be used.
    pub online: CpuSet,
    /// CPUs that are present and do not run, or that the topmost cgroup keeps back.
    pub offline: CpuSet,
    /// CPUs that the kernel keeps out of scheduling (`isolcpus=`).
    pub isolated: CpuSet,
}

/// One socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Package {
    /// The kernel's `physical_package_id`.
    #[schemars(range(min = 0))]
    pub id: u32,
    /// Its online CPUs.
    pub cpus: CpuSet,
}

/// One NUMA node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NumaNode {
    /// The kernel's node number.
    #[schemars(range(min = 0, max = 8191))]
    pub id: u32,
    /// Its online CPUs; empty for a node of memory only.
    pub cpus: CpuSet,
    /// Its memory (`MemTotal`); zero for a node of CPUs only.
    pub memory: Bytes,
    /// Distances to the nodes of this list, in its order (ACPI SLIT; 10 is local).
    #[schemars(length(max = 1024), extend("x-kubernetes-list-type" = "atomic"))]
    pub distances: Vec<u32>,
}

/// The online CPUs of one kind of core.
///
/// Source: `cpu_capacity`, the `cpu_core` and `cpu_atom` event sources, else the highest frequency.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CoreGroup {
    /// The kind.
    #[serde(rename = "type")]
    pub core_type: CoreKind,
    /// Its online CPUs.
    pub cpus: CpuSet,
}

/// A kind of core on a machine that mixes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum CoreKind {
    /// The fast kind.
    Performance,
    /// The frugal kind.
    Efficiency,
}

/// A device whose place in the machine is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Device {
    /// The kernel's name of the network or block device.
    #[schemars(length(max = 64))]
    pub name: String,
    /// Its address on the PCI bus (`0000:3b:00.0`), if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub pci: Option<String>,
    /// Its NUMA node; absent where the firmware does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 8191))]
    pub node: Option<u32>,
}

/// What the kubelet of a host does with CPUs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Kubelet {
    /// Its `cpuManagerPolicy`: none or static.
    #[schemars(length(max = 32))]
    pub cpu_manager_policy: String,
    /// Its `reservedSystemCPUs`.
    #[serde(rename = "reservedCPUs", default)]
    pub reserved_cpus: CpuSet,
    /// Its `cgroupDriver`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 32))]
    pub cgroup_driver: String,
}

impl Hardware {
    /// The physical cores that have at least one online CPU, in order of their first CPU.
    pub fn online_cores(&self) -> Vec<CpuSet> {
        let shared = self.cores.iter().fold(CpuSet::new(), |all, core| all.union(core));
        let single = self.cpus.online.iter().filter(|cpu| !shared.contains(*cpu)).map(|cpu| CpuSet::from_iter([cpu]));
        let several =
            self.cores.iter().map(|core| core.intersection(&self.cpus.online)).filter(|core| !core.is_empty());
        let mut cores: Vec<CpuSet> = single.chain(several).collect();
        cores.sort_by_key(CpuSet::first);
        cores
    }

    /// All CPUs that are present, online or not.
    pub fn present_cpus(&self) -> CpuSet {
        self.cpus.online.union(&self.cpus.offline)
    }

    /// The nodes that have memory.
    pub fn memory_nodes(&self) -> NodeSet {
        self.numa_nodes.iter().filter(|node| node.memory > Bytes::new(0)).map(|node| node.id).collect()
    }

    /// The memory of all nodes.
    pub fn memory(&self) -> Bytes {
        self.numa_nodes.iter().map(|node| node.memory).sum()
    }

    /// The nodes to which these CPUs belong.
    pub fn nodes_of(&self, cpus: &CpuSet) -> NodeSet {
        self.numa_nodes.iter().filter(|node| !node.cpus.is_disjoint(cpus)).map(|node| node.id).collect()
    }
}
