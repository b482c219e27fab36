//! Measures where the threads of a service may run and where their memory may come from.

#![expect(clippy::disallowed_methods, reason = "reads the directories of processes")]

use std::collections::BTreeMap;
use std::io;

use lamina_crds::{CpuSet, NodeSet};

use crate::host::cgroups;
use crate::host::root::{Root, is_gone};
use crate::observed::Threads;

/// The threads of every process in the cgroup `group`, and whether the main process (0: none) sits elsewhere.
/// What ends while being looked at counts for nothing.
///
/// # Errors
/// Whatever reading says, but for processes that are gone.
pub fn threads(root: &Root, mount: &str, group: &str, main_process: u32) -> io::Result<Threads> {
    let mut threads = Threads::default();
    threads.strayed = each_thread(root, mount, group, main_process, |_, cpus, nodes| {
        threads.count += 1;
        threads.cpus = threads.cpus.union(&cpus);
        threads.memory_nodes = threads.memory_nodes.union(&nodes);
    })?;
    Ok(threads)
}

/// The same threads by their ids, grouped by the CPUs and memory nodes that they may use.
///
/// # Errors
/// Whatever reading says, but for processes that are gone.
pub fn by_place(
    root: &Root,
    mount: &str,
    group: &str,
    main_process: u32,
) -> io::Result<BTreeMap<(CpuSet, NodeSet), Vec<u32>>> {
    let mut places: BTreeMap<_, Vec<u32>> = BTreeMap::new();
    each_thread(root, mount, group, main_process, |thread, cpus, nodes| {
        places.entry((cpus, nodes)).or_default().push(thread);
    })?;
    Ok(places)
}

/// Tells of each thread, and how many processes sit elsewhere.
fn each_thread(
    root: &Root,
    mount: &str,
    group: &str,
    main_process: u32,
    mut tell: impl FnMut(u32, CpuSet, NodeSet),
) -> io::Result<u32> {
    let mut processes = cgroups::processes(root, mount, group)?;
    let has_strayed = main_process != 0 && has_strayed(root, group, main_process)?;
    if has_strayed {
        processes.push(main_process);
    }
    for process in processes {
        for thread in threads_of(root, process)? {
            let status = root.read_kernel(&format!("/proc/{process}/task/{thread}/status"))?;
            if let Some((cpus, nodes)) = status.as_deref().and_then(place) {
                tell(thread, cpus, nodes);
            }
        }
    }
    Ok(u32::from(has_strayed))
}

fn has_strayed(root: &Root, group: &str, process: u32) -> io::Result<bool> {
    let found = cgroups::group_of(root, process)?;
    Ok(found.is_some_and(|found| found != group && !found.starts_with(&format!("{group}/"))))
}

fn threads_of(root: &Root, process: u32) -> io::Result<Vec<u32>> {
    match std::fs::read_dir(root.kernel(&format!("/proc/{process}/task"))) {
        Ok(entries) => Ok(entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()),
        Err(error) if is_gone(&error) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// Where a thread may run and take memory from, by its `status`; nothing for one that is dead.
fn place(status: &str) -> Option<(CpuSet, NodeSet)> {
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name));
    let is_dead = field("State:").is_some_and(|state| state.trim().starts_with(['Z', 'X']));
    let (cpus, nodes) = (field("Cpus_allowed_list:")?, field("Mems_allowed_list:")?);
    let read = (cpus.parse().unwrap_or_else(|_| CpuSet::new()), nodes.parse().unwrap_or_else(|_| NodeSet::new()));
    (!is_dead).then_some(read)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(files: &[(&str, &str)]) -> (tempfile::TempDir, Root) {
        let machine = tempfile::tempdir().expect("a directory");
        std::fs::create_dir_all(machine.path().join("sys/devices")).expect("directories");
        std::fs::create_dir_all(machine.path().join("proc/self")).expect("directories");
        for (path, text) in files {
            let path = machine.path().join(path);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("directories");
            std::fs::write(path, text).expect("a file");
        }
        let root = Root::new(machine.path());
        (machine, root)
    }

    fn status(cpus: &str, nodes: &str) -> String {
        format!("Name:\tx\nState:\tS (sleeping)\nCpus_allowed_list:\t{cpus}\nMems_allowed_list:\t{nodes}\n")
    }

    const GROUP: &str = "/a.slice/b.service";

    #[test]
    fn every_thread_counts_and_a_process_that_is_gone_does_not() {
        let (_machine, root) = machine(&[
            ("sys/fs/cgroup/a.slice/b.service/cgroup.procs", "5\n6\n"),
            ("proc/5/cgroup", "0::/a.slice/b.service\n"),
            ("proc/5/task/5/status", &status("0-3", "0")),
            ("proc/5/task/9/status", &status("0-7", "0-1")),
        ]);
        let threads = threads(&root, "/sys/fs/cgroup", GROUP, 5).expect("threads");
        assert_eq!((threads.count, threads.strayed), (2, 0));
        assert_eq!(threads.cpus.to_string(), "0-7");
        assert_eq!(threads.memory_nodes.to_string(), "0-1");
        let places = by_place(&root, "/sys/fs/cgroup", GROUP, 5).expect("threads");
        let told: Vec<_> = places.iter().map(|((cpus, _), threads)| (cpus.to_string(), threads.as_slice())).collect();
        assert_eq!(told, [("0-3".to_owned(), [5].as_slice()), ("0-7".to_owned(), &[9])]);
    }

    #[test]
    fn a_main_process_in_another_cgroup_has_strayed_and_still_counts() {
        let (_machine, root) = machine(&[
            ("sys/fs/cgroup/a.slice/b.service/cgroup.procs", ""),
            ("proc/5/cgroup", "0::/system.slice\n"),
            ("proc/5/task/5/status", &status("0-19", "0-1")),
        ]);
        let threads = threads(&root, "/sys/fs/cgroup", GROUP, 5).expect("threads");
        assert_eq!((threads.count, threads.strayed), (1, 1));
        assert_eq!(threads.cpus.to_string(), "0-19");
    }
}
