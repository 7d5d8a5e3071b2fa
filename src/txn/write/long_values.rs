//! Values that are written in place: from a `Read`, or by the caller that reserved the room.
//!
//! Floor: txn. The value is written into pages that no entry points at yet. Then an entry is put
//! that points at them. So an error before the put leaves the table as it was, and the pages are
//! freed.
//!
//! Invariants:
//!   LONG-1  while such pages are neither pointed at nor freed, the table counts as unfinished.
//!           So a caller that stops half-way, by a panic or by leaking the guard, cannot commit
//!           pages that are neither reachable nor free. Other tables can change meanwhile.
//!
//! Failure: the errors of [`RunningTxn::put`]. Errors of the `Read` are `Io`, and the transaction
//! stays usable.

use std::io::{self, Read};

use crate::error::{Error, Result};
use crate::ids::PagePtr;
use crate::limits;
use crate::mapping::OwnedExtent;
use crate::page::header::PageStamp;
use crate::page::layout::OVERFLOW_VALUE;
use crate::page::leaf::{LeafValue, OverflowPtr};
use crate::page::{checksum, overflow};
use crate::pager::write::overflow_writer::OverflowWriter;
use crate::pager::{PageRead as _, PageWrite as _};
use crate::tree::{self, TreeMut};
use crate::txn::env::Env;
use crate::txn::write::shared::TableChange;
use crate::txn::write::txn::{writer_of, RunningTxn};

/// Bytes in each read.
const READ_BYTES: usize = 64 << 10;

/// The error of the table while a value is unfinished.
const UNFINISHED: &str = "a value was begun and not finished";

/// Memory or pages reserved for a value that is not in its table yet.
#[derive(Debug)]
pub(crate) enum ReservedValue {
    /// A short value: in memory, until it is put into a leaf.
    Short(Vec<u8>),
    Long {
        extent: OwnedExtent,
        len: usize,
    },
}

impl ReservedValue {
    /// The bytes of the value.
    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            ReservedValue::Short(bytes) => bytes,
            ReservedValue::Long { extent, len } => {
                extent.bytes().get(OVERFLOW_VALUE..OVERFLOW_VALUE + len).unwrap_or(&[])
            }
        }
    }

    /// The bytes of the value, mutable.
    pub(crate) fn bytes_mut(&mut self, env: &Env) -> &mut [u8] {
        match self {
            ReservedValue::Long { len, .. } if env.is_inherited() => {
                // In a child after `fork` the pages belong to the parent. The child gets other
                // memory, whose bytes are dropped.
                *self = ReservedValue::Short(vec![0; *len]);
                self.bytes_mut(env)
            }
            ReservedValue::Short(bytes) => bytes,
            ReservedValue::Long { extent, len } => {
                extent.bytes_mut().get_mut(OVERFLOW_VALUE..OVERFLOW_VALUE + *len).unwrap_or(&mut [])
            }
        }
    }
}

impl TableChange<'_> {
    /// Stores the next `len` bytes of a `Read` as a value. Returns whether the key had an entry
    /// before. The `Read` runs between the operations and may use other tables.
    pub(crate) fn put_from(&mut self, key: &[u8], len: u64, from: &mut dyn Read) -> Result<bool> {
        let page_size = self.env().page_size;
        self.run(|running, at| running.check_table(at))?;
        tree::check_sizes(key, usize::try_from(len).unwrap_or(usize::MAX))?;
        self.run(|running, at| tree::check_inline_key(running.pages(), running.root(at), key))?;
        if len <= limits::max_inline_value_bytes(page_size) as u64 {
            let mut value = vec![0; len as usize];
            from.read_exact(&mut value).map_err(|e| reading_error(self.env(), e))?;
            return self.run(|running, at| running.put(at, key, &value, None));
        }
        let mut extent = self.run(|running, at| running.begin_value(at, len))?;
        let mut chunk = vec![0; READ_BYTES.min(len as usize)];
        let mut left = len;
        while left > 0 {
            let chunk = &mut chunk[..READ_BYTES.min(usize::try_from(left).unwrap_or(READ_BYTES))];
            let taken = from.read_exact(chunk);
            // The `Read` may have called `fork` and returned in the child.
            self.env().check_process()?;
            if let Err(e) = taken {
                self.run(|running, at| running.abandon_value(at, extent));
                return Err(reading_error(self.env(), e));
            }
            self.run(|running, at| running.add_to_value(at, &mut extent, chunk))?;
            left -= chunk.len() as u64;
        }
        self.run(|running, at| running.end_value(at, key, extent, len))
    }
}

#[cold]
fn reading_error(env: &Env, source: io::Error) -> Error {
    Error::Io { op: "reading the value that was to be stored", path: env.path().to_path_buf(), source }
}

impl RunningTxn {
    /// Begins a value that is written in parts.
    fn begin_value(&mut self, at: usize, len: u64) -> Result<OverflowWriter> {
        let ensured = self.ensure(len as usize);
        self.note(None, ensured)?;
        let tree = self.root(at).tree;
        let begun = OverflowWriter::begin(&mut writer_of(&mut self.writer).pages, tree, len);
        let extent = self.note(Some(at), begun)?;
        self.tables.begin(at, UNFINISHED);
        Ok(extent)
    }

    fn add_to_value(&mut self, at: usize, extent: &mut OverflowWriter, chunk: &[u8]) -> Result<()> {
        // Another table may have broken the transaction meanwhile.
        self.check_usable()?;
        let added = extent.add(&writer_of(&mut self.writer).pages, chunk);
        self.note(Some(at), added)
    }

    /// Frees the pages of a value that will not be completed.
    fn abandon_value(&mut self, at: usize, extent: OverflowWriter) {
        extent.abandon(&mut writer_of(&mut self.writer).pages);
        self.tables.finish(at);
    }

    /// Completes a value and puts its entry.
    fn end_value(&mut self, at: usize, key: &[u8], extent: OverflowWriter, len: u64) -> Result<bool> {
        self.check_usable()?;
        let ended = extent.finish(&mut writer_of(&mut self.writer).pages);
        let ptr = self.note(Some(at), ended)?;
        self.tables.finish(at);
        self.put_extent(at, key, OverflowPtr { ptr, len })
    }

    /// Reserves room for a value of `len` bytes, filled with zeros.
    pub(crate) fn reserve(&mut self, at: usize, key: &[u8], len: usize) -> Result<ReservedValue> {
        self.check_table(at)?;
        let page_size = self.env().page_size;
        tree::check_sizes(key, len)?;
        tree::check_inline_key(self.pages(), self.root(at), key)?;
        if len <= limits::max_inline_value_bytes(page_size) {
            return Ok(ReservedValue::Short(vec![0; len]));
        }
        let ensured = self.ensure(len);
        self.note(None, ensured)?;
        let (tree, count) = (self.root(at).tree, overflow::overflow_pages(page_size, len as u64));
        let pages = &mut writer_of(&mut self.writer).pages;
        let txn = pages.txn();
        let taken = pages.alloc_owned(count).map(|mut extent| {
            // The pages may hold bytes of another table or of a deleted value. The caller must not
            // see these bytes, and they must not stay in the parts that the caller does not write.
            let stamp = PageStamp::new(extent.id(), tree, txn);
            extent.bytes_mut().fill(0);
            overflow::begin(extent.bytes_mut(), page_size, stamp);
            extent
        });
        let extent = self.note(Some(at), taken)?;
        self.tables.begin(at, UNFINISHED);
        Ok(ReservedValue::Long { extent, len })
    }

    /// Puts the entry whose value is in a reserved place. Returns whether the key had an entry
    /// before.
    pub(crate) fn put_reserved(&mut self, at: usize, key: &[u8], place: ReservedValue) -> Result<bool> {
        match place {
            ReservedValue::Short(bytes) => self.put(at, key, &bytes, None),
            ReservedValue::Long { extent, len } => {
                self.check_usable()?;
                let (id, pages) = (extent.id(), extent.pages());
                let owner = &mut writer_of(&mut self.writer).pages;
                owner.take_back(extent);
                let sealed = owner.extent_mut(id, pages).map(checksum::seal);
                let crc = self.note(Some(at), sealed)?;
                self.tables.finish(at);
                let ptr = PagePtr { id, crc };
                writer_of(&mut self.writer).pages.set_verified_sealed(ptr);
                self.put_extent(at, key, OverflowPtr { ptr, len: len as u64 })
            }
        }
    }

    /// Frees the room of a reserved value.
    pub(crate) fn give_back(&mut self, at: usize, place: ReservedValue) {
        if self.env.is_inherited() {
            return;
        }
        if let (ReservedValue::Long { extent, .. }, Some(writer)) = (place, &mut self.writer) {
            let (txn, id, pages) = (writer.pages.txn(), extent.id(), extent.pages());
            writer.pages.take_back(extent);
            writer.pages.free(id, pages, txn);
            self.tables.finish(at);
        }
    }

    /// Puts an entry that points at an overflow extent.
    fn put_extent(&mut self, at: usize, key: &[u8], to: OverflowPtr) -> Result<bool> {
        let ensured = self.ensure(key.len());
        self.note(None, ensured)?;
        let table = &mut self.tables[at];
        let pages = &mut writer_of(&mut self.writer).pages;
        let done = TreeMut::new(pages, &mut table.record.root).put_value(key, LeafValue::Overflow(to));
        table.note_change();
        if done.is_ok() {
            self.record_extent(at, key, to)?;
        }
        self.note(Some(at), done)
    }

    /// Records the put of a value that lies in an extent.
    fn record_extent(&mut self, at: usize, key: &[u8], to: OverflowPtr) -> Result<()> {
        let writer = writer_of(&mut self.writer);
        if !writer.record.makes_room(key.len().saturating_add(usize::try_from(to.len).unwrap_or(usize::MAX))) {
            return Ok(());
        }
        let pages = overflow::overflow_pages(self.env.page_size, to.len);
        let extent = writer.pages.extent(to.ptr, pages);
        let value = extent.and_then(|extent| Ok(overflow::value(extent, to.ptr.id, to.len)?.to_vec()));
        let value = self.note(Some(at), value)?;
        self.record_put(at, key, &value);
        Ok(())
    }
}
