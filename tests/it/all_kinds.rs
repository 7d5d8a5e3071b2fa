//! Tables of all kinds together with everything else: savepoints and nested transactions, named
//! snapshots, replay, scratch, compaction, salvage and recovery, with all page sizes. `kinds` has
//! the changes and the model.

use std::collections::BTreeMap;
use std::panic::{catch_unwind, AssertUnwindSafe};

use mapleaf::testing::{set_log_shape, with_log_shape, with_mutant, Mutant};
use mapleaf::{Db, Durability, ErrorKind, Options, ReadTxn, Savepoint, WriteTxn};

use crate::kinds::{assert_holds, assert_sees, change, inline_limit, pair_value, Contents, State, SIZES};
use crate::support::{assert_clean, bytes, long, seed, Rng, TestDb};
use crate::workload::fast_dir;

const PAGE_SIZES: [usize; 4] = [4096, 8192, 16384, 32768];

/// Random changes, savepoints and nested transactions; the models follow on a stack.
fn nest(txn: &mut WriteTxn, state: &mut State, rng: &mut Rng, page_size: usize, depth: u64) {
    let mut savepoints: Vec<(Savepoint, State)> = Vec::new();
    for _ in 0..2 + rng.below(14) {
        let some = rng.below(savepoints.len() as u64 + 1) as usize;
        match rng.below(14) {
            0..=1 => savepoints.push((txn.savepoint().expect("a savepoint"), state.clone())),
            2..=3 if some < savepoints.len() => {
                txn.rollback_to(&savepoints[some].0).expect("went back");
                savepoints.truncate(some + 1);
                *state = savepoints[some].1.clone();
                assert_sees(txn, state);
            }
            4 if some < savepoints.len() => {
                txn.release(savepoints[some].0).expect("released");
                savepoints.truncate(some);
            }
            5..=6 if depth < 3 => {
                let before = state.clone();
                let mut nested = txn.begin_nested().expect("begun");
                nest(&mut nested, state, rng, page_size, depth + 1);
                if rng.below(2) == 0 {
                    nested.commit().expect("committed");
                } else {
                    nested.abort();
                    *state = before;
                }
                assert_sees(txn, state);
            }
            _ => change(txn, state, rng, page_size),
        }
    }
}

/// Pages of the newest state, and those of them that are free or pending.
fn pages(db: &Db) -> (u64, u64) {
    let stats = db.stats().expect("stats");
    (stats.page_count, stats.free_pages + stats.pending_pages)
}

/// Compares the file as a kill of the process leaves it, which its log completes.
fn assert_replays(db: &TestDb, state: &State) {
    let dir = fast_dir();
    let copy = dir.path().join("copy.mapleaf");
    std::fs::copy(db.path(), &copy).expect("copied");
    let replayed = Db::open_existing(&copy).expect("opened after the kill");
    assert_holds(&replayed.begin_read().expect("begins"), state);
    assert_clean(&replayed);
}

fn any_nesting(rounds: u64, steps: u64, seed: u64) {
    let mut rng = Rng::new(seed);
    for round in 0..rounds {
        let page_size = PAGE_SIZES[round as usize % 4];
        let mut db = TestDb::file(Options::new().page_size(page_size as u32));
        let mut state = State::new();
        let mut held: Vec<(ReadTxn, State)> = Vec::new();
        for step in 0..steps {
            let mut next = state.clone();
            let before = pages(&db);
            let mut txn = db.begin_write().expect("begins");
            if rng.below(4) == 0 {
                txn.set_durability(Durability::Eventual);
            }
            nest(&mut txn, &mut next, &mut rng, page_size, 0);
            if rng.below(4) == 0 {
                txn.abort();
                assert_eq!(pages(&db), before, "an aborted transaction leaves no page");
            } else {
                assert_sees(&txn, &next);
                txn.commit().expect("commits");
                state = next;
            }
            db.assert_clean();
            held.iter().for_each(|(txn, state)| assert_holds(txn, state));
            held.truncate(2);
            held.insert(0, (db.begin_read().expect("begins"), state.clone()));
            assert_holds(&held[0].0, &state);
            if step % 3 == 2 {
                db.sync().expect("durable");
                assert_replays(&db, &state);
                held.clear();
                db.reopen();
            }
        }
    }
}

#[test]
fn any_nesting_over_tables_of_all_kinds_gives_every_page_back() {
    let seed = seed("any_nesting_over_tables_of_all_kinds_gives_every_page_back");
    with_log_shape(Some((0, 1 << 20)), || any_nesting(4 * u64::from(long()), 6, seed));
}

/// The test can fail.
#[test]
fn the_nesting_of_all_kinds_finds_pages_that_are_not_taken_back() {
    let seed = seed("the_nesting_of_all_kinds_finds_pages_that_are_not_taken_back");
    for mutant in [Mutant::TakenNotRolledBack, Mutant::FreedNotRolledBack, Mutant::ValueTreeNotFreed] {
        let run = || with_mutant(Some(mutant), || any_nesting(4, 6, seed));
        assert!(catch_unwind(AssertUnwindSafe(run)).is_err(), "{mutant:?} was not found");
    }
}

/// A database with named snapshots, and what each of them has to hold.
struct World {
    db: TestDb,
    rng: Rng,
    page_size: usize,
    now: State,
    snapshots: BTreeMap<String, State>,
    readers: Vec<(ReadTxn, State)>,
    /// How often a snapshot was created, read, restored and dropped.
    events: [u64; 4],
}

impl World {
    fn new(page_size: usize, in_file: bool, seed: u64) -> World {
        let options = Options::new().page_size(page_size as u32);
        let db = if in_file { TestDb::file(options) } else { TestDb::memory(options) };
        let (snapshots, readers) = (BTreeMap::new(), Vec::new());
        World { db, rng: Rng::new(seed), page_size, now: State::new(), snapshots, readers, events: [0; 4] }
    }

    fn commit(&mut self) {
        let mut next = self.now.clone();
        let mut txn = self.db.begin_write().expect("begins");
        for _ in 0..1 + self.rng.below(6) {
            change(&mut txn, &mut next, &mut self.rng, self.page_size);
        }
        if self.rng.below(8) > 0 {
            txn.commit().expect("commits");
            self.now = next;
        }
    }

    fn step(&mut self) {
        let name = format!("snapshot {}", self.rng.below(3));
        let there = self.snapshots.get(&name).cloned();
        match (self.rng.below(12), there) {
            (0 | 1, None) => {
                self.db.create_snapshot(&name).expect("created");
                self.snapshots.insert(name, self.now.clone());
                self.events[0] += 1;
            }
            (0 | 1, Some(_)) => {
                assert_eq!(self.db.create_snapshot(&name).expect_err("taken").kind(), ErrorKind::Usage);
            }
            (2 | 3, Some(state)) => {
                let txn = self.db.read_snapshot(&name).expect("read");
                assert_holds(&txn, &state);
                self.readers.push((txn, state));
                self.events[1] += 1;
            }
            (4, Some(state)) => {
                self.db.restore_snapshot(&name).expect("restored");
                self.now = state;
                self.events[2] += 1;
            }
            (5, Some(_)) => {
                self.db.drop_snapshot(&name).expect("dropped");
                self.snapshots.remove(&name);
                self.events[3] += 1;
            }
            (6, _) if self.readers.len() > 1 => drop(self.readers.remove(0)),
            (7, _) if self.rng.below(3) == 0 => {
                self.readers.clear();
                self.db.reopen();
            }
            _ => self.commit(),
        }
        assert_holds(&self.db.begin_read().expect("begins"), &self.now);
    }

    fn judge(&self) {
        self.db.assert_clean();
        for (name, state) in &self.snapshots {
            assert_holds(&self.db.read_snapshot(name).expect("read"), state);
        }
        self.readers.iter().for_each(|(txn, state)| assert_holds(txn, state));
        let listed: Vec<String> = self.db.snapshots().expect("listed").into_iter().map(|one| one.name).collect();
        assert!(listed.iter().eq(self.snapshots.keys()));
    }
}

/// Random steps until each kind of event has occurred, at least `steps`.
fn any_snapshots(page_size: usize, in_file: bool, steps: u32, seed: u64) {
    let mut world = World::new(page_size, in_file, seed);
    for step in 0.. {
        if step >= steps && world.events.iter().all(|&count| count > 0) {
            break;
        }
        world.step();
        if step % 8 == 7 {
            world.judge();
        }
    }
    world.judge();
    world.readers.clear();
    for name in std::mem::take(&mut world.snapshots).into_keys() {
        world.db.drop_snapshot(&name).expect("dropped");
    }
    world.judge();
}

#[test]
fn snapshots_of_tables_of_all_kinds_hold_what_they_held() {
    let seed = seed("snapshots_of_tables_of_all_kinds_hold_what_they_held");
    for (round, page_size) in (0..).zip(PAGE_SIZES) {
        any_snapshots(page_size, true, 70 * long(), seed ^ round);
        any_snapshots(page_size, false, 40 * long(), seed ^ round << 8);
    }
}

/// The test can fail.
#[test]
fn the_snapshots_of_all_kinds_find_a_writer_that_ignores_them() {
    let run = || with_mutant(Some(Mutant::SnapshotsLeftOut), || any_snapshots(4096, true, 200, 3));
    assert!(catch_unwind(run).is_err());
}

/// A database with tables of all kinds, made by many transactions, and its model.
fn filled(page_size: usize, rng: &mut Rng) -> (TestDb, State) {
    let db = TestDb::file(Options::new().page_size(page_size as u32));
    let mut state = State::new();
    let all = |state: &State| {
        let kinds = state.values().filter_map(|contents| match contents {
            Contents::Single(rows) => rows.keys().any(|key| key.len() > inline_limit(page_size)).then_some(0),
            Contents::Multi(size, pairs) => {
                let is_there =
                    pairs.iter().any(|(key, values)| key.len() > inline_limit(page_size) && values.len() > 9);
                is_there.then(|| 1 + SIZES.iter().position(|other| other == size).expect("a size"))
            }
        });
        kinds.collect::<std::collections::BTreeSet<_>>().len() == 4
    };
    for round in 0.. {
        if round > 25 && all(&state) {
            break;
        }
        let mut txn = db.begin_write().expect("begins");
        (0..8).for_each(|_| change(&mut txn, &mut state, rng, page_size));
        txn.commit().expect("commits");
    }
    (db, state)
}

/// The number of rows and pairs of a state.
fn entries_of(state: &State) -> u64 {
    let count = |contents: &Contents| match contents {
        Contents::Single(rows) => rows.len(),
        Contents::Multi(_, pairs) => pairs.values().map(std::collections::BTreeSet::len).sum(),
    };
    state.values().map(count).sum::<usize>() as u64
}

#[test]
fn copies_of_all_kinds_hold_the_same() {
    let mut rng = Rng::new(seed("copies_of_all_kinds_hold_the_same"));
    for page_size in PAGE_SIZES {
        let (mut db, state) = filled(page_size, &mut rng);
        let dir = fast_dir();
        let holds = |name: &str, expected: &State| {
            let copy = Db::open_existing(dir.path().join(name)).expect("opened");
            assert_holds(&copy.begin_read().expect("begins"), expected);
            assert_clean(&copy);
        };
        let report = db.compact_to(dir.path().join("compact")).expect("compacted");
        assert_eq!(report.entries, entries_of(&state));
        holds("compact", &state);
        // A copy of a copy takes no more bytes.
        let compact = Db::open_existing(dir.path().join("compact")).expect("opened");
        let again = compact.compact_to(dir.path().join("again")).expect("compacted");
        assert_eq!(again.bytes_before, again.bytes_after);
        drop(compact);
        holds("again", &state);
        db.sync().expect("durable");
        db.reopen();
        let closed = dir.path().join("closed");
        std::fs::copy(db.path(), &closed).expect("copied");
        let salvaged = Db::salvage(&closed, dir.path().join("salvaged")).expect("salvaged");
        assert!(salvaged.tables.iter().map(|table| table.entries).sum::<u64>() == entries_of(&state), "{salvaged:?}");
        holds("salvaged", &state);
        assert!(Db::recover_preview(&closed).expect("looked at").is_nothing());
        holds("closed", &state);
    }
}

/// A scratch database on a file with all kinds and a snapshot: everything works, nothing reaches
/// the file.
#[test]
fn a_scratch_database_changes_all_kinds_and_the_file_keeps_every_byte() {
    let mut rng = Rng::new(seed("a_scratch_database_changes_all_kinds_and_the_file_keeps_every_byte"));
    for page_size in [4096, 32768] {
        let (mut db, state) = filled(page_size, &mut rng);
        db.create_snapshot("kept").expect("created");
        db.reopen();
        let file = std::fs::read(db.path()).expect("the file");
        let scratch = Options::new().scratch(true).open(db.path()).expect("opened");
        assert_holds(&scratch.begin_read().expect("begins"), &state);
        let held = scratch.begin_read().expect("begins");
        let mut changed = state.clone();
        for round in 0..10 {
            let mut txn = scratch.begin_write().expect("begins");
            nest(&mut txn, &mut changed, &mut rng, page_size, 1);
            txn.commit().expect("commits");
            assert_holds(&scratch.begin_read().expect("begins"), &changed);
            assert_clean(&scratch);
            if round == 5 {
                scratch.restore_snapshot("kept").expect("restored");
                changed = state.clone();
                scratch.create_snapshot("only here").expect("created");
            }
        }
        assert_holds(&scratch.read_snapshot("kept").expect("read"), &state);
        assert_holds(&scratch.read_snapshot("only here").expect("read"), &state);
        scratch.drop_snapshot("kept").expect("dropped");
        assert_clean(&scratch);
        assert_holds(&held, &state);
        drop((held, scratch));
        assert!(std::fs::read(db.path()).expect("the file") == file, "the file keeps every byte");
        assert_holds(&db.read_snapshot("kept").expect("read"), &state);
    }
}

/// Pages that a snapshot of value trees and long keys pins stay as they are while they are changed
/// again and again, and are used again once it is dropped.
#[test]
fn pinned_value_trees_and_long_keys_are_used_again_when_their_snapshot_is_dropped() {
    for page_size in PAGE_SIZES {
        let mut rng = Rng::new(seed("pinned_value_trees_and_long_keys") ^ page_size as u64);
        let (db, mut state) = filled(page_size, &mut rng);
        db.create_snapshot("pinned").expect("created");
        let pinned = state.clone();
        let churn = |state: &mut State, rng: &mut Rng| {
            for _ in 0..25 {
                let mut txn = db.begin_write().expect("begins");
                // Each round frees all that it can, and makes it again.
                for (name, contents) in &*state {
                    match contents {
                        Contents::Single(rows) => {
                            let mut table = txn.bytes_table(name).expect("a table");
                            assert_eq!(table.clear().expect("cleared"), rows.len() as u64);
                            table.load(rows.iter().map(|(key, value)| (&key[..], &value[..]))).expect("loaded");
                        }
                        Contents::Multi(_, pairs) => {
                            let mut table = txn.multi_bytes_table(name).expect("a table");
                            table.remove_range(..).expect("removed");
                            assert!(table.is_empty());
                            for (key, values) in pairs {
                                table.insert_all(values.iter().map(|value| (&key[..], &value[..]))).expect("inserted");
                            }
                        }
                    }
                }
                (0..2).for_each(|_| change(&mut txn, state, rng, page_size));
                txn.commit().expect("commits");
                db.checkpoint().expect("made");
            }
            db.assert_clean();
        };
        churn(&mut state, &mut rng);
        assert_holds(&db.read_snapshot("pinned").expect("read"), &pinned);
        assert_holds(&db.begin_read().expect("begins"), &state);
        let kept = db.snapshots().expect("listed");
        assert!(kept[0].pinned_pages > 0 && kept[0].only_pages == kept[0].pinned_pages, "{kept:?}");
        let before = db.stats().expect("stats");
        db.drop_snapshot("pinned").expect("dropped");
        db.checkpoint().expect("made");
        db.write(|txn| txn.bytes_table("passing").map(drop)).expect("written");
        db.write(|txn| txn.drop_table("passing").map(drop)).expect("written");
        db.checkpoint().expect("made");
        let after = db.stats().expect("stats");
        let free = |stats: &mapleaf::Stats| stats.free_pages - stats.pending_pages.min(stats.free_pages);
        assert!(
            after.pending_pages < before.pending_pages,
            "{} pending, then {}",
            before.pending_pages,
            after.pending_pages
        );
        assert!(free(&after) >= free(&before), "pages of the snapshot are usable");
        db.assert_clean();
    }
}

/// Removing tables with long keys and value trees frees all their pages, in each of the ways.
#[test]
fn removing_everything_in_each_way_leaves_no_page() {
    // All but those that say which pages are free: after the removal these have more to say.
    let reachable = |db: &Db| {
        let (report, space) = (db.check().expect("a check"), db.space().expect("space"));
        assert!(report.is_clean(), "{:?}", report.findings);
        report.reachable_pages - space.free_space.pages() - space.free_list_pages
    };
    for page_size in PAGE_SIZES {
        for way in 0..6 {
            let db = TestDb::memory(Options::new().page_size(page_size as u32));
            let limit = inline_limit(page_size);
            let keys: Vec<Vec<u8>> = (0..40u8)
                .map(|number| {
                    let mut key = vec![b'k'; [limit, limit + 1, 2 * page_size, 65_536, 3][usize::from(number % 5)]];
                    *key.last_mut().expect("a byte") = number;
                    key
                })
                .collect();
            db.write(|txn| {
                for (at, size) in SIZES.into_iter().enumerate() {
                    drop(txn.create_multi_table(&format!("multi {at}"), "bytes", "bytes", size)?);
                }
                txn.bytes_table("single").map(drop)
            })
            .expect("made");
            let empty = reachable(&db);
            for round in 0..2 {
                db.write(|txn| {
                    for (number, key) in keys.iter().enumerate() {
                        txn.bytes_table("single")?.insert(key, &bytes(number as u64, number * 400))?;
                        for (at, size) in SIZES.into_iter().enumerate() {
                            let mut multi = txn.multi_bytes_table(&format!("multi {at}"))?;
                            let count = if number % 3 == 0 { 900 } else { 1 + number as u64 };
                            for value in (0..count).filter(|value| value % 2 == round) {
                                multi.insert(key, &pair_value(value, size, page_size))?;
                            }
                        }
                    }
                    Ok(())
                })
                .expect("filled");
            }
            assert!(reachable(&db) > empty + 40);
            db.write(|txn| {
                for name in ["single", "multi 0", "multi 1", "multi 2"] {
                    let is_single = name == "single";
                    let mut txn = txn.begin_nested()?;
                    match (way, is_single) {
                        (0, true) => drop(txn.bytes_table(name)?.clear()?),
                        (0, false) => drop(txn.multi_bytes_table(name)?.clear()?),
                        (1, true) => drop(txn.bytes_table(name)?.remove_range(..)?),
                        (1, false) => drop(txn.multi_bytes_table(name)?.remove_range(..)?),
                        // From both ends to the middle, through keys that differ only at their end.
                        (2, _) => {
                            let mut sorted = keys.clone();
                            sorted.sort();
                            let (low, high) = (sorted[7].as_slice(), sorted[31].as_slice());
                            if is_single {
                                let mut table = txn.bytes_table(name)?;
                                let inside = table.remove_range(low..high)?;
                                assert_eq!(inside + table.remove_range(..low)? + table.remove_range(high..)?, 40);
                            } else {
                                let mut table = txn.multi_bytes_table(name)?;
                                let all = table.len();
                                let inside = table.remove_range(low..high)?;
                                assert_eq!(inside + table.remove_range(..low)? + table.remove_range(high..)?, all);
                            }
                        }
                        (3, true) => {
                            let mut table = txn.bytes_table(name)?;
                            keys.iter().try_for_each(|key| table.remove(key).map(drop))?;
                        }
                        (3, false) => {
                            let mut table = txn.multi_bytes_table(name)?;
                            keys.iter().try_for_each(|key| table.remove_all(key).map(drop))?;
                        }
                        (4, false) => {
                            let mut table = txn.multi_bytes_table(name)?;
                            for key in &keys {
                                let values: Vec<Vec<u8>> = table
                                    .values(key)?
                                    .map(|value| value.map(<[u8]>::to_vec))
                                    .collect::<Result<_, _>>()?;
                                for value in &values {
                                    assert!(table.remove(key, value)?);
                                }
                                assert!(!table.contains_key(key)?);
                            }
                            assert!(table.is_empty() && table.key_count() == 0);
                        }
                        (4, true) => drop(txn.bytes_table(name)?.retain(|_, _| false)?),
                        _ => {
                            let info = txn.table_info(name)?.expect("there");
                            assert!(txn.drop_table(name)?);
                            match is_single {
                                true => drop(txn.bytes_table(name)?),
                                false => drop(txn.create_multi_table(name, "bytes", "bytes", info.value_bytes)?),
                            }
                        }
                    }
                    txn.commit()?;
                }
                Ok(())
            })
            .expect("removed");
            assert_eq!(reachable(&db), empty, "pages of {page_size} bytes, way {way}");
        }
    }
}

/// The log has every kind of change; a kill between them loses no acknowledged one.
#[test]
fn a_kill_after_each_commit_loses_nothing_of_any_kind() {
    let mut rng = Rng::new(seed("a_kill_after_each_commit_loses_nothing_of_any_kind"));
    set_log_shape(Some((0, 4 << 20)));
    for page_size in PAGE_SIZES {
        let db = TestDb::file(Options::new().page_size(page_size as u32));
        let mut state = State::new();
        for round in 0..12 * long() {
            if round % 4 == 1 {
                db.create_snapshot(&format!("s{round}")).expect("created");
            }
            let mut txn = db.begin_write().expect("begins");
            (0..1 + rng.below(4)).for_each(|_| change(&mut txn, &mut state, &mut rng, page_size));
            txn.commit().expect("commits");
            assert_replays(&db, &state);
            if round % 4 == 3 {
                db.restore_snapshot(&format!("s{}", round - 2)).expect("restored");
                state = crate::kinds::read(&db.begin_read().expect("begins")).expect("read");
                assert_holds(&db.read_snapshot(&format!("s{}", round - 2)).expect("read"), &state);
                assert_replays(&db, &state);
            }
        }
    }
    set_log_shape(None);
}
