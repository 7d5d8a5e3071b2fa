//! Runs the cycles: each kills a writer, judges the file, and judges damaged copies. The run ends
//! after all cycles, at the first violation, or at SIGINT.
//!
//! The parent keeps two numbers: the newest transaction that was begun, and the newest that was
//! acknowledged or seen in the file. The next judge must find a state between them.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::exit::{Exit, Failure};
use crate::random::Rng;
use crate::terminal::interrupt;
use crate::terminal::progress::Progress;
use crate::torture::copies::{Damage, DamagedCopy};
use crate::torture::judge::Verdict;
use crate::torture::kill::{self, Durations, Killed};
use crate::torture::plan::Plan;
use crate::torture::process::{Event, Process};
use crate::torture::report::Report;

/// After this time without output, a judge counts as hanging.
const HANG_TIMEOUT: Duration = Duration::from_secs(300);

/// The options of a run.
pub(crate) struct Settings {
    pub(crate) path: PathBuf,
    pub(crate) cycles: u64,
    pub(crate) seed: u64,
    pub(crate) max_bytes: u64,
    pub(crate) truncate: bool,
    pub(crate) flip: bool,
}

/// The reason why the cycles end early.
pub(crate) enum End {
    /// Data is lost or wrong.
    Violation(String),
    /// The file was wrong before the first kill.
    ViolatedBefore(String),
    Failure(Failure),
    Interrupted,
}

impl From<Failure> for End {
    fn from(failure: Failure) -> End {
        End::Failure(failure)
    }
}

/// A run in progress.
pub(crate) struct Run {
    settings: Settings,
    plan: Plan,
    durations: Durations,
    /// The newest transaction that was acknowledged or seen in the file; `None` before the first.
    acknowledged: Option<u64>,
    /// The newest transaction that was begun.
    begun: u64,
    pub(crate) report: Report,
}

impl Run {
    /// Starts a run. The file must be missing, or be the database of an earlier run.
    pub(crate) fn start(settings: Settings, seed_given: bool) -> Result<Run, End> {
        let file = settings.path.display().to_string();
        let mut run = Run {
            plan: Plan::new(settings.seed, settings.max_bytes),
            durations: Durations::new(),
            acknowledged: None,
            begun: 0,
            report: Report { file: file.clone(), seed: settings.seed, ..Report::default() },
            settings,
        };
        if fs::symlink_metadata(&run.settings.path).is_err() {
            return Ok(run);
        }
        let usage = |text: &str| End::Failure(Failure::usage(format!("{file}: {text}")));
        match judge(&run.settings.path, false, None)? {
            Verdict::State { number, seed } => {
                if seed_given && seed != run.plan.seed {
                    return Err(usage(&format!(
                        "was created with seed {seed}; leave out --seed, or give another path"
                    )));
                }
                (run.plan.seed, run.report.seed) = (seed, seed);
                (run.acknowledged, run.begun) = (Some(number), number);
                Ok(run)
            }
            Verdict::Violation(text) => Err(End::ViolatedBefore(text)),
            Verdict::Cannot(text) => Err(End::Failure(Failure::new(Exit::Io, format!("{text}; nothing was done")))),
            _ => Err(usage("exists and was not made by 'kvctl torture'; give a path where no file exists")),
        }
    }

    /// Runs all cycles.
    pub(crate) fn cycles(&mut self, progress: &Progress) -> Result<(), End> {
        let started = Instant::now();
        let mut result = Ok(());
        for cycle in 1..=self.settings.cycles {
            result = self.cycle(cycle);
            self.report.seconds = started.elapsed().as_secs_f64();
            if result.is_err() {
                break;
            }
            self.report.cycles = cycle;
            progress.set_note(format!("{} transactions", self.report.transactions));
            progress.set(cycle, self.settings.cycles);
            interrupt::set_summary(format!("{cycle} of {} cycles were done, violations: 0", self.settings.cycles));
            if interrupt::requested() {
                return Err(End::Interrupted);
            }
        }
        result.map_err(|end| match end {
            End::Violation(text) => {
                self.report.violations = 1;
                End::Violation(format!("cycle {}: {text}", self.report.cycles + 1))
            }
            other => other,
        })
    }

    fn cycle(&mut self, cycle: u64) -> Result<(), End> {
        let mut rng = Rng::of(self.plan.seed ^ 0x6b69_6c6c, cycle);
        let killed = kill::kill(&self.settings.path, self.plan, &mut rng, cycle % 2 == 1, &mut self.durations)?;
        if killed.interrupted {
            return Err(End::Interrupted);
        }
        self.count(&killed);
        if let Some(how) = killed.ended {
            return Err(self.writer_ended(&how));
        }
        self.judge_file(cycle)?;
        if self.settings.truncate {
            self.judge_copy(Damage::Cut, cycle, &mut rng)?;
        }
        if self.settings.flip {
            self.judge_copy(Damage::Flips, cycle, &mut rng)?;
        }
        Ok(())
    }

    fn count(&mut self, killed: &Killed) {
        self.acknowledged = self.acknowledged.max(killed.done);
        self.begun = self.begun.max(killed.begun.unwrap_or(0));
        self.report.transactions += killed.commits;
        match killed.in_commit {
            true => self.report.kills_in_commit += 1,
            false => self.report.kills_elsewhere += 1,
        }
        let bytes = fs::metadata(&self.settings.path).map_or(0, |meta| meta.len());
        self.report.largest_bytes = self.report.largest_bytes.max(bytes);
    }

    /// The reason to end the cycles if a writer ended by itself. The writer has printed its error
    /// to standard error.
    fn writer_ended(&self, how: &str) -> End {
        // These exit codes are no violation: a full disk, or a lock that another process holds.
        for exit in [Exit::Io, Exit::Permission, Exit::Held, Exit::NotFound] {
            if how.ends_with(&format!("exit code {}", exit.code())) {
                // A writer creates a missing file, so the folder is missing.
                let exit = if exit == Exit::NotFound { Exit::Io } else { exit };
                return End::Failure(Failure::new(exit, format!("{}: the writer: {how}", self.report.file)));
            }
        }
        End::Violation(format!("the writer: {how}"))
    }

    /// Judges the file read-only. In half of the cycles, a second judge opens it for writing, which
    /// recovers it. In the others, the next writer recovers it.
    fn judge_file(&mut self, cycle: u64) -> Result<(), End> {
        let seen = self.state(judge(&self.settings.path, false, Some(self.begun))?)?;
        if seen > self.acknowledged {
            self.report.newer_than_acknowledged += 1;
        }
        self.acknowledged = seen;
        if cycle % 4 < 2 && seen.is_some() {
            let recovered = self.state(judge(&self.settings.path, true, Some(self.begun))?)?;
            if recovered != seen {
                return Err(End::Violation(format!("read-only {seen:?}, for writing {recovered:?}")));
            }
            self.report.recoveries += 1;
        }
        Ok(())
    }

    /// The transaction number of the state in a file that must be undamaged.
    fn state(&self, verdict: Verdict) -> Result<Option<u64>, End> {
        let seen = match verdict {
            Verdict::State { number, seed } if seed == self.plan.seed => Some(number),
            Verdict::State { seed, .. } => {
                return Err(End::Violation(format!("the seed is {seed}, expected {}", self.plan.seed)));
            }
            Verdict::Nothing => None,
            Verdict::Recovered { .. } => return Err(End::Violation("it was cut".to_string())),
            Verdict::Cannot(text) => return Err(End::Failure(Failure::new(Exit::Io, text))),
            Verdict::Refused(text) | Verdict::Errors(text) | Verdict::Foreign(text) | Verdict::Violation(text) => {
                return Err(End::Violation(text))
            }
        };
        if seen < self.acknowledged {
            return Err(End::Violation(format!("the state is {seen:?}, acknowledged was {:?}", self.acknowledged)));
        }
        Ok(seen)
    }

    /// Judges two copies with damage of one kind: one read-only, one opened for writing.
    fn judge_copy(&mut self, damage: Damage, cycle: u64, rng: &mut Rng) -> Result<(), End> {
        if self.acknowledged.is_none() {
            return Ok(());
        }
        let failed = |error| End::Failure(Failure::writing("a copy of the database", &error));
        for writes in [false, true] {
            let (copy, description) = DamagedCopy::create(&self.settings.path, damage, cycle, rng).map_err(failed)?;
            let verdict = judge_damaged(copy.path(), writes, self.begun)?;
            let report = &mut self.report;
            let (refused, right, errors) = match damage {
                Damage::Cut => (&mut report.cut_refused, &mut report.cut_right, &mut report.cut_errors),
                Damage::Flips => (&mut report.flipped_refused, &mut report.flipped_right, &mut report.flipped_errors),
            };
            match verdict {
                Verdict::Refused(_) => *refused += 1,
                Verdict::Errors(_) => *errors += 1,
                Verdict::State { .. } => *right += 1,
                Verdict::Recovered { seed, .. } if seed == self.plan.seed => report.cut_recovered += 1,
                Verdict::Recovered { seed, .. } => {
                    return Err(violating(copy, &description, &format!("recovered, its seed is {seed}")))
                }
                Verdict::Nothing if self.acknowledged <= Some(1) => *right += 1,
                Verdict::Cannot(text) => return Err(End::Failure(Failure::new(Exit::Io, text))),
                Verdict::Nothing => return Err(violating(copy, &description, "it opens as an empty database")),
                Verdict::Foreign(text) | Verdict::Violation(text) => return Err(violating(copy, &description, &text)),
            }
        }
        Ok(())
    }
}

/// The violation of a damaged copy, which stays.
fn violating(copy: DamagedCopy, description: &str, text: &str) -> End {
    End::Violation(format!("a copy, {description}: {text}; the copy stays as {}", copy.keep().display()))
}

/// Judges a file that only kills have harmed.
fn judge(path: &Path, writes: bool, newest: Option<u64>) -> Result<Verdict, End> {
    run_judge(path, writes, false, newest)
}

/// Judges a damaged copy.
fn judge_damaged(path: &Path, writes: bool, newest: u64) -> Result<Verdict, End> {
    run_judge(path, writes, true, Some(newest))
}

/// Starts a judge and returns its verdict. If the judge dies, panics or hangs, that is a violation.
fn run_judge(path: &Path, writes: bool, damaged: bool, newest: Option<u64>) -> Result<Verdict, End> {
    let newest = newest.unwrap_or(u64::MAX).to_string();
    let mut arguments = vec![OsStr::new("judge"), path.as_os_str(), OsStr::new("--newest"), OsStr::new(&newest)];
    arguments.extend(writes.then_some(OsStr::new("--writes")));
    arguments.extend(damaged.then_some(OsStr::new("--damaged")));
    let mut child = Process::start(&arguments)?;
    let mut verdict = None;
    loop {
        match child.line(HANG_TIMEOUT) {
            Event::Line(line, _) => verdict = serde_json::from_str(&line).ok(),
            Event::End => break,
            Event::Timeout => return Ok(Verdict::Violation("the process that reads it hangs".to_string())),
            Event::Interrupted => return Err(End::Interrupted),
        }
    }
    let ended = child.finish();
    Ok(match (verdict, ended) {
        (Some(verdict), None) => verdict,
        (_, ended) => {
            let how = ended.unwrap_or_else(|| "it printed nothing".to_string());
            Verdict::Violation(format!("the process that reads it: {how}"))
        }
    })
}
