//! Decides how many domains beyond the unavoidable there must be, and finds an arrangement with no more: where all waiting
//! tasks prefer few domains of the same kinds, that is a packing.

use std::cmp::Reverse;

use crate::placement::bound::Outlook;
use crate::placement::packing::{Bin, Joints, MOST_BINS, MOST_KINDS, MOST_WISHES, Packed, Packing, Pair, Unmet};
use crate::placement::problem::{Cost, End, NODE, Problem, Share, Side, Takes, Tie};
use crate::placement::state::State;
use lamina_crds::hardware::CoreKind;
use lamina_crds::wishes::AlignPolicy;

/// How many more joints than there must be are tried at most.
const MOST_MORE: i32 = 12;

/// What is known of the domains beyond the unavoidable.
pub struct Crossings {
    /// What every arrangement costs at least.
    pub floor: Cost,
    /// An arrangement, complete, if one was found that may be better than the best one so far.
    pub found: Option<(Cost, Vec<Share>)>,
}

/// What an arrangement is to be better than.
pub struct Sofar<'a> {
    /// What the tasks cost that have their share.
    pub cost: &'a Cost,
    /// What is known to be the least.
    pub bound: &'a Cost,
    /// The best cost so far.
    pub best: Option<&'a Cost>,
}

/// Looks at what waits in this state, in so many steps at most. None where it is no packing.
pub fn crossings(
    problem: &Problem,
    outlook: &Outlook,
    state: &State,
    sofar: &Sofar,
    steps: usize,
) -> Option<Crossings> {
    let table = Table::of(problem, state)?;
    let mut steps = steps;
    let mut fewest: Vec<Fewest> = Vec::new();
    for class in 0..problem.levels.len() {
        let is_counted = |task: &usize| problem.tasks[*task].class <= class;
        let tasks: Vec<usize> = table.tasks.iter().copied().filter(is_counted).collect();
        let best = sofar.best.filter(|_| problem.levels.len() == 1);
        fewest.push(table.fewest(&tasks, sofar.cost, best, &mut steps));
    }
    let floor = table.floor(outlook, sofar, &fewest);
    let Fewest { groups, .. } = fewest.pop()?;
    let found = groups.and_then(|groups| table.arrange(state, &groups));
    Some(Crossings { floor, found })
}

/// Where the best has as few domains as there must be, looks for the fewest ties that go unmet. None where it is no
/// packing, or where that is not known.
pub fn ties(problem: &Problem, outlook: &Outlook, state: &State, sofar: &Sofar, steps: usize) -> Option<Crossings> {
    let best = sofar.best.filter(|best| best[..problem.width - 2] == sofar.bound[..problem.width - 2])?;
    let table = Table::of(problem, state)?;
    let mut floor = sofar.bound.clone();
    let (tasks, best) = (table.tasks.clone(), best.clone());
    let joints = table.joints_of(sofar.cost, &floor);
    let Sofar { cost, bound, best: _ } = sofar;
    let mut wishes = Wishes { table: &table, tasks, state, cost, floor: bound, joints, best, found: None };
    wishes.fewest_unmet(outlook, &mut floor, steps);
    Some(Crossings { floor, found: wishes.found })
}

/// As many ties unmet as there are.
const ANY: Unmet = Unmet { all: u32::MAX, together: u32::MAX };

/// With as many joints as the best has, which are the fewest: the fewest ties unmet.
struct Wishes<'a> {
    table: &'a Table<'a>,
    /// The tasks, those who want to be near each other together.
    tasks: Vec<usize>,
    state: &'a State,
    cost: &'a Cost,
    /// What every arrangement costs at least.
    floor: &'a Cost,
    joints: Joints,
    best: Cost,
    found: Option<(Cost, Vec<Share>)>,
}

impl Wishes<'_> {
    fn fewest_unmet(&mut self, outlook: &Outlook, floor: &mut Cost, mut steps: usize) {
        let problem = self.table.problem;
        let (wishes, distance) = (problem.width - 2, problem.width - 1);
        self.tasks.sort_by_key(|task| (Reverse(self.table.company(*task)), problem.cluster_of[*task]));
        let Some(mut packing) = self.table.packing(&self.tasks, self.table.kinds.len()) else { return };
        packing.ties = self.table.pairs(&self.tasks);
        // Which of two like bins it is does not matter to a packing, but would to ties with what else is in its domain.
        let is_mixed = packing.is_mixed();
        let finest = packing.finest;
        packing.ties.retain(|pair| pair.kind != finest || !is_mixed);
        if packing.ties.is_empty() || self.best == *floor {
            return;
        }
        let mut is_sure = true;
        let mut unmet = Unmet { all: floor[wishes] - self.cost[wishes], together: u32::MAX };
        let unmet_at_best = self.best[wishes] - self.cost[wishes];
        while unmet.all < unmet_at_best {
            match self.try_unmet(&packing, unmet, &mut steps) {
                Packed::Fits(..) => break,
                Packed::Never => floor[wishes] += u32::from(is_sure),
                Packed::Unknown => is_sure = false,
            }
            unmet.all += 1;
        }
        let is_near = |tie: &Tie| tie.side == Side::Near;
        if !is_sure || problem.ties.iter().any(|tie| is_near(tie) && tie.slot != NODE) {
            return;
        }
        unmet.together = 0;
        let least = self.cost[distance] + outlook.distance_of(problem, &self.table.tasks, 0);
        while self.best[distance] > floor[distance] && unmet.together <= unmet.all {
            match self.try_unmet(&packing, unmet, &mut steps) {
                Packed::Never => unmet.together += 1,
                Packed::Fits(..) | Packed::Unknown => break,
            }
            floor[distance] = floor[distance].max(least + unmet.together * outlook.nearest());
        }
    }

    fn try_unmet(&mut self, packing: &Packing, unmet: Unmet, steps: &mut usize) -> Packed {
        let packed = within_half(steps, |steps| packing.pack(self.joints, unmet, steps));
        if let Packed::Fits(groups, places) = &packed {
            let groups = self.table.groups(&self.tasks, groups, places);
            let arranged = self.table.arrange_best(self.state, groups, self.floor);
            if let Some((cost, shares)) = arranged.filter(|(cost, _)| *cost < self.best) {
                self.best.clone_from(&cost);
                self.found = Some((cost, shares));
            }
        }
        packed
    }
}

/// What waits, as wishes and bins.
struct Table<'a> {
    problem: &'a Problem,
    /// The tasks, largest first.
    tasks: Vec<usize>,
    /// The kinds of domain that count: position in `align` and slot.
    kinds: Vec<(usize, usize)>,
    /// Cells that have room: the cell, its domains of these kinds by small numbers, what it is made of, its room.
    cells: Vec<Place>,
}

struct Place {
    cell: usize,
    domains: [usize; MOST_KINDS],
    stuff: u8,
    room: u32,
}

/// The fewest joints for some of the tasks.
struct Fewest {
    /// By kind what they are at least, as far as that is known for sure.
    bounds: Vec<i32>,
    /// What they come to beyond the unavoidable, by kind: each task counts one joint less than it needs domains.
    base: Vec<i32>,
    /// Groups of cells with the tasks that go there, if that is better than what is known.
    groups: Option<Vec<Group>>,
}

/// Cells that hang together, as places in the table, and the tasks that go there.
type Group = (Vec<usize>, Vec<usize>);

impl<'a> Table<'a> {
    fn of(problem: &'a Problem, state: &State) -> Option<Self> {
        let mut tasks: Vec<usize> = (0..problem.tasks.len()).filter(|task| state.shares[*task].is_none()).collect();
        tasks.sort_by_key(|task| (Reverse(problem.tasks[*task].count), *task));
        let align = &problem.tasks[*tasks.first()?].align;
        let is_plain = |task: &usize| {
            let task = &problem.tasks[*task];
            task.held == 0 && !task.by_cpu && task.align == *align
        };
        let prefers = align.iter().all(|(_, policy)| *policy == AlignPolicy::Prefer);
        if !prefers || align.len() > MOST_KINDS || tasks.len() > MOST_WISHES || !tasks.iter().all(is_plain) {
            return None;
        }
        let kinds: Vec<(usize, usize)> = align.iter().map(|(slot, _)| *slot).enumerate().collect();
        let mut table = Self { problem, tasks, kinds, cells: Vec::new() };
        table.fill_cells(state)?;
        Some(table)
    }

    fn fill_cells(&mut self, state: &State) -> Option<()> {
        let mut known: [Vec<u16>; MOST_KINDS] = Default::default();
        let mut stuffs: Vec<Option<CoreKind>> = Vec::new();
        for (index, cell) in self.problem.cells.iter().enumerate() {
            let rooms = self.tasks.iter().map(|task| self.problem.room(&self.problem.tasks[*task], index, &state.free));
            let room = rooms.max().unwrap_or(0);
            if room == 0 {
                continue;
            }
            let mut domains = [0; MOST_KINDS];
            for (kind, (_, slot)) in self.kinds.iter().enumerate() {
                domains[kind] = number_of(&mut known[kind], cell.domains[*slot]);
            }
            let stuff = number_of(&mut stuffs, cell.kind) as u8;
            self.cells.push(Place { cell: index, domains, stuff, room });
        }
        let is_small = self.cells.len() <= MOST_BINS && known.iter().all(|known| known.len() <= MOST_BINS);
        is_small.then_some(())
    }

    /// The packing of these tasks that counts the first kinds. None if no kind tells all bins apart.
    fn packing(&self, tasks: &[usize], kinds: usize) -> Option<Packing> {
        let mut bins: Vec<Bin> = Vec::new();
        for (index, place) in self.cells.iter().enumerate() {
            let allowed = |task: &usize| self.problem.tasks[*task].allowed[place.cell];
            let mut bin = Bin { room: place.room, parts: 1 << index, takers: 0, stuff: place.stuff, ..Bin::default() };
            (0..kinds).for_each(|kind| bin.domains[kind] = 1 << place.domains[kind]);
            (0..tasks.len()).filter(|task| allowed(&tasks[*task])).for_each(|task| bin.takers |= 1 << task);
            match bins.iter_mut().find(|other| (other.domains, other.stuff) == (bin.domains, bin.stuff)) {
                Some(other) => *other = other.joined(&bin),
                None => bins.push(bin),
            }
        }
        let tells_apart = |kind: &usize| {
            let is_same =
                |one: &Bin, other: &Bin| one.domains[*kind] == other.domains[*kind] && one.stuff == other.stuff;
            (0..bins.len()).all(|bin| bins[..bin].iter().all(|other| !is_same(other, &bins[bin])))
        };
        let finest = (0..kinds).rev().find(tells_apart)?;
        let wishes = tasks.iter().map(|task| self.problem.tasks[*task].count).collect();
        Some(Packing::of(bins, wishes, kinds, finest))
    }

    /// Kind by kind the fewest joints. `best` is what to be better than.
    fn fewest(&self, tasks: &[usize], cost: &Cost, best: Option<&Cost>, steps: &mut usize) -> Fewest {
        let mut fewest = Fewest { bounds: Vec::new(), base: Vec::new(), groups: None };
        let mut joints: Joints = [0; MOST_KINDS];
        // Whether all that was found up to here is what the best has, and whether it is known to be the least.
        let (mut is_equal, mut is_sure) = (best.is_some(), true);
        for (kind, (position, slot)) in self.kinds.iter().enumerate() {
            let Some(packing) = self.packing(tasks, kind + 1) else { break };
            let base = self.base(tasks, *slot);
            let level = self.problem.levels.first().and_then(|levels| levels[*position]);
            let excess = best.zip(level).filter(|_| is_equal).map(|(best, level)| (best[level] - cost[level]) as i32);
            let least = packing.fewest_joints(kind).max(base);
            let most = excess.map_or(least + MOST_MORE, |excess| excess + base);
            let mut unknown = None;
            let mut found = None;
            for allowed in least..most {
                joints[kind] = allowed;
                match within_half(steps, |steps| packing.pack(joints, ANY, steps)) {
                    Packed::Fits(groups, places) => {
                        found = Some((groups, places));
                        break;
                    }
                    Packed::Never => {}
                    Packed::Unknown => drop(unknown.get_or_insert(allowed)),
                }
            }
            let is_found = found.is_some();
            if !is_found {
                joints[kind] = most;
            }
            if is_sure {
                fewest.bounds.push(unknown.unwrap_or(joints[kind]));
                fewest.base.push(base);
            }
            is_sure &= unknown.is_none();
            if kind + 1 == self.kinds.len() {
                fewest.groups = found.map(|(groups, places)| self.groups(tasks, &groups, &places));
            }
            if is_found {
                is_equal = false;
            } else if !is_equal {
                break;
            }
        }
        fewest
    }

    /// How many joints of a kind there are where each task has as few domains as it needs.
    fn base(&self, tasks: &[usize], slot: usize) -> i32 {
        tasks.iter().map(|task| self.problem.tasks[*task].least[slot] as i32 - 1).sum()
    }

    /// How many joints of each kind an arrangement of this cost has, `cost` being that of what is given out.
    fn joints_of(&self, cost: &Cost, complete: &Cost) -> Joints {
        let mut joints = [0; MOST_KINDS];
        for (joints, (position, slot)) in joints.iter_mut().zip(&self.kinds) {
            let levels = self.problem.levels.iter().filter_map(|levels| levels[*position]);
            let excess: i32 = levels.map(|level| complete[level] as i32 - cost[level] as i32).sum();
            *joints = self.base(&self.tasks, *slot) + excess;
        }
        joints
    }

    fn groups(&self, tasks: &[usize], groups: &[Bin], places: &[usize]) -> Vec<Group> {
        let group = |(index, group): (usize, &Bin)| {
            let cells = (0..self.cells.len()).filter(|cell| group.parts & (1 << cell) != 0);
            let inside = tasks.iter().zip(places).filter(|(_, place)| **place == index);
            (cells.collect(), inside.map(|(task, _)| *task).collect())
        };
        groups.iter().enumerate().map(group).collect()
    }

    /// How much those want together who want to be near each other and this task.
    fn company(&self, task: usize) -> u32 {
        let cluster = self.problem.cluster_of[task];
        let members = self.tasks.iter().filter(|other| self.problem.cluster_of[**other] == cluster);
        members.map(|member| self.problem.tasks[*member].count).sum()
    }

    /// The ties between two of the tasks in a kind of domain that counts.
    fn pairs(&self, tasks: &[usize]) -> Vec<Pair> {
        let mut pairs = Vec::new();
        for tie in &self.problem.ties {
            let (End::Task(from), End::Task(to)) = (&tie.from, &tie.to) else { continue };
            let place = |task: &usize| tasks.iter().position(|other| other == task);
            let kind = self.kinds.iter().position(|(_, slot)| *slot == tie.slot);
            if let (Some(from), Some(to), Some(kind), true) = (place(from), place(to), kind, from != to) {
                pairs.push(Pair { ends: [from, to], kind, together: tie.side == Side::Near });
            }
        }
        pairs
    }

    /// The bound with what the packings say. A bound of a lower level counts on the higher ones being met exactly, so
    /// where one of the two says more, what the other says of lower levels counts no longer.
    fn floor(&self, outlook: &Outlook, sofar: &Sofar, fewest: &[Fewest]) -> Cost {
        let Sofar { cost, bound, best: _ } = sofar;
        let mut floor: Cost = (*bound).clone();
        let (mut with_bound, mut with_packing) = (true, true);
        let (mut extra_nodes, mut raised) = (0, Vec::new());
        for (kind, (position, slot)) in self.kinds.iter().enumerate() {
            let mut before = 0;
            for (class, fewest) in fewest.iter().enumerate() {
                let excess = fewest.bounds.get(kind).map(|bound| (bound - fewest.base[kind]).max(0) as u32);
                let Some(level) = self.problem.levels[class][*position] else { continue };
                let own = excess.map(|excess| cost[level] + excess.saturating_sub(before));
                with_packing &= own.is_some();
                let own = own.filter(|_| with_packing).unwrap_or(cost[level]);
                let known = if with_bound { bound[level] } else { cost[level] };
                floor[level] = own.max(known);
                raised.extend((floor[level] > bound[level]).then_some(*slot));
                (with_bound, with_packing) = (with_bound && known >= own, with_packing && own >= known);
                before = excess.unwrap_or(0).max(before);
            }
            if *slot == NODE && with_packing {
                extra_nodes = before;
            }
        }
        // Wishes count on how many domains of those kinds are used of which they speak.
        let matters = |slot: &usize| *slot == NODE || self.problem.ties.iter().any(|tie| tie.slot == *slot);
        if raised.iter().any(matters) {
            let width = self.problem.width;
            floor[width - 2] = cost[width - 2];
            floor[width - 1] = cost[width - 1] + outlook.distance_of(self.problem, &self.tasks, extra_nodes);
        }
        floor
    }

    /// Fills the cells of each group, then in other orders of its tasks until nothing can be better: where cells of several
    /// domains hang together, whoever comes first lies in one of them, and whoever comes next may lie in two.
    fn arrange_best(&self, state: &State, mut groups: Vec<Group>, floor: &Cost) -> Option<(Cost, Vec<Share>)> {
        let mut best = self.arrange(state, &groups);
        for place in 0..groups.len() {
            for task in self.tied_inside(&groups[place]) {
                for is_first in [true, false] {
                    if best.as_ref().is_some_and(|(cost, _)| cost == floor) {
                        return best;
                    }
                    let before = groups[place].1.clone();
                    groups[place].1.retain(|other| *other != task);
                    let at = if is_first { 0 } else { groups[place].1.len() };
                    groups[place].1.insert(at, task);
                    let is_better = |(cost, _): &(Cost, Vec<Share>)| best.as_ref().is_none_or(|(best, _)| cost < best);
                    match self.arrange(state, &groups).filter(is_better) {
                        Some(better) => best = Some(better),
                        None => groups[place].1 = before,
                    }
                }
            }
        }
        best
    }

    /// The tasks of a group with ties to others in it, where it lies in several domains of the kind of the tie.
    fn tied_inside(&self, (places, tasks): &Group) -> Vec<usize> {
        let mut tied = Vec::new();
        for tie in &self.problem.ties {
            let (End::Task(from), End::Task(to)) = (&tie.from, &tie.to) else { continue };
            let domain = |place: &usize| self.problem.cells[self.cells[*place].cell].domains[tie.slot];
            let is_wide = places.iter().any(|place| domain(place) != domain(&places[0]));
            if is_wide && tasks.contains(from) && tasks.contains(to) {
                tied.extend([*from, *to]);
            }
        }
        tied.sort_unstable();
        tied.dedup();
        tied
    }

    /// Fills the cells of each group one after the other. None if a task may not have what is there.
    fn arrange(&self, state: &State, groups: &[Group]) -> Option<(Cost, Vec<Share>)> {
        let mut state = state.clone();
        let mut shares: Vec<(usize, Share)> = Vec::new();
        for (places, tasks) in groups {
            let mut cells: Vec<usize> = places.iter().map(|place| self.cells[*place].cell).collect();
            cells.sort_by_key(|cell| self.nesting(*cell));
            let mut free = state.free.clone();
            for task in tasks {
                let of = &self.problem.tasks[*task];
                let mut rest = of.count;
                let mut takes = Takes::new();
                for cell in &cells {
                    let units = self.problem.room(of, *cell, &free).min(rest);
                    if units > 0 {
                        takes.push((*cell as u16, units));
                        free[*cell] -= self.problem.weight(of, *cell, units);
                        rest -= units;
                    }
                }
                if rest > 0 {
                    return None;
                }
                takes.sort_unstable();
                shares.push((*task, self.problem.share(takes)));
            }
        }
        for (task, share) in shares {
            state.give(self.problem, task, share);
        }
        let cost = self.problem.cost_of(&state.shares)?;
        Some((cost, state.shares.into_iter().flatten().collect()))
    }

    /// The domains of a cell from the widest to the finest.
    fn nesting(&self, cell: usize) -> [u16; 4] {
        let domains = self.problem.cells[cell].domains;
        let count = |slot: usize| self.problem.domains[slot];
        let mut slots = [0, 1, 2];
        slots.sort_by_key(|slot| count(*slot));
        [domains[slots[0]], domains[slots[1]], domains[slots[2]], cell as u16]
    }
}

/// Spends half of the steps at most: what comes after an answer that nobody knows is easier.
fn within_half<T>(steps: &mut usize, act: impl FnOnce(&mut usize) -> T) -> T {
    let half = steps.div_ceil(2);
    let mut left = half;
    let result = act(&mut left);
    *steps -= half - left;
    result
}

/// The number of something among its like, from 0 in the order in which they come.
fn number_of<T: PartialEq>(known: &mut Vec<T>, one: T) -> usize {
    let number = known.iter().position(|other| *other == one);
    number.unwrap_or_else(|| {
        known.push(one);
        known.len() - 1
    })
}
