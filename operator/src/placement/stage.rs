//! Places some slices of a host together: settles what is named or stays, then goes down the list of quantities until
//! the search finds an arrangement.

use std::cell::Cell;
use std::cmp::Reverse;

use lamina_crds::CpuSet;
use lamina_crds::slice_topology::Isolation;
use lamina_crds::wishes::{OnMissing, Siblings};

use crate::placement::board::{Board, Posed, Settled, Standing};
use crate::placement::demand::{Demand, MemoryNodesWish, Placement, Wanted};
use crate::placement::machine::Machine;
use crate::placement::numbers::number;
use crate::placement::quantities::{Ladder, Quantities, Want, sequence};
use crate::placement::search::{Arrangement, Outcome, STEPS, search};
use crate::placement::staged::{Claim, Given, Holder, Occupant, Staged, Trouble};

/// How many steps the search may take once somebody shrinks.
const LATER_STEPS: usize = 5000;
/// How many answers of a ladder are tried one by one.
const LINEAR: usize = 12;

/// Slices that are placed together.
pub struct Stage<'a> {
    /// The machine.
    pub machine: &'a Machine<'a>,
    /// The slices, in canonical order: see [`canonical`].
    pub demands: Vec<&'a Demand>,
    /// What runs.
    pub running: &'a Placement,
    /// What others hold.
    pub others: Vec<&'a Occupant>,
    /// CPUs that are kept free.
    pub housekeeping: &'a CpuSet,
    /// The nodes that have allocatable CPUs.
    pub allocatable_nodes: &'a [u16],
    /// What is looked for.
    pub effort: Effort,
}

/// What a stage looks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effort {
    /// The best answer.
    Best,
    /// Whether there is any.
    Any,
}

/// Whether some search ended at its bound without an answer.
#[derive(Default)]
struct Doubt(Cell<bool>);

impl Doubt {
    fn found(&self, outcome: Outcome) -> Option<Arrangement> {
        match outcome {
            Outcome::Found(arrangement) => Some(arrangement),
            Outcome::Impossible => None,
            Outcome::Unknown => {
                self.0.set(true);
                None
            }
        }
    }
}

/// The order of slices that does not depend on how they are listed: higher priority first, then larger, then by name.
pub fn canonical<'a>(demands: impl IntoIterator<Item = &'a Demand>) -> Vec<&'a Demand> {
    let mut demands: Vec<&Demand> = demands.into_iter().collect();
    demands.sort_by_key(|demand| (Reverse(demand.priority), Reverse(asked(demand)), &demand.unit));
    demands
}

impl Stage<'_> {
    /// Places the slices.
    pub fn solve(&self) -> Result<Staged, Trouble> {
        self.check_memory()?;
        let sets = self.settle_sets()?;
        let doubt = Doubt::default();
        let mut firm = sets.clone();
        let mut soft: Vec<usize> = Vec::new();
        let mut shared = sets.clone();
        for index in 0..self.demands.len() {
            let Some((cpus, stay)) = self.stays(index, &firm) else { continue };
            match stay {
                Stay::Firm => drop(firm.insert(&self.demands[index].unit, cpus)),
                Stay::Soft => soft.push(index),
            }
        }
        let shared_ones = |index: &usize| self.demands[*index].isolation == Isolation::Shared;
        for index in (0..self.demands.len()).filter(|index| !shared_ones(index)) {
            let unit = &self.demands[index].unit;
            firm.get(unit).map(|cpus| shared.insert(unit, cpus.clone()));
        }
        // Those with the lowest priority come last in canonical order: they stay first.
        for staying in 0..=soft.len() {
            let mut settled = firm.clone();
            for index in &soft[soft.len() - staying..] {
                if let Some((cpus, _)) = self.stays(*index, &settled) {
                    settled.insert(&self.demands[*index].unit, cpus);
                }
            }
            let is_last = staying == soft.len();
            if let Some(staged) = self.attempt(&settled, is_last, &doubt) {
                return Ok(staged);
            }
        }
        let retreats = [shared, sets];
        let retreats = retreats.iter().filter(|settled| settled.len() < firm.len() + soft.len());
        let found = retreats.filter_map(|settled| self.attempt(settled, true, &doubt)).next();
        found.ok_or_else(|| if doubt.0.get() { Trouble::Unsettled } else { Trouble::Crowded })
    }

    fn check_memory(&self) -> Result<(), Trouble> {
        let there = self.machine.hardware.memory_nodes();
        for (index, demand) in self.demands.iter().enumerate() {
            if let MemoryNodesWish::List(nodes) = &demand.memory_nodes {
                let bare = nodes.difference(&there);
                if !bare.is_empty() {
                    return Err(Trouble::NoMemory { demand: index, nodes: bare });
                }
            }
        }
        Ok(())
    }

    fn settle_sets(&self) -> Result<Settled<'_>, Trouble> {
        let mut settled = Settled::new();
        for (index, demand) in self.demands.iter().enumerate() {
            if let Wanted::Set { cpus, on_missing } = &demand.cpus {
                let usable = self.accept_set(index, cpus, *on_missing, &settled)?;
                settled.insert(&demand.unit, usable);
            }
        }
        Ok(settled)
    }

    /// The CPUs that a slice gets which names its own.
    fn accept_set(
        &self,
        demand: usize,
        set: &CpuSet,
        on_missing: OnMissing,
        settled: &Settled,
    ) -> Result<CpuSet, Trouble> {
        let hardware = self.machine.hardware;
        let wish = self.demands[demand];
        let held = self.running.slices.get(&wish.unit).map(|incumbent| incumbent.cpus.clone()).unwrap_or_default();
        let runs_there = held == *set;
        // What already runs on a CPU that went offline stays there.
        let usable = hardware.cpus.online.union(&held.intersection(&hardware.cpus.offline));
        let cpus = match on_missing {
            OnMissing::Refuse if runs_there || set.is_subset(&hardware.cpus.online) => set.intersection(&usable),
            OnMissing::Refuse => set.intersection(&hardware.cpus.online),
            OnMissing::UseOnline => set.intersection(&usable),
        };
        let missing = set.difference(&cpus);
        if cpus.is_empty() || (!missing.is_empty() && on_missing == OnMissing::Refuse) {
            return Err(Trouble::Missing { demand, missing });
        }
        match self.holder_of(demand, &cpus, runs_there, settled) {
            Some((holder, cpus)) => Err(Trouble::Taken { demand, holder, cpus }),
            None => Ok(cpus),
        }
    }

    /// Who stands against a slice having these CPUs by name.
    fn holder_of(&self, demand: usize, cpus: &CpuSet, runs_there: bool, settled: &Settled) -> Option<(Holder, CpuSet)> {
        let wish = self.demands[demand];
        let firm = |occupant: &&&Occupant| !runs_there || occupant.claim != Claim::Unasked;
        let collides = |occupant: &&&Occupant| collides(wish.isolation, occupant, cpus);
        if let Some(occupant) = self.others.iter().filter(firm).find(collides) {
            return Some((Holder::Unit(occupant.unit.clone()), occupant.cpus.intersection(cpus)));
        }
        let excludes = |other: &&&Demand| {
            let apart = wish.isolation == Isolation::Exclusive || other.isolation == Isolation::Exclusive;
            apart && settled.get(&other.unit).is_some_and(|taken| !taken.is_disjoint(cpus))
        };
        if let Some(other) = self.demands.iter().find(excludes) {
            return Some((Holder::Unit(other.unit.clone()), settled.get(&other.unit)?.intersection(cpus)));
        }
        let kept = self.housekeeping.intersection(cpus);
        if !kept.is_empty() {
            return Some((Holder::Housekeeping, kept));
        }
        let foreign = self.foreign(wish.isolation).intersection(cpus);
        (!foreign.is_empty()).then_some((Holder::Kubelet, foreign))
    }

    /// The CPUs that a static kubelet may give to pods.
    fn foreign(&self, isolation: Isolation) -> CpuSet {
        let hardware = self.machine.hardware;
        match (&hardware.kubelet, isolation) {
            (Some(kubelet), Isolation::Exclusive) if kubelet.cpu_manager_policy == super::board::STATIC => {
                hardware.cpus.online.difference(&kubelet.reserved_cpus)
            }
            (Some(_) | None, _) => CpuSet::new(),
        }
    }

    /// The CPUs on which a running slice stays although some are offline, or although it shares them.
    fn stays(&self, index: usize, settled: &Settled) -> Option<(CpuSet, Stay)> {
        let demand = self.demands[index];
        let (wanted, by_cpu) = match demand.cpus {
            Wanted::Set { .. } => return None,
            Wanted::Cores(cores) => (cores, false),
            Wanted::Cpus(cpus) => (cpus, true),
        };
        let hardware = self.machine.hardware;
        let held = &self.running.slices.get(&demand.unit)?.cpus;
        let online = held.intersection(&hardware.cpus.online);
        let offline = held.difference(&online);
        let is_shared = demand.isolation == Isolation::Shared;
        if online.is_empty() || !offline.is_subset(&hardware.cpus.offline) || (offline.is_empty() && !is_shared) {
            return None;
        }
        let cores = self.machine.cores_touching(&online);
        let left = if by_cpu { online.len() as u32 } else { cores.len() as u32 };
        let is_as_asked = left == wanted || (left < wanted && left + offline.len() as u32 >= wanted);
        let least = demand.min.unwrap_or(wanted);
        let stay = match (demand.min, left == wanted) {
            (_, true) => Stay::Firm,
            (Some(min), false) if left >= min && left < wanted => Stay::Firm,
            (Some(_), false) => return None,
            (None, false) => Stay::Soft,
        };
        if !(is_as_asked || (left >= least && left < wanted && !offline.is_empty())) {
            return None;
        }
        let all_threads = || cores.iter().flat_map(|core| self.machine.threads(*core)).copied().collect::<CpuSet>();
        let cpus = match (by_cpu, demand.siblings) {
            (true, _) | (false, Siblings::Idle) => held.clone(),
            (false, Siblings::Take) => all_threads().union(&offline),
        };
        (self.may_stay(demand, &cpus, held, settled)).then_some((cpus, stay))
    }

    fn may_stay(&self, demand: &Demand, cpus: &CpuSet, held: &CpuSet, settled: &Settled) -> bool {
        let grown = cpus.difference(held);
        let is_free = self.others.iter().all(|occupant| match occupant.claim {
            Claim::Unasked => occupant.cpus.is_disjoint(&grown),
            Claim::Exclusive | Claim::Shared => !collides(demand.isolation, occupant, cpus),
        });
        let is_clear = self.demands.iter().all(|other| {
            let apart = demand.isolation == Isolation::Exclusive || other.isolation == Isolation::Exclusive;
            !apart || settled.get(&other.unit).is_none_or(|taken| taken.is_disjoint(cpus))
        });
        let isolated = &self.machine.hardware.cpus.isolated;
        let blocked = self.housekeeping.union(isolated).union(&self.foreign(demand.isolation));
        is_free && is_clear && cpus.is_disjoint(&blocked) && self.board(&[demand], &Settled::new(), true).suits(0, cpus)
    }

    /// The cores that are to be had by these slices. Shared ones may have those of other shared slices if they must.
    pub fn board<'b>(&'b self, demands: &[&'b Demand], settled: &Settled, with_shared: bool) -> Board<'b> {
        let demands = demands.to_vec();
        let standing = self.standing(&demands, settled, with_shared);
        Board::of(self.machine, demands, &self.demands, self.allocatable_nodes, self.running, &standing)
    }

    fn standing(&self, demands: &[&Demand], settled: &Settled, with_shared: bool) -> Vec<Standing> {
        let hardware = self.machine.hardware;
        let width = hardware.cpus.online.iter().last().map_or(0, |last| last as usize + 1);
        let mut standing = vec![Standing::Free; width];
        let mut mark = |cpus: &CpuSet, mark: Standing| {
            cpus.iter().filter(|cpu| (*cpu as usize) < width).for_each(|cpu| standing[cpu as usize] = mark);
        };
        let may_join = with_shared && demands.iter().all(|demand| demand.isolation == Isolation::Shared);
        let unasked = self.others.iter().filter(|occupant| occupant.claim == Claim::Unasked);
        unasked.for_each(|occupant| mark(&occupant.cpus, Standing::ForHolder));
        for occupant in &self.others {
            match occupant.claim {
                Claim::Unasked => {}
                Claim::Shared if may_join => {}
                Claim::Shared | Claim::Exclusive => mark(&occupant.cpus, Standing::Taken),
            }
        }
        for demand in &self.demands {
            if let Some(cpus) =
                settled.get(&demand.unit).filter(|_| !may_join || demand.isolation == Isolation::Exclusive)
            {
                mark(cpus, Standing::Taken);
            }
        }
        mark(self.housekeeping, Standing::Taken);
        mark(&hardware.cpus.isolated, Standing::Taken);
        standing
    }

    /// Goes down the list of quantities, or looks at full wishes only.
    fn attempt(&self, settled: &Settled, may_shrink: bool, doubt: &Doubt) -> Option<Staged> {
        let open = |demand: &&&Demand| !settled.contains_key(&demand.unit);
        let all: Vec<&Demand> = self.demands.iter().filter(open).copied().collect();
        let (exclusive, shared): (Vec<&Demand>, Vec<&Demand>) =
            all.iter().partition(|demand| demand.isolation == Isolation::Exclusive);
        let board = self.board(&all, settled, false);
        let alone = (!shared.is_empty()).then(|| self.board(&exclusive, settled, false));
        let wants: Vec<Want> = (0..all.len()).map(|index| want(&board, index)).collect();
        let capacity = board.capacity();
        let full: Quantities = wants.iter().map(|want| Some(want.wish)).collect();
        let asked = all.iter().map(|demand| in_cores(demand, &board)).sum();
        let exclusive_wants: Vec<Want> = (0..all.len())
            .filter(|index| all[*index].isolation == Isolation::Exclusive)
            .map(|i| wants[i].clone())
            .collect();
        let look = |quantities: &Quantities, steps: usize| {
            let mut exclusive_quantities = quantities.iter();
            let together: Quantities = all
                .iter()
                .zip(&wants)
                .map(|(demand, want)| match demand.isolation {
                    Isolation::Exclusive => exclusive_quantities.next().copied().flatten(),
                    Isolation::Shared => Some(want.wish),
                })
                .collect();
            let found = self.arrange(&board, &together, settled, steps, doubt).or_else(|| {
                let mut staged = self.arrange(alone.as_ref()?, quantities, settled, steps, doubt)?;
                self.add_shared(&shared, settled, &mut staged, doubt).then_some(staged)
            });
            let mut staged = found?;
            staged.is_full = together == full;
            staged.asked_and_there = (asked, board.capacity_in_cores());
            self.add_guests(&all, &mut staged);
            Some(staged)
        };
        let ladders = sequence(&exclusive_wants, capacity);
        if !may_shrink {
            let first = ladders.first().and_then(|ladder| ladder.first())?;
            return look(first, STEPS).filter(|staged| staged.is_full);
        }
        let climb = |(place, ladder): (usize, &Ladder)| match self.effort {
            Effort::Best => climb(ladder, if place == 0 { STEPS } else { LATER_STEPS }, &look),
            Effort::Any if place == 0 => ladder.iter().find_map(|quantities| look(quantities, LATER_STEPS)),
            Effort::Any => ladder.last().and_then(|least| look(least, LATER_STEPS)),
        };
        ladders.iter().enumerate().find_map(climb)
    }

    /// Looks for an arrangement with these quantities.
    fn arrange(
        &self,
        board: &Board,
        quantities: &Quantities,
        settled: &Settled,
        steps: usize,
        doubt: &Doubt,
    ) -> Option<Staged> {
        let posed = board.pose(quantities, settled)?;
        let arrangement = doubt.found(search(&posed.problem, steps))?;
        let mut staged = Staged::default();
        for (unit, cpus) in settled {
            let given = Given { cpus: cpus.clone(), inside: None };
            staged.given.insert((*unit).clone(), given);
        }
        self.add(board, &posed, &arrangement, &mut staged);
        Some(staged)
    }

    fn add(&self, board: &Board, posed: &Posed, arrangement: &Arrangement, staged: &mut Staged) {
        let Posed { problem, demand_of, priorities } = posed;
        staged.tally.add(problem, priorities, arrangement);
        for (task, cpus) in number(self.machine, problem, &arrangement.shares).into_iter().enumerate() {
            let demand = board.demands[demand_of[task]];
            let cpus = match demand.siblings {
                Siblings::Take => cpus,
                Siblings::Idle => {
                    let first = |core: usize| self.machine.threads(core).first().copied();
                    self.machine.cores_touching(&cpus).into_iter().filter_map(first).collect()
                }
            };
            let given = Given { cpus, inside: None };
            staged.given.insert(demand.unit.clone(), given);
        }
    }

    /// Places shared slices beside the exclusive ones, on each other's cores only if they must. False if one does not fit.
    fn add_shared(&self, shared: &[&Demand], settled: &Settled, staged: &mut Staged, doubt: &Doubt) -> bool {
        for demand in shared {
            let mut taken: Settled = settled.clone();
            for other in &self.demands {
                if let Some(given) = staged.given.get(&other.unit) {
                    taken.insert(&other.unit, given.cpus.clone());
                }
            }
            let place = |with_shared: bool| {
                let board = self.board(&[demand], &taken, with_shared);
                let posed = board.pose(&vec![Some(want(&board, 0).wish)], &taken)?;
                let arrangement = doubt.found(search(&posed.problem, STEPS))?;
                let mut staged = Staged::default();
                self.add(&board, &posed, &arrangement, &mut staged);
                Some(staged)
            };
            let Some(found) = place(false).or_else(|| place(true)) else { return false };
            staged.given.extend(found.given);
            staged.tally.join(found.tally);
        }
        true
    }

    /// Puts those who share into the slices inside which they run.
    fn add_guests(&self, all: &[&Demand], staged: &mut Staged) {
        let mut left: Vec<&Demand> = all.to_vec();
        let mut before = left.len() + 1;
        while left.len() < before {
            before = left.len();
            left.retain(|demand| {
                if staged.given.contains_key(&demand.unit) {
                    return false;
                }
                let host = demand.share_with.as_ref().and_then(|host| Some((host, staged.given.get(host)?)));
                let Some((host, given)) = host else { return true };
                let given = Given { cpus: given.cpus.clone(), inside: Some(host.clone()) };
                staged.given.insert(demand.unit.clone(), given);
                false
            });
        }
    }
}

/// The first answer of a ladder for which there is an arrangement. On a long one the last answers are asked before those
/// in the middle: where the least cannot be had, more cannot either.
fn climb(ladder: &Ladder, steps: usize, look: &impl Fn(&Quantities, usize) -> Option<Staged>) -> Option<Staged> {
    let (head, tail) = ladder.split_at(ladder.len().min(LINEAR));
    if let Some(staged) = head.iter().find_map(|quantities| look(quantities, steps)) {
        return Some(staged);
    }
    let mut found = look(tail.last()?, steps)?;
    let (mut low, mut high) = (0, tail.len() - 1);
    while low < high {
        let middle = (low + high) / 2;
        match look(&tail[middle], steps) {
            Some(staged) => (found, high) = (staged, middle),
            None => low = middle + 1,
        }
    }
    Some(found)
}

/// Whether a running slice with offline CPUs stays in any case, or only if there is nothing better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stay {
    Firm,
    Soft,
}

/// What a demand wants for itself, no more than it could ever get if it agrees to less.
fn want(board: &Board, index: usize) -> Want {
    let demand = board.demands[index];
    let asked = asked(demand);
    let wish = match demand.min {
        Some(min) => Some(board.most(index)).filter(|most| *most >= min).map_or(asked, |most| asked.min(most)),
        None => asked,
    };
    let is_host = |other: &&Demand| Some(&other.unit) == demand.share_with.as_ref();
    let may_share = board.everyone.iter().any(is_host);
    Want { priority: demand.priority, wish, min: demand.min, weight: board.weight(index), may_share }
}

/// What a demand asks for, in its own unit.
fn asked(demand: &Demand) -> u32 {
    match &demand.cpus {
        Wanted::Set { cpus, on_missing: _ } => cpus.len() as u32,
        Wanted::Cores(count) | Wanted::Cpus(count) => *count,
    }
}

/// The same in cores.
fn in_cores(demand: &Demand, board: &Board) -> u32 {
    match &demand.cpus {
        Wanted::Set { .. } | Wanted::Cores(_) => asked(demand),
        Wanted::Cpus(count) => {
            let weight = board.cells.iter().map(|cell| cell.weight).max().unwrap_or(1);
            count.div_ceil(weight)
        }
    }
}

fn collides(isolation: Isolation, occupant: &Occupant, cpus: &CpuSet) -> bool {
    let compatible = isolation == Isolation::Shared && occupant.claim == Claim::Shared;
    !compatible && !occupant.cpus.is_disjoint(cpus)
}
