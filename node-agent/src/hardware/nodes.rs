//! Reads NUMA nodes: their CPUs, their memory and how far they are from each other.

use std::collections::BTreeMap;

use lamina_crds::hardware::NumaNode;
use lamina_crds::{Bytes, CpuSet, NodeSet};

use super::sysfs::Tree;

const NODES: &str = "sys/devices/system/node";

/// The online nodes in order of number. Memory counts only where it may be used; a node without CPUs and without memory
/// is none. A kernel that knows no nodes has one, with all of the machine.
pub fn read(tree: &Tree, usable: &CpuSet, allowed: Option<&NodeSet>) -> Vec<NumaNode> {
    let there: NodeSet = tree.numbered(NODES, "node");
    if there.is_empty() {
        return whole_machine(tree, usable).into_iter().collect();
    }
    let online = tree.list(&format!("{NODES}/online")).unwrap_or_else(|| there.clone());
    let mut nodes: Vec<NumaNode> = there.intersection(&online).iter().map(|id| node(tree, id)).collect();
    decide_overlaps(tree, &mut nodes);
    let ids: Vec<u32> = nodes.iter().map(|node| node.id).collect();
    let is_forbidden = |node: &NumaNode| allowed.is_some_and(|allowed| !allowed.contains(node.id));
    for node in nodes.iter_mut().filter(|node| is_forbidden(node)) {
        node.memory = Bytes::new(0);
    }
    let is_something = |node: &NumaNode| !node.cpus.is_disjoint(usable) || node.memory > Bytes::new(0);
    let kept: Vec<bool> = nodes.iter().map(is_something).collect();
    nodes.retain(is_something);
    for node in &mut nodes {
        // A row of another length says nothing; it stays as it is, to be found out.
        if node.distances.len() == ids.len() {
            let mut keep = kept.iter();
            node.distances.retain(|_| keep.next().is_some_and(|keep| *keep));
        }
    }
    nodes
}

fn node(tree: &Tree, id: u32) -> NumaNode {
    let directory = format!("{NODES}/node{id}");
    let cpus = || tree.list(&format!("{directory}/cpulist"));
    let distances = tree.text(&format!("{directory}/distance")).unwrap_or_default();
    NumaNode {
        id,
        cpus: cpus().or_else(|| tree.mask(&format!("{directory}/cpumap"))).unwrap_or_default(),
        memory: total(tree, &format!("{directory}/meminfo")),
        distances: distances.split_whitespace().filter_map(|word| word.parse().ok()).collect(),
    }
}

fn whole_machine(tree: &Tree, usable: &CpuSet) -> Option<NumaNode> {
    let memory = total(tree, "proc/meminfo");
    let is_known = memory > Bytes::new(0);
    is_known.then(|| NumaNode { id: 0, cpus: usable.clone(), memory, distances: vec![10] })
}

/// The line `Node 0 MemTotal: 16332092 kB`; the kernel's kB are 1024 bytes.
fn total(tree: &Tree, path: &str) -> Bytes {
    let text = tree.text(path).unwrap_or_default();
    let line = text.lines().find_map(|line| line.split_once("MemTotal:"));
    let kibibytes = line.and_then(|(_, rest)| rest.split_whitespace().next()?.parse::<u64>().ok());
    Bytes::new(kibibytes.and_then(|kibibytes| kibibytes.checked_mul(1024)).unwrap_or_default())
}

/// Where several nodes list a CPU, as emulated ones do (`numa=fake`), the CPU's own directory tells where it is.
fn decide_overlaps(tree: &Tree, nodes: &mut [NumaNode]) {
    let mut claims: BTreeMap<u32, NodeSet> = BTreeMap::new();
    for node in nodes.iter() {
        node.cpus.iter().for_each(|cpu| claims.entry(cpu).or_default().insert(node.id));
    }
    for (cpu, claiming) in claims.into_iter().filter(|(_, claiming)| claiming.len() > 1) {
        let own: NodeSet = tree.numbered(&format!("sys/devices/system/cpu/cpu{cpu}"), "node");
        let Some(decided) = own.intersection(&claiming).first() else { continue };
        nodes.iter_mut().filter(|node| node.id != decided).for_each(|node| node.cpus.remove(cpu));
    }
}
