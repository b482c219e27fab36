//! What is given out in the course of a search, and what is free.

use crate::placement::machine::KINDS;
use crate::placement::problem::{Problem, Share};

/// What is given out so far.
#[derive(Clone, Debug)]
pub struct State {
    /// What is free, by cell.
    pub free: Vec<u32>,
    /// What is free by domain, by kind.
    pub domain_free: [Vec<u32>; KINDS],
    /// Who has what.
    pub shares: Vec<Option<Share>>,
}

impl State {
    /// Nothing given out.
    pub fn empty(problem: &Problem) -> Self {
        let free = problem.capacities();
        let mut domain_free = problem.domains.map(|count| vec![0; count]);
        for (cell, free) in problem.cells.iter().zip(&free) {
            for slot in 0..KINDS {
                domain_free[slot][cell.domains[slot] as usize] += free;
            }
        }
        Self { free, domain_free, shares: vec![None; problem.tasks.len()] }
    }

    /// Gives a share to a task.
    pub fn give(&mut self, problem: &Problem, task: usize, share: Share) {
        for (cell, units) in &share.takes {
            let cell = *cell as usize;
            let weight = problem.weight(&problem.tasks[task], cell, *units);
            self.free[cell] -= weight;
            for slot in 0..KINDS {
                self.domain_free[slot][problem.cells[cell].domains[slot] as usize] -= weight;
            }
        }
        self.shares[task] = Some(share);
    }

    /// Takes back what a task was given. Returns it; none if it waits.
    pub fn take_back(&mut self, problem: &Problem, task: usize) -> Option<Share> {
        let share = self.shares[task].take()?;
        for (cell, units) in &share.takes {
            let cell = *cell as usize;
            let weight = problem.weight(&problem.tasks[task], cell, *units);
            self.free[cell] += weight;
            for slot in 0..KINDS {
                self.domain_free[slot][problem.cells[cell].domains[slot] as usize] += weight;
            }
        }
        Some(share)
    }
}
