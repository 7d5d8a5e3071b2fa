//! Killed processes: a child commits to a real file until SIGKILL ends it; then the parent compares
//! the file.
//!
//! Half of the children are killed at a random moment. The others are killed inside a commit, a
//! growth or a close: the child's hooks block at the k-th event and tell the parent, which kills
//! the child there. All rounds use the same few files, so each recovery builds on the ones before.
//! The child prints each commit after it returned.

use std::io::{self, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;
use std::time::Duration;

use mapleaf::testing::{open_with_hooks, FlushEvent, Hooks};
use mapleaf::{Db, Durability, Options};

use crate::reexec;
use crate::workload::{long, History, Rng, FIRST_TXN};

/// Hooks that block for ever at one event.
struct StopAt {
    left: AtomicU64,
}

impl StopAt {
    fn event(&self, what: &str) {
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

    fn resized(&self, new_len: u64) {
        self.event(&format!("resized to {new_len}"));
    }

    fn growing(&self, new_len: u64) -> io::Result<()> {
        self.event(&format!("growing to {new_len}"));
        Ok(())
    }
}

#[test]
fn killed_child() {
    let Some(arguments) = reexec::arguments() else { return };
    let (path, seed, stop_at) = (&arguments[0], &arguments[1], &arguments[2]);
    let history = History::new(seed.parse().expect("a seed"));
    let hooks = Arc::new(StopAt { left: AtomicU64::new(stop_at.parse().expect("a number")) });
    loop {
        let db = open_with_hooks(Options::new(), path, Arc::clone(&hooks) as Arc<dyn Hooks>).expect("open");
        for number in 0..9 {
            // An eventual commit survives the end of the process too.
            let durability = if number % 3 == 2 { Durability::Eventual } else { Durability::Immediate };
            let committed = history.commit_next_at(&db, durability).expect("commit");
            reexec::answer(&format!("committed {committed}"));
        }
    }
}

/// How a child is killed.
#[derive(Clone, Copy)]
enum Kill {
    /// Some microseconds after it has printed some commits.
    Random { commits: u64, micros: u64 },
    /// At an event of its hooks.
    At(u64),
}

/// Kills one child. Returns the last commit that it printed and the event at which it blocked, if
/// any.
fn kill_one(path: &Path, seed: u64, kill: Kill) -> (Option<u64>, Option<String>) {
    let stop_at = match kill {
        Kill::Random { .. } => 0,
        Kill::At(event) => event,
    };
    let (seed, stop_at) = (seed.to_string(), stop_at.to_string());
    let mut child = reexec::start(reexec::command("crash_kill::killed_child", &[&path, &seed, &stop_at]));
    let (mut said, mut stopped, mut count) = (None, None, 0);
    let mut hear = |line: &str| match line.split_once(' ') {
        Some(("committed", txn)) => {
            said = Some(txn.parse().expect("a number"));
            count += 1;
            count
        }
        Some(("stopped", at)) => {
            stopped = Some(at.to_string());
            u64::MAX
        }
        _ => panic!("a child said {line}"),
    };
    let enough = match kill {
        Kill::Random { commits, .. } => commits,
        Kill::At(_) => u64::MAX,
    };
    let mut heard = 0;
    while heard < enough {
        heard = hear(&child.line().expect("a child that goes on"));
    }
    if let Kill::Random { micros, .. } = kill {
        std::thread::sleep(Duration::from_micros(micros));
    }
    child.kill();
    while let Some(line) = child.line() {
        hear(&line);
    }
    (said, stopped)
}

/// Kills children on one file, and judges the file after each kill.
fn rounds(seed: u64, page_size: u32, kills: u64) {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("killed.mapleaf");
    drop(Options::new().page_size(page_size).open(&path).expect("creation"));
    let history = History::new(seed);
    let mut rng = Rng(seed);
    let (mut acknowledged, mut in_commit) = (FIRST_TXN, 0);
    println!("seed {seed}: {kills} kills");
    for round in 0..kills {
        let kill = match round % 2 {
            0 => Kill::Random { commits: rng.below(12), micros: rng.below(3000) },
            _ => Kill::At(1 + rng.below(50)),
        };
        let (said, stopped) = kill_one(&path, seed, kill);
        in_commit += u64::from(stopped.is_some());
        acknowledged = acknowledged.max(said.unwrap_or(0));
        let at = format!("seed {seed}, round {round}, stopped {stopped:?}, acknowledged {acknowledged}");
        let read_only = Options::new().read_only(true).open(&path).unwrap_or_else(|e| panic!("{at}: {e}"));
        let seen = history.judge(&read_only).unwrap_or_else(|e| panic!("{at}, read-only: {e}"));
        drop(read_only);
        assert!(seen >= acknowledged, "{at}: the state is {seen}");
        acknowledged = seen;
        // Every other time the next child recovers, not this process.
        if round % 4 < 2 {
            let db = Db::open_existing(&path).unwrap_or_else(|e| panic!("{at}: {e}"));
            assert_eq!(history.judge(&db).unwrap_or_else(|e| panic!("{at}: {e}")), seen, "{at}");
            acknowledged = history.commit_next(&db).unwrap_or_else(|e| panic!("{at}: {e}"));
            assert_eq!(acknowledged, seen + 1, "{at}");
            history.judge(&db).unwrap_or_else(|e| panic!("{at}, after a commit: {e}"));
        }
    }
    assert!(in_commit * 2 >= kills, "{in_commit} of {kills} kills at an event");
    // Written directly, because the harness would capture it.
    writeln!(io::stdout(), "\nSIGKILL: {kills} cycles, violations 0 (pages of {page_size} bytes)").ok();
}

fn kills() -> u64 {
    if long() {
        1000
    } else {
        128
    }
}

#[test]
fn killed_processes_lose_nothing_that_was_acknowledged() {
    rounds(0x41, 4096, kills());
}

#[test]
fn killed_processes_lose_nothing_that_was_acknowledged_16k() {
    rounds(0x42, 16384, kills());
}
