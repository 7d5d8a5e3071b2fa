//! What still works when bytes of the file are damaged.

use mapleaf::{Db, ErrorKind, Table};

const BLOBS: Table<u32, &[u8]> = Table::new("blobs");

/// A database with two large values, the first of which has a flipped byte.
fn with_damaged_value() -> (tempfile::TempDir, Db) {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("db.mapleaf");
    let write = |txn: &mut mapleaf::WriteTxn| {
        let mut blobs = txn.table(BLOBS)?;
        blobs.insert(1, &[0xA1; 20_000])?;
        blobs.insert(2, &[0xB2; 20_000])?;
        Ok::<_, mapleaf::Error>(())
    };
    Db::open(&path).and_then(|db| db.write(write)).expect("written");
    let mut bytes = std::fs::read(&path).expect("the file");
    let at = bytes.windows(100).position(|window| window == [0xA1; 100]).expect("the value");
    bytes[at + 50] ^= 1;
    std::fs::write(&path, bytes).expect("damaged");
    let db = Db::open(&path).expect("opens");
    (dir, db)
}

#[test]
fn a_damaged_value_is_named_and_others_are_read() {
    let (_dir, db) = with_damaged_value();
    let blobs = db.begin_read().and_then(|txn| txn.table(BLOBS)).expect("the table");
    let error = blobs.get(1).expect_err("damaged");
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("'blobs'"), "{error}");
    assert_eq!(blobs.get(2).expect("readable"), Some(&[0xB2; 20_000][..]));
}

#[test]
fn a_damaged_value_can_be_removed_with_its_table() {
    let (_dir, db) = with_damaged_value();
    assert!(!db.check().expect("checked").is_clean());
    db.write(|txn| txn.drop_table("blobs")).expect("dropped");
    let report = db.check().expect("checked");
    assert!(report.is_clean(), "{:?}", report.findings);
}

/// Storing over it returns what was there, which cannot be read: the error says so, and nothing is changed.
#[test]
fn a_damaged_value_is_not_silently_replaced_by_calls_that_return_it() {
    let (_dir, db) = with_damaged_value();
    let mut txn = db.begin_write().expect("begins");
    let error = txn.table(BLOBS).and_then(|mut blobs| blobs.insert(1, b"new")).expect_err("what was there is damaged");
    assert_eq!(error.kind(), ErrorKind::Corrupt);
}
