//! Ranges of keys as bytes, in tables of any order.
//!
//! Floor: table. The bounds of a range come in the order of its table: the lower one is before the
//! higher one there.
//!
//! Failure: `Usage` for prefixes in a table whose order has a name.

use std::ops::{Bound, RangeBounds};

use crate::error::{Error, Result};
use crate::page::order::Order;
use crate::pager::PageRead;
use crate::table::codec::{Encoded, KeyCodec, PrefixCodec};
use crate::tree::{self, Tree};

/// Bounds of a range of keys, as bytes.
#[derive(Clone)]
pub(crate) struct ByteBounds {
    pub(crate) low: Bound<Vec<u8>>,
    pub(crate) high: Bound<Vec<u8>>,
}

/// A lower bound that lies inside a range and an upper bound that does not.
pub(crate) type HalfOpen = (Option<Vec<u8>>, Option<Vec<u8>>);

impl ByteBounds {
    /// Every key.
    pub(crate) const ALL: ByteBounds = ByteBounds { low: Bound::Unbounded, high: Bound::Unbounded };

    /// No key.
    const NONE: ByteBounds = ByteBounds { low: Bound::Unbounded, high: Bound::Excluded(Vec::new()) };

    pub(crate) fn of<'k, K: KeyCodec>(range: &impl RangeBounds<K::Key<'k>>) -> Result<ByteBounds> {
        Ok(ByteBounds { low: encoded::<K>(range.start_bound())?, high: encoded::<K>(range.end_bound())? })
    }

    pub(crate) fn low_ref(&self) -> Bound<&[u8]> {
        self.low.as_ref().map(Vec::as_slice)
    }

    pub(crate) fn high_ref(&self) -> Bound<&[u8]> {
        self.high.as_ref().map(Vec::as_slice)
    }

    /// Like [`ByteBounds::into_half_open`], in a tree of any order: where a bound has to lie after
    /// a key, takes the next key of the tree. `None`: the range has no entry.
    pub(crate) fn half_open_in<P: PageRead>(self, tree: Tree<'_, P>) -> Result<Option<HalfOpen>> {
        if tree.root.order.is_bytewise() {
            return Ok(Some(self.into_half_open()));
        }
        let next = |key: Vec<u8>| -> Result<Option<Vec<u8>>> {
            let mut after = tree::Range::new(tree, None, Bound::Excluded(key), Bound::Unbounded);
            after.next().map(|entry| entry.map(|(key, _)| key.to_vec())).transpose()
        };
        let low = match self.low {
            Bound::Unbounded => None,
            Bound::Included(key) => Some(key),
            Bound::Excluded(key) => match next(key)? {
                Some(next) => Some(next),
                None => return Ok(None),
            },
        };
        let high = match self.high {
            Bound::Unbounded => None,
            Bound::Included(key) => next(key)?,
            Bound::Excluded(key) => Some(key),
        };
        Ok(Some((low, high)))
    }

    /// The range as a lower bound that lies inside and an upper bound that does not; `None` where
    /// it has no bound.
    pub(crate) fn into_half_open(self) -> HalfOpen {
        // No key lies between a key and the same key with a zero after it.
        let after = |mut key: Vec<u8>| {
            key.push(0);
            key
        };
        let low = match self.low {
            Bound::Unbounded => None,
            Bound::Included(key) => Some(key),
            Bound::Excluded(key) => Some(after(key)),
        };
        let high = match self.high {
            Bound::Unbounded => None,
            Bound::Included(key) => Some(after(key)),
            Bound::Excluded(key) => Some(key),
        };
        (low, high)
    }

    /// All keys that begin with these bytes.
    pub(crate) fn prefix(prefix: &Encoded<'_>) -> ByteBounds {
        let high = after_prefix(prefix).map_or(Bound::Unbounded, Bound::Excluded);
        ByteBounds { low: Bound::Included(prefix.to_vec()), high }
    }

    /// All keys that begin with these bytes, in a table of this order.
    pub(crate) fn prefix_in(prefix: &[u8], order: Order) -> Result<ByteBounds> {
        let high = after_prefix(prefix).map_or(Bound::Unbounded, Bound::Excluded);
        let bounds = ByteBounds { low: Bound::Included(prefix.to_vec()), high };
        match order {
            Order::Bytewise => Ok(bounds),
            Order::Descending => Ok(ByteBounds { low: bounds.high, high: bounds.low }),
            Order::Named(_) | Order::Unknown => Err(no_prefixes()),
        }
    }

    /// All keys that begin with a prefix of the range, or lie between two such keys, in a table of
    /// this order.
    pub(crate) fn of_prefixes<'k, K: PrefixCodec>(
        range: &impl RangeBounds<K::Prefix<'k>>,
        order: Order,
    ) -> Result<ByteBounds> {
        match order {
            Order::Bytewise => ByteBounds::of_ascending::<K>((range.start_bound(), range.end_bound())),
            Order::Descending => {
                let ByteBounds { low, high } = ByteBounds::of_ascending::<K>((range.end_bound(), range.start_bound()))?;
                Ok(ByteBounds { low: high, high: low })
            }
            Order::Named(_) | Order::Unknown => Err(no_prefixes()),
        }
    }

    fn of_ascending<'k, K: PrefixCodec>(range: (Bound<&K::Prefix<'k>>, Bound<&K::Prefix<'k>>)) -> Result<ByteBounds> {
        let low = match range.0 {
            Bound::Unbounded => Bound::Unbounded,
            Bound::Included(prefix) => Bound::Included(K::encode_prefix(prefix)?.to_vec()),
            Bound::Excluded(prefix) => match after_prefix(&K::encode_prefix(prefix)?) {
                Some(after) => Bound::Included(after),
                None => return Ok(ByteBounds::NONE),
            },
        };
        let high = match range.1 {
            Bound::Unbounded => Bound::Unbounded,
            Bound::Included(prefix) => ByteBounds::prefix(&K::encode_prefix(prefix)?).high,
            Bound::Excluded(prefix) => Bound::Excluded(K::encode_prefix(prefix)?.to_vec()),
        };
        Ok(ByteBounds { low, high })
    }
}

#[cold]
fn no_prefixes() -> Error {
    Error::usage(
        "the keys of this table have an order of their own, in which the keys of one prefix need not be neighbours; \
         read a range of keys, or filter the entries",
    )
}

/// The least bytes after all that begin with a prefix; `None` if there are none.
fn after_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    let mut after = prefix.to_vec();
    while after.last() == Some(&0xFF) {
        after.pop();
    }
    *after.last_mut()? += 1;
    Some(after)
}

fn encoded<K: KeyCodec>(bound: Bound<&K::Key<'_>>) -> Result<Bound<Vec<u8>>> {
    Ok(match bound {
        Bound::Included(key) => Bound::Included(K::encode_key(key)?.to_vec()),
        Bound::Excluded(key) => Bound::Excluded(K::encode_key(key)?.to_vec()),
        Bound::Unbounded => Bound::Unbounded,
    })
}
