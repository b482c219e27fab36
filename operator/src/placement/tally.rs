//! Adds up what arrangements cost, level by level, and how far that is from what they must cost.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use crate::placement::answer::{Gap, Level, LevelCost, Objective, Verdict};
use crate::placement::problem::Problem;
use crate::placement::search::Arrangement;

/// Costs and bounds by level.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    levels: BTreeMap<Rank, (u32, u32)>,
}

/// A level in the order of importance: what it is, then position, then priority from the highest on.
type Rank = (u8, u32, Reverse<i32>);

impl Tally {
    /// Adds an arrangement; `priorities` are those of its classes.
    pub fn add(&mut self, problem: &Problem, priorities: &[i32], arrangement: &Arrangement) {
        let Arrangement { shares: _, cost, bound } = arrangement;
        let mut add = |rank: Rank, level: usize| {
            let entry = self.levels.entry(rank).or_default();
            entry.0 += cost[level];
            entry.1 += bound[level];
        };
        add((0, 0, Reverse(0)), 0);
        for (class, levels) in problem.levels.iter().enumerate() {
            for (position, level) in levels.iter().enumerate() {
                if let Some(level) = level {
                    add((1, position as u32, Reverse(priorities[class])), *level);
                }
            }
        }
        add((2, 0, Reverse(0)), problem.width - 2);
        add((3, 0, Reverse(0)), problem.width - 1);
    }

    /// Adds another tally.
    pub fn join(&mut self, other: Self) {
        for (rank, (cost, bound)) in other.levels {
            let entry = self.levels.entry(rank).or_default();
            entry.0 += cost;
            entry.1 += bound;
        }
    }

    /// The costs.
    pub fn objective(&self) -> Objective {
        let cost = |(rank, (cost, _)): (&Rank, &(u32, u32))| LevelCost { level: level(rank), cost: *cost };
        Objective { levels: self.levels.iter().map(cost).collect() }
    }

    /// How good they are known to be.
    pub fn verdict(&self) -> Verdict {
        let open = self.levels.iter().find(|(_, (cost, bound))| bound < cost);
        open.map_or(Verdict::Optimal, |(rank, (cost, bound))| Verdict::Feasible {
            gap: Gap { level: level(rank), amount: cost - bound },
        })
    }
}

fn level(rank: &Rank) -> Level {
    match rank {
        (0, ..) => Level::Moves,
        (1, position, Reverse(priority)) => Level::Domains { position: *position, priority: *priority },
        (2, ..) => Level::Wishes,
        (3.., ..) => Level::Distance,
    }
}
