//! The flat index: the pages of one level of a tree as an array, which one search finds instead of
//! a descent.
//!
//! Floor: tree. A lookup waits for memory in its lowest two or three pages. The processor overlaps
//! these waits with those of the next lookup only if few instructions lie between them. So a flat
//! index replaces the levels above, although they are in the cache. It is made once for a table
//! that is looked up often; the tree of a snapshot does not change.
//!
//! Separators are compared by one word each. The word holds the bytes of the columns in which the
//! separators differ, from up to two runs of columns; bytes that all separators share are left out.
//!
//! The level is the lowest one with few enough pages. If the caller allows enough of them, that is
//! the level of the leaves.
//!
//! Invariants:
//!   FLAT-1  the child that `child` returns is the one to which a descent through the branches
//!           leads.
//!   FLAT-2  `heads` ascend. The last block is filled up with the largest number, at least once.
//!
//! Failure: `build` returns `None` for a tree that gains nothing, and an error for damaged pages.
//! `child` returns `None` for a key that the columns cannot place. In all these cases the caller
//! descends through the branches.

#[cfg(test)]
pub(crate) mod tests;
use crate::error::Result;
use crate::ids::{PageId, PagePtr, MAX_U48};
use crate::page::heads::{Vectors, WORDS};
use crate::page::layout::{get_u32, get_u64, CHILD_BYTES, LEAF_ARRAY_BYTES, LEAF_HEADS};
use crate::pager::PageRead;
use crate::sys::prefetch;

use crate::tree::path::{branch_at, height_of};
use crate::tree::Tree;

/// Limits on the pages of a flat level, one for each step of `open_table`: built in little time;
/// heads and pointers fit the second-level cache of a core; the maximum.
pub(crate) const PAGES_MAX: [usize; 3] =
    [WORDS * WORDS * WORDS - 1, WORDS * WORDS * WORDS * WORDS - 1, WORDS * WORDS * WORDS * WORDS * WORDS - 1];
/// Columns lie in this many first bytes of separators.
const COLUMNS_MAX: usize = 24;
/// Maximum number of bytes to prefetch at the start of a leaf.
const LEAF_FRONT_BYTES_MAX: usize = 1024;
/// Bytes of a word.
const WORD: usize = 8;

// The words at `Columns::places` cover every column.
const _: () = assert!(COLUMNS_MAX <= 3 * WORD);

/// Words that are compared together, in lines of the cache of their own.
#[derive(Clone, Copy, Default)]
#[repr(C, align(64))]
struct Block([u64; WORDS]);

/// Separators of neighbouring pages and, after them, pointers to the pages as branches store them.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Pages {
    heads: Block,
    children: [[u8; CHILD_BYTES]; WORDS],
}

/// The pages of one level of a tree, in order.
#[cfg_attr(test, derive(Default))]
pub(crate) struct FlatIndex {
    /// The last heads of all blocks of the next level of hints, and so on; those of the last level,
    /// of all `pages`.
    first_hints: Block,
    hints: Vec<Vec<Block>>,
    pages: Vec<Pages>,
    page_count: usize,
    /// Level of the pages.
    level: usize,
    /// Bytes of header, heads and slots of a leaf of average size.
    leaf_front_bytes: usize,
    columns: Columns,
}

impl std::fmt::Debug for FlatIndex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FlatIndex").field("pages", &self.page_count).field("level", &self.level).finish_non_exhaustive()
    }
}

/// A search that has come to its block.
#[derive(Clone, Copy, Default)]
pub(crate) struct SearchState {
    block: usize,
    word: u64,
}

/// Separators, each with the child that begins at it.
#[derive(Default)]
struct Parts {
    bytes: Vec<u8>,
    /// The end of each separator in `bytes`.
    ends: Vec<usize>,
    pages: Vec<PagePtr>,
}

impl Parts {
    /// Adds a child whose separator is the bytes that were added since the last `push`.
    fn push(&mut self, page: PagePtr) {
        // Keep one byte more than is compared: it shows that the separator is longer.
        let start = self.ends.last().copied().unwrap_or(0);
        self.bytes.truncate(start + COLUMNS_MAX + 1);
        self.ends.push(self.bytes.len());
        self.pages.push(page);
    }

    fn separator(&self, at: usize) -> &[u8] {
        let start = if at == 0 { 0 } else { self.ends[at - 1] };
        &self.bytes[start..self.ends[at]]
    }

    fn separators(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.ends.len()).map(|at| self.separator(at))
    }
}

impl FlatIndex {
    /// Makes the lowest level flat that has at most `pages_max` pages. `None` if that is the root.
    pub(crate) fn build<P: PageRead>(tree: Tree<'_, P>, pages_max: usize) -> Result<Option<FlatIndex>> {
        let Tree { pages, root } = tree;
        if tree.is_empty() {
            return Ok(None);
        }
        let mut parts = Parts::default();
        parts.push(root.ptr);
        let mut level = height_of(root)?.saturating_sub(1);
        while level > 0 {
            let Some(below) = children(pages, &parts, level, pages_max.min(PAGES_MAX[2]))? else { break };
            (parts, level) = (below, level - 1);
        }
        if parts.pages.len() < 2 {
            return Ok(None);
        }
        let columns = Columns::of(&parts);
        let heads: Vec<u64> = parts.separators().map(|separator| columns.head(separator)).collect();
        let ascending = heads.windows(2).all(|pair| pair[0] < pair[1]);
        // Damage aside, heads that are equal come from columns that were left out.
        if heads.windows(2).any(|pair| pair[0] > pair[1]) {
            return Ok(None);
        }
        let columns = Columns { exact: columns.exact && ascending, ..columns };
        let heads = blocks(&heads);
        let mut hints = vec![blocks(&last_of_each(&heads))];
        while hints[0].len() > 1 {
            hints.insert(0, blocks(&last_of_each(&hints[0])));
        }
        let [first_hints] = hints.remove(0)[..] else { return Ok(None) };
        let mut pages: Vec<Pages> =
            heads.into_iter().map(|heads| Pages { heads, children: [[0; CHILD_BYTES]; WORDS] }).collect();
        for (at, ptr) in parts.pages.iter().enumerate() {
            pages[at / WORDS].children[at % WORDS] = packed(*ptr);
        }
        let page_count = parts.pages.len();
        // The file says this count, so it may be wrong: bound it.
        let entries = (root.entries / page_count as u64).min(LEAF_FRONT_BYTES_MAX as u64) as usize;
        let leaf_front_bytes = (LEAF_HEADS + LEAF_ARRAY_BYTES * entries).min(LEAF_FRONT_BYTES_MAX);
        Ok(Some(FlatIndex { first_hints, hints, pages, page_count, level, leaf_front_bytes, columns }))
    }

    /// Level of the pages.
    #[inline(always)]
    pub(crate) fn level(&self) -> usize {
        self.level
    }

    /// Bytes at the start of a leaf that a search in it reads, on average.
    #[inline]
    pub(crate) fn leaf_front_bytes(&self) -> usize {
        self.leaf_front_bytes
    }

    /// Number of the page whose range holds `key`. `first`: the first word of the key.
    #[inline(always)]
    pub(crate) fn find<V: Vectors>(&self, vectors: V, key: &[u8], first: u64) -> Option<usize> {
        let place = self.begin(vectors, key, first)?;
        // Prefetch, so that the waits for heads and pointers overlap.
        prefetch::value(&self.pages.get(place.block)?.children);
        self.end(vectors, place)
    }

    /// The first part of the search. It prefetches what the second part needs, so that the caller
    /// can begin other keys meanwhile.
    #[inline(always)]
    pub(crate) fn begin_ahead<V: Vectors>(&self, vectors: V, key: &[u8], first: u64) -> Option<SearchState> {
        let place = self.begin(vectors, key, first)?;
        prefetch::value(self.pages.get(place.block)?);
        Some(place)
    }

    #[inline(always)]
    fn begin<V: Vectors>(&self, vectors: V, key: &[u8], first: u64) -> Option<SearchState> {
        // The first word of a shorter key is padded, and equal to that of a separator which ends
        // with zeros.
        if key.len() < self.columns.key_bytes {
            return None;
        }
        let word = if self.columns.is_first_word { first } else { self.columns.word(key)? };
        let mut at = vectors.below_16_words(&self.first_hints.0, word);
        for hints in &self.hints {
            at = at * WORDS + vectors.below_16_words(&hints.get(at)?.0, word);
        }
        Some(SearchState { block: at, word })
    }

    /// The second part: the number of the page.
    #[inline(always)]
    pub(crate) fn end<V: Vectors>(&self, vectors: V, place: SearchState) -> Option<usize> {
        let SearchState { block, word } = place;
        let pages = self.pages.get(block)?;
        let below = vectors.below_16_words(&pages.heads.0, word);
        let mut not_above = block * WORDS + below;
        // By FLAT-2 the chosen block has a head that is not below the word.
        if pages.heads.0[below % WORDS] == word {
            if !self.columns.exact {
                return None;
            }
            not_above += 1;
        }
        // Head 0 is zero: either it is below, or equal.
        Some(not_above.wrapping_sub(1))
    }

    /// A page by its number.
    #[inline(always)]
    pub(crate) fn page(&self, at: usize) -> Option<PagePtr> {
        if at >= self.page_count {
            return None;
        }
        self.pages.get(at / WORDS).map(|pages| unpacked(&pages.children[at % WORDS]))
    }

    /// The page whose range holds `key`.
    #[inline(always)]
    pub(crate) fn child<V: Vectors>(&self, vectors: V, key: &[u8], first: u64) -> Option<PagePtr> {
        self.page(self.find(vectors, key, first)?)
    }
}

/// A pointer as short as it can be.
fn packed(ptr: PagePtr) -> [u8; CHILD_BYTES] {
    let mut bytes = [0; CHILD_BYTES];
    bytes[..8].copy_from_slice(&ptr.id.0.to_le_bytes());
    bytes[6..].copy_from_slice(&ptr.crc.to_le_bytes());
    bytes
}

#[inline(always)]
fn unpacked(bytes: &[u8; CHILD_BYTES]) -> PagePtr {
    PagePtr { id: PageId(get_u64(bytes, 0) & MAX_U48), crc: get_u32(bytes, 6) }
}

/// The children of branches, if there are not too many.
fn children<P: PageRead>(pages: &P, parts: &Parts, level: usize, pages_max: usize) -> Result<Option<Parts>> {
    let mut below = Parts::default();
    for (at, ptr) in parts.pages.iter().enumerate() {
        let branch = branch_at(pages, *ptr, level)?;
        if below.pages.len() + branch.count() > pages_max {
            return Ok(None);
        }
        // The first child begins where its parent does.
        below.bytes.extend_from_slice(parts.separator(at));
        for at in 0..branch.count() {
            if at > 0 {
                branch.append_separator(at, &mut below.bytes)?;
            }
            below.push(branch.child(at)?);
        }
    }
    Ok(Some(below))
}

/// Divides into blocks, with the largest number after the last one.
fn blocks(heads: &[u64]) -> Vec<Block> {
    let mut padded = heads.to_vec();
    padded.resize((heads.len() + 1).next_multiple_of(WORDS), u64::MAX);
    padded.chunks_exact(WORDS).filter_map(|block| block.first_chunk()).copied().map(Block).collect()
}

/// The last head of each block but the last, which ends with the largest number anyway.
fn last_of_each(blocks: &[Block]) -> Vec<u64> {
    let (_, others) = blocks.split_last().unwrap_or((&Block([0; WORDS]), &[]));
    others.iter().map(|block| block.0[WORDS - 1]).collect()
}

/// Which bytes of a key form its word, and which values the other bytes must have.
#[derive(Clone, Copy, Default)]
struct Columns {
    /// Up to two runs of columns.
    runs: [KeyBytes; 2],
    /// The bytes that all separators share in the other columns, in up to three words that lie at
    /// `places`.
    fixed: [u64; 3],
    masks: [u64; 3],
    places: [usize; 3],
    /// Bytes that a key must have.
    key_bytes: usize,
    /// Whether the words order keys exactly as the whole separators do.
    exact: bool,
    has_fixed: bool,
    has_two_runs: bool,
    /// The columns are the first eight.
    is_first_word: bool,
}

/// Neighbouring columns: `(word at place >> shift) & mask`.
#[derive(Clone, Copy, Default)]
struct KeyBytes {
    place: usize,
    shift: u32,
    mask: u64,
    bits: u32,
}

impl Columns {
    fn of(parts: &Parts) -> Columns {
        let separators = || parts.separators();
        let longest = separators().map(<[u8]>::len).max().unwrap_or(0);
        // The byte at this column of the first separator that is long enough, and whether another
        // separator has a different one.
        let column = |at: usize| {
            let mut bytes = separators().filter_map(|separator| separator.get(at));
            let first = bytes.next().copied().unwrap_or(0);
            (first, bytes.any(|byte| *byte != first))
        };
        let columns: Vec<(u8, bool)> = (0..longest.min(COLUMNS_MAX)).map(column).collect();
        let mut spans: Vec<(usize, usize)> = Vec::new();
        let mut taken = 0;
        let mut exact = true;
        for at in (0..columns.len()).filter(|at| columns[*at].1) {
            let count = spans.len();
            match spans.last_mut() {
                _ if taken == WORD => exact = false,
                Some((_, end)) if *end == at => *end += 1,
                _ if count == 2 => (exact, taken) = (false, WORD),
                _ => spans.push((at, at + 1)),
            }
            taken = (taken + 1).min(WORD);
        }
        if let Some((_, end)) = spans.last_mut() {
            // Bytes after the last column decide where all columns are equal.
            if longest <= COLUMNS_MAX && longest - *end <= WORD - taken {
                *end = longest;
            }
        }
        if let [(0, end)] = &mut spans[..] {
            // Columns that do not differ do no harm, and the first word of a key is already
            // computed.
            *end = WORD;
        }
        let end = spans.last().map_or(0, |(_, end)| *end);
        let mut made = Columns { exact: exact && longest <= end, key_bytes: end.max(WORD), ..Columns::default() };
        for (run, (start, end)) in made.runs.iter_mut().zip(&spans) {
            *run = KeyBytes::of(*start, *end);
        }
        made.has_two_runs = spans.len() == 2;
        made.is_first_word = spans == [(0, WORD)];
        let last = end.saturating_sub(WORD);
        made.places = [0, last.min(WORD), last];
        for (at, (byte, _)) in columns.iter().enumerate().take(end) {
            if spans.iter().any(|(start, end)| (*start..*end).contains(&at)) {
                continue;
            }
            made.has_fixed = true;
            let Some(which) = made.places.iter().position(|place| (*place..*place + WORD).contains(&at)) else {
                continue;
            };
            let shift = 8 * (WORD - 1 - (at - made.places[which]));
            made.fixed[which] |= u64::from(*byte) << shift;
            made.masks[which] |= 0xff << shift;
        }
        made
    }

    /// The head of a separator; columns that it does not have are zero.
    fn head(&self, separator: &[u8]) -> u64 {
        let mut padded = [0; COLUMNS_MAX + WORD];
        padded.iter_mut().zip(separator).for_each(|(to, from)| *to = *from);
        let [first, second] = self.runs.map(|run| run.bytes(&padded).unwrap_or(0));
        first.checked_shl(self.runs[1].bits).unwrap_or(0) | second
    }

    /// The word of a key of at least `key_bytes`. `None` if the key differs in the bytes that all
    /// separators share.
    #[inline(always)]
    fn word(&self, key: &[u8]) -> Option<u64> {
        if self.has_fixed {
            let mut other = 0;
            for at in 0..3 {
                other |= (word_at(key, self.places[at])? ^ self.fixed[at]) & self.masks[at];
            }
            if other != 0 {
                return None;
            }
        }
        let word = self.runs[0].bytes(key)?;
        if !self.has_two_runs {
            return Some(word);
        }
        // Neither has all 64 bits.
        Some(word << (self.runs[1].bits & 63) | self.runs[1].bytes(key)?)
    }
}

impl KeyBytes {
    fn of(start: usize, end: usize) -> KeyBytes {
        let bits = 8 * (end - start) as u32;
        KeyBytes {
            place: end.saturating_sub(WORD),
            shift: 8 * WORD.saturating_sub(end) as u32,
            mask: u64::MAX.checked_shr(64 - bits).unwrap_or(0),
            bits,
        }
    }

    #[inline(always)]
    fn bytes(&self, key: &[u8]) -> Option<u64> {
        Some((word_at(key, self.place)? >> (self.shift & 63)) & self.mask)
    }
}

#[inline(always)]
fn word_at(key: &[u8], place: usize) -> Option<u64> {
    key.get(place..)?.first_chunk().map(|bytes| u64::from_be_bytes(*bytes))
}
