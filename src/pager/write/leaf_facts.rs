//! What the writer remembers of the leaves that it has sealed, so that a whole subtree can be freed
//! without a look at its leaves.
//!
//! Floor: pager. For each leaf without overflow extents: its number of entries and the
//! transaction that wrote it, in 8 bytes. The facts lie in segments of [`SEGMENT_PAGES`] pages; at
//! most [`SEGMENTS_MAX`] exist, and when another is needed, all are dropped. They are computed when
//! a page is sealed, while its bytes are in the processor's cache.
//!
//! Invariants:
//!   FACT-1  the fact of a page describes the leaf that this process sealed there last, or there is
//!       none. Pages that are neither leaves nor sealed here need no care: no tree that this
//!       process built leads to them as leaves.
//!   FACT-2  facts belong to an unbroken series of commits of this process, which aborted
//!       transactions do not break: they change no page that a state reaches. When a transaction
//!       begins on another state than the last one of the series, all facts are dropped.
//!
//! Failure: none. A leaf without a fact is read.

use std::collections::HashMap;

use crate::ids::{PageId, TxnId};
use crate::page::leaf::Leaf;

const SEGMENT_PAGES: u64 = 1024;
/// 8 MiB of facts, for 4 GiB of pages of the default size.
const SEGMENTS_MAX: usize = 1024;
/// Bits of a fact that hold the number of entries: more than a page of the largest size can have.
const COUNT_BITS: u32 = 14;

/// What is known of a leaf whose entries have no overflow extents.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct LeafFact {
    pub(crate) entries: u64,
    /// The transaction that wrote the page.
    pub(crate) born: TxnId,
}

impl LeafFact {
    /// The fact of a sealed page, if it is a leaf that has entries, none with an overflow extent.
    pub(crate) fn of(page: &[u8], id: PageId) -> Option<LeafFact> {
        let leaf = Leaf::parse(page, id).ok()?;
        let known = leaf.count() > 0 && leaf.has_no_extents();
        known.then(|| LeafFact { entries: leaf.count() as u64, born: leaf.born() })
    }
}

/// The facts of all pages.
#[derive(Debug, Default)]
pub(super) struct LeafFacts {
    /// Segments by number. In a segment 0 means that nothing is known.
    segments: HashMap<u64, Box<[u64]>>,
    /// The latest state of the series (FACT-2).
    series: TxnId,
}

impl LeafFacts {
    /// Begins transaction `txn`.
    pub(super) fn begin(&mut self, txn: TxnId) {
        if self.series.next() != txn {
            self.segments.clear();
        }
        self.series = TxnId(txn.0.saturating_sub(1));
    }

    /// Notes that transaction `txn` has committed.
    pub(super) fn commit(&mut self, txn: TxnId) {
        self.series = txn;
    }

    /// Notes a sealed page.
    pub(super) fn note(&mut self, page: &[u8], id: PageId) {
        let fact = LeafFact::of(page, id);
        let packed = fact.map_or(0, |fact| fact.born.0 << COUNT_BITS | fact.entries);
        let number = id.0 / SEGMENT_PAGES;
        if packed != 0 && self.segments.len() >= SEGMENTS_MAX && !self.segments.contains_key(&number) {
            self.segments.clear();
        }
        let segment = match packed {
            0 => self.segments.get_mut(&number),
            _ => Some(self.segments.entry(number).or_insert_with(|| vec![0; SEGMENT_PAGES as usize].into())),
        };
        if let Some(place) = segment.and_then(|segment| segment.get_mut((id.0 % SEGMENT_PAGES) as usize)) {
            *place = packed;
        }
    }

    /// The fact of a page.
    #[inline]
    pub(super) fn get(&self, id: PageId) -> Option<LeafFact> {
        let packed = *self.segments.get(&(id.0 / SEGMENT_PAGES))?.get((id.0 % SEGMENT_PAGES) as usize)?;
        let fact = LeafFact { entries: packed & ((1 << COUNT_BITS) - 1), born: TxnId(packed >> COUNT_BITS) };
        (packed != 0).then_some(fact)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{PagePtr, TreeId};
    use crate::page::header::PageStamp;
    use crate::page::leaf::{LeafMut, LeafValue, OverflowPtr};

    fn leaf(id: u64, txn: u64, count: usize, overflow: bool) -> Vec<u8> {
        let mut page = vec![0; 4096];
        let stamp = PageStamp::new(PageId(id), TreeId(16), TxnId(txn));
        let mut leaf = LeafMut::init(&mut page, stamp);
        for index in 0..count {
            let value = match overflow && index + 1 == count {
                true => LeafValue::Overflow(OverflowPtr { ptr: PagePtr { id: PageId(9), crc: 1 }, len: 5000 }),
                false => LeafValue::Inline(b"value"),
            };
            assert!(leaf.insert(index, &(index as u32).to_be_bytes(), value).unwrap());
        }
        page
    }

    #[test]
    fn a_fact_is_that_of_the_leaf_that_was_sealed_last() {
        let mut facts = LeafFacts::default();
        let max = crate::ids::MAX_U48;
        for (id, txn, count) in [(7, 3, 5), (7, 4, 200), (5000, 9, 1), (2, max, 1)] {
            facts.note(&leaf(id, txn, count, false), PageId(id));
            assert_eq!(facts.get(PageId(id)), Some(LeafFact { entries: count as u64, born: TxnId(txn) }));
        }
        assert_eq!((facts.get(PageId(8)), facts.get(PageId(1 << 40))), (None, None));
        for (id, page) in [(7, leaf(7, 5, 3, true)), (5000, vec![0; 4096]), (2, leaf(3, 1, 1, false))] {
            facts.note(&page, PageId(id));
            assert_eq!(facts.get(PageId(id)), None);
        }
    }

    #[test]
    fn facts_end_with_the_series_of_commits_and_not_with_an_abort() {
        let mut facts = LeafFacts::default();
        facts.begin(TxnId(5));
        facts.note(&leaf(7, 5, 3, false), PageId(7));
        facts.commit(TxnId(5));
        for (txn, commits, known) in [(6, true, true), (7, false, true), (7, true, true), (9, true, false)] {
            facts.begin(TxnId(txn));
            assert_eq!(facts.get(PageId(7)).is_some(), known, "transaction {txn}");
            if commits {
                facts.commit(TxnId(txn));
            }
        }
        // Another process commits the number that an aborted transaction had.
        facts.begin(TxnId(10));
        facts.note(&leaf(7, 10, 3, false), PageId(7));
        facts.begin(TxnId(11));
        assert_eq!(facts.get(PageId(7)), None);
    }

    #[test]
    fn facts_take_a_bounded_amount_of_memory() {
        let mut facts = LeafFacts::default();
        for segment in 0..SEGMENTS_MAX as u64 + 3 {
            let id = segment * SEGMENT_PAGES + 5;
            facts.note(&leaf(id, 1, 2, false), PageId(id));
            assert!(facts.get(PageId(id)).is_some() && facts.segments.len() <= SEGMENTS_MAX);
        }
        assert_eq!(facts.get(PageId(5)), None);
    }
}
