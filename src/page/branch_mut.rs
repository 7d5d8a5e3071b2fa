//! Changing branch pages: child pointers, insert, remove, and building whole pages.
//!
//! Floor: page. Keeps the invariants BRANCH-1 to BRANCH-7.
//!
//! The prefix of a page never changes in place. A separator without it does not fit, and the tree
//! rebuilds the page from its list of children. That is rare: a new separator lies between its
//! neighbours, so it lacks the prefix only at the edges of the page.
//!
//! A long separator bounds the prefix: the page holds its head and a rest after the prefix.
//!
//! Failure: `false` means that the change does not fit and that the page is untouched. A copied
//! page may be damaged in any way: that is a `DecodeError`, never a panic.

use super::branch::{rests_end, Branch};
use super::header::{self, PageKind, PageStamp};
use super::key::{LongKey, PageKey, PageKeyBuf};
use super::layout::{
    get_u16, head_of, put_u16, put_u32, put_u48, BRANCH_ARRAY_BYTES, BRANCH_HEADS, BRANCH_PREFIX, BRANCH_PREFIX_MAX,
    CHILD_BYTES, COUNT, HEAD_BYTES, HINTS, HINT_COUNT, LONG_KEY_PTR_BYTES, LONG_REST, LOWER, PREFIX_BYTES,
    REST_HEADER_BYTES, SLOT_BYTES, UPPER,
};
use super::order::Order;
use super::{bad, common_prefix_bytes, heads};
use crate::error::DecodeError;
use crate::ids::{PageId, PagePtr};
use crate::limits::page_size_ok;

/// A child and the separator before it: input to [`build`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Child {
    /// Lower bound of the child's keys; ignored for the first child of a page.
    pub(crate) sep: PageKeyBuf,
    pub(crate) ptr: PagePtr,
}

/// A parsed branch page that can be changed.
pub(crate) struct BranchMut<'a> {
    page: &'a mut [u8],
    id: PageId,
    count: usize,
    prefix_bytes: usize,
    upper: usize,
}

/// Bytes of the rest of a tail, with its header; 0 if the tail fits its head.
fn rest_bytes(tail_bytes: usize, is_long: bool) -> usize {
    if tail_bytes <= HEAD_BYTES {
        0
    } else {
        REST_HEADER_BYTES + tail_bytes - HEAD_BYTES + if is_long { LONG_KEY_PTR_BYTES } else { 0 }
    }
}

/// Longest prefix of a page with this separator: all of a short one; of a long one the page holds a
/// head and a rest after it.
fn prefix_max(sep: PageKey<'_>) -> usize {
    match sep.long {
        None => sep.bytes.len(),
        Some(_) => sep.bytes.len().saturating_sub(HEAD_BYTES + 1),
    }
}

impl<'a> BranchMut<'a> {
    /// Parses page `id` as a branch.
    pub(crate) fn open(page: &'a mut [u8], id: PageId) -> Result<BranchMut<'a>, DecodeError> {
        let branch = Branch::parse(page, id)?;
        let (count, prefix_bytes, upper) = (branch.count(), branch.prefix_bytes(), branch.upper());
        Ok(BranchMut { page, id, count, prefix_bytes, upper })
    }

    /// A read-only view of the branch.
    #[inline]
    pub(crate) fn as_branch(&self) -> Branch<'_> {
        Branch::trusted(self.page, self.id, self.count, self.prefix_bytes, self.upper)
    }

    fn head_at(&self, index: usize) -> usize {
        BRANCH_HEADS + HEAD_BYTES * index
    }

    fn slot_at(&self, index: usize) -> usize {
        BRANCH_HEADS + HEAD_BYTES * self.count + SLOT_BYTES * index
    }

    fn child_at(&self, index: usize) -> usize {
        BRANCH_HEADS + (HEAD_BYTES + SLOT_BYTES) * self.count + CHILD_BYTES * index
    }

    fn lower(&self) -> usize {
        BRANCH_HEADS + BRANCH_ARRAY_BYTES * self.count
    }

    /// Updates header fields and hints after the arrays have changed.
    fn finish(&mut self) {
        let lower = self.lower();
        put_u16(self.page, COUNT, self.count as u16);
        put_u16(self.page, PREFIX_BYTES, self.prefix_bytes as u16);
        put_u16(self.page, LOWER, lower as u16);
        put_u16(self.page, UPPER, self.upper as u16);
        for index in 0..HINT_COUNT {
            let hint = heads::hint(&self.page[BRANCH_HEADS..], self.count, index);
            put_u32(self.page, HINTS + HEAD_BYTES * index, hint);
        }
    }

    fn check_index(&self, index: usize, least: usize, bound: usize) -> Result<(), DecodeError> {
        if least <= index && index < bound {
            return Ok(());
        }
        Err(bad(self.id, "child index", index as u64, bound as u64))
    }

    /// Replaces the pointer to child `index`.
    pub(crate) fn set_child(&mut self, index: usize, ptr: PagePtr) -> Result<(), DecodeError> {
        self.check_index(index, 0, self.count)?;
        self.write_child(index, ptr);
        Ok(())
    }

    fn write_child(&mut self, index: usize, ptr: PagePtr) {
        let offset = self.child_at(index);
        put_u48(self.page, offset, ptr.id.0);
        put_u32(self.page, offset + 6, ptr.crc);
    }

    /// Inserts a separator and the child after it at `index`, which is at least 1.
    pub(crate) fn insert<'k>(
        &mut self,
        index: usize,
        sep: impl Into<PageKey<'k>>,
        ptr: PagePtr,
    ) -> Result<bool, DecodeError> {
        let sep = sep.into();
        self.check_index(index, 1, self.count + 1)?;
        let Some(tail) = sep.bytes.strip_prefix(self.as_branch().prefix()) else { return Ok(false) };
        let bytes = BRANCH_ARRAY_BYTES + rest_bytes(tail.len(), sep.long.is_some());
        if bytes > self.upper - self.lower() || self.prefix_bytes > prefix_max(sep) {
            return Ok(false);
        }
        self.open_arrays(index);
        self.count += 1;
        self.write_tail(index, tail, sep.long);
        self.write_child(index, ptr);
        self.finish();
        Ok(true)
    }

    /// Makes room at `index` in the three arrays, moving the highest bytes first.
    fn open_arrays(&mut self, index: usize) {
        let (head, slot, child, lower) = (self.head_at(index), self.slot_at(index), self.child_at(index), self.lower());
        self.page.copy_within(child..lower, child + BRANCH_ARRAY_BYTES);
        self.page.copy_within(slot..child, slot + HEAD_BYTES + SLOT_BYTES);
        self.page.copy_within(head..slot, head + HEAD_BYTES);
    }

    /// Writes head, slot and rest of a separator; the rest goes below the other rests.
    fn write_tail(&mut self, index: usize, tail: &[u8], long: Option<LongKey>) {
        let (head_at, slot_at) = (self.head_at(index), self.slot_at(index));
        put_u32(self.page, head_at, head_of(tail));
        let Some(rest) = tail.get(HEAD_BYTES..).filter(|rest| !rest.is_empty()) else {
            put_u16(self.page, slot_at, tail.len() as u16);
            return;
        };
        self.upper -= rest_bytes(tail.len(), long.is_some());
        let start = self.upper + REST_HEADER_BYTES;
        put_u16(self.page, self.upper, rest.len() as u16 | if long.is_some() { LONG_REST } else { 0 });
        self.page[start..start + rest.len()].copy_from_slice(rest);
        if let Some(long) = long {
            long.write(&mut self.page[start + rest.len()..]);
            header::note_long_keys(self.page);
        }
        put_u16(self.page, slot_at, self.upper as u16);
    }

    /// Removes separator `index`, which is at least 1, and the child after it.
    pub(crate) fn remove(&mut self, index: usize) -> Result<(), DecodeError> {
        self.check_index(index, 1, self.count)?;
        self.remove_parts(index, index)
    }

    /// Removes child 0, so that child 1 becomes the first and its separator minus infinity. There
    /// must be at least two children.
    pub(crate) fn remove_first(&mut self) -> Result<(), DecodeError> {
        self.check_index(1, 1, self.count)?;
        self.remove_parts(1, 0)
    }

    fn remove_parts(&mut self, separator: usize, child: usize) -> Result<(), DecodeError> {
        let slot = self.as_branch().slot(separator);
        if slot > HEAD_BYTES {
            let bytes = self.as_branch().rest(slot)?.stored_bytes;
            self.remove_rest(slot, bytes);
        }
        let (head, slot, child, lower) =
            (self.head_at(separator), self.slot_at(separator), self.child_at(child), self.lower());
        self.page.copy_within(head + HEAD_BYTES..slot, head);
        self.page.copy_within(slot + SLOT_BYTES..child, slot - HEAD_BYTES);
        self.page.copy_within(child + CHILD_BYTES..lower, child - HEAD_BYTES - SLOT_BYTES);
        self.count -= 1;
        self.finish();
        Ok(())
    }

    /// Removes a rest: moves the rests below it up and adjusts their slots.
    fn remove_rest(&mut self, offset: usize, bytes: usize) {
        self.page.copy_within(self.upper..offset, self.upper + bytes);
        self.upper += bytes;
        let (slots, children) = (self.slot_at(0), self.child_at(0));
        for slot in self.page[slots..children].chunks_exact_mut(SLOT_BYTES) {
            let rest = usize::from(get_u16(slot, 0));
            if rest > HEAD_BYTES && rest < offset {
                put_u16(slot, 0, (rest + bytes) as u16);
            }
        }
    }
}

/// The prefix that all separators share, except the first, which stands for minus infinity.
/// A branch whose keys are not in bytewise order has none.
fn shared_prefix(order: Order, items: &[Child]) -> &[u8] {
    if !order.is_bytewise() {
        return &[];
    }
    let mut separators = items.iter().skip(1).map(|child| child.sep.as_key());
    let Some(first) = separators.next() else { return &[] };
    let shared = |sep: PageKey<'_>| common_prefix_bytes(first.bytes, sep.bytes).min(prefix_max(sep));
    &first.bytes[..separators.map(shared).min().unwrap_or(usize::MAX).min(prefix_max(first))]
}

fn built_rest_bytes(sep: &PageKeyBuf, prefix_bytes: usize) -> usize {
    rest_bytes(sep.bytes.len() - prefix_bytes, sep.long.is_some())
}

/// Bytes of the rests, and of the prefix if it is too long for its place after the header.
fn built_tail_bytes(items: &[Child], prefix_bytes: usize) -> usize {
    let rests: usize = items.iter().skip(1).map(|child| built_rest_bytes(&child.sep, prefix_bytes)).sum();
    rests + if prefix_bytes > BRANCH_PREFIX_MAX { prefix_bytes } else { 0 }
}

/// Bytes of a page built from these children: they fit if that is at most `page_size`.
pub(crate) fn built_bytes(page_size: usize, order: Order, items: &[Child]) -> usize {
    debug_assert!(page_size_ok(page_size));
    BRANCH_HEADS + BRANCH_ARRAY_BYTES * items.len() + built_tail_bytes(items, shared_prefix(order, items).len())
}

/// Writes a branch page with these children, at least one, whose separators must ascend. `false`:
/// they do not fit, and the page is untouched.
pub(crate) fn build(page: &mut [u8], stamp: PageStamp, level: u8, items: &[Child]) -> Result<bool, DecodeError> {
    if !page_size_ok(page.len()) {
        return Err(bad(stamp.id, "page size", page.len() as u64, crate::limits::PAGE_SIZE_DEFAULT as u64));
    }
    if items.is_empty() || level == 0 {
        return Err(bad(stamp.id, "child count", items.len() as u64, 1));
    }
    let prefix = shared_prefix(stamp.order, items);
    if built_bytes(page.len(), stamp.order, items) > page.len() {
        return Ok(false);
    }
    header::init(page, PageKind::Branch, level, stamp);
    let end = rests_end(page.len(), prefix.len());
    let prefix_at = if prefix.len() > BRANCH_PREFIX_MAX { end } else { BRANCH_PREFIX };
    page[prefix_at..prefix_at + prefix.len()].copy_from_slice(prefix);
    let mut branch = BranchMut { page, id: stamp.id, count: items.len(), prefix_bytes: prefix.len(), upper: end };
    // In reverse, because rests are written downwards: this leaves them in ascending order.
    for (index, child) in items.iter().enumerate().rev() {
        branch.write_child(index, child.ptr);
        if index > 0 {
            branch.write_tail(index, &child.sep.bytes[prefix.len()..], child.sep.long);
        }
    }
    branch.finish();
    Ok(true)
}
