//! Pages of a file that is not mapped. Each is read into a buffer of the caller.
//!
//! Floor: pager. For files that may be cut or unreadable in places. A mapping would raise SIGBUS
//! there; here a missing page is an error of the call that reads it. Nothing is cached.
//!
//! Invariants:
//!   FILE-1  The file is never written.
//!   FILE-2  [`FilePages::page`] and [`FilePages::extent`] return bytes that were verified against
//!       their pointer (R2).
//!
//! Failure: [`Error::Corrupt`] with the page: it is past the end of the file, cannot be read, or
//! does not match its pointer.

use std::fs::File;

use crate::error::{Error, Result};
use crate::ids::{PageId, PagePtr};
use crate::mapping::file as files;
use crate::page::checksum::{self, Running};
use crate::page::header::Header;

/// Bytes per read while an extent is only verified.
const CHUNK_BYTES: usize = 1 << 20;

/// An extent longer than this is verified in chunks before a buffer is allocated for it: a damaged
/// length must not cost memory.
const LARGE_EXTENT_BYTES: usize = 64 << 20;

/// The pages of a file.
#[derive(Debug)]
pub(crate) struct FilePages<'f> {
    file: &'f File,
    page_size: usize,
    /// Length of the file, in bytes.
    len: u64,
}

impl<'f> FilePages<'f> {
    pub(crate) fn new(file: &'f File, page_size: usize, len: u64) -> FilePages<'f> {
        FilePages { file, page_size, len }
    }

    pub(crate) fn page_size(&self) -> usize {
        self.page_size
    }

    /// Number of pages that lie completely inside the file.
    pub(crate) fn page_count(&self) -> u64 {
        self.len / self.page_size as u64
    }

    /// Reads a page without verifying it. The buffer gets exactly the page's length.
    pub(crate) fn raw_page(&self, id: PageId, into: &mut Vec<u8>) -> Result<()> {
        self.inside(id, 1)?;
        into.resize(self.page_size, 0);
        self.read(id, 0, into)
    }

    /// The first page from `id` on that contains data, not only a hole; `None` at the end of the
    /// file.
    pub(crate) fn next_data(&self, id: PageId) -> Option<PageId> {
        let data = files::next_data(self.file, id.0.checked_mul(self.page_size as u64)?)?;
        Some(id.max(PageId(data / self.page_size as u64)))
    }

    /// Number of pages for which the disk has allocated blocks, as reported by the kernel.
    pub(crate) fn allocated(&self) -> u64 {
        files::allocated_bytes(self.file).map_or(self.page_count(), |bytes| bytes / self.page_size as u64)
    }

    /// Reads and verifies the page that `ptr` refers to.
    pub(crate) fn page(&self, ptr: PagePtr, into: &mut Vec<u8>) -> Result<()> {
        self.raw_page(ptr.id, into)?;
        verified(ptr, checksum::stored(into), checksum::compute(into))
    }

    /// Reads and verifies an overflow extent. The buffer gets exactly its length.
    pub(crate) fn extent(&self, ptr: PagePtr, pages: u64, into: &mut Vec<u8>) -> Result<()> {
        self.inside(ptr.id, pages)?;
        // `inside` has bounded the extent by the file's length, but a file with holes may be longer
        // than memory.
        let bytes = (pages * self.page_size as u64) as usize;
        if bytes > LARGE_EXTENT_BYTES {
            self.verify_extent(ptr, pages)?;
        }
        into.clear();
        into.try_reserve_exact(bytes).map_err(|_| Error::corrupt(ptr.id, "a value too large for memory"))?;
        into.resize(bytes, 0);
        self.read(ptr.id, 0, into)?;
        verified(ptr, checksum::stored(into), checksum::compute(into))
    }

    /// Verifies an overflow extent in chunks, without a buffer for all of it, and returns its
    /// header.
    pub(crate) fn verify_extent(&self, ptr: PagePtr, pages: u64) -> Result<Header> {
        self.inside(ptr.id, pages)?;
        let bytes = pages * self.page_size as u64;
        let mut chunk = vec![0; (bytes as usize).min(CHUNK_BYTES)];
        let (mut running, mut header, mut stored, mut at) = (Running::default(), None, 0, 0);
        while at < bytes {
            let now = ((bytes - at) as usize).min(chunk.len());
            let chunk = &mut chunk[..now];
            self.read(ptr.id, at, chunk)?;
            if at == 0 {
                stored = checksum::stored(chunk);
                header = Some(Header::read(chunk, ptr.id)?);
            }
            running.add(chunk);
            at += now as u64;
        }
        verified(ptr, stored, running.finish())?;
        header.ok_or_else(|| Error::corrupt(ptr.id, "an extent without pages"))
    }

    /// Checks that pages lie completely inside the file.
    fn inside(&self, id: PageId, pages: u64) -> Result<()> {
        let end = id.0.checked_add(pages).filter(|_| pages > 0);
        match end {
            Some(end) if id.0 >= 2 && end <= self.page_count() => Ok(()),
            _ if id.0 < 2 => Err(Error::corrupt(id, "a pointer leads to a meta page")),
            _ => Err(Error::corrupt(id, format!("lies past the end of the file, which has {} bytes", self.len))),
        }
    }

    fn read(&self, id: PageId, from: u64, into: &mut [u8]) -> Result<()> {
        let offset = id.0 * self.page_size as u64 + from;
        files::read_at(self.file, into, offset).map_err(|e| Error::corrupt(id, format!("cannot be read: {e}")))
    }
}

fn verified(ptr: PagePtr, stored: u32, computed: u32) -> Result<()> {
    if stored == ptr.crc && computed == ptr.crc {
        return Ok(());
    }
    let what = format!("checksum: pointer {:#x}, header {stored:#x}, computed {computed:#x}", ptr.crc);
    Err(Error::corrupt(ptr.id, what))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt as _;

    use super::*;
    use crate::ids::{TreeId, TxnId};
    use crate::page::header::PageStamp;
    use crate::page::overflow;

    #[test]
    fn an_overflow_extent_verified_in_chunks_gives_the_same_result_as_at_once() {
        let (page_size, id, len) = (4096, PageId(2), 3 << 20);
        let value: Vec<u8> = (0..len).map(|n| (n % 251) as u8).collect();
        let pages = overflow::overflow_pages(page_size, len as u64);
        let mut extent = vec![0; pages as usize * page_size];
        let crc = overflow::write(&mut extent, page_size, PageStamp::new(id, TreeId(16), TxnId(3)), &value);
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&extent, 2 * page_size as u64).unwrap();
        let whole = FilePages::new(&file, page_size, 2 * page_size as u64 + extent.len() as u64);
        let ptr = PagePtr { id, crc };
        assert_eq!(whole.verify_extent(ptr, pages).unwrap().extent_pages(), pages);
        let mut read = Vec::new();
        whole.extent(ptr, pages, &mut read).unwrap();
        assert_eq!(read, extent);
        assert!(whole.verify_extent(PagePtr { id, crc: crc ^ 1 }, pages).is_err());
        assert!(whole.verify_extent(ptr, pages + 1).is_err());
        for at in [40, CHUNK_BYTES + 7, extent.len() - 1] {
            let offset = (2 * page_size + at) as u64;
            file.write_all_at(&[extent[at] ^ 4], offset).unwrap();
            assert!(whole.verify_extent(ptr, pages).is_err(), "byte {at}");
            assert!(whole.extent(ptr, pages, &mut read).is_err(), "byte {at}");
            file.write_all_at(&[extent[at]], offset).unwrap();
        }
    }

    #[test]
    fn pages_outside_the_file_are_errors() {
        let file = tempfile::tempfile().unwrap();
        let pages = FilePages::new(&file, 4096, 3 * 4096 + 100);
        let mut page = Vec::new();
        for id in [0, 1, 3, u64::MAX] {
            assert!(pages.raw_page(PageId(id), &mut page).is_err(), "{id}");
        }
        // Inside the file's recorded length, but cut off since.
        assert!(pages.raw_page(PageId(2), &mut page).is_err());
    }
}
