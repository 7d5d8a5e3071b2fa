//! The operating system and the processor: one thin wrapper for each thing that Mapleaf asks of
//! them.
//!
//! Floor: sys. Knows files, addresses and memory, nothing of pages or databases.
//!
//! ```text
//! os           system calls on memory: map, move, protect, advise, flush
//! page_cache   which pages of a file are in memory; asking for some, letting some go
//! process_limits  address space, locked memory, memory areas
//! file_calls   system calls on files: lengths, blocks, status
//! refused      whether an error says that a call is not permitted or not known here
//! descriptor   opens files, always above the standard descriptors
//! rights       the mode that a new file gets
//! locks        byte-range locks that belong to an open file
//! lock_holder  which process holds such a lock
//! fork         detects use in a child after `fork`
//! direct_io    reads past the page cache, drops cached pages, remembers a failed flush
//! extents      whether a store to a file takes blocks that it does not have
//! folios       whether the page cache holds a file in large folios
//! memory       how much memory the page cache can take
//! prefetch     asks the processor for memory before it is needed
//! scratch      large private memory for sorting
//! owned_cell   a cell with one owner at a time, and a word that every thread may read
//! testing      what tests do to a process of their own
//! ```
//!
//! Failure: `io::Error` as the kernel gave it; hints fail without effect.

pub(crate) mod descriptor;
pub(crate) mod direct_io;
pub(crate) mod extents;
pub(crate) mod file_calls;
pub(crate) mod folios;
pub(crate) mod fork;
pub(crate) mod lock_holder;
pub(crate) mod locks;
pub(crate) mod memory;
pub(crate) mod os;
pub(crate) mod owned_cell;
pub(crate) mod page_cache;
pub(crate) mod prefetch;
pub(crate) mod process_limits;
pub(crate) mod refused;
pub(crate) mod rights;
pub(crate) mod scratch;
#[cfg(feature = "testing")]
pub(crate) mod testing;
