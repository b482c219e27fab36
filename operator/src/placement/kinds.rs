//! Decides which kind of core each waiting task takes so that all of them fit. Nobody mixes kinds, so whoever chooses one
//! task after the other can leave the last one with some cores of each kind, enough together and of no use to it.

use std::collections::BTreeMap;

use lamina_crds::hardware::CoreKind;

use crate::placement::problem::Problem;
use crate::placement::state::State;

/// How many ways to have used up the kinds are looked at, after each task.
const MOST_SUMS: usize = 20_000;

/// The same problem, where each waiting task may have cores of one kind only, such that the counts fit. None where nobody
/// has a choice, where single CPUs are counted, and where no choice fits.
pub fn with_kinds_chosen(problem: &Problem, state: &State) -> Option<Problem> {
    let chosen = chosen(problem, state)?;
    let mut problem = problem.clone();
    for (index, kind) in chosen {
        let task = &mut problem.tasks[index];
        let cells = task.allowed.iter_mut().zip(&problem.cells);
        cells.for_each(|(allowed, cell)| *allowed &= cell.kind == kind);
        task.kinds = vec![kind];
    }
    Some(problem)
}

/// A kind for each waiting task: a sum of counts for every kind that is no more than what is free of it.
fn chosen(problem: &Problem, state: &State) -> Option<Vec<(usize, Option<CoreKind>)>> {
    let waiting: Vec<usize> = (0..problem.tasks.len()).filter(|task| state.shares[*task].is_none()).collect();
    let has_choice = waiting.iter().any(|task| problem.tasks[*task].kinds.len() > 1);
    if !has_choice || waiting.iter().any(|task| problem.tasks[*task].by_cpu) {
        return None;
    }
    let mut rooms: BTreeMap<Option<CoreKind>, u32> = BTreeMap::new();
    problem.cells.iter().zip(&state.free).for_each(|(cell, free)| *rooms.entry(cell.kind).or_default() += free);
    let rooms: Vec<(Option<CoreKind>, u32)> = rooms.into_iter().collect();
    // What may be used of each kind after each task, and the place of the kind that the task took for it.
    let mut reached: Vec<BTreeMap<Vec<u32>, usize>> = vec![BTreeMap::from([(vec![0; rooms.len()], 0)])];
    for task in waiting.iter().map(|task| &problem.tasks[*task]) {
        let mut next: BTreeMap<Vec<u32>, usize> = BTreeMap::new();
        for used in reached.last()?.keys() {
            for (place, (_, room)) in rooms.iter().enumerate().filter(|(_, (kind, _))| task.kinds.contains(kind)) {
                let mut used = used.clone();
                used[place] += task.count;
                if used[place] <= *room {
                    next.entry(used).or_insert(place);
                }
            }
        }
        if next.len() > MOST_SUMS {
            return None;
        }
        reached.push(next);
    }
    let mut used = reached.last()?.keys().next()?.clone();
    let mut chosen = Vec::with_capacity(waiting.len());
    for (index, after) in waiting.iter().zip(reached.iter().skip(1)).rev() {
        let place = *after.get(&used)?;
        used[place] -= problem.tasks[*index].count;
        chosen.push((*index, rooms[place].0));
    }
    Some(chosen)
}
