//! What verbs share about databases: opening them, the tables that rows go into, and damage.
//!
//! ```text
//! open      opens a database as the verb needs it: read-only, or for writing
//! new_file  removes a file that a failed verb has made; progress of verbs that write a new file
//! targets   the table of each row of a load
//! findings  damage as text and as JSON
//! ```

pub(crate) mod findings;
pub(crate) mod new_file;
pub(crate) mod open;
pub(crate) mod targets;
