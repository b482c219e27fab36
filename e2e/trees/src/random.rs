//! Decides by a seed: the same seed makes the same choices again (splitmix64, by Vigna).

use crate::sets::Ids;

/// A source of choices that a seed determines.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The choices of this seed.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number from 0 to below `limit`; 0 if the limit is 0.
    pub fn below(&mut self, limit: u32) -> u32 {
        if limit == 0 { 0 } else { (self.bits() % u64::from(limit)) as u32 }
    }

    /// A number from `least` to `most`, both possible; `least` where the two are the wrong way round.
    pub fn within(&mut self, least: u32, most: u32) -> u32 {
        least + self.below(most.saturating_sub(least) + 1)
    }

    /// True in `percent` of a hundred cases.
    pub fn chance(&mut self, percent: u32) -> bool {
        self.below(100) < percent
    }

    /// One of the items, of which there must be some.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len() as u32) as usize]
    }

    /// A source of its own for one part of what is drawn, so that another part's choices do not shift it.
    pub fn branch(&mut self) -> Self {
        Self(self.bits())
    }

    /// Some of the items, each with a chance in percent.
    pub fn some(&mut self, items: impl IntoIterator<Item = u32>, percent: u32) -> Ids {
        items.into_iter().filter(|_| self.chance(percent)).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_seed_repeats_itself_and_differs_from_its_neighbour() {
        let draw = |seed| {
            let mut random = Random::new(seed);
            std::array::from_fn::<u32, 8, _>(|_| random.below(1000))
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
    }

    #[test]
    fn both_ends_of_a_range_occur() {
        let mut random = Random::new(1);
        let drawn: BTreeSet<u32> = (0..100).map(|_| random.within(3, 5)).collect();
        assert_eq!(drawn, [3, 4, 5].into());
        assert_eq!((random.within(7, 5), random.below(0)), (7, 0));
    }
}
