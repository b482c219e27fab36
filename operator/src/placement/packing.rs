//! Decides how few domains beyond the unavoidable any arrangement uses, exactly: groups of bins into which whole wishes are
//! packed.
//!
//! Bins that some wish straddles hang together. Where `t` wishes lie in bins that hang together, they use at least
//! `t + d - 1` domains of a kind, `d` being the domains of these bins; and filling the bins one after the other uses no more.
//! So the question is only into which groups the bins fall, and which wishes go into which group: a packing in which
//! nothing is split, with so many joints between bins.

mod counts;
mod search;

use crate::placement::packing::counts::Counts;
use crate::placement::packing::search::Search;

/// How many kinds of domain are counted at most; one of them lies inside the other.
pub const MOST_KINDS: usize = 2;
/// How many bins, and domains of a kind, there may be.
pub const MOST_BINS: usize = u128::BITS as usize;
/// How many wishes there may be.
pub const MOST_WISHES: usize = u64::BITS as usize;

/// Bins and the wishes that go into them.
#[derive(Clone, Debug)]
pub struct Packing {
    /// The bins.
    pub bins: Vec<Bin>,
    /// How much each wish takes, in the order in which they are packed.
    pub wishes: Vec<u32>,
    /// How many kinds of domain are counted, the most important first.
    pub kinds: usize,
    /// The kind of which each bin has a domain of its own, as far as bins of its stuff go.
    pub finest: usize,
    /// Pairs of wishes that are to be together or not.
    pub ties: Vec<Pair>,
    counts: Counts,
}

/// Two wishes that are to be in one domain of a kind, or in two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair {
    /// The two.
    pub ends: [usize; 2],
    /// The counted kind.
    pub kind: usize,
    /// In one.
    pub together: bool,
}

impl Pair {
    /// Whether wishes that lie somewhere in these domains may be as they are to be.
    fn may_be_met(&self, one: u128, other: u128) -> bool {
        if self.together { one & other != 0 } else { one != other || one.count_ones() > 1 }
    }
}

/// Some bins that hang together; at first one alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bin {
    /// What is free.
    pub room: u32,
    /// The bins it is made of.
    pub parts: u128,
    /// Its domains of each counted kind.
    pub domains: [u128; MOST_KINDS],
    /// The wishes that may use at least a part of it.
    pub takers: u64,
    /// What it is made of; bins of different stuff never hang together.
    pub stuff: u8,
}

/// By kind, how many joints there are, or may be.
pub type Joints = [i32; MOST_KINDS];

/// How many ties are not met, or may not be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unmet {
    /// All of them.
    pub all: u32,
    /// Those of pairs that are to be together.
    pub together: u32,
}

/// What came of packing with so many joints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Packed {
    /// Everything fits: the groups, and the group of each wish.
    Fits(Vec<Bin>, Vec<usize>),
    /// It cannot.
    Never,
    /// Nobody knows: the search ended at its bound.
    Unknown,
}

impl Packing {
    /// Wishes in the order in which they are packed, and bins of domains of so many kinds, of which one tells them apart.
    pub fn of(bins: Vec<Bin>, wishes: Vec<u32>, kinds: usize, finest: usize) -> Self {
        let largest = (0..kinds).flat_map(|kind| rooms(&bins, kind)).max().unwrap_or(0);
        let counts = Counts::of(&wishes, largest);
        Self { bins, wishes, kinds, finest, ties: Vec::new(), counts }
    }

    /// Packs with so many joints of each kind and so many ties unmet at most, in so many steps at most, which are counted
    /// down. Ties of what lies in several domains of their kind count as met where they may be.
    pub fn pack(&self, joints: Joints, unmet: Unmet, steps: &mut usize) -> Packed {
        Search::of(self, joints, unmet).run(steps)
    }

    /// Whether some domain of the finest kind holds bins of different stuff.
    pub fn is_mixed(&self) -> bool {
        let domains = |bin: &Bin| bin.domains[self.finest];
        (0..self.bins.len())
            .any(|bin| self.bins[..bin].iter().any(|other| domains(other) & domains(&self.bins[bin]) != 0))
    }

    /// How many joints of a kind there are at least, by counting: of domains whose room is divided by any number, whole
    /// parts only, no joint adds more than one part.
    pub fn fewest_joints(&self, kind: usize) -> i32 {
        let rooms = rooms(&self.bins, kind);
        let largest = self.wishes.iter().max().copied().unwrap_or(0);
        let wanted = |part: u32| self.wishes.iter().map(|wish| wish / part).sum();
        (1..=largest).map(|part| missing(part, wanted(part), &rooms)).max().unwrap_or(0).max(0)
    }
}

/// How many more parts of this size are wanted than these rooms have.
fn missing(part: u32, wanted: u32, rooms: &[u32]) -> i32 {
    let there: u32 = rooms.iter().map(|room| room / part).sum();
    wanted as i32 - there as i32
}

/// The rooms of the domains of one kind; those that hang together count as one.
fn rooms(groups: &[Bin], kind: usize) -> Vec<u32> {
    let mut domains: Vec<(u8, u128, u32)> = Vec::with_capacity(groups.len());
    for group in groups {
        let (mut own, mut room) = (group.domains[kind], group.room);
        domains.retain(|(stuff, others, more)| {
            let meets = *stuff == group.stuff && own & others != 0;
            if meets {
                own |= others;
                room += more;
            }
            !meets
        });
        domains.push((group.stuff, own, room));
    }
    domains.into_iter().map(|(_, _, room)| room).collect()
}

impl Bin {
    /// Both as one.
    pub fn joined(&self, other: &Self) -> Self {
        let mut domains = self.domains;
        domains.iter_mut().zip(other.domains).for_each(|(own, others)| *own |= others);
        Self {
            room: self.room + other.room,
            parts: self.parts | other.parts,
            domains,
            takers: self.takers | other.takers,
            stuff: self.stuff,
        }
    }

    /// Whether the two together may have a place for a wish that neither has: both have room, or one has the room and
    /// only the other, which may be full, is open to it. Where they hang together, they may change places.
    fn helps(&self, other: &Self, wish: usize) -> bool {
        let lends = |full: &Self, roomy: &Self| roomy.room > 0 && full.is_open_to(wish) && !roomy.is_open_to(wish);
        (self.room > 0 && other.room > 0) || lends(self, other) || lends(other, self)
    }

    /// Whether it lies in several domains of a kind.
    fn is_wide(&self, kind: usize) -> bool {
        self.domains[kind].count_ones() > 1
    }

    fn is_open_to(&self, wish: usize) -> bool {
        self.takers & (1 << wish) != 0
    }
}
