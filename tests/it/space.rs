//! Free space: freed pages are reused soon and once, at a cost that depends only on the pages that
//! a commit touched (rule R5).

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

use mapleaf::testing::{durable_meta_txn, latest_txn, log_pages, set_hooks, set_log_shape, FlushEvent, Hooks};
use mapleaf::{Db, ErrorKind, Options, ReadTxn, Table};

use crate::support::{bytes, long, mix, pages_written_by, seed, Rng, TestDb};

const DATA: Table<u64, &[u8]> = Table::new("data");
const OTHER: Table<u64, &[u8]> = Table::new("other");

/// A value of one overflow page (pages of 4 KiB).
const ONE_PAGE: usize = 1500;

fn page_count(db: &Db) -> u64 {
    db.stats().expect("stats").page_count
}

/// Stores `value_bytes` of content under each key, in one transaction.
fn put_all(db: &Db, keys: impl IntoIterator<Item = u64>, value_bytes: usize, version: u64) {
    let txn = db.begin_write().expect("begins");
    let mut data = txn.table(DATA).expect("table");
    for key in keys {
        data.insert(key, &bytes(key ^ version << 32, value_bytes)).expect("insert");
    }
    txn.commit().expect("commit");
}

fn remove_all(db: &Db, keys: impl IntoIterator<Item = u64>) {
    let txn = db.begin_write().expect("begins");
    let mut data = txn.table(DATA).expect("table");
    for key in keys {
        assert!(data.remove(key).expect("remove").is_some(), "key {key}");
    }
    txn.commit().expect("commit");
}

/// Commits that each overwrite some of the first `among` keys.
fn churn(db: &Db, rng: &mut Rng, commits: u64, each: u64, among: u64) {
    for _ in 0..commits {
        let keys: Vec<u64> = (0..each).map(|_| rng.below(among)).collect();
        put_all(db, keys, 150, rng.next() & 0xffff);
    }
}

/// A hash of all entries of the table.
fn fingerprint(txn: &ReadTxn) -> u64 {
    let data = txn.table(DATA).expect("table");
    let entry = |item: mapleaf::Result<(u64, &[u8])>| {
        let (key, value) = item.expect("entry");
        value.iter().fold(mix(key + 1), |sum, &byte| mix(sum ^ u64::from(byte)))
    };
    data.iter().map(entry).fold(0, u64::wrapping_add)
}

#[test]
fn steady_overwrites_do_not_grow_the_file() {
    let mut rng = Rng::new(seed("steady_overwrites"));
    for db in TestDb::both(&Options::new()) {
        put_all(&db, 0..3000, 150, 0);
        // In a file, pages that the last checkpoint needs are kept: at most as many as the data
        // has.
        churn(&db, &mut rng, 600, 20, 3000);
        let before = page_count(&db);
        churn(&db, &mut rng, 600, 20, 3000);
        let after = page_count(&db);
        // A checkpoint may begin a little later.
        assert!(after <= before + before / 20 + 40, "{before} pages became {after}");
    }
}

/// Commits of mixed sizes: large ones write long free lists, small ones short lists between them.
#[test]
fn commits_of_mixed_sizes_do_not_grow_the_file() {
    let mut rng = Rng::new(seed("mixed_sizes"));
    for db in TestDb::both(&Options::new()) {
        // The file is so long when the log is made that the log keeps its length.
        (0..3).for_each(|version| put_all(&db, 0..20_000, 150, version));
        let mut rounds = |count: u64| {
            for _ in 0..count {
                [3, 50, 200, 600].into_iter().for_each(|each| churn(&db, &mut rng, 1, each, 20_000));
                [1000, 1, 1].into_iter().for_each(|each| churn(&db, &mut rng, 1, each, 20_000));
            }
            page_count(&db)
        };
        let before = rounds(240);
        let after = rounds(240);
        // The log may have been replaced by a longer one.
        let log = db.stats().expect("stats").log_pages;
        assert!(after <= before + before / 10 + log + 8, "{before} pages became {after}");
        // The file itself is at most a step of growth longer: 1 MiB here.
        let mapped = db.stats().expect("stats").mapped_bytes / 4096;
        assert!(mapped <= after + 512, "the file of {after} pages has room for {mapped}");
    }
}

#[test]
fn overwriting_everything_needs_twice_the_space_and_no_more() {
    let db = TestDb::memory(Options::new());
    put_all(&db, 0..5000, 150, 0);
    let base = page_count(&db);
    for version in 1..20 {
        put_all(&db, 0..5000, 150, version);
    }
    let after = page_count(&db);
    assert!(after <= base * 3 + 64, "{base} pages became {after}");
}

#[test]
fn a_long_reader_pins_only_its_own_snapshot() {
    let mut rng = Rng::new(seed("a_stuck_reader"));
    let db = TestDb::memory(Options::new());
    put_all(&db, 0..5000, 150, 0);
    churn(&db, &mut rng, 50, 20, 5000);
    let base = page_count(&db);
    let stuck = db.begin_read().expect("begins");
    let seen = fingerprint(&stuck);
    churn(&db, &mut rng, 2000, 20, 5000);
    let after = page_count(&db);
    assert!(after <= 2 * base + base / 4 + 64, "{base} pages became {after} under a stuck reader");
    assert_eq!(fingerprint(&stuck), seen);
}

/// One entry per commit: each commit may visit only a few of the many records of pinned pages.
#[test]
fn two_long_readers_pin_only_their_own_snapshots() {
    let mut rng = Rng::new(seed("two_stuck_readers"));
    let db = TestDb::memory(Options::new());
    put_all(&db, 0..20_000, 150, 0);
    let base = page_count(&db);
    let first = db.begin_read().expect("begins");
    churn(&db, &mut rng, 1000, 1, 20_000);
    let second = db.begin_read().expect("begins");
    let seen = (fingerprint(&first), fingerprint(&second));
    churn(&db, &mut rng, 8000, 1, 20_000);
    let after = page_count(&db);
    assert!(after <= 3 * base + 128, "{base} pages became {after} under two stuck readers");
    assert_eq!((fingerprint(&first), fingerprint(&second)), seen);
}

#[test]
fn readers_that_come_and_go_beside_a_stuck_one_do_not_grow_the_file() {
    let mut rng = Rng::new(seed("readers_come_and_go"));
    let db = TestDb::memory(Options::new());
    put_all(&db, 0..20_000, 150, 0);
    let base = page_count(&db);
    let stuck = db.begin_read().expect("begins");
    let seen = fingerprint(&stuck);
    // One other reader at a time: at most the pages of the long reader, of the other one, and of
    // the newest state, and as many again pending.
    for _ in 0..80 {
        let passing = db.begin_read().expect("begins");
        let seen = fingerprint(&passing);
        churn(&db, &mut rng, 100, 1, 20_000);
        assert_eq!(fingerprint(&passing), seen);
    }
    let after = page_count(&db);
    assert!(after <= 3 * base + 128, "{base} pages became {after}");
    assert_eq!(fingerprint(&stuck), seen);
}

#[test]
fn space_comes_back_when_the_reader_ends() {
    for db in TestDb::both(&Options::new()) {
        put_all(&db, 0..4000, 150, 0);
        let stuck = db.begin_read().expect("begins");
        let seen = fingerprint(&stuck);
        put_all(&db, 0..4000, 150, 1);
        put_all(&db, 0..4000, 150, 2);
        let high = page_count(&db);
        assert_eq!(fingerprint(&stuck), seen);
        drop(stuck);
        for version in 3..9 {
            put_all(&db, 0..4000, 150, version);
        }
        let after = page_count(&db);
        assert!(after <= high + 32, "{high} pages became {after}");
    }
}

#[test]
fn the_clone_of_a_transaction_keeps_its_pages() {
    let db = TestDb::memory(Options::new());
    put_all(&db, 0..1000, 150, 0);
    let txn = db.begin_read().expect("begins");
    let seen = fingerprint(&txn);
    let clone = txn.clone();
    drop(txn);
    for version in 1..8 {
        put_all(&db, 0..1000, 150, version);
    }
    assert_eq!(fingerprint(&clone), seen);
}

#[test]
fn large_extents_are_reused() {
    for db in TestDb::both(&Options::new()) {
        for version in 0..4 {
            put_all(&db, 0..4, 1 << 20, version);
        }
        let before = page_count(&db);
        for version in 4..30 {
            put_all(&db, [version % 4], 1 << 20, version);
        }
        let after = page_count(&db);
        assert!(after <= before + 300, "{before} pages became {after}");
        remove_all(&db, 0..4);
        put_all(&db, 10..11, 3 << 20, 0);
        put_all(&db, 11..13, 256 << 10, 0);
        let after = page_count(&db);
        assert!(after <= before + 800, "{before} pages became {after} after a larger run");
    }
}

#[test]
fn one_transaction_reuses_many_extents_of_a_fragmented_file() {
    let db = TestDb::memory(Options::new());
    // Extents of 25 pages and single pages in turn; a page in use separates each from the next.
    let many = 400;
    for key in 0..many {
        put_all(&db, [4 * key], 100_000, 0);
        put_all(&db, (1..4).map(|n| 4 * key + n), ONE_PAGE, 0);
    }
    remove_all(&db, (0..many).flat_map(|key| [4 * key, 4 * key + 2]));
    let runs: Vec<u64> = (0..many * 9 / 10).map(|key| 1_000_000 + key).collect();
    for settle in 0..3 {
        put_all(&db, [999_999], 10, settle);
    }
    let before = page_count(&db);
    put_all(&db, runs, 100_000, 1);
    let after = page_count(&db);
    assert!(after <= before + 25 * 20, "{before} pages became {after} although {many} runs were free");
}

#[test]
fn the_free_space_survives_reopening() {
    let mut db = TestDb::file(Options::new());
    put_all(&db, 0..3000, ONE_PAGE, 0);
    remove_all(&db, 0..3000);
    put_all(&db, [5000], 10, 0);
    let (pages, free) = {
        let stats = db.stats().expect("stats");
        (stats.page_count, stats.free_pages + stats.pending_pages)
    };
    assert!(free > 2900, "{free} pages are free of {pages}");
    db.reopen();
    let stats = db.stats().expect("stats");
    assert_eq!((stats.page_count, stats.free_pages + stats.pending_pages), (pages, free));
    assert_eq!(stats.file_bytes, pages * 4096, "closing gives back what was grown ahead, and opening adds nothing");
    for round in 0..3 {
        put_all(&db, 0..2800, ONE_PAGE, round);
        remove_all(&db, 0..2800);
        put_all(&db, [5000], 10, round);
        db.reopen();
    }
    let after = page_count(&db);
    assert!(after <= pages + pages / 10, "{pages} pages became {after}");
}

#[test]
fn an_abort_returns_all_its_pages() {
    for db in TestDb::both(&Options::new()) {
        put_all(&db, 0..2000, 150, 0);
        put_all(&db, 0..2000, 150, 1);
        remove_all(&db, 500..700);
        let before = db.stats().expect("stats");
        let seen = fingerprint(&db.begin_read().expect("begins"));
        for round in 0..20 {
            let mut txn = db.begin_write().expect("begins");
            let mut data = txn.table(DATA).expect("table");
            for key in 0..2000 {
                data.insert(key, &bytes(round, 300)).expect("insert");
            }
            data.insert(1 << 40, &bytes(round, 2 << 20)).expect("insert");
            txn.table(OTHER).expect("table").insert(1, b"x").expect("insert");
            if round % 3 == 0 {
                assert!(txn.drop_table("data").expect("drop"));
            }
            if round % 2 == 0 {
                txn.abort();
            }
        }
        let after = db.stats().expect("stats");
        assert_eq!((after.page_count, after.free_pages), (before.page_count, before.free_pages));
        assert_eq!((after.pending_pages, after.txn), (before.pending_pages, before.txn));
        assert_eq!(fingerprint(&db.begin_read().expect("begins")), seen);
        put_all(&db, 0..100, 150, 7);
        // This commit may make the commit log.
        assert!(page_count(&db) <= before.page_count + 24 + log_pages(&db));
    }
}

/// Fills a table in random order with values of a page each, so that its pages in key order are
/// scattered.
fn scattered(db: &Db, count: u64) {
    put_all(db, (0..count).map(mix), ONE_PAGE, 0);
}

#[test]
fn saving_ends_with_a_hundred_thousand_freed_extents_and_later_commits_stay_small() {
    let count = 120_000 * u64::from(long().min(4));
    let mut db = TestDb::file(Options::new());
    scattered(&db, count);
    let full = page_count(&db);
    let mut txn = db.begin_write().expect("begins");
    assert!(txn.drop_table("data").expect("drop"));
    txn.commit().expect("commit");
    let freed = db.stats().expect("stats");
    assert!(freed.pending_pages + freed.free_pages >= count);
    db.assert_clean();
    let worst = |db: &Db, rounds: u64| {
        let written = (0..rounds).map(|round| {
            put_all(db, [round], 10, round);
            pages_written_by(db, db.stats().expect("stats").txn)
        });
        written.max().unwrap_or(0)
    };
    let small = worst(&db, 12);
    assert!(small <= 200, "a small commit after the large drop wrote {small} pages");
    db.reopen();
    let small = worst(&db, 12);
    assert!(small <= 200, "a small commit after reopening wrote {small} pages");
    for round in 0..300 {
        put_all(&db, [round], 10, round);
    }
    scattered(&db, count);
    let after = page_count(&db);
    assert!(
        after <= full + full / 20 + log_pages(&db),
        "{full} pages became {after}: the freed ones did not come back"
    );
}

#[test]
fn the_cost_of_a_commit_does_not_grow_with_the_number_of_free_extents() {
    let cost = |extents: u64| {
        let db = TestDb::memory(Options::new());
        put_all(&db, 0..2 * extents, ONE_PAGE, 0);
        // Every second page stays in use, so that free extents cannot merge.
        remove_all(&db, (0..extents).map(|key| 2 * key));
        // Moves the freed pages into the free-space tree as usable extents.
        for round in 0..extents / 2000 + 40 {
            put_all(&db, [1 << 40], 150, round);
        }
        let stats = db.stats().expect("stats");
        assert!(stats.free_pages + stats.pending_pages > extents * 9 / 10, "{stats:?}");
        let mut rng = Rng::new(7);
        let mut total = 0;
        for round in 0..30 {
            put_all(&db, [1 << 40, rng.below(extents) * 2 + 1], 150, round);
            total += pages_written_by(&db, db.stats().expect("stats").txn);
        }
        total as f64 / 30.0
    };
    let (few, many) = (cost(200), cost(30_000));
    println!("pages per commit: {few} with 200 free extents, {many} with 30,000");
    assert!(many <= few * 2.0 + 8.0, "{few} pages per commit became {many}");
}

/// Fails growth while a flag is set, as a full disk would.
#[derive(Default)]
struct FullDisk(AtomicBool);

impl Hooks for FullDisk {
    fn before_flush(&self, _event: &FlushEvent<'_>) -> io::Result<()> {
        Ok(())
    }

    fn growing(&self, _new_len: u64) -> io::Result<()> {
        match self.0.load(Ordering::Relaxed) {
            true => Err(io::Error::from(io::ErrorKind::StorageFull)),
            false => Ok(()),
        }
    }
}

#[test]
fn a_full_disk_is_an_error_and_the_database_goes_on() {
    for db in TestDb::both(&Options::new()) {
        let disk = Arc::new(FullDisk::default());
        set_hooks(&db, disk.clone());
        put_all(&db, 0..2000, 150, 0);
        put_all(&db, 0..2000, 150, 1);
        let before = db.stats().expect("stats");
        let seen = fingerprint(&db.begin_read().expect("begins"));
        disk.0.store(true, Ordering::Relaxed);
        for size in [6usize, 9, 30].map(|mib| mib << 20) {
            let txn = db.begin_write().expect("begins");
            let mut data = txn.table(DATA).expect("table");
            let refused = data.insert(1 << 41, &bytes(1, size)).expect_err("no room");
            assert_eq!(refused.kind(), ErrorKind::DiskFull, "{refused}");
            let text = refused.to_string();
            assert!(text.contains("the disk is full") && !text.contains(": 0 bytes"), "{text}");
            let again = txn.table(DATA).map(|_| ()).expect_err("the transaction is over");
            assert!(again.to_string().contains("earlier error"), "{again}");
            let commit = txn.commit().expect_err("cannot be committed");
            assert_eq!(commit.kind(), ErrorKind::Usage, "{commit}");
        }
        let after = db.stats().expect("stats");
        assert_eq!((after.page_count, after.txn), (before.page_count, before.txn));
        assert_eq!(fingerprint(&db.begin_read().expect("begins")), seen);
        // The file has enough free pages for this.
        put_all(&db, 0..20, 150, 2);
        disk.0.store(false, Ordering::Relaxed);
        put_all(&db, [1 << 41], 9 << 20, 3);
    }
}

/// Each commit has enough free pages for its operations, but no run of them for a long free list.
#[test]
fn on_a_full_disk_commits_go_on_in_scattered_free_pages() {
    let mut rng = Rng::new(seed("scattered_free_pages"));
    let db = TestDb::file(Options::new());
    let disk = Arc::new(FullDisk::default());
    set_hooks(&db, disk.clone());
    put_all(&db, 0..40_000, 150, 0);
    churn(&db, &mut rng, 600, 12, 40_000);
    disk.0.store(true, Ordering::Relaxed);
    // The rest of the file that is mapped already.
    let left = db.stats().expect("stats").mapped_bytes / 4096 - page_count(&db);
    put_all(&db, [1 << 41], (left as usize).saturating_sub(40) * 4096, 0);
    for _ in 0..20 {
        churn(&db, &mut rng, 1, 400, 40_000);
        churn(&db, &mut rng, 10, 12, 40_000);
    }
}

/// A database on a full disk. The durable meta page holds a page for each leaf of `HELD_KEYS`
/// entries. Only few pages are left besides, and only a checkpoint releases the held ones.
fn held_on_a_full_disk() -> TestDb {
    let mut rng = Rng::new(seed("held_on_a_full_disk"));
    // So large a log, and so many held pages, that no checkpoint is due.
    set_log_shape(Some((3, 16 << 20)));
    let db = TestDb::file(Options::new().checkpoint_pages(1 << 20));
    let disk = Arc::new(FullDisk::default());
    set_hooks(&db, disk.clone());
    put_all(&db, 0..HELD_KEYS, 150, 0);
    (0..4).for_each(|version| put_all(&db, [0], 150, version));
    set_log_shape(None);
    db.checkpoint().expect("a checkpoint");
    let durable = durable_meta_txn(&db);
    churn(&db, &mut rng, 400, 20, HELD_KEYS);
    disk.0.store(true, Ordering::Relaxed);
    let room = room_pages(&db) as usize;
    put_all(&db, [1 << 41], room.saturating_sub(100) * 4096, 0);
    assert_eq!(durable_meta_txn(&db), durable, "no checkpoint has released the held pages");
    db
}

const HELD_KEYS: u64 = 20_000;

/// Pages of the file that follow its newest state.
fn room_pages(db: &Db) -> u64 {
    db.stats().expect("stats").mapped_bytes / 4096 - page_count(db)
}

/// Commits a transaction that needs more pages than are free, and asserts that a checkpoint has
/// released the held ones before the commit.
fn commits_with_released_pages(db: &Db, pages_needed: u64, change: impl FnOnce(&mut mapleaf::WriteTxn)) {
    let free = db.stats().expect("stats").free_pages + room_pages(db);
    assert!(free < pages_needed, "{free} pages are free without a checkpoint");
    let newest = latest_txn(db);
    let mut txn = db.begin_write().expect("begins");
    change(&mut txn);
    assert_eq!(durable_meta_txn(db), newest, "a checkpoint has released the held pages");
    txn.commit().expect("commit");
}

#[test]
fn on_a_full_disk_remove_range_takes_pages_that_a_checkpoint_releases() {
    let db = held_on_a_full_disk();
    let ranges = 500;
    commits_with_released_pages(&db, ranges, |txn| {
        let mut data = txn.table(DATA).expect("table");
        for at in 0..ranges {
            // One leaf or two for each range.
            let low = at * (HELD_KEYS / ranges);
            assert_eq!(data.remove_range(low..low + 2).expect("remove_range"), 2, "range {at}");
        }
    });
    assert_eq!(db.begin_read().expect("begins").table(DATA).expect("table").len(), HELD_KEYS + 1 - 2 * ranges);
}

#[test]
fn on_a_full_disk_the_merge_of_a_load_takes_pages_that_a_checkpoint_releases() {
    let db = held_on_a_full_disk();
    let keys = HELD_KEYS / 2;
    commits_with_released_pages(&db, keys / 25, |txn| {
        let mut data = txn.table(DATA).expect("table");
        let mut loader = data.loader().expect("loader");
        for at in 0..keys {
            loader.push(at * 7919 % keys, &bytes(at, 150)).expect("push");
        }
        loader.finish().expect("finish");
    });
    assert_eq!(db.begin_read().expect("begins").table(DATA).expect("table").len(), HELD_KEYS + 1);
}
