//! What the host should be: units as text, files, links and live properties, with nothing left to choose.

use std::collections::{BTreeMap, BTreeSet};

use lamina_crds::host_state::EntryState;
use lamina_crds::slice_topology::{Adoption, OnChange};
use lamina_crds::text::AbsolutePath;
use lamina_crds::wishes::Migration;
use lamina_crds::{CpuSet, NodeSet, TopologyName, UnitName, UserName};

use serde::{Deserialize, Serialize};

use crate::host_path::HostPath;
use crate::numa::NumaPolicy;
use crate::property::Properties;
use crate::start_settings::WantedStart;
use crate::takeover::Adopted;

/// Everything that should be on the host, by topology.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DesiredHost {
    /// One entry per topology that has an instruction for this host.
    pub entries: BTreeMap<TopologyName, DesiredEntry>,
    /// Entries of which nothing is changed for now: there is newer word of them that could not be stored.
    pub paused: BTreeSet<TopologyName>,
}

/// What one topology wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DesiredEntry {
    /// Present, Released or Absent. For Released and Absent the rest is what was last asked.
    pub state: EntryState,
    /// The entry's revision.
    pub revision: String,
    /// Whether unit files that are not Lamina's may be replaced.
    pub adoption: Adoption,
    /// Paths that the agent is known to have written for this topology before; a file there that lost its content or is
    /// no longer asked for is ours.
    pub written: BTreeSet<HostPath>,
    /// Digests of all that was asked for at these paths before and may still stand there; empty where nobody knows.
    pub formerly: BTreeMap<HostPath, BTreeSet<String>>,
    /// Digests of foreign content, by path, that stands in the before-image.
    pub saved: BTreeMap<HostPath, BTreeSet<String>>,
    /// Delivered files with their content.
    pub files: BTreeMap<HostPath, String>,
    /// The slices, the topology's own slice first.
    pub slices: Vec<DesiredSlice>,
    /// The services in the order in which they start.
    pub services: Vec<DesiredService>,
}

/// The texts of a unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnitText {
    /// The fragment: what the unit is.
    pub fragment: String,
    /// Our drop-in: resource and placement settings.
    pub drop_in: String,
}

/// One slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DesiredSlice {
    /// Its unit.
    pub unit: UnitName,
    /// Its files.
    pub text: UnitText,
    /// What systemd and the kernel must report.
    pub properties: Properties,
    /// The CPUs that the kernel must give it; `None` for the topology's own slice, which is not pinned.
    pub cpus: Option<CpuSet>,
    /// The memory nodes that the kernel must give it; `None` where nothing is to be chosen.
    pub memory_nodes: Option<NodeSet>,
    /// When a change of them reaches what already runs.
    pub migrate: Migration,
}

/// One service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DesiredService {
    /// Its unit.
    pub unit: UnitName,
    /// The slice it runs in.
    pub slice: UnitName,
    /// Its files.
    pub text: UnitText,
    /// What systemd and the kernel must report.
    pub properties: Properties,
    /// How its memory spreads over nodes; `None` where systemd's own setting stands.
    pub numa: Option<NumaPolicy>,
    /// Digests that tell which text is loaded and which one the process was started from.
    pub digests: TextDigests,
    /// The invocation of a process that may have read other files than those asked for: it counts as out of date.
    pub doubted: Option<String>,
    /// The invocation of a process that is known to have been started before the files it reads were last changed.
    pub seen: Option<String>,
    /// What its process is to be started with, for comparison with one that was started from foreign text.
    pub start: WantedStart,
    /// A process that was started from foreign text, and how it runs.
    pub adopted: Option<Adopted>,
    /// Services that must have been started before, in every batch.
    pub start_after: Vec<UnitName>,
    /// What a change of its text does.
    pub on_change: OnChange,
    /// What must be there before it is touched.
    pub needs: ServiceNeeds,
}

/// What a service needs from the host before it is written, changed or started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceNeeds {
    /// The user that runs it.
    pub user: UserName,
    /// The program.
    ///
    /// `None` where the command does not begin with an absolute path, which the rules refuse before it gets here.
    pub executable: Option<AbsolutePath>,
    /// Environment files that the host must already have, readable by the user.
    pub env_files: Vec<AbsolutePath>,
}

/// Digests that the fragment carries in `LogExtraFields=`. systemd shows the loaded ones as a property and keeps those
/// that a process was started with in `/run/systemd/units/log-extra-fields:UNIT` until it ends (systemd.exec(5)).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TextDigests {
    /// Over the whole fragment without these digests: which text is loaded.
    pub text: String,
    /// Over what takes effect only at a start: a difference means the process is out of date.
    pub start: String,
    /// Over derived values: a difference is reported and never restarts.
    pub derived: String,
}
