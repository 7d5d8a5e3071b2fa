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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::page::branch::{self, Child};
    use crate::page::header::PageStamp;
    use crate::page::key::NoLongKeys;
    use crate::page::layout::FLAGS;
    use crate::page::leaf::{self, LeafMut, LeafValue};
    use crate::page::tests::{ptr, ID, STAMP};

    fn by_length(a: &[u8], b: &[u8]) -> Ordering {
        a.len().cmp(&b.len()).then_with(|| b.cmp(a))
    }

    const ORDERS: [Order; 2] = [Order::Descending, Order::Named(by_length)];

    fn keys(order: Order) -> Vec<Vec<u8>> {
        let mut keys: Vec<Vec<u8>> = (0..60u8).map(|at| vec![b'p'; 1 + usize::from(at % 7)]).collect();
        keys.iter_mut().zip(0u8..).for_each(|(key, at)| key.extend([at / 9, at % 9]));
        keys.push(vec![b'q'; 300]);
        keys.sort_by(|a, b| order.compare(a, b));
        keys
    }

    #[test]
    fn leaves_of_any_order_agree_with_a_sorted_list_and_have_no_prefix() {
        for order in ORDERS {
            let (keys, stamp) = (keys(order), PageStamp { order, ..STAMP });
            let (mut built, mut filled) = (vec![0; 4096], vec![0; 4096]);
            let stored: Vec<_> = keys.iter().step_by(2).collect();
            let entries = stored.iter().map(|key| (key.as_slice(), LeafValue::Inline(b"v")));
            assert_eq!(leaf::build(&mut built, stamp, entries), Ok(true));
            let mut leaf = LeafMut::init(&mut filled, stamp);
            for key in stored.iter().rev() {
                let (at, found) = leaf.as_leaf().lower_bound_in(order, &NoLongKeys, key).unwrap();
                assert!(!found && leaf.insert(at, *key, LeafValue::Inline(b"v")).unwrap());
            }
            for page in [&built, &filled] {
                let leaf = Leaf::parse(page, ID).unwrap();
                assert_eq!((leaf.prefix_bytes(), leaf.verify_in(order)), (0, Ok(())));
                assert_eq!(leaf.verify_in(Order::Bytewise).unwrap_err().field, "key order in the page flags");
                for key in &keys {
                    let expected = stored.binary_search_by(|at| order.compare(at, key));
                    assert_eq!(leaf.find_in(order, &NoLongKeys, key), Ok(expected.ok()));
                    let bound = expected.map_or_else(|at| (at, false), |at| (at, true));
                    assert_eq!(leaf.lower_bound_in(order, &NoLongKeys, key), Ok(bound));
                }
            }
        }
    }

    #[test]
    fn branches_of_any_order_lead_to_the_child_of_a_key() {
        for order in ORDERS {
            let (keys, stamp) = (keys(order), PageStamp { order, ..STAMP });
            let stored: Vec<_> = keys.iter().step_by(2).collect();
            let child = |(at, key): (usize, &&Vec<u8>)| Child { sep: key.as_slice().into(), ptr: ptr(2 + at as u64) };
            let children: Vec<Child> = stored.iter().enumerate().map(child).collect();
            let mut page = vec![0; 4096];
            assert_eq!(branch::build(&mut page, stamp, 1, &children), Ok(true));
            let branch = Branch::parse(&page, ID).unwrap();
            assert_eq!((branch.prefix().len(), branch.verify_in(order)), (0, Ok(())));
            for key in &keys {
                let before = stored.iter().skip(1).filter(|sep| order.compare(sep, key).is_le()).count();
                assert_eq!(branch.find_in(order, &NoLongKeys, key), Ok(before));
            }
        }
    }

    /// Every byte of a leaf and of a branch set to three wrong values: a search does not panic.
    #[test]
    fn no_wrong_byte_makes_a_search_panic() {
        for order in ORDERS {
            let (keys, stamp) = (keys(order), PageStamp { order, ..STAMP });
            let child = |(at, key): (usize, &Vec<u8>)| Child { sep: key.as_slice().into(), ptr: ptr(2 + at as u64) };
            let children: Vec<Child> = keys.iter().enumerate().map(child).collect();
            let (mut leaf, mut branch) = (vec![0; 4096], vec![0; 4096]);
            let entries = keys.iter().map(|key| (key.as_slice(), LeafValue::Inline(b"v")));
            assert_eq!(leaf::build(&mut leaf, stamp, entries), Ok(true));
            assert_eq!(branch::build(&mut branch, stamp, 1, &children), Ok(true));
            let mut refused = 0;
            for at in 0..4096 {
                for flip in [1, 0x80, 0xff] {
                    let (mut leaf, mut branch) = (leaf.clone(), branch.clone());
                    (leaf[at], branch[at]) = (leaf[at] ^ flip, branch[at] ^ flip);
                    let key = &keys[at % keys.len()];
                    let of_leaf = Leaf::parse(&leaf, ID).and_then(|leaf| {
                        leaf.verify_in(order).and_then(|()| leaf.lower_bound_in(order, &NoLongKeys, key)).map(drop)?;
                        leaf.find_in(order, &NoLongKeys, key)
                    });
                    let of_branch = Branch::parse(&branch, ID).and_then(|branch| {
                        let _sound = branch.verify_in(order);
                        branch.find_in(order, &NoLongKeys, key)
                    });
                    refused += u32::from(of_leaf.is_err()) + u32::from(of_branch.is_err());
                }
            }
            assert!(refused > 100, "{refused}");
        }
    }

    #[test]
    fn a_page_has_an_order_that_exists_or_long_keys_and_not_both() {
        let mut page = vec![0; 4096];
        LeafMut::init(&mut page, STAMP);
        let valid = |flags: u16| {
            let mut page = page.clone();
            page[FLAGS..FLAGS + 2].copy_from_slice(&flags.to_le_bytes());
            Leaf::parse(&page, ID).is_ok()
        };
        assert_eq!((0..=u16::MAX).filter(|&flags| valid(flags)).collect::<Vec<_>>(), [0, 2, 6, 8]);
    }
}
