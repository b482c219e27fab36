//! Hosts that are known to have room, hard to fill: what is not found is never called impossible.

use lamina_crds::wishes::{AlignPolicy, Alignment, Domain};

use super::{demand, host, site};
use crate::placement::shapes::Dice;
use crate::placement::{Demand, Placement, Wanted, place};

/// How many hosts are filled.
const HOSTS: u64 = 12;
/// Cores of a cache.
const CACHE: u32 = 29;

/// Every cache is cut into slices that must not leave it: together they fill the host, one way at least.
fn cut(dice: &mut Dice, caches: u32) -> Vec<u32> {
    let mut wanted = Vec::new();
    for _ in 0..caches {
        let mut rest = CACHE;
        while rest > 0 {
            let part = if rest < 9 { rest } else { 5 + dice.below(8) };
            let part = part.min(rest);
            wanted.push(part);
            rest -= part;
        }
    }
    wanted.sort_unstable();
    wanted
}

#[test]
fn what_is_not_found_is_not_called_impossible() {
    let mut open = 0;
    for seed in 0..HOSTS {
        let dice = &mut Dice::new(seed);
        let caches = 4 + dice.below(9);
        let wanted = cut(dice, caches);
        let lists: Vec<String> =
            (0..caches).map(|cache| format!("{}-{}", cache * CACHE, (cache + 1) * CACHE - 1)).collect();
        let lists: Vec<&str> = lists.iter().map(String::as_str).collect();
        let hardware = host(&lists, &lists, Vec::new());
        let within = vec![Alignment { domain: Domain::L3, policy: AlignPolicy::Require }];
        let asking = |(index, count): (usize, &u32)| Demand {
            align: within.clone(),
            ..demand("o", &format!("s{index}"), Wanted::Cores(*count))
        };
        let demands: Vec<Demand> = wanted.iter().enumerate().map(asking).collect();
        let placed = place(&demands, &site(&hardware), &Placement::default());
        for refusal in placed.refusals.values() {
            open += 1;
            let message = &refusal.message;
            assert!(message.contains("ended at its bound"), "seed {seed}, {wanted:?}: {message}");
        }
    }
    assert!(open > 0, "no host was hard: the words for that are not tried");
}
