//! One question for all allocators: a machine, and requests for whole cores in the order in which they arrive.

use serde::Serialize;

use crate::machine::{self, Machine};
use lamina_trees::Random;

/// The shares of a machine's cores that are asked for, in percent.
pub const LOADS: [u32; 7] = [50, 60, 70, 80, 90, 95, 100];

/// The requests on one machine at most.
const MOST_REQUESTS: usize = 32;

/// One in so many machines has two kinds of core.
const HYBRIDS: u32 = 20;

/// A machine and what is asked of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Instance {
    /// Its place in the series, from 0.
    pub id: u32,
    /// The share of the cores that is asked for, in percent; one of [`LOADS`].
    #[serde(skip)]
    pub load: u32,
    /// The machine.
    pub machine: Machine,
    /// Whole cores that each request asks for, of one kind each, in order of arrival.
    pub requests: Vec<u32>,
}

/// The first `count` instances of the series of `seed`; loads take turns.
pub fn instances(seed: u64, count: u32) -> Vec<Instance> {
    let mut random = Random::new(seed);
    (0..count).map(|id| instance(id, &mut Random::new(random.bits()))).collect()
}

fn instance(id: u32, random: &mut Random) -> Instance {
    let machine = machine::machine(random);
    let load = LOADS[id as usize % LOADS.len()];
    let total = machine.cores.len() as u32;
    let wanted = (total * load).div_ceil(100).clamp(1, total);
    if id % HYBRIDS == HYBRIDS - 1 {
        let machine = machine::hybrid(machine, random);
        return Instance { id, load, requests: requests_by_kind(&machine, wanted, random), machine };
    }
    Instance { id, load, requests: requests(&machine, wanted, MOST_REQUESTS, random), machine }
}

/// The same share of each kind is asked for, in any order, so that nobody need mix kinds.
fn requests_by_kind(machine: &Machine, wanted: u32, random: &mut Random) -> Vec<u32> {
    let kinds = machine.kinds();
    let most = MOST_REQUESTS / kinds.len();
    let total = machine.cores.len() as u32;
    let mut left = wanted;
    let mut mixed = Vec::new();
    for (number, kind) in kinds.iter().enumerate() {
        let is_last = number + 1 == kinds.len();
        let share = if is_last { left } else { wanted * kind.cores.len() as u32 / total };
        left -= share;
        for request in requests(kind, share, most, random) {
            mixed.insert(random.within(0, mixed.len() as u32) as usize, request);
        }
    }
    mixed
}

/// Sizes as services have them: mostly small, about a cache, about a node, or anything up to half the machine.
fn requests(machine: &Machine, wanted: u32, most: usize, random: &mut Random) -> Vec<u32> {
    let total = machine.cores.len() as u32;
    let domains = |key: fn(&machine::Core) -> u32| {
        let keys: std::collections::BTreeSet<u32> = machine.cores.iter().map(key).collect();
        total.div_ceil(keys.len() as u32)
    };
    let (cache, node) = (domains(|core| core.l3.unwrap_or(core.node)), domains(|core| core.node));
    let style = random.within(0, 4);
    let least = total.div_ceil(most as u32);
    let (mut requests, mut left) = (Vec::new(), wanted);
    while left > 0 {
        let size = match style {
            0 => random.within(1, 4),
            1 => random.within(1, cache + 1),
            2 => random.within(cache.saturating_sub(1), cache + 1) * random.within(1, 2),
            3 => random.within(1, node + node / 4 + 1),
            _ => random.within(1, (total / 2).max(1)),
        };
        let size = if requests.len() + 1 == most { left } else { size.max(least).min(left) };
        requests.push(size.max(1));
        left -= size.max(1);
    }
    requests
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_add_up_to_the_load_exactly() {
        for Instance { id, load, machine, requests } in instances(3, 1000) {
            let total = machine.cores.len() as u32;
            assert_eq!(requests.iter().sum::<u32>(), (total * load).div_ceil(100), "instance {id}");
            assert!(requests.len() <= MOST_REQUESTS && !requests.contains(&0), "instance {id}: {requests:?}");
        }
    }

    #[test]
    fn what_is_asked_of_a_hybrid_machine_can_be_had_without_mixing_kinds() {
        let sizes = |instance: &Instance| instance.machine.kinds().iter().map(|kind| kind.cores.len()).collect();
        for instance in instances(3, 400).iter().filter(|instance| instance.machine.kinds().len() > 1) {
            let [one, other]: [usize; 2] = <Vec<usize>>::try_into(sizes(instance)).expect("two kinds");
            let mut sums = vec![false; one + 1];
            sums[0] = true;
            for request in instance.requests.iter().map(|request| *request as usize) {
                (request..=one).rev().for_each(|sum| sums[sum] |= sums[sum - request]);
            }
            let all = instance.requests.iter().sum::<u32>() as usize;
            assert!((0..=one.min(all)).any(|sum| sums[sum] && all - sum <= other), "{instance:?}");
        }
    }

    #[test]
    fn a_longer_series_starts_like_a_shorter_one() {
        assert_eq!(instances(5, 7), instances(5, 20)[..7]);
    }
}
