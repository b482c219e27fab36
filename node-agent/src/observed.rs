//! What the host is: files, loaded units, cgroups and threads, as measured in one look.

use std::collections::{BTreeMap, BTreeSet};

use lamina_crds::text::AbsolutePath;
use lamina_crds::{CpuSet, NodeSet, TopologyName, UnitName, UserName};

use crate::desired::TextDigests;
use crate::host_path::HostPath;
use crate::numa::NumaPolicy;
use crate::property::Properties;
use crate::start_settings::StartSettings;

/// What to look at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// Every file and loaded unit that bears a name of these topologies is reported.
    pub topologies: BTreeSet<TopologyName>,
    /// Further units to ask systemd about.
    pub units: BTreeSet<UnitName>,
    /// Users to look up.
    pub users: BTreeSet<UserName>,
    /// Programs to look at.
    pub executables: BTreeSet<AbsolutePath>,
    /// Environment files to look at, each with the user who must be able to read it.
    pub env_files: BTreeSet<(AbsolutePath, UserName)>,
}

/// The host as seen in one look.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ObservedHost {
    /// The boot's identity, `/proc/sys/kernel/random/boot_id`.
    pub boot_id: String,
    /// systemd's version: the leading digits.
    pub systemd_version: u32,
    /// The Manager's `SystemState`: `running`, `degraded`, `starting`, `maintenance`, `stopping`.
    pub system_state: String,
    /// Controllers of the root cgroup; empty where there is no cgroup v2 hierarchy.
    pub controllers: BTreeSet<String>,
    /// Every file, link or directory at a path that is ours to use: unit fragments, everything in drop-in directories of
    /// our units (in every directory that systemd searches), enablement links, delivered files.
    pub files: BTreeMap<HostPath, ObservedFile>,
    /// Every unit asked for or found.
    pub units: BTreeMap<UnitName, ObservedUnit>,
    /// Users that exist.
    pub users: BTreeSet<UserName>,
    /// Programs that can be executed; the others say why not.
    pub executables: BTreeMap<AbsolutePath, Result<(), String>>,
    /// Environment files that the user can read; the others say why not.
    pub env_files: BTreeMap<(AbsolutePath, UserName), Result<(), String>>,
}

/// What stands at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ObservedFile {
    /// A regular file with one name, owned by root.
    Regular {
        /// Its bytes.
        content: Vec<u8>,
    },
    /// A symbolic link.
    Link {
        /// Where it points, as stored.
        target: String,
    },
    /// A directory, device, FIFO, socket, a file with several names, or one that root does not own.
    Other {
        /// What it is, in words.
        what: String,
    },
}

/// One unit as systemd, its cgroup and its processes show it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ObservedUnit {
    /// `LoadState`: `loaded`, `not-found`, `masked`, `error`, `bad-setting`.
    pub load_state: String,
    /// `ActiveState`: `active`, `inactive`, `failed`, `activating`, `deactivating`, `reloading`.
    pub active_state: String,
    /// `SubState`.
    pub sub_state: String,
    /// `Result` of a service: `success`, `exit-code`, `signal`, `oom-kill`, ...
    pub result: String,
    /// `ExecMainStatus` of a service.
    pub exit_status: i32,
    /// `NRestarts` of a service.
    pub restarts: u32,
    /// `NeedDaemonReload`.
    pub need_reload: bool,
    /// `FragmentPath`, empty if none.
    pub fragment_path: String,
    /// `DropInPaths`.
    pub drop_in_paths: Vec<String>,
    /// `UnitFileState`.
    pub unit_file_state: String,
    /// `Slice` of a service.
    pub slice: String,
    /// `ControlGroup`, empty if it has none.
    pub control_group: String,
    /// `InvocationID` in hexadecimal, empty if it never ran.
    pub invocation: String,
    /// `MainPID`, 0 if none.
    pub main_pid: u32,
    /// `ActiveEnterTimestampMonotonic`, in microseconds.
    pub active_since: u64,
    /// Managed properties as systemd has them loaded.
    pub loaded: Properties,
    /// The NUMA policy of a service as systemd has it loaded; none if it sets none.
    pub numa: Option<NumaPolicy>,
    /// Managed properties as the cgroup files show them; empty if there is no cgroup.
    pub kernel: Properties,
    /// `cpuset.cpus.effective` of the cgroup, or of the nearest ancestor that has the file.
    pub effective_cpus: Option<CpuSet>,
    /// `cpuset.mems.effective`, likewise.
    pub effective_memory_nodes: Option<NodeSet>,
    /// The digests of the loaded text, from `LogExtraFields`.
    pub loaded_text: Option<TextDigests>,
    /// The digests of the text that the running process was started from.
    pub started_from: Option<TextDigests>,
    /// What the running process was started with, if it was not started from a text of Lamina's and none is loaded.
    pub past: Option<StartSettings>,
    /// Its threads, for services only.
    pub threads: Threads,
}

/// The threads of a service, folded by what matters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Threads {
    /// How many there are.
    pub count: u32,
    /// CPUs that at least one thread may run on (union of `Cpus_allowed_list`).
    pub cpus: CpuSet,
    /// Memory nodes that at least one thread may use (union of `Mems_allowed_list`).
    pub memory_nodes: NodeSet,
    /// Processes of the service that sit in a cgroup outside the unit's own.
    pub strayed: u32,
}
