//! Seeded runs: transactions, reopening and repeated crashes; every power cut on the way is judged.
//!
//! A *lineage* continues after a crash. After a power cut, its file is an image, possibly from a
//! cut during an earlier recovery. After a kill, its file has everything that the page cache held,
//! while less is durable.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use mapleaf::testing::{
    durable_meta_txn, durable_txn, latest_txn, log_pages, open_with_hooks, seal_file, set_log_shape, set_sole,
    with_mutant, FlushKind, Hooks, Mutant,
};
use mapleaf::{Db, Durability, Options};

use super::beside::{Others, Shared};
use super::disk::Disk;
use super::events::{Events, Step};
use super::image::{Choice, Cut, Image, Tally};
use super::judge::{Judge, Outcome};
use super::keep;
use super::recorder::Recorder;
use super::setting::{Mode, Often, Setting};
use crate::workload::{fast_dir, History, Rng};

/// Depth of crashes: a crash during the run after a crash, and one during the run after that.
const DEPTH: u32 = 2;

/// A run, with the counts of its images.
pub(super) struct Run<'a> {
    pub(super) setting: Setting,
    history: &'a History,
    judge: Judge<'a>,
    dir: &'a Path,
    pub(super) rng: Rng,
    /// Images by the acknowledged transaction at their judgement.
    seen: HashMap<u64, u64>,
    /// Images that were judged.
    pub(super) opened: u64,
    /// Images of these that no other run of this process had.
    pub(super) distinct: u64,
    pub(super) events: Events,
    /// Stops after this many judged images.
    pub(super) limit: u64,
    /// What the database does at the cuts that are judged.
    pub(super) step: Step,
    files: u64,
}

/// A file that transactions change one after the other.
pub(super) struct Line {
    pub(super) path: PathBuf,
    pub(super) recorder: Arc<Recorder>,
    pub(super) depth: u32,
    /// The newest step.
    newest: u64,
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
        // Every second seed commits with one write when it can. Mutants are steps of a leader.
        let sole = setting.mutant.is_none() && history.seed() % 2 == 1;
        set_sole(if sole { None } else { Some(false) });
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
            step: Step::Opening,
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
        recorder.acknowledge(start.acknowledged);
        let mut line = Line { path, recorder, depth, newest: start.acknowledged };
        let mut db = self.reopen(&line)?;
        let mut other = self.join(&line)?;
        if self.setting.mode == Mode::Lying {
            line.recorder.lie();
        }
        let reopened = if self.setting.mixed { 11 } else { 5 };
        for commit in 0..commits {
            if self.done() {
                break;
            }
            self.take_turns(&mut db, &mut other, &line)?;
            // With a log there is more to do until the database is closed.
            if commit % reopened == reopened - 1 {
                self.leave(other.take(), &db, &line)?;
                self.close(db, &mut line)?;
                self.events.reopened += 1;
                db = self.reopen(&line)?;
                other = self.join(&line)?;
            }
            if commit % 4 == 3 {
                self.events.aborts += 1;
                self.transaction(&db, &line.recorder, false)
                    .map_err(|e| format!("a transaction to be aborted: {e}"))?;
            }
            if self.setting.mixed && self.rng.one_in(6) {
                self.sync(&db, &mut line)?;
            }
            let due = commit % 5 == 3 || (self.setting.mixed && self.rng.one_in(4));
            let beside = other.as_ref().unwrap_or(&db);
            if due && !self.checkpoint(&db, beside, &mut line)? {
                break;
            }
            if self.setting.flush_fails && self.rng.one_in(5) && !self.failing_meta(&db, &line)? {
                break;
            }
            let beside = other.as_ref().unwrap_or(&db);
            self.commit(&db, beside, &mut line, commit)?;
        }
        if self.setting.mode == Mode::Power {
            self.judge_cuts(vec![line.recorder.cut_now("after the last commit")], depth)?;
            let poisoned = db.begin_read().is_err();
            self.leave(other.take(), &db, &line)?;
            self.close(db, &mut line)?;
            if !poisoned {
                self.judge_cuts(vec![line.recorder.cut_now("after closing")], depth)?;
            }
        }
        drop(std::fs::remove_file(&line.path));
        Ok(())
    }

    /// Opens the file of a line, and judges the cuts on the way.
    fn reopen(&mut self, line: &Line) -> Result<Db, String> {
        let replays = line.recorder.log_content().is_some_and(|log| log.records > 0);
        let db = self.open(&line.path, &line.recorder)?;
        line.recorder.watch(Some(&db));
        self.step = if replays { Step::Replay } else { Step::Opening };
        self.judge_cuts(line.recorder.take_cuts(), line.depth)?;
        Ok(db)
    }

    /// Closes the database, which makes everything durable.
    fn close(&mut self, db: Db, line: &mut Line) -> Result<(), String> {
        self.step = if log_pages(&db) > 0 { Step::GivingUpLog } else { Step::Closing };
        let poisoned = db.begin_read().is_err();
        line.recorder.watch(None);
        with_mutant(self.setting.mutant, || drop(db));
        self.judge_cuts(line.recorder.take_cuts(), line.depth)?;
        if !poisoned {
            line.recorder.acknowledge(line.newest);
        }
        Ok(())
    }

    /// A transaction that leaves every entry as it was goes by checkpoint, and the flush of its
    /// meta page fails. `false`: the database is poisoned.
    fn failing_meta(&mut self, db: &Db, line: &Line) -> Result<bool, String> {
        line.recorder.fail_meta();
        let done = with_mutant(self.setting.mutant, || {
            let mut txn = db.begin_write()?;
            // Too large for the log.
            drop(txn.bytes_table("passing")?.insert(b"k", &vec![1; 40 * self.setting.page_size])?);
            txn.drop_table("passing")?;
            txn.commit()
        });
        assert!(done.is_err(), "the flush failed");
        self.events.log.failed_metas += 1;
        self.step = Step::ByCheckpoint;
        self.judge_cuts(line.recorder.take_cuts(), line.depth)?;
        Ok(db.begin_read().is_ok())
    }

    fn sync(&mut self, db: &Db, line: &mut Line) -> Result<(), String> {
        with_mutant(self.setting.mutant, || db.sync()).map_err(|e| format!("a sync: {e}"))?;
        self.events.log.syncs += 1;
        self.step = Step::Append;
        self.judge_cuts(line.recorder.take_cuts(), line.depth)?;
        line.recorder.acknowledge(line.newest);
        Ok(())
    }

    /// A checkpoint, during which others may commit. `false`: some of its pages could not be
    /// written, and the database is poisoned.
    fn checkpoint(&mut self, db: &Db, beside: &Db, line: &mut Line) -> Result<bool, String> {
        let recorder = &*line.recorder;
        if self.setting.flush_fails && log_pages(db) > 0 {
            recorder.fail_write_back(Some(self.rng.next()));
        }
        let done = match self.setting.overlaps && log_pages(db) > 0 {
            true => self.checkpoint_beside(db, beside, recorder),
            false => with_mutant(self.setting.mutant, || db.checkpoint()).map(|()| 0),
        };
        self.events.checkpoints += 1;
        self.step = Step::Checkpoint;
        recorder.fail_write_back(None);
        let lost = recorder.failed_write_backs() > 0;
        self.events.log.failed_write_backs += u64::from(lost);
        self.judge_cuts(recorder.take_cuts(), line.depth)?;
        match done {
            _ if lost => return Ok(false),
            Ok(newest) => line.newest = line.newest.max(newest),
            Err(e) => return Err(format!("a checkpoint: {e}")),
        }
        if durable_txn(db) >= latest_txn(db) {
            recorder.acknowledge(line.newest);
        }
        Ok(true)
    }

    /// Commits a transaction, by itself or with others, and judges the cuts.
    fn commit(&mut self, db: &Db, beside: &Db, line: &mut Line, commit: u64) -> Result<(), String> {
        let recorder = &*line.recorder;
        let pages = log_pages(db);
        let (overlaps, fails) = match self.setting.mixed {
            true => self.mixture(durable_txn(db) < latest_txn(db), pages > 0),
            false => (self.setting.overlaps && commit % 3 == 2, false),
        };
        if fails {
            let (skip, lost) = (self.rng.below(3) / 2, self.rng.below(8).saturating_sub(3));
            match self.setting.often {
                Often::OrphanRecord => recorder.fail_append(0, 4),
                _ => recorder.fail_append(skip, 4 - lost),
            }
        }
        let mut committed = match overlaps {
            true => self.together(db, beside, recorder),
            false => self.transaction(db, recorder, true),
        };
        let failed = recorder.end_failing();
        self.events.log.failed_appends += failed;
        if failed > 0 && committed.is_err() && self.setting.mutant == Some(Mutant::OrphanAborted) {
            self.sync(db, line)?;
            committed = self.transaction(db, &line.recorder, true);
        }
        let recorder = &*line.recorder;
        line.newest =
            committed.map_err(|e| format!("{}: {e}", if overlaps { "commits together" } else { "commit" }))?;
        self.step = match log_pages(db) {
            now if now > pages => Step::MakingLog,
            0 => Step::ByCheckpoint,
            _ if durable_meta_txn(db) == latest_txn(db) => Step::ByCheckpoint,
            _ => Step::Append,
        };
        self.judge_cuts(recorder.take_cuts(), line.depth)?;
        if durable_txn(db) >= latest_txn(db) {
            recorder.acknowledge(line.newest);
        } else {
            self.events.eventual += 1;
        }
        self.events.commits += 1;
        if self.setting.mode == Mode::Lying {
            let what = format!("after the commit of txn {}", line.newest);
            self.judge_cut(&recorder.lying_cut(&what), line.newest, 0)?;
        }
        Ok(())
    }

    /// Whether several threads commit, and whether an append fails.
    fn mixture(&mut self, eventual: bool, has_log: bool) -> (bool, bool) {
        // After a commit that is not durable, what goes wrong with the next one matters more.
        let drawn = self.rng.below(if eventual { 4 } else { 8 });
        match self.setting.often {
            Often::OrphanRecord if eventual => (false, has_log && drawn > 0),
            Often::Group if eventual => (self.setting.overlaps && drawn > 0, false),
            _ => (self.setting.overlaps && drawn < 2, has_log && drawn == 2),
        }
    }

    pub(super) fn open(&mut self, path: &Path, recorder: &Arc<Recorder>) -> Result<Db, String> {
        let hooks = Arc::clone(recorder) as Arc<dyn Hooks>;
        // No clock decides when an eventual commit becomes durable.
        let options = Options::new().sync_interval(None);
        let opened = with_mutant(self.setting.mutant, || open_with_hooks(options, path, hooks));
        opened.map_err(|e| format!("open: {e}"))
    }

    /// Executes the next transaction, and records the file in between. Returns its number.
    fn transaction(&mut self, db: &Db, recorder: &Recorder, commits: bool) -> mapleaf::Result<u64> {
        let (rng, mixed) = (&mut self.rng, self.setting.mixed);
        with_mutant(self.setting.mutant, || {
            let mut txn = db.begin_write()?;
            let number = self.history.next_step(&mut txn)?;
            let mut watch = || {
                if rng.one_in(3) {
                    recorder.look();
                }
            };
            self.history.perform_watched(&mut txn, &mut watch)?;
            let eventual = rng.one_in(if mixed { 2 } else { 5 });
            let level = if eventual { Durability::Eventual } else { Durability::Immediate };
            txn.set_durability(level);
            recorder.note(txn.txn_id(), number, level);
            match commits {
                true => txn.commit()?,
                false => txn.abort(),
            }
            recorder.look();
            Ok(number)
        })
    }

    /// Levels of the transactions that commit together.
    fn levels(&mut self) -> Vec<Durability> {
        let one = |rng: &mut Rng| if rng.one_in(3) { Durability::Eventual } else { Durability::Immediate };
        (0..1 + self.rng.below(3)).map(|_| one(&mut self.rng)).collect()
    }

    /// Commits a transaction, and others `beside` while the first flushes its pages. Returns the
    /// number of the last.
    fn together(&mut self, db: &Db, beside: &Db, recorder: &Recorder) -> mapleaf::Result<u64> {
        self.events.overlaps += 1;
        self.events.groups_of_two += u64::from(!std::ptr::eq(db, beside));
        let levels = self.levels();
        let waiting = levels.iter().filter(|level| **level == Durability::Immediate).count();
        self.events.log.groups += u64::from(waiting > 1);
        let (history, setting) = (self.history, self.setting);
        std::thread::scope(|scope| {
            let mut others = Others::start(scope, Shared { db: beside, history, setting, recorder }, &levels);
            recorder.overlap(FlushKind::Log, others.act());
            let first = with_mutant(setting.mutant, || {
                let mut txn = db.begin_write()?;
                let number = history.next_step(&mut txn)?;
                recorder.note(txn.txn_id(), number, Durability::Immediate);
                history.perform(&mut txn)?;
                txn.commit()?;
                Ok(number)
            });
            // Without a flush of the log, the first was committed by checkpoint.
            recorder.end_overlap();
            let newest = others.join()?;
            recorder.look();
            first.map(|first| newest.max(first))
        })
    }

    /// A checkpoint, and commits `beside` it while it flushes its pages or its meta page. Returns
    /// the number of the last.
    fn checkpoint_beside(&mut self, db: &Db, beside: &Db, recorder: &Recorder) -> mapleaf::Result<u64> {
        let mut levels = self.levels();
        let mut kind = if self.rng.one_in(3) { FlushKind::MetaPage } else { FlushKind::Tree };
        if self.setting.flush_fails {
            // A flush of the log, between the failed writes and the flush that has to report them.
            (levels[0], kind) = (Durability::Immediate, FlushKind::Tree);
        }
        let (history, setting) = (self.history, self.setting);
        let done = std::thread::scope(|scope| {
            let mut others = Others::start(scope, Shared { db: beside, history, setting, recorder }, &levels);
            recorder.overlap(kind, others.act());
            let done = with_mutant(setting.mutant, || db.checkpoint());
            recorder.end_overlap();
            let newest = others.join()?;
            recorder.look();
            done.map(|()| newest)
        });
        self.events.log.beside_checkpoints += levels.len() as u64;
        done
    }

    /// Judges cuts, each with what had to survive when it was recorded.
    pub(super) fn judge_cuts(&mut self, cuts: Vec<Cut>, depth: u32) -> Result<(), String> {
        if self.setting.mode == Mode::Lying {
            return Ok(());
        }
        cuts.iter().try_for_each(|cut| self.judge_cut(cut, cut.acknowledged, depth))
    }

    pub(super) fn judge_cut(&mut self, cut: &Cut, acknowledged: u64, depth: u32) -> Result<(), String> {
        let step = self.step;
        self.events.cuts += 1;
        self.events.log.count_cut(step, cut);
        self.events.cuts_of_length += u64::from(cut.lens.len() > 1);
        self.events.cuts_of_versions += u64::from(cut.doubts.iter().any(|doubt| doubt.versions.len() > 2));
        for choice in cut.choices(self.setting.samples, self.setting.grain, &mut self.rng) {
            if self.done() {
                return Ok(());
            }
            if self.setting.keeps_length && Some(&choice.len) != cut.all_lens.last() {
                continue;
            }
            let (image, distinct) = (cut.image(&choice), self.distinct);
            let told = |e| format!("{}, {choice:?}: {e}", cut.what);
            let new =
                self.judge_image(&image, acknowledged).map_err(|e| self.violation(cut, &choice, acknowledged, e))?;
            if new {
                self.events.log.count_image(self.step, cut, &choice, &image, self.distinct > distinct);
            }
            if new && depth > 0 && self.rng.one_in(120) {
                let disk = Disk::durable(image.page_size, &image.pages, image.len);
                let commits = self.rng.below(4);
                self.events.crashes += 1;
                self.events.crashes_twice += u64::from(depth < DEPTH);
                self.lineage(Start { disk, acknowledged }, commits, depth - 1)
                    .map_err(|e| told(format!("after the power loss: {e}")))?;
                self.step = step;
            }
        }
        // Mixed runs have more cuts.
        let kills = if self.setting.mixed { 16 } else { 8 };
        if depth > 0 && self.setting.mode == Mode::Power && self.rng.one_in(kills) {
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
