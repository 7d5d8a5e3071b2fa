//! Reading leaf pages: sorted entries of key and value.
//!
//! Floor: page. `leaf_mut` writes what this module reads; `layout` shows the layout.
//!
//! Invariants ([`Leaf::parse`] checks LEAF-1, [`Leaf::verify`] the others):
//!   LEAF-1  kind, level 0, no unknown flag, own id; lower = 32 + 6 * count <= upper <= page size.
//!   LEAF-2  keys ascend strictly.
//!   LEAF-3  all keys begin with the same `prefix_bytes` bytes. Of a long key the page holds a head
//!       more than that.
//!   LEAF-4  head i is the head of key i after the prefix.
//!   LEAF-5  the entries fill the page from `upper` to its end without gap or overlap, in any
//!       order. Keys are stored whole, or as described in `key`; only heads leave out the prefix.
//!   LEAF-6  a page with a long key has the flag for it.
//!
//! A search in a page with the flag may need a long key from its extent. It gets it by
//! [`WholeKeys`], and only if the bytes in the page do not decide. Pages without the flag are
//! searched without a look at the entries' kind of key.
//!
//! Failure: an offset or length that leaves the page, or an impossible pointer, is a `DecodeError`
//! of the call that reads it. A page that breaks LEAF-2 to LEAF-5 gives wrong answers but no panic;
//! its checksum protects against that.

mod facts;
pub(super) mod verify;

use std::cmp::Ordering;

pub(crate) use super::leaf_mut::{build, entry_size, LeafMut};

use super::header::{self, PageKind};
use super::key::{LongKey, PageKey, WholeKeys};
use super::layout::{
    get_u16, get_u32, get_u48, get_u64, head_of, COUNT, ENTRY_HEADER_BYTES, FLAGS, HEADER_BYTES, HEAD_BYTES, ID,
    KEY_BYTES_BITS, KEY_BYTES_MAX, KIND, LEAF_ARRAY_BYTES, LEAF_HEADS, LONG_KEY, LONG_KEY_PTR_BYTES, LOWER,
    OVERFLOW_PTR_BYTES, PREFIX_BYTES, SLOT_BYTES, UPPER, VALUE_KIND_BIT, VALUE_TREE_BYTES,
};
use super::order::are_page_flags;
use super::{bad, compare_prefix, heads};
use crate::error::DecodeError;
use crate::ids::{PageId, PagePtr};
use crate::limits::{DEPTH_MAX, MAX_VALUE_BYTES};
use crate::sys::prefetch;

/// A pointer to a value in an overflow extent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct OverflowPtr {
    /// First page and checksum of the extent.
    pub(crate) ptr: PagePtr,
    /// Length of the value in bytes.
    pub(crate) len: u64,
}

/// A pointer to the values of one key, in a tree of their own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ValueTree {
    /// The root. Its checksum is not known before `seal` while the page is dirty.
    pub(crate) ptr: PagePtr,
    /// Levels, at least 1.
    pub(crate) height: u8,
    /// Number of values, at least 1.
    pub(crate) count: u64,
}

/// The value of an entry: in the leaf, or in an overflow extent. In a multimap table the values: in
/// the leaf, or in a value tree.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum LeafValue<'a> {
    Inline(&'a [u8]),
    Overflow(OverflowPtr),
    Set(&'a [u8]),
    Tree(ValueTree),
}

/// Value kinds of an entry, as stored.
pub(super) const INLINE: u16 = 0;
pub(super) const OVERFLOW: u16 = 1;
pub(super) const SET: u16 = 2;
pub(super) const TREE: u16 = 3;

/// A parsed leaf page, read-only.
#[derive(Clone, Copy)]
pub(crate) struct Leaf<'a> {
    page: &'a [u8],
    id: PageId,
    count: usize,
    prefix_bytes: usize,
    upper: usize,
}

/// Offset and lengths of an entry that was checked to lie inside the page.
#[derive(Clone, Copy)]
pub(super) struct EntryAt {
    pub(super) offset: usize,
    /// Bytes of the key in the page, with the pointer of a long key.
    pub(super) key_bytes: usize,
    pub(super) value_bytes: usize,
    /// The first word.
    word: u16,
}

impl EntryAt {
    /// Bytes of the entry from `offset` on.
    #[inline]
    pub(super) fn bytes(&self) -> usize {
        ENTRY_HEADER_BYTES + self.key_bytes + self.value_bytes
    }

    /// Offset of the value part.
    #[inline]
    pub(super) fn value_offset(&self) -> usize {
        self.offset + ENTRY_HEADER_BYTES + self.key_bytes
    }

    #[inline(always)]
    fn is_long(&self) -> bool {
        self.word & LONG_KEY != 0
    }
}

impl<'a> Leaf<'a> {
    /// Reads page `id` as a leaf.
    #[inline]
    pub(crate) fn parse(page: &'a [u8], id: PageId) -> Result<Leaf<'a>, DecodeError> {
        const LEAF_LEVEL_0: u16 = PageKind::Leaf as u16;
        let reject = || header::reject(page, id, PageKind::Leaf, LEAF_HEADS, LEAF_ARRAY_BYTES);
        let Some(bytes) = page.first_chunk::<HEADER_BYTES>() else { return Err(reject()) };
        let count = usize::from(get_u16(bytes, COUNT));
        let lower = usize::from(get_u16(bytes, LOWER));
        let upper = usize::from(get_u16(bytes, UPPER));
        // One conditional jump for all checks, since they almost never fail.
        let good = (get_u16(bytes, KIND) == LEAF_LEVEL_0)
            & are_page_flags(get_u16(bytes, FLAGS))
            & (get_u48(bytes, ID) == id.0)
            & (lower == LEAF_HEADS + LEAF_ARRAY_BYTES * count)
            & (lower <= upper)
            & (upper <= page.len());
        if !good {
            return Err(reject());
        }
        Ok(Leaf { page, id, count, prefix_bytes: usize::from(get_u16(bytes, PREFIX_BYTES)), upper })
    }

    /// For `LeafMut`, which has parsed the page and keeps these fields up to date.
    #[inline]
    pub(super) fn trusted(page: &'a [u8], id: PageId, count: usize, prefix_bytes: usize, upper: usize) -> Leaf<'a> {
        Leaf { page, id, count, prefix_bytes, upper }
    }

    /// Number of entries.
    #[inline]
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// The whole page.
    #[inline]
    pub(crate) fn page(&self) -> &'a [u8] {
        self.page
    }

    /// Whether the page may hold long keys (LEAF-6).
    #[inline]
    pub(crate) fn has_long_keys(&self) -> bool {
        header::has_long_keys(self.page)
    }

    /// The page's id.
    #[inline]
    pub(crate) fn id(&self) -> PageId {
        self.id
    }

    /// Length of the prefix that all keys share and heads leave out.
    #[inline]
    pub(crate) fn prefix_bytes(&self) -> usize {
        self.prefix_bytes
    }

    /// Start of the lowest entry.
    #[inline]
    pub(crate) fn upper(&self) -> usize {
        self.upper
    }

    /// Bytes between the arrays and the entries.
    #[cfg(test)]
    pub(crate) fn free_bytes(&self) -> usize {
        self.upper - (LEAF_HEADS + LEAF_ARRAY_BYTES * self.count)
    }

    /// Average bytes of an entry.
    #[inline]
    pub(crate) fn mean_entry_bytes(&self) -> usize {
        (self.page.len() - self.upper) / self.count.max(1)
    }

    /// Bytes of all entries with their heads and slots.
    pub(crate) fn used_bytes(&self) -> usize {
        LEAF_ARRAY_BYTES * self.count + (self.page.len() - self.upper)
    }

    /// The page from its first head on: heads, slots, and all bytes after them.
    #[inline]
    fn heads(&self) -> &'a [u8] {
        self.page.get(LEAF_HEADS..).unwrap_or(&[])
    }

    /// Prefetches the first bytes of entry `index` into the CPU cache; arbitrary bytes if the index
    /// is out of range.
    #[inline(always)]
    pub(crate) fn fetch_entry(&self, index: usize, bytes: usize) {
        let Some(entry) = self.page.get(self.slot(index)..) else { return };
        let entry = &entry[..bytes.min(entry.len())];
        prefetch::lines(entry);
        if let Some(last) = entry.last() {
            prefetch::value(last);
        }
    }

    /// Offset of entry `index`; an arbitrary number if the index is out of range.
    #[inline]
    pub(super) fn slot(&self, index: usize) -> usize {
        usize::from(get_u16(self.page, LEAF_HEADS + HEAD_BYTES * self.count + SLOT_BYTES * index))
    }

    /// Index of the entry of `key`, if the leaf has it.
    #[inline]
    pub(crate) fn find<K: WholeKeys>(&self, keys: &K, key: &[u8]) -> Result<Option<usize>, K::Error> {
        // If the key lacks the prefix, the comparison of whole keys below fails.
        let Some(rest) = key.get(self.prefix_bytes..) else { return Ok(None) };
        let head = head_of(rest);
        let index = heads::count_less(self.heads(), self.count, head);
        if index >= self.count || heads::get(self.heads(), index) != head {
            return Ok(None);
        }
        if !self.has_long_keys() && self.inline_key(index)? == key {
            return Ok(Some(index));
        }
        let (index, found) = self.search_equal_heads(keys, index, head, key)?;
        Ok(found.then_some(index))
    }

    /// Index of the first entry whose key is at least `key`, and whether that key is equal.
    #[inline]
    pub(crate) fn lower_bound<K: WholeKeys>(&self, keys: &K, key: &[u8]) -> Result<(usize, bool), K::Error> {
        self.lower_bound_telling(keys, key, |_| ())
    }

    /// Like [`Leaf::lower_bound`]. Before any entry is read, calls `tell` with the index that the
    /// heads give, which is nearly always the result.
    #[inline]
    pub(crate) fn lower_bound_telling<K: WholeKeys>(
        &self,
        keys: &K,
        key: &[u8],
        tell: impl FnOnce(usize),
    ) -> Result<(usize, bool), K::Error> {
        if self.count == 0 {
            return Ok((0, false));
        }
        let head = head_of(key.get(self.prefix_bytes..).unwrap_or(&[]));
        let index = heads::count_less(self.heads(), self.count, head);
        tell(index);
        if self.prefix_bytes > 0 {
            // All keys have the prefix (LEAF-3): read it from the entry that is likely to be read
            // next.
            match compare_prefix(key, self.prefix_of(index.min(self.count - 1))?) {
                Ordering::Less => return Ok((0, false)),
                Ordering::Greater => return Ok((self.count, false)),
                Ordering::Equal => {}
            }
        }
        if index >= self.count || heads::get(self.heads(), index) != head {
            return Ok((index, false));
        }
        self.search_equal_heads(keys, index, head, key)
    }

    /// Lower bound of `key` among the entries from `first` on that have the head of `key`.
    #[inline(never)]
    fn search_equal_heads<K: WholeKeys>(
        &self,
        keys: &K,
        first: usize,
        head: u32,
        key: &[u8],
    ) -> Result<(usize, bool), K::Error> {
        if self.has_long_keys() {
            return self.search_by(first, head, |index| keys.compare(self.key(index)?, key));
        }
        Ok(self.search_by(first, head, |index| Ok::<_, DecodeError>(self.inline_key(index)?.cmp(key)))?)
    }

    /// Lower bound among the entries from `first` on that have this head. `compare` compares the
    /// key of an entry with the one that is searched.
    #[inline(always)]
    fn search_by<E>(
        &self,
        first: usize,
        head: u32,
        compare: impl Fn(usize) -> Result<Ordering, E>,
    ) -> Result<(usize, bool), E> {
        match compare(first)? {
            Ordering::Equal => return Ok((first, true)),
            Ordering::Greater => return Ok((first, false)),
            Ordering::Less => {}
        }
        let (mut low, mut high) = (first + 1, heads::count_less_or_equal(self.heads(), self.count, head));
        while low < high {
            let middle = low + (high - low) / 2;
            match compare(middle)? {
                Ordering::Equal => return Ok((middle, true)),
                Ordering::Greater => high = middle,
                Ordering::Less => low = middle + 1,
            }
        }
        Ok((low, false))
    }

    /// The prefix that all keys share. The leaf must have an entry.
    pub(super) fn prefix(&self) -> Result<&'a [u8], DecodeError> {
        self.prefix_of(0)
    }

    /// The prefix, read from the key of entry `index`.
    fn prefix_of(&self, index: usize) -> Result<&'a [u8], DecodeError> {
        let key = self.inline_key(index)?;
        key.get(..self.prefix_bytes)
            .ok_or_else(|| bad(self.id, "prefix length", self.prefix_bytes as u64, key.len() as u64))
    }

    /// Finds the parts of entry `index`. Each length is read once; the result lies inside the page.
    #[inline]
    pub(super) fn locate(&self, index: usize) -> Result<EntryAt, DecodeError> {
        if index >= self.count {
            return Err(bad(self.id, "entry index", index as u64, self.count as u64));
        }
        let offset = self.slot(index);
        let Some(&[k0, k1, v0, v1]) =
            self.page.get(offset..).and_then(|entry| entry.first_chunk::<ENTRY_HEADER_BYTES>())
        else {
            return Err(bad(self.id, "leaf slot", offset as u64, self.page.len() as u64));
        };
        let word = u16::from_le_bytes([k0, k1]);
        let entry = EntryAt {
            offset,
            key_bytes: (usize::from(word) & KEY_BYTES_MAX)
                + usize::from(word >> KEY_BYTES_BITS & 1) * LONG_KEY_PTR_BYTES,
            value_bytes: usize::from(u16::from_le_bytes([v0, v1])),
            word,
        };
        if offset + entry.bytes() > self.page.len() {
            return Err(bad(self.id, "entry length", entry.bytes() as u64, (self.page.len() - offset) as u64));
        }
        Ok(entry)
    }

    /// The key bytes that the page holds of an entry.
    #[inline]
    fn bytes_at(&self, entry: EntryAt) -> &'a [u8] {
        let start = entry.offset + ENTRY_HEADER_BYTES;
        let bytes = usize::from(entry.word) & KEY_BYTES_MAX;
        self.page.get(start..start + bytes).unwrap_or(&[])
    }

    #[inline]
    fn key_at(&self, entry: EntryAt) -> Result<PageKey<'a>, DecodeError> {
        let bytes = self.bytes_at(entry);
        if !entry.is_long() {
            return Ok(PageKey { bytes, long: None });
        }
        let pointer = self.page.get(entry.value_offset() - LONG_KEY_PTR_BYTES..).unwrap_or(&[]);
        Ok(PageKey { bytes, long: Some(LongKey::decode(pointer, self.id, bytes.len())?) })
    }

    #[inline]
    fn value_at(&self, entry: EntryAt) -> Result<LeafValue<'a>, DecodeError> {
        let start = entry.value_offset();
        let part = self.page.get(start..start + entry.value_bytes).unwrap_or(&[]);
        match entry.word >> VALUE_KIND_BIT {
            INLINE => Ok(LeafValue::Inline(part)),
            OVERFLOW => self.overflow_ptr(part).map(LeafValue::Overflow),
            SET => Ok(LeafValue::Set(part)),
            // The kind has two bits.
            _ => self.value_tree(part).map(LeafValue::Tree),
        }
    }

    fn value_tree(&self, part: &[u8]) -> Result<ValueTree, DecodeError> {
        if part.len() != VALUE_TREE_BYTES {
            return Err(bad(
                self.id,
                "length of the pointer to a value tree",
                part.len() as u64,
                VALUE_TREE_BYTES as u64,
            ));
        }
        let (root, height, count) = (get_u48(part, 0), part[10], get_u64(part, 12));
        if root < 2 {
            return Err(bad(self.id, "root page of a value tree", root, 2));
        }
        if height == 0 || usize::from(height) > DEPTH_MAX {
            return Err(bad(self.id, "height of a value tree", height.into(), DEPTH_MAX as u64));
        }
        if count == 0 {
            return Err(bad(self.id, "number of values in a value tree", 0, 1));
        }
        Ok(ValueTree { ptr: PagePtr { id: PageId(root), crc: get_u32(part, 6) }, height, count })
    }

    fn overflow_ptr(&self, part: &[u8]) -> Result<OverflowPtr, DecodeError> {
        if part.len() != OVERFLOW_PTR_BYTES {
            return Err(bad(self.id, "overflow pointer length", part.len() as u64, OVERFLOW_PTR_BYTES as u64));
        }
        let (first, len) = (get_u48(part, 0), get_u64(part, 10));
        if first < 2 {
            return Err(bad(self.id, "overflow pointer page", first, 2));
        }
        if len > MAX_VALUE_BYTES {
            return Err(bad(self.id, "overflow value length", len, MAX_VALUE_BYTES));
        }
        Ok(OverflowPtr { ptr: PagePtr { id: PageId(first), crc: get_u32(part, 6) }, len })
    }

    /// The key of entry `index`.
    #[inline]
    pub(crate) fn key(&self, index: usize) -> Result<PageKey<'a>, DecodeError> {
        self.locate(index).and_then(|entry| self.key_at(entry))
    }

    /// The key bytes that the page holds of entry `index`: the whole key, unless it is long.
    #[inline]
    pub(crate) fn inline_key(&self, index: usize) -> Result<&'a [u8], DecodeError> {
        self.locate(index).map(|entry| self.bytes_at(entry))
    }

    /// The value of entry `index`.
    #[inline]
    pub(crate) fn value(&self, index: usize) -> Result<LeafValue<'a>, DecodeError> {
        self.locate(index).and_then(|entry| self.value_at(entry))
    }

    /// Key and value of entry `index`.
    #[inline]
    pub(crate) fn entry(&self, index: usize) -> Result<(PageKey<'a>, LeafValue<'a>), DecodeError> {
        match self.inline_entry(index) {
            Some((key, value)) => Ok((PageKey::from(key), LeafValue::Inline(value))),
            None => self.other_entry(index),
        }
    }

    /// An entry with an overflow extent, or a damaged one.
    #[cold]
    #[inline(never)]
    fn other_entry(&self, index: usize) -> Result<(PageKey<'a>, LeafValue<'a>), DecodeError> {
        let entry = self.locate(index)?;
        Ok((self.key_at(entry)?, self.value_at(entry)?))
    }

    /// Key and value of entry `index` if the entry is well-formed, its key short and its value
    /// inline. `None`: the caller uses [`Leaf::entry`]. For scans: this result fits registers, the
    /// larger one of `entry` does not.
    #[inline(always)]
    pub(crate) fn inline_entry(&self, index: usize) -> Option<(&'a [u8], &'a [u8])> {
        if index >= self.count {
            return None;
        }
        let rest = self.page.get(self.slot(index)..)?;
        let &[k0, k1, v0, v1] = rest.first_chunk::<ENTRY_HEADER_BYTES>()?;
        let word = usize::from(u16::from_le_bytes([k0, k1]));
        if word >> KEY_BYTES_BITS != usize::from(INLINE) {
            return None;
        }
        let key_end = ENTRY_HEADER_BYTES + (word & KEY_BYTES_MAX);
        let value_end = key_end + usize::from(u16::from_le_bytes([v0, v1]));
        let entry = rest.get(..value_end)?;
        let (key, value) = entry.split_at_checked(key_end)?;
        Some((key.get(ENTRY_HEADER_BYTES..)?, value))
    }

    /// Bytes of entry `index` with its head and slot.
    #[cfg(test)]
    pub(crate) fn entry_bytes(&self, index: usize) -> Result<usize, DecodeError> {
        self.locate(index).map(|entry| LEAF_ARRAY_BYTES + entry.bytes())
    }

    /// The lowest key; an error if the leaf is empty.
    pub(crate) fn first_key(&self) -> Result<PageKey<'a>, DecodeError> {
        self.key(0)
    }

    /// The highest key; an error if the leaf is empty.
    pub(crate) fn last_key(&self) -> Result<PageKey<'a>, DecodeError> {
        self.key(self.count.wrapping_sub(1))
    }
}

#[cfg(test)]
mod tests;
