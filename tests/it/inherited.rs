//! Handles that a child inherits by `fork`: every call is refused, drops free nothing, and the
//! child can open the files itself.

use std::io::Read;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

use mapleaf::testing::{self, end_child, ends_without_error, fork, in_forked_child};
use mapleaf::{inspect, Db, Error, ErrorKind, Options, PageId, ReadTable, Result, Table, TableMut};

use crate::reexec;
use crate::workload::fast_dir;

const TEXTS: Table<&str, &[u8]> = Table::new("texts");
const ENTRIES: u32 = 600;

fn key(n: u32) -> String {
    format!("key {n:05}")
}

/// Every tenth value is in an overflow extent.
fn value(n: u32, round: u8) -> Vec<u8> {
    vec![round; if n.is_multiple_of(10) { 20_000 } else { 100 }]
}

fn fill(db: &Db, round: u8) {
    db.write(|txn| {
        let mut table = txn.table(TEXTS)?;
        (0..ENTRIES).try_for_each(|n| table.put(&key(n), &value(n, round)).map(drop))
    })
    .expect("committed");
}

#[track_caller]
fn refused<T>(told: Result<T>) {
    let Err(e) = told else { panic!("a child was answered") };
    assert!(e.kind() == ErrorKind::Usage && e.to_string().contains("fork"), "{e}");
}

/// One error, and nothing after it.
#[track_caller]
fn ends_refused<T>(mut entries: impl Iterator<Item = Result<T>>) {
    refused(entries.next().expect("an error"));
    assert!(entries.next().is_none());
}

/// Runs a test in a child process.
fn in_own_process(name: &str) {
    let mut child = reexec::start(reexec::command(name, &[&"go"]));
    assert_eq!(child.line().as_deref(), Some("done"));
    child.finish();
}

fn every_read_is_refused(txn: &mapleaf::ReadTxn, table: &ReadTable<&'static str, &'static [u8]>) {
    refused(txn.table(TEXTS));
    refused(txn.clone().table(TEXTS));
    refused(txn.table(Table::<&str, u64>::new("none")));
    refused(txn.bytes_table("texts"));
    refused(txn.tables());
    refused(txn.try_get_resident(TEXTS, "key 00001"));
    refused(table.get("key 00001"));
    refused(table.clone().get("none"));
    refused(table.try_get_resident("key 00010"));
    refused(table.contains_key("key 00001"));
    refused(table.multi_get(["key 00001", "none"]));
    refused(table.get_owned("key 00001"));
    refused(table.range("key 1".."key 2"));
    refused(table.range_owned("key 1".."key 2"));
    refused(table.prefix("key"));
    refused(table.first());
    refused(table.last());
    ends_refused(table.iter());
    ends_refused(table.iter().rev());
    // Enough lookups to build a flat index.
    (0..5_000).for_each(|_| refused(table.get("key 00001")));
}

fn every_call_of_the_handle_is_refused(db: &Db, out: &Path) {
    refused(db.begin_read());
    refused(db.clone().begin_read());
    refused(db.begin_write());
    refused(db.try_begin_write());
    refused(db.begin_write_timeout(Duration::from_secs(1)));
    refused(db.read(|_| Ok::<_, Error>(())));
    refused(db.write(|_| Ok::<_, Error>(())));
    refused(db.stats());
    refused(db.check());
    refused(db.compact_to(out));
    refused(inspect::metas(db));
    refused(inspect::page(db, PageId(2)));
}

#[test]
fn reading_child() {
    if reexec::arguments().is_none() {
        return;
    }
    let dir = fast_dir();
    for db in [Db::open(dir.path().join("db")).expect("open"), Db::in_memory().expect("memory")] {
        fill(&db, 1);
        let txn = db.begin_read().expect("begins");
        let table = txn.table(TEXTS).expect("table");
        let (mut forwards, mut backwards) = (table.iter(), table.iter());
        assert!(forwards.next().is_some() && backwards.next_back().is_some());
        let owned_value = table.get_owned("key 00003").expect("get").expect("there");
        let owned = || {
            let mut owned = table.range_owned("".."z").expect("range");
            assert!(owned.next().is_some() && owned.next_back().is_some());
            Some(owned)
        };
        let (mut owned, mut owned_back) = (owned(), owned());
        // The parent holds the writer lock, as any of its threads may.
        let write = db.begin_write().expect("begins");
        assert!(in_forked_child(|| {
            every_read_is_refused(&txn, &table);
            ends_refused(&mut forwards);
            ends_refused((&mut backwards).rev());
            refused(owned_value.get());
            ends_refused(owned.take().expect("the copy"));
            ends_refused(owned_back.take().expect("the copy").rev());
            every_call_of_the_handle_is_refused(&db, &dir.path().join("out"));
        }));
        drop(write);
        assert!(!dir.path().join("out").exists());
        let mut inherited = Some((db, txn, table.clone()));
        assert!(in_forked_child(|| drop(inherited.take())));
        let (db, ..) = inherited.as_ref().expect("the parent's own");
        // The child's drop does not end the parent's snapshot: its pages are not reused.
        (2..6).for_each(|round| fill(db, round));
        assert_eq!(db.stats().expect("stats").readers, 1);
        for n in 0..ENTRIES {
            assert_eq!(table.get(&key(n)).expect("get"), Some(&*value(n, 1)));
        }
        assert!(forwards.next().expect("more").is_ok() && owned_value.get().is_ok());
        assert_eq!(owned.take().expect("the parent's own").filter(|entry| entry.is_ok()).count(), ENTRIES as usize - 2);
    }
    reexec::answer("done");
}

#[test]
fn every_read_through_an_inherited_handle_is_refused_and_drops_free_nothing() {
    in_own_process("inherited::reading_child");
}

/// A reader that forks after some bytes; parent and child both continue.
struct Forks {
    left: usize,
    child: Option<i32>,
    in_child: bool,
}

impl Read for &mut Forks {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        if self.left < into.len() && self.child.is_none() && !self.in_child {
            self.child = fork();
            self.in_child = self.child.is_none();
            assert!(self.child.is_none_or(ends_without_error), "the child was not refused");
        }
        self.left = self.left.saturating_sub(into.len());
        into.fill(if self.in_child { 9 } else { 3 });
        Ok(into.len())
    }
}

#[test]
fn writing_child() {
    if reexec::arguments().is_none() {
        return;
    }
    let dir = fast_dir();
    let path = dir.path().join("db");
    let db = Db::open(&path).expect("open");
    fill(&db, 1);
    let mut txn = db.begin_write().expect("begins");
    // Filled pages wait in the write queue, and a thread that reads one of them writes all.
    let mut table = txn.table(TEXTS).expect("table");
    (0..40_000).for_each(|n| table.append(&format!("long {n:06}"), &[2; 100]).expect("appended"));
    let before = std::fs::read(&path).expect("the file");
    assert!(in_forked_child(|| {
        refused(table.get("long 039999"));
        refused(table.contains_key("long 039999"));
        refused(table.range("a".."z"));
        refused(table.prefix("long"));
        refused(table.first());
        refused(table.last());
        ends_refused(table.iter());
        ends_refused(table.iter().rev());
        refused(table.remove("long 039999"));
        refused(table.append("z", b"z"));
        refused(table.load([("a", &b"b"[..])]));
        refused(table.insert_reader("a", 3, &b"abc"[..]));
    }));
    assert!(std::fs::read(&path).expect("the file") == before, "a child wrote to its parent's file");
    places_are_of_the_parent(&mut table);
    assert!(in_forked_child(|| {
        refused(txn.drop_table("texts"));
        refused(txn.rename_table("texts", "others"));
        refused(txn.tables());
    }));
    let mut inherited = Some(txn);
    // A thread of the parent may be waiting for the writer lock: the child must not touch its copy
    // of the lock.
    assert!(in_forked_child(|| drop(inherited.take())));
    assert!(in_forked_child(|| refused(inherited.take().expect("the copy").commit())));
    inherited.expect("the parent's own").commit().expect("committed");
    assert!(db.check().expect("check").is_clean());
    let table = db.begin_read().and_then(|txn| txn.table(TEXTS)).expect("table");
    assert_eq!(table.get("place").expect("get"), Some(&[7; 100_000][..]));
    assert_eq!(table.len(), u64::from(ENTRIES) + 40_001);
    a_child_in_the_middle_of_a_call(&db, &path);
    reexec::answer("done");
}

fn places_are_of_the_parent(table: &mut TableMut<'_, &'static str, &'static [u8]>) {
    let mut places = Some(table.reserve("place", 100_000).expect("a place"));
    assert!(in_forked_child(|| {
        let mut place = places.take().expect("the copy");
        place.fill(9);
        refused(place.finish());
    }));
    assert!(in_forked_child(|| drop(places.take().expect("the copy"))));
    places.as_mut().expect("the parent's own").fill(7);
    let written = places.take().expect("the parent's own");
    assert!(written.iter().all(|byte| *byte == 7), "a child stored to its parent's pages");
    written.finish().expect("finished");
}

/// Code of the program may fork inside a call of Mapleaf: the call fails in the child.
fn a_child_in_the_middle_of_a_call(db: &Db, path: &Path) {
    let (out, mut told, mut in_child) = (path.with_file_name("out"), 0, false);
    let compacted = db.compact_to_with(&out, |_, _| {
        told += 1;
        let child = if told == 2 { fork() } else { Some(0) };
        in_child |= child.is_none();
        assert!(child.is_none_or(|child| child == 0 || ends_without_error(child)), "the child ended otherwise");
        if in_child {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    });
    if in_child {
        // The child dropped its copy of the new file, which belongs to the parent.
        end_child(compacted.is_err());
    }
    assert_eq!(compacted.expect("compacted").entries, u64::from(ENTRIES) + 40_001);
    let mut forks = Forks { left: 200_000, child: None, in_child: false };
    let txn = db.begin_write().expect("begins");
    let stored = txn.table(TEXTS).expect("table").insert_reader("read", 300_000, &mut forks);
    if forks.in_child {
        end_child(stored.is_err_and(|e| e.kind() == ErrorKind::Usage));
    }
    assert!(forks.child.is_some() && !stored.expect("stored"));
    txn.commit().expect("committed");
    let table = db.begin_read().and_then(|txn| txn.table(TEXTS)).expect("table");
    assert_eq!(table.get("read").expect("get"), Some(&[3; 300_000][..]));
    assert!(db.check().expect("check").is_clean());
}

#[test]
fn every_write_through_an_inherited_handle_is_refused_and_changes_no_page() {
    in_own_process("inherited::writing_child");
}

/// The parent is killed while its child holds all inherited handles.
#[test]
fn surviving_child() {
    let Some(arguments) = reexec::arguments() else { return };
    let path = Path::new(&arguments[0]);
    let db = Db::open(path).expect("open");
    fill(&db, 1);
    let mut inherited = Some((db.begin_read().expect("begins"), db));
    in_forked_child(|| {
        let alone = || Options::new().exclusive(true).open(path);
        assert_eq!(alone().map(drop).expect_err("the parent lives").kind(), ErrorKind::Locked);
        reexec::answer("forked");
        assert_eq!(reexec::listen().as_deref(), Some("killed"));
        let db = alone().expect("the locks went with the parent");
        fill(&db, 2);
        let again = Db::open(path).expect("the same database, once more");
        drop(inherited.take());
        fill(&Db::open(path).expect("also after the copies went"), 3);
        drop((db, again));
        reexec::answer("wrote");
    });
}

#[test]
fn a_child_holds_no_lock_and_can_open_the_file_after_its_parent_has_closed_it() {
    let dir = fast_dir();
    let path = dir.path().join("db");
    let mut child = reexec::start(reexec::command("inherited::surviving_child", &[&path]));
    assert_eq!(child.line().as_deref(), Some("forked"));
    child.kill();
    // The child lives and has the descriptors, but the locks belonged to the parent only.
    let alone = || Options::new().exclusive(true).open(&path);
    drop(alone().expect("no process has it"));
    child.say("killed");
    assert_eq!(child.line().as_deref(), Some("wrote"));
    let db = alone().expect("the child has closed it");
    assert!(db.check().expect("check").is_clean());
    let table = db.begin_read().and_then(|txn| txn.table(TEXTS)).expect("table");
    assert_eq!(table.get("key 00001").expect("get"), Some(&*value(1, 3)));
}

#[test]
fn opening_child() {
    if reexec::arguments().is_none() {
        return;
    }
    let dir = fast_dir();
    let path = dir.path().join("db");
    fill(&Db::open(&path).expect("made"), 1);
    let open = || Options::new().read_only(true).open(&path);
    let _parent = open().expect("read-only");
    // Read-only in both processes: the child can open the database again without dropping the
    // inherited handle.
    assert!(in_forked_child(|| {
        let db = open().expect("opens beside its parent");
        let table = db.begin_read().and_then(|txn| txn.table(TEXTS)).expect("table");
        assert_eq!(table.get("key 00001").expect("get"), Some(&*value(1, 1)));
    }));
    // Other threads open and close databases, and hold internal locks at the moment of the fork.
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for thread in 0..2 {
            let (stop, dir) = (&stop, dir.path());
            scope.spawn(move || {
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    drop(Db::open(dir.join(format!("thread {thread}"))).expect("opens"));
                }
            });
        }
        for n in 0..40 {
            let path = dir.path().join(format!("child {n}"));
            assert!(in_forked_child(|| fill(&Db::open(&path).expect("opens in a child"), 1)));
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    reexec::answer("done");
}

#[test]
fn a_child_opens_databases_although_parent_threads_held_locks_at_the_fork() {
    in_own_process("inherited::opening_child");
}

#[test]
fn full_descriptor_table_child() {
    use std::os::fd::AsRawFd as _;
    let Some(arguments) = reexec::arguments() else { return };
    let dir = fast_dir();
    let db = Db::open(dir.path().join("db.mapleaf")).expect("made");
    testing::set_process_limit(testing::ProcessLimit::OpenFiles, Some(64)).expect("a limit");
    let held: Vec<_> = std::iter::from_fn(|| std::fs::File::open("/dev/null").ok()).collect();
    assert!(!held.is_empty() && !arguments.is_empty());
    // The fork handler can open nothing, so the lock's descriptor number is free in the child,
    // which then uses it.
    let without_error = in_forked_child(|| {
        let own = std::fs::File::open("/proc/self/stat").expect("a descriptor is free");
        drop(db);
        let place = format!("/proc/self/fd/{}", own.as_raw_fd());
        let leads_to = std::fs::read_link(place).expect("still open");
        assert!(leads_to.ends_with("stat"), "{leads_to:?}");
    });
    assert!(without_error, "the end of an inherited handle closed a file of the child's");
    reexec::answer("done");
}

#[test]
fn dropping_an_inherited_handle_closes_no_file_of_the_child() {
    in_own_process("inherited::full_descriptor_table_child");
}
