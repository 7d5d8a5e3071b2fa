//! Reading pages: from a mapping, verified on first touch, or from a file that is not mapped.
//!
//! Floor: pager. Nothing here can allocate or change a page.
//!
//! ```text
//! snapshot_pages  pages as a snapshot sees them: bounds, verification
//! residency       which pages are in memory, which to read ahead, which to release
//! file_pages      pages of a file that is not mapped, read one at a time
//! page_map        a set of page ids
//! ```
//!
//! Failure: `Corrupt` with the page, `Fault` where the kernel cannot serve an access, `Io` from
//! plain reads.

pub(crate) mod file_pages;
pub(crate) mod page_map;
pub(crate) mod residency;
pub(crate) mod snapshot_pages;
