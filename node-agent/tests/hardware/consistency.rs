//! What must hold of every inventory, whatever it was read from. Written apart from the code that sees to it.

use std::collections::BTreeSet;

use lamina_crds::{CpuSet, Hardware};

/// Everything that is wrong with an inventory of a machine that has these CPUs.
pub fn faults(hardware: &Hardware, present: &BTreeSet<u32>) -> Vec<String> {
    let mut faults = Vec::new();
    let online: BTreeSet<u32> = hardware.cpus.online.iter().collect();
    let offline: BTreeSet<u32> = hardware.cpus.offline.iter().collect();
    let mut must = |holds: bool, what: &str| {
        if !holds {
            faults.push(what.to_owned());
        }
    };
    must(!online.is_empty(), "no CPU");
    must(online.is_disjoint(&offline), "a CPU is online and offline");
    must(online.is_subset(present) && offline.is_subset(present), "a CPU that is not there");
    must(hardware.cpus.isolated.iter().all(|cpu| present.contains(&cpu)), "an isolated CPU that is not there");
    let packages: Vec<&CpuSet> = hardware.packages.iter().map(|package| &package.cpus).collect();
    let nodes: Vec<&CpuSet> = hardware.numa_nodes.iter().map(|node| &node.cpus).collect();
    let kinds: Vec<&CpuSet> = hardware.core_types.iter().map(|group| &group.cpus).collect();
    let caches: Vec<&CpuSet> = hardware.l3.iter().collect();
    let cores: Vec<&CpuSet> = hardware.cores.iter().collect();
    for (name, domains) in
        [("packages", &packages), ("nodes", &nodes), ("kinds", &kinds), ("L3s", &caches), ("cores", &cores)]
    {
        let members: Vec<u32> = domains.iter().flat_map(|domain| domain.iter()).collect();
        let distinct: BTreeSet<u32> = members.iter().copied().collect();
        must(members.len() == distinct.len(), &format!("{name} overlap"));
        must(distinct.is_subset(&online), &format!("{name} hold what is not online"));
    }
    let is_within_one = |domains: &[&CpuSet], set: &CpuSet| {
        let touching: Vec<_> = domains.iter().filter(|domain| !domain.is_disjoint(set)).collect();
        touching.is_empty() || (touching.len() == 1 && set.is_subset(touching[0]))
    };
    for (name, domains) in [("package", &packages), ("node", &nodes), ("L3", &caches), ("kind", &kinds)] {
        must(cores.iter().all(|core| is_within_one(domains, core)), &format!("a core leaves its {name}"));
    }
    must(caches.iter().all(|cache| is_within_one(&packages, cache)), "an L3 leaves its package");
    must(cores.iter().all(|core| core.len() > 1 && core.len() <= 8), "a core of strange size");
    must([&packages, &caches].iter().all(|sets| sets.iter().all(|set| !set.is_empty())), "an empty domain");
    must(kinds.is_empty() || kinds.iter().map(|kind| kind.len()).sum::<usize>() == online.len(), "a CPU of no kind");
    let ids: Vec<u32> = hardware.numa_nodes.iter().map(|node| node.id).collect();
    must(ids.windows(2).all(|pair| pair[0] < pair[1]), "nodes out of order");
    must(hardware.numa_nodes.iter().all(|node| node.distances.len() == ids.len()), "distances of the wrong length");
    for (index, node) in hardware.numa_nodes.iter().enumerate() {
        must(node.distances.iter().all(|other| node.distances[index] <= *other), "something is nearer than local");
    }
    let texts = [(&hardware.machine_id, 64), (&hardware.kernel, 128), (&hardware.systemd, 32)];
    must(texts.iter().all(|(text, most)| text.chars().count() <= *most), "a text that is too long");
    must(hardware.devices.len() <= 128, "too many devices");
    must(
        hardware.devices.iter().all(|device| device.node.is_none_or(|node| ids.contains(&node))),
        "a device on no node",
    );
    let shared: Vec<String> = lamina_crds::rules::hardware_faults(hardware).iter().map(ToString::to_string).collect();
    must(shared.is_empty(), &shared.join("; "));
    let text = serde_json::to_string(hardware).expect("JSON");
    must(serde_json::from_str::<Hardware>(&text).is_ok_and(|same| same == *hardware), "it does not survive JSON");
    faults
}
