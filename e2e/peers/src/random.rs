//! Decides by a seed: the same seed makes the same machines and requests again (splitmix64, by Vigna).

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

    /// A number from `least` to `most`, both possible; `least` where the two are the wrong way round.
    pub fn between(&mut self, least: u32, most: u32) -> u32 {
        let choices = u64::from(most.saturating_sub(least)) + 1;
        least + (self.bits() % choices) as u32
    }

    /// One of the items.
    pub fn pick<T: Copy, const N: usize>(&mut self, items: [T; N]) -> T {
        const { assert!(N > 0) };
        items[(self.bits() % N as u64) as usize]
    }

    /// True in `percent` of a hundred cases.
    pub fn chance(&mut self, percent: u32) -> bool {
        self.between(0, 99) < percent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_itself_and_differs_from_its_neighbour() {
        let draw = |seed| {
            let mut random = Random::new(seed);
            std::array::from_fn::<u32, 8, _>(|_| random.between(0, 1000))
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
    }

    #[test]
    fn both_ends_of_a_range_occur() {
        let mut random = Random::new(1);
        let drawn: std::collections::BTreeSet<u32> = (0..100).map(|_| random.between(3, 5)).collect();
        assert_eq!(drawn, [3, 4, 5].into());
    }
}
