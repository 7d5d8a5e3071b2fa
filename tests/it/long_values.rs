//! Long values that are reserved and filled in, or read from a stream, compared with values that
//! are inserted.

use std::io::{self, Read};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use mapleaf::testing::{self, open_with_hooks, FlushEvent, Hooks};
use mapleaf::{Db, ErrorKind, Options, Table};

use crate::support::{assert_clean, bytes, seed, Rng, TestDb, BYTES};

/// A reader that returns chunks of odd sizes, and fails or ends after some bytes.
struct Drip<'a> {
    bytes: &'a [u8],
    step: usize,
    fails: bool,
}

impl Read for Drip<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.bytes.is_empty() && self.fails {
            return Err(io::Error::other("the line is dead"));
        }
        let count = self.step.min(into.len()).min(self.bytes.len());
        let (now, later) = self.bytes.split_at(count);
        into[..count].copy_from_slice(now);
        self.bytes = later;
        Ok(count)
    }
}

/// Lengths around every threshold: of inline values, pages, chunks, and of extents that are stored
/// and not written by `pwrite`.
fn lengths(page_size: usize, rng: &mut Rng) -> Vec<usize> {
    let mut edges = vec![0, 1, page_size / 4 - 24];
    edges.extend([1, 2, 3, 4, 5, 16, 17, 33].map(|pages| pages * page_size - 32));
    edges.extend([65536, 131072, 1 << 20]);
    let mut lengths: Vec<usize> = edges.iter().flat_map(|&edge| [edge.saturating_sub(1), edge, edge + 1]).collect();
    lengths.extend((0..20).map(|_| rng.below(400_000) as usize));
    lengths
}

#[test]
fn values_of_all_lengths_come_back_however_they_were_stored() {
    let mut rng = Rng::new(seed("values_of_all_lengths"));
    for page_size in [4096, 32768] {
        for db in TestDb::both(&Options::new().page_size(page_size as u32)) {
            let lengths = lengths(page_size, &mut rng);
            for round in 0..3_u64 {
                let txn = db.begin_write().expect("begins");
                let mut table = txn.table(BYTES).expect("table");
                for (at, &len) in lengths.iter().enumerate() {
                    let (key, value) = (at.to_be_bytes(), bytes(len as u64 ^ round << 40, len));
                    let existed = match (at as u64 + round) % 3 {
                        0 => table.insert(&key, &value).expect("inserted").is_some(),
                        1 => {
                            let from = Drip { bytes: &value, step: 1 + rng.below(90_000) as usize, fails: true };
                            table.insert_reader(&key, len as u64, from).expect("read")
                        }
                        _ => {
                            let mut place = table.reserve(&key, len).expect("reserved");
                            assert!(place.len() == len && place.iter().all(|&byte| byte == 0), "old bytes");
                            place.copy_from_slice(&value);
                            assert!(place[..] == value);
                            place.finish().expect("finished")
                        }
                    };
                    assert_eq!(existed, round > 0, "length {len}");
                    assert!(table.get(&key).expect("get") == Some(&value), "length {len}");
                }
                txn.commit().expect("commits");
                let txn = db.begin_read().expect("begins");
                let table = txn.table(BYTES).expect("table");
                for (at, &len) in lengths.iter().enumerate() {
                    let value = bytes(len as u64 ^ round << 40, len);
                    assert!(table.get(&at.to_be_bytes()).expect("get") == Some(&value), "length {len}");
                }
                db.assert_clean();
            }
        }
    }
}

#[test]
fn a_reader_that_ends_early_or_fails_changes_nothing() {
    let db = TestDb::file(Options::new());
    let long = bytes(1, 300_000);
    let txn = db.begin_write().expect("begins");
    let mut table = txn.table(BYTES).expect("table");
    table.insert(b"key", b"before").expect("inserted");
    for len in [10, 5000, 300_001] {
        for fails in [false, true] {
            let from = Drip { bytes: &long[..long.len().min(len - 1)], step: 1000, fails };
            let told = table.insert_reader(b"key", len as u64, from).expect_err("too short");
            assert_eq!(told.kind(), ErrorKind::Io);
            assert!(told.to_string().contains("value"), "{told}");
            assert_eq!(table.get(b"key").expect("get"), Some(&b"before"[..]));
        }
    }
    let told = table.insert_reader(&[0; 70_000], 3, &b"abc"[..]).expect_err("a long key");
    assert_eq!(told.kind(), ErrorKind::TooLarge);
    assert_eq!(table.reserve(b"key", usize::MAX).map(drop).expect_err("too long").kind(), ErrorKind::TooLarge);
    assert!(table.insert_reader(b"key", 300_000, &long[..]).expect("goes on"));
    txn.commit().expect("commits");
    assert!(db.begin_read().expect("begins").table(BYTES).expect("table").get(b"key").expect("get") == Some(&long));
}

#[test]
fn a_dropped_reserved_value_changes_nothing_and_a_forgotten_one_is_not_committed() {
    let db = TestDb::file(Options::new());
    let txn = db.begin_write().expect("begins");
    let mut table = txn.table(BYTES).expect("table");
    table.insert(b"key", b"before").expect("inserted");
    for len in [10, 5000, 100_000] {
        let mut place = table.reserve(b"key", len).expect("reserved");
        place.fill(7);
        drop(place);
        assert_eq!(table.get(b"key").expect("get"), Some(&b"before"[..]));
    }
    txn.commit().expect("commits");
    db.assert_clean();
    let txn = db.begin_write().expect("begins");
    std::mem::forget(txn.table(BYTES).expect("table").reserve(b"key", 100_000).expect("reserved"));
    assert_eq!(txn.commit().expect_err("a run that nobody knows").kind(), ErrorKind::Usage);
    let panics = |_: usize| -> u8 { panic!("no more") };
    let txn = db.begin_write().expect("begins");
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        struct Panics<F>(F);
        impl<F: Fn(usize) -> u8> Read for Panics<F> {
            fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
                into[0] = (self.0)(into.len());
                Ok(1)
            }
        }
        txn.table(BYTES).expect("table").insert_reader(b"key", 100_000, Panics(panics))
    }));
    assert!(panicked.is_err());
    assert_eq!(txn.commit().expect_err("a run that nobody knows").kind(), ErrorKind::Usage);
    db.write(|txn| txn.table(BYTES)?.insert(b"other", b"value").map(drop)).expect("the next one");
}

#[test]
fn tables_with_other_keys_take_long_values_too() {
    const FILES: Table<(&str, u64), &[u8]> = Table::new("files");
    let db: Db = Db::in_memory().expect("in memory");
    db.write(|txn| {
        let mut files = txn.table(FILES)?;
        files.insert_reader(("a", 1), 100_000, io::repeat(5))?;
        let mut place = files.reserve(("a", 2), 3)?;
        place.copy_from_slice(b"abc");
        place.finish().map(drop)
    })
    .expect("stored");
    let txn = db.begin_read().expect("begins");
    let files = txn.table(FILES).expect("table");
    assert!(files.get(("a", 1)).expect("get") == Some(&[5; 100_000]));
    assert_eq!(files.get(("a", 2)).expect("get"), Some(&b"abc"[..]));
}

/// Records the ranges whose write-back is started early, and fails the start with a given number.
#[derive(Default)]
struct WriteBack {
    started: Mutex<Vec<(u64, u64)>>,
    written: AtomicU64,
    fails_at: Option<usize>,
}

impl Hooks for WriteBack {
    fn before_flush(&self, _event: &FlushEvent<'_>) -> io::Result<()> {
        Ok(())
    }

    fn wrote(&self, _offset: u64, len: u64) {
        self.written.fetch_add(len, Ordering::Relaxed);
    }

    fn writing_back(&self, offset: u64, len: u64) -> io::Result<()> {
        let mut started = self.started.lock().expect("no panic");
        started.push((offset, len));
        match self.fails_at == Some(started.len() - 1) {
            true => Err(io::Error::other("a bad block")),
            false => Ok(()),
        }
    }
}

fn watched(dir: &tempfile::TempDir, fails_at: Option<usize>) -> (Db, Arc<WriteBack>) {
    let hooks = Arc::new(WriteBack { fails_at, ..WriteBack::default() });
    let path = dir.path().join("test.mapleaf");
    let db = open_with_hooks(Options::new(), path, Arc::clone(&hooks) as Arc<dyn Hooks>).expect("opens");
    (db, hooks)
}

/// Write-back of each long value is started before the commit, for all of it and once. Shorter
/// values are left to the flush.
#[test]
fn write_back_of_a_long_value_begins_before_the_commit() {
    // A checkpoint beside writers begins write-back too.
    testing::set_log_shape(Some((u64::MAX, 0)));
    let dir = tempfile::tempdir().expect("a directory");
    let (db, hooks) = watched(&dir, None);
    let mut expected = Vec::new();
    for (len, pages) in [(16_000, 0), (61_408, 0), (61_409, 16), (65_504, 16), (102_400, 26), (1 << 20, 257)] {
        for how in 0..3 {
            let (key, value) = ([how], bytes(len as u64, len));
            let txn = db.begin_write().expect("begins");
            let mut table = txn.table(BYTES).expect("table");
            let before = hooks.written.load(Ordering::Relaxed);
            match how {
                0 => drop(table.insert(&key, &value).expect("inserted")),
                1 => drop(table.put(&key, &value).expect("put")),
                _ => drop(table.insert_reader(&key, len as u64, &value[..]).expect("read")),
            }
            let written = hooks.written.load(Ordering::Relaxed) - before;
            assert_eq!(written, (len as u64 + 32).next_multiple_of(4096), "each page is written once");
            if pages > 0 {
                expected.push(pages * 4096);
            }
            let started: Vec<u64> = hooks.started.lock().expect("no panic").iter().map(|&(_, len)| len).collect();
            assert_eq!(started, expected, "length {len}, way {how}");
            txn.commit().expect("commits");
            assert_eq!(hooks.started.lock().expect("no panic").len(), expected.len());
        }
    }
    assert_clean(&db);
}

/// The kernel reports an error of write-back once: nothing is acknowledged afterwards (R9).
#[test]
fn a_write_back_of_a_long_value_that_fails_poisons() {
    for fails_at in [0, 3] {
        let dir = tempfile::tempdir().expect("a directory");
        let (db, _seam) = watched(&dir, Some(fails_at));
        let put = |n: u64| db.write(|txn| txn.table(BYTES)?.put(&n.to_be_bytes(), &bytes(n, 100_000)).map(drop));
        let numbers = 0..fails_at as u64;
        numbers.clone().for_each(|n| put(n).expect("committed"));
        assert_eq!(put(fails_at as u64).expect_err("the start fails").kind(), ErrorKind::Io);
        assert_eq!(put(100).expect_err("poisoned").kind(), ErrorKind::Poisoned);
        drop(db);
        let db = Db::open(dir.path().join("test.mapleaf")).expect("opens again");
        let txn = db.begin_read().expect("begins");
        let table = txn.table(BYTES).expect("table");
        assert_eq!(table.len(), fails_at as u64);
        numbers.for_each(|n| assert!(table.get(&n.to_be_bytes()).expect("get") == Some(&bytes(n, 100_000))));
        assert_clean(&db);
    }
}

#[test]
fn put_says_whether_the_key_was_there_and_gives_back_the_pages_of_the_old_value() {
    for db in TestDb::both(&Options::new()) {
        let lengths = [0, 10, 1000, 1001, 5000, 16_353, 65_504, 100_000, 300_000];
        for round in 0..8_usize {
            let txn = db.begin_write().expect("begins");
            let mut table = txn.table(BYTES).expect("table");
            for at in 0..lengths.len() {
                let len = lengths[(at + round) % lengths.len()];
                let existed = table.put(&[at as u8], &bytes(len as u64, len)).expect("put");
                assert_eq!(existed, round > 0);
                assert!(table.get(&[at as u8]).expect("get") == Some(&bytes(len as u64, len)));
            }
            txn.commit().expect("commits");
        }
        let pages = lengths.iter().map(|len| len / 4096 + 2).sum::<usize>() as u64;
        let stats = db.stats().expect("stats");
        assert!(stats.page_count < 6 * pages, "{} pages for values of {pages}", stats.page_count);
    }
    // Twice in one transaction.
    let db = TestDb::file(Options::new());
    db.write(|txn| {
        let mut table = txn.table(BYTES)?;
        assert!(!table.put(b"key", &bytes(1, 100_000))?);
        assert!(table.put(b"key", &bytes(2, 200_000))?);
        assert!(table.put(b"key", b"short")?);
        table.put(b"key", &bytes(3, 100_000)).map(drop)
    })
    .expect("committed");
    let txn = db.begin_read().expect("begins");
    assert!(txn.table(BYTES).expect("table").get(b"key").expect("get") == Some(&bytes(3, 100_000)));
}
