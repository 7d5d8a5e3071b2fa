//! Branch pages, to change: child pointers, insert, remove, and build whole pages.
//!
//! Floor: page. Keeps the invariants BRANCH-1 to BRANCH-7.
//!
//! The prefix never changes in place: a separator that does not begin with it does not fit, and the
//! tree builds the page again from its list of children. That is rare, because separators come from
//! between their neighbours, and only those at the edges of the page can leave the prefix.
//!
//! Failure: a `false` means that it does not fit, and that the page is untouched. Bytes of a
//! damaged page that was copied can be wrong in any way: that is a `DecodeError`, never a panic.

use super::branch::{rests_end, Branch};
use super::header::{self, PageKind};
use super::layout::{
    get_u16, head_of, put_u16, put_u32, put_u48, BRANCH_ARRAY_BYTES, BRANCH_HEADS, BRANCH_PREFIX, BRANCH_PREFIX_MAX,
    CHILD_BYTES, COUNT, HEAD_BYTES, HINTS, HINT_COUNT, LOWER, PREFIX_BYTES, REST_HEADER_BYTES, SLOT_BYTES, UPPER,
};
use super::{bad, common_prefix_bytes, heads};
use crate::error::DecodeError;
use crate::ids::{PageId, PagePtr, TreeId, TxnId};
use crate::limits::page_size_ok;

/// A child and the separator before it, to build branches from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Child {
    /// Lower bound of the child's keys; ignored for the first child of a page.
    pub(crate) sep: Vec<u8>,
    pub(crate) ptr: PagePtr,
}

/// A branch, to change.
pub(crate) struct BranchMut<'a> {
    page: &'a mut [u8],
    id: PageId,
    count: usize,
    prefix_bytes: usize,
    upper: usize,
}

/// Bytes that a tail takes outside its head.
fn rest_bytes(tail_bytes: usize) -> usize {
    if tail_bytes <= HEAD_BYTES {
        0
    } else {
        REST_HEADER_BYTES + tail_bytes - HEAD_BYTES
    }
}

impl<'a> BranchMut<'a> {
    /// Reads page `id` as a branch to change.
    pub(crate) fn open(page: &'a mut [u8], id: PageId) -> Result<BranchMut<'a>, DecodeError> {
        let branch = Branch::parse(page, id)?;
        let (count, prefix_bytes, upper) = (branch.count(), branch.prefix_bytes(), branch.upper());
        Ok(BranchMut { page, id, count, prefix_bytes, upper })
    }

    /// The same branch, to read.
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

    /// Writes the header's fields and the hints, after the arrays have changed.
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

    fn check_index(&self, at: usize, least: usize, bound: usize) -> Result<(), DecodeError> {
        if least <= at && at < bound {
            return Ok(());
        }
        Err(bad(self.id, "child index", at as u64, bound as u64))
    }

    /// Points child `at` to another page, or to another checksum.
    pub(crate) fn set_child(&mut self, at: usize, ptr: PagePtr) -> Result<(), DecodeError> {
        self.check_index(at, 0, self.count)?;
        self.write_child(at, ptr);
        Ok(())
    }

    fn write_child(&mut self, at: usize, ptr: PagePtr) {
        let place = self.child_at(at);
        put_u48(self.page, place, ptr.id.0);
        put_u32(self.page, place + 6, ptr.crc);
    }

    /// Inserts a separator and the child after it, so that they become number `at`, which is at
    /// least 1.
    pub(crate) fn insert(&mut self, at: usize, sep: &[u8], ptr: PagePtr) -> Result<bool, DecodeError> {
        self.check_index(at, 1, self.count + 1)?;
        let Some(tail) = sep.strip_prefix(self.as_branch().prefix()) else { return Ok(false) };
        if BRANCH_ARRAY_BYTES + rest_bytes(tail.len()) > self.upper - self.lower() {
            return Ok(false);
        }
        self.open_arrays(at);
        self.count += 1;
        self.write_tail(at, tail);
        self.write_child(at, ptr);
        self.finish();
        Ok(true)
    }

    /// Makes room for number `at` in the three arrays, the highest first.
    fn open_arrays(&mut self, at: usize) {
        let (head, slot, child, lower) = (self.head_at(at), self.slot_at(at), self.child_at(at), self.lower());
        self.page.copy_within(child..lower, child + BRANCH_ARRAY_BYTES);
        self.page.copy_within(slot..child, slot + HEAD_BYTES + SLOT_BYTES);
        self.page.copy_within(head..slot, head + HEAD_BYTES);
    }

    /// Writes head, slot and rest of a separator; the rest goes below the others.
    fn write_tail(&mut self, at: usize, tail: &[u8]) {
        let (head_at, slot_at) = (self.head_at(at), self.slot_at(at));
        put_u32(self.page, head_at, head_of(tail));
        let Some(rest) = tail.get(HEAD_BYTES..).filter(|rest| !rest.is_empty()) else {
            put_u16(self.page, slot_at, tail.len() as u16);
            return;
        };
        self.upper -= REST_HEADER_BYTES + rest.len();
        let start = self.upper + REST_HEADER_BYTES;
        put_u16(self.page, self.upper, rest.len() as u16);
        self.page[start..start + rest.len()].copy_from_slice(rest);
        put_u16(self.page, slot_at, self.upper as u16);
    }

    /// Removes separator `at`, which is at least 1, and the child after it.
    pub(crate) fn remove(&mut self, at: usize) -> Result<(), DecodeError> {
        self.check_index(at, 1, self.count)?;
        self.remove_parts(at, at)
    }

    /// Removes child 0. Child 1 becomes the first, its separator minus infinity. There must be two
    /// children.
    pub(crate) fn remove_first(&mut self) -> Result<(), DecodeError> {
        self.check_index(1, 1, self.count)?;
        self.remove_parts(1, 0)
    }

    fn remove_parts(&mut self, separator: usize, child: usize) -> Result<(), DecodeError> {
        let slot = self.as_branch().slot(separator);
        if slot > HEAD_BYTES {
            let (bytes, _) = self.as_branch().rest(slot)?;
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

    /// Closes the gap of a rest; the slots of the rests below it follow.
    fn remove_rest(&mut self, offset: usize, bytes: usize) {
        self.page.copy_within(self.upper..offset, self.upper + bytes);
        self.upper += bytes;
        let (slots, children) = (self.slot_at(0), self.child_at(0));
        for slot in self.page[slots..children].chunks_exact_mut(SLOT_BYTES) {
            let at = usize::from(get_u16(slot, 0));
            if at > HEAD_BYTES && at < offset {
                put_u16(slot, 0, (at + bytes) as u16);
            }
        }
    }
}

/// What all separators but the first, which stands for minus infinity, begin with.
fn shared_prefix(items: &[Child]) -> &[u8] {
    let mut separators = items.iter().skip(1).map(|child| child.sep.as_slice());
    let first = separators.next().unwrap_or(&[]);
    let shared = separators.map(|sep| common_prefix_bytes(first, sep)).min().unwrap_or(first.len());
    &first[..shared]
}

/// Bytes of rests and of a prefix that does not lie in the header's place.
fn built_tail_bytes(items: &[Child], prefix_bytes: usize) -> usize {
    let rests: usize = items.iter().skip(1).map(|child| rest_bytes(child.sep.len() - prefix_bytes)).sum();
    rests + if prefix_bytes > BRANCH_PREFIX_MAX { prefix_bytes } else { 0 }
}

/// Bytes that a page built of these children would have in use, all told: they fit if that is at
/// most `page_size`.
pub(crate) fn built_bytes(page_size: usize, items: &[Child]) -> usize {
    debug_assert!(page_size_ok(page_size));
    BRANCH_HEADS + BRANCH_ARRAY_BYTES * items.len() + built_tail_bytes(items, shared_prefix(items).len())
}

/// Writes a whole branch page of these children, at least one, whose separators must ascend.
/// `false`: they do not fit; the page is untouched.
pub(crate) fn build(
    page: &mut [u8],
    id: PageId,
    tree: TreeId,
    txn: TxnId,
    level: u8,
    items: &[Child],
) -> Result<bool, DecodeError> {
    if !page_size_ok(page.len()) {
        return Err(bad(id, "page size", page.len() as u64, crate::limits::PAGE_SIZE_DEFAULT as u64));
    }
    if items.is_empty() || level == 0 {
        return Err(bad(id, "child count", items.len() as u64, 1));
    }
    let prefix = shared_prefix(items);
    if built_bytes(page.len(), items) > page.len() {
        return Ok(false);
    }
    header::init(page, PageKind::Branch, level, id, tree, txn);
    let end = rests_end(page.len(), prefix.len());
    let prefix_at = if prefix.len() > BRANCH_PREFIX_MAX { end } else { BRANCH_PREFIX };
    page[prefix_at..prefix_at + prefix.len()].copy_from_slice(prefix);
    let mut branch = BranchMut { page, id, count: items.len(), prefix_bytes: prefix.len(), upper: end };
    // From the last on, because rests are written downwards: the page ends up in ascending order.
    for (index, child) in items.iter().enumerate().rev() {
        branch.write_child(index, child.ptr);
        if index > 0 {
            branch.write_tail(index, &child.sep[prefix.len()..]);
        }
    }
    branch.finish();
    Ok(true)
}
