//! The code for databases that several verbs share.
//!
//! ```text
//! any_table plain tables and multimaps, to read and change
//! open      opens a database as the verb needs it: read-only, or for writing
//! new_file  removes a database that a failed verb created; progress of verbs that write a copy
//! scratch   opens a database so that nothing reaches it, and prints the changes
//! targets   chooses the table of each row of a load
//! findings  prints damage as text and as JSON
//! ```

pub(crate) mod any_table;
pub(crate) mod findings;
pub(crate) mod new_file;
pub(crate) mod open;
pub(crate) mod scratch;
pub(crate) mod targets;
