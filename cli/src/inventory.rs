//! Decides how a machine is told to people, in tables. Scripts get the inventory itself.

use lamina_crds::hardware::{CoreGroup, CoreKind, CpuInventory, Device, Kubelet, NumaNode, Package};
use lamina_crds::{CpuSet, Hardware, NodeSet};

use crate::drawing::{amount, counted, summary};
use crate::table::{row, table};

/// What a machine is.
pub fn told(name: &str, hardware: &Hardware) -> String {
    let Hardware {
        machine_id,
        cpus,
        packages,
        numa_nodes,
        l3,
        cores: _,
        core_types,
        devices,
        kubelet,
        kernel,
        systemd,
    } = hardware;
    let parts = [("machine", machine_id), ("kernel", kernel), ("systemd", systemd)];
    let parts: Vec<String> = parts
        .iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(word, value)| format!("{word} {}", value.escape_debug()))
        .collect();
    let head =
        format!("{name}\n{}\n{}", summary(hardware), parts.iter().map(|part| format!("{part}\n")).collect::<String>());
    let sections = [
        head,
        told_cpus(hardware, cpus),
        told_packages(hardware, packages),
        told_nodes(hardware, numa_nodes),
        told_caches(hardware, l3),
        told_kinds(hardware, core_types),
        told_devices(devices),
        kubelet.as_ref().map(told_kubelet).unwrap_or_default(),
    ];
    let sections: Vec<String> = sections.into_iter().filter(|section| !section.is_empty()).collect();
    sections.join("\n")
}

fn told_cpus(hardware: &Hardware, cpus: &CpuInventory) -> String {
    let CpuInventory { online, offline, isolated } = cpus;
    let mut rows = vec![row(["CPUS", "COUNT", "LIST"])];
    for (word, set) in [("online", online), ("offline", offline), ("isolated", isolated)] {
        let list = if set.is_empty() { "-".to_owned() } else { set.to_string() };
        rows.push(vec![word.to_owned(), set.len().to_string(), list]);
    }
    let cores = hardware.online_cores();
    let most = cores.iter().map(CpuSet::len).max().unwrap_or_default();
    for threads in 1..=most {
        let such: Vec<&CpuSet> = cores.iter().filter(|core| core.len() == threads).collect();
        let all = such.iter().fold(CpuSet::new(), |all, core| all.union(core));
        if !such.is_empty() {
            let word = format!("cores of {}", counted(threads, "thread", "threads"));
            rows.push(vec![word, such.len().to_string(), all.to_string()]);
        }
    }
    table(&rows)
}

fn told_packages(hardware: &Hardware, packages: &[Package]) -> String {
    if packages.is_empty() {
        return String::new();
    }
    let mut rows = vec![row(["PACKAGE", "CORES", "NODES", "CPUS"])];
    for Package { id, cpus } in packages {
        let cores = cores_in(hardware, cpus);
        rows.push(vec![id.to_string(), cores, nodes_in(&hardware.nodes_of(cpus)), cpus.to_string()]);
    }
    table(&rows)
}

fn told_nodes(hardware: &Hardware, nodes: &[NumaNode]) -> String {
    if nodes.is_empty() {
        return String::new();
    }
    let mut rows = vec![row(["NODE", "MEMORY", "CORES", "L3", "DISTANCES", "CPUS"])];
    for NumaNode { id, cpus, memory, distances } in nodes {
        let distances: Vec<String> = distances.iter().map(u32::to_string).collect();
        let caches = hardware.l3.iter().filter(|cache| !cache.is_disjoint(cpus)).count();
        let memory = if memory.get() == 0 { "none".to_owned() } else { amount(memory.get()) };
        let list = if cpus.is_empty() { "-".to_owned() } else { cpus.to_string() };
        let caches = caches.to_string();
        rows.push(vec![id.to_string(), memory, cores_in(hardware, cpus), caches, distances.join(" "), list]);
    }
    let known = nodes.iter().fold(CpuSet::new(), |all, node| all.union(&node.cpus));
    let bare = hardware.cpus.online.difference(&known);
    if !bare.is_empty() {
        let cores = cores_in(hardware, &bare);
        rows.push(vec!["none".into(), "-".into(), cores, "-".into(), "-".into(), bare.to_string()]);
    }
    table(&rows)
}

fn told_caches(hardware: &Hardware, caches: &[CpuSet]) -> String {
    if caches.is_empty() {
        return String::new();
    }
    let mut rows = vec![row(["L3", "CORES", "NODES", "CPUS"])];
    for (index, cpus) in caches.iter().enumerate() {
        let cores = cores_in(hardware, cpus);
        rows.push(vec![index.to_string(), cores, nodes_in(&hardware.nodes_of(cpus)), cpus.to_string()]);
    }
    table(&rows)
}

fn told_kinds(hardware: &Hardware, kinds: &[CoreGroup]) -> String {
    if kinds.is_empty() {
        return String::new();
    }
    let mut rows = vec![row(["KIND", "CORES", "CPUS"])];
    for CoreGroup { core_type, cpus } in kinds {
        let word = match core_type {
            CoreKind::Performance => "performance",
            CoreKind::Efficiency => "efficiency",
        };
        rows.push(vec![word.to_owned(), cores_in(hardware, cpus), cpus.to_string()]);
    }
    table(&rows)
}

fn told_devices(devices: &[Device]) -> String {
    if devices.is_empty() {
        return String::new();
    }
    let mut rows = vec![row(["DEVICE", "NODE", "PCI"])];
    for Device { name, pci, node } in devices {
        let node = node.map_or_else(|| "unknown".to_owned(), |node| node.to_string());
        rows.push(vec![name.escape_debug().to_string(), node, pci.clone().unwrap_or_else(|| "-".to_owned())]);
    }
    table(&rows)
}

fn told_kubelet(kubelet: &Kubelet) -> String {
    let Kubelet { cpu_manager_policy, reserved_cpus, cgroup_driver } = kubelet;
    let mut rows =
        vec![row(["KUBELET", ""]), vec!["CPU manager".into(), cpu_manager_policy.escape_debug().to_string()]];
    if !reserved_cpus.is_empty() {
        rows.push(vec!["reserved CPUs".into(), reserved_cpus.to_string()]);
    }
    if !cgroup_driver.is_empty() {
        rows.push(vec!["cgroup driver".into(), cgroup_driver.escape_debug().to_string()]);
    }
    table(&rows)
}

fn cores_in(hardware: &Hardware, cpus: &CpuSet) -> String {
    hardware.online_cores().iter().filter(|core| !core.is_disjoint(cpus)).count().to_string()
}

fn nodes_in(nodes: &NodeSet) -> String {
    if nodes.is_empty() { "none".to_owned() } else { nodes.to_string() }
}
