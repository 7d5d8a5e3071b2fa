//! Limits and signals: files that may not get longer (`ulimit -f`), and a timer that interrupts
//! every call.

use std::path::Path;

use mapleaf::testing::{interrupt_every, interruptions, limit_file_size};
use mapleaf::{inspect, Db, Error, Options, PageId};

use super::steps::{value, ENTRIES, NAMES};
use crate::reexec;
use crate::support::names_beside_locks;
use crate::workload::fast_dir;

/// A value of more than four pages, which is written by `pwrite`.
const LONG: usize = 20_000;

fn insert(db: &Db, key: u64, len: usize) -> mapleaf::Result<()> {
    db.write(|txn| txn.table(NAMES)?.insert(key, &vec![7; len]).map(drop))
}

/// Each operation, with the limit on file sizes. The parent checks the error.
fn attempt(what: &str, path: &Path) -> mapleaf::Result<()> {
    let out = path.with_extension("out");
    match what {
        "long values" => {
            let db = Db::open(path)?;
            let failed = (0..1000).find_map(|key| insert(&db, 1000 + key, LONG).err());
            // The transaction is aborted, and the database still works.
            insert(&db, 5, 10)?;
            assert_eq!(db.begin_read()?.table(NAMES)?.get(5)?, Some(&[7; 10][..]));
            drop(db);
            insert(&Db::open(path)?, 6, 10)?;
            failed.map_or(Ok(()), Err)
        }
        "growth" => {
            let db = Db::open(path)?;
            let failed = (0..100_000).find_map(|key| insert(&db, 1000 + key % 5000, 900).err());
            insert(&db, 5, 10)?;
            failed.map_or(Ok(()), Err)
        }
        "load" => Db::open(path)?.write(|txn| {
            let mut table = txn.table(NAMES)?;
            let mut loader = table.loader()?;
            (1000..100_000).try_for_each(|key| loader.push(key, &[7; 100]))?;
            loader.finish().map(drop)
        }),
        "creation" => Db::open(path).map(drop),
        "an empty file" => Options::new().init_empty(true).open(path).map(drop),
        "recover" => Db::recover(path).map(drop),
        "compact" => Db::open(path)?.compact_to(out).map(drop),
        "salvage" => Db::salvage(path, out).map(drop),
        _ => unreachable!("{what}"),
    }
}

#[test]
fn limited_child() {
    let Some(arguments) = reexec::arguments() else { return };
    let [what, path, limit] = &arguments[..] else { panic!("{arguments:?}") };
    limit_file_size(limit.parse().expect("a number")).expect("limited");
    match attempt(what, Path::new(path)) {
        Ok(()) => reexec::answer("done"),
        Err(Error::Io { source, .. }) => reexec::answer(&format!("{:?} {source}", source.kind())),
        Err(e) => reexec::answer(&format!("other {e}")),
    }
}

/// Asserts that a child survives this operation with this limit, and gets an error that names the
/// limit.
#[track_caller]
fn is_an_error(what: &str, path: &Path, limit: u64) {
    let limit = limit.to_string();
    let mut child = reexec::start(reexec::command("sandbox::limits::limited_child", &[&what, &path, &limit]));
    let said = child.line().unwrap_or_else(|| panic!("{what}, limit {limit}: the process died"));
    child.finish();
    assert!(said.starts_with("FileTooLarge "), "{what}: {said}");
    assert!(said.contains(&format!("of {limit} bytes")) && said.contains("ulimit -f"), "{what}: {said}");
}

fn database(path: &Path) -> u64 {
    let db = Db::open(path).expect("made");
    db.write(|txn| {
        let mut table = txn.table(NAMES)?;
        (0..ENTRIES).try_for_each(|key| table.insert(key, &value(key)).map(drop))
    })
    .expect("entries");
    drop(db);
    std::fs::metadata(path).expect("the file").len()
}

#[track_caller]
fn assert_clean(path: &Path) -> Db {
    let db = Options::new().create(false).open(path).expect("opens");
    assert!(db.check().expect("a check").is_clean());
    db
}

#[test]
fn values_over_the_limit_on_file_sizes_are_an_error_and_the_database_still_works() {
    let dir = fast_dir();
    let path = dir.path().join("db.mapleaf");
    let len = database(&path);
    // All but the first pages are free.
    let db = Db::open(&path).expect("opens");
    for _ in 0..3 {
        db.write(|txn| {
            let mut table = txn.table(NAMES)?;
            (10..ENTRIES).try_for_each(|key| table.remove(key).map(drop))?;
            table.insert(1, &value(1)).map(drop)
        })
        .expect("removed");
    }
    drop(db);
    for limit in [len / 2, len / 4] {
        is_an_error("long values", &path, limit);
        let db = assert_clean(&path);
        assert_eq!(db.begin_read().unwrap().table(NAMES).unwrap().get(6).unwrap(), Some(&[7; 10][..]));
    }
    is_an_error("load", &path, len / 2);
    is_an_error("growth", &path, len + 100_000);
    assert_clean(&path);
}

#[test]
fn creation_over_the_limit_on_file_sizes_is_an_error_and_leaves_no_file() {
    let dir = fast_dir();
    let at = |name: &str| dir.path().join(name);
    for limit in [0, 100, 4096, 5000] {
        is_an_error("creation", &at("new"), limit);
        std::fs::write(at("empty"), b"").expect("an empty file");
        is_an_error("an empty file", &at("empty"), limit);
    }
    assert!(!at("new").exists());
    database(&at("db"));
    is_an_error("compact", &at("db"), 100_000);
    is_an_error("salvage", &at("db"), 100_000);
    assert_eq!(names_beside_locks(dir.path(), &["db"]), ["db", "empty"]);
    assert_clean(&at("db"));
}

#[test]
fn recovery_that_may_not_write_its_meta_page_is_an_error_and_changes_nothing() {
    let dir = fast_dir();
    let path = dir.path().join("db.mapleaf");
    database(&path);
    let db = Db::open(&path).expect("opens");
    insert(&db, 3, 50).expect("a newer state");
    let stats = db.stats().expect("stats");
    let newest = (2..stats.page_count).filter_map(|id| inspect::page(&db, PageId(id)).ok().map(|page| (page.txn, id)));
    let (_, page) = newest.max().expect("pages");
    drop(db);
    let mut bytes = std::fs::read(&path).expect("the file");
    bytes[page as usize * 4096 + 100] ^= 1;
    std::fs::write(&path, &bytes).expect("damaged");
    is_an_error("recover", &path, 0);
    assert!(std::fs::read(&path).expect("the file") == bytes, "changed");
    assert!(Db::recover(&path).expect("recovers without a limit").is_loss());
    assert_clean(&path);
}

/// The timer interrupts so often that the reservation of one long range can never end.
#[test]
fn interrupted_child() {
    let Some(arguments) = reexec::arguments() else { return };
    let db = Db::open(&arguments[0]).expect("opens");
    interrupt_every(1000, 30_000).expect("interrupted");
    let taken = db.write(|txn| {
        let mut table = txn.table(NAMES)?;
        let place = table.reserve(1, 192 << 20)?;
        drop(place);
        table.insert(2, &[7]).map(drop)
    });
    taken.expect("grows");
    reexec::answer(&interruptions().to_string());
    // Stops the signals before the harness waits.
    interrupt_every(0, u64::MAX).expect("left alone");
}

#[test]
fn a_file_grows_although_signals_interrupt_every_long_call() {
    let dir = fast_dir();
    let path = dir.path().join("db.mapleaf");
    let mut child = reexec::start(reexec::command("sandbox::limits::interrupted_child", &[&path]));
    let signals: u64 = child.line().expect("the child was interrupted for ever").parse().expect("a number");
    println!("{signals} signals");
    child.finish();
    assert_clean(&path);
}
