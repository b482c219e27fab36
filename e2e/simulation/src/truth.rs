//! Judges whether a host really is what an entry asks, in all three layers. Written apart from the agent's plan and
//! report, straight from the entry, so that the two check each other. Every disagreement is one sentence.

use std::collections::BTreeMap;

use lamina_crds::host_state::{EntryState, ServiceEntry, SliceEntry};
use lamina_crds::slice_topology::{MemoryLimits, OnChange, TaskLimits};
use lamina_crds::wishes::Migration;
use lamina_crds::{Bytes, CpuSet, TopologyEntry, UnitName};
use lamina_node_agent::desired::TextDigests;
use lamina_node_agent::host_path::{PERSISTENT_CONTROL, RUNTIME_CONTROL};
use lamina_node_agent::property::{Properties, Property, Value};

use crate::host::SimulatedHost;
use crate::host::disk::Entry;
use crate::host::loaded::{LoadState, Loaded, Program};
use crate::host::systemd::{Activity, Process, is_enabled, slice_path, with_defaults};

/// Everything in which the host disagrees with a Present entry.
pub fn disagreements(host: &SimulatedHost, entry: &TopologyEntry) -> Vec<String> {
    disagreements_after(host, host, entry)
}

/// The same of a host that has lost its power. Memory nodes that waited for a restart `before` may still be the former
/// ones: no agent has run since.
pub fn disagreements_after(before: &SimulatedHost, host: &SimulatedHost, entry: &TopologyEntry) -> Vec<String> {
    let mut found = Vec::new();
    match UnitName::of_topology(&entry.name) {
        Ok(own) => found.extend(own_slice(host, entry, &own)),
        Err(error) => found.push(error.to_string()),
    }
    found.extend(entry.files.iter().filter_map(|file| {
        let path = delivered(entry, file.name.as_str());
        let differs = host.disk.read(&path).as_deref() != Some(file.content.as_bytes());
        differs.then(|| format!("{path} is not what was to be delivered"))
    }));
    let slices = entry.slices.iter();
    found.extend(slices.flat_map(|slice| slice_disagreements(host, slice, memory_nodes_wait(before, entry, slice))));
    found.extend(entry.services.iter().flat_map(|service| service_disagreements(host, entry, service)));
    found
}

/// Everything that is left of an Absent entry.
pub fn remains(host: &SimulatedHost, entry: &TopologyEntry) -> Vec<String> {
    let belongs = |path: &str| {
        let name = path.split('/').find_map(|part| UnitName::new(part.strip_suffix(".d").unwrap_or(part)).ok());
        name.is_some_and(|unit| unit.belongs_to(&entry.name))
            || path.starts_with(&format!("/etc/lamina/files/{}/", entry.name))
    };
    let is_foreign =
        |path: &str| host.foreign.keys().any(|foreign| foreign == path || foreign.starts_with(&format!("{path}/")));
    // Other people's settings of our units are theirs, and an empty directory says nothing.
    let files = host.disk.all().filter(|(_, entry)| !matches!(entry, Entry::Directory)).map(|(path, _)| path);
    let files = files.filter(|path| belongs(path) && !is_foreign(path) && !path.starts_with(PERSISTENT_CONTROL));
    let running = host
        .systemd
        .units
        .iter()
        .filter(|(name, unit)| name.belongs_to(&entry.name) && unit.activity != Activity::Inactive);
    files
        .map(|path| format!("{path} is still there"))
        .chain(running.map(|(name, _)| format!("{name} still runs")))
        .collect()
}

/// In which way a process does not run what a service asks; `None` if it does. Derived values do not count.
pub fn process_disagreement(
    host: &SimulatedHost,
    entry: &TopologyEntry,
    service: &ServiceEntry,
    process: &Process,
) -> Option<String> {
    let home = format!("{}/{}", slice_path(&service.slice), service.unit);
    if process.cgroup != home {
        return Some(format!("{} sits in {}", service.unit, process.cgroup));
    }
    let contents: Vec<&[u8]> = process.env_contents.iter().map(|content| &content[..]).collect();
    program_disagreement(host, entry, service, &process.program, &contents)
}

fn own_slice(host: &SimulatedHost, entry: &TopologyEntry, own: &UnitName) -> Vec<String> {
    let sum = |amount: fn(&MemoryLimits) -> Option<Bytes>| {
        entry.slices.iter().filter_map(|slice| amount(slice.memory.as_ref()?)).sum::<Bytes>()
    };
    let memory = MemoryLimits { min: Some(sum(|m| m.min)), low: Some(sum(|m| m.low)), ..MemoryLimits::default() };
    let mut found = slice_exists(host, own);
    found.extend(values(host, own, &asked_memory(Some(&memory))));
    found
}

fn slice_exists(host: &SimulatedHost, slice: &UnitName) -> Vec<String> {
    let is_active = host.systemd.units.get(slice).is_some_and(|unit| unit.activity == Activity::Active);
    if is_active { Vec::new() } else { vec![format!("{slice} is not active")] }
}

/// Whether a process runs in the slice that was started for other derived values: its memory nodes need not be the new
/// ones yet.
fn memory_nodes_wait(host: &SimulatedHost, entry: &TopologyEntry, slice: &SliceEntry) -> bool {
    let inside = entry.services.iter().filter(|service| service.slice == slice.unit);
    let is_from_before = |service: &ServiceEntry| {
        let process = host.systemd.units.get(&service.unit).and_then(|unit| unit.process.as_ref());
        let derived = |digests: &Option<TextDigests>| digests.as_ref().map(|digests| digests.derived.clone());
        let on_disk = derived(&host.disk.unit(&service.unit).digests);
        process.is_some_and(|process| derived(&process.started_from) != on_disk)
    };
    slice.migrate == Migration::OnRestart && inside.into_iter().any(is_from_before)
}

fn slice_disagreements(host: &SimulatedHost, slice: &SliceEntry, nodes_wait: bool) -> Vec<String> {
    let SliceEntry { unit, start_after: _, cpus, memory_nodes, memory_policy: _, migrate: _, memory, io, tasks } =
        slice;
    let memory_nodes = memory_nodes.as_ref().filter(|_| !nodes_wait);
    let mut asked = asked_memory(memory.as_ref());
    asked.insert(Property::AllowedCpus, Value::Cpus(cpus.clone()));
    asked.extend(memory_nodes.map(|nodes| (Property::AllowedMemoryNodes, Value::Nodes(nodes.clone()))));
    asked.extend(io.and_then(|io| io.weight).map(|weight| (Property::IoWeight, Value::Number(weight.into()))));
    asked.extend(tasks.and_then(|tasks| tasks.max).map(|most| (Property::TasksMax, Value::Number(most))));
    let mut found = slice_exists(host, unit);
    found.extend(values(host, unit, &asked));
    let path = slice_path(unit);
    let effective = host.cgroups.effective_cpus(&host.machine, &path);
    let expected = cpus.intersection(&host.machine.online);
    if effective != expected && !expected.is_empty() {
        found.push(format!("{unit} has CPUs {effective}, not {expected}"));
    }
    let nodes = host.cgroups.effective_nodes(&host.machine, &path);
    if memory_nodes.is_some_and(|asked| *asked != nodes) {
        found.push(format!("{unit} has memory nodes {nodes}"));
    }
    found
}

fn service_disagreements(host: &SimulatedHost, entry: &TopologyEntry, service: &ServiceEntry) -> Vec<String> {
    let mut asked = asked_memory(service.memory.as_ref());
    asked
        .extend(service.tasks.and_then(|TaskLimits { max }| max).map(|most| (Property::TasksMax, Value::Number(most))));
    let unit = &service.unit;
    let mut found = values(host, unit, &asked);
    if !is_enabled(&host.disk, unit) {
        found.push(format!("{unit} does not start at boot"));
    }
    let in_memory = host.systemd.units.get(unit).map(|unit| &*unit.loaded);
    let on_disk = host.disk.unit(unit);
    for (place, loaded) in in_memory.map(|loaded| ("as loaded", loaded)).into_iter().chain([("on disk", &*on_disk)]) {
        found.extend(text_disagreement(host, entry, service, loaded).map(|what| format!("{unit} {place}: {what}")));
    }
    match host.systemd.units.get(unit).and_then(|unit| unit.process.as_ref()) {
        None => found.push(format!("{unit} does not run")),
        Some(process) => {
            let differs = process_disagreement(host, entry, service, process);
            found.extend(differs.filter(|_| service.on_change != OnChange::Never));
            found.extend(outside(host, entry, service, process));
        }
    }
    found
}

/// Threads outside of what the service's slice was given.
fn outside(host: &SimulatedHost, entry: &TopologyEntry, service: &ServiceEntry, process: &Process) -> Option<String> {
    let slice = entry.slices.iter().find(|slice| slice.unit == service.slice)?;
    let cpus = host.cpus_of(process);
    let online = slice.cpus.intersection(&host.machine.online);
    (!cpus.is_subset(&slice.cpus) && !online.is_empty())
        .then(|| format!("threads of {} may run on {cpus}, not only on {}", service.unit, slice.cpus))
}

/// Values of a unit that differ from what is asked: on disk, as loaded, in the kernel.
fn values(host: &SimulatedHost, unit: &UnitName, asked: &Properties) -> Vec<String> {
    let on_disk = host.disk.unit(unit);
    let mut found = Vec::new();
    if on_disk.state != LoadState::Loaded {
        found.push(format!("{unit} on disk is {}", on_disk.state.word()));
    }
    let in_memory = host.systemd.units.get(unit).map(|unit| &*unit.loaded);
    let layers = [("on disk", Some(&*on_disk)), ("as loaded", in_memory)];
    for (place, loaded) in layers {
        let present = loaded.map(|loaded| with_defaults(unit.kind(), &loaded.properties)).unwrap_or_default();
        found.extend(differing(unit, place, asked, &present, |_, value| value.clone()));
    }
    let path = host.systemd.cgroup_of(unit);
    let kernel = host.cgroups.values(&path).cloned().unwrap_or_default();
    found.extend(differing(unit, "in the kernel", asked, &kernel, in_kernel));
    found
}

fn differing(
    unit: &UnitName,
    place: &str,
    asked: &Properties,
    present: &Properties,
    expected: impl Fn(Property, &Value) -> Value,
) -> Vec<String> {
    let differs = |(property, value): (&Property, &Value)| {
        let expected = expected(*property, value);
        let found = present.get(property);
        (found != Some(&expected)).then(|| format!("{unit} {place}: {} is {found:?}, not {expected:?}", property.key()))
    };
    asked.iter().filter_map(differs).collect()
}

/// Limits of memory are kept in whole pages.
fn in_kernel(property: Property, value: &Value) -> Value {
    match value {
        Value::Number(bytes) if property.is_memory() => Value::Number(bytes / 4096 * 4096),
        Value::Cpus(_) | Value::Nodes(_) | Value::Number(_) | Value::Infinity | Value::Default => value.clone(),
    }
}

fn asked_memory(memory: Option<&MemoryLimits>) -> Properties {
    let MemoryLimits { min, low, high, max, swap_max } = memory.copied().unwrap_or_default();
    let least = |bytes: Option<Bytes>| Value::Number(bytes.map_or(0, Bytes::get));
    let most = |bytes: Option<Bytes>| bytes.map_or(Value::Infinity, |bytes| Value::Number(bytes.get()));
    Properties::from([
        (Property::MemoryMin, least(min)),
        (Property::MemoryLow, least(low)),
        (Property::MemoryHigh, most(high)),
        (Property::MemoryMax, most(max)),
        (Property::MemorySwapMax, most(swap_max)),
    ])
}

fn text_disagreement(
    host: &SimulatedHost,
    entry: &TopologyEntry,
    service: &ServiceEntry,
    loaded: &Loaded,
) -> Option<String> {
    if loaded.state != LoadState::Loaded {
        return Some(format!("it is {}", loaded.state.word()));
    }
    if loaded.slice.as_ref() != Some(&service.slice) {
        return Some(format!("its slice is {:?}", loaded.slice));
    }
    let contents: Vec<Vec<u8>> =
        loaded.program.env_files.iter().map(|path| host.disk.read(path).map_or(Vec::new(), |c| c.to_vec())).collect();
    let contents: Vec<&[u8]> = contents.iter().map(Vec::as_slice).collect();
    let derived = service.env.iter().filter(|variable| variable.derived).find_map(|variable| {
        let present = environment(&loaded.program, &contents).remove(variable.name.as_str());
        (present.as_deref() != Some(variable.value.as_str())).then(|| format!("{} is {present:?}", variable.name))
    });
    derived.or_else(|| program_disagreement(host, entry, service, &loaded.program, &contents))
}

fn program_disagreement(
    host: &SimulatedHost,
    entry: &TopologyEntry,
    service: &ServiceEntry,
    program: &Program,
    contents: &[&[u8]],
) -> Option<String> {
    let asked: Vec<&str> = service.command.iter().map(|word| word.as_str()).collect();
    if program.command != asked {
        return Some(format!("{} runs {:?}", service.unit, program.command));
    }
    if program.user != service.user.as_str() {
        return Some(format!("{} runs as {}", service.unit, program.user));
    }
    let directory = service.working_directory.as_ref().map_or("", |path| path.as_str());
    if !directory.is_empty() && program.working_directory != directory {
        return Some(format!("{} starts in {}", service.unit, program.working_directory));
    }
    for (path, content) in program.env_files.iter().zip(contents) {
        let file = entry.files.iter().find(|file| delivered(entry, file.name.as_str()) == *path);
        if file.is_some_and(|file| file.content.as_bytes() != *content) {
            return Some(format!("{} has read another {path}: {:?}", service.unit, String::from_utf8_lossy(content)));
        }
    }
    let environment = environment(program, contents);
    let asked = expected_environment(host, entry, service);
    let differs = asked.iter().find(|(name, value)| environment.get(*name) != Some(*value));
    differs.map(|(name, value)| format!("{} has {name}={:?}, not {value}", service.unit, environment.get(name)))
}

/// Where a file of a topology is delivered.
fn delivered(entry: &TopologyEntry, name: &str) -> String {
    format!("/etc/lamina/files/{}/{name}", entry.name)
}

/// What a process finds in its environment: the unit's own variables, then those of its files, the last one wins.
fn environment(program: &Program, contents: &[&[u8]]) -> BTreeMap<String, String> {
    let mut environment = program.environment.clone();
    environment.extend(contents.iter().flat_map(|content| variables(&String::from_utf8_lossy(content))));
    environment
}

fn expected_environment(
    host: &SimulatedHost,
    entry: &TopologyEntry,
    service: &ServiceEntry,
) -> BTreeMap<String, String> {
    let mut expected = BTreeMap::new();
    for file in &service.env_files {
        let delivered = file.file.as_ref().and_then(|name| entry.files.iter().find(|file| file.name == *name));
        let content = match (delivered, &file.path) {
            (Some(file), _) => file.content.clone(),
            (None, Some(path)) => {
                host.disk.read(path.as_str()).map(|c| String::from_utf8_lossy(&c).into_owned()).unwrap_or_default()
            }
            (None, None) => String::new(),
        };
        expected.extend(variables(&content));
    }
    let derived = service.env.iter().filter(|variable| variable.derived);
    derived.for_each(|variable| drop(expected.remove(variable.name.as_str())));
    let fixed = service.env.iter().filter(|variable| !variable.derived);
    expected.extend(fixed.map(|variable| (variable.name.to_string(), variable.value.as_str().to_owned())));
    expected
}

/// The variables of an environment file, systemd.exec(5): quotes are taken away, a backslash takes the next character
/// literally inside double quotes.
fn variables(content: &str) -> Vec<(String, String)> {
    let lines = content.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';']));
    let pairs = lines.filter_map(|line| line.split_once('='));
    pairs.map(|(name, value)| (name.trim().to_owned(), unquoted(value.trim()))).collect()
}

fn unquoted(value: &str) -> String {
    if let Some(inner) = value.strip_prefix('\'').and_then(|value| value.strip_suffix('\'')) {
        return inner.to_owned();
    }
    let Some(inner) = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')) else {
        return value.to_owned();
    };
    let mut text = String::new();
    let mut characters = inner.chars();
    while let Some(character) = characters.next() {
        text.push(if character == '\\' { characters.next().unwrap_or('\\') } else { character });
    }
    text
}

/// The CPUs that an entry gives to the slice of one of its services.
pub fn cpus_of_service(entry: &TopologyEntry, service: &ServiceEntry) -> CpuSet {
    entry.slices.iter().find(|slice| slice.unit == service.slice).map(|slice| slice.cpus.clone()).unwrap_or_default()
}

/// Pushes of ours that were left behind on a host.
pub fn leftovers(host: &SimulatedHost) -> Vec<String> {
    let pushed = host.disk.all().map(|(path, _)| path).filter(|path| path.starts_with(RUNTIME_CONTROL));
    // A copy of the accepted state on its way is written over by the next one.
    let staged = host.disk.all().map(|(path, _)| path).filter(|path| path.ends_with(".lamina-new"));
    let staged = staged.filter(|path| !path.starts_with("/var/lib/lamina/") && is_enforced(host, path));
    let files = pushed.filter(|path| path.ends_with(".conf") && is_enforced(host, path));
    files.chain(staged).map(|path| format!("{path} was left behind")).collect()
}

/// Whether a file on its way, or a push, belongs to a unit that is to run: what is released is left as it is.
fn is_enforced(host: &SimulatedHost, path: &str) -> bool {
    let mut present = host.witness.wanted.values().filter(|entry| entry.state == EntryState::Present);
    let unit = path.split('/').find_map(|part| {
        let part = part.strip_prefix('.').and_then(|part| part.strip_suffix(".lamina-new")).unwrap_or(part);
        UnitName::new(part.strip_suffix(".d").unwrap_or(part)).ok()
    });
    present.any(|entry| {
        unit.as_ref().is_some_and(|unit| is_unit_of(entry, unit))
            || path.starts_with(&format!("/etc/lamina/files/{}/", entry.name))
    })
}

fn is_unit_of(entry: &TopologyEntry, unit: &UnitName) -> bool {
    entry.services.iter().any(|service| service.unit == *unit)
        || entry.slices.iter().any(|slice| slice.unit == *unit)
        || UnitName::of_topology(&entry.name).is_ok_and(|own| own == *unit)
}
