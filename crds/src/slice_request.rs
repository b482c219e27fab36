//! What a slice asks of a machine: which CPUs and how they lie, which NUMA nodes, which memory; and what is kept free.
//!
//! An absent field is a default in meaning only: nothing is ever written into the object.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::bytes::Bytes;
use crate::cel;
use crate::id_set::{CpuSet, NodeSet};
use crate::names::{DeviceName, SliceName};
use crate::slice_topology::MemoryLimits;
use crate::wishes::{
    Alignment, CoreType, Domain, MemoryPolicy, Migration, NodesFrom, OnMissing, Per, Siblings, WishPolicy,
};

/// Which CPUs, or how many: exactly one of `set`, `cores` and `cpus`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = cel::exactly_one(&["set", "cores", "cpus"]))]
#[x_kube(validation = cel::fewest_is_at_most_the_wish())]
#[x_kube(validation = cel::only_with("min", &["cores", "cpus"]))]
#[x_kube(validation = cel::only_with("shareWith", &["cores", "cpus"]))]
#[x_kube(validation = cel::only_with("onMissing", &["set"]))]
#[x_kube(validation = cel::idle_siblings_need_cores())]
pub struct CpuRequest {
    /// Exactly these CPUs, in the kernel's list form. All must exist and be online on every selected host; see onMissing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = cel::list_is_not_empty())]
    pub set: Option<CpuSet>,
    /// What becomes of CPUs of set that are not online when the slice is first placed. Refuse (the default meaning): the
    /// topology is refused on that host. UseOnline: the online part is used, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_missing: Option<OnMissing>,
    /// That many whole physical cores, with all their online threads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 8192))]
    pub cores: Option<u32>,
    /// That many logical CPUs (hardware threads). They may split cores; as few as possible are split.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 8192))]
    pub cpus: Option<u32>,
    /// Consent to get fewer where there are not enough, down to this many, in the unit of cores or cpus. Without it nothing
    /// shrinks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 8192))]
    pub min: Option<u32>,
    /// Consent to run inside the CPUs of that slice of this topology where there are not enough for both.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share_with: Option<SliceName>,
    /// Which threads of its cores are used. Take (the default meaning): all online ones. Idle: only the first one; the core
    /// is owned all the same, so nobody runs beside it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub siblings: Option<Siblings>,
    /// Which kind of core, on machines that mix them. Any (the default meaning) takes what there is, but not several kinds
    /// in one slice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub core_type: Option<CoreType>,
    /// How the cores lie in domains, the most important first. Not given: as few NUMA nodes, then as few last-level caches
    /// as can be.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 3), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["domain"]))]
    pub align: Vec<Alignment>,
}

/// On which NUMA nodes, near to or apart from which slices and devices.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = cel::only_with("ordinalPolicy", &["ordinal"]))]
pub struct NumaRequest {
    /// The n-th online NUMA node that has allocatable CPUs, counted from 0: the portable form of "node 0, node 1".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1023))]
    pub ordinal: Option<u32>,
    /// Whether another node than ordinal says will do. Prefer (the default meaning): it is reported. Require: the topology is
    /// refused on that host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ordinal_policy: Option<WishPolicy>,
    /// The only NUMA nodes whose CPUs the slice may have, by the kernel's numbers. They must be online and have CPUs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = cel::choice_is_not_empty())]
    pub nodes: Option<NodeSet>,
    /// Slices whose domain this one wants to share, or be close to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["slice"]))]
    pub near: Vec<Neighbour>,
    /// Slices whose domains this one wants to avoid.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["slice"]))]
    pub apart: Vec<Neighbour>,
    /// Devices whose NUMA node is preferred: PCI addresses, or names of network or block devices.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "set"))]
    pub near_devices: Vec<DeviceName>,
}

/// Another slice of the same topology.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Neighbour {
    /// The slice's name.
    pub slice: SliceName,
    /// In which kind of domain; Node if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<Domain>,
    /// Whether the wish may go unmet. Prefer (the default meaning): it is reported. Require: the topology is refused on that
    /// host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<WishPolicy>,
}

/// Where the memory of a slice comes from, and how much of it: min <= low <= high <= max. See
/// systemd.resource-control(5) and the kernel's cgroup-v2 documentation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = cel::memory_order())]
#[x_kube(validation = cel::listed_memory_nodes())]
pub struct SliceMemory {
    /// Where its memory nodes come from (`cpuset.mems`). CPUs (the default meaning): the nodes of its CPUs, one without
    /// memory replaced by the nearest that has some. All: every node with memory. List: those in nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes_from: Option<NodesFrom>,
    /// The memory nodes, by the kernel's numbers, for nodesFrom List. They must be online and have memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = cel::choice_is_not_empty())]
    pub nodes: Option<NodeSet>,
    /// How its services spread their memory over these nodes (`NUMAPolicy=`), set_mempolicy(2). Not given: as systemd is
    /// configured, usually the node of the CPU that touches a page first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<MemoryPolicy>,
    /// When a change of the memory nodes reaches a running slice. OnRestart (the default meaning): once its services have
    /// been restarted, reported as PendingRestart until then. Now: at once; moving pages blocks systemd meanwhile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub migrate: Option<Migration>,
    /// Memory that is never reclaimed (`memory.min`), granted through every ancestor. The sum over all slices must fit the
    /// host and the nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<Bytes>,
    /// Memory that is reclaimed only when nothing else can be (`memory.low`), granted through every ancestor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub low: Option<Bytes>,
    /// Above this, processes are throttled and reclaimed from (`memory.high`). At least 16Mi.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = cel::memory_floor())]
    pub high: Option<Bytes>,
    /// Above this, processes are killed (`memory.max`). At least 16Mi.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = cel::memory_floor())]
    pub max: Option<Bytes>,
    /// Swap that may be used (`memory.swap.max`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub swap_max: Option<Bytes>,
}

impl SliceMemory {
    /// Protection and limits alone; none if no amount is given.
    pub fn limits(&self) -> Option<MemoryLimits> {
        let Self { nodes_from: _, nodes: _, policy: _, migrate: _, min, low, high, max, swap_max } = self;
        let limits = MemoryLimits { min: *min, low: *low, high: *high, max: *max, swap_max: *swap_max };
        (limits != MemoryLimits::default()).then_some(limits)
    }
}

/// Cores that no managed slice may take: exactly one of `set` and `cores`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = cel::exactly_one(&["set", "cores"]))]
#[x_kube(validation = cel::only_with("per", &["cores"]))]
pub struct Housekeeping {
    /// The cores of these CPUs, in the kernel's list form.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = cel::choice_is_not_empty())]
    pub set: Option<CpuSet>,
    /// That many cores; 0 keeps nothing free.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 8192))]
    pub cores: Option<u32>,
    /// Over what cores are counted: Host (the default meaning), or Node for as many on every NUMA node that has CPUs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per: Option<Per>,
}
