//! Several tables of one write transaction at once: handles that write and handles that read,
//! values that stay borrowed while other tables change, and what is refused.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::ops::Bound;

use mapleaf::codec::{Codec, CodecError, Encoded};
use mapleaf::testing::window_id;
use mapleaf::{Db, Durability, Error, ErrorKind, Options, ReadableTable, Table};

use crate::support::{bytes, seed, Rng, TestDb, BYTES};

const OTHER: Table<&[u8], &[u8]> = Table::new("other");
const NUMBERS: Table<u64, &[u8]> = Table::new("numbers");
const ITEMS: Table<(&str, u64), u64> = Table::new("items");

/// The append buffer and the write queue are shared by all tables of a transaction.
#[test]
fn entries_that_are_appended_to_one_table_while_another_is_loaded_are_not_lost() {
    for db in TestDb::both(&Options::new()) {
        let txn = db.begin_write().expect("begins");
        let (mut loaded, mut appended) = (txn.table(BYTES).expect("table"), txn.table(NUMBERS).expect("table"));
        let mut loader = loaded.loader().expect("a loader");
        for n in 0..20_000_u64 {
            appended.append(n, &bytes(n, 100)).expect("append");
            loader.push(&n.to_be_bytes(), &bytes(n, 50)).expect("push");
        }
        loader.finish().expect("finish");
        (20_000..20_100).for_each(|n| appended.append(n, &bytes(n, 100)).expect("append"));
        drop((loaded, appended));
        txn.commit().expect("committed");
        db.assert_clean();
        let appended = db.begin_read().expect("begins").table(NUMBERS).expect("table");
        assert!((0..20_100).all(|n| appended.get(n).expect("get") == Some(&bytes(n, 100)[..])));
    }
}

/// The text of an error of kind `Usage`.
fn refusal<T>(result: mapleaf::Result<T>) -> String {
    let e = result.map(drop).expect_err("refused");
    assert_eq!(e.kind(), ErrorKind::Usage, "{e}");
    e.to_string()
}

#[test]
fn values_and_reserved_places_stay_when_the_file_outgrows_its_window() {
    for db in TestDb::both(&Options::new().window_size(0)) {
        let mut txn = db.begin_write().expect("begins");
        txn.set_durability(Durability::Eventual);
        let mut numbers = txn.table(NUMBERS).expect("table");
        let value = |n: u64| bytes(n, if n.is_multiple_of(10) { 30_000 } else { 150 });
        (0..50).for_each(|n| assert!(!numbers.put(n, &value(n)).expect("put")));
        let entries = numbers.iter().collect::<mapleaf::Result<Vec<_>>>().expect("entries");
        let mut lazy = numbers.iter();
        lazy.next().expect("there").expect("an entry");
        let mut table = txn.table(BYTES).expect("table");
        let mut place = table.reserve(b"reserved", 100_000).expect("reserve");
        place[..50_000].fill(1);
        let mut other = txn.table(OTHER).expect("table");
        let window = window_id(&db);
        for n in (0..40_000_u64).take_while(|_| window_id(&db) == window) {
            other.put(&bytes(n, 24), &[n as u8; 2000]).expect("put");
        }
        assert_ne!(window_id(&db), window, "the file has outgrown its window");
        assert!(entries.iter().zip(0..50).all(|(&(n, found), wanted)| n == wanted && found == value(n)));
        assert!(lazy
            .map(|entry| entry.expect("entry"))
            .zip(1..50)
            .all(|((n, found), wanted)| n == wanted && found == value(n)));
        assert!(place[..50_000].iter().all(|&byte| byte == 1) && place[50_000..].iter().all(|&byte| byte == 0));
        place[50_000..].fill(2);
        assert!(!place.finish().expect("finish"));
        let stored = table.get(b"reserved").expect("get").expect("there");
        assert!(stored[..50_000].iter().all(|&byte| byte == 1) && stored[50_000..].iter().all(|&byte| byte == 2));
        drop((numbers, table, other));
        txn.commit().expect("committed");
        db.assert_clean();
    }
}

/// The other table changes in every way, and the file grows.
#[test]
fn values_of_one_table_stay_while_another_changes_in_every_way() {
    for db in TestDb::both(&Options::new().window_size(0)) {
        let mut rng = Rng::new(seed("values_of_one_table_stay"));
        let old: BTreeMap<Vec<u8>, Vec<u8>> = (0..2000).map(|n| (bytes(n, 24), bytes(n, n as usize % 300))).collect();
        db.write(|txn| txn.table(BYTES)?.put_all(old.iter().map(|(key, value)| (&key[..], &value[..]))).map(drop))
            .expect("committed");
        let txn = db.begin_write().expect("begins");
        let mut table = txn.table(BYTES).expect("table");
        let mut model = old.clone();
        for n in 0..300 {
            let (key, value) = (bytes(n * 7, 24), bytes(n, [10, 900, 5000, 70_000][n as usize % 4]));
            table.put(&key, &value).expect("put");
            model.insert(key, value);
        }
        let entries = table.iter().collect::<mapleaf::Result<Vec<_>>>().expect("entries");
        let mut lazy = table.iter();
        let mut other = txn.table(OTHER).expect("table");
        for n in 0..3000_u64 {
            match rng.below(6) {
                0 => drop(other.put(&bytes(n, 24), &bytes(n, rng.below(9000) as usize)).expect("put")),
                1 => drop(other.delete(&bytes(rng.below(n + 1), 24)).expect("delete")),
                2 => drop(other.insert(&n.to_be_bytes(), &bytes(n, 150)).expect("insert")),
                3 => {
                    let last = other.last().expect("last").map(|(key, _)| key.to_vec()).unwrap_or_default();
                    if last.len() < 900 {
                        other.append(&[&last[..], b"\xff"].concat(), b"appended").expect("append");
                    }
                }
                4 => drop(other.insert_reader(b"reader", 20_000, io::repeat(n as u8)).expect("insert")),
                _ => {
                    let mut place = other.reserve(&bytes(n, 8), 6000).expect("reserve");
                    place.fill(n as u8);
                    // Half of the reserved places are given back.
                    if n % 2 == 0 {
                        place.finish().expect("finish");
                    }
                }
            }
            if n % 2 == 0 {
                lazy.next().transpose().expect("entry");
            }
        }
        other
            .load((0..30_000_u64).map(|n| bytes(n, 20)).collect::<Vec<_>>().iter().map(|key| (&key[..], &key[..])))
            .expect("load");
        other.remove_range(&b"\x40"[..]..&b"\x80"[..]).expect("remove");
        let wanted: Vec<(&[u8], &[u8])> = model.iter().map(|(key, value)| (&key[..], &value[..])).collect();
        assert!(entries == wanted, "what was borrowed before");
        assert!(lazy.map(|entry| entry.expect("entry")).eq(wanted[1500..].iter().copied()), "what is read now");
        drop((table, other));
        txn.commit().expect("committed");
        db.assert_clean();
    }
}

/// Appends fill a page in a buffer whose memory is used again.
#[test]
fn values_of_appended_entries_stay_while_another_table_appends() {
    let db = TestDb::file(Options::new());
    let txn = db.begin_write().expect("begins");
    let mut numbers = txn.table(NUMBERS).expect("table");
    let mut others = txn.table(Table::<u64, &[u8]>::new("others")).expect("table");
    let value = |n: u64| bytes(n, 150);
    // So many pages in a row that the buffer is in use, and the last entry in the buffer.
    let count = 5000;
    (0..count).for_each(|n| numbers.append(n, &value(n)).expect("append"));
    let last = numbers.last().expect("last").expect("there");
    let got = numbers.multi_get([count - 1, count - 2]).expect("multi_get");
    let entries = numbers.range(count - 60..).expect("range").collect::<mapleaf::Result<Vec<_>>>().expect("entries");
    for n in 0..count {
        others.append(n, &[0; 150]).expect("append");
        // Reading the entry that was appended last, too.
        assert_eq!(others.get(n).expect("get"), Some(&[0; 150][..]));
    }
    assert_eq!(last, (count - 1, &value(count - 1)[..]));
    assert_eq!(got, [Some(&value(count - 1)[..]), Some(&value(count - 2)[..])]);
    assert!(entries.iter().zip(count - 60..).all(|(&(n, found), wanted)| n == wanted && found == value(n)));
    (count..2 * count).for_each(|n| numbers.append(n, &value(n)).expect("append"));
    drop((numbers, others));
    txn.commit().expect("committed");
    let numbers = db.begin_read().expect("begins").table(NUMBERS).expect("table");
    assert!(numbers
        .iter()
        .map(|entry| entry.expect("entry"))
        .zip(0..)
        .all(|((n, found), wanted)| n == wanted && found == value(n)));
    assert_eq!(numbers.len(), 2 * count);
    db.assert_clean();
}

#[test]
fn a_table_that_is_open_is_not_opened_a_second_time() {
    let db = TestDb::memory(Options::new());
    let mut txn = db.begin_write().expect("begins");
    let mut first = txn.table(BYTES).expect("table");
    first.insert(b"k", b"v").expect("insert");
    for text in [
        refusal(txn.table(BYTES)),
        refusal(txn.table(&BYTES)),
        refusal(txn.bytes_table("bytes")),
        refusal(txn.create_table("bytes", "bytes", "bytes")),
        refusal(txn.read_table(BYTES)),
        refusal(txn.read_bytes_table("bytes")),
    ] {
        assert!(text.contains("table 'bytes' is open for writing in this transaction"), "{text}");
    }
    assert_eq!(first.get(b"k").expect("get"), Some(&b"v"[..]), "a refusal changes nothing");
    first.insert(b"k", b"w").expect("insert");
    drop(first);
    let readers = [txn.read_table(BYTES).expect("table"), txn.read_bytes_table("bytes").expect("table")];
    for text in [refusal(txn.table(BYTES)), refusal(txn.bytes_table("bytes"))] {
        assert!(text.contains("table 'bytes' is open for reading in this transaction"), "{text}");
    }
    assert!(readers.iter().all(|reader| reader.get(b"k").expect("get") == Some(b"w")));
    drop(readers);
    txn.table(BYTES).expect("open again").insert(b"l", b"x").expect("insert");
    // A handle that is not used any more does not keep the transaction.
    let unused = txn.read_table(BYTES).expect("table");
    assert_eq!(unused.len(), 2);
    txn.rename_table("bytes", "renamed").expect("renamed");
    assert_eq!(txn.read_bytes_table("renamed").expect("table").len(), 2);
    let unused = txn.bytes_table("renamed").expect("table");
    assert_eq!(unused.len(), 2);
    txn.commit().expect("committed");
}

#[test]
fn reading_a_table_does_not_make_it_and_sees_the_changes_of_the_transaction() {
    let db = TestDb::memory(Options::new());
    let txn = db.begin_write().expect("begins");
    let absent = txn.read_table(BYTES).expect("reads as empty");
    assert!(absent.is_empty() && absent.iter().next().is_none() && absent.first().expect("first").is_none());
    assert_eq!(absent.get(b"k").expect("get"), None);
    assert!(refusal(txn.table(BYTES)).contains("table 'bytes' is open for reading"));
    assert_eq!((txn.tables().expect("tables").len(), txn.table_info("bytes").expect("info")), (0, None));
    drop(absent);
    assert_eq!(txn.txn_id(), 2, "the first that changes something");
    txn.table(BYTES).expect("made").insert(b"k", b"v").expect("insert");
    assert_eq!(txn.read_table(BYTES).expect("table").get(b"k").expect("get"), Some(&b"v"[..]));
    let text = refusal(txn.read_table(Table::<&str, u64>::new("bytes")));
    assert!(text.contains("<bytes, bytes>") && text.contains("<str, u64>"), "{text}");
    assert_eq!(txn.read_table(Table::<u8, u8>::named("")).expect_err("no name").kind(), ErrorKind::Usage);
    drop(txn);
    let txn = db.begin_write().expect("begins");
    assert!(txn.read_table(BYTES).expect("table").is_empty());
    txn.commit().expect("committed");
    assert_eq!(db.begin_write().expect("begins").txn_id(), 2, "a transaction that only reads makes no state");
}

/// A `Read` that reads from another table of the transaction.
struct Values<'a, I> {
    entries: I,
    rest: &'a [u8],
}

impl<'a, I: Iterator<Item = mapleaf::Result<(u64, &'a [u8])>>> Read for Values<'a, I> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.rest.is_empty() {
            self.rest = self.entries.next().transpose()?.map(|(_, value)| value).unwrap_or_default();
        }
        self.rest.read(into)
    }
}

#[test]
fn other_tables_work_while_a_value_or_a_load_is_unfinished() {
    let db = TestDb::file(Options::new().window_size(0));
    let txn = db.begin_write().expect("begins");
    let mut numbers = txn.table(NUMBERS).expect("table");
    let mut other = txn.table(OTHER).expect("table");
    let value = |n: u64| bytes(n, 1000 + n as usize % 5000);
    let all: Vec<u8> = (0..200).flat_map(value).collect();
    for n in 0..200 {
        numbers.put(n, &value(n)).expect("put");
    }
    // A reserved place is filled from a table that changes meanwhile.
    let mut place = other.reserve(b"reserved", all.len()).expect("reserve");
    let mut filled = 0;
    for n in 0..200 {
        let from = numbers.get(n).expect("get").expect("there").to_vec();
        place[filled..filled + from.len()].copy_from_slice(&from);
        filled += from.len();
        numbers.put(1000 + n, &vec![7; 30_000]).expect("put");
    }
    assert!(!place.finish().expect("finish"));
    assert!(other.get(b"reserved").expect("get") == Some(&all[..]));
    // A reader that reads a table.
    let from = Values { entries: numbers.range(..200).expect("range"), rest: &[] };
    other.insert_reader(b"read", all.len() as u64, from).expect("insert");
    assert!(other.get(b"read").expect("get") == Some(&all[..]));
    // Two loads, in order and out of order, and puts into a third table.
    drop((numbers, other));
    let mut tables = ["up", "down", "put"].map(|name| txn.table(Table::<u64, &[u8]>::named(name)).expect("table"));
    let [up, down, put] = &mut tables;
    let mut ascending = up.loader().expect("loader");
    let mut descending = down.loader().expect("loader").memory(100_000);
    let count = 20_000;
    for n in 0..count {
        ascending.push(n, &bytes(n, 100)).expect("push");
        descending.push(count - n, &bytes(n, 100)).expect("push");
        put.put(n * 7919 % count, &bytes(n, 100)).expect("put");
        if n % 1000 == 0 {
            let mut place = put.reserve(count + n, 50_000).expect("reserve");
            place.fill(n as u8);
            place.finish().expect("finish");
        }
    }
    assert_eq!(ascending.finish().expect("finish"), count);
    put.append(1 << 40, b"after the first load").expect("append");
    assert_eq!(descending.finish().expect("finish"), count);
    assert_eq!(tables.each_ref().map(|table| table.len()), [count, count, count + 21]);
    drop(tables);
    txn.commit().expect("committed");
    db.assert_clean();
    let read = db.begin_read().expect("begins");
    let values = |name: &str| {
        let table = read.table(Table::<u64, &[u8]>::named(name)).expect("table");
        table
            .iter()
            .take(count as usize)
            .map(|entry| entry.map(|(n, value)| (n, value.to_vec())).expect("entry"))
            .collect::<Vec<_>>()
    };
    assert!(values("up").into_iter().eq((0..count).map(|n| (n, bytes(n, 100)))));
    assert!(values("down").into_iter().eq((1..=count).map(|n| (n, bytes(count - n, 100)))));
    let put: BTreeMap<u64, Vec<u8>> = (0..count).map(|n| (n * 7919 % count, bytes(n, 100))).collect();
    assert!(values("put").into_iter().eq(put));
}

#[test]
fn what_stays_unfinished_in_one_table_keeps_the_transaction_from_being_committed() {
    let db = TestDb::memory(Options::new());
    for kind in 0..3 {
        let mut txn = db.begin_write().expect("begins");
        let mut table = txn.table(BYTES).expect("table");
        let mut other = txn.table(OTHER).expect("table");
        match kind {
            0 => std::mem::forget(table.loader().expect("a loader")),
            1 => std::mem::forget(table.reserve(b"k", 50_000).expect("reserved")),
            // A loader that is dropped may have left a part of its entries in the tree.
            _ => drop(table.loader().expect("a loader")),
        }
        let text = refusal(table.insert(b"k", b"v"));
        assert!(text.contains("not finished"), "{text}");
        assert_eq!(other.insert(b"k", b"v").is_ok(), kind < 2, "other tables, {kind}");
        assert!(refusal(txn.rename_table("other", "new")).contains("not finished"));
        assert!(refusal(txn.drop_table("bytes")).contains("not finished"));
        assert!(refusal(txn.commit()).contains("not finished"));
    }
    assert!(db.begin_read().expect("begins").tables().expect("tables").is_empty());
    db.assert_clean();
}

#[test]
fn an_error_inside_one_table_ends_the_whole_transaction() {
    let db = TestDb::memory(Options::new());
    db.write(|txn| txn.table(OTHER)?.insert(b"k", b"v").map(drop)).expect("committed");
    let txn = db.begin_write().expect("begins");
    let (mut table, mut other) = (txn.table(BYTES).expect("table"), txn.table(OTHER).expect("table"));
    assert_eq!(table.insert(&[1; 70_000], b"v").expect_err("too long").kind(), ErrorKind::TooLarge);
    other.insert(b"l", b"w").expect("a refused key changes nothing");
    let borrowed = other.get(b"k").expect("get");
    let mut loader = table.loader().expect("a loader");
    loader.push(b"k", b"v").expect("push");
    drop(loader);
    assert_eq!(borrowed, Some(&b"v"[..]));
    assert!(refusal(other.insert(b"m", b"x")).contains("cannot go on after an earlier error"));
    assert!(refusal(txn.table(NUMBERS)).contains("cannot go on after an earlier error"));
    assert_eq!(other.get(b"l").expect("reads go on"), Some(&b"w"[..]));
    assert!(refusal(txn.commit()).contains("cannot go on after an earlier error"));
    assert_eq!(db.begin_read().expect("begins").table(OTHER).expect("table").len(), 1);
}

/// What one function reads of any handle.
fn seen(items: &impl ReadableTable<(&'static str, u64), u64>) -> mapleaf::Result<(u64, Vec<String>)> {
    assert_eq!((items.name(), items.is_empty()), ("items", false));
    assert!(items.contains_key(("bob", 1))? && !items.contains_key(("bob", 9))?);
    assert_eq!(items.get(("eve", 2))?, Some(32));
    assert_eq!(items.multi_get([("eve", 2), ("zoe", 1)])?, [Some(32), None]);
    assert_eq!((items.first()?, items.last()?), (Some((("ann", 0), 0)), Some((("eve", 2), 32))));
    let text = |entries: Vec<((String, u64), u64)>| {
        entries.iter().map(|((name, n), _)| format!("{name}{n}")).collect::<Vec<_>>().join(" ")
    };
    let texts = [
        text(items.range_owned(("ann", 2)..("bob", 1))?.collect::<mapleaf::Result<_>>()?),
        text(items.range_owned(("ann", 2)..)?.rev().collect::<mapleaf::Result<_>>()?),
        text(items.prefix_owned("bob")?.collect::<mapleaf::Result<_>>()?),
        text(items.prefix_owned("bob")?.rev().collect::<mapleaf::Result<_>>()?),
        text(
            items
                .prefix_range_owned((Bound::Excluded("ann"), Bound::Included("bob")))?
                .collect::<mapleaf::Result<_>>()?,
        ),
        text(
            items
                .prefix_range_owned((Bound::Excluded("bob"), Bound::Unbounded))?
                .rev()
                .collect::<mapleaf::Result<_>>()?,
        ),
        items
            .prefix("ann")?
            .chain(items.range(("eve", 1)..)?)
            .map(|entry| Ok(entry?.1.to_string()))
            .collect::<mapleaf::Result<Vec<_>>>()?
            .join(" "),
    ];
    assert_eq!(items.prefix_range("a"..="bob")?.count(), 6);
    Ok((items.iter().map(|entry| entry.map(|(_, value)| value)).sum::<mapleaf::Result<u64>>()?, texts.to_vec()))
}

#[test]
fn one_function_reads_every_kind_of_handle() {
    let db = TestDb::memory(Options::new());
    let txn = db.begin_write().expect("begins");
    let mut items = txn.table(ITEMS).expect("table");
    for (number, name) in ["ann", "bob", "eve"].into_iter().enumerate() {
        (0..3).for_each(|n| assert_eq!(items.insert((name, n), number as u64 * 15 + n).expect("insert"), None));
    }
    let wanted = [
        "ann2 bob0",
        "eve2 eve1 eve0 bob2 bob1 bob0 ann2",
        "bob0 bob1 bob2",
        "bob2 bob1 bob0",
        "bob0 bob1 bob2",
        "eve2 eve1 eve0",
        "0 1 2 31 32",
    ];
    let expected = (144, wanted.map(String::from).to_vec());
    assert_eq!(seen(&items).expect("read"), expected);
    drop(items);
    assert_eq!(seen(&txn.read_table(&ITEMS).expect("table")).expect("read"), expected);
    txn.commit().expect("committed");
    let read = db.begin_read().expect("begins").table(&ITEMS).expect("table");
    assert_eq!(seen(&read).expect("read"), expected);
    // The owned forms of a read transaction outlive the handle.
    let (prefix, range) = (read.prefix_owned("eve").expect("prefix"), read.prefix_range_owned(.."bob").expect("range"));
    drop(read);
    assert_eq!(prefix.rev().map(|entry| entry.expect("entry").1).collect::<Vec<_>>(), [32, 31, 30]);
    assert_eq!(range.map(|entry| entry.expect("entry").1).collect::<Vec<_>>(), [0, 1, 2]);
}

#[test]
fn ranges_of_prefixes_select_what_a_filter_selects() {
    const TEXT: Table<&[u8], ()> = Table::new("text");
    let db = TestDb::memory(Options::new());
    let mut rng = Rng::new(seed("ranges_of_prefixes"));
    let nasty = [0, 1, 0x7F, 0xFE, 0xFF];
    let mut any = |len: u64| (0..rng.below(len)).map(|_| nasty[rng.below(5) as usize]).collect::<Vec<u8>>();
    let keys: std::collections::BTreeSet<Vec<u8>> = (0..600).map(|_| any(6)).collect();
    db.write(|txn| txn.table(TEXT)?.put_all(keys.iter().map(|key| (&key[..], ()))).map(drop)).expect("committed");
    let text = db.begin_read().expect("begins").table(TEXT).expect("table");
    for _ in 0..600 {
        let (low, high) = (any(4), any(4));
        for kind in 0..9 {
            let bound = |kind, key| [Bound::Unbounded, Bound::Included(key), Bound::Excluded(key)][kind];
            let range = (bound(kind % 3, &low[..]), bound(kind / 3, &high[..]));
            let is_in = |key: &&Vec<u8>| {
                let above = match range.0 {
                    Bound::Unbounded => true,
                    Bound::Included(low) => &key[..] >= low,
                    Bound::Excluded(low) => &key[..] > low && !key.starts_with(low),
                };
                above
                    && match range.1 {
                        Bound::Unbounded => true,
                        Bound::Included(high) => &key[..] <= high || key.starts_with(high),
                        Bound::Excluded(high) => &key[..] < high,
                    }
            };
            let wanted: Vec<&[u8]> = keys.iter().filter(is_in).map(|key| &key[..]).collect();
            let found: Vec<&[u8]> =
                text.prefix_range(range).expect("range").map(|entry| entry.expect("entry").0).collect();
            assert_eq!(found, wanted, "{range:?}");
        }
    }
}

#[test]
fn errors_become_io_errors_of_the_fitting_kind_and_come_back() {
    let db = TestDb::file(Options::new());
    let path = db.path();
    let kind_of = |e: Error| {
        let (text, e) = (e.to_string(), io::Error::from(e));
        assert_eq!(e.to_string(), text);
        let kind = e.kind();
        assert_eq!(e.downcast::<Error>().expect("it comes back").to_string(), text);
        kind
    };
    assert_eq!(kind_of(Db::open_existing(path.with_extension("none")).expect_err("no file")), io::ErrorKind::NotFound);
    std::fs::write(path.with_extension("text"), "no database, but text that is long enough to be read")
        .expect("written");
    assert_eq!(kind_of(Db::open(path.with_extension("text")).expect_err("text")), io::ErrorKind::InvalidData);
    let txn = db.begin_write().expect("begins");
    let mut table = txn.table(BYTES).expect("table");
    assert_eq!(kind_of(table.insert(&[0; 70_000], b"").expect_err("too long")), io::ErrorKind::InvalidInput);
    let broken = io::Error::from(io::ErrorKind::ConnectionReset);
    struct Fails(Option<io::Error>);
    impl Read for Fails {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(self.0.take().unwrap_or_else(|| io::ErrorKind::Other.into()))
        }
    }
    let e = table.insert_reader(b"k", 100_000, Fails(Some(broken))).expect_err("the reader fails");
    assert_eq!(kind_of(e), io::ErrorKind::ConnectionReset);
    table.insert(b"k", b"v").expect("the transaction goes on");
}

/// A codec whose name has that of its argument.
struct Pair<T>(std::marker::PhantomData<T>);

impl<T: for<'a> Codec<Item<'a> = u8> + 'static> Codec for Pair<T> {
    type Item<'a> = [u8; 2];
    type Owned = [u8; 2];

    fn name() -> String {
        format!("test.pair<{}>", T::name())
    }

    fn encode<'a>(item: &'a [u8; 2]) -> mapleaf::Result<Encoded<'a>> {
        let mut out = Encoded::new();
        item.iter().try_for_each(|part| T::encode(part).map(|bytes| out.push(&bytes)))?;
        Ok(out)
    }

    fn decode(bytes: &[u8]) -> Result<[u8; 2], CodecError> {
        bytes.try_into().map_err(|_| CodecError::new("a pair has two bytes"))
    }

    fn to_owned(item: [u8; 2]) -> [u8; 2] {
        item
    }
}

#[test]
fn the_name_of_a_codec_can_have_that_of_its_argument() {
    let db = TestDb::memory(Options::new());
    let txn = db.begin_write().expect("begins");
    txn.table(Table::<u8, Pair<u8>>::new("pairs")).expect("table").insert(1, [2, 3]).expect("insert");
    assert_eq!(txn.table_info("pairs").expect("info").expect("there").value_codec, "test.pair<u8>");
    let text =
        refusal(txn.read_table(Table::<u8, Pair<u8>>::new("pairs")).and(txn.table(Table::<u8, u8>::new("pairs"))));
    assert!(text.contains("<u8, test.pair<u8>>") && text.contains("<u8, u8>"), "{text}");
}
