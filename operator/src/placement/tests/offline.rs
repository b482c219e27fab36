//! CPUs that go offline under running slices: who stays, who is placed anew, and what is said.

use lamina_crds::Hardware;

use super::{demand, running, seed, site};
use crate::placement::{Demand, Placed, Placement, Shortfall, Wanted, place};

/// The machine after these CPUs went offline.
fn without(cpus: &[u32]) -> Hardware {
    let mut hardware = seed();
    for cpu in cpus {
        hardware.cpus.online.remove(*cpu);
        hardware.cpus.offline.insert(*cpu);
        hardware.numa_nodes.iter_mut().for_each(|node| node.cpus.remove(*cpu));
        hardware.l3.iter_mut().for_each(|cache| cache.remove(*cpu));
    }
    hardware
}

/// Placed on the whole machine, then again without these CPUs.
fn after(demands: &[Demand], offline: &[u32]) -> (Placed, Placed) {
    let first = place(demands, &site(&seed()), &Placement::default());
    let second = place(demands, &site(&without(offline)), &running(&first, demands));
    (first, second)
}

fn eight(min: Option<u32>) -> Demand {
    Demand { min, ..demand("o", "a", Wanted::Cores(8)) }
}

#[test]
fn while_its_min_remains_a_slice_stays_and_is_whole_again_when_the_cpu_returns() {
    let demands = [eight(Some(7))];
    let (first, second) = after(&demands, &[10]);
    let (before, slice) = (&first.slices[&demands[0].unit], &second.slices[&demands[0].unit]);
    assert_eq!((&slice.cpus, slice.got), (&before.cpus, 7));
    assert_eq!(slice.shortfalls[0].to_string(), "7 of 8: CPUs 10 are offline");
    assert_eq!(second.moves, Vec::new());
    let third = place(&demands, &site(&seed()), &running(&second, &demands));
    assert_eq!(third.slices, first.slices);
}

#[test]
fn below_its_min_it_is_placed_anew_and_keeps_what_it_can() {
    let demands = [eight(Some(7))];
    let (_, second) = after(&demands, &[10, 11]);
    let slice = &second.slices[&demands[0].unit];
    assert_eq!((slice.got, slice.shortfalls.len(), slice.offline.len()), (8, 0, 0));
    assert_eq!((second.moves[0].gained.len(), second.moves[0].lost.to_string()), (2, "10-11".to_owned()));
}

#[test]
fn without_a_min_it_is_placed_anew_if_that_gives_all_it_wants() {
    let demands = [eight(None)];
    let (_, second) = after(&demands, &[10]);
    assert_eq!((second.slices[&demands[0].unit].got, second.moves.len()), (8, 1));
}

#[test]
fn without_a_min_it_stays_where_there_is_nothing_better() {
    let demands = [eight(None), demand("o", "b", Wanted::Cores(12))];
    let (first, second) = after(&demands, &[10]);
    let slice = &second.slices[&demands[0].unit];
    assert_eq!(slice.cpus, first.slices[&demands[0].unit].cpus);
    assert!(matches!(slice.shortfalls[0], Shortfall::Offline { asked: 8, left: 7, .. }), "{:?}", slice.shortfalls);
}
