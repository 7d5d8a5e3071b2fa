//! Scans: cursors and ranges, in both directions.
//!
//! Floor: tree. Nothing here can change a page.
//!
//! ```text
//! range       the entries between two bounds, from both ends; finds a bound by Range::place
//! cursor      a position in a tree that moves both ways; Range::place calls Cursor::place_towards
//! sample      random entries
//! spread      estimates of ranges and keys that divide a tree, from its branches
//! spot        a place that outlives changes of the tree, for cursors that write
//! read_ahead  asks the disk for the leaves that come next
//! warm        reads all pages of a range, in their order in the file
//! ```
//!
//! Failure: `Corrupt` with the page; a range ends with its first error.

pub(crate) mod cursor;
pub(crate) mod range;
pub(crate) mod read_ahead;
pub(crate) mod sample;
pub(crate) mod spot;
pub(crate) mod spread;
pub(crate) mod warm;
