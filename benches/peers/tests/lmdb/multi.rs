//! Multimaps: the same random steps through LMDB with `MDB_DUPSORT`, or `MDB_DUPFIXED`, and through Mapleaf.
//!
//! Cursors delete and go on, in both. Where LMDB's cursor cannot go on, a search places it anew, and Mapleaf's cursor
//! stays: back from a deleted pair, after changes by other calls, and after the last value of a key was deleted. There
//! LMDB's inner cursor keeps standing among the values that are gone (`mdb_cursor_del0`), and may skip values of the next
//! key.

use crate::lmdb::{self, Entry, Go, Lmdb};
use crate::{number, owned, Rng};
use mapleaf::{Db, MultiCursorMut, MultiPosition, MultiTableMut, Options, Result, WriteTxn};
use std::ops::Bound;

type Handle<'t> = MultiTableMut<'t, &'static [u8], &'static [u8]>;
type MapleafCursor<'h, 't> = MultiCursorMut<'h, 't, &'static [u8], &'static [u8]>;

/// One of few keys, so that many have several values.
fn key(rng: &mut Rng) -> Vec<u8> {
    match rng.below(6) {
        0 => vec![b'k'; 1 + rng.below(300) as usize],
        1 => (rng.below(600) as u16).to_be_bytes().to_vec(),
        _ => format!("tag:{:02}", rng.below(40)).into_bytes(),
    }
}

fn value(rng: &mut Rng, is_fixed: bool) -> Vec<u8> {
    let number = rng.below(2000);
    match (is_fixed, rng.below(20)) {
        (true, _) => number.to_be_bytes().to_vec(),
        (false, 0) => vec![number as u8; 1 + rng.below(500) as usize],
        (false, _) => format!("{number:x}").into_bytes(),
    }
}

/// What the steps of a transaction share.
struct Pair<'l> {
    txn: &'l lmdb::Txn,
    is_fixed: bool,
}

/// The cursor of a transaction, in both stores.
struct Cursors<'l> {
    txn: &'l lmdb::Txn,
    lmdb: lmdb::Cursor,
    /// LMDB's cursor stands at `at`, or behind the pair there that it has deleted.
    lmdb_follows: bool,
    mapleaf: Option<MultiPosition>,
    /// Where both stand; `None` if they have to be placed again.
    at: Option<Entry>,
    /// The pair there was deleted.
    is_deleted: bool,
}

impl<'l> Cursors<'l> {
    fn new(txn: &'l lmdb::Txn) -> Cursors<'l> {
        let lmdb = txn.cursor();
        Cursors { txn, lmdb, lmdb_follows: false, mapleaf: None, at: None, is_deleted: false }
    }

    fn with<T>(&mut self, table: &mut Handle<'_>, act: impl FnOnce(&mut MapleafCursor<'_, '_>) -> T) -> T {
        let mut cursor = match self.mapleaf.take() {
            Some(position) => table.cursor_at(position),
            None => table.cursor(),
        };
        let done = act(&mut cursor);
        self.mapleaf = Some(cursor.position());
        done
    }

    /// Compares what both have found, and notes it.
    fn note(&mut self, found: Option<Entry>, other: Option<Entry>, what: &str) {
        assert_eq!(found, other, "{what} from {:?}", self.at);
        (self.lmdb_follows, self.is_deleted) = (found.is_some(), false);
        self.at = found;
    }

    /// Places both at a key or a pair, or at an end.
    fn place(&mut self, table: &mut Handle<'_>, rng: &mut Rng, is_fixed: bool) -> Result<()> {
        let (key, value) = (key(rng), value(rng, is_fixed));
        let (found, other, what) = match rng.below(8) {
            0 => (self.with(table, |it| it.first().map(owned))?, self.lmdb.go(Go::First), "first"),
            1 => (self.with(table, |it| it.last().map(owned))?, self.lmdb.go(Go::Last), "last"),
            2 => (self.with(table, |it| it.seek(&key).map(owned))?, self.lmdb.go(Go::To(&key)), "seek"),
            3 => {
                let found = self.with(table, |it| it.seek_at_or_after(&key).map(owned))?;
                (found, self.lmdb.go(Go::AtOrAfter(&key)), "seek_at_or_after")
            }
            4 => {
                let found = self.with(table, |it| it.seek_at_or_before(&key).map(owned))?;
                let other = match self.lmdb.go(Go::To(&key)) {
                    None => before(&mut self.lmdb, &key, None),
                    Some(_) => match self.lmdb.go(Go::NextKey) {
                        Some(_) => self.lmdb.go(Go::Prev),
                        None => self.lmdb.go(Go::Last),
                    },
                };
                (found, other, "seek_at_or_before")
            }
            5 => {
                let found = self.with(table, |it| it.seek_pair(&key, &value).map(owned))?;
                (found, self.lmdb.go(Go::ToPair(&key, &value)), "seek_pair")
            }
            6 => {
                let found = self.with(table, |it| it.seek_pair_at_or_after(&key, &value).map(owned))?;
                (found, at_or_after(&mut self.lmdb, &key, &value), "seek_pair_at_or_after")
            }
            _ => {
                let found = self.with(table, |it| it.seek_pair_at_or_before(&key, &value).map(owned))?;
                let other = match self.lmdb.go(Go::ToPair(&key, &value)) {
                    Some(pair) => Some(pair),
                    None => before(&mut self.lmdb, &key, Some(&value)),
                };
                (found, other, "seek_pair_at_or_before")
            }
        };
        self.note(found, other, what);
        Ok(())
    }

    /// One step of the cursors.
    fn step(&mut self, table: &mut Handle<'_>, rng: &mut Rng, is_fixed: bool) -> Result<()> {
        let Some((key, value)) = self.at.clone() else { return self.place(table, rng, is_fixed) };
        match rng.below(16) {
            0..=4 => {
                let found = self.with(table, |it| it.next().map(owned))?;
                let other = match self.lmdb_follows {
                    true => self.lmdb.go(Go::Next),
                    false => after(&mut self.lmdb, &key, &value),
                };
                self.note(found, other, "next");
            }
            5 | 6 => {
                let found = self.with(table, |it| it.prev().map(owned))?;
                let other = match self.lmdb_follows && !self.is_deleted {
                    true => self.lmdb.go(Go::Prev),
                    false => before(&mut self.lmdb, &key, Some(&value)),
                };
                self.note(found, other, "prev");
            }
            7 if self.lmdb_follows && !self.is_deleted => {
                let found = self.with(table, |it| it.next_key().map(owned))?;
                let other = self.lmdb.go(Go::NextKey);
                self.note(found, other, "next_key");
            }
            8 if self.lmdb_follows && !self.is_deleted => {
                let found = self.with(table, |it| it.prev_key().map(owned))?;
                let other = self.lmdb.go(Go::PrevKey);
                self.note(found, other, "prev_key");
            }
            9 if self.lmdb_follows && !self.is_deleted => {
                let found = self.with(table, |it| it.current().map(owned))?;
                assert_eq!(found, self.lmdb.go(Go::Stay), "current");
                assert_eq!(self.with(table, |it| it.count())?, self.txn.count(&key), "count");
            }
            10 => self.place(table, rng, is_fixed)?,
            11 => {
                let (key, value) = (crate::multi::key(rng), crate::multi::value(rng, is_fixed));
                let is_new = self.with(table, |it| it.insert(&key, &value))?;
                assert_eq!(is_new, self.txn.cursor().go(Go::ToPair(&key, &value)).is_none());
                self.lmdb.add(&key, &value);
                // With a pair that is there, LMDB's cursor may stand elsewhere.
                (self.lmdb_follows, self.is_deleted) = (is_new, false);
                self.at = Some((key, value));
            }
            12 if self.lmdb_follows && !self.is_deleted => {
                let count = self.txn.count(&key);
                assert_eq!(self.with(table, |it| it.remove_all())?, count);
                self.lmdb.delete_key();
                (self.lmdb_follows, self.is_deleted) = (false, true);
            }
            _ if self.lmdb_follows && !self.is_deleted => {
                assert!(self.with(table, |it| it.remove())?, "the cursor stands at {:?}", self.at);
                self.lmdb.delete();
                (self.lmdb_follows, self.is_deleted) = (self.txn.count(&key) > 0, true);
            }
            _ => {}
        }
        Ok(())
    }

    /// Notes that another call has changed the table.
    fn note_change(&mut self) {
        let here = self.at.as_ref().is_some_and(|(key, value)| self.lmdb.go(Go::ToPair(key, value)).is_some());
        (self.lmdb_follows, self.is_deleted) = (here, !here);
    }
}

/// The first pair at or after this one. LMDB's cursor goes there.
fn at_or_after(cursor: &mut lmdb::Cursor, key: &[u8], value: &[u8]) -> Option<Entry> {
    if let Some(found) = cursor.go(Go::ValueAtOrAfter(key, value)) {
        // The value comes alone.
        return Some((key.to_vec(), found.1));
    }
    let found = cursor.go(Go::AtOrAfter(key))?;
    match found.0 == key {
        true => cursor.go(Go::NextKey),
        false => Some(found),
    }
}

/// The first pair after this one.
fn after(cursor: &mut lmdb::Cursor, key: &[u8], value: &[u8]) -> Option<Entry> {
    let found = at_or_after(cursor, key, value)?;
    match (found.0.as_slice(), found.1.as_slice()) == (key, value) {
        true => cursor.go(Go::Next),
        false => Some(found),
    }
}

/// The last pair before this one, or before all values of the key.
fn before(cursor: &mut lmdb::Cursor, key: &[u8], value: Option<&[u8]>) -> Option<Entry> {
    let found = match value {
        Some(value) => at_or_after(cursor, key, value),
        None => cursor.go(Go::AtOrAfter(key)),
    };
    cursor.go(if found.is_some() { Go::Prev } else { Go::Last })
}

/// A step that is not one of the cursors.
fn change(table: &mut Handle<'_>, pair: &Pair<'_>, cursors: &mut Cursors<'_>, rng: &mut Rng) -> Result<()> {
    let (txn, at, new) = (pair.txn, key(rng), value(rng, pair.is_fixed));
    match rng.below(14) {
        0..=3 => assert_eq!(table.insert(&at, &new)?, txn.add(&at, &new), "insert"),
        4 => {
            for _ in 0..rng.below(150) {
                let new = value(rng, pair.is_fixed);
                assert_eq!(table.insert(&at, &new)?, txn.add(&at, &new), "insert");
            }
        }
        5 | 6 => assert_eq!(table.remove(&at, &new)?, txn.delete_value(&at, &new), "remove"),
        7 if rng.below(4) == 0 => {
            let count = txn.count(&at);
            assert_eq!((table.remove_all(&at)?, count > 0), (count, txn.delete(&at)), "remove_all");
        }
        7 | 8 => {
            assert_eq!(table.count(&at)?, txn.count(&at), "count");
            assert_eq!(table.contains(&at, &new)?, txn.cursor().go(Go::ToPair(&at, &new)).is_some(), "contains");
        }
        9 => compare_range(table, txn, &at, true, rng.below(60) as usize)?,
        10 => compare_range(table, txn, &at, false, rng.below(60) as usize)?,
        11 => {
            let (popped, side) = match rng.below(2) {
                0 => (table.pop_first()?, Go::First),
                _ => (table.pop_last()?, Go::Last),
            };
            let mut cursor = txn.cursor();
            assert_eq!(popped, cursor.go(side), "{side:?} popped");
            if popped.is_some() {
                cursor.delete();
            }
        }
        _ => delete_some(table, txn, &at, &key(rng), rng)?,
    }
    assert_eq!(table.len(), txn.len());
    cursors.note_change();
    Ok(())
}

/// Deletes pairs of a range: LMDB by a cursor, Mapleaf by `retain_in`, `extract_if_in` or a cursor.
fn delete_some(table: &mut Handle<'_>, txn: &lmdb::Txn, low: &[u8], high: &[u8], rng: &mut Rng) -> Result<()> {
    let (salt, one_of) = (rng.next(), 1 + rng.below(6));
    let goes = |value: &[u8]| {
        value.iter().fold(salt, |sum, &byte| sum.wrapping_mul(31).wrapping_add(byte.into())) % one_of == 0
    };
    let (mut cursor, mut gone) = (txn.cursor(), Vec::new());
    let mut found = cursor.go(Go::AtOrAfter(low));
    while let Some((key, value)) = found.filter(|(key, _)| key.as_slice() < high) {
        let was_last = goes(&value) && {
            cursor.delete();
            txn.count(&key) == 0
        };
        found = cursor.go(if was_last { Go::AtOrAfter(&key) } else { Go::Next });
        if goes(&value) {
            gone.push((key, value));
        }
    }
    drop(cursor);
    if low >= high {
        return Ok(());
    }
    let range = (Bound::Included(low), Bound::Excluded(high));
    match rng.below(3) {
        0 => assert_eq!(table.retain_in(range, |_, value| !goes(value))?, gone.len() as u64),
        1 => {
            let taken = table.extract_if_in(range, |_, value| goes(value))?.collect::<Result<Vec<_>>>()?;
            assert_eq!(taken, gone);
        }
        _ => {
            let mut cursor = table.cursor();
            let mut found = owned(cursor.seek_at_or_after(low)?);
            while let Some(pair) = found.filter(|(key, _)| key.as_slice() < high) {
                if goes(&pair.1) {
                    assert_eq!(gone.first(), Some(&pair));
                    gone.remove(0);
                    assert!(cursor.remove()?);
                }
                found = owned(cursor.next()?);
            }
            assert!(gone.is_empty(), "{gone:?}");
        }
    }
    Ok(())
}

/// Up to `most` pairs from a key on, or before it.
fn compare_range(table: &Handle<'_>, txn: &lmdb::Txn, key: &[u8], forwards: bool, most: usize) -> Result<()> {
    let mut cursor = txn.cursor();
    let mut other = match forwards {
        true => cursor.go(Go::AtOrAfter(key)),
        false => before(&mut cursor, key, None),
    };
    let own = |pair: Result<(&[u8], &[u8])>| pair.map(|pair| owned(Some(pair)));
    let found: Vec<Option<Entry>> = match forwards {
        true => table.range((Bound::Included(key), Bound::Unbounded))?.take(most).map(own).collect::<Result<_>>()?,
        false => {
            table.range((Bound::Unbounded, Bound::Excluded(key)))?.rev().take(most).map(own).collect::<Result<_>>()?
        }
    };
    for pair in &found {
        assert_eq!(*pair, other, "range from {key:?}, forwards: {forwards}");
        other = cursor.go(if forwards { Go::Next } else { Go::Prev });
    }
    assert!(found.len() == most || other.is_none(), "the range from {key:?} ends early, forwards: {forwards}");
    Ok(())
}

/// All steps of a transaction, and of those inside it.
fn run(txn: &mut WriteTxn, lmdb: &Lmdb, pair: &Pair<'_>, depth: u32, rng: &mut Rng) -> Result<()> {
    for _ in 0..1 + rng.below(4) {
        if rng.below(60) == 0 {
            txn.multi_bytes_table("table")?.clear()?;
            pair.txn.clear();
        }
        let mut table = txn.multi_bytes_table("table")?;
        let mut cursors = Cursors::new(pair.txn);
        for _ in 0..rng.below(120) {
            match rng.below(2) {
                0 => change(&mut table, pair, &mut cursors, rng)?,
                _ => cursors.step(&mut table, rng, pair.is_fixed)?,
            }
        }
        drop((table, cursors));
        if depth < 3 && rng.below(2) == 0 {
            let mut nested = txn.begin_nested()?;
            let inside = lmdb.begin(Some(pair.txn));
            run(&mut nested, lmdb, &Pair { txn: &inside, ..*pair }, depth + 1, rng)?;
            match rng.below(2) {
                0 => {
                    nested.commit()?;
                    inside.commit();
                }
                _ => {
                    drop(nested);
                    inside.abort();
                }
            }
        }
    }
    Ok(())
}

fn compare_all(db: &Db, lmdb: &Lmdb) -> Result<()> {
    let table = db.begin_read()?.multi_bytes_table("table")?;
    let txn = lmdb.begin(None);
    let mut cursor = txn.cursor();
    let mut other = cursor.go(Go::First);
    for pair in table.iter() {
        assert_eq!(owned(Some(pair?)), other);
        other = cursor.go(Go::Next);
    }
    assert_eq!((other, table.len()), (None, txn.len()));
    drop(cursor);
    txn.abort();
    Ok(())
}

#[test]
fn random_steps_over_several_values_for_each_key_give_the_same_answers_as_in_lmdb() {
    let (seed, long) = (number("MAPLEAF_SEED", 0x6d75_6c74), number("MAPLEAF_LONG", 1));
    println!("MAPLEAF_SEED={seed} MAPLEAF_LONG={long}");
    let mut rng = Rng(seed);
    let folder = std::env::temp_dir().join(format!("mapleaf-multi-beside-lmdb-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    for (round, (page_size, is_fixed)) in [(4096, true), (4096, false), (32768, true)].into_iter().enumerate() {
        let db = Options::new().page_size(page_size).open(folder.join(format!("mapleaf-{round}"))).expect("made");
        db.write(|txn| txn.create_multi_table("table", "", "", is_fixed.then_some(8)).map(drop)).expect("made");
        let lmdb = Lmdb::create_multi(&folder.join(format!("lmdb-{round}")), is_fixed);
        for _ in 0..12 * long {
            let mut txn = db.begin_write().expect("begins");
            let other = lmdb.begin(None);
            run(&mut txn, &lmdb, &Pair { txn: &other, is_fixed }, 0, &mut rng).expect("no step fails");
            if rng.below(4) == 0 {
                drop(txn);
                other.abort();
            } else {
                txn.commit().expect("committed");
                other.commit();
            }
            compare_all(&db, &lmdb).expect("read");
        }
        let report = db.check().expect("checked");
        assert!(report.is_clean(), "{:?}", report.findings);
    }
    std::fs::remove_dir_all(&folder).expect("removed");
}
