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
//! A flat index notes the branches that it was made from. For another state of the same tree,
//! `renew` copies what it has of the branches that both states share, and reads only the others
//! (`renewal`).
//!
//! Invariants:
//!   FLAT-1  the child that `child` returns is the one to which a descent through the branches
//!           leads.
//!   FLAT-2  `heads` ascend. The last block is filled up with the largest number, at least once.
//!
//! Failure: `build` returns `None` for a tree that gains nothing, and an error for damaged pages.
//! `child` returns `None` for a key that the columns cannot place. In all these cases the caller
//! descends through the branches.

mod columns;
mod renewal;
#[cfg(test)]
pub(crate) mod tests;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;

use columns::{Columns, COLUMNS_MAX};

use crate::error::Result;
use crate::ids::{PageId, PagePtr, TxnId, MAX_U48};
use crate::page::heads::{Vectors, WORDS};
use crate::page::layout::{get_u32, get_u64, CHILD_BYTES, LEAF_ARRAY_BYTES, LEAF_HEADS};
use crate::page::meta::TreeRoot;
use crate::pager::PageRead;
use crate::sys::prefetch;

use crate::tree::path::{branch_at, height_of};
use crate::tree::Tree;

/// Limits on the pages of a flat level, one for each step of `open_table`: built in little time;
/// heads and pointers fit the second-level cache of a core; the leaves of some gigabytes; the
/// maximum.
pub(crate) const PAGES_MAX: [usize; 4] = [WORDS.pow(3) - 1, WORDS.pow(4) - 1, WORDS.pow(5) - 1, WORDS.pow(6) - 1];
/// More than the bytes of a flat index per page: a head, a pointer, hints, and its part of a
/// source.
pub(crate) const BYTES_PER_PAGE: usize = 20;
/// Maximum number of bytes to prefetch at the start of a leaf.
const LEAF_FRONT_BYTES_MAX: usize = 1024;

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
    /// The branches above the level, in order.
    sources: Vec<Source>,
    charge: Option<Charge>,
}

/// A branch that a flat index has the children of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Source {
    ptr: PagePtr,
    /// The transaction that wrote the branch. A page that is used again has a later one.
    born: TxnId,
    /// The number of its first child.
    start: usize,
}

/// Counts the bytes of a flat index until it is dropped.
#[derive(Debug)]
struct Charge {
    used: Arc<AtomicUsize>,
    bytes: usize,
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
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
    /// Adds a child whose separator is the bytes that were added since the last `push`. Of a long
    /// separator the bytes in its page suffice: they are more than columns.
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
        if !tree.root.order.is_bytewise() {
            // Its searches compare bytes.
            return Ok(None);
        }
        let Tree { pages, root } = tree;
        if tree.is_empty() {
            return Ok(None);
        }
        let mut parts = Parts::default();
        parts.push(root.ptr);
        let mut sources = Vec::new();
        let mut level = height_of(root)?.saturating_sub(1);
        while level > 0 {
            let Some(below) = children(pages, &parts, level, pages_max.min(PAGES_MAX[3]))? else { break };
            (parts, sources, level) = (below.0, below.1, level - 1);
        }
        if parts.pages.len() < 2 {
            return Ok(None);
        }
        let columns = Columns::of(&parts);
        let heads: Vec<u64> = parts.separators().map(|separator| columns.head(separator)).collect();
        let children: Vec<_> = parts.pages.iter().map(|ptr| packed(*ptr)).collect();
        Ok(FlatIndex::assemble(root, level, columns, &heads, &children, sources))
    }

    /// Makes a flat index of heads and pointers in order. `None` if the heads do not ascend.
    fn assemble(
        root: &TreeRoot,
        level: usize,
        columns: Columns,
        heads: &[u64],
        children: &[[u8; CHILD_BYTES]],
        sources: Vec<Source>,
    ) -> Option<FlatIndex> {
        let ascending = heads.windows(2).all(|pair| pair[0] < pair[1]);
        // Damage aside, heads that are equal come from columns that were left out.
        if !ascending && heads.windows(2).any(|pair| pair[0] > pair[1]) {
            return None;
        }
        let columns = columns.with_exact(columns.exact && ascending);
        let heads = blocks(heads);
        let mut hints = vec![blocks(&last_of_each(&heads))];
        while hints[0].len() > 1 {
            hints.insert(0, blocks(&last_of_each(&hints[0])));
        }
        let [first_hints] = hints.remove(0)[..] else { return None };
        let mut pages: Vec<Pages> =
            heads.into_iter().map(|heads| Pages { heads, children: [[0; CHILD_BYTES]; WORDS] }).collect();
        for (pages, children) in pages.iter_mut().zip(children.chunks(WORDS)) {
            pages.children[..children.len()].copy_from_slice(children);
        }
        let page_count = children.len();
        // The file says this count, so it may be wrong: bound it.
        let entries = (root.entries / page_count as u64).min(LEAF_FRONT_BYTES_MAX as u64) as usize;
        let leaf_front_bytes = (LEAF_HEADS + LEAF_ARRAY_BYTES * entries).min(LEAF_FRONT_BYTES_MAX);
        let charge = None;
        Some(FlatIndex { first_hints, hints, pages, page_count, level, leaf_front_bytes, columns, sources, charge })
    }

    /// Number of the pages of the level.
    pub(crate) fn page_count(&self) -> usize {
        self.page_count
    }

    /// Adds the bytes of this flat index to `used` until it is dropped.
    pub(crate) fn charge(&mut self, used: &Arc<AtomicUsize>) {
        let bytes = self.bytes();
        used.fetch_add(bytes, Ordering::Relaxed);
        self.charge = Some(Charge { used: Arc::clone(used), bytes });
    }

    /// The bytes of memory that it takes.
    pub(crate) fn bytes(&self) -> usize {
        let hints: usize = self.hints.iter().map(Vec::capacity).sum();
        size_of::<FlatIndex>()
            + hints * size_of::<Block>()
            + self.pages.capacity() * size_of::<Pages>()
            + self.sources.capacity() * size_of::<Source>()
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

/// The children of branches, if there are not too many, and what the branches are.
fn children<P: PageRead>(
    pages: &P,
    parts: &Parts,
    level: usize,
    pages_max: usize,
) -> Result<Option<(Parts, Vec<Source>)>> {
    let mut below = Parts::default();
    let mut sources = Vec::with_capacity(parts.pages.len());
    for (at, ptr) in parts.pages.iter().enumerate() {
        let branch = branch_at(pages, *ptr, level)?;
        if below.pages.len() + branch.count() > pages_max {
            return Ok(None);
        }
        sources.push(Source { ptr: *ptr, born: branch.born(), start: below.pages.len() });
        // The first child begins where its parent does.
        below.bytes.extend_from_slice(parts.separator(at));
        for at in 0..branch.count() {
            if at > 0 {
                let _long = branch.append_separator(at, &mut below.bytes)?;
            }
            below.push(branch.child(at)?);
        }
    }
    Ok(Some((below, sources)))
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
