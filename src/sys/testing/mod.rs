//! What tests do to a process of their own: limit it, refuse its system calls, interrupt it.
//!
//! Floor: sys. Present only with the feature `testing`.
//!
//! ```text
//! limits   limits of the process, and its rights
//! confine  system calls that the kernel refuses, and interruptions
//! process  faults, signals, forks, closed descriptors
//! ```
//!
//! Failure: `io::Error` as the kernel gave it.

pub(crate) mod confine;
pub(crate) mod limits;
pub(crate) mod process;
