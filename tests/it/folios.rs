//! Large folios in the page cache, in which one store dirties up to 2 MiB. Mapleaf detects and
//! replaces those that another program has caused, and its own read-ahead causes none. So a commit
//! writes only the pages that it changed.

use std::path::Path;
use std::process::Command;

use mapleaf::{Db, Result, Table};

use crate::reexec;
use crate::support::{bytes, pages_written_by, Rng};

const DATA: Table<u64, &[u8]> = Table::new("data");
const KEYS: u64 = 30_000;
const COMMITS: u64 = 400;
/// Pages of the commit log that the record of such a commit takes.
const LOG_PAGES: u64 = 2;

/// Bytes that this process has dirtied in the page cache. The kernel counts a whole folio.
fn dirtied_bytes() -> u64 {
    let io = std::fs::read_to_string("/proc/self/io").expect("the system counts");
    let line = io.lines().find_map(|line| line.strip_prefix("write_bytes: "));
    line.and_then(|bytes| bytes.parse().ok()).expect("a number")
}

fn insert(db: &Db, keys: impl IntoIterator<Item = u64>, version: u64) -> Result<u64> {
    let txn = db.begin_write()?;
    let id = txn.txn_id();
    for key in keys {
        txn.table(DATA)?.insert(key, &bytes(key ^ version << 32, 1500))?;
    }
    txn.commit()?;
    Ok(id)
}

/// Drops the file from the page cache, as a restart does.
fn make_cold(path: &Path) {
    let nocache =
        [&format!("of={}", path.display()), "oflag=nocache", "conv=notrunc,fdatasync", "count=0", "status=none"];
    assert!(Command::new("dd").args(nocache).status().expect("dd").success());
}

/// Reads everything in each way that uses read-ahead.
fn read_cold(path: &Path) -> Result<()> {
    for kind in 0..4 {
        make_cold(path);
        let rows = Db::open(path)?.begin_read()?.table(DATA)?;
        match kind {
            0 => assert_eq!(rows.iter().count() as u64, KEYS),
            1 => assert_eq!(rows.iter().rev().count() as u64, KEYS),
            2 => assert!(rows.multi_get((0..KEYS).map(|key| key * 7 % KEYS))?.iter().all(Option::is_some)),
            _ => (0..KEYS).try_for_each(|key| rows.get(key * 7 % KEYS).map(|value| assert!(value.is_some())))?,
        }
    }
    Ok(())
}

/// The child, which has its own counters. Prints the bytes that commits dirtied and the pages that
/// they wrote.
#[test]
fn committing_child() {
    let Some(arguments) = reexec::arguments() else { return };
    let path = Path::new(&arguments[0]);
    Db::open(path).and_then(|db| insert(&db, 0..KEYS, 0)).expect("loaded");
    if arguments[1].is_empty() {
        read_cold(path).expect("read");
    }
    let db = Db::open(path).expect("open");
    if !arguments[1].is_empty() {
        // Another program copies the open file, no page of which was in memory.
        make_cold(path);
        assert!(Command::new("cp").args([&arguments[0], &arguments[1]]).status().expect("cp").success());
    }
    let mut rng = Rng::new(7);
    // These make the commit log.
    for key in 0..5 {
        insert(&db, [key], 0).expect("commit");
    }
    let (before, mut pages) = (dirtied_bytes(), 0);
    for version in 1..=COMMITS {
        let id = insert(&db, (0..5).map(|_| rng.below(KEYS)), version).expect("commit");
        if version % 100 == 1 {
            // The pages of the transaction, and the meta page.
            pages += 100 * (pages_written_by(&db, id) + LOG_PAGES);
        }
    }
    let dirtied = dirtied_bytes() - before;
    assert!(db.check().expect("check").is_clean());
    reexec::answer(&format!("{dirtied} {pages}"));
}

/// Bytes that commits dirty per page that they write, after a copy or after cold reads.
fn dirtied_per_page(path: &Path, copy: &Path) -> f64 {
    let mut child = reexec::start(reexec::command("folios::committing_child", &[&path, &copy]));
    let said = child.line().expect("a child that lives");
    child.finish();
    let numbers: Vec<u64> = said.split(' ').map(|number| number.parse().expect("a number")).collect();
    let per_page = numbers[0] as f64 / numbers[1] as f64;
    println!("{} bytes dirtied for {} pages changed: {per_page:.0} bytes a page", numbers[0], numbers[1]);
    per_page
}

#[test]
fn commits_write_little_more_than_they_change_after_the_live_file_was_copied() {
    let dir = tempfile::tempdir().expect("a directory");
    let per_page = dirtied_per_page(&dir.path().join("live.mapleaf"), &dir.path().join("copy"));
    assert!(per_page <= 1.5 * 4096.0, "{per_page:.0} bytes a page");
}

/// Reading ahead keeps the page cache in single pages.
#[test]
fn commits_write_little_more_than_they_change_after_cold_reads() {
    let dir = tempfile::tempdir().expect("a directory");
    let per_page = dirtied_per_page(&dir.path().join("cold.mapleaf"), Path::new(""));
    assert!(per_page <= 1.5 * 4096.0, "{per_page:.0} bytes a page");
}
