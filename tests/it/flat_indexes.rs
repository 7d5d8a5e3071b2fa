//! Flat indexes of large tables, which a thread builds beside the lookups.

use std::time::{Duration, Instant};

use mapleaf::testing::{answer_calls, Answer, Matching};
use mapleaf::{Db, Options, ReadTxn, Result, Table};

use crate::reexec;
use crate::support::{mix, seed, Rng};
use crate::workload::fast_dir;

/// Five entries to a leaf, so that the table has more leaves than a reader builds an index of.
const ROWS: Table<u64, &[u8]> = Table::new("rows");
const ENTRIES: u64 = 24_000;
const VALUE_BYTES: usize = 700;
/// Less than the flat index of all leaves takes, and more than that of a level above them.
const LARGE_BYTES: u64 = 64 << 10;
/// Lookups after which a reader asks for the large flat index.
const ASKED_AFTER: u64 = 4000;
const HANGS_AFTER: Duration = Duration::from_secs(60);

fn value(key: u64, version: u64) -> Vec<u8> {
    let mut value = vec![key as u8; VALUE_BYTES];
    value[..16].copy_from_slice(&[key.to_be_bytes(), version.to_be_bytes()].concat());
    value
}

fn load(db: &Db) {
    db.write(|txn| {
        let mut rows = txn.table(ROWS)?;
        (0..ENTRIES).try_for_each(|key| rows.append(key * 2, &value(key * 2, 0)).map(drop))
    })
    .expect("loaded");
}

fn index_bytes(db: &Db) -> u64 {
    db.stats().expect("stats").index_bytes
}

/// Looks up some keys, those that exist and those between them.
fn look_up(txn: &ReadTxn, version: impl Fn(u64) -> u64, rng: &mut Rng, count: u64) -> Result<()> {
    let rows = txn.table(ROWS)?;
    for _ in 0..count {
        let key = rng.below(ENTRIES) * 2;
        assert!(rows.get(key)? == Some(&value(key, version(key))[..]), "key {key}");
        assert_eq!(rows.get(key + 1)?, None);
    }
    Ok(())
}

/// Looks up keys until the database has a large flat index.
fn wait_for_index(db: &Db, txn: &ReadTxn, version: impl Fn(u64) -> u64, rng: &mut Rng) {
    let begun = Instant::now();
    while index_bytes(db) < LARGE_BYTES {
        look_up(txn, &version, rng, 100).expect("found");
        assert!(begun.elapsed() < HANGS_AFTER, "no index: {} bytes", index_bytes(db));
    }
}

#[test]
fn a_thread_builds_the_index_of_a_large_table_beside_lookups() {
    let mut rng = Rng::new(seed("flat_indexes"));
    let dir = fast_dir();
    let db = Db::open(dir.path().join("db.mapleaf")).expect("opens");
    load(&db);
    let txn = db.begin_read().expect("begins");
    look_up(&txn, |_| 0, &mut rng, ASKED_AFTER).expect("found");
    wait_for_index(&db, &txn, |_| 0, &mut rng);
    look_up(&txn, |_| 0, &mut rng, ENTRIES).expect("found by the index");
    // The thread ends, and reads no state any more.
    let begun = Instant::now();
    while db.readers().expect("readers").len() > 1 {
        assert!(begun.elapsed() < HANGS_AFTER, "{:?}", db.readers());
        std::thread::yield_now();
    }
}

/// Readers of old states keep the index of their state, readers of new ones get another one.
#[test]
fn each_state_has_its_own_index_while_commits_change_leaves() {
    let mut rng = Rng::new(seed("flat_indexes"));
    let dir = fast_dir();
    let db = Db::open(dir.path().join("db.mapleaf")).expect("opens");
    load(&db);
    let mut versions = std::collections::BTreeMap::new();
    let mut held = Vec::new();
    for round in 1..=12 {
        let txn = db.begin_read().expect("begins");
        let then = versions.clone();
        let version = |key: u64| then.get(&key).copied().unwrap_or(0);
        look_up(&txn, version, &mut rng, ASKED_AFTER).expect("found");
        wait_for_index(&db, &txn, version, &mut rng);
        look_up(&txn, version, &mut rng, 300).expect("found by the index");
        held.push((txn, then));
        let changed: Vec<u64> = (0..100).map(|at| mix(round * 1000 + at) % ENTRIES * 2).collect();
        versions.extend(changed.iter().map(|&key| (key, round)));
        db.write(|txn| {
            let mut rows = txn.table(ROWS)?;
            changed.iter().try_for_each(|&key| rows.insert(key, &value(key, round)).map(drop))
        })
        .expect("committed");
        if round % 3 == 0 {
            held.remove(0);
        }
        for (txn, then) in &held {
            look_up(txn, |key| then.get(&key).copied().unwrap_or(0), &mut rng, 100).expect("an older state");
        }
    }
}

/// The thread must not keep the file open.
#[test]
fn a_database_can_be_opened_again_while_an_index_is_built() {
    let mut rng = Rng::new(seed("flat_indexes"));
    let dir = fast_dir();
    let path = dir.path().join("db.mapleaf");
    load(&Db::open(&path).expect("opens"));
    for round in 0..60 {
        let db = Options::new().exclusive(true).open(&path).expect("no other handle is open");
        let txn = db.begin_read().expect("begins");
        let lookups = 1400 + rng.below(800);
        look_up(&txn, |_| 0, &mut rng, lookups).expect("found");
        let clone = txn.clone();
        drop(db);
        match round % 2 {
            0 => drop((txn, clone)),
            _ => std::thread::spawn(move || drop(txn)).join().map(|()| drop(clone)).expect("dropped"),
        }
    }
}

/// The child cannot start threads.
#[test]
fn no_threads_child() {
    let Some(arguments) = reexec::arguments() else { return };
    let mut rng = Rng::new(1);
    let db = Options::new().read_only(true).open(&arguments[0]).expect("opens");
    let threads = [libc::SYS_clone, libc::SYS_clone3].map(|number| Matching { number, arguments: &[] });
    answer_calls(&threads, Answer::Refuse(libc::EPERM), Answer::Obey).expect("a filter");
    let txn = db.begin_read().expect("begins");
    wait_for_index(&db, &txn, |_| 0, &mut rng);
    look_up(&txn, |_| 0, &mut rng, 5000).expect("found by the index");
    reexec::answer("done");
}

#[test]
fn readers_build_the_index_where_no_thread_can_be_started() {
    let dir = fast_dir();
    let path = dir.path().join("db.mapleaf");
    load(&Db::open(&path).expect("opens"));
    if !std::path::Path::new("/proc/sys/kernel/seccomp/actions_avail").exists() {
        return crate::disks::skipped("sandbox", "this kernel does not let processes be confined");
    }
    let mut child = reexec::start(reexec::command("flat_indexes::no_threads_child", &[&path]));
    assert_eq!(child.line().as_deref(), Some("done"));
    child.finish();
}
