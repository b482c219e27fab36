//! The best that any allocator could do with an instance, by trying everything; only where that ends soon.
//!
//! It shares nothing with Lamina's solver. Cores of one kind in one NUMA node and one L3 are alike, so a request is a
//! number of cores from each such group, all of one kind.

use std::collections::{BTreeMap, BTreeSet};

use lamina_crds::hardware::CoreKind;

use crate::instance::Instance;
use crate::machine::Machine;
use crate::score::{self, Score};

/// Steps after which the search gives up.
const MOST_STEPS: u32 = 40_000;

/// The smallest score there is for an instance, or nothing where finding it takes too long.
pub fn optimum(instance: &Instance) -> Option<Score> {
    let mut requests = instance.requests.clone();
    requests.sort_unstable_by(|one, other| other.cmp(one));
    let least = |key| requests.iter().map(|cores| score::fewest(&instance.machine, key, *cores)).sum();
    let unavoidable = Cost { nodes: least(score::node), caches: least(score::cache) };
    let (groups, free) = groups(&instance.machine);
    let mut search = Search { groups, free, requests, unavoidable, best: None, steps: 0 };
    search.request(0, Cost::default(), &[]).ok()?;
    let best = search.best?;
    Some(Score { refused: 0, nodes: best.nodes - unavoidable.nodes, caches: best.caches - unavoidable.caches })
}

/// Cores that are alike: where they are, as numbers without gaps.
#[derive(Clone, Copy, Debug)]
struct Group {
    node: usize,
    cache: Option<usize>,
    kind: Option<CoreKind>,
}

/// The groups of a machine, and how many cores each has.
fn groups(machine: &Machine) -> (Vec<Group>, Vec<u32>) {
    let mut sizes: BTreeMap<(u32, Option<u32>, Option<CoreKind>), u32> = BTreeMap::new();
    for core in &machine.cores {
        *sizes.entry((core.node, core.l3, core.kind)).or_default() += 1;
    }
    let nodes: BTreeSet<u32> = sizes.keys().map(|(node, _, _)| *node).collect();
    let caches: BTreeSet<u32> = sizes.keys().filter_map(|(_, cache, _)| *cache).collect();
    let place = |all: &BTreeSet<u32>, one: u32| all.range(..one).count();
    let group = |(node, cache, kind): &(u32, Option<u32>, Option<CoreKind>)| Group {
        node: place(&nodes, *node),
        cache: cache.map(|cache| place(&caches, cache)),
        kind: *kind,
    };
    (sizes.keys().map(group).collect(), sizes.into_values().collect())
}

/// Domains used, summed over requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Cost {
    nodes: u32,
    caches: u32,
}

impl Cost {
    fn plus(self, other: Self) -> Self {
        Self { nodes: self.nodes + other.nodes, caches: self.caches + other.caches }
    }
}

struct Search {
    groups: Vec<Group>,
    free: Vec<u32>,
    requests: Vec<u32>,
    unavoidable: Cost,
    best: Option<Cost>,
    steps: u32,
}

/// The search takes too long.
struct TooLong;

impl Search {
    /// Places request `number` and all after it. `before` is where the one before it is: of two equal requests the
    /// later one never takes more of the first groups, so that swapping them is not tried.
    fn request(&mut self, number: usize, spent: Cost, before: &[u32]) -> Result<(), TooLong> {
        if !self.can_improve(spent.plus(self.still_needed(number))) {
            return Ok(());
        }
        if number == self.requests.len() {
            self.best = Some(spent);
            return Ok(());
        }
        let equal = number > 0 && self.requests[number] == self.requests[number - 1];
        let limit = if equal { before.to_vec() } else { vec![u32::MAX; self.groups.len()] };
        let mut taken = vec![0; self.groups.len()];
        self.group(number, 0, self.requests[number], equal, &limit, &mut taken, spent)
    }

    /// Decides how much request `number` takes of `group`, most first. `tight`: so far it took what the equal one
    /// before it took.
    #[expect(clippy::too_many_arguments, reason = "a recursion's state, private to this search")]
    fn group(
        &mut self,
        number: usize,
        group: usize,
        left: u32,
        tight: bool,
        limit: &[u32],
        taken: &mut Vec<u32>,
        spent: Cost,
    ) -> Result<(), TooLong> {
        self.steps += 1;
        if self.steps > MOST_STEPS {
            return Err(TooLong);
        }
        if left == 0 {
            let taken = taken.clone();
            return self.request(number + 1, spent.plus(self.cost(&taken)), &taken);
        }
        let rest: u32 = self.free[group..].iter().sum();
        if group == self.groups.len() || rest < left || !self.can_improve(spent.plus(self.cost(taken))) {
            return Ok(());
        }
        let of_another_kind = |(other, taken): (&Group, &u32)| *taken > 0 && other.kind != self.groups[group].kind;
        let is_mixed = self.groups.iter().zip(taken.iter()).any(of_another_kind);
        let most = left.min(self.free[group]).min(if tight { limit[group] } else { u32::MAX });
        let most = if is_mixed { 0 } else { most };
        for amount in (0..=most).rev() {
            self.free[group] -= amount;
            taken[group] = amount;
            let tight = tight && amount == limit[group];
            let outcome = self.group(number, group + 1, left - amount, tight, limit, taken, spent);
            taken[group] = 0;
            self.free[group] += amount;
            outcome?;
        }
        Ok(())
    }

    fn can_improve(&self, at_least: Cost) -> bool {
        self.best.is_none_or(|best| at_least < best && best > self.unavoidable)
    }

    /// What the requests from `number` on need at least, each as if it had all that is free to itself.
    fn still_needed(&self, number: usize) -> Cost {
        let nodes = self.sizes(|group| Some(group.node));
        let caches = self.sizes(|group| group.cache);
        self.requests[number..].iter().fold(Cost::default(), |sum, cores| {
            sum.plus(Cost { nodes: domains_for(&nodes, *cores), caches: domains_for(&caches, *cores) })
        })
    }

    /// Free cores by domain, largest first; what lies in no domain is left out.
    fn sizes(&self, domain: fn(&Group) -> Option<usize>) -> Vec<u32> {
        let mut sums = vec![0; self.groups.len()];
        for (group, free) in self.groups.iter().zip(&self.free) {
            if let Some(domain) = domain(group) {
                sums[domain] += free;
            }
        }
        sums.sort_unstable_by(|one, other| other.cmp(one));
        sums
    }

    /// The domains in which `taken` lies.
    fn cost(&self, taken: &[u32]) -> Cost {
        let (mut nodes, mut caches) = (0u128, 0u128);
        for (group, _) in self.groups.iter().zip(taken).filter(|(_, amount)| **amount > 0) {
            nodes |= 1 << group.node;
            caches |= group.cache.map_or(0, |cache| 1 << cache);
        }
        Cost { nodes: nodes.count_ones(), caches: caches.count_ones() }
    }
}

/// The fewest domains that hold so many cores; all of them where they do not.
fn domains_for(sizes: &[u32], cores: u32) -> u32 {
    let mut held = 0;
    let mut count = 0;
    for size in sizes {
        if held >= cores || *size == 0 {
            break;
        }
        held += size;
        count += 1;
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Core;

    /// The smallest score on a machine of nodes of that many cores, each with one L3.
    fn of(nodes: &[u32], requests: &[u32]) -> Option<Score> {
        optimum(&Instance { id: 0, load: 0, machine: machine(nodes), requests: requests.to_vec() })
    }

    fn machine(nodes: &[u32]) -> Machine {
        let core = |node: u32| Core { package: 0, node, l3: Some(node), kind: None, cpus: Vec::new() };
        let cores = nodes.iter().zip(0..).flat_map(|(count, node)| (0..*count).map(move |_| core(node)));
        Machine { cores: cores.collect() }
    }

    #[test]
    fn a_request_has_one_kind() {
        let mut machine = machine(&[4, 4]);
        for (number, core) in machine.cores.iter_mut().enumerate() {
            core.kind = Some(if number % 4 < 1 { CoreKind::Performance } else { CoreKind::Efficiency });
        }
        let of = |requests: &[u32]| {
            optimum(&Instance { id: 0, load: 0, machine: machine.clone(), requests: requests.to_vec() })
        };
        assert_eq!(of(&[3, 3]), Some(Score::default()));
        assert_eq!(of(&[2, 2, 2]), Some(Score { refused: 0, nodes: 1, caches: 1 }));
        assert_eq!(of(&[4, 4]), None);
    }

    #[test]
    fn what_fits_costs_nothing() {
        assert_eq!(of(&[4, 4], &[3, 1, 2, 2]), Some(Score::default()));
    }

    #[test]
    fn what_must_be_split_is_counted_once() {
        assert_eq!(of(&[4, 4], &[3, 3, 2]), Some(Score { refused: 0, nodes: 1, caches: 1 }));
        assert_eq!(of(&[3, 3, 3], &[2, 2, 3, 2]), Some(Score { refused: 0, nodes: 1, caches: 1 }));
    }
}
