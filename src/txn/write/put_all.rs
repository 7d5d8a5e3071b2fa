//! Putting many entries at once, in key order.
//!
//! Floor: txn. Entries are collected, sorted by key, and put in that order: those of one leaf come
//! one after the other. Before a group of entries is put, their leaves are prefetched together, so
//! that the waits for memory overlap (`tree/lookup/many.rs`).
//!
//! Failure: the errors of [`RunningTxn::put`]. The entries before the one that failed are stored.

use crate::error::Result;
use crate::tree::{Tree, GROUP};
use crate::txn::write::txn::RunningTxn;

/// Bytes, and entries, that are collected before they are put.
const BATCH_BYTES: usize = 4 << 20;
const BATCH_ENTRIES: usize = 1 << 16;

/// Entries that wait to be put.
#[derive(Debug, Default)]
pub(crate) struct Collected {
    /// Keys and values, one after the other.
    bytes: Vec<u8>,
    entries: Vec<CollectedEntry>,
}

/// Where an entry lies in the bytes.
#[derive(Debug, Clone, Copy)]
struct CollectedEntry {
    /// The first bytes of the key, filled up with zeros: they decide most comparisons.
    word: u64,
    key: usize,
    value: usize,
    end: usize,
}

impl Collected {
    pub(crate) fn push(&mut self, key: &[u8], value: &[u8]) {
        let mut word = [0; 8];
        word.iter_mut().zip(key).for_each(|(to, &from)| *to = from);
        let start = self.bytes.len();
        let value_start = start + key.len();
        let end = value_start + value.len();
        self.entries.push(CollectedEntry { word: u64::from_be_bytes(word), key: start, value: value_start, end });
        self.bytes.extend_from_slice(key);
        self.bytes.extend_from_slice(value);
    }

    /// Bytes of all keys and values.
    pub(crate) fn len_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Number of entries.
    pub(crate) fn count(&self) -> usize {
        self.entries.len()
    }

    /// Whether the collection has to be put now.
    pub(crate) fn is_full(&self) -> bool {
        self.len_bytes() >= BATCH_BYTES || self.count() >= BATCH_ENTRIES
    }

    fn key(&self, index: usize) -> &[u8] {
        let CollectedEntry { key, value, .. } = self.entries[index];
        &self.bytes[key..value]
    }

    fn value(&self, index: usize) -> &[u8] {
        let CollectedEntry { value, end, .. } = self.entries[index];
        &self.bytes[value..end]
    }

    /// Sorts by key. Entries of one key keep their order, so the last one wins.
    fn sort(&mut self) {
        let Collected { bytes, entries } = self;
        let key = |entry: &CollectedEntry| &bytes[entry.key..entry.value];
        entries.sort_by(|a, b| a.word.cmp(&b.word).then_with(|| key(a).cmp(key(b))));
    }

    /// Sorts by key, then by value.
    fn sort_pairs(&mut self) {
        let Collected { bytes, entries } = self;
        let pair = |entry: &CollectedEntry| (&bytes[entry.key..entry.value], &bytes[entry.value..entry.end]);
        entries.sort_unstable_by(|a, b| a.word.cmp(&b.word).then_with(|| pair(a).cmp(&pair(b))));
    }

    /// Sorts the pairs of a multimap, and calls `each` for every one, in order. Empties the
    /// collection.
    pub(crate) fn drain_pairs(&mut self, mut each: impl FnMut(&[u8], &[u8]) -> Result<()>) -> Result<()> {
        self.sort_pairs();
        let done = (0..self.count()).try_for_each(|index| each(self.key(index), self.value(index)));
        self.clear();
        done
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.entries.clear();
    }
}

impl RunningTxn {
    /// Puts all collected entries into a table, and empties the collection. Returns how many keys
    /// were new.
    pub(crate) fn put_collected_entries(&mut self, at: usize, collected: &mut Collected) -> Result<u64> {
        collected.sort();
        let mut new = 0;
        for start in (0..collected.entries.len()).step_by(GROUP) {
            let end = (start + GROUP).min(collected.entries.len());
            self.check_table(at)?;
            self.end_filling()?;
            let keys: Vec<&[u8]> = (start..end).map(|index| collected.key(index)).collect();
            Tree::new(self.pages(), self.root(at)).prefetch_leaves(&keys);
            for index in start..end {
                new += u64::from(!self.put(at, collected.key(index), collected.value(index), None)?);
            }
        }
        collected.clear();
        Ok(new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Keys that are equal in their first eight bytes, or differ only by zeros at the end.
    #[test]
    fn entries_are_sorted_by_key_and_the_last_of_one_key_stays_last() {
        let mut collected = Collected::default();
        let keys: [&[u8]; 10] =
            [b"b", b"a\0", b"12345678z", b"a", b"12345678a", b"", b"\0", b"12345678", b"a", b"12345678a"];
        for (index, key) in keys.iter().enumerate() {
            collected.push(key, &[index as u8]);
        }
        collected.sort();
        let sorted: Vec<(&[u8], u8)> =
            (0..keys.len()).map(|index| (collected.key(index), collected.value(index)[0])).collect();
        let mut expected: Vec<(&[u8], u8)> = keys.iter().zip(0..).map(|(&key, index)| (key, index)).collect();
        expected.sort();
        assert_eq!(sorted, expected);
    }
}
