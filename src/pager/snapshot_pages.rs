//! Pages as a snapshot sees them: bounds, and verification on first touch.
//!
//! Floor: pager. A [`SnapshotPages`] is a pin of the read-only mapping plus the page count of one state; it hands out
//! slices of single pages and runs, each checked against the checksum in the pointer that led to it (rule R2).
//!
//! Invariants:
//!   S1  no page at or beyond the state's page count is handed out.
//!   S2  a page is handed out only if its mark says that this checksum was verified, or after verifying it.
//!
//! Failure: [`Error::Corrupt`] naming the page, [`Error::Fault`] for one that cannot be read.

use crate::error::{Error, Result};
use crate::ids::{PageId, PagePtr};
use crate::mapping::View;
use crate::page::checksum;
use crate::pager::{Around, PageRead};

/// Read access to the pages of one state.
#[derive(Clone, Debug)]
pub(crate) struct SnapshotPages {
    view: View,
    page_shift: u32,
    page_count: u64,
}

impl SnapshotPages {
    pub(crate) fn new(view: View, page_size: usize, page_count: u64) -> SnapshotPages {
        SnapshotPages { view, page_shift: page_size.trailing_zeros(), page_count }
    }

    /// Hands out a page or a run that nobody has verified yet.
    /// Gives runs that are not needed soon back to the system: they leave memory, unless somebody else holds them there. Sorts
    /// them.
    pub(crate) fn give_back(&self, runs: &mut [(PageId, u64)]) {
        runs.sort_unstable();
        joined(runs.iter().copied(), |id, pages| {
            if let Some((offset, len)) = run_range(id, pages, self.page_count, self.page_shift) {
                self.view.give_back(offset, len as u64);
            }
        });
    }

    fn end_bytes(&self) -> u64 {
        self.page_count << self.page_shift
    }

    #[cold]
    #[inline(never)]
    fn first_touch<'a>(&self, ptr: PagePtr, bytes: &'a [u8]) -> Result<&'a [u8]> {
        let offset = ptr.id.0 << self.page_shift;
        self.view.touch(offset, self.end_bytes());
        self.view.probe(offset, bytes.len())?;
        verify_first_touch(&self.view, ptr, bytes)
    }
}

impl PageRead for SnapshotPages {
    #[inline]
    fn page_size(&self) -> usize {
        1 << self.page_shift
    }

    #[inline]
    fn page(&self, ptr: PagePtr) -> Result<&[u8]> {
        if ptr.id.0 < self.page_count {
            if let Some(bytes) = self.view.bytes(ptr.id.0 << self.page_shift, 1 << self.page_shift) {
                if self.view.mark(ptr.id) == mark_of(ptr.crc) {
                    return Ok(bytes);
                }
                return self.first_touch(ptr, bytes);
            }
        }
        Err(beyond_end(ptr.id, 1, self.page_count))
    }

    #[inline(always)]
    fn page_at_once(&self, ptr: PagePtr) -> Option<&[u8]> {
        if ptr.id.0 >= self.page_count {
            return None;
        }
        let bytes = self.view.bytes(ptr.id.0 << self.page_shift, 1 << self.page_shift)?;
        (self.view.mark(ptr.id) == mark_of(ptr.crc)).then_some(bytes)
    }

    #[inline]
    fn prefetch(&self, id: PageId, from: usize, bytes: usize) {
        if id.0 < self.page_count {
            self.view.prefetch((id.0 << self.page_shift) + from as u64, bytes);
        }
    }

    fn run(&self, ptr: PagePtr, pages: u64) -> Result<&[u8]> {
        let bytes = run_range(ptr.id, pages, self.page_count, self.page_shift)
            .and_then(|(offset, len)| self.view.bytes(offset, len))
            .ok_or_else(|| beyond_end(ptr.id, pages, self.page_count))?;
        if self.view.mark(ptr.id) == mark_of(ptr.crc) {
            return Ok(bytes);
        }
        if pages > 1 {
            // All of it is needed: better asked for at once than waited for page by page.
            self.view.request(ptr.id.0 << self.page_shift, bytes.len() as u64);
        }
        self.first_touch(ptr, bytes)
    }

    #[inline]
    fn intact(&self) -> bool {
        self.view.intact()
    }

    #[inline]
    fn is_known(&self, id: PageId) -> bool {
        self.view.mark(id) != 0
    }

    fn reads_ahead(&self) -> bool {
        self.view.reads_ahead()
    }

    fn is_resident(&self, id: PageId, pages: u64) -> bool {
        run_range(id, pages, self.page_count, self.page_shift)
            .is_none_or(|(offset, len)| self.view.is_resident(offset, len as u64))
    }

    fn may_be_gone(&self) -> bool {
        self.view.reads_ahead() && !self.view.reads_around(self.end_bytes())
    }

    fn at_once(&self, id: PageId, pages: u64) -> Result<()> {
        // One that leads nowhere is an error of the reading that follows.
        let Some((offset, len)) = run_range(id, pages, self.page_count, self.page_shift) else { return Ok(()) };
        if self.view.is_at_hand(offset, len as u64) {
            return Ok(());
        }
        self.view.request(offset, len as u64);
        self.view.touch(offset, self.end_bytes());
        Err(Error::WouldBlock { path: None, table: None, page: id })
    }

    fn request(&self, ids: &mut [PageId], around: Around) {
        ids.sort_unstable();
        let end = self.end_bytes();
        let fits = around != Around::None && self.view.reads_around(end);
        if fits && (around == Around::Each || self.view.is_read_here_and_there(ids.len(), self.page_count)) {
            for id in ids.iter().filter(|id| id.0 < self.page_count) {
                self.view.touch(id.0 << self.page_shift, end);
            }
            return;
        }
        let asked = |id: &&PageId| fits && self.view.was_looked_at(id.0 << self.page_shift);
        let runs = ids.iter().filter(|id| !asked(id)).map(|&id| (id, 1));
        joined(runs, |id, pages| {
            if let Some((offset, len)) = run_range(id, pages, self.page_count, self.page_shift) {
                self.view.request(offset, len as u64);
            }
        });
    }

    fn snapshot(&self) -> Option<SnapshotPages> {
        Some(self.clone())
    }

    #[cold]
    fn fault(&self) -> Error {
        self.view.fault()
    }
}

/// Joins runs that follow each other, in ascending order.
fn joined(mut runs: impl Iterator<Item = (PageId, u64)>, mut give: impl FnMut(PageId, u64)) {
    let Some((mut start, mut pages)) = runs.next() else { return };
    for (id, more) in runs {
        if id.0 <= start.0.saturating_add(pages) {
            pages = pages.max((id.0 - start.0).saturating_add(more));
        } else {
            give(start, pages);
            (start, pages) = (id, more);
        }
    }
    give(start, pages);
}

/// The mark of a page whose verified checksum is `crc`: its low byte, never 0, which means "not verified".
#[inline]
pub(crate) fn mark_of(crc: u32) -> u8 {
    (crc as u8).max(1)
}

/// Byte range of a run inside a state of `page_count` pages.
pub(crate) fn run_range(id: PageId, pages: u64, page_count: u64, page_shift: u32) -> Option<(u64, usize)> {
    let end = id.0.checked_add(pages)?;
    if end > page_count || pages == 0 {
        return None;
    }
    Some((id.0 << page_shift, usize::try_from(pages << page_shift).ok()?))
}

/// Verifies bytes against the pointer that led to them and remembers it. The caller has brought them into memory by a
/// call, so that a page which cannot be read is an error of whoever needs it, and of nobody else.
#[cold]
#[inline(never)]
pub(crate) fn verify_first_touch<'a>(view: &View, ptr: PagePtr, bytes: &'a [u8]) -> Result<&'a [u8]> {
    if !checksum::matches(bytes, ptr.crc) {
        return Err(Error::corrupt(
            ptr.id,
            format!("checksum mismatch: the pointer to the page says {:#010x}", ptr.crc),
        ));
    }
    view.set_mark(ptr.id, mark_of(ptr.crc));
    Ok(bytes)
}

#[cold]
pub(crate) fn beyond_end(id: PageId, pages: u64, page_count: u64) -> Error {
    Error::corrupt(id, format!("a pointer leads to page {id} ({pages} pages) of a state of {page_count} pages"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn run_ranges_are_bounded_without_overflow() {
        assert_eq!(run_range(PageId(2), 3, 5, 12), Some((8192, 12288)));
        assert_eq!(run_range(PageId(2), 4, 5, 12), None);
        assert_eq!(run_range(PageId(u64::MAX), 2, 5, 12), None);
        assert_eq!(run_range(PageId(2), 0, 5, 12), None);
        let far = 1u64 << 33;
        assert_eq!(run_range(PageId(far), 1, far + 1, 15), Some((far << 15, 32768)));
    }

    #[test]
    fn a_mark_is_never_the_mark_of_an_unverified_page() {
        assert!((0..=u16::MAX).all(|crc| mark_of(u32::from(crc) << 3) != 0));
    }
}
