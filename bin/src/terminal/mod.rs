//! Everything that `kvctl` writes to the user, and the SIGINT that it gets from there.
//!
//! ```text
//! output     standard output, files made by a verb, messages on standard error
//! progress   the line of progress on standard error
//! escape     replaces bytes that would control the terminal
//! interrupt  SIGINT: a verb ends after its current batch
//! ```

pub(crate) mod escape;
pub(crate) mod interrupt;
pub(crate) mod output;
pub(crate) mod progress;
