//! Poses the question to the search: which cores are to be had, grouped into cells, and what each slice may have of them.

use std::collections::BTreeMap;

use lamina_crds::hardware::{CoreKind, Device};
use lamina_crds::slice_topology::Isolation;
use lamina_crds::wishes::{AlignPolicy, CoreType, Domain, WishPolicy};
use lamina_crds::{CpuSet, UnitName};

use crate::placement::bound::{Rooms, fewest, sorted_rooms};
use crate::placement::demand::{Demand, Placement, Relation, Wanted};
use crate::placement::machine::{KINDS, Machine, slot};
use crate::placement::problem::{Cell, End, NODE, Pieces, Problem, Side, Task, Tie, Used};
use crate::placement::quantities::Quantities;
use crate::placement::state::State;

/// What one search decides about.
pub struct Board<'a> {
    /// The machine.
    pub machine: &'a Machine<'a>,
    /// The slices that want cores, in canonical order.
    pub demands: Vec<&'a Demand>,
    /// They and those whose place is settled: everybody whose wishes about others count.
    pub everyone: &'a [&'a Demand],
    /// The nodes that have allocatable CPUs, in order.
    pub allocatable_nodes: &'a [u16],
    /// The cores that are to be had.
    pub cells: Vec<Cell>,
    /// What each demand holds now.
    held: Vec<Option<&'a CpuSet>>,
    totals: [Vec<u32>; KINDS],
}

/// How a CPU stands before the search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Anyone may have it.
    Free,
    /// Only who holds it now may keep it.
    ForHolder,
    /// Nobody may have it.
    Taken,
}

/// What a problem is made of, beside the cells: which demand is which task.
pub struct Posed {
    /// The problem.
    pub problem: Problem,
    /// The demand of each task.
    pub demand_of: Vec<usize>,
    /// The priority of each class.
    pub priorities: Vec<i32>,
}

/// Places that are settled, by unit.
pub type Settled<'a> = BTreeMap<&'a UnitName, CpuSet>;

impl<'a> Board<'a> {
    /// Groups the cores that may be had. `standing` is by CPU.
    pub fn of(
        machine: &'a Machine<'a>,
        demands: Vec<&'a Demand>,
        everyone: &'a [&'a Demand],
        allocatable_nodes: &'a [u16],
        running: &'a Placement,
        standing: &[Standing],
    ) -> Self {
        let held = held_by(&demands, running);
        let by_threads = demands.iter().any(|demand| matches!(demand.cpus, Wanted::Cpus(_)));
        let totals = machine.domains.map(|count| vec![0; count]);
        let mut board = Self { machine, demands, everyone, allocatable_nodes, cells: Vec::new(), held, totals };
        let mut holder = vec![None; standing.len()];
        for (index, held) in board.held.iter().enumerate() {
            for cpu in held.iter().flat_map(|held| held.iter()) {
                if let Some(holder) = holder.get_mut(cpu as usize) {
                    holder.get_or_insert(index);
                }
            }
        }
        for core in 0..machine.cores.len() {
            let weight = if by_threads { machine.threads(core).len() as u32 } else { 1 };
            for slot in 0..KINDS {
                board.totals[slot][machine.cores[core].domains[slot] as usize] += weight;
            }
            board.add_core(core, by_threads, standing, &holder);
        }
        board
    }

    fn add_core(&mut self, core: usize, by_threads: bool, standing: &[Standing], holder: &[Option<usize>]) {
        let machine = self.machine;
        let threads = machine.threads(core);
        let wants_cpus = |holder: usize| matches!(self.demands[holder].cpus, Wanted::Cpus(_));
        let of = |cpu: &u32| (standing[*cpu as usize], holder[*cpu as usize]);
        let holders = || threads.iter().filter_map(|cpu| holder[*cpu as usize]);
        let is_for = |cpu: &u32, who: Option<usize>| match of(cpu) {
            (Standing::Free, _) => true,
            (Standing::ForHolder, owner) => owner.is_some() && owner == who,
            (Standing::Taken, _) => false,
        };
        let first = holders().next();
        let is_split = holders().any(wants_cpus) && !threads.iter().all(|cpu| holder[*cpu as usize] == first);
        let is_private = threads.iter().any(|cpu| standing[*cpu as usize] == Standing::ForHolder);
        if !is_split && threads.iter().all(|cpu| is_for(cpu, first)) {
            let weight = if by_threads { threads.len() as u32 } else { 1 };
            self.add(core, weight, first, is_private, None);
        } else if by_threads {
            for cpu in threads.iter().filter(|cpu| of(cpu).0 == Standing::Free) {
                self.add(core, 1, holder[*cpu as usize], false, Some(*cpu));
            }
        }
    }

    /// Adds a core, or one CPU of it, to the cell of its like.
    fn add(&mut self, core: usize, weight: u32, holder: Option<usize>, is_private: bool, cpu: Option<u32>) {
        let facts = &self.machine.cores[core];
        let is_reserved = match &self.machine.hardware.kubelet {
            Some(kubelet) if kubelet.cpu_manager_policy == STATIC => match cpu {
                Some(cpu) => kubelet.reserved_cpus.contains(cpu),
                None => self.machine.threads(core).iter().all(|cpu| kubelet.reserved_cpus.contains(*cpu)),
            },
            Some(_) | None => true,
        };
        let is_alike = |cell: &&mut Cell| {
            cell.domains == facts.domains
                && (cell.kind, cell.weight, cell.holder) == (facts.kind, weight, holder)
                && (cell.is_reserved, cell.is_private) == (is_reserved, is_private)
                && matches!(cell.pieces, Pieces::Cpus(_)) == cpu.is_some()
        };
        match (self.cells.iter_mut().rev().find(is_alike).map(|cell| &mut cell.pieces), cpu) {
            (Some(Pieces::Cores(cores)), _) => cores.push(core as u32),
            (Some(Pieces::Cpus(cpus)), Some(cpu)) => cpus.push(cpu),
            (Some(Pieces::Cpus(_)), None) => {}
            (None, cpu) => {
                let pieces = cpu.map_or_else(|| Pieces::Cores(vec![core as u32]), |cpu| Pieces::Cpus(vec![cpu]));
                let (domains, kind) = (facts.domains, facts.kind);
                self.cells.push(Cell { domains, kind, weight, pieces, holder, is_reserved, is_private });
            }
        }
    }

    /// Poses the problem for these quantities; none if something can be seen not to fit. `settled` are slices that have
    /// their place already.
    pub fn pose(&self, quantities: &Quantities, settled: &Settled) -> Option<Posed> {
        let asking: Vec<usize> = (0..self.demands.len()).filter(|index| quantities[*index].is_some()).collect();
        let mut priorities: Vec<i32> = asking.iter().map(|index| self.demands[*index].priority).collect();
        priorities.sort_unstable_by(|a, b| b.cmp(a));
        priorities.dedup();
        let tasks: Vec<usize> = asking;
        let task_of = |demand: usize| tasks.iter().position(|task| *task == demand);
        let mut problem = self.blank();
        for cell in &mut problem.cells {
            cell.holder = cell.holder.and_then(task_of);
        }
        let roots: Vec<Option<Root>> =
            (0..self.demands.len()).map(|demand| self.root(demand, quantities, settled)).collect();
        let empty = State::empty(&problem);
        let mut rooms: Vec<(usize, Rooms)> = Vec::new();
        for (task, demand) in tasks.iter().enumerate() {
            let guests = (0..self.demands.len())
                .filter(|other| matches!(roots[*other], Some(Root::Demand(root)) if root == *demand));
            let group: Vec<&Demand> = guests.map(|guest| self.demands[guest]).collect();
            let class = priorities.iter().position(|priority| *priority == self.demands[*demand].priority);
            let count = quantities[*demand].unwrap_or(0);
            let task = self.bare_task(&problem, task, self.demands[*demand], &group, count, class.unwrap_or(0));
            let task = self.fitting(&problem, task, &empty, &mut rooms)?;
            problem.tasks.push(task);
        }
        problem.ties = self.ties(&roots, &task_of, settled);
        if problem.ties.iter().any(|tie| problem.settled_cost(tie).is_none()) {
            return None;
        }
        problem.number_levels();
        Some(Posed { problem, demand_of: tasks, priorities })
    }

    /// The most that a demand could get if it were alone, with what it insists on.
    pub fn most(&self, demand: usize) -> u32 {
        let mut problem = self.blank();
        for cell in &mut problem.cells {
            cell.holder = cell.holder.filter(|holder| *holder == demand).map(|_| 0);
        }
        let wish = self.demands[demand];
        let task = self.bare_task(&problem, 0, wish, &[wish], 0, 0);
        let insists = |(_, policy): &&(usize, AlignPolicy)| *policy == AlignPolicy::Require;
        let required: Vec<usize> = task.align.iter().filter(insists).map(|(slot, _)| *slot).collect();
        let free = problem.capacities();
        let mut rooms: BTreeMap<(Option<CoreKind>, Vec<u16>), u32> = BTreeMap::new();
        for (index, cell) in problem.cells.iter().enumerate() {
            let kind = if task.kinds.len() > 1 { cell.kind } else { None };
            let domains = required.iter().map(|slot| cell.domains[*slot]).collect();
            *rooms.entry((kind, domains)).or_default() += problem.room(&task, index, &free);
        }
        rooms.into_values().max().unwrap_or(0)
    }

    /// How much there is for these demands together.
    pub fn capacity(&self) -> u32 {
        let problem = self.blank();
        let bare = |demand: &&Demand| self.bare_task(&problem, usize::MAX, demand, &[demand], 0, 0);
        let tasks: Vec<Task> = self.demands.iter().map(bare).collect();
        let is_allowed = |cell: &usize| self.cells[*cell].is_private || tasks.iter().any(|task| task.allowed[*cell]);
        (0..self.cells.len()).filter(is_allowed).map(|cell| self.cells[cell].capacity()).sum()
    }

    /// How much one unit of a demand counts at least.
    pub fn weight(&self, demand: usize) -> u32 {
        let by_cpu = matches!(self.demands[demand].cpus, Wanted::Cpus(_));
        let whole = self.cells.iter().filter(|cell| matches!(cell.pieces, Pieces::Cores(_))).map(|cell| cell.weight);
        if by_cpu { 1 } else { whole.min().unwrap_or(1) }
    }

    /// How many whole cores are to be had.
    pub fn capacity_in_cores(&self) -> u32 {
        let cores = self.cells.iter().map(|cell| match &cell.pieces {
            Pieces::Cores(cores) => cores.len() as u32,
            Pieces::Cpus(_) => 0,
        });
        cores.sum()
    }

    /// The CPUs that are to be had.
    pub fn free(&self) -> CpuSet {
        let mut free = CpuSet::new();
        for cell in &self.cells {
            match &cell.pieces {
                Pieces::Cores(cores) => {
                    let threads = cores.iter().flat_map(|core| self.machine.threads(*core as usize));
                    threads.for_each(|cpu| free.insert(*cpu));
                }
                Pieces::Cpus(cpus) => cpus.iter().for_each(|cpu| free.insert(*cpu)),
            }
        }
        free
    }

    /// Whether a demand may be on these CPUs, as far as its own wishes go.
    pub fn suits(&self, demand: usize, cpus: &CpuSet) -> bool {
        let wish = self.demands[demand];
        let cores = self.machine.cores_touching(cpus);
        let allows = |core: &usize| {
            let facts = &self.machine.cores[*core];
            let cell = Cell {
                domains: facts.domains,
                kind: facts.kind,
                weight: 1,
                pieces: Pieces::Cores(vec![*core as u32]),
                holder: None,
                is_reserved: true,
                is_private: false,
            };
            self.allows(wish, &cell)
        };
        let insists = wish.align.iter().filter(|wish| wish.policy == AlignPolicy::Require);
        let mut required = insists.map(|wish| slot(wish.domain));
        cores.iter().all(allows) && required.all(|slot| self.machine.domains_of(slot, cpus).len() <= 1)
    }

    fn blank(&self) -> Problem {
        let nodes = 0..self.machine.domains[NODE] as u16;
        let row = |from: u16| nodes.clone().map(move |to| self.machine.distance(from, to));
        Problem {
            cells: self.cells.clone(),
            domains: self.machine.domains,
            totals: self.totals.clone(),
            distances: nodes.clone().flat_map(row).collect(),
            tasks: Vec::new(),
            ties: Vec::new(),
            levels: Vec::new(),
            width: 0,
            cluster_of: Vec::new(),
        }
    }

    /// The task with the fewest domains that it needs; none if it does not fit alone. `rooms` remembers what was counted.
    fn fitting(
        &self,
        problem: &Problem,
        mut task: Task,
        empty: &State,
        rooms: &mut Vec<(usize, Rooms)>,
    ) -> Option<Task> {
        let is_alike = |(other, _): &&(usize, Rooms)| {
            let other = &problem.tasks[*other];
            (other.by_cpu, &other.kinds, &other.allowed) == (task.by_cpu, &task.kinds, &task.allowed)
        };
        let known = rooms.iter().find(is_alike).map(|(_, rooms)| fewest(rooms, task.count));
        task.least = match known {
            Some(least) => least?,
            None => {
                let counted = sorted_rooms(problem, empty, &task);
                let least = fewest(&counted, task.count);
                rooms.push((problem.tasks.len(), counted));
                least?
            }
        };
        let insists = |slot: usize| task.align.contains(&(slot, AlignPolicy::Require));
        (0..KINDS).all(|slot| !insists(slot) || task.least[slot] <= 1).then_some(task)
    }

    /// The task of a demand and of those who run inside it.
    fn bare_task(
        &self,
        problem: &Problem,
        index: usize,
        demand: &Demand,
        group: &[&Demand],
        count: u32,
        class: usize,
    ) -> Task {
        let allows = |cell: &Cell| {
            (!cell.is_private || cell.holder == Some(index)) && group.iter().all(|demand| self.allows(demand, cell))
        };
        let allowed: Vec<bool> = problem.cells.iter().map(allows).collect();
        let mut kinds: Vec<Option<CoreKind>> = Vec::new();
        for (cell, _) in problem.cells.iter().zip(&allowed).filter(|(_, allowed)| **allowed) {
            if !kinds.contains(&cell.kind) {
                kinds.push(cell.kind);
            }
        }
        if kinds.is_empty() {
            kinds.push(None);
        }
        kinds.sort_unstable();
        let align: Vec<(usize, AlignPolicy)> = match demand.align.is_empty() {
            true => vec![(slot(Domain::Node), AlignPolicy::Prefer), (slot(Domain::L3), AlignPolicy::Prefer)],
            false => demand.align.iter().map(|wish| (slot(wish.domain), wish.policy)).collect(),
        };
        let mut task = Task {
            count,
            by_cpu: matches!(demand.cpus, Wanted::Cpus(_)),
            class,
            allowed,
            kinds,
            held: 0,
            align,
            wished_nodes: group.iter().flat_map(|demand| self.wished_nodes(demand)).collect(),
            least: [0; KINDS],
        };
        let free = problem.capacities();
        let held = problem.cells.iter().enumerate().filter(|(_, cell)| cell.holder == Some(index));
        task.held = held.map(|(cell, _)| problem.room(&task, cell, &free)).sum();
        task
    }

    /// Whether a demand may have what is in a cell.
    fn allows(&self, demand: &Demand, cell: &Cell) -> bool {
        let node = self.machine.node_id(cell.domains[NODE]);
        let in_nodes = demand.nodes.as_ref().is_none_or(|nodes| node.is_some_and(|node| nodes.contains(node)));
        let mixes = !self.machine.hardware.core_types.is_empty();
        let of_kind = match demand.core_type {
            CoreType::Any => true,
            CoreType::Performance => !mixes || cell.kind == Some(CoreKind::Performance),
            CoreType::Efficiency => !mixes || cell.kind == Some(CoreKind::Efficiency),
        };
        let at_ordinal = match demand.ordinal {
            Some(wish) if wish.policy == WishPolicy::Require => {
                self.allocatable_nodes.get(wish.ordinal as usize) == Some(&cell.domains[NODE])
            }
            Some(_) | None => true,
        };
        let with_kubelet = match demand.isolation {
            Isolation::Exclusive => cell.is_reserved,
            Isolation::Shared => true,
        };
        in_nodes && of_kind && at_ordinal && with_kubelet
    }

    /// The sets of nodes that a demand prefers.
    fn wished_nodes(&self, demand: &Demand) -> Vec<Vec<u16>> {
        let mut wished = Vec::new();
        if let Some(wish) = demand.ordinal.filter(|wish| wish.policy == WishPolicy::Prefer) {
            wished.push(self.allocatable_nodes.get(wish.ordinal as usize).copied().into_iter().collect());
        }
        let nodes = device_nodes(self.machine, demand);
        if !nodes.is_empty() {
            wished.push(nodes);
        }
        wished
    }

    /// Where a demand really runs: itself, or the slice inside which it does.
    fn root(&self, demand: usize, quantities: &Quantities, settled: &Settled) -> Option<Root> {
        let mut at = demand;
        for _ in 0..=self.demands.len() {
            if quantities[at].is_some() {
                return Some(Root::Demand(at));
            }
            let host = self.demands[at].share_with.as_ref()?;
            if let Some(cpus) = settled.get(host) {
                return Some(Root::Settled(self.place(cpus)));
            }
            at = self.demands.iter().position(|other| other.unit == *host)?;
        }
        None
    }

    fn place(&self, cpus: &CpuSet) -> Used {
        [0, 1, 2].map(|slot| self.machine.domains_of(slot, cpus).into())
    }

    /// The wishes of all slices about each other.
    fn ties(&self, roots: &[Option<Root>], task_of: &impl Fn(usize) -> Option<usize>, settled: &Settled) -> Vec<Tie> {
        let end = |unit: &UnitName| {
            if let Some(cpus) = settled.get(unit) {
                return Some(End::Settled(self.place(cpus)));
            }
            let demand = self.demands.iter().position(|other| other.unit == *unit)?;
            match roots[demand].as_ref()? {
                Root::Demand(root) => Some(End::Task(task_of(*root)?)),
                Root::Settled(place) => Some(End::Settled(place.clone())),
            }
        };
        let mut ties = Vec::new();
        for demand in self.everyone {
            let near = demand.near.iter().map(|relation| (relation, Side::Near));
            let apart = demand.apart.iter().map(|relation| (relation, Side::Apart));
            for (Relation { unit, domain, policy }, side) in near.chain(apart) {
                let Some((from, to)) = end(&demand.unit).zip(end(unit)) else { continue };
                let is_required = *policy == WishPolicy::Require;
                ties.push(Tie { from, to, slot: slot(*domain), side, is_required });
            }
        }
        ties
    }
}

/// What the kubelet calls its policy of giving CPUs to pods alone.
pub const STATIC: &str = "static";

/// Where a slice runs.
enum Root {
    Demand(usize),
    Settled(Used),
}

/// The nodes of the devices that a demand wants to be near, by index, in order.
pub fn device_nodes(machine: &Machine, demand: &Demand) -> Vec<u16> {
    let is_named = |device: &&Device| {
        let names = &demand.near_devices;
        names.contains(&device.name) || device.pci.as_ref().is_some_and(|pci| names.contains(pci))
    };
    let devices = machine.hardware.devices.iter().filter(is_named);
    let mut nodes: Vec<u16> = devices.filter_map(|device| machine.node_index(device.node?)).collect();
    nodes.sort_unstable();
    nodes.dedup();
    nodes
}

/// What each demand holds: a slice that runs inside another holds nothing of its own.
fn held_by<'a>(demands: &[&Demand], running: &'a Placement) -> Vec<Option<&'a CpuSet>> {
    let held = |unit: &UnitName| running.slices.get(unit).map(|incumbent| &incumbent.cpus);
    let is_guest = |demand: &Demand, own: &CpuSet| {
        let host = demand.share_with.as_ref().and_then(held);
        host.is_some_and(|host| !host.is_disjoint(own))
    };
    demands.iter().map(|demand| held(&demand.unit).filter(|own| !is_guest(demand, own))).collect()
}
