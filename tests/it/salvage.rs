//! Salvage: it returns every readable entry and none that never existed, and does not change the
//! damaged file.

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use mapleaf::{testing, Db, Error, ErrorKind, Options, SalvageReport, Table};
use tempfile::TempDir;

use crate::support::{assert_clean, long, names_beside_locks, seed};
use crate::workload::{fast_dir, History, Rng, State};

const PAGE: usize = 4096;

type Bytes = Vec<u8>;

/// A closed database of known history, with all entries that it ever had.
struct Sample {
    newest: u64,
    history: History,
    bytes: Bytes,
    /// Every value that a key ever had, in any table.
    ever: HashMap<Bytes, HashSet<Bytes>>,
    dir: TempDir,
}

impl Sample {
    fn new(seed: u64, commits: u64) -> Sample {
        let dir = fast_dir();
        let path = dir.path().join("made.mapleaf");
        let history = History::new(seed);
        let db = Db::open(&path).expect("made");
        testing::set_log_shape(Some((u64::MAX, 0)));
        let mut ever: HashMap<Bytes, HashSet<Bytes>> = HashMap::new();
        let mut newest = 0;
        for _ in 0..commits {
            newest = history.commit_next(&db).expect("committed");
            for (key, value) in history.state(newest).values().flatten() {
                ever.entry(key.clone()).or_default().insert(value.bytes());
            }
        }
        drop(db);
        testing::set_log_shape(None);
        let bytes = std::fs::read(&path).expect("the file");
        Sample { newest, history, bytes, ever, dir }
    }

    fn state(&self) -> std::sync::Arc<State> {
        self.history.state(self.newest)
    }

    fn pages(&self) -> usize {
        self.bytes.len() / PAGE
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Salvages damaged bytes and compares the result with the readable entries. Those are read
    /// through the mapping, from the file extended by zeros.
    #[track_caller]
    fn salvages(&self, damaged: &[u8], context: &str) -> Option<SalvageReport> {
        let (path, out) = (self.path("damaged.mapleaf"), self.path("out.mapleaf"));
        std::fs::write(&path, damaged).expect("written");
        drop(std::fs::remove_file(&out));
        let salvaged = Db::salvage(&path, &out);
        assert_eq!(std::fs::read(&path).expect("read"), damaged, "{context}: the damaged file changed");
        let names: Vec<_> =
            std::fs::read_dir(self.dir.path()).expect("listed").map(|it| it.unwrap().file_name()).collect();
        assert!(names.iter().all(|name| !name.to_string_lossy().ends_with(".new")), "{context}: left {names:?}");
        let report = match salvaged {
            Ok(report) => report,
            Err(e) => {
                assert!(matches!(e.kind(), ErrorKind::Corrupt | ErrorKind::NotADatabase), "{context}: {e}");
                assert!(!out.exists(), "{context}");
                assert_eq!(self.readable(damaged), HashMap::new(), "{context}: {e}");
                return None;
            }
        };
        let db = Options::new().create(false).open(&out).expect("opens");
        assert_clean(&db);
        self.judge(&db, &report, &self.readable(damaged), context);
        Some(report)
    }

    fn judge(&self, db: &Db, report: &SalvageReport, readable: &HashMap<(String, Bytes), Bytes>, context: &str) {
        let txn = db.begin_read().expect("reads");
        let (mut certain, mut stale) = (0, 0);
        for info in txn.tables().expect("tables") {
            let told = report.tables.iter().find(|table| table.name == info.name);
            let told = told.unwrap_or_else(|| panic!("{context}: table {} is not in the report", info.name));
            assert_eq!(told.entries + told.maybe_stale, info.entries, "{context}: {}", info.name);
            for entry in txn.bytes_table(&info.name).expect("a table").iter() {
                let (key, value) = entry.expect("an entry");
                match readable.get(&(info.name.clone(), key.to_vec())) {
                    Some(expected) => {
                        assert_eq!(value, expected, "{context}: {} {}", info.name, key.escape_ascii());
                        certain += 1;
                    }
                    None => {
                        let existed = self.ever.get(key).is_some_and(|values| values.contains(value));
                        assert!(existed, "{context}: {} never had {}", info.name, key.escape_ascii());
                        stale += 1;
                    }
                }
            }
        }
        assert_eq!(certain, readable.len(), "{context}: every entry that can be read is copied");
        let told: u64 = report.tables.iter().map(|table| table.entries).sum();
        assert_eq!((told, report.maybe_stale()), (certain as u64, stale), "{context}: counts of the report");
        let all: usize = self.state().values().map(|entries| entries.len()).sum();
        assert!(certain == all || report.is_loss(), "{context}: a loss is reported");
    }

    /// The entries of the newest state that a program can read when it opens the file.
    fn readable(&self, damaged: &[u8]) -> HashMap<(String, Bytes), Bytes> {
        let path = self.path("readable.mapleaf");
        let mut bytes = damaged.to_vec();
        bytes.resize(self.bytes.len().max(damaged.len()), 0);
        std::fs::write(&path, &bytes).expect("written");
        let mut found = HashMap::new();
        let Ok(db) = Options::new().read_only(true).open(&path) else { return found };
        let txn = db.begin_read().expect("reads");
        if txn.txn_id() != self.newest {
            return found;
        }
        for (name, entries) in self.state().iter() {
            let Ok(table) = txn.bytes_table(name) else { continue };
            for key in entries.keys() {
                if let Ok(Some(value)) = table.get(key) {
                    found.insert((name.to_string(), key.clone()), value.to_vec());
                }
            }
        }
        found
    }

    fn without_metas(&self) -> Bytes {
        let mut bytes = self.bytes.clone();
        bytes[..2 * PAGE].fill(0);
        bytes
    }

    fn newest_slot(&self) -> usize {
        usize::from(u64_at(&self.bytes, PAGE + 48) > u64_at(&self.bytes, 48))
    }
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

fn u48_at(bytes: &[u8], at: usize) -> usize {
    (u64_at(bytes, at) & 0xffff_ffff_ffff) as usize
}

#[test]
fn a_whole_file_is_copied_without_loss() {
    let sample = Sample::new(seed("a_whole_file"), 40);
    let report = sample.salvages(&sample.bytes, "whole").expect("a copy");
    assert!(!report.is_loss() && report.maybe_stale() == 0, "{report:?}");
    assert!(report.tables.iter().all(|table| table.is_certain && table.expected == Some(table.entries)));
    assert_eq!(report.txn, Some(sample.newest));
    let db = Options::new().create(false).open(sample.path("out.mapleaf")).expect("opens");
    let state = sample.state();
    let names: Vec<String> =
        db.begin_read().and_then(|txn| txn.tables()).expect("tables").into_iter().map(|it| it.name).collect();
    assert_eq!(names, state.keys().copied().collect::<Vec<_>>());
}

#[test]
fn codecs_and_empty_tables_are_kept() {
    const TYPED: Table<(&str, u32), f64> = Table::new("typed");
    let dir = fast_dir();
    let (path, out) = (dir.path().join("a.mapleaf"), dir.path().join("b.mapleaf"));
    let db = Options::new().page_size(8192).open(&path).expect("made");
    db.write(|txn| {
        txn.table(TYPED)?.insert(("width", 2), 3.25)?;
        txn.table(Table::<u64, &str>::new("empty")).map(drop)
    })
    .expect("written");
    assert_eq!(Db::salvage(&path, &out).expect_err("open").kind(), ErrorKind::Locked);
    drop(db);
    let report = Db::salvage(&path, &out).expect("a copy");
    assert_eq!((report.page_size, report.entries(), report.tables.len()), (8192, 1, 2));
    let again = Db::salvage(&path, &out).expect_err("is there");
    assert!(again.kind() == ErrorKind::Usage && again.to_string().contains("another name"), "{again}");
    let db = Db::open_existing(&out).expect("opens");
    let txn = db.begin_read().expect("reads");
    assert_eq!(txn.table(TYPED).expect("the same codecs").get(("width", 2)).expect("read"), Some(3.25));
    assert!(txn.table(Table::<u64, &str>::new("empty")).expect("the same codecs").is_empty());
}

#[test]
fn a_file_cut_at_every_page_gives_what_is_left() {
    let seed = seed("cut_at_every_page");
    let sample = Sample::new(seed, 60);
    assert!(sample.pages() >= 300, "{} pages", sample.pages());
    let (mut copies, mut stale) = (0, 0);
    for pages in 1..sample.pages() {
        let bytes = &sample.bytes[..pages * PAGE];
        if let Some(report) = sample.salvages(bytes, &format!("seed {seed}, cut to {pages} pages")) {
            copies += 1;
            stale += report.maybe_stale();
        }
    }
    println!("{copies} copies, {stale} entries that may be stale");
    assert!(copies > 200 && stale > 0);
}

#[test]
fn damaged_pages_lose_only_their_own_entries() {
    let seed = seed("damaged_pages");
    let sample = Sample::new(seed, 60);
    let mut rng = Rng(seed);
    for round in 0..150 * u64::from(long()) {
        let mut bytes = sample.bytes.clone();
        let pages: Vec<usize> =
            (0..1 + rng.below(8)).map(|_| 2 + rng.below(sample.pages() as u64 - 2) as usize).collect();
        for page in &pages {
            match rng.below(3) {
                0 => bytes[page * PAGE..][..PAGE].fill(0),
                1 => bytes[page * PAGE + rng.below(PAGE as u64) as usize] ^= 1 << rng.below(8),
                _ => {
                    let from = 2 + rng.below(sample.pages() as u64 - 2) as usize;
                    let copied = bytes[from * PAGE..][..PAGE].to_vec();
                    bytes[page * PAGE..][..PAGE].copy_from_slice(&copied);
                }
            }
        }
        let cut = if rng.one_in(4) { bytes.len() - rng.below(40) as usize * PAGE / 2 } else { bytes.len() };
        sample.salvages(&bytes[..cut], &format!("seed {seed}, round {round}, pages {pages:?}, cut to {cut}"));
    }
}

/// The root page of the catalog is lost. The older meta page leads to the tables, and salvage finds
/// the pages of the newest state by their own headers.
#[test]
fn tables_are_found_without_the_catalog() {
    let sample = Sample::new(seed("a_lost_catalog"), 60);
    let mut bytes = sample.bytes.clone();
    let catalog = u48_at(&bytes, sample.newest_slot() * PAGE + 64);
    bytes[catalog * PAGE..][..PAGE].fill(0);
    let report = sample.salvages(&bytes, "catalog").expect("a copy");
    assert!(report.lost.iter().any(|lost| lost.what.contains("the catalog")), "{report:?}");
    let names: Vec<&str> = report.tables.iter().map(|table| table.name.as_str()).collect();
    for name in sample.state().keys() {
        assert!(names.contains(name), "{name} in {names:?}");
    }
    assert!(report.tables.iter().all(|table| !table.is_certain && table.entries == 0));
    all_but_few(&sample);
}

#[test]
fn pages_are_recognised_without_meta_pages() {
    let sample = Sample::new(seed("without_metas"), 60);
    let report = sample.salvages(&sample.without_metas(), "no meta pages").expect("a copy");
    assert_eq!((report.txn, report.page_size), (None, PAGE as u32));
    all_but_few(&sample);
    // Without any catalog page, tables have no names.
    let mut bytes = sample.without_metas();
    for page in 2..sample.pages() {
        let header = &bytes[page * PAGE..][..32];
        if header[28..32] == [0; 4] && matches!(header[4], 1 | 2) {
            bytes[page * PAGE..][..PAGE].fill(0xee);
        }
    }
    let report = sample.salvages(&bytes, "no meta pages, no catalog").expect("a copy");
    assert!(report.tables.iter().all(|table| table.name.starts_with("lost-")), "{report:?}");
    assert!(report.maybe_stale() > 100, "{report:?}");
}

/// If only root pages are lost, salvage finds nearly every entry of the newest state, with its
/// newest value.
#[track_caller]
fn all_but_few(sample: &Sample) {
    let db = Options::new().create(false).open(sample.path("out.mapleaf")).expect("opens");
    let txn = db.begin_read().expect("reads");
    for (name, entries) in sample.state().iter() {
        let table = txn.bytes_table(name).expect("a table");
        let found =
            entries.iter().filter(|(key, value)| table.get(key).expect("read") == Some(&value.bytes()[..])).count();
        assert!(found * 10 >= entries.len() * 9, "{name}: {found} of {}", entries.len());
    }
}

#[test]
fn salvage_detects_the_page_size() {
    for page_size in [8192, 16384, 32768] {
        let dir = fast_dir();
        let (path, out) = (dir.path().join("a.mapleaf"), dir.path().join("b.mapleaf"));
        let db = Options::new().page_size(page_size).open(&path).expect("made");
        db.write(|txn| {
            let mut table = txn.bytes_table("t")?;
            (0..2000u32).try_for_each(|n| table.insert(&n.to_be_bytes(), &[7; 60]).map(drop))
        })
        .expect("written");
        drop(db);
        let mut bytes = std::fs::read(&path).expect("read");
        bytes[..2 * page_size as usize].fill(0);
        std::fs::write(&path, &bytes).expect("written");
        let report = Db::salvage(&path, &out).expect("a copy");
        assert_eq!((report.page_size, report.entries()), (page_size, 2000));
    }
}

#[test]
fn files_that_are_no_database_are_refused() {
    let dir = fast_dir();
    let refused = |name: &str, bytes: &[u8], kind| {
        let (path, out) = (dir.path().join(name), dir.path().join("out"));
        std::fs::write(&path, bytes).expect("written");
        assert_eq!(Db::salvage(&path, &out).expect_err(name).kind(), kind, "{name}");
        assert!(!Path::exists(&out), "{name}");
    };
    refused("empty", b"", ErrorKind::EmptyFile);
    refused("text", &[b'x'; 100_000], ErrorKind::NotADatabase);
    refused("short", b"short", ErrorKind::NotADatabase);
    let missing = Db::salvage(dir.path().join("none"), dir.path().join("out")).expect_err("no file");
    assert_eq!(missing.kind(), ErrorKind::NotFound);
}

/// Free pages hold older versions of a leaf. An entry that a newer version lacks was deleted.
#[test]
fn deleted_entries_do_not_come_back_from_older_leaves() {
    let dir = fast_dir();
    let (path, out) = (dir.path().join("a.mapleaf"), dir.path().join("b.mapleaf"));
    // With a commit log, pages are used again sooner.
    testing::set_log_shape(Some((u64::MAX, 0)));
    let db = Db::open(&path).expect("made");
    let key = |n: u8| [b'k', n];
    db.write(|txn| (0..20).try_for_each(|n| txn.bytes_table("t")?.insert(&key(n), &[n; 50]).map(drop)))
        .expect("written");
    // A reader keeps the pages of its state from being reused.
    let reader = db.begin_read().expect("reads");
    for n in [10, 11, 12] {
        db.write(|txn| txn.bytes_table("t")?.remove(&key(n)).map(drop)).expect("removed");
    }
    db.write(|txn| txn.bytes_table("t")?.insert(&key(5), b"newest").map(drop)).expect("written");
    drop((reader, db));
    testing::set_log_shape(None);
    let mut bytes = std::fs::read(&path).expect("read");
    bytes[..2 * PAGE].fill(0);
    let (mut full_leaves, mut catalogs) = (0, 0);
    for page in 2..bytes.len() / PAGE {
        let page = &mut bytes[page * PAGE..][..PAGE];
        match (page[4], u64_at(page, 28) as u32) {
            (1, 0) => {
                page.fill(0);
                catalogs += 1;
            }
            (1, 16) if page[6] == 20 => full_leaves += 1,
            _ => {}
        }
    }
    assert!(full_leaves > 0 && catalogs > 0, "{full_leaves} leaves with all entries, {catalogs} catalog pages");
    std::fs::write(&path, &bytes).expect("written");
    let report = Db::salvage(&path, &out).expect("a copy");
    assert_eq!((report.entries(), report.maybe_stale()), (17, 17), "{report:?}");
    let db = Db::open_existing(&out).expect("opens");
    let table = db.begin_read().and_then(|txn| txn.bytes_table("lost-16")).expect("a table");
    assert_eq!(table.get(&key(5)).expect("read"), Some(&b"newest"[..]));
    assert!([10, 11, 12].iter().all(|n| table.get(&key(*n)).expect("read").is_none()));
}

/// Bytes are changed anywhere and checksums recomputed. Salvage must not panic or hang, and its
/// output must be a whole database.
#[test]
fn crafted_files_never_panic_or_give_wrong_entries() {
    let seed = seed("hostile_files");
    let dir = fast_dir();
    let path = dir.path().join("made.mapleaf");
    let history = History::small(seed);
    let db = Db::open(&path).expect("made");
    for _ in 0..25 {
        history.commit_next(&db).expect("committed");
    }
    drop(db);
    let whole = std::fs::read(&path).expect("read");
    let (mut rng, mut copies, mut recovered) = (Rng(seed), 0, 0);
    for round in 0..400 * u64::from(long()) {
        let mut bytes = whole.clone();
        for _ in 0..1 + rng.below(6) {
            let (at, byte) = (rng.below(bytes.len() as u64) as usize, rng.next() as u8);
            // Changes in headers and arrays have the most effect.
            let at = if rng.one_in(2) { at / PAGE * PAGE + at % 160 } else { at };
            bytes[at] = if rng.one_in(2) { byte } else { bytes[at] ^ 1 << (byte % 8) };
        }
        testing::seal_file(&mut bytes);
        let len = if rng.one_in(4) { rng.below(bytes.len() as u64) as usize } else { bytes.len() };
        std::fs::write(&path, &bytes[..len]).expect("written");
        let out = dir.path().join("out.mapleaf");
        drop(std::fs::remove_file(&out));
        let context = format!("seed {seed}, round {round}");
        if Db::salvage(&path, &out).is_ok() {
            let report = Options::new().create(false).open(&out).and_then(|db| db.check()).expect(&context);
            assert!(report.is_clean(), "{context}: {:?}", report.findings);
            copies += 1;
        }
        assert!(std::fs::read(&path).expect("read") == bytes[..len], "{context}: changed");
        if Db::recover(&path).is_ok() {
            drop(Db::open(&path).unwrap_or_else(|e| panic!("{context}: {e}")));
            recovered += 1;
        }
    }
    println!("{copies} copies, {recovered} recovered");
    assert!(copies > 50 && recovered > 10);
}

#[test]
fn a_missing_target_folder_is_an_error_that_names_it() {
    let sample = Sample::new(1, 3);
    let out = sample.path("no/such/out.mapleaf");
    let e = Db::salvage(sample.path("made.mapleaf"), &out).expect_err("no directory");
    assert!(e.kind() == ErrorKind::NotFound && e.to_string().contains("out.mapleaf: "), "{e}");
}

/// Lengthens a file so much that no code can visit each of its pages; `false` if the file system
/// does not support it.
fn lengthened(path: &Path, len: u64) -> bool {
    let file = std::fs::File::options().write(true).open(path).expect("opened");
    let done = file.set_len(len);
    if let Err(e) = &done {
        println!("skipped: a file of {len} bytes: {e}");
    }
    done.is_ok()
}

#[test]
fn holes_in_a_file_cost_no_time() {
    let sample = Sample::new(seed("holes_cost_nothing"), 40);
    let root = u48_at(&sample.bytes, sample.newest_slot() * PAGE + 64);
    let mut damaged = sample.bytes.clone();
    damaged[root * PAGE + 100] ^= 1;
    for len in [1 << 43, 1 << 60] {
        for (what, bytes) in
            [("whole", &sample.bytes), ("damaged", &damaged), ("no meta pages", &sample.without_metas())]
        {
            let (path, out) = (sample.path("holes.mapleaf"), sample.path("out.mapleaf"));
            drop(std::fs::remove_file(&out));
            std::fs::write(&path, bytes).expect("written");
            let plain = Db::salvage(&path, &out).expect(what);
            std::fs::remove_file(&out).expect("removed");
            if !lengthened(&path, len) {
                continue;
            }
            let mut report = Db::salvage(&path, &out).expect(what);
            assert_eq!(report.file_bytes, len, "{what}");
            report.file_bytes = plain.file_bytes;
            assert_eq!((&report, what == "whole"), (&plain, !plain.is_loss()), "{what}");
            assert_clean(&Db::open_existing(&out).expect("opens"));
            if what == "whole" {
                assert!(Db::recover_preview(&path).expect("a state").is_nothing());
            }
        }
        // Only a hole.
        let (path, out) = (sample.path("hole"), sample.path("none.mapleaf"));
        std::fs::write(&path, b"").expect("written");
        if lengthened(&path, len) {
            assert_eq!(Db::salvage(&path, &out).expect_err("nothing").kind(), ErrorKind::NotADatabase);
            assert!(!out.exists());
        }
    }
}

/// A meta page may hold any page count.
#[test]
fn an_absurd_page_count_in_a_meta_page_costs_no_time() {
    let sample = Sample::new(seed("pages_that_a_meta"), 20);
    let (path, out) = (sample.path("said.mapleaf"), sample.path("out.mapleaf"));
    for pages in [1u64 << 30, 1 << 46] {
        let mut bytes = sample.bytes.clone();
        for slot in 0..2 {
            for copy in [0, PAGE / 2] {
                bytes[slot * PAGE + copy + 56..][..8].copy_from_slice(&pages.to_le_bytes());
            }
        }
        testing::seal_file(&mut bytes);
        std::fs::write(&path, &bytes).expect("written");
        drop(std::fs::remove_file(&out));
        assert_eq!(Db::recover_preview(&path).map(|plan| plan.needed_bytes).expect("whole"), pages * PAGE as u64);
        if !lengthened(&path, pages * PAGE as u64) {
            continue;
        }
        assert!(Db::recover_preview(&path).expect("whole").is_nothing());
        assert!(!Db::salvage(&path, &out).expect("a copy").is_loss());
        if let Ok(db) = Options::new().read_only(true).open(&path) {
            let findings = db.check().expect("checked").findings;
            let lost = pages - sample.pages() as u64;
            let said = format!("{lost} pages from this one on are neither in use nor free");
            assert!(findings.iter().any(|it| it.what == said), "{findings:?}");
        }
    }
}

#[test]
fn a_stopped_salvage_leaves_no_file() {
    let dir = fast_dir();
    let (path, out) = (dir.path().join("damaged.mapleaf"), dir.path().join("out.mapleaf"));
    let db = Db::open(&path).expect("made");
    db.write(|txn| (0..2000u32).try_for_each(|n| txn.bytes_table("t")?.insert(&n.to_be_bytes(), &[7; 900]).map(drop)))
        .expect("written");
    drop(db);
    let bytes = std::fs::read(&path).expect("read");
    let mut without_metas = bytes.clone();
    without_metas[..2 * PAGE].fill(0);
    for (bytes, what) in [(bytes, "while walking"), (without_metas, "while scanning")] {
        std::fs::write(&path, bytes).expect("written");
        let mut told = 0;
        let stopped = Db::salvage_with(&path, &out, |_, _| {
            told += 1;
            ControlFlow::Break(())
        });
        let Err(Error::Io { path, source, .. }) = stopped else { panic!("{what}: {stopped:?}") };
        assert_eq!((path, source.kind(), told), (out.clone(), std::io::ErrorKind::Interrupted, 1), "{what}");
        let left = names_beside_locks(dir.path(), &["damaged.mapleaf"]);
        assert_eq!(left, ["damaged.mapleaf"], "{what}: something is left");
    }
}
