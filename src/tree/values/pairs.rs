//! The pairs of a multimap: each key with each of its values, in order, from both ends.
//!
//! Floor: tree. A range of keys, and at each end the values of one key. Where the range of keys is
//! used up, each end takes the values that the other one has left.
//!
//! Failure: a damaged page of keys yields one `Err` and ends the range; values that cannot be read
//! yield an `Err` in their place, and the pairs of the keys after them follow.

use std::ops::Bound;

use crate::error::Result;
use crate::page::leaf::LeafValue;
use crate::pager::PageRead;

use crate::tree::scan::range::Range;
use crate::tree::values::range::ValueRange;
use crate::tree::{Entry, Tree, TreeRoot};

/// A key, and its values that were not yielded yet.
pub(crate) type OfKey<'a, P> = (&'a [u8], ValueRange<'a, P>);

/// Keys with their values in ascending order, and from the other end in descending order.
pub(crate) struct Pairs<'a, P> {
    keys: Range<'a, P>,
    root: &'a TreeRoot,
    front: Option<OfKey<'a, P>>,
    back: Option<OfKey<'a, P>>,
}

impl<'a, P: PageRead> Pairs<'a, P> {
    /// The pairs whose keys lie between two bounds.
    pub(crate) fn new(tree: Tree<'a, P>, low: Bound<Vec<u8>>, high: Bound<Vec<u8>>) -> Pairs<'a, P> {
        Pairs::of(Range::new(tree, None, low, high), tree.root)
    }

    /// The pairs of a range of keys of the tree with this root.
    pub(crate) fn of(keys: Range<'a, P>, root: &'a TreeRoot) -> Pairs<'a, P> {
        Pairs { keys, root, front: None, back: None }
    }

    /// Like [`Pairs::of`], with values of a key before the range, and of one after it.
    pub(crate) fn between(
        keys: Range<'a, P>,
        root: &'a TreeRoot,
        front: Option<OfKey<'a, P>>,
        back: Option<OfKey<'a, P>>,
    ) -> Pairs<'a, P> {
        Pairs { keys, root, front, back }
    }

    /// The pages that the range reads.
    #[inline]
    pub(crate) fn pages(&self) -> &'a P {
        self.keys.pages()
    }

    /// The next pair, if it can be read without another page. Else returns `None` and changes
    /// nothing.
    #[inline(always)]
    pub(crate) fn next_fast(&mut self) -> Option<Entry<'a>> {
        let (key, values) = self.front.as_mut()?;
        Some((*key, values.next_fast()?))
    }

    /// The next key with all its values that the other end has left. Skips the other values of the
    /// key before.
    pub(crate) fn next_key(&mut self) -> Option<Result<OfKey<'a, P>>> {
        self.front = None;
        match self.keys.next_stored() {
            Some(entry) => Some(self.open(entry)),
            None => self.take_back_key(),
        }
    }

    /// The key of the other end, if it has values left.
    #[cold]
    fn take_back_key(&mut self) -> Option<Result<OfKey<'a, P>>> {
        let (key, mut values) = self.back.take()?;
        match values.is_used_up() {
            Ok(true) => None,
            Ok(false) => Some(Ok((key, values))),
            Err(e) => Some(Err(e)),
        }
    }

    /// Like [`Pairs::next_key`], from the other end.
    fn next_back_key(&mut self) -> Option<Result<OfKey<'a, P>>> {
        let entry = self.keys.next_back_stored()?;
        Some(self.open(entry))
    }

    fn open(&self, entry: Result<(&'a [u8], LeafValue<'a>)>) -> Result<OfKey<'a, P>> {
        let (key, stored) = entry?;
        let values = ValueRange::of(self.keys.pages(), self.root, stored, Bound::Unbounded, Bound::Unbounded)?;
        Ok((key, values))
    }
}

/// The next pair of the values at one end. Closes the end when there is none.
#[inline]
fn take<'a, P: PageRead>(
    end: &mut Option<OfKey<'a, P>>,
    next: impl FnOnce(&mut ValueRange<'a, P>) -> Option<Result<&'a [u8]>>,
) -> Option<Result<Entry<'a>>> {
    let (key, values) = end.as_mut()?;
    match next(values) {
        Some(value) => Some(value.map(|value| (*key, value))),
        None => {
            *end = None;
            None
        }
    }
}

impl<'a, P: PageRead> Iterator for Pairs<'a, P> {
    type Item = Result<Entry<'a>>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(pair) = take(&mut self.front, Iterator::next) {
                return Some(pair);
            }
            match self.next_key()? {
                Ok(of_key) => self.front = Some(of_key),
                Err(e) => return Some(Err(e)),
            }
        }
    }
}

impl<P: PageRead> DoubleEndedIterator for Pairs<'_, P> {
    #[inline]
    fn next_back(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(pair) = take(&mut self.back, DoubleEndedIterator::next_back) {
                return Some(pair);
            }
            match self.next_back_key() {
                Some(Ok(of_key)) => self.back = Some(of_key),
                Some(Err(e)) => return Some(Err(e)),
                None => return take(&mut self.front, DoubleEndedIterator::next_back),
            }
        }
    }
}
