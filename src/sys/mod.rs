//! The operating system and the processor: one thin wrapper for each thing that Mapleaf asks of
//! them.
//!
//! Floor: sys. Knows files, addresses and memory, nothing of pages or databases.
//!
//! ```text
//! call              what the wrappers share: retries, conversions, the kernel's page size
//! refused           recognises an error that means "the kernel does not permit this call"
//! memory_calls      on memory: reserve, map, move, protect, flush, unmap
//! file_calls        on files: length, blocks, writes, flushes, status, renames
//! page_cache        which pages of a file are in memory; requests some, drops some
//! attributes        extended attributes
//! descriptor        opens files, always above the standard descriptors
//! seals             keeps files in memory from becoming shorter
//! rights            copies mode, owner and group of a file to another one
//! locks             byte-range locks that belong to an open file
//! futex             sleeping until another process wakes
//! clock             a time that all processes of the machine share
//! lock_holder       finds the process that holds such a lock
//! fork              detects a child after `fork`
//! direct_io         reads past the page cache; records a failed flush
//! extents           whether a store to a file needs a new block
//! folios            whether the page cache holds a file in large folios
//! available_memory  how much memory the page cache can take
//! process_limits    limits on address space, locked memory, memory areas
//! random            random bytes of the kernel
//! prefetch          brings memory into the processor's cache
//! scratch           large private memory for sorting
//! testing           what tests do to a process of their own
//! ```
//!
//! Failure: `io::Error` as the kernel gave it. Hints fail without effect.

mod attributes;
pub(crate) mod available_memory;
pub(crate) mod call;
pub(crate) mod clock;
pub(crate) mod descriptor;
pub(crate) mod direct_io;
pub(crate) mod extents;
pub(crate) mod file_calls;
pub(crate) mod folios;
pub(crate) mod fork;
pub(crate) mod futex;
pub(crate) mod lock_holder;
pub(crate) mod locks;
pub(crate) mod memory_calls;
pub(crate) mod page_cache;
pub(crate) mod prefetch;
pub(crate) mod process_limits;
pub(crate) mod random;
pub(crate) mod refused;
pub(crate) mod rights;
pub(crate) mod scratch;
pub(crate) mod seals;
#[cfg(feature = "testing")]
pub(crate) mod testing;
