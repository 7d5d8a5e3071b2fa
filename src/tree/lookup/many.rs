//! Many point lookups at once.
//!
//! Floor: tree. A single lookup waits for memory once per level. Here a group of lookups descends
//! together, level by level. Each step of a lookup prefetches the cache lines that its next step
//! needs, and they have arrived when its turn comes again. So the waits of a group overlap. Lookups
//! one after the other overlap only as far as the processor's reorder buffer goes. (Group
//! prefetching: Chen, Gibbons, Mowry, "Improving index performance through prefetching", 2001; for
//! hash joins, 2004.)
//!
//! Invariants:
//!   MANY-1  each key gets the answer that `get` gives, in the order of the keys.
//!   MANY-2  a descent has as many steps as the root says (TREE-1), so a group ends together.
//!
//! Failure: the first error of a group is returned, without the values of its other keys.

use crate::error::Result;
use crate::ids::PagePtr;
use crate::page::heads::{self, Vectors};
use crate::page::lookup;
use crate::pager::PageRead;

use crate::tree::lookup::batch::Batch;
use crate::tree::lookup::flat_index::{FlatIndex, SearchState};
use crate::tree::lookup::search::{child_checked, value_checked};
use crate::tree::path::{fetch_front, height_of};
use crate::tree::Tree;

/// Lookups that go down together: enough for all requests that a core can have in flight. More
/// would only push each other out of the cache.
pub(crate) const GROUP: usize = 16;

/// Bytes to prefetch of an entry: all of it if it is short.
const ENTRY_BYTES: usize = 256;

impl<'p, P: PageRead> Tree<'p, P> {
    /// The values of keys, in their order: `give` is called once for each.
    pub(crate) fn get_many(
        self,
        flat_index: Option<&FlatIndex>,
        keys: &[&[u8]],
        mut give: impl FnMut(Option<&'p [u8]>) -> Result<()>,
    ) -> Result<()> {
        if self.is_empty() {
            return keys.iter().try_for_each(|_| give(None));
        }
        if !self.root.order.is_bytewise() {
            return keys.iter().try_for_each(|key| give(self.get_checked(key)?));
        }
        let height = height_of(self.root)?;
        let (mut batch, mut rest) = (Batch::new(self.pages), keys);
        for group in keys.chunks(GROUP) {
            batch.begin(self, rest);
            let lookups = Group { tree: self, height, flat_index, keys: group, batch: &mut batch, rest };
            for value in heads::with_vectors(lookups)?.into_iter().take(group.len()) {
                give(value)?;
            }
            rest = &rest[group.len()..];
        }
        Ok(())
    }
}

impl<P: PageRead> Tree<'_, P> {
    /// Prefetches the leaves of at most [`GROUP`] keys. A hint: it ends at a page that is damaged
    /// or cannot be read; the operations that follow report it.
    pub(crate) fn prefetch_leaves(self, keys: &[&[u8]]) {
        if let (false, Ok(height)) = (self.is_empty() || !self.root.order.is_bytewise(), height_of(self.root)) {
            heads::with_vectors(Leaves { tree: self, height, keys });
        }
    }
}

/// The leaves of at most [`GROUP`] keys, to be prefetched.
struct Leaves<'a, 'k, P> {
    tree: Tree<'a, P>,
    height: usize,
    keys: &'k [&'k [u8]],
}

impl<P: PageRead> heads::Search for Leaves<'_, '_, P> {
    type Answer = ();

    #[inline(always)]
    fn with<V: Vectors>(self, vectors: V) {
        let Tree { pages, root } = self.tree;
        let mut at = [root.ptr; GROUP];
        for level in (1..self.height).rev() {
            for (ptr, key) in at.iter_mut().zip(self.keys) {
                let Some(child) = child_fast(vectors, pages, *ptr, level, key) else { return };
                *ptr = child;
                if level > 1 {
                    fetch_front(pages, child);
                }
            }
        }
        let mut last = root.ptr.id;
        for leaf in at.iter().take(self.keys.len()).filter(|_| self.height > 1) {
            if std::mem::replace(&mut last, leaf.id) != leaf.id {
                pages.prefetch(leaf.id, 0, pages.page_size());
            }
        }
    }
}

/// Lookups of at most [`GROUP`] keys.
struct Group<'a, 'k, 'b, P> {
    tree: Tree<'a, P>,
    height: usize,
    flat_index: Option<&'k FlatIndex>,
    keys: &'k [&'k [u8]],
    batch: &'b mut Batch,
    /// The keys of this group and of all groups after it.
    rest: &'k [&'k [u8]],
}

impl<'a, P: PageRead> heads::Search for Group<'a, '_, '_, P> {
    type Answer = Result<[Option<&'a [u8]>; GROUP]>;

    #[inline(always)]
    fn with<V: Vectors>(self, vectors: V) -> Self::Answer {
        let Group { tree, height, flat_index, keys, batch, rest } = self;
        let Tree { pages, root } = tree;
        let mut at = [root.ptr; GROUP];
        let mut first = height;
        if let Some(flat_index) = flat_index {
            first = begin(vectors, pages, flat_index, &mut at, keys).unwrap_or(height);
        }
        for level in (1..first).rev() {
            for (ptr, key) in at.iter_mut().zip(keys) {
                *ptr = match child_fast(vectors, pages, *ptr, level, key) {
                    Some(child) => child,
                    None => child_checked(tree, *ptr, level, key)?,
                };
                fetch_front(pages, *ptr);
            }
        }
        let (mut found, mut cold) = ([lookup::EntryOffset::ASK_LEAF; GROUP], false);
        for ((found, ptr), key) in found.iter_mut().zip(&at).zip(keys) {
            let Some(front) = pages.front_fast(*ptr) else {
                cold = true;
                continue;
            };
            *found = lookup::find(vectors, front, key);
            if *found == lookup::EntryOffset::ASK_LEAF {
                *found = lookup::find_in_any(pages.page(*ptr)?, key);
            }
            if let Some(offset) = found.offset() {
                pages.prefetch(ptr.id, offset, ENTRY_BYTES.min(pages.page_size().saturating_sub(offset)));
            }
        }
        if cold {
            batch.met_unknown(tree, rest);
        }
        let mut values = [None; GROUP];
        for (((value, found), ptr), key) in values.iter_mut().zip(&found).zip(&at).zip(keys) {
            if *found == lookup::EntryOffset::ABSENT {
                continue;
            }
            if let Some(page) = pages.page_fast(*ptr) {
                *value = found.value(page, key);
            }
            if value.is_none() {
                *value = value_checked(tree, *ptr, key)?;
            }
        }
        Ok(values)
    }
}

/// Moves all lookups to the level of the flat index. Returns the number of levels from there on;
/// `None` if the lookups must begin at the root.
#[inline(always)]
fn begin<V: Vectors, P: PageRead>(
    vectors: V,
    pages: &P,
    flat_index: &FlatIndex,
    at: &mut [PagePtr; GROUP],
    keys: &[&[u8]],
) -> Option<usize> {
    let mut found = *at;
    let mut places = [SearchState::default(); GROUP];
    for (place, key) in places.iter_mut().zip(keys) {
        *place = flat_index.begin_ahead(vectors, key, lookup::first_word(key)?)?;
    }
    for (ptr, place) in found.iter_mut().zip(places).take(keys.len()) {
        *ptr = flat_index.page(flat_index.end(vectors, place)?)?;
        fetch_front(pages, *ptr);
    }
    *at = found;
    Some(flat_index.level() + 1)
}

/// The child of a branch whose range holds the key, if this process has verified the page.
#[inline(always)]
fn child_fast<V: Vectors, P: PageRead>(
    vectors: V,
    pages: &P,
    ptr: PagePtr,
    level: usize,
    key: &[u8],
) -> Option<PagePtr> {
    if let Some(word) = lookup::first_word(key) {
        let child = lookup::child(vectors, pages.front_fast(ptr)?, level, key, word);
        if child.is_some() {
            return child;
        }
    }
    lookup::child_of_any(vectors, pages.page_fast(ptr)?, level, key)
}
