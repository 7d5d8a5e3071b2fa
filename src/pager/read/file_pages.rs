//! Pages of a file that nothing is mapped from: read one at a time, into buffers of the caller.
//!
//! Floor: pager. For files that may be cut or unreadable in places, where a mapping would answer with a signal: what is
//! not there is an error of the call that asked for it. Nothing is kept, so memory is what the caller holds.
//!
//! Invariants:
//!   FILE-1  the file is never written.
//!   FILE-2  what [`FilePages::page`] and [`FilePages::extent`] give was verified against its pointer (R2).
//!
//! Failure: [`Error::Corrupt`] that names the page: behind the end of the file, unreadable, or not what its pointer says.

use std::fs::File;

use crate::error::{Error, Result};
use crate::ids::{PageId, PagePtr};
use crate::mapping::file as files;
use crate::page::checksum::{self, Running};
use crate::page::header::Header;

/// Bytes that are read at once of a run that is only verified.
const CHUNK_BYTES: usize = 1 << 20;

/// A run longer than this is verified before memory is asked for.
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

    /// Pages that lie inside the file as a whole.
    pub(crate) fn page_count(&self) -> u64 {
        self.len / self.page_size as u64
    }

    /// Reads a page as it lies in the file, unverified. The buffer becomes exactly the page.
    pub(crate) fn raw_page(&self, id: PageId, into: &mut Vec<u8>) -> Result<()> {
        self.inside(id, 1)?;
        into.resize(self.page_size, 0);
        self.read(id, 0, into)
    }

    /// The first page from `id` on that does not lie in a hole as a whole; `None` when there is none.
    pub(crate) fn next_data(&self, id: PageId) -> Option<PageId> {
        let data = files::next_data(self.file, id.0.checked_mul(self.page_size as u64)?)?;
        Some(id.max(PageId(data / self.page_size as u64)))
    }

    /// Pages that the file has on the disk, as far as the system can say.
    pub(crate) fn allocated(&self) -> u64 {
        files::allocated_bytes(self.file).map_or(self.page_count(), |bytes| bytes / self.page_size as u64)
    }

    /// Reads the page behind a pointer.
    pub(crate) fn page(&self, ptr: PagePtr, into: &mut Vec<u8>) -> Result<()> {
        self.raw_page(ptr.id, into)?;
        verified(ptr, checksum::stored(into), checksum::compute(into))
    }

    /// Reads a whole run. The buffer becomes exactly the run.
    pub(crate) fn extent(&self, ptr: PagePtr, pages: u64, into: &mut Vec<u8>) -> Result<()> {
        self.inside(ptr.id, pages)?;
        // No longer than the file, which `inside` has seen to; but a file with holes may say to be longer than memory.
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

    /// Verifies a run without holding it, and gives its header.
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
        header.ok_or_else(|| Error::corrupt(ptr.id, "a run without pages"))
    }

    /// Refuses pages that do not lie inside the file as a whole.
    fn inside(&self, id: PageId, pages: u64) -> Result<()> {
        let end = id.0.checked_add(pages).filter(|_| pages > 0);
        match end {
            Some(end) if id.0 >= 2 && end <= self.page_count() => Ok(()),
            _ if id.0 < 2 => Err(Error::corrupt(id, "a pointer leads to a meta page")),
            _ => Err(Error::corrupt(id, format!("lies behind the end of the file, which has {} bytes", self.len))),
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
    use crate::page::overflow;

    #[test]
    fn a_run_is_verified_in_pieces_as_in_one() {
        let (page_size, id, len) = (4096, PageId(2), 3 << 20);
        let value: Vec<u8> = (0..len).map(|n| (n % 251) as u8).collect();
        let pages = overflow::overflow_pages(page_size, len as u64);
        let mut extent = vec![0; pages as usize * page_size];
        let crc = overflow::write(&mut extent, page_size, id, TreeId(16), TxnId(3), &value);
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&extent, 2 * page_size as u64).unwrap();
        let whole = FilePages::new(&file, page_size, 2 * page_size as u64 + extent.len() as u64);
        let ptr = PagePtr { id, crc };
        assert_eq!(whole.verify_extent(ptr, pages).unwrap().overflow_pages(), pages);
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
    fn what_is_not_in_the_file_is_an_error() {
        let file = tempfile::tempfile().unwrap();
        let pages = FilePages::new(&file, 4096, 3 * 4096 + 100);
        let mut page = Vec::new();
        for id in [0, 1, 3, u64::MAX] {
            assert!(pages.raw_page(PageId(id), &mut page).is_err(), "{id}");
        }
        // Inside by its length, and gone since.
        assert!(pages.raw_page(PageId(2), &mut page).is_err());
    }
}
