//! Residency: which pages are in memory, which to read ahead, and which to release.
//!
//! Floor: pager. Trees use the trait [`Residency`]. Everything here is a hint: a read without it
//! returns the same bytes, only later. [`SnapshotPages`] implements it for files; the default
//! methods, for all other pages, say that everything is in memory.
//!
//! Invariants:
//!   RESIDENCY-1  No page at or past the end of the state is requested or released.
//!
//! Failure: [`Error::Fault`] from [`FirstTouch::bring`], for a page that cannot be read.

use std::ops::ControlFlow;

use crate::error::{Error, Result};
use crate::ids::{PageId, PagePtr};
use crate::mapping::{ReadMap, CHUNK_BYTES};
use crate::pager::read::snapshot_pages::{beyond_end, extent_range, verify_first_touch, SnapshotPages};
use crate::pager::PageRead as _;

/// Bytes of pages that [`Residency::load`] has requested and not yet read: as many requests as a
/// queue of the kernel has by default (256). Further requests would only wait for a place in it.
const IN_FLIGHT_BYTES: usize = 1 << 20;
/// Bytes between two pages that [`Around::Between`] also reads.
const GAP_BYTES: u64 = 8 << 10;
/// Pages that [`Residency::load`] looks at to find out whether any of them is cold.
const SAMPLED: usize = 8;

/// Whether pages are in memory, and how to bring them there.
pub(crate) trait Residency {
    /// Whether this process has verified the page before, so that it was in memory then. A hint.
    #[inline]
    fn is_known(&self, _id: PageId) -> bool {
        true
    }

    /// Whether pages should be requested before they are needed.
    fn reads_ahead(&self) -> bool {
        false
    }

    /// Whether a whole extent is in memory or being read. Costs a system call. A hint.
    fn is_resident(&self, _id: PageId, _pages: u64) -> bool {
        true
    }

    /// Whether the kernel may have dropped verified pages, because the file does not fit in memory.
    fn may_be_gone(&self) -> bool {
        false
    }

    /// Returns [`Error::WouldBlock`] if an extent is not in memory, and requests it then. May cost
    /// a system call.
    fn at_once(&self, _id: PageId, _pages: u64) -> Result<()> {
        Ok(())
    }

    /// Starts reading several pages that will be needed soon, without waiting. Sorts `ids`.
    fn request(&self, _ids: &mut [PageId], _around: Around) {}

    /// Reads and verifies several pages: requests many at a time, in their order in the file, and
    /// verifies each while the disk reads the ones after it. Calls `each` for each page then, until
    /// it returns `Break`. Sorts `ptrs`, and removes repetitions. Pages that cannot be read stay
    /// unverified: the next read of them reports it. May only request them, if all seem to be in
    /// memory.
    fn load(&self, ptrs: &mut Vec<PagePtr>, _around: Around, each: &mut dyn FnMut(PagePtr) -> ControlFlow<()>) {
        // `Break` only ends the calls.
        let _ended = ptrs.iter().try_for_each(|ptr| each(*ptr));
    }

    /// The pages of the committed state, for callers that release memory; `None` if no memory can
    /// be released.
    fn snapshot(&self) -> Option<SnapshotPages> {
        None
    }
}

/// Which neighbours [`Residency::request`] also reads, if the whole file fits in memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Around {
    /// No neighbours.
    None,
    /// No neighbours until many random pages were requested, then those of each page: from there
    /// on, reading the rest of the file sequentially is faster.
    Some,
    /// The pages between two of them, if these are few: that is faster than a further request.
    Between,
    /// The neighbours of each page.
    Each,
}

/// How extents that are not needed soon leave memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum GiveBack {
    /// The kernel drops them, unless another process uses them.
    Now,
    /// When memory is short, the kernel drops them before other pages.
    First,
}

impl Residency for SnapshotPages {
    #[inline]
    fn is_known(&self, id: PageId) -> bool {
        self.read_map().verified_byte(id) != 0
    }

    fn reads_ahead(&self) -> bool {
        self.read_map().ahead().reads()
    }

    fn is_resident(&self, id: PageId, pages: u64) -> bool {
        extent_range(id, pages, self.page_count(), self.page_shift())
            .is_none_or(|(offset, len)| self.read_map().ahead().is_resident(offset, len as u64))
    }

    fn may_be_gone(&self) -> bool {
        self.read_map().ahead().reads() && !self.read_map().ahead().reads_around(self.end_bytes())
    }

    fn at_once(&self, id: PageId, pages: u64) -> Result<()> {
        // A pointer out of bounds is an error of the read that follows.
        let Some((offset, len)) = extent_range(id, pages, self.page_count(), self.page_shift()) else { return Ok(()) };
        if self.read_map().is_in_memory(offset, len as u64) {
            return Ok(());
        }
        self.read_map().ahead().request(offset, len as u64);
        self.read_map().ahead().touch(offset, self.end_bytes());
        Err(Error::WouldBlock { path: None, table: None, page: id })
    }

    fn request(&self, ids: &mut [PageId], around: Around) {
        ids.sort_unstable();
        let end = self.end_bytes();
        let fits = around != Around::None && self.read_map().ahead().reads_around(end);
        if fits
            && (around == Around::Each || self.read_map().ahead().counts_as_scan(ids.len() as u64, self.page_count()))
        {
            for id in ids.iter().filter(|id| id.0 < self.page_count()) {
                self.read_map().ahead().touch(id.0 << self.page_shift(), end);
            }
            return;
        }
        let gap = if fits && around == Around::Between { GAP_BYTES >> self.page_shift() } else { 0 };
        let asked = |id: &&PageId| fits && self.read_map().ahead().was_examined(id.0 << self.page_shift());
        let extents = ids.iter().filter(|id| !asked(id)).map(|&id| (id, 1));
        joined(extents, gap, |id, pages| {
            if let Some((offset, len)) = extent_range(id, pages, self.page_count(), self.page_shift()) {
                self.read_map().ahead().request(offset, len as u64);
            }
        });
    }

    fn load(&self, ptrs: &mut Vec<PagePtr>, around: Around, each: &mut dyn FnMut(PagePtr) -> ControlFlow<()>) {
        ptrs.sort_unstable_by_key(|ptr| ptr.id);
        ptrs.dedup_by_key(|ptr| ptr.id);
        let mut ids: Vec<PageId> = ptrs.iter().map(|ptr| ptr.id).collect();
        let mut sample = ids.iter().step_by(ids.len().div_ceil(SAMPLED).max(1));
        let is_warm = sample.all(|id| self.is_resident(*id, 1));
        if is_warm {
            self.request(&mut ids, around);
        }
        let in_flight = (IN_FLIGHT_BYTES >> self.page_shift()).max(2);
        let mut requested = if is_warm { ids.len() } else { 0 };
        for (at, ptr) in ptrs.iter().enumerate() {
            if requested < ids.len() && requested - at <= in_flight / 2 {
                let until = ids.len().min(at + in_flight);
                self.request(&mut ids[requested..until], around);
                requested = until;
            }
            if !is_warm {
                // The reader of the page reports the error.
                let _later = self.load_requested(*ptr);
            }
            if each(*ptr).is_break() {
                return;
            }
        }
    }

    fn snapshot(&self) -> Option<SnapshotPages> {
        Some(self.clone())
    }
}

impl SnapshotPages {
    /// Brings a page or an extent into memory before its first touch.
    pub(crate) fn bring(&self, id: PageId, len: usize) -> Result<()> {
        self.first_touch_of(id, len).bring()
    }

    fn first_touch_of(&self, id: PageId, len: usize) -> FirstTouch<'_> {
        FirstTouch {
            read_map: self.read_map(),
            offset: id.0 << self.page_shift(),
            len,
            is_extent: len > 1 << self.page_shift(),
            end: self.end_bytes(),
        }
    }

    /// Waits for a page that was requested, and verifies it.
    fn load_requested(&self, ptr: PagePtr) -> Result<()> {
        let range = extent_range(ptr.id, 1, self.page_count(), self.page_shift());
        let bytes = range.and_then(|(offset, len)| self.read_map().bytes(offset, len));
        let bytes = bytes.ok_or_else(|| beyond_end(ptr.id, 1, self.page_count()))?;
        self.first_touch_of(ptr.id, bytes.len()).bring_requested()?;
        if self.page_fast(ptr).is_none() {
            verify_first_touch(self.read_map(), ptr, bytes)?;
        }
        Ok(())
    }

    /// Tells the kernel that extents are not needed soon. Sorts `extents`.
    pub(crate) fn give_back(&self, extents: &mut [(PageId, u64)], how: GiveBack) {
        extents.sort_unstable();
        joined(extents.iter().copied(), 0, |id, pages| {
            if let Some((offset, len)) = extent_range(id, pages, self.page_count(), self.page_shift()) {
                match how {
                    GiveBack::Now => self.read_map().release(offset, len as u64),
                    GiveBack::First => self.read_map().cool(offset, len as u64),
                }
            }
        });
    }

    fn end_bytes(&self) -> u64 {
        self.page_count() << self.page_shift()
    }
}

/// The first touch of a page or an extent of a state that ends at `end`.
pub(crate) struct FirstTouch<'a> {
    pub(crate) read_map: &'a ReadMap,
    pub(crate) offset: u64,
    pub(crate) len: usize,
    pub(crate) is_extent: bool,
    pub(crate) end: u64,
}

impl FirstTouch<'_> {
    /// Brings the page or the extent into memory.
    pub(crate) fn bring(&self) -> Result<()> {
        let FirstTouch { read_map, offset, len, is_extent, end } = *self;
        let ahead = read_map.ahead();
        if is_extent {
            // All of the extent is needed: one request is faster than a fault for each page.
            ahead.request(offset, len as u64);
            ahead.touch(offset, end);
        } else if read_map.has_fault_guard() && ahead.was_loaded(offset, end) {
            return Ok(());
        } else if ahead.touch(offset, end) {
            if self.load_chunk() {
                return Ok(());
            }
        } else {
            // A page that is requested first arrives sooner than one that only `probe` reads (60 us
            // instead of 67 us on a virtual disk).
            ahead.request(offset, len as u64);
        }
        read_map.probe(offset, len)
    }

    /// Brings a page into memory that was requested.
    fn bring_requested(&self) -> Result<()> {
        let FirstTouch { read_map, offset, len, end, .. } = *self;
        let ahead = read_map.ahead();
        let is_loaded = read_map.has_fault_guard() && ahead.was_loaded(offset, end);
        if is_loaded || (ahead.was_examined(offset) && self.load_chunk()) {
            return Ok(());
        }
        read_map.probe(offset, len)
    }

    /// Loads the chunk of the page, if that is worth while. Returns whether it was loaded.
    fn load_chunk(&self) -> bool {
        let (read_map, ahead) = (self.read_map, self.read_map.ahead());
        let chunk = ahead.chunk_to_load(self.offset, self.end).filter(|_| read_map.has_fault_guard());
        chunk.is_some_and(|from| {
            let all = read_map.probe(from, CHUNK_BYTES as usize).is_ok();
            ahead.note_loaded(self.offset, all);
            all
        })
    }
}

/// Joins extents that overlap or touch, or between which at most `gap` pages lie, in ascending
/// order.
fn joined(mut extents: impl Iterator<Item = (PageId, u64)>, gap: u64, mut emit: impl FnMut(PageId, u64)) {
    let Some((mut start, mut pages)) = extents.next() else { return };
    for (id, more) in extents {
        if id.0 <= start.0.saturating_add(pages).saturating_add(gap) {
            pages = pages.max((id.0 - start.0).saturating_add(more));
        } else {
            emit(start, pages);
            (start, pages) = (id, more);
        }
    }
    emit(start, pages);
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write as _;

    use super::*;
    use crate::mapping::{MapOptions, Mapping};
    use crate::page::checksum;
    use crate::sys::direct_io::{cached_pages, forget_cache};

    const PAGE_SIZE: usize = 4096;
    /// More pages than are requested at a time.
    const PAGES: u64 = 3 * (IN_FLIGHT_BYTES / PAGE_SIZE) as u64;

    /// A file of pages and the pointers to them. The bytes of the page `damaged` do not match its
    /// pointer.
    fn file_with(damaged: PageId) -> (File, Vec<PagePtr>) {
        let mut file = tempfile::tempfile().expect("a file");
        let mut ptrs = Vec::new();
        file.write_all(&[0; 2 * PAGE_SIZE]).expect("written");
        for id in (2..PAGES).map(PageId) {
            let mut page = vec![(id.0 % 200) as u8 | 8; PAGE_SIZE];
            let crc = checksum::seal(&mut page);
            page[PAGE_SIZE - 1] ^= u8::from(id == damaged);
            file.write_all(&page).expect("written");
            ptrs.push(PagePtr { id, crc });
        }
        file.sync_all().expect("flushed");
        (file, ptrs)
    }

    /// The pages of the file, of which none is in memory; `None` if the file system has no disk.
    fn cold(file: &File) -> Option<SnapshotPages> {
        if !forget_cache(file).expect("dropped") || cached_pages(file).expect("counted") > 0 {
            println!("skipped: files for tests stay in memory");
            return None;
        }
        Some(opened(file))
    }

    /// The pages of the file in a mapping of its own, so that none is verified.
    fn opened(file: &File) -> SnapshotPages {
        let options = MapOptions { page_size: PAGE_SIZE, window_bytes: None, fault_guard: true, used_bytes: None };
        let mapping = Mapping::of_file(file.try_clone().expect("a descriptor"), false, options).expect("mapped");
        SnapshotPages::new(mapping.read_map(), PAGE_SIZE, PAGES)
    }

    #[test]
    fn loaded_pages_are_in_memory_and_verified_but_for_the_damaged_one() {
        let damaged = PageId(PAGES / 2);
        let (file, ptrs) = file_with(damaged);
        for around in [Around::None, Around::Some, Around::Between, Around::Each] {
            let Some(pages) = cold(&file) else { return };
            // Every second page, none in its order, some of them twice, and one past the end.
            let mut wanted: Vec<PagePtr> = ptrs.iter().rev().step_by(2).copied().collect();
            wanted.extend(ptrs.iter().rev().step_by(10));
            wanted.extend([ptrs[damaged.0 as usize - 2], PagePtr { id: PageId(PAGES + 7), crc: 1 }]);
            let asked = wanted.clone();
            let mut seen = Vec::new();
            pages.load(&mut wanted, around, &mut |ptr| {
                assert_eq!(pages.is_known(ptr.id), ptr.id != damaged && ptr.id.0 < PAGES, "{ptr:?}");
                seen.push(ptr);
                ControlFlow::Continue(())
            });
            assert_eq!(seen, wanted);
            assert!(wanted.is_sorted_by_key(|ptr| ptr.id) && wanted.len() < asked.len());
            for ptr in asked.iter().filter(|ptr| ptr.id.0 < PAGES) {
                assert!(pages.is_resident(ptr.id, 1), "{ptr:?}");
                assert_eq!(pages.is_known(ptr.id), ptr.id != damaged, "{ptr:?}");
            }
            let others = ptrs.iter().filter(|ptr| !asked.contains(ptr));
            assert_eq!(others.filter(|ptr| pages.is_known(ptr.id)).count(), 0);
            assert!(pages.page(ptrs[damaged.0 as usize - 2]).is_err());
        }
    }

    #[test]
    fn pages_in_memory_are_left_to_their_readers() {
        let (file, mut ptrs) = file_with(PageId(0));
        let Some(pages) = cold(&file) else { return };
        for ptr in &ptrs {
            assert!(pages.page(*ptr).is_ok());
        }
        let again = opened(&file);
        let mut calls = 0;
        again.load(&mut ptrs, Around::None, &mut |_| {
            calls += 1;
            if calls == 10 {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        });
        assert_eq!(calls, 10);
        assert_eq!(ptrs.iter().filter(|ptr| again.is_known(ptr.id)).count(), 0);
    }

    #[test]
    fn extents_that_touch_or_overlap_are_joined() {
        let mut given = Vec::new();
        let extents = [(1, 1), (2, 3), (4, 1), (5, 2), (9, 1), (9, 1), (11, 1)].map(|(id, pages)| (PageId(id), pages));
        joined(extents.into_iter(), 0, |id, pages| given.push((id.0, pages)));
        assert_eq!(given, [(1, 6), (9, 1), (11, 1)]);
        given.clear();
        joined(extents.into_iter(), 1, |id, pages| given.push((id.0, pages)));
        assert_eq!(given, [(1, 6), (9, 3)]);
        joined(std::iter::empty(), 0, |id, _| panic!("{id}"));
    }
}
