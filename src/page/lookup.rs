//! The fast path of point lookups: one page per call, in as few instructions as possible.
//!
//! Floor: page. A lookup waits for memory at each page. The processor overlaps the waits of
//! consecutive lookups only if its reorder buffer holds all instructions between them. So these
//! functions do the work of `parse`, `find`, `child` and `value` of `Branch` and `Leaf` without the
//! intermediate types: arguments and results stay in registers, and no error values are built. For
//! a page with a rare layout they return "not answered"; the caller then uses `Branch` or `Leaf`,
//! which find the answer or the exact error.
//!
//! Jumps depend on the key only where nearly all keys take the same way: a mispredicted jump would
//! end the overlap.
//!
//! Invariants:
//!   FIND-1  an answer is always the one that `Branch` or `Leaf` would give.
//!
//! Failure: none; damaged pages get "not answered" or a wrong answer, never a panic.

use std::cmp::Ordering;

use super::branch::Branch;
use super::compare_prefix;
use super::header::PageKind;
use super::heads::{self, Vectors};
use super::layout::{
    get_u16, get_u32, get_u64, head_of, Front, BRANCH_HEADS, BRANCH_PREFIX, BRANCH_PREFIX_MAX, CHILD_BYTES,
    ENTRY_HEADER_BYTES, HEAD_BYTES, KEY_BYTES_MAX, KIND, LEAF_HEADS, LONG_REST, REST_HEADER_BYTES, SLOT_BYTES, UPPER,
};
use super::leaf::Leaf;
use crate::ids::{PageId, PagePtr, MAX_U48};

/// Whether `parse` accepts the header of a branch or leaf. True for pages of other kinds.
///
/// The functions below rely on this. The pager calls it once per page, when it verifies the
/// checksum.
pub(crate) fn is_sound(page: &[u8], id: PageId) -> bool {
    match page.get(KIND) {
        Some(&kind) if kind == PageKind::Branch as u8 => Branch::parse(page, id).is_ok(),
        Some(&kind) if kind == PageKind::Leaf as u8 => Leaf::parse(page, id).is_ok(),
        _ => true,
    }
}

/// The first eight bytes of a key, zero padded, as a number with the same order. `None`: the key
/// has less than four bytes.
#[inline(always)]
pub(crate) fn first_word(key: &[u8]) -> Option<u64> {
    if let Some(bytes) = key.first_chunk() {
        return Some(u64::from_be_bytes(*bytes));
    }
    let (first, last) = (u32::from_be_bytes(*key.first_chunk()?), u32::from_be_bytes(*key.last_chunk()?));
    // The last four bytes overlap with the first four; or-ing equal bytes does not change them.
    Some(u64::from(first) << 32 | u64::from(last) << (8 * (8 - key.len())))
}

/// Bits of the word at [`KIND`] that [`child`] compares with one instruction: kind, level, and the
/// high byte of the count, which is zero in a branch of 4 KiB.
const COMMON_BRANCH: u64 = 0xff00_ffff;
/// Longest prefix that [`child`] skips by shifting the first word of the key.
const SHORT_PREFIX: usize = 3;

/// Returns the child of a branch of this level whose range contains `key`. `word` is the first word
/// of the key. `None`: the caller uses [`child_of_any`].
///
/// Answers only if no separator's head equals the key's, and if the key begins with the prefix or
/// the prefix has at most [`SHORT_PREFIX`] bytes.
#[inline(always)]
pub(crate) fn child<V: Vectors>(vectors: V, front: &Front, level: usize, key: &[u8], word: u64) -> Option<PagePtr> {
    // Kind, level, count, prefix length, lower.
    let fields = get_u64(front, KIND);
    if fields & COMMON_BRANCH != PageKind::Branch as u64 | (level as u64) << 8 {
        return None;
    }
    let (count, prefix_bytes) = ((fields >> 16 & 0xff) as usize, (fields >> 32 & 0xffff) as usize);
    if prefix_bytes > SHORT_PREFIX {
        return child_after_prefix(vectors, front, count, prefix_bytes, key);
    }
    let prefix_bits = (prefix_bytes * 8) & 0x18;
    let in_prefix = !(u64::MAX >> prefix_bits);
    let (key_prefix, prefix) = (word & in_prefix, get_u64(front, BRANCH_PREFIX).swap_bytes() & in_prefix);
    let head = ((word << prefix_bits) >> 32) as u32;
    let mut not_above = vectors.count_less_few(front, count, head);
    // After the last head comes a slot, whose bytes may equal the head by chance: `child_of_any`
    // then decides.
    if (heads::get(&front[BRANCH_HEADS..], not_above & 0x1ff) == head) & (key_prefix == prefix) {
        return None;
    }
    // Keys without the prefix are common in branches with few children, so no jump here.
    not_above = if key_prefix < prefix { 1 } else { not_above };
    not_above = if key_prefix > prefix { count } else { not_above };
    child_before(front, count, not_above)
}

#[inline(always)]
fn child_after_prefix<V: Vectors>(
    vectors: V,
    front: &Front,
    count: usize,
    prefix_bytes: usize,
    key: &[u8],
) -> Option<PagePtr> {
    let prefix = front[BRANCH_PREFIX..].first_chunk()?;
    let head = head_of(key.get(prefix_bytes..)?.first_chunk::<HEAD_BYTES>()?);
    if prefix_bytes > BRANCH_PREFIX_MAX || !vectors.begins_with(key, prefix, prefix_bytes) {
        return None;
    }
    let not_above = vectors.count_less_few(front, count, head);
    if heads::get(&front[BRANCH_HEADS..], not_above & 0x1ff) == head {
        return None;
    }
    child_before(front, count, not_above)
}

/// Returns the last child whose separator is not above the key; `not_above` is the number of such
/// separators. It is 0 only for damaged heads: then child 0.
#[inline(always)]
fn child_before(front: &Front, count: usize, not_above: usize) -> Option<PagePtr> {
    let offset = BRANCH_HEADS - CHILD_BYTES + (HEAD_BYTES + SLOT_BYTES) * count + CHILD_BYTES * not_above.max(1);
    let child = front.get(offset..offset + CHILD_BYTES)?;
    Some(PagePtr { id: PageId(get_u64(child, 0) & MAX_U48), crc: get_u32(child, 6) })
}

/// Like [`child`], for any key and prefix, even if a separator's head equals the key's. `None`: the
/// caller parses the page with `Branch`.
#[inline(always)]
pub(crate) fn child_of_any<V: Vectors>(vectors: V, page: &[u8], level: usize, key: &[u8]) -> Option<PagePtr> {
    let front = page.first_chunk()?;
    let fields = get_u64(front, KIND);
    let (count, prefix_bytes) = ((fields >> 16 & 0xffff) as usize, (fields >> 32 & 0xffff) as usize);
    if fields & 0xffff != PageKind::Branch as u64 | (level as u64) << 8 || count > heads::FEW {
        return None;
    }
    let long = prefix_bytes > BRANCH_PREFIX_MAX;
    let rests_end = if long { page.len().saturating_sub(prefix_bytes) } else { page.len() };
    let prefix_at = if long { rests_end } else { BRANCH_PREFIX };
    let prefix = page.get(prefix_at..prefix_at + prefix_bytes)?;
    match compare_prefix(key, prefix) {
        Ordering::Less => return child_before(front, count, 1),
        Ordering::Greater => return child_before(front, count, count),
        Ordering::Equal => {}
    }
    let rest = key.get(prefix_bytes..).unwrap_or(&[]);
    let head = head_of(rest);
    let mut not_above = vectors.count_less_few(front, count, head);
    if not_above < count && heads::get(&front[BRANCH_HEADS..], not_above) == head {
        let end = match head.checked_add(1) {
            Some(above) => vectors.count_less_few(front, count, above),
            None => count,
        };
        let upper = usize::from(get_u16(front, UPPER));
        let tails = Tails { rests: page.get(..rests_end).unwrap_or(&[]), upper, count };
        not_above = tails.not_above(not_above, end.max(not_above + 1), rest)?;
    }
    child_before(front, count, not_above)
}

/// The tails of a branch, for a search among those with equal heads.
struct Tails<'a> {
    /// The page without the prefix at its end, if there is one.
    rests: &'a [u8],
    upper: usize,
    count: usize,
}

impl Tails<'_> {
    /// Counts the tails that are at most `key_rest`. All tails before `low` are, and none from
    /// `high` on is.
    #[inline(always)]
    fn not_above(&self, mut low: usize, mut high: usize, key_rest: &[u8]) -> Option<usize> {
        // Compare the first tail first, as `Branch` does: it decides more often than the middle.
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

    /// Whether tail `index` is at most `key_rest`, given equal heads. `None`: the tail is damaged,
    /// or its long separator has to decide.
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
        let word = u16::from_le_bytes(*bytes);
        let Some(rest) = rest.get(..usize::from(word)) else {
            // More bytes than a page has: a long separator, or damage.
            return is_long_not_above(rest.get(..usize::from(word & !LONG_REST))?, key_rest);
        };
        Some(key_rest.get(HEAD_BYTES..).is_some_and(|after_head| rest <= after_head))
    }
}

/// Whether a long tail with this rest is at most `key_rest`, given equal heads. `None`: the bytes
/// in the page do not decide.
#[cold]
#[inline(never)]
fn is_long_not_above(rest: &[u8], key_rest: &[u8]) -> Option<bool> {
    let Some(after_head) = key_rest.get(HEAD_BYTES..) else { return Some(false) };
    match after_head.starts_with(rest) {
        // The separator is longer than `rest`.
        true if after_head.len() == rest.len() => Some(false),
        true => None,
        false => Some(rest <= after_head),
    }
}

/// The result of [`find`], packed into one register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct EntryOffset(u32);

impl EntryOffset {
    /// Not answered: the caller uses [`find_in_any`], then `Leaf`.
    pub(crate) const ASK_LEAF: EntryOffset = EntryOffset(u32::MAX);
    /// The leaf does not have the key.
    pub(crate) const ABSENT: EntryOffset = EntryOffset(u32::MAX - 1);

    /// The offset of the entry in the page, unless absent or not answered.
    #[inline(always)]
    pub(crate) fn offset(self) -> Option<usize> {
        (self.0 < EntryOffset::ABSENT.0).then_some(self.0 as usize)
    }

    /// Returns the value, if the entry has the key and an inline value. `None`: the caller uses
    /// `Leaf`.
    #[inline(always)]
    pub(crate) fn value<'a>(self, page: &'a [u8], key: &[u8]) -> Option<&'a [u8]> {
        let entry = page.get(self.0 as usize..)?;
        let (header, rest) = entry.split_first_chunk::<ENTRY_HEADER_BYTES>()?;
        let header = u32::from_le_bytes(*header);
        // The low 16 bits hold key length, kind of key and value kind. Both kinds are 0 for a short
        // key with an inline value; otherwise the number is larger than any length that `is_equal`
        // accepts.
        let key_bytes = (header & 0xffff) as usize;
        if key_bytes != key.len() {
            return None;
        }
        let value_bytes = (header >> 16) as usize;
        let both = rest.get(..key_bytes + value_bytes)?;
        let (stored, value) = both.split_at_checked(key_bytes)?;
        is_equal(stored, key).then_some(value)
    }
}

/// The first entry of a leaf whose head equals that of `key`. [`EntryOffset::value`] compares the
/// whole key.
#[inline(always)]
pub(crate) fn find<V: Vectors>(vectors: V, front: &Front, key: &[u8]) -> EntryOffset {
    let fields = get_u64(front, KIND);
    let (count, prefix_bytes) = ((fields >> 16 & 0xffff) as usize, (fields >> 32 & 0xffff) as usize);
    let Some(rest) = key.get(prefix_bytes..prefix_bytes + HEAD_BYTES) else { return EntryOffset::ASK_LEAF };
    if fields & 0xffff != PageKind::Leaf as u64 || count > heads::WIDE {
        return EntryOffset::ASK_LEAF;
    }
    let head = head_of(rest);
    let index = vectors.count_less_leaf(front, count, head);
    if (index >= count) | (heads::get(&front[LEAF_HEADS..], index & 0x3f) != head) {
        return EntryOffset::ABSENT;
    }
    EntryOffset(u32::from(get_u16(&front[LEAF_HEADS..], HEAD_BYTES * (count & 0x3f) + SLOT_BYTES * (index & 0x3f))))
}

/// Like [`find`], for leaves with many entries and for short keys.
#[cold]
#[inline(never)]
pub(crate) fn find_in_any(page: &[u8], key: &[u8]) -> EntryOffset {
    let fields = get_u64(page, KIND);
    let (count, prefix_bytes) = ((fields >> 16 & 0xffff) as usize, (fields >> 32 & 0xffff) as usize);
    if fields & 0xffff != PageKind::Leaf as u64 {
        return EntryOffset::ASK_LEAF;
    }
    let Some(rest) = key.get(prefix_bytes..) else { return EntryOffset::ABSENT };
    let head = head_of(rest);
    let arrays = page.get(LEAF_HEADS..).unwrap_or(&[]);
    let index = heads::count_less(arrays, count, head);
    if index >= count || heads::get(arrays, index) != head {
        return EntryOffset::ABSENT;
    }
    EntryOffset(u32::from(get_u16(arrays, HEAD_BYTES * count + SLOT_BYTES * index)))
}

/// Whether two byte strings of equal length are equal, and short enough for a key. Keys of 16 to 32
/// bytes are compared without a call.
#[inline(always)]
fn is_equal(a: &[u8], b: &[u8]) -> bool {
    const HALF: usize = 16;
    if a.len().wrapping_sub(HALF) <= HALF {
        let ends = |key: &[u8]| Some((*key.first_chunk::<HALF>()?, *key.last_chunk::<HALF>()?));
        if let (Some((a_first, a_last)), Some((b_first, b_last))) = (ends(a), ends(b)) {
            let differ = |a: [u8; HALF], b: [u8; HALF]| u128::from_ne_bytes(a) ^ u128::from_ne_bytes(b);
            return differ(a_first, b_first) | differ(a_last, b_last) == 0;
        }
    }
    a.len() <= KEY_BYTES_MAX && a == b
}

#[cfg(any(test, feature = "testing"))]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
