//! The memory of live records: words that threads, and perhaps processes, share.
//!
//! Floor: mapping. The words lie in private memory, or in a part of the lock file that all its
//! processes map. They are reached only as atomics, so that no borrowed value changes.
//!
//! Invariants:
//!   RECMEM-1  the words stay mapped, at their address, as long as the memory lives.
//!   RECMEM-2  a part of the lock file has its blocks before it is mapped, so that a full disk is
//!             an error and not a fault.
//!
//! Failure: `io::Error` of the kernel. An access to a lock file that was cut reads zeros and is
//! recorded ([`RecordFaults::is_set`]).
#![allow(unsafe_code, reason = "atomics in mapped memory")]

use std::fs::File;
use std::io;
use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::atomic::{fence, AtomicU64, Ordering};
use std::sync::Arc;

use memmap2::{MmapOptions, MmapRaw};

use super::sigbus::{FaultRecord, Registration};
use crate::sys::{extents, file_calls};

const WORD_BYTES: u64 = 8;

/// Whether an access to live records has failed, or found words that no process has stored.
#[derive(Clone, Debug, Default)]
pub(crate) struct RecordFaults(Arc<FaultRecord>);

impl RecordFaults {
    #[inline]
    pub(crate) fn is_set(&self) -> bool {
        self.0.is_set()
    }

    /// Records that the word at an index is not one that a process has stored.
    #[cold]
    pub(crate) fn set(&self, index: usize) {
        self.0.set(index as u64 * WORD_BYTES);
    }
}

/// Some words of live records.
#[derive(Debug)]
pub(crate) struct RecordMemory {
    words: NonNull<AtomicU64>,
    len: usize,
    // Dropped before the memory, so that the SIGBUS handler never puts zeros over memory of another
    // owner.
    _registration: Option<Registration>,
    _owner: Owner,
}

/// What keeps the words.
#[derive(Debug)]
enum Owner {
    Private { _words: Box<[AtomicU64]> },
    Shared { _map: MmapRaw },
}

// SAFETY: the words are atomics, which `_owner` keeps.
unsafe impl Send for RecordMemory {}
// SAFETY: as above.
unsafe impl Sync for RecordMemory {}

impl RecordMemory {
    /// So many words of private memory, all 0.
    pub(crate) fn private(len: usize) -> RecordMemory {
        let words: Box<[AtomicU64]> = (0..len).map(|_| AtomicU64::new(0)).collect();
        let first = NonNull::from(&*words).cast();
        RecordMemory { words: first, len, _registration: None, _owner: Owner::Private { _words: words } }
    }

    /// Maps words of a lock file, from the word `first` on. The file has them and their blocks.
    /// Without the fault guard, an access that the kernel cannot serve kills the process.
    pub(crate) fn shared(
        file: &File,
        first: usize,
        len: usize,
        guard: Option<&RecordFaults>,
    ) -> io::Result<RecordMemory> {
        let (offset, bytes) = (first as u64 * WORD_BYTES, len * WORD_BYTES as usize);
        let map = MmapOptions::new().offset(offset).len(bytes).map_raw(file)?;
        let words = NonNull::new(map.as_mut_ptr().cast::<AtomicU64>())
            .filter(|words| words.is_aligned())
            .ok_or(io::ErrorKind::InvalidData)?;
        let start = map.as_mut_ptr() as usize;
        let registration = guard.map(|faults| Registration::new(start, bytes, true, &faults.0)).transpose()?;
        Ok(RecordMemory { words, len, _registration: registration, _owner: Owner::Shared { _map: map } })
    }
}

impl Deref for RecordMemory {
    type Target = [AtomicU64];

    #[inline]
    fn deref(&self) -> &[AtomicU64] {
        // SAFETY: bounds and lifetime: `_owner` keeps so many words (RECMEM-1). Initialised: memory
        // of zeros, or a file. Aliasing: only atomics, in this process and in others.
        unsafe { std::slice::from_raw_parts(self.words.as_ptr(), self.len) }
    }
}

/// Words of a line: as many as processors prefetch together, two cache lines of 64 bytes.
pub(crate) const LINE_WORDS: usize = 16;

/// A line of live records, with the memory that keeps it.
#[derive(Clone, Debug)]
pub(crate) struct RecordLine {
    line: NonNull<[AtomicU64; LINE_WORDS]>,
    _memory: Arc<RecordMemory>,
}

// SAFETY: the pointer leads to atomics that `_memory` keeps.
unsafe impl Send for RecordLine {}
// SAFETY: as above.
unsafe impl Sync for RecordLine {}

impl RecordLine {
    /// The line that begins at an index. Panics if the memory does not have it.
    pub(crate) fn of(memory: &Arc<RecordMemory>, index: usize) -> RecordLine {
        let line = NonNull::from(&memory[index..index + LINE_WORDS]).cast();
        RecordLine { line, _memory: Arc::clone(memory) }
    }
}

impl Deref for RecordLine {
    type Target = [AtomicU64; LINE_WORDS];

    #[inline]
    fn deref(&self) -> &[AtomicU64; LINE_WORDS] {
        // SAFETY: lifetime: `_memory` keeps the words at their address (RECMEM-1).
        unsafe { self.line.as_ref() }
    }
}

/// Makes a lock file long enough for so many words, with blocks for all of them (RECMEM-2). Never
/// makes it shorter.
pub(crate) fn lengthen(file: &File, words: usize) -> io::Result<()> {
    let (len, wanted) = (file_calls::end_of(file)?, words as u64 * WORD_BYTES);
    file_calls::within_size_limit(wanted)?;
    // On a full disk, xfs refuses to reserve blocks that are there already.
    if len >= wanted && extents::has_all_blocks(file, wanted)? {
        return Ok(());
    }
    // Where the file system cannot reserve blocks, zeros are written.
    if !file_calls::reserve_blocks(file, 0, wanted)? {
        let zeros = vec![0; 1 << 16];
        for at in (len..wanted).step_by(zeros.len()) {
            let bytes = zeros.len().min((wanted - at) as usize);
            file_calls::write_at(file, &zeros[..bytes], at)?;
        }
    }
    match len < wanted {
        true => file_calls::set_len(file, wanted),
        false => Ok(()),
    }
}

/// A number below 2^48 as the word at an index holds it.
#[inline]
pub(crate) fn tagged(index: usize, value: u64) -> u64 {
    value << 16 | tag(index, value)
}

/// The number in the word at an index. `None`: the tag is not that of the number.
#[inline]
pub(crate) fn untagged(index: usize, word: u64) -> Option<u64> {
    let value = word >> 16;
    (word & 0xffff == tag(index, value)).then_some(value)
}

/// Sixteen bits that depend on all of a number, and on where it is stored. Never those of a word
/// that is 0.
#[inline]
fn tag(index: usize, value: u64) -> u64 {
    let mixed = (value ^ (index as u64 + 1) << 48).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed ^ mixed >> 29) >> 17 & 0xffff | 1
}

/// What follows the usable bytes of a file, and so how a cut is noticed (`sentinel`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum FileEnd {
    /// Nothing. No process has stored to the file yet, so its bytes stay.
    Untouched,
    /// The sentinel.
    Sentinel,
    /// Nothing, because there was no room for the sentinel. The bytes may change.
    Changing,
}

/// The record of the length of a file (P17): its usable bytes, and what follows them.
#[derive(Clone, Debug)]
pub(crate) struct FileLength {
    memory: Arc<RecordMemory>,
    index: usize,
}

/// The bits below the length, which is a whole number of pages.
const END_BITS: u64 = 3;

impl FileLength {
    /// The record in the word at an index.
    pub(crate) fn new(memory: &Arc<RecordMemory>, index: usize) -> FileLength {
        FileLength { memory: Arc::clone(memory), index }
    }

    /// A record that no other process has.
    pub(crate) fn private() -> FileLength {
        let length = FileLength::new(&Arc::new(RecordMemory::private(1)), 0);
        length.clear();
        length
    }

    /// Says that the file has no usable bytes.
    pub(crate) fn clear(&self) {
        self.store(0, FileEnd::Untouched);
    }

    /// Stores the usable bytes, and what follows them.
    pub(crate) fn store(&self, len: u64, end: FileEnd) {
        debug_assert!(len & END_BITS == 0);
        let end = match end {
            FileEnd::Untouched => 0,
            FileEnd::Sentinel => 1,
            FileEnd::Changing => 2,
        };
        self.memory[self.index].store(tagged(self.index, len | end), Ordering::SeqCst);
        // Before any later store to a page: a process that sees such a store sees this one too.
        fence(Ordering::SeqCst);
    }

    /// The usable bytes, and what follows them. `None`: no process has stored this.
    pub(crate) fn load(&self) -> Option<(u64, FileEnd)> {
        let value = untagged(self.index, self.memory[self.index].load(Ordering::SeqCst))?;
        let end = match value & END_BITS {
            0 => FileEnd::Untouched,
            1 => FileEnd::Sentinel,
            _ => FileEnd::Changing,
        };
        Some((value & !END_BITS, end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_of_zeros_and_a_changed_word_are_found() {
        for value in [0, 1, 2, 77, 1 << 20, (1 << 48) - 1] {
            for index in [1, 16, 32, 48, 80] {
                let word = tagged(index, value);
                assert_eq!(untagged(index, word), Some(value));
                assert_eq!(untagged(index, 0), None);
                (0..64).for_each(|bit| assert_eq!(untagged(index, word ^ 1 << bit), None, "bit {bit} of {value}"));
                assert_eq!(untagged(index + 1, word), None);
            }
        }
    }

    #[test]
    fn the_length_of_a_file_reads_back_as_stored() {
        let length = FileLength::private();
        assert_eq!(length.load(), Some((0, FileEnd::Untouched)));
        for end in [FileEnd::Sentinel, FileEnd::Changing, FileEnd::Untouched] {
            length.store(1 << 40, end);
            assert_eq!(length.load(), Some((1 << 40, end)));
        }
    }
}
