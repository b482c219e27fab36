//! The three slices of the running example on machines of thirteen kinds, built from counts: where they go, from which
//! nodes they take memory, and what is said of it.

use lamina_crds::hardware::{CpuInventory, NumaNode, Package};
use lamina_crds::wishes::{AlignPolicy, Alignment, Domain, Per};
use lamina_crds::{Bytes, CpuSet, Hardware, NodeSet};

use super::{demand, in_node, ordinal, set};
use crate::placement::{Demand, HousekeepingWish, Placed, Placement, Shortfall, Site, Verdict, Wanted, place};

/// A row of the table: a machine, what is kept free on it, and where control, runner and fanout go.
struct Row {
    hardware: Hardware,
    housekeeping: Vec<HousekeepingWish>,
    cpus: [&'static str; 3],
    memory_nodes: [&'static str; 3],
    shortfalls: [&'static [&'static str]; 3],
}

/// Nodes and caches as CPU lists, cores of several threads likewise; the packages are those of the nodes.
fn machine(nodes: &[(u32, String)], caches: &[String], cores: Vec<CpuSet>, distance: fn(u32, u32) -> u32) -> Hardware {
    let online = nodes.iter().fold(CpuSet::new(), |all, (_, cpus)| all.union(&set(cpus)));
    let node = |(id, cpus): &(u32, String)| NumaNode {
        id: *id,
        cpus: set(cpus),
        memory: Bytes::mebi(64 << 10),
        distances: nodes.iter().map(|(other, _)| distance(*id, *other)).collect(),
    };
    Hardware {
        cpus: CpuInventory { online: online.clone(), ..CpuInventory::default() },
        packages: vec![Package { id: 0, cpus: online }],
        numa_nodes: nodes.iter().map(node).collect(),
        l3: caches.iter().map(|cache| set(cache)).collect(),
        cores,
        ..Hardware::default()
    }
}

/// Equal nodes of equal caches of two-threaded cores, numbered in a row, second threads after all first ones.
fn regular(nodes: u32, caches: u32, cores: u32, distance: fn(u32, u32) -> u32) -> Hardware {
    let total = nodes * caches * cores;
    let part = |size: u32| {
        let list = move |part: u32| {
            let (first, last) = (part * size, (part + 1) * size - 1);
            format!("{first}-{last},{}-{}", first + total, last + total)
        };
        (0..total / size).map(list).collect::<Vec<String>>()
    };
    let nodes: Vec<(u32, String)> = (0..).zip(part(caches * cores)).collect();
    machine(&nodes, &part(cores), (0..total).map(|core| CpuSet::from_iter([core, core + total])).collect(), distance)
}

fn two_sockets(from: u32, to: u32) -> u32 {
    if from == to { 10 } else { 21 }
}

/// Four nodes to a socket.
fn four_to_a_socket(from: u32, to: u32) -> u32 {
    match (from == to, from / 4 == to / 4) {
        (true, _) => 10,
        (false, true) => 16,
        (false, false) => 32,
    }
}

fn one_node(cpus: &str, cores: Vec<CpuSet>) -> Hardware {
    machine(&[(0, cpus.to_owned())], &[cpus.to_owned()], cores, two_sockets)
}

fn seed() -> Hardware {
    let nodes = ["0-7,16-19".to_owned(), "8-15".to_owned()];
    machine(&[(0, nodes[0].clone()), (1, nodes[1].clone())], &nodes, Vec::new(), two_sockets)
}

fn wishes() -> [Demand; 3] {
    let control = demand("o", "control", Wanted::Cores(8));
    let control = Demand { priority: 30, min: Some(1), ordinal: ordinal(0), ..control };
    let runner = demand("o", "runner", Wanted::Cores(8));
    let runner = Demand { priority: 20, min: Some(1), apart: vec![in_node(&control.unit)], ..runner };
    let fanout = demand("o", "fanout", Wanted::Cores(4));
    let (near, share_with) = (vec![in_node(&control.unit)], Some(control.unit.clone()));
    [control, runner, Demand { priority: 10, near, share_with, ..fanout }]
}

fn answer(row: &Row) -> Placed {
    let site = Site { hardware: &row.hardware, housekeeping: row.housekeeping.clone() };
    place(&wishes(), &site, &Placement::default())
}

fn holds(row: Row) {
    let placed = answer(&row);
    assert_eq!(placed.refusals.len(), 0, "{:?}", placed.refusals);
    assert_eq!(placed.verdict, Verdict::Optimal);
    for (index, demand) in wishes().iter().enumerate() {
        let slice = &placed.slices[&demand.unit];
        assert_eq!(slice.cpus.to_string(), set(row.cpus[index]).to_string(), "{}", demand.slice);
        let nodes = slice.memory_nodes.as_ref().map(ToString::to_string).unwrap_or_default();
        assert_eq!(nodes, row.memory_nodes[index], "{}", demand.slice);
        let said: Vec<String> = slice.shortfalls.iter().map(Shortfall::to_string).collect();
        assert_eq!(said, row.shortfalls[index], "{}", demand.slice);
    }
}

fn whole(hardware: Hardware, cpus: [&'static str; 3], memory_nodes: [&'static str; 3]) {
    holds(Row { hardware, housekeeping: Vec::new(), cpus, memory_nodes, shortfalls: [&[], &[], &[]] });
}

#[test]
fn on_the_twenty_cores_of_the_seed_counts_give_its_lists() {
    whole(seed(), ["0-7", "8-15", "16-19"], ["0", "1", "0"]);
}

#[test]
fn on_a_laptop_two_shrink_and_one_shares() {
    holds(Row {
        hardware: one_node("0-7", (0..4).map(|core| CpuSet::from_iter([core, core + 4])).collect()),
        housekeeping: Vec::new(),
        cpus: ["0-1,4-5", "2-3,6-7", "0-1,4-5"],
        memory_nodes: ["", "", ""],
        shortfalls: [
            &["2 of 8 (cpu.min allows it)"],
            &["2 of 8 (cpu.min allows it)", "numa.apart: another node than o-control.slice wanted, both are in node 0"],
            &["runs inside o-control.slice: 4 cores on this host, 20 asked"],
        ],
    });
}

#[test]
fn on_eight_cores_the_lists_are_those_of_the_seed_for_fewer_cores() {
    let placed = answer(&Row {
        hardware: one_node("0-7", Vec::new()),
        housekeeping: Vec::new(),
        cpus: ["", "", ""],
        memory_nodes: ["", "", ""],
        shortfalls: [&[], &[], &[]],
    });
    let cpus = wishes().map(|demand| placed.slices[&demand.unit].cpus.to_string());
    assert_eq!(cpus, ["0-3", "4-7", "0-3"]);
}

#[test]
fn of_seven_cores_the_higher_priority_gets_the_remainder() {
    let placed = answer(&Row {
        hardware: one_node("0-7", Vec::new()),
        housekeeping: vec![HousekeepingWish::Cores { count: 1, per: Per::Host }],
        cpus: ["", "", ""],
        memory_nodes: ["", "", ""],
        shortfalls: [&[], &[], &[]],
    });
    let cpus = wishes().map(|demand| placed.slices[&demand.unit].cpus.to_string());
    assert_eq!(cpus, ["1-4", "5-7", "1-4"]);
    assert_eq!(placed.housekeeping, set("0"));
}

#[test]
fn on_two_sockets_of_thirty_two_cores_fanout_is_beside_control() {
    whole(regular(2, 1, 32, two_sockets), ["0-7,64-71", "32-39,96-103", "8-11,72-75"], ["0", "1", "0"]);
}

#[test]
fn a_core_kept_free_in_each_node_moves_the_others_up() {
    holds(Row {
        hardware: regular(2, 1, 32, two_sockets),
        housekeeping: vec![HousekeepingWish::Cores { count: 1, per: Per::Node }],
        cpus: ["1-8,65-72", "33-40,97-104", "9-12,73-76"],
        memory_nodes: ["0", "1", "0"],
        shortfalls: [&[], &[], &[]],
    });
}

#[test]
fn alternating_numbers_do_not_straddle_sockets() {
    let every_other = |first: u32| (0..112).filter(|cpu| cpu % 2 == first).collect::<CpuSet>().to_string();
    let nodes = [every_other(0), every_other(1)];
    let cores = (0..56).map(|core| CpuSet::from_iter([core, core + 56])).collect();
    let hardware = machine(&[(0, nodes[0].clone()), (1, nodes[1].clone())], &nodes, cores, two_sockets);
    let control = "0,2,4,6,8,10,12,14,56,58,60,62,64,66,68,70";
    let runner = "1,3,5,7,9,11,13,15,57,59,61,63,65,67,69,71";
    whole(hardware, [control, runner, "16,18,20,22,72,74,76,78"], ["0", "1", "0"]);
}

#[test]
fn eight_cores_fill_one_cache_of_many() {
    whole(regular(2, 12, 8, two_sockets), ["0-7,192-199", "96-103,288-295", "8-11,200-203"], ["0", "1", "0"]);
}

#[test]
fn a_broken_cache_is_filled_and_whole_ones_stay_whole() {
    holds(Row {
        hardware: regular(2, 12, 8, two_sockets),
        housekeeping: vec![HousekeepingWish::Cores { count: 1, per: Per::Host }],
        cpus: ["8-15,200-207", "96-103,288-295", "1-4,193-196"],
        memory_nodes: ["0", "1", "0"],
        shortfalls: [&[], &[], &[]],
    });
}

#[test]
fn four_nodes_to_a_socket_keep_each_slice_in_one() {
    let hardware = regular(8, 2, 8, four_to_a_socket);
    whole(hardware, ["0-7,128-135", "16-23,144-151", "8-11,136-139"], ["0", "1", "0"]);
}

#[test]
fn nodes_smaller_than_a_slice_are_joined_to_their_neighbours() {
    holds(Row {
        hardware: regular(8, 2, 3, four_to_a_socket),
        housekeeping: Vec::new(),
        cpus: ["0-7,48-55", "12-19,60-67", "8-11,56-59"],
        memory_nodes: ["0-1", "2-3", "1"],
        shortfalls: [&[], &[], &[]],
    });
}

#[test]
fn nodes_smaller_than_a_slice_that_must_have_one_are_told_with_the_remedy() {
    let align = vec![Alignment { domain: Domain::Node, policy: AlignPolicy::Require }];
    let [control, ..] = wishes();
    let demands = [Demand { align, min: None, ..control.clone() }];
    let hardware = regular(8, 2, 3, four_to_a_socket);
    let site = Site { hardware: &hardware, housekeeping: Vec::new() };
    let placed = place(&demands, &site, &Placement::default());
    assert_eq!(
        placed.refusals[&control.topology].message,
        "slice control asks for 8 whole cores in one NUMA node; the largest node of this host has 6 (nodes 0-7); write \
         cpu.min: 6, or cpu.align: [{domain: Node, policy: Prefer}]"
    );
    let consenting = [Demand { min: Some(6), ..demands[0].clone() }];
    assert_eq!(place(&consenting, &site, &Placement::default()).slices[&control.unit].got, 6);
}

#[test]
fn cores_in_no_online_node_are_used_and_take_the_nearest_memory() {
    let odd = "5,7,9,11,13,15,17,19";
    let mut hardware = machine(&[(1, odd.to_owned())], &[], Vec::new(), two_sockets);
    hardware.cpus.online = set("4-20");
    hardware.cpus.offline = set("0-3,21-23");
    holds(Row {
        hardware,
        housekeeping: Vec::new(),
        cpus: [odd, "4,6,8,10,12,14,16,18", odd],
        memory_nodes: ["1", "1", "1"],
        shortfalls: [
            &[],
            &["memory.nodesFrom: memory beside its CPUs wanted, they are in no node; the nearest memory is in node 1"],
            &["runs inside o-control.slice: 17 cores on this host, 20 asked"],
        ],
    });
}

#[test]
fn a_core_with_one_online_thread_counts_as_one_core() {
    let cores = [0, 1, 3, 4, 7].map(|core| CpuSet::from_iter([core, core + 8])).to_vec();
    let mut hardware = one_node("0-1,3-4,6-12,15", cores);
    hardware.cpus.offline = set("2,5,13,14");
    let site = Site { hardware: &hardware, housekeeping: Vec::new() };
    let placed = place(&wishes(), &site, &Placement::default());
    let [control, runner, fanout] = wishes().map(|demand| placed.slices[&demand.unit].clone());
    assert_eq!((control.got, runner.got), (4, 3));
    assert_eq!(control.cpus, fanout.cpus);
    assert_eq!((control.memory_nodes, runner.memory_nodes, fanout.memory_nodes), (None, None, None::<NodeSet>));
}
