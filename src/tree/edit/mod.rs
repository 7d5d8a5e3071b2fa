//! Changing a tree: every change goes to a copy, from the leaf up to the root.
//!
//! Floor: tree. `plan` decides from sizes only; the others carry plans out.
//!
//! ```text
//! put, append, delete   one entry
//! pop                   the first or the last entry
//! drop, remove_range    a whole tree; all keys of a range, by cutting off subtrees
//! sift                  the entries of a range that a caller rejects, leaf by leaf
//! plan                  where pages are split and joined
//! split, redistribute   a page that is too full
//! rebalance             a page that is too empty
//! propagate             new, merged and changed children in the branches above
//! seal                  checksums into pointers, bottom-up
//! ```
//!
//! Failure: a key or value over its limit changes nothing; any other error may leave the tree
//! half-changed, and the transaction must end.

pub(crate) mod append;
pub(crate) mod delete;
pub(crate) mod drop;
pub(crate) mod plan;
pub(crate) mod pop;
pub(crate) mod propagate;
pub(crate) mod put;
pub(crate) mod rebalance;
pub(crate) mod redistribute;
pub(crate) mod remove_range;
pub(crate) mod seal;
pub(crate) mod sift;
pub(crate) mod split;
