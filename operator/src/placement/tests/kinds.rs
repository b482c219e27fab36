//! Full hosts with two kinds of core: what can be had without mixing kinds is not refused.

use lamina_crds::CpuSet;
use lamina_crds::hardware::{CoreGroup, CoreKind};

use super::{demand, host, site};
use crate::placement::shapes::Dice;
use crate::placement::{Demand, Placement, Wanted, place};

/// How many hosts are filled.
const HOSTS: u64 = 200;

/// Numbers of cores whose sum is this.
fn parts(dice: &mut Dice, mut rest: u32, largest: u32) -> Vec<u32> {
    let mut parts = Vec::new();
    while rest > 0 {
        let part = 1 + dice.below(largest.min(rest));
        parts.push(part);
        rest -= part;
    }
    parts
}

#[test]
fn a_host_with_two_kinds_of_core_can_be_filled() {
    for seed in 0..HOSTS {
        let dice = &mut Dice::new(seed);
        let (caches, among) = (3 + dice.below(9), 2 + dice.below(3));
        let all = caches * 8;
        let lists: Vec<String> = (0..caches).map(|cache| format!("{}-{}", cache * 8, cache * 8 + 7)).collect();
        let lists: Vec<&str> = lists.iter().map(String::as_str).collect();
        let mut hardware = host(&lists, &lists, Vec::new());
        let of_kind = |fast: bool| (0..all).filter(|cpu| (cpu % among == 0) == fast).collect::<CpuSet>();
        hardware.core_types = vec![
            CoreGroup { core_type: CoreKind::Performance, cpus: of_kind(true) },
            CoreGroup { core_type: CoreKind::Efficiency, cpus: of_kind(false) },
        ];
        let fast = of_kind(true).len() as u32;
        let largest = all / 4;
        let mut wanted = parts(dice, fast, largest);
        wanted.extend(parts(dice, all - fast, largest));
        let named = |(index, count): (usize, &u32)| demand("o", &format!("s{index}"), Wanted::Cores(*count));
        let demands: Vec<Demand> = wanted.iter().enumerate().map(named).collect();
        let placed = place(&demands, &site(&hardware), &Placement::default());
        assert!(placed.refusals.is_empty(), "seed {seed}: {fast} of {all} cores are fast: {wanted:?}");
    }
}
