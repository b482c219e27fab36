//! Tries which groups the bins fall into and which wishes go into which, one wish after the other.

use std::collections::BTreeSet;

use super::{Bin, Joints, MOST_KINDS, Packed, Packing, Pair, Unmet, missing, rooms};

/// One search for a packing.
pub(super) struct Search<'a> {
    packing: &'a Packing,
    sums: Vec<u32>,
    fills: Vec<Vec<u32>>,
    parts: Vec<Vec<(u32, u32)>>,
    joints: Joints,
    /// How many ties may go unmet.
    unmet: Unmet,
    used: Joints,
    groups: Vec<Bin>,
    /// A part of the group of each wish that has its place.
    place: Vec<u128>,
    /// What is known not to fit.
    failed: BTreeSet<Vec<Looks>>,
    steps: usize,
}

impl<'a> Search<'a> {
    /// With so many joints and so many ties unmet at most.
    pub(super) fn of(packing: &'a Packing, joints: Joints, unmet: Unmet) -> Self {
        Self {
            packing,
            sums: packing.sums(),
            fills: packing.fills(),
            parts: packing.parts(),
            joints,
            unmet,
            used: [0; MOST_KINDS],
            groups: packing.bins.clone(),
            place: Vec::new(),
            failed: BTreeSet::new(),
            steps: 0,
        }
    }

    /// Searches in so many steps at most, which are counted down.
    pub(super) fn run(mut self, steps: &mut usize) -> Packed {
        self.steps = *steps;
        let fits = self.place();
        *steps = self.steps;
        match fits {
            true => {
                let home = |part: &u128| self.groups.iter().position(|group| group.parts & part != 0).unwrap_or(0);
                let homes = self.place.iter().map(home).collect();
                Packed::Fits(self.groups, homes)
            }
            false if self.steps > 0 => Packed::Never,
            false => Packed::Unknown,
        }
    }

    /// Packs the next wish and all after it. False if that cannot be, or if the steps are used up.
    fn place(&mut self) -> bool {
        let index = self.place.len();
        let Some(wish) = self.packing.wishes.get(index).copied() else { return self.is_within(self.unmet_ties(false)) };
        if self.steps == 0 || !self.is_within(self.unmet_ties(true)) || !self.may_fit(index) {
            return false;
        }
        self.steps -= 1;
        let Outline { shapes, key } = self.outline();
        if self.failed.contains(&key) {
            return false;
        }
        if self.place_whole(index, wish, &shapes) || self.join(index, wish, None, &shapes) {
            return true;
        }
        if self.steps > 0 {
            self.failed.insert(key);
        }
        false
    }

    /// Puts the wish into one group that has room, the fullest first.
    fn place_whole(&mut self, index: usize, wish: u32, shapes: &[usize]) -> bool {
        let mut choices: Vec<usize> =
            (0..self.groups.len()).filter(|group| self.fits(&self.groups[*group], index, wish)).collect();
        choices.sort_by_cached_key(|group| {
            (self.unmet_at(index, *group), self.groups[*group].room, shapes[*group], *group)
        });
        let mut seen = Vec::with_capacity(choices.len());
        choices.retain(|group| {
            let is_new = !seen.contains(&shapes[*group]);
            seen.push(shapes[*group]);
            is_new
        });
        choices.into_iter().any(|group| self.put(index, wish, group))
    }

    fn is_within(&self, unmet: Unmet) -> bool {
        unmet.all <= self.unmet.all && unmet.together <= self.unmet.together
    }

    /// The ties that go unmet among those who have their place. `firmly`: and that stay so whatever comes.
    fn unmet_ties(&self, firmly: bool) -> Unmet {
        let mut unmet = Unmet::default();
        for tie in self.packing.ties.iter().filter(|tie| !firmly || self.is_settled(tie.kind)) {
            let homes = tie.ends.map(|end| self.place.get(end).and_then(|part| self.domain(*part, tie.kind)));
            let is_unmet = match homes {
                [Some(one), Some(other)] => (one == other) != tie.together,
                [Some(home), None] => firmly && self.is_lost(tie, tie.ends[1], home),
                [None, Some(home)] => firmly && self.is_lost(tie, tie.ends[0], home),
                [None, None] => false,
            };
            unmet.all += u32::from(is_unmet);
            unmet.together += u32::from(is_unmet && tie.together);
        }
        unmet
    }

    /// Whether a wish that waits finds no room where the tie to one in this domain would be met.
    fn is_lost(&self, tie: &Pair, waiting: usize, home: u128) -> bool {
        if waiting < self.place.len() {
            return false;
        }
        let wish = self.packing.wishes[waiting];
        let meets = |group: &&Bin| (group.domains[tie.kind] == home) == tie.together;
        let room_in = |domains: u128| {
            let inside = self.groups.iter().filter(|group| group.domains[tie.kind] == domains);
            inside.map(|group| group.room).sum::<u32>()
        };
        !self.groups.iter().filter(meets).any(|group| room_in(group.domains[tie.kind]) >= wish)
            && !self.is_room_across(tie.kind, wish)
    }

    /// Whether groups that lie in several domains of a kind have room for a wish, with all that can be joined to them
    /// without another joint of that kind.
    fn is_room_across(&self, kind: usize, wish: u32) -> bool {
        let cluster_of = clusters(&self.groups, kind);
        let is_wide = |group: usize| self.groups[group].domains[kind].count_ones() > 1;
        let room = |cluster: usize| {
            let inside = (0..self.groups.len()).filter(|group| cluster_of[*group] == cluster);
            inside.map(|group| self.groups[group].room).sum::<u32>()
        };
        (0..self.groups.len()).any(|group| is_wide(group) && room(cluster_of[group]) >= wish)
    }

    /// Whether there may be no more joints of a kind, so that nothing comes to lie in more of its domains.
    fn is_settled(&self, kind: usize) -> bool {
        self.joints[kind] <= self.used[kind]
    }

    /// The same for one wish if it had its place in a group.
    fn unmet_at(&self, index: usize, group: usize) -> u32 {
        let unmet = |tie: &&Pair| {
            let [one, other] = tie.ends;
            let end = if one == index { other } else { one };
            let there = self.place.get(end).and_then(|part| self.domain(*part, tie.kind));
            let here = Some(self.groups[group].domains[tie.kind]).filter(|domains| domains.count_ones() == 1);
            here.zip(there).is_some_and(|(here, there)| (here == there) != tie.together)
        };
        self.packing.ties.iter().filter(|tie| tie.ends.contains(&index)).filter(unmet).count() as u32
    }

    /// The one domain of a kind in which a group lies.
    fn domain(&self, part: u128, kind: usize) -> Option<u128> {
        let group = self.groups.iter().find(|group| group.parts & part != 0)?;
        Some(group.domains[kind]).filter(|domains| domains.count_ones() == 1)
    }

    /// By group, those who have their place and are tied to some that wait; or to any, as long as that may change.
    fn bonds(&self) -> Vec<u64> {
        let mut bonds = vec![0; self.groups.len()];
        let placed = self.place.len();
        for tie in &self.packing.ties {
            let waits = tie.ends.iter().any(|end| *end >= placed);
            for end in tie.ends.iter().filter(|end| **end < placed && (waits || !self.is_settled(tie.kind))) {
                let is_home = |group: &Bin| group.parts & self.place[*end] != 0;
                if let Some(home) = self.groups.iter().position(is_home) {
                    bonds[home] |= 1 << end;
                }
            }
        }
        bonds
    }

    fn put(&mut self, index: usize, wish: u32, group: usize) -> bool {
        self.groups[group].room -= wish;
        self.place.push(self.groups[group].parts);
        if self.place() {
            return true;
        }
        self.place.truncate(index);
        self.groups[group].room += wish;
        false
    }

    fn fits(&self, group: &Bin, index: usize, wish: u32) -> bool {
        group.room >= wish && group.is_open_to(index)
    }

    /// Joins groups that have too little room each, and puts the wish there; `grown` is one that was joined for it already.
    fn join(&mut self, index: usize, wish: u32, grown: Option<usize>, shapes: &[usize]) -> bool {
        let mut pairs: Vec<(Joints, u32, usize, usize)> = Vec::new();
        for one in 0..self.groups.len() {
            for other in 0..self.groups.len() {
                let is_pair = if grown.is_some() { grown == Some(one) && one != other } else { one < other };
                let (a, b) = (&self.groups[one], &self.groups[other]);
                let is_pair = is_pair && a.stuff == b.stuff && a.helps(b, index);
                if is_pair && !self.fits(a, index, wish) && !self.fits(b, index, wish) {
                    let cost = self.cost(a, b);
                    if self.is_affordable(&cost) {
                        pairs.push((cost, a.room + b.room, one, other));
                    }
                }
            }
        }
        // The smallest of those that are enough, else the largest: the fewer joints are left to be made.
        let closeness = |room: u32| if room >= wish { (0, room) } else { (1, u32::MAX - room) };
        pairs.sort_by_key(|(cost, room, one, other)| (closeness(*room), *cost, *one, *other));
        let mut seen: Vec<(Joints, [usize; 2])> = Vec::new();
        for (cost, _, one, other) in pairs {
            let mut both = [shapes[one], shapes[other]];
            both.sort_unstable();
            if seen.contains(&(cost, both)) {
                continue;
            }
            seen.push((cost, both));
            if self.steps == 0 {
                return false;
            }
            self.steps -= 1;
            if self.try_joined(index, wish, one, other, cost) {
                return true;
            }
        }
        false
    }

    fn try_joined(&mut self, index: usize, wish: u32, one: usize, other: usize, cost: Joints) -> bool {
        let before = self.groups.clone();
        let joined = self.groups[one].joined(&self.groups[other]);
        self.groups[one] = joined;
        self.groups.remove(other);
        let at = if other < one { one - 1 } else { one };
        (0..MOST_KINDS).for_each(|kind| self.used[kind] += cost[kind]);
        let found = match self.fits(&joined, index, wish) {
            true => self.put(index, wish, at),
            false => {
                let shapes = self.outline().shapes;
                self.join(index, wish, Some(at), &shapes)
            }
        };
        if !found {
            self.groups = before;
            (0..MOST_KINDS).for_each(|kind| self.used[kind] -= cost[kind]);
        }
        found
    }

    /// The joints that joining two groups takes.
    fn cost(&self, one: &Bin, other: &Bin) -> Joints {
        let mut cost = [0; MOST_KINDS];
        for (kind, cost) in cost.iter_mut().enumerate().take(self.packing.kinds) {
            *cost = 1 - (one.domains[kind] & other.domains[kind]).count_ones() as i32;
        }
        cost
    }

    fn is_affordable(&self, cost: &Joints) -> bool {
        (0..self.packing.kinds).all(|kind| self.used[kind] + cost[kind] <= self.joints[kind])
    }

    /// Whether counting alone leaves it possible that the wishes from one on fit.
    fn may_fit(&self, index: usize) -> bool {
        let total: u32 = self.groups.iter().map(|group| group.room).sum();
        let Some(slack) = total.checked_sub(self.sums[index]) else { return false };
        (0..self.packing.kinds).all(|kind| {
            let left = self.joints[kind] - self.used[kind];
            let rooms = match kind == self.packing.finest {
                true => self.groups.iter().map(|group| group.room).collect(),
                false => rooms(&self.groups, kind),
            };
            left >= 0
                && self.has_no_waste(index, slack, left as usize, &rooms)
                && self.parts[index].iter().all(|(part, wanted)| missing(*part, *wanted, &rooms) <= left)
        })
    }

    /// Whether what no wishes fill exactly is no more than what may stay free. A joint saves the waste of two.
    fn has_no_waste(&self, index: usize, slack: u32, left: usize, rooms: &[u32]) -> bool {
        let fills = &self.fills[index];
        let waste = |room: u32| fills.get(room as usize).map_or(0, |fill| room - fill);
        let mut wastes: Vec<u32> = rooms.iter().map(|room| waste(*room)).filter(|waste| *waste > 0).collect();
        let total: u32 = wastes.iter().sum();
        if total <= slack {
            return true;
        }
        wastes.sort_unstable_by(|a, b| b.cmp(a));
        wastes.iter().skip(2 * left).sum::<u32>() <= slack
    }

    /// What the groups are, apart from which is which.
    fn outline(&self) -> Outline {
        let bonds = self.bonds();
        let own: Vec<Looks> = self.groups.iter().zip(bonds).map(|(group, bonds)| (signature(group), bonds)).collect();
        let wider = (0..self.packing.kinds).find(|kind| *kind != self.packing.finest);
        let around = wider.map_or_else(|| vec![0; own.len()], |wider| clusters(&self.groups, wider));
        let count = around.iter().max().map_or(0, |last| last + 1);
        let mut inside: Vec<Vec<Looks>> = (0..count)
            .map(|cluster| {
                let groups = (0..own.len()).filter(|group| around[*group] == cluster);
                self.cluster(groups.collect(), &own, wider)
            })
            .collect();
        let place = |group: usize| wider.map(|wider| self.groups[group].domains[wider]);
        let same = |one: usize, other: usize| {
            let is_beside = place(one) == place(other);
            let is_mirrored = || around[one] != around[other] && inside[around[one]] == inside[around[other]];
            own[one] == own[other] && (is_beside || is_mirrored())
        };
        let first = |group: usize| (0..group).find(|first| same(*first, group)).unwrap_or(group);
        let shapes = (0..own.len()).map(first).collect();
        inside.sort_unstable();
        let Unmet { all, together } = self.unmet_ties(false);
        let mut key = Vec::with_capacity(1 + MOST_KINDS + count + 2 * own.len());
        key.push((self.place.len() as u128, u64::from(all) << 32 | u64::from(together)));
        key.extend(self.used.iter().map(|used| (*used as u128, 0)));
        for looks in inside {
            key.push((looks.len() as u128, 0));
            key.extend(looks);
        }
        Outline { shapes, key }
    }

    /// The groups of one domain of the wider kind, in order of their looks; each for itself where some lie in several of
    /// these domains.
    fn cluster(&self, groups: Vec<usize>, own: &[Looks], wider: Option<usize>) -> Vec<Looks> {
        let is_inside = |group: &usize| wider.is_none_or(|wider| self.groups[*group].domains[wider].count_ones() == 1);
        if groups.iter().all(is_inside) {
            let mut looks: Vec<Looks> = groups.into_iter().map(|group| own[group]).collect();
            looks.sort_unstable();
            return looks;
        }
        let mut looks = Vec::with_capacity(2 * groups.len());
        for group in groups {
            looks.extend(wider.map(|wider| (self.groups[group].domains[wider], u64::MAX)));
            looks.push(own[group]);
        }
        looks
    }
}

/// What a group can take, and who is in it that matters to others.
type Looks = (u128, u64);

/// What groups are, apart from which is which.
struct Outline {
    /// For each group the first one that is as good.
    shapes: Vec<usize>,
    /// What decides whether the rest fits.
    key: Vec<Looks>,
}

/// By group the number of the cluster of those that hang together by domains of a kind.
fn clusters(groups: &[Bin], kind: usize) -> Vec<usize> {
    let mut cluster_of: Vec<usize> = Vec::with_capacity(groups.len());
    let mut clusters: Vec<u128> = Vec::with_capacity(groups.len());
    for group in groups {
        let mut own = group.domains[kind];
        clusters.retain(|others| {
            let meets = own & others != 0;
            own |= if meets { *others } else { 0 };
            !meets
        });
        clusters.push(own);
    }
    for group in groups {
        let cluster = clusters.iter().position(|cluster| cluster & group.domains[kind] != 0);
        cluster_of.push(cluster.unwrap_or(0));
    }
    cluster_of
}

/// What a group can take, in one number.
fn signature(group: &Bin) -> u128 {
    u128::from(group.room) << 72 | u128::from(group.stuff) << 64 | u128::from(group.takers)
}
