//! Files that are not, or not completely, in the page cache: read-ahead changes the cache and never
//! the results.
//!
//! On file systems that live in memory, every page is always cached: there, these tests print that
//! they are skipped.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mapleaf::testing::{cached_pages, drop_page_cache, evict, set_available_memory};
use mapleaf::{Db, ErrorKind, Options, ReadAhead, ReadTable, Result, Table};

use crate::reexec;
use crate::support::{bytes, mix, seed, Rng};

const DATA: Table<u64, &[u8]> = Table::new("data");
const KEYS: u64 = 6000;
const ALL: u64 = u64::MAX;

type Rows = ReadTable<u64, &'static [u8]>;

fn value_of(key: u64) -> Vec<u8> {
    let len = if key % 300 == 7 { 30_000 + key } else { 100 + key % 900 };
    // No byte is zero, so that zeros are never right.
    bytes(key, len as usize).into_iter().map(|byte| byte.max(1)).collect()
}

/// A closed database whose leaves are stored in key order or scattered.
fn make(path: &Path, closed_cleanly: bool) {
    let mut keys: Vec<u64> = (0..KEYS).collect();
    if !closed_cleanly {
        keys.sort_by_key(|&key| mix(key));
    }
    Db::open(path)
        .and_then(|db| {
            db.write(|txn| keys.iter().try_for_each(|&key| txn.table(DATA)?.insert(key, &value_of(key)).map(drop)))
        })
        .expect("loaded");
}

/// Drops a closed file from the page cache. If that is impossible, prints it and returns `false`.
fn make_cold(path: &Path) -> bool {
    let mut file = File::options().read(true).write(true).open(path).expect("the file");
    file.sync_all().expect("flushed");
    // Pages that are being read arrive first, and are dropped after that.
    std::io::copy(&mut file, &mut std::io::sink()).expect("read");
    let cold = drop_page_cache(&file).expect("asked") && cached_pages(&file).expect("counted") == 0;
    if !cold {
        println!("skipped: files in {} stay in memory", path.display());
    }
    cold
}

fn in_memory(path: &Path) -> u64 {
    File::open(path).and_then(|file| cached_pages(&file)).expect("counted")
}

/// Waits until read-ahead has finished.
fn settled(path: &Path) -> u64 {
    let mut before = in_memory(path);
    loop {
        std::thread::sleep(Duration::from_millis(30));
        let now = in_memory(path);
        if now == before {
            return now;
        }
        before = now;
    }
}

fn table(db: &Db) -> Rows {
    db.begin_read().and_then(|txn| txn.table(DATA)).expect("the table")
}

fn scan(rows: &Rows, backward: bool, fill: bool) -> u64 {
    let mut entries = rows.iter().fill_cache(fill);
    let mut count = 0;
    while let Some(entry) = if backward { entries.next_back() } else { entries.next() } {
        let (key, value) = entry.expect("an entry");
        assert_eq!(key, if backward { KEYS - 1 - count } else { count });
        assert!(value == value_of(key), "{key}");
        count += 1;
    }
    count
}

fn files() -> (tempfile::TempDir, [PathBuf; 2]) {
    let dir = tempfile::tempdir().expect("a directory");
    let paths = [dir.path().join("order.mapleaf"), dir.path().join("scattered.mapleaf")];
    make(&paths[0], true);
    make(&paths[1], false);
    (dir, paths)
}

/// Reads a cold file in many ways, with every setting, and compares all results with a map.
#[test]
fn cold_reads_return_the_stored_entries() {
    let (_dir, paths) = files();
    let model: BTreeMap<u64, Vec<u8>> = (0..KEYS).map(|key| (key, value_of(key))).collect();
    let mut rng = Rng::new(seed("cold reads"));
    for path in &paths {
        for case in 0..18 {
            if !make_cold(path) {
                return;
            }
            let read_ahead = if case % 3 == 2 { ReadAhead::Off } else { ReadAhead::Auto };
            let db = Options::new().read_ahead(read_ahead).open(path).expect("open");
            set_available_memory(&db, if case % 3 == 0 { ALL } else { 1 << 20 });
            let rows = table(&db);
            let fill = case % 2 == 0;
            match case / 3 {
                0 => (0..KEYS).for_each(|n| {
                    let key = mix(n) % (KEYS + 5);
                    assert_eq!(rows.get(key).expect("get"), model.get(&key).map(Vec::as_slice), "{key}");
                }),
                1 => (0..20).for_each(|_| {
                    let keys: Vec<u64> = (0..rng.below(700)).map(|_| rng.below(KEYS + 5)).collect();
                    let expected: Vec<Option<&[u8]>> =
                        keys.iter().map(|key| model.get(key).map(Vec::as_slice)).collect();
                    assert!(rows.multi_get(keys).expect("multi_get") == expected);
                    if rng.below(4) == 0 {
                        evict(&db);
                    }
                }),
                2 => assert_eq!(scan(&rows, false, fill), KEYS),
                3 => assert_eq!(scan(&rows, true, fill), KEYS),
                4 => (0..30).for_each(|_| {
                    let (from, len) = (rng.below(KEYS), rng.below(1500));
                    let found: Vec<(u64, Vec<u8>)> = rows
                        .range(from..from + len)
                        .expect("a range")
                        .fill_cache(fill)
                        .map(|entry| entry.map(|(key, value)| (key, value.to_vec())).expect("an entry"))
                        .collect();
                    let expected = model.range(from..from + len).map(|(key, value)| (*key, value.clone()));
                    assert!(found == expected.collect::<Vec<_>>(), "{from}, {len}");
                }),
                _ => {
                    let (mut entries, mut expected) = (rows.iter().fill_cache(fill), model.iter());
                    loop {
                        let front = rng.below(3) > 0;
                        let found = if front { entries.next() } else { entries.next_back() };
                        let found = found.map(|entry| entry.expect("an entry"));
                        let expected = if front { expected.next() } else { expected.next_back() };
                        assert!(found == expected.map(|(key, value)| (*key, value.as_slice())));
                        if found.is_none() {
                            break;
                        }
                        if rng.below(500) == 0 {
                            evict(&db);
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn read_ahead_reads_more_than_requested_only_if_the_file_fits_in_memory() {
    let (_dir, paths) = files();
    let path = &paths[1];
    let gets = |read_ahead, room, count| {
        if !make_cold(path) {
            return None;
        }
        let db = Options::new().read_ahead(read_ahead).open(path).expect("open");
        set_available_memory(&db, room);
        let rows = table(&db);
        let before = settled(path);
        assert!((0..count).all(|n| rows.get(mix(n) % KEYS).expect("get").is_some()));
        Some(settled(path) - before)
    };
    let Some(one) = gets(ReadAhead::Auto, ALL, 1) else { return };
    assert!(one >= 16, "{one} pages with one get");
    let pages = std::fs::metadata(path).expect("the file").len() / 4096;
    let many = gets(ReadAhead::Auto, ALL, 300).expect("cold");
    assert!(many > pages * 9 / 10, "{many} of {pages} pages with 300 gets");
    for (read_ahead, room) in [(ReadAhead::Off, ALL), (ReadAhead::Auto, 1 << 20)] {
        let few = gets(read_ahead, room, 20).expect("cold");
        // Root, branches, leaf, and sometimes a value of up to nine pages.
        assert!(few <= 20 * 4, "{few} pages with 20 gets");
    }
}

#[test]
fn a_scan_that_does_not_fill_the_cache_leaves_it_as_it_was() {
    let (_dir, paths) = files();
    for (path, backward) in [(&paths[0], false), (&paths[0], true), (&paths[1], false), (&paths[1], true)] {
        if !make_cold(path) {
            return;
        }
        let db = Options::new().open(path).expect("open");
        // Pages that other readers use stay in the cache.
        set_available_memory(&db, 0);
        let rows = table(&db);
        assert!((0..KEYS).step_by(40).all(|key| rows.get(key).expect("get").is_some()));
        let before = settled(path);
        assert_eq!(scan(&rows, backward, false), KEYS);
        let after = settled(path);
        assert!(after >= before && after < before + 20, "{before} pages before, {after} after");
        // Also the pages read ahead for a scan that ends early.
        let mut entries = rows.iter().fill_cache(false);
        assert!((0..KEYS / 2).all(|_| entries.next().is_some_and(|entry| entry.is_ok())));
        assert!(in_memory(path) > after);
        drop(entries);
        assert!(settled(path) < after + 20);
        assert_eq!(scan(&rows, backward, true), KEYS);
        assert!(settled(path) > 2 * before, "a scan that fills it does");
    }
}

/// Bytes of the mappings of a file in this process that are in memory, and those of them that were
/// used since the kernel last looked or was told otherwise.
fn mapped_and_used(path: &Path) -> (u64, u64) {
    let maps = std::fs::read_to_string("/proc/self/smaps").expect("the mappings");
    let (mut ours, mut sums) = (false, (0, 0));
    for line in maps.lines() {
        let mut words = line.split_whitespace();
        let (first, second) = (words.next().unwrap_or_default(), words.next());
        match first {
            _ if !first.ends_with(':') => ours = line.ends_with(path.to_str().expect("a name")),
            "Rss:" if ours => sums.0 += second.and_then(|size| size.parse::<u64>().ok()).expect("a size") << 10,
            "Referenced:" if ours => sums.1 += second.and_then(|size| size.parse::<u64>().ok()).expect("a size") << 10,
            _ => {}
        }
    }
    sums
}

#[test]
fn what_a_long_scan_brought_in_leaves_memory_before_other_pages() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("long.mapleaf");
    let long = 15 * KEYS;
    let load =
        |db: Db| db.write(|txn| (0..long).try_for_each(|key| txn.table(DATA)?.append(key, &value_of(key % 900))));
    Db::open(&path).and_then(load).expect("loaded");
    for backward in [false, true] {
        if !make_cold(&path) {
            return;
        }
        let db = Options::new().open(&path).expect("open");
        set_available_memory(&db, 1 << 20);
        let rows = table(&db);
        // What other readers have brought in stays as it is.
        let others: Vec<u64> = (0..long).step_by(100).collect();
        others.iter().for_each(|&key| assert!(rows.get(key).expect("get").is_some()));
        let mut entries = rows.iter();
        for n in 0..long {
            let entry = if backward { entries.next_back() } else { entries.next() };
            let (key, value) = entry.expect("an entry").expect("readable");
            assert!(key == if backward { long - 1 - n } else { n } && value == value_of(key % 900), "{key}");
        }
        drop(entries);
        let (mapped, used) = mapped_and_used(&path);
        assert!(used < mapped / 2, "{used} bytes of {mapped} seem to be in use");
        let start_of_scan = 1000;
        assert!(used > (start_of_scan + others.len() as u64 / 2) * 4096, "{used} bytes of {mapped} seem to be in use");
        assert!(others.iter().all(|&key| rows.try_get_resident(key).is_ok()), "pages stay in memory");
        // A short scan says nothing.
        let before = mapped_and_used(&path).1;
        assert_eq!(rows.range(10..2_000).expect("a range").count(), 1_990);
        assert!(mapped_and_used(&path).1 >= before);
    }
}

/// Retries with short pauses, as a program would. Returns the answer and the number of retries.
fn retried<T>(mut call: impl FnMut() -> Result<T>) -> (T, u32) {
    for tries in 0.. {
        match call() {
            Err(e) if e.kind() == ErrorKind::WouldBlock => {
                assert!(e.to_string().contains("not in memory"), "{e}");
                assert!(tries < 1000, "{e}");
                std::thread::sleep(Duration::from_millis(2));
            }
            found => return (found.expect("found"), tries),
        }
    }
    unreachable!("a thousand tries end")
}

#[test]
fn lookups_that_may_not_block_return_would_block_and_succeed_later() {
    let (_dir, paths) = files();
    for (path, read_ahead) in [(&paths[0], ReadAhead::Auto), (&paths[1], ReadAhead::Off)] {
        if !make_cold(path) {
            return;
        }
        let db = Options::new().read_ahead(read_ahead).open(path).expect("open");
        let txn = db.begin_read().expect("a transaction");
        let (_, tries) = retried(|| txn.try_get_resident(DATA, 1).map(drop));
        assert!(tries >= 1, "nothing was in memory");
        let rows = txn.table(DATA).expect("the table");
        // Entries in leaves, an absent key, and values in overflow extents.
        for key in (0..KEYS).step_by(501).chain([KEYS, 7, 307]) {
            let expected = (key < KEYS).then(|| value_of(key));
            let (found, _) = retried(|| rows.try_get_resident(key).map(|value| value.map(<[u8]>::to_vec)));
            assert!(found == expected, "{key}");
            assert!(rows.try_get_resident(key).expect("in memory by now") == expected.as_deref());
        }
        // Verified pages leave memory too, and the process must notice that.
        evict(&db);
        assert_eq!(rows.try_get_resident(1).expect_err("evicted").kind(), ErrorKind::WouldBlock);
        assert_eq!(txn.try_get_resident(DATA, 1).expect_err("evicted").kind(), ErrorKind::WouldBlock);
        assert!(rows.get(1).expect("get") == Some(&value_of(1)));
        assert!(rows.try_get_resident(1).expect("in memory") == Some(&value_of(1)));
        let absent = Table::<u64, u64>::new("absent");
        assert_eq!(retried(|| txn.try_get_resident(absent.clone(), 1)).0, None);
        let other = Table::<u64, u64>::new("data");
        assert_eq!(txn.try_get_resident(other, 1).expect_err("other codecs").kind(), ErrorKind::Usage);
    }
}

#[test]
fn reads_of_a_database_in_memory_never_block() {
    let db = Db::in_memory().expect("a database");
    db.write(|txn| (0..200).try_for_each(|key| txn.table(DATA)?.insert(key, &value_of(key)).map(drop)))
        .expect("written");
    let rows = table(&db);
    for key in 0..201 {
        assert!(rows.try_get_resident(key).expect("there") == rows.get(key).expect("get"));
    }
    assert!(rows.iter().fill_cache(false).count() == 200);
}

/// The child: reads a cold file that is cut meanwhile.
#[test]
fn cut_cold_reads_child() {
    let Some(arguments) = reexec::arguments() else { return };
    let path = Path::new(&arguments[0]);
    let full = std::fs::read(path).expect("the file");
    let mut rng = Rng::new(seed("cut cold"));
    let (mut right, mut refused) = (0, 0);
    for case in 0..40 {
        std::fs::write(path, &full).expect("written");
        if !make_cold(path) {
            return reexec::answer("skipped");
        }
        let db = Db::open(path).expect("open");
        set_available_memory(&db, if case % 2 == 0 { ALL } else { 0 });
        let rows = table(&db);
        let at = rng.below(KEYS);
        let cut = || {
            let file = File::options().write(true).open(path).expect("the file");
            file.set_len(8192 + Rng::new(case).below(full.len() as u64 - 8192)).expect("cut");
        };
        let mut answer = |found: Result<bool>| match found {
            Ok(true) => right += 1,
            Ok(false) => panic!("a wrong answer in case {case}"),
            Err(e) => {
                assert!(matches!(e.kind(), ErrorKind::Fault | ErrorKind::Poisoned | ErrorKind::WouldBlock), "{e}");
                refused += 1;
            }
        };
        match case / 2 % 4 {
            kind @ 0..2 => {
                let mut entries = rows.iter().fill_cache(kind == 0);
                for n in 0.. {
                    if n == at / 4 {
                        cut();
                    }
                    match entries.next() {
                        None => break,
                        Some(entry) => answer(entry.map(|(key, value)| key == n && value == value_of(key))),
                    }
                }
            }
            2 => (0..12).for_each(|n| {
                if n == 3 {
                    cut();
                }
                if n == 5 {
                    answer(rows.warm(at..).map(|pages| pages > 0));
                }
                let keys: Vec<u64> = (0..300).map(|_| rng.below(KEYS)).collect();
                let expected: Vec<Vec<u8>> = keys.iter().map(|&key| value_of(key)).collect();
                answer(rows.multi_get(keys).map(|found| found.into_iter().flatten().eq(&expected)));
            }),
            _ => (0..400).for_each(|n| {
                if n == 100 {
                    cut();
                }
                let key = rng.below(KEYS);
                let right = |value: Option<&[u8]>| value == Some(&value_of(key)[..]);
                answer(rows.try_get_resident(key).map(right));
                answer(rows.get(key).map(right));
            }),
        }
    }
    reexec::answer(&format!("{right} {refused}"));
}

#[test]
fn a_cut_during_cold_reads_is_an_error_and_no_crash() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("cut.mapleaf");
    make(&path, false);
    let mut child = reexec::start(reexec::command("cold::cut_cold_reads_child", &[&path]));
    let said = child.line().expect("a child that lives");
    child.finish();
    if said == "skipped" {
        return println!("skipped: the file stays in memory");
    }
    let counts: Vec<u64> = said.split(' ').map(|count| count.parse().expect("a number")).collect();
    println!("{} answers right, {} refused", counts[0], counts[1]);
    assert!(counts[0] > 1000 && counts[1] >= 20, "{said}");
}
