//! The closed words in which a slice says what it wants of a machine: domains, policies and kinds.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A part of a machine that is a set of CPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Domain {
    /// A socket.
    Package,
    /// A NUMA node.
    Node,
    /// The CPUs that share one last-level cache.
    L3,
}

/// How the cores of one slice relate to the domains of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum AlignPolicy {
    /// All of them lie in one domain, or the slice is not placed.
    Require,
    /// They lie in as few domains as can be.
    Prefer,
    /// They are spread evenly over the domains.
    Spread,
    /// The domains do not matter.
    Ignore,
}

/// How the cores of one slice lie in the domains of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Alignment {
    /// The kind of domain.
    pub domain: Domain,
    /// How the cores lie in it.
    pub policy: AlignPolicy,
}

/// Whether a wish may go unmet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum WishPolicy {
    /// What cannot be met is reported, and the slice is placed all the same.
    #[default]
    Prefer,
    /// What cannot be met refuses the topology on that host.
    Require,
}

/// What becomes of CPUs that are named and are not online when a slice is first placed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnMissing {
    /// The topology is refused on that host.
    #[default]
    Refuse,
    /// The online part is used, if there is one.
    UseOnline,
}

/// Which threads of a slice's cores are used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Siblings {
    /// All online threads.
    #[default]
    Take,
    /// The first online thread only; the core is owned all the same, so nobody runs beside it.
    Idle,
}

/// A kind of core on machines that mix them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum CoreType {
    /// Whatever there is, but not several kinds in one slice.
    #[default]
    Any,
    /// The fast kind.
    Performance,
    /// The frugal kind.
    Efficiency,
}

/// Where the memory nodes of a slice come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum NodesFrom {
    /// The nodes of the slice's CPUs; one without memory is replaced by the nearest that has some.
    #[default]
    #[serde(rename = "CPUs")]
    Cpus,
    /// Every node that has memory.
    All,
    /// The nodes that are listed.
    List,
}

/// How the memory of processes is spread over nodes, set_mempolicy(2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum MemoryPolicy {
    /// The kernel's own: the node of the CPU that touches it first, then others.
    #[default]
    Default,
    /// The node of the CPU that touches it, then others.
    Local,
    /// The first node of the slice, then others.
    Preferred,
    /// The nodes of the slice only.
    Bind,
    /// Page by page over the nodes of the slice.
    Interleave,
}

/// When a change of memory nodes reaches what already runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Migration {
    /// When the services of the slice restart: moving pages blocks systemd meanwhile.
    #[default]
    OnRestart,
    /// At once.
    Now,
}

/// Over what housekeeping cores are counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Per {
    /// The whole host.
    #[default]
    Host,
    /// Every NUMA node that has CPUs.
    Node,
}
