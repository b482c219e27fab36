//! Reads which CPUs share a level-3 cache. A machine that reports none gets an empty list; placement then looks at nodes.

use lamina_crds::CpuSet;

use super::groups;
use super::sysfs::Tree;

/// Online CPUs of each level-3 cache, in order of their first CPU.
pub fn read(tree: &Tree, online: &CpuSet) -> Vec<CpuSet> {
    groups(online, |cpu| shared_by(tree, cpu))
}

fn shared_by(tree: &Tree, cpu: u32) -> Option<CpuSet> {
    let caches = format!("sys/devices/system/cpu/cpu{cpu}/cache");
    let level_3 = |index: &u32| {
        let cache = format!("{caches}/index{index}");
        let holds_data = tree.text(&format!("{cache}/type")).is_none_or(|kind| kind != "Instruction");
        holds_data && tree.text(&format!("{cache}/level")).as_deref() == Some("3")
    };
    let index = tree.numbered(&caches, "index").into_iter().find(level_3)?;
    tree.list(&format!("{caches}/index{index}/shared_cpu_list"))
}
