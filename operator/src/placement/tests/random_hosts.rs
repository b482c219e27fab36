//! Random hosts and requests, small and large: what was given is counted by hand, whatever is infeasible is so for the
//! reason given, and the order of lists does not matter.

use std::collections::BTreeMap;

use lamina_crds::hardware::CoreKind;
use lamina_crds::wishes::{AlignPolicy, Alignment, CoreType, Domain, OnMissing, Per, Siblings, WishPolicy};
use lamina_crds::{CpuSet, Hardware, NodeSet};

use super::{demand, site};
use crate::placement::shapes::{self, Dice, SHAPES, Shape, regular};
use crate::placement::{
    Constraint, Demand, HousekeepingWish, Incumbent, Level, OrdinalWish, Placed, Placement, Relation, Shortfall, Site,
    Verdict, Wanted, place,
};

/// A machine of one of many kinds, with CPUs offline and isolated on some.
fn host(dice: &mut Dice) -> Hardware {
    let mut hardware = match dice.below(8) {
        0 => shapes::machine(SHAPES[dice.below(4) as usize]),
        1 => shapes::machine(Shape::Hybrid),
        _ => regular(1 + dice.below(2), 1 + dice.below(4), 1 + dice.below(4), 1 + dice.below(8), 1 + dice.below(3)),
    };
    if dice.below(3) == 0 {
        let online: Vec<u32> = hardware.cpus.online.iter().collect();
        for cpu in online.iter().copied().filter(|cpu| *cpu > 0 && dice.below(8) == 0) {
            hardware.cpus.online.remove(cpu);
            hardware.cpus.offline.insert(cpu);
            hardware.numa_nodes.iter_mut().for_each(|node| node.cpus.remove(cpu));
            hardware.l3.iter_mut().for_each(|cache| cache.remove(cpu));
            hardware.cores.iter_mut().for_each(|core| core.remove(cpu));
        }
    }
    if dice.below(4) == 0 {
        hardware.cpus.isolated = hardware.cpus.online.iter().filter(|_| dice.below(10) == 0).collect();
    }
    hardware
}

fn requests(dice: &mut Dice, hardware: &Hardware) -> Vec<Demand> {
    let cores = hardware.online_cores().len() as u32;
    let count = 1 + dice.below(6);
    let mut demands: Vec<Demand> = Vec::new();
    for index in 0..count {
        let most = (cores * 3 / 2 / count).max(1);
        let number = 1 + dice.below(most);
        let wanted = if dice.below(4) == 0 { Wanted::Cpus(number) } else { Wanted::Cores(number) };
        let is_cores = matches!(wanted, Wanted::Cores(_));
        let mut wish = demand("o", &format!("s{index}"), wanted);
        wish.priority = dice.below(3) as i32;
        wish.min = (dice.below(3) == 0).then(|| 1 + dice.below(number));
        if is_cores && dice.below(5) == 0 {
            wish.siblings = Siblings::Idle;
        }
        if dice.below(8) == 0 {
            wish.core_type = [CoreType::Performance, CoreType::Efficiency][dice.below(2) as usize];
        }
        if dice.below(6) == 0 {
            let domain = [Domain::Package, Domain::Node, Domain::L3][dice.below(3) as usize];
            wish.align = vec![Alignment { domain, policy: AlignPolicy::Require }];
        }
        if dice.below(6) == 0 {
            let policy = if dice.below(2) == 0 { WishPolicy::Require } else { WishPolicy::Prefer };
            wish.ordinal = Some(OrdinalWish { ordinal: dice.below(3), policy });
        }
        if dice.below(8) == 0 {
            wish.nodes = Some(NodeSet::from_iter([0, dice.below(4)]));
        }
        if index > 0 && dice.below(3) == 0 {
            let unit = demands[dice.below(index) as usize].unit.clone();
            let policy = if dice.below(3) == 0 { WishPolicy::Require } else { WishPolicy::Prefer };
            let relation = Relation { unit, domain: Domain::Node, policy };
            match dice.below(2) {
                0 => wish.near.push(relation),
                _ => wish.apart.push(relation),
            }
        }
        if index > 0 && dice.below(5) == 0 {
            wish.share_with = Some(demands[dice.below(index) as usize].unit.clone());
        }
        demands.push(wish);
    }
    demands
}

fn housekeeping(dice: &mut Dice) -> Vec<HousekeepingWish> {
    match dice.below(4) {
        0 => vec![HousekeepingWish::Cores { count: 1 + dice.below(2), per: Per::Node }],
        1 => vec![HousekeepingWish::Set(CpuSet::from_iter([dice.below(8)]))],
        _ => Vec::new(),
    }
}

/// Counts what every slice was given.
fn count(seed: u64, site: &Site, demands: &[Demand], placed: &Placed) {
    let hardware = site.hardware;
    let usable = hardware.cpus.online.difference(&hardware.cpus.isolated).difference(&placed.housekeeping);
    let cores = hardware.online_cores();
    let mut owner: BTreeMap<u32, &Demand> = BTreeMap::new();
    for demand in demands {
        let slice = &placed.slices[&demand.unit];
        let shared = slice.shortfalls.iter().find_map(|shortfall| match shortfall {
            Shortfall::Shared { with, .. } => Some(with),
            Shortfall::Shrunk { .. } | Shortfall::Relaxed { .. } | Shortfall::Offline { .. } => None,
        });
        assert!(!slice.cpus.is_empty() && slice.cpus.is_subset(&usable), "seed {seed}: {} of {usable}", slice.cpus);
        if let Some(with) = shared {
            assert_eq!(Some(with), demand.share_with.as_ref(), "seed {seed}");
            assert_eq!(slice.cpus, placed.slices[with].cpus, "seed {seed}");
            continue;
        }
        let touched: Vec<&CpuSet> = cores.iter().filter(|core| !core.is_disjoint(&slice.cpus)).collect();
        let (asked, got) = match demand.cpus {
            Wanted::Cores(asked) => (asked, touched.len() as u32),
            Wanted::Cpus(asked) => (asked, slice.cpus.len() as u32),
            Wanted::Set { .. } => unreachable!("not drawn"),
        };
        assert_eq!((slice.asked, slice.got), (asked, got), "seed {seed}");
        assert!(got <= asked && got >= demand.min.unwrap_or(asked), "seed {seed}: {got} of {asked}");
        if let Wanted::Cores(_) = demand.cpus {
            let expected: CpuSet = match demand.siblings {
                Siblings::Take => touched.iter().flat_map(|core| core.iter()).collect(),
                Siblings::Idle => touched.iter().filter_map(|core| core.first()).collect(),
            };
            assert_eq!(slice.cpus, expected, "seed {seed}");
            touched.iter().flat_map(|core| core.iter()).for_each(|cpu| own(seed, &mut owner, cpu, demand));
        } else {
            slice.cpus.iter().for_each(|cpu| own(seed, &mut owner, cpu, demand));
        }
        kinds(seed, hardware, demand, &slice.cpus);
    }
}

fn own<'a>(seed: u64, owner: &mut BTreeMap<u32, &'a Demand>, cpu: u32, demand: &'a Demand) {
    let before = owner.insert(cpu, demand);
    assert!(before.is_none(), "seed {seed}: CPU {cpu} belongs to {} and {}", demand.slice, before.expect("one").slice);
}

fn kinds(seed: u64, hardware: &Hardware, demand: &Demand, cpus: &CpuSet) {
    for group in &hardware.core_types {
        let is_wanted = match (demand.core_type, group.core_type) {
            (CoreType::Any, _) => continue,
            (CoreType::Performance, kind) => kind == CoreKind::Performance,
            (CoreType::Efficiency, kind) => kind == CoreKind::Efficiency,
        };
        assert!(is_wanted || cpus.is_disjoint(&group.cpus), "seed {seed}: {cpus} are of the other kind");
    }
    let of_kind = hardware.core_types.iter().filter(|group| !group.cpus.is_disjoint(cpus)).count();
    assert!(of_kind <= 1, "seed {seed}: {cpus} mix kinds");
    if let Some(nodes) = &demand.nodes {
        assert!(hardware.nodes_of(cpus).is_subset(nodes), "seed {seed}");
    }
    for wish in demand.align.iter().filter(|wish| wish.policy == AlignPolicy::Require) {
        let domains: Vec<&CpuSet> = match wish.domain {
            Domain::Package => hardware.packages.iter().map(|package| &package.cpus).collect(),
            Domain::Node => hardware.numa_nodes.iter().map(|node| &node.cpus).collect(),
            Domain::L3 => hardware.l3.iter().collect(),
        };
        let used = domains.iter().filter(|domain| !domain.is_disjoint(cpus)).count();
        assert!(used <= 1, "seed {seed}: {cpus} in several of {:?}", wish.domain);
    }
}

#[test]
fn what_is_given_on_random_hosts_survives_a_count_by_hand() {
    let mut whole = 0;
    for seed in 0..1500 {
        let dice = &mut Dice::new(seed);
        let hardware = host(dice);
        let demands = requests(dice, &hardware);
        let site = Site { hardware: &hardware, housekeeping: housekeeping(dice) };
        let placed = place(&demands, &site, &Placement::default());
        if placed.refusals.is_empty() {
            count(seed, &site, &demands, &placed);
            whole += 1;
        }
    }
    assert!(whole > 500, "{whole} were placed");
}

#[test]
fn the_order_of_lists_does_not_matter() {
    for seed in 0..300 {
        let dice = &mut Dice::new(seed);
        let hardware = host(dice);
        let mut demands = requests(dice, &hardware);
        let first = place(&demands, &site(&hardware), &Placement::default());
        let mut turned = hardware.clone();
        let order: Vec<usize> = (0..hardware.numa_nodes.len()).rev().collect();
        turned.numa_nodes = order.iter().map(|index| hardware.numa_nodes[*index].clone()).collect();
        for node in &mut turned.numa_nodes {
            node.distances = order.iter().map(|index| node.distances[*index]).collect();
        }
        turned.l3.reverse();
        turned.cores.reverse();
        turned.packages.reverse();
        turned.core_types.reverse();
        demands.reverse();
        assert_eq!(place(&demands, &site(&turned), &Placement::default()), first, "seed {seed}");
    }
}

#[test]
fn what_was_placed_stays_when_placed_again() {
    for seed in 0..300 {
        let dice = &mut Dice::new(seed);
        let hardware = host(dice);
        let demands = requests(dice, &hardware);
        let first = place(&demands, &site(&hardware), &Placement::default());
        let incumbent = |demand: &Demand| {
            let slice = first.slices.get(&demand.unit)?;
            let (cpus, memory_nodes) = (slice.cpus.clone(), slice.memory_nodes.clone());
            Some((demand.unit.clone(), Incumbent { topology: demand.topology.clone(), cpus, memory_nodes }))
        };
        let running = Placement { slices: demands.iter().filter_map(incumbent).collect() };
        let second = place(&demands, &site(&hardware), &running);
        // With so good a start the search may find room for more where somebody had to shrink.
        if first.slices.values().all(|slice| slice.got == slice.asked) {
            assert_eq!((second.slices, second.moves), (first.slices, Vec::new()), "seed {seed}");
        }
    }
}

/// The demands without one of the things that stand against each other, and only with those that do.
fn without(demands: &[Demand], conflict: &[Constraint], left_out: Option<&Constraint>) -> Vec<Demand> {
    let kept = |constraint: &Constraint| conflict.contains(constraint) && Some(constraint) != left_out;
    let reduced = |demand: &Demand| {
        let unit = || demand.unit.clone();
        let mut demand = demand.clone();
        if !kept(&Constraint::CoreType { unit: unit() }) {
            demand.core_type = CoreType::Any;
        }
        if !kept(&Constraint::Nodes { unit: unit() }) {
            demand.nodes = None;
        }
        if !kept(&Constraint::Ordinal { unit: unit() }) {
            demand.ordinal = None;
        }
        demand.align.retain(|wish| kept(&Constraint::Align { unit: unit(), domain: wish.domain }));
        demand.near.retain(|near| kept(&Constraint::Near { unit: unit(), to: near.unit.clone() }));
        demand.apart.retain(|apart| kept(&Constraint::Apart { unit: unit(), from: apart.unit.clone() }));
        demand
    };
    let is_there = |demand: &&Demand| kept(&Constraint::Slice { unit: demand.unit.clone() });
    demands.iter().filter(is_there).map(reduced).collect()
}

#[test]
fn what_is_refused_can_be_had_without_any_one_of_the_things_that_are_named() {
    let mut refused = 0;
    for seed in 5000..6200 {
        let dice = &mut Dice::new(seed);
        let hardware = regular(1 + dice.below(2), 1 + dice.below(2), 1 + dice.below(2), 1 + dice.below(4), 1);
        let demands = requests(dice, &hardware);
        let placed = place(&demands, &site(&hardware), &Placement::default());
        let Some(conflict) = placed.conflicts.values().next() else { continue };
        refused += 1;
        let fails = |left_out: Option<&Constraint>| {
            let demands = without(&demands, conflict, left_out);
            !place(&demands, &site(&hardware), &Placement::default()).refusals.is_empty()
        };
        let message = || placed.refusals.values().next().map(|refusal| refusal.message.clone());
        assert!(!conflict.is_empty() && fails(None), "seed {seed}: {conflict:?} {:?}", message());
        for constraint in conflict {
            assert!(!fails(Some(constraint)), "seed {seed}: without {constraint:?} of {conflict:?} {:?}", message());
        }
    }
    assert!(refused > 300, "{refused} were refused");
}

#[test]
fn nearly_all_instances_of_the_four_shapes_are_proven() {
    let proven = |shape: Shape, load: u32| {
        let hardware = shapes::machine(shape);
        let verdict = |seed: u64| {
            let demands = shapes::slices(&hardware, 32, load, seed);
            let placed = place(&demands, &site(&hardware), &Placement::default());
            assert_eq!(placed.refusals.len(), 0, "{shape:?} at {load} %, seed {seed}");
            placed.verdict
        };
        (0..25).filter(|seed| verdict(*seed) == Verdict::Optimal).count()
    };
    for shape in SHAPES {
        for (load, least) in [(50, 25), (70, 25), (90, 24), (95, 23)] {
            let proven = proven(shape, load);
            assert!(proven >= least, "{shape:?} at {load} %: {proven} of 25");
        }
    }
}

/// A slice asks to be near one that must lie in two nodes; two slices must lie in two nodes each; and few small wishes are
/// there to fill up what large ones leave.
#[test]
fn hosts_that_are_hard_to_judge_are_judged() {
    let verdict = |shape, load, seed| {
        let hardware = shapes::machine(shape);
        place(&shapes::slices(&hardware, 32, load, seed), &site(&hardware), &Placement::default()).verdict
    };
    assert_eq!(verdict(Shape::EightNodes, 90, 132), Verdict::Optimal);
    assert_eq!(verdict(Shape::EightNodes, 90, 109), Verdict::Optimal);
    let Verdict::Feasible { gap } = verdict(Shape::Hybrid, 100, 165) else { return };
    assert!(gap.level == Level::Domains { position: 1, priority: 0 } && gap.amount <= 3, "{gap:?}");
}

#[test]
fn a_set_of_which_a_part_is_missing_is_used_by_consent() {
    let mut hardware = super::seed();
    hardware.cpus.online.remove(3);
    hardware.cpus.offline.insert(3);
    let cpus = super::set("0-7");
    let wish = demand("o", "a", Wanted::Set { cpus: cpus.clone(), on_missing: OnMissing::UseOnline });
    let placed = place(std::slice::from_ref(&wish), &site(&hardware), &Placement::default());
    let slice = &placed.slices[&wish.unit];
    assert_eq!((slice.cpus.to_string(), slice.got), ("0-2,4-7".to_owned(), 7));
    assert_eq!(slice.shortfalls[0].to_string(), "cpu.set: CPUs 0-7 wanted, 3 are not online");
}
