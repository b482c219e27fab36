//! Finds the best arrangement: rounds that give out shares one task after the other, the unlucky first the next time,
//! until the lower bound is met; else branch and bound up to a number of steps. Never by time.

use std::cmp::Reverse;
use std::collections::VecDeque;

use crate::placement::bound::{Outlook, Prospect};
use crate::placement::crossings::{Crossings, Sofar, crossings, ties};
use crate::placement::kinds::with_kinds_chosen;
use crate::placement::options::{Candidate, Width, all, candidates};
use crate::placement::problem::{Cost, End, Own, Problem, Share};
use crate::placement::shapes::Dice;
use crate::placement::state::State;
use crate::placement::tree::Tree;

/// How many rounds are tried.
const ROUNDS: usize = 6;
/// How many shares branch and bound may look at.
pub const STEPS: usize = 20_000;
/// The same where not all shares of a task can be tried, so that nothing is proven by trying.
const SOME_STEPS: usize = 500;
/// How many steps packing may take where the rounds did not meet the bound.
const PACKING_STEPS: usize = 2000;
/// The same for ties, at first.
const FEW_TIES_STEPS: usize = 100;
/// The same where trying shares did not meet the bound either.
const TIES_STEPS: usize = 600;
/// How many small groups of tasks are placed anew where the bound is not met.
const MENDINGS: usize = 300;
/// The same where only wishes and distances may be better.
const FEW_MENDINGS: usize = 40;
/// Up to how many cells times tasks there are as many; on larger hosts, where each costs more, fewer.
const FULL_MENDINGS: usize = 128;
/// How often that begins again from the first arrangement.
const MENDING_STARTS: u64 = 2;
/// How many shares each of these may look at.
const MENDING_STEPS: usize = 30;
/// How many tasks such a group has at most.
const LARGEST_GROUP: u32 = 6;
/// Up to how many shares of one task all are tried on a machine of few cells.
const ALL: usize = 300;
/// How many cells are few.
const FEW_CELLS: usize = 8;
/// The same on a machine of more cells.
const ALL_OF_MORE: usize = 60;
/// On a machine of yet more cells nobody tries all shares: they are too many.
const MORE_CELLS: usize = 16;
/// How many shares of one task are tried where there are more.
const SOME: usize = 12;

/// An arrangement, and how good it is known to be.
#[derive(Clone, Debug)]
pub struct Arrangement {
    /// What each task gets.
    pub shares: Vec<Share>,
    /// What that costs.
    pub cost: Cost,
    /// What every arrangement costs at least.
    pub bound: Cost,
}

/// What a search comes to.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// The best that was found.
    Found(Arrangement),
    /// There is none.
    Impossible,
    /// None was found before the search ended at its bound.
    Unknown,
}

/// Searches, with so many steps of branch and bound at most.
pub fn search(problem: &Problem, steps: usize) -> Outcome {
    let mut search = Search::of(problem, steps);
    let mut start = State::empty(problem);
    let kept = search.keep_incumbents(&mut start);
    if kept > 0 {
        let Outcome::Found(found) = search.run(&start) else { return search.run(&State::empty(problem)) };
        if found.cost[0] == 0 {
            return Outcome::Found(found);
        }
        return match search.run(&State::empty(problem)) {
            Outcome::Found(other) if other.cost < found.cost => Outcome::Found(other),
            Outcome::Found(other) => Outcome::Found(Arrangement { bound: other.bound, ..found }),
            Outcome::Impossible | Outcome::Unknown => Outcome::Found(found),
        };
    }
    search.run(&start)
}

struct Search<'a> {
    problem: &'a Problem,
    outlook: Outlook,
    trees: Vec<Tree>,
    /// The tree of each task.
    tree_of: Vec<usize>,
    best: Option<(Cost, Vec<Share>)>,
    /// What every arrangement costs at least.
    floor: Cost,
    steps: usize,
    limit: usize,
    /// The limit once something was left out.
    some_limit: usize,
    /// Whether nothing was left out.
    is_complete: bool,
}

impl<'a> Search<'a> {
    fn of(problem: &'a Problem, limit: usize) -> Self {
        let mut aligns = Vec::new();
        let mut tree_of = Vec::new();
        for task in &problem.tasks {
            let known = aligns.iter().position(|align| *align == &task.align);
            tree_of.push(known.unwrap_or(aligns.len()));
            if known.is_none() {
                aligns.push(&task.align);
            }
        }
        let trees = aligns.into_iter().map(|align| Tree::of(problem, align)).collect();
        let outlook = Outlook::of(problem);
        Self {
            problem,
            outlook,
            trees,
            tree_of,
            best: None,
            floor: Cost::new(),
            steps: 0,
            limit,
            some_limit: 0,
            is_complete: true,
        }
    }

    /// Gives those who hold exactly what they want just that: without moves there is nothing else for them. Returns how
    /// many they are.
    fn keep_incumbents(&self, state: &mut State) -> usize {
        let mut kept = 0;
        for (index, task) in self.problem.tasks.iter().enumerate() {
            if task.held != task.count {
                continue;
            }
            let held = self.problem.cells.iter().enumerate().filter(|(_, cell)| cell.holder == Some(index));
            let takes = held.map(|(cell, _)| (cell as u16, self.problem.room(task, cell, &state.free)));
            let share = self.problem.share(takes.filter(|(_, units)| *units > 0).collect());
            if self.problem.own(index, &share, &state.shares).is_none() {
                let given: Vec<usize> = (0..index).filter(|task| state.shares[*task].is_some()).collect();
                given.into_iter().for_each(|task| drop(state.take_back(self.problem, task)));
                return 0;
            }
            state.give(self.problem, index, share);
            kept += 1;
        }
        kept
    }

    fn run(&mut self, start: &State) -> Outcome {
        self.best = None;
        self.is_complete = true;
        let Some(cost) = self.problem.cost_of(&start.shares) else { return Outcome::Impossible };
        let Some(bound) = self.outlook.first_bound(self.problem, start, &cost) else { return Outcome::Impossible };
        self.floor.clone_from(&bound);
        let order = self.rounds(start, &cost, &bound);
        if self.best.is_none() {
            self.choose_kinds(start, &cost, &bound);
        }
        if !self.is_done() {
            self.count_crossings(start, &cost);
            self.count_ties(start, &cost, FEW_TIES_STEPS);
            self.try_shares(start, &cost, &order);
            if !self.is_complete {
                self.count_ties(start, &cost, TIES_STEPS);
            }
            if !self.is_complete && !self.is_done() && self.limit >= STEPS {
                self.mend(start, &cost);
            }
        }
        match self.best.take() {
            Some((cost, shares)) => {
                debug_assert!(
                    cost >= self.floor,
                    "{cost:?} is better than {:?}, which was called the least",
                    self.floor
                );
                let bound = if self.is_complete { cost.clone() } else { self.floor.clone() };
                Outcome::Found(Arrangement { shares, cost, bound })
            }
            None if self.is_complete => Outcome::Impossible,
            None => Outcome::Unknown,
        }
    }

    /// Begins with kinds of core that fit, where taking them one task after the other left somebody without.
    fn choose_kinds(&mut self, start: &State, cost: &Cost, bound: &Cost) {
        let Some(problem) = with_kinds_chosen(self.problem, start) else { return };
        let mut search = Search::of(&problem, self.limit);
        search.rounds(start, cost, bound);
        let Some((_, shares)) = search.best else { return };
        let given: Vec<Option<Share>> = shares.iter().cloned().map(Some).collect();
        self.best = self.problem.cost_of(&given).map(|cost| (cost, shares));
    }

    /// Sharpens the bound where the rounds did not meet it, and takes over what is better.
    fn count_crossings(&mut self, start: &State, cost: &Cost) {
        let best = self.best.as_ref().map(|(cost, _)| cost);
        let sofar = Sofar { cost, bound: &self.floor, best };
        let counted = crossings(self.problem, &self.outlook, start, &sofar, PACKING_STEPS);
        self.take_over(counted);
    }

    /// The same for ties.
    fn count_ties(&mut self, start: &State, cost: &Cost, steps: usize) {
        if self.is_done() {
            return;
        }
        let best = self.best.as_ref().map(|(cost, _)| cost);
        let sofar = Sofar { cost, bound: &self.floor, best };
        let counted = ties(self.problem, &self.outlook, start, &sofar, steps);
        self.take_over(counted);
    }

    fn take_over(&mut self, counted: Option<Crossings>) {
        let Some(Crossings { floor, found }) = counted else { return };
        let is_better = |(cost, _): &(Cost, Vec<Share>)| self.best.as_ref().is_none_or(|(best, _)| cost < best);
        if let Some(better) = found.filter(is_better) {
            self.best = Some(better);
        }
        self.floor = floor;
    }

    fn is_done(&self) -> bool {
        self.best.as_ref().is_some_and(|(cost, _)| *cost == self.floor)
    }

    /// Gives out shares one task after the other, in several orders. Returns the order that went best.
    fn rounds(&mut self, start: &State, cost: &Cost, bound: &Cost) -> Vec<usize> {
        let mut order: Vec<usize> =
            (0..self.problem.tasks.len()).filter(|task| start.shares[*task].is_none()).collect();
        let mut best_order = order.clone();
        let mut seen: Vec<Vec<usize>> = Vec::new();
        for round in 0..ROUNDS {
            match round {
                0 if self.problem.ties.is_empty() => {}
                0 => order.sort_by_cached_key(|task| self.urgency(*task)),
                1 if self.problem.ties.is_empty() => order.sort_by_cached_key(|task| self.urgency(*task)),
                1 => order = self.linked(&order),
                2.. => {}
            }
            if seen.contains(&order) {
                break;
            }
            seen.push(order.clone());
            let unlucky = self.round(start, cost, &order, &mut best_order);
            if self.best.as_ref().is_some_and(|(cost, _)| cost == bound) {
                break;
            }
            let cluster_of = &self.problem.cluster_of;
            let unlucky: Vec<usize> = unlucky.iter().map(|task| cluster_of[*task]).collect();
            order.sort_by_key(|task| !unlucky.contains(&cluster_of[*task]));
        }
        best_order
    }

    /// The order in which each cluster follows one that it wants to be apart from, so that the first to come decide for
    /// all that hang on them.
    fn linked(&self, order: &[usize]) -> Vec<usize> {
        let cluster_of = &self.problem.cluster_of;
        let mut linked: Vec<usize> = Vec::with_capacity(order.len());
        let mut queue: VecDeque<usize> = VecDeque::new();
        let mut known = vec![false; cluster_of.len()];
        for first in order {
            queue.push_back(cluster_of[*first]);
            while let Some(cluster) = queue.pop_front() {
                if std::mem::replace(&mut known[cluster], true) {
                    continue;
                }
                linked.extend(order.iter().filter(|task| cluster_of[**task] == cluster));
                for tie in &self.problem.ties {
                    if let (End::Task(from), End::Task(to)) = (&tie.from, &tie.to) {
                        let (from, to) = (cluster_of[*from], cluster_of[*to]);
                        queue
                            .extend((from == cluster).then_some(to).into_iter().chain((to == cluster).then_some(from)));
                    }
                }
            }
        }
        linked
    }

    /// Those with the least choice first, then the largest, whoever wants to be near each other together.
    fn urgency(&self, task: usize) -> impl Ord + use<> {
        let of = &self.problem.tasks[task];
        let choice = of.allowed.iter().filter(|allowed| **allowed).count();
        let cluster = self.problem.cluster_of[task];
        let members = (0..self.problem.tasks.len()).filter(|other| self.problem.cluster_of[*other] == cluster);
        let together: u32 = members.map(|member| self.problem.tasks[member].count).sum();
        (of.held < of.count, choice, Reverse(together), cluster, Reverse(of.count), task)
    }

    /// One round. Returns those who got less than they might have.
    fn round(&mut self, start: &State, cost: &Cost, order: &[usize], best_order: &mut Vec<usize>) -> Vec<usize> {
        let mut state = start.clone();
        let mut cost = cost.clone();
        let mut unlucky = Vec::new();
        for task in order {
            let tree = &self.trees[self.tree_of[*task]];
            let found = candidates(self.problem, tree, &state, *task, Width::Narrow);
            let Some(Candidate { share, own, .. }) = found.into_iter().next() else {
                unlucky.push(*task);
                return unlucky;
            };
            if own.moves > 0 || own.excess.iter().any(|excess| *excess > 0) || own.wishes > 0 {
                unlucky.push(*task);
            }
            self.problem.add(&mut cost, self.problem.tasks[*task].class, &own);
            state.give(self.problem, *task, share);
        }
        if self.best.as_ref().is_none_or(|(best, _)| cost < *best) {
            *best_order = order.to_vec();
            self.best = Some((cost, state.shares.into_iter().flatten().collect()));
        }
        unlucky
    }

    /// Branch and bound over all that wait.
    fn try_shares(&mut self, start: &State, cost: &Cost, order: &[usize]) {
        self.steps = 0;
        self.some_limit = self.limit.min(SOME_STEPS);
        if let Some(prospect) = self.outlook.look(self.problem, start, cost) {
            self.branch(&mut start.clone(), cost, order, &prospect);
        }
    }

    /// Tries the shares of the first task of the order, best first, and so on. `prospect` is that of what is given out.
    fn branch(&mut self, state: &mut State, cost: &Cost, order: &[usize], prospect: &Prospect) {
        if self.best.as_ref().is_some_and(|(best, _)| prospect.bound >= *best || *best == self.floor) {
            return;
        }
        let Some((task, rest)) = order.split_first() else {
            self.best = Some((cost.clone(), state.shares.iter().flatten().cloned().collect()));
            return;
        };
        let limit = if self.is_complete { self.limit } else { self.some_limit };
        if self.steps >= limit {
            self.is_complete = false;
            return;
        }
        let choices = self.choices(state, *task);
        self.steps += 1 + choices.len();
        let others = self.outlook.others(self.problem, state, *task, prospect);
        for candidate in choices {
            let Candidate { share, own, .. } = candidate;
            if self.is_lost(&others, *task, &own) {
                continue;
            }
            let mut cost = cost.clone();
            self.problem.add(&mut cost, self.problem.tasks[*task].class, &own);
            state.give(self.problem, *task, share);
            if let Some(prospect) = self.outlook.look(self.problem, state, &cost) {
                self.branch(state, &cost, rest, &prospect);
            }
            state.take_back(self.problem, *task);
        }
    }

    /// Whether a share that costs so much cannot lead to anything better, whatever the others get: by all but the distance,
    /// which nobody knows before.
    fn is_lost(&self, others: &Cost, task: usize, own: &Own) -> bool {
        let Some((best, _)) = &self.best else { return false };
        let mut least = others.clone();
        self.problem.add(&mut least, self.problem.tasks[task].class, own);
        let known = self.problem.width - 1;
        least[..known] > best[..known]
    }

    /// Takes small groups of tasks out of the best arrangement, one that got less than it might have among them, and
    /// searches for better shares of theirs. The groups are drawn by a fixed sequence, so the answer is the same each time.
    fn mend(&mut self, start: &State, cost: &Cost) {
        self.some_limit = MENDING_STEPS;
        let waiting: Vec<usize> = (0..start.shares.len()).filter(|task| start.shares[*task].is_none()).collect();
        let first = self.best.clone();
        let mut finest = first.clone();
        for seed in 1..=MENDING_STARTS {
            self.best.clone_from(&first);
            if seed > 1 {
                self.begin_elsewhere(seed, start, cost);
            }
            self.mend_by(&mut Dice::new(seed), start, &waiting);
            let is_finer = match (&self.best, &finest) {
                (Some((cost, _)), Some((finest, _))) => cost < finest,
                (found, None) => found.is_some(),
                (None, Some(_)) => false,
            };
            if is_finer {
                finest.clone_from(&self.best);
            }
            if finest.as_ref().is_some_and(|(cost, _)| *cost == self.floor) {
                break;
            }
        }
        self.best = finest;
    }

    /// One round in an order that is drawn by lot.
    fn begin_elsewhere(&mut self, seed: u64, start: &State, cost: &Cost) {
        let mut dice = Dice::new(seed);
        let mut order = Vec::new();
        for task in (0..self.problem.tasks.len()).filter(|task| start.shares[*task].is_none()) {
            order.insert(dice.below(order.len() as u32 + 1) as usize, task);
        }
        let before = self.best.take();
        self.round(start, cost, &order, &mut Vec::new());
        if self.best.is_none() {
            self.best = before;
        }
    }

    fn mend_by(&mut self, dice: &mut Dice, start: &State, waiting: &[usize]) {
        for _ in 0..self.mendings() {
            let Some((cost, shares)) = &self.best else { return };
            if *cost == self.floor {
                return;
            }
            let mut state = start.clone();
            for task in waiting {
                state.give(self.problem, *task, shares[*task].clone());
            }
            let unlucky = self.unlucky(waiting, &state.shares);
            if unlucky.is_empty() || waiting.len() < 2 {
                return;
            }
            let cost = cost.clone();
            let mut group = vec![unlucky[dice.below(unlucky.len() as u32) as usize]];
            for _ in 0..1 + dice.below(LARGEST_GROUP - 1) {
                let other = waiting[dice.below(waiting.len() as u32) as usize];
                if !group.contains(&other) {
                    group.insert(dice.below(group.len() as u32 + 1) as usize, other);
                }
            }
            self.place_anew(state, cost, &group);
        }
    }

    /// How many small groups are worth it.
    fn mendings(&self) -> usize {
        let domains = self.problem.width - 2;
        let has_fewest = |(best, _): &(Cost, Vec<Share>)| best[..domains] == self.floor[..domains];
        let size = self.problem.cells.len() * self.problem.tasks.len();
        let most = MENDINGS * FULL_MENDINGS / size.max(FULL_MENDINGS);
        if self.best.as_ref().is_some_and(has_fewest) { most.min(FEW_MENDINGS) } else { most }
    }

    /// Those who got less than they might have.
    fn unlucky(&self, waiting: &[usize], shares: &[Option<Share>]) -> Vec<usize> {
        let got_less = |task: &usize| {
            let own = shares[*task].as_ref().and_then(|share| self.problem.own(*task, share, shares));
            own.is_some_and(|own| own.moves > 0 || own.excess.iter().any(|excess| *excess > 0) || own.wishes > 0)
        };
        waiting.iter().copied().filter(got_less).collect()
    }

    /// Searches for better shares of a group while everybody else keeps theirs. Then deals the group's shares out anew:
    /// an arrangement that is as good is another place to go on from.
    fn place_anew(&mut self, mut state: State, mut cost: Cost, group: &[usize]) {
        for task in group {
            let taken = state.take_back(self.problem, *task);
            let Some(own) = taken.and_then(|share| self.problem.own(*task, &share, &state.shares)) else {
                return;
            };
            self.problem.subtract(&mut cost, self.problem.tasks[*task].class, &own);
        }
        self.steps = 0;
        if let Some(prospect) = self.outlook.look(self.problem, &state, &cost) {
            self.branch(&mut state, &cost, group, &prospect);
        }
        self.deal(state, cost, group);
    }

    /// Gives the best share of what is free to one after the other, and goes on from there unless it is worse.
    fn deal(&mut self, mut state: State, mut cost: Cost, group: &[usize]) {
        for task in group {
            let tree = &self.trees[self.tree_of[*task]];
            let found = candidates(self.problem, tree, &state, *task, Width::Narrow);
            let Some(Candidate { share, own, .. }) = found.into_iter().next() else { return };
            self.problem.add(&mut cost, self.problem.tasks[*task].class, &own);
            state.give(self.problem, *task, share);
        }
        if self.best.as_ref().is_none_or(|(best, _)| cost <= *best) {
            self.best = Some((cost, state.shares.into_iter().flatten().collect()));
        }
    }

    fn choices(&mut self, state: &State, task: usize) -> Vec<Candidate> {
        let tree = &self.trees[self.tree_of[task]];
        let cells = self.problem.cells.len();
        let limit = if cells <= FEW_CELLS { ALL } else { ALL_OF_MORE };
        let may_try_all = self.is_complete && cells <= MORE_CELLS;
        let few = may_try_all.then(|| all(self.problem, tree, state, task, limit)).flatten();
        let mut found = few.unwrap_or_else(|| {
            self.is_complete = false;
            let mut some = candidates(self.problem, tree, state, task, Width::Wide);
            some.sort_by(Candidate::compare);
            some.truncate(SOME);
            some
        });
        found.sort_by(Candidate::compare);
        found
    }
}
