//! Large folios: a page cache in which a store of one page is written back as hundreds.
//!
//! Floor: sys. Where the page cache keeps a file in folios of up to 2 MiB, a store to one page
//! dirties its whole folio, and the next flush writes all of it. Mapleaf's own mappings and
//! descriptors ask for single pages, but another program that reads the file from end to end (a
//! backup, `cp`) brings the parts that were not cached in large folios. That is noticed where it
//! costs: the kernel counts, for each thread, the bytes that its stores dirtied. If they are out of
//! proportion to the pages that a transaction took, and the file has indeed more dirty pages there,
//! its cache is dropped once it is clean, and comes back in single pages.
//!
//! Failure: none that matters. A cache that is not dropped costs time.

use std::fs::File;

use crate::sys::os;
use crate::sys::page_cache;

/// Bytes that a transaction may dirty per page that it takes before the cache is looked at, and in
/// all.
const SUSPICIOUS_FACTOR: u64 = 4;
const SUSPICIOUS_BYTES: u64 = 128 << 10;
/// The largest folio.
const FOLIO_BYTES: u64 = 2 << 20;

/// Bytes that the stores and writes of this thread have dirtied, from some beginning on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dirtied(u64);

impl Dirtied {
    /// What this thread has dirtied until now.
    pub(crate) fn until_now() -> Dirtied {
        Dirtied(page_cache::thread_dirtied_bytes())
    }

    /// Whether what was dirtied since is out of proportion to this many bytes that were meant to
    /// be.
    pub(crate) fn is_suspicious_for(self, bytes: u64) -> bool {
        let dirtied = page_cache::thread_dirtied_bytes().saturating_sub(self.0);
        dirtied > SUSPICIOUS_BYTES && dirtied / SUSPICIOUS_FACTOR > bytes
    }
}

/// Whether two offsets may lie in the same folio.
pub(crate) fn are_neighbours(a: u64, b: u64) -> bool {
    a / FOLIO_BYTES == b / FOLIO_BYTES
}

/// Whether around an offset many more bytes are dirty than the `bytes` that were stored there: the
/// thread may have dirtied something else than this file. Systems that cannot say are older than
/// large folios on most file systems.
pub(crate) fn are_large(file: &File, offset: u64, bytes: u64) -> bool {
    let start = offset & !(FOLIO_BYTES - 1);
    page_cache::dirty_pages(file, start, FOLIO_BYTES)
        .is_ok_and(|pages| pages * os::page_bytes() > SUSPICIOUS_FACTOR * bytes)
}
