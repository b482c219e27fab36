//! What counting alone says of wishes and rooms: whether the wishes from one on may fit, with so many joints.

use smallvec::SmallVec;

/// Counted once for all searches: the wishes from each one on, to the last.
#[derive(Clone, Debug)]
pub(super) struct Counts {
    /// What they take together.
    sums: Vec<u32>,
    /// One more than the largest room of a domain.
    rooms: usize,
    /// For every such room, row by row: the most of it that some of them fill.
    fills: Vec<u32>,
    /// For every such room, row by row: what those of them take together that are no larger.
    small: Vec<u32>,
    /// Their sizes, each once, those of the last wish first.
    sizes: Vec<u32>,
    /// How many of the sizes are theirs.
    known: Vec<usize>,
    /// How many parts of each size they need, row by row.
    wanted: Vec<u32>,
    /// How many parts of each size every room has, row by row.
    parts: Vec<u32>,
}

impl Counts {
    /// Counts these wishes, where no domain has more room than that.
    pub(super) fn of(wishes: &[u32], largest: u32) -> Self {
        let mut sizes: Vec<u32> = Vec::new();
        wishes.iter().rev().for_each(|wish| {
            if !sizes.contains(wish) {
                sizes.push(*wish)
            }
        });
        let rooms = largest as usize + 1;
        let mut small = vec![0; (wishes.len() + 1) * rooms];
        let (mut sums, mut known) = (vec![0; wishes.len() + 1], vec![0; wishes.len() + 1]);
        let mut wanted = vec![0; (wishes.len() + 1) * sizes.len()];
        for (index, wish) in wishes.iter().enumerate().rev() {
            sums[index] = sums[index + 1] + wish;
            let (own, after) = small[index * rooms..][..2 * rooms].split_at_mut(rooms);
            for (room, (own, after)) in own.iter_mut().zip(after).enumerate() {
                *own = *after + if *wish as usize <= room { *wish } else { 0 };
            }
            known[index] =
                known[index + 1].max(sizes.iter().position(|size| size == wish).map_or(0, |place| place + 1));
            for (place, size) in sizes.iter().enumerate() {
                wanted[index * sizes.len() + place] = wanted[(index + 1) * sizes.len() + place] + wish / size;
            }
        }
        let parts = sizes.iter().flat_map(|size| (0..rooms as u32).map(move |room| room / size)).collect();
        Self { sums, rooms, fills: fills(wishes, rooms), small, sizes, known, wanted, parts }
    }

    /// What the wishes from one on take together.
    pub(super) fn sum(&self, from: usize) -> u32 {
        self.sums[from]
    }

    /// Whether the wishes from one on may fit into these rooms with so many joints, where so much stays free at last.
    pub(super) fn may_fit(&self, from: usize, slack: u32, joints: i32, rooms: &[u32]) -> bool {
        let wanted = &self.wanted[from * self.sizes.len()..][..self.known[from]];
        joints >= 0
            && self.has_no_waste(from, slack, joints as usize, rooms)
            && self.has_enough_small(from, slack, joints as usize, rooms)
            && wanted.iter().enumerate().all(|(size, wanted)| self.missing(size, *wanted, rooms) <= joints)
    }

    /// How many more parts of a size are wanted than these rooms have.
    fn missing(&self, size: usize, wanted: u32, rooms: &[u32]) -> i32 {
        let parts = &self.parts[size * self.rooms..][..self.rooms];
        // What hangs together may have more room than any domain.
        let parts = |room: &u32| parts.get(*room as usize).copied().unwrap_or_else(|| room / self.sizes[size]);
        wanted as i32 - rooms.iter().map(parts).sum::<u32>() as i32
    }

    /// Whether what no wishes fill exactly is no more than what may stay free. A joint saves the waste of two.
    fn has_no_waste(&self, from: usize, slack: u32, joints: usize, rooms: &[u32]) -> bool {
        let fills = &self.fills[from * self.rooms..][..self.rooms];
        let waste = |room: &u32| fills.get(*room as usize).map_or(0, |fill| room - fill);
        let total: u32 = rooms.iter().map(waste).sum();
        if total <= slack {
            return true;
        }
        let mut wastes: SmallVec<[u32; 16]> = rooms.iter().map(waste).collect();
        wastes.sort_unstable_by(|a, b| b.cmp(a));
        wastes.iter().skip(2 * joints).sum::<u32>() <= slack
    }

    /// Whether what small rooms have beyond all small wishes is no more than what may stay free: nothing larger fits there.
    /// A joint makes a larger room of two.
    fn has_enough_small(&self, from: usize, slack: u32, joints: usize, rooms: &[u32]) -> bool {
        let small = &self.small[from * self.rooms..][..self.rooms];
        let mut sorted: SmallVec<[u32; 16]> = rooms.iter().copied().filter(|room| *room > 0).collect();
        sorted.sort_unstable();
        let mut room_there = 0;
        // With each room, those no larger; of these the largest may be joined to others.
        sorted.iter().skip(2 * joints).zip(&sorted).all(|(limit, room)| {
            room_there += room;
            small.get(*limit as usize).is_none_or(|wanted| room_there <= wanted + slack)
        })
    }
}

/// For the wishes from each one on, and for every room: the largest sum of some of them in it.
fn fills(wishes: &[u32], rooms: usize) -> Vec<u32> {
    let mut fills = vec![0; (wishes.len() + 1) * rooms];
    let mut reached = vec![false; rooms];
    reached[0] = true;
    for (index, wish) in wishes.iter().enumerate().rev() {
        for room in (*wish as usize..rooms).rev() {
            reached[room] |= reached[room - *wish as usize];
        }
        let mut last = 0;
        for (room, fill) in fills[index * rooms..][..rooms].iter_mut().enumerate() {
            last = if reached[room] { room as u32 } else { last };
            *fill = last;
        }
    }
    fills
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_wishes_fill_is_wasted() {
        let counts = Counts::of(&[5, 3, 3], 4);
        assert_eq!(counts.sum(1), 6);
        assert!(counts.may_fit(1, 2, 0, &[4, 4]));
        assert!(!counts.may_fit(1, 0, 0, &[4, 2]));
        // One joint makes 6 of both.
        assert!(counts.may_fit(1, 0, 1, &[4, 2]));
    }

    #[test]
    fn small_rooms_take_small_wishes_only() {
        let counts = Counts::of(&[4, 2, 1], 8);
        // 3 and 2 take the 2 and the 1, and two stay free.
        assert!(counts.may_fit(0, 2, 0, &[3, 2, 4]));
        assert!(!counts.may_fit(0, 1, 0, &[3, 2, 3]));
        assert!(counts.may_fit(0, 1, 1, &[3, 2, 3]));
    }

    #[test]
    fn rooms_that_hold_too_few_parts_of_a_size_do_not_do() {
        let counts = Counts::of(&[3, 3, 3], 4);
        assert!(!counts.may_fit(0, 3, 0, &[4, 4, 2, 2]));
        assert!(counts.may_fit(0, 3, 1, &[4, 4, 2, 2]));
        assert!(counts.may_fit(0, 3, 0, &[9, 1, 1, 1]));
    }
}
