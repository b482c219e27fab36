//! `SliceTopology`: what users write. Which slices and services a set of hosts should run, in portable terms.

use std::collections::BTreeMap;

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::bytes::Bytes;
use crate::cel;
use crate::conditions::Condition;
use crate::names::{FileName, ServiceName, SliceName, UserName};
use crate::seconds::Seconds;
use crate::slice_request::{CpuRequest, Housekeeping, NumaRequest, SliceMemory};
use crate::text::{AbsolutePath, Argument, EnvName, EnvValue};

/// What a set of hosts should run.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "lamina.dev",
    version = "v1alpha1",
    kind = "SliceTopology",
    plural = "slicetopologies",
    shortname = "slt",
    category = "lamina",
    status = "SliceTopologyStatus",
    derive = "PartialEq",
    validation = cel::topology_name(),
    validation = cel::topology_name_is_free(),
    doc = "A SliceTopology says which systemd slices and services a set of hosts should run, on which CPUs and memory nodes, within which limits, in terms that hold on any machine.",
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(name = "Hosts", type_ = "integer", json_path = ".status.hosts.selected"),
    printcolumn(name = "ReadyHosts", type_ = "integer", json_path = ".status.hosts.ready"),
    printcolumn(name = "Degraded", type_ = "integer", json_path = ".status.hosts.degraded"),
    printcolumn(name = "Message", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].message"#),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = cel::services_name_slices())]
#[x_kube(validation = cel::order_names_slices())]
#[x_kube(validation = cel::neighbours_are_slices("near"))]
#[x_kube(validation = cel::neighbours_are_slices("apart"))]
#[x_kube(validation = cel::sharers_name_slices())]
#[x_kube(validation = cel::services_have_users())]
#[x_kube(validation = cel::env_files_are_delivered())]
#[x_kube(validation = cel::default_env_files_are_delivered())]
#[x_kube(validation = cel::files_are_small())]
pub struct SliceTopologySpec {
    /// Which hosts are meant: it matches the union of the labels of the HostState and of the Node of the same name.
    /// Required and never empty.
    pub host_selector: HostSelector,
    /// What happens on a host when this topology is deleted or no longer selects it. Retain (the default meaning):
    /// everything keeps running as it is and is no longer enforced. Remove: services are stopped in order and removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_policy: Option<DeletionPolicy>,
    /// While true, nothing of this topology is written to any host: no change, no host that is newly selected, no farewell
    /// to one that no longer is. Hosts keep what they hold, healed and verified. Deleting the topology is carried out all
    /// the same. Condition `Paused` says what waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<bool>,
    /// What happens on a host that already has files under this topology's unit names that are not Lamina's. Refuse (the
    /// default meaning): nothing is touched there, and the status names the files. Replace: they are saved below
    /// /var/lib/lamina/before and replaced; services whose command, user and environment stay as they are keep running.
    /// Symbolic links, masked units and units from other directories are never replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adoption: Option<Adoption>,
    /// Cores that no managed slice may take, for the rest of the host. The wishes of all topologies of a host add up: all
    /// sets, and the largest count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub housekeeping: Option<Housekeeping>,
    /// Files that Lamina delivers below /etc/lamina/files/TOPOLOGY/, owned by root. Never put secrets here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub files: Vec<DeliveredFile>,
    /// Settings for every service that does not set them itself. Maps and env merge by key, other lists are replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_defaults: Option<ServiceDefaults>,
    /// The slices: groups of services that share CPUs, memory nodes and limits.
    #[schemars(length(min = 1, max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub slices: Vec<Slice>,
    /// The services, each inside one slice. Names are unique across slices, because unit names do not hold the slice.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub services: Vec<Service>,
}

/// Which hosts are meant; all parts must match.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = cel::selector_is_not_empty())]
pub struct HostSelector {
    /// Labels that a host must carry with these values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16))]
    #[x_kube(validation = cel::label_keys())]
    pub match_labels: BTreeMap<String, LabelValue>,
    /// Conditions on the labels of a host.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub match_expressions: Vec<LabelExpression>,
}

/// The value of a label.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(inline)]
pub struct LabelValue(
    #[schemars(length(max = 63), regex(pattern = "^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$"))] pub String,
);

/// One condition on the labels of a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = cel::label_expression())]
pub struct LabelExpression {
    /// The label's key.
    #[schemars(
        length(min = 1, max = 317),
        regex(pattern = "^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$")
    )]
    pub key: String,
    /// How the label's value relates to the values.
    pub operator: LabelOperator,
    /// The values; none for Exists and DoesNotExist.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    pub values: Vec<LabelValue>,
}

/// How a label relates to values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum LabelOperator {
    /// The label has one of the values.
    In,
    /// The label is absent or has none of the values.
    NotIn,
    /// The label is there.
    Exists,
    /// The label is absent.
    DoesNotExist,
}

/// What deletion of a topology, or a host that no longer matches, means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DeletionPolicy {
    /// Everything keeps running and is no longer enforced; a topology of the same name takes it over again.
    #[default]
    Retain,
    /// Services are stopped in order, and units and files are removed.
    Remove,
}

/// What happens to unit files of the host that bear the names of this topology's units and are not Lamina's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Adoption {
    /// They are left alone, and so is everything else of the topology on that host.
    #[default]
    Refuse,
    /// They are saved, and then replaced.
    Replace,
}

impl Adoption {
    /// Whether this is what is meant where nothing is said.
    pub fn is_refuse(&self) -> bool {
        *self == Self::Refuse
    }
}

/// A file that Lamina delivers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DeliveredFile {
    /// The file's name below /etc/lamina/files/TOPOLOGY/.
    pub name: FileName,
    /// What is in it. All files of a topology together hold at most 64 KiB.
    #[schemars(length(max = 65536))]
    pub content: String,
}

/// Settings that services share.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServiceDefaults {
    /// The host's user that runs the services. root is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = cel::not_root())]
    pub user: Option<UserName>,
    /// Files with environment variables, read when a service starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub env_files: Option<Vec<EnvFile>>,
    /// Environment variables; a service's own value for the same name wins.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub env: Vec<EnvVariable>,
    /// When a service that ended is started again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart: Option<Restart>,
    /// Resource limits of the processes, setrlimit(2).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rlimits: Option<ResourceLimits>,
}

/// A file with environment variables: exactly one of `file` and `path`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = cel::exactly_one(&["file", "path"]))]
pub struct EnvFile {
    /// The name of a file in spec.files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<FileName>,
    /// The path of a file that the host already has; the service's user must be able to read it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<AbsolutePath>,
}

/// One environment variable: exactly one of `value` and `valueFrom`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = cel::exactly_one(&["value", "valueFrom"]))]
pub struct EnvVariable {
    /// The variable's name.
    pub name: EnvName,
    /// Its value, taken literally: nothing in it is expanded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<EnvValue>,
    /// Where its value comes from. A change of such a value never restarts a service by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_from: Option<ValueSource>,
}

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ValueSource {
    /// A fact of the host or of the service's placement.
    pub resource: ResourceValue,
}

/// A fact of the host or of a placement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ResourceValue {
    /// How many logical CPUs the service's slice has on this host.
    #[serde(rename = "CPUs")]
    Cpus,
    /// The host's name in the cluster.
    HostName,
}

/// When a service that ended is started again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = cel::restart_delay())]
pub struct Restart {
    /// After which ends; OnFailure if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<RestartPolicy>,
    /// How long to wait before; 5s if not given, at least 1s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay: Option<Seconds>,
}

/// After which ends a service is started again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RestartPolicy {
    /// After every end.
    Always,
    /// After a failure: non-zero exit, signal, timeout.
    #[default]
    OnFailure,
    /// Never by itself.
    Never,
}

/// Resource limits of processes, setrlimit(2); soft and hard limit are the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ResourceLimits {
    /// Open files (`RLIMIT_NOFILE`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 64, max = 1073741816))]
    pub nofile: Option<u64>,
    /// Processes and threads of the user (`RLIMIT_NPROC`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 16, max = 4194304))]
    pub nproc: Option<u64>,
    /// Memory that may be locked (`RLIMIT_MEMLOCK`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memlock: Option<Bytes>,
    /// Size of core dumps (`RLIMIT_CORE`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub core: Option<Bytes>,
}

/// A group of services that share CPUs, memory nodes and limits: one systemd slice.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = cel::not_after_itself())]
#[x_kube(validation = cel::not_own_neighbour("near"))]
#[x_kube(validation = cel::not_own_neighbour("apart"))]
#[x_kube(validation = cel::not_shared_with_itself())]
pub struct Slice {
    /// The slice's name; its unit is TOPOLOGY-NAME.slice.
    pub name: SliceName,
    /// Who is served better where a host has not enough for all: higher first; 0 if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = -1000, max = 1000))]
    pub priority: Option<i32>,
    /// Slices whose services start before those of this one. An order, not a dependency.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "set"))]
    pub start_after: Vec<SliceName>,
    /// Which CPUs, or how many.
    pub cpu: CpuRequest,
    /// On which NUMA nodes, near to or apart from which slices and devices.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub numa: Option<NumaRequest>,
    /// Where the slice's memory comes from; protection and limits of it as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<SliceMemory>,
    /// The slice's share of input and output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub io: Option<IoShare>,
    /// Limits on processes and threads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tasks: Option<TaskLimits>,
    /// Exclusive (the default meaning): no other managed slice on the host gets these CPUs. Shared: others may.
    /// It says nothing about what Lamina does not manage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub isolation: Option<Isolation>,
}

/// Protection and limits of memory: min <= low <= high <= max. See systemd.resource-control(5) and the kernel's
/// cgroup-v2 documentation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = cel::memory_order())]
pub struct MemoryLimits {
    /// Memory that is never reclaimed (`memory.min`), granted through every ancestor.
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

/// A share of input and output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct IoShare {
    /// Relative share (`io.weight`), 1 to 10000; 100 if nobody says otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10000))]
    pub weight: Option<u32>,
}

/// Limits on processes and threads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TaskLimits {
    /// The most processes and threads together (`pids.max`), at least 16.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 16, max = 4194304))]
    pub max: Option<u64>,
}

/// Whether other managed slices may use a slice's CPUs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum Isolation {
    /// No other managed slice on the host gets these CPUs.
    #[default]
    Exclusive,
    /// Other slices that are Shared as well may use them.
    Shared,
}

/// A program that runs inside a slice: one systemd service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Service {
    /// The service's name; its unit is TOPOLOGY-NAME.service.
    pub name: ServiceName,
    /// The slice it runs in.
    pub slice: SliceName,
    /// The program and its arguments, taken literally: no shell, no expansion. The program is an absolute path.
    #[schemars(length(min = 1, max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    #[x_kube(validation = cel::program(), validation = cel::arguments_are_one_line())]
    pub command: Vec<Argument>,
    /// The host's user that runs it; required here or in serviceDefaults. root is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = cel::not_root())]
    pub user: Option<UserName>,
    /// The directory it starts in; / if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub working_directory: Option<AbsolutePath>,
    /// Files with environment variables; replaces those of serviceDefaults.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub env_files: Option<Vec<EnvFile>>,
    /// Environment variables, merged by name over those of serviceDefaults; they win over env files.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub env: Vec<EnvVariable>,
    /// When it is started again after it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart: Option<Restart>,
    /// Protection and limits of this service's memory, within those of its slice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<MemoryLimits>,
    /// Limits on this service's processes and threads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tasks: Option<TaskLimits>,
    /// Resource limits of its processes, setrlimit(2).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rlimits: Option<ResourceLimits>,
    /// What a change of its text does: Restart (the default meaning) or Never (the change waits for the next start and
    /// is reported as PendingRestart).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_change: Option<OnChange>,
}

/// What a change of a service's text does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum OnChange {
    /// The service is restarted.
    #[default]
    Restart,
    /// The change waits for the next start.
    Never,
}

/// What the operator observed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SliceTopologyStatus {
    /// The generation of the spec that this status speaks of; -1 before the first look.
    #[serde(default = "not_observed")]
    pub observed_generation: i64,
    /// How many hosts there are, by state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hosts: Option<HostCounts>,
    /// The hosts that most need a hand, at most 20.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20), extend("x-kubernetes-list-type" = "atomic"))]
    pub worst: Vec<HostTrouble>,
    /// Ready, Reconciling, Stalled, Placed, Degraded, Paused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

fn not_observed() -> i64 {
    -1
}

/// Numbers of hosts. ready + stalled + offline + in progress = selected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HostCounts {
    /// Hosts that the selector matches.
    #[schemars(range(min = 0))]
    pub selected: u32,
    /// Hosts whose agent reports this revision.
    #[schemars(range(min = 0))]
    pub updated: u32,
    /// Hosts on which everything asked is true and measured.
    #[schemars(range(min = 0))]
    pub ready: u32,
    /// Hosts that run with less than asked.
    #[schemars(range(min = 0))]
    pub degraded: u32,
    /// Hosts that cannot follow without a hand from outside.
    #[schemars(range(min = 0))]
    pub stalled: u32,
    /// Hosts whose agent is silent.
    #[schemars(range(min = 0))]
    pub offline: u32,
}

/// A host that needs a hand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HostTrouble {
    /// The host's name.
    #[schemars(length(max = 253))]
    pub host: String,
    /// One word for the trouble.
    #[schemars(length(max = 128))]
    pub reason: String,
    /// What is wrong and what to do.
    #[schemars(length(max = 1024))]
    pub message: String,
}
