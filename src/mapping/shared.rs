//! State that all windows of one mapping share: the file, its fault record, its read-ahead.
//!
//! Floor: mapping. A signal does not tell why an access failed. This module examines the file and
//! builds the error.
//!
//! Failure: none of its own.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};

use super::read_ahead::Ahead;
use super::record_memory::FileLength;
use super::sigbus::FaultRecord;
use crate::error::Error;
use crate::sys::{call, file_calls, memory_calls};

/// State shared by a mapping and its windows. A clone shares the same state.
#[derive(Clone, Debug)]
pub(super) struct Shared {
    /// Where the SIGBUS handler records faults.
    pub(super) record: Arc<FaultRecord>,
    /// Whether the SIGBUS handler serves faults in this mapping.
    pub(super) fault_guard: bool,
    /// Whether the processor forbids stores to pages that are not claimed. Only tests set it.
    pub(super) strict: bool,
    /// The file, to find the cause of a fault.
    pub(super) file: Arc<File>,
    pub(super) ahead: Arc<Ahead>,
    /// The file that the first bytes are mapped from, and how many, if what follows them is only in
    /// memory.
    pub(super) base: Option<(Arc<File>, u64)>,
    /// The length that the processes agree on.
    pub(super) length: FileLength,
    /// Whether other processes may change the length.
    pub(super) follows: bool,
    /// Held while the length or the mapped part changes.
    pub(super) resizing: Arc<Mutex<()>>,
    /// Address space that all windows of the file have reserved, in bytes.
    pub(super) reserved: Arc<AtomicU64>,
}

impl Shared {
    /// The error of an access at `offset` that the kernel could not serve. `error` is the error of
    /// the call that tried the access, if a call did.
    #[cold]
    pub(super) fn error_at(&self, offset: u64, error: Option<&io::Error>) -> Error {
        let cause = match (file_calls::end_of(&self.file), self.file.read_exact_at(&mut [0], offset)) {
            (Ok(len), _) if offset >= len => format!("the file was cut to {len} bytes while it was open"),
            (_, Err(e)) if memory_calls::is_unserved(&e) => format!("reading it failed: {e}"),
            _ => {
                let number = error.map(|e| format!(" ({e})")).unwrap_or_default();
                let what = "the file was cut and made longer again, or the disk had no room for a change or failed for a moment";
                format!("{what}{number}")
            }
        };
        Error::Fault { path: None, offset, cause }
    }

    /// Reads a byte of each kernel page of a range, and so brings the pages into memory. Returns
    /// the error of the first page that was cut off or that the disk cannot read. If the kernel
    /// refuses the call itself, that says nothing about the page and is no error.
    #[cold]
    pub(super) fn read_through(&self, range: Range<u64>) -> Option<Error> {
        let step = call::page_bytes();
        (range.start..range.end).step_by(step as usize).find_map(|offset| match self.file.read_at(&mut [0], offset) {
            Ok(0) => Some(self.error_at(offset, None)),
            Err(e) if memory_calls::is_unserved(&e) => Some(self.error_at(offset, Some(&e))),
            _ => None,
        })
    }

    /// The error of the first access that failed, if one has.
    pub(super) fn error(&self) -> Option<Error> {
        self.record.offset().map(|offset| self.error_at(offset, None))
    }
}
