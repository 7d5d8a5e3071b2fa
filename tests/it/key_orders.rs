//! Tables whose keys are in descending order, or in that of a registered comparison.

use std::cmp::Ordering;
use std::ops::Bound;
use std::path::Path;

use mapleaf::{Db, Error, ErrorKind, KeyOrder, Options, Result, Table};

type Entries = Vec<(Vec<u8>, Vec<u8>)>;
type Bytes = Table<&'static [u8], &'static [u8]>;
type Compare = fn(&[u8], &[u8]) -> Ordering;

/// By length, then by bytes.
fn by_length(a: &[u8], b: &[u8]) -> Ordering {
    a.len().cmp(&b.len()).then_with(|| a.cmp(b))
}

fn descending(a: &[u8], b: &[u8]) -> Ordering {
    b.cmp(a)
}

fn options() -> Options {
    Options::new().key_order("by length", by_length)
}

/// A table in each order, with its comparison.
fn tables() -> [(Bytes, Compare); 2] {
    let table = Table::new("t");
    [(table.clone().descending(), descending as Compare), (table.ordered_by("by length"), by_length)]
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }

    fn key(&mut self) -> Vec<u8> {
        let bytes = match self.below(40) {
            0 => 0,
            1 => self.below(900),
            _ => 1 + self.below(9),
        };
        (0..bytes).map(|_| [0, 1, b'a', b'b', 255][self.below(5) as usize]).collect()
    }

    fn value(&mut self) -> Vec<u8> {
        let bytes = match self.below(30) {
            0 => 5000,
            _ => self.below(60),
        };
        vec![self.below(256) as u8; bytes as usize]
    }
}

fn copied<'a>(entry: Result<(&'a [u8], &'a [u8])>) -> (Vec<u8>, Vec<u8>) {
    let (key, value) = entry.expect("a sound table");
    (key.to_vec(), value.to_vec())
}

fn place(model: &Entries, compare: Compare, key: &[u8]) -> std::result::Result<usize, usize> {
    model.binary_search_by(|(at, _)| compare(at, key))
}

/// The part of the model between two bounds.
fn part(model: &Entries, compare: Compare, low: Bound<&[u8]>, high: Bound<&[u8]>) -> Entries {
    let after_low = |key: &[u8]| match low {
        Bound::Unbounded => true,
        Bound::Included(low) => compare(low, key).is_le(),
        Bound::Excluded(low) => compare(low, key).is_lt(),
    };
    let before_high = |key: &[u8]| match high {
        Bound::Unbounded => true,
        Bound::Included(high) => compare(key, high).is_le(),
        Bound::Excluded(high) => compare(key, high).is_lt(),
    };
    model.iter().filter(|(key, _)| after_low(key) && before_high(key)).cloned().collect()
}

fn bounds<'k>(random: &mut Random, low: &'k [u8], high: &'k [u8]) -> (Bound<&'k [u8]>, Bound<&'k [u8]>) {
    let mut bound = |key| match random.below(3) {
        0 => Bound::Unbounded,
        1 => Bound::Included(key),
        _ => Bound::Excluded(key),
    };
    (bound(low), bound(high))
}

/// Everything that a reader can see agrees with the model.
fn check_reads(db: &Db, table: &Bytes, compare: Compare, model: &Entries, random: &mut Random) {
    let txn = db.begin_read().unwrap();
    let read = txn.table(table).unwrap();
    assert_eq!(read.len(), model.len() as u64);
    assert_eq!(read.iter().map(copied).collect::<Entries>(), *model);
    let mut reversed: Entries = read.iter().rev().map(copied).collect();
    reversed.reverse();
    assert_eq!(reversed, *model);
    assert_eq!(read.first().unwrap().map(|entry| copied(Ok(entry))), model.first().cloned());
    assert_eq!(read.last().unwrap().map(|entry| copied(Ok(entry))), model.last().cloned());
    for _ in 0..40 {
        let (a, b) = (random.key(), random.key());
        let (low, high) = bounds(random, &a, &b);
        let expected = part(model, compare, low, high);
        assert_eq!(read.range((low, high)).unwrap().map(copied).collect::<Entries>(), expected, "{low:?} {high:?}");
        let estimate = read.estimate_range((low, high)).unwrap();
        let count = expected.len() as u64;
        assert!(estimate.at_least <= count && count <= estimate.at_most, "{estimate:?} of {count}");
    }
    let keys: Vec<Vec<u8>> = model.iter().step_by(7).map(|(key, _)| key.clone()).chain([random.key()]).collect();
    let found = read.multi_get(keys.iter().map(Vec::as_slice)).unwrap();
    for (key, found) in keys.iter().zip(found) {
        let expected = place(model, compare, key).ok().map(|at| model[at].1.as_slice());
        assert_eq!((found, read.get(key).unwrap()), (expected, expected));
    }
    let points = read.split_points(5).unwrap();
    let parts: Entries = points.parts().flat_map(|part| read.part(&part).map(copied).collect::<Entries>()).collect();
    assert_eq!(parts, *model);
    let sample = read.sample_seeded(20, 7).unwrap();
    assert_eq!(sample.len(), model.len().min(20));
    assert!(sample.iter().all(|(key, value)| place(model, compare, key).is_ok_and(|at| model[at].1 == *value)));
    let report = db.check().unwrap();
    assert!(report.is_clean() && report.remarks.is_empty(), "{report:?}");
}

fn change(db: &Db, table: &Bytes, compare: Compare, model: &mut Entries, random: &mut Random, seen: &mut [u32; 12]) {
    let txn = db.begin_write().unwrap();
    let mut write = txn.table(table).unwrap();
    for _ in 0..1 + random.below(40) {
        let kind = random.below(12) as usize;
        seen[kind] += 1;
        match kind {
            0..=3 => {
                let (key, value) = (random.key(), random.value());
                let old = write.insert(&key, &value).unwrap();
                match place(model, compare, &key) {
                    Ok(at) => assert_eq!(old.as_ref(), Some(&std::mem::replace(&mut model[at].1, value))),
                    Err(at) => model.insert(at, (key, value)),
                }
            }
            4 => {
                let key = random.key();
                let old = write.remove(&key).unwrap();
                assert_eq!(old, place(model, compare, &key).ok().map(|at| model.remove(at).1));
            }
            5 => {
                let (a, b) = (random.key(), random.key());
                let (low, high) = bounds(random, &a, &b);
                let gone = part(model, compare, low, high);
                if gone.len() * 2 < model.len() {
                    assert_eq!(write.remove_range((low, high)).unwrap(), gone.len() as u64);
                    model.retain(|entry| !gone.contains(entry));
                }
            }
            6 => {
                let (a, b) = (random.key(), random.key());
                let (low, high) = bounds(random, &a, &b);
                let inside = part(model, compare, low, high);
                let keep = |value: &[u8]| !value.len().is_multiple_of(4);
                write.retain_in((low, high), |_, value| keep(value)).unwrap();
                model.retain(|entry| keep(&entry.1) || !inside.contains(entry));
            }
            7 => {
                let popped = write.pop_first().unwrap();
                assert_eq!(popped, (!model.is_empty()).then(|| model.remove(0)));
                assert_eq!(write.pop_last().unwrap(), model.pop());
            }
            8 => {
                // After the last key in both orders: the longest of zeros, or the empty one.
                let key = if compare(b"", b"a").is_lt() { vec![255; 950] } else { Vec::new() };
                let is_last = model.last().is_none_or(|(last, _)| compare(last, &key).is_lt());
                assert_eq!(write.append(&key, b"last").is_ok(), is_last);
                if is_last {
                    model.push((key, b"last".to_vec()));
                }
            }
            9 => {
                let mut new: Entries = (0..30).map(|_| (random.key(), random.value())).collect();
                if random.below(2) == 0 {
                    new.sort_by(|a, b| compare(&a.0, &b.0));
                }
                write.load(new.iter().map(|(key, value)| (key.as_slice(), value.as_slice()))).unwrap();
                for (key, value) in new {
                    match place(model, compare, &key) {
                        Ok(at) => model[at].1 = value,
                        Err(at) => model.insert(at, (key, value)),
                    }
                }
            }
            10 => {
                let new: Entries = (0..30).map(|_| (random.key(), random.value())).collect();
                write.put_all(new.iter().map(|(key, value)| (key.as_slice(), value.as_slice()))).unwrap();
                for (key, value) in new {
                    match place(model, compare, &key) {
                        Ok(at) => model[at].1 = value,
                        Err(at) => model.insert(at, (key, value)),
                    }
                }
            }
            _ => {
                assert_eq!(write.iter().map(copied).collect::<Entries>(), *model);
            }
        }
    }
    drop(write);
    txn.commit().unwrap();
}

#[test]
fn all_operations_agree_with_a_sorted_list_in_both_orders_and_after_a_reopening() {
    for (table, compare) in tables() {
        for page_size in [4096, 16384] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("a.mapleaf");
            let mut db = options().page_size(page_size).open(&path).unwrap();
            let (mut model, mut random, mut seen) = (Entries::new(), Random(u64::from(page_size)), [0; 12]);
            println!("seed {page_size}");
            for round in 0..60 {
                change(&db, &table, compare, &mut model, &mut random, &mut seen);
                if round % 6 == 0 {
                    check_reads(&db, &table, compare, &model, &mut random);
                }
                if round % 20 == 19 {
                    drop(db);
                    db = options().open(&path).unwrap();
                }
            }
            check_reads(&db, &table, compare, &model, &mut random);
            assert!(seen.iter().all(|&count| count > 0) && !model.is_empty(), "{seen:?}");
            let compacted = dir.path().join("b.mapleaf");
            db.compact_to(&compacted).unwrap();
            check_reads(&options().open(&compacted).unwrap(), &table, compare, &model, &mut random);
            db.write(|txn| txn.table(&table)?.clear().map(drop)).unwrap();
            check_reads(&db, &table, compare, &Entries::new(), &mut random);
        }
    }
}

fn filled(path: &Path, count: u64) -> Db {
    let db = options().open(path).unwrap();
    db.write(|txn| {
        for (name, (table, _)) in ["d", "l"].into_iter().zip(tables()) {
            let order = if name == "d" { KeyOrder::Descending } else { KeyOrder::Named("by length".into()) };
            drop(table);
            let mut table = txn.create_table_in_order(name, "", "", &order)?;
            for number in 0..count {
                table.put(&number.to_be_bytes()[..][(number % 5) as usize..], &number.to_le_bytes())?;
            }
        }
        Ok(())
    })
    .unwrap();
    db
}

#[test]
fn a_range_to_warm_lies_in_the_order_of_the_table() {
    for (table, compare) in tables() {
        let db = options().in_memory().unwrap();
        let mut random = Random(7);
        let mut keys: Vec<Vec<u8>> = (0..4000).map(|_| random.key()).collect();
        db.write(|txn| {
            let mut write = txn.table(&table)?;
            keys.iter().try_for_each(|key| write.put(key, &[b'v'; 100]).map(drop))
        })
        .unwrap();
        keys.sort_by(|a, b| compare(a, b));
        let read = db.begin_read().unwrap().table(&table).unwrap();
        let all = read.warm(..).unwrap();
        let [third, half] = [3, 2].map(|part| keys[keys.len() / part].as_slice());
        let parts = [read.warm(..third).unwrap(), read.warm(third..half).unwrap(), read.warm(half..).unwrap()];
        // The branches above, and the leaves in which a part begins, count for each part.
        let counted: u64 = parts.iter().sum();
        assert!(counted >= all && counted < all + all / 4, "{parts:?} of {all}");
        assert!(parts[1] < all / 3 && parts[2] > all / 3, "{parts:?} of {all}");
    }
}

#[test]
fn cursors_step_in_the_order_of_the_table_while_it_changes() {
    for (table, compare) in tables() {
        let db = options().in_memory().unwrap();
        let txn = db.begin_write().unwrap();
        let mut write = txn.table(&table).unwrap();
        let mut random = Random(5);
        let mut keys: Vec<Vec<u8>> = (0..900).map(|_| random.key()).collect();
        for key in &keys {
            write.put(key, b"v").unwrap();
        }
        keys.sort_by(|a, b| compare(a, b));
        keys.dedup();
        let mut cursor = write.cursor();
        let mut seen = Vec::new();
        while let Some((key, _)) = cursor.next().unwrap() {
            let key = key.to_vec();
            if seen.len() % 3 == 1 {
                cursor.remove().unwrap();
            }
            seen.push(key);
        }
        drop(cursor);
        assert_eq!(seen, keys);
        let left: Vec<Vec<u8>> =
            keys.iter().enumerate().filter(|(at, _)| at % 3 != 1).map(|(_, k)| k.clone()).collect();
        assert_eq!(write.iter().map(|entry| copied(entry).0).collect::<Vec<_>>(), left);
    }
}

#[test]
fn prefixes_are_neighbours_in_descending_order_and_refused_in_an_order_of_its_own() {
    let db = options().in_memory().unwrap();
    const NAMES: Table<(&str, u64), u64> = Table::new("names").descending();
    const OWN: Table<&str, u64> = Table::new("own").ordered_by("by length");
    db.write(|txn| {
        let mut names = txn.table(NAMES)?;
        for name in ["ann", "bob", "eve"] {
            names.put_all((0..3).map(|number| ((name, number), number)))?;
        }
        txn.table(OWN)?.put("a", 1)
    })
    .unwrap();
    let txn = db.begin_read().unwrap();
    let names = txn.table(NAMES).unwrap();
    let of = |range: mapleaf::Range<'_, (&str, u64), u64>| {
        range
            .map(|entry| entry.map(|((name, number), _)| format!("{name}{number}")))
            .collect::<Result<Vec<_>>>()
            .unwrap()
    };
    assert_eq!(of(names.prefix("bob").unwrap()), ["bob2", "bob1", "bob0"]);
    assert_eq!(of(names.starting_with(("eve",)).unwrap()), ["eve2", "eve1", "eve0"]);
    assert_eq!(of(names.prefix_range("bob"..).unwrap()), ["bob2", "bob1", "bob0", "ann2", "ann1", "ann0"]);
    assert_eq!(of(names.prefix_range(.."bob").unwrap()), ["eve2", "eve1", "eve0"]);
    let own = txn.table(OWN).unwrap();
    assert_eq!(own.prefix("a").err().map(|e| e.kind()), Some(ErrorKind::Usage));
}

#[test]
fn a_table_opens_only_in_its_own_order_and_errors_name_table_orders_and_remedy() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.mapleaf");
    drop(filled(&path, 10));
    let db = options().open(&path).unwrap();
    let text = |e: Error| {
        assert_eq!(e.kind(), ErrorKind::Usage, "{e}");
        e.to_string()
    };
    let plain: Bytes = Table::new("d");
    for refused in [
        db.begin_read().unwrap().table(&plain).err(),
        db.begin_read().unwrap().table(plain.clone().ordered_by("by length")).err(),
        db.write(|txn| txn.table(&plain).map(drop)).err(),
        db.write(|txn| txn.read_table(&plain).map(drop)).err(),
        db.begin_read().unwrap().try_get_resident(&plain, b"k").err(),
    ] {
        let text = text(refused.expect("refused"));
        assert!(text.contains("table 'd'") && text.contains("descending order"), "{text}");
        assert!(text.contains("bytewise") || text.contains("'by length'"), "{text}");
        assert!(text.contains("open it as what it is"), "{text}");
    }
    let unknown: Bytes = Table::new("new").ordered_by("unknown");
    let text_of_new = text(db.write(|txn| txn.table(&unknown).map(drop)).expect_err("refused"));
    assert!(text_of_new.contains("'unknown'") && text_of_new.contains("Options::key_order"), "{text_of_new}");
    let long = db.write(|txn| txn.table(plain.clone().descending())?.put(&[7; 2000], b"v")).unwrap_err();
    assert_eq!(long.kind(), ErrorKind::TooLarge);
    assert!(long.to_string().contains("1000") && long.to_string().contains("not in bytewise order"), "{long}");
    assert_eq!(db.begin_read().unwrap().tables().unwrap().len(), 2, "nothing was made");
    let info = db.begin_read().unwrap().table_info("l").unwrap().unwrap();
    assert_eq!(info.key_order, KeyOrder::Named("by length".into()));
    drop(db);

    let db = Db::open(&path).unwrap();
    assert_eq!(db.begin_read().unwrap().bytes_table("d").unwrap().len(), 10);
    let own: Bytes = Table::new("l").ordered_by("by length");
    for refused in [
        db.begin_read().unwrap().table(&own).err(),
        db.begin_read().unwrap().bytes_table("l").err(),
        db.write(|txn| txn.bytes_table("l").map(drop)).err(),
        db.compact_to(dir.path().join("b.mapleaf")).err(),
    ] {
        let text = text(refused.expect("refused"));
        assert!(text.contains("table 'l'") && text.contains("Options::key_order(\"by length\""), "{text}");
    }
    let report = db.check().unwrap();
    assert!(report.is_clean(), "{report:?}");
    assert!(report.remarks.iter().any(|remark| remark.what.contains("was not checked")), "{report:?}");
    // What compares no keys works.
    db.write(|txn| txn.rename_table("l", "m")).unwrap();
    assert!(db.write(|txn| txn.drop_table("m")).unwrap());
    assert!(db.check().unwrap().is_clean());
}

#[test]
fn salvage_copies_tables_of_all_orders_around_a_damaged_page() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.mapleaf");
    drop(filled(&path, 3000));
    let mut bytes = std::fs::read(&path).unwrap();
    let leaves: Vec<usize> =
        (2..bytes.len() / 4096).filter(|page| bytes[page * 4096 + 4] == 1 && bytes[page * 4096 + 14] == 2).collect();
    bytes[leaves[leaves.len() / 2] * 4096 + 3000] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let out = dir.path().join("b.mapleaf");
    let report = options().salvage(&path, &out, |_, _| std::ops::ControlFlow::Continue(())).unwrap();
    assert!(report.is_loss());
    let db = options().open(&out).unwrap();
    assert!(db.check().unwrap().is_clean());
    let txn = db.begin_read().unwrap();
    let whole = txn.bytes_table("l").unwrap().len();
    let damaged = txn.bytes_table("d").unwrap().len();
    assert!(whole > damaged && damaged > whole * 9 / 10, "{damaged} of {whole}");
    assert_eq!(txn.table_info("d").unwrap().unwrap().key_order, KeyOrder::Descending);
    let without = Db::salvage(&path, dir.path().join("c.mapleaf")).unwrap();
    assert!(without.lost.iter().any(|lost| lost.what.contains("Options::key_order")), "{without:?}");
}

fn contradictory(a: &[u8], b: &[u8]) -> Ordering {
    [Ordering::Less, Ordering::Equal, Ordering::Greater]
        [(a.iter().chain(b).map(|&x| usize::from(x)).sum::<usize>() + a.len()) % 3]
}

fn panicking(a: &[u8], b: &[u8]) -> Ordering {
    assert!(a != b"panic" && b != b"panic", "on purpose");
    a.cmp(b)
}

#[test]
fn a_comparison_that_contradicts_itself_gives_wrong_answers_and_ends() {
    let db = Options::new().key_order("odd", contradictory).in_memory().unwrap();
    let table: Bytes = Table::new("t").ordered_by("odd");
    let plain: Bytes = Table::new("plain");
    let mut random = Random(3);
    let txn = db.begin_write().unwrap();
    txn.table(&plain).unwrap().put(b"a", b"1").unwrap();
    {
        let mut write = txn.table(&table).unwrap();
        for _ in 0..3000 {
            // The result is right or wrong, or an error; it ends.
            let (a, b) = (random.key(), random.key());
            drop((write.put(&a, b"value"), write.get(&b), write.iter().take(20).count()));
            if random.below(50) == 0 {
                drop((write.remove(&b), write.range(a.as_slice()..&b).map(|range| range.take(500).count())));
                drop(write.retain(|_, _| true));
            }
        }
    }
    drop(txn.commit());
    db.write(|txn| txn.drop_table("t").map(drop)).unwrap();
    assert!(db.check().unwrap().is_clean());
}

#[test]
fn a_panic_of_the_comparison_passes_to_the_caller_and_its_transaction_cannot_be_committed() {
    let db = Options::new().key_order("panics", panicking).in_memory().unwrap();
    let table: Bytes = Table::new("t").ordered_by("panics");
    db.write(|txn| txn.table(&table)?.put(b"a", b"1")).unwrap();
    let txn = db.begin_write().unwrap();
    let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let mut table = txn.table(&table).unwrap();
        table.put(b"b", b"2").unwrap();
        table.put(b"panic", b"3")
    }));
    assert!(ran.is_err() && txn.commit().is_err());
    db.write(|txn| txn.table(&table)?.put(b"c", b"3")).unwrap();
    let read = db.begin_read().unwrap().table(&table).unwrap();
    assert_eq!(read.iter().map(|entry| copied(entry).0).collect::<Vec<_>>(), [b"a".to_vec(), b"c".to_vec()]);
    assert!(db.check().unwrap().is_clean());
}

#[test]
fn a_replay_of_the_log_makes_tables_in_their_orders_and_names_a_comparison_that_it_lacks() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.mapleaf");
    let db = options().open(&path).unwrap();
    for (at, (table, compare)) in tables().into_iter().enumerate() {
        db.write(|txn| txn.drop_table("t").map(drop)).unwrap();
        let (mut model, mut random, mut seen) = (Entries::new(), Random(at as u64), [0; 12]);
        for round in 0..12 {
            change(&db, &table, compare, &mut model, &mut random, &mut seen);
            let copy = dir.path().join(format!("copy-{at}-{round}"));
            std::fs::copy(&path, &copy).unwrap();
            check_reads(&options().open(&copy).unwrap(), &table, compare, &model, &mut random);
        }
    }
    let copy = dir.path().join("copy");
    std::fs::copy(&path, &copy).unwrap();
    let text = Db::open(&copy).expect_err("the log has changes of the table").to_string();
    assert!(text.contains("table 't'") && text.contains("Options::key_order(\"by length\""), "{text}");
    check_reads_of(&options().open(&copy).unwrap());
}

/// A refused opening has changed nothing.
fn check_reads_of(db: &Db) {
    assert!(db.check().unwrap().is_clean() && !db.begin_read().unwrap().bytes_table("t").unwrap().is_empty());
}
