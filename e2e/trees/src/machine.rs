//! What a machine is: every CPU with its place, every node with its memory, and what the kernel tells of them.

use crate::sets::Ids;

/// A machine with everything that matters to where a thread runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// Every CPU that is plugged in, in order of number.
    pub cpus: Vec<Cpu>,
    /// Every node that the firmware knows, in order of number.
    pub nodes: Vec<Node>,
    /// What the kernel keeps out of scheduling (`isolcpus=`).
    pub isolated: Ids,
    /// What the topmost cgroup leaves of the CPUs, if it limits them.
    pub allowed_cpus: Option<Ids>,
    /// What the topmost cgroup leaves of the nodes, if it limits them.
    pub allowed_nodes: Option<Ids>,
    /// How it tells that its cores differ.
    pub kinds_told: KindsTold,
    /// Whether the kernel knows of nodes at all.
    pub has_nodes: bool,
    /// Whether the nodes tell how far they are apart.
    pub has_distances: bool,
    /// Which names the kernel has for its files.
    pub kernel: Kernel,
    /// Network and block devices.
    pub devices: Vec<Device>,
    /// The CPU manager of the kubelet that runs on it.
    pub kubelet: Option<Kubelet>,
}

/// One logical CPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cpu {
    /// The kernel's number.
    pub id: u32,
    /// Whether it runs.
    pub is_online: bool,
    /// Its socket; `None` where the firmware does not say.
    pub package: Option<u32>,
    /// Its core, numbered over the whole machine.
    pub core: u32,
    /// Its level-2 cache, numbered over the whole machine.
    pub level_2: u32,
    /// Its level-3 cache, numbered over the whole machine; `None` if it has none.
    pub level_3: Option<u32>,
    /// Its node.
    pub node: u32,
    /// What it can do beside the fastest, in 1024ths.
    pub capacity: u32,
}

/// One NUMA node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// The kernel's number.
    pub id: u32,
    /// Whether the kernel uses it.
    pub is_online: bool,
    /// Its memory in KiB.
    pub kibibytes: u64,
    /// The socket it belongs to.
    pub package: u32,
}

/// How a machine tells that its cores differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KindsTold {
    /// It does not.
    Nowhere,
    /// By `cpu_capacity`, as ARM does.
    Capacity,
    /// By event sources, as Intel does.
    EventSources,
    /// By highest frequency alone, as AMD does.
    Frequency,
}

/// Which names a kernel has for the files of cores and packages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kernel {
    /// Before 5.3: siblings only.
    Old,
    /// Both.
    New,
}

/// A device with a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// The kernel's name.
    pub name: String,
    /// Its address on the PCI bus.
    pub pci: String,
    /// Its node; `None` where the firmware says -1.
    pub node: Option<u32>,
    /// What it is.
    pub class: Class,
}

/// What a device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// A network interface.
    Net,
    /// An NVMe name space.
    Nvme,
}

/// The CPU manager of a kubelet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kubelet {
    /// Its policy.
    pub policy: String,
    /// What it leaves to the system.
    pub reserved: Ids,
}

/// A regular machine: how many cores each level-3 cache of each node of each package has, and how they are numbered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Packages, their nodes, these nodes' level-3 caches, each as a number of cores.
    pub packages: Vec<Vec<Vec<u32>>>,
    /// Threads of a core.
    pub threads: u32,
    /// How CPUs are numbered.
    pub numbering: Numbering,
    /// Memory of a node in MiB.
    pub mebibytes: u64,
}

/// How the firmware numbers CPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Numbering {
    /// The first threads of all cores, then the second ones: siblings are i and i + n.
    Halves,
    /// Siblings stand side by side.
    Adjacent,
    /// As halves, with the cores dealt to the packages in turn.
    Alternating,
}

impl Shape {
    /// As many packages, nodes in each, level-3 caches in each and cores in each, with so many threads.
    pub fn even(packages: usize, nodes: usize, caches: usize, cores: u32, threads: u32) -> Self {
        Self {
            packages: vec![vec![vec![cores; caches]; nodes]; packages],
            threads,
            numbering: Numbering::Halves,
            mebibytes: 16 << 10,
        }
    }

    /// The same with other numbers.
    pub fn numbered(self, numbering: Numbering) -> Self {
        Self { numbering, ..self }
    }

    /// The machine.
    pub fn machine(&self) -> Machine {
        let cores = self.cores();
        let count = cores.len() as u32;
        let mut cpus = Vec::new();
        for (number, (index, core)) in (0..).zip(self.order(&cores)) {
            for thread in 0..self.threads {
                let id = match self.numbering {
                    Numbering::Halves | Numbering::Alternating => thread * count + number,
                    Numbering::Adjacent => number * self.threads + thread,
                };
                cpus.push(core.cpu(id, index));
            }
        }
        cpus.sort_by_key(|cpu| cpu.id);
        Machine::of(cpus, self.nodes())
    }

    fn cores(&self) -> Vec<Core> {
        let mut cores = Vec::new();
        let (mut node, mut cache) = (0, 0);
        for (package, nodes) in (0..).zip(&self.packages) {
            for caches in nodes {
                for count in caches {
                    cores.extend((0..*count).map(|_| Core { package, node, cache }));
                    cache += 1;
                }
                node += 1;
            }
        }
        cores
    }

    /// The cores as the firmware counts them, each with its number.
    fn order(&self, cores: &[Core]) -> Vec<(u32, Core)> {
        let mut numbered: Vec<(u32, Core)> = (0..).zip(cores.iter().copied()).collect();
        if self.numbering == Numbering::Alternating {
            let turn = |index: usize| {
                let package = cores[index].package;
                (cores[..index].iter().filter(|core| core.package == package).count(), package)
            };
            numbered.sort_by_key(|(index, _)| turn(*index as usize));
        }
        numbered
    }

    fn nodes(&self) -> Vec<Node> {
        let packages = (0..).zip(&self.packages).flat_map(|(package, nodes)| nodes.iter().map(move |_| package));
        let node = |(id, package)| Node { id, is_online: true, kibibytes: self.mebibytes << 10, package };
        (0..).zip(packages).map(node).collect()
    }
}

/// The place of one core.
#[derive(Clone, Copy)]
struct Core {
    package: u32,
    node: u32,
    cache: u32,
}

impl Core {
    fn cpu(self, id: u32, core: u32) -> Cpu {
        let Self { package, node, cache } = self;
        let (package, level_3) = (Some(package), Some(cache));
        Cpu { id, is_online: true, package, core, level_2: core, level_3, node, capacity: 1024 }
    }
}

impl Machine {
    /// A machine of these parts that tells everything and limits nothing.
    pub fn of(cpus: Vec<Cpu>, nodes: Vec<Node>) -> Self {
        Self {
            cpus,
            nodes,
            isolated: Ids::new(),
            allowed_cpus: None,
            allowed_nodes: None,
            kinds_told: KindsTold::Nowhere,
            has_nodes: true,
            has_distances: true,
            kernel: Kernel::New,
            devices: Vec::new(),
            kubelet: None,
        }
    }

    /// The CPUs that are plugged in.
    pub fn present(&self) -> Ids {
        self.cpus.iter().map(|cpu| cpu.id).collect()
    }

    /// The CPUs that run.
    pub fn online(&self) -> Ids {
        self.online_where(|_| true)
    }

    /// The CPUs that run and are allowed.
    pub fn usable(&self) -> Ids {
        self.online_where(|cpu| self.allowed_cpus.as_ref().is_none_or(|allowed| allowed.contains(&cpu.id)))
    }

    /// The CPUs that run and are of a kind.
    pub fn online_where(&self, is_wanted: impl Fn(&Cpu) -> bool) -> Ids {
        self.cpus.iter().filter(|cpu| cpu.is_online && is_wanted(cpu)).map(|cpu| cpu.id).collect()
    }

    /// The usable CPUs of every group of CPUs that have the same key, in order of their first CPU.
    pub fn groups<Key: PartialEq>(&self, key: impl Fn(&Cpu) -> Option<Key>) -> Vec<Ids> {
        let usable = self.usable();
        let mut groups: Vec<(Key, Ids)> = Vec::new();
        for cpu in self.cpus.iter().filter(|cpu| usable.contains(&cpu.id)) {
            let Some(key) = key(cpu) else { continue };
            match groups.iter_mut().find(|(other, _)| *other == key) {
                Some((_, ids)) => drop(ids.insert(cpu.id)),
                None => groups.push((key, Ids::from([cpu.id]))),
            }
        }
        groups.into_iter().map(|(_, ids)| ids).collect()
    }

    /// The nodes that the kernel uses.
    pub fn online_nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(|node| node.is_online)
    }

    /// How far one node is from another, as a firmware would tell.
    pub fn distance(&self, from: &Node, to: &Node) -> u32 {
        match (from.id == to.id, from.package == to.package) {
            (true, _) => 10,
            (false, true) => 12,
            (false, false) => 32,
        }
    }

    /// Switches CPUs off.
    pub fn switch_off(&mut self, ids: impl IntoIterator<Item = u32>) {
        let ids: Ids = ids.into_iter().collect();
        self.cpus.iter_mut().filter(|cpu| ids.contains(&cpu.id)).for_each(|cpu| cpu.is_online = false);
    }

    /// Gives every CPU another number. The order must stay the same.
    pub fn renumber(&mut self, number: impl Fn(u32) -> u32) {
        self.cpus.iter_mut().for_each(|cpu| cpu.id = number(cpu.id));
    }
}
