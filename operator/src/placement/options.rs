//! Which shares of the free cells one task may be given next: few, and the best of their kind. On small machines all
//! that there are.

use std::cmp::{Ordering, Reverse};

use lamina_crds::wishes::AlignPolicy;
use smallvec::SmallVec;

use crate::placement::machine::KINDS;
use crate::placement::problem::{End, L3, NODE, Own, Pieces, Problem, Share, Side, Takes, Tie};
use crate::placement::state::State;
use crate::placement::tree::Tree;

/// One share that a task may be given.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// The share.
    pub share: Share,
    /// What it costs its task.
    pub own: Own,
    /// What else speaks against it.
    pub remnants: Remnants,
}

/// What a share leaves broken; smaller is better.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Remnants {
    /// How many tasks that wait lose the room for a wish.
    pub cramped: u32,
    /// By how many more L3 caches, then nodes, are partly used.
    pub broken: [i32; 2],
    /// What is left free in the L3 caches, then nodes, that it touches.
    pub left: [u32; 2],
}

/// How widely to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// At the most promising only.
    Narrow,
    /// At alternatives as well.
    Wide,
}

/// Finds shares for one task. With [`Width::Narrow`] the best only.
pub fn candidates(problem: &Problem, tree: &Tree, state: &State, task: usize, width: Width) -> Vec<Candidate> {
    let mut finder = Finder::new(problem, tree, state, task, width);
    for kind in 0..problem.tasks[task].kinds.len() {
        finder.look(kind);
    }
    finder.found
}

/// All shares that a task may be given, up to exchanges of equal cells. None if they are more than the limit.
pub fn all(problem: &Problem, tree: &Tree, state: &State, task: usize, limit: usize) -> Option<Vec<Candidate>> {
    let mut finder = Finder::new(problem, tree, state, task, Width::Wide);
    for kind in 0..problem.tasks[task].kinds.len() {
        finder.measure(kind);
        let twins = finder.twins();
        let count = problem.tasks[task].count;
        if !finder.may_be_refused() && !finder.are_few(&twins, &mut Vec::new(), count, &mut Allowance::of(limit)) {
            return None;
        }
        if !finder.enumerate(&twins, 0, count, limit) {
            return None;
        }
    }
    Some(finder.found)
}

struct Finder<'a> {
    problem: &'a Problem,
    tree: &'a Tree,
    state: &'a State,
    task: usize,
    width: Width,
    /// Units that fit, by cell and by branch.
    room: Vec<u32>,
    available: Vec<u32>,
    /// Branches in which the task has cells for sure.
    is_touched: Vec<bool>,
    /// How many wishes go unmet by using a domain, by kind.
    penalties: [Vec<u32>; KINDS],
    has_penalties: bool,
    /// How much those want who wait and want to be near this task.
    company: u32,
    /// Those who wait and want to be apart from it.
    shy: Vec<usize>,
    /// By kind of domain, whether any tie speaks of it.
    has_ties: [bool; KINDS],
    takes: Takes,
    pending: Vec<(usize, u32)>,
    draft: Share,
    tried: usize,
    found: Vec<Candidate>,
}

impl<'a> Finder<'a> {
    fn new(problem: &'a Problem, tree: &'a Tree, state: &'a State, task: usize, width: Width) -> Self {
        let mut finder = Self {
            problem,
            tree,
            state,
            task,
            width,
            room: vec![0; problem.cells.len()],
            available: vec![0; tree.branches.len()],
            is_touched: Vec::new(),
            penalties: [Vec::new(), Vec::new(), Vec::new()],
            has_penalties: false,
            company: 0,
            shy: Vec::new(),
            has_ties: [0, 1, 2].map(|slot| problem.ties.iter().any(|tie| tie.slot == slot)),
            takes: Takes::new(),
            pending: Vec::new(),
            draft: Share::default(),
            tried: 0,
            found: Vec::new(),
        };
        finder.weigh_domains();
        finder
    }

    /// Notes which domains are against a wish, or out of the question.
    fn weigh_domains(&mut self) {
        let task = &self.problem.tasks[self.task];
        let here = End::Task(self.task);
        let is_tied = self.problem.ties.iter().any(|tie| tie.from == here || tie.to == here);
        if !is_tied && task.wished_nodes.is_empty() {
            return;
        }
        self.has_penalties = true;
        self.penalties = self.problem.domains.map(|count| vec![0; count]);
        for wished in &task.wished_nodes {
            for (node, penalty) in self.penalties[NODE].iter_mut().enumerate() {
                *penalty += u32::from(!wished.contains(&(node as u16)));
            }
        }
        let cluster = self.problem.cluster_of[self.task];
        for (other, task) in self.problem.tasks.iter().enumerate() {
            if other != self.task && self.problem.cluster_of[other] == cluster && self.state.shares[other].is_none() {
                self.company += task.count;
            }
        }
        for tie in &self.problem.ties {
            let other = match (tie.from == here, tie.to == here) {
                (true, false) => &tie.to,
                (false, true) => &tie.from,
                (true, true) | (false, false) => continue,
            };
            let used = match other {
                End::Task(other) => self.state.shares[*other].as_ref().map(|share| &share.used),
                End::Settled(used) => Some(used),
            };
            let Some(used) = used else {
                if let (Side::Apart, NODE, End::Task(other)) = (tie.side, tie.slot, other) {
                    self.shy.push(*other);
                }
                continue;
            };
            let weight = if tie.is_required { FORBIDDEN } else { 1 };
            for (domain, penalty) in self.penalties[tie.slot].iter_mut().enumerate() {
                let is_used = used[tie.slot].contains(&(domain as u16));
                let weight = match tie.side {
                    Side::Apart if is_used => weight,
                    Side::Near if !is_used && tie.from == here => weight,
                    Side::Near if !is_used => 1,
                    Side::Near | Side::Apart => 0,
                };
                *penalty = penalty.saturating_add(weight);
            }
        }
    }

    fn penalty(&self, slot: usize, domain: u16) -> u32 {
        if self.has_penalties { self.penalties[slot][domain as usize] } else { 0 }
    }

    /// Finds out how much fits where, on cores of one kind.
    fn measure(&mut self, kind: usize) {
        let task = &self.problem.tasks[self.task];
        let mixes = task.kinds.len() > 1;
        for (index, cell) in self.problem.cells.iter().enumerate() {
            let fits = !mixes || cell.kind == task.kinds[kind];
            let forbidden = self.has_penalties
                && (0..KINDS).any(|slot| self.penalties[slot][cell.domains[slot] as usize] >= FORBIDDEN);
            let room = if fits && !forbidden { self.problem.room(task, index, &self.state.free) } else { 0 };
            self.room[index] = room;
        }
    }

    fn look(&mut self, kind: usize) {
        self.measure(kind);
        let count = self.problem.tasks[self.task].count;
        if self.room.iter().sum::<u32>() < count {
            return;
        }
        let mut rest = count;
        self.is_touched.clear();
        self.takes.clear();
        if self.problem.tasks[self.task].held > 0 {
            rest = self.keep_held(count);
        }
        self.add_up();
        self.pending.clear();
        self.pending.push((0, rest));
        self.advance();
        if rest == count {
            self.redraw(count);
        }
    }

    /// Where a share needs several nodes, filling one after the other may cut more L3 caches than it must: the same nodes
    /// again, the largest caches first whatever their node.
    fn redraw(&mut self, count: u32) {
        let task = &self.problem.tasks[self.task];
        let prefers = |slot| task.align.contains(&(slot, AlignPolicy::Prefer));
        if !prefers(NODE) || !prefers(L3) {
            return;
        }
        let is_cut = |candidate: &&Candidate| {
            candidate.share.used[NODE].len() > 1 && candidate.own.excess.iter().any(|excess| *excess > 0)
        };
        let mut areas: Vec<SmallVec<[u16; 8]>> =
            self.found.iter().filter(is_cut).map(|candidate| candidate.share.used[NODE].clone()).collect();
        areas.sort_unstable();
        areas.dedup();
        for nodes in areas {
            self.take_largest_caches(&nodes, count);
            // Nodes that another kind of core was found in may hold too little of this one.
            if self.takes.iter().map(|(_, units)| units).sum::<u32>() == count {
                self.emit();
            }
            self.takes.clear();
        }
    }

    /// Takes the largest caches of these nodes, at last the smallest that has enough for the rest.
    fn take_largest_caches(&mut self, nodes: &[u16], count: u32) {
        let mut caches: Vec<(u32, Vec<usize>)> = vec![(0, Vec::new()); self.problem.domains[L3]];
        for (index, cell) in self.problem.cells.iter().enumerate() {
            if nodes.contains(&cell.domains[NODE]) && self.room[index] > 0 {
                let (room, cells) = &mut caches[cell.domains[L3] as usize];
                *room += self.room[index];
                cells.push(index);
            }
        }
        caches.sort_by_key(|(room, _)| Reverse(*room));
        let mut rest = count;
        while rest > 0 && !caches.is_empty() {
            let enough = caches.iter().rposition(|(room, _)| *room >= rest);
            let (_, cells) = caches.remove(enough.unwrap_or(0));
            for cell in cells {
                let units = self.room[cell].min(rest);
                if units > 0 {
                    self.takes.push((cell as u16, units));
                    rest -= units;
                }
            }
        }
    }

    /// Takes what is held, or looks nowhere else if that is enough. Returns how much is still to be found.
    fn keep_held(&mut self, count: u32) -> u32 {
        let is_held = |cell: usize| self.problem.cells[cell].holder == Some(self.task);
        let held: Vec<usize> = (0..self.room.len()).filter(|cell| is_held(*cell) && self.room[*cell] > 0).collect();
        let total: u32 = held.iter().map(|cell| self.room[*cell]).sum();
        if total >= count {
            (0..self.room.len()).filter(|cell| !is_held(*cell)).for_each(|cell| self.room[cell] = 0);
            return count;
        }
        self.is_touched = vec![false; self.tree.branches.len()];
        for cell in held {
            self.takes.push((cell as u16, std::mem::take(&mut self.room[cell])));
            for (branch, touched) in self.tree.branches.iter().zip(&mut self.is_touched) {
                *touched |= branch.cells.contains(&cell);
            }
        }
        count - total
    }

    fn add_up(&mut self) {
        for index in (0..self.tree.branches.len()).rev() {
            let branch = &self.tree.branches[index];
            self.available[index] = match branch.children.is_empty() {
                true => branch.cells.iter().map(|cell| self.room[*cell]).sum(),
                false => branch.children.iter().map(|child| self.available[*child]).sum(),
            };
        }
    }

    /// Decides the next pending branch in all ways that are worth it; with none pending the share is complete.
    fn advance(&mut self) {
        let Some((branch, count)) = self.pending.pop() else { return self.emit() };
        if count == 0 {
            self.advance();
        } else if self.tree.branches[branch].children.is_empty() {
            let before = self.takes.len();
            self.take_cells(branch, count);
            self.advance();
            self.takes.truncate(before);
        } else {
            match self.tree.positions[self.tree.branches[branch].depth].1 {
                AlignPolicy::Spread => self.spread(branch, count),
                AlignPolicy::Require | AlignPolicy::Prefer | AlignPolicy::Ignore => self.gather(branch, count),
            }
        }
        self.pending.push((branch, count));
    }

    /// Takes cells of a leaf, those that nobody holds first.
    fn take_cells(&mut self, branch: usize, mut count: u32) {
        for is_foreign in [false, true] {
            for cell in &self.tree.branches[branch].cells {
                let holder = self.problem.cells[*cell].holder;
                let foreign = holder.is_some_and(|holder| holder != self.task);
                let units = if foreign == is_foreign { self.room[*cell].min(count) } else { 0 };
                if units > 0 {
                    self.takes.push((*cell as u16, units));
                    count -= units;
                }
            }
        }
    }

    /// Out of the fewest domains.
    fn gather(&mut self, branch: usize, mut count: u32) {
        let tree = self.tree;
        let before = self.takes.len();
        if self.is_touched.is_empty() {
            return self.choose(&tree.branches[branch].children, count);
        }
        let mut children: Vec<usize> = tree.branches[branch].children.clone();
        children.retain(|child| self.available[*child] > 0);
        if !self.is_touched.is_empty() {
            let touched: Vec<usize> = children.iter().copied().filter(|child| self.is_touched[*child]).collect();
            let room: u32 = touched.iter().map(|child| self.available[*child]).sum();
            if room >= count {
                children = touched;
            } else {
                touched.iter().for_each(|child| self.take_cells(*child, u32::MAX));
                children.retain(|child| !self.is_touched[*child]);
                count -= room;
            }
        }
        self.choose(&children, count);
        self.takes.truncate(before);
    }

    fn choose(&mut self, children: &[usize], count: u32) {
        let Some(first) = children.first() else { return };
        let depth = self.tree.branches[*first].depth;
        let slot = self.tree.positions[depth - 1].0;
        let is_last = depth == self.tree.positions.len();
        let is_enough = |child: &&usize| self.available[**child] >= count;
        let key = |child: &usize| (self.penalty(slot, self.tree.branches[*child].domain), self.available[*child]);
        let best = || children.iter().filter(is_enough).min_by_key(|child| key(child)).copied();
        if let Some(child) = (is_last && self.width == Width::Narrow).then(best).flatten() {
            return self.descend(child, count);
        }
        let mut sufficient: Vec<usize> = children.iter().filter(is_enough).copied().collect();
        if !sufficient.is_empty() {
            if is_last {
                sufficient.sort_by_key(key);
                sufficient.dedup_by_key(|child| (!self.has_ties[slot]).then_some(key(child)).ok_or(*child));
            }
            sufficient.into_iter().for_each(|child| self.descend(child, count));
            return;
        }
        let mut starts: Vec<usize> = children.iter().copied().filter(|child| self.available[*child] > 0).collect();
        if is_last {
            starts.sort_by_key(|child| Reverse(self.available[*child]));
            if slot == L3 && !self.has_ties[slot] {
                // Caches that hold as much are as good to begin with.
                starts.dedup_by_key(|child| self.available[*child]);
            }
            starts.truncate(if self.width == Width::Narrow { 1 } else { 4 });
        }
        for start in starts {
            self.chain(children, start, slot, count);
        }
    }

    fn descend(&mut self, child: usize, count: u32) {
        self.pending.push((child, count));
        self.advance();
        self.pending.pop();
    }

    /// Takes all of the first domain, then on to the one that is close and has enough for the rest, else to the largest.
    fn chain(&mut self, children: &[usize], start: usize, slot: usize, mut count: u32) {
        let before = self.takes.len();
        let domain = |child: usize| self.tree.branches[child].domain;
        let distance = |child: usize| match slot {
            NODE => self.problem.distance(domain(start), domain(child)),
            _ => 0,
        };
        let mut order = Vec::new();
        let mut rest: Vec<usize> =
            children.iter().copied().filter(|child| *child != start && self.available[*child] > 0).collect();
        let mut next = start;
        while self.available[next] < count {
            order.push(next);
            count -= self.available[next];
            let closeness = |child: &usize| (self.penalty(slot, domain(*child)), distance(*child));
            let enough = rest.iter().filter(|child| self.available[**child] >= count);
            let close = enough.min_by_key(|child| (closeness(child), self.available[**child], **child));
            let largest =
                || rest.iter().min_by_key(|child| (Reverse(self.available[**child]), closeness(child), **child));
            let Some(chosen) = close.or_else(largest).copied() else { return };
            rest.retain(|child| *child != chosen);
            next = chosen;
        }
        order.iter().for_each(|child| self.take_cells(*child, u32::MAX));
        self.descend(next, count);
        self.takes.truncate(before);
    }

    /// The same amount out of every domain, as far as each has it.
    fn spread(&mut self, branch: usize, count: u32) {
        let children = &self.tree.branches[branch].children;
        let mut amounts: Vec<(usize, u32)> = children.iter().map(|child| (*child, 0)).collect();
        for _ in 0..count {
            let open = amounts.iter_mut().filter(|(child, amount)| *amount < self.available[*child]);
            let Some((_, amount)) = open.min_by_key(|(child, amount)| (*amount, *child)) else { return };
            *amount += 1;
        }
        let depth = self.pending.len();
        self.pending.extend(amounts.into_iter().rev());
        self.advance();
        self.pending.truncate(depth);
    }

    /// The groups of cells that may be exchanged for each other, as the index of the group's first cell.
    fn twins(&self) -> Vec<usize> {
        let cells = &self.problem.cells;
        let mut per_cache = vec![0; self.problem.domains[L3]];
        cells.iter().for_each(|cell| per_cache[cell.domains[L3] as usize] += 1);
        let is_alone = |cell: usize| per_cache[cells[cell].domains[L3] as usize] == 1;
        let may_differ = !self.has_ties[L3];
        let alike = |one: usize, other: usize| {
            let (a, b) = (&cells[one], &cells[other]);
            let same = (a.domains[0], a.domains[NODE], a.kind, a.weight, a.holder, a.is_reserved)
                == (b.domains[0], b.domains[NODE], b.kind, b.weight, b.holder, b.is_reserved);
            let same_stuff = matches!(a.pieces, Pieces::Cores(_)) == matches!(b.pieces, Pieces::Cores(_));
            may_differ
                && same
                && same_stuff
                && is_alone(one)
                && is_alone(other)
                && self.state.free[one] == self.state.free[other]
                && self.room[one] == self.room[other]
        };
        (0..cells.len()).map(|cell| (0..cell).find(|first| alike(*first, cell)).unwrap_or(cell)).collect()
    }

    /// Whether something must hold that a share may break.
    fn may_be_refused(&self) -> bool {
        let task = &self.problem.tasks[self.task];
        let here = End::Task(self.task);
        let insists = |tie: &Tie| tie.is_required && (tie.from == here || tie.to == here);
        task.align.iter().any(|(_, policy)| *policy == AlignPolicy::Require) || self.problem.ties.iter().any(insists)
    }

    /// Whether the ways to take so much from the next cell on are within the allowance, which is counted down. `given` is
    /// what the cells before it give.
    fn are_few(&self, twins: &[usize], given: &mut Vec<u32>, count: u32, allowance: &mut Allowance) -> bool {
        let cell = given.len();
        if !allowance.try_once() {
            return false;
        }
        if count == 0 {
            return allowance.find_once();
        }
        if cell == self.room.len() || self.room[cell..].iter().sum::<u32>() < count {
            return true;
        }
        let previous = (0..cell).rev().find(|other| twins[*other] == twins[cell]);
        let most = self.room[cell].min(count).min(previous.map_or(u32::MAX, |previous| given[previous]));
        (0..=most).rev().all(|units| {
            given.push(units);
            let are_few = self.are_few(twins, given, count - units, allowance);
            given.pop();
            are_few
        })
    }

    /// Emits every way to take so much from this cell on. False if there are more than the limit.
    fn enumerate(&mut self, twins: &[usize], cell: usize, count: u32, limit: usize) -> bool {
        self.tried += 1;
        if self.tried > TRIES * limit {
            return false;
        }
        if count == 0 {
            self.emit();
            return self.found.len() <= limit;
        }
        if cell == self.room.len() || self.room[cell..].iter().sum::<u32>() < count {
            return true;
        }
        // Of equal cells the earlier one gives at least as much as the later one.
        let previous = (0..cell).rev().find(|other| twins[*other] == twins[cell]);
        let given = |cell: usize| self.takes.iter().find(|(taken, _)| *taken as usize == cell).map_or(0, |take| take.1);
        let most = self.room[cell].min(count).min(previous.map_or(u32::MAX, given));
        for units in (0..=most).rev() {
            if units > 0 {
                self.takes.push((cell as u16, units));
            }
            let goes_on = self.enumerate(twins, cell + 1, count - units, limit);
            if units > 0 {
                self.takes.pop();
            }
            if !goes_on {
                return false;
            }
        }
        true
    }

    fn emit(&mut self) {
        let mut draft = std::mem::take(&mut self.draft);
        draft.takes.clone_from(&self.takes);
        draft.takes.sort_unstable();
        draft.takes.dedup_by(|later, earlier| {
            let same = later.0 == earlier.0;
            earlier.1 += if same { later.1 } else { 0 };
            same
        });
        self.problem.find_used(&mut draft);
        if let Some(own) = self.problem.own(self.task, &draft, &self.state.shares) {
            let remnants = self.remnants(&draft);
            let is_wanted = self.width == Width::Wide
                || self.found.first().is_none_or(|best| {
                    let merits = (&best.own, &best.remnants, &best.share.takes);
                    compare((&own, &remnants, &draft.takes), merits).is_lt()
                });
            if is_wanted {
                if self.width == Width::Narrow {
                    self.found.clear();
                }
                self.found.push(Candidate { share: draft.clone(), own, remnants });
            }
        }
        self.draft = draft;
    }

    /// How many waiting tasks that want to be near find too little room beside this share, or none elsewhere that want
    /// to be apart.
    fn cramped(&self, share: &Share) -> u32 {
        let problem = self.problem;
        let nodes = &share.used[NODE];
        let mut cramped = 0;
        if self.company > 0 {
            let free: u32 = nodes.iter().map(|node| self.state.domain_free[NODE][*node as usize]).sum();
            let task = &problem.tasks[self.task];
            let own: u32 = share.takes.iter().map(|(cell, units)| problem.weight(task, *cell as usize, *units)).sum();
            cramped += u32::from(free < own + self.company);
        }
        for other in &self.shy {
            let elsewhere = (0..problem.domains[NODE] as u16).filter(|node| !nodes.contains(node));
            let most = elsewhere.map(|node| self.state.domain_free[NODE][node as usize]).max();
            cramped += u32::from(most.unwrap_or(0) < problem.tasks[*other].count);
        }
        cramped
    }

    fn remnants(&self, share: &Share) -> Remnants {
        let task = &self.problem.tasks[self.task];
        let mut remnants = Remnants { cramped: self.cramped(share), ..Remnants::default() };
        for (place, slot) in [L3, NODE].into_iter().enumerate() {
            for domain in &share.used[slot] {
                let takes =
                    share.takes.iter().filter(|(cell, _)| self.problem.cells[*cell as usize].domains[slot] == *domain);
                let taken: u32 = takes.map(|(cell, units)| self.problem.weight(task, *cell as usize, *units)).sum();
                let free = self.state.domain_free[slot][*domain as usize];
                let total = self.problem.totals[slot][*domain as usize];
                let is_broken = |free: u32| i32::from(free > 0 && free < total);
                remnants.broken[place] += is_broken(free - taken) - is_broken(free);
                remnants.left[place] += free - taken;
            }
        }
        remnants
    }
}

/// How many steps finding all shares may take for each share.
const TRIES: usize = 20;

/// How many steps and shares are left.
struct Allowance {
    tries: usize,
    shares: usize,
}

impl Allowance {
    fn of(limit: usize) -> Self {
        Self { tries: TRIES * limit, shares: limit }
    }

    fn try_once(&mut self) -> bool {
        count_down(&mut self.tries)
    }

    fn find_once(&mut self) -> bool {
        count_down(&mut self.shares)
    }
}

/// Takes one. False if there is none.
fn count_down(left: &mut usize) -> bool {
    let is_left = *left > 0;
    *left = left.saturating_sub(1);
    is_left
}

/// A penalty that no number of wishes reaches.
const FORBIDDEN: u32 = 1 << 20;

impl Candidate {
    /// Which of two candidates is better: by cost, then remnants, then more of the lower cells.
    pub fn compare(&self, other: &Self) -> Ordering {
        let one = (&self.own, &self.remnants, &self.share.takes);
        compare(one, (&other.own, &other.remnants, &other.share.takes))
    }
}

type Merits<'a> = (&'a Own, &'a Remnants, &'a Takes);

fn compare(one: Merits, other: Merits) -> Ordering {
    let more_first = |take: &(u16, u32)| (take.0, Reverse(take.1));
    let by_weight = (one.0, one.1).cmp(&(other.0, other.1));
    by_weight.then_with(|| one.2.iter().map(more_first).cmp(other.2.iter().map(more_first)))
}
