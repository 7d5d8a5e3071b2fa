//! Cursors over the pairs of a multimap table that write, and the pairs at its ends.
//!
//! Floor: table. A [`MultiCursorMut`] borrows its table handle; other tables of the transaction can
//! change beside it. It keeps the pair that it stands at (`tree/values/spot.rs`), so its own
//! changes cannot lead it astray. A [`MultiPosition`] is the same without the borrow: it outlives
//! any change.
//!
//! Failure: as in `write.rs` and `handle.rs`. After an error the cursor stands where it stood, or
//! before the values of a key that cannot be read.

use std::fmt;

use crate::error::Result;
use crate::table::codec::{Codec, KeyCodec};
use crate::table::decode_entry;
use crate::table::multi::MultiTableMut;
use crate::tree::{self, PairSpot, Side};
use crate::txn::write::shared::TableAccess;

/// Key and value of a pair, decoded.
type Typed<'a, K, V> = (<K as Codec>::Item<'a>, <V as Codec>::Item<'a>);
/// Key and value of a pair that was removed.
type Owned<K, V> = (<K as Codec>::Owned, <V as Codec>::Owned);

impl<'t, K: KeyCodec, V: KeyCodec> MultiTableMut<'t, K, V> {
    /// A cursor before the first pair. It moves both ways and changes the table.
    ///
    /// ```
    /// # use mapleaf::{Db, MultiTable};
    /// # let db = Db::in_memory()?;
    /// const TAGS: MultiTable<&str, u64> = MultiTable::new("tags");
    ///
    /// let txn = db.begin_write()?;
    /// let mut tags = txn.multi_table(TAGS)?;
    /// tags.insert_all([("blue", 1), ("red", 3), ("red", 7), ("red", 8)])?;
    /// let mut cursor = tags.cursor();
    /// while let Some((_, id)) = cursor.next()? {
    ///     if id % 2 == 1 {
    ///         assert!(cursor.remove()?);
    ///     }
    /// }
    /// assert_eq!(cursor.prev()?, Some(("red", 8)));
    /// assert_eq!(tags.len(), 1);
    /// # Ok::<(), mapleaf::Error>(())
    /// ```
    pub fn cursor(&mut self) -> MultiCursorMut<'_, 't, K, V> {
        MultiCursorMut { table: self, spot: PairSpot::start() }
    }

    /// A cursor at a position that [`MultiCursorMut::position`] has returned. The table may have
    /// changed since then: the cursor stands at the same pair, or where that would be.
    pub fn cursor_at(&mut self, position: MultiPosition) -> MultiCursorMut<'_, 't, K, V> {
        MultiCursorMut { table: self, spot: position.spot }
    }

    /// Removes the least key's least value and returns both.
    ///
    /// ```
    /// # use mapleaf::{Db, MultiTable};
    /// # let db = Db::in_memory()?;
    /// const QUEUE: MultiTable<u8, &str> = MultiTable::new("queue");
    ///
    /// let txn = db.begin_write()?;
    /// let mut queue = txn.multi_table(QUEUE)?;
    /// queue.insert_all([(1, "wash"), (1, "peel"), (2, "cut")])?;
    /// assert_eq!(queue.pop_first()?, Some((1, "peel".to_string())));
    /// assert_eq!(queue.pop_last()?, Some((2, "cut".to_string())));
    /// assert_eq!(queue.len(), 1);
    /// # Ok::<(), mapleaf::Error>(())
    /// ```
    ///
    /// # Errors
    /// `Decode` if the pair does not decode: it stays. `DiskFull`, `Io`, `Corrupt`: abort the
    /// transaction.
    pub fn pop_first(&mut self) -> Result<Option<Owned<K, V>>> {
        self.pop(Side::First)
    }

    /// Removes the greatest key's greatest value and returns both; see
    /// [`pop_first`](MultiTableMut::pop_first).
    ///
    /// # Errors
    /// As [`pop_first`](MultiTableMut::pop_first).
    pub fn pop_last(&mut self) -> Result<Option<Owned<K, V>>> {
        self.pop(Side::Last)
    }

    fn pop(&mut self, side: Side) -> Result<Option<Owned<K, V>>> {
        self.access().check_process()?;
        let found = self.access().tree().outermost_pair(side);
        let found = found.and_then(|pair| {
            let Some(pair) = pair else { return Ok(None) };
            let (key, value) = decode_entry::<K, V>(pair)?;
            Ok(Some((K::to_owned(key), V::to_owned(value), pair.0.to_vec(), pair.1.to_vec())))
        });
        let Some((key, value, key_bytes, value_bytes)) = self.locate_fault(found)? else { return Ok(None) };
        self.change().run(|running, at| running.remove_value(at, &key_bytes, &value_bytes))?;
        Ok(Some((key, value)))
    }
}

/// The position of a cursor, kept while the table changes; see [`MultiTableMut::cursor_at`].
///
/// ```
/// # use mapleaf::{Db, MultiTable};
/// # let db = Db::in_memory()?;
/// const TAGS: MultiTable<&str, u64> = MultiTable::new("tags");
///
/// let txn = db.begin_write()?;
/// let mut tags = txn.multi_table(TAGS)?;
/// tags.insert_all([("blue", 1), ("red", 3), ("red", 7)])?;
/// let mut cursor = tags.cursor();
/// cursor.seek_pair("red", 3)?;
/// let position = cursor.position();
/// tags.remove("red", 3)?;
/// assert_eq!(tags.cursor_at(position.clone()).next()?, Some(("red", 7)));
/// assert_eq!(tags.cursor_at(position).prev()?, Some(("blue", 1)));
/// # Ok::<(), mapleaf::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct MultiPosition {
    spot: PairSpot,
}

/// A cursor that moves over the pairs of a multimap table and changes them, from
/// [`MultiTableMut::cursor`].
///
/// It stands at a pair, or at the place of a pair that the table does not have, or before all
/// values of a key, or before the first or after the last pair. [`next`](MultiCursorMut::next) and
/// [`prev`](MultiCursorMut::prev) go from there to the nearest pair. Items that it returns borrow
/// the cursor.
pub struct MultiCursorMut<'h, 't, K, V> {
    table: &'h mut MultiTableMut<'t, K, V>,
    spot: PairSpot,
}

impl<K: KeyCodec, V: KeyCodec> MultiCursorMut<'_, '_, K, V> {
    /// Goes to the first pair and returns it.
    ///
    /// # Errors
    /// `Corrupt` if a page is damaged, `Decode` if the pair does not decode; so do all methods that
    /// return a pair.
    pub fn first(&mut self) -> Result<Option<Typed<'_, K, V>>> {
        self.spot.leave(Side::First);
        self.move_by(|spot, tree| spot.step(tree, Side::Last))
    }

    /// Goes to the last pair and returns it.
    ///
    /// # Errors
    /// As [`first`](MultiCursorMut::first).
    pub fn last(&mut self) -> Result<Option<Typed<'_, K, V>>> {
        self.spot.leave(Side::Last);
        self.move_by(|spot, tree| spot.step(tree, Side::First))
    }

    /// Goes to the next greater pair and returns it: to the next value of the key, else to the
    /// first one of the next key. After the last one there is none, and the cursor stands after it.
    ///
    /// # Errors
    /// As [`first`](MultiCursorMut::first).
    #[allow(clippy::should_implement_trait, reason = "the items borrow the cursor")]
    pub fn next(&mut self) -> Result<Option<Typed<'_, K, V>>> {
        self.move_by(|spot, tree| spot.step(tree, Side::Last))
    }

    /// Goes to the next lower pair and returns it. Before the first one there is none, and the
    /// cursor stands before it.
    ///
    /// # Errors
    /// As [`first`](MultiCursorMut::first).
    pub fn prev(&mut self) -> Result<Option<Typed<'_, K, V>>> {
        self.move_by(|spot, tree| spot.step(tree, Side::First))
    }

    /// Goes to the first value of the next greater key. After the last key there is none, and the
    /// cursor stands after all pairs.
    ///
    /// # Errors
    /// As [`first`](MultiCursorMut::first).
    pub fn next_key(&mut self) -> Result<Option<Typed<'_, K, V>>> {
        self.move_by(|spot, tree| spot.step_key(tree, Side::Last))
    }

    /// Goes to the last value of the next lower key. Before the first key there is none, and the
    /// cursor stands before all pairs.
    ///
    /// # Errors
    /// As [`first`](MultiCursorMut::first).
    pub fn prev_key(&mut self) -> Result<Option<Typed<'_, K, V>>> {
        self.move_by(|spot, tree| spot.step_key(tree, Side::First))
    }

    /// Goes to the first value of a key and returns the pair. If the table does not have the key,
    /// the cursor stands at its place.
    ///
    /// # Errors
    /// As [`first`](MultiCursorMut::first), and `Usage` for a key that the codec cannot represent:
    /// the cursor has not moved.
    pub fn seek<'k>(&mut self, key: K::Key<'k>) -> Result<Option<Typed<'_, K, V>>> {
        self.spot.go_to_key(&K::encode_key(&key)?);
        self.move_by(|spot, tree| spot.enter(tree, Side::First))
    }

    /// Goes to the first value of this key, else to that of the next greater one.
    ///
    /// # Errors
    /// As [`seek`](MultiCursorMut::seek).
    pub fn seek_at_or_after<'k>(&mut self, key: K::Key<'k>) -> Result<Option<Typed<'_, K, V>>> {
        self.spot.go_to_key(&K::encode_key(&key)?);
        self.move_by(|spot, tree| spot.step(tree, Side::Last))
    }

    /// Goes to the last value of this key, else to that of the next lower one.
    ///
    /// # Errors
    /// As [`seek`](MultiCursorMut::seek).
    pub fn seek_at_or_before<'k>(&mut self, key: K::Key<'k>) -> Result<Option<Typed<'_, K, V>>> {
        self.spot.go_to_key(&K::encode_key(&key)?);
        self.move_by(|spot, tree| match spot.enter(tree, Side::Last)? {
            Some(pair) => Ok(Some(pair)),
            None => spot.step_key(tree, Side::First),
        })
    }

    /// Goes to a pair and returns it. If the table does not have it, the cursor stands at its
    /// place.
    ///
    /// ```
    /// # use mapleaf::{Db, MultiTable};
    /// # let db = Db::in_memory()?;
    /// const TAGS: MultiTable<&str, u64> = MultiTable::new("tags");
    ///
    /// let txn = db.begin_write()?;
    /// let mut tags = txn.multi_table(TAGS)?;
    /// tags.insert_all([("blue", 1), ("red", 3), ("red", 7)])?;
    /// let mut cursor = tags.cursor();
    /// assert_eq!(cursor.seek_pair("red", 7)?, Some(("red", 7)));
    /// assert_eq!(cursor.seek_pair("red", 5)?, None);
    /// assert_eq!(cursor.next()?, Some(("red", 7)));
    /// assert_eq!(cursor.prev_key()?, Some(("blue", 1)));
    /// # Ok::<(), mapleaf::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`seek`](MultiCursorMut::seek).
    pub fn seek_pair<'k, 'v>(&mut self, key: K::Key<'k>, value: V::Key<'v>) -> Result<Option<Typed<'_, K, V>>> {
        self.spot.go_to(&K::encode_key(&key)?, &V::encode_key(&value)?);
        self.current()
    }

    /// Goes to this pair, else to the next greater one, and returns it.
    ///
    /// # Errors
    /// As [`seek`](MultiCursorMut::seek).
    pub fn seek_pair_at_or_after<'k, 'v>(
        &mut self,
        key: K::Key<'k>,
        value: V::Key<'v>,
    ) -> Result<Option<Typed<'_, K, V>>> {
        self.seek_near(key, value, Side::Last)
    }

    /// Goes to this pair, else to the next lower one, and returns it.
    ///
    /// # Errors
    /// As [`seek`](MultiCursorMut::seek).
    pub fn seek_pair_at_or_before<'k, 'v>(
        &mut self,
        key: K::Key<'k>,
        value: V::Key<'v>,
    ) -> Result<Option<Typed<'_, K, V>>> {
        self.seek_near(key, value, Side::First)
    }

    fn seek_near<'k, 'v>(
        &mut self,
        key: K::Key<'k>,
        value: V::Key<'v>,
        towards: Side,
    ) -> Result<Option<Typed<'_, K, V>>> {
        self.spot.go_to(&K::encode_key(&key)?, &V::encode_key(&value)?);
        self.move_by(|spot, tree| match spot.current(tree)? {
            Some(pair) => Ok(Some(pair)),
            None => spot.step(tree, towards),
        })
    }

    /// Returns the pair that the cursor stands at, if there is one.
    ///
    /// # Errors
    /// As [`first`](MultiCursorMut::first).
    pub fn current(&mut self) -> Result<Option<Typed<'_, K, V>>> {
        self.move_by(|spot, tree| spot.current(tree))
    }

    /// Number of values of the key that the cursor stands at; 0 if the table does not have it.
    ///
    /// # Errors
    /// `Corrupt` if a page on the path is damaged.
    pub fn count(&mut self) -> Result<u64> {
        let MultiCursorMut { table, spot } = self;
        table.access().check_process()?;
        let count = spot.count(table.access().tree());
        table.locate_fault(count)
    }

    /// Returns the pair that [`next`](MultiCursorMut::next) would go to. The cursor does not move.
    ///
    /// # Errors
    /// As [`first`](MultiCursorMut::first).
    pub fn peek_next(&mut self) -> Result<Option<Typed<'_, K, V>>> {
        self.peek(Side::Last)
    }

    /// Returns the pair that [`prev`](MultiCursorMut::prev) would go to. The cursor does not move.
    ///
    /// # Errors
    /// As [`first`](MultiCursorMut::first).
    pub fn peek_prev(&mut self) -> Result<Option<Typed<'_, K, V>>> {
        self.peek(Side::First)
    }

    fn peek(&mut self, towards: Side) -> Result<Option<Typed<'_, K, V>>> {
        let mut ahead = self.spot.clone();
        decoded(self.table, |tree| ahead.step(tree, towards))
    }

    /// Adds a pair anywhere in the table, and goes to it. Returns whether it is new.
    ///
    /// # Errors
    /// As [`MultiTableMut::insert`]. After `TooLarge` and `Usage` the cursor has not moved.
    pub fn insert<'k, 'v>(&mut self, key: K::Item<'k>, value: V::Item<'v>) -> Result<bool> {
        let (key, value) = (K::encode(&key)?, V::encode(&value)?);
        self.spot.note_change();
        let is_new = self.table.change().run(|running, at| running.insert_value(at, &key, &value))?;
        self.spot.go_to(&key, &value);
        Ok(is_new)
    }

    /// Removes the pair that the cursor stands at. Returns false if it stands at none. The cursor
    /// stays at the place of the pair.
    ///
    /// # Errors
    /// As [`MultiTableMut::remove`].
    pub fn remove(&mut self) -> Result<bool> {
        self.spot.note_change();
        let Some((key, value)) = self.spot.pair() else { return Ok(false) };
        self.table.change().run(|running, at| running.remove_value(at, key, value))
    }

    /// Removes the key that the cursor stands at with all its values. Returns how many it had. The
    /// cursor stays where it is.
    ///
    /// # Errors
    /// As [`MultiTableMut::remove`].
    pub fn remove_all(&mut self) -> Result<u64> {
        self.spot.note_change();
        let Some(key) = self.spot.key() else { return Ok(0) };
        self.table.change().run(|running, at| running.remove_values(at, key))
    }

    /// Where the cursor stands, to make one there again after changes of the table.
    pub fn position(&self) -> MultiPosition {
        let mut spot = self.spot.clone();
        spot.note_change();
        MultiPosition { spot }
    }

    fn move_by(
        &mut self,
        find: impl for<'a> FnOnce(&mut PairSpot, tree::Tree<'a, TableAccess<'a>>) -> Result<Option<tree::Entry<'a>>>,
    ) -> Result<Option<Typed<'_, K, V>>> {
        let MultiCursorMut { table, spot } = self;
        decoded(table, |tree| find(spot, tree))
    }
}

/// Reads a pair of a table and decodes it.
pub(super) fn decoded<'h, K: KeyCodec, V: KeyCodec>(
    table: &'h MultiTableMut<'_, K, V>,
    find: impl FnOnce(tree::Tree<'h, TableAccess<'h>>) -> Result<Option<tree::Entry<'h>>>,
) -> Result<Option<Typed<'h, K, V>>> {
    table.access().check_process()?;
    let found = find(table.access().tree());
    table.locate_fault(found.and_then(|pair| pair.map(decode_entry::<K, V>).transpose()))
}

impl<K, V> fmt::Debug for MultiCursorMut<'_, '_, K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MultiCursorMut").field("table", &self.table.access().name()).field("spot", &self.spot).finish()
    }
}
