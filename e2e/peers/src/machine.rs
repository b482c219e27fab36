//! Machines to compare on: cores with their package, NUMA node and L3, in the numberings and odd shapes that occur.
//!
//! Left out is what the kubelet cannot express or gets wrong: more than eight NUMA nodes, and cores with unequal numbers
//! of threads (it divides CPUs by cores).

use std::collections::BTreeMap;

use lamina_crds::bytes::Bytes;
use lamina_crds::hardware::{CoreGroup, CoreKind, CpuInventory, NumaNode, Package};
use lamina_crds::{CpuSet, Hardware};
use serde::Serialize;

use lamina_trees::Random;

/// The NUMA nodes that the kubelet's topology manager accepts at most.
const MOST_NODES: u32 = 8;

/// What a host is, core by core.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Machine {
    /// Its online cores.
    pub cores: Vec<Core>,
}

/// One physical core.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Core {
    /// Its socket.
    pub package: u32,
    /// Its NUMA node.
    pub node: u32,
    /// Its last-level cache, where the machine has some.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub l3: Option<u32>,
    /// Its kind, where the machine has two. The kubelet does not hear of it.
    #[serde(skip)]
    pub kind: Option<CoreKind>,
    /// Its threads.
    pub cpus: Vec<u32>,
}

/// How large a machine is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Size {
    /// Up to about 32 cores.
    Small,
    /// Up to about 96 cores.
    Medium,
    /// Up to 256 cores.
    Large,
}

/// The regular shape that a machine is made from, before parts of it are taken away.
#[derive(Clone, Copy, Debug)]
struct Shape {
    packages: u32,
    nodes: u32,
    caches: Caches,
    cores_per_cache: u32,
    threads: u32,
    numbering: Numbering,
}

/// How caches lie in nodes.
#[derive(Clone, Copy, Debug)]
enum Caches {
    /// Nobody shares a last-level cache.
    None,
    /// So many in each node.
    PerNode(u32),
    /// One in each package, over its nodes (sub-NUMA clustering); the cores of a cache are divided among them.
    PerPackage,
}

/// How CPUs are numbered.
#[derive(Clone, Copy, Debug)]
enum Numbering {
    /// Node after node, then all second threads.
    SiblingsLast,
    /// Node after node, the threads of a core beside each other.
    SiblingsAdjacent,
    /// In turns over the nodes, then all second threads.
    Alternating,
}

/// A machine that the choices of `random` make.
pub fn machine(random: &mut Random) -> Machine {
    let size = match random.within(0, 99) {
        0..88 => Size::Small,
        88..98 => Size::Medium,
        _ => Size::Large,
    };
    let shape = shape(random, size);
    let mut machine = built(&shape);
    if random.chance(25) {
        lose_cores(&mut machine, random);
    }
    if random.chance(10) {
        thin_one_cache(&mut machine, random);
    }
    machine
}

/// The same machine with two kinds of core: some caches of each kind, or both kinds in every cache.
pub fn hybrid(mut machine: Machine, random: &mut Random) -> Machine {
    let by_cache = random.chance(50);
    let among = random.within(2, 4);
    let mut seen: BTreeMap<u32, u32> = BTreeMap::new();
    for core in &mut machine.cores {
        let cache = core.l3.unwrap_or(core.node);
        let place = seen.entry(cache).or_default();
        let is_fast = if by_cache { cache.is_multiple_of(among) } else { place.is_multiple_of(among) };
        *place += 1;
        core.kind = Some(if is_fast { CoreKind::Performance } else { CoreKind::Efficiency });
    }
    machine
}

fn shape(random: &mut Random, size: Size) -> Shape {
    let (cores, nodes_at_most) = match size {
        Size::Small => (random.within(6, 32), 4),
        Size::Medium => (random.within(24, 96), MOST_NODES),
        Size::Large => (*random.pick(&[128, 192, 256]), MOST_NODES),
    };
    let packages: u32 = *random.pick(&[1, 1, 2, 2, 2, 4]);
    // Two sockets in one node occur: a firmware that interleaves memory.
    let together = random.chance(5);
    let nodes = if together { packages.div_ceil(2) } else { packages * *random.pick(&[1, 1, 1, 2, 2, 3, 4]) };
    let nodes = nodes.min(nodes_at_most.max(packages));
    let caches = match random.within(0, 99) {
        0..8 => Caches::None,
        8..20 if !together => Caches::PerPackage,
        20..40 => Caches::PerNode(1),
        _ => Caches::PerNode(*random.pick(&[2, 2, 3, 4, 4, 8])),
    };
    let parts = match caches {
        Caches::PerNode(count) => nodes * count,
        Caches::PerPackage | Caches::None => nodes,
    };
    Shape {
        packages,
        nodes,
        caches,
        cores_per_cache: cores.div_ceil(parts).max(1),
        threads: *random.pick(&[1, 1, 2, 2, 2, 2, 4]),
        numbering: *random.pick(&[Numbering::SiblingsLast, Numbering::SiblingsAdjacent, Numbering::Alternating]),
    }
}

fn built(shape: &Shape) -> Machine {
    let &Shape { packages, nodes, caches, cores_per_cache, threads, numbering } = shape;
    let per_node = match caches {
        Caches::PerNode(count) => count * cores_per_cache,
        Caches::PerPackage | Caches::None => cores_per_cache,
    };
    let total = nodes * per_node;
    let core = |number: u32| {
        let (node, inside) = (number / per_node, number % per_node);
        let package = if nodes >= packages { node * packages / nodes } else { number * packages / total };
        let l3 = match caches {
            Caches::None => None,
            Caches::PerNode(count) => Some(node * count + inside / cores_per_cache),
            Caches::PerPackage => Some(package),
        };
        let place = match numbering {
            Numbering::SiblingsLast | Numbering::SiblingsAdjacent => number,
            Numbering::Alternating => inside * nodes + node,
        };
        let cpu = |thread: u32| match numbering {
            Numbering::SiblingsAdjacent => place * threads + thread,
            Numbering::SiblingsLast | Numbering::Alternating => thread * total + place,
        };
        Core { package, node, l3, kind: None, cpus: (0..threads).map(cpu).collect() }
    };
    Machine { cores: (0..total).map(core).collect() }
}

/// Switches some cores off, anywhere, a quarter of them at most.
fn lose_cores(machine: &mut Machine, random: &mut Random) {
    let most = (machine.cores.len() / 4).max(1) as u32;
    for _ in 0..random.within(1, most) {
        let victim = random.within(0, machine.cores.len() as u32 - 1);
        machine.cores.remove(victim as usize);
    }
}

/// Switches half of one cache's cores off, so that caches and nodes are unequal.
fn thin_one_cache(machine: &mut Machine, random: &mut Random) {
    let victim = machine.cores[random.within(0, machine.cores.len() as u32 - 1) as usize].clone();
    let mut others = 0;
    machine.cores.retain(|core| {
        others += u32::from((core.node, core.l3) == (victim.node, victim.l3));
        (core.node, core.l3) != (victim.node, victim.l3) || others % 2 == 1
    });
}

impl Machine {
    /// The inventory that an agent would report of this machine.
    pub fn hardware(&self) -> Hardware {
        let grouped = |key: fn(&Core) -> Option<u32>| {
            let mut groups: BTreeMap<u32, CpuSet> = BTreeMap::new();
            for core in &self.cores {
                if let Some(group) = key(core) {
                    core.cpus.iter().for_each(|cpu| groups.entry(group).or_default().insert(*cpu));
                }
            }
            groups
        };
        let nodes = grouped(|core| Some(core.node));
        let node = |(id, cpus): (&u32, &CpuSet)| NumaNode {
            id: *id,
            cpus: cpus.clone(),
            memory: Bytes::new(16 << 30),
            distances: nodes.keys().map(|other| self.distance(*id, *other)).collect(),
        };
        let cores: Vec<CpuSet> = self.cores.iter().map(|core| core.cpus.iter().copied().collect()).collect();
        let group = |kind: CoreKind| {
            let of_kind = self.cores.iter().filter(|core| core.kind == Some(kind));
            CoreGroup { core_type: kind, cpus: of_kind.flat_map(|core| core.cpus.iter().copied()).collect() }
        };
        let core_types = [CoreKind::Performance, CoreKind::Efficiency].map(group);
        Hardware {
            cpus: CpuInventory { online: self.cpus(), ..CpuInventory::default() },
            packages: grouped(|core| Some(core.package)).into_iter().map(|(id, cpus)| Package { id, cpus }).collect(),
            numa_nodes: nodes.iter().map(node).collect(),
            l3: grouped(|core| core.l3).into_values().collect(),
            cores: cores.into_iter().filter(|core| core.len() > 1).collect(),
            core_types: core_types.into_iter().filter(|group| !group.cpus.is_empty()).collect(),
            ..Hardware::default()
        }
    }

    /// All its CPUs.
    pub fn cpus(&self) -> CpuSet {
        self.cores.iter().flat_map(|core| core.cpus.iter().copied()).collect()
    }

    /// The cores of each kind, as machines; the whole one where there is but one kind.
    pub fn kinds(&self) -> Vec<Self> {
        let mut kinds: BTreeMap<Option<CoreKind>, Self> = BTreeMap::new();
        for core in &self.cores {
            kinds.entry(core.kind).or_default().cores.push(core.clone());
        }
        kinds.into_values().collect()
    }

    /// Threads per core, the same for all cores.
    pub fn threads(&self) -> u32 {
        self.cores.first().map_or(1, |core| core.cpus.len() as u32)
    }

    fn distance(&self, one: u32, other: u32) -> u32 {
        let package = |node| self.cores.iter().find(|core| core.node == node).map(|core| core.package);
        match (one == other, package(one) == package(other)) {
            (true, _) => 10,
            (false, true) => 12,
            (false, false) => 32,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn many() -> impl Iterator<Item = Machine> {
        (0..2000).map(|seed| machine(&mut Random::new(seed)))
    }

    #[test]
    fn no_machine_is_more_than_the_kubelet_accepts() {
        for machine in many() {
            let nodes: BTreeSet<u32> = machine.cores.iter().map(|core| core.node).collect();
            assert!(nodes.len() as u32 <= MOST_NODES, "{machine:?}");
            assert!(machine.cores.iter().all(|core| core.cpus.len() as u32 == machine.threads()), "{machine:?}");
            let threads: usize = machine.cores.iter().map(|core| core.cpus.len()).sum();
            assert_eq!(machine.cpus().len(), threads, "a CPU is in two cores: {machine:?}");
        }
    }

    #[test]
    fn a_hybrid_machine_has_both_kinds_in_one_cache_or_each_in_its_own() {
        let hybrids = || (0..200).map(|seed| hybrid(machine(&mut Random::new(seed)), &mut Random::new(seed)));
        let kinds_per_cache = |machine: &Machine| {
            let mut kinds: BTreeMap<Option<u32>, BTreeSet<Option<CoreKind>>> = BTreeMap::new();
            for core in &machine.cores {
                kinds.entry(core.l3).or_default().insert(core.kind);
            }
            kinds.into_values().map(|kinds| kinds.len()).max()
        };
        assert!(hybrids().any(|machine| machine.kinds().len() == 2 && kinds_per_cache(&machine) == Some(1)));
        assert!(hybrids().any(|machine| kinds_per_cache(&machine) == Some(2)));
        assert!(hybrids().all(|machine| machine.hardware().core_types.len() == machine.kinds().len()));
    }

    #[test]
    fn the_odd_shapes_occur() {
        let occurs = |wanted: fn(&Machine) -> bool| many().any(|machine| wanted(&machine));
        let spans = |machine: &Machine, key: fn(&Core) -> Option<u32>, parts: fn(&Core) -> u32| {
            let pairs: BTreeSet<(u32, u32)> =
                machine.cores.iter().filter_map(|core| Some((key(core)?, parts(core)))).collect();
            let keys: BTreeSet<u32> = pairs.iter().map(|(key, _)| *key).collect();
            pairs.len() > keys.len()
        };
        assert!(occurs(|machine| machine.cores.iter().all(|core| core.l3.is_none())));
        assert!(many().any(|machine| spans(&machine, |core| core.l3, |core| core.node)), "an L3 over several nodes");
        assert!(many().any(|machine| spans(&machine, |core| Some(core.node), |core| core.package)), "two sockets");
        assert!(occurs(|machine| machine.cores.len() >= 200));
        assert!(occurs(|machine| machine.threads() == 4));
        assert!(occurs(|machine| machine.hardware().l3.iter().map(CpuSet::len).collect::<BTreeSet<_>>().len() > 1));
    }
}
