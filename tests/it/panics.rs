//! Code of the caller that panics inside a call: codecs, iterators, readers, closures. After the
//! program catches the panic, the transaction or table still works, or refuses further calls.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io::{self, Read};
use std::ops::ControlFlow;
use std::panic::{catch_unwind, AssertUnwindSafe};

use mapleaf::codec::{Codec, CodecError, Encoded};
use mapleaf::{Db, ErrorKind, Options, Result, Table};

use crate::support::{TestDb, BYTES};

const ROWS: Table<u64, Fragile> = Table::new("rows");
const COUNT: u64 = 200;

/// A number, by a codec that panics once at the number in `PANICS_AT`.
struct Fragile;

thread_local! {
    static PANICS_AT: Cell<Option<u64>> = const { Cell::new(None) };
}

fn panic_once_at(item: u64) {
    if PANICS_AT.get() == Some(item) {
        PANICS_AT.set(None);
        panic!("the codec panics at {item}, as the test wants");
    }
}

impl Codec for Fragile {
    type Item<'a> = u64;
    type Owned = u64;

    fn name() -> String {
        "test.fragile".into()
    }

    fn encode<'a>(item: &'a u64) -> Result<Encoded<'a>> {
        panic_once_at(*item);
        Ok(Encoded::copied(&item.to_be_bytes()))
    }

    fn decode(bytes: &[u8]) -> Result<u64, CodecError> {
        let bytes = bytes.try_into().map_err(|_| CodecError::new("a number has eight bytes"))?;
        let item = u64::from_be_bytes(bytes);
        panic_once_at(item);
        Ok(item)
    }

    fn to_owned(item: u64) -> u64 {
        item
    }
}

/// Runs a closure and returns whether it panicked.
fn panics<T>(run: impl FnOnce() -> T) -> bool {
    catch_unwind(AssertUnwindSafe(run)).is_err()
}

fn filled() -> TestDb {
    let db = TestDb::file(Options::new());
    db.write(|txn| {
        let mut rows = txn.table(ROWS)?;
        (0..COUNT).try_for_each(|key| rows.insert(key, key).map(drop))
    })
    .expect("committed");
    db
}

fn rows(db: &Db) -> BTreeMap<u64, u64> {
    let rows = db.begin_read().expect("begins").table(ROWS).expect("table");
    rows.iter().map(|row| row.expect("a row")).collect()
}

/// Takes all entries of an iterator, from the ends that `back` gives in turn, and continues after a
/// panic. Returns their number.
fn take_all(
    mut entries: impl DoubleEndedIterator<Item = Result<(u64, u64)>>,
    back: &[bool],
    wanted: u64,
) -> Vec<(bool, u64)> {
    PANICS_AT.set(Some(wanted));
    let (mut taken, mut caught) = (Vec::new(), 0);
    for &back in back.iter().cycle() {
        let next = || if back { entries.next_back() } else { entries.next() };
        match catch_unwind(AssertUnwindSafe(next)) {
            Ok(None) => break,
            Ok(Some(entry)) => taken.push((back, entry.expect("an entry").0)),
            Err(_) => caught += 1,
        }
    }
    assert_eq!(caught, 1, "the codec panics at {wanted}");
    taken
}

/// All keys but one, each once, ascending from the front and descending from the back.
fn assert_each_once(taken: &[(bool, u64)], but: u64, of: &str) {
    let from = |end| taken.iter().filter(move |&&(back, _)| back == end).map(|&(_, key)| key);
    let keys: Vec<u64> = from(false).chain(from(true).collect::<Vec<_>>().into_iter().rev()).collect();
    let wanted: Vec<u64> = (0..COUNT).filter(|&key| key != but).collect();
    assert_eq!(keys, wanted, "{of}, a panic at {but}");
}

#[test]
fn a_range_whose_codec_panics_gives_every_other_entry_once() {
    let db = filled();
    let txn = db.begin_read().expect("begins");
    let table = txn.table(ROWS).expect("table");
    let writing = db.begin_write().expect("begins");
    let changed = writing.table(ROWS).expect("table");
    for back in [&[false][..], &[true], &[false, true], &[false, false, true]] {
        for at in [0, 1, 62, 63, 64, 65, 100, 127, 128, 135, 136, 137, 198, 199] {
            let owned = table.range_owned(..).expect("a range");
            assert_each_once(&take_all(owned, back, at), at, "an owned range");
            assert_each_once(&take_all(table.iter(), back, at), at, "a range");
            assert_each_once(&take_all(changed.iter(), back, at), at, "a range of a write transaction");
        }
    }
}

#[test]
fn a_lookup_whose_codec_panics_leaves_the_table_as_it_was() {
    let db = filled();
    let txn = db.begin_read().expect("begins");
    let table = txn.table(ROWS).expect("table");
    PANICS_AT.set(Some(70));
    assert!(panics(|| table.get(70)));
    PANICS_AT.set(Some(70));
    assert!(panics(|| table.multi_get(0..COUNT)));
    let found = table.multi_get(0..COUNT).expect("found");
    assert!((0..).zip(found).all(|(key, value)| value == Some(key)));
}

#[test]
fn a_put_whose_codec_panics_is_complete_or_absent_and_the_transaction_continues() {
    let db = filled();
    let txn = db.begin_write().expect("begins");
    let mut table = txn.table(ROWS).expect("table");
    // Before anything was changed.
    PANICS_AT.set(Some(1000));
    assert!(panics(|| table.insert(7, 1000)));
    PANICS_AT.set(Some(1000));
    assert!(panics(|| table.append(2000, 1000)));
    assert_eq!(table.get(7).expect("read"), Some(7));
    // The old value, when the new one is stored.
    PANICS_AT.set(Some(8));
    assert!(panics(|| table.insert(8, 80)));
    PANICS_AT.set(Some(9));
    assert!(panics(|| table.remove(9)));
    table.insert(10, 100).expect("goes on");
    txn.commit().expect("committed");
    let mut wanted: BTreeMap<u64, u64> = (0..COUNT).map(|key| (key, key)).collect();
    wanted.extend([(8, 80), (10, 100)]);
    wanted.remove(&9);
    assert!(rows(&db) == wanted);
}

#[test]
fn a_load_whose_iterator_panics_is_refused_and_one_whose_codec_panics_continues() {
    let db = filled();
    for key_of in [|n: u64| 1000 + n, |n: u64| 5000 - n] {
        let txn = db.begin_write().expect("begins");
        let mut table = txn.table(ROWS).expect("table");
        let entries = (0..500).map(|n| (key_of(n), n)).inspect(|&(_, n)| assert_ne!(n, 300, "as the test wants"));
        assert!(panics(|| table.load(entries)));
        assert_eq!(txn.commit().expect_err("a load that was left").kind(), ErrorKind::Usage);
        assert_eq!(rows(&db).len() as u64, COUNT);
    }
    let txn = db.begin_write().expect("begins");
    let mut table = txn.table(ROWS).expect("table");
    let mut loader = table.loader().expect("a loader");
    for n in (0..500).rev() {
        if n == 300 {
            PANICS_AT.set(Some(1300));
            assert!(panics(|| loader.push(1000 + n, 1000 + n)));
        } else {
            loader.push(1000 + n, 1000 + n).expect("taken");
        }
    }
    assert_eq!(loader.finish().expect("loaded"), 499);
    txn.commit().expect("committed");
    let wanted = (0..COUNT).chain((1000..1500).filter(|&n| n != 1300)).map(|key| (key, key));
    assert!(rows(&db) == wanted.collect());
}

/// Panics after some bytes.
struct Panicking(u64);

impl Read for Panicking {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.0 = self.0.checked_sub(into.len() as u64).expect("the reader panics, as the test wants");
        into.fill(7);
        Ok(into.len())
    }
}

#[test]
fn a_value_whose_reader_or_fill_closure_panics_is_not_stored() {
    const BLOBS: Table<u64, &[u8]> = Table::new("blobs");
    let db = filled();
    let txn = db.begin_write().expect("begins");
    let mut blobs = txn.table(BLOBS).expect("table");
    assert!(panics(|| blobs.insert_reader(1, 100, Panicking(10))));
    let fill = |place: &mut [u8]| place.iter_mut().enumerate().for_each(|(at, _)| assert!(at < 5, "as the test wants"));
    for len in [100, 1 << 20] {
        assert!(panics(|| fill(&mut blobs.reserve(2, len).expect("a place"))));
    }
    blobs.insert(3, &[3; 5000]).expect("goes on");
    txn.commit().expect("committed");
    db.assert_clean();
    // In the middle of a long value: the transaction has unreachable pages and can only be aborted.
    let txn = db.begin_write().expect("begins");
    let mut blobs = txn.table(BLOBS).expect("table");
    assert!(panics(|| blobs.insert_reader(4, 1 << 20, Panicking(300_000))));
    assert_eq!(blobs.insert(5, &[5]).expect_err("a value that was left").kind(), ErrorKind::Usage);
    assert_eq!(txn.commit().expect_err("a value that was left").kind(), ErrorKind::Usage);
    let blobs = db.begin_read().expect("begins").table(BLOBS).expect("table");
    assert_eq!(blobs.iter().map(|blob| blob.expect("a blob").0).collect::<Vec<_>>(), [3]);
}

#[test]
fn a_closure_that_panics_ends_its_transaction() {
    let db = filled();
    assert!(panics(|| db.read(|_| -> Result<()> { panic!("as the test wants") })));
    assert_eq!(db.stats().expect("stats").readers, 0);
    let write = || {
        db.write(|txn| -> Result<()> {
            txn.table(ROWS)?.insert(1, 100)?;
            panic!("as the test wants")
        })
    };
    assert!(panics(write));
    assert_eq!(rows(&db)[&1], 1);
    db.write(|txn| txn.table(ROWS)?.insert(1, 2).map(drop)).expect("the next writer");
    assert_eq!(rows(&db)[&1], 2);
}

#[test]
fn progress_that_panics_leaves_no_file() {
    let db = filled();
    db.write(|txn| txn.table(BYTES)?.insert(b"long", &[1; 2 << 20]).map(drop)).expect("enough pages to tell of");
    let dir = tempfile::tempdir().expect("a directory");
    let out = dir.path().join("out.mapleaf");
    assert!(panics(|| db.compact_to_with(&out, |_, _| -> ControlFlow<()> { panic!("as the test wants") })));
    assert!(panics(|| db.check_with(|_, _| panic!("as the test wants"))));
    assert_eq!(std::fs::read_dir(dir.path()).expect("a directory").count(), 0);
    db.assert_clean();
    db.compact_to(&out).expect("compacts");
    assert!(rows(&Db::open(&out).expect("opens")) == rows(&db));
}
