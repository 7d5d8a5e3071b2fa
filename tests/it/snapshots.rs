//! Named snapshots: creating, reading, listing, dropping, restoring.

use mapleaf::{Db, ErrorKind, Options, Table};

use crate::support::TestDb;

const NUMBERS: Table<u64, &[u8]> = Table::new("numbers");

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
