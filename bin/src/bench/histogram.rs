//! A histogram of latencies, whose buckets get wider with the latency (as in HdrHistogram). A
//! percentile is never too small and at most 1.6 % too large. A histogram takes 30 KB.
//!
//! Below 128 ns, each bucket holds one value. Above, each power of two has 64 buckets of equal
//! width.

/// Base-2 logarithm of the number of buckets of a power of two.
const SUB_BITS: u32 = 6;
const BUCKETS: usize = ((63 - SUB_BITS as usize) << SUB_BITS) + (2 << SUB_BITS);

/// Counts of latencies in nanoseconds.
#[derive(Clone, Debug)]
pub(crate) struct Histogram {
    counts: Box<[u64]>,
    count: u64,
    max: u64,
}

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram { counts: vec![0; BUCKETS].into(), count: 0, max: 0 }
    }
}

/// The right shift that leaves the seven highest bits of a value.
fn shift(value: u64) -> u32 {
    (u64::BITS - value.leading_zeros()).saturating_sub(SUB_BITS + 1)
}

/// The bucket of a value.
fn bucket(value: u64) -> usize {
    let shift = shift(value);
    ((shift as usize) << SUB_BITS) + (value >> shift) as usize
}

/// The largest value of a bucket.
fn largest(bucket: usize) -> u64 {
    let shift = (bucket >> SUB_BITS).saturating_sub(1) as u32;
    let highest_bits = (bucket - ((shift as usize) << SUB_BITS)) as u64;
    (highest_bits << shift) + ((1 << shift) - 1)
}

impl Histogram {
    pub(crate) fn record(&mut self, nanoseconds: u64) {
        self.counts[bucket(nanoseconds)] += 1;
        self.count += 1;
        self.max = self.max.max(nanoseconds);
    }

    /// Adds the counts of another histogram.
    pub(crate) fn add(&mut self, other: &Histogram) {
        self.counts.iter_mut().zip(&other.counts).for_each(|(count, more)| *count += more);
        self.count += other.count;
        self.max = self.max.max(other.max);
    }

    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    pub(crate) fn max(&self) -> u64 {
        self.max
    }

    /// The latency that `percent` of all operations did not exceed; 0 if no operation was recorded.
    pub(crate) fn percentile(&self, percent: f64) -> u64 {
        let rank = ((self.count as f64 * percent / 100.0).ceil() as u64).clamp(1, self.count.max(1));
        let mut seen = 0;
        let found = self.counts.iter().position(|count| {
            seen += count;
            seen >= rank
        });
        found.map_or(0, |bucket| largest(bucket).min(self.max))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Rng;

    #[test]
    fn buckets_follow_each_other_without_a_gap() {
        assert_eq!((bucket(0), bucket(127), bucket(u64::MAX)), (0, 127, BUCKETS - 1));
        for bucket_index in 0..BUCKETS {
            let last = largest(bucket_index);
            assert_eq!(bucket(last), bucket_index);
            if let Some(next) = last.checked_add(1) {
                assert_eq!(bucket(next), bucket_index + 1);
            }
        }
        assert_eq!(largest(BUCKETS - 1), u64::MAX);
    }

    #[test]
    fn percentiles_are_never_too_small_and_at_most_two_percent_too_large() {
        let mut rng = Rng::of(1, 0);
        for round in 0..40 {
            let mut histogram = Histogram::default();
            // From nanoseconds to hours, every power of two as likely as another.
            let mut values: Vec<u64> = (0..1 + rng.below(3000)).map(|_| rng.next() >> (20 + rng.below(44))).collect();
            values.iter().for_each(|&value| histogram.record(value));
            values.sort_unstable();
            for percent in [0.0, 1.0, 50.0, 90.0, 99.0, 99.9, 100.0] {
                let rank = ((values.len() as f64 * percent / 100.0).ceil() as usize).max(1);
                let (exact, found) = (values[rank - 1], histogram.percentile(percent));
                assert!(found >= exact && found as f64 <= exact as f64 * 1.0157, "round {round}: {found} for {exact}");
            }
            assert_eq!((histogram.max(), histogram.count()), (values[values.len() - 1], values.len() as u64));
            assert_eq!(histogram.percentile(100.0), histogram.max());
        }
    }

    #[test]
    fn added_histograms_count_the_values_of_both() {
        let (mut all, mut one, mut two) = (Histogram::default(), Histogram::default(), Histogram::default());
        for value in 0..10_000u64 {
            all.record(value * value);
            if value % 3 == 0 {
                one.record(value * value)
            } else {
                two.record(value * value)
            }
        }
        one.add(&two);
        assert_eq!((one.count(), one.max()), (all.count(), all.max()));
        assert_eq!(one.counts, all.counts);
        assert_eq!(Histogram::default().percentile(50.0), 0);
    }
}
