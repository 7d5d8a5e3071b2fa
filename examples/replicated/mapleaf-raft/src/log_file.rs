//! The log file: the logs of several Raft groups, and the one thread that writes them.
//!
//! A flush takes longer than everything else in an append. So callers only queue their changes; the
//! writer takes all that are queued, of all groups, writes them in one transaction and commits it
//! with one flush. While the disk is busy, the next changes gather.
//!
//! Tables:
//!
//! ```text
//! log-<group>   index -> entry, encoded by postcard
//! raft          (group, "vote" | "purged" | "committed") -> the same, encoded by postcard
//! ```
//!
//! The committed index of a group costs no flush of its own: it goes along with the next change, or
//! is written without a flush when nothing has come for a while. If a power loss takes it, the
//! leader tells it again.
//!
//! Failure: after a failed write nobody knows what the file holds. Its callers get the error, and
//! all later ones `Error::Stopped`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use mapleaf::{Db, Durability, Table, WriteTxn};

use crate::error::{Error, Result};
use crate::log_store::LogStore;
#[cfg(feature = "testing")]
use crate::testing::Mutant;
use crate::unflushed::EntryBytes;
use crate::Config;

/// What the file knows of each group besides its entries.
pub(crate) const FIELDS: Table<(u64, &str), &[u8]> = Table::new("raft");

/// Entries of this many bytes are written by one transaction at most, so that the first ones do not
/// wait for all that come after them.
const BATCH_BYTES: usize = 16 << 20;
/// How long a committed index waits for another change before it is written by itself.
const IDLE: Duration = Duration::from_millis(100);

/// The table with the entries of a group.
pub(crate) fn entries_of(group: u64) -> Table<u64, &'static [u8]> {
    Table::named(format!("log-{group}"))
}

/// A change of the log of one group.
pub(crate) enum Change {
    /// Adds entries.
    Append(Vec<(u64, EntryBytes)>),
    /// Removes the entries from this index on.
    Truncate(u64),
    /// Removes the entries up to this index, and keeps the encoded id of the last of them.
    Purge(u64, Vec<u8>),
    /// Keeps an encoded vote.
    Vote(Vec<u8>),
}

impl Change {
    fn bytes(&self) -> usize {
        match self {
            Change::Append(entries) => entries.iter().map(|(_, bytes)| bytes.len()).sum(),
            Change::Truncate(_) | Change::Purge(..) | Change::Vote(_) => 0,
        }
    }
}

/// Called when a change is durable, or with the reason why it is not known to be.
pub(crate) type Done = Box<dyn FnOnce(std::result::Result<(), io::Error>) + Send>;

/// A change in the queue.
struct Job {
    group: u64,
    change: Change,
    done: Done,
}

/// What callers and the writer share.
#[derive(Default)]
struct Shared {
    /// Committed indexes that are not in the file yet, encoded, by group.
    committed: Mutex<BTreeMap<u64, Vec<u8>>>,
    /// Why a write failed.
    failed: Mutex<Option<String>>,
    queued: AtomicU64,
    changes: AtomicU64,
    flushes: AtomicU64,
}

/// A Mapleaf file with the logs of one or more Raft groups. Cheap to clone. The file is closed when
/// the last clone and the last [`LogStore`] are dropped.
#[derive(Clone)]
pub struct LogFile {
    writer: Arc<WriterHandle>,
}

struct WriterHandle {
    db: Db,
    shared: Arc<Shared>,
    queue: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    groups: Mutex<BTreeSet<u64>>,
}

impl LogFile {
    /// Opens the log file at a path, or creates it.
    ///
    /// # Errors
    /// Those of [`Db::open`]: a damaged file is refused and not changed.
    pub fn open(path: impl AsRef<Path>) -> Result<LogFile> {
        LogFile::on(Db::open(path)?)
    }

    /// Keeps logs in a database that is open already.
    ///
    /// # Errors
    /// `Files` if no thread can be started.
    pub fn on(db: Db) -> Result<LogFile> {
        LogFile::start(Writer::new(db))
    }

    /// Like [`on`](LogFile::on), with a step done wrong.
    #[cfg(feature = "testing")]
    #[doc(hidden)]
    pub fn with_mutant(db: Db, mutant: Option<Mutant>) -> Result<LogFile> {
        LogFile::start(Writer { mutant, ..Writer::new(db) })
    }

    fn start(writer: Writer) -> Result<LogFile> {
        let (db, shared) = (writer.db.clone(), Arc::clone(&writer.shared));
        let (queue, jobs) = mpsc::channel();
        let path = db.path().unwrap_or(Path::new("memory")).to_path_buf();
        let started = thread::Builder::new().name("mapleaf-raft-log".to_string()).spawn(move || writer.run(&jobs));
        let thread = Some(started.map_err(Error::files("starting the thread that writes", &path))?);
        let groups = Mutex::default();
        Ok(LogFile { writer: Arc::new(WriterHandle { db, shared, queue: Some(queue), thread, groups }) })
    }

    /// The log of a group, which begins empty. Each group has one store at a time.
    ///
    /// # Errors
    /// `Refused` if the group has a store already; those of reading the file.
    pub fn group<C: Config>(&self, group: u64) -> Result<LogStore<C>> {
        if !lock(&self.writer.groups).insert(group) {
            return Err(Error::Refused(format!("the log of group {group} is in use; drop its store first")));
        }
        LogStore::open(self.clone(), group).inspect_err(|_| self.leave(group))
    }

    /// The database, to read it or to look at its statistics.
    pub fn db(&self) -> &Db {
        &self.writer.db
    }

    /// How many durable commits were made since the file was opened; each takes a flush.
    pub fn flushes(&self) -> u64 {
        self.writer.shared.flushes.load(Ordering::Relaxed)
    }

    /// How many changes were asked for since the file was opened.
    pub fn queued(&self) -> u64 {
        self.writer.shared.queued.load(Ordering::Relaxed)
    }

    /// How many changes were written since the file was opened: appends, truncations, purges and
    /// votes. Together with [`flushes`](LogFile::flushes) it says how many share a flush.
    pub fn changes(&self) -> u64 {
        self.writer.shared.changes.load(Ordering::Relaxed)
    }

    pub(crate) fn leave(&self, group: u64) {
        lock(&self.writer.groups).remove(&group);
    }

    /// Queues a change. The writer calls `done` when it is durable; if the queue is closed, this
    /// call does.
    pub(crate) fn queue(&self, group: u64, change: Change, done: Done) {
        let queue = self.writer.queue.as_ref().expect("closed only when dropped");
        self.writer.shared.queued.fetch_add(1, Ordering::Relaxed);
        if let Err(mpsc::SendError(job)) = queue.send(Job { group, change, done }) {
            (job.done)(Err(stopped(&self.writer.shared)));
        }
    }

    /// Keeps the encoded committed index of a group, to be written some time.
    pub(crate) fn note_committed(&self, group: u64, encoded: Vec<u8>) {
        lock(&self.writer.shared.committed).insert(group, encoded);
    }
}

impl fmt::Debug for LogFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogFile").field("db", &self.writer.db).field("flushes", &self.flushes()).finish()
    }
}

impl Drop for WriterHandle {
    fn drop(&mut self) {
        // The writer ends when it has written what is queued.
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            if thread.join().is_err() {
                eprintln!("the thread that writes the log panicked");
            }
        }
    }
}

/// The thread that writes.
struct Writer {
    db: Db,
    shared: Arc<Shared>,
    #[cfg(feature = "testing")]
    mutant: Option<Mutant>,
}

impl Writer {
    fn new(db: Db) -> Writer {
        Writer {
            db,
            shared: Arc::default(),
            #[cfg(feature = "testing")]
            mutant: None,
        }
    }

    fn run(self, jobs: &Receiver<Job>) {
        loop {
            match jobs.recv_timeout(IDLE) {
                Ok(first) => self.write(gather(first, jobs)),
                Err(RecvTimeoutError::Timeout) => self.write_committed(),
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        self.write_committed();
    }

    /// Writes changes by one durable commit, and answers.
    fn write(&self, jobs: Vec<Job>) {
        let (changes, answers): (Vec<_>, Vec<_>) =
            jobs.into_iter().map(|job| ((job.group, job.change), job.done)).unzip();
        #[cfg(feature = "testing")]
        if self.mutant == Some(Mutant::AcknowledgedBeforeFlush) {
            answers.into_iter().for_each(|done| done(Ok(())));
            drop(self.commit(&changes));
            return;
        }
        let written = self.commit(&changes);
        self.shared.changes.fetch_add(changes.len() as u64, Ordering::Relaxed);
        for done in answers {
            done(written.as_ref().copied().map_err(|e| io::Error::other(e.to_string())));
        }
    }

    fn commit(&self, changes: &[(u64, Change)]) -> Result<()> {
        if let Some(why) = lock(&self.shared.failed).clone() {
            return Err(Error::Stopped(why));
        }
        let written = self.try_commit(changes);
        if let Err(e) = &written {
            *lock(&self.shared.failed) = Some(e.to_string());
        }
        Ok(written?)
    }

    fn try_commit(&self, changes: &[(u64, Change)]) -> mapleaf::Result<()> {
        let mut txn = self.db.begin_write()?;
        for (group, change) in changes {
            make(&txn, *group, change)?;
        }
        put_committed(&txn, std::mem::take(&mut *lock(&self.shared.committed)))?;
        if changes.is_empty() {
            txn.set_durability(Durability::Eventual);
        } else {
            self.shared.flushes.fetch_add(1, Ordering::Relaxed);
        }
        txn.commit()
    }

    /// Writes the committed indexes that no other change has taken along.
    fn write_committed(&self) {
        if !lock(&self.shared.committed).is_empty() {
            // A failure is kept, and the next change reports it.
            drop(self.commit(&[]));
        }
    }
}

/// The first job and those that are queued after it, up to the size of a batch.
fn gather(first: Job, jobs: &Receiver<Job>) -> Vec<Job> {
    let mut bytes = first.change.bytes();
    let mut gathered = vec![first];
    while bytes < BATCH_BYTES {
        let Ok(job) = jobs.try_recv() else { break };
        bytes += job.change.bytes();
        gathered.push(job);
    }
    gathered
}

/// Makes a change in a transaction.
fn make(txn: &WriteTxn, group: u64, change: &Change) -> mapleaf::Result<()> {
    match change {
        Change::Append(entries) => {
            let entries = entries.iter().map(|(index, bytes)| (*index, &bytes[..]));
            txn.table(entries_of(group))?.put_all(entries).map(drop)
        }
        Change::Truncate(from) => txn.table(entries_of(group))?.remove_range(from..).map(drop),
        Change::Purge(upto, id) => {
            txn.table(entries_of(group))?.remove_range(..=upto)?;
            txn.table(FIELDS)?.put((group, "purged"), id).map(drop)
        }
        Change::Vote(vote) => txn.table(FIELDS)?.put((group, "vote"), vote).map(drop),
    }
}

fn put_committed(txn: &WriteTxn, committed: BTreeMap<u64, Vec<u8>>) -> mapleaf::Result<()> {
    if committed.is_empty() {
        return Ok(());
    }
    let mut fields = txn.table(FIELDS)?;
    committed.iter().try_for_each(|(group, id)| fields.put((*group, "committed"), id).map(drop))
}

fn stopped(shared: &Shared) -> io::Error {
    let why = lock(&shared.failed).clone();
    io::Error::other(Error::Stopped(why.unwrap_or_else(|| "its thread has ended".to_string())).to_string())
}

/// Locks; a thread that panicked while it held the lock left the value whole.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
