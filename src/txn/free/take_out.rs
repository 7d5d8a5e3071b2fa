//! Taking pages out of the pending ones that are in use again, when a named snapshot is restored.
//!
//! Floor: txn. Reads all pending records. A record from which pages were taken is saved with the
//! others that the transaction has changed.
//!
//! Failure: errors of the free-space tree.

use crate::error::Result;
use crate::ids::PageId;
use crate::page::free_list::FreeItem;
use crate::pager::read::page_map::PageMap;
use crate::pager::write::txn_pages::TxnPages;
use crate::txn::free::free_records::{next_key, PendingKey, ITEMS_PER_RECORD};
use crate::txn::free::free_tree::FreeCache;
use crate::txn::free::load_extents::pending_record;
use crate::txn::state::Basis;

impl FreeCache {
    /// Takes the wanted pages out of the pending extents. Returns how many there were.
    pub(crate) fn take_out_pending(&mut self, pages: &TxnPages, basis: &Basis, wanted: &PageMap) -> Result<u64> {
        let latest = &basis.latest;
        let mut taken = 0;
        self.recent = without(std::mem::take(&mut self.recent), wanted, &mut taken);
        let mut from = PendingKey::default();
        while let Some((key, items)) = pending_record(pages, &latest.free_space, from, latest.page_count)? {
            from = next_key(key);
            // The tree does not have the changes that this transaction made to the record yet.
            let changed = self.changed_records.iter().position(|(changed, _)| *changed == key);
            let items = match changed {
                Some(index) => self.changed_records.swap_remove(index).1,
                None => items,
            };
            let before = taken;
            let mut left = without(items, wanted, &mut taken);
            if taken > before || changed.is_some() {
                // Extents that were split may be too many for their record.
                self.recent.extend(left.drain(ITEMS_PER_RECORD.min(left.len())..));
                self.changed_records.push((key, left));
            }
        }
        Ok(taken)
    }
}

/// The parts of extents that are not wanted. Adds the pages of the others to `taken`.
fn without(items: Vec<FreeItem>, wanted: &PageMap, taken: &mut u64) -> Vec<FreeItem> {
    let mut left = Vec::with_capacity(items.len());
    for item in items {
        let (mut at, end) = (item.start.0, item.start.0 + item.pages);
        while at < end {
            let is_wanted = wanted.is_taken(PageId(at));
            let run = (at..end).take_while(|&page| wanted.is_taken(PageId(page)) == is_wanted).count() as u64;
            match is_wanted {
                true => *taken += run,
                false => left.push(FreeItem { start: PageId(at), pages: run, ..item }),
            }
            at += run;
        }
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::TxnId;

    #[test]
    fn wanted_pages_are_cut_out_of_extents_and_counted() {
        let item = |start, pages| FreeItem { start: PageId(start), pages, born: TxnId(3), freed: TxnId(9) };
        let mut wanted = PageMap::new(100);
        for (start, pages) in [(10, 2), (14, 1), (19, 5), (40, 1)] {
            wanted.take(PageId(start), pages);
        }
        let mut taken = 0;
        let left = without(vec![item(10, 10), item(24, 3), item(40, 1)], &wanted, &mut taken);
        assert_eq!(left, [item(12, 2), item(15, 4), item(24, 3)]);
        assert_eq!(taken, 2 + 1 + 1 + 1);
    }
}
