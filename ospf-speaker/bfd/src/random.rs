//! Seeded randomness for jitter.

/// Steele, Lea and Flood's SplitMix64: small, and good enough to spread packets in time.
#[derive(Debug, Clone)]
pub(crate) struct SplitMix64(u64);

impl SplitMix64 {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The state, from which [`Self::new`] goes on with the same numbers.
    pub(crate) fn state(&self) -> u64 {
        self.0
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number of `0..=bound`; the bias is below `bound / 2^64`.
    pub(crate) fn up_to(&mut self, bound: u64) -> u64 {
        let product = u128::from(self.next()) * (u128::from(bound) + 1);
        u64::try_from(product >> 64).unwrap_or(bound)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_of_the_range_are_reached_and_never_left() {
        let mut random = SplitMix64::new(7);
        let drawn: std::collections::BTreeSet<u64> = (0..200).map(|_| random.up_to(3)).collect();
        assert_eq!(drawn, (0..=3).collect());
        assert_eq!(random.up_to(0), 0);
    }
}
