//! Pages and memory: which are there, which are asked for before they are needed, and which go again.
//!
//! Floor: pager. [`Residency`] is what trees see of it. All of it is advice: whoever reads a page without it gets the same,
//! later. Only the pages of a committed state in a file have an answer of their own; to all others the defaults apply, which say
//! that everything is in memory.
//!
//! Invariants:
//!   RESIDENCY-1  nothing at or behind the end of the state is asked for or given back.
//!
//! Failure: [`Error::Fault`] from [`SnapshotPages::bring`] alone, for a page that cannot be read.

use crate::error::{Error, Result};
use crate::ids::PageId;
use crate::mapping::CHUNK_BYTES;
use crate::pager::read::snapshot_pages::{extent_range, SnapshotPages};

/// Whether pages are in memory, and how they come there.
pub(crate) trait Residency {
    /// Whether a page was verified by this process, so that it was in memory once. A hint.
    #[inline]
    fn is_known(&self, _id: PageId) -> bool {
        true
    }

    /// Whether pages are to be asked for before they are needed.
    fn reads_ahead(&self) -> bool {
        false
    }

    /// Whether all of a run is in memory, or on its way there; asks the system. A hint.
    fn is_resident(&self, _id: PageId, _pages: u64) -> bool {
        true
    }

    /// Whether what lies in memory of a committed state may have gone since it was read, as the file does not fit.
    fn may_be_gone(&self) -> bool {
        false
    }

    /// [`Error::WouldBlock`] if a run is not in memory; it is asked for then. Asks the system.
    fn at_once(&self, _id: PageId, _pages: u64) -> Result<()> {
        Ok(())
    }

    /// Asks for pages that will be read soon, together, and waits for none. Sorts them.
    fn request(&self, _ids: &mut [PageId], _around: Around) {}

    /// The pages of a committed state, for who gives pages back; `None` where there is nothing to give back to.
    fn snapshot(&self) -> Option<SnapshotPages> {
        None
    }
}

/// What [`Residency::request`] also asks for where the whole file fits in memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Around {
    /// Nothing else.
    None,
    /// Nothing else until so many pages were asked for here and there that the rest of the file is better read in its order.
    Some,
    /// What is around each of the pages.
    Each,
}

impl Residency for SnapshotPages {
    #[inline]
    fn is_known(&self, id: PageId) -> bool {
        self.read_map().verified_byte(id) != 0
    }

    fn reads_ahead(&self) -> bool {
        self.read_map().ahead().reads()
    }

    fn is_resident(&self, id: PageId, pages: u64) -> bool {
        extent_range(id, pages, self.page_count(), self.page_shift())
            .is_none_or(|(offset, len)| self.read_map().ahead().is_resident(offset, len as u64))
    }

    fn may_be_gone(&self) -> bool {
        self.read_map().ahead().reads() && !self.read_map().ahead().reads_around(self.end_bytes())
    }

    fn at_once(&self, id: PageId, pages: u64) -> Result<()> {
        // One that leads nowhere is an error of the reading that follows.
        let Some((offset, len)) = extent_range(id, pages, self.page_count(), self.page_shift()) else { return Ok(()) };
        if self.read_map().is_at_hand(offset, len as u64) {
            return Ok(());
        }
        self.read_map().ahead().request(offset, len as u64);
        self.read_map().ahead().touch(offset, self.end_bytes());
        Err(Error::WouldBlock { path: None, table: None, page: id })
    }

    fn request(&self, ids: &mut [PageId], around: Around) {
        ids.sort_unstable();
        let end = self.end_bytes();
        let fits = around != Around::None && self.read_map().ahead().reads_around(end);
        if fits
            && (around == Around::Each
                || self.read_map().ahead().is_read_here_and_there(ids.len() as u64, self.page_count()))
        {
            for id in ids.iter().filter(|id| id.0 < self.page_count()) {
                self.read_map().ahead().touch(id.0 << self.page_shift(), end);
            }
            return;
        }
        let asked = |id: &&PageId| fits && self.read_map().ahead().was_looked_at(id.0 << self.page_shift());
        let extents = ids.iter().filter(|id| !asked(id)).map(|&id| (id, 1));
        joined(extents, |id, pages| {
            if let Some((offset, len)) = extent_range(id, pages, self.page_count(), self.page_shift()) {
                self.read_map().ahead().request(offset, len as u64);
            }
        });
    }

    fn snapshot(&self) -> Option<SnapshotPages> {
        Some(self.clone())
    }
}

impl SnapshotPages {
    /// Brings a page or a run into memory before it is touched for the first time.
    pub(crate) fn bring(&self, id: PageId, len: usize) -> Result<()> {
        let (offset, end, ahead) = (id.0 << self.page_shift(), self.end_bytes(), self.read_map().ahead());
        if len > 1 << self.page_shift() {
            // All of it is needed: better asked for at once than waited for page by page.
            ahead.request(offset, len as u64);
            ahead.touch(offset, end);
        } else if self.read_map().has_fault_guard() && ahead.was_brought(offset, end) {
            return Ok(());
        } else if ahead.touch(offset, end) {
            let chunk = ahead.chunk_to_bring(offset, end).filter(|_| self.read_map().has_fault_guard());
            if let Some(from) = chunk {
                let all = self.read_map().probe(from, CHUNK_BYTES as usize).is_ok();
                ahead.note_brought(offset, all);
                if all {
                    return Ok(());
                }
            }
        } else {
            // A page that is asked for comes sooner than one that is waited for while it is prefaulted (60 us and 67 us, virtual
            // disk).
            ahead.request(offset, len as u64);
        }
        self.read_map().probe(offset, len)
    }

    /// Gives runs that are not needed soon back to the system: they leave memory, unless somebody else holds them there. Sorts
    /// them.
    pub(crate) fn give_back(&self, extents: &mut [(PageId, u64)]) {
        extents.sort_unstable();
        joined(extents.iter().copied(), |id, pages| {
            if let Some((offset, len)) = extent_range(id, pages, self.page_count(), self.page_shift()) {
                self.read_map().give_back(offset, len as u64);
            }
        });
    }

    fn end_bytes(&self) -> u64 {
        self.page_count() << self.page_shift()
    }
}

/// Joins runs that follow each other, in ascending order.
fn joined(mut extents: impl Iterator<Item = (PageId, u64)>, mut give: impl FnMut(PageId, u64)) {
    let Some((mut start, mut pages)) = extents.next() else { return };
    for (id, more) in extents {
        if id.0 <= start.0.saturating_add(pages) {
            pages = pages.max((id.0 - start.0).saturating_add(more));
        } else {
            give(start, pages);
            (start, pages) = (id, more);
        }
    }
    give(start, pages);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_that_follow_each_other_are_joined() {
        let mut given = Vec::new();
        let extents = [(1, 1), (2, 3), (4, 1), (5, 2), (9, 1), (9, 1), (11, 1)].map(|(id, pages)| (PageId(id), pages));
        joined(extents.into_iter(), |id, pages| given.push((id.0, pages)));
        assert_eq!(given, [(1, 6), (9, 1), (11, 1)]);
        joined(std::iter::empty(), |id, _| panic!("{id}"));
    }
}
