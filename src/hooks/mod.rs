//! Test hooks: where tests watch, stop and falsify what Mapleaf does.
//!
//! Floor: hooks, below everything. The events are always compiled. The functions are in `active`
//! with the feature `testing`; without it they are those of `empty`, which do nothing and cost
//! nothing.
//!
//! ```text
//! reach, at_moments     a thread comes to a moment between two steps, and a test has others act there
//! is, set_mutant        a step of the protocol is done wrong on purpose, so that a test proves that it would see it
//! count_step            counts looks at what a transaction holds, so that tests compare costs without a clock
//! MappingHooks, Hooks   a test sees flushes, growth and writes of a mapping, and makes them fail
//! creating, recovering  a test sees the steps of making and of repairing a file
//! move_fails            the next move of a mapping fails
//! ```
//!
//! Hooks, mutants and counts belong to a thread, so that tests that run beside each other do not
//! meet.
//!
//! Failure: none of its own; a hook may return an error that the caller treats as one of the
//! kernel.
#![allow(unreachable_pub, reason = "public for the integration tests, through the crate root")]
#![cfg_attr(not(feature = "testing"), allow(dead_code, reason = "only `active` reads what the hooks are given"))]

#[cfg(feature = "testing")]
mod active;
#[cfg(not(feature = "testing"))]
mod empty;

#[cfg(feature = "testing")]
pub use active::*;
#[cfg(not(feature = "testing"))]
pub(crate) use empty::*;

/// The mapped bytes of a file, as a hook sees them at a flush.
pub(crate) trait Mapped {
    /// Length of the file now, in bytes.
    fn file_len(&self) -> std::io::Result<u64>;
    /// Bytes of the file that can be read.
    fn mapped_len(&self) -> u64;
    /// Copies bytes out; `false`, and nothing copied, when not all of them are mapped.
    fn copy_out(&self, offset: u64, into: &mut [u8]) -> bool;
}

/// The part of a file that a flush makes durable. Does not change how it is flushed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FlushKind {
    /// Pages of trees.
    Tree,
    /// A meta page.
    MetaPage,
}

/// What is done wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mutant {
    /// The pages are not flushed.
    NoPageFlush,
    /// The meta page is not flushed.
    NoMetaFlush,
    /// The meta page is written and flushed before the pages.
    MetaFirst,
    /// The meta page is written over the durable one.
    SameSlot,
    /// A page that a transaction frees is used again by the same transaction, when the durable
    /// state still needs it.
    EarlyReuse,
    /// The newest state counts as durable while it is being flushed: what it no longer needs is
    /// used again.
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

/// A step of making a file, when it has been done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Creation {
    /// All bytes are in the temporary file.
    Written,
    /// The temporary file was flushed.
    Flushed,
    /// The file has its name.
    Renamed,
    /// The directory was flushed.
    DirectoryFlushed,
}

/// A step of going back to a whole state, when it has been done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Recovery {
    /// The meta page of the state that is gone back to is written.
    MetaWritten,
    /// The meta page was flushed.
    MetaFlushed,
    /// The file is longer by a page.
    Lengthened,
}

/// A moment between two steps of a thread. Tests let others act there, so that an order of steps is
/// forced and not hoped for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Moment {
    /// The writer has read which state is published, and has not looked at the reader slots.
    Reclaiming,
    /// A read transaction that begins knows which state is published, and has no slot.
    ReaderBeginning,
    /// A read transaction that ends knows which window is current, and still has its slot.
    ReaderLeaving,
    /// The sentinel is at its new place, and what it has to be there is not known.
    SentinelMoving,
    /// The file was found as long as it should be, and is about to be made longer.
    Lengthening,
}
