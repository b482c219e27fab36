//! Turns an arrangement into CPU numbers: in every cell the task that holds it, then the others in canonical order take
//! the lowest cores. Whoever wants single CPUs takes whole cores first and shares the broken one with the next.

use lamina_crds::CpuSet;

use crate::placement::machine::Machine;
use crate::placement::problem::{Pieces, Problem, Share};

/// The CPUs of each task, all online threads of its cores.
pub fn number(machine: &Machine, problem: &Problem, shares: &[Share]) -> Vec<CpuSet> {
    let mut cpus = vec![CpuSet::new(); shares.len()];
    for (index, cell) in problem.cells.iter().enumerate() {
        let mut takers: Vec<(usize, u32)> = shares
            .iter()
            .enumerate()
            .filter_map(|(task, share)| {
                let take = share.takes.iter().find(|(taken, _)| *taken as usize == index)?;
                Some((task, take.1))
            })
            .collect();
        takers.sort_by_key(|(task, _)| (cell.holder != Some(*task), *task));
        let mut stock: Vec<Vec<u32>> = match &cell.pieces {
            Pieces::Cores(cores) => cores.iter().map(|core| machine.threads(*core as usize).to_vec()).collect(),
            Pieces::Cpus(cpus) => cpus.iter().map(|cpu| vec![*cpu]).collect(),
        };
        stock.reverse();
        let mut broken = Vec::new();
        for (task, units) in takers {
            match problem.tasks[task].by_cpu {
                true => take_cpus(&mut stock, &mut broken, units as usize, &mut cpus[task]),
                false => (0..units).filter_map(|_| stock.pop()).flatten().for_each(|cpu| cpus[task].insert(cpu)),
            }
        }
    }
    cpus
}

/// Takes so many CPUs: whole cores as long as they are wanted whole, then what is left of a broken one, then a new one.
fn take_cpus(stock: &mut Vec<Vec<u32>>, broken: &mut Vec<u32>, mut count: usize, cpus: &mut CpuSet) {
    while stock.last().is_some_and(|core| core.len() <= count) {
        let core = stock.pop().unwrap_or_default();
        count -= core.len();
        core.into_iter().for_each(|cpu| cpus.insert(cpu));
    }
    while count > 0 {
        if broken.is_empty() {
            let Some(core) = stock.pop() else { return };
            *broken = core;
        }
        cpus.insert(broken.remove(0));
        count -= 1;
    }
}
