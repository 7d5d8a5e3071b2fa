//! Values that are written in place: from a `Read`, or by the caller that reserved the room.
//!
//! Floor: txn. The value is written into pages that no entry points at yet. Then an entry is put
//! that points at them. So an error before the put leaves the table as it was, and the pages are
//! freed.
//!
//! Invariants:
//!   LONG-1  while such pages are neither pointed at nor freed, the transaction counts as broken.
//!           So a caller that stops half-way, by a panic or by leaking the guard, cannot commit
//!           pages that are neither reachable nor free.
//!
//! Failure: the errors of [`WriteTxn::put`]. Errors of the `Read` are `Io`, and the transaction
//! stays usable.

use std::io::{self, Read};

use crate::error::{Error, Result};
use crate::ids::{PageId, PagePtr};
use crate::limits;
use crate::page::header::PageStamp;
use crate::page::layout::OVERFLOW_VALUE;
use crate::page::leaf::{LeafValue, OverflowPtr};
use crate::page::{checksum, overflow};
use crate::pager::write::overflow_writer::OverflowWriter;
use crate::pager::{PageRead as _, PageWrite as _};
use crate::tree::{self, TreeMut};
use crate::txn::write::txn::{writer_of, WriteTxn};

/// Bytes in each read.
const READ_BYTES: usize = 64 << 10;

/// The error of the transaction while a value is unfinished.
const UNFINISHED: &str = "a value was begun and not finished";

/// Memory or pages reserved for a value that is not in its table yet.
#[derive(Debug)]
pub(crate) enum ReservedValue {
    /// A short value: in memory, until it is put into a leaf.
    Short(Vec<u8>),
    Long {
        id: PageId,
        pages: u64,
        len: usize,
    },
}

impl WriteTxn {
    /// Stores the next `len` bytes of a `Read` as a value. Returns whether the key had an entry
    /// before.
    pub(crate) fn put_from(&mut self, at: usize, key: &[u8], len: u64, from: &mut dyn Read) -> Result<bool> {
        self.check_usable()?;
        let page_size = self.env().page_size;
        tree::check_sizes(page_size, key, usize::try_from(len).unwrap_or(usize::MAX))?;
        if len <= limits::max_inline_value_bytes(page_size) as u64 {
            let mut value = vec![0; len as usize];
            from.read_exact(&mut value).map_err(|e| self.reading_error(e))?;
            return self.put(at, key, &value, None);
        }
        let ensured = self.ensure(len as usize);
        self.note(None, ensured)?;
        let tree = self.root(at).tree;
        let begun = OverflowWriter::begin(&mut writer_of(&mut self.writer).pages, tree, len);
        let mut extent = self.note(Some(at), begun)?;
        self.broken = Some(UNFINISHED.to_string());
        let mut chunk = vec![0; READ_BYTES.min(len as usize)];
        let mut left = len;
        while left > 0 {
            let chunk = &mut chunk[..READ_BYTES.min(usize::try_from(left).unwrap_or(READ_BYTES))];
            if let Err(e) = from.read_exact(chunk) {
                self.env.check_process()?;
                extent.abandon(&mut writer_of(&mut self.writer).pages);
                self.broken = None;
                return Err(self.reading_error(e));
            }
            // The `Read` may have called `fork` and returned in the child.
            self.env.check_process()?;
            let added = extent.add(&writer_of(&mut self.writer).pages, chunk);
            self.note(Some(at), added)?;
            left -= chunk.len() as u64;
        }
        let ended = extent.finish(&mut writer_of(&mut self.writer).pages);
        self.broken = None;
        let ptr = self.note(Some(at), ended)?;
        self.put_extent(at, key, OverflowPtr { ptr, len })
    }

    /// Reserves room for a value of `len` bytes, filled with zeros.
    pub(crate) fn reserve(&mut self, at: usize, key: &[u8], len: usize) -> Result<ReservedValue> {
        self.check_usable()?;
        let page_size = self.env().page_size;
        tree::check_sizes(page_size, key, len)?;
        if len <= limits::max_inline_value_bytes(page_size) {
            return Ok(ReservedValue::Short(vec![0; len]));
        }
        let ensured = self.ensure(len);
        self.note(None, ensured)?;
        let (tree, count) = (self.root(at).tree, overflow::overflow_pages(page_size, len as u64));
        let pages = &mut writer_of(&mut self.writer).pages;
        let txn = pages.txn();
        let taken = pages.alloc(count).and_then(|id| {
            let extent = pages.extent_mut(id, count)?;
            // The pages may hold bytes of another table or of a deleted value. The caller must not
            // see these bytes, and they must not stay in the parts that the caller does not write.
            extent.fill(0);
            overflow::begin(extent, page_size, PageStamp { id, tree, txn });
            Ok(id)
        });
        let id = self.note(Some(at), taken)?;
        self.broken = Some(UNFINISHED.to_string());
        Ok(ReservedValue::Long { id, pages: count, len })
    }

    /// The bytes of a reserved value.
    pub(crate) fn reserved<'a>(&'a self, place: &'a ReservedValue) -> &'a [u8] {
        match place {
            ReservedValue::Short(bytes) => bytes,
            ReservedValue::Long { id, pages, len } => {
                let extent = self.pages().extent(PagePtr { id: *id, crc: 0 }, *pages);
                extent.ok().and_then(|extent| extent.get(OVERFLOW_VALUE..OVERFLOW_VALUE + len)).unwrap_or(&[])
            }
        }
    }

    /// The bytes of a reserved value, mutable.
    pub(crate) fn reserved_mut<'a>(&'a mut self, place: &'a mut ReservedValue) -> &'a mut [u8] {
        match place {
            ReservedValue::Short(bytes) => bytes,
            ReservedValue::Long { len, .. } if self.env.is_inherited() => {
                // In a child after `fork` the pages belong to the parent. The child gets other
                // memory, whose bytes are dropped.
                *place = ReservedValue::Short(vec![0; *len]);
                self.reserved_mut(place)
            }
            ReservedValue::Long { id, pages, len } => {
                let extent = writer_of(&mut self.writer).pages.extent_mut(*id, *pages);
                extent.ok().and_then(|extent| extent.get_mut(OVERFLOW_VALUE..OVERFLOW_VALUE + *len)).unwrap_or(&mut [])
            }
        }
    }

    /// Puts the entry whose value is in a reserved place. Returns whether the key had an entry
    /// before.
    pub(crate) fn put_reserved(&mut self, at: usize, key: &[u8], place: ReservedValue) -> Result<bool> {
        match place {
            ReservedValue::Short(bytes) => self.put(at, key, &bytes, None),
            ReservedValue::Long { id, pages, len } => {
                self.env.check_process()?;
                self.broken = None;
                let owner = &mut writer_of(&mut self.writer).pages;
                let sealed = owner.extent_mut(id, pages).map(checksum::seal);
                let crc = self.note(Some(at), sealed)?;
                let ptr = PagePtr { id, crc };
                writer_of(&mut self.writer).pages.set_verified_sealed(ptr);
                self.put_extent(at, key, OverflowPtr { ptr, len: len as u64 })
            }
        }
    }

    /// Frees the room of a reserved value.
    pub(crate) fn give_back(&mut self, place: &ReservedValue) {
        if self.env.is_inherited() {
            return;
        }
        if let (ReservedValue::Long { id, pages, .. }, Some(writer)) = (place, &mut self.writer) {
            let txn = writer.pages.txn();
            writer.pages.free(*id, *pages, txn);
            self.broken = None;
        }
    }

    /// Puts an entry that points at an overflow extent.
    fn put_extent(&mut self, at: usize, key: &[u8], to: OverflowPtr) -> Result<bool> {
        let ensured = self.ensure(0);
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

    #[cold]
    fn reading_error(&self, source: io::Error) -> Error {
        Error::Io { op: "reading the value that was to be stored", path: self.env().path().to_path_buf(), source }
    }
}
