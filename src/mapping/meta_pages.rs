//! Access to the meta pages: pages 0 and 1, the only pages that are overwritten in place.
//!
//! Floor: mapping. Knows that there are two, not their contents. A meta page is stored and read by
//! copy, in atomic words, because threads of this and other processes may read it at the same time.
//! A copy may be torn; the checksum in the page detects that.
//!
//! Failure: a store to a meta page that is not mapped for writing is a bug and panics.
#![allow(unsafe_code, reason = "atomic words of the mapping")]

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use super::bounds::inside;
use super::window::Window;
use super::{lock, Mapping};
use crate::sys::file_calls;

impl Mapping {
    /// Stores a whole meta page. Panics for a wrong size or slot, a read-only mapping, or a file
    /// without the slot: these are bugs in the caller.
    pub(crate) fn store_meta_page(&self, slot: usize, page: &[u8]) {
        assert!(slot < 2 && page.len() == self.page_size, "meta page {slot} with {} bytes", page.len());
        let _storing = lock(&self.storing_meta_page);
        let stored = self.window().copy_in((slot * self.page_size) as u64, page);
        assert!(stored, "meta page {slot} is not mapped for writing");
        // On a file system with a disk, the first store after a flush causes a fault, at which the
        // file system notes the time itself.
        if !self.anonymous && !self.shared.ahead.has_disk() {
            file_calls::note_change(&self.file);
        }
        self.hooks.stored_meta(slot);
    }

    /// Copies both meta pages, between two stores of a meta page by this process.
    pub(crate) fn read_meta_pages(&self) -> Vec<u8> {
        let _storing = lock(&self.storing_meta_page);
        let mut bytes = vec![0; 2 * self.page_size];
        let read = self.read_copy(0, &mut bytes);
        assert!(read, "both meta pages are mapped");
        bytes
    }

    /// Copies bytes of meta pages, even while another thread or process stores to them. `false`,
    /// with nothing copied, if not all bytes are mapped.
    pub(crate) fn read_copy(&self, offset: u64, into: &mut [u8]) -> bool {
        self.window().copy_out(offset, into)
    }

    /// Ensures that storing a meta page cannot hit a full disk, if the file system supports that.
    pub(crate) fn prefault_meta_pages(&self) -> io::Result<()> {
        let len = 2 * self.page_size;
        if !self.prefaults_first() || self.prefault(0, len as u64)? {
            return Ok(());
        }
        // Writes the same bytes once more, while no thread stores a meta page.
        let mut pages = vec![0; len];
        let _storing = lock(&self.storing_meta_page);
        self.read_at(0, &mut pages)?;
        pages
            .chunks_exact(self.page_size)
            .zip((0..).step_by(self.page_size))
            .try_for_each(|(page, offset)| file_calls::write_at(&self.file, page, offset))
    }
}

impl Window {
    /// Copies mapped bytes word by word, so that meta pages may be read while they are stored.
    /// `false`: not all of the range is mapped, and nothing was copied. Other pages are not read
    /// through here, because stores to them are not atomic. (Test hooks do so, between stores.)
    pub(super) fn copy_out(&self, mut offset: u64, into: &mut [u8]) -> bool {
        if !inside(self.mapped(), offset, into.len()) {
            return false;
        }
        let mut rest = into;
        while !rest.is_empty() {
            let skip = (offset % 8) as usize;
            let take = rest.len().min(8 - skip);
            let address = self.read_range().at(offset - skip as u64);
            // SAFETY: bounds: the word that holds byte `offset` is mapped (whole pages are, WIN-1),
            // and is aligned because the base is. Lifetime: `self` keeps the mapping. Initialised:
            // file pages always are. Aliasing: the load may meet the atomic stores of `copy_in` and
            // of other processes, and no thread has a reference to a meta page (WMAP-2). A relaxed
            // load does not store, so read-only memory is enough.
            let word = unsafe { AtomicU64::from_ptr(address.as_ptr().cast()) };
            let bytes = word.load(Ordering::Relaxed).to_ne_bytes();
            let (now, later) = rest.split_at_mut(take);
            now.copy_from_slice(&bytes[skip..skip + take]);
            rest = later;
            offset += take as u64;
        }
        true
    }

    /// Copies whole words into the writable mapping; offset and length are multiples of 8. `false`:
    /// not mapped, or read-only.
    fn copy_in(&self, offset: u64, from: &[u8]) -> bool {
        assert!(
            offset.is_multiple_of(8) && from.len().is_multiple_of(8),
            "copies into the writable mapping are whole words"
        );
        let Some(write_range) = self.write_range() else { return false };
        // The file is mapped for the writer later than for readers.
        if !inside(self.mapped().min(write_range.covered()), offset, from.len()) {
            return false;
        }
        self.allow_stores(offset, from.len() as u64, true);
        for (target, word) in (offset..).step_by(8).zip(from.chunks_exact(8)) {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(word);
            // SAFETY: bounds: mapped in the writable mapping (WIN-1), and aligned. Lifetime: `self`
            // keeps the mapping. Aliasing: the bytes are those of a meta page, to which no thread
            // has a reference, because no pointer to pages 0 and 1 is followed (WMAP-2).
            let target = unsafe { AtomicU64::from_ptr(write_range.at(target).as_ptr().cast()) };
            target.store(u64::from_ne_bytes(bytes), Ordering::Relaxed);
        }
        self.allow_stores(offset, from.len() as u64, false);
        true
    }
}
