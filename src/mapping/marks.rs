//! The table of verified marks of a window: a byte for each page that it has room for.
//!
//! Floor: mapping. Readers note in it which pages they have verified; what the values mean is theirs to say.
//!
//! Invariants:
//!   K1  the table is private memory of one window, reached through atomics alone.
//!
//! Failure: no memory. A page outside the table has no mark.
#![allow(unsafe_code, reason = "addresses of mappings")]

use std::io;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU8;

use memmap2::{Advice, MmapOptions, MmapRaw};

use super::os;
use super::window::round_up;
use crate::ids::PageId;

/// The table of verified marks, a byte for each page that the window has room for: private zero memory, of which a
/// page costs something only when it is touched. Its address does not matter.
pub(super) struct Marks(MmapRaw);

impl Marks {
    pub(super) fn new(pages: u64) -> io::Result<Marks> {
        let len = usize::try_from(round_up(pages, os::page_bytes())?)
            .map_err(|_| io::Error::new(io::ErrorKind::OutOfMemory, "more pages than addresses"))?;
        let marks = MmapOptions::new().len(len).no_reserve_swap().map_anon()?;
        // Advice: a core dump without the marks is only smaller.
        let _larger_dumps = marks.advise(Advice::DontDump);
        Ok(Marks(marks.into()))
    }

    pub(super) fn base(&self) -> NonNull<u8> {
        NonNull::new(self.0.as_mut_ptr()).unwrap_or(NonNull::dangling())
    }

    pub(super) fn len(&self) -> u64 {
        self.0.len() as u64
    }
}

/// The mark of a page in a table of `len` bytes; `None` for a page outside.
///
/// # Safety
/// `table` is mapped memory of `len` bytes, reached through atomics alone, for the lifetime that the caller picks.
#[inline]
pub(super) unsafe fn mark_cell<'a>(table: NonNull<u8>, len: u64, page: PageId) -> Option<&'a AtomicU8> {
    // SAFETY: inside the table, by the test, and bytes are always aligned and, being mapped, initialised.
    (page.0 < len).then(|| unsafe { AtomicU8::from_ptr(table.as_ptr().add(page.0 as usize)) })
}
