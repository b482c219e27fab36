//! What placement promises, as facts.

use lamina_crds::conditions::Reason;
use lamina_crds::hardware::{CpuInventory, NumaNode, Package};
use lamina_crds::wishes::{Domain, OnMissing, WishPolicy};
use lamina_crds::{Bytes, Hardware, SliceName};
use proptest::prelude::*;

use super::*;

mod brute_force;
mod honest;
mod kinds;
mod offline;
mod packing;
mod random_hosts;
mod worked_example;

/// Nodes given as CPU lists, caches and cores likewise; 64 GiB per node, distance 10 or 21.
pub(crate) fn host(nodes: &[&str], caches: &[&str], cores: Vec<CpuSet>) -> Hardware {
    let set = |list: &str| list.parse::<CpuSet>().expect("a legal list");
    let online = nodes.iter().fold(CpuSet::new(), |all, node| all.union(&set(node)));
    let distances = |here: usize| (0..nodes.len()).map(|there| if here == there { 10 } else { 21 }).collect();
    let node = |(index, list): (usize, &&str)| NumaNode {
        id: index as u32,
        cpus: set(list),
        memory: Bytes::mebi(64 << 10),
        distances: distances(index),
    };
    Hardware {
        machine_id: "0123".to_owned(),
        cpus: CpuInventory { online: online.clone(), offline: CpuSet::new(), isolated: CpuSet::new() },
        packages: vec![Package { id: 0, cpus: online }],
        numa_nodes: nodes.iter().enumerate().map(node).collect(),
        l3: caches.iter().map(|list| set(list)).collect(),
        cores,
        kernel: "6.1".to_owned(),
        systemd: "252".to_owned(),
        ..Hardware::default()
    }
}

/// Cores of two threads: n and n + step.
fn twins(count: u32, step: u32) -> Vec<CpuSet> {
    (0..count).map(|cpu| CpuSet::from_iter([cpu, cpu + step])).collect()
}

/// The twenty-CPU host of the running example.
pub(crate) fn seed() -> Hardware {
    host(&["0-7,16-19", "8-15"], &["0-7,16-19", "8-15"], Vec::new())
}

fn demand(topology: &str, slice: &str, cpus: Wanted) -> Demand {
    let topology = TopologyName::new(topology).expect("legal");
    let slice = SliceName::new(slice).expect("legal");
    let unit = UnitName::of_slice(&topology, &slice).expect("legal");
    Demand::of(topology, slice, unit, cpus)
}

/// A host without housekeeping.
pub(crate) fn site(hardware: &Hardware) -> Site<'_> {
    Site { hardware, housekeeping: Vec::new() }
}

fn exactly(cpus: CpuSet) -> Wanted {
    Wanted::Set { cpus, on_missing: OnMissing::Refuse }
}

fn ordinal(ordinal: u32) -> Option<OrdinalWish> {
    Some(OrdinalWish { ordinal, policy: WishPolicy::Prefer })
}

fn in_node(unit: &UnitName) -> Relation {
    Relation { unit: unit.clone(), domain: Domain::Node, policy: WishPolicy::Prefer }
}

fn unit(name: &str) -> UnitName {
    UnitName::new(name).expect("legal")
}

fn set(list: &str) -> CpuSet {
    list.parse().expect("a legal list")
}

/// control: 8 cores on the first node; runner: 8 apart from control; fanout: 4 near control.
fn example() -> Vec<Demand> {
    let control = Demand { ordinal: ordinal(0), ..demand("o", "control", Wanted::Cores(8)) };
    let runner = Demand { apart: vec![in_node(&control.unit)], ..demand("o", "runner", Wanted::Cores(8)) };
    let fanout = Demand { near: vec![in_node(&control.unit)], ..demand("o", "fanout", Wanted::Cores(4)) };
    vec![control, runner, fanout]
}

fn rows(placed: &Placed) -> Vec<(String, String)> {
    let row = |name: &str| {
        let slice = &placed.slices[&unit(&format!("o-{name}.slice"))];
        (slice.cpus.to_string(), slice.memory_nodes.as_ref().map(ToString::to_string).unwrap_or_default())
    };
    ["control", "runner", "fanout"].map(row).to_vec()
}

fn assert_example(hardware: &Hardware, cpus: [&str; 3], memory_nodes: [&str; 3]) {
    let placed = place(&example(), &site(hardware), &Placement::default());
    assert_eq!(placed.refusals, BTreeMap::new());
    let expected: Vec<(String, String)> =
        cpus.iter().zip(memory_nodes).map(|(cpus, nodes)| (set(cpus).to_string(), nodes.to_owned())).collect();
    assert_eq!(rows(&placed), expected);
}

fn running(placed: &Placed, demands: &[Demand]) -> Placement {
    let incumbent = |demand: &Demand| {
        let PlacedSlice { cpus, memory_nodes, .. } = placed.slices.get(&demand.unit)?.clone();
        Some((demand.unit.clone(), Incumbent { topology: demand.topology.clone(), cpus, memory_nodes }))
    };
    Placement { slices: demands.iter().filter_map(incumbent).collect() }
}

#[test]
fn the_running_example_lands_where_the_seed_has_it() {
    assert_example(&seed(), ["0-7", "8-15", "16-19"], ["0", "1", "0"]);
}

#[test]
fn literal_sets_and_cores_give_the_same_places() {
    let sets = ["0-7", "8-15", "16-19"];
    let literal = example().into_iter().zip(sets).map(|(demand, list)| Demand { cpus: exactly(set(list)), ..demand });
    let literal: Vec<Demand> = literal.collect();
    let literal = place(&literal, &site(&seed()), &Placement::default());
    assert_eq!(literal.slices, place(&example(), &site(&seed()), &Placement::default()).slices);
}

#[test]
fn two_sockets_of_thirty_two_cores_give_whole_cores_with_their_siblings() {
    let hardware = host(&["0-31,64-95", "32-63,96-127"], &["0-31,64-95", "32-63,96-127"], twins(64, 64));
    assert_example(&hardware, ["0-7,64-71", "32-39,96-103", "8-11,72-75"], ["0", "1", "0"]);
}

#[test]
fn alternating_numbers_do_not_straddle_sockets() {
    let every_other = |first: u32| {
        let cpus: CpuSet = (0..112).filter(|cpu| cpu % 2 == first).collect();
        cpus.to_string()
    };
    let (even, odd) = (every_other(0), every_other(1));
    let hardware = host(&[&even, &odd], &[&even, &odd], twins(56, 56));
    let control = "0,2,4,6,8,10,12,14,56,58,60,62,64,66,68,70";
    let runner = "1,3,5,7,9,11,13,15,57,59,61,63,65,67,69,71";
    assert_example(&hardware, [control, runner, "16,18,20,22,72,74,76,78"], ["0", "1", "0"]);
}

fn caches(count: u32, size: u32, threads: u32) -> Vec<String> {
    let list = |cache: u32| {
        let (first, last) = (cache * size, cache * size + size - 1);
        format!("{first}-{last},{}-{}", first + threads, last + threads)
    };
    (0..count).map(list).collect()
}

fn strs(lists: &[String]) -> Vec<&str> {
    lists.iter().map(String::as_str).collect()
}

#[test]
fn eight_cores_fill_one_cache_of_a_many_cache_node() {
    let hardware = host(&["0-95,192-287", "96-191,288-383"], &strs(&caches(24, 8, 192)), twins(192, 192));
    assert_example(&hardware, ["0-7,192-199", "96-103,288-295", "8-11,200-203"], ["0", "1", "0"]);
}

#[test]
fn eight_nodes_of_two_caches_keep_each_slice_in_one_node() {
    let hardware = host(&strs(&caches(8, 16, 128)), &strs(&caches(16, 8, 128)), twins(128, 128));
    assert_example(&hardware, ["0-7,128-135", "16-23,144-151", "8-11,136-139"], ["0", "1", "0"]);
}

#[test]
fn nodes_smaller_than_a_slice_are_joined_to_their_neighbours() {
    let mut hardware = host(&strs(&caches(8, 6, 48)), &strs(&caches(16, 3, 48)), twins(48, 48));
    for (index, node) in hardware.numa_nodes.iter_mut().enumerate() {
        let distance = |other: usize| match (index == other, index / 4 == other / 4) {
            (true, _) => 10,
            (false, true) => 16,
            (false, false) => 32,
        };
        node.distances = (0..8).map(distance).collect();
    }
    assert_example(&hardware, ["0-7,48-55", "12-19,60-67", "8-11,56-59"], ["0-1", "2-3", "1"]);
}

#[test]
fn a_host_of_one_node_gets_no_memory_nodes() {
    let hardware = host(&["0-31"], &["0-31"], Vec::new());
    assert_example(&hardware, ["0-7", "8-15", "16-19"], ["", "", ""]);
}

#[test]
fn cores_in_no_online_node_take_the_nearest_memory() {
    let mut hardware = host(&["5,7,9,11,13,15,17,19"], &[], Vec::new());
    hardware.numa_nodes[0].id = 1;
    hardware.cpus.online = set("4-20");
    let demands = &example()[..2];
    let placed = place(demands, &site(&hardware), &Placement::default());
    let slice = |name: &str| &placed.slices[&unit(name)];
    assert_eq!(slice("o-control.slice").cpus, set("5,7,9,11,13,15,17,19"));
    assert_eq!(slice("o-runner.slice").cpus, set("4,6,8,10,12,14,16,18"));
    assert_eq!(slice("o-runner.slice").memory_nodes, "1".parse().ok());
}

#[test]
fn what_runs_stays_where_it_is() {
    let demands = example();
    let elsewhere = [("o-control.slice", "0-3,16-19"), ("o-runner.slice", "8-15"), ("o-fanout.slice", "4-7")];
    let incumbents = elsewhere.map(|(name, list)| {
        let topology = TopologyName::new("o").expect("legal");
        (unit(name), Incumbent { topology, cpus: set(list), memory_nodes: None })
    });
    let placed = place(&demands, &site(&seed()), &Placement { slices: BTreeMap::from(incumbents) });
    assert_eq!(placed.slices[&unit("o-control.slice")].cpus, set("0-3,16-19"));
    assert_eq!(placed.slices[&unit("o-fanout.slice")].cpus, set("4-7"));
}

#[test]
fn a_slice_that_grows_keeps_its_cores_and_takes_more_beside_them() {
    let small = vec![demand("o", "a", Wanted::Cores(2)), demand("o", "b", Wanted::Cores(2))];
    let first = place(&small, &site(&seed()), &Placement::default());
    let held = first.slices[&small[0].unit].cpus.clone();
    let grown = vec![demand("o", "a", Wanted::Cores(4)), demand("o", "b", Wanted::Cores(2))];
    let second = place(&grown, &site(&seed()), &running(&first, &small));
    assert!(held.is_subset(&second.slices[&grown[0].unit].cpus));
    assert_eq!(second.slices[&grown[0].unit].memory_nodes, first.slices[&small[0].unit].memory_nodes);
    assert_eq!(second.slices[&grown[1].unit], first.slices[&small[1].unit]);
}

#[test]
fn a_cpu_that_goes_offline_leaves_its_slice_in_place() {
    let demands = example();
    let first = place(&demands, &site(&seed()), &Placement::default());
    let mut hardware = seed();
    hardware.cpus.online.remove(3);
    hardware.cpus.offline.insert(3);
    hardware.numa_nodes[0].cpus.remove(3);
    let second = place(&demands, &site(&hardware), &running(&first, &demands));
    assert_eq!(second.slices[&demands[0].unit].cpus, set("0-7"));
    assert_eq!(second.slices[&demands[0].unit].offline, set("3"));
}

#[test]
fn a_set_that_the_host_does_not_have_is_refused_with_its_numbers() {
    let placed = place(&[demand("o", "control", exactly(set("16-31")))], &site(&seed()), &Placement::default());
    let refusal = &placed.refusals[&TopologyName::new("o").expect("legal")];
    assert_eq!(refusal.reason, Reason::Infeasible);
    assert_eq!(
        refusal.message,
        "slice control asks for CPUs 16-31 (cpu.set); 20-31 are missing on this host, whose online CPUs are 0-19; name \
         CPUs that are online, or ask for a number of cores with cpu.cores"
    );
}

#[test]
fn the_incumbent_keeps_its_cpus_and_the_newcomer_is_told_whose_they_are() {
    let old = demand("old", "a", exactly(set("0-3")));
    let new = demand("new", "b", exactly(set("2-5")));
    let first = place(std::slice::from_ref(&old), &site(&seed()), &Placement::default());
    let both = [old.clone(), new];
    let second = place(&both, &site(&seed()), &running(&first, &both));
    assert_eq!(second.slices[&old.unit], first.slices[&old.unit]);
    let refusal = &second.refusals[&TopologyName::new("new").expect("legal")];
    assert_eq!(refusal.reason, Reason::CpusTaken);
    assert!(refusal.message.contains("2-3 belong to old-a.slice"), "{}", refusal.message);
}

#[test]
fn a_topology_that_is_refused_keeps_what_it_holds_from_others() {
    let before = demand("old", "a", Wanted::Cores(8));
    let first = place(std::slice::from_ref(&before), &site(&seed()), &Placement::default());
    let both = [demand("old", "a", Wanted::Cores(30)), demand("new", "b", Wanted::Cores(13))];
    let second = place(&both, &site(&seed()), &running(&first, std::slice::from_ref(&before)));
    assert_eq!(second.refusals.len(), 2);
}

#[test]
fn a_literal_set_moves_a_counted_slice_of_its_own_topology() {
    let before = [demand("o", "a", Wanted::Cores(4)), demand("o", "b", Wanted::Cores(4))];
    let first = place(&before, &site(&seed()), &Placement::default());
    let wanted = first.slices[&before[1].unit].cpus.clone();
    let after = [demand("o", "a", exactly(wanted.clone())), before[1].clone()];
    let second = place(&after, &site(&seed()), &running(&first, &before));
    assert_eq!(second.slices[&after[0].unit].cpus, wanted);
    assert!(second.slices[&after[1].unit].cpus.is_disjoint(&wanted));
}

#[test]
fn shared_slices_share_only_when_they_must() {
    let shared =
        |slice: &str, cores| Demand { isolation: Isolation::Shared, ..demand("o", slice, Wanted::Cores(cores)) };
    let roomy = [shared("a", 8), shared("b", 8)];
    let placed = place(&roomy, &site(&seed()), &Placement::default());
    assert!(placed.slices[&roomy[0].unit].cpus.is_disjoint(&placed.slices[&roomy[1].unit].cpus));
    let crowded = [shared("a", 16), shared("b", 16), demand("o", "c", Wanted::Cores(4))];
    let placed = place(&crowded, &site(&seed()), &Placement::default());
    assert_eq!(placed.refusals, BTreeMap::new());
    let exclusive = &placed.slices[&crowded[2].unit].cpus;
    assert!(crowded[..2].iter().all(|demand| placed.slices[&demand.unit].cpus.is_disjoint(exclusive)));
}

#[test]
fn too_few_cores_are_said_in_numbers() {
    let placed = place(&[demand("o", "control", Wanted::Cores(21))], &site(&seed()), &Placement::default());
    let refusal = &placed.refusals[&TopologyName::new("o").expect("legal")];
    let expected = "slice control asks for 21 whole cores (cpu.cores); 20 are left for it on this host of 20 cores (CPUs \
                    0-19); lower cpu.cores, or free cores on this host";
    assert_eq!(refusal.message, expected);
}

#[test]
fn isolated_cpus_are_used_only_by_name() {
    let mut hardware = seed();
    hardware.cpus.isolated = set("8-15");
    let counted = place(&[demand("o", "a", Wanted::Cores(13))], &site(&hardware), &Placement::default());
    assert_eq!(counted.refusals.len(), 1);
    let named = place(&[demand("o", "a", exactly(set("8-15")))], &site(&hardware), &Placement::default());
    assert_eq!(named.refusals, BTreeMap::new());
}

prop_compose! {
    /// A machine of up to 4 nodes of up to 9 cores, one or two threads each, numbered in a row.
    fn machines()(sizes in prop::collection::vec(1u32..10, 1..5), threads in 1u32..3) -> Hardware {
        let total: u32 = sizes.iter().sum();
        let siblings = |core: u32| -> CpuSet { (0..threads).map(|thread| core + thread * total).collect() };
        let mut first = 0;
        let mut nodes = Vec::new();
        for size in &sizes {
            let cpus = (first..first + size).fold(CpuSet::new(), |all, core| all.union(&siblings(core)));
            nodes.push(cpus.to_string());
            first += size;
        }
        let cores = if threads > 1 { (0..total).map(siblings).collect() } else { Vec::new() };
        host(&strs(&nodes), &strs(&nodes), cores)
    }
}

prop_compose! {
    fn demand_lists()(list in prop::collection::vec((0usize..3, 1u32..7, prop::option::of(0u32..3), any::<bool>()), 1..7))
        -> Vec<Demand> {
        let mut demands: Vec<Demand> = Vec::new();
        for (index, (topology, cores, ordinal, shared)) in list.into_iter().enumerate() {
            let isolation = if shared { Isolation::Shared } else { Isolation::Exclusive };
            let topology = ["x", "y", "z"][topology];
            let base = demand(topology, &format!("s{index}"), Wanted::Cores(cores));
            let sibling = demands.iter().find(|other| other.topology == base.topology).map(|other| other.unit.clone());
            let ordinal = ordinal.and_then(super::tests::ordinal);
            demands.push(Demand { ordinal, isolation, apart: sibling.iter().map(in_node).collect(), ..base });
        }
        demands.sort_by(|a, b| a.topology.cmp(&b.topology));
        demands
    }
}

proptest! {
    /// Counts by hand what was given: whole cores, as many as asked, nobody's twice.
    #[test]
    fn every_answer_survives_an_independent_count(hardware in machines(), demands in demand_lists()) {
        let placed = place(&demands, &site(&hardware), &Placement::default());
        let cores = hardware.online_cores();
        for demand in &demands {
            let refused = placed.refusals.contains_key(&demand.topology);
            prop_assert_eq!(refused, !placed.slices.contains_key(&demand.unit));
            let Some(slice) = placed.slices.get(&demand.unit) else { continue };
            let whole = cores.iter().filter(|core| core.is_subset(&slice.cpus)).count();
            let touched = cores.iter().filter(|core| !core.is_disjoint(&slice.cpus)).count();
            prop_assert_eq!(demand.cpus.clone(), Wanted::Cores(whole as u32));
            prop_assert_eq!(whole, touched);
            for other in demands.iter().filter(|other| other.unit != demand.unit) {
                let both_shared = demand.isolation == Isolation::Shared && other.isolation == Isolation::Shared;
                let Some(theirs) = placed.slices.get(&other.unit) else { continue };
                prop_assert!(both_shared || theirs.cpus.is_disjoint(&slice.cpus));
            }
        }
    }

    /// What was placed once is kept: the second answer is the first.
    #[test]
    fn placing_again_moves_nothing(hardware in machines(), demands in demand_lists()) {
        let first = place(&demands, &site(&hardware), &Placement::default());
        let second = place(&demands, &site(&hardware), &running(&first, &demands));
        for (unit, slice) in &first.slices {
            prop_assert_eq!(&second.slices[unit], slice);
        }
    }
}

#[test]
fn distances_that_no_firmware_can_say_are_only_far() {
    let mut hardware = host(&["0-1", "2-3", "4-5"], &["0-1", "2-3", "4-5"], Vec::new());
    for node in &mut hardware.numa_nodes {
        node.distances = vec![u32::MAX; 3];
    }
    let demands = [demand("x", "wide", Wanted::Cores(6))];
    let placed = place(&demands, &site(&hardware), &Placement::default());
    assert_eq!(placed.slices[&demands[0].unit].cpus.to_string(), "0-5");
}
