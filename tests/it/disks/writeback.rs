//! Failed write-back: a page or a flush does not reach the disk. Then a retry, a reopening, and
//! power cuts.
//!
//! The affected commit fails with `Io` and the handle is poisoned. After a power cut, the file has
//! every commit that was acknowledged before, and every one that was acknowledged after reopening.

use std::path::{Path, PathBuf};

use super::fuse::{Faulty, Plan};
use super::remote::Remote;
use super::{run, skipped, Mount};
use crate::support::{long, seed, Rng};
use crate::workload::{fast_dir, History};

/// The fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fault {
    /// One write of some pages, once.
    Write,
    /// One block, until the power cut.
    Block,
    /// Every n-th flush.
    Flush,
}

/// The counts of all runs.
#[derive(Debug, Default)]
struct Tally {
    runs: u64,
    failures: u64,
    reopened: u64,
    refused: u64,
    cuts: u64,
    wrong: Vec<String>,
}

impl Tally {
    fn wrong(&mut self, run: u64, what: String) {
        self.wrong.push(format!("run {run}: {what}"));
    }

    #[track_caller]
    fn finish(self, what: &str) {
        println!(
            "{what}: {} runs, {} failures, {} reopened, {} refused, {} power cuts, {} wrong",
            self.runs,
            self.failures,
            self.reopened,
            self.refused,
            self.cuts,
            self.wrong.len()
        );
        assert!(self.failures >= 40 || self.runs == 0, "{what}: only {} failures", self.failures);
        assert!(
            self.wrong.is_empty(),
            "{what}: {} wrong, the first: {:#?}",
            self.wrong.len(),
            &self.wrong[..self.wrong.len().min(8)]
        );
    }
}

/// A database on a disk that can fail and lose power.
trait Setup {
    fn database(&self) -> PathBuf;
    /// Sets the fault from now on.
    fn arm(&self, fault: Fault, rng: &mut Rng);
    fn disarm(&self);
    /// Whether the running transaction loses pages that cannot be written. FUSE drops all cached
    /// pages when the length changes, also those that it has just failed to write; they then read
    /// as before.
    fn forgets_unwritten(&self) -> bool;
    /// Plans power cuts at some of the next requests.
    fn plan_cuts(&self, rng: &mut Rng);
    /// Databases after the planned power cuts and, with `now`, after one at this moment.
    fn power_cuts(&self, now: bool, judge: &mut dyn FnMut(&Path));
}

/// A database directly on the failing file system.
struct Direct(Faulty);

const NAME: &str = "test.mapleaf";

impl Setup for Direct {
    fn database(&self) -> PathBuf {
        self.0.path(NAME)
    }

    fn arm(&self, fault: Fault, rng: &mut Rng) {
        let len = std::fs::metadata(self.database()).map_or(1 << 16, |metadata| metadata.len());
        self.0.plan(plan(fault, rng, std::iter::once(0..len)));
    }

    fn disarm(&self) {
        self.0.plan(Plan::default());
    }

    fn forgets_unwritten(&self) -> bool {
        true
    }

    fn plan_cuts(&self, _: &mut Rng) {
        self.0.plan(Plan { cuts: Some(0..24), ..Plan::default() });
    }

    fn power_cuts(&self, now: bool, judge: &mut dyn FnMut(&Path)) {
        let images =
            self.0.planned_cuts().into_iter().chain(now.then(|| self.0.power_cuts(NAME)).into_iter().flatten());
        for image in images {
            let dir = fast_dir();
            let path = dir.path().join(NAME);
            std::fs::write(&path, image).expect("an image");
            judge(&path);
        }
    }
}

/// A database on ext4, whose disk image is on the failing file system.
struct OnExt4 {
    // Dropped in this order.
    _mount: Mount,
    faulty: Faulty,
    dir: tempfile::TempDir,
}

impl OnExt4 {
    fn new(seed: u64) -> Result<OnExt4, String> {
        let dir = fast_dir();
        let image = dir.path().join("image");
        std::fs::File::create(&image).and_then(|file| file.set_len(16 << 20)).map_err(|e| e.to_string())?;
        run(&["mkfs.ext4", "-q", "-F", "-m", "0", "-b", "4096"], &[&image])?;
        let faulty = Faulty::new(seed, &[("disk", std::fs::read(&image).map_err(|e| e.to_string())?)])?;
        let at = dir.path().join("mounted");
        std::fs::create_dir(&at).map_err(|e| e.to_string())?;
        let device = run(&["losetup", "--find", "--show", "--direct-io=on"], &[&faulty.path("disk")])?;
        let device = PathBuf::from(device.trim());
        let mount = Mount::new(&["-t", "ext4", "-o", "errors=continue"], &device, &at);
        // The device stays as long as it is mounted.
        run(&["losetup", "--detach"], &[&device])?;
        Ok(OnExt4 { _mount: mount?, faulty, dir })
    }

    /// The ranges of the database's blocks on the disk.
    fn extents(&self) -> Vec<std::ops::Range<u64>> {
        let listed = run(&["filefrag", "-b4096", "-v"], &[&self.database()]).unwrap_or_default();
        let number = |field: &str| field.trim().trim_end_matches(['.', ':']).parse::<u64>().ok();
        // "   0:        0..      23:       4242..      4265:     24:             last,eof"
        let extent = |line: &str| {
            let mut fields = line.split(':').nth(2)?.split("..");
            let (first, last) = (number(fields.next()?)?, number(fields.next()?)?);
            Some(first * 4096..(last + 1) * 4096)
        };
        listed.lines().filter_map(extent).collect()
    }
}

impl Setup for OnExt4 {
    fn database(&self) -> PathBuf {
        self.dir.path().join("mounted").join(NAME)
    }

    fn arm(&self, fault: Fault, rng: &mut Rng) {
        let extents = self.extents();
        assert!(!extents.is_empty(), "where the database lies is not known");
        self.faulty.plan(plan(fault, rng, extents.into_iter()));
    }

    fn disarm(&self) {
        self.faulty.plan(Plan::default());
    }

    fn forgets_unwritten(&self) -> bool {
        false
    }

    fn plan_cuts(&self, rng: &mut Rng) {
        let from = rng.below(24);
        self.faulty.plan(Plan { cuts: Some(from..from + 2), ..Plan::default() });
    }

    fn power_cuts(&self, now: bool, judge: &mut dyn FnMut(&Path)) {
        let at_rest = now.then(|| self.faulty.power_cuts("disk")).into_iter().flatten();
        for (number, image) in self.faulty.planned_cuts().into_iter().chain(at_rest).enumerate() {
            let dir = fast_dir();
            let (path, at) = (dir.path().join("image"), dir.path().join("mounted"));
            std::fs::write(&path, image).expect("an image");
            std::fs::create_dir(&at).expect("a directory");
            let mounted = Mount::new(&["-o", "loop"], &path, &at);
            assert!(mounted.is_ok(), "image {number}: {mounted:?}");
            judge(&at.join(NAME));
        }
    }
}

/// The faults for a failure somewhere in these ranges.
fn plan(fault: Fault, rng: &mut Rng, ranges: impl Iterator<Item = std::ops::Range<u64>>) -> Plan {
    let blocks: Vec<u64> = ranges.flat_map(|range| range.step_by(4096)).collect();
    match fault {
        Fault::Write => Plan { write_after: Some(rng.below(5)), ..Plan::default() },
        Fault::Block => {
            let at = blocks[rng.below(blocks.len().min(60) as u64) as usize];
            Plan { unwritable: std::iter::once(at..at + 4096).collect(), ..Plan::default() }
        }
        Fault::Flush => Plan { flush_every: Some(1 + rng.below(4)), ..Plan::default() },
    }
}

/// The number at the end of an answer like "ok 12" or "failed Io after 12".
fn number(answer: &str) -> u64 {
    answer.rsplit(' ').next().and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("answer {answer}"))
}

/// One failure and the steps after it. Updates the last acknowledged commit and the counts.
fn one_run(setup: &dyn Setup, fault: Fault, run_seed: u64, tally: &mut Tally) {
    let mut rng = Rng::new(run_seed);
    let history = History::small(run_seed);
    let mut remote = Remote::start(&setup.database(), run_seed);
    assert_eq!(remote.ask("open"), "ok");
    let mut acknowledged = number(&remote.ask(&format!("commit {}", 3 + rng.below(9))));
    setup.arm(fault, &mut rng);
    tally.runs += 1;
    let failed = remote.ask("commit 60");
    if failed.starts_with("ok") {
        acknowledged = number(&failed);
    } else if failed.starts_with("failed Io") || failed.starts_with("failed Poisoned") {
        // Poisoned: a checkpoint beside the commits met the failure.
        tally.failures += 1;
        acknowledged = number(&failed);
        let again = remote.ask("commit 1");
        if !again.starts_with("failed Poisoned") {
            tally.wrong(run_seed, format!("the retry: {again}"));
        }
    } else if fault == Fault::Block && setup.forgets_unwritten() && is_forgotten(&failed) {
        acknowledged = number(&failed);
    } else {
        tally.wrong(run_seed, format!("the commit: {failed}"));
    }
    if fault != Fault::Block {
        setup.disarm();
    }
    let what_then = rng.below(3);
    if what_then > 0 && !failed.starts_with("ok") {
        if what_then == 1 {
            remote.ask("close");
        } else {
            remote.kill();
            remote = Remote::start(&setup.database(), run_seed);
        }
        // A database on a broken disk may refuse to open; but no commit may be lost.
        let opened = remote.ask("open");
        if opened == "ok" {
            tally.reopened += 1;
            let judged = remote.ask("judge");
            if !judged.starts_with("state") || number(&judged) < acknowledged {
                tally.wrong(run_seed, format!("reopened ({what_then}) after {acknowledged}: {judged}"));
            }
            let before = acknowledged;
            if fault != Fault::Block {
                setup.plan_cuts(&mut rng);
            }
            let more = remote.ask(&format!("commit {}", 1 + rng.below(6)));
            let torn = fault == Fault::Block && setup.forgets_unwritten() && is_forgotten(&more);
            let failed = more.starts_with("failed Io") || more.starts_with("failed Poisoned");
            match more.starts_with("ok") || failed || torn {
                true => acknowledged = acknowledged.max(number(&more)),
                false => tally.wrong(run_seed, format!("commits after reopening: {more}")),
            }
            setup.disarm();
            judge_cuts(setup, false, before, &history, run_seed, tally);
        } else {
            tally.refused += 1;
            // A file system that lost a flush of its own becomes read-only.
            if opened == "died" || fault != Fault::Block && !opened.contains("Read-only file system") {
                tally.wrong(run_seed, format!("reopening ({what_then}): {opened}"));
            }
        }
    }
    // The child waits; the power is cut.
    setup.disarm();
    judge_cuts(setup, true, acknowledged, &history, run_seed, tally);
    remote.kill();
}

/// Each power cut leaves a database that opens, is clean, and has all acknowledged commits.
fn judge_cuts(setup: &dyn Setup, now: bool, acknowledged: u64, history: &History, run: u64, tally: &mut Tally) {
    setup.power_cuts(now, &mut |path| {
        tally.cuts += 1;
        let judged = mapleaf::Db::open_existing(path).map_err(|e| e.to_string()).and_then(|db| history.judge(&db));
        match judged {
            Ok(state) if state >= acknowledged => {}
            Ok(state) => tally.wrong(run, format!("lost: power cut gives {state}, acknowledged {acknowledged}")),
            Err(what) => tally.wrong(run, format!("power cut after {acknowledged}: {what}")),
        }
    });
}

fn runs(what: &str, fault: Fault, count: u64, setup: impl Fn(u64) -> Result<Box<dyn Setup>, String>) {
    let mut tally = Tally::default();
    let seed = seed(what);
    for number in 0..count * u64::from(long()) {
        let run_seed = seed.wrapping_add(number);
        match setup(run_seed) {
            Ok(setup) => one_run(&*setup, fault, run_seed, &mut tally),
            Err(why) => return skipped(what, &why),
        }
    }
    tally.finish(what);
}

fn direct(what: &str, fault: Fault, count: u64) {
    runs(what, fault, count, |seed| Ok(Box::new(Direct(Faulty::new(seed, &[])?))));
}

fn on_ext4(what: &str, fault: Fault, count: u64) {
    runs(what, fault, count, |seed| Ok(Box::new(OnExt4::new(seed)?)));
}

#[test]
fn commits_survive_a_write_that_fails_once() {
    direct("a write that fails once", Fault::Write, 50);
}

#[test]
fn commits_survive_a_block_that_cannot_be_written() {
    direct("a block that cannot be written", Fault::Block, 60);
}

#[test]
fn commits_survive_when_every_nth_flush_fails() {
    direct("every n-th flush fails", Fault::Flush, 45);
}

#[test]
fn commits_on_ext4_survive_a_block_that_cannot_be_written() {
    on_ext4("a block that ext4 cannot write", Fault::Block, 60);
}

#[test]
fn commits_on_ext4_survive_when_every_nth_flush_fails() {
    on_ext4("every n-th flush of ext4 fails", Fault::Flush, 45);
}

/// On a file system that drops pages which it could not write, a transaction may read the old
/// contents of a page that it stored to, or miss the sentinel. It is refused then; its flush would
/// have failed anyway.
fn is_forgotten(said: &str) -> bool {
    said.starts_with("failed Corrupt") || said.starts_with("failed Fault")
}
