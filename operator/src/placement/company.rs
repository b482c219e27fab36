//! How many wishes to be near must go unmet because those who hang together do not fit into their nodes.

use lamina_crds::wishes::AlignPolicy;

use crate::placement::problem::{End, NODE, Problem, Side, Task};
use crate::placement::state::State;

/// Up to how many wishes of a group all ways to give some up are tried.
const MOST_EDGES: usize = 12;

/// A wish to be near between two waiting tasks: the one that then lies inside of the other, and that other. Whoever
/// wishes it and needs more nodes has some outside in any case, which is counted elsewhere; it has one more if the other
/// does not lie inside.
type Edge = (usize, usize);

/// The least number of wishes to be near, over all groups, that no arrangement meets which keeps every task in as few
/// nodes as it needs. `needs` is that number of nodes by task; tasks that have their share count for nothing.
pub fn broken_company(problem: &Problem, state: &State, needs: &[Option<u32>]) -> u32 {
    let mut rooms = state.domain_free[NODE].clone();
    rooms.sort_unstable_by(|a, b| b.cmp(a));
    let counts = |task: usize| needs[task].is_some() && is_simple(&problem.tasks[task]);
    let mut edges: Vec<Edge> = Vec::new();
    for tie in problem.ties.iter().filter(|tie| tie.side == Side::Near && tie.slot == NODE) {
        match (&tie.from, &tie.to) {
            (End::Task(from), End::Task(to)) if from != to && counts(*from) && counts(*to) => {
                edges.push(if needs[*from] <= needs[*to] { (*from, *to) } else { (*to, *from) });
            }
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
            let of_part: Vec<usize> = members.iter().copied().filter(|member| part_of[*member] == *part).collect();
            let wanted: u32 = of_part.iter().map(|member| problem.tasks[*member].count).sum();
            let nodes = nodes_together(&of_part, group, kept, needs);
            wanted <= rooms.iter().take(nodes.max(1) as usize).sum()
        })
    };
    let (all, edges) = (1_u32 << group.len(), group.len() as u32);
    let can_keep = |count: u32| (0..all).rev().any(|kept| kept.count_ones() == count && fits(kept));
    (0..edges).find(|broken| can_keep(edges - broken)).unwrap_or(edges)
}

/// The most nodes in which the members of a part lie together. Whoever is near another lies inside of it, so that all lie
/// inside those who are near nobody of the part, and inside one of each ring.
fn nodes_together(part: &[usize], group: &[Edge], kept: u32, needs: &[Option<u32>]) -> u32 {
    let is_kept = |index: usize| kept & (1 << index) != 0;
    let is_outermost =
        |member: usize| !group.iter().enumerate().any(|(index, (from, _))| is_kept(index) && *from == member);
    let mut inside: Vec<usize> = Vec::new();
    let mut nodes = 0;
    // Those who are near nobody first; whoever is left then is in a ring, or leads into one.
    let mut order = part.to_vec();
    order.sort_by_key(|member| (!is_outermost(*member), *member));
    for outer in order {
        if inside.contains(&outer) {
            continue;
        }
        nodes += needs[outer].unwrap_or(0);
        let mut waiting = vec![outer];
        while let Some(member) = waiting.pop() {
            if inside.contains(&member) {
                continue;
            }
            inside.push(member);
            let near = group.iter().enumerate().filter(|(index, (_, to))| is_kept(*index) && *to == member);
            waiting.extend(near.map(|(_, (from, _))| *from));
        }
    }
    nodes
}
