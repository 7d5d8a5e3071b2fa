//! Verifying a tree: each page, pointer, key and count, also in damaged files.
//!
//! Floor: tree. Nothing here can change a page.
//!
//! ```text
//! check    everything about a tree in an open database
//! measure  how many pages a tree has, and how full they are
//! walk     a tree of a file that may be damaged or cut, one page at a time
//! newer    whether the disk has the pages that are newer than a transaction
//! finding  findings, key bounds, and the expectations of a page that both share
//! ```
//!
//! Failure: damage is a finding, not an error; only `measure` returns it.

pub(crate) mod check;
pub(crate) mod finding;
pub(crate) mod measure;
pub(crate) mod newer;
pub(crate) mod walk;
