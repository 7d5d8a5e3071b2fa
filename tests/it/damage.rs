//! Damaged files: an error names the damage, and everything else still works.

use mapleaf::{Db, ErrorKind, Options, Table};

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
fn a_damaged_value_is_an_error_with_its_page_and_others_are_read() {
    let (_dir, db) = with_damaged_value();
    let blobs = db.begin_read().and_then(|txn| txn.table(BLOBS)).expect("the table");
    let error = blobs.get(1).expect_err("damaged");
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("'blobs'"), "{error}");
    assert_eq!(blobs.get(2).expect("readable"), Some(&[0xB2; 20_000][..]));
}

#[test]
fn an_undecodable_entry_is_an_error_with_its_table_and_others_are_read() {
    const NAMES: Table<u32, &str> = Table::new("names");
    let db = Db::in_memory().expect("made");
    db.write(|txn| {
        let mut names = txn.table(NAMES)?;
        [(1, "a"), (2, "b"), (3, "c")].iter().try_for_each(|&(number, name)| names.insert(number, name).map(drop))?;
        drop(names);
        txn.bytes_table("names")?.insert(&2u32.to_be_bytes(), b"\xff").map(drop)
    })
    .expect("stored");
    let names = db.begin_read().and_then(|txn| txn.table(NAMES)).expect("the table");
    let undecodable = |e: mapleaf::Error| match e {
        mapleaf::Error::Decode { table: Some(table), .. } => table,
        e => panic!("{e}"),
    };
    let read = |entry: mapleaf::Result<(u32, &str)>| entry.map(|(number, _)| number).map_err(undecodable);
    let expected = [Ok(1), Err("names".to_string()), Ok(3)];
    assert_eq!(names.iter().map(read).collect::<Vec<_>>(), expected);
    assert!(names.iter().rev().map(read).eq(expected.into_iter().rev()));
    assert!(matches!(names.get(2), Err(mapleaf::Error::Decode { .. })));
}

#[test]
fn a_damaged_value_can_be_removed_with_its_table() {
    let (_dir, db) = with_damaged_value();
    assert!(!db.check().expect("checked").is_clean());
    db.write(|txn| txn.drop_table("blobs")).expect("dropped");
    let report = db.check().expect("checked");
    assert!(report.is_clean(), "{:?}", report.findings);
}

/// Replacing the value would return the old one, which cannot be read: the call fails and changes
/// nothing.
#[test]
fn a_damaged_value_is_not_silently_replaced_by_calls_that_return_it() {
    let (_dir, db) = with_damaged_value();
    let txn = db.begin_write().expect("begins");
    let error = txn.table(BLOBS).and_then(|mut blobs| blobs.insert(1, b"new")).expect_err("what was there is damaged");
    assert_eq!(error.kind(), ErrorKind::Corrupt);
}

/// Flips a byte in the middle of a page of a closed file.
fn flip(path: &std::path::Path, page: u64) {
    let mut bytes = std::fs::read(path).expect("the file");
    bytes[page as usize * 4096 + 2000] ^= 1;
    std::fs::write(path, bytes).expect("damaged");
}

/// `check` once ended at the first unreadable catalog page, and reported every page of later tables
/// as lost.
#[test]
fn check_continues_after_a_damaged_catalog_page() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("db.mapleaf");
    let name = |n: u32| format!("table {n:03} {}", "x".repeat(200));
    let db = Db::open(&path).expect("made");
    db.write(|txn| (0..60).try_for_each(|n| txn.bytes_table(&name(n))?.insert(b"key", b"value").map(drop)))
        .expect("written");
    let root =
        mapleaf::inspect::metas(&db).expect("metas").iter().max_by_key(|meta| meta.txn).expect("one").catalog_root;
    let info = |id| mapleaf::inspect::page(&db, mapleaf::PageId(id)).ok();
    assert_eq!(info(root).expect("the root").kind, "branch");
    let pages = db.stats().expect("stats").page_count;
    let leaves: Vec<u64> =
        (2..pages).filter(|id| info(*id).is_some_and(|it| it.tree_id == 0 && it.kind == "leaf")).collect();
    assert!(leaves.len() > 3, "{leaves:?}");
    drop(db);
    flip(&path, leaves[1]);
    let report = Db::open(&path).and_then(|db| db.check()).expect("checked");
    assert!((40..60).contains(&report.tables), "{} tables of 60", report.tables);
    let catalog = report.findings.iter().find(|finding| finding.what.contains("the catalog")).expect("named");
    assert_eq!(catalog.page.map(|page| page.0), Some(leaves[1]));
    let (low, high) = catalog.key_range.as_ref().expect("the names that are lost");
    assert!(low < high && high.starts_with(b"table"), "{catalog}");
}

#[test]
fn every_finding_of_damage_names_its_page() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("db.mapleaf");
    let db = Db::open(&path).expect("made");
    for n in 0..40u32 {
        db.write(|txn| {
            let mut blobs = txn.table(BLOBS)?;
            (0..20).try_for_each(|m| blobs.insert(n * 20 + m, &[n as u8; 700]).map(drop))?;
            blobs.insert(n, &[7; 9000]).map(drop)
        })
        .expect("written");
    }
    // Closing gives up the commit log, whose pages no tree reaches.
    drop(db);
    let db = Options::new().read_only(true).open(&path).expect("opened");
    let pages = db.stats().expect("stats").page_count;
    let reachable = db.check().expect("checked").reachable_pages;
    drop(db);
    let whole = std::fs::read(&path).expect("the file");
    let mut found = 0;
    for page in 2..pages {
        flip(&path, page);
        let report = Options::new().read_only(true).open(&path).and_then(|db| db.check()).expect("checked");
        if let Some(first) = report.findings.first() {
            found += 1;
            assert!(report.findings.iter().all(|it| it.page.is_some()), "page {page}: {:?}", report.findings);
            assert!(first.table.is_some() || first.what.contains("the "), "page {page}: {first}");
            if first.table.is_some() {
                assert!(first.key_range.is_some(), "page {page}: {first}");
            }
        }
        std::fs::write(&path, &whole).expect("mended");
    }
    assert_eq!(found, reachable - 2, "each page in use is named, but for the meta pages");
}

#[test]
fn check_reports_its_progress() {
    let db = Db::in_memory().expect("made");
    db.write(|txn| {
        let mut table = txn.table(BLOBS)?;
        (0..20_000u32).try_for_each(|n| table.insert(n, &[3; 200]).map(drop))
    })
    .expect("written");
    let mut told: Vec<(u64, u64)> = Vec::new();
    let report = db.check_with(|done, all| told.push((done, all))).expect("checked");
    assert!(told.len() > 3 && told.windows(2).all(|pair| pair[0].0 < pair[1].0), "{told:?}");
    assert!(told.iter().all(|(done, all)| *done <= *all && *all == report.pages_checked), "{told:?}");
}

/// Both copies of the newer meta page are damaged. An interrupted commit can cause that, so the
/// older state opens. But check and salvage report that there may have been a newer state.
#[test]
fn check_and_salvage_report_a_lost_meta_page() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("db.mapleaf");
    let db = Db::open(&path).expect("made");
    for key in 0..2 {
        db.write(|txn| txn.table(BLOBS)?.insert(key, b"value").map(drop)).expect("written");
    }
    drop(db);
    let mut bytes = std::fs::read(&path).expect("the file");
    let txn = |slot: usize| u64::from_le_bytes(bytes[slot * 4096 + 48..][..8].try_into().expect("8 bytes"));
    let newer = usize::from(txn(1) > txn(0));
    for copy in [newer * 4096, newer * 4096 + 2048] {
        bytes[copy + 60] ^= 1;
    }
    std::fs::write(&path, &bytes).expect("damaged");
    let db = mapleaf::Options::new().read_only(true).open(&path).expect("opens");
    assert_eq!(db.stats().expect("stats").entries, 1, "the older state");
    let report = db.check().expect("checked");
    assert!(report.is_clean(), "it is no damage of the older state: {:?}", report.findings);
    assert!(matches!(&report.remarks[..], [told] if told.page == Some(mapleaf::PageId(newer as u64))), "{report:?}");
    drop(db);
    assert!(Db::salvage(&path, dir.path().join("out")).expect("salvaged").is_loss());
}
