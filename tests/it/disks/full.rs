//! Full disks: at each step of growth, at creation, in a commit, in a compaction, in a large value,
//! and under the holes of a copy.
//!
//! The failing call returns an error with the path and the number of bytes that it needed. The
//! transaction can be aborted on the full disk, reads still work, every commit is there, and once
//! there is room the same handle writes again.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::Arc;

use mapleaf::testing::{open_with_hooks, Hooks};
use mapleaf::{Db, Error, ErrorKind, Options, Table};

use super::{skipped, Ballast, Disk, Kind};
use crate::reexec;
use crate::support::{assert_clean, bytes, long, remove_database, Rng, SmallSteps};

const DATA: Table<u64, &[u8]> = Table::new("data");

/// Number of growth steps that hit a full disk, each once.
const STEPS: u64 = 200;

/// A database on a disk, with its committed entries.
struct Filled {
    path: PathBuf,
    db: Option<Db>,
    hooks: Arc<SmallSteps>,
    model: BTreeMap<u64, u64>,
    ballast: Ballast,
}

fn value_of(seed: u64) -> Vec<u8> {
    bytes(seed, 300 + (seed % 7 * 900) as usize)
}

impl Filled {
    fn new(disk: &Path) -> Filled {
        let path = disk.join("test.mapleaf");
        let ballast = Ballast::on(disk);
        let mut filled = Filled { path, db: None, hooks: Arc::default(), model: BTreeMap::new(), ballast };
        filled.open();
        filled
    }

    fn open(&mut self) {
        self.db = None;
        let len = fs::metadata(&self.path).map_or(0, |metadata| metadata.len());
        self.hooks.len.store(len, Ordering::Relaxed);
        let hooks = Arc::clone(&self.hooks) as Arc<dyn Hooks>;
        self.db = Some(open_with_hooks(Options::new(), &self.path, hooks).expect("opens"));
    }

    fn db(&self) -> &Db {
        self.db.as_ref().expect("open")
    }

    /// Asserts that the database holds exactly the committed entries.
    fn assert_whole(&self) {
        let table = self.db().begin_read().expect("begins").table(DATA).expect("table");
        assert_eq!(table.len(), self.model.len() as u64);
        for (key, seed) in &self.model {
            assert!(table.get(*key).expect("get") == Some(&value_of(*seed)[..]), "key {key}");
        }
    }

    /// The same for some entries.
    fn assert_some(&self, phase: usize) {
        let table = self.db().begin_read().expect("begins").table(DATA).expect("table");
        for (key, seed) in self.model.iter().skip(phase).step_by(29) {
            assert!(table.get(*key).expect("get") == Some(&value_of(*seed)[..]), "key {key}");
        }
    }

    /// Commits some entries, new ones and changed ones.
    fn commit(&mut self, seed: u64, entries: u64) -> Result<(), Error> {
        self.commit_among(400, seed, entries)
    }

    /// The same, with a bound for the keys.
    fn commit_among(&mut self, keys: u64, seed: u64, entries: u64) -> Result<(), Error> {
        let txn = self.db().begin_write()?;
        let mut model = self.model.clone();
        let mut rng = Rng::new(seed);
        for _ in 0..entries {
            let (key, seed) = (rng.below(keys), rng.next());
            txn.table(DATA)?.insert(key, &value_of(seed))?;
            model.insert(key, seed);
        }
        txn.commit()?;
        self.model = model;
        Ok(())
    }

    /// Leaves about 500 free pages in the file, which were filled with a byte.
    fn free_pages(&mut self, byte: u8) {
        let value = vec![byte; 400_000];
        let txn = self.db().begin_write().expect("begins");
        for key in 9000..9005 {
            txn.table(DATA).expect("table").insert(key, &value).expect("insert");
        }
        txn.commit().expect("commit");
        let txn = self.db().begin_write().expect("begins");
        for key in 9000..9005 {
            txn.table(DATA).expect("table").remove(key).expect("remove");
        }
        txn.commit().expect("commit");
        for seed in 0..3 {
            self.commit(seed, 3).expect("room");
        }
    }

    /// Stores new entries until the disk is full, and aborts there.
    fn store_until_full(&self, seed: u64) {
        let txn = self.db().begin_write().expect("begins");
        let full = (0..).find_map(|at| {
            assert!(at < 20_000, "the disk is never full");
            let value = value_of(seed ^ at);
            txn.table(DATA).and_then(|mut table| table.insert(1_000_000 + at, &value)).err()
        });
        assert_full(&full.expect("an error"), &self.path);
        txn.abort();
    }
}

/// Asserts that the error names the full disk, the file and the needed bytes.
#[track_caller]
fn assert_full(error: &Error, at: &Path) {
    match error {
        Error::DiskFull { path, wanted } => assert!(path == at && *wanted > 0, "{error}"),
        other => panic!("{:?} instead of DiskFull: {other}", other.kind()),
    }
}

/// Each of this many growth steps fails once on a full disk and then succeeds.
fn fail_each_step(disk: &Path) {
    let mut filled = Filled::new(disk);
    let mut failed = 0;
    while failed < STEPS {
        filled.ballast.leave(0);
        filled.store_until_full(failed);
        failed += 1;
        match failed % 5 {
            0 => filled.assert_whole(),
            phase => filled.assert_some(phase as usize),
        }
        if failed % 20 == 0 {
            // Closing and opening also work on the full disk.
            filled.open();
            filled.assert_whole();
            assert_clean(filled.db());
        }
        filled.ballast.remove();
        let before = filled.hooks.steps.load(Ordering::Relaxed);
        let mut seed = failed << 8;
        while filled.hooks.steps.load(Ordering::Relaxed) == before {
            filled.commit_among(400 + failed * 40, seed, 6).expect("room again");
            seed += 1;
        }
    }
    filled.assert_whole();
    assert_clean(filled.db());
    filled.open();
    filled.assert_whole();
    assert_clean(filled.db());
    reexec::answer(&format!(
        "{failed} steps of growth failed, {} went through",
        filled.hooks.steps.load(Ordering::Relaxed)
    ));
}

/// Creating a file on a full disk fails and leaves no file, or succeeds and the file is whole.
fn create_on_full(disk: &Path) {
    let ballast = Ballast::on(disk);
    let (mut refused, mut made) = (0, 0);
    for pages in 0..12u64 {
        ballast.leave(pages * 4096);
        let path = disk.join(format!("new-{pages}.mapleaf"));
        match Db::open(&path) {
            Ok(db) => {
                made += 1;
                let wrote = db.write(|txn| txn.table(DATA)?.insert(1, &value_of(1)).map(drop));
                if let Err(error) = &wrote {
                    assert_full(error, &path);
                }
                drop(db);
                let db = Db::open_existing(&path).expect("opens");
                let table = db.begin_read().expect("begins").table(DATA);
                assert_eq!(table.is_ok_and(|table| table.len() == 1), wrote.is_ok(), "{pages} pages");
                assert_clean(&db);
            }
            Err(error) => {
                refused += 1;
                assert_full(&error, &path);
                let names = fs::read_dir(disk).expect("a directory").map(|entry| entry.expect("an entry").file_name());
                let left: Vec<_> =
                    names.filter(|name| name.to_string_lossy().contains(&format!("new-{pages}."))).collect();
                assert!(left.is_empty(), "{left:?}");
                ballast.remove();
                assert_clean(&Db::open(&path).expect("room again"));
            }
        }
        remove_database(&path);
    }
    reexec::answer(&format!("{refused} creations refused, {made} made"));
}

/// Transactions with less and less room: an operation or the commit itself hits the full disk.
fn commit_on_full(disk: &Path) {
    let mut filled = Filled::new(disk);
    filled.commit(1, 600).expect("room");
    let (mut by_operation, mut by_commit, mut done) = (0, 0, 0);
    for round in 0..60u64 {
        filled.ballast.leave(round % 20 * 4096);
        // Leaves pages to reuse, so that mostly the free list changes.
        let txn = filled.db().begin_write().expect("begins");
        let stored = (0..12 + round % 3).try_for_each(|at| {
            let key = (round * 37 + at * 11) % 400;
            let value = value_of(round << 8 | at);
            txn.table(DATA)?.insert(key, &value).map(drop)
        });
        match stored {
            Err(error) => {
                assert_full(&error, &filled.path);
                by_operation += 1;
                txn.abort();
            }
            Ok(()) => match txn.commit() {
                Err(error) => {
                    assert_full(&error, &filled.path);
                    by_commit += 1;
                }
                Ok(()) => {
                    done += 1;
                    for at in 0..12 + round % 3 {
                        filled.model.insert((round * 37 + at * 11) % 400, round << 8 | at);
                    }
                }
            },
        }
        filled.assert_whole();
        filled.ballast.remove();
        if round % 10 == 9 {
            assert_clean(filled.db());
            filled.open();
        }
    }
    filled.commit(2, 50).expect("room again");
    filled.assert_whole();
    assert_clean(filled.db());
    reexec::answer(&format!("full for an operation {by_operation}, for a commit {by_commit}, done {done}"));
}

/// A value that is larger than the free space.
fn large_value_on_full(disk: &Path) {
    let mut filled = Filled::new(disk);
    filled.commit(1, 100).expect("room");
    for round in 0..8u64 {
        filled.ballast.leave(round << 18);
        let txn = filled.db().begin_write().expect("begins");
        txn.table(DATA).expect("table").remove(round).expect("remove");
        let value = bytes(round, 8 << 20);
        let error = txn.table(DATA).expect("table").insert(5000, &value).expect_err("a full disk");
        assert_full(&error, &filled.path);
        assert!(matches!(&error, Error::DiskFull { wanted, .. } if *wanted > 4 << 20), "{error}");
        assert_eq!(txn.commit().expect_err("a broken transaction").kind(), ErrorKind::Usage);
        filled.assert_whole();
        filled.ballast.remove();
        assert_clean(filled.db());
        filled.commit(round + 2, 5).expect("room again");
    }
    reexec::answer("8 large values refused");
}

/// Sorted and unsorted loads, with much and little memory, hit a full disk at many points.
fn load_on_full(disk: &Path) {
    let mut filled = Filled::new(disk);
    filled.commit(1, 100).expect("room");
    let mut refused = 0;
    for round in 0..24_u64 {
        filled.ballast.leave((round % 6) * 300_000);
        let mut txn = filled.db().begin_write().expect("begins");
        let load = |txn: &mut mapleaf::WriteTxn| {
            let mut table = txn.table(DATA)?;
            let mut loader = table.loader()?.memory(if round % 3 == 0 { 1 << 20 } else { usize::MAX });
            for n in 0..20_000 {
                let key = 1000 + if round % 2 == 0 { n } else { n * 7919 % 20_000 };
                loader.push(key, &value_of(key)[..300])?;
            }
            loader.finish()
        };
        if let Err(error) = load(&mut txn).and_then(|_| txn.commit()) {
            assert_full(&error, &filled.path);
            refused += 1;
        }
        filled.assert_whole();
        filled.ballast.remove();
        let mut txn = filled.db().begin_write().expect("begins");
        load(&mut txn).expect("room again");
        txn.abort();
        filled.commit(round, 5).expect("room again");
        // Shrinks the file to its old length.
        filled.open();
    }
    assert!(refused >= 20, "{refused}");
    assert_clean(filled.db());
    filled.open();
    filled.assert_whole();
    assert_clean(filled.db());
    reexec::answer(&format!("{refused} loads refused"));
}

/// A compaction without room fails with an error that names the new file, and leaves no file. With
/// room, the copy is whole.
fn compact_on_full(disk: &Path) {
    let mut filled = Filled::new(disk);
    filled.commit(1, 600).expect("room");
    let out = disk.join("out.mapleaf");
    let (mut refused, mut done) = (0, 0);
    for round in 0..24u64 {
        if round < 23 {
            filled.ballast.leave((round * round) << 12);
        }
        let compacted = filled.db().compact_to(&out);
        filled.assert_some(round as usize);
        let left = fs::read_dir(disk).expect("a directory").map(|entry| entry.expect("an entry").file_name());
        let left: Vec<_> = left.filter(|name| name.to_string_lossy().contains("out.")).collect();
        filled.ballast.remove();
        match compacted {
            Err(error) => {
                assert_full(&error, &out);
                assert!(left.is_empty(), "{left:?}");
                refused += 1;
            }
            Ok(report) => {
                let copy = Db::open_existing(&out).expect("opens");
                let table = copy.begin_read().and_then(|txn| txn.table(DATA)).expect("table");
                assert_eq!((table.len(), report.entries), (filled.model.len() as u64, table.len()));
                for (key, seed) in &filled.model {
                    assert!(table.get(*key).expect("get") == Some(&value_of(*seed)[..]), "key {key}");
                }
                assert_clean(&copy);
                drop((table, copy));
                remove_database(&out);
                done += 1;
            }
        }
    }
    assert!(refused > 0 && done > 0, "{refused} refused, {done} done");
    filled.commit(2, 50).expect("room again");
    filled.assert_whole();
    assert_clean(filled.db());
    reexec::answer(&format!("{refused} compactions refused, {done} done"));
}

/// Storing to holes or shared blocks of a copied file needs new blocks, here on a full disk.
fn copy_on_full(disk: &Path, how: &[&str]) {
    let mut filled = Filled::new(disk);
    filled.commit(1, 300).expect("room");
    filled.free_pages(0);
    filled.db = None;
    let original = disk.join("original.mapleaf");
    fs::rename(&filled.path, &original).expect("a name");
    if let Err(why) = super::run(how, &[&original, &filled.path]) {
        return reexec::answer(&format!("no such copy here ({why})"));
    }
    if how.contains(&"--sparse=always") {
        // Some file systems free the blocks of a removed file later.
        fs::File::options().write(true).open(&original).and_then(|file| file.set_len(0)).expect("an empty file");
    }
    filled.ballast.leave(0);
    let (mut full, mut done) = (0, 0);
    for round in 0..30u64 {
        filled.open();
        match filled.commit(round + 10, 40) {
            Ok(()) => done += 1,
            Err(error) => {
                assert_full(&error, &filled.path);
                full += 1;
            }
        }
        filled.assert_whole();
    }
    assert_clean(filled.db());
    assert!(full > 0, "the disk was never full");
    filled.ballast.remove();
    filled.commit(100, 200).expect("room again");
    filled.assert_whole();
    assert_clean(filled.db());
    reexec::answer(&format!("{full} commits into a copy refused, {done} done"));
}

/// Fills the disk to the last byte, then stores to all pages and flushes, three times.
fn store_everything(disk: &Path) {
    let mut filled = Filled::new(disk);
    filled.commit(1, 900).expect("room");
    filled.free_pages(1);
    filled.ballast.leave(0);
    for round in 0..3 * 40u64 {
        filled.commit(round + 2, 60).expect("pages that the file has");
    }
    filled.assert_whole();
    assert_clean(filled.db());
    reexec::answer("120 commits at 100 % full");
}

#[test]
fn full_disk_child() {
    let Some(arguments) = reexec::arguments() else { return };
    let disk = Path::new(&arguments[1]);
    match arguments[0].as_str() {
        "steps" => fail_each_step(disk),
        "creation" => create_on_full(disk),
        "commit" => commit_on_full(disk),
        "compact" => compact_on_full(disk),
        "value" => large_value_on_full(disk),
        "load" => load_on_full(disk),
        "holes" => copy_on_full(disk, &["cp", "--reflink=never", "--sparse=always"]),
        "clone" => copy_on_full(disk, &["cp", "--reflink=always"]),
        "everything" => store_everything(disk),
        other => panic!("no scenario {other}"),
    }
    reexec::answer("whole");
}

/// Runs a scenario in a child on a new disk.
fn on_disk(kind: Kind, scenario: &str) {
    let disk = match Disk::new(kind) {
        Ok(disk) => disk,
        Err(why) => return skipped(&format!("{scenario} on a full {kind:?}"), &why),
    };
    let command = reexec::command("disks::full::full_disk_child", &[&scenario, &disk.path()]);
    let mut child = reexec::start(command);
    let mut said = Vec::new();
    while let Some(line) = child.line() {
        said.push(line);
    }
    println!("{kind:?}, {scenario}: {}", said.join(", "));
    assert_eq!(said.last().map(String::as_str), Some("whole"), "{kind:?}, {scenario}: the child died");
    child.finish();
}

/// All small scenarios on one kind of disk.
fn scenarios(kind: Kind) {
    for _ in 0..long() {
        for scenario in ["creation", "commit", "compact", "value", "load", "holes", "everything"] {
            on_disk(kind, scenario);
        }
    }
}

#[test]
fn a_tmpfs_that_is_full_at_each_of_200_steps_loses_no_commit() {
    on_disk(Kind::Tmpfs, "steps");
}

#[test]
fn an_ext4_that_is_full_at_each_of_200_steps_loses_no_commit() {
    on_disk(Kind::Ext4, "steps");
}

#[test]
fn an_xfs_that_is_full_at_each_of_200_steps_loses_no_commit() {
    on_disk(Kind::Xfs, "steps");
}

#[test]
fn a_btrfs_that_is_full_at_each_of_200_steps_loses_no_commit() {
    on_disk(Kind::Btrfs, "steps");
}

#[test]
fn a_full_tmpfs_is_an_error_of_every_operation_that_writes() {
    scenarios(Kind::Tmpfs);
}

#[test]
fn a_full_ext4_is_an_error_of_every_operation_that_writes() {
    scenarios(Kind::Ext4);
}

#[test]
fn a_full_xfs_is_an_error_of_every_operation_that_writes() {
    scenarios(Kind::Xfs);
}

#[test]
fn writing_a_clone_with_shared_blocks_on_a_full_xfs_is_an_error() {
    on_disk(Kind::Xfs, "clone");
}

#[test]
fn a_full_btrfs_is_an_error_of_every_operation_that_writes() {
    scenarios(Kind::Btrfs);
}
