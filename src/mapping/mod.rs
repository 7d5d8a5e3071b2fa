//! The mapping: the file, or anonymous memory, at addresses that do not move while a reader or the
//! writer uses them.
//!
//! Floor: mapping. Knows the numbers and sizes of pages, not their contents.
//!
//! ```text
//! mod            `Mapping`: opens, flushes, reports failed accesses
//! window         reserved address space with the file mapped into it; replaced when it is full
//! reservation    one range of a window: reserve, map the file into it, unmap
//! over_file      memory over a file, which is only read
//! budget         how much address space all databases of the process may reserve
//! read_map       `ReadMap`: a reader's access to the file; pins a window
//! write_map      `WriteMap`: the writer's right to store; mutable bytes of claimed pages only
//! claims         the set of claimed pages
//! lease          `Lease`: bytes that stay borrowed while the writer goes on
//! meta_pages     pages 0 and 1, stored and read by copy
//! verified_bitmap, verified_pages    which pages were verified; fast access to these
//! ready          prepares a mapping for its first store
//! grow           the file gets longer (or shorter, when it is closed)
//! owned_cell     a value with one owner at a time, and a word that every process may read
//! record_memory  the memory of live records, in private memory or in the lock file
//! log_file       the commit log: an extent with a descriptor and a flush of its own
//! pwrite         pages written by `pwrite` instead of stores
//! sigbus         the SIGBUS handler: an access that fails reads zeros and is recorded
//! sentinel       the byte at the end that reveals that another program cut the file
//! shared         state that all windows of a file share; the error of a failed access
//! read_ahead, residency    reads pages before they are needed; tells which are in memory
//! file           creates, opens and measures files
//! bounds         sums of offsets that do not overflow
//! testing        functions for tests
//! ```
//!
//! Invariants:
//!   MAP-1  growth never waits for a reader and never moves memory that a reader holds: the file is
//!       mapped into a reserved window. A full window is replaced by a larger one, and stays mapped
//!       for the readers that have pinned it.
//!   MAP-2  blocks are reserved before the file gets longer, so that a full disk is an error of
//!       `grow`. Where the file system cannot reserve, the pages are prefaulted instead.
//!   MAP-3  a length is published only after the range is mapped and has blocks. A failed `grow`
//!       publishes nothing and restores the file's length.
//!   MAP-4  at most one `WriteMap` exists.
//!   MAP-5  once it is ready for stores, a file is longer than its part in use, by a kernel page
//!       for the sentinel, if it may get longer. So a cut anywhere in the part in use is noticed.
//!       And a file that no process has open and that ends with its latest state was closed
//!       cleanly.
//!   MAP-6  a mapping in which an access failed never grows.
//!
//! Failure: `io::Error`, with the kind `StorageFull` for a full disk. A store to a page without a
//! claim panics. An access fails only if another program cuts the file, or if the disk fails. The
//! failure is recorded, and [`ReadMap::all_served`] and [`Mapping::fault`] report it.

mod bounds;
mod budget;
mod claims;
pub(crate) mod file;
mod grow;
mod lease;
mod log_file;
mod meta_pages;
mod over_file;
pub(crate) mod owned_cell;
mod pwrite;
mod read_ahead;
mod read_map;
mod ready;
mod record_memory;
mod reservation;
mod residency;
mod sentinel;
mod shared;
mod sigbus;
#[cfg(feature = "testing")]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod verified_bitmap;
mod verified_pages;
mod window;
mod write_map;

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use crate::error::{best_effort, Error};
use crate::hooks::{FlushKind, MappingHooks};
use crate::ids::PageId;
use crate::sys::{descriptor, file_calls, folios, refused};
use crate::{hooks, limits};
pub(crate) use lease::{Lease, OwnedExtent};
pub(crate) use log_file::{LogFile, WriteFailed};
#[allow(unreachable_pub, reason = "an option of the crate's users")]
pub use read_ahead::ReadAhead;
pub(crate) use read_ahead::CHUNK_BYTES;
pub(crate) use read_map::ReadMap;
pub(crate) use record_memory::{
    lengthen, tagged, untagged, FileEnd, FileLength, RecordFaults, RecordLine, RecordMemory, LINE_WORDS,
};
pub(crate) use verified_pages::VerifiedPages;
pub(crate) use write_map::WriteMap;

use read_ahead::Ahead;
use shared::Shared;
use sigbus::FaultRecord;
use window::Window;

/// How to map a file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MapOptions {
    /// Page size of the database. Lengths are multiples of it.
    pub(crate) page_size: usize,
    /// Address space of the first window. By default the larger of 64 GiB and 16 times the file, or
    /// what the budget has left.
    pub(crate) window_bytes: Option<u64>,
    /// Whether an access that the kernel cannot serve is recorded. Otherwise it kills the process.
    pub(crate) fault_guard: bool,
    /// At most this many bytes of the file are used, even if it is longer.
    pub(crate) used_bytes: Option<u64>,
}

/// A mapped file. Shared through an `Arc`; all methods take `&self`.
pub(crate) struct Mapping {
    file: Arc<File>,
    shared: Shared,
    page_size: usize,
    writable: bool,
    /// Memory without a file on a disk: nothing is flushed, and blocks are not reserved.
    anonymous: bool,
    current: Mutex<Arc<Window>>,
    /// The id of `current`, to read without the lock.
    window_id: AtomicU64,
    /// Whether a `WriteMap` exists.
    write_map_taken: Arc<AtomicBool>,
    /// A store can hit a full disk although `grow` succeeded, so pages are prefaulted first.
    prefault_first: AtomicBool,
    /// The file lacked blocks of its own when it was mapped, so a store may take a block. Copies
    /// that leave out zeros or share blocks are such files.
    lacks_blocks: AtomicBool,
    /// The mapping is ready for stores (`ready`).
    ready: AtomicBool,
    /// Held while a meta page is stored.
    storing_meta_page: Mutex<()>,
    hooks: MappingHooks,
    /// The open file description of the log, once it was opened.
    log_description: OnceLock<Arc<File>>,
}

/// The usable bytes of a file that is being mapped, and what follows them.
fn usable_bytes(file: &File, shares: Option<(&FileLength, bool)>, options: &MapOptions) -> io::Result<(u64, FileEnd)> {
    let (len, end) = match shares {
        Some((length, true)) => length.load().ok_or_else(damaged_length)?,
        _ => (file_calls::end_of(file)?.min(options.used_bytes.unwrap_or(u64::MAX)), FileEnd::Untouched),
    };
    Ok((len & !(options.page_size as u64 - 1), end))
}

/// The error of a length that no process has stored.
fn damaged_length() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the lock file is damaged")
}

/// Locks a mutex even if a thread panicked while holding it: the protected data is consistent at
/// every point where a panic can occur.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Mapping {
    /// Maps a file at its present length, rounded down to whole pages. It may be empty. A writable
    /// mapping can be stored to after [`Mapping::ready_to_write`].
    pub(crate) fn of_file(file: File, writable: bool, options: MapOptions) -> io::Result<Mapping> {
        Mapping::new(file, writable, (false, None), None, options)
    }

    /// Maps a file that other processes may have open too. `joins`: they do, and `length` says how
    /// long the file is; otherwise this is stored there.
    pub(crate) fn of_shared_file(
        file: File,
        writable: bool,
        options: MapOptions,
        length: &FileLength,
        joins: bool,
    ) -> io::Result<Mapping> {
        let mapping = Mapping::new(file, writable, (false, None), Some((length, joins)), options)?;
        if writable {
            // If this fails, opening the log fails too, and the database works without one.
            best_effort(mapping.log_description());
        }
        Ok(mapping)
    }

    /// Maps memory that has no file. It behaves like a file that is lost at the end.
    pub(crate) fn anonymous(options: MapOptions) -> io::Result<Mapping> {
        let mapping = Mapping::new(descriptor::memory_file()?, true, (true, None), None, options)?;
        mapping.ready_to_write()?;
        Ok(mapping)
    }

    /// Maps memory that processes share: a file in memory, which lives as long as one of them has
    /// it. `joins` and `length` as in [`Mapping::of_shared_file`].
    pub(crate) fn of_shared_memory(
        file: File,
        writable: bool,
        options: MapOptions,
        length: &FileLength,
        joins: bool,
    ) -> io::Result<Mapping> {
        Mapping::new(file, writable, (true, None), Some((length, joins)), options)
    }

    fn new(
        file: File,
        writable: bool,
        (anonymous, base): (bool, Option<(Arc<File>, u64)>),
        shares: Option<(&FileLength, bool)>,
        options: MapOptions,
    ) -> io::Result<Mapping> {
        let page_size = options.page_size;
        assert!(limits::page_size_ok(page_size), "page size {page_size} is not allowed");
        let (len, end) = usable_bytes(&file, shares, &options)?;
        let wanted = budget::first_window(options.window_bytes, len, writable);
        let file = Arc::new(file);
        let read = base.as_ref().map_or(&file, |(base, _)| base);
        let over_file = base.is_some();
        let in_memory = anonymous && !over_file;
        let shared = Shared {
            record: Arc::new(FaultRecord::default()),
            // Only memory of this process is always served.
            fault_guard: options.fault_guard && (shares.is_some() || !in_memory),
            strict: hooks::is_strict(),
            file: Arc::clone(read),
            ahead: Arc::new(Ahead::new(read, len, !in_memory && !file_calls::lives_in_memory(read))),
            base,
            length: shares.map_or_else(FileLength::private, |(length, _)| length.clone()),
            follows: shares.is_some(),
            resizing: Arc::default(),
            reserved: Arc::default(),
        };
        let has_sentinel = end == FileEnd::Sentinel;
        let mapped_to = if writable || has_sentinel { sentinel::file_len_for(len)? } else { len };
        let map = |window: &Window| window.extend_read_range(&file, mapped_to);
        let window = Arc::new(Window::reserve((wanted, len), page_size, writable, &shared, map)?);
        window.register_fault_flag();
        match end {
            FileEnd::Untouched => window.watch_last_byte(&file, len)?,
            _ => window.watch_end(len, end),
        }
        window.publish(len);
        if !shares.is_some_and(|(_, joins)| joins) {
            shared.length.store(len, end);
        }
        Ok(Mapping {
            file,
            shared,
            page_size,
            writable,
            anonymous,
            window_id: AtomicU64::new(window.id()),
            current: Mutex::new(window),
            write_map_taken: Arc::default(),
            prefault_first: AtomicBool::new(false),
            lacks_blocks: AtomicBool::new(false),
            ready: AtomicBool::new(false),
            storing_meta_page: Mutex::new(()),
            // Memory over a file is a step of opening the file.
            hooks: if over_file { MappingHooks::none() } else { MappingHooks::take_next() },
            log_description: OnceLock::new(),
        })
    }

    /// Chooses whether pages are read before they are needed.
    pub(crate) fn set_read_ahead(&self, read_ahead: ReadAhead) {
        self.shared.ahead.set(read_ahead);
    }

    /// Reads bytes of the file by `pread` and not through the mapping, for pages that the writer
    /// may be storing to. The kernel makes the copy: it may be torn, but no Rust reference leads to
    /// claimed pages.
    pub(crate) fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let base = self.shared.base.as_ref().filter(|(_, len)| offset < *len);
        base.map_or(&self.file, |(base, _)| base).read_exact_at(into, offset).map_err(refused::by("pread"))
    }

    /// The file.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// The current length of the file, which another process may have changed.
    pub(crate) fn file_len(&self) -> io::Result<u64> {
        file_calls::end_of(&self.file)
    }

    fn window(&self) -> Arc<Window> {
        Arc::clone(&lock(&self.current))
    }

    /// Pins the current window. A reader keeps its `ReadMap` and gets a new one after
    /// [`Mapping::window_id`] has changed.
    pub(crate) fn read_map(&self) -> ReadMap {
        ReadMap::new(self.window())
    }

    /// The id of the current window. After it changed, new pages are reached only through a new
    /// `ReadMap`.
    #[inline]
    pub(crate) fn window_id(&self) -> u64 {
        self.window_id.load(Ordering::Acquire)
    }

    /// Returns the right to store to the file, which one `WriteMap` at a time has; `None` if it is
    /// taken or the mapping is not ready for stores.
    pub(crate) fn write_map(&self) -> Option<WriteMap> {
        self.is_ready_to_write().then(|| WriteMap::take(self.window(), &self.write_map_taken)).flatten()
    }

    /// Whether pages must be prefaulted before they are stored to, because a store may find the
    /// disk full: the file system cannot reserve blocks, or writes every change to new ones, or the
    /// file lacks some.
    #[inline]
    pub(crate) fn prefaults_first(&self) -> bool {
        self.lacks_blocks.load(Ordering::Relaxed) || self.prefault_first.load(Ordering::Relaxed)
    }

    /// Address space that the windows of the file have reserved, including those that only readers
    /// still pin.
    pub(crate) fn reserved_bytes(&self) -> u64 {
        self.shared.reserved.load(Ordering::Relaxed)
    }

    /// Bytes that the file takes on the disk, or in memory.
    pub(crate) fn disk_bytes(&self) -> io::Result<u64> {
        file::allocated_bytes(&self.file)
    }

    /// Faults in the mapped part of a range for writing, from any thread. Changes no bytes.
    /// `Ok(false)`: the kernel does not support or permit that.
    pub(crate) fn prefault(&self, offset: u64, len: u64) -> io::Result<bool> {
        self.window().prefault(offset, len)
    }

    /// Whether the page cache holds pages of these extents in large folios. The writer has stored
    /// to them. If many more bytes around them are dirty than were stored, the folios are large.
    pub(crate) fn has_large_folios(&self, stored: &[(PageId, u64)]) -> bool {
        const SAMPLES_MAX: usize = 32;
        let page_size = self.page_size as u64;
        let stored_around = |offset: u64| {
            let near = |&&(id, _): &&(PageId, u64)| folios::are_neighbours(id.0 * page_size, offset);
            stored.iter().filter(near).map(|&(_, pages)| pages * page_size).sum::<u64>()
        };
        let step = stored.len().div_ceil(SAMPLES_MAX).max(1);
        let mut sample = stored.iter().step_by(step).map(|&(id, _)| id.0 * page_size);
        !self.anonymous && sample.any(|offset| folios::are_large(&self.file, offset, stored_around(offset)))
    }

    /// Drops the clean pages of the file from the page cache, unless another program has them
    /// mapped. Then they are read ahead and verified again, as after opening. Readers go on
    /// meanwhile.
    pub(crate) fn drop_cache(&self) {
        if self.is_faulted() {
            return;
        }
        // Both calls are advice; pages that they do not drop stay.
        best_effort(self.window().release_pages().and_then(|()| self.shared.ahead.drop_cache(0, 0)));
        self.forget_cached();
    }

    /// Unmaps all pages, so that another process can drop them from the page cache. The next access
    /// brings a page back.
    pub(crate) fn release_all(&self) {
        if !self.is_faulted() {
            best_effort(self.window().release_pages());
            self.forget_cached();
        }
    }

    /// Forgets which pages are in the page cache.
    fn forget_cached(&self) {
        // A page that counts as verified is not read ahead.
        self.window().verified_bitmap().clear();
        self.shared.ahead.forget_examined();
    }

    /// Whether an access that the kernel cannot serve becomes an error. Otherwise it kills the
    /// process.
    pub(crate) fn has_fault_guard(&self) -> bool {
        self.shared.fault_guard
    }

    /// Whether an access to the mapping has failed.
    #[inline]
    pub(crate) fn is_faulted(&self) -> bool {
        self.shared.record.is_set()
    }

    /// The error of the first access to the mapping that failed, if one has.
    pub(crate) fn fault(&self) -> Option<Error> {
        self.shared.error()
    }

    /// Whether the first `needed` bytes are intact: no access failed, and the file still has them.
    /// A file that is too short is recorded like a failed access.
    pub(crate) fn has_whole(&self, needed: u64) -> io::Result<bool> {
        let len = self.file_len()?;
        if len < needed {
            self.shared.record.set(len);
        }
        Ok(self.window().all_served() && !self.is_faulted())
    }

    /// Makes a range of the file durable, no matter whether it was written by stores or `pwrite`,
    /// and waits. From any thread.
    pub(crate) fn flush(&self, kind: FlushKind, offset: u64, len: u64) -> io::Result<()> {
        if !self.writable {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "flush of a read-only mapping"));
        }
        let window = self.window();
        self.hooks.before_flush(&*window, kind, offset, len)?;
        if !self.anonymous {
            window.sync(offset, len, &self.file)?;
        }
        self.hooks.after_flush(&*window, kind, offset, len)
    }

    /// Makes the whole file durable. An error of write-back that another process has seen since
    /// this process opened the file is reported here too.
    pub(crate) fn flush_all(&self, kind: FlushKind) -> io::Result<()> {
        let window = self.window();
        let len = window.mapped();
        self.hooks.before_flush(&*window, kind, 0, len)?;
        if !self.anonymous {
            file_calls::sync_file(&self.file)?;
        }
        self.hooks.after_flush(&*window, kind, 0, len)
    }

    /// Whether test hooks observe each step. Then steps must not run concurrently.
    pub(crate) fn is_watched(&self) -> bool {
        self.hooks.is_set()
    }
}

impl std::fmt::Debug for Mapping {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mapping").finish_non_exhaustive()
    }
}
