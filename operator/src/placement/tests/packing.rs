//! Small packings, solved by giving every wish every part of every bin: the same joints, and the same ties unmet.

use std::collections::BTreeSet;

use crate::placement::packing::{Bin, Joints, Packed, Packing, Pair, Unmet};
use crate::placement::shapes::Dice;

/// How many packings are tried.
const PACKINGS: u64 = 1000;
/// So many that no search of so small a packing ends there.
const STEPS: usize = 1_000_000;

/// Bins in nodes, wishes, and pairs of wishes that are to be in one domain or in two.
#[derive(Debug)]
struct Small {
    /// Node and room of each bin.
    bins: Vec<(u32, u32)>,
    wishes: Vec<u32>,
    /// The nodes that each wish may use.
    open: Vec<u32>,
    pairs: Vec<Pair>,
}

/// What is counted: nodes used, bins used, domains by which pairs are not as they are to be.
type Cost = (u32, u32, u32);

fn small(dice: &mut Dice) -> Small {
    let nodes = 1 + dice.below(4);
    let bins: Vec<(u32, u32)> = (0..nodes + dice.below(4)).map(|bin| (bin % nodes, 1 + dice.below(3))).collect();
    let mut left: u32 = bins.iter().map(|(_, room)| room).sum();
    let mut wishes = Vec::new();
    while left > 0 && wishes.len() < 5 && dice.below(8) > 0 {
        let wish = 1 + dice.below(left.min(5));
        left -= wish;
        wishes.push(wish);
    }
    if dice.below(2) == 0 {
        wishes.sort_unstable_by(|a, b| b.cmp(a));
    }
    let mut pairs = Vec::new();
    for one in 1..wishes.len() {
        if dice.below(2) == 0 {
            let kind = usize::from(dice.below(4) == 0);
            let mut ends = [one, dice.below(one as u32) as usize];
            if dice.below(2) == 0 {
                ends.reverse();
            }
            pairs.push(Pair { ends, kind, together: dice.below(2) == 0 });
        }
    }
    let is_free = dice.below(3) > 0;
    let mut nodes_of =
        |_: &u32| if is_free || dice.below(2) == 0 { u32::MAX } else { 1 + dice.below((1 << nodes) - 1) };
    let open = wishes.iter().map(&mut nodes_of).collect();
    Small { bins, wishes, open, pairs }
}

impl Small {
    /// The least cost, by trying everything.
    fn best(&self) -> Option<Cost> {
        let mut free: Vec<u32> = self.bins.iter().map(|(_, room)| *room).collect();
        let mut best = None;
        self.give(&mut free, &mut Vec::new(), &mut best);
        best
    }

    fn give(&self, free: &mut Vec<u32>, taken: &mut Vec<Vec<u32>>, best: &mut Option<Cost>) {
        let Some(wish) = self.wishes.get(taken.len()) else {
            let cost = self.cost(taken);
            *best = Some(best.map_or(cost, |best: Cost| best.min(cost)));
            return;
        };
        self.take(*wish, free, &mut Vec::new(), taken, best);
    }

    fn take(
        &self,
        rest: u32,
        free: &mut Vec<u32>,
        takes: &mut Vec<u32>,
        taken: &mut Vec<Vec<u32>>,
        best: &mut Option<Cost>,
    ) {
        let bin = takes.len();
        if bin == free.len() {
            if rest == 0 {
                taken.push(takes.clone());
                self.give(free, taken, best);
                taken.pop();
            }
            return;
        }
        let is_open = self.open[taken.len()] & 1 << self.bins[bin].0 != 0;
        for units in 0..=if is_open { rest.min(free[bin]) } else { 0 } {
            free[bin] -= units;
            takes.push(units);
            self.take(rest - units, free, takes, taken, best);
            takes.pop();
            free[bin] += units;
        }
    }

    fn cost(&self, taken: &[Vec<u32>]) -> Cost {
        let used = |wish: usize, kind: usize| {
            let used = self.bins.iter().zip(0..).zip(&taken[wish]).filter(|(_, units)| **units > 0);
            let domain = |(((node, _), bin), _): ((&(u32, u32), u32), &u32)| [*node, bin][kind];
            used.map(domain).collect::<BTreeSet<u32>>()
        };
        let all = |kind: usize| (0..taken.len()).map(|wish| used(wish, kind).len() as u32).sum();
        let unmet = |Pair { ends: [one, other], kind, together }: &Pair| {
            let (one, other) = (used(*one, *kind), used(*other, *kind));
            one.iter().filter(|domain| other.contains(domain) != *together).count() as u32
        };
        (all(0), all(1), self.pairs.iter().map(unmet).sum())
    }

    fn packing(&self, kinds: usize) -> Packing {
        let mut bins: Vec<Bin> = Vec::new();
        for (index, (node, room)) in self.bins.iter().enumerate() {
            let own = if kinds == 2 { 1 << index } else { 0 };
            let mut bin = Bin { room: *room, parts: 1 << index, domains: [1 << node, own], ..Bin::default() };
            let takers = self.open.iter().enumerate().filter(|(_, open)| *open & 1 << node != 0);
            takers.for_each(|(wish, _)| bin.takers |= 1 << wish);
            match bins.iter_mut().find(|other| other.domains == bin.domains) {
                Some(other) => *other = other.joined(&bin),
                None => bins.push(bin),
            }
        }
        let mut packing = Packing::of(bins, self.wishes.clone(), kinds, kinds - 1);
        if kinds == 2 {
            packing.ties.clone_from(&self.pairs);
        }
        packing
    }
}

/// The least number, from one on, for which there is a packing.
fn least(from: u32, packed: impl Fn(u32) -> Packed) -> u32 {
    (from..from + 100).find(|number| matches!(packed(*number), Packed::Fits(..))).expect("some number is enough")
}

#[test]
fn packing_needs_as_few_joints_as_giving_everybody_everything_shows() {
    let any = Unmet { all: u32::MAX, together: u32::MAX };
    let pack = |small: &Small, kinds: usize, joints: Joints, unmet: Unmet| {
        let packed = small.packing(kinds).pack(joints, unmet, &mut STEPS.clone());
        assert_ne!(packed, Packed::Unknown, "{small:?}");
        packed
    };
    let mut open = 0;
    for seed in 0..PACKINGS {
        let small = small(&mut Dice::new(seed));
        let is_open = small.open.iter().all(|nodes| *nodes == u32::MAX);
        let Some((nodes, bins, unmet)) = small.best() else {
            assert!(!is_open, "seed {seed}: the wishes fit");
            continue;
        };
        open += u32::from(is_open);
        // A group is open to whoever may use a part of it: then the packing only says what there is at least.
        let agrees = |least: u32, exact: u32| least == exact || (least < exact && !is_open);
        let wishes = small.wishes.len() as u32;
        let outer = least(0, |joints| pack(&small, 1, [joints as i32, 0], any));
        assert!(agrees(outer + wishes, nodes), "seed {seed}: {outer} joints of nodes: {small:?}");
        if outer + wishes < nodes {
            continue;
        }
        let inner = least(0, |joints| pack(&small, 2, [outer as i32, joints as i32], any));
        assert!(agrees(inner + wishes, bins), "seed {seed}: {inner} joints of bins: {small:?}");
        for (kind, joints) in [(0, outer), (1, inner)] {
            assert!(small.packing(2).fewest_joints(kind) <= joints as i32, "seed {seed}: {small:?}");
        }
        if inner + wishes < bins {
            continue;
        }
        let joints = [outer as i32, inner as i32];
        let fewest = least(0, |all| pack(&small, 2, joints, Unmet { all, together: u32::MAX }));
        // Where wishes lie in several domains the packing does not say in which, and counts their ties as met.
        let is_exact = is_open && small.pairs.iter().all(|pair| [outer, inner][pair.kind] == 0);
        assert!(fewest <= unmet && (fewest == unmet || !is_exact), "seed {seed}: {fewest} of {unmet}: {small:?}");
    }
    assert!(u64::from(open) > PACKINGS / 2 && u64::from(open) < PACKINGS * 9 / 10, "{open}");
}
