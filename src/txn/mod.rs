//! Transactions: snapshots, the writer, commit, checkpoint and recovery.
//!
//! Floor: txn. The only floor that knows time and other actors: which states are alive, who may
//! write, what is durable.
//!
//! ```text
//! open         files, the newest valid meta page, creation
//! file_lock    one process writes, or any number read
//! trust        how far the page cache can be believed at that
//! survey       which states a file holds, and which are whole
//! rollback     going back to the newest that is whole
//! env          one open database, shared by all handles
//! state        what a commit leaves
//! live         the records between readers and the writer
//! readers      reader slots
//! open_table   tables that a slot has found
//! tops         flat indexes of trees, made once for all readers
//! snapshot     read transactions
//! writer_lock  one writer at a time, in order
//! write        write transactions
//! table_set    the tables that one has opened
//! free_tree    the persistent free space
//! free_records  keys and values of its tree
//! checkpoint   two flushes, and what their failure means
//! ```

pub(crate) mod env;
pub(crate) mod free;
pub(crate) mod live;
pub(crate) mod open;
pub(crate) mod read;
pub(crate) mod state;
pub(crate) mod write;
