//! What many lookups ask of the disk together.
//!
//! Floor: tree. Pages that this process has not seen yet may not be in memory, nor may those of a
//! file that is larger than memory. A batch of lookups that comes to such pages goes down once for
//! many of its keys, level by level, and asks for all pages of a level before it waits for one: a
//! disk serves many requests in hardly more time than one.
//!
//! Failure: none. What cannot be read is met, and reported, by the lookups themselves.

use crate::ids::{PageId, PagePtr};
use crate::page::leaf::LeafValue;
use crate::pager::{Around, PageRead};

use crate::tree::lookup::search::child_checked;
use crate::tree::path::{height_of, leaf_at};
use crate::tree::value::overflow_pages;
use crate::tree::Tree;

/// Keys whose pages are asked for together, and pages of long values among those.
const KEYS: usize = 512;
const EXTENT_PAGES: u64 = 2048;

/// How far a batch of lookups has asked for its pages.
pub(crate) struct Batch {
    /// Pages may have gone from memory since they were read.
    gone: bool,
    /// Keys still to come when the pages of those before them had been asked for.
    unasked: usize,
}

impl Batch {
    pub(crate) fn new<P: PageRead>(pages: &P) -> Batch {
        Batch { gone: pages.may_be_gone(), unasked: usize::MAX }
    }

    /// The lookups of the first of these keys begin, which are all that are still to come.
    #[inline]
    pub(crate) fn begin<P: PageRead>(&mut self, tree: Tree<'_, P>, keys: &[&[u8]]) {
        if self.gone {
            self.met_unknown(tree, keys);
        }
    }

    /// Pages on the way to these keys are not known. Asks for them, unless that was done.
    #[cold]
    pub(crate) fn met_unknown<P: PageRead>(&mut self, tree: Tree<'_, P>, keys: &[&[u8]]) {
        if keys.len() <= self.unasked {
            let now = &keys[..keys.len().min(KEYS)];
            self.ask(tree, now);
            self.unasked = keys.len() - now.len();
        }
    }

    /// Asks for the pages on the way to some keys, those of their values included, and waits for
    /// those above the last.
    fn ask<P: PageRead>(&self, tree: Tree<'_, P>, keys: &[&[u8]]) {
        let Tree { pages, root } = tree;
        let wanted = |id: PageId| self.gone || !pages.is_known(id);
        let mut at: Vec<(PagePtr, &[u8])> = keys.iter().map(|key| (root.ptr, *key)).collect();
        let mut ids = Vec::with_capacity(keys.len());
        for level in (1..height_of(root).unwrap_or(1)).rev() {
            at.retain_mut(|(ptr, key)| child_checked(pages, *ptr, level, key).map(|child| *ptr = child).is_ok());
            ids.clear();
            ids.extend(at.iter().map(|(ptr, _)| ptr.id).filter(|id| wanted(*id)));
            pages.request(&mut ids, Around::Some);
        }
        ids.clear();
        for (ptr, key) in at {
            if let Some((id, count)) = extent_of(pages, ptr, key).filter(|(id, _)| wanted(*id)) {
                if (ids.len() as u64).saturating_add(count) > EXTENT_PAGES {
                    break;
                }
                ids.extend((id.0..id.0.saturating_add(count)).map(PageId));
            }
        }
        pages.request(&mut ids, Around::None);
    }
}

/// The run that the value of a key lies in, if it does.
fn extent_of<P: PageRead>(pages: &P, ptr: PagePtr, key: &[u8]) -> Option<(PageId, u64)> {
    let leaf = leaf_at(pages, ptr).ok()?;
    match leaf.value(leaf.find(key).ok()??).ok()? {
        LeafValue::Overflow(run) => Some((run.ptr.id, overflow_pages(pages.page_size(), &run).ok()?)),
        LeafValue::Inline(_) => None,
    }
}
