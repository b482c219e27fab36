//! What the search decides, in numbers: cells of interchangeable cores, tasks that want some of them, ties between tasks,
//! and what an arrangement costs. CPU numbers are assigned afterwards.

use lamina_crds::hardware::CoreKind;
use lamina_crds::wishes::AlignPolicy;
use smallvec::{SmallVec, smallvec};

use crate::placement::machine::KINDS;

/// The slot of NUMA nodes in arrays by kind of domain.
pub const NODE: usize = 1;
/// The slot of L3 caches.
pub const L3: usize = 2;

/// One question to the search.
#[derive(Clone)]
pub struct Problem {
    /// Cores that can be given out, in order of their first core.
    pub cells: Vec<Cell>,
    /// How many domains of each kind the machine has.
    pub domains: [usize; KINDS],
    /// How much each domain holds when nothing at all is given out, by kind.
    pub totals: [Vec<u32>; KINDS],
    /// Distances between nodes, row by row.
    pub distances: Vec<u32>,
    /// What wants cores, in canonical order.
    pub tasks: Vec<Task>,
    /// Wishes about two places.
    pub ties: Vec<Tie>,
    /// Which number of the cost each position of `align` counts in, by class: see [`Problem::number_levels`].
    pub levels: Vec<[Option<usize>; KINDS]>,
    /// How many numbers a cost has.
    pub width: usize,
    /// For each task the first one of those that want to be near each other, whoever says so.
    pub cluster_of: Vec<usize>,
}

/// Cores that are alike for everything that is weighed.
#[derive(Clone, Debug)]
pub struct Cell {
    /// Their domain of each kind.
    pub domains: [u16; KINDS],
    /// Their kind.
    pub kind: Option<CoreKind>,
    /// How much one of them counts: its threads where single CPUs are given out as well, else 1.
    pub weight: u32,
    /// What is in it: cores, or single CPUs of cores of which others are taken.
    pub pieces: Pieces,
    /// The task that runs on them now.
    pub holder: Option<usize>,
    /// Whether a static kubelet leaves them to the rest of the system.
    pub is_reserved: bool,
    /// Whether only its holder may have them.
    pub is_private: bool,
}

/// What a cell is made of, lowest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pieces {
    /// Whole cores, by index.
    Cores(Vec<u32>),
    /// Single CPUs of broken cores.
    Cpus(Vec<u32>),
}

/// The wish of one slice for cores of its own.
#[derive(Clone, Debug)]
pub struct Task {
    /// How many cores, or CPUs.
    pub count: u32,
    /// Whether it counts CPUs, so that cores may be split.
    pub by_cpu: bool,
    /// Its priority's rank, 0 the highest.
    pub class: usize,
    /// Which cells it may have.
    pub allowed: Vec<bool>,
    /// The kinds of which it must choose one; one entry where there is nothing to choose.
    pub kinds: Vec<Option<CoreKind>>,
    /// How much it holds in cells that it may keep, in its own unit.
    pub held: u32,
    /// How its cores lie in domains: slot and policy, most important first.
    pub align: Vec<(usize, AlignPolicy)>,
    /// Sets of nodes outside of which each node counts as one wish unmet.
    pub wished_nodes: Vec<Vec<u16>>,
    /// The fewest domains of each kind that it needs alone on the host.
    pub least: [u32; KINDS],
}

/// A wish about the places of two slices.
#[derive(Clone, Debug)]
pub struct Tie {
    /// Who wishes.
    pub from: End,
    /// About whom.
    pub to: End,
    /// The slot of the kind of domain.
    pub slot: usize,
    /// Together or not.
    pub side: Side,
    /// Whether it must hold.
    pub is_required: bool,
}

/// One end of a tie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// A task.
    Task(usize),
    /// A slice whose place is settled, with its domains by kind.
    Settled(Used),
}

/// Together or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// In the same domains.
    Near,
    /// In others.
    Apart,
}

/// Cells and how much of each. Nearly always so few that they need no memory of their own: shares are made by the thousand.
pub type Takes = SmallVec<[(u16, u32); 8]>;

/// Domains in use, by kind, in order.
pub type Used = [SmallVec<[u16; 8]>; KINDS];

/// What one task gets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// Cells and how much of each, in the task's unit; in order of cells.
    pub takes: Takes,
    /// The domains used, by kind, in order.
    pub used: Used,
}

/// The part of the cost that one task causes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Own {
    /// What it gives up of what it holds, beyond what shrinking forces.
    pub moves: u32,
    /// Domains beyond its least, by position of its `align`.
    pub excess: [u32; KINDS],
    /// Wishes unmet.
    pub wishes: u32,
    /// Distances.
    pub distance: u32,
}

/// The cost of an arrangement, most important first.
pub type Cost = SmallVec<[u32; 12]>;

impl Cell {
    /// How much is in it when nothing is given out.
    pub fn capacity(&self) -> u32 {
        match &self.pieces {
            Pieces::Cores(cores) => cores.len() as u32 * self.weight,
            Pieces::Cpus(cpus) => cpus.len() as u32,
        }
    }

    /// How much of it one unit of the task takes; none if the task cannot use what is in it.
    fn unit(&self, task: &Task) -> Option<u32> {
        match (&self.pieces, task.by_cpu) {
            (_, true) => Some(1),
            (Pieces::Cores(_), false) => Some(self.weight),
            (Pieces::Cpus(_), false) => None,
        }
    }
}

impl Problem {
    /// How many units of a task fit into what is free of a cell.
    pub fn room(&self, task: &Task, cell: usize, free: &[u32]) -> u32 {
        if !task.allowed[cell] {
            return 0;
        }
        match self.cells[cell].unit(task) {
            None => 0,
            Some(1) => free[cell],
            Some(unit) => free[cell] / unit,
        }
    }

    /// How much of a cell so many units of a task take.
    pub fn weight(&self, task: &Task, cell: usize, units: u32) -> u32 {
        units * self.cells[cell].unit(task).unwrap_or(0)
    }

    /// What is free when nothing is given out.
    pub fn capacities(&self) -> Vec<u32> {
        self.cells.iter().map(Cell::capacity).collect()
    }

    /// How far two nodes are apart.
    pub fn distance(&self, from: u16, to: u16) -> u32 {
        self.distances[from as usize * self.domains[NODE] + to as usize]
    }

    /// The share that these takes make.
    pub fn share(&self, takes: Takes) -> Share {
        let mut share = Share { takes, ..Share::default() };
        self.find_used(&mut share);
        share
    }

    /// Notes which domains a share uses.
    pub fn find_used(&self, share: &mut Share) {
        let Share { takes, used } = share;
        for (slot, used) in used.iter_mut().enumerate() {
            used.clear();
            for (cell, _) in takes.iter() {
                let domain = self.cells[*cell as usize].domains[slot];
                if used.last() != Some(&domain) {
                    used.push(domain);
                }
            }
            used.sort_unstable();
            used.dedup();
        }
    }

    /// Numbers the levels of the cost: moves, then by position and class the domains in excess, wishes, distance.
    pub fn number_levels(&mut self) {
        let classes = self.tasks.iter().map(|task| task.class + 1).max().unwrap_or(0);
        self.levels = vec![[None; KINDS]; classes];
        self.width = 1;
        for position in 0..KINDS {
            for class in 0..classes {
                let counts = |task: &Task| {
                    let policy = task.align.get(position).map(|(_, policy)| *policy);
                    task.class == class && matches!(policy, Some(AlignPolicy::Prefer | AlignPolicy::Spread))
                };
                if self.tasks.iter().any(counts) {
                    self.levels[class][position] = Some(self.width);
                    self.width += 1;
                }
            }
        }
        self.width += 2;
        self.find_clusters();
    }

    fn find_clusters(&mut self) {
        self.cluster_of = (0..self.tasks.len()).collect();
        for tie in self.ties.iter().filter(|tie| tie.side == Side::Near) {
            if let (End::Task(from), End::Task(to)) = (&tie.from, &tie.to) {
                let (one, other) = (self.cluster_of[*from], self.cluster_of[*to]);
                let (first, last) = (one.min(other), one.max(other));
                self.cluster_of.iter_mut().filter(|cluster| **cluster == last).for_each(|cluster| *cluster = first);
            }
        }
    }

    /// Adds what one task causes to a cost.
    pub fn add(&self, cost: &mut Cost, class: usize, own: &Own) {
        let Own { moves, excess, wishes, distance } = own;
        cost[0] += moves;
        for (position, excess) in excess.iter().enumerate() {
            if let Some(level) = self.levels[class][position] {
                cost[level] += excess;
            }
        }
        cost[self.width - 2] += wishes;
        cost[self.width - 1] += distance;
    }

    /// Takes what one task causes out of a cost of which it is a part.
    pub fn subtract(&self, cost: &mut Cost, class: usize, own: &Own) {
        let Own { moves, excess, wishes, distance } = own;
        cost[0] -= moves;
        for (position, excess) in excess.iter().enumerate() {
            if let Some(level) = self.levels[class][position] {
                cost[level] -= excess;
            }
        }
        cost[self.width - 2] -= wishes;
        cost[self.width - 1] -= distance;
    }

    /// What a share costs its task: ties count as soon as both ends have their place. None if something that must hold
    /// does not.
    pub fn own(&self, index: usize, share: &Share, shares: &[Option<Share>]) -> Option<Own> {
        let task = &self.tasks[index];
        let kind = |take: &(u16, u32)| self.cells[take.0 as usize].kind;
        if task.kinds.len() > 1 && share.takes.windows(2).any(|pair| kind(&pair[0]) != kind(&pair[1])) {
            return None;
        }
        let mut own = Own { moves: self.moved(index, share), ..Own::default() };
        for (position, (slot, policy)) in task.align.iter().enumerate() {
            own.excess[position] = match policy {
                AlignPolicy::Require if share.used[*slot].len() > 1 => return None,
                AlignPolicy::Require | AlignPolicy::Ignore => 0,
                AlignPolicy::Prefer => (share.used[*slot].len() as u32).saturating_sub(task.least[*slot]),
                AlignPolicy::Spread => self.unevenness(task, *slot, share),
            };
        }
        let nodes = &share.used[NODE];
        for wished in &task.wished_nodes {
            own.wishes += outside(nodes, wished);
        }
        for (place, node) in nodes.iter().enumerate() {
            own.distance += nodes[place + 1..].iter().map(|other| self.distance(*node, *other)).sum::<u32>();
        }
        for tie in &self.ties {
            let (wishes, distance) = self.tied(tie, index, share, shares)?;
            own.wishes += wishes;
            own.distance += distance;
        }
        Some(own)
    }

    /// What shares cost together, as far as they are given out. None if something that must hold does not.
    pub fn cost_of(&self, shares: &[Option<Share>]) -> Option<Cost> {
        let mut cost = self.start();
        let mut placed = vec![None; shares.len()];
        for (index, share) in shares.iter().enumerate() {
            let Some(share) = share else { continue };
            let own = self.own(index, share, &placed)?;
            self.add(&mut cost, self.tasks[index].class, &own);
            placed[index] = Some(share.clone());
        }
        Some(cost)
    }

    /// What a tie costs once this task has that share.
    fn tied<'a>(
        &self,
        tie: &'a Tie,
        index: usize,
        share: &'a Share,
        shares: &'a [Option<Share>],
    ) -> Option<(u32, u32)> {
        let here = End::Task(index);
        if tie.from != here && tie.to != here {
            return Some((0, 0));
        }
        let place = |end: &'a End| match end {
            End::Task(task) if *task == index => Some(&share.used),
            End::Task(task) => shares[*task].as_ref().map(|share| &share.used),
            End::Settled(used) => Some(used),
        };
        match place(&tie.from).zip(place(&tie.to)) {
            Some((from, to)) => self.tie_cost(tie, from, to),
            None => Some((0, 0)),
        }
    }

    /// What a tie between settled places costs; nothing where a task is part of it. None if it must hold and does not.
    pub fn settled_cost(&self, tie: &Tie) -> Option<(u32, u32)> {
        match (&tie.from, &tie.to) {
            (End::Settled(from), End::Settled(to)) => self.tie_cost(tie, from, to),
            (End::Task(_), _) | (_, End::Task(_)) => Some((0, 0)),
        }
    }

    /// The cost before any task has its share.
    pub fn start(&self) -> Cost {
        let mut cost: Cost = smallvec![0; self.width];
        for (wishes, distance) in self.ties.iter().filter_map(|tie| self.settled_cost(tie)) {
            cost[self.width - 2] += wishes;
            cost[self.width - 1] += distance;
        }
        cost
    }

    /// What a tie costs between two places. None if it must hold and does not.
    pub fn tie_cost(&self, tie: &Tie, from: &Used, to: &Used) -> Option<(u32, u32)> {
        let (here, there) = (&from[tie.slot], &to[tie.slot]);
        let unmet = match tie.side {
            Side::Near => outside(here, there),
            Side::Apart => here.len() as u32 - outside(here, there),
        };
        if tie.is_required && unmet > 0 {
            return None;
        }
        let nearest = |node: &u16| to[NODE].iter().map(|other| self.distance(*node, *other)).min().unwrap_or(0);
        let astray = from[NODE].iter().filter(|node| !to[NODE].contains(node));
        let distance = match tie.side {
            Side::Near => astray.map(nearest).sum(),
            Side::Apart => 0,
        };
        Some((unmet, distance))
    }

    fn moved(&self, index: usize, share: &Share) -> u32 {
        let task = &self.tasks[index];
        if task.held == 0 {
            return 0;
        }
        let own = share.takes.iter().filter(|(cell, _)| self.cells[*cell as usize].holder == Some(index));
        task.held.min(task.count) - own.map(|(_, units)| *units).sum::<u32>().min(task.held.min(task.count))
    }

    /// How unevenly a share lies in the domains that its task may use: the most in one less the least in one.
    fn unevenness(&self, task: &Task, slot: usize, share: &Share) -> u32 {
        let mut amounts: Vec<Option<u32>> = vec![None; self.domains[slot]];
        for (cell, allowed) in self.cells.iter().zip(&task.allowed) {
            if *allowed && cell.unit(task).is_some() {
                amounts[cell.domains[slot] as usize].get_or_insert(0);
            }
        }
        for (cell, units) in &share.takes {
            *amounts[self.cells[*cell as usize].domains[slot] as usize].get_or_insert(0) += units;
        }
        let amounts = || amounts.iter().flatten();
        amounts().max().copied().unwrap_or(0) - amounts().min().copied().unwrap_or(0)
    }
}

/// How many of these are not among those.
pub fn outside(these: &[u16], those: &[u16]) -> u32 {
    these.iter().filter(|one| !those.contains(one)).count() as u32
}
