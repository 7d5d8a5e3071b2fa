//! The append buffer: a page that is filled entry by entry in private memory, and leaves it full.
//!
//! Floor: pager. A transaction that appends fills one page after the other and comes back to none.
//! Filled in the mapping, each costs the faults of a new page; filled here, it is written by a call
//! (`write_queue`), which costs less, and its write-back begins at once.
//!
//! Invariants:
//!   APPEND-1  the page on the append buffer is claimed, and its bytes in the mapping say nothing
//!             until it is put down.
//!   APPEND-2  the append buffer is in use only after so many pages were filled one after the other
//!             that it pays.
//!
//! Failure: none here.

use crate::ids::PageId;

/// Pages that are filled in a row before the append buffer is used: other changes between them
/// would write it out each time.
const FILLED_IN_A_ROW: u32 = 64;

/// See the module.
#[derive(Default, Debug)]
pub(crate) struct AppendBuffer {
    /// None: the append buffer is empty.
    id: PageId,
    bytes: Vec<u8>,
    filled: u32,
}

impl AppendBuffer {
    /// Whether the next page that is to be filled shall lie here.
    pub(crate) fn is_due(&self) -> bool {
        self.filled >= FILLED_IN_A_ROW
    }

    /// Counts a page that was filled in the mapping.
    pub(crate) fn count_filled(&mut self) {
        self.filled += 1;
    }

    /// Forgets how many pages were filled in a row; says whether there were any.
    pub(crate) fn interrupt(&mut self) -> bool {
        std::mem::take(&mut self.filled) > 0
    }

    /// Puts a page of any content on the empty append buffer.
    pub(crate) fn lay(&mut self, id: PageId, page_size: usize) {
        self.id = id;
        self.bytes.resize(page_size, 0);
    }

    /// The page, if it is this one.
    #[inline]
    pub(crate) fn page(&self, id: PageId) -> Option<&[u8]> {
        (self.id == id && !id.is_none()).then_some(&self.bytes[..])
    }

    #[inline]
    pub(crate) fn page_mut(&mut self, id: PageId) -> Option<&mut [u8]> {
        (self.id == id && !id.is_none()).then_some(&mut self.bytes[..])
    }

    /// Takes the page off; its bytes come back by [`AppendBuffer::give_back`].
    pub(crate) fn take(&mut self) -> Option<(PageId, Vec<u8>)> {
        let id = std::mem::take(&mut self.id);
        (!id.is_none()).then(|| (id, std::mem::take(&mut self.bytes)))
    }

    pub(crate) fn give_back(&mut self, bytes: Vec<u8>) {
        self.bytes = bytes;
    }
}
