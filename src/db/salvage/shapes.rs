//! How a table stores its values when its record is lost: told from the pages that it has left.
//!
//! Floor: db. An entry of a multimap has its own kind, so one leaf tells whether a table is one.
//! The size of its values stands in the packed leaves of its value trees; other leaves of value
//! trees mean that values have any size. A multimap without value trees has only sets, which do not
//! say what they are. If all of them read as sets of values of any size, they are that: such a set
//! has a count and ascending ends that fit its length, so hardly another one reads as such. Else
//! values have one size, which divides the length of each set, and the greatest common divisor of
//! the lengths is taken. It is the size itself unless every key has an even number of values, or a
//! multiple of another number; then each value of the new table is several values together, and no
//! byte is lost.
//!
//! Failure: none. A set that is no set of the shape found adds no values later.

use std::collections::BTreeMap;

use crate::ids::TreeId;
use crate::page::header::{Header, PageKind};
use crate::page::layout::{get_u16, VALUE_BYTES};
use crate::page::leaf::{Leaf, LeafValue};
use crate::page::value_set::{Shape, ValueSet};

/// What was seen of the tables whose pages the scan has found.
#[derive(Default)]
pub(super) struct Shapes {
    /// Of tables with value trees.
    by_values: BTreeMap<TreeId, Shape>,
}

impl Shapes {
    /// Notes a verified leaf of a value tree.
    pub(super) fn note_value_leaf(&mut self, header: &Header, page: &[u8]) {
        let shape = match header.kind {
            PageKind::Packed => Shape::Fixed(get_u16(page, VALUE_BYTES)),
            _ => Shape::Variable,
        };
        self.by_values.insert(header.tree.of_table(), shape);
    }

    /// The shape of a table that has value trees, of values of at most `limit` bytes.
    pub(super) fn of(&self, tree: TreeId, limit: usize) -> Option<Shape> {
        let fits = |shape: &Shape| shape.width().is_none_or(|width| (1..=limit).contains(&width));
        self.by_values.get(&tree).copied().filter(fits)
    }
}

/// Whether a leaf is one of a multimap.
pub(super) fn is_of_multimap(leaf: &Leaf<'_>) -> bool {
    matches!(leaf.entry(0), Ok((_, LeafValue::Set(_) | LeafValue::Tree(_))))
}

/// What the sets of a multimap have in common.
#[derive(Default)]
pub(super) struct Sets {
    /// The greatest common divisor of their lengths.
    bytes: usize,
    /// Some of them are no sets of values of any size.
    some_are_fixed: bool,
}

impl Sets {
    /// Notes the sets of a leaf.
    pub(super) fn note(&mut self, leaf: &Leaf<'_>) {
        for at in 0..leaf.count() {
            if let Ok((_, LeafValue::Set(bytes))) = leaf.entry(at) {
                self.bytes = common_divisor(self.bytes, bytes.len());
                self.some_are_fixed |= ValueSet::new(bytes, Shape::Variable).verify().is_err();
            }
        }
    }

    /// The shape that fits all sets, of values of at most `limit` bytes.
    pub(super) fn shape(&self, limit: usize) -> Shape {
        let divides = |bytes: &usize| self.bytes.is_multiple_of(*bytes);
        match (1..=self.bytes.min(limit)).rev().find(divides) {
            Some(bytes) if self.some_are_fixed => Shape::Fixed(bytes as u16),
            _ => Shape::Variable,
        }
    }
}

fn common_divisor(a: usize, b: usize) -> usize {
    match b {
        0 => a,
        _ => common_divisor(b, a % b),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_of_one_size_have_the_greatest_one_within_the_limit() {
        let of = |bytes, some_are_fixed, limit| Sets { bytes, some_are_fixed }.shape(limit);
        assert_eq!(of(8, true, 1000), Shape::Fixed(8));
        assert_eq!(of(1002, true, 1000), Shape::Fixed(501));
        assert_eq!((of(8, false, 1000), of(0, true, 1000)), (Shape::Variable, Shape::Variable));
    }

    #[test]
    fn the_common_divisor_of_nothing_and_a_length_is_the_length() {
        assert_eq!([common_divisor(0, 24), common_divisor(24, 16), common_divisor(20, 7)], [24, 8, 1]);
    }
}
