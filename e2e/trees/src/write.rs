//! Writes a machine as the tree of files that its kernel would show: lists and bitmaps name only CPUs that run, and a CPU
//! that is off keeps its directory and loses what is in it.

#![expect(clippy::disallowed_methods, reason = "writes trees of files")]

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use crate::machine::{Class, Cpu, Device, Kernel, KindsTold, Machine, Node};
use crate::sets::{Ids, list, mask};

const CPUS: &str = "sys/devices/system/cpu";
const NODES: &str = "sys/devices/system/node";

/// Writes the machine's files below a root, which may exist.
///
/// # Errors
/// Whatever the kernel says to making files.
pub fn write(machine: &Machine, root: &Path) -> io::Result<()> {
    let tree = Tree { root, machine };
    tree.lists()?;
    for cpu in &machine.cpus {
        tree.cpu(cpu)?;
    }
    if machine.has_nodes {
        tree.nodes()?;
    }
    tree.kinds()?;
    tree.system()?;
    tree.limits()?;
    for device in &machine.devices {
        tree.device(device)?;
    }
    tree.virtual_devices()?;
    tree.kubelet()
}

struct Tree<'a> {
    root: &'a Path,
    machine: &'a Machine,
}

impl Tree<'_> {
    fn place(&self, path: &str) -> io::Result<PathBuf> {
        let place = self.root.join(path);
        place.parent().map_or(Ok(()), fs::create_dir_all)?;
        Ok(place)
    }

    fn file(&self, path: &str, text: impl AsRef<str>) -> io::Result<()> {
        fs::write(self.place(path)?, format!("{}\n", text.as_ref()))
    }

    fn directory(&self, path: &str) -> io::Result<()> {
        fs::create_dir_all(self.root.join(path))
    }

    fn link(&self, path: &str, target: &str) -> io::Result<()> {
        symlink(target, self.place(path)?)
    }

    /// One more than the largest number of a CPU.
    fn end(&self) -> u32 {
        self.machine.cpus.iter().map(|cpu| cpu.id + 1).max().unwrap_or_default()
    }

    fn both(&self, path: &str, list_name: &str, mask_name: &str, cpus: &Ids) -> io::Result<()> {
        self.file(&format!("{path}/{list_name}"), list(cpus))?;
        self.file(&format!("{path}/{mask_name}"), mask(cpus, self.end()))
    }

    fn lists(&self) -> io::Result<()> {
        let (present, online) = (self.machine.present(), self.machine.online());
        let possible = (0..self.end()).collect();
        let beyond = format!("{},{}", list(&present.difference(&online).copied().collect()), self.end());
        for (name, text) in [
            ("online", list(&online)),
            ("present", list(&present)),
            ("possible", list(&possible)),
            // The kernel counts what could still be plugged in among what is off.
            ("offline", beyond.trim_start_matches(',').to_owned()),
            ("isolated", list(&self.machine.isolated)),
            ("kernel_max", "8191".to_owned()),
        ] {
            self.file(&format!("{CPUS}/{name}"), text)?;
        }
        Ok(())
    }

    fn cpu(&self, cpu: &Cpu) -> io::Result<()> {
        let directory = format!("{CPUS}/cpu{}", cpu.id);
        self.directory(&directory)?;
        if cpu.id > 0 || !cpu.is_online {
            self.file(&format!("{directory}/online"), if cpu.is_online { "1" } else { "0" })?;
        }
        if !cpu.is_online {
            return Ok(());
        }
        self.topology(cpu, &format!("{directory}/topology"))?;
        self.caches(cpu, &format!("{directory}/cache"))?;
        let has_node = self.machine.online_nodes().any(|node| node.id == cpu.node);
        if self.machine.has_nodes && has_node {
            self.link(&format!("{directory}/node{}", cpu.node), &format!("../../node/node{}", cpu.node))?;
        }
        Ok(())
    }

    fn topology(&self, cpu: &Cpu, directory: &str) -> io::Result<()> {
        let core = self.machine.online_where(|other| other.core == cpu.core);
        let package = self.machine.online_where(|other| other.package == cpu.package);
        let id = cpu.package.map_or_else(|| "-1".to_owned(), |package| package.to_string());
        self.file(&format!("{directory}/physical_package_id"), id)?;
        self.file(&format!("{directory}/core_id"), cpu.core.to_string())?;
        self.both(directory, "thread_siblings_list", "thread_siblings", &core)?;
        self.both(directory, "core_siblings_list", "core_siblings", &package)?;
        if self.machine.kernel == Kernel::New {
            self.both(directory, "core_cpus_list", "core_cpus", &core)?;
            self.both(directory, "package_cpus_list", "package_cpus", &package)?;
        }
        Ok(())
    }

    fn caches(&self, cpu: &Cpu, directory: &str) -> io::Result<()> {
        let core = self.machine.online_where(|other| other.core == cpu.core);
        let second = self.machine.online_where(|other| other.level_2 == cpu.level_2);
        let third = cpu.level_3.map(|third| self.machine.online_where(|other| other.level_3 == Some(third)));
        let below =
            [("1", "Data", "48K", &core), ("1", "Instruction", "32K", &core), ("2", "Unified", "2048K", &second)];
        let above = third.iter().map(|third| ("3", "Unified", "32768K", third));
        for (index, (level, kind, size, cpus)) in below.into_iter().chain(above).enumerate() {
            let cache = format!("{directory}/index{index}");
            self.file(&format!("{cache}/level"), level)?;
            self.file(&format!("{cache}/type"), kind)?;
            self.file(&format!("{cache}/size"), size)?;
            self.file(&format!("{cache}/coherency_line_size"), "64")?;
            self.file(&format!("{cache}/number_of_sets"), "64")?;
            self.file(&format!("{cache}/physical_line_partition"), "1")?;
            self.both(&cache, "shared_cpu_list", "shared_cpu_map", cpus)?;
        }
        Ok(())
    }

    fn nodes(&self) -> io::Result<()> {
        let online: Vec<&Node> = self.machine.online_nodes().collect();
        let ids = |is_wanted: &dyn Fn(&Node) -> bool| {
            list(&online.iter().filter(|node| is_wanted(node)).map(|n| n.id).collect())
        };
        let cpus = |node: &Node| self.machine.online_where(|cpu| cpu.node == node.id);
        self.file(&format!("{NODES}/online"), ids(&|_| true))?;
        self.file(&format!("{NODES}/possible"), list(&self.machine.nodes.iter().map(|node| node.id).collect()))?;
        self.file(&format!("{NODES}/has_cpu"), ids(&|node| !cpus(node).is_empty()))?;
        self.file(&format!("{NODES}/has_memory"), ids(&|node| node.kibibytes > 0))?;
        for node in &online {
            let directory = format!("{NODES}/node{}", node.id);
            self.both(&directory, "cpulist", "cpumap", &cpus(node))?;
            let (id, total) = (node.id, node.kibibytes);
            let memory = format!("Node {id} MemTotal:       {total} kB\nNode {id} MemFree:        {} kB", total / 2);
            self.file(&format!("{directory}/meminfo"), memory)?;
            if self.machine.has_distances {
                let row = online.iter().map(|other| self.machine.distance(node, other).to_string());
                self.file(&format!("{directory}/distance"), row.collect::<Vec<_>>().join(" "))?;
            }
        }
        Ok(())
    }

    fn kinds(&self) -> io::Result<()> {
        let is_fast = |cpu: &Cpu| cpu.capacity == 1024;
        match self.machine.kinds_told {
            KindsTold::Nowhere => Ok(()),
            KindsTold::EventSources => {
                self.file("sys/devices/cpu_core/cpus", list(&self.machine.online_where(is_fast)))?;
                self.file("sys/devices/cpu_atom/cpus", list(&self.machine.online_where(|cpu| !is_fast(cpu))))
            }
            KindsTold::Capacity => {
                let told =
                    |cpu: &Cpu| self.file(&format!("{CPUS}/cpu{}/cpu_capacity", cpu.id), cpu.capacity.to_string());
                self.machine.cpus.iter().filter(|cpu| cpu.is_online).try_for_each(told)
            }
            KindsTold::Frequency => {
                let told = |cpu: &Cpu| {
                    let path = format!("{CPUS}/cpu{}/cpufreq/cpuinfo_max_freq", cpu.id);
                    self.file(&path, (cpu.capacity * 4000).to_string())
                };
                self.machine.cpus.iter().filter(|cpu| cpu.is_online).try_for_each(told)
            }
        }
    }

    fn system(&self) -> io::Result<()> {
        let total: u64 = self.machine.online_nodes().map(|node| node.kibibytes).sum();
        self.file("proc/meminfo", format!("MemTotal:       {total} kB\nMemFree:        {} kB", total / 2))?;
        let processor = |cpu: &u32| format!("processor\t: {cpu}\nvendor_id\t: GenuineIntel\nmodel name\t: Any\n");
        self.file("proc/cpuinfo", self.machine.online().iter().map(processor).collect::<Vec<_>>().join("\n"))?;
        self.file("proc/sys/kernel/osrelease", "6.1.0-28-amd64")?;
        self.file("proc/mounts", "sysfs /sys sysfs rw 0 0\ncgroup2 /sys/fs/cgroup cgroup2 rw,nsdelegate 0 0")?;
        self.file("proc/self/cgroup", "0::/")?;
        self.file("etc/machine-id", "0123456789abcdef0123456789abcdef")
    }

    fn limits(&self) -> io::Result<()> {
        let nodes: Ids = self.machine.online_nodes().filter(|node| node.kibibytes > 0).map(|node| node.id).collect();
        let cpus = self.machine.allowed_cpus.clone().unwrap_or_else(|| self.machine.online());
        self.file("sys/fs/cgroup/cgroup.controllers", "cpuset cpu io memory pids")?;
        self.file("sys/fs/cgroup/cpuset.cpus.effective", list(&cpus))?;
        self.file("sys/fs/cgroup/cpuset.mems.effective", list(self.machine.allowed_nodes.as_ref().unwrap_or(&nodes)))
    }

    fn device(&self, device: &Device) -> io::Result<()> {
        let Device { name, pci, node, class } = device;
        let function = format!("devices/pci0000:00/0000:00:01.0/{pci}");
        let node = node.map_or_else(|| "-1".to_owned(), |node| node.to_string());
        self.file(&format!("sys/{function}/numa_node"), &node)?;
        match class {
            Class::Net => {
                self.file(&format!("sys/{function}/net/{name}/address"), "52:54:00:12:34:56")?;
                self.link(&format!("sys/{function}/net/{name}/device"), &format!("../../../{pci}"))?;
                self.link(&format!("sys/class/net/{name}"), &format!("../../{function}/net/{name}"))
            }
            Class::Nvme => {
                let controller = name.trim_end_matches("n1");
                let directory = format!("{function}/nvme/{controller}");
                self.file(&format!("sys/{directory}/{name}/size"), "4096")?;
                self.file(&format!("sys/{directory}/{name}/{name}p1/partition"), "1")?;
                self.link(&format!("sys/{directory}/{name}/device"), &format!("../../{controller}"))?;
                self.link(&format!("sys/class/block/{name}"), &format!("../../{directory}/{name}"))?;
                self.link(&format!("sys/class/block/{name}p1"), &format!("../../{directory}/{name}/{name}p1"))
            }
        }
    }

    fn virtual_devices(&self) -> io::Result<()> {
        for (class, name) in [("net", "lo"), ("block", "loop0")] {
            self.file(&format!("sys/devices/virtual/{class}/{name}/size"), "0")?;
            self.link(&format!("sys/class/{class}/{name}"), &format!("../../devices/virtual/{class}/{name}"))?;
        }
        Ok(())
    }

    fn kubelet(&self) -> io::Result<()> {
        let Some(kubelet) = &self.machine.kubelet else { return Ok(()) };
        let configuration = format!(
            "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\ncgroupDriver: systemd\n\
             cpuManagerPolicy: {}\nreservedSystemCPUs: \"{}\"",
            kubelet.policy,
            list(&kubelet.reserved)
        );
        self.file("var/lib/kubelet/config.yaml", configuration)?;
        let state = format!(r#"{{"policyName":"{}","defaultCpuSet":"","checksum":1}}"#, kubelet.policy);
        self.file("var/lib/kubelet/cpu_manager_state", state)
    }
}
