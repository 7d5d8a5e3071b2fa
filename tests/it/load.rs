//! Bulk loads compared with a map: any order, any previous contents, any memory budget, with
//! refused entries and failures.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Arc;

use mapleaf::testing::{open_with_hooks, FlushEvent, Hooks};
use mapleaf::{Db, Error, ErrorKind, Options, Table};

use crate::support::{bytes, long, seed, Rng, TestDb, BYTES};

type Model = BTreeMap<Vec<u8>, Vec<u8>>;
type Entries = Vec<(Vec<u8>, Vec<u8>)>;

/// Keys of several shapes: random bytes, text with a long common part, a few repeated keys, numbers
/// in a small range.
fn key(shape: u64, rng: &mut Rng) -> Vec<u8> {
    match shape {
        0 => bytes(rng.next(), 24),
        1 => format!("tenant/000017/item/{:012}/name", rng.below(100_000)).into_bytes(),
        2 => vec![b'x'; rng.below(60) as usize],
        3 => {
            let key = bytes(rng.next(), 2 + rng.below(2) as usize);
            key.into_iter().map(|byte| byte % 3).collect()
        }
        _ => bytes(rng.below(500), 1 + rng.below(900) as usize),
    }
}

fn value(rng: &mut Rng) -> Vec<u8> {
    let len = match rng.below(200) {
        0 => 20_000 + rng.below(300_000),
        1..=6 => 1100 + rng.below(9000),
        7..=60 => rng.below(970),
        _ => rng.below(150),
    };
    bytes(rng.next(), len as usize)
}

fn entries(shape: u64, count: u64, rng: &mut Rng) -> Entries {
    (0..count).map(|_| (key(shape, rng), value(rng))).collect()
}

/// Ascending, descending, mostly ascending, or unsorted.
fn arrange(entries: &mut Entries, order: u64, rng: &mut Rng) {
    if order < 3 {
        entries.sort_by(|a, b| a.0.cmp(&b.0));
    }
    match order {
        1 => entries.reverse(),
        2 => {
            for _ in 0..entries.len() / 50 {
                let (a, b) = (rng.below(entries.len() as u64), rng.below(entries.len() as u64));
                entries.swap(a as usize, b as usize);
            }
        }
        _ => {}
    }
}

#[track_caller]
fn assert_holds(db: &Db, model: &Model) {
    let txn = db.begin_read().expect("begins");
    let table = txn.table(BYTES).expect("table");
    assert_eq!(table.len(), model.len() as u64);
    let mut expected = model.iter();
    for item in table.iter() {
        let (key, value) = item.expect("an entry");
        let (k, v) = expected.next().expect("no more than in the model");
        assert!(key == k && value == v, "key {}", key.escape_ascii());
    }
    assert!(expected.next().is_none());
    for (key, value) in model.iter().step_by(17) {
        assert_eq!(table.get(key).expect("get"), Some(value.as_slice()));
    }
}

#[test]
fn loads_agree_with_a_map() {
    let mut rng = Rng::new(seed("loads_agree_with_a_map"));
    for round in 0..60 * u64::from(long()) {
        let page_size = 4096 << (round % 4);
        let options = Options::new().page_size(page_size);
        let db = if round % 2 == 0 { TestDb::memory(options) } else { TestDb::file(options) };
        let mut model = Model::new();
        for _ in 0..1 + rng.below(4) {
            let txn = db.begin_write().expect("begins");
            for _ in 0..1 + rng.below(3) {
                let count = [0, 1, 20, 300, 3000][rng.below(5) as usize];
                let (shape, order) = (rng.below(5), rng.below(4));
                let mut entries = entries(shape, count, &mut rng);
                arrange(&mut entries, order, &mut rng);
                let memory = [1, 100_000, 1 << 20, usize::MAX][rng.below(4) as usize];
                let mut table = txn.table(BYTES).expect("table");
                let mut loader = table.loader().expect("a loader").memory(memory);
                for (key, value) in &entries {
                    loader.push(key, value).expect("taken");
                }
                assert_eq!(loader.finish().expect("finished"), count);
                model.extend(entries);
                // Other changes in the same transaction, to pages that the load has written.
                for _ in 0..rng.below(30) {
                    let (key, value) = (key(shape, &mut rng), value(&mut rng));
                    if rng.below(2) == 0 {
                        table.insert(&key, &value).expect("inserted");
                        model.insert(key, value);
                    } else {
                        assert_eq!(table.remove(&key).expect("removed"), model.remove(&key));
                    }
                }
                assert_eq!(table.len(), model.len() as u64);
                let found = table.iter().map(|item| item.expect("an entry").0.to_vec()).collect::<Vec<_>>();
                assert!(found.iter().eq(model.keys()), "round {round}");
            }
            txn.commit().expect("commits");
            assert_holds(&db, &model);
            db.assert_clean();
        }
    }
}

/// Enough entries for the writing thread, in one pass and in several, into tables whose old entries
/// stay, are replaced or were removed.
#[test]
fn large_loads_agree_with_a_map() {
    let mut rng = Rng::new(seed("large_loads_agree_with_a_map"));
    for memory in [2 << 20, usize::MAX] {
        let db = TestDb::file(Options::new());
        let mut model = Model::new();
        for round in 0..3 {
            let mut entries: Entries = (0..40_000)
                .map(|_| (bytes(rng.below(70_000), 20), bytes(rng.next(), 100 + rng.below(100) as usize)))
                .collect();
            if round == 1 {
                arrange(&mut entries, 0, &mut rng);
            }
            let txn = db.begin_write().expect("begins");
            let mut table = txn.table(BYTES).expect("table");
            let mut loader = table.loader().expect("a loader").memory(memory);
            for (key, value) in &entries {
                loader.push(key, value).expect("taken");
            }
            loader.finish().expect("finished");
            txn.commit().expect("commits");
            model.extend(entries);
            assert_holds(&db, &model);
            db.assert_clean();
            let gone: Vec<_> = model.keys().filter(|_| rng.below(3) == 0).cloned().collect();
            db.write(|txn| {
                let mut table = txn.table(BYTES)?;
                gone.iter().try_for_each(|key| table.remove(key).map(drop))
            })
            .expect("removed");
            gone.iter().for_each(|key| drop(model.remove(key)));
        }
        assert_holds(&db, &model);
    }
}

/// A load leaves full pages, whatever the order of its entries.
#[test]
fn loaded_pages_are_full() {
    let mut sizes = Vec::new();
    for order in [0, 1, 3] {
        let db = TestDb::file(Options::new());
        let mut rng = Rng::new(5);
        let mut entries: Entries = (0..30_000).map(|n| (bytes(n, 24), vec![7; 150])).collect();
        arrange(&mut entries, order, &mut rng);
        let load = |txn: &mut mapleaf::WriteTxn| {
            txn.table(BYTES)?.load(entries.iter().map(|(key, value)| (key.as_slice(), value.as_slice())))
        };
        assert_eq!(db.write(load).expect("loaded"), 30_000);
        sizes.push(db.stats().expect("stats").page_count);
    }
    // 21 entries of 188 bytes fit a page.
    let least = 30_000 / 21;
    assert!(sizes.iter().all(|&pages| pages < least + least / 20), "{sizes:?}");
}

#[test]
fn an_aborted_load_leaves_no_trace() {
    let db = TestDb::file(Options::new());
    db.write(|txn| txn.table(BYTES)?.insert(b"key", b"value").map(drop)).expect("committed");
    for count in [10, 30_000] {
        let txn = db.begin_write().expect("begins");
        let entries: Entries = (0..count).map(|n| (bytes(n, 24), vec![1; 100])).collect();
        txn.table(BYTES).expect("table").load(entries.iter().map(|(k, v)| (&k[..], &v[..]))).expect("loaded");
        txn.abort();
        assert_holds(&db, &[(b"key".to_vec(), b"value".to_vec())].into());
    }
}

#[test]
fn refused_entries_are_not_stored_and_the_load_continues() {
    let db = TestDb::file(Options::new());
    let txn = db.begin_write().expect("begins");
    let mut table = txn.table(BYTES).expect("table");
    let mut loader = table.loader().expect("a loader");
    loader.push(b"b", b"1").expect("taken");
    let refused = loader.push(&[0; 65_537], b"2").expect_err("too long");
    assert_eq!(refused.kind(), ErrorKind::TooLarge);
    loader.push(b"a", b"3").expect("taken");
    assert_eq!(loader.finish().expect("finished"), 2);
    txn.commit().expect("commits");
    assert_holds(&db, &[(b"a".to_vec(), b"3".to_vec()), (b"b".to_vec(), b"1".to_vec())].into());
}

#[test]
fn an_unfinished_load_breaks_its_transaction() {
    let db = TestDb::file(Options::new());
    for (count, refused) in [(0, false), (3, false), (3, true), (30_000, false)] {
        let txn = db.begin_write().expect("begins");
        let mut table = txn.table(BYTES).expect("table");
        if refused {
            let entries = [(&b"a"[..], &b"b"[..]), (&[1; 70_000], b"c")];
            assert_eq!(table.load(entries).expect_err("too long").kind(), ErrorKind::TooLarge);
        } else {
            let mut loader = table.loader().expect("a loader");
            (0..count).for_each(|n| loader.push(&bytes(n, 24), &[1; 100]).expect("taken"));
            drop(loader);
        }
        let told = table.insert(b"a", b"b").expect_err("broken");
        assert!(told.kind() == ErrorKind::Usage && told.to_string().contains("load"), "{told}");
        assert_eq!(txn.commit().expect_err("broken").kind(), ErrorKind::Usage);
    }
    // Also when the source of the entries panics.
    let txn = db.begin_write().expect("begins");
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let entries = (0..100_000_u64).map(|n| match n {
            50_000 => panic!("no more of these"),
            n => (n, n),
        });
        txn.table(Table::<u64, u64>::new("numbers")).expect("table").load(entries)
    }));
    assert!(panicked.is_err());
    assert_eq!(txn.commit().expect_err("broken").kind(), ErrorKind::Usage);
    db.write(|txn| txn.table(BYTES)?.insert(b"key", b"value").map(drop)).expect("the next one");
}

#[test]
fn values_read_before_a_load_stay_valid() {
    let db = TestDb::file(Options::new());
    db.write(|txn| {
        let mut table = txn.table(BYTES)?;
        (0..2000).try_for_each(|n| table.insert(&bytes(n, 24), &[1; 100]).map(drop))
    })
    .expect("committed");
    let before = db.begin_read().expect("begins");
    let table = before.table(BYTES).expect("table");
    let held: Vec<_> = table.iter().map(|item| item.expect("an entry")).collect();
    for byte in [2, 3, 4] {
        let value = vec![byte; 110];
        db.write(|txn| {
            let keys: Vec<_> = (0..20_000).map(|n| bytes(n, 24)).collect();
            txn.table(BYTES)?.load(keys.iter().map(|key| (key.as_slice(), value.as_slice())))
        })
        .expect("loaded");
    }
    assert!(held.len() == 2000 && held.iter().all(|(_, value)| *value == [1; 100]));
}

/// Makes `pwrite` fail, or early write-back, from a number on.
#[derive(Default)]
struct Failing {
    writes: AtomicU64,
    fails_at: AtomicU64,
    full: bool,
    write_back: bool,
}

impl Failing {
    fn count(&self, write_back: bool) -> io::Result<()> {
        if write_back != self.write_back {
            return Ok(());
        }
        let number = self.writes.fetch_add(1, Ordering::Relaxed);
        match number == self.fails_at.load(Ordering::Relaxed) {
            true if self.full => Err(io::ErrorKind::StorageFull.into()),
            true => Err(io::Error::other("a bad block")),
            false => Ok(()),
        }
    }
}

impl Hooks for Failing {
    fn before_flush(&self, _event: &FlushEvent<'_>) -> io::Result<()> {
        Ok(())
    }

    fn writing(&self, _offset: u64, _len: u64) -> io::Result<()> {
        self.count(false)
    }

    fn writing_back(&self, _offset: u64, _len: u64) -> io::Result<()> {
        self.count(true)
    }
}

fn load_some(db: &Db, sorted: bool) -> Result<(), Error> {
    let mut entries: Entries = (0..30_000).map(|n| (bytes(n, 24), vec![1; 150])).collect();
    if sorted {
        entries.sort();
    }
    let txn = db.begin_write()?;
    let mut table = txn.table(BYTES)?;
    let mut loader = table.loader()?.memory(1 << 20);
    let done = entries.iter().try_for_each(|(key, value)| loader.push(key, value));
    let done = done.and_then(|()| loader.finish());
    match done {
        Ok(_) => txn.commit(),
        Err(e) => {
            assert!(txn.commit().is_err(), "a transaction with a failed load commits");
            Err(e)
        }
    }
}

/// The kind of error of a failed write.
fn assert_failed(told: &Error, full: bool) {
    assert_eq!(told.kind(), if full { ErrorKind::DiskFull } else { ErrorKind::Io }, "{told}");
    assert!(told.to_string().contains("test.mapleaf"), "{told}");
}

/// The kind of the next error: a full disk has room again, other errors have poisoned the handle.
fn assert_goes_on_if_full(next: Result<(), Error>, full: bool) {
    match full {
        true => next.expect("there is room again"),
        false => assert_eq!(next.expect_err("poisoned").kind(), ErrorKind::Poisoned),
    }
}

fn assert_opens_with(path: &Path, count: u64) {
    let db = Db::open(path).expect("opens again");
    assert_eq!(db.begin_read().expect("begins").table(BYTES).expect("table").len(), count);
    crate::support::assert_clean(&db);
}

/// A full disk aborts the transaction. Any other write error may be reported only once, so nothing
/// is acknowledged after it (R9).
#[test]
fn a_write_that_fails_is_an_error_of_the_load() {
    for (full, write_back, sorted, fails_at) in [
        (true, false, true, 0),
        (true, false, false, 5),
        (false, false, true, 3),
        (false, false, false, 20),
        (false, true, true, 2),
        (false, true, true, 0),
    ] {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("test.mapleaf");
        let hooks = Arc::new(Failing { full, write_back, fails_at: fails_at.into(), ..Failing::default() });
        let db = open_with_hooks(Options::new(), &path, Arc::clone(&hooks) as Arc<dyn Hooks>).expect("opens");
        db.write(|txn| txn.table(BYTES)?.insert(b"", b"before all others").map(drop)).expect("committed");
        let told = load_some(&db, sorted).expect_err("the write fails");
        assert_failed(&told, full);
        assert_goes_on_if_full(load_some(&db, sorted), full);
        drop(db);
        assert_opens_with(&path, 1 + if full { 30_000 } else { 0 });
    }
}

/// Long series of appends, written page by page, with reads of what has just been appended, and
/// every other kind of change between them.
#[test]
fn appends_among_other_changes_agree_with_maps() {
    let mut rng = Rng::new(seed("appends_among_other_changes_agree_with_maps"));
    for round in 0..6 * u64::from(long()) {
        let options = Options::new().page_size(4096 << (round % 3));
        let mut db = if round % 4 == 3 { TestDb::memory(options) } else { TestDb::file(options) };
        let mut committed = [Model::new(), Model::new()];
        let mut next_key = 0u64;
        for _ in 0..6 {
            let mut models = committed.clone();
            let mut txn = db.begin_write().expect("begins");
            for _ in 0..6 {
                let both = rng.below(4) == 0;
                for _ in 0..rng.below(6000) {
                    next_key += 1 + rng.below(3);
                    let at = if both { next_key as usize % 2 } else { 0 };
                    let mut table = txn.table(Table::<&[u8], &[u8]>::new(["a", "b"][at])).expect("table");
                    let (key, value) = (next_key.to_be_bytes().to_vec(), value(&mut rng));
                    let value = if value.len() > 5000 { vec![7; 200] } else { value };
                    table.append(&key, &value).expect("appended");
                    models[at].insert(key, value);
                    if rng.below(40) == 0 {
                        let recent = (next_key - rng.below(next_key.min(3000))).to_be_bytes();
                        let found = table.get(&recent).expect("get");
                        assert!(found == models[at].get(&recent[..]).map(Vec::as_slice), "{recent:?}");
                    }
                }
                let mut table = txn.table(Table::<&[u8], &[u8]>::new("a")).expect("table");
                let some = rng.below(next_key + 1).to_be_bytes();
                match rng.below(5) {
                    0 => assert!(table.remove(&some).expect("removed") == models[0].remove(&some[..])),
                    1 => {
                        assert!(table.insert(&some, b"x").expect("put") == models[0].insert(some.to_vec(), b"x".into()))
                    }
                    2 => {
                        let ours = table.iter().map(|entry| entry.expect("an entry"));
                        assert!(ours.eq(models[0].iter().map(|(key, value)| (&key[..], &value[..]))));
                    }
                    3 => {
                        let load = [(&some[..], &b"loaded"[..])];
                        table.load(load).expect("loaded");
                        models[0].insert(some.to_vec(), b"loaded".to_vec());
                    }
                    _ => {
                        let dropped = rng.below(2) as usize;
                        txn.drop_table(["a", "b"][dropped]).expect("dropped");
                        models[dropped].clear();
                    }
                }
            }
            match rng.below(3) {
                0 => drop(txn),
                _ => {
                    txn.commit().expect("commits");
                    committed = models;
                }
            }
            if rng.below(2) == 0 {
                db.reopen();
            }
            db.assert_clean();
            let txn = db.begin_read().expect("begins");
            for (name, model) in ["a", "b"].iter().zip(&committed) {
                let table = txn.bytes_table(name).expect("table");
                let ours = table.iter().map(|entry| entry.expect("an entry"));
                assert!(ours.eq(model.iter().map(|(key, value)| (&key[..], &value[..]))), "table {name}");
            }
        }
    }
}

fn append_some(db: &Db) -> Result<(), Error> {
    let txn = db.begin_write()?;
    let mut table = txn.table(BYTES)?;
    let appended = (0..30_000u32).try_for_each(|n| table.append(&n.to_be_bytes(), &[1; 150]));
    match appended {
        Ok(()) => txn.commit(),
        Err(e) => {
            assert!(txn.commit().is_err(), "a transaction with a failed append commits");
            Err(e)
        }
    }
}

/// The same for appends; an append or the commit may return the error.
#[test]
fn a_write_that_fails_is_an_error_of_the_append_or_the_commit() {
    for (full, write_back, fails_at) in [
        (true, false, 0),
        (true, false, 5),
        (false, false, 3),
        (false, false, 17),
        (false, true, 0),
        (false, true, 4),
        // The last pages.
        (false, false, u64::MAX),
    ] {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("test.mapleaf");
        let hooks = Arc::new(Failing { full, write_back, fails_at: fails_at.into(), ..Failing::default() });
        if fails_at == u64::MAX {
            let spare = dir.path().join("spare.mapleaf");
            let db = open_with_hooks(Options::new(), &spare, Arc::clone(&hooks) as Arc<dyn Hooks>).expect("opens");
            append_some(&db).expect("appended");
            hooks.fails_at.store(hooks.writes.swap(0, Ordering::Relaxed) - 1, Ordering::Relaxed);
        }
        let db = open_with_hooks(Options::new(), &path, Arc::clone(&hooks) as Arc<dyn Hooks>).expect("opens");
        let told = append_some(&db).expect_err("a write fails");
        assert_failed(&told, full);
        assert_goes_on_if_full(append_some(&db), full);
        drop(db);
        assert_opens_with(&path, if full { 30_000 } else { 0 });
    }
}

/// Fails growth while `full` is set.
#[derive(Default)]
struct Full {
    full: AtomicBool,
}

impl Hooks for Full {
    fn before_flush(&self, _event: &FlushEvent<'_>) -> io::Result<()> {
        Ok(())
    }

    fn growing(&self, _new_len: u64) -> io::Result<()> {
        match self.full.load(Ordering::Relaxed) {
            true => Err(io::ErrorKind::StorageFull.into()),
            false => Ok(()),
        }
    }
}

/// If the caller continues after an error, no transaction commits without the failed entries.
#[test]
fn a_failed_load_stays_failed() {
    for sorted in [true, false] {
        for long in [false, true] {
            let dir = tempfile::tempdir().expect("a directory");
            let hooks = Arc::new(Full::default());
            let path = dir.path().join("test.mapleaf");
            let db = open_with_hooks(Options::new(), &path, Arc::clone(&hooks) as Arc<dyn Hooks>).expect("opens");
            db.write(|txn| txn.table(BYTES)?.insert(b"", b"before all others").map(drop)).expect("committed");
            let mut entries: Entries = (0..20_000).map(|n| (bytes(n, 24), vec![1; 150])).collect();
            if long {
                (0..20_000).step_by(10).for_each(|n| entries[n].1 = vec![2; 3000]);
            }
            if sorted {
                entries.sort();
            }
            let txn = db.begin_write().expect("begins");
            let mut table = txn.table(BYTES).expect("table");
            let mut loader = table.loader().expect("a loader").memory(500_000);
            hooks.full.store(true, Ordering::Relaxed);
            let mut refused = 0;
            for (key, value) in &entries {
                if let Err(e) = loader.push(key, value) {
                    refused += 1;
                    let expected = if refused == 1 { ErrorKind::DiskFull } else { ErrorKind::Usage };
                    assert_eq!(e.kind(), expected, "{e}");
                    // There is room again.
                    hooks.full.store(false, Ordering::Relaxed);
                }
            }
            assert!(refused > 1, "{refused}");
            assert_eq!(loader.finish().expect_err("entries are missing").kind(), ErrorKind::Usage);
            assert_eq!(txn.commit().expect_err("entries are missing").kind(), ErrorKind::Usage);
            load_some(&db, sorted).expect("there is room again");
            crate::support::assert_clean(&db);
        }
    }
}

/// The entries that an abandoned load has stored already are readable, and are no damage.
#[test]
fn a_table_with_an_abandoned_load_is_not_reported_as_damaged() {
    let db = TestDb::file(Options::new());
    db.write(|txn| txn.table(BYTES)?.insert(b"", b"before all others").map(drop)).expect("committed");
    for (count, sorted) in [(3_u64, true), (1000, true), (40_000, true), (40_000, false)] {
        let mut entries: Entries = (0..count).map(|n| (bytes(n, 24), vec![1; 150])).collect();
        if sorted {
            entries.sort();
        }
        let model: Model = entries.iter().cloned().collect();
        let txn = db.begin_write().expect("begins");
        let mut table = txn.table(BYTES).expect("table");
        let mut loader = table.loader().expect("a loader").memory(1 << 20);
        entries.iter().for_each(|(key, value)| loader.push(key, value).expect("taken"));
        drop(loader);
        assert_eq!(table.get(b"").expect("get"), Some(&b"before all others"[..]));
        for item in table.iter().skip(1) {
            let (key, value) = item.expect("an entry");
            assert!(model.get(key).is_some_and(|expected| expected == value), "{count} {sorted}");
        }
        for (key, value) in entries.iter().step_by(7) {
            assert!(table.get(key).expect("get").is_none_or(|found| found == value));
        }
    }
}
