//! Processes with a commit log that are killed: at every event of the test seam, and while they
//! commit at the level `Eventual`.
//!
//! A child executes a script: it replays a log, commits by log and by checkpoint, makes a
//! checkpoint, gives up its log, and makes another one. At its k-th event it stops and is killed;
//! k runs from 1 until a child comes to the end of the script. Events are flushes, writes, changes
//! of length and all moments between the steps of its threads.

use std::io::{self, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;
use std::time::Duration;

use mapleaf::testing::{at_moments, log_pages, set_log_shape, with_next_hooks, FlushEvent, Hooks};
use mapleaf::{Db, Durability, Options};

use crate::processes::broker;
use crate::reexec;
use crate::workload::{fast_dir, long, History, Rng, FIRST_TXN};

/// A log of 64 pages at the second commit: the script comes to its end before a checkpoint is due.
const LOG_SHAPE: Option<(u64, u64)> = Some((1, 64 * 4096));

/// Hooks that stop the thread for ever at one event.
pub(crate) struct StopAt {
    left: AtomicU64,
}

impl StopAt {
    pub(crate) fn new(event: &str) -> Arc<StopAt> {
        Arc::new(StopAt { left: AtomicU64::new(event.parse().expect("a number")) })
    }

    pub(crate) fn event(&self, what: &str) {
        if self.left.fetch_sub(1, Ordering::SeqCst) == 1 {
            reexec::answer(&format!("stopped {what}"));
            loop {
                std::thread::park();
            }
        }
    }
}

impl Hooks for StopAt {
    fn before_flush(&self, event: &FlushEvent<'_>) -> io::Result<()> {
        self.event(&format!("before {event:?}"));
        Ok(())
    }

    fn after_flush(&self, event: &FlushEvent<'_>) {
        self.event(&format!("after {event:?}"));
    }

    fn stored_meta(&self, slot: usize) {
        self.event(&format!("meta page {slot} stored"));
    }

    fn writing(&self, offset: u64, len: u64) -> io::Result<()> {
        self.event(&format!("writing {offset}+{len}"));
        Ok(())
    }

    fn wrote(&self, offset: u64, len: u64) {
        self.event(&format!("wrote {offset}+{len}"));
    }

    fn growing(&self, new_len: u64) -> io::Result<()> {
        self.event(&format!("growing to {new_len}"));
        Ok(())
    }

    fn resized(&self, new_len: u64) {
        self.event(&format!("resized to {new_len}"));
    }
}

fn commit(history: &History, db: &Db, level: Durability) {
    let committed = history.commit_next_at(db, level).expect("committed");
    reexec::answer(&format!("committed {committed}"));
}

/// A commit that leaves every entry as it was, too large for the log.
fn commit_by_checkpoint(db: &Db) {
    let commit = || {
        let mut txn = db.begin_write()?;
        drop(txn.bytes_table("passing")?.insert(b"k", &[1; 20 * 4096])?);
        txn.drop_table("passing")?;
        txn.commit()
    };
    commit().expect("committed");
}

#[test]
fn child_with_a_script() {
    let Some(arguments) = reexec::arguments() else { return };
    reexec::watch();
    let (path, history, hooks) = (arguments[0].clone(), history(&arguments[1]), StopAt::new(&arguments[2]));
    set_log_shape(LOG_SHAPE);
    let events = Arc::clone(&hooks);
    at_moments(
        move |moment| events.event(&format!("{moment:?}")),
        || {
            for _ in 0..2 {
                let hooks = Arc::clone(&hooks) as Arc<dyn Hooks>;
                let options = Options::new().sync_interval(None);
                let db = with_next_hooks(hooks, || broker::open(options, path.as_ref())).expect("opened");
                for level in [Durability::Immediate, Durability::Eventual, Durability::Immediate, Durability::Eventual]
                {
                    commit(&history, &db, level);
                }
                db.sync().expect("synced");
                commit(&history, &db, Durability::Eventual);
                commit_by_checkpoint(&db);
                commit(&history, &db, Durability::Immediate);
                db.checkpoint().expect("a checkpoint");
                commit(&history, &db, Durability::Eventual);
            }
        },
    );
    reexec::answer("done");
}

fn history(seed: &str) -> History {
    History::power(seed.parse().expect("a seed"))
}

/// What a child said: its newest commit, and the event at which it stopped.
pub(crate) fn hear(child: &mut reexec::Process, mut enough: impl FnMut(u64) -> bool) -> (u64, Option<String>) {
    let (mut said, mut count, mut stopped) = (0, 0, None);
    while stopped.is_none() && !enough(count) {
        let line = child.line().expect("a child that goes on");
        match line.split_once(' ') {
            Some(("committed", step)) => (said, count) = (step.parse().expect("a number"), count + 1),
            Some(("stopped", at)) => stopped = Some(at.to_string()),
            _ if line == "done" => break,
            _ => panic!("a child said {line}"),
        }
    }
    (said, stopped)
}

/// Kinds of events of the script at which a process is killed.
pub(crate) const EVENTS: [&str; 15] = [
    "before flush Log",
    "after flush Log",
    "before flush Tree",
    "after flush Tree",
    "before flush MetaPage",
    "after flush MetaPage",
    "meta page",
    "writing",
    "wrote",
    "Appending",
    "Appended",
    "LatestStored",
    "LogClosed",
    "Publishing",
    "Pinned",
];

/// The kind of an event, without its numbers.
pub(crate) fn kind_of(event: &str) -> String {
    event.split(|c: char| c.is_ascii_digit()).next().unwrap_or_default().trim().to_string()
}

/// Compares a file, read-only and after it was opened for writing, and commits.
fn judge(path: &Path, history: &History, acknowledged: u64, at: &str) -> u64 {
    let read_only = Options::new().read_only(true).open(path).unwrap_or_else(|e| panic!("{at}: {e}"));
    let seen = history.judge(&read_only).unwrap_or_else(|e| panic!("{at}, read-only: {e}"));
    drop(read_only);
    assert!(seen == acknowledged || seen == acknowledged + 1, "{at}: step {seen}, acknowledged {acknowledged}");
    let db = Db::open_existing(path).unwrap_or_else(|e| panic!("{at}: {e}"));
    assert_eq!(history.judge(&db).unwrap_or_else(|e| panic!("{at}: {e}")), seen, "{at}");
    let next = history.commit_next(&db).unwrap_or_else(|e| panic!("{at}: {e}"));
    assert_eq!(history.judge(&db).unwrap_or_else(|e| panic!("{at}, after a commit: {e}")), next, "{at}");
    seen
}

#[test]
fn a_process_that_is_killed_at_any_event_of_its_log_loses_nothing() {
    let seed = if long() { crate::support::seed("log_kills") } else { 7 };
    let (history, dir) = (History::power(seed), fast_dir());
    let (begin, path) = (dir.path().join("begin.mapleaf"), dir.path().join("killed.mapleaf"));
    // A process that has died left records.
    let db = Db::open(&begin).expect("opened");
    let acknowledged = (0..6).map(|_| history.commit_next(&db).expect("committed")).last().expect("some");
    assert!(log_pages(&db) > 0);
    std::fs::copy(&begin, &path).expect("copied");
    drop(db);
    std::fs::rename(&path, &begin).expect("renamed");
    let mut kinds = std::collections::BTreeMap::<String, u64>::new();
    for event in 1.. {
        std::fs::copy(&begin, &path).expect("copied");
        let (seed, event_text) = (seed.to_string(), event.to_string());
        let arguments: [&dyn AsRef<std::ffi::OsStr>; 3] = [&path, &seed, &event_text];
        let mut child = reexec::start(reexec::command("log_kills::child_with_a_script", &arguments));
        let (said, stopped) = hear(&mut child, |_| false);
        child.kill();
        let Some(stopped) = stopped else {
            judge(&path, &history, said, "at the end");
            break;
        };
        judge(&path, &history, acknowledged.max(said), &format!("event {event}, {stopped}"));
        *kinds.entry(kind_of(&stopped)).or_default() += 1;
    }
    writeln!(io::stdout(), "\nSIGKILL at every event: {} events, violations 0", kinds.values().sum::<u64>()).ok();
    println!("{kinds:?}");
    // A process that no other is beside cuts the file.
    let expected = EVENTS.into_iter().chain(["resized to"]);
    expected.for_each(|kind| assert!(kinds.contains_key(kind), "no {kind} in {kinds:?}"));
}

#[test]
fn child_with_eventual_commits() {
    let Some(arguments) = reexec::arguments() else { return };
    let (path, history) = (&arguments[0], history(&arguments[1]));
    set_log_shape(Some((1, 64 * 4096)));
    // Nothing makes a commit durable but the checkpoints that the log needs.
    let db = Options::new().sync_interval(None).open(path).expect("opened");
    loop {
        commit(&history, &db, Durability::Eventual);
    }
}

#[test]
fn eventual_commits_survive_when_all_processes_are_killed() {
    let kills = if long() { 1000 } else { 200 };
    let (seed, dir) = (crate::support::seed("eventual_kills"), fast_dir());
    let (mut history, path) = (History::power(seed), dir.path().join("killed.mapleaf"));
    let (mut rng, mut lost, mut commits) = (Rng(seed), 0, 0);
    let mut acknowledged = FIRST_TXN;
    for kill in 0..kills {
        if kill % 20 == 0 {
            // Histories that are long take long to compare.
            drop(std::fs::remove_file(&path));
            drop(Db::open(&path).expect("creation"));
            history = History::power(seed + kill);
            acknowledged = FIRST_TXN;
        }
        let seed = history.seed().to_string();
        let arguments: [&dyn AsRef<std::ffi::OsStr>; 2] = [&path, &seed];
        let mut child = reexec::start(reexec::command("log_kills::child_with_eventual_commits", &arguments));
        let wanted = 1 + rng.below(12);
        let (said, _) = hear(&mut child, |count| count >= wanted);
        std::thread::sleep(Duration::from_micros(rng.below(1000)));
        child.kill();
        let mut newest = said;
        while let Some(line) = child.line() {
            newest = line.strip_prefix("committed ").expect("a commit").parse().expect("a number");
        }
        commits += newest - acknowledged;
        acknowledged = newest;
        let db = Options::new().read_only(true).open(&path).expect("opened after the kill");
        let seen = history.judge(&db).unwrap_or_else(|e| panic!("kill {kill}, seed {seed}: {e}"));
        lost += acknowledged.saturating_sub(seen);
        acknowledged = seen;
    }
    writeln!(io::stdout(), "\nSIGKILL: {kills} kills, {commits} eventual commits, {lost} lost").ok();
    assert_eq!(lost, 0, "eventual commits were lost");
}
