//! Reads what units use and where their memory and threads are: files of cgroups and processes. Never writes any.

use std::io;

use lamina_crds::measured::UnitUsage;
use lamina_crds::{UnitKind, UnitName};

use crate::comparison::Probe;
use crate::host::root::Root;
use crate::host::{cgroups, processes};
use crate::observed::ObservedUnit;
use crate::usage::{Consumer, counter, number, pages, pressure};

/// Where a unit's memory lies, and for a service where its threads may run.
///
/// # Errors
/// Whatever reading says, but for what is gone.
pub fn probe(root: &Root, mount: &str, name: &UnitName, unit: &ObservedUnit) -> io::Result<Probe> {
    let group = &unit.control_group;
    let stat = root.read_kernel(&format!("{mount}{group}/memory.numa_stat"))?;
    let threads = match name.kind() {
        UnitKind::Service => processes::by_place(root, mount, group, unit.main_pid)?,
        UnitKind::Slice => Default::default(),
    };
    Ok(Probe { pages: stat.as_deref().map(pages).unwrap_or_default(), threads })
}

/// What a unit uses.
///
/// # Errors
/// Whatever reading says, but for what is gone.
pub fn usage(root: &Root, mount: &str, consumer: &Consumer) -> io::Result<UnitUsage> {
    let Consumer { topology, unit, slice, group } = consumer;
    let file = |name: &str| root.read_kernel(&format!("{mount}{group}/{name}"));
    let of_number = |name: &str| Ok::<_, io::Error>(file(name)?.as_deref().and_then(number));
    let of_pressure = |name: &str| match file(name) {
        Ok(text) => Ok(text.as_deref().and_then(pressure)),
        // A kernel that keeps no account of waiting (psi=0) has the file and refuses to read it.
        Err(error) if error.kind() == io::ErrorKind::Unsupported => Ok(None),
        Err(error) => Err(error),
    };
    Ok(UnitUsage {
        topology: topology.clone(),
        unit: unit.clone(),
        slice: slice.clone(),
        cpus: cgroups::effective_cpus(root, mount, group)?,
        cpu_microseconds: file("cpu.stat")?.as_deref().and_then(|text| counter(text, "usage_usec")),
        memory: of_number("memory.current")?,
        memory_high: of_number("memory.high")?,
        memory_max: of_number("memory.max")?,
        tasks: of_number("pids.current")?,
        tasks_max: of_number("pids.max")?,
        cpu_pressure: of_pressure("cpu.pressure")?,
        memory_pressure: of_pressure("memory.pressure")?,
    })
}

/// Microseconds since the host started, also while it slept.
pub fn uptime_microseconds() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let (seconds, nanoseconds) = (u64::try_from(time.tv_sec), u64::try_from(time.tv_nsec));
    seconds.unwrap_or_default() * 1_000_000 + nanoseconds.unwrap_or_default() / 1000
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the tests make files of their own")]
mod tests {
    use lamina_crds::TopologyName;

    use super::*;

    #[test]
    fn a_unit_is_read_from_its_cgroup_and_one_without_uses_nothing() {
        let machine = tempfile::tempdir().expect("a directory");
        let group = machine.path().join("sys/fs/cgroup/web.slice/web-front.slice");
        for directory in [group.as_path(), &machine.path().join("sys/devices")] {
            std::fs::create_dir_all(directory).expect("directories");
        }
        let files = [
            ("cpuset.cpus.effective", "0-3\n"),
            ("cpu.stat", "usage_usec 1500\nuser_usec 1000\n"),
            ("memory.current", "4096\n"),
            ("memory.high", "max\n"),
            ("memory.max", "8192\n"),
            ("pids.current", "7\n"),
            ("cpu.pressure", "some avg10=2.25 avg60=0 avg300=0 total=0\n"),
            ("memory.numa_stat", "anon N0=4096 N1=0\n"),
        ];
        for (name, text) in files {
            std::fs::write(group.join(name), text).expect("a file");
        }
        let root = Root::new(machine.path());
        let consumer = |unit: &str, group: &str| Consumer {
            topology: TopologyName::new("web").expect("legal"),
            unit: UnitName::new(unit).expect("legal"),
            slice: None,
            group: group.to_owned(),
        };
        let front = consumer("web-front.slice", "/web.slice/web-front.slice");
        let used = usage(&root, "/sys/fs/cgroup", &front).expect("files");
        assert_eq!(used.cpus.map(|cpus| cpus.to_string()).as_deref(), Some("0-3"));
        assert_eq!((used.cpu_microseconds, used.memory, used.tasks), (Some(1500), Some(4096), Some(7)));
        assert_eq!((used.memory_high, used.memory_max, used.tasks_max), (None, Some(8192), None));
        assert_eq!((used.cpu_pressure, used.memory_pressure), (Some(2.25), None));
        let seen = ObservedUnit { control_group: front.group.clone(), ..ObservedUnit::default() };
        assert_eq!(
            probe(&root, "/sys/fs/cgroup", &front.unit, &seen).expect("files").pages,
            [(0, 4096), (1, 0)].into()
        );
        let gone =
            usage(&root, "/sys/fs/cgroup", &consumer("web-b.slice", "/web.slice/web-b.slice")).expect("no files");
        assert_eq!((gone.cpu_microseconds, gone.memory, gone.tasks), (None, None, None));
    }
}
