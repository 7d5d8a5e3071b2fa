//! A committer stops at each event of the test seam and between all steps, and another environment
//! goes on from its live records and the file. Then the power is cut at each event, or all close.
//!
//! The other environment has mappings, descriptors and a writer of its own: nothing that the first
//! one had is left but the words of its records (R12).

use std::cell::RefCell;
use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use mapleaf::testing::{at_moments, go_on_from, open_with_hooks, records, set_mutant, FlushEvent, Hooks, Mutant};
use mapleaf::{Db, Options, Result};

use super::agents::{append_fails, lock, visible, Agent, Operation, Prepared, Shared};
use super::book::Book;
use super::disk::Disk;
use super::judge::Judge;
use super::schedule::{stop, was_stopped, Place};
use super::search::new_file;
use super::Operation::*;
use crate::support;
use crate::workload::fast_dir;

const LOG_BYTES: u64 = 16 << 10;
/// The file gets no longer.
const FILE_BYTES: u64 = 256 << 10;
/// What the committer does that stops.
const FIRST: &[Operation] = &[
    Immediate,
    Eventual,
    Immediate,
    Large,
    Eventual,
    Unawaited,
    Sync,
    Eventual,
    Checkpoint,
    Eventual,
    FailsToAppend,
    Eventual,
    Abort,
    Eventual,
    Immediate,
];
/// What the other one does before it closes. A leader first, a writer, a checkpoint, or nothing.
const THEN: [&[Operation]; 4] = [
    &[Sync, Immediate, Eventual, Checkpoint, Immediate],
    &[Immediate, Large, Eventual, Sync],
    &[Checkpoint, Eventual, Immediate],
    &[],
];

/// A judge, and hashes of what it has judged.
type Judged = (Judge, HashSet<u64>);

/// One execution, as its events see it.
struct Run {
    path: PathBuf,
    disk: Disk,
    judge: Judge,
    /// What was judged.
    known: HashSet<u64>,
    db: Option<Db>,
    book: Shared,
    events: usize,
    /// The event at which the thread stops.
    stops_at: usize,
    /// The power is cut at each event.
    judges: bool,
    wrong: Option<String>,
}

thread_local! {
    static RUN: RefCell<Option<Run>> = const { RefCell::new(None) };
}

/// Something has happened.
fn event(flush: Option<Place>) {
    if std::thread::panicking() {
        return;
    }
    // The judge, which is busy with the run, opens other databases.
    let happen = |run: &RefCell<Option<Run>>| match run.try_borrow_mut() {
        Ok(mut run) => run.as_mut().is_some_and(|run| run.event(flush)),
        Err(_) => false,
    };
    let stops = RUN.try_with(happen).unwrap_or(false);
    if stops {
        stop();
    }
}

impl Run {
    fn event(&mut self, flush: Option<Place>) -> bool {
        let bytes = std::fs::read(&self.path).expect("the file");
        if let Some(db) = &self.db {
            let (first, pages) = records(db).log;
            self.disk.set_log(first as usize..(first + pages) as usize);
        }
        self.disk.observe(&bytes);
        flush.into_iter().for_each(|flush| self.disk.flush(flush));
        if self.judges && self.wrong.is_none() {
            self.wrong = self.cut_power().err();
        }
        self.events += 1;
        self.events == self.stops_at
    }

    /// Judges all images that a power cut may leave now, and what is there if all processes die.
    fn cut_power(&mut self) -> std::result::Result<(), String> {
        let Some(db) = &self.db else { return Ok(()) };
        let (records, book) = (records(db), lock(&self.book).clone());
        let mut hasher = DefaultHasher::new();
        (records.hash, self.disk.hash(), book.hash()).hash(&mut hasher);
        if !self.known.insert(hasher.finish()) {
            return Ok(());
        }
        for image in self.disk.images() {
            let found = self.judge.find(&image).map_err(|e| format!("after a power cut: {e}"))?;
            book.judge(found, &records, false).map_err(|e| format!("after a power cut: {e}"))?;
        }
        let found = self.judge.find(&self.disk.current()).map_err(|e| format!("after the death of all: {e}"))?;
        book.judge(found, &records, true).map_err(|e| format!("after the death of all: {e}"))
    }
}

struct Events;

impl Hooks for Events {
    fn before_flush(&self, event_of: &FlushEvent<'_>) -> io::Result<()> {
        event(Some(Place::FlushBegins(event_of.kind, event_of.offset, event_of.len)));
        Ok(())
    }

    fn after_flush(&self, event_of: &FlushEvent<'_>) {
        event(Some(Place::FlushEnded(event_of.kind, event_of.offset, event_of.len)));
    }

    fn resized(&self, _new_len: u64) {
        event(None);
    }

    fn stored_meta(&self, _slot: usize) {
        event(None);
    }

    fn writing(&self, _offset: u64, _len: u64) -> io::Result<()> {
        event(None);
        Ok(())
    }

    fn wrote(&self, _offset: u64, _len: u64) {
        event(None);
    }

    fn wrote_log(&self, _offset: u64, _len: u64) -> io::Result<()> {
        event(None);
        append_fails(true)
    }

    fn growing(&self, new_len: u64) -> io::Result<()> {
        event(None);
        match new_len > FILE_BYTES {
            true => Err(io::ErrorKind::StorageFull.into()),
            false => Ok(()),
        }
    }
}

fn run<T>(with: impl FnOnce(&mut Run) -> T) -> T {
    RUN.with_borrow_mut(|run| with(run.as_mut().expect("a run")))
}

/// Runs operations; whether they came to their end.
fn operate(agent: &Agent, script: &[Operation], mutant: Option<Mutant>) -> bool {
    set_mutant(mutant);
    let run = AssertUnwindSafe(|| at_moments(|_| event(None), || agent.run(script)));
    let ran = catch_unwind(run);
    set_mutant(None);
    match ran {
        Ok(()) => true,
        Err(panic) if was_stopped(&*panic) => false,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// Stops at an event, goes on, and closes. Whether there was such an event.
fn stop_at(
    stops_at: usize,
    then: &[Operation],
    (path, file, judged): (&Path, &[u8], &mut Option<Judged>),
    mutant: Option<Mutant>,
) -> std::result::Result<bool, String> {
    std::fs::write(path, file).expect("the file");
    let options = Options::new().exclusive(true).sync_interval(None).window_size(16 << 20);
    let db = open_with_hooks(options, path, Arc::new(Events)).expect("opened");
    let (txn, entries) = visible(&db).expect("read");
    let book: Shared = Arc::new(Mutex::new(Book::new(txn, entries)));
    let (judge, known) = judged.take().expect("a judge");
    RUN.set(Some(Run {
        path: path.to_path_buf(),
        disk: Disk::durable(file),
        judge,
        known,
        db: Some(db.clone()),
        book: Arc::clone(&book),
        events: 0,
        stops_at,
        judges: false,
        wrong: None,
    }));
    let first = Agent { number: 0, db, book: Arc::clone(&book) };
    let ended = operate(&first, FIRST, mutant);
    run(|run| (run.db, run.stops_at) = (None, 0));
    let went_on = go_on(first.db, &book, then, mutant);
    let done = RUN.take().expect("a run");
    *judged = Some((done.judge, done.known));
    let wrong = done.wrong.or_else(|| lock(&book).wrong.clone());
    match (went_on, wrong) {
        (_, Some(wrong)) | (Err(wrong), None) => Err(format!("stopped at event {stops_at}, then {then:?}: {wrong}")),
        (Ok(()), None) => Ok(!ended),
    }
}

/// Another environment goes on, and closes in order.
fn go_on(stopped: Db, book: &Shared, then: &[Operation], mutant: Option<Mutant>) -> std::result::Result<(), String> {
    let db = go_on_from(stopped, Arc::new(Events)).map_err(|e| format!("another environment: {e}"))?;
    run(|run| (run.db, run.judges) = (Some(db.clone()), true));
    event(None);
    let other = Agent { number: 1, db, book: Arc::clone(book) };
    operate(&other, then, mutant);
    let left = records(&other.db);
    // A commit by checkpoint that was left in doubt is finished.
    let latest = left.latest.max(left.in_doubt.unwrap_or(0));
    let path = run(|run| {
        run.db = None;
        run.path.clone()
    });
    drop(other);
    closed(&path, latest, book).map_err(|e| format!("after all have closed: {e}"))
}

/// What is found after the last handle has closed in order: the latest state.
fn closed(path: &Path, latest: u64, book: &Shared) -> std::result::Result<(), String> {
    let found = || -> Result<_> {
        let db = Db::open_existing(path)?;
        Ok((visible(&db)?.1, db.check()?.is_clean()))
    };
    let (entries, is_clean) = found().map_err(|e| e.to_string())?;
    match is_clean && entries == *lock(book).entries(latest) {
        true => Ok(()),
        false => Err(format!("clean: {is_clean}; {entries:?}, not txn {latest}")),
    }
}

/// Stops at every event, and goes on in some ways. The number of events; the first violation.
fn stop_at_each(ways: usize, mutant: Option<Mutant>) -> std::result::Result<usize, String> {
    let dir = fast_dir();
    let _prepared = Prepared::new(None, LOG_BYTES, false);
    let path = dir.path().join("run.mapleaf");
    let file = new_file(&path, 2);
    let mut judged = Some((Judge::new(dir.path().join("image.mapleaf")), HashSet::new()));
    for stops_at in 1.. {
        for then in THEN.iter().cycle().skip(stops_at).take(ways) {
            if !stop_at(stops_at, then, (&path, &file, &mut judged), mutant)? {
                let images = judged.map_or(0, |(judge, _)| judge.opened());
                println!("{} events, {images} images", stops_at - 1);
                return Ok(stops_at - 1);
            }
        }
    }
    unreachable!("the operations end")
}

#[test]
fn another_environment_goes_on_from_a_committer_that_has_stopped_at_any_event() {
    let events = stop_at_each(if support::long() > 1 { THEN.len() } else { 1 }, None).unwrap_or_else(|e| panic!("{e}"));
    assert!(events > 100, "{events} events");
}

#[test]
fn what_a_stopped_committer_has_left_is_missed_if_a_rule_is_left_out() {
    for mutant in [Mutant::OrphanStays, Mutant::MetaUnfinished] {
        let found = stop_at_each(THEN.len(), Some(mutant)).expect_err("a violation");
        println!("{mutant:?}: {found}");
        assert!(found.contains("after a power cut"), "{mutant:?}: {found}");
    }
}
