//! All ways to write, in one transaction over several tables, compared with maps; and readers
//! beside a loading writer.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use mapleaf::testing::strict_claims;
use mapleaf::{Db, ErrorKind, Options, ReadTxn, Table, WriteTxn};

use crate::support::{bytes, long, mix, seed, Rng, TestDb};

pub(crate) type Rows = BTreeMap<Vec<u8>, Vec<u8>>;
pub(crate) type Tables = BTreeMap<String, Rows>;

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

fn key(rng: &mut Rng) -> Vec<u8> {
    match rng.below(3) {
        0 => format!("user:{:05}:name", rng.below(3000)).into_bytes(),
        1 => vec![0; rng.below(40) as usize],
        _ => bytes(rng.below(4000), 1 + rng.below(20) as usize),
    }
}

fn value(rng: &mut Rng) -> Vec<u8> {
    let len = match rng.below(60) {
        0 => rng.below(200_000),
        1..=4 => rng.below(20_000),
        _ => rng.below(200),
    };
    bytes(rng.next(), len as usize)
}

/// A reader that returns its bytes in small chunks and then fails.
struct Fails<'a>(&'a [u8]);

impl io::Read for Fails<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.0.is_empty() {
            return Err(io::Error::other("no more"));
        }
        let len = into.len().min(777);
        io::Read::read(&mut self.0, &mut into[..len])
    }
}

/// Makes one change to a table in the transaction and in the map.
pub(crate) fn change(txn: &mut WriteTxn, tables: &mut Tables, rng: &mut Rng) {
    let name = NAMES[rng.below(4) as usize];
    match rng.below(40) {
        0 => {
            assert_eq!(txn.drop_table(name).expect("dropped"), tables.remove(name).is_some());
            return;
        }
        1 => {
            let to = NAMES[rng.below(4) as usize];
            let renamed = txn.rename_table(name, to);
            let possible = tables.contains_key(name) && (name == to || !tables.contains_key(to));
            assert_eq!(renamed.is_ok(), possible, "{renamed:?}");
            if possible {
                let rows = tables.remove(name).unwrap_or_default();
                tables.insert(to.to_string(), rows);
            }
            return;
        }
        _ => {}
    }
    let rows = tables.entry(name.to_string()).or_default();
    let mut table = txn.table(txn_table(name)).expect("table");
    let (key, value) = (key(rng), value(rng));
    match rng.below(24) {
        0..=1 => {
            let count = [10, 300, 4000][rng.below(3) as usize];
            let mut entries: Vec<_> = (0..count).map(|_| (self::key(rng), self::value(rng))).collect();
            if rng.below(2) == 0 {
                entries.sort();
            }
            let mut loader = table.loader().expect("a loader").memory(1 << (10 + rng.below(18)));
            entries.iter().for_each(|(key, value)| loader.push(key, value).expect("taken"));
            assert_eq!(loader.finish().expect("finished"), count);
            rows.extend(entries);
        }
        2..=3 => {
            let existed = table.insert_reader(&key, value.len() as u64, &value[..]).expect("stored");
            assert_eq!(rows.insert(key, value).is_some(), existed);
        }
        4 => {
            let told = table.insert_reader(&key, value.len() as u64 + 1, Fails(&value)).expect_err("it fails");
            assert_eq!(told.kind(), ErrorKind::Io);
        }
        5 => {
            let mut place = table.reserve(&key, value.len()).expect("reserved");
            assert!(place.iter().all(|byte| *byte == 0));
            place.copy_from_slice(&value);
            assert_eq!(place.finish().expect("stored"), rows.insert(key, value).is_some());
        }
        6 => drop(table.reserve(&key, value.len()).expect("reserved")),
        7 => {
            let last = rows.last_key_value().map(|(key, _)| [key, &[1][..]].concat()).unwrap_or_default();
            if last.len() > 900 {
                return;
            }
            for number in 0..[1, 30, 2500][rng.below(3) as usize] {
                let (key, value) = ([&last[..], &u32::to_be_bytes(number)].concat(), self::value(rng));
                table.append(&key, &value).expect("appended");
                rows.insert(key, value);
                if rng.below(50) == 0 {
                    let some = [&last[..], &rng.below(u64::from(number) + 1).to_be_bytes()[4..]].concat();
                    assert!(table.get(&some).expect("get") == rows.get(&some).map(Vec::as_slice), "{some:?}");
                }
            }
        }
        8..=13 => {
            let key = rows.range(key.clone()..).next().map_or(key, |(key, _)| key.clone());
            assert_eq!(table.remove(&key).expect("removed"), rows.remove(&key));
        }
        _ => assert!(table.insert(&key, &value).expect("inserted") == rows.insert(key, value)),
    }
    assert_eq!(table.len(), rows.len() as u64);
    let probe = self::key(rng);
    assert!(table.get(&probe).expect("get") == rows.get(&probe).map(Vec::as_slice));
}

fn txn_table(name: &'static str) -> Table<&'static [u8], &'static [u8]> {
    Table::new(name)
}

pub(crate) fn assert_holds(txn: &ReadTxn, tables: &Tables) {
    let names: Vec<_> = txn.tables().expect("tables").into_iter().map(|table| table.name).collect();
    assert!(names.iter().eq(tables.keys()), "{names:?}");
    for (name, rows) in tables {
        let table = txn.bytes_table(name).expect("table");
        assert_eq!(table.len(), rows.len() as u64);
        let entries = table.iter().map(|entry| entry.expect("an entry"));
        assert!(entries.eq(rows.iter().map(|(k, v)| (&k[..], &v[..]))), "table {name}");
    }
}

#[test]
fn all_ways_to_write_in_one_transaction_agree_with_maps() {
    let mut rng = Rng::new(seed("all_ways_to_write_in_one_transaction_agree_with_maps"));
    for round in 0..8 * u64::from(long()) {
        strict_claims(round % 4 == 1);
        let options = Options::new().page_size(4096 << (round % 4));
        let mut db = if round % 2 == 0 { TestDb::file(options) } else { TestDb::memory(options) };
        strict_claims(false);
        let mut tables = Tables::new();
        let mut held: Vec<(ReadTxn, Tables)> = Vec::new();
        for step in 0..25 {
            let mut next = tables.clone();
            let mut txn = db.begin_write().expect("begins");
            for _ in 0..1 + rng.below(40) {
                change(&mut txn, &mut next, &mut rng);
            }
            if rng.below(5) == 0 {
                drop(txn);
            } else {
                txn.commit().expect("commits");
                tables = next;
            }
            assert_holds(&db.begin_read().expect("begins"), &tables);
            for (txn, tables) in &held {
                assert_holds(txn, tables);
            }
            if held.len() > 2 {
                held.remove(rng.below(3) as usize);
            }
            held.push((db.begin_read().expect("begins"), tables.clone()));
            if step % 8 == 7 {
                db.assert_clean();
                held.clear();
                db.reopen();
            }
        }
    }
}

/// A value with the number of its commit.
fn version(commit: u64, key: u64) -> Vec<u8> {
    let mut value = vec![commit as u8; 40 + (mix(key) % 200) as usize];
    value[..8].copy_from_slice(&commit.to_le_bytes());
    value
}

fn read_versions(db: &Db, rng: &mut Rng, keys: u64) -> u64 {
    const ALL: Table<u64, &[u8]> = Table::new("all");
    let table = db.begin_read().expect("begins").table(ALL).expect("table");
    let commit = match table.first().expect("first") {
        Some((_, value)) => u64::from_le_bytes(value[..8].try_into().expect("eight")),
        None => return 0,
    };
    assert_eq!(table.len(), keys);
    for _ in 0..600 {
        let key = mix(rng.below(keys));
        assert!(table.get(key).expect("get") == Some(&version(commit, key)[..]), "commit {commit}, key {key}");
    }
    let some: Vec<u64> = (0..100).map(|_| mix(rng.below(keys))).collect();
    for (key, value) in some.iter().zip(table.multi_get(some.iter().copied()).expect("multi_get")) {
        assert!(value == Some(&version(commit, *key)[..]), "commit {commit}, key {key}");
    }
    let from = rng.next();
    for entry in table.range(from..).expect("range").take(500) {
        let (key, value) = entry.expect("an entry");
        assert!(value == version(commit, key), "commit {commit}, key {key}");
    }
    for entry in table.range(..from).expect("range").fill_cache(false).rev().take(500) {
        let (key, value) = entry.expect("an entry");
        assert!(value == version(commit, key), "commit {commit}, key {key}");
    }
    commit
}

/// A thread writes pages by `pwrite` while others read, and the pages are reused many times.
#[test]
fn readers_beside_a_writer_that_loads_see_one_commit_each() {
    const KEYS: u64 = 20_000;
    let mut rng = Rng::new(seed("readers_beside_a_writer_that_loads_see_one_commit_each"));
    let db = TestDb::file(Options::new());
    let (done, newest) = (AtomicBool::new(false), AtomicU64::new(0));
    let handle: &Db = &db;
    std::thread::scope(|scope| {
        for reader in 0..2 {
            let (done, newest) = (&done, &newest);
            scope.spawn(move || {
                let mut rng = Rng::new(reader);
                while !done.load(Ordering::Relaxed) {
                    let acknowledged = newest.load(Ordering::Acquire);
                    assert!(read_versions(handle, &mut rng, KEYS) >= acknowledged);
                }
            });
        }
        let write = std::panic::AssertUnwindSafe(|| {
            for commit in 1..=20 * u64::from(long()) {
                let mut keys: Vec<u64> = (0..KEYS).map(mix).collect();
                if rng.below(2) == 0 {
                    keys.sort_unstable();
                }
                let mut txn = handle.begin_write().expect("begins");
                if rng.below(3) == 0 {
                    txn.drop_table("all").expect("dropped");
                }
                let mut table = txn.table(Table::<u64, &[u8]>::new("all")).expect("table");
                let mut loader = table.loader().expect("a loader").memory(1 << (19 + rng.below(6)));
                keys.iter().for_each(|key| loader.push(*key, &version(commit, *key)).expect("taken"));
                loader.finish().expect("finished");
                if rng.below(4) == 0 {
                    continue;
                }
                txn.commit().expect("commits");
                newest.store(commit, Ordering::Release);
            }
        });
        let written = std::panic::catch_unwind(write);
        done.store(true, Ordering::Relaxed);
        written.expect("written");
    });
}

/// An append fills pages in the append buffer. A table that is dropped meanwhile frees such a page,
/// which must leave the buffer.
#[test]
fn a_table_that_is_dropped_while_it_is_appended_to_leaves_nothing_in_its_pages() {
    const DROPPED: Table<u64, &[u8]> = Table::new("dropped");
    const KEPT: Table<u64, &[u8]> = Table::new("kept");
    let mut db = TestDb::file(Options::new());
    // Values of one page and of many; they use the freed pages.
    let value = |key: u64| bytes(key, if key.is_multiple_of(2) { 2500 } else { 40_000 });
    let mut txn = db.begin_write().expect("begins");
    txn.table(KEPT).expect("table").insert(0, &value(0)).expect("stored");
    let mut dropped = txn.table(DROPPED).expect("table");
    (0..2000).for_each(|key| dropped.append(key, &bytes(key, 300)).expect("appended"));
    assert!(txn.drop_table("dropped").expect("dropped"));
    let mut kept = txn.table(KEPT).expect("table");
    for key in 1..300 {
        kept.append(key, &value(key)).expect("appended");
        assert!(kept.get(key).expect("get") == Some(&value(key)[..]), "key {key}, just appended");
    }
    txn.commit().expect("committed");
    db.reopen();
    let kept = db.begin_read().expect("begins").table(KEPT).expect("table");
    assert_eq!(kept.len(), 300);
    for key in 0..300 {
        assert!(kept.get(key).expect("get") == Some(&value(key)[..]), "key {key}");
    }
}
