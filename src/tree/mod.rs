//! The B+tree: ordered entries over pages.
//!
//! Floor: tree. Everything works on the two traits of the pager: reads need `PageRead`, changes
//! `PageWrite`. A tree is a [`TreeRoot`], which the caller keeps. [`Tree`] joins the root with its
//! pages to read the tree, [`TreeMut`] to change it; a change updates the root.
//!
//! ```text
//! lookup/      one key or many, with or without waiting for the disk; the flat index
//! scan/        cursors, ranges and spots, in both directions, with read-ahead
//! edit/        put, append, delete, drop; splitting, joining; checksums at commit (seal)
//! load/        many entries: sorted runs, full leaves, merging
//! verify/      proving a tree of an open database, and reading one of a damaged file
//! handle       a tree to read, a tree to change: their methods are the operations
//! depth_first  the walk that seal, drop and verify share
//! long_key     keys and separators in overflow extents
//! path         the way from root to leaf, and copy on write
//! value        values in leaves and in overflow extents
//! values/      multimaps: several values for each key
//! ```
//!
//! Changes are made by copying: a page of an earlier transaction is never written (R1), but copied,
//! with all its ancestors, and freed. Pages of the running transaction change in place. Invariants
//! TREE-1 to TREE-3 are in `path.rs`.
//!
//! Failure: no bytes of the file can make this floor panic or loop (R3); damage is
//! `Error::Corrupt`. An error from a change, other than one about its arguments, leaves a tree that
//! must be aborted with its transaction.

mod depth_first;
mod handle;
mod long_key;
mod path;
mod value;

pub(crate) use crate::page::meta::TreeRoot;
pub(crate) use edit::append::AppendHint;
pub(crate) use edit::drop::drop_tree;
pub(crate) use edit::pop::PopHint;
pub(crate) use edit::put::PutHint;
pub(crate) use edit::seal::{seal, seal_after_puts};
pub(crate) use edit::sift::{Sift, Sifted};
pub(crate) use handle::{Tree, TreeMut};
pub(crate) use load::bulk::Bulk;
pub(crate) use load::sorted_run::SortedRun;
pub(crate) use long_key::check_inline_key;
pub(crate) use lookup::flat_index::{FlatIndex, BYTES_PER_PAGE, PAGES_MAX};
pub(crate) use lookup::many::GROUP;
pub(crate) use lookup::nonblocking::get_nonblocking;
pub(crate) use path::Side;
pub(crate) use scan::cursor::Cursor;
pub(crate) use scan::range::Range;
pub(crate) use scan::sample::Random;
pub(crate) use scan::spot::Spot;
pub(crate) use scan::spread::Spread;
pub(crate) use value::{check_sizes, extent_for, free_extent, store};
pub(crate) use values::insert::ValueHint;
pub(crate) use values::pairs::Pairs;
pub(crate) use values::range::ValueRange;
pub(crate) use values::spot::PairSpot;
pub(crate) use verify::check::{check, TreeStats, Visit};
pub(crate) use verify::finding::{text_of, Finding};
pub(crate) use verify::measure::measure;
pub(crate) use verify::newer::NewerPages;
pub(crate) use verify::walk::{read_long, read_value, values_in_file, walk, Values, Visitor};

/// A key and its value, as they lie in the pages.
pub(crate) type Entry<'a> = (&'a [u8], &'a [u8]);

pub(crate) mod edit;
pub(crate) mod load;
pub(crate) mod lookup;
pub(crate) mod scan;
#[cfg(test)]
pub(crate) mod tests;
pub(crate) mod values;
pub(crate) mod verify;
