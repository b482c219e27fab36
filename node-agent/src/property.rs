//! The resource settings that Lamina manages, each as a unit-file key, a D-Bus property and a cgroup file of one value.

use std::collections::BTreeMap;
use std::fmt;

use lamina_crds::{Bytes, CpuSet, NodeSet};

/// A managed setting. systemd.resource-control(5) names them; all can change on a running unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Property {
    /// `cpuset.cpus`
    AllowedCpus,
    /// `cpuset.mems`
    AllowedMemoryNodes,
    /// `memory.min`
    MemoryMin,
    /// `memory.low`
    MemoryLow,
    /// `memory.high`
    MemoryHigh,
    /// `memory.max`
    MemoryMax,
    /// `memory.swap.max`
    MemorySwapMax,
    /// `io.weight`
    IoWeight,
    /// `pids.max`
    TasksMax,
}

/// The value of a managed setting.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Value {
    /// CPUs; only for [`Property::AllowedCpus`].
    Cpus(CpuSet),
    /// Memory nodes; only for [`Property::AllowedMemoryNodes`].
    Nodes(NodeSet),
    /// Bytes, a weight or a number of tasks.
    Number(u64),
    /// No limit: `infinity` in a unit file, `max` in the cgroup, all bits set on D-Bus.
    Infinity,
    /// The kernel's own default where that is no number: an I/O weight nobody set.
    Default,
}

/// Settings of one unit.
pub type Properties = BTreeMap<Property, Value>;

impl Property {
    /// Every managed setting.
    pub const ALL: [Self; 9] = [
        Self::AllowedCpus,
        Self::AllowedMemoryNodes,
        Self::MemoryMin,
        Self::MemoryLow,
        Self::MemoryHigh,
        Self::MemoryMax,
        Self::MemorySwapMax,
        Self::IoWeight,
        Self::TasksMax,
    ];

    /// The key in a unit file, which is also the name of the D-Bus property.
    pub const fn key(self) -> &'static str {
        match self {
            Self::AllowedCpus => "AllowedCPUs",
            Self::AllowedMemoryNodes => "AllowedMemoryNodes",
            Self::MemoryMin => "MemoryMin",
            Self::MemoryLow => "MemoryLow",
            Self::MemoryHigh => "MemoryHigh",
            Self::MemoryMax => "MemoryMax",
            Self::MemorySwapMax => "MemorySwapMax",
            Self::IoWeight => "IOWeight",
            Self::TasksMax => "TasksMax",
        }
    }

    /// The file in the unit's cgroup.
    pub const fn cgroup_file(self) -> &'static str {
        match self {
            Self::AllowedCpus => "cpuset.cpus",
            Self::AllowedMemoryNodes => "cpuset.mems",
            Self::MemoryMin => "memory.min",
            Self::MemoryLow => "memory.low",
            Self::MemoryHigh => "memory.high",
            Self::MemoryMax => "memory.max",
            Self::MemorySwapMax => "memory.swap.max",
            Self::IoWeight => "io.weight",
            Self::TasksMax => "pids.max",
        }
    }

    /// Whether the kernel keeps this value in whole pages.
    pub const fn is_memory(self) -> bool {
        matches!(self, Self::MemoryMin | Self::MemoryLow | Self::MemoryHigh | Self::MemoryMax | Self::MemorySwapMax)
    }

    /// The value that the kernel shows when systemd applied `value`: limits of memory lose what is no whole page, an
    /// unset weight of input and output is 100.
    pub fn in_kernel(self, value: &Value) -> Value {
        match value {
            Value::Number(number) if self.is_memory() => Value::Number(Bytes::new(*number).page_aligned().get()),
            Value::Default if self == Self::IoWeight => Value::Number(100),
            Value::Cpus(_) | Value::Nodes(_) | Value::Number(_) | Value::Infinity | Value::Default => value.clone(),
        }
    }
}

impl fmt::Display for Value {
    /// The value as it stands behind the key in a unit file.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpus(cpus) => write!(formatter, "{cpus}"),
            Self::Nodes(nodes) => write!(formatter, "{nodes}"),
            Self::Number(number) => write!(formatter, "{number}"),
            Self::Infinity => formatter.write_str("infinity"),
            Self::Default => Ok(()),
        }
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "`{self}`")
    }
}
