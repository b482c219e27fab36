//! Machines as small trees of files.

#![expect(clippy::disallowed_methods, reason = "the tests make machines out of files")]

use std::fs;
use std::path::Path;

use lamina_crds::Bytes;
use lamina_crds::hardware::Package;

use super::*;

struct Machine(tempfile::TempDir);

impl Machine {
    fn new(online: &str) -> Self {
        let machine = Self(tempfile::tempdir().expect("a directory"));
        machine.file("sys/devices/system/cpu/online", online)
    }

    fn file(self, path: &str, text: &str) -> Self {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().expect("a parent")).expect("directories");
        fs::write(path, format!("{text}\n")).expect("a file");
        self
    }

    fn cpu(self, cpu: u32, package: &str, core: &str, l3: Option<&str>) -> Self {
        let directory = format!("sys/devices/system/cpu/cpu{cpu}");
        let machine = self
            .file(&format!("{directory}/topology/physical_package_id"), package)
            .file(&format!("{directory}/topology/core_cpus_list"), core)
            .file(&format!("{directory}/cache/index0/level"), "1")
            .file(&format!("{directory}/cache/index0/shared_cpu_list"), core);
        match l3 {
            Some(shared) => machine
                .file(&format!("{directory}/cache/index3/level"), "3")
                .file(&format!("{directory}/cache/index3/type"), "Unified")
                .file(&format!("{directory}/cache/index3/shared_cpu_list"), shared),
            None => machine,
        }
    }

    fn node(self, id: u32, cpus: &str, kibibytes: u64, distances: &str) -> Self {
        let directory = format!("sys/devices/system/node/node{id}");
        self.file(&format!("{directory}/cpulist"), cpus)
            .file(
                &format!("{directory}/meminfo"),
                &format!("Node {id} MemTotal:  {kibibytes} kB\nNode {id} MemFree: 1 kB"),
            )
            .file(&format!("{directory}/distance"), distances)
    }

    fn read(&self) -> Hardware {
        read(self.0.path(), "252").expect("a machine")
    }
}

fn lists(sets: &[CpuSet]) -> Vec<String> {
    sets.iter().map(ToString::to_string).collect()
}

#[test]
fn the_twenty_cpu_host_is_read_as_it_is() {
    let mut machine = Machine::new("0-19")
        .file("etc/machine-id", "0123456789abcdef0123456789abcdef")
        .file("proc/sys/kernel/osrelease", "6.1.0-28-cloud-amd64")
        .file("sys/devices/system/node/online", "0-1")
        .node(0, "0-7,16-19", 1_048_576, "10 21")
        .node(1, "8-15", 524_288, "21 10");
    for cpu in 0..20 {
        let l3 = if (8..16).contains(&cpu) { "8-15" } else { "0-7,16-19" };
        machine = machine.cpu(cpu, "0", &cpu.to_string(), Some(l3));
    }
    let hardware = machine.read();
    assert_eq!(hardware.machine_id, "0123456789abcdef0123456789abcdef");
    assert_eq!((hardware.kernel.as_str(), hardware.systemd.as_str()), ("6.1.0-28-cloud-amd64", "252"));
    assert_eq!(hardware.cpus.online.to_string(), "0-19");
    assert!(hardware.cpus.offline.is_empty() && hardware.cpus.isolated.is_empty());
    assert_eq!(lists(&hardware.l3), ["0-7,16-19", "8-15"]);
    assert!(hardware.cores.is_empty());
    assert_eq!(hardware.numa_nodes[0].memory, Bytes::mebi(1024));
    assert_eq!(hardware.numa_nodes[1].distances, [21, 10]);
    assert_eq!(hardware.packages, [Package { id: 0, cpus: "0-19".parse().expect("list") }]);
}

#[test]
fn two_threads_of_one_core_are_named_once() {
    let mut machine = Machine::new("0-7");
    for cpu in 0..8 {
        machine = machine.cpu(cpu, "0", &format!("{},{}", cpu % 4, cpu % 4 + 4), None);
    }
    let hardware = machine.read();
    assert_eq!(lists(&hardware.cores), ["0,4", "1,5", "2,6", "3,7"]);
    assert!(hardware.l3.is_empty());
}

#[test]
fn a_core_whose_other_thread_is_offline_is_a_core_of_one() {
    let machine = Machine::new("0-2")
        .file("sys/devices/system/cpu/present", "0-3")
        .file("sys/devices/system/cpu/cpu3/online", "0")
        .cpu(0, "0", "0,2", Some("0-3"))
        .cpu(1, "0", "1,3", Some("0-3"))
        .cpu(2, "0", "0,2", Some("0-3"));
    let hardware = machine.read();
    assert_eq!(hardware.cpus.offline.to_string(), "3");
    assert_eq!(lists(&hardware.cores), ["0,2"]);
    assert_eq!(lists(&hardware.l3), ["0-2"]);
}

#[test]
fn sparse_numbers_of_cpus_and_nodes_stay_as_they_are() {
    let machine = Machine::new("0,64")
        .file("sys/devices/system/node/online", "0,8")
        .cpu(0, "0", "0", None)
        .cpu(64, "36", "64", None)
        .node(0, "0", 1024, "10 40")
        .node(8, "64", 1024, "40 10");
    let hardware = machine.read();
    let ids: Vec<u32> = hardware.numa_nodes.iter().map(|node| node.id).collect();
    assert_eq!(ids, [0, 8]);
    assert_eq!(hardware.packages.iter().map(|package| package.id).collect::<Vec<_>>(), [0, 36]);
}

#[test]
fn nodes_may_lack_memory_or_cpus() {
    let machine = Machine::new("0-3")
        .file("sys/devices/system/node/online", "0-2")
        .node(0, "0-1", 1024, "10 20 30")
        .node(1, "2-3", 0, "20 10 30")
        .node(2, "", 4096, "30 30 10");
    let hardware = machine.read();
    assert_eq!(hardware.memory_nodes().to_string(), "0,2");
    assert!(hardware.numa_nodes[2].cpus.is_empty());
}

#[test]
fn a_cpu_without_a_directory_is_not_there() {
    let machine = Machine::new("0-3").file("sys/devices/system/cpu/present", "0-7");
    let hardware = machine.cpu(0, "0", "0", None).cpu(1, "0", "1", None).read();
    assert_eq!((hardware.cpus.online.to_string(), hardware.cpus.offline.len()), ("0-1".to_owned(), 0));
}

#[test]
fn a_node_of_emulated_ones_has_the_cpus_that_say_so_themselves() {
    let machine = Machine::new("0-1")
        .file("sys/devices/system/node/online", "0-1")
        .cpu(0, "0", "0", None)
        .cpu(1, "0", "1", None)
        .file("sys/devices/system/cpu/cpu1/node1/cpulist", "0-1")
        .node(0, "0-1", 1024, "10 10")
        .node(1, "0-1", 1024, "10 10");
    let nodes = machine.read().numa_nodes;
    assert_eq!((nodes[0].cpus.to_string(), nodes[1].cpus.to_string()), ("0".to_owned(), "1".to_owned()));
}

#[test]
fn the_running_kubelet_and_its_state_win_over_its_configuration() {
    let machine = Machine::new("0-7")
        .file("sys/fs/cgroup/system.slice/kubelet.service/cgroup.procs", "812")
        .file("proc/812/cmdline", "/usr/bin/kubelet\0--config=/etc/kubernetes/kubelet.yaml\0--reserved-cpus\x001-2")
        .file("etc/kubernetes/kubelet.yaml", "cpuManagerPolicy: none\nreservedSystemCPUs: 0-7\ncgroupDriver: systemd")
        .file("var/lib/kubelet/cpu_manager_state", r#"{"policyName":"static","defaultCpuSet":"0-7","checksum":7}"#);
    let kubelet = machine.read().kubelet.expect("a kubelet");
    assert_eq!((kubelet.cpu_manager_policy.as_str(), kubelet.cgroup_driver.as_str()), ("static", "systemd"));
    assert_eq!(kubelet.reserved_cpus.to_string(), "1-2");
}

#[test]
fn a_kubelet_that_says_nothing_has_its_own_defaults_and_no_kubelet_is_none() {
    let quiet = Machine::new("0").file("var/lib/kubelet/config.yaml", "kind: KubeletConfiguration").read().kubelet;
    let quiet = quiet.expect("a kubelet");
    assert_eq!((quiet.cpu_manager_policy.as_str(), quiet.cgroup_driver.as_str()), ("none", "cgroupfs"));
    assert_eq!(Machine::new("0").read().kubelet, None);
}

#[test]
fn containers_with_cpus_of_their_own_give_a_cpu_manager_away() {
    let pod = "sys/fs/cgroup/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1.slice/cri-1.scope";
    let policy = |cpus: &str| {
        let machine = Machine::new("0-7").file(&format!("{pod}/cpuset.cpus"), cpus);
        machine.read().kubelet.map(|kubelet| kubelet.cpu_manager_policy)
    };
    assert_eq!(policy("0-3"), Some("static".to_owned()));
    assert_eq!(policy(""), Some("none".to_owned()));
}

#[test]
fn what_a_pod_sees_is_put_together_from_its_own_files_and_the_hosts() {
    let pod = Machine::new("0-7").file("sys/fs/cgroup/cpuset.cpus.effective", "0");
    let host = Machine::new("0-1").file("sys/fs/cgroup/cpuset.cpus.effective", "0-5").file("etc/machine-id", "abc");
    let hardware = read_apart(pod.0.path(), host.0.path(), "252").expect("a machine");
    assert_eq!((hardware.cpus.online.to_string(), hardware.cpus.offline.to_string()), ("0-5".into(), "6-7".into()));
    assert_eq!(hardware.machine_id, "abc");
}

#[test]
fn a_path_is_a_tree_or_an_export() {
    let machine = Machine::new("0-3")
        .file("export.xml", r#"<topology version="2.0"><object type="PU" os_index="5"/></topology>"#);
    let online = |path: &Path| read_path(path, "").map(|hardware| hardware.cpus.online.to_string());
    assert_eq!(online(machine.0.path()).expect("a tree"), "0-3");
    assert_eq!(online(&machine.0.path().join("export.xml")).expect("an export"), "5");
    let error = online(&machine.0.path().join("nothing")).expect_err("nothing there").to_string();
    assert!(error.contains("nothing: No such file"), "{error}");
}

#[test]
fn an_offline_cpu_counts_for_no_node() {
    let machine = Machine::new("0").file("sys/devices/system/node/online", "0").node(0, "0-1", 1024, "10");
    assert_eq!(machine.read().numa_nodes[0].cpus.to_string(), "0");
}

#[test]
fn a_machine_that_tells_only_its_online_cpus_is_described_with_that() {
    let hardware = Machine::new("0-3").read();
    assert_eq!(hardware.cpus.online.to_string(), "0-3");
    assert!(hardware.packages.is_empty() && hardware.numa_nodes.is_empty() && hardware.cores.is_empty());
}

#[test]
fn no_list_of_online_cpus_is_an_error_that_names_the_file() {
    let error = read(Path::new("/nonexistent"), "252").expect_err("nothing there").to_string();
    assert!(error.contains("/nonexistent/sys/devices/system/cpu/online"), "{error}");
}
