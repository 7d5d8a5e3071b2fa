//! What tests do to a process of their own: limit it, refuse its system calls, interrupt it.
//!
//! Floor: sys. Present only with the feature `testing`.
//!
//! Failure: `io::Error` as the kernel gave it.

#[cfg(feature = "testing")]
pub(crate) mod limits;
#[cfg(feature = "testing")]
pub(crate) mod confine;
