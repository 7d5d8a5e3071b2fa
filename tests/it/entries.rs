//! `TableMut::entry` against the entries of a map of the standard library.

use std::collections::{btree_map, BTreeMap};

use mapleaf::{Entry, ErrorKind, Options, Result, Table};

use crate::support::{bytes, seed, Rng, TestDb};

const BLOBS: Table<&str, &[u8]> = Table::new("blobs");

fn owned(value: Option<&[u8]>) -> Option<Vec<u8>> {
    value.map(<[u8]>::to_vec)
}

/// The same random choices for an entry of the table and for one of the map.
fn step(
    table: &mut mapleaf::TableMut<'_, &'static str, &'static [u8]>,
    model: &mut BTreeMap<String, Vec<u8>>,
    rng: &mut Rng,
) -> Result<()> {
    let key = format!("key {:03}", rng.below(300));
    let long = rng.below(30) == 0;
    let len = if long { 9000 } else { rng.below(200) as usize };
    let value = bytes(rng.next(), len);
    let entry = table.entry(&key)?;
    assert_eq!(entry.key()?, key);
    let expected = model.entry(key.clone());
    match (rng.below(7), entry, expected) {
        (0, entry, expected) => {
            let stored = expected.or_insert(value.clone());
            assert_eq!(entry.or_insert(&value)?, stored.as_slice());
        }
        (1, entry, expected) => {
            let (mut made, mut expected_made) = (false, false);
            let stored = expected.or_insert_with(|| {
                expected_made = true;
                value.clone()
            });
            let found = entry.or_insert_with(|| {
                made = true;
                &value
            })?;
            assert_eq!((found, made), (stored.as_slice(), expected_made));
        }
        (2, entry, expected) => {
            let mut seen = None;
            let found = entry.and_modify(|old| {
                seen = Some(old);
                &value
            })?;
            let mut expected_seen = None;
            let expected = expected.and_modify(|old| expected_seen = Some(std::mem::replace(old, value.clone())));
            assert_eq!(seen, expected_seen);
            assert_eq!(found.or_insert(b"absent")?, expected.or_insert(b"absent".to_vec()).as_slice());
        }
        (3, entry, expected) => {
            let entry = entry.insert_entry(&value)?;
            assert_eq!(entry.get()?, value);
            assert_eq!(entry.key()?, key);
            match expected {
                btree_map::Entry::Occupied(mut expected) => drop(expected.insert(value)),
                btree_map::Entry::Vacant(expected) => drop(expected.insert(value)),
            }
        }
        (choice, Entry::Occupied(mut entry), btree_map::Entry::Occupied(mut expected)) => {
            assert_eq!(entry.get()?, expected.get().as_slice());
            if choice == 4 {
                assert_eq!(entry.insert(&value)?, Some(expected.insert(value.clone())));
                assert_eq!(entry.get()?, value);
                assert_eq!(entry.into_value()?, value);
            } else {
                assert_eq!(entry.remove()?, Some(expected.remove()));
            }
        }
        (_, Entry::Vacant(entry), btree_map::Entry::Vacant(expected)) => {
            assert_eq!(entry.insert(&value)?, expected.insert(value.clone()).as_slice());
        }
        (_, entry, expected) => panic!("{entry:?} but {expected:?}"),
    }
    assert_eq!(owned(table.get(&key)?), model.get(&key).cloned());
    assert_eq!(table.len(), model.len() as u64);
    Ok(())
}

#[test]
fn entries_do_what_those_of_a_map_do() {
    let mut rng = Rng::new(seed("entries"));
    for page_size in [4096, 32768] {
        for db in TestDb::both(&Options::new().page_size(page_size)) {
            let mut model = BTreeMap::new();
            for _ in 0..6 {
                let txn = db.begin_write().expect("begins");
                let mut table = txn.table(BLOBS).expect("opened");
                (0..150).try_for_each(|_| step(&mut table, &mut model, &mut rng)).expect("a step");
                drop(table);
                txn.commit().expect("committed");
            }
            let table = db.begin_read().and_then(|txn| txn.table(BLOBS)).expect("opened");
            let found = table.range_owned(..).expect("a range").collect::<Result<Vec<_>>>().expect("read");
            assert!(found.into_iter().eq(model));
        }
    }
}

#[test]
fn refused_values_and_keys_of_an_entry_change_nothing() {
    let db = TestDb::memory(Options::new());
    let txn = db.begin_write().expect("begins");
    let mut table = txn.table(BLOBS).expect("opened");
    let long = "x".repeat(mapleaf::MAX_KEY_BYTES + 1);
    let entry = table.entry(&long).expect("looked up");
    let e = entry.or_insert(b"value").expect_err("too long");
    assert_eq!(e.kind(), ErrorKind::TooLarge);
    assert!(table.is_empty());
    drop(table);
    txn.bytes_table("words").and_then(|mut words| words.insert(b"key", b"\xff").map(drop)).expect("stored");
    const WORDS: Table<&str, &str> = Table::new("words");
    let mut words = txn.table(WORDS).expect("opened");
    let called = |_: String| -> &str { panic!("there is no such value") };
    assert_eq!(
        words.entry("key").and_then(|entry| entry.and_modify(called).map(drop)).expect_err("no text").kind(),
        ErrorKind::Decode
    );
    let e = words.entry("key").and_then(|entry| entry.or_insert("other").map(drop)).expect_err("no text");
    assert!(e.to_string().contains("'words'"), "{e}");
    assert_eq!(words.entry("key").and_then(|entry| entry.insert_entry("text").map(drop)).map_err(|e| e.kind()), Ok(()));
    assert_eq!(words.get("key").expect("read"), Some("text"));
    drop(words);
    txn.commit().expect("committed");
}
