//! What is read of a tree is what was written into it.

use std::collections::BTreeMap;

use lamina_crds::hardware::{CoreGroup, CoreKind, Device, Kubelet, NumaNode, Package};
use lamina_crds::{Bytes, CpuSet, Hardware};
use lamina_trees::machine::{KindsTold, Node};
use lamina_trees::{Ids, Machine, shapes};

use crate::consistency::faults;
use crate::{Tree, machines};

#[test]
fn every_machine_is_read_as_it_was_written() {
    for (name, machine) in machines(250) {
        let hardware = Tree::new(&machine).read();
        assert_eq!(hardware, expected(&machine), "{name}");
        assert_eq!(faults(&hardware, &machine.present()), Vec::<String>::new(), "{name}");
    }
}

#[test]
fn the_inventory_of_the_largest_machines_is_small() {
    for (name, mut machine) in
        [("one cache per core", shapes::two_times_128()), ("many nodes", shapes::eight_times_32())]
    {
        for index in 0..200 {
            machine.devices.push(lamina_trees::machine::Device {
                name: format!("enp{index}s0"),
                pci: format!("0000:{index:02x}:00.0"),
                node: Some(index % 2),
                class: lamina_trees::machine::Class::Net,
            });
        }
        let hardware = Tree::new(&machine).read();
        let size = serde_json::to_string(&hardware).expect("JSON").len();
        assert!(size <= 8 << 10, "{name}: {size} bytes");
        assert!(hardware.devices.len() >= 16, "{name}: {} devices", hardware.devices.len());
    }
}

/// What the machines look like, without asking the code that writes them.
#[test]
fn known_machines_have_the_domains_that_they_are_known_for() {
    let read = |machine: Machine| Tree::new(&machine).read();
    let lists = |sets: &[CpuSet]| sets.iter().map(ToString::to_string).collect::<Vec<_>>();
    let twenty = read(shapes::twenty());
    assert_eq!(lists(&twenty.l3), ["0-7,16-19", "8-15"]);
    let laptop = read(shapes::laptop());
    assert_eq!(lists(&laptop.cores), ["0,4", "1,5", "2,6", "3,7"]);
    let alternating = read(shapes::two_times_28());
    assert_eq!(alternating.cores[1].to_string(), "1,57");
    assert!(alternating.numa_nodes[0].cpus.iter().all(|cpu| cpu % 2 == 0));
    let epyc = read(shapes::two_times_96());
    assert_eq!((epyc.l3.len(), epyc.l3[0].to_string().as_str()), (24, "0-7,192-199"));
    let clustered = read(shapes::sub_numa());
    assert_eq!((clustered.numa_nodes.len(), clustered.l3.len()), (8, 2));
    let hybrid = read(shapes::hybrid());
    assert_eq!(hybrid.core_types[1].cpus.to_string(), "12-21");
    assert_eq!(lists(&hybrid.l3), ["0-19"]);
    assert_eq!(lists(&read(shapes::clusters()).l3), ["0-3", "4-7"]);
    let half = read(shapes::half_offline());
    assert_eq!((half.cpus.online.to_string().as_str(), half.numa_nodes.len()), ("4-20", 1));
    assert_eq!(half.numa_nodes[0].cpus.to_string(), "5,7,9,11,13,15,17,19");
    let single = read(shapes::single_threads());
    assert_eq!((single.online_cores().len(), single.cores.len()), (7, 5));
    let limited = read(shapes::limited());
    assert_eq!(
        (limited.cpus.online.to_string().as_str(), limited.memory_nodes().to_string().as_str()),
        ("4-7,20-23", "0")
    );
}

fn set(ids: &Ids) -> CpuSet {
    ids.iter().copied().collect()
}

fn sets(groups: &[Ids]) -> Vec<CpuSet> {
    groups.iter().map(set).collect()
}

/// The inventory that a machine should have.
fn expected(machine: &Machine) -> Hardware {
    let (usable, present) = (set(&machine.usable()), set(&machine.present()));
    let cores = sets(&machine.groups(|cpu| Some(cpu.core)));
    let level_3 = sets(&machine.groups(|cpu| cpu.level_3));
    let level_2 = sets(&machine.groups(|cpu| Some(cpu.level_2)));
    let joins = level_2.iter().any(|cache| !cores.contains(cache));
    let nodes = nodes(machine);
    let known = |node: &u32| nodes.iter().any(|other| other.id == *node);
    let mut devices: Vec<Device> = machine
        .devices
        .iter()
        .map(|device| Device {
            name: device.name.clone(),
            pci: Some(device.pci.clone()),
            node: device.node.filter(known),
        })
        .collect();
    devices.sort_by(|a, b| a.name.cmp(&b.name));
    Hardware {
        machine_id: "0123456789abcdef0123456789abcdef".to_owned(),
        cpus: lamina_crds::hardware::CpuInventory {
            offline: present.difference(&usable),
            isolated: set(&machine.isolated),
            online: usable,
        },
        packages: packages(machine),
        l3: if level_3.is_empty() && joins { level_2 } else { level_3 },
        cores: cores.into_iter().filter(|core| core.len() > 1).collect(),
        core_types: kinds(machine),
        numa_nodes: nodes,
        devices,
        kubelet: machine.kubelet.as_ref().map(|kubelet| Kubelet {
            cpu_manager_policy: kubelet.policy.clone(),
            reserved_cpus: set(&kubelet.reserved),
            cgroup_driver: "systemd".to_owned(),
        }),
        kernel: "6.1.0-28-amd64".to_owned(),
        systemd: "252".to_owned(),
    }
}

fn packages(machine: &Machine) -> Vec<Package> {
    let usable = machine.usable();
    let mut packages: BTreeMap<u32, CpuSet> = BTreeMap::new();
    for cpu in machine.cpus.iter().filter(|cpu| usable.contains(&cpu.id)) {
        if let Some(id) = cpu.package {
            packages.entry(id).or_default().insert(cpu.id);
        }
    }
    packages.into_iter().map(|(id, cpus)| Package { id, cpus }).collect()
}

fn nodes(machine: &Machine) -> Vec<NumaNode> {
    let usable = machine.usable();
    if !machine.has_nodes {
        let kibibytes: u64 = machine.online_nodes().map(|node| node.kibibytes).sum();
        let node = NumaNode { id: 0, cpus: set(&usable), memory: Bytes::new(kibibytes << 10), distances: vec![10] };
        return if kibibytes > 0 { vec![node] } else { Vec::new() };
    }
    let cpus = |node: &Node| set(&machine.groups(|cpu| (cpu.node == node.id).then_some(())).pop().unwrap_or_default());
    let is_allowed = |node: &Node| machine.allowed_nodes.as_ref().is_none_or(|allowed| allowed.contains(&node.id));
    let memory = |node: &Node| Bytes::new(if is_allowed(node) { node.kibibytes << 10 } else { 0 });
    let kept: Vec<&Node> =
        machine.online_nodes().filter(|node| !cpus(node).is_empty() || memory(node) > Bytes::new(0)).collect();
    let distance = |from: &Node, to: &Node| match (machine.has_distances, from.id == to.id) {
        (true, _) => machine.distance(from, to),
        (false, true) => 10,
        (false, false) => 20,
    };
    let node = |node: &&Node| NumaNode {
        id: node.id,
        cpus: cpus(node),
        memory: memory(node),
        distances: kept.iter().map(|other| distance(node, other)).collect(),
    };
    kept.iter().map(node).collect()
}

fn kinds(machine: &Machine) -> Vec<CoreGroup> {
    let usable = set(&machine.usable());
    let of =
        |is_wanted: fn(u32) -> bool| set(&machine.online_where(|cpu| is_wanted(cpu.capacity))).intersection(&usable);
    let (performance, efficiency) = (of(|capacity| capacity == 1024), of(|capacity| capacity != 1024));
    if machine.kinds_told == KindsTold::Nowhere || performance.is_empty() || efficiency.is_empty() {
        return Vec::new();
    }
    vec![
        CoreGroup { core_type: CoreKind::Performance, cpus: performance },
        CoreGroup { core_type: CoreKind::Efficiency, cpus: efficiency },
    ]
}
