//! Reads which CPUs share a cache of a level.

use lamina_crds::CpuSet;

use super::groups;
use super::sysfs::Tree;

/// CPUs of each cache of a level, in order of the first CPU that tells of it.
pub fn read(tree: &Tree, usable: &CpuSet, level: &str) -> Vec<CpuSet> {
    groups(usable, |cpu| shared_by(tree, cpu, level))
}

fn shared_by(tree: &Tree, cpu: u32, level: &str) -> Option<CpuSet> {
    let caches = format!("sys/devices/system/cpu/cpu{cpu}/cache");
    let is_wanted = |index: &u32| {
        let cache = format!("{caches}/index{index}");
        let is_of_level = tree.text(&format!("{cache}/level")).as_deref() == Some(level);
        is_of_level && tree.text(&format!("{cache}/type")).is_none_or(|kind| kind != "Instruction")
    };
    let indexes: CpuSet = tree.numbered(&caches, "index");
    // The higher levels come last.
    let index = indexes.iter().collect::<Vec<_>>().into_iter().rev().find(is_wanted)?;
    tree.either(&format!("{caches}/index{index}"), "shared_cpu")
}
