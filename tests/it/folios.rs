//! A page cache that another program has filled with large folios, in which a store dirties up to 2 MiB: it is noticed and
//! mended, so that commits go on writing what they changed.

use std::path::Path;
use std::process::Command;

use mapleaf::{Db, Result, Table};

use crate::reexec;
use crate::support::{bytes, pages_written_by, Rng};

const DATA: Table<u64, &[u8]> = Table::new("data");
const KEYS: u64 = 30_000;
const COMMITS: u64 = 400;

/// Bytes that this process has dirtied in page caches. A folio counts as a whole.
fn dirtied_bytes() -> u64 {
    let io = std::fs::read_to_string("/proc/self/io").expect("the system counts");
    let line = io.lines().find_map(|line| line.strip_prefix("write_bytes: "));
    line.and_then(|bytes| bytes.parse().ok()).expect("a number")
}

fn insert(db: &Db, keys: impl IntoIterator<Item = u64>, version: u64) -> Result<u64> {
    let mut txn = db.begin_write()?;
    let id = txn.txn_id();
    for key in keys {
        txn.table(DATA)?.insert(key, &bytes(key ^ version << 32, 1500))?;
    }
    txn.commit()?;
    Ok(id)
}

/// In a process of its own, for its counters. Says bytes dirtied per commit before and after the copy, and pages written.
#[test]
fn child() {
    let Some(arguments) = reexec::arguments() else { return };
    let path = Path::new(&arguments[0]);
    Db::open(path).and_then(|db| insert(&db, 0..KEYS, 0)).expect("loaded");
    // As after a restart: nothing of the file is in memory. Then somebody copies it while it is open.
    let nocache =
        [&format!("of={}", path.display()), "oflag=nocache", "conv=notrunc,fdatasync", "count=0", "status=none"];
    assert!(Command::new("dd").args(nocache).status().expect("dd").success());
    let db = Db::open(path).expect("open");
    assert!(Command::new("cp").args([&arguments[0], &arguments[1]]).status().expect("cp").success());
    let mut rng = Rng::new(7);
    let (before, mut pages) = (dirtied_bytes(), 0);
    for version in 1..=COMMITS {
        let id = insert(&db, (0..5).map(|_| rng.below(KEYS)), version).expect("commit");
        if version % 100 == 1 {
            // Each page that the transaction wrote, and the meta.
            pages += 100 * (pages_written_by(&db, id) + 1);
        }
    }
    let dirtied = dirtied_bytes() - before;
    assert!(db.check().expect("check").is_clean());
    reexec::answer(&format!("{dirtied} {pages}"));
}

#[test]
fn commits_write_little_more_than_they_change_after_the_live_file_was_copied() {
    let dir = tempfile::tempdir().expect("a directory");
    let (path, copy) = (dir.path().join("live.mapleaf"), dir.path().join("copy"));
    let mut child = reexec::start(reexec::command("folios::child", &[&path, &copy]));
    let said = child.line().expect("a child that lives");
    child.finish();
    let numbers: Vec<u64> = said.split(' ').map(|number| number.parse().expect("a number")).collect();
    let per_page = numbers[0] as f64 / numbers[1] as f64;
    println!("{} bytes dirtied for {} pages changed: {per_page:.0} bytes a page", numbers[0], numbers[1]);
    assert!(per_page <= 1.5 * 4096.0, "{per_page:.0} bytes a page");
}
