//! Tries which groups the bins fall into and which wishes go into which, one wish after the other.

use std::collections::BTreeSet;

use smallvec::{SmallVec, smallvec};

use super::{Bin, Joints, MOST_KINDS, MOST_WISHES, Packed, Packing, Pair, Unmet, rooms};

/// One value for each group; there are rarely more.
type ByGroup<T> = SmallVec<[T; 16]>;

/// One search for a packing.
pub(super) struct Search<'a> {
    packing: &'a Packing,
    /// The kind of domain in which bins lie together, if there is one.
    wider: Option<usize>,
    joints: Joints,
    /// How many ties may go unmet.
    unmet: Unmet,
    used: Joints,
    groups: ByGroup<Bin>,
    /// The group of each wish that has its place.
    homes: SmallVec<[u8; MOST_WISHES]>,
    /// What is known not to fit.
    failed: BTreeSet<Box<[u64]>>,
    steps: usize,
}

impl<'a> Search<'a> {
    /// With so many joints and so many ties unmet at most.
    pub(super) fn of(packing: &'a Packing, joints: Joints, unmet: Unmet) -> Self {
        let shares_domains = |kind: usize| {
            let domains = |bin: &Bin| bin.domains[kind];
            let all = packing.bins.iter().map(domains).fold(0, |all, own| all | own);
            all.count_ones() < packing.bins.iter().map(|bin| domains(bin).count_ones()).sum()
        };
        Self {
            packing,
            wider: (0..packing.kinds).find(|kind| *kind != packing.finest && shares_domains(*kind)),
            joints,
            unmet,
            used: [0; MOST_KINDS],
            groups: packing.bins.iter().copied().collect(),
            homes: SmallVec::new(),
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
            true => Packed::Fits(self.groups.to_vec(), self.homes.iter().map(|home| usize::from(*home)).collect()),
            false if self.steps > 0 => Packed::Never,
            false => Packed::Unknown,
        }
    }

    /// Packs the next wish and all after it. False if that cannot be, or if the steps are used up.
    fn place(&mut self) -> bool {
        let index = self.homes.len();
        let Some(wish) = self.packing.wishes.get(index).copied() else { return self.is_within(self.unmet_so_far()) };
        if self.steps == 0 {
            return false;
        }
        let (unmet_here, unmet) = self.unmet_for_sure();
        if !self.is_within(unmet) || !self.may_fit(index) {
            return false;
        }
        self.steps -= 1;
        let outline = self.outline();
        let key = self.key(&outline);
        if self.failed.contains(&key) {
            return false;
        }
        if self.place_whole(index, wish, &outline, unmet_here) || self.join(index, wish, None, &outline) {
            return true;
        }
        if self.steps > 0 {
            self.failed.insert(key);
        }
        false
    }

    /// Puts the wish into one group that has room, the fullest first, unless too many ties were unmet for sure together
    /// with those among the ones before it.
    fn place_whole(&mut self, index: usize, wish: u32, outline: &Outline, unmet_here: Unmet) -> bool {
        let unmet = self.unmet_by_group(index);
        let mut choices: ByGroup<(u32, u32, usize)> = SmallVec::new();
        for (group, Broken { any, firm }) in unmet.iter().enumerate() {
            if self.fits(&self.groups[group], index, wish) && self.is_within(unmet_here.and(*firm)) {
                let first = choices.iter().find(|(.., other)| outline.are_alike(*other, group));
                if first.is_none() {
                    choices.push((*any, self.groups[group].room, group));
                }
            }
        }
        choices.sort_unstable();
        choices.into_iter().any(|(.., group)| self.put(index, wish, group))
    }

    fn is_within(&self, unmet: Unmet) -> bool {
        unmet.all <= self.unmet.all && unmet.together <= self.unmet.together
    }

    /// The ties that go unmet among those who have their place.
    fn unmet_so_far(&self) -> Unmet {
        let mut unmet = Unmet::default();
        for tie in &self.packing.ties {
            let [one, other] = tie.ends;
            if let (Some(one), Some(other)) = (self.domains_of(one, tie.kind), self.domains_of(other, tie.kind)) {
                unmet.count(tie, tie.may_be_met(one, other));
            }
        }
        unmet
    }

    /// The ties that stay unmet whatever comes: those among wishes that have their place, and all.
    fn unmet_for_sure(&self) -> (Unmet, Unmet) {
        let (mut here, mut coming) = (Unmet::default(), Unmet::default());
        let mut rooms: [Option<ByGroup<u32>>; MOST_KINDS] = [None, None];
        for tie in self.packing.ties.iter().filter(|tie| self.is_settled(tie.kind)) {
            let [one, other] = tie.ends;
            let (home, waiting) = match (self.domains_of(one, tie.kind), self.domains_of(other, tie.kind)) {
                (Some(one), Some(other)) => {
                    here.count(tie, tie.may_be_met(one, other));
                    continue;
                }
                (Some(home), None) => (home, other),
                (None, Some(home)) => (home, one),
                (None, None) => continue,
            };
            let rooms = rooms[tie.kind].get_or_insert_with(|| self.rooms_around(tie.kind));
            coming.count(tie, self.may_meet(tie, waiting, home, rooms));
        }
        (here, here.and(coming))
    }

    /// By group, the room of all groups that lie where it does.
    fn rooms_around(&self, kind: usize) -> ByGroup<u32> {
        if self.wider.is_none() {
            return self.groups.iter().map(|group| group.room).collect();
        }
        let room = |group: &Bin| {
            let around = self.groups.iter().filter(|other| other.domains[kind] == group.domains[kind]);
            around.map(|other| other.room).sum()
        };
        self.groups.iter().map(room).collect()
    }

    /// Whether a wish that waits may find room where the tie to one in these domains is met.
    fn may_meet(&self, tie: &Pair, waiting: usize, home: u128, rooms: &[u32]) -> bool {
        let wish = self.packing.wishes[waiting];
        let meets = |(group, room): (&Bin, &u32)| *room >= wish && tie.may_be_met(group.domains[tie.kind], home);
        self.groups.iter().zip(rooms).any(meets) || self.is_room_across(tie.kind, wish)
    }

    /// Whether groups that lie in several domains of a kind have room for a wish, with all that can be joined to them
    /// without another joint of that kind.
    fn is_room_across(&self, kind: usize, wish: u32) -> bool {
        if !self.groups.iter().any(|group| group.is_wide(kind)) {
            return false;
        }
        let cluster_of = clusters(&self.groups, kind);
        let room = |cluster: u8| {
            let inside = (0..self.groups.len()).filter(|group| cluster_of[*group] == cluster);
            inside.map(|group| self.groups[group].room).sum::<u32>()
        };
        (0..self.groups.len()).any(|group| self.groups[group].is_wide(kind) && room(cluster_of[group]) >= wish)
    }

    /// Whether nothing comes to lie in more domains of a kind: there are no more joints at all, or none of that kind and
    /// nothing lies in several of its domains, which others could join without one.
    fn is_settled(&self, kind: usize) -> bool {
        let is_used_up = |kind: usize| self.joints[kind] <= self.used[kind];
        let may_absorb = || self.wider == Some(kind) && self.groups.iter().any(|group| group.is_wide(kind));
        is_used_up(self.packing.finest) || (is_used_up(kind) && !may_absorb())
    }

    /// By group, the ties to those who have their place that went unmet if a wish came there.
    fn unmet_by_group(&self, index: usize) -> ByGroup<Broken> {
        let mut unmet: ByGroup<Broken> = smallvec![Broken::default(); self.groups.len()];
        for tie in &self.packing.ties {
            let there = match tie.ends {
                [one, other] if one == index => self.domains_of(other, tie.kind),
                [one, other] if other == index => self.domains_of(one, tie.kind),
                _ => None,
            };
            let Some(there) = there else { continue };
            let is_settled = self.is_settled(tie.kind);
            for (group, Broken { any, firm }) in self.groups.iter().zip(&mut unmet) {
                let is_met = tie.may_be_met(group.domains[tie.kind], there);
                *any += u32::from(!is_met);
                firm.count(tie, is_met || !is_settled);
            }
        }
        unmet
    }

    /// The domains of a kind in which the group of a wish lies; none if it waits.
    fn domains_of(&self, wish: usize, kind: usize) -> Option<u128> {
        let home = self.homes.get(wish)?;
        Some(self.groups[usize::from(*home)].domains[kind])
    }

    /// By group, those who have their place and are tied to some that wait; or to any, as long as that may change.
    fn bonds(&self) -> ByGroup<u64> {
        let mut bonds: ByGroup<u64> = smallvec![0; self.groups.len()];
        let placed = self.homes.len();
        for Pair { ends, kind, together: _ } in &self.packing.ties {
            let waits = ends.iter().any(|end| *end >= placed);
            for end in ends.iter().filter(|end| **end < placed && (waits || !self.is_settled(*kind))) {
                bonds[usize::from(self.homes[*end])] |= 1 << end;
            }
        }
        bonds
    }

    fn put(&mut self, index: usize, wish: u32, group: usize) -> bool {
        self.groups[group].room -= wish;
        self.homes.push(group as u8);
        if self.place() {
            return true;
        }
        self.homes.truncate(index);
        self.groups[group].room += wish;
        false
    }

    fn fits(&self, group: &Bin, index: usize, wish: u32) -> bool {
        group.room >= wish && group.is_open_to(index)
    }

    /// Joins groups that have too little room each, and puts the wish there; `grown` is one that was joined for it already.
    fn join(&mut self, index: usize, wish: u32, grown: Option<usize>, outline: &Outline) -> bool {
        // No two bins that may hang together share a domain of the finest kind.
        if self.is_settled(self.packing.finest) {
            return false;
        }
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
        pairs.sort_unstable_by_key(|(cost, room, one, other)| (closeness(*room), *cost, *one, *other));
        let mut seen: Vec<(Joints, [usize; 2])> = Vec::new();
        for (cost, _, one, other) in pairs {
            let is_seen = |(known, [first, second]): &(Joints, [usize; 2])| {
                let alike =
                    |one: usize, other: usize| outline.are_alike(*first, one) && outline.are_alike(*second, other);
                *known == cost && (alike(one, other) || alike(other, one))
            };
            if seen.iter().any(is_seen) {
                continue;
            }
            seen.push((cost, [one, other]));
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
        let before = (self.groups.clone(), self.homes.clone());
        let at = self.unite(one, other);
        (0..MOST_KINDS).for_each(|kind| self.used[kind] += cost[kind]);
        let found = match self.fits(&self.groups[at], index, wish) {
            true => self.put(index, wish, at),
            false => {
                let outline = self.outline();
                self.join(index, wish, Some(at), &outline)
            }
        };
        if !found {
            (self.groups, self.homes) = before;
            (0..MOST_KINDS).for_each(|kind| self.used[kind] -= cost[kind]);
        }
        found
    }

    /// Makes one group of two. Returns its place.
    fn unite(&mut self, one: usize, other: usize) -> usize {
        self.groups[one] = self.groups[one].joined(&self.groups[other]);
        self.groups.remove(other);
        let at = if other < one { one - 1 } else { one };
        for home in &mut self.homes {
            let before = usize::from(*home);
            *home = match before == one || before == other {
                true => at as u8,
                false => *home - u8::from(before > other),
            };
        }
        at
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
        let own: ByGroup<u32> = self.groups.iter().map(|group| group.room).collect();
        let Some(slack) = own.iter().sum::<u32>().checked_sub(self.packing.counts.sum(index)) else { return false };
        let left = |kind: usize| self.joints[kind] - self.used[kind];
        let around = |wider: usize| self.packing.counts.may_fit(index, slack, left(wider), &rooms(&self.groups, wider));
        // Where each bin has a domain of every kind of its own, a joint is one of every kind.
        let least = (0..self.packing.kinds).map(left).min().unwrap_or(0);
        let inside = if self.wider.is_some() { left(self.packing.finest) } else { least };
        least >= 0 && self.packing.counts.may_fit(index, slack, inside, &own) && self.wider.is_none_or(around)
    }

    /// What the groups are, apart from which is which.
    fn outline(&self) -> Outline {
        let own = self.looks();
        let Some(wider) = self.wider else { return Outline { own, clusters: None } };
        let cluster_of = clusters(&self.groups, wider);
        let count = cluster_of.iter().max().map_or(0, |last| usize::from(*last) + 1);
        let inside = |cluster: usize| self.cluster(cluster, &cluster_of, &own, wider);
        let inside: SmallVec<[ByGroup<Looks>; 4]> = (0..count).map(inside).collect();
        let twin = |cluster: usize| inside.iter().position(|other| *other == inside[cluster]).unwrap_or(cluster) as u8;
        let clusters = Clusters {
            domains: self.groups.iter().map(|group| group.domains[wider]).collect(),
            twins: cluster_of.iter().map(|cluster| twin(usize::from(*cluster))).collect(),
            cluster_of,
            inside,
        };
        Outline { own, clusters: Some(clusters) }
    }

    /// What decides whether the rest fits.
    fn key(&self, outline: &Outline) -> Box<[u64]> {
        let Outline { own, clusters } = outline;
        let Unmet { all, together } = self.unmet_so_far();
        let mut key = Vec::with_capacity(4 + 5 * own.len());
        key.extend([self.homes.len() as u64, u64::from(all) << 32 | u64::from(together)]);
        key.extend(self.used.iter().map(|used| *used as u64));
        match clusters {
            None => {
                let mut sorted = own.clone();
                sorted.sort_unstable();
                sorted.iter().for_each(|looks| key.extend_from_slice(looks));
            }
            Some(Clusters { inside, .. }) => {
                let mut sorted: SmallVec<[&ByGroup<Looks>; 16]> = inside.iter().collect();
                sorted.sort_unstable();
                for looks in sorted {
                    key.push(looks.len() as u64);
                    looks.iter().for_each(|looks| key.extend_from_slice(looks));
                }
            }
        }
        key.into_boxed_slice()
    }

    /// What each group can take, and who is in it that matters to others.
    fn looks(&self) -> ByGroup<Looks> {
        let waiting = u64::MAX.checked_shl(self.homes.len() as u32).unwrap_or(0);
        let has_ties = !self.packing.ties.is_empty();
        let looks = |(group, bonds): (&Bin, u64)| {
            let wide = |kind: usize| u64::from(has_ties && group.is_wide(kind)) << kind;
            let width = (0..MOST_KINDS).map(wide).sum::<u64>();
            [u64::from(group.room) << 32 | u64::from(group.stuff) << 8 | width, group.takers & waiting, bonds]
        };
        self.groups.iter().zip(self.bonds()).map(looks).collect()
    }

    /// The groups of one cluster, in order of their looks; each for itself where some lie in several domains of the wider
    /// kind.
    fn cluster(&self, cluster: usize, cluster_of: &[u8], own: &[Looks], wider: usize) -> ByGroup<Looks> {
        let is_inside = |group: &usize| usize::from(cluster_of[*group]) == cluster;
        let mut looks: ByGroup<Looks> = SmallVec::new();
        let mut is_wide = false;
        for group in (0..own.len()).filter(is_inside) {
            looks.push(own[group]);
            is_wide |= self.groups[group].is_wide(wider);
        }
        if is_wide {
            for (place, group) in (0..own.len()).filter(is_inside).enumerate() {
                let domains = self.groups[group].domains[wider];
                looks.insert(2 * place, [domains as u64, (domains >> 64) as u64, u64::MAX]);
            }
        } else {
            looks.sort_unstable();
        }
        looks
    }
}

/// The ties of one wish that went unmet in a group.
#[derive(Clone, Copy, Default)]
struct Broken {
    /// How many, as the groups are.
    any: u32,
    /// Those that stay so.
    firm: Unmet,
}

impl Unmet {
    fn and(self, other: Self) -> Self {
        Self { all: self.all + other.all, together: self.together + other.together }
    }

    fn count(&mut self, tie: &Pair, is_met: bool) {
        self.all += u32::from(!is_met);
        self.together += u32::from(!is_met && tie.together);
    }
}

/// What a group can take, and who is in it that matters to others: its room, its stuff and in which kinds of domain it
/// lies in several where there are ties; who may come; who is there.
type Looks = [u64; 3];

/// What groups are, apart from which is which.
struct Outline {
    /// What each looks like.
    own: ByGroup<Looks>,
    /// How they lie together, where bins do.
    clusters: Option<Clusters>,
}

/// Groups that hang together by domains of the wider kind.
struct Clusters {
    /// By group, those domains.
    domains: ByGroup<u128>,
    /// By group, its cluster, and the first cluster that looks the same inside.
    cluster_of: ByGroup<u8>,
    twins: ByGroup<u8>,
    /// By cluster, what its groups look like.
    inside: SmallVec<[ByGroup<Looks>; 4]>,
}

impl Outline {
    /// Whether one group is as good as another.
    fn are_alike(&self, one: usize, other: usize) -> bool {
        let lie_alike = |clusters: &Clusters| {
            let Clusters { domains, cluster_of, twins, inside: _ } = clusters;
            domains[one] == domains[other] || (cluster_of[one] != cluster_of[other] && twins[one] == twins[other])
        };
        self.own[one] == self.own[other] && self.clusters.as_ref().is_none_or(lie_alike)
    }
}

/// By group the number of the cluster of those that hang together by domains of a kind.
fn clusters(groups: &[Bin], kind: usize) -> ByGroup<u8> {
    let mut clusters: ByGroup<u128> = SmallVec::new();
    for group in groups {
        let mut own = group.domains[kind];
        clusters.retain(|others| {
            let meets = own & *others != 0;
            own |= if meets { *others } else { 0 };
            !meets
        });
        clusters.push(own);
    }
    let cluster_of = |group: &Bin| clusters.iter().position(|cluster| cluster & group.domains[kind] != 0).unwrap_or(0);
    groups.iter().map(|group| cluster_of(group) as u8).collect()
}
