//! Sets of keys: what was lost of a table, and what a newer page has spoken for.
//!
//! Floor: db. Intervals of keys that are merged as they come, so that a set is as small as the damage is scattered.

use std::collections::BTreeMap;

/// A set of keys as disjoint intervals.
#[derive(Clone, Debug, Default)]
pub(super) struct KeySet {
    /// From a key, to the first key behind; `None` is the end of all keys.
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
        let at_or_before =
            self.intervals.range::<[u8], _>((std::ops::Bound::Unbounded, std::ops::Bound::Included(key)));
        at_or_before.last().is_some_and(|(_, end)| end.as_deref().is_none_or(|end| key < end))
    }

    /// Whether a key from `low` on and below `high` is in the set.
    pub(super) fn meets(&self, low: Option<&[u8]>, high: Option<&[u8]>) -> bool {
        let low = low.unwrap_or_default();
        if self.holds(low) {
            return true;
        }
        let mut behind = self.intervals.range::<[u8], _>((std::ops::Bound::Excluded(low), std::ops::Bound::Unbounded));
        behind.next().is_some_and(|(start, _)| high.is_none_or(|high| start.as_slice() < high))
    }

    /// Adds the keys from `low` on and below `high`.
    pub(super) fn add(&mut self, low: Vec<u8>, high: Option<Vec<u8>>) {
        if high.as_ref().is_some_and(|high| *high <= low) {
            return;
        }
        let (mut low, mut high) = (low, high);
        loop {
            // An interval that begins at or before the end of the new one, and does not end before its beginning.
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

    /// Keeps only what is in the other set too.
    pub(super) fn narrow(&mut self, other: &KeySet) {
        let mut both = BTreeMap::new();
        for (start, end) in &self.intervals {
            for (low, high) in &other.intervals {
                let from = start.max(low);
                let to = match (end, high) {
                    (Some(end), Some(high)) => Some(end.min(high)),
                    (end, high) => end.as_ref().or(high.as_ref()),
                };
                if to.is_none_or(|to| from < to) {
                    both.insert(from.clone(), to.cloned());
                }
            }
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

    /// Against a set of the 256 keys of one byte, by a fixed random walk.
    #[test]
    fn a_set_of_intervals_is_a_set_of_keys() {
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
            let (from, to) = (next(256) as u8, next(256) as u8);
            other.add(vec![from], Some(vec![to]));
            narrowed.narrow(&other);
            for key in 0..=255u8 {
                assert_eq!(narrowed.holds(&[key]), model[usize::from(key)] && (from..to).contains(&key), "{key}");
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
}
