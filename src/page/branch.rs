//! Reading branch pages: separators and child pointers.
//!
//! Floor: page. `branch_mut` writes what this module reads; `layout` shows the layout.
//!
//! Child i holds the keys from separator i (included) to separator i + 1 (excluded). Separator 0
//! stands for minus infinity and is not stored. Every other separator is the common prefix of the
//! page followed by a *tail*. The first four bytes of the tail are the head; the bytes after those
//! are the *rest*. Of a long separator the page holds the first bytes (`key`): its tail ends with
//! them, and goes on after the head.
//!
//! Invariants ([`Branch::parse`] checks BRANCH-1, [`Branch::verify`] the others):
//!   BRANCH-1  kind, level > 0, no unknown flag, own id, count > 0; lower = 128 + 16 * count, and
//!       at most `upper`, which is in the page, and before the prefix if that lies at the end of
//!       the page.
//!   BRANCH-2  separators ascend strictly.
//!   BRANCH-3  head 0 and slot 0 are zero; head i is the head of tail i, zero padded.
//!   BRANCH-4  a slot up to 4 is the length of a tail that fits its head; others are the offset of
//!             the rest of the tail.
//!   BRANCH-5  the rests fill the page from `upper` to its end (or the prefix that lies there),
//!             without gap or overlap.
//!   BRANCH-6  hint k is the last head of block k, or `u32::MAX` if that block is not full.
//!   BRANCH-7  children have page ids of at least 2.
//!   BRANCH-8  a page with a long separator has the flag for it.
//!
//! Failure: as in `leaf`. A page that breaks BRANCH-2 to BRANCH-6 can lead to a wrong child, but
//! never to a panic; the caller checks level, id and checksum of the child.

use std::cmp::Ordering;

#[allow(unused_imports, reason = "callers find reading and writing under one path")]
pub(crate) use super::branch_mut::{build, built_bytes, BranchMut, Child};

use super::header::{self, PageKind};
use super::key::{LongKey, PageKey, PageKeyBuf, WholeKeys};
use super::layout::{
    get_u16, get_u32, get_u48, head_of, BRANCH_ARRAY_BYTES, BRANCH_HEADS, BRANCH_PREFIX, BRANCH_PREFIX_MAX,
    CHILD_BYTES, COUNT, FLAGS, HEAD_BYTES, HINTS, HINT_COUNT, ID, KIND, LEVEL, LONG_KEYS_FLAG, LONG_KEY_PTR_BYTES,
    LONG_REST, LOWER, PREFIX_BYTES, REST_HEADER_BYTES, SLOT_BYTES, UPPER,
};
use super::leaf::verify::verify_gapless;
use super::order::{are_page_flags, check_page_order, Order};
use super::{bad, compare_prefix, heads};
use crate::error::DecodeError;
use crate::ids::{PageId, PagePtr, TxnId};

/// A parsed branch page, read-only.
#[derive(Clone, Copy)]
pub(crate) struct Branch<'a> {
    page: &'a [u8],
    id: PageId,
    count: usize,
    prefix_bytes: usize,
    upper: usize,
}

/// The rest of a separator.
#[derive(Clone, Copy)]
pub(super) struct Rest<'a> {
    /// The bytes that the page holds after the head.
    bytes: &'a [u8],
    long: Option<LongKey>,
    /// Bytes of the rest in the page, with its length.
    pub(super) stored_bytes: usize,
}

/// End of the rests: the end of the page, or the start of a prefix that lies there.
#[inline]
pub(super) fn rests_end(page_size: usize, prefix_bytes: usize) -> usize {
    if prefix_bytes > BRANCH_PREFIX_MAX {
        page_size.saturating_sub(prefix_bytes)
    } else {
        page_size
    }
}

impl<'a> Branch<'a> {
    /// Reads page `id` as a branch.
    #[inline]
    pub(crate) fn parse(page: &'a [u8], id: PageId) -> Result<Branch<'a>, DecodeError> {
        let reject = || header::reject(page, id, PageKind::Branch, BRANCH_HEADS, BRANCH_ARRAY_BYTES);
        let Some(bytes) = page.first_chunk::<BRANCH_HEADS>() else { return Err(reject()) };
        let count = usize::from(get_u16(bytes, COUNT));
        let prefix_bytes = usize::from(get_u16(bytes, PREFIX_BYTES));
        let lower = usize::from(get_u16(bytes, LOWER));
        let upper = usize::from(get_u16(bytes, UPPER));
        // One conditional jump for all checks, since they almost never fail.
        let good = (bytes[KIND] == PageKind::Branch as u8)
            & (bytes[LEVEL] > 0)
            & are_page_flags(get_u16(bytes, FLAGS))
            & (get_u48(bytes, ID) == id.0)
            & (count > 0)
            & (lower == BRANCH_HEADS + BRANCH_ARRAY_BYTES * count)
            & (lower <= upper)
            & (upper <= rests_end(page.len(), prefix_bytes));
        if !good {
            return Err(reject());
        }
        Ok(Branch { page, id, count, prefix_bytes, upper })
    }

    /// For `BranchMut`, which has parsed the page and keeps these fields up to date.
    #[inline]
    pub(super) fn trusted(page: &'a [u8], id: PageId, count: usize, prefix_bytes: usize, upper: usize) -> Branch<'a> {
        Branch { page, id, count, prefix_bytes, upper }
    }

    /// Number of children.
    #[inline]
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// The transaction that wrote the page.
    pub(crate) fn born(&self) -> TxnId {
        header::page_txn(self.page)
    }

    /// The level: one more than that of the children.
    #[inline]
    pub(crate) fn level(&self) -> u8 {
        header::page_level(self.page)
    }

    /// Whether the page may have long separators (BRANCH-8).
    #[inline]
    pub(crate) fn has_long_separators(&self) -> bool {
        header::has_long_keys(self.page)
    }

    /// The whole page.
    #[inline]
    pub(crate) fn page(&self) -> &'a [u8] {
        self.page
    }

    /// The page's id.
    #[inline]
    pub(super) fn id(&self) -> PageId {
        self.id
    }

    #[inline]
    pub(super) fn prefix_bytes(&self) -> usize {
        self.prefix_bytes
    }

    /// Start of the lowest rest.
    #[inline]
    pub(super) fn upper(&self) -> usize {
        self.upper
    }

    /// The prefix that all separators share.
    #[inline]
    pub(crate) fn prefix(&self) -> &'a [u8] {
        let start =
            if self.prefix_bytes > BRANCH_PREFIX_MAX { self.page.len() - self.prefix_bytes } else { BRANCH_PREFIX };
        self.page.get(start..start + self.prefix_bytes).unwrap_or(&[])
    }

    /// Bytes between the arrays and the rests.
    #[cfg(test)]
    pub(crate) fn free_bytes(&self) -> usize {
        self.upper - (BRANCH_HEADS + BRANCH_ARRAY_BYTES * self.count)
    }

    /// Bytes of children, separators and a long prefix, without the 128 bytes that every branch
    /// has.
    pub(crate) fn used_bytes(&self) -> usize {
        BRANCH_ARRAY_BYTES * self.count + (self.page.len() - self.upper)
    }

    /// The page from its first head on: heads, slots, children, and all bytes after them.
    #[inline]
    fn heads(&self) -> &'a [u8] {
        self.page.get(BRANCH_HEADS..).unwrap_or(&[])
    }

    /// Slot `index`; an arbitrary number if the index is out of range.
    #[inline]
    pub(super) fn slot(&self, index: usize) -> usize {
        usize::from(get_u16(self.page, BRANCH_HEADS + HEAD_BYTES * self.count + SLOT_BYTES * index))
    }

    /// Index of the child whose range contains `key`.
    #[inline]
    pub(crate) fn find<K: WholeKeys>(&self, keys: &K, key: &[u8]) -> Result<usize, K::Error> {
        let mut rest = key;
        if self.prefix_bytes > 0 {
            match compare_prefix(key, self.prefix()) {
                Ordering::Less => return Ok(0),
                Ordering::Greater => return Ok(self.count - 1),
                Ordering::Equal => rest = key.get(self.prefix_bytes..).unwrap_or(&[]),
            }
        }
        let head = head_of(rest);
        let mut not_above = self.count_less(head);
        if not_above < self.count && heads::get(self.heads(), not_above) == head {
            not_above = self.count_equal_heads(keys, not_above, head, rest)?;
        }
        // Separator 0 is minus infinity, so the count is at least 1 unless the heads are damaged.
        Ok(not_above.saturating_sub(1))
    }

    /// Number of heads below `probe`.
    #[inline]
    fn count_less(&self, probe: u32) -> usize {
        match self.page.first_chunk() {
            Some(front) if self.count <= heads::FEW => heads::count_less_front(front, self.count, probe),
            _ => heads::count_less_hinted(self.page.get(HINTS..).unwrap_or(&[]), self.heads(), self.count, probe),
        }
    }

    /// Counts the separators that are at most the key. All separators before `first` are below the
    /// key, and separator `first` has the same head as the key. `key_rest` is the key after the
    /// prefix.
    #[inline(never)]
    fn count_equal_heads<K: WholeKeys>(
        &self,
        keys: &K,
        first: usize,
        head: u32,
        key_rest: &[u8],
    ) -> Result<usize, K::Error> {
        if !self.tail_not_above(keys, first, key_rest)? {
            return Ok(first);
        }
        let (mut low, mut high) = (first + 1, head.checked_add(1).map_or(self.count, |above| self.count_less(above)));
        while low < high {
            let middle = low + (high - low) / 2;
            if self.tail_not_above(keys, middle, key_rest)? {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(low)
    }

    /// Whether tail `index` is at most `key_rest`, given that their heads are equal.
    fn tail_not_above<K: WholeKeys>(&self, keys: &K, index: usize, key_rest: &[u8]) -> Result<bool, K::Error> {
        let slot = self.slot(index);
        if slot <= HEAD_BYTES {
            // The heads are equal, zero padding included, so of tail and key the shorter one is
            // lower.
            return Ok(slot <= key_rest.len());
        }
        let rest = self.rest(slot)?;
        let Some(after_head) = key_rest.get(HEAD_BYTES..) else { return Ok(false) };
        match rest.long {
            None => Ok(rest.bytes <= after_head),
            Some(long) => self.long_not_above(keys, rest.bytes, long, after_head),
        }
    }

    /// Whether the rest of a long separator is at most `after_head`, the key after prefix and head.
    #[cold]
    fn long_not_above<K: WholeKeys>(
        &self,
        keys: &K,
        rest: &[u8],
        long: LongKey,
        after_head: &[u8],
    ) -> Result<bool, K::Error> {
        let stored = PageKey { bytes: rest, long: Some(long) };
        if let Some(decided) = stored.compare(&PageKey::from(after_head)) {
            return Ok(decided.is_le());
        }
        let whole = keys.whole_key(long)?.get(self.prefix_bytes + HEAD_BYTES..).unwrap_or(&[]);
        Ok(whole <= after_head)
    }

    /// The rest at an offset.
    pub(super) fn rest(&self, offset: usize) -> Result<Rest<'a>, DecodeError> {
        let end = rests_end(self.page.len(), self.prefix_bytes);
        if offset < self.upper || offset + REST_HEADER_BYTES > end {
            return Err(bad(self.id, "branch slot", offset as u64, self.upper as u64));
        }
        let word = get_u16(self.page, offset);
        let is_long = word & LONG_REST != 0;
        let bytes = usize::from(word & !LONG_REST);
        let stored_bytes = REST_HEADER_BYTES + bytes + if is_long { LONG_KEY_PTR_BYTES } else { 0 };
        let start = offset + REST_HEADER_BYTES;
        match self.page.get(start..start + bytes) {
            Some(rest) if offset + stored_bytes <= end => {
                let long = if is_long { Some(self.long_of(start + bytes, bytes)?) } else { None };
                Ok(Rest { bytes: rest, long, stored_bytes })
            }
            _ => Err(bad(self.id, "rest length", bytes as u64, (end - start) as u64)),
        }
    }

    /// The pointer of a long separator, whose rest has `rest_bytes` bytes in the page.
    #[cold]
    fn long_of(&self, offset: usize, rest_bytes: usize) -> Result<LongKey, DecodeError> {
        let pointer = self.page.get(offset..).unwrap_or(&[]);
        LongKey::decode(pointer, self.id, self.prefix_bytes + HEAD_BYTES + rest_bytes)
    }

    /// The pointer to child `index`.
    #[inline]
    pub(crate) fn child(&self, index: usize) -> Result<PagePtr, DecodeError> {
        if index >= self.count {
            return Err(bad(self.id, "child index", index as u64, self.count as u64));
        }
        let at = BRANCH_HEADS + (HEAD_BYTES + SLOT_BYTES) * self.count + CHILD_BYTES * index;
        let ptr = PagePtr { id: PageId(get_u48(self.page, at)), crc: get_u32(self.page, at + 6) };
        if ptr.id.0 < 2 {
            return Err(bad(self.id, "child page", ptr.id.0, 2));
        }
        Ok(ptr)
    }

    /// Replaces the contents of `into` by separator `index`. Separator 0 is empty.
    pub(crate) fn separator_into(&self, index: usize, into: &mut PageKeyBuf) -> Result<(), DecodeError> {
        into.clear();
        into.long = self.append_separator(index, &mut into.bytes)?;
        Ok(())
    }

    /// Appends to `into` separator `index`, or the bytes that the page holds of a long one, of
    /// which it returns the pointer.
    pub(crate) fn append_separator(&self, index: usize, into: &mut Vec<u8>) -> Result<Option<LongKey>, DecodeError> {
        if index >= self.count {
            return Err(bad(self.id, "separator index", index as u64, self.count as u64));
        }
        if index == 0 {
            return Ok(None);
        }
        let head = heads::get(self.heads(), index).to_be_bytes();
        let slot = self.slot(index);
        into.extend_from_slice(self.prefix());
        into.extend_from_slice(&head[..slot.min(HEAD_BYTES)]);
        if slot <= HEAD_BYTES {
            return Ok(None);
        }
        let rest = self.rest(slot)?;
        into.extend_from_slice(rest.bytes);
        Ok(rest.long)
    }

    /// The head of separator `index` as bytes, how many of them count, and the rest: the separator
    /// of a page without prefix.
    pub(super) fn separator_parts(&self, index: usize) -> Result<([u8; HEAD_BYTES], usize, &'a [u8]), DecodeError> {
        let (head, slot) = (heads::get(self.heads(), index).to_be_bytes(), self.slot(index));
        let rest = if slot <= HEAD_BYTES { &[] } else { self.rest(slot)?.bytes };
        Ok((head, slot.min(HEAD_BYTES), rest))
    }

    /// The pointer of separator `index`, if it is long.
    pub(crate) fn long_separator(&self, index: usize) -> Result<Option<LongKey>, DecodeError> {
        match self.slot(index) {
            slot if index == 0 || slot <= HEAD_BYTES => Ok(None),
            slot => Ok(self.rest(slot)?.long),
        }
    }

    /// Checks BRANCH-2 to BRANCH-8, for `check`. The caller checks the order of neighbours which
    /// only their long separators decide.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn verify(&self) -> Result<(), DecodeError> {
        self.verify_in(Order::Bytewise)
    }

    /// Like [`Branch::verify`], for a branch of a tree of this order. If the order is not known,
    /// the separators are not compared.
    pub(crate) fn verify_in(&self, order: Order) -> Result<(), DecodeError> {
        check_page_order(self.page, self.id, order)?;
        if !order.is_bytewise() && self.prefix_bytes > 0 {
            return Err(bad(self.id, "prefix length", self.prefix_bytes as u64, 0));
        }
        let mut rests = Vec::new();
        let (mut last, mut separator) = (PageKeyBuf::default(), PageKeyBuf::default());
        for index in 0..self.count {
            self.child(index)?;
            self.separator_into(index, &mut separator)?;
            if index > 1 && order.is_wrong(last.as_key(), separator.as_key()) {
                return Err(bad(self.id, "order of separators at", index as u64, index as u64));
            }
            self.verify_head(index, &separator.bytes)?;
            if separator.long.is_some() && !self.has_long_separators() {
                return Err(bad(
                    self.id,
                    "page flags (a page with a long separator has one)",
                    0,
                    LONG_KEYS_FLAG.into(),
                ));
            }
            let slot = self.slot(index);
            if slot > HEAD_BYTES {
                let rest = self.rest(slot)?;
                if rest.bytes.is_empty() {
                    return Err(bad(self.id, "rest length", 0, 1));
                }
                rests.push((slot, rest.stored_bytes));
            }
            std::mem::swap(&mut last, &mut separator);
        }
        for index in 0..HINT_COUNT {
            let found = get_u32(self.page, HINTS + HEAD_BYTES * index);
            let expected = heads::hint(self.heads(), self.count, index);
            if found != expected {
                return Err(bad(self.id, "hint", found.into(), expected.into()));
            }
        }
        let end = rests_end(self.page.len(), self.prefix_bytes);
        verify_gapless(rests, self.upper, end)
            .map_err(|(found, expected)| bad(self.id, "branch slot (rests are gapless)", found as u64, expected as u64))
    }

    /// Checks BRANCH-3 for one separator: a head is zero padded after a short tail.
    fn verify_head(&self, index: usize, separator: &[u8]) -> Result<(), DecodeError> {
        let found = heads::get(self.heads(), index);
        let expected = if index == 0 { 0 } else { head_of(separator.get(self.prefix_bytes..).unwrap_or(&[])) };
        if found != expected || (index == 0 && self.slot(0) != 0) {
            return Err(bad(self.id, "separator head", found.into(), expected.into()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
