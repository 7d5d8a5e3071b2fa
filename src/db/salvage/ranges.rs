//! Sets of keys: the lost keys of a table, and the keys that newer pages cover.
//!
//! Floor: db. A set is a list of disjoint intervals. Adding merges intervals, so the size of a set
//! depends on how scattered the damage is, not on the number of keys.

use std::collections::BTreeMap;

/// A set of keys as disjoint intervals.
#[derive(Clone, Debug, Default)]
pub(super) struct KeySet {
    /// Start (included) to end (excluded); `None` means no end.
    intervals: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
}

impl KeySet {
    /// All keys.
    pub(super) fn all() -> KeySet {
        KeySet { intervals: BTreeMap::from([(Vec::new(), None)]) }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.intervals.is_empty()
    }

    pub(super) fn holds(&self, key: &[u8]) -> bool {
        let mut at_or_before =
            self.intervals.range::<[u8], _>((std::ops::Bound::Unbounded, std::ops::Bound::Included(key)));
        at_or_before.next_back().is_some_and(|(_, end)| end.as_deref().is_none_or(|end| key < end))
    }

    /// Whether the set has a key in `low..high`.
    pub(super) fn meets(&self, low: Option<&[u8]>, high: Option<&[u8]>) -> bool {
        let low = low.unwrap_or_default();
        if self.holds(low) {
            return true;
        }
        let mut after = self.intervals.range::<[u8], _>((std::ops::Bound::Excluded(low), std::ops::Bound::Unbounded));
        after.next().is_some_and(|(start, _)| high.is_none_or(|high| start.as_slice() < high))
    }

    /// Adds the keys `low..high`.
    pub(super) fn add(&mut self, low: Vec<u8>, high: Option<Vec<u8>>) {
        if high.as_ref().is_some_and(|high| *high <= low) {
            return;
        }
        let (mut low, mut high) = (low, high);
        loop {
            // The last interval that starts at or before the end of the new one; if it ends before
            // the start of the new one, no interval is left to merge.
            let last = match &high {
                Some(high) => self.intervals.range(..=high.clone()).next_back(),
                None => self.intervals.iter().next_back(),
            };
            let Some((start, end)) = last.map(|(start, end)| (start.clone(), end.clone())) else { break };
            if end.as_ref().is_some_and(|end| *end < low) {
                break;
            }
            self.intervals.remove(&start);
            low = low.min(start);
            high = high.and_then(|high| end.map(|end| end.max(high)));
        }
        self.intervals.insert(low, high);
    }

    /// Keeps only keys that are in `other` too.
    pub(super) fn narrow(&mut self, other: &KeySet) {
        let mut both = BTreeMap::new();
        let (mut ours, mut theirs) = (self.intervals.iter().peekable(), other.intervals.iter().peekable());
        while let (Some(&(start, end)), Some(&(low, high))) = (ours.peek(), theirs.peek()) {
            let from = start.max(low);
            let to = match (end, high) {
                (Some(end), Some(high)) => Some(end.min(high)),
                (end, high) => end.as_ref().or(high.as_ref()),
            };
            if to.is_none_or(|to| from < to) {
                both.insert(from.clone(), to.cloned());
            }
            // The interval that ends first overlaps no later one.
            let ours_ends = end.as_ref().is_some_and(|end| high.as_ref().is_none_or(|high| end <= high));
            _ = if ours_ends { ours.next() } else { theirs.next() };
        }
        self.intervals = both;
    }

    /// Adds the keys from `first` to `last`, both included.
    pub(super) fn add_closed(&mut self, first: &[u8], last: &[u8]) {
        self.add(first.to_vec(), Some([last, &[0]].concat()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Compares with a set of the 256 one-byte keys, for pseudo-random intervals.
    #[test]
    fn sets_of_intervals_agree_with_sets_of_keys() {
        let mut state = 7u64;
        let mut next = |bound: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % bound
        };
        for _ in 0..300 {
            let (mut set, mut model) = (KeySet::default(), [false; 256]);
            for _ in 0..1 + next(6) {
                let (a, b) = (next(256) as u8, next(257) as usize);
                set.add(vec![a], (b < 256).then(|| vec![b as u8]));
                (usize::from(a)..b).for_each(|key| model[key] = true);
            }
            let (mut narrowed, mut other) = (set.clone(), KeySet::default());
            let mut in_other = [false; 256];
            for _ in 0..1 + next(4) {
                let (a, b) = (next(256) as u8, next(257) as usize);
                other.add(vec![a], (b < 256).then(|| vec![b as u8]));
                (usize::from(a)..b).for_each(|key| in_other[key] = true);
            }
            narrowed.narrow(&other);
            for key in 0..=255u8 {
                assert_eq!(narrowed.holds(&[key]), model[usize::from(key)] && in_other[usize::from(key)], "{key}");
                assert_eq!(set.holds(&[key]), model[usize::from(key)], "{key} of {set:?}");
                let high = next(256) as u8;
                let met = (key..high).any(|key| model[usize::from(key)]);
                if high > key {
                    assert_eq!(set.meets(Some(&[key]), Some(&[high])), met, "{key}..{high} of {set:?}");
                }
            }
        }
        assert!(KeySet::all().holds(b"") && KeySet::all().meets(None, None) && !KeySet::default().meets(None, None));
    }

    /// Two sets that interleave: each interval of one overlaps two of the other.
    #[test]
    fn narrowing_leaves_the_intersection_of_large_sets() {
        let key = |n: u32| n.to_be_bytes().to_vec();
        let (mut set, mut other) = (KeySet::default(), KeySet::default());
        let count = 60_000;
        for n in 0..count {
            set.add(key(n * 10), Some(key(n * 10 + 6)));
            other.add(key(n * 10 + 4), Some(key(n * 10 + 12)));
        }
        other.add(key(count * 10 - 3), None);
        set.narrow(&other);
        // The intersection has 4 and 5 of each ten, and 0 and 1 of each ten except the first.
        assert_eq!(set.intervals.len(), 2 * count as usize - 1);
        for n in [1, 2, count / 2, count - 1] {
            let held = |digit: u32| set.holds(&key(n * 10 + digit));
            assert_eq!((0..10).filter(|digit| held(*digit)).collect::<Vec<_>>(), [0, 1, 4, 5], "{n}");
        }
        assert!(!set.holds(&key(0)) && set.holds(&key(4)) && !set.holds(&key(count * 10)));
        let all = set.clone();
        set.narrow(&KeySet::all());
        assert_eq!(set.intervals, all.intervals);
        set.narrow(&KeySet::default());
        assert!(set.is_empty());
    }
}
