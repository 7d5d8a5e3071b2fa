//! Which pages were met: one bit per page.
//!
//! Floor: pager. For walks over a whole state, which account for every page. Costs an eighth of a byte per page.
//!
//! Failure: none; a page that was met before, or that does not exist, is an answer.

use crate::ids::PageId;

/// One bit per page.
pub(crate) struct PageMap {
    words: Vec<u64>,
    pub(crate) pages: u64,
    pub(crate) taken: u64,
}

impl PageMap {
    pub(crate) fn new(pages: u64) -> PageMap {
        PageMap { words: vec![0; pages.div_ceil(64) as usize], pages, taken: 0 }
    }

    /// Takes a run; the first page that was taken before or does not exist, if any.
    pub(crate) fn take(&mut self, id: PageId, pages: u64) -> Option<PageId> {
        let mut wrong = None;
        for page in id.0..id.0.saturating_add(pages) {
            if page >= self.pages {
                return wrong.or(Some(PageId(page)));
            }
            let (word, bit) = (&mut self.words[(page / 64) as usize], 1 << (page % 64));
            if *word & bit != 0 {
                wrong = wrong.or(Some(PageId(page)));
            } else {
                *word |= bit;
                self.taken += 1;
            }
        }
        wrong
    }

    /// Whether a page was taken. One that does not exist was not.
    pub(crate) fn is_taken(&self, id: PageId) -> bool {
        id.0 < self.pages && self.words[(id.0 / 64) as usize] >> (id.0 % 64) & 1 != 0
    }

    /// The pages that were not taken.
    pub(crate) fn untaken(&self) -> impl Iterator<Item = PageId> + '_ {
        (0..self.pages).filter(|page| self.words[(page / 64) as usize] >> (page % 64) & 1 == 0).map(PageId)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_map_finds_doubles_strays_and_lost_pages() {
        let mut map = PageMap::new(70);
        assert_eq!(map.take(PageId(0), 60), None);
        assert_eq!(map.take(PageId(59), 3), Some(PageId(59)));
        assert_eq!(map.take(PageId(69), 2), Some(PageId(70)));
        assert_eq!(map.taken, 63);
        assert_eq!(map.untaken().count(), 7);
        assert_eq!(map.untaken().next(), Some(PageId(62)));
    }
}
