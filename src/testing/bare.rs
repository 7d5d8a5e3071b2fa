//! Lookups without anything that protects them, to measure what the protection costs.
//!
//! Floor: testing. The pages of a snapshot as they lie in the mapping: no marks, no checksums, and nobody asks whether
//! the system could serve what was read.

use crate::error::{Error, Result};
use crate::ids::{PageId, PagePtr};
use crate::mapping::View;
use crate::page::meta::TreeRoot;
use crate::pager::{PageRead, Residence};
use crate::table::ReadTable;
use crate::tree::{self, Top};

struct BarePages {
    view: View,
    page_shift: u32,
}

impl BarePages {
    #[inline]
    fn bytes(&self, id: PageId, pages: u64) -> Option<&[u8]> {
        self.view.bytes(id.0 << self.page_shift, (pages << self.page_shift) as usize)
    }
}

fn outside(id: PageId) -> Error {
    Error::corrupt(id, "outside of the mapping")
}

impl Residence for BarePages {}

impl PageRead for BarePages {
    #[inline]
    fn page_size(&self) -> usize {
        1 << self.page_shift
    }

    #[inline]
    fn page(&self, ptr: PagePtr) -> Result<&[u8]> {
        self.bytes(ptr.id, 1).ok_or_else(|| outside(ptr.id))
    }

    #[inline(always)]
    fn page_at_once(&self, ptr: PagePtr) -> Option<&[u8]> {
        self.bytes(ptr.id, 1)
    }

    fn run(&self, ptr: PagePtr, pages: u64) -> Result<&[u8]> {
        self.bytes(ptr.id, pages).ok_or_else(|| outside(ptr.id))
    }
}

/// A table that believes everything.
pub struct BareTable {
    pages: BarePages,
    root: TreeRoot,
    top: Option<Top>,
}

impl BareTable {
    /// The same entries as `table`, which has to live as long: nothing else keeps its snapshot.
    pub fn of(table: &ReadTable<&'static [u8], &'static [u8]>) -> BareTable {
        let env = table.txn().env();
        let pages = BarePages { view: env.mapping.view(), page_shift: env.page_size.trailing_zeros() };
        let top = Top::build(&pages, table.root(), tree::PAGES_LARGE).unwrap_or(None);
        BareTable { pages, root: *table.root(), top }
    }

    /// The value of a key.
    #[inline]
    pub fn get(&self, key: &[u8]) -> Result<Option<&[u8]>> {
        match tree::get_at_once(&self.pages, &self.root, self.top.as_ref(), key) {
            Some(answer) => Ok(answer.value()),
            None => tree::get_slowly(&self.pages, &self.root, key),
        }
    }
}
