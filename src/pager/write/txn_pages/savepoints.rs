//! Savepoints of the running transaction: which of its pages it may still change in place, and how
//! it goes back.
//!
//! Floor: pager. Part of [`TxnPages`]. Each savepoint begins an *era*, and a page belongs to the
//! era in which it was allocated. Pages of an era before the newest savepoint are *frozen*: they
//! count as not dirty, so a change copies them, and a page that is freed stays as it is and is only
//! noted. To set a savepoint therefore costs the same whatever the transaction has changed. To go
//! back frees the pages that were allocated since, and forgets which ones were freed.
//!
//! Without a savepoint nothing is noted.
//!
//! Invariants:
//!   MARK-1  no byte of a frozen page changes, and it stays claimed or written through.
//!   MARK-2  `taken` names each owned page that was allocated since the oldest savepoint, after the
//!           mark of every savepoint that is older than the page.
//!   MARK-3  `waiting` names each frozen page that was freed, once.
//!   MARK-4  at a savepoint the append buffer is empty, so the file has all frozen pages, or the
//!           write queue will write them.
//!
//! Failure: errors of writing. After a failed write of a page that was built before a savepoint
//! ([`TxnPages::has_lost_writes`]), the transaction cannot go back to it.

use super::{unlocked, TxnPages};
use crate::error::{best_effort, Error, Result};
use crate::hooks::{self, Mutant};
use crate::ids::{PageId, TxnId};

/// Pages whose eras are in one segment.
const SEGMENT_PAGES: u64 = 1024;
/// Segments that stay for the next transaction.
const SEGMENTS_MAX: usize = 64;

/// The pages of a transaction at a savepoint.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PageMark {
    era: u32,
    page_count: u64,
    taken: usize,
    waiting: usize,
    freed: usize,
}

/// Pages that were allocated in one piece.
#[derive(Clone, Copy, Debug)]
struct Taken {
    id: PageId,
    pages: u64,
    /// The earliest of the eras that these pages had before.
    before: u32,
}

/// The era of each page. Pages of which nothing was noted have era 0.
#[derive(Default, Debug)]
struct Eras {
    segments: Vec<Option<Box<[u32; SEGMENT_PAGES as usize]>>>,
    used: usize,
}

impl Eras {
    #[inline]
    fn get(&self, id: PageId) -> u32 {
        match self.segments.get((id.0 / SEGMENT_PAGES) as usize) {
            Some(Some(segment)) => segment[(id.0 % SEGMENT_PAGES) as usize],
            _ => 0,
        }
    }

    /// Sets the era of pages. Returns the earliest one that they had.
    fn set(&mut self, id: PageId, pages: u64, era: u32) -> u32 {
        let mut earliest = u32::MAX;
        for page in id.0..id.0 + pages {
            let index = (page / SEGMENT_PAGES) as usize;
            if index >= self.segments.len() {
                self.segments.resize_with(index + 1, || None);
            }
            let segment = self.segments[index].get_or_insert_with(|| {
                self.used += 1;
                Box::new([0; SEGMENT_PAGES as usize])
            });
            let before = std::mem::replace(&mut segment[(page % SEGMENT_PAGES) as usize], era);
            earliest = earliest.min(before);
        }
        earliest
    }
}

/// What the pages of a transaction need in order to go back.
#[derive(Default, Debug)]
pub(super) struct Savepoints {
    /// The era of the newest savepoint. It only grows, also from one transaction to the next, so an
    /// era that an earlier transaction has noted is before all of this one.
    era: u32,
    /// Pages of an earlier era are frozen. 0: there is no savepoint.
    frozen_below: u32,
    eras: Eras,
    /// Pages that were allocated since the oldest savepoint, in this order.
    taken: Vec<Taken>,
    /// Frozen pages that were freed. They can be used again when no savepoint needs them.
    waiting: Vec<(PageId, u64, TxnId)>,
    /// Pages were lost that a savepoint may need.
    lost_writes: bool,
}

impl Savepoints {
    /// Whether there is a savepoint.
    #[inline]
    fn is_set(&self) -> bool {
        self.frozen_below > 0
    }

    #[inline]
    pub(super) fn is_frozen(&self, id: PageId) -> bool {
        self.is_set() && self.eras.get(id) < self.frozen_below
    }

    /// Notes that pages were allocated.
    #[inline]
    pub(super) fn note_taken(&mut self, id: PageId, pages: u64) {
        if self.is_set() {
            let before = self.eras.set(id, pages, self.era);
            self.taken.push(Taken { id, pages, before });
        }
    }

    pub(super) fn note_lost_writes(&mut self) {
        self.lost_writes = true;
    }

    /// Forgets everything at the end of the transaction.
    pub(super) fn end(&mut self) {
        let is_large = self.eras.used > SEGMENTS_MAX || self.taken.capacity() > SEGMENTS_MAX << 10;
        if is_large || self.era > u32::MAX / 2 {
            *self = Savepoints::default();
        }
        self.taken.clear();
        self.waiting.clear();
        (self.frozen_below, self.lost_writes) = (0, false);
    }
}

impl TxnPages {
    /// Sets a savepoint.
    pub(crate) fn mark(&mut self) -> Result<PageMark> {
        self.put_down()?;
        let freed = self.free.keep_freed();
        let Savepoints { era, frozen_below, taken, waiting, .. } = &mut self.savepoints;
        let next = era.checked_add(1);
        *era = next.ok_or_else(|| Error::usage("2^32 savepoints were set in this transaction, which is the limit"))?;
        *frozen_below = *era;
        Ok(PageMark { era: *era, page_count: self.page_count, taken: taken.len(), waiting: waiting.len(), freed })
    }

    /// Goes back to a savepoint, which stays. Pages that were allocated since are free again.
    pub(crate) fn roll_back(&mut self, mark: &PageMark) -> Result<()> {
        self.append_buffer.take();
        self.append_buffer.interrupt();
        self.end_writing()?;
        if !hooks::is(Mutant::FreedNotRolledBack) {
            self.free.forget_freed(mark.freed);
        }
        self.savepoints.waiting.truncate(mark.waiting);
        let taken = self.savepoints.taken.split_off(mark.taken);
        for &Taken { id, pages, before } in taken.iter().rev() {
            self.savepoints.eras.set(id, pages, before);
            if !hooks::is(Mutant::TakenNotRolledBack) {
                self.give_back(id, pages, mark.page_count);
            }
        }
        self.savepoints.frozen_below = mark.era;
        if self.page_count > mark.page_count && !hooks::is(Mutant::TakenNotRolledBack) {
            self.free.forget_from(mark.page_count);
            self.page_count = mark.page_count;
        }
        Ok(())
    }

    /// Gives up a savepoint and all after it; `before` is the one before it, if there is one. Pages
    /// that were freed since, and that no savepoint needs any more, are free.
    pub(crate) fn release_mark(&mut self, mark: &PageMark, before: Option<&PageMark>) {
        let frozen_below = before.map_or(0, |before| before.era);
        self.savepoints.frozen_below = frozen_below;
        self.free.keep_freed_below(before.map_or(0, |before| before.freed));
        let waiting = self.savepoints.waiting.split_off(mark.waiting);
        // Those that `before` needs are noted again.
        waiting.into_iter().for_each(|(id, pages, born)| self.free_pages(id, pages, born));
        let taken = &mut self.savepoints.taken;
        match before {
            // The others were noted before, after the mark of `before`.
            Some(_) => {
                let since = taken.split_off(mark.taken);
                taken.extend(since.into_iter().filter(|taken| taken.before < frozen_below));
            }
            None => taken.clear(),
        }
    }

    /// Whether pages were lost that an earlier part of the transaction has built.
    pub(crate) fn has_lost_writes(&self) -> bool {
        self.savepoints.lost_writes
    }

    /// Frees pages that transaction `born` wrote.
    pub(super) fn free_pages(&mut self, id: PageId, pages: u64, born: TxnId) {
        let is_dirty = self.is_dirty_extent(id, pages);
        if !is_dirty && !self.write_map.is_written_through_extent(id, pages) {
            match hooks::is(Mutant::EarlyReuse) {
                true => self.free.add_unlisted(id, pages),
                false => self.free.add_freed(self.freed_item(id, pages, born)),
            }
        } else if !self.savepoints.is_set() {
            self.free_owned(id, pages, is_dirty);
        } else {
            self.free_as_of_eras(id, pages, born, is_dirty);
        }
    }

    /// Frees pages of this transaction while there is a savepoint: notes those that are frozen. The
    /// pages may have been allocated one by one.
    #[cold]
    fn free_as_of_eras(&mut self, id: PageId, pages: u64, born: TxnId, is_dirty: bool) {
        let (mut page, end) = (id.0, id.0 + pages);
        while page < end {
            let (first, is_frozen) = (PageId(page), self.savepoints.is_frozen(PageId(page)));
            while page < end && self.savepoints.is_frozen(PageId(page)) == is_frozen {
                page += 1;
            }
            match is_frozen {
                true => self.savepoints.waiting.push((first, page - first.0, born)),
                false => self.free_owned(first, page - first.0, is_dirty),
            }
        }
    }

    /// Makes pages of this transaction usable again.
    fn free_owned(&mut self, id: PageId, pages: u64, is_dirty: bool) {
        if is_dirty {
            if self.append_buffer.page(id).is_some() {
                self.append_buffer.take();
            }
            self.write_map.unclaim(id, pages);
            self.free.give_back_dirty(id, pages);
        } else {
            if let (Some(write_queue), 0) = (&mut self.write_queue, self.read_map.verified_byte(id)) {
                // The page is still in the write queue: write it now, or it would overwrite the
                // next user of the page. The queue stores an error until the commit reports it.
                best_effort(unlocked(write_queue).finish(&self.read_map));
            }
            self.give_back_written_through(id, pages);
        }
    }

    /// Makes pages usable again that were allocated since a savepoint, as far as they are owned.
    /// Those from `page_count` on are dropped.
    fn give_back(&mut self, id: PageId, pages: u64, page_count: u64) {
        let is_whole = self.write_map.is_claimed_extent(id, pages);
        if is_whole {
            self.write_map.unclaim(id, pages);
        } else if self.write_map.is_written_through_extent(id, pages) {
            self.write_map.remove_written_through(id, pages);
        } else if pages > 1 {
            // Freed since, and parts of it were allocated again.
            return (id.0..id.0 + pages).for_each(|page| self.give_back(PageId(page), 1, page_count));
        } else {
            return;
        }
        if id.0 < page_count {
            self.free.give_back_dirty(id, pages);
        }
    }
}
