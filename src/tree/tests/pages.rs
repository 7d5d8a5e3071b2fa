//! Pages in a `Vec`, as strict as possible: freed pages are poisoned and must not be read,
//! committed pages must never change (R1), checksums are verified at every read, and what is freed
//! must be freed with the right birth.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;

use crate::error::{Error, Result};
use crate::ids::{PageId, PagePtr, TxnId};
use crate::page::checksum;
use crate::page::header::page_txn;
use crate::pager::{PageRead, PageWrite, Residency};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Free,
    /// Allocated by the running transaction.
    Dirty,
    /// Its filling was finished by the running transaction; with the checksum of all its bytes.
    Finished(u32),
    /// Committed, with the checksum of all its bytes.
    Committed(u32),
    /// Committed, and freed by the running transaction.
    Pending(u32),
}

#[derive(Clone)]
pub(in crate::tree) struct VecPages {
    page_size: usize,
    bytes: Vec<u8>,
    states: Vec<State>,
    txn: TxnId,
    /// Whether a wrong access is a bug (panic) or what a damaged file does (error).
    strict: bool,
    /// Allocations that succeed before the disk is full.
    allocations_left: Option<u64>,
    /// No page below is free.
    low_free: usize,
    /// Reads so far, to see that walks end.
    reads: Cell<u64>,
    /// The prefetches so far: page, first byte and number of bytes.
    asked_for: RefCell<Vec<(PageId, usize, usize)>>,
}

const POISON: u8 = 0xDD;

impl VecPages {
    pub(in crate::tree) fn new(page_size: usize) -> VecPages {
        let mut pages = VecPages {
            page_size,
            bytes: Vec::new(),
            states: Vec::new(),
            txn: TxnId(1),
            strict: true,
            allocations_left: None,
            low_free: 2,
            reads: Cell::new(0),
            asked_for: RefCell::default(),
        };
        pages.extend(2);
        pages
    }

    fn extend(&mut self, count: usize) {
        self.states.resize(self.states.len() + count, State::Free);
        self.bytes.resize(self.states.len() * self.page_size, POISON);
    }

    pub(crate) fn lenient(mut self) -> VecPages {
        self.strict = false;
        self
    }

    pub(crate) fn limit_allocations(&mut self, count: Option<u64>) {
        self.allocations_left = count;
    }

    pub(crate) fn reads(&self) -> u64 {
        self.reads.get()
    }

    /// The prefetches since the last call of this function.
    pub(crate) fn asked_for(&self) -> Vec<(PageId, usize, usize)> {
        self.asked_for.take()
    }

    pub(crate) fn in_use(&self) -> HashSet<PageId> {
        let used = |state: &State| matches!(state, State::Dirty | State::Finished(_) | State::Committed(_));
        (0..).map(PageId).zip(&self.states).filter(|(_, state)| used(state)).map(|(id, _)| id).collect()
    }

    /// The bytes of a page, for tests that damage it. Needs no pointer, so no checksum.
    pub(crate) fn raw_mut(&mut self, id: PageId) -> &mut [u8] {
        let range = self.byte_range(id, 1);
        &mut self.bytes[range]
    }

    pub(crate) fn raw(&self, id: PageId) -> &[u8] {
        &self.bytes[self.byte_range(id, 1)]
    }

    fn byte_range(&self, id: PageId, pages: u64) -> std::ops::Range<usize> {
        id.0 as usize * self.page_size..(id.0 + pages) as usize * self.page_size
    }

    /// Ends the transaction: checks that committed pages have not changed, and frees pending pages.
    pub(crate) fn commit(&mut self) {
        for index in 0..self.states.len() {
            let id = PageId(index as u64);
            let now = crc32fast::hash(self.raw(id));
            match self.states[index] {
                State::Free => assert!(self.raw(id).iter().all(|&byte| byte == POISON), "page {id} written while free"),
                State::Dirty => self.states[index] = State::Committed(now),
                State::Committed(before) => assert_eq!(before, now, "R1: page {id} changed"),
                State::Finished(before) => {
                    assert_eq!(before, now, "page {id} changed after its filling was finished");
                    self.states[index] = State::Committed(now);
                }
                State::Pending(before) => {
                    assert_eq!(before, now, "R1: page {id} changed");
                    self.release(index);
                }
            }
        }
        self.txn = self.txn.next();
    }

    /// Undoes the transaction.
    pub(crate) fn abort(&mut self) {
        for index in 0..self.states.len() {
            match self.states[index] {
                State::Dirty | State::Finished(_) => self.release(index),
                State::Pending(before) => self.states[index] = State::Committed(before),
                _ => {}
            }
        }
    }

    fn release(&mut self, index: usize) {
        self.states[index] = State::Free;
        self.low_free = self.low_free.min(index);
        self.raw_mut(PageId(index as u64)).fill(POISON);
    }

    /// Checks an access; says whether the pages are dirty.
    fn access(&self, id: PageId, pages: u64) -> Result<bool> {
        self.reads.set(self.reads.get() + 1);
        let end = id.0.checked_add(pages).filter(|&end| end <= self.states.len() as u64);
        let Some(end) = end else { return Err(Error::corrupt(id, "page lies outside the file")) };
        let states = &self.states[id.0 as usize..end as usize];
        let dirty = states.iter().all(|state| *state == State::Dirty);
        let readable = dirty || states.iter().all(|state| matches!(state, State::Committed(_) | State::Finished(_)));
        if !readable {
            assert!(!self.strict, "pages {id} + {pages} read while {states:?}");
            return Err(Error::corrupt(id, "page is free"));
        }
        Ok(dirty)
    }
}

impl Residency for VecPages {}

impl PageRead for VecPages {
    fn page_size(&self) -> usize {
        self.page_size
    }

    fn page(&self, ptr: PagePtr) -> Result<&[u8]> {
        self.extent(ptr, 1)
    }

    fn extent(&self, ptr: PagePtr, pages: u64) -> Result<&[u8]> {
        let dirty = self.access(ptr.id, pages)?;
        let bytes = &self.bytes[self.byte_range(ptr.id, pages)];
        if !dirty && !checksum::matches(bytes, ptr.crc) {
            assert!(!self.strict, "checksum of page {}", ptr.id);
            return Err(Error::corrupt(ptr.id, "checksum"));
        }
        Ok(bytes)
    }

    fn prefetch(&self, id: PageId, from: usize, bytes: usize) {
        assert!(from + bytes <= self.page_size, "{bytes} bytes from {from} on are asked for ahead");
        self.asked_for.borrow_mut().push((id, from, bytes));
    }
}

impl PageWrite for VecPages {
    fn extent_born(&self, id: PageId, pages: u64) -> Result<TxnId> {
        self.access(id, pages)?;
        Ok(crate::page::overflow::born(&self.bytes[self.byte_range(id, 1)], id).unwrap_or_default())
    }

    fn txn(&self) -> TxnId {
        self.txn
    }

    fn is_dirty(&self, id: PageId) -> bool {
        self.states.get(id.0 as usize) == Some(&State::Dirty)
    }

    fn dirty_count(&self) -> u64 {
        self.states.iter().filter(|state| **state == State::Dirty).count() as u64
    }

    fn finish_filling(&mut self, id: PageId) -> Result<Option<PagePtr>> {
        let crc = checksum::seal(self.page_mut(id)?);
        self.states[id.0 as usize] = State::Finished(crc32fast::hash(self.raw(id)));
        Ok(Some(PagePtr { id, crc }))
    }

    fn alloc(&mut self, pages: u64) -> Result<PageId> {
        if let Some(left) = &mut self.allocations_left {
            let full = || Error::DiskFull { path: "vec".into(), wanted: pages };
            *left = left.checked_sub(1).ok_or_else(full)?;
        }
        let count = pages as usize;
        let free = |states: &[State]| states.iter().all(|state| *state == State::Free);
        let found = (self.low_free..self.states.len()).find(|&at| self.states.get(at..at + count).is_some_and(free));
        let start = found.unwrap_or_else(|| {
            self.extend(count);
            self.states.len() - count
        });
        self.states[start..start + count].fill(State::Dirty);
        let occupied = self.states[self.low_free..].iter().take_while(|state| **state != State::Free).count();
        self.low_free += occupied;
        let id = PageId(start as u64);
        let range = self.byte_range(id, pages);
        self.bytes[range].fill(0xA5);
        Ok(id)
    }

    fn free(&mut self, id: PageId, pages: u64, born: TxnId) {
        if self.strict {
            assert_eq!(page_txn(self.raw(id)), born, "birth of page {id}");
        }
        for index in id.0 as usize..(id.0 + pages) as usize {
            match self.states[index] {
                State::Dirty | State::Finished(_) => {
                    assert!(!self.strict || born == self.txn);
                    self.release(index);
                }
                State::Committed(crc) => {
                    assert!(!self.strict || born < self.txn);
                    self.states[index] = State::Pending(crc);
                }
                state => assert!(!self.strict, "page {index} freed while {state:?}"),
            }
        }
    }

    fn page_mut(&mut self, id: PageId) -> Result<&mut [u8]> {
        self.extent_mut(id, 1)
    }

    fn extent_mut(&mut self, id: PageId, pages: u64) -> Result<&mut [u8]> {
        let range = self.byte_range(id, pages);
        let states = &self.states[id.0 as usize..(id.0 + pages) as usize];
        assert!(states.iter().all(|state| *state == State::Dirty), "page {id} is not dirty");
        Ok(&mut self.bytes[range])
    }

    fn set_verified_sealed(&mut self, ptr: PagePtr) {
        assert!(self.is_dirty(ptr.id));
        assert_eq!(checksum::stored(self.raw(ptr.id)), ptr.crc);
    }
}
