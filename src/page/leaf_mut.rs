//! Changing leaf pages: insert, remove, replace in place, and building whole pages.
//!
//! Floor: page. Keeps the invariants LEAF-1 to LEAF-5. A newly built or copied page has its entries
//! in ascending order of key and offset; an insertion puts the entry below all others, whatever its
//! key.
//!
//! Building a page gives it the longest prefix that all its keys share. A change in place never
//! makes the prefix longer: an insertion shortens it if the new key does not begin with it, and a
//! removal leaves it as it is. An empty leaf has no prefix; its first entry makes the whole key the
//! prefix.
//!
//! A leaf whose keys are not in bytewise order has no prefix.
//!
//! A long key bounds the prefix: the page holds a head more of it (LEAF-3).
//!
//! Failure: `false` means that there is no room and that the page is untouched. A copied page may
//! be damaged in any way: that is a `DecodeError`, never a panic.

use super::header::{self, PageKind, PageStamp};
use super::key::PageKey;
use super::layout::{
    get_u16, head_of, put_u16, put_u32, put_u48, put_u64, COUNT, ENTRY_HEADER_BYTES, HEADER_BYTES, HEAD_BYTES,
    KEY_BYTES_MAX, LEAF_ARRAY_BYTES, LEAF_HEADS, LONG_KEY, LOWER, OVERFLOW_PTR_BYTES, PREFIX_BYTES, SLOT_BYTES, UPPER,
    VALUE_KIND_BIT, VALUE_TREE_BYTES,
};
use super::leaf::{EntryAt, Leaf, LeafValue, INLINE, OVERFLOW, SET, TREE};
use super::order::page_order_flags;
use super::{bad, common_prefix_bytes};
use crate::error::DecodeError;
use crate::ids::PageId;
use crate::limits::page_size_ok;

/// A parsed leaf page that can be changed.
pub(crate) struct LeafMut<'a> {
    pub(super) page: &'a mut [u8],
    pub(super) id: PageId,
    count: usize,
    prefix_bytes: usize,
    pub(super) upper: usize,
}

/// Bytes of the value part of an entry.
fn stored_bytes(value: LeafValue<'_>) -> usize {
    match value {
        LeafValue::Inline(bytes) | LeafValue::Set(bytes) => bytes.len(),
        LeafValue::Overflow(_) => OVERFLOW_PTR_BYTES,
        LeafValue::Tree(_) => VALUE_TREE_BYTES,
    }
}

/// Bytes of an entry in a leaf, with its head and slot.
#[inline]
pub(crate) fn entry_size<'k>(key: impl Into<PageKey<'k>>, value: LeafValue<'_>) -> usize {
    LEAF_ARRAY_BYTES + ENTRY_HEADER_BYTES + key.into().stored_bytes() + stored_bytes(value)
}

/// Whether the lengths fit the header of an entry.
fn describable(key: PageKey<'_>, value: LeafValue<'_>) -> bool {
    key.bytes.len() <= KEY_BYTES_MAX && stored_bytes(value) <= usize::from(u16::MAX)
}

/// Longest prefix of a page that holds this key: all of a short key, all but a head of the bytes
/// that the page holds of a long one.
fn prefix_max(key: PageKey<'_>) -> usize {
    match key.long {
        None => key.bytes.len(),
        Some(_) => key.bytes.len().saturating_sub(HEAD_BYTES),
    }
}

/// Writes the first word of an entry and the length of its value part. `key_word` is the length of
/// the key in the page, with the bit of a long key.
fn write_entry_header(entry: &mut [u8], key_word: u16, value: LeafValue<'_>) {
    let kind = match value {
        LeafValue::Inline(_) => INLINE,
        LeafValue::Overflow(_) => OVERFLOW,
        LeafValue::Set(_) => SET,
        LeafValue::Tree(_) => TREE,
    };
    put_u16(entry, 0, key_word | kind << VALUE_KIND_BIT);
    put_u16(entry, 2, stored_bytes(value) as u16);
}

/// Writes the value part; the slice has exactly its length.
fn write_value(part: &mut [u8], value: LeafValue<'_>) {
    match value {
        LeafValue::Inline(bytes) | LeafValue::Set(bytes) => part.copy_from_slice(bytes),
        LeafValue::Overflow(to) => {
            put_u48(part, 0, to.ptr.id.0);
            put_u32(part, 6, to.ptr.crc);
            put_u64(part, 10, to.len);
        }
        LeafValue::Tree(to) => {
            put_u48(part, 0, to.ptr.id.0);
            put_u32(part, 6, to.ptr.crc);
            put_u16(part, 10, to.height.into());
            put_u64(part, 12, to.count);
        }
    }
}

/// Writes an entry; the slice has exactly its length.
#[inline(always)]
fn write_entry(entry: &mut [u8], key: PageKey<'_>, value: LeafValue<'_>) {
    if key.long.is_some() {
        return write_long_entry(entry, key, value);
    }
    write_entry_header(entry, key.bytes.len() as u16, value);
    let (place, part) = entry[ENTRY_HEADER_BYTES..].split_at_mut(key.bytes.len());
    place.copy_from_slice(key.bytes);
    write_value(part, value);
}

#[cold]
#[inline(never)]
fn write_long_entry(entry: &mut [u8], key: PageKey<'_>, value: LeafValue<'_>) {
    write_entry_header(entry, key.bytes.len() as u16 | LONG_KEY, value);
    let (place, part) = entry[ENTRY_HEADER_BYTES..].split_at_mut(key.stored_bytes());
    let (place, pointer) = place.split_at_mut(key.bytes.len());
    place.copy_from_slice(key.bytes);
    if let Some(long) = key.long {
        long.write(pointer);
    }
    write_value(part, value);
}

impl<'a> LeafMut<'a> {
    /// Makes the page an empty leaf, writing all its bytes.
    pub(crate) fn init(page: &'a mut [u8], stamp: PageStamp) -> LeafMut<'a> {
        header::init(page, PageKind::Leaf, 0, stamp);
        let upper = page.len();
        let mut leaf = LeafMut { page, id: stamp.id, count: 0, prefix_bytes: 0, upper };
        leaf.write_header();
        leaf
    }

    /// Parses page `id` as a leaf.
    pub(crate) fn open(page: &'a mut [u8], id: PageId) -> Result<LeafMut<'a>, DecodeError> {
        let leaf = Leaf::parse(page, id)?;
        let (count, prefix_bytes, upper) = (leaf.count(), leaf.prefix_bytes(), leaf.upper());
        Ok(LeafMut { page, id, count, prefix_bytes, upper })
    }

    /// A read-only view of the leaf.
    #[inline]
    pub(crate) fn as_leaf(&self) -> Leaf<'_> {
        Leaf::trusted(self.page, self.id, self.count, self.prefix_bytes, self.upper)
    }

    pub(super) fn lower(&self) -> usize {
        LEAF_HEADS + LEAF_ARRAY_BYTES * self.count
    }

    fn slots(&self) -> usize {
        LEAF_HEADS + HEAD_BYTES * self.count
    }

    pub(super) fn write_header(&mut self) {
        let lower = self.lower();
        put_u16(self.page, COUNT, self.count as u16);
        put_u16(self.page, PREFIX_BYTES, self.prefix_bytes as u16);
        put_u16(self.page, LOWER, lower as u16);
        put_u16(self.page, UPPER, self.upper as u16);
    }

    fn check_index(&self, index: usize, bound: usize) -> Result<(), DecodeError> {
        if index < bound {
            return Ok(());
        }
        Err(bad(self.id, "entry index", index as u64, bound as u64))
    }

    /// Inserts an entry at `index`; its key must lie between its neighbours.
    pub(crate) fn insert<'k>(
        &mut self,
        index: usize,
        key: impl Into<PageKey<'k>>,
        value: LeafValue<'_>,
    ) -> Result<bool, DecodeError> {
        let key = key.into();
        self.check_index(index, self.count + 1)?;
        let size = entry_size(key, value);
        if size > self.upper - self.lower() || !describable(key, value) {
            return Ok(false);
        }
        self.share_prefix(index, key)?;
        self.open_slot(index);
        self.upper -= size - LEAF_ARRAY_BYTES;
        self.count += 1;
        let (offset, slots) = (self.upper, self.slots());
        write_entry(&mut self.page[offset..offset + size - LEAF_ARRAY_BYTES], key, value);
        put_u32(self.page, LEAF_HEADS + HEAD_BYTES * index, head_of(&key.bytes[self.prefix_bytes..]));
        put_u16(self.page, slots + SLOT_BYTES * index, offset as u16);
        self.write_header();
        Ok(true)
    }

    /// Makes room for a head and a slot at `index`.
    fn open_slot(&mut self, index: usize) {
        let (slots, lower) = (self.slots(), self.lower());
        let (head_at, slot_at) = (LEAF_HEADS + HEAD_BYTES * index, slots + SLOT_BYTES * index);
        self.page.copy_within(slot_at..lower, slot_at + LEAF_ARRAY_BYTES);
        self.page.copy_within(head_at..slot_at, head_at + HEAD_BYTES);
    }

    /// Shortens the prefix so that `key`, which is about to become entry `index`, begins with it.
    fn share_prefix(&mut self, index: usize, key: PageKey<'_>) -> Result<(), DecodeError> {
        if key.long.is_some() {
            header::note_long_keys(self.page);
        }
        if self.count == 0 {
            self.prefix_bytes = if page_order_flags(self.page) == 0 { prefix_max(key) } else { 0 };
            return Ok(());
        }
        if self.prefix_bytes == 0 {
            return Ok(());
        }
        // The neighbour's bytes are in the cache: the search has just compared them.
        let neighbour = self.as_leaf().inline_key(index.min(self.count - 1))?;
        let Some(prefix) = neighbour.get(..self.prefix_bytes) else {
            return Err(bad(self.id, "prefix length", self.prefix_bytes as u64, neighbour.len() as u64));
        };
        if key.bytes.get(..self.prefix_bytes) == Some(prefix) && self.prefix_bytes <= prefix_max(key) {
            return Ok(());
        }
        let shared = common_prefix_bytes(prefix, key.bytes).min(prefix_max(key));
        self.shorten_prefix(shared)
    }

    /// Sets a shorter prefix and recomputes all heads.
    #[cold]
    fn shorten_prefix(&mut self, prefix_bytes: usize) -> Result<(), DecodeError> {
        for index in 0..self.count {
            let key = self.as_leaf().inline_key(index)?;
            let head = head_of(key.get(prefix_bytes..).unwrap_or(&[]));
            put_u32(self.page, LEAF_HEADS + HEAD_BYTES * index, head);
        }
        self.prefix_bytes = prefix_bytes;
        self.write_header();
        Ok(())
    }

    /// Locates an entry and checks that it is not below `upper`; `move_entries` relies on that.
    pub(super) fn locate_entry(&self, index: usize) -> Result<EntryAt, DecodeError> {
        let entry = self.as_leaf().locate(index)?;
        if entry.offset < self.upper {
            return Err(bad(self.id, "leaf slot", entry.offset as u64, self.upper as u64));
        }
        Ok(entry)
    }

    /// Removes entry `index`.
    pub(crate) fn remove(&mut self, index: usize) -> Result<(), DecodeError> {
        let entry = self.locate_entry(index)?;
        self.move_entries(entry.offset, entry.offset, entry.bytes() as isize);
        let (slots, lower) = (self.slots(), self.lower());
        let (head_at, slot_at) = (LEAF_HEADS + HEAD_BYTES * index, slots + SLOT_BYTES * index);
        self.page.copy_within(head_at + HEAD_BYTES..slot_at, head_at);
        self.page.copy_within(slot_at + SLOT_BYTES..lower, slot_at - HEAD_BYTES);
        self.count -= 1;
        if self.count == 0 {
            self.prefix_bytes = 0;
        }
        self.write_header();
        Ok(())
    }

    /// Moves the bytes from `upper` to `end` by `distance`, and adjusts the slots of the entries at
    /// offsets up to `last`. The caller has checked that there is room.
    pub(super) fn move_entries(&mut self, end: usize, last: usize, distance: isize) {
        let upper = self.upper.wrapping_add_signed(distance);
        self.page.copy_within(self.upper..end, upper);
        self.upper = upper;
        let (slots, lower) = (self.slots(), self.lower());
        for slot in self.page[slots..lower].chunks_exact_mut(SLOT_BYTES) {
            let offset = usize::from(get_u16(slot, 0));
            let moved = if offset <= last { offset.wrapping_add_signed(distance) } else { offset };
            put_u16(slot, 0, moved as u16);
        }
    }

    /// Replaces the value of entry `index` in place; moves the entries below it if the length
    /// differs.
    pub(crate) fn replace(&mut self, index: usize, value: LeafValue<'_>) -> Result<bool, DecodeError> {
        let entry = self.locate_entry(index)?;
        let value_bytes = stored_bytes(value);
        if value_bytes > entry.value_bytes + (self.upper - self.lower()) || value_bytes > usize::from(u16::MAX) {
            return Ok(false);
        }
        let key_end = entry.value_offset();
        let distance = entry.value_bytes as isize - value_bytes as isize;
        if distance != 0 {
            self.move_entries(key_end, entry.offset, distance);
            self.write_header();
        }
        let offset = entry.offset.wrapping_add_signed(distance);
        let value_at = key_end.wrapping_add_signed(distance);
        let key_word = get_u16(self.page, offset) & (LONG_KEY | KEY_BYTES_MAX as u16);
        write_entry_header(&mut self.page[offset..], key_word, value);
        write_value(&mut self.page[value_at..value_at + value_bytes], value);
        Ok(true)
    }
}

/// Writes a leaf page with these entries, which must ascend. `false`: they do not fit, and the page
/// is untouched.
pub(crate) fn build<'b, K: Into<PageKey<'b>>>(
    page: &mut [u8],
    stamp: PageStamp,
    entries: impl Iterator<Item = (K, LeafValue<'b>)> + Clone,
) -> Result<bool, DecodeError> {
    let entries = entries.map(|(key, value)| (key.into(), value));
    if !page_size_ok(page.len()) {
        return Err(bad(stamp.id, "page size", page.len() as u64, crate::limits::PAGE_SIZE_DEFAULT as u64));
    }
    let (mut bytes, mut count) = (0, 0);
    let mut ends: Option<(&[u8], &[u8])> = None;
    let mut prefix_bound = None;
    for (key, value) in entries.clone() {
        bytes += entry_size(key, value);
        count += 1;
        ends = Some((ends.map_or(key.bytes, |(first, _)| first), key.bytes));
        if key.long.is_some() {
            prefix_bound = Some(prefix_max(key).min(prefix_bound.unwrap_or(usize::MAX)));
        }
        if bytes > page.len() - HEADER_BYTES || !describable(key, value) {
            return Ok(false);
        }
    }
    let shared = ends.map_or(0, |(first, last)| common_prefix_bytes(first, last));
    let prefix_bytes = match stamp.order.is_bytewise() {
        true => shared.min(prefix_bound.unwrap_or(usize::MAX)),
        false => 0,
    };
    let mut builder = Builder::begin(page, stamp, count, prefix_bytes, bytes);
    for (key, value) in entries {
        let place = builder.next(key.bytes, entry_size(key, value) - LEAF_ARRAY_BYTES)?;
        write_entry(place, key, value);
    }
    if prefix_bound.is_some() {
        header::note_long_keys(page);
    }
    Ok(true)
}

/// Writes entries in ascending order of key and offset into a page whose header is already final.
struct Builder<'a> {
    page: &'a mut [u8],
    id: PageId,
    head_at: usize,
    slot_at: usize,
    offset: usize,
    prefix_bytes: usize,
}

impl<'a> Builder<'a> {
    /// `bytes` is the size of all entries with heads and slots.
    fn begin(page: &'a mut [u8], stamp: PageStamp, count: usize, prefix_bytes: usize, bytes: usize) -> Builder<'a> {
        let mut leaf = LeafMut::init(&mut *page, stamp);
        leaf.count = count;
        leaf.prefix_bytes = prefix_bytes;
        leaf.upper -= bytes - LEAF_ARRAY_BYTES * count;
        leaf.write_header();
        let (slot_at, offset) = (leaf.slots(), leaf.upper);
        Builder { page, id: stamp.id, head_at: LEAF_HEADS, slot_at, offset, prefix_bytes }
    }

    /// Writes head and slot of the next entry and returns its bytes. Fails only if the entries have
    /// become longer since they were counted, because another program writes to the page that they
    /// come from.
    fn next(&mut self, key: &[u8], bytes: usize) -> Result<&mut [u8], DecodeError> {
        let (start, end) = (self.offset, self.offset + bytes);
        let page_bytes = self.page.len();
        if end > page_bytes {
            return Err(bad(self.id, "entry bytes of the page", end as u64, page_bytes as u64));
        }
        put_u32(self.page, self.head_at, head_of(key.get(self.prefix_bytes..).unwrap_or(&[])));
        put_u16(self.page, self.slot_at, start as u16);
        self.head_at += HEAD_BYTES;
        self.slot_at += SLOT_BYTES;
        self.offset = end;
        Ok(&mut self.page[start..end])
    }
}
