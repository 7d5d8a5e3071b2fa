//! A compaction never writes a file that is larger than its source, whatever the contents and
//! history of the source.

use std::collections::BTreeMap;
use std::path::Path;

use mapleaf::{Db, Options, WriteTxn};

use crate::support::{assert_clean, bytes, long, seed};
use crate::workload::{fast_dir, Rng};

/// Lengths of the closed files: the source, its compacted copy, and the copy of the copy.
#[track_caller]
fn assert_never_larger(source: &Path, what: &str) -> (u64, u64) {
    let (once, twice) = (source.with_extension("once"), source.with_extension("twice"));
    let len = |path: &Path| std::fs::metadata(path).expect("a file").len();
    let compact = |from: &Path, to: &Path| {
        let db = Options::new().read_only(true).open(from).expect("opens");
        let report = db.compact_to(to).unwrap_or_else(|e| panic!("{what}: {e}"));
        drop(db);
        assert_eq!((report.bytes_before, report.bytes_after), (len(from), len(to)), "{what}");
        report
    };
    let first = compact(source, &once);
    assert!(len(&once) <= len(source), "{what}: {first:?}");
    compact(&once, &twice);
    assert_eq!(len(&twice), len(&once), "{what}: of a compacted file");
    assert_clean(&Db::open_existing(&twice).expect("opens"));
    let lens = (len(source), len(&once));
    for path in [source, &once, &twice] {
        std::fs::remove_file(path).expect("removed");
    }
    lens
}

/// How the entries are stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    Loaded,
    InAnyOrder,
    Ascending,
    /// In descending order, if there is more than one transaction.
    Appended,
    /// Some are removed again.
    Thinned,
}

/// The contents and history of a database.
#[derive(Debug)]
struct Shape {
    page_size: u32,
    tables: u64,
    entries: u64,
    key_bytes: u64,
    value_bytes: u64,
    /// Common prefix of all names and keys.
    prefix_bytes: usize,
    transactions: u64,
    way: Way,
}

impl Shape {
    fn random(rng: &mut Rng) -> Shape {
        let tables = [0, 1, 2, 10, 150, 700][rng.below(6) as usize];
        Shape {
            page_size: 4096 << rng.below(4),
            tables,
            entries: if tables > 10 { rng.below(4) } else { [0, 1, 3, 40, 2000][rng.below(5) as usize] },
            key_bytes: [1, 20, 400, 800][rng.below(4) as usize],
            value_bytes: [1, 20, 400, 3000][rng.below(4) as usize],
            prefix_bytes: if rng.one_in(2) { 0 } else { 150 },
            transactions: 1 + rng.below(2) * rng.below(4),
            way: [Way::Loaded, Way::InAnyOrder, Way::Ascending, Way::Appended, Way::Thinned][rng.below(5) as usize],
        }
    }

    fn write(&self, db: &Db, rng: &mut Rng) {
        for _ in 0..self.transactions {
            db.write(|txn| (0..self.tables).try_for_each(|number| self.write_table(txn, number, rng)))
                .expect("written");
        }
    }

    fn write_table(&self, txn: &mut WriteTxn, number: u64, rng: &mut Rng) -> mapleaf::Result<()> {
        // Names ascend, descend or are shuffled.
        let number = [number, self.tables - number, number * 7919 % 1009][self.way as usize % 3];
        let prefix = "x".repeat(self.prefix_bytes);
        let mut table = txn.bytes_table(&format!("{prefix}{number}"))?;
        let entry = |rng: &mut Rng| {
            let key = [prefix.as_bytes(), &bytes(rng.next(), 1 + rng.below(self.key_bytes) as usize)].concat();
            (key, bytes(rng.next(), rng.below(self.value_bytes + 1) as usize))
        };
        let entries: Vec<(Vec<u8>, Vec<u8>)> = (0..self.entries).map(|_| entry(rng)).collect();
        let sorted: BTreeMap<Vec<u8>, Vec<u8>> = entries.iter().cloned().collect();
        match self.way {
            Way::Loaded => table.load(sorted.iter().map(|(key, value)| (&key[..], &value[..]))).map(drop),
            Way::InAnyOrder => entries.iter().try_for_each(|(key, value)| table.put(key, value).map(drop)),
            Way::Ascending => sorted.iter().try_for_each(|(key, value)| table.put(key, value).map(drop)),
            Way::Appended if self.transactions == 1 => {
                sorted.iter().try_for_each(|(key, value)| table.append(key, value).map(drop))
            }
            Way::Appended => sorted.iter().rev().try_for_each(|(key, value)| table.put(key, value).map(drop)),
            Way::Thinned => {
                entries.iter().try_for_each(|(key, value)| table.put(key, value).map(drop))?;
                sorted.keys().step_by(3).try_for_each(|key| table.remove(key).map(drop))
            }
        }
    }
}

#[test]
fn the_copy_of_a_small_file_of_any_shape_is_never_larger() {
    let seed = seed("never_larger");
    let dir = fast_dir();
    let source = dir.path().join("made.mapleaf");
    let mut rng = Rng(seed);
    let rounds = 120 * u64::from(long());
    let mut as_small = 0;
    for round in 0..rounds {
        let shape = Shape::random(&mut rng);
        let db = Options::new().page_size(shape.page_size).open(&source).expect("made");
        shape.write(&db, &mut rng);
        drop(db);
        let (before, after) = assert_never_larger(&source, &format!("seed {seed}, round {round}, {shape:?}"));
        as_small += u64::from(before == after);
    }
    println!("{as_small} of {rounds} files were as small as can be");
    assert!(as_small >= rounds / 10, "{as_small} sources leave nothing to gain");
}

/// One transaction that loads in order leaves no page free and fills every leaf. Some 40 MB each.
#[test]
fn the_copy_of_a_large_loaded_file_is_never_larger() {
    let dir = fast_dir();
    let source = dir.path().join("made.mapleaf");
    for (page_size, count, len) in [
        (4096, 250_000u64, 140),
        (4096, 16_000, 2500),
        (4096, 800, 50_000),
        (8192, 50_000, 800),
        (16384, 20_000, 2000),
        (32768, 10_000, 4000),
    ] {
        let db = Options::new().page_size(page_size).open(&source).expect("made");
        let value = vec![7; len];
        db.write(|txn| {
            let mut table = txn.bytes_table("t")?;
            let mut loader = table.loader()?;
            (0..count).try_for_each(|key| loader.push(&key.to_be_bytes()[..], &value[..]))?;
            loader.finish().map(drop)
        })
        .expect("loaded");
        drop(db);
        let what = format!("{count} values of {len} bytes, pages of {page_size}");
        let (before, after) = assert_never_larger(&source, &what);
        println!("{what}: {before} bytes, {after} compacted");
        assert!(before > 33 << 20, "{before}: the source has several batches");
    }
}
