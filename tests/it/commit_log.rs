//! The commit log: when it is made and given up, what a crash leaves, group commit, levels.

use std::future::Future as _;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};

use mapleaf::testing::{self, FlushEvent, FlushKind, Hooks};
use mapleaf::{inspect, Db, Durability, ErrorKind, Options, Table};

const NUMBERS: Table<u64, &[u8]> = Table::new("numbers");

fn put(db: &Db, key: u64, value: &[u8]) {
    let txn = db.begin_write().expect("a write transaction");
    txn.table(NUMBERS).expect("the table").put(key, value).expect("stored");
    txn.commit().expect("committed");
}

fn numbers(db: &Db) -> Vec<(u64, Vec<u8>)> {
    let txn = db.begin_read().expect("a read transaction");
    let table = txn.table(NUMBERS).expect("the table");
    table.iter().map(|entry| entry.map(|(key, value)| (key, value.to_vec())).expect("read")).collect()
}

/// What a crash of the process leaves: the file as the page cache has it.
fn crashed_copy(from: &Path, to: &Path) {
    std::fs::copy(from, to).expect("copied");
}

#[test]
fn commits_survive_a_crash_of_the_process_and_a_clean_close_leaves_no_log() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("a.mapleaf");
    let db = Db::open(&path).expect("opened");
    let mut expected = Vec::new();
    for key in 0..200 {
        put(&db, key, &[key as u8; 40]);
        expected.push((key, vec![key as u8; 40]));
    }
    assert!(testing::log_pages(&db) > 0, "there is a log");
    let report = db.check().expect("checked");
    assert!(report.findings.is_empty(), "{:?}", report.findings);
    let copy = dir.path().join("b.mapleaf");
    crashed_copy(&path, &copy);
    let replayed = Db::open(&copy).expect("opened after the crash");
    assert_eq!(numbers(&replayed), expected);
    let report = replayed.check().expect("checked");
    assert!(report.findings.is_empty(), "{:?}", report.findings);
    put(&replayed, 1000, b"more");
    drop(replayed);
    let again = Db::open(&copy).expect("opened after the close");
    assert_eq!(testing::log_pages(&again), 0);
    assert_eq!(numbers(&again).len(), 201);
    drop(db);
    let db = Db::open(&path).expect("opened after the close");
    assert_eq!((testing::log_pages(&db), numbers(&db)), (0, expected));
    let report = db.check().expect("checked");
    assert!(report.findings.is_empty(), "{:?}", report.findings);
}

#[test]
fn one_commit_in_the_log_costs_one_flush() {
    let dir = tempfile::tempdir().expect("a directory");
    let db = Db::open(dir.path().join("a.mapleaf")).expect("opened");
    (0..10).for_each(|key| put(&db, key, b"value"));
    let before = testing::flush_count(&db);
    (0..10).for_each(|key| put(&db, key, b"other"));
    assert_eq!(testing::flush_count(&db) - before, 10);
}

#[test]
fn all_operations_are_replayed() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("a.mapleaf");
    let db = Db::open(&path).expect("opened");
    (0..10).for_each(|key| put(&db, key, b"value"));
    const WORDS: Table<&str, &str> = Table::new("words");
    db.write(|txn| {
        txn.table(NUMBERS)?.delete(3)?;
        txn.table(NUMBERS)?.append(100, b"appended")?;
        txn.table(NUMBERS)?.load([(200, &b"loaded"[..]), (150, b"loaded too")])?;
        txn.table(WORDS)?.insert("ada", "lovelace")?;
        txn.create_table("empty", "u64", "str")?;
        Ok(())
    })
    .expect("written");
    db.write(|txn| {
        txn.table(NUMBERS)?.reserve(7, 9000)?.fill(9);
        txn.rename_table("words", "names")?;
        txn.create_table("gone", "u64", "str")?;
        assert!(txn.drop_table("gone")?);
        Ok(())
    })
    .expect("written");
    assert!(testing::log_pages(&db) > 0 && testing::latest_txn(&db) > testing::durable_meta_txn(&db));
    let copy = dir.path().join("b.mapleaf");
    crashed_copy(&path, &copy);
    let replayed = Db::open(&copy).expect("opened after the crash");
    assert_eq!(numbers(&replayed), numbers(&db));
    let tables = |db: &Db| db.begin_read().expect("read").tables().expect("tables");
    let shown = |db: &Db| {
        format!("{:?}", tables(db).iter().map(|table| (table.name.clone(), table.entries)).collect::<Vec<_>>())
    };
    assert_eq!(shown(&replayed), shown(&db));
}

#[test]
fn an_eventual_commit_is_visible_at_once_and_durable_after_a_sync() {
    let dir = tempfile::tempdir().expect("a directory");
    let db = Db::open(dir.path().join("a.mapleaf")).expect("opened");
    (0..10).for_each(|key| put(&db, key, b"value"));
    let before = testing::flush_count(&db);
    for key in 10..20 {
        let mut txn = db.begin_write().expect("a write transaction");
        txn.set_durability(Durability::Eventual);
        txn.table(NUMBERS).expect("the table").put(key, b"eventual").expect("stored");
        txn.commit().expect("committed");
        assert_eq!(numbers(&db).len() as u64, key + 1);
    }
    assert_eq!(testing::flush_count(&db), before);
    db.sync().expect("durable");
    assert_eq!(testing::flush_count(&db), before + 1);
}

#[test]
fn commits_of_many_threads_share_flushes_and_none_is_lost() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("a.mapleaf");
    let db = Db::open(&path).expect("opened");
    std::thread::scope(|scope| {
        for thread in 0..8u64 {
            let db = &db;
            scope.spawn(move || (0..100).for_each(|n| put(db, thread * 1000 + n, b"value")));
        }
    });
    assert_eq!(numbers(&db).len(), 800);
    let copy = dir.path().join("b.mapleaf");
    crashed_copy(&path, &copy);
    assert_eq!(numbers(&Db::open(&copy).expect("opened after the crash")).len(), 800);
}

#[test]
fn the_log_wraps_around_and_checkpoints_free_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("a.mapleaf");
    let db = Db::open(&path).expect("opened");
    for round in 0..400u64 {
        put(&db, round % 50, &vec![round as u8; 3000]);
    }
    let copy = dir.path().join("b.mapleaf");
    crashed_copy(&path, &copy);
    let replayed = Db::open(&copy).expect("opened after the crash");
    assert_eq!(numbers(&replayed), numbers(&db));
    let report = db.check().expect("checked");
    assert!(report.findings.is_empty(), "{:?}", report.findings);
}

#[test]
fn a_read_only_open_after_a_crash_shows_all_commits_and_changes_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("a.mapleaf");
    let db = Db::open(&path).expect("opened");
    for key in 0..3000 {
        let mut txn = db.begin_write().expect("a write transaction");
        txn.set_durability(Durability::Eventual);
        txn.table(NUMBERS).expect("the table").put(key % 900, &[key as u8; 60]).expect("stored");
        txn.commit().expect("committed");
    }
    assert!(testing::latest_txn(&db) > testing::durable_meta_txn(&db));
    let copy = dir.path().join("b.mapleaf");
    crashed_copy(&path, &copy);
    let before = std::fs::read(&copy).expect("read");
    {
        let replayed = Options::new().read_only(true).open(&copy).expect("opened after the crash");
        assert_eq!(numbers(&replayed), numbers(&db));
        let report = replayed.check().expect("checked");
        assert!(report.findings.is_empty(), "{:?}", report.findings);
        assert!(replayed.stats().expect("stats").entries == 900);
    }
    assert!(std::fs::read(&copy).expect("read") == before, "the file is as it was");
}

/// Fails the writes and flushes of the commit log that are asked for.
#[derive(Default)]
struct FailingLog {
    fails_write: AtomicBool,
    fails_flush: AtomicBool,
    log: Mutex<Range<u64>>,
}

impl Hooks for FailingLog {
    fn before_flush(&self, event: &FlushEvent<'_>) -> io::Result<()> {
        match event.kind == FlushKind::Log && self.fails_flush.swap(false, Ordering::SeqCst) {
            true => Err(io::Error::other("a flush that fails")),
            false => Ok(()),
        }
    }

    fn writing(&self, offset: u64, _len: u64) -> io::Result<()> {
        let is_log = self.log.lock().expect("no panic").contains(&offset);
        match is_log && self.fails_write.swap(false, Ordering::SeqCst) {
            true => Err(io::Error::other("a write that fails")),
            false => Ok(()),
        }
    }
}

/// A database with a log, whose writes and flushes can be made to fail.
fn with_failing_log(path: &Path) -> (Db, Arc<FailingLog>) {
    let hooks = Arc::<FailingLog>::default();
    let db = testing::open_with_hooks(Options::new(), path, Arc::clone(&hooks) as Arc<dyn Hooks>).expect("opened");
    (0..10).for_each(|key| put(&db, key, b"value"));
    let log = inspect::metas(&db).expect("metas").into_iter().max_by_key(|meta| meta.txn).expect("a meta page");
    assert!(log.log_pages > 0);
    *hooks.log.lock().expect("no panic") = log.log_first * 4096..(log.log_first + log.log_pages) * 4096;
    (db, hooks)
}

#[test]
fn a_commit_whose_append_fails_goes_on_by_checkpoint_and_later_ones_use_the_log_again() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("a.mapleaf");
    let (db, hooks) = with_failing_log(&path);
    hooks.fails_write.store(true, Ordering::SeqCst);
    put(&db, 10, b"by checkpoint");
    assert!(!hooks.fails_write.load(Ordering::SeqCst), "a write has failed");
    assert_eq!(testing::durable_meta_txn(&db), testing::latest_txn(&db));
    let before = testing::flush_count(&db);
    (11..20).for_each(|key| put(&db, key, b"by log"));
    assert_eq!(testing::flush_count(&db), before + 9);
    let copy = dir.path().join("b.mapleaf");
    crashed_copy(&path, &copy);
    assert_eq!(numbers(&Db::open(&copy).expect("opened after the crash")), numbers(&db));
}

#[test]
fn a_failed_flush_of_the_log_poisons_and_the_next_opening_shows_a_commit_or_none() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("a.mapleaf");
    let (db, hooks) = with_failing_log(&path);
    hooks.fails_flush.store(true, Ordering::SeqCst);
    let failed = db.write(|txn| txn.table(NUMBERS)?.put(10, b"in doubt").map(drop)).expect_err("the flush failed");
    assert_eq!(failed.kind(), ErrorKind::Io);
    let next = db.write(|txn| txn.table(NUMBERS)?.put(11, b"refused").map(drop)).expect_err("poisoned");
    assert_eq!(next.kind(), ErrorKind::Poisoned);
    drop(db);
    let count = numbers(&Db::open(&path).expect("opened again")).len();
    assert!(count == 10 || count == 11, "{count}");
}

/// Flips a byte of the first record that is found in the file.
fn damage_record(path: &Path, of_txn: u64) {
    let mut bytes = std::fs::read(path).expect("read");
    let is_it = |at: &usize| bytes[*at + 12..*at + 16] == *b"MLog" && bytes[*at + 16..*at + 24] == of_txn.to_le_bytes();
    let at = (0..bytes.len() - 64).step_by(8).find(is_it).expect("the record");
    bytes[at + 45] ^= 1;
    std::fs::write(path, bytes).expect("written");
}

#[test]
fn a_damaged_record_of_an_acknowledged_commit_is_an_error_and_recover_keeps_what_came_before() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("a.mapleaf");
    let db = Db::open(&path).expect("opened");
    (0..20).for_each(|key| put(&db, key, b"value"));
    let copy = dir.path().join("b.mapleaf");
    crashed_copy(&path, &copy);
    let newest = testing::latest_txn(&db);
    damage_record(&copy, newest - 4);
    for read_only in [true, false] {
        let refused = Options::new().read_only(read_only).open(&copy).expect_err("damaged");
        assert_eq!(refused.kind(), ErrorKind::Corrupt);
        let text = refused.to_string();
        assert!(text.contains(&format!("transactions {} to {}", newest - 4, newest - 1)), "{text}");
        assert!(text.contains("kvctl recover"), "{text}");
    }
    let preview = Db::recover_preview(&copy).expect("a preview");
    assert_eq!((preview.newest_txn, preview.whole_txn), (newest - 1, newest - 5));
    assert!(preview.is_loss());
    let out = dir.path().join("salvaged.mapleaf");
    let salvaged = Db::salvage(&copy, &out).expect("salvaged");
    assert!(salvaged.is_loss() && salvaged.log_txns > 0, "{salvaged:?}");
    assert_eq!(numbers(&Db::open(&out).expect("opened")).len(), 15);
    assert!(Db::recover(&copy).expect("recovered").is_loss());
    let recovered = Db::open(&copy).expect("opened");
    assert_eq!(numbers(&recovered), numbers(&db)[..15]);
    put(&recovered, 100, b"goes on");
    assert!(recovered.check().expect("checked").findings.is_empty());
}

#[test]
fn going_back_to_the_older_meta_page_gives_up_its_log() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("a.mapleaf");
    let db = Db::open(&path).expect("opened");
    (0..20).for_each(|key| put(&db, key, b"value"));
    db.checkpoint().expect("a checkpoint");
    (20..40).for_each(|key| put(&db, key, b"value"));
    let copy = dir.path().join("b.mapleaf");
    crashed_copy(&path, &copy);
    // The catalog of the newest meta page.
    let newest = inspect::metas(&db).expect("metas").into_iter().max_by_key(|meta| meta.txn).expect("a meta page");
    let mut bytes = std::fs::read(&copy).expect("read");
    bytes[newest.catalog_root as usize * 4096 + 2000] ^= 1;
    std::fs::write(&copy, bytes).expect("written");
    if Db::recover(&copy).is_ok() {
        let recovered = Db::open(&copy).expect("opened after the recovery");
        let entries = numbers(&recovered);
        assert!(entries.len() < 40 && numbers(&db).starts_with(&entries), "{} entries", entries.len());
        assert!(recovered.check().expect("checked").findings.is_empty());
    }
}

#[test]
fn a_commit_can_be_waited_for_as_a_future_without_a_runtime() {
    struct Unpark(std::thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Unpark>) {
            self.0.unpark();
        }
    }
    let dir = tempfile::tempdir().expect("a directory");
    let db = Db::open(dir.path().join("a.mapleaf")).expect("opened");
    (0..10).for_each(|key| put(&db, key, b"value"));
    let txn = db.begin_write().expect("a write transaction");
    txn.table(NUMBERS).expect("the table").put(10, b"awaited").expect("stored");
    let mut commit = pin!(txn.commit_async().expect("committed"));
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    loop {
        match commit.as_mut().poll(&mut context) {
            Poll::Ready(done) => break done.expect("durable"),
            Poll::Pending => std::thread::park(),
        }
    }
    assert!(testing::durable_txn(&db) >= testing::latest_txn(&db));
    assert_eq!(numbers(&db).len(), 11);
}

#[test]
fn a_file_that_grows_gets_a_larger_log() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("a.mapleaf");
    let db = Db::open(&path).expect("opened");
    (0..5).for_each(|key| put(&db, key, b"value"));
    let small = testing::log_pages(&db);
    for round in 0..40u64 {
        db.write(|txn| txn.table(NUMBERS)?.put_all((0..200).map(|n| (round * 200 + n, &[7; 900][..]))).map(drop))
            .expect("written");
    }
    (0..5).for_each(|key| put(&db, key, b"value"));
    assert!(testing::log_pages(&db) >= 4 * small, "{small} and {} pages", testing::log_pages(&db));
    assert!(db.check().expect("checked").findings.is_empty());
    let copy = dir.path().join("b.mapleaf");
    crashed_copy(&path, &copy);
    assert_eq!(numbers(&Db::open(&copy).expect("opened after the crash")), numbers(&db));
}

/// Counts the bytes that are written by `pwrite`, and can make all such writes fail.
#[derive(Default)]
struct CountedWrites {
    fail: AtomicBool,
    bytes: AtomicU64,
}

impl Hooks for CountedWrites {
    fn before_flush(&self, _event: &FlushEvent<'_>) -> io::Result<()> {
        Ok(())
    }

    fn writing(&self, _offset: u64, len: u64) -> io::Result<()> {
        match self.fail.load(Ordering::SeqCst) && len > 4096 {
            true => Err(io::ErrorKind::StorageFull.into()),
            false => Ok(()),
        }
    }

    fn wrote(&self, _offset: u64, len: u64) {
        self.bytes.fetch_add(len, Ordering::SeqCst);
    }
}

/// A database of 8 MiB, so that its log would have 2 MiB.
fn with_counted_writes(path: &Path) -> (Db, Arc<CountedWrites>) {
    let filled = Db::open(path).expect("created");
    filled.write(|txn| txn.table(NUMBERS)?.put_all((0..9000).map(|n| (n, &[7; 900][..]))).map(drop)).expect("filled");
    drop(filled);
    let hooks = Arc::<CountedWrites>::default();
    let db = testing::open_with_hooks(Options::new(), path, Arc::clone(&hooks) as Arc<dyn Hooks>).expect("opened");
    (db, hooks)
}

#[test]
fn a_program_that_commits_a_few_times_does_not_write_the_whole_log() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("a.mapleaf");
    let (db, hooks) = with_counted_writes(&path);
    (0..10).for_each(|key| put(&db, key, b"value"));
    let log_bytes = testing::log_pages(&db) * 4096;
    let written = hooks.bytes.load(Ordering::SeqCst);
    assert!(log_bytes >= 2 << 20, "{log_bytes} bytes");
    assert!(written <= (512 << 10) + 10 * 4096, "{written} bytes written for 10 commits");
    // Many commits write it all, once.
    (0..1500).for_each(|key| put(&db, key, b"value"));
    let written = hooks.bytes.load(Ordering::SeqCst) - written;
    assert!(written <= log_bytes + 1500 * 4096, "{written} bytes written for 1500 commits");
    drop(db);
    assert_eq!(numbers(&Db::open(&path).expect("opened")).len(), 9000);
}

/// While zeros cannot be written, records pass the place where they would begin.
#[test]
fn zeros_that_could_not_be_written_reach_no_record_later() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("a.mapleaf");
    let (db, hooks) = with_counted_writes(&path);
    (0..100).for_each(|key| put(&db, key, b"before"));
    hooks.fail.store(true, Ordering::SeqCst);
    (100..180).for_each(|key| put(&db, key, b"meanwhile"));
    hooks.fail.store(false, Ordering::SeqCst);
    (180..200).for_each(|key| put(&db, key, b"after"));
    assert!(testing::durable_meta_txn(&db) < testing::latest_txn(&db) - 190, "the log has the records");
    let copy = dir.path().join("b.mapleaf");
    crashed_copy(&path, &copy);
    assert_eq!(numbers(&Db::open(&copy).expect("opened after the crash")), numbers(&db));
}
