//! hwloc, pointed at the same trees, finds the same processors, cores, packages, nodes and caches; and what it exports
//! of a tree reads as the tree itself does.
//!
//! Where the two differ on purpose:
//! - hwloc leaves a node out whose memory is not allowed; here it stays as one without memory, because its CPUs are there
//!   and have a distance to the others.
//! - hwloc gives a node without CPUs those that are nearest; here it has none.
//! - hwloc asks the processor itself for Intel's kinds of cores, not the files of the kernel.
//! - hwloc invents one package for a machine whose firmware knows none; here there is none.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use lamina_crds::hardware::NumaNode;
use lamina_crds::{CpuSet, Hardware};
use lamina_node_agent::hardware;
use lamina_trees::Machine;
use lamina_trees::machine::KindsTold;

use crate::{Tree, machines};

#[test]
fn hwloc_sees_the_same_machine_and_its_export_reads_as_the_tree_does() {
    for (name, machine) in machines(150) {
        let tree = Tree::new(&machine);
        let ours = tree.read();
        compare_objects(&name, &machine, &tree, &ours);
        compare_export(&name, &machine, &export(&tree), &ours);
    }
}

fn compare_objects(name: &str, machine: &Machine, tree: &Tree, ours: &Hardware) {
    assert_eq!(units(tree), ours.cpus.online.iter().collect(), "processors of {name}");
    assert_eq!(sets(&objects(tree, "core")), sorted(&ours.online_cores()), "cores of {name}");
    if machine.cpus.iter().any(|cpu| cpu.level_3.is_some()) {
        assert_eq!(sets(&objects(tree, "l3cache")), sorted(&ours.l3), "caches of {name}");
    }
    if has_packages(machine) {
        let packages = ours.packages.iter().map(|package| (package.id, package.cpus.clone())).collect();
        assert_eq!(numbered(&objects(tree, "package")), packages, "packages of {name}");
    }
    let (theirs, ours) = (numbered(&objects(tree, "numanode")), shared_nodes(machine, ours));
    assert_eq!(theirs.keys().collect::<Vec<_>>(), ours.keys().collect::<Vec<_>>(), "nodes of {name}");
    for (id, cpus) in ours.iter().filter(|(_, cpus)| !cpus.is_empty()) {
        assert_eq!(theirs[id], *cpus, "node {id} of {name}");
    }
}

fn compare_export(name: &str, machine: &Machine, export: &str, ours: &Hardware) {
    let exported = hardware::from_lstopo(export).expect("an export");
    assert_eq!(exported.cpus.online, ours.cpus.online, "{name}");
    assert_eq!(exported.cpus.offline, ours.cpus.offline, "{name}");
    assert_eq!(exported.cores, ours.cores, "{name}");
    assert_eq!(exported.l3, ours.l3, "{name}");
    if machine.kinds_told != KindsTold::EventSources {
        assert_eq!(exported.core_types, ours.core_types, "{name}");
    }
    if has_packages(machine) {
        assert_eq!(exported.packages, ours.packages, "{name}");
    }
    let shown = |hardware: &Hardware| -> Vec<NumaNode> {
        hardware.numa_nodes.iter().filter(|node| is_in_hwloc(machine, node.id)).cloned().collect()
    };
    let memory = |nodes: Vec<NumaNode>| nodes.into_iter().map(|node| (node.id, node.memory)).collect::<Vec<_>>();
    assert_eq!(memory(shown(&exported)), memory(shown(ours)), "memory of {name}");
    if tells_whose_cpus(&shown(ours), &ours.cpus.online) {
        let cpus = |nodes: Vec<NumaNode>| nodes.into_iter().map(|node| node.cpus).collect::<Vec<_>>();
        assert_eq!(cpus(shown(&exported)), cpus(shown(ours)), "nodes of {name}");
    }
    if ours.numa_nodes.iter().all(|node| is_in_hwloc(machine, node.id)) {
        let distances =
            |hardware: &Hardware| -> Vec<_> { hardware.numa_nodes.iter().map(|node| node.distances.clone()).collect() };
        assert_eq!(distances(&exported), distances(ours), "distances of {name}");
    }
}

fn has_packages(machine: &Machine) -> bool {
    machine.cpus.iter().all(|cpu| cpu.package.is_some())
}

/// Whether an export can be undone: nodes without CPUs come last, and no CPU is outside of all nodes. hwloc gives such
/// CPUs to a node without CPUs that is near, and of two nodes that it gives the same CPUs it does not say whose they are.
fn tells_whose_cpus(nodes: &[NumaNode], online: &CpuSet) -> bool {
    let all = nodes.iter().fold(CpuSet::new(), |all, node| all.union(&node.cpus));
    let empty: Vec<bool> = nodes.iter().map(|node| node.cpus.is_empty()).collect();
    empty.is_sorted() && (all == *online || !empty.contains(&true))
}

/// Whether hwloc shows a node: the topmost cgroup has it, which has no node without memory.
fn is_in_hwloc(machine: &Machine, id: u32) -> bool {
    let has_memory = machine.nodes.iter().any(|node| node.id == id && node.kibibytes > 0);
    has_memory && machine.allowed_nodes.as_ref().is_none_or(|allowed| allowed.contains(&id))
}

/// Our nodes as far as hwloc shows them.
fn shared_nodes(machine: &Machine, ours: &Hardware) -> BTreeMap<u32, CpuSet> {
    let shown = ours.numa_nodes.iter().filter(|node| is_in_hwloc(machine, node.id));
    shown.map(|node| (node.id, node.cpus.clone())).collect()
}

/// hwloc's XML of a tree.
pub fn export(tree: &Tree) -> String {
    hwloc(tree, "lstopo-no-graphics", &["--of", "xml", "--no-io"])
}

/// The numbers of all processing units.
fn units(tree: &Tree) -> BTreeSet<u32> {
    let text = hwloc(tree, "hwloc-calc", &["--po", "-I", "pu", "all"]);
    text.trim().split(',').map(|number| number.parse().expect("a number")).collect()
}

/// Number and CPUs of each object of a type, by lines such as `Core P#0 cpuset=0x1`.
fn objects(tree: &Tree, kind: &str) -> Vec<(Option<u32>, CpuSet)> {
    let text = hwloc(tree, "lstopo-no-graphics", &["--of", "console", "-p", "--cpuset", "--taskset", "--only", kind]);
    let object = |line: &str| {
        let (_, mask) = line.split_once("cpuset=0x")?;
        let number =
            line.split_once("P#").map(|(_, rest)| rest.chars().take_while(char::is_ascii_digit).collect::<String>());
        Some((number.and_then(|digits| digits.parse().ok()), bits(mask.trim())))
    };
    text.lines().map(|line| object(line).unwrap_or_else(|| panic!("no object: {line}"))).collect()
}

fn bits(hexadecimal: &str) -> CpuSet {
    let digits = (0_u32..).zip(hexadecimal.chars().rev());
    let members = digits.flat_map(|(place, digit)| {
        let digit = digit.to_digit(16).expect("a hexadecimal digit");
        (0..4).filter(move |bit| digit & (1 << bit) != 0).map(move |bit| place * 4 + bit)
    });
    members.collect()
}

fn sets(objects: &[(Option<u32>, CpuSet)]) -> Vec<CpuSet> {
    sorted(&objects.iter().map(|(_, cpus)| cpus.clone()).collect::<Vec<_>>())
}

fn sorted(sets: &[CpuSet]) -> Vec<CpuSet> {
    let mut sets = sets.to_vec();
    sets.sort_by_key(CpuSet::first);
    sets
}

fn numbered(objects: &[(Option<u32>, CpuSet)]) -> BTreeMap<u32, CpuSet> {
    objects.iter().filter_map(|(number, cpus)| Some(((*number)?, cpus.clone()))).collect()
}

/// Runs a program of hwloc on a tree, with nothing of the machine that it runs on.
fn hwloc(tree: &Tree, program: &str, arguments: &[&str]) -> String {
    let run = Command::new(program)
        .args(arguments)
        .env("HWLOC_FSROOT", tree.root())
        .env("HWLOC_COMPONENTS", "linux,stop")
        .output()
        .unwrap_or_else(|error| panic!("{program} does not run ({error}); install the package hwloc-nox"));
    assert!(run.status.success(), "{program}: {}", String::from_utf8_lossy(&run.stderr));
    String::from_utf8(run.stdout).expect("text")
}
