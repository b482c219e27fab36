//! Small hosts, solved by trying everything: the same costs on every level, whatever the search does. What is weighed is
//! written down here a second time, core by core.

use std::collections::BTreeSet;

use lamina_crds::hardware::{CoreGroup, CoreKind, CpuInventory, NumaNode, Package};
use lamina_crds::wishes::{AlignPolicy, Alignment, CoreType, Domain, WishPolicy};
use lamina_crds::{Bytes, CpuSet, Hardware, NodeSet};

use super::{demand, site};
use crate::placement::shapes::Dice;
use crate::placement::{Demand, Incumbent, Level, OrdinalWish, Placed, Placement, Relation, Verdict, Wanted, place};

/// How many hosts each of two threads tries.
const HOSTS: u64 = 10_500;

/// A small host: one CPU per core, and where each lies.
struct Small {
    hardware: Hardware,
    /// Package, node and cache of each CPU.
    domains: Vec<[u32; 3]>,
    fast: Option<CpuSet>,
}

const KINDS: [Domain; 3] = [Domain::Package, Domain::Node, Domain::L3];

fn small(dice: &mut Dice) -> Small {
    let nodes = 1 + dice.below(4);
    let most = if dice.below(8) == 0 { 7 } else { 6 };
    let count = nodes.max(3) + dice.below(most - nodes.max(3) + 1);
    let mut domains = Vec::new();
    for cpu in 0..count {
        let node = if cpu < nodes { cpu } else { dice.below(nodes) };
        domains.push([node / 2, node, 2 * node + dice.below(2)]);
    }
    let spans = dice.below(5) == 0;
    if spans {
        domains.iter_mut().for_each(|domains| domains[2] = domains[0]);
    }
    let of = |kind: usize, index: u32| -> CpuSet {
        (0..count).filter(|cpu| domains[*cpu as usize][kind] == index).collect()
    };
    let distance = |from: u32, to: u32| match (from == to, from / 2 == to / 2) {
        (true, _) => 10,
        (false, true) => 12,
        (false, false) => 20 + (from + to) % 3,
    };
    let node = |id: u32| NumaNode {
        id,
        cpus: of(1, id),
        memory: Bytes::mebi(1024),
        distances: (0..nodes).map(|other| distance(id, other)).collect(),
    };
    let fast = (dice.below(6) == 0).then(|| (0..count).filter(|_| dice.below(2) == 0).collect::<CpuSet>());
    let online: CpuSet = (0..count).collect();
    let groups = fast.iter().flat_map(|fast| {
        let slow = online.difference(fast);
        [(CoreKind::Performance, fast.clone()), (CoreKind::Efficiency, slow)]
    });
    let groups = groups.filter(|(_, cpus)| !cpus.is_empty()).map(|(core_type, cpus)| CoreGroup { core_type, cpus });
    let hardware = Hardware {
        core_types: groups.collect(),
        cpus: CpuInventory { online: online.clone(), ..CpuInventory::default() },
        packages: (0..nodes.div_ceil(2)).map(|id| Package { id, cpus: of(0, id) }).collect(),
        numa_nodes: (0..nodes).map(node).collect(),
        l3: (0..2 * nodes).map(|id| of(2, id)).filter(|cache| !cache.is_empty()).collect(),
        ..Hardware::default()
    };
    Small { hardware, domains, fast }
}

fn policy(dice: &mut Dice) -> WishPolicy {
    if dice.below(5) == 0 { WishPolicy::Require } else { WishPolicy::Prefer }
}

fn requests(dice: &mut Dice, host: &Small) -> Vec<Demand> {
    let cpus = host.domains.len() as u32;
    let count = 1 + dice.below(3);
    let mut demands: Vec<Demand> = Vec::new();
    for index in 0..count {
        let asked = 1 + dice.below(cpus * 2 / count);
        // Every core has one CPU: it makes no difference, and the search must say so.
        let wanted = if dice.below(5) == 0 { Wanted::Cpus(asked) } else { Wanted::Cores(asked) };
        let mut wish = demand("o", ["a", "b", "c"][index as usize], wanted);
        wish.priority = dice.below(2) as i32;
        if dice.below(3) == 0 {
            wish.min = Some(1);
        }
        if dice.below(4) == 0 {
            wish.ordinal = Some(OrdinalWish { ordinal: dice.below(3), policy: policy(dice) });
        }
        if dice.below(8) == 0 {
            wish.nodes = Some(NodeSet::from_iter([dice.below(3), dice.below(3)]));
        }
        if dice.below(6) == 0 {
            wish.core_type = [CoreType::Performance, CoreType::Efficiency][dice.below(2) as usize];
        }
        if dice.below(4) == 0 {
            let policies = [AlignPolicy::Require, AlignPolicy::Prefer, AlignPolicy::Spread, AlignPolicy::Ignore];
            let first = dice.below(3);
            let align = (0..=dice.below(2)).map(|place| Alignment {
                domain: KINDS[((first + place) % 3) as usize],
                policy: policies[dice.below(4) as usize],
            });
            wish.align = align.collect();
        }
        demands.push(wish);
    }
    for index in 0..count as usize {
        let other = dice.below(count) as usize;
        if other != index && dice.below(2) == 0 {
            let domain = KINDS[dice.below(3) as usize];
            let relation = Relation { unit: demands[other].unit.clone(), domain, policy: policy(dice) };
            match dice.below(2) {
                0 => demands[index].near.push(relation),
                _ => demands[index].apart.push(relation),
            }
        }
        if other < index && dice.below(4) == 0 {
            demands[index].share_with = Some(demands[other].unit.clone());
        }
    }
    demands
}

fn incumbents(dice: &mut Dice, host: &Small, demands: &[Demand]) -> Placement {
    let mut placement = Placement::default();
    if dice.below(2) == 0 {
        return placement;
    }
    let mut free: Vec<u32> = (0..host.domains.len() as u32).collect();
    for demand in demands {
        let size = dice.below(free.len() as u32 + 1).min(3);
        let cpus: CpuSet = (0..size).map(|_| free.remove(dice.below(free.len() as u32) as usize)).collect();
        if !cpus.is_empty() {
            let incumbent = Incumbent { topology: demand.topology.clone(), cpus, memory_nodes: None };
            placement.slices.insert(demand.unit.clone(), incumbent);
        }
    }
    placement
}

/// Everything about one question: who wants how much of its own, and inside whom the others run.
struct Question<'a> {
    host: &'a Small,
    demands: &'a [Demand],
    running: &'a Placement,
    counts: &'a [Option<u32>],
}

impl Question<'_> {
    fn root(&self, mut demand: usize) -> Option<usize> {
        while self.counts[demand].is_none() {
            let host = self.demands[demand].share_with.as_ref()?;
            demand = self.demands.iter().position(|other| other.unit == *host)?;
        }
        Some(demand)
    }

    fn fits(&self, demand: &Demand, cpu: u32) -> bool {
        let node = self.host.domains[cpu as usize][1];
        let is_fast = self.host.fast.as_ref().map(|fast| fast.contains(cpu));
        let of_type = match (demand.core_type, is_fast) {
            (CoreType::Any, _) | (_, None) => true,
            (CoreType::Performance, Some(is_fast)) => is_fast,
            (CoreType::Efficiency, Some(is_fast)) => !is_fast,
        };
        let required = demand.ordinal.filter(|wish| wish.policy == WishPolicy::Require);
        of_type
            && demand.nodes.as_ref().is_none_or(|nodes| nodes.contains(node))
            && required.is_none_or(|wish| wish.ordinal == node)
    }

    fn used(&self, kind: usize, cpus: &[u32]) -> BTreeSet<u32> {
        cpus.iter().map(|cpu| self.host.domains[*cpu as usize][kind]).collect()
    }

    fn distance(&self, from: u32, to: u32) -> u32 {
        self.host.hardware.numa_nodes[from as usize].distances[to as usize]
    }

    /// The fewest domains of a kind for so many of these CPUs.
    fn least(&self, kind: usize, cpus: &[u32], count: u32) -> u32 {
        let fast = |cpu: &u32| self.host.fast.as_ref().is_some_and(|fast| fast.contains(*cpu));
        let of_kind =
            |is_fast: bool| cpus.iter().copied().filter(move |cpu| fast(cpu) == is_fast).collect::<Vec<u32>>();
        let fewest = |cpus: Vec<u32>| {
            let domains = self.used(kind, &cpus);
            let mut sizes: Vec<u32> = domains
                .iter()
                .map(|domain| {
                    cpus.iter().filter(|cpu| self.host.domains[**cpu as usize][kind] == *domain).count() as u32
                })
                .collect();
            sizes.sort_unstable_by(|a, b| b.cmp(a));
            (1..=sizes.len()).find(|taken| sizes[..*taken].iter().sum::<u32>() >= count)
        };
        [true, false].into_iter().filter_map(|is_fast| fewest(of_kind(is_fast))).min().unwrap_or(0) as u32
    }

    /// The cost of an assignment, level by level; none if something does not hold.
    fn cost(&self, owners: &[Option<usize>]) -> Option<Vec<u32>> {
        let cpus_of = |demand: usize| -> Vec<u32> {
            (0..owners.len() as u32).filter(|cpu| owners[*cpu as usize] == Some(demand)).collect()
        };
        let places: Vec<Vec<u32>> =
            (0..self.demands.len()).map(|demand| self.root(demand).map(cpus_of)).collect::<Option<_>>()?;
        let (mut moves, mut wishes, mut distance) = (0, 0, 0);
        let mut excess = [[0; 2]; 3];
        let suit = |(demand, cpus): (&Demand, &Vec<u32>)| cpus.iter().all(|cpu| self.fits(demand, *cpu));
        if !self.demands.iter().zip(&places).all(suit) {
            return None;
        }
        for (index, demand) in self.demands.iter().enumerate() {
            let cpus = &places[index];
            let nodes = self.used(1, cpus);
            if let Some(wish) = demand.ordinal.filter(|wish| wish.policy == WishPolicy::Prefer) {
                wishes += nodes.iter().filter(|node| **node != wish.ordinal).count() as u32;
            }
            for (relations, is_near) in [(&demand.near, true), (&demand.apart, false)] {
                for Relation { unit, domain, policy } in relations {
                    let other = self.demands.iter().position(|other| other.unit == *unit)?;
                    let kind = KINDS.iter().position(|kind| kind == domain)?;
                    let (here, there) = (self.used(kind, cpus), self.used(kind, &places[other]));
                    let unmet = here.iter().filter(|one| there.contains(one) != is_near).count() as u32;
                    if *policy == WishPolicy::Require && unmet > 0 {
                        return None;
                    }
                    wishes += unmet;
                    let others = self.used(1, &places[other]);
                    let astray = nodes.iter().filter(|node| is_near && !others.contains(node));
                    let nearest = |node: &u32| others.iter().map(|other| self.distance(*node, *other)).min();
                    distance += astray.filter_map(nearest).sum::<u32>();
                }
            }
            let Some(count) = self.counts[index] else { continue };
            self.own(index, cpus, count, &mut moves, &mut excess)?;
            for node in &nodes {
                distance +=
                    nodes.iter().filter(|other| *other > node).map(|other| self.distance(*node, *other)).sum::<u32>();
            }
        }
        let [first, second, third] = excess;
        Some([vec![moves], first.to_vec(), second.to_vec(), third.to_vec(), vec![wishes, distance]].concat())
    }

    /// Adds what a slice with cores of its own costs for itself.
    fn own(&self, index: usize, cpus: &[u32], count: u32, moves: &mut u32, excess: &mut [[u32; 2]; 3]) -> Option<()> {
        let demand = &self.demands[index];
        if cpus.len() as u32 != count {
            return None;
        }
        if let Some(fast) = &self.host.fast {
            let quick = cpus.iter().filter(|cpu| fast.contains(**cpu)).count();
            if quick != 0 && quick != cpus.len() {
                return None;
            }
        }
        let guests: Vec<&Demand> = (0..self.demands.len())
            .filter(|other| self.root(*other) == Some(index))
            .map(|other| &self.demands[other])
            .collect();
        let all = 0..self.host.domains.len() as u32;
        let allowed: Vec<u32> = all.filter(|cpu| guests.iter().all(|demand| self.fits(demand, *cpu))).collect();
        if let Some(incumbent) = self.running.slices.get(&demand.unit) {
            let held: Vec<u32> = incumbent.cpus.iter().filter(|cpu| allowed.contains(cpu)).collect();
            let kept = held.iter().filter(|cpu| cpus.contains(cpu)).count() as u32;
            *moves += (held.len() as u32).min(count) - kept;
        }
        let default = [Domain::Node, Domain::L3].map(|domain| Alignment { domain, policy: AlignPolicy::Prefer });
        let align = if demand.align.is_empty() { default.as_slice() } else { &demand.align };
        let class = if demand.priority == 1 { 0 } else { 1 };
        for (position, Alignment { domain, policy }) in align.iter().enumerate() {
            let kind = KINDS.iter().position(|kind| kind == domain)?;
            let used = self.used(kind, cpus);
            match policy {
                AlignPolicy::Require if used.len() > 1 => return None,
                AlignPolicy::Require | AlignPolicy::Ignore => {}
                AlignPolicy::Prefer => {
                    excess[position][class] += used.len() as u32 - self.least(kind, &allowed, count);
                }
                AlignPolicy::Spread => {
                    let amounts: Vec<usize> = self
                        .used(kind, &allowed)
                        .iter()
                        .map(|domain| {
                            cpus.iter().filter(|cpu| self.host.domains[**cpu as usize][kind] == *domain).count()
                        })
                        .collect();
                    let (most, fewest) = (amounts.iter().max()?, amounts.iter().min()?);
                    excess[position][class] += (most - fewest) as u32;
                }
            }
        }
        Some(())
    }

    /// The least cost of all assignments.
    fn best(&self) -> Option<Vec<u32>> {
        let mut owners = vec![None; self.host.domains.len()];
        let mut left: Vec<u32> = self.counts.iter().map(|count| count.unwrap_or(0)).collect();
        let mut best = None;
        self.assign(0, &mut owners, &mut left, &mut best);
        best
    }

    fn assign(&self, cpu: usize, owners: &mut Vec<Option<usize>>, left: &mut Vec<u32>, best: &mut Option<Vec<u32>>) {
        if left.iter().sum::<u32>() as usize > owners.len() - cpu {
            return;
        }
        if cpu == owners.len() {
            if let Some(cost) = self.cost(owners).filter(|cost| best.as_ref().is_none_or(|best| cost < best)) {
                *best = Some(cost);
            }
            return;
        }
        for owner in (0..left.len()).map(Some).chain([None]) {
            if let Some(owner) = owner {
                if left[owner] == 0 {
                    continue;
                }
                left[owner] -= 1;
            }
            owners[cpu] = owner;
            self.assign(cpu + 1, owners, left, best);
            owners[cpu] = None;
            if let Some(owner) = owner {
                left[owner] += 1;
            }
        }
    }
}

/// The quantities that an answer shows: none for a slice that runs inside another.
fn shown(demands: &[Demand], placed: &Placed) -> Vec<Option<u32>> {
    let shares = |unit| {
        let said = placed.slices[unit].shortfalls.iter();
        said.clone().any(|shortfall| matches!(shortfall, crate::placement::Shortfall::Shared { .. }))
    };
    demands.iter().map(|demand| (!shares(&demand.unit)).then(|| placed.slices[&demand.unit].got)).collect()
}

/// The costs of an answer in the order of the brute force.
fn costs(placed: &Placed) -> Vec<u32> {
    let cost = |level| placed.objective.cost(level);
    let domains = (0..3).flat_map(|position| [1, 0].map(|priority| cost(Level::Domains { position, priority })));
    let first = [cost(Level::Moves)].into_iter();
    first.chain(domains).chain([cost(Level::Wishes), cost(Level::Distance)]).collect()
}

/// Whether everybody got all it asked for, cores of its own.
fn is_full(demands: &[Demand], counts: &[Option<u32>]) -> bool {
    demands.iter().zip(counts).all(|(demand, count)| *count == asked(demand))
}

fn asked(demand: &Demand) -> Option<u32> {
    match demand.cpus {
        Wanted::Cores(count) | Wanted::Cpus(count) => Some(count),
        Wanted::Set { .. } => None,
    }
}

fn compare(seed: u64) -> [u32; 3] {
    let dice = &mut Dice::new(seed);
    let host = small(dice);
    let demands = requests(dice, &host);
    let running = incumbents(dice, &host, &demands);
    let placed = place(&demands, &site(&host.hardware), &running);
    let full: Vec<Option<u32>> = demands.iter().map(asked).collect();
    let ask = |counts: &[Option<u32>]| Question { host: &host, demands: &demands, running: &running, counts }.best();
    if !placed.refusals.is_empty() {
        assert_eq!(ask(&full), None, "seed {seed}: it can be had in full: {:?}", placed.refusals);
        let least = demands.iter().zip(&full).map(|(demand, count)| demand.min.or(*count)).collect::<Vec<_>>();
        assert_eq!(ask(&least), None, "seed {seed}: it can be had with the least: {:?}", placed.refusals);
        return [0, 1, 0];
    }
    assert_eq!(placed.verdict, Verdict::Optimal, "seed {seed}");
    let counts = shown(&demands, &placed);
    assert_eq!(Some(costs(&placed)), ask(&counts), "seed {seed}: {counts:?} of {full:?}, {placed:?}");
    if !is_full(&demands, &counts) {
        assert_eq!(ask(&full), None, "seed {seed}: nobody need get less");
        return [0, 0, 1];
    }
    [1, 0, 0]
}

#[test]
fn trying_everything_finds_nothing_better_on_twenty_thousand_small_hosts() {
    let half = |first: u64| {
        (0..HOSTS)
            .map(|seed| compare(2 * seed + first))
            .fold([0; 3], |sum: [u32; 3], one| [sum[0] + one[0], sum[1] + one[1], sum[2] + one[2]])
    };
    let (even, odd) = std::thread::scope(|scope| {
        let even = scope.spawn(|| half(0));
        (even.join().expect("no host differs"), half(1))
    });
    let [whole, refused, degraded] = [0, 1, 2].map(|kind| even[kind] + odd[kind]);
    assert_eq!(u64::from(whole + refused + degraded), 2 * HOSTS);
    assert!(
        whole > 5000 && refused > 1000 && degraded > 1000,
        "{whole} in full, {refused} refused, {degraded} degraded"
    );
}
