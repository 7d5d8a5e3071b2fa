//! Searching heads: how many numbers of a sorted array of `u32` are below a probe.
//!
//! Floor: page. Knows nothing of pages; leaf and branch pass their bytes from the first head on.
//!
//! No conditional jump here depends on the probe, only on the number of heads: there is no
//! misprediction, and the processor can already work on the next page. Sampled heads find the block
//! of heads that contains the answer: in a branch the 16 hints, the last heads of its 16 blocks; in
//! a leaf of more than 32 entries every 32nd head. Then a fixed number of lanes is counted from the
//! start of the block, and a mask drops the lanes after its end (slots follow the heads in the
//! page, so the bytes can be read). The code adds comparison results instead of selecting between
//! values, because the compiler may turn a selection into a jump.
//!
//! Point lookups use the widest vectors that the processor has. [`with_vectors`] chooses them once
//! per lookup, not once per page: the whole lookup is compiled once for each width.
//!
//! Invariants: the result is at most `count` for any bytes; for a sorted array it is exact, with
//! vectors of any width.
//!
//! Failure: none. If the slice is shorter than `count` heads, only the heads in it are counted.
#![allow(unsafe_code, reason = "vector instructions that not every processor has")]

#[cfg(target_arch = "x86_64")]
mod x86;

use super::layout::{
    get_u32, Front, BRANCH_ARRAY_BYTES, BRANCH_HEADS, BRANCH_PREFIX_MAX, HEAD_BYTES, HINTS, HINTS_BYTES, HINT_COUNT,
    LEAF_HEADS,
};
use crate::limits::PAGE_SIZE_MIN;

/// Lanes of the last step of a search in a leaf.
pub(super) const WIDE: usize = 32;
const WIDE_BYTES: usize = WIDE * HEAD_BYTES;
/// Lanes of the last step of a search in a branch with at most [`FEW`] children, as all branches of
/// 4 KiB have.
const NARROW: usize = 16;
const NARROW_BYTES: usize = NARROW * HEAD_BYTES;

/// Maximum number of heads of a branch whose blocks have at most [`NARROW`] heads. No branch of 4
/// KiB has more.
pub(super) const FEW: usize = (PAGE_SIZE_MIN - BRANCH_HEADS) / BRANCH_ARRAY_BYTES;

/// `WIDE` ones, then `WIDE` zeros: the slice from `WIDE - n` on is a mask for the first n lanes.
static MASKS: [u32; 2 * WIDE] = {
    let mut masks = [0; 2 * WIDE];
    let mut lane = 0;
    while lane < WIDE {
        masks[lane] = 1;
        lane += 1;
    }
    masks
};

/// Head `index` of the array.
#[inline]
pub(super) fn get(heads: &[u8], index: usize) -> u32 {
    get_u32(heads, index * HEAD_BYTES)
}

/// Sums the weights of the heads below `probe`.
#[inline(always)]
fn sum_below<const LANES: usize, const BYTES: usize>(bytes: &[u8; BYTES], weights: &[u32; LANES], probe: u32) -> usize {
    // In two steps: the compiler vectorizes this form.
    let mut lanes = [0u32; LANES];
    for (lane, head) in lanes.iter_mut().zip(bytes.chunks_exact(HEAD_BYTES)) {
        *lane = u32::from_le_bytes([head[0], head[1], head[2], head[3]]);
    }
    lanes.iter().zip(weights).map(|(head, weight)| if *head < probe { *weight } else { 0 }).sum::<u32>() as usize
}

/// Counts the heads below `probe` in `[base, base + count)`, at most `LANES` of them.
#[inline]
fn count_block<const LANES: usize, const BYTES: usize>(heads: &[u8], base: usize, count: usize, probe: u32) -> usize {
    match heads.get(base * HEAD_BYTES..).and_then(|block| block.first_chunk::<BYTES>()) {
        Some(lanes) => {
            let mask = MASKS[WIDE - count.min(WIDE)..].first_chunk::<LANES>().unwrap_or(&[0; LANES]);
            sum_below(lanes, mask, probe)
        }
        None => count_short(heads, base, count, probe),
    }
}

/// Counts heads near the end of the slice, where a full block cannot be read. In a sound page other
/// bytes follow the heads, so only tests and damaged pages get here.
#[cold]
#[inline(never)]
fn count_short(heads: &[u8], base: usize, count: usize, probe: u32) -> usize {
    let block = heads.get(base * HEAD_BYTES..).unwrap_or(&[]);
    block.chunks_exact(HEAD_BYTES).take(count).filter(|head| get_u32(head, 0) < probe).count()
}

/// Narrows `[base, base + count)` to at most `stride` heads that contain the answer.
#[inline]
fn narrow(heads: &[u8], base: usize, count: usize, stride: usize, probe: u32) -> (usize, usize) {
    let block = heads.get(base * HEAD_BYTES..(base + count) * HEAD_BYTES).unwrap_or(&[]);
    let below = |samples: &[u8]| samples.last_chunk::<HEAD_BYTES>().is_some_and(|b| u32::from_le_bytes(*b) < probe);
    let skipped =
        block.chunks_exact(stride * HEAD_BYTES).map(|samples| usize::from(below(samples))).sum::<usize>() * stride;
    (base + skipped, (count - skipped).min(stride))
}

/// Counts the heads below `probe` in `[base, base + count)`, of any length.
#[inline]
fn count_range(heads: &[u8], mut base: usize, mut count: usize, probe: u32) -> usize {
    if count > WIDE {
        // For large pages with tiny entries: a first step with a wide stride limits the number of
        // samples.
        if count > WIDE * NARROW {
            (base, count) = narrow(heads, base, count, WIDE * NARROW, probe);
        }
        (base, count) = narrow(heads, base, count, WIDE, probe);
    }
    base + count_block::<WIDE, WIDE_BYTES>(heads, base, count, probe)
}

/// Number of heads below `probe` among the first `count`.
///
/// Out of line, like [`count_less_hinted`]: otherwise it would depend on the caller whether the
/// compiler vectorizes the sums.
#[inline(never)]
pub(super) fn count_less(heads: &[u8], count: usize, probe: u32) -> usize {
    count_range(heads, 0, count, probe)
}

/// Number of heads that are at most `probe` among the first `count`.
pub(super) fn count_less_or_equal(heads: &[u8], count: usize, probe: u32) -> usize {
    probe.checked_add(1).map_or(count, |above| count_less(heads, count, above))
}

/// Vectors of one width, which count small blocks of heads. A value of the type proves that the
/// processor supports them.
pub(crate) trait Vectors: Copy {
    /// Number of heads below `probe`, of 16.
    fn below_16(self, heads: &[u8; NARROW_BYTES], probe: u32) -> usize;

    /// Number of heads below `probe` among the first `count` of 32.
    fn below_32(self, heads: &[u8; WIDE_BYTES], count: usize, probe: u32) -> usize;

    /// Number of words below `probe`, of 16.
    fn below_16_words(self, words: &[u64; WORDS], probe: u64) -> usize;

    /// Whether the key begins with the first `bytes` bytes, at most 24, of the prefix.
    #[inline(always)]
    fn begins_with(self, key: &[u8], prefix: &[u8; BRANCH_PREFIX_MAX], bytes: usize) -> bool {
        match (key.get(..bytes), prefix.get(..bytes)) {
            (Some(key), Some(prefix)) => key == prefix,
            _ => false,
        }
    }

    /// Number of heads below `probe` among the first `count` of a sound branch; `count` is at most
    /// 255.
    ///
    /// No mask is needed. The last step counts the 16 heads from the start of the block, or the
    /// last 16 of the page if fewer follow: heads before the block are below the probe, and heads
    /// after it are not. With up to 16 heads, the hints are the heads.
    #[inline(always)]
    fn count_less_few(self, page: &Front, count: usize, probe: u32) -> usize {
        let Some(hints) = page[HINTS..].first_chunk::<HINTS_BYTES>() else { return 0 };
        let block = (count & 0xff).div_ceil(HINT_COUNT);
        let skipped = self.below_16(hints, probe) * block;
        let base = skipped.min((count & 0xff).saturating_sub(NARROW));
        let Some(heads) = page[BRANCH_HEADS + base * HEAD_BYTES..].first_chunk() else { return 0 };
        let last = base + self.below_16(heads, probe);
        if count > NARROW {
            last
        } else {
            skipped.min(count)
        }
    }

    /// Number of heads below `probe` among the first `count` of a leaf; `count` is at most
    /// [`WIDE`].
    #[inline(always)]
    fn count_less_leaf(self, page: &Front, count: usize, probe: u32) -> usize {
        let Some(heads) = page[LEAF_HEADS..].first_chunk() else { return 0 };
        self.below_32(heads, count, probe)
    }
}

/// Words that [`Vectors::below_16_words`] counts.
pub(crate) const WORDS: usize = 16;

/// Code for any processor.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Portable;

impl Vectors for Portable {
    #[inline(always)]
    fn below_16(self, heads: &[u8; NARROW_BYTES], probe: u32) -> usize {
        sum_below(heads, &[1; NARROW], probe)
    }

    #[inline(always)]
    fn below_32(self, heads: &[u8; WIDE_BYTES], count: usize, probe: u32) -> usize {
        let Some(mask) = MASKS[WIDE - count.min(WIDE)..].first_chunk::<WIDE>() else { return 0 };
        sum_below(heads, mask, probe)
    }

    #[inline(always)]
    fn below_16_words(self, words: &[u64; WORDS], probe: u64) -> usize {
        words.iter().map(|word| usize::from(*word < probe)).sum()
    }
}

/// A search that is compiled once for each width of vectors.
pub(crate) trait Search {
    type Answer;

    /// Runs the search. It must be inlined, with all code that uses `vectors`; otherwise the
    /// compiler does not use wide vectors there.
    fn with<V: Vectors>(self, vectors: V) -> Self::Answer;
}

/// Runs a search with the widest vectors that the processor has.
#[inline]
pub(crate) fn with_vectors<S: Search>(search: S) -> S::Answer {
    #[cfg(target_arch = "x86_64")]
    {
        let widest = x86::widest();
        if widest == x86::AVX512 {
            // SAFETY: `detect` found every feature that the function enables; it takes no pointers.
            return unsafe { x86::with_avx512(search) };
        }
        if widest == x86::AVX2 {
            // SAFETY: `detect` found every feature that the function enables; it takes no pointers.
            return unsafe { x86::with_avx2(search) };
        }
    }
    with_portable(search)
}

/// Out of line, like the vector versions, so that the calling lookup stays small.
#[inline(never)]
fn with_portable<S: Search>(search: S) -> S::Answer {
    search.with(Portable)
}

/// For tests: runs a search with every width that the processor has, the portable code first.
#[cfg(any(test, feature = "testing"))]
pub(crate) fn with_each_width<S: Search>(search: impl Fn() -> S) -> Vec<S::Answer> {
    let mut answers = vec![search().with(Portable)];
    #[cfg(target_arch = "x86_64")]
    {
        if x86::widest() >= x86::AVX2 {
            // SAFETY: `detect` found every feature that the function enables; it takes no pointers.
            answers.push(unsafe { x86::with_avx2(search()) });
        }
        if x86::widest() >= x86::AVX512 {
            // SAFETY: `detect` found every feature that the function enables; it takes no pointers.
            answers.push(unsafe { x86::with_avx512(search()) });
        }
    }
    answers
}

/// [`Vectors::count_less_few`], out of line.
#[inline(never)]
pub(super) fn count_less_front(page: &Front, count: usize, probe: u32) -> usize {
    Portable.count_less_few(page, count, probe)
}

/// Like [`count_less`], with the hints of a branch.
#[inline(never)]
pub(super) fn count_less_hinted(hints: &[u8], heads: &[u8], count: usize, probe: u32) -> usize {
    let block = block_heads(count);
    // If a hint is below the probe, so is its whole block. The hints of blocks that are not full
    // are never below.
    let skipped = match hints.first_chunk::<HINTS_BYTES>() {
        Some(hints) => sum_below(hints, &[block as u32; HINT_COUNT], probe),
        None => count_short(heads, 0, count, probe),
    };
    let base = skipped.min(count);
    let left = block.min(count - base);
    if block <= NARROW {
        base + count_block::<NARROW, NARROW_BYTES>(heads, base, left, probe)
    } else {
        count_range(heads, base, left, probe)
    }
}

/// Number of heads in one block.
#[inline]
fn block_heads(count: usize) -> usize {
    count.div_ceil(HINT_COUNT)
}

/// Hint `index` of a branch with these heads: the last head of its block, or `u32::MAX` if the
/// block is not full, so that the search never skips it.
pub(super) fn hint(heads: &[u8], count: usize, index: usize) -> u32 {
    let last = (index + 1) * block_heads(count);
    match last.checked_sub(1) {
        Some(last) if last < count => get(heads, last),
        _ => u32::MAX,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes_of(heads: &[u32]) -> Vec<u8> {
        heads.iter().flat_map(|head| head.to_le_bytes()).collect()
    }

    fn hints_of(heads: &[u8], count: usize) -> [u8; HINTS_BYTES] {
        let mut hints = [0; HINTS_BYTES];
        for index in 0..HINT_COUNT {
            hints[index * 4..index * 4 + 4].copy_from_slice(&hint(heads, count, index).to_le_bytes());
        }
        hints
    }

    fn check(heads: &[u32], probe: u32) {
        let less = heads.iter().filter(|head| **head < probe).count();
        let not_above = heads.iter().filter(|head| **head <= probe).count();
        let bare = bytes_of(heads);
        // Bytes after the heads must not count, whether low or high.
        for padding in [0x00, 0xff] {
            let mut bytes = bare.clone();
            bytes.resize(bare.len() + 256, padding);
            assert_eq!(count_less(&bytes, heads.len(), probe), less, "{} heads, probe {probe}", heads.len());
            assert_eq!(count_less_or_equal(&bytes, heads.len(), probe), not_above);
            let hints = hints_of(&bytes, heads.len());
            assert_eq!(count_less_hinted(&hints, &bytes, heads.len(), probe), less, "{} hinted", heads.len());
        }
        assert_eq!(count_less(&bare, heads.len(), probe), less);
        assert_eq!(count_less_hinted(&hints_of(&bare, heads.len()), &bare, heads.len(), probe), less);
    }

    #[test]
    fn the_vector_search_agrees_with_counting_for_every_number_of_heads() {
        let mut random = 1u64;
        for count in (0..600).chain([1023, 2040, 5456]) {
            let mut heads: Vec<u32> = (0..count)
                .map(|_| {
                    random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                    (random >> 33) as u32 * 2
                })
                .collect();
            heads.sort_unstable();
            let mut probes = vec![0, 1, u32::MAX - 1, u32::MAX, 1 << 31];
            let step = 1 + count / 40;
            probes.extend(heads.iter().step_by(step).flat_map(|h| [h.wrapping_sub(1), *h, h.wrapping_add(1)]));
            for probe in probes {
                check(&heads, probe);
            }
        }
    }

    #[test]
    fn the_vector_search_agrees_with_counting_for_equal_and_extreme_heads() {
        for count in [1, 2, 15, 16, 17, 31, 32, 33, 64, 65, 248, 600] {
            for value in [0, 1, 0x7fff_ffff, 0x8000_0000, u32::MAX - 1, u32::MAX] {
                let mut heads = vec![value; count];
                for probe in [0, 1, value.wrapping_sub(1), value, value.wrapping_add(1), u32::MAX] {
                    check(&heads, probe);
                }
                heads[0] = 0;
                heads[count - 1] = u32::MAX;
                for probe in [0, 1, value, u32::MAX] {
                    check(&heads, probe);
                }
            }
        }
    }

    #[test]
    fn a_search_of_unsorted_heads_stays_in_bounds() {
        let bytes: Vec<u8> = (0..4096u32).map(|i| (i.wrapping_mul(2654435761) >> 13) as u8).collect();
        let hints: [u8; HINTS_BYTES] = bytes[100..164].try_into().unwrap();
        for count in 0..=5000 {
            for probe in [0, 77 << 24, u32::MAX] {
                assert!(count_less(&bytes, count, probe) <= count);
                assert!(count_less_hinted(&hints, &bytes, count, probe) <= count);
            }
        }
    }
}
