//! Reads what a machine is from a tree like `/sys`, `/proc` and `/etc` below a given root. Touches nothing but files.
//!
//! Whatever is missing is left out: a machine that tells less than others is described with less, never wrongly.

mod caches;
mod nodes;
mod sysfs;

use std::collections::BTreeMap;
use std::path::Path;

use lamina_crds::CpuSet;
use lamina_crds::hardware::{CpuInventory, Hardware, Package};

use sysfs::Tree;

/// The inventory of the machine whose file system starts at `root`. `systemd` is the running systemd's version.
///
/// # Errors
/// Fails when the list of online CPUs cannot be read: without it there is nothing true to say.
pub fn read(root: &Path, systemd: &str) -> std::io::Result<Hardware> {
    let tree = Tree::new(root);
    let online: CpuSet = tree.required("sys/devices/system/cpu/online")?;
    Ok(Hardware {
        machine_id: tree.text("etc/machine-id").unwrap_or_default(),
        cpus: inventory(&tree, &online),
        packages: packages(&tree, &online),
        numa_nodes: nodes::read(&tree, &online),
        l3: caches::read(&tree, &online),
        cores: cores(&tree, &online),
        core_types: Vec::new(),
        devices: Vec::new(),
        kubelet: None,
        kernel: tree.text("proc/sys/kernel/osrelease").unwrap_or_default(),
        systemd: systemd.to_owned(),
    })
}

fn inventory(tree: &Tree, online: &CpuSet) -> CpuInventory {
    let present: CpuSet = tree.list("sys/devices/system/cpu/present").unwrap_or_else(|| online.clone());
    CpuInventory {
        online: online.clone(),
        offline: present.difference(online),
        isolated: tree.list("sys/devices/system/cpu/isolated").unwrap_or_default(),
    }
}

/// Sockets by the kernel's number. A machine without sockets (the number is -1 or absent) has none to report.
fn packages(tree: &Tree, online: &CpuSet) -> Vec<Package> {
    let mut packages: BTreeMap<u32, CpuSet> = BTreeMap::new();
    for cpu in online.iter() {
        let id = tree.text(&format!("sys/devices/system/cpu/cpu{cpu}/topology/physical_package_id"));
        if let Some(id) = id.and_then(|id| id.parse().ok()) {
            packages.entry(id).or_default().insert(cpu);
        }
    }
    packages.into_iter().map(|(id, cpus)| Package { id, cpus }).collect()
}

/// Cores of several online threads, in order of their first CPU.
fn cores(tree: &Tree, online: &CpuSet) -> Vec<CpuSet> {
    groups(online, |cpu| {
        let directory = format!("sys/devices/system/cpu/cpu{cpu}/topology");
        // Kernels before 5.3 know only the second name.
        let siblings = tree.list(&format!("{directory}/core_cpus_list"));
        siblings.or_else(|| tree.list(&format!("{directory}/thread_siblings_list")))
    })
    .into_iter()
    .filter(|core| core.len() > 1)
    .collect()
}

/// The distinct groups that online CPUs say they belong to, in order of their first online CPU.
fn groups(online: &CpuSet, group_of: impl Fn(u32) -> Option<CpuSet>) -> Vec<CpuSet> {
    let mut grouped = CpuSet::new();
    let mut groups = Vec::new();
    for cpu in online.iter() {
        if grouped.contains(cpu) {
            continue;
        }
        if let Some(group) = group_of(cpu) {
            let group = group.intersection(online).difference(&grouped);
            grouped = grouped.union(&group);
            groups.push(group);
        }
    }
    groups.retain(|group| !group.is_empty());
    groups
}

#[cfg(test)]
mod tests;
