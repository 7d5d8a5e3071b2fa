//! Damage that concerns named snapshots: it is found and named, and the newest state goes on.

use std::path::{Path, PathBuf};

use mapleaf::testing::seal_file;
use mapleaf::{Db, ErrorKind, PageId, Table};

use crate::support::assert_clean;

const NUMBERS: Table<u64, &[u8]> = Table::new("numbers");
const PAGE: usize = 4096;

fn fill(db: &Db, what: &str) {
    db.write(|txn| {
        let mut numbers = txn.table(NUMBERS)?;
        (0..1500).try_for_each(|number| numbers.insert(number, format!("{what} {number}").as_bytes()).map(drop))
    })
    .expect("stored");
}

/// A closed database with a snapshot `victim`, all pages of which were changed since.
fn database() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("a.mapleaf");
    let db = Db::open(&path).expect("opened");
    fill(&db, "old");
    db.create_snapshot("another").expect("created");
    db.create_snapshot("victim").expect("created");
    fill(&db, "new");
    fill(&db, "newer");
    drop(db);
    (dir, path)
}

fn damage(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = std::fs::read(path).expect("read");
    change(&mut bytes);
    std::fs::write(path, bytes).expect("written");
}

/// A leaf that only the snapshots reach.
fn old_leaf(path: &Path) -> u64 {
    let bytes = std::fs::read(path).expect("read");
    let old = |page: &[u8]| page[4] == 1 && page.windows(8).any(|eight| eight == b"old 1000");
    let found = bytes.chunks(PAGE).position(old).expect("a leaf of the snapshot");
    found as u64
}

#[test]
fn a_damaged_page_of_a_snapshot_is_found_and_named_and_never_restored() {
    let (_dir, path) = database();
    let leaf = old_leaf(&path);
    damage(&path, |bytes| bytes[leaf as usize * PAGE + 3000] ^= 1);
    let db = Db::open(&path).expect("the newest state is whole");
    let report = db.check().expect("checked");
    assert!(!report.is_clean());
    for finding in &report.findings {
        assert!(["victim", "another"].contains(&finding.snapshot.as_deref().expect("a snapshot")), "{finding}");
        assert_eq!(finding.table.as_deref(), Some("numbers"), "{finding}");
        assert!(finding.to_string().contains("snapshot '"), "{finding}");
    }
    for name in ["victim", "another"] {
        let is_it = |finding: &&mapleaf::Finding| finding.snapshot.as_deref() == Some(name);
        assert!(report.findings.iter().filter(is_it).any(|finding| finding.page == Some(PageId(leaf))), "{name}");
    }
    assert_eq!(report.snapshots, 2);
    let txn = db.read_snapshot("victim").expect("its record is whole");
    let read: mapleaf::Result<u64> = txn.table(NUMBERS).expect("opened").iter().map(|entry| entry.map(|_| 1)).sum();
    assert_eq!(read.expect_err("damaged").kind(), ErrorKind::Corrupt);
    drop(txn);
    let before = db.stats().expect("stats").txn;
    let refused = db.restore_snapshot("victim").expect_err("damaged");
    assert!(refused.kind() == ErrorKind::Corrupt && refused.to_string().contains("snapshot 'victim'"), "{refused}");
    assert_eq!(db.stats().expect("stats").txn, before, "nothing has changed");
    fill(&db, "newest");
    db.drop_snapshot("victim").expect("dropped");
    db.drop_snapshot("another").expect("dropped");
    assert_clean(&db);
}

/// Going back to an older state brings back the snapshots that it had.
#[test]
fn recovery_goes_back_to_a_state_with_its_snapshots() {
    let (_dir, path) = database();
    // The first commit after opening makes no log, so the other meta page has the state before it.
    fill(&Db::open(&path).expect("opened"), "newest");
    let bytes = std::fs::read(&path).expect("read");
    let of_newest = |page: &[u8]| page[4] == 1 && page.windows(11).any(|eleven| eleven == b"newest 1000");
    let leaf = bytes.chunks(PAGE).position(of_newest).expect("a leaf of the newest state");
    damage(&path, |bytes| bytes[leaf * PAGE + 3000] ^= 1);
    Db::recover(&path).expect("the state before is whole");
    let db = Db::open(&path).expect("opened");
    assert_clean(&db);
    let names: Vec<String> = db.snapshots().expect("listed").into_iter().map(|found| found.name).collect();
    assert_eq!(names, ["another", "victim"]);
    db.restore_snapshot("victim").expect("restored");
    assert_clean(&db);
    let txn = db.begin_read().expect("begun");
    assert_eq!(txn.table(NUMBERS).expect("opened").get(7).expect("read"), Some(&b"old 7"[..]));
}

/// Changes a byte of the record of `victim`, and makes all checksums right.
fn change_record(path: &Path, at: usize, to: u8) {
    damage(path, |bytes| {
        let leaf = bytes.chunks(PAGE).rposition(|page| {
            page[4] == 1 && page[28..32] == [2, 0, 0, 0] && page.windows(6).any(|name| name == b"victim")
        });
        // Only the newest of the pages is in use; the others are free.
        let meta =
            [0, PAGE].into_iter().max_by_key(|at| u64::from_le_bytes(bytes[at + 48..at + 56].try_into().unwrap()));
        let root = meta.map(|meta| &bytes[meta + 176..meta + 182]).expect("a meta page");
        let id = root.iter().rev().fold(0, |id, &byte| id << 8 | usize::from(byte));
        assert!(leaf.is_some());
        let page = &mut bytes[id * PAGE..(id + 1) * PAGE];
        let name = page.windows(6).rposition(|name| name == b"victim").expect("its record");
        page[name + 6 + at] = to;
        seal_file(bytes);
    });
}

#[test]
fn a_damaged_record_is_named_and_can_be_dropped_and_no_page_is_lost_meanwhile() {
    // Version, next tree id, txn, root of the catalog.
    for (at, to) in [(0, 9), (4, 1), (14, 7), (34, 77)] {
        let (_dir, path) = database();
        change_record(&path, at, to);
        let db = Db::open(&path).expect("the newest state is whole");
        for refused in [db.snapshots().map(drop), db.read_snapshot("victim").map(drop), db.restore_snapshot("victim")] {
            let e = refused.expect_err("damaged");
            assert!(e.kind() == ErrorKind::Corrupt && e.to_string().contains("snapshot 'victim'"), "{at}: {e}");
        }
        let found = db.check().expect("checked").findings;
        assert!(found.iter().any(|finding| finding.to_string().contains("'victim'")), "{at}: {found:?}");
        // What it keeps is not known: no pending page is used again.
        let pages = db.stats().expect("stats").page_count;
        (0..4).for_each(|round| fill(&db, &format!("newest {round}")));
        assert!(db.stats().expect("stats").page_count > pages + 30);
        let other = db.read_snapshot("another").expect("whole");
        assert_eq!(other.table(NUMBERS).expect("opened").get(7).expect("read"), Some(&b"old 7"[..]));
        drop(other);
        db.drop_snapshot("victim").expect("dropped");
        assert_clean(&db);
        let pages = db.stats().expect("stats").page_count;
        (0..4).for_each(|round| fill(&db, &format!("last {round}")));
        assert!(db.stats().expect("stats").page_count <= pages + 5, "what it kept is used again");
        assert_clean(&db);
    }
}

/// A record that says an older transaction: its pages were written after it.
#[test]
fn pages_that_are_not_kept_for_a_snapshot_are_found() {
    let (_dir, path) = database();
    change_record(&path, 8, 1);
    let db = Db::open(&path).expect("the newest state is whole");
    let findings = db.check().expect("checked").findings;
    assert!(!findings.is_empty());
    for finding in findings {
        let names_it = finding.snapshot.as_deref() == Some("victim") && finding.page.is_some();
        assert!(names_it && finding.what.contains("not kept for the snapshot"), "{finding}");
    }
    db.drop_snapshot("victim").expect("dropped");
    assert_clean(&db);
}

/// No byte of the page of records makes anything panic, whatever it is changed to.
#[test]
fn no_change_of_a_record_makes_a_call_panic() {
    let (_dir, path) = database();
    let whole = std::fs::read(&path).expect("read");
    for at in 0..56 {
        std::fs::write(&path, &whole).expect("written");
        change_record(&path, at, (at as u8).wrapping_mul(37) ^ 0xa5);
        let db = Db::open(&path).expect("the newest state is whole");
        drop(db.snapshots());
        if let Ok(txn) = db.read_snapshot("victim") {
            drop(txn.table(NUMBERS).map(|table| table.iter().count()));
        }
        drop(db.restore_snapshot("victim"));
        drop(db.check().expect("checked"));
        fill(&db, "newest");
        db.drop_snapshot("victim").expect("dropped");
        let txn = db.begin_read().expect("begun");
        assert_eq!(txn.table(NUMBERS).expect("opened").len(), 1500);
    }
}
