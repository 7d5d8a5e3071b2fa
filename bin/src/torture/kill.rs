//! One kill: starts a writer, lets it run for a while, and ends it by SIGKILL.
//!
//! Half of the kills aim at commits: the parent waits until the writer begins its k-th commit, and
//! then for a random fraction of the time that recent commits took. The other kills come some time
//! after the start or after a commit. So they also hit creation, recovery, the changes before a
//! commit, and closing.

use std::ffi::OsStr;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use crate::exit::Failure;
use crate::random::Rng;
use crate::terminal::interrupt;
use crate::torture::plan::Plan;
use crate::torture::process::{Event, Process};

/// After this time without output, a writer counts as hanging.
const HANG_TIMEOUT: Duration = Duration::from_secs(120);
/// Number of commits of a writer after which it is killed at the latest.
const COMMITS_MAX: u64 = 24;

/// The moment of a kill. `part` is a fraction, in 1/1024.
#[derive(Clone, Copy, Debug)]
enum Moment {
    /// When this fraction of a commit has passed since commit number `commits` began.
    InCommit { commits: u64, part: u64 },
    /// Some time after the start, or after commit number `commits` returned.
    Anywhere { commits: u64, part: u64 },
}

/// Recent durations of commits and openings, from which delays are computed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Durations {
    commit: Duration,
    opening: Duration,
}

impl Durations {
    pub(crate) fn new() -> Durations {
        Durations { commit: Duration::from_millis(1), opening: Duration::from_millis(10) }
    }
}

/// The reports of a writer before its kill.
#[derive(Clone, Debug, Default)]
pub(crate) struct Killed {
    /// The last transaction that was begun, and the last one that was acknowledged.
    pub(crate) begun: Option<u64>,
    pub(crate) done: Option<u64>,
    /// Number of commits that returned.
    pub(crate) commits: u64,
    /// Whether the writer was inside a commit.
    pub(crate) in_commit: bool,
    /// How the writer ended, if it did so before the kill.
    pub(crate) ended: Option<String>,
    /// Whether SIGINT came.
    pub(crate) interrupted: bool,
}

impl Killed {
    /// Processes a line of the writer's output: `begin N` or `done N`.
    fn take_line(&mut self, line: &str) {
        let (word, number) = line.split_once(' ').unwrap_or((line, ""));
        match (word, number.parse()) {
            ("begin", Ok(number)) => (self.begun, self.in_commit) = (Some(number), true),
            ("done", Ok(number)) => {
                (self.done, self.in_commit) = (Some(number), false);
                self.commits += 1;
            }
            _ => {}
        }
    }
}

/// Chooses the moment of a kill.
fn moment(rng: &mut Rng, in_commit: bool) -> Moment {
    let (commits, part) = (rng.below(COMMITS_MAX), rng.below(1024));
    match in_commit {
        true => Moment::InCommit { commits: 1 + commits, part },
        // Every fourth kill comes before the first commit returns.
        false => Moment::Anywhere { commits: if rng.one_in(4) { 0 } else { 1 + commits }, part },
    }
}

/// Starts a writer and kills it.
pub(crate) fn kill(
    path: &Path,
    plan: Plan,
    rng: &mut Rng,
    in_commit: bool,
    durations: &mut Durations,
) -> Result<Killed, Failure> {
    let moment = moment(rng, in_commit);
    let (seed, keys) = (plan.seed.to_string(), plan.keys.to_string());
    let started = Instant::now();
    let mut child = Process::start(&[
        OsStr::new("write"),
        path.as_os_str(),
        OsStr::new("--seed"),
        OsStr::new(&seed),
        OsStr::new("--keys"),
        OsStr::new(&keys),
    ])?;
    let mut killed = Killed::default();
    let delay = wait(&mut child, moment, started, durations, &mut killed);
    if !killed.interrupted {
        thread::sleep(delay);
    }
    let (rest, ended) = child.kill();
    rest.iter().for_each(|line| killed.take_line(line));
    killed.ended = killed.ended.or(ended);
    Ok(killed)
}

/// Follows the writer's output until the kill is due, and returns the remaining delay.
fn wait(
    child: &mut Process,
    moment: Moment,
    started: Instant,
    durations: &mut Durations,
    killed: &mut Killed,
) -> Duration {
    let (mut begun, mut began_at) = (0, started);
    let part_of = |whole: Duration, part: u64| whole.mul_f64(part as f64 / 1024.0);
    if let Moment::Anywhere { commits: 0, part } = moment {
        return part_of(durations.opening * 2, part);
    }
    loop {
        let (line, time) = match child.line(HANG_TIMEOUT) {
            Event::Line(line, time) => (line, time),
            Event::End => return Duration::ZERO,
            Event::Timeout => {
                killed.ended = Some("it hangs".to_string());
                return Duration::ZERO;
            }
            Event::Interrupted => {
                killed.interrupted = true;
                return Duration::ZERO;
            }
        };
        killed.take_line(&line);
        if killed.in_commit {
            begun += 1;
            if begun == 1 {
                durations.opening = time - started;
            }
            began_at = time;
        } else {
            durations.commit = (durations.commit * 3 + (time - began_at)) / 4;
        }
        match moment {
            Moment::InCommit { commits, part } if killed.in_commit && begun >= commits => {
                return part_of(durations.commit, part);
            }
            Moment::Anywhere { commits, part } if killed.commits >= commits => {
                return part_of(durations.commit * 4, part);
            }
            _ => {}
        }
        if interrupt::requested() {
            killed.interrupted = true;
            return Duration::ZERO;
        }
    }
}
