//! What a walk over leaves reads ahead.
//!
//! Floor: tree. The branches know which leaves come next, wherever they lie in the file. A walk
//! that comes to leaves that this process has not read yet sends a second place ahead, which reads
//! only branches and asks for the leaves below them: a few at first, more the longer the walk goes
//! on. The branch after the one that it is in is asked for too, so that it does not wait.
//!
//! A walk over leaves that are known costs a look at one mark per leaf, and now and then a question
//! whether a leaf is still in memory: one that was read may have gone again.
//!
//! Invariants:
//!   SCAN-1  nothing of this decides what the walk gives: what cannot be read ahead is met, and
//!           reported, by the walk itself.
//!   SCAN-2  no leaf of the walk is given back before the walk has left it.
//!
//! Failure: none.

use std::collections::VecDeque;

use crate::ids::PageId;
use crate::pager::read::snapshot_pages::SnapshotPages;
use crate::pager::{Around, PageRead, Residency as _};

use crate::tree::path::{Path, Side};

/// Leaves that are asked for at first, and at most: 2 MiB of them.
const LEAVES_MIN: usize = 4;
const LEAVES_MAX: usize = 512;
/// One known leaf of so many is asked after.
const ASKED_ONE_OF: usize = 64;
/// Pages that are given back together, at least.
const GIVEN_BACK: u64 = 256;

/// What one walk in one direction reads ahead, and what it gives back after it.
#[derive(Default)]
pub(crate) struct Sweep {
    /// The place ahead of the walk.
    place: Option<Box<Path>>,
    /// Leaves from the walk to the place ahead.
    between: usize,
    /// How many there are to be.
    window: usize,
    /// Nothing comes after the place, or it could not be read.
    ended: bool,
    /// Leaves that are known have gone from memory.
    gone: bool,
    steps: usize,
    wanted: Vec<PageId>,
    behind: Option<Box<Behind>>,
}

/// Pages that were not in memory before the walk came. They go with it, when it is dropped early
/// too.
struct Behind {
    pages: SnapshotPages,
    /// The leaf that the walk is at.
    now: PageId,
    /// Those that the walk has still to come to, in its order; the leaves between them were in
    /// memory.
    to_come: VecDeque<PageId>,
    /// Those that it has left, as runs.
    left: Vec<(PageId, u64)>,
    left_pages: u64,
}

impl Sweep {
    /// Whether the walk leaves what it brings in in memory; else it gives that back.
    pub(crate) fn fill_cache<P: PageRead>(&mut self, pages: &P, fill: bool) {
        self.behind = pages.snapshot().filter(|_| !fill).map(|pages| {
            let (to_come, left) = (VecDeque::new(), Vec::new());
            Box::new(Behind { pages, now: PageId::NONE, to_come, left, left_pages: 0 })
        });
    }

    /// The walk has come to a leaf.
    #[inline]
    pub(crate) fn arrived<P: PageRead>(&mut self, pages: &P, path: &Path, towards: Side) {
        self.steps = self.steps.wrapping_add(1);
        if self.place.is_none() && self.behind.is_none() {
            let next = path.ahead().id;
            if next.is_none() || (pages.is_known(next) && !self.steps.is_multiple_of(ASKED_ONE_OF)) {
                return;
            }
        }
        self.look_ahead(pages, path, towards);
    }

    #[cold]
    #[inline(never)]
    fn look_ahead<P: PageRead>(&mut self, pages: &P, path: &Path, towards: Side) {
        if let Some(behind) = &mut self.behind {
            behind.move_to(path.leaf().ptr.id);
        } else if !pages.reads_ahead() {
            return;
        }
        if self.place.is_some() {
            self.between = self.between.saturating_sub(1);
        } else {
            self.gone = self.behind.is_none() && pages.is_known(path.ahead().id);
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
        if self.wanted.is_empty() && !self.ended && self.behind.is_none() {
            // All of them are known and in memory: from here on the walk looks out by itself again.
            (self.place, self.window) = (None, 0);
        }
    }

    /// Moves the place ahead and asks for the leaves on its way.
    fn ask<P: PageRead>(&mut self, pages: &P, towards: Side) {
        self.wanted.clear();
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
            let wanted = match &mut self.behind {
                Some(behind) => behind.expect(leaf.id),
                None => self.gone || !pages.is_known(leaf.id),
            };
            if wanted {
                self.wanted.push(leaf.id);
            }
        }
        let exactly = self.gone || self.behind.is_some();
        if let (true, Some(last)) = (self.gone, self.wanted.last()) {
            self.gone = !pages.is_resident(*last, 1);
        }
        pages.request(&mut self.wanted, if exactly { Around::None } else { Around::Each });
    }

    /// A value in a run is about to be read.
    pub(crate) fn reads_extent(&mut self, id: PageId, count: u64) {
        if let Some(behind) = &mut self.behind {
            if !behind.pages.is_resident(id, count) {
                behind.leave(id, count);
            }
        }
    }
}

impl Behind {
    /// Whether a leaf that comes next is not in memory, and so goes when the walk has left it.
    fn expect(&mut self, leaf: PageId) -> bool {
        let cold = !self.pages.is_resident(leaf, 1);
        if cold {
            self.to_come.push_back(leaf);
        }
        cold
    }

    /// The walk has come to another leaf.
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
        self.pages.give_back(&mut self.left);
        self.left.clear();
        self.left_pages = 0;
    }
}

impl Drop for Behind {
    fn drop(&mut self) {
        self.left.extend(self.to_come.drain(..).map(|id| (id, 1)));
        self.give_back();
    }
}
