//! A set of page ids, with a bit for each page.
//!
//! Floor: pager. For walks over a whole state that account for every page. The set consists of
//! chunks of [`CHUNK_PAGES`] pages. A chunk is created when the first of its pages is added;
//! consecutive full chunks are stored as one span. Memory and time depend on the pages added, not
//! on the page count that the file claims, because a damaged meta page or a file with holes may
//! claim any count. Costs about a fifth of a byte per page.
//!
//! Invariants:
//!   SPAN-1  Spans do not overlap, and none reaches beyond the last page.
//!   SPAN-2  Pages are never removed, so a full span stays full.
//!
//! Failure: none. `take` returns a page that was taken before or does not exist.

use std::collections::BTreeMap;

use crate::ids::PageId;

const WORDS: usize = 8;
/// Pages per chunk.
const CHUNK_PAGES: u64 = (WORDS * 64) as u64;

/// The taken pages of one or more chunks.
#[derive(Clone)]
enum Span {
    /// Some pages of one chunk: a bit for each page that was taken.
    Some([u64; WORDS]),
    /// All pages of this many chunks.
    All(u64),
}

/// A set of page ids.
#[derive(Clone)]
pub(crate) struct PageMap {
    /// Keyed by the number of the span's first chunk.
    spans: BTreeMap<u64, Span>,
    pub(crate) pages: u64,
    pub(crate) taken: u64,
}

impl PageMap {
    pub(crate) fn new(pages: u64) -> PageMap {
        PageMap { spans: BTreeMap::new(), pages, taken: 0 }
    }

    /// Adds an extent to the map. Returns its first page that was in the map before or does not
    /// exist, if any.
    pub(crate) fn take(&mut self, id: PageId, pages: u64) -> Option<PageId> {
        let end = id.0.saturating_add(pages);
        let inside = end.min(self.pages);
        let (mut wrong, mut at) = (None, id.0);
        while at < inside {
            let (next, taken_before) = match at % CHUNK_PAGES == 0 && inside - at >= CHUNK_PAGES {
                true => self.take_chunks(at / CHUNK_PAGES, inside / CHUNK_PAGES),
                false => self.take_in_chunk(at, inside.min((at / CHUNK_PAGES + 1) * CHUNK_PAGES)),
            };
            wrong = wrong.or(taken_before);
            at = next;
        }
        wrong.or((pages > 0 && inside < end).then(|| PageId(id.0.max(self.pages))))
    }

    /// Adds whole chunks, up to the next chunk that is in the map. Returns the page to go on with,
    /// and the first page that was in the map before.
    fn take_chunks(&mut self, chunk: u64, end: u64) -> (u64, Option<PageId>) {
        if let Some(full_to) = self.full_to(chunk) {
            return (full_to.min(end) * CHUNK_PAGES, Some(PageId(chunk * CHUNK_PAGES)));
        }
        let known = self.spans.range(chunk..end).next().map(|(first, _)| *first);
        if known == Some(chunk) {
            let (next, taken_before) = self.take_in_chunk(chunk * CHUNK_PAGES, (chunk + 1) * CHUNK_PAGES);
            self.spans.insert(chunk, Span::All(1));
            return (next, taken_before);
        }
        let to = known.unwrap_or(end);
        self.spans.insert(chunk, Span::All(to - chunk));
        self.taken += (to - chunk) * CHUNK_PAGES;
        (to * CHUNK_PAGES, None)
    }

    /// Adds pages of one chunk. Returns the page after them, and the first page that was in the map
    /// before.
    fn take_in_chunk(&mut self, from: u64, to: u64) -> (u64, Option<PageId>) {
        let chunk = from / CHUNK_PAGES;
        if self.full_to(chunk).is_some() {
            return (to, Some(PageId(from)));
        }
        let Span::Some(words) = self.spans.entry(chunk).or_insert(Span::Some([0; WORDS])) else {
            return (to, Some(PageId(from)));
        };
        let (mut taken_before, mut at) = (None, from);
        while at < to {
            let first = at % 64;
            let bits = (64 - first).min(to - at);
            let mask = (u64::MAX >> (64 - bits)) << first;
            let word = &mut words[(at % CHUNK_PAGES / 64) as usize];
            let both = *word & mask;
            if both != 0 {
                taken_before = taken_before.or(Some(PageId(at - first + u64::from(both.trailing_zeros()))));
            }
            self.taken += u64::from((mask & !*word).count_ones());
            *word |= mask;
            at += bits;
        }
        (to, taken_before)
    }

    /// The end of the full span that contains a chunk.
    fn full_to(&self, chunk: u64) -> Option<u64> {
        match self.spans.range(..=chunk).next_back() {
            Some((first, Span::All(chunks))) if chunk < first + chunks => Some(first + chunks),
            _ => None,
        }
    }

    /// Whether a page was taken. False for a page that does not exist.
    pub(crate) fn is_taken(&self, id: PageId) -> bool {
        let chunk = id.0 / CHUNK_PAGES;
        match self.spans.range(..=chunk).next_back() {
            Some((first, Span::All(chunks))) => chunk < first + chunks,
            Some((first, Span::Some(words))) if *first == chunk => {
                words[(id.0 % CHUNK_PAGES / 64) as usize] >> (id.0 % 64) & 1 != 0
            }
            _ => false,
        }
    }

    /// The extents that were not taken, ascending, each as long as possible.
    pub(crate) fn untaken(&self) -> impl Iterator<Item = (PageId, u64)> + '_ {
        let end = std::iter::once((self.pages, self.pages));
        let mut done_to = 0;
        self.spans.iter().flat_map(|(chunk, span)| taken_ranges(*chunk, span)).chain(end).filter_map(
            move |(from, to)| {
                let gap = (PageId(done_to), from - done_to);
                done_to = to;
                (gap.1 > 0).then_some(gap)
            },
        )
    }
}

/// The taken pages of a span as ranges: first page, and the page after the last.
fn taken_ranges(chunk: u64, span: &Span) -> Vec<(u64, u64)> {
    let base = chunk * CHUNK_PAGES;
    let words = match span {
        Span::All(chunks) => return vec![(base, base + chunks * CHUNK_PAGES)],
        Span::Some(words) => words,
    };
    let mut extents = Vec::new();
    for (word, &bits) in (0..).zip(words) {
        let (mut at, mut rest) = (0, bits);
        while rest != 0 {
            at += rest.trailing_zeros();
            let set = (bits >> at).trailing_ones();
            let from = base + word * 64 + u64::from(at);
            extents.push((from, from + u64::from(set)));
            at += set;
            rest = bits.checked_shr(at).unwrap_or(0);
        }
    }
    extents
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_taken_twice_or_out_of_range_or_never_are_found() {
        let mut map = PageMap::new(70);
        assert_eq!(map.take(PageId(0), 60), None);
        assert_eq!(map.take(PageId(59), 3), Some(PageId(59)));
        assert_eq!(map.take(PageId(69), 2), Some(PageId(70)));
        assert_eq!(map.take(PageId(80), 2), Some(PageId(80)));
        assert_eq!((map.taken, map.is_taken(PageId(69)), map.is_taken(PageId(80))), (63, true, false));
        assert_eq!(map.untaken().collect::<Vec<_>>(), [(PageId(62), 7)]);
    }

    /// A huge page count: only pages that are taken cost memory.
    #[test]
    fn pages_that_are_never_taken_use_no_memory() {
        let pages = (1 << 63) + 5;
        let mut map = PageMap::new(pages);
        assert_eq!(map.take(PageId(3), 1), None);
        assert_eq!(map.take(PageId(1 << 50), 1 << 60), None);
        assert_eq!(map.take(PageId((1 << 50) + 777), 1 << 40), Some(PageId((1 << 50) + 777)));
        assert_eq!(map.take(PageId(1 << 62), 4), None);
        let last = (1 << 62) + 4;
        let extents = [
            (0, 3),
            (4, (1 << 50) - 4),
            ((1 << 50) + (1 << 60), (1 << 62) - (1 << 50) - (1 << 60)),
            (last, pages - last),
        ];
        assert_eq!(map.untaken().collect::<Vec<_>>(), extents.map(|(id, pages)| (PageId(id), pages)));
        assert_eq!(map.taken, 5 + (1 << 60));
        assert_eq!(map.take(PageId(0), u64::MAX), Some(PageId(3)));
        assert_eq!((map.taken, map.untaken().count()), (pages, 0));
        assert_eq!(map.take(PageId(u64::MAX), u64::MAX), Some(PageId(u64::MAX)));
    }

    /// Compares with a vector of bools, for pseudo-random extents that cross chunks and the end.
    #[test]
    fn a_page_map_agrees_with_a_vector() {
        const PAGES: u64 = 9 * CHUNK_PAGES + 77;
        let mut state = 99u64;
        let mut next = |bound: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % bound
        };
        for _ in 0..300 {
            let (mut map, mut model) = (PageMap::new(PAGES), vec![false; PAGES as usize]);
            for _ in 0..1 + next(40) {
                let longest = [3, 80, 4 * CHUNK_PAGES][next(3) as usize];
                let step = [1, 64, CHUNK_PAGES][next(3) as usize];
                let (id, pages) = (next(PAGES + 10) / step * step, next(longest) / step * step);
                let wrong = (id..id + pages).find(|page| model.get(*page as usize).is_none_or(|taken| *taken));
                assert_eq!(map.take(PageId(id), pages), wrong.map(PageId), "{id}+{pages}");
                (id..(id + pages).min(PAGES)).for_each(|page| model[page as usize] = true);
            }
            assert_eq!(map.taken, model.iter().filter(|taken| **taken).count() as u64);
            (0..PAGES + 10).for_each(|page| {
                let taken = model.get(page as usize).is_some_and(|taken| *taken);
                assert_eq!(map.is_taken(PageId(page)), taken, "{page}");
            });
            let extents: Vec<(PageId, u64)> = map.untaken().collect();
            assert!(extents.windows(2).all(|two| two[0].0 .0 + two[0].1 < two[1].0 .0), "{extents:?}");
            let flat: Vec<u64> = extents.iter().flat_map(|(id, pages)| id.0..id.0 + pages).collect();
            assert_eq!(flat, (0..PAGES).filter(|page| !model[*page as usize]).collect::<Vec<_>>());
        }
    }
}
