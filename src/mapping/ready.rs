//! Makes a mapping ready for stores: the preparations that only a writer needs, before its first
//! store.
//!
//! Floor: mapping. Most programs that open a file for writing read first, and many only read. So
//! opening maps the file as for reading only: its length stays, nothing is written, and the
//! writable mapping is only reserved address space. [`Mapping::ready_to_write`] does the rest: it
//! maps the file for writing, writes the sentinel in a page after the end, and finds out whether
//! the file has all its blocks.
//!
//! Invariants:
//!   READY-1  a file that was cut since it was mapped is not extended.
//!   READY-2  the sentinel moves after its new place was written and the old place was found
//!       unchanged. The old place shows a cut that came before, the new place one that comes after.
//!       During the move the byte must only be served.
//!
//! Failure: errors of the kernel. The file can still be used as before, but may be longer.

use std::io;
use std::sync::atomic::Ordering;

use super::window::Window;
use super::{budget, lock, sentinel, FileEnd, Mapping};
use crate::sys::extents;

impl Mapping {
    /// Whether the mapping can be stored to.
    pub(crate) fn is_ready_to_write(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }

    /// Makes a writable mapping ready for stores, without blocking readers. The caller holds the
    /// writer lock.
    pub(crate) fn ready_to_write(&self) -> io::Result<()> {
        self.make_ready(true)
    }

    /// Makes a mapping ready for stores of meta pages, after another process has made the file
    /// ready. The length and the end of the file stay.
    pub(crate) fn ready_beside_writers(&self) -> io::Result<()> {
        self.make_ready(false)
    }

    fn make_ready(&self, may_write_sentinel: bool) -> io::Result<()> {
        assert!(self.writable, "stores to a read-only mapping");
        let _resizing = lock(&self.shared.resizing);
        if self.is_ready_to_write() {
            return Ok(());
        }
        let window = self.window();
        let used = window.mapped();
        if !self.has_whole(used)? {
            return Err(io::Error::other("the file was cut, or an access to it failed"));
        }
        let mapped_to = sentinel::file_len_for(used)?;
        window.extend(&self.file, mapped_to).map_err(|e| budget::explain(e, mapped_to))?;
        self.examine_blocks(used)?;
        match self.shared.length.load() {
            // Another process has made the file ready.
            Some((_, FileEnd::Sentinel)) => window.watch_end(used, FileEnd::Sentinel),
            _ if may_write_sentinel => self.write_first_sentinel(&window, used)?,
            _ => window.watch_end(used, FileEnd::Changing),
        }
        self.ready.store(true, Ordering::Release);
        Ok(())
    }

    /// Whether a sentinel follows the usable bytes of the file.
    pub(crate) fn has_sentinel(&self) -> bool {
        self.shared.length.load().is_some_and(|(_, end)| end == FileEnd::Sentinel)
    }

    /// Whether a process has made the file ready for stores, and no process has closed it since.
    pub(crate) fn is_written_to(&self) -> bool {
        self.shared.length.load().is_some_and(|(_, end)| end != FileEnd::Untouched)
    }

    fn write_first_sentinel(&self, window: &Window, used: u64) -> io::Result<()> {
        let written = sentinel::lengthen_and_write(&self.file, used)?;
        if !window.all_served() {
            return Err(io::Error::other("the file was cut while it was made ready for writing"));
        }
        window.sentinel.retire();
        let end = if written { FileEnd::Sentinel } else { FileEnd::Changing };
        window.watch_end(used, end);
        // Before this process stores to a page whose bytes others watch (P17).
        self.shared.length.store(used, end);
        Ok(())
    }

    /// Finds out whether a store can hit a full disk.
    fn examine_blocks(&self, used: u64) -> io::Result<()> {
        if self.anonymous {
            return Ok(());
        }
        let copies = extents::is_copy_on_write(&self.file);
        self.prefault_first.store(copies, Ordering::Relaxed);
        let lacks = !copies && !extents::has_all_blocks(&self.file, used)?;
        self.lacks_blocks.store(lacks, Ordering::Relaxed);
        Ok(())
    }
}
