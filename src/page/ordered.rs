//! Searching leaves and branches of trees in any order.
//!
//! Floor: page. Trees in bytewise order use the searches of `leaf` and `branch`. In the pages of
//! the other trees a binary search compares whole keys by the comparison of the order.
//!
//! Failure: as in `leaf` and `branch`; a page that names another order than its tree is a
//! `DecodeError`.

use std::cmp::Ordering;

use super::branch::Branch;
use super::key::WholeKeys;
use super::leaf::Leaf;
use super::order::{check_page_order, page_order_flags, Order};
use crate::error::DecodeError;

impl Leaf<'_> {
    /// The order that the page names; a comparison with a name is not known.
    pub(crate) fn order(&self) -> Order {
        Order::of_flags(page_order_flags(self.page()))
    }

    /// Index of the entry of `key`, if the leaf has it.
    #[inline]
    pub(crate) fn find_in<K: WholeKeys>(&self, order: Order, keys: &K, key: &[u8]) -> Result<Option<usize>, K::Error> {
        if order.is_bytewise() {
            return self.find(keys, key);
        }
        let (at, found) = self.lower_bound_by(order, key)?;
        Ok(found.then_some(at))
    }

    /// Index of the first entry whose key is not before `key` in this order, and whether it is
    /// equal.
    #[inline]
    pub(crate) fn lower_bound_in<K: WholeKeys>(
        &self,
        order: Order,
        keys: &K,
        key: &[u8],
    ) -> Result<(usize, bool), K::Error> {
        match order.is_bytewise() {
            true => self.lower_bound(keys, key),
            false => Ok(self.lower_bound_by(order, key)?),
        }
    }

    #[inline(never)]
    fn lower_bound_by(&self, order: Order, key: &[u8]) -> Result<(usize, bool), DecodeError> {
        check_page_order(self.page(), self.id(), order)?;
        let (mut low, mut high) = (0, self.count());
        while low < high {
            let middle = low + (high - low) / 2;
            match order.compare(self.inline_key(middle)?, key) {
                Ordering::Equal => return Ok((middle, true)),
                Ordering::Greater => high = middle,
                Ordering::Less => low = middle + 1,
            }
        }
        Ok((low, false))
    }
}

/// A separator of at most so many bytes is put together without an allocation.
const SHORT_SEPARATOR: usize = 128;

impl Branch<'_> {
    /// Index of the child whose range contains `key`.
    #[inline]
    pub(crate) fn find_in<K: WholeKeys>(&self, order: Order, keys: &K, key: &[u8]) -> Result<usize, K::Error> {
        match order.is_bytewise() {
            true => self.find(keys, key),
            false => Ok(self.find_by(order, key)?),
        }
    }

    #[inline(never)]
    fn find_by(&self, order: Order, key: &[u8]) -> Result<usize, DecodeError> {
        check_page_order(self.page(), self.id(), order)?;
        // Separator 0 is before all keys.
        let (mut low, mut high) = (1, self.count());
        while low < high {
            let middle = low + (high - low) / 2;
            match self.compare_separator(order, middle, key)? {
                Ordering::Greater => high = middle,
                _ => low = middle + 1,
            }
        }
        Ok(low - 1)
    }

    /// Compares a separator, which the page holds in two parts, with a key.
    fn compare_separator(&self, order: Order, index: usize, key: &[u8]) -> Result<Ordering, DecodeError> {
        let (head, head_bytes, rest) = self.separator_parts(index)?;
        let bytes = head_bytes + rest.len();
        let mut short = [0; SHORT_SEPARATOR];
        let Some(separator) = short.get_mut(..bytes) else { return Ok(order.compare(&[&head, rest].concat(), key)) };
        separator[..head_bytes].copy_from_slice(&head[..head_bytes]);
        separator[head_bytes..].copy_from_slice(rest);
        Ok(order.compare(separator, key))
    }
}
