//! `HostState`: one per host. Spec: what the operator resolved, nothing left to choose. Status: what the agent measured.

#![expect(clippy::duplicated_attributes, reason = "printer columns share words")]

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::cel;
use crate::conditions::Condition;
use crate::hardware::Hardware;
use crate::id_set::{CpuSet, NodeSet};
use crate::names::{FileName, TopologyName, UnitName, UserName};
use crate::seconds::Seconds;
use crate::slice_topology::{
    Adoption, DeliveredFile, IoShare, MemoryLimits, OnChange, ResourceLimits, RestartPolicy, TaskLimits,
};
use crate::term::Term;
use crate::text::{AbsolutePath, Argument, EnvName, EnvValue};
use crate::wishes::{MemoryPolicy, Migration};

/// Everything one host should run, resolved.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "lamina.dev",
    version = "v1alpha1",
    kind = "HostState",
    plural = "hoststates",
    shortname = "hst",
    category = "lamina",
    status = "HostStateStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "A HostState holds everything one host should run, written by the operator, and what its agent measured there. Edit the SliceTopology instead; this object is not for hands.",
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(name = "CPUs", type_ = "integer", json_path = ".status.summary.cpus"),
    printcolumn(name = "Services", type_ = "integer", json_path = ".status.summary.servicesReady"),
    printcolumn(name = "Drifted", type_ = "integer", json_path = ".status.summary.drifted"),
    printcolumn(name = "Message", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].message"#),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = cel::term_never_falls())]
pub struct HostStateSpec {
    /// The term of the operator that wrote this spec last: each new leader has a higher one. It never falls, and an agent
    /// that has accepted a spec of a higher term does not follow this one. Before the first leader it is absent.
    #[serde(default, skip_serializing_if = "Term::is_none")]
    pub term: Term,
    /// One entry per topology that has or had something to say about this host.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub topologies: Vec<TopologyEntry>,
}

/// What one topology wants on this host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TopologyEntry {
    /// The topology's name.
    pub name: TopologyName,
    /// Whether its units should run, be left alone, or be removed.
    pub state: EntryState,
    /// Digest over files, slices and services of this entry, and its leave to replace; rollout and status speak of it.
    #[schemars(length(min = 12, max = 12), regex(pattern = "^[0-9a-f]{12}$"))]
    pub revision: String,
    /// The generation of the SliceTopology that this entry was resolved from.
    #[schemars(range(min = 0))]
    pub generation: i64,
    /// What happens to unit files of these names that are not Lamina's; Refuse if absent.
    #[serde(default, skip_serializing_if = "Adoption::is_refuse")]
    pub adoption: Adoption,
    /// Files to deliver below /etc/lamina/files/NAME/.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "atomic"))]
    pub files: Vec<DeliveredFile>,
    /// The slices, in the order in which their services start.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    pub slices: Vec<SliceEntry>,
    /// The services, in the order in which they start.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), extend("x-kubernetes-list-type" = "atomic"))]
    pub services: Vec<ServiceEntry>,
}

/// What should become of an entry's units.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum EntryState {
    /// They run as the entry says.
    Present,
    /// They keep running as they are; Lamina no longer enforces anything.
    Released,
    /// They are stopped in order and removed.
    Absent,
}

/// One slice, resolved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SliceEntry {
    /// The slice's unit.
    pub unit: UnitName,
    /// Units of the slices whose services start before those of this one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub start_after: Vec<UnitName>,
    /// The CPUs it gets; never empty.
    #[x_kube(validation = cel::list_is_not_empty())]
    pub cpus: CpuSet,
    /// The memory nodes it gets; absent on hosts with one node, where nothing is to be chosen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = cel::list_is_not_empty())]
    pub memory_nodes: Option<NodeSet>,
    /// How its services spread their memory over nodes; absent where systemd's own setting stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_policy: Option<ResolvedMemoryPolicy>,
    /// When a change of the memory nodes reaches what already runs; OnRestart if absent.
    #[serde(default, skip_serializing_if = "is_on_restart")]
    pub migrate: Migration,
    /// Protection and limits of its memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<MemoryLimits>,
    /// Its share of input and output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub io: Option<IoShare>,
    /// Limits on its processes and threads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tasks: Option<TaskLimits>,
}

fn is_on_restart(migrate: &Migration) -> bool {
    *migrate == Migration::OnRestart
}

/// How services spread their memory over nodes, set_mempolicy(2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ResolvedMemoryPolicy {
    /// The policy (`NUMAPolicy=`).
    pub policy: MemoryPolicy,
    /// The nodes it speaks of (`NUMAMask=`), never outside the slice's; one for Preferred, none for Default and Local.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes: Option<NodeSet>,
}

/// One service, resolved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServiceEntry {
    /// The service's unit.
    pub unit: UnitName,
    /// The unit of the slice it runs in.
    pub slice: UnitName,
    /// Program and arguments, taken literally.
    #[schemars(length(min = 1, max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    #[x_kube(validation = cel::absolute_program())]
    pub command: Vec<Argument>,
    /// The user that runs it.
    #[x_kube(validation = cel::not_root())]
    pub user: UserName,
    /// The directory it starts in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub working_directory: Option<AbsolutePath>,
    /// Files with environment variables, in the order in which they are read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub env_files: Vec<ResolvedEnvFile>,
    /// Environment variables, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 128), extend("x-kubernetes-list-type" = "atomic"))]
    pub env: Vec<ResolvedEnv>,
    /// When it is started again after it ended.
    pub restart: ResolvedRestart,
    /// Protection and limits of its memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<MemoryLimits>,
    /// Limits on its processes and threads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tasks: Option<TaskLimits>,
    /// Resource limits of its processes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rlimits: Option<ResourceLimits>,
    /// What a change of its text does.
    pub on_change: OnChange,
}

/// A file with environment variables: exactly one of `file` and `path`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = cel::exactly_one(&["file", "path"]))]
pub struct ResolvedEnvFile {
    /// A file that Lamina delivers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<FileName>,
    /// A file that the host already has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<AbsolutePath>,
}

/// One environment variable with its value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ResolvedEnv {
    /// The variable's name.
    pub name: EnvName,
    /// Its value, taken literally.
    pub value: EnvValue,
    /// Whether the value follows from the host or its placement; such a change never restarts the service.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub derived: bool,
}

/// When a service that ended is started again, with every default filled in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = cel::restart_delay())]
pub struct ResolvedRestart {
    /// After which ends.
    pub policy: RestartPolicy,
    /// How long to wait before.
    pub delay: Seconds,
}

impl TopologyEntry {
    /// The digest over what this entry says (files, slices, services, leave to replace): 12 hexadecimal digits of SHA-256
    /// over its canonical JSON. State and generation are left out: they change nothing of what would run.
    pub fn digest(&self) -> String {
        let Self { name, state: _, revision: _, generation: _, adoption, files, slices, services } = self;
        match adoption {
            Adoption::Refuse => digest(&(name, files, slices, services)),
            Adoption::Replace => digest(&(name, adoption, files, slices, services)),
        }
    }
}

/// 12 hexadecimal digits of SHA-256 over the canonical JSON of a value.
pub fn digest(value: &impl Serialize) -> String {
    let json = serde_json::to_vec(value).expect("plain data with string keys always serialises");
    digest_of_bytes(&json)
}

/// 12 hexadecimal digits of SHA-256 over bytes.
pub fn digest_of_bytes(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}

/// What the agent measured.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HostStateStatus {
    /// The generation of the spec that this status speaks of; -1 before the first look.
    #[serde(default = "not_observed")]
    pub observed_generation: i64,
    /// The highest term of a spec that the agent has accepted, also under another object of this name.
    #[serde(default, skip_serializing_if = "Term::is_none")]
    pub term: Term,
    /// The agent that writes this status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<AgentIdentity>,
    /// What the machine is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hardware: Option<Hardware>,
    /// The numbers that `kubectl get` prints.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub summary: Option<HostSummary>,
    /// What really runs, per topology.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub topologies: Vec<TopologyStatus>,
    /// Ready, Reconciling, Stalled, Supported of the host as a whole.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

fn not_observed() -> i64 {
    -1
}

/// The agent of a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AgentIdentity {
    /// Its version.
    #[schemars(length(max = 64))]
    pub version: String,
    /// How it was started.
    pub form: AgentForm,
}

/// How an agent was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AgentForm {
    /// As a pod of the DaemonSet.
    Pod,
    /// As a service of the host.
    Host,
}

/// The numbers that `kubectl get` prints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HostSummary {
    /// Online logical CPUs.
    #[schemars(range(min = 0))]
    pub cpus: u32,
    /// Services asked for.
    #[schemars(range(min = 0))]
    pub services: u32,
    /// Services that run, pinned and limited as asked.
    #[schemars(range(min = 0))]
    pub services_ready: u32,
    /// Units on which a foreign hand is visible.
    #[schemars(range(min = 0))]
    pub drifted: u32,
}

/// What really runs of one topology.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TopologyStatus {
    /// The topology's name.
    #[schemars(length(max = 63))]
    pub name: String,
    /// The state that is reached; absent while it is not. Confirms Released and Absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<EntryState>,
    /// The revision that is applied; absent while none is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 12))]
    pub revision: Option<String>,
    /// What the kernel says about each slice.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    pub slices: Vec<SliceStatus>,
    /// Ready, Reconciling, Stalled, Applied, Verified, Drifted of this topology on this host.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// What the kernel says about one slice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SliceStatus {
    /// The slice's unit.
    #[schemars(length(max = 255))]
    pub unit: String,
    /// `cpuset.cpus.effective`.
    pub cpus: CpuSet,
    /// `cpuset.mems.effective`.
    pub memory_nodes: NodeSet,
    /// Services asked for in it.
    #[schemars(range(min = 0))]
    pub services: u32,
    /// Services of it that run, pinned and limited as asked.
    #[schemars(range(min = 0))]
    pub services_ready: u32,
}

/// The label that the operator puts on a HostState it made for a Kubernetes node.
pub const ORIGIN_LABEL: &str = "lamina.dev/origin";
/// The value of [`ORIGIN_LABEL`] for such objects.
pub const ORIGIN_NODE: &str = "Node";
/// The annotation with which an admin confirms that another machine took over a host's name; its value is the new
/// machine's id.
pub const CONFIRM_MACHINE_ANNOTATION: &str = "lamina.dev/confirm-machine";
/// The finalizer on topologies whose deletion policy is Remove.
pub const FINALIZER: &str = "lamina.dev/remove";
