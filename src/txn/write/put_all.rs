//! Putting many entries at once, in key order.
//!
//! Floor: txn. Entries are collected, sorted by key, and put in that order: those of one leaf come
//! one after the other. Before a group of entries is put, their leaves are prefetched together, so
//! that the waits for memory overlap (`tree/lookup/many.rs`).
//!
//! Failure: the errors of [`WriteTxn::put`]. The entries before the one that failed are stored.

use crate::error::Result;
use crate::tree::{Tree, GROUP};
use crate::txn::write::txn::WriteTxn;

/// Bytes, and entries, that are collected before they are put.
const BATCH_BYTES: usize = 4 << 20;
const BATCH_ENTRIES: usize = 1 << 16;

/// Entries that wait to be put.
#[derive(Debug, Default)]
pub(crate) struct Collected {
    /// Keys and values, one after the other.
    bytes: Vec<u8>,
    /// For each entry: the offset of its key in `bytes`, and the lengths of key and value.
    entries: Vec<(usize, usize, usize)>,
}

impl Collected {
    pub(crate) fn push(&mut self, key: &[u8], value: &[u8]) {
        self.entries.push((self.bytes.len(), key.len(), value.len()));
        self.bytes.extend_from_slice(key);
        self.bytes.extend_from_slice(value);
    }

    /// Whether the collection has to be put now.
    pub(crate) fn is_full(&self) -> bool {
        self.bytes.len() >= BATCH_BYTES || self.entries.len() >= BATCH_ENTRIES
    }

    fn key(&self, index: usize) -> &[u8] {
        let (start, key_bytes, _) = self.entries[index];
        &self.bytes[start..start + key_bytes]
    }

    fn value(&self, index: usize) -> &[u8] {
        let (start, key_bytes, value_bytes) = self.entries[index];
        &self.bytes[start + key_bytes..start + key_bytes + value_bytes]
    }

    /// Sorts by key. Entries of one key keep their order, so the last one wins.
    fn sort(&mut self) {
        let Collected { bytes, entries } = self;
        entries.sort_by(|a, b| bytes[a.0..a.0 + a.1].cmp(&bytes[b.0..b.0 + b.1]));
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.entries.clear();
    }
}

impl WriteTxn {
    /// Puts all collected entries into a table, and empties the collection. Returns how many keys
    /// were new.
    pub(crate) fn put_collected_entries(&mut self, at: usize, collected: &mut Collected) -> Result<u64> {
        collected.sort();
        let mut new = 0;
        for start in (0..collected.entries.len()).step_by(GROUP) {
            let end = (start + GROUP).min(collected.entries.len());
            self.check_usable()?;
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
