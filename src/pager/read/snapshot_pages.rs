//! Pages of a committed state: bounds checks, and verification on first touch.
//!
//! Floor: pager. A [`SnapshotPages`] pins the read-only mapping and knows the page count of one
//! state. It returns slices of single pages and overflow extents, each verified against the
//! checksum in its pointer (R2).
//!
//! Invariants:
//!   SNAPSHOT-1  No page at or past the state's page count is returned.
//!   SNAPSHOT-2  A page is returned only if its verified byte matches the checksum of the pointer,
//!       or after verifying it.
//!   SNAPSHOT-3  A page whose verified byte is not 0 has a sound header (`lookup::is_sound`), or
//!       this process wrote it.
//!
//! Failure: [`Error::Corrupt`] with the page, [`Error::Fault`] for a page that cannot be read.

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

    /// Returns a page or an extent that this process has not verified yet.
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
    fn front_fast(&self, ptr: PagePtr) -> Option<&Front> {
        self.pages.verified_front(ptr.id, verified_byte_of(ptr.crc))
    }

    #[inline(always)]
    fn page_fast(&self, ptr: PagePtr) -> Option<&[u8]> {
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

/// The verified byte of a page with checksum `crc`: its low byte, but never 0, which means "not
/// verified".
#[inline]
pub(crate) fn verified_byte_of(crc: u32) -> u8 {
    (crc as u8).max(1)
}

/// The byte range of an extent inside a state of `page_count` pages.
pub(crate) fn extent_range(id: PageId, pages: u64, page_count: u64, page_shift: u32) -> Option<(u64, usize)> {
    let end = id.0.checked_add(pages)?;
    if end > page_count || pages == 0 {
        return None;
    }
    Some((id.0 << page_shift, usize::try_from(pages << page_shift).ok()?))
}

/// Verifies bytes against their pointer and sets the verified byte. The caller has brought them
/// into memory with a system call, so that an unreadable page is an error of this call and not a
/// SIGBUS.
#[cold]
#[inline(never)]
pub(crate) fn verify_first_touch<'a>(read_map: &ReadMap, ptr: PagePtr, bytes: &'a [u8]) -> Result<&'a [u8]> {
    if ptr.id.0 < 2 {
        // Meta pages are overwritten in place, so their bytes must not be borrowed.
        return Err(Error::corrupt(ptr.id, "a pointer leads to a meta page"));
    }
    if !checksum::matches(bytes, ptr.crc) {
        return Err(Error::corrupt(
            ptr.id,
            format!("checksum mismatch: the pointer to the page says {:#010x}", ptr.crc),
        ));
    }
    // Readers do not check the header of a verified page again. A page with a matching checksum but
    // an unsound header stays unverified.
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
    fn a_pointer_to_a_meta_page_is_refused() {
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
    fn extent_range_checks_bounds_without_integer_overflow() {
        assert_eq!(extent_range(PageId(2), 3, 5, 12), Some((8192, 12288)));
        assert_eq!(extent_range(PageId(2), 4, 5, 12), None);
        assert_eq!(extent_range(PageId(u64::MAX), 2, 5, 12), None);
        assert_eq!(extent_range(PageId(2), 0, 5, 12), None);
        let far = 1u64 << 33;
        assert_eq!(extent_range(PageId(far), 1, far + 1, 15), Some((far << 15, 32768)));
    }

    #[test]
    fn the_byte_of_a_verified_page_is_never_zero() {
        assert!((0..=u16::MAX).all(|crc| verified_byte_of(u32::from(crc) << 3) != 0));
    }
}
