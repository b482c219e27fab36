//! A small host in memory for the tests of the decisions: files, what systemd has loaded, cgroups and processes.

use std::collections::{BTreeMap, BTreeSet};

use lamina_crds::hardware::{CpuInventory, NumaNode};
use lamina_crds::told::{Subject, untold};
use lamina_crds::wishes::MemoryPolicy;
use lamina_crds::{Bytes, CpuSet, Hardware, TopologyEntry, UnitKind, UnitName};
use serde_json::json;

use crate::cluster::{Cluster, ClusterError, HostEvent, RawHostState, Seen};
use crate::desired::TextDigests;
use crate::host::{Host, HostError, JobResult};
use crate::host_path::{HostPath, RUNTIME_CONTROL, STATE, UNIT_DIRECTORY};
use crate::numa::NumaPolicy;
use crate::observed::{ObservedFile, ObservedHost, ObservedUnit, Scope, Threads};
use crate::property::{Properties, Property, Value};
use crate::start_settings::StartSettings;
use crate::unit_text::tests::{settings, words};

/// The running example as the operator resolves it for the twenty-CPU host.
pub(crate) fn example() -> TopologyEntry {
    let slice = |name: &str, after: &[&str], cpus: &str, nodes: &str, memory: [&str; 3]| {
        json!({
            "unit": format!("orchestrator-{name}.slice"),
            "startAfter": after.iter().map(|name| format!("orchestrator-{name}.slice")).collect::<Vec<_>>(),
            "cpus": cpus, "memoryNodes": nodes,
            "memory": { "min": memory[0], "high": memory[1], "max": memory[2] },
        })
    };
    let service = |name: &str, slice: &str, cpus: &str| {
        json!({
            "unit": format!("orchestrator-{name}.service"), "slice": format!("orchestrator-{slice}.slice"),
            "command": [format!("/opt/orchestrator/bin/{name}")], "user": "orchestrator",
            "envFiles": [{ "file": "orchestrator.env" }],
            "env": [
                { "name": "GOMAXPROCS", "value": cpus, "derived": true },
                { "name": "NODE", "value": "host-7", "derived": true },
            ],
            "restart": { "policy": "OnFailure", "delay": "5s" }, "onChange": "Restart",
        })
    };
    let mut slices = [
        slice("control", &[], "0-7", "0", ["4Gi", "8Gi", "12Gi"]),
        slice("runner", &["control"], "8-15", "1", ["8Gi", "16Gi", "24Gi"]),
        slice("fanout", &["runner"], "16-19", "0", ["2Gi", "4Gi", "8Gi"]),
    ];
    slices[0]["io"] = json!({ "weight": 500 });
    slices[0]["tasks"] = json!({ "max": 4096 });
    let control = ["orchestrator", "router", "parser", "hitl", "api"].map(|name| service(name, "control", "8"));
    let mut rest =
        [service("runner", "runner", "8"), service("agent-runner", "runner", "8"), service("fanout", "fanout", "4")];
    rest[1]["memory"] = json!({ "max": "8Gi" });
    rest[2]["rlimits"] = json!({ "nofile": 1_048_576 });
    let services: Vec<_> = control.into_iter().chain(rest).collect();
    let value = json!({
        "name": "orchestrator", "state": "Present", "revision": "000000000000", "generation": 1,
        "files": [{ "name": "orchestrator.env", "content": "PORT=8080\n" }],
        "slices": slices, "services": services,
    });
    revised(serde_json::from_value(value).expect("a legal entry"))
}

/// The entry with the revision of its content.
pub(crate) fn revised(entry: TopologyEntry) -> TopologyEntry {
    TopologyEntry { revision: entry.digest(), ..entry }
}

/// The twenty-CPU host with two nodes.
pub(crate) fn hardware() -> Hardware {
    let cpus = |list: &str| list.parse::<CpuSet>().expect("a list");
    let node = |id, list: &str| NumaNode { id, cpus: cpus(list), memory: Bytes::mebi(65536), distances: vec![10, 21] };
    Hardware {
        machine_id: "0123".to_owned(),
        cpus: CpuInventory { online: cpus("0-19"), offline: CpuSet::new(), isolated: CpuSet::new() },
        numa_nodes: vec![node(0, "0-7,16-19"), node(1, "8-15")],
        ..Hardware::default()
    }
}

/// One service's process.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Process {
    pub(crate) invocation: u32,
    pub(crate) started_from: Option<TextDigests>,
    pub(crate) slice: String,
}

/// What systemd has loaded of a unit.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Loaded {
    pub(crate) drop_ins: Vec<String>,
    pub(crate) properties: Properties,
    pub(crate) numa: Option<NumaPolicy>,
    pub(crate) slice: String,
    pub(crate) digests: Option<TextDigests>,
    pub(crate) start: StartSettings,
}

/// A host in memory.
#[derive(Clone, Debug)]
pub(crate) struct ModelHost {
    pub(crate) hardware: Hardware,
    pub(crate) files: BTreeMap<HostPath, ObservedFile>,
    pub(crate) loaded: BTreeMap<UnitName, Loaded>,
    pub(crate) states: BTreeMap<UnitName, String>,
    pub(crate) kernel: BTreeMap<UnitName, Properties>,
    pub(crate) processes: BTreeMap<UnitName, Process>,
    /// Whether a reload also writes the values of running units to the kernel; systemd 257 does not.
    pub(crate) reload_applies: bool,
    pub(crate) broken: BTreeSet<UnitName>,
    pub(crate) missing: BTreeSet<String>,
    pub(crate) users: BTreeSet<String>,
    pub(crate) disk_full: bool,
    /// Permission bits other than 0644.
    pub(crate) modes: BTreeMap<HostPath, u32>,
    /// Files of units that were changed after their processes had started.
    pub(crate) edited: BTreeMap<UnitName, BTreeSet<String>>,
    /// Every effect, in words.
    pub(crate) log: Vec<String>,
    /// Directories with names that a loss of power would take back.
    pub(crate) pending: BTreeSet<HostPath>,
    /// What was done while the agent's own state was not durable.
    pub(crate) rash: Vec<String>,
    pub(crate) invocations: u32,
}

impl ModelHost {
    pub(crate) fn new() -> Self {
        Self {
            hardware: hardware(),
            files: BTreeMap::new(),
            loaded: BTreeMap::new(),
            states: BTreeMap::new(),
            kernel: BTreeMap::new(),
            processes: BTreeMap::new(),
            reload_applies: true,
            broken: BTreeSet::new(),
            missing: BTreeSet::new(),
            users: BTreeSet::from(["orchestrator".to_owned()]),
            disk_full: false,
            modes: BTreeMap::new(),
            edited: BTreeMap::new(),
            log: Vec::new(),
            pending: BTreeSet::new(),
            rash: Vec::new(),
            invocations: 0,
        }
    }

    /// The invocations of all processes: which service was started how often, at last.
    pub(crate) fn invocations(&self) -> BTreeMap<String, u32> {
        self.processes.iter().map(|(unit, process)| (unit.to_string(), process.invocation)).collect()
    }

    pub(crate) fn put(&mut self, path: &str, content: &str) {
        self.files.insert(HostPath::new(path), ObservedFile::Regular { content: content.as_bytes().to_vec() });
    }

    pub(crate) fn content(&self, path: &HostPath) -> Option<String> {
        match self.files.get(path)? {
            ObservedFile::Regular { content } => Some(String::from_utf8_lossy(content).into_owned()),
            ObservedFile::Link { .. } | ObservedFile::Other { .. } => None,
        }
    }

    fn load(&mut self, unit: &UnitName) {
        let Some(fragment) = self.content(&HostPath::fragment(unit)) else {
            self.loaded.remove(unit);
            return;
        };
        let suffix = format!("/{unit}.d");
        let mut drop_ins: Vec<HostPath> = self
            .files
            .keys()
            .filter(|path| path.directory().as_str().ends_with(&suffix) && path.as_str().ends_with(".conf"))
            .cloned()
            .collect();
        drop_ins.sort_by_key(|path| path.name().to_owned());
        let texts = std::iter::once(fragment).chain(drop_ins.iter().filter_map(|path| self.content(path)));
        let mut loaded = Loaded { properties: defaults(unit), ..Loaded::default() };
        let mut fields = BTreeMap::new();
        for (_, key, value) in texts.collect::<Vec<_>>().iter().flat_map(|text| settings(text)) {
            match key.as_str() {
                "Slice" => loaded.slice = value,
                "ExecStart" => loaded.start.command = words(&value),
                "User" => loaded.start.user = value,
                "WorkingDirectory" => loaded.start.working_directory = value,
                "Environment" => loaded.start.environment.extend(words(&value)),
                "EnvironmentFile" => loaded.start.environment_files.push(value),
                "LimitNOFILE" => {
                    let limit = value.parse().expect("a number");
                    loaded.start.limits.insert("LimitNOFILE", (limit, limit));
                }
                "NUMAPolicy" => loaded.numa = Some(NumaPolicy { policy: policy(&value), nodes: Default::default() }),
                "NUMAMask" => {
                    let numa = loaded.numa.as_mut().expect("the policy stands before its mask");
                    numa.nodes = value.parse().expect("a list");
                }
                "LogExtraFields" => {
                    fields.extend(words(&value).iter().filter_map(|word| {
                        word.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()))
                    }))
                }
                key => set_property(&mut loaded.properties, key, &value),
            }
        }
        let field = |name: &str| fields.get(name).cloned();
        loaded.digests = (|| {
            let (text, start) = (field("LAMINA_TEXT")?, field("LAMINA_START")?);
            Some(TextDigests { text, start, derived: field("LAMINA_DERIVED")? })
        })();
        loaded.drop_ins = drop_ins.iter().map(ToString::to_string).collect();
        self.loaded.insert(unit.clone(), loaded);
    }

    fn realize(&mut self, unit: &UnitName) {
        if let Some(loaded) = self.loaded.get(unit) {
            let value = |(property, value): (&Property, &Value)| (*property, property.in_kernel(value));
            let values = loaded.properties.iter().map(value).filter(|(_, value)| *value != Value::Cpus(CpuSet::new()));
            self.kernel.insert(unit.clone(), values.collect());
        }
    }

    fn state(&self, unit: &UnitName) -> String {
        self.states.get(unit).cloned().unwrap_or_else(|| "inactive".to_owned())
    }

    fn see(&self, unit: &UnitName) -> ObservedUnit {
        let mut seen =
            ObservedUnit { active_state: self.state(unit), result: "success".to_owned(), ..ObservedUnit::default() };
        let active = seen.active_state == "active";
        seen.load_state = if self.loaded.contains_key(unit) { "loaded" } else { "not-found" }.to_owned();
        if let Some(loaded) = self.loaded.get(unit) {
            seen.fragment_path = HostPath::fragment(unit).to_string();
            seen.drop_in_paths.clone_from(&loaded.drop_ins);
            seen.loaded = loaded.properties.clone();
            seen.numa.clone_from(&loaded.numa);
            seen.loaded_text.clone_from(&loaded.digests);
            seen.slice.clone_from(&loaded.slice);
        }
        if active {
            seen.kernel = self.kernel.get(unit).cloned().unwrap_or_default();
        }
        if active && unit.kind() == UnitKind::Slice {
            seen.control_group = format!("/orchestrator.slice/{unit}");
            seen.effective_cpus = cpus(&seen.kernel).map(|cpus| cpus.intersection(&self.hardware.cpus.online));
            seen.effective_memory_nodes = nodes(&seen.kernel);
        }
        if let (true, Some(process)) = (active, self.processes.get(unit)) {
            seen.control_group = format!("/orchestrator.slice/{}/{unit}", process.slice);
            seen.sub_state = "running".to_owned();
            seen.main_pid = 1000 + process.invocation;
            seen.invocation = format!("{:032x}", process.invocation);
            seen.started_from.clone_from(&process.started_from);
            let loaded = self.loaded.get(unit).filter(|loaded| loaded.digests.is_none());
            seen.past = loaded.filter(|_| process.started_from.is_none()).map(|loaded| self.past(unit, loaded));
            let slice = UnitName::new(process.slice.as_str()).ok().and_then(|slice| self.kernel.get(&slice));
            let all = || self.hardware.cpus.online.clone();
            seen.threads = Threads {
                count: 2,
                cpus: slice.and_then(cpus).map_or_else(all, |cpus| cpus.intersection(&self.hardware.cpus.online)),
                memory_nodes: slice.and_then(nodes).unwrap_or_else(|| self.hardware.memory_nodes()),
                strayed: 0,
            };
        }
        if seen.active_state == "failed" {
            seen.result = "exit-code".to_owned();
        }
        seen
    }

    fn past(&self, unit: &UnitName, loaded: &Loaded) -> StartSettings {
        let read = |path: &String| Some((path.clone(), self.content(&HostPath::new(path.clone()))?));
        StartSettings {
            process: loaded.start.command.clone(),
            contents: loaded.start.environment_files.iter().filter_map(read).collect(),
            changed: self.edited.get(unit).cloned().unwrap_or_default(),
            ..loaded.start.clone()
        }
    }

    fn launch(&mut self, unit: &UnitName) -> JobResult {
        if self.broken.contains(unit) {
            self.processes.remove(unit);
            self.states.insert(unit.clone(), "failed".to_owned());
            return JobResult::Other("failed".to_owned());
        }
        let loaded = self.loaded.get(unit).cloned().unwrap_or_default();
        if let Ok(slice) = UnitName::new(loaded.slice.as_str())
            && self.state(&slice) != "active"
        {
            self.states.insert(slice.clone(), "active".to_owned());
            self.realize(&slice);
        }
        self.states.insert(unit.clone(), "active".to_owned());
        self.realize(unit);
        if unit.kind() == UnitKind::Service {
            self.invocations += 1;
            let process = Process { invocation: self.invocations, started_from: loaded.digests, slice: loaded.slice };
            self.processes.insert(unit.clone(), process);
        }
        JobResult::Done
    }

    /// Takes note of something that is done for an instruction.
    fn note(&mut self, deed: String) {
        if self.pending.contains(&HostPath::new(STATE)) {
            self.rash.push(deed.clone());
        }
        self.log.push(deed);
    }
}

fn policy(word: &str) -> MemoryPolicy {
    use MemoryPolicy::{Bind, Default, Interleave, Local, Preferred};
    let nodes = lamina_crds::NodeSet::new;
    let all = [Default, Local, Preferred, Bind, Interleave].into_iter();
    all.into_iter().find(|policy| NumaPolicy { policy: *policy, nodes: nodes() }.word() == word).expect("a policy")
}

fn cpus(kernel: &Properties) -> Option<CpuSet> {
    match kernel.get(&Property::AllowedCpus)? {
        Value::Cpus(cpus) => Some(cpus.clone()),
        _ => None,
    }
}

fn nodes(kernel: &Properties) -> Option<lamina_crds::NodeSet> {
    match kernel.get(&Property::AllowedMemoryNodes)? {
        Value::Nodes(nodes) => Some(nodes.clone()),
        _ => None,
    }
}

fn defaults(unit: &UnitName) -> Properties {
    let tasks = match unit.kind() {
        UnitKind::Slice => Value::Infinity,
        UnitKind::Service => Value::Number(3570),
    };
    Properties::from([
        (Property::MemoryMin, Value::Number(0)),
        (Property::MemoryLow, Value::Number(0)),
        (Property::MemoryHigh, Value::Infinity),
        (Property::MemoryMax, Value::Infinity),
        (Property::MemorySwapMax, Value::Infinity),
        (Property::IoWeight, Value::Default),
        (Property::TasksMax, tasks),
    ])
}

fn set_property(properties: &mut Properties, key: &str, value: &str) {
    let Some(property) = Property::ALL.into_iter().find(|property| property.key() == key) else { return };
    let value = match (property, value) {
        (Property::AllowedCpus | Property::AllowedMemoryNodes, "") => {
            properties.remove(&property);
            return;
        }
        (Property::AllowedCpus, list) => {
            let earlier = cpus(properties).unwrap_or_default();
            Value::Cpus(earlier.union(&list.parse().expect("a list")))
        }
        (Property::AllowedMemoryNodes, list) => {
            let earlier = nodes(properties).unwrap_or_default();
            Value::Nodes(earlier.union(&list.parse().expect("a list")))
        }
        (_, "") => Value::Default,
        (_, "infinity") => Value::Infinity,
        (_, number) => Value::Number(number.parse().expect("a number")),
    };
    properties.insert(property, value);
}

impl Host for ModelHost {
    async fn hardware(&mut self) -> Result<Hardware, HostError> {
        Ok(self.hardware.clone())
    }

    async fn observe(&mut self, scope: &Scope) -> Result<ObservedHost, HostError> {
        let ours = |unit: &UnitName| scope.topologies.iter().any(|topology| unit.belongs_to(topology));
        let known = self.loaded.keys().chain(self.states.keys()).filter(|unit| ours(unit));
        let units: BTreeSet<UnitName> = known.chain(&scope.units).cloned().collect();
        let missing = |path: &str| match self.missing.contains(path) {
            true => Err("is missing".to_owned()),
            false => Ok(()),
        };
        Ok(ObservedHost {
            boot_id: "boot".to_owned(),
            systemd_version: 252,
            system_state: "running".to_owned(),
            controllers: ["cpuset", "io", "memory", "pids"].map(str::to_owned).into(),
            files: self
                .files
                .iter()
                .filter(|(path, _)| !path.as_str().starts_with("/var/"))
                .map(|(path, file)| (path.clone(), file.clone()))
                .collect(),
            units: units.into_iter().map(|unit| (unit.clone(), self.see(&unit))).collect(),
            users: scope.users.iter().filter(|user| self.users.contains(user.as_str())).cloned().collect(),
            executables: scope.executables.iter().map(|path| (path.clone(), missing(path.as_str()))).collect(),
            env_files: scope.env_files.iter().map(|key| (key.clone(), missing(key.0.as_str()))).collect(),
        })
    }

    async fn read(&mut self, path: &HostPath) -> Result<Option<Vec<u8>>, HostError> {
        Ok(self.content(path).map(String::into_bytes))
    }

    async fn make_directory(&mut self, _: &HostPath) -> Result<(), HostError> {
        Ok(())
    }

    async fn write(&mut self, path: &HostPath, content: &[u8]) -> Result<(), HostError> {
        if self.disk_full {
            let source = std::io::Error::from(std::io::ErrorKind::StorageFull);
            return Err(HostError::File { attempt: "writing", path: path.clone(), source });
        }
        self.files.insert(path.clone(), ObservedFile::Regular { content: content.to_vec() });
        Ok(())
    }

    async fn mode(&mut self, path: &HostPath) -> Result<u32, HostError> {
        Ok(self.modes.get(path).copied().unwrap_or(0o644))
    }

    async fn set_mode(&mut self, path: &HostPath, mode: u32) -> Result<(), HostError> {
        self.modes.insert(path.clone(), mode);
        Ok(())
    }

    async fn sync(&mut self, path: &HostPath) -> Result<(), HostError> {
        self.pending.remove(path);
        Ok(())
    }

    async fn rename(&mut self, from: &HostPath, to: &HostPath) -> Result<(), HostError> {
        if !to.as_str().starts_with("/var/") {
            self.note(format!("write {to}"));
        }
        self.pending.insert(to.directory());
        let file = self.files.remove(from).expect("the staged file");
        self.modes.remove(to);
        if let Some(mode) = self.modes.remove(from).filter(|mode| *mode != 0o644) {
            self.modes.insert(to.clone(), mode);
        }
        self.files.insert(to.clone(), file);
        Ok(())
    }

    async fn link(&mut self, path: &HostPath, target: &str) -> Result<(), HostError> {
        self.note(format!("link {path}"));
        self.files.insert(path.clone(), ObservedFile::Link { target: target.to_owned() });
        Ok(())
    }

    async fn remove(&mut self, path: &HostPath) -> Result<(), HostError> {
        self.note(format!("remove {path}"));
        self.files.remove(path);
        Ok(())
    }

    async fn reload(&mut self) -> Result<(), HostError> {
        self.note("reload".to_owned());
        let on_disk = self.files.keys().filter(|path| path.directory().as_str() == UNIT_DIRECTORY);
        let units: BTreeSet<UnitName> = on_disk.filter_map(HostPath::unit).chain(self.loaded.keys().cloned()).collect();
        for unit in units {
            self.load(&unit);
            if self.reload_applies && self.state(&unit) == "active" {
                self.realize(&unit);
            }
        }
        Ok(())
    }

    async fn start(&mut self, unit: &UnitName) -> Result<JobResult, HostError> {
        self.note(format!("start {unit}"));
        Ok(if self.state(unit) == "active" { JobResult::Done } else { self.launch(unit) })
    }

    async fn stop(&mut self, unit: &UnitName) -> Result<JobResult, HostError> {
        self.note(format!("stop {unit}"));
        let inside: Vec<UnitName> = match unit.kind() {
            UnitKind::Service => Vec::new(),
            UnitKind::Slice => {
                let inside = self.processes.iter().filter(|(_, process)| process.slice == unit.as_str());
                inside.map(|(unit, _)| unit.clone()).collect()
            }
        };
        for unit in inside.iter().chain([unit]) {
            self.processes.remove(unit);
            self.states.remove(unit);
            self.kernel.remove(unit);
        }
        Ok(JobResult::Done)
    }

    async fn restart(&mut self, unit: &UnitName) -> Result<JobResult, HostError> {
        self.note(format!("restart {unit}"));
        Ok(self.launch(unit))
    }

    async fn reset_failed(&mut self, unit: &UnitName) -> Result<(), HostError> {
        self.note(format!("reset {unit}"));
        self.states.remove(unit);
        Ok(())
    }

    async fn set_properties(&mut self, unit: &UnitName, properties: &Properties) -> Result<(), HostError> {
        for (property, value) in properties {
            self.note(format!("set {unit} {}={value}", property.key()));
            let path = HostPath::runtime_push(unit, *property);
            assert!(path.as_str().starts_with(RUNTIME_CONTROL));
            let section = if unit.kind() == UnitKind::Slice { "Slice" } else { "Service" };
            self.put(path.as_str(), &format!("[{section}]\n{}={value}\n", property.key()));
            self.loaded.entry(unit.clone()).or_default().properties.insert(*property, value.clone());
        }
        if self.state(unit) == "active" {
            self.realize(unit);
        }
        Ok(())
    }
}

/// An API server that shows one object and keeps what is written.
#[derive(Clone, Debug)]
pub(crate) struct ModelCluster {
    pub(crate) seen: Seen,
    pub(crate) statuses: Vec<lamina_crds::HostStateStatus>,
    pub(crate) events: Vec<HostEvent>,
    pub(crate) down: bool,
}

impl ModelCluster {
    pub(crate) fn with(generation: i64, entries: &[TopologyEntry]) -> Self {
        let mut cluster = Self { seen: Seen::Nothing, statuses: Vec::new(), events: Vec::new(), down: false };
        cluster.ask(generation, entries);
        cluster
    }

    pub(crate) fn ask(&mut self, generation: i64, entries: &[TopologyEntry]) {
        let entries = entries.iter().map(|entry| serde_json::to_value(entry).expect("plain data")).collect();
        let status = match &self.seen {
            Seen::Object(object) => object.status.clone(),
            Seen::NotYet | Seen::Nothing => None,
        };
        let object = RawHostState { uid: "u1".to_owned(), generation, entries, status, ..RawHostState::default() };
        self.seen = Seen::Object(Box::new(object));
    }

    fn refuse(&self, attempt: &'static str) -> Result<(), ClusterError> {
        match self.down {
            true => Err(ClusterError { attempt, host: "host-7".to_owned(), message: "refused".to_owned() }),
            false => Ok(()),
        }
    }
}

impl Cluster for ModelCluster {
    fn seen(&self) -> Seen {
        self.seen.clone()
    }

    async fn patch_status(&mut self, _: &str, status: &lamina_crds::HostStateStatus) -> Result<(), ClusterError> {
        self.refuse("patching the status")?;
        assert_eq!(untold(Subject::Host, &status.conditions), None);
        for topology in &status.topologies {
            assert_eq!(untold(Subject::TopologyOnHost, &topology.conditions), None, "{}", topology.name);
        }
        self.statuses.push(status.clone());
        if let Seen::Object(object) = &mut self.seen {
            object.status = Some(status.clone());
        }
        Ok(())
    }

    async fn renew_lease(&mut self, _: jiff::Timestamp) -> Result<(), ClusterError> {
        self.refuse("renewing the lease")
    }

    async fn record_event(&mut self, event: &HostEvent) -> Result<(), ClusterError> {
        self.refuse("recording an event")?;
        self.events.push(event.clone());
        Ok(())
    }
}
