//! The set of claimed pages: those that the running write transaction may store to.
//!
//! Floor: mapping. Two levels: a vector of chunks of [`CHUNK_PAGES`] pages, one bit per page, made
//! when a page of the chunk is first claimed. Asking is two loads; the chunks in use are listed, so
//! that releasing all costs what was claimed and not what the file measures.
//!
//! Invariants:
//!   CLAIM-1  a chunk's `count` is the number of its bits that are set.
//!   CLAIM-2  `used` lists every chunk with a set bit, each at most once.
//!
//! Failure: claiming twice or giving back what is not claimed is a bug of ours and panics.

use crate::ids::PageId;

const WORDS: usize = 128;
/// Pages of a chunk: 1 KiB of bits.
const CHUNK_PAGES: u64 = (WORDS * 64) as u64;

struct Chunk {
    words: [u64; WORDS],
    count: u32,
    listed: bool,
}

#[derive(Default)]
pub(super) struct Claims {
    chunks: Vec<Option<Box<Chunk>>>,
    used: Vec<usize>,
    count: u64,
}

/// The words that a range of pages touches: chunk, word, and the bits in it.
fn words(id: PageId, pages: u64) -> impl Iterator<Item = (usize, usize, u64)> {
    let end = id.0 + pages;
    let mut at = id.0;
    std::iter::from_fn(move || {
        if at >= end {
            return None;
        }
        let first = at % 64;
        let bits = (64 - first).min(end - at);
        let mask = (u64::MAX >> (64 - bits)) << first;
        let found = ((at / CHUNK_PAGES) as usize, (at % CHUNK_PAGES / 64) as usize, mask);
        at += bits;
        Some(found)
    })
}

impl Claims {
    /// Whether a page is claimed.
    #[inline]
    pub(super) fn contains(&self, id: PageId) -> bool {
        match self.chunks.get((id.0 / CHUNK_PAGES) as usize) {
            Some(Some(chunk)) => chunk.words[(id.0 % CHUNK_PAGES / 64) as usize] >> (id.0 % 64) & 1 == 1,
            _ => false,
        }
    }

    /// Whether all pages of a range are claimed.
    #[inline]
    pub(super) fn contains_all(&self, id: PageId, pages: u64) -> bool {
        if pages == 1 {
            return self.contains(id);
        }
        words(id, pages).all(|(chunk, word, mask)| match self.chunks.get(chunk) {
            Some(Some(chunk)) => chunk.words[word] & mask == mask,
            _ => false,
        })
    }

    /// Whether any page of a range is claimed.
    pub(super) fn contains_any(&self, id: PageId, pages: u64) -> bool {
        words(id, pages).any(|(chunk, word, mask)| match self.chunks.get(chunk) {
            Some(Some(chunk)) => chunk.words[word] & mask != 0,
            _ => false,
        })
    }

    pub(super) fn insert(&mut self, id: PageId, pages: u64) {
        for (index, word, mask) in words(id, pages) {
            if index >= self.chunks.len() {
                self.chunks.resize_with(index + 1, || None);
            }
            let chunk = self.chunks[index]
                .get_or_insert_with(|| Box::new(Chunk { words: [0; WORDS], count: 0, listed: false }));
            assert!(chunk.words[word] & mask == 0, "pages {id}+{pages} claimed twice");
            chunk.words[word] |= mask;
            chunk.count += mask.count_ones();
            if !chunk.listed {
                chunk.listed = true;
                self.used.push(index);
            }
        }
        self.count += pages;
    }

    pub(super) fn remove(&mut self, id: PageId, pages: u64) {
        assert!(self.contains_all(id, pages), "pages {id}+{pages} given back without a claim");
        for (index, word, mask) in words(id, pages) {
            if let Some(Some(chunk)) = self.chunks.get_mut(index) {
                chunk.words[word] &= !mask;
                chunk.count -= mask.count_ones();
            }
        }
        self.count -= pages;
    }

    pub(super) fn clear(&mut self) {
        for index in self.used.drain(..) {
            if let Some(Some(chunk)) = self.chunks.get_mut(index) {
                if chunk.count > 0 {
                    chunk.words.fill(0);
                }
                chunk.count = 0;
                chunk.listed = false;
            }
        }
        self.count = 0;
    }

    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// The claimed pages as runs, ascending, neighbours joined.
    pub(super) fn extents(&self) -> Vec<(PageId, u64)> {
        let mut used = self.used.clone();
        used.sort_unstable();
        let mut extents: Vec<(PageId, u64)> = Vec::new();
        for index in used {
            let Some(Some(chunk)) = self.chunks.get(index) else { continue };
            for (word, &bits) in chunk.words.iter().enumerate() {
                push_word(&mut extents, index as u64 * CHUNK_PAGES + word as u64 * 64, bits);
            }
        }
        extents
    }
}

/// Adds the set bits of one word, the first of which stands for page `base`.
fn push_word(extents: &mut Vec<(PageId, u64)>, base: u64, mut bits: u64) {
    let mut at = base;
    while bits != 0 {
        let gap = bits.trailing_zeros();
        bits >>= gap;
        at += u64::from(gap);
        let set = bits.trailing_ones();
        match extents.last_mut() {
            Some((first, pages)) if first.0 + *pages == at => *pages += u64::from(set),
            _ => extents.push((PageId(at), u64::from(set))),
        }
        at += u64::from(set);
        bits = bits.checked_shr(set).unwrap_or(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_join_over_words_and_chunks() {
        let mut claims = Claims::default();
        claims.insert(PageId(CHUNK_PAGES * 5 + 3), 2);
        claims.insert(PageId(60), 10);
        claims.insert(PageId(CHUNK_PAGES - 1), 130);
        assert_eq!(
            claims.extents(),
            vec![(PageId(60), 10), (PageId(CHUNK_PAGES - 1), 130), (PageId(CHUNK_PAGES * 5 + 3), 2)]
        );
        assert_eq!(claims.count(), 142);
        assert!(claims.contains_all(PageId(CHUNK_PAGES - 1), 130));
        assert!(!claims.contains_all(PageId(CHUNK_PAGES - 1), 131));
        claims.remove(PageId(64), 2);
        assert_eq!(claims.extents()[..2], [(PageId(60), 4), (PageId(66), 4)]);
        assert!(!claims.contains(PageId(64)) && claims.contains(PageId(63)));
        claims.clear();
        assert_eq!((claims.count(), claims.extents().len()), (0, 0));
        claims.insert(PageId(64), 64);
        assert_eq!(claims.extents(), vec![(PageId(64), 64)]);
    }

    #[test]
    fn agrees_with_a_set() {
        let (mut claims, mut model) = (Claims::default(), std::collections::BTreeSet::new());
        let mut state = 12345_u64;
        for _ in 0..20_000 {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let (id, pages) = (state >> 33 & 0x7fff, 1 + (state >> 50 & 3));
            let range = id..id + pages;
            if range.clone().all(|p| model.contains(&p)) {
                claims.remove(PageId(id), pages);
                range.for_each(|p| assert!(model.remove(&p)));
            } else if range.clone().all(|p| !model.contains(&p)) {
                claims.insert(PageId(id), pages);
                model.extend(range);
            }
        }
        let flat: Vec<u64> = claims.extents().iter().flat_map(|(id, pages)| id.0..id.0 + pages).collect();
        assert_eq!(flat, model.iter().copied().collect::<Vec<_>>());
        assert_eq!(claims.count(), model.len() as u64);
    }

    #[test]
    #[should_panic(expected = "claimed twice")]
    fn claiming_twice_panics() {
        let mut claims = Claims::default();
        claims.insert(PageId(7), 2);
        claims.insert(PageId(8), 1);
    }

    #[test]
    #[should_panic(expected = "without a claim")]
    fn giving_back_a_stranger_panics() {
        Claims::default().remove(PageId(7), 1);
    }
}
