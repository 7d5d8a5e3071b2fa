//! Opening for writing: the first write transaction, and not the opening, prepares the file for
//! writing.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Arc;

use mapleaf::testing::{open_with_hooks, FlushEvent, Hooks};
use mapleaf::{Db, ErrorKind, Options, Table};

use crate::reexec;
use crate::workload::fast_dir;

const NUMBERS: Table<u64, u64> = Table::new("numbers");

fn put(db: &Db, key: u64) -> mapleaf::Result<()> {
    db.write(|txn| txn.table(NUMBERS)?.insert(key, key).map(drop))
}

fn get(db: &Db, key: u64) -> mapleaf::Result<Option<u64>> {
    db.begin_read()?.table(NUMBERS)?.get(key)
}

/// A cleanly closed database with the first `count` numbers.
fn closed(path: &Path, count: u64) {
    let db = Db::open(path).expect("made");
    db.write(|txn| {
        let mut table = txn.table(NUMBERS)?;
        (0..count).try_for_each(|n| table.insert(n, n).map(drop))
    })
    .expect("written");
}

fn len(path: &Path) -> u64 {
    std::fs::metadata(path).expect("the file").len()
}

/// Counts flushes, and fails them while a flag is set.
#[derive(Default)]
struct Flushes {
    count: AtomicU64,
    fail: AtomicBool,
}

impl Hooks for Flushes {
    fn before_flush(&self, _event: &FlushEvent<'_>) -> io::Result<()> {
        self.count.fetch_add(1, Ordering::SeqCst);
        match self.fail.load(Ordering::SeqCst) {
            true => Err(io::Error::from_raw_os_error(5)),
            false => Ok(()),
        }
    }
}

#[test]
fn opening_for_writing_without_a_write_transaction_does_not_change_the_file() {
    let dir = fast_dir();
    let path = dir.path().join("db.mapleaf");
    closed(&path, 1000);
    let look = || {
        let found = std::fs::metadata(&path).expect("the file");
        (std::fs::read(&path).expect("the bytes"), found.modified().expect("a time"))
    };
    let before = look();
    let hooks = Arc::new(Flushes::default());
    for _ in 0..3 {
        let db = open_with_hooks(Options::new(), &path, hooks.clone()).expect("opens");
        assert_eq!(get(&db, 999).expect("reads"), Some(999));
        assert!(db.check().expect("checks").is_clean());
        assert!(look() == before, "changed while open");
        drop(db);
        assert!(look() == before, "changed by closing");
    }
    assert_eq!(hooks.count.load(Ordering::SeqCst), 0, "nothing was flushed");
}

#[test]
fn the_first_write_transaction_flushes_and_lengthens_the_file_and_closing_cuts_it() {
    let dir = fast_dir();
    let path = dir.path().join("db.mapleaf");
    closed(&path, 1000);
    let used = len(&path);
    let hooks = Arc::new(Flushes::default());
    let db = open_with_hooks(Options::new(), &path, hooks.clone()).expect("opens");
    let reader = db.begin_read().expect("reads");
    let mut txn = db.begin_write().expect("begins");
    assert_eq!(hooks.count.load(Ordering::SeqCst), 1);
    assert_eq!(len(&path), used + 4096, "the page of the sentinel");
    drop(txn);
    assert_eq!(reader.table(NUMBERS).and_then(|table| table.get(7)).expect("reads on"), Some(7));
    txn = db.begin_write().expect("begins again");
    assert_eq!(hooks.count.load(Ordering::SeqCst), 1, "once is enough");
    drop(txn);
    drop((db, reader));
    assert_eq!(len(&path), used, "nothing was committed");
    let db = Db::open(&path).expect("opens");
    put(&db, 5000).expect("written");
    drop(db);
    let db = Options::new().read_only(true).open(&path).expect("opens");
    assert_eq!((get(&db, 5000).expect("reads"), get(&db, 999).expect("reads")), (Some(5000), Some(999)));
    assert!(db.check().expect("checks").is_clean());
}

/// Data that a killed process left only in the page cache must be made durable before readers see
/// it or commits build on it.
#[test]
fn opening_flushes_a_file_that_was_not_closed_cleanly() {
    let dir = fast_dir();
    let path = dir.path().join("db.mapleaf");
    closed(&path, 1000);
    let used = len(&path);
    std::fs::File::options().write(true).open(&path).and_then(|file| file.set_len(used + 4096)).expect("longer");
    let hooks = Arc::new(Flushes::default());
    let db = open_with_hooks(Options::new(), &path, hooks.clone()).expect("opens");
    assert_eq!(hooks.count.load(Ordering::SeqCst), 1);
    drop(db.begin_write().expect("begins"));
    assert_eq!(hooks.count.load(Ordering::SeqCst), 1, "not again");
    hooks.fail.store(true, Ordering::SeqCst);
    drop(db);
    std::fs::File::options().write(true).open(&path).and_then(|file| file.set_len(used + 4096)).expect("longer");
    assert_eq!(
        open_with_hooks(Options::new(), &path, hooks).map(drop).expect_err("the flush fails").kind(),
        ErrorKind::Io
    );
}

#[test]
fn a_failed_flush_before_the_first_write_poisons_like_any_other() {
    let dir = fast_dir();
    let path = dir.path().join("db.mapleaf");
    closed(&path, 1000);
    let hooks = Arc::new(Flushes::default());
    hooks.fail.store(true, Ordering::SeqCst);
    let db = open_with_hooks(Options::new(), &path, hooks.clone()).expect("opens");
    let reader = db.begin_read().expect("reads");
    let e = db.begin_write().map(drop).expect_err("the flush fails");
    assert_eq!(e.kind(), ErrorKind::Io, "{e}");
    hooks.fail.store(false, Ordering::SeqCst);
    assert_eq!(db.begin_write().map(drop).expect_err("poisoned").kind(), ErrorKind::Poisoned);
    assert_eq!(db.begin_read().map(drop).expect_err("poisoned").kind(), ErrorKind::Poisoned);
    assert_eq!(reader.table(NUMBERS).and_then(|table| table.get(7)).expect("goes on"), Some(7));
    drop((db, reader));
    let db = open_with_hooks(Options::new(), &path, hooks.clone()).expect("recovers");
    assert_eq!(hooks.count.load(Ordering::SeqCst), 2, "opening flushes, for nothing is believed after a failure");
    put(&db, 5000).expect("written");
    assert_eq!(get(&db, 5000).expect("reads"), Some(5000));
}

/// A truncated file is never lengthened to fit, and no commit builds on it.
#[test]
fn a_file_cut_before_the_first_write_transaction_is_not_lengthened() {
    let dir = fast_dir();
    let path = dir.path().join("db.mapleaf");
    for by in [1, 4096, 3 * 4096 + 5] {
        let _gone = std::fs::remove_file(&path);
        closed(&path, 1000);
        let cut = len(&path) - by;
        let db = Db::open(&path).expect("opens");
        std::fs::File::options().write(true).open(&path).and_then(|file| file.set_len(cut)).expect("cut");
        let e = db.begin_write().map(drop).expect_err("cut");
        assert_eq!(e.kind(), ErrorKind::Fault, "{e}");
        drop(db);
        assert_eq!(len(&path), cut);
        assert_eq!(Db::open(&path).map(drop).expect_err("cut").kind(), ErrorKind::Truncated);
    }
}

#[test]
fn a_cut_is_noticed_by_a_handle_that_only_reads() {
    let dir = fast_dir();
    let path = dir.path().join("db.mapleaf");
    closed(&path, 100_000);
    let whole = std::fs::read(&path).expect("the bytes");
    let db = Db::open(&path).expect("opens");
    let reader = db.begin_read().expect("reads");
    let file = std::fs::File::options().write(true).open(&path).expect("opens");
    file.set_len(whole.len() as u64 / 2 + 100).expect("cut");
    file.set_len(whole.len() as u64).expect("longer again");
    let e = reader.table(NUMBERS).and_then(|table| table.get(7)).expect_err("noticed");
    assert_eq!(e.kind(), ErrorKind::Fault, "{e}");
}

/// The first write transaction moves the sentinel while others read. They must not take that for a
/// cut.
#[test]
fn readers_go_on_while_the_first_write_begins() {
    let dir = fast_dir();
    let path = dir.path().join("db.mapleaf");
    closed(&path, 1000);
    for round in 0..100 {
        let db = Db::open(&path).expect("opens");
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let mut key = 0;
                    while !done.load(Ordering::Acquire) {
                        key = (key + 7) % 1000;
                        assert_eq!(get(&db, key).expect("reads"), Some(key));
                    }
                });
            }
            put(&db, 5000 + round).expect("written");
            done.store(true, Ordering::Release);
        });
        assert!(db.check().expect("checks").is_clean());
    }
}

#[test]
fn an_exclusive_handle_locks_the_file_before_and_after_the_first_write() {
    let name = "opening::an_exclusive_handle_locks_the_file_before_and_after_the_first_write";
    if let Some(arguments) = reexec::arguments() {
        let refused = |options: Options| options.open(&arguments[0]).map(drop).expect_err("held").kind();
        let found = (refused(Options::new()), refused(Options::new().read_only(true)));
        reexec::answer(&format!("{found:?}"));
        return;
    }
    let dir = fast_dir();
    let path = dir.path().join("db.mapleaf");
    closed(&path, 10);
    let db = Options::new().exclusive(true).open(&path).expect("opens");
    for _ in 0..2 {
        let mut other = reexec::start(reexec::command(name, &[&path]));
        assert_eq!(other.line().as_deref(), Some("(Locked, Locked)"));
        other.finish();
        put(&db, 77).expect("written");
    }
}

/// Before its first write, a handle has not prepared the file for writing.
#[test]
fn a_handle_for_writing_shares_the_file_before_and_after_the_first_write() {
    let name = "opening::a_handle_for_writing_shares_the_file_before_and_after_the_first_write";
    if let Some(arguments) = reexec::arguments() {
        let (path, key) = (&arguments[0], arguments[1].parse().expect("a key"));
        let refused = |options: Options| options.exclusive(true).open(path).map(drop).expect_err("held").kind();
        let found = (refused(Options::new()), refused(Options::new().read_only(true)));
        let reader = Options::new().read_only(true).open(path).expect("opens");
        let newest = get(&reader, key - 1).expect("reads");
        put(&Db::open(path).expect("opens"), key).expect("written");
        reexec::answer(&format!("{found:?} {newest:?} {:?}", get(&reader, key).expect("reads")));
        return;
    }
    let dir = fast_dir();
    let path = dir.path().join("db.mapleaf");
    closed(&path, 10);
    let db = Db::open(&path).expect("opens");
    for key in [10, 12] {
        let mut other = reexec::start(reexec::command(name, &[&path, &key.to_string()]));
        let expected = format!("(Locked, Locked) {:?} {:?}", Some(key - 1), Some(key));
        assert_eq!(other.line(), Some(expected));
        other.finish();
        assert_eq!(get(&db, key).expect("reads"), Some(key));
        put(&db, key + 1).expect("written");
    }
    assert!(db.check().expect("checks").is_clean());
}

/// A file that was cut and lengthened again has zeros at its end. A handle that only reads notices
/// this by the last byte that was not zero, wherever it is.
#[test]
fn a_cut_is_noticed_when_the_last_pages_are_zeros() {
    let dir = fast_dir();
    for page_size in [4096, 8192, 16384, 32768] {
        let path = dir.path().join(format!("{page_size}.mapleaf"));
        let db = Options::new().page_size(page_size).open(&path).expect("made");
        db.write(|txn| {
            let mut table = txn.table(NUMBERS)?;
            (0..2000).try_for_each(|n| table.insert(n, n).map(drop))
        })
        .expect("written");
        drop(db);
        let whole = std::fs::read(&path).expect("the file");
        for cut_at in 1..40 {
            std::fs::write(&path, &whole).expect("as it was");
            let db = Db::open(&path).expect("opens");
            let table = db.begin_read().expect("begins").table(NUMBERS).expect("table");
            assert!((0..2000).all(|n| table.get(n).expect("get") == Some(n)));
            let file = std::fs::File::options().write(true).open(&path).expect("the file");
            file.set_len(len(&path) * cut_at / 40 + 100).expect("cut");
            file.set_len(whole.len() as u64).expect("lengthened");
            for n in 0..2000 {
                match table.get(n) {
                    Ok(found) => assert_eq!(found, Some(n), "pages of {page_size}, cut at {cut_at} of 40"),
                    Err(e) => assert_eq!(e.kind(), ErrorKind::Fault, "{e}"),
                }
            }
        }
    }
}

/// After its newest state, the file of a killed process may hold reserved blocks, pages of an
/// uncommitted transaction, and pages that a failed flush may have lost.
#[test]
fn opening_for_writing_cuts_off_everything_after_the_newest_state() {
    use std::os::unix::fs::MetadataExt as _;
    let dir = fast_dir();
    let (path, killed) = (dir.path().join("db.mapleaf"), dir.path().join("killed.mapleaf"));
    closed(&path, 1000);
    let db = Db::open(&path).expect("opens");
    put(&db, 1000).expect("stored");
    let used = db.stats().expect("stats").page_count * 4096;
    // As after a kill: longer than the used part, with any contents.
    let mut bytes = std::fs::read(&path).expect("read");
    assert!(bytes.len() as u64 > used);
    bytes.truncate(used as usize);
    bytes.resize(used as usize + 500 * 4096 + 123, 7);
    std::fs::write(&killed, &bytes).expect("written");
    let db = Db::open(&killed).expect("opens");
    let page = len(&killed) - used;
    assert!((4096..=65536).contains(&page) && page.is_power_of_two(), "{page} bytes lie after the state: the sentinel");
    let blocks = std::fs::metadata(&killed).expect("the file").blocks() * 512;
    assert!(blocks <= used + (100 << 10), "the blocks went too: {blocks} for {used}");
    // New pages do not show the old contents.
    put(&db, 1001).expect("stored");
    let count = db.stats().expect("stats").page_count;
    drop(db);
    assert_eq!(len(&killed), count * 4096);
    let db = Db::open(&killed).expect("opens");
    assert_eq!(get(&db, 1001).expect("get"), Some(1001));
    assert!(db.check().expect("a check").is_clean());
}

/// A commit to an unlinked file would be lost with its last handle.
#[test]
fn a_file_that_was_removed_while_it_was_opened_is_busy() {
    use std::os::fd::AsRawFd as _;
    let dir = fast_dir();
    let path = dir.path().join("db.mapleaf");
    drop(Db::open(&path).expect("made"));
    let file = std::fs::File::open(&path).expect("the file");
    std::fs::remove_file(&path).expect("removed");
    let nameless = format!("/proc/self/fd/{}", file.as_raw_fd());
    for options in [Options::new(), Options::new().read_only(true)] {
        let refused = options.open(&nameless).expect_err("it has no name");
        assert!(refused.kind() == ErrorKind::Busy && refused.to_string().contains("removed"), "{refused}");
    }
}
