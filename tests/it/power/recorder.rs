//! Records what an open database does to its file, for the model of the disk.
//!
//! A [`Recorder`] implements the hooks of an open database. It reads the whole file before each
//! flush, at each change of length, after a meta page or a part of the log is written, and when the
//! run asks for it in the middle of a transaction. It also makes writes and flushes fail.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use mapleaf::testing::{published_txn, Creation, FlushEvent, FlushKind, Hooks, LogContent};
use mapleaf::{Db, Durability};

use super::disk::{log_of, Disk, LyingDisk};
use super::image::Cut;
use crate::workload::Rng;

/// Records the versions of one file.
pub(super) struct Recorder {
    path: PathBuf,
    inner: Mutex<Recording>,
    overlap: Mutex<Option<(FlushKind, Act)>>,
    seen: Mutex<Seen>,
}

/// What is done when a flush begins.
type Act = Box<dyn FnOnce() + Send>;

/// What callers and readers of the database have seen.
#[derive(Default)]
struct Seen {
    db: Option<Db>,
    /// Transactions at the level `Immediate`, with their steps.
    immediate: Vec<(u64, u64)>,
    /// The newest step that was acknowledged.
    acknowledged: u64,
    /// The next write to the log fails, after this share of it in quarters, when so many have
    /// worked.
    fails_append: Option<(u64, u64)>,
    failed_appends: u64,
    /// The next flush of a meta page fails.
    fails_meta: Option<()>,
}

impl Seen {
    /// The newest step that must survive: it was acknowledged, or its level is `Immediate` and
    /// readers see it.
    fn demands(&self) -> u64 {
        let published = self.db.as_ref().map_or(0, published_txn);
        let shown = self.immediate.iter().filter(|(txn, _)| *txn <= published).map(|(_, step)| *step);
        shown.max().unwrap_or(0).max(self.acknowledged)
    }
}

struct Recording {
    file: Option<File>,
    disk: Disk,
    lying: Option<LyingDisk>,
    cuts: Vec<Cut>,
    flushes: u64,
    /// Ignores this many flushes: a mutant of the test itself.
    deaf: u64,
    bytes: Vec<u8>,
    /// Seed of the pages that the next flush of pages cannot write.
    fails_write_back: Option<u64>,
    /// Errors that the descriptions of the mapping and of the log report at their next flush.
    errors: [bool; 2],
    failed_write_backs: u64,
    /// The steps of creation, each with the disk of the temporary file at that time.
    steps: Vec<(Creation, Disk)>,
}

impl Recorder {
    pub(super) fn new(path: &Path, disk: Disk, deaf: u64) -> Arc<Recorder> {
        let inner = Recording {
            file: None,
            disk,
            lying: None,
            cuts: Vec::new(),
            flushes: 0,
            deaf,
            bytes: Vec::new(),
            fails_write_back: None,
            errors: [false; 2],
            failed_write_backs: 0,
            steps: Vec::new(),
        };
        let (overlap, seen) = (Mutex::default(), Mutex::default());
        Arc::new(Recorder { path: path.to_path_buf(), inner: Mutex::new(inner), overlap, seen })
    }

    fn lock(&self) -> MutexGuard<'_, Recording> {
        self.inner.lock().expect("recording")
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().expect("what was seen")
    }

    /// Acts when the next flush of a kind begins.
    pub(super) fn overlap(&self, kind: FlushKind, act: impl FnOnce() + Send + 'static) {
        *self.overlap.lock().expect("the overlap") = Some((kind, Box::new(act)));
    }

    /// Acts now, if no flush did.
    pub(super) fn end_overlap(&self) {
        let overlap = self.overlap.lock().expect("the overlap").take();
        if let Some((_, act)) = overlap {
            act();
        }
    }

    fn overlap_at(&self, kind: FlushKind) {
        let overlap = self.overlap.lock().expect("the overlap").take_if(|(at, _)| *at == kind);
        if let Some((_, act)) = overlap {
            act();
        }
    }

    /// Watches what readers of a database see, until it is closed.
    pub(super) fn watch(&self, db: Option<&Db>) {
        let mut seen = self.seen();
        seen.immediate.clear();
        let old = std::mem::replace(&mut seen.db, db.cloned());
        drop(seen);
        drop(old);
    }

    /// Watches what readers see through another handle of the same database.
    pub(super) fn watch_instead(&self, db: &Db) {
        let old = self.seen().db.replace(db.clone());
        drop(old);
    }

    /// A transaction with this number and step is about to commit.
    pub(super) fn note(&self, txn: u64, step: u64, level: Durability) {
        let mut seen = self.seen();
        // One that was aborted had the same number.
        seen.immediate.retain(|(noted, _)| *noted != txn);
        if level == Durability::Immediate {
            seen.immediate.push((txn, step));
        }
    }

    /// A step is durable: a call that promises it has returned.
    pub(super) fn acknowledge(&self, step: u64) {
        let mut seen = self.seen();
        seen.acknowledged = seen.acknowledged.max(step);
    }

    /// Makes a write to the log fail, when `skip` have worked; `quarters` of it reach the file.
    pub(super) fn fail_append(&self, skip: u64, quarters: u64) {
        self.seen().fails_append = Some((skip, quarters));
    }

    /// Makes no write to the log fail any more. Gives how many have failed since.
    pub(super) fn end_failing(&self) -> u64 {
        let mut seen = self.seen();
        seen.fails_append = None;
        std::mem::take(&mut seen.failed_appends)
    }

    /// Makes the next flush of a meta page fail. The page may be on the disk.
    pub(super) fn fail_meta(&self) {
        self.seen().fails_meta = Some(());
    }

    /// When the next flush of pages begins, some of them could not be written: the kernel reports
    /// that once through each description. The seed says which ones; `None`: none.
    pub(super) fn fail_write_back(&self, seed: Option<u64>) {
        self.lock().fails_write_back = seed;
    }

    /// How often that has happened.
    pub(super) fn failed_write_backs(&self) -> u64 {
        self.lock().failed_write_backs
    }

    /// From now on the disk lies.
    pub(super) fn lie(&self) {
        let mut inner = self.lock();
        inner.lying = Some(LyingDisk::new(&inner.disk));
    }

    pub(super) fn take_cuts(&self) -> Vec<Cut> {
        std::mem::take(&mut self.lock().cuts)
    }

    /// The images that a power cut may leave now, while no flush runs.
    pub(super) fn cut_now(&self, what: &str) -> Cut {
        self.look();
        let acknowledged = self.seen().demands();
        Cut { acknowledged, ..self.lock().disk.cut(what.to_string(), false) }
    }

    /// The images that a lying disk may hold now.
    pub(super) fn lying_cut(&self, what: &str) -> Cut {
        self.lock().lying.as_ref().expect("a lying disk").cut(what.to_string())
    }

    pub(super) fn steps(&self) -> Vec<(Creation, Disk)> {
        self.lock().steps.clone()
    }

    /// What the log of the file holds now; `None` without a log.
    pub(super) fn log_content(&self) -> Option<LogContent> {
        let mut inner = self.lock();
        inner.look(&self.path);
        log_of(&inner.bytes)
    }

    /// Records the file, at any moment.
    pub(super) fn look(&self) {
        self.lock().look(&self.path);
    }
}

impl Recording {
    fn look(&mut self, path: &Path) {
        if self.file.is_none() {
            self.file = Some(File::open(path).expect("to open the file that is watched"));
        }
        let file = self.file.as_ref().expect("open");
        let len = file.metadata().expect("its length").len() as usize;
        self.bytes.resize(len, 0);
        file.read_exact_at(&mut self.bytes, 0).expect("to read the file that is watched");
        self.disk.observe(&self.bytes);
    }

    /// Loses pages, if that was asked for. Each description reports it once.
    fn lose_pages(&mut self, path: &Path) {
        if let Some(seed) = self.fails_write_back.take() {
            self.look(path);
            if self.disk.lose(&mut Rng(seed)) {
                self.errors = [true; 2];
                self.failed_write_backs += 1;
            }
        }
    }
}

impl Hooks for Recorder {
    fn before_flush(&self, event: &FlushEvent<'_>) -> io::Result<()> {
        let fails = event.kind == FlushKind::MetaPage && self.seen().fails_meta.take().is_some();
        if event.kind == FlushKind::Tree {
            self.lock().lose_pages(&self.path);
        }
        self.overlap_at(event.kind);
        let acknowledged = self.seen().demands();
        let mut inner = self.lock();
        inner.look(&self.path);
        inner.flushes += 1;
        let what = format!("before flush {} ({event:?})", inner.flushes);
        let mut cut = inner.disk.cut(what, event.kind == FlushKind::MetaPage);
        cut.acknowledged = acknowledged;
        if event.kind == FlushKind::Log {
            cut.log_flush = true;
            let page_size = inner.disk.page_size as u64;
            cut.in_flight = (event.offset / page_size) as usize..((event.offset + event.len) / page_size) as usize;
        }
        inner.cuts.push(cut);
        let Recording { lying, disk, .. } = &mut *inner;
        if let Some(lying) = lying {
            lying.send(disk, event.offset, event.len);
        }
        match fails || std::mem::take(&mut inner.errors[usize::from(event.by_log_file)]) {
            true => Err(io::Error::other("a page could not be written")),
            false => Ok(()),
        }
    }

    fn after_flush(&self, event: &FlushEvent<'_>) {
        let mut inner = self.lock();
        if inner.flushes > inner.deaf {
            inner.disk.flushed(event.offset, event.len, event.carries_length);
        }
    }

    fn stored_meta(&self, _slot: usize) {
        self.look();
    }

    fn log_write_fails_after(&self, _offset: u64, len: u64) -> Option<u64> {
        let mut seen = self.seen();
        match seen.fails_append {
            Some((0, quarters)) => {
                seen.fails_append = None;
                seen.failed_appends += 1;
                Some(len * quarters / 4)
            }
            Some((skip, quarters)) => {
                seen.fails_append = Some((skip - 1, quarters));
                None
            }
            None => None,
        }
    }

    fn wrote(&self, _offset: u64, _len: u64) {
        self.look();
    }

    fn growing(&self, _new_len: u64) -> io::Result<()> {
        self.look();
        Ok(())
    }

    fn resized(&self, _new_len: u64) {
        self.look();
    }

    fn creating(&self, step: Creation, temporary: &Path, path: &Path) {
        let mut inner = self.lock();
        let named = matches!(step, Creation::Renamed | Creation::DirectoryFlushed);
        let bytes = std::fs::read(if named { path } else { temporary }).expect("the new file");
        inner.disk.observe(&bytes);
        if step == Creation::Flushed {
            inner.disk.flushed(0, bytes.len() as u64, true);
        }
        let disk = inner.disk.clone();
        inner.steps.push((step, disk));
    }
}
