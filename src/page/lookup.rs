//! The steps of a point lookup, in as few instructions as possible.
//!
//! Floor: page. A lookup waits for memory at each page; the processor overlaps the waits of one lookup with those of
//! the next ones if its reorder buffer holds all the instructions between. So these functions do what `parse`, `find`,
//! `child` and `value` of `Branch` and `Leaf` do, without the types between: arguments and answers are registers, and
//! no error is made. Pages that are not as they nearly always are get the answer "ask the others", who find the rare
//! answer or the exact error.
//!
//! Nothing is jumped over that depends on a key and is not the same for nearly all keys: such a jump is mispredicted,
//! and that ends the overlap.
//!
//! Invariants:
//!   K1  an answer that is given is the one that `Branch` or `Leaf` give.
//!
//! Failure: none; see above.

use std::cmp::Ordering;

use super::header::PageKind;
use super::layout::{
    get_u16, get_u32, get_u64, head_of, BRANCH_ARRAY_BYTES, BRANCH_HEADS, BRANCH_PREFIX, BRANCH_PREFIX_MAX,
    CHILD_BYTES, ENTRY_HEADER_BYTES, FLAGS, HEAD_BYTES, ID, KEY_BYTES_MAX, KIND, LEAF_ARRAY_BYTES, LEAF_HEADS,
    REST_HEADER_BYTES, SLOT_BYTES, UPPER,
};
use super::{compare_prefix, heads};
use crate::ids::{PageId, PagePtr, MAX_U48};
use crate::limits::PAGE_SIZE_MIN;

/// The part of a page in which the common functions look for its arrays: all of it, at the default size.
type Front = [u8; PAGE_SIZE_MIN];

const BRANCH_KIND: u32 = PageKind::Branch as u32;

/// No child: ask [`child_of_any`], and then `Branch`.
const ASK_BRANCH: PagePtr = PagePtr { id: PageId::NONE, crc: 0 };

/// What a header says of a page that is as it should be.
#[derive(Clone, Copy)]
struct Shape {
    count: usize,
    prefix_bytes: usize,
    upper: usize,
    /// The kind as it was read; that it is the right one the compiler does not know.
    kind: u32,
}

/// Reads a header with few loads and one jump. `None` for all that `parse` refuses, but for the upper end of `upper`.
#[inline(always)]
fn shape(page: &Front, id: PageId, kind: PageKind, level: usize) -> Option<Shape> {
    let (arrays, array_bytes) = match kind {
        PageKind::Leaf => (LEAF_HEADS as u64, LEAF_ARRAY_BYTES as u64),
        _ => (BRANCH_HEADS as u64, BRANCH_ARRAY_BYTES as u64),
    };
    // Kind, level, count, prefix length, lower.
    let fields = get_u64(page, KIND);
    let (count, prefix_bytes, lower) = (fields >> 16 & 0xffff, fields >> 32 & 0xffff, fields >> 48);
    let upper = u64::from(get_u16(page, UPPER));
    // Ids have 48 bits; what is shifted out is the transaction.
    let wrong = ((fields ^ (kind as u64 | (level as u64) << 8)) & 0xffff)
        | (get_u64(page, ID) ^ id.0) << 16
        | u64::from(get_u16(page, FLAGS))
        | (lower ^ (arrays + array_bytes * count))
        // The borrow, if lower is above upper.
        | upper.wrapping_sub(lower) >> 63;
    if wrong != 0 {
        return None;
    }
    let kind = fields as u32 & 0xff;
    Some(Shape { count: count as usize, prefix_bytes: prefix_bytes as usize, upper: upper as usize, kind })
}

/// Longest prefix that [`child`] skips; the head of a key behind it lies in the key's first eight bytes.
const SHORT_PREFIX: usize = 4;

/// The pointer to the child of branch `id`, of this level, whose range holds `key`. An id below 2: ask [`child_of_any`],
/// which gets the whole answer, because `crc` says how far this came.
///
/// For keys from eight bytes on and branches of short prefixes, where no separator has the key's head.
#[inline(never)]
pub(crate) fn child(page: &[u8], id: PageId, level: usize, key: &[u8]) -> PagePtr {
    let Some(front) = page.first_chunk() else { return ASK_BRANCH };
    let Some(Shape { count, prefix_bytes, upper, kind }) = shape(front, id, PageKind::Branch, level) else {
        return ASK_BRANCH;
    };
    let Some(first_bytes) = key.first_chunk() else { return ASK_BRANCH };
    if prefix_bytes > SHORT_PREFIX || count > heads::FEW || upper > page.len() {
        return ASK_BRANCH;
    }
    let key_word = u64::from_be_bytes(*first_bytes);
    let in_prefix = !(u64::MAX >> (8 * prefix_bytes));
    let (key_prefix, prefix) = (key_word & in_prefix, get_u64(front, BRANCH_PREFIX).swap_bytes() & in_prefix);
    let head = ((key_word << (8 * prefix_bytes)) >> 32) as u32;
    let mut not_above = heads::count_less_few(front, count, head, kind / BRANCH_KIND);
    // Behind the last head lies a slot, which may look like the head: the other function knows better.
    if heads::get(&front[BRANCH_HEADS..], not_above & 0x1ff) == head && key_prefix == prefix {
        return PagePtr { id: PageId::NONE, crc: 1 + not_above as u32 };
    }
    not_above = if key_prefix < prefix { 1 } else { not_above };
    not_above = if key_prefix > prefix { count } else { not_above };
    child_before(page, count, not_above)
}

/// The child before separator `not_above`, which is at most `count`.
#[inline(always)]
fn child_before(page: &[u8], count: usize, not_above: usize) -> PagePtr {
    let at = BRANCH_HEADS - CHILD_BYTES + (HEAD_BYTES + SLOT_BYTES) * count + CHILD_BYTES * not_above.max(1);
    match page.get(at..at + CHILD_BYTES) {
        Some(child) => PagePtr { id: PageId(get_u64(child, 0) & MAX_U48), crc: get_u32(child, 6) },
        None => ASK_BRANCH,
    }
}

/// Like [`child`], for all keys and prefixes, and for separators that have the key's head. An id below 2: ask `Branch`.
#[inline(never)]
pub(crate) fn child_of_any(page: &[u8], id: PageId, level: usize, key: &[u8], so_far: PagePtr) -> PagePtr {
    let Some(front) = page.first_chunk() else { return ASK_BRANCH };
    let Some(Shape { count, prefix_bytes, upper, kind }) = shape(front, id, PageKind::Branch, level) else {
        return ASK_BRANCH;
    };
    let long = prefix_bytes > BRANCH_PREFIX_MAX;
    let rests_end = if long { page.len().saturating_sub(prefix_bytes) } else { page.len() };
    if upper > rests_end || count == 0 || count > heads::FEW {
        return ASK_BRANCH;
    }
    let found = match so_far {
        PagePtr { id: PageId::NONE, crc: 1.. } => so_far.crc as usize - 1,
        _ => {
            let prefix_at = if long { rests_end } else { BRANCH_PREFIX };
            let Some(prefix) = page.get(prefix_at..prefix_at + prefix_bytes) else { return ASK_BRANCH };
            match compare_prefix(key, prefix) {
                Ordering::Less => return child_before(page, count, 1),
                Ordering::Greater => return child_before(page, count, count),
                Ordering::Equal => usize::MAX,
            }
        }
    };
    let rest = key.get(prefix_bytes..).unwrap_or(&[]);
    let head = head_of(rest);
    let mut not_above =
        if found != usize::MAX { found } else { heads::count_less_few(front, count, head, kind / BRANCH_KIND) };
    if not_above < count && heads::get(&front[BRANCH_HEADS..], not_above) == head {
        let end = match head.checked_add(1) {
            Some(above) => heads::count_less_few(front, count, above, kind / BRANCH_KIND),
            None => count,
        };
        let tails = Tails { rests: page.get(..rests_end).unwrap_or(&[]), upper, count };
        let Some(more) = tails.not_above(not_above, end.max(not_above + 1), rest) else { return ASK_BRANCH };
        not_above = more;
    }
    child_before(page, count, not_above)
}

/// The tails of a branch, for a search among those that have one head.
struct Tails<'a> {
    /// The page without a prefix at its end.
    rests: &'a [u8],
    upper: usize,
    count: usize,
}

impl Tails<'_> {
    /// Counts the tails that are at most `key_rest`: those before `low`, and some of those before `high`.
    #[inline(always)]
    fn not_above(&self, mut low: usize, mut high: usize, key_rest: &[u8]) -> Option<usize> {
        // The first one by itself, as `Branch` does: it decides more often than the middle.
        let mut middle = low;
        while low < high {
            if self.is_not_above(middle, key_rest)? {
                low = middle + 1;
            } else {
                high = middle;
            }
            middle = low + (high - low) / 2;
        }
        Some(low)
    }

    /// Whether tail `index` is at most `key_rest`, whose head it has. `None`: it is damaged.
    #[inline(always)]
    fn is_not_above(&self, index: usize, key_rest: &[u8]) -> Option<bool> {
        let slot = usize::from(get_u16(self.rests, BRANCH_HEADS + HEAD_BYTES * self.count + SLOT_BYTES * index));
        if slot <= HEAD_BYTES {
            return Some(slot <= key_rest.len());
        }
        if slot < self.upper {
            return None;
        }
        let (bytes, rest) = self.rests.get(slot..)?.split_first_chunk::<REST_HEADER_BYTES>()?;
        let rest = rest.get(..usize::from(u16::from_le_bytes(*bytes)))?;
        Some(key_rest.get(HEAD_BYTES..).is_some_and(|behind_head| rest <= behind_head))
    }
}

/// What [`find`] found, in one register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Found(u32);

impl Found {
    /// Ask `Leaf`.
    pub(crate) const ASK_LEAF: Found = Found(u32::MAX);
    /// There is no such key.
    pub(crate) const ABSENT: Found = Found(u32::MAX - 1);

    /// Where in the page the entry lies, if there may be one.
    #[inline(always)]
    pub(crate) fn offset(self) -> Option<usize> {
        (self.0 < Found::ABSENT.0).then_some(self.0 as usize)
    }

    /// The value, if it lies in the leaf that was searched and the entry has the key. Else ask `Leaf`.
    #[inline(always)]
    pub(crate) fn value<'a>(self, page: &'a [u8], key: &[u8]) -> Option<&'a [u8]> {
        let entry = page.get(self.0 as usize..)?;
        let (header, rest) = entry.split_first_chunk::<ENTRY_HEADER_BYTES>()?;
        let [k0, k1, v0, v1] = *header;
        // With the kind of the value, which is zero if it is inline, or else this is no length of a key.
        let key_bytes = usize::from(u16::from_le_bytes([k0, k1]));
        if key_bytes != key.len() || key_bytes > KEY_BYTES_MAX {
            return None;
        }
        let (stored, rest) = rest.split_at_checked(key_bytes)?;
        let value = rest.get(..usize::from(u16::from_le_bytes([v0, v1])))?;
        (stored == key).then_some(value)
    }
}

/// The only entry of leaf `id` that can have `key`, if the heads tell.
#[inline(never)]
pub(crate) fn find(page: &[u8], id: PageId, key: &[u8]) -> Found {
    let Some(front) = page.first_chunk::<PAGE_SIZE_MIN>() else { return Found::ASK_LEAF };
    let Some(Shape { count, prefix_bytes, upper, .. }) = shape(front, id, PageKind::Leaf, 0) else {
        return Found::ASK_LEAF;
    };
    if count > heads::WIDE || prefix_bytes + HEAD_BYTES > key.len() || upper > page.len() {
        return find_in_any(page, id, key);
    }
    let Some(rest) = key.get(prefix_bytes..prefix_bytes + HEAD_BYTES) else { return Found::ASK_LEAF };
    let head = head_of(rest);
    let at = heads::count_less_leaf(front, count, head);
    if (at >= count) | (heads::get(&front[LEAF_HEADS..], at & 0x3f) != head) {
        return Found::ABSENT;
    }
    Found(u32::from(get_u16(&front[LEAF_HEADS..], HEAD_BYTES * (count & 0x3f) + SLOT_BYTES * (at & 0x3f))))
}

/// Like [`find`], for leaves of many entries and short keys.
#[inline(never)]
fn find_in_any(page: &[u8], id: PageId, key: &[u8]) -> Found {
    let Some(front) = page.first_chunk() else { return Found::ASK_LEAF };
    let Some(Shape { count, prefix_bytes, upper, .. }) = shape(front, id, PageKind::Leaf, 0) else {
        return Found::ASK_LEAF;
    };
    if upper > page.len() {
        return Found::ASK_LEAF;
    }
    let Some(rest) = key.get(prefix_bytes..) else { return Found::ABSENT };
    let head = head_of(rest);
    let arrays = page.get(LEAF_HEADS..).unwrap_or(&[]);
    let at = heads::count_less(arrays, count, head);
    if at >= count || heads::get(arrays, at) != head {
        return Found::ABSENT;
    }
    Found(u32::from(get_u16(arrays, HEAD_BYTES * count + SLOT_BYTES * at)))
}

#[cfg(test)]
mod tests;
