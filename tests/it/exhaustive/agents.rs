//! What agents do: each is a thread with a script of operations on the database.

use std::cell::Cell;
use std::io;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use mapleaf::testing::{
    at_moments, records, release_writer_lock, set_chain, set_log_shape, set_mutant, set_scheduled, set_sole,
    FlushEvent, Hooks, Moment, Mutant,
};
use mapleaf::{Db, Durability, Error, ErrorKind, Result, Table};

use super::book::{Book, Entries};
use super::disk::Disk;
use super::schedule::{agent, arrive, become_agent, was_stopped, Place, Schedule};

pub(super) const DATA: Table<u64, &[u8]> = Table::new("data");

/// An operation of an agent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Operation {
    /// Commits, and waits until the commit is durable.
    Immediate,
    /// Commits; nobody waits until the commit is durable.
    Unawaited,
    Eventual,
    /// Commits so much that the commit goes by checkpoint.
    Large,
    /// Changes something, and aborts.
    Abort,
    /// The append fails after the record was written.
    FailsToAppend,
    /// Commits; the next flush that this agent makes loses what it should make durable.
    FailsToFlush,
    /// A checkpoint beside writers.
    Checkpoint,
    /// Makes the latest state durable.
    Sync,
    /// Begins to read, reads the snapshot twice, and ends.
    Read,
}

/// More than a record may have.
const LARGE_BYTES: usize = 4200;

thread_local! {
    static FAILS: Cell<bool> = const { Cell::new(false) };
    static FLUSH_FAILS: Cell<bool> = const { Cell::new(false) };
    /// The agent may hold the writer lock without a transaction.
    static BEGINS: Cell<bool> = const { Cell::new(false) };
}

/// The book that agents write.
pub(super) type Shared = Arc<Mutex<Book>>;

pub(super) fn lock(book: &Mutex<Book>) -> MutexGuard<'_, Book> {
    book.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What every thread of an execution sets, until it is dropped.
pub(super) struct Prepared;

impl Prepared {
    /// `sole`: whether agents make sole commits when they can.
    pub(super) fn new(mutant: Option<Mutant>, log_bytes: u64, sole: bool) -> Prepared {
        set_log_shape(Some((0, log_bytes)));
        set_sole(Some(sole));
        set_scheduled(true);
        set_mutant(mutant);
        Prepared
    }
}

impl Drop for Prepared {
    fn drop(&mut self) {
        set_log_shape(None);
        set_sole(None);
        set_scheduled(false);
        set_mutant(None);
        set_chain(None);
    }
}

/// All entries of a table that can be read.
fn entries<'a>(found: impl Iterator<Item = Result<(u64, &'a [u8])>>) -> Result<Entries> {
    found.map(|entry| entry.map(|(key, value)| (key, value.to_vec()))).collect()
}

/// The entries of the newest state that is visible.
pub(super) fn visible(db: &Db) -> Result<(u64, Entries)> {
    let txn = db.begin_read()?;
    let table = txn.table(DATA)?;
    Ok((txn.txn_id(), entries(table.iter())?))
}

/// Commits before the agents begin.
pub(super) fn commit_all(db: &Db, operations: &[Operation], book: &mut Book) -> Result<()> {
    set_chain(Some(1));
    for (at, operation) in operations.iter().enumerate() {
        let mut txn = db.begin_write()?;
        let mut table = txn.table(DATA)?;
        table.put(1000, &[at as u8])?;
        let now = entries(table.iter())?;
        let commit = book.begin(txn.txn_id(), now);
        match operation {
            Operation::Unawaited => {
                drop(txn.commit_async()?);
                continue;
            }
            Operation::Eventual => txn.set_durability(Durability::Eventual),
            _ => {}
        }
        txn.commit()?;
        book.acknowledge(commit, *operation == Operation::Immediate);
    }
    Ok(())
}

/// Starts an agent.
pub(super) fn start(
    (schedule, number): (&Arc<Schedule>, usize),
    db: &Db,
    book: &Shared,
    script: &[Operation],
    (mutant, log_bytes, sole): (Option<Mutant>, u64, bool),
) -> JoinHandle<()> {
    let (schedule, db, book, script) = (Arc::clone(schedule), db.clone(), Arc::clone(book), script.to_vec());
    std::thread::spawn(move || {
        let _prepared = Prepared::new(mutant, log_bytes, sole);
        become_agent(&schedule, number);
        let own = Agent { number, db, book };
        let stops = Arc::clone(&schedule);
        let run = AssertUnwindSafe(|| {
            stops.await_turn(number);
            at_moments(|moment| arrive(Place::Moment(moment)), || own.run(&script))
        });
        let place = match catch_unwind(run) {
            Ok(()) => Place::Done,
            Err(panic) if was_stopped(&*panic) => {
                if BEGINS.get() {
                    release_writer_lock(&own.db);
                }
                Place::Stopped
            }
            Err(panic) => {
                let said = panic.downcast_ref::<String>().cloned();
                let said = said.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
                lock(&own.book).note(|| format!("agent {number} panicked: {said:?}"));
                Place::Done
            }
        };
        drop(own);
        arrive(place);
    })
}

pub(super) struct Agent {
    pub(super) number: usize,
    pub(super) db: Db,
    pub(super) book: Shared,
}

impl Agent {
    /// Does the operations, one after the other.
    pub(super) fn run(&self, script: &[Operation]) {
        for (at, &operation) in script.iter().enumerate() {
            if at > 0 {
                arrive(Place::Next(at));
            }
            set_chain(Some((self.number as u32 + 1) << 16 | (at as u32) << 8));
            let done = match operation {
                Operation::Checkpoint => self.db.checkpoint(),
                Operation::Sync => self.sync(),
                Operation::Read => self.read(),
                write => self.write(write, at),
            };
            let failing = FLUSH_FAILS.replace(false) || operation == Operation::FailsToFlush;
            let expected = |e: &Error| match e.kind() {
                ErrorKind::Io => failing,
                ErrorKind::Poisoned => records(&self.db).poisoned,
                _ => false,
            };
            if let Some(e) = done.err().filter(|e| !expected(e)) {
                lock(&self.book).note(|| format!("agent {} ({operation:?}): {e}", self.number));
            }
        }
    }

    fn write(&self, operation: Operation, at: usize) -> Result<()> {
        BEGINS.set(true);
        let mut txn = self.db.begin_write()?;
        BEGINS.set(false);
        let number = txn.txn_id();
        let mut table = txn.table(DATA)?;
        let mut now = entries(table.iter())?;
        // What another agent has committed is there to go on from (R12).
        let mut book = lock(&self.book);
        if *book.entries(number - 1) != now {
            book.note(|| format!("agent {} builds txn {number} on {now:?}", self.number));
        }
        drop(book);
        let len = if operation == Operation::Large { LARGE_BYTES } else { 3 };
        let mut value = vec![0; len];
        value[..3].copy_from_slice(&[self.number as u8, at as u8, number as u8]);
        table.put(self.number as u64, &value)?;
        if operation == Operation::Abort {
            return Ok(());
        }
        now.insert(self.number as u64, value);
        let commit = lock(&self.book).begin(number, now);
        let immediate = operation != Operation::Eventual;
        if !immediate {
            txn.set_durability(Durability::Eventual);
        }
        FAILS.set(operation == Operation::FailsToAppend);
        FLUSH_FAILS.set(operation == Operation::FailsToFlush);
        if operation == Operation::Unawaited {
            drop(txn.commit_async()?);
            return Ok(());
        }
        lock(&self.book).waiting.insert(self.number, number);
        let done = txn.commit();
        let mut book = lock(&self.book);
        book.waiting.remove(&self.number);
        done?;
        book.acknowledge(commit, immediate);
        Ok(())
    }

    fn sync(&self) -> Result<()> {
        let returned = lock(&self.book).returned();
        self.db.sync()?;
        let mut book = lock(&self.book);
        returned.into_iter().for_each(|commit| book.acknowledge(commit, true));
        Ok(())
    }

    fn read(&self) -> Result<()> {
        let txn = self.db.begin_read()?;
        for last in [false, true] {
            arrive(Place::Reading(txn.txn_id(), last));
            let found = txn.table(DATA).and_then(|table| entries(table.iter()));
            let mut book = lock(&self.book);
            if !found.as_ref().is_ok_and(|found| found == book.entries(txn.txn_id())) {
                book.note(|| format!("a snapshot of txn {} has changed (R5): {found:?}", txn.txn_id()));
            }
        }
        Ok(())
    }
}

/// Hooks of a database: flushes are places, and an append fails after its record was written.
#[derive(Default)]
pub(super) struct Seam {
    /// The disk before the agents begin, and the path of the file.
    pub(super) before: Option<Mutex<(Disk, PathBuf)>>,
    /// The file gets no longer.
    pub(super) file_bytes: u64,
}

impl Seam {
    fn flush(&self, flush: Place) {
        match &self.before {
            Some(before) if agent().is_none() => {
                let (disk, path) = &mut *before.lock().unwrap_or_else(PoisonError::into_inner);
                disk.observe(&std::fs::read(path).expect("the file"));
                disk.flush(flush);
            }
            _ => arrive(flush),
        }
    }
}

impl Hooks for Seam {
    fn before_flush(&self, event: &FlushEvent<'_>) -> io::Result<()> {
        self.flush(Place::FlushBegins(event.kind, event.offset, event.len));
        if agent().is_some() && FLUSH_FAILS.replace(false) {
            self.flush(Place::FlushFailed(event.kind, event.offset, event.len));
            return Err(io::Error::other("the test lets this flush fail"));
        }
        Ok(())
    }

    fn after_flush(&self, event: &FlushEvent<'_>) {
        self.flush(Place::FlushEnded(event.kind, event.offset, event.len));
    }

    fn stored_meta(&self, slot: usize) {
        arrive(Place::StoredMeta(slot));
    }

    fn growing(&self, new_len: u64) -> io::Result<()> {
        // A small file: each execution writes it, and each state reads it.
        match new_len > self.file_bytes {
            true => Err(io::ErrorKind::StorageFull.into()),
            false => Ok(()),
        }
    }

    fn wrote_log(&self, _offset: u64, _len: u64) -> io::Result<()> {
        append_fails(agent().is_some())
    }
}

/// The error of the next append, if this thread is to have one.
pub(super) fn append_fails(is_agent: bool) -> io::Result<()> {
    match is_agent && FAILS.replace(false) {
        true => Err(io::Error::other("the test lets this append fail")),
        false => Ok(()),
    }
}

/// The places of an agent at which it may stop: between two steps of a protocol.
pub(super) fn can_stop(place: Place) -> bool {
    match place {
        Place::Moment(Moment::Taking(_) | Moment::AwaitingFlush(_) | Moment::WriterReleased) => false,
        Place::Moment(Moment::ReaderBeginning | Moment::ReaderShown | Moment::ReaderLeaving) => false,
        Place::Moment(_) | Place::FlushBegins(..) | Place::FlushEnded(..) | Place::FlushFailed(..) => true,
        Place::StoredMeta(_) => true,
        _ => false,
    }
}
