//! Decides what an entry means on disk and in the kernel: unit names to unit texts, files and live properties.

use std::collections::{BTreeMap, BTreeSet};

use lamina_crds::host_state::{
    EntryState, ResolvedEnv, ResolvedEnvFile, ResolvedRestart, ServiceEntry, SliceEntry, digest, digest_of_bytes,
};
use lamina_crds::names::{FileName, NameError};
use lamina_crds::slice_topology::{MemoryLimits, ResourceLimits, RestartPolicy, TaskLimits};
use lamina_crds::text::AbsolutePath;
use lamina_crds::wishes::Migration;
use lamina_crds::{Bytes, TopologyEntry, TopologyName, UnitName};

use crate::desired::{DesiredEntry, DesiredService, DesiredSlice, ServiceNeeds, TextDigests, UnitText};
use crate::host_path::HostPath;
use crate::marker::sealed;
use crate::numa::NumaPolicy;
use crate::property::{Properties, Property, Value};
use crate::start_settings::{Limits, WantedFile, WantedStart};
use crate::unit_text::{UnitFile, environment_file};

/// What an entry wants of the host. Fails only if the topology's own slice bears a protected name.
pub fn render(entry: &TopologyEntry) -> Result<DesiredEntry, NameError> {
    let TopologyEntry { name, state, revision, generation: _, adoption, files: _, slices, services } = entry;
    let own = topology_slice(name, UnitName::of_topology(name)?, slices);
    let order = StartOrder::of(slices, services);
    let of_slice = |service: &ServiceEntry| slices.iter().find(|slice| slice.unit == service.slice);
    Ok(DesiredEntry {
        state: *state,
        revision: revision.clone(),
        adoption: *adoption,
        written: BTreeSet::new(),
        formerly: BTreeMap::new(),
        saved: BTreeMap::new(),
        files: delivered(entry),
        slices: std::iter::once(own).chain(slices.iter().map(|slice| slice_of(name, slice))).collect(),
        services: services.iter().map(|service| service_of(entry, service, of_slice(service), &order)).collect(),
    })
}

impl DesiredEntry {
    /// Whether the entry's units are to run and be enforced.
    pub fn is_present(&self) -> bool {
        self.state == EntryState::Present
    }

    /// Every unit of the entry, slices first.
    pub fn units(&self) -> impl Iterator<Item = &UnitName> {
        self.slices.iter().map(|slice| &slice.unit).chain(self.services.iter().map(|service| &service.unit))
    }

    /// Every path that the entry fills.
    pub fn paths(&self) -> BTreeSet<HostPath> {
        let units = self.units().flat_map(|unit| [HostPath::fragment(unit), HostPath::drop_in(unit)]);
        units.chain(self.files.keys().cloned()).collect()
    }
}

fn delivered(entry: &TopologyEntry) -> BTreeMap<HostPath, String> {
    let files = entry.files.iter().map(|file| (HostPath::delivered(&entry.name, &file.name), file.content.clone()));
    let own = entry.services.iter().filter(|service| has_own_file(service)).map(|service| {
        let variables = service.env.iter().map(|variable| (&variable.name, variable.value.as_str()));
        (HostPath::own_environment(&entry.name, &service.unit), environment_file(variables))
    });
    files.chain(own).collect()
}

/// Whether the service's variables stand in a file: needed where they must win over other files.
fn has_own_file(service: &ServiceEntry) -> bool {
    !service.env_files.is_empty() && !service.env.is_empty()
}

/// The slice above all others: not pinned, but protection counts only through every ancestor (cgroup-v2, memory.min).
fn topology_slice(topology: &TopologyName, unit: UnitName, slices: &[SliceEntry]) -> DesiredSlice {
    let sum = |amount: fn(&MemoryLimits) -> Option<Bytes>| {
        let total: Bytes = slices.iter().filter_map(|slice| amount(slice.memory.as_ref()?)).sum();
        (total > Bytes::new(0)).then_some(total)
    };
    let memory =
        MemoryLimits { min: sum(|memory| memory.min), low: sum(|memory| memory.low), ..MemoryLimits::default() };
    let mut properties = memory_properties(Some(&memory));
    properties.extend([(Property::IoWeight, Value::Default), (Property::TasksMax, Value::Infinity)]);
    let text = slice_text(topology, &format!("Slices of topology {topology}"), &properties);
    DesiredSlice { unit, text, properties, cpus: None, memory_nodes: None, migrate: Migration::Now }
}

fn slice_of(topology: &TopologyName, slice: &SliceEntry) -> DesiredSlice {
    let SliceEntry { unit, start_after: _, cpus, memory_nodes, memory_policy: _, migrate, memory, io, tasks } = slice;
    let mut properties = memory_properties(memory.as_ref());
    let weight = io.and_then(|io| io.weight).map_or(Value::Default, |weight| Value::Number(weight.into()));
    let tasks = tasks.and_then(|tasks| tasks.max).map_or(Value::Infinity, Value::Number);
    properties.extend([
        (Property::AllowedCpus, Value::Cpus(cpus.clone())),
        (Property::IoWeight, weight),
        (Property::TasksMax, tasks),
    ]);
    if let Some(nodes) = memory_nodes {
        properties.insert(Property::AllowedMemoryNodes, Value::Nodes(nodes.clone()));
    }
    let text = slice_text(topology, &format!("Slice {} of topology {topology}", unit.stem()), &properties);
    DesiredSlice {
        unit: unit.clone(),
        text,
        properties,
        cpus: Some(cpus.clone()),
        memory_nodes: memory_nodes.clone(),
        migrate: *migrate,
    }
}

fn slice_text(topology: &TopologyName, description: &str, properties: &Properties) -> UnitText {
    let fragment = UnitFile::new().section("Unit").text("Description", description).section("Slice").finish();
    UnitText { fragment: sealed(topology, &fragment), drop_in: slice_drop_in(topology, properties) }
}

/// Every managed value of a slice.
pub(crate) fn slice_drop_in(topology: &TopologyName, properties: &Properties) -> String {
    sealed(topology, &settings("Slice", properties).finish())
}

/// Every managed value of a service, and how its memory spreads over nodes.
pub(crate) fn service_drop_in(topology: &TopologyName, properties: &Properties, numa: Option<&NumaPolicy>) -> String {
    let file = settings("Service", properties);
    sealed(topology, &numa.map_or_else(|| file.clone(), |numa| numa.lines(file.clone())).finish())
}

/// Managed values; what merges with earlier files is emptied first, so that ours is the only one.
fn settings(section: &'static str, properties: &Properties) -> UnitFile {
    properties.iter().fold(UnitFile::new().section(section), |file, (property, value)| match value {
        Value::Cpus(_) | Value::Nodes(_) => file.reset(property.key()).set(property.key(), value),
        Value::Number(_) | Value::Infinity | Value::Default => file.set(property.key(), value),
    })
}

/// Memory settings, all of them: what is not asked stands there as its default, so that drift of it is seen.
fn memory_properties(memory: Option<&MemoryLimits>) -> Properties {
    let MemoryLimits { min, low, high, max, swap_max } = memory.copied().unwrap_or_default();
    let protection = |amount: Option<Bytes>| Value::Number(amount.unwrap_or_default().get());
    let limit = |amount: Option<Bytes>| amount.map_or(Value::Infinity, |amount| Value::Number(amount.get()));
    Properties::from([
        (Property::MemoryMin, protection(min)),
        (Property::MemoryLow, protection(low)),
        (Property::MemoryHigh, limit(high)),
        (Property::MemoryMax, limit(max)),
        (Property::MemorySwapMax, limit(swap_max)),
    ])
}

fn service_of(
    entry: &TopologyEntry,
    service: &ServiceEntry,
    slice: Option<&SliceEntry>,
    order: &StartOrder<'_>,
) -> DesiredService {
    let mut properties = memory_properties(service.memory.as_ref());
    if let Some(TaskLimits { max: Some(max) }) = service.tasks {
        properties.insert(Property::TasksMax, Value::Number(max));
    }
    let start_after = order.before(&service.slice);
    let numa = slice.and_then(|slice| slice.memory_policy.as_ref()).map(NumaPolicy::asked);
    let body = fragment(entry, service, &start_after);
    let digests = TextDigests {
        text: digest_of_bytes(body.clone().finish_with(&[]).as_bytes()),
        start: start_digest(entry, service, numa.as_ref()),
        derived: derived_digest(service, slice),
    };
    let fields =
        [("LAMINA_TEXT", &digests.text), ("LAMINA_START", &digests.start), ("LAMINA_DERIVED", &digests.derived)];
    DesiredService {
        unit: service.unit.clone(),
        slice: service.slice.clone(),
        text: UnitText {
            fragment: sealed(&entry.name, &body.finish_with(&fields)),
            drop_in: service_drop_in(&entry.name, &properties, numa.as_ref()),
        },
        properties,
        numa,
        digests,
        doubted: None,
        seen: None,
        start: wanted_start(entry, service),
        adopted: None,
        start_after,
        on_change: service.on_change,
        needs: needs(service),
    }
}

fn needs(service: &ServiceEntry) -> ServiceNeeds {
    let program = service.command.first().and_then(|program| AbsolutePath::new(program.as_str()).ok());
    ServiceNeeds {
        user: service.user.clone(),
        executable: program,
        env_files: service.env_files.iter().filter_map(|file| file.path.clone()).collect(),
    }
}

fn wanted_start(entry: &TopologyEntry, service: &ServiceEntry) -> WantedStart {
    let (derived, given): (Vec<&ResolvedEnv>, _) = service.env.iter().partition(|variable| variable.derived);
    let map = |variables: Vec<&ResolvedEnv>| {
        let pair = |variable: &ResolvedEnv| (variable.name.as_str().to_owned(), variable.value.as_str().to_owned());
        variables.into_iter().map(pair).collect()
    };
    let content = |name: Option<&FileName>| {
        entry.files.iter().find(|file| Some(&file.name) == name).map(|file| file.content.clone())
    };
    let file = |file: &ResolvedEnvFile| {
        let delivered = content(file.file.as_ref()).map(WantedFile::Content);
        delivered.or_else(|| file.path.as_ref().map(|path| WantedFile::Path(path.to_string())))
    };
    WantedStart {
        command: service.command.iter().map(|word| word.as_str().to_owned()).collect(),
        user: service.user.to_string(),
        working_directory: service.working_directory.as_ref().map(ToString::to_string).unwrap_or_default(),
        files: service.env_files.iter().filter_map(file).collect(),
        given: map(given),
        derived: map(derived),
        limits: service.rlimits.iter().flat_map(limits).collect(),
    }
}

/// Limits by their keys, soft and hard alike.
fn limits(limits: &ResourceLimits) -> Limits {
    let ResourceLimits { nofile, nproc, memlock, core } = limits;
    let bytes = |amount: &Option<Bytes>| amount.map(Bytes::get);
    let all = [
        ("LimitNOFILE", *nofile),
        ("LimitNPROC", *nproc),
        ("LimitMEMLOCK", bytes(memlock)),
        ("LimitCORE", bytes(core)),
    ];
    all.into_iter().filter_map(|(key, value)| Some((key, (value?, value?)))).collect()
}

/// A service's fragment, open in the middle for the digests that speak of the rest.
#[derive(Clone)]
struct Fragment {
    upper: UnitFile,
}

impl Fragment {
    fn finish_with(self, fields: &[(&'static str, &String)]) -> String {
        let file = fields.iter().fold(self.upper, |file, (name, value)| file.variable("LogExtraFields", name, value));
        file.section("Install").set("WantedBy", &"multi-user.target").finish()
    }
}

fn fragment(entry: &TopologyEntry, service: &ServiceEntry, start_after: &[UnitName]) -> Fragment {
    let ServiceEntry {
        unit,
        slice,
        command,
        user,
        working_directory,
        env_files,
        env,
        restart: ResolvedRestart { policy, delay },
        memory: _,
        tasks: _,
        rlimits,
        on_change: _,
    } = service;
    let description = format!("Service {} of topology {}", unit.stem(), entry.name);
    let head = UnitFile::new().section("Unit").text("Description", &description);
    let head = start_after.iter().fold(head, |file, earlier| file.set("After", earlier));
    let body = head
        // The agent decides when to try again; the default limit would count its own restarts. systemd.unit(5).
        .set("StartLimitIntervalSec", &0)
        .section("Service")
        .set("Type", &"exec")
        .set("User", user)
        .set("Slice", slice)
        .set_some("WorkingDirectory", working_directory.as_ref())
        .command("ExecStart", command)
        .set("Restart", &restart_word(*policy))
        .set("RestartSec", &u64::from(delay.get()));
    let body = environment(body, entry, service, env_files, env);
    Fragment { upper: rlimits.iter().fold(body, limit_lines) }
}

fn environment(
    file: UnitFile,
    entry: &TopologyEntry,
    service: &ServiceEntry,
    env_files: &[ResolvedEnvFile],
    env: &[ResolvedEnv],
) -> UnitFile {
    let file = env_files.iter().fold(file, |text, ResolvedEnvFile { file, path }| {
        let delivered = file.as_ref().map(|name| HostPath::delivered(&entry.name, name));
        text.set_some("EnvironmentFile", delivered.as_ref()).set_some("EnvironmentFile", path.as_ref())
    });
    if has_own_file(service) {
        return file.set("EnvironmentFile", &HostPath::own_environment(&entry.name, &service.unit));
    }
    env.iter()
        .fold(file, |text, ResolvedEnv { name, value, derived: _ }| text.variable("Environment", name.as_str(), value))
}

fn restart_word(policy: RestartPolicy) -> &'static str {
    match policy {
        RestartPolicy::Always => "always",
        RestartPolicy::OnFailure => "on-failure",
        RestartPolicy::Never => "no",
    }
}

fn limit_lines(file: UnitFile, limits: &ResourceLimits) -> UnitFile {
    let ResourceLimits { nofile, nproc, memlock, core } = limits;
    let bytes = |amount: &Option<Bytes>| amount.map(Bytes::get);
    file.set_some("LimitNOFILE", nofile.as_ref())
        .set_some("LimitNPROC", nproc.as_ref())
        .set_some("LimitMEMLOCK", bytes(memlock).as_ref())
        .set_some("LimitCORE", bytes(core).as_ref())
}

/// Over everything that takes effect only when the program starts, and nothing else: the restart policy and the order
/// take effect with a reload, derived values never restart.
fn start_digest(entry: &TopologyEntry, service: &ServiceEntry, numa: Option<&NumaPolicy>) -> String {
    let ServiceEntry {
        unit: _,
        slice: _,
        command,
        user,
        working_directory,
        env_files,
        env,
        restart: _,
        memory: _,
        tasks: _,
        rlimits,
        on_change: _,
    } = service;
    let given: Vec<&ResolvedEnv> = env.iter().filter(|variable| !variable.derived).collect();
    let content = |name| entry.files.iter().find(|file| Some(&file.name) == name).map(|file| &file.content);
    let files: Vec<_> = env_files.iter().map(|file| (file, content(file.file.as_ref()))).collect();
    let own = (command, user, working_directory, files, given, rlimits);
    // The nodes of a policy follow from the placement: the kernel rebinds them, or they count as derived.
    numa.map_or_else(|| digest(&own), |numa| digest(&(&own, numa.policy)))
}

/// Over what follows from the host and its placement: derived values, and memory nodes that wait for a restart.
fn derived_digest(service: &ServiceEntry, slice: Option<&SliceEntry>) -> String {
    let derived: Vec<&ResolvedEnv> = service.env.iter().filter(|variable| variable.derived).collect();
    let waiting = slice.filter(|slice| slice.migrate == Migration::OnRestart);
    match waiting.and_then(|slice| slice.memory_nodes.as_ref()) {
        Some(nodes) => digest(&(derived, nodes)),
        None => digest(&derived),
    }
}

/// Which services start before those of a slice, through slices without services, too.
struct StartOrder<'a> {
    after: BTreeMap<&'a UnitName, &'a [UnitName]>,
    services: &'a [ServiceEntry],
}

impl<'a> StartOrder<'a> {
    fn of(slices: &'a [SliceEntry], services: &'a [ServiceEntry]) -> Self {
        let after = slices.iter().map(|slice| (&slice.unit, slice.start_after.as_slice())).collect();
        Self { after, services }
    }

    fn before(&self, slice: &UnitName) -> Vec<UnitName> {
        let mut earlier: BTreeSet<&UnitName> = BTreeSet::new();
        let mut open = vec![slice];
        while let Some(slice) = open.pop() {
            let direct = self.after.get(slice).copied().unwrap_or_default();
            open.extend(direct.iter().filter(|before| earlier.insert(before)));
        }
        let starts_earlier = |service: &&ServiceEntry| earlier.contains(&service.slice) && service.slice != *slice;
        self.services.iter().filter(starts_earlier).map(|service| service.unit.clone()).collect()
    }
}

#[cfg(test)]
mod tests;
