//! Read-ahead of scans: requests the leaves that a walk over leaves will read next.
//!
//! Floor: tree. The branches name the next leaves, wherever they lie in the file. When a walk comes
//! to leaves that this process has not read yet, a second position runs ahead of it. This position
//! reads only branches, and requests the leaves below them: a few at first, more the longer the
//! walk goes on. It also requests the branch after its own, so that it does not wait for that one.
//!
//! A walk over known leaves loads one verified byte per leaf. For one leaf in
//! [`ASKED_ONE_OF`] it also asks the kernel whether the leaf is in memory, because leaves that were
//! read may have been evicted.
//!
//! A long walk over a file that does not fit in memory would evict pages that others use, for pages
//! that it reads once. So the leaves that it brought into memory are the first to leave: once it
//! has passed them, it tells the kernel so. They are not dropped.
//!
//! Invariants:
//!   SCAN-1  read-ahead does not change what the walk yields: if a page cannot be read ahead, the
//!           walk reads it itself and reports the error.
//!   SCAN-2  no leaf is released before the walk has left it.
//!   SCAN-3  only leaves that were not in memory when the walk asked for them are released or named
//!           to the kernel.
//!
//! Failure: none.

use std::collections::VecDeque;

use crate::ids::PageId;
use crate::pager::read::residency::GiveBack;
use crate::pager::read::snapshot_pages::SnapshotPages;
use crate::pager::{Around, PageRead, Residency as _};

use crate::tree::path::{Path, Side};

/// Number of leaves to request at first, and the maximum: 2 MiB.
const LEAVES_MIN: usize = 4;
const LEAVES_MAX: usize = 512;
/// For one in this many known leaves, the walk asks the kernel whether the leaf is in memory.
const ASKED_ONE_OF: usize = 64;
/// A walk that has requested so many leaves is long: 4 MiB.
const LONG_WALK: usize = 1024;
/// Minimum number of pages to release together.
const GIVEN_BACK: u64 = 256;

/// The read-ahead of one walk in one direction, and the pages that it releases after itself.
#[derive(Default)]
pub(crate) struct Sweep {
    /// The position ahead of the walk.
    place: Option<Box<Path>>,
    /// Number of leaves from the walk to the position ahead.
    between: usize,
    /// How large `between` should become.
    window: usize,
    /// No leaf comes after the position ahead, or the next one could not be read.
    ended: bool,
    /// Known leaves have been evicted.
    gone: bool,
    steps: usize,
    wanted: Vec<PageId>,
    to_release: Option<Box<ToRelease>>,
    /// Leaves requested since the sweep began.
    requested: usize,
    /// Of a long walk that fills the cache: pages that should leave memory before others.
    to_leave_first: Option<Box<ToRelease>>,
}

/// Pages that were not in memory before the walk. The walk gives them back after it has left them,
/// or when it is dropped.
struct ToRelease {
    pages: SnapshotPages,
    how: GiveBack,
    /// The leaf that the walk is at.
    now: PageId,
    /// Leaves of them that the walk has not reached yet, in its order. The leaves between these
    /// were in memory before.
    to_come: VecDeque<PageId>,
    /// Pages of them that the walk has left, as extents: first page and length.
    left: Vec<(PageId, u64)>,
    left_pages: u64,
}

impl Sweep {
    /// Sets whether the pages that the walk brings into memory stay there; else the walk releases
    /// them.
    pub(crate) fn fill_cache<P: PageRead>(&mut self, pages: &P, fill: bool) {
        self.to_release = pages.snapshot().filter(|_| !fill).map(|pages| ToRelease::new(pages, GiveBack::Now));
    }

    /// Called when the walk has come to a leaf.
    #[inline]
    pub(crate) fn arrived<P: PageRead>(&mut self, pages: &P, path: &Path, towards: Side) {
        self.steps = self.steps.wrapping_add(1);
        if self.to_leave_first.is_some() {
            self.pass(path.leaf().ptr.id);
        }
        if self.place.is_none() && self.to_release.is_none() {
            let next = path.ahead().id;
            if next.is_none() || (pages.is_known(next) && !self.steps.is_multiple_of(ASKED_ONE_OF)) {
                return;
            }
        }
        self.look_ahead(pages, path, towards);
    }

    /// Called in a long walk that has come to a leaf.
    #[cold]
    #[inline(never)]
    fn pass(&mut self, leaf: PageId) {
        if let Some(leaving) = &mut self.to_leave_first {
            leaving.move_to(leaf);
            if leaving.to_come.is_empty() && self.place.is_none() {
                self.to_leave_first = None;
            }
        }
    }

    #[cold]
    #[inline(never)]
    fn look_ahead<P: PageRead>(&mut self, pages: &P, path: &Path, towards: Side) {
        if let Some(to_release) = &mut self.to_release {
            to_release.move_to(path.leaf().ptr.id);
        } else if !pages.reads_ahead() {
            return;
        }
        if self.place.is_some() {
            self.between = self.between.saturating_sub(1);
        } else {
            self.gone = self.to_release.is_none() && pages.is_known(path.ahead().id);
            if self.gone && pages.is_resident(path.ahead().id, 1) {
                return;
            }
            (self.place, self.between, self.ended) = (Some(Box::new(path.clone())), 0, false);
        }
        if self.ended || self.between > self.window / 2 {
            return;
        }
        self.window = (self.window * 2).clamp(LEAVES_MIN, LEAVES_MAX);
        self.ask(pages, towards);
        if self.wanted.is_empty() && !self.ended && self.to_release.is_none() {
            // All these leaves are known and in memory: no position ahead is necessary for now.
            (self.place, self.window) = (None, 0);
        }
    }

    /// Moves the position ahead and requests the leaves that it passes.
    fn ask<P: PageRead>(&mut self, pages: &P, towards: Side) {
        self.wanted.clear();
        let is_long = self.to_release.is_none() && self.requested >= LONG_WALK && pages.may_be_gone();
        if is_long && self.to_leave_first.is_none() {
            self.to_leave_first = pages.snapshot().map(|pages| ToRelease::new(pages, GiveBack::First));
        }
        let Some(place) = &mut self.place else { return };
        while self.between < self.window {
            let Ok(Some((leaf, branch_beyond))) = place.skip(pages, towards) else {
                self.ended = true;
                break;
            };
            self.between += 1;
            if !branch_beyond.is_none() && !pages.is_known(branch_beyond) {
                self.wanted.push(branch_beyond);
            }
            let wanted = match &mut self.to_release {
                Some(to_release) => to_release.expect(leaf.id),
                None => self.gone || !pages.is_known(leaf.id),
            };
            if wanted {
                self.wanted.push(leaf.id);
            }
            if let Some(leaving) = self.to_leave_first.as_mut().filter(|_| wanted && is_long) {
                leaving.expect(leaf.id);
            }
        }
        self.requested = self.requested.saturating_add(self.wanted.len());
        let exactly = self.gone || self.to_release.is_some();
        if let (true, Some(last)) = (self.gone, self.wanted.last()) {
            self.gone = !pages.is_resident(*last, 1);
        }
        pages.request(&mut self.wanted, if exactly { Around::None } else { Around::Each });
    }

    /// Called before the walk reads a value in an overflow extent.
    pub(crate) fn reads_extent(&mut self, id: PageId, count: u64) {
        if let Some(to_release) = self.to_release.as_mut().or(self.to_leave_first.as_mut()) {
            if !to_release.pages.is_resident(id, count) {
                to_release.leave(id, count);
            }
        }
    }
}

impl ToRelease {
    fn new(pages: SnapshotPages, how: GiveBack) -> Box<ToRelease> {
        let (to_come, left) = (VecDeque::new(), Vec::new());
        Box::new(ToRelease { pages, how, now: PageId::NONE, to_come, left, left_pages: 0 })
    }

    /// Whether a leaf ahead of the walk is not in memory. If so, the walk will release it after it
    /// has left it.
    fn expect(&mut self, leaf: PageId) -> bool {
        let cold = !self.pages.is_resident(leaf, 1);
        if cold {
            self.to_come.push_back(leaf);
        }
        cold
    }

    /// Called when the walk has come to another leaf.
    fn move_to(&mut self, leaf: PageId) {
        if let Some(left) = self.to_come.front().copied().filter(|next| *next == self.now) {
            self.to_come.pop_front();
            self.leave(left, 1);
        }
        self.now = leaf;
        if self.left_pages >= GIVEN_BACK {
            self.give_back();
        }
    }

    fn leave(&mut self, id: PageId, count: u64) {
        self.left.push((id, count));
        self.left_pages += count;
    }

    fn give_back(&mut self) {
        self.pages.give_back(&mut self.left, self.how);
        self.left.clear();
        self.left_pages = 0;
    }
}

impl Drop for ToRelease {
    fn drop(&mut self) {
        self.left.extend(self.to_come.drain(..).map(|id| (id, 1)));
        self.give_back();
    }
}
