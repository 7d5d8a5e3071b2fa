//! Files whose pages have right checksums but contradict each other: this is an error or a finding,
//! never a panic, and writing never adds damage. Also errors of flushes and block allocation.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::path::Path;
use std::sync::Arc;

use mapleaf::testing::{self, FlushEvent, FlushKind, Hooks};
use mapleaf::{inspect, Db, ErrorKind, PageId, Table};

use crate::support::{self, Rng};

const PAGE: usize = 4096;

fn u32_at(bytes: &[u8], at: usize) -> usize {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes")) as usize
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"))
}

/// Offset of the newest meta page.
fn newest(bytes: &[u8]) -> usize {
    if u64_at(bytes, 48) > u64_at(bytes, PAGE + 48) {
        0
    } else {
        PAGE
    }
}

/// A directory in memory, if there is one.
fn fast_dir() -> tempfile::TempDir {
    let shm = Path::new("/dev/shm");
    if shm.is_dir() { tempfile::tempdir_in(shm) } else { tempfile::tempdir() }.expect("a directory")
}

/// Some tables, one with a single leaf; values in overflow extents; a free list and free extents.
fn database() -> Vec<u8> {
    let dir = fast_dir();
    let path = dir.path().join("db");
    let db = Db::open(&path).expect("open");
    for round in 0..6u32 {
        db.write(|txn| {
            let mut table = txn.create_table("many", "bytes", "bytes")?;
            for key in 0..400u32 {
                table.insert(&(key * 7919 % 400).to_be_bytes(), &support::bytes(u64::from(round), 60))?;
            }
            let mut table = txn.create_table("large", "bytes", "bytes")?;
            for key in 0..6u32 {
                table.insert(&key.to_be_bytes(), &support::bytes(u64::from(key), 3000 + 2500 * key as usize))?;
            }
            let mut table = txn.create_table("small", "bytes", "bytes")?;
            table.insert(&round.to_be_bytes(), b"value")?;
            Ok::<_, mapleaf::Error>(())
        })
        .expect("written");
    }
    db.write(|txn| {
        let mut table = txn.bytes_table("many")?;
        for key in 100..250u32 {
            table.remove(&key.to_be_bytes())?;
        }
        txn.bytes_table("large")?.remove(&3u32.to_be_bytes()).map(drop)
    })
    .expect("removed");
    drop(db);
    std::fs::read(&path).expect("to read it")
}

/// The root of the table "small": a leaf.
fn small_leaf(path: &Path) -> u64 {
    let db = Db::open(path).expect("open");
    let tables = db.begin_read().expect("read").tables().expect("tables");
    let tree = tables.iter().find(|table| table.name == "small").map(|table| table.tree_id).expect("the table");
    let count = db.stats().expect("stats").page_count;
    let of = |id| inspect::page(&db, PageId(id)).is_ok_and(|page| page.tree_id == tree && page.kind == "leaf");
    let mut leaves: Vec<_> = (2..count).filter(|&id| of(id)).collect();
    leaves.sort_by_key(|&id| inspect::page(&db, PageId(id)).map(|page| page.txn).unwrap_or(0));
    leaves.pop().expect("a leaf")
}

#[test]
fn a_used_page_that_free_space_lists_is_damage_and_is_not_overwritten() {
    let mut bytes = database();
    let dir = fast_dir();
    let path = dir.path().join("db");
    std::fs::write(&path, &bytes).expect("to write it");
    let leaf = small_leaf(&path);
    let list = u32_at(&bytes, newest(&bytes) + 112) * PAGE;
    bytes[list + 32..list + 36].copy_from_slice(&1u32.to_le_bytes());
    let item = list + 40;
    bytes[item..item + 24].fill(0);
    bytes[item..item + 6].copy_from_slice(&leaf.to_le_bytes()[..6]);
    bytes[item + 6] = 1;
    testing::seal_file(&mut bytes);
    std::fs::write(&path, &bytes).expect("to write it");
    let db = Db::open(&path).expect("open");
    assert!(!db.check().expect("check").is_clean(), "check finds it");
    let e = db.write(|txn| txn.bytes_table("small")?.insert(b"k", b"v").map(drop)).expect_err("refused");
    assert_eq!(e.kind(), ErrorKind::Corrupt, "{e}");
    // No store may hit a page that the committed state reaches (R1).
    drop(db);
    let page = leaf as usize * PAGE..(leaf as usize + 1) * PAGE;
    assert!(std::fs::read(&path).expect("to read it")[page.clone()] == bytes[page], "page {leaf} changed");
}

#[test]
fn at_the_last_transaction_number_writes_are_refused_and_no_data_is_lost() {
    let dir = fast_dir();
    let path = dir.path().join("db");
    let mut bytes = database();
    let at = newest(&bytes);
    for copy in [at, at + PAGE / 2] {
        bytes[copy + 48..copy + 56].copy_from_slice(&((1u64 << 48) - 1).to_le_bytes());
    }
    testing::seal_file(&mut bytes);
    std::fs::write(&path, &bytes).expect("to write it");
    let db = Db::open(&path).expect("open");
    assert!(db.begin_write().is_err(), "there is no number for another transaction");
    assert!(db.try_begin_write().is_err(), "and the writer lock was given back");
    assert!(db.begin_read().is_ok());
    drop(db);
    assert_eq!(Db::open(&path).expect("open").stats().expect("stats").txn, (1 << 48) - 1);
}

#[test]
fn an_impossible_entry_count_is_damage_and_not_an_overflow() {
    let dir = fast_dir();
    let path = dir.path().join("db");
    let mut bytes = database();
    let catalog = u32_at(&bytes, newest(&bytes) + 64) * PAGE;
    let leaf = catalog..catalog + PAGE;
    // All records end with the two codec names, `bytes` each; the entries stand before them.
    let names = b"\x05\0bytes\x05\0bytes";
    let ends: Vec<usize> =
        bytes[leaf].windows(names.len()).enumerate().filter(|(_, w)| w == names).map(|(at, _)| at).collect();
    assert!(ends.len() >= 3, "{ends:?}");
    for end in ends {
        bytes[catalog + end - 8..catalog + end].fill(0xff);
    }
    testing::seal_file(&mut bytes);
    std::fs::write(&path, &bytes).expect("to write it");
    let db = Db::open(&path).expect("open");
    assert!(!db.check().expect("check").is_clean());
    let _no_panic = db.stats();
    for append in [false, true] {
        let done = db.write(|txn| {
            let mut table = txn.bytes_table("small")?;
            match append {
                true => table.append(b"\xff\xff\xff\xff\xff", b"v"),
                false => table.insert(b"new", b"v").map(drop),
            }
        });
        assert_eq!(done.expect_err("refused").kind(), ErrorKind::Corrupt);
    }
}

/// Fails flushes of one kind as a full disk does.
struct FullDisk(FlushKind);

impl Hooks for FullDisk {
    fn before_flush(&self, event: &FlushEvent<'_>) -> io::Result<()> {
        if event.kind == self.0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }
}

#[test]
fn a_flush_that_fails_on_a_full_disk_poisons_and_is_not_reported_as_disk_full() {
    for kind in [FlushKind::Tree, FlushKind::MetaPage] {
        let db = Db::open(fast_dir().path().join("db")).expect("open");
        testing::set_hooks(&db, Arc::new(FullDisk(kind)));
        let e = db.write(|txn| txn.bytes_table("t")?.insert(b"k", b"v").map(drop)).expect_err("fails");
        // `DiskFull` says that the transaction was aborted and that the database goes on.
        assert_ne!(e.kind(), ErrorKind::DiskFull, "{kind:?}: {e}");
        assert_eq!(db.begin_read().expect_err("poisoned").kind(), ErrorKind::Poisoned);
    }
}

#[test]
fn holes_get_blocks_before_pages_are_stored_to_them() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("db");
    drop(Db::open(&path).expect("open"));
    // A file that a killed process left longer than its state, copied by a program that keeps
    // holes.
    let len = 8 << 20;
    std::fs::File::options().write(true).open(&path).and_then(|file| file.set_len(len)).expect("longer");
    let db = Db::open(&path).expect("open");
    db.write(|txn| txn.bytes_table("t")?.insert(b"k", b"v").map(drop)).expect("written");
    let found = std::fs::metadata(&path).expect("metadata");
    assert!(found.blocks() * 512 >= found.len(), "{} of {} bytes have blocks", found.blocks() * 512, found.len());
}

#[test]
fn owned_ranges_return_the_entries_before_damage_as_ranges_do() {
    const TEXT: Table<u32, &str> = Table::new("text");
    let db = Db::in_memory().expect("open");
    db.write(|txn| {
        let mut table = txn.table(TEXT)?;
        for key in 0..200 {
            table.insert(key, "text")?;
        }
        drop(table);
        txn.bytes_table("text")?.insert(&100u32.to_be_bytes(), b"\xff").map(drop)
    })
    .expect("written");
    let table = db.begin_read().expect("read").table(TEXT).expect("table");
    let borrowed = table.iter().take_while(|entry| entry.is_ok()).count();
    assert_eq!(borrowed, 100);
    assert_eq!(table.range_owned(..).expect("range").take_while(|entry| entry.is_ok()).count(), borrowed);
    let behind = table.range_owned(..).expect("range").rev().take_while(|entry| entry.is_ok()).count();
    assert_eq!(behind, 99);
}

/// Reads and writes as much as possible; errors are allowed.
fn work(path: &Path, rng: &mut Rng) {
    let Ok(db) = Db::open(path) else { return };
    let _report = db.check();
    let _stats = db.stats();
    let snapshot = db.begin_read();
    for _ in 0..3 {
        let done: Result<(), mapleaf::Error> = db.write(|txn| {
            for _ in 0..1 + rng.below(12) {
                let name = ["many", "large", "small", "new"][rng.below(4) as usize];
                match rng.below(12) {
                    0 => drop(txn.drop_table(name)?),
                    1 => txn.rename_table(name, "other")?,
                    2 => txn.bytes_table(name)?.append(b"\xff\xff\xff", b"last")?,
                    3 => {
                        let mut table = txn.bytes_table(name)?;
                        for key in 0..150u32 {
                            table.remove(&key.to_be_bytes())?;
                        }
                    }
                    4..=6 => {
                        let mut table = txn.bytes_table(name)?;
                        for _ in 0..60 {
                            table.insert(&(rng.below(500) as u32).to_be_bytes(), &[7; 90])?;
                        }
                    }
                    7 => drop(txn.bytes_table(name)?.insert(&[1, 2, 3], &[9; 9000])?),
                    8 => drop(txn.bytes_table(name)?.iter().rev().take(1000).count()),
                    _ => drop(txn.bytes_table(name)?.remove(&(rng.below(500) as u32).to_be_bytes())?),
                }
            }
            Ok(())
        });
        drop(done);
    }
    drop(snapshot);
    let _report = db.check();
}

/// Replaces a number that may be a page id by another page id, or by a small number.
fn damage(bytes: &mut [u8], rng: &mut Rng) {
    let pages = bytes.len() as u64 / PAGE as u64;
    let list = u32_at(bytes, newest(bytes) + 112);
    let page = if rng.below(3) == 0 { list } else { 2 + rng.below(pages - 2) as usize } * PAGE;
    let kind = bytes[page + 4];
    let count = u64::from(u16::from_le_bytes([bytes[page + 6], bytes[page + 7]])).clamp(1, 200);
    let at = match (kind, rng.below(3)) {
        (4, _) => {
            page + 40
                + 24 * rng.below(u32_at(bytes, page + 32).clamp(1, 100) as u64) as usize
                + 6 * rng.below(4) as usize
        }
        (2, 0 | 1) => page + 128 + (6 * count + 10 * rng.below(count)) as usize,
        (_, 0) => page + [6, 8, 10, 12, 16, 22][rng.below(6) as usize],
        (_, 1) => page + PAGE - 40 + rng.below(34) as usize,
        _ => page + rng.below(PAGE as u64 - 6) as usize,
    };
    match rng.below(4) {
        0 => bytes[at] = rng.next() as u8,
        1 => bytes[at] = bytes[at].wrapping_add(1),
        2 => bytes[at..at + 6].copy_from_slice(&(2 + rng.below(pages)).to_le_bytes()[..6]),
        _ => bytes[at..at + 6].fill(0xff),
    }
}

#[test]
fn writing_to_contradictory_files_never_panics() {
    let bytes = database();
    let dir = fast_dir();
    let path = dir.path().join("db");
    let seed = support::seed("writing_to_files_that_lie_never_panics");
    for round in 0..3000 * u64::from(support::long()) {
        let mut rng = Rng::new(support::mix(seed) ^ round);
        let mut damaged = bytes.clone();
        for _ in 0..1 + rng.below(3) {
            damage(&mut damaged, &mut rng);
        }
        testing::seal_file(&mut damaged);
        std::fs::write(&path, &damaged).expect("to write it");
        let worked = catch_unwind(AssertUnwindSafe(|| work(&path, &mut rng)));
        assert!(worked.is_ok(), "seed {seed}, round {round}");
    }
}
