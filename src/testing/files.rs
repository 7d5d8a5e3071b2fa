//! Fuzzing of files: takes any bytes as a database file, opens it, reads all of it and writes to
//! it.
//!
//! Floor: testing. No file may cause a panic, a signal or an endless loop. Opening must not change
//! a file that it refuses. A file that `check` calls clean must behave like one. The checksums of a
//! changed file are corrected, so that they do not hide the change.

use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use crate::db::{Db, Finding, Options};
use crate::error::Result;
use crate::limits::PAGE_SIZE_MIN;
use crate::page::layout::meta as at;
use crate::page::meta::MetaPage;
use crate::table::TableInfo;
use crate::testing::input::{filled, Input};
use crate::testing::seal::seal_file;
use crate::testing::temp_path::TempPath;
use crate::testing::{with_log_shape, without_log};
use crate::txn::read::snapshot::ReadTxn;
use crate::txn::write::shared::WriteTxn;

/// Entries of a table that are read, and those of them that are also looked up.
const ENTRIES_MAX: usize = 10_000;
const GETS_MAX: usize = 64;

/// Opens bytes as a database file and uses it. Bytes that begin like a database are the file. Other
/// bytes say which of the [`sample_files`] to change, and how.
pub fn fuzz_open(data: &[u8]) {
    let (mut file, sealed) = if data.starts_with(&at::MAGIC_BYTES[..1]) {
        (data.to_vec(), true)
    } else {
        changed_sample(&mut Input::new(data))
    };
    if sealed {
        seal_file(&mut file);
    }
    let path = TempPath::new();
    if fs::write(&path.0, &file).is_err() {
        return;
    }
    let clean = use_read_only(&path.0);
    repair(&path.0, clean == Some(true));
    assert!(fs::read(&path.0).is_ok_and(|after| after == file), "reading changed the file");
    match Options::new().create(false).open(&path.0) {
        Ok(db) => use_for_writing(&db, clean == Some(true), &file),
        Err(_) => {
            assert!(fs::read(&path.0).is_ok_and(|after| after == file), "a refused file changed");
            assert_ne!(clean, Some(true), "a clean file opens for writing");
        }
    }
}

/// Previews a recovery, and salvages the file. The salvaged database must be whole. From a clean
/// file, nothing may be lost.
fn repair(path: &Path, clean: bool) {
    let preview = Db::recover_preview(path);
    assert!(!clean || preview.as_ref().is_ok_and(|report| !report.is_loss()), "a clean file: {preview:?}");
    let out = TempPath::new();
    match Db::salvage(path, &out.0) {
        Ok(report) => {
            // A meta slot that cannot be read may have held a newer state. Nothing else of a clean
            // file may be lost.
            let beside = |finding: &Finding| finding.page.is_some_and(|page| page.0 < 2);
            assert!(!clean || report.lost.iter().all(beside), "of a clean file all is there: {report:?}");
            let saved = Db::open_existing(&out.0).and_then(|db| db.check());
            assert!(saved.as_ref().is_ok_and(|report| report.is_clean()), "what was salvaged is whole: {saved:?}");
        }
        Err(e) => {
            let options = Options::new().read_only(true).create(false);
            let empty = || options.open(path).and_then(|db| db.stats()).is_ok_and(|stats| stats.entries == 0);
            assert!(!clean || empty(), "a clean file can be salvaged: {e}");
        }
    }
}

/// A sample with changes, and whether its checksums are to be corrected.
fn changed_sample(input: &mut Input<'_>) -> (Vec<u8>, bool) {
    let first = input.byte();
    let samples = sample_files();
    let mut file = samples[usize::from(first & 7) % samples.len()].clone();
    while !input.is_empty() {
        change(&mut file, input);
    }
    // Only few runs keep the wrong checksums: other tests flip each byte.
    (file, first & 0x78 != 0x78)
}

/// One change: a byte anywhere, a number in a header or an array, a meta page's field, a page
/// elsewhere, another length.
fn change(file: &mut Vec<u8>, input: &mut Input<'_>) {
    let pages = (file.len() / PAGE_SIZE_MIN).max(1);
    let page = |input: &mut Input<'_>| input.u16() % pages * PAGE_SIZE_MIN;
    let what = input.byte();
    let (offset, bytes) = match what % 8 {
        0 => (input.u32() % file.len().max(1), input.take(1)),
        1 => (page(input) + usize::from(input.byte() % 32), input.take(1)),
        2 => (page(input) + 2 * usize::from(input.byte()), input.take(2)),
        3 => (page(input) + input.u16() % PAGE_SIZE_MIN, input.take(2)),
        4 => {
            // All four copies of the meta page get the same bytes.
            let (offset, bytes) = (usize::from(input.byte()), input.take(usize::from(what >> 3) % 8 + 1));
            for copy in 0..3 {
                put(file, copy * PAGE_SIZE_MIN / 2 + offset, bytes);
            }
            (3 * PAGE_SIZE_MIN / 2 + offset, bytes)
        }
        5 => {
            let (from, to) = (page(input), page(input));
            if from.max(to) + PAGE_SIZE_MIN <= file.len() {
                file.copy_within(from..from + PAGE_SIZE_MIN, to);
            }
            return;
        }
        6 => {
            file.truncate(input.u32() % file.len().max(1));
            return;
        }
        _ => (page(input) + input.u16() % PAGE_SIZE_MIN, input.take(usize::from(what >> 3) + 1)),
    };
    put(file, offset, bytes);
}

fn put(file: &mut [u8], offset: usize, bytes: &[u8]) {
    if let Some(target) = file.get_mut(offset..offset + bytes.len()) {
        target.copy_from_slice(bytes);
    }
}

/// Opens a file read-only and reads everything. `Some` if it opened: whether `check` calls it
/// clean.
fn use_read_only(path: &Path) -> Option<bool> {
    let db = Options::new().read_only(true).create(false).open(path).ok()?;
    Some(read_all(&db))
}

/// Reads everything. Returns whether `check` calls the file clean. If so, nothing may be an error,
/// and all ways of reading must agree.
fn read_all(db: &Db) -> bool {
    let clean = db.check().is_ok_and(|report| report.is_clean());
    let stats = db.stats();
    assert!(!clean || stats.is_ok(), "clean, and {stats:?}");
    let Ok(txn) = db.begin_read() else { return clean };
    let tables = txn.tables();
    assert!(!clean || tables.is_ok(), "clean, and {tables:?}");
    for table in tables.unwrap_or_default() {
        let read = read_any(&txn, &table, clean);
        assert!(!clean || read.is_ok(), "clean, and {read:?}");
    }
    let snapshots = db.snapshots();
    assert!(!clean || snapshots.is_ok(), "clean, and {snapshots:?}");
    for snapshot in snapshots.unwrap_or_default() {
        let read = read_snapshot(db, &snapshot.name, clean);
        assert!(!clean || read.is_ok(), "clean, and {read:?}");
    }
    clean
}

fn read_snapshot(db: &Db, name: &str, clean: bool) -> Result<()> {
    let txn = db.read_snapshot(name)?;
    for table in txn.tables()? {
        read_any(&txn, &table, clean)?;
    }
    Ok(())
}

/// Restores and drops all named snapshots. If the file was clean, it must be clean after each step.
fn change_snapshots(db: &Db, clean: bool) {
    let Ok(snapshots) = db.snapshots() else { return };
    for snapshot in snapshots {
        for changed in [db.restore_snapshot(&snapshot.name), db.drop_snapshot(&snapshot.name)] {
            assert!(!clean || changed.is_ok(), "clean, and {changed:?}");
            assert!(!clean || read_all(db), "clean before, and not after a snapshot: {:?}", db.check());
        }
    }
}

fn read_any(txn: &ReadTxn, table: &TableInfo, clean: bool) -> Result<()> {
    match table.is_multimap {
        true => read_pairs(txn, &table.name, clean),
        false => read_table(txn, &table.name, clean),
    }
}

/// Reads a multimap. If the file is clean, both directions, counts and look-ups agree.
fn read_pairs(txn: &ReadTxn, name: &str, clean: bool) -> Result<()> {
    let table = txn.multi_bytes_table(name)?;
    let forward: Vec<_> = table.iter().take(ENTRIES_MAX).collect();
    let mut backward: Vec<_> = table.iter().rev().take(ENTRIES_MAX).collect();
    let mut keys: Vec<&[u8]> = forward.iter().filter_map(|pair| pair.as_ref().ok()).map(|pair| pair.0).collect();
    keys.dedup();
    for &key in keys.iter().take(GETS_MAX) {
        let values = table.values(key).and_then(|values| values.take(ENTRIES_MAX).collect::<Result<Vec<_>>>());
        let count = table.count(key);
        if clean {
            let values = values?;
            assert_eq!(values.len() as u64, count?, "{key:?}");
            assert!(values.windows(2).all(|pair| pair[0] < pair[1]), "values ascend");
            assert!(table.contains(key, values.first().copied().unwrap_or_default())?, "{key:?}");
        }
        let _near = (table.contains(key, b"\x80"), table.count(&key[..key.len() / 2]));
    }
    let _ends = (table.first(), table.last(), table.count(b"\xff\xff\xff\xff\xff"));
    if clean {
        let forward = forward.into_iter().collect::<Result<Vec<_>>>()?;
        assert_eq!((forward.len() as u64, keys.len() as u64), (table.len(), table.key_count()));
        backward.reverse();
        assert_eq!(backward.into_iter().collect::<Result<Vec<_>>>()?, forward);
    }
    Ok(())
}

fn read_table(txn: &ReadTxn, name: &str, clean: bool) -> Result<()> {
    let table = txn.bytes_table(name)?;
    let forward: Vec<_> = table.iter().take(ENTRIES_MAX).collect();
    let mut backward: Vec<_> = table.iter().rev().take(ENTRIES_MAX).collect();
    for (key, value) in forward.iter().filter_map(|item| item.as_ref().ok()).take(GETS_MAX) {
        let found = table.get(key);
        if clean {
            assert_eq!(found?, Some(*value), "{key:?}");
        }
        let _near = (table.range(*key..).map(|mut range| range.next().is_some()), table.get(&key[..key.len() / 2]));
    }
    let _ends = (table.first(), table.last(), table.get(b"\xff\xff\xff\xff\xff"));
    if clean {
        let forward = forward.into_iter().collect::<Result<Vec<_>>>()?;
        assert_eq!(forward.len() as u64, table.len());
        backward.reverse();
        assert_eq!(backward.into_iter().collect::<Result<Vec<_>>>()?, forward);
        assert!(forward.windows(2).all(|pair| pair[0].0 < pair[1].0), "keys ascend");
    }
    Ok(())
}

/// Reads everything, then changes entries in every way. If the file was clean, it must be clean
/// after each commit.
fn use_for_writing(db: &Db, clean: bool, file: &[u8]) {
    assert_eq!(read_all(db), clean, "opened for writing it is what it was read-only");
    let seed = file.iter().fold(0u8, |sum, &byte| sum.wrapping_mul(31).wrapping_add(byte));
    for round in 0..3 {
        let committed = db.begin_write().and_then(|mut txn| {
            change_all(&mut txn, seed, round)?;
            txn.commit()
        });
        if clean && committed.is_ok() {
            assert!(read_all(db), "clean before, and not after a transaction: {:?}", db.check());
        }
        if committed.is_err() {
            break;
        }
    }
    change_snapshots(db, clean);
    read_all(db);
}

/// Inserts, overwrites, deletes and drops in up to four tables.
fn change_all(txn: &mut WriteTxn, seed: u8, round: usize) -> Result<()> {
    let tables: Vec<TableInfo> = txn.tables()?.into_iter().take(4).collect();
    for (index, TableInfo { name, is_multimap, .. }) in tables.iter().enumerate() {
        if *is_multimap {
            change_pairs(txn, name, round)?;
            continue;
        }
        let Ok(mut table) = txn.bytes_table(name) else { continue };
        let keys = some_keys(table.iter());
        for (at, key) in keys.iter().enumerate() {
            match (at + index + round) % 3 {
                0 => drop(table.remove(key)?),
                1 => drop(table.insert(key, &filled(seed, at * 40))?),
                _ => drop(table.insert(&[key.as_slice(), b"+"].concat()[..key.len().min(990) + 1], b"new")?),
            }
        }
        if index == round {
            txn.drop_table(name)?;
        }
    }
    let mut table = txn.bytes_table("fuzz")?;
    table.insert(b"small", b"value")?;
    table.insert(b"large", &filled(seed, 20_000))?;
    Ok(())
}

/// Removes values and keys of a multimap, and gives keys more values.
fn change_pairs(txn: &WriteTxn, name: &str, round: usize) -> Result<()> {
    let Ok(mut table) = txn.multi_bytes_table(name) else { return Ok(()) };
    let pairs = table.iter().take(600).map_while(|pair| pair.ok().map(|(key, value)| (key.to_vec(), value.to_vec())));
    let pairs: Vec<(Vec<u8>, Vec<u8>)> = pairs.step_by(3).collect();
    for (at, (key, value)) in pairs.iter().enumerate() {
        match (at + round) % 4 {
            0 | 1 => drop(table.remove(key, value)?),
            2 => {
                // Of the same size, so that tables of values of one size take it.
                let other: Vec<u8> = value.iter().map(|byte| byte.wrapping_add(1)).collect();
                table.insert(key, &other)?;
            }
            _ if at % 16 == 3 => drop(table.remove_all(key)?),
            _ => drop(table.insert(&[at as u8], value)?),
        }
    }
    Ok(())
}

fn some_keys<'a>(entries: impl Iterator<Item = Result<(&'a [u8], &'a [u8])>>) -> Vec<Vec<u8>> {
    entries.take(200).map_while(|item| Some(item.ok()?.0.to_vec())).step_by(3).collect()
}

/// Small databases that together contain everything that a file can contain: several tables, trees
/// of one to three levels, long keys and separators, overflow extents, multimaps with value sets
/// and value trees, a free list, a free-space tree. A change names one of them by three bits.
pub fn sample_files() -> &'static [Vec<u8>] {
    static SAMPLES: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    SAMPLES.get_or_init(|| {
        let samples = [of_everything, of_long_keys, of_free_space, |_: &Db| Ok(())];
        let closed = samples.iter().filter_map(|fill| without_log(|| sample(*fill)).ok());
        let log = with_log_shape(Some((1, 8 * PAGE_SIZE_MIN as u64)), sample_of_log).ok();
        let others = [of_snapshots, of_multimaps, of_overflowing_keys];
        let others = others.iter().filter_map(|fill| without_log(|| sample(*fill)).ok());
        closed.chain(log).chain(others).collect()
    })
}

fn sample(fill: fn(&Db) -> Result<()>) -> Result<Vec<u8>> {
    let path = TempPath::new();
    let db = Options::new().open(&path.0)?;
    fill(&db)?;
    drop(db);
    Ok(fs::read(&path.0).unwrap_or_default())
}

/// The file that a crash leaves of a database whose commit log has gone around once.
fn sample_of_log() -> Result<Vec<u8>> {
    let path = TempPath::new();
    let db = Options::new().open(&path.0)?;
    for round in 0..12u8 {
        let txn = db.begin_write()?;
        for number in 0..20 {
            txn.bytes_table("numbers")?.insert(&[number, round % 3], &filled(round, 30))?;
        }
        txn.bytes_table("words")?.remove_range(&[round][..]..&[round + 3][..])?;
        txn.bytes_table("words")?.insert(&[round], b"word")?;
        txn.commit()?;
    }
    let mut file = fs::read(&path.0).unwrap_or_default();
    // The pages of the newest state, without the blocks reserved for growth.
    let needed = [0, PAGE_SIZE_MIN].map(|at| MetaPage::decode_copy(&file[at..]).map_or(0, |meta| meta.page_count));
    file.truncate(needed[0].max(needed[1]) as usize * PAGE_SIZE_MIN);
    Ok(file)
}

fn of_everything(db: &Db) -> Result<()> {
    let txn = db.begin_write()?;
    for number in 0..300u16 {
        txn.bytes_table("numbers")?.insert(&number.to_be_bytes(), format!("number {number}").as_bytes())?;
    }
    for number in 0..10 {
        txn.bytes_table("words")?.insert(&filled(b'a' + number, 5), &filled(number, 90 * usize::from(number)))?;
    }
    txn.bytes_table("large")?.insert(b"one page", &filled(1, 3000))?;
    txn.bytes_table("large")?.insert(b"three pages", &filled(2, 9000))?;
    txn.bytes_table("empty")?;
    txn.commit()?;
    let txn = db.begin_write()?;
    txn.bytes_table("numbers")?.remove(&7u16.to_be_bytes())?;
    txn.bytes_table("large")?.insert(b"three pages", &filled(3, 8500))?;
    txn.commit()
}

fn of_long_keys(db: &Db) -> Result<()> {
    let txn = db.begin_write()?;
    for number in 0..40u8 {
        let key = [&filled(b'k', 700)[..], &[number % 7], &filled(number, 200)].concat();
        txn.bytes_table("long")?.insert(&key, b"")?;
    }
    txn.commit()
}

/// Long keys in overflow extents, most of which only their tails tell apart.
fn of_overflowing_keys(db: &Db) -> Result<()> {
    let txn = db.begin_write()?;
    for number in 0..20u8 {
        let len = if number % 8 == 0 { 4500 } else { 1100 };
        let value = filled(number, usize::from(number) * 70);
        txn.bytes_table("overflowing")?.insert(&[&vec![b'k'; len][..], &[number]].concat(), &value)?;
    }
    txn.bytes_table("overflowing")?.insert(b"short", b"")?;
    txn.commit()
}

/// Value sets and value trees, of values of one size and of any size.
fn of_multimaps(db: &Db) -> Result<()> {
    let txn = db.begin_write()?;
    let mut fixed = txn.create_multi_table("fixed", "", "", Some(8))?;
    let mut any = txn.multi_bytes_table("any")?;
    for number in 0..700u64 {
        let key = [b"few", b"all"][usize::from(number % 50 > 0)];
        fixed.insert(key, &number.to_be_bytes())?;
        let value = [&number.to_be_bytes()[6..], &filled(b'v', number as usize % 30)[..]].concat();
        any.insert(key, &value)?;
    }
    drop((fixed, any));
    txn.commit()?;
    let txn = db.begin_write()?;
    for number in 100..200u64 {
        txn.multi_bytes_table("fixed")?.remove(b"all", &number.to_be_bytes())?;
    }
    txn.commit()
}

fn of_snapshots(db: &Db) -> Result<()> {
    of_everything(db)?;
    db.create_snapshot("everything")?;
    for round in 0..3u8 {
        let txn = db.begin_write()?;
        for number in 0..60u16 {
            txn.bytes_table("numbers")?.insert(&number.to_be_bytes(), &filled(round, 100))?;
        }
        txn.bytes_table("large")?.insert(b"three pages", &filled(round, 8600))?;
        txn.commit()?;
        db.create_snapshot(&format!("round {round}"))?;
    }
    db.restore_snapshot("round 0")
}

fn of_free_space(db: &Db) -> Result<()> {
    let key = |number: u16| (number ^ 0x55).to_be_bytes();
    let txn = db.begin_write()?;
    for number in 0..320 {
        txn.bytes_table("holes")?.insert(&key(number), &filled(1, 900))?;
    }
    txn.commit()?;
    // A reader needs the freed pages, so they stay pending. They are not neighbours, so each is an
    // extent of its own.
    let reader = db.begin_read()?;
    for round in 0..6 {
        let txn = db.begin_write()?;
        for number in (round..320).step_by(12) {
            txn.bytes_table("holes")?.remove(&key(number))?;
        }
        txn.commit()?;
    }
    drop(reader);
    let txn = db.begin_write()?;
    txn.bytes_table("holes")?.insert(b"last", b"value")?;
    txn.commit()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::page::layout;

    #[test]
    fn sample_files_are_small_and_have_free_space_and_a_log() {
        let samples = sample_files();
        assert_eq!(samples.len(), 8);
        let newest = |file: &Vec<u8>| {
            let metas = [0, PAGE_SIZE_MIN].map(|at| MetaPage::decode_copy(&file[at..]).expect("a meta page"));
            metas.into_iter().max_by_key(|meta| meta.txn).expect("two")
        };
        for file in samples {
            assert!(file.len() < 1 << 20, "{}", file.len());
            println!("{} bytes, {:?}", file.len(), newest(file));
        }
        assert!(newest(&samples[0]).free_list.pages > 0, "a free list");
        assert!(newest(&samples[2]).free_space.height > 0, "a free-space tree");
        assert!(newest(&samples[4]).log.pages > 0, "a commit log");
        assert!(newest(&samples[5]).snapshots.entries > 0, "named snapshots");
        let kinds =
            |sample: &[u8]| sample.chunks(PAGE_SIZE_MIN).skip(2).map(|page| page[layout::KIND]).collect::<Vec<_>>();
        assert!(kinds(&samples[6]).iter().filter(|&&kind| kind == 6).count() > 1, "packed leaves below a branch");
        let long = |kind| {
            let has_flag = |page: &&[u8]| layout::get_u16(page, layout::FLAGS) & layout::LONG_KEYS_FLAG != 0;
            let found =
                samples[7].chunks(PAGE_SIZE_MIN).skip(2).filter(has_flag).any(|page| page[layout::KIND] == kind);
            assert!(found, "a page of kind {kind} with long keys or separators");
        };
        long(1);
        long(2);
    }
}
