//! Reads what a machine is: from a tree like `/sys`, `/proc` and `/etc` below a given root, or from hwloc's XML.
//!
//! What is missing is left out, and what contradicts itself is settled: a machine that tells less than others, or
//! nonsense, is described with less, never wrongly. What the readers bring, `settle.rs` makes consistent.

mod caches;
mod devices;
mod kinds;
mod kubelet;
mod lstopo;
mod nodes;
mod settle;
mod sysfs;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use lamina_crds::id_set::ListError;
use lamina_crds::{CpuSet, Hardware, NodeSet};

pub use lstopo::{LstopoError, from_lstopo};

use settle::{Claims, settle};
use sysfs::Tree;

/// No export of a real machine comes near this size.
const LARGEST_EXPORT: u64 = 256 << 20;

/// Why a machine could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// A file that nothing can be said without cannot be read.
    #[error("read {}: {source}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What the kernel says.
        source: io::Error,
    },
    /// The list of online CPUs is none.
    #[error("read {}: {source}", path.display())]
    List {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        source: ListError,
    },
    /// No CPU is left.
    #[error(
        "{}: no CPU is online, present and allowed at once; give the directory that holds sys/devices/system/cpu of \
         one machine", path.display()
    )]
    NoCpu {
        /// Where the machine's files are.
        path: PathBuf,
    },
    /// The export cannot be used.
    #[error("read {}: {source}", path.display())]
    Export {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        source: LstopoError,
    },
}

/// The inventory of whatever a path leads to: the root of a tree, or a file of `lstopo --of xml`. `systemd` is the
/// version of systemd, if it is known.
///
/// # Errors
/// As [`read`] and [`from_lstopo`].
pub fn read_path(path: &Path, systemd: &str) -> Result<Hardware, ReadError> {
    if path.is_dir() {
        return read(path, systemd);
    }
    let text = sysfs::text_of_at_most(path, LARGEST_EXPORT);
    let text = text.map_err(|source| ReadError::File { path: path.to_owned(), source })?;
    let hardware = from_lstopo(&text).map_err(|source| ReadError::Export { path: path.to_owned(), source })?;
    Ok(Hardware { systemd: systemd.to_owned(), ..hardware })
}

/// The inventory of the machine whose file system starts at `root`. `systemd` is the running systemd's version.
///
/// # Errors
/// Fails when the list of online CPUs cannot be read, or no CPU can be used: there is nothing true to say then.
pub fn read(root: &Path, systemd: &str) -> Result<Hardware, ReadError> {
    read_apart(root, root, systemd)
}

/// As [`read`], where the machine's own files (`sys/devices`, `sys/class`, `proc`) lie below `machine` and those of the
/// operating system on it (`etc`, `var`, `sys/fs/cgroup`) below `host`, as a pod sees them.
///
/// # Errors
/// As [`read`].
pub fn read_apart(machine: &Path, host: &Path, systemd: &str) -> Result<Hardware, ReadError> {
    let [tree, host] = [machine, host].map(Tree::new);
    let online: CpuSet = tree.required("sys/devices/system/cpu/online")?;
    let present = there(&tree, &online);
    let allowed = allowed_cpus(&host).unwrap_or_else(|| present.clone());
    let mut usable = online.intersection(&present).intersection(&allowed);
    switched_off(&tree, &usable).iter().for_each(|cpu| usable.remove(cpu));
    if usable.is_empty() {
        return Err(ReadError::NoCpu { path: machine.to_owned() });
    }
    let cores = cores(&tree, &usable);
    let level_3 = caches::read(&tree, &usable, "3");
    Ok(settle(Claims {
        machine_id: host.text("etc/machine-id").unwrap_or_default(),
        packages: packages(&tree, &usable, &cores),
        nodes: nodes::read(&tree, &usable, allowed_nodes(&host).as_ref()),
        level_2: if level_3.is_empty() { caches::read(&tree, &usable, "2") } else { Vec::new() },
        level_3,
        kinds: kinds::read(&tree, &usable),
        devices: devices::read(&tree),
        kubelet: kubelet::read(&host, &tree),
        isolated: tree.list("sys/devices/system/cpu/isolated").unwrap_or_default(),
        kernel: tree.text("proc/sys/kernel/osrelease").unwrap_or_default(),
        systemd: systemd.to_owned(),
        cores,
        usable,
        present,
    }))
}

/// The CPUs that are plugged in: those listed, as far as they have a directory. Where no CPU has one, the lists must do.
fn there(tree: &Tree, online: &CpuSet) -> CpuSet {
    let listed: CpuSet = tree.list("sys/devices/system/cpu/present").unwrap_or_else(|| online.clone());
    let directories: CpuSet = tree.numbered("sys/devices/system/cpu", "cpu");
    if directories.is_empty() { listed } else { listed.intersection(&directories) }
}

/// The CPUs whose own file says that they are off, whatever the list says.
fn switched_off(tree: &Tree, cpus: &CpuSet) -> CpuSet {
    let is_off = |cpu: &u32| tree.text(&format!("sys/devices/system/cpu/cpu{cpu}/online")).as_deref() == Some("0");
    cpus.iter().filter(is_off).collect()
}

/// The CPUs that the topmost cgroup leaves: all but on hosts that are part of another one, and where CPUs were given to a
/// partition of their own. Version 2 of cgroups first; see cpuset(7) and the kernel's `admin-guide/cgroup-v2.rst`.
fn allowed_cpus(host: &Tree) -> Option<CpuSet> {
    let files = ["cpuset.cpus.effective", "cpuset/cpuset.effective_cpus", "cpuset/cpuset.cpus"];
    files.iter().find_map(|file| host.list(&format!("sys/fs/cgroup/{file}"))).filter(|cpus| !cpus.is_empty())
}

fn allowed_nodes(host: &Tree) -> Option<NodeSet> {
    let files = ["cpuset.mems.effective", "cpuset/cpuset.effective_mems", "cpuset/cpuset.mems"];
    files.iter().find_map(|file| host.list(&format!("sys/fs/cgroup/{file}"))).filter(|nodes| !nodes.is_empty())
}

/// Sockets by the kernel's number, asked once per core. A CPU without a socket (the number is -1 or absent) is in none.
fn packages(tree: &Tree, usable: &CpuSet, cores: &[CpuSet]) -> Vec<(u32, CpuSet)> {
    let mut packages: BTreeMap<u32, CpuSet> = BTreeMap::new();
    let mut asked = CpuSet::new();
    for core in cores.iter().cloned().chain(usable.iter().map(|cpu| CpuSet::from_iter([cpu]))) {
        let Some(cpu) = core.difference(&asked).first() else { continue };
        asked = asked.union(&core);
        if let Some(id) = tree.value(&format!("sys/devices/system/cpu/cpu{cpu}/topology/physical_package_id")) {
            let package = packages.entry(id).or_default();
            *package = package.union(&core);
        }
    }
    packages.into_iter().collect()
}

/// The threads of each core.
fn cores(tree: &Tree, usable: &CpuSet) -> Vec<CpuSet> {
    groups(usable, |cpu| {
        let directory = format!("sys/devices/system/cpu/cpu{cpu}/topology");
        // Kernels before 5.3 know only the second name.
        tree.either(&directory, "core_cpus").or_else(|| tree.either(&directory, "thread_siblings"))
    })
}

/// The groups that usable CPUs say they belong to; who is named in one is not asked any more. A group that its own
/// witness is not in is nonsense.
fn groups(usable: &CpuSet, group_of: impl Fn(u32) -> Option<CpuSet>) -> Vec<CpuSet> {
    let mut left = usable.clone();
    let mut groups = Vec::new();
    while let Some(cpu) = left.first() {
        left.remove(cpu);
        if let Some(group) = group_of(cpu).filter(|group| group.contains(cpu)) {
            left = left.difference(&group);
            groups.push(group);
        }
    }
    groups
}

#[cfg(test)]
mod tests;
