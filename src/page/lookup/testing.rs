//! For tests: the lookup functions, run on one page with vectors of every width.
//!
//! Floor: page. Failure: a panic if two widths disagree.

use super::{child, child_of_any, find, find_in_any, first_word, EntryOffset};
use crate::ids::PagePtr;
use crate::page::heads::{with_each_width, Search, Vectors};

/// The child of a branch, and whether [`child`] answered.
pub(crate) fn branch(page: &[u8], level: usize, key: &[u8]) -> Option<(PagePtr, bool)> {
    agreed(&with_each_width(|| InBranch(page, level, key)))
}

/// The value in a leaf, or `Some(None)` if the key is absent.
pub(crate) fn leaf<'a>(page: &'a [u8], key: &[u8]) -> Option<Option<&'a [u8]>> {
    agreed(&with_each_width(|| InLeaf(page, key)))
}

fn agreed<T: Copy + PartialEq>(answers: &[Option<T>]) -> Option<T> {
    assert!(answers.iter().all(|answer| *answer == answers[0]), "every width of vectors gives the same answer");
    answers[0]
}

struct InBranch<'a>(&'a [u8], usize, &'a [u8]);

impl Search for InBranch<'_> {
    type Answer = Option<(PagePtr, bool)>;

    fn with<V: Vectors>(self, vectors: V) -> Self::Answer {
        let InBranch(page, level, key) = self;
        let first = first_word(key).and_then(|word| child(vectors, page.first_chunk()?, level, key, word));
        match first {
            Some(first) => Some((first, true)),
            None => child_of_any(vectors, page, level, key).map(|any| (any, false)),
        }
    }
}

struct InLeaf<'a, 'k>(&'a [u8], &'k [u8]);

impl<'a> Search for InLeaf<'a, '_> {
    type Answer = Option<Option<&'a [u8]>>;

    fn with<V: Vectors>(self, vectors: V) -> Self::Answer {
        let InLeaf(page, key) = self;
        let mut found = find(vectors, page.first_chunk()?, key);
        if found == EntryOffset::ASK_LEAF {
            found = find_in_any(page, key);
        }
        if found == EntryOffset::ABSENT {
            return Some(None);
        }
        found.value(page, key).map(Some)
    }
}
