//! Findings, and the expectations of a page that `check` and `walk` share.
//!
//! Floor: tree.
//!
//! Failure: an expectation that a page does not meet is [`Error::Corrupt`]. `check` and `walk` turn
//! it into a finding.

use crate::error::{Error, Result};
use crate::ids::{PageId, TreeId};
use crate::page::branch::Branch;
use crate::page::header::{Header, PageKind};
use crate::page::key::{LongKey, PageKeyBuf};
use crate::page::order::Order;
use crate::page::value_set::Shape;

/// Reads a long key or separator as a whole.
pub(super) type ReadLong<'r> = &'r dyn Fn(LongKey) -> Result<Vec<u8>>;

/// Damage in a tree.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Finding {
    pub(crate) page: PageId,
    /// The table that the tree belongs to. Callers that know the table fill it in.
    pub(crate) table: Option<String>,
    /// The keys of the page: from `low` (included) up to `high` (excluded), where known.
    pub(crate) low: Option<Vec<u8>>,
    pub(crate) high: Option<Vec<u8>>,
    pub(crate) what: String,
}

impl Finding {
    pub(super) fn new(page: PageId, bounds: Bounds, what: String) -> Finding {
        let Bounds { low, high, .. } = bounds;
        Finding { page, table: None, low, high, what }
    }

    /// A finding about one key, on no known page.
    pub(crate) fn of_key(key: &[u8], what: String) -> Finding {
        Finding::new(PageId::NONE, Bounds::of_key(key), what)
    }
}

/// The text of a finding that an error leads to. A finding names page and table itself.
pub(crate) fn text_of(e: Error) -> String {
    match e {
        Error::Corrupt { what, .. } => what,
        other => other.to_string(),
    }
}

/// The keys that a page may hold: from `low` (included) up to `high` (excluded).
#[derive(Clone, Default)]
pub(super) struct Bounds {
    pub(super) low: Option<Vec<u8>>,
    pub(super) high: Option<Vec<u8>>,
    /// The order in which these are bounds.
    pub(super) order: Order,
}

impl Bounds {
    /// No bounds, in a tree of this order.
    pub(super) fn none(order: Order) -> Bounds {
        Bounds { low: None, high: None, order }
    }

    pub(super) fn hold(&self, key: &[u8]) -> bool {
        let order = self.order;
        let from_low = |low| order.compare(low, key).is_le();
        let below_high = |high| order.compare(key, high).is_lt();
        !order.is_known() || (self.low.as_deref().is_none_or(from_low) && self.high.as_deref().is_none_or(below_high))
    }

    /// The bounds of one key.
    pub(super) fn of_key(key: &[u8]) -> Bounds {
        Bounds { low: Some(key.to_vec()), high: Some([key, &[0]].concat()), order: Order::Bytewise }
    }

    /// The bounds of all keys that begin with `bytes`.
    pub(super) fn of_beginning(bytes: &[u8]) -> Bounds {
        let mut high = bytes.to_vec();
        while high.pop_if(|last| *last == u8::MAX).is_some() {}
        if let Some(last) = high.last_mut() {
            *last += 1;
        }
        Bounds { low: Some(bytes.to_vec()), high: Some(high).filter(|high| !high.is_empty()), order: Order::Bytewise }
    }

    /// The bounds of a child of `branch`, which has these bounds and is well-formed.
    pub(super) fn of_child(&self, branch: &Branch<'_>, index: usize, read: ReadLong<'_>) -> Result<Bounds> {
        let mut bounds = self.clone();
        if index > 0 {
            bounds.low = Some(separator(branch, index, read)?);
        }
        if index + 1 < branch.count() {
            bounds.high = Some(separator(branch, index + 1, read)?);
        }
        Ok(bounds)
    }
}

/// The first and last separator of a branch; `None` if it has only one child.
pub(super) fn outer_separators(branch: &Branch<'_>, read: ReadLong<'_>) -> Result<Option<[Vec<u8>; 2]>> {
    if branch.count() < 2 {
        return Ok(None);
    }
    Ok(Some([separator(branch, 1, read)?, separator(branch, branch.count() - 1, read)?]))
}

fn separator(branch: &Branch<'_>, index: usize, read: ReadLong<'_>) -> Result<Vec<u8>> {
    let mut separator = PageKeyBuf::default();
    branch.separator_into(index, &mut separator)?;
    separator.long.map_or(Ok(separator.bytes), read)
}

/// Expects that the walk reaches a page, or an overflow extent, for the first time.
pub(super) fn expect_first_time(first: bool, id: PageId, thing: &str) -> Result<()> {
    if first {
        return Ok(());
    }
    Err(Error::corrupt(id, format!("{thing} is reached a second time")))
}

/// Expects a leaf at level 0, of the kind that the shape of the tree says, and a branch above
/// (TREE-1).
pub(super) fn expect_level(header: &Header, level: usize, shape: Shape) -> Result<()> {
    let kind = if level == 0 { shape.leaf_kind() } else { PageKind::Branch };
    if header.kind == kind && usize::from(header.level) == level {
        return Ok(());
    }
    let what = format!("is {:?} of level {}, expected {kind:?} of level {level}", header.kind, header.level);
    Err(Error::corrupt(header.id, what))
}

pub(super) fn expect_tree(header: &Header, tree: TreeId) -> Result<()> {
    if header.tree == tree {
        return Ok(());
    }
    Err(Error::corrupt(header.id, format!("belongs to tree {}, expected tree {tree}", header.tree)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If bounds held a key that belongs to another page, a check would pass although lookups do
    /// not find that key.
    #[test]
    fn bounds_hold_the_keys_from_the_lower_separator_up_to_below_the_upper() {
        let both = Bounds { low: Some(b"b".to_vec()), high: Some(b"d".to_vec()), order: Order::Bytewise };
        for (key, held) in [("a", false), ("b", true), ("c", true), ("czz", true), ("d", false), ("e", false)] {
            assert_eq!(both.hold(key.as_bytes()), held, "{key}");
            assert_eq!(Bounds { high: None, ..both.clone() }.hold(key.as_bytes()), key >= "b", "{key}");
            assert_eq!(Bounds { low: None, ..both.clone() }.hold(key.as_bytes()), key < "d", "{key}");
            assert!(Bounds::default().hold(key.as_bytes()));
        }
        let beginning = Bounds::of_beginning(b"b\xff");
        assert!(beginning.hold(b"b\xff") && beginning.hold(b"b\xff\xff\xff"));
        assert!(!beginning.hold(b"b\xfe") && !beginning.hold(b"c"));
        assert!(Bounds::of_beginning(b"\xff").hold(b"\xff\xff"));
        let one = Bounds::of_key(b"b");
        assert!(one.hold(b"b") && !one.hold(b"a") && !one.hold(b"b\0"));
    }
}
