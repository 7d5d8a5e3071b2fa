//! Ways to make the commit protocol wrong on purpose: tests prove with them that they would see it.
//!
//! Floor: none below. Present with the feature `testing` alone. A mutant belongs to a thread, so that tests that run
//! beside each other do not meet; everything that a mutant changes is done by the thread that calls.
//!
//! Failure: none here; what a mutant does to a file is the point of it.
#![allow(unreachable_pub, reason = "public for the integration tests, through the crate root")]

use std::cell::Cell;

/// What is done wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mutant {
    /// The pages are not flushed.
    NoPageFlush,
    /// The meta is not flushed.
    NoMetaFlush,
    /// The meta is written and flushed before the pages.
    MetaFirst,
    /// The meta is written over the durable one.
    SameSlot,
    /// A page that a transaction frees is used again by the same transaction, when the durable state still needs it.
    EarlyReuse,
    /// The newest state counts as durable while it is being flushed: what it no longer needs is used again.
    EarlyReclaim,
    /// Checksums leave out the last byte of a page, in sealing and in verifying.
    ShortChecksum,
    /// A page is believed when its own checksum is right, whatever the pointer to it says.
    PointerUnchecked,
    /// The directory is not flushed after a file was made.
    NoDirectoryFlush,
    /// A new file is not flushed before it gets its name.
    NoCreationFlush,
    /// The flush of pages does not make the length of the file durable.
    NoLengthFlush,
}

thread_local! {
    static CURRENT: Cell<Option<Mutant>> = const { Cell::new(None) };
}

/// Makes what this thread does wrong in one way from now on, or right again.
pub fn set(mutant: Option<Mutant>) {
    CURRENT.set(mutant);
}

/// The mutant of this thread.
pub(crate) fn current() -> Option<Mutant> {
    CURRENT.get()
}

/// Whether this thread has that mutant.
pub(crate) fn is(mutant: Mutant) -> bool {
    current() == Some(mutant)
}
