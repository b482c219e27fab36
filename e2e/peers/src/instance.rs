//! One question for all allocators: a machine, and requests for whole cores in the order in which they arrive.

use serde::Serialize;

use crate::machine::{self, Machine};
use crate::random::Random;

/// The shares of a machine's cores that are asked for, in percent.
pub const LOADS: [u32; 7] = [50, 60, 70, 80, 90, 95, 100];

/// The requests on one machine at most.
const MOST_REQUESTS: usize = 32;

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
    /// Whole cores that each request asks for, in order of arrival.
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
    Instance { id, load, requests: requests(&machine, wanted, random), machine }
}

/// Sizes as services have them: mostly small, about a cache, about a node, or anything up to half the machine.
fn requests(machine: &Machine, wanted: u32, random: &mut Random) -> Vec<u32> {
    let total = machine.cores.len() as u32;
    let domains = |key: fn(&machine::Core) -> u32| {
        let keys: std::collections::BTreeSet<u32> = machine.cores.iter().map(key).collect();
        total.div_ceil(keys.len() as u32)
    };
    let (cache, node) = (domains(|core| core.l3.unwrap_or(core.node)), domains(|core| core.node));
    let style = random.between(0, 4);
    let least = total.div_ceil(MOST_REQUESTS as u32);
    let (mut requests, mut left) = (Vec::new(), wanted);
    while left > 0 {
        let size = match style {
            0 => random.between(1, 4),
            1 => random.between(1, cache + 1),
            2 => random.between(cache.saturating_sub(1), cache + 1) * random.between(1, 2),
            3 => random.between(1, node + node / 4 + 1),
            _ => random.between(1, (total / 2).max(1)),
        };
        let size = if requests.len() + 1 == MOST_REQUESTS { left } else { size.max(least).min(left) };
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
    fn a_longer_series_starts_like_a_shorter_one() {
        assert_eq!(instances(5, 7), instances(5, 20)[..7]);
    }
}
