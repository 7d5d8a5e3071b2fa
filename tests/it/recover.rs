//! Recovery to an undamaged state: files cut at every page, damaged newest states, and crashes
//! during the recovery.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use mapleaf::testing::{self, without_log, FlushEvent, Hooks, Recovery};
use mapleaf::{Db, Error, ErrorKind, Options};
use tempfile::TempDir;

use crate::support::{assert_clean, seed};
use crate::workload::{fast_dir, History, Rng};

/// Bytes of one copy of a meta record.
const RECORD: usize = 256;
const PAGE: usize = 4096;

/// A closed database of known history, as bytes.
struct Sample {
    history: History,
    newest: u64,
    bytes: Vec<u8>,
    dir: TempDir,
}

impl Sample {
    fn new(seed: u64, commits: u64) -> Sample {
        let dir = fast_dir();
        let path = dir.path().join("made.mapleaf");
        let history = History::new(seed);
        let newest = without_log(|| {
            let db = Db::open(&path).expect("made");
            (0..commits).map(|_| history.commit_next(&db).expect("committed")).last().expect("commits")
        });
        let bytes = std::fs::read(&path).expect("the file");
        Sample { history, newest, bytes, dir }
    }

    fn file(&self, bytes: &[u8]) -> PathBuf {
        let path = self.dir.path().join("test.mapleaf");
        std::fs::write(&path, bytes).expect("written");
        path
    }

    /// The slot of the newest meta page.
    fn newest_slot(&self) -> usize {
        let txn = |slot: usize| u64_at(&self.bytes, slot * PAGE + 48);
        usize::from(txn(1) > txn(0))
    }

    /// The transaction whose state is whole in the file cut to `len`, without the code under test:
    /// for each meta page, makes a file with only this one, extended by zeros, in which `check`
    /// must find every page. A page that was cut in its middle counts as missing, even if only
    /// zeros are.
    fn whole(&self, bytes: &[u8]) -> Option<u64> {
        [self.newest_slot(), self.newest_slot() ^ 1].into_iter().find_map(|slot| {
            if bytes.len() < (slot + 1) * PAGE {
                return None;
            }
            let mut alone = bytes[..bytes.len() / PAGE * PAGE].to_vec();
            let other = (slot ^ 1) * PAGE;
            if other < alone.len() {
                let end = (other + PAGE).min(alone.len());
                alone[other..end].fill(0);
            }
            let txn = u64_at(&alone, slot * PAGE + 48);
            let pages = u64_at(&alone, slot * PAGE + 56) as usize;
            alone.resize(alone.len().max(pages * PAGE), 0);
            let path = self.dir.path().join("alone.mapleaf");
            std::fs::write(&path, &alone).expect("written");
            let db = Options::new().read_only(true).open(&path).ok()?;
            db.check().expect("checked").is_clean().then_some(txn)
        })
    }

    /// Recovers a file and compares it with the expected state.
    #[track_caller]
    fn recovers_to(&self, path: &Path, whole: u64, context: &str) {
        let report = Db::recover(path).unwrap_or_else(|e| panic!("{context}: {e}"));
        // The state's own number, or the one that an earlier recovery gave it.
        let again = !report.is_loss() && report.newest_txn == self.newest + 1;
        assert!(report.whole_txn == whole || again, "{context}: {report:?}");
        assert!(Db::recover(path).expect("again").is_nothing(), "{context}: the second time has nothing to do");
        let db = Db::open_existing(path).unwrap_or_else(|e| panic!("{context}: {e}"));
        self.history.holds(&db, whole).unwrap_or_else(|e| panic!("{context}: {e}"));
        assert_clean(&db);
        db.write(|txn| txn.bytes_table("after")?.insert(b"key", b"value").map(drop)).expect("writes go on");
        assert_clean(&db);
    }
}

impl Sample {
    /// Opens a file as a program does: it has the whole state, or the error names the state to
    /// recover.
    #[track_caller]
    fn opens_or_offers(&self, path: &Path, whole: u64, context: &str) {
        match Options::new().read_only(true).open(path) {
            Ok(db) => {
                self.history.holds(&db, whole).unwrap_or_else(|e| panic!("{context}: {e}"));
                assert!(db.check().expect(context).findings.iter().all(|it| it.page.is_some_and(|page| page.0 < 2)));
            }
            Err(Error::Truncated { whole: Some(offered), .. }) => {
                assert!(offered == whole || offered == self.newest + 1, "{context}: offers {offered}");
            }
            Err(e) => panic!("{context}: {e}"),
        }
    }

    /// The file cut below the page count of its older state, with that state, if it is still whole.
    fn cut_below_the_older_state(&self) -> Option<(&[u8], u64)> {
        let older = self.newest_slot() ^ 1;
        let needed = u64_at(&self.bytes, older * PAGE + 56) as usize * PAGE;
        let lengths = (1..8).map(|missing| needed.saturating_sub(missing * PAGE));
        lengths.filter(|len| *len < self.bytes.len()).find_map(|len| {
            let bytes = &self.bytes[..len];
            self.whole(bytes).filter(|whole| *whole != self.newest).map(|whole| (bytes, whole))
        })
    }
}

/// Copies the file at each step of the recovery, as a crash would leave it.
#[derive(Default)]
struct Copies(Mutex<Vec<(Recovery, Vec<u8>)>>);

impl Hooks for Copies {
    fn before_flush(&self, _: &FlushEvent<'_>) -> std::io::Result<()> {
        Ok(())
    }

    fn recovering(&self, step: Recovery, path: &Path) {
        self.0.lock().expect("no panic").push((step, std::fs::read(path).expect("read")));
    }
}

/// If recovery lengthened the file before it writes the meta page, a crash in between would leave a
/// file that opens with the damaged newest state, and the next commit would overwrite the slot of
/// the whole one.
#[test]
fn recovery_sets_the_length_of_the_file_last() {
    let seed = seed("going_back_gives_the_file_its_length_last");
    let (mut samples, mut crashes) = (0, 0);
    for n in 0..400 {
        let sample = Sample::new(seed ^ n, 6 + n % 30);
        let Some((bytes, whole)) = sample.cut_below_the_older_state() else { continue };
        let path = sample.file(bytes);
        let copies = Arc::new(Copies::default());
        let db = testing::open_with_hooks(Options::new().recover(true), &path, copies.clone()).expect("recovered");
        sample.history.holds(&db, whole).expect("the whole state");
        drop(db);
        let copies = std::mem::take(&mut *copies.0.lock().expect("no panic"));
        let steps: Vec<Recovery> = copies.iter().map(|(step, _)| *step).collect();
        assert_eq!(steps[..3], [Recovery::MetaWritten, Recovery::MetaFlushed, Recovery::Lengthened], "{steps:?}");
        assert!(steps[3..].iter().all(|step| *step == Recovery::Lengthened), "{steps:?}");
        for (at, (step, copy)) in copies.iter().enumerate() {
            let context = format!("seed {seed}, sample {n}, crash behind step {at}, {step:?}");
            assert_eq!(copy.len() > bytes.len(), *step == Recovery::Lengthened, "{context}");
            let path = sample.file(copy);
            sample.opens_or_offers(&path, whole, &context);
            sample.recovers_to(&path, whole, &context);
            crashes += 1;
        }
        samples += 1;
        if samples == 5 {
            break;
        }
    }
    println!("{crashes} crashes of {samples} recoveries");
    assert!(samples > 0, "no sample");
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

#[test]
fn a_file_cut_at_any_page_is_recovered_or_refused_with_the_reason() {
    let seed = seed("a_file_cut_anywhere");
    let mut rng = Rng(seed);
    // A database whose last commit lengthened the file, so that the older state needs only its
    // first part.
    let grown = |sample: &Sample| sample.whole(&sample.bytes[..sample.bytes.len() - PAGE]).is_some();
    let sample = (60..90).map(|commits| Sample::new(seed, commits)).find(grown).expect("one of thirty");
    let pages = sample.bytes.len() / PAGE;
    assert!(pages >= 300, "{pages} pages");
    let mut lengths: Vec<usize> = (1..pages).map(|page| page * PAGE).collect();
    lengths.extend((0..60).map(|_| 8 + rng.below(sample.bytes.len() as u64 - 8) as usize));
    let (mut offered, mut refused) = (0, 0);
    for len in lengths {
        let bytes = &sample.bytes[..len];
        let (path, context) = (sample.file(bytes), format!("cut to {len} bytes"));
        let error = Db::open(&path).expect_err(&context);
        assert_eq!(std::fs::read(&path).expect("read"), bytes, "{context}: changed");
        let Error::Truncated { needed, found, whole, .. } = &error else { panic!("{context}: {error}") };
        assert_eq!(*found, len as u64, "{context}");
        assert!(error.to_string().contains(&format!("{} bytes are missing", needed - found)), "{context}: {error}");
        assert_eq!(*whole, sample.whole(bytes), "{context}");
        let preview = Db::recover_preview(&path);
        assert_eq!(std::fs::read(&path).expect("read"), bytes, "{context}: changed by a preview");
        match whole {
            Some(whole) => {
                assert_eq!(preview.expect("can be").whole_txn, *whole, "{context}");
                sample.recovers_to(&path, *whole, &context);
                offered += 1;
            }
            None => {
                assert!(error.to_string().contains("kvctl salvage"), "{context}: {error}");
                assert_eq!(preview.expect_err(&context).kind(), ErrorKind::Truncated, "{context}");
                assert_eq!(Db::recover(&path).expect_err(&context).kind(), ErrorKind::Truncated, "{context}");
                let refusal = Options::new().recover(true).open(&path).expect_err(&context);
                assert_eq!(refusal.kind(), ErrorKind::Truncated, "{context}");
                assert_eq!(std::fs::read(&path).expect("read"), bytes, "{context}: changed");
                refused += 1;
            }
        }
    }
    println!("recovered {offered}, refused {refused}");
    assert!(offered > 0 && refused > 0, "both kinds were met");
}

/// Pages that only the newest state reaches are damaged one by one: the state before is whole.
#[test]
fn recovery_returns_to_the_state_before_a_damaged_newest_one() {
    let seed = seed("a_damaged_newest_state");
    let sample = Sample::new(seed, 40);
    let (mut back, mut none) = (0, 0);
    for page in 2..sample.bytes.len() / PAGE {
        let mut bytes = sample.bytes.clone();
        bytes[page * PAGE + 100] ^= 0x10;
        let (path, context) = (sample.file(&bytes), format!("page {page}"));
        match sample.whole(&bytes) {
            Some(whole) if whole == sample.newest => {
                assert!(Db::recover(&path).expect(&context).is_nothing(), "{context}: not in use");
                assert_eq!(std::fs::read(&path).expect("read"), bytes, "{context}: changed");
            }
            Some(whole) => {
                let db = Options::new().recover(true).open(&path).unwrap_or_else(|e| panic!("{context}: {e}"));
                sample.history.holds(&db, whole).unwrap_or_else(|e| panic!("{context}: {e}"));
                assert_clean(&db);
                back += 1;
            }
            None => {
                let e = Db::recover(&path).expect_err(&context);
                assert_eq!(e.kind(), ErrorKind::Corrupt, "{context}: {e}");
                assert!(e.to_string().contains("kvctl salvage"), "{context}: {e}");
                assert_eq!(std::fs::read(&path).expect("read"), bytes, "{context}: changed");
                none += 1;
            }
        }
    }
    assert!(back > 0 && none > 0, "{back} went back, {none} could not");
}

#[test]
fn recovery_does_not_change_an_undamaged_file() {
    let sample = Sample::new(5, 10);
    let path = sample.file(&sample.bytes);
    let report = Db::recover(&path).expect("nothing to do");
    assert!(report.is_nothing() && !report.is_loss());
    assert_eq!(std::fs::read(&path).expect("read"), sample.bytes);
    let db = Options::new().recover(true).open(&path).expect("opens");
    assert_eq!(sample.history.judge(&db), Ok(sample.newest));
    let e = Db::recover(&path).expect_err("it is open");
    assert_eq!(e.kind(), ErrorKind::Locked);
    let e = Options::new().recover(true).read_only(true).open(&path).expect_err("recovery writes");
    assert_eq!(e.kind(), ErrorKind::Usage);
}

/// The recovery writes one slot, flushes, and writes zeros at the end of the file. After a crash
/// with any part of these writes, recovering again reaches the same state.
#[test]
fn recovery_works_after_a_crash_during_recovery() {
    let seed = seed("a_crash_of_the_recovery");
    let (mut images, mut samples) = (0, 0);
    for commits in 10..60 {
        let sample = Sample::new(seed ^ commits, commits);
        let full = sample.bytes.len();
        let cut = (full - 12 * PAGE..full).rev().step_by(PAGE).map(|len| &sample.bytes[..len]).find_map(|bytes| {
            sample.whole(bytes).filter(|whole| *whole != sample.newest).map(|whole| (bytes.to_vec(), whole))
        });
        let Some((before, whole)) = cut else { continue };
        samples += 1;
        let path = sample.file(&before);
        Db::recover(&path).expect("recovered");
        let after = std::fs::read(&path).expect("read");
        let changed: Vec<usize> = (0..before.len() / 512)
            .filter(|sector| before[sector * 512..][..512] != after[sector * 512..][..512])
            .collect();
        assert!(!changed.is_empty() && changed.iter().all(|sector| sector / 8 == sample.newest_slot()), "{changed:?}");
        let all = (1u32 << changed.len()) - 1;
        for len in (before.len()..=after.len()).step_by(PAGE / 2) {
            for subset in 0..=all {
                // After the flush the slot is complete: a lengthened file has the new slot.
                if len > before.len() && subset != all {
                    continue;
                }
                let mut image = after[..len].to_vec();
                for (bit, sector) in changed.iter().enumerate() {
                    if subset >> bit & 1 == 0 {
                        image[sector * 512..][..512].copy_from_slice(&before[sector * 512..][..512]);
                    }
                }
                let path = sample.file(&image);
                let context = format!("seed {seed}, {commits} commits, {len} bytes, sectors {subset:b}");
                sample.opens_or_offers(&path, whole, &context);
                sample.recovers_to(&path, whole, &context);
                images += 1;
            }
        }
        if samples == 6 {
            break;
        }
    }
    println!("{images} images of {samples} recoveries");
    assert!(samples >= 3, "{samples} samples");
}

/// One slot's record was copied over the other. The file may have lost a commit, and no release of
/// Mapleaf writes such a file.
#[test]
fn both_meta_slots_with_the_same_record_are_reported_and_recovered() {
    for commits in [6, 1] {
        let sample = Sample::new(seed("one record twice"), commits);
        for lost in [sample.newest_slot(), sample.newest_slot() ^ 1] {
            let mut bytes = sample.bytes.clone();
            let kept = (lost ^ 1) * PAGE;
            bytes.copy_within(kept..kept + PAGE, lost * PAGE);
            let left = u64_at(&bytes, kept + 48);
            let path = sample.file(&bytes);
            for options in [Options::new(), Options::new().read_only(true), Options::new().create(false)] {
                let refused = options.open(&path).expect_err("one record twice");
                assert_eq!(refused.kind(), ErrorKind::Corrupt, "{refused}");
                let said = refused.to_string();
                assert!(said.contains(&format!("transaction {left}")) && said.contains("kvctl recover"), "{said}");
            }
            assert!(std::fs::read(&path).expect("the file") == bytes, "a refused file was changed");
            let preview = Db::recover_preview(&path).expect("looked at");
            assert!(preview.damage.is_some() && !preview.is_nothing() && preview.is_loss(), "{preview:?}");
            // A salvage that finds nothing to copy reports it too.
            if let Ok(salvaged) = Db::salvage(&path, path.with_extension("saved")) {
                assert!(salvaged.is_loss() && salvaged.lost[0].to_string().contains("both meta pages"), "{salvaged:?}");
                std::fs::remove_file(path.with_extension("saved")).expect("removed");
            }
            // In both cases a second recovery has nothing to do.
            let db = Options::new().recover(true).open(&path).expect("recovered while opening");
            assert_clean(&db);
            drop(db);
            std::fs::write(&path, &bytes).expect("written");
            assert_eq!(Db::recover(&path).expect("recovered").whole_txn, left);
            assert!(Db::recover_preview(&path).expect("looked at").is_nothing());
            let db = Db::open(&path).expect("opens");
            assert_clean(&db);
            sample.history.holds(&db, left).expect("the state that is left");
        }
    }
}

#[test]
fn slots_of_two_databases_are_reported() {
    let seed = seed("two databases");
    let (sample, other) = (Sample::new(seed, 4), Sample::new(seed ^ 1, 9));
    let mut bytes = sample.bytes.clone();
    let slot = sample.newest_slot() * PAGE;
    let from = other.newest_slot() * PAGE;
    bytes[slot..slot + PAGE].copy_from_slice(&other.bytes[from..from + PAGE]);
    let path = sample.file(&bytes);
    let refused = Db::open(&path).expect_err("two databases");
    assert!(refused.kind() == ErrorKind::Corrupt && refused.to_string().contains("two databases"), "{refused}");
}

/// The slot of the whole state has one copy of another database.
#[test]
fn recovery_from_one_foreign_copy_leaves_a_file_that_opens() {
    let seed = seed("one foreign copy");
    let (sample, other) = (Sample::new(seed, 4), Sample::new(seed ^ 1, 9));
    for (slot, copy) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        let mut bytes = sample.bytes.clone();
        let at = slot * PAGE + copy * PAGE / 2;
        let from = other.newest_slot() * PAGE;
        bytes[at..at + RECORD].copy_from_slice(&other.bytes[from..from + RECORD]);
        let path = sample.file(&bytes);
        assert_eq!(Db::open(&path).expect_err("two databases").kind(), ErrorKind::Corrupt, "slot {slot}, copy {copy}");
        if Db::recover(&path).is_ok() {
            let db = Db::open(&path).unwrap_or_else(|e| panic!("slot {slot}, copy {copy}: {e}"));
            assert_clean(&db);
        }
    }
}

#[test]
fn check_finds_a_meta_record_copied_over_the_other_in_an_open_file() {
    use std::os::unix::fs::FileExt as _;
    let dir = fast_dir();
    let path = dir.path().join("db.mapleaf");
    let db = Db::open(&path).expect("made");
    History::new(seed("an open file")).commit_next(&db).expect("committed");
    assert!(db.check().expect("checked").is_clean());
    let file = std::fs::File::options().read(true).write(true).open(&path).expect("the file");
    let mut slot = [0; PAGE];
    file.read_exact_at(&mut slot, 0).expect("read");
    file.write_all_at(&slot, PAGE as u64).expect("written over");
    let findings = db.check().expect("checked").findings;
    assert!(findings.iter().any(|finding| finding.to_string().contains("both meta pages")), "{findings:?}");
}

/// Recovery of an open database would have no effect, so it is an error.
#[test]
fn recovery_of_a_database_that_is_open_already_is_an_error() {
    let dir = fast_dir();
    let path = dir.path().join("db.mapleaf");
    let db = Db::open(&path).expect("made");
    let refused = Options::new().recover(true).open(&path).expect_err("it is open");
    assert!(refused.kind() == ErrorKind::Usage && refused.to_string().contains("has it open"), "{refused}");
    drop(Options::new().open(&path).expect("without it"));
    drop(db);
    drop(Options::new().recover(true).open(&path).expect("first"));
}

/// A database with a commit log, as a crash of the process leaves it.
struct Logged {
    history: History,
    /// The step of the last acknowledged commit, and its transaction.
    acknowledged: u64,
    newest_txn: u64,
    bytes: Vec<u8>,
    /// The slot of the newest meta page.
    newest_slot: usize,
}

impl Logged {
    /// Makes `before` commits, a checkpoint, and `after` commits.
    fn new(seed: u64, before: u64, after: u64) -> Logged {
        let (dir, history) = (fast_dir(), History::power(seed));
        let path = dir.path().join("logged.mapleaf");
        // So large a log that no checkpoint is due.
        let db = testing::with_log_shape(Some((1, 256 * PAGE as u64)), || {
            let db = Db::open(&path).expect("opened");
            (0..before).for_each(|_| assert!(history.commit_next(&db).is_ok()));
            db
        });
        db.checkpoint().expect("a checkpoint");
        (0..after).for_each(|_| assert!(history.commit_next(&db).is_ok()));
        let acknowledged = history.judge(&db).expect("as it was written");
        let newest_txn = testing::latest_txn(&db);
        assert_eq!(testing::durable_meta_txn(&db), newest_txn - after, "no other checkpoint");
        let bytes = std::fs::read(&path).expect("read");
        let newest_slot = usize::from(u64_at(&bytes, PAGE + 48) > u64_at(&bytes, 48));
        Logged { history, acknowledged, newest_txn, bytes, newest_slot }
    }

    /// Recovers a file whose slots contradict each other, and asserts that all acknowledged commits
    /// are there. `while_opening`: by [`Options::recover`].
    #[track_caller]
    fn recovers_whole(&self, bytes: &[u8], while_opening: bool, context: &str) {
        let dir = fast_dir();
        let path = dir.path().join("contradicting.mapleaf");
        std::fs::write(&path, bytes).expect("written");
        assert_eq!(Db::open(&path).expect_err(context).kind(), ErrorKind::Corrupt, "{context}");
        let preview = Db::recover_preview(&path).unwrap_or_else(|e| panic!("{context}: {e}"));
        assert!(std::fs::read(&path).expect("read") == bytes, "{context}: a preview has changed the file");
        assert!(preview.is_newest_doubtful && preview.is_loss() && preview.damage.is_some(), "{context}: {preview:?}");
        assert_eq!((preview.newest_txn, preview.whole_txn), (self.newest_txn, self.newest_txn), "{context}");
        if !while_opening {
            assert_eq!(Db::recover(&path).unwrap_or_else(|e| panic!("{context}: {e}")), preview, "{context}");
            assert!(Db::recover_preview(&path).expect(context).is_nothing(), "{context}: nothing is left to do");
        }
        let db = Options::new().recover(while_opening).open(&path).unwrap_or_else(|e| panic!("{context}: {e}"));
        self.history.holds(&db, self.acknowledged).unwrap_or_else(|e| panic!("{context}: {e}"));
        let entries = db.stats().expect("stats").entries;
        assert_eq!((preview.whole_entries, preview.tables), (entries, Vec::new()), "{context}");
        // Commits after it survive the next crash too.
        (0..6).for_each(|_| assert!(self.history.commit_next(&db).is_ok(), "{context}"));
        let copy = dir.path().join("crashed.mapleaf");
        std::fs::copy(&path, &copy).expect("copied");
        let crashed = Db::open(&copy).unwrap_or_else(|e| panic!("{context}: {e}"));
        assert_eq!(self.history.judge(&crashed), Ok(self.acknowledged + 6), "{context}");
        drop(db);
        assert_clean(&Db::open(&path).unwrap_or_else(|e| panic!("{context}: {e}")));
    }
}

/// Something was written over a meta slot, or over one copy of its record. The state of the newest
/// remaining meta page is whole, and its log has all commits after it.
#[test]
fn recovery_of_contradicting_meta_slots_keeps_the_commits_of_the_log() {
    let seed = seed("contradicting slots and a log");
    let logged = Logged::new(seed, 9, 12);
    let (newest, older) = (logged.newest_slot * PAGE, (logged.newest_slot ^ 1) * PAGE);
    let mut contradicting = Vec::new();
    let mut bytes = logged.bytes.clone();
    bytes.copy_within(newest..newest + PAGE, older);
    contradicting.push(("the newest meta page, copied over the older one".to_string(), bytes));
    for commits in [2, 40] {
        let other = Logged::new(seed ^ commits, commits, 1);
        let from = other.newest_slot * PAGE;
        let mut whole_slot = logged.bytes.clone();
        whole_slot[older..older + PAGE].copy_from_slice(&other.bytes[from..from + PAGE]);
        contradicting.push((format!("a slot of another database of {commits} commits"), whole_slot));
        for (slot, copy) in [(older, 0), (older, 1), (newest, 0), (newest, 1)] {
            let mut bytes = logged.bytes.clone();
            let at = slot + copy * PAGE / 2;
            bytes[at..at + RECORD].copy_from_slice(&other.bytes[from..from + RECORD]);
            let of = if slot == older { "older" } else { "newest" };
            contradicting.push((format!("copy {copy} of the {of} slot, from another database of {commits}"), bytes));
        }
    }
    for (context, bytes) in &contradicting {
        logged.recovers_whole(bytes, false, context);
        logged.recovers_whole(bytes, true, &format!("{context}, while opening"));
    }
}

/// The newest meta page is gone, and the log still has all records from the older one on.
#[test]
fn recovery_replays_from_the_older_meta_page_that_was_copied_over_the_newest() {
    let logged = Logged::new(seed("the older slot twice"), 14, 0);
    let (newest, older) = (logged.newest_slot * PAGE, (logged.newest_slot ^ 1) * PAGE);
    let mut bytes = logged.bytes.clone();
    bytes.copy_within(older..older + PAGE, newest);
    logged.recovers_whole(&bytes, false, "recover");
    logged.recovers_whole(&bytes, true, "while opening");
}

/// The newest meta page is gone, and so is a record of the log: recovery keeps what came before the
/// record, and its report names what is lost.
#[test]
fn recovery_of_contradicting_meta_slots_reports_what_the_log_has_lost() {
    let logged = Logged::new(seed("the older slot twice, a damaged log"), 14, 0);
    let (newest, older) = (logged.newest_slot * PAGE, (logged.newest_slot ^ 1) * PAGE);
    let first = u64_at(&logged.bytes, older + 48) + 1;
    for lost in [first, first + 5] {
        let mut bytes = logged.bytes.clone();
        bytes.copy_within(older..older + PAGE, newest);
        let is_lost = |at: &usize| &bytes[at + 12..at + 16] == b"MLog" && u64_at(&bytes, at + 16) == lost;
        let at = (2 * PAGE..bytes.len() - 64).step_by(8).find(is_lost).expect("the record");
        bytes[at + 44] ^= 1;
        let dir = fast_dir();
        let path = dir.path().join("contradicting.mapleaf");
        std::fs::write(&path, &bytes).expect("written");
        let report = Db::recover(&path).expect("recovered");
        assert_eq!((report.whole_txn, report.newest_txn), (lost - 1, logged.newest_txn - 1), "{lost}: {report:?}");
        let db = Db::open(&path).expect("opens");
        logged.history.holds(&db, logged.acknowledged - (logged.newest_txn - (lost - 1))).expect("the state before");
        assert_clean(&db);
        assert!(logged.history.commit_next(&db).is_ok());
    }
}

/// Copies a file before each flush of its recovery, as a crash would leave it.
struct FlushCopies {
    path: PathBuf,
    copies: Mutex<Vec<Vec<u8>>>,
}

impl Hooks for FlushCopies {
    fn before_flush(&self, _: &FlushEvent<'_>) -> std::io::Result<()> {
        self.copies.lock().expect("no panic").push(std::fs::read(&self.path).expect("read"));
        Ok(())
    }
}

/// The replay writes the slot that does not belong to the target. A crash before each of its
/// flushes, with any copy of that slot still as it was, leaves a file with all commits.
#[test]
fn a_crash_while_contradicting_slots_are_recovered_loses_no_commit_of_the_log() {
    let seed = seed("a crash, contradicting slots");
    let (logged, other) = (Logged::new(seed, 9, 12), Logged::new(seed ^ 1, 40, 1));
    let older = (logged.newest_slot ^ 1) * PAGE;
    let mut crashes = 0;
    for from in [&logged, &other] {
        let mut before = logged.bytes.clone();
        let slot = from.newest_slot * PAGE;
        before[older..older + PAGE].copy_from_slice(&from.bytes[slot..slot + PAGE]);
        let dir = fast_dir();
        let path = dir.path().join("recovered.mapleaf");
        std::fs::write(&path, &before).expect("written");
        let hooks = Arc::new(FlushCopies { path: path.clone(), copies: Mutex::default() });
        drop(testing::open_with_hooks(Options::new().recover(true), &path, hooks.clone()).expect("recovered"));
        let copies = std::mem::take(&mut *hooks.copies.lock().expect("no panic"));
        // Later flushes are of the clean close, which begins when the slot is durable.
        let has_meta = |copy: &Vec<u8>| copy[older..older + PAGE] != before[older..older + PAGE];
        let meta_flush = copies.iter().position(has_meta).expect("a flush of the meta page");
        let copies = &copies[..=meta_flush];
        for (at, copy) in copies.iter().enumerate() {
            for kept in 0..4 {
                let mut image = copy.clone();
                for half in (0..2).filter(|half| kept >> half & 1 == 1) {
                    let range = older + half * PAGE / 2..older + (half + 1) * PAGE / 2;
                    image[range.clone()].copy_from_slice(&before[range]);
                }
                let context = format!("crash before flush {at}, halves kept {kept:b}");
                std::fs::write(&path, &image).expect("written");
                Db::recover(&path).unwrap_or_else(|e| panic!("{context}: {e}"));
                let db = Db::open(&path).unwrap_or_else(|e| panic!("{context}: {e}"));
                logged.history.holds(&db, logged.acknowledged).unwrap_or_else(|e| panic!("{context}: {e}"));
                assert_clean(&db);
                crashes += 1;
            }
        }
    }
    println!("{crashes} crashes");
    assert!(crashes >= 16, "{crashes} crashes");
}
