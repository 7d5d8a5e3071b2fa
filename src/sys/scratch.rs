//! Memory for data that waits to be sorted, in large chunks and, if the kernel has them, large
//! pages.
//!
//! Floor: sys. It belongs to no file. Chunks are mapped when they are needed, so a small load takes
//! little.
//!
//! Failure: `io::Error` if there is no memory.

use std::io;

use memmap2::{Advice, MmapMut};

use crate::error::best_effort;
use crate::sys::prefetch;

/// Bytes of a chunk.
pub(crate) const CHUNK_BYTES: usize = 4 << 20;
/// Bytes of the first chunk. Later ones are larger, so a small load takes little.
const FIRST_CHUNK_BYTES: usize = 64 << 10;

/// Memory for records, which are added one after the other and never move.
#[derive(Default)]
pub(crate) struct Scratch {
    chunks: Vec<MmapMut>,
    /// Bytes in use of the last chunk.
    used: usize,
    held: usize,
}

impl Scratch {
    /// Reserves `len` bytes in one chunk. Returns their address in the scratch memory, and the
    /// bytes.
    pub(crate) fn add(&mut self, len: usize) -> io::Result<(u64, &mut [u8])> {
        if self.chunks.last().is_none_or(|chunk| chunk.len() - self.used < len) {
            let wanted = self.held.next_power_of_two().clamp(FIRST_CHUNK_BYTES, CHUNK_BYTES).max(len);
            let chunk = MmapMut::map_anon(wanted)?;
            // If the kernel refuses, small pages do the same, more slowly.
            best_effort(chunk.advise(Advice::HugePage));
            self.chunks.push(chunk);
            self.held += wanted;
            self.used = 0;
        }
        let (index, start) = (self.chunks.len() - 1, self.used);
        self.used += len;
        Ok(((index as u64) << 32 | start as u64, &mut self.chunks[index][start..start + len]))
    }

    /// The bytes from an address on, to the end of its chunk.
    #[inline]
    pub(crate) fn at(&self, address: u64) -> &[u8] {
        &self.chunks[(address >> 32) as usize][address as u32 as usize..]
    }

    /// Asks the processor to bring the first bytes at an address into its cache.
    #[inline]
    pub(crate) fn prefetch(&self, address: u64, len: usize) {
        let bytes = self.at(address);
        prefetch::lines(&bytes[..len.min(bytes.len())]);
    }

    /// Bytes of memory in all chunks.
    pub(crate) fn held_bytes(&self) -> usize {
        self.held
    }

    /// Forgets all records and frees the memory.
    pub(crate) fn clear(&mut self) {
        *self = Scratch::default();
    }
}

impl std::fmt::Debug for Scratch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scratch").field("held", &self.held).finish_non_exhaustive()
    }
}
