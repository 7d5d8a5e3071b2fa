//! Which pages of a read-only mapping are in memory, and how to release them or let them go first.
//!
//! Floor: mapping.
//!
//! Failure: none. If the kernel does not answer, pages count as in memory. Advice that it refuses
//! has no effect.
#![allow(unsafe_code, reason = "addresses of mappings")]

use std::io;

use super::{Mapping, ReadMap};
use crate::error::best_effort;
use crate::sys::{call, direct_io, page_cache};

impl Mapping {
    /// Bytes of the file that are in memory, and those of them that are dirty, if the kernel tells.
    pub(crate) fn cached_and_dirty(&self) -> io::Result<(u64, Option<u64>)> {
        let (file, page) = (self.file(), call::page_bytes());
        let to_the_end = 0;
        let dirty = page_cache::dirty_pages(file, 0, to_the_end).ok();
        let cached = match dirty {
            Some(_) => page_cache::cached_pages(file, 0, to_the_end)?,
            None => direct_io::cached_pages(file)?,
        };
        Ok((cached * page, dirty.map(|dirty| dirty * page)))
    }
}

impl ReadMap {
    /// Whether a range of the file can be read without waiting for the disk. The kernel answers yes
    /// to a process that could not write to the file.
    pub(crate) fn is_in_memory(&self, offset: u64, len: u64) -> bool {
        let range = self.window().read_range();
        let start = offset & !(call::page_bytes() - 1);
        let end = offset.saturating_add(len).min(range.covered());
        // SAFETY: bounds: inside the mapped part of the range, which the pin keeps.
        start >= end || unsafe { page_cache::all_resident(range.at(start), end - start) }.unwrap_or(true)
    }

    /// Releases a range of the file: its pages leave memory, unless another program has them mapped
    /// or they are dirty. They can be read as before.
    pub(crate) fn release(&self, offset: u64, len: u64) {
        if let Some((start, end)) = self.whole_pages(offset, len) {
            let range = self.window().read_range();
            // SAFETY: bounds: inside the mapped part of the range, a shared mapping of the file
            // that the pin keeps.
            let released = unsafe { page_cache::release_pages(range.at(start), end - start) };
            // Both calls are advice.
            best_effort(released.and_then(|()| self.ahead().drop_cache(start, end - start)));
        }
    }

    /// Lets a range of the file leave memory before other pages do, once memory is short.
    pub(crate) fn cool(&self, offset: u64, len: u64) {
        if let Some((start, end)) = self.whole_pages(offset, len) {
            let range = self.window().read_range();
            // SAFETY: bounds: inside the mapped part of the range. Lifetime: the pin keeps this
            // shared mapping of the file. Aliasing: the advice changes no byte.
            best_effort(unsafe { page_cache::cool_pages(range.at(start), end - start) });
        }
    }

    /// The kernel's pages that lie completely in a range of the file, if any are mapped and the
    /// file is on a disk.
    fn whole_pages(&self, offset: u64, len: u64) -> Option<(u64, u64)> {
        let system = call::page_bytes();
        let start = offset.next_multiple_of(system);
        let end = offset.saturating_add(len).min(self.window().read_range().covered()) & !(system - 1);
        (start < end && self.ahead().has_disk()).then_some((start, end))
    }
}
