//! Requests the pages of many lookups from the disk together.
//!
//! Floor: tree. Pages that this process has not read yet may not be in memory, nor may any page of
//! a file that is larger than memory. When a batch of lookups comes to such pages, it first
//! descends once for many of its keys, level by level. It sorts the pages of a level, keeps many
//! requests for them in flight (a disk serves many in hardly more time than one), and verifies each
//! page while the disk reads the next ones.
//!
//! Failure: none. The lookups themselves read the pages afterwards, and report what cannot be read.

use std::cell::Cell;
use std::ops::ControlFlow;

use crate::error::DecodeError;
use crate::ids::{PageId, PagePtr};
use crate::page::key::{LongKey, NoLongKeys, WholeKeys};
use crate::page::leaf::LeafValue;
use crate::pager::{Around, PageRead};

use crate::tree::long_key::long_key_pages;
use crate::tree::lookup::search::child_checked;
use crate::tree::path::{height_of, leaf_at};
use crate::tree::value::overflow_pages;
use crate::tree::Tree;

/// Number of keys whose pages are requested together, and maximum number of pages of their overflow
/// extents.
const KEYS: usize = 2048;
const EXTENT_PAGES: u64 = 2048;

/// How many keys of a batch of lookups have had their pages requested.
pub(crate) struct Batch {
    /// Verified pages may have been evicted since they were read.
    gone: bool,
    /// Number of keys at the end of the batch whose pages were not requested yet.
    unasked: usize,
}

impl Batch {
    pub(crate) fn new<P: PageRead>(pages: &P) -> Batch {
        Batch { gone: pages.may_be_gone(), unasked: usize::MAX }
    }

    /// Called before the lookups of a group; `keys` are all keys of the batch from that group on.
    #[inline]
    pub(crate) fn begin<P: PageRead>(&mut self, tree: Tree<'_, P>, keys: &[&[u8]]) {
        if self.gone {
            self.met_unknown(tree, keys);
        }
    }

    /// Called when a lookup meets a page that this process has not read yet; `keys` are as in
    /// [`Batch::begin`]. Requests the pages of the next [`KEYS`] keys, unless that was done.
    #[cold]
    pub(crate) fn met_unknown<P: PageRead>(&mut self, tree: Tree<'_, P>, keys: &[&[u8]]) {
        if keys.len() <= self.unasked {
            let now = &keys[..keys.len().min(KEYS)];
            self.ask(tree, now);
            self.unasked = keys.len() - now.len();
        }
    }

    /// Reads the pages on the paths of some keys, and requests their overflow extents, for which it
    /// does not wait.
    fn ask<P: PageRead>(&self, tree: Tree<'_, P>, keys: &[&[u8]]) {
        let Tree { pages, root } = tree;
        let wanted = |id: PageId| self.gone || !pages.is_known(id);
        let mut at: Vec<(PagePtr, &[u8])> = keys.iter().map(|key| (root.ptr, *key)).collect();
        let mut ptrs = Vec::with_capacity(keys.len());
        for level in (1..height_of(root).unwrap_or(1)).rev() {
            at.retain_mut(|(ptr, key)| child_checked(tree, *ptr, level, key).map(|child| *ptr = child).is_ok());
            ptrs.clear();
            ptrs.extend(at.iter().map(|(ptr, _)| *ptr).filter(|ptr| wanted(ptr.id)));
            pages.load(&mut ptrs, Around::Some, &mut |_| ControlFlow::Continue(()));
        }
        let mut ids = Vec::new();
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

/// Finds no long key, and keeps the pointer of the first one that a search wants.
#[derive(Default)]
struct Wanted(Cell<Option<LongKey>>);

impl WholeKeys for Wanted {
    type Error = DecodeError;

    fn whole_key(&self, long: LongKey) -> Result<&[u8], DecodeError> {
        self.0.set(Some(long));
        NoLongKeys.whole_key(long).map(|_| &[][..])
    }
}

/// The overflow extent that a lookup of the key in this leaf reads first, if there is one: of a
/// long key, or of its value.
fn extent_of<P: PageRead>(pages: &P, ptr: PagePtr, key: &[u8]) -> Option<(PageId, u64)> {
    let leaf = leaf_at(pages, ptr).ok()?;
    let wanted = Wanted::default();
    let found = leaf.find(&wanted, key);
    if let Some(long) = wanted.0.get() {
        return Some((long.ptr().id, long_key_pages(pages.page_size(), long)));
    }
    match leaf.value(found.ok()??).ok()? {
        LeafValue::Overflow(pointer) => Some((pointer.ptr.id, overflow_pages(pages.page_size(), &pointer).ok()?)),
        LeafValue::Inline(_) | LeafValue::Set(_) | LeafValue::Tree(_) => None,
    }
}
