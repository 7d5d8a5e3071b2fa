//! Walks a tree of a file that may be damaged or cut, reading one page at a time.
//!
//! Floor: tree. Like `check`, but over a file that nothing is mapped from, and it hands out what it
//! finds. Depth first with an explicit stack of copied branches, so memory is one page per level,
//! and the longest value where values are wanted. A page counts only if its checksum is the one of
//! its pointer, its kind, level and tree are those that its place asks for, it is well-formed
//! inside, and its keys lie within the separators above.
//!
//! Failure: damage is told to the [`Visitor`], with the keys that it concerns; the walk goes on
//! beside it. Errors of the visitor end the walk.

use crate::error::{Error, Result};
use crate::ids::{PageId, PagePtr, TreeId};
use crate::limits::DEPTH_MAX;
use crate::page::branch::Branch;
use crate::page::header::{Header, PageKind};
use crate::page::leaf::{Leaf, LeafValue, OverflowPtr};
use crate::page::overflow;
use crate::pager::read::file_pages::FilePages;

use crate::tree::value::overflow_pages;
use crate::tree::verify::check::Finding;
use crate::tree::TreeRoot;

/// Receives what a walk finds.
pub(crate) trait Visitor {
    /// Whether keys from `low` on and below `high` are of interest. What is not is left out.
    fn wants(&mut self, _low: Option<&[u8]>, _high: Option<&[u8]>) -> bool {
        true
    }

    /// A page or extent that is reached, before it is read. Says whether this is the first time.
    fn enter(&mut self, id: PageId, pages: u64) -> bool;

    /// An entry, in ascending order of keys. The value of a run is empty where values are only
    /// verified.
    fn entry(&mut self, key: &[u8], value: &[u8]) -> Result<()>;

    /// Something that cannot be read, and the keys that it was responsible for.
    fn lost(&mut self, finding: Finding) -> Result<()>;
}

/// What to do with values in runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Values {
    /// Read each as a whole.
    Read,
    /// Verify them chunk by chunk.
    Verify,
}

/// The keys that a page is responsible for.
#[derive(Clone, Default)]
struct Bounds {
    low: Option<Vec<u8>>,
    high: Option<Vec<u8>>,
}

impl Bounds {
    fn hold(&self, key: &[u8]) -> bool {
        self.low.as_deref().is_none_or(|low| low <= key) && self.high.as_deref().is_none_or(|high| key < high)
    }

    /// The bounds of one key.
    fn of_key(key: &[u8]) -> Bounds {
        Bounds { low: Some(key.to_vec()), high: Some([key, &[0]].concat()) }
    }
}

/// A branch that is being walked.
struct Open {
    page: Vec<u8>,
    id: PageId,
    level: usize,
    next: usize,
    bounds: Bounds,
}

struct Walk<'w, 'f> {
    pages: &'w FilePages<'f>,
    tree: TreeId,
    values: Values,
    visitor: &'w mut dyn Visitor,
    entries: u64,
    buffer: Vec<u8>,
}

/// Walks a sealed tree and returns how many entries it handed out.
pub(crate) fn walk(pages: &FilePages<'_>, root: &TreeRoot, values: Values, visitor: &mut dyn Visitor) -> Result<u64> {
    let mut walk = Walk { pages, tree: root.tree, values, visitor, entries: 0, buffer: Vec::new() };
    if usize::from(root.height) > DEPTH_MAX {
        let what = format!("tree height is {}, expected at most {DEPTH_MAX}", root.height);
        walk.lost(root.ptr.id, Bounds::default(), Error::corrupt(root.ptr.id, what))?;
    } else if root.height > 0 {
        walk.descend(root)?;
    }
    Ok(walk.entries)
}

impl Walk<'_, '_> {
    fn lost(&mut self, page: PageId, bounds: Bounds, e: Error) -> Result<()> {
        let what = match e {
            Error::Corrupt { what, .. } => what,
            other => other.to_string(),
        };
        let Bounds { low, high } = bounds;
        self.visitor.lost(Finding { page, table: None, low, high, what })
    }

    fn descend(&mut self, root: &TreeRoot) -> Result<()> {
        let mut stack = Vec::new();
        stack.extend(self.enter(root.ptr, usize::from(root.height) - 1, Bounds::default())?);
        while let Some(open) = stack.last_mut() {
            let Some((child, bounds)) = next_child(open)? else {
                stack.pop();
                continue;
            };
            let level = open.level - 1;
            stack.extend(self.enter(child, level, bounds)?);
        }
        Ok(())
    }

    /// Looks at one page; gives it back if it is a branch whose children are to be walked.
    fn enter(&mut self, ptr: PagePtr, level: usize, bounds: Bounds) -> Result<Option<Open>> {
        if !self.visitor.wants(bounds.low.as_deref(), bounds.high.as_deref()) {
            return Ok(None);
        }
        if !self.visitor.enter(ptr.id, 1) {
            self.lost(ptr.id, bounds, Error::corrupt(ptr.id, "page is reached a second time"))?;
            return Ok(None);
        }
        let mut page = std::mem::take(&mut self.buffer);
        let sound = self.pages.page(ptr, &mut page).and_then(|()| self.verify(&page, ptr.id, level, &bounds));
        match sound {
            Err(e) => self.lost(ptr.id, bounds, e)?,
            Ok(()) if level > 0 => return Ok(Some(Open { page, id: ptr.id, level, next: 0, bounds })),
            Ok(()) => self.leaf(&page, ptr.id)?,
        }
        self.buffer = page;
        Ok(None)
    }

    /// Checks that a page is what its place asks for and well-formed, and that its keys lie where
    /// they belong.
    fn verify(&self, page: &[u8], id: PageId, level: usize, bounds: &Bounds) -> Result<()> {
        let header = Header::read(page, id)?;
        let kind = if level == 0 { PageKind::Leaf } else { PageKind::Branch };
        if header.kind != kind || usize::from(header.level) != level {
            let what = format!("is {:?} of level {}, expected {kind:?} of level {level}", header.kind, header.level);
            return Err(Error::corrupt(id, what));
        }
        if header.tree != self.tree {
            return Err(Error::corrupt(id, format!("belongs to tree {}, expected tree {}", header.tree, self.tree)));
        }
        let (first, last) = match kind {
            PageKind::Leaf => ends_of_leaf(&Leaf::parse(page, id)?)?,
            _ => ends_of_branch(&Branch::parse(page, id)?)?,
        };
        if [first, last].into_iter().flatten().all(|key| bounds.hold(&key)) {
            return Ok(());
        }
        Err(Error::corrupt(id, "its keys lie outside the separators above it"))
    }

    fn leaf(&mut self, page: &[u8], id: PageId) -> Result<()> {
        let leaf = Leaf::parse(page, id)?;
        let mut extent = Vec::new();
        for at in 0..leaf.count() {
            let (key, value) = leaf.entry(at)?;
            match value {
                LeafValue::Inline(value) => self.visitor.entry(key, value)?,
                LeafValue::Overflow(pointer) => match self.value(&pointer, &mut extent) {
                    Ok(()) => {
                        let value = match self.values {
                            Values::Read => overflow::value(&extent, pointer.ptr.id, pointer.len)?,
                            Values::Verify => &[],
                        };
                        self.visitor.entry(key, value)?;
                    }
                    Err(e) => {
                        self.lost(pointer.ptr.id, Bounds::of_key(key), e)?;
                        continue;
                    }
                },
            }
            self.entries += 1;
        }
        Ok(())
    }

    /// Reads or verifies the run of a value.
    fn value(&mut self, pointer: &OverflowPtr, extent: &mut Vec<u8>) -> Result<()> {
        let pages = overflow_pages(self.pages.page_size(), pointer)?;
        if !self.visitor.enter(pointer.ptr.id, pages) {
            return Err(Error::corrupt(pointer.ptr.id, "overflow extent is reached a second time"));
        }
        match self.values {
            Values::Read => read_value(self.pages, pointer, extent),
            Values::Verify => {
                let header = self.pages.verify_extent(pointer.ptr, pages)?;
                if header.kind == PageKind::Overflow && header.overflow_pages() == pages {
                    return Ok(());
                }
                Err(Error::corrupt(pointer.ptr.id, "is not the overflow extent that its pointer describes"))
            }
        }
    }
}

/// Reads the run of a value, and checks that it is one. [`overflow::value`] then gives the value.
pub(crate) fn read_value(pages: &FilePages<'_>, pointer: &OverflowPtr, extent: &mut Vec<u8>) -> Result<()> {
    pages.extent(pointer.ptr, overflow_pages(pages.page_size(), pointer)?, extent)?;
    overflow::value(extent, pointer.ptr.id, pointer.len)?;
    Ok(())
}

/// The next child of a branch and the keys that it is responsible for. The branch was verified when
/// it was entered.
fn next_child(open: &mut Open) -> Result<Option<(PagePtr, Bounds)>> {
    let branch = Branch::parse(&open.page, open.id)?;
    let at = open.next;
    if at == branch.count() {
        return Ok(None);
    }
    open.next += 1;
    let mut bounds = open.bounds.clone();
    if at > 0 {
        bounds.low = Some(separator(&branch, at)?);
    }
    if at + 1 < branch.count() {
        bounds.high = Some(separator(&branch, at + 1)?);
    }
    Ok(Some((branch.child(at)?, bounds)))
}

type Ends = (Option<Vec<u8>>, Option<Vec<u8>>);

fn ends_of_leaf(leaf: &Leaf<'_>) -> Result<Ends> {
    leaf.verify()?;
    if leaf.count() == 0 {
        return Ok((None, None));
    }
    Ok((Some(leaf.first_key()?.to_vec()), Some(leaf.last_key()?.to_vec())))
}

fn ends_of_branch(branch: &Branch<'_>) -> Result<Ends> {
    branch.verify()?;
    for at in 0..branch.count() {
        branch.child(at)?;
    }
    if branch.count() < 2 {
        return Ok((None, None));
    }
    Ok((Some(separator(branch, 1)?), Some(separator(branch, branch.count() - 1)?)))
}

/// A whole separator.
fn separator(branch: &Branch<'_>, at: usize) -> Result<Vec<u8>> {
    let mut separator = Vec::new();
    branch.separator_into(at, &mut separator)?;
    Ok(separator)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A page with a key elsewhere would be believed, and lookups would not find that key.
    #[test]
    fn bounds_hold_the_keys_from_the_lower_separator_up_to_below_the_upper() {
        let both = Bounds { low: Some(b"b".to_vec()), high: Some(b"d".to_vec()) };
        for (key, held) in [("a", false), ("b", true), ("c", true), ("czz", true), ("d", false), ("e", false)] {
            assert_eq!(both.hold(key.as_bytes()), held, "{key}");
            assert_eq!(Bounds { high: None, ..both.clone() }.hold(key.as_bytes()), key >= "b", "{key}");
            assert_eq!(Bounds { low: None, ..both.clone() }.hold(key.as_bytes()), key < "d", "{key}");
            assert!(Bounds::default().hold(key.as_bytes()));
        }
        let one = Bounds::of_key(b"b");
        assert!(one.hold(b"b") && !one.hold(b"a") && !one.hold(b"b\0"));
    }
}
