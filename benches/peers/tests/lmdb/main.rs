//! The same random steps through LMDB and through Mapleaf give the same answers: lookups, changes, ranges both ways,
//! cursors that move, replace and delete, transactions inside transactions, commits and aborts. `multi.rs` does the same
//! with several values for each key (`MDB_DUPSORT`, `MDB_DUPFIXED`).
//!
//! `MAPLEAF_SEED=n` repeats a run, `MAPLEAF_LONG=n` makes it n times as long. Not compared: keys that LMDB refuses (empty
//! ones, and those over 511 bytes), and where a cursor stands after it has found nothing, in which the two differ: the
//! test then places both again.

mod lmdb;
mod multi;

use lmdb::{Entry, Go, Lmdb};
use mapleaf::{CursorMut, Db, Options, Position, Result, Table, TableMut, WriteTxn};
use std::ops::Bound;

const TABLE: Table<&[u8], &[u8]> = Table::new("table");
/// LMDB's limit.
const KEY_BYTES_MAX: u64 = 511;

type Handle<'t> = TableMut<'t, &'static [u8], &'static [u8]>;
type MapleafCursor<'h, 't> = CursorMut<'h, 't, &'static [u8], &'static [u8]>;

/// Random numbers (splitmix64).
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let number = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        number ^ (number >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// One of few keys of many kinds, so that steps often meet.
    fn key(&mut self) -> Vec<u8> {
        match self.below(8) {
            0 => vec![b'k'; 1 + self.below(KEY_BYTES_MAX) as usize],
            1 => (self.below(3000) as u16).to_be_bytes().to_vec(),
            2 => {
                let mut key = vec![0xff; 1 + self.below(300) as usize];
                key.extend((self.below(50) as u16).to_be_bytes());
                key
            }
            _ => format!("user:{:05}:name", self.below(2500)).into_bytes(),
        }
    }

    fn value(&mut self) -> Vec<u8> {
        let len = match self.below(60) {
            0 => 2000 + self.below(20_000),
            1..=9 => self.below(1500),
            _ => self.below(80),
        };
        let fill = self.next() as u8;
        (0..len).map(|at| fill.wrapping_add(at as u8)).collect()
    }
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |value| value.parse().unwrap_or_else(|_| panic!("{name} is no number")))
}

fn owned(entry: Option<(&[u8], &[u8])>) -> Option<Entry> {
    entry.map(|(key, value)| (key.to_vec(), value.to_vec()))
}

/// The cursor of a transaction, in both stores.
struct Cursors<'l> {
    txn: &'l lmdb::Txn,
    lmdb: lmdb::Cursor,
    mapleaf: Option<Position>,
    /// The key at which both stand; `None` if they have to be placed again.
    key: Option<Vec<u8>>,
    /// The entry at `key` was deleted by the cursor.
    deleted: bool,
}

impl<'l> Cursors<'l> {
    fn new(txn: &'l lmdb::Txn) -> Cursors<'l> {
        Cursors { txn, lmdb: txn.cursor(), mapleaf: None, key: None, deleted: false }
    }

    fn at<'h, 't>(&mut self, table: &'h mut Handle<'t>) -> MapleafCursor<'h, 't> {
        match self.mapleaf.take() {
            Some(position) => table.cursor_at(position),
            None => table.cursor(),
        }
    }

    /// Moves both, and compares what they find.
    fn go(&mut self, table: &mut Handle<'_>, go: Go<'_>) -> Result<()> {
        let mut cursor = self.at(table);
        let found = owned(match go {
            Go::First => cursor.first(),
            Go::Last => cursor.last(),
            Go::Next => cursor.next(),
            Go::Prev => cursor.prev(),
            Go::Stay => cursor.current(),
            Go::To(key) => cursor.seek(key),
            Go::AtOrAfter(key) => cursor.seek_at_or_after(key),
            Go::NextKey | Go::PrevKey | Go::ToPair(..) | Go::ValueAtOrAfter(..) => {
                unreachable!("a step of multimaps: {go:?}")
            }
        }?);
        self.mapleaf = Some(cursor.position());
        let mut other = self.lmdb.go(go);
        let moved = other.is_some();
        if !moved && matches!(go, Go::Next) {
            // LMDB remembers that a cursor was at the end, also after other calls have stored entries after it. A new
            // cursor of LMDB says what it has there.
            other = self.entry_after();
        }
        assert_eq!(found, other, "{go:?} from {:?}", self.key);
        // Where LMDB says nothing, its cursor has not moved.
        self.key = found.filter(|_| moved).map(|(key, _)| key);
        self.deleted = false;
        Ok(())
    }

    /// The entry after `key`, by a new cursor of LMDB.
    fn entry_after(&self) -> Option<Entry> {
        let mut cursor = self.txn.cursor();
        let found = cursor.go(Go::AtOrAfter(self.key.as_deref()?))?;
        match self.key.as_ref() == Some(&found.0) {
            true => cursor.go(Go::Next),
            false => Some(found),
        }
    }

    /// One step of the cursors.
    fn step(&mut self, table: &mut Handle<'_>, rng: &mut Rng) -> Result<()> {
        let Some(key) = self.key.clone() else {
            let key = rng.key();
            return match rng.below(4) {
                0 => self.go(table, Go::First),
                1 => self.go(table, Go::Last),
                2 => self.go(table, Go::To(&key)),
                _ => self.go(table, Go::AtOrAfter(&key)),
            };
        };
        match rng.below(12) {
            0..=3 => self.go(table, Go::Next),
            4 | 5 => self.go(table, Go::Prev),
            6 if !self.deleted => self.go(table, Go::Stay),
            7 => {
                self.key = None;
                self.step(table, rng)
            }
            8 if !self.deleted => {
                let value = rng.value();
                let mut cursor = self.at(table);
                assert!(cursor.replace(&value)?, "the cursor stands at {key:?}");
                self.mapleaf = Some(cursor.position());
                self.lmdb.put(&key, &value, true);
                Ok(())
            }
            9 => {
                let (key, value) = (rng.key(), rng.value());
                let mut cursor = self.at(table);
                let old = cursor.insert(&key, &value)?;
                self.mapleaf = Some(cursor.position());
                assert_eq!(old, self.txn.get(&key));
                self.lmdb.put(&key, &value, false);
                (self.key, self.deleted) = (Some(key), false);
                Ok(())
            }
            _ if !self.deleted => {
                let mut cursor = self.at(table);
                let old = cursor.remove()?;
                self.mapleaf = Some(cursor.position());
                assert_eq!(old, self.txn.get(&key));
                self.lmdb.delete();
                self.deleted = true;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Notes that another handle has deleted a key: then the two differ in where the cursor stands.
    fn note_deleted(&mut self, key: &[u8]) {
        if self.deleted || self.key.as_deref() == Some(key) {
            self.key = None;
        }
    }
}

/// Up to `most` entries from a key on, or before it.
fn compare_range(table: &Handle<'_>, txn: &lmdb::Txn, key: &[u8], forwards: bool, most: usize) -> Result<()> {
    let mut cursor = txn.cursor();
    let mut other = match (cursor.go(Go::AtOrAfter(key)), forwards) {
        (found, true) => found,
        (Some(_), false) => cursor.go(Go::Prev),
        (None, false) => cursor.go(Go::Last),
    };
    let own = |entry: Result<(&[u8], &[u8])>| entry.map(|(key, value)| (key.to_vec(), value.to_vec()));
    let found: Vec<Entry> = match forwards {
        true => table.range((Bound::Included(key), Bound::Unbounded))?.take(most).map(own).collect::<Result<_>>()?,
        false => {
            table.range((Bound::Unbounded, Bound::Excluded(key)))?.rev().take(most).map(own).collect::<Result<_>>()?
        }
    };
    for entry in &found {
        assert_eq!(Some(entry), other.as_ref(), "range from {key:?}, forwards: {forwards}");
        other = cursor.go(if forwards { Go::Next } else { Go::Prev });
    }
    assert!(found.len() == most || other.is_none(), "the range from {key:?} ends early, forwards: {forwards}");
    Ok(())
}

/// A step that is not one of the cursors.
fn change(table: &mut Handle<'_>, cursors: &mut Cursors<'_>, rng: &mut Rng) -> Result<()> {
    let (txn, key) = (cursors.txn, rng.key());
    match rng.below(11) {
        0..=2 => {
            let value = rng.value();
            let old = table.insert(&key, &value)?;
            assert_eq!(old, txn.get(&key));
            txn.put(&key, &value);
            if cursors.deleted {
                cursors.key = None;
            }
        }
        3 | 4 => {
            let old = table.remove(&key)?;
            assert_eq!(old, txn.get(&key));
            assert_eq!(old.is_some(), txn.delete(&key), "{key:?}");
            cursors.note_deleted(&key);
        }
        5 | 6 => assert_eq!(table.get(&key)?.map(<[u8]>::to_vec), txn.get(&key), "{key:?}"),
        7 => compare_range(table, txn, &key, true, rng.below(60) as usize)?,
        8 => compare_range(table, txn, &key, false, rng.below(60) as usize)?,
        9 => {
            let popped =
                if rng.below(2) == 0 { (table.pop_first()?, Go::First) } else { (table.pop_last()?, Go::Last) };
            let mut cursor = txn.cursor();
            assert_eq!(popped.0, cursor.go(popped.1));
            if let Some((key, _)) = popped.0 {
                cursor.delete();
                cursors.note_deleted(&key);
            }
        }
        _ => remove_range(table, cursors, &key, rng)?,
    }
    assert_eq!(table.len(), txn.len());
    Ok(())
}

/// Removes a short range, or now and then all.
fn remove_range(table: &mut Handle<'_>, cursors: &mut Cursors<'_>, key: &[u8], rng: &mut Rng) -> Result<()> {
    let txn = cursors.txn;
    let end = rng.key();
    let keys: Vec<Vec<u8>> = match rng.below(8) {
        0 => table.range((Bound::Included(key), Bound::Excluded(end.as_slice())))?.map(|entry| Ok(entry?.0.to_vec())),
        _ => return Ok(()),
    }
    .take(400)
    .collect::<Result<_>>()?;
    let (Some(first), Some(last)) = (keys.first(), keys.last()) else { return Ok(()) };
    let removed = table.remove_range(first.as_slice()..=last.as_slice())?;
    assert_eq!(removed, keys.len() as u64);
    for key in &keys {
        assert!(txn.delete(key), "{key:?}");
        cursors.note_deleted(key);
    }
    Ok(())
}

/// All steps of a transaction, and of those inside it.
fn run(txn: &mut WriteTxn, lmdb: &Lmdb, other: &lmdb::Txn, depth: u32, rng: &mut Rng) -> Result<()> {
    for _ in 0..1 + rng.below(4) {
        if rng.below(40) == 0 {
            txn.table(TABLE)?.clear()?;
            other.clear();
        }
        let mut table = txn.table(TABLE)?;
        let mut cursors = Cursors::new(other);
        for _ in 0..rng.below(200) {
            match rng.below(2) {
                0 => change(&mut table, &mut cursors, rng)?,
                _ => cursors.step(&mut table, rng)?,
            }
        }
        drop((table, cursors));
        if depth < 3 && rng.below(2) == 0 {
            let mut nested = txn.begin_nested()?;
            let inside = lmdb.begin(Some(other));
            run(&mut nested, lmdb, &inside, depth + 1, rng)?;
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
    let table = db.begin_read()?.table(TABLE)?;
    let txn = lmdb.begin(None);
    let mut cursor = txn.cursor();
    let mut other = cursor.go(Go::First);
    for entry in table.iter() {
        assert_eq!(owned(Some(entry?)), other);
        other = cursor.go(Go::Next);
    }
    assert_eq!((other, table.len()), (None, txn.len()));
    drop(cursor);
    txn.abort();
    Ok(())
}

#[test]
fn random_steps_give_the_same_answers_as_in_lmdb() {
    let (seed, long) = (number("MAPLEAF_SEED", 0x6d61_706c), number("MAPLEAF_LONG", 1));
    println!("MAPLEAF_SEED={seed} MAPLEAF_LONG={long}");
    let mut rng = Rng(seed);
    let folder = std::env::temp_dir().join(format!("mapleaf-beside-lmdb-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    for (round, page_size) in [4096, 32768].into_iter().enumerate() {
        let db = Options::new().page_size(page_size).open(folder.join(format!("mapleaf-{round}"))).expect("made");
        let lmdb = Lmdb::create(&folder.join(format!("lmdb-{round}")));
        for _ in 0..40 * long {
            let mut txn = db.begin_write().expect("begins");
            let other = lmdb.begin(None);
            run(&mut txn, &lmdb, &other, 0, &mut rng).expect("no step fails");
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
