//! Decides whether an inventory can be that of a machine: domains of one kind do not overlap and hold only CPUs that run.
//! An agent's inventory always can; one that somebody wrote or edited need not.

use std::collections::BTreeMap;

use super::Fault;
use crate::hardware::{CoreGroup, CpuInventory, Hardware, NumaNode, Package};
use crate::id_set::CpuSet;

/// The largest distance between two nodes; ACPI's table ends at 255, device trees name larger ones.
const LARGEST_DISTANCE: u32 = 65_535;

/// Every rule that the inventory breaks.
pub fn hardware_faults(hardware: &Hardware) -> Vec<Fault> {
    let Hardware {
        machine_id: _,
        cpus: CpuInventory { online, offline, isolated: _ },
        packages,
        numa_nodes,
        l3,
        cores,
        core_types,
        devices: _,
        kubelet: _,
        kernel: _,
        systemd: _,
    } = hardware;
    let mut faults = Vec::new();
    let both = online.intersection(offline);
    if online.is_empty() {
        faults.push(Fault::new("cpus.online", "", "a machine has a CPU that runs", "list the CPUs that are online"));
    }
    if !both.is_empty() {
        let rule = "no CPU is online and offline";
        faults.push(Fault::new("cpus.offline", &both.to_string(), rule, "remove it from one of the lists"));
    }
    let of_packages = packages.iter().map(|Package { id: _, cpus }| cpus);
    faults.extend(domain_faults("packages", ".cpus", of_packages, online));
    faults.extend(domain_faults("numaNodes", ".cpus", numa_nodes.iter().map(|node| &node.cpus), online));
    faults.extend(domain_faults("l3", "", l3.iter(), online));
    faults.extend(domain_faults("cores", "", cores.iter(), online));
    let of_kinds = core_types.iter().map(|CoreGroup { core_type: _, cpus }| cpus);
    faults.extend(domain_faults("coreTypes", ".cpus", of_kinds, online));
    faults.extend(id_faults("packages", packages.iter().map(|package| package.id)));
    faults.extend(id_faults("numaNodes", numa_nodes.iter().map(|node| node.id)));
    faults.extend(distance_faults(numa_nodes));
    faults
}

/// Domains of one kind are parts of what runs, and no CPU is in two of them.
fn domain_faults<'a>(
    path: &str,
    field: &str,
    domains: impl Iterator<Item = &'a CpuSet>,
    online: &CpuSet,
) -> Vec<Fault> {
    let mut taken = CpuSet::new();
    let mut faults = Vec::new();
    for (index, cpus) in domains.enumerate() {
        let path = format!("{path}[{index}]{field}");
        let strange = cpus.difference(online);
        let twice = cpus.intersection(&taken);
        if !strange.is_empty() {
            let rule = format!("only CPUs that are online belong to a domain, and {strange} are not");
            faults.push(Fault::new(&path, &cpus.to_string(), &rule, "remove them, or add them to cpus.online"));
        }
        if !twice.is_empty() {
            let rule = format!("no CPU is in two domains of a kind, and {twice} stand further up as well");
            faults.push(Fault::new(&path, &cpus.to_string(), &rule, "remove them here or there"));
        }
        taken = taken.union(cpus);
    }
    faults
}

fn id_faults(path: &str, ids: impl Iterator<Item = u32>) -> Vec<Fault> {
    let mut first: BTreeMap<u32, usize> = BTreeMap::new();
    let mut faults = Vec::new();
    for (index, id) in ids.enumerate() {
        if let Some(other) = first.get(&id) {
            let rule = format!("the number is taken: {path}[{other}] bears it");
            faults.push(Fault::new(&format!("{path}[{index}].id"), &id.to_string(), &rule, "number them apart"));
        }
        first.entry(id).or_insert(index);
    }
    faults
}

fn distance_faults(nodes: &[NumaNode]) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (index, NumaNode { id: _, cpus: _, memory: _, distances }) in nodes.iter().enumerate() {
        let path = format!("numaNodes[{index}].distances");
        if !distances.is_empty() && distances.len() != nodes.len() {
            let rule = format!("a node has a distance to each of the {} nodes", nodes.len());
            faults.push(Fault::new(&path, &format!("{} numbers", distances.len()), &rule, "list all, or none"));
        }
        if let Some(large) = distances.iter().find(|distance| **distance > LARGEST_DISTANCE) {
            let rule = format!("a distance is at most {LARGEST_DISTANCE}");
            faults.push(Fault::new(&path, &large.to_string(), &rule, "write what the kernel says; 10 is local"));
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(edit: impl Fn(&mut serde_json::Value)) -> Vec<String> {
        let mut hardware = serde_json::json!({
            "machineID": "", "cpus": { "online": "0-3", "offline": "4", "isolated": "" },
            "packages": [{ "id": 0, "cpus": "0-3" }],
            "numaNodes": [{ "id": 0, "cpus": "0-1", "memory": "1Gi", "distances": [10, 20] },
                { "id": 1, "cpus": "2-3", "memory": "1Gi", "distances": [20, 10] }],
            "l3": ["0-3"], "cores": ["0-1"], "kernel": "", "systemd": "",
        });
        edit(&mut hardware);
        let hardware: Hardware = serde_json::from_value(hardware).expect("an inventory");
        hardware_faults(&hardware).iter().map(Fault::to_string).collect()
    }

    #[test]
    fn a_machine_is_fine() {
        assert_eq!(told(|_| {}), [""; 0]);
    }

    #[test]
    fn what_cannot_be_is_named() {
        let overlap = told(|hardware| hardware["numaNodes"][1]["cpus"] = "1-3".into());
        assert_eq!(
            overlap,
            ["numaNodes[1].cpus is `1-3`: no CPU is in two domains of a kind, and 1 stand further up as well; \
              remove them here or there"]
        );
        assert!(told(|hardware| hardware["l3"][0] = "0-4".into())[0].contains("4 are not"));
        assert!(told(|hardware| hardware["cpus"]["offline"] = "3".into())[0].starts_with("cpus.offline is `3`"));
        assert!(told(|hardware| hardware["numaNodes"][1]["id"] = 0.into())[0].contains("the number is taken"));
        assert_eq!(told(|hardware| hardware["numaNodes"][1]["distances"] = vec![70_000].into()).len(), 2);
    }
}
