//! Threads with small stacks, as in servers with many threads and in coroutines of other languages.
//! `MAPLEAF_STACK` (bytes) sets another size.

use std::path::Path;

use mapleaf::{inspect, Db, Options, PageId, Table};

use crate::reexec;
use crate::support::assert_clean;
use crate::workload::{fast_dir, Rng};

/// The stack size that the documentation of `Db` promises to suffice.
const STACK_BYTES: usize = 64 << 10;

const NAMED: Table<&str, u64> = Table::new("named");
const BYTES: Table<&[u8], &[u8]> = Table::new("bytes");

/// Runs a step on a thread with a small stack. A stack overflow ends the process, so the name of
/// the step is printed first.
fn on<T: Send>(bytes: usize, step: &str, run: impl FnOnce() -> mapleaf::Result<T> + Send) -> T {
    reexec::answer(step);
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(bytes).spawn_scoped(scope, run).expect("a thread");
        thread.join().expect("no panic").unwrap_or_else(|e| panic!("{step}: {e}"))
    })
}

/// Long keys, which make a high tree; some values are in overflow extents.
fn entries(count: u64) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut rng = Rng(7);
    let mut key = move || (0..110).flat_map(|_| rng.next().to_be_bytes()).collect::<Vec<u8>>();
    (0..count).map(|n| (key(), vec![n as u8; if n % 500 == 0 { 300_000 } else { 50 }])).collect()
}

fn write(db: &Db, bytes: usize, entries: &[(Vec<u8>, Vec<u8>)]) {
    let (loaded, put) = entries.split_at(entries.len() / 2);
    on(bytes, "load", || {
        db.write(|txn| txn.table(BYTES)?.load(loaded.iter().map(|(key, value)| (&key[..], &value[..]))).map(drop))
    });
    let mut txn = on(bytes, "begin_write", || db.begin_write());
    on(bytes, "put", || {
        let txn = &mut txn;
        let mut table = txn.table(BYTES)?;
        put.iter().try_for_each(|(key, value)| table.put(key, value).map(drop))?;
        table.insert_reader(b"read", 500_000, &mut std::io::repeat(5)).map(drop)
    });
    on(bytes, "append and remove", || {
        let txn = &mut txn;
        let mut table = txn.table(NAMED)?;
        (0..30_000).try_for_each(|n| table.append(&format!("{n:09}"), n))?;
        (0..30_000).step_by(3).try_for_each(|n| table.remove(&format!("{n:09}")).map(drop))
    });
    on(bytes, "reserve", || {
        let txn = &mut txn;
        let mut table = txn.table(BYTES)?;
        let mut place = table.reserve(b"reserved", 100_000)?;
        place.fill(1);
        place.finish().map(drop)
    });
    on(bytes, "drop a table", || {
        txn.table(Table::<u64, u64>::new("gone"))?.load((0..10_000).rev().map(|n| (n, n)))?;
        txn.drop_table("gone").map(drop)
    });
    on(bytes, "commit", || txn.commit());
}

fn read(db: &Db, bytes: usize, entries: &[(Vec<u8>, Vec<u8>)]) {
    let txn = on(bytes, "begin_read", || db.begin_read());
    on(bytes, "get", || {
        let table = txn.table(BYTES)?;
        let found = entries.iter().try_for_each(|(key, value)| {
            assert_eq!(table.get(key)?, Some(&value[..]));
            assert!(table.get_owned(key)?.is_some() && table.try_get_resident(b"none").is_ok());
            Ok(())
        });
        table.multi_get(entries.iter().map(|(key, _)| &key[..])).map(drop).and(found)
    });
    on(bytes, "scan", || {
        let table = txn.table(BYTES)?;
        assert_eq!(table.iter().count(), entries.len() + 2);
        assert_eq!(table.range_owned(..)?.rev().count(), entries.len() + 2);
        table.iter().fill_cache(false).rev().try_for_each(|entry| entry.map(drop))
    });
    on(bytes, "drop a reader", move || {
        drop(txn);
        Ok(())
    });
    on(bytes, "stats", || db.stats().and_then(|_| inspect::metas(db)).and_then(|_| inspect::page(db, PageId(2))));
}

fn every_operation(dir: &Path, bytes: usize) {
    let [path, out, saved] = ["db", "out", "saved"].map(|name| dir.join(name));
    let entries = entries(12_000);
    let db = on(bytes, "create", || Db::open(&path));
    write(&db, bytes, &entries);
    read(&db, bytes, &entries);
    on(bytes, "check", || db.check().map(|report| assert!(report.is_clean())));
    on(bytes, "compact_to", || db.compact_to(&out));
    on(bytes, "drop", move || {
        drop(db);
        Ok(())
    });
    let file = std::fs::File::options().write(true).open(&path).expect("the file");
    let len = file.metadata().expect("metadata").len();
    // First as a killed process leaves the file, then truncated.
    file.set_len(len + 4096).expect("longer");
    drop(on(bytes, "open", || Db::open(&path)));
    let db = on(bytes, "open read-only", || Options::new().read_only(true).open(&path));
    assert_clean(&db);
    drop(db);
    file.set_len(len - 4096).expect("cut");
    assert!(on(bytes, "open a cut file", || Ok(Db::open(&path).is_err())));
    // Whether an older state is whole does not matter here.
    on(bytes, "recover", || Ok((Db::recover_preview(&path).is_ok(), Db::recover(&path).is_ok())));
    on(bytes, "salvage", || Db::salvage(&path, &saved));
    let memory = on(bytes, "in memory", Db::in_memory);
    write(&memory, bytes, &entries[..1_000]);
    read(&memory, bytes, &entries[..1_000]);
    [&out, &saved].iter().for_each(|path| assert_clean(&Db::open_existing(path).expect("whole")));
}

#[test]
fn small_stack_child() {
    let Some(arguments) = reexec::arguments() else { return };
    let dir = fast_dir();
    every_operation(dir.path(), arguments[0].parse().expect("bytes"));
    reexec::answer("done");
}

#[test]
fn every_operation_runs_on_a_thread_with_64_kib_of_stack() {
    let bytes = std::env::var("MAPLEAF_STACK").unwrap_or(STACK_BYTES.to_string());
    let mut child = reexec::start(reexec::command("stacks::small_stack_child", &[&bytes]));
    let steps: Vec<String> = std::iter::from_fn(|| child.line()).collect();
    assert_eq!(steps.last().map(String::as_str), Some("done"), "a stack overflowed in the last of {steps:?}");
    child.finish();
}
