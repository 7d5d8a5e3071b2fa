//! The golden file of multimaps, long keys and named snapshots, with a commit log whose records no
//! meta page has. `docs/format.md` walks through its pages; a test compares the two.
//!
//! As in `golden`: `generate` created the file, each run compares the two, and the file is never
//! replaced. A kind of page or table that comes later gets a golden file of its own, with a
//! function beside `generate`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use mapleaf::testing::{log_content, set_log_shape, with_log_shape};
use mapleaf::{Db, MultiTable, Options, ReadTxn, Result, Table, WriteTxn};

use crate::support::assert_clean;
use crate::workload::fast_dir;

/// Values of one size: `few` lie beside their key, `many` in a tree of packed leaves.
const SIZES: MultiTable<&str, u64> = MultiTable::new("sizes");
/// Values of any size, likewise.
const WORDS: MultiTable<u32, &str> = MultiTable::new("words");
/// Long keys and short ones.
const URLS: Table<&str, u64> = Table::new("urls");
/// Values in the leaf and in overflow extents.
const BLOBS: Table<u32, &[u8]> = Table::new("blobs");
/// Made and renamed by records of the log.
const LATE: MultiTable<u8, &[u8]> = MultiTable::new("late");
const EARLY: MultiTable<u8, &[u8]> = MultiTable::new("early");

pub(crate) const PAGE: usize = 4096;
pub(crate) const SNAPSHOT: &str = "before";
const NAME: &str = "v1-kinds-4k.mapleaf";
/// Pages of the log.
const LOG_PAGES: u64 = 8;

pub(crate) fn path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(NAME)
}

/// The bytes of the golden file.
pub(crate) fn bytes() -> Vec<u8> {
    std::fs::read(path()).unwrap_or_else(|e| panic!("{}: {e}", path().display()))
}

/// Everything that a state holds: name of a table, key and value. A multimap has several values
/// with the same key.
pub(crate) type Content = BTreeMap<(String, Vec<u8>, Vec<u8>), ()>;

/// What a state holds.
pub(crate) fn content(txn: &ReadTxn) -> Result<Content> {
    let mut found = Content::new();
    for table in txn.tables()? {
        let mut add = |(key, value): (&[u8], &[u8])| {
            found.insert((table.name.clone(), key.to_vec(), value.to_vec()), ());
        };
        match table.is_multimap {
            true => txn.multi_bytes_table(&table.name)?.iter().try_for_each(|pair| pair.map(&mut add))?,
            false => txn.bytes_table(&table.name)?.iter().try_for_each(|entry| entry.map(&mut add))?,
        }
    }
    Ok(found)
}

fn blob(number: u32, len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 31 + at / 251 + number as usize * 17) as u8).collect()
}

/// A key of `len` bytes that differs from others of its length only in its last two bytes.
fn url(len: usize, number: u64) -> String {
    const START: &str = "https://example.org/";
    format!("{START}{}{number:02}", "/".repeat(len - START.len() - 2))
}

fn word(number: u64) -> String {
    format!("{number:03}{}", "word".repeat((number % 5) as usize))
}

/// The state that the snapshot keeps.
fn first_state(txn: &WriteTxn) -> Result<()> {
    let mut sizes = txn.multi_table(SIZES)?;
    for (key, count) in [("few", 3), ("many", 700)] {
        (0..count).try_for_each(|number| sizes.insert(key, number * 1000).map(drop))?;
    }
    let mut words = txn.multi_table(WORDS)?;
    for (key, count) in [(1, 3), (2, 300)] {
        (0..count).try_for_each(|number| words.insert(key, word(number).as_str()).map(drop))?;
    }
    let mut urls = txn.table(URLS)?;
    for number in 0..16 {
        urls.insert(url(1100, number).as_str(), number)?;
    }
    urls.insert(url(4300, 1).as_str(), 4300)?;
    urls.insert("https://example.org/", 0)?;
    let mut blobs = txn.table(BLOBS)?;
    for (number, len) in [5, 1000, 1001, 5000].into_iter().enumerate() {
        blobs.insert(number as u32, &blob(number as u32, len))?;
    }
    Ok(())
}

/// Changes of each table, after the snapshot.
fn second_state(txn: &WriteTxn) -> Result<()> {
    let mut sizes = txn.multi_table(SIZES)?;
    (200..400).try_for_each(|number| sizes.remove("many", number * 1000).map(drop))?;
    let mut words = txn.multi_table(WORDS)?;
    words.remove_all(1)?;
    words.insert(2, "after the snapshot")?;
    let mut urls = txn.table(URLS)?;
    urls.remove(url(1100, 3).as_str())?;
    urls.insert(url(4300, 2).as_str(), 4301)?;
    txn.table(BLOBS)?.insert(3, &blob(33, 6000)).map(drop)
}

/// Transactions that the log holds: together they have every operation of a record.
fn logged(db: &Db) -> Result<()> {
    db.write(|txn| {
        txn.table(BLOBS)?.insert(0, b"by a record")?;
        txn.table(URLS)?.insert(url(1100, 50).as_str(), 50)?;
        txn.multi_table(SIZES)?.insert("few", 7)?;
        txn.multi_table(WORDS)?.remove(2, "after the snapshot").map(drop)
    })?;
    db.write(|txn| {
        txn.multi_table(EARLY)?.insert(1, b"one")?;
        txn.multi_table(EARLY)?.insert(1, b"two")?;
        txn.rename_table("early", "late").map(drop)
    })?;
    db.write(|txn| {
        txn.table(BLOBS)?.remove_range(1..2)?;
        txn.table(URLS)?.remove("https://example.org/")?;
        txn.table(Table::<u8, u8>::new("short-lived"))?.insert(1, 1)?;
        txn.drop_table("short-lived").map(drop)
    })
}

/// What the disk holds after a power cut: the pages of the checkpoint, and the records after it.
pub(crate) fn generate(path: &Path) -> Result<Vec<u8>> {
    with_log_shape(Some((1, LOG_PAGES * PAGE as u64)), || {
        let db = Options::new().page_size(PAGE as u32).sync_interval(None).open(path)?;
        db.write(|txn| first_state(txn))?;
        db.create_snapshot(SNAPSHOT)?;
        db.write(|txn| second_state(txn))?;
        db.write(|txn| txn.table(BLOBS)?.insert(9, b"before the checkpoint").map(drop))?;
        db.checkpoint()?;
        let mut at_checkpoint = std::fs::read(path).expect("the file");
        logged(&db)?;
        let now = std::fs::read(path).expect("the file");
        let newest = mapleaf::inspect::metas(&db)?.into_iter().max_by_key(|meta| meta.txn).expect("a meta page");
        let log = newest.log_first as usize * PAGE..(newest.log_first + newest.log_pages) as usize * PAGE;
        at_checkpoint[log.clone()].copy_from_slice(&now[log]);
        at_checkpoint.truncate(newest.page_count as usize * PAGE);
        Ok(at_checkpoint)
    })
}

/// The golden file, opened and closed: its log is replayed and given up. In `dir`.
pub(crate) fn closed(dir: &Path) -> Vec<u8> {
    let path = dir.join("closed.mapleaf");
    std::fs::write(&path, bytes()).expect("a copy");
    set_log_shape(Some((u64::MAX, 0)));
    drop(Db::open_existing(&path).expect("opens"));
    set_log_shape(None);
    std::fs::read(&path).expect("the file")
}

/// The typed tables of the newest state, so that the codecs are covered too.
fn typed(txn: &ReadTxn) -> Result<()> {
    let sizes = txn.multi_table(SIZES)?;
    assert_eq!(sizes.values("few")?.collect::<Result<Vec<_>>>()?, [0, 7, 1000, 2000]);
    let many: Vec<u64> = (0..200).chain(400..700).map(|number| number * 1000).collect();
    assert_eq!(sizes.values("many")?.collect::<Result<Vec<_>>>()?, many);
    let words = txn.multi_table(WORDS)?;
    assert_eq!((words.count(1)?, words.count(2)?, words.len()), (0, 300, 300));
    assert!(words.contains(2, word(299).as_str())? && !words.contains(2, "after the snapshot")?);
    let urls = txn.table(URLS)?;
    for number in 0..16 {
        assert_eq!(urls.get(url(1100, number).as_str())?, (number != 3).then_some(number));
    }
    let others = [url(4300, 1), url(4300, 2), url(1100, 50)].map(|url| urls.get(url.as_str()));
    assert_eq!(others.into_iter().collect::<Result<Vec<_>>>()?, [Some(4300), Some(4301), Some(50)]);
    assert_eq!(urls.len(), 18);
    let blobs = txn.table(BLOBS)?;
    let expected = [(0, b"by a record".to_vec()), (2, blob(2, 1001)), (3, blob(33, 6000))];
    for (number, expected) in expected {
        assert_eq!(blobs.get(number)?, Some(&expected[..]));
    }
    assert_eq!((blobs.len(), blobs.get(1)?, blobs.get(9)?), (4, None, Some(&b"before the checkpoint"[..])));
    let late = txn.multi_table(LATE)?;
    assert_eq!(late.values(1)?.collect::<Result<Vec<_>>>()?, [b"one", b"two"]);
    Ok(())
}

/// The typed tables as the snapshot has them.
fn typed_before(txn: &ReadTxn) -> Result<()> {
    let (sizes, words) = (txn.multi_table(SIZES)?, txn.multi_table(WORDS)?);
    assert_eq!((sizes.count("few")?, sizes.count("many")?), (3, 700));
    assert_eq!((words.count(1)?, words.count(2)?), (3, 300));
    let (urls, blobs) = (txn.table(URLS)?, txn.table(BLOBS)?);
    assert_eq!(
        (urls.len(), urls.get(url(1100, 3).as_str())?, urls.get(url(4300, 1).as_str())?),
        (18, Some(3), Some(4300))
    );
    assert_eq!((blobs.len(), blobs.get(3)?), (4, Some(&blob(3, 5000)[..])));
    Ok(())
}

/// Asserts that a database holds what the golden file holds.
fn assert_whole(db: &Db) {
    typed(&db.begin_read().expect("begins")).expect("the typed tables");
    typed_before(&db.read_snapshot(SNAPSHOT).expect("the snapshot")).expect("the typed tables of the snapshot");
    assert_clean(db);
}

/// The records that a replay applies.
fn records(bytes: &[u8]) -> u64 {
    let read = |offset: u64, into: &mut [u8]| match bytes.get(offset as usize..offset as usize + into.len()) {
        Some(found) => {
            into.copy_from_slice(found);
            true
        }
        None => false,
    };
    log_content(&read).map_or(0, |log| log.records)
}

#[test]
fn the_golden_file_of_all_kinds_opens_reads_and_checks_clean() {
    let before = bytes();
    assert!(before.len() < 300 << 10, "{} bytes", before.len());
    assert_eq!(records(&before), 3);
    let db = Options::new().read_only(true).open(path()).expect("open");
    assert_whole(&db);
    let stats = db.stats().expect("stats");
    assert_eq!((stats.page_size, stats.format_version), (4096, 1));
    drop(db);
    assert!(bytes() == before, "reading changed the file");
}

#[test]
fn a_copy_of_the_golden_file_of_all_kinds_replays_its_log_and_accepts_writes() {
    let dir = fast_dir();
    let path = dir.path().join(NAME);
    std::fs::write(&path, bytes()).expect("a copy");
    for round in 0..4u64 {
        let db = Db::open_existing(&path).expect("open");
        assert_whole(&db);
        db.write(|txn| {
            (0..300).try_for_each(|number| txn.multi_table(SIZES)?.insert("round", number * 3 + round).map(drop))?;
            txn.multi_table(WORDS)?.insert(2, "of a round")?;
            txn.table(URLS)?.insert(url(4300, 60 + round).as_str(), round)?;
            txn.multi_table(LATE)?.insert(7, b"of a round").map(drop)
        })
        .expect("written");
        db.create_snapshot("another").expect("created");
        db.write(|txn| {
            txn.multi_table(SIZES)?.remove_all("round")?;
            txn.multi_table(WORDS)?.remove(2, "of a round")?;
            txn.table(URLS)?.remove(url(4300, 60 + round).as_str())?;
            txn.multi_table(LATE)?.remove_all(7).map(drop)
        })
        .expect("written");
        assert_whole(&db);
        db.drop_snapshot("another").expect("dropped");
    }
    let db = Db::open_existing(&path).expect("open");
    db.restore_snapshot(SNAPSHOT).expect("restored");
    typed_before(&db.begin_read().expect("begins")).expect("the typed tables");
    assert_clean(&db);
}

#[test]
fn the_generator_makes_what_the_golden_file_of_all_kinds_holds() {
    let dir = fast_dir();
    let (origin, made) = (dir.path().join("origin"), dir.path().join("made"));
    let image = generate(&origin).expect("to generate");
    if !path().exists() && std::env::var("MAPLEAF_GOLDEN").is_ok_and(|value| value == "1") {
        std::fs::write(path(), &image).expect("a golden file");
    }
    std::fs::write(&made, &image).expect("written");
    assert_eq!(records(&image), 3);
    let made = Db::open_existing(&made).expect("open");
    assert_whole(&made);
    let kept = Options::new().read_only(true).open(path()).expect("open");
    for read in [|db: &Db| db.begin_read(), |db: &Db| db.read_snapshot(SNAPSHOT)] {
        let of = |db: &Db| read(db).and_then(|txn| content(&txn)).expect("content");
        assert!(of(&made) == of(&kept), "the golden file and the generator differ");
    }
}

/// The kinds of pages that the walk has to show, by the byte in their headers.
const KINDS: [(&str, u8); 5] =
    [("leaf", 1), ("branch", 2), ("overflow extent", 3), ("free list", 4), ("packed leaf", 6)];

/// The difference between a line of the walk and the bytes from its offset on.
fn disagrees(line: &str, file: &[u8]) -> Option<String> {
    let (offset, rest) = line.split_once(' ')?;
    let (shown, meaning) = rest.trim_start().split_once("  ").unwrap_or((rest, ""));
    let at = usize::from_str_radix(offset.strip_prefix("0x")?, 16).expect("an offset");
    let parsed: Vec<u8> =
        shown.split(' ').map(|byte| u8::from_str_radix(byte, 16).unwrap_or_else(|e| panic!("{line}: {e}"))).collect();
    let found = &file[at..at + parsed.len()];
    if found != parsed {
        return Some(format!("{line}\n  the file has {found:02x?}"));
    }
    if let Some((_, number)) = meaning.rsplit_once(" = ") {
        let number: u64 = number.split(' ').next()?.replace(',', "").parse().expect("a number after '='");
        let stored = found.iter().rev().fold(0u64, |sum, &byte| sum << 8 | u64::from(byte));
        if stored != number {
            return Some(format!("{line}\n  the bytes are {stored}"));
        }
    }
    if let Some((_, text)) = meaning.split_once('"') {
        let text = text.split('"').next()?;
        if found != text.as_bytes() {
            return Some(format!("{line}\n  the bytes are '{}'", found.escape_ascii()));
        }
    }
    None
}

/// The kind, tree and count that the line of a page says.
fn header_disagrees(page: usize, said: &str, file: &[u8]) -> Option<String> {
    let header = &file[page * PAGE..page * PAGE + 32];
    let field =
        |at: usize, len: usize| header[at..at + len].iter().rev().fold(0u64, |n, &byte| n << 8 | u64::from(byte));
    let named = KINDS.iter().find(|(name, _)| said.starts_with(name));
    let Some((_, kind)) = named else { return Some(format!("page {page}: '{said}' is no kind")) };
    let number = |word: &str| -> Option<u64> {
        let (before, _) = said.split_once(word)?;
        before.rsplit([' ', '+']).find(|found| !found.is_empty())?.replace(',', "").parse().ok()
    };
    let tree = said.split_once("tree ").map(|(_, rest)| rest.split([',', ' ', '.']).next().expect("a part"));
    let tree: Option<u64> = tree.and_then(|tree| tree.parse().ok());
    let counts = [" entries", " entry", " children", " values"].iter().find_map(|word| number(word));
    let right = field(4, 1) == u64::from(*kind)
        && tree.is_none_or(|tree| tree == field(28, 4))
        && counts.is_none_or(|count| count == field(6, 2))
        && field(16, 6) == page as u64;
    (!right).then(|| format!("page {page}: '{said}' and the header {header:02x?}"))
}

/// Every line of bytes in the walk of `docs/format.md` is in the golden file at its offset, each
/// page of the file has a line, and the lines of pages agree with the headers.
#[test]
fn the_walk_through_the_golden_file_agrees_with_it() {
    let text =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/format.md")).expect("the document");
    let (_, walk) = text.split_once("\n## A file, page by page\n").expect("the walk");
    let walk = walk.split("\n## ").next().expect("a section");
    assert!(walk.contains(NAME), "the walk names its file");
    let file = bytes();
    let mut wrong: Vec<String> = Vec::new();
    let lines: Vec<&str> = walk.lines().filter(|line| line.starts_with("0x")).collect();
    assert!(lines.len() > 60, "{} lines of bytes", lines.len());
    wrong.extend(lines.iter().filter_map(|line| disagrees(line, &file)));
    let mut shown = vec![0; file.len() / PAGE];
    for line in walk.lines().filter_map(|line| line.strip_prefix("| ")) {
        let mut cells = line.split(" | ");
        let pages = cells.next().expect("a cell");
        let (first, last) = pages.split_once(" to ").unwrap_or((pages, pages));
        let (Ok(first), Ok(last)) = (first.parse::<usize>(), last.parse::<usize>()) else { continue };
        (first..=last).for_each(|page| shown[page] += 1);
        let said = cells.next().expect("a cell").trim_end_matches(" |");
        if !["meta page", "commit log", "free"].iter().any(|other| said.starts_with(other)) {
            wrong.extend(header_disagrees(first, said, &file));
        }
    }
    assert!(shown.iter().all(|&count| count == 1), "each page has one line: {shown:?}");
    assert!(wrong.is_empty(), "{} to mend:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn a_wrong_line_of_the_walk_is_found() {
    let file: Vec<u8> = [&[7, 1, 0, 0][..], b"name"].concat();
    for right in ["0x0000 07 01 00 00  a number = 263", "0x0004 6e 61 6d 65  \"name\"", "0x0001 01", "no bytes"] {
        assert_eq!(disagrees(right, &file), None, "{right}");
    }
    for wrong in ["0x0000 07 01 00 00  a number = 264", "0x0004 6e 61 6d 65  \"same\"", "0x0001 02"] {
        assert!(disagrees(wrong, &file).is_some(), "{wrong}");
    }
    let mut page = vec![0; PAGE];
    page[4] = 1;
    page[6] = 12;
    page[28] = 17;
    assert_eq!(header_disagrees(0, "leaf of tree 17, 12 entries", &page), None);
    for wrong in ["branch of tree 17, 12 children", "leaf of tree 16", "leaf of tree 17, 13 entries", "log"] {
        assert!(header_disagrees(0, wrong, &page).is_some(), "{wrong}");
    }
}
