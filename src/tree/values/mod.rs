//! Multimaps: several values for each key, in order.
//!
//! Floor: tree. The tree of a multimap has one entry for each key. Its root says how values are
//! stored ([`Shape`](crate::page::value_set::Shape)), and counts them (`pairs`). The values of a
//! key lie in the entry itself (a *value set*) as long as that has at most the length of an inline
//! value. Else they lie in a *value tree*, and the entry has its root. The keys of a value tree are
//! the values. Values of one size lie in packed leaves; other value trees are trees like all
//! others, whose entries have empty values. The pages of all value trees of a table have one tree
//! id of their own ([`TreeId::of_values`](crate::ids::TreeId::of_values)).
//!
//! ```text
//! leaf of the table     | key a: value set | key b: root of a value tree |
//!                                                    |
//! value tree                                       branch
//!                                                  /    \
//!                                      (packed) leaf    (packed) leaf
//!
//! lookup   whether a key has a value, and how many it has
//! range    the values of one key between two bounds, in both directions
//! pairs    all keys with their values, in both directions
//! spot     a place among all pairs that outlives changes
//! insert   one value more
//! remove   one value less, or all of a key
//! packed   changes of value trees with packed leaves
//! stored   the root of a value tree and its leaves of both kinds; frees a whole one
//! load     many pairs in ascending order
//! ```
//!
//! Invariants:
//!   VALUES-1  an entry has at least one value, and `pairs` is the number of all values.
//!   VALUES-2  the leaf that has the root of a value tree with unsealed pages is dirty (TREE-2). So
//!             `seal` finds each of them, and stores the checksum of its root in the entry.
//!   VALUES-3  a value has at most the length of a key, and the size that the shape says.
//!
//! Failure: as everywhere in the tree.

pub(crate) mod insert;
pub(crate) mod load;
pub(crate) mod lookup;
pub(crate) mod packed;
pub(crate) mod pairs;
pub(crate) mod range;
pub(crate) mod remove;
pub(crate) mod spot;
pub(crate) mod stored;
#[cfg(test)]
mod tests;
