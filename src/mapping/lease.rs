//! Leases: bytes of pages that stay borrowed while the writer goes on.
//!
//! Floor: mapping. A write transaction has several tables open at once. A value of one table stays
//! borrowed while another table changes, so it cannot borrow the [`WriteMap`]: every change borrows
//! that exclusively. It borrows the [`Lease`] of its table handle instead. An [`OwnedExtent`] is
//! the same for stores: claimed pages that its holder fills while the writer goes on.
//!
//! Invariants:
//!   LEASE-1  a lease keeps every window that its `WriteMap` leaves while the lease lives. So bytes
//!            that were inside a window when they were borrowed stay mapped at their address.
//!   LEASE-2  the bytes that a lease has lent do not change while they are borrowed. The pager and
//!            the table handles ensure this. A lease belongs to one tree. Only a handle that is
//!            borrowed exclusively, and so has lent nothing, changes, frees or writes a page of its
//!            tree; changes of other trees store only to their own pages and to pages that no tree
//!            reaches; and nothing is stored any more after an operation has failed or panicked.
//!   LEASE-3  the pages of an owned extent are not claimed, so no slice of them comes from
//!            [`WriteMap::bytes_mut`]; and no tree reaches them, so no lease lends them.
//!
//! Failure: bytes outside the window are not lent. A lease of another `WriteMap` is a bug and
//! panics.
#![allow(unsafe_code, reason = "slices whose lifetime is that of a lease")]

use std::ptr::NonNull;
use std::sync::{Arc, Mutex};

use super::window::Window;
use super::{lock, WriteMap};
use crate::ids::PageId;

/// The windows that a `WriteMap` has left since its oldest lease began.
type OldWindows = Arc<Mutex<Vec<Arc<Window>>>>;

/// Where a `WriteMap` puts the windows that it leaves.
#[derive(Default)]
pub(super) struct Leases {
    old_windows: OldWindows,
}

impl Leases {
    /// Keeps a window for the leases that live.
    pub(super) fn keep(&self, window: Arc<Window>) {
        if Arc::strong_count(&self.old_windows) > 1 {
            lock(&self.old_windows).push(window);
        }
    }

    /// From now on keeps windows only for leases that begin later. Earlier ones keep theirs.
    pub(super) fn renew(&mut self) {
        if !lock(&self.old_windows).is_empty() {
            self.old_windows = OldWindows::default();
        }
    }
}

/// The right of a table handle to lend bytes of its tree. Lends nothing before
/// [`WriteMap::lease`] has made it.
#[derive(Default)]
pub(crate) struct Lease {
    old_windows: OldWindows,
}

impl WriteMap {
    /// A lease for one tree.
    pub(crate) fn lease(&self) -> Lease {
        Lease { old_windows: Arc::clone(&self.leases.old_windows) }
    }

    /// Lends bytes of pages for as long as the lease is borrowed, and not only as long as the
    /// mapping is. `None` for bytes outside the window, as those in private memory.
    #[inline]
    pub(crate) fn lend<'l>(&self, lease: &'l Lease, bytes: &[u8]) -> Option<&'l [u8]> {
        assert!(Arc::ptr_eq(&lease.old_windows, &self.leases.old_windows), "a lease of another writable mapping");
        if bytes.is_empty() {
            return Some(&[]);
        }
        // SAFETY: bounds and initialised: those of `bytes`. Lifetime: the bytes are mapped by the
        // window; it stays mapped while `self` has it, and afterwards while the lease lives
        // (LEASE-1). Aliasing: LEASE-2.
        self.window.contains(bytes).then(|| unsafe { std::slice::from_raw_parts(bytes.as_ptr(), bytes.len()) })
    }

    /// Gives claimed pages to a holder that fills them while the writer goes on. They stay pages of
    /// the transaction, which does not store to them. Panics for pages without a claim.
    pub(crate) fn give_out(&mut self, id: PageId, pages: u64) -> OwnedExtent {
        let bytes = self.bytes_mut(id, pages);
        let (start, len) = (NonNull::from(&mut *bytes).cast(), bytes.len());
        self.claims.remove(id, pages);
        self.written_through.insert(id, pages);
        OwnedExtent { start, len, id, pages, _window: Arc::clone(&self.window) }
    }

    /// Takes an owned extent back: its pages are claimed again.
    pub(crate) fn take_back(&mut self, extent: OwnedExtent) {
        self.written_through.remove(extent.id, extent.pages);
        self.claim(extent.id, extent.pages);
    }
}

/// Claimed pages that only this value can reach, from [`WriteMap::give_out`].
pub(crate) struct OwnedExtent {
    start: NonNull<u8>,
    len: usize,
    id: PageId,
    pages: u64,
    _window: Arc<Window>,
}

impl OwnedExtent {
    /// The first page.
    pub(crate) fn id(&self) -> PageId {
        self.id
    }

    /// The number of pages.
    pub(crate) fn pages(&self) -> u64 {
        self.pages
    }

    /// The bytes of the pages.
    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: bounds: the pages that `give_out` has checked. Lifetime: `_window` keeps them
        // mapped. Initialised: file pages always are. Aliasing: only this value reaches them
        // (LEASE-3), and a mutable slice needs `&mut self`.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }

    /// The bytes of the pages, to store to.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`; the borrow is exclusive, and the writer's mapping can be stored
        // to.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl std::fmt::Debug for OwnedExtent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OwnedExtent").field("id", &self.id).field("pages", &self.pages).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Lease {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lease").finish_non_exhaustive()
    }
}
