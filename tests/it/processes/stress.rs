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
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::broker::Broker;
use crate::reexec::{self, Process};
use crate::support::long;
use crate::workload::{fast_dir, Rng};

/// Processes that work at a time.
const PROCESSES: usize = 4;
/// Threads of each process.
const THREADS: usize = 2;
/// Threads of all processes; each has a counter.
pub(super) const WORKERS: usize = PROCESSES * THREADS;

/// What the parent knows of all counters.
type AllKnown = [Known; WORKERS];

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
    fn hear(&mut self, at: &str, line: &str, known: &mut AllKnown) {
        let told =
            line.split_once(' ').and_then(|(n, counter)| Some((n.parse::<usize>().ok()?, counter.parse().ok()?)));
        match told {
            Some((n, counter)) => {
                self.commits += 1;
                known[n] = Known { acknowledged: counter, in_doubt: 1 };
            }
            None => self.failures.push(format!("{at}: {line}")),
        }
    }

    /// Waits until each thread of a process commits once more. A process that is stuck ends itself
    /// at last.
    fn await_progress(&mut self, at: &str, process: &mut Process, known: &mut AllKnown) {
        process.say("report");
        let mut threads = 0;
        while threads < THREADS {
            match process.line().as_deref() {
                Some("progress") => threads += 1,
                Some(line) => self.hear(at, line, known),
                None => break,
            }
        }
    }

    /// Kills a process and hears what it had said.
    fn kill(&mut self, at: &str, process: &mut Process, number: usize, known: &mut AllKnown) {
        let (lines, status) = process.kill_and_hear();
        self.kills += 1;
        known[number * THREADS..][..THREADS].iter_mut().for_each(|known| known.in_doubt += 1);
        lines.iter().filter(|line| *line != "progress").for_each(|line| self.hear(at, line, known));
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

fn start(path: &Path, seed: u64, number: usize, known: &AllKnown) -> Process {
    let workers = number * THREADS..(number + 1) * THREADS;
    let numbers = workers.map(|n| format!("{n} {} {}", known[n].acknowledged, known[n].in_doubt));
    let numbers = numbers.collect::<Vec<_>>().join(" ");
    let name = "processes::worker::worker_child";
    reexec::start(reexec::command(name, &[&path, &seed.to_string(), &numbers]))
}

/// A judge: prepares a new file, or compares all of an old one with what is known. Returns the
/// counters.
fn judge(path: &Path, known: AllKnown, seed: u64) -> AllKnown {
    let numbers = known.map(|known| format!("{} {}", known.acknowledged, known.in_doubt)).join(" ");
    let page_size = (4096 << (seed % 4)).to_string();
    let command = reexec::command("processes::worker::judging_child", &[&path, &numbers, &page_size]);
    let mut judge = reexec::start(command);
    let answer = judge.line().unwrap_or_else(|| "died".into());
    let counters = || answer.strip_prefix("counters ")?.split(' ').map(|n| n.parse().ok()).collect();
    let counters = Option::<Vec<u64>>::unwrap_or_else(counters(), || panic!("seed {seed}, all were killed: {answer}"));
    judge.finish();
    let counters: [u64; WORKERS] = counters.try_into().expect("a counter for each");
    counters.map(|acknowledged| Known { acknowledged, in_doubt: 0 })
}

/// Where the processes find their database.
enum Place<'p> {
    File(&'p Path),
    Memory(&'p Broker),
}

impl Place<'_> {
    fn path(&self) -> PathBuf {
        match self {
            Place::File(dir) => dir.join("stress.mapleaf"),
            Place::Memory(broker) => broker.path(),
        }
    }

    /// Removes the database if it is larger than so many bytes. No process has it open.
    fn limit(&self, bytes: u64) -> bool {
        let len = match self {
            Place::File(_) => std::fs::metadata(self.path()).expect("the file").len(),
            Place::Memory(broker) => broker.data_bytes(),
        };
        let removed = len > bytes;
        match self {
            Place::File(_) if removed => std::fs::remove_file(self.path()).expect("removed"),
            Place::Memory(broker) if removed => broker.forget(),
            _ => {}
        }
        removed
    }
}

/// Kills one process after another, then all, again and again.
fn run(what: &str, place: &Place<'_>, seconds: u64, largest: u64) {
    let path = place.path();
    let seed = crate::support::seed(what);
    let (mut rng, mut tally, started) = (Rng(seed), Tally::default(), Instant::now());
    let mut known = judge(&path, Default::default(), seed);
    while started.elapsed() < Duration::from_secs(seconds) {
        let mut processes: Vec<Process> = (0..PROCESSES).map(|n| start(&path, rng.next(), n, &known)).collect();
        for _ in 0..10 + rng.below(40) {
            std::thread::sleep(Duration::from_millis(50));
            let (at, n) = (format!("seed {seed}, kill {}", tally.kills), rng.below(PROCESSES as u64) as usize);
            tally.kill(&at, &mut processes[n], n, &mut known);
            tally.assert_clean();
            processes[n] = start(&path, rng.next(), n, &known);
        }
        for process in &mut processes {
            tally.await_progress(&format!("seed {seed}, progress"), process, &mut known);
        }
        for (n, process) in processes.iter_mut().enumerate() {
            tally.kill(&format!("seed {seed}, kill of all"), process, n, &mut known);
        }
        tally.kills_of_all += 1;
        tally.assert_clean();
        known = judge(&path, known, seed);
        if place.limit(largest) {
            known = judge(&path, Default::default(), rng.next());
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
    run("stress in memory", &Place::File(dir.path()), seconds(), 48 << 20);
}

#[test]
fn killed_and_restarted_processes_lose_nothing_and_read_nothing_wrong_on_a_disk() {
    let dir = tempfile::tempdir().expect("a directory");
    run("stress on a disk", &Place::File(dir.path()), seconds(), 48 << 20);
}

#[test]
fn killed_and_restarted_processes_lose_nothing_and_read_nothing_wrong_in_shared_memory() {
    run("stress in shared memory", &Place::Memory(&Broker::start()), seconds(), 48 << 20);
}
