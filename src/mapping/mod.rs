//! The mapping: a file, or memory without a file, as bytes at addresses that never move while
//! somebody uses them.
//!
//! Floor: mapping. Knows pages by number and size alone, nothing of what is in them.
//!
//! ```text
//! os, file_calls, refused    system calls; what a kernel says that refuses one
//! reservation, window        address space, and the read-only mappings of readers
//! bounds, budget             sums that do not overflow; how much address space all databases of the process take
//! writable mapping, claims             the writer's side
//! guard                      accesses that cannot be served
//! ready, backing             what is made before the first store; whether stores take new blocks
//! writing, scratch           pages that are written by `pwrite`; memory for sorting
//! ahead, memory, residence   what is read before it is needed, how much memory there is, what is in it
//! folios, marked, prefetch   the page cache's folios; verified pages; the processor's cache
//! file, disk, descriptor   files made, past the page cache, and above the standard descriptors
//! locks, holder, rights      locks and their holders; the mode of files
//! process, cell              a child after `fork`; a cell with one owner at a time
//! hooks, confine              for tests
//! ```
//!
//! Invariants:
//!   MAP-1  growing never waits for a reader and never moves memory that a reader holds: the file
//!       is mapped into a reserved window; a full window is replaced by a larger one, and stays for
//!       those who have pinned it.
//!   MAP-2  blocks are reserved before the file gets longer, so that a full disk is an error of
//!       `grow`. Where the file system cannot reserve, the pages are prefaulted instead.
//!   MAP-3  lengths are published after the range is mapped and the blocks are there; a failed
//!       `grow` publishes nothing and puts the file's length back.
//!   MAP-4  one writable mapping at most is out.
//!   MAP-5  from the moment when it can be stored to (`ready`), a file is longer than what can be
//!       used, by a page of the system for the sentinel (`window`), unless it may not get longer.
//!       So a cut anywhere in what is used is noticed, and a file that nobody has open and that is
//!       no longer than its newest state was closed in order.
//!   MAP-6  a mapping in which an access failed is never grown.
//!
//! Failure: `io::Error`, with the kind `StorageFull` for a full disk. A store to a page without a
//! claim panics. Only a program outside can make an access fail: by cutting the file, or by a disk
//! that fails. It is recorded, and
//! [`ReadMap::all_served`] and [`Mapping::fault`] say so.

mod bounds;
pub(crate) mod budget;
mod claims;
pub(crate) mod file;
mod ready;
mod reservation;
mod window;

pub(crate) mod pwrite;
pub(crate) mod read_ahead;
pub(crate) mod residency;
pub(crate) mod sigbus;
#[cfg(test)]
mod tests;
pub(crate) mod verified;
pub(crate) mod write_map;

use crate::hooks::{self, FlushKind, Moment};
use crate::sys::descriptor;
use crate::sys::file_calls;
use crate::sys::folios;
use crate::sys::os;
use crate::sys::refused;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::Error;
use crate::ids::PageId;
use read_ahead::Ahead;
#[allow(unreachable_pub, reason = "an option of the crate's users")]
pub use read_ahead::ReadAhead;
pub(crate) use read_ahead::CHUNK_BYTES;
use ready::with_sentinel;
use reservation::Watch;
use sigbus::FaultRecord;
pub(crate) use verified::VerifiedPages;
pub(crate) use window::ReadMap;
use window::Window;
pub(crate) use write_map::WriteMap;

/// How to map.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MapOptions {
    /// Page size of the database: lengths are multiples of it.
    pub(crate) page_size: usize,
    /// Address space of the first window; otherwise the larger of 64 GiB and 16 x the file, or what
    /// the budget has.
    pub(crate) window_bytes: Option<u64>,
    /// Whether accesses that cannot be served are recorded; else they end the process.
    pub(crate) fault_guard: bool,
    /// No more than these bytes of the file are used, where it may be longer.
    pub(crate) used_bytes: Option<u64>,
}

/// A mapped file. Shared through an `Arc`; all methods take `&self`.
pub(crate) struct Mapping {
    file: Arc<File>,
    watch: Watch,
    page_size: usize,
    writable: bool,
    /// A file in memory: nothing to flush, no blocks to reserve.
    anonymous: bool,
    current: Mutex<Arc<Window>>,
    /// The id of `current`, to be asked without the lock.
    window_id: AtomicU64,
    write_map_out: Arc<AtomicBool>,
    /// Stores can meet a full disk although `grow` succeeded: pages are to be prefaulted first.
    prefault_first: AtomicBool,
    /// The file lacked blocks of its own when it was mapped, as copies do that leave zeros out or
    /// share blocks: a store there takes a block.
    lacks_blocks: AtomicBool,
    /// What only writing needs is there (`ready`).
    ready: AtomicBool,
    /// One at a time changes the length or what is mapped.
    resizing: Mutex<()>,
    /// One at a time stores a meta page.
    storing_meta_page: Mutex<()>,
    hooks: hooks::Watch,
}

/// A lock whose holder panicked is taken all the same: what these locks protect is whole between
/// any two steps.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Mapping {
    /// Maps a file as long as it is now, rounded down to whole pages; none is allowed. A writable
    /// one can be stored to when
    /// [`Mapping::ready_to_write`] has been called.
    pub(crate) fn of_file(file: File, writable: bool, options: MapOptions) -> io::Result<Mapping> {
        Mapping::new(file, writable, false, options)
    }

    /// Maps memory without a file behind it, which behaves like a file that is lost at the end.
    pub(crate) fn anonymous(options: MapOptions) -> io::Result<Mapping> {
        let mapping = Mapping::new(descriptor::memory_file()?, true, true, options)?;
        mapping.ready_to_write()?;
        Ok(mapping)
    }

    fn new(file: File, writable: bool, anonymous: bool, options: MapOptions) -> io::Result<Mapping> {
        let page_size = options.page_size;
        assert!(crate::limits::page_size_ok(page_size), "page size {page_size} is not allowed");
        os::advise_random(&file);
        let len = file_calls::end_of(&file)?.min(options.used_bytes.unwrap_or(u64::MAX)) & !(page_size as u64 - 1);
        let wanted = budget::first_window(options.window_bytes, len, writable);
        let file = Arc::new(file);
        let watch = Watch {
            record: Arc::new(FaultRecord::default()),
            fault_guard: options.fault_guard && !anonymous,
            strict: hooks::is_strict(),
            file: Arc::clone(&file),
            ahead: Arc::new(Ahead::new(&file, len, !anonymous && !file_calls::lives_in_memory(&file))),
            reserved: Arc::default(),
        };
        let mapped_to = if writable { with_sentinel(len)? } else { len };
        let map = |window: &Window| window.extend_read_map(&file, mapped_to);
        let window = Arc::new(Window::reserve((wanted, len), page_size, writable, &watch, map)?);
        window.arm();
        window.publish(len, false);
        ready::watch_last_byte(&file, &window, len)?;
        Ok(Mapping {
            file,
            watch,
            page_size,
            writable,
            anonymous,
            window_id: AtomicU64::new(window.id()),
            current: Mutex::new(window),
            write_map_out: Arc::new(AtomicBool::new(false)),
            prefault_first: AtomicBool::new(false),
            lacks_blocks: AtomicBool::new(false),
            ready: AtomicBool::new(false),
            resizing: Mutex::new(()),
            storing_meta_page: Mutex::new(()),
            hooks: hooks::Watch::take_next(),
        })
    }

    /// Says whether pages are read before they are needed.
    pub(crate) fn set_read_ahead(&self, read_ahead: ReadAhead) {
        self.watch.ahead.set(read_ahead);
    }

    /// Reads bytes of the file by a call and not through the mapping, for looking at pages that the
    /// writer may be storing to: the copy is the system's, so it may be torn, but is no access of
    /// ours to claimed pages.
    pub(crate) fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(into, offset).map_err(refused::by("pread"))
    }

    /// The length of the file now, whichever process changed it.
    pub(crate) fn file_len(&self) -> io::Result<u64> {
        file_calls::end_of(&self.file)
    }

    fn window(&self) -> Arc<Window> {
        Arc::clone(&lock(&self.current))
    }

    /// Pins the current window. Readers keep their read-only mapping and ask for another when
    /// [`Mapping::window_id`] has changed.
    pub(crate) fn read_map(&self) -> ReadMap {
        ReadMap::new(self.window())
    }

    /// Names the current window. After a new one was made, everything new is reached through a
    /// read-only mapping of it.
    #[inline]
    pub(crate) fn window_id(&self) -> u64 {
        self.window_id.load(Ordering::Acquire)
    }

    /// Takes the right to store, if nobody has it and the mapping is ready for it.
    pub(crate) fn write_map(&self) -> Option<WriteMap> {
        self.is_ready_to_write().then(|| WriteMap::take(self.window(), &self.write_map_out)).flatten()
    }

    /// Whether pages are to be prefaulted ([`WriteMap::prefault`]) before they are stored to, as
    /// the file system may run out of space at a store (it cannot reserve blocks, or writes every
    /// change to new ones, or the file lacks some).
    #[inline]
    pub(crate) fn must_prefault(&self) -> bool {
        self.lacks_blocks.load(Ordering::Relaxed) || self.prefault_first.load(Ordering::Relaxed)
    }

    /// Address space that is reserved for the file: its windows, those that only readers still have
    /// included.
    pub(crate) fn reserved_bytes(&self) -> u64 {
        self.watch.reserved.load(Ordering::Relaxed)
    }

    /// Bytes that the file takes on the disk (in memory, for memory).
    pub(crate) fn disk_bytes(&self) -> io::Result<u64> {
        file::allocated_bytes(&self.file)
    }

    /// Faults in a range of the file for writing, as far as it is mapped, from any thread. Changes
    /// nothing. `Ok(false)`: this kernel cannot, or refuses to.
    pub(crate) fn prefault(&self, offset: u64, len: u64) -> io::Result<bool> {
        self.window().prefault(offset, len)
    }

    /// Makes the file at least `new_len` bytes long (rounded up to whole pages), with blocks behind
    /// them, and maps it. The writable mapping has the new pages afterwards; read-only mappings of
    /// a window that was full do not. An error leaves all as it was.
    pub(crate) fn grow(&self, write_map: &mut WriteMap, new_len: u64) -> io::Result<()> {
        assert!(Arc::ptr_eq(&write_map.out, &self.write_map_out), "grown with the writable mapping of another mapping");
        let new_len = window::round_up(new_len, self.page_size as u64)?;
        let _resizing = lock(&self.resizing);
        let window = self.window();
        if new_len <= window.mapped() {
            write_map.switch(window);
            return Ok(());
        }
        self.hooks.growing(new_len)?;
        let old_len = self.file_len()?;
        if old_len < window.mapped() {
            self.watch.record.set(old_len);
        }
        if self.watch.record.is_set() {
            return Err(io::Error::other("an access to the mapping failed"));
        }
        let file_len = with_sentinel(new_len)?;
        // Address space first: a refusal costs little then, and the caller may try a smaller step.
        let grown = self.map_up_to(&window, new_len).and_then(|next| {
            self.lengthen(old_len.min(window.mapped()), old_len, file_len)?;
            ready::write_sentinel(&self.file, new_len)?;
            // Cut since its length was looked at, it was just made long enough again, with a hole
            // in it.
            if !window.all_served() {
                return Err(io::Error::other("the file was cut while it grew"));
            }
            if !self.anonymous && self.prefault_first.load(Ordering::Relaxed) {
                let (from, len) = (window.mapped(), new_len - window.mapped());
                if !next.prefault(from, len)? {
                    // Nothing is stored there yet but the sentinel of what is used so far.
                    self.write_zeros(from, len, window::sentinel_offset(from) + 1)?;
                }
            }
            Ok(next)
        });
        match grown {
            Ok(next) => {
                self.publish(Arc::clone(&next), new_len, true);
                write_map.switch(next);
                self.hooks.resized(new_len);
                Ok(())
            }
            Err(error) => {
                // Also gives back blocks that were reserved. If this fails too, the file stays too
                // long, no more; but it is not made longer, which would hide that it was cut.
                if self.file_len().is_ok_and(|now| now >= old_len) {
                    drop(file_calls::set_len(&self.file, old_len));
                }
                Err(error)
            }
        }
    }

    /// Reserves blocks for what is used of the file from `used` on, then makes it longer. A file
    /// that is long enough stays.
    fn lengthen(&self, used: u64, old_len: u64, new_len: u64) -> io::Result<()> {
        if new_len <= old_len {
            return Ok(());
        }
        hooks::reach(Moment::Lengthening);
        if !self.anonymous && !file_calls::reserve_blocks(&self.file, used, new_len - used)? {
            self.prefault_first.store(true, Ordering::Relaxed);
        }
        file_calls::set_len(&self.file, new_len)
    }

    /// Maps the file up to `new_len`: in the window if it has room, else in a new and larger one.
    /// Publishes nothing.
    fn map_up_to(&self, window: &Arc<Window>, new_len: u64) -> io::Result<Arc<Window>> {
        let mapped_to = if self.writable { with_sentinel(new_len)? } else { new_len };
        if new_len <= window.room() {
            match window.extend(&self.file, mapped_to) {
                // The move into the reservation failed and cost it its tail: try a new window.
                Err(_) if window.room() < new_len => {}
                other => {
                    let more = mapped_to - window.mapped();
                    return other.map(|()| Arc::clone(window)).map_err(|e| budget::explain(e, more));
                }
            }
        }
        let sizes = (budget::larger_window(window.room(), new_len, self.writable), new_len);
        let map = |next: &Window| next.extend(&self.file, mapped_to);
        let next = Arc::new(Window::reserve(sizes, self.page_size, self.writable, &self.watch, map)?);
        next.arm();
        Ok(next)
    }

    /// Makes `len` bytes of a window usable and the window current.
    fn publish(&self, window: Arc<Window>, len: u64, verified: bool) {
        window.publish(len, verified);
        let id = window.id();
        let current = self.window();
        if current.id() != id {
            current.retire();
        }
        let old = std::mem::replace(&mut *lock(&self.current), window);
        self.window_id.store(id, Ordering::Release);
        // Unmaps the old window if nobody has pinned it; outside the lock, as that takes time.
        drop(old);
    }

    /// Maps what another process has added to the file; returns the bytes that can be used now. A
    /// writable mapping that is out goes on with what it had, until it grows.
    #[cfg_attr(not(test), expect(dead_code, reason = "reserved for several processes at one file"))]
    pub(crate) fn follow(&self) -> io::Result<u64> {
        let _resizing = lock(&self.resizing);
        let window = self.window();
        let len = self.file_len()? & !(self.page_size as u64 - 1);
        if len > window.mapped() {
            let next = self.map_up_to(&window, len)?;
            self.publish(next, len, false);
        }
        Ok(self.window().mapped())
    }

    /// Cuts the file to `new_len` bytes, or gives back the blocks behind its end if it is no longer
    /// than that. For closing: nothing above `new_len` is read through any read-only mapping, in
    /// any process, from now on.
    pub(crate) fn shrink(&self, new_len: u64) -> io::Result<()> {
        let _resizing = lock(&self.resizing);
        let new_len = new_len.min(self.file_len()?);
        self.window().unpublish(new_len & !(self.page_size as u64 - 1));
        file_calls::set_len(&self.file, new_len)?;
        self.hooks.resized(new_len);
        Ok(())
    }

    /// Whether the page cache holds pages of these runs, which were stored to, in large folios:
    /// many more bytes are dirty around them than were stored.
    pub(crate) fn has_large_folios(&self, stored: &[(PageId, u64)]) -> bool {
        const LOOKED_AT: usize = 32;
        let page_size = self.page_size as u64;
        let around = |at: u64| {
            let near = |&&(id, _): &&(PageId, u64)| folios::are_neighbours(id.0 * page_size, at);
            stored.iter().filter(near).map(|&(_, pages)| pages * page_size).sum::<u64>()
        };
        let step = stored.len().div_ceil(LOOKED_AT).max(1);
        let mut sample = stored.iter().step_by(step).map(|&(id, _)| id.0 * page_size);
        !self.anonymous && sample.any(|at| folios::are_large(&self.file, at, around(at)))
    }

    /// Drops the page cache of the file, as far as it is clean and nobody else has it mapped; it
    /// comes back by the page. Readers go on meanwhile.
    pub(crate) fn drop_cache(&self) {
        if self.is_faulted() {
            return;
        }
        // Both are advice, and what they do not reach stays as it is.
        let _stays = self.window().let_go().and_then(|()| self.watch.ahead.drop_cache(0, 0));
    }

    /// Whether accesses that the system cannot serve are turned into errors.
    pub(crate) fn has_fault_guard(&self) -> bool {
        self.watch.fault_guard
    }

    /// Whether an access to the mapping has failed.
    #[inline]
    pub(crate) fn is_faulted(&self) -> bool {
        self.watch.record.is_set()
    }

    /// The error of the first access to the mapping that failed, if one has.
    pub(crate) fn fault(&self) -> Option<Error> {
        self.watch.error()
    }

    /// Whether nothing of the first `needed` bytes was lost: no access failed, and the file still
    /// has them. A file that is too short is recorded like an access that failed.
    pub(crate) fn has_whole(&self, needed: u64) -> io::Result<bool> {
        let len = self.file_len()?;
        if len < needed {
            self.watch.record.set(len);
        }
        Ok(self.window().all_served() && !self.is_faulted())
    }

    /// Makes a range of the file durable, whichever mapping or call stored to it, and waits. From
    /// any thread.
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

    /// Stores a whole meta page. Meta pages are read by copy alone ([`Mapping::read_copy`]), as
    /// they change in place. A wrong size or slot, a read-only mapping and a file without the slot
    /// are bugs and panic.
    pub(crate) fn store_meta_page(&self, slot: usize, page: &[u8]) {
        assert!(slot < 2 && page.len() == self.page_size, "meta page {slot} with {} bytes", page.len());
        let _storing = lock(&self.storing_meta_page);
        let stored = self.window().copy_in((slot * self.page_size) as u64, page);
        assert!(stored, "meta page {slot} is not mapped for writing");
        // A file system with a disk notes the time itself, with the fault of the first store after
        // a flush.
        if !self.anonymous && !self.watch.ahead.has_disk() {
            file_calls::note_change(&self.file);
        }
        self.hooks.stored_meta(slot);
    }

    /// Both meta pages, as they are between two stores of a meta page by this process.
    pub(crate) fn read_meta_pages(&self) -> Vec<u8> {
        let _storing = lock(&self.storing_meta_page);
        let mut bytes = vec![0; 2 * self.page_size];
        let read = self.read_copy(0, &mut bytes);
        assert!(read, "a database has two meta pages");
        bytes
    }

    /// Copies bytes out, also while somebody stores to them; `false`, and nothing copied, if not
    /// all are mapped.
    pub(crate) fn read_copy(&self, offset: u64, into: &mut [u8]) -> bool {
        self.window().copy_out(offset, into)
    }
}

impl std::fmt::Debug for Mapping {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mapping").finish_non_exhaustive()
    }
}

#[cfg(feature = "testing")]
impl Mapping {
    /// From now on so many bytes of page cache count as fitting in memory.
    pub(crate) fn set_room(&self, bytes: u64) {
        self.watch.ahead.set_room(bytes);
    }

    /// Sets the hooks of this mapping.
    pub(crate) fn set_hooks(&self, hooks: Arc<dyn hooks::Hooks>) {
        self.hooks.set(hooks);
    }

    /// Flushes that succeeded.
    pub(crate) fn flush_count(&self) -> u64 {
        self.hooks.flush_count()
    }
}
