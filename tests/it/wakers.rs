//! Wakers of `PendingCommit` that use the database: no lock is held while one runs.
//!
//! Most tests first let a waker keep the environment's thread busy, so that no other thread than
//! that of the test flushes. Each test runs in a thread of its own: one that hangs fails.

use std::cell::Cell;
use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::mpsc::{channel, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex};
use std::task::{Context, Wake, Waker};
use std::thread::{self, ThreadId};
use std::time::Duration;

use mapleaf::testing::{self, FlushEvent, FlushKind, Hooks, Moment, Mutant};
use mapleaf::{Db, ErrorKind, PendingCommit, Result, Table};

const DATA: Table<u64, &[u8]> = Table::new("data");
/// No step takes this long; a test that waits longer fails.
const LONG: Duration = Duration::from_secs(120);
/// Bytes of the log.
const LOG_BYTES: u64 = 256 << 10;
const CHECKPOINT_THREAD: &str = "mapleaf-checkpoint";

struct Act<F>(F);

impl<F: Fn() + Send + Sync> Wake for Act<F> {
    fn wake(self: Arc<Act<F>>) {
        (self.0)();
    }
}

/// A waker that runs `act` each time it wakes.
fn waker(act: impl Fn() + Send + Sync + 'static) -> Waker {
    Waker::from(Arc::new(Act(act)))
}

fn is_pending(pending: &mut PendingCommit, waker: &Waker) -> bool {
    Pin::new(pending).poll(&mut Context::from_waker(waker)).is_pending()
}

/// Runs a test in a thread of its own, which the test abandons if it hangs.
fn without_hanging(test: impl FnOnce() + Send + 'static) {
    let (end, ended) = channel::<()>();
    let run = thread::spawn(move || {
        let _end = end;
        test();
    });
    match ended.recv_timeout(LONG) {
        Err(RecvTimeoutError::Timeout) => panic!("the test hangs"),
        _ => run.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
    }
}

/// Commits; the commit is not durable yet.
fn commit_later(db: &Db, value: &[u8]) -> PendingCommit {
    let txn = db.begin_write().expect("begins");
    txn.table(DATA).expect("table").put(0, value).map(drop).expect("stored");
    txn.commit_async().expect("committed")
}

/// Lets a waker keep the environment's thread busy until the sender that is returned sends or is
/// dropped.
fn occupy_thread(db: &Db) -> Sender<()> {
    loop {
        let (called, is_called) = channel();
        let (release, is_released) = channel::<()>();
        let (called, is_released) = (Mutex::new(called), Mutex::new(is_released));
        let block = waker(move || {
            let name = thread::current().name().map(String::from);
            // A stale waker of an earlier round has no receiver any more.
            drop(called.lock().expect("no panic").send(name));
            is_released.lock().expect("no panic").recv().unwrap_or_default();
        });
        // The thread may be faster than the poll. Then try again.
        if is_pending(&mut commit_later(db, b"busy"), &block) {
            let name = is_called.recv_timeout(LONG).expect("the task is woken");
            assert_eq!(name.as_deref(), Some(CHECKPOINT_THREAD));
            return release;
        }
    }
}

/// Where a waker has run, and how the calls of the database ended in it.
struct Woken {
    thread: ThreadId,
    wrote: Result<bool>,
    made_checkpoint: Result<()>,
}

/// A waker that writes and makes a checkpoint, if no thread writes.
fn using(db: &Db) -> (Waker, Receiver<Woken>) {
    let (woken, is_woken) = channel();
    let (woken, db) = (Mutex::new(woken), db.clone());
    let write = |db: &Db| {
        let Some(txn) = db.try_begin_write()? else { return Ok(false) };
        txn.table(DATA)?.put(1, b"by a waker")?;
        txn.commit().map(|()| true)
    };
    let act = move || {
        let wrote = write(&db);
        // A thread that holds a lock would wait for itself here.
        let made_checkpoint = if matches!(wrote, Ok(false)) { Ok(()) } else { db.checkpoint() };
        let ran = Woken { thread: thread::current().id(), wrote, made_checkpoint };
        drop(woken.lock().expect("no panic").send(ran));
    };
    (waker(act), is_woken)
}

fn open(dir: &tempfile::TempDir) -> Db {
    testing::set_log_shape(Some((0, LOG_BYTES)));
    let db = Db::open(dir.path().join("a.mapleaf")).expect("opened");
    commit_later(&db, b"makes the log").wait().expect("durable");
    db
}

/// What wakes the task.
#[derive(Clone, Copy, Debug)]
enum By {
    /// A leader that holds no other lock.
    Sync,
    /// A writer that leads a flush because the ring of states is full.
    FullRing,
    /// A commit by checkpoint, because its record is too large.
    LargeCommit,
    /// A checkpoint beside writers.
    Checkpoint,
}

impl By {
    fn happen(self, db: &Db) {
        match self {
            By::Sync => db.sync().expect("synced"),
            By::FullRing => (0..80).for_each(|_| drop(commit_later(db, b"later"))),
            By::LargeCommit => {
                let large = vec![7; LOG_BYTES as usize];
                db.write(|txn| txn.table(DATA)?.put(2, &large).map(drop)).expect("written");
            }
            By::Checkpoint => {
                // Makes only the visible state durable. Tasks wake to look.
                db.checkpoint().expect("made");
            }
        }
    }
}

/// Whether a waker can write when `by` wakes it.
fn a_waker_can_write(by: By) -> bool {
    let dir = tempfile::tempdir().expect("a directory");
    let db = open(&dir);
    let release = occupy_thread(&db);
    let (waker, is_woken) = using(&db);
    let mut pending = commit_later(&db, b"awaited");
    assert!(is_pending(&mut pending, &waker), "{by:?}: no thread flushes");
    by.happen(&db);
    let woken =
        is_woken.try_recv().unwrap_or_else(|_| panic!("{by:?}: the thread that makes it durable wakes the task"));
    assert_eq!(woken.thread, thread::current().id(), "{by:?}");
    woken.made_checkpoint.unwrap_or_else(|e| panic!("{by:?}: a checkpoint: {e}"));
    drop(release);
    pending.wait().expect("durable");
    woken.wrote.unwrap_or_else(|e| panic!("{by:?}: a commit: {e}"))
}

#[test]
fn a_waker_can_write_and_make_a_checkpoint_whatever_made_the_commit_durable() {
    without_hanging(|| {
        for by in [By::Sync, By::FullRing, By::LargeCommit, By::Checkpoint] {
            assert!(a_waker_can_write(by), "{by:?}: the waker ran while the writer lock was held");
        }
    });
}

#[test]
fn a_waker_that_runs_under_the_writer_lock_is_found() {
    without_hanging(|| {
        for by in [By::FullRing, By::LargeCommit] {
            let wrote = testing::with_mutant(Some(Mutant::WakersUnderLocks), || a_waker_can_write(by));
            assert!(!wrote, "{by:?}");
        }
    });
}

/// Makes flushes of one kind fail.
struct Failing(FlushKind);

impl Hooks for Failing {
    fn before_flush(&self, event: &FlushEvent<'_>) -> io::Result<()> {
        match event.kind == self.0 {
            true => Err(io::Error::other("a flush that fails")),
            false => Ok(()),
        }
    }
}

/// A thread that poisons the database holds the flush lock or the checkpoint lock, and perhaps the
/// writer lock.
#[test]
fn a_waker_gets_an_error_of_each_call_and_does_not_hang_after_a_failed_flush() {
    without_hanging(|| {
        for by in [By::Sync, By::LargeCommit, By::Checkpoint] {
            let dir = tempfile::tempdir().expect("a directory");
            let db = open(&dir);
            let release = occupy_thread(&db);
            let (waker, is_woken) = using(&db);
            let mut pending = commit_later(&db, b"awaited");
            assert!(is_pending(&mut pending, &waker), "{by:?}: no thread flushes");
            let fails = if matches!(by, By::Sync) { FlushKind::Log } else { FlushKind::Tree };
            testing::set_hooks(&db, Arc::new(Failing(fails)));
            let failed = match by {
                By::Checkpoint => db.checkpoint(),
                By::LargeCommit => db.write(|txn| txn.table(DATA)?.put(2, &vec![7; LOG_BYTES as usize]).map(drop)),
                _ => db.sync(),
            };
            assert_eq!(failed.expect_err("a failed flush").kind(), ErrorKind::Io, "{by:?}");
            let woken = is_woken.try_recv().unwrap_or_else(|_| panic!("{by:?}: the task is woken"));
            assert_eq!(woken.thread, thread::current().id(), "{by:?}");
            assert_eq!(woken.wrote.map_err(|e| e.kind()), Err(ErrorKind::Poisoned), "{by:?}");
            assert_eq!(woken.made_checkpoint.map_err(|e| e.kind()), Err(ErrorKind::Poisoned), "{by:?}");
            drop(release);
            assert_eq!(pending.wait().map_err(|e| e.kind()), Err(ErrorKind::Poisoned), "{by:?}");
        }
    });
}

/// A waker that says that it has run.
fn telling() -> (Waker, Receiver<()>) {
    let (woken, is_woken) = channel();
    let woken = Mutex::new(woken);
    (waker(move || woken.lock().expect("no panic").send(()).unwrap_or_default()), is_woken)
}

/// A task does not depend on the thread that has made its commit durable: that one may hold the
/// writer lock for long before it wakes tasks.
#[test]
fn the_thread_of_the_environment_wakes_a_task_whose_commit_another_thread_made_durable() {
    without_hanging(|| {
        let dir = tempfile::tempdir().expect("a directory");
        let db = open(&dir);
        let release = Rc::new(Cell::new(Some(occupy_thread(&db))));
        let (waker, is_woken) = telling();
        let mut pending = commit_later(&db, b"awaited");
        assert!(is_pending(&mut pending, &waker), "no thread flushes");
        let held = Rc::clone(&release);
        let act = move |moment| {
            if moment != Moment::Clearing {
                return;
            }
            // The state is durable and visible, and its committer holds the writer lock.
            is_woken.try_recv().expect_err("no thread wakes the task before");
            drop(held.take());
            is_woken.recv_timeout(LONG / 2).expect("the environment's thread wakes the task");
        };
        testing::at_moments(act, || By::LargeCommit.happen(&db));
        assert!(release.take().is_none(), "a commit by checkpoint");
        assert!(pending.is_done());
    });
}

/// Makes each write of pages fail.
struct FailingWrites;

impl Hooks for FailingWrites {
    fn before_flush(&self, _event: &FlushEvent<'_>) -> io::Result<()> {
        Ok(())
    }

    fn writing(&self, _offset: u64, _len: u64) -> io::Result<()> {
        Err(io::Error::other("a write that fails"))
    }
}

#[test]
fn tasks_are_woken_if_a_transaction_that_goes_on_has_poisoned_the_database() {
    without_hanging(|| {
        let dir = tempfile::tempdir().expect("a directory");
        let db = open(&dir);
        let release = occupy_thread(&db);
        let (waker, is_woken) = telling();
        let mut pending = commit_later(&db, b"awaited");
        assert!(is_pending(&mut pending, &waker), "no thread flushes");
        let txn = db.begin_write().expect("begins");
        testing::set_hooks(&db, Arc::new(FailingWrites));
        // Pages are written by a queue, whose error the same call or a later one reports.
        let large = vec![7; 4 << 20];
        let failed = (0..100).find_map(|key| txn.table(DATA).and_then(|mut table| table.put(key, &large)).err());
        assert_eq!(failed.expect("a write that fails").kind(), ErrorKind::Io);
        assert_eq!(db.sync().map_err(|e| e.kind()), Err(ErrorKind::Poisoned));
        drop(release);
        is_woken.recv_timeout(LONG / 2).expect("the environment's thread wakes the task");
        assert!(!is_pending(&mut pending, &waker), "it fails");
        drop(txn);
    });
}
