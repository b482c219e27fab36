//! How many wishes to be near must go unmet because those who hang together do not fit into their nodes.

use lamina_crds::wishes::AlignPolicy;

use crate::placement::problem::{End, NODE, Problem, Side, Task};
use crate::placement::state::State;

/// Up to how many wishes of a group all ways to give some up are tried.
const MOST_EDGES: usize = 12;

/// A wish to be near between two waiting tasks.
type Edge = (usize, usize);

/// The least number of wishes to be near, over all groups, that no arrangement meets which keeps every task in as few
/// nodes as it needs. `needs` is that number of nodes by task; tasks that have their share count for nothing.
pub fn broken_company(problem: &Problem, state: &State, needs: &[Option<u32>]) -> u32 {
    let mut rooms = state.domain_free[NODE].clone();
    rooms.sort_unstable_by(|a, b| b.cmp(a));
    let counts = |task: usize| needs[task].is_some() && is_simple(&problem.tasks[task]);
    // A slice that needs more nodes than the one it wants to be near is counted elsewhere.
    let edge = |from: usize, to: usize| counts(from) && counts(to) && needs[from] <= needs[to];
    let mut edges: Vec<Edge> = Vec::new();
    for tie in problem.ties.iter().filter(|tie| tie.side == Side::Near && tie.slot == NODE) {
        match (&tie.from, &tie.to) {
            (End::Task(from), End::Task(to)) if from != to && edge(*from, *to) => edges.push((*from, *to)),
            (End::Task(_) | End::Settled(_), _) => {}
        }
    }
    let mut broken = 0;
    while let Some(first) = edges.first().copied() {
        let cluster = problem.cluster_of[first.0];
        let (group, rest): (Vec<Edge>, Vec<Edge>) =
            edges.into_iter().partition(|edge| problem.cluster_of[edge.0] == cluster);
        edges = rest;
        broken += least_broken(problem, needs, &group, &rooms);
    }
    broken
}

/// Whether nothing but its size decides in how many nodes a task lies.
fn is_simple(task: &Task) -> bool {
    let in_few = |(slot, policy): &(usize, AlignPolicy)| {
        *slot == NODE && matches!(policy, AlignPolicy::Prefer | AlignPolicy::Require)
    };
    task.held == 0 && !task.by_cpu && task.align.iter().any(in_few)
}

fn least_broken(problem: &Problem, needs: &[Option<u32>], group: &[Edge], rooms: &[u32]) -> u32 {
    if group.len() > MOST_EDGES || problem.cells.iter().any(|cell| cell.weight != 1) {
        return 0;
    }
    let fits = |kept: u32| {
        let mut part_of: Vec<usize> = (0..problem.tasks.len()).collect();
        for (index, (from, to)) in group.iter().enumerate() {
            let (one, other) = (part_of[*from], part_of[*to]);
            if kept & (1 << index) != 0 {
                part_of.iter_mut().filter(|part| **part == other).for_each(|part| *part = one);
            }
        }
        let mut members: Vec<usize> = group.iter().flat_map(|(from, to)| [*from, *to]).collect();
        members.sort_unstable();
        members.dedup();
        members.iter().all(|part| {
            let of_part = || members.iter().filter(|member| part_of[**member] == *part);
            let wanted: u32 = of_part().map(|member| problem.tasks[*member].count).sum();
            let several: u32 = of_part().filter_map(|member| needs[*member].filter(|needs| *needs > 1)).sum();
            wanted <= rooms.iter().take(several.max(1) as usize).sum()
        })
    };
    let (all, edges) = (1_u32 << group.len(), group.len() as u32);
    let can_keep = |count: u32| (0..all).rev().any(|kept| kept.count_ones() == count && fits(kept));
    (0..edges).find(|broken| can_keep(edges - broken)).unwrap_or(edges)
}
