//! Pages that are built in private memory and written with `pwrite`, by a thread once there are
//! many.
//!
//! Floor: pager. For pages whose final bytes are known before they go into the file, as in a bulk
//! load. A `pwrite` costs no page fault, and write-back begins while the next pages are built, so
//! little is left for the flush of the commit. The kernel needs some microseconds for each page
//! that is new in the page cache, about as long as building a page takes, so a second thread
//! writes. The building thread starts the write-back: the kernel lets only one thread write to a
//! file at a time, but runs write-back concurrently.
//!
//! Invariants:
//!   QUEUE-1  Nothing borrows a page between `put` and the write. The building thread clears its
//!       verified byte before and sets it after, and a reader of a page without a verified byte
//!       waits first.
//!   QUEUE-2  Each page is written once, with its final bytes.
//!   QUEUE-3  The thread ends with the write queue. It accesses no page of the mapping and
//!       never panics.
//!
//! Failure: the queue stores the first write error, and every later call returns it. A child after
//! `fork` has no such thread: in it, the queue neither waits nor writes.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use crate::error::best_effort;
use crate::ids::PageId;
use crate::mapping::{Mapping, ReadMap};
use crate::page::checksum;
use crate::pager::read::snapshot_pages::verified_byte_of;
use crate::sys::fork;

/// Maximum size of one batch, unless a single extent is longer.
const BATCH_BYTES: usize = 256 << 10;
/// Shortest batch whose write-back is started. Shorter ones are left to the flush: the calls would
/// cost more than they save.
const WRITE_BACK_BYTES: usize = 64 << 10;
/// Maximum number of batches that wait for the thread.
const BATCHES_WAITING: usize = 32;
/// Bytes sent from which on write-back starts early and starting a thread pays.
const LARGE_BYTES: u64 = 2 << 20;

/// Consecutive pages that wait to be written.
#[derive(Default, Debug)]
struct Batch {
    first: PageId,
    bytes: Vec<u8>,
    /// The pages and extents of this batch, each of which lies whole in it, and the verified bytes
    /// that they get once they are written.
    verified_bytes: Vec<(PageId, u8)>,
}

impl Batch {
    fn pages(&self, page_size: usize) -> std::ops::Range<u64> {
        self.first.0..self.first.0 + (self.bytes.len() / page_size) as u64
    }
}

/// State shared by the building thread and the writing thread.
#[derive(Default, Debug)]
struct State {
    waiting: VecDeque<Batch>,
    /// Batches that the thread is writing now.
    writing: usize,
    /// Ranges of the file that are written but whose write-back was not started: offset and length,
    /// in bytes.
    to_start: Vec<(u64, u64)>,
    /// Buffers to reuse.
    spare: Vec<Batch>,
    /// Pages that are written but whose verified byte is not set yet.
    written: Vec<(PageId, u8)>,
    failed: Option<(io::ErrorKind, String)>,
    ending: bool,
}

#[derive(Default, Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sleep<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }
}

/// A queue of built pages that are written to the file.
#[derive(Debug)]
pub(crate) struct WriteQueue {
    mapping: Arc<Mapping>,
    page_size: usize,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    /// The process that has the thread.
    process: u32,
    /// The batch that is being collected.
    batch: Option<Batch>,
    sent_bytes: u64,
    /// Whether to start write-back early, because the pages will probably not change again.
    stays: bool,
}

impl WriteQueue {
    pub(crate) fn new(mapping: Arc<Mapping>, page_size: usize, stays: bool) -> WriteQueue {
        WriteQueue {
            mapping,
            page_size,
            shared: Arc::default(),
            thread: None,
            process: fork::id(),
            batch: None,
            sent_bytes: 0,
            stays,
        }
    }

    /// Adds a built and sealed page or extent. Clears the verified bytes of its pages, which
    /// belonged to their old contents.
    pub(crate) fn put(&mut self, id: PageId, sealed: &[u8], read_map: &ReadMap) -> io::Result<()> {
        let pages = (sealed.len() / self.page_size) as u64;
        let follows =
            |batch: &Batch| batch.pages(self.page_size).end == id.0 && batch.bytes.len() + sealed.len() <= BATCH_BYTES;
        if !self.batch.as_ref().is_some_and(follows) {
            self.send(read_map)?;
        }
        (id.0..id.0 + pages).for_each(|page| read_map.set_verified(PageId(page), 0));
        let batch = self.batch.get_or_insert_with(|| {
            let spare = self.shared.lock().spare.pop().unwrap_or_default();
            Batch { first: id, ..spare }
        });
        batch.bytes.extend_from_slice(sealed);
        batch.verified_bytes.push((id, verified_byte_of(checksum::stored(sealed))));
        Ok(())
    }

    /// Sends the collected batch to the thread, or writes it if there is none.
    fn send(&mut self, read_map: &ReadMap) -> io::Result<()> {
        if self.is_inherited() {
            // The pages belong to the parent, and a thread of the parent may hold the lock.
            return Err(io::Error::other("a child process after fork must not write pages of its parent"));
        }
        self.check()?;
        let Some(batch) = self.batch.take() else { return Ok(()) };
        self.sent_bytes += batch.bytes.len() as u64;
        if self.sent_bytes >= LARGE_BYTES && self.thread.is_none() && !self.mapping.is_watched() {
            self.start_thread();
        }
        if self.thread.is_some() {
            let mut state = self.shared.lock();
            while state.waiting.len() >= BATCHES_WAITING {
                state = self.shared.sleep(state);
            }
            set_verified_written(&mut state, read_map);
            state.waiting.push_back(batch);
            drop(state);
            self.shared.changed.notify_all();
        } else {
            // Few pages so far, or the kernel refused a thread.
            let done = write(&self.mapping, self.page_size, &batch);
            let mut state = self.shared.lock();
            note(&mut state, self.page_size, batch, done);
            set_verified_written(&mut state, read_map);
        }
        if self.stays && self.sent_bytes >= LARGE_BYTES {
            self.start_write_back()?;
        }
        self.check()
    }

    /// Starts the write-back of the ranges that are written.
    fn start_write_back(&self) -> io::Result<()> {
        let ranges = std::mem::take(&mut self.shared.lock().to_start);
        for (offset, len) in ranges {
            self.mapping.start_write_back(offset, len)?;
        }
        Ok(())
    }

    /// Whether this process is a child that inherited the queue through `fork`, without the thread.
    fn is_inherited(&self) -> bool {
        self.process != fork::id()
    }

    /// Starts the writing thread. If the kernel refuses one, the building thread goes on writing.
    fn start_thread(&mut self) {
        let (mapping, shared, page_size) = (Arc::clone(&self.mapping), Arc::clone(&self.shared), self.page_size);
        let work = move || {
            let mut state = shared.lock();
            loop {
                if let Some(batch) = state.waiting.pop_front() {
                    state.writing += 1;
                    drop(state);
                    let done = write(&mapping, page_size, &batch);
                    state = shared.lock();
                    state.writing -= 1;
                    note(&mut state, page_size, batch, done);
                    shared.changed.notify_all();
                } else if state.ending {
                    return;
                } else {
                    state = shared.sleep(state);
                }
            }
        };
        self.thread = std::thread::Builder::new().name("mapleaf-write".into()).spawn(work).ok();
    }

    /// Sends the rest and waits until everything is written.
    pub(crate) fn finish(&mut self, read_map: &ReadMap) -> io::Result<()> {
        self.send(read_map)?;
        self.wait(read_map);
        self.check()
    }

    /// Waits until page `id` is written, if it is in the queue. On an error, which is stored, the
    /// page keeps its old contents.
    pub(crate) fn bring(&mut self, id: PageId, read_map: &ReadMap) {
        if self.batch.as_ref().is_some_and(|batch| batch.pages(self.page_size).contains(&id.0)) {
            // `finish` returns the first error again.
            best_effort(self.send(read_map));
        }
        self.wait(read_map);
    }

    /// Waits until everything that was sent is written or has failed. Does not send the batch that
    /// is being collected.
    pub(crate) fn wait(&self, read_map: &ReadMap) {
        if self.is_inherited() {
            return;
        }
        let mut state = self.shared.lock();
        while self.thread.is_some() && (state.writing > 0 || !state.waiting.is_empty()) {
            state = self.shared.sleep(state);
        }
        set_verified_written(&mut state, read_map);
    }

    /// The first error, if there was one.
    fn check(&self) -> io::Result<()> {
        match &self.shared.lock().failed {
            Some((kind, what)) => Err(io::Error::new(*kind, what.clone())),
            None => Ok(()),
        }
    }
}

impl Drop for WriteQueue {
    fn drop(&mut self) {
        let Some(thread) = self.thread.take() else { return };
        if self.is_inherited() {
            // In a child after `fork`: the thread is the parent's.
            std::mem::forget(thread);
            return;
        }
        let mut state = self.shared.lock();
        state.ending = true;
        // Waiting batches mean that `finish` was not called: the transaction aborts and needs none
        // of the pages.
        state.waiting.clear();
        drop(state);
        self.shared.changed.notify_all();
        best_effort(thread.join());
    }
}

/// Writes a batch.
fn write(mapping: &Mapping, page_size: usize, batch: &Batch) -> io::Result<()> {
    mapping.write_pages(batch.first.0 * page_size as u64, &batch.bytes)
}

/// Records the result of a write and keeps the buffer for reuse.
fn note(state: &mut State, page_size: usize, mut batch: Batch, done: io::Result<()>) {
    match done {
        Ok(()) => {
            state.written.append(&mut batch.verified_bytes);
            if batch.bytes.len() >= WRITE_BACK_BYTES {
                state.to_start.push((batch.first.0 * page_size as u64, batch.bytes.len() as u64));
            }
        }
        Err(e) => {
            state.failed.get_or_insert((e.kind(), e.to_string()));
            state.waiting.clear();
        }
    }
    // Do not keep the buffer of a large extent.
    if state.spare.len() < BATCHES_WAITING && batch.bytes.capacity() <= 2 * BATCH_BYTES {
        batch.bytes.clear();
        batch.verified_bytes.clear();
        state.spare.push(batch);
    }
}

/// Sets the verified bytes of pages that are written. Called by the building thread (QUEUE-1).
fn set_verified_written(state: &mut State, read_map: &ReadMap) {
    for (id, verified_byte) in state.written.drain(..) {
        read_map.set_verified(id, verified_byte);
    }
}
