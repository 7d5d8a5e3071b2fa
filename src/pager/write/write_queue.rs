//! Pages that are built in private memory and written by `pwrite`, on a thread of its own once
//! there are many.
//!
//! Floor: pager. For pages whose final bytes are known before they go into the file, as in a bulk
//! load. A `pwrite` costs no page fault and no second copy through the processor's cache, and
//! write-back begins while the next pages are built, so the flush of the commit finds little left
//! to do. The kernel needs some microseconds for each page that is new in its cache, as long as
//! building one takes, so a second thread writes. The builder starts the write-back: the kernel
//! lets one thread at a time write to a file, but runs write-back at the same time.
//!
//! Invariants:
//!   QUEUE-1  Nothing borrows a page between sending and writing. The builder's thread clears its
//!       verified byte before and sets it after, and a reader of a page without a verified byte
//!       waits first.
//!   QUEUE-2  Each page is written once, with its final bytes.
//!   QUEUE-3  The thread ends with the write queue. It reads and stores no page of the mapping and
//!       never panics.
//!
//! Failure: the first error of a write is stored, and every later call returns it. A child after
//! `fork` has no such thread: it waits for nothing and writes nothing.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use crate::ids::PageId;
use crate::mapping::{Mapping, ReadMap};
use crate::page::checksum;
use crate::pager::read::snapshot_pages::verified_byte_of;
use crate::sys::fork;

/// Bytes that are written and put under write-back at once.
const BATCH_BYTES: usize = 256 << 10;
/// Scattered pages are left to the flush: one call for each would cost more than it saves.
const WRITE_BACK_BYTES: usize = 64 << 10;
/// Batches that wait for the thread at most.
const BATCHES_WAITING: usize = 32;
/// Bytes sent before write-back is started early and a thread is worth its start.
const LARGE_BYTES: u64 = 2 << 20;

/// Consecutive pages on their way.
#[derive(Default, Debug)]
struct Batch {
    first: PageId,
    bytes: Vec<u8>,
    /// Pages and runs that begin here, and their verified bytes.
    verified_bytes: Vec<(PageId, u8)>,
}

impl Batch {
    fn pages(&self, page_size: usize) -> std::ops::Range<u64> {
        self.first.0..self.first.0 + (self.bytes.len() / page_size) as u64
    }
}

/// What builder and thread share.
#[derive(Default, Debug)]
struct State {
    waiting: VecDeque<Batch>,
    /// Batches that the thread writes at the moment.
    writing: usize,
    /// Ranges of the file that are written, and whose write-back was not started.
    to_start: Vec<(u64, u64)>,
    /// Buffers to be used again.
    spare: Vec<Batch>,
    /// What is written and has no mark yet.
    written: Vec<(PageId, u8)>,
    failed: Option<(io::ErrorKind, String)>,
    closed: bool,
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

/// Pages on their way into the file.
#[derive(Debug)]
pub(crate) struct WriteQueue {
    mapping: Arc<Mapping>,
    page_size: usize,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    /// The process that the thread lives in.
    process: u32,
    /// Pages that are collected: they follow each other.
    batch: Option<Batch>,
    sent_bytes: u64,
    /// Whether write-back is to begin early: what is written now is expected to stay.
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

    /// Takes a page or extent that is built and sealed. What lay there before is verified no more.
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

    /// Sends what was collected.
    fn send(&mut self, read_map: &ReadMap) -> io::Result<()> {
        if self.is_inherited() {
            // The pages are the parent's, and a thread of the parent may hold the lock.
            return Err(io::Error::other("a child after fork writes no page of its parent"));
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
            // The kernel had no thread to give, or there is not much yet.
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

    /// Starts the write-back of what is written.
    fn start_write_back(&self) -> io::Result<()> {
        let ranges = std::mem::take(&mut self.shared.lock().to_start);
        for (offset, len) in ranges {
            self.mapping.start_write_back(offset, len)?;
        }
        Ok(())
    }

    /// Whether this is a copy that a child got by `fork`, without the thread.
    fn is_inherited(&self) -> bool {
        self.process != fork::id()
    }

    /// Without a thread, which the kernel may refuse, the builder writes all.
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
                } else if state.closed {
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

    /// Waits until a page can be read, if it was put here. An error stays, and the page is as it
    /// was.
    pub(crate) fn bring(&mut self, id: PageId, read_map: &ReadMap) {
        if self.batch.as_ref().is_some_and(|batch| batch.pages(self.page_size).contains(&id.0)) {
            // `finish` reports the first error again.
            let _told_later = self.send(read_map);
        }
        self.wait(read_map);
    }

    /// Waits until everything that was sent is written, or has failed. What is still collected is
    /// not sent.
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
            // A child after `fork`: the thread is its parent's.
            std::mem::forget(thread);
            return;
        }
        let mut state = self.shared.lock();
        state.closed = true;
        // Without `finish`, the transaction aborts and needs none of these pages.
        state.waiting.clear();
        drop(state);
        self.shared.changed.notify_all();
        drop(thread.join());
    }
}

/// Writes a batch.
fn write(mapping: &Mapping, page_size: usize, batch: &Batch) -> io::Result<()> {
    mapping.write_pages(batch.first.0 * page_size as u64, &batch.bytes)
}

/// Notes what was written, or the first error, and takes the buffer back.
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
    // A buffer for a large run is not kept.
    if state.spare.len() < BATCHES_WAITING && batch.bytes.capacity() <= 2 * BATCH_BYTES {
        batch.bytes.clear();
        batch.verified_bytes.clear();
        state.spare.push(batch);
    }
}

/// Pages that this process wrote count as verified (QUEUE-1: by the thread that reads them).
fn set_verified_written(state: &mut State, read_map: &ReadMap) {
    for (id, verified_byte) in state.written.drain(..) {
        read_map.set_verified(id, verified_byte);
    }
}
