//! Byte values that are written directly to their final place: reserved and filled in, or read from
//! a reader.
//!
//! Floor: table.
//!
//! Failure: the table does not change before the value is complete.

use std::io::Read;
use std::ops::{Deref, DerefMut};

use crate::error::Result;
use crate::table::codec::KeyCodec;
use crate::table::TableMut;
use crate::txn::write::long_values::ReservedValue;
use crate::txn::write::shared::TableChange;

impl<K: KeyCodec> TableMut<'_, K, &'static [u8]> {
    /// Stores the next `len` bytes of a reader as the value of a key, without holding all of them
    /// in memory. Returns whether the key existed.
    ///
    /// ```
    /// # use mapleaf::{Db, Table};
    /// # let db = Db::in_memory()?;
    /// const FILES: Table<&str, &[u8]> = Table::new("files");
    ///
    /// let text = "long ".repeat(100_000);
    /// let txn = db.begin_write()?;
    /// let mut files = txn.table(FILES)?;
    /// assert!(!files.insert_reader("a", text.len() as u64, text.as_bytes())?);
    /// assert_eq!(files.get("a")?, Some(text.as_bytes()));
    /// # Ok::<(), mapleaf::Error>(())
    /// ```
    ///
    /// # Errors
    /// `Io` if the reader fails or ends early, `TooLarge` or `Usage` as
    /// [`insert`](TableMut::insert): nothing was changed, and the transaction can go on.
    /// `DiskFull`, `Io` of the file, `Corrupt`: abort the transaction.
    pub fn insert_reader<'k>(&mut self, key: K::Item<'k>, len: u64, mut from: impl Read) -> Result<bool> {
        self.change().put_from(&K::encode(&key)?, len, &mut from)
    }

    /// Reserves space for a value of `len` bytes that the caller then fills in, which saves a copy
    /// of a long value. The bytes are zeros at first. [`Reserved::finish`] stores the entry;
    /// without it nothing changes.
    ///
    /// ```
    /// # use mapleaf::{Db, Table};
    /// # let db = Db::in_memory()?;
    /// const IMAGES: Table<u32, &[u8]> = Table::new("images");
    ///
    /// let txn = db.begin_write()?;
    /// let mut images = txn.table(IMAGES)?;
    /// let mut place = images.reserve(7, 1 << 20)?;
    /// place.iter_mut().step_by(2).for_each(|byte| *byte = 255);
    /// assert!(!place.finish()?);
    /// assert_eq!(images.get(7)?.map(<[u8]>::len), Some(1 << 20));
    /// # Ok::<(), mapleaf::Error>(())
    /// ```
    ///
    /// # Errors
    /// `TooLarge` or `Usage` as [`insert`](TableMut::insert): nothing was changed. `DiskFull`,
    /// `Io`, `Corrupt`: abort the transaction.
    pub fn reserve<'k>(&mut self, key: K::Item<'k>, len: usize) -> Result<Reserved<'_>> {
        let key = K::encode(&key)?.to_vec();
        let mut table = self.change();
        let place = table.run(|running, at| running.reserve(at, &key, len))?;
        Ok(Reserved { table, key, place: Some(place) })
    }
}

/// Space for a value that is being filled in, from [`TableMut::reserve`].
#[must_use = "the entry is stored when `finish` is called"]
pub struct Reserved<'t> {
    table: TableChange<'t>,
    key: Vec<u8>,
    /// `None` only after `finish`.
    place: Option<ReservedValue>,
}

impl Reserved<'_> {
    /// Stores the entry. Returns whether the key existed.
    ///
    /// # Errors
    /// `DiskFull`, `Io`, `Corrupt`: abort the transaction.
    pub fn finish(mut self) -> Result<bool> {
        match self.place.take() {
            Some(place) => self.table.run(|running, at| running.put_reserved(at, &self.key, place)),
            None => Ok(false),
        }
    }
}

impl Deref for Reserved<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.place {
            Some(place) => place.bytes(),
            None => &[],
        }
    }
}

impl DerefMut for Reserved<'_> {
    fn deref_mut(&mut self) -> &mut [u8] {
        match &mut self.place {
            Some(place) => place.bytes_mut(self.table.env()),
            None => &mut [],
        }
    }
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        if let Some(place) = self.place.take() {
            self.table.run(|running, at| running.give_back(at, place));
        }
    }
}

impl std::fmt::Debug for Reserved<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reserved").field("len", &self.len()).finish_non_exhaustive()
    }
}
