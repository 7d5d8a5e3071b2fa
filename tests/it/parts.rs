//! Parts, estimates and samples of tables, through all handles.

use mapleaf::{inspect, Db, ErrorKind, Options, PageId, ReadableTable, Result, Table};

use crate::support::TestDb;

const NAMES: Table<&str, u64> = Table::new("names");

fn name(number: u64) -> String {
    format!("user:{number:08}:name")
}

/// Compares parts, estimates and samples with what a scan finds.
fn compare_with_scan(table: &impl ReadableTable<&'static str, u64>) -> Result<()> {
    let all: Vec<(String, u64)> = table.range_owned(..)?.collect::<Result<_>>()?;
    for count in [1, 2, 5, 33] {
        let points = table.split_points(count)?;
        assert!(points.len() < count);
        assert!(points.as_bytes().zip(points.as_bytes().skip(1)).all(|(low, high)| low < high));
        assert_eq!(points.parts().len(), points.len() + 1);
        let mut found = Vec::new();
        for part in points.parts() {
            let before = found.len();
            for entry in table.part(&part) {
                let (name, number) = entry?;
                assert!(part.low().is_none_or(|low| low <= name.as_bytes()));
                assert!(part.high().is_none_or(|high| high > name.as_bytes()));
                found.push((name.to_string(), number));
            }
            let backwards = table.part(&part).rev().map(|entry| Ok(entry?.1)).collect::<Result<Vec<u64>>>()?;
            assert!(found[before..].iter().rev().map(|entry| entry.1).eq(backwards));
        }
        assert!(found == all, "the parts have every entry once, in order");
    }
    for low in (0..all.len()).step_by(97) {
        for high in (low..all.len()).step_by(501) {
            let estimate = table.estimate_range(all[low].0.as_str()..all[high].0.as_str())?;
            let counted = (high - low) as u64;
            assert!(estimate.at_least <= counted && counted <= estimate.at_most, "{estimate:?} of {counted}");
        }
    }
    assert_eq!(table.estimate_range(..)?.entries, table.len());
    let sample = table.sample_seeded(20, 5)?;
    assert_eq!(sample.len(), all.len().min(20));
    assert!(sample.iter().all(|(name, number)| all.iter().any(|(key, value)| key == name && value == number)));
    assert_eq!(sample, table.sample_seeded(20, 5)?);
    assert_eq!(table.sample(7)?.len(), all.len().min(7));
    Ok(())
}

#[test]
fn parts_estimates_and_samples_agree_with_a_scan_through_every_handle() {
    for page_size in [4096, 32768] {
        for db in TestDb::both(&Options::new().page_size(page_size)) {
            let txn = db.begin_write().expect("begins");
            compare_with_scan(&txn.read_table(NAMES).expect("a table that does not exist")).expect("empty");
            let mut names = txn.table(NAMES).expect("made");
            names.insert("one", 1).expect("stored");
            compare_with_scan(&names).expect("one entry");
            for number in 0..3000 {
                names.insert(&name(number * 7919 % 3000), number).expect("stored");
            }
            compare_with_scan(&names).expect("uncommitted");
            names.retain(|name, _| !name.ends_with("9:name")).expect("thinned out");
            compare_with_scan(&names).expect("uncommitted");
            drop(names);
            compare_with_scan(&txn.read_table(NAMES).expect("opened")).expect("uncommitted");
            txn.commit().expect("committed");
            let names = db.begin_read().and_then(|txn| txn.table(NAMES)).expect("opened");
            compare_with_scan(&names).expect("committed");
        }
    }
}

/// Every leaf is overwritten: anything that reads one fails.
#[test]
fn estimates_and_split_points_read_no_leaf() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("db.mapleaf");
    let db = Db::open(&path).expect("made");
    db.write(|txn| (0..20_000).try_for_each(|number| txn.table(NAMES)?.put(&name(number), number).map(drop)))
        .expect("written");
    let names = db.begin_read().and_then(|txn| txn.table(NAMES)).expect("opened");
    let estimate = names.estimate_range("user:00005"..).expect("whole");
    let points = names.split_points(10).expect("whole");
    let tree = names.txn().table_info("names").expect("read").expect("there").tree_id;
    let pages = db.stats().expect("stats").page_count;
    let is_leaf =
        |id: &u64| inspect::page(&db, PageId(*id)).is_ok_and(|page| page.tree_id == tree && page.kind == "leaf");
    let leaves: Vec<u64> = (2..pages).filter(is_leaf).collect();
    assert!(leaves.len() > 100, "{}", leaves.len());
    drop((names, db));
    let mut bytes = std::fs::read(&path).expect("the file");
    for leaf in leaves {
        bytes[leaf as usize * 4096..][..4096].fill(0xEE);
    }
    std::fs::write(&path, bytes).expect("damaged");
    let db = Options::new().read_only(true).open(&path).expect("opens");
    let names = db.begin_read().and_then(|txn| txn.table(NAMES)).expect("opened");
    assert_eq!(names.estimate_range("user:00005"..).expect("no leaf is needed"), estimate);
    assert_eq!(names.split_points(10).expect("no leaf is needed"), points);
    let e = names.first().expect_err("damaged");
    assert_eq!(e.kind(), ErrorKind::Corrupt);
    let e = names.sample(3).expect_err("damaged");
    assert_eq!(e.kind(), ErrorKind::Corrupt);
    assert!(e.to_string().contains("'names'"), "{e}");
}
