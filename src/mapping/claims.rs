//! The set of claimed pages: those that the running write transaction may store to.
//!
//! Floor: mapping. A vector of segments, one for [`SEGMENT_PAGES`] pages, with one bit per page. A
//! segment is allocated when one of its pages is first claimed. Looking up a page takes two loads.
//! The set lists the segments in use, so that releasing all claims takes time only for those.
//!
//! Invariants:
//!   CLAIM-1  the `count` of a segment is the number of its bits that are set.
//!   CLAIM-2  `used` lists every segment with a set bit, each at most once.
//!
//! Failure: claiming a page twice, or releasing one that is not claimed, is a bug in the caller and
//! panics.

use crate::ids::PageId;

const WORDS: usize = 128;
/// Pages of a segment, which takes 1 KiB of bits.
const SEGMENT_PAGES: u64 = (WORDS * 64) as u64;

struct Segment {
    words: [u64; WORDS],
    count: u32,
    /// Whether `Claims::used` lists it.
    listed: bool,
}

/// A set of pages with fast lookup and clearing.
#[derive(Default)]
pub(super) struct Claims {
    segments: Vec<Option<Box<Segment>>>,
    /// Indexes of the segments in use (CLAIM-2).
    used: Vec<usize>,
    count: u64,
}

/// The words that hold the bits of a range of pages: index of the segment, index of the word, and a
/// mask of the bits.
fn words(id: PageId, pages: u64) -> impl Iterator<Item = (usize, usize, u64)> {
    let end = id.0 + pages;
    let mut page = id.0;
    std::iter::from_fn(move || {
        if page >= end {
            return None;
        }
        let first = page % 64;
        let bits = (64 - first).min(end - page);
        let mask = (u64::MAX >> (64 - bits)) << first;
        let word = ((page / SEGMENT_PAGES) as usize, (page % SEGMENT_PAGES / 64) as usize, mask);
        page += bits;
        Some(word)
    })
}

impl Claims {
    /// Whether a page is claimed.
    #[inline]
    pub(super) fn contains(&self, id: PageId) -> bool {
        match self.segments.get((id.0 / SEGMENT_PAGES) as usize) {
            Some(Some(segment)) => segment.words[(id.0 % SEGMENT_PAGES / 64) as usize] >> (id.0 % 64) & 1 == 1,
            _ => false,
        }
    }

    /// Whether all pages of a range are claimed.
    #[inline]
    pub(super) fn contains_all(&self, id: PageId, pages: u64) -> bool {
        if pages == 1 {
            return self.contains(id);
        }
        words(id, pages).all(|(segment, word, mask)| match self.segments.get(segment) {
            Some(Some(segment)) => segment.words[word] & mask == mask,
            _ => false,
        })
    }

    /// Whether any page of a range is claimed.
    pub(super) fn contains_any(&self, id: PageId, pages: u64) -> bool {
        words(id, pages).any(|(segment, word, mask)| match self.segments.get(segment) {
            Some(Some(segment)) => segment.words[word] & mask != 0,
            _ => false,
        })
    }

    pub(super) fn insert(&mut self, id: PageId, pages: u64) {
        for (index, word, mask) in words(id, pages) {
            if index >= self.segments.len() {
                self.segments.resize_with(index + 1, || None);
            }
            let segment = self.segments[index]
                .get_or_insert_with(|| Box::new(Segment { words: [0; WORDS], count: 0, listed: false }));
            assert!(segment.words[word] & mask == 0, "pages {id}+{pages} claimed twice");
            segment.words[word] |= mask;
            segment.count += mask.count_ones();
            if !segment.listed {
                segment.listed = true;
                self.used.push(index);
            }
        }
        self.count += pages;
    }

    pub(super) fn remove(&mut self, id: PageId, pages: u64) {
        assert!(self.contains_all(id, pages), "pages {id}+{pages} released without a claim");
        for (index, word, mask) in words(id, pages) {
            if let Some(Some(segment)) = self.segments.get_mut(index) {
                segment.words[word] &= !mask;
                segment.count -= mask.count_ones();
            }
        }
        self.count -= pages;
    }

    pub(super) fn clear(&mut self) {
        for index in self.used.drain(..) {
            if let Some(Some(segment)) = self.segments.get_mut(index) {
                if segment.count > 0 {
                    segment.words.fill(0);
                }
                segment.count = 0;
                segment.listed = false;
            }
        }
        self.count = 0;
    }

    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// The claimed pages as extents, ascending, neighbours joined.
    pub(super) fn extents(&self) -> Vec<(PageId, u64)> {
        let mut used = self.used.clone();
        used.sort_unstable();
        let mut extents: Vec<(PageId, u64)> = Vec::new();
        for index in used {
            let Some(Some(segment)) = self.segments.get(index) else { continue };
            for (word, &bits) in segment.words.iter().enumerate() {
                push_word(&mut extents, index as u64 * SEGMENT_PAGES + word as u64 * 64, bits);
            }
        }
        extents
    }
}

/// Adds the set bits of one word as extents. Bit 0 is page `base`.
fn push_word(extents: &mut Vec<(PageId, u64)>, base: u64, mut bits: u64) {
    let mut page = base;
    while bits != 0 {
        let gap = bits.trailing_zeros();
        bits >>= gap;
        page += u64::from(gap);
        let set = bits.trailing_ones();
        match extents.last_mut() {
            Some((first, pages)) if first.0 + *pages == page => *pages += u64::from(set),
            _ => extents.push((PageId(page), u64::from(set))),
        }
        page += u64::from(set);
        bits = bits.checked_shr(set).unwrap_or(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claimed_extents_join_across_words_and_segments() {
        let mut claims = Claims::default();
        claims.insert(PageId(SEGMENT_PAGES * 5 + 3), 2);
        claims.insert(PageId(60), 10);
        claims.insert(PageId(SEGMENT_PAGES - 1), 130);
        assert_eq!(
            claims.extents(),
            vec![(PageId(60), 10), (PageId(SEGMENT_PAGES - 1), 130), (PageId(SEGMENT_PAGES * 5 + 3), 2)]
        );
        assert_eq!(claims.count(), 142);
        assert!(claims.contains_all(PageId(SEGMENT_PAGES - 1), 130));
        assert!(!claims.contains_all(PageId(SEGMENT_PAGES - 1), 131));
        claims.remove(PageId(64), 2);
        assert_eq!(claims.extents()[..2], [(PageId(60), 4), (PageId(66), 4)]);
        assert!(!claims.contains(PageId(64)) && claims.contains(PageId(63)));
        claims.clear();
        assert_eq!((claims.count(), claims.extents().len()), (0, 0));
        claims.insert(PageId(64), 64);
        assert_eq!(claims.extents(), vec![(PageId(64), 64)]);
    }

    #[test]
    fn claims_agree_with_a_set() {
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
    fn removing_a_page_without_a_claim_panics() {
        Claims::default().remove(PageId(7), 1);
    }
}
