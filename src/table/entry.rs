//! The entry of a key, in the style of the maps of the standard library: look once, then decide.
//!
//! Floor: table. An [`Entry`] borrows its table handle. It has looked its key up and keeps the way
//! to it (`tree/scan/spot.rs`), so reading the value does not search again. A change does.
//!
//! Failure: as in `write.rs` and `table_ref.rs`. An error leaves the entry as it was.

use std::fmt;

use crate::error::{Error, Result};
use crate::ids::PageId;
use crate::table::codec::{Codec, KeyCodec};
use crate::table::cursor::{locate_fault, read};
use crate::table::write::owned_value;
use crate::table::{decode_key, TableMut};
use crate::tree::Spot;

/// The entry of a key of a table, or its place; from [`TableMut::entry`].
#[derive(Debug)]
pub enum Entry<'h, 't, K, V> {
    /// The table has the key.
    Occupied(OccupiedEntry<'h, 't, K, V>),
    /// The table does not have the key.
    Vacant(VacantEntry<'h, 't, K, V>),
}

/// The entry of a key that the table has.
pub struct OccupiedEntry<'h, 't, K, V>(KnownKey<'h, 't, K, V>);

/// The place of a key that the table does not have.
pub struct VacantEntry<'h, 't, K, V>(KnownKey<'h, 't, K, V>);

struct KnownKey<'h, 't, K, V> {
    table: &'h mut TableMut<'t, K, V>,
    /// Stands at the key.
    spot: Spot,
}

impl<'t, K: KeyCodec, V: Codec> TableMut<'t, K, V> {
    /// Looks a key up, and returns its entry or its place, to read, store, change or remove it.
    ///
    /// ```
    /// # use mapleaf::{Db, Entry, Table};
    /// # let db = Db::in_memory()?;
    /// const HITS: Table<&str, u64> = Table::new("hits");
    ///
    /// let txn = db.begin_write()?;
    /// let mut hits = txn.table(HITS)?;
    /// for page in ["/", "/about", "/"] {
    ///     hits.entry(page)?.and_modify(|hits| hits + 1)?.or_insert(1)?;
    /// }
    /// assert_eq!(hits.get("/")?, Some(2));
    ///
    /// match hits.entry("/about")? {
    ///     Entry::Occupied(entry) if entry.get()? < 2 => drop(entry.remove()?),
    ///     Entry::Occupied(mut entry) => drop(entry.insert(0)?),
    ///     Entry::Vacant(_) => {}
    /// }
    /// assert_eq!(hits.get("/about")?, None);
    /// # Ok::<(), mapleaf::Error>(())
    /// ```
    ///
    /// # Errors
    /// `Usage` for a key that the codec cannot represent, `Corrupt` if a page on the path is
    /// damaged, `Fault` if the kernel could not read one.
    pub fn entry<'k>(&mut self, key: K::Item<'k>) -> Result<Entry<'_, 't, K, V>> {
        self.access().check_process()?;
        let mut spot = Spot::start();
        spot.go_to(&K::encode(&key)?);
        let found = spot.current(self.access().tree()).map(|entry| entry.is_some());
        let is_there = locate_fault(self, found)?;
        let known = KnownKey { table: self, spot };
        Ok(match is_there {
            true => Entry::Occupied(OccupiedEntry(known)),
            false => Entry::Vacant(VacantEntry(known)),
        })
    }
}

impl<'h, 't, K: KeyCodec, V: Codec> Entry<'h, 't, K, V> {
    /// The key.
    ///
    /// # Errors
    /// `Decode` if the codec does not decode what it has encoded.
    pub fn key(&self) -> Result<K::Item<'_>> {
        match self {
            Entry::Occupied(entry) => entry.key(),
            Entry::Vacant(entry) => entry.key(),
        }
    }

    /// Stores a value if the key has none. Returns the value that the key has then.
    ///
    /// # Errors
    /// `Decode` if the value that the key has does not decode; else as [`TableMut::insert`].
    pub fn or_insert<'v>(self, value: V::Item<'v>) -> Result<V::Item<'h>> {
        self.or_insert_with(|| value)
    }

    /// Like [`or_insert`](Entry::or_insert), and makes the value only if it is stored.
    ///
    /// # Errors
    /// As there.
    pub fn or_insert_with<'v>(self, make: impl FnOnce() -> V::Item<'v>) -> Result<V::Item<'h>> {
        match self {
            Entry::Occupied(entry) => entry.into_value(),
            Entry::Vacant(entry) => entry.insert(make()),
        }
    }

    /// If the key has a value, stores what `change` makes of it. A change that makes text or bytes
    /// borrows them from elsewhere; to change a text by itself, use [`OccupiedEntry::get`] and
    /// [`insert`](OccupiedEntry::insert).
    ///
    /// # Errors
    /// `Decode` if the value does not decode; else as [`TableMut::insert`].
    pub fn and_modify<'v>(mut self, change: impl FnOnce(V::Owned) -> V::Item<'v>) -> Result<Self> {
        if let Entry::Occupied(entry) = &mut self {
            let value = V::to_owned(entry.get()?);
            let value = locate_fault(entry.0.table, Ok(value))?;
            entry.0.put(&change(value), None)?;
        }
        Ok(self)
    }

    /// Stores a value, whether the key has one or not.
    ///
    /// # Errors
    /// As [`TableMut::insert`].
    pub fn insert_entry<'v>(self, value: V::Item<'v>) -> Result<OccupiedEntry<'h, 't, K, V>> {
        let (Entry::Occupied(OccupiedEntry(mut known)) | Entry::Vacant(VacantEntry(mut known))) = self;
        known.put(&value, None)?;
        Ok(OccupiedEntry(known))
    }
}

impl<'h, K: KeyCodec, V: Codec> OccupiedEntry<'h, '_, K, V> {
    /// The key.
    ///
    /// # Errors
    /// As [`Entry::key`].
    pub fn key(&self) -> Result<K::Item<'_>> {
        self.0.key()
    }

    /// The value. Does not search for the key again.
    ///
    /// # Errors
    /// `Decode` if the value does not decode, `Corrupt` if its page is damaged.
    pub fn get(&self) -> Result<V::Item<'_>> {
        let KnownKey { table, spot } = &self.0;
        value(table, spot)
    }

    /// Like [`get`](OccupiedEntry::get); the value borrows the table and not this entry.
    ///
    /// # Errors
    /// As there.
    pub fn into_value(self) -> Result<V::Item<'h>> {
        let KnownKey { table, spot } = self.0;
        value(table, &spot)
    }

    /// Replaces the value and returns the old one, as [`TableMut::insert`] does.
    ///
    /// # Errors
    /// As there.
    pub fn insert<'v>(&mut self, value: V::Item<'v>) -> Result<Option<V::Owned>> {
        let mut old = Vec::new();
        self.0.put(&value, Some(&mut old))?;
        Ok(owned_value::<V>(&old))
    }

    /// Removes the entry and returns its value, as [`TableMut::remove`] does.
    ///
    /// # Errors
    /// As there.
    pub fn remove(self) -> Result<Option<V::Owned>> {
        let KnownKey { table, spot } = self.0;
        let mut old = Vec::new();
        let Some(key) = spot.key() else { return Ok(None) };
        table.change().run(|running, at| running.delete(at, key, Some(&mut old)))?;
        Ok(owned_value::<V>(&old))
    }
}

impl<'h, K: KeyCodec, V: Codec> VacantEntry<'h, '_, K, V> {
    /// The key.
    ///
    /// # Errors
    /// As [`Entry::key`].
    pub fn key(&self) -> Result<K::Item<'_>> {
        self.0.key()
    }

    /// Stores a value and returns it as it was stored.
    ///
    /// # Errors
    /// As [`TableMut::insert`].
    pub fn insert<'v>(mut self, value: V::Item<'v>) -> Result<V::Item<'h>> {
        self.0.put(&value, None)?;
        OccupiedEntry(self.0).into_value()
    }
}

impl<K: KeyCodec, V: Codec> KnownKey<'_, '_, K, V> {
    fn key(&self) -> Result<K::Item<'_>> {
        let access = self.table.access();
        decode_key::<K>(self.spot.key().unwrap_or_default())
            .map_err(|e| e.with_path(access.path()).with_table(access.name()))
    }

    fn put(&mut self, value: &V::Item<'_>, old: Option<&mut Vec<u8>>) -> Result<bool> {
        let value = V::encode(value)?;
        self.spot.note_change();
        let Some(key) = self.spot.key() else { return Ok(false) };
        self.table.change().run(|running, at| running.put(at, key, &value, old))
    }
}

/// The value at a spot.
fn value<'h, K: KeyCodec, V: Codec>(table: &'h TableMut<'_, K, V>, spot: &Spot) -> Result<V::Item<'h>> {
    let gone = || Error::corrupt(PageId::NONE, "an entry is gone that was there before");
    Ok(read(table, |tree| spot.clone().current(tree))?.ok_or_else(gone)?.1)
}

impl<K, V> fmt::Debug for OccupiedEntry<'_, '_, K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("OccupiedEntry").field(&self.0.spot).finish()
    }
}

impl<K, V> fmt::Debug for VacantEntry<'_, '_, K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("VacantEntry").field(&self.0.spot).finish()
    }
}
