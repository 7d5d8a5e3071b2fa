//! The search among heads: how many of a sorted array of `u32` are below a probe.
//!
//! Floor: page. Knows nothing of pages; leaf and branch hand it the bytes that begin with their heads.
//!
//! A lookup is fast when the processor can run ahead into the next page, so no branch here depends on the
//! probe. A leaf is halved without branches down to [`WIDE`] heads; a branch has 16 hints, the last heads of
//! its 16 blocks, which find the block. What remains is counted, all lanes of a fixed number, with the lanes
//! behind the end masked: that is the same few vector operations for each page. The count may read bytes
//! behind the heads (slots follow there), which the mask throws away.
//!
//! Invariants: the result is at most `count`, whatever the bytes are; on a sorted array it is exact.
//!
//! Failure: none. An array shorter than it should be is counted as far as it goes.

use super::layout::{get_u32, HEAD_BYTES, HINTS_BYTES, HINT_COUNT};

/// Lanes counted at the end of a leaf's search.
const WIDE: usize = 32;
/// Lanes counted in a block of a branch, where that suffices: it does at 4 KiB.
const NARROW: usize = 16;

/// Head `index` of the array.
#[inline]
pub(super) fn get(heads: &[u8], index: usize) -> u32 {
    get_u32(heads, index * HEAD_BYTES)
}

/// Counts the heads below `probe` among the first `count` lanes of a fixed number of lanes.
#[inline]
fn count_lanes<const BYTES: usize>(lanes: &[u8; BYTES], count: u32, probe: u32) -> usize {
    let below = |(lane, head): (u32, &[u8])| {
        let head = u32::from_le_bytes([head[0], head[1], head[2], head[3]]);
        u32::from(head < probe) & u32::from(lane < count)
    };
    (0u32..).zip(lanes.chunks_exact(HEAD_BYTES)).map(below).sum::<u32>() as usize
}

/// Counts within `[base, base + count)`, with `BYTES / 4` lanes where the slice has them.
#[inline]
fn count_from<const BYTES: usize>(heads: &[u8], base: usize, count: usize, probe: u32) -> usize {
    match heads.get(base * HEAD_BYTES..).and_then(|rest| rest.first_chunk::<BYTES>()) {
        Some(lanes) => count_lanes(lanes, count as u32, probe),
        None => count_short(heads, base, count, probe),
    }
}

/// The end of an array that is not followed by other bytes: no page has it.
#[cold]
fn count_short(heads: &[u8], base: usize, count: usize, probe: u32) -> usize {
    let rest = heads.get(base * HEAD_BYTES..).unwrap_or(&[]);
    rest.chunks_exact(HEAD_BYTES).take(count).filter(|head| get_u32(head, 0) < probe).count()
}

/// How many of the first `count` heads are below `probe`.
#[inline]
pub(super) fn count_less(heads: &[u8], count: usize, probe: u32) -> usize {
    let (base, left) = halve(heads, 0, count, probe);
    base + count_from::<{ WIDE * HEAD_BYTES }>(heads, base, left, probe)
}

/// Halves `[base, base + count)` until [`WIDE`] heads are left. The steps depend on `count` alone.
#[inline]
fn halve(heads: &[u8], mut base: usize, mut count: usize, probe: u32) -> (usize, usize) {
    while count > WIDE {
        let half = count / 2;
        base += half * usize::from(get(heads, base + half - 1) < probe);
        count -= half;
    }
    (base, count)
}

/// How many of the first `count` heads are at most `probe`.
pub(super) fn count_less_or_equal(heads: &[u8], count: usize, probe: u32) -> usize {
    probe.checked_add(1).map_or(count, |above| count_less(heads, count, above))
}

/// Like [`count_less`], with the hints of a branch.
#[inline]
pub(super) fn count_less_hinted(hints: &[u8; HINTS_BYTES], heads: &[u8], count: usize, probe: u32) -> usize {
    let block = block_heads(count);
    let base = (count_lanes(hints, HINT_COUNT as u32, probe) * block).min(count);
    let left = block.min(count - base);
    if block <= NARROW {
        return base + count_from::<{ NARROW * HEAD_BYTES }>(heads, base, left, probe);
    }
    let (base, left) = halve(heads, base, left, probe);
    base + count_from::<{ WIDE * HEAD_BYTES }>(heads, base, left, probe)
}

/// Heads in one block, of which each hint is the last.
#[inline]
fn block_heads(count: usize) -> usize {
    count.div_ceil(HINT_COUNT)
}

/// Hint `index` of a branch with these heads: the last head of its block, or the largest number when the block
/// is not full, so that the search never goes past it.
pub(super) fn hint(heads: &[u8], count: usize, index: usize) -> u32 {
    let last = (index + 1) * block_heads(count);
    match last.checked_sub(1) {
        Some(last) if last < count => get(heads, last),
        _ => u32::MAX,
    }
}
