//! The commit log as a file: an extent of the database file, reached through a descriptor of its
//! own.
//!
//! Floor: mapping. The kernel reports an error of write-back once for each open file description,
//! whatever range is flushed. So the log has its own: its flush does not take an error that a
//! checkpoint has to see (P1). Records are written by `pwrite`, and those of sole commits past the
//! page cache. The extent is also mapped, because `msync` flushes a range, and `fdatasync` would
//! flush the pages of the trees too.
//!
//! Positions only grow. The byte at a position lies at the remainder of the position by the length
//! of the extent, so the log is a ring.
//!
//! Failure: errors of the kernel. An error of a write or of a flush leaves unknown bytes.
#![allow(unsafe_code, reason = "a flush of a mapped range")]

use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

use self::WriteFailed::{NotFlushed, NotWritten};
use super::Mapping;
use crate::hooks::{self, FlushKind, Mutant};
use crate::sys::direct_io::{self, DurableWriter};
use crate::sys::memory_calls::{self, Access};
use crate::sys::{call, descriptor, file_calls, page_cache};

/// The log extent of a database file.
#[derive(Debug)]
pub(crate) struct LogFile {
    file: Arc<File>,
    /// The address at which the extent is mapped, for flushes only.
    base: NonNull<u8>,
    /// The mapped range of the file.
    start: u64,
    mapped: u64,
    /// The offset of the extent in the file, in bytes.
    offset: u64,
    len: u64,
    page_size: u64,
    /// Writes records past the page cache; `None` if the file system does not support it.
    durable: Option<DurableWriter>,
    /// The position up to which the blocks of a new log have zeros, and the position where all
    /// have: one length of the log after its beginning. Both are 0 for a log that this environment
    /// has not made: it gets no zeros.
    zeros_to: AtomicU64,
    zeros_end: AtomicU64,
}

/// Zeros that are written ahead in a new log at a time: a sixteenth of it, and at least so many
/// bytes. The first flush of a block that was never written also commits the journal
/// of the file system, which is a second flush. Writing all blocks at once would cost a program
/// that commits a few times more than all its commits.
const ZEROS_MIN_BYTES: u64 = 512 << 10;

/// Why a record was not made durable by its write.
#[derive(Debug)]
pub(crate) enum WriteFailed {
    /// As by [`LogFile::write`]: no flush has failed.
    NotWritten,
    /// As by [`LogFile::flush`].
    NotFlushed(io::Error),
}

// SAFETY: the pointer names a mapping that only this value owns, and through which nothing is read
// or stored.
unsafe impl Send for LogFile {}
// SAFETY: as above.
unsafe impl Sync for LogFile {}

impl LogFile {
    /// Opens the file of a mapping once more, and maps the extent at `offset`. Returns an error if
    /// the file cannot be opened a second time, or exists only in memory.
    pub(crate) fn of(mapping: &Mapping, offset: u64, len: u64) -> io::Result<LogFile> {
        if mapping.anonymous {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let file = match hooks::is(Mutant::OneDescription) {
            true => Arc::clone(&mapping.file),
            false => mapping.log_description()?,
        };
        // A whole number of kernel pages around the extent.
        let (start, end) = (offset & !(call::page_bytes() - 1), (offset + len).next_multiple_of(call::page_bytes()));
        let base = memory_calls::map_file(&file, start, end - start, Access::Read)?;
        let (page_size, durable) = (mapping.page_size as u64, DurableWriter::open(&mapping.file));
        let (zeros_to, zeros_end) = Default::default();
        Ok(LogFile { file, base, start, mapped: end - start, offset, len, page_size, durable, zeros_to, zeros_end })
    }

    /// Whether this is the extent at `offset`.
    pub(crate) fn is_at(&self, offset: u64, len: u64) -> bool {
        self.offset == offset && self.len == len
    }

    /// Says that the log is new and begins at a position: no block of it was written.
    pub(crate) fn set_new(&self, start: u64) {
        self.zeros_to.store(start, Ordering::Relaxed);
        self.zeros_end.store(start + self.len, Ordering::Relaxed);
    }

    /// Whether zeros are to be written before a record that ends at a position.
    pub(crate) fn lacks_zeros(&self, to: u64) -> bool {
        let zeros_to = self.zeros_to.load(Ordering::Relaxed);
        zeros_to < to && zeros_to < self.zeros_end.load(Ordering::Relaxed)
    }

    /// Writes zeros to blocks of a new log, so that all from `head` to `to` are written, and some
    /// more. The caller is the writer, and no record was written to the page at `head` or later in
    /// the ring.
    pub(crate) fn write_zeros_ahead(&self, mapping: &Mapping, head: u64, to: u64) -> io::Result<()> {
        debug_assert!(head.is_multiple_of(self.page_size));
        let (zeros_to, end) = (self.zeros_to.load(Ordering::Relaxed), self.zeros_end.load(Ordering::Relaxed));
        // After an error, records may have passed the zeros.
        let from = zeros_to.max(head);
        if to <= from || from >= end {
            return Ok(());
        }
        let step = if mapping.prefaults_first() { self.len } else { ZEROS_MIN_BYTES.max(self.len / 16) };
        let to = to.next_multiple_of(self.page_size).max(from + step).min(end);
        let start = from % self.len;
        let first = (to - from).min(self.len - start);
        self.write_zeros(mapping, self.offset + start, first)?;
        self.write_zeros(mapping, self.offset, to - from - first)?;
        self.zeros_to.store(to, Ordering::Relaxed);
        Ok(())
    }

    fn write_zeros(&self, mapping: &Mapping, at: u64, len: u64) -> io::Result<()> {
        if len == 0 {
            return Ok(());
        }
        self.check_length(mapping)?;
        mapping.hooks.writing(at, len)?;
        if !direct_io::write_zeros(&self.file, at, len)? {
            let zeros = vec![0; self.page_size as usize];
            for page in (at..at + len).step_by(zeros.len()) {
                file_calls::write_within(&self.file, &zeros, page)?;
            }
            page_cache::start_write_back(&self.file, at, len)?;
        }
        mapping.hooks.wrote(at, len);
        Ok(())
    }

    /// Writes bytes at a position. No write crosses the end of a page (CREATE-2), and none makes
    /// the file longer.
    pub(crate) fn write(&self, mapping: &Mapping, position: u64, bytes: &[u8]) -> io::Result<()> {
        self.check_length(mapping)?;
        let (mut position, mut rest) = (position, bytes);
        while !rest.is_empty() {
            let room = self.page_size - position % self.page_size;
            let (chunk, later) = rest.split_at(rest.len().min(room as usize));
            let at = self.offset + position % self.len;
            mapping.hooks.writing(at, chunk.len() as u64)?;
            if let Some(bytes) = mapping.hooks.log_write_fails_after(at, chunk.len() as u64) {
                file_calls::write_within(&self.file, &chunk[..bytes as usize], at)?;
                return Err(io::Error::other("a write that fails"));
            }
            file_calls::write_within(&self.file, chunk, at)?;
            mapping.hooks.wrote(at, chunk.len() as u64);
            mapping.hooks.wrote_log(at, chunk.len() as u64)?;
            position += chunk.len() as u64;
            rest = later;
        }
        Ok(())
    }

    /// Returns an error if a write would exceed the size limit of the process, or if the file does
    /// not have the whole log any more.
    fn check_length(&self, mapping: &Mapping) -> io::Result<()> {
        let end = self.offset + self.len;
        file_calls::within_size_limit(end)?;
        if mapping.file_len()? < end {
            // Another program cut the file. Writing would hide that.
            return Err(io::Error::other("the file was cut"));
        }
        Ok(())
    }

    /// Whether [`LogFile::write_durably`] can write so many bytes at a position: whole pages before
    /// the end of the ring.
    pub(crate) fn can_write_durably(&self, position: u64, len: usize) -> bool {
        let start = position % self.len;
        self.durable.is_some() && start + len as u64 <= self.len && DurableWriter::fits(self.offset + start, len)
    }

    /// Writes whole pages at a position and returns when they are durable, with one call past the
    /// page cache. The caller has asked [`LogFile::can_write_durably`]. No page of the range may be
    /// dirty in the page cache, and no thread may store to the file meanwhile: the kernel drops the
    /// range from the cache.
    pub(crate) fn write_durably(&self, mapping: &Mapping, position: u64, bytes: &[u8]) -> Result<(), WriteFailed> {
        self.check_length(mapping).map_err(|_| NotWritten)?;
        let (at, len) = (self.offset + position % self.len, bytes.len() as u64);
        let pages = || (at..at + len).step_by(self.page_size as usize);
        for page in pages() {
            mapping.hooks.writing(page, self.page_size).map_err(|_| NotWritten)?;
            if let Some(more) = mapping.hooks.log_write_fails_after(page, self.page_size) {
                let written = &bytes[..(page - at + more) as usize];
                file_calls::write_within(&self.file, written, at).map_err(|_| NotWritten)?;
                return Err(NotWritten);
            }
        }
        let Some(durable) = &self.durable else { return Err(NotWritten) };
        durable.write_within(bytes, at).map_err(|e| match direct_io::is_unaligned(&e) {
            true => NotWritten,
            false => NotFlushed(e),
        })?;
        for page in pages() {
            mapping.hooks.wrote(page, self.page_size);
            mapping.hooks.wrote_log(page, self.page_size).map_err(|_| NotWritten)?;
        }
        let window = mapping.window();
        mapping.hooks.before_flush(&*window, FlushKind::Log, at, len).map_err(NotFlushed)?;
        mapping.hooks.after_flush(&*window, FlushKind::Log, at, len).map_err(NotFlushed)
    }

    /// Makes the log durable from one position to another, both multiples of the page size.
    pub(crate) fn flush(&self, mapping: &Mapping, from: u64, to: u64) -> io::Result<()> {
        debug_assert!(to - from <= self.len, "a flush of more than the log");
        let (start, bytes) = (from % self.len, to - from);
        let first = bytes.min(self.len - start);
        self.flush_range(mapping, start, first)?;
        match bytes - first {
            0 => Ok(()),
            rest => self.flush_range(mapping, 0, rest),
        }
    }

    fn flush_range(&self, mapping: &Mapping, start: u64, bytes: u64) -> io::Result<()> {
        let window = mapping.window();
        let offset = self.offset + start;
        mapping.hooks.before_flush(&*window, FlushKind::Log, offset, bytes)?;
        let from = (offset - self.start) & !(call::page_bytes() - 1);
        let to = (offset - self.start + bytes).next_multiple_of(call::page_bytes()).min(self.mapped);
        // SAFETY: bounds: inside the range that was mapped, which `self` keeps mapped.
        unsafe { memory_calls::sync_range(self.base.add(from as usize), to - from, &self.file) }?;
        mapping.hooks.after_flush(&*window, FlushKind::Log, offset, bytes)
    }
}

impl Mapping {
    /// The open file description of the log, one for all logs of this mapping. The kernel reports
    /// an error of write-back only to descriptions that were open before. So where other processes
    /// may see an error and die, it is opened with the file.
    pub(super) fn log_description(&self) -> io::Result<Arc<File>> {
        if let Some(file) = self.log_description.get() {
            return Ok(Arc::clone(file));
        }
        let file = descriptor::open_again(self.file.as_fd())?;
        page_cache::advise_random(&file);
        Ok(Arc::clone(self.log_description.get_or_init(|| Arc::new(file))))
    }
}

impl Drop for LogFile {
    fn drop(&mut self) {
        // SAFETY: the range is ours, and `self` was the only way to it.
        unsafe { memory_calls::unmap(self.base, self.mapped) }
    }
}
