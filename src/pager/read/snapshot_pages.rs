//! Pages as a snapshot sees them: bounds, and verification on first touch.
//!
//! Floor: pager. A [`SnapshotPages`] is a pin of the read-only mapping plus the page count of one state; it hands out
//! slices of single pages and runs, each checked against the checksum in the pointer that led to it (rule R2).
//!
//! Invariants:
//!   SNAPSHOT-1  no page at or beyond the state's page count is handed out.
//!   SNAPSHOT-2  a page is handed out only if its mark says that this checksum was verified, or after verifying it.
//!   SNAPSHOT-3  a page with a mark has a sound header (`lookup::is_sound`), or this process wrote it.
//!
//! Failure: [`Error::Corrupt`] naming the page, [`Error::Fault`] for one that cannot be read.

use crate::error::{Error, Result};
use crate::ids::{PageId, PagePtr};
use crate::mapping::{ReadMap, VerifiedPages};
use crate::page::layout::Front;
use crate::page::{checksum, lookup};
use crate::pager::PageRead;

/// Read access to the pages of one state.
#[derive(Clone, Debug)]
pub(crate) struct SnapshotPages {
    pages: VerifiedPages,
    page_count: u64,
}

impl SnapshotPages {
    pub(crate) fn new(read_map: ReadMap, page_size: usize, page_count: u64) -> SnapshotPages {
        SnapshotPages { pages: VerifiedPages::new(read_map, page_size.trailing_zeros(), page_count), page_count }
    }

    #[inline]
    pub(crate) fn read_map(&self) -> &ReadMap {
        self.pages.read_map()
    }

    pub(crate) fn into_read_map(self) -> ReadMap {
        self.pages.into_read_map()
    }

    #[inline]
    pub(crate) fn page_shift(&self) -> u32 {
        self.pages.page_shift()
    }

    #[inline]
    pub(crate) fn page_count(&self) -> u64 {
        self.page_count
    }

    /// Hands out a page or a run that nobody has verified yet.
    #[cold]
    #[inline(never)]
    fn first_touch<'a>(&self, ptr: PagePtr, bytes: &'a [u8]) -> Result<&'a [u8]> {
        self.bring(ptr.id, bytes.len())?;
        verify_first_touch(self.read_map(), ptr, bytes)
    }
}

impl PageRead for SnapshotPages {
    #[inline]
    fn page_size(&self) -> usize {
        1 << self.page_shift()
    }

    #[inline]
    fn page(&self, ptr: PagePtr) -> Result<&[u8]> {
        if ptr.id.0 < self.page_count {
            if let Some(bytes) = self.read_map().bytes(ptr.id.0 << self.page_shift(), 1 << self.page_shift()) {
                if self.read_map().verified_byte(ptr.id) == verified_byte_of(ptr.crc) {
                    return Ok(bytes);
                }
                return self.first_touch(ptr, bytes);
            }
        }
        Err(beyond_end(ptr.id, 1, self.page_count))
    }

    #[inline(always)]
    fn front_at_once(&self, ptr: PagePtr) -> Option<&Front> {
        self.pages.verified_front(ptr.id, verified_byte_of(ptr.crc))
    }

    #[inline(always)]
    fn page_at_once(&self, ptr: PagePtr) -> Option<&[u8]> {
        self.pages.verified(ptr.id, verified_byte_of(ptr.crc))
    }

    #[inline]
    fn prefetch(&self, id: PageId, from: usize, bytes: usize) {
        if id.0 < self.page_count {
            self.read_map().prefetch((id.0 << self.page_shift()) + from as u64, bytes);
        }
    }

    fn extent(&self, ptr: PagePtr, pages: u64) -> Result<&[u8]> {
        let bytes = extent_range(ptr.id, pages, self.page_count, self.page_shift())
            .and_then(|(offset, len)| self.read_map().bytes(offset, len))
            .ok_or_else(|| beyond_end(ptr.id, pages, self.page_count))?;
        if self.read_map().verified_byte(ptr.id) == verified_byte_of(ptr.crc) {
            return Ok(bytes);
        }
        self.first_touch(ptr, bytes)
    }

    #[inline]
    fn all_served(&self) -> bool {
        self.read_map().all_served()
    }

    #[cold]
    fn fault(&self) -> Error {
        self.read_map().fault()
    }
}

/// The mark of a page whose verified checksum is `crc`: its low byte, never 0, which means "not verified".
#[inline]
pub(crate) fn verified_byte_of(crc: u32) -> u8 {
    (crc as u8).max(1)
}

/// Byte range of a run inside a state of `page_count` pages.
pub(crate) fn extent_range(id: PageId, pages: u64, page_count: u64, page_shift: u32) -> Option<(u64, usize)> {
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
pub(crate) fn verify_first_touch<'a>(read_map: &ReadMap, ptr: PagePtr, bytes: &'a [u8]) -> Result<&'a [u8]> {
    if ptr.id.0 < 2 {
        // Meta pages change in place: nothing of them is borrowed.
        return Err(Error::corrupt(ptr.id, "a pointer leads to a meta page"));
    }
    if !checksum::matches(bytes, ptr.crc) {
        return Err(Error::corrupt(
            ptr.id,
            format!("checksum mismatch: the pointer to the page says {:#010x}", ptr.crc),
        ));
    }
    // Whoever finds the mark looks at the header no more. A page that lies with the right checksum stays without.
    if lookup::is_sound(bytes, ptr.id) {
        read_map.set_verified(ptr.id, verified_byte_of(ptr.crc));
    }
    Ok(bytes)
}

#[cold]
pub(crate) fn beyond_end(id: PageId, pages: u64, page_count: u64) -> Error {
    Error::corrupt(id, format!("a pointer leads to page {id} ({pages} pages) of a state of {page_count} pages"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mapping::{MapOptions, Mapping};

    #[test]
    fn no_pointer_leads_to_a_meta_slot() {
        let file = tempfile::tempfile().expect("a file");
        let mut page = vec![7; 4096];
        let crc = checksum::seal(&mut page);
        std::io::Write::write_all(&mut &file, &page.repeat(4)).expect("written");
        let options = MapOptions { page_size: 4096, window_bytes: None, fault_guard: true, used_bytes: None };
        let mapping = Mapping::of_file(file, false, options).expect("mapped");
        let pages = SnapshotPages::new(mapping.read_map(), 4096, 4);
        let read = |id| pages.page(PagePtr { id: PageId(id), crc }).map(<[u8]>::len);
        assert!(read(0).is_err() && read(1).is_err());
        assert_eq!(read(2).expect("a page like any other"), 4096);
    }

    #[test]
    fn run_ranges_are_bounded_without_overflow() {
        assert_eq!(extent_range(PageId(2), 3, 5, 12), Some((8192, 12288)));
        assert_eq!(extent_range(PageId(2), 4, 5, 12), None);
        assert_eq!(extent_range(PageId(u64::MAX), 2, 5, 12), None);
        assert_eq!(extent_range(PageId(2), 0, 5, 12), None);
        let far = 1u64 << 33;
        assert_eq!(extent_range(PageId(far), 1, far + 1, 15), Some((far << 15, 32768)));
    }

    #[test]
    fn a_mark_is_never_the_mark_of_an_unverified_page() {
        assert!((0..=u16::MAX).all(|crc| verified_byte_of(u32::from(crc) << 3) != 0));
    }
}
