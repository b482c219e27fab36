//! Decides what is in a drawing of a machine: which CPU stands in which core, cache and node, and what it is used for.

use lamina_crds::hardware::{CoreKind, NumaNode};
use lamina_crds::{CpuSet, Hardware, NodeSet};

use super::layout::Block;
use super::marks::marks;

/// What is drawn.
#[derive(Clone, Debug)]
pub struct Subject<'a> {
    /// The machine's name, or nothing.
    pub name: String,
    /// The machine.
    pub hardware: &'a Hardware,
    /// The slices on it, in the order of the legend.
    pub slices: Vec<DrawnSlice>,
    /// CPUs that no slice may take.
    pub housekeeping: CpuSet,
}

/// One slice of a drawing.
#[derive(Clone, Debug)]
pub struct DrawnSlice {
    /// Its name.
    pub name: String,
    /// Its CPUs, online or not.
    pub cpus: CpuSet,
    /// Its memory nodes, where they are chosen.
    pub memory_nodes: Option<NodeSet>,
}

/// A drawing before it has a size.
#[derive(Clone, Debug)]
pub struct Scene {
    /// The machine's name, or nothing.
    pub name: String,
    /// What the machine has, in one line.
    pub summary: String,
    /// One frame for each NUMA node of each package.
    pub frames: Vec<Frame>,
    /// CPUs that are switched off; nobody knows their core.
    pub offline: Vec<Thread>,
    /// What the marks mean.
    pub legend: Vec<Meaning>,
    /// The marks of slices.
    pub marks: Vec<String>,
}

/// A NUMA node, or the CPUs of a package that lie in none.
#[derive(Clone, Debug)]
pub struct Frame {
    /// What it is.
    pub title: String,
    /// Its caches.
    pub tiles: Vec<Tile>,
}

/// The cores of one kind below one cache.
#[derive(Clone, Debug)]
pub struct Tile {
    /// What it is.
    pub title: String,
    /// All its CPUs.
    pub cpus: CpuSet,
    /// Its cores, each with its online threads.
    pub cores: Vec<Vec<Thread>>,
}

/// One logical CPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Thread {
    /// Its number.
    pub cpu: u32,
    /// What it is used for.
    pub role: Role,
}

/// What a CPU is used for. Slices are numbers into the list of slices.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// These slices run on it.
    Slices(Vec<usize>),
    /// Nobody runs on it, and this slice runs on another thread of its core.
    Idle(usize),
    /// No slice may take it.
    Housekeeping,
    /// The kernel keeps it out of scheduling.
    Isolated,
    /// The kubelet gives it to pods.
    Pods,
    /// Nobody asked for it.
    Free,
    /// It is switched off; these slices would run on it.
    Offline(Vec<usize>),
}

/// One line of the legend.
#[derive(Clone, Debug)]
pub struct Meaning {
    /// What is explained.
    pub role: Role,
    /// The name of the slice, or what the role is called.
    pub name: String,
    /// How many cores have such a CPU.
    pub cores: usize,
    /// All such CPUs.
    pub cpus: CpuSet,
    /// The NUMA nodes of the CPUs of a slice and where its memory is.
    pub note: String,
}

impl Tile {
    /// The most threads of a core of this tile.
    pub fn threads(&self) -> usize {
        self.cores.iter().map(Vec::len).max().unwrap_or(1)
    }
}

impl Scene {
    /// Looks at a machine.
    pub fn of(subject: &Subject) -> Self {
        let Subject { name, hardware, slices, housekeeping: _ } = subject;
        let names: Vec<&str> = slices.iter().map(|slice| slice.name.as_str()).collect();
        let usage = Usage::of(subject);
        Self {
            name: name.clone(),
            summary: summary(hardware),
            frames: frames(hardware, &usage),
            offline: hardware.cpus.offline.iter().map(|cpu| Thread { cpu, role: usage.role(cpu) }).collect(),
            legend: legend(subject, &usage),
            marks: marks(&names),
        }
    }

    /// The mark of a role: letters and signs that can be told apart without colour.
    pub fn mark(&self, role: &Role) -> String {
        match role {
            Role::Slices(slices) | Role::Offline(slices) => match slices.as_slice() {
                [] => "×".to_owned(),
                [only] => self.marks[*only].clone(),
                [first, second] => format!("{}{}", self.marks[*first], self.marks[*second]),
                [first, ..] => format!("{}+", self.marks[*first]),
            },
            Role::Idle(slice) => match self.marks[*slice].to_ascii_lowercase() {
                mark if mark == self.marks[*slice] => "°".to_owned(),
                mark => mark,
            },
            Role::Housekeeping => "#".to_owned(),
            Role::Isolated => "~".to_owned(),
            Role::Pods => "%".to_owned(),
            Role::Free => "·".to_owned(),
        }
    }

    /// The most characters of a mark in this drawing.
    pub fn mark_width(&self) -> usize {
        let roles = self.threads().map(|thread| &thread.role);
        roles.map(|role| self.mark(role).chars().count()).max().unwrap_or(1)
    }

    /// The most digits of a CPU number in this drawing.
    pub fn digits(&self) -> usize {
        self.threads().map(|thread| thread.cpu).max().unwrap_or_default().to_string().len()
    }

    /// What stands in each tile of each frame, as `block` measures it.
    pub fn shape(&self, block: impl Fn(&Tile) -> Block) -> Vec<Vec<Block>> {
        self.frames.iter().map(|frame| frame.tiles.iter().map(&block).collect()).collect()
    }

    fn threads(&self) -> impl Iterator<Item = &Thread> {
        let tiles = self.frames.iter().flat_map(|frame| &frame.tiles);
        tiles.flat_map(|tile| tile.cores.iter().flatten()).chain(&self.offline)
    }
}

/// What every CPU is used for.
struct Usage {
    slices: Vec<CpuSet>,
    cores: Vec<CpuSet>,
    housekeeping: CpuSet,
    isolated: CpuSet,
    pods: CpuSet,
    offline: CpuSet,
}

impl Usage {
    fn of(subject: &Subject) -> Self {
        let Subject { name: _, hardware, slices, housekeeping } = subject;
        let fixed = hardware.kubelet.as_ref().filter(|kubelet| kubelet.cpu_manager_policy == "static");
        Self {
            slices: slices.iter().map(|slice| slice.cpus.clone()).collect(),
            cores: hardware.online_cores(),
            housekeeping: housekeeping.clone(),
            isolated: hardware.cpus.isolated.clone(),
            pods: fixed.map(|kubelet| hardware.cpus.online.difference(&kubelet.reserved_cpus)).unwrap_or_default(),
            offline: hardware.cpus.offline.clone(),
        }
    }

    fn role(&self, cpu: u32) -> Role {
        let slices: Vec<usize> =
            self.slices.iter().enumerate().filter(|(_, cpus)| cpus.contains(cpu)).map(|(index, _)| index).collect();
        if self.offline.contains(cpu) {
            return Role::Offline(slices);
        }
        if !slices.is_empty() {
            return Role::Slices(slices);
        }
        let core = self.cores.iter().find(|core| core.contains(cpu));
        let beside = |core: &CpuSet| self.slices.iter().position(|cpus| !cpus.is_disjoint(core));
        match core.and_then(beside) {
            _ if self.housekeeping.contains(cpu) => Role::Housekeeping,
            Some(slice) => Role::Idle(slice),
            None if self.isolated.contains(cpu) => Role::Isolated,
            None if self.pods.contains(cpu) => Role::Pods,
            None => Role::Free,
        }
    }
}

/// "2 packages · 2 NUMA nodes · 24 L3 caches · 192 cores · 384 CPUs".
pub fn summary(hardware: &Hardware) -> String {
    let parts = [
        (hardware.packages.len(), "package", "packages"),
        (hardware.numa_nodes.len(), "NUMA node", "NUMA nodes"),
        (hardware.l3.len(), "L3 cache", "L3 caches"),
        (hardware.online_cores().len(), "core", "cores"),
        (hardware.cpus.online.len(), "CPU", "CPUs"),
    ];
    let named = parts.into_iter().filter(|(count, _, _)| *count > 0);
    let mut words: Vec<String> = named.map(|(count, one, several)| counted(count, one, several)).collect();
    if !hardware.cpus.offline.is_empty() {
        words.push(format!("{} offline", hardware.cpus.offline.len()));
    }
    words.join(" · ")
}

/// A number with its word.
pub fn counted(count: usize, one: &str, several: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { several })
}

fn frames(hardware: &Hardware, usage: &Usage) -> Vec<Frame> {
    let mut frames: Vec<Frame> = Vec::new();
    let packaged = hardware.packages.iter().fold(CpuSet::new(), |all, package| all.union(&package.cpus));
    let bare = hardware.cpus.online.difference(&packaged);
    let mut packages: Vec<(String, CpuSet)> =
        hardware.packages.iter().map(|package| (format!("package {}", package.id), package.cpus.clone())).collect();
    if !bare.is_empty() {
        packages.push((String::new(), bare));
    }
    for (package, cpus) in &packages {
        let mut rest = cpus.intersection(&hardware.cpus.online);
        for node in &hardware.numa_nodes {
            let here = node.cpus.intersection(&rest);
            if !here.is_empty() {
                rest = rest.difference(&here);
                frames.push(frame(hardware, usage, package, &node_title(node), &here));
            }
        }
        if !rest.is_empty() {
            let title = if hardware.numa_nodes.is_empty() { "" } else { "in no NUMA node" };
            frames.push(frame(hardware, usage, package, title, &rest));
        }
    }
    let empty = hardware.numa_nodes.iter().filter(|node| node.cpus.is_empty());
    frames.extend(empty.map(|node| Frame { title: format!("{} · no CPUs", node_title(node)), tiles: Vec::new() }));
    frames
}

fn node_title(node: &NumaNode) -> String {
    match node.memory.get() {
        0 => format!("node {} · no memory", node.id),
        _ => format!("node {} · {}", node.id, amount(node.memory.get())),
    }
}

/// An amount of memory for people: at most four digits and a unit; what Linux reports is rarely round.
pub fn amount(bytes: u64) -> String {
    let units = [("TiB", 1u64 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    let Some((name, unit)) = units.into_iter().find(|(_, unit)| bytes >= *unit) else { return format!("{bytes} B") };
    let tenths = (u128::from(bytes) * 10 + u128::from(unit) / 2) / u128::from(unit);
    if tenths >= 1000 || tenths.is_multiple_of(10) {
        return format!("{} {name}", (tenths + 5) / 10);
    }
    format!("{}.{} {name}", tenths / 10, tenths % 10)
}

fn frame(hardware: &Hardware, usage: &Usage, package: &str, title: &str, cpus: &CpuSet) -> Frame {
    let parts: Vec<&str> = [package, title].into_iter().filter(|part| !part.is_empty()).collect();
    let mut rest = cpus.clone();
    let mut tiles = Vec::new();
    for (index, cache) in hardware.l3.iter().enumerate() {
        let here = cache.intersection(&rest);
        rest = rest.difference(&here);
        let whole = cache.is_subset(cpus);
        tiles.extend(kinds(hardware, usage, &format!("L3 {index}{}", if whole { "" } else { " (part)" }), &here));
    }
    let title = if hardware.l3.is_empty() { "cores" } else { "no L3" };
    tiles.extend(kinds(hardware, usage, title, &rest));
    Frame { title: parts.join(" · "), tiles }
}

/// One tile for each kind of core among these CPUs.
fn kinds(hardware: &Hardware, usage: &Usage, title: &str, cpus: &CpuSet) -> Vec<Tile> {
    let mut rest = cpus.clone();
    let mut tiles = Vec::new();
    for group in &hardware.core_types {
        let word = match group.core_type {
            CoreKind::Performance => "performance",
            CoreKind::Efficiency => "efficiency",
        };
        let here = group.cpus.intersection(&rest);
        rest = rest.difference(&here);
        tiles.extend(tile(usage, format!("{title} · {word}"), here));
    }
    tiles.extend(tile(usage, title.to_owned(), rest));
    tiles
}

fn tile(usage: &Usage, title: String, cpus: CpuSet) -> Option<Tile> {
    if cpus.is_empty() {
        return None;
    }
    let thread = |cpu: u32| Thread { cpu, role: usage.role(cpu) };
    let cores = usage.cores.iter().map(|core| core.intersection(&cpus)).filter(|core| !core.is_empty());
    let cores = cores.map(|core| core.iter().map(thread).collect()).collect();
    Some(Tile { title, cpus, cores })
}

fn legend(subject: &Subject, usage: &Usage) -> Vec<Meaning> {
    let Subject { name: _, hardware, slices, housekeeping: _ } = subject;
    let cores_of = |cpus: &CpuSet| usage.cores.iter().filter(|core| !core.is_disjoint(cpus)).count();
    let meaning = |role: Role, name: &str, cpus: CpuSet, note: String| Meaning {
        cores: cores_of(&cpus),
        role,
        name: name.to_owned(),
        cpus,
        note,
    };
    let mut meanings: Vec<Meaning> = Vec::new();
    for (index, slice) in slices.iter().enumerate() {
        let DrawnSlice { name, cpus, memory_nodes: _ } = slice;
        meanings.push(meaning(Role::Slices(vec![index]), name, cpus.clone(), note(hardware, slices, index)));
    }
    let roles: Vec<(u32, Role)> = hardware.present_cpus().iter().map(|cpu| (cpu, usage.role(cpu))).collect();
    let such = |wanted: fn(&Role) -> bool| -> CpuSet {
        roles.iter().filter(|(_, role)| wanted(role)).map(|(cpu, _)| *cpu).collect()
    };
    let idle = such(|role| matches!(role, Role::Idle(_)));
    let first_idle = roles.iter().map(|(_, role)| role).find(|role| matches!(role, Role::Idle(_)));
    let named = [
        (first_idle.cloned().unwrap_or(Role::Idle(0)), "idle sibling", idle),
        (Role::Housekeeping, "housekeeping", such(|role| *role == Role::Housekeeping)),
        (Role::Isolated, "isolated", such(|role| *role == Role::Isolated)),
        (Role::Pods, "pods", such(|role| *role == Role::Pods)),
        (Role::Free, "free", such(|role| *role == Role::Free)),
        (Role::Offline(Vec::new()), "offline", such(|role| matches!(role, Role::Offline(_)))),
    ];
    let present = named.into_iter().filter(|(_, _, cpus)| !cpus.is_empty());
    meanings.extend(present.map(|(role, name, cpus)| meaning(role, name, cpus, String::new())));
    meanings
}

/// Where a slice and its memory are, and whose CPUs it shares.
fn note(hardware: &Hardware, slices: &[DrawnSlice], own: usize) -> String {
    let DrawnSlice { name: _, cpus, memory_nodes } = &slices[own];
    let mut parts = Vec::new();
    if hardware.numa_nodes.len() > 1 {
        let nodes = hardware.nodes_of(cpus);
        parts.push(if nodes.is_empty() { "no node".to_owned() } else { format!("node {nodes}") });
        if let Some(memory) = memory_nodes.as_ref().filter(|memory| **memory != nodes) {
            parts.push(format!("memory {memory}"));
        }
    }
    let host = |(index, other): &(usize, &DrawnSlice)| {
        let inside = !cpus.is_empty() && cpus.is_subset(&other.cpus);
        *index != own && inside && (*cpus != other.cpus || *index < own)
    };
    parts.extend(slices.iter().enumerate().find(host).map(|(_, other)| format!("inside {}", other.name)));
    parts.join(", ")
}
