//! Growth beside readers: the file grows page by page through several windows while other threads
//! hold slices of it (rule R4); and one writer beside readers that verify whole snapshots (rules
//! R1, R5, R6).

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mapleaf::testing::{set_hooks, window_id};
use mapleaf::{Db, Options, ReadTable, Result, Table};

use crate::support::{bytes, long, mix, seed, Rng, SmallSteps, TestDb};

const DATA: Table<u64, &[u8]> = Table::new("data");
const STATE: Table<&str, u64> = Table::new("state");

/// The value of a key. The key determines its length (0 to some pages) and its bytes.
fn value_of(key: u64) -> Vec<u8> {
    let len = match key % 7 {
        0 => 20_000 + key % 9000,
        1 => 4000 + key % 200,
        2 => key % 3,
        _ => 100 + key % 800,
    };
    bytes(key, len as usize)
}

/// Compares the values of keys byte by byte, twice, and holds the slices in between.
fn compare_held(table: &ReadTable<u64, &'static [u8]>, keys: &[u64], between: impl FnOnce()) {
    let held: Vec<(u64, &[u8])> = keys.iter().map(|&key| (key, table.get(key).expect("get").expect("there"))).collect();
    for (key, slice) in &held {
        assert!(*slice == value_of(*key), "key {key}");
    }
    between();
    for (key, slice) in &held {
        assert!(*slice == value_of(*key), "key {key}, held");
    }
}

fn grow_under_readers(db: &Db, pages: u64, page_size: u64) {
    let hooks = Arc::new(SmallSteps::default());
    hooks.len.store(db.stats().expect("stats").file_bytes, Ordering::Relaxed);
    set_hooks(db, hooks.clone());
    db.write(|txn| -> Result<()> {
        (0..30).try_for_each(|key| txn.table(DATA)?.insert(key, &value_of(key)).map(drop))
    })
    .expect("write");
    let first_window = window_id(db);
    let first = db.begin_read().expect("begins").table(DATA).expect("table");
    let keys: Vec<u64> = (0..30).collect();
    let held: Vec<&[u8]> = keys.iter().map(|&key| first.get(key).expect("get").expect("there")).collect();

    let (stop, entries, rounds) = (AtomicBool::new(false), AtomicU64::new(30), AtomicU64::new(0));
    let mut windows = vec![first_window];
    std::thread::scope(|scope| {
        for thread in 0..3 {
            let (stop, entries, rounds) = (&stop, &entries, &rounds);
            scope.spawn(move || {
                let mut rng = Rng::new(thread);
                while !stop.load(Ordering::Acquire) {
                    let known = entries.load(Ordering::Acquire);
                    let table = db.begin_read().expect("begins").table(DATA).expect("table");
                    let keys: Vec<u64> = (0..12).map(|_| rng.below(known)).collect();
                    let wait = Duration::from_micros(rng.below(3000));
                    compare_held(&table, &keys, || std::thread::sleep(wait));
                    rounds.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let mut next = 30;
            while db.stats().expect("stats").page_count < pages || rounds.load(Ordering::Relaxed) < 30 {
                db.write(|txn| -> Result<()> {
                    (next..next + 25).try_for_each(|key| txn.table(DATA)?.insert(key, &value_of(key)).map(drop))
                })
                .expect("write");
                next += 25;
                entries.store(next, Ordering::Release);
                if windows.last() != Some(&window_id(db)) {
                    windows.push(window_id(db));
                    // Slices from before the switch read the same, and so do reads through the new
                    // window.
                    let newest = db.begin_read().expect("begins").table(DATA).expect("table");
                    for (&key, &slice) in keys.iter().zip(&held) {
                        let aliased = newest.get(key).expect("get").expect("there");
                        assert!(slice == aliased && slice == value_of(key), "key {key}");
                        let moved = aliased.as_ptr() != slice.as_ptr();
                        assert!(moved || slice.is_empty(), "key {key} is read in the same window");
                    }
                }
            }
        }));
        stop.store(true, Ordering::Release);
        ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    compare_held(&first, &keys, || ());
    for (&key, &slice) in keys.iter().zip(&held) {
        assert!(slice == value_of(key), "key {key}, held through {} windows", windows.len());
    }
    let steps = hooks.steps.load(Ordering::Relaxed);
    println!("{steps} steps of growth, windows {windows:?}, {} rounds of readers", rounds.load(Ordering::Relaxed));
    assert!(steps >= 300, "only {steps} steps");
    assert!(windows.len() >= 3, "only windows {windows:?} for pages of {page_size} bytes");
}

#[test]
fn a_file_grows_by_hundreds_of_steps_under_readers_that_hold_slices() {
    let db = TestDb::file(Options::new().window_size(1 << 20));
    grow_under_readers(&db, 6000, 4096);
}

#[test]
fn memory_grows_by_hundreds_of_steps_under_readers_that_hold_slices() {
    for page_size in [4096u32, 32768] {
        let db = TestDb::memory(Options::new().page_size(page_size).window_size(0));
        grow_under_readers(&db, 40_000_000 / u64::from(page_size), u64::from(page_size));
    }
}

/// One transaction grows through several windows, and reads and changes its own pages meanwhile.
#[test]
fn one_transaction_outgrows_several_windows() {
    for db in TestDb::both(&Options::new().window_size(0)) {
        let before = window_id(&db);
        let txn = db.begin_write().expect("begins");
        let mut table = txn.table(DATA).expect("table");
        let mut switches = 0;
        let mut last = before;
        for key in 0..9000u64 {
            table.insert(mix(key), &value_of(key)).expect("insert");
            if window_id(&db) != last {
                last = window_id(&db);
                switches += 1;
                for key in 0..=key {
                    assert!(table.get(mix(key)).expect("get") == Some(&value_of(key)[..]), "key {key}");
                }
            }
            if key % 3 == 2 {
                assert!(table.remove(mix(key - 1)).expect("remove") == Some(value_of(key - 1)), "key {key}");
                table.insert(mix(key - 1), &value_of(key - 1)).expect("insert");
            }
        }
        txn.commit().expect("commit");
        assert!(switches >= 2, "{switches} switches");
        let table = db.begin_read().expect("begins").table(DATA).expect("table");
        assert_eq!(table.len(), 9000);
        for key in 0..9000u64 {
            assert!(table.get(mix(key)).expect("get") == Some(&value_of(key)[..]), "key {key}");
        }
    }
}

#[test]
fn after_growth_and_an_abort_the_database_continues_in_the_new_window() {
    let mut db = TestDb::file(Options::new().window_size(0));
    let held = db.begin_read().expect("begins");
    for round in 0..6u64 {
        let txn = db.begin_write().expect("begins");
        txn.table(DATA).expect("table").insert(round, &bytes(round, 3 << (20 + round % 3))).expect("insert");
        if round % 2 == 0 {
            txn.abort();
        } else {
            txn.commit().expect("commit");
        }
        db.assert_clean();
    }
    assert!(held.table(DATA).expect("table").is_empty());
    drop(held);
    db.reopen();
    let table = db.begin_read().expect("begins").table(DATA).expect("table");
    for round in [1u64, 3, 5] {
        assert!(table.get(round).expect("get") == Some(&bytes(round, 3 << (20 + round % 3))[..]), "round {round}");
    }
}

/// The value of a key in a version. It begins with both, which determine the rest.
fn versioned(key: u64, version: u64) -> Vec<u8> {
    let random = mix(key ^ mix(version));
    let len = match random % 40 {
        0 => 8000 + random % 30_000,
        1..=4 => 900 + random % 400,
        _ => 16 + random % 200,
    };
    let mut value = [key.to_le_bytes(), version.to_le_bytes()].concat();
    value.extend(bytes(random, len as usize));
    value
}

/// The contribution of an entry to the sum of its snapshot.
fn weight(key: u64, version: u64) -> u64 {
    mix(mix(key).wrapping_add(version))
}

/// Verifies a whole snapshot: key and version determine each value, and the sum matches the one
/// that the commit stored.
fn verify_snapshot(db: &Db, last_seen: u64, again: bool) -> u64 {
    let txn = db.begin_read().expect("begins");
    let state = txn.table(STATE).expect("table");
    let get = |name| state.get(name).expect("get").unwrap_or(0);
    let (sequence, count, sum) = (get("sequence"), get("count"), get("sum"));
    assert!(sequence >= last_seen, "the state went back from {last_seen} to {sequence}");
    let data = txn.table(DATA).expect("table");
    assert_eq!(data.len(), count, "entries at {sequence}");
    for round in 0..1 + u64::from(again) {
        let (mut found, mut found_sum, mut last) = (0, 0u64, None);
        let mut add = |entry: Result<(u64, &[u8])>| {
            let (key, value) = entry.expect("entry");
            let version = u64::from_le_bytes(value[8..16].try_into().expect("8 bytes"));
            assert!(value == versioned(key, version), "key {key} at {sequence}, round {round}");
            assert!(version <= sequence, "key {key} has version {version} at {sequence}");
            assert!(last.is_none_or(|last| if round == 0 { last < key } else { last > key }), "order at key {key}");
            last = Some(key);
            found += 1;
            found_sum = found_sum.wrapping_add(weight(key, version));
        };
        match round {
            0 => data.iter().for_each(&mut add),
            _ => data.iter().rev().for_each(&mut add),
        }
        assert_eq!((found, found_sum), (count, sum), "entries and sum at {sequence}, round {round}");
    }
    sequence
}

fn stress(db: &Db, seconds: u64, seed: u64) {
    let stop = AtomicBool::new(false);
    let until = Instant::now() + Duration::from_secs(seconds * u64::from(long()));
    let verified = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut last = 0;
                while !stop.load(Ordering::Relaxed) {
                    last = verify_snapshot(db, last, verified.fetch_add(1, Ordering::Relaxed).is_multiple_of(2));
                }
            });
        }
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let mut rng = Rng::new(seed);
            let mut model = std::collections::BTreeMap::new();
            let (mut sequence, mut sum) = (0u64, 0u64);
            while Instant::now() < until {
                sequence += 1;
                let aborted = rng.below(10) == 0;
                let (kept, kept_sum) = (aborted.then(|| model.clone()), sum);
                let txn = db.begin_write().expect("begins");
                let grow = sequence / 60 % 2 == 0;
                for _ in 0..rng.below(60) {
                    let key = rng.below(2500);
                    let mut table = txn.table(DATA).expect("table");
                    let old = if rng.below(10) < if grow { 2 } else { 7 } {
                        assert_eq!(table.remove(key).expect("remove").is_some(), model.contains_key(&key));
                        model.remove(&key)
                    } else {
                        table.insert(key, &versioned(key, sequence)).expect("insert");
                        sum = sum.wrapping_add(weight(key, sequence));
                        model.insert(key, sequence)
                    };
                    sum = sum.wrapping_sub(old.map_or(0, |old| weight(key, old)));
                }
                let mut state = txn.table(STATE).expect("table");
                for (name, number) in [("sequence", sequence), ("count", model.len() as u64), ("sum", sum)] {
                    state.insert(name, number).expect("insert");
                }
                match kept {
                    Some(kept) => {
                        txn.abort();
                        (model, sum) = (kept, kept_sum);
                    }
                    None => txn.commit().expect("commit"),
                }
            }
            println!("{sequence} transactions, {} snapshots verified", verified.load(Ordering::Relaxed));
            println!("{} pages at the end", db.stats().expect("stats").page_count);
            assert!(sequence > 20 && verified.load(Ordering::Relaxed) > 20, "hardly anything happened");
        }));
        stop.store(true, Ordering::Relaxed);
        ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    verify_snapshot(db, 0, true);
}

#[test]
fn four_readers_verify_whole_snapshots_beside_a_writer_in_memory() {
    let db = TestDb::memory(Options::new().window_size(0));
    stress(&db, 4, seed("stress in memory"));
}

#[test]
fn four_readers_verify_whole_snapshots_beside_a_writer_in_a_file() {
    let db = TestDb::file(Options::new().window_size(0));
    stress(&db, 4, seed("stress in a file"));
}

/// The same with a writable mapping in which the processor forbids every store but to the
/// transaction's own pages.
#[test]
fn growth_beside_readers_works_while_only_claimed_pages_are_writable() {
    mapleaf::testing::strict_claims(true);
    grow_under_readers(&TestDb::file(Options::new().window_size(1 << 20)), 6000, 4096);
    stress(&TestDb::file(Options::new().window_size(0)), 4, seed("stress in a strict writable mapping"));
}

/// The number of mappings of a file in this process, and their bytes.
pub(crate) fn mapped(path: &std::path::Path) -> (usize, u64) {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("the mappings of this process");
    let path = path.to_str().expect("a name");
    let areas = maps.lines().filter(|line| line.ends_with(path)).map(|line| {
        let (start, end) = line.split_whitespace().next().and_then(|range| range.split_once('-')).expect("a range");
        let address = |text| u64::from_str_radix(text, 16).expect("an address");
        address(end) - address(start)
    });
    (areas.clone().count(), areas.sum())
}

#[test]
fn an_old_window_is_unmapped_with_its_last_reader() {
    const BLOBS: Table<u64, &[u8]> = Table::new("blobs");
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("blobs.mapleaf");
    let db = Options::new().window_size(0).open(&path).expect("made");
    db.write(|txn| txn.table(BLOBS)?.insert(1, &[1; 100]).map(drop)).expect("stored");
    let (begun, wait) = (std::sync::Barrier::new(2), std::sync::Barrier::new(2));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let read = db.begin_read().expect("begins");
            begun.wait();
            wait.wait();
            drop(read);
        });
        begun.wait();
        let before = mapped(&path);
        let value = vec![2; 200_000];
        db.write(|txn| (0..200).try_for_each(|key| txn.table(BLOBS)?.insert(key, &value).map(drop))).expect("stored");
        assert!(mapped(&path).0 > before.0, "the reader holds the window that it began in");
        wait.wait();
    });
    let (areas, bytes) = mapped(&path);
    let len = std::fs::metadata(&path).expect("the file").len();
    assert!(areas <= 2 && bytes <= 2 * len, "{areas} areas of {bytes} bytes for a file of {len}");
}
