//! Decides whether one topology's entry of a `HostState` may touch a host: the agent's own look, whoever wrote it.

use std::collections::BTreeSet;

use super::order::{Order, cycles};
use super::topology::file_faults;
use super::{
    Fault, MOST_SERVICES, MOST_SLICES, at_most, command_faults, duplicates, exactly_one, io_faults, memory_faults,
    restart_fault, rlimit_faults, task_faults, unknown_name,
};
use crate::host_state::{
    ResolvedEnv, ResolvedEnvFile, ResolvedMemoryPolicy, ResolvedRestart, ServiceEntry, SliceEntry, TopologyEntry,
};
use crate::id_set::NodeSet;
use crate::names::{TopologyName, UnitKind, UnitName};
use crate::wishes::MemoryPolicy;

/// Every rule that the entry breaks; empty exactly when the agent may act on it.
pub fn entry_faults(entry: &TopologyEntry) -> Vec<Fault> {
    let TopologyEntry { name, state: _, revision: _, generation: _, adoption: _, files, slices, services } = entry;
    let known = Known {
        slices: slices.iter().map(|slice| slice.unit.as_str()).collect(),
        files: files.iter().map(|file| file.name.as_str()).collect(),
    };
    let mut faults = file_faults("files", files);
    faults.extend(at_most("slices", slices.len(), MOST_SLICES, "slices"));
    faults.extend(at_most("services", services.len(), MOST_SERVICES, "services"));
    faults.extend(duplicates(units("slices", slices.iter().map(|slice| &slice.unit))));
    faults.extend(duplicates(units("services", services.iter().map(|service| &service.unit))));
    for (index, slice) in slices.iter().enumerate() {
        faults.extend(slice_faults(&format!("slices[{index}]"), name, slice, &known));
    }
    for (index, service) in services.iter().enumerate() {
        faults.extend(service_faults(&format!("services[{index}]"), name, service, &known));
    }
    faults.extend(order_faults(slices));
    faults.into_iter().map(|fault| fault.within(&format!("spec.topologies[{name}]"))).collect()
}

/// What references may name.
struct Known<'a> {
    slices: BTreeSet<&'a str>,
    files: BTreeSet<&'a str>,
}

fn units<'a>(
    list: &'static str,
    units: impl Iterator<Item = &'a UnitName> + 'a,
) -> impl Iterator<Item = (String, &'a str)> {
    units.enumerate().map(move |(index, unit)| (format!("{list}[{index}]"), unit.as_str()))
}

/// The unit is of the right kind and bears the name of one of this topology's units: PREFIX-NAME.
fn unit_fault(path: &str, topology: &TopologyName, unit: &UnitName, kind: UnitKind) -> Option<Fault> {
    let prefix = topology.as_str().replace('-', "_");
    let own = unit.stem().strip_prefix(&prefix).and_then(|rest| rest.strip_prefix('-'));
    let legal = match kind {
        // A dash in the name would nest the slice below another one.
        UnitKind::Slice => own.is_some_and(|name| !name.contains('-')),
        UnitKind::Service => own.is_some(),
    };
    let suffix = match kind {
        UnitKind::Slice => "slice",
        UnitKind::Service => "service",
    };
    (!legal || unit.kind() != kind).then(|| {
        let rule = format!("it is not a unit of topology {topology}: only {prefix}-NAME.{suffix} is managed here");
        Fault::new(&format!("{path}.unit"), unit.as_str(), &rule, "let the operator write this entry again")
    })
}

fn slice_faults(path: &str, topology: &TopologyName, slice: &SliceEntry, known: &Known<'_>) -> Vec<Fault> {
    let SliceEntry { unit, start_after, cpus, memory_nodes, memory_policy, migrate: _, memory, io, tasks } = slice;
    let mut faults: Vec<Fault> = unit_fault(path, topology, unit, UnitKind::Slice).into_iter().collect();
    let after = start_after.iter().enumerate().filter_map(|(index, after)| {
        unknown_name(&format!("{path}.startAfter[{index}]"), after.as_str(), "slice in this entry", &known.slices)
    });
    faults.extend(after);
    if cpus.is_empty() {
        faults.push(empty_set(&format!("{path}.cpus"), "CPU"));
    }
    if memory_nodes.as_ref().is_some_and(|nodes| nodes.is_empty()) {
        faults.push(empty_set(&format!("{path}.memoryNodes"), "memory node"));
    }
    let policy = memory_policy.as_ref();
    faults
        .extend(policy.and_then(|policy| policy_fault(&format!("{path}.memoryPolicy"), policy, memory_nodes.as_ref())));
    faults.extend(memory_faults(&format!("{path}.memory"), memory.as_ref()));
    faults.extend(io_faults(&format!("{path}.io"), io.as_ref()));
    faults.extend(task_faults(&format!("{path}.tasks"), tasks.as_ref()));
    faults
}

/// A service whose policy names a node outside its slice's does not start (systemd: 242/NUMA_POLICY).
fn policy_fault(path: &str, policy: &ResolvedMemoryPolicy, slice: Option<&NodeSet>) -> Option<Fault> {
    let ResolvedMemoryPolicy { policy, nodes } = policy;
    let path = format!("{path}.nodes");
    let value = nodes.as_ref().map_or("-".to_owned(), ToString::to_string);
    let count = nodes.as_ref().map_or(0, NodeSet::len);
    let rule = match policy {
        MemoryPolicy::Default | MemoryPolicy::Local if count > 0 => format!("{policy:?} takes no nodes"),
        MemoryPolicy::Preferred if count != 1 => "Preferred takes one node".to_owned(),
        MemoryPolicy::Bind | MemoryPolicy::Interleave if count == 0 => format!("{policy:?} needs nodes"),
        MemoryPolicy::Default
        | MemoryPolicy::Local
        | MemoryPolicy::Preferred
        | MemoryPolicy::Bind
        | MemoryPolicy::Interleave => {
            let outside = nodes.as_ref().zip(slice).map(|(nodes, slice)| nodes.difference(slice));
            format!("nodes {} are outside memoryNodes", outside.filter(|outside| !outside.is_empty())?)
        }
    };
    Some(Fault::new(&path, &value, &rule, "let the operator write this entry again"))
}

fn empty_set(path: &str, what: &str) -> Fault {
    Fault::new(path, "\"\"", "an empty list would leave the slice unpinned", &format!("list at least one {what}"))
}

fn service_faults(path: &str, topology: &TopologyName, service: &ServiceEntry, known: &Known<'_>) -> Vec<Fault> {
    let ServiceEntry {
        unit,
        slice,
        command,
        user: _,
        working_directory: _,
        env_files,
        env,
        restart: ResolvedRestart { policy, delay },
        memory,
        tasks,
        rlimits,
        on_change: _,
    } = service;
    let mut faults: Vec<Fault> = unit_fault(path, topology, unit, UnitKind::Service).into_iter().collect();
    faults.extend(unknown_name(&format!("{path}.slice"), slice.as_str(), "slice in this entry", &known.slices));
    faults.extend(command_faults(&format!("{path}.command"), command));
    faults.extend(env_file_faults(path, env_files, known));
    faults.extend(env_faults(path, env));
    faults.extend(restart_fault(&format!("{path}.restart"), *policy, delay.get()));
    faults.extend(memory_faults(&format!("{path}.memory"), memory.as_ref()));
    faults.extend(task_faults(&format!("{path}.tasks"), tasks.as_ref()));
    faults.extend(rlimit_faults(&format!("{path}.rlimits"), rlimits.as_ref()));
    faults
}

fn env_file_faults(path: &str, files: &[ResolvedEnvFile], known: &Known<'_>) -> Vec<Fault> {
    let one = |(index, ResolvedEnvFile { file, path: host_path }): (usize, &ResolvedEnvFile)| {
        let path = format!("{path}.envFiles[{index}]");
        exactly_one(&path, &[("file", file.is_some()), ("path", host_path.is_some())]).or_else(|| {
            unknown_name(&format!("{path}.file"), file.as_ref()?.as_str(), "file in this entry", &known.files)
        })
    };
    let many = at_most(&format!("{path}.envFiles"), files.len(), 16, "environment files");
    files.iter().enumerate().filter_map(one).chain(many).collect()
}

fn env_faults(path: &str, env: &[ResolvedEnv]) -> Vec<Fault> {
    let name = |(index, ResolvedEnv { name, value: _, derived: _ }): (usize, &'_ ResolvedEnv)| {
        (format!("{path}.env[{index}]"), name.as_str().to_owned())
    };
    let names: Vec<(String, String)> = env.iter().enumerate().map(name).collect();
    let many = at_most(&format!("{path}.env"), env.len(), 128, "environment variables");
    let names = names.iter().map(|(path, name)| (path.clone(), name.as_str()));
    duplicates(names).into_iter().chain(many).collect()
}

fn order_faults(slices: &[SliceEntry]) -> Vec<Fault> {
    let order: Order<'_> = slices
        .iter()
        .enumerate()
        .map(|(index, slice)| {
            let after = slice.start_after.iter().map(|unit| unit.as_str()).collect();
            (slice.unit.as_str(), (format!("slices[{index}].startAfter"), after))
        })
        .collect();
    cycles(&order, "the order runs in a circle")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(slices: &str, services: &str) -> Vec<String> {
        let text = format!(
            "{{ name: web-shop, state: Present, revision: 0123456789ab, generation: 1, slices: [{slices}], services: [{services}] }}"
        );
        let entry: TopologyEntry = serde_yaml::from_str(&text).expect("decodes");
        entry_faults(&entry).iter().map(Fault::to_string).collect()
    }

    const SLICE: &str = "{ unit: web_shop-front.slice, cpus: 0-3 }";

    fn service(unit: &str, rest: &str) -> String {
        format!(
            "{{ unit: {unit}, slice: web_shop-front.slice, command: [/srv/x], user: app, restart: {{ policy: OnFailure, delay: 5s }}, onChange: Restart{rest} }}"
        )
    }

    #[test]
    fn a_sound_entry_is_without_fault() {
        assert_eq!(told(SLICE, &service("web_shop-http-api.service", "")), [""; 0]);
    }

    #[test]
    fn a_unit_of_somebody_else_is_refused() {
        let foreign = told(SLICE, &service("nginx.service", ""));
        assert_eq!(
            foreign,
            [
                "spec.topologies[web-shop].services[0].unit is `nginx.service`: it is not a unit of topology web-shop: only web_shop-NAME.service is managed here; let the operator write this entry again"
            ]
        );
        for slice in ["web_shop.slice", "web_shop-a-b.slice", "other-a.slice"] {
            let told = told(&format!("{{ unit: {slice}, cpus: '0' }}"), "");
            assert!(told[0].contains("it is not a unit of topology web-shop"), "{told:?}");
        }
    }

    #[test]
    fn nothing_starts_unpinned() {
        let told = told("{ unit: web_shop-front.slice, cpus: '', memoryNodes: '' }", "");
        assert!(told[0].starts_with("spec.topologies[web-shop].slices[0].cpus is `\"\"`: an empty list"), "{told:?}");
        assert!(told[1].starts_with("spec.topologies[web-shop].slices[0].memoryNodes"), "{told:?}");
    }

    #[test]
    fn a_memory_policy_never_names_a_node_outside_the_slices() {
        let policy = |policy: &str| {
            let slice =
                format!("{{ unit: web_shop-front.slice, cpus: 0-3, memoryNodes: 0-1, memoryPolicy: {policy} }}");
            told(&slice, "")
        };
        assert_eq!(policy("{ policy: Bind, nodes: 0-1 }"), [""; 0]);
        assert_eq!(policy("{ policy: Local }"), [""; 0]);
        for (wrong, rule) in [
            ("{ policy: Bind, nodes: 1-2 }", "nodes is `1-2`: nodes 2 are outside memoryNodes"),
            ("{ policy: Preferred, nodes: 0-1 }", "nodes is `0-1`: Preferred takes one node"),
            ("{ policy: Interleave }", "nodes is `-`: Interleave needs nodes"),
            ("{ policy: Default, nodes: '0' }", "nodes is `0`: Default takes no nodes"),
        ] {
            assert!(policy(wrong)[0].contains(&format!("slices[0].memoryPolicy.{rule}")), "{:?}", policy(wrong));
        }
    }

    #[test]
    fn references_stay_inside_the_entry() {
        let other = service("web_shop-api.service", "").replace("front", "back");
        assert!(told(SLICE, &other)[0].contains("services[0].slice is `web_shop-back.slice`: there is no such slice"));
        let files = service("web_shop-api.service", ", envFiles: [{ file: x.env }]");
        assert!(told(SLICE, &files)[0].contains("envFiles[0].file is `x.env`: there is no such file in this entry"));
    }

    #[test]
    fn what_schema_rules_would_refuse_is_refused_here_too() {
        let api = |rest: &str| service("web_shop-api.service", rest);
        let twice = format!("{}, {}", api(""), api(""));
        assert!(told(SLICE, &twice)[0].contains("the name is taken"));
        let env = api(", env: [{ name: A, value: x }, { name: A, value: y }]");
        assert!(told(SLICE, &env)[0].contains("services[0].env[1] is `A`: the name is taken"));
        let program = api("").replace("/srv/x", "'!/srv/x'");
        assert!(told(SLICE, &program)[0].contains("command[0] is `!/srv/x`"));
        let memory = api(", memory: { min: 2Gi, max: 1Gi }");
        assert!(told(SLICE, &memory)[0].contains("need min <= low <= high <= max"));
        let tasks = api(", tasks: { max: 0 }");
        assert!(told(SLICE, &tasks)[0].contains("a whole number from 16 to 4194304"));
    }
}
