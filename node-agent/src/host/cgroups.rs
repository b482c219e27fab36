//! Reads cgroup v2 files: what the kernel was told, and what it gives. Never writes any: that is systemd's.

#![expect(clippy::disallowed_methods, reason = "reads the directories of cgroups")]

use std::collections::BTreeSet;
use std::io;

use lamina_crds::id_set::{IdSet, Kind};
use lamina_crds::{CpuSet, NodeSet};

use crate::host::root::Root;
use crate::property::{Properties, Property, Value};

const MOUNT: &str = "/sys/fs/cgroup";

/// What the kernel says about one cgroup.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CgroupState {
    /// Managed settings as the cgroup's files show them.
    pub kernel: Properties,
    /// `cpuset.cpus.effective` here or at the nearest ancestor that has it.
    pub cpus: Option<CpuSet>,
    /// `cpuset.mems.effective`, likewise.
    pub memory_nodes: Option<NodeSet>,
}

/// Where the cgroup v2 hierarchy is mounted on the host; `None` where there is none.
///
/// # Errors
/// Whatever reading the mount table says.
pub fn mount(root: &Root) -> io::Result<Option<String>> {
    if root.kernel(&format!("{MOUNT}/cgroup.controllers")).exists() {
        return Ok(Some(MOUNT.to_owned()));
    }
    // Hybrid hosts keep the second version beside the first one.
    let mounts = root.read_kernel("/proc/self/mounts")?.unwrap_or_default();
    let found = mounts.lines().find_map(|line| match line.split(' ').collect::<Vec<_>>()[..] {
        [_, directory, "cgroup2", ..] if root.kernel(directory).exists() => Some(directory.to_owned()),
        _ => None,
    });
    Ok(found)
}

/// Controllers that the root of the hierarchy has; empty where there is no hierarchy.
///
/// # Errors
/// Whatever reading says.
pub fn controllers(root: &Root, mount: Option<&str>) -> io::Result<BTreeSet<String>> {
    let Some(mount) = mount else { return Ok(BTreeSet::new()) };
    let text = root.read_kernel(&format!("{mount}/cgroup.controllers"))?.unwrap_or_default();
    Ok(text.split_whitespace().map(str::to_owned).collect())
}

/// What the kernel says about the cgroup `group` (a path as systemd's `ControlGroup` has it).
///
/// # Errors
/// Whatever reading says, but for a cgroup that is gone.
pub fn state(root: &Root, mount: &str, group: &str) -> io::Result<CgroupState> {
    let mut kernel = Properties::new();
    for property in Property::ALL {
        let text = root.read_kernel(&format!("{mount}{group}/{}", property.cgroup_file()))?;
        if let Some(value) = text.and_then(|text| parse(property, &text)) {
            kernel.insert(property, value);
        }
    }
    Ok(CgroupState {
        kernel,
        cpus: effective_cpus(root, mount, group)?,
        memory_nodes: effective(root, mount, group, "cpuset.mems.effective")?,
    })
}

/// `cpuset.cpus.effective` of a cgroup or of the nearest ancestor that has it.
///
/// # Errors
/// Whatever reading says, but for a cgroup that is gone.
pub fn effective_cpus(root: &Root, mount: &str, group: &str) -> io::Result<Option<CpuSet>> {
    effective(root, mount, group, "cpuset.cpus.effective")
}

fn effective<K: Kind>(root: &Root, mount: &str, group: &str, file: &str) -> io::Result<Option<IdSet<K>>> {
    let mut group = group;
    loop {
        if let Some(text) = root.read_kernel(&format!("{mount}{group}/{file}"))? {
            return Ok(text.parse().ok());
        }
        match group.rsplit_once('/') {
            Some((parent, _)) => group = parent,
            None => return Ok(None),
        }
    }
}

fn parse(property: Property, text: &str) -> Option<Value> {
    let text = text.trim();
    match property {
        Property::AllowedCpus => Some(Value::Cpus(text.parse().ok()?)),
        Property::AllowedMemoryNodes => Some(Value::Nodes(text.parse().ok()?)),
        // `default 100`, then one line per device.
        Property::IoWeight => {
            let weight = text.lines().find_map(|line| line.strip_prefix("default "))?;
            Some(Value::Number(weight.trim().parse().ok()?))
        }
        Property::MemoryMin
        | Property::MemoryLow
        | Property::MemoryHigh
        | Property::MemoryMax
        | Property::MemorySwapMax
        | Property::TasksMax => match text {
            "max" => Some(Value::Infinity),
            number => Some(Value::Number(number.parse().ok()?)),
        },
    }
}

/// Process ids in a cgroup and everything below it.
///
/// # Errors
/// Whatever reading says, but for a cgroup that is gone.
pub fn processes(root: &Root, mount: &str, group: &str) -> io::Result<Vec<u32>> {
    let text = root.read_kernel(&format!("{mount}{group}/cgroup.procs"))?.unwrap_or_default();
    let mut processes: Vec<u32> = text.lines().filter_map(|line| line.parse().ok()).collect();
    for child in children(root, mount, group)? {
        processes.extend(self::processes(root, mount, &format!("{group}/{child}"))?);
    }
    Ok(processes)
}

/// Names of the cgroups directly below one.
///
/// # Errors
/// Whatever reading says, but for a cgroup that is gone.
pub fn children(root: &Root, mount: &str, group: &str) -> io::Result<Vec<String>> {
    let entries = match std::fs::read_dir(root.kernel(&format!("{mount}{group}"))) {
        Ok(entries) => entries,
        Err(error) if super::root::is_gone(&error) => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let directories = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    Ok(directories.filter_map(|entry| entry.file_name().into_string().ok()).collect())
}

/// The cgroup of a process as the host names it; `None` if it is gone. A reader in a cgroup namespace of its own sees
/// the path with `/..` in front, once per level it sits below the root.
///
/// # Errors
/// Whatever reading says, but for a process that is gone.
pub fn group_of(root: &Root, process: u32) -> io::Result<Option<String>> {
    let text = root.read_kernel(&format!("/proc/{process}/cgroup"))?;
    let line = text.as_deref().and_then(|text| text.lines().find_map(|line| line.strip_prefix("0::")));
    Ok(line.map(|path| {
        let mut path = path;
        while let Some(rest) = path.strip_prefix("/..") {
            path = rest;
        }
        path.to_owned()
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_files_are_read_as_values() {
        let number = |property, text| parse(property, text);
        assert_eq!(number(Property::MemoryMax, "max\n"), Some(Value::Infinity));
        assert_eq!(number(Property::MemoryMax, "4096\n"), Some(Value::Number(4096)));
        assert_eq!(number(Property::IoWeight, "default 500\n8:0 100\n"), Some(Value::Number(500)));
        assert_eq!(number(Property::AllowedCpus, "0-7,16\n"), Some(Value::Cpus("0-7,16".parse().expect("list"))));
        assert_eq!(number(Property::AllowedMemoryNodes, "\n"), Some(Value::Nodes(NodeSet::new())));
        assert_eq!(number(Property::TasksMax, "many\n"), None);
    }

    #[test]
    fn effective_values_come_from_the_nearest_ancestor_that_has_them() {
        let machine = tempfile::tempdir().expect("a directory");
        let group = machine.path().join("sys/fs/cgroup/a.slice/b.service");
        std::fs::create_dir_all(&group).expect("directories");
        std::fs::create_dir_all(machine.path().join("sys/devices")).expect("directories");
        let slice = machine.path().join("sys/fs/cgroup/a.slice");
        std::fs::write(slice.join("cpuset.cpus.effective"), "8-15\n").expect("a file");
        std::fs::write(group.join("cgroup.procs"), "12\n13\n").expect("a file");
        let root = Root::new(machine.path());
        let state = state(&root, MOUNT, "/a.slice/b.service").expect("a state");
        assert_eq!(state.cpus.map(|cpus| cpus.to_string()).as_deref(), Some("8-15"));
        assert_eq!(state.memory_nodes, None);
        assert_eq!(processes(&root, MOUNT, "/a.slice").expect("processes"), [12, 13]);
    }

    #[test]
    fn a_namespace_of_cgroups_does_not_change_a_path() {
        let machine = tempfile::tempdir().expect("a directory");
        std::fs::create_dir_all(machine.path().join("proc/7")).expect("directories");
        std::fs::write(machine.path().join("proc/7/cgroup"), "0::/../../system.slice/x.service\n").expect("a file");
        let root = Root::new(machine.path());
        assert_eq!(group_of(&root, 7).expect("read").as_deref(), Some("/system.slice/x.service"));
    }
}
