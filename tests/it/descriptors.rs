//! A program that has closed its standard descriptors, as daemons do, and still prints never writes
//! into a file of Mapleaf.

use std::path::{Path, PathBuf};

use mapleaf::testing::{close_standard_descriptors, print_to_standard_descriptors};
use mapleaf::{Db, Options, ReadAhead};

use crate::reexec;
use crate::support::{assert_clean, BYTES};

/// Entries whose values are in overflow extents.
const ENTRIES: u32 = 300;

fn value(n: u32) -> Vec<u8> {
    vec![n as u8; if n.is_multiple_of(10) { 50_000 } else { 100 }]
}

/// Runs a call with closed standard descriptors, then prints. No open file of Mapleaf may have one
/// of them.
fn while_closed<T>(dir: &Path, run: impl FnOnce() -> mapleaf::Result<T>) -> T {
    close_standard_descriptors();
    let done = run().expect("it works with closed descriptors");
    for fd in 0..3 {
        let leads_to = std::fs::read_link(format!("/proc/self/fd/{fd}"));
        let ours = |path: &PathBuf| path.starts_with(dir) || path.to_string_lossy().contains("mapleaf");
        assert!(!leads_to.as_ref().is_ok_and(ours), "descriptor {fd}: {leads_to:?}");
    }
    print_to_standard_descriptors("printed after all descriptors were closed\n");
    done
}

fn write(db: &Db, from: u32) -> mapleaf::Result<()> {
    db.write(|txn| {
        let mut table = txn.table(BYTES)?;
        (from..ENTRIES).step_by(2).try_for_each(|n| table.insert(&n.to_be_bytes(), &value(n)).map(drop))
    })
}

fn assert_whole(db: &Db) {
    assert_clean(db);
    let table = db.begin_read().and_then(|txn| txn.table(BYTES)).expect("the table");
    for n in 0..ENTRIES {
        assert_eq!(table.get(&n.to_be_bytes()).expect("get"), Some(&*value(n)), "entry {n}");
    }
    assert_eq!(table.len(), u64::from(ENTRIES));
}

/// The child, in which nothing else needs the descriptors.
#[test]
fn closed_descriptors_child() {
    let Some(arguments) = reexec::arguments() else { return };
    let dir = Path::new(&arguments[0]);
    let [path, compacted, saved, empty] = ["db", "compacted", "saved", "empty"].map(|name| dir.join(name));
    let db = while_closed(dir, || Db::open(&path));
    while_closed(dir, || write(&db, 0));
    while_closed(dir, || write(&db, 1));
    while_closed(dir, || db.begin_read()?.table(BYTES)?.get(&[0; 4]).map(drop));
    while_closed(dir, || db.compact_to(&compacted));
    let memory = while_closed(dir, Db::in_memory);
    while_closed(dir, || write(&memory, 0).and_then(|()| write(&memory, 1)));
    assert_whole(&memory);
    drop(db);
    while_closed(dir, || Db::salvage(&path, &saved));
    while_closed(dir, || Db::recover_preview(&path));
    while_closed(dir, || Db::recover(&path));
    let reader = Options::new().read_only(true).read_ahead(ReadAhead::Auto);
    let db = while_closed(dir, || reader.open(&path));
    while_closed(dir, || db.begin_read()?.table(BYTES)?.iter().try_for_each(|entry| entry.map(drop)));
    std::fs::write(&empty, []).expect("an empty file");
    while_closed(dir, || write(&Options::new().init_empty(true).open(&empty)?, 0));
    while_closed(dir, || write(&Db::open(&empty)?, 1));
}

#[test]
fn no_database_file_gets_a_standard_descriptor() {
    let dir = tempfile::tempdir().expect("a directory");
    reexec::start(reexec::command("descriptors::closed_descriptors_child", &[&dir.path()])).finish();
    for name in ["db", "compacted", "saved", "empty"] {
        assert_whole(&Db::open_existing(dir.path().join(name)).expect("whole"));
    }
}
