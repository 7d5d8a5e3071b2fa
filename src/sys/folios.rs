//! Large folios: a page cache in which a store of one page is written back as hundreds.
//!
//! Floor: sys. The page cache may hold a file in folios of up to 2 MiB. Then a store to one page
//! dirties its whole folio, and the next flush writes all of it. Mapleaf's own mappings and
//! descriptors ask for single pages. But another program that reads the whole file (a backup, `cp`)
//! brings the parts that were not cached into memory in large folios. Mapleaf notices this by its
//! cost: the kernel counts, for each thread, the bytes that its stores dirtied. If a transaction
//! dirtied far more bytes than its pages have, and the file really has more dirty pages there,
//! Mapleaf drops the file's cache once it is clean. It comes back in single pages.
//!
//! Failure: none. A cache that is not dropped costs time.

use std::fs::File;

use crate::sys::{call, page_cache};

/// The cache is examined if a transaction has dirtied so many times the bytes of its pages, and so
/// many bytes.
const SUSPICIOUS_FACTOR: u64 = 4;
const SUSPICIOUS_BYTES: u64 = 128 << 10;
/// The largest folio.
const FOLIO_BYTES: u64 = 2 << 20;

/// The count of bytes that this thread had dirtied at some time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dirtied(u64);

impl Dirtied {
    /// The count now.
    pub(crate) fn until_now() -> Dirtied {
        Dirtied(page_cache::thread_dirtied_bytes())
    }

    /// Whether this thread has dirtied far more bytes since then than the `bytes` that it stored.
    pub(crate) fn is_suspicious_for(self, bytes: u64) -> bool {
        let dirtied = page_cache::thread_dirtied_bytes().saturating_sub(self.0);
        dirtied > SUSPICIOUS_BYTES && dirtied / SUSPICIOUS_FACTOR > bytes
    }
}

/// Whether two offsets may lie in the same folio.
pub(crate) fn are_neighbours(a: u64, b: u64) -> bool {
    a / FOLIO_BYTES == b / FOLIO_BYTES
}

/// Whether many more bytes are dirty around an offset than the `bytes` that were stored there. (The
/// thread may have dirtied another file.) A kernel that cannot tell is older than large folios on
/// most file systems.
pub(crate) fn are_large(file: &File, offset: u64, bytes: u64) -> bool {
    let start = offset & !(FOLIO_BYTES - 1);
    page_cache::dirty_pages(file, start, FOLIO_BYTES)
        .is_ok_and(|pages| pages * call::page_bytes() > SUSPICIOUS_FACTOR * bytes)
}
