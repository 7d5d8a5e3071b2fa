//! Crash images: what the medium may hold when the power goes at any flush of a seeded run.
//!
//! A seam sees every flush before it runs. It keeps what is durable by then; everything that differs from it was stored
//! since, and each such page may have reached the medium or not, whole or torn at a sector (sectors of a meta that is
//! being written may also hold anything). The length of the file may be the durable one or the current one. Each image
//! is opened and must hold exactly the state of some transaction, none older than the last one acknowledged.
//!
//! A *lineage* goes on from a crash: with the image as the file (power loss), or with all that the page cache held
//! and the durable image still the old one (the process was killed, and power is lost later).

use std::collections::HashSet;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use mapleaf::testing::{open_with_seam, set_mutant, FlushEvent, FlushKind, Mutant, Seam};
use mapleaf::{Db, Options};

use crate::workload::{fast_dir, long, History, Rng};

const SECTOR: usize = 512;
/// Up to this many pages in doubt, every subset is tried.
const ALL_SUBSETS_OF: usize = 6;

/// The moment before a flush.
#[derive(Clone)]
struct Cut {
    what: String,
    meta: bool,
    durable: Arc<Vec<u8>>,
    current: Arc<Vec<u8>>,
}

/// What the medium holds for certain, and the cuts that were not judged yet.
struct Recorder {
    inner: Mutex<Recording>,
}

struct Recording {
    page_size: usize,
    durable: Arc<Vec<u8>>,
    before: Arc<Vec<u8>>,
    cuts: Vec<Cut>,
    flushes: u64,
    /// Takes this many flushes for done that were not: a mutant of the harness.
    deaf: u64,
}

impl Recorder {
    fn new(page_size: usize, durable: Arc<Vec<u8>>, deaf: u64) -> Arc<Recorder> {
        let before = Arc::default();
        Arc::new(Recorder {
            inner: Mutex::new(Recording { page_size, durable, before, cuts: Vec::new(), flushes: 0, deaf }),
        })
    }

    fn take_cuts(&self) -> Vec<Cut> {
        std::mem::take(&mut self.inner.lock().expect("recording").cuts)
    }

    fn durable(&self) -> Arc<Vec<u8>> {
        Arc::clone(&self.inner.lock().expect("recording").durable)
    }
}

fn contents(event: &FlushEvent<'_>) -> Vec<u8> {
    let mut bytes = vec![0; event.mapped_len as usize];
    assert!(event.read(0, &mut bytes), "the seam reads the whole file");
    assert!(event.file_len >= event.mapped_len);
    bytes
}

impl Seam for Recorder {
    fn before_flush(&self, event: &FlushEvent<'_>) -> io::Result<()> {
        let current = Arc::new(contents(event));
        let mut inner = self.inner.lock().expect("recording");
        inner.flushes += 1;
        let what = format!("before flush {} ({event:?})", inner.flushes);
        let meta = event.kind == FlushKind::Meta;
        inner.before = Arc::clone(&current);
        let durable = Arc::clone(&inner.durable);
        inner.cuts.push(Cut { what, meta, durable, current });
        Ok(())
    }

    fn after_flush(&self, event: &FlushEvent<'_>) {
        let mut inner = self.inner.lock().expect("recording");
        if inner.flushes <= inner.deaf {
            return;
        }
        let before = Arc::clone(&inner.before);
        let end = ((event.offset + event.len) as usize).next_multiple_of(inner.page_size).min(before.len());
        let flushed = event.offset as usize..end;
        let durable = Arc::make_mut(&mut inner.durable);
        if durable.len() < flushed.end {
            durable.resize(flushed.end, 0);
        }
        durable[flushed.clone()].copy_from_slice(&before[flushed]);
    }
}

/// What one page or sector in doubt may hold.
#[derive(Clone, Copy, PartialEq)]
enum Fate {
    Old,
    New,
    Torn(u64),
    Garbage(u64),
}

/// A part of the file that was stored to since it was last durable.
struct Doubt {
    range: Range<usize>,
    sector: bool,
}

impl Cut {
    /// Pages that differ, and of the meta slots their sectors.
    fn doubts(&self, page_size: usize) -> Vec<Doubt> {
        let mut doubts = Vec::new();
        for start in (0..self.current.len()).step_by(page_size) {
            let sector = start < 2 * page_size;
            let step = if sector { SECTOR } else { page_size };
            for part in (start..start + page_size).step_by(step) {
                let range = part..part + step;
                if self.old(&range) != Some(&self.current[range.clone()]) && !self.both_zero(&range) {
                    doubts.push(Doubt { range, sector });
                }
            }
        }
        doubts
    }

    fn old(&self, range: &Range<usize>) -> Option<&[u8]> {
        self.durable.get(range.clone())
    }

    /// Beyond the durable length, what was never stored to is zeros.
    fn both_zero(&self, range: &Range<usize>) -> bool {
        self.old(range).is_none() && self.current[range.clone()].iter().all(|&byte| byte == 0)
    }

    fn image(&self, doubts: &[Doubt], fates: &[Fate], len: usize) -> Vec<u8> {
        let mut image = self.durable.to_vec();
        image.resize(self.current.len().max(self.durable.len()), 0);
        for (doubt, fate) in doubts.iter().zip(fates) {
            let (part, new) = (&mut image[doubt.range.clone()], &self.current[doubt.range.clone()]);
            match *fate {
                Fate::Old => {}
                Fate::New => part.copy_from_slice(new),
                Fate::Torn(seed) => tear(part, new, &mut Rng(seed)),
                Fate::Garbage(seed) => part.iter_mut().zip(new).for_each({
                    let mut rng = Rng(seed);
                    move |(byte, _)| *byte = rng.next() as u8
                }),
            }
        }
        image.resize(len, 0);
        image
    }

    /// The choices to try: all while few, seeded samples beyond.
    fn choices(&self, doubts: &[Doubt], samples: usize, rng: &mut Rng) -> Vec<Vec<Fate>> {
        let n = doubts.len();
        let mut choices = Vec::new();
        if n <= ALL_SUBSETS_OF {
            choices.extend((0..1u32 << n).map(|bits| (0..n).map(|at| kept(bits >> at & 1 == 1)).collect()));
        } else {
            choices.extend([vec![Fate::Old; n], vec![Fate::New; n]]);
            for _ in 0..samples / 2 {
                let odds = 1 + rng.below(9);
                choices.push((0..n).map(|_| kept(rng.below(10) < odds)).collect());
            }
            for _ in 0..samples / 4 {
                let base = kept(rng.one_in(2));
                let mut one_differs = vec![base; n];
                one_differs[rng.below(n as u64) as usize] = if base == Fate::Old { Fate::New } else { Fate::Old };
                choices.push(one_differs);
            }
        }
        for _ in 0..samples / 4 {
            choices.push(doubts.iter().map(|doubt| self.any_fate(doubt, rng)).collect());
        }
        choices
    }

    /// A page may be torn; a sector of a meta that is being flushed may hold anything.
    fn any_fate(&self, doubt: &Doubt, rng: &mut Rng) -> Fate {
        match rng.below(3) {
            0 => Fate::Old,
            1 => Fate::New,
            _ if !doubt.sector => Fate::Torn(rng.next()),
            _ if self.meta => Fate::Garbage(rng.next()),
            _ => Fate::New,
        }
    }

    fn lengths(&self) -> Vec<usize> {
        let mut lengths = vec![self.current.len(), self.durable.len()];
        lengths.dedup();
        lengths
    }
}

fn kept(kept: bool) -> Fate {
    if kept {
        Fate::New
    } else {
        Fate::Old
    }
}

fn tear(part: &mut [u8], new: &[u8], rng: &mut Rng) {
    for (old, new) in part.chunks_mut(SECTOR).zip(new.chunks(SECTOR)) {
        if rng.one_in(2) {
            old.copy_from_slice(new);
        }
    }
}

/// A run and all that is judged of it.
struct Run<'a> {
    history: &'a History,
    page_size: usize,
    dir: &'a Path,
    rng: Rng,
    samples: usize,
    seen: HashSet<(u32, usize, u64)>,
    judged: u64,
    files: u64,
    mutant: Option<Mutant>,
    deaf: u64,
}

/// Where a lineage begins.
struct Start {
    file: Vec<u8>,
    durable: Arc<Vec<u8>>,
    acknowledged: u64,
}

impl<'a> Run<'a> {
    fn new(history: &'a History, page_size: usize, dir: &'a Path, seed: u64, samples: usize) -> Run<'a> {
        Run {
            history,
            page_size,
            dir,
            rng: Rng(seed ^ 0xc4a5),
            samples,
            seen: HashSet::new(),
            judged: 0,
            files: 0,
            mutant: None,
            deaf: 0,
        }
    }

    fn path(&mut self) -> PathBuf {
        self.files += 1;
        self.dir.join(format!("{}.mapleaf", self.files))
    }

    /// A new database, as it is after creation.
    fn creation(&mut self) -> Start {
        let path = self.path();
        drop(Options::new().page_size(self.page_size as u32).open(&path).expect("creation"));
        let file = std::fs::read(&path).expect("the new file");
        Start { durable: Arc::new(file.clone()), file, acknowledged: 0 }
    }

    /// Commits `commits` transactions, judges every cut on the way, and goes on from some of them, `depth` crashes deep.
    fn lineage(&mut self, start: Start, commits: u64, depth: u32) -> Result<(), String> {
        let path = self.path();
        std::fs::write(&path, &start.file).expect("to write the file");
        let recorder = Recorder::new(self.page_size, start.durable, self.deaf);
        let mut acknowledged = start.acknowledged;
        let mut db = Some(self.open(&path, &recorder)?);
        let mut found = self.judge_cuts(recorder.take_cuts(), acknowledged, depth);
        for commit in 0..commits {
            found?;
            if commit % 7 == 6 {
                drop(db.take());
                let seen = Recorder::new(self.page_size, recorder.durable(), self.deaf);
                db = Some(self.open(&path, &seen)?);
                found = self.judge_cuts(seen.take_cuts(), acknowledged, depth);
                found?;
                // The one recorder goes on: what opening flushed is durable in both.
                recorder.inner.lock().expect("recording").durable = seen.durable();
                mapleaf::testing::set_seam(db.as_ref().expect("open"), Arc::clone(&recorder) as Arc<dyn Seam>);
            }
            let db = db.as_ref().expect("open");
            if commit % 5 == 3 {
                let mut txn = db.begin_write().map_err(|e| format!("begin_write: {e}"))?;
                self.history.perform(&mut txn).map_err(|e| format!("a transaction to be aborted: {e}"))?;
                txn.abort();
            }
            let committed = self.history.commit_next(db).map_err(|e| format!("commit: {e}"))?;
            // Cuts of this commit are judged against what was acknowledged before it.
            found = self.judge_cuts(recorder.take_cuts(), acknowledged, depth);
            acknowledged = committed;
        }
        found?;
        // The power may also go after the last commit.
        let mut current = std::fs::read(&path).expect("the file");
        // Behind the pages lies what shows that the file was cut.
        current.truncate(current.len() / self.page_size * self.page_size);
        let current = Arc::new(current);
        let last = Cut { what: "after the last commit".into(), meta: false, durable: recorder.durable(), current };
        self.judge_cuts(vec![last], acknowledged, depth)?;
        drop(db);
        drop(std::fs::remove_file(&path));
        Ok(())
    }

    fn open(&mut self, path: &Path, recorder: &Arc<Recorder>) -> Result<Db, String> {
        let seam = Arc::clone(recorder) as Arc<dyn Seam>;
        let db = open_with_seam(Options::new(), path, seam).map_err(|e| format!("open: {e}"))?;
        if let Some(mutant) = self.mutant {
            set_mutant(&db, mutant);
        }
        Ok(db)
    }

    fn judge_cuts(&mut self, cuts: Vec<Cut>, acknowledged: u64, depth: u32) -> Result<(), String> {
        for cut in cuts {
            let doubts = cut.doubts(self.page_size);
            let choices = cut.choices(&doubts, self.samples, &mut self.rng);
            for (n, fates) in choices.iter().enumerate() {
                for len in cut.lengths() {
                    let image = cut.image(&doubts, fates, len);
                    if !self.seen.insert((crc32fast::hash(&image), len, acknowledged)) {
                        continue;
                    }
                    let told = |e| format!("{}, choice {n} of {} doubts, length {len}: {e}", cut.what, doubts.len());
                    let deep = depth > 0 && self.rng.one_in(150);
                    self.judge(&image, acknowledged).map_err(told)?;
                    if deep {
                        let durable = Arc::new(image.clone());
                        let start = Start { file: image, durable, acknowledged };
                        self.lineage(start, 3, depth - 1).map_err(|e| told(format!("after the power loss: {e}")))?;
                    }
                }
            }
            if depth > 0 && self.rng.one_in(8) {
                let start = Start { file: cut.current.to_vec(), durable: Arc::clone(&cut.durable), acknowledged };
                self.lineage(start, 4, depth - 1).map_err(|e| format!("{}, killed there: {e}", cut.what))?;
            }
        }
        Ok(())
    }

    /// Opens an image, and compares, checks, writes and checks again.
    fn judge(&mut self, image: &[u8], acknowledged: u64) -> Result<(), String> {
        self.judged += 1;
        let path = self.dir.join("image.mapleaf");
        std::fs::write(&path, image).expect("to write an image");
        if self.judged % 16 == 0 {
            let db = Options::new().read_only(true).open(&path).map_err(|e| format!("read-only: {e}"))?;
            self.history.judge(&db).map_err(|e| format!("read-only: {e}"))?;
            drop(db);
            if std::fs::read(&path).expect("the image") != image {
                return Err("reading changed the file".into());
            }
        }
        let db = Db::open_existing(&path).map_err(|e| format!("open: {e}"))?;
        let txn = self.history.judge(&db)?;
        if txn < acknowledged {
            return Err(format!("txn {acknowledged} was acknowledged and the state is that of txn {txn}"));
        }
        let next = self.history.commit_next(&db).map_err(|e| format!("commit after recovery: {e}"))?;
        if next != txn + 1 || self.history.judge(&db).map_err(|e| format!("after a commit: {e}"))? != next {
            return Err(format!("the commit after txn {txn} made {next}"));
        }
        Ok(())
    }
}

/// One seeded run. Prints what would be needed to run it again.
fn run(seed: u64, page_size: usize, commits: u64, samples: usize) {
    let dir = fast_dir();
    let history = History::new(seed);
    let mut run = Run::new(&history, page_size, dir.path(), seed, samples);
    println!("seed {seed}, pages of {page_size}, {commits} commits, {samples} samples per cut");
    let start = run.creation();
    let found = run.lineage(start, commits, 2);
    println!("seed {seed}: {} distinct images", run.judged);
    found.unwrap_or_else(|e| panic!("seed {seed}, pages of {page_size}: {e}"));
    assert!(run.judged > 20 * commits, "only {} images", run.judged);
}

fn rounds() -> u64 {
    if long() {
        40
    } else {
        1
    }
}

#[test]
fn every_crash_leaves_a_committed_state_4k() {
    for round in 0..rounds() {
        run(0x11 + round * 1000, 4096, 40, 12);
    }
}

#[test]
fn every_crash_leaves_a_committed_state_8k() {
    for round in 0..rounds() {
        run(0x22 + round * 1000, 8192, 30, 12);
    }
}

#[test]
fn every_crash_leaves_a_committed_state_32k() {
    for round in 0..rounds() {
        run(0x33 + round * 1000, 32768, 20, 12);
    }
}

/// Runs with something wrong, and returns what the judge said.
fn caught(mutant: Option<Mutant>, deaf: u64) -> Option<String> {
    (0..5).find_map(|seed| {
        let dir = fast_dir();
        let history = History::new(seed);
        let mut run = Run::new(&history, 4096, dir.path(), seed, 12);
        (run.mutant, run.deaf) = (mutant, deaf);
        let start = run.creation();
        run.lineage(start, 12, 1).err()
    })
}

#[test]
fn a_checkpoint_without_the_flush_of_its_pages_is_caught() {
    let said = caught(Some(Mutant::NoPageFlush), 0).expect("caught");
    println!("{said}");
}

#[test]
fn a_checkpoint_without_the_flush_of_its_meta_is_caught() {
    let said = caught(Some(Mutant::NoMetaFlush), 0).expect("caught");
    assert!(said.contains("acknowledged"), "{said}");
}

#[test]
fn a_meta_written_before_its_pages_is_caught() {
    let said = caught(Some(Mutant::MetaFirst), 0).expect("caught");
    println!("{said}");
}

#[test]
fn a_meta_written_over_the_durable_one_is_caught() {
    let said = caught(Some(Mutant::SameSlot), 0).expect("caught");
    println!("{said}");
}

/// What a killed process left in the page cache has to be durable before anything is built on it.
#[test]
fn an_opening_without_a_flush_is_caught() {
    let said = caught(None, 1).expect("caught");
    println!("{said}");
}

/// The meta of the newest state was written and not flushed when the process was killed. The next process sees it in
/// the page cache. If the power goes while it commits, the medium may hold the older meta: its pages must be whole.
#[test]
fn a_state_found_in_the_page_cache_is_durable_before_it_is_built_on() {
    let dir = fast_dir();
    for seed in 0..6 {
        let history = History::new(seed);
        let mut run = Run::new(&history, 4096, dir.path(), seed, 16);
        let start = run.creation();
        let path = run.path();
        std::fs::write(&path, &start.file).expect("to write the file");
        let recorder = Recorder::new(4096, start.durable, 0);
        let db = run.open(&path, &recorder).expect("open");
        for _ in 0..12 {
            history.commit_next(&db).expect("commit");
        }
        let acknowledged = history.judge(&db).expect("judge") - 1;
        let killed = recorder.take_cuts().into_iter().rfind(|cut| cut.meta).expect("a flush of a meta");
        let start = Start { file: killed.current.to_vec(), durable: killed.durable, acknowledged };
        run.lineage(start, 3, 0).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
    }
}

/// The control: a right run of the same length as the mutants' passes.
#[test]
fn without_a_mutant_nothing_is_caught() {
    assert_eq!(caught(None, 0), None);
}
