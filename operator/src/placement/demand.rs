//! What placement is asked: the wishes of one slice, and the host with what is kept free on it.

use std::collections::BTreeMap;

use lamina_crds::slice_topology::Isolation;
use lamina_crds::wishes::{Alignment, CoreType, Domain, OnMissing, Per, Siblings, WishPolicy};
use lamina_crds::{CpuSet, Hardware, NodeSet, SliceName, TopologyName, UnitName};

/// What one slice asks of a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Demand {
    /// The topology it belongs to.
    pub topology: TopologyName,
    /// Its name, for messages.
    pub slice: SliceName,
    /// Its unit, unique on the host.
    pub unit: UnitName,
    /// Who is served better where not all can be: higher first.
    pub priority: i32,
    /// Which CPUs, or how many.
    pub cpus: Wanted,
    /// Consent to get fewer, down to this many, in the unit of [`Self::cpus`].
    pub min: Option<u32>,
    /// Consent to run inside that slice's CPUs when there are not enough.
    pub share_with: Option<UnitName>,
    /// Which threads of its cores are used.
    pub siblings: Siblings,
    /// Which kind of core.
    pub core_type: CoreType,
    /// How its cores lie in domains, most important first; empty means fewest NUMA nodes, then fewest L3 caches.
    pub align: Vec<Alignment>,
    /// Wanted: the n-th NUMA node that has allocatable CPUs.
    pub ordinal: Option<OrdinalWish>,
    /// The only NUMA nodes whose CPUs it may have.
    pub nodes: Option<NodeSet>,
    /// Slices whose domains it wants to share.
    pub near: Vec<Relation>,
    /// Slices whose domains it wants to avoid.
    pub apart: Vec<Relation>,
    /// Devices whose NUMA node it prefers, by PCI address or name.
    pub near_devices: Vec<String>,
    /// Where its memory comes from.
    pub memory_nodes: MemoryNodesWish,
    /// Whether others may use its CPUs.
    pub isolation: Isolation,
}

impl Demand {
    /// A slice that wants CPUs and has no further wish.
    pub fn of(topology: TopologyName, slice: SliceName, unit: UnitName, cpus: Wanted) -> Self {
        Self {
            topology,
            slice,
            unit,
            priority: 0,
            cpus,
            min: None,
            share_with: None,
            siblings: Siblings::Take,
            core_type: CoreType::Any,
            align: Vec::new(),
            ordinal: None,
            nodes: None,
            near: Vec::new(),
            apart: Vec::new(),
            near_devices: Vec::new(),
            memory_nodes: MemoryNodesWish::Cpus,
            isolation: Isolation::Exclusive,
        }
    }
}

/// Which CPUs, or how many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Exactly these CPUs.
    Set {
        /// The CPUs.
        cpus: CpuSet,
        /// What becomes of those that are not online.
        on_missing: OnMissing,
    },
    /// That many whole physical cores.
    Cores(u32),
    /// That many logical CPUs; cores may be split.
    Cpus(u32),
}

/// The n-th NUMA node that has allocatable CPUs, counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OrdinalWish {
    /// Which.
    pub ordinal: u32,
    /// Whether another will do.
    pub policy: WishPolicy,
}

/// A wish about where another slice of the same topology is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relation {
    /// The other slice's unit.
    pub unit: UnitName,
    /// In which kind of domain.
    pub domain: Domain,
    /// Whether it may go unmet.
    pub policy: WishPolicy,
}

/// Where the memory nodes of a slice come from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum MemoryNodesWish {
    /// The nodes of its CPUs; one without memory is replaced by the nearest that has some.
    #[default]
    Cpus,
    /// Every node that has memory.
    All,
    /// These.
    List(NodeSet),
}

/// The host on which slices are placed.
#[derive(Clone, Debug)]
pub struct Site<'a> {
    /// What the machine is.
    pub hardware: &'a Hardware,
    /// What is kept free of managed slices: the union of all sets, and as many cores as the largest wish says.
    pub housekeeping: Vec<HousekeepingWish>,
}

/// Cores that no managed slice may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HousekeepingWish {
    /// That many cores, the lowest.
    Cores {
        /// How many.
        count: u32,
        /// Over what they are counted.
        per: Per,
    },
    /// The cores of these CPUs.
    Set(CpuSet),
}

/// Where the slices of a host are, by unit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placement {
    /// What each slice holds.
    pub slices: BTreeMap<UnitName, Incumbent>,
}

/// What a slice holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incumbent {
    /// The topology it belongs to.
    pub topology: TopologyName,
    /// Its CPUs, online or not.
    pub cpus: CpuSet,
    /// Its memory nodes; none where nothing is to be chosen.
    pub memory_nodes: Option<NodeSet>,
}
