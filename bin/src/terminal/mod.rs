//! Writes to the user: answers, messages and progress; receives SIGINT.
//!
//! ```text
//! confirm    asks before data is discarded
//! output     standard output, files that a verb writes, messages on standard error
//! progress   the progress line on standard error
//! escape     replaces bytes that would control the terminal
//! interrupt  SIGINT: a verb ends after its current batch
//! ```

pub(crate) mod confirm;
pub(crate) mod escape;
pub(crate) mod interrupt;
pub(crate) mod output;
pub(crate) mod progress;
