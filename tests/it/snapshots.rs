//! Named snapshots: creating, reading, listing, dropping, restoring.
//!
//! The model test compares each snapshot with a clone of maps that was made when it was created.

use std::collections::BTreeMap;

use mapleaf::testing::{at_moments, with_log_shape, with_mutant, Moment, Mutant};
use mapleaf::{Db, Durability, ErrorKind, Options, PinnedBy, ReadTxn, Table, TableMut};

use crate::support::{bytes, long, seed, Rng, TestDb};

const NUMBERS: Table<u64, &[u8]> = Table::new("numbers");

/// Tables by name, entries by key.
type Model = BTreeMap<&'static str, BTreeMap<u64, Vec<u8>>>;

const NAMES: [&str; 3] = ["first", "second", "third"];

/// Stores `count` entries whose values say `what`.
fn fill(db: &Db, count: u64, what: &str) {
    db.write(|txn| {
        let mut numbers = txn.table(NUMBERS)?;
        for number in 0..count {
            numbers.insert(number, format!("{what} {number}").repeat(1 + number as usize % 7).as_bytes())?;
        }
        Ok(())
    })
    .expect("stored");
}

/// Compares all tables with the model.
#[track_caller]
fn compare(txn: &ReadTxn, model: &Model) {
    for name in NAMES {
        let table = txn.table(Table::<u64, &[u8]>::new(name)).expect("opened");
        let found: BTreeMap<u64, Vec<u8>> =
            table.iter().map(|entry| entry.map(|(key, value)| (key, value.to_vec())).expect("read")).collect();
        assert!(model.get(name).unwrap_or(&BTreeMap::new()) == &found, "table {name} of transaction {}", txn.txn_id());
    }
}

/// One database and what it should hold.
struct World {
    db: TestDb,
    rng: Rng,
    now: Model,
    snapshots: BTreeMap<String, (u64, Model)>,
    readers: Vec<(ReadTxn, Model)>,
    next_value: u64,
}

impl World {
    fn new(db: TestDb, seed: u64) -> World {
        let (now, snapshots) = (Model::new(), BTreeMap::new());
        World { db, rng: Rng::new(seed), now, snapshots, readers: Vec::new(), next_value: 0 }
    }

    fn value(&mut self) -> Vec<u8> {
        self.next_value += 1;
        let len = match self.rng.below(12) {
            0 => 1 + self.rng.below(30_000),
            _ => self.rng.below(300),
        };
        bytes(self.next_value, len as usize)
    }

    fn change_table(&mut self, table: &mut TableMut<'_, u64, &[u8]>, entries: &mut BTreeMap<u64, Vec<u8>>) {
        for _ in 0..self.rng.below(60) {
            let key = self.rng.below(400);
            match self.rng.below(10) {
                0..=6 => {
                    let value = self.value();
                    table.insert(key, &value).expect("inserted");
                    entries.insert(key, value);
                }
                7..=8 => {
                    assert_eq!(table.remove(key).expect("removed").is_some(), entries.remove(&key).is_some());
                }
                _ => {
                    let end = key + self.rng.below(40);
                    table.remove_range(key..end).expect("removed");
                    entries.retain(|other, _| !(key..end).contains(other));
                }
            }
        }
    }

    fn commit(&mut self) {
        let mut next = self.now.clone();
        let mut txn = self.db.begin_write().expect("begun");
        for _ in 0..1 + self.rng.below(2) {
            let name = NAMES[self.rng.below(3) as usize];
            if self.rng.below(15) == 0 {
                txn.drop_table(name).expect("dropped");
                next.remove(name);
                continue;
            }
            let mut table = txn.table(Table::new(name)).expect("opened");
            let mut entries = next.remove(name).unwrap_or_default();
            self.change_table(&mut table, &mut entries);
            next.insert(name, entries);
        }
        if self.rng.below(4) == 0 {
            txn.set_durability(Durability::Eventual);
        }
        if self.rng.below(8) > 0 {
            txn.commit().expect("committed");
            self.now = next;
        }
    }

    fn name(&mut self) -> String {
        format!("snapshot {}", self.rng.below(6))
    }

    fn create(&mut self) {
        let name = self.name();
        match self.snapshots.contains_key(&name) {
            true => {
                let e = self.db.create_snapshot(&name).expect_err("taken");
                assert_eq!(e.kind(), ErrorKind::Usage);
                assert!(e.to_string().contains(&name), "{e}");
            }
            false => {
                let txn = self.db.create_snapshot(&name).expect("created");
                self.snapshots.insert(name, (txn, self.now.clone()));
            }
        }
    }

    fn drop_one(&mut self) {
        let name = self.name();
        let dropped = self.db.drop_snapshot(&name);
        assert_eq!(dropped.is_ok(), self.snapshots.remove(&name).is_some(), "{name}");
    }

    fn restore(&mut self) {
        let name = self.name();
        let restored = self.db.restore_snapshot(&name);
        match self.snapshots.get(&name) {
            Some((_, model)) => {
                restored.expect("restored");
                self.now = model.clone();
            }
            None => assert_eq!(restored.expect_err("absent").kind(), ErrorKind::Usage),
        }
    }

    fn read(&mut self) {
        let name = self.name();
        match (self.db.read_snapshot(&name), self.snapshots.get(&name)) {
            (Ok(txn), Some((made_by, model))) => {
                assert_eq!(txn.txn_id(), *made_by);
                compare(&txn, model);
                self.readers.push((txn, model.clone()));
            }
            (Err(e), None) => assert_eq!(e.kind(), ErrorKind::Usage),
            (read, expected) => panic!("{name}: {read:?}, expected {:?}", expected.map(|(txn, _)| txn)),
        }
    }

    fn step(&mut self) {
        match self.rng.below(40) {
            0..=18 => self.commit(),
            19..=23 => self.create(),
            24..=26 => self.drop_one(),
            27..=28 => self.restore(),
            29..=31 => self.read(),
            32 => self.readers.push((self.db.begin_read().expect("begun"), self.now.clone())),
            33..=36 if !self.readers.is_empty() => {
                let at = self.rng.below(self.readers.len() as u64) as usize;
                let (txn, model) = self.readers.swap_remove(at);
                compare(&txn, &model);
            }
            37 => self.db.checkpoint().expect("made"),
            38 => {
                self.readers.clear();
                self.db.reopen();
            }
            _ => {}
        }
    }

    /// Compares everything, and checks the pages.
    fn judge(&self) {
        compare(&self.db.begin_read().expect("begun"), &self.now);
        self.readers.iter().for_each(|(txn, model)| compare(txn, model));
        let listed = self.db.snapshots().expect("listed");
        let found: Vec<(&str, u64)> = listed.iter().map(|found| (found.name.as_str(), found.txn)).collect();
        let expected: Vec<(&str, u64)> = self.snapshots.iter().map(|(name, (txn, _))| (name.as_str(), *txn)).collect();
        assert_eq!(found, expected);
        for (name, (_, model)) in &self.snapshots {
            compare(&self.db.read_snapshot(name).expect("begun"), model);
        }
        self.db.assert_clean();
        assert_eq!(self.db.check().expect("checked").snapshots, self.snapshots.len() as u64);
        let space = self.db.space().expect("counted");
        assert!(space.snapshot_pages <= space.pending_pages);
        assert!(listed.iter().all(|found| found.only_pages <= found.pinned_pages));
        assert!(listed.iter().all(|found| found.pinned_pages <= space.snapshot_pages));
    }
}

fn run_model(options: Options, in_file: bool, steps: u32, seed: u64) {
    let db = if in_file { TestDb::file(options) } else { TestDb::memory(options) };
    let mut world = World::new(db, seed);
    for step in 0..steps {
        world.step();
        if step % 16 == 15 {
            world.judge();
        }
    }
    world.readers.clear();
    for name in std::mem::take(&mut world.snapshots).into_keys() {
        world.db.drop_snapshot(&name).expect("dropped");
    }
    world.judge();
    settle(&mut world);
}

/// After all snapshots were dropped, what they have pinned is used again: the file stops growing.
fn settle(world: &mut World) {
    let pages = |world: &World| world.db.stats().expect("stats").page_count;
    let churn = |world: &mut World| {
        for _ in 0..40 {
            world.commit();
            world.db.checkpoint().expect("made");
        }
        world.db.sync().expect("durable");
    };
    churn(world);
    let before = pages(world);
    churn(world);
    churn(world);
    let after = pages(world);
    assert!(after <= before + before / 4 + 40, "{before} pages, then {after}");
    world.judge();
}

#[test]
fn snapshots_agree_with_clones_of_maps_in_every_page_size() {
    let seed = seed("snapshots_agree");
    for (round, page_size) in (0..).zip([4096, 8192, 16384, 32768]) {
        run_model(Options::new().page_size(page_size), true, 160 * long(), seed ^ round);
        run_model(Options::new().page_size(page_size), false, 100 * long(), seed ^ round << 8);
    }
}

#[test]
fn snapshots_agree_with_clones_of_maps_beside_a_commit_log() {
    let seed = seed("snapshots_beside_a_log");
    with_log_shape(Some((1, 64 << 10)), || run_model(Options::new(), true, 300 * long(), seed));
}

/// The model test can fail.
#[test]
fn the_model_test_finds_a_writer_that_ignores_snapshots() {
    let run = || with_mutant(Some(Mutant::SnapshotsLeftOut), || run_model(Options::new(), true, 300, 7));
    assert!(std::panic::catch_unwind(run).is_err());
}

#[test]
fn a_snapshot_can_be_read_and_restored_after_the_database_was_closed() {
    let mut db = TestDb::file(Options::new());
    fill(&db, 2000, "old");
    let txn = db.create_snapshot("before").expect("created");
    for round in 0..8 {
        fill(&db, 1000, &format!("new {round}"));
        db.assert_clean();
    }
    db.reopen();
    db.assert_clean();
    fill(&db, 1000, "newest");
    let old = db.read_snapshot("before").expect("begun");
    assert_eq!(old.txn_id(), txn);
    for entry in old.table(NUMBERS).expect("opened").iter() {
        let (number, value) = entry.expect("read");
        assert!(value.starts_with(format!("old {number}").as_bytes()), "{number}");
    }
    drop(old);
    db.restore_snapshot("before").expect("restored");
    db.assert_clean();
    let restored = db.begin_read().expect("begun");
    assert_eq!(restored.table(NUMBERS).expect("opened").get(0).expect("read"), Some(&b"old 0"[..]));
    drop(restored);
    db.drop_snapshot("before").expect("dropped");
    db.assert_clean();
    db.reopen();
    assert_eq!(db.read_snapshot("before").expect_err("gone").kind(), ErrorKind::Usage);
}

#[test]
fn names_are_limited_and_errors_say_which_snapshots_there_are() {
    let db = TestDb::memory(Options::new());
    let long = "n".repeat(256);
    assert_eq!(db.create_snapshot(&long).expect_err("too long").kind(), ErrorKind::TooLarge);
    assert_eq!(db.create_snapshot("").expect_err("empty").kind(), ErrorKind::Usage);
    assert!(db.snapshots().expect("listed").is_empty());
    db.create_snapshot(&long[1..]).expect("created");
    db.create_snapshot("second").expect("created");
    let of = [
        db.read_snapshot("secnd").expect_err("absent"),
        db.drop_snapshot("secnd").expect_err("absent"),
        db.restore_snapshot("secnd").expect_err("absent"),
    ];
    for e in of {
        assert_eq!(e.kind(), ErrorKind::Usage);
        assert!(e.to_string().starts_with("there is no snapshot 'secnd'; there is 'nnn"), "{e}");
        assert!(e.to_string().ends_with("'second'"), "{e}");
    }
    assert_eq!(db.snapshots().expect("listed").len(), 2);
}

#[test]
fn a_read_only_handle_reads_snapshots_and_changes_none() {
    let mut db = TestDb::file(Options::new());
    fill(&db, 10, "old");
    db.create_snapshot("one").expect("created");
    db.reopen();
    let path = db.path();
    let reader = Options::new().read_only(true).open(&path).expect("opened");
    assert_eq!(reader.snapshots().expect("listed").len(), 1);
    let txn = reader.read_snapshot("one").expect("begun");
    assert_eq!(txn.table(NUMBERS).expect("opened").len(), 10);
    for refused in
        [reader.create_snapshot("two").map(drop), reader.drop_snapshot("one"), reader.restore_snapshot("one")]
    {
        let e = refused.expect_err("read-only");
        assert!(e.kind() == ErrorKind::Usage && e.to_string().contains("read-only"), "{e}");
    }
}

#[test]
fn a_dropped_snapshot_keeps_its_pages_while_it_is_read() {
    let db = TestDb::memory(Options::new());
    fill(&db, 3000, "old");
    db.create_snapshot("read").expect("created");
    let txn = db.read_snapshot("read").expect("begun");
    fill(&db, 3000, "new");
    db.drop_snapshot("read").expect("dropped");
    for round in 0..6 {
        fill(&db, 3000, &format!("newer {round}"));
    }
    let numbers = txn.table(NUMBERS).expect("opened");
    for entry in numbers.iter() {
        let (number, value) = entry.expect("read");
        assert!(value.starts_with(format!("old {number}").as_bytes()), "{number}");
    }
    assert_eq!(numbers.len(), 3000);
}

/// A drop between the two looks of a reader at the record: the reader finds that it is gone.
#[test]
fn a_reader_notices_that_its_snapshot_is_dropped_while_it_begins() {
    let db = TestDb::memory(Options::new());
    fill(&db, 100, "old");
    db.create_snapshot("race").expect("created");
    let other = db.clone();
    let dropped = std::rc::Rc::new(std::cell::Cell::new(false));
    let act = std::rc::Rc::clone(&dropped);
    let begun = at_moments(
        move |moment| {
            if moment == Moment::SnapshotShown && !act.replace(true) {
                other.drop_snapshot("race").expect("dropped");
                fill(&other, 100, "another");
                other.create_snapshot("race").expect("created again");
                fill(&other, 100, "new");
            }
        },
        || db.read_snapshot("race"),
    );
    assert!(dropped.get());
    let txn = begun.expect("the snapshot that has the name now");
    let numbers = txn.table(NUMBERS).expect("opened");
    assert_eq!(numbers.get(0).expect("read"), Some(&b"another 0"[..]));
}

#[test]
fn statistics_say_which_pages_a_snapshot_pins() {
    let db = TestDb::memory(Options::new());
    fill(&db, 3000, "old");
    db.create_snapshot("one").expect("created");
    fill(&db, 3000, "new");
    db.create_snapshot("two").expect("created");
    fill(&db, 3000, "newer");
    let listed = db.snapshots().expect("listed");
    assert!(listed.iter().all(|found| found.pinned_pages > 30 && found.only_pages > 30), "{listed:?}");
    let stats = db.stats().expect("stats");
    let pinned = |name: &str| {
        let by = PinnedBy::Snapshot { name: name.to_string() };
        stats.pins.iter().find(|pin| pin.by == by).map(|pin| pin.pages)
    };
    assert_eq!([pinned("one"), pinned("two")], [Some(listed[0].pinned_pages), Some(listed[1].pinned_pages)]);
    let space = db.space().expect("counted");
    assert!(space.snapshot_pages >= listed[0].only_pages + listed[1].only_pages);
    assert_eq!((space.snapshots.entries, space.snapshots.leaf_pages), (2, 1));
    let trees: u64 =
        space.tables.iter().chain([&space.catalog, &space.free_space, &space.snapshots]).map(|tree| tree.pages()).sum();
    let others = space.meta_pages + space.free_list_pages + space.log_pages + space.free_pages + space.pending_pages;
    assert_eq!(trees + others, space.page_count);
}

/// Each opening and closing makes a commit log and gives it up.
#[test]
fn a_snapshot_does_not_pin_the_logs_that_are_given_up() {
    with_log_shape(Some((1, 256 << 10)), || {
        let mut db = TestDb::file(Options::new());
        fill(&db, 10, "old");
        db.create_snapshot("one").expect("created");
        let mut pages = Vec::new();
        for round in 0..12 {
            (0..4).for_each(|commit| fill(&db, 10, &format!("new {round} {commit}")));
            assert!(db.stats().expect("stats").log_pages > 0);
            db.reopen();
            pages.push(db.stats().expect("stats").page_count);
        }
        assert!(pages[11] <= pages[3] + 20, "{pages:?}");
    });
}

/// A file whose last snapshot was dropped is again one that older releases read.
#[test]
fn a_file_without_snapshots_has_no_feature_bit() {
    let mut db = TestDb::file(Options::new());
    let features = |db: &TestDb| {
        let file = std::fs::read(db.path()).expect("read");
        [0, 4096].map(|at| (file[at + 16], file[at + 176..at + 252].iter().any(|&byte| byte != 0)))
    };
    fill(&db, 10, "old");
    db.reopen();
    assert_eq!(features(&db), [(0, false); 2]);
    db.create_snapshot("one").expect("created");
    fill(&db, 10, "new");
    db.reopen();
    assert_eq!(features(&db), [(8, true); 2]);
    db.drop_snapshot("one").expect("dropped");
    fill(&db, 10, "newer");
    fill(&db, 10, "newest");
    db.reopen();
    assert_eq!(features(&db), [(0, false); 2]);
}
