//! The entries that an append has taken in, and the log file does not have durably yet.
//!
//! openraft reads entries as soon as `append` has returned, long before their flush. A reader takes
//! them from here, and older ones from the file. The writer takes them out after its commit.
//!
//! Invariants:
//!   RAFT-5  an entry is here or in the published state of the file, from the return of `append`
//!       until it is truncated or purged. A reader therefore looks here first and begins its read
//!       transaction afterwards.
//!   RAFT-6  only the bytes that were written are taken out: an index may have been truncated and
//!       appended again meanwhile.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// The encoded form of an entry.
pub(crate) type EntryBytes = Arc<[u8]>;

/// The unflushed entries of one group, by index.
#[derive(Debug, Default)]
pub(crate) struct Unflushed(BTreeMap<u64, EntryBytes>);

impl Unflushed {
    /// Adds entries.
    pub(crate) fn add(&mut self, entries: &[(u64, EntryBytes)]) {
        self.0.extend(entries.iter().map(|(index, bytes)| (*index, Arc::clone(bytes))));
    }

    /// Takes out entries that are durable now (RAFT-6).
    pub(crate) fn written(&mut self, entries: &[(u64, EntryBytes)]) {
        for (index, bytes) in entries {
            if self.0.get(index).is_some_and(|here| Arc::ptr_eq(here, bytes)) {
                self.0.remove(index);
            }
        }
    }

    /// Forgets the entries from this index on.
    pub(crate) fn truncate(&mut self, from: u64) {
        self.0.split_off(&from);
    }

    /// Forgets the entries up to this index.
    pub(crate) fn purge(&mut self, upto: u64) {
        self.0 = self.0.split_off(&upto.saturating_add(1));
    }

    /// The entries in a range.
    pub(crate) fn range(&self, range: Range<u64>) -> Vec<(u64, EntryBytes)> {
        if range.is_empty() {
            return Vec::new();
        }
        self.0.range(range).map(|(index, bytes)| (*index, Arc::clone(bytes))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(index: u64, text: &str) -> (u64, EntryBytes) {
        (index, text.as_bytes().into())
    }

    fn shown(unflushed: &Unflushed) -> Vec<(u64, String)> {
        let all = unflushed.range(0..u64::MAX);
        all.iter().map(|(index, bytes)| (*index, String::from_utf8_lossy(bytes).into_owned())).collect()
    }

    #[test]
    fn an_entry_that_was_appended_again_stays_until_it_is_written() {
        let mut unflushed = Unflushed::default();
        let (first, again) = (entry(7, "first"), entry(7, "again"));
        unflushed.add(std::slice::from_ref(&first));
        unflushed.truncate(7);
        unflushed.add(std::slice::from_ref(&again));
        unflushed.written(&[first]);
        assert_eq!(shown(&unflushed), [(7, "again".to_string())]);
        unflushed.written(&[again]);
        assert_eq!(shown(&unflushed), []);
    }

    #[test]
    fn truncating_and_purging_include_their_index() {
        let mut unflushed = Unflushed::default();
        unflushed.add(&[entry(1, "a"), entry(2, "b"), entry(3, "c"), entry(4, "d")]);
        unflushed.purge(1);
        unflushed.truncate(4);
        assert_eq!(shown(&unflushed), [(2, "b".to_string()), (3, "c".to_string())]);
        let (from, to) = (5, 4);
        assert_eq!(unflushed.range(from..to), []);
    }
}
