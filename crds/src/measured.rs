//! What is measured on a host when somebody asks: how asked, systemd and kernel compare, and what is used. The agent's
//! endpoint and `kubectl lamina` speak these words; there is nothing secret in them, no environment, no command line.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::host_state::EntryState;
use crate::id_set::{CpuSet, NodeSet};
use crate::names::{TopologyName, UnitName};

/// The version of both forms.
pub const API_VERSION: &str = "lamina.dev/v1alpha1";
/// Where the agent answers with a [`HostVerification`].
pub const VERIFY_PATH: &str = "/verify";
/// Where the agent answers with a [`HostUsage`].
pub const USAGE_PATH: &str = "/top";

/// Everything that is asked of a host, beside what systemd and the kernel say at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HostVerification {
    /// [`API_VERSION`].
    pub api_version: String,
    /// Always `HostVerification`.
    pub kind: String,
    /// The host.
    pub host: String,
    /// When it was measured, by the host's clock.
    pub measured_at: Timestamp,
    /// The topologies that the host holds.
    pub topologies: Vec<VerifiedTopology>,
}

/// One topology.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VerifiedTopology {
    /// Its name.
    pub name: TopologyName,
    /// What is asked of its units. Only those of Present ones are compared.
    pub state: EntryState,
    /// The revision that is compared with.
    pub revision: String,
    /// The pinned slices, in their order.
    #[serde(default)]
    pub slices: Vec<VerifiedSlice>,
    /// The services, in their order.
    #[serde(default)]
    pub services: Vec<VerifiedService>,
    /// What is not as asked.
    #[serde(default)]
    pub faults: Vec<VerifiedFault>,
    /// CPUs of slices that are switched off, as sentences: what is left of them is as asked.
    #[serde(default)]
    pub offline: Vec<String>,
    /// Services whose changed settings take effect at their next start.
    #[serde(default)]
    pub pending: Vec<UnitName>,
}

/// Something that is not as asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VerifiedFault {
    /// The unit.
    pub unit: UnitName,
    /// What is wrong with it.
    pub message: String,
}

/// One slice: asked, in systemd, in the kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VerifiedSlice {
    /// Its unit.
    pub unit: UnitName,
    /// Its CPUs: asked, `AllowedCPUs=` as loaded, `cpuset.cpus.effective`.
    pub cpus: Compared<CpuSet>,
    /// Its memory nodes: asked, `AllowedMemoryNodes=` as loaded, `cpuset.mems.effective`.
    pub memory_nodes: Compared<NodeSet>,
    /// Its other managed settings.
    pub settings: Vec<ComparedSetting>,
    /// Where its memory lies.
    pub pages: Pages,
}

/// A place as it is asked, as systemd has it loaded, and as the kernel gives it. Nothing where nothing is asked or found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", bound(serialize = "S: Serialize", deserialize = "S: Deserialize<'de>"))]
pub struct Compared<S> {
    /// Asked.
    #[serde(default = "nothing")]
    pub asked: Option<S>,
    /// Loaded by systemd.
    #[serde(default = "nothing")]
    pub property: Option<S>,
    /// In force in the kernel.
    #[serde(default = "nothing")]
    pub kernel: Option<S>,
}

fn nothing<S>() -> Option<S> {
    None
}

/// A setting as it is asked, as systemd has it loaded, and as its cgroup file says; values as in unit files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ComparedSetting {
    /// The key in unit files, such as `MemoryMax`.
    pub key: String,
    /// Asked.
    pub asked: String,
    /// Loaded by systemd; nothing if it is not.
    #[serde(default)]
    pub property: Option<String>,
    /// In force in the kernel; nothing if there is no such file.
    #[serde(default)]
    pub kernel: Option<String>,
}

/// One service: where its threads may run, and where its memory lies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VerifiedService {
    /// Its unit.
    pub unit: UnitName,
    /// The slice in which it is asked to run.
    pub slice: UnitName,
    /// `ActiveState`.
    pub active_state: String,
    /// `SubState`.
    pub sub_state: String,
    /// How many threads it has.
    pub threads: u32,
    /// Its processes that sit in a cgroup outside its own.
    pub strayed: u32,
    /// Threads by where they may run: `Cpus_allowed_list` and `Mems_allowed_list`. At most [`MOST_GROUPS`], those outside
    /// the slice and the largest first.
    pub groups: Vec<ThreadGroup>,
    /// Threads that are in none of these groups.
    #[serde(default)]
    pub further_threads: u32,
    /// Its own managed settings.
    pub settings: Vec<ComparedSetting>,
    /// Where its memory lies.
    pub pages: Pages,
}

/// So many groups of threads are told of each service.
pub const MOST_GROUPS: usize = 32;
/// So many threads are named of each group.
pub const MOST_THREADS: usize = 8;

/// Threads that may run at the same place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ThreadGroup {
    /// The CPUs.
    pub cpus: CpuSet,
    /// The memory nodes.
    pub memory_nodes: NodeSet,
    /// How many threads.
    pub count: u32,
    /// The ids of at most [`MOST_THREADS`] of them.
    pub threads: Vec<u32>,
}

/// Memory in bytes by NUMA node: anonymous pages and page cache, `memory.numa_stat`.
pub type Pages = BTreeMap<u32, u64>;

/// What the units of a host use. The counters only grow, so two answers tell what was used between them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HostUsage {
    /// [`API_VERSION`].
    pub api_version: String,
    /// Always `HostUsage`.
    pub kind: String,
    /// The host.
    pub host: String,
    /// When it was measured, by the host's clock.
    pub measured_at: Timestamp,
    /// The same as microseconds since the host started, which nobody sets.
    pub uptime_microseconds: u64,
    /// Slices, each followed by its services.
    pub units: Vec<UnitUsage>,
}

/// What one unit uses, with everything in it. Nothing where there is no cgroup, or no such file in it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UnitUsage {
    /// Its topology.
    pub topology: TopologyName,
    /// Its unit.
    pub unit: UnitName,
    /// The slice that it is in; nothing for slices.
    #[serde(default)]
    pub slice: Option<UnitName>,
    /// The CPUs that it has: `cpuset.cpus.effective`, for services that of their slice.
    #[serde(default)]
    pub cpus: Option<CpuSet>,
    /// Time on CPUs since it started, in microseconds: `usage_usec` in `cpu.stat`.
    #[serde(default)]
    pub cpu_microseconds: Option<u64>,
    /// Bytes: `memory.current`.
    #[serde(default)]
    pub memory: Option<u64>,
    /// Bytes: `memory.high`; nothing where there is no such limit.
    #[serde(default)]
    pub memory_high: Option<u64>,
    /// Bytes: `memory.max`; nothing where there is no such limit.
    #[serde(default)]
    pub memory_max: Option<u64>,
    /// Processes and threads: `pids.current`.
    #[serde(default)]
    pub tasks: Option<u64>,
    /// At most so many: `pids.max`; nothing where there is no such limit.
    #[serde(default)]
    pub tasks_max: Option<u64>,
    /// Share of the last ten seconds in which some task waited for a CPU, in percent: `cpu.pressure`.
    #[serde(default)]
    pub cpu_pressure: Option<f64>,
    /// The same for memory: `memory.pressure`.
    #[serde(default)]
    pub memory_pressure: Option<f64>,
}
