//! Test hooks: where tests watch, stop and falsify what Mapleaf does.
//!
//! Floor: hooks, below everything. Without the feature `testing` every function here is empty.
//!
//! Failure: none.

#[cfg(feature = "testing")]
pub(crate) mod seam;
#[cfg(feature = "testing")]
pub(crate) mod mutant;
pub(crate) mod steps;
