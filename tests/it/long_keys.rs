//! Long keys: of more than a quarter page, up to 65,536 bytes, with all page sizes. Most of them
//! share a long beginning, so that only the bytes in overflow extents tell them apart, and
//! separators are long too.

use std::collections::BTreeMap;
use std::ops::Bound;

use mapleaf::testing::{with_mutant, Mutant};
use mapleaf::{Db, ErrorKind, Options, MAX_KEY_BYTES};

use crate::support::{bytes, seed, Rng, TestDb, BYTES};

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

const PAGE_SIZES: [u32; 4] = [4096, 8192, 16384, 32768];

/// A key that differs from others only in its last two bytes.
fn key(len: usize, number: u16) -> Vec<u8> {
    let mut key = vec![b'k'; len];
    key[len - 2..].copy_from_slice(&number.to_be_bytes());
    key
}

/// A key that its first bytes tell apart.
fn early(len: usize, number: u64) -> Vec<u8> {
    let mut key = bytes(number, len);
    key[..8].copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    key
}

fn fill(db: &Db, entries: &Model) {
    db.write(|txn| {
        let mut table = txn.table(BYTES)?;
        // Not in order.
        let (even, odd): (Vec<_>, Vec<_>) = entries.iter().enumerate().partition(|(at, _)| at % 2 == 0);
        odd.into_iter().chain(even).try_for_each(|(_, (key, value))| table.put(key, value).map(drop))
    })
    .expect("stored");
}

fn assert_holds(db: &Db, model: &Model) {
    let table = db.begin_read().and_then(|txn| txn.table(BYTES)).expect("the table");
    assert_eq!(table.len(), model.len() as u64);
    assert!(table.iter().map(|entry| entry.expect("an entry")).eq(model.iter().map(|(k, v)| (&k[..], &v[..]))));
    assert!(table
        .iter()
        .rev()
        .map(|entry| entry.expect("an entry"))
        .eq(model.iter().rev().map(|(k, v)| (&k[..], &v[..]))));
    let keys: Vec<&[u8]> = model.keys().map(Vec::as_slice).collect();
    assert!(table.multi_get(keys).expect("found").into_iter().eq(model.values().map(|value| Some(&value[..]))));
    for (key, value) in model {
        assert!(table.get(key).expect("get") == Some(value), "{} bytes", key.len());
        for other in [&key[..key.len() - 1], &[key.as_slice(), &[0]].concat()] {
            assert!(table.get(other).expect("get") == model.get(other).map(Vec::as_slice), "a neighbour");
            let next = table.range(other..).expect("range").next().map(|entry| entry.expect("an entry").0);
            let after = model.range::<[u8], _>((Bound::Included(other), Bound::Unbounded)).next();
            assert!(next == after.map(|(key, _)| key.as_slice()), "the key after a neighbour");
            let before = table.range(..other).expect("range").next_back().map(|entry| entry.expect("an entry").0);
            let last = model.range::<[u8], _>((Bound::Unbounded, Bound::Excluded(other))).next_back();
            assert!(before == last.map(|(key, _)| key.as_slice()), "the key before a neighbour");
        }
    }
    let report = db.check().expect("checked");
    assert!(report.is_clean(), "{:?}", report.findings);
}

fn of_all_kinds(page_size: u32) -> Model {
    let quarter = page_size as usize / 4 - 24;
    let mut model = Model::new();
    for number in 0..60u16 {
        model.insert(key(60_002, number * 5), bytes(number.into(), 10));
        model.insert(key(quarter + 1, number * 7), bytes(number.into(), 20));
        model.insert(key(quarter, number * 7), bytes(number.into(), quarter));
        model.insert(early(quarter + 500, number.into()), bytes(number.into(), quarter + 1));
        model.insert(early(20, number.into()), Vec::new());
    }
    model.insert(vec![b'k'; MAX_KEY_BYTES], b"the longest".to_vec());
    model.insert(key(page_size as usize - 32, 9), b"fills its page".to_vec());
    model.insert(key(page_size as usize - 31, 9), b"needs another page".to_vec());
    model
}

#[test]
fn long_keys_with_long_common_beginnings_are_found_and_scanned() {
    for page_size in PAGE_SIZES {
        for mut db in TestDb::both(&Options::new().page_size(page_size)) {
            let mut model = of_all_kinds(page_size);
            fill(&db, &model);
            assert_holds(&db, &model);
            db.reopen();
            assert_holds(&db, &model);
            let gone: Vec<Vec<u8>> = model.keys().step_by(3).cloned().collect();
            db.write(|txn| {
                let mut table = txn.table(BYTES)?;
                for key in &gone {
                    assert!(table.remove(key)? == model.remove(key));
                }
                Ok::<_, mapleaf::Error>(())
            })
            .expect("removed");
            assert_holds(&db, &model);
        }
    }
}

/// In every order, by every way to store entries.
#[test]
fn every_way_of_loading_takes_long_keys() {
    for page_size in [4096, 32768] {
        let model = of_all_kinds(page_size);
        for way in 0..5 {
            let db = TestDb::file(Options::new().page_size(page_size));
            let txn = db.begin_write().expect("begins");
            let mut table = txn.table(BYTES).expect("the table");
            let (odd, even): (Vec<_>, Vec<_>) = model.iter().enumerate().partition(|(at, _)| at % 2 == 1);
            let sorted = || model.iter().map(|(key, value)| (key.as_slice(), value.as_slice()));
            let mixed = || odd.iter().chain(&even).map(|(_, (key, value))| (key.as_slice(), value.as_slice()));
            match way {
                0 => sorted().for_each(|(key, value)| table.append(key, value).expect("appended")),
                1 => drop(table.load(sorted()).expect("loaded")),
                2 => drop(table.load(mixed()).expect("loaded")),
                3 => {
                    // The second load merges with the entries of the first.
                    table.load(odd.iter().map(|(_, (key, _))| (key.as_slice(), &b"old"[..]))).expect("loaded");
                    table.load(mixed()).expect("loaded");
                }
                _ => drop(table.merge_from(sorted()).expect("merged")),
            }
            drop(table);
            txn.commit().expect("committed");
            assert_holds(&db, &model);
        }
    }
}

#[test]
fn removing_all_long_keys_frees_all_their_pages() {
    for page_size in PAGE_SIZES {
        for way in 0..6 {
            let db = TestDb::file(Options::new().page_size(page_size));
            let model = of_all_kinds(page_size);
            fill(&db, &model);
            db.write(|txn| {
                let mut table = txn.table(BYTES)?;
                match way {
                    0 => model.keys().try_for_each(|key| table.remove(key).map(drop))?,
                    1 => drop(table.clear()?),
                    2 => drop(table.remove_range(..)?),
                    3 => drop(table.retain(|_, _| false)?),
                    4 => while table.pop_first()?.is_some() {},
                    _ => {
                        drop(table);
                        assert!(txn.drop_table("bytes")?);
                    }
                }
                Ok::<_, mapleaf::Error>(())
            })
            .expect("removed");
            let space = db.space().expect("space");
            assert!(space.tables.iter().all(|table| table.pages() == 0), "way {way}: {:?}", space.tables);
            db.assert_clean();
        }
    }
}

/// Opens a copy of the file, which replays the log.
#[test]
fn a_replay_stores_long_keys() {
    let mut rng = Rng::new(seed("a_replay_stores_long_keys"));
    let db = TestDb::file(Options::new());
    let (mut model, dir) = (Model::new(), tempfile::tempdir().expect("a directory"));
    for round in 0..12 {
        let (from, width) = (rng.below(50) as u16, rng.below(8) as u16);
        db.write(|txn| {
            let mut table = txn.table(BYTES)?;
            for _ in 0..3 {
                let (key, value) = (key(5000, rng.below(60) as u16), bytes(rng.next(), 30));
                table.put(&key, &value)?;
                model.insert(key, value);
            }
            let (low, high) = (key(5000, from), key(5000, from + width));
            table.remove_range(&low[..]..&high[..])?;
            model.retain(|key, _| !(&low..&high).contains(&key));
            Ok::<_, mapleaf::Error>(())
        })
        .expect("written");
        let copy = dir.path().join(format!("copy {round}"));
        std::fs::copy(db.path(), &copy).expect("copied");
        assert_holds(&Db::open_existing(&copy).expect("replays"), &model);
    }
}

#[test]
fn compaction_copies_long_keys() {
    for page_size in PAGE_SIZES {
        let db = TestDb::file(Options::new().page_size(page_size));
        let model = of_all_kinds(page_size);
        fill(&db, &model);
        let out = db.path().with_file_name("compact");
        db.compact_to(&out).expect("compacted");
        assert_holds(&Db::open_existing(&out).expect("opens"), &model);
        crate::support::remove_database(&out);
    }
}

fn required_features(path: &std::path::Path) -> u64 {
    let bytes = std::fs::read(path).expect("the file");
    let field = |slot: usize| u64::from_le_bytes(bytes[slot * 4096 + 16..][..8].try_into().expect("8 bytes"));
    field(0) | field(1)
}

#[test]
fn a_file_needs_the_feature_once_it_had_a_long_key() {
    let mut db = TestDb::file(Options::new());
    let put = |db: &Db, key: &[u8]| db.write(|txn| txn.table(BYTES)?.put(key, b"value").map(drop)).expect("stored");
    put(&db, &[1; 1000]);
    db.reopen();
    assert_eq!(required_features(&db.path()), 0);
    put(&db, &[1; 1001]);
    db.reopen();
    assert_eq!(required_features(&db.path()), 2);
    db.write(|txn| txn.table(BYTES)?.clear().map(drop)).expect("cleared");
    db.reopen();
    assert_eq!(required_features(&db.path()), 2, "older states may have it");
}

/// Flips a bit near the end of a long key in a closed file. Returns what does not work as it must.
fn damage_is_found(page_size: u32) -> Result<(), String> {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("db.mapleaf");
    let model: Model = (0..40).map(|number| (key(20_000, number), bytes(number.into(), 10))).collect();
    fill(&Options::new().page_size(page_size).open(&path).expect("made"), &model);
    let mut file = std::fs::read(&path).expect("the file");
    let wanted = key(20_000, 7);
    let at = file.windows(wanted.len()).position(|window| window == wanted).expect("the key");
    file[at + wanted.len() - 100] ^= 0x10;
    std::fs::write(&path, &file).expect("damaged");
    let page = format!("page {}", at / page_size as usize);
    let db = Db::open(&path).expect("opens");
    let table = db.begin_read().and_then(|txn| txn.table(BYTES)).expect("the table");
    let said = match table.get(&wanted) {
        Err(e) if e.kind() == ErrorKind::Corrupt => e.to_string(),
        other => return Err(format!("get of a damaged key: {other:?}")),
    };
    if !said.contains(&page) || !said.contains("'bytes'") {
        return Err(format!("the error does not name {page}: {said}"));
    }
    let scanned = table.iter().take_while(Result::is_ok).count();
    let scanned_back = table.iter().rev().take_while(Result::is_ok).count();
    let findings = db.check().expect("checked").findings;
    if (scanned, scanned_back) != (7, 32) || !findings.iter().any(|found| found.to_string().contains(&page)) {
        return Err(format!("{scanned} and {scanned_back} entries scanned, {} findings", findings.len()));
    }
    drop((table, db));
    let out = dir.path().join("salvaged");
    let report = Db::salvage(&path, &out).expect("salvaged");
    let salvaged = Db::open_existing(&out).expect("opens");
    let left: Model = model.into_iter().filter(|(key, _)| *key != wanted).collect();
    assert_holds(&salvaged, &left);
    assert_eq!((report.tables[0].entries, report.lost.is_empty()), (39, false));
    Ok(())
}

#[test]
fn a_damaged_long_key_is_an_error_that_names_its_page() {
    for page_size in PAGE_SIZES {
        damage_is_found(page_size).expect("found");
    }
    let mutant = Some(Mutant::LongKeyUnchecked);
    assert!(with_mutant(mutant, || damage_is_found(4096)).is_err(), "an unchecked long key is not noticed");
}

#[test]
fn a_snapshot_keeps_its_long_keys_while_they_are_removed() {
    let db = TestDb::file(Options::new());
    let model = of_all_kinds(4096);
    fill(&db, &model);
    let held = db.begin_read().and_then(|txn| txn.table(BYTES)).expect("the table");
    for round in 0..5u8 {
        db.write(|txn| {
            let mut table = txn.table(BYTES)?;
            table.clear()?;
            (0..50).try_for_each(|number| table.put(&key(60_002, number), &[round]).map(drop))
        })
        .expect("changed");
    }
    assert!(held.iter().map(|entry| entry.expect("an entry")).eq(model.iter().map(|(k, v)| (&k[..], &v[..]))));
}
