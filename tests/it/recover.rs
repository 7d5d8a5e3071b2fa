//! Going back to a whole state: files cut at every page, damaged newest states, and crashes of the recovery itself.

use std::path::{Path, PathBuf};

use mapleaf::{Db, Error, ErrorKind, Options};
use tempfile::TempDir;

use crate::support::{assert_clean, seed};
use crate::workload::{fast_dir, History, Rng};

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
        let db = Db::open(&path).expect("made");
        let newest = (0..commits).map(|_| history.commit_next(&db).expect("committed")).last().expect("commits");
        drop(db);
        let bytes = std::fs::read(&path).expect("the file");
        Sample { history, newest, bytes, dir }
    }

    fn file(&self, bytes: &[u8]) -> PathBuf {
        let path = self.dir.path().join("test.mapleaf");
        std::fs::write(&path, bytes).expect("written");
        path
    }

    /// The slot of the newest meta.
    fn newest_slot(&self) -> usize {
        let txn = |slot: usize| u64_at(&self.bytes, slot * PAGE + 48);
        usize::from(txn(1) > txn(0))
    }

    /// Which transaction's state is whole in the file cut to `len`, found without the code under test: each meta in turn
    /// is left alone in a file that zeros make long enough, and `check` has to find every page of it.
    fn whole(&self, bytes: &[u8]) -> Option<u64> {
        [self.newest_slot(), self.newest_slot() ^ 1].into_iter().find_map(|slot| {
            if bytes.len() < (slot + 1) * PAGE {
                return None;
            }
            let mut alone = bytes.to_vec();
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

    /// Recovers a file and compares it with the state that it must have gone back to.
    #[track_caller]
    fn recovers_to(&self, path: &Path, whole: u64, context: &str) {
        let report = Db::recover(path).unwrap_or_else(|e| panic!("{context}: {e}"));
        // Its own number, or the one that an earlier recovery gave it.
        let again = report.is_nothing() && report.newest_txn == self.newest + 1;
        assert!(report.whole_txn == whole || again, "{context}: {report:?}");
        assert!(Db::recover(path).expect("again").is_nothing(), "{context}: the second time has nothing to do");
        let db = Db::open_existing(path).unwrap_or_else(|e| panic!("{context}: {e}"));
        self.history.holds(&db, whole).unwrap_or_else(|e| panic!("{context}: {e}"));
        assert_clean(&db);
        db.write(|txn| txn.bytes_table("after")?.insert(b"key", b"value").map(drop)).expect("writes go on");
        assert_clean(&db);
    }
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

#[test]
fn a_file_cut_anywhere_is_recovered_or_says_that_it_cannot_be() {
    let seed = seed("a_file_cut_anywhere");
    let mut rng = Rng(seed);
    // One whose last commit made the file longer, so that the state before lies in a part of it.
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
fn a_damaged_newest_state_is_given_up_for_the_one_before() {
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
fn recovery_leaves_a_whole_file_alone() {
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

/// The recovery writes zeros at the end of the file, flushes, and writes one slot. Whatever part of these writes a crash
/// leaves, recovering again ends in the same state, and never does worse.
#[test]
fn a_crash_of_the_recovery_is_recovered_from() {
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
        for len in [before.len(), after.len()] {
            for subset in 0..1u32 << changed.len() {
                // Before the first flush nothing of the slot is written: a short file has the old slot.
                if len < after.len() && subset != 0 {
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
