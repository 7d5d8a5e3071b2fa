//! Memory for data that waits to be sorted: in large chunks, in large pages where the kernel has
//! them.
//!
//! Floor: sys. Nothing of it belongs to a file. Pieces come as they are needed, so a small load
//! takes little.
//!
//! Failure: `io::Error` when there is no memory.

use std::io;

use memmap2::{Advice, MmapMut};

use crate::sys::prefetch;

/// Bytes of a chunk.
pub(crate) const CHUNK_BYTES: usize = 4 << 20;
/// Bytes of the first chunks, of which a small load needs few.
const FIRST_CHUNK_BYTES: usize = 64 << 10;

/// Bytes that are added one record after the other and never move.
#[derive(Default)]
pub(crate) struct Scratch {
    chunks: Vec<MmapMut>,
    /// Bytes in use of the last chunk.
    used: usize,
    held: usize,
}

impl Scratch {
    /// Room for `len` bytes in one chunk, and its place.
    pub(crate) fn add(&mut self, len: usize) -> io::Result<(u64, &mut [u8])> {
        if self.chunks.last().is_none_or(|chunk| chunk.len() - self.used < len) {
            let wanted = self.held.next_power_of_two().clamp(FIRST_CHUNK_BYTES, CHUNK_BYTES).max(len);
            let chunk = MmapMut::map_anon(wanted)?;
            // Advice: small pages do the same, more slowly.
            let _small_pages = chunk.advise(Advice::HugePage);
            self.chunks.push(chunk);
            self.held += wanted;
            self.used = 0;
        }
        let (index, start) = (self.chunks.len() - 1, self.used);
        self.used += len;
        Ok(((index as u64) << 32 | start as u64, &mut self.chunks[index][start..start + len]))
    }

    /// The bytes from a place on, to the end of its chunk.
    #[inline]
    pub(crate) fn at(&self, place: u64) -> &[u8] {
        &self.chunks[(place >> 32) as usize][place as u32 as usize..]
    }

    /// Asks the processor for the first bytes at a place.
    #[inline]
    pub(crate) fn prefetch(&self, place: u64, len: usize) {
        let bytes = self.at(place);
        prefetch::lines(&bytes[..len.min(bytes.len())]);
    }

    /// Bytes of memory that it holds.
    pub(crate) fn held_bytes(&self) -> usize {
        self.held
    }

    /// Forgets everything, and gives back all memory.
    pub(crate) fn clear(&mut self) {
        *self = Scratch::default();
    }
}

impl std::fmt::Debug for Scratch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scratch").field("held", &self.held).finish_non_exhaustive()
    }
}
