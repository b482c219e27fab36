//! What stands around a stage and what comes of it: who holds CPUs, what each slice gets, or why there is nothing.

use std::collections::BTreeMap;

use lamina_crds::{CpuSet, NodeSet, TopologyName, UnitName};

use crate::placement::tally::Tally;

/// CPUs that are spoken for.
#[derive(Clone, Debug)]
pub struct Occupant {
    /// By whose slice.
    pub topology: TopologyName,
    /// By which.
    pub unit: UnitName,
    /// The CPUs.
    pub cpus: CpuSet,
    /// How firmly.
    pub claim: Claim,
}

/// How firmly an occupant holds its CPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// Nobody else may have them.
    Exclusive,
    /// Other shared slices may have them as well.
    Shared,
    /// Held by an entry whose topology asks for nothing now (being removed, or refused): nobody new may come in, and
    /// whoever already shares with it stays.
    Unasked,
}

/// What a stage comes to.
#[derive(Debug, Default)]
pub struct Staged {
    /// What each slice gets.
    pub given: BTreeMap<UnitName, Given>,
    /// What it costs and is known to cost at least.
    pub tally: Tally,
    /// Whether everybody got all it could ever get, cores of its own.
    pub is_full: bool,
    /// How much was asked for together, and how much there is.
    pub asked_and_there: (u32, u32),
}

/// What one slice gets.
#[derive(Clone, Debug, Default)]
pub struct Given {
    /// Its CPUs, online or not.
    pub cpus: CpuSet,
    /// The slice inside which it runs.
    pub inside: Option<UnitName>,
}

/// Why a stage came to nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Named CPUs are not online.
    Missing {
        /// The place of the slice in the stage.
        demand: usize,
        /// Those CPUs.
        missing: CpuSet,
    },
    /// Named CPUs belong to somebody.
    Taken {
        /// The place of the slice in the stage.
        demand: usize,
        /// Who has them.
        holder: Holder,
        /// The CPUs in question.
        cpus: CpuSet,
    },
    /// Listed memory nodes have no memory.
    NoMemory {
        /// The place of the slice in the stage.
        demand: usize,
        /// Those nodes.
        nodes: NodeSet,
    },
    /// There is no arrangement.
    Crowded,
    /// No arrangement was found before a search ended at its bound. There may be one.
    Unsettled,
}

/// Who has CPUs that a slice names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holder {
    /// Another slice.
    Unit(UnitName),
    /// Nobody: they are kept free.
    Housekeeping,
    /// The pods of a kubelet.
    Kubelet,
}
