//! Seeded runs: transactions, reopening and repeated crashes; every power cut on the way is judged.
//!
//! A *lineage* continues after a crash. After a power cut, its file is an image, possibly from a
//! cut during an earlier recovery. After a kill, its file has everything that the page cache held,
//! while less is durable.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;
use std::sync::{Arc, OnceLock};

use mapleaf::testing::{
    durable_txn, latest_txn, open_with_hooks, seal_file, set_log_shape, with_mutant, Hooks, Mutant,
};
use mapleaf::{Db, Durability, Options};

use super::disk::{Disk, Overlap, Recorder};
use super::image::{Choice, Cut, Image, Tally};
use super::judge::{Judge, Outcome};
use super::keep;
use crate::workload::{fast_dir, History, Rng};

/// Depth of crashes: a crash during the run after a crash, and one during the run after that.
const DEPTH: u32 = 2;

/// How the disk behaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Mode {
    /// It keeps flushed data.
    Power,
    /// The newest writes may be missing, flushed or not.
    Lying,
}

/// The parameters of a run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Setting {
    pub(super) page_size: usize,
    pub(super) commits: u64,
    /// Images per cut when there are too many choices to try all.
    pub(super) samples: usize,
    /// The disk's atomic unit.
    pub(super) grain: usize,
    pub(super) mode: Mode,
    pub(super) mutant: Option<Mutant>,
    /// Flushes that the recorder ignores.
    pub(super) deaf: u64,
    /// The length of the file is always durable.
    pub(super) keeps_length: bool,
    /// During every third commit, another one begins and ends while the first flushes its record.
    pub(super) overlaps: bool,
    /// When a commit log is made.
    pub(super) log: Log,
}

/// When a commit log is made, and how large it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Log {
    /// By most seeds at the second commit, with few pages, so that it wraps around soon.
    BySeed,
    /// At the second commit.
    Always,
    Never,
}

impl Log {
    fn shape(self, seed: u64, page_size: usize) -> Option<(u64, u64)> {
        const PAGES: [u64; 4] = [u64::MAX, 12, 20, 64];
        let pages = match self {
            Log::BySeed => PAGES[seed as usize % 4],
            Log::Always => PAGES[1 + seed as usize % 3],
            Log::Never => u64::MAX,
        };
        match pages {
            u64::MAX => Some((u64::MAX, 0)),
            pages => Some((1, pages * page_size as u64)),
        }
    }
}

impl Setting {
    pub(super) fn power(page_size: usize) -> Setting {
        let grain = super::image::SECTOR;
        Setting {
            page_size,
            commits: 16,
            samples: 24,
            grain,
            mode: Mode::Power,
            mutant: None,
            deaf: 0,
            keeps_length: false,
            overlaps: false,
            log: Log::BySeed,
        }
    }

    /// The mutant, if it also affects the judge.
    pub(super) fn judges_with(&self) -> Option<Mutant> {
        self.mutant.filter(|mutant| matches!(mutant, Mutant::ShortChecksum | Mutant::PointerUnchecked))
    }
}

/// A run, with the counts of its images.
pub(super) struct Run<'a> {
    pub(super) setting: Setting,
    history: &'a History,
    judge: Judge<'a>,
    dir: &'a Path,
    rng: Rng,
    /// Images by the acknowledged transaction at their judgement.
    seen: HashMap<u64, u64>,
    /// Images that were judged.
    pub(super) opened: u64,
    /// Images of these that no other run of this process had.
    pub(super) distinct: u64,
    pub(super) events: Events,
    /// Stops after this many judged images.
    pub(super) limit: u64,
    files: u64,
}

/// Counts of the events in runs.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Events {
    pub(super) commits: u64,
    pub(super) aborts: u64,
    /// Commits that returned before they were durable.
    pub(super) eventual: u64,
    /// Checkpoints that were asked for.
    pub(super) checkpoints: u64,
    /// Commits that ran while another one was flushed.
    pub(super) overlaps: u64,
    pub(super) reopened: u64,
    pub(super) cuts: u64,
    /// Cuts at which the length of the file was in doubt.
    pub(super) cuts_of_length: u64,
    /// Cuts at which some page had more than one content since the flush.
    pub(super) cuts_of_versions: u64,
    /// Runs that continued from an image of a power cut.
    pub(super) crashes: u64,
    /// Such runs from an image of a run that itself followed a crash.
    pub(super) crashes_twice: u64,
    /// Runs that continued from the page cache of a killed process.
    pub(super) kills: u64,
    /// Images of a lying disk that did not open completely.
    pub(super) refused: u64,
    /// Images of a lying disk that were the state of the newest commit, and of older ones.
    pub(super) newest: u64,
    pub(super) older: u64,
}

impl Events {
    pub(super) fn add(&mut self, other: &Events) {
        self.commits += other.commits;
        self.aborts += other.aborts;
        self.eventual += other.eventual;
        self.checkpoints += other.checkpoints;
        self.overlaps += other.overlaps;
        self.reopened += other.reopened;
        self.cuts += other.cuts;
        self.cuts_of_length += other.cuts_of_length;
        self.cuts_of_versions += other.cuts_of_versions;
        self.crashes += other.crashes;
        self.crashes_twice += other.crashes_twice;
        self.kills += other.kills;
        self.refused += other.refused;
        self.newest += other.newest;
        self.older += other.older;
    }
}

/// The start of a lineage. The page cache holds the newest contents.
pub(super) struct Start {
    pub(super) disk: Disk,
    pub(super) acknowledged: u64,
}

/// A new database, as it is after creation, the same in all processes.
pub(super) fn fresh(page_size: usize) -> Image {
    static FRESH: [OnceLock<Image>; 4] = [const { OnceLock::new() }; 4];
    let make = || {
        let dir = fast_dir();
        let path = dir.path().join("fresh.mapleaf");
        let db = Options::new().page_size(page_size as u32).open(&path).expect("creation");
        let uuid = db.stats().expect("stats").uuid;
        drop(db);
        let mut bytes = std::fs::read(&path).expect("the new file");
        for at in 0..bytes.len() - 16 {
            if bytes[at..at + 16] == uuid {
                bytes[at..at + 16].copy_from_slice(b"power cut images");
            }
        }
        seal_file(&mut bytes);
        Image::of_bytes(&bytes, page_size)
    };
    FRESH[page_size.trailing_zeros() as usize - 12].get_or_init(make).clone()
}

impl<'a> Run<'a> {
    pub(super) fn new(setting: Setting, history: &'a History, dir: &'a Path) -> Run<'a> {
        set_log_shape(setting.log.shape(history.seed(), setting.page_size));
        Run {
            setting,
            history,
            judge: Judge::new(history, dir, setting.judges_with()),
            dir,
            rng: Rng(history.seed() ^ 0xc4a5),
            seen: HashMap::new(),
            opened: 0,
            distinct: 0,
            events: Events::default(),
            limit: u64::MAX,
            files: 0,
        }
    }

    pub(super) fn path(&mut self) -> PathBuf {
        self.files += 1;
        self.dir.join(format!("{}.mapleaf", self.files))
    }

    /// A new database that is durable.
    pub(super) fn start(&self) -> Start {
        let image = fresh(self.setting.page_size);
        Start { disk: Disk::durable(image.page_size, &image.pages, image.len), acknowledged: 0 }
    }

    /// The whole run, with crashes on crashes.
    pub(super) fn all(&mut self) -> Result<(), String> {
        let start = self.start();
        self.lineage(start, self.setting.commits, DEPTH)
    }

    pub(super) fn done(&self) -> bool {
        self.opened >= self.limit
    }

    /// Commits transactions, judges every cut on the way, and continues from some of them.
    pub(super) fn lineage(&mut self, start: Start, commits: u64, depth: u32) -> Result<(), String> {
        let path = self.path();
        let (pages, len) = start.disk.current();
        Image::new(self.setting.page_size, pages, len).write(&path);
        let recorder = Recorder::new(&path, start.disk, self.setting.deaf);
        let (mut acknowledged, mut newest) = (start.acknowledged, start.acknowledged);
        let mut db = Some(self.open(&path, &recorder)?);
        if self.setting.mode == Mode::Lying {
            recorder.lie();
        }
        self.judge_cuts(recorder.take_cuts(), acknowledged, depth)?;
        for commit in 0..commits {
            if self.done() {
                break;
            }
            if commit % 5 == 4 {
                drop(db.take());
                // Closing makes everything durable.
                let before = std::mem::replace(&mut acknowledged, newest);
                self.judge_cuts(recorder.take_cuts(), before, depth)?;
                self.events.reopened += 1;
                db = Some(self.open(&path, &recorder)?);
                self.judge_cuts(recorder.take_cuts(), acknowledged, depth)?;
            }
            let db = db.as_ref().expect("open");
            if commit % 4 == 3 {
                self.events.aborts += 1;
                self.transaction(db, &recorder, false).map_err(|e| format!("a transaction to be aborted: {e}"))?;
            }
            if commit % 5 == 3 {
                with_mutant(self.setting.mutant, || db.checkpoint()).map_err(|e| format!("a checkpoint: {e}"))?;
                self.events.checkpoints += 1;
                self.judge_cuts(recorder.take_cuts(), acknowledged, depth)?;
            }
            let overlaps = self.setting.overlaps && commit % 3 == 2;
            let (committed, begun) = match overlaps {
                true => self.two_at_once(db, &recorder).map_err(|e| format!("two commits: {e}"))?,
                false => (self.transaction(db, &recorder, true).map_err(|e| format!("commit: {e}"))?, Vec::new()),
            };
            self.judge_cuts(begun, acknowledged, depth)?;
            let mut cuts = recorder.take_cuts();
            // Cuts of this commit are judged against what was acknowledged before it. Of two, the
            // first was acknowledged when its log or its meta page was flushed.
            // A checkpoint beside writers may have flushed a meta page before.
            let log = cuts.iter().position(|cut| cut.log_flush);
            let first = log.or_else(|| cuts.iter().position(|cut| cut.meta_flush)).map_or(cuts.len(), |at| at + 1);
            let second = if overlaps { cuts.split_off(first) } else { Vec::new() };
            self.judge_cuts(cuts, acknowledged, depth)?;
            newest = committed;
            if durable_txn(db) >= latest_txn(db) {
                self.judge_cuts(second, committed - 1, depth)?;
                acknowledged = committed;
            } else {
                self.judge_cuts(second, acknowledged, depth)?;
                self.events.eventual += 1;
            }
            self.events.commits += 1;
            if self.setting.mode == Mode::Lying {
                self.judge_cut(&recorder.lying_cut(&format!("after the commit of txn {committed}")), committed, 0)?;
            }
        }
        if self.setting.mode == Mode::Power {
            self.judge_cut(&recorder.cut_now("after the last commit"), acknowledged, depth)?;
            drop(db);
            self.judge_cuts(recorder.take_cuts(), acknowledged, depth)?;
            self.judge_cut(&recorder.cut_now("after closing"), newest, depth)?;
        }
        drop(std::fs::remove_file(&path));
        Ok(())
    }

    pub(super) fn open(&mut self, path: &Path, recorder: &Arc<Recorder>) -> Result<Db, String> {
        let hooks = Arc::clone(recorder) as Arc<dyn Hooks>;
        let opened = with_mutant(self.setting.mutant, || open_with_hooks(Options::new(), path, hooks));
        opened.map_err(|e| format!("open: {e}"))
    }

    /// Executes the next transaction, and records the file in between. Returns its number.
    fn transaction(&mut self, db: &Db, recorder: &Recorder, commits: bool) -> mapleaf::Result<u64> {
        let rng = &mut self.rng;
        with_mutant(self.setting.mutant, || {
            let mut txn = db.begin_write()?;
            let number = self.history.next_step(&mut txn)?;
            let mut watch = || {
                if rng.one_in(3) {
                    recorder.look();
                }
            };
            self.history.perform_watched(&mut txn, &mut watch)?;
            if rng.one_in(5) {
                txn.set_durability(Durability::Eventual);
            }
            match commits {
                true => txn.commit()?,
                false => txn.abort(),
            }
            recorder.look();
            Ok(number)
        })
    }

    /// Commits a transaction, and another one while the first flushes its pages. Returns the number
    /// of the second, and the cuts before the flushes of the first: the first write transaction
    /// after opening also flushes when it begins.
    fn two_at_once(&mut self, db: &Db, recorder: &Recorder) -> mapleaf::Result<(u64, Vec<Cut>)> {
        self.events.overlaps += 1;
        let mut txn = db.begin_write()?;
        let number = txn.txn_id();
        let cuts = recorder.take_cuts();
        let (begin, begun) = channel();
        recorder.overlap(Overlap { db: db.clone(), begin, txn: number + 1 });
        let (mutant, history) = (self.setting.mutant, self.history);
        let shape = self.setting.log.shape(history.seed(), self.setting.page_size);
        std::thread::scope(|scope| {
            let second = scope.spawn(move || {
                begun.recv().expect("the flush of the first begins");
                set_log_shape(shape);
                with_mutant(mutant, || history.commit_next(db))
            });
            with_mutant(mutant, || history.perform(&mut txn).and_then(|()| txn.commit()))?;
            // Without a flush of the log, the first was committed by checkpoint.
            recorder.end_overlap();
            let second = second.join().expect("the second does not panic")?;
            recorder.look();
            Ok((second, cuts))
        })
    }

    pub(super) fn judge_cuts(&mut self, cuts: Vec<Cut>, acknowledged: u64, depth: u32) -> Result<(), String> {
        if self.setting.mode == Mode::Lying {
            return Ok(());
        }
        cuts.iter().try_for_each(|cut| self.judge_cut(cut, acknowledged, depth))
    }

    pub(super) fn judge_cut(&mut self, cut: &Cut, acknowledged: u64, depth: u32) -> Result<(), String> {
        self.events.cuts += 1;
        self.events.cuts_of_length += u64::from(cut.lens.len() > 1);
        self.events.cuts_of_versions += u64::from(cut.doubts.iter().any(|doubt| doubt.versions.len() > 2));
        for choice in cut.choices(self.setting.samples, self.setting.grain, &mut self.rng) {
            if self.done() {
                return Ok(());
            }
            if self.setting.keeps_length && Some(&choice.len) != cut.all_lens.last() {
                continue;
            }
            let image = cut.image(&choice);
            let told = |e| format!("{}, {choice:?}: {e}", cut.what);
            let new =
                self.judge_image(&image, acknowledged).map_err(|e| self.violation(cut, &choice, acknowledged, e))?;
            if new && depth > 0 && self.rng.one_in(120) {
                let disk = Disk::durable(image.page_size, &image.pages, image.len);
                let commits = self.rng.below(4);
                self.events.crashes += 1;
                self.events.crashes_twice += u64::from(depth < DEPTH);
                self.lineage(Start { disk, acknowledged }, commits, depth - 1)
                    .map_err(|e| told(format!("after the power loss: {e}")))?;
            }
        }
        if depth > 0 && self.setting.mode == Mode::Power && self.rng.one_in(8) {
            let disk = cut.disk();
            self.events.kills += 1;
            self.lineage(Start { disk, acknowledged }, 3, depth - 1)
                .map_err(|e| format!("{}, killed there: {e}", cut.what))?;
        }
        Ok(())
    }

    /// Whether the image had not been judged before.
    fn judge_image(&mut self, image: &Image, acknowledged: u64) -> Result<bool, String> {
        let hash = image.hash();
        let judged = self.seen.entry(hash).or_insert(u64::MAX);
        if *judged != u64::MAX && (*judged >= acknowledged || self.setting.mode == Mode::Lying) {
            return Ok(false);
        }
        *judged = acknowledged;
        self.opened += 1;
        if self.setting.mutant.is_none() && self.setting.deaf == 0 {
            self.distinct += u64::from(Tally::of(self.setting.mode).count(hash));
        }
        match self.verdict(image, acknowledged)? {
            None => {}
            Some(Outcome::Refused) => self.events.refused += 1,
            Some(Outcome::Whole(txn)) if txn == acknowledged => self.events.newest += 1,
            Some(Outcome::Whole(_)) => self.events.older += 1,
        }
        Ok(true)
    }

    /// Judges an image, and returns the result for a lying disk.
    fn verdict(&self, image: &Image, acknowledged: u64) -> Result<Option<Outcome>, String> {
        match self.setting.mode {
            Mode::Power => self.judge.strict(image, acknowledged).map(|()| None),
            Mode::Lying => self.judge.lenient(image, acknowledged).map(Some),
        }
    }

    /// Shrinks a violation to few pages and keeps it. Returns the text to print.
    fn violation(&self, cut: &Cut, choice: &Choice, acknowledged: u64, said: String) -> String {
        let violates = |image: &Image| self.verdict(image, acknowledged).err();
        let shrunk = keep::shrink(cut, choice, violates);
        let from = if shrunk.from_newest { "the newest contents" } else { "what was durable" };
        let few = format!("shrunk to pages {:?} that differ from {from}: {}", shrunk.pages, shrunk.said);
        let place = keep::keep(&keep::Kept::of(shrunk, self.setting, self.history, acknowledged));
        let (seed, setting) = (self.history.seed(), self.setting);
        format!("MAPLEAF_SEED={seed}, {setting:?}: {}, {choice:?}: {said}; {few}; {place}", cut.what)
    }
}
