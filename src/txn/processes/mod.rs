//! Several processes with one database: which are present, and the memory and the locks that they
//! share.
//!
//! Floor: txn. All locks are byte ranges of the data file, far past its end. So each opening of the
//! file meets them, by any path, and the kernel releases those of a process that dies (P2). Live
//! records lie in the lock file `<name>-lock`, or, of a database in memory, in memory too.
//!
//! ```text
//! descriptor  the open file that holds a process's locks; the gate
//! lock_file   creates, resets and examines the lock file
//! memory      the files of a database in memory, and how a process comes in to it
//! proof       what a process does that joins while a flush has not ended
//! presence    how a process comes in, as member, exclusively or as plain reader, and how it leaves
//! ```

pub(crate) mod descriptor;
pub(crate) mod lock_file;
pub(crate) mod memory;
pub(crate) mod presence;
pub(crate) mod proof;
