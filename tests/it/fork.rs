//! A child after `fork` has copies of its parent's handles; the locks stay with the parent.

use mapleaf::testing::in_forked_child;
use mapleaf::{Db, ErrorKind, Options, Table};

use crate::reexec;
use crate::workload::fast_dir;

const NUMBERS: Table<u64, u64> = Table::new("numbers");
const BYTES: Table<&[u8], &[u8]> = Table::new("bytes");

/// The child, which has no other threads.
#[test]
fn forking_child() {
    if reexec::arguments().is_none() {
        return;
    }
    let dir = fast_dir();
    let path = dir.path().join("db.mapleaf");
    let db = Db::open(&path).expect("open");
    let put = |db: &Db, key| db.write(|txn| txn.table(NUMBERS)?.insert(key, key).map(drop));
    put(&db, 1).expect("committed");
    let len = std::fs::metadata(&path).expect("the file").len();
    let mut inherited = Some(db.clone());
    drop(db);
    assert!(in_forked_child(|| {
        let db = inherited.take().expect("the copy");
        assert_eq!(put(&db, 2).expect_err("a child").kind(), ErrorKind::Usage);
        drop(db);
        // The parent still has its locks: dropping the copy did not release them.
        let alone = Options::new().exclusive(true).open(&path);
        assert_eq!(alone.map(drop).expect_err("held by the parent").kind(), ErrorKind::Locked);
    }));
    let db = inherited.expect("the parent's own");
    assert_eq!(std::fs::metadata(&path).expect("the file").len(), len, "the child cut it");
    put(&db, 3).expect("the parent goes on");
    assert!(db.check().expect("check").is_clean());
    drop_in_child(&db, |txn| {
        let value = vec![7; 4000];
        let mut table = txn.table(BYTES).expect("table");
        (0..6000_u64).for_each(|n| drop(table.insert(&n.to_be_bytes(), &value).expect("inserted")));
    });
    drop_in_child(&db, |txn| {
        let mut table = txn.table(BYTES).expect("table");
        let mut loader = table.loader().expect("a loader");
        (0..100_000_u64).for_each(|n| loader.push(&n.to_be_bytes(), &[7; 100]).expect("taken"));
    });
    assert!(db.check().expect("check").is_clean());
    a_transaction_is_of_no_use_in_a_child(&db, &path);
    assert!(db.check().expect("check").is_clean());
    reexec::answer("done");
}

/// Every use of the parent's transactions in a child is refused, and the parent's file and pages do
/// not change.
fn a_transaction_is_of_no_use_in_a_child(db: &Db, path: &std::path::Path) {
    assert!(in_forked_child(|| refused(db.begin_read().map(drop))));
    let mut txn = db.begin_write().expect("begins");
    an_inherited_load_is_left_alone(&mut txn, path);
    let before = std::fs::read(path).expect("the file");
    let mut inherited = txn.table(BYTES).expect("table");
    assert!(in_forked_child(|| {
        refused(inherited.insert(&200_000_u64.to_be_bytes(), b"changed").map(drop));
        refused(inherited.remove(&200_001_u64.to_be_bytes()).map(drop));
        refused(inherited.reserve(b"long", 100_000).map(drop));
    }));
    let mut inherited = Some(txn);
    assert!(in_forked_child(|| {
        let txn = inherited.take().expect("the copy");
        refused(txn.table(BYTES).map(drop));
        refused(txn.commit());
    }));
    assert!(std::fs::read(path).expect("the file") == before, "a child wrote to its parent's file");
    inherited.expect("the parent's own").commit().expect("committed");
    let table = db.begin_read().and_then(|txn| txn.table(BYTES)).expect("table");
    assert_eq!(table.get(&200_000_u64.to_be_bytes()).expect("get"), Some(&[7; 100][..]));
}

/// The load has pages in the write queue: the child must not write them.
fn an_inherited_load_is_left_alone(txn: &mut mapleaf::WriteTxn, path: &std::path::Path) {
    let mut table = txn.table(BYTES).expect("table");
    let mut loader = table.loader().expect("a loader");
    (200_000..205_000_u64).for_each(|n| loader.push(&n.to_be_bytes(), &[7; 100]).expect("taken"));
    let mut inherited = Some(loader);
    let before = std::fs::read(path).expect("the file");
    assert!(in_forked_child(|| {
        let mut loader = inherited.take().expect("the copy");
        refused(loader.push(&[255; 8], &[7; 100]));
        drop(loader);
    }));
    assert!(in_forked_child(|| refused(inherited.take().expect("the copy").finish().map(drop))));
    assert!(std::fs::read(path).expect("the file") == before, "a child wrote to its parent's file");
    inherited.take().expect("the parent's own").finish().expect("finished");
}

fn refused(told: mapleaf::Result<()>) {
    assert_eq!(told.expect_err("a child").kind(), ErrorKind::Usage);
}

/// A child drops a transaction whose writing thread exists only in the parent, and does not wait
/// for it. The parent continues.
fn drop_in_child(db: &Db, fill: impl FnOnce(&mut mapleaf::WriteTxn)) {
    let mut txn = db.begin_write().expect("begins");
    fill(&mut txn);
    let mut inherited = Some(txn);
    assert!(in_forked_child(|| drop(inherited.take())));
    drop(inherited);
}

#[test]
fn a_child_that_drops_an_inherited_handle_does_not_affect_its_parent() {
    let mut child = reexec::start(reexec::command("fork::forking_child", &[&"go"]));
    assert_eq!(child.line().as_deref(), Some("done"));
    child.finish();
}
