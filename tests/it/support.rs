//! Shared parts of the integration tests: databases that are checked when they are dropped, and
//! random numbers with a printed seed.

use std::io;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use mapleaf::testing::{FlushEvent, Hooks};
use mapleaf::{inspect, Db, Options, PageId, Table};
use tempfile::TempDir;

/// Raw bytes, the table most tests use.
pub(crate) const BYTES: Table<&[u8], &[u8]> = Table::new("bytes");

/// A database of one test. Its drop runs `check`; a file is then opened again for a second `check`,
/// in which no page counts as verified.
#[derive(Debug)]
pub(crate) struct TestDb {
    db: Option<Db>,
    options: Options,
    dir: Option<TempDir>,
}

impl TestDb {
    /// A database in memory, with these options.
    pub(crate) fn memory(options: Options) -> TestDb {
        let db = options.clone().in_memory().expect("a database in memory");
        TestDb { db: Some(db), options, dir: None }
    }

    /// A database in a new file, with these options.
    pub(crate) fn file(options: Options) -> TestDb {
        let dir = tempfile::tempdir().expect("a directory");
        let db = options.clone().open(dir.path().join("test.mapleaf")).expect("a database in a file");
        TestDb { db: Some(db), options, dir: Some(dir) }
    }

    /// One of each kind, for tests of both.
    pub(crate) fn both(options: &Options) -> [TestDb; 2] {
        [TestDb::memory(options.clone()), TestDb::file(options.clone())]
    }

    /// The path of the file; panics for a database in memory.
    pub(crate) fn path(&self) -> PathBuf {
        self.dir.as_ref().expect("a database in a file").path().join("test.mapleaf")
    }

    /// Closes the file and opens it again. The caller holds no handle and no transaction.
    pub(crate) fn reopen(&mut self) {
        if self.dir.is_some() {
            self.db = None;
            self.db = Some(self.options.clone().create(false).open(self.path()).expect("reopens"));
        }
    }

    /// Asserts that `check` finds nothing now.
    #[track_caller]
    pub(crate) fn assert_clean(&self) {
        assert_clean(self);
    }
}

impl Deref for TestDb {
    type Target = Db;

    fn deref(&self) -> &Db {
        self.db.as_ref().expect("open")
    }
}

impl Drop for TestDb {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        if let Some(db) = self.db.take() {
            assert_clean(&db);
            drop(db);
            if let Some(dir) = &self.dir {
                assert_clean(&reopened(dir.path()));
            }
        }
    }
}

fn reopened(dir: &Path) -> Db {
    Options::new().create(false).open(dir.join("test.mapleaf")).expect("opens once more")
}

/// The path of the lock file of a database.
pub(crate) fn lock_file_of(database: &Path) -> PathBuf {
    let mut name = database.as_os_str().to_os_string();
    name.push("-lock");
    name.into()
}

/// The names in a directory, sorted, without the lock files of these databases: a lock file stays
/// when its database is closed.
pub(crate) fn names_beside_locks(dir: &Path, databases: &[&str]) -> Vec<String> {
    let entries = std::fs::read_dir(dir).expect("a directory");
    let names = entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned());
    let is_lock_file = |name: &str| name.strip_suffix("-lock").is_some_and(|of| databases.contains(&of));
    let mut names: Vec<String> = names.filter(|name| !is_lock_file(name)).collect();
    names.sort();
    names
}

/// Removes a closed database, and its lock file if there is one.
pub(crate) fn remove_database(path: &Path) {
    std::fs::remove_file(path).expect("to remove a database");
    drop(std::fs::remove_file(lock_file_of(path)));
}

/// Asserts that a check finds nothing.
#[track_caller]
pub(crate) fn assert_clean(db: &Db) {
    let report = db.check().expect("a check");
    let found: Vec<String> = report.findings.iter().take(5).map(ToString::to_string).collect();
    assert!(report.is_clean(), "{} findings: {found:#?}", report.findings.len());
    let stats = db.stats().expect("stats");
    assert_eq!(report.pages_checked, report.reachable_pages + report.free_pages, "reachable + free = all");
    assert_eq!(report.entries, stats.entries, "entries found and entries counted");
}

/// The pages that this transaction wrote, by their headers (inner pages of overflow extents have
/// none).
pub(crate) fn pages_written_by(db: &Db, txn: u64) -> u64 {
    let count = db.stats().expect("stats").page_count;
    let by = |id| inspect::page(db, PageId(id)).is_ok_and(|page| page.txn == txn);
    (2..count).filter(|&id| by(id)).count() as u64
}

/// Hooks that let the file grow only by the needed pages: growth for a reserve fails with a full
/// disk, and the writer falls back to the page that it needs. So a few MiB take hundreds of steps.
#[derive(Default)]
pub(crate) struct SmallSteps {
    pub(crate) len: AtomicU64,
    pub(crate) steps: AtomicU64,
}

impl Hooks for SmallSteps {
    fn before_flush(&self, _event: &FlushEvent<'_>) -> io::Result<()> {
        Ok(())
    }

    fn growing(&self, new_len: u64) -> io::Result<()> {
        if new_len > self.len.load(Ordering::Relaxed) + (512 << 10) {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        Ok(())
    }

    fn resized(&self, new_len: u64) {
        let old_len = self.len.swap(new_len, Ordering::Relaxed);
        self.steps.fetch_add(u64::from(new_len > old_len), Ordering::Relaxed);
    }
}

/// Factor for the length of runs: `MAPLEAF_LONG`, else 1.
pub(crate) fn long() -> u32 {
    std::env::var("MAPLEAF_LONG").ok().map_or(1, |value| value.parse().expect("MAPLEAF_LONG is a number")).max(1)
}

/// The seed of a test, printed: `MAPLEAF_SEED`, else the clock in long runs, else always the same.
pub(crate) fn seed(test: &str) -> u64 {
    let given = std::env::var("MAPLEAF_SEED").ok().map(|value| value.parse().expect("MAPLEAF_SEED is a number"));
    let seed = given.unwrap_or_else(|| match long() {
        1 => 0x6d61_706c,
        _ => SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |since| since.as_nanos() as u64),
    });
    println!("{test}: MAPLEAF_SEED={seed}");
    seed
}

/// Random numbers (splitmix64): small, and the same everywhere.
#[derive(Clone, Debug)]
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Rng {
        Rng(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// Mixes the bits of a number.
pub(crate) fn mix(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

/// Random-looking bytes generated from a seed.
pub(crate) fn bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(len + 8);
    let mut rng = Rng::new(seed);
    while out.len() < len {
        out.extend(rng.next().to_le_bytes());
    }
    out.truncate(len);
    out
}
