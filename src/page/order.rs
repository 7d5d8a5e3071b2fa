//! The order of the keys of a tree.
//!
//! Floor: page. Nearly all trees have bytewise order. The pages of any other order name it in their
//! flags, have no prefix, and hold whole keys only. Searches call the comparison of the order and
//! use neither heads nor hints, which pages of all orders have.
//!
//! A comparison that contradicts itself gives wrong answers: searches miss keys, and a key may be
//! stored twice. It cannot cause a panic, an endless loop or a read out of bounds, because every
//! search halves a range of indexes of one page, and every descent ends at the leaves.
//!
//! Failure: a long key in a page that has another order is a `DecodeError`.

use std::cmp::Ordering;
use std::fmt;

use super::bad;
use super::key::{PageKey, WholeKeys};
use super::layout::{get_u16, FLAGS, LONG_KEYS_FLAG, ORDER_FLAGS};
use crate::error::DecodeError;
use crate::ids::PageId;

/// Compares two keys.
pub(crate) type Compare = fn(&[u8], &[u8]) -> Ordering;

/// The order of the keys of a tree.
#[derive(Clone, Copy, Default)]
pub(crate) enum Order {
    #[default]
    Bytewise,
    /// The reverse of bytewise.
    Descending,
    /// A comparison that the program has registered by its name.
    Named(Compare),
    /// A comparison that the program has not registered: pages can be read and freed, and no key
    /// can be found.
    Unknown,
}

/// Flags of a page whose tree has descending order.
const DESCENDING: u16 = 1 << 1;
/// Flags of a page whose tree has an order with a name.
const NAMED: u16 = 3 << 1;

impl Order {
    /// The flags of a page of a tree with this order: as the flags of a table.
    #[inline]
    pub(crate) fn page_flags(self) -> u16 {
        match self {
            Order::Bytewise => 0,
            Order::Descending => DESCENDING,
            Order::Named(_) | Order::Unknown => NAMED,
        }
    }

    /// The order that flags of a page or of a table tell: a comparison with a name is not known.
    pub(crate) fn of_flags(flags: u16) -> Order {
        match flags & ORDER_FLAGS {
            0 => Order::Bytewise,
            DESCENDING => Order::Descending,
            _ => Order::Unknown,
        }
    }

    #[inline(always)]
    pub(crate) fn is_bytewise(self) -> bool {
        matches!(self, Order::Bytewise)
    }

    /// Whether keys can be compared.
    pub(crate) fn is_known(self) -> bool {
        !matches!(self, Order::Unknown)
    }

    /// Compares two whole keys. Keys of an unknown order are all equal.
    #[inline]
    pub(crate) fn compare(self, a: &[u8], b: &[u8]) -> Ordering {
        match self {
            Order::Bytewise => a.cmp(b),
            Order::Descending => b.cmp(a),
            Order::Named(compare) => compare(a, b),
            Order::Unknown => Ordering::Equal,
        }
    }

    /// Compares a key of a page with a whole one.
    #[inline]
    pub(crate) fn compare_stored<K: WholeKeys>(
        self,
        keys: &K,
        stored: PageKey<'_>,
        key: &[u8],
    ) -> Result<Ordering, K::Error> {
        match self {
            Order::Bytewise => keys.compare(stored, key),
            _ => Ok(self.compare(whole_in_page(stored)?, key)),
        }
    }

    /// Compares two keys of pages.
    #[inline]
    pub(crate) fn compare_both<K: WholeKeys>(
        self,
        keys: &K,
        left: PageKey<'_>,
        right: PageKey<'_>,
    ) -> Result<Ordering, K::Error> {
        match self {
            Order::Bytewise => keys.compare_stored(left, right),
            _ => Ok(self.compare(whole_in_page(left)?, whole_in_page(right)?)),
        }
    }
    /// Whether two keys of a page that follow each other are surely not in order. Of long keys, the
    /// caller compares those which their first bytes do not decide.
    pub(super) fn is_wrong(self, left: PageKey<'_>, right: PageKey<'_>) -> bool {
        match self {
            Order::Bytewise => left.compare(&right).is_some_and(Ordering::is_ge),
            Order::Unknown => false,
            _ => left.long.is_some() || right.long.is_some() || self.compare(left.bytes, right.bytes).is_ge(),
        }
    }
}

/// The key of a page whose tree has another order than bytewise.
fn whole_in_page(key: PageKey<'_>) -> Result<&[u8], DecodeError> {
    match key.long {
        None => Ok(key.bytes),
        Some(long) => Err(bad(long.ptr().id, "a long key in a tree with a key order", long.len() as u64, 0)),
    }
}

/// The flags that name the order of a page's keys.
#[inline]
pub(crate) fn page_order_flags(page: &[u8]) -> u16 {
    get_u16(page, FLAGS) & ORDER_FLAGS
}

/// Whether a leaf or branch may have these flags: those of an order that exists, or that of long
/// keys, but not both.
#[inline(always)]
pub(super) fn are_page_flags(flags: u16) -> bool {
    // Bit n says whether the flags n are valid: 0, descending, a name, long keys.
    const VALID: u16 = 1 | 1 << DESCENDING | 1 << NAMED | 1 << LONG_KEYS_FLAG;
    (flags < 16) & (VALID >> (flags & 15) & 1 != 0)
}

/// Returns an error unless the page has the order of its tree.
pub(crate) fn check_page_order(page: &[u8], id: PageId, order: Order) -> Result<(), DecodeError> {
    match page_order_flags(page) {
        flags if flags == order.page_flags() => Ok(()),
        flags => Err(bad(id, "key order in the page flags", flags.into(), order.page_flags().into())),
    }
}

impl PartialEq for Order {
    /// Comparisons are not compared, only whether there is one.
    fn eq(&self, other: &Order) -> bool {
        self.page_flags() == other.page_flags()
    }
}

impl Eq for Order {}

impl std::hash::Hash for Order {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.page_flags().hash(state);
    }
}

impl fmt::Debug for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Order::Bytewise => "Bytewise",
            Order::Descending => "Descending",
            Order::Named(_) => "Named",
            Order::Unknown => "Unknown",
        })
    }
}
