//! Bringing a table, or a range of its keys, into memory.
//!
//! Floor: table.
//!
//! Failure: damage and failed accesses, as of a lookup; pages that were read stay in memory.

use std::io;
use std::ops::{ControlFlow, RangeBounds};

use crate::error::{Error, Result};
use crate::table::bounds::ByteBounds;
use crate::table::codec::{Codec, KeyCodec};
use crate::table::{ReadMultiTable, ReadTable};

impl<K: KeyCodec, V: Codec> ReadTable<K, V> {
    /// Reads all pages of a range of keys from the disk, values included, so that the lookups and
    /// scans that follow find them in memory. Returns the number of these pages, also those that
    /// were in memory before.
    ///
    /// For the start of a program, before it serves requests. The pages are read in their order in
    /// the file, many at a time, which is faster than a scan if the entries were put in random
    /// order. All of them are verified. The call takes up to some 20 MiB of memory of its own. It
    /// reads as much as it is told to: pages that do not fit in memory evict others.
    ///
    /// ```
    /// # use mapleaf::{Db, Table};
    /// # let db = Db::in_memory()?;
    /// const AGES: Table<&str, u32> = Table::new("ages");
    /// # db.write(|txn| txn.table(AGES)?.insert("ada", 36))?;
    /// let ages = db.begin_read()?.table(AGES)?;
    /// assert_eq!(ages.warm(..)?, 1);
    /// assert_eq!(ages.warm("a".."b")?, 1);
    /// # Ok::<(), mapleaf::Error>(())
    /// ```
    ///
    /// # Errors
    /// `Usage` for a bound that the codec cannot represent, `Corrupt` for a damaged page, `Fault`
    /// for one that the kernel could not read. Pages that were read before stay in memory.
    pub fn warm<'k>(&self, range: impl RangeBounds<K::Key<'k>>) -> Result<u64> {
        self.warm_with(range, |_, _| ControlFlow::Continue(()))
    }

    /// Like [`warm`](ReadTable::warm), and from time to time calls `progress` with the number of
    /// pages done and of those that are known so far: more become known as branch pages are read.
    /// If it returns `Break`, the call stops; the pages that were read stay in memory.
    ///
    /// ```
    /// # use std::ops::ControlFlow;
    /// # use mapleaf::{Db, ErrorKind, Table};
    /// # let db = Db::in_memory()?;
    /// const AGES: Table<&str, u32> = Table::new("ages");
    /// let ages = db.begin_read()?.table(AGES)?;
    /// let stopped = ages.warm_with(.., |_done, _known| ControlFlow::Break(()));
    /// assert_eq!(stopped.unwrap_err().kind(), ErrorKind::Io);
    /// # Ok::<(), mapleaf::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`warm`](ReadTable::warm); `Io` with a source of kind `Interrupted` if `progress` stopped
    /// it.
    pub fn warm_with<'k>(
        &self,
        range: impl RangeBounds<K::Key<'k>>,
        mut progress: impl FnMut(u64, u64) -> ControlFlow<()>,
    ) -> Result<u64> {
        self.txn().check_process()?;
        let bounds = ByteBounds::of::<K>(&range)?;
        let warmed = self.tree().warm(bounds.low_ref(), bounds.high_ref(), &mut progress);
        match self.check_fault(warmed)? {
            Some(pages) => Ok(pages),
            None => {
                let source = io::Error::new(io::ErrorKind::Interrupted, "stopped by the caller");
                Err(Error::Io { op: "reading into memory", path: self.place().path.to_path_buf(), source })
            }
        }
    }
}

impl<K: KeyCodec, V: KeyCodec> ReadMultiTable<K, V> {
    /// Reads all pages of a range of keys from the disk, with all their values. See
    /// [`ReadTable::warm`].
    ///
    /// # Errors
    /// As there.
    pub fn warm<'k>(&self, range: impl RangeBounds<K::Key<'k>>) -> Result<u64> {
        self.table.warm(range)
    }

    /// Like [`warm`](ReadMultiTable::warm), with progress. See [`ReadTable::warm_with`].
    ///
    /// # Errors
    /// As there.
    pub fn warm_with<'k>(
        &self,
        range: impl RangeBounds<K::Key<'k>>,
        progress: impl FnMut(u64, u64) -> ControlFlow<()>,
    ) -> Result<u64> {
        self.table.warm_with(range, progress)
    }
}
