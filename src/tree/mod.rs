//! The B+tree: ordered entries over pages.
//!
//! Floor: tree. Everything works on the two traits of the pager: reads need `PageRead`, changes `PageWrite`. A tree is
//! a [`TreeRoot`], which the caller keeps; functions that change the tree change the root that they are given.
//!
//! ```text
//! search     point lookups             cursor, range   walks in both directions
//! multi      many lookups at once      top             the upper levels, flat
//! resident   lookups that do not wait  ahead, batch    what walks and lookups ask of the disk beforehand
//! put        one entry in              delete          one entry out
//! append     ascending entries         drop            the whole tree
//! bulk       many ascending entries    merge           many sorted entries among others
//! seal       checksums at commit       check           everything that can be wrong
//! walk       entries of damaged files
//!
//! path       root to leaf, copy on write               value        inline values and overflow runs
//! plan       where to cut and join, pure               split, shift, graft, rebalance   carry the plans out
//! ```
//!
//! Changes are made by copying: a page of an earlier transaction is never written (R1), but copied, with all its
//! ancestors, and freed. Pages of the running transaction change in place. Invariants T1 to T3 stand in `path.rs`.
//!
//! Failure: no bytes of the file can make this floor panic or loop (R3); damage is `Error::Corrupt`. An error from a
//! change, other than one about its arguments, leaves a tree that must be aborted with its transaction.

mod ahead;
mod append;
mod batch;
mod bulk;
mod check;
mod cursor;
mod delete;
mod drop;
mod graft;
mod merge;
mod multi;
mod path;
mod plan;
mod put;
mod range;
mod rebalance;
mod resident;
mod run;
mod seal;
mod search;
mod shift;
mod split;
mod top;
mod value;
mod walk;

pub(crate) use crate::page::meta::TreeRoot;
pub(crate) use append::{append, append_in_place, AppendHint};
pub(crate) use bulk::Bulk;
pub(crate) use check::{check, Finding};
pub(crate) use cursor::Cursor;
pub(crate) use delete::delete;
pub(crate) use drop::drop_tree;
pub(crate) use merge::merge;
pub(crate) use multi::get_many;
pub(crate) use put::{put, put_value, PutHint};
pub(crate) use range::Range;
pub(crate) use resident::get_resident;
pub(crate) use run::Run;
pub(crate) use seal::seal;
pub(crate) use search::{first, get, get_at_once, get_slowly, last};
pub(crate) use top::{Top, PAGES_MAX};
pub(crate) use value::{check_sizes, free_run, store};
pub(crate) use walk::{read_value, walk, Values, Visitor};

/// A key and its value, as they lie in the pages.
pub(crate) type Entry<'a> = (&'a [u8], &'a [u8]);

#[cfg(test)]
mod tests;
