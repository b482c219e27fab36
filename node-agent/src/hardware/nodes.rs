//! Reads NUMA nodes: their online CPUs, their memory and how far they are from each other.

use lamina_crds::hardware::NumaNode;
use lamina_crds::{Bytes, CpuSet, NodeSet};

use super::sysfs::Tree;

const NODES: &str = "sys/devices/system/node";

/// The online nodes in order of number.
pub fn read(tree: &Tree, online_cpus: &CpuSet) -> Vec<NumaNode> {
    online(tree).iter().map(|id| node(tree, id, online_cpus)).collect()
}

/// Which nodes are online. Where the kernel keeps no list, the directories tell.
fn online(tree: &Tree) -> NodeSet {
    tree.list(&format!("{NODES}/online")).unwrap_or_else(|| tree.numbered(NODES, "node").into_iter().collect())
}

fn node(tree: &Tree, id: u32, online_cpus: &CpuSet) -> NumaNode {
    let directory = format!("{NODES}/node{id}");
    let cpus: CpuSet = tree.list(&format!("{directory}/cpulist")).unwrap_or_default();
    let distances = tree.text(&format!("{directory}/distance")).unwrap_or_default();
    NumaNode {
        id,
        cpus: cpus.intersection(online_cpus),
        memory: tree.text(&format!("{directory}/meminfo")).map(|text| total(&text)).unwrap_or_default(),
        distances: distances.split_whitespace().filter_map(|word| word.parse().ok()).collect(),
    }
}

/// The line `Node 0 MemTotal: 16332092 kB`; the kernel's kB are 1024 bytes.
fn total(meminfo: &str) -> Bytes {
    let line = meminfo.lines().find_map(|line| line.split_once("MemTotal:"));
    let kibibytes = line.and_then(|(_, rest)| rest.split_whitespace().next()?.parse::<u64>().ok());
    Bytes::new(kibibytes.unwrap_or_default().saturating_mul(1024))
}
