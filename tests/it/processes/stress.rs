//! Processes that read and write verified transactions while the parent kills and restarts them.
//!
//! Each process has a number and a counter. A transaction moves money between two accounts, raises
//! the counter of its process, and stores two values that process and counter determine: one under
//! a new key, so that the file grows all the time, and one in place of an older one. So any process
//! can compute what any snapshot must hold: the accounts have the same sum always, and the counters
//! tell all the rest.
//!
//! A process tells its parent each counter that was acknowledged. Processes are killed one by one
//! and restarted, now and then all at once; then a judge compares the whole file.

use std::io::{self, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::reexec::{self, Process};
use crate::support::long;
use crate::workload::{fast_dir, Rng};

/// Processes that work at a time.
pub(super) const WORKERS: usize = 4;

/// What the children have done and found.
#[derive(Default, Debug)]
struct Tally {
    commits: u64,
    kills: u64,
    kills_of_all: u64,
    /// What a child said that it must not say, and deaths by something else than the parent.
    failures: Vec<String>,
}

/// What the parent knows of the counter of a worker.
#[derive(Clone, Copy, Default)]
struct Known {
    /// The newest counter that was acknowledged.
    acknowledged: u64,
    /// Workers killed since: each may have committed once more before it could tell.
    in_doubt: u64,
}

impl Tally {
    fn hear(&mut self, at: &str, line: &str, known: &mut Known) {
        match line.parse() {
            Ok(counter) => {
                self.commits += 1;
                *known = Known { acknowledged: counter, in_doubt: 1 };
            }
            Err(_) => self.failures.push(format!("{at}: {line}")),
        }
    }

    /// Waits until a worker commits once more. One that is stuck ends itself at last.
    fn await_progress(&mut self, at: &str, worker: &mut Process, known: &mut Known) {
        worker.say("report");
        loop {
            match worker.line().as_deref() {
                Some("progress") => break,
                Some(line) => self.hear(at, line, known),
                None => break,
            }
        }
    }

    /// Kills a worker and hears what it had said.
    fn kill(&mut self, at: &str, worker: &mut Process, known: &mut Known) {
        let (lines, status) = worker.kill_and_hear();
        self.kills += 1;
        known.in_doubt += 1;
        lines.iter().for_each(|line| self.hear(at, line, known));
        match status.signal() {
            Some(9) => {}
            Some(14) => self.failures.push(format!("{at}: stuck, no progress in {} s", reexec::PATIENCE)),
            _ => self.failures.push(format!("{at}: ended by itself: {status}")),
        }
    }

    #[track_caller]
    fn assert_clean(&self) {
        assert!(self.failures.is_empty(), "{} failures: {:#?}", self.failures.len(), self.failures);
    }
}

fn start(path: &Path, seed: u64, worker: usize, known: Known) -> Process {
    let numbers = [worker as u64, known.acknowledged, known.in_doubt, seed].map(|n| n.to_string());
    let name = "processes::worker::worker_child";
    reexec::start(reexec::command(name, &[&path, &numbers[0], &numbers[1], &numbers[2], &numbers[3]]))
}

/// A judge: prepares a new file, or compares all of an old one with what is known. Returns the
/// counters.
fn judge(path: &Path, known: [Known; WORKERS], seed: u64) -> [Known; WORKERS] {
    let numbers = known.map(|known| format!("{} {}", known.acknowledged, known.in_doubt)).join(" ");
    let mut judge = reexec::start(reexec::command("processes::worker::judging_child", &[&path, &numbers]));
    let answer = judge.line().unwrap_or_else(|| "died".into());
    let counters = || answer.strip_prefix("counters ")?.split(' ').map(|n| n.parse().ok()).collect();
    let counters = Option::<Vec<u64>>::unwrap_or_else(counters(), || panic!("seed {seed}, all were killed: {answer}"));
    judge.finish();
    let counters: [u64; WORKERS] = counters.try_into().expect("a counter for each");
    counters.map(|acknowledged| Known { acknowledged, in_doubt: 0 })
}

/// Kills one process after another, then all, again and again.
fn run(what: &str, dir: &Path, seconds: u64, largest: u64) {
    let path = dir.join("stress.mapleaf");
    let seed = crate::support::seed(what);
    let (mut rng, mut tally, started) = (Rng(seed), Tally::default(), Instant::now());
    let mut known = judge(&path, Default::default(), seed);
    while started.elapsed() < Duration::from_secs(seconds) {
        let mut workers: Vec<Process> = (0..WORKERS).map(|n| start(&path, rng.next(), n, known[n])).collect();
        for _ in 0..10 + rng.below(40) {
            std::thread::sleep(Duration::from_millis(50));
            let (at, n) = (format!("seed {seed}, kill {}", tally.kills), rng.below(WORKERS as u64) as usize);
            tally.kill(&at, &mut workers[n], &mut known[n]);
            tally.assert_clean();
            workers[n] = start(&path, rng.next(), n, known[n]);
        }
        for (n, worker) in workers.iter_mut().enumerate() {
            tally.await_progress(&format!("seed {seed}, progress"), worker, &mut known[n]);
        }
        for (n, worker) in workers.iter_mut().enumerate() {
            tally.kill(&format!("seed {seed}, kill of all"), worker, &mut known[n]);
        }
        tally.kills_of_all += 1;
        tally.assert_clean();
        known = judge(&path, known, seed);
        if std::fs::metadata(&path).expect("the file").len() > largest {
            std::fs::remove_file(&path).expect("removed");
            known = judge(&path, Default::default(), seed);
        }
    }
    let Tally { commits, kills, kills_of_all, .. } = tally;
    let found = "lost commits 0, wrong reads 0, stuck 0, Fault 0, Poisoned 0";
    writeln!(io::stdout(), "\n{what}: {commits} commits, {kills} kills, {kills_of_all} times all: {found}").ok();
    assert!(commits > 20 * kills_of_all, "{commits} commits only");
}

/// Ten minutes in all in long runs.
fn seconds() -> u64 {
    if long() > 1 {
        300
    } else {
        5
    }
}

#[test]
fn killed_and_restarted_processes_lose_nothing_and_read_nothing_wrong() {
    let dir = fast_dir();
    run("stress in memory", dir.path(), seconds(), 48 << 20);
}

#[test]
fn killed_and_restarted_processes_lose_nothing_and_read_nothing_wrong_on_a_disk() {
    let dir = tempfile::tempdir().expect("a directory");
    run("stress on a disk", dir.path(), seconds(), 48 << 20);
}
