//! Damage in files that have multimaps, long keys and named snapshots: flipped bytes, and files
//! that end inside a value tree, a long key or the pages of a snapshot.
//!
//! The file is the golden one, closed. A check finds damage, and a read gives the right answer or
//! an error that names the page.

use std::collections::BTreeSet;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::path::Path;

use mapleaf::{Db, Error, ErrorKind, Options, ReadTxn, Result};

use crate::golden_kinds::{closed, content, Content, PAGE, SNAPSHOT};
use crate::support::{long, seed, Rng};
use crate::workload::fast_dir;

/// A whole file, and what it holds.
struct Sample {
    dir: tempfile::TempDir,
    bytes: Vec<u8>,
    newest: Content,
    before: Content,
}

/// What reading a state gave.
#[derive(Default)]
struct Read {
    found: Content,
    errors: Vec<Error>,
}

impl Sample {
    fn new() -> Sample {
        let dir = fast_dir();
        let bytes = closed(dir.path());
        let path = dir.path().join("whole.mapleaf");
        std::fs::write(&path, &bytes).expect("written");
        let db = Db::open_existing(&path).expect("opens");
        let newest = content(&db.begin_read().expect("begins")).expect("content");
        let before = content(&db.read_snapshot(SNAPSHOT).expect("the snapshot")).expect("content");
        Sample { dir, bytes, newest, before }
    }

    fn pages(&self) -> usize {
        self.bytes.len() / PAGE
    }

    /// The page whose header a page has: itself, or the first page of its extent.
    fn first_of(&self, page: usize) -> usize {
        let extent = |first: &usize| {
            let header = &self.bytes[first * PAGE..][..32];
            let is_extent = header[4] == 3 && header[16..22] == (*first as u64).to_le_bytes()[..6];
            is_extent && first + header[8] as usize > page
        };
        (2..page).rev().find(extent).unwrap_or(page)
    }

    /// The pages for which `is` holds, given the kind, the tree and all bytes.
    fn pages_that(&self, is: impl Fn(u8, u32, &[u8]) -> bool) -> Vec<usize> {
        let tree = |page: &[u8]| u32::from_le_bytes(page[28..32].try_into().expect("4 bytes"));
        (2..self.pages())
            .filter(|&page| {
                let bytes = &self.bytes[page * PAGE..][..PAGE];
                is(bytes[4], tree(bytes), bytes)
            })
            .collect()
    }
}

/// Reads all tables of a state in both directions. Each answer must be right.
fn read_state(txn: Result<ReadTxn>, expected: &Content) -> Read {
    let mut read = Read::default();
    let Ok(txn) = txn.map_err(|e| read.errors.push(e)) else { return read };
    let names: BTreeSet<&str> = expected.keys().map(|(table, _, _)| table.as_str()).collect();
    for name in names {
        let mut add = |answer: Result<(&[u8], &[u8])>| match answer {
            Ok((key, value)) => {
                let answer = (name.to_string(), key.to_vec(), value.to_vec());
                assert!(expected.contains_key(&answer), "{name}: a wrong answer for {}", key.escape_ascii());
                read.found.insert(answer, ());
                true
            }
            Err(e) => {
                read.errors.push(e);
                false
            }
        };
        if ["sizes", "words", "late"].contains(&name) {
            match txn.multi_bytes_table(name) {
                Ok(table) => {
                    let _all = table.iter().all(&mut add);
                    let _all = table.iter().rev().all(&mut add);
                }
                Err(e) => {
                    add(Err(e));
                }
            }
            continue;
        }
        let table = match txn.bytes_table(name) {
            Ok(table) => table,
            Err(e) => {
                add(Err(e));
                continue;
            }
        };
        let _all = table.iter().all(&mut add);
        let _all = table.iter().rev().all(&mut add);
        for (_, key, value) in expected.keys().filter(|(table, _, _)| table == name) {
            match table.get(key) {
                Ok(found) => assert!(found == Some(value), "{name}: a wrong value of {}", key.escape_ascii()),
                Err(e) => read.errors.push(e),
            }
        }
    }
    assert!(!read.errors.is_empty() || read.found == *expected, "entries are missing, and no error says so");
    read
}

/// Judges a file with a damaged page. Returns whether anything in use is damaged.
fn judge(sample: &Sample, path: &Path, page: usize) -> Result<bool, String> {
    let names_it = |text: &str| {
        let first = sample.first_of(page);
        [page, first].iter().any(|page| text.contains(&format!("page {page}")))
    };
    let db = match Options::new().read_only(true).open(path) {
        Ok(db) => db,
        Err(e) if e.kind() == ErrorKind::Corrupt => return Ok(true),
        Err(e) => return Err(format!("opening: {e}")),
    };
    let findings = db.check().map_err(|e| format!("check: {e}"))?.findings;
    let newest = read_state(db.begin_read(), &sample.newest);
    let before = read_state(db.read_snapshot(SNAPSHOT), &sample.before);
    let errors: Vec<&Error> = newest.errors.iter().chain(&before.errors).collect();
    for e in &errors {
        if e.kind() != ErrorKind::Corrupt || (page > 1 && !names_it(&e.to_string())) {
            return Err(format!("a read says {e}"));
        }
    }
    if findings.is_empty() && !errors.is_empty() {
        return Err(format!("check finds nothing, and a read says {}", errors[0]));
    }
    let named = |finding: &mapleaf::Finding| names_it(&finding.to_string());
    if page > 1 && !findings.is_empty() && !findings.iter().any(named) {
        return Err(format!("of {} findings none names the page; the first: {}", findings.len(), findings[0]));
    }
    Ok(!findings.is_empty())
}

#[test]
fn a_flipped_byte_of_any_kind_of_page_is_found_and_named_and_gives_no_wrong_answer() {
    let sample = Sample::new();
    let path = sample.dir.path().join("flipped.mapleaf");
    let mut rng = Rng::new(seed("a_flipped_byte_of_any_kind_of_page"));
    let per_page = 12 * u64::from(long());
    let (mut flipped, mut kinds) = (0, BTreeSet::new());
    for page in 0..sample.pages() {
        let places: BTreeSet<usize> = match per_page >= PAGE as u64 {
            true => (0..PAGE).collect(),
            // The header, both ends, and others.
            false => (0..per_page).map(|n| rng.below([32, 200, 4096][n as usize % 3]) as usize).collect(),
        };
        let (mut found, mut unused) = (0, 0);
        for at in places {
            let mut damaged = sample.bytes.clone();
            damaged[page * PAGE + at] ^= 1 << rng.below(8);
            std::fs::write(&path, &damaged).expect("written");
            let judged = catch_unwind(AssertUnwindSafe(|| judge(&sample, &path, page)));
            let judged = judged.unwrap_or_else(|_| panic!("page {page}, byte {at}: panicked"));
            match judged.unwrap_or_else(|e| panic!("page {page}, byte {at}: {e}")) {
                true => found += 1,
                false => unused += 1,
            }
            flipped += 1;
        }
        // A meta page has bytes that nobody reads.
        assert!(page < 2 || found == 0 || unused == 0, "page {page}: {found} flips found, {unused} not");
        if found > 0 {
            kinds.insert(sample.bytes[page * PAGE + 4]);
        }
    }
    assert!([1, 2, 3, 6].iter().all(|kind| kinds.contains(kind)), "damage in pages of all kinds: {kinds:?}");
    println!("{flipped} bytes flipped, wrong answers 0");
}

/// Places where the file ends: inside the pages of value trees, of a long key after its first page,
/// and of the snapshot; with what is cut.
fn cuts(sample: &Sample) -> Vec<(&'static str, usize)> {
    let trees = sample.pages_that(|kind, tree, _| [1, 2, 6].contains(&kind) && tree >= 1 << 31);
    let tail = |_: u8, _: u32, page: &[u8]| page.starts_with(&[b'/'; 100]);
    let tails = sample.pages_that(tail);
    let old = sample.pages_that(|kind, _, page| kind == 3 && page[32..].starts_with(&sample.before_blob()[..64]));
    assert!(!trees.is_empty() && !tails.is_empty() && !old.is_empty(), "{trees:?}, {tails:?}, {old:?}");
    let places = [("a value tree", trees), ("the tail of a long key", tails), ("the snapshot", old)];
    places.into_iter().flat_map(|(what, pages)| pages.into_iter().map(move |page| (what, page))).collect()
}

impl Sample {
    /// A value that only the snapshot has.
    fn before_blob(&self) -> &[u8] {
        let only = |(table, key, value): &&(String, Vec<u8>, Vec<u8>)| {
            table == "blobs"
                && value.len() > PAGE
                && !self.newest.contains_key(&(table.clone(), key.clone(), value.clone()))
        };
        &self.before.keys().find(only).expect("a value that was replaced").2
    }
}

#[test]
fn a_file_cut_inside_a_new_kind_of_page_under_a_reader_is_an_error() {
    let sample = Sample::new();
    let path = sample.dir.path().join("cut-open.mapleaf");
    for (at, (what, page)) in cuts(&sample).into_iter().enumerate() {
        std::fs::write(&path, &sample.bytes).expect("written");
        let len = (page * PAGE + if at % 2 == 0 { 0 } else { 2000 }) as u64;
        let context = format!("{what}, {len} bytes");
        let db = Options::new().read_only(at % 3 == 0).open(&path).expect("opens");
        let (newest, before) = (db.begin_read(), db.read_snapshot(SNAPSHOT));
        if at % 3 == 1 {
            read_state(db.begin_read(), &sample.newest);
        }
        std::fs::File::options().write(true).open(&path).and_then(|file| file.set_len(len)).expect("cut");
        let (newest, before) = (read_state(newest, &sample.newest), read_state(before, &sample.before));
        let errors: Vec<Error> = newest.errors.into_iter().chain(before.errors).collect();
        assert!(!errors.is_empty(), "{context}: nobody noticed");
        for e in errors {
            assert!(matches!(e.kind(), ErrorKind::Fault | ErrorKind::Poisoned), "{context}: {e}");
        }
        let again = db.begin_read().map(drop).expect_err("the handle is poisoned");
        assert_eq!(again.kind(), ErrorKind::Poisoned, "{context}: {again}");
    }
}
