//! A machine as placement sees it: online cores, each in one domain of every kind, and how far nodes are apart. Domains
//! are sets of CPUs, never a uniform tree; numbers stand in arrays, so that the search need not touch sets.

use lamina_crds::hardware::CoreKind;
use lamina_crds::wishes::Domain;
use lamina_crds::{Bytes, CpuSet, Hardware, NodeSet};

/// How many kinds of domain there are.
pub const KINDS: usize = 3;
/// What stands for "none" where a number is expected.
const NONE: u16 = u16::MAX;

/// The place of a kind of domain in arrays.
pub fn slot(domain: Domain) -> usize {
    match domain {
        Domain::Package => 0,
        Domain::Node => 1,
        Domain::L3 => 2,
    }
}

/// The online cores of one host, in order of their first CPU.
pub struct Machine<'a> {
    /// What it was made from.
    pub hardware: &'a Hardware,
    /// The cores.
    pub cores: Vec<Core>,
    /// How many domains of each kind there are; the last of each holds the cores that lie in none.
    pub domains: [usize; KINDS],
    threads: Vec<u32>,
    core_of: Vec<u16>,
    nodes: Vec<Node>,
    distances: Vec<u32>,
}

/// One physical core with at least one online thread.
#[derive(Clone, Copy, Debug)]
pub struct Core {
    /// Its domain of each kind, see [`slot`].
    pub domains: [u16; KINDS],
    /// Its kind, on a machine that mixes them.
    pub kind: Option<CoreKind>,
    start: u32,
    length: u32,
}

struct Node {
    id: u32,
    has_memory: bool,
}

impl<'a> Machine<'a> {
    /// Reads an inventory, whatever the order of its lists.
    pub fn of(hardware: &'a Hardware) -> Self {
        let online = &hardware.cpus.online;
        let width = online.iter().last().map_or(0, |last| last as usize + 1);
        let mut nodes: Vec<usize> = (0..hardware.numa_nodes.len()).collect();
        nodes.sort_by_key(|index| hardware.numa_nodes[*index].id);
        let mut packages: Vec<_> = hardware.packages.iter().collect();
        packages.sort_by_key(|package| package.id);
        let mut caches: Vec<&CpuSet> = hardware.l3.iter().collect();
        caches.sort_by_key(|cache| cache.first());
        let of_cpu = [
            numbered(width, packages.iter().map(|package| &package.cpus)),
            numbered(width, nodes.iter().map(|index| &hardware.numa_nodes[*index].cpus)),
            numbered(width, caches.iter().copied()),
        ];
        let kinds = numbered(width, hardware.core_types.iter().map(|group| &group.cpus));
        let domains = [packages.len() + 1, nodes.len() + 1, caches.len() + 1];
        let (threads, spans) = spans(hardware, width);
        let core = |(start, length): (u32, u32)| {
            let first = threads[start as usize] as usize;
            let domain = |slot: usize| of_cpu[slot][first].min(domains[slot] as u16 - 1);
            let kind = hardware.core_types.get(kinds[first] as usize).map(|group| group.core_type);
            Core { domains: [domain(0), domain(1), domain(2)], kind, start, length }
        };
        let cores: Vec<Core> = spans.into_iter().map(core).collect();
        let mut core_of = vec![NONE; width];
        for (index, core) in cores.iter().enumerate() {
            let range = core.start as usize..(core.start + core.length) as usize;
            threads[range].iter().for_each(|cpu| core_of[*cpu as usize] = index as u16);
        }
        let distances = distances(hardware, &nodes);
        let node = |index: &usize| {
            let node = &hardware.numa_nodes[*index];
            Node { id: node.id, has_memory: node.memory > Bytes::new(0) }
        };
        let nodes = nodes.iter().map(node).collect();
        Self { hardware, cores, domains, threads, core_of, nodes, distances }
    }

    /// The online CPUs of a core, lowest first.
    pub fn threads(&self, core: usize) -> &[u32] {
        let Core { start, length, .. } = self.cores[core];
        &self.threads[start as usize..(start + length) as usize]
    }

    /// The core of a CPU, if it is online.
    pub fn core_of(&self, cpu: u32) -> Option<usize> {
        self.core_of.get(cpu as usize).filter(|core| **core != NONE).map(|core| *core as usize)
    }

    /// The cores that have a CPU in the set, in order.
    pub fn cores_touching(&self, cpus: &CpuSet) -> Vec<usize> {
        sorted(cpus.iter().filter_map(|cpu| self.core_of(cpu)))
    }

    /// The domains of one kind in which these CPUs lie, in order.
    pub fn domains_of(&self, slot: usize, cpus: &CpuSet) -> Vec<u16> {
        sorted(cpus.iter().filter_map(|cpu| Some(self.cores[self.core_of(cpu)?].domains[slot])))
    }

    /// How far two nodes, by index, are apart, in the units of ACPI's table (10 is local); unknown is farthest.
    pub fn distance(&self, from: u16, to: u16) -> u32 {
        self.distances[from as usize * self.domains[slot(Domain::Node)] + to as usize]
    }

    /// The number the kernel gives a node; none for the cores that lie in no online node.
    pub fn node_id(&self, index: u16) -> Option<u32> {
        self.nodes.get(index as usize).map(|node| node.id)
    }

    /// The index of a node, by the number the kernel gives it.
    pub fn node_index(&self, id: u32) -> Option<u16> {
        self.nodes.binary_search_by_key(&id, |node| node.id).ok().map(|index| index as u16)
    }

    /// The kernel's numbers of these nodes.
    pub fn node_ids(&self, indices: impl IntoIterator<Item = u16>) -> NodeSet {
        indices.into_iter().filter_map(|index| self.node_id(index)).collect()
    }

    /// Whether there is no choice of nodes on this host.
    pub fn is_single_node(&self) -> bool {
        let beside = |core: &Core| core.domains[slot(Domain::Node)] as usize == self.nodes.len();
        self.nodes.len() <= 1 && (self.nodes.is_empty() || !self.cores.iter().any(beside))
    }

    /// The nodes that have memory, by index.
    pub fn memory_nodes(&self) -> impl Iterator<Item = u16> + '_ {
        self.nodes.iter().enumerate().filter(|(_, node)| node.has_memory).map(|(index, _)| index as u16)
    }
}

/// Each number once, in order. Mostly the same ones follow each other.
fn sorted<T: Ord>(numbers: impl Iterator<Item = T>) -> Vec<T> {
    let mut sorted = Vec::new();
    for number in numbers {
        if sorted.last() != Some(&number) {
            sorted.push(number);
        }
    }
    sorted.sort_unstable();
    sorted.dedup();
    sorted
}

/// The index of the set in which each CPU lies first; [`NONE`] in none.
fn numbered<'a>(width: usize, sets: impl Iterator<Item = &'a CpuSet>) -> Vec<u16> {
    let mut of_cpu = vec![NONE; width];
    for (index, set) in sets.enumerate() {
        for cpu in set.iter().filter(|cpu| (*cpu as usize) < width) {
            let entry = &mut of_cpu[cpu as usize];
            *entry = (*entry).min(index as u16);
        }
    }
    of_cpu
}

/// The online CPUs core by core, and where each core's begin and how many they are; cores in order of their first CPU.
fn spans(hardware: &Hardware, width: usize) -> (Vec<u32>, Vec<(u32, u32)>) {
    let online = &hardware.cpus.online;
    let mut siblings: Vec<u16> = vec![NONE; width];
    for (index, core) in hardware.cores.iter().enumerate() {
        for cpu in core.iter().filter(|cpu| (*cpu as usize) < width) {
            siblings[cpu as usize] = index as u16;
        }
    }
    let mut is_taken = vec![false; hardware.cores.len()];
    let mut threads = Vec::with_capacity(width);
    let mut spans = Vec::with_capacity(width);
    for cpu in online.iter() {
        let start = threads.len() as u32;
        match siblings[cpu as usize] {
            NONE => threads.push(cpu),
            core if is_taken[core as usize] => continue,
            core => {
                is_taken[core as usize] = true;
                let own = |sibling: &u32| online.contains(*sibling) && siblings[*sibling as usize] == core;
                threads.extend(hardware.cores[core as usize].iter().filter(own));
            }
        }
        spans.push((start, threads.len() as u32 - start));
    }
    (threads, spans)
}

/// The most that ACPI's table of distances can say (one byte), and what is taken for unknown.
const FARTHEST: u32 = u8::MAX as u32;

/// The table of distances between nodes in order of number, with one more for cores in no node. An inventory comes from a
/// host: what no firmware can say must not make sums overflow.
fn distances(hardware: &Hardware, order: &[usize]) -> Vec<u32> {
    let size = order.len() + 1;
    let mut table = vec![FARTHEST; size * size];
    for from in 0..size {
        table[from * size + from] = 10;
        for to in 0..size {
            let known = order.get(from).zip(order.get(to));
            let known = known.and_then(|(from, to)| hardware.numa_nodes[*from].distances.get(*to));
            table[from * size + to] = known.map_or(table[from * size + to], |known| FARTHEST.min(*known));
        }
    }
    table
}
