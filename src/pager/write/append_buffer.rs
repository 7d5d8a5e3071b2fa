//! The append buffer: private memory in which appends fill one page, entry by entry.
//!
//! Floor: pager. A transaction that appends fills one page after the other and does not return to
//! earlier ones. Filling a new page in the mapping costs page faults. Filling it here and writing
//! it with `pwrite` (`write_queue`) costs less, and its write-back begins at once.
//!
//! Invariants:
//!   APPEND-1  the page in the append buffer is claimed; its bytes in the mapping are undefined
//!             until it is written there.
//!   APPEND-2  the append buffer is used only after [`FILLED_IN_A_ROW`] pages were filled without
//!             another change between them.
//!
//! Failure: none here.

use crate::ids::PageId;

/// Pages that are filled in a row before the append buffer is used. Another change in between
/// writes the buffer to the mapping, so its use pays only for long runs of appends.
const FILLED_IN_A_ROW: u32 = 64;

/// The page being filled, and the count that decides when to use the buffer.
#[derive(Default, Debug)]
pub(crate) struct AppendBuffer {
    /// [`PageId::NONE`] if the buffer is empty.
    id: PageId,
    bytes: Vec<u8>,
    filled: u32,
}

impl AppendBuffer {
    /// Whether the next page to fill belongs in the buffer.
    pub(crate) fn is_due(&self) -> bool {
        self.filled >= FILLED_IN_A_ROW
    }

    /// Counts a page that was filled in the mapping.
    pub(crate) fn count_filled(&mut self) {
        self.filled += 1;
    }

    /// Resets the count of pages filled in a row; returns whether it was above 0.
    pub(crate) fn interrupt(&mut self) -> bool {
        std::mem::take(&mut self.filled) > 0
    }

    /// Puts page `id` into the empty buffer, with arbitrary contents.
    pub(crate) fn lay(&mut self, id: PageId, page_size: usize) {
        self.id = id;
        self.bytes.resize(page_size, 0);
    }

    /// The bytes of page `id`, if the buffer holds it.
    #[inline]
    pub(crate) fn page(&self, id: PageId) -> Option<&[u8]> {
        (self.id == id && !id.is_none()).then_some(&self.bytes[..])
    }

    #[inline]
    pub(crate) fn page_mut(&mut self, id: PageId) -> Option<&mut [u8]> {
        (self.id == id && !id.is_none()).then_some(&mut self.bytes[..])
    }

    /// Takes the page out of the buffer; the caller returns the memory with
    /// [`AppendBuffer::give_back`].
    pub(crate) fn take(&mut self) -> Option<(PageId, Vec<u8>)> {
        let id = std::mem::take(&mut self.id);
        (!id.is_none()).then(|| (id, std::mem::take(&mut self.bytes)))
    }

    pub(crate) fn give_back(&mut self, bytes: Vec<u8>) {
        self.bytes = bytes;
    }
}
