//! What placement answers: the place of every slice, what it lacks, how good the whole is and how that is known.

use std::collections::BTreeMap;
use std::fmt;

use lamina_crds::wishes::Domain;
use lamina_crds::{CpuSet, NodeSet, TopologyName, UnitName};
use serde::Serialize;

use crate::view::Refusal;

/// The answer: every demand is either placed or part of a refused topology.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Placed {
    /// Slices that have their place, by unit.
    pub slices: BTreeMap<UnitName, PlacedSlice>,
    /// Topologies that this host cannot hold, and why.
    pub refusals: BTreeMap<TopologyName, Refusal>,
    /// What makes refused topologies impossible: not all of it can be had, and without any one of it the rest can. Empty
    /// where named CPUs are not there or belong to somebody.
    pub conflicts: BTreeMap<TopologyName, Vec<Constraint>>,
    /// How good the answer is known to be.
    pub verdict: Verdict,
    /// What the answer costs, level by level.
    pub objective: Objective,
    /// Running slices whose CPUs change.
    pub moves: Vec<Move>,
    /// CPUs kept free of managed slices.
    pub housekeeping: CpuSet,
}

/// How good an answer is known to be, on the levels of [`Objective`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Verdict {
    /// Nothing better exists: a lower bound is met, or the search is exhausted.
    #[default]
    Optimal,
    /// The search ended at its bound; nothing is known to be better than this by more than the gap.
    Feasible {
        /// How far the answer may be from the best.
        gap: Gap,
    },
}

/// How far an answer may be from the best.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Gap {
    /// The first level on which something better may exist.
    pub level: Level,
    /// By how much at most.
    pub amount: u32,
}

/// What an answer costs, most important first. Smaller is better, compared from the first level on.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct Objective {
    /// The levels with their costs.
    pub levels: Vec<LevelCost>,
}

/// The cost on one level.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LevelCost {
    /// The level.
    pub level: Level,
    /// The cost there.
    pub cost: u32,
}

/// A level of the objective.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Level {
    /// Cores that running slices give up beyond what shrinking forces.
    Moves,
    /// Domains that slices of one priority use beyond their unavoidable minimum.
    Domains {
        /// The place in the slices' `cpu.align`, counted from 0: by default NUMA nodes are 0 and L3 caches 1.
        position: u32,
        /// The priority of the slices.
        priority: i32,
    },
    /// Domains by which `numa.ordinal`, `near`, `apart` and `nearDevices` go unmet.
    Wishes,
    /// Distances between the nodes of each slice, and to those it wants to be near.
    Distance,
}

/// The place of one slice.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PlacedSlice {
    /// Its CPUs; those that went offline under it are still named.
    pub cpus: CpuSet,
    /// Its memory nodes; none where nothing is to be chosen.
    pub memory_nodes: Option<NodeSet>,
    /// Those of its CPUs that are offline.
    pub offline: CpuSet,
    /// What it asked for: cores, or CPUs where it asked for CPUs.
    pub asked: u32,
    /// What it got, in the same unit.
    pub got: u32,
    /// In how many domains its cores lie.
    pub spread: Vec<Spread>,
    /// What it wanted and lacks.
    pub shortfalls: Vec<Shortfall>,
}

/// In how many domains of a kind the cores of a slice lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Spread {
    /// The kind of domain.
    pub domain: Domain,
    /// How many are used.
    pub used: u32,
    /// How many that many cores need on this host, were it alone there.
    pub least: u32,
}

/// What a slice wanted and lacks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "kind")]
pub enum Shortfall {
    /// It got fewer, as its `cpu.min` allows.
    Shrunk {
        /// What it asked for, in its own unit.
        asked: u32,
        /// What it got.
        got: u32,
    },
    /// It runs inside another slice, as its `cpu.shareWith` allows.
    Shared {
        /// The other slice.
        with: UnitName,
        /// What all slices asked for together, in cores.
        asked: u32,
        /// What there is for them, in cores.
        available: u32,
    },
    /// A preference could not be met.
    Relaxed {
        /// The field that states it.
        field: WishField,
        /// The kind of domain it speaks of.
        domain: Domain,
        /// What was asked, in words.
        asked: String,
        /// What it is instead, in words.
        got: String,
    },
    /// Some of its CPUs are offline; it stays where it is.
    Offline {
        /// Those CPUs.
        cpus: CpuSet,
        /// What it asked for, in its own unit.
        asked: u32,
        /// What is left of that.
        left: u32,
    },
}

/// A field of a slice that states a preference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum WishField {
    /// `cpu.align`.
    #[serde(rename = "cpu.align")]
    Align,
    /// `cpu.set` with `cpu.onMissing: UseOnline`.
    #[serde(rename = "cpu.set")]
    Set,
    /// `numa.ordinal`.
    #[serde(rename = "numa.ordinal")]
    Ordinal,
    /// `numa.near`.
    #[serde(rename = "numa.near")]
    Near,
    /// `numa.apart`.
    #[serde(rename = "numa.apart")]
    Apart,
    /// `numa.nearDevices`.
    #[serde(rename = "numa.nearDevices")]
    NearDevices,
    /// `memory.nodesFrom`.
    #[serde(rename = "memory.nodesFrom")]
    MemoryNodes,
}

/// Something that must hold, and that can be given up.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "kind")]
pub enum Constraint {
    /// That a slice is there at all, with the least that it accepts.
    Slice {
        /// Which.
        unit: UnitName,
    },
    /// `cpu.align` with `Require`.
    Align {
        /// Whose.
        unit: UnitName,
        /// In which domain.
        domain: Domain,
    },
    /// `cpu.coreType`.
    CoreType {
        /// Whose.
        unit: UnitName,
    },
    /// `numa.nodes`.
    Nodes {
        /// Whose.
        unit: UnitName,
    },
    /// `numa.ordinal` with `Require`.
    Ordinal {
        /// Whose.
        unit: UnitName,
    },
    /// `numa.near` with `Require`.
    Near {
        /// Whose.
        unit: UnitName,
        /// To whom.
        to: UnitName,
    },
    /// `numa.apart` with `Require`.
    Apart {
        /// Whose.
        unit: UnitName,
        /// From whom.
        from: UnitName,
    },
    /// `housekeeping`.
    Housekeeping,
    /// The kubelet's static CPU manager.
    Kubelet,
    /// What slices of other topologies hold.
    Others,
}

/// A running slice whose CPUs change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Move {
    /// The slice.
    pub unit: UnitName,
    /// CPUs it gets.
    pub gained: CpuSet,
    /// CPUs it gives up.
    pub lost: CpuSet,
    /// Memory nodes before and after, where they change.
    pub memory_nodes: Option<MemoryMove>,
}

/// A change of memory nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MemoryMove {
    /// The nodes so far.
    pub from: NodeSet,
    /// The nodes from now on.
    pub to: NodeSet,
}

impl Objective {
    /// The cost on one level; nothing where the level does not occur.
    pub fn cost(&self, level: Level) -> u32 {
        self.levels.iter().find(|cost| cost.level == level).map_or(0, |cost| cost.cost)
    }
}

impl fmt::Display for WishField {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Align => "cpu.align",
            Self::Set => "cpu.set",
            Self::Ordinal => "numa.ordinal",
            Self::Near => "numa.near",
            Self::Apart => "numa.apart",
            Self::NearDevices => "numa.nearDevices",
            Self::MemoryNodes => "memory.nodesFrom",
        })
    }
}

impl fmt::Display for Shortfall {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shrunk { asked, got } => write!(formatter, "{got} of {asked} (cpu.min allows it)"),
            Self::Shared { with, asked, available } => {
                write!(formatter, "runs inside {with}: {available} cores on this host, {asked} asked")
            }
            Self::Relaxed { field, domain: _, asked, got } => write!(formatter, "{field}: {asked} wanted, {got}"),
            Self::Offline { cpus, asked, left } => write!(formatter, "{left} of {asked}: CPUs {cpus} are offline"),
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Optimal => formatter.write_str("Optimal"),
            Self::Feasible { gap } => write!(formatter, "Feasible (at most {gap} from the best)"),
        }
    }
}

impl fmt::Display for Gap {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { level, amount } = self;
        match level {
            Level::Moves => write!(formatter, "{amount} cores moved"),
            Level::Domains { position, priority: _ } => {
                write!(formatter, "{amount} domains at place {position} of cpu.align")
            }
            Level::Wishes => write!(formatter, "{amount} domains of wishes"),
            Level::Distance => write!(formatter, "{amount} of distance"),
        }
    }
}
