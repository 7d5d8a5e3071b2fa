//! Creation: every directory that a power cut may leave while a database is created, or before its
//! first commit.
//!
//! Mapleaf writes the temporary file, flushes it, renames it, and flushes the directory. Until the
//! directory is flushed, each of its changes may be durable or not: there may be no file, a
//! temporary one, or the file. A file's contents are as durable as its own flushes made them.
//! Opening must then create a new database or find a complete one, whatever other files there are.
//! After an acknowledged commit, the file exists.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use mapleaf::testing::{open_with_hooks, with_mutant, Creation, Hooks, Mutant};
use mapleaf::{Db, Options};

use super::disk::Disk;
use super::image::{Choice, Content, Cut, Image, Tally, SECTOR, WORD};
use super::keep;
use super::mutants::WITHIN;
use super::recorder::Recorder;
use super::setting::{Mode, Setting};
use crate::support;
use crate::workload::{fast_dir, History, Rng, FIRST_TXN};

const NAME: &str = "made.mapleaf";
const LEFTOVER: &str = ".made.mapleaf.1-2-3.new";

/// A moment of a possible power cut.
struct Moment {
    cut: Cut,
    /// Names that the file may have then; `None` means that it is lost.
    names: &'static [Option<&'static str>],
    acknowledged: Option<u64>,
}

/// The contents of the directory after a cut.
struct Scene<'a> {
    file: Option<(&'static str, Image)>,
    page_size: usize,
    acknowledged: Option<u64>,
    history: &'a History,
    /// Whether the options initialise an existing empty file.
    init_empty: bool,
}

impl Scene<'_> {
    /// A hash that does not depend on the uuid of the database.
    fn hash(&self) -> u64 {
        match &self.file {
            None => 0,
            Some((name, image)) => without_uuid(image).hash() ^ u64::from(*name == LEFTOVER),
        }
    }

    fn judge(&self, dir: &Path) -> Result<(), String> {
        for path in [dir.join(NAME), dir.join(LEFTOVER), support::lock_file_of(&dir.join(NAME))] {
            drop(std::fs::remove_file(path));
        }
        if let Some((name, image)) = &self.file {
            image.write(&dir.join(name));
        }
        let named = self.file.as_ref().is_some_and(|(name, _)| *name == NAME);
        if let (Some(txn), false) = (self.acknowledged, named) {
            return Err(format!("txn {txn} was acknowledged and there is no file"));
        }
        let path = dir.join(NAME);
        let options = || Options::new().page_size(self.page_size as u32).init_empty(self.init_empty);
        let db = options().open(&path).map_err(|e| format!("open: {e}"))?;
        let mut txn = self.history.judge(&db)?;
        if txn < FIRST_TXN {
            // Only the first of the two meta pages of a new file exists; the history begins with
            // the second.
            txn = next_without_change(&db).map_err(|e| format!("commit: {e}"))?;
        }
        if txn < self.acknowledged.unwrap_or(0) {
            return Err(format!("the state is that of txn {txn}, and {:?} was acknowledged", self.acknowledged));
        }
        let next = self.history.commit_next(&db).map_err(|e| format!("commit: {e}"))?;
        drop(db);
        let db = Db::open_existing(&path).map_err(|e| format!("open once more: {e}"))?;
        if self.history.judge(&db)? != next {
            return Err(format!("the commit of txn {next} is not there"));
        }
        self.leftover_stays(dir)
    }

    /// A left-over temporary file is harmless and is not touched.
    fn leftover_stays(&self, dir: &Path) -> Result<(), String> {
        let names = support::names_beside_locks(dir, &[NAME]).len();
        match &self.file {
            Some((LEFTOVER, image)) => {
                let stays = std::fs::read(dir.join(LEFTOVER)).is_ok_and(|bytes| bytes == image.bytes());
                (stays && names == 2).then_some(()).ok_or_else(|| "a leftover was touched".into())
            }
            _ => (names == 1).then_some(()).ok_or_else(|| format!("{names} names in the directory")),
        }
    }
}

/// Commits a transaction that changes no entry, and returns its number.
fn next_without_change(db: &Db) -> mapleaf::Result<u64> {
    let mut txn = db.begin_write()?;
    let number = txn.txn_id();
    drop(txn.bytes_table("passing")?.insert(b"k", b"v")?);
    txn.drop_table("passing")?;
    txn.commit()?;
    Ok(number)
}

/// The image without the parts of the meta pages that depend on the uuid.
fn without_uuid(image: &Image) -> Image {
    const UUID: std::ops::Range<usize> = 32..48;
    const CHECKSUM: std::ops::Range<usize> = 252..256;
    let mut image = image.clone();
    for page in image.pages.iter_mut().take(2).filter(|page| page.hash != 0) {
        let mut bytes = page.bytes().to_vec();
        for record in [0, image.page_size / 2] {
            for field in [UUID, CHECKSUM] {
                bytes[record + field.start..record + field.end].fill(0);
            }
        }
        *page = Content::new(&bytes, image.page_size);
    }
    image
}

/// Creates a database and commits to it. Returns every moment of a possible power cut.
fn moments(setting: &Setting, history: &History, dir: &Path) -> Result<Vec<Moment>, String> {
    let path = dir.join("watched.mapleaf");
    let recorder = Recorder::new(&path, Disk::empty(setting.page_size), 0);
    let hooks = Arc::clone(&recorder) as Arc<dyn Hooks>;
    let options = Options::new().page_size(setting.page_size as u32);
    let opened = with_mutant(setting.mutant, || open_with_hooks(options, &path, hooks));
    let db = opened.map_err(|e| format!("open: {e}"))?;
    let mut named_for_certain = false;
    let mut moments = Vec::new();
    for (step, disk) in recorder.steps() {
        let names: &[Option<&str>] = match step {
            Creation::Written | Creation::Flushed => &[None, Some(LEFTOVER)],
            Creation::Renamed => &[None, Some(LEFTOVER), Some(NAME)],
            Creation::DirectoryFlushed => &[Some(NAME)],
        };
        named_for_certain |= step == Creation::DirectoryFlushed;
        moments.push(Moment { cut: disk.cut(format!("{step:?}"), false), names, acknowledged: None });
    }
    let names: &[Option<&str>] = if named_for_certain { &[Some(NAME)] } else { &[None, Some(LEFTOVER), Some(NAME)] };
    let mut acknowledged = None;
    let mut add = |cuts: Vec<Cut>, acknowledged| {
        moments.extend(cuts.into_iter().map(|cut| Moment { cut, names, acknowledged }));
    };
    add(recorder.take_cuts(), None);
    for _ in 0..3 {
        let committed = with_mutant(setting.mutant, || history.commit_next(&db)).map_err(|e| format!("commit: {e}"))?;
        add(recorder.take_cuts(), acknowledged);
        acknowledged = Some(committed);
        add(vec![recorder.cut_now("after a commit")], acknowledged);
    }
    drop(db);
    support::remove_database(&path);
    Ok(moments)
}

/// Judges every scene of some moments. Returns their number, the number of new ones, and a
/// violation.
fn judge(setting: &Setting, history: &History, moments: &[Moment], init_empty: bool) -> (u64, u64, Option<String>) {
    let dir = fast_dir();
    let mut rng = Rng(history.seed());
    let (mut judged, mut distinct, mut seen) = (0, 0, HashSet::new());
    for moment in moments {
        for choice in moment.cut.choices(setting.samples, setting.grain, &mut rng) {
            for name in moment.names {
                let scene = |image: Image| Scene {
                    file: name.map(|name| (name, image)),
                    page_size: setting.page_size,
                    acknowledged: moment.acknowledged,
                    history,
                    init_empty,
                };
                let now = scene(moment.cut.image(&choice));
                let hash = now.hash();
                if !seen.insert((hash, moment.acknowledged)) {
                    continue;
                }
                judged += 1;
                if setting.mutant.is_none() {
                    distinct += u64::from(Tally::of(Mode::Power).count(hash));
                }
                if let Err(said) = now.judge(dir.path()) {
                    let violates = |image: &Image| scene(image.clone()).judge(dir.path()).err();
                    let kept = violation(setting, moment, &choice, name.is_some(), violates, history);
                    return (judged, distinct, Some(format!("{}, as {name:?}: {said}; {kept}", moment.cut.what)));
                }
            }
        }
    }
    (judged, distinct, None)
}

/// Shrinks and keeps the image of a violation; the image may be a missing file.
fn violation(
    setting: &Setting,
    moment: &Moment,
    choice: &Choice,
    is_there: bool,
    violates: impl Fn(&Image) -> Option<String>,
    history: &History,
) -> String {
    let acknowledged = moment.acknowledged.unwrap_or(0);
    let shrunk = match is_there {
        true => keep::shrink(&moment.cut, choice, violates),
        false => keep::Shrunk::missing(setting.page_size, acknowledged),
    };
    let pages = format!("shrunk to pages {:?}: {}", shrunk.pages, shrunk.said);
    format!("{pages}; {}", keep::keep(&keep::Kept::of(shrunk, *setting, history, acknowledged)))
}

fn setting(page_size: usize, grain: usize, mutant: Option<Mutant>) -> Setting {
    Setting { grain, mutant, samples: 64, ..Setting::power(page_size) }
}

/// Runs with a mutant until it is found. Returns the number of images and the violation.
fn hunt(mutant: Option<Mutant>) -> (u64, Option<String>) {
    let mut images = 0;
    for seed in 0.. {
        let history = History::power(seed);
        let dir = fast_dir();
        let setting = setting(4096, SECTOR, mutant);
        let moments = moments(&setting, &history, dir.path()).expect("a run");
        let (judged, _, said) = judge(&setting, &history, &moments, false);
        images += judged;
        if said.is_some() || images >= WITHIN {
            return (images, said);
        }
    }
    unreachable!("there is always a next seed")
}

#[test]
fn creation_leaves_no_file_or_a_whole_one() {
    let test = "creation";
    let seed = support::seed(test);
    let (mut distinct, mut judged) = (0, 0);
    for round in 0..u64::from(support::long()) {
        for (page_size, grain) in [4096, 8192, 16384, 32768].into_iter().flat_map(|size| [(size, SECTOR), (size, WORD)])
        {
            let history = History::power(seed.wrapping_add(round));
            let dir = fast_dir();
            let setting = setting(page_size, grain, None);
            let moments = moments(&setting, &history, dir.path()).expect("a run");
            let (some, new, said) = judge(&setting, &history, &moments, false);
            assert_eq!(said, None, "seed {}, pages of {page_size}", history.seed());
            (judged, distinct) = (judged + some, distinct + new);
        }
    }
    super::told(test, Mode::Power, distinct, judged);
}

#[test]
fn a_directory_that_is_not_flushed_is_caught() {
    let (images, said) = hunt(Some(Mutant::NoDirectoryFlush));
    println!("mutant NoDirectoryFlush: found after {images} images: {said:?}");
    assert!(said.expect("found").contains("there is no file"));
}

#[test]
fn a_new_file_that_is_not_flushed_is_caught() {
    let (images, said) = hunt(Some(Mutant::NoCreationFlush));
    println!("mutant NoCreationFlush: found after {images} images: {said:?}");
    assert!(said.expect("found").contains("open: "));
}

/// The control for both mutants.
#[test]
fn without_a_mutant_creation_is_right() {
    let (images, said) = hunt(None);
    assert!(images >= WITHIN && said.is_none(), "after {images} images: {said:?}");
}

/// An existing empty file is initialised in place: its name is durable already, and its pages may
/// be lost.
#[test]
fn an_empty_file_becomes_a_database_or_can_still_be_initialised() {
    for (seed, page_size) in [4096, 8192, 16384, 32768].into_iter().enumerate() {
        let history = History::power(seed as u64);
        let dir = fast_dir();
        let path = dir.path().join("empty.mapleaf");
        drop(std::fs::File::create(&path).expect("an empty file"));
        drop(Options::new().page_size(page_size as u32).init_empty(true).open(&path).expect("a database"));
        let mut disk = Disk::empty(page_size);
        disk.observe(&std::fs::read(&path).expect("the file"));
        let cut = disk.cut("while an empty file is initialised".into(), false);
        let moments = [Moment { cut, names: &[Some(NAME)], acknowledged: None }];
        let (judged, _, said) = judge(&setting(page_size, SECTOR, None), &history, &moments, true);
        assert!(judged > 8, "{judged}");
        assert_eq!(said, None, "pages of {page_size}");
    }
}
