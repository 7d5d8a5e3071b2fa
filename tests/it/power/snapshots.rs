//! Power cuts while named snapshots are created, dropped and restored between commits.
//!
//! Each step of a run changes what the database has to hold from one *world* to the next: the step
//! of the history, and the snapshots with the steps that they keep. An image of a cut during a step
//! must hold one of the two worlds, as a whole; after the step only the second. The image then goes
//! on: a commit on it must not touch what its snapshots reach.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use mapleaf::testing::{open_with_hooks, set_log_shape, set_sole, with_mutant, Hooks, Mutant};
use mapleaf::{Db, Options};

use super::disk::Disk;
use super::image::{Image, SECTOR};
use super::judge::all_right;
use super::mutants::WITHIN;
use super::recorder::Recorder;
use super::run::fresh;
use super::setting::{Content, Log};
use crate::support;
use crate::workload::{fast_dir, History, Rng};

/// What a database has to hold.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct World {
    /// The step of the history.
    step: u64,
    /// Snapshots by name, with the steps that they keep.
    snapshots: BTreeMap<String, u64>,
}

/// Counts of what occurred.
#[derive(Debug, Default)]
struct Counts {
    images: u64,
    commits: u64,
    created: u64,
    dropped: u64,
    restored: u64,
    reopened: u64,
    crashes: u64,
}

/// Runs of one seed.
struct Runs<'a> {
    history: &'a History,
    dir: &'a Path,
    page_size: usize,
    mutant: Option<Mutant>,
    rng: Rng,
    limit: u64,
    counts: &'a mut Counts,
    files: u64,
    /// Images that were judged, each with the worlds that were allowed.
    seen: HashSet<(u64, String)>,
}

/// The world that a database holds. An error if anything in it is wrong.
fn world_of(history: &History, db: &Db) -> Result<World, String> {
    let step = history.judge(db)?;
    let mut snapshots = BTreeMap::new();
    for found in db.snapshots().map_err(|e| format!("snapshots: {e}"))? {
        let told = |e: &dyn std::fmt::Display| format!("snapshot '{}': {e}", found.name);
        let txn = db.read_snapshot(&found.name).map_err(|e| told(&e))?;
        let kept = history.step(&txn).map_err(|e| told(&e))?;
        match all_right(&txn, &history.state(kept)).map_err(|e| told(&e))? {
            true => snapshots.insert(found.name, kept),
            false => return Err(told(&"a part of it cannot be read")),
        };
    }
    Ok(World { step, snapshots })
}

impl Runs<'_> {
    fn open(&self, path: &Path, recorder: &Arc<Recorder>) -> Result<Db, String> {
        let hooks = Arc::clone(recorder) as Arc<dyn Hooks>;
        let options = Options::new().sync_interval(None);
        with_mutant(self.mutant, || open_with_hooks(options, path, hooks)).map_err(|e| format!("open: {e}"))
    }

    fn done(&self) -> bool {
        self.counts.images >= self.limit
    }

    /// Steps on a file that begins with `disk`, of a database that holds `world`.
    fn lineage(&mut self, disk: Disk, mut world: World, steps: u64, depth: u32) -> Result<(), String> {
        self.files += 1;
        let path = self.dir.join(format!("{}.mapleaf", self.files));
        let (pages, len) = disk.current();
        Image::new(self.page_size, pages, len).write(&path);
        let recorder = Recorder::new(&path, disk, 0);
        let mut db = Some(self.open(&path, &recorder)?);
        self.judge_cuts(&recorder, &world, &world, depth)?;
        for _ in 0..steps {
            if self.done() {
                break;
            }
            let next = self.step(&mut db, &path, &recorder, &world)?;
            self.judge_cuts(&recorder, &world, &next, depth)?;
            world = next;
        }
        drop(with_mutant(self.mutant, || db.take()));
        self.judge_cuts(&recorder, &world, &world, depth)?;
        drop(std::fs::remove_file(&path));
        Ok(())
    }

    /// One step. Returns what the database holds after it.
    fn step(
        &mut self,
        slot: &mut Option<Db>,
        path: &Path,
        recorder: &Arc<Recorder>,
        world: &World,
    ) -> Result<World, String> {
        let mut next = world.clone();
        let drawn = self.rng.below(20);
        let name = format!("s{}", self.rng.below(3));
        if drawn == 19 {
            self.counts.reopened += 1;
            drop(with_mutant(self.mutant, || slot.take()));
            *slot = Some(self.open(path, recorder)?);
            return Ok(next);
        }
        let db = slot.as_ref().expect("open");
        let counts = &mut *self.counts;
        let done = with_mutant(self.mutant, || match (drawn, world.snapshots.get(&name)) {
            (10..=13, None) => {
                next.snapshots.insert(name.clone(), world.step);
                counts.created += 1;
                db.create_snapshot(&name).map(drop)
            }
            (10..=12, Some(_)) => {
                next.snapshots.remove(&name);
                counts.dropped += 1;
                db.drop_snapshot(&name)
            }
            (13..=15, Some(&kept)) => {
                next.step = kept;
                counts.restored += 1;
                db.restore_snapshot(&name)
            }
            (18, _) => db.checkpoint(),
            _ => {
                counts.commits += 1;
                self.history.commit_next(db).map(|step| next.step = step)
            }
        });
        done.map_err(|e| format!("a step from {world:?}: {e}"))?;
        Ok(next)
    }

    /// Judges the cuts of a step from one world to the next, and one after it.
    fn judge_cuts(&mut self, recorder: &Recorder, before: &World, after: &World, depth: u32) -> Result<(), String> {
        for cut in recorder.take_cuts() {
            self.judge_images(&cut, &[before, after], depth)?;
        }
        self.judge_images(&recorder.cut_now("after a step"), &[after], depth)
    }

    fn judge_images(&mut self, cut: &super::image::Cut, allowed: &[&World], depth: u32) -> Result<(), String> {
        for choice in cut.choices(8, SECTOR, &mut self.rng) {
            if self.done() {
                return Ok(());
            }
            let image = cut.image(&choice);
            if !self.seen.insert((image.hash(), format!("{allowed:?}"))) {
                continue;
            }
            self.counts.images += 1;
            let told = |e: String| {
                let (seed, mutant) = (self.history.seed(), self.mutant);
                format!("MAPLEAF_SEED={seed}, {mutant:?}, {}, {choice:?}: {e}", cut.what)
            };
            let world = self.judge(&image, allowed).map_err(told)?;
            if depth > 0 && self.rng.one_in(60) {
                self.counts.crashes += 1;
                let disk = Disk::durable(image.page_size, &image.pages, image.len);
                self.lineage(disk, world, 4, depth - 1)
                    .map_err(|e| format!("{}, after the power loss: {e}", cut.what))?;
            }
        }
        Ok(())
    }

    /// The world of an image, which must be one of `allowed`, also after a commit on it.
    fn judge(&self, image: &Image, allowed: &[&World]) -> Result<World, String> {
        let path = self.dir.join("image.mapleaf");
        image.write(&path);
        let db = Db::open_existing(&path).map_err(|e| format!("open: {e}"))?;
        let world = world_of(self.history, &db)?;
        if !allowed.contains(&&world) {
            return Err(format!("{world:?}, expected one of {allowed:?}"));
        }
        let step = self.history.commit_next(&db).map_err(|e| format!("commit after recovery: {e}"))?;
        let expected = World { step, ..world.clone() };
        match world_of(self.history, &db).map_err(|e| format!("after a commit: {e}"))? {
            found if found == expected => Ok(world),
            found => Err(format!("after a commit: {found:?}, expected {expected:?}")),
        }
    }
}

/// Runs with seeds from `MAPLEAF_SEED` on until there are so many images, or a violation.
fn runs(test: &str, page_size: usize, mutant: Option<Mutant>, images: u64) -> (Counts, Option<String>) {
    let mut counts = Counts::default();
    for seed in support::seed(test).. {
        let kinds = [Content::Plain, Content::Pairs, Content::LongKeys];
        let (dir, history) = (fast_dir(), kinds[seed as usize % 3].history(seed));
        set_log_shape(Log::BySeed.shape(seed, page_size));
        set_sole(None);
        let image = fresh(page_size);
        let mut run = Runs {
            history: &history,
            dir: dir.path(),
            page_size,
            mutant,
            rng: Rng(seed ^ 0x5a5a),
            limit: images,
            counts: &mut counts,
            files: 0,
            seen: HashSet::new(),
        };
        let disk = Disk::durable(image.page_size, &image.pages, image.len);
        let db_step = World { step: crate::workload::FIRST_TXN, ..World::default() };
        let found = run.lineage(disk, db_step, 24, 2);
        if found.is_err() || counts.images >= images {
            println!("{test}: {counts:?}: {found:?}");
            return (counts, found.err());
        }
    }
    unreachable!("there is always a next seed")
}

fn every_cut(test: &str, page_size: usize) {
    let (counts, found) = runs(test, page_size, None, 2500 * u64::from(support::long()));
    assert_eq!(found, None);
    let kinds = [counts.commits, counts.created, counts.dropped, counts.restored, counts.reopened, counts.crashes];
    assert!(kinds.iter().all(|&count| count > 0), "{counts:?}");
}

#[test]
fn every_cut_while_snapshots_change_leaves_all_or_nothing_of_a_step_4k() {
    every_cut("snapshots_4k", 4096);
}

#[test]
fn every_cut_while_snapshots_change_leaves_all_or_nothing_of_a_step_16k() {
    every_cut("snapshots_16k", 16384);
}

/// A writer that uses pages again which only a snapshot reaches.
#[test]
fn a_named_snapshot_left_out_of_reclaim_is_caught() {
    let (counts, found) = runs("snapshots_left_out", 4096, Some(Mutant::SnapshotsLeftOut), WITHIN);
    let said = found.unwrap_or_else(|| panic!("not found in {} images", counts.images));
    assert!(said.contains("snapshot"), "an image shows it: {said}");
}
