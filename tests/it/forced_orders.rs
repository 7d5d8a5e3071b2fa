//! Forced interleavings: between two given steps of one thread (`testing::Moment`), the test runs
//! steps of another thread.

use std::cell::{Cell, RefCell};
use std::io;
use std::path::Path;
use std::rc::Rc;
use std::sync::mpsc::{channel, Receiver, Sender};
use std::sync::{Arc, Barrier, Mutex};
use std::time::Duration;

use mapleaf::testing::{
    at_moments, set_hooks, set_log_shape, set_mutant, set_scheduled, set_sole, window_id, FlushEvent, FlushKind, Hooks,
    LockName, Moment, Mutant,
};
use mapleaf::{Db, Durability, Options, PendingCommit, Result, Table};

use crate::growth::mapped;
use crate::support::{bytes, TestDb};

const DATA: Table<u64, &[u8]> = Table::new("data");
/// No step takes this long; a test that waits longer fails.
const LONG: Duration = Duration::from_secs(120);

/// Blocks the first flush until it is released.
struct Gate {
    reached: Mutex<Option<Sender<()>>>,
    go_on: Mutex<Receiver<()>>,
}

impl Hooks for Gate {
    fn before_flush(&self, _event: &FlushEvent<'_>) -> io::Result<()> {
        let reached = self.reached.lock().expect("nobody panics with it").take();
        if let Some(reached) = reached {
            reached.send(()).expect("a test that waits");
            self.go_on.lock().expect("nobody panics with it").recv_timeout(LONG).expect("to go on");
        }
        Ok(())
    }
}

/// Stores a version of all entries; each leaf holds only a few.
fn store(db: &Db, version: u64) -> Result<()> {
    db.write(|txn| {
        (0..400).try_for_each(|key| txn.table(DATA)?.insert(key, &bytes(key ^ version << 32, 300)).map(drop))
    })
}

/// A reader writes its state into its slot and then checks that it is still the newest. So a writer
/// must read the published state before the slots: a reader whose slot it misses began later, on
/// that state or a newer one.
#[test]
fn a_reader_that_begins_while_a_writer_looks_for_readers_keeps_its_state() {
    // With a log that takes these transactions, the next writer works while the log is flushed.
    set_log_shape(Some((0, 4 << 20)));
    let db = TestDb::file(Options::new());
    store(&db, 1).expect("stored");
    let (reached, is_reached) = channel();
    let (open, is_open) = channel();
    set_hooks(&db, Arc::new(Gate { reached: Mutex::new(Some(reached)), go_on: Mutex::new(is_open) }));
    std::thread::scope(|scope| {
        let (ended, has_ended) = channel();
        let other = &db;
        scope.spawn(move || {
            store(other, 2).expect("stored");
            ended.send(()).expect("a test that waits");
        });
        is_reached.recv_timeout(LONG).expect("the newest state is being flushed");
        // The first version is published. A reader begins on it, then the second is published and
        // durable.
        let reader = Rc::new(RefCell::new(None));
        let (begun, db_of_reader) = (Rc::clone(&reader), Db::clone(&db));
        let act = move |moment| {
            if moment == Moment::Reclaiming && begun.borrow().is_none() {
                *begun.borrow_mut() = Some(db_of_reader.begin_read().expect("begins"));
                open.send(()).expect("a flush that waits");
                has_ended.recv_timeout(LONG).expect("the second version is durable");
            }
        };
        let txn = at_moments(act, || db.begin_write()).expect("begins");
        let mut table = txn.table(DATA).expect("table");
        (0..400).for_each(|key| drop(table.insert(key, &bytes(key ^ 3 << 32, 300)).expect("stored")));
        txn.commit().expect("committed");
        let reader = reader.take().expect("it has begun").table(DATA).expect("table");
        for key in 0..400 {
            assert!(reader.get(key).expect("get") == Some(&bytes(key ^ 1 << 32, 300)[..]), "key {key}");
        }
        assert!(reader.iter().map(|entry| entry.expect("entry").0).eq(0..400));
    });
}

/// A reader protects its state only after its slot shows it, so it must load the published state
/// again, also if the slot still has that state from before.
#[test]
fn a_reader_whose_slot_is_written_too_late_reads_a_newer_state_and_keeps_it() {
    let db = TestDb::file(Options::new());
    store(&db, 1).expect("stored");
    drop(db.begin_read().expect("begins"));
    let (first, writer) = (Cell::new(true), Db::clone(&db));
    let act = move |moment| {
        if moment == Moment::ReaderBeginning && first.replace(false) {
            // The third version reuses the pages of the first.
            store(&writer, 2).and_then(|()| store(&writer, 3)).expect("stored");
        }
    };
    let reader = at_moments(act, || db.begin_read()).expect("begins").table(DATA).expect("table");
    let is_third = || (0..400).all(|key| reader.get(key).expect("get") == Some(&bytes(key ^ 3 << 32, 300)[..]));
    assert!(is_third());
    store(&db, 4).and_then(|()| store(&db, 5)).expect("stored");
    assert!(is_third(), "its pages were used again");
}

/// Blocks each flush of the log until it is released.
struct Gates {
    reached: Mutex<Sender<()>>,
    go_on: Mutex<Receiver<()>>,
}

impl Hooks for Gates {
    fn before_flush(&self, event: &FlushEvent<'_>) -> io::Result<()> {
        if event.kind == FlushKind::Log {
            self.reached.lock().expect("nobody panics with it").send(()).expect("a test that waits");
            self.go_on.lock().expect("nobody panics with it").recv_timeout(LONG).expect("to go on");
        }
        Ok(())
    }
}

/// Commits; the commit is not durable yet.
fn commit_later(db: &Db, version: u64) -> PendingCommit {
    let txn = db.begin_write().expect("begins");
    txn.table(DATA).expect("table").put(0, &bytes(version, 300)).expect("stored");
    txn.commit_async().expect("committed")
}

/// A thread leads a flush, and takes the flush lock again at once for the next one. Whether a
/// waiter of the first flush returns meanwhile, within `limit`.
fn returns_beside_the_next_leader(mutant: Option<Mutant>, limit: Duration) -> bool {
    set_log_shape(Some((0, 4 << 20)));
    // No thread of the environment flushes.
    set_scheduled(true);
    let db = TestDb::file(Options::new());
    store(&db, 1).expect("stored");
    let ((reached, is_reached), (open, is_open)) = (channel(), channel());
    set_hooks(&db, Arc::new(Gates { reached: Mutex::new(reached), go_on: Mutex::new(is_open) }));
    let ((waiting, is_waiting), (again, is_again), (returned, has_returned)) = (channel(), channel(), channel());
    let first = commit_later(&db, 2);
    std::thread::scope(|scope| {
        let leader = Db::clone(&db);
        scope.spawn(move || {
            set_scheduled(true);
            leader.sync().and_then(|()| leader.sync()).expect("flushed");
        });
        is_reached.recv_timeout(LONG).expect("a leader flushes");
        scope.spawn(move || {
            set_scheduled(true);
            set_mutant(mutant);
            let waits = Cell::new(true);
            let act = move |moment| {
                if matches!(moment, Moment::AwaitingFlush(_) | Moment::Taking(LockName::Flush)) && waits.replace(false)
                {
                    waiting.send(()).expect("a test that waits");
                    is_again.recv_timeout(LONG).expect("to go on");
                }
            };
            at_moments(act, || first.wait()).expect("durable");
            // The test may have given up.
            returned.send(()).ok();
        });
        is_waiting.recv_timeout(LONG).expect("the other one waits");
        drop(commit_later(&db, 3));
        open.send(()).expect("a flush that waits");
        is_reached.recv_timeout(LONG).expect("it flushes again");
        again.send(()).expect("a waiter");
        let returns = has_returned.recv_timeout(limit).is_ok();
        open.send(()).expect("a flush that waits");
        returns
    })
}

/// Waiters sleep until their commit is published, and do not queue for the flush lock.
#[test]
fn a_thread_that_locks_the_flush_lock_again_at_once_starves_no_waiter() {
    let run = |mutant, limit| std::thread::spawn(move || returns_beside_the_next_leader(mutant, limit));
    assert!(run(None, LONG).join().expect("ran"));
    // It never returns, however long the test waits.
    let limit = Duration::from_millis(100);
    assert!(!run(Some(Mutant::WaitsForFlushLock), limit).join().expect("ran"), "the mutant was not found");
}

/// A database that moves to a new window when `grow` is called.
fn small_window(path: &Path) -> Db {
    let db = Options::new().window_size(0).open(path).expect("made");
    db.write(|txn| txn.table(DATA)?.insert(0, &[1; 100]).map(drop)).expect("stored");
    db
}

fn grow(db: &Db, commits: bool) {
    let before = window_id(db);
    let txn = db.begin_write().expect("begins");
    let mut table = txn.table(DATA).expect("table");
    (1..100).for_each(|key| drop(table.insert(key, &bytes(key, 400_000)).expect("stored")));
    if commits {
        txn.commit().expect("committed");
    } else {
        txn.abort();
    }
    assert_ne!(window_id(db), before, "it goes on in another window");
}

/// Ends a read transaction. Runs `meanwhile` when it has loaded the current window and still owns
/// its slot.
fn end_while(db: &Db, meanwhile: impl Fn() + 'static) {
    let reader = db.begin_read().expect("begins");
    let first = Cell::new(true);
    let act = move |moment| {
        if moment == Moment::ReaderLeaving && first.replace(false) {
            meanwhile();
        }
    };
    at_moments(act, || drop(reader));
}

/// Memory areas of one window: the read-only and the writable mapping.
const ONE_WINDOW: usize = 2;

#[test]
fn a_reader_begins_in_the_current_window_whatever_its_slot_kept() {
    for commits in [true, false] {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("data.mapleaf");
        let db = small_window(&path);
        let other = db.clone();
        end_while(&db, move || grow(&other, commits));
        assert!(mapped(&path).0 > ONE_WINDOW, "the slot kept the old window");
        let reader = db.begin_read().expect("begins");
        let table = reader.table(DATA).expect("table");
        assert_eq!(table.get(0).expect("get"), Some(&[1; 100][..]));
        for key in 1..if commits { 100 } else { 1 } {
            assert!(table.get(key).expect("get") == Some(&bytes(key, 400_000)[..]), "key {key}");
        }
        let areas = mapped(&path).0;
        assert!(areas <= ONE_WINDOW, "{areas} areas while a transaction reads in the slot");
    }
}

/// A slot keeps its mapping for the next transaction. The writer drops it when the file moves to a
/// new window.
#[test]
fn idle_reader_slots_do_not_keep_an_outgrown_window_mapped() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("data.mapleaf");
    let db = small_window(&path);
    let all = Barrier::new(4);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let reader = db.begin_read().expect("begins");
                all.wait();
                drop(reader);
            });
        }
    });
    grow(&db, true);
    let areas = mapped(&path).0;
    assert!(areas <= ONE_WINDOW, "{areas} areas, and nobody reads");
}

#[test]
fn an_old_window_left_in_a_slot_is_unmapped_by_the_next_write_transaction() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("data.mapleaf");
    let db = small_window(&path);
    let other = db.clone();
    end_while(&db, move || grow(&other, true));
    assert!(mapped(&path).0 > ONE_WINDOW, "the slot kept the old window");
    db.write(|txn| txn.table(DATA)?.insert(0, &[2; 100]).map(drop)).expect("stored");
    let areas = mapped(&path).0;
    assert!(areas <= ONE_WINDOW, "{areas} areas, and nobody reads");
}

/// Whether the file system of the fast directory takes writes past the page cache.
fn writes_past_cache(dir: &Path) -> bool {
    use std::os::unix::fs::OpenOptionsExt as _;
    /// `O_DIRECT`, on this processor.
    const DIRECT: i32 = if cfg!(any(target_arch = "aarch64", target_arch = "arm")) { 0o200_000 } else { 0o40_000 };
    let mut options = std::fs::File::options();
    options.create(true).write(true).truncate(true).custom_flags(DIRECT).open(dir.join("probe")).is_ok()
}

/// Runs `commit`. Returns whether the log was closed before the record was written: the writer led.
fn is_sole_commit(commit: impl FnOnce()) -> bool {
    let moments = Rc::new(RefCell::new(Vec::new()));
    let seen = Rc::clone(&moments);
    at_moments(move |moment| seen.borrow_mut().push(moment), commit);
    let moments = moments.borrow();
    let at = |wanted: Moment| moments.iter().position(|&moment| moment == wanted);
    let (closed, appended) = (at(Moment::LogClosed), at(Moment::Appended).expect("a commit by log"));
    closed.is_some_and(|closed| closed < appended)
}

#[test]
fn only_an_awaited_commit_without_other_committers_is_written_and_flushed_at_once() {
    let dir = crate::workload::fast_dir();
    if !writes_past_cache(dir.path()) {
        return;
    }
    set_log_shape(Some((0, 1 << 20)));
    let db = Options::new().sync_interval(None).open(dir.path().join("sole.mapleaf")).expect("opened");
    let put = |key: u64| {
        let txn = db.begin_write().expect("begun");
        txn.table(DATA).and_then(|mut table| table.put(key, b"value")).expect("put");
        txn
    };
    // The log is made, and then enough flushes are for one transaction each.
    let lone = || (0..9).for_each(|key| put(key).commit().expect("committed"));
    lone();
    assert!(is_sole_commit(|| put(4).commit().expect("committed")));
    assert!(!is_sole_commit(|| {
        let mut txn = put(6);
        txn.set_durability(Durability::Eventual);
        txn.commit().expect("committed");
    }));
    assert!(!is_sole_commit(|| put(7).commit().expect("committed")), "a record before it is not flushed");
    assert!(!is_sole_commit(|| put(8).commit().expect("committed")), "the last flush was for two transactions");
    lone();
    assert!(is_sole_commit(|| put(9).commit().expect("committed")));
    // A thread that could not begin to write, and does not wait.
    let txn = put(10);
    assert!(db.try_begin_write().expect("tried").is_none());
    assert!(!is_sole_commit(|| txn.commit().expect("committed")));
    assert!(!is_sole_commit(|| put(11).commit().expect("committed")));
    lone();
    // A record that is larger than such a write.
    assert!(!is_sole_commit(|| {
        let txn = db.begin_write().expect("begun");
        let values = (0..50).map(|key| (key, bytes(key, 1900)));
        txn.table(DATA)
            .and_then(|mut table| values.into_iter().try_for_each(|(key, value)| table.put(key, &value).map(drop)))
            .expect("put");
        txn.commit().expect("committed");
    }));
    // A thread that does not wait until it is durable does not hold the writer lock during a flush.
    lone();
    assert!(!is_sole_commit(|| put(5).commit_async().expect("committed").wait().expect("durable")));
    set_log_shape(None);
    assert!(db.check().expect("check").is_clean());
}

/// A checkpoint can end the flushed part of the log in the middle of a page.
#[test]
fn a_record_that_begins_inside_a_page_is_appended_and_flushed_in_two_steps() {
    let dir = crate::workload::fast_dir();
    set_log_shape(Some((0, 4 << 20)));
    set_sole(Some(true));
    let db = Options::new().page_size(8192).sync_interval(None).open(dir.path().join("a.mapleaf")).expect("opened");
    let put = |len: usize, durability: Durability| {
        let mut txn = db.begin_write().expect("begun");
        txn.set_durability(durability);
        txn.table(DATA).and_then(|mut table| table.put(1, &bytes(1, len))).expect("put");
        txn.commit().expect("committed");
    };
    put(10, Durability::Immediate);
    // One of these records ends at 4 KiB of a page.
    for len in (3800..4200).step_by(8) {
        put(10, Durability::Immediate);
        put(len, Durability::Eventual);
        db.checkpoint().expect("a checkpoint");
        put(62 << 10, Durability::Immediate);
    }
    set_log_shape(None);
    set_sole(None);
    assert!(db.check().expect("check").is_clean());
}
