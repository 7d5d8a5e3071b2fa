//! What tests may watch and fail in a mapping: flushes and changes of length; and the strict canvas, in which only claimed
//! pages can be stored to, so that a stray store is a signal at once.
//!
//! Floor: mapping. Present with the feature `testing` alone.
#![allow(unreachable_pub, reason = "public for the integration tests, through the crate root")]

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::sync::Arc;

use super::window::Window;
use super::FlushKind;

/// A flush that is about to run or has run.
pub struct FlushEvent<'a> {
    /// What is flushed.
    pub kind: FlushKind,
    /// First byte of the range.
    pub offset: u64,
    /// Bytes of the range.
    pub len: u64,
    /// Length of the file now.
    pub file_len: u64,
    /// Bytes of the file that can be read through [`FlushEvent::read`].
    pub mapped_len: u64,
    pub(super) window: &'a Window,
}

impl FlushEvent<'_> {
    /// Copies the current contents of the mapping; `false`, and nothing copied, when not all of it is mapped.
    pub fn read(&self, offset: u64, into: &mut [u8]) -> bool {
        self.window.copy_out(offset, into)
    }
}

impl fmt::Debug for FlushEvent<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "flush {:?} {}+{} of {}", self.kind, self.offset, self.len, self.file_len)
    }
}

/// Watches a mapping and makes its calls fail.
pub trait Seam: Send + Sync {
    /// Before a flush; an error is what the flush returns, and nothing is flushed.
    fn before_flush(&self, event: &FlushEvent<'_>) -> io::Result<()>;

    /// After a flush that succeeded.
    fn after_flush(&self, _event: &FlushEvent<'_>) {}

    /// After the file was given a new length.
    fn resized(&self, _new_len: u64) {}

    /// Before anything is done to grow the file; an error is what growing returns.
    fn growing(&self, _new_len: u64) -> io::Result<()> {
        Ok(())
    }
}

thread_local! {
    static NEXT: RefCell<Option<Arc<dyn Seam>>> = const { RefCell::new(None) };
}

thread_local! {
    static STRICT: Cell<bool> = const { Cell::new(false) };
}

/// Whether mappings that this thread makes from now on let nothing be stored to but claimed pages, by the processor.
pub fn strict_canvas(strict: bool) {
    STRICT.set(strict);
}

pub(super) fn is_strict() -> bool {
    STRICT.get()
}

/// Sets who watches the next mapping that this thread makes, from its first flush on.
pub fn set_next(seam: Option<Arc<dyn Seam>>) {
    NEXT.set(seam);
}

pub(super) fn take_next() -> Option<Arc<dyn Seam>> {
    NEXT.take()
}
