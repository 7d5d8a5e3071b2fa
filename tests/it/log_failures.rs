//! Failures around the commit log: flushes that fail once and for good, a disk that is full while
//! the log is made, and log pages that are flipped, cut or missing.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use mapleaf::testing::{self, log_content, log_pages, open_with_hooks, FlushEvent, FlushKind, Hooks};
use mapleaf::{Db, Durability, Error, ErrorKind, Options};

use crate::workload::{fast_dir, History, FIRST_TXN};

const PAGE: usize = 4096;

/// Makes flushes fail.
#[derive(Default)]
struct FailingFlush {
    kind: Mutex<Option<FlushKind>>,
    for_good: AtomicBool,
}

impl Hooks for FailingFlush {
    fn before_flush(&self, event: &FlushEvent<'_>) -> io::Result<()> {
        let mut kind = self.kind.lock().expect("no panic");
        if *kind != Some(event.kind) {
            return Ok(());
        }
        if !self.for_good.load(Ordering::SeqCst) {
            *kind = None;
        }
        Err(io::Error::other("a flush that fails"))
    }
}

fn open_failing(path: &Path, hooks: &Arc<FailingFlush>) -> mapleaf::Result<Db> {
    open_with_hooks(Options::new().sync_interval(None), path, Arc::clone(hooks) as Arc<dyn Hooks>)
}

/// What meets the failing flush: a commit by log, a checkpoint beside writers, a commit by
/// checkpoint, a sync.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Call {
    Commit,
    Sync,
    Checkpoint,
    CommitByCheckpoint,
}

fn call(db: &Db, history: &History, call: Call) -> mapleaf::Result<()> {
    match call {
        Call::Commit => history.commit_next(db).map(drop),
        Call::Sync => {
            history.commit_next_at(db, Durability::Eventual)?;
            db.sync()
        }
        Call::Checkpoint => {
            history.commit_next_at(db, Durability::Eventual)?;
            db.checkpoint()
        }
        Call::CommitByCheckpoint => {
            let mut txn = db.begin_write()?;
            drop(txn.bytes_table("passing")?.insert(b"k", &[1; 64 * PAGE])?);
            txn.drop_table("passing")?;
            txn.commit()
        }
    }
}

/// The call fails with `Io`, everything after it with `Poisoned`; when flushes work again, the next
/// opening shows all acknowledged commits, and at most the one in doubt besides.
#[test]
fn a_flush_that_fails_once_or_for_good_poisons_and_loses_no_acknowledged_commit() {
    let flushes = [
        (Call::Commit, FlushKind::Log),
        (Call::Sync, FlushKind::Log),
        (Call::Checkpoint, FlushKind::Tree),
        (Call::Checkpoint, FlushKind::MetaPage),
        (Call::CommitByCheckpoint, FlushKind::Tree),
        (Call::CommitByCheckpoint, FlushKind::MetaPage),
    ];
    for ((of, kind), for_good) in flushes.into_iter().flat_map(|flush| [(flush, false), (flush, true)]) {
        let (dir, hooks, history) = (fast_dir(), Arc::<FailingFlush>::default(), History::power(3));
        let path = dir.path().join("a.mapleaf");
        let db = open_failing(&path, &hooks).expect("opened");
        let acknowledged = (0..9).map(|_| history.commit_next(&db).expect("committed")).last().expect("some");
        assert!(log_pages(&db) > 0);
        hooks.for_good.store(for_good, Ordering::SeqCst);
        *hooks.kind.lock().expect("no panic") = Some(kind);
        let at = format!("{of:?}, {kind:?}, for good: {for_good}");
        assert_eq!(call(&db, &history, of).expect_err(&at).kind(), ErrorKind::Io, "{at}");
        for of in [Call::Commit, Call::Sync, Call::Checkpoint, Call::CommitByCheckpoint] {
            assert_eq!(call(&db, &history, of).expect_err(&at).kind(), ErrorKind::Poisoned, "{at}, then {of:?}");
        }
        assert_eq!(db.begin_read().expect_err(&at).kind(), ErrorKind::Poisoned, "{at}");
        drop(db);
        if for_good && kind != FlushKind::Log {
            // The checkpoint of the recovery meets it too.
            assert_eq!(open_failing(&path, &hooks).expect_err(&at).kind(), ErrorKind::Io, "{at}");
        }
        *hooks.kind.lock().expect("no panic") = None;
        let db = open_failing(&path, &hooks).unwrap_or_else(|e| panic!("{at}: {e}"));
        let seen = history.judge(&db).unwrap_or_else(|e| panic!("{at}: {e}"));
        assert!(seen == acknowledged || seen == acknowledged + 1, "{at}: {seen}, acknowledged {acknowledged}");
        assert_eq!(history.commit_next(&db).unwrap_or_else(|e| panic!("{at}: {e}")), seen + 1);
    }
}

/// A disk that has no room from some write or growth on.
#[derive(Default)]
struct FullDisk {
    /// So many writes and growths still work; 0: all do.
    left: AtomicU64,
    refused: AtomicU64,
}

impl FullDisk {
    fn takes_room(&self) -> io::Result<()> {
        match self.left.load(Ordering::SeqCst) {
            0 => Ok(()),
            1 => {
                self.refused.fetch_add(1, Ordering::SeqCst);
                Err(io::Error::from_raw_os_error(28))
            }
            left => {
                self.left.store(left - 1, Ordering::SeqCst);
                Ok(())
            }
        }
    }
}

impl Hooks for FullDisk {
    fn before_flush(&self, _event: &FlushEvent<'_>) -> io::Result<()> {
        Ok(())
    }

    fn writing(&self, _offset: u64, _len: u64) -> io::Result<()> {
        self.takes_room()
    }

    fn growing(&self, _new_len: u64) -> io::Result<()> {
        self.takes_room()
    }
}

/// The commit that would make the log goes by checkpoint, and so do the next ones; the file stays
/// whole at each step.
#[test]
fn a_disk_that_is_full_while_the_log_is_made_leaves_a_database_without_a_log() {
    let mut refusals = 0;
    for works in 1.. {
        let (dir, hooks, history) = (fast_dir(), Arc::<FullDisk>::default(), History::power(11));
        let path = dir.path().join("a.mapleaf");
        let begin = || {
            // More than the file has room for, so that the log makes it grow.
            testing::set_log_shape(Some((3, 4 << 20)));
            open_with_hooks(Options::new(), &path, Arc::clone(&hooks) as Arc<dyn Hooks>).expect("opened")
        };
        let db = begin();
        (0..3).for_each(|_| assert!(history.commit_next(&db).is_ok()));
        assert_eq!(log_pages(&db), 0);
        hooks.left.store(works, Ordering::SeqCst);
        let mut acknowledged = history.commit_next(&db).unwrap_or_else(|e| panic!("step {works}: {e}"));
        let refused = hooks.refused.swap(0, Ordering::SeqCst);
        assert_eq!(log_pages(&db) == 0, refused > 0, "step {works}");
        for _ in 0..3 {
            acknowledged = history.commit_next(&db).unwrap_or_else(|e| panic!("step {works}: {e}"));
        }
        assert_eq!(history.judge(&db), Ok(acknowledged), "step {works}");
        let copy = dir.path().join("b.mapleaf");
        std::fs::copy(&path, &copy).expect("copied");
        assert_eq!(history.judge(&Db::open(&copy).expect("opened")), Ok(acknowledged), "step {works}");
        hooks.left.store(0, Ordering::SeqCst);
        drop(db);
        let db = begin();
        (0..5).for_each(|_| assert!(history.commit_next(&db).is_ok()));
        assert!(log_pages(&db) > 0, "there is room again");
        testing::set_log_shape(None);
        refusals += refused.min(1);
        if refused == 0 {
            break;
        }
    }
    assert!(refusals >= 2, "the disk was full at {refusals} steps");
}

/// Commits by log, each flushed by itself, and the bytes that the process would leave.
fn logged(dir: &Path, history: &History) -> (Vec<u8>, u64, u64) {
    // So large that no checkpoint is due.
    testing::set_log_shape(Some((1, 256 * PAGE as u64)));
    let path = dir.join("logged.mapleaf");
    let db = Db::open(&path).expect("opened");
    let acknowledged = (0..24).map(|_| history.commit_next(&db).expect("committed")).last().expect("some");
    let bytes = std::fs::read(&path).expect("read");
    testing::set_log_shape(None);
    (bytes, acknowledged, testing::durable_meta_txn(&db))
}

/// Damages one page of the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Damage {
    /// One bit, at this byte.
    Flip(usize),
    /// The page is zeros from this byte on.
    Cut(usize),
    /// The page is as if it had never been written.
    Missing,
}

fn damage(page: &mut [u8], how: Damage) {
    match how {
        Damage::Flip(at) => page[at] ^= 1 << (at % 8),
        Damage::Cut(at) => page[at..].fill(0),
        Damage::Missing => page.fill(0),
    }
}

/// The error names the transactions in doubt, up to the newest of which the log knows that it was
/// durable. Returns the first of them.
fn names_the_commits_in_doubt(error: &Error, newest_known: u64) -> u64 {
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    let text = error.to_string();
    let after =
        |word: &str| text.split(word).nth(1).and_then(|rest| rest.split([' ', ';']).next()?.parse::<u64>().ok());
    let first = after("; transactions ").or_else(|| after("; transaction ")).unwrap_or_else(|| panic!("{text}"));
    assert!(text.contains(&format!("to {newest_known} are lost")) || first == newest_known, "{text}");
    first
}

/// Each page of the log in turn. If a later record says that a transaction was durable, a shorter
/// history is an error that names what is lost; else the state is that of the commit before.
#[test]
fn a_flipped_cut_or_missing_log_page_is_never_a_silently_shorter_history() {
    let (dir, history) = (fast_dir(), History::power(5));
    let (bytes, acknowledged, meta) = logged(dir.path(), &history);
    let content = log_content(&|offset, into: &mut [u8]| {
        into.copy_from_slice(&bytes[offset as usize..offset as usize + into.len()]);
        true
    })
    .expect("a log");
    // Records, and the pages that they lie on.
    assert!(content.records > 12 && content.start < content.end, "{content:?}");
    let pages = (content.start / PAGE as u64..content.end.div_ceil(PAGE as u64)).map(|page| page % content.pages);
    let path = dir.path().join("damaged.mapleaf");
    let (mut refused, mut shorter, mut harmless) = (0, 0, 0);
    for page in pages {
        let start = (content.first + page) as usize * PAGE;
        let flips = [8, 20, 33, 60, 700, 3000].map(Damage::Flip);
        let cuts = [32, 512, 2048].map(Damage::Cut);
        for how in flips.into_iter().chain(cuts).chain([Damage::Missing]) {
            let mut damaged = bytes.clone();
            damage(&mut damaged[start..start + PAGE], how);
            std::fs::write(&path, &damaged).expect("written");
            for read_only in [true, false] {
                let at = format!("page {page}, {how:?}, read-only: {read_only}");
                let db = match Options::new().read_only(read_only).open(&path) {
                    Ok(db) => db,
                    Err(e) => {
                        // The newest record has no witness of its own.
                        let first = names_the_commits_in_doubt(&e, meta + content.records - 1);
                        assert!((meta + 1..meta + content.records).contains(&first), "{at}: {e}");
                        assert_eq!(std::fs::read(&path).expect("read"), damaged, "{at}: the file was changed");
                        refused += 1;
                        continue;
                    }
                };
                let seen = history.judge(&db).unwrap_or_else(|e| panic!("{at}: {e}"));
                // Only the newest commit may be missing: nothing in the file proves it.
                assert!(seen == acknowledged || seen + 1 == acknowledged, "{at}: {seen} of {acknowledged}");
                (harmless, shorter) =
                    (harmless + u64::from(seen == acknowledged), shorter + u64::from(seen < acknowledged));
            }
        }
    }
    println!("log pages: {refused} refused, {shorter} without the newest commit, {harmless} harmless");
    assert!(refused > 200 && shorter > 0 && harmless > 0 && acknowledged > FIRST_TXN + 20);
}

/// The records name the newest meta page, so its loss is an error and not an older history.
#[test]
fn a_lost_meta_page_that_records_name_is_an_error() {
    let (dir, history) = (fast_dir(), History::power(6));
    let path = dir.path().join("a.mapleaf");
    let db = Db::open(&path).expect("opened");
    (0..12).for_each(|_| assert!(history.commit_next(&db).is_ok()));
    db.checkpoint().expect("a checkpoint");
    let newest = testing::durable_meta_txn(&db);
    let copy = dir.path().join("b.mapleaf");
    for records in 0..3 {
        std::fs::copy(&path, &copy).expect("copied");
        let metas = mapleaf::inspect::metas(&db).expect("metas");
        let slot = metas.iter().find(|meta| meta.txn == newest).expect("the newest meta page").slot;
        let mut bytes = std::fs::read(&copy).expect("read");
        bytes[slot as usize * PAGE..][..PAGE].fill(0);
        std::fs::write(&copy, &bytes).expect("written");
        for read_only in [true, false] {
            let opened = Options::new().read_only(read_only).open(&copy);
            if records == 0 {
                // Nothing proves that there was a newer one; the older one and its log have all.
                assert_eq!(history.judge(&opened.expect("opened")), Ok(newest), "read-only: {read_only}");
                break;
            }
            let text = opened.expect_err("refused").to_string();
            assert!(text.contains(&format!("names the meta page of transaction {newest}")), "{text}");
            assert!(text.contains("are lost") || text.contains("is lost"), "{text}");
        }
        assert!(history.commit_next(&db).is_ok());
    }
}
