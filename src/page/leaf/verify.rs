//! Checks a leaf as a whole, for `check`.
//!
//! Floor: page.
//!
//! Failure: a `DecodeError` names what is wrong, and where.

use super::Leaf;
use crate::error::DecodeError;
use crate::page::key::PageKey;
use crate::page::layout::{head_of, HEAD_BYTES};
use crate::page::order::{check_page_order, Order};
use crate::page::{bad, common_prefix_bytes, heads};

impl Leaf<'_> {
    /// Checks LEAF-2 to LEAF-6 and that every value can be decoded, for `check`. The caller checks
    /// the order of neighbours which only their long keys decide.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn verify(&self) -> Result<(), DecodeError> {
        self.verify_in(Order::Bytewise)
    }

    /// Like [`Leaf::verify`], for a leaf of a tree of this order. If the order is not known, the
    /// keys are not compared.
    pub(crate) fn verify_in(&self, order: Order) -> Result<(), DecodeError> {
        check_page_order(self.page, self.id, order)?;
        if !order.is_bytewise() && self.prefix_bytes > 0 {
            return Err(bad(self.id, "prefix length", self.prefix_bytes as u64, 0));
        }
        let mut extents = Vec::with_capacity(self.count);
        let mut last: Option<PageKey<'_>> = None;
        if self.count > 0 && !self.last_key()?.bytes.starts_with(self.prefix()?) {
            // If the first and the last key share the prefix, all keys do, given LEAF-2. Check this
            // before the heads, because a wrong prefix length makes all heads look wrong.
            let shared = common_prefix_bytes(self.first_key()?.bytes, self.last_key()?.bytes);
            return Err(bad(self.id, "prefix length", self.prefix_bytes as u64, shared as u64));
        }
        for index in 0..self.count {
            let entry = self.locate(index)?;
            let key = self.key_at(entry)?;
            self.value_at(entry)?;
            if last.is_some_and(|last| order.is_wrong(last, key)) {
                return Err(bad(self.id, "order of keys at entry", index as u64, index as u64));
            }
            if key.long.is_some() && (!self.has_long_keys() || key.bytes.len() < self.prefix_bytes + HEAD_BYTES) {
                let what = "bytes of a long key (a page with one has a flag, and holds its head)";
                return Err(bad(self.id, what, key.bytes.len() as u64, (self.prefix_bytes + HEAD_BYTES) as u64));
            }
            let (head, expected) =
                (heads::get(self.heads(), index), head_of(key.bytes.get(self.prefix_bytes..).unwrap_or(&[])));
            if head != expected {
                return Err(bad(self.id, "head", head.into(), expected.into()));
            }
            extents.push((entry.offset, entry.bytes()));
            last = Some(key);
        }
        verify_gapless(extents, self.upper, self.page.len()).map_err(|(found, expected)| {
            bad(self.id, "entry offset (entries are gapless)", found as u64, expected as u64)
        })
    }
}

/// Checks that extents fill `[start, end)` without gap or overlap. An error holds the offset found
/// and the one expected.
pub(in crate::page) fn verify_gapless(
    mut extents: Vec<(usize, usize)>,
    start: usize,
    end: usize,
) -> Result<(), (usize, usize)> {
    extents.sort_unstable();
    let mut expected = start;
    for (offset, bytes) in extents {
        if offset != expected {
            return Err((offset, expected));
        }
        expected += bytes;
    }
    if expected == end {
        Ok(())
    } else {
        Err((expected, end))
    }
}
