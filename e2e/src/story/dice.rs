//! Chance that can be had again: the same seed, the same numbers. Pure.

/// `SplitMix64` (<https://doi.org/10.1145/2714064.2660195>): any seed is a good one.
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// Numbers of this seed.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number from 0 up to `below`, which is not 0 and far from the largest number.
    pub const fn below(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % below
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_its_numbers_again_and_all_that_are_possible() {
        let throw = |seed| {
            let mut dice = Dice::new(seed);
            (0..100).map(|_| dice.below(6)).collect::<Vec<_>>()
        };
        assert_eq!(throw(7), throw(7));
        assert_ne!(throw(7), throw(8));
        for face in 0..6 {
            assert!(throw(7).contains(&face), "{face}");
        }
    }
}
