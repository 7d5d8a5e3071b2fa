//! Residency: which pages are in memory, which to read ahead, and which to release.
//!
//! Floor: pager. Trees use the trait [`Residency`]. Everything here is a hint: a read without it
//! returns the same bytes, only later. [`SnapshotPages`] implements it for files; the default
//! methods, for all other pages, say that everything is in memory.
//!
//! Invariants:
//!   RESIDENCY-1  No page at or past the end of the state is requested or released.
//!
//! Failure: [`Error::Fault`] from [`FirstTouch::bring`], for a page that cannot be read.

use crate::error::{Error, Result};
use crate::ids::PageId;
use crate::mapping::{ReadMap, CHUNK_BYTES};
use crate::pager::read::snapshot_pages::{extent_range, SnapshotPages};

/// Whether pages are in memory, and how to bring them there.
pub(crate) trait Residency {
    /// Whether this process has verified the page before, so that it was in memory then. A hint.
    #[inline]
    fn is_known(&self, _id: PageId) -> bool {
        true
    }

    /// Whether pages should be requested before they are needed.
    fn reads_ahead(&self) -> bool {
        false
    }

    /// Whether a whole extent is in memory or being read. Costs a system call. A hint.
    fn is_resident(&self, _id: PageId, _pages: u64) -> bool {
        true
    }

    /// Whether the kernel may have dropped verified pages, because the file does not fit in memory.
    fn may_be_gone(&self) -> bool {
        false
    }

    /// Returns [`Error::WouldBlock`] if an extent is not in memory, and requests it then. May cost
    /// a system call.
    fn at_once(&self, _id: PageId, _pages: u64) -> Result<()> {
        Ok(())
    }

    /// Starts reading several pages that will be needed soon, without waiting. Sorts `ids`.
    fn request(&self, _ids: &mut [PageId], _around: Around) {}

    /// The pages of the committed state, for callers that release memory; `None` if no memory can
    /// be released.
    fn snapshot(&self) -> Option<SnapshotPages> {
        None
    }
}

/// Which neighbours [`Residency::request`] also reads, if the whole file fits in memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Around {
    /// No neighbours.
    None,
    /// No neighbours until many random pages were requested, then those of each page: from there
    /// on, reading the rest of the file sequentially is faster.
    Some,
    /// The neighbours of each page.
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
        // A pointer out of bounds is an error of the read that follows.
        let Some((offset, len)) = extent_range(id, pages, self.page_count(), self.page_shift()) else { return Ok(()) };
        if self.read_map().is_in_memory(offset, len as u64) {
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
            && (around == Around::Each || self.read_map().ahead().counts_as_scan(ids.len() as u64, self.page_count()))
        {
            for id in ids.iter().filter(|id| id.0 < self.page_count()) {
                self.read_map().ahead().touch(id.0 << self.page_shift(), end);
            }
            return;
        }
        let asked = |id: &&PageId| fits && self.read_map().ahead().was_examined(id.0 << self.page_shift());
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
    /// Brings a page or an extent into memory before its first touch.
    pub(crate) fn bring(&self, id: PageId, len: usize) -> Result<()> {
        let first_touch = FirstTouch {
            read_map: self.read_map(),
            offset: id.0 << self.page_shift(),
            len,
            is_extent: len > 1 << self.page_shift(),
            end: self.end_bytes(),
        };
        first_touch.bring()
    }

    /// Tells the kernel that extents are not needed soon. It drops them from memory unless another
    /// process uses them. Sorts `extents`.
    pub(crate) fn give_back(&self, extents: &mut [(PageId, u64)]) {
        extents.sort_unstable();
        joined(extents.iter().copied(), |id, pages| {
            if let Some((offset, len)) = extent_range(id, pages, self.page_count(), self.page_shift()) {
                self.read_map().release(offset, len as u64);
            }
        });
    }

    fn end_bytes(&self) -> u64 {
        self.page_count() << self.page_shift()
    }
}

/// The first touch of a page or an extent of a state that ends at `end`.
pub(crate) struct FirstTouch<'a> {
    pub(crate) read_map: &'a ReadMap,
    pub(crate) offset: u64,
    pub(crate) len: usize,
    pub(crate) is_extent: bool,
    pub(crate) end: u64,
}

impl FirstTouch<'_> {
    /// Brings the page or the extent into memory.
    pub(crate) fn bring(&self) -> Result<()> {
        let FirstTouch { read_map, offset, len, is_extent, end } = *self;
        let ahead = read_map.ahead();
        if is_extent {
            // All of the extent is needed: one request is faster than a fault for each page.
            ahead.request(offset, len as u64);
            ahead.touch(offset, end);
        } else if read_map.has_fault_guard() && ahead.was_loaded(offset, end) {
            return Ok(());
        } else if ahead.touch(offset, end) {
            let chunk = ahead.chunk_to_load(offset, end).filter(|_| read_map.has_fault_guard());
            if let Some(from) = chunk {
                let all = read_map.probe(from, CHUNK_BYTES as usize).is_ok();
                ahead.note_loaded(offset, all);
                if all {
                    return Ok(());
                }
            }
        } else {
            // A page that is requested first arrives sooner than one that only `probe` reads (60 us
            // instead of 67 us on a virtual disk).
            ahead.request(offset, len as u64);
        }
        read_map.probe(offset, len)
    }
}

/// Joins extents that touch or overlap, in ascending order.
fn joined(mut extents: impl Iterator<Item = (PageId, u64)>, mut emit: impl FnMut(PageId, u64)) {
    let Some((mut start, mut pages)) = extents.next() else { return };
    for (id, more) in extents {
        if id.0 <= start.0.saturating_add(pages) {
            pages = pages.max((id.0 - start.0).saturating_add(more));
        } else {
            emit(start, pages);
            (start, pages) = (id, more);
        }
    }
    emit(start, pages);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extents_that_touch_or_overlap_are_joined() {
        let mut given = Vec::new();
        let extents = [(1, 1), (2, 3), (4, 1), (5, 2), (9, 1), (9, 1), (11, 1)].map(|(id, pages)| (PageId(id), pages));
        joined(extents.into_iter(), |id, pages| given.push((id.0, pages)));
        assert_eq!(given, [(1, 6), (9, 1), (11, 1)]);
        joined(std::iter::empty(), |id, _| panic!("{id}"));
    }
}
