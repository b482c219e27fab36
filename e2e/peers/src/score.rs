//! Judges where requests were put, by counting domains core by core; it knows nothing of how anybody decides.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use lamina_crds::CpuSet;

use crate::instance::Instance;
use crate::machine::{Core, Machine};

/// What an answer costs; the smaller is better, compared in this order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Score {
    /// Requests that got nothing.
    pub refused: u32,
    /// NUMA nodes used beyond what each request needs on the empty machine, summed over requests.
    pub nodes: u32,
    /// L3 caches likewise.
    pub caches: u32,
}

impl fmt::Display for Score {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { refused, nodes, caches } = self;
        write!(formatter, "{nodes} NUMA nodes and {caches} L3 caches in excess")?;
        if *refused > 0 { write!(formatter, ", {refused} refused") } else { Ok(()) }
    }
}

/// Why an answer is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It speaks of another number of requests.
    OtherRequests,
    /// These CPUs are given to two requests.
    Twice(CpuSet),
    /// These CPUs are not there.
    Absent(CpuSet),
    /// These CPUs are not whole cores.
    PartOfACore(CpuSet),
    /// These CPUs are another number of cores than the one that was asked.
    OtherNumber(CpuSet, u32),
    /// These CPUs are of two kinds, and one kind was asked.
    MixedKinds(CpuSet),
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OtherRequests => write!(formatter, "it answers another number of requests"),
            Self::Twice(cpus) => write!(formatter, "CPUs {cpus} are given twice"),
            Self::Absent(cpus) => write!(formatter, "CPUs {cpus} are not there"),
            Self::PartOfACore(cpus) => write!(formatter, "{cpus} has part of a core"),
            Self::OtherNumber(cpus, asked) => write!(formatter, "{cpus} are not {asked} cores"),
            Self::MixedKinds(cpus) => write!(formatter, "{cpus} mixes kinds of core"),
        }
    }
}

/// The score of `places`, one for each request of the instance and `None` where it was refused.
///
/// # Errors
/// Says what is wrong with places that are none.
pub fn score(instance: &Instance, places: &[Option<CpuSet>]) -> Result<Score, Fault> {
    let Instance { id: _, load: _, machine, requests } = instance;
    if places.len() != requests.len() {
        return Err(Fault::OtherRequests);
    }
    let mut score = Score::default();
    let mut taken = CpuSet::new();
    for (&asked, place) in requests.iter().zip(places) {
        let Some(place) = place else {
            score.refused += 1;
            continue;
        };
        if !taken.is_disjoint(place) {
            return Err(Fault::Twice(taken.intersection(place)));
        }
        taken = taken.union(place);
        let cores = whole_cores(machine, place)?;
        if cores.len() as u32 != asked {
            return Err(Fault::OtherNumber(place.clone(), asked));
        }
        if cores.iter().any(|core| core.kind != cores[0].kind) {
            return Err(Fault::MixedKinds(place.clone()));
        }
        let used = |key: fn(&Core) -> Option<u32>| cores.iter().filter_map(|core| key(core)).collect::<BTreeSet<_>>();
        score.nodes += used(node).len() as u32 - fewest(machine, node, asked);
        score.caches += used(cache).len() as u32 - fewest(machine, cache, asked);
    }
    Ok(score)
}

/// The key of a core's NUMA node.
pub fn node(core: &Core) -> Option<u32> {
    Some(core.node)
}

/// The key of a core's L3 cache.
pub fn cache(core: &Core) -> Option<u32> {
    core.l3
}

/// The fewest domains that hold that many cores of one kind while the machine is empty; 0 where there are none.
pub fn fewest(machine: &Machine, key: fn(&Core) -> Option<u32>, cores: u32) -> u32 {
    let kinds = machine.kinds();
    let large = kinds.iter().filter(|kind| kind.cores.len() as u32 >= cores);
    large.map(|kind| fewest_of_all(kind, key, cores)).min().unwrap_or(0)
}

fn fewest_of_all(machine: &Machine, key: fn(&Core) -> Option<u32>, cores: u32) -> u32 {
    let mut sizes: BTreeMap<u32, u32> = BTreeMap::new();
    machine.cores.iter().filter_map(key).for_each(|domain| *sizes.entry(domain).or_default() += 1);
    let mut sizes: Vec<u32> = sizes.into_values().collect();
    sizes.sort_unstable_by(|one, other| other.cmp(one));
    let mut held = 0;
    let needed = sizes.iter().take_while(|size| {
        let open = held < cores;
        held += **size;
        open
    });
    needed.count() as u32
}

fn whole_cores<'a>(machine: &'a Machine, place: &CpuSet) -> Result<Vec<&'a Core>, Fault> {
    let mut cores = Vec::new();
    for core in &machine.cores {
        match core.cpus.iter().filter(|cpu| place.contains(**cpu)).count() {
            0 => {}
            all if all == core.cpus.len() => cores.push(core),
            _ => return Err(Fault::PartOfACore(place.clone())),
        }
    }
    let absent = place.difference(&machine.cpus());
    if absent.is_empty() { Ok(cores) } else { Err(Fault::Absent(absent)) }
}

#[cfg(test)]
mod tests {
    use lamina_crds::hardware::CoreKind;

    use super::*;

    /// Two nodes of two L3s of two cores of one thread.
    fn small(requests: &[u32]) -> Instance {
        let core = |cpu: u32| Core { package: 0, node: cpu / 4, l3: Some(cpu / 2), kind: None, cpus: vec![cpu] };
        let machine = Machine { cores: (0..8).map(core).collect() };
        Instance { id: 0, load: 100, machine, requests: requests.to_vec() }
    }

    fn judged(requests: &[u32], places: &[&str]) -> Result<Score, Fault> {
        score(&small(requests), &parsed(places))
    }

    fn parsed(places: &[&str]) -> Vec<Option<CpuSet>> {
        places.iter().map(|text| (!text.is_empty()).then(|| set(text))).collect()
    }

    fn set(text: &str) -> CpuSet {
        text.parse().unwrap()
    }

    #[test]
    fn domains_beyond_the_fewest_are_counted() {
        assert_eq!(judged(&[4, 3], &["0-3", "4-6"]), Ok(Score::default()));
        assert_eq!(judged(&[4, 3], &["0-2,4", "5-7"]), Ok(Score { refused: 0, nodes: 1, caches: 1 }));
        assert_eq!(judged(&[5], &["0-4"]), Ok(Score::default()));
        assert_eq!(judged(&[2, 2], &["", "1-2"]), Ok(Score { refused: 1, nodes: 0, caches: 1 }));
    }

    #[test]
    fn a_place_that_is_none_is_told() {
        assert_eq!(judged(&[2, 2], &["0-1", "1-2"]), Err(Fault::Twice(set("1"))));
        assert_eq!(judged(&[2], &["7-8"]), Err(Fault::Absent(set("8"))));
        assert_eq!(judged(&[2], &["0-2"]), Err(Fault::OtherNumber(set("0-2"), 2)));
        assert_eq!(judged(&[2], &[]), Err(Fault::OtherRequests));
        let mut threads = small(&[1]);
        threads.machine.cores[0].cpus = vec![0, 8];
        assert_eq!(score(&threads, &parsed(&["0"])), Err(Fault::PartOfACore(set("0"))));
    }

    #[test]
    fn kinds_are_not_mixed_and_the_fewest_are_those_of_one_kind() {
        let mut instance = small(&[2, 2]);
        for (number, core) in instance.machine.cores.iter_mut().enumerate() {
            core.kind = Some(if number % 2 == 0 { CoreKind::Performance } else { CoreKind::Efficiency });
        }
        assert_eq!(score(&instance, &parsed(&["0-1", "2-3"])), Err(Fault::MixedKinds(set("0-1"))));
        assert_eq!(score(&instance, &parsed(&["0,2", "1,3"])), Ok(Score::default()));
        assert_eq!(score(&instance, &parsed(&["0,4", "1,3"])), Ok(Score { refused: 0, nodes: 1, caches: 0 }));
    }
}
