//! The second layer of a host: PID 1. It knows units as they were loaded, runs jobs, keeps for each process which text
//! it was started from, and writes resource settings into cgroups. The facts in which versions differ are switches.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use lamina_crds::{CpuSet, UnitKind, UnitName};
use lamina_node_agent::desired::TextDigests;
use lamina_node_agent::host_path::HostPath;
use lamina_node_agent::property::{Properties, Property, Value};

use super::disk::{Disk, Entry};
use super::kernel::{Cgroups, Machine};
use super::loaded::{LoadState, Loaded, Program, needs_reload};

/// PID 1 with everything it remembers.
#[derive(Clone, Debug)]
pub struct Systemd {
    /// The leading digits of its version.
    pub version: u32,
    /// Whether a reload writes changed settings into the cgroups of running units: 252 and 262 do, 257 does not.
    pub reload_reapplies: bool,
    /// Units in memory.
    pub units: BTreeMap<UnitName, Unit>,
    /// Units that multi-user.target wants, as of the last reload: these stay in memory.
    wanted: BTreeSet<UnitName>,
    pub(super) next_pid: u32,
    /// How many invocations there were, over all boots.
    invocations: u64,
    /// Microseconds since boot, as far as anybody can tell: counts starts.
    clock: u64,
}

/// One unit in memory.
#[derive(Clone, Debug)]
pub struct Unit {
    /// Its text as loaded.
    pub loaded: Rc<Loaded>,
    /// What it does.
    pub activity: Activity,
    /// Its process, for services that run.
    pub process: Option<Process>,
    /// The cgroup that was made for its process.
    pub(super) home: Option<String>,
    /// `InvocationID`.
    pub invocation: String,
    /// `ActiveEnterTimestampMonotonic`.
    pub active_since: u64,
    /// `NRestarts`.
    pub restarts: u32,
    /// Several properties were set at once, which 252 takes for a reason to reload.
    pub is_marked: bool,
}

/// What a unit does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activity {
    /// Nothing.
    Inactive,
    /// It runs, or for a slice: exists.
    Active,
    /// It ended badly and stays so.
    Failed(Failure),
    /// It ended badly and will be started again by itself.
    WaitsToRestart(Failure),
}

/// How a service ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// `Result`.
    pub result: &'static str,
    /// `ExecMainStatus`.
    pub status: i32,
}

/// A running process with all its threads.
#[derive(Clone, Debug)]
pub struct Process {
    /// `MainPID`.
    pub pid: u32,
    /// What it really runs.
    pub program: Rc<Program>,
    /// What stood in its environment files when it was started.
    pub env_contents: Vec<Rc<[u8]>>,
    /// When it was started, in ticks of the disk's clock.
    pub started_at: u64,
    /// The digests of the text it was started from.
    pub started_from: Option<TextDigests>,
    /// The cgroup it sits in.
    pub cgroup: String,
    /// CPUs its threads cling to until the effective CPUs of its cgroup change.
    pub stuck_on: Option<CpuSet>,
}

/// What programs and users a host has, and what becomes of a start.
#[derive(Clone, Debug, Default)]
pub struct Installed {
    /// Users.
    pub users: BTreeSet<String>,
    /// Programs that are missing or cannot be executed.
    pub missing: BTreeSet<String>,
    /// Programs that end with status 1 as soon as they run.
    pub crashing: BTreeSet<String>,
}

/// A call that systemd refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallError(pub &'static str);

/// What systemd works on besides its own memory.
pub struct Grounds<'a> {
    /// Layer one.
    pub disk: &'a mut Disk,
    /// Layer three.
    pub cgroups: &'a mut Cgroups,
    /// CPUs and nodes.
    pub machine: &'a Machine,
    /// Programs and users.
    pub installed: &'a Installed,
}

/// Where units that start at boot are linked.
const WANTS: &str = "/etc/systemd/system/multi-user.target.wants";
/// `DefaultTasksMax=` of services.
const DEFAULT_TASKS: u64 = 3570;

impl Systemd {
    /// A systemd that has just started, with nothing loaded.
    pub fn new(version: u32) -> Self {
        Self {
            version,
            reload_reapplies: version != 257,
            units: BTreeMap::new(),
            wanted: BTreeSet::new(),
            next_pid: 1000,
            invocations: 0,
            clock: 1_000_000,
        }
    }

    /// Starts everything that multi-user.target wants, in the order of `After=`.
    pub fn boot(&mut self, grounds: &mut Grounds<'_>) {
        self.units.clear();
        grounds.cgroups.clear();
        self.clock = 1_000_000;
        self.wanted = enabled(grounds.disk);
        let mut waiting = self.wanted.clone();
        for unit in &waiting {
            self.know(grounds.disk, unit);
        }
        while let Some(next) = self.next_in_order(&waiting) {
            waiting.remove(&next);
            // Whatever comes of it, boot goes on.
            let _ = self.start(grounds, &next);
        }
    }

    /// The unit that waits for no other one of these; the first one where they wait in a circle.
    fn next_in_order(&self, waiting: &BTreeSet<UnitName>) -> Option<UnitName> {
        let is_free = |unit: &&UnitName| !self.units[*unit].loaded.after.iter().any(|before| waiting.contains(before));
        waiting.iter().find(is_free).or_else(|| waiting.first()).cloned()
    }

    /// `LoadUnit`: the unit, read from disk if it is not in memory.
    pub fn know(&mut self, disk: &Disk, unit: &UnitName) -> &mut Unit {
        self.units.entry(unit.clone()).or_insert_with(|| Unit::at_rest(disk.unit(unit)))
    }

    /// Forgets units at rest that nothing refers to, as systemd does all the time.
    pub fn collect(&mut self) {
        let Self { units, wanted, .. } = self;
        units.retain(|name, unit| unit.activity != Activity::Inactive || wanted.contains(name));
    }

    /// `Reload`: reads every unit in memory again.
    pub fn reload(&mut self, grounds: &mut Grounds<'_>) {
        self.wanted = enabled(grounds.disk);
        self.collect();
        for unit in self.wanted.clone() {
            self.know(grounds.disk, &unit);
        }
        let names: Vec<UnitName> = self.units.keys().cloned().collect();
        for name in &names {
            if let Some(unit) = self.units.get_mut(name) {
                unit.loaded = grounds.disk.unit(name);
                unit.is_marked = false;
            }
        }
        if self.reload_reapplies {
            names.iter().for_each(|name| self.realize(grounds, name));
        }
    }

    /// `NeedDaemonReload`.
    pub fn needs_reload(&self, disk: &Disk, name: &UnitName) -> bool {
        self.units.get(name).is_some_and(|unit| {
            (unit.is_marked && self.version < 253)
                || (unit.loaded.revision != disk.revision && needs_reload(disk, name, &unit.loaded, self.version))
        })
    }

    /// The unit itself and, for a slice, every unit inside, innermost first.
    pub fn inside(&self, name: &UnitName) -> Vec<UnitName> {
        let path = self.cgroup_of(name);
        let within = format!("{path}/");
        let is_inside = |unit: &&UnitName| self.cgroup_of(unit).starts_with(&within);
        let mut names: Vec<UnitName> = match name.kind() {
            UnitKind::Slice => self.units.keys().filter(is_inside).cloned().collect(),
            UnitKind::Service => Vec::new(),
        };
        names.sort_by_key(|unit| std::cmp::Reverse(self.cgroup_of(unit).len()));
        names.push(name.clone());
        names
    }

    /// `ResetFailedUnit`.
    pub fn reset_failed(&mut self, name: &UnitName) {
        if let Some(unit) = self.units.get_mut(name)
            && matches!(unit.activity, Activity::Failed(_))
        {
            unit.activity = Activity::Inactive;
        }
    }

    /// `SetUnitProperties`: checked, applied to the running unit, and left in one drop-in per property.
    pub fn set_properties(
        &mut self,
        grounds: &mut Grounds<'_>,
        name: &UnitName,
        properties: &Properties,
        directory: &str,
    ) -> Result<(), CallError> {
        match (self.know(grounds.disk, name).loaded.state, name.kind()) {
            (LoadState::Masked, _) => return Err(CallError("org.freedesktop.systemd1.UnitMasked")),
            (LoadState::NotFound, UnitKind::Service) => return Err(CallError("org.freedesktop.systemd1.NoSuchUnit")),
            _ => {}
        }
        if properties.get(&Property::MemoryMax) == Some(&Value::Number(0)) {
            return Err(CallError("org.freedesktop.DBus.Error.InvalidArgs"));
        }
        for (property, value) in properties {
            let path = format!("{directory}/{name}.d/50-{}.conf", property.key());
            grounds.disk.put(&path, control_drop_in(name, *property, value).as_bytes());
        }
        let disk = &grounds.disk;
        let version = self.version;
        let unit = self.know(disk, name);
        let loaded = Rc::make_mut(&mut unit.loaded);
        loaded.properties.extend(properties.clone());
        // systemd takes note of what it wrote itself.
        let written = disk.unit(name);
        (loaded.drop_ins, loaded.stamps) = (written.drop_ins.clone(), written.stamps.clone());
        unit.is_marked |= version < 253 && properties.len() > 1;
        self.realize(grounds, name);
        Ok(())
    }

    /// Where threads cling to CPUs, with what their cgroup gives now.
    pub fn stuck_places(&self, cgroups: &Cgroups, machine: &Machine) -> BTreeMap<UnitName, CpuSet> {
        let stuck = self.units.iter().filter_map(|(name, unit)| Some((name, unit.process.as_ref()?)));
        let stuck = stuck.filter(|(_, process)| process.stuck_on.is_some());
        stuck.map(|(name, process)| (name.clone(), cgroups.effective_cpus(machine, &process.cgroup))).collect()
    }

    /// The kernel moves threads only when the effective CPUs of their cgroup really change.
    pub fn release_stuck(&mut self, before: &BTreeMap<UnitName, CpuSet>, cgroups: &Cgroups, machine: &Machine) {
        for (name, effective) in before {
            let process = self.units.get_mut(name).and_then(|unit| unit.process.as_mut());
            if let Some(process) = process
                && cgroups.effective_cpus(machine, &process.cgroup) != *effective
            {
                process.stuck_on = None;
            }
        }
    }

    /// `ControlGroup` of a unit, whether it exists or not.
    pub fn cgroup_of(&self, name: &UnitName) -> String {
        let running = self.units.get(name).filter(|unit| unit.process.is_some());
        if let Some(home) = running.and_then(|unit| unit.home.clone()) {
            return home;
        }
        match name.kind() {
            UnitKind::Slice => slice_path(name),
            UnitKind::Service => {
                let slice = self.units.get(name).and_then(|unit| unit.loaded.slice.as_ref());
                format!("{}/{name}", slice.map_or_else(|| "/system.slice".to_owned(), slice_path))
            }
        }
    }

    /// Writes every setting of a unit into its cgroup; what the kernel does not take stays as it was.
    pub(super) fn realize(&mut self, grounds: &mut Grounds<'_>, name: &UnitName) {
        let path = self.cgroup_of(name);
        if grounds.cgroups.values(&path).is_none() {
            return;
        }
        let Some(unit) = self.units.get(name) else { return };
        for (property, value) in with_defaults(name.kind(), &unit.loaded.properties) {
            let value = if value == Value::Default { Value::Number(100) } else { value };
            // systemd logs a refusal and goes on; nobody is told.
            let _ = grounds.cgroups.write(grounds.machine, &path, property, &value);
        }
    }

    /// An invocation that no unit had before, on this boot or an earlier one.
    pub(super) fn new_invocation(&mut self) -> String {
        self.invocations += 1;
        format!("{:032x}", self.invocations)
    }

    pub(super) fn tick_clock(&mut self) -> u64 {
        self.clock += 1000;
        self.clock
    }
}

impl Unit {
    fn at_rest(loaded: Rc<Loaded>) -> Self {
        Self {
            loaded,
            activity: Activity::Inactive,
            process: None,
            home: None,
            invocation: String::new(),
            active_since: 0,
            restarts: 0,
            is_marked: false,
        }
    }
}

/// Every managed setting of a unit with systemd's defaults filled in.
pub fn with_defaults(kind: UnitKind, properties: &Properties) -> Properties {
    let default = |property: Property| match (property, kind) {
        (Property::AllowedCpus, _) => Value::Cpus(CpuSet::new()),
        (Property::AllowedMemoryNodes, _) => Value::Nodes(lamina_crds::NodeSet::new()),
        (Property::MemoryMin | Property::MemoryLow, _) => Value::Number(0),
        (Property::MemoryHigh | Property::MemoryMax | Property::MemorySwapMax, _) => Value::Infinity,
        (Property::IoWeight, _) => Value::Default,
        (Property::TasksMax, UnitKind::Slice) => Value::Infinity,
        (Property::TasksMax, UnitKind::Service) => Value::Number(DEFAULT_TASKS),
    };
    let value = |property: Property| properties.get(&property).cloned().unwrap_or_else(|| default(property));
    Property::ALL.into_iter().map(|property| (property, value(property))).collect()
}

/// The text of a drop-in that SetUnitProperties leaves: lists are reset first.
fn control_drop_in(unit: &UnitName, property: Property, value: &Value) -> String {
    let section = match unit.kind() {
        UnitKind::Slice => "Slice",
        UnitKind::Service => "Service",
    };
    let key = property.key();
    let reset = match property {
        Property::AllowedCpus | Property::AllowedMemoryNodes => format!("{key}=\n"),
        _ => String::new(),
    };
    format!(
        "# This is a drop-in unit file extension, created via \"systemctl set-property\"\n[{section}]\n{reset}{key}={value}\n"
    )
}

/// Services that are linked from multi-user.target.
fn enabled(disk: &Disk) -> BTreeSet<UnitName> {
    let is_link = |entry: &Entry| matches!(entry, Entry::Link(_));
    let names = disk.list(WANTS).filter(|(_, entry)| is_link(entry)).filter_map(|(path, _)| path.rsplit_once('/'));
    names.filter_map(|(_, name)| UnitName::new(name).ok()).filter(|unit| unit.kind() == UnitKind::Service).collect()
}

/// Whether a unit is linked from multi-user.target.
pub fn is_enabled(disk: &Disk, unit: &UnitName) -> bool {
    matches!(disk.entry(HostPath::enablement(unit).as_str()), Some(Entry::Link(_)))
}

/// The slice with its ancestors, outermost first: a dash nests.
pub fn slice_chain(slice: &UnitName) -> Vec<UnitName> {
    let stem = slice.stem();
    let ends = stem.match_indices('-').map(|(at, _)| at).chain([stem.len()]);
    ends.filter_map(|end| UnitName::new(format!("{}.slice", &stem[..end])).ok()).collect()
}

/// The cgroup of a slice.
pub fn slice_path(slice: &UnitName) -> String {
    slice_chain(slice).iter().map(|name| format!("/{name}")).collect()
}
