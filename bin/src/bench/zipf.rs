//! Zipf's distribution: the probability of rank r is proportional to 1 / r^0.99, as in the Yahoo!
//! cloud serving benchmark (YCSB; Cooper et al., SoCC 2010). The method is that of Gray et al.
//! ("Quickly generating billion-record synthetic databases", SIGMOD 1994). Popular entries are
//! scattered over all numbers.

use crate::random::Rng;

/// The exponent.
const THETA: f64 = 0.99;
/// Number of terms that are added one by one; an integral approximates the rest of the sum.
const EXACT_TERMS: u64 = 100_000;
/// A prime. Multiplying by it, modulo any smaller count, permutes the numbers below the count.
const SCATTER: u128 = 2_654_435_761;

/// Draws ranks below a count.
#[derive(Clone, Debug)]
pub(crate) struct Zipf {
    count: u64,
    zeta: f64,
    alpha: f64,
    eta: f64,
}

/// The sum 1 + 1/2^theta + 1/3^theta + .. + 1/count^theta.
fn zeta(count: u64) -> f64 {
    let exact = count.min(EXACT_TERMS);
    let sum: f64 = (1..=exact).map(|rank| (rank as f64).powf(-THETA)).sum();
    let (from, to) = (exact as f64, count as f64);
    // Euler-Maclaurin formula: the neglected terms are below 1e-10 here.
    sum + (to.powf(1.0 - THETA) - from.powf(1.0 - THETA)) / (1.0 - THETA) + (to.powf(-THETA) - from.powf(-THETA)) / 2.0
}

impl Zipf {
    pub(crate) fn new(count: u64) -> Zipf {
        let zeta_count = zeta(count);
        let eta = (1.0 - (2.0 / count as f64).powf(1.0 - THETA)) / (1.0 - zeta(2) / zeta_count);
        Zipf { count, zeta: zeta_count, alpha: 1.0 / (1.0 - THETA), eta }
    }

    /// A rank, 0 for the most popular entry.
    pub(crate) fn rank(&self, rng: &mut Rng) -> u64 {
        let u = (rng.next() >> 11) as f64 / (1u64 << 53) as f64;
        let uz = u * self.zeta;
        if uz < 1.0 || self.count < 2 {
            return 0;
        }
        if uz < 1.0 + 0.5f64.powf(THETA) {
            return 1;
        }
        let rank = (self.count as f64 * (self.eta * u - self.eta + 1.0).powf(self.alpha)) as u64;
        rank.min(self.count - 1)
    }

    /// The number of an entry. Popular entries are scattered over all numbers.
    pub(crate) fn scattered(&self, rng: &mut Rng) -> u64 {
        (u128::from(self.rank(rng)) * SCATTER % u128::from(self.count)) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_approximated_sum_is_close_to_the_exact_one() {
        let exact: f64 = (1..=3_000_000u64).map(|rank| (rank as f64).powf(-THETA)).sum();
        assert!((zeta(3_000_000) / exact - 1.0).abs() < 1e-9, "{} {exact}", zeta(3_000_000));
        assert_eq!(zeta(1), 1.0);
    }

    #[test]
    fn ranks_have_the_expected_frequency() {
        const DRAWS: u32 = 400_000;
        for count in [2u64, 10, 1000, 1_000_000] {
            let (zipf, mut rng) = (Zipf::new(count), Rng::of(7, count));
            let mut below = [0u32; 3];
            let marks = [1, 2, (count / 10).max(1)];
            for _ in 0..DRAWS {
                let rank = zipf.rank(&mut rng);
                assert!(rank < count);
                marks.iter().zip(&mut below).for_each(|(&mark, below)| *below += u32::from(rank < mark));
            }
            for (mark, below) in marks.into_iter().zip(below) {
                let (share, expected) = (f64::from(below) / f64::from(DRAWS), zeta(mark) / zeta(count));
                // The method is exact for the first two ranks and close for the others.
                assert!((share - expected).abs() < 0.02, "{count}: {share} of ranks below {mark}, not {expected}");
            }
        }
    }

    #[test]
    fn scattering_reaches_every_entry_once() {
        for count in [1u64, 2, 10, 1000, 4096] {
            let mut hit: Vec<u64> =
                (0..count).map(|rank| (u128::from(rank) * SCATTER % u128::from(count)) as u64).collect();
            hit.sort_unstable();
            assert_eq!(hit, (0..count).collect::<Vec<_>>());
            let (zipf, mut rng) = (Zipf::new(count), Rng::of(1, 1));
            assert!((0..1000).all(|_| zipf.scattered(&mut rng) < count));
        }
    }
}
