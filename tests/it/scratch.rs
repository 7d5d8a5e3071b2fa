//! Databases opened to scratch: they work like others, and nothing reaches the file.

use std::collections::BTreeMap;
use std::path::Path;

use mapleaf::{Db, Durability, ErrorKind, Options, Presence, ReadTxn, Result, Table};

use crate::processes::member::Member;
use crate::support::{assert_clean, bytes, lock_file_of, seed, Rng, TestDb};
use crate::workload::fast_dir;

const DATA: Table<u64, &[u8]> = Table::new("data");
const OTHER: Table<&str, &[u8]> = Table::new("other");

type Model = BTreeMap<u64, Vec<u8>>;

fn scratch(path: &Path) -> Db {
    Options::new().scratch(true).open(path).expect("opened to scratch")
}

/// Table, key and value.
type TableEntry = (String, Vec<u8>, Vec<u8>);

/// All entries of all tables.
fn contents(txn: &ReadTxn) -> Result<Vec<TableEntry>> {
    let mut found = Vec::new();
    for table in txn.tables()? {
        for entry in txn.bytes_table(&table.name)?.iter() {
            let (key, value) = entry?;
            found.push((table.name.clone(), key.to_vec(), value.to_vec()));
        }
    }
    Ok(found)
}

fn read(db: &Db) -> Vec<TableEntry> {
    db.begin_read().and_then(|txn| contents(&txn)).expect("read")
}

fn value(rng: &mut Rng) -> Vec<u8> {
    let len = if rng.below(40) == 0 { 20_000 } else { rng.below(400) };
    bytes(rng.next(), len as usize)
}

/// Some transactions, which leave free pages.
fn change(db: &Db, model: &mut Model, rng: &mut Rng, txns: usize) {
    for _ in 0..txns {
        let mut txn = db.begin_write().expect("begins");
        txn.set_durability(if rng.below(2) == 0 { Durability::Eventual } else { Durability::Immediate });
        let mut data = txn.table(DATA).expect("opened");
        let before = model.clone();
        for _ in 0..rng.below(60) {
            let key = rng.below(500);
            match rng.below(3) {
                0 => {
                    let removed = data.remove(key).expect("removed");
                    assert_eq!(removed, model.remove(&key));
                }
                _ => {
                    let value = value(rng);
                    let old = data.insert(key, &value).expect("stored");
                    assert_eq!(old, model.insert(key, value));
                }
            }
        }
        drop(data);
        if rng.below(5) == 0 {
            *model = before;
        } else {
            txn.commit().expect("committed");
        }
    }
}

#[track_caller]
fn assert_has(db: &Db, model: &Model) {
    let data = db.begin_read().and_then(|txn| txn.table(DATA)).expect("opened");
    let found = data.range_owned(..).and_then(|range| range.collect::<Result<Model>>()).expect("read");
    assert!(found == *model);
}

#[test]
fn a_scratch_database_works_and_its_file_keeps_every_byte() {
    let mut rng = Rng::new(seed("scratch"));
    for page_size in [4096, 32768] {
        let db = TestDb::file(Options::new().page_size(page_size));
        let (path, mut model) = (db.path(), Model::new());
        change(&db, &mut model, &mut rng, 40);
        db.write(|txn| txn.table(OTHER)?.insert("stays", b"here").map(drop)).expect("stored");
        let (before, file, lock_file) = (read(&db), std::fs::read(&path), std::fs::metadata(lock_file_of(&path)));
        let scratch = scratch(&path);
        assert!(scratch.is_scratch() && !scratch.is_read_only() && !db.is_scratch());
        assert_eq!(scratch.path(), Some(path.as_path()));
        assert_eq!(scratch.stats().expect("stats").presence, Presence::Scratch);
        assert_clean(&scratch);
        assert_eq!(read(&scratch), before);
        let held = scratch.begin_read().expect("begins");
        let mut changed = model.clone();
        for round in 0..12 {
            change(&scratch, &mut changed, &mut rng, 10);
            assert_has(&scratch, &changed);
            assert_clean(&scratch);
            if round == 6 {
                scratch.write(|txn| txn.drop_table("other").map(drop)).expect("dropped");
            }
        }
        assert_eq!(contents(&held).expect("read"), before);
        drop(held);
        scratch.sync().and_then(|()| scratch.checkpoint()).expect("nothing to do");
        // Pages that scratch transactions have freed are used again.
        let pages = |db: &Db| db.stats().expect("stats").page_count;
        let after = pages(&scratch);
        change(&scratch, &mut changed, &mut rng, 200);
        assert!(pages(&scratch) < after + after / 2 + 64, "{after} pages become {}", pages(&scratch));
        let copy = path.with_extension("copy");
        scratch.compact_to(&copy).expect("copied");
        assert_has(&Db::open(&copy).expect("opened"), &changed);
        assert_eq!(read(&db), before, "the file has none of it");
        assert_eq!(std::fs::read(&path).expect("the file"), file.expect("the file"));
        let len = |metadata: std::io::Result<std::fs::Metadata>| metadata.expect("a lock file").len();
        assert_eq!(len(std::fs::metadata(lock_file_of(&path))), len(lock_file));
        // The writer of the file goes on, and a new scratch database begins with its newest state.
        change(&db, &mut model, &mut rng, 10);
        assert_has(&scratch, &changed);
        assert_has(&Options::new().scratch(true).open(&path).expect("opened"), &model);
        drop(scratch);
        assert_has(&db, &model);
    }
}

/// The file is only copied while its log has transactions, so the copy was not closed in order.
#[test]
fn a_file_that_was_not_closed_in_order_opens_to_scratch_unchanged() {
    let mut rng = Rng::new(seed("scratch of a crashed file"));
    let db = TestDb::file(Options::new());
    let mut model = Model::new();
    change(&db, &mut model, &mut rng, 30);
    db.sync().expect("flushed");
    let copy = db.path().with_extension("copy");
    std::fs::copy(db.path(), &copy).expect("copied");
    let before = std::fs::read(&copy).expect("the copy");
    let scratch = scratch(&copy);
    assert_has(&scratch, &model);
    assert_clean(&scratch);
    let mut changed = model.clone();
    change(&scratch, &mut changed, &mut rng, 60);
    assert_has(&scratch, &changed);
    assert_clean(&scratch);
    drop(scratch);
    assert!(std::fs::read(&copy).expect("the copy") == before);
    assert!(!lock_file_of(&copy).exists(), "no process could join");
}

/// The other process updates all of its entries again and again, so that it uses each page that no
/// snapshot needs.
#[test]
fn a_scratch_database_keeps_its_state_while_another_process_writes() {
    let dir = fast_dir();
    let path = dir.path().join("shared.mapleaf");
    let mut rng = Rng::new(seed("scratch beside a writer"));
    let mut writer = Member::open(&path, 0);
    writer.number("fill t 0 2000 300");
    writer.number("update eventual t 500 2000 300");
    let scratch = scratch(&path);
    let (before, mut model) = (read(&scratch), Model::new());
    let without_data = |db: &Db| {
        let mut found = read(db);
        found.retain(|(table, ..)| table != "data");
        found
    };
    for round in 0..8 {
        writer.say("update eventual t 1500 2000 300");
        change(&scratch, &mut model, &mut rng, 15);
        assert_has(&scratch, &model);
        let answer = writer.answer();
        assert!(answer.starts_with("ok"), "{answer}");
        if round % 3 == 0 {
            writer.expect("checkpoint", "ok");
        }
        assert!(without_data(&scratch) == before, "round {round}");
        assert_clean(&scratch);
    }
    writer.expect("check", "ok");
    // It is one reader for the others, and takes no lock: they write and see nothing of it.
    let readers = writer.ask("readers");
    assert!(readers.starts_with(&format!("readers {}:", std::process::id())), "{readers}");
    assert!(readers.contains(":scratch:") && readers.split(' ').count() == 2, "{readers}");
    writer.expect("get data x", "none");
    let txn = scratch.begin_write().expect("begins");
    writer.number("put immediate t x y");
    drop(txn);
    drop(scratch);
    assert_eq!(writer.ask("readers"), "readers");
    let seen = read(&Options::new().read_only(true).open(&path).expect("opened"));
    assert!(seen.iter().all(|(table, ..)| table != "data"));
    writer.finish();
}

#[test]
fn options_that_contradict_scratch_and_missing_files_are_refused() {
    let dir = fast_dir();
    let path = dir.path().join("db.mapleaf");
    let options = || Options::new().scratch(true);
    assert_eq!(options().open(&path).expect_err("no file").kind(), ErrorKind::NotFound);
    assert_eq!(std::fs::read_dir(dir.path()).expect("a directory").count(), 0, "nothing is made");
    drop(Db::open(&path).expect("made"));
    for (options, name) in [
        (options().read_only(true), "read_only"),
        (options().exclusive(true), "exclusive"),
        (options().recover(true), "recover"),
        (options().init_empty(true), "init_empty"),
    ] {
        let e = options.open(&path).expect_err("a contradiction");
        assert_eq!(e.kind(), ErrorKind::Usage);
        assert!(e.to_string().contains(name) && e.to_string().contains("db.mapleaf"), "{e}");
    }
    let mut other = Member::start(&path, 0);
    other.expect("open exclusive", "ok");
    assert_eq!(options().open(&path).expect_err("another has it").kind(), ErrorKind::Locked);
    other.finish();
}

#[test]
fn a_cut_of_the_file_is_an_error_of_the_scratch_database() {
    let db = TestDb::file(Options::new());
    db.write(|txn| txn.table(DATA)?.put_all((0..3000).map(|key| (key, &[7; 200][..]))).map(drop)).expect("stored");
    let copy = db.path().with_extension("copy");
    db.compact_to(&copy).expect("copied");
    let scratch = scratch(&copy);
    scratch.write(|txn| txn.table(DATA)?.insert(1, b"new").map(drop)).expect("stored in memory");
    let file = std::fs::OpenOptions::new().write(true).open(&copy).expect("opened");
    file.set_len(8192).expect("cut");
    let read = scratch.begin_read().and_then(|txn| txn.table(DATA)?.iter().try_for_each(|entry| entry.map(drop)));
    assert_eq!(read.expect_err("cut").kind(), ErrorKind::Fault);
    let e = scratch.write(|txn| txn.table(DATA)?.insert(2, b"new").map(drop)).expect_err("cut");
    assert!(matches!(e.kind(), ErrorKind::Fault | ErrorKind::Poisoned), "{e}");
}
