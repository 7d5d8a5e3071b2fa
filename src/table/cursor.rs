//! Cursors that write, and the entries at the ends of a table.
//!
//! Floor: table. A [`CursorMut`] borrows its table handle; other tables of the transaction can
//! change beside it. It keeps the key that it stands at (`tree/scan/spot.rs`), so its own changes
//! cannot lead it astray. A [`Position`] is the same without the borrow: it outlives any change.
//!
//! Failure: as in `write.rs` and `table_ref.rs`. After an error the cursor stands where it stood.

use std::fmt;

use crate::error::{Error, Result};
use crate::pager::PageRead as _;
use crate::table::codec::{Codec, KeyCodec};
use crate::table::write::owned_value;
use crate::table::{decode_entry, TableMut};
use crate::tree::{self, Side, Spot};
use crate::txn::write::put_all::Collected;
use crate::txn::write::shared::TableAccess;

/// Key and value of an entry, decoded.
type Typed<'a, K, V> = (<K as Codec>::Item<'a>, <V as Codec>::Item<'a>);
/// Key and value of an entry that was removed.
type Owned<K, V> = (<K as Codec>::Owned, <V as Codec>::Owned);

impl<'t, K: KeyCodec, V: Codec> TableMut<'t, K, V> {
    /// A cursor before the first entry. It moves both ways and changes the table.
    ///
    /// ```
    /// # use mapleaf::{Db, Table};
    /// # let db = Db::in_memory()?;
    /// const JOBS: Table<u64, &str> = Table::new("jobs");
    ///
    /// let txn = db.begin_write()?;
    /// let mut jobs = txn.table(JOBS)?;
    /// jobs.put_all([(1, "done"), (2, "new"), (4, "done")])?;
    /// let mut cursor = jobs.cursor();
    /// while let Some((_, state)) = cursor.next()? {
    ///     match state {
    ///         "done" => drop(cursor.remove()?),
    ///         _ => assert!(cursor.replace("old")?),
    ///     }
    /// }
    /// assert_eq!(cursor.prev()?, Some((2, "old")));
    /// assert_eq!(jobs.len(), 1);
    /// # Ok::<(), mapleaf::Error>(())
    /// ```
    pub fn cursor(&mut self) -> CursorMut<'_, 't, K, V> {
        CursorMut { table: self, spot: Spot::start() }
    }

    /// A cursor at a position that [`CursorMut::position`] has returned. The table may have changed
    /// since then: the cursor stands at the entry with the same key, or where that would be.
    pub fn cursor_at(&mut self, position: Position) -> CursorMut<'_, 't, K, V> {
        CursorMut { table: self, spot: position.spot }
    }

    /// Removes the entry with the least key and returns it. Many in a row take the same time each.
    ///
    /// ```
    /// # use mapleaf::{Db, Table};
    /// # let db = Db::in_memory()?;
    /// const QUEUE: Table<u64, &str> = Table::new("queue");
    ///
    /// let txn = db.begin_write()?;
    /// let mut queue = txn.table(QUEUE)?;
    /// queue.put_all([(1, "wash"), (2, "peel"), (3, "cut")])?;
    /// assert_eq!(queue.pop_first()?, Some((1, "wash".to_string())));
    /// assert_eq!(queue.pop_last()?, Some((3, "cut".to_string())));
    /// assert_eq!(queue.len(), 1);
    /// # Ok::<(), mapleaf::Error>(())
    /// ```
    ///
    /// # Errors
    /// `Decode` if the entry does not decode: it stays. `DiskFull`, `Io`, `Corrupt`: abort the
    /// transaction.
    pub fn pop_first(&mut self) -> Result<Option<Owned<K, V>>> {
        self.pop(Side::First)
    }

    /// Removes the entry with the greatest key and returns it; see
    /// [`pop_first`](TableMut::pop_first).
    ///
    /// # Errors
    /// As [`pop_first`](TableMut::pop_first).
    pub fn pop_last(&mut self) -> Result<Option<Owned<K, V>>> {
        self.pop(Side::Last)
    }

    fn pop(&mut self, side: Side) -> Result<Option<Owned<K, V>>> {
        let (mut key, mut value) = (Vec::new(), Vec::new());
        if !self.change().run(|running, at| running.pop(at, side, &mut key, &mut value))? {
            return Ok(None);
        }
        let popped = decode_entry::<K, V>((&key, &value)).map(|(key, value)| (K::to_owned(key), V::to_owned(value)));
        match popped {
            Ok(popped) => Ok(Some(popped)),
            Err(e) => {
                // The caller has not seen the entry, so it goes back.
                self.change().run(|running, at| running.put(at, &key, &value, None))?;
                Err(e.with_path(self.access().path()).with_table(self.access().name()))
            }
        }
    }

    /// Stores entries that come in ascending order of their keys; returns how many keys were new.
    /// An entry replaces one of the table with the same key.
    ///
    /// ```
    /// # use mapleaf::{Db, Table};
    /// # let db = Db::in_memory()?;
    /// const STOCK: Table<&str, u32> = Table::new("stock");
    ///
    /// let txn = db.begin_write()?;
    /// let mut stock = txn.table(STOCK)?;
    /// stock.put_all([("apples", 5), ("pears", 3)])?;
    /// assert_eq!(stock.merge_from([("apples", 6), ("figs", 1)])?, 1);
    /// assert!(stock.merge_from([("b", 1), ("a", 1)]).is_err());
    /// # Ok::<(), mapleaf::Error>(())
    /// ```
    ///
    /// # Errors
    /// `Usage` for a key that is not above the one before it: the entries before it may be stored,
    /// and the transaction can go on. Otherwise as [`put_all`](TableMut::put_all).
    pub fn merge_from<'k, 'v>(&mut self, entries: impl IntoIterator<Item = (K::Item<'k>, V::Item<'v>)>) -> Result<u64> {
        let (mut collected, mut new, mut last) = (Collected::default(), 0, None::<Vec<u8>>);
        for (key, value) in entries {
            let (key, value) = (K::encode(&key)?, V::encode(&value)?);
            if last.as_ref().is_some_and(|last| last.as_slice() >= &*key) {
                return Err(Error::usage(
                    "merge_from needs keys in ascending order, and this one is not above the last one; use put_all",
                ));
            }
            let copied = last.get_or_insert_with(Vec::new);
            copied.clear();
            copied.extend_from_slice(&key);
            collected.push(&key, &value);
            if collected.is_full() {
                new += self.change().run(|running, at| running.put_collected_entries(at, &mut collected))?;
            }
        }
        Ok(new + self.change().run(|running, at| running.put_collected_entries(at, &mut collected))?)
    }
}

/// The position of a cursor, kept while the table changes; see [`TableMut::cursor_at`].
///
/// ```
/// # use mapleaf::{Db, Table};
/// # let db = Db::in_memory()?;
/// const AGES: Table<&str, u32> = Table::new("ages");
///
/// let txn = db.begin_write()?;
/// let mut ages = txn.table(AGES)?;
/// ages.put_all([("ada", 36), ("alan", 41), ("grace", 85)])?;
/// let mut cursor = ages.cursor();
/// cursor.seek("alan")?;
/// let position = cursor.position();
/// ages.remove("alan")?;
/// assert_eq!(ages.cursor_at(position.clone()).next()?, Some(("grace", 85)));
/// assert_eq!(ages.cursor_at(position).prev()?, Some(("ada", 36)));
/// # Ok::<(), mapleaf::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Position {
    spot: Spot,
}

/// A cursor that moves over the entries of a table and changes them, from [`TableMut::cursor`].
///
/// It stands at an entry, or at the place of a key that the table does not have, or before the
/// first or after the last entry. [`next`](CursorMut::next) and [`prev`](CursorMut::prev) go from
/// there to the nearest entry. Items that it returns borrow the cursor.
pub struct CursorMut<'h, 't, K, V> {
    table: &'h mut TableMut<'t, K, V>,
    spot: Spot,
}

impl<K: KeyCodec, V: Codec> CursorMut<'_, '_, K, V> {
    /// Goes to the first entry and returns it.
    ///
    /// # Errors
    /// `Corrupt` if a page is damaged, `Decode` if the entry does not decode; so do all methods
    /// that return an entry.
    pub fn first(&mut self) -> Result<Option<Typed<'_, K, V>>> {
        self.spot.leave(Side::First);
        self.step(Side::Last)
    }

    /// Goes to the last entry and returns it.
    ///
    /// # Errors
    /// As [`first`](CursorMut::first).
    pub fn last(&mut self) -> Result<Option<Typed<'_, K, V>>> {
        self.spot.leave(Side::Last);
        self.step(Side::First)
    }

    /// Goes to the next greater key and returns its entry. After the last one there is none, and
    /// the cursor stands after it.
    ///
    /// # Errors
    /// As [`first`](CursorMut::first).
    #[allow(clippy::should_implement_trait, reason = "the items borrow the cursor")]
    pub fn next(&mut self) -> Result<Option<Typed<'_, K, V>>> {
        self.step(Side::Last)
    }

    /// Goes to the next lower key and returns its entry. Before the first one there is none, and
    /// the cursor stands before it.
    ///
    /// # Errors
    /// As [`first`](CursorMut::first).
    pub fn prev(&mut self) -> Result<Option<Typed<'_, K, V>>> {
        self.step(Side::First)
    }

    /// Goes to a key and returns its entry. Without one, the cursor stands at the place of the key.
    ///
    /// # Errors
    /// As [`first`](CursorMut::first), and `Usage` for a key that the codec cannot represent: the
    /// cursor has not moved.
    pub fn seek<'k>(&mut self, key: K::Key<'k>) -> Result<Option<Typed<'_, K, V>>> {
        self.spot.go_to(&K::encode_key(&key)?);
        self.current()
    }

    /// Goes to the entry with this key, else to that with the next greater one, and returns it.
    ///
    /// # Errors
    /// As [`seek`](CursorMut::seek).
    pub fn seek_at_or_after<'k>(&mut self, key: K::Key<'k>) -> Result<Option<Typed<'_, K, V>>> {
        self.seek_near(key, Side::Last)
    }

    /// Goes to the entry with this key, else to that with the next lower one, and returns it.
    ///
    /// # Errors
    /// As [`seek`](CursorMut::seek).
    pub fn seek_at_or_before<'k>(&mut self, key: K::Key<'k>) -> Result<Option<Typed<'_, K, V>>> {
        self.seek_near(key, Side::First)
    }

    fn seek_near<'k>(&mut self, key: K::Key<'k>, towards: Side) -> Result<Option<Typed<'_, K, V>>> {
        self.spot.go_to(&K::encode_key(&key)?);
        let CursorMut { table, spot } = self;
        read(table, |tree| match spot.current(tree)? {
            Some(entry) => Ok(Some(entry)),
            None => spot.step(tree, towards),
        })
    }

    /// Returns the entry that the cursor stands at, if there is one.
    ///
    /// # Errors
    /// As [`first`](CursorMut::first).
    pub fn current(&mut self) -> Result<Option<Typed<'_, K, V>>> {
        let CursorMut { table, spot } = self;
        read(table, |tree| spot.current(tree))
    }

    /// Returns the entry that [`next`](CursorMut::next) would go to. The cursor does not move.
    ///
    /// # Errors
    /// As [`first`](CursorMut::first).
    pub fn peek_next(&mut self) -> Result<Option<Typed<'_, K, V>>> {
        let mut ahead = self.spot.clone();
        read(self.table, |tree| ahead.step(tree, Side::Last))
    }

    /// Returns the entry that [`prev`](CursorMut::prev) would go to. The cursor does not move.
    ///
    /// # Errors
    /// As [`first`](CursorMut::first).
    pub fn peek_prev(&mut self) -> Result<Option<Typed<'_, K, V>>> {
        let mut ahead = self.spot.clone();
        read(self.table, |tree| ahead.step(tree, Side::First))
    }

    /// Stores an entry anywhere in the table, goes to it, and returns the old value as
    /// [`TableMut::insert`] does.
    ///
    /// # Errors
    /// As [`TableMut::insert`]. After `TooLarge` and `Usage` the cursor has not moved.
    pub fn insert<'k, 'v>(&mut self, key: K::Item<'k>, value: V::Item<'v>) -> Result<Option<V::Owned>> {
        let (key, value) = (K::encode(&key)?, V::encode(&value)?);
        let mut old = Vec::new();
        self.spot.note_change();
        let existed = self.table.change().run(|running, at| running.put(at, &key, &value, Some(&mut old)))?;
        self.spot.go_to(&key);
        Ok(if existed { owned_value::<V>(&old) } else { None })
    }

    /// Replaces the value of the entry that the cursor stands at. Returns false if it stands at
    /// none.
    ///
    /// # Errors
    /// As [`TableMut::insert`].
    pub fn replace<'v>(&mut self, value: V::Item<'v>) -> Result<bool> {
        let value = V::encode(&value)?;
        let CursorMut { table, spot } = self;
        let found = spot.current(table.access().tree()).map(|entry| entry.is_some());
        if !locate_fault(table, found)? {
            return Ok(false);
        }
        spot.note_change();
        let Some(key) = spot.key() else { return Ok(false) };
        table.change().run(|running, at| running.put(at, key, &value, None))
    }

    /// Removes the entry that the cursor stands at, and returns its value as [`TableMut::remove`]
    /// does; `None` if it stands at none. The cursor stays at the place of the key.
    ///
    /// # Errors
    /// As [`TableMut::remove`].
    pub fn remove(&mut self) -> Result<Option<V::Owned>> {
        let mut old = Vec::new();
        self.spot.note_change();
        let Some(key) = self.spot.key() else { return Ok(None) };
        let existed = self.table.change().run(|running, at| running.delete(at, key, Some(&mut old)))?;
        Ok(if existed { owned_value::<V>(&old) } else { None })
    }

    /// Where the cursor stands, to make one there again after changes of the table.
    pub fn position(&self) -> Position {
        let mut spot = self.spot.clone();
        spot.note_change();
        Position { spot }
    }

    fn step(&mut self, towards: Side) -> Result<Option<Typed<'_, K, V>>> {
        let CursorMut { table, spot } = self;
        read(table, |tree| spot.step(tree, towards))
    }
}

/// Reads an entry of a table and decodes it.
pub(super) fn read<'h, 't, K: KeyCodec, V: Codec>(
    table: &'h TableMut<'t, K, V>,
    find: impl FnOnce(tree::Tree<'h, TableAccess<'h>>) -> Result<Option<tree::Entry<'h>>>,
) -> Result<Option<Typed<'h, K, V>>> {
    table.access().check_process()?;
    let found = find(table.access().tree());
    locate_fault(table, found.and_then(|entry| entry.map(decode_entry::<K, V>).transpose()))
}

/// Returns `found`, or the error of an access that the kernel could not serve, with its place.
pub(super) fn locate_fault<K, V, T>(table: &TableMut<'_, K, V>, found: Result<T>) -> Result<T> {
    let access = table.access();
    access.check_fault(found).map_err(|e| e.with_path(access.path()).with_table(access.name()))
}

impl<K, V> fmt::Debug for CursorMut<'_, '_, K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CursorMut").field("table", &self.table.access().name()).field("spot", &self.spot).finish()
    }
}
